//! A publish of tidegate's own whose fate matters, and the broker's answer to it.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// A message at QoS 1, and who is told what became of it. Where a connection ends before the answer, the next one
/// publishes it again.
#[derive(Debug)]
pub struct Parcel {
    pub topic: String,
    /// Empty, and retained: clears the topic.
    pub payload: Bytes,
    pub retain: bool,
    /// User properties (MQTT 5, 3.3.2.3.7); MQTT 3.1.1 has none.
    pub properties: Vec<(String, String)>,
    pub delivery: Delivery,
    /// Dropped without a word where nothing is published any more.
    pub answer: oneshot::Sender<Answer>,
}

/// What is asked of a publish besides; by default nothing.
#[derive(Clone, Debug, Default)]
pub struct Delivery {
    /// From then on it is not sent any more, and on MQTT 5 the broker does not deliver it (MQTT 5, 3.3.2.3.3; whole seconds,
    /// rounded up).
    pub expires: Option<Instant>,
    /// MQTT 5, 3.3.2.3.5; left out on MQTT 3.1.1.
    pub response_topic: Option<String>,
    /// MQTT 5, 3.3.2.3.6; left out on MQTT 3.1.1.
    pub correlation: Option<Bytes>,
    /// Not sent again where a connection ends before the broker has answered: refused as `connection_lost`.
    pub once: bool,
    /// Whether the answer is [`Answer::Traced`] rather than [`Answer::Taken`].
    pub traced: bool,
}

impl Delivery {
    /// What is left until it expires, whole seconds, at least one; none: it does not.
    pub(crate) fn expiry_seconds(&self, now: Instant) -> Option<u32> {
        let left = self.expires?.saturating_duration_since(now);
        let up = left.as_secs().saturating_add(u64::from(left.subsec_nanos() > 0));
        Some(u32::try_from(up).unwrap_or(u32::MAX).max(1))
    }

    /// Whether its time has passed.
    pub(crate) fn is_late(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires.saturating_duration_since(now) == Duration::ZERO)
    }
}

impl Parcel {
    /// Fixed header, lengths and packet id of a PUBLISH, bytes at most (MQTT 5, 3.3).
    const FRAME: usize = 16;
    /// Identifier and lengths of one user property, bytes.
    const PROPERTY_FRAME: usize = 5;

    /// What the packet may take, bytes; a little more than it does.
    pub(super) fn packet_size(&self) -> usize {
        let property = |(key, value): &(String, String)| key.len() + value.len() + Self::PROPERTY_FRAME;
        let properties: usize = self.properties.iter().map(property).sum();
        let response = self.delivery.response_topic.as_ref().map_or(0, |topic| topic.len() + Self::PROPERTY_FRAME);
        let correlation = self.delivery.correlation.as_ref().map_or(0, |data| data.len() + Self::PROPERTY_FRAME);
        // A message expiry takes five bytes.
        let delivery = response + correlation + Self::PROPERTY_FRAME;
        Self::FRAME + self.topic.len() + properties + delivery + self.payload.len()
    }

    /// Whether it could be sent at all; `max_packet`: what the broker takes, bytes.
    ///
    /// # Errors
    /// The reason, as metrics have it.
    pub(super) fn check(&self, max_packet: Option<usize>) -> Result<(), &'static str> {
        let topic = &self.topic;
        if topic.is_empty() || topic.len() > usize::from(u16::MAX) || topic.contains(['+', '#', '\0']) {
            return Err("topic_name_invalid");
        }
        if max_packet.is_some_and(|most| self.packet_size() > most) {
            return Err("packet_too_large");
        }
        Ok(())
    }
}

/// Reasons with which the broker refuses for now only (MQTT 5, 3.4.2.1), and the session's own.
pub(crate) const PASSING: [&str; 4] =
    ["quota_exceeded", "unspecified_error", "implementation_specific_error", "packet_identifier_in_use"];

/// What the broker says of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Taken,
    /// It has taken one that is [`Delivery::traced`].
    Traced {
        /// The broker says that nobody is subscribed (MQTT 5, 3.4.2.1, No matching subscribers); not every broker does.
        unheard: bool,
        /// It went out on more than one connection, so that the broker may have it more than once.
        repeated: bool,
    },
    /// With the reason, as metrics have it (MQTT 5, 3.4.2.1); MQTT 3.1.1 can't refuse.
    Refused(&'static str),
}
