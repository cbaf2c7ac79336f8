//! The chore that rolls up hours and days; the SQL, and why the views are right, is in `store::rollups`.

use std::time::Duration;

use super::{Chore, Next};
use crate::config;
use crate::metrics::{ByGrain, Metrics};
use crate::store::rollups::{Grain, Work};
use crate::store::{Store, StoreError};
use crate::time::UtcMicros;

/// What one refresh of a continuous aggregate covers at most while history is taken in, µs: seven days.
const STRETCH: i64 = 7 * 24 * 3_600_000_000;

/// Rolls up what is over, a step at a time.
pub struct Rollups {
    settings: config::Rollups,
    /// How long raw readings are kept; none: for ever.
    keep_raw: Option<Duration>,
    metrics: Metrics,
    /// On TimescaleDB, how far the first refresh since the start has come, by grain.
    refreshed: [Option<UtcMicros>; 2],
    /// Whether the views stand on continuous aggregates, once that is known.
    continuous: Option<bool>,
    /// Whether a step has been done.
    begun: bool,
}

impl Rollups {
    /// `keep_raw`: how long raw readings are kept, by retention; none: for ever. Hours and days that begin before are not rolled up
    /// anew.
    pub fn new(settings: config::Rollups, keep_raw: Option<Duration>, metrics: Metrics) -> Rollups {
        Rollups { settings, keep_raw, metrics, refreshed: [None; 2], continuous: None, begun: false }
    }

    fn is_continuous(&mut self, store: &Store) -> Result<bool, StoreError> {
        match self.continuous {
            Some(known) => Ok(known),
            None => Ok(*self.continuous.insert(store.rollups_are_continuous()?)),
        }
    }

    /// What ended before this is over: some grace ago, and not after what the journal still holds for the database, or all of
    /// that would be late. None: how old that is will be known by the next step.
    fn ended(&self, now: UtcMicros) -> Option<UtcMicros> {
        let lag = u64::try_from(self.metrics.journal_lag_seconds.get()).unwrap_or(0);
        if lag == 0 && !self.begun && self.metrics.journal_lag_messages.get() > 0 {
            return None;
        }
        now.checked_sub(self.settings.grace)?.checked_sub(Duration::from_secs(lag))
    }

    /// One step for each grain of horizon, late readings and sweep. Whether there is more to do.
    fn roll_up(&self, store: &Store, now: UtcMicros) -> Result<bool, StoreError> {
        let ended = self.ended(now);
        let raw_before = self.keep_raw.and_then(|kept| now.checked_sub(kept));
        let mut more = false;
        for grain in Grain::ALL {
            if let Some(ended) = ended
                && store.advance_rollups(grain, now, ended, raw_before)?
            {
                tracing::debug!(grain = grain.name(), "rolling up what has ended");
            }
            // Late readings first: what is marked costs every query more.
            for work in [store.settle_rollups(grain)?, store.sweep_rollups(grain)?] {
                more |= self.count(grain, work);
            }
            self.metrics.rollup_pending.get_or_create(&label(grain)).set(store.pending_rollups(grain)?);
        }
        Ok(more)
    }

    fn count(&self, grain: Grain, work: Work) -> bool {
        self.metrics.rollup_buckets.get_or_create(&label(grain)).inc_by(work.buckets);
        work.more
    }

    /// One refresh for each grain. Whether history is left.
    fn refresh(&mut self, store: &Store, now: UtcMicros) -> Result<bool, StoreError> {
        let ended = now.checked_sub(self.settings.grace).unwrap_or(now);
        let kept = self.keep_raw.and_then(|kept| now.checked_sub(kept));
        let mut more = false;
        for (grain, refreshed) in Grain::ALL.into_iter().zip(&mut self.refreshed) {
            let (end, kept) = (grain.floor(ended), kept.map(|kept| grain.ceil(kept)));
            let Some(oldest) = store.oldest_chunk()? else { continue };
            let oldest = grain.floor(oldest).max(kept.unwrap_or(UtcMicros(i64::MIN)));
            let (from, to) = match *refreshed {
                // All that has changed since; what has not costs nothing.
                Some(reached) if reached >= end || end.0.saturating_sub(reached.0) < STRETCH => (oldest, end),
                reached => {
                    let from = reached.unwrap_or(oldest).max(oldest);
                    (from, UtcMicros(from.0.saturating_add(STRETCH)).min(end))
                }
            };
            if from < to {
                store.refresh_rollups(grain, Some(from), to)?;
            }
            *refreshed = Some(to.max(from));
            more |= to < end;
        }
        Ok(more)
    }
}

impl Chore for Rollups {
    fn name(&self) -> &'static str {
        "rollups"
    }

    fn step(&mut self, store: &Store, now: UtcMicros) -> Result<Next, StoreError> {
        let more = if self.is_continuous(store)? {
            self.settings.enabled && self.refresh(store, now)?
        } else if self.settings.enabled {
            self.roll_up(store, now)?
        } else {
            for grain in Grain::ALL {
                store.open_rollups(grain)?;
            }
            false
        };
        self.begun = true;
        let later = now.checked_add(self.settings.refresh).unwrap_or(now);
        Ok(if more { Next::AtOnce } else { Next::At(later) })
    }
}

fn label(grain: Grain) -> ByGrain {
    ByGrain { grain: grain.name() }
}
