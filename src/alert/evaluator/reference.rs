//! A slow and obvious evaluator that looks at every second of the past anew, and the properties that hold the real one to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::heed::SECOND;
use super::tests::{Sent, Stage, absent, gt, held, metric, rule, seconds};
use super::*;
use crate::alert::maintenance::Maintenance;
use crate::alert::rule::{
    Aggregate, Check, Compare, Condition, Dependency, DependsOn, Flapping, Resolve, Rule, Schedule, Scope, Test,
};
use crate::alert::times::{Moment, Spell, Times};
use crate::normalize::testing;

const T0: i64 = 1_700_000_000;

/// Readings of metrics by second; the device is heard with each.
pub(super) type History = BTreeMap<i64, Vec<(&'static str, f64)>>;

fn values<'h>(history: &'h History, name: &'h str, until: i64) -> impl DoubleEndedIterator<Item = (i64, f64)> + 'h {
    let of = move |at: &i64, all: &'h Vec<(&str, f64)>| {
        all.iter().find(|(metric, _)| *metric == name).map(|(_, value)| (*at, *value))
    };
    history.range(..=until).filter_map(move |(at, all)| of(at, all))
}

fn truth(history: &History, condition: &Condition, at: i64) -> Option<bool> {
    match &condition.test {
        Test::Metric { metric, check } => check_truth(history, metric, check, at),
        Test::Absent { metric: None, after } => {
            let heard = history.range(..=at).next_back().map(|(heard, _)| *heard)?;
            Some(at - heard >= after.as_secs() as i64)
        }
        Test::Absent { metric: Some(metric), after } => {
            // Never heard, it is silent since the device was heard first.
            let first = history.range(..=at).next().map(|(first, _)| *first)?;
            let heard = values(history, metric, at).next_back().map_or(first, |(heard, _)| heard);
            Some(at - heard >= after.as_secs() as i64)
        }
        Test::All(all) => {
            let all: Vec<_> = all.iter().map(|one| held_at(history, one, at)).collect();
            if all.contains(&Some(false)) {
                Some(false)
            } else if all.contains(&None) {
                None
            } else {
                Some(true)
            }
        }
        Test::Any(any) => {
            let any: Vec<_> = any.iter().map(|one| held_at(history, one, at)).collect();
            if any.contains(&Some(true)) {
                Some(true)
            } else if any.contains(&None) {
                None
            } else {
                Some(false)
            }
        }
        Test::Not(one) => held_at(history, one, at).map(|truth| !truth),
    }
}

fn check_truth(history: &History, name: &str, check: &Check, at: i64) -> Option<bool> {
    let newest = || values(history, name, at).next_back();
    match check {
        Check::Number(is) => newest().map(|(_, value)| is.holds(value)),
        Check::Samples { is, least, of } => {
            newest()?;
            Some(values(history, name, at).rev().take(*of).filter(|(_, value)| is.holds(*value)).count() >= *least)
        }
        Check::Window { over, aggregate, is } => {
            newest()?;
            let from = at - over.as_secs() as i64;
            let all: Vec<f64> = values(history, name, at).filter(|(time, _)| *time > from).map(|(_, v)| v).collect();
            let found = match aggregate {
                Aggregate::Count => all.len() as f64,
                _ if all.is_empty() => return None,
                Aggregate::Sum => all.iter().sum(),
                Aggregate::Max => all.iter().copied().fold(f64::MIN, f64::max),
                Aggregate::Min => all.iter().copied().fold(f64::MAX, f64::min),
                _ => all.iter().sum::<f64>() / all.len() as f64,
            };
            Some(is.holds(found))
        }
        Check::Rate { per, is, .. } => {
            let (now, value) = newest()?;
            let per = per.as_secs() as i64;
            let (then, before) = values(history, name, now - per).next_back()?;
            Some(is.holds((value - before) * per as f64 / (now - then) as f64))
        }
        Check::Stuck { over } => {
            let (now, value) = newest()?;
            let since = values(history, name, at).rev().take_while(|(_, other)| *other == value).last()?.0;
            Some(now - since >= over.as_secs() as i64)
        }
        _ => unreachable!("not generated"),
    }
}

