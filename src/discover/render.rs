//! What was found, as TOML to paste and as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{Findings, Found};
use crate::catalog::Kind;

/// Most devices that the TOML tells of.
const MAX_TOLD: usize = 200;

impl Findings {
    /// `[[sources]]` for `tidegate.toml`; devices and metrics stand in comments, since tidegate makes them at their first
    /// message.
    pub fn toml(&self) -> String {
        let mut text = self.heading();
        for source in &self.sources {
            let (devices, example) = (source.devices, plain(&source.example));
            let _ = match devices {
                1 => writeln!(text, "\n# 1 device: {example}"),
                _ => writeln!(text, "\n# {devices} devices, such as {example}"),
            };
            let _ = writeln!(text, "[[sources]]\nname = {}", quoted(&source.name));
            let _ = writeln!(text, "filter = {}\ndecoder = {}", quoted(&source.filter), quoted(source.decoder.name()));
        }
        for (uid, found) in self.devices.iter().take(MAX_TOLD) {
            let _ = write!(text, "\n{}", device(uid, found));
        }
        if let Some(more) = self.devices.len().checked_sub(MAX_TOLD).filter(|more| *more > 0) {
            let _ = writeln!(text, "\n# … and {more} devices more: --json tells of all.");
        }
        text
    }

    fn heading(&self) -> String {
        let ((keys, modeled), counts) = (self.keys(), self.counts);
        let share = modeled.saturating_mul(100).checked_div(keys).unwrap_or(0);
        let messages =
            if counts.messages == 1 { "1 message".to_owned() } else { format!("{} messages", counts.messages) };
        format!(
            "# Found by `tidegate discover`: {} devices with {keys} keys in {messages}; {modeled} keys ({share} %) are modelled \
             by a template.\n# Of the messages {} carried no telemetry, and {} could not be read.\n",
            self.devices.len(),
            counts.ignored,
            counts.refused,
        )
    }

    /// Everything.
    pub fn json(&self) -> Value {
        let (keys, modeled) = self.keys();
        let sources = self.sources.iter().map(|source| {
            json!({
                "name": source.name, "filter": source.filter, "decoder": source.decoder.name(), "devices": source.devices,
            })
        });
        let devices = self.devices.iter().map(|(uid, found)| {
            let metrics = found.metrics.iter().map(|(name, metric)| {
                json!({
                    "metric": &**name, "key": metric.key, "unit": metric.unit, "kind": kind(metric.kind),
                    "modeled": metric.modeled, "value": metric.value,
                })
            });
            let (decoder, why) = found.read_as.as_ref().map(|(decoder, why)| (decoder.name(), why)).unzip();
            json!({
                "device": &**uid, "decoder": decoder, "why": why, "template": found.template,
                "metrics": metrics.collect::<Vec<_>>(),
            })
        });
        json!({
            "messages": self.counts.messages, "ignored": self.counts.ignored, "refused": self.counts.refused,
            "keys": keys, "modeled": modeled,
            "sources": sources.collect::<Vec<_>>(), "devices": devices.collect::<Vec<_>>(),
        })
    }
}

/// A paragraph of comments.
fn device(uid: &str, found: &Found) -> String {
    let template = found.template.as_deref().map_or("no template".to_owned(), |slug| format!("template {slug}"));
    let why = found.read_as.as_ref().map(|(decoder, why)| format!("{} ({why})", decoder.name()));
    let mut text = format!("# {}: {}, {template}\n", plain(uid), why.unwrap_or_default());
    let width = found.metrics.keys().map(|name| name.chars().count()).max().unwrap_or(0).min(40);
    for (name, metric) in &found.metrics {
        let note = if metric.modeled { "" } else { "  # not modelled" };
        let (name, value, unit) = (plain(name), plain(&metric.value), plain(&metric.unit));
        let _ = writeln!(text, "#   {}", format!("{name:width$}  {value} {unit}{note}").trim_end());
    }
    text
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Number => "number",
        Kind::Bool => "bool",
        Kind::Text => "text",
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Without control characters: they would end a comment, or reach the terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::Bytes;

    use super::super::Survey;
    use super::*;
    use crate::catalog::Snapshot;
    use crate::config::{Config, Decoder};
    use crate::message::Publish;
    use crate::normalize::testing::{RECEIVED, metric, template};
    use crate::time::UtcMicros;

    fn surveyed(messages: &[(&str, &str)]) -> Findings {
        let mut snapshot = Snapshot::default();
        let plug = template("plug", vec![metric("POWER", Kind::Text)]);
        snapshot.templates.insert("plug".to_owned(), plug.into());
        let mut survey = Survey::new(&Config::default(), &snapshot).unwrap();
        for (topic, payload) in messages {
            let publish =
                Publish { retain: true, ..Publish::plain(*topic, Bytes::copy_from_slice(payload.as_bytes()), 0) };
            survey.take(publish, UtcMicros(RECEIVED.0));
        }
        survey.finish()
    }

    #[test]
    fn what_is_printed_is_a_configuration_that_takes_what_was_heard() {
        let topics = [
            ("tele/plug1/SENSOR", r#"{"Time":"2021-01-02T09:09:44","ENERGY":{"Power":12}}"#),
            ("zigbee2mqtt/attic/lamp", r#"{"state":"ON","linkquality":60}"#),
            ("attic/sensor/t/state", "21.5"),
            ("plant/\u{1b}[2J\npump/flow", "3"),
            ("plant/pump/note", "a\nb"),
            ("cmnd/plug1/POWER", "ON"),
            ("broken/x", "{"),
        ];
        let found = surveyed(&topics);
        let text = found.toml();
        let reading = Config::parse(Path::new("pasted.toml"), &text, &[]);
        assert!(reading.faults.is_empty(), "{text}\n{:?}", reading.faults);
        assert!(!text.contains('\u{1b}'), "{text}");
        let sources = crate::source::Sources::compile(&reading.config.sources).unwrap();
        for (topic, decoder) in [
            ("tele/plug1/SENSOR", Decoder::Tasmota),
            ("attic/sensor/t/state", Decoder::Esphome),
            ("plant/pump/note", Decoder::Auto),
        ] {
            assert_eq!(sources.route(topic).unwrap().source.decoder, decoder, "{topic}");
        }
        assert_eq!((found.counts.messages, found.counts.ignored, found.counts.refused), (7, 1, 2));
        // A name with control characters is refused.
        assert_eq!(found.devices.len(), 4, "{text}");
        assert!(text.contains("ENERGY.Power  12"), "{text}");
    }

    #[test]
    fn the_json_has_every_key() {
        let found = surveyed(&[("plant/pump", r#"{"a":1,"b":"x","c":true}"#)]).json();
        assert_eq!((&found["keys"], &found["modeled"]), (&json!(3), &json!(0)));
        assert_eq!(found["sources"][0]["filter"], "plant/#");
        assert_eq!(
            (&found["devices"][0]["device"], &found["devices"][0]["decoder"]),
            (&json!("plant/pump"), &json!("json"))
        );
        let values: Vec<_> = (0..3).map(|i| found["devices"][0]["metrics"][i]["value"].as_str().unwrap()).collect();
        assert_eq!(values, ["1", "\"x\"", "true"]);
    }

    #[test]
    fn nothing_found_is_valid_too() {
        let text = surveyed(&[]).toml();
        assert!(Config::parse(Path::new("x"), &text, &[]).faults.is_empty() && text.contains("0 devices"), "{text}");
    }
}
