//! The two widths of buckets, and what bears their name in the database.

use crate::time::UtcMicros;

const HOUR_MICROS: i64 = 3_600_000_000;

/// The width of a bucket. Both begin at full hours, days at midnight, of UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grain {
    Hour,
    Day,
}

impl Grain {
    pub const ALL: [Grain; 2] = [Grain::Hour, Grain::Day];

    /// In the database, on the command line and as a label of metrics.
    pub fn name(self) -> &'static str {
        match self {
            Grain::Hour => "hour",
            Grain::Day => "day",
        }
    }

    /// The grain of a name.
    pub fn named(name: &str) -> Option<Grain> {
        Grain::ALL.into_iter().find(|grain| grain.name() == name)
    }

    /// The view that people query.
    pub fn view(self) -> &'static str {
        match self {
            Grain::Hour => "readings_hourly",
            Grain::Day => "readings_daily",
        }
    }

    /// Microseconds.
    pub fn width(self) -> i64 {
        match self {
            Grain::Hour => HOUR_MICROS,
            Grain::Day => 24 * HOUR_MICROS,
        }
    }

    /// The bucket that an instant is in, by its beginning.
    pub fn floor(self, time: UtcMicros) -> UtcMicros {
        UtcMicros(time.0.saturating_sub(time.0.rem_euclid(self.width())))
    }

    /// The first bucket that begins at or after an instant.
    pub fn ceil(self, time: UtcMicros) -> UtcMicros {
        let floor = self.floor(time);
        if floor == time { time } else { self.end(floor) }
    }

    /// The end of a bucket, exclusive.
    pub fn end(self, bucket: UtcMicros) -> UtcMicros {
        UtcMicros(bucket.0.saturating_add(self.width()))
    }

    pub(super) fn table(self) -> &'static str {
        match self {
            Grain::Hour => "rollup_hourly",
            Grain::Day => "rollup_daily",
        }
    }

    /// The continuous aggregate on TimescaleDB.
    pub(in crate::store) fn aggregate(self) -> &'static str {
        match self {
            Grain::Hour => "telemetry_hourly",
            Grain::Day => "telemetry_daily",
        }
    }

    /// As a PostgreSQL interval. In hours: a day of an interval may have 23 of them.
    pub(super) fn interval(self) -> &'static str {
        match self {
            Grain::Hour => "interval '1 hour'",
            Grain::Day => "interval '24 hours'",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::rollups::BEGINNING;

    #[test]
    fn buckets_begin_at_full_hours_and_days_before_1970_too() {
        for grain in Grain::ALL {
            let width = grain.width();
            for (time, floor, ceil) in
                [(0, 0, 0), (1, 0, width), (-1, -width, 0), (width - 1, 0, width), (-width, -width, -width)]
            {
                assert_eq!((grain.floor(UtcMicros(time)).0, grain.ceil(UtcMicros(time)).0), (floor, ceil), "{time}");
            }
            assert_eq!(grain.floor(BEGINNING), BEGINNING);
            assert_eq!(Grain::named(grain.name()), Some(grain));
        }
    }
}
