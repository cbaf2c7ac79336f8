//! What a backtest tells of rules, alone and together.

use std::time::Duration;

use super::*;
use crate::alert::evaluator::HeldBack;
use crate::alert::maintenance::Maintenance;
use crate::alert::rule::{
    By, Check, Compare, Condition, Dependency, DependsOn, Enough, Group, Resolve, Scope, Selector, Test,
};
use crate::alert::times::{Moment, Spell, Times};
use crate::normalize::testing;

fn rule(slug: &str, above: f64) -> Rule {
    let check = Check::Number(Compare::Gt(above));
    let test = Test::Metric { metric: "temperature".into(), check };
    Rule {
        slug: slug.into(),
        name: "Hot".to_owned(),
        tenant: None,
        severity: Severity::Warning,
        scope: Scope::default(),
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
    }
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

const WITHIN: (UtcMicros, UtcMicros) = (UtcMicros(0), UtcMicros(500_000_000));

/// When each episode began and ended.
fn seconds(past: &Past) -> Vec<(i64, Option<i64>)> {
    let of = |one: &PastEpisode| (one.since.0 / 1_000_000, one.resolved.map(|at| at.0 / 1_000_000));
    past.episodes.iter().map(of).collect()
}

fn held(past: &Past) -> Vec<(i64, HeldBack)> {
    past.withheld.iter().map(|one| (one.at.0 / 1_000_000, one.by)).collect()
}

#[test]
fn it_tells_what_would_have_been_raised() {
    let device = testing::device(1, "oven", None);
    let past = [PastOf { device: &device, readings: readings(&[(0, 31.0), (90, 20.0), (100, 35.0)]) }];
    let cast = [Arc::new(rule("hot", 30.0))];
    let test = |from| backtest(&cast, &past, &Snapshot::default(), (from, WITHIN.1));
    assert_eq!(seconds(&test(WITHIN.0)), [(60, Some(90)), (160, None)]);
    assert_eq!(seconds(&test(UtcMicros(95_000_000))), [(160, None)], "what was over before is left out");
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
    let device = testing::device(1, "oven", None);
    let past = [PastOf { device: &device, readings: readings(&[(0, 31.0), (90, 20.0), (100, 35.0)]) }];
    let found = backtest(&[Arc::new(rule("hot", 30.0))], &past, &catalog, WITHIN);
    assert_eq!(seconds(&found), [(200, None)]);
    assert_eq!(held(&found), [(60, HeldBack::Maintenance), (160, HeldBack::Maintenance)]);
}

#[test]
fn it_tells_what_another_rule_would_have_held_back_on_the_device_or_its_gateway() {
    let (gateway, plain) = (testing::device(1, "gw", None), testing::device(2, "oven", None));
    let oven = Device { parent: Some("gw".into()), ..plain };
    let fires = readings(&[(0, 31.0), (100, 20.0)]);
    for (on, on_gateway) in [(DependsOn::Device, false), (DependsOn::Gateway, true)] {
        let depends_on = vec![Dependency { rule: "worse".into(), on, grace: Duration::ZERO }];
        let tested = Arc::new(Rule { depends_on, ..rule("hot", 30.0) });
        let worse = Rule { when: Condition { hold: Duration::ZERO, ..rule("", 50.0).when }, ..rule("worse", 50.0) };
        let catalog = Snapshot {
            rules: vec![Arc::new(worse), Arc::new(rule("hot", 90.0)), Arc::new(rule("other", 0.0))],
            devices: vec![gateway.clone(), oven.clone()],
            ..Snapshot::default()
        };
        let cast = cast(&tested, &catalog);
        assert_eq!(
            cast.iter().map(|one| &*one.slug).collect::<Vec<_>>(),
            ["hot", "worse"],
            "the file's own in place of its row"
        );
        let company = companies(&cast, &catalog, Some("oven"));
        assert_eq!((company.len(), company[0].in_scope), (1, 1));
        let uids: Vec<_> = company[0].devices.iter().map(|device| &*device.uid).collect();
        assert_eq!(uids, if on_gateway { vec!["gw", "oven"] } else { vec!["oven"] });
        let bad = readings(&[(10, 60.0), (80, 20.0)]);
        let of_oven =
            if on_gateway { fires.clone() } else { readings(&[(0, 31.0), (10, 60.0), (80, 31.0), (100, 20.0)]) };
        let past = [PastOf { device: &gateway, readings: bad }, PastOf { device: &oven, readings: of_oven }];
        let past = &past[if on_gateway { 0 } else { 1 }..];
        let found = backtest(&cast, past, &catalog, WITHIN);
        let of_oven: Vec<_> = found.episodes.iter().filter(|one| &*one.device == "oven").cloned().collect();
        assert_eq!(seconds(&Past { episodes: of_oven, withheld: Vec::new() }), [(80, Some(100))], "{on:?}");
        assert_eq!(held(&found), [(60, HeldBack::Dependency)], "{on:?}");
    }
}

#[test]
fn a_group_is_looked_at_as_a_whole() {
    let devices: Vec<Device> = (1..).zip(["a", "b", "c"]).map(|(id, uid)| testing::device(id, uid, None)).collect();
    let devices: Vec<Device> = devices.into_iter().map(|one| Device { site: Some("Hall".into()), ..one }).collect();
    let lonely = testing::device(9, "lonely", None);
    let group = Some(Group { by: By::Site, enough: Enough::Devices(2) });
    let catalog = Snapshot { devices: [devices.clone(), vec![lonely]].concat(), ..Snapshot::default() };
    let cast = [Arc::new(Rule { group, ..rule("hot", 30.0) })];
    let company = companies(&cast, &catalog, Some("b"));
    assert_eq!(
        (company.len(), company[0].devices.len(), company[0].in_scope),
        (1, 3, 3),
        "who is in no group is out of it"
    );
    let courses = [&[(0, 31.0), (300, 20.0)][..], &[(10, 31.0), (200, 20.0)], &[(0, 20.0), (200, 20.0)]];
    let past: Vec<_> =
        devices.iter().zip(courses).map(|(device, of)| PastOf { device, readings: readings(of) }).collect();
    let found = backtest(&cast, &past, &catalog, WITHIN);
    assert_eq!(seconds(&found), [(70, Some(200))]);
    assert_eq!((&**found.episodes[0].about(), &*found.episodes[0].device), ("site:Hall", "b"));
}

#[test]
fn devices_that_have_nothing_to_do_with_each_other_are_looked_at_one_by_one() {
    let devices = (1..).zip(["a", "b", "pump"]).map(|(id, uid)| testing::device(id, uid, None)).collect();
    let catalog = Snapshot { devices, ..Snapshot::default() };
    let except = vec![Selector::Device(vec!["pump".to_owned()])];
    let cast = [Arc::new(Rule { scope: Scope { of: Vec::new(), except }, ..rule("hot", 30.0) })];
    let uids = |only| -> Vec<Vec<&str>> {
        let of = |company: Company<'_>| {
            company.devices.iter().map(|one| &*catalog.devices[one.id as usize - 1].uid).collect()
        };
        companies(&cast, &catalog, only).into_iter().map(of).collect()
    };
    assert_eq!(uids(None), [["a"], ["b"]]);
    assert_eq!(uids(Some("b")), [["b"]]);
    assert!(uids(Some("pump")).is_empty(), "it is not in the rule's scope");
}

#[test]
fn it_knows_what_it_must_read() {
    let of_metric = rule("hot", 30.0);
    assert_eq!(
        (metrics([&of_metric]), reach([&of_metric])),
        (Some(vec!["temperature".into()]), Duration::from_secs(60))
    );
    let silent = Test::Absent { metric: None, after: Duration::from_secs(600) };
    let of_silence = Rule { when: Condition { test: silent, hold: Duration::ZERO }, ..of_metric.clone() };
    let both = [&of_metric, &of_silence];
    assert_eq!((metrics(both), reach(both)), (None, Duration::from_secs(600)));
}
