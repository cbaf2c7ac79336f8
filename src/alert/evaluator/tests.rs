//! Truth tables of every condition, and the life of episodes, in seconds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::heed::SECOND;
use super::*;
use crate::alert::rule::{
    Aggregate, Area, Check, Compare, Condition, Raise, Resolve, Rule, Scope, Season, Selector, Severity, Test,
};
use crate::alert::transition::{Action, Deed, Who};
use crate::catalog::Kind;
use crate::config::Duplicates;
use crate::store::batch::{Change, SensorOrigin};

const T0: i64 = 1_700_000_000 * SECOND;

pub(super) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn metric(metric: &str, check: Check) -> Condition {
    Condition { test: Test::Metric { metric: metric.into(), check }, hold: Duration::ZERO }
}

pub(super) fn gt(name: &str, bound: f64) -> Condition {
    metric(name, Check::Number(Compare::Gt(bound)))
}

pub(super) fn held(condition: Condition, hold: u64) -> Condition {
    Condition { hold: seconds(hold), ..condition }
}

pub(super) fn absent(metric: Option<&str>, after: u64) -> Condition {
    Condition { test: Test::Absent { metric: metric.map(Into::into), after: seconds(after) }, hold: Duration::ZERO }
}

pub(super) fn rule(slug: &str, when: Condition) -> Rule {
    Rule {
        slug: slug.into(),
        name: slug.to_owned(),
        tenant: None,
        severity: Severity::Warning,
        scope: Scope::default(),
        when,
        clear: None,
        raise: Vec::new(),
        min_firing: Duration::ZERO,
        resolve: Resolve::Auto,
        cooldown: Duration::ZERO,
        message: None,
        labels: BTreeMap::new(),
        runbook: None,
        schedule: None,
        depends_on: Vec::new(),
        flapping: None,
        escalation: None,
        group: None,
    }
}

/// Devices that send, and what the rules say of it.
pub(super) struct Stage {
    pub evaluator: Evaluator,
    devices: Vec<String>,
    sensors: Vec<(u32, String)>,
    seq: u64,
    pub told: Vec<Transition>,
    /// The newest memory of each rule and whom it is kept for.
    pub kept: BTreeMap<(Arc<str>, Holder), String>,
}

#[derive(Clone, Debug)]
pub(super) enum Sent {
    Number(f64),
    Text(String),
}

impl From<f64> for Sent {
    fn from(value: f64) -> Sent {
        Sent::Number(value)
    }
}

impl From<&str> for Sent {
    fn from(text: &str) -> Sent {
        Sent::Text(text.to_owned())
    }
}

impl Stage {
    pub fn new(rules: Vec<Rule>) -> Stage {
        Stage::with(Snapshot { rules: rules.into_iter().map(Arc::new).collect(), ..Snapshot::default() })
    }

    pub fn with(snapshot: Snapshot) -> Stage {
        let evaluator = Evaluator::new(&snapshot, Vec::new());
        Stage { evaluator, devices: Vec::new(), sensors: Vec::new(), seq: 0, told: Vec::new(), kept: BTreeMap::new() }
    }

    /// A message of a device, received and timed at so many seconds.
    pub fn send(&mut self, at: i64, device: &str, readings: &[(&str, Sent)]) -> &mut Stage {
        self.receive(at, device, at, readings)
    }

    /// A message received at one time with readings of another.
    pub fn receive(&mut self, received: i64, device: &str, at: i64, readings: &[(&str, Sent)]) -> &mut Stage {
        self.receive_micros(T0 + received * SECOND, device, T0 + at * SECOND, readings)
    }

