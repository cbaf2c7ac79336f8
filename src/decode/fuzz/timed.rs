//! Each decoder on what real devices send, damaged: a fixed number of rounds, or `FUZZ_SECONDS=600` as many as there is time
//! for. A round is a function of its number; `FUZZ_SEED` sets the first one's.
//!
//! `FUZZ_SECONDS=600 cargo nextest run --lib fuzz::timed::senml`; all of them: `fuzz::timed`.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fastrand::Rng;
use serde_json::Value as Json;

use super::super::memory::{MAX_BYTES, Memory};
use super::super::tests::{LIMITS, context};
use super::super::{Context, decode};
use super::check;
use super::scraps::{LEVELS, SCRAPS, TOKENS, TOPICS, WORDS};
use crate::config::{Csv, Decoder};
use crate::source::{Captures, Filter};

/// Rounds where no time is given.
const ROUNDS: u64 = 1500;
/// What a round may at most take, where a time is given: a hang, on the slowest machine.
const HANG: Duration = Duration::from_secs(10);
/// Resident memory of the process at most, in KiB: what decoders remember, twice, and room for the rest.
const MAX_RESIDENT: u64 = 2 * (MAX_BYTES as u64 >> 10) + (192 << 10);

macro_rules! corpus {
    ($($test:ident: $decoder:ident = $($file:literal),+;)+) => {
        fn corpus(decoder: Decoder) -> Vec<&'static str> {
            match decoder {
                $(Decoder::$decoder => vec![$(include_str!(concat!("../../../tests/payloads/", $file, ".json"))),+],)+
            }
        }

        $(#[test]
        fn $test() {
            fuzz(Decoder::$decoder);
        })+
    };
}

corpus! {
    json: Json = "json", "malformed";
    scalar: Scalar = "scalar";
    auto: Auto = "tasmota", "senml_cbor", "homie", "shelly_gen2", "zigbee2mqtt", "esphome", "influx_line", "csv", "scalar",
        "openmqttgateway", "rtl_433", "chirpstack", "sparkplug_b";
    aws_shadow: AwsShadow = "aws_shadow";
    cbor: Cbor = "senml_cbor", "json";
    chirpstack: Chirpstack = "chirpstack";
    csv: Csv = "csv";
    esphome: Esphome = "esphome";
    home_assistant: HomeAssistant = "ha_statestream";
    homie: Homie = "homie";
    line_protocol: LineProtocol = "influx_line";
    losant: Losant = "losant";
    msgpack: Msgpack = "senml_cbor", "json";
    openmqttgateway: OpenMqttGateway = "openmqttgateway";
    rtl_433: Rtl433 = "rtl_433";
    ruuvi: Ruuvi = "ruuvi";
    senml: Senml = "senml_json", "senml_cbor";
    shelly: Shelly = "shelly_gen1", "shelly_gen2";
    sparkplug: Sparkplug = "sparkplug_b";
    tasmota: Tasmota = "tasmota";
    thin_edge: ThinEdge = "thin_edge";
    thingsboard: Thingsboard = "thingsboard";
    ttn: Ttn = "ttn";
    victron: Victron = "victron";
    zigbee2mqtt: Zigbee2Mqtt = "zigbee2mqtt";
}

/// A message as the corpus has it.
struct Case {
    topic: String,
    filter: Filter,
    payload: Vec<u8>,
}

fn cases(decoder: Decoder) -> Vec<Case> {
    let case = |case: &Json| {
        let text = |key: &str| case[key].as_str();
        let payload = text("payload").map(|text| text.as_bytes().to_vec());
        let payload = payload.or_else(|| STANDARD.decode(text("payload_base64")?).ok()).unwrap_or_default();
        Case { topic: text("topic").unwrap().into(), filter: Filter::parse(text("filter").unwrap()).unwrap(), payload }
    };
    let files = corpus(decoder).into_iter().map(|file| serde_json::from_str::<Json>(file).unwrap());
    files.flat_map(|file| file["cases"].as_array().unwrap().iter().map(case).collect::<Vec<_>>()).collect()
}

/// Tells the round that panics.
struct Round(Decoder, u64);

impl Drop for Round {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{:?}: FUZZ_SEED={} repeats it", self.0, self.1);
        }
    }
}

