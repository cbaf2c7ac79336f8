//! The whole story of an alert.

use std::io::Write;

use serde_json::{Value, json};

use super::{alert_json, amount, snoozed};
use crate::cli::output::{self, instant, instant_or_dash, or_dash};
use crate::clock;
use crate::store::Store;
use crate::store::alerts::{AlertDetail, StepRow};

/// Shows an alert, named by its id or its first digits, and every step that it has taken.
///
/// # Errors
/// When there is none, or more than one; the store's, and those of writing.
pub fn show(store: &Store, id: &str, as_json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let detail = store.alert(id)?;
    if as_json {
        output::json(out, &detail_json(&detail))?;
        return Ok(());
    }
    let AlertDetail { alert, steps, waiting } = &detail;
    let acknowledged = alert
        .acknowledged_at
        .map(|at| format!("{} by {}", instant(at), alert.acknowledged_by.as_deref().unwrap_or("somebody")));
    let facts = [
        ("alert", alert.id.clone()),
        ("rule", alert.rule.clone()),
        ("device", alert.device.clone()),
        ("tenant", alert.tenant.clone()),
        ("metric", or_dash(Some(alert.metric.as_str()).filter(|metric| !metric.is_empty()))),
        ("severity", alert.severity.clone()),
        ("state", alert.state.clone()),
        ("message", alert.message.clone()),
        ("onset", instant(alert.onset)),
        ("since", instant(alert.since)),
        ("acknowledged", or_dash(acknowledged.as_deref())),
        ("resolved", instant_or_dash(alert.resolved_at)),
        ("snoozed until", instant_or_dash(snoozed(alert, clock::now()))),
        ("instance", alert.instance.clone()),
    ];
    output::table(out, &[], facts.map(|(name, value)| vec![name.to_owned(), value]))?;
    writeln!(out)?;
    let lines = steps.iter().map(|step| {
        vec![
            step.step.to_string(),
            instant(step.at),
            step.state.clone(),
            step.severity.clone(),
            amount(step.value, &alert.unit),
            amount(step.threshold, &alert.unit),
            who(step),
            step.why.clone(),
            publication(step).to_owned(),
        ]
    });
    let headers = ["STEP", "AT", "STATE", "SEVERITY", "VALUE", "THRESHOLD", "WHO", "WHY", "PUBLISHED"];
    output::table(out, &headers, lines)?;
    if *waiting > 0 {
        writeln!(out, "\n{waiting} of what was asked is still to be taken by the daemon of {}", alert.instance)?;
    }
    Ok(())
}

fn who(step: &StepRow) -> String {
    step.who.clone().unwrap_or_else(|| "the rule".to_owned())
}

fn publication(step: &StepRow) -> &'static str {
    match (step.published, step.asked) {
        (true, _) => "yes",
        (false, true) => "by the daemon's own step",
        (false, false) => "not yet",
    }
}

fn detail_json(detail: &AlertDetail) -> Value {
    let steps: Vec<Value> = detail
        .steps
        .iter()
        .map(|step| {
            json!({
                "step": step.step, "at": instant(step.at), "recorded_at": instant(step.recorded_at), "state": step.state,
                "severity": step.severity, "value": step.value, "threshold": step.threshold, "who": step.who,
                "why": step.why, "message": step.message, "published": step.published,
            })
        })
        .collect();
    let mut value = alert_json(&detail.alert);
    if let Value::Object(fields) = &mut value {
        fields.insert("steps".into(), json!(steps));
        fields.insert("waiting".into(), json!(detail.waiting));
    }
    value
}
