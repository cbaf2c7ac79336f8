//! Payload → samples. One file for each payload format; pure: the same messages, and the same memory before them, give the
//! same samples.

pub mod auto;
mod aws_shadow;
mod bounds;
mod cbor;
mod chirpstack;
mod csv;
mod document;
mod envelope;
mod esphome;
#[cfg(test)]
mod fuzz;
mod home_assistant;
mod homie;
mod json;
mod line_protocol;
mod losant;
pub mod memory;
mod msgpack;
mod native;
mod openmqttgateway;
mod presence;
mod rtl_433;
mod ruuvi;
mod scalar;
mod seconds;
mod senml;
mod shelly;
pub(crate) mod sparkplug;
mod tasmota;
mod thin_edge;
mod thingsboard;
mod topic;
mod ttn;
mod victron;
mod zigbee2mqtt;

use std::borrow::Cow;
use std::ops::Range;

use crate::config::{Csv, Decoder, Limits, SparkplugSource};
use crate::quarantine::{Reason, Refusal};
use crate::source::Captures;
use crate::time::UtcMicros;
use memory::Recall;

pub use scalar::decimal;

/// A raw value, as the decoder found it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Finite.
    Number(f64),
    /// A finite number written otherwise than its plain text (`0042`, `1.10`, an integer beyond 2^53): a metric of kind
    /// text needs the writing.
    Literal {
        number: f64,
        text: String,
    },
    Bool(bool),
    Text(String),
}

/// One raw key and value, before any template.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Where the key stands in its point's `keys`.
    place: Range<usize>,
    pub value: Value,
}

impl Sample {
    /// Where the key stands in its point's `keys`.
    pub fn place(&self) -> &Range<usize> {
        &self.place
    }

    /// The raw key; `keys`: its point's.
    pub fn key<'k>(&self, keys: &'k str) -> &'k str {
        keys.get(self.place.clone()).unwrap_or_default()
    }
}

/// The samples of one instant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Point {
    /// The time that the payload gives; none: the time of receipt.
    pub time: Option<UtcMicros>,
    /// All raw keys in one text, so that none costs an allocation.
    pub keys: String,
    pub samples: Vec<Sample>,
}

impl Point {
    /// The same samples at another time.
    #[must_use]
    pub fn at(self, time: Option<UtcMicros>) -> Point {
        Point { time, ..self }
    }

    /// Adds a sample; whether there is one of its key is not looked at.
    pub fn push(&mut self, key: &str, value: Value) {
        let start = self.keys.len();
        self.keys.push_str(key);
        self.samples.push(Sample { place: start..self.keys.len(), value });
    }

    /// Raw keys and values, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.samples.iter().map(|sample| (sample.key(&self.keys), &sample.value))
    }

    /// The value of the first sample that has the key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.iter().find(|(raw, _)| *raw == key).map(|(_, value)| value)
    }
}

/// What a message says of one device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The device's uid as the payload names it; none: the one that the topic names.
    pub device: Option<String>,
    pub points: Vec<Point>,
    /// Units that the payload itself declares, by raw key.
    pub units: Vec<(String, String)>,
    /// How well the device was heard, as the envelope tells: `rssi` in dBm, `snr` in dB, `link_quality`. Readings at the time of
    /// the last point, beside the payload's samples.
    pub signal: Vec<Signal>,
    /// What of the message could not be taken though the rest is: told beside it.
    pub left_out: Vec<Refusal>,
    /// What the payload, or a description that came before it, says of the device itself. What it leaves out is not forgotten.
    pub told: Vec<(Told, String)>,
    /// Uid of the gateway that the device is behind, as the payload or the topic names it, in the device's tenant.
    pub parent: Option<String>,
    /// What the payload says of switches of the protocol's own, which is no telemetry, and may confirm a command.
    pub controls: Vec<(String, Value)>,
    /// Whether the device is there, where that is what the message says.
    pub presence: Option<Presence>,
    /// For a decoder that only chooses among others: which one read it, and why it was taken for that.
    pub read_as: Option<(Decoder, String)>,
}

/// What a message says of whether its device is there: a will, a birth, a death, an availability, what the broker tells of its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    /// With what it was told by, in the words of the format.
    There(Cow<'static, str>),
    Gone(Cow<'static, str>),
    /// Nothing: somebody else speaks of the device, and that is no sign of its life.
    Hearsay,
}

/// A fact that a device tells of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum Told {
    Manufacturer,
    /// As the manufacturer calls the type of the device.
    Model,
    /// Version of its firmware.
    Firmware,
    /// For people; never what the device is known by.
    Name,
    /// What it is connected by, one word: `zigbee`, `wifi`, `lora`, `ble`, `ethernet`, `433mhz`, …
    Connectivity,
}

