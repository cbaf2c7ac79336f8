//! `tidegate decode`, the contract's dry run, on the payloads of `tests/payloads/`.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Stdio;

use serde_json::Value as Json;
use tidegate::time::{Stamp, UtcMicros, read};

use crate::corpus;
use crate::support::daemon::{Tidegate, complaint};

/// Instant (none: of receipt) → metric → value.
type Found = BTreeMap<Option<UtcMicros>, BTreeMap<String, Json>>;

#[test]
fn json_payloads_become_what_the_corpus_says() {
    assert_eq!(check(include_str!("payloads/json.json"), "json"), 15);
}

#[test]
fn scalar_payloads_become_what_the_corpus_says() {
    assert_eq!(check(include_str!("payloads/scalar.json"), "scalar"), 15);
}

#[test]
fn malformed_payloads_are_refused_as_the_corpus_says() {
    assert_eq!(check(include_str!("payloads/malformed.json"), "json"), 15);
}

#[test]
fn the_table_says_what_each_key_becomes() {
    let tidegate = configured("devices/{device}/telemetry", "json", "template = \"native-climate\"");
    let text = decode(&tidegate, &["--topic", "devices/d1/telemetry"], br#"{"temp":"21.5","hum":"wet","x":1}"#);
    for words in ["native-climate", "temperature", "21.5", "°C", "hum: wrong_kind: found text \"wet\"", "x"] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn a_topic_that_no_source_takes_is_told_with_exit_code_0() {
    let tidegate = configured("devices/{device}/telemetry", "json", "");
    let found = decode_json(&tidegate, "elsewhere", b"{}");
    assert_eq!(found["source"], Json::Null);
    assert_eq!(found["quarantine"][0]["reason"], "unknown_source");
}

fn configured(filter: &str, decoder: &str, more: &str) -> Tidegate {
    Tidegate::configured(&format!(
        "[instance]\nstate_dir = \"{{state}}\"\n[[sources]]\nname = \"corpus\"\nfilter = \"{filter}\"\n\
         decoder = \"{decoder}\"\nmax_payload = \"2MiB\"\n{more}\n[time]\nmax_age = \"100years\"\n"
    ))
}

fn decode(tidegate: &Tidegate, arguments: &[&str], payload: &[u8]) -> String {
    let mut command = tidegate.command(&["decode"]);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(payload).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", complaint(&output));
    assert!(!tidegate.state_dir().exists(), "the dry run leaves nothing behind");
    String::from_utf8(output.stdout).unwrap()
}

fn decode_json(tidegate: &Tidegate, topic: &str, payload: &[u8]) -> Json {
    serde_json::from_str(&decode(tidegate, &["--topic", topic, "--json"], payload)).unwrap()
}

/// Checks every case of a file; how many there were.
fn check(file: &str, decoder: &str) -> usize {
    let file: Json = serde_json::from_str(file).unwrap();
    let cases = file["cases"].as_array().unwrap();
    for case in cases {
        let (name, expect) = (case["name"].as_str().unwrap(), &case["expect"]);
        let tidegate = configured(case["filter"].as_str().unwrap(), decoder, "");
        let before = now();
        let report = decode_json(&tidegate, case["topic"].as_str().unwrap(), &corpus::payload(case));
        assert_eq!(
            (&report["source"], &report["decoder"], &report["device"]),
            (&"corpus".into(), &decoder.into(), &expect["device"]),
            "{name}"
        );
        let refusals = report["quarantine"].as_array().unwrap();
        let (wanted, refused) = match expect["reject"].as_str() {
            Some(words) => (Found::new(), vec![(corpus::reason(words).code().to_owned(), Json::Null, words)]),
            None => without_nul(expected(expect)),
        };
        assert_eq!(found(&report, before), wanted, "{name}");
        assert_eq!(refusals.len(), refused.len(), "{name}: {refusals:?}");
        for (refusal, (reason, key, words)) in refusals.iter().zip(refused) {
            assert_eq!((&refusal["reason"], &refusal["key"]), (&reason.into(), &key), "{name}");
            assert!(refusal["detail"].as_str().unwrap().contains(words), "{name}: {refusal}");
        }
    }
    cases.len()
}

fn now() -> UtcMicros {
    UtcMicros(jiff::Timestamp::now().as_microsecond())
}

/// What the report gives; a time of this call is that of receipt.
fn found(report: &Json, before: UtcMicros) -> Found {
    let mut found = Found::new();
    for reading in report["readings"].as_array().unwrap() {
        let time = read(Stamp::Text(reading["time"].as_str().unwrap()), None).unwrap();
        let time = (time < before || time > now()).then_some(time);
        assert_eq!(reading["unit"], "");
        let metric = reading["metric"].as_str().unwrap().to_owned();
        let twice = found.entry(time).or_default().insert(metric, comparable(&reading["value"]));
        assert_eq!(twice, None, "twice at one instant");
    }
    found
}

fn expected(expect: &Json) -> Found {
    let whole = std::slice::from_ref(expect);
    let mut found = Found::new();
    for point in expect["points"].as_array().map_or(whole, Vec::as_slice) {
        let time = point["time"].as_str().map(|time| read(Stamp::Text(time), None).unwrap());
        for (key, value) in point["samples"].as_object().unwrap() {
            found.entry(time).or_default().insert(key.clone(), comparable(value));
        }
    }
    found
}

/// Numbers as a reading holds them.
fn comparable(value: &Json) -> Json {
    match value.as_f64() {
        Some(number) => (number + 0.0).into(),
        None => value.clone(),
    }
}

/// Text with a NUL decodes, and is then refused, since the databases can't hold it.
fn without_nul(mut found: Found) -> (Found, Vec<(String, Json, &'static str)>) {
    let mut refused = Vec::new();
    for samples in found.values_mut() {
        samples.retain(|key, value| {
            let nul = value.as_str().is_some_and(|text| text.contains('\0'));
            if nul {
                refused.push(("bad_text".to_owned(), key.as_str().into(), "NUL"));
            }
            !nul
        });
    }
    found.retain(|_, samples| !samples.is_empty());
    (found, refused)
}
