//! The messages of `sparkplug_b.proto`, as far as they are looked at.
//!
//! What is nested stays bytes until it is wanted: a template in a template in a template is never read, and no more metrics
//! are held at once than the limits allow.

use bytes::Bytes;
use prost::{Message, Oneof};

use crate::quarantine::{Reason, Refusal};

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Payload {
    /// Milliseconds since 1970.
    #[prost(uint64, optional, tag = "1")]
    pub(crate) timestamp: Option<u64>,
    /// Each a [`Metric`].
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub(crate) metrics: Vec<Bytes>,
    #[prost(uint64, optional, tag = "3")]
    pub(crate) seq: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Metric {
    #[prost(string, optional, tag = "1")]
    pub(crate) name: Option<String>,
    #[prost(uint64, optional, tag = "2")]
    pub(crate) alias: Option<u64>,
    /// Milliseconds since 1970.
    #[prost(uint64, optional, tag = "3")]
    pub(crate) timestamp: Option<u64>,
    #[prost(uint32, optional, tag = "4")]
    pub(crate) datatype: Option<u32>,
    #[prost(bool, optional, tag = "5")]
    pub(crate) is_historical: Option<bool>,
    #[prost(bool, optional, tag = "6")]
    pub(crate) is_transient: Option<bool>,
    #[prost(bool, optional, tag = "7")]
    pub(crate) is_null: Option<bool>,
    /// A [`PropertySet`].
    #[prost(bytes = "bytes", optional, tag = "9")]
    pub(crate) properties: Option<Bytes>,
    #[prost(oneof = "Carried", tags = "10, 11, 12, 13, 14, 15, 16, 17, 18, 19")]
    pub(crate) value: Option<Carried>,
}

/// What a metric carries; the data type says what it means.
#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Carried {
    #[prost(uint32, tag = "10")]
    Int(u32),
    #[prost(uint64, tag = "11")]
    Long(u64),
    #[prost(float, tag = "12")]
    Float(f32),
    #[prost(double, tag = "13")]
    Double(f64),
    #[prost(bool, tag = "14")]
    Boolean(bool),
    #[prost(string, tag = "15")]
    Text(String),
    #[prost(bytes = "bytes", tag = "16")]
    Bytes(Bytes),
    #[prost(bytes = "bytes", tag = "17")]
    DataSet(Bytes),
    #[prost(bytes = "bytes", tag = "18")]
    Template(Bytes),
    #[prost(bytes = "bytes", tag = "19")]
    Extension(Bytes),
}

/// Keys and values stand in the same order.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PropertySet {
    #[prost(string, repeated, tag = "1")]
    pub(crate) keys: Vec<String>,
    /// Each a [`Property`].
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub(crate) values: Vec<Bytes>,
}

/// The kinds of property that mean something here.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Property {
    #[prost(uint32, optional, tag = "1")]
    pub(crate) datatype: Option<u32>,
    #[prost(uint32, optional, tag = "3")]
    pub(crate) int: Option<u32>,
    #[prost(uint64, optional, tag = "4")]
    pub(crate) long: Option<u64>,
    #[prost(string, optional, tag = "8")]
    pub(crate) text: Option<String>,
}

/// Reads a message of the format.
///
/// # Errors
/// [`Refusal`] of the whole MQTT message: it breaks Protobuf's grammar, or a text in it is not UTF-8.
pub(super) fn read<M: Message + Default>(bytes: Bytes) -> Result<M, Refusal> {
    M::decode(bytes).map_err(|error| {
        let error = error.to_string();
        let detail = error.strip_prefix("failed to decode Protobuf message: ").unwrap_or(&error);
        Refusal::message(Reason::Malformed, format!("malformed protobuf: {detail}"))
    })
}
