//! No message makes a decoder panic, and what is taken is within the limits: documents, lines and tokens that are almost
//! right, on topics that mean something to a format.

mod packed;
mod scraps;
mod timed;

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;
use serde_json::{Value as Json, json};

use super::memory::Memory;
use super::sparkplug::wire::{Carried, Metric, Payload, Property, PropertySet};
use super::tests::{LIMITS, context};
use super::*;
use scraps::{KEYS, LEVELS, SCRAPS, TOKENS, TOPICS, WORDS};

fn topics() -> impl Strategy<Value = String> {
    let levels = prop::collection::vec(prop::sample::select(&LEVELS[..]), 1..6).prop_map(|levels| levels.join("/"));
    prop_oneof![levels, prop::sample::select(&TOPICS[..]).prop_map(str::to_owned)]
}

/// JSON that is mostly almost right, and bytes.
fn payloads() -> impl Strategy<Value = Vec<u8>> {
    let scraps = prop::collection::vec(prop::sample::select(&SCRAPS[..]), 0..24);
    prop_oneof![
        6 => scraps.clone().prop_map(|scraps| scraps.concat().into_bytes()),
        3 => scraps.prop_map(|scraps| balanced(&scraps.concat()).into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..200),
    ]
}

/// An object of the text, with what is open in it closed.
fn balanced(text: &str) -> String {
    let mut open = vec!['}'];
    for c in text.chars() {
        match c {
            '{' => open.push('}'),
            '[' => open.push(']'),
            '}' | ']' if open.last() == Some(&c) => drop(open.pop()),
            _ => {}
        }
    }
    let text = format!("{{{}", text.trim_end_matches([',', ':', ' ']));
    open.iter().rev().fold(text, |text, close| text + &close.to_string())
}

fn documents() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(|number| json!(number)),
        prop::sample::select(vec!["x", "10000", "2023-11-14T22:13:20Z", "0001-01-01T00:00:00Z"]).prop_map(Json::from),
    ];
    leaf.prop_recursive(6, 40, 6, |inner| {
        let key = prop::sample::select(&KEYS[..]).prop_map(str::to_owned);
        let members = prop::collection::vec((key, inner.clone()), 0..6);
        prop_oneof![
            1 => prop::collection::vec(inner, 0..4).prop_map(Json::from),
            3 => members.prop_map(|members| Json::Object(members.into_iter().collect())),
        ]
    })
}

/// Every decoder on some messages, one after the other with one memory. `named`: the filter captures the topic's levels.
fn all_decode(messages: &[(String, Vec<u8>)], named: bool, like: &Context<'_>) -> Result<(), TestCaseError> {
    for decoder in Decoder::ALL {
        let mut memory = Memory::default();
        for (topic, payload) in messages {
            let (device, rest) = topic.split_once('/').unwrap_or((topic, ""));
            let metric = Some(rest.replace('/', ".").into());
            let captures = Captures { device: Some(device), metric, ..Captures::default() };
            let captures = if named { captures } else { Captures::default() };
            let context = Context { topic, captures: &captures, ..*like };
            let reports = decode(decoder, payload, &context, &mut memory.of_source(&"fuzzed".into()));
            for report in reports.unwrap_or_default() {
                check(&report).map_err(|what| TestCaseError::fail(format!("{decoder:?}: {what}")))?;
            }
        }
    }
    Ok(())
}

/// Whether all that is taken is within the limits.
fn check(report: &Report) -> Result<(), String> {
    let signal = report.signal.iter().map(|(name, value)| (*name, value));
    for (key, value) in report.points.iter().flat_map(Point::iter).chain(signal) {
        let number = match value {
            Value::Number(number) | Value::Literal { number, .. } => *number,
            Value::Text(_) | Value::Bool(_) => 0.0,
        };
        let length = match value {
            Value::Text(text) | Value::Literal { text, .. } => text.len(),
            Value::Number(_) | Value::Bool(_) => 0,
        };
        let sound = number.is_finite() && length <= LIMITS.max_text_length && key.len() <= LIMITS.max_key_length;
        if !sound {
            return Err(format!("{key}: {value:?}"));
        }
    }
    Ok(())
}

