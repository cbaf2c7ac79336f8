//! Real payloads (`tests/payloads/`) become exactly what their files say.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;
use tidegate::config::{Csv, Decoder, Limits, Retained, Source};
use tidegate::decode::memory::Memory;
use tidegate::decode::{Context, Report, Value, decode};
use tidegate::quarantine::Reason;
use tidegate::source::Sources;
use tidegate::time::{Stamp, UtcMicros, read};

const LIMITS: Limits = Limits { max_depth: 32, max_keys: 1000, max_key_length: 255, max_text_length: 4096 };

/// When every case's message came.
const RECEIVED: UtcMicros = UtcMicros(1_800_000_000_000_000);

/// Device → instant (none: of receipt) → raw key → its values, more than one where they come for one instant.
type Found = BTreeMap<String, BTreeMap<Option<UtcMicros>, BTreeMap<String, Vec<Value>>>>;

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

#[test]
fn esphome_payloads_become_what_the_corpus_says() {
    assert_eq!(check(include_str!("payloads/esphome.json"), Decoder::Esphome), 12);
}

#[test]
fn home_assistant_payloads_become_what_the_corpus_says() {
    assert_eq!(check(include_str!("payloads/ha_statestream.json"), Decoder::HomeAssistant), 8);
}

#[test]
fn homie_payloads_become_what_the_corpus_says() {
    assert_eq!(check(include_str!("payloads/homie.json"), Decoder::Homie), 15);
}

#[test]
fn openmqttgateway_payloads_become_what_the_corpus_says() {
    assert_eq!(check(include_str!("payloads/openmqttgateway.json"), Decoder::OpenMqttGateway), 9);
}

#[test]
fn rtl_433_payloads_become_what_the_corpus_says() {
    assert_eq!(check(include_str!("payloads/rtl_433.json"), Decoder::Rtl433), 12);
}

#[test]
fn ruuvi_payloads_become_what_the_corpus_says() {
    assert_eq!(check(include_str!("payloads/ruuvi.json"), Decoder::Ruuvi), 6);
}

#[test]
fn senml_json_payloads_become_what_the_corpus_says() {
    assert_eq!(check(include_str!("payloads/senml_json.json"), Decoder::Senml), 15);
}

#[test]
fn senml_cbor_payloads_become_what_the_corpus_says() {
    assert_eq!(check(include_str!("payloads/senml_cbor.json"), Decoder::Senml), 8);
}

#[test]
fn shelly_gen1_payloads_become_what_the_corpus_says() {
    assert_eq!(check(include_str!("payloads/shelly_gen1.json"), Decoder::Shelly), 12);
}

#[test]
fn shelly_gen2_payloads_become_what_the_corpus_says() {
    assert_eq!(check(include_str!("payloads/shelly_gen2.json"), Decoder::Shelly), 13);
}

#[test]
fn sparkplug_payloads_become_what_the_corpus_says() {
    assert_eq!(check(include_str!("payloads/sparkplug_b.json"), Decoder::Sparkplug), 15);
}

#[test]
fn tasmota_payloads_become_what_the_corpus_says() {
    assert_eq!(check(include_str!("payloads/tasmota.json"), Decoder::Tasmota), 15);
}

#[test]
fn victron_payloads_become_what_the_corpus_says() {
    assert_eq!(check(include_str!("payloads/victron.json"), Decoder::Victron), 10);
}

#[test]
fn aws_shadow_payloads_become_what_the_corpus_says() {
    assert_eq!(check(include_str!("payloads/aws_shadow.json"), Decoder::AwsShadow), 6);
}

#[test]
fn chirpstack_payloads_become_what_the_corpus_says() {
    assert_eq!(check(include_str!("payloads/chirpstack.json"), Decoder::Chirpstack), 13);
}

#[test]
fn csv_payloads_become_what_the_corpus_says() {
    assert_eq!(check(include_str!("payloads/csv.json"), Decoder::Csv), 8);
}

#[test]
fn line_protocol_payloads_become_what_the_corpus_says() {
    assert_eq!(check(include_str!("payloads/influx_line.json"), Decoder::LineProtocol), 15);
}