    pub fn receive_micros(&mut self, received: i64, device: &str, at: i64, readings: &[(&str, Sent)]) -> &mut Stage {
        self.seq += 1;
        let (mut devices, mut sensors) = (Vec::new(), Vec::new());
        let index = match self.devices.iter().position(|known| known == device) {
            Some(index) => index as u32,
            None => {
                let index = self.devices.len() as u32;
                self.devices.push(device.to_owned());
                devices.push(intro(index, device));
                index
            }
        };
        let (mut numbers, mut texts) = (Vec::new(), Vec::new());
        for (name, value) in readings {
            let key = (index, (*name).to_owned());
            let sensor = match self.sensors.iter().position(|known| *known == key) {
                Some(sensor) => sensor as u32,
                None => {
                    self.sensors.push(key);
                    let sensor = self.sensors.len() as u32 - 1;
                    sensors.push(sensor_intro(sensor, index, name));
                    sensor
                }
            };
            let time = UtcMicros(at);
            match value {
                Sent::Number(value) => numbers.push(Reading { sensor, time, value: *value, seq: self.seq }),
                Sent::Text(value) => texts.push(TextReading { sensor, time, value: value.clone(), seq: self.seq }),
            }
        }
        let received = UtcMicros(received);
        let seen = [(index, received)];
        let added = Added {
            devices: &devices,
            sensors: &sensors,
            changes: &[],
            readings: &numbers,
            texts: &texts,
            seen: &seen,
        };
        self.evaluator.message(received, self.seq, added);
        self.drain()
    }

    /// A message tells that a device is behind another; both were heard before.
    pub fn put_behind(&mut self, device: &str, gateway: &str) -> &mut Stage {
        let index = |uid: &str| self.devices.iter().position(|known| known == uid).unwrap() as u32;
        let change = Change::Parent(index(gateway));
        let changes = [DeviceChange { device: index(device), sensors_before: 0, change }];
        let added = Added { devices: &[], sensors: &[], changes: &changes, readings: &[], texts: &[], seen: &[] };
        let now = UtcMicros(self.evaluator.now);
        self.evaluator.message(now, self.seq, added);
        self.drain()
    }

    /// Nothing but time passes.
    pub fn tick(&mut self, at: i64) -> &mut Stage {
        self.tick_micros(T0 + at * SECOND)
    }

    pub fn tick_micros(&mut self, at: i64) -> &mut Stage {
        self.seq += 1;
        self.evaluator.advance(UtcMicros(at), self.seq);
        self.drain()
    }

    pub fn act(&mut self, at: i64, deed: Deed) -> &mut Stage {
        self.ask(at, deed, None)
    }

    /// What a command has asked has a number.
    pub fn ask(&mut self, at: i64, deed: Deed, ask: Option<i64>) -> &mut Stage {
        self.seq += 1;
        let id = self.told.last().unwrap().id.to_string();
        let action = Action { id, action: deed, who: "kim".to_owned(), note: String::new(), ask };
        assert!(self.evaluator.act(&action, UtcMicros(T0 + at * SECOND), self.seq));
        self.drain()
    }

    pub fn drain(&mut self) -> &mut Stage {
        let (told, kept) = self.evaluator.drain();
        self.told.extend(told);
        for change in kept {
            let key = (change.rule, change.holder);
            match change.state {
                Some(state) => self.kept.insert(key, state),
                None => self.kept.remove(&key),
            };
        }
        self
    }

    /// Takes another catalog, and introduces its devices anew.
    pub fn replace(&mut self, snapshot: &Snapshot) -> &mut Stage {
        self.evaluator.replace(snapshot);
        self.devices.clear();
        self.sensors.clear();
        self
    }

    /// Ends, and starts again from what was kept, as the database has it.
    pub fn restart(&mut self, snapshot: &Snapshot) -> &mut Stage {
        let remembered = self.kept.iter().map(|((rule, holder), state)| Remembered {
            rule: Arc::clone(rule),
            tenant: "default".into(),
            holder: holder.clone(),
            state: state.clone(),
        });
        self.evaluator = Evaluator::new(snapshot, remembered.collect());
        self.devices.clear();
        self.sensors.clear();
        self
    }

    /// State and seconds of each step so far.
    pub fn steps(&self) -> Vec<(&'static str, i64)> {
        self.told.iter().map(|step| (step.state.word(), (step.at.0 - T0) / SECOND)).collect()
    }
}

fn intro(index: u32, device: &str) -> DeviceIntro {
    DeviceIntro {
        index,
        id: None,
        tenant: "default".into(),
        uid: device.into(),
        template: None,
        template_by: None,
        told: Vec::new(),
        protocol: None,
        protocol_why: None,
        source: String::new(),
        first_seen: UtcMicros(0),
    }
}