fn held_at(history: &History, condition: &Condition, at: i64) -> Option<bool> {
    let now = truth(history, condition, at)?;
    let from = at - condition.hold.as_secs() as i64;
    Some(now && (from..=at).all(|second| truth(history, condition, second) == Some(true)))
}

/// Whether one of some times is so at a second.
fn within(times: &Times, at: i64) -> bool {
    times.0.iter().any(|spell| match spell {
        Spell::Once { from: Moment::At(from), to: Moment::At(to) } => (from.0..to.0).contains(&((T0 + at) * SECOND)),
        _ => unreachable!("not generated"),
    })
}

/// What else decides about a rule's episodes.
#[derive(Clone, Debug, Default)]
pub(super) struct Around {
    maintenance: Vec<Times>,
    /// Steps of the rule that it depends on.
    other: Vec<(&'static str, i64)>,
}

impl Around {
    /// Whether something but its schedule holds the rule back.
    fn holds_back(&self, rule: &Rule, at: i64) -> bool {
        let last = self.other.iter().rev().find(|(_, step)| *step <= at);
        let grace = rule.depends_on.first().map_or(0, |one| one.grace.as_secs() as i64);
        let other = last.is_some_and(|(state, step)| *state == "firing" || at < step + grace);
        other || self.maintenance.iter().any(|times| within(times, at))
    }
}

/// What decides about a rule's episodes, at any second.
pub(super) struct Tells<'a> {
    pub when: &'a dyn Fn(i64) -> Option<bool>,
    /// None: that `when` does not hold any more.
    pub clears: Option<&'a dyn Fn(i64) -> bool>,
    pub is_off: &'a dyn Fn(i64) -> bool,
    pub holds_back: &'a dyn Fn(i64) -> bool,
}

/// Every step of the rule's episodes on a device up to `end`, second by second.
pub(super) fn episodes(history: &History, rule: &Rule, around: &Around, end: i64) -> Vec<(&'static str, i64)> {
    let clears = rule.clear.as_ref().map(|clear| move |at| held_at(history, clear, at) == Some(true));
    let tells = Tells {
        when: &|at| held_at(history, &rule.when, at),
        clears: clears.as_ref().map(|clears| clears as &dyn Fn(i64) -> bool),
        is_off: &|at| rule.schedule.as_ref().is_some_and(|schedule| !within(&schedule.times, at)),
        holds_back: &|at| around.holds_back(rule, at),
    };
    course_of(rule, &tells, end)
}

