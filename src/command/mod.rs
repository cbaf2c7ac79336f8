//! Commands: what devices are told to do, and what became of it.
//!
//! Whoever asks makes a row of `device_commands` (a command line, an `INSERT`, a request by MQTT by way of the journal). The
//! [`courier`] looks through it, sends it and waits; what devices answer comes by the journal ([`hearing`]) and is recorded with the
//! position. How a command looks on the wire, and which message settles it, is data of the device's template ([`dialect`]).

pub mod admission;
pub mod answer;
pub mod check;
pub mod courier;
pub mod dialect;
pub mod hearing;
pub mod ident;
pub mod path;
pub mod request;
pub mod sparkplug;
pub mod state;
pub mod text;
pub mod topic;

#[cfg(test)]
mod dialects;

pub use dialect::{Dialect, Outgoing, Response};
pub use hearing::Hearing;
pub use state::{Outcome, State};

use bytes::Bytes;

use crate::time::UtcMicros;

/// What is subscribed to, whatever the templates say.
pub const FILTERS: [&str; 2] = [request::FILTER, answer::FILTER];
/// Most bytes of a command's id, which becomes a topic's level.
pub const MAX_ID: usize = 64;
/// Most bytes of a command's parameters or of its result that the database takes, whatever `commands.max_params` and
/// `commands.max_result` say.
pub const MAX_DOCUMENT: usize = 1 << 20;
/// Most bytes of a response topic and of correlation data that are kept.
pub const MAX_REPLY: usize = 4096;
/// Steps of a command after which answers that change nothing are not added to its story any more.
pub const MAX_REMARKS: i32 = 64;

/// What somebody wants a device to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    pub id: String,
    pub tenant: String,
    pub device: String,
    pub name: String,
    /// JSON; checked against the template when it is admitted.
    pub params: String,
    /// The higher goes first.
    pub priority: i32,
    pub at: UtcMicros,
    /// None: as the template or `commands.expires` says.
    pub expires_at: Option<UtcMicros>,
    pub who: Option<String>,
    /// By which way: `cli`, `sql`, `mqtt`, `http`.
    pub via: &'static str,
    pub reply: Option<ReplyTo>,
    /// Why it can't be carried out, where that is seen at once.
    pub refused: Option<String>,
}

/// Where whoever asked wants to hear of it (MQTT 5, 4.10).
#[derive(Clone, Debug, PartialEq)]
pub struct ReplyTo {
    pub topic: String,
    pub correlation: Option<Bytes>,
}

/// Whether a text can be a command's id: 1 to [`MAX_ID`] of `A-Z a-z 0-9 _ . -`.
pub fn is_id(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (1..=MAX_ID).contains(&text.len()) && text.bytes().all(allowed)
}

/// Whether it is one of [`FILTERS`].
pub fn is_filter(filter: &str) -> bool {
    FILTERS.contains(&filter)
}

/// A new id: 32 random hexadecimal digits.
pub fn new_id() -> String {
    format!("{:032x}", fastrand::u128(..))
}

/// Whether a text can stand for one level of a topic that is published to (MQTT 5, 4.7.1, 4.7.3).
pub fn is_level(text: &str) -> bool {
    !text.is_empty() && !text.contains(['/', '+', '#', '\0'])
}
