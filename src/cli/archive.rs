//! `tidegate archive list | verify | restore`: readings that retention has written to files.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use bytesize::ByteSize;
use clap::{Args, Subcommand};
use serde_json::json;

use super::{Place, output};
use crate::archive::{Archive, ArchiveError, Entry, Row};
use crate::catalog::Kind;
use crate::clock;
use crate::store::Restorer;
use crate::store::Store;
use crate::store::batch::{Batch, DeviceIntro, Reading, SensorIntro, SensorOrigin, TextReading};
use crate::store::layout::ReadingTable;
use crate::time::{self, Stamp, UtcMicros};

/// Readings brought back in one transaction.
const BATCH: usize = 10_000;

#[derive(Args, Debug)]
pub(super) struct ArchiveArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// What the archive holds
    List {
        #[arg(long)]
        json: bool,
    },
    /// Hold every file against the manifest; exit code 1 if one is missing or damaged
    Verify {
        #[arg(long)]
        json: bool,
    },
    /// Bring readings back into the database
    Restore(RestoreArgs),
}

#[derive(Args, Debug)]
struct RestoreArgs {
    /// Files, by their names in the list
    files: Vec<String>,
    /// Files with readings from this time on (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = instant)]
    from: Option<UtcMicros>,
    /// Files with readings before this time (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = instant)]
    to: Option<UtcMicros>,
    /// How long retention leaves them alone, though they are old
    #[arg(long, value_name = "DURATION", default_value = "30d", value_parser = humantime::parse_duration)]
    keep: Duration,
    #[arg(long)]
    json: bool,
}

fn instant(text: &str) -> Result<UtcMicros, String> {
    time::read(Stamp::Text(text), None).map_err(|error| error.to_string())
}

