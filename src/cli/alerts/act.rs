//! What people do with an alert.

use std::io::Write;

use super::{ActArgs, short};
use crate::alert::Action;
use crate::alert::transition::Deed;
use crate::cli::Place;
use crate::cli::output::{self, instant, printable};
use crate::store::Store;
use crate::time::UtcMicros;

impl ActArgs {
    pub(super) fn run(&self, place: &Place, deed: Deed, out: &mut dyn Write) -> anyhow::Result<()> {
        let (id, who, note) = (self.id.clone(), self.who.clone(), self.note.clone());
        let action = Action { id, action: deed, who, note, ask: None };
        act(&place.store()?, &action, self.json, out)
    }
}

/// Does it in the database, from where a running daemon takes it within a second, and says how the alert stands.
///
/// # Errors
/// When there is no such alert, or it is past what is wanted; the store's, and those of writing.
pub fn act(store: &Store, action: &Action, as_json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let alert = store.ask_of_alert(action)?;
    if as_json {
        output::json(out, &alert.json())?;
        return Ok(());
    }
    let done = match action.action {
        Deed::Acknowledge => "is acknowledged".to_owned(),
        Deed::Resolve => "is resolved".to_owned(),
        Deed::Snooze { until } => format!("is snoozed until {}", instant(UtcMicros(until))),
        Deed::Note => "has the note".to_owned(),
    };
    writeln!(out, "alert {} ({} on {}) {done}", short(&alert.id), printable(&alert.rule), printable(alert.about()))?;
    Ok(())
}
