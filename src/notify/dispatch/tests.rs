//! Decisions over a journal of steps and ticks, in one go, and with a restart after each message.

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::alert::announce::tests::step;
use crate::alert::{Severity, State};

const BEGIN: i64 = 1_700_000_000_000_000;
const SECOND: i64 = 1_000_000;

fn config(text: &str) -> Config {
    let reading = Config::parse(Path::new("t.toml"), text, &[]);
    assert!(reading.faults.is_empty(), "{:?}", reading.faults);
    reading.config
}

/// What comes at a second: a step, or only the time.
#[derive(Clone, Debug)]
struct Event {
    second: i64,
    step: Option<Transition>,
}

fn at(second: i64) -> Event {
    Event { second, step: None }
}

fn steps(second: i64, id: &str, number: u32, state: State) -> Event {
    Event { second, step: Some(Transition { seq: 0, ..step(id, number, state) }) }
}

fn fires(second: i64, id: &str) -> Event {
    steps(second, id, 0, State::Firing)
}

/// Whoever is told: the second, the channel, and what.
type Told = (i64, String, String);

fn shown(order: &Order) -> String {
    match &order.notice.subject {
        Subject::Step { escalated: None, .. } => format!("{} {}", order.notice.delivery(), order.notice.state()),
        Subject::Step { escalated: Some(one), .. } => format!("{} level {}", order.notice.delivery(), one.level),
        Subject::Digest(digest) => digest.message(),
    }
}

/// Runs events; with `restarts` from what is remembered anew after each. Timers fire in the second in which they are due.
fn run(text: &str, events: &[Event], restarts: bool) -> Vec<Told> {
    let config = config(text);
    let mut kept: BTreeMap<String, String> = BTreeMap::new();
    let mut dispatcher = Dispatcher::new(&config, &[], Vec::new());
    let mut told = Vec::new();
    for (seq, event) in (1..).zip(events) {
        let now = UtcMicros(BEGIN + event.second * SECOND);
        dispatcher.advance(now, seq);
        if let Some(step) = &event.step {
            dispatcher.step(step, Whose::default(), now, seq);
        }
        let decided = dispatcher.drain();
        told.extend(decided.orders.iter().map(|order| (event.second, order.channel.to_string(), shown(order))));
        for MemoryChange { key, value } in decided.memory {
            match value {
                Some(value) => drop(kept.insert(key, value)),
                None => drop(kept.remove(&key)),
            }
        }
        if restarts {
            dispatcher = Dispatcher::new(&config, &[], kept.clone().into_iter().collect());
        }
    }
    told
}

/// The same in one go and with restarts.
fn both(text: &str, events: &[Event]) -> Vec<Told> {
    let told = run(text, events, false);
    assert_eq!(told, run(text, events, true));
    told
}

fn told(second: i64, channel: &str, what: &str) -> Told {
    (second, channel.to_owned(), what.to_owned())
}

const LIMITED: &str = r#"
    [[notify]]
    name = "ops"
    kind = "syslog"
    limit = "2 in 60s"
    [[notify]]
    name = "all"
    kind = "syslog"
    states = ["firing"]
"#;

#[test]
fn beyond_its_limit_a_rule_is_told_by_one_digest_when_the_time_is_over() {
    let mut events: Vec<Event> = (0..5).map(|number| fires(number, &format!("a{number}"))).collect();
    events.push(steps(5, "a0", 1, State::Resolved));
    events.extend([at(59), at(60), at(61), fires(62, "b"), at(200)]);
    let of_ops: Vec<Told> = both(LIMITED, &events).into_iter().filter(|one| one.1 == "ops").collect();
    let expected = [
        told(0, "ops", "a0/0 firing"),
        told(1, "ops", "a1/0 firing"),
        told(60, "ops", "4 more of rule too-hot: 3 firing, 1 resolved"),
        told(62, "ops", "b/0 firing"),
    ];
    assert_eq!(of_ops, expected);
    assert_eq!(both(LIMITED, &events).iter().filter(|one| one.1 == "all").count(), 6, "it has no limit");
}

