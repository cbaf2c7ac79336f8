//! The whole story of an alert.

use std::io::Write;

use super::{amount, snoozed};
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
        output::json(out, &detail.json())?;
        return Ok(());
    }
    let AlertDetail { alert, steps, waiting, about } = &detail;
    let labels: Vec<String> = about.labels.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    let acknowledged = alert
        .acknowledged_at
        .map(|at| format!("{} by {}", instant(at), alert.acknowledged_by.as_deref().unwrap_or("somebody")));
    let facts = [
        ("alert", alert.id.clone()),
        ("rule", alert.rule.clone()),
        ("group", or_dash(alert.group.as_deref())),
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
        ("labels", or_dash(Some(labels.join(", ").as_str()).filter(|labels| !labels.is_empty()))),
        ("runbook", or_dash(about.runbook.as_deref())),
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
