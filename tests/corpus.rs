//! Real payloads (`tests/payloads/`) become exactly what their files say.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use tidegate::config::{Decoder, Limits, Retained, Source};
use tidegate::decode::{Context, Point, Value, decode};
use tidegate::quarantine::Reason;
use tidegate::source::Sources;
use tidegate::time::{Stamp, UtcMicros, read};

const LIMITS: Limits = Limits { max_depth: 32, max_keys: 1000, max_key_length: 255, max_text_length: 4096 };

/// Instant (none: of receipt) → raw key → value.
type Found = BTreeMap<Option<UtcMicros>, BTreeMap<String, Value>>;

#[test]
fn json_payloads_become_what_the_corpus_says() {
    assert_eq!(check(include_str!("payloads/json.json"), Decoder::Json), 15);
}

#[test]
fn scalar_payloads_become_what_the_corpus_says() {
    assert_eq!(check(include_str!("payloads/scalar.json"), Decoder::Scalar), 15);
}

#[test]
fn malformed_payloads_are_refused_as_the_corpus_says() {
    assert_eq!(check(include_str!("payloads/malformed.json"), Decoder::Json), 15);
}

/// Checks every case of a file; how many there were.
fn check(file: &str, decoder: Decoder) -> usize {
    let file: Json = serde_json::from_str(file).unwrap();
    let cases = file["cases"].as_array().unwrap();
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let expect = &case["expect"];
        let source = Source {
            name: "corpus".to_owned(),
            filter: case["filter"].as_str().unwrap().to_owned(),
            decoder,
            template: None,
            timestamp: None,
            timezone: None,
            retained: Retained::Store,
            max_payload: usize::MAX,
            quiet_after: None,
            quiet_reconnect: false,
        };
        let sources = Sources::compile(&[source]).unwrap();
        let route = sources.route(case["topic"].as_str().unwrap()).unwrap_or_else(|| panic!("{name}: no route"));
        assert_eq!(route.captures.device, expect["device"].as_str(), "{name}");
        let metric = route.captures.metric.as_deref();
        let context = Context { metric, timestamp: None, timezone: None, limits: &LIMITS };
        let found = decode(decoder, &payload(case), &context);
        match expect["reject"].as_str() {
            Some(words) => {
                let refusal = found.expect_err(name);
                assert!(refusal.detail.contains(words), "{name}: {refusal:?} lacks {words:?}");
                assert_eq!(refusal.reason, reason(words), "{name}");
            }
            None => assert_eq!(merged(found.expect(name), name), expected(expect), "{name}"),
        }
    }
    cases.len()
}

pub fn reason(words: &str) -> Reason {
    match words {
        "malformed JSON" | "byte order mark" | "trailing data after the JSON document" => Reason::Malformed,
        "invalid UTF-8" => Reason::NotUtf8,
        "number out of range" => Reason::NumberOutOfRange,
        "nested too deep" => Reason::TooDeep,
        "empty payload" => Reason::Empty,
        "text value too long" => Reason::TooLarge,
        words if words.starts_with("duplicate key ") => Reason::DuplicateKey,
        words => panic!("the corpus has a new reason: {words}"),
    }
}

pub fn payload(case: &Json) -> Vec<u8> {
    if let Some(text) = case["payload"].as_str() {
        return text.as_bytes().to_vec();
    }
    if let Some(text) = case["payload_base64"].as_str() {
        return from_base64(text);
    }
    let repeat = &case["payload_repeat"];
    let part = |name: &str| repeat[name].as_str().unwrap();
    let times = usize::try_from(repeat["times"].as_u64().unwrap()).unwrap();
    [part("prefix"), &part("unit").repeat(times), part("suffix")].concat().into_bytes()
}

/// RFC 4648, section 4.
fn from_base64(text: &str) -> Vec<u8> {
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::new();
    let (mut bits, mut held) = (0_u32, 0_u32);
    for c in text.trim_end_matches('=').chars() {
        bits = (bits << 6) | u32::try_from(alphabet.find(c).unwrap()).unwrap();
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from((bits >> held) & 0xff).unwrap());
        }
    }
    bytes
}

/// Points of one instant as one, with numbers as a reading would hold them.
fn merged(points: Vec<Point>, name: &str) -> Found {
    let mut found = Found::new();
    for point in points {
        for sample in point.samples {
            let key = sample.key(&point.keys).to_owned();
            let value = match sample.value {
                Value::Literal { number, .. } => Value::Number(number),
                value => value,
            };
            let before = found.entry(point.time).or_default().insert(key, value);
            assert_eq!(before, None, "{name}: twice at one instant");
        }
    }
    found
}

fn expected(expect: &Json) -> Found {
    let instant = |point: &Json| point["time"].as_str().map(|time| read(Stamp::Text(time), None).unwrap());
    let whole = std::slice::from_ref(expect);
    let points = expect["points"].as_array().map_or(whole, Vec::as_slice);
    let mut found = Found::new();
    for point in points {
        for (key, value) in point["samples"].as_object().unwrap() {
            let value = match value {
                Json::Number(number) => Value::Number(number.to_string().parse().unwrap()),
                Json::Bool(flag) => Value::Bool(*flag),
                Json::String(text) => Value::Text(text.clone()),
                other => panic!("{other}"),
            };
            found.entry(instant(point)).or_default().insert(key.clone(), value);
        }
    }
    found
}
