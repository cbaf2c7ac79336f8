//! `tidegate alerts on-call`: who is on call, and who is next. By the configuration alone.

use std::io::Write;

use clap::Args;

use crate::cli::Place;
use crate::cli::output::{self, instant, or_dash};
use crate::clock;
use crate::config::{Config, OnCall};
use crate::time::UtcMicros;

#[derive(Args, Debug)]
pub(super) struct OnCallArgs {
    /// Only this rotation
    name: Option<String>,
    /// At another time than now, e.g. 2026-12-24T20:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<UtcMicros>,
    #[arg(long)]
    json: bool,
}

fn time(text: &str) -> Result<UtcMicros, String> {
    let parsed = text.parse::<jiff::Timestamp>();
    parsed
        .map(|at| UtcMicros(at.as_microsecond()))
        .map_err(|error| format!("{error}; expected such as 2026-12-24T20:00:00Z"))
}

pub(super) fn run(place: &Place, args: &OnCallArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    on_call(&place.config()?, args.name.as_deref(), args.at.unwrap_or_else(clock::now), args.json, out)
}

/// Prints who is on call at a time, and who is next.
///
/// # Errors
/// A name that no rotation has; those of writing.
pub fn on_call(
    config: &Config,
    name: Option<&str>,
    at: UtcMicros,
    as_json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let meant = |rotation: &&OnCall| name.is_none_or(|name| rotation.name == name);
    let rotations: Vec<&OnCall> = config.on_call.iter().filter(meant).collect();
    if rotations.is_empty()
        && let Some(name) = name
    {
        let known: Vec<&str> = config.on_call.iter().map(|rotation| rotation.name.as_str()).collect();
        anyhow::bail!("there is no [[on_call]] {name:?}; there are: {}", known.join(", "));
    }
    if as_json {
        output::json(out, &rotations.iter().map(|rotation| json_of(rotation, at)).collect())?;
        return Ok(());
    }
    let headers = ["rotation", "on call", "by", "until", "then", "from"];
    let cells = rotations.iter().map(|rotation| {
        let (duty, next) = (rotation.duty(at), rotation.next(at));
        let channels = duty.map(|duty| duty.person.channels.join(", ")).unwrap_or_default();
        let stands_in = duty.is_some_and(|duty| duty.stands_in);
        let who = duty.map_or("nobody", |duty| duty.person.name.as_str());
        vec![
            rotation.name.clone(),
            if stands_in { format!("{who} (override)") } else { who.to_owned() },
            channels,
            or_dash(duty.map(|duty| local(rotation, duty.until)).as_deref()),
            or_dash(next.map(|(_, next)| next.person.name.as_str())),
            or_dash(next.map(|(from, _)| local(rotation, from)).as_deref()),
        ]
    });
    output::table(out, &headers, cells)?;
    Ok(())
}

/// In the rotation's own time zone.
fn local(rotation: &OnCall, at: UtcMicros) -> String {
    match jiff::Timestamp::from_microsecond(at.0) {
        Ok(timestamp) => timestamp.to_zoned(rotation.zone.clone()).strftime("%Y-%m-%d %H:%M %Z").to_string(),
        Err(_) => instant(at),
    }
}

fn json_of(rotation: &OnCall, at: UtcMicros) -> serde_json::Value {
    let (duty, next) = (rotation.duty(at), rotation.next(at));
    serde_json::json!({
        "rotation": rotation.name,
        "who": duty.map(|duty| &duty.person.name),
        "channels": duty.map(|duty| &duty.person.channels),
        "override": duty.is_some_and(|duty| duty.stands_in),
        "until": duty.map(|duty| instant(duty.until)),
        "next": next.map(|(from, next)| serde_json::json!({ "who": next.person.name, "from": instant(from) })),
    })
}
