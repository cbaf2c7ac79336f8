//! The system clock set back and forward by a day under the running daemon.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::ledger::{Promise, Publishers, Stored, Voice};
use crate::support::daemon::{Tidegate, eventually, sqlite};
use crate::support::scene::Scene;

/// The wall clock that a daemon sees; its monotonic clock stays the system's.
struct FakeClock {
    file: PathBuf,
}

impl FakeClock {
    /// For a daemon that is started after this.
    fn of(tidegate: &mut Tidegate) -> FakeClock {
        let library = fs::read_dir("/usr/lib")
            .unwrap()
            .flatten()
            .map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"))
            .find(|path| path.exists())
            .expect("Debian's package faketime");
        let clock = FakeClock { file: tidegate.dir.path().join("clock") };
        clock.set("+0");
        tidegate.env.extend([
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", clock.file.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            ("DONT_FAKE_MONOTONIC", "1".into()),
        ]);
        clock
    }

    /// `+1d`, `-1d` or `+0` from the true time.
    fn set(&self, offset: &str) {
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{offset}\n")).unwrap();
        fs::rename(new, &self.file).unwrap();
    }
}

#[cfg(feature = "embedded-broker")]
#[test]
fn a_clock_set_forward_and_back_by_a_day_under_load_loses_and_doubles_nothing() {
    let mut tidegate = Tidegate::configured(
        "[instance]\nstate_dir = \"{state}\"\n[broker]\nurl = \"embedded://127.0.0.1:0\"\n\
         [http]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n",
    );
    let clock = FakeClock::of(&mut tidegate);
    tidegate.start();
    let port = tidegate.address("broker").port();
    let publishers = Publishers::start("clock", port, &[Voice::new(5, 1), Voice::new(4, 1), Voice::new(4, 2)]);
    for offset in ["+0", "+1d", "+0", "-1d", "+0"] {
        clock.set(offset);
        let until = publishers.acknowledged() + 150;
        eventually("more is acknowledged", || (publishers.acknowledged() >= until).then_some(()));
    }
    let ledger = publishers.stop();
    let database = tidegate.state_dir().join("tidegate.db");
    let read = || Stored::read(&sqlite(&database, Stored::COUNTS), &sqlite(&database, Stored::TORN));
    let promised = ledger.promised(Promise::Embedded);
    eventually("everything is stored", || {
        let stored = read();
        promised.iter().all(|key| stored.times.contains_key(key)).then_some(())
    });
    let verdict = ledger.compare(&read(), Promise::Embedded);
    assert!(verdict.is_kept(), "{verdict}");
    // The readings were where the clock was.
    let days = "SELECT round(julianday(max(time)) - julianday(min(time))) FROM readings WHERE metric = 'n'";
    assert_eq!(sqlite(&database, days), "2.0");
    let steps = tidegate.told("the system clock was set back", "set_back_ms");
    assert!(steps.len() >= 2, "{steps:?}");
    assert_eq!(tidegate.metric("tidegate_clock_steps_back_total"), steps.len() as f64);
    assert!(tidegate.stop().success());
}

#[tokio::test]
async fn waits_and_watchdogs_do_not_follow_the_wall_clock() {
    let mut scene = Scene::new(5, "").await;
    let clock = FakeClock::of(&mut scene.tidegate);
    let mut peer = scene.start().await;
    for (turn, offset) in [(1, "+0"), (2, "+1d"), (3, "-1d")] {
        clock.set(offset);
        peer.during(Duration::from_millis(500)).await;
        assert_eq!(scene.tidegate.metric("tidegate_broker_connection_errors_total"), f64::from(turn - 1));
        // A connection and a database that are lost then are found again as soon as ever.
        let lock = scene.lock_database();
        peer.send_numbers(turn..=turn, false).await;
        peer.acknowledged(turn..=turn).await;
        (peer, _) = scene.reconnect(peer, true).await;
        drop(lock);
        scene.stores_once(1..=turn.into());
    }
    scene.counted("tidegate_clock_steps_back_total", 1.0);
    scene.said("the system clock was set back");
    assert_eq!(scene.tidegate.metric("tidegate_broker_watchdog_trips_total"), 0.0);
    assert!(scene.tidegate.stop().success());
}
