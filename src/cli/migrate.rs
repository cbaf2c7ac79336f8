//! `tidegate migrate`: the schema, then what the files declare.

use std::io::Write;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use serde_json::json;

use super::{Place, output};
use crate::catalog::Declared;
use crate::config::DatabaseUrl;
use crate::store::layout::{Layout, LayoutStatus};
use crate::store::{MigrationName, SchemaStatus, Store};

#[derive(Args, Debug)]
pub(super) struct MigrateArgs {
    /// Show the migrations, applied and pending, and how readings are laid out; change nothing
    #[arg(long)]
    status: bool,
    #[arg(long)]
    json: bool,
}

pub(super) fn run(place: &Place, args: &MigrateArgs) -> anyhow::Result<ExitCode> {
    if args.status {
        return show_status(place, args.json);
    }
    let checked = place.load()?;
    let store = Store::open(&checked.config.database)?;
    migrate(&store, &checked.declared, args.json, &mut std::io::stdout().lock())?;
    Ok(ExitCode::SUCCESS)
}

fn show_status(place: &Place, as_json: bool) -> anyhow::Result<ExitCode> {
    let config = place.config()?;
    if let DatabaseUrl::Sqlite(path) = &config.database.url
        && !path.exists()
    {
        // To look would make it.
        bail!("there is no database at {}; start the daemon once, or run `tidegate migrate`", path.display());
    }
    status(&Store::open(&config.database)?.schema_status()?, as_json, &mut std::io::stdout().lock())?;
    Ok(ExitCode::SUCCESS)
}

/// Writes how far the schema has come and how readings are laid out, as lines or as one JSON object.
///
/// # Errors
/// Those of writing.
pub fn status(status: &SchemaStatus, as_json: bool, out: &mut dyn Write) -> std::io::Result<()> {
    if as_json {
        let names = |migrations: &[MigrationName]| json!(migrations.iter().map(|one| &one.name).collect::<Vec<_>>());
        let value = json!({
            "applied": names(&status.applied),
            "pending": names(&status.pending),
            "newer": status.newer,
            "layout": status.layout.as_ref().map(layout_as_json),
        });
        return output::json(out, &value);
    }
    for (word, migrations) in [("applied", &status.applied), ("pending", &status.pending)] {
        for migration in migrations {
            writeln!(out, "{word}  {}", migration.name)?;
        }
    }
    for version in &status.newer {
        writeln!(out, "newer    {version}, unknown to this tidegate")?;
    }
    let Some(layout) = &status.layout else { return writeln!(out, "layout   not chosen yet") };
    let found = &layout.recorded;
    writeln!(out, "layout   {} since {}: {}", found.layout.word(), output::instant(found.since), found.detail)?;
    let word = if found.layout == Layout::Timescale { "chunks" } else { "partitions" };
    for table in &layout.tables {
        let span = table.span.map_or(String::new(), |span| format!(", {span}"));
        let compressed =
            if table.compressed > 0 { format!(", {} compressed", table.compressed) } else { String::new() };
        writeln!(out, "{}: {} {word}{span}{compressed}", table.table.name(), table.parts)?;
    }
    Ok(())
}

fn layout_as_json(layout: &LayoutStatus) -> serde_json::Value {
    let tables = layout.tables.iter().map(|table| {
        json!({
            "table": table.table.name(),
            "parts": table.parts,
            "compressed": table.compressed,
            "from": table.span.map(|span| output::instant(span.from)),
            "to": table.span.map(|span| output::instant(span.to)),
        })
    });
    json!({
        "kind": layout.recorded.layout.word(),
        "since": output::instant(layout.recorded.since),
        "detail": layout.recorded.detail,
        "tables": tables.collect::<Vec<_>>(),
    })
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
            "rules": {
                "added": report.rules_added, "changed": report.rules_changed, "retired": report.rules_retired,
            },
            "sites": {"changed": report.sites_changed},
            "maintenance": {"changed": report.maintenance_changed},
            "warnings": report.warnings,
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
    writeln!(
        out,
        "rules: {} added, {} changed, {} retired",
        report.rules_added.len(),
        report.rules_changed.len(),
        report.rules_retired.len()
    )?;
    if report.sites_changed > 0 || !report.maintenance_changed.is_empty() {
        writeln!(
            out,
            "sites: {} changed; maintenance: {} changed",
            report.sites_changed,
            report.maintenance_changed.len()
        )?;
    }
    for warning in &report.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    for reference in &report.unresolved {
        writeln!(out, "unresolved: {reference}")?;
    }
    Ok(())
}
