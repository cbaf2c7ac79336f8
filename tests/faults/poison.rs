//! One row in 10,000 that only the database knows to be bad costs itself only.

use std::time::Duration;

use super::ledger::Voice;
use super::rig::{Combo, Kept, Needs, Rig};
use crate::support::daemon::eventually;

const POISON: u64 = 4_321;

/// Two publishers of 5,000 messages of two rows each: one bad row in each 10,000.
fn poisoned(combo: Combo, trap: &str) {
    let mut rig = Rig::start(combo, &Needs::default());
    rig.query(trap);
    let fast = |level, qos| Voice { pace: Duration::ZERO, numbers: 5_000, ..Voice::new(level, qos) };
    rig.publish(&[fast(5, 1), fast(4, 2)]);
    eventually("all are published", || (rig.acknowledged() == 10_000).then_some(()));
    let verdict = rig.finish("1 row in 10,000 poisoned", Kept::ByBroker);
    assert_eq!((verdict.missing, verdict.extra, verdict.acknowledged), (0, 0, 10_001), "{verdict}");
    assert_eq!(verdict.torn, 2, "the poisoned half of two messages");
    let poisoned = format!("SELECT count(*) FROM readings WHERE metric = 'twin' AND value = {POISON}");
    assert_eq!(rig.query(&poisoned), "0");
    let events = rig.tidegate.json(&["quarantine", "list"]);
    let events = events.as_array().unwrap();
    assert_eq!(events.len(), 2, "{events:?}");
    assert!(events.iter().all(|event| event["reason"] == "rejected_by_database"), "{events:?}");
}

#[test]
fn one_row_in_10_000_that_only_postgresql_refuses_costs_itself_only() {
    poisoned(
        Combo::Server(5),
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
           IF NEW.value = 4321 AND (SELECT metric FROM device_sensors WHERE id = NEW.sensor_id) = 'twin' THEN \
             RAISE EXCEPTION 'poison' USING ERRCODE = 'check_violation'; \
           END IF; RETURN NEW; END $$; \
         CREATE TRIGGER refuse BEFORE INSERT ON telemetry FOR EACH ROW EXECUTE FUNCTION refuse()",
    );
}

#[test]
fn one_row_in_10_000_that_only_sqlite_refuses_costs_itself_only() {
    poisoned(
        Combo::Gateway(5),
        "CREATE TRIGGER refuse BEFORE INSERT ON telemetry \
         WHEN NEW.value = 4321 AND (SELECT metric FROM device_sensors WHERE id = NEW.sensor_id) = 'twin' \
         BEGIN SELECT RAISE(ABORT, 'poison'); END",
    );
}
