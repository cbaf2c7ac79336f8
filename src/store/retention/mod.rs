//! What has outlived its class's lifetime is found and removed: readings by whole parts, the rest in small batches.

mod readings;
mod stream;

use diesel::prelude::*;
use diesel::sql_types::{Bool, Text};

pub use readings::{Dropped, ReadingSink};
pub use stream::{Measured, SeriesName};

use super::Store;
use super::error::{During, StoreError};
use super::layout::Layout;
use super::pool::{Conn, with_db};
use super::rollups::Grain;
use super::schema;
use crate::time::UtcMicros;

/// Rows removed in one transaction.
const AT_ONCE: i64 = 5000;

/// An alert of which the broker is still to hear how it ended stays: its topic would keep what was retained.
const TOLD: &str = "NOT EXISTS (SELECT 1 FROM alert_transitions t WHERE t.alert_id = alerts.id AND NOT t.published \
    AND (NOT t.asked OR t.state = 'resolved'))";

/// A command stays until the job that it is of has heard how it ended.
const HEARD: &str =
    "NOT EXISTS (SELECT 1 FROM job_executions e WHERE e.command_id = device_commands.id AND e.ended_at IS NULL)";

/// A table whose rows expire one by one. The key is what tells its rows apart, the time what they are old by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Expiring {
    table: &'static str,
    key: &'static str,
    time: &'static str,
    /// What must be so besides; SQL.
    only: &'static str,
    /// Rows removed in one transaction.
    at_once: i64,
}

/// A class of data that is not readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    HourlyRollups,
    DailyRollups,
    Quarantine,
    Events,
    /// Events of devices' connections.
    Connections,
    /// Those that are over.
    Alerts,
    /// Of notifications.
    Digests,
    /// Those that have ended.
    Commands,
    /// Those that have ended, with their executions.
    Jobs,
}

impl Class {
    fn expiring(self) -> Expiring {
        let rows = |table, key, time, only| Expiring { table, key, time, only, at_once: AT_ONCE };
        match self {
            Class::HourlyRollups => rows("rollup_hourly", "sensor_id, bucket", "bucket", "TRUE"),
            Class::DailyRollups => rows("rollup_daily", "sensor_id, bucket", "bucket", "TRUE"),
            Class::Quarantine => rows("quarantine_events", "id", "at", "TRUE"),
            Class::Events => rows("events", "id", "at", "TRUE"),
            Class::Connections => rows("device_connection_events", "id", "time", "TRUE"),
            Class::Commands => rows("device_commands", "id", "ended_at", HEARD),
            // Each takes up to 100,000 executions with it.
            Class::Jobs => Expiring { at_once: 1, ..rows("jobs", "id", "ended_at", "TRUE") },
            Class::Alerts => rows("alerts", "id", "resolved_at", TOLD),
            Class::Digests => rows("alert_digests", "id", "until", "state <> 'pending'"),
        }
    }

    /// Of rollups.
    fn grain(self) -> Option<Grain> {
        match self {
            Class::HourlyRollups => Some(Grain::Hour),
            Class::DailyRollups => Some(Grain::Day),
            Class::Quarantine
            | Class::Events
            | Class::Connections
            | Class::Alerts
            | Class::Digests
            | Class::Commands
            | Class::Jobs => None,
        }
    }
}

#[derive(QueryableByName)]
struct Yes {
    #[diesel(sql_type = Bool)]
    yes: bool,
}

impl Store {
    /// Removes some rows of a class that are older than `before`; returns how many, 0 when there are none left. A class
    /// whose table this database does not have has none.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing was removed.
    pub fn expire(&self, class: Class, before: UtcMicros) -> Result<u64, StoreError> {
        if class == Class::Quarantine {
            return self.expire_quarantine(before, AT_ONCE);
        }
        let layout = self.layout()?;
        self.db.write(|conn| {
            let what = class.expiring();
            if !has_column(conn, what)? {
                return Ok(0);
            }
            if layout == Layout::Timescale
                && let Some(grain) = class.grain()
                && let Conn::Postgres(c) = conn
            {
                return drop_chunks_of_rollups(c, grain, before);
            }
            let Expiring { table, key, time, only, at_once } = what;
            let sql = format!(
                "DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} WHERE {time} < {} AND {only} ORDER BY {time} LIMIT {at_once})",
                if matches!(conn, Conn::Postgres(_)) { "$1" } else { "?" }
            );
            let removed =
                with_db!(conn, |c| diesel::sql_query(sql).bind::<schema::Instant, _>(before).execute(c))
                    .during("removing what has expired")?;
            Ok(removed as u64)
        })
    }
}

fn has_column(conn: &mut Conn<'_>, what: Expiring) -> Result<bool, StoreError> {
    let found: Yes = match conn {
        Conn::Postgres(c) => diesel::sql_query(
            "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = $2) AS yes",
        )
        .bind::<Text, _>(what.table)
        .bind::<Text, _>(what.time)
        .get_result(*c),
        Conn::Sqlite(c) => {
            diesel::sql_query("SELECT EXISTS (SELECT 1 FROM pragma_table_info(?) WHERE name = ?) AS yes")
                .bind::<Text, _>(what.table)
                .bind::<Text, _>(what.time)
                .get_result(*c)
        }
    }
    .during("looking for a table that may not be there")?;
    Ok(found.yes)
}

/// Continuous aggregates take no DELETE; their chunks are dropped. Returns the number of chunks.
fn drop_chunks_of_rollups(c: &mut PgConnection, grain: Grain, before: UtcMicros) -> Result<u64, StoreError> {
    let dropped = diesel::sql_query("SELECT drop_chunks(to_regclass($1), older_than => $2)")
        .bind::<Text, _>(grain.aggregate())
        .bind::<schema::Instant, _>(before)
        .execute(c)
        .during("dropping old rollups")?;
    Ok(dropped as u64)
}
