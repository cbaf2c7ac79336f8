//! A publish of tidegate's own whose fate matters, and the broker's answer to it.

use bytes::Bytes;
use tokio::sync::oneshot;

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
    /// Dropped without a word where nothing is published any more.
    pub answer: oneshot::Sender<Answer>,
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
        Self::FRAME + self.topic.len() + properties + self.payload.len()
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

/// What the broker says of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Taken,
    /// With the reason, as metrics have it (MQTT 5, 3.4.2.1); MQTT 3.1.1 can't refuse.
    Refused(&'static str),
}
