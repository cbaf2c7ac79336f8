//! No message makes a decoder panic, and what is taken is within the limits: documents, lines and tokens that are almost
//! right, on topics that mean something to a format.

mod scraps;
mod timed;

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::memory::Memory;
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

proptest! {
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
