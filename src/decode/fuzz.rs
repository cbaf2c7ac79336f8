//! No topic and no payload makes a decoder panic, and what it takes is within the limits: scraps of every format's grammar,
//! on topics that mean something to one.

use proptest::prelude::*;

use super::memory::Memory;
use super::tests::{LIMITS, context};
use super::{Context, Report, Value, decode};
use crate::config::Decoder;
use crate::source::Captures;

const LEVELS: [&str; 40] = [
    "",
    "tele",
    "stat",
    "cmnd",
    "SENSOR",
    "RESULT",
    "STATUS8",
    "LWT",
    "shellies",
    "events",
    "rpc",
    "status",
    "switch:0",
    "relay",
    "0",
    "info",
    "sensor",
    "light",
    "state",
    "debug",
    "homeassistant",
    "device",
    "config",
    "base",
    "home",
    "BTtoMQTT",
    "SYStoMQTT",
    "commands",
    "rtl_433",
    "devices",
    "time",
    "ruuvi",
    "gw_status",
    "N",
    "R",
    "Ac",
    "d",
    "full_publish_completed",
    "é",
    "x.y",
];

const SCRAPS: [&str; 64] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "1",
    "-0.5e3",
    "true",
    "null",
    "nan",
    "None",
    "1e999",
    " ",
    "é",
    "\"a\":1,",
    "{\"a\":",
    "\"a.b\":2,",
    "\"Time\":",
    "\"2018.02.01 21:29:40\"",
    "\"Epoch\":",
    "1700000000",
    "\"StatusSNS\":{",
    "\"TempUnit\":\"F\",",
    "\"Temperature\":1,",
    "\"Wifi\":{\"Signal\":-5},",
    "\"method\":\"NotifyStatus\",",
    "\"method\":\"NotifyEvent\",",
    "\"params\":{",
    "\"ts\":",
    "\"1.5\"",
    "\"events\":[",
    "\"component\":\"input:0\",",
    "\"switch:0\":{",
    "\"id\":",
    "\"wifi\":{\"rssi\":-1},",
    "\"model\":\"M\",",
    "\"channel\":",
    "\"time\":\"@1s\",",
    "\"value\":",
    "\"data\":\"",
    "0201061BFF9904",
    "0512FC5394C37C0004FFFC040CAC364200CDCBB8334C884F",
    "03",
    "E1",
    "FF",
    "\",",
    "\"stat_t\":\"d/state\",",
    "\"~\":\"d\",",
    "\"stat_t\":\"~/state\",",
    "\"dev\":{\"ids\":[\"x\"]},",
    "\"val_tpl\":\"{{ value_json.a }}\",",
    "\"val_tpl\":\"{{ value_json['a'][0] }}\",",
    "\"val_tpl\":\"{{ x }}\",",
    "\"cmps\":{",
    "\"p\":\"sensor\",",
    "\"unit_of_meas\":\"W\",",
    "\"dev_cla\":\"signal_strength\",",
    "\"q\":0}",
    "}}",
    "]}",
    "{\"stat_t\":\"d/state\",\"val_tpl\":\"{{ value_json.a }}\",\"dev\":{\"ids\":\"x\"}}",
    "\"identifiers\":\"x\",",
];

/// A payload, mostly almost right, on a topic.
fn message() -> impl Strategy<Value = (String, Vec<u8>)> {
    let topic = prop::collection::vec(prop::sample::select(&LEVELS[..]), 1..6).prop_map(|levels| levels.join("/"));
    let scraps = prop::collection::vec(prop::sample::select(&SCRAPS[..]), 0..24);
    let payload = prop_oneof![
        6 => scraps.clone().prop_map(|scraps| scraps.concat().into_bytes()),
        3 => scraps.prop_map(|scraps| balanced(&scraps.concat()).into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..100),
    ];
    (topic, payload)
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

fn within_limits(report: &Report) -> bool {
    let samples = report.points.iter().flat_map(|point| &point.samples).chain(&report.signal);
    samples.into_iter().all(|sample| {
        let value = match &sample.value {
            Value::Number(number) => number.is_finite(),
            Value::Literal { number, text } => number.is_finite() && text.len() <= LIMITS.max_text_length,
            Value::Text(text) => text.len() <= LIMITS.max_text_length,
            Value::Bool(_) => true,
        };
        value && sample.key.len() <= LIMITS.max_key_length
    })
}

proptest! {
    #[test]
    fn no_message_panics(messages in prop::collection::vec(message(), 1..5), named in any::<bool>()) {
        for decoder in Decoder::ALL {
            let mut memory = Memory::default();
            for (topic, payload) in &messages {
                let (device, rest) = topic.split_once('/').unwrap_or((topic, ""));
                let captures = Captures { device: Some(device), metric: Some(rest.replace('/', ".").into()), ..Captures::default() };
                let captures = if named { captures } else { Captures::default() };
                let context = Context { topic, captures: &captures, ..context() };
                let reports = decode(decoder, payload, &context, &mut memory.of_source(&"fuzzed".into()));
                prop_assert!(reports.unwrap_or_default().iter().all(within_limits));
            }
        }
    }
}
