//! The topics that formats are known by: one row for each.

use std::sync::LazyLock;

use super::super::{esphome, home_assistant};
use super::{Choice, whole};
use crate::config::Decoder;
use crate::source::{Captures, Filter};

/// A message as it is looked at.
pub(super) struct Seen<'t, 'p> {
    pub(super) topic: &'t str,
    pub(super) payload: &'p [u8],
}

impl<'t> Seen<'t, '_> {
    fn is_object(&self) -> bool {
        self.payload.trim_ascii_start().first() == Some(&b'{')
    }

    fn is_empty(&self) -> bool {
        self.payload.trim_ascii().is_empty()
    }

    fn has(&self, word: &str) -> bool {
        std::str::from_utf8(self.payload).is_ok_and(|text| text.contains(word))
    }

    fn last(&self) -> &'t str {
        self.topic.rsplit('/').next().unwrap_or("")
    }

    fn first(&self) -> &'t str {
        self.topic.split('/').next().unwrap_or("")
    }
}

/// Topics of one format.
struct Row {
    decoder: Decoder,
    /// As `[[sources]] filter` has it.
    filter: &'static str,
    /// What must hold beside the topic.
    fits: fn(&Seen<'_, '_>) -> bool,
}

const fn row(decoder: Decoder, filter: &'static str) -> Row {
    Row { decoder, filter, fits: |_| true }
}

const fn fitting(decoder: Decoder, filter: &'static str, fits: fn(&Seen<'_, '_>) -> bool) -> Row {
    Row { decoder, filter, fits }
}

/// Topics that no other format has; the first row that fits counts. Their filters are those of `docs/formats.md`.
static CANONICAL: [Row; 36] = [
    row(Decoder::Sparkplug, "spBv1.0/#"),
    row(Decoder::AwsShadow, "$aws/things/{device}/shadow/#"),
    row(Decoder::Chirpstack, "application/+/device/{device}/event/+"),
    row(Decoder::Ttn, "v3/+/devices/{device}/#"),
    row(Decoder::Thingsboard, "v1/gateway/#"),
    row(Decoder::Thingsboard, "v1/devices/{device}/#"),
    row(Decoder::Losant, "losant/{device}/+"),
    row(Decoder::ThinEdge, "te/device/{device}/+/+/#"),
    fitting(Decoder::Victron, "N/{device}/{metric...}", |seen| seen.is_object() || seen.is_empty()),
    fitting(Decoder::Ruuvi, "ruuvi/{gateway}/{device}", |seen| seen.is_object()),
    row(Decoder::Rtl433, "rtl_433/{gateway}/events"),
    row(Decoder::Rtl433, "rtl_433/+/devices/#"),
    row(Decoder::Rtl433, "rtl_433/{device}/{metric}"),
    row(Decoder::OpenMqttGateway, "tele/{device}/SYStoMQTT"),
    row(Decoder::Tasmota, "tasmota/discovery/#"),
    fitting(Decoder::Tasmota, "tele/{device}/+", is_tasmota),
    fitting(Decoder::Tasmota, "stat/{device}/+", is_tasmota),
    fitting(Decoder::Tasmota, "tele/#", is_tasmota),
    fitting(Decoder::Tasmota, "stat/#", is_tasmota),
    fitting(Decoder::Tasmota, "{device}/tele/+", is_tasmota),
    fitting(Decoder::Tasmota, "{device}/stat/+", is_tasmota),
    fitting(Decoder::Tasmota, "+/{device}/tele/+", is_tasmota),
    fitting(Decoder::Tasmota, "+/{device}/stat/+", is_tasmota),
    row(Decoder::Shelly, "shellies/announce"),
    row(Decoder::Shelly, "shellies/{device}/{metric...}"),
    fitting(Decoder::Shelly, "{device}/events/rpc", |seen| seen.has("\"Notify")),
    fitting(Decoder::Shelly, "{device}/status/+", is_component),
    fitting(Decoder::Shelly, "{device}/online", is_shelly),
    fitting(Decoder::Shelly, "{device}/debug/log", is_shelly),
    fitting(Decoder::Shelly, "+/rpc", |seen| seen.is_object() && seen.has("\"src\"")),
    fitting(Decoder::HomeAssistant, "homeassistant/#", is_discovery),
    row(Decoder::Homie, "homie/#"),
    row(Decoder::Zigbee2Mqtt, "zigbee2mqtt/#"),
    row(Decoder::Esphome, "esphome/#"),
    row(Decoder::Senml, "senml/{device}"),
    row(Decoder::Json, "devices/{device}/telemetry"),
];

