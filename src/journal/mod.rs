//! The durable log of messages: append, group commit, read from a position, trim.

mod inbox;

pub use inbox::{Bounds, Inbox, Refused, Submission};

/// Which acknowledgement a durable message releases; meaning is the acknowledger's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// Told, on the journal's thread, that messages are durable: in the order in which they were submitted.
pub trait Acknowledge: Send + Sync {
    /// Must not block.
    fn durable(&self, tokens: &[Token]);
}
