//! Who is told of alerts beside MQTT's subscribers: channels, each with a queue of its own.
//!
//! **At least once**: which steps go by which channel is recorded in the transaction of the steps themselves, so none is forgotten;
//! one whose attempt was under way in a crash is told again. While the database is away they go out from memory.

mod channel;
mod command;
mod email;
mod http;
mod notifier;
mod queue;
mod syslog;
pub mod template;
mod topic;
mod webhook;

use std::sync::Arc;

pub use channel::{Channel, Failure};
pub use notifier::{Notifier, NotifyRecord, Recorded};
pub use queue::{Due, Fate, Outcome};

/// That a step is to be told by a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The alert's id.
    pub id: Arc<str>,
    pub step: u32,
    /// Name of the channel.
    pub channel: Arc<str>,
}
