//! tidegate with its broker and its database, load on them, and a ledger of it.

use std::process::Command;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use fastrand::Rng;

use super::ledger::{Ledger, Promise, Publishers, Stored, Verdict, Voice};
use super::tap::Tap;
use crate::support::daemon::{PATIENCE, Tidegate, complaint, eventually, http_get, sqlite};
use crate::support::free_port;
use crate::support::mosquitto::{Mosquitto, Setup};
use crate::support::postgres::Postgres;
use crate::support::proxy::Proxy;

/// tidegate's client id.
pub const CLIENT_ID: &str = "tidegate-faults";

/// Which broker, which database, which MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combo {
    /// mosquitto and PostgreSQL; tidegate speaks this level of MQTT.
    Server(u8),
    /// mosquitto and SQLite.
    Gateway(u8),
    /// The embedded broker and SQLite.
    Alone,
}

/// What a scenario needs besides.
#[derive(Clone, Debug)]
pub struct Needs {
    /// mosquitto keeps sessions and messages on disk.
    pub persistent_broker: bool,
    /// The journal's `max_size`.
    pub journal: &'static str,
}

impl Default for Needs {
    fn default() -> Needs {
        Needs { persistent_broker: false, journal: "1GiB" }
    }
}

/// Everything of one scenario.
pub struct Rig {
    pub combo: Combo,
    pub tidegate: Tidegate,
    pub mosquitto: Option<Mosquitto>,
    pub postgres: Option<Postgres>,
    /// Between tidegate and mosquitto, and tapped.
    pub broker_link: Option<Proxy>,
    /// Between tidegate and PostgreSQL.
    pub database_link: Option<Proxy>,
    pub rng: Rng,
    pub tap: Tap,
    seed: u64,
    port: u16,
    publishers: Option<Publishers>,
    ledger: Ledger,
    fleets: u32,
    kills: u64,
}

impl Rig {
    /// Starts broker, database and tidegate, and waits until tidegate listens.
    pub fn start(combo: Combo, needs: &Needs) -> Rig {
        let seed = from_environment("FAULT_SEED").unwrap_or(1);
        let tap = Tap::default();
        let (mut mosquitto, mut broker_link, mut postgres, mut database_link) = (None, None, None, None);
        let level = match combo {
            Combo::Server(level) | Combo::Gateway(level) => level,
            Combo::Alone => 5,
        };
        let (port, broker_url) = if combo == Combo::Alone {
            let port = free_port();
            (port, format!("embedded://127.0.0.1:{port}"))
        } else {
            // Else mosquitto itself drops what is beyond 1,000 messages while tidegate is away.
            let extra = "max_queued_messages 0".to_owned();
            let broker = Mosquitto::start(Setup { persistent: needs.persistent_broker, extra, ..Setup::default() });
            let link = Proxy::tapped(broker.port, Some(tap.ear(level)));
            let (port, url) = (broker.port, format!("mqtt://127.0.0.1:{}", link.port));
            (mosquitto, broker_link) = (Some(broker), Some(link));
            (port, url)
        };
        let database_url = if matches!(combo, Combo::Server(_)) {
            let server = Postgres::start(true);
            server.connect("postgres").batch_execute("CREATE DATABASE faults TEMPLATE template0").unwrap();
            let link = Proxy::start(server.port());
            let url = server.url("faults").replace(&format!(":{}/", server.port()), &format!(":{}/", link.port));
            (postgres, database_link) = (Some(server), Some(link));
            url
        } else {
            "sqlite:tidegate.db".to_owned()
        };
        let tidegate = Tidegate::configured(&config(&broker_url, level, &database_url, needs.journal));
        let mut rig = Rig {
            combo,
            tidegate,
            mosquitto,
            postgres,
            broker_link,
            database_link,
            rng: Rng::with_seed(seed),
            tap,
            seed,
            port,
            publishers: None,
            ledger: Ledger { accounts: Vec::new() },
            fleets: 0,
            kills: 0,
        };
        rig.tidegate.start();
        rig.listening();
        rig.database_open();
        rig
    }

    /// Waits until tidegate hears everything that is published.
    pub fn listening(&self) {
        let http = self.tidegate.address("http");
        eventually("tidegate is ready", || (http_get(http, "/readyz").0 == 200).then_some(()));
    }

    /// Waits until the database has its schema.
    pub fn database_open(&self) {
        eventually("the database is open", || self.tidegate.said("database open"));
    }

    /// Starts publishers; they go on until [`finish`](Rig::finish).
    pub fn publish(&mut self, voices: &[Voice]) {
        assert!(self.publishers.is_none(), "publishing already");
        self.fleets += 1;
        self.publishers = Some(Publishers::start(&format!("fleet{}", self.fleets), self.port, voices));
    }

