//! Who is told of alerts beside MQTT's subscribers: channels, each with a queue of its own.
//!
//! **At least once**: which steps go by which channel is recorded in the transaction of the steps themselves, so none is forgotten;
//! one whose attempt was under way in a crash is told again. While the database is away they go out from memory.

mod channel;
mod command;
pub mod dispatch;
mod email;
pub mod hours;
mod http;
mod notice;
mod notifier;
pub mod on_call;
mod queue;
mod syslog;
pub mod template;
mod topic;
mod webhook;

use std::sync::Arc;

pub use channel::{Channel, Failure};
pub use notice::{Digest, Escalated, Key, Notice, Subject};
pub use notifier::{Notifier, NotifyRecord, Recorded, Waiting};
pub use queue::{Due, Fate, Outcome};

/// That something is to be told by a channel; recorded with the message that brought it about.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    pub notice: Notice,
    /// Name of the channel.
    pub channel: Arc<str>,
}

/// What deciding who is told remembers, to be kept beside the position. None: nothing any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryChange {
    pub key: String,
    /// JSON.
    pub value: Option<String>,
}
