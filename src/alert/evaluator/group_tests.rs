//! Rules that are kept for groups: when one fires, what is each device's and what the group's, and what survives.

use super::restraint_tests::{behind, maintenance, once, with};
use super::tests::{Stage, absent, gt, held, metric, rule, seconds};
use super::*;
use crate::alert::rule::{
    By, Check, Compare, Condition, Dependency, DependsOn, Enough, Flapping, Group, Raise, Resolve, Rule, Scope,
    Selector, Severity,
};
use crate::alert::transition::{Deed, State};
use crate::catalog::Device;
use crate::normalize::testing;

const T0: i64 = 1_700_000_000 * 1_000_000;

fn grouped(by: By, enough: Enough, when: Condition) -> Rule {
    Rule { group: Some(Group { by, enough }), ..rule("r", when) }
}

fn hot(enough: u32) -> Rule {
    grouped(By::All, Enough::Devices(enough), gt("m", 30.0))
}

/// Whom each step is about, its state, its second, and how many devices were in of how many that it takes.
type Told = (String, &'static str, i64, f64, f64);

fn told(stage: &Stage) -> Vec<Told> {
    let of = |one: &Transition| {
        let (value, threshold) = (one.value.unwrap_or(-1.0), one.threshold.unwrap_or(-1.0));
        (one.about().to_string(), one.state.word(), (one.at.0 - T0) / 1_000_000, value, threshold)
    };
    stage.told.iter().map(of).collect()
}

fn all(steps: &[(&'static str, i64, f64, f64)]) -> Vec<Told> {
    steps.iter().map(|(state, at, value, threshold)| ("all".to_owned(), *state, *at, *value, *threshold)).collect()
}

fn send(stage: &mut Stage, at: i64, device: &str, value: f64) {
    stage.send(at, device, &[("m", value.into())]);
}

fn placed(id: i32, uid: &str, site: &str, floor: &str) -> Device {
    let tags = [("floor".to_owned(), floor.to_owned())].into();
    Device { site: Some(site.into()), tags, ..testing::device(id, uid, None) }
}

#[test]
fn it_fires_once_enough_devices_are_in_and_is_over_once_fewer_are() {
    // Of four devices, as many as `hot` are.
    for (enough, fires) in [
        (Enough::Devices(1), [false, true, true, true, true]),
        (Enough::Devices(3), [false, false, false, true, true]),
        (Enough::Devices(5), [false; 5]),
        (Enough::Share(0.25), [false, true, true, true, true]),
        (Enough::Share(0.26), [false, false, true, true, true]),
        (Enough::Share(1.0), [false, false, false, false, true]),
        (Enough::Share(0.001), [false, true, true, true, true]),
    ] {
        for (count, fires) in fires.into_iter().enumerate() {
            let mut stage = Stage::new(vec![grouped(By::All, enough, gt("m", 30.0))]);
            let devices = ["a", "b", "c", "d"];
            (0..).zip(devices).for_each(|(at, device)| send(&mut stage, at, device, 20.0));
            (10..).zip(devices).take(count).for_each(|(at, device)| send(&mut stage, at, device, 31.0));
            assert_eq!(!stage.told.is_empty(), fires, "{count} of 4, {enough:?}");
            (20..).zip(devices).for_each(|(at, device)| send(&mut stage, at, device, 20.0));
            let states: Vec<_> = stage.told.iter().map(|step| step.state).collect();
            let expected: &[State] = if fires { &[State::Firing, State::Resolved] } else { &[] };
            assert_eq!(states, expected, "{count} of 4, {enough:?}");
        }
    }
    assert_eq!([3, 10, 11].map(|members| Enough::Share(0.3).of(members)), [1, 3, 4], "no more than the share");
}

#[test]
fn its_alert_names_the_group_how_many_are_in_and_who_brought_it_over() {
    let message = "{group}: {value} of {members}, {threshold} are enough; {device} last".to_owned();
    let mut stage = Stage::new(vec![Rule { message: Some(message), ..hot(2) }]);
    for (at, device, value) in
        [(0, "a", 31.0), (1, "b", 20.0), (2, "c", 20.0), (3, "b", 31.0), (4, "c", 31.0), (5, "a", 20.0)]
    {
        send(&mut stage, at, device, value);
    }
    send(&mut stage, 6, "b", 20.0);
    assert_eq!(told(&stage), all(&[("firing", 3, 2.0, 2.0), ("resolved", 6, 1.0, 2.0)]));
    assert!(stage.told.iter().all(|step| &*step.device == "b" && &*step.metric == "m"));
    assert_eq!(stage.told[0].message, "all: 2 of 3, 2 are enough; b last");
    assert_eq!(stage.told[0].onset, UtcMicros(T0 + 3_000_000));
    assert_eq!(stage.told[0].id, episode_id("r", "default", "group:all", "m", T0 + 3_000_000));
    let mut plain = Stage::new(vec![hot(1)]);
    send(&mut plain, 0, "a", 31.0);
    assert_eq!(plain.told[0].message, "r: all, 1 of 1 devices (m > 30)");
}

#[test]
fn for_and_clear_are_each_devices_own() {
    let clear = metric("m", Check::Number(Compare::Lt(25.0)));
    let when = held(gt("m", 30.0), 60);
    let mut stage = Stage::new(vec![Rule { clear: Some(clear), ..grouped(By::All, Enough::Devices(2), when) }]);
    send(&mut stage, 0, "a", 31.0);
    send(&mut stage, 30, "b", 31.0);
    stage.tick(80);
    // Between the thresholds both stay in.
    send(&mut stage, 85, "a", 28.0);
    assert_eq!(told(&stage), []);
    stage.tick(100);
    send(&mut stage, 110, "b", 28.0);
    assert_eq!(told(&stage), all(&[("firing", 90, 2.0, 2.0)]));
    send(&mut stage, 120, "a", 24.0);
    assert_eq!(told(&stage)[1..], all(&[("resolved", 120, 1.0, 2.0)]));
}

#[test]
fn it_is_as_bad_as_it_is_on_enough_devices() {
    let raise = vec![Raise { severity: Severity::Critical, when: gt("m", 40.0) }];
    let mut stage = Stage::new(vec![Rule { raise, ..hot(2) }]);
    for (at, device, value) in
        [(0, "a", 41.0), (1, "b", 31.0), (2, "b", 42.0), (3, "c", 43.0), (4, "a", 31.0), (5, "b", 31.0)]
    {
        send(&mut stage, at, device, value);
    }
    let severities: Vec<_> = stage.told.iter().map(|step| (step.at.0 - T0, step.severity)).collect();
    use Severity::*;
    assert_eq!(severities, [(1_000_000, Warning), (2_000_000, Critical), (5_000_000, Warning)]);
}

#[test]
fn how_long_and_how_often_is_the_groups() {
    let mut stage = Stage::new(vec![Rule { min_firing: seconds(60), cooldown: seconds(100), ..hot(1) }]);
    send(&mut stage, 0, "a", 31.0);
    send(&mut stage, 10, "a", 20.0);
    send(&mut stage, 20, "b", 31.0);
    send(&mut stage, 30, "b", 20.0);
    stage.tick(61);
    send(&mut stage, 70, "a", 31.0);
    stage.tick(1000);
    let expected = [("firing", 0, 1.0, 1.0), ("resolved", 60, 0.0, 1.0), ("firing", 160, 1.0, 1.0)];
    assert_eq!(told(&stage), all(&expected));
    assert_eq!(stage.told[2].onset, UtcMicros(T0 + 70_000_000));

    let flapping = Some(Flapping { changes: 2, within: seconds(100), calm: seconds(50) });
    let mut stage = Stage::new(vec![Rule { flapping, ..hot(1) }]);
    for (at, device) in [(0, "a"), (10, "b"), (20, "a")] {
        send(&mut stage, at, device, 31.0);
        send(&mut stage, at + 5, device, 20.0);
    }
    stage.tick(1000);
    let expected =
        [("firing", 0, 1.0, 1.0), ("resolved", 5, 0.0, 1.0), ("firing", 10, 1.0, 1.0), ("resolved", 75, 0.0, 1.0)];
    assert_eq!(told(&stage), all(&expected), "two devices in turn make their group flap");
}

#[test]
fn people_deal_with_the_group() {
    let mut stage = Stage::new(vec![Rule { resolve: Resolve::Manual, ..hot(1) }]);
    send(&mut stage, 0, "a", 31.0);
    stage.act(5, Deed::Acknowledge).act(6, Deed::Snooze { until: T0 + 50_000_000 });
    send(&mut stage, 10, "a", 20.0);
    send(&mut stage, 20, "b", 31.0);
    stage.tick(60).act(70, Deed::Resolve);
    send(&mut stage, 80, "c", 31.0);
    let states: Vec<_> = told(&stage).iter().map(|(_, state, at, ..)| (*state, *at)).collect();
    let dealt = [("firing", 0), ("acknowledged", 5), ("acknowledged", 6), ("acknowledged", 50), ("resolved", 70)];
    assert_eq!(states, dealt, "it must cease before it fires again");
    for (at, device, value) in [(90, "b", 20.0), (91, "c", 20.0), (92, "a", 31.0)] {
        send(&mut stage, at, device, value);
    }
    assert_eq!(told(&stage).last(), Some(&("all".to_owned(), "firing", 92, 1.0, 1.0)));
}

#[test]
fn what_holds_a_device_back_keeps_it_out_of_its_group() {
    let of = |uid: &str| Scope { of: vec![Selector::Device(vec![uid.to_owned()])], except: Vec::new() };
    let depends_on = vec![Dependency { rule: "down".into(), on: DependsOn::Gateway, grace: seconds(0) }];
    let down = Rule { scope: of("gw"), ..rule("down", gt("m", 50.0)) };
    let except = vec![Selector::Device(vec!["gw".to_owned()])];
    let rules = vec![down, Rule { depends_on, scope: Scope { of: Vec::new(), except }, ..hot(1) }];
    let devices = vec![testing::device(1, "gw", None), behind(2, "a", "gw"), testing::device(3, "b", None)];
    let work = vec![maintenance(of("b"), once(0, 40))];
    let mut stage = Stage::with(with(rules, devices, work));
    for (at, device, value) in [(0, "gw", 60.0), (1, "a", 31.0), (2, "b", 31.0)] {
        send(&mut stage, at, device, value);
    }
    stage.tick(30);
    assert_eq!(told(&stage).iter().map(|step| &*step.0).collect::<Vec<_>>(), ["gw"]);
    let withheld: Vec<_> = stage.evaluator.take_withheld().iter().map(|one| (one.device.to_string(), one.by)).collect();
    assert_eq!(withheld, [("a".to_owned(), HeldBack::Dependency), ("b".to_owned(), HeldBack::Maintenance)]);
    stage.tick(50);
    assert_eq!(told(&stage)[1..], all(&[("firing", 40, 1.0, 1.0)]));
    send(&mut stage, 60, "gw", 20.0);
    send(&mut stage, 61, "b", 20.0);
    assert_eq!(told(&stage)[2..], [("gw".to_owned(), "resolved", 60, 20.0, 50.0)], "now the other one keeps it");
}

#[test]
fn a_rule_may_wait_for_the_alert_of_a_group() {
    let depends_on = vec![Dependency { rule: "r".into(), on: DependsOn::Device, grace: seconds(10) }];
    let mut stage = Stage::new(vec![hot(2), Rule { depends_on, ..rule("s", gt("n", 1.0)) }]);
    send(&mut stage, 0, "a", 31.0);
    stage.send(1, "a", &[("n", 2.0.into())]);
    assert_eq!(told(&stage).len(), 1, "the group is not firing yet");
    send(&mut stage, 2, "b", 31.0);
    stage.send(3, "b", &[("n", 2.0.into())]);
    assert_eq!(told(&stage)[1..], all(&[("firing", 2, 2.0, 2.0)]));
    send(&mut stage, 20, "a", 20.0);
    stage.tick(100);
    let last = stage.told.last().unwrap();
    assert_eq!((&*last.rule, &**last.about(), last.at.0 - T0), ("s", "b", 30_000_000), "after the grace");
}

#[test]
fn groups_are_by_what_devices_have_in_common() {
    let devices = || {
        vec![
            placed(1, "a", "Hall", "1"),
            placed(2, "b", "Hall", "2"),
            placed(3, "c", "Yard", "2"),
            behind(4, "d", "gw"),
            Device { tenant: "other".into(), ..placed(5, "e", "Hall", "1") },
        ]
    };
    for (by, names) in [
        (By::Site, vec!["site:Hall", "site:Yard"]),
        (By::Tag("floor".to_owned()), vec!["tag:floor=1", "tag:floor=2"]),
        (By::Parent, vec!["parent:gw"]),
        (By::Template, vec![]),
        (By::All, vec!["all"]),
    ] {
        let rules = vec![grouped(by.clone(), Enough::Devices(1), gt("m", 30.0))];
        let mut stage = Stage::with(with(rules, devices(), Vec::new()));
        (0..).zip(["a", "b", "c", "d"]).for_each(|(at, device)| send(&mut stage, at, device, 31.0));
        let found: Vec<_> = told(&stage).into_iter().map(|step| step.0).collect();
        assert_eq!(found, names, "{by:?}: a device without one is in none, and one of another tenant in its own");
    }
}

#[test]
fn a_device_that_moves_takes_its_part_along() {
    let rules = vec![grouped(By::Parent, Enough::Devices(1), gt("m", 30.0))];
    let mut stage = Stage::new(rules);
    (0..).zip(["one", "two", "a"]).for_each(|(at, device)| send(&mut stage, at, device, 31.0));
    assert_eq!(told(&stage), [], "it is behind nothing");
    stage.put_behind("a", "one");
    send(&mut stage, 5, "a", 32.0);
    stage.put_behind("a", "two");
    let found: Vec<_> = told(&stage).into_iter().map(|(of, state, ..)| (of, state)).collect();
    let of = |gateway: &str| format!("parent:{gateway}");
    assert_eq!(found, [(of("one"), "firing"), (of("one"), "resolved"), (of("two"), "firing")]);
}

#[test]
fn a_message_counts_by_how_its_device_stands_at_the_end() {
    let mut stage = Stage::new(vec![hot(1)]);
    for at in [10, 20, 30] {
        // A device that was cut off, and sends its past.
        let value = if at == 20 { 31.0 } else { 20.0 };
        stage.receive(100, "a", at, &[("m", value.into())]);
    }
    let bulk = told(&stage);
    assert_eq!(bulk, all(&[("firing", 100, 1.0, 1.0), ("resolved", 100, 0.0, 1.0)]), "three messages");
    let silent = grouped(By::All, Enough::Devices(2), absent(None, 60));
    let mut stage = Stage::new(vec![silent]);
    send(&mut stage, 0, "a", 1.0);
    stage.receive(0, "b", 0, &[("m", 1.0.into())]).tick(100);
    assert_eq!(told(&stage), all(&[("firing", 60, 2.0, 2.0)]), "what is due at one instant counts together");
}

#[test]
fn groups_survive_a_restart_with_their_ids() {
    let rules = || {
        vec![Rule {
            cooldown: seconds(50),
            min_firing: seconds(20),
            ..grouped(By::Site, Enough::Devices(2), held(gt("m", 30.0), 10))
        }]
    };
    let devices = vec![placed(1, "a", "Hall", "1"), placed(2, "b", "Hall", "1"), placed(3, "c", "Hall", "1")];
    let snapshot = with(rules(), devices, Vec::new());
    let (mut whole, mut cut) = (Stage::with(snapshot.clone()), Stage::with(snapshot.clone()));
    let course = [
        (0, "a", 31.0),
        (2, "b", 31.0),
        (15, "a", 20.0),
        (20, "c", 31.0),
        (25, "a", 31.0),
        (70, "b", 20.0),
        (71, "c", 20.0),
    ];
    for (at, device, value) in course {
        for stage in [&mut whole, &mut cut] {
            send(stage, at, device, value);
        }
        cut.restart(&snapshot);
    }
    for stage in [&mut whole, &mut cut] {
        stage.tick(500);
    }
    let plain = |stage: &Stage| -> Vec<_> {
        stage
            .told
            .iter()
            .map(|step| (step.id.clone(), step.step, step.state, step.at, step.device.clone(), step.value))
            .collect()
    };
    assert_eq!(plain(&whole), plain(&cut));
    let steps: Vec<_> = told(&whole).iter().map(|(_, state, at, ..)| (*state, *at)).collect();
    assert_eq!(steps, [("firing", 12), ("resolved", 71)]);
}

#[test]
fn a_rule_that_is_kept_for_groups_from_now_on_begins_anew_and_so_does_one_that_is_no_longer() {
    let devices = || vec![placed(1, "a", "Hall", "1")];
    let alone = || with(vec![rule("r", gt("m", 30.0))], devices(), Vec::new());
    let by = |by: By| with(vec![grouped(by, Enough::Devices(1), gt("m", 30.0))], devices(), Vec::new());
    for restarts in [false, true] {
        let mut stage = Stage::with(alone());
        let change = |stage: &mut Stage, snapshot: &Snapshot| {
            if restarts {
                stage.restart(snapshot);
            } else {
                stage.replace(snapshot);
            }
        };
        send(&mut stage, 0, "a", 31.0);
        change(&mut stage, &by(By::Site));
        send(&mut stage, 10, "a", 32.0);
        change(&mut stage, &by(By::All));
        send(&mut stage, 20, "a", 32.0);
        change(&mut stage, &alone());
        send(&mut stage, 30, "a", 32.0);
        change(&mut stage, &Snapshot { devices: devices(), ..Snapshot::default() });
        stage.tick(40);
        let found: Vec<_> = told(&stage).into_iter().map(|(of, state, ..)| (of, state)).collect();
        let of = |of: &str, state: &'static str| (of.to_owned(), state);
        let expected = [
            of("a", "firing"),
            of("a", "resolved"),
            of("site:Hall", "firing"),
            of("site:Hall", "resolved"),
            of("all", "firing"),
            of("all", "resolved"),
            of("a", "firing"),
            of("a", "resolved"),
        ];
        assert_eq!(found, expected, "restarts: {restarts}");
        assert!(stage.kept.is_empty(), "{:?}", stage.kept);
    }
}

#[test]
fn it_can_be_told_how_a_group_stands() {
    let mut stage = Stage::new(vec![hot(2)]);
    for (at, device, value) in [(0, "b", 31.0), (1, "a", 31.0), (2, "c", 20.0)] {
        send(&mut stage, at, device, value);
    }
    let standing = stage.evaluator.standing("default", "c", UtcMicros(T0)).remove(0);
    let group = InGroup { name: "all".into(), members: 3, inside: vec!["a".into(), "b".into()], enough: 2 };
    assert_eq!(standing.group, Some(group));
    assert_eq!(standing.episode.as_deref(), Some(&*stage.told[0].id));
}
