//! Payload → samples. One file for each payload format; pure.

use crate::config::{Decoder, Limits};
use crate::quarantine::Refusal;
use crate::time::UtcMicros;

/// A raw value, as the decoder found it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Finite.
    Number(f64),
    Bool(bool),
    Text(String),
}

/// One raw key and value, before any template.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub key: String,
    pub value: Value,
}

/// The samples of one instant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Point {
    /// The time that the payload gives; none: the time of receipt.
    pub time: Option<UtcMicros>,
    pub samples: Vec<Sample>,
}

/// What a decoder needs to know beside the payload.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The `metric` capture of the topic, joined with dots; names a scalar.
    pub metric: Option<&'a str>,
    /// Raw key that holds the time, if the source says so.
    pub timestamp: Option<&'a str>,
    /// For local text timestamps; none: UTC.
    pub timezone: Option<&'a jiff::tz::TimeZone>,
    pub limits: &'a Limits,
}
