//! Who is there: what is known of each device's connection, from what it and its broker say and from its silence. Pure but for
//! [`Watch`], which gives the journal's clock a tick when silence is due and nothing comes.
//!
//! - A device is `online` once it was heard, `offline` where its format, its will or its broker says so, `stale` after a silence
//!   longer than its template's `expected_interval` or `devices.stale_after`. Whatever is heard of it after that makes it
//!   online again.
//! - What is behind a gateway that is offline is `unreachable`, for as long as the gateway is away and it is not heard itself.
//! - Retained messages are no sign of life; what they say of a connection is taken, and changes nothing where it is known.
//! - A device that changes more than `devices.flapping_changes` times within `devices.flapping_window` gets one event `flapping`,
//!   and another once it has been steady for that long.
//! - `maintenance` and `retired` are people's words over that, see [`crate::store`]: here they are not known.

mod connection;
mod observer;
pub mod uptime;
mod watch;

pub use connection::{Damping, Status};
pub use observer::{Before, Observer, Remembered};
pub use watch::Watch;

use std::sync::Arc;

use crate::decode::Presence;
use crate::store::batch::DeviceIndex;
use crate::time::UtcMicros;

/// What one message tells of one device's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    pub device: DeviceIndex,
    /// Whether the message is a sign of life, unless it says otherwise.
    pub heard: bool,
    pub said: Option<Presence>,
}

/// A change of what is known of a device's connection, to be committed.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionChange {
    pub tenant: Arc<str>,
    /// Uid.
    pub device: Arc<str>,
    pub at: UtcMicros,
    pub status: Status,
    /// For people.
    pub cause: String,
    /// What its history has of it: the status's word, or `flapping`; none where the device flaps already.
    pub event: Option<&'static str>,
    /// What is remembered of the device from now on; JSON.
    pub memory: String,
}