fn sensor_intro(index: u32, device: u32, metric: &str) -> SensorIntro {
    SensorIntro {
        index,
        id: None,
        device,
        module: None,
        metric: metric.into(),
        unit: "°C".to_owned(),
        kind: Kind::Number,
        plain: true,
        origin: SensorOrigin::Unmodeled,
        raw_key: None,
    }
}

/// What a rule says of one metric's readings, a second apart from 0.
fn course(when: Condition, values: &[f64]) -> Vec<(&'static str, i64)> {
    let mut stage = Stage::new(vec![rule("r", when)]);
    for (at, value) in (0..).zip(values) {
        stage.send(at, "d", &[("m", (*value).into())]);
    }
    stage.steps()
}

#[test]
fn comparisons() {
    use Compare::*;
    for (compare, holds) in [
        (Gt(2.0), [false, false, true]),
        (Gte(2.0), [false, true, true]),
        (Lt(2.0), [true, false, false]),
        (Lte(2.0), [true, true, false]),
        (Eq(2.0), [false, true, false]),
        (Ne(2.0), [true, false, true]),
        (Inside(1.5, 2.0), [false, true, false]),
        (Outside(1.5, 2.5), [true, false, true]),
    ] {
        for (value, holds) in [1.0, 2.0, 3.0].into_iter().zip(holds) {
            let steps = course(metric("m", Check::Number(compare)), &[value]);
            assert_eq!(!steps.is_empty(), holds, "{value} {compare:?}");
        }
    }
}

#[test]
fn texts() {
    let is = |not| metric("m", Check::Text { any: vec!["open".to_owned(), "ajar".to_owned()], not });
    let fires =
        |not, text: &str| !Stage::new(vec![rule("r", is(not))]).send(0, "d", &[("m", text.into())]).told.is_empty();
    assert_eq!([fires(false, "open"), fires(false, "ajar"), fires(false, "shut")], [true, true, false]);
    assert_eq!([fires(true, "open"), fires(true, "shut")], [false, true]);
}

#[test]
fn for_needs_the_condition_on_end_and_fires_by_the_clock_when_nothing_comes() {
    let mut stage = Stage::new(vec![rule("r", held(gt("m", 30.0), 120))]);
    stage.send(0, "d", &[("m", 31.0.into())]).send(60, "d", &[("m", 29.0.into())]).send(70, "d", &[("m", 31.0.into())]);
    stage.tick(189);
    assert_eq!(stage.steps(), []);
    assert_eq!(stage.evaluator.next_due(), Some(UtcMicros(T0 + 190 * SECOND)));
    stage.tick(500);
    assert_eq!(stage.steps(), [("firing", 190)]);
    assert_eq!(
        (stage.told[0].onset.0 - T0, stage.told[0].value, stage.told[0].threshold),
        (70 * SECOND, Some(31.0), Some(30.0))
    );
    stage.send(501, "d", &[("m", 30.0.into())]);
    assert_eq!(stage.steps(), [("firing", 190), ("resolved", 501)]);
}

#[test]
fn a_later_reading_tells_that_it_held_meanwhile() {
    let mut stage = Stage::new(vec![rule("r", held(gt("m", 30.0), 120))]);
    // A device that was cut off sends what it measured, an hour late.
    stage.receive(3600, "d", 0, &[("m", 31.0.into())]).receive(3600, "d", 200, &[("m", 20.0.into())]);
    assert_eq!(stage.steps(), [("firing", 120), ("resolved", 200)]);
}

#[test]
fn a_device_whose_clock_is_behind_is_given_its_time() {
    let mut stage = Stage::new(vec![rule("r", held(gt("m", 30.0), 120))]);
    stage.receive(1000, "d", 0, &[("m", 31.0.into())]).tick(1119);
    assert_eq!(stage.steps(), []);
    stage.tick(1122);
    assert_eq!(stage.steps(), [("firing", 120)]);
}

