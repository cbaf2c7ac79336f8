//! Where a command is in its life.

/// A command's state, as its row has it. It never leaves an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Waits: for its turn, for the broker, or for the device.
    Queued,
    /// The broker has acknowledged it.
    Sent,
    /// The device or its protocol says that it has it.
    Delivered,
    /// The device says that it is done.
    Succeeded,
    /// The device says that it could not do it, or it can't be sent.
    Failed,
    /// It was never sent, since it is not valid; or the device refuses to do it.
    Rejected,
    /// Its time had passed before it could be sent.
    Expired,
    /// Somebody has taken it back.
    Cancelled,
    /// It was sent, and no answer came in time.
    TimedOut,
}

impl State {
    pub const ALL: [State; 9] = [
        State::Queued,
        State::Sent,
        State::Delivered,
        State::Succeeded,
        State::Failed,
        State::Rejected,
        State::Expired,
        State::Cancelled,
        State::TimedOut,
    ];

    /// As in the database and in messages.
    pub const fn word(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Sent => "sent",
            State::Delivered => "delivered",
            State::Succeeded => "succeeded",
            State::Failed => "failed",
            State::Rejected => "rejected",
            State::Expired => "expired",
            State::Cancelled => "cancelled",
            State::TimedOut => "timed_out",
        }
    }

    /// The state of this name.
    pub fn of(word: &str) -> Option<State> {
        State::ALL.into_iter().find(|state| state.word() == word)
    }

    /// Whether nothing comes after it.
    pub const fn is_end(self) -> bool {
        !matches!(self, State::Queued | State::Sent | State::Delivered)
    }
}

/// What a device says of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It has it, and is at it.
    InProgress,
    Succeeded,
    Failed,
    /// It will not do it.
    Rejected,
}

impl Outcome {
    pub const WORDS: [(&'static str, Outcome); 4] = [
        ("in_progress", Outcome::InProgress),
        ("succeeded", Outcome::Succeeded),
        ("failed", Outcome::Failed),
        ("rejected", Outcome::Rejected),
    ];

    /// As in a native answer.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::InProgress => "in_progress",
            Outcome::Succeeded => "succeeded",
            Outcome::Failed => "failed",
            Outcome::Rejected => "rejected",
        }
    }

    /// The state that a command gets by it.
    pub fn state(self) -> State {
        match self {
            Outcome::InProgress => State::Delivered,
            Outcome::Succeeded => State::Succeeded,
            Outcome::Failed => State::Failed,
            Outcome::Rejected => State::Rejected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_found_by_its_word_and_six_are_ends() {
        assert!(State::ALL.iter().all(|state| State::of(state.word()) == Some(*state)));
        assert_eq!(State::ALL.iter().filter(|state| state.is_end()).count(), 6);
        assert_eq!(State::of("done"), None);
        assert!(Outcome::WORDS.iter().all(|(word, outcome)| outcome.word() == *word));
    }
}
