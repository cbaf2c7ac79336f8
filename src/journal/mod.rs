//! The durable log of messages: append, group commit, read from a position, trim.
//!
//! A SQLite file, `journal.db` in the state directory. Sessions submit to the [`Inbox`]; one thread runs
//! [`Journal::run`]; the pipeline reads by [`Reader`]; the writer reports by [`Progress`] how far the database has it.

mod inbox;
mod error;
mod frame;
mod file;
mod corrupt;
mod place;
mod wal;
mod redelivery;
mod group;
mod tail;
mod trim;
mod progress;
mod writer;
mod reader;
mod status;
mod archive;
#[cfg(test)]
pub(crate) mod testing;

pub use archive::Archive;
pub use error::JournalError;
pub use inbox::{Bounds, Inbox, Refused, Submission};
pub use progress::{Health, Progress, State};
pub use reader::{Next, Reader};
pub use status::{Edge, Status, status};
pub use writer::{Journal, Options};

/// Name of the journal's file in the state directory.
pub const FILE_NAME: &str = "journal.db";

/// Which acknowledgement a durable message releases; meaning is the acknowledger's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// Told, on the journal's thread, that messages are durable: in the order in which they were submitted.
pub trait Acknowledge: Send + Sync {
    /// Must not block.
    fn durable(&self, tokens: &[Token]);
}
