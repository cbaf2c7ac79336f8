//! `tidegate alerts maintenance add | list | end`: while somebody works at devices, no alert of theirs begins.

use std::io::Write;
use std::time::Duration;

use anyhow::bail;
use clap::{Args, Subcommand};
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

use super::rules::scope_in_words;
use crate::alert::maintenance::{DeclaredMaintenance, Maintenance};
use crate::alert::maintenance_file;
use crate::alert::times::{Moment, Spell};
use crate::cli::Place;
use crate::cli::output::{self, instant, instant_or_dash, or_dash, printable};
use crate::clock;
use crate::store::alerts::MaintenanceRow;
use crate::time::UtcMicros;

#[derive(Args, Debug)]
pub(super) struct MaintenanceArgs {
    #[command(subcommand)]
    action: MaintenanceAction,
}

#[derive(Debug, Subcommand)]
enum MaintenanceAction {
    /// From now on for a while, between two times, or again and again; a running daemon takes it up within a second
    Add(Box<AddArgs>),
    /// What there is, and was not long ago
    List {
        #[arg(long)]
        json: bool,
    },
    /// End it now, whatever its times say; what holds still fires then
    End {
        name: String,
        /// Who ends it
        #[arg(long, env = "USER", hide_env_values = true, default_value = "somebody")]
        who: String,
    },
}

#[derive(Args, Debug)]
struct AddArgs {
    /// What it is called, once in the installation
    name: String,
    /// Devices by uid; * stands for any characters, ? for one. All that is chosen by must be so; of several values any will do
    #[arg(long)]
    device: Vec<String>,
    /// Devices that have this template
    #[arg(long)]
    template: Vec<String>,
    /// Devices at this site
    #[arg(long)]
    site: Vec<String>,
    /// Devices that have this tag, as name=text
    #[arg(long = "tag", value_name = "NAME=TEXT")]
    tags: Vec<String>,
    /// Every device
    #[arg(long, conflicts_with_all = ["device", "template", "site", "tags"])]
    all: bool,
    /// Only this tenant's devices
    #[arg(long)]
    tenant: Option<String>,
    /// From now on for so long, e.g. 2h
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration, conflicts_with_all = ["from", "to", "days", "cron"])]
    lasts_now: Option<Duration>,
    /// From when on, e.g. 2026-12-01T08:00, or 22:00 each day
    #[arg(long)]
    from: Option<String>,
    /// Until when
    #[arg(long)]
    to: Option<String>,
    /// On which days, e.g. sat-sun
    #[arg(long)]
    days: Vec<String>,
    /// When it begins, as a cron expression, e.g. "0 20 * * MON#1"
    #[arg(long, requires = "lasts")]
    cron: Option<String>,
    /// How long each lasts that --cron begins
    #[arg(long, requires = "cron")]
    lasts: Option<String>,
    /// Whose local times they are; the device's site's, or else UTC, unless told
    #[arg(long)]
    timezone: Option<String>,
    /// What is done
    #[arg(long)]
    note: Option<String>,
    /// Who wants it
    #[arg(long, env = "USER", hide_env_values = true, default_value = "somebody")]
    who: String,
}

/// Adds, lists or ends maintenance in the database.
///
/// # Errors
/// When what is asked makes no sense; the store's, and those of writing.
pub(super) fn run(place: &Place, args: &MaintenanceArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    match &args.action {
        MaintenanceAction::Add(args) => {
            let definition = args.definition(clock::now())?;
            let maintenance = maintenance_file::from_json(&definition, "this maintenance")?;
            let times = times(&maintenance);
            place.store()?.add_maintenance(&DeclaredMaintenance { maintenance, definition }, &args.who)?;
            writeln!(out, "maintenance {} is added: {times}", printable(&args.name))?;
        }
        MaintenanceAction::List { json } => list(&place.reader()?.maintenance()?, *json, out)?,
        MaintenanceAction::End { name, who } => {
            let ended = place.store()?.end_maintenance(name, who)?;
            writeln!(out, "maintenance {} is ended{}", printable(name), if ended { "" } else { " already" })?;
        }
    }
    Ok(())
}

