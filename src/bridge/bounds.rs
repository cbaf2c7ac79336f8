//! What the journal and the broker's connection may hold.

use crate::config::{self, Config, Endpoint};
use crate::journal;

/// What waits for the journal at most: QoS 0 bursts; QoS 1 is bounded by the receive maximum, and where a broker ignores that
/// by four times as much.
pub(super) const INBOX: journal::Bounds = journal::Bounds { messages: 65_536, bytes: 8 << 20 };
/// Packet ids that a sender has. Most give them in turn, so that after so many messages one comes back for another message.
const PACKET_IDS: usize = 65_535;
/// Newest messages kept in memory for the pipeline, bytes.
const TAIL_BYTES: usize = 8 << 20;
/// Payloads up to here reach the journal, and quarantine, though every source's max_payload is less: a broker discards
/// in silence what is larger than its client announced. Bytes.
const REFUSED_WITH_REASON: usize = 2 << 20;
/// Room for the topic and properties of a PUBLISH beside its payload, bytes.
const PACKET_OVERHEAD: usize = 128 << 10;

/// Bytes: the largest payload that any source takes, or what is still taken to be refused with its reason, and room
/// beside it.
pub(super) fn max_packet(config: &Config) -> usize {
    let largest = config.sources.iter().map(|source| source.max_payload).max().unwrap_or(0);
    // The journal must be able to hold it.
    let half = usize::try_from(config.journal.max_size / 2).unwrap_or(usize::MAX);
    largest.max(REFUSED_WITH_REASON.min(half)).saturating_add(PACKET_OVERHEAD)
}

/// Messages among which a redelivery is looked for. Not the receive maximum alone, since mosquitto 2.0.11 has more than that
/// outstanding once acknowledgements flow; and of one sender only half of its packet ids, lest the next message of an id,
/// with the same topic and payload, be taken for the one before it. The embedded broker has many senders.
fn redelivery_window(broker: &config::Broker) -> usize {
    match broker.endpoint {
        Endpoint::Remote { .. } => usize::from(broker.receive_maximum).max(PACKET_IDS / 2),
        Endpoint::Embedded { .. } => PACKET_IDS,
    }
}

pub(super) fn journal_options(config: &Config) -> journal::Options {
    journal::Options {
        dir: config.instance.state_dir.clone(),
        max_size: config.journal.max_size,
        retain: config.journal.retain,
        sync: config.journal.sync,
        redelivery_window: redelivery_window(&config.broker),
        inbox: INBOX,
        tail_bytes: TAIL_BYTES,
    }
}
