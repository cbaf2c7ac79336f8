//! A rule over the readings of the past: the episodes that it would have raised.
//!
//! Each reading counts as received when it was measured, so a backtest knows nothing of messages that came late.

use std::sync::Arc;
use std::time::Duration;

use super::evaluator::{Added, Evaluator, Withheld};
use super::rule::{Check, Condition, Rule, Severity, Test};
use super::transition::{State, Transition};
use crate::catalog::{Device, Kind, Snapshot};
use crate::store::batch::{DeviceIntro, Reading, SensorIntro, SensorOrigin, TextReading};
use crate::time::UtcMicros;

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

/// One that the rule would have raised.
#[derive(Clone, Debug, PartialEq)]
pub struct PastEpisode {
    pub id: Arc<str>,
    pub tenant: Arc<str>,
    pub device: Arc<str>,
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

/// How far before an instant readings matter to the rule; what is usual is learned from further back.
pub fn reach(rule: &Rule) -> Duration {
    let conditions = [Some(&rule.when), rule.clear.as_ref()].into_iter().flatten();
    conditions.chain(rule.raise.iter().map(|raise| &raise.when)).map(span).max().unwrap_or_default()
}

fn span(condition: &Condition) -> Duration {
    let own = match &condition.test {
        Test::Metric { check: Check::Window { over, .. } | Check::Stuck { over }, .. } => *over,
        Test::Metric { check: Check::Rate { per, .. }, .. } => per.saturating_mul(4),
        Test::Metric { .. } => Duration::ZERO,
        Test::Absent { after, .. } => *after,
        Test::All(all) | Test::Any(all) => all.iter().map(span).max().unwrap_or_default(),
        Test::Not(one) => span(one),
    };
    own.saturating_add(condition.hold)
}

/// The metrics that the rule looks at; none: it looks at whether the device is heard at all.
pub fn metrics(rule: &Rule) -> Option<Vec<Arc<str>>> {
    let mut found = Vec::new();
    let conditions = [Some(&rule.when), rule.clear.as_ref()].into_iter().flatten();
    for condition in conditions.chain(rule.raise.iter().map(|raise| &raise.when)) {
        gather(condition, &mut found)?;
    }
    found.sort_unstable();
    found.dedup();
    Some(found)
}

fn gather(condition: &Condition, found: &mut Vec<Arc<str>>) -> Option<()> {
    match &condition.test {
        Test::Metric { metric, check } => {
            found.push(Arc::clone(metric));
            if let Check::Geofence { longitude: other, .. } | Check::Difference { other, .. } = check {
                found.push(Arc::clone(other));
            }
            Some(())
        }
        Test::Absent { metric: Some(metric), .. } => {
            found.push(Arc::clone(metric));
            Some(())
        }
        Test::Absent { metric: None, .. } => None,
        Test::All(all) | Test::Any(all) => all.iter().try_for_each(|one| gather(one, found)),
        Test::Not(one) => gather(one, found),
    }
}

/// What would have become of a rule on a device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Past {
    /// Those that would go on at the beginning, or begin after it.
    pub episodes: Vec<PastEpisode>,
    /// Those that its schedule or maintenance would have held back at first, or altogether.
    pub withheld: Vec<Withheld>,
}

