//! What a job does next: a pure function of its rules, of how its executions stand, and of the time.

use std::time::Duration;

use super::measure::{Percent, Rate};
use super::state::JobState;
use crate::time::UtcMicros;

/// How much of what the rate allowed and nobody took is made up for: more than lies between two looks, and little beside a minute.
pub const CATCH_UP: Duration = Duration::from_secs(2);

/// When failures end a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abort {
    /// Of what has ended.
    pub percent: Percent,
    /// So many must have ended before it counts; that all canaries have is enough, too.
    pub after: u32,
}

/// What whoever asked has laid down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// None: as fast as may be.
    pub rate: Option<Rate>,
    pub abort: Option<Abort>,
    /// Nothing begins afterwards.
    pub expires_at: Option<UtcMicros>,
}

/// How executions stand. Those that were never begun and have ended (not valid, nothing to do, taken back) are in none of it: they say
/// nothing of what the command does to a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Not begun.
    pub waiting: u64,
    /// Begun, and not ended.
    pub under_way: u64,
    pub succeeded: u64,
    /// Failed, timed out or rejected.
    pub failed: u64,
}

/// [`Tally`] of the canaries and of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub canaries: Tally,
    pub others: Tally,
}

/// Where the job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub state: JobState,
    /// Whether the others may begin: there are no canaries, or they have passed.
    pub passed: bool,
    /// When the rate lets the next one begin; none: at once.
    pub next_at: Option<UtcMicros>,
    /// As many as there is room for.
    pub room: u64,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Move {
    /// Everything has ended.
    End,
    /// Too many have failed, as the words say.
    Abort(String),
    /// The job's time has passed before all had begun.
    Expire,
    /// The canaries have done well enough.
    Pass,
    /// The first `count` of those that have not begun, then none before `next_at`.
    Begin { count: u64, next_at: Option<UtcMicros> },
    /// Nothing yet.
    Wait,
}

impl Tally {
    fn ended(&self) -> u64 {
        self.succeeded.saturating_add(self.failed)
    }

    fn is_over(&self) -> bool {
        self.waiting == 0 && self.under_way == 0
    }

    fn with(&self, other: &Tally) -> Tally {
        Tally {
            waiting: self.waiting.saturating_add(other.waiting),
            under_way: self.under_way.saturating_add(other.under_way),
            succeeded: self.succeeded.saturating_add(other.succeeded),
            failed: self.failed.saturating_add(other.failed),
        }
    }
}

/// The next move.
pub fn decide(rules: &Rules, counts: &Counts, standing: &Standing, now: UtcMicros) -> Move {
    let all = counts.canaries.with(&counts.others);
    if all.is_over() {
        return Move::End;
    }
    if !standing.state.goes_on() {
        return Move::Wait;
    }
    if let Some(abort) = rules.abort
        && all.ended() >= u64::from(abort.after)
        && abort.percent.is_reached(all.failed, all.ended())
    {
        return Move::Abort(told("executions", &all, abort.percent));
    }
    if !standing.passed && counts.canaries.is_over() {
        let canaries = &counts.canaries;
        return match rules.abort {
            Some(abort) if abort.percent.is_reached(canaries.failed, canaries.ended()) => {
                Move::Abort(told("canaries", canaries, abort.percent))
            }
            _ => Move::Pass,
        };
    }
    if all.waiting > 0 && rules.expires_at.is_some_and(|at| at <= now) {
        return Move::Expire;
    }
    let waiting = if standing.passed { all.waiting } else { counts.canaries.waiting };
    let most = waiting.min(standing.room);
    if standing.state == JobState::Paused || most == 0 {
        return Move::Wait;
    }
    let Some(rate) = rules.rate else { return Move::Begin { count: most, next_at: None } };
    let made_up = now.checked_sub(CATCH_UP).unwrap_or(now);
    let from = standing.next_at.unwrap_or(now).max(made_up);
    if from > now {
        return Move::Wait;
    }
    let due = rate.commands(now.0.saturating_sub(from.0)).saturating_add(1);
    let count = due.min(most);
    Move::Begin { count, next_at: Some(UtcMicros(from.0.saturating_add(rate.micros(count)))) }
}

