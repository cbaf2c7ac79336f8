//! Which steps go by which channels is kept with them, and what became of it.

use tidegate::alert::{State, Transition};
use tidegate::notify::{Fate, Order, Outcome};
use tidegate::store::alerts::NotificationFilter;
use tidegate::store::batch::Batch;
use tidegate::time::UtcMicros;

use super::{Site, at, begun, id, on_both, step, steps};
use crate::store::lookup;

on_both!(notifications_are_due_until_they_are_sent_or_given_up, notifications_end_with_their_alert_and_need_one);

fn order(digits: &str, step: u32, channel: &str) -> Order {
    Order { id: id(digits).into(), step, channel: channel.into() }
}

fn with(notifications: Vec<Order>, batch: Batch) -> Batch {
    Batch { notifications, ..batch }
}

fn outcome(digits: &str, channel: &str, attempts: u32, fate: Fate) -> Outcome {
    Outcome { id: id(digits).into(), step: 0, channel: channel.into(), attempts, fate, at: at(500), seq: 0 }
}

/// Far enough in the future for what is due by the clock.
const LATER: UtcMicros = UtcMicros(9_000_000_000_000_000);

fn due(site: &Site, channels: &[&str]) -> Vec<(String, u32, String)> {
    let channels: Vec<String> = channels.iter().map(ToString::to_string).collect();
    let due = site.store.due_notifications("gw", &channels, LATER, 10).unwrap();
    due.into_iter().map(|(channel, attempts, step)| (channel, attempts, step.id[..2].to_owned())).collect()
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
    assert_eq!(found[0].2, Transition { seq: 0, ..first });
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