#[test]
fn hysteresis_holds_between_the_thresholds() {
    let clear = held(metric("m", Check::Number(Compare::Lt(28.0))), 60);
    let mut stage = Stage::new(vec![Rule { clear: Some(clear), ..rule("r", gt("m", 30.0)) }]);
    for (at, value) in [(0, 31.0), (10, 29.0), (20, 31.0), (30, 27.0), (60, 29.0), (70, 27.0)] {
        stage.send(at, "d", &[("m", value.into())]);
    }
    assert_eq!(stage.steps(), [("firing", 0)]);
    stage.tick(1000);
    assert_eq!(stage.steps(), [("firing", 0), ("resolved", 130)]);
}

#[test]
fn any_is_or_and_all_is_and_and_readings_of_one_instant_count_together() {
    let truth = |test: Test, a: f64, b: f64| {
        let mut stage = Stage::new(vec![rule("r", Condition { test, hold: Duration::ZERO })]);
        stage.send(0, "d", &[("a", 0.0.into()), ("b", 0.0.into())]);
        stage.send(1, "d", &[("a", a.into()), ("b", b.into())]);
        !stage.told.is_empty()
    };
    let both = || vec![gt("a", 1.0), gt("b", 1.0)];
    for (a, b) in [(0.0, 0.0), (0.0, 2.0), (2.0, 0.0), (2.0, 2.0)] {
        assert_eq!(truth(Test::Any(both()), a, b), a > 1.0 || b > 1.0);
        assert_eq!(truth(Test::All(both()), a, b), a > 1.0 && b > 1.0);
    }
    let not = || Test::Not(Box::new(gt("a", 1.0)));
    assert!(
        truth(not(), 0.0, 0.0)
            && !Stage::new(vec![rule("r", Condition { test: not(), hold: seconds(0) })])
                .send(0, "d", &[("b", 1.0.into())])
                .told
                .iter()
                .any(|_| true),
        "what was never told is not `not`"
    );
    // Both change at once: at no time were both above.
    let mut stage = Stage::new(vec![rule("r", Condition { test: Test::All(both()), hold: Duration::ZERO })]);
    stage.send(0, "d", &[("a", 0.0.into()), ("b", 2.0.into())]).send(1, "d", &[("a", 2.0.into()), ("b", 0.0.into())]);
    assert_eq!(stage.steps(), []);
}

#[test]
fn samples_windows_rates_and_stuck_values() {
    let samples = metric("m", Check::Samples { is: Compare::Gt(5.0), least: 2, of: 3 });
    assert_eq!(course(samples, &[9.0, 1.0, 9.0, 1.0, 1.0]), [("firing", 2), ("resolved", 3)]);
    let window = |aggregate, is| metric("m", Check::Window { over: seconds(3), aggregate, is });
    assert_eq!(course(window(Aggregate::Avg, Compare::Gt(2.0)), &[1.0, 2.0, 3.0, 4.0, 0.0]), [("firing", 3)]);
    assert_eq!(course(window(Aggregate::Max, Compare::Lt(2.0)), &[5.0, 1.0, 1.0, 1.0]), [("firing", 3)]);
    let rate = metric("m", Check::Rate { per: seconds(2), counter: false, is: Compare::Gt(3.0) });
    assert_eq!(course(rate, &[0.0, 1.0, 2.0, 6.0, 6.0, 6.0]), [("firing", 3), ("resolved", 5)]);
    let counter = metric("m", Check::Rate { per: seconds(2), counter: true, is: Compare::Gte(4.0) });
    assert_eq!(course(counter, &[0.0, 2.0, 4.0, 1.0, 5.0]), [("firing", 2), ("resolved", 3), ("firing", 4)]);
    let stuck = metric("m", Check::Stuck { over: seconds(3) });
    assert_eq!(course(stuck, &[1.0, 2.0, 2.0, 2.0, 2.0, 3.0]), [("firing", 4), ("resolved", 5)]);
}

#[test]
fn a_window_empties_by_the_clock() {
    let few = metric("m", Check::Window { over: seconds(60), aggregate: Aggregate::Count, is: Compare::Lt(2.0) });
    let mut stage = Stage::new(vec![rule("r", few)]);
    stage.send(0, "d", &[("m", 1.0.into())]).send(10, "d", &[("m", 1.0.into())]).tick(1000);
    assert_eq!(stage.steps(), [("firing", 0), ("resolved", 10), ("firing", 60)]);
}

