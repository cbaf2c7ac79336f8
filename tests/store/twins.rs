use std::time::Duration;

use serde_json::{Value, json};
use tidegate::store::StoreError;
use tidegate::store::batch::Batch;
use tidegate::store::twins::Told;
use tidegate::twin::document::Document;
use tidegate::twin::shadow::Action;
use tidegate::twin::state::{Change, Expected, Update};
use tidegate::twin::{Answer, Ask, Limits, MAX_NAMED, Reason, Want};

use super::{Site, at, device, lookup, on_both};

on_both!(
    what_a_batch_asks_is_done_in_order_and_with_the_position,
    of_many_that_have_seen_the_same_version_one_changes_it,
    named_twins_and_waiting_answers_are_bounded,
    the_newest_state_is_told_once_the_broker_lacks_it,
    what_was_told_of_a_device_that_is_deleted_is_cleared,
    a_name_that_several_tenants_have_is_the_default_tenants,
);

const LIMITS: Limits = Limits { max_size: 1000, max_depth: 8 };

fn object(value: Value) -> Document {
    match value {
        Value::Object(document) => document,
        other => panic!("{other}"),
    }
}

fn desire(value: Value) -> Update {
    Update { desired: Change::Merge(object(value)), ..Update::default() }
}

fn report(value: Value) -> Update {
    Update { reported: Change::Merge(object(value)), ..Update::default() }
}

fn ask(device: &str, seconds: i64, want: Want) -> Ask {
    Ask {
        tenant: None,
        device: device.into(),
        name: "".into(),
        at: at(seconds * 1_000_000),
        limits: LIMITS,
        want,
        answer: Answer::Nobody,
    }
}

/// With the device d0.
fn asking(position: u64, twins: Vec<Ask>) -> Batch {
    Batch { position, messages: 1, devices: vec![device(0)], twins, ..Batch::default() }
}

fn what_a_batch_asks_is_done_in_order_and_with_the_position(site: &Site) {
    let (mut writer, metrics) = site.writer();
    let first = vec![
        ask("d0", 1, Want::Update(desire(json!({"on": true, "text": "a\u{0}b"})))),
        ask("d0", 3, Want::Update(report(json!({"on": true})))),
        ask("d0", 4, Want::Update(report(json!({"text": "a\u{0}b"})))),
        ask("d0", 5, Want::Update(report(json!({"text": "a\u{0}b"})))),
        ask("nobody", 5, Want::Tell),
        ask("no\u{0}body", 5, Want::Tell),
        ask(
            "d0",
            6,
            Want::Update(Update { expected: Some(Expected::UnchangedSince(1)), ..report(json!({"on": false})) }),
        ),
    ];
    let done = writer.commit(&asking(1, first.clone()), &lookup).unwrap().twins;
    assert_eq!((done.desired, done.reported), (1, 2));
    assert_eq!(done.convergences, [Duration::from_secs(3)]);
    assert_eq!(done.refused.iter().sum::<u64>(), 3);
    let twin = site.store.twin(None, "d0", "").unwrap().twin;
    assert_eq!((twin.version, twin.convergence), (3, Some(Duration::from_secs(3))));
    assert!(metrics.encode().unwrap().contains("tidegate_twin_convergence_seconds_count 1"));

    // A batch that another has overtaken changes nothing, as after a crash.
    let (mut another, _) = site.writer();
    another.commit(&asking(1, first), &lookup).unwrap_err();
    assert_eq!(site.store.twin(None, "d0", "").unwrap().twin, twin);
}

