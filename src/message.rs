//! One MQTT PUBLISH, as received and as the journal keeps it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::time::UtcMicros;

/// Position in the journal: 1 for the first message of an instance, without gaps.
pub type Seq = u64;

/// A PUBLISH as it came off the wire, before anything is parsed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    pub topic: String,
    pub payload: Bytes,
    /// QoS of this delivery, 0 to 2 (MQTT 5, 4.3).
    pub qos: u8,
    /// RETAIN flag of this delivery: the broker had it stored (MQTT 5, 3.3.1.3).
    pub retain: bool,
    /// DUP flag: perhaps a redelivery (MQTT 5, 3.3.1.1).
    pub dup: bool,
    /// Packet identifier on the connection it came by; 0 at QoS 0.
    pub packet_id: u16,
    /// The publishing client's id where tidegate is the broker, else none.
    pub client: Option<String>,
    /// MQTT 5 properties; none on 3.1.1.
    pub properties: Option<Box<Properties>>,
}

impl Publish {
    /// One with nothing but this: no flags, no packet identifier, no client, no properties. What tidegate puts into the journal
    /// itself is such.
    pub fn plain(topic: impl Into<String>, payload: impl Into<Bytes>, qos: u8) -> Publish {
        Publish {
            topic: topic.into(),
            payload: payload.into(),
            qos,
            retain: false,
            dup: false,
            packet_id: 0,
            client: None,
            properties: None,
        }
    }
}

/// The properties of an MQTT 5 PUBLISH that tidegate keeps (MQTT 5, 3.3.2.3).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Properties {
    pub content_type: Option<String>,
    pub response_topic: Option<String>,
    pub correlation_data: Option<Bytes>,
    pub user: Vec<(String, String)>,
}

/// A PUBLISH with the place and time that the journal has given it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    pub seq: Seq,
    /// Assigned once, before the journal; unique on one instance.
    pub received_at: UtcMicros,
    pub publish: Publish,
}
