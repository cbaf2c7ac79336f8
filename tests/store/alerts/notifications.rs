//! Which steps go by which channels is kept with them, and what became of it.

use std::sync::Arc;

use tidegate::alert::{Severity, State, Transition};
use tidegate::notify::{Digest, Escalated, Fate, Key, MemoryChange, Notice, Order, Outcome, Subject};
use tidegate::store::alerts::NotificationFilter;
use tidegate::store::batch::Batch;
use tidegate::time::UtcMicros;

use super::{Site, at, begun, id, on_both, step, steps};
use crate::store::lookup;

on_both!(
    notifications_are_due_until_they_are_sent_or_given_up,
    notifications_end_with_their_alert_and_need_one,
    digests_and_escalations_are_told_apart_from_the_steps_themselves,
    what_is_remembered_goes_with_the_position,
);

fn order(digits: &str, step: u32, channel: &str) -> Order {
    let step = super::step(digits, step, State::Firing);
    Order { notice: Notice::of_step(Arc::new(step)), channel: channel.into() }
}

fn with(notifications: Vec<Order>, batch: Batch) -> Batch {
    Batch { notifications, ..batch }
}

fn outcome(digits: &str, channel: &str, attempts: u32, fate: Fate) -> Outcome {
    let key = Key::Step { id: id(digits).into(), step: 0, occasion: 0 };
    Outcome { key, channel: channel.into(), attempts, fate, at: at(500), seq: 0 }
}

/// Far enough in the future for what is due by the clock.
const LATER: UtcMicros = UtcMicros(9_000_000_000_000_000);

fn due(site: &Site, channels: &[&str]) -> Vec<(String, u32, String)> {
    let channels: Vec<String> = channels.iter().map(ToString::to_string).collect();
    let due = site.store.due_notifications("gw", &channels, LATER, 10).unwrap();
    due.into_iter().map(|row| (row.channel, row.attempts, row.notice.id()[..2].to_owned())).collect()
}

fn notifications_are_due_until_they_are_sent_or_given_up(site: &Site) {
    let mut writer = begun(site);
    let first = step("ab", 0, State::Firing);
    let orders = vec![order("ab", 0, "ops"), order("ab", 0, "chat"), order("cd", 0, "ops")];
    let batch = with(orders.clone(), steps(2, vec![first.clone(), step("cd", 0, State::Firing)]));
    writer.commit(&batch, &lookup).unwrap();
    let row = |channel: &str, attempts, digits: &str| (channel.to_owned(), attempts, digits.to_owned());
    assert_eq!(due(site, &["ops"]), [row("ops", 0, "ab"), row("ops", 0, "cd")]);
    assert_eq!(due(site, &[]), []);
    let found = site.store.due_notifications("gw", &["chat".to_owned()], LATER, 10).unwrap();
    let first = Notice::of_step(Arc::new(Transition { seq: 0, ..first }));
    assert_eq!(found[0].notice, first);
    assert!(site.store.due_notifications("another", &["ops".to_owned()], LATER, 10).unwrap().is_empty());

    let error = || "the server answers 500".to_owned();
    let outcomes = [
        outcome("ab", "ops", 1, Fate::Pending { error: error(), next_at: at(900) }),
        outcome("cd", "ops", 8, Fate::Dead { error: error() }),
        outcome("ab", "chat", 1, Fate::Sent),
        outcome("ee", "ops", 1, Fate::Sent),
    ];
    site.store.record_notifications(&outcomes).unwrap();
    assert_eq!(due(site, &["ops", "chat"]), [row("ops", 1, "ab")]);
    let before = site.store.due_notifications("gw", &["ops".to_owned()], at(899), 10).unwrap();
    assert!(before.is_empty(), "not before its time");
    // The same steps once more, as after a crash: what is known stays.
    writer.commit(&with(orders, steps(3, Vec::new())), &lookup).unwrap();
    assert_eq!(due(site, &["ops", "chat"]), [row("ops", 1, "ab")]);

    let of = |state: &str| NotificationFilter { state: Some(state.to_owned()), ..NotificationFilter::default() };
    let dead = site.store.notifications(&of("dead"), 10).unwrap();
    assert_eq!((dead.len(), &*dead[0].alert, dead[0].attempts), (1, &*id("cd"), 8));
    assert_eq!((dead[0].last_error.clone(), dead[0].device.as_str()), (Some(error()), "d0"));
    assert_eq!(site.store.notifications(&NotificationFilter::default(), 10).unwrap().len(), 3);
    let other = NotificationFilter { alert: Some("a%".into()), ..NotificationFilter::default() };
    assert_eq!(site.store.retry_notifications(&other).unwrap(), 0);
    let meant = NotificationFilter { alert: Some("CD".into()), channel: Some("ops".into()), state: None };
    assert_eq!(site.store.retry_notifications(&meant).unwrap(), 1);
    assert_eq!(due(site, &["ops"]), [row("ops", 1, "ab"), row("ops", 0, "cd")]);
    assert_eq!(site.store.retry_notifications(&NotificationFilter::default()).unwrap(), 0);
}

