//! Where a job and its executions are in their lives.

use crate::command::State;

/// A job's state, as its row has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobState {
    /// Commands are made, as fast as may be.
    Running,
    /// Nothing begins until somebody resumes it.
    Paused,
    /// Every execution has ended.
    Completed,
    /// Too many have failed; nothing more begins.
    Aborted,
    /// Somebody has taken it back; nothing more begins.
    Canceled,
    /// Its time had passed before all had begun; nothing more begins.
    Expired,
}

impl JobState {
    pub const ALL: [JobState; 6] = [
        JobState::Running,
        JobState::Paused,
        JobState::Completed,
        JobState::Aborted,
        JobState::Canceled,
        JobState::Expired,
    ];

    /// As in the database and in messages.
    pub const fn word(self) -> &'static str {
        match self {
            JobState::Running => "RUNNING",
            JobState::Paused => "PAUSED",
            JobState::Completed => "COMPLETED",
            JobState::Aborted => "ABORTED",
            JobState::Canceled => "CANCELED",
            JobState::Expired => "EXPIRED",
        }
    }

    /// The state of this name.
    pub fn of(word: &str) -> Option<JobState> {
        JobState::ALL.into_iter().find(|state| state.word() == word)
    }

    /// Whether more may begin, now or once it is resumed.
    pub const fn goes_on(self) -> bool {
        matches!(self, JobState::Running | JobState::Paused)
    }
}

/// What has become of a job on one device. It never leaves an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExecutionState {
    /// It has not begun, or its command has not been sent.
    Queued,
    /// Its command has been sent, and has not ended.
    InProgress,
    Succeeded,
    Failed,
    /// Nothing was heard of it in time, or it could not be sent in time.
    TimedOut,
    /// It is not valid for the device, or the device refuses it.
    Rejected,
    /// Somebody has taken it back, or the job has.
    Canceled,
}

impl ExecutionState {
    pub const ALL: [ExecutionState; 7] = [
        ExecutionState::Queued,
        ExecutionState::InProgress,
        ExecutionState::Succeeded,
        ExecutionState::Failed,
        ExecutionState::TimedOut,
        ExecutionState::Rejected,
        ExecutionState::Canceled,
    ];

    /// As in the database and in messages.
    pub const fn word(self) -> &'static str {
        match self {
            ExecutionState::Queued => "QUEUED",
            ExecutionState::InProgress => "IN_PROGRESS",
            ExecutionState::Succeeded => "SUCCEEDED",
            ExecutionState::Failed => "FAILED",
            ExecutionState::TimedOut => "TIMED_OUT",
            ExecutionState::Rejected => "REJECTED",
            ExecutionState::Canceled => "CANCELED",
        }
    }

    /// The state of this name.
    pub fn of(word: &str) -> Option<ExecutionState> {
        ExecutionState::ALL.into_iter().find(|state| state.word() == word)
    }

    /// Whether nothing comes after it.
    pub const fn is_end(self) -> bool {
        !matches!(self, ExecutionState::Queued | ExecutionState::InProgress)
    }

    /// Whether it counts against the job.
    pub const fn is_failure(self) -> bool {
        matches!(self, ExecutionState::Failed | ExecutionState::TimedOut | ExecutionState::Rejected)
    }

    /// What a command's state makes of its execution; `ended`: nothing comes after that state; `by_version`: only the version that the
    /// device reports shows that it is done, so that neither the device's word nor its silence ends it.
    pub const fn of_command(state: State, ended: bool, by_version: bool) -> ExecutionState {
        match state {
            State::Queued => ExecutionState::Queued,
            State::Delivered => ExecutionState::InProgress,
            State::Sent if !ended => ExecutionState::InProgress,
            // Nothing can say more.
            State::Sent | State::Succeeded | State::TimedOut if by_version => ExecutionState::InProgress,
            State::Sent | State::Succeeded => ExecutionState::Succeeded,
            State::Failed => ExecutionState::Failed,
            State::Rejected => ExecutionState::Rejected,
            State::Expired | State::TimedOut => ExecutionState::TimedOut,
            State::Cancelled => ExecutionState::Canceled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_found_by_its_word() {
        assert!(JobState::ALL.iter().all(|state| JobState::of(state.word()) == Some(*state)));
        assert!(ExecutionState::ALL.iter().all(|state| ExecutionState::of(state.word()) == Some(*state)));
        assert_eq!((JobState::of("DONE"), ExecutionState::of("succeeded")), (None, None));
        assert_eq!(ExecutionState::ALL.iter().filter(|state| state.is_end()).count(), 5);
        assert_eq!(JobState::ALL.iter().filter(|state| state.goes_on()).count(), 2);
    }

    #[test]
    fn an_execution_ends_with_its_command() {
        for state in State::ALL {
            let of = ExecutionState::of_command(state, state.is_end(), false);
            assert_eq!(of.is_end(), state.is_end(), "{state:?}");
        }
        assert_eq!(ExecutionState::of_command(State::Sent, true, false), ExecutionState::Succeeded);
    }

    #[test]
    fn a_firmware_execution_waits_for_the_version() {
        for state in [State::Sent, State::Succeeded, State::TimedOut] {
            assert_eq!(ExecutionState::of_command(state, true, true), ExecutionState::InProgress);
        }
        for state in [State::Failed, State::Rejected, State::Expired, State::Cancelled] {
            assert!(ExecutionState::of_command(state, true, true).is_end());
        }
    }
}
