//! `tidegate decode --topic T`: what a payload would become, or why not. Nothing is stored and no database is asked; the very
//! code that runs in the pipeline decides, on the catalog's files.

use std::io::{Read, Write};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use comfy_table::Table;
use serde::Serialize;

use super::Place;
use super::output::printable;
use crate::catalog::matching::{GivenBy, Offer};
use crate::catalog::{DEFAULT_TENANT, Declared, Device, Kind, Module, Snapshot};
use crate::clock;
use crate::config::{Config, Decoder};
use crate::decode;
use crate::decode::memory::Memory;
use crate::message::{Message, Publish};
use crate::metrics::Metrics;
use crate::normalize::{Fate, Normalizer};
use crate::quarantine::Refusal;
use crate::store::batch::{Batch, Reading};
use crate::time::UtcMicros;

/// Most bytes read of standard input: MQTT allows no larger packet (MQTT 5, 2.1.4).
const MAX_INPUT: u64 = 268_435_455;

#[derive(Args, Debug)]
pub(super) struct DecodeArgs {
    /// The topic that the payload would arrive on
    #[arg(long)]
    topic: String,
    #[arg(long)]
    json: bool,
}

pub(super) fn run(place: &Place, args: &DecodeArgs) -> anyhow::Result<ExitCode> {
    let checked = place.load()?;
    let mut payload = Vec::new();
    std::io::stdin()
        .lock()
        .take(MAX_INPUT)
        .read_to_end(&mut payload)
        .context("reading the payload from standard input")?;
    let mut out = std::io::stdout().lock();
    dry_run(&checked.config, &checked.declared, &args.topic, &payload, clock::now(), args.json, &mut out)?;
    Ok(ExitCode::SUCCESS)
}

/// The contract's JSON.
#[derive(Debug, Serialize)]
struct Report {
    source: Option<String>,
    /// The one that reads the message: where the source's is `auto`, the one that it chose.
    decoder: Option<&'static str>,
    /// Why `auto` chose it.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// The one that the topic names, else those that the payload names.
    device: Option<String>,
    template: Option<String>,
    readings: Vec<ReportReading>,
    quarantine: Vec<ReportRefusal>,
}

#[derive(Debug, Serialize)]
struct ReportReading {
    metric: String,
    value: serde_json::Value,
    unit: String,
    /// RFC 3339, UTC.
    time: String,
    /// The raw key, for the table.
    #[serde(skip)]
    key: String,
}

#[derive(Debug, Serialize)]
struct ReportRefusal {
    reason: &'static str,
    key: Option<String>,
    detail: String,
}

/// Shows what a payload on `topic`, received at `now`, would become: as the contract's JSON, or as a table for people.
///
/// # Errors
/// When the configuration and the catalog don't fit each other, or `out` can't be written. A payload that would be
/// quarantined is a result.
pub fn dry_run(
    config: &Config,
    declared: &Declared,
    topic: &str,
    payload: &[u8],
    now: UtcMicros,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let mut normalizer = Normalizer::new(config, &snapshot(declared)?, Memory::default(), Metrics::new())?;
    let mut notes = Vec::new();
    let mut report = report(&mut normalizer, message(topic, payload, now), &mut notes);
    if let Some((decoder, why)) = chosen(&normalizer, config, topic, payload, now) {
        report.decoder = Some(decoder.name());
        report.why = Some(why);
    }
    if json {
        serde_json::to_writer_pretty(&mut *out, &report)?;
        writeln!(out)?;
    } else {
        print(&report, &notes, out)?;
    }
    Ok(())
}

/// What the decoder `auto` takes a message for that it can read; none: the source names another decoder.
fn chosen(
    normalizer: &Normalizer,
    config: &Config,
    topic: &str,
    payload: &[u8],
    now: UtcMicros,
) -> Option<(Decoder, String)> {
    let route = normalizer.sources().route(topic).filter(|route| route.source.decoder == Decoder::Auto)?;
    let context = decode::Context {
        topic,
        captures: &route.captures,
        received_at: now,
        timestamp: route.source.timestamp.as_deref(),
        timezone: route.source.timezone.as_ref(),
        limits: &config.limits,
        csv: route.source.csv,
        sparkplug: route.source.sparkplug,
    };
    let mut memory = Memory::default();
    let reports = decode::decode(Decoder::Auto, payload, &context, &mut memory.of_source(&route.source.name));
    reports.ok()?.into_iter().find_map(|report| report.read_as)
}

fn message(topic: &str, payload: &[u8], now: UtcMicros) -> Message {
    let publish = Publish::plain(topic, Bytes::copy_from_slice(payload), 1);
    Message { seq: 1, received_at: now, publish }
}