/// Runs the rule over a device's readings, which are in order of time, and lets time pass until `until`; of the catalog its sites and its
/// maintenance count, but no other rule. None: the device is not in the rule's scope.
pub fn backtest(
    rule: &Arc<Rule>,
    device: &Device,
    catalog: &Snapshot,
    readings: &[PastReading],
    (from, until): (UtcMicros, UtcMicros),
) -> Option<Past> {
    let blank = Device { sensors: Vec::new(), last_seen: None, ..device.clone() };
    let (sites, maintenance) = (catalog.sites.clone(), catalog.maintenance.clone());
    let rules = vec![Arc::clone(rule)];
    let snapshot = Snapshot { rules, devices: vec![blank], sites, maintenance, ..Snapshot::default() };
    let mut evaluator = Evaluator::new(&snapshot, Vec::new());
    if !evaluator.looks_at_devices() {
        return None;
    }
    let mut names: Vec<Arc<str>> = Vec::new();
    let mut episodes = Vec::new();
    for (instant, seq) in readings.chunk_by(|a, b| a.time == b.time).zip(1..) {
        let Some(time) = instant.first().map(|reading| reading.time) else { continue };
        let message = Message::of(device, instant, &mut names, seq == 1, seq);
        evaluator.message(time, seq, message.added(&[(0, time)]));
        take(&mut episodes, evaluator.drain().0);
    }
    evaluator.advance(until, u64::MAX);
    take(&mut episodes, evaluator.drain().0);
    episodes.retain(|episode: &PastEpisode| episode.resolved.is_none_or(|resolved| resolved > from));
    let mut withheld = evaluator.take_withheld();
    withheld.retain(|one| one.at >= from);
    Some(Past { episodes, withheld })
}

/// The readings of one instant, as a message would have added them to a batch.
#[derive(Default)]
struct Message {
    devices: Vec<DeviceIntro>,
    sensors: Vec<SensorIntro>,
    numbers: Vec<Reading>,
    texts: Vec<TextReading>,
}

impl Message {
    fn of(device: &Device, instant: &[PastReading], names: &mut Vec<Arc<str>>, first: bool, seq: u64) -> Message {
        let mut message = Message::default();
        if first {
            message.devices.push(introduction(device));
        }
        for reading in instant {
            let known = names.iter().position(|name| *name == reading.metric);
            let place = known.unwrap_or_else(|| {
                names.push(Arc::clone(&reading.metric));
                names.len().saturating_sub(1)
            });
            let sensor = u32::try_from(place).unwrap_or(u32::MAX);
            if known.is_none() {
                message.sensors.push(sensor_introduction(sensor, reading));
            }
            let time = reading.time;
            match &reading.value {
                PastValue::Number(value) => message.numbers.push(Reading { sensor, time, value: *value, seq }),
                PastValue::Text(value) => message.texts.push(TextReading { sensor, time, value: value.clone(), seq }),
            }
        }
        message
    }

    fn added<'a>(&'a self, seen: &'a [(u32, UtcMicros)]) -> Added<'a> {
        let Message { devices, sensors, numbers, texts } = self;
        Added { devices, sensors, changes: &[], readings: numbers, texts, seen }
    }
}

fn introduction(device: &Device) -> DeviceIntro {
    DeviceIntro {
        index: 0,
        id: Some(device.id),
        tenant: Arc::clone(&device.tenant),
        uid: Arc::clone(&device.uid),
        template: device.template.clone(),
        template_by: None,
        told: Vec::new(),
        protocol: None,
        protocol_why: None,
        source: String::new(),
        first_seen: UtcMicros(0),
    }
}

fn sensor_introduction(index: u32, reading: &PastReading) -> SensorIntro {
    SensorIntro {
        index,
        id: None,
        device: 0,
        module: None,
        metric: Arc::clone(&reading.metric),
        unit: reading.unit.to_string(),
        kind: Kind::Number,
        plain: true,
        origin: SensorOrigin::Optional,
        raw_key: None,
    }
}