#[test]
fn of_one_instant_a_window_keeps_the_reading_that_the_database_keeps() {
    let most = || metric("m", Check::Window { over: seconds(60), aggregate: Aggregate::Max, is: Compare::Gt(30.0) });
    for (duplicates, steps) in [(Duplicates::KeepFirst, vec![]), (Duplicates::KeepLast, vec![("firing", 10)])] {
        let mut stage = Stage::new(vec![rule("r", most())]);
        stage.evaluator = stage.evaluator.keeping(duplicates);
        // A change of the catalog changes nothing about it.
        stage.replace(&Snapshot { rules: vec![Arc::new(rule("r", most()))], ..Snapshot::default() });
        stage.send(10, "d", &[("m", 20.0.into())]).receive(11, "d", 10, &[("m", 40.0.into())]);
        assert_eq!(stage.steps(), steps, "{duplicates:?}");
    }
}

#[test]
fn differences_and_areas() {
    let difference = metric("supply", Check::Difference { other: "back".into(), is: Compare::Lt(5.0) });
    let mut stage = Stage::new(vec![rule("r", difference)]);
    stage.send(0, "d", &[("supply", 50.0.into())]).send(1, "d", &[("back", 40.0.into())]).send(
        2,
        "d",
        &[("back", 46.0.into())],
    );
    assert_eq!(stage.steps(), [("firing", 2)]);
    assert_eq!((stage.told[0].value, stage.told[0].threshold), (Some(4.0), Some(5.0)));

    let area = Area::Circle { centre: (52.0, 13.0), radius: 1000.0 };
    let left = metric("latitude", Check::Geofence { longitude: "longitude".into(), area, inside: false });
    let mut stage = Stage::new(vec![rule("r", left)]);
    let mut at = |time, lat: f64, lon: f64| {
        stage.send(time, "d", &[("latitude", lat.into()), ("longitude", lon.into())]);
    };
    at(0, 52.001, 13.001);
    at(1, 52.1, 13.0);
    at(2, 52.0, 13.0);
    assert_eq!(stage.steps(), [("firing", 1), ("resolved", 2)]);
}

#[test]
fn what_is_unusual_for_the_hour() {
    let odd = metric("m", Check::Anomaly { deviations: 4.0, season: Season::None });
    let mut stage = Stage::new(vec![rule("r", odd)]);
    for minute in 0..120 {
        stage.send(minute * 60, "d", &[("m", (20.0 + f64::from(minute as i32 % 5)).into())]);
    }
    assert_eq!(stage.steps(), []);
    stage.send(7200, "d", &[("m", 60.0.into())]).send(7260, "d", &[("m", 22.0.into())]);
    assert_eq!(stage.steps(), [("firing", 7200), ("resolved", 7260)]);
}

#[test]
fn silence_is_noticed_by_the_clock_and_only_by_it() {
    let mut stage = Stage::new(vec![rule("r", absent(None, 600))]);
    stage.send(0, "d", &[("m", 1.0.into())]).send(500, "d", &[("m", 1.0.into())]).tick(1099);
    assert_eq!(stage.steps(), []);
    stage.tick(5000);
    assert_eq!(stage.steps(), [("firing", 1100)]);
    stage.send(5001, "d", &[]);
    assert_eq!(stage.steps(), [("firing", 1100), ("resolved", 5001)]);

    // A device whose clock runs ahead is no silent device.
    let mut stage = Stage::new(vec![rule("r", absent(None, 60))]);
    stage.send(0, "d", &[("m", 1.0.into())]).receive(30, "d", 300, &[("m", 1.0.into())]);
    assert_eq!(stage.steps(), []);
}

#[test]
fn one_metric_may_be_silent_while_the_device_speaks() {
    let mut stage = Stage::new(vec![rule("r", absent(Some("m"), 600))]);
    stage.send(0, "d", &[("m", 1.0.into())]);
    for at in 1..20 {
        stage.send(at * 60, "d", &[("other", 1.0.into())]);
    }
    assert_eq!(stage.steps(), [("firing", 600)]);
}

