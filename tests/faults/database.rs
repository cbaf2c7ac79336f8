//! The database fails in every way it can, while messages go on being acknowledged.

use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection, QueryableByName, RunQueryDsl, SqliteConnection, sql_query};

use super::ledger::Voice;
use super::rig::{Combo, Kept, Needs, Rig};
use crate::support::daemon::eventually;
use crate::support::postgres::Postgres;
use crate::support::proxy::Way;

const ERRORS: &str = "tidegate_database_errors_total";

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    count: i64,
}

impl Rig {
    fn server(&self) -> &Postgres {
        self.postgres.as_ref().expect("a scenario with PostgreSQL")
    }

    /// While the database is away: messages are acknowledged all the same, also by a tidegate that starts only now.
    fn outage(&mut self) {
        let numbers = self.rng.usize(50..150);
        self.journalled(numbers);
        if self.rng.bool() {
            self.kill_tidegate();
            self.journalled(numbers);
        }
    }

    /// The server ends as `stop` does it, and comes back.
    pub fn stop_postgres(&mut self, stop: fn(&Postgres)) {
        stop(self.server());
        self.outage();
        self.server().restart();
    }

    /// The server stands still while its machine goes on acknowledging what it is sent, until tidegate has told it.
    pub fn freeze_postgres(&mut self) {
        self.server().freeze();
        self.told_of_silence();
        self.server().thaw();
    }

    /// Something in between keeps its connections and lets nothing through, until somebody restarts it.
    pub fn swallow_batches(&mut self) {
        self.database_link.as_ref().expect("a scenario with PostgreSQL").black_hole();
        self.told_of_silence();
        self.database_link.as_ref().expect("it was there").cut();
    }

    /// Messages are acknowledged while the database says nothing, and after half a minute that is told.
    fn told_of_silence(&mut self) {
        self.journalled(100);
        let told = eventually("it is told", || self.tidegate.said("the database has not answered for long"));
        assert_eq!(told["level"], "WARN");
        let what = told["what"].as_str().unwrap();
        assert!(["commit a batch", "write last values", "look for changes"].contains(&what), "{what}");
        self.counted("tidegate_database_stalls_total", 0.0);
        self.counted("tidegate_database_unanswered_seconds", 29.0);
        self.journalled(100);
    }

    /// Every connection there may be is somebody else's.
    pub fn take_all_connections(&mut self) {
        let server = self.server();
        server.stop();
        server.configure(&["max_connections=8"]);
        server.restart();
        let mut held = vec![server.connect("postgres")];
        eventually("all connections are taken", || {
            while let Ok(one) = PgConnection::establish(&server.url("postgres")) {
                held.push(one);
            }
            let ended =
                "SELECT count(pg_terminate_backend(pid)) AS count FROM pg_stat_activity WHERE datname = 'faults'";
            let left: Count = sql_query(ended).get_result(&mut held[0]).unwrap();
            (left.count == 0 && PgConnection::establish(&server.url("postgres")).is_err()).then_some(())
        });
        self.outage();
        drop(held);
    }

    /// Transactions may only read.
    pub fn make_read_only(&mut self) {
        self.set_read_only("on");
        self.outage();
        self.counted(ERRORS, 0.0);
        self.set_read_only("off");
    }

    /// Counts for new connections, so those there are end.
    fn set_read_only(&self, value: &str) {
        let mut connection = self.server().connect("postgres");
        let set = format!("ALTER DATABASE faults SET default_transaction_read_only = {value}");
        connection.batch_execute(&set).unwrap();
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'faults'";
        connection.batch_execute(end).unwrap();
    }

    /// The way to the server gets slow, then it is gone for a while.
    pub fn lose_network(&mut self) {
        let link = || self.database_link.as_ref().expect("a scenario with PostgreSQL");
        link().delay(Duration::from_millis(30));
        self.journalled(50);
        link().delay(Duration::ZERO);
        link().refuse(true);
        self.outage();
        self.database_link.as_ref().expect("it was there").refuse(false);
    }

    /// Somebody holds the readings' table, for `time` at least.
    pub fn lock_readings(&mut self, time: Duration) {
        let mut connection = self.server().connect("faults");
        connection.batch_execute("BEGIN; LOCK TABLE telemetry IN ACCESS EXCLUSIVE MODE").unwrap();
        self.behind();
        let since = Instant::now();
        while since.elapsed() < time {
            self.journalled(20);
        }
        self.outage();
        connection.batch_execute("COMMIT").unwrap();
    }