/// A figure of how well a device was heard, by its name.
pub type Signal = (&'static str, Value);

impl Report {
    /// Of the device that the topic names.
    fn of_topic(points: Vec<Point>) -> Report {
        Report { points, ..Report::default() }
    }
}

/// What a decoder wants told to a device, by its format's own rules: at QoS 0, not retained. It travels beside what is decoded, and
/// whether it is sent is not the decoder's to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Names whom it is for, too: one that is asked on this topic is not asked again soon.
    pub topic: String,
    pub payload: bytes::Bytes,
}

/// What a decoder needs to know beside the payload.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    pub topic: &'a str,
    /// What the source's filter found in the topic.
    pub captures: &'a Captures<'a>,
    /// For times that a payload gives relative to now.
    pub received_at: UtcMicros,
    /// Raw key that holds the time, if the source says so.
    pub timestamp: Option<&'a str>,
    /// For local text timestamps; none: UTC.
    pub timezone: Option<&'a jiff::tz::TimeZone>,
    pub limits: &'a Limits,
    pub csv: Csv,
    pub sparkplug: SparkplugSource,
}

/// Reads a payload. No points: it says that there is no value (an empty or `null` scalar, a JSON `null`). Points of one
/// instant are not merged.
///
/// # Errors
/// The one [`Refusal`] of the whole message: a payload is taken or refused as a whole.
pub fn decode(
    decoder: Decoder,
    payload: &[u8],
    context: &Context<'_>,
    memory: &mut Recall<'_>,
) -> Result<Vec<Report>, Refusal> {
    let of_topic = |points| vec![Report::of_topic(points)];
    match decoder {
        Decoder::Json => json::decode(payload, context).map(of_topic),
        Decoder::Scalar => scalar::decode(payload, context).map(of_topic),
        Decoder::Auto => auto::decode(payload, context, memory),
        Decoder::AwsShadow => aws_shadow::decode(payload, context),
        Decoder::Cbor => cbor::decode(payload, context).map(of_topic),
        Decoder::Chirpstack => chirpstack::decode(payload, context),
        Decoder::Csv => csv::decode(payload, context).map(of_topic),
        Decoder::Esphome => esphome::decode(payload, context),
        Decoder::HomeAssistant => home_assistant::decode(payload, context, memory),
        Decoder::Homie => homie::decode(payload, context, memory),
        Decoder::LineProtocol => line_protocol::decode(payload, context).map(of_topic),
        Decoder::Losant => losant::decode(payload, context),
        Decoder::Msgpack => msgpack::decode(payload, context).map(of_topic),
        Decoder::OpenMqttGateway => openmqttgateway::decode(payload, context),
        Decoder::Rtl433 => rtl_433::decode(payload, context),
        Decoder::Presence => presence::decode(payload, context),
        Decoder::Ruuvi => ruuvi::decode(payload, context),
        Decoder::Senml => senml::decode(payload, context),
        Decoder::Shelly => shelly::decode(payload, context),
        Decoder::Sparkplug => sparkplug::decode(payload, context, memory),
        Decoder::Tasmota => tasmota::decode(payload, context),
        Decoder::ThinEdge => thin_edge::decode(payload, context),
        Decoder::Thingsboard => thingsboard::decode(payload, context),
        Decoder::Ttn => ttn::decode(payload, context),
        Decoder::Victron => victron::decode(payload, context),
        Decoder::Zigbee2Mqtt => zigbee2mqtt::decode(payload, context, memory),
    }
}

/// Whether messages on the topic tell the decoder how others are to be read, and carry no values: worth decoding even where
/// retained messages are ignored.
pub fn teaches(decoder: Decoder, topic: &str) -> bool {
    match decoder {
        Decoder::Auto => auto::teaches(topic),
        Decoder::HomeAssistant => home_assistant::teaches(topic),
        Decoder::Homie => homie::teaches(topic),
        Decoder::Zigbee2Mqtt => zigbee2mqtt::teaches(topic),
        _ => false,
    }
}

/// Whether messages on the topic say whether a device is there: worth decoding for that even where retained messages are ignored.
pub fn tells_presence(decoder: Decoder, topic: &str) -> bool {
    let last = || topic.rsplit('/').next().unwrap_or("");
    match decoder {
        Decoder::Auto => auto::tells_presence(topic),
        Decoder::Esphome => last() == "status",
        Decoder::Homie => last() == "$state",
        Decoder::OpenMqttGateway | Decoder::Tasmota => last() == "LWT",
        Decoder::Presence => true,
        Decoder::Shelly => last() == "online",
        Decoder::Zigbee2Mqtt => last() == "availability" || topic.ends_with("/bridge/state"),
        _ => false,
    }
}