/// The catalog as a database without history would have it.
pub(super) fn snapshot(declared: &Declared) -> anyhow::Result<Snapshot> {
    let templates = declared.templates.iter().map(|one| (one.template.slug.clone(), Arc::new(one.template.clone())));
    let mut devices = Vec::with_capacity(declared.devices.len());
    for (device, id) in declared.devices.iter().zip(1_usize..) {
        let modules = device.modules.iter();
        devices.push(Device {
            id: i32::try_from(id).context("the catalog declares more devices than a database takes")?,
            tenant: device.tenant.as_str().into(),
            uid: device.uid.as_str().into(),
            template: device.template.clone(),
            template_by: device.template.as_ref().map(|_| GivenBy::Declared),
            source: None,
            protocol: None,
            told: Vec::new(),
            parent: device.parent.as_deref().map(Arc::from),
            parent_declared: device.parent.is_some(),
            site: device.site.as_deref().map(Arc::from),
            tags: device.tags.clone(),
            last_seen: None,
            modules: modules.map(|one| Module { uid: one.uid.clone(), template: one.template.clone() }).collect(),
            sensors: Vec::new(),
        });
    }
    let offers = declared.templates.iter().flat_map(|one| Offer::of(&one.template, one.shipped));
    Ok(Snapshot { templates: templates.collect(), offers: offers.collect(), devices, ..Snapshot::default() })
}

