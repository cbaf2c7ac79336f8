//! Rollups: count, least, greatest, average, sum, standard deviation, first, last, median and 95th percentile of the readings
//! of each sensor in each hour and day of UTC, behind the views `readings_hourly` and `readings_daily`.
//!
//! # Why the views are right at any moment
//!
//! A *bucket* is one hour or day of one sensor. `rollup_horizon` has a row for each of the two grains. Buckets at or after its
//! `horizon` are open; those before it are rolled up (`rollup_hourly`, `rollup_daily`), unless the *sweep* has yet to come to
//! them, or they have a *mark* in `rollup_pending`. The views show what is rolled up, and work out all the rest from `telemetry`
//! in the same statement, so from one state of the database. It is to be shown that a bucket which is shown from its rollup
//! is as `telemetry` is in every committed state.
//!
//! - **Whoever stores readings** (the daemon, `journal replay`, `quarantine retry`: all by `store::commit::write`) reads
//!   the horizons at the end of its transaction, in PostgreSQL `FOR KEY SHARE`, and marks each bucket before a horizon that it
//!   has put a reading into ([`mark::mark_late`]). Readings in open buckets, nearly all, cost this one look.
//! - **The horizon moves** ([`Store::advance_rollups`]) under `FOR UPDATE`, which waits for every transaction that has read it,
//!   and which those that come later wait for. So each reading of a bucket that the horizon passes is either committed before
//!   it moves, or marked. It moves only when the last sweep is complete, in a transaction that does nothing else.
//! - **The sweep** ([`Store::sweep_rollups`]) rolls up the buckets that the horizon has passed, sensor by sensor, with a cursor
//!   in the row. What it reads has all that was stored unmarked. A late reading that it does not see is marked, by
//!   a transaction that commits after the sweep has looked; the mark stays, since marks of buckets that the cursor has not passed
//!   are let be.
//! - **A mark is settled** ([`Store::settle_rollups`]) by one transaction that locks it, then reads `telemetry`, writes the
//!   bucket and deletes the mark. Another late reading of that bucket has been committed, mark and all, before the lock was had,
//!   and is seen; or its transaction's upsert of the mark (a real conflict, `DO UPDATE`) waits for the lock, finds the mark gone
//!   and puts a new one.
//! - **Two daemons on one database**: who sweeps or settles holds the row of its grain (`FOR NO KEY UPDATE`, which writers do not
//!   wait for); the other one finds it locked and leaves the work. SQLite has one writer at a time; its sweep reads without the
//!   lock, and then writes only if the row still is as it was.
//! - **Raw readings that retention drops**: `raw_from` rises first, and never above what is rolled up. Rollups before it stay as
//!   they are: the views do not look at marks before it, nobody makes them, and those that are there are discarded.
//!
//! A fresh horizon lies before all history: an upgraded database is rolled up by one sweep from there, in steps, while the views
//! read what it has not come to from `telemetry`. While there is no reading at all, the horizon passes what is empty without one.
//!
//! # TimescaleDB
//!
//! There the views stand on continuous aggregates ([`timescale`]), the horizons never move and nothing is marked; `rolled` tells
//! how far the refresh has come. Open buckets are right at any moment; a late reading of a bucket that is materialized shows after the next refresh.
//!
//! # Limits
//!
//! Where the magnitude of a value in the bucket is 1e140 or more, avg, sum and stddev are NULL on every layout: PostgreSQL would
//! fail to work them out, and one such reading would hold up everything behind it.

mod aggregate;
mod grain;
mod mark;
mod postgres;
mod progress;
mod read;
mod sqlite;
mod timescale;

use std::time::{Duration, Instant as Clock};

use diesel::prelude::*;

pub use aggregate::Aggregate;
pub use grain::Grain;
pub(super) use mark::mark_late;
pub use read::{RollupRow, RollupsQuery};
pub(super) use timescale::install;

use super::Store;
use super::error::{During, StoreError};
use super::pool::{Conn, with_db};
use super::schema::{rollup_horizon, rollup_pending};
use crate::time::UtcMicros;
use progress::Progress;

/// The first instant of a `timestamptz`, 4714-11-24 BC, a midnight: where horizons begin.
#[cfg(test)]
const BEGINNING: UtcMicros = UtcMicros(-210_866_803_200_000_000);

/// How long one transaction of this work goes on, about. A bucket is never divided, so one of very many readings takes longer.
const STEP: Duration = Duration::from_millis(200);

/// What a step has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Buckets rolled up.
    pub buckets: u64,
    /// Whether there is more to do at once.
    pub more: bool,
}