/// Components of a Shelly that have no number.
const COMPONENTS: [&str; 13] =
    ["ble", "bthome", "cloud", "eth", "knx", "matter", "modbus", "mqtt", "script", "sys", "ui", "wifi", "ws"];

fn is_tasmota(seen: &Seen<'_, '_>) -> bool {
    let last = seen.last().as_bytes();
    last.first().is_some_and(u8::is_ascii_uppercase)
        && last.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_')
}

fn is_component(seen: &Seen<'_, '_>) -> bool {
    let numbered = || seen.last().rsplit_once(':').is_some_and(|(_, number)| number.parse::<u16>().is_ok());
    seen.is_object() && (numbered() || COMPONENTS.contains(&seen.last()))
}

fn is_shelly(seen: &Seen<'_, '_>) -> bool {
    seen.first().starts_with("shelly")
}

fn is_discovery(seen: &Seen<'_, '_>) -> bool {
    seen.topic == "homeassistant/status" || home_assistant::teaches(seen.topic)
}

/// A row, its filter, and what is told of it.
struct Known {
    row: &'static Row,
    filter: Filter,
    why: String,
}

/// The rows, read once: nothing in them ever changes.
static KNOWN: LazyLock<Vec<Known>> = LazyLock::new(|| {
    let known = |row: &'static Row| {
        let filter = Filter::parse(row.filter).ok()?;
        Some(Known { row, filter, why: format!("the topic is {}", row.filter) })
    };
    CANONICAL.iter().filter_map(known).collect()
});

/// Whether nothing on the topic is telemetry, whatever the format: statistics of the broker, tidegate's own, commands.
pub(super) fn is_ignored(topic: &str) -> bool {
    let levels = || topic.split('/');
    let mut backwards = levels().rev();
    let (last, before) = (backwards.next().unwrap_or(""), backwards.next().unwrap_or(""));
    let is_command = |level: &str| matches!(level, "set" | "get" | "cmd" | "command");
    let aws = topic.starts_with("$aws/");
    let own = topic.strip_prefix("devices/").and_then(|rest| rest.split('/').nth(1));
    (topic.starts_with('$') && !aws)
        || topic.starts_with("tidegate/")
        || matches!(own, Some("commands" | "twin"))
        || levels().take(3).any(|level| level == "cmnd")
        || (!aws && (is_command(last) || matches!(before, "set" | "get")))
}

/// By the table.
pub(super) fn canonical<'t>(seen: &Seen<'t, '_>) -> Option<Choice<'t>> {
    let found = |known: &'static Known| {
        let captures = known.filter.captures(seen.topic)?;
        (known.row.fits)(seen).then_some((known, captures))
    };
    let (known, captures) = KNOWN.iter().find_map(found)?;
    let decoder = known.row.decoder;
    // Shellies are renamed, and then only some of their topics are like no other's.
    let teaches = match decoder {
        Decoder::Shelly if known.row.filter.starts_with("{device}/") => Some(seen.first()),
        _ => None,
    };
    Some(Choice { decoder, captures, why: &known.why, teaches })
}

