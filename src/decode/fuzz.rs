//! Every decoder on documents, lines and tokens that are almost right: no panic, and what is taken is within the limits.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::memory::Memory;
use super::tests::{LIMITS, context};
use super::*;

/// Topics that mean something to a format.
const TOPICS: [&str; 9] = [
    "",
    "$aws/things/t/shadow/update/documents",
    "a/event/location",
    "a/event/log",
    "a/event/status",
    "a/event/up",
    "te/device/main///m/env",
    "v1/devices/me/telemetry",
    "v1/gateway/telemetry",
];

/// Words of line formats.
const WORDS: [&str; 21] = [
    "m",
    "a",
    "b",
    "=",
    ",",
    " ",
    "\n",
    "\r\n",
    "\"",
    "\\",
    "#",
    "t",
    "1",
    "-1.5",
    "1i",
    "9e999",
    "null",
    "ts",
    "time",
    "1700000000",
    "\u{e4}",
];

/// Words of CBOR, MessagePack and Protobuf.
const TOKENS: [&[u8]; 33] = [
    b"\x61a",
    b"\xa1a",
    b"\x62ts",
    b"\xa2ts",
    b"\x66values",
    b"\xa6values",
    b"\x00",
    b"\x01",
    b"\x20",
    b"\x80",
    b"\x81",
    b"\x82",
    b"\x91",
    b"\x92",
    b"\xa0",
    b"\xa1",
    b"\xa2",
    b"\xbf",
    b"\x9f",
    b"\xff",
    b"\xc0",
    b"\xc1",
    b"\xc2",
    b"\xc4",
    b"\xc7\x08\xff",
    b"\xd6\xff",
    b"\xf9\x3c\x00",
    b"\xca\x41\xac\x00\x00",
    b"\xfb\x7f\xf0",
    b"\x5a\x06",
    b"\x62\x04",
    b"\x0a\x05\x0a\x01",
    b"\x12\x02\x20\x01",
];

/// Members that formats look for, and some that they do not.
const KEYS: [&str; 33] = [
    "a",
    "b",
    "a.b",
    "ts",
    "values",
    "time",
    "data",
    "$date",
    "$numberLong",
    "$undefined",
    "state",
    "current",
    "reported",
    "desired",
    "metadata",
    "timestamp",
    "object",
    "location",
    "margin",
    "batteryLevel",
    "deviceInfo",
    "devEui",
    "rxInfo",
    "rssi",
    "snr",
    "uplink_message",
    "decoded_payload",
    "end_device_ids",
    "device_id",
    "rx_metadata",
    "received_at",
    "properties",
    "",
];

fn documents() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(|number| json!(number)),
        prop::sample::select(vec!["x", "10000", "2023-11-14T22:13:20Z", "0001-01-01T00:00:00Z"]).prop_map(Json::from),
    ];
    leaf.prop_recursive(6, 40, 6, |inner| {
        let key = prop::sample::select(KEYS.to_vec()).prop_map(str::to_owned);
        let members = prop::collection::vec((key, inner.clone()), 0..6);
        prop_oneof![
            1 => prop::collection::vec(inner, 0..4).prop_map(Json::from),
            3 => members.prop_map(|members| Json::Object(members.into_iter().collect())),
        ]
    })
}

/// Every decoder on one payload.
fn all_decode(payload: &[u8], topic: &str, timestamp: Option<&str>, header: bool) -> Result<(), TestCaseError> {
    let mut memory = Memory::default();
    let mut recall = memory.of_source(&"fuzzed".into());
    for decoder in Decoder::ALL {
        let context = Context { topic, timestamp, csv: Csv { header }, ..context() };
        let reports = decode(decoder, payload, &context, &mut recall).unwrap_or_default();
        let points = reports.iter().flat_map(|report| report.points.iter());
        for sample in points.flat_map(|point| &point.samples).chain(reports.iter().flat_map(|report| &report.signal)) {
            prop_assert!(sample.key.len() <= LIMITS.max_key_length, "{decoder:?}");
            let sound = match &sample.value {
                Value::Number(number) | Value::Literal { number, .. } => number.is_finite(),
                Value::Text(text) => text.len() <= LIMITS.max_text_length,
                Value::Bool(_) => true,
            };
            prop_assert!(sound, "{decoder:?}: {sample:?}");
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn documents_are_taken_or_refused(document in documents(), topic in prop::sample::select(TOPICS.to_vec())) {
        all_decode(document.to_string().as_bytes(), topic, None, true)?;
    }

    #[test]
    fn lines_are_taken_or_refused(
        words in prop::collection::vec(prop::sample::select(WORDS.to_vec()), 0..60),
        header in any::<bool>(),
        timestamp in prop::option::of(Just("a")),
    ) {
        all_decode(words.concat().as_bytes(), "", timestamp, header)?;
    }

    #[test]
    fn tokens_are_taken_or_refused(
        tokens in prop::collection::vec(prop::sample::select(TOKENS.to_vec()), 0..60),
        topic in prop::sample::select(TOPICS.to_vec()),
    ) {
        all_decode(&tokens.concat(), topic, None, true)?;
    }

    #[test]
    fn bytes_are_taken_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        topic in prop::sample::select(TOPICS.to_vec()),
    ) {
        all_decode(&bytes, topic, None, false)?;
    }
}
