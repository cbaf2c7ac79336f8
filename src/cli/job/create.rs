//! `tidegate job create | firmware`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Map, Value, json};

use super::super::Place;
use super::super::output;
use super::progress::await_end;
use crate::catalog::DEFAULT_TENANT;
use crate::clock;
use crate::command::new_id;
use crate::job::{ABORT_AFTER, Ask, FIRMWARE_TIMEOUT, Firmware, Percent, Rate, Selector, Share, firmware};
use crate::store::jobs::Created;

#[derive(Args, Debug)]
pub(super) struct CreateArgs {
    /// The job's own name, which no other of the tenant has
    name: String,
    /// One of the commands of the devices' templates
    #[arg(long)]
    command: String,
    /// A JSON object; - reads it from standard input
    #[arg(long, value_name = "JSON", default_value = "{}", hide_default_value = true)]
    params: String,
    #[command(flatten)]
    rollout: RolloutArgs,
}

#[derive(Args, Debug)]
pub(super) struct FirmwareArgs {
    /// The job's own name, which no other of the tenant has
    name: String,
    /// The version, as devices report it once they have it
    #[arg(long)]
    version: String,
    /// Where devices fetch it: http or https
    #[arg(long)]
    url: String,
    /// Bytes
    #[arg(long, allow_negative_numbers = true)]
    size: i64,
    /// As sha256sum prints it
    #[arg(long)]
    sha256: String,
    /// The metric that tells a device's version, unless its template's command says
    #[arg(long)]
    metric: Option<String>,
    /// The command that installs it
    #[arg(long, default_value = firmware::COMMAND)]
    command: String,
    /// Parameters besides version, url, size and sha256: a JSON object; - reads it from standard input
    #[arg(long, value_name = "JSON", default_value = "{}", hide_default_value = true)]
    params: String,
    #[command(flatten)]
    rollout: RolloutArgs,
}

/// Which devices, and how fast.
#[derive(Args, Debug)]
struct RolloutArgs {
    /// Devices with this template; any of several
    #[arg(long, value_name = "SLUG")]
    template: Vec<String>,
    /// Devices at this site; any of several
    #[arg(long)]
    site: Vec<String>,
    /// Devices with this tag; all of several
    #[arg(long, value_name = "NAME=VALUE", value_parser = tag)]
    tag: Vec<(String, String)>,
    /// This device; any of several
    #[arg(long, value_name = "UID")]
    device: Vec<String>,
    /// The devices in this file, one uid a line; - reads standard input
    #[arg(long, value_name = "FILE")]
    devices_from: Option<PathBuf>,
    #[arg(long, default_value = DEFAULT_TENANT)]
    tenant: String,
    /// Commands a minute, such as 100/m; else as fast as may be
    #[arg(long)]
    rate: Option<Rate>,
    /// So many devices first, such as 5% or 20; the others once these have ended and few enough have failed
    #[arg(long)]
    canary: Option<Share>,
    /// Begin nothing more once such a share of what has ended has failed; 20% unless told where there are canaries
    #[arg(long, value_name = "PERCENT")]
    abort: Option<Percent>,
    /// So many must have ended before failures count
    #[arg(long, value_name = "EXECUTIONS", default_value_t = ABORT_AFTER, value_parser = clap::value_parser!(u32).range(1..))]
    abort_after: u32,
    /// How long an execution may be in progress, e.g. 10m; else as long as its command, and 1h for firmware
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// Begin nothing after this time, and send nothing, e.g. 2d
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    expires: Option<Duration>,
    /// The commands': the higher goes first, -1000 to 1000
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    priority: i32,
    /// The instance whose broker the devices are at; the first that looks unless told
    #[arg(long)]
    instance: Option<String>,
    /// Wait until it has ended, and fail unless every execution has succeeded; at most this long, if told
    #[arg(long, value_name = "DURATION", num_args = 0..=1, value_parser = humantime::parse_duration)]
    wait: Option<Option<Duration>>,
    /// Who wants it
    #[arg(long, env = "USER", hide_env_values = true, default_value = "somebody")]
    who: String,
    #[arg(long)]
    json: bool,
}

