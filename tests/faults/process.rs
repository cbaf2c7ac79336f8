//! tidegate itself dies, or is told to end.

use super::ledger::Voice;
use super::rig::{Combo, Kept, Needs, Rig};

impl Rig {
    /// SIGTERM under load: it drains, leaves with code 0 and has nothing left to do; then it starts again.
    pub fn terminate_tidegate(&mut self) {
        let status = self.tidegate.stop();
        assert_eq!(status.code(), Some(0), "{}", self.tidegate.log());
        assert_eq!(self.lag(), Some(0), "drained before it left");
        self.start_again();
    }
}

fn killed_at_random_moments(combo: Combo) {
    let mut rig = Rig::start(combo, &Needs::default());
    rig.publish(&Voice::choir());
    for _ in 0..6 {
        rig.a_while();
        rig.kill_tidegate();
    }
    rig.a_while();
    let verdict = rig.finish("kill -9 at random moments", Kept::ByBroker);
    assert!(verdict.is_kept(), "{verdict}");
}

#[test]
fn killed_at_random_moments_between_mosquitto_and_postgresql() {
    killed_at_random_moments(Combo::Server(5));
}

#[test]
fn killed_at_random_moments_between_mosquitto_and_sqlite_on_mqtt_3_1_1() {
    killed_at_random_moments(Combo::Gateway(4));
}

#[cfg(feature = "embedded-broker")]
#[test]
fn killed_at_random_moments_with_the_embedded_broker() {
    killed_at_random_moments(Combo::Alone);
}

/// Large enough that the journal's limit of 1 MiB makes it trim.
#[cfg(debug_assertions)]
fn crashed_at_each_step_boundary(combo: Combo) {
    let mut rig = Rig::start(combo, &Needs { journal: "1MiB", ..Needs::default() });
    let large: Vec<Voice> = Voice::choir().into_iter().map(|voice| Voice { padding: 4096, ..voice }).collect();
    rig.publish(&large);
    for point in tidegate::crash::POINTS {
        // The embedded broker sends PUBACKs itself. Nobody asks for a command, a twin or a job here; files of their own have those.
        let is_elsewhere = ["courier.", "twins.", "jobs."].iter().any(|room| point.starts_with(room));
        if (combo == Combo::Alone && point.starts_with("session.")) || is_elsewhere {
            continue;
        }
        let nth = match point.split_once('.') {
            Some(("session", _)) => rig.rng.u64(1..200),
            Some((_, "before_trim" | "after_trim")) => rig.rng.u64(1..4),
            _ => rig.rng.u64(1..25),
        };
        rig.crash_at(point, nth);
    }
    rig.a_while();
    let verdict = rig.finish("a crash at each step boundary", Kept::ByBroker);
    assert!(verdict.is_kept(), "{verdict}");
}

#[cfg(debug_assertions)]
#[test]
fn crashed_at_each_step_boundary_between_mosquitto_and_postgresql() {
    crashed_at_each_step_boundary(Combo::Server(5));
}

#[cfg(debug_assertions)]
#[test]
fn crashed_at_each_step_boundary_between_mosquitto_and_sqlite_on_mqtt_3_1_1() {
    crashed_at_each_step_boundary(Combo::Gateway(4));
}

#[cfg(all(debug_assertions, feature = "embedded-broker"))]
#[test]
fn crashed_at_each_step_boundary_with_the_embedded_broker() {
    crashed_at_each_step_boundary(Combo::Alone);
}

fn terminated_under_load(combo: Combo) {
    let mut rig = Rig::start(combo, &Needs::default());
    // Publishers without a time of their own: a message that came twice would be two readings.
    rig.publish(&[Voice::new(5, 1), Voice::new(4, 2), Voice::new(5, 2)]);
    for _ in 0..3 {
        rig.a_while();
        rig.terminate_tidegate();
    }
    rig.a_while();
    let verdict = rig.finish("SIGTERM under load", Kept::ByBroker);
    assert!(verdict.is_kept(), "{verdict}");
    assert_eq!(rig.tidegate.metric("tidegate_readings_duplicate_total"), 0.0, "nothing was replayed needlessly");
}

#[test]
fn terminated_under_load_between_mosquitto_and_postgresql_it_drains_and_replays_nothing() {
    terminated_under_load(Combo::Server(5));
}

#[cfg(feature = "embedded-broker")]
#[test]
fn terminated_under_load_with_the_embedded_broker_it_drains_and_replays_nothing() {
    terminated_under_load(Combo::Alone);
}
