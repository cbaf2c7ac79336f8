//! Losant: `losant/<device id>/state` with `{"data": {…}, "time": …}`, or an array of those.
//!
//! - `time` is ISO 8601 text, milliseconds however small, or extended JSON as Losant's own client writes it:
//!   `{"$date": text}`, `{"$date": {"$numberLong": text}}`. Without it: the time of receipt.
//! - `{"$undefined": true}` is absence.
//! - The device is the level after `losant`, where the filter does not take it from the topic. Peripherals have a topic
//!   of their own. Whatever is not `…/state` carries no readings.
//!
//! Losant documentation: "MQTT Protocol" and "Device State"; losant-mqtt-js, `lib/device.js` and `lib/ljson.js`.

use super::document::{Flat, Node};
use super::{Context, Point, Report, bad_time, topic};
use crate::quarantine::{Reason, Refusal};
use crate::time::{self, Stamp, Unit, UtcMicros};

pub(super) fn decode(payload: &[u8], context: &Context<'_>) -> Result<Vec<Report>, Refusal> {
    let device = topic::device(context, topic::level_after(context.topic, "losant"));
    if matches!(context.topic.rsplit('/').next(), Some("command" | "hello")) {
        return Ok(vec![Report { device, ..Report::default() }]);
    }
    let points = match &Node::parse(payload, context.limits)? {
        Node::Array(states) => states.iter().map(|state| point(state, context)).collect::<Result<_, _>>()?,
        state => vec![point(state, context)?],
    };
    Ok(vec![Report { device, points, ..Report::default() }])
}

fn point(state: &Node, context: &Context<'_>) -> Result<Point, Refusal> {
    state.expect_object()?;
    let data = match state.get("data") {
        Some(data @ Node::Object(_)) => data,
        other => {
            let found = other.map_or("absent", Node::kind);
            return Err(Refusal::message(Reason::Malformed, format!("data is {found}, an object is wanted")));
        }
    };
    let mut flat = Flat::new(context.limits);
    for (key, node) in data.members() {
        if node.get("$undefined").is_none() {
            flat.add(key, node)?;
        }
    }
    let time = state.get("time").map(instant).transpose()?.flatten();
    Ok(flat.finish()?.at(time))
}

fn instant(node: &Node) -> Result<Option<UtcMicros>, Refusal> {
    let date = node.get("$date").unwrap_or(node);
    let stamp = date.get("$numberLong").unwrap_or(date);
    let read = match stamp.stamp() {
        None if *stamp == Node::Null || stamp.get("$undefined").is_some() => return Ok(None),
        None => return Err(bad_time("time", &format!("is {}, a time is wanted", stamp.kind()))),
        Some(number @ Stamp::Text(_)) => time::count(number, Unit::Millis).or_else(|_| time::read(number, None)),
        Some(number) => time::count(number, Unit::Millis),
    };
    read.map(Some).map_err(|error| bad_time("time", &error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::tests::context;
    use super::*;

    fn reports(payload: &str) -> Result<Vec<Report>, Refusal> {
        decode(payload.as_bytes(), &Context { topic: "losant/575e/state", ..context() })
    }

    fn time(time: &str) -> Result<Option<UtcMicros>, Reason> {
        let reports = reports(&format!(r#"{{"time":{time},"data":{{"a":1}}}}"#));
        reports.map(|reports| reports[0].points[0].time).map_err(|refusal| refusal.reason)
    }

    #[test]
    fn every_spelling_of_a_time_is_read() {
        for spelt in ["10000", "\"10000\"", r#"{"$date":10000}"#, r#"{"$date":{"$numberLong":"10000"}}"#] {
            assert_eq!(time(spelt), Ok(Some(UtcMicros(10_000_000))), "{spelt}");
        }
        assert_eq!(time("\"1970-01-01T00:00:10Z\""), Ok(Some(UtcMicros(10_000_000))));
        assert_eq!(time("null"), Ok(None));
        assert_eq!(time(r#"{"$undefined":true}"#), Ok(None));
        for bad in ["\"soon\"", "true", "[]", r#"{"$date":{}}"#, "1e300"] {
            assert_eq!(time(bad), Err(Reason::BadTime), "{bad}");
        }
    }

    #[test]
    fn states_may_come_in_an_array_and_other_topics_carry_none() {
        let found = reports(r#"[{"time":1,"data":{"a":1}},{"time":2,"data":{"a":{"b":2}}}]"#).unwrap();
        assert_eq!(found[0].device.as_deref(), Some("575e"));
        assert_eq!(found[0].points[1].keys, "a.b");
        let hello = decode(b"{}", &Context { topic: "losant/575e/hello", ..context() }).unwrap();
        assert_eq!(hello[0].points, []);
    }

    #[test]
    fn what_breaks_the_format_is_refused() {
        for (payload, reason) in [
            ("{}", Reason::Malformed),
            (r#"{"data":7}"#, Reason::Malformed),
            ("[1]", Reason::Malformed),
            (r#"{"data":{"a":{"b":1},"a.b":2}}"#, Reason::DuplicateKey),
            ("", Reason::Empty),
        ] {
            assert_eq!(reports(payload).unwrap_err().reason, reason, "{payload}");
        }
    }
}
