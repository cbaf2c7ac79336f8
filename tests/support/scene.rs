//! The daemon between a fake broker and SQLite, and what of the numbered messages it has stored.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::{Connection, SqliteConnection};
use serde_json::Value;

use super::daemon::{Tidegate, eventually, http_get, sqlite};
use super::fake_broker::{FakeBroker, Packet, Peer};

/// Where the numbered messages go.
pub const TOPIC: &str = "devices/d/telemetry";
/// Long enough that an acknowledgement would have come.
pub const QUIET: Duration = Duration::from_millis(400);

/// A fake broker, a database beside the state directory, and a daemon that is started when the test says so.
pub struct Scene {
    pub fake: FakeBroker,
    pub tidegate: Tidegate,
}

impl Scene {
    /// `level` as for [`FakeBroker`]; `more` is further TOML, e.g. `[journal]`.
    pub async fn new(level: u8, more: &str) -> Scene {
        let fake = FakeBroker::start(level).await;
        let (version, port) = (if level == 5 { 5 } else { 3 }, fake.port);
        let tidegate = Tidegate::configured("");
        let database = tidegate.dir.path().join("db/telemetry.db");
        std::fs::create_dir(database.parent().unwrap()).unwrap();
        tidegate.configure(&format!(
            "[instance]\nid = \"gw-01\"\nstate_dir = \"{{state}}\"\ndrain_timeout = \"1s\"\n\
             [broker]\nurl = \"mqtt://127.0.0.1:{port}\"\nversion = {version}\n\
             [database]\nurl = \"sqlite:{}\"\n\
             [http]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n{more}",
            database.display()
        ));
        Scene { fake, tidegate }
    }

    /// Starts the daemon, lets it come online and open its database.
    pub async fn start(&mut self) -> Peer {
        self.tidegate.start();
        let (peer, _) = self.fake.serve(false).await;
        eventually("the database is open", || self.tidegate.said("database open"));
        peer
    }

    /// The connection breaks, and the next one is brought online; also what the daemon subscribed on it.
    pub async fn reconnect(&self, peer: Peer, session_present: bool) -> (Peer, Vec<String>) {
        drop(peer);
        self.fake.serve(session_present).await
    }

    pub fn database(&self) -> PathBuf {
        self.tidegate.dir.path().join("db/telemetry.db")
    }

    pub fn journal(&self) -> PathBuf {
        self.tidegate.state_dir().join("journal.db")
    }

    /// Nothing can be written to the database until this is dropped.
    pub fn lock_database(&self) -> SqliteConnection {
        lock(&self.database())
    }

    /// How often each number is stored.
    pub fn stored(&self) -> BTreeMap<u64, u32> {
        let sql = "SELECT CAST(value AS INTEGER), count(*) FROM readings WHERE metric = 'n' GROUP BY value";
        let rows = sqlite(&self.database(), sql);
        let pairs = rows.lines().map(|row| row.split_once('|').unwrap());
        pairs.map(|(number, times)| (number.parse().unwrap(), times.parse().unwrap())).collect()
    }

    /// Waits until these numbers, and sees that nothing else, are stored once.
    pub fn stores_once(&self, numbers: impl IntoIterator<Item = u64>) {
        let wanted: BTreeMap<u64, u32> = numbers.into_iter().map(|number| (number, 1)).collect();
        eventually("every message is stored", || {
            let stored = self.stored();
            wanted.keys().all(|number| stored.contains_key(number)).then_some(())
        });
        assert_eq!(self.stored(), wanted);
    }

    /// Waits until a metric has reached `least`.
    pub fn counted(&self, metric: &str, least: f64) {
        eventually(metric, || (self.tidegate.metric(metric) >= least).then_some(()));
    }

    /// Waits until the log has an event with these words, and sees that it is a warning or an error.
    pub fn said(&self, words: &str) {
        let event = eventually(words, || self.tidegate.said(words));
        assert!(matches!(event["level"].as_str(), Some("WARN" | "ERROR")), "{event}");
    }

    /// Status and body of `/readyz`.
    pub fn readiness(&self) -> (u16, Value) {
        let (status, body) = http_get(self.tidegate.address("http"), "/readyz");
        (status, serde_json::from_str(&body).unwrap())
    }

    /// Waits until `/readyz` says so of a part.
    pub fn readiness_of(&self, part: &str, words: &str) {
        eventually(words, || {
            let (status, body) = self.readiness();
            (status == 503 && body[part].as_str().unwrap().contains(words)).then_some(())
        });
    }
}

/// Nothing can be written to this SQLite file until what is returned is dropped.
pub fn lock(database: &Path) -> SqliteConnection {
    let mut connection = SqliteConnection::establish(database.to_str().unwrap()).unwrap();
    connection.batch_execute("PRAGMA busy_timeout = 20000; BEGIN IMMEDIATE").unwrap();
    connection
}

/// The payload of a number.
pub fn numbered(number: u64) -> String {
    format!("{{\"n\":{number}}}")
}

impl Peer {
    /// Sends numbers at QoS 1, each with itself as its packet id.
    pub async fn send_numbers(&mut self, numbers: RangeInclusive<u16>, dup: bool) {
        for id in numbers {
            self.publish(TOPIC, &numbered(id.into()), 1, id, dup).await;
        }
    }

    /// Waits for these acknowledgements, in order, and nothing else.
    pub async fn acknowledged(&mut self, ids: RangeInclusive<u16>) {
        for id in ids {
            assert_eq!(self.next().await, Packet::PubAck(id));
        }
    }
}
