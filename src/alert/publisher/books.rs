//! What the publisher and the database tell each other: which steps are published, and which are not.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::alert::Transition;
use crate::message::Seq;
use crate::store::{Store, StoreError};

/// A step of an alert: its id and the step's number.
pub type Key = (Arc<str>, u32);

/// What the publisher asks of the database; each call may take long.
pub trait Record: Send + Sync + 'static {
    /// These need not be published any more.
    ///
    /// # Errors
    /// [`StoreError`].
    fn mark_published(&self, steps: &[Key]) -> Result<(), StoreError>;

    /// The first `limit` steps that are not published, in the order of what happened.
    ///
    /// # Errors
    /// [`StoreError`].
    fn unpublished(&self, limit: usize) -> Result<Vec<Transition>, StoreError>;

    /// The newest step of each alert that is not resolved.
    ///
    /// # Errors
    /// [`StoreError`].
    fn active(&self) -> Result<Vec<Transition>, StoreError>;
}

/// The alerts of one instance, in its database.
pub struct Recorded {
    pub store: Store,
    pub instance: String,
}

impl Record for Recorded {
    fn mark_published(&self, steps: &[Key]) -> Result<(), StoreError> {
        self.store.mark_published(steps)
    }

    fn unpublished(&self, limit: usize) -> Result<Vec<Transition>, StoreError> {
        self.store.unpublished(&self.instance, limit)
    }

    fn active(&self) -> Result<Vec<Transition>, StoreError> {
        self.store.active_alerts(&self.instance)
    }
}

/// Steps that the broker has and the database does not know of yet. Bounded: what is forgotten is published once more after the
/// next start.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// With the message after which each came, in that order: before it is committed there is no row to mark. 0: there is.
    waiting: VecDeque<(Key, Seq)>,
    known: HashSet<Key>,
}

impl Marks {
    pub(super) const MOST: usize = 100_000;

    /// False: an older one was forgotten for it.
    pub(super) fn add(&mut self, key: Key, seq: Seq) -> bool {
        match self.known.insert(key.clone()) {
            true if seq == 0 => self.waiting.push_front((key, seq)),
            true => self.waiting.push_back((key, seq)),
            false => {}
        }
        let fits = self.waiting.len() <= Self::MOST;
        if !fits && let Some((oldest, _)) = self.waiting.pop_front() {
            self.known.remove(&oldest);
        }
        fits
    }

    pub(super) fn has(&self, key: &Key) -> bool {
        self.known.contains(key)
    }

    /// Up to `limit` of those whose rows are there, the database having everything up to `committed`.
    pub(super) fn due(&self, committed: Seq, limit: usize) -> Vec<Key> {
        let due = self.waiting.iter().take_while(|(_, seq)| *seq <= committed);
        due.take(limit).map(|(key, _)| key.clone()).collect()
    }

    pub(super) fn is_due(&self, committed: Seq) -> bool {
        self.waiting.front().is_some_and(|(_, seq)| *seq <= committed)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The database has them.
    pub(super) fn done(&mut self, keys: &[Key]) {
        let done: HashSet<&Key> = keys.iter().collect();
        self.waiting.retain(|(key, _)| !done.contains(key));
        for key in keys {
            self.known.remove(key);
        }
    }
}

/// Steps that the broker refused for good: they stay unpublished until the next start. Bounded by [`Refusals::MOST`] alerts.
#[derive(Debug, Default)]
pub(super) struct Refusals(HashMap<Arc<str>, Vec<u32>>);

impl Refusals {
    const MOST: usize = 10_000;

    pub(super) fn add(&mut self, id: &Arc<str>, step: u32) {
        if self.0.len() < Self::MOST || self.0.contains_key(id) {
            self.0.entry(Arc::clone(id)).or_default().push(step);
        }
    }

    pub(super) fn has(&self, key: &Key) -> bool {
        self.0.get(&key.0).is_some_and(|steps| steps.contains(&key.1))
    }

    pub(super) fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Takes the refused steps of an alert that come before `step`: with that published they are history.
    pub(super) fn take_before(&mut self, id: &Arc<str>, step: u32) -> Vec<u32> {
        let Some(steps) = self.0.get_mut(id) else { return Vec::new() };
        let (before, left) = std::mem::take(steps).into_iter().partition(|refused| *refused < step);
        *steps = left;
        if steps.is_empty() {
            self.0.remove(id);
        }
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str, step: u32) -> Key {
        (id.into(), step)
    }

    #[test]
    fn a_step_is_marked_only_once_its_message_is_committed() {
        let mut marks = Marks::default();
        assert!(marks.add(key("a", 0), 3) && marks.add(key("b", 0), 5) && marks.add(key("a", 0), 3));
        assert!(!marks.is_due(2));
        assert_eq!(marks.due(4, 10), [key("a", 0)]);
        assert_eq!(marks.due(5, 10), [key("a", 0), key("b", 0)]);
        assert_eq!(marks.due(5, 1), [key("a", 0)]);
        marks.done(&[key("a", 0)]);
        assert!(!marks.has(&key("a", 0)) && marks.has(&key("b", 0)));
        marks.add(key("swept", 0), 0);
        assert_eq!(marks.due(0, 10), [key("swept", 0)]);
        marks.done(&[key("b", 0), key("swept", 0)]);
        assert!(marks.is_empty());
    }

    #[test]
    fn marks_are_bounded_and_the_oldest_is_forgotten() {
        let mut marks = Marks::default();
        for step in 0..=u32::try_from(Marks::MOST).unwrap() {
            assert_eq!(marks.add(key("a", step), 1), step < u32::try_from(Marks::MOST).unwrap());
        }
        assert!(!marks.has(&key("a", 0)) && marks.has(&key("a", 1)));
    }

    #[test]
    fn refused_steps_are_history_once_a_later_one_is_published() {
        let mut refusals = Refusals::default();
        let id: Arc<str> = "a".into();
        for step in [0, 1, 3] {
            refusals.add(&id, step);
        }
        assert!(refusals.has(&key("a", 1)) && !refusals.has(&key("a", 2)));
        assert_eq!((refusals.take_before(&id, 2), refusals.len()), (vec![0, 1], 1));
        assert_eq!((refusals.take_before(&id, 9), refusals.len()), (vec![3], 0));
    }
}
