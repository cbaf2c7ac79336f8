//! The request that an edge node tell its births anew (Sparkplug 3.0.0, 5.10, 6.4.22): `Node Control/Rebirth` in an NCMD.

use bytes::Bytes;
use prost::Message as _;

use super::datatype::DataType;
use super::place::Place;
use super::wire::{Carried, Metric, Payload};
use crate::decode::Ask;
use crate::time::UtcMicros;

/// `at`: when the message came that calls for it.
pub(super) fn ask(place: Place<'_>, at: UtcMicros) -> Ask {
    let timestamp = u64::try_from(at.0 / 1000).ok();
    let metric = Metric {
        name: Some("Node Control/Rebirth".to_owned()),
        timestamp,
        datatype: Some(u32::from(DataType::BOOLEAN.0)),
        value: Some(Carried::Boolean(true)),
        ..Metric::default()
    };
    let payload = Payload { timestamp, metrics: vec![Bytes::from(metric.encode_to_vec())], seq: None };
    Ask { topic: Place { device: None, ..place }.topic("NCMD", "DCMD"), payload: payload.encode_to_vec().into() }
}