/// Ends a transaction's work in time, and finds how much one statement should take on: it grows while that is quick.
struct Pace {
    started: Clock,
    size: i64,
}

impl Pace {
    fn begin() -> Pace {
        Pace { started: Clock::now(), size: 8 }
    }

    fn is_over(&self, after: Duration) -> bool {
        self.started.elapsed() >= after
    }

    /// After a statement that took so long.
    fn took(&mut self, duration: Duration) {
        self.size = if duration < STEP / 4 { (self.size * 2).min(1024) } else { (self.size / 2).max(1) };
    }
}

impl Store {
    /// Moves the horizon over the hours or days that ended before `ended`, if the last sweep is complete; whether it moved.
    /// Raw readings before `raw_before` may be gone soon: rollups of what is before it stay as they are from now on, as far as
    /// there are any. Waits for transactions that are storing readings, 5 s at most.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn advance_rollups(
        &self,
        grain: Grain,
        now: UtcMicros,
        ended: UtcMicros,
        raw_before: Option<UtcMicros>,
    ) -> Result<bool, StoreError> {
        // Without the lock first: most times there is nothing to move.
        let seen = self.db.with(|conn| progress(conn, grain))?;
        if seen.advanced(grain, now, ended, raw_before) == seen {
            return Ok(false);
        }
        self.db.write(|conn| {
            let seen = progress_alone(conn, grain)?;
            let mut next = seen.advanced(grain, now, ended, raw_before);
            if !next.is_swept() && is_empty(conn, grain)? {
                next = next.complete();
            }
            keep(conn, grain, next)?;
            Ok(next.horizon != seen.horizon)
        })
    }

    /// Rolls up some of the buckets that the horizon has passed.
    ///
    /// # Errors
    /// [`StoreError`]; then the step has done nothing.
    pub fn sweep_rollups(&self, grain: Grain) -> Result<Work, StoreError> {
        if self.db.with(|conn| progress(conn, grain))?.is_swept() {
            return Ok(Work::default());
        }
        if self.db.is_sqlite() {
            let found = self.db.read(|conn| match conn {
                Conn::Sqlite(c) => sqlite::look(c, grain),
                Conn::Postgres(_) => Ok(None),
            })?;
            let Some(found) = found else { return Ok(Work::default()) };
            return self.db.write(|conn| match conn {
                Conn::Sqlite(c) => sqlite::keep_swept(c, grain, &found),
                Conn::Postgres(_) => Ok(Work::default()),
            });
        }
        self.db.write(|conn| match conn {
            Conn::Postgres(c) => postgres::sweep(c, grain),
            Conn::Sqlite(_) => Ok(Work::default()),
        })
    }

    /// Rolls up anew some of the buckets into which readings came late.
    ///
    /// # Errors
    /// [`StoreError`]; then the step has done nothing.
    pub fn settle_rollups(&self, grain: Grain) -> Result<Work, StoreError> {
        if self.pending_rollups(grain)? == 0 {
            return Ok(Work::default());
        }
        self.db.write(|conn| match conn {
            Conn::Postgres(c) => postgres::settle(c, grain),
            Conn::Sqlite(c) => sqlite::settle(c, grain),
        })
    }

    /// Buckets that have a mark.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn pending_rollups(&self, grain: Grain) -> Result<i64, StoreError> {
        self.db.with(|conn| {
            with_db!(conn, |c| rollup_pending::table
                .filter(rollup_pending::grain.eq(grain.name()))
                .count()
                .get_result(c))
            .during("counting the buckets with late readings")
        })
    }

    /// Opens every bucket whose raw readings are there: from now on the views read them from `telemetry`, and nothing is
    /// marked. For rollups that are switched off.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open_rollups(&self, grain: Grain) -> Result<(), StoreError> {
        let seen = self.db.with(|conn| progress(conn, grain))?;
        if seen.opened() == seen && self.pending_rollups(grain)? == 0 {
            return Ok(());
        }
        self.db.write(|conn| {
            let opened = progress_alone(conn, grain)?.opened();
            keep(conn, grain, opened)?;
            with_db!(conn, |c| diesel::delete(rollup_pending::table.filter(rollup_pending::grain.eq(grain.name())))
                .execute(c))
            .during("discarding the marks of late readings")?;
            Ok(())
        })
    }

    /// Raw readings before this instant are rolled up, hours and days, the late ones too (on TimescaleDB those that came before
    /// the last refresh): they can be dropped without a loss to the views.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn rolled_up_before(&self) -> Result<UtcMicros, StoreError> {
        self.db.read(|conn| {
            let mut before = UtcMicros(i64::MAX);
            for grain in Grain::ALL {
                let progress = progress(conn, grain)?;
                let marked: Option<UtcMicros> = with_db!(conn, |c| rollup_pending::table
                    .filter(rollup_pending::grain.eq(grain.name()))
                    .filter(rollup_pending::bucket.ge(progress.raw_from))
                    .select(rollup_pending::bucket)
                    .order(rollup_pending::bucket)
                    .first(c)
                    .optional())
                .during("finding the oldest bucket with a late reading")?;
                before = before.min(progress.rolled).min(marked.unwrap_or(before));
            }
            Ok(before)
        })
    }

    /// Whether the views stand on TimescaleDB's continuous aggregates, which are refreshed rather than swept.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn rollups_are_continuous(&self) -> Result<bool, StoreError> {
        self.db.with(|conn| match conn {
            Conn::Postgres(c) => timescale::has_aggregates(c),
            Conn::Sqlite(_) => Ok(false),
        })
    }

    /// The beginning of the oldest chunk of readings on TimescaleDB; none where there is no reading.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn oldest_chunk(&self) -> Result<Option<UtcMicros>, StoreError> {
        self.db.with(|conn| match conn {
            Conn::Postgres(c) => timescale::oldest_chunk(c),
            Conn::Sqlite(_) => Ok(None),
        })
    }

    /// Refreshes the continuous aggregate of a grain from `from`, or from the beginning, to `to`, exclusive; whole buckets only.
    /// What has not changed since the last refresh costs nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn refresh_rollups(&self, grain: Grain, from: Option<UtcMicros>, to: UtcMicros) -> Result<(), StoreError> {
        self.db.with(|conn| {
            // On a connection of the pool, but in no transaction: the procedure has transactions of its own.
            match conn {
                Conn::Postgres(c) => timescale::refresh(c, grain, from, to)?,
                Conn::Sqlite(_) => {}
            }
            with_db!(conn, |c| diesel::update(rollup_horizon::table.find(grain.name()))
                .filter(rollup_horizon::rolled.lt(to))
                .set(rollup_horizon::rolled.eq(to))
                .execute(c))
            .during("keeping how far the rollups have come")?;
            Ok(())
        })
    }
}

