//! What the store promises, on both databases from one text.

mod alerts;
mod catalog;
mod checkpoint;
mod chunk_plans;
mod commit;
mod completeness;
mod duplicates;
mod figures;
mod identity;
mod jobs;
mod last_values;
mod layout;
mod memory;
mod outage;
mod plans;
mod pooled;
mod quarantine;
mod retention;
mod rollups;
mod schema;
mod series;
mod sqlite_care;
mod stats;
mod timescale;
mod twins;
mod view;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use tidegate::catalog::Kind;
use tidegate::config::{Config, Database, DatabaseUrl, Secret};
use tidegate::message::{Message, Publish, Seq};
use tidegate::metrics::Metrics;
use tidegate::store::batch::{Batch, DeviceIntro, Reading, SensorIntro, SensorOrigin};
use tidegate::store::{BatchWriter, Store};
use tidegate::time::UtcMicros;

use crate::support::postgres::{self, Postgres};

/// Makes a test of each function, for each database.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        $(mod $name {
            #[test]
            fn postgres() {
                super::$name(&crate::store::Site::postgres());
            }

            #[test]
            fn sqlite() {
                super::$name(&crate::store::Site::sqlite());
            }
        })+
    };
}
pub(crate) use on_both;

/// A database of a test's own, migrated.
pub struct Site {
    pub store: Store,
    pub settings: Database,
    pub is_postgres: bool,
    _server: Option<Arc<Postgres>>,
    _dir: Option<tempfile::TempDir>,
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    n: i64,
}

#[derive(QueryableByName)]
struct Words {
    #[diesel(sql_type = diesel::sql_types::Text)]
    t: String,
}

pub fn settings(url: DatabaseUrl) -> Database {
    Database { url, pool_min: 0, ..Config::default().database }
}

impl Site {
    pub fn postgres() -> Site {
        let site = Site::empty_postgres();
        site.store.migrate().unwrap();
        site
    }

    pub fn sqlite() -> Site {
        let site = Site::empty_sqlite();
        site.store.migrate().unwrap();
        site
    }

    pub fn empty_postgres() -> Site {
        let server = postgres::shared();
        let settings = settings(DatabaseUrl::Postgres(Secret::new(server.database())));
        let store = Store::open(&settings).unwrap();
        Site { store, settings, is_postgres: true, _server: Some(server), _dir: None }
    }

    pub fn empty_sqlite() -> Site {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(DatabaseUrl::Sqlite(dir.path().join("tidegate.db")));
        let store = Store::open(&settings).unwrap();
        Site { store, settings, is_postgres: false, _server: None, _dir: Some(dir) }
    }

    /// Runs SQL beside the store.
    pub fn execute(&self, sql: &str) {
        match &self.settings.url {
            DatabaseUrl::Postgres(url) => {
                PgConnection::establish(url.expose()).unwrap().batch_execute(sql).unwrap();
            }
            DatabaseUrl::Sqlite(path) => self.sqlite_connection(path).batch_execute(sql).unwrap(),
        }
    }

    /// As [`Site::execute`], but gives back what the database says against it.
    pub fn attempt(&self, sql: &str) -> Result<(), String> {
        let outcome = match &self.settings.url {
            DatabaseUrl::Postgres(url) => PgConnection::establish(url.expose()).unwrap().batch_execute(sql),
            DatabaseUrl::Sqlite(path) => self.sqlite_connection(path).batch_execute(sql),
        };
        outcome.map_err(|error| error.to_string())
    }

    /// The number `n` of the only row.
    pub fn number(&self, sql: &str) -> i64 {
        let query = diesel::sql_query(sql);
        match &self.settings.url {
            DatabaseUrl::Postgres(url) => {
                query.get_result::<Number>(&mut PgConnection::establish(url.expose()).unwrap()).unwrap().n
            }
            DatabaseUrl::Sqlite(path) => query.get_result::<Number>(&mut self.sqlite_connection(path)).unwrap().n,
        }
    }

