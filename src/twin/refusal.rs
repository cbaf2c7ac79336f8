//! Why something that is asked of a twin is not done.

/// For programs, and for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// What was sent can't be read, or is not of the shape.
    Malformed,
    TooDeep,
    /// A name that no device and no twin can have.
    BadName,
    /// The device is out of use.
    Retired,
    UnknownDevice,
    /// More than one tenant has a device of this name, and the topic does not say which is meant.
    Ambiguous,
    NoTwin,
    /// Another version than was expected.
    Conflict,
    TooLarge,
    /// The device has as many twins as it may.
    TooMany,
}

impl Reason {
    pub const ALL: [Reason; 10] = [
        Reason::Malformed,
        Reason::TooDeep,
        Reason::BadName,
        Reason::Retired,
        Reason::UnknownDevice,
        Reason::Ambiguous,
        Reason::NoTwin,
        Reason::Conflict,
        Reason::TooLarge,
        Reason::TooMany,
    ];

    /// As metrics and answers have it.
    pub const fn word(self) -> &'static str {
        match self {
            Reason::Malformed => "malformed",
            Reason::TooDeep => "too_deep",
            Reason::BadName => "bad_name",
            Reason::Retired => "retired",
            Reason::UnknownDevice => "unknown_device",
            Reason::Ambiguous => "ambiguous_device",
            Reason::NoTwin => "no_twin",
            Reason::Conflict => "conflict",
            Reason::TooLarge => "too_large",
            Reason::TooMany => "too_many",
        }
    }

    /// As HTTP and AWS IoT's shadows have it.
    pub const fn code(self) -> u16 {
        match self {
            Reason::Malformed | Reason::TooDeep | Reason::BadName => 400,
            Reason::Retired => 403,
            Reason::UnknownDevice | Reason::Ambiguous | Reason::NoTwin => 404,
            Reason::Conflict => 409,
            Reason::TooLarge => 413,
            Reason::TooMany => 429,
        }
    }
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    pub reason: Reason,
    /// For people.
    pub message: String,
}

impl Refused {
    pub fn new(reason: Reason, message: impl Into<String>) -> Refused {
        Refused { reason, message: message.into() }
    }
}
