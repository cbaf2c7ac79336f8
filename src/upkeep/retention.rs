//! Removes what has outlived its lifetime; readings go to the archive first, where there is one.

use std::time::Duration;

use super::{Chore, Next};
use crate::archive::Archive;
use crate::config;
use crate::metrics::{ByClass, Metrics};
use crate::store::layout::ReadingTable;
use crate::store::retention::{Class, ReadingSink};
use crate::store::{Store, StoreError};
use crate::time::UtcMicros;

/// Between two looks, once nothing is left to do.
const AGAIN: Duration = Duration::from_secs(600);

/// One class and how long it lives.
#[derive(Clone, Copy)]
enum Lifetime {
    Readings(ReadingTable, Duration),
    Rows(Class, Duration),
}

impl Lifetime {
    /// The label of metrics: the key in `[retention]`.
    fn label(self) -> &'static str {
        match self {
            Lifetime::Readings(ReadingTable::Numbers, _) => "raw",
            Lifetime::Readings(ReadingTable::Texts, _) => "text",
            Lifetime::Rows(Class::HourlyRollups, _) => "rollups_hourly",
            Lifetime::Rows(Class::DailyRollups, _) => "rollups_daily",
            Lifetime::Rows(Class::Quarantine, _) => "quarantine",
            Lifetime::Rows(Class::Events, _) => "events",
            Lifetime::Rows(Class::Connections, _) => "connections",
            Lifetime::Rows(Class::Alerts | Class::Digests, _) => "alerts",
            Lifetime::Rows(Class::Commands | Class::Jobs, _) => "commands",
        }
    }
}

/// The chore. A step removes one part of the readings, or one batch of something else.
pub struct Retention {
    lifetimes: Vec<Lifetime>,
    /// Which of them is being looked at.
    at: usize,
    archive: Option<Archive>,
    /// Whether hours and days are rolled up: their numbers stay until that is done.
    rolls_up: bool,
    metrics: Metrics,
}

impl Retention {
    /// For the classes that do not live for ever. `rolls_up`: numbers are dropped only once they are rolled up.
    pub fn new(retention: &config::Retention, archive: Option<Archive>, rolls_up: bool, metrics: Metrics) -> Retention {
        let rows = [
            (Class::Quarantine, retention.quarantine),
            (Class::Events, retention.events),
            (Class::Connections, retention.events),
            (Class::Alerts, retention.alerts),
            (Class::Digests, retention.alerts),
            (Class::Commands, retention.commands),
            (Class::Jobs, retention.commands),
            (Class::HourlyRollups, retention.rollups_hourly),
            (Class::DailyRollups, retention.rollups_daily),
        ];
        let readings = [(ReadingTable::Numbers, retention.raw), (ReadingTable::Texts, retention.text)];
        // Readings last: an archive that fails then holds up nothing else.
        let rows = rows.into_iter().filter_map(|(class, life)| Some(Lifetime::Rows(class, life?)));
        let readings = readings.into_iter().filter_map(|(table, life)| Some(Lifetime::Readings(table, life?)));
        Retention { lifetimes: rows.chain(readings).collect(), at: 0, archive, rolls_up, metrics }
    }

    /// Whether there was something to remove.
    fn remove(&self, lifetime: Lifetime, store: &Store, now: UtcMicros) -> Result<bool, StoreError> {
        let class = ByClass { class: lifetime.label() };
        match lifetime {
            Lifetime::Rows(kind, life) => {
                let Some(before) = now.checked_sub(life) else { return Ok(false) };
                let removed = store.expire(kind, before)?;
                self.metrics.retention_rows.get_or_create(&class).inc_by(removed);
                Ok(removed > 0)
            }
            Lifetime::Readings(table, life) => {
                let Some(mut before) = now.checked_sub(life) else { return Ok(false) };
                if self.rolls_up && table == ReadingTable::Numbers {
                    before = before.min(store.rolled_up_before()?);
                }
                let Some(part) = store.expired_part(table, before, now)? else { return Ok(false) };
                let mut file = match &self.archive {
                    Some(archive) => Some(archive.begin(table, part.span).map_err(|error| self.failed(&error))?),
                    None => None,
                };
                let sink = file.as_mut().map(|file| file as &mut dyn ReadingSink);
                let dropped = store.drop_part(table, &part, sink).inspect_err(|error| {
                    if matches!(error, StoreError::Archive { .. }) {
                        self.metrics.archive_errors.inc();
                    }
                })?;
                let Some(dropped) = dropped else { return Ok(true) };
                if let Some(written) = file.as_ref().and_then(|file| file.written()) {
                    self.metrics.archive_files.inc();
                    tracing::info!(
                        file = written.file,
                        rows = written.rows,
                        bytes = written.bytes,
                        "readings archived"
                    );
                }
                self.metrics.retention_rows.get_or_create(&class).inc_by(dropped.rows.unwrap_or(0));
                self.metrics.retention_parts.get_or_create(&class).inc();
                tracing::info!(table = table.name(), span = %part.span, rows = dropped.rows, "readings dropped at the end of their lifetime");
                Ok(true)
            }
        }
    }

    fn failed(&self, error: &crate::archive::ArchiveError) -> StoreError {
        self.metrics.archive_errors.inc();
        StoreError::Archive { detail: error.to_string() }
    }
}

impl Chore for Retention {
    fn name(&self) -> &'static str {
        "retention"
    }

    fn step(&mut self, store: &Store, now: UtcMicros) -> Result<Next, StoreError> {
        let Some(lifetime) = self.lifetimes.get(self.at).copied() else {
            self.at = 0;
            return Ok(Next::At(now.checked_add(AGAIN).unwrap_or(now)));
        };
        let outcome = self.remove(lifetime, store, now);
        match outcome {
            Ok(true) => return Ok(Next::AtOnce),
            Ok(false) => self.at += 1,
            // The others get their turn before this one is tried again.
            Err(_) => self.at += 1,
        }
        outcome.map(|_| Next::AtOnce)
    }
}