pub(super) fn run(place: &Place, args: &ArchiveArgs) -> anyhow::Result<ExitCode> {
    let config = place.config()?;
    let Some(dir) = config.archive.dir else { bail!("there is no archive; set [archive] dir") };
    let archive = Archive::new(dir);
    let mut out = std::io::stdout().lock();
    match &args.action {
        Action::List { json } => list(&archive, *json, &mut out)?,
        Action::Verify { json } => {
            if !verify(&archive, *json, &mut out)? {
                return Ok(ExitCode::FAILURE);
            }
        }
        Action::Restore(args) => {
            let chosen = choose(&archive, args)?;
            restore(&archive, &place.store()?, &chosen, args.keep, args.json, &mut out)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes what the archive holds, as a table or as JSON.
///
/// # Errors
/// The archive's, and those of writing.
pub fn list(archive: &Archive, as_json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let entries = archive.entries()?;
    if as_json {
        output::json(out, &serde_json::to_value(&entries)?)?;
        return Ok(());
    }
    let rows = entries.iter().map(|entry| {
        let size = ByteSize(entry.bytes).to_string();
        vec![entry.file.clone(), entry.from.to_string(), entry.to.to_string(), entry.rows.to_string(), size]
    });
    output::table(out, &["file", "from", "to", "readings", "size"], rows)?;
    Ok(())
}

/// Checks every file; false when one is missing or damaged.
///
/// # Errors
/// Those of reading the manifest and of writing.
pub fn verify(archive: &Archive, as_json: bool, out: &mut dyn Write) -> anyhow::Result<bool> {
    let mut all_well = true;
    for entry in archive.entries()? {
        let fault = archive.check(&entry).err();
        all_well &= fault.is_none();
        if as_json {
            let value = json!({"file": entry.file, "rows": entry.rows, "fault": fault.map(|fault| fault.to_string())});
            output::json_line(out, &value)?;
        } else {
            match fault {
                None => writeln!(out, "ok       {}, {} readings", entry.file, entry.rows)?,
                Some(fault) => writeln!(out, "damaged  {}: {fault}", entry.file)?,
            }
        }
    }
    for stray in archive.strays()? {
        if as_json {
            output::json_line(out, &json!({"file": stray, "fault": null, "stray": true}))?;
        } else {
            writeln!(
                out,
                "stray    {}: not in the manifest, and what it holds was not dropped",
                output::printable(&stray)
            )?;
        }
    }
    Ok(all_well)
}

fn choose(archive: &Archive, args: &RestoreArgs) -> anyhow::Result<Vec<Entry>> {
    if args.files.is_empty() && args.from.is_none() && args.to.is_none() {
        bail!("name files, or a time with --from and --to; `tidegate archive list` shows what there is");
    }
    let entries = archive.entries()?;
    if let Some(unknown) = args.files.iter().find(|name| entries.iter().all(|entry| entry.file != **name)) {
        return Err(ArchiveError::Unknown { name: unknown.clone() }.into());
    }
    let named = |entry: &Entry| args.files.is_empty() || args.files.contains(&entry.file);
    let within =
        |entry: &Entry| args.from.is_none_or(|from| entry.to > from) && args.to.is_none_or(|to| entry.from < to);
    Ok(entries.into_iter().filter(|entry| named(entry) && within(entry)).collect())
}

/// What came of one file.
#[derive(Default)]
struct Outcome {
    stored: u64,
    duplicates: u64,
    rejected: u64,
    devices: u64,
    /// Of sensors that had been deleted when they were archived.
    nameless: u64,
}

/// Brings the readings of these files back; each file is checked before anything of it is stored. Safe to repeat.
///
/// # Errors
/// The archive's and the store's. Files before the one that fails stay restored.
pub fn restore(
    archive: &Archive,
    store: &Store,
    entries: &[Entry],
    keep: Duration,
    as_json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let until = clock::now().checked_add(keep).context("--keep is longer than time lasts")?;
    let mut restorer = Restorer::new(store.clone());
    for entry in entries {
        let Some(table) = entry.reading_table() else {
            bail!("{} holds {}, a table that this version does not know", entry.file, entry.table);
        };
        archive.check(entry)?;
        // First, so that retention does not take away again what comes.
        store.keep_restored(table, entry.span(), until)?;
        let outcome = bring_back(archive, &mut restorer, entry, table)?;
        let Outcome { stored, duplicates, rejected, devices, nameless } = outcome;
        if as_json {
            let value = json!({
                "file": entry.file, "stored": stored, "duplicates": duplicates, "rejected": rejected,
                "devices_made": devices, "of_deleted_sensors": nameless, "kept_until": until.to_string(),
            });
            output::json_line(out, &value)?;
            continue;
        }
        writeln!(out, "{}: {stored} readings restored, {duplicates} were there", entry.file)?;
        if devices > 0 {
            writeln!(out, "  {devices} devices were gone and are made anew, without a template")?;
        }
        if rejected > 0 {
            writeln!(out, "  {rejected} were refused by the database; see `tidegate quarantine`")?;
        }
        if nameless > 0 {
            writeln!(out, "  {nameless} are of sensors that had been deleted before, and stay in the file")?;
        }
    }
    restorer.finish()?;
    if !as_json {
        writeln!(out, "retention leaves them alone until {until}")?;
    }
    Ok(())
}

fn bring_back(
    archive: &Archive,
    restorer: &mut Restorer,
    entry: &Entry,
    table: ReadingTable,
) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut batch = Batch::default();
    let mut last: Option<Row> = None;
    let mut flush = |batch: &mut Batch, outcome: &mut Outcome| -> anyhow::Result<()> {
        let done = restorer.commit(&std::mem::take(batch))?;
        outcome.stored += done.stored;
        outcome.duplicates += done.duplicates;
        outcome.rejected += done.rejected;
        outcome.devices += done.devices_provisioned;
        Ok(())
    };
    for row in archive.read(entry)? {
        let row = row?;
        if row.device.is_empty() {
            outcome.nameless += 1;
            continue;
        }
        if batch.rows() >= BATCH {
            flush(&mut batch, &mut outcome)?;
        }
        let same = last.as_ref().is_some_and(|last| {
            !batch.sensors.is_empty()
                && (&last.tenant, &last.device, &last.metric) == (&row.tenant, &row.device, &row.metric)
        });
        if !same {
            introduce(&mut batch, &row);
        }
        // The one introduced last.
        let sensor = u32::try_from(batch.sensors.len().saturating_sub(1)).unwrap_or(u32::MAX);
        match table {
            ReadingTable::Numbers => {
                let value: f64 =
                    row.value.parse().with_context(|| format!("{}: {} is no number", entry.file, row.value))?;
                batch.readings.push(Reading { sensor, time: row.time, value, seq: 0 });
            }
            ReadingTable::Texts => {
                batch.texts.push(TextReading { sensor, time: row.time, value: row.value.clone(), seq: 0 });
            }
        }
        last = Some(row);
    }
    flush(&mut batch, &mut outcome)?;
    Ok(outcome)
}

/// A series of the file: numbers count within the batch.
fn introduce(batch: &mut Batch, row: &Row) {
    let index = u32::try_from(batch.sensors.len()).unwrap_or(u32::MAX);
    batch.devices.push(DeviceIntro {
        index,
        id: None,
        tenant: row.tenant.as_str().into(),
        uid: row.device.as_str().into(),
        template: None,
        template_by: None,
        told: Vec::new(),
        protocol: None,
        protocol_why: None,
        source: "archive".to_owned(),
        first_seen: row.time,
    });
    batch.sensors.push(SensorIntro {
        index,
        id: None,
        device: index,
        module: None,
        metric: row.metric.as_str().into(),
        unit: row.unit.clone(),
        kind: match row.kind.as_str() {
            "bool" => Kind::Bool,
            "text" => Kind::Text,
            _ => Kind::Number,
        },
        plain: true,
        origin: SensorOrigin::Unmodeled,
        raw_key: None,
    });
}