    /// The text `t` of each row.
    pub fn texts(&self, sql: &str) -> Vec<String> {
        let query = diesel::sql_query(sql);
        let rows: Vec<Words> = match &self.settings.url {
            DatabaseUrl::Postgres(url) => query.load(&mut PgConnection::establish(url.expose()).unwrap()).unwrap(),
            DatabaseUrl::Sqlite(path) => query.load(&mut self.sqlite_connection(path)).unwrap(),
        };
        rows.into_iter().map(|row| row.t).collect()
    }

    pub fn rows(&self, table: &str) -> i64 {
        self.number(&format!("SELECT count(*) AS n FROM {table}"))
    }

    fn sqlite_connection(&self, path: &Path) -> SqliteConnection {
        let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
        connection.batch_execute("PRAGMA busy_timeout = 5000; PRAGMA foreign_keys = ON").unwrap();
        connection
    }

    /// Makes the table of readings refuse what breaks `condition`.
    pub fn refuse_unless(&self, condition: &str) {
        if self.is_postgres {
            self.execute(&format!("ALTER TABLE telemetry ADD CONSTRAINT of_the_test CHECK ({condition})"));
        } else {
            self.execute(&format!(
                "DROP TABLE telemetry;
                 CREATE TABLE telemetry (sensor_id INTEGER NOT NULL, time INTEGER NOT NULL, value REAL NOT NULL,
                     PRIMARY KEY (sensor_id, time), CONSTRAINT of_the_test CHECK ({condition})) STRICT, WITHOUT ROWID"
            ));
        }
    }

    pub fn accept_all(&self) {
        if self.is_postgres {
            self.execute("ALTER TABLE telemetry DROP CONSTRAINT of_the_test");
        } else {
            self.execute(
                "DROP TABLE telemetry;
                 CREATE TABLE telemetry (sensor_id INTEGER NOT NULL, time INTEGER NOT NULL, value REAL NOT NULL,
                     PRIMARY KEY (sensor_id, time)) STRICT, WITHOUT ROWID",
            );
        }
    }

    pub fn writer(&self) -> (BatchWriter, Metrics) {
        let metrics = Metrics::new();
        self.store.position("gw", "journal-1").unwrap();
        (BatchWriter::new(self.store.clone(), "gw", "journal-1", metrics.clone()), metrics)
    }
}

pub fn migrations() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations")
}

pub fn message(seq: Seq) -> Message {
    let publish = Publish {
        topic: format!("devices/d{seq}/telemetry"),
        payload: Bytes::from(format!("{{\"t\": {seq}}}")),
        qos: 1,
        retain: false,
        dup: false,
        packet_id: 7,
        client: Some("c".into()),
        properties: None,
    };
    Message { seq, received_at: UtcMicros(1_700_000_000_000_000 + i64::try_from(seq).unwrap()), publish }
}

pub fn lookup(seq: Seq) -> Option<Message> {
    Some(message(seq))
}

pub fn device(index: u32) -> DeviceIntro {
    DeviceIntro {
        index,
        id: None,
        tenant: "default".into(),
        uid: format!("d{index}").into(),
        template: None,
        template_by: None,
        told: Vec::new(),
        protocol: None,
        protocol_why: None,
        source: "native".into(),
        first_seen: UtcMicros(1_700_000_000_000_000),
    }
}

pub fn sensor(index: u32, device: u32, metric: &str) -> SensorIntro {
    SensorIntro {
        index,
        id: None,
        device,
        module: None,
        metric: metric.into(),
        unit: "°C".into(),
        kind: Kind::Number,
        plain: true,
        origin: SensorOrigin::Optional,
        raw_key: None,
    }
}

/// Microseconds after a fixed instant.
pub fn at(micros: i64) -> UtcMicros {
    UtcMicros(1_700_000_000_000_000 + micros)
}

pub fn reading(sensor: u32, time: i64, value: f64, seq: Seq) -> Reading {
    Reading { sensor, time: at(time), value, seq }
}

/// One device with one sensor, both 0, and these readings of it.
pub fn batch(position: Seq, readings: Vec<Reading>) -> Batch {
    Batch {
        position,
        generation: 1,
        messages: 1,
        devices: vec![device(0)],
        sensors: vec![sensor(0, 0, "temperature")],
        readings,
        seen: vec![(0, at(5))],
        ..Batch::default()
    }
}
