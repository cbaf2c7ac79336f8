//! Ruuvi Gateway: `ruuvi/<gateway MAC>/<tag MAC>` with one JSON object for each advertisement heard.
//! Ruuvi's documentation, *GW Data formats* (*MQTT: Time-stamped data*, *… without timestamps*).
//!
//! - `ts` (seconds, a number or text) is when the gateway heard the tag, and the time. `gwts` is when it passed it on; `cnt`
//!   stands for both where the gateway has no clock.
//! - The gateway decodes the advertisement, or passes it on raw (`data`, hex), or both. A raw one is decoded here into the
//!   gateway's keys: see [`advertisement`]. What is no advertisement of a known format adds nothing but its `dataFormat`.
//! - `gw_mac`, `aoa`, `coords` and `id` are no samples. Pressure is in Pa; keys contain a dot (`PM2.5`).
//! - `rssi` (dBm) is how well the gateway heard the tag.
//! - The gateway, as the topic names it or `gw_mac`, is the tag's parent.
//! - Without a `{device}` the last level is the tag. `gw_status` there is of the gateway.

mod advertisement;

use super::document::{Flat, Node};
use super::{Context, Report, seconds, signal, topic};
use crate::quarantine::Refusal;

/// Members that are no samples.
const ENVELOPE: [&str; 8] = ["gw_mac", "aoa", "gwts", "ts", "cnt", "data", "coords", "id"];

pub(super) fn decode(payload: &[u8], context: &Context<'_>) -> Result<Vec<Report>, Refusal> {
    let document = Node::parse(payload, context.limits)?;
    document.expect_object()?;
    let mut flat = Flat::new(context.limits);
    for (key, node) in document.members().iter().filter(|(key, _)| !ENVELOPE.contains(&key.as_str())) {
        flat.add(key, node)?;
    }
    let mut point = flat.finish()?;
    if document.get("dataFormat").is_none()
        && let Some(data) = document.get("data").and_then(Node::text)
    {
        for (key, value) in advertisement::decode(data)? {
            if point.get(key).is_none() {
                point.push(key, value);
            }
        }
    }
    let signal = signal(&point, &[("rssi", "rssi")]);
    let time = document.get("ts").map(|ts| seconds::read("ts", ts)).transpose()?.flatten();
    let (rest, last) = topic::split_last(context.topic);
    let gateway = Some(topic::split_last(rest).1).filter(|gateway| !gateway.is_empty() && *gateway != "ruuvi");
    let gateway = gateway.or_else(|| document.get("gw_mac").and_then(Node::text)).filter(|_| last != "gw_status");
    let parent = gateway.filter(|gateway| !gateway.is_empty()).map(str::to_owned);
    let device = match last {
        "gw_status" => Some(topic::split_last(rest).1.to_owned()).filter(|gateway| !gateway.is_empty()),
        tag => topic::device(context, tag),
    };
    Ok(vec![Report { device, signal, parent, ..Report::of_topic(vec![point.at(time)]) }])
}

#[cfg(test)]
mod tests {
    use super::super::tests::context;
    use super::*;
    use crate::quarantine::Reason;

    fn of(topic: &str, payload: &str) -> Result<Vec<Report>, Refusal> {
        decode(payload.as_bytes(), &Context { topic, ..context() })
    }

    #[test]
    fn the_topic_alone_tells_the_tag_and_the_gateway() {
        let device = |topic: &str| of(topic, r#"{"rssi":-70,"state":"online"}"#).unwrap().remove(0).device;
        assert_eq!(device("ruuvi/GW/TAG").as_deref(), Some("TAG"));
        assert_eq!(device("ruuvi/GW/gw_status").as_deref(), Some("GW"));
        assert_eq!(device("gw_status"), None);
    }

    #[test]
    fn the_gateway_is_the_parent_of_the_tag() {
        let parent = |topic: &str| of(topic, r#"{"rssi":-70,"gw_mac":"AA:01"}"#).unwrap().remove(0).parent;
        assert_eq!(parent("ruuvi/GW/TAG").as_deref(), Some("GW"));
        assert_eq!(parent("TAG").as_deref(), Some("AA:01"));
        assert_eq!(parent("ruuvi/GW/gw_status"), None);
    }

    #[test]
    fn what_the_gateway_decoded_is_not_decoded_again() {
        let raw = "0201061BFF99040512FC5394C37C0004FFFC040CAC364200CDCBB8334C884F";
        let count = |more: &str| {
            let payload = format!(r#"{{"rssi":-70,{more}"data":"{raw}"}}"#);
            of("ruuvi/GW/TAG", &payload).unwrap()[0].points[0].samples.len()
        };
        assert_eq!((count(""), count(r#""dataFormat":5,"#), count(r#""temperature":1,"#)), (12, 2, 12));
    }

    #[test]
    fn hostile_messages_are_refused() {
        let reason = |payload: &str| of("ruuvi/GW/TAG", payload).unwrap_err().reason;
        for bad in ["1", "[]", "x", r#"{"data":"0201061BFF"}x"#] {
            assert_eq!(reason(bad), Reason::Malformed, "{bad}");
        }
        assert_eq!(reason(r#"{"ts":true}"#), Reason::BadTime);
        assert_eq!(reason(r#"{"rssi":1,"rssi":2}"#), Reason::DuplicateKey);
        assert_eq!(reason(r#"{"data":"04FF990405"}"#), Reason::Malformed);
        for odd in [r#"{"data":"ää"}"#, r#"{"data":"+1"}"#, r#"{"data":[]}"#, r#"{"data":null,"ts":null}"#] {
            assert_eq!(of("ruuvi/GW/TAG", odd).unwrap()[0].points[0].samples, [], "{odd}");
        }
    }
}
