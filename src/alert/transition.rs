//! What happens in an episode's life, as it is published and recorded.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::rule::Severity;
use crate::message::Seq;
use crate::time::UtcMicros;

/// Topic of the message by which time alone gets into the journal. No client can publish it: brokers keep `$` topics to themselves,
/// and tidegate subscribes to none.
pub const TICK_TOPIC: &str = "$tidegate/tick";
/// Topic of the journal's own messages that carry an [`Action`] as JSON. No device can publish on it.
pub const ACTION_TOPIC: &str = "$tidegate/alerts/action";

/// Where an episode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Firing,
    Acknowledged,
    Resolved,
}

impl State {
    /// As tables and messages have it.
    pub fn word(self) -> &'static str {
        match self {
            State::Firing => "firing",
            State::Acknowledged => "acknowledged",
            State::Resolved => "resolved",
        }
    }

    /// What [`State::word`] gives.
    pub fn of_word(word: &str) -> Option<State> {
        [State::Firing, State::Acknowledged, State::Resolved].into_iter().find(|state| state.word() == word)
    }
}

/// Who changed an episode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Who {
    /// The rule, by readings or by the clock.
    Rule,
    /// Somebody, by name.
    Person(String),
}

/// One step of one episode. Two that are equal but for `seq` are the same step, met again in a replay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transition {
    /// The episode's id: 32 hexadecimal digits from rule, tenant, device, metric and onset.
    pub id: Arc<str>,
    /// Counts the episode's steps from 0, so that (id, step) is unique.
    pub step: u32,
    pub rule: Arc<str>,
    pub tenant: Arc<str>,
    /// Of a group's alert the member that brought the group over.
    pub device: Arc<str>,
    /// The group that it is about, such as `site:Warehouse 3`; none: the device. Of a group, `value` is how many of its devices are in, and
    /// `threshold` how many it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Arc<str>>,
    /// What the rule's first condition looks at; empty for a device's silence.
    pub metric: Arc<str>,
    pub state: State,
    pub severity: Severity,
    /// By the readings' own times.
    pub at: UtcMicros,
    /// When the condition began to hold.
    pub onset: UtcMicros,
    /// When the episode began to fire.
    pub since: UtcMicros,
    /// What it was decided by, where that is a number.
    pub value: Option<f64>,
    pub threshold: Option<f64>,
    pub unit: Arc<str>,
    /// For people.
    pub message: String,
    /// Nothing is said of it: somebody has put the episode to sleep.
    pub snoozed: bool,
    /// Until when, by the journal's time; none where nobody has, or it is not known any more.
    #[serde(default)]
    pub snoozed_until: Option<UtcMicros>,
    pub who: Who,
    /// For people: why this step was taken, such as "held for 2m" or a note.
    pub why: String,
    /// The message after which it came.
    pub seq: Seq,
}

impl Transition {
    /// The group or the device, whichever it is about.
    pub fn about(&self) -> &Arc<str> {
        self.group.as_ref().unwrap_or(&self.device)
    }
}

/// For whom a rule keeps a state.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holder {
    /// A device, by its uid.
    Device(Arc<str>),
    /// A group, by its name, such as `site:Warehouse 3`.
    Group(Arc<str>),
}

impl Holder {
    /// Uid or name.
    pub fn name(&self) -> &Arc<str> {
        match self {
            Holder::Device(name) | Holder::Group(name) => name,
        }
    }
}

/// A rule's own memory of one device or group, to be kept beside the position. None: nothing is to be remembered any more.
#[derive(Clone, Debug, PartialEq)]
pub struct StateChange {
    pub rule: Arc<str>,
    pub tenant: Arc<str>,
    /// By name: a device may have been silent in this generation, so that it has no index in it.
    pub holder: Holder,
    /// JSON.
    pub state: Option<String>,
}

/// What somebody wants done with an episode; goes through the journal, so that a replay does it at the same place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// The episode's.
    pub id: String,
    pub action: Deed,
    /// Name of who wants it.
    pub who: String,
    #[serde(default)]
    pub note: String,
    /// Number of what was asked by a command, later ones greater: by it one that comes into the journal twice is done once. None: asked
    /// by MQTT, where the journal itself knows a redelivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ask: Option<i64>,
}

/// What can be done with an episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// Somebody sees to it.
    Acknowledge,
    /// It is over, whatever the readings say.
    Resolve,
    /// Nothing is said of it until then; microseconds since 1970.
    Snooze { until: i64 },
    /// A remark, without a change.
    Note,
}
