//! What each decoder costs on what real devices send, as a table for `docs/performance.md`:
//! `cargo bench --bench rooms -- --formats`.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;
use tidegate::config::{Csv, Decoder, Limits, SparkplugSource};
use tidegate::decode::memory::Memory;
use tidegate::decode::{Context, decode};
use tidegate::source::Filter;
use tidegate::time::UtcMicros;

/// Time for each of the runs, of which the median counts.
const RUN: Duration = Duration::from_millis(100);
const RUNS: usize = 15;

/// The corpus files of each decoder; the native one's are read by the three that share its forms.
const FORMATS: [(Decoder, &[&str]); 25] = [
    (Decoder::Json, &["json"]),
    (Decoder::Scalar, &["scalar"]),
    (Decoder::AwsShadow, &["aws_shadow"]),
    (Decoder::Cbor, &[]),
    (Decoder::Chirpstack, &["chirpstack"]),
    (Decoder::Csv, &["csv"]),
    (Decoder::Esphome, &["esphome"]),
    (Decoder::HomeAssistant, &["ha_statestream"]),
    (Decoder::Homie, &["homie"]),
    (Decoder::LineProtocol, &["influx_line"]),
    (Decoder::Losant, &["losant"]),
    (Decoder::Msgpack, &[]),
    (Decoder::OpenMqttGateway, &["openmqttgateway"]),
    (Decoder::Rtl433, &["rtl_433"]),
    (Decoder::Ruuvi, &["ruuvi"]),
    (Decoder::Senml, &["senml_json", "senml_cbor"]),
    (Decoder::Shelly, &["shelly_gen1", "shelly_gen2"]),
    (Decoder::Sparkplug, &["sparkplug_b"]),
    (Decoder::Tasmota, &["tasmota"]),
    (Decoder::ThinEdge, &["thin_edge"]),
    (Decoder::Thingsboard, &["thingsboard"]),
    (Decoder::Ttn, &["ttn"]),
    (Decoder::Victron, &["victron"]),
    (Decoder::Zigbee2Mqtt, &["zigbee2mqtt"]),
    (
        Decoder::Auto,
        &["homie", "openmqttgateway", "ruuvi", "shelly_gen2", "tasmota", "ttn", "victron", "zigbee2mqtt", "json"],
    ),
];

struct Case {
    topic: String,
    filter: Filter,
    payload: Vec<u8>,
}

/// Prints the table.
pub fn print() {
    println!("| decoder | messages | bytes each | samples each | ns a message | ns a sample |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    for (decoder, files) in FORMATS {
        let mut cases: Vec<Case> = files.iter().flat_map(|file| cases(decoder, file)).collect();
        if let Decoder::Cbor | Decoder::Msgpack = decoder {
            cases = vec![native(decoder)];
        }
        row(decoder, &mut cases);
    }
}

fn row(decoder: Decoder, cases: &mut Vec<Case>) {
    let mut memory = Memory::default();
    // What is refused is left out: it costs less.
    cases.retain(|case| one(decoder, case, &mut memory).is_some());
    let samples: usize = cases.iter().filter_map(|case| one(decoder, case, &mut memory)).sum();
    let bytes: usize = cases.iter().map(|case| case.payload.len()).sum();
    let mut runs: Vec<f64> = (0..RUNS).map(|_| pass_nanos(decoder, cases, &mut memory)).collect();
    runs.sort_by(f64::total_cmp);
    let (nanos, messages) = (runs[RUNS / 2], cases.len() as f64);
    let name = decoder.name();
    let sample = if samples == 0 { "–".to_owned() } else { format!("{:.0}", nanos / samples as f64) };
    println!(
        "| `{name}` | {} | {:.0} | {:.1} | {:.0} | {sample} |",
        cases.len(),
        bytes as f64 / messages,
        samples as f64 / messages,
        nanos / messages,
    );
}

/// Nanoseconds for all messages once.
fn pass_nanos(decoder: Decoder, cases: &[Case], memory: &mut Memory) -> f64 {
    let (began, mut passes) = (Instant::now(), 0_u32);
    while began.elapsed() < RUN {
        for case in cases {
            black_box(one(decoder, black_box(case), memory));
        }
        passes += 1;
    }
    began.elapsed().as_nanos() as f64 / f64::from(passes)
}

/// How many samples there are; none: it is refused.
fn one(decoder: Decoder, case: &Case, memory: &mut Memory) -> Option<usize> {
    let captures = case.filter.captures(&case.topic)?;
    let context = Context {
        topic: &case.topic,
        captures: &captures,
        received_at: UtcMicros(1_800_000_000_000_000),
        timestamp: None,
        timezone: None,
        limits: &Limits::default(),
        csv: Csv::default(),
        sparkplug: SparkplugSource::default(),
    };
    let reports = decode(decoder, &case.payload, &context, &mut memory.of_source(&"bench".into())).ok()?;
    Some(reports.iter().flat_map(|report| &report.points).map(|point| point.samples.len()).sum())
}

fn cases(decoder: Decoder, file: &str) -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/payloads").join(file).with_extension("json");
    let corpus: Json = serde_json::from_str(&std::fs::read_to_string(path).expect("a corpus file")).expect("JSON");
    let case = |case: &Json| {
        let text = |key: &str| case[key].as_str();
        let payload = text("payload").map(|text| text.as_bytes().to_vec());
        let payload = payload.or_else(|| STANDARD.decode(text("payload_base64")?).ok())?;
        let filter = if decoder == Decoder::Auto { "#" } else { text("filter")? };
        Some(Case { topic: text("topic")?.to_owned(), filter: Filter::parse(filter).ok()?, payload })
    };
    corpus["cases"].as_array().expect("cases").iter().filter_map(case).collect()
}

/// Ten numbers, as the fleet sends them in JSON: `{"m1": 50.5, …}`.
fn native(decoder: Decoder) -> Case {
    // Both write a text of two bytes, and a double, with one byte before it.
    let (map, text, double) = if decoder == Decoder::Cbor { (0xaa, 0x62, 0xfb) } else { (0x8a, 0xa2, 0xcb) };
    let mut payload = vec![map];
    for n in b'0'..=b'9' {
        payload.extend([text, b'm', n, double]);
        payload.extend(50.5_f64.to_be_bytes());
    }
    let filter = Filter::parse("devices/{device}/telemetry").expect("a filter");
    Case { topic: "devices/d1/telemetry".to_owned(), filter, payload }
}
