//! One device's connection: what it is, what was before, and whether it flaps.

use serde::{Deserialize, Serialize};

/// What is known of a connection. A device that was never heard has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Online,
    Offline,
    /// Silent for longer than is to be expected.
    Stale,
    /// Its gateway is away.
    Unreachable,
}

impl Status {
    /// As the tables and people have it.
    pub fn word(self) -> &'static str {
        match self {
            Status::Online => "online",
            Status::Offline => "offline",
            Status::Stale => "stale",
            Status::Unreachable => "unreachable",
        }
    }

    /// Whether what is behind such a device can't be reached.
    pub(super) fn cuts_off(self) -> bool {
        matches!(self, Status::Offline | Status::Unreachable)
    }
}

/// From how many changes on a device flaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damping {
    /// More than so many …
    pub changes: usize,
    /// … within so many microseconds.
    pub window: i64,
}

/// What becomes of a change in the device's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// An event.
    Changed,
    /// The one event for all changes to come.
    Flapping,
    /// Nothing: it flaps already, or is shown as before.
    Quiet,
}

/// What is remembered of a device's connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Connection {
    /// By what the device and those who speak for it said last, and by its silence; never unreachable.
    own: Status,
    /// Its gateway is away, and it was not heard since.
    cut_off: bool,
    /// From when on silence counts at the earliest, microseconds.
    from: i64,
    /// When it changed last, the oldest first; one more than makes it flap at most.
    changes: Vec<i64>,
    flapping: bool,
}

impl Connection {
    /// Of a device that is heard for the first time, or spoken of.
    pub(super) fn begin(online: bool, at: i64) -> Connection {
        let own = if online { Status::Online } else { Status::Offline };
        Connection { own, cut_off: false, from: at, changes: vec![at], flapping: false }
    }

    pub(super) fn shown(&self) -> Status {
        if self.cut_off { Status::Unreachable } else { self.own }
    }

    /// Whether a sign of life changes nothing.
    pub(super) fn is_plainly_online(&self) -> bool {
        self.own == Status::Online && !self.cut_off
    }

    pub(super) fn is_cut_off(&self) -> bool {
        self.cut_off
    }

    /// Whether it goes with its gateway.
    pub(super) fn depends(&self) -> bool {
        !self.cut_off && self.own != Status::Offline
    }

    /// It was heard, or is said to be there or not.
    pub(super) fn say(&mut self, online: bool, at: i64, damping: Damping) -> Option<Told> {
        let (before, own) = (self.shown(), self.own);
        if !online {
            self.own = Status::Offline;
        } else if !self.is_plainly_online() {
            (self.own, self.cut_off) = (Status::Online, false);
            self.from = self.from.max(at);
        }
        // What its gateway hides must be remembered all the same.
        self.settle(before, at, damping).or_else(|| (self.own != own).then_some(Told::Quiet))
    }

    /// Nothing was heard for too long.
    pub(super) fn fall_silent(&mut self, at: i64, damping: Damping) -> Option<Told> {
        let before = self.shown();
        self.own = Status::Stale;
        self.settle(before, at, damping)
    }

    /// Its gateway is away, or back: then silence counts from there.
    pub(super) fn cut(&mut self, off: bool, at: i64, damping: Damping) -> Option<Told> {
        let before = self.shown();
        self.cut_off = off;
        if !off {
            self.from = self.from.max(at);
        }
        self.settle(before, at, damping)
    }

    /// When silence since `heard` becomes stale, if it goes on.
    pub(super) fn silent_at(&self, heard: i64, interval: Option<i64>) -> Option<i64> {
        let interval = interval.filter(|_| self.is_plainly_online())?;
        Some(heard.max(self.from).saturating_add(interval))
    }

    /// When it is steady again, if it changes no more.
    pub(super) fn steady_at(&self, damping: Damping) -> Option<i64> {
        let last = self.changes.last().filter(|_| self.flapping)?;
        Some(last.saturating_add(damping.window))
    }

    pub(super) fn steady(&mut self) {
        self.flapping = false;
        self.changes.clear();
    }