#[test]
fn losant_payloads_become_what_the_corpus_says() {
    assert_eq!(check(include_str!("payloads/losant.json"), Decoder::Losant), 4);
}

#[test]
fn thin_edge_payloads_become_what_the_corpus_says() {
    assert_eq!(check(include_str!("payloads/thin_edge.json"), Decoder::ThinEdge), 7);
}

#[test]
fn thingsboard_payloads_become_what_the_corpus_says() {
    assert_eq!(check(include_str!("payloads/thingsboard.json"), Decoder::Thingsboard), 13);
}

#[test]
fn ttn_payloads_become_what_the_corpus_says() {
    assert_eq!(check(include_str!("payloads/ttn.json"), Decoder::Ttn), 12);
}

#[test]
fn zigbee2mqtt_payloads_become_what_the_corpus_says() {
    assert_eq!(check(include_str!("payloads/zigbee2mqtt.json"), Decoder::Zigbee2Mqtt), 15);
}

/// What of a case `auto` reads otherwise than the format's own decoder, which has a filter that says more.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Otherwise {
    /// The names of device and keys; the values and their times are the same.
    Names,
    Everything,
}

/// File, case (all the others, if it is empty), and why.
const READ_OTHERWISE: [(&str, &str, Otherwise, &str); 9] = [
    ("scalar", "", Otherwise::Names, "nothing says which level is the device: it is all but the last"),
    ("influx_line", "", Otherwise::Names, "nothing says which level is the device: it is the whole topic"),
    ("csv", "no header: blanks around fields", Otherwise::Everything, "the source says whether there is a header"),
    ("csv", "no header: vendor frame with unit letters", Otherwise::Everything, "the source says it"),
    ("csv", "", Otherwise::Names, "nothing says which level is the device"),
    ("ha_statestream", "attribute, list", Otherwise::Everything, "a domain that Home Assistant does not have"),
    ("ha_statestream", "", Otherwise::Names, "the entity id is the device, lest light.x and sensor.x meet"),
    ("rtl_433", "devices topic: float32 noise in a bare scalar", Otherwise::Names, "an operator's own topics"),
    ("rtl_433", "devices topic: text", Otherwise::Names, "an operator's own topics"),
];

fn otherwise(file: &str, case: &str) -> Option<Otherwise> {
    let is_meant = |(known, name, ..): &&(&str, &str, Otherwise, &str)| *known == file && [case, ""].contains(name);
    READ_OTHERWISE.iter().find(is_meant).map(|(_, _, what, _)| *what)
}

/// Instants and values, whatever their names.
fn nameless(found: Found) -> Vec<String> {
    let points = found.into_values().flatten();
    let values = points.flat_map(|(time, keys)| keys.into_values().flatten().map(move |value| (time, value)));
    let mut values: Vec<String> = values.map(|value| format!("{value:?}")).collect();
    values.sort();
    values
}

/// Every case of every format, in a file's order, as one source with the filter `#` would see it.
#[test]
fn auto_reads_every_format_as_its_own_decoder_does() {
    let files = [
        include_str!("payloads/aws_shadow.json"),
        include_str!("payloads/chirpstack.json"),
        include_str!("payloads/csv.json"),
        include_str!("payloads/esphome.json"),
        include_str!("payloads/ha_statestream.json"),
        include_str!("payloads/homie.json"),
        include_str!("payloads/influx_line.json"),
        include_str!("payloads/json.json"),
        include_str!("payloads/losant.json"),
        include_str!("payloads/malformed.json"),
        include_str!("payloads/openmqttgateway.json"),
        include_str!("payloads/rtl_433.json"),
        include_str!("payloads/ruuvi.json"),
        include_str!("payloads/scalar.json"),
        include_str!("payloads/senml_cbor.json"),
        include_str!("payloads/senml_json.json"),
        include_str!("payloads/shelly_gen1.json"),
        include_str!("payloads/shelly_gen2.json"),
        include_str!("payloads/sparkplug_b.json"),
        include_str!("payloads/tasmota.json"),
        include_str!("payloads/thin_edge.json"),
        include_str!("payloads/thingsboard.json"),
        include_str!("payloads/ttn.json"),
        include_str!("payloads/victron.json"),
        include_str!("payloads/zigbee2mqtt.json"),
    ];
    let cases: usize = files.into_iter().map(|file| check(file, Decoder::Auto)).sum();
    assert_eq!(cases, 288);
}

