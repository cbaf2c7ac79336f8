//! What the pipeline hands to the writer, and the writer commits whole.

use std::sync::Arc;

use crate::alert::{StateChange, Transition};
use crate::catalog::Kind;
use crate::catalog::matching::GivenBy;
use crate::command::Ask;
use crate::command::hearing::Reply;
use crate::decode::Told;
use crate::decode::memory::Changes;
use crate::message::{Message, Seq};
use crate::notify::{MemoryChange, Order};
use crate::presence::ConnectionChange;
use crate::quarantine::Refusal;
use crate::time::UtcMicros;
use crate::twin;

/// A device's number within one [`Batch::generation`]: given by the pipeline, mapped to a row by the writer.
pub type DeviceIndex = u32;
/// A sensor's number within one generation.
pub type SensorIndex = u32;

/// The outcome of a run of messages, ready to be committed in one transaction.
#[derive(Debug, Default)]
pub struct Batch {
    /// Position in the journal once this is committed.
    pub position: Seq,
    /// Rises when the catalog is swapped: indexes start anew.
    pub generation: u32,
    pub messages: u64,
    /// `received_at` of the oldest message in it, for latency.
    pub oldest: Option<UtcMicros>,
    /// Devices and sensors used for the first time in this generation, before what needs them.
    pub devices: Vec<DeviceIntro>,
    pub sensors: Vec<SensorIntro>,
    /// What was learned of devices, in order.
    pub changes: Vec<DeviceChange>,
    pub readings: Vec<Reading>,
    pub texts: Vec<TextReading>,
    /// Newest time of receipt of each device in the batch; a device may occur more than once.
    pub seen: Vec<(DeviceIndex, UtcMicros)>,
    pub quarantined: Vec<Quarantined>,
    /// What decoders remember from now on.
    pub memory: Changes,
    /// Steps of alerts, in order.
    pub transitions: Vec<Transition>,
    /// What rules remember from now on; of one rule and device the last counts.
    pub alert_states: Vec<StateChange>,
    /// What is told by which channels.
    pub notifications: Vec<Order>,
    /// What deciding that remembers from now on; of one key the last counts.
    pub notify_memory: Vec<MemoryChange>,
    /// Changes of devices' connections, in order.
    pub connections: Vec<ConnectionChange>,
    /// Commands that were asked for, in order.
    pub asks: Vec<Ask>,
    /// What devices say of commands, in order.
    pub replies: Vec<Reply>,
    /// What was asked of twins, in order.
    pub twins: Vec<twin::Ask>,
    /// Of what has no fixed size, about: texts, and the messages that go to quarantine. Counted as they come, since a look at
    /// all of them for each message would be dear.
    pub bytes: usize,
}

impl Batch {
    /// Bytes of texts and refused messages in one transaction, about: each is in memory several times while it is committed.
    pub const MAX_BYTES: usize = 2 << 20;

    /// Rows that the transaction will write, about.
    pub fn rows(&self) -> usize {
        self.readings.len()
            + self.texts.len()
            + self.quarantined.len()
            + self.transitions.len()
            + self.connections.len()
            + self.heard()
            + self.twins.len()
    }

    /// What it holds of commands.
    pub fn heard(&self) -> usize {
        self.asks.len() + self.replies.len()
    }

    /// What it takes in memory, bytes about.
    pub fn weight(&self) -> usize {
        let rows = self.readings.len().saturating_mul(size_of::<Reading>());
        let seen = self.seen.len().saturating_mul(size_of::<(DeviceIndex, UtcMicros)>());
        rows.saturating_add(seen).saturating_add(self.bytes).saturating_add(256)
    }

    /// Whether it takes no more: `batch_max` rows or messages that left none, or [`Batch::MAX_BYTES`].
    pub fn is_full(&self, batch_max: usize) -> bool {
        self.rows() >= batch_max || self.seen.len() >= batch_max || self.bytes >= Batch::MAX_BYTES
    }

    /// Adds a later batch of the same generation.
    pub fn append(&mut self, mut later: Batch) {
        debug_assert_eq!(self.generation, later.generation);
        self.position = later.position;
        self.messages += later.messages;
        self.oldest = self.oldest.or(later.oldest);
        self.devices.append(&mut later.devices);
        let before = self.sensors.len();
        self.changes.extend(
            later
                .changes
                .into_iter()
                .map(|change| DeviceChange { sensors_before: change.sensors_before.saturating_add(before), ..change }),
        );
        self.sensors.append(&mut later.sensors);
        self.readings.append(&mut later.readings);
        self.texts.append(&mut later.texts);
        self.seen.append(&mut later.seen);
        self.quarantined.append(&mut later.quarantined);
        self.memory.append(&mut later.memory);
        self.transitions.append(&mut later.transitions);
        self.alert_states.append(&mut later.alert_states);
        self.notifications.append(&mut later.notifications);
        self.notify_memory.append(&mut later.notify_memory);
        self.connections.append(&mut later.connections);
        self.asks.append(&mut later.asks);
        self.replies.append(&mut later.replies);
        self.twins.append(&mut later.twins);
        self.bytes = self.bytes.saturating_add(later.bytes);
    }
}

