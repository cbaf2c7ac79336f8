//! The table of alerts.

use std::io::Write;

use super::{amount, short, snoozed};
use crate::cli::output::{self, instant};
use crate::clock;
use crate::store::Store;
use crate::store::alerts::{AlertFilter, AlertRow};
use crate::time::UtcMicros;

/// Lists alerts, the newest first.
///
/// # Errors
/// The store's, and those of writing.
pub fn list(store: &Store, filter: &AlertFilter, limit: i64, as_json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let rows = store.alerts(filter, limit)?;
    if as_json {
        output::json(out, &rows.iter().map(AlertRow::json).collect())?;
        return Ok(());
    }
    let now = clock::now();
    let lines = rows.iter().map(|row| {
        vec![
            short(&row.id).to_owned(),
            instant(row.since),
            row.severity.clone(),
            state(row, now),
            row.about().clone(),
            row.rule.clone(),
            amount(row.value, &row.unit),
            row.message.clone(),
        ]
    });
    output::table(out, &["ALERT", "SINCE", "SEVERITY", "STATE", "DEVICE", "RULE", "VALUE", "MESSAGE"], lines)?;
    Ok(())
}

fn state(row: &AlertRow, now: UtcMicros) -> String {
    match snoozed(row, now) {
        Some(_) => format!("{}, snoozed", row.state),
        None => row.state.clone(),
    }
}
