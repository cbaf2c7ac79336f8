//! What people ask of alerts reaches the journal: once while all is well, and never not at all.

use std::sync::Arc;
use std::time::Duration;

use tidegate::alert::desk::Desk;
use tidegate::alert::transition::{ACTION_TOPIC, Deed};
use tidegate::alert::{Action, State};
use tidegate::config::Sync;
use tidegate::journal::{Acknowledge, Bounds, Journal, Next, Options, Token};
use tidegate::metrics::Metrics;

use super::{Site, begun, id, step, steps};
use crate::store::lookup;
use crate::support::daemon::eventually;

struct Nobody;

impl Acknowledge for Nobody {
    fn durable(&self, _: &[Token]) {}
}

fn journal(dir: &tempfile::TempDir) -> Journal {
    let options = Options {
        dir: dir.path().to_owned(),
        max_size: 1 << 20,
        retain: Duration::ZERO,
        sync: Sync::Always,
        redelivery_window: 10,
        inbox: Bounds { messages: 3, bytes: 1 << 20 },
        tail_bytes: 1 << 20,
    };
    Journal::open(options, Metrics::new()).unwrap()
}

#[test]
fn an_action_is_taken_once_it_is_durable_in_the_journal() {
    let site = Site::sqlite();
    begun(&site).commit(&steps(2, vec![step("ab", 0, State::Firing)]), &lookup).unwrap();
    let note =
        |n: u32| Action { id: id("ab"), action: Deed::Note, who: "eve".into(), note: format!("note {n}"), ask: None };
    let asked: Vec<Action> = (0..5).map(note).collect();
    for action in &asked {
        site.store.ask_of_alert(action).unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let journal = journal(&dir);
    let (inbox, mut reader) = (journal.inbox(), journal.reader());
    let mut desk = Desk::new(inbox.clone());
    for _ in 0..3 {
        desk.take_actions(&site.store, "gw").unwrap();
        assert_eq!(inbox.submitted(), 3, "as many as there is room for, and none twice");
        assert_eq!(site.store.waiting_actions("gw").unwrap().len(), 5, "none is durable yet");
    }
    let thread = std::thread::spawn(move || journal.run(Arc::new(Nobody)));
    eventually("all are taken", || {
        desk.take_actions(&site.store, "gw").unwrap();
        (!site.store.news("gw").unwrap().1).then_some(())
    });
    assert_eq!(inbox.submitted(), 5);
    inbox.close();
    thread.join().unwrap().unwrap();
    let mut found = Vec::new();
    while let Next::Messages(messages) = reader.next(found.len() as u64, Duration::ZERO).unwrap() {
        found.extend(messages);
    }
    let carried = |payload: &[u8]| serde_json::from_slice::<Action>(payload).unwrap();
    let numbered = (1..).zip(asked).map(|(number, action)| Action { ask: Some(number), ..action });
    let carried = found.iter().map(|message| carried(&message.publish.payload));
    assert_eq!(carried.collect::<Vec<_>>(), numbered.collect::<Vec<_>>());
    assert!(found.iter().all(|message| message.publish.topic == ACTION_TOPIC));
}

#[test]
fn an_action_that_was_not_durable_is_handed_over_by_the_next_start() {
    let site = Site::sqlite();
    begun(&site).commit(&steps(2, vec![step("ab", 0, State::Firing)]), &lookup).unwrap();
    let resolve = Action { id: id("ab"), action: Deed::Resolve, who: "eve".into(), note: String::new(), ask: None };
    site.store.ask_of_alert(&resolve).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let first = journal(&dir);
    first.inbox().close();
    Desk::new(first.inbox()).take_actions(&site.store, "gw").unwrap();
    assert_eq!(first.inbox().submitted(), 0, "it is closed");
    drop(first);
    let second = journal(&dir);
    Desk::new(second.inbox()).take_actions(&site.store, "gw").unwrap();
    assert_eq!(second.inbox().submitted(), 1);
    let third = second.inbox();
    Desk::new(third.clone()).take_actions(&site.store, "gw").unwrap();
    assert_eq!(third.submitted(), 2, "whether the first had got through is not known");
    assert_eq!(site.store.waiting_actions("gw").unwrap().len(), 1);
}