/// A device that the pipeline uses first in this batch; perhaps new to the database.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceIntro {
    pub index: DeviceIndex,
    /// Its row, when the snapshot had it.
    pub id: Option<i32>,
    pub tenant: Arc<str>,
    pub uid: Arc<str>,
    /// Slug of the template it is given when it is new.
    pub template: Option<String>,
    /// Who gives it.
    pub template_by: Option<GivenBy>,
    /// What it tells of itself, where it is new.
    pub told: Vec<(Told, Arc<str>)>,
    /// Name of the decoder that read it, where it is new.
    pub protocol: Option<Arc<str>>,
    /// Why that decoder was chosen, where the payload decided.
    pub protocol_why: Option<String>,
    /// Name of the source it came by.
    pub source: String,
    pub first_seen: UtcMicros,
}

/// What was learned of a device after it was introduced.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceChange {
    pub device: DeviceIndex,
    /// How many of the batch's sensors were introduced before it.
    pub sensors_before: usize,
    pub change: Change,
}

/// Something learned of a device.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Something stronger than what gave it its template gives it this one.
    Template {
        slug: Arc<str>,
        by: GivenBy,
    },
    Told(Vec<(Told, Arc<str>)>),
    /// Name of the decoder that reads it, and why that one was chosen, where the payload decided.
    Protocol {
        decoder: Arc<str>,
        why: Option<String>,
    },
    /// It is behind this device.
    Parent(DeviceIndex),
}

/// A sensor that the pipeline uses, or a template requires, first in this batch; once more where it has got a raw key or a unit
/// since.
#[derive(Clone, Debug, PartialEq)]
pub struct SensorIntro {
    pub index: SensorIndex,
    /// Its row, when the snapshot had it.
    pub id: Option<i32>,
    pub device: DeviceIndex,
    /// The module's uid, for a module's sensor; the module is made when it is new.
    pub module: Option<String>,
    /// Name in the `readings` view; `module.metric` for a module's.
    pub metric: Arc<str>,
    pub unit: String,
    pub kind: Kind,
    /// Whether raw values go into it as they are.
    pub plain: bool,
    pub origin: SensorOrigin,
    /// The raw key that it stands for from now on, where its number depends on which came first.
    pub raw_key: Option<Arc<str>>,
}

/// Why a sensor exists; `device_sensors.source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SensorOrigin {
    Required,
    Optional,
    Unmodeled,
}

/// One numeric or boolean (1, 0) reading.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    pub sensor: SensorIndex,
    pub time: UtcMicros,
    /// Finite.
    pub value: f64,
    /// The message it came from.
    pub seq: Seq,
}

/// One text reading; no NUL in it.
#[derive(Clone, Debug, PartialEq)]
pub struct TextReading {
    pub sensor: SensorIndex,
    pub time: UtcMicros,
    pub value: String,
    pub seq: Seq,
}

/// A message with what was refused in it.
#[derive(Clone, Debug)]
pub struct Quarantined {
    pub message: Arc<Message>,
    pub source: Option<String>,
    pub tenant: Arc<str>,
    /// The device's uid, if the topic told it.
    pub device: Option<Arc<str>>,
    /// At most [`Quarantined::MAX_REFUSALS`].
    pub refusals: Vec<Refusal>,
    /// How many more there were.
    pub more: u64,
}

impl Quarantined {
    /// Refusals kept of one message; the rest is counted in `more`.
    pub const MAX_REFUSALS: usize = 64;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_full_by_rows_by_messages_without_rows_and_by_bytes() {
        assert!(!Batch::default().is_full(2));
        let reading = Reading { sensor: 0, time: UtcMicros(0), value: 1.0, seq: 1 };
        assert!(Batch { readings: vec![reading; 2], ..Batch::default() }.is_full(2));
        assert!(Batch { seen: vec![(0, UtcMicros(0)); 2], ..Batch::default() }.is_full(2));
        let mut batch = Batch { bytes: Batch::MAX_BYTES - 1, ..Batch::default() };
        assert!(!batch.is_full(2));
        batch.append(Batch { bytes: 1, ..Batch::default() });
        assert!(batch.is_full(2));
    }
}
