//! How the tables of readings are laid out: chosen once, by `migrate`, and recorded. Readings always find their place.

mod choose;
mod partitions;
mod spans;
mod status;
mod timescale;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use diesel::prelude::*;

pub(super) use choose::settle;
pub(super) use spans::Spans;
pub use spans::{DAY_MICROS, Span};
pub(super) use status::parts;
pub use status::{LayoutStatus, Part, TableStatus};
pub use timescale::Compressed;

use super::Store;
use super::batch::Batch;
use super::error::{During, StoreError};
use super::pool::{Conn, with_db};
use super::schema::telemetry_layout;
use crate::clock;
use crate::time::UtcMicros;

/// How readings lie in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Hypertables of TimescaleDB with a chunk for each day.
    Timescale,
    /// PostgreSQL's own partitions by range of `time`, a day each; wider ones for what is more than a year away.
    Partitions,
    /// One table each: SQLite.
    Plain,
}

impl Layout {
    /// As recorded, and as `[database] layout` has it.
    pub fn word(self) -> &'static str {
        match self {
            Layout::Timescale => "timescaledb",
            Layout::Partitions => "partitions",
            Layout::Plain => "plain",
        }
    }

    fn of_word(word: &str) -> Option<Layout> {
        [Layout::Timescale, Layout::Partitions, Layout::Plain].into_iter().find(|layout| layout.word() == word)
    }
}

/// One of the two tables of readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReadingTable {
    Numbers,
    Texts,
}

impl ReadingTable {
    pub const ALL: [ReadingTable; 2] = [ReadingTable::Numbers, ReadingTable::Texts];

    /// Its name in the database.
    pub fn name(self) -> &'static str {
        match self {
            ReadingTable::Numbers => "telemetry",
            ReadingTable::Texts => "telemetry_text",
        }
    }
}

/// The recorded choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    pub layout: Layout,
    pub since: UtcMicros,
    /// Why, for people.
    pub detail: String,
}

/// What a store remembers of the layout. All of it can be read again, and is after any failed write.
#[derive(Debug, Default)]
pub(super) struct Known {
    layout: Mutex<Option<Layout>>,
    spans: Mutex<BTreeMap<ReadingTable, Spans>>,
}

impl Known {
    pub(super) fn forget(&self) {
        *self.layout.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Store {
    /// How readings lie. Asked once; the answer does not change while the schema stays.
    ///
    /// # Errors
    /// [`StoreError`]; among others when the database is not migrated.
    pub fn layout(&self) -> Result<Layout, StoreError> {
        if let Some(layout) = *self.known.layout.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(layout);
        }
        let found = self.db.with(recorded)?.ok_or_else(|| StoreError::Unfit {
            detail: "the database has no layout for readings yet; run `tidegate migrate`".to_owned(),
        })?;
        *self.known.layout.lock().unwrap_or_else(PoisonError::into_inner) = Some(found.layout);
        Ok(found.layout)
    }

    /// Runs `work` in a transaction that will write the batch, once each of its readings has a partition.
    ///
    /// The partitions are made just before, in transactions of their own: what is remembered of them is then always
    /// committed, and their locks last for milliseconds. Where every day is known, which is nearly always, this costs a
    /// comparison for each reading. A partition that is gone in spite of that (somebody dropped it) fails the batch, which
    /// makes this forget what it knows, and the next attempt makes the partition.
    pub(super) fn write_covered<T>(
        &self,
        batch: &Batch,
        work: impl FnOnce(&mut Conn<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let outcome = self.cover(batch).and_then(|()| self.db.write(work));
        if outcome.is_err() {
            self.known.forget();
        }
        outcome
    }

    fn cover(&self, batch: &Batch) -> Result<(), StoreError> {
        if self.layout()? != Layout::Partitions {
            return Ok(());
        }
        // Now too: the row that tests whether the table takes anything has that time.
        let now = clock::now();
        self.cover_times(ReadingTable::Numbers, batch.readings.iter().map(|reading| reading.time).chain([now]), now)?;
        self.cover_times(ReadingTable::Texts, batch.texts.iter().map(|reading| reading.time).chain([now]), now)
    }

    /// Makes a partition for each day from `from` to `to` that has none, at most `most`, the earliest first. Does nothing
    /// where partitions are not ours to make.
    ///
    /// # Errors
    /// [`StoreError`]; those made before it stay.
    pub fn make_partitions(&self, from: UtcMicros, to: UtcMicros, most: usize) -> Result<(), StoreError> {
        if self.layout()? != Layout::Partitions {
            return Ok(());
        }
        for table in ReadingTable::ALL {
            self.cover_times(table, spans::days(from, to).take(most), clock::now())?;
        }
        Ok(())
    }

    fn cover_times(
        &self,
        table: ReadingTable,
        times: impl Iterator<Item = UtcMicros>,
        now: UtcMicros,
    ) -> Result<(), StoreError> {
        let missing = {
            let mut spans = self.known.spans.lock().unwrap_or_else(PoisonError::into_inner);
            spans.entry(table).or_default().not_covered(times)
        };
        if missing.is_empty() {
            return Ok(());
        }
        let mut done = false;
        while !done {
            let spans;
            (spans, done) = self.db.write(|conn| match conn {
                Conn::Postgres(c) => partitions::ensure(c, table, &missing, now),
                Conn::Sqlite(_) => Ok((Spans::default(), true)),
            })?;
            self.known.spans.lock().unwrap_or_else(PoisonError::into_inner).insert(table, spans);
        }
        Ok(())
    }

    /// Locks that a query of `readings` without a time range takes, and those that the server has room for. None unless
    /// the layout is partitions.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn partition_locks(&self) -> Result<Option<(u64, u64)>, StoreError> {
        if self.layout()? != Layout::Partitions {
            return Ok(None);
        }
        self.db.with(|conn| match conn {
            Conn::Postgres(c) => partitions::locks(c).map(Some),
            Conn::Sqlite(_) => Ok(None),
        })
    }
}

/// The layout's row; none before the first `migrate` is through.
pub(super) fn recorded(conn: &mut Conn<'_>) -> Result<Option<Recorded>, StoreError> {
    let row: Option<(String, UtcMicros, String)> = with_db!(conn, |c| telemetry_layout::table
        .select((telemetry_layout::kind, telemetry_layout::chosen_at, telemetry_layout::detail))
        .first(c)
        .optional())
    .during("reading the layout of readings")?;
    row.map(|(kind, since, detail)| match Layout::of_word(&kind) {
        Some(layout) => Ok(Recorded { layout, since, detail }),
        None => {
            Err(StoreError::Unfit { detail: format!("the layout {kind} of readings is none that this version knows") })
        }
    })
    .transpose()
}
