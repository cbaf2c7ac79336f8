//! `tidegate devices twin show | set | patch`.

use std::io::{Read, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::Value;

use super::Place;
use super::output::{self, instant_or_dash, or_dash, printable};
use crate::store::twins::TwinDetail;
use crate::twin::native;
use crate::twin::state::{Change, Expected, Update};

#[derive(Args, Debug)]
pub(super) struct TwinArgs {
    #[command(subcommand)]
    action: TwinAction,
}

#[derive(Debug, Subcommand)]
enum TwinAction {
    /// Show what a device is to be, what it says it is, and what differs
    Show {
        #[command(flatten)]
        whose: Whose,
        #[arg(long)]
        json: bool,
    },
    /// Say all that a device is to be: what was desired before and is not in this is desired no more
    Set(ChangeArgs),
    /// Change some of what a device is to be: objects merge, null takes away, everything else replaces
    Patch(ChangeArgs),
}

#[derive(Args, Debug)]
struct Whose {
    device: String,
    #[arg(long)]
    tenant: Option<String>,
    /// A twin beside the device's own, by its name
    #[arg(long, default_value = "", hide_default_value = true)]
    name: String,
}

#[derive(Args, Debug)]
struct ChangeArgs {
    #[command(flatten)]
    whose: Whose,
    /// A JSON object; - reads it from standard input
    #[arg(value_name = "JSON")]
    document: String,
    /// The version that you have seen: where what is desired has changed since, nothing is done
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    version: Option<i64>,
    #[arg(long)]
    json: bool,
}

pub(super) fn run(place: &Place, args: &TwinArgs) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match &args.action {
        TwinAction::Show { whose, json } => {
            let detail = place.reader()?.twin(whose.tenant.as_deref(), &whose.device, &whose.name)?;
            tell(&detail, *json, &mut out)?;
        }
        TwinAction::Set(args) => change(place, args, Change::Replace, &mut out)?,
        TwinAction::Patch(args) => change(place, args, Change::Merge, &mut out)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn change(
    place: &Place,
    args: &ChangeArgs,
    how: fn(crate::twin::document::Document) -> Change,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let limits = place.config()?.twins.limits();
    let text = match args.document.as_str() {
        "-" => {
            let mut text = String::new();
            // One byte more than may be tells that it is too much.
            let most = u64::try_from(limits.max_size).unwrap_or(u64::MAX).saturating_add(1);
            std::io::stdin().lock().take(most).read_to_string(&mut text).context("reading the document")?;
            text
        }
        given => given.to_owned(),
    };
    let document = native::object(text.as_bytes(), limits.max_size)?;
    let expected = args.version.map(Expected::UnchangedSince);
    let update = Update { desired: how(document), expected, ..Update::default() };
    let whose = &args.whose;
    crate::twin::shadow::check_name(&whose.name)?;
    let whose = (whose.tenant.as_deref(), whose.device.as_str(), whose.name.as_str());
    let detail = place.store()?.change_twin(whose, &update, limits)?;
    tell(&detail, args.json, out)
}

fn tell(detail: &TwinDetail, as_json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    if as_json {
        output::json(out, &detail.json())?;
        return Ok(());
    }
    let twin = &detail.twin;
    let shown = |document: &crate::twin::document::Document| printable(&Value::Object(document.clone()).to_string());
    let converged = twin.convergence.map(|took| {
        let took = std::time::Duration::from_millis(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        format!("{}, after {}", instant_or_dash(twin.converged_at), humantime::format_duration(took))
    });
    let part = |part: &crate::twin::state::Part| format!("{} (version {})", shown(&part.state), part.version);
    let facts = [
        ("device", detail.device.clone()),
        ("tenant", detail.tenant.clone()),
        ("version", twin.version.to_string()),
        ("desired", part(&twin.desired)),
        ("since", instant_or_dash(twin.desired.at)),
        ("reported", part(&twin.reported)),
        ("at", instant_or_dash(twin.reported.at)),
        ("delta", shown(&twin.delta())),
        ("converged", or_dash(converged.as_deref())),
        ("published", if detail.told { "yes" } else { "not yet" }.to_owned()),
        ("other twins", or_dash((!detail.others.is_empty()).then(|| detail.others.join(", ")).as_deref())),
    ];
    output::table(out, &[], facts.map(|(name, value)| vec![name.to_owned(), value]))?;
    Ok(())
}