/// Checks every case of a file, in order and with one memory; how many there were.
fn check(file: &str, decoder: Decoder) -> usize {
    let file: Json = serde_json::from_str(file).unwrap();
    let format = file["format"].as_str().unwrap();
    let cases = file["cases"].as_array().unwrap();
    let mut memory = Memory::default();
    for case in cases {
        let (name, expect) = (case["name"].as_str().unwrap(), &case["expect"]);
        let otherwise = (decoder == Decoder::Auto).then(|| otherwise(format, name)).flatten();
        if otherwise == Some(Otherwise::Everything) {
            continue;
        }
        let sources = Sources::compile(&[source(case, decoder)]).unwrap_or_else(|error| panic!("{name}: {error}"));
        let topic = case["topic"].as_str().unwrap();
        let route = sources.route(topic).unwrap_or_else(|| panic!("{name}: no route"));
        let context = Context {
            topic,
            captures: &route.captures,
            received_at: RECEIVED,
            timestamp: None,
            timezone: None,
            limits: &LIMITS,
            csv: route.source.csv,
            sparkplug: route.source.sparkplug,
        };
        let found = decode(decoder, &payload(case), &context, &mut memory.of_source(&route.source.name));
        match expect["reject"].as_str() {
            Some(words) => {
                let refusal = found.expect_err(name);
                assert!(refusal.detail.contains(words), "{name}: {refusal:?} lacks {words:?}");
                assert_eq!(refusal.reason, reason(words), "{name}");
            }
            None => {
                let reports = found.unwrap_or_else(|refusal| panic!("{name}: {refusal:?}"));
                if otherwise == Some(Otherwise::Names) {
                    let found = merged(reports, route.captures.device, name);
                    assert_eq!(nameless(found), nameless(expected(expect)), "{name}");
                    continue;
                }
                assert_eq!(units(&reports), expected_units(name, expect), "{name}");
                // What carries no readings need not tell whose it is.
                if !reports.is_empty() {
                    assert_eq!(named(&reports, route.captures.device, name), expected_devices(expect), "{name}");
                }
                assert_eq!(merged(reports, route.captures.device, name), expected(expect), "{name}");
            }
        }
    }
    cases.len()
}

/// `#` does not match topics that begin with `$`.
fn filter(case: &Json, decoder: Decoder) -> &str {
    match decoder {
        Decoder::Auto if case["topic"].as_str().unwrap().starts_with("$aws/") => "$aws/#",
        Decoder::Auto => "#",
        _ => case["filter"].as_str().unwrap(),
    }
}

fn source(case: &Json, decoder: Decoder) -> Source {
    Source {
        decoder,
        retained: Retained::Store,
        max_payload: usize::MAX,
        csv: Csv { header: !case["name"].as_str().unwrap().starts_with("no header") },
        ..Source::with("corpus".to_owned(), filter(case, decoder).to_owned())
    }
}