/// Every step of a rule's episodes up to `end`.
pub(super) fn course_of(rule: &Rule, tells: &Tells<'_>, end: i64) -> Vec<(&'static str, i64)> {
    let mut steps = Vec::new();
    let (mut firing, mut quiet_until): (Option<i64>, i64) = (None, i64::MIN);
    let mut changes: Vec<i64> = Vec::new();
    // When it changed last, and to what, while it flaps.
    let mut wild: Option<(i64, bool)> = None;
    let mut flaps = |at: i64| {
        let Some(Flapping { changes: most, within, .. }) = rule.flapping else { return false };
        changes.retain(|change| *change > at - within.as_secs() as i64);
        changes.push(at);
        let so = changes.len() > most;
        if so {
            changes.clear();
        }
        so
    };
    for at in 0..=end {
        let (when, is_off) = ((tells.when)(at), (tells.is_off)(at));
        let clears = tells.clears.is_some_and(|clears| clears(at));
        let cleared = if tells.clears.is_some() { clears } else { when == Some(false) };
        if let (Some(since), true) = (firing, is_off)
            && at >= since + rule.min_firing.as_secs() as i64
        {
            steps.push(("resolved", at));
            (firing, wild) = (None, None);
            if !rule.cooldown.is_zero() {
                quiet_until = at + rule.cooldown.as_secs() as i64;
            }
        }
        if let (Some(_), Some((last, on))) = (firing, wild) {
            let calm = rule.flapping.map_or(0, |flapping| flapping.calm.as_secs() as i64);
            let turns = if on { cleared } else { when == Some(true) && !cleared && at >= quiet_until };
            let on = on != turns;
            if at >= last + calm {
                wild = None;
                // Calm and over, but not before its least time.
                if on || firing.is_some_and(|since| at < since + rule.min_firing.as_secs() as i64) {
                    steps.push(("firing", at));
                } else {
                    steps.push(("resolved", at));
                    firing = None;
                    if !rule.cooldown.is_zero() {
                        quiet_until = at + rule.cooldown.as_secs() as i64;
                    }
                }
            } else if turns {
                wild = Some((at, on));
            }
            continue;
        }
        match firing {
            None if when == Some(true) && !clears && at >= quiet_until && !is_off && !(tells.holds_back)(at) => {
                firing = Some(at);
                steps.push(("firing", at));
                wild = flaps(at).then_some((at, true));
            }
            None => {}
            Some(since) => {
                if cleared && at >= since + rule.min_firing.as_secs() as i64 && flaps(at) {
                    wild = Some((at, false));
                    steps.push(("firing", at));
                } else if cleared && at >= since + rule.min_firing.as_secs() as i64 {
                    steps.push(("resolved", at));
                    firing = None;
                    if !rule.cooldown.is_zero() {
                        quiet_until = at + rule.cooldown.as_secs() as i64;
                    }
                }
            }
        }
    }
    steps
}

fn compares() -> impl Strategy<Value = Compare> {
    let bound = (0..6_i32).prop_map(f64::from);
    (bound, 0..4).prop_map(|(bound, kind)| match kind {
        0 => Compare::Gt(bound),
        1 => Compare::Lt(bound),
        2 => Compare::Eq(bound),
        _ => Compare::Outside(bound - 2.0, bound),
    })
}

fn checks() -> impl Strategy<Value = Check> {
    let aggregates =
        prop_oneof![Just(Aggregate::Avg), Just(Aggregate::Count), Just(Aggregate::Max), Just(Aggregate::Sum)];
    prop_oneof![
        compares().prop_map(Check::Number),
        (compares(), 1..4_usize, 0..3_usize).prop_map(|(is, least, more)| Check::Samples {
            is,
            least,
            of: least + more
        }),
        (1..40_u64, aggregates, compares()).prop_map(|(over, aggregate, is)| Check::Window {
            over: seconds(over),
            aggregate,
            is
        }),
        (1..40_u64, compares()).prop_map(|(per, is)| Check::Rate { per: seconds(per), counter: false, is }),
        (1..40_u64).prop_map(|over| Check::Stuck { over: seconds(over) }),
    ]
}

fn conditions() -> impl Strategy<Value = Condition> {
    let holds = || prop_oneof![2 => Just(0_u64), 1 => 1..30_u64];
    let names = || prop_oneof![Just("a"), Just("b")];
    let leaf = prop_oneof![
        6 => (names(), checks(), holds()).prop_map(|(name, check, hold)| held(metric(name, check), hold)),
        1 => (proptest::option::of(names()), 5..60_u64, holds()).prop_map(|(name, after, hold)| held(absent(name, after), hold)),
    ];
    leaf.prop_recursive(2, 6, 3, move |inner| {
        let several = proptest::collection::vec(inner.clone(), 1..3);
        let tests = prop_oneof![
            several.clone().prop_map(Test::All),
            several.prop_map(Test::Any),
            inner.prop_map(|one| Test::Not(Box::new(one))),
        ];
        (tests, holds()).prop_map(|(test, hold)| Condition { test, hold: seconds(hold) })
    })
}