fn told(what: &str, tally: &Tally, percent: Percent) -> String {
    format!(
        "{} of the {} {what} that have ended failed, timed out or were rejected; the most is less than {}%",
        tally.failed,
        tally.ended(),
        percent.get()
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: UtcMicros = UtcMicros(1_000_000_000);

    fn standing() -> Standing {
        Standing { state: JobState::Running, passed: true, next_at: None, room: 500 }
    }

    fn rules() -> Rules {
        Rules { rate: None, abort: Some(Abort { percent: Percent::new(20), after: 10 }), expires_at: None }
    }

    fn others(waiting: u64, under_way: u64, succeeded: u64, failed: u64) -> Counts {
        Counts { others: Tally { waiting, under_way, succeeded, failed }, ..Counts::default() }
    }

    fn begin(count: u64) -> Move {
        Move::Begin { count, next_at: None }
    }

    #[test]
    fn as_many_begin_as_there_is_room_for() {
        assert_eq!(decide(&rules(), &others(700, 0, 0, 0), &standing(), NOW), begin(500));
        assert_eq!(decide(&rules(), &others(7, 0, 0, 0), &standing(), NOW), begin(7));
        assert_eq!(decide(&rules(), &others(7, 0, 0, 0), &Standing { room: 0, ..standing() }, NOW), Move::Wait);
        assert_eq!(decide(&rules(), &others(0, 1, 6, 0), &standing(), NOW), Move::Wait);
        assert_eq!(decide(&rules(), &others(0, 0, 6, 1), &standing(), NOW), Move::End);
        let paused = Standing { state: JobState::Paused, ..standing() };
        assert_eq!(decide(&rules(), &others(7, 0, 0, 0), &paused, NOW), Move::Wait);
    }

    #[test]
    fn failures_end_a_job_once_enough_has_ended() {
        assert_eq!(decide(&rules(), &others(7, 0, 1, 8), &standing(), NOW), begin(7));
        let Move::Abort(why) = decide(&rules(), &others(7, 0, 8, 2), &standing(), NOW) else { panic!() };
        assert!(why.contains("2 of the 10 executions") && why.contains("20%"), "{why}");
        assert_eq!(decide(&rules(), &others(7, 0, 9, 2), &standing(), NOW), begin(7));
        let never = Rules { abort: None, ..rules() };
        assert_eq!(decide(&never, &others(7, 0, 0, 99), &standing(), NOW), begin(7));
    }

    #[test]
    fn the_others_wait_for_the_canaries() {
        let waits = Standing { passed: false, ..standing() };
        let with = |canaries| Counts { canaries, ..others(90, 0, 0, 0) };
        let tally = |waiting, under_way, succeeded, failed| Tally { waiting, under_way, succeeded, failed };
        assert_eq!(decide(&rules(), &with(tally(5, 0, 0, 0)), &waits, NOW), begin(5));
        assert_eq!(decide(&rules(), &with(tally(0, 1, 4, 0)), &waits, NOW), Move::Wait);
        assert_eq!(decide(&rules(), &with(tally(0, 0, 5, 0)), &waits, NOW), Move::Pass);
        // All of them have ended, so that few are enough.
        let Move::Abort(why) = decide(&rules(), &with(tally(0, 0, 4, 1)), &waits, NOW) else { panic!() };
        assert!(why.contains("1 of the 5 canaries"), "{why}");
        assert_eq!(decide(&rules(), &with(tally(0, 0, 5, 0)), &standing(), NOW), begin(90));
    }

    #[test]
    fn a_job_whose_time_has_passed_begins_nothing() {
        let rules = Rules { expires_at: Some(NOW), ..rules() };
        assert_eq!(decide(&rules, &others(7, 1, 0, 0), &standing(), NOW), Move::Expire);
        assert_eq!(decide(&rules, &others(7, 1, 0, 0), &standing(), UtcMicros(NOW.0 - 1)), begin(7));
        assert_eq!(decide(&rules, &others(0, 1, 6, 0), &standing(), NOW), Move::Wait);
    }

    #[test]
    fn a_rate_spreads_commands_over_the_minute() {
        let rules = Rules { rate: Rate::new(60), ..rules() };
        let at = |next_at: Option<i64>, now: i64| {
            let standing = Standing { next_at: next_at.map(UtcMicros), ..standing() };
            decide(&rules, &others(99, 0, 0, 0), &standing, UtcMicros(now))
        };
        let begun = |count, next_at| Move::Begin { count, next_at: Some(UtcMicros(next_at)) };
        assert_eq!(at(None, 0), begun(1, 1_000_000));
        assert_eq!(at(Some(1_000_000), 999_999), Move::Wait);
        assert_eq!(at(Some(1_000_000), 1_000_000), begun(1, 2_000_000));
        // A look that comes late makes up for a little, and no more.
        assert_eq!(at(Some(1_000_000), 2_500_000), begun(2, 3_000_000));
        assert_eq!(at(Some(1_000_000), 600_000_000), begun(3, 601_000_000));
    }

    /// A fleet whose devices answer by themselves, a job that is looked at now and then, and a hand that pauses it.
    #[derive(Clone, Debug)]
    struct Course {
        devices: u64,
        canaries: u64,
        rate: Option<u32>,
        percent: u8,
        after: u32,
        /// Milliseconds between looks, how many of those under way end until then, how many of those fail (of 8), whether it is paused.
        looks: Vec<(u32, u64, u64, bool)>,
    }

    fn courses() -> impl Strategy<Value = Course> {
        let look = (1_u32..5_000, 0_u64..40, 0_u64..9, prop::bool::weighted(0.1));
        let rate = prop::option::of(1_u32..10_000);
        (1_u64..200, 0_u64..20, rate, 1_u8..=100, 1_u32..30, prop::collection::vec(look, 1..120)).prop_map(
            |(devices, canaries, rate, percent, after, looks)| Course {
                devices,
                canaries: canaries.min(devices),
                rate,
                percent,
                after,
                looks,
            },
        )
    }

    fn settle(tally: &mut Tally, ended: u64, eighths: u64) {
        let ended = ended.min(tally.under_way);
        let failed = (ended * eighths / 8).min(ended);
        tally.under_way -= ended;
        tally.failed += failed;
        tally.succeeded += ended - failed;
    }

    proptest! {
        #[test]
        fn no_course_breaks_a_rule(course in courses()) {
            let rules = Rules {
                rate: course.rate.and_then(Rate::new),
                abort: Some(Abort { percent: Percent::new(course.percent), after: course.after }),
                expires_at: None,
            };
            let mut counts = Counts::default();
            counts.canaries.waiting = course.canaries;
            counts.others.waiting = course.devices - course.canaries;
            let mut standing = Standing { state: JobState::Running, passed: course.canaries == 0, next_at: None, room: 50 };
            let (mut now, mut begun) = (UtcMicros(0), Vec::<(i64, u64)>::new());
            for (wait, ended, eighths, paused) in course.looks {
                now = UtcMicros(now.0 + i64::from(wait) * 1000);
                settle(&mut counts.canaries, ended, eighths);
                settle(&mut counts.others, ended, eighths);
                if standing.state.goes_on() {
                    standing.state = if paused { JobState::Paused } else { JobState::Running };
                }
                match decide(&rules, &counts, &standing, now) {
                    Move::Begin { count, next_at } => {
                        prop_assert!(count > 0 && count <= standing.room);
                        prop_assert_eq!(standing.state, JobState::Running);
                        prop_assert!(next_at.is_none_or(|next| next > now || rules.rate.is_some()));
                        let of_canaries = count.min(counts.canaries.waiting);
                        counts.canaries.waiting -= of_canaries;
                        counts.canaries.under_way += of_canaries;
                        let rest = count - of_canaries;
                        // The others only once the canaries are over, and never more than there are.
                        prop_assert!(rest == 0 || standing.passed);
                        prop_assert!(rest <= counts.others.waiting);
                        counts.others.waiting -= rest;
                        counts.others.under_way += rest;
                        standing.next_at = next_at;
                        begun.push((now.0, count));
                    }
                    Move::Pass => {
                        prop_assert!(!standing.passed && counts.canaries.is_over());
                        prop_assert!(!Percent::new(course.percent).is_reached(counts.canaries.failed, counts.canaries.ended()));
                        standing.passed = true;
                    }
                    Move::Abort(_) => {
                        prop_assert!(counts.canaries.failed + counts.others.failed > 0);
                        standing.state = JobState::Aborted;
                    }
                    Move::End => prop_assert!(counts.canaries.is_over() && counts.others.is_over()),
                    Move::Expire => prop_assert!(false, "it has no time to pass"),
                    Move::Wait => {}
                }
            }
            // In any span as many as the rate allows in it, and what was made up for.
            if let Some(rate) = rules.rate {
                for (at, _) in &begun {
                    for (until, _) in begun.iter().filter(|(until, _)| until >= at) {
                        let count: u64 = begun.iter().filter(|(begun, _)| (at..=until).contains(&begun)).map(|(_, count)| count).sum();
                        let most = rate.commands(until - at + CATCH_UP.as_micros() as i64) + 2;
                        prop_assert!(count <= most, "{count} in {} of {most}", until - at);
                    }
                }
            }
        }

        #[test]
        fn a_job_that_nobody_holds_comes_to_its_end(devices in 1_u64..300, canaries in 0_u64..20, rate in prop::option::of(60_u32..100_000)) {
            let rules = Rules { rate: rate.and_then(Rate::new), abort: None, expires_at: None };
            let mut counts = Counts::default();
            counts.canaries.waiting = canaries.min(devices);
            counts.others.waiting = devices - counts.canaries.waiting;
            let mut standing = Standing { state: JobState::Running, passed: canaries == 0, next_at: None, room: 7 };
            for look in 0..1000 {
                match decide(&rules, &counts, &standing, UtcMicros(look * 1_000_000)) {
                    Move::Begin { count, next_at } => {
                        let of_canaries = count.min(counts.canaries.waiting);
                        counts.canaries.waiting -= of_canaries;
                        counts.canaries.succeeded += of_canaries;
                        counts.others.waiting -= count - of_canaries;
                        counts.others.succeeded += count - of_canaries;
                        standing.next_at = next_at;
                    }
                    Move::Pass => standing.passed = true,
                    Move::End => return Ok(()),
                    other => prop_assert_eq!(other, Move::Wait),
                }
            }
            prop_assert!(false, "it never ends");
        }
    }
}
