//! A slow and obvious evaluator of rules that are kept for groups, beside that of devices, and the properties that hold the real one to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::heed::SECOND;
use super::reference::{Around, History, Tells, course_of, courses, episodes, rules};
use super::tests::Stage;
use super::*;
use crate::alert::rule::{By, Enough, Flapping, Group, Resolve, Rule};
use crate::catalog::Device;
use crate::normalize::testing;

const T0: i64 = 1_700_000_000;
const DEVICES: [&str; 3] = ["d0", "d1", "d2"];
/// Parts of a second: each device acts at its own, so that no two do at one instant.
const PARTS: i64 = 4;

fn enough() -> impl Strategy<Value = Enough> {
    prop_oneof![
        (1..4_u32).prop_map(Enough::Devices),
        (1..=100_u32).prop_map(|part| Enough::Share(f64::from(part) / 100.0))
    ]
}

fn fleet() -> impl Strategy<Value = Vec<History>> {
    proptest::collection::vec(courses(), DEVICES.len())
}

fn grouped(rule: Rule, enough: Enough) -> Rule {
    Rule { schedule: None, group: Some(Group { by: By::All, enough }), ..rule }
}

/// Every message of the fleet: when it comes in parts of a second, from which device, and at which second of its own.
fn messages(fleet: &[History]) -> BTreeMap<i64, (usize, i64)> {
    let of = |(device, history): (usize, &History)| -> Vec<(i64, (usize, i64))> {
        history.keys().map(|at| (at * PARTS + device as i64, (device, *at))).collect()
    };
    fleet.iter().enumerate().flat_map(of).collect()
}

/// The steps of the group, in parts of a second.
fn of_group(fleet: &[History], rule: &Rule, end: i64) -> Vec<(&'static str, i64)> {
    // What a device would do if the rule were its own, which is what counts.
    let (none, resolve) = (Duration::ZERO, Resolve::Auto);
    let own = Rule { min_firing: none, cooldown: none, flapping: None, resolve, group: None, ..rule.clone() };
    let steps: Vec<Vec<(bool, i64)>> = (0..)
        .zip(fleet)
        .map(|(device, history)| {
            let steps = episodes(history, &own, &Around::default(), end);
            steps.into_iter().map(|(state, at)| (state == "firing", at * PARTS + device)).collect()
        })
        .collect();
    let known = |at: i64| {
        fleet
            .iter()
            .zip(0..)
            .filter(move |(history, device)| history.keys().next().is_some_and(|first| first * PARTS + device <= at))
    };
    let when = |at: i64| {
        let is_in =
            |steps: &&Vec<(bool, i64)>| steps.iter().rev().find(|(_, step)| *step <= at).is_some_and(|(is, _)| *is);
        let members = u32::try_from(known(at).count()).unwrap();
        let enough = rule.group.as_ref().unwrap().enough.of(members);
        Some(steps.iter().filter(is_in).count() as u32 >= enough)
    };
    let parts = |span: Duration| span * PARTS as u32;
    let flapping = rule.flapping.map(|one| Flapping { within: parts(one.within), calm: parts(one.calm), ..one });
    let whole = Rule { min_firing: parts(rule.min_firing), cooldown: parts(rule.cooldown), flapping, ..rule.clone() };
    let tells = Tells { when: &when, clears: None, is_off: &|_| false, holds_back: &|_| false };
    course_of(&whole, &tells, end * PARTS)
}

fn instant(part: i64) -> i64 {
    T0 * SECOND + part * (SECOND / PARTS)
}

