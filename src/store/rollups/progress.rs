//! How far the rollups of one grain have come: the row of `rollup_horizon`, and how it moves.

use diesel::prelude::*;

use super::Grain;
use crate::store::schema::rollup_horizon;
use crate::time::UtcMicros;

/// A row of `rollup_horizon`. All instants begin buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Queryable)]
pub(super) struct Progress {
    /// Buckets from here on are open.
    pub horizon: UtcMicros,
    /// Buckets before this are rolled up.
    pub rolled: UtcMicros,
    /// Of the buckets between, those of sensors before this one are rolled up,
    pub sensor_id: i32,
    /// and those of this sensor before this bucket.
    pub bucket: UtcMicros,
    /// Raw readings before it may be gone.
    pub raw_from: UtcMicros,
}

type Columns = (
    rollup_horizon::horizon,
    rollup_horizon::rolled,
    rollup_horizon::sensor_id,
    rollup_horizon::bucket,
    rollup_horizon::raw_from,
);

impl Progress {
    pub(super) const COLUMNS: Columns = (
        rollup_horizon::horizon,
        rollup_horizon::rolled,
        rollup_horizon::sensor_id,
        rollup_horizon::bucket,
        rollup_horizon::raw_from,
    );

    /// Whether the sweep has come to its end.
    pub(super) fn is_swept(&self) -> bool {
        self.rolled >= self.horizon
    }

    /// The first bucket of a sensor that the sweep has still to roll up.
    pub(super) fn sweep_from(&self, sensor_id: i32) -> UtcMicros {
        let from = self.rolled.max(self.raw_from);
        if sensor_id == self.sensor_id { from.max(self.bucket) } else { from }
    }

    /// Whether the sweep goes over so much time that one sensor may have very many readings in it: more than two days.
    pub(super) fn is_long(&self) -> bool {
        self.horizon.0.saturating_sub(self.sweep_from(0).0) > 2 * Grain::Day.width()
    }

    /// Once the sweep has done everything of `sensor_id` before `bucket`.
    pub(super) fn swept_to(self, sensor_id: i32, bucket: UtcMicros) -> Progress {
        if bucket >= self.horizon { self.swept_past(sensor_id) } else { Progress { sensor_id, bucket, ..self } }
    }

    /// Once the sweep has done all of `sensor_id`.
    pub(super) fn swept_past(self, sensor_id: i32) -> Progress {
        Progress { sensor_id: sensor_id.saturating_add(1), bucket: self.rolled, ..self }
    }

    /// Once the sweep has done all sensors.
    pub(super) fn complete(self) -> Progress {
        Progress { rolled: self.horizon, sensor_id: 0, bucket: self.horizon, ..self }
    }

    /// With the horizon where `ended` allows it.
    ///
    /// A horizon more than two days after `now` is brought back: the clock had been ahead, and until that time came every reading
    /// would be a late one.
    pub(super) fn advanced(
        self,
        grain: Grain,
        now: UtcMicros,
        ended: UtcMicros,
        raw_before: Option<UtcMicros>,
    ) -> Progress {
        let mut next = self;
        if self.is_swept() {
            let ended = grain.floor(ended);
            let was_ahead = self.horizon.0.saturating_sub(now.0) > 2 * Grain::Day.width() && now >= PLAUSIBLE;
            if ended > self.horizon {
                next = Progress { horizon: ended, sensor_id: 0, bucket: self.rolled, ..self };
            } else if was_ahead {
                let back = ended.max(self.raw_from);
                next = Progress { horizon: back, rolled: back, sensor_id: 0, bucket: back, ..self };
            }
        }
        if let Some(raw_before) = raw_before {
            next.raw_from = next.raw_from.max(grain.ceil(raw_before).min(next.rolled));
        }
        next
    }

    /// With every bucket open whose raw readings are there.
    pub(super) fn opened(self) -> Progress {
        let open = self.raw_from;
        Progress { horizon: open, rolled: open, sensor_id: 0, bucket: open, ..self }
    }
}

/// 2026-01-01. A clock before it is not set yet, and says nothing about one that was ahead.
const PLAUSIBLE: UtcMicros = UtcMicros(1_767_225_600_000_000);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::rollups::BEGINNING;

    const HOUR: i64 = 3_600_000_000;
    const NOW: UtcMicros = UtcMicros(PLAUSIBLE.0 + 1000 * HOUR + 7);

    impl Progress {
        fn at(self, now: UtcMicros, raw_before: Option<UtcMicros>) -> Progress {
            self.advanced(Grain::Hour, now, now, raw_before)
        }
    }

    fn fresh() -> Progress {
        Progress { horizon: BEGINNING, rolled: BEGINNING, sensor_id: 0, bucket: BEGINNING, raw_from: BEGINNING }
    }

    #[test]
    fn the_horizon_moves_over_what_has_ended_and_waits_for_the_sweep() {
        let first = fresh().at(NOW, None);
        assert_eq!((first.horizon, first.rolled), (UtcMicros(NOW.0 - 7), BEGINNING));
        assert!(!first.is_swept());
        let later = UtcMicros(NOW.0 + HOUR);
        assert_eq!(first.at(later, None), first);
        let swept = first.swept_to(7, UtcMicros(5)).swept_past(8).complete();
        assert_eq!(swept.at(NOW, None), swept);
        assert_eq!(swept.at(later, None).horizon.0, NOW.0 - 7 + HOUR);
    }

    #[test]
    fn the_sweep_goes_on_where_it_was() {
        let at = fresh().at(NOW, None).swept_to(3, UtcMicros(HOUR));
        assert_eq!((at.sweep_from(3), at.sweep_from(4)), (UtcMicros(HOUR), BEGINNING));
        let past = at.swept_to(3, at.horizon);
        assert_eq!((past.sensor_id, past.sweep_from(4)), (4, BEGINNING));
    }

    #[test]
    fn a_horizon_that_a_wrong_clock_has_left_ahead_is_brought_back() {
        let ahead = fresh().at(UtcMicros(NOW.0 + 9000 * HOUR), None).complete();
        let back = ahead.at(NOW, None);
        assert_eq!((back.horizon, back.rolled), (UtcMicros(NOW.0 - 7), UtcMicros(NOW.0 - 7)));
        // That what has ended is told to be long ago is another matter.
        let swept = fresh().at(NOW, None).complete();
        assert_eq!(swept.advanced(Grain::Hour, NOW, UtcMicros(NOW.0 - 99 * HOUR), None), swept);
        // A clock that is not set is no reason.
        assert_eq!(ahead.at(UtcMicros(HOUR), None), ahead);
        // Nor is a little.
        let little = fresh().at(UtcMicros(NOW.0 + HOUR), None).complete();
        assert_eq!(little.at(NOW, None), little);
    }

    #[test]
    fn raw_readings_are_given_up_only_once_they_are_rolled_up() {
        let bound = Some(UtcMicros(NOW.0 - 500 * HOUR));
        let sweeping = fresh().at(NOW, bound);
        assert_eq!(sweeping.raw_from, BEGINNING);
        let done = sweeping.complete().at(NOW, bound);
        assert_eq!(done.raw_from, UtcMicros(NOW.0 - 7 - 499 * HOUR), "rounded up");
        assert_eq!(done.at(NOW, None).raw_from, done.raw_from);
        assert_eq!(done.opened().horizon, done.raw_from);
    }
}
