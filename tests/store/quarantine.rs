use std::sync::Arc;

use tidegate::cli;
use tidegate::metrics::Metrics;
use tidegate::quarantine::{Reason, Refusal};
use tidegate::store::Retrier;
use tidegate::store::batch::{Batch, Quarantined};
use tidegate::store::quarantine::{Filter, Purged};

use super::{Site, batch, lookup, message, on_both, reading};

on_both!(
    what_was_refused_is_found_by_filter,
    a_retry_stores_at_the_original_time_and_settles_the_event,
    a_purge_takes_what_it_is_told_and_no_more,
    the_bound_discards_the_oldest,
    a_place_that_the_journal_has_lost_is_free_for_another_message,
);

fn refused(seq: u64, reason: Reason) -> Quarantined {
    Quarantined {
        message: Arc::new(message(seq)),
        source: Some("native".into()),
        tenant: "default".into(),
        device: Some(format!("d{seq}").into()),
        refusals: vec![Refusal::sample(reason, "t", "why"), Refusal::sample(Reason::WrongKind, "u", "why not")],
        more: 3,
    }
}

fn with_refusals(site: &Site, count: u64) {
    let (mut writer, _) = site.writer();
    let mut work = batch(1000, vec![]);
    work.quarantined =
        (1..=count).map(|seq| refused(seq, if seq % 2 == 0 { Reason::OutOfRange } else { Reason::BadTime })).collect();
    assert_eq!(writer.commit(&work, &lookup).unwrap().quarantined, count * 2);
}

fn what_was_refused_is_found_by_filter(site: &Site) {
    with_refusals(site, 4);
    let count = |filter: Filter| site.store.quarantine_list(&filter, 100).unwrap().len();
    assert_eq!(count(Filter::default()), 8);
    assert_eq!(count(Filter { reason: Some(Reason::BadTime), ..Filter::default() }), 2);
    assert_eq!(count(Filter { device: Some("d3".into()), ..Filter::default() }), 2);
    assert_eq!(count(Filter { source: Some("other".into()), ..Filter::default() }), 0);
    assert_eq!(count(Filter { tenant: Some("default".into()), resolved: Some(false), ..Filter::default() }), 8);
    let event = site.store.quarantine_list(&Filter::default(), 1).unwrap().remove(0);
    let (held, events) = site.store.quarantine_show(event.message).unwrap().unwrap();
    assert_eq!(events.len(), 2);
    assert_eq!(held.message.publish.payload, message(4).publish.payload);
    assert_eq!(held.message.received_at, message(4).received_at);
    assert_eq!((held.seq, held.more), (4, 3));
    assert!(site.store.quarantine_show(999_999).unwrap().is_none());

    let mut out = Vec::new();
    cli::quarantine::list(&site.store, &Filter::default(), 10, true, &mut out).unwrap();
    let listed: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 8);
    out.clear();
    cli::quarantine::show(&site.store, event.message, false, &mut out).unwrap();
    assert!(String::from_utf8(out).unwrap().contains("{\"t\": 4}"));
}

fn a_retry_stores_at_the_original_time_and_settles_the_event(site: &Site) {
    with_refusals(site, 3);
    let held = site.store.take_for_retry(&Filter::default(), 0, 2).unwrap();
    assert_eq!(held.len(), 2);
    let ids: Vec<i64> = held.iter().map(|held| held.id).collect();
    assert_eq!(site.store.take_for_retry(&Filter::default(), ids[1], 10).unwrap().len(), 1);

    // The first is understood now, the second still is not.
    let still = Quarantined { message: Arc::new(held[1].message.clone()), ..refused(2, Reason::OutOfRange) };
    let mut first = reading(0, 0, 21.5, held[0].message.seq);
    first.time = held[0].message.received_at;
    let work = Batch { quarantined: vec![still], ..batch(0, vec![first]) };
    let mut retrier = Retrier::new(site.store.clone(), Metrics::new());
    let done = retrier.resolve(&ids, &work).unwrap();
    assert_eq!((done.committed.stored, done.events, done.committed.quarantined), (1, 4, 2));

    assert_eq!(site.store.position("gw", "journal-1").unwrap().seq, 1000, "the position is not a retry's");
    assert!(
        site.store.snapshot().unwrap().devices[0].sensors[0]
            .last
            .is_some_and(|last| last.0 == held[0].message.received_at)
    );
    let open: Vec<i64> =
        site.store.take_for_retry(&Filter::default(), 0, 10).unwrap().iter().map(|held| held.id).collect();
    assert!(!open.contains(&ids[0]) && open.contains(&ids[1]) && open.len() == 2);
    let settled = Filter { resolved: Some(true), ..Filter::default() };
    assert_eq!(site.store.quarantine_list(&settled, 10).unwrap().len(), 4);
}

fn a_purge_takes_what_it_is_told_and_no_more(site: &Site) {
    with_refusals(site, 4);
    let filter = Filter { reason: Some(Reason::WrongKind), ..Filter::default() };
    assert_eq!(site.store.quarantine_purge(&filter).unwrap(), Purged { events: 4, messages: 0 });
    let filter = Filter { device: Some("d1".into()), ..Filter::default() };
    assert_eq!(site.store.quarantine_purge(&filter).unwrap(), Purged { events: 1, messages: 1 });
    assert_eq!(site.store.quarantine_purge(&Filter::default()).unwrap(), Purged { events: 3, messages: 3 });
    assert_eq!(site.rows("quarantine_messages"), 0);
}

fn the_bound_discards_the_oldest(site: &Site) {
    with_refusals(site, 10);
    assert_eq!(site.store.enforce_bound(20).unwrap(), 0);
    assert_eq!(site.store.enforce_bound(5).unwrap(), 15);
    assert_eq!(site.rows("quarantine_events"), 5);
    assert_eq!(site.rows("quarantine_messages"), 3);
    let oldest = site.store.quarantine_list(&Filter::default(), 100).unwrap().pop().unwrap();
    assert_eq!(oldest.topic, "devices/d8/telemetry");
    assert_eq!(site.store.enforce_bound(0).unwrap(), 5);
    assert_eq!(site.rows("quarantine_messages"), 0);
}

fn a_place_that_the_journal_has_lost_is_free_for_another_message(site: &Site) {
    with_refusals(site, 4);
    // The journal ends at 2 now: 3 and 4 of before are lost to it.
    site.store.rewind("gw", "journal-1", 2).unwrap();
    let (mut writer, _) = site.writer();
    let mut work = batch(3, vec![]);
    work.quarantined = vec![refused(2, Reason::OutOfRange), refused(3, Reason::Malformed)];
    assert_eq!(writer.commit(&work, &lookup).unwrap().quarantined, 2, "2 is there already, 3 is another message");
    assert_eq!(site.rows("quarantine_messages"), 5);
    let found =
        site.store.quarantine_list(&Filter { reason: Some(Reason::Malformed), ..Filter::default() }, 9).unwrap();
    assert_eq!(found.len(), 1);
    site.store.rewind("gw", "journal-1", 2).unwrap();
    assert_eq!(site.rows("quarantine_messages"), 5);
}
