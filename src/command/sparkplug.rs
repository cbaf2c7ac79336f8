//! Commands to Sparkplug's edge nodes and devices, and what confirms them. Pure.
//!
//! A command is a document of metrics by name: its `payload`, or its parameters. The birth says where it goes and how
//! ([`crate::decode::sparkplug::command`]). There is no answer in the protocol: what the node reports from then on has to show it.

use serde_json::{Map, Value};

use super::dialect::{Encoding, Manner, Verdict};
use super::path::same;
use super::state::Outcome;
use super::text::Facts;
use crate::decode::{self, Presence, Report};

/// Why a command waits, or would if somebody tried to send it.
pub const UNBORN: &str =
    "no birth of the device is known, so nobody knows where its metrics are: it waits for the next one";

/// Switches that do something and stay false (Sparkplug 3.0.0, 5.10, 6.4.18): what they do is to be born.
const BIRTH: [&str; 4] =
    ["Node Control/Rebirth", "Node Control/Reboot", "Device Control/Rebirth", "Device Control/Reboot"];

/// What a node's message said of the device.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// By name.
    metrics: Vec<(String, Value)>,
    presence: Option<Presence>,
}

impl Told {
    /// None: it tells nothing that could confirm a command.
    pub fn of(report: &Report) -> Option<Told> {
        let samples = report.points.iter().flat_map(decode::Point::iter);
        let controls = report.controls.iter().map(|(name, value)| (name.as_str(), value));
        let metrics: Vec<_> = samples.chain(controls).map(|(name, value)| (name.to_owned(), json(value))).collect();
        let presence = report.presence.clone();
        (presence.is_some() || !metrics.is_empty()).then_some(Told { metrics, presence })
    }
}

/// The metrics that a command sets.
///
/// # Errors
/// A placeholder for which there is nothing, a payload that is no table.
pub fn metrics(manner: &Manner, facts: &Facts<'_>) -> Result<Map<String, Value>, String> {
    let filled = match &manner.payload {
        Some(Encoding::Json(document)) => document.fill(facts)?,
        Some(Encoding::Text(text)) => return Err(format!("its payload {text:?} is no table of metrics by name")),
        None => facts.params.clone(),
    };
    match filled {
        Value::Object(metrics) => Ok(metrics),
        other => Err(format!("its payload {other} is no table of metrics by name")),
    }
}

/// What a message says of a command that is under way; none: nothing.
pub fn settle(manner: &Manner, facts: &Facts<'_>, told: &Told) -> Option<Verdict> {
    let wanted = metrics(manner, facts).ok().filter(|wanted| !wanted.is_empty())?;
    let verdict = |outcome, result| Some(Verdict { outcome, result, error: None });
    if wanted.keys().all(|name| BIRTH.contains(&name.as_str())) {
        return match &told.presence {
            Some(Presence::There(_)) => verdict(Outcome::Succeeded, None),
            // It has gone down to come up again.
            Some(Presence::Gone(_)) => verdict(Outcome::InProgress, None),
            Some(Presence::Hearsay) | None => None,
        };
    }
    let mut shown = Map::new();
    for (name, wanted) in wanted {
        // The last of several values of one metric is the newest.
        let (_, found) = told.metrics.iter().rev().find(|(told, _)| *told == name)?;
        if !(same(found, &wanted) || is_its_float(found, &wanted)) {
            return None;
        }
        shown.insert(name, found.clone());
    }
    verdict(Outcome::Succeeded, Some(Value::Object(shown)))
}

/// Whether a number is what a 32-bit float makes of another.
#[expect(clippy::cast_possible_truncation, reason = "that is what the node did")]
fn is_its_float(found: &Value, wanted: &Value) -> bool {
    match (found.as_f64(), wanted.as_f64()) {
        (Some(found), Some(wanted)) => found == f64::from(wanted as f32),
        _ => false,
    }
}

fn json(value: &decode::Value) -> Value {
    match value {
        decode::Value::Number(number) if number.fract() == 0.0 && number.abs() < 9e15 => Value::from(*number as i64),
        decode::Value::Number(number) => Value::from(*number),
        decode::Value::Literal { text, number } => text.parse().unwrap_or(Value::from(*number)),
        decode::Value::Bool(flag) => Value::from(*flag),
        decode::Value::Text(text) => Value::from(text.clone()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::command::text::Document;
    use crate::time::UtcMicros;

    fn settled(manner: &Manner, params: &Value, told: &Told) -> Option<(Outcome, Option<Value>)> {
        let facts = Facts {
            id: "c1",
            name: "set",
            tenant: "default",
            device: "Motor",
            gateway: Some("Edge"),
            tags: &BTreeMap::new(),
            params,
            expires_at: UtcMicros(0),
            at: UtcMicros(0),
        };
        settle(manner, &facts, told).map(|verdict| (verdict.outcome, verdict.result))
    }

    fn told(metrics: &[(&str, Value)], presence: Option<Presence>) -> Told {
        let metrics = metrics.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        Told { metrics, presence }
    }

    #[test]
    fn what_is_reported_confirms_what_was_set() {
        let manner = Manner::default();
        let wanted = json!({ "Motor/Speed": 1450, "Ramp": 0.1 });
        let shows = |metrics: &[(&str, Value)]| settled(&manner, &wanted, &told(metrics, None));
        let ramp = json!(f64::from(0.1_f32));
        let shown = json!({ "Motor/Speed": 1450, "Ramp": ramp });
        let all = [("Other", json!(1)), ("Motor/Speed", json!(1450)), ("Ramp", ramp.clone())];
        assert_eq!(shows(&all), Some((Outcome::Succeeded, Some(shown))));
        assert_eq!(shows(&[("Motor/Speed", json!(1450))]), None, "not all of it");
        assert_eq!(shows(&[("Motor/Speed", json!(1449)), ("Ramp", json!(0.1))]), None);
        let twice = [("Motor/Speed", json!(1450)), ("Ramp", json!(0.1)), ("Motor/Speed", json!(0))];
        assert_eq!(shows(&twice), None, "it is not so any more");
        assert_eq!(settled(&manner, &json!({}), &told(&all, None)), None);
    }

    #[test]
    fn a_birth_confirms_a_rebirth_and_a_reboot() {
        let document = Document::parse(&json!({ "Node Control/Reboot": true })).unwrap();
        let manner = Manner { payload: Some(Encoding::Json(document)), ..Manner::default() };
        let said = |presence| settled(&manner, &json!({}), &told(&[("Node Control/Reboot", json!(false))], presence));
        assert_eq!(said(Some(Presence::Gone("NDEATH".into()))), Some((Outcome::InProgress, None)));
        assert_eq!(said(Some(Presence::There("NBIRTH".into()))), Some((Outcome::Succeeded, None)));
        assert_eq!((said(None), said(Some(Presence::Hearsay))), (None, None));
    }

    #[test]
    fn numbers_keep_every_digit() {
        let text = "18446744073709551615".to_owned();
        assert_eq!(json(&decode::Value::Literal { number: 1.8e19, text }), json!(u64::MAX));
        assert_eq!((json(&decode::Value::Number(-3.0)), json(&decode::Value::Number(0.5))), (json!(-3), json!(0.5)));
    }
}
