use bytes::Bytes;
use prost::Message as _;

use super::*;
use crate::config::SparkplugDevice;
use crate::decode::memory::Memory;
use crate::decode::tests::{LIMITS, context};
use crate::decode::{Ask, Value};
use crate::time::UtcMicros;
use wire::{Property, PropertySet};

const NOW: u64 = 1_700_000_000_000;

fn metric(name: &str, alias: Option<u64>, datatype: u32, value: Carried) -> Metric {
    Metric {
        name: Some(name.to_owned()).filter(|name| !name.is_empty()),
        alias,
        datatype: Some(datatype).filter(|datatype| *datatype > 0),
        value: Some(value),
        ..Metric::default()
    }
}

fn by_alias(alias: u64, value: Carried) -> Metric {
    metric("", Some(alias), 0, value)
}

fn properties(pairs: &[(&str, Property)]) -> Option<Bytes> {
    let keys = pairs.iter().map(|(key, _)| (*key).to_owned()).collect();
    let values = pairs.iter().map(|(_, value)| value.encode_to_vec().into()).collect();
    Some(PropertySet { keys, values }.encode_to_vec().into())
}

fn unit(text: &str) -> (&'static str, Property) {
    ("engUnit", Property { datatype: Some(12), text: Some(text.to_owned()), ..Property::default() })
}

fn quality(code: u32) -> (&'static str, Property) {
    ("Quality", Property { datatype: Some(3), int: Some(code), ..Property::default() })
}

/// One decoder, with what it remembers and asks.
#[derive(Default)]
struct Listener {
    memory: Memory,
    asks: Vec<Ask>,
    /// Seconds before [`NOW`] that messages come.
    early: i64,
}

impl Listener {
    fn hear(&mut self, topic: &str, seq: Option<u64>, metrics: &[Metric]) -> Result<Report, Refusal> {
        let metrics = metrics.iter().map(|metric| metric.encode_to_vec().into()).collect();
        let payload = Payload { timestamp: Some(NOW), metrics, seq }.encode_to_vec();
        let context = Context { topic, received_at: UtcMicros((NOW as i64 - self.early * 1000) * 1000), ..context() };
        let heard = decode(&payload, &context, &mut self.memory.of_source(&"s".into()));
        self.asks.extend(self.memory.take_asks());
        heard.map(|mut reports| reports.remove(0))
    }

    fn node_born(&mut self, bd_seq: u64) {
        let metrics = [
            metric("bdSeq", None, 8, Carried::Long(bd_seq)),
            Metric { properties: properties(&[unit("V")]), ..metric("Supply", Some(1), 10, Carried::Double(12.0)) },
        ];
        self.hear("spBv1.0/G/NBIRTH/N", Some(0), &metrics).unwrap();
    }

    fn device_born(&mut self, seq: u64) {
        let metrics =
            [metric("Speed", Some(2), 2, Carried::Int(5)), metric("State", Some(3), 12, Carried::Text("a".into()))];
        self.hear("spBv1.0/G/DBIRTH/N/D", Some(seq), &metrics).unwrap();
    }

    /// A daemon that starts anew, with what was committed.
    fn restarted(mut self, kept: &mut std::collections::BTreeMap<(String, String), Vec<u8>>) -> Listener {
        for ((source, key), value) in self.memory.take_changes() {
            match value {
                Some(value) => drop(kept.insert((source.to_string(), key), value.to_vec())),
                None => drop(kept.remove(&(source.to_string(), key))),
            }
        }
        let entries = kept.iter().map(|((source, key), value)| (source.clone(), key.clone(), value.clone()));
        Listener { memory: Memory::of(entries), ..Listener::default() }
    }
}

fn samples(report: &Report) -> Vec<(String, Value)> {
    let points = report.points.iter();
    points.flat_map(|point| point.iter().map(|(key, value)| (key.to_owned(), value.clone()))).collect()
}

fn number(key: &str, number: f64) -> (String, Value) {
    (key.to_owned(), Value::Number(number))
}

