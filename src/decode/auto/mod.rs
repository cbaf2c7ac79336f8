//! `auto`: which format a message is in, by its topic and its payload, for a source that takes whatever there is (`#`).
//!
//! - First what a format's own documentation says of topics ([`topics`]), then what messages before this one showed of the levels
//!   above it, then what Home Assistant's discovery announced, then the payload's own form ([`payload`]), and at last: an
//!   object is native JSON and the topic its device; one value is a scalar, whose last level is the metric.
//! - What is sure of one message decides the ambiguous ones under the same levels from then on: `<prefix>/status` is
//!   ESPHome's once `<prefix>/sensor/x/state` was seen. That is remembered, for [`MAX_REMEMBERED`] prefixes of a source.
//! - Broker statistics (`$SYS`), tidegate's own topics, and commands are ignored: no report.
//! - What the source's filter captures goes before what a format's topics would.
//! - Whichever decoder is chosen has a memory of its own, and reads as it would for a source that names it. Entities of a Home
//!   Assistant discovery that can't be read are not told: most are announced by a format that is read without them.

mod payload;
mod topics;

use std::borrow::Cow;

use super::memory::Recall;
use super::{Context, Report, home_assistant, topic};
use crate::config::Decoder;
use crate::quarantine::{Reason, Refusal};
use crate::source::Captures;

/// Most prefixes of topics that are remembered of one source.
const MAX_REMEMBERED: u32 = 20_000;
/// Longest prefix that is remembered, in bytes.
const MAX_PREFIX: usize = 255;

/// Levels that name a kind of message, or nothing in particular, where they are the last.
const KINDS: [&str; 22] = [
    "attributes",
    "data",
    "event",
    "events",
    "info",
    "json",
    "measurement",
    "measurements",
    "message",
    "payload",
    "reading",
    "readings",
    "report",
    "sensor",
    "sensors",
    "state",
    "status",
    "tele",
    "telemetry",
    "up",
    "uplink",
    "values",
];

/// What a message was taken for.
#[derive(Debug)]
struct Choice<'t> {
    decoder: Decoder,
    captures: Captures<'t>,
    why: &'static str,
    /// The levels whose messages are all of this format, from now on.
    teaches: Option<&'t str>,
}

pub(super) fn decode(payload: &[u8], context: &Context<'_>, memory: &mut Recall<'_>) -> Result<Vec<Report>, Refusal> {
    if topics::is_ignored(context.topic) {
        return Ok(Vec::new());
    }
    let Choice { decoder, captures: own, why, teaches } = choose(payload, context, memory)?;
    let captures = merged(context, &own);
    let reading = Context { captures: &captures, ..*context };
    let mut reports = super::decode(decoder, payload, &reading, &mut memory.of_decoder(decoder.name()))?;
    if let Some(prefix) = teaches {
        remember(prefix, decoder, memory)?;
    }
    for report in &mut reports {
        // The filter's own device goes without saying.
        if report.device.is_none() && context.captures.device.is_none() {
            report.device = own.device.map(str::to_owned);
        }
        if decoder == Decoder::HomeAssistant {
            report.left_out.clear();
        }
        report.read_as = Some((decoder, why.to_owned()));
    }
    Ok(reports)
}

/// Whether the topic is one on which a format announces how others are to be read.
pub(super) fn teaches(topic: &str) -> bool {
    let others = || Decoder::ALL.into_iter().filter(|decoder| *decoder != Decoder::Auto);
    !topics::is_ignored(topic) && others().any(|decoder| super::teaches(decoder, topic))
}

/// Whether a format says on the topic whether a device is there.
pub(super) fn tells_presence(topic: &str) -> bool {
    let others = || Decoder::ALL.into_iter().filter(|decoder| !matches!(decoder, Decoder::Auto | Decoder::Presence));
    !topics::is_ignored(topic) && others().any(|decoder| super::tells_presence(decoder, topic))
}

/// The filter of a source that would take messages such as this one with the decoder they are read by; none: only `auto` finds
/// its way there.
pub fn filter(decoder: Decoder, topic: &str) -> Option<String> {
    topics::filter(decoder, topic)
}

