//! What holds alerts back: schedules, maintenance, other rules; and what flaps.

use jiff::tz::TimeZone;

use super::tests::{Stage, absent, gt, held, rule, seconds};
use super::*;
use crate::alert::maintenance::Maintenance;
use crate::alert::rule::{Dependency, DependsOn, Flapping, Resolve, Rule, Schedule, Scope, Selector, Severity};
use crate::alert::times::{Days, Moment, Spell, Times};
use crate::alert::transition::Deed;
use crate::catalog::{Device, Site};
use crate::normalize::testing;

/// 2023-11-14 22:13:20 UTC, a Tuesday: where the stage's seconds begin.
const T0: i64 = 1_700_000_000;

/// Second of the stage at which it is this time of that Tuesday, UTC.
fn clock(hour: i64, minute: i64) -> i64 {
    (hour * 60 + minute) * 60 - (22 * 3600 + 13 * 60 + 20)
}

fn daily(from: i8, to: i8) -> Schedule {
    let time = |hour| jiff::civil::time(hour, 0, 0, 0);
    let spell = Spell::Weekly { days: Days::ALL, from: time(from), to: time(to), overnight: to <= from };
    Schedule { times: Times(vec![spell]), zone: None }
}

pub(super) fn once(from: i64, to: i64) -> Times {
    let moment = |second| Moment::At(UtcMicros((T0 + second) * 1_000_000));
    Times(vec![Spell::Once { from: moment(from), to: moment(to) }])
}

pub(super) fn maintenance(scope: Scope, times: Times) -> Arc<Maintenance> {
    let name = "work".to_owned();
    Arc::new(Maintenance { name, tenant: None, scope, times, zone: None, note: None, ended_at: None })
}

pub(super) fn with(rules: Vec<Rule>, devices: Vec<Device>, maintenance: Vec<Arc<Maintenance>>) -> Snapshot {
    let sites =
        vec![Site { tenant: "default".into(), name: "Berlin".into(), zone: TimeZone::get("Europe/Berlin").unwrap() }];
    let rules = rules.into_iter().map(Arc::new).collect();
    Snapshot { rules, devices, sites, maintenance, ..Snapshot::default() }
}

fn at_site(id: i32, uid: &str) -> Device {
    Device { site: Some("Berlin".into()), ..testing::device(id, uid, None) }
}

pub(super) fn behind(id: i32, uid: &str, gateway: &str) -> Device {
    Device { parent: Some(gateway.into()), ..testing::device(id, uid, None) }
}

fn named(stage: &Stage) -> Vec<(String, &'static str, i64)> {
    let step = |one: &Transition| (format!("{}/{}", one.device, one.rule), one.state.word(), one.at.0 / 1_000_000 - T0);
    stage.told.iter().map(step).collect()
}