/// What the devices of a format are connected by, where it knows but one way.
pub fn connectivity(decoder: Decoder) -> Option<&'static str> {
    match decoder {
        Decoder::Chirpstack | Decoder::Ttn => Some("lora"),
        Decoder::Ruuvi => Some("ble"),
        Decoder::Zigbee2Mqtt => Some("zigbee"),
        _ => None,
    }
}

/// The facts that are there.
fn told<'n>(facts: impl IntoIterator<Item = (Told, Option<&'n str>)>) -> Vec<(Told, String)> {
    let is_said = |text: &&str| !text.trim().is_empty();
    facts.into_iter().filter_map(|(fact, text)| Some((fact, text.filter(is_said)?.to_owned()))).collect()
}

/// A whole number as the nearest float, with its digits where the float does not hold them.
#[expect(clippy::cast_precision_loss, reason = "the nearest float is what is wanted; the digits are kept")]
fn integer(number: i128) -> Value {
    if number.unsigned_abs() <= 1 << 53 {
        Value::Number(number as f64)
    } else {
        Value::Literal { number: number as f64, text: number.to_string() }
    }
}

/// What the samples tell of how well the device was heard: each pair is a raw key and the name that it means. What is no
/// number tells nothing.
fn signal(point: &Point, names: &[(&str, &'static str)]) -> Vec<Signal> {
    let told = |(key, name): &(&str, &'static str)| {
        point.get(key).filter(|value| matches!(value, Value::Number(_))).map(|value| (*name, value.clone()))
    };
    names.iter().filter_map(told).collect()
}

fn bad_time(key: &str, detail: &str) -> Refusal {
    Refusal::message(Reason::BadTime, format!("{key}: {detail}"))
}

fn out_of_range(key: &str) -> Refusal {
    Refusal::message(Reason::NumberOutOfRange, format!("number out of range of a 64-bit float; key {key}"))
}

fn utf8(payload: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(payload).map_err(|error| {
        Refusal::message(Reason::NotUtf8, format!("invalid UTF-8 after {} bytes of the payload", error.valid_up_to()))
    })
}

fn key_too_long(key: &str, limits: &Limits) -> Refusal {
    let (length, most) = (key.len(), limits.max_key_length);
    let detail = format!("key too long: {length} bytes, limits.max_key_length is {most}; key {key}");
    Refusal::message(Reason::KeyTooLong, detail)
}

fn text_too_long(key: &str, length: usize, limits: &Limits) -> Refusal {
    let most = limits.max_text_length;
    let detail = format!("text value too long: {length} bytes, limits.max_text_length is {most}; key {key}");
    Refusal::message(Reason::TooLarge, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SparkplugDevice;
    use proptest::prelude::*;

    pub(super) const LIMITS: Limits =
        Limits { max_depth: 32, max_keys: 1000, max_key_length: 255, max_text_length: 4096 };

    pub(super) fn context() -> Context<'static> {
        static NOTHING: Captures<'static> =
            Captures { tenant: None, device: None, module: None, metric: None, gateway: None };
        Context {
            topic: "",
            captures: &NOTHING,
            received_at: UtcMicros(0),
            timestamp: None,
            timezone: None,
            limits: &LIMITS,
            csv: Csv { header: true },
            sparkplug: SparkplugSource { rebirth: true, device: SparkplugDevice::Id },
        }
    }

    /// JSON-like text: most of it almost right.
    fn scraps() -> impl Strategy<Value = String> {
        let scrap = prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"a\"",
            "\"ts\"",
            "\"values\"",
            "1",
            "-0.5e3",
            "true",
            "null",
            "\"",
            "\\u",
            " ",
        ]);
        prop::collection::vec(scrap, 0..40).prop_map(|scraps| scraps.concat())
    }

    proptest! {
        #[test]
        fn no_bytes_panic(payload in prop::collection::vec(any::<u8>(), 0..200), scraps in scraps()) {
            let mut memory = memory::Memory::default();
            let mut recall = memory.of_source(&"fuzzed".into());
            for decoder in Decoder::ALL {
                let _ = decode(decoder, &payload, &context(), &mut recall);
                let _ = decode(decoder, scraps.as_bytes(), &Context { timestamp: Some("a"), ..context() }, &mut recall);
            }
        }

        #[test]
        fn numbers_are_finite_and_keys_bounded(scraps in scraps()) {
            for point in json::decode(scraps.as_bytes(), &context()).unwrap_or_default() {
                for sample in point.samples {
                    prop_assert!(sample.key(&point.keys).len() <= LIMITS.max_key_length);
                    prop_assert!(!matches!(sample.value, Value::Number(number) if !number.is_finite()));
                }
            }
        }
    }
}
