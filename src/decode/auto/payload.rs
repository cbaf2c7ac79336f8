//! Which format a payload is in where its topic tells nothing.

use super::super::document::Node;
use super::super::{Context, Point, cbor, csv, line_protocol, msgpack, senml};
use crate::config::{Csv, Decoder};
use crate::quarantine::Refusal;

/// What no other format has in its objects, of which all must be there.
const SIGNS: [(Decoder, &[&str], &str); 3] = [
    (Decoder::Zigbee2Mqtt, &["\"linkquality\""], "the object has a linkquality, as Zigbee2MQTT's"),
    (Decoder::Rtl433, &["\"time\"", "\"model\"", "\"mic\""], "the object has time, model and mic, as rtl_433's"),
    (
        Decoder::Ttn,
        &["\"end_device_ids\"", "\"application_ids\""],
        "the object has end_device_ids, as The Things Stack's",
    ),
];

/// The format and why; none: it is one value.
///
/// # Errors
/// [`Refusal`] of the message: more than one format fits.
pub(super) fn format(payload: &[u8], context: &Context<'_>) -> Result<Option<(Decoder, &'static str)>, Refusal> {
    let Ok(text) = std::str::from_utf8(payload) else { return binary(payload, context) };
    Ok(match text.trim_ascii_start().as_bytes().first() {
        Some(b'{') => Some(object(text)),
        Some(b'[') => Some(match Node::parse(payload, context.limits) {
            Ok(document) if senml::is_pack(&document, payload) => (Decoder::Senml, "the array is a SenML pack"),
            _ => (Decoder::Json, "a JSON array"),
        }),
        _ => lines(payload, text, context),
    })
}

fn object(text: &str) -> (Decoder, &'static str) {
    let sign = SIGNS.iter().find(|(_, signs, _)| signs.iter().all(|sign| text.contains(sign)));
    sign.map_or((Decoder::Json, "a JSON object"), |(decoder, _, why)| (*decoder, *why))
}

/// Text that line formats take whole.
fn lines(payload: &[u8], text: &str, context: &Context<'_>) -> Option<(Decoder, &'static str)> {
    if text.contains('=') && text.contains(' ') && line_protocol::decode(payload, context).is_ok_and(has_samples) {
        return Some((Decoder::LineProtocol, "every line is one of line protocol"));
    }
    let mut rows = text.lines();
    let names: Vec<&str> = rows.next()?.split(',').map(str::trim_ascii).collect();
    let headed = Context { csv: Csv { header: true }, ..*context };
    let is_table = names.len() > 1 && names.iter().all(|name| is_column(name)) && rows.next().is_some();
    let read = || csv::decode(payload, &headed).is_ok_and(has_samples);
    (context.csv.header && is_table && read()).then_some((Decoder::Csv, "a header and records of its width"))
}

fn has_samples(points: Vec<Point>) -> bool {
    points.iter().any(|point| !point.samples.is_empty())
}

/// Whether a word may well name a column.
fn is_column(name: &str) -> bool {
    let name = name.trim_matches('"');
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}

fn binary(payload: &[u8], context: &Context<'_>) -> Result<Option<(Decoder, &'static str)>, Refusal> {
    let cbor = cbor::parse(payload, context.limits).ok().filter(is_native);
    let msgpack = msgpack::parse(payload, context.limits).ok().filter(is_native);
    match (cbor, msgpack) {
        (Some(document), _) if senml::is_pack(&document, payload) => {
            Ok(Some((Decoder::Senml, "the CBOR array is a SenML pack")))
        }
        (Some(_), Some(_)) => Err(super::ambiguous("the payload is CBOR as well as MessagePack")),
        (Some(_), None) => Ok(Some((Decoder::Cbor, "a CBOR map"))),
        (None, Some(_)) => Ok(Some((Decoder::Msgpack, "a MessagePack map"))),
        (None, None) => Ok(None),
    }
}

/// An object with members, or an array of such.
fn is_native(document: &Node) -> bool {
    let is_object = |node: &Node| !node.members().is_empty();
    is_object(document) || (!document.elements().is_empty() && document.elements().iter().all(is_object))
}