#[test]
fn each_rule_has_its_own_window_and_a_digest_says_the_worst() {
    let mut dispatcher = Dispatcher::new(&config(LIMITED), &[], Vec::new());
    let now = |second: i64| UtcMicros(BEGIN + second * SECOND);
    for (number, severity) in (0..).zip([Severity::Critical, Severity::Info, Severity::Info, Severity::Warning]) {
        let other = Transition { severity, ..step(&format!("a{number}"), 0, State::Firing) };
        dispatcher.step(&other, Whose::default(), now(0), 1);
    }
    let other = Transition { rule: "door".into(), ..step("d", 0, State::Firing) };
    dispatcher.step(&other, Whose::default(), now(0), 1);
    assert_eq!(dispatcher.next_due(), Some(now(60)));
    let decided = dispatcher.drain();
    assert_eq!(decided.held, BTreeMap::from([("ops".into(), 2)]));
    assert!(decided.orders.iter().any(|order| &*order.channel == "ops" && &**order.notice.id() == "d"));
    dispatcher.advance(now(75), 2);
    let digests = dispatcher.drain();
    let Subject::Digest(digest) = &digests.orders[0].notice.subject else { panic!("a digest") };
    assert_eq!((digest.severity, digest.count(), digests.orders[0].notice.seq), (Severity::Warning, 2, 2));
    assert_eq!((digest.since, digest.until, digest.id.len()), (now(0), now(60), 32));
    assert!(digests.memory.iter().all(|change| change.value.is_none()) && digests.memory.len() == 2);
    assert_eq!((digests.orders.len(), dispatcher.next_due()), (1, None));
}

const ESCALATED: &str = r#"
    [[notify]]
    name = "ops"
    kind = "syslog"
    [[notify]]
    name = "ann"
    kind = "syslog"
    only_escalations = true
    [[notify]]
    name = "bob"
    kind = "syslog"
    only_escalations = true
    [[on_call]]
    name = "plant"
    timezone = "UTC"
    every = "day"
    begins = 2023-11-14
    handover = "22:20"
    people = [{ name = "ann", channels = ["ann"] }, { name = "bob", channels = ["bob"] }]
    [[escalation]]
    name = "night"
    least = "critical"
    repeat = 1
    repeat_after = "100s"
    [[escalation.levels]]
    channels = ["ops"]
    on_call = ["plant"]
    [[escalation.levels]]
    after = "60s"
    channels = ["bob"]
"#;

/// 22:20, when Ann takes over from Bob.
const HANDOVER: i64 = 400;

#[test]
fn an_alert_goes_from_level_to_level_until_it_is_through() {
    // As of 22:13:20, so that the second round is after the handover; `ops` has the step already.
    let events = [fires(260, "a"), at(319), at(320), at(419), at(420), at(479), at(480), at(9000)];
    let expected = [
        told(260, "ops", "a/0 firing"),
        told(260, "bob", "a/0/1 level 1"),
        told(320, "bob", "a/0/2 level 2"),
        told(420, "ann", "a/0/3 level 1"),
        told(420, "ops", "a/0/3 level 1"),
        told(480, "bob", "a/0/4 level 2"),
    ];
    assert!(events[4].second > HANDOVER);
    assert_eq!(both(ESCALATED, &events), expected);
}

#[test]
fn whoever_was_told_hears_that_somebody_sees_to_it_and_nobody_is_told_again() {
    let events =
        [fires(500, "a"), steps(510, "a", 1, State::Acknowledged), at(600), steps(700, "a", 2, State::Resolved)];
    let expected = [
        told(500, "ops", "a/0 firing"),
        told(500, "ann", "a/0/1 level 1"),
        told(510, "ann", "a/1 acknowledged"),
        told(510, "ops", "a/1 acknowledged"),
        told(700, "ops", "a/2 resolved"),
    ];
    assert_eq!(both(ESCALATED, &events), expected);
    let over = [fires(500, "a"), steps(510, "a", 1, State::Resolved), at(600)];
    let expected = [
        told(500, "ops", "a/0 firing"),
        told(500, "ann", "a/0/1 level 1"),
        told(510, "ops", "a/1 resolved"),
        told(510, "ann", "a/1 resolved"),
    ];
    assert_eq!(both(ESCALATED, &over), expected);
}

#[test]
fn a_snooze_holds_an_escalation_and_a_long_absence_brings_one_level() {
    let asleep = |event: Event| Event { step: event.step.map(|step| Transition { snoozed: true, ..step }), ..event };
    let events =
        [fires(500, "a"), asleep(steps(510, "a", 1, State::Firing)), at(900), steps(1000, "a", 2, State::Firing)];
    let events = [&events[..], &[at(1059), at(1060), at(50_000), at(50_001)]].concat();
    let told_of: Vec<Told> = both(ESCALATED, &events).into_iter().filter(|one| one.2.contains("level")).collect();
    let expected = [
        told(500, "ann", "a/0/1 level 1"),
        told(1060, "bob", "a/2/2 level 2"),
        told(50_000, "ann", "a/2/3 level 1"),
        told(50_000, "ops", "a/2/3 level 1"),
    ];
    assert_eq!(told_of, expected);
}

