//! How the writer catches up with the journal: from when it counts as behind until it has caught up, and how fast.
//!
//! Pure: the writer tells it the time and the positions after each commit. It judges by how long the database takes
//! to get to where the journal was, on a clock that nobody sets.

use std::time::{Duration, Instant};

use crate::message::Seq;

/// Behind: the database has not come within this time to where the journal was.
const LATE: Duration = Duration::from_secs(10);
/// Caught up: it has come there within this time.
const PROMPT: Duration = Duration::from_secs(2);
/// Between two reports.
const EVERY: Duration = Duration::from_secs(10);

/// The positions of database and journal at one moment.
#[derive(Clone, Copy, Debug)]
struct Moment {
    at: Instant,
    position: Seq,
    last: Seq,
}

/// Watches the way of the database's position after the journal's end.
#[derive(Debug)]
pub struct CatchUp {
    /// A past moment; its `last` is what the position is to reach.
    mark: Moment,
    behind: Option<Behind>,
}

#[derive(Debug)]
struct Behind {
    since: Moment,
    said: Moment,
}

/// What an operator should hear.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Report {
    /// So many messages are left. At once when it begins, then every ten seconds with the pace since the last report.
    Behind { behind: u64, pace: Option<Pace> },
    /// Once, with the messages committed meanwhile.
    CaughtUp { messages: u64, took: Duration },
}

/// Messages a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    pub committed: f64,
    pub arriving: f64,
}

impl Pace {
    /// The pace of positions that moved so far within `time`.
    pub fn of(committed: u64, arrived: u64, time: Duration) -> Pace {
        let seconds = time.as_secs_f64().max(0.001);
        Pace { committed: committed as f64 / seconds, arriving: arrived as f64 / seconds }
    }

    /// How long `behind` messages take at this pace; none if it never ends, or takes more than a year.
    pub fn time_left(&self, behind: u64) -> Option<Duration> {
        const YEAR: f64 = 31_557_600.0;
        let gained = self.committed - self.arriving;
        let seconds = behind as f64 / gained;
        (gained > 0.0 && seconds < YEAR).then(|| Duration::from_secs_f64(seconds.ceil()))
    }

    /// [`Pace::time_left`] for a person.
    pub fn time_left_words(&self, behind: u64) -> String {
        match self.time_left(behind) {
            Some(left) => humantime::format_duration(left).to_string(),
            None => "never at this pace".to_owned(),
        }
    }
}

impl CatchUp {
    /// Begins at `now`, when the journal's last message is `last`.
    pub fn new(now: Instant, last: Seq) -> CatchUp {
        CatchUp { mark: Moment { at: now, position: 0, last }, behind: None }
    }

    /// Before a commit, with the positions as they are: the time for what has come since begins now.
    pub fn begin(&mut self, now: Instant, position: Seq, last: Seq) {
        if position >= self.mark.last {
            self.mark = Moment { at: now, position, last };
        }
    }

    /// After a commit: the database is at `position`, the journal at `last`.
    pub fn observe(&mut self, now: Instant, position: Seq, last: Seq) -> Option<Report> {
        let this = Moment { at: now, position, last };
        let delay = now.saturating_duration_since(self.mark.at);
        let reached = position >= self.mark.last;
        if reached {
            self.mark = this;
        }
        match &mut self.behind {
            None if delay >= LATE && position < last => {
                self.behind = Some(Behind { since: this, said: this });
                Some(Report::Behind { behind: last.saturating_sub(position), pace: None })
            }
            None => None,
            Some(behind) if reached && (delay < PROMPT || position >= last) => {
                let messages = position.saturating_sub(behind.since.position);
                let took = now.saturating_duration_since(behind.since.at);
                self.behind = None;
                Some(Report::CaughtUp { messages, took })
            }
            Some(behind) if now.saturating_duration_since(behind.said.at) >= EVERY => {
                let said = std::mem::replace(&mut behind.said, this);
                let pace = Pace::of(
                    position.saturating_sub(said.position),
                    last.saturating_sub(said.last),
                    now.saturating_duration_since(said.at),
                );
                Some(Report::Behind { behind: last.saturating_sub(position), pace: Some(pace) })
            }
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Run {
        start: Instant,
        catch_up: CatchUp,
    }

    impl Run {
        fn begin(&mut self, seconds: u64, position: Seq, last: Seq) {
            self.catch_up.begin(self.start + Duration::from_secs(seconds), position, last);
        }

        fn new(last: Seq) -> Run {
            let start = Instant::now();
            Run { start, catch_up: CatchUp::new(start, last) }
        }

        fn at(&mut self, seconds: u64, position: Seq, last: Seq) -> Option<Report> {
            self.catch_up.observe(self.start + Duration::from_secs(seconds), position, last)
        }
    }

    #[test]
    fn keeping_up_says_nothing_however_much_is_on_its_way() {
        let mut run = Run::new(0);
        for second in 0..100 {
            assert_eq!(run.at(second, second * 50_000, second * 50_000 + 9000), None);
        }
    }

    #[test]
    fn after_an_outage_it_is_said_at_once_then_every_ten_seconds_and_once_at_the_end() {
        let mut run = Run::new(0);
        assert_eq!(run.at(1, 100, 100), None);
        run.begin(2, 100, 101);
        let mut said = Vec::new();
        // Down for a minute at 100 messages/s; then 400/s go in.
        for second in 61..100 {
            let last = (second * 100).max(100);
            let position = (100 + (second - 60) * 400).min(last);
            said.extend(run.at(second, position, last).map(|report| (second, report)));
        }
        let pace = |report: &Report| match report {
            Report::Behind { pace, .. } => *pace,
            Report::CaughtUp { .. } => None,
        };
        assert_eq!(said[0], (61, Report::Behind { behind: 5600, pace: None }));
        assert_eq!(said[1].0, 71);
        assert_eq!(pace(&said[1].1), Some(Pace { committed: 400.0, arriving: 100.0 }));
        assert_eq!(pace(&said[1].1).unwrap().time_left_words(2600), "9s");
        let (second, Report::CaughtUp { messages, took }) = said[2] else { panic!("{said:?}") };
        assert!((78..=82).contains(&second) && messages > 6000 && took.as_secs() == second - 61, "{said:?}");
        assert_eq!(said.len(), 3, "{said:?}");
    }

    #[test]
    fn a_backlog_found_at_the_start_counts_as_behind_too() {
        let mut run = Run::new(1_000_000);
        assert_eq!(run.at(3, 1000, 1_000_000), None);
        assert!(matches!(run.at(11, 50_000, 1_000_000), Some(Report::Behind { behind: 950_000, .. })));
        // The last of it, and then nobody sends any more.
        assert!(matches!(run.at(15, 1_000_000, 1_000_000), Some(Report::CaughtUp { messages: 950_000, .. })));
        assert_eq!(run.at(200, 1_000_001, 1_000_001), None);
    }

    #[test]
    fn a_quiet_night_is_no_lag() {
        let mut run = Run::new(0);
        assert_eq!(run.at(1, 5, 5), None);
        run.begin(40_000, 5, 6);
        assert_eq!(run.at(40_000, 6, 7), None);
    }

    #[test]
    fn a_pace_that_gains_nothing_never_ends() {
        let pace = Pace::of(100, 100, Duration::from_secs(10));
        assert_eq!(pace.time_left(1), None);
        assert_eq!(pace.time_left_words(1), "never at this pace");
    }
}