fn send(stage: &mut Stage, part: i64, device: usize, readings: &[(&'static str, f64)]) {
    let readings: Vec<_> = readings.iter().map(|(name, value)| (*name, (*value).into())).collect();
    stage.receive_micros(instant(part), DEVICES[device], instant(part), &readings);
}

/// What the database has of the fleet after what was received until `part`.
fn stored(rule: &Arc<Rule>, fleet: &[History], part: i64) -> Snapshot {
    let one = |(device, history): (usize, &History)| -> Option<Device> {
        let past = |at: &&i64| **at * PARTS + device as i64 <= part;
        let seen = *history.keys().rfind(past)?;
        let time = |at: i64| instant(at * PARTS + device as i64);
        let mut stored = testing::device(device as i32 + 1, DEVICES[device], None);
        stored.last_seen = Some(UtcMicros(time(seen)));
        for (sensor, name) in ["a", "b"].into_iter().enumerate() {
            let of =
                |(at, all): (&i64, &Vec<(&str, f64)>)| Some((*at, all.iter().find(|(metric, _)| *metric == name)?.1));
            if let Some((at, value)) = history.range(..=seen).filter_map(of).next_back() {
                let id = (device * 2 + sensor) as i32 + 1;
                stored.sensors.push(testing::sensor(id, name, Some((time(at), value))));
            }
        }
        Some(stored)
    };
    let devices = fleet.iter().enumerate().filter_map(one).collect();
    Snapshot { rules: vec![Arc::clone(rule)], devices, ..Snapshot::default() }
}

fn recall(stage: &mut Stage, fleet: &[History], part: i64) {
    let found = stage.evaluator.wanted().into_iter().map(|(id, since, most)| {
        let (device, name) = ((id as usize - 1) / 2, ["a", "b"][(id as usize - 1) % 2]);
        let past =
            fleet[device].iter().filter(|(at, _)| **at * PARTS + device as i64 <= part).filter_map(|(at, all)| {
                let value = all.iter().find(|(metric, _)| *metric == name)?.1;
                Some((UtcMicros(instant(at * PARTS + device as i64)), value))
            });
        let past: Vec<_> = past.filter(|(at, _)| *at >= since).collect();
        (id, past.get(past.len().saturating_sub(most)..).unwrap_or_default().to_vec())
    });
    let found: Vec<_> = found.collect();
    stage.evaluator.recall(&found);
}

fn end_of(fleet: &[History]) -> i64 {
    fleet.iter().filter_map(|history| history.keys().next_back()).max().copied().unwrap_or(0) + 200
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_groups_steps_are_those_of_the_slow_and_obvious_evaluator(rule in rules(), enough in enough(), fleet in fleet()) {
        let (rule, end) = (grouped(rule, enough), end_of(&fleet));
        let mut stage = Stage::new(vec![rule.clone()]);
        for (part, (device, at)) in messages(&fleet) {
            send(&mut stage, part, device, &fleet[device][&at]);
        }
        stage.tick_micros(instant(end * PARTS));
        let part = |step: &Transition| (step.at.0 - instant(0)) / (SECOND / PARTS);
        let found: Vec<_> = stage.told.iter().map(|step| (step.state.word(), part(step))).collect();
        prop_assert_eq!(found, of_group(&fleet, &rule, end));
    }

    #[test]
    fn ticks_restarts_and_batches_change_nothing_about_groups(
        rule in rules(),
        enough in enough(),
        fleet in fleet(),
        ticks in proptest::collection::vec(0..1600_i64, 0..10),
        restarts in proptest::collection::vec(0..60_usize, 0..5),
    ) {
        let (rule, end) = (Arc::new(grouped(rule, enough)), end_of(&fleet));
        let mut plain = Stage::with(stored(&rule, &[], -1));
        let mut cut = Stage::with(stored(&rule, &[], -1));
        let mut last = -1;
        for (number, (part, (device, at))) in messages(&fleet).into_iter().enumerate() {
            send(&mut plain, part, device, &fleet[device][&at]);
            if restarts.contains(&number) {
                cut.restart(&stored(&rule, &fleet, last));
                recall(&mut cut, &fleet, last);
            }
            let mut between: Vec<_> = ticks.iter().filter(|tick| **tick > last && **tick < part).collect();
            between.sort_unstable();
            for tick in between {
                cut.tick_micros(instant(*tick));
            }
            send(&mut cut, part, device, &fleet[device][&at]);
            last = part;
        }
        plain.tick_micros(instant(end * PARTS));
        cut.tick_micros(instant(end * PARTS));
        let told = |stage: &Stage| -> Vec<_> {
            let of = |step: &Transition| (step.id.clone(), step.step, step.state, step.at, step.device.clone(), step.value);
            stage.told.iter().map(of).collect()
        };
        prop_assert_eq!(told(&plain), told(&cut));
    }
}