    /// Somebody holds the SQLite file for longer than tidegate waits for it at once.
    pub fn lock_sqlite(&mut self) {
        let file = self.tidegate.state_dir().join("tidegate.db");
        let mut connection = SqliteConnection::establish(file.to_str().unwrap()).unwrap();
        connection.batch_execute("PRAGMA busy_timeout = 20000; BEGIN EXCLUSIVE").unwrap();
        let before = self.tidegate.metric(ERRORS);
        self.counted(ERRORS, before);
        self.outage();
        connection.batch_execute("COMMIT").unwrap();
    }

    /// The network goes away in the middle of what is written, again and again.
    pub fn cut_batches(&mut self, times: u32) {
        for _ in 0..times {
            let link = self.database_link.as_ref().expect("a scenario with PostgreSQL");
            let before = link.cuts();
            link.cut_after(Way::ToServer, self.rng.usize(1..20_000));
            eventually("a batch is cut", || (link.cuts() > before).then_some(()));
        }
    }

    fn behind(&self) {
        eventually("the database is behind", || {
            self.tidegate.json(&["journal", "status"])["lag"].as_u64().filter(|lag| *lag > 0)
        });
    }
}

fn scenario(name: &str, combo: Combo, fault: impl FnOnce(&mut Rig)) {
    let mut rig = Rig::start(combo, &Needs::default());
    rig.publish(&Voice::choir());
    rig.a_while();
    fault(&mut rig);
    rig.a_while();
    let verdict = rig.finish(name, Kept::ByBroker);
    assert!(verdict.is_kept(), "{verdict}");
}

#[test]
fn postgresql_stopped_fast_at_once_and_by_kill_9() {
    scenario("PostgreSQL stopped", Combo::Server(5), |rig| {
        for stop in [Postgres::stop, Postgres::kill, Postgres::kill_9] {
            rig.stop_postgres(stop);
            rig.a_while();
        }
    });
}

#[test]
fn postgresql_stands_still_while_its_machine_answers() {
    scenario("PostgreSQL frozen", Combo::Server(5), |rig| {
        rig.freeze_postgres();
        eventually("its answer is told", || rig.tidegate.said("the database has answered"));
    });
}

#[test]
fn what_is_between_swallows_batches() {
    scenario("batches swallowed", Combo::Server(5), Rig::swallow_batches);
}

#[test]
fn postgresql_out_of_connections() {
    scenario("PostgreSQL out of connections", Combo::Server(5), Rig::take_all_connections);
}

#[test]
fn postgresql_read_only() {
    scenario("PostgreSQL read-only", Combo::Server(4), Rig::make_read_only);
}

#[test]
fn the_readings_table_locked() {
    scenario("a locked table", Combo::Server(5), |rig| rig.lock_readings(Duration::from_secs(2)));
}

#[cfg(feature = "embedded-broker")]
#[test]
fn the_sqlite_file_locked() {
    scenario("a locked file", Combo::Alone, Rig::lock_sqlite);
}

#[test]
fn the_network_cut_in_the_middle_of_batches() {
    scenario("the database's network cut", Combo::Server(5), |rig| rig.cut_batches(4));
}

#[test]
fn the_network_to_postgresql_slow_then_gone() {
    scenario("the database's network lost", Combo::Server(5), Rig::lose_network);
}

#[test]
fn the_network_cut_in_the_middle_of_the_migrations() {
    let mut rig = Rig::start(Combo::Server(5), &Needs::default());
    rig.publish(&Voice::choir());
    for bytes in [2_000, 6_000, 10_000] {
        rig.tidegate.kill();
        rig.query("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
        let link = rig.database_link.as_ref().unwrap();
        let before = link.cuts();
        link.cut_after(Way::ToServer, bytes);
        rig.start_again();
        let link = rig.database_link.as_ref().unwrap();
        eventually("the migrations are cut", || (link.cuts() > before).then_some(()));
        rig.database_open();
    }
    rig.a_while();
    // What was stored before the schema was dropped is gone by this test's own hand.
    let since = "SELECT count(*) > 0 FROM readings";
    eventually("readings come again", || (rig.query(since) == "t").then_some(()));
}

/// Beyond the 16 MiB that the pipeline finds in memory.
#[test]
fn an_outage_so_long_that_the_journal_is_read_back_from_the_disk() {
    let mut rig = Rig::start(Combo::Server(5), &Needs::default());
    let large = |qos| Voice { padding: 48 << 10, pace: Duration::ZERO, numbers: 400, ..Voice::new(5, qos) };
    rig.server().kill();
    rig.publish(&[large(1), large(2), Voice::new(4, 1).with_own_time()]);
    let journal = rig.tidegate.state_dir();
    eventually("more in the journal than in memory", || {
        let held = tidegate::journal::status(&journal).unwrap().bytes;
        (held > 36 << 20).then_some(())
    });
    rig.server().restart();
    let verdict = rig.finish("a long outage", Kept::ByBroker);
    assert!(verdict.is_kept(), "{verdict}");
}