#[test]
fn a_restart_goes_on_with_names_types_units_and_the_sequence() {
    let (mut listener, mut kept) = (Listener::default(), std::collections::BTreeMap::new());
    listener.node_born(0);
    listener = listener.restarted(&mut kept);
    listener.device_born(1);
    listener = listener.restarted(&mut kept);
    let node = listener.hear("spBv1.0/G/NDATA/N", Some(2), &[by_alias(1, Carried::Double(11.5))]).unwrap();
    assert_eq!((samples(&node), node.units), (vec![number("Supply", 11.5)], vec![("Supply".into(), "V".into())]));
    let device = listener.hear("spBv1.0/G/DDATA/N/D", Some(3), &[by_alias(2, Carried::Int(0xffff))]).unwrap();
    assert_eq!(samples(&device), [number("Speed", -1.0)]);
    assert_eq!(listener.asks, []);
}

#[test]
fn a_gap_is_taken_and_asked_about_and_a_redelivery_is_none() {
    let mut listener = Listener::default();
    listener.node_born(0);
    let data = [by_alias(1, Carried::Double(1.0))];
    for seq in [1, 1, 2] {
        listener.hear("spBv1.0/G/NDATA/N", Some(seq), &data).unwrap();
    }
    assert_eq!(listener.asks, []);
    let report = listener.hear("spBv1.0/G/NDATA/N", Some(4), &data).unwrap();
    assert_eq!(samples(&report), [number("Supply", 1.0)]);
    listener.hear("spBv1.0/G/NDATA/N", Some(5), &data).unwrap();
    let [ask] = &listener.asks[..] else { panic!("{:?}", listener.asks) };
    assert_eq!(ask.topic, "spBv1.0/G/NCMD/N");
    let asked: Payload = wire::read(ask.payload.clone()).unwrap();
    let wanted: Metric = wire::read(asked.metrics[0].clone()).unwrap();
    assert_eq!((wanted.name.as_deref(), wanted.value), (Some("Node Control/Rebirth"), Some(Carried::Boolean(true))));
    assert_eq!((asked.timestamp, asked.seq, wanted.datatype), (Some(NOW), None, Some(11)));
}

#[test]
fn the_sequence_goes_round() {
    let mut listener = Listener::default();
    listener.node_born(0);
    for seq in (1..=255).chain([0, 1]) {
        listener.hear("spBv1.0/G/NDATA/N", Some(seq), &[]).unwrap();
    }
    assert_eq!(listener.asks, []);
}

#[test]
fn what_comes_before_its_birth_is_asked_about() {
    let mut listener = Listener::default();
    // By name and data type it can be read all the same.
    let named = [metric("Speed", None, 3, Carried::Int(7))];
    let report = listener.hear("spBv1.0/G/DDATA/N/D", Some(9), &named).unwrap();
    assert_eq!((samples(&report), listener.asks.len()), (vec![number("Speed", 7.0)], 1));
    for metrics in [[by_alias(2, Carried::Int(1))], [metric("Speed", None, 0, Carried::Int(1))]] {
        let refusal = listener.hear("spBv1.0/G/DDATA/N/D", Some(10), &metrics).unwrap_err();
        assert_eq!(refusal.reason, Reason::NotAnnounced);
    }
    assert_eq!(listener.asks.len(), 3);
    listener.device_born(11);
    assert_eq!(listener.asks.len(), 4, "the node's birth is still missing");
    listener.hear("spBv1.0/G/DDATA/N/D", Some(12), &[by_alias(2, Carried::Int(1))]).unwrap();
}

#[test]
fn one_unknown_alias_refuses_the_message() {
    let mut listener = Listener::default();
    listener.node_born(0);
    let metrics = [by_alias(1, Carried::Double(1.0)), by_alias(2, Carried::Double(2.0))];
    let refusal = listener.hear("spBv1.0/G/NDATA/N", Some(1), &metrics).unwrap_err();
    assert_eq!((refusal.reason, listener.asks.len()), (Reason::NotAnnounced, 1));
}