fn take(episodes: &mut Vec<PastEpisode>, steps: Vec<Transition>) {
    for step in steps {
        match episodes.last_mut().filter(|last| last.id == step.id) {
            Some(last) => {
                last.severity = last.severity.max(step.severity);
                if step.state == State::Resolved {
                    last.resolved = Some(step.at);
                }
            }
            None => episodes.push(PastEpisode {
                id: step.id,
                tenant: step.tenant,
                device: step.device,
                metric: step.metric,
                onset: step.onset,
                since: step.since,
                resolved: None,
                severity: step.severity,
                value: step.value,
                threshold: step.threshold,
                unit: step.unit,
                message: step.message,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::evaluator::HeldBack;
    use crate::alert::maintenance::Maintenance;
    use crate::alert::rule::{Compare, Resolve, Scope, Selector};
    use crate::alert::times::{Moment, Spell, Times};
    use crate::normalize::testing;

    fn rule(scope: Scope) -> Arc<Rule> {
        let check = Check::Number(Compare::Gt(30.0));
        let test = Test::Metric { metric: "temperature".into(), check };
        Arc::new(Rule {
            slug: "hot".into(),
            name: "Hot".to_owned(),
            tenant: None,
            severity: Severity::Warning,
            scope,
            when: Condition { test, hold: Duration::from_secs(60) },
            clear: None,
            raise: Vec::new(),
            min_firing: Duration::ZERO,
            resolve: Resolve::Auto,
            cooldown: Duration::ZERO,
            message: None,
            labels: Default::default(),
            runbook: None,
            schedule: None,
            depends_on: Vec::new(),
            flapping: None,
            escalation: None,
            group: None,
        })
    }

    fn readings(values: &[(i64, f64)]) -> Vec<PastReading> {
        let reading = |(second, value): &(i64, f64)| PastReading {
            time: UtcMicros(second * 1_000_000),
            metric: "temperature".into(),
            unit: "°C".into(),
            value: PastValue::Number(*value),
        };
        values.iter().map(reading).collect()
    }

    #[test]
    fn it_tells_what_would_have_been_raised() {
        let device = testing::device(1, "oven", None);
        let past = readings(&[(0, 31.0), (90, 20.0), (100, 35.0)]);
        let (from, until) = (UtcMicros(0), UtcMicros(500_000_000));
        let none = Snapshot::default();
        let test = |scope, from| backtest(&rule(scope), &device, &none, &past, (from, until));
        let found = test(Scope::default(), from).unwrap().episodes;
        let seconds: Vec<_> =
            found.iter().map(|one| (one.since.0 / 1_000_000, one.resolved.map(|at| at.0 / 1_000_000))).collect();
        assert_eq!(seconds, [(60, Some(90)), (160, None)]);
        let later = test(Scope::default(), UtcMicros(95_000_000)).unwrap().episodes;
        assert_eq!(later.len(), 1, "what was over before is left out");
        let elsewhere = Scope { of: vec![Selector::Device(vec!["pump".to_owned()])], except: Vec::new() };
        assert_eq!(test(elsewhere, from), None);
    }

    #[test]
    fn it_tells_what_maintenance_would_have_held_back() {
        let moment = |second: i64| Moment::At(UtcMicros(second * 1_000_000));
        let work = Maintenance {
            name: "work".to_owned(),
            tenant: None,
            scope: Scope::default(),
            times: Times(vec![Spell::Once { from: moment(0), to: moment(200) }]),
            zone: None,
            note: None,
            ended_at: None,
        };
        let catalog = Snapshot { maintenance: vec![Arc::new(work)], ..Snapshot::default() };
        let past = readings(&[(0, 31.0), (90, 20.0), (100, 35.0)]);
        let device = testing::device(1, "oven", None);
        let within = (UtcMicros(0), UtcMicros(500_000_000));
        let found = backtest(&rule(Scope::default()), &device, &catalog, &past, within).unwrap();
        assert_eq!(found.episodes.iter().map(|one| one.since.0 / 1_000_000).collect::<Vec<_>>(), [200]);
        let held: Vec<_> = found.withheld.iter().map(|one| (one.at.0 / 1_000_000, one.by)).collect();
        assert_eq!(held, [(60, HeldBack::Maintenance), (160, HeldBack::Maintenance)]);
    }

    #[test]
    fn it_knows_what_it_must_read() {
        let rule = rule(Scope::default());
        assert_eq!((metrics(&rule), reach(&rule)), (Some(vec!["temperature".into()]), Duration::from_secs(60)));
        let silent = Test::Absent { metric: None, after: Duration::from_secs(600) };
        let rule = Rule { when: Condition { test: silent, hold: Duration::ZERO }, ..Arc::unwrap_or_clone(rule) };
        assert_eq!((metrics(&rule), reach(&rule)), (None, Duration::from_secs(600)));
    }
}
