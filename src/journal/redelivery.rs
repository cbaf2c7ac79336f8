//! Recognises what the broker sends again because its acknowledgement was lost on the way.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash, Hasher};
use std::ops::RangeInclusive;

use siphasher::sip::SipHasher13;

use super::JournalError;
use super::file::JournalFile;
use super::frame::Frames;
use crate::crash;
use crate::message::{Publish, Seq};

/// Bytes read at most to recognise redeliveries of before the start.
const RECALL_BYTES: u64 = 256 << 20;
/// Where the journal keeps the key: 32 hex digits.
const KEY: &str = "redelivery_key";

/// The last messages above QoS 0, by who sent them and what they hold.
///
/// Senders have at most `window` unacknowledged messages, so an older one can't come again. A message counts as
/// seen when DUP is set and the newest message of the same client and packet id has the same topic and payload.
/// Those are compared by a SipHash with the journal's own random key: a message that comes with DUP is taken for a different one with a
/// chance of 2^-64, and nobody can choose one so.
///
/// The next start [recalls](Redeliveries::recall) them from the messages themselves, or, where those had to give way to newer ones
/// before their time, from the [`Trace`] that each has left.
///
/// At QoS 0 nothing is sent again, so such messages take no place; the oldest position kept is nevertheless at most
/// [`Redeliveries::REACH`] × `window` behind the newest, so that a stream of them does not hold the journal's trimming.
pub(super) struct Redeliveries {
    window: usize,
    key: SipHasher13,
    newest: HashMap<Sender, Known>,
    order: VecDeque<(Seq, Sender)>,
}

/// Whose messages share packet ids, and the packet id.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Sender {
    /// SipHash of the client; 0 for the remote broker.
    client: u64,
    packet_id: u16,
}

struct Known {
    seq: Seq,
    content: u64,
}

/// By what a message is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trace {
    pub seq: Seq,
    /// SipHash of the client; 0 for the remote broker.
    pub client: u64,
    pub packet_id: u16,
    /// SipHash of topic and payload.
    pub content: u64,
}

impl Redeliveries {
    /// Positions looked back, in windows.
    pub const REACH: u64 = 16;

    /// `key`: the same for all traces of one journal.
    fn new(window: usize, key: u128) -> Redeliveries {
        let key = SipHasher13::new_with_key(&key.to_be_bytes());
        Redeliveries { window, key, newest: HashMap::new(), order: VecDeque::new() }
    }

    /// The memory as it was when the journal ended.
    pub fn recall(file: &mut JournalFile, last_seq: Seq, window: usize) -> Result<Redeliveries, JournalError> {
        let mut redeliveries = Redeliveries::new(window, key(file)?);
        let floor = redeliveries.floor(last_seq);
        let mut found = Vec::new();
        let mut bytes = 0_u64;
        let mut before = Seq::MAX;
        while found.len() < window
            && bytes < RECALL_BYTES
            && let Some(extent) = file.newest_before(before)?
            && extent.last > floor
        {
            before = extent.first;
            bytes = bytes.saturating_add(extent.bytes);
            let blob = match file.frames(extent.first) {
                Ok(blob) => blob.unwrap_or_default(),
                // Its reader sets it aside.
                Err(error) if error.is_malformed() => continue,
                Err(error) => return Err(error),
            };
            let frames = Frames::new(extent.first, extent.last, blob);
            let messages = frames.positions().rev().filter_map(|seq| frames.get(seq).ok());
            let missing = window.saturating_sub(found.len());
            let acknowledged = messages.filter(|message| message.publish.qos > 0).take(missing);
            found.extend(acknowledged.map(|message| redeliveries.trace(message.seq, &message.publish)));
        }
        found.extend(file.traces(floor..before, window.saturating_sub(found.len()))?);
        for trace in found.into_iter().rev() {
            redeliveries.keep(trace);
        }
        Ok(redeliveries)
    }

    /// True if this PUBLISH is in the journal already.
    pub fn recognises(&self, publish: &Publish) -> bool {
        publish.dup
            && publish.qos > 0
            && !crash::has(crash::Mutation::RedeliveryStored)
            && self.newest.get(&self.sender(publish)).is_some_and(|known| known.content == self.content(publish))
    }

    /// Keeps a message in mind that goes into the journal at `seq`.
    pub fn remember(&mut self, seq: Seq, publish: &Publish) {
        if publish.qos > 0 && self.window > 0 {
            self.keep(self.trace(seq, publish));
        }
        let floor = self.floor(seq);
        while let Some(&(oldest, sender)) = self.order.front()
            && (self.order.len() > self.window || oldest < floor)
        {
            self.order.pop_front();
            if self.newest.get(&sender).is_some_and(|known| known.seq == oldest) {
                self.newest.remove(&sender);
            }
        }
    }

    /// What is to be kept of the messages of these positions when they leave the journal.
    pub fn traces(&self, positions: RangeInclusive<Seq>) -> Vec<Trace> {
        let from = self.order.partition_point(|(seq, _)| seq < positions.start());
        let those = self.order.iter().skip(from).take_while(|(seq, _)| seq <= positions.end());
        let newest = those.filter_map(|(seq, sender)| {
            let known = self.newest.get(sender).filter(|known| known.seq == *seq)?;
            Some(Trace { seq: *seq, client: sender.client, packet_id: sender.packet_id, content: known.content })
        });
        newest.collect()
    }