fn choose<'t>(payload: &[u8], context: &Context<'t>, memory: &mut Recall<'_>) -> Result<Choice<'t>, Refusal> {
    let seen = topics::Seen { topic: context.topic, payload };
    let by_topic = topics::canonical(&seen).or_else(|| remembered(&seen, memory)).or_else(|| topics::shaped(&seen));
    if let Some(choice) = by_topic {
        return Ok(choice);
    }
    if home_assistant::announced(&memory.of_decoder(Decoder::HomeAssistant.name()), context.topic) {
        let why = "Home Assistant's discovery announced the topic";
        let captures = Captures::default();
        return Ok(Choice { decoder: Decoder::HomeAssistant, captures, why, teaches: None });
    }
    let Some((decoder, why)) = payload::format(payload, context)? else { return Ok(scalar(&seen, memory)) };
    Ok(match context.topic.split_once('/') {
        // The first level is the base then, and the rest a friendly name.
        Some((base, _)) if decoder == Decoder::Zigbee2Mqtt => {
            Choice { decoder, captures: Captures::default(), why, teaches: Some(base) }
        }
        _ => Choice { decoder, captures: whole(device_of(context.topic)), why, teaches: Some(context.topic) },
    })
}

/// What the source's filter captured, before what the format's topic has.
fn merged<'c>(context: &Context<'c>, own: &Captures<'c>) -> Captures<'c> {
    let theirs = context.captures;
    let metric = match (&theirs.metric, theirs.device, &own.metric) {
        (Some(metric), ..) => Some(metric.clone()),
        // All levels behind the device, or two series would meet.
        (None, Some(_), Some(found)) => Some(Cow::Owned(topic::key(context, found))),
        (None, _, found) => found.clone(),
    };
    Captures { device: theirs.device.or(own.device), metric, ..theirs.clone() }
}

fn whole(device: &str) -> Captures<'_> {
    Captures { device: Some(device), ..Captures::default() }
}

/// The topic without the levels at its end that name a kind of message.
fn device_of(topic: &str) -> &str {
    let mut device = topic;
    while let Some((before, last)) = device.rsplit_once('/') {
        if before.is_empty() || !KINDS.contains(&last) {
            break;
        }
        device = before;
    }
    device
}

/// One value: of the device that sends objects on the very topic, or of what the levels above it name.
fn scalar<'t>(seen: &topics::Seen<'t, '_>, memory: &Recall<'_>) -> Choice<'t> {
    let why = "one value, named by the last level of its topic";
    let captures = match seen.topic.rsplit_once('/') {
        Some((before, last)) if !before.is_empty() && known(seen.topic, memory).is_none() => {
            Captures { metric: Some(Cow::Borrowed(last)), ..whole(before) }
        }
        _ => whole(device_of(seen.topic)),
    };
    Choice { decoder: Decoder::Scalar, captures, why, teaches: None }
}

/// What messages before this one showed of the levels above it, the longest first.
fn remembered<'t>(seen: &topics::Seen<'t, '_>, memory: &Recall<'_>) -> Option<Choice<'t>> {
    let mut prefix = seen.topic;
    loop {
        if let Some(decoder) = known(prefix, memory)
            && let Some(captures) = topics::below(seen, prefix, decoder)
        {
            let why = "earlier messages under the same levels are in this format";
            return Some(Choice { decoder, captures, why, teaches: None });
        }
        prefix = prefix.rsplit_once('/')?.0;
    }
}

fn known(prefix: &str, memory: &Recall<'_>) -> Option<Decoder> {
    let name = memory.get(&key(prefix))?;
    Decoder::ALL.into_iter().find(|decoder| decoder.name().as_bytes() == name)
}

/// Of one prefix the first format stays.
fn remember(prefix: &str, decoder: Decoder, memory: &mut Recall<'_>) -> Result<(), Refusal> {
    if prefix.is_empty() || prefix.len() > MAX_PREFIX || known(prefix, memory).is_some() {
        return Ok(());
    }
    let count = memory.get(COUNT).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes);
    if count >= MAX_REMEMBERED {
        return Ok(());
    }
    memory.put(&key(prefix), decoder.name().as_bytes())?;
    memory.put(COUNT, &count.saturating_add(1).to_le_bytes())
}

/// Where the number of prefixes stands.
const COUNT: &str = "prefixes";

fn key(prefix: &str) -> String {
    format!("as {prefix}")
}

/// Refusal of a payload that two formats could be meant by.
fn ambiguous(detail: &str) -> Refusal {
    Refusal::message(Reason::Unsupported, format!("{detail}; give the topic a source that names its decoder"))
}

#[cfg(test)]
mod tests {
    use super::super::memory::Memory;
    use super::super::tests::context;
    use super::super::{Told, Value};
    use super::*;

    fn of(memory: &mut Memory, topic: &str, payload: &[u8]) -> Result<Vec<Report>, Refusal> {
        decode(payload, &Context { topic, ..context() }, &mut memory.of_source(&"s".into()))
    }