fn tag(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

pub(super) fn create(place: &Place, args: &CreateArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let params = Value::Object(params(&args.params)?);
    ask(place, (&args.name, &args.command), &params, None, &args.rollout, out)
}

pub(super) fn firmware(place: &Place, args: &FirmwareArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let firmware = Firmware::new(&args.version, &args.url, args.size, &args.sha256, args.metric.as_deref());
    let firmware = firmware.map_err(anyhow::Error::msg)?;
    let params = firmware.params(params(&args.params)?).map_err(anyhow::Error::msg)?;
    ask(place, (&args.name, &args.command), &params, Some(firmware), &args.rollout, out)
}

fn params(given: &str) -> anyhow::Result<Map<String, Value>> {
    let text = match given {
        "-" => {
            let mut text = String::new();
            std::io::stdin().lock().read_to_string(&mut text).context("reading the parameters")?;
            text
        }
        given => given.to_owned(),
    };
    match serde_json::from_str(&text) {
        Ok(Value::Object(params)) => Ok(params),
        Ok(_) => bail!("params is no JSON object"),
        Err(error) => bail!("params is no JSON: {error}"),
    }
}

/// Makes a job, and where told waits for its end.
fn ask(
    place: &Place,
    (name, command): (&str, &str),
    params: &Value,
    firmware: Option<Firmware>,
    rollout: &RolloutArgs,
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let now = clock::now();
    let expires = rollout.expires.map(|lives| now.checked_add(lives).context("--expires is too long")).transpose()?;
    let ask = Ask {
        id: new_id(),
        tenant: rollout.tenant.clone(),
        name: name.to_owned(),
        command: command.to_owned(),
        params: params.to_string(),
        selector: rollout.selector()?,
        timeout: rollout.timeout.or(firmware.as_ref().map(|_| FIRMWARE_TIMEOUT)),
        firmware,
        rate: rollout.rate,
        canary: rollout.canary,
        abort: rollout.abort,
        abort_after: rollout.abort_after,
        expires_at: expires,
        priority: rollout.priority,
        at: now,
        instance: rollout.instance.clone(),
        who: Some(rollout.who.clone()),
        via: "cli",
    };
    let (store, settings) = (place.store()?, place.config()?.commands);
    let created = store.create_job(&ask, &settings)?;
    let Some(wait) = rollout.wait else {
        match rollout.json {
            true => output::json(out, &created_json(name, &created))?,
            false => writeln!(out, "{}", told(name, &created))?,
        }
        return Ok(ExitCode::SUCCESS);
    };
    if !rollout.json {
        writeln!(out, "{}", told(name, &created))?;
        out.flush()?;
    }
    await_end(&store, &created.id, wait, rollout.json, out)
}

impl RolloutArgs {
    fn selector(&self) -> anyhow::Result<Selector> {
        let mut tags = BTreeMap::new();
        for (name, value) in &self.tag {
            if tags.insert(name.clone(), value.clone()).is_some_and(|before| before != *value) {
                bail!("--tag {name} is given twice with different values, which no device has");
            }
        }
        let mut devices: BTreeSet<String> = self.device.iter().cloned().collect();
        if let Some(file) = &self.devices_from {
            let text = match file.to_str() {
                Some("-") => std::io::read_to_string(std::io::stdin().lock()).context("reading the devices"),
                _ => std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display())),
            }?;
            let before = devices.len();
            devices.extend(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned));
            if devices.len() == before && before == 0 {
                bail!("a job on nothing: {} names no device", file.display());
            }
        }
        Ok(Selector { templates: self.template.clone(), sites: self.site.clone(), tags, devices })
    }
}

fn created_json(name: &str, created: &Created) -> Value {
    json!({
        "id": created.id,
        "name": name,
        "devices": created.devices,
        "rejected": created.rejected,
        "done": created.done,
        "canaries": created.canaries,
    })
}

fn told(name: &str, created: &Created) -> String {
    let parts = [
        (created.canaries, "first"),
        (created.done, "have the version already"),
        (created.rejected, "rejected, see `tidegate job executions`"),
    ];
    let parts = parts.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!(", {count} {what}"));
    let devices = if created.devices == 1 { "device" } else { "devices" };
    format!("job {name}: {} {devices}{}", created.devices, parts.collect::<String>())
}