#[test]
fn a_device_that_was_never_heard_is_silent_from_the_rules_beginning() {
    let device = crate::normalize::testing::device(1, "d", None);
    let snapshot =
        Snapshot { rules: vec![Arc::new(rule("r", absent(None, 600)))], devices: vec![device], ..Snapshot::default() };
    let mut stage = Stage::with(snapshot.clone());
    assert!(stage.evaluator.next_due().is_some(), "the clock is asked for at once");
    stage.tick(0).tick(300).restart(&snapshot).tick(301);
    assert_eq!(stage.steps(), []);
    stage.tick(700);
    assert_eq!(stage.steps(), [("firing", 600)]);
}

#[test]
fn late_readings_change_no_comparison_but_belong_to_windows() {
    let mut stage = Stage::new(vec![rule("r", gt("m", 30.0))]);
    stage.send(10, "d", &[("m", 20.0.into())]).receive(11, "d", 5, &[("m", 40.0.into())]);
    assert_eq!((stage.steps(), stage.evaluator.take_late()), (vec![], 1));
    let average = metric("m", Check::Window { over: seconds(60), aggregate: Aggregate::Avg, is: Compare::Gt(25.0) });
    let mut stage = Stage::new(vec![rule("r", average)]);
    stage.send(10, "d", &[("m", 20.0.into())]).receive(11, "d", 5, &[("m", 40.0.into())]);
    assert_eq!(stage.steps(), [("firing", 10)]);
}

#[test]
fn severity_rises_and_falls_within_the_episode() {
    let raise = vec![Raise { severity: Severity::Critical, when: gt("m", 40.0) }];
    let mut stage = Stage::new(vec![Rule { raise, ..rule("r", gt("m", 30.0)) }]);
    for (at, value) in [(0, 31.0), (1, 41.0), (2, 42.0), (3, 35.0), (4, 20.0)] {
        stage.send(at, "d", &[("m", value.into())]);
    }
    let severities: Vec<_> = stage.told.iter().map(|step| (step.step, step.severity)).collect();
    use Severity::*;
    assert_eq!(severities, [(0, Warning), (1, Critical), (2, Warning), (3, Warning)]);
    assert!(stage.told.iter().all(|step| step.id == stage.told[0].id));
}

#[test]
fn an_episode_lasts_its_least_time_and_the_next_waits_for_the_cooldown() {
    let mut stage =
        Stage::new(vec![Rule { min_firing: seconds(60), cooldown: seconds(100), ..rule("r", gt("m", 30.0)) }]);
    stage.send(0, "d", &[("m", 31.0.into())]).send(10, "d", &[("m", 20.0.into())]).tick(59);
    assert_eq!(stage.steps(), [("firing", 0)]);
    stage.tick(61).send(70, "d", &[("m", 31.0.into())]);
    assert_eq!(stage.steps(), [("firing", 0), ("resolved", 60)]);
    stage.tick(1000);
    assert_eq!(stage.steps(), [("firing", 0), ("resolved", 60), ("firing", 160)]);
}

#[test]
fn people_acknowledge_snooze_and_resolve() {
    let mut stage = Stage::new(vec![Rule { resolve: Resolve::Manual, ..rule("r", gt("m", 30.0)) }]);
    stage.send(0, "d", &[("m", 31.0.into())]).act(5, Deed::Acknowledge).act(6, Deed::Acknowledge).send(
        10,
        "d",
        &[("m", 20.0.into())],
    );
    assert_eq!(stage.steps(), [("firing", 0), ("acknowledged", 5)]);
    assert_eq!(stage.told[1].who, Who::Person("kim".to_owned()));
    stage.send(11, "d", &[("m", 35.0.into())]).act(20, Deed::Snooze { until: T0 + 100 * SECOND });
    assert!(stage.told.last().unwrap().snoozed);
    stage.tick(101);
    assert!(!stage.told.last().unwrap().snoozed);
    stage.act(110, Deed::Resolve).send(120, "d", &[("m", 36.0.into())]);
    assert_eq!(stage.steps().last(), Some(&("resolved", 110)), "it must cease before it fires again");
    stage.send(130, "d", &[("m", 20.0.into())]).send(140, "d", &[("m", 36.0.into())]);
    assert_eq!(stage.steps().last(), Some(&("firing", 140)));
    assert_ne!(stage.told[0].id, stage.told.last().unwrap().id);
}

