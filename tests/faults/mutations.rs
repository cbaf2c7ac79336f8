//! The campaign can fail: a tidegate that breaks a promise on purpose is caught. The same scenario without the mutation
//! is kept, so that it is the mutation that is seen.

use super::ledger::{Verdict, Voice};
use super::rig::{Combo, Kept, Needs, Rig};

/// `kill -9` while commits of the journal take 50 ms, as on a slow disk.
fn killed_on_a_slow_disk(combo: Combo, mutation: Option<&str>) -> Verdict {
    let mut rig = Rig::start(combo, &Needs::default());
    rig.tidegate.kill();
    rig.tidegate.env.push(("TIDEGATE_PAUSE_AT", "journal.before_commit:50".to_owned()));
    rig.tidegate.env.extend(mutation.map(|name| ("TIDEGATE_MUTATION", name.to_owned())));
    rig.start_again();
    rig.publish(&Voice::choir());
    for _ in 0..3 {
        rig.a_while();
        rig.kill_tidegate();
    }
    rig.finish(&format!("a slow disk, mutation {mutation:?}"), Kept::ByBroker)
}

#[cfg(feature = "embedded-broker")]
#[test]
fn an_acknowledgement_before_the_fsync_is_caught_with_the_embedded_broker() {
    let verdict = killed_on_a_slow_disk(Combo::Alone, None);
    assert!(verdict.is_kept(), "{verdict}");
    let verdict = killed_on_a_slow_disk(Combo::Alone, Some("ack-before-fsync"));
    assert!(verdict.missing > 0, "not caught: {verdict}");
}

#[test]
fn an_acknowledgement_before_the_fsync_is_caught_behind_mosquitto() {
    let verdict = killed_on_a_slow_disk(Combo::Gateway(5), None);
    assert!(verdict.is_kept(), "{verdict}");
    let verdict = killed_on_a_slow_disk(Combo::Gateway(5), Some("ack-before-fsync"));
    assert!(verdict.missing > 0, "not caught: {verdict}");
}

#[test]
fn a_position_outside_the_transaction_is_caught() {
    for (combo, mutation) in [
        (Combo::Gateway(5), None),
        (Combo::Gateway(5), Some("position-outside-transaction")),
        (Combo::Server(5), Some("position-outside-transaction")),
    ] {
        let mut rig = Rig::start(combo, &Needs::default());
        rig.tidegate.env.extend(mutation.map(|name| ("TIDEGATE_MUTATION", name.to_owned())));
        // At QoS 0 nothing is promised that could be broken.
        rig.publish(&[Voice::new(4, 1), Voice::new(5, 1), Voice::new(5, 2)]);
        for _ in 0..2 {
            rig.a_while();
            rig.crash_at("writer.before_commit", 2);
        }
        let verdict = rig.finish(&format!("crash before a commit, mutation {mutation:?}"), Kept::ByBroker);
        assert_eq!(verdict.missing > 0, mutation.is_some(), "{verdict}");
    }
}

#[test]
fn a_redelivery_that_is_stored_again_is_caught() {
    for (combo, mutation) in [
        (Combo::Gateway(5), None),
        (Combo::Gateway(5), Some("redelivery-stored")),
        #[cfg(feature = "embedded-broker")]
        (Combo::Alone, Some("redelivery-stored")),
    ] {
        let mut rig = Rig::start(combo, &Needs::default());
        rig.tidegate.env.extend(mutation.map(|name| ("TIDEGATE_MUTATION", name.to_owned())));
        rig.publish(&[Voice::new(4, 1), Voice::new(5, 1), Voice::new(5, 2)]);
        for _ in 0..3 {
            rig.a_while();
            // Durable, and not acknowledged: it comes again.
            rig.crash_at("journal.after_commit", 2);
        }
        let verdict = rig.finish(&format!("crash before acknowledgements, mutation {mutation:?}"), Kept::ByBroker);
        assert_eq!(verdict.extra > 0, mutation.is_some(), "{verdict}");
        assert_eq!(verdict.missing, 0, "{verdict}");
    }
}