    fn settle(&mut self, before: Status, at: i64, damping: Damping) -> Option<Told> {
        if self.shown() == before {
            return None;
        }
        self.changes.retain(|change| at.saturating_sub(*change) < damping.window);
        self.changes.push(at);
        let over = self.changes.len().saturating_sub(damping.changes.saturating_add(1));
        self.changes.drain(..over);
        if self.flapping {
            return Some(Told::Quiet);
        }
        if self.changes.len() > damping.changes {
            self.flapping = true;
            return Some(Told::Flapping);
        }
        Some(Told::Changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAMPING: Damping = Damping { changes: 3, window: 100 };

    #[test]
    fn what_is_known_already_is_no_change() {
        let mut connection = Connection::begin(true, 0);
        assert_eq!(connection.say(true, 1, DAMPING), None);
        assert_eq!(connection.say(false, 2, DAMPING), Some(Told::Changed));
        assert_eq!(connection.say(false, 3, DAMPING), None);
        assert_eq!(connection.shown(), Status::Offline);
    }

    #[test]
    fn a_device_that_is_offline_itself_does_not_go_with_its_gateway() {
        let mut connection = Connection::begin(false, 0);
        assert!(!connection.depends());
        connection.say(true, 1, DAMPING);
        assert!(connection.depends());
        assert_eq!(connection.cut(true, 2, DAMPING), Some(Told::Changed));
        assert_eq!(connection.say(false, 3, DAMPING), Some(Told::Quiet), "it stays unreachable");
        assert_eq!(connection.cut(false, 4, DAMPING), Some(Told::Flapping));
        assert_eq!(connection.shown(), Status::Offline);
    }

    #[test]
    fn silence_counts_from_the_gateways_return() {
        let mut connection = Connection::begin(true, 0);
        assert_eq!(connection.silent_at(5, Some(50)), Some(55));
        assert_eq!(connection.silent_at(5, None), None);
        connection.cut(true, 10, DAMPING);
        assert_eq!(connection.silent_at(5, Some(50)), None);
        connection.cut(false, 40, DAMPING);
        assert_eq!(connection.silent_at(5, Some(50)), Some(90));
    }

    #[test]
    fn too_many_changes_are_one_event_until_it_is_steady() {
        let mut connection = Connection::begin(true, 0);
        let mut say = |online, at| connection.say(online, at, DAMPING);
        assert_eq!(say(false, 1), Some(Told::Changed));
        assert_eq!(say(true, 2), Some(Told::Changed));
        assert_eq!(say(false, 3), Some(Told::Flapping));
        assert_eq!(say(true, 4), Some(Told::Quiet));
        assert_eq!(connection.steady_at(DAMPING), Some(104));
        connection.steady();
        assert_eq!((connection.steady_at(DAMPING), connection.shown()), (None, Status::Online));
        assert_eq!(connection.say(false, 105, DAMPING), Some(Told::Changed));
    }

    proptest! {
        #[test]
        fn what_is_remembered_is_bounded_and_flaps_are_told_once(
            steps in prop::collection::vec((0_u8..4, any::<bool>(), 0_i64..40), 0..200)
        ) {
            let (mut connection, mut at, mut told) = (Connection::begin(true, 0), 0, false);
            for (what, flag, later) in steps {
                at += later;
                if connection.steady_at(DAMPING).is_some_and(|due| due <= at) {
                    connection.steady();
                    told = false;
                }
                let before = connection.shown();
                let outcome = match what {
                    0 => connection.fall_silent(at, DAMPING),
                    1 => connection.cut(flag, at, DAMPING),
                    _ => connection.say(flag, at, DAMPING),
                };
                prop_assert!(outcome.is_some() || before == connection.shown());
                prop_assert!(outcome != Some(Told::Flapping) || !told);
                prop_assert!(outcome != Some(Told::Changed) || !told);
                told |= outcome == Some(Told::Flapping);
                prop_assert!(connection.changes.len() <= DAMPING.changes + 1);
            }
        }
    }
}
