//! A slow and obvious evaluator that looks at every second of the past anew, and the properties that hold the real one to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::heed::SECOND;
use super::tests::{Sent, Stage, absent, gt, held, metric, rule, seconds};
use super::*;
use crate::alert::rule::{Aggregate, Compare, Condition, Resolve, Test};
use crate::normalize::testing;

const T0: i64 = 1_700_000_000;

/// Readings of metrics by second; the device is heard with each.
type History = BTreeMap<i64, Vec<(&'static str, f64)>>;

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

/// Every step of the rule's episodes up to `end`, second by second.
fn episodes(history: &History, rule: &Rule, end: i64) -> Vec<(&'static str, i64)> {
    let mut steps = Vec::new();
    let (mut firing, mut quiet_until): (Option<i64>, i64) = (None, i64::MIN);
    for at in 0..=end {
        let when = held_at(history, &rule.when, at);
        let clears = |at| rule.clear.as_ref().is_some_and(|clear| held_at(history, clear, at) == Some(true));
        match firing {
            None if when == Some(true) && !clears(at) && at >= quiet_until => {
                firing = Some(at);
                steps.push(("firing", at));
            }
            None => {}
            Some(since) => {
                let cleared = match &rule.clear {
                    Some(_) => clears(at),
                    None => when == Some(false),
                };
                if cleared && at >= since + rule.min_firing.as_secs() as i64 {
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

fn rules() -> impl Strategy<Value = Rule> {
    let spans = || prop_oneof![2 => Just(0_u64), 1 => 1..60_u64];
    (conditions(), proptest::option::of(conditions()), spans(), spans()).prop_map(|(when, clear, least, cooldown)| {
        Rule { clear, min_firing: seconds(least), cooldown: seconds(cooldown), ..rule("r", when) }
    })
}

/// What a device sends: after so many seconds, of which metrics, which values.
fn courses() -> impl Strategy<Value = History> {
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
fn stored(rules: &[Arc<Rule>], history: &History, until: i64) -> Snapshot {
    if history.range(..=until).next().is_none() {
        return Snapshot { rules: rules.to_vec(), ..Snapshot::default() };
    }
    let mut device = testing::device(1, "d", None);
    device.last_seen = history.range(..=until).next_back().map(|(at, _)| UtcMicros((T0 + at) * SECOND));
    for (id, name) in [(1, "a"), (2, "b")] {
        if let Some((at, value)) = values(history, name, until).next_back() {
            device.sensors.push(testing::sensor(id, name, Some(((T0 + at) * SECOND, value))));
        }
    }
    Snapshot { rules: rules.to_vec(), devices: vec![device], ..Snapshot::default() }
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
    fn steps_are_those_of_the_slow_and_obvious_evaluator(rule in rules(), history in courses()) {
        let end = history.keys().next_back().copied().unwrap_or(0) + 200;
        let mut stage = Stage::new(vec![rule.clone()]);
        for (at, readings) in &history {
            send(&mut stage, *at, readings);
        }
        stage.tick(end);
        prop_assert_eq!(stage.steps(), episodes(&history, &rule, end));
    }

    #[test]
    fn ticks_restarts_and_batches_change_nothing(
        rule in rules(),
        history in courses(),
        ticks in proptest::collection::vec(0..400_i64, 0..10),
        restarts in proptest::collection::vec(0..25_usize, 0..4),
    ) {
        let end = history.keys().next_back().copied().unwrap_or(0) + 200;
        let mut plain = Stage::new(vec![rule.clone()]);
        let rules = [Arc::new(rule)];
        let mut cut = Stage::with(stored(&rules, &History::new(), -1));
        let mut last = 0;
        for (number, (at, readings)) in history.iter().enumerate() {
            send(&mut plain, *at, readings);
            if restarts.contains(&number) {
                let snapshot = stored(&rules, &history, last);
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
    assert_eq!(episodes(&history, &hot, 100), [("firing", 30), ("resolved", 50)]);
    assert_eq!(hot.resolve, Resolve::Auto);
}