#[test]
fn births_do_not_hold_for_what_came_before_them() {
    let mut listener = Listener::default();
    listener.node_born(0);
    listener.early = 1;
    let refusal = listener.hear("spBv1.0/G/NDATA/N", Some(1), &[by_alias(1, Carried::Double(1.0))]).unwrap_err();
    assert_eq!(refusal.reason, Reason::NotAnnounced);
    listener.early = 0;
    listener.hear("spBv1.0/G/NDATA/N", Some(1), &[by_alias(1, Carried::Double(1.0))]).unwrap();
}

#[test]
fn a_birth_and_a_death_forget_the_nodes_devices() {
    let data = [by_alias(2, Carried::Int(1))];
    let mut listener = Listener::default();
    listener.node_born(0);
    listener.device_born(1);
    listener.node_born(1);
    assert!(listener.hear("spBv1.0/G/DDATA/N/D", Some(1), &data).is_err());
    listener.device_born(1);
    let death = |bd_seq| [metric("bdSeq", None, 8, Carried::Long(bd_seq))];
    listener.hear("spBv1.0/G/NDEATH/N", None, &death(0)).unwrap();
    listener.hear("spBv1.0/G/DDATA/N/D", Some(2), &data).expect("that death was of the session before");
    listener.hear("spBv1.0/G/NDEATH/N", None, &death(1)).unwrap();
    assert!(listener.hear("spBv1.0/G/DDATA/N/D", Some(3), &data).is_err());
    listener.node_born(2);
    listener.device_born(1);
    listener.hear("spBv1.0/G/DDEATH/N/D", Some(2), &[]).unwrap();
    assert!(listener.hear("spBv1.0/G/DDATA/N/D", Some(3), &data).is_err());
    listener.hear("spBv1.0/G/NDEATH/N", None, &death(2)).unwrap();
    let entries = listener.memory.take_changes().into_values().flatten().count();
    assert_eq!(entries, 0, "nothing is remembered of the dead");
}

#[test]
fn what_can_not_be_taken_is_told_beside_the_rest() {
    let mut listener = Listener::default();
    let bytes = || Bytes::from_static(&[8, 1]);
    let metrics = [
        metric("Blob", None, 17, Carried::Bytes(bytes())),
        metric("File", None, 18, Carried::Bytes(bytes())),
        metric("Table", None, 16, Carried::DataSet(bytes())),
        metric("Motor", None, 19, Carried::Template(bytes())),
        metric("Infinite", None, 10, Carried::Double(f64::INFINITY)),
        Metric { properties: properties(&[quality(0)]), ..metric("Bad", None, 3, Carried::Int(1)) },
        Metric { properties: properties(&[quality(500)]), ..metric("Stale", None, 3, Carried::Int(1)) },
        Metric { properties: properties(&[quality(192), unit("m")]), ..metric("Good", None, 3, Carried::Int(1)) },
        Metric { is_null: Some(true), ..metric("Null", None, 3, Carried::Int(1)) },
        metric("Untyped", None, 0, Carried::Int(1)),
        metric("Device Control/Reboot", None, 11, Carried::Boolean(false)),
    ];
    let report = listener.hear("spBv1.0/G/NBIRTH/N", Some(0), &metrics).unwrap();
    assert_eq!((samples(&report), report.units.len()), (vec![number("Good", 1.0)], 1));
    let told: Vec<_> = report.left_out.iter().map(|one| (one.key.as_deref().unwrap(), one.reason)).collect();
    let unsupported = ["Blob", "File", "Table", "Motor"].map(|key| (key, Reason::Unsupported));
    let rest = [("Infinite", Reason::NumberOutOfRange), ("Bad", Reason::BadQuality), ("Stale", Reason::BadQuality)];
    assert_eq!(told, [&unsupported[..], &rest[..], &[("Untyped", Reason::Malformed)]].concat());
}

