//! What SQLite needs once a day, off-peak: statistics, and its free space given back. PostgreSQL's autovacuum does both there;
//! WAL checkpoints are not made here.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::civil::Time;
use jiff::tz::TimeZone;

use super::{Chore, Next};
use crate::config::{Config, DatabaseUrl};
use crate::metrics::Metrics;
use crate::store::sqlite_care::Pages;
use crate::store::{Store, StoreError};
use crate::time::UtcMicros;

/// How long one step may hold the write lock, about: the pages of a step are chosen for it.
const STEP: Duration = Duration::from_millis(200);
/// Pages given back in the first step, and in any, at most.
const FIRST_PAGES: u32 = 64;
const MOST_PAGES: u32 = 4096;
/// After each step the writer has the database to itself for so many times as long.
const REST: u32 = 4;
/// How long it goes on; the rest waits for the next day.
const AT_MOST: Duration = Duration::from_secs(2 * 3600);
/// One free page in so many pages is kept: the next readings would only make the file grow again.
const KEPT: i64 = 20;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The chore.
pub struct SqliteCare {
    /// Of the day, in `zone`.
    at: Time,
    zone: TimeZone,
    metrics: Metrics,
    stage: Stage,
    /// For the next step of the vacuum.
    pages: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The daemon has just started.
    Begun,
    Waiting,
    Vacuum {
        until: UtcMicros,
    },
}

impl SqliteCare {
    /// None on PostgreSQL, and where `maintenance.at` is off.
    pub fn new(config: &Config, metrics: Metrics) -> Option<SqliteCare> {
        let at = config.maintenance.at.filter(|_| matches!(config.database.url, DatabaseUrl::Sqlite(_)))?;
        Some(SqliteCare::at(at, TimeZone::system(), metrics))
    }

    /// At a time of day in a time zone.
    pub fn at(at: Time, zone: TimeZone, metrics: Metrics) -> SqliteCare {
        SqliteCare { at, zone, metrics, stage: Stage::Begun, pages: FIRST_PAGES }
    }

    fn wait(&mut self, now: UtcMicros) -> Next {
        self.stage = Stage::Waiting;
        Next::At(next_at(self.at, &self.zone, now))
    }

    /// Gives some pages back, and chooses how many the next step may.
    fn vacuum(&mut self, store: &Store, before: Pages) -> Result<Duration, StoreError> {
        let begun = Instant::now();
        store.give_pages_back(self.pages)?;
        let took = begun.elapsed();
        let after = store.sqlite_pages()?.map_or(before.total, |pages| pages.total);
        let freed = before.total.saturating_sub(after).saturating_mul(before.size);
        self.metrics.sqlite_vacuumed.inc_by(u64::try_from(freed).unwrap_or(0));
        self.pages = if took > STEP { self.pages / 2 } else { self.pages.saturating_mul(2) }.clamp(1, MOST_PAGES);
        Ok(took)
    }
}

impl Chore for SqliteCare {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn step(&mut self, store: &Store, now: UtcMicros) -> Result<Next, StoreError> {
        let Some(pages) = store.sqlite_pages()? else { return Ok(self.wait(now)) };
        match self.stage {
            Stage::Begun => {
                if !pages.is_incremental() {
                    tracing::warn!(
                        free_bytes = pages.free_bytes(),
                        "the database was made without incremental vacuum, so its file never shrinks; to change that, stop \
                         tidegate and run: sqlite3 FILE 'PRAGMA auto_vacuum = INCREMENTAL; VACUUM'"
                    );
                }
                Ok(self.wait(now))
            }
            Stage::Waiting => {
                store.analyze_sqlite()?;
                match now.checked_add(AT_MOST).filter(|_| pages.is_incremental()) {
                    Some(until) => {
                        self.stage = Stage::Vacuum { until };
                        Ok(Next::AtOnce)
                    }
                    None => Ok(self.wait(now)),
                }
            }
            Stage::Vacuum { until } if now < until && pages.free > pages.total / KEPT => {
                let took = self.vacuum(store, pages)?;
                let rest = took.saturating_mul(REST);
                Ok(now.checked_add(took.saturating_add(rest)).map_or(Next::AtOnce, Next::At))
            }
            Stage::Vacuum { .. } => {
                tracing::debug!(free_bytes = pages.free_bytes(), "SQLite's maintenance is done for today");
                Ok(self.wait(now))
            }
        }
    }
}

/// The first instant after `now` at which it is `at` in `zone`. A time that daylight saving skips comes later by the gap.
fn next_at(at: Time, zone: &TimeZone, now: UtcMicros) -> UtcMicros {
    let next = || {
        let now = Timestamp::from_microsecond(now.0).ok()?;
        let today = now.to_zoned(zone.clone()).date();
        let on = |date: jiff::civil::Date| zone.to_timestamp(date.to_datetime(at)).ok();
        let instants = [on(today), today.tomorrow().ok().and_then(on)];
        instants.into_iter().flatten().find(|instant| *instant > now)
    };
    match next() {
        Some(instant) => UtcMicros(instant.as_microsecond()),
        None => now.checked_add(DAY).unwrap_or(now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{Stamp, read};

    fn instant(text: &str) -> UtcMicros {
        read(Stamp::Text(text), None).unwrap()
    }

    #[test]
    fn it_is_done_once_a_day_at_the_local_time() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        let next = |now: &str| next_at(jiff::civil::time(3, 0, 0, 0), &berlin, instant(now)).to_string();
        assert_eq!(next("2026-01-10T00:00:00Z"), "2026-01-10T02:00:00Z");
        assert_eq!(next("2026-01-10T02:00:00Z"), "2026-01-11T02:00:00Z");
        assert_eq!(next("2026-07-10T12:00:00Z"), "2026-07-11T01:00:00Z");
    }

    #[test]
    fn a_time_that_daylight_saving_skips_comes_later_that_day() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        let next = next_at(jiff::civil::time(2, 30, 0, 0), &berlin, instant("2026-03-29T00:00:00Z"));
        assert_eq!(next.to_string(), "2026-03-29T01:30:00Z");
    }
}
