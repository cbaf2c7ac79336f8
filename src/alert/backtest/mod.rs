//! A rule over the readings of the past: the episodes that it would have raised.
//!
//! Each reading counts as received when it was measured, so a backtest knows nothing of messages that came late. Readings of one instant count as
//! one message.

mod company;
mod message;

use std::collections::HashMap;
use std::sync::Arc;

pub use company::{Company, cast, companies, metrics, reach};

use super::evaluator::{Evaluator, Withheld};
use super::rule::{Rule, Severity};
use super::transition::{State, Transition};
use crate::catalog::{Device, Snapshot};
use crate::time::UtcMicros;
use message::Messages;

/// A reading as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct PastReading {
    pub time: UtcMicros,
    /// As in the `readings` view.
    pub metric: Arc<str>,
    pub unit: Arc<str>,
    pub value: PastValue,
}

#[derive(Clone, Debug, PartialEq)]
pub enum PastValue {
    Number(f64),
    Text(String),
}

/// A device and its readings, in order of time.
#[derive(Clone, Debug)]
pub struct PastOf<'a> {
    pub device: &'a Device,
    pub readings: Vec<PastReading>,
}

/// One that the rule would have raised.
#[derive(Clone, Debug, PartialEq)]
pub struct PastEpisode {
    pub id: Arc<str>,
    pub tenant: Arc<str>,
    /// Of a group, the member that brought it over.
    pub device: Arc<str>,
    pub group: Option<Arc<str>>,
    pub metric: Arc<str>,
    pub onset: UtcMicros,
    pub since: UtcMicros,
    /// None: it would go on.
    pub resolved: Option<UtcMicros>,
    /// The worst that it had.
    pub severity: Severity,
    /// With which it began.
    pub value: Option<f64>,
    pub threshold: Option<f64>,
    pub unit: Arc<str>,
    pub message: String,
}

impl PastEpisode {
    /// The group or the device, whichever it is about.
    pub fn about(&self) -> &Arc<str> {
        self.group.as_ref().unwrap_or(&self.device)
    }
}

/// What would have become of a rule on some devices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Past {
    /// Those that would go on at the beginning, or begin after it, as they began.
    pub episodes: Vec<PastEpisode>,
    /// Those that its schedule, maintenance or another rule would have held back at first, or altogether.
    pub withheld: Vec<Withheld>,
}

/// Runs the first rule of a cast, with the others that it depends on, over the readings of a company of devices, and lets time pass until
/// `until`; of the catalog its sites and its maintenance count.
pub fn backtest(
    cast: &[Arc<Rule>],
    company: &[PastOf<'_>],
    catalog: &Snapshot,
    (from, until): (UtcMicros, UtcMicros),
) -> Past {
    let Some(rule) = cast.first() else { return Past::default() };
    let blank = |of: &PastOf<'_>| Device { sensors: Vec::new(), last_seen: None, ..of.device.clone() };
    let (sites, maintenance) = (catalog.sites.clone(), catalog.maintenance.clone());
    let devices = company.iter().map(blank).collect();
    let snapshot = Snapshot { rules: cast.to_vec(), devices, sites, maintenance, ..Snapshot::default() };
    let mut evaluator = Evaluator::new(&snapshot, Vec::new());
    let mut episodes = Episodes::default();
    let mut messages = Messages::of(company);
    while let Some((time, seq, added)) = messages.take_next() {
        evaluator.message(time, seq, added);
        episodes.take(&rule.slug, evaluator.drain().0);
    }
    evaluator.advance(until, u64::MAX);
    episodes.take(&rule.slug, evaluator.drain().0);
    let mut found = episodes.found;
    found.retain(|episode| episode.resolved.is_none_or(|resolved| resolved > from));
    let mut withheld = evaluator.take_withheld();
    withheld.retain(|one| one.at >= from && one.rule == rule.slug);
    Past { episodes: found, withheld }
}

/// Episodes as their steps come.
#[derive(Default)]
struct Episodes {
    found: Vec<PastEpisode>,
    by_id: HashMap<Arc<str>, usize>,
}

impl Episodes {
    fn take(&mut self, slug: &str, steps: Vec<Transition>) {
        for step in steps.into_iter().filter(|step| *step.rule == *slug) {
            if let Some(known) = self.by_id.get(&step.id).and_then(|place| self.found.get_mut(*place)) {
                known.severity = known.severity.max(step.severity);
                if step.state == State::Resolved {
                    known.resolved = Some(step.at);
                }
                continue;
            }
            self.by_id.insert(Arc::clone(&step.id), self.found.len());
            self.found.push(PastEpisode {
                id: step.id,
                tenant: step.tenant,
                device: step.device,
                group: step.group,
                metric: step.metric,
                onset: step.onset,
                since: step.since,
                resolved: None,
                severity: step.severity,
                value: step.value,
                threshold: step.threshold,
                unit: step.unit,
                message: step.message,
            });
        }
    }
}

#[cfg(test)]
mod tests;