fn expected(steps: &[(&str, &'static str, i64)]) -> Vec<(String, &'static str, i64)> {
    steps.iter().map(|(of, state, at)| ((*of).to_owned(), *state, *at)).collect()
}

#[test]
fn outside_of_its_schedule_a_rule_fires_not_and_ends_and_what_holds_when_it_begins_fires_then() {
    // 22 to 24 o'clock in Berlin is 21 to 23 UTC.
    let rules = || vec![Rule { schedule: Some(daily(22, 0)), ..rule("r", gt("m", 30.0)) }];
    let snapshot = with(rules(), vec![at_site(1, "d"), testing::device(2, "e", None)], Vec::new());
    let mut stage = Stage::with(snapshot.clone());
    for device in ["d", "e"] {
        stage.send(0, device, &[("m", 31.0.into())]);
    }
    // In Berlin it is 23:13, in UTC 22:13: both are within; Berlin's ends an hour earlier.
    stage.tick(clock(23, 0) - 1).restart(&snapshot).tick(clock(26, 0));
    assert_eq!(
        named(&stage),
        expected(&[
            ("d/r", "firing", 0),
            ("e/r", "firing", 0),
            ("d/r", "resolved", clock(23, 0)),
            ("e/r", "resolved", clock(24, 0)),
        ])
    );
    assert_eq!(stage.told[2].why, "its schedule is over for now");
    stage.restart(&snapshot).send(clock(27, 0), "d", &[("m", 32.0.into())]).tick(clock(45, 30));
    assert_eq!(named(&stage)[4..], expected(&[("d/r", "firing", clock(45, 0))]), "it holds still, so it fires then");
    assert_eq!(stage.evaluator.next_due().map(|due| due.0 / 1_000_000 - T0), Some(clock(46, 0)), "when e's begins");
}

#[test]
fn an_alert_that_only_a_person_ends_outlives_its_schedule() {
    let manual = Rule { resolve: Resolve::Manual, schedule: Some(daily(22, 23)), ..rule("r", gt("m", 30.0)) };
    let mut stage = Stage::new(vec![manual]);
    stage.send(0, "d", &[("m", 31.0.into())]).tick(clock(30, 0));
    assert_eq!(stage.steps(), [("firing", 0)]);
}

#[test]
fn pending_conditions_go_on_outside_of_the_schedule() {
    let late = Rule { schedule: Some(daily(23, 0)), ..rule("r", held(gt("m", 30.0), 60)) };
    let mut stage = Stage::new(vec![late]);
    stage.send(0, "d", &[("m", 31.0.into())]).tick(clock(24, 0));
    assert_eq!(stage.steps()[0], ("firing", clock(23, 0)));
    assert_eq!(stage.told[0].onset, UtcMicros(T0 * 1_000_000), "since when it held is told");
}

#[test]
fn during_maintenance_nothing_begins_and_what_holds_at_its_end_fires_then() {
    let scope = Scope { of: vec![Selector::Device(vec!["d*".to_owned()])], except: Vec::new() };
    let window = maintenance(scope, once(10, 100));
    let rules = vec![rule("r", gt("m", 30.0))];
    let devices = ["d1", "d2", "d3", "e"].iter().zip(1..).map(|(uid, id)| testing::device(id, uid, None)).collect();
    let snapshot = with(rules, devices, vec![window]);
    let mut stage = Stage::with(snapshot.clone());
    let hot = [("m", 31.0.into())];
    let cold = [("m", 20.0.into())];
    stage.send(5, "d3", &hot);
    for device in ["d1", "d2", "e"] {
        stage.send(20, device, &hot);
    }
    stage.send(30, "d2", &cold).send(40, "d3", &cold).restart(&snapshot).tick(200);
    let steps = [("d3/r", "firing", 5), ("e/r", "firing", 20), ("d3/r", "resolved", 40), ("d1/r", "firing", 100)];
    assert_eq!(named(&stage), expected(&steps), "what was active before may end; what is over meanwhile is never said");
}

#[test]
fn what_is_held_back_is_counted_once_for_each_cause() {
    let rules = vec![rule("r", gt("m", 30.0))];
    let snapshot = with(rules, Vec::new(), vec![maintenance(Scope::default(), once(0, 100))]);
    let mut stage = Stage::with(snapshot);
    for at in 1..20 {
        stage.send(at, "d", &[("m", (30.0 + (at % 10) as f64).into())]);
    }
    let withheld: Vec<_> = stage.evaluator.take_withheld().iter().map(|one| (one.by, one.at)).collect();
    let at = |second: i64| UtcMicros((T0 + second) * 1_000_000);
    assert_eq!(withheld, [(HeldBack::Maintenance, at(1)), (HeldBack::Maintenance, at(11))]);
}

#[test]
fn maintenance_holds_back_a_worse_severity_and_may_be_ended_early() {
    let raise = vec![crate::alert::rule::Raise { severity: Severity::Critical, when: gt("m", 40.0) }];
    let rules = || vec![Rule { raise: raise.clone(), ..rule("r", gt("m", 30.0)) }];
    let window = maintenance(Scope::default(), once(10, 1000));
    let device = || vec![testing::device(1, "d", None), testing::device(2, "e", None)];
    let mut stage = Stage::with(with(rules(), device(), vec![Arc::clone(&window)]));
    stage.send(5, "d", &[("m", 31.0.into())]).send(20, "d", &[("m", 41.0.into())]).send(20, "e", &[("m", 31.0.into())]);
    assert_eq!(stage.steps(), [("firing", 5)]);
    let ended = Maintenance { ended_at: Some(UtcMicros((T0 + 50) * 1_000_000)), ..Arc::unwrap_or_clone(window) };
    stage.evaluator.replace(&with(rules(), device(), vec![Arc::new(ended)]));
    stage.tick(60);
    assert_eq!(named(&stage)[1..], expected(&[("d/r", "firing", 50), ("e/r", "firing", 50)]));
    assert_eq!(stage.told[1].severity, Severity::Critical);
}

#[test]
fn maintenance_that_is_gone_from_the_catalog_holds_nothing_back() {
    let rules = || vec![rule("r", gt("m", 30.0))];
    let device = || vec![testing::device(1, "d", None)];
    let mut stage = Stage::with(with(rules(), device(), vec![maintenance(Scope::default(), once(0, 1000))]));
    stage.send(10, "d", &[("m", 31.0.into())]).tick(20);
    stage.evaluator.replace(&with(rules(), device(), Vec::new()));
    stage.tick(30);
    assert_eq!(stage.steps(), [("firing", 20)]);
}

fn depends(slug: &str, on: DependsOn, grace: u64) -> Vec<Dependency> {
    vec![Dependency { rule: slug.into(), on, grace: seconds(grace) }]
}

#[test]
fn a_device_is_quiet_while_its_gateway_is_silent() {
    let silent =
        |grace| Rule { depends_on: depends("silent", DependsOn::Gateway, grace), ..rule("silent", absent(None, 60)) };
    let fleet = || vec![behind(1, "sensor", "repeater"), behind(2, "repeater", "gw"), testing::device(3, "gw", None)];
    let snapshot = with(vec![silent(0)], fleet(), Vec::new());
    let mut stage = Stage::with(snapshot.clone());
    // The gateway goes silent first; its devices a little later.
    stage.send(0, "gw", &[]).send(5, "sensor", &[]).send(6, "repeater", &[]).tick(100).restart(&snapshot).tick(200);
    assert_eq!(named(&stage), expected(&[("gw/silent", "firing", 60)]));
    stage.send(210, "gw", &[]).send(211, "repeater", &[]);
    let after = [("gw/silent", "resolved", 210), ("repeater/silent", "firing", 210), ("sensor/silent", "firing", 210)];
    // The repeater comes first, and holds the sensor back in its turn.
    assert_eq!(named(&stage)[1..3], expected(&after)[..2]);
    assert_eq!(named(&stage)[3..], expected(&[("repeater/silent", "resolved", 211), ("sensor/silent", "firing", 211)]));
    // With a grace, what is behind the gateway has time to come back.
    let snapshot = with(vec![silent(30)], fleet(), Vec::new());
    let mut stage = Stage::with(snapshot.clone());
    stage.send(0, "gw", &[]).send(5, "sensor", &[]).send(6, "repeater", &[]).tick(100).send(110, "gw", &[]);
    let heard =
        |second: i64, device: Device| Device { last_seen: Some(UtcMicros((T0 + second) * 1_000_000)), ..device };
    let fleet: Vec<Device> = fleet().into_iter().zip([5, 6, 110]).map(|(device, at)| heard(at, device)).collect();
    stage.restart(&with(vec![silent(30)], fleet, Vec::new())).send(120, "repeater", &[]).tick(160);
    let steps = [("gw/silent", "firing", 60), ("gw/silent", "resolved", 110), ("sensor/silent", "firing", 140)];
    assert_eq!(named(&stage), expected(&steps));
}

#[test]
fn a_gateway_that_a_message_tells_counts_from_then_on() {
    let silent = Rule { depends_on: depends("off", DependsOn::Gateway, 0), ..rule("hot", gt("m", 30.0)) };
    let mut stage = Stage::new(vec![rule("off", gt("off", 0.0)), silent]);
    stage.send(0, "gw", &[("off", 1.0.into())]).send(1, "d", &[("m", 10.0.into())]);
    stage.put_behind("d", "gw").send(2, "d", &[("m", 31.0.into())]);
    assert_eq!(named(&stage), expected(&[("gw/off", "firing", 0)]));
    stage.send(3, "gw", &[("off", 0.0.into())]);
    assert_eq!(named(&stage)[1..], expected(&[("gw/off", "resolved", 3), ("d/hot", "firing", 3)]));
}

#[test]
fn of_two_rules_at_one_instant_the_one_that_holds_the_other_back_comes_first() {
    let first = Rule { depends_on: depends("z", DependsOn::Device, 0), ..rule("a", gt("m", 30.0)) };
    let mut stage = Stage::new(vec![first, rule("z", gt("m", 30.0))]);
    stage.send(0, "d", &[("m", 31.0.into())]);
    assert_eq!(named(&stage), expected(&[("d/z", "firing", 0)]));
    stage.act(5, Deed::Resolve);
    assert_eq!(
        named(&stage)[1..],
        expected(&[("d/z", "resolved", 5), ("d/a", "firing", 5)]),
        "and what holds still fires"
    );
}

#[test]
fn what_is_due_of_a_rule_comes_before_what_depends_on_it_begins() {
    let first = Rule { depends_on: depends("z", DependsOn::Device, 0), ..rule("a", gt("n", 30.0)) };
    let rules = || vec![first.clone(), rule("z", held(gt("m", 30.0), 20))];
    // The other metric alone is heard at the instant at which `z` is due.
    let mut stage = Stage::new(rules());
    stage.send(0, "d", &[("m", 31.0.into())]).send(20, "d", &[("n", 31.0.into())]).tick(60);
    assert_eq!(named(&stage), expected(&[("d/z", "firing", 20)]));
    stage.send(70, "d", &[("m", 20.0.into())]);
    assert_eq!(named(&stage)[1..], expected(&[("d/z", "resolved", 70), ("d/a", "firing", 70)]));
    // A moment before it is due, nothing holds back.
    let mut stage = Stage::new(rules());
    stage.send(0, "d", &[("m", 31.0.into())]).send(19, "d", &[("n", 31.0.into())]).tick(60);
    assert_eq!(named(&stage), expected(&[("d/a", "firing", 19), ("d/z", "firing", 20)]));
}

fn flapping() -> Rule {
    let flapping = Flapping { changes: 3, within: seconds(60), calm: seconds(100) };
    Rule { flapping: Some(flapping), ..rule("r", gt("m", 30.0)) }
}

#[test]
fn what_flaps_is_said_once_and_more_only_when_it_is_calm() {
    let snapshot = with(vec![flapping()], vec![testing::device(1, "d", None)], Vec::new());
    for restarts in [false, true] {
        let mut stage = Stage::with(snapshot.clone());
        for at in 0..20 {
            let value = if at % 2 == 0 { 31.0 } else { 20.0 };
            stage.send(at * 10, "d", &[("m", value.into())]);
            if restarts {
                stage.restart(&snapshot);
            }
        }
        // Off, on, off, and the fourth change begins it; the last is at 190.
        let steps = [("firing", 0), ("resolved", 10), ("firing", 20), ("firing", 30)];
        assert_eq!(stage.steps(), steps);
        assert!(
            stage.told[3].message.starts_with("flapping, more than 3 changes within 1m: "),
            "{}",
            stage.told[3].message
        );
        stage.tick(289);
        assert_eq!(stage.steps().len(), 4);
        stage.tick(400);
        assert_eq!(stage.steps()[4..], [("resolved", 290)]);
        assert!(!stage.told[4].message.contains("flapping"));
        stage.send(410, "d", &[("m", 31.0.into())]);
        assert_eq!(stage.steps()[5..], [("firing", 410)], "it begins anew");
    }
}

#[test]
fn what_flaps_and_ends_up_firing_goes_on_as_the_same_alert() {
    let raise = vec![crate::alert::rule::Raise { severity: Severity::Critical, when: gt("m", 40.0) }];
    let mut stage = Stage::new(vec![Rule { raise, ..flapping() }]);
    for (at, value) in [(0, 31.0), (10, 20.0), (20, 31.0), (30, 20.0), (40, 45.0), (50, 31.0)] {
        stage.send(at, "d", &[("m", value.into())]);
    }
    stage.tick(500);
    let steps = [
        ("firing", 0),
        ("resolved", 10),
        ("firing", 20),
        ("firing", 30),
        ("firing", 40),
        ("firing", 140),
        ("firing", 140),
    ];
    assert_eq!(stage.steps(), steps[..stage.steps().len()]);
    let severities: Vec<Severity> = stage.told.iter().skip(3).map(|step| step.severity).collect();
    assert_eq!(severities[..2], [Severity::Warning, Severity::Critical], "it may get worse meanwhile");
    assert!(stage.told.iter().skip(2).all(|step| step.id == stage.told[2].id));
}

#[test]
fn slow_changes_do_not_flap() {
    let mut stage = Stage::new(vec![flapping()]);
    for at in 0..10 {
        let value = if at % 2 == 0 { 31.0 } else { 20.0 };
        stage.send(at * 30, "d", &[("m", value.into())]);
    }
    assert_eq!(stage.steps().len(), 10);
}

#[test]
fn a_change_at_the_very_end_of_calm_is_not_lost() {
    let course = |readings: &[(i64, f64)]| {
        let mut stage = Stage::new(vec![flapping()]);
        for (at, value) in readings {
            stage.send(*at, "d", &[("m", (*value).into())]);
        }
        stage.tick(500);
        stage
    };
    let flaps = [(0, 31.0), (10, 20.0), (20, 31.0), (30, 20.0)];
    let steps = [("firing", 0), ("resolved", 10), ("firing", 20), ("firing", 30)];

    // It holds from 40 to 140, a hundred seconds: calm, and over by then.
    let over = course(&[&flaps[..], &[(40, 31.0), (140, 20.0)]].concat());
    assert_eq!(over.steps(), [&steps[..], &[("resolved", 140)]].concat());

    // It fails to hold from 30 to 130: calm, but not over by then.
    let on = course(&[&flaps[..], &[(130, 31.0)]].concat());
    assert_eq!(on.steps(), [&steps[..], &[("firing", 130)]].concat());
    assert!(on.told[3..].iter().all(|step| step.id == on.told[2].id), "it is the same alert");
    assert!(!on.told[4].message.contains("flapping"));
}

#[test]
fn an_alert_that_was_calm_and_is_over_lasts_its_least_time_all_the_same() {
    let few = Flapping { changes: 2, within: seconds(1000), calm: seconds(10) };
    let mut stage =
        Stage::new(vec![Rule { min_firing: seconds(100), flapping: Some(few), ..rule("r", gt("m", 30.0)) }]);
    // Firing, resolved, and the third change begins to flap: it is calm ten seconds later.
    for (at, value) in [(0, 31.0), (100, 20.0), (110, 31.0), (115, 20.0)] {
        stage.send(at, "d", &[("m", value.into())]);
    }
    stage.tick(1000);
    let steps = [("firing", 0), ("resolved", 100), ("firing", 110), ("firing", 125), ("resolved", 210)];
    assert_eq!(stage.steps(), steps, "calm at 125, and over once it has lasted");
}

#[test]
fn what_flaps_gets_no_worse_during_maintenance() {
    let raise = vec![crate::alert::rule::Raise { severity: Severity::Critical, when: gt("m", 40.0) }];
    let rules = vec![Rule { raise, ..flapping() }];
    let work = vec![maintenance(Scope::default(), once(35, 60))];
    let mut stage = Stage::with(with(rules, vec![testing::device(1, "d", None)], work));
    for (at, value) in [(0, 31.0), (10, 20.0), (20, 31.0), (30, 20.0), (40, 45.0), (50, 46.0)] {
        stage.send(at, "d", &[("m", value.into())]);
    }
    assert_eq!(stage.steps().last(), Some(&("firing", 30)));
    stage.send(61, "d", &[("m", 47.0.into())]);
    let last = stage.told.last().unwrap();
    assert_eq!((stage.steps().last(), last.severity), (Some(&("firing", 60)), Severity::Critical), "once it is over");
}
