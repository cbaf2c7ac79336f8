//! A simulated Sparkplug edge node with one device, a motor on a line: births, then data by alias.
//!
//! It hears commands only where the simulator is told to answer. So it is born anew every [`Node::REBIRTH`] messages, which real nodes do
//! only when they are asked.

use bytes::Bytes;
use prost::Message as _;

use crate::decode::sparkplug::datatype::DataType;
use crate::decode::sparkplug::wire::{Carried, Metric, Payload, Property, PropertySet};

const SUPPLY: u64 = 1;
const SPEED: u64 = 10;
const CURRENT: u64 = 11;
const TEMPERATURE: u64 = 12;
const COUNT: u64 = 13;
const RUNNING: u64 = 14;
const STATE: u64 = 15;

/// What the node measures.
#[derive(Clone, Copy, Debug)]
pub(super) struct Values {
    /// V.
    pub(super) supply: f64,
    /// 1/min.
    pub(super) speed: f64,
    /// A.
    pub(super) current: f64,
    /// °C.
    pub(super) temperature: f64,
    pub(super) count: f64,
}

/// One message of a node.
pub(super) struct Node<'n> {
    pub(super) id: &'n str,
    /// How many messages it has sent.
    pub(super) turn: usize,
    /// Milliseconds since 1970; none: it says no time.
    pub(super) time: Option<u64>,
}

impl Node<'_> {
    /// Messages from one birth to the next; fewer than the sequence has numbers.
    const REBIRTH: usize = 200;

    /// Whether its message of this turn is a birth.
    pub(super) fn is_birth(turn: usize) -> bool {
        turn % Node::REBIRTH < 2
    }

    /// The turn in which it is born next.
    pub(super) fn next_birth(turn: usize) -> usize {
        turn.next_multiple_of(Node::REBIRTH)
    }

    /// What it reports once metrics were set.
    pub(super) fn report(&self, of_device: bool, metrics: Vec<Metric>) -> (String, Vec<u8>) {
        let set = metrics.into_iter().map(|metric| Metric { timestamp: self.time, datatype: None, ..metric });
        self.write(if of_device { "DDATA" } else { "NDATA" }, set.collect())
    }

    /// Topic and payload.
    pub(super) fn message(&self, values: Values) -> (String, Vec<u8>) {
        let seq = self.turn % Node::REBIRTH;
        let (kind, metrics) = match seq {
            0 => ("NBIRTH", self.node_birth(values)),
            1 => ("DBIRTH", self.device_birth(values)),
            seq if seq.is_multiple_of(10) => ("NDATA", vec![self.by_alias(SUPPLY, Carried::Double(values.supply))]),
            _ => ("DDATA", self.device_data(values)),
        };
        self.write(kind, metrics)
    }

    fn write(&self, kind: &str, metrics: Vec<Metric>) -> (String, Vec<u8>) {
        let seq = self.turn % Node::REBIRTH;
        let device = if kind.starts_with('D') { format!("/{}-motor", self.id) } else { String::new() };
        let metrics = metrics.iter().map(|metric| metric.encode_to_vec().into()).collect();
        let payload = Payload { timestamp: self.time, metrics, seq: u64::try_from(seq).ok() };
        (format!("spBv1.0/Simulated/{kind}/{}{device}", self.id), payload.encode_to_vec())
    }

    fn node_birth(&self, values: Values) -> Vec<Metric> {
        let text = |name, text: &str| self.born(name, None, DataType::STRING, Carried::Text(text.to_owned()), "");
        vec![
            self.born("bdSeq", None, DataType::UINT64, Carried::Long(0), ""),
            self.born("Node Control/Rebirth", None, DataType::BOOLEAN, Carried::Boolean(false), ""),
            text("Properties/Hardware Make", "tidegate"),
            text("Properties/Hardware Model", "Simulated PLC"),
            text("Properties/OS", "simulate"),
            self.born("Supply Voltage", Some(SUPPLY), DataType::DOUBLE, Carried::Double(values.supply), "V"),
        ]
    }

    fn device_birth(&self, values: Values) -> Vec<Metric> {
        let state = Carried::Text("running".to_owned());
        vec![
            self.born("Motor/Speed", Some(SPEED), DataType::INT32, Carried::Int(whole(values.speed)), "1/min"),
            self.born("Motor/Current", Some(CURRENT), DataType::DOUBLE, Carried::Double(values.current), "A"),
            self.born("Motor/Temperature", Some(TEMPERATURE), DataType::INT16, temperature(values), "°C"),
            self.born("Line/Count", Some(COUNT), DataType::UINT64, Carried::Long(whole(values.count).into()), ""),
            self.born("Line/Running", Some(RUNNING), DataType::BOOLEAN, Carried::Boolean(true), ""),
            self.born("Line/State", Some(STATE), DataType::STRING, state, ""),
        ]
    }

    /// What changes with each message.
    fn device_data(&self, values: Values) -> Vec<Metric> {
        vec![
            self.by_alias(SPEED, Carried::Int(whole(values.speed))),
            self.by_alias(CURRENT, Carried::Double(values.current)),
            self.by_alias(TEMPERATURE, temperature(values)),
            self.by_alias(COUNT, Carried::Long(whole(values.count).into())),
        ]
    }

    fn born(&self, name: &str, alias: Option<u64>, datatype: DataType, value: Carried, unit: &str) -> Metric {
        Metric {
            name: Some(name.to_owned()),
            alias,
            timestamp: self.time,
            datatype: Some(datatype.0.into()),
            properties: properties(unit),
            value: Some(value),
            ..Metric::default()
        }
    }

    fn by_alias(&self, alias: u64, value: Carried) -> Metric {
        Metric { alias: Some(alias), timestamp: self.time, value: Some(value), ..Metric::default() }
    }
}

fn properties(unit: &str) -> Option<Bytes> {
    if unit.is_empty() {
        return None;
    }
    let datatype = Some(DataType::STRING.0.into());
    let value = Property { datatype, text: Some(unit.to_owned()), ..Property::default() };
    let set = PropertySet { keys: vec!["engUnit".to_owned()], values: vec![value.encode_to_vec().into()] };
    Some(set.encode_to_vec().into())
}

/// An Int16, in two's complement of 32 bits, as Tahu's Java encoder has it.
#[expect(clippy::cast_possible_truncation, reason = "the walk is within bounds")]
fn temperature(values: Values) -> Carried {
    Carried::Int((values.temperature as i32).cast_unsigned())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the walks are within bounds")]
fn whole(number: f64) -> u32 {
    number as u32
}