fn progress(conn: &mut Conn<'_>, grain: Grain) -> Result<Progress, StoreError> {
    with_db!(conn, |c| rollup_horizon::table.find(grain.name()).select(Progress::COLUMNS).first(c))
        .during("reading how far the rollups have come")
}

/// The same, while nobody else stores readings, sweeps or settles.
fn progress_alone(conn: &mut Conn<'_>, grain: Grain) -> Result<Progress, StoreError> {
    match conn {
        Conn::Postgres(c) => {
            diesel::sql_query("SET LOCAL lock_timeout = '5s'").execute(*c).during("limiting the wait for writers")?;
            rollup_horizon::table.find(grain.name()).select(Progress::COLUMNS).for_update().first(*c)
        }
        Conn::Sqlite(c) => rollup_horizon::table.find(grain.name()).select(Progress::COLUMNS).first(*c),
    }
    .during("waiting for those who store readings, to move the rollups' horizon")
}

/// Whether there are neither readings nor rollups: a sweep would ask for each sensor's, of which a new installation may have many.
fn is_empty(conn: &mut Conn<'_>, grain: Grain) -> Result<bool, StoreError> {
    let table = grain.table();
    let query = format!("SELECT 1 AS one WHERE EXISTS (SELECT 1 FROM telemetry) OR EXISTS (SELECT 1 FROM {table})");
    let found: Option<One> = with_db!(conn, |c| diesel::sql_query(query).get_result(c).optional())
        .during("looking whether there is anything to roll up")?;
    Ok(found.is_none())
}

#[derive(QueryableByName)]
struct One {
    #[diesel(sql_type = diesel::sql_types::Integer)]
    #[expect(dead_code, reason = "that there is a row is all that is asked")]
    one: i32,
}

fn keep(conn: &mut Conn<'_>, grain: Grain, progress: Progress) -> Result<(), StoreError> {
    with_db!(conn, |c| diesel::update(rollup_horizon::table.find(grain.name()))
        .set((
            rollup_horizon::horizon.eq(progress.horizon),
            rollup_horizon::rolled.eq(progress.rolled),
            rollup_horizon::sensor_id.eq(progress.sensor_id),
            rollup_horizon::bucket.eq(progress.bucket),
            rollup_horizon::raw_from.eq(progress.raw_from),
        ))
        .execute(c))
    .during("keeping how far the rollups have come")?;
    Ok(())
}
