//! The wall clock, and the stamps that are never given twice.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::time::UtcMicros;

/// A step back by more than this is followed rather than waited out.
pub const FAR_BACK_MICROS: i64 = 1_000_000;

/// Now, by the system's wall clock.
pub fn now() -> UtcMicros {
    let micros = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
    };
    UtcMicros(micros)
}

/// Gives every message its `received_at`: the clock's time, or a microsecond after the last stamp if
/// the clock has not moved on. Monotonic but for a clock set back by more than [`FAR_BACK_MICROS`].
#[derive(Debug)]
pub struct Stamper {
    last: UtcMicros,
}

/// A stamp, and how far the clock was found to be set back, if it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub at: UtcMicros,
    /// Microseconds from the last stamp back to this one, when the clock was set back far.
    pub set_back_micros: Option<i64>,
}

impl Stamper {
    /// Continues after `last`, the newest stamp in the journal.
    pub fn after(last: UtcMicros) -> Stamper {
        Stamper { last }
    }

    /// The stamp for a message received at `now`.
    pub fn stamp(&mut self, now: UtcMicros) -> Stamp {
        let back = self.last.0.saturating_sub(now.0);
        let set_back_micros = (back > FAR_BACK_MICROS).then_some(back);
        let at =
            if set_back_micros.is_some() || now > self.last { now } else { UtcMicros(self.last.0.saturating_add(1)) };
        self.last = at;
        Stamp { at, set_back_micros }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_stands_still_gives_growing_stamps() {
        let mut stamper = Stamper::after(UtcMicros(1000));
        let stamps: Vec<i64> = [1000, 1000, 1000, 1005].map(|now| stamper.stamp(UtcMicros(now)).at.0).to_vec();
        assert_eq!(stamps, [1001, 1002, 1003, 1005]);
    }

    #[test]
    fn a_small_step_back_is_waited_out_and_a_large_one_followed_and_said() {
        let mut stamper = Stamper::after(UtcMicros(10_000_000));
        assert_eq!(stamper.stamp(UtcMicros(9_999_000)), Stamp { at: UtcMicros(10_000_001), set_back_micros: None });
        let far = stamper.stamp(UtcMicros(1_000_000));
        assert_eq!(far, Stamp { at: UtcMicros(1_000_000), set_back_micros: Some(9_000_001) });
    }
}