pub fn reason(words: &str) -> Reason {
    match words {
        "malformed JSON" | "byte order mark" | "trailing data after the JSON document" | "not JSON" => {
            Reason::Malformed
        }
        "no fields" | "malformed line 2" | "not a finite number" => Reason::Malformed,
        "truncated CBOR" | "SenML pack must be an array" | "not an integer" => Reason::Malformed,
        "unsupported SenML version" | "unknown label scale_ must be understood" => Reason::Unsupported,
        "record of 2 fields under a header of 3" => Reason::Malformed,
        "malformed protobuf" => Reason::Malformed,
        "unknown alias: a rebirth is needed" => Reason::NotAnnounced,
        "invalid UTF-8" => Reason::NotUtf8,
        "number out of range" | "integer out of range" => Reason::NumberOutOfRange,
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
pub fn from_base64(text: &str) -> Vec<u8> {
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

/// Points of one instant as one, with numbers as a reading would hold them. Devices without a sample are left out.
fn merged(reports: Vec<Report>, of_topic: Option<&str>, name: &str) -> Found {
    let mut found = Found::new();
    for report in reports {
        let device = report.device.as_deref().or(of_topic).unwrap_or_else(|| panic!("{name}: no device"));
        for point in report.points {
            for sample in point.samples {
                let key = sample.key(&point.keys).to_owned();
                let value = match sample.value {
                    Value::Literal { number, .. } => Value::Number(number),
                    value => value,
                };
                let points = found.entry(device.to_owned()).or_default();
                points.entry(point.time).or_default().entry(key).or_default().push(value);
            }
        }
    }
    found
}

/// Every device that is told of, with samples or without.
fn named(reports: &[Report], of_topic: Option<&str>, name: &str) -> BTreeSet<String> {
    let device = |report: &Report| {
        report.device.as_deref().or(of_topic).unwrap_or_else(|| panic!("{name}: no device")).to_owned()
    };
    reports.iter().map(device).collect()
}

fn expected_devices(expect: &Json) -> BTreeSet<String> {
    devices(expect).into_iter().map(|(device, _)| device).collect()
}

/// What each device is to have: `devices`, or the one `device`; each with `points`, or being one.
fn devices(expect: &Json) -> Vec<(String, &Json)> {
    match expect["devices"].as_object() {
        Some(devices) => devices.iter().map(|(device, points)| (device.clone(), points)).collect(),
        None => vec![(expect["device"].as_str().unwrap_or_default().to_owned(), expect)],
    }
}

fn points(of: &Json) -> &[Json] {
    of["points"].as_array().map_or(std::slice::from_ref(of), Vec::as_slice)
}

fn expected(expect: &Json) -> Found {
    let mut found = Found::new();
    for (device, of) in devices(expect) {
        for point in points(of) {
            // What a raw advertisement adds, where the file tells it apart.
            let samples = point["samples"].as_object().unwrap();
            let decoded = point["decoded"].as_object().into_iter().flatten();
            for (key, value) in samples.iter().chain(decoded.filter(|(key, _)| !samples.contains_key(*key))) {
                let value = match value {
                    Json::Number(number) => Value::Number(number.to_string().parse().unwrap()),
                    Json::Bool(flag) => Value::Bool(*flag),
                    Json::String(text) => Value::Text(text.clone()),
                    other => panic!("{other}"),
                };
                let points = found.entry(device.clone()).or_default();
                points.entry(instant(point)).or_default().entry(key.clone()).or_default().push(value);
            }
        }
    }
    found
}

/// `offset_s` is relative to the receipt.
fn instant(point: &Json) -> Option<UtcMicros> {
    if let Some(offset) = point["offset_s"].as_f64() {
        return Some(UtcMicros(RECEIVED.0 + (offset * 1e6) as i64));
    }
    point["time"].as_str().map(|time| read(Stamp::Text(time), None).unwrap())
}

fn units(reports: &[Report]) -> BTreeSet<(String, String)> {
    reports.iter().flat_map(|report| report.units.iter().cloned()).collect()
}

/// Units that a message before the case's declared: the files tell only what is in the payload.
const DECLARED_BEFORE: [(&str, &str, &str); 1] = [("v5 float property", "engine.temperature", "°C")];

fn expected_units(name: &str, expect: &Json) -> BTreeSet<(String, String)> {
    let all = devices(expect);
    let units = all.iter().flat_map(|(_, of)| points(of)).filter_map(|point| point["units"].as_object());
    let units = units.flatten().map(|(key, unit)| (key.clone(), unit.as_str().unwrap().to_owned()));
    let before = DECLARED_BEFORE.iter().filter(|(case, ..)| *case == name);
    units.chain(before.map(|(_, key, unit)| ((*key).to_owned(), (*unit).to_owned()))).collect()
}
