//! `tidegate migrate`: the schema, then what the files declare.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{Place, output};
use crate::catalog::Declared;
use crate::store::Store;

#[derive(Args, Debug)]
pub(super) struct MigrateArgs {
    #[arg(long)]
    json: bool,
}

pub(super) fn run(place: &Place, args: &MigrateArgs) -> anyhow::Result<ExitCode> {
    let checked = place.load()?;
    let store = Store::open(&checked.config.database)?;
    migrate(&store, &checked.declared, args.json, &mut std::io::stdout().lock())?;
    Ok(ExitCode::SUCCESS)
}

/// Migrates the database and reconciles the catalog into it; says what it did.
///
/// # Errors
/// The store's, and those of writing.
pub fn migrate(store: &Store, declared: &Declared, as_json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let migrations = store.migrate()?;
    let report = store.reconcile(declared)?;
    if as_json {
        let value = json!({
            "migrations": migrations,
            "templates": {
                "added": report.templates_added, "changed": report.templates_changed,
                "retired": report.templates_retired,
            },
            "devices": {"added": report.devices_added, "changed": report.devices_changed},
            "modules": {"changed": report.modules_changed},
            "unresolved": report.unresolved,
            "catalog_version": report.catalog_version,
        });
        output::json(out, &value)?;
        return Ok(());
    }
    match migrations.as_slice() {
        [] => writeln!(out, "schema: up to date")?,
        some => writeln!(out, "schema: ran {}", some.join(", "))?,
    }
    writeln!(
        out,
        "templates: {} added, {} changed, {} retired",
        report.templates_added.len(),
        report.templates_changed.len(),
        report.templates_retired.len()
    )?;
    writeln!(
        out,
        "devices: {} added, {} changed; modules: {} changed",
        report.devices_added, report.devices_changed, report.modules_changed
    )?;
    for reference in &report.unresolved {
        writeln!(out, "unresolved: {reference}")?;
    }
    Ok(())
}
