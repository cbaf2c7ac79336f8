//! Twins: what a device is to be (`desired`), what it says it is (`reported`), and what of the one is not yet the other (`delta`).
//!
//! Whoever asks changes the row of `device_twins`: a person or a program there and then, a message by way of the journal
//! ([`hearing`]), recorded with the position. What becomes of it is worked out by [`state`] and [`document`], which know nothing else. The
//! [`publisher`] tells the broker what the database holds as not yet told.

pub mod answer;
pub mod document;
pub mod hearing;
pub mod native;
pub mod publisher;
pub mod refusal;
pub mod shadow;
pub mod state;

pub use hearing::Hearing;
pub use refusal::{Reason, Refused};

use std::sync::Arc;

use crate::command::ReplyTo;
use crate::time::UtcMicros;
use state::{Expected, Measured, Update};

/// What is subscribed to, whatever the sources are.
pub const FILTERS: [&str; 3] = [native::REPORTED, native::GET, native::REQUESTS];
/// Most bytes of the name of a twin beside the device's own.
pub const MAX_NAME: usize = 64;
/// Twins that a device may have beside its own.
pub const MAX_NAMED: usize = 16;
/// Most bytes that the database takes of a document, whatever `twins.max_size` says.
pub const MAX_DOCUMENT: usize = 1 << 20;

/// What a document may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of JSON.
    pub max_size: usize,
    /// Objects and arrays in one another.
    pub max_depth: usize,
}

/// Something asked of a device's twin by a message.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// None: the topic names none; see [`native`].
    pub tenant: Option<Arc<str>>,
    pub device: Arc<str>,
    /// Empty: the device's own twin.
    pub name: Arc<str>,
    pub at: UtcMicros,
    pub limits: Limits,
    pub want: Want,
    pub answer: Answer,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Want {
    /// Only the answer.
    Get,
    /// That the retained messages are published once more.
    Tell,
    Update(Update),
    Delete(Option<Expected>),
    Measure(Vec<Measured>),
    /// What can't be done, for this reason, and is answered.
    Nothing(Refused),
}

/// How whoever asks hears of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Answer {
    #[default]
    Nobody,
    Reply(ReplyTo),
    /// On the topics of AWS IoT's shadows.
    Shadow {
        token: Option<String>,
        action: shadow::Action,
    },
}

impl Ask {
    /// What it takes in memory beside what it is made of, bytes about.
    pub const WEIGHT: usize = 256;
}

/// As times of documents have it.
pub fn seconds(at: UtcMicros) -> i64 {
    at.0.div_euclid(1_000_000)
}

/// Whether it is one of [`FILTERS`] or of [`shadow::FILTERS`].
pub fn is_filter(filter: &str) -> bool {
    FILTERS.contains(&filter) || shadow::FILTERS.contains(&filter)
}

/// Whether a text can be the name of a twin beside the device's own: 1 to [`MAX_NAME`] of `A-Z a-z 0-9 : _ -`.
pub fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'_' | b'-');
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(allowed)
}