fn of_many_that_have_seen_the_same_version_one_changes_it(site: &Site) {
    let (mut writer, _) = site.writer();
    writer.commit(&asking(1, Vec::new()), &lookup).unwrap();
    let attempts = 6;
    let won: usize = std::thread::scope(|scope| {
        let attempt = |number: i64| {
            let update = Update { expected: Some(Expected::UnchangedSince(0)), ..desire(json!({ "who": number })) };
            move || match site.store.change_twin((None, "d0", ""), &update, LIMITS) {
                Ok(_) => 1,
                Err(StoreError::Twin(refused)) if refused.reason == Reason::Conflict => 0,
                Err(error) => panic!("{error}"),
            }
        };
        let threads: Vec<_> = (1..=attempts).map(|number| scope.spawn(attempt(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!((won, site.store.twin(None, "d0", "").unwrap().twin.version), (1, 1));
}

fn named_twins_and_waiting_answers_are_bounded(site: &Site) {
    let (mut writer, _) = site.writer();
    let shadow = |name: String, action, want| Ask {
        name: name.into(),
        answer: Answer::Shadow { token: None, action },
        ..ask("d0", 1, want)
    };
    let counted = || Want::Update(Update { always: true, ..desire(json!({"a": 1})) });
    let named = |number: usize| shadow(format!("n{number}"), Action::Update, counted());
    let all = (0..=MAX_NAMED).map(named).collect();
    let done = writer.commit(&asking(1, all), &lookup).unwrap().twins;
    assert_eq!((done.desired, done.refused.iter().sum::<u64>()), (MAX_NAMED as u64, 1));
    assert_eq!(site.rows("device_twins"), MAX_NAMED as i64);
    // One that is deleted makes room, and leaves no row.
    let delete = shadow("n3".to_owned(), Action::Delete, Want::Delete(None));
    writer.commit(&asking(2, vec![delete, shadow("x".to_owned(), Action::Get, Want::Get)]), &lookup).unwrap();
    assert_eq!(site.rows("device_twins"), MAX_NAMED as i64 - 1);
    assert_eq!(writer.commit(&asking(3, vec![named(99)]), &lookup).unwrap().twins.desired, 1);

    // Answers that find no room are left out; the change stands. One on a topic that can be none is left out too.
    site.execute(
        "INSERT INTO device_twin_messages (topic, payload) \
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9999) SELECT 't', '' FROM n; \
         DELETE FROM device_twin_messages WHERE topic <> 't'",
    );
    let done = writer.commit(&asking(4, vec![named(5)]), &lookup).unwrap().twins;
    assert_eq!((done.desired, done.left_out), (1, 2));
    site.execute("DELETE FROM device_twin_messages");
    let long = Ask { device: "x".repeat(65_510).into(), ..shadow(String::new(), Action::Get, Want::Get) };
    assert_eq!(writer.commit(&asking(5, vec![long]), &lookup).unwrap().twins.left_out, 1);
}

fn the_newest_state_is_told_once_the_broker_lacks_it(site: &Site) {
    let (mut writer, _) = site.writer();
    writer.commit(&asking(1, Vec::new()), &lookup).unwrap();
    let untold = || site.store.untold_twins("gw", 10).unwrap();
    assert!(untold().is_empty());
    for number in 1..=3 {
        site.store.change_twin((None, "d0", ""), &desire(json!({ "a": number })), LIMITS).unwrap();
    }
    let due = untold();
    assert_eq!((due.len(), &due[0].twin.desired.state["a"]), (1, &json!(3)));
    let told = Told { device_id: due[0].device_id, desired: due[0].desired, delta: due[0].delta };
    // It changes while it is being told.
    site.store.change_twin((None, "d0", ""), &desire(json!({"a": 4})), LIMITS).unwrap();
    site.store.twins_told(&[told]).unwrap();
    let due = untold();
    assert_eq!((due.len(), &due[0].twin.desired.state["a"]), (1, &json!(4)));
    site.store.twins_told(&[Told { desired: due[0].desired, delta: due[0].delta, ..told }]).unwrap();
    assert!(untold().is_empty() && site.store.twin(None, "d0", "").unwrap().told);
    // A report changes the delta only.
    writer.commit(&asking(2, vec![ask("d0", 9, Want::Update(report(json!({"a": 4}))))]), &lookup).unwrap();
    let due = untold();
    assert_eq!((due.len(), due[0].lacks_desired, due[0].lacks_delta), (1, false, true));
    assert!(site.store.untold_twins("another", 10).unwrap().is_empty(), "who hears the device speaks to it");
    site.store.twins_told(&[Told { desired: due[0].desired, delta: due[0].delta, ..told }]).unwrap();
    assert_eq!(site.store.tell_twins_again("gw").unwrap(), 1);
    assert!(untold()[0].lacks_desired && untold()[0].lacks_delta);
}

fn what_was_told_of_a_device_that_is_deleted_is_cleared(site: &Site) {
    let (mut writer, _) = site.writer();
    let batch = Batch { devices: vec![device(0), device(1)], ..asking(1, Vec::new()) };
    writer.commit(&batch, &lookup).unwrap();
    for uid in ["d0", "d1"] {
        site.store.change_twin((None, uid, ""), &desire(json!({"a": 1})), LIMITS).unwrap();
    }
    // Of d1 the broker has nothing.
    let due = site.store.untold_twins("gw", 10).unwrap();
    let first = due.iter().find(|due| due.device == "d0").unwrap();
    let told = Told { device_id: first.device_id, desired: first.desired, delta: first.delta };
    site.store.twins_told(&[told]).unwrap();
    site.execute("DELETE FROM devices");
    assert_eq!(site.rows("device_twins"), 0);
    let messages = site.store.twin_messages("gw", 10).unwrap();
    let mut cleared: Vec<&str> = messages.iter().map(|message| message.topic.as_str()).collect();
    cleared.sort_unstable();
    assert_eq!(cleared, ["devices/d0/twin/delta", "devices/d0/twin/desired"]);
    assert!(messages.iter().all(|message| message.retain && message.payload.is_empty()));
    let ids: Vec<i64> = messages.iter().map(|message| message.id).collect();
    site.store.twin_messages_told(&ids).unwrap();
    assert!(site.store.twin_messages("gw", 10).unwrap().is_empty());
}

fn a_name_that_several_tenants_have_is_the_default_tenants(site: &Site) {
    let (mut writer, _) = site.writer();
    writer.commit(&asking(1, Vec::new()), &lookup).unwrap();
    site.execute(
        "INSERT INTO tenants (id, name) VALUES (8, 'acme'), (9, 'other'); \
         INSERT INTO devices (id, tenant_id, uid) VALUES (90, 8, 'd0'), (91, 8, 'both'), (92, 9, 'both'), (93, 9, 'only')",
    );
    let tell = |device: &str| ask(device, 1, Want::Update(report(json!({"a": 1}))));
    let done = writer.commit(&asking(2, vec![tell("d0"), tell("both"), tell("only")]), &lookup).unwrap().twins;
    assert_eq!((done.reported, done.refused.iter().sum::<u64>()), (2, 1));
    let version = |tenant: &str, uid: &str| site.store.twin(Some(tenant), uid, "").unwrap().twin.version;
    assert_eq!((version("default", "d0"), version("acme", "d0"), version("other", "only")), (1, 0, 1));
    site.store.change_twin((Some("acme"), "d0", ""), &desire(json!({"secret": 1})), LIMITS).unwrap();
    site.store.change_twin((Some("other"), "only", ""), &desire(json!({"a": 2})), LIMITS).unwrap();
    let due = site.store.untold_twins("gw", 10).unwrap();
    let hidden = |id: i32| due.iter().find(|due| due.device_id == id).unwrap().hidden;
    assert!(hidden(90) && !hidden(93), "nobody hears what is meant for another tenant's device");
}