fn fuzz(decoder: Decoder) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let (seconds, first) = (number("FUZZ_SECONDS"), number("FUZZ_SEED").unwrap_or(1));
    let (began, cases) = (Instant::now(), cases(decoder));
    // One for all rounds: it must stay within its bound however long they go on.
    let mut memory = Memory::default();
    let mut rounds = 0;
    let going = |rounds: u64| seconds.map_or(rounds < ROUNDS, |seconds| began.elapsed() < Duration::from_secs(seconds));
    while going(rounds) {
        let seed = first + rounds;
        let _told = Round(decoder, seed);
        let at = Instant::now();
        round(decoder, &cases, &mut memory, &mut Rng::with_seed(seed));
        assert!(seconds.is_none() || at.elapsed() < HANG, "{decoder:?}: round {seed} took {:?}", at.elapsed());
        memory.take_changes();
        memory.take_asks();
        assert!(memory.bytes() <= MAX_BYTES, "{decoder:?}: it remembers {} bytes", memory.bytes());
        rounds += 1;
    }
    let resident = resident();
    assert!(resident.is_none_or(|kib| kib <= MAX_RESIDENT), "{decoder:?}: {resident:?} KiB were resident");
    println!("{decoder:?}: {rounds} rounds in {:?}, at most {resident:?} KiB resident", began.elapsed());
}

/// The most that the process has had resident, in KiB, where the system tells.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

/// Some messages in a row.
fn round(decoder: Decoder, cases: &[Case], memory: &mut Memory, rng: &mut Rng) {
    for _ in 0..rng.usize(1..6) {
        let case = rng.choice(cases).unwrap();
        let payload = damaged(case, cases, rng);
        let topic = if rng.u8(..) < 200 { case.topic.clone() } else { strange(&case.topic, rng) };
        let captures = case.filter.captures(&topic).filter(|_| rng.u8(..) < 200 && decoder != Decoder::Auto);
        let captures = captures.unwrap_or_default();
        let context = Context {
            topic: &topic,
            captures: if rng.u8(..) < 240 { &captures } else { &Captures::default() },
            timestamp: (rng.u8(..) < 20).then_some("time"),
            csv: Csv { header: rng.bool() },
            ..context()
        };
        if let Ok(reports) = decode(decoder, &payload, &context, &mut memory.of_source(&"fuzzed".into())) {
            let samples: usize =
                reports.iter().flat_map(|report| &report.points).map(|point| point.samples.len()).sum();
            // What a record's base fields add, and what an advertisement or an announcement unfolds into.
            assert!(samples <= LIMITS.max_keys * 2 + 256, "{samples} samples of {} bytes", payload.len());
            for report in reports {
                check(&report).unwrap();
            }
        }
    }
}

fn strange(topic: &str, rng: &mut Rng) -> String {
    if rng.bool() {
        return (*rng.choice(TOPICS.iter()).unwrap()).to_owned();
    }
    let mut levels: Vec<&str> = topic.split('/').collect();
    let at = rng.usize(..levels.len());
    match rng.u8(..3) {
        0 => levels.insert(at, rng.choice(LEVELS.iter()).unwrap()),
        1 => drop(levels.remove(at)),
        _ => levels[at] = rng.choice(LEVELS.iter()).unwrap(),
    }
    levels.join("/")
}

fn damaged(case: &Case, cases: &[Case], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = case.payload.clone();
    for _ in 0..rng.usize(..6) {
        let (a, b) = (rng.usize(..=bytes.len()), rng.usize(..=bytes.len()));
        let range = a.min(b)..a.max(b).min(a.min(b) + 64);
        match rng.u8(..9) {
            0 => {
                if let Some(byte) = bytes.get_mut(a) {
                    *byte ^= 1 << rng.u8(..8);
                }
            }
            1 => drop(bytes.splice(range, [rng.u8(..)])),
            2 => drop(bytes.splice(a..a, rng.choice(SCRAPS.iter()).unwrap().bytes())),
            3 => drop(bytes.splice(a..a, rng.choice(TOKENS.iter()).unwrap().iter().copied())),
            4 => drop(bytes.splice(a..a, rng.choice(WORDS.iter()).unwrap().bytes())),
            5 => bytes.truncate(a),
            6 => drop(bytes.drain(range)),
            7 => {
                let chunk = bytes[range].repeat(rng.usize(1..64));
                bytes.splice(a..a, chunk);
            }
            _ => {
                let other = &rng.choice(cases).unwrap().payload;
                let tail = &other[rng.usize(..=other.len())..];
                bytes.truncate(a);
                bytes.extend_from_slice(tail);
            }
        }
    }
    bytes.truncate(64 << 10);
    bytes
}