    fn trace(&self, seq: Seq, publish: &Publish) -> Trace {
        let Sender { client, packet_id } = self.sender(publish);
        Trace { seq, client, packet_id, content: self.content(publish) }
    }

    fn keep(&mut self, Trace { seq, client, packet_id, content }: Trace) {
        let sender = Sender { client, packet_id };
        self.newest.insert(sender, Known { seq, content });
        self.order.push_back((seq, sender));
    }

    /// The oldest position that is of use when `newest` is the journal's last.
    pub fn floor(&self, newest: Seq) -> Seq {
        newest.saturating_sub((self.window as u64).saturating_mul(Redeliveries::REACH))
    }

    /// The oldest position kept in mind: the journal keeps what begins there for the next start.
    pub fn oldest(&self) -> Option<Seq> {
        self.order.front().map(|&(seq, _)| seq)
    }

    fn sender(&self, publish: &Publish) -> Sender {
        let client = publish.client.as_deref().map_or(0, |client| self.hash(client));
        Sender { client, packet_id: publish.packet_id }
    }

    fn content(&self, publish: &Publish) -> u64 {
        self.hash((publish.topic.as_str(), publish.payload.as_ref()))
    }

    fn hash(&self, value: impl Hash) -> u64 {
        let mut hasher = self.key;
        value.hash(&mut hasher);
        hasher.finish()
    }
}

/// The journal's key, made when it is first asked for.
fn key(file: &mut JournalFile) -> Result<u128, JournalError> {
    if let Some(key) = file.meta(KEY)?.and_then(|text| u128::from_str_radix(&text, 16).ok()) {
        return Ok(key);
    }
    // The standard library's own keys come from the system.
    let random = RandomState::new();
    let key = (u128::from(random.hash_one(0)) << 64) | u128::from(random.hash_one(1));
    file.set_meta(KEY, &format!("{key:032x}"))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn publish(packet_id: u16, payload: &str, dup: bool) -> Publish {
        Publish {
            topic: "t".into(),
            payload: Bytes::from(payload.to_owned()),
            qos: 1,
            retain: false,
            dup,
            packet_id,
            client: None,
            properties: None,
        }
    }

    #[test]
    fn same_packet_id_topic_and_payload_with_dup_is_a_redelivery() {
        let mut memory = Redeliveries::new(4, 7);
        memory.remember(1, &publish(7, "x", false));
        assert!(memory.recognises(&publish(7, "x", true)));
        assert!(!memory.recognises(&publish(7, "x", false)));
        assert!(!memory.recognises(&publish(7, "y", true)));
        assert!(!memory.recognises(&publish(8, "x", true)));
        assert!(!memory.recognises(&Publish { topic: "u".into(), ..publish(7, "x", true) }));
        assert!(!memory.recognises(&Publish { client: Some("c".into()), ..publish(7, "x", true) }));
        assert!(!memory.recognises(&Publish { qos: 0, ..publish(7, "x", true) }));
    }

    #[test]
    fn only_the_newest_message_of_a_packet_id_counts() {
        let mut memory = Redeliveries::new(4, 7);
        memory.remember(1, &publish(7, "x", false));
        memory.remember(2, &publish(7, "y", false));
        assert!(!memory.recognises(&publish(7, "x", true)));
        assert!(memory.recognises(&publish(7, "y", true)));
    }

    #[test]
    fn the_window_counts_messages_that_wait_for_an_acknowledgement() {
        let mut memory = Redeliveries::new(2, 7);
        memory.remember(1, &publish(1, "x", false));
        memory.remember(2, &Publish { qos: 0, ..publish(0, "x", false) });
        memory.remember(3, &publish(2, "x", false));
        assert!(memory.recognises(&publish(1, "x", true)));
        memory.remember(4, &publish(3, "x", false));
        assert!(!memory.recognises(&publish(1, "x", true)));
        assert_eq!((memory.oldest(), memory.newest.len()), (Some(3), 2));
    }

    #[test]
    fn the_next_message_of_a_packet_id_is_not_taken_for_a_redelivery() {
        // A broker that gives ids in turn, and a payload that is always the same; DUP, since its first try was lost.
        let mut memory = Redeliveries::new(usize::from(u16::MAX) / 2, 7);
        for id in 1..=u16::MAX {
            memory.remember(u64::from(id), &publish(id, "x", false));
        }
        assert!(!memory.recognises(&publish(1, "x", true)));
        assert!(memory.recognises(&publish(u16::MAX, "x", true)));
    }

    #[test]
    fn traces_are_those_of_the_positions_asked_for_and_of_the_newest_of_each_packet_id() {
        let mut memory = Redeliveries::new(9, 7);
        for (seq, packet_id) in [(1, 1), (3, 2), (4, 1), (7, 3)] {
            memory.remember(seq, &publish(packet_id, "x", false));
        }
        let positions = |range| memory.traces(range).iter().map(|trace| trace.seq).collect::<Vec<_>>();
        assert_eq!((positions(0..=4), positions(4..=6), positions(5..=6)), (vec![3, 4], vec![4], vec![]));
    }

    #[test]
    fn a_stream_of_qos_0_does_not_hold_old_positions() {
        let mut memory = Redeliveries::new(2, 7);
        memory.remember(1, &publish(1, "x", false));
        memory.remember(40, &Publish { qos: 0, ..publish(0, "x", false) });
        assert_eq!((memory.oldest(), memory.newest.len()), (None, 0));
    }
}
