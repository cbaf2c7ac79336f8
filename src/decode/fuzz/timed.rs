//! Each decoder on what real devices send, damaged: a fixed number of rounds, or `FUZZ_SECONDS=600` as many as that much time
//! on a processor is enough for, so that what else the machine does takes nothing from it. A round is a function of its
//! number; `FUZZ_SEED` sets the first one's.
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
use super::packed::Packing;
use super::scraps::{LEVELS, SCRAPS, TOKENS, TOPICS, WORDS};
use crate::config::{Csv, Decoder};
use crate::source::{Captures, Filter};

/// Rounds where no time is given.
const ROUNDS: u64 = 1500;
/// What a round may at most take on a processor, where a time is given: a hang, on the slowest machine.
const HANG: Duration = Duration::from_secs(10);
/// Rounds between two looks at the time: far less than [`HANG`] all together.
const LOOK: u64 = 64;
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
    presence: Presence = "esphome", "tasmota", "zigbee2mqtt", "malformed";
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
    let packing = match decoder {
        Decoder::Cbor => Some(Packing::Cbor),
        Decoder::Msgpack => Some(Packing::Msgpack),
        _ => None,
    };
    let case = |case: &Json| {
        let text = |key: &str| case[key].as_str();
        let payload = text("payload").map(|text| text.as_bytes().to_vec());
        let mut payload = payload.or_else(|| STANDARD.decode(text("payload_base64")?).ok()).unwrap_or_default();
        if let Some((packing, document)) = packing.zip(serde_json::from_slice(&payload).ok()) {
            payload.clear();
            packing.pack(&document, &mut payload);
        }
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
    let (given, first) = (number("FUZZ_SECONDS").map(Duration::from_secs), number("FUZZ_SEED").unwrap_or(1));
    let (mut effort, cases) = (Effort::new(), cases(decoder));
    // One for all rounds: it must stay within its bound however long they go on.
    let mut memory = Memory::default();
    let mut rounds = 0;
    while given.map_or(rounds < ROUNDS, |given| effort.spent < given) {
        let seed = first + rounds;
        let _told = Round(decoder, seed);
        let at = Instant::now();
        effort.messages += round(decoder, &cases, &mut memory, &mut Rng::with_seed(seed));
        // A process that is stopped, or gets no processor, hangs by the clock only.
        if given.is_some() && (rounds % LOOK == 0 || at.elapsed() > HANG) {
            let took = effort.look();
            assert!(took < HANG, "{decoder:?}: rounds up to {seed} took {took:?}, the last one {:?}", at.elapsed());
        }
        memory.take_changes();
        memory.take_asks();
        assert!(memory.bytes() <= MAX_BYTES, "{decoder:?}: it remembers {} bytes", memory.bytes());
        rounds += 1;
    }
    let (resident, messages) = (resident(), effort.messages);
    assert!(resident.is_none_or(|kib| kib <= MAX_RESIDENT), "{decoder:?}: {resident:?} KiB were resident");
    effort.look();
    println!(
        "{decoder:?}: {rounds} rounds, {messages} messages, in {:?} on a processor, {:?} by the clock; at most {resident:?} KiB resident",
        effort.spent,
        effort.began.elapsed()
    );
}

/// What was done so far.
struct Effort {
    began: Instant,
    /// On a processor, since `began`, up to the last look.
    spent: Duration,
    before: Duration,
    messages: usize,
}

impl Effort {
    fn new() -> Effort {
        let (began, before) = (Instant::now(), Effort::processor(Duration::ZERO));
        Effort { began, spent: Duration::ZERO, before, messages: 0 }
    }

    /// The time on a processor since the last look.
    fn look(&mut self) -> Duration {
        let last = self.spent;
        self.spent = Effort::processor(self.began.elapsed()).saturating_sub(self.before);
        self.spent.saturating_sub(last)
    }

    /// What this thread has had of processors, where the system tells; by the clock elsewhere.
    fn processor(clock: Duration) -> Duration {
        let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
        let nanoseconds = told.and_then(|text| text.split(' ').next()?.parse().ok());
        nanoseconds.map_or(clock, Duration::from_nanos)
    }
}

/// The most that the process has had resident, in KiB, where the system tells.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

/// Some messages in a row; their number.
fn round(decoder: Decoder, cases: &[Case], memory: &mut Memory, rng: &mut Rng) -> usize {
    let messages = rng.usize(1..6);
    for _ in 0..messages {
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
    messages
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