fn notifications_end_with_their_alert_and_need_one(site: &Site) {
    let mut writer = begun(site);
    let stranger = Transition { device: "nobody".into(), ..step("cd", 0, State::Firing) };
    let orders = vec![order("ab", 0, "ops"), order("cd", 0, "ops")];
    writer.commit(&with(orders, steps(2, vec![step("ab", 0, State::Firing), stranger])), &lookup).unwrap();
    assert_eq!(site.number("SELECT count(*) AS n FROM alert_notifications"), 1);
    site.execute("DELETE FROM alerts");
    assert_eq!(site.number("SELECT count(*) AS n FROM alert_notifications"), 0);
}

fn digests_and_escalations_are_told_apart_from_the_steps_themselves(site: &Site) {
    let mut writer = begun(site);
    let first = step("ab", 0, State::Firing);
    let subject = |level| Subject::Step {
        step: Arc::new(first.clone()),
        escalated: Some(Escalated { policy: "night".into(), level, occasion: level }),
    };
    let digest = Digest {
        id: id("dd").into(),
        channel: "ops".into(),
        rule: "too-hot".into(),
        since: at(100),
        until: at(700),
        firing: 120,
        acknowledged: 0,
        resolved: 17,
        severity: Severity::Critical,
    };
    let of = |subject| Order { notice: Notice { subject, seq: 2 }, channel: "ops".into() };
    let orders =
        vec![order("ab", 0, "ops"), of(subject(1)), of(subject(2)), of(Subject::Digest(Arc::new(digest.clone())))];
    writer.commit(&with(orders.clone(), steps(2, vec![first.clone()])), &lookup).unwrap();
    // An escalation's later levels come with no step; and the same once more, as after a crash, changes nothing.
    let later = Order { notice: Notice { subject: subject(3), seq: 3 }, channel: "ops".into() };
    let gone = order("ee", 0, "ops");
    writer.commit(&with([orders, vec![later, gone]].concat(), steps(3, Vec::new())), &lookup).unwrap();
    let waiting = || site.store.due_notifications("gw", &["ops".to_owned()], LATER, 10).unwrap();
    let expected: Vec<Notice> = [
        Notice::of_step(Arc::new(first.clone())).subject,
        subject(1),
        subject(2),
        subject(3),
        Subject::Digest(Arc::new(digest)),
    ]
    .into_iter()
    .map(|subject| Notice { subject, seq: 0 })
    .collect();
    let zero = |notice: Notice| match notice.subject {
        Subject::Step { step, escalated } => {
            let step = Arc::new(Transition { seq: 0, ..(*step).clone() });
            Notice { subject: Subject::Step { step, escalated }, seq: 0 }
        }
        Subject::Digest(_) => notice,
    };
    let found: Vec<Notice> = waiting().into_iter().map(|row| row.notice).collect();
    assert_eq!(found, expected.into_iter().map(zero).collect::<Vec<_>>());
    let outcomes = waiting().into_iter().enumerate().map(|(number, row)| Outcome {
        key: row.notice.key(),
        channel: "ops".into(),
        attempts: 1,
        fate: if number % 2 == 0 { Fate::Dead { error: "shut".to_owned() } } else { Fate::Sent },
        at: at(900),
        seq: 0,
    });
    site.store.record_notifications(&outcomes.collect::<Vec<_>>()).unwrap();
    assert_eq!(waiting(), []);
    let dead = NotificationFilter { state: Some("dead".into()), ..NotificationFilter::default() };
    let listed = site.store.notifications(&dead, 10).unwrap();
    let shown: Vec<(Option<i32>, Option<&str>)> =
        listed.iter().map(|row| (row.level, row.message.as_deref())).collect();
    let message = Some("137 more of rule too-hot: 120 firing, 17 resolved");
    assert!(shown.len() == 3 && shown.contains(&(None, message)) && shown.contains(&(Some(2), None)), "{shown:?}");
    assert_eq!(site.store.notifications(&NotificationFilter::default(), 2).unwrap().len(), 2);
    let only = NotificationFilter { alert: Some("dd".into()), ..NotificationFilter::default() };
    assert_eq!(site.store.retry_notifications(&only).unwrap(), 1);
    assert_eq!(waiting().len(), 1);
    assert_eq!(site.store.retry_notifications(&NotificationFilter::default()).unwrap(), 2);
}

fn what_is_remembered_goes_with_the_position(site: &Site) {
    let mut writer = begun(site);
    let change = |key: &str, value: Option<&str>| MemoryChange { key: key.into(), value: value.map(str::to_owned) };
    let remember = |position, notify_memory| Batch { notify_memory, ..steps(position, Vec::new()) };
    let first = vec![change("storm/a", Some("1")), change("storm/b", Some("1")), change("storm/a", Some("2"))];
    writer.commit(&remember(2, first), &lookup).unwrap();
    let kept = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    assert_eq!(site.store.notify_memory("gw").unwrap(), kept(&[("storm/a", "2"), ("storm/b", "1")]));
    assert!(site.store.notify_memory("another").unwrap().is_empty());
    writer.commit(&remember(3, vec![change("storm/a", None), change("storm/c", None)]), &lookup).unwrap();
    assert_eq!(site.store.notify_memory("gw").unwrap(), kept(&[("storm/b", "1")]));
}
