//! Which groups may go, and when.

use std::time::{Duration, Instant};

use super::JournalError;
use super::file::{Extent, JournalFile, Synchronous};
use super::group::MAX_BYTES;
use super::redelivery::Redeliveries;
use crate::crash;
use crate::message::Seq;
use crate::time::UtcMicros;

/// Most groups deleted in one step, and the bytes at which it ends.
const STEP_GROUPS: i64 = 64;
const STEP_BYTES: u64 = 8 << 20;
/// Rest after a step that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// The groups that the file holds, by their ends, and the rules by which the oldest leave.
///
/// A group whose last message is committed to the database goes once it is older than `retain`; under pressure, when
/// new messages would pass `max_size`, at once. Two things stay: the newest group, which tells the next start
/// where positions go on, and (but under pressure, when a trace of each does for it) what redeliveries are recognised by.
pub(super) struct Holdings {
    pub newest: Option<Extent>,
    oldest: Option<Extent>,
    max_size: u64,
    retain: Duration,
    rest_until: Option<Instant>,
}

/// What the rules need to know beside the groups.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// The database has everything up to here.
    pub committed: Seq,
    /// From here on redeliveries are recognised.
    pub remembered: Option<Seq>,
    pub now: UtcMicros,
    /// Bytes that should be free under `max_size`.
    pub wanted: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Delete,
    Later(Duration),
    /// Until something is committed or appended.
    Keep,
}

impl Holdings {
    pub fn recover(file: &mut JournalFile, max_size: u64, retain: Duration) -> Result<Holdings, JournalError> {
        let newest = file.newest()?;
        let oldest = file.oldest(1)?.pop();
        Ok(Holdings { newest, oldest, max_size, retain, rest_until: None })
    }

    /// Bytes of the groups held.
    pub fn bytes(&self) -> u64 {
        match (&self.oldest, &self.newest) {
            (Some(oldest), Some(newest)) => {
                newest.bytes_to.saturating_sub(oldest.bytes_to).saturating_add(oldest.bytes)
            }
            _ => 0,
        }
    }

    pub fn appended(&mut self, extent: Extent) {
        self.newest = Some(extent);
        self.oldest.get_or_insert(extent);
    }

    /// True at the size limit, unless all that is left is the newest group, and that is committed.
    pub fn is_full(&self, committed: Seq) -> bool {
        let only_newest = self.oldest == self.newest && self.newest.is_none_or(|newest| newest.last <= committed);
        self.bytes() >= self.max_size && !only_newest
    }

    /// Room kept free under the limit, so that a group need not wait for trimming.
    pub fn headroom(&self) -> u64 {
        (self.max_size / 8).min(2 * MAX_BYTES as u64)
    }

    /// How long until a step would delete something; none: not before something is committed or appended.
    pub fn due(&self, moment: Moment) -> Option<Duration> {
        let wait = match self.verdict(self.oldest.as_ref()?, self.bytes(), moment) {
            Verdict::Delete => Duration::ZERO,
            Verdict::Later(wait) => wait,
            Verdict::Keep => return None,
        };
        let rest = self.rest_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
        Some(wait.max(rest))
    }

    /// Deletes a few of the oldest groups that may go. False: none may.
    ///
    /// It does not wait for the disk: a deletion that a power cut undoes is done again.
    pub fn step(
        &mut self,
        file: &mut JournalFile,
        moment: Moment,
        redeliveries: &Redeliveries,
        then: Synchronous,
    ) -> Result<bool, JournalError> {
        let Some(oldest) = self.oldest else { return Ok(false) };
        if self.verdict(&oldest, self.bytes(), moment) != Verdict::Delete {
            return Ok(false);
        }
        let outcome = self.delete(file, moment, redeliveries, then);
        self.rest_until = if outcome.is_err() { Instant::now().checked_add(AFTER_FAILURE) } else { None };
        outcome
    }