#[test]
fn what_is_not_for_it_is_not_escalated_unless_the_rule_names_it() {
    let warning = |event: Event| Event {
        step: event.step.map(|step| Transition { severity: Severity::Warning, ..step }),
        ..event
    };
    let events = [warning(fires(500, "a")), at(600)];
    assert_eq!(both(ESCALATED, &events), [told(500, "ops", "a/0 firing")]);
    let text = ESCALATED.replace("least = \"critical\"", "");
    assert_eq!(both(&text, &[fires(500, "a")]), [told(500, "ops", "a/0 firing")]);
    let mut dispatcher = Dispatcher::new(&config(&text), &[], Vec::new());
    dispatcher.escalations.of_rules(HashMap::from([("too-hot".into(), "night".to_owned())]));
    dispatcher.step(&step("a", 0, State::Firing), Whose::default(), UtcMicros(BEGIN), 1);
    let channels: Vec<String> = dispatcher.drain().orders.iter().map(|order| order.channel.to_string()).collect();
    assert_eq!(channels, ["ops", "bob"]);
}

#[test]
fn what_is_escalated_while_the_configuration_changes_goes_on_by_what_there_is() {
    let now = |second: i64| UtcMicros(BEGIN + second * SECOND);
    let mut dispatcher = Dispatcher::new(&config(ESCALATED), &[], Vec::new());
    dispatcher.step(&step("a", 0, State::Firing), Whose::default(), now(0), 1);
    dispatcher.drain();
    dispatcher.configure(&config(&ESCALATED.replace("channels = [\"bob\"]\n", "channels = [\"ops\", \"ann\"]\n")), &[]);
    dispatcher.advance(now(60), 2);
    let channels: Vec<String> = dispatcher.drain().orders.iter().map(|order| order.channel.to_string()).collect();
    assert_eq!(channels.len(), 2);
    dispatcher.configure(&config(LIMITED), &[]);
    dispatcher.advance(now(1000), 3);
    let decided = dispatcher.drain();
    assert!(decided.orders.is_empty() && dispatcher.next_due().is_none());
    assert_eq!((decided.memory.len(), decided.memory[0].value.clone()), (1, None));
}

#[test]
fn a_level_with_nobody_and_an_end_without_an_answer_are_counted() {
    let text = ESCALATED.replace("repeat = 1", "repeat = 0");
    let mut dispatcher = Dispatcher::new(&config(&text), &[], Vec::new());
    let now = |second: i64| UtcMicros(BEGIN + second * SECOND);
    dispatcher.step(&step("a", 0, State::Firing), Whose::default(), now(0), 1);
    dispatcher.escalations.configure(
        &[crate::config::Escalation {
            levels: vec![
                crate::config::Level {
                    after: Duration::ZERO,
                    channels: Vec::new(),
                    on_call: vec!["gone".to_owned()]
                };
                2
            ],
            ..config(&text).escalations.remove(0)
        }],
        &[],
    );
    dispatcher.advance(now(60), 2);
    assert_eq!(dispatcher.drain().amiss, Amiss { exhausted: 1, nobody: 1 });
}

#[test]
fn what_can_not_be_read_any_more_is_left_and_the_rest_goes_on() {
    let remembered = ["storm/ops/too-hot", "escalation/a", "else/b"].map(|key| (key.to_owned(), "{".to_owned()));
    let dispatcher = Dispatcher::new(&config(ESCALATED), &[], remembered.to_vec());
    assert_eq!(dispatcher.next_due(), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever comes when: restarts change nothing, a window tells no more than its limit and one digest, and nothing is lost.
    #[test]
    fn what_is_held_back_is_in_the_digests_and_restarts_change_nothing(
        gaps in prop::collection::vec((0_i64..40, 0_usize..3), 1..60),
    ) {
        let states = [State::Firing, State::Acknowledged, State::Resolved];
        let (mut second, mut events) = (0, Vec::new());
        for (number, (gap, state)) in gaps.iter().enumerate() {
            second += gap;
            events.push(steps(second, &format!("a{number}"), 0, states[*state]));
        }
        events.push(at(second + 61));
        let text = LIMITED.replace("limit", "states = [\"firing\", \"acknowledged\", \"resolved\"]\n    limit");
        let of_ops: Vec<Told> = both(&text, &events).into_iter().filter(|one| one.1 == "ops").collect();
        let (digests, single): (Vec<&Told>, Vec<&Told>) = of_ops.iter().partition(|one| one.2.contains("more of rule"));
        let held: usize =
            digests.iter().map(|one| one.2.split(' ').next().unwrap().parse::<usize>().unwrap()).sum();
        prop_assert_eq!(single.len() + held, gaps.len());
        for start in &single {
            let within = single.iter().filter(|one| (start.0..start.0 + 60).contains(&one.0)).count();
            prop_assert!(within <= 4, "two windows may meet in any minute");
        }
    }
}
