//! AWS IoT device shadows: `$aws/things/<thing>/shadow[/name/<shadow>]/<action>` and its answers.
//!
//! - Samples are the keys of `state.reported`, or of `current.state.reported` in `…/update/documents`. Wishes (`desired`,
//!   `…/delta`), what was before (`previous`), and rejections are no readings.
//! - A key has the time that `metadata` gives for it: a document repeats what was reported long ago. Where there is no
//!   metadata, the time is `timestamp`, which only answers have. Both are seconds, however small.
//! - The thing is the device, where the filter does not take it from the topic. `{module}` may take the shadow's name.
//! - A filter that begins with a wildcard does not match these topics: they begin with `$`.
//!
//! AWS IoT Core developer guide: "Device Shadow service documents", "Device Shadow MQTT topics".

use std::collections::BTreeMap;

use super::document::{Flat, Node};
use super::{Context, Point, Presence, Report, bad_time, topic};
use crate::quarantine::{Reason, Refusal};
use crate::time::{self, Unit, UtcMicros};

pub(super) fn decode(payload: &[u8], context: &Context<'_>) -> Result<Vec<Report>, Refusal> {
    let device = topic::device(context, topic::level_after(context.topic, "things"));
    // Wishes and answers come from others.
    let nothing = || vec![Report { device: device.clone(), presence: Some(Presence::Hearsay), ..Report::default() }];
    let action = context.topic.rsplit('/').next().unwrap_or_default();
    if matches!(action, "get" | "delete") && payload.trim_ascii().is_empty() {
        return Ok(vec![Report { device, ..Report::default() }]);
    }
    let document = Node::parse(payload, context.limits)?;
    document.expect_object()?;
    if matches!(action, "delta" | "rejected") {
        return Ok(nothing());
    }
    let shadow = document.get("current").unwrap_or(&document);
    let Some(reported) = shadow.at(&["state", "reported"]).filter(|reported| **reported != Node::Null) else {
        return Ok(nothing());
    };
    if !matches!(reported, Node::Object(_)) {
        let detail = format!("state.reported is {}, an object is wanted", reported.kind());
        return Err(Refusal::message(Reason::Malformed, detail));
    }
    let mut flat = Flat::new(context.limits);
    flat.add("", reported)?;
    let at = document.get("timestamp").map(seconds).transpose()?.flatten();
    let mut times = Vec::new();
    gather_times(reported, shadow.at(&["metadata", "reported"]), at, &mut times)?;
    let mut points: BTreeMap<Option<UtcMicros>, Point> = BTreeMap::new();
    let all = flat.finish()?;
    for (sample, time) in all.samples.into_iter().zip(times) {
        points.entry(time).or_default().push(sample.key(&all.keys), sample.value);
    }
    let points = points.into_iter().map(|(time, point)| point.at(time)).collect();
    Ok(vec![Report { device, points, ..Report::default() }])
}

/// The time of every value in `node`, in the order in which they flatten; `at` where the metadata tells none.
fn gather_times(
    node: &Node,
    metadata: Option<&Node>,
    at: Option<UtcMicros>,
    times: &mut Vec<Option<UtcMicros>>,
) -> Result<(), Refusal> {
    match node {
        Node::Null => {}
        Node::Object(members) => {
            for (key, node) in members {
                gather_times(node, metadata.and_then(|metadata| metadata.get(key)), at, times)?;
            }
        }
        Node::Array(elements) => {
            for (index, node) in elements.iter().enumerate() {
                let metadata = metadata.and_then(|metadata| metadata.elements().get(index));
                gather_times(node, metadata, at, times)?;
            }
        }
        _ => {
            let own = metadata.and_then(|metadata| metadata.get("timestamp")).map(seconds).transpose()?.flatten();
            times.push(own.or(at));
        }
    }
    Ok(())
}

fn seconds(node: &Node) -> Result<Option<UtcMicros>, Refusal> {
    match (node, node.stamp()) {
        (Node::Null, _) => Ok(None),
        (Node::Integer(_) | Node::Float(_), Some(stamp)) => {
            time::count(stamp, Unit::Seconds).map(Some).map_err(|error| bad_time("timestamp", &error.to_string()))
        }
        (other, _) => Err(bad_time("timestamp", &format!("is {}, seconds are wanted", other.kind()))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::context;
    use super::*;

    fn reports(action: &str, payload: &str) -> Result<Vec<Report>, Refusal> {
        let topic = format!("$aws/things/lamp/shadow/{action}");
        decode(payload.as_bytes(), &Context { topic: &topic, ..context() })
    }

    #[test]
    fn each_key_has_the_time_of_its_metadata() {
        let payload = r#"{"state":{"reported":{"a":1,"n":null,"b":[2,{"c":3}],"d":4}},"timestamp":30,
            "metadata":{"reported":{"a":{"timestamp":10},"b":[{"timestamp":20},{"c":{"timestamp":10}}]}}}"#;
        let report = reports("get/accepted", payload).unwrap().remove(0);
        assert_eq!(report.device.as_deref(), Some("lamp"));
        let keys = |point: &Point| point.iter().map(|(key, _)| key).collect::<Vec<_>>().join(" ");
        let points: Vec<_> = report.points.iter().map(|point| (point.time.unwrap().0, keys(point))).collect();
        let expected = [(10_000_000, "a b[1].c"), (20_000_000, "b[0]"), (30_000_000, "d")];
        assert_eq!(points, expected.map(|(time, keys)| (time, keys.to_owned())));
    }

    #[test]
    fn wishes_and_requests_are_no_readings() {
        for (action, payload) in [
            ("get", ""),
            ("delete", " "),
            ("update/delta", r#"{"state":{"reported":{"a":1}}}"#),
            ("update/rejected", r#"{"code":400}"#),
            ("update", r#"{"state":{"desired":{"a":1},"reported":null}}"#),
            ("update", r#"{"state":null}"#),
        ] {
            assert_eq!(reports(action, payload).unwrap()[0].points, [], "{action}");
        }
    }

    #[test]
    fn what_breaks_the_format_is_refused() {
        for (payload, reason) in [
            ("", Reason::Empty),
            ("[]", Reason::Malformed),
            (r#"{"state":{"reported":[1]}}"#, Reason::Malformed),
            (r#"{"state":{"reported":{"a":1}},"timestamp":"1591142747"}"#, Reason::BadTime),
            (r#"{"state":{"reported":{"a":1}},"timestamp":1e300}"#, Reason::BadTime),
            (r#"{"state":{"reported":{"a":{"b":1},"a.b":2}}}"#, Reason::DuplicateKey),
        ] {
            assert_eq!(reports("update", payload).unwrap_err().reason, reason, "{payload}");
        }
    }
}