pub(super) fn rules() -> impl Strategy<Value = Rule> {
    let spans = || prop_oneof![2 => Just(0_u64), 1 => 1..60_u64];
    let flapping = (2..5_usize, 10..120_u64, 10..60_u64).prop_map(|(changes, within, calm)| Flapping {
        changes,
        within: seconds(within),
        calm: seconds(calm),
    });
    let more = (proptest::option::weighted(0.3, times()), proptest::option::weighted(0.3, flapping));
    (conditions(), proptest::option::of(conditions()), spans(), spans(), more).prop_map(
        |(when, clear, least, cooldown, (times, flapping))| Rule {
            clear,
            min_firing: seconds(least),
            cooldown: seconds(cooldown),
            schedule: times.map(|times| Schedule { times, zone: None }),
            flapping,
            ..rule("r", when)
        },
    )
}

/// One or two spells of the course.
fn times() -> impl Strategy<Value = Times> {
    let spell = (0..300_i64, 1..200_i64).prop_map(|(from, lasts)| {
        let moment = |second: i64| Moment::At(UtcMicros((T0 + second) * SECOND));
        Spell::Once { from: moment(from), to: moment(from + lasts) }
    });
    proptest::collection::vec(spell, 1..3).prop_map(Times)
}

/// Maintenance of every device, and a rule that the first one may depend on.
fn surroundings() -> impl Strategy<Value = (Vec<Times>, Option<(Rule, u64)>)> {
    let other = (rules(), 0..20_u64).prop_map(|(other, grace)| (Rule { slug: "a".into(), ..other }, grace));
    (proptest::collection::vec(times(), 0..2), proptest::option::weighted(0.4, other))
}

/// The rules of a case: the first one, and what it depends on.
fn cast(rule: Rule, other: Option<(Rule, u64)>) -> Vec<Arc<Rule>> {
    let Some((other, grace)) = other else { return vec![Arc::new(rule)] };
    let depends_on = vec![Dependency { rule: "a".into(), on: DependsOn::Device, grace: seconds(grace) }];
    vec![Arc::new(other), Arc::new(Rule { depends_on, ..rule })]
}

fn windows(times: &[Times]) -> Vec<Arc<Maintenance>> {
    let one = |times: &Times| Maintenance {
        name: "work".to_owned(),
        tenant: None,
        scope: Scope::default(),
        times: times.clone(),
        zone: None,
        note: None,
        ended_at: None,
    };
    times.iter().map(one).map(Arc::new).collect()
}

/// What a device sends: after so many seconds, of which metrics, which values.
pub(super) fn courses() -> impl Strategy<Value = History> {
    let value = || (0..6_i32).prop_map(f64::from);
    let readings = prop_oneof![
        value().prop_map(|a| vec![("a", a)]),
        value().prop_map(|b| vec![("b", b)]),
        (value(), value()).prop_map(|(a, b)| vec![("a", a), ("b", b)]),
    ];
    proptest::collection::vec((1..25_i64, readings), 1..25).prop_map(|all| {
        let mut at = 0;
        let placed = all.into_iter().map(|(gap, readings)| {
            at += gap;
            (at, readings)
        });
        placed.collect()
    })
}

