//! The database that tidegate writes, asked by somebody else.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use diesel::connection::SimpleConnection as _;
use diesel::deserialize::QueryableByName;
use diesel::sql_types::{BigInt, Double, Nullable};
use diesel::{Connection as _, QueryResult, RunQueryDsl as _};
use diesel::{PgConnection, SqliteConnection, sql_query};

use super::copy::FIRST_SENSOR;
use crate::support::postgres::Postgres;

/// Where it is.
pub enum Database {
    Postgres {
        server: Arc<Postgres>,
        /// To the server itself, whatever way tidegate takes.
        url: String,
    },
    Sqlite(PathBuf),
}

/// A connection of the benchmark's own.
pub enum Connection {
    Postgres(PgConnection),
    Sqlite(SqliteConnection),
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

/// What is committed: the position in the journal, and the newest number of the probe.
#[derive(Clone, Copy, QueryableByName)]
pub struct Committed {
    #[diesel(sql_type = Nullable<BigInt>)]
    pub position: Option<i64>,
    #[diesel(sql_type = Nullable<Double>)]
    pub probe: Option<f64>,
}

impl Database {
    pub fn connect(&self) -> anyhow::Result<Connection> {
        match self {
            Database::Postgres { url, .. } => Ok(Connection::Postgres(PgConnection::establish(url)?)),
            Database::Sqlite(file) => {
                let mut connection = SqliteConnection::establish(file.to_str().context("a path in UTF-8")?)?;
                // As tidegate sets its own.
                connection.batch_execute(
                    "PRAGMA busy_timeout = 20000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL",
                )?;
                Ok(Connection::Sqlite(connection))
            }
        }
    }

    /// The server's process; none: the database is part of tidegate's.
    pub fn pid(&self) -> Option<u32> {
        match self {
            Database::Postgres { server, .. } => server.pid(),
            Database::Sqlite(_) => None,
        }
    }

    /// Bytes, indexes and all.
    pub fn size(&self) -> anyhow::Result<u64> {
        let sql = match self {
            Database::Postgres { .. } => "SELECT pg_database_size(current_database()) AS n",
            Database::Sqlite(_) => "SELECT page_count * page_size AS n FROM pragma_page_count, pragma_page_size",
        };
        Ok(u64::try_from(self.connect()?.number(sql)?)?)
    }

    /// How `telemetry` is laid out.
    pub fn layout(&self) -> anyhow::Result<&'static str> {
        let Database::Postgres { .. } = self else { return Ok("a plain table") };
        let mut connection = self.connect()?;
        let partitioned = "SELECT count(*) AS n FROM pg_partitioned_table WHERE partrelid = 'telemetry'::regclass";
        let timescale = "SELECT count(*) AS n FROM pg_extension WHERE extname = 'timescaledb'";
        let hypertable =
            "SELECT count(*) AS n FROM timescaledb_information.hypertables WHERE hypertable_name = 'telemetry'";
        Ok(if connection.number(partitioned)? > 0 {
            "native partitions"
        } else if connection.number(timescale)? > 0 && connection.number(hypertable)? > 0 {
            "a hypertable"
        } else {
            "a plain table"
        })
    }

    /// Sees that exactly so many readings of the devices are stored, no text, and that nothing was refused.
    pub fn holds_exactly(&self, readings: u64) -> anyhow::Result<()> {
        let mut connection = self.connect()?;
        let stored =
            connection.number(&format!("SELECT count(*) AS n FROM telemetry WHERE sensor_id < {FIRST_SENSOR}"))?;
        let texts = connection.number("SELECT count(*) AS n FROM telemetry_text")?;
        let refused = connection.number("SELECT count(*) AS n FROM quarantine_messages")?;
        anyhow::ensure!(
            u64::try_from(stored)? == readings && texts == 0 && refused == 0,
            "wrong count: {stored} readings are stored and {readings} were sent; {texts} texts, {refused} quarantined"
        );
        Ok(())
    }
}

impl Connection {
    /// The number `n` of the only row.
    pub fn number(&mut self, sql: &str) -> anyhow::Result<i64> {
        let row: Number = match self {
            Connection::Postgres(connection) => sql_query(sql).get_result(connection)?,
            Connection::Sqlite(connection) => sql_query(sql).get_result(connection)?,
        };
        Ok(row.n)
    }

    pub fn committed(&mut self, sql: &str) -> QueryResult<Committed> {
        match self {
            Connection::Postgres(connection) => sql_query(sql).get_result(connection),
            Connection::Sqlite(connection) => sql_query(sql).get_result(connection),
        }
    }

    /// The process that serves this connection, if that is not our own.
    pub fn backend(&mut self) -> Option<u32> {
        match self {
            Connection::Postgres(_) => {
                self.number("SELECT pg_backend_pid()::bigint AS n").ok().and_then(|pid| u32::try_from(pid).ok())
            }
            Connection::Sqlite(_) => None,
        }
    }

    /// An instant of the column `time`.
    pub fn instant(&self, micros: i64) -> String {
        match self {
            Connection::Postgres(_) => format!("timestamptz 'epoch' + {micros} * interval '1 microsecond'"),
            Connection::Sqlite(_) => micros.to_string(),
        }
    }
}