    /// Numbers acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.publishers.as_ref().map_or(0, Publishers::acknowledged)
    }

    /// Waits until so many more numbers are acknowledged to their publishers.
    pub fn more(&self, numbers: u64) {
        let goal = self.acknowledged() + numbers;
        eventually("more numbers acknowledged", || (self.acknowledged() >= goal).then_some(()));
    }

    /// Waits until tidegate itself has acknowledged so many more, whatever its database does.
    pub fn journalled(&self, numbers: usize) {
        if self.combo == Combo::Alone {
            return self.more(numbers as u64);
        }
        let goal = self.tap.acknowledged() + numbers;
        eventually("more numbers journalled", || (self.tap.acknowledged() >= goal).then_some(()));
    }

    /// Waits until a counter of the running tidegate has passed `before`.
    pub fn counted(&self, metric: &str, before: f64) {
        eventually(&format!("{metric} counts"), || (self.tidegate.metric(metric) > before).then_some(()));
    }

    /// Load for a while of the schedule: some numbers, and a moment that no step of tidegate decides.
    pub fn a_while(&mut self) {
        let numbers = self.rng.u64(5..150);
        self.more(numbers);
        std::thread::sleep(Duration::from_millis(self.rng.u64(0..60)));
    }

    /// `kill -9`, perhaps some load without tidegate, and a new start; now and then that is killed before it is up.
    pub fn kill_tidegate(&mut self) {
        loop {
            self.tidegate.kill();
            self.kills += 1;
            if self.mosquitto.is_some() && self.rng.bool() {
                let numbers = self.rng.u64(1..100);
                self.more(numbers);
            }
            if self.rng.u8(0..4) > 0 {
                self.start_again();
                return;
            }
            self.tidegate.spawn();
            std::thread::sleep(Duration::from_millis(self.rng.u64(0..400)));
        }
    }

    /// Starts tidegate, which has ended.
    pub fn start_again(&mut self) {
        self.tidegate.start();
    }

    /// Restarts tidegate with a crash point set, and again without once it has died there.
    #[cfg(debug_assertions)]
    pub fn crash_at(&mut self, point: &str, nth: u64) {
        self.tidegate.kill();
        self.tidegate.env.push(("TIDEGATE_CRASH_AT", format!("{point}:{nth}")));
        self.tidegate.spawn();
        let status = eventually(&format!("tidegate dies at {point}"), || self.tidegate.ended());
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(6), "{point}: {status}");
        self.kills += 1;
        self.tidegate.env.retain(|(name, _)| *name != "TIDEGATE_CRASH_AT");
        self.start_again();
    }

    /// Ends of tidegate that it did not choose.
    pub fn kills(&self) -> u64 {
        self.kills
    }

    /// The reading ends of everything: no further faults, all publishers acknowledged, all stored; then the ledger is
    /// held against the database, and printed.
    pub fn finish(&mut self, scenario: &str, promise: Kept) -> Verdict {
        if let Some(publishers) = self.publishers.take() {
            self.ledger.merge(publishers.stop());
        }
        self.drain();
        let stored = self.stored();
        let deliveries = self.tap.deliveries();
        let promise = match promise {
            Kept::ByBroker if self.combo == Combo::Alone => Promise::Embedded,
            Kept::ByBroker => Promise::Broker,
            Kept::ByTidegate => Promise::Delivered(&deliveries),
        };
        let verdict = self.ledger.compare(&stored, promise);
        println!("{scenario}: {:?}, seed {}, kills {}: {verdict}", self.combo, self.seed, self.kills);
        verdict
    }

    /// The broker delivers in order: once a last message is stored, everything before it was dealt with.
    fn drain(&mut self) {
        self.listening();
        self.fleets += 1;
        let last = Voice { numbers: 1, ..Voice::new(5, 1) };
        self.ledger.merge(Publishers::start(&format!("fleet{}", self.fleets), self.port, &[last]).finish());
        let device = format!("fleet{}-0", self.fleets);
        let deadline = Instant::now() + 2 * PATIENCE;
        let sql = format!("SELECT count(*) FROM readings WHERE device = '{device}' AND metric = 'n'");
        while self.query(&sql) != "1" {
            assert!(Instant::now() < deadline, "the last message was not stored");
            std::thread::sleep(Duration::from_millis(50));
        }
        eventually("nothing is behind", || (self.lag() == Some(0)).then_some(()));
    }

    /// Messages in the journal that the database does not have, by `tidegate journal status`.
    pub fn lag(&self) -> Option<u64> {
        self.tidegate.json(&["journal", "status"])["lag"].as_u64()
    }

    /// What is in the database.
    pub fn stored(&self) -> Stored {
        Stored::read(&self.query(Stored::COUNTS), &self.query(Stored::TORN))
    }

    /// Asks the database itself, as a stranger would.
    pub fn query(&self, sql: &str) -> String {
        let Some(postgres) = &self.postgres else {
            return sqlite(&self.tidegate.state_dir().join("tidegate.db"), sql);
        };
        let output =
            Command::new("psql").args(["-XAtq", "-d", &postgres.url("faults"), "-c", sql]).output().expect("psql");
        assert!(output.status.success(), "{sql}: {}", complaint(&output));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

/// Who keeps the promise; see [`Promise`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// What the broker acknowledged to its publishers is stored.
    ByBroker,
    /// The broker itself may have lost something: what tidegate acknowledged is stored.
    ByTidegate,
}

/// A number from the environment.
pub fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

fn config(broker_url: &str, level: u8, database_url: &str, journal: &str) -> String {
    let version = if level == 4 { 3 } else { 5 };
    format!(
        r#"
        [instance]
        id = "faults"
        state_dir = "{{state}}"
        [broker]
        url = "{broker_url}"
        version = {version}
        client_id = "{CLIENT_ID}"
        receive_maximum = 100
        keep_alive = "5s"
        [database]
        url = "{database_url}"
        connect_timeout = "2s"
        [journal]
        max_size = "{journal}"
        retain = "0s"
        [[sources]]
        name = "fleet"
        filter = "devices/{{device}}/telemetry"
        decoder = "json"
        max_payload = "64KiB"
        [http]
        listen = "127.0.0.1:0"
        [log]
        level = "info"
        format = "json"
        "#
    )
}