fn send(stage: &mut Stage, at: i64, readings: &[(&'static str, f64)]) {
    let readings: Vec<_> = readings.iter().map(|(name, value)| (*name, Sent::from(*value))).collect();
    stage.send(at, "d", &readings);
}

/// What the database has of a device at a time.
fn stored(rules: &[Arc<Rule>], maintenance: &[Times], history: &History, until: i64) -> Snapshot {
    if history.range(..=until).next().is_none() {
        return Snapshot { rules: rules.to_vec(), maintenance: windows(maintenance), ..Snapshot::default() };
    }
    let mut device = testing::device(1, "d", None);
    device.last_seen = history.range(..=until).next_back().map(|(at, _)| UtcMicros((T0 + at) * SECOND));
    for (id, name) in [(1, "a"), (2, "b")] {
        if let Some((at, value)) = values(history, name, until).next_back() {
            device.sensors.push(testing::sensor(id, name, Some(((T0 + at) * SECOND, value))));
        }
    }
    Snapshot { rules: rules.to_vec(), maintenance: windows(maintenance), devices: vec![device], ..Snapshot::default() }
}

fn recall(stage: &mut Stage, history: &History, until: i64) {
    let found = stage.evaluator.wanted().into_iter().map(|(id, since, most)| {
        let name = if id == 1 { "a" } else { "b" };
        let all = values(history, name, until).map(|(at, value)| (UtcMicros((T0 + at) * SECOND), value));
        let all: Vec<_> = all.filter(|(at, _)| *at >= since).collect();
        (id, all.get(all.len().saturating_sub(most)..).unwrap_or_default().to_vec())
    });
    let found: Vec<_> = found.collect();
    stage.evaluator.recall(&found);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn steps_are_those_of_the_slow_and_obvious_evaluator(
        rule in rules(),
        (maintenance, other) in surroundings(),
        history in courses(),
    ) {
        let end = history.keys().next_back().copied().unwrap_or(0) + 200;
        let rules = cast(rule, other);
        let mut stage = Stage::with(stored(&rules, &maintenance, &History::new(), -1));
        for (at, readings) in &history {
            send(&mut stage, *at, readings);
        }
        stage.tick(end);
        let mut around = Around { maintenance, other: Vec::new() };
        for rule in &rules {
            let steps = episodes(&history, rule, &around, end);
            let found: Vec<_> = stage.told.iter().filter(|step| step.rule == rule.slug).collect();
            let found: Vec<_> =
                found.iter().map(|step| (step.state.word(), step.at.0 / SECOND - T0)).collect();
            prop_assert_eq!(found, steps.clone());
            around.other = steps;
        }
    }

    #[test]
    fn ticks_restarts_and_batches_change_nothing(
        rule in rules(),
        (maintenance, other) in surroundings(),
        history in courses(),
        ticks in proptest::collection::vec(0..400_i64, 0..10),
        restarts in proptest::collection::vec(0..25_usize, 0..4),
    ) {
        let end = history.keys().next_back().copied().unwrap_or(0) + 200;
        let rules = cast(rule, other);
        let stored = |history: &History, until: i64| stored(&rules, &maintenance, history, until);
        let mut plain = Stage::with(stored(&History::new(), -1));
        let mut cut = Stage::with(stored(&History::new(), -1));
        let mut last = 0;
        for (number, (at, readings)) in history.iter().enumerate() {
            send(&mut plain, *at, readings);
            if restarts.contains(&number) {
                let snapshot = stored(&history, last);
                cut.restart(&snapshot);
                recall(&mut cut, &history, last);
            }
            let mut between: Vec<_> = ticks.iter().filter(|tick| **tick > last && **tick < *at).collect();
            between.sort_unstable();
            for tick in between {
                cut.tick(*tick);
            }
            send(&mut cut, *at, readings);
            last = *at;
        }
        plain.tick(end);
        cut.tick(end);
        let told = |stage: &Stage| -> Vec<_> {
            stage.told.iter().map(|step| (step.id.clone(), step.step, step.state, step.at, step.value)).collect()
        };
        prop_assert_eq!(told(&plain), told(&cut));
    }
}

#[test]
fn the_reference_knows_what_is_plain() {
    let history: History = [(0, vec![("a", 1.0)]), (10, vec![("a", 5.0)]), (50, vec![("a", 1.0)])].into();
    let hot = rule("r", held(gt("a", 3.0), 20));
    assert_eq!(episodes(&history, &hot, &Around::default(), 100), [("firing", 30), ("resolved", 50)]);
    assert_eq!(hot.resolve, Resolve::Auto);
}