/// By topics that are like no other's wherever they begin.
pub(super) fn shaped<'t>(seen: &Seen<'t, '_>) -> Option<Choice<'t>> {
    let topic = seen.topic;
    let choice =
        |decoder, why, teaches| Some(Choice { decoder, captures: Captures::default(), why, teaches: Some(teaches) });
    if let Some((gateway, ..)) = super::topic::around(topic, |level| level.ends_with("toMQTT")) {
        // Old firmware has no gateway's level, and the base is everybody's.
        let teaches = if gateway.contains('/') { gateway } else { "" };
        return choice(Decoder::OpenMqttGateway, "a level of the topic ends in toMQTT", teaches);
    }
    if let Some(base) = home_assistant::statestream_base(topic)
        && matches!(seen.last(), "last_changed" | "last_updated" | "friendly_name")
    {
        return choice(Decoder::HomeAssistant, "the topic is a statestream's <domain>/<object>/last_changed", base);
    }
    if matches!(seen.last(), "$homie" | "$state" | "$description" | "$datatype" | "$properties") {
        return choice(Decoder::Homie, "the topic is an attribute of Homie", seen.first());
    }
    if let Some(device) = esphome::device(topic) {
        return choice(Decoder::Esphome, "the topic is <component>/<object>/state, as ESPHome's", device);
    }
    None
}

/// What the levels below a prefix of this format are; none: it does not say.
pub(super) fn below<'t>(seen: &Seen<'t, '_>, prefix: &'t str, decoder: Decoder) -> Option<Captures<'t>> {
    let rest = seen.topic.strip_prefix(prefix)?;
    let rest = rest.strip_prefix('/').unwrap_or(rest);
    let by_itself = Some(Captures::default());
    match decoder {
        Decoder::Esphome if matches!(rest, "status" | "debug") || esphome::device(seen.topic) == Some(prefix) => {
            by_itself
        }
        Decoder::OpenMqttGateway if matches!(rest, "LWT" | "version") => by_itself,
        Decoder::HomeAssistant if home_assistant::statestream_base(seen.topic) == Some(prefix) => by_itself,
        Decoder::Homie if !rest.is_empty() => by_itself,
        Decoder::Shelly if matches!(rest, "online" | "debug/log" | "announce" | "info") => Some(whole(prefix)),
        Decoder::Zigbee2Mqtt if !rest.is_empty() => by_itself,
        Decoder::Cbor | Decoder::Csv | Decoder::LineProtocol | Decoder::Msgpack | Decoder::Senml
            if rest.is_empty() && !seen.is_object() =>
        {
            Some(whole(super::device_of(seen.topic)))
        }
        Decoder::Rtl433 | Decoder::Ttn if rest.is_empty() => Some(whole(super::device_of(seen.topic))),
        _ => None,
    }
}

/// See [`super::filter`].
pub(super) fn filter(decoder: Decoder, topic: &str) -> Option<String> {
    let canonical = |known: &&Known| known.row.decoder == decoder && known.filter.captures(topic).is_some();
    if let Some(known) = KNOWN.iter().find(canonical) {
        return Some(known.row.filter.to_owned());
    }
    let levels = |levels: &str| Some(format!("{levels}/#")).filter(|_| !levels.is_empty());
    let first = topic.split('/').next().unwrap_or("");
    match decoder {
        Decoder::Zigbee2Mqtt | Decoder::Homie | Decoder::OpenMqttGateway => levels(first),
        Decoder::HomeAssistant => home_assistant::statestream_base(topic).and_then(levels),
        Decoder::Esphome => levels(esphome::device(topic).unwrap_or_else(|| super::topic::split_last(topic).0)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_can_be_read_and_captures_what_its_decoder_needs() {
        assert_eq!(KNOWN.len(), CANONICAL.len());
        for known in KNOWN.iter() {
            let named = known.row.filter.contains("{device") || known.row.decoder.names_devices();
            assert!(named, "{}", known.row.filter);
        }
    }
}