    /// Decoder, device and keys of the one report.
    fn one(memory: &mut Memory, topic: &str, payload: &str) -> (Decoder, String, String) {
        let mut reports = of(memory, topic, payload.as_bytes()).unwrap();
        assert_eq!(reports.len(), 1, "{topic}: {reports:?}");
        let report = reports.remove(0);
        let keys = report.points.first().map(|point| point.iter().map(|(key, _)| key).collect::<Vec<_>>().join(" "));
        (report.read_as.unwrap().0, report.device.unwrap_or_default(), keys.unwrap_or_default())
    }

    fn fresh(topic: &str, payload: &str) -> (Decoder, String, String) {
        one(&mut Memory::default(), topic, payload)
    }

    fn told(decoder: Decoder, device: &str, keys: &str) -> (Decoder, String, String) {
        (decoder, device.to_owned(), keys.to_owned())
    }

    #[test]
    fn unknown_topics_are_read_by_what_is_in_the_payload() {
        assert_eq!(fresh("plant/pump1/data", r#"{"flow":1}"#), told(Decoder::Json, "plant/pump1", "flow"));
        assert_eq!(fresh("data/state", r#"{"flow":1}"#), told(Decoder::Json, "data", "flow"));
        assert_eq!(fresh("plant/pump1/flow", "1.5"), told(Decoder::Scalar, "plant/pump1", "flow"));
        assert_eq!(fresh("flow", "1.5"), told(Decoder::Scalar, "flow", "value"));
        assert_eq!(fresh("x/y", "m,host=a f=1,g=2i"), told(Decoder::LineProtocol, "x/y", "m.f m.g"));
        assert_eq!(fresh("x/y", "temp,door\n21.5,open\n"), told(Decoder::Csv, "x/y", "temp door"));
        assert_eq!(fresh("x/y", r#"[{"n":"t","u":"Cel","v":1}]"#), told(Decoder::Senml, "x/y", "t"));
        assert_eq!(
            fresh("z2m/attic/lamp", r#"{"linkquality":9}"#),
            told(Decoder::Zigbee2Mqtt, "attic/lamp", "linkquality")
        );
        assert_eq!(fresh("x/y", "hello, world"), told(Decoder::Scalar, "x", "y"));
        assert_eq!(fresh("x/y", "ip=1.2.3.4 is up"), told(Decoder::Scalar, "x", "y"));
    }

    #[test]
    fn binary_documents_are_read_where_only_one_format_fits() {
        let decoder = |payload: &[u8]| {
            let reports = of(&mut Memory::default(), "x/y", payload);
            reports.map(|mut reports| reports.remove(0).read_as.unwrap().0).map_err(|refusal| refusal.reason)
        };
        assert_eq!(decoder(b"\xa1\x61a\x01"), Ok(Decoder::Cbor));
        assert_eq!(decoder(b"\x81\xa1a\x01"), Ok(Decoder::Msgpack));
        assert_eq!(decoder(b"\x81\xa2\x00\x61t\x02\x01"), Ok(Decoder::Senml));
        assert_eq!(decoder(b"\xff\xfe"), Err(Reason::NotUtf8));
    }

    #[test]
    fn the_same_levels_stay_with_their_format() {
        let mut memory = Memory::default();
        assert_eq!(fresh("attic/status", "online").0, Decoder::Scalar);
        one(&mut memory, "attic/sensor/t/state", "21.5");
        assert_eq!(one(&mut memory, "attic/status", "online"), told(Decoder::Esphome, "attic", "status"));
        one(&mut memory, "home/omg/BTtoMQTT/AABB", r#"{"id":"AA:BB","t":1}"#);
        assert_eq!(one(&mut memory, "home/omg/LWT", "online"), told(Decoder::OpenMqttGateway, "omg", "LWT"));
        one(&mut memory, "ha/light/desk/last_changed", "2020-10-11T12:13:14+00:00");
        assert_eq!(one(&mut memory, "ha/sensor/t/state", "1"), told(Decoder::HomeAssistant, "sensor.t", "state"));
        one(&mut memory, "plant/pump", r#"{"flow":1}"#);
        assert_eq!(one(&mut memory, "plant/pump", "offline"), told(Decoder::Scalar, "plant/pump", "value"));
        one(&mut memory, "site/5/d/$state", "ready");
        assert_eq!(one(&mut memory, "site/5/d/n/p", "1"), told(Decoder::Homie, "d", "n.p"));
    }

    #[test]
    fn what_is_refused_teaches_nothing_and_what_teaches_is_bounded() {
        let mut memory = Memory::default();
        assert!(of(&mut memory, "plant/pump", br#"{"flow":"#).is_err());
        assert!(memory.take_changes().is_empty());
        memory.of_source(&"s".into()).put(COUNT, &MAX_REMEMBERED.to_le_bytes()).unwrap();
        memory.take_changes();
        one(&mut memory, "plant/pump", r#"{"flow":1}"#);
        assert!(memory.take_changes().is_empty());
    }

    #[test]
    fn statistics_commands_and_tidegates_own_are_ignored() {
        for topic in [
            "$SYS/broker/uptime",
            "tidegate/status/gw",
            "tidegate/alerts/t/d/r",
            "devices/d/commands/1",
            "devices/d/commands/1/response",
            "devices/d/twin/desired",
            "cmnd/plug/POWER",
            "homeassistant/light/x/set",
            "attic/switch/x/command",
            "zigbee2mqtt/lamp/set",
            "zigbee2mqtt/lamp/set/state",
            "zigbee2mqtt/bridge/info",
            "shellies/x/relay/0/command",
        ] {
            assert_eq!(of(&mut Memory::default(), topic, b"{\"a\":1}"), Ok(Vec::new()), "{topic}");
        }
    }

    #[test]
    fn the_filters_captures_go_first() {
        let captures = Captures { device: Some("d1"), ..Captures::default() };
        let read = |topic: &str, payload: &str| {
            let context = Context { topic, captures: &captures, ..context() };
            let report = decode(payload.as_bytes(), &context, &mut Memory::default().of_source(&"s".into()));
            let report = report.unwrap().remove(0);
            (report.device, report.points[0].keys.clone())
        };
        assert_eq!(read("site/d1/a/b", "1"), (None, "a.b".to_owned()));
        assert_eq!(read("site/d1/data", r#"{"x":1}"#), (None, "x".to_owned()));
        assert_eq!(read("tele/d1/SENSOR", r#"{"x":1}"#), (None, "x".to_owned()));
    }

    #[test]
    fn decoders_remember_apart_and_announcements_of_unreadable_entities_are_no_refusals() {
        let mut memory = Memory::default();
        let config = r#"{"stat_t":"x/y","val_tpl":"{{ a | b }}","dev":{"ids":"d"}}"#;
        let reports = of(&mut memory, "homeassistant/sensor/o/config", config.as_bytes()).unwrap();
        assert!(reports.iter().all(|report| report.left_out.is_empty()));
        let config = r#"{"stat_t":"x/z","unit_of_meas":"W","dev":{"ids":"d"}}"#;
        of(&mut memory, "homeassistant/sensor/p/config", config.as_bytes()).unwrap();
        assert_eq!(one(&mut memory, "x/z", "5"), told(Decoder::HomeAssistant, "d", "sensor.p"));
        of(&mut memory, "homie/d/$name", b"Car").unwrap();
        assert_eq!(of(&mut memory, "homie/d/n/p", b"1").unwrap()[0].told, [(Told::Name, "Car".to_owned())]);
        assert!(teaches("homeassistant/sensor/p/config") && teaches("homie/d/$name") && !teaches("x/z"));
    }

    #[test]
    fn values_are_those_of_the_decoder() {
        let report = of(&mut Memory::default(), "N/abc/system/0/Soc", br#"{"value":84.5}"#).unwrap().remove(0);
        assert_eq!(report.points[0].get("system.0.Soc"), Some(&Value::Number(84.5)));
        assert!(report.read_as.unwrap().1.contains("N/"));
    }

    #[test]
    fn filters_can_be_pasted() {
        for (decoder, topic, expected) in [
            (Decoder::Tasmota, "tele/plug/SENSOR", Some("tele/{device}/+")),
            (Decoder::Tasmota, "home/plug/tele/SENSOR", Some("+/{device}/tele/+")),
            (Decoder::Esphome, "attic/sensor/t/state", Some("attic/#")),
            (Decoder::Esphome, "attic/status", Some("attic/#")),
            (Decoder::Zigbee2Mqtt, "z2m/attic/lamp", Some("z2m/#")),
            (Decoder::Shelly, "shellyplug/online", Some("{device}/online")),
            (Decoder::OpenMqttGateway, "home/omg/BTtoMQTT/AABB", Some("home/#")),
            (Decoder::Json, "devices/d/telemetry", Some("devices/{device}/telemetry")),
            (Decoder::Json, "plant/pump", None),
            (Decoder::Scalar, "plant/pump/flow", None),
        ] {
            assert_eq!(filter(decoder, topic).as_deref(), expected, "{topic}");
        }
    }
}