    fn delete(
        &mut self,
        file: &mut JournalFile,
        moment: Moment,
        redeliveries: &Redeliveries,
        then: Synchronous,
    ) -> Result<bool, JournalError> {
        let groups = file.oldest(STEP_GROUPS)?;
        let mut held = self.bytes();
        let mut deleted = 0_u64;
        let mut cut = None;
        for group in &groups {
            if deleted >= STEP_BYTES || self.verdict(group, held, moment) != Verdict::Delete {
                break;
            }
            held = held.saturating_sub(group.bytes);
            deleted = deleted.saturating_add(group.bytes);
            cut = Some(group);
        }
        let Some(&Extent { first: cut, last, .. }) = cut else {
            self.oldest = groups.into_iter().next();
            return Ok(false);
        };
        let from = groups.first().map_or(cut, |oldest| oldest.first);
        let traces = redeliveries.traces(from..=last);
        file.set_synchronous(Synchronous::Normal)?;
        crash::point("journal.before_trim");
        let outcome = file.delete_through(cut, &traces, moment.remembered);
        crash::point("journal.after_trim");
        file.set_synchronous(then)?;
        outcome?;
        self.oldest = match groups.into_iter().find(|group| group.first > cut) {
            Some(group) => Some(group),
            None => file.oldest(1)?.pop(),
        };
        tracing::debug!(through = cut, bytes = deleted, "trimmed the journal");
        Ok(true)
    }

    fn verdict(&self, group: &Extent, held: u64, moment: Moment) -> Verdict {
        let is_newest = self.newest.is_none_or(|newest| newest.first <= group.first);
        if is_newest || group.last > moment.committed {
            return Verdict::Keep;
        }
        if held.saturating_add(moment.wanted) > self.max_size {
            return Verdict::Delete;
        }
        if moment.remembered.is_some_and(|remembered| group.last >= remembered) {
            return Verdict::Keep;
        }
        let age = moment.now.0.saturating_sub(group.received_to.0);
        match self.retain.checked_sub(Duration::from_micros(u64::try_from(age).unwrap_or(0))) {
            None | Some(Duration::ZERO) => Verdict::Delete,
            Some(left) => Verdict::Later(left),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(first: Seq, last: Seq, received_to: i64) -> Extent {
        let received = UtcMicros(received_to);
        Extent {
            first,
            last,
            received_from: received,
            received_to: received,
            messages_to: last,
            bytes: 10,
            bytes_to: last * 10,
        }
    }

    fn holdings(retain: Duration) -> Holdings {
        let (oldest, newest) = (Some(group(1, 1, 0)), Some(group(9, 9, 8)));
        Holdings { newest, oldest, max_size: 100, retain, rest_until: None }
    }

    fn moment(committed: Seq) -> Moment {
        Moment { committed, remembered: None, now: UtcMicros(1_000_000), wanted: 0 }
    }

    #[test]
    fn only_committed_groups_older_than_retain_go() {
        let holdings = holdings(Duration::from_secs(2));
        assert_eq!(holdings.verdict(&group(2, 4, 0), 90, moment(3)), Verdict::Keep);
        assert_eq!(holdings.verdict(&group(2, 4, 0), 90, moment(4)), Verdict::Later(Duration::from_secs(1)));
        assert_eq!(holdings.verdict(&group(2, 4, -1_000_000), 90, moment(4)), Verdict::Delete);
    }

    #[test]
    fn committed_groups_give_way_to_new_messages_and_uncommitted_ones_do_not() {
        let holdings = holdings(Duration::from_secs(1000));
        let pressed = Moment { wanted: 20, remembered: Some(2), ..moment(4) };
        assert_eq!(holdings.verdict(&group(2, 4, 0), 90, pressed), Verdict::Delete);
        assert_eq!(holdings.verdict(&group(5, 6, 0), 90, pressed), Verdict::Keep);
    }

    #[test]
    fn the_newest_group_and_what_redeliveries_need_stay() {
        let holdings = holdings(Duration::ZERO);
        assert_eq!(holdings.verdict(&group(9, 9, 0), 90, moment(9)), Verdict::Keep);
        let remembered = Moment { remembered: Some(4), ..moment(9) };
        assert_eq!(holdings.verdict(&group(2, 4, 0), 90, remembered), Verdict::Keep);
        assert_eq!(holdings.verdict(&group(2, 3, 0), 90, remembered), Verdict::Delete);
    }
}