#[test]
fn what_is_asked_once_and_comes_twice_is_one_step() {
    let mut stage = Stage::new(vec![rule("r", gt("m", 30.0))]);
    stage.send(0, "d", &[("m", 31.0.into())]);
    for _ in 0..2 {
        stage.ask(5, Deed::Note, Some(7)).ask(6, Deed::Note, Some(8)).ask(
            7,
            Deed::Snooze { until: T0 + 100 * SECOND },
            Some(9),
        );
    }
    assert_eq!(stage.told.len(), 4, "two remarks and a snooze");
    stage.ask(8, Deed::Note, Some(10)).ask(9, Deed::Note, None).ask(10, Deed::Note, None);
    assert_eq!(stage.told.len(), 7, "another remark is another step");
}

#[test]
fn scopes_choose_devices() {
    let scope = Scope {
        of: vec![Selector::Device(vec!["pump-*".to_owned()])],
        except: vec![Selector::Device(vec!["pump-2".to_owned()])],
    };
    let mut stage = Stage::new(vec![Rule { scope, ..rule("r", gt("m", 1.0)) }]);
    for device in ["pump-1", "pump-2", "fan-1"] {
        stage.send(0, device, &[("m", 2.0.into())]);
    }
    assert_eq!(stage.told.iter().map(|step| &*step.device).collect::<Vec<_>>(), ["pump-1"]);
}

#[test]
fn pending_conditions_episodes_and_their_ids_survive_a_restart() {
    let rules = vec![Arc::new(rule("r", held(gt("m", 30.0), 120)))];
    let snapshot =
        Snapshot { rules, devices: vec![crate::normalize::testing::device(1, "d", None)], ..Snapshot::default() };
    let mut whole = Stage::with(snapshot.clone());
    let mut cut = Stage::with(snapshot.clone());
    for stage in [&mut whole, &mut cut] {
        stage.send(0, "d", &[("m", 31.0.into())]);
    }
    cut.restart(&snapshot);
    for stage in [&mut whole, &mut cut] {
        stage.send(60, "d", &[("m", 32.0.into())]).tick(200);
    }
    cut.restart(&snapshot);
    for stage in [&mut whole, &mut cut] {
        stage.send(300, "d", &[("m", 10.0.into())]);
    }
    assert_eq!(whole.steps(), [("firing", 120), ("resolved", 300)]);
    let plain = |stage: &Stage| stage.told.iter().map(|step| (step.id.clone(), step.step, step.at)).collect::<Vec<_>>();
    assert_eq!(plain(&whole), plain(&cut));
    assert!(cut.kept.is_empty(), "nothing is left to be remembered: {:?}", cut.kept);
}

#[test]
fn a_rule_that_goes_ends_its_episodes() {
    let mut stage = Stage::new(vec![rule("r", gt("m", 30.0))]);
    stage.send(0, "d", &[("m", 31.0.into())]);
    stage.evaluator.replace(&Snapshot::default());
    assert!(!stage.evaluator.is_idle());
    stage.tick(5);
    assert_eq!(stage.steps(), [("firing", 0), ("resolved", 5)]);
    assert!(stage.evaluator.is_idle() && stage.kept.is_empty());
}

#[test]
fn states_go_on_where_other_rules_change() {
    let (one, other) = (Arc::new(rule("r", held(gt("m", 30.0), 60))), Arc::new(rule("s", gt("m", 50.0))));
    let mut stage = Stage::new(vec![Arc::unwrap_or_clone(Arc::clone(&one))]);
    stage.send(0, "d", &[("m", 31.0.into())]);
    stage.evaluator.replace(&Snapshot { rules: vec![other, one], ..Snapshot::default() });
    stage.tick(100);
    assert_eq!(stage.steps(), [("firing", 60)]);
}