/// Metrics that mostly belong together: few names and aliases, so that data find births.
fn metrics() -> impl Strategy<Value = Metric> {
    let bytes = || prop::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], 0..20).prop_map(Bytes::from);
    let carried = prop_oneof![
        any::<u32>().prop_map(Carried::Int),
        any::<u64>().prop_map(Carried::Long),
        any::<f32>().prop_map(Carried::Float),
        any::<f64>().prop_map(Carried::Double),
        any::<bool>().prop_map(Carried::Boolean),
        "[a-z\0]{0,8}".prop_map(Carried::Text),
        bytes().prop_map(Carried::Bytes),
        bytes().prop_map(Carried::Template),
    ];
    let names = prop::sample::select(vec!["bdSeq", "Node Control/Rebirth", "a", "b", "c/d", ""]);
    let property = (any::<Option<u32>>(), prop::option::of("[a-z]{0,3}"));
    let flags = (any::<bool>(), 0..20_u8);
    (
        prop::option::of(names),
        prop::option::of(0..5_u64),
        prop::option::of(prop_oneof![3 => 0..2_000_000_000_000_u64, 1 => any::<u64>()]),
        prop::option::of(0..36_u32),
        prop::option::of((prop::sample::select(vec!["engUnit", "Quality", "x"]), property)),
        prop::option::of(carried),
        flags,
    )
        .prop_map(|(name, alias, timestamp, datatype, property, value, (flag, which))| Metric {
            name: name.map(str::to_owned),
            alias,
            timestamp,
            datatype,
            is_null: (which == 1).then_some(flag),
            is_transient: (which == 2).then_some(flag),
            is_historical: (which == 3).then_some(flag),
            properties: property.map(|(key, (int, text))| {
                let value = Property { int, text, ..Property::default() }.encode_to_vec().into();
                PropertySet { keys: vec![key.to_owned()], values: vec![value] }.encode_to_vec().into()
            }),
            value,
        })
}

/// Messages of one edge node and its device; some are cut short, or have a byte that is another.
fn edge_node() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    let types = prop::sample::select(vec!["NBIRTH", "DBIRTH", "NDATA", "DDATA", "NDEATH", "DDEATH"]);
    let payload = (prop::collection::vec(metrics(), 0..8), any::<Option<u64>>(), prop::option::of(0..4_u64));
    let damage = prop::option::weighted(0.2, (any::<prop::sample::Index>(), any::<Option<u8>>()));
    let message = (types, payload, damage).prop_map(|(kind, (metrics, timestamp, seq), damage)| {
        let metrics = metrics.iter().map(|metric| metric.encode_to_vec().into()).collect();
        let mut bytes = Payload { timestamp, metrics, seq }.encode_to_vec();
        if let Some((at, byte)) = damage.filter(|_| !bytes.is_empty()) {
            let at = at.index(bytes.len());
            match byte {
                Some(byte) => bytes[at] = byte,
                None => bytes.truncate(at),
            }
        }
        let device = if kind.starts_with('D') { "/D" } else { "" };
        (format!("spBv1.0/G/{kind}/N{device}"), bytes)
    });
    prop::collection::vec(message, 1..8)
}

proptest! {
    #[test]
    fn edge_nodes_are_taken_or_refused(messages in edge_node(), named in any::<bool>()) {
        all_decode(&messages, named, &context())?;
    }

    #[test]
    fn messages_are_taken_or_refused(
        messages in prop::collection::vec((topics(), payloads()), 1..5),
        named in any::<bool>(),
    ) {
        all_decode(&messages, named, &context())?;
    }

    #[test]
    fn documents_are_taken_or_refused(document in documents(), topic in topics()) {
        all_decode(&[(topic, document.to_string().into_bytes())], false, &context())?;
    }

    #[test]
    fn lines_are_taken_or_refused(
        words in prop::collection::vec(prop::sample::select(&WORDS[..]), 0..60),
        header in any::<bool>(),
        timestamp in prop::option::of(Just("a")),
    ) {
        let context = Context { timestamp, csv: Csv { header }, ..context() };
        all_decode(&[(String::new(), words.concat().into_bytes())], false, &context)?;
    }

    #[test]
    fn tokens_are_taken_or_refused(
        tokens in prop::collection::vec(prop::sample::select(&TOKENS[..]), 0..60),
        topic in topics(),
    ) {
        all_decode(&[(topic, tokens.concat())], false, &context())?;
    }
}
