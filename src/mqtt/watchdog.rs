//! Notices a connection that is up and dead.
//!
//! The client's own ping check fires only while its poll is awake: a poll that hangs in a flush, since the peer's
//! window is closed, never comes back (v5 has no flush timeout). So silence is judged from outside the poll.

use std::time::Duration;

use tokio::time::Instant;

/// Trips when nothing has come in for `limit`.
#[derive(Debug)]
pub(super) struct Watchdog {
    limit: Duration,
    last: Instant,
    moved: bool,
}

impl Watchdog {
    pub(super) fn new(limit: Duration, now: Instant) -> Watchdog {
        Watchdog { limit, last: now, moved: false }
    }

    /// Half as long again as the interval of the pings, each of which must be answered.
    pub(super) fn limit_for(keep_alive: Duration) -> Duration {
        keep_alive.saturating_mul(3) / 2
    }

    pub(super) fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// Something came in. Cheap, for it is called for every packet: the time is taken at the next check.
    pub(super) fn saw(&mut self) {
        self.moved = true;
    }

    /// How long it has been silent, if that is too long.
    pub(super) fn check(&mut self, now: Instant) -> Option<Duration> {
        if std::mem::take(&mut self.moved) {
            self.last = now;
        }
        let silent = now.saturating_duration_since(self.last);
        (silent >= self.limit).then_some(silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trips_at_the_limit_and_not_before() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watchdog = Watchdog::new(Watchdog::limit_for(Duration::from_secs(10)), start);
        assert_eq!(watchdog.check(at(14)), None);
        watchdog.saw();
        assert_eq!(watchdog.check(at(15)), None);
        assert_eq!(watchdog.check(at(29)), None);
        assert_eq!(watchdog.check(at(30)), Some(Duration::from_secs(15)));
    }
}
