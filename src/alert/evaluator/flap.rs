//! A rule that changes too often on a device: it is said once, the alert stays, and nothing more is told until it has been calm.

use serde::{Deserialize, Serialize};

use super::fleet::{DeviceNo, Instance};
use super::judge::Judge;
use super::program::Compiled;
use super::restraint::Restraint;
use crate::alert::rule::{Flapping, Severity};
use crate::alert::transition::Who;

/// Changes between firing and resolved on one device; instants by its own time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Flap {
    /// The newest changes, the oldest first.
    changes: Vec<i64>,
    /// While it flaps: when it changed last, and whether it would be firing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wild: Option<(i64, bool)>,
}

impl Flap {
    /// Whether it flaps.
    pub fn is_wild(&self) -> bool {
        self.wild.is_some()
    }
}

/// What the conditions say at an instant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Says {
    pub begins: bool,
    pub cleared: bool,
    pub severity: Severity,
}

/// Notes a change; whether it flaps from now on. `fires`: what it changes to.
pub(super) fn note(instance: &mut Instance, rule: &Compiled, at: i64, fires: bool) -> bool {
    let Some(Flapping { changes: most, .. }) = rule.rule.flapping else { return false };
    let flap = instance.flap.get_or_insert_default();
    let from = at.saturating_sub(rule.flaps_within);
    flap.changes.retain(|change| *change > from);
    flap.changes.push(at);
    if flap.changes.len() <= most {
        return false;
    }
    flap.changes.clear();
    flap.wild = Some((at, fires));
    true
}

/// When it will have been calm, if it flaps.
pub(super) fn calm_at(instance: &Instance, rule: &Compiled) -> Option<i64> {
    let (last, _) = instance.flap.as_ref()?.wild?;
    Some(last.saturating_add(rule.flaps_calm))
}

impl Judge<'_> {
    /// Draws the conclusions for a rule that flaps. True: it still does, or its alert goes on though it does not.
    pub fn flutter(&mut self, device: DeviceNo, place: u32, at: i64, says: Says, restraint: Restraint) {
        let Some((instance, rule)) = self.instance(device, place) else { return };
        let calm = calm_at(instance, rule).is_some_and(|calm| calm <= at);
        let may_end = rule.may_end() && instance.episode.as_ref().is_some_and(|episode| at >= rule.may_end_at(episode));
        let Some((last, fires)) = instance.flap.as_mut().and_then(|flap| flap.wild.as_mut()) else { return };
        let changes = if *fires { says.cleared } else { says.begins };
        if changes {
            (*last, *fires) = (at, !*fires);
        }
        if calm {
            // A change at this very instant counts: nothing looks at it again before the next reading.
            let over = !*fires && may_end;
            instance.flap = None;
            let why = "it has been calm for long enough";
            if over {
                return self.resolve(device, place, at, Who::Rule, format!("{why}, and is over"));
            }
            return self.step(device, place, at, Who::Rule, format!("{why}: it flaps no more"));
        }
        // It may get worse, but not better meanwhile: that would flap as well. What holds back an alert holds back that too.
        let may_worsen = restraint.by.is_none();
        let worse = instance.episode.as_mut().filter(|episode| may_worsen && episode.severity < says.severity);
        if let Some(episode) = worse {
            let why = format!("from {} to {}", episode.severity.word(), says.severity.word());
            episode.severity = says.severity;
            self.step(device, place, at, Who::Rule, why);
        } else if changes {
            self.mark(device, place);
        }
    }
}