#[test]
fn a_birth_tells_of_the_node_and_a_device_is_behind_it() {
    let mut listener = Listener::default();
    let text = |name, text: &str| metric(name, None, 12, Carried::Text(text.to_owned()));
    let metrics = [
        text("Properties/Hardware Make", "Raspberry Pi"),
        text("Properties/Hardware Model", "Pi 3 Model B"),
        text("Properties/OS", "Raspbian"),
        text("Properties/OS Version", "11"),
    ];
    let report = listener.hear("spBv1.0/G/NBIRTH/N", Some(0), &metrics).unwrap();
    let told = [(Told::Manufacturer, "Raspberry Pi"), (Told::Model, "Pi 3 Model B"), (Told::Firmware, "Raspbian 11")];
    assert_eq!(report.told, told.map(|(what, text)| (what, text.to_owned())));
    assert_eq!((samples(&report).len(), report.parent), (4, None));
    let report = listener.hear("spBv1.0/G/DBIRTH/N/D", Some(1), &[]).unwrap();
    assert_eq!((report.device.as_deref(), report.parent.as_deref(), report.told), (Some("D"), Some("N"), Vec::new()));
}

#[test]
fn devices_are_called_as_the_source_says() {
    let payload = Payload::default().encode_to_vec();
    let mut memory = Memory::default();
    let mut sparkplug = context().sparkplug;
    sparkplug.device = SparkplugDevice::Path;
    let context = Context { topic: "spBv1.0/G/DDEATH/N/D", sparkplug, ..context() };
    let reports = decode(&payload, &context, &mut memory.of_source(&"s".into())).unwrap();
    assert_eq!(reports[0].device.as_deref(), Some("G/N/D"));
    let auto = crate::config::Decoder::Auto;
    let reports = crate::decode::decode(auto, &payload, &context, &mut memory.of_source(&"all".into())).unwrap();
    assert_eq!(reports[0].device.as_deref(), Some("G/N/D"), "what auto takes for Sparkplug");
}

#[test]
fn hostile_births_are_refused_and_leave_nothing_known() {
    let mut listener = Listener::default();
    let data = [by_alias(1, Carried::Double(2.0))];
    let long = "x".repeat(LIMITS.max_key_length + 1);
    let text = "x".repeat(LIMITS.max_text_length + 1);
    let int = || Carried::Int(1);
    let many: Vec<Metric> = (0..=LIMITS.max_keys).map(|n| metric(&n.to_string(), None, 3, int())).collect();
    let flags = Bytes::from([&8000_u32.to_le_bytes()[..], &[0; 1000]].concat());
    for (metrics, reason) in [
        (vec![metric("a", None, 3, int()), metric("a", None, 3, int())], Reason::DuplicateKey),
        (vec![metric("a", Some(1), 3, int()), metric("b", Some(1), 3, int())], Reason::DuplicateKey),
        (vec![metric("", Some(1), 3, int())], Reason::Malformed),
        (vec![metric(&long, None, 3, int())], Reason::KeyTooLong),
        (vec![metric("a", None, 12, Carried::Text(text))], Reason::TooLarge),
        (vec![Metric { timestamp: Some(u64::MAX), ..metric("a", None, 3, int()) }], Reason::BadTime),
        (vec![Metric { properties: Some(Bytes::from_static(&[9])), ..metric("a", None, 3, int()) }], Reason::Malformed),
        (many, Reason::TooManyKeys),
    ] {
        listener.node_born(0);
        listener.hear("spBv1.0/G/NDATA/N", Some(1), &data).unwrap();
        assert_eq!(listener.hear("spBv1.0/G/NBIRTH/N", Some(0), &metrics).unwrap_err().reason, reason);
        let unknown = listener.hear("spBv1.0/G/NDATA/N", Some(1), &data).unwrap_err();
        assert_eq!((unknown.reason, listener.asks.drain(..).count()), (Reason::NotAnnounced, 1));
    }
    listener.node_born(0);
    let array = metric("flags", None, 32, Carried::Bytes(flags));
    let report = listener.hear("spBv1.0/G/NDATA/N", Some(1), &[array, by_alias(1, Carried::Double(2.0))]).unwrap();
    assert_eq!((samples(&report), report.left_out[0].reason), (vec![number("Supply", 2.0)], Reason::TooManyKeys));
    assert_eq!(listener.asks, []);
}