fn report(normalizer: &mut Normalizer, message: Message, notes: &mut Vec<(String, &'static str)>) -> Report {
    let mut batch = Batch::default();
    // Sensor or text, as they came: the key, the sensor's index, the value and the time.
    let mut found = Vec::new();
    let message = Arc::new(message);
    normalizer.process_observed(&message, &mut batch, |key, fate| match fate {
        Fate::Number(reading, kind) => {
            found.push((key.to_owned(), reading.sensor, number(reading, kind), reading.time))
        }
        Fate::Text(text) => found.push((key.to_owned(), text.sensor, text.value.as_str().into(), text.time)),
        Fate::Refused(_) => {}
        Fate::Dropped => notes.push((key.to_owned(), "dropped: unmodeled")),
        Fate::Shadowed => notes.push((key.to_owned(), "left out: another key of the metric is preferred")),
        Fate::Unit => notes.push((key.to_owned(), "taken: it tells the unit of other keys")),
        Fate::Stale => notes.push((key.to_owned(), "left out: retained, and not newer")),
    });
    let route = normalizer.sources().route(&message.publish.topic);
    // The devices that were introduced are those that the payload names, where the topic names none.
    let devices = match route.as_ref().and_then(|route| route.captures.device) {
        Some(uid) => vec![uid],
        None => batch.devices.iter().map(|intro| &*intro.uid).collect(),
    };
    let tenant = route.as_ref().and_then(|route| route.captures.tenant).unwrap_or(DEFAULT_TENANT);
    let template = match devices.as_slice() {
        [uid] if normalizer.knows(tenant, uid) => normalizer.template_of(tenant, uid).map(str::to_owned),
        _ => route.as_ref().and_then(|route| route.source.template.clone()),
    };
    let readings = found.into_iter().map(|(key, index, value, time)| {
        let intro = batch.sensors.iter().find(|intro| intro.index == index);
        let (metric, unit) = intro.map(|intro| (intro.metric.to_string(), intro.unit.clone())).unwrap_or_default();
        ReportReading { metric, value, unit, time: time.to_string(), key }
    });
    let refusals = batch.quarantined.iter().flat_map(|one| one.refusals.iter());
    Report {
        source: route.as_ref().map(|route| route.source.name.to_string()),
        decoder: route.as_ref().map(|route| route.source.decoder.name()),
        why: None,
        device: (!devices.is_empty()).then(|| devices.join(", ")),
        template,
        readings: readings.collect(),
        quarantine: refusals.map(refused).collect(),
    }
}

fn refused(refusal: &Refusal) -> ReportRefusal {
    ReportRefusal { reason: refusal.reason.code(), key: refusal.key.clone(), detail: refusal.detail.clone() }
}

/// A boolean as such, a whole number without a fraction.
#[expect(clippy::cast_possible_truncation, reason = "whole and within 2^53")]
fn number(reading: &Reading, kind: Kind) -> serde_json::Value {
    let value = reading.value;
    if kind == Kind::Bool {
        (value != 0.0).into()
    } else if value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0 {
        (value as i64).into()
    } else {
        value.into()
    }
}

fn print(report: &Report, notes: &[(String, &str)], out: &mut dyn Write) -> anyhow::Result<()> {
    let shown = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), printable);
    writeln!(out, "source    {} ({})", shown(&report.source), report.decoder.unwrap_or("-"))?;
    if let Some(why) = &report.why {
        writeln!(out, "read so   because {}", printable(why))?;
    }
    writeln!(out, "device    {}", shown(&report.device))?;
    writeln!(out, "template  {}", shown(&report.template))?;
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["key", "metric", "value", "unit", "time"]);
    for reading in &report.readings {
        let value = match &reading.value {
            serde_json::Value::String(text) => printable(text),
            other => other.to_string(),
        };
        let (key, metric) = (printable(&reading.key), printable(&reading.metric));
        table.add_row([key, metric, value, reading.unit.clone(), reading.time.clone()]);
    }
    if report.readings.is_empty() {
        writeln!(out, "no readings")?;
    } else {
        writeln!(out, "{table}")?;
    }
    for (key, note) in notes {
        writeln!(out, "{}: {note}", printable(key))?;
    }
    for refusal in &report.quarantine {
        let key = refusal.key.as_deref().unwrap_or("the message");
        writeln!(out, "quarantined: {}: {}: {}", printable(key), refusal.reason, printable(&refusal.detail))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::catalog::{DeclaredDevice, DeclaredTemplate, Metric};
    use crate::config::UnknownDevice;
    use crate::normalize::testing::{RECEIVED, metric, settings, source, template};
    use serde_json::json;

    fn declared() -> Declared {
        let keys = ["temp", "t"].map(crate::catalog::Key::from).to_vec();
        let temperature = Metric { unit: "°C".into(), keys, ..metric("temperature", Kind::Number) };
        let template = template("climate", vec![temperature, metric("ok", Kind::Bool)]);
        let device = DeclaredDevice {
            tenant: "default".into(),
            uid: "d1".into(),
            name: None,
            template: Some("climate".into()),
            parent: None,
            site: None,
            tags: BTreeMap::new(),
            modules: Vec::new(),
        };
        let templates = vec![DeclaredTemplate { template, shipped: false }];
        Declared { templates, devices: vec![device], ..Declared::default() }
    }

    fn run(topic: &str, payload: &str, json: bool) -> String {
        let mut config = settings(vec![source("native", "devices/{device}/telemetry", Decoder::Json)]);
        config.devices.unknown = UnknownDevice::Quarantine;
        let mut out = Vec::new();
        dry_run(&config, &declared(), topic, payload.as_bytes(), RECEIVED, json, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn run_json(topic: &str, payload: &str) -> serde_json::Value {
        serde_json::from_str(&run(topic, payload, true)).unwrap()
    }

    #[test]
    fn the_json_is_the_contracts() {
        let found = run_json("devices/d1/telemetry", r#"{"temp":21.0,"ok":true,"w":"a","x":"b\u0000"}"#);
        let time = "2023-11-14T22:13:20Z";
        let expected = json!({
            "source": "native", "decoder": "json", "device": "d1", "template": "climate",
            "readings": [
                {"metric": "temperature", "value": 21, "unit": "°C", "time": time},
                {"metric": "ok", "value": true, "unit": "", "time": time},
                {"metric": "w", "value": "a", "unit": "", "time": time},
            ],
            "quarantine": [
                {"reason": "bad_text", "key": "x", "detail": "the text has a NUL, which the database can't hold"},
            ],
        });
        assert_eq!(found, expected);
        assert!(!run("devices/d1/telemetry", r#"{"temp":21.0}"#, true).contains("21.0"));
    }

    #[test]
    fn what_matches_nothing_says_so() {
        let found = run_json("other/topic", "1");
        assert_eq!(found["source"], json!(null));
        assert_eq!(found["quarantine"][0]["reason"], "unknown_source");
        let unknown = run_json("devices/d9/telemetry", "{}");
        assert_eq!((&unknown["device"], &unknown["template"]), (&json!("d9"), &json!(null)));
        assert_eq!(unknown["quarantine"][0]["reason"], "unknown_device");
    }

    #[test]
    fn devices_are_told_that_only_the_payload_names() {
        let found = |payload: &str| -> serde_json::Value {
            let config = settings(vec![source("gw", "v1/gateway/telemetry", Decoder::Thingsboard)]);
            let mut out = Vec::new();
            let topic = "v1/gateway/telemetry";
            dry_run(&config, &declared(), topic, payload.as_bytes(), RECEIVED, true, &mut out).unwrap();
            serde_json::from_slice(&out).unwrap()
        };
        let one = found(r#"{"d1":[{"temp":21}]}"#);
        assert_eq!((&one["device"], &one["template"]), (&json!("d1"), &json!("climate")));
        assert_eq!(one["readings"][0]["metric"], "temperature");
        assert_eq!(found(r#"{"d1":[{"temp":21}],"d2":[{"a":1}]}"#)["device"], "d1, d2");
        assert_eq!(found("{}")["device"], json!(null));
    }

    #[test]
    fn auto_tells_what_it_took_the_message_for() {
        let config = settings(vec![source("all", "#", Decoder::Auto)]);
        let run = |json: bool| {
            let mut out = Vec::new();
            let topic = "tele/plug/SENSOR";
            dry_run(&config, &declared(), topic, br#"{"ENERGY":{"Power":1}}"#, RECEIVED, json, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let found: serde_json::Value = serde_json::from_str(&run(true)).unwrap();
        assert_eq!((&found["decoder"], &found["why"]), (&json!("tasmota"), &json!("the topic is tele/{device}/+")));
        assert_eq!((&found["device"], &found["readings"][0]["metric"]), (&json!("plug"), &json!("ENERGY.Power")));
        assert!(run(false).contains("all (tasmota)\nread so   because the topic is tele/{device}/+"), "{}", run(false));
    }

    #[test]
    fn the_table_tells_of_every_key() {
        let text = run("devices/d1/telemetry", r#"{"temp":21.5,"t":2,"ok":"\u001b[2J","hum":40}"#, false);
        for part in ["temperature", "21.5", "°C", "t: left out", "ok: wrong_kind", "hum"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}
