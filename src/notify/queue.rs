//! What is still to be told by one channel, when, and what became of an attempt. Pure.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::notice::{Key, Notice};
use crate::config::Notify;
use crate::message::Seq;
use crate::time::UtcMicros;

/// Longest wait between two attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// What is to be told.
#[derive(Clone, Debug)]
pub struct Due {
    pub notice: Notice,
    /// Made before.
    pub attempts: u32,
    pub at: Instant,
}

/// What became of a notice by one channel so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    Sent,
    /// It failed for this reason, and is tried again then.
    Pending {
        error: String,
        next_at: UtcMicros,
    },
    /// It failed for this reason, and is given up.
    Dead {
        error: String,
    },
}

impl Fate {
    /// As the database has it: the state, when it is due, and what went wrong.
    pub fn in_words(&self, at: UtcMicros) -> (&'static str, UtcMicros, Option<&str>) {
        match self {
            Fate::Sent => ("sent", at, None),
            Fate::Pending { error, next_at } => ("pending", *next_at, Some(error)),
            Fate::Dead { error } => ("dead", at, Some(error)),
        }
    }
}

/// To be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub key: Key,
    /// Name.
    pub channel: Arc<str>,
    /// Made so far.
    pub attempts: u32,
    pub fate: Fate,
    pub at: UtcMicros,
    /// Of the notice.
    pub seq: Seq,
}

/// The queue of one channel; one attempt at a time.
pub(super) struct Queue {
    waiting: VecDeque<Due>,
    /// Of what waits or is under way.
    known: HashSet<Key>,
    busy: bool,
}

impl Queue {
    /// Notices at most; the database has the others.
    pub(super) const MOST: usize = 1000;

    pub(super) fn new() -> Queue {
        Queue { waiting: VecDeque::new(), known: HashSet::new(), busy: false }
    }

    pub(super) fn has_room(&self) -> bool {
        self.known.len() < Self::MOST
    }

    /// How many wait or are under way.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// False: there is no room, or it is there already.
    pub(super) fn put(&mut self, due: Due) -> bool {
        if !self.has_room() || !self.known.insert(due.notice.key()) {
            return false;
        }
        self.waiting.push_back(due);
        true
    }

    /// The first whose time has come, unless an attempt is under way.
    pub(super) fn begin(&mut self, now: Instant) -> Option<Due> {
        if self.busy {
            return None;
        }
        let place = self.waiting.iter().position(|due| due.at <= now)?;
        self.busy = true;
        self.waiting.remove(place)
    }

    /// When the next attempt may begin; none: nothing waits, or one is under way.
    pub(super) fn next_at(&self) -> Option<Instant> {
        if self.busy {
            return None;
        }
        self.waiting.iter().map(|due| due.at).min()
    }

    /// The attempt under way has ended. Returns how long the next waits; none: there is none, and the notice is forgotten.
    pub(super) fn end(&mut self, due: Due, failed: Option<bool>, notify: &Notify, now: Instant) -> Option<Duration> {
        self.busy = false;
        let attempts = due.attempts.saturating_add(1);
        let again = failed.is_some_and(|lasting| !lasting && attempts < notify.attempts);
        if !again {
            self.known.remove(&due.notice.key());
            return None;
        }
        let doubled = 1_u32.checked_shl(due.attempts).unwrap_or(u32::MAX);
        let wait = notify.retry.saturating_mul(doubled).min(LONGEST_WAIT);
        self.waiting.push_back(Due { attempts, at: now + wait, ..due });
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{NotifyBy, Route};
    use crate::notify::notice::tests::notice;

    fn notify(attempts: u32) -> Notify {
        let by = NotifyBy::Command { program: vec!["x".to_owned()] };
        let (retry, timeout) = (Duration::from_secs(10), Duration::from_secs(1));
        Notify { name: "n".to_owned(), route: Some(Route::default()), limit: None, by, attempts, retry, timeout }
    }

    fn due(id: &str, at: Instant) -> Due {
        Due { notice: notice(id, 0), attempts: 0, at }
    }

    #[test]
    fn a_step_is_tried_with_growing_waits_until_it_is_given_up() {
        let (mut queue, start) = (Queue::new(), Instant::now());
        assert!(queue.put(due("a", start)) && !queue.put(due("a", start)), "it is there already");
        let mut now = start;
        for (attempts, wait) in [(0, 10), (1, 20), (2, 40)] {
            assert_eq!(queue.next_at(), Some(now));
            let first = queue.begin(now).unwrap();
            assert_eq!(first.attempts, attempts);
            assert!(queue.begin(now).is_none() && queue.next_at().is_none(), "one at a time");
            let wait = Duration::from_secs(wait);
            assert_eq!(queue.end(first, Some(false), &notify(4), now), Some(wait));
            assert!(queue.begin(now).is_none());
            now += wait;
        }
        let last = queue.begin(now).unwrap();
        assert_eq!(queue.end(last, Some(false), &notify(4), now), None);
        assert!(queue.len() == 0 && queue.next_at().is_none());
    }

    #[test]
    fn a_lasting_failure_ends_it_at_once_and_the_longest_wait_is_ten_minutes() {
        let (mut queue, now) = (Queue::new(), Instant::now());
        queue.put(due("a", now));
        let first = queue.begin(now).unwrap();
        assert_eq!(queue.end(first, Some(true), &notify(9), now), None);
        queue.put(Due { attempts: 40, ..due("b", now) });
        let later = queue.begin(now).unwrap();
        assert_eq!(queue.end(later, Some(false), &notify(99), now), Some(LONGEST_WAIT));
    }

    #[test]
    fn what_waits_for_its_time_holds_nothing_up_and_the_queue_is_bounded() {
        let (mut queue, now) = (Queue::new(), Instant::now());
        queue.put(due("later", now + Duration::from_secs(9)));
        queue.put(due("now", now));
        assert_eq!(&**queue.begin(now).unwrap().notice.id(), "now");
        let mut queue = Queue::new();
        for number in 0..Queue::MOST {
            assert!(queue.put(due(&number.to_string(), now)));
        }
        assert!(!queue.has_room() && !queue.put(due("more", now)));
    }
}