impl AddArgs {
    /// With the keys of a file.
    fn definition(&self, now: UtcMicros) -> anyhow::Result<Value> {
        let mut scope = Map::new();
        for (key, values) in [("device", &self.device), ("template", &self.template), ("site", &self.site)] {
            if !values.is_empty() {
                scope.insert(key.to_owned(), json!(values));
            }
        }
        let mut tags = Map::new();
        for tag in &self.tags {
            let Some((name, text)) = tag.split_once('=') else {
                bail!("--tag {tag}: expected name=text, such as room=cold")
            };
            tags.insert(name.to_owned(), text.into());
        }
        if !tags.is_empty() {
            scope.insert("tags".to_owned(), tags.into());
        }
        if self.all {
            scope.insert("all".to_owned(), true.into());
        }
        if scope.is_empty() {
            bail!("which devices? give --device, --template, --site or --tag, or --all");
        }
        let mut whole = json!({ "name": self.name, "scope": scope });
        if let Some(lasts) = self.lasts_now {
            let until = now.checked_add(lasts).unwrap_or(UtcMicros(i64::MAX));
            whole["from"] = instant(now).into();
            whole["to"] = instant(until).into();
        }
        let texts = [
            ("from", &self.from),
            ("to", &self.to),
            ("cron", &self.cron),
            ("lasts", &self.lasts),
            ("timezone", &self.timezone),
            ("tenant", &self.tenant),
            ("note", &self.note),
        ];
        for (key, text) in texts {
            if let Some(text) = text {
                whole[key] = text.as_str().into();
            }
        }
        if !self.days.is_empty() {
            whole["days"] = json!(self.days);
        }
        if self.lasts_now.is_none()
            && self.from.is_none()
            && self.to.is_none()
            && self.days.is_empty()
            && self.cron.is_none()
        {
            bail!("when? give --for 2h for from now on, --from and --to, --days, or --cron and --lasts");
        }
        Ok(whole)
    }
}

fn list(rows: &[MaintenanceRow], as_json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let now = clock::now();
    if as_json {
        output::json(out, &rows.iter().map(|row| row_json(row, now)).collect())?;
        return Ok(());
    }
    let lines = rows.iter().map(|row| {
        let one = row.maintenance.as_ref();
        vec![
            row.name.clone(),
            standing(row, now).to_owned(),
            one.map_or_else(|_| or_dash(None), times),
            one.map_or_else(|_| or_dash(None), |one| scope_in_words(&one.scope, one.tenant.as_deref())),
            row.added_by.clone().unwrap_or_else(|| if row.declared { "file" } else { "row" }.to_owned()),
            instant_or_dash(row.ended_at),
            one.map_or_else(|why| format!("can't be read: {why}"), |one| or_dash(one.note.as_deref())),
        ]
    });
    output::table(out, &["NAME", "STANDING", "TIMES", "SCOPE", "FROM", "ENDED", "NOTE"], lines)?;
    Ok(())
}

/// As it is at an instant, in UTC where it has no zone of its own.
fn standing(row: &MaintenanceRow, now: UtcMicros) -> &'static str {
    let Ok(one) = &row.maintenance else { return "invalid" };
    if row.ended_at.is_some_and(|ended| ended <= now) {
        return "ended";
    }
    let zone = one.zone.clone().unwrap_or(TimeZone::UTC);
    match one.times.at(&zone, now.0) {
        (true, _) => "under way",
        (false, i64::MAX) => "over",
        (false, _) => "to come",
    }
}

/// Its times in words.
fn times(one: &Maintenance) -> String {
    let zone = one.zone.as_ref().and_then(|zone| zone.iana_name()).map(|name| format!(" ({name})")).unwrap_or_default();
    let moment = |moment: &Moment| match moment {
        Moment::Local(local) => local.to_string(),
        Moment::At(at) => instant(*at),
    };
    let spells = one.times.0.iter().map(|spell| match spell {
        Spell::Once { from, to } => format!("{} to {}", moment(from), moment(to)),
        Spell::Cron { cron, lasts } => format!("{} for {}", cron.as_str(), humantime::format_duration(*lasts)),
        Spell::Weekly { days, from, to, .. } => {
            format!("{} {} to {}", days.in_words(), from.strftime("%H:%M"), to.strftime("%H:%M"))
        }
    });
    spells.collect::<Vec<_>>().join(", ") + &zone
}

fn row_json(row: &MaintenanceRow, now: UtcMicros) -> Value {
    let one = row.maintenance.as_ref().ok();
    json!({
        "name": row.name, "standing": standing(row, now), "declared": row.declared, "times": one.map(times),
        "scope": one.map(|one| scope_in_words(&one.scope, one.tenant.as_deref())), "tenant": one.and_then(|one| one.tenant.clone()),
        "note": one.and_then(|one| one.note.clone()), "added_at": instant(row.added_at), "added_by": row.added_by,
        "ended_at": row.ended_at.map(instant), "ended_by": row.ended_by, "invalid": row.maintenance.as_ref().err(),
    })
}
