//! Why a message, or a sample in it, can't become a reading.

use std::fmt;

use crate::store::limits::clip;

/// The reason codes, as they stand in `quarantine_events.reason`, in the dry run and in metrics.
///
/// Codes are a contract with operators' queries: add, never rename.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The payload is not valid UTF-8, though its format is text.
    NotUtf8,
    /// The payload is empty where a document is expected.
    Empty,
    /// The payload breaks the grammar of its format.
    Malformed,
    /// One key has two values in one document.
    DuplicateKey,
    /// The payload or a text value in it is longer than its limit.
    TooLarge,
    /// The document nests deeper than the limit.
    TooDeep,
    /// The message has more keys than the limit.
    TooManyKeys,
    /// A key is longer than the limit.
    KeyTooLong,
    /// A number can't be held by a 64-bit float.
    NumberOutOfRange,
    /// The payload uses a part of its format that is not supported.
    Unsupported,
    /// It refers to what an announcement before it should have told: a Sparkplug alias whose birth was not seen.
    NotAnnounced,
    /// The payload itself calls the value bad or stale.
    BadQuality,
    /// No source's filter matches the topic.
    UnknownSource,
    /// A name captured from the topic (device, tenant, module, metric) is empty, too long or has control characters.
    BadName,
    /// The device is not known and `devices.unknown = "quarantine"`.
    UnknownDevice,
    /// The device is new, and there are `devices.max_devices` already.
    TooManyDevices,
    /// The sensor would be new, and the device has `devices.max_sensors` already.
    TooManySensors,
    /// Neither module nor template knows the key and `metrics.unmodeled = "quarantine"`.
    UnmodeledMetric,
    /// The value is of another kind than the metric (text for a number, a word that `values` lacks, …).
    WrongKind,
    /// The value lies outside the metric's `range`.
    OutOfRange,
    /// The payload declares a unit of another quantity than the metric's.
    WrongUnit,
    /// The value is less than `min_step` above the sensor's last one.
    NotMonotonic,
    /// The timestamp can't be read, or lies beyond `time.max_age` or `time.max_future`.
    BadTime,
    /// The text has a NUL, which PostgreSQL can't store.
    BadText,
    /// The database refused the row; the detail has its words.
    RejectedByDatabase,
}

impl Reason {
    /// Every reason, in the order of the flow.
    pub const ALL: [Reason; 25] = [
        Reason::NotUtf8,
        Reason::Empty,
        Reason::Malformed,
        Reason::DuplicateKey,
        Reason::TooLarge,
        Reason::TooDeep,
        Reason::TooManyKeys,
        Reason::KeyTooLong,
        Reason::NumberOutOfRange,
        Reason::Unsupported,
        Reason::NotAnnounced,
        Reason::BadQuality,
        Reason::UnknownSource,
        Reason::BadName,
        Reason::UnknownDevice,
        Reason::TooManyDevices,
        Reason::TooManySensors,
        Reason::UnmodeledMetric,
        Reason::WrongKind,
        Reason::OutOfRange,
        Reason::WrongUnit,
        Reason::NotMonotonic,
        Reason::BadTime,
        Reason::BadText,
        Reason::RejectedByDatabase,
    ];

    /// The code, `snake_case`.
    pub fn code(self) -> &'static str {
        match self {
            Reason::NotUtf8 => "not_utf8",
            Reason::Empty => "empty",
            Reason::Malformed => "malformed",
            Reason::DuplicateKey => "duplicate_key",
            Reason::TooLarge => "too_large",
            Reason::TooDeep => "too_deep",
            Reason::TooManyKeys => "too_many_keys",
            Reason::KeyTooLong => "key_too_long",
            Reason::NumberOutOfRange => "number_out_of_range",
            Reason::Unsupported => "unsupported",
            Reason::NotAnnounced => "not_announced",
            Reason::BadQuality => "bad_quality",
            Reason::UnknownSource => "unknown_source",
            Reason::BadName => "bad_name",
            Reason::UnknownDevice => "unknown_device",
            Reason::TooManyDevices => "too_many_devices",
            Reason::TooManySensors => "too_many_sensors",
            Reason::UnmodeledMetric => "unmodeled_metric",
            Reason::WrongKind => "wrong_kind",
            Reason::OutOfRange => "out_of_range",
            Reason::WrongUnit => "wrong_unit",
            Reason::NotMonotonic => "not_monotonic",
            Reason::BadTime => "bad_time",
            Reason::BadText => "bad_text",
            Reason::RejectedByDatabase => "rejected_by_database",
        }
    }

    /// The reason with this code, if there is one.
    pub fn from_code(code: &str) -> Option<Reason> {
        Reason::ALL.into_iter().find(|reason| reason.code() == code)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// One refusal: of a whole message (`key` is none) or of one sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
    /// The sample's raw key.
    pub key: Option<String>,
    /// What was found and what would have been right, for a person; at most [`Refusal::MAX_DETAIL`] bytes.
    pub detail: String,
}

impl Refusal {
    /// Longest detail kept, in bytes.
    pub const MAX_DETAIL: usize = 500;

    /// Refusal of a whole message.
    pub fn message(reason: Reason, detail: impl Into<String>) -> Refusal {
        Refusal { reason, key: None, detail: clip(&detail.into(), Refusal::MAX_DETAIL) }
    }

    /// Refusal of one sample.
    pub fn sample(reason: Reason, key: &str, detail: impl Into<String>) -> Refusal {
        let key = Some(clip(key, Refusal::MAX_DETAIL));
        Refusal { reason, key, detail: clip(&detail.into(), Refusal::MAX_DETAIL) }
    }
}
