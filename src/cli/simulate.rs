//! `tidegate simulate`: simulated devices publish to any broker.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use clap::{ArgGroup, Args, ValueEnum};
use comfy_table::{CellAlignment, Table, presets};
use tokio_util::sync::CancellationToken;

use crate::config::Secret;
use crate::mqtt::load::{self, Answered, Settings, Tally};
use crate::simulate::answers::Obedience;
use crate::simulate::{self, CommandSummary, Fleet, Kind, Plan, Summary, Target};

/// Publish as simulated devices, and count what the broker acknowledges.
#[derive(Args, Clone, Debug)]
#[command(group(ArgGroup::new("end").required(true).multiple(true).args(["messages", "duration"])))]
pub struct SimulateArgs {
    /// mqtt://, mqtts://, ws:// or wss:// host[:port]
    #[arg(long, default_value = "mqtt://127.0.0.1:1883")]
    pub broker: Target,
    /// How many devices
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub devices: u32,
    /// What they are
    #[arg(long, value_enum, default_value_t = Format::Json)]
    pub format: Format,
    /// Numbers in a message (json), or topics of a device (scalar)
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub metrics: u32,
    /// Messages a second, all devices together; 0: as fast as they are acknowledged
    #[arg(long, default_value_t = 0.0, value_parser = rate)]
    pub rate: f64,
    /// Stop after so many messages
    #[arg(long)]
    pub messages: Option<u64>,
    /// Stop after so long, e.g. 30s
    #[arg(long = "for", id = "duration", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: u8,
    /// Connections that the devices share; at most one for each device
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub connections: u16,
    /// Unacknowledged messages of one connection at most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..65_535))]
    pub window: u16,
    /// Begins every device's name
    #[arg(long, default_value = "sim-", value_parser = topic_level)]
    pub prefix: String,
    /// Put a time of their own into the payloads
    #[arg(long)]
    pub timestamps: bool,
    /// The same seed gives the same values
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Begins the client ids; unless told, one of this process
    #[arg(long)]
    pub client_id: Option<String>,
    #[arg(long, requires = "password_file")]
    pub username: Option<String>,
    /// File that holds the password
    #[arg(long, requires = "username")]
    pub password_file: Option<PathBuf>,
    /// CA of the broker's certificate, PEM
    #[arg(long)]
    pub ca: Option<PathBuf>,
    /// How long the last acknowledgements, or a lost broker, are waited for
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    pub patience: Duration,
    /// Answer commands to these devices as real ones of their kind do; native ones are carried out once and said to have succeeded
    #[arg(long)]
    pub answer: bool,
    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,
}

/// The kinds of device by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Native JSON with plain numbers
    Json,
    /// A bare number on a topic of its own
    Scalar,
    /// Climate sensors that speak native JSON
    Climate,
    /// Tasmota energy plugs
    Tasmota,
    /// Climate sensors behind Zigbee2MQTT
    Zigbee2mqtt,
    /// EASUN-style inverters
    Easun,
    /// Shelly Plus 1PM
    Shelly,
    /// LoRaWAN climate sensors behind ChirpStack
    Chirpstack,
    /// Sparkplug edge nodes with one device each
    Sparkplug,
    /// Climate sensors, Tasmota, Zigbee2MQTT and inverters, as in the demo
    Mixed,
    /// Zigbee2MQTT, Tasmota, Shelly, ChirpStack and Sparkplug
    Formats,
}

impl Format {
    fn fleet(self, devices: usize, metrics: usize) -> Vec<(Kind, usize)> {
        match self {
            Format::Json => vec![(Kind::Json { metrics }, devices)],
            Format::Scalar => vec![(Kind::Scalar { metrics }, devices)],
            Format::Climate => vec![(Kind::Climate, devices)],
            Format::Tasmota => vec![(Kind::TasmotaPlug, devices)],
            Format::Zigbee2mqtt => vec![(Kind::Zigbee2mqttClimate, devices)],
            Format::Easun => vec![(Kind::EasunInverter, devices)],
            Format::Shelly => vec![(Kind::ShellyPlug, devices)],
            Format::Chirpstack => vec![(Kind::ChirpstackClimate, devices)],
            Format::Sparkplug => vec![(Kind::SparkplugNode, devices)],
            Format::Mixed => shared(&Kind::REAL, devices),
            Format::Formats => shared(&Kind::FORMATS, devices),
        }
    }
}

/// The devices dealt out to the kinds.
fn shared(kinds: &[Kind], devices: usize) -> Vec<(Kind, usize)> {
    let share = |index| devices / kinds.len().max(1) + usize::from(index < devices % kinds.len().max(1));
    kinds.iter().enumerate().map(|(index, kind)| (*kind, share(index))).collect()
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate >= 0.0 => Ok(rate),
        _ => Err("a number of messages a second, 0 or more".to_owned()),
    }
}

fn topic_level(text: &str) -> Result<String, String> {
    if text.len() > 64 || text.contains(['/', '+', '#', '\0']) {
        return Err("up to 64 bytes, without / + #".to_owned());
    }
    Ok(text.to_owned())
}

/// Runs the simulation until it is done, or Ctrl-C: the acknowledgements still due are waited for then too.
pub(super) fn command(args: SimulateArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let simulation = run(args, stop.clone());
        tokio::pin!(simulation);
        tokio::select! {
            outcome = &mut simulation => return outcome,
            interrupted = tokio::signal::ctrl_c() => interrupted?,
        }
        stop.cancel();
        simulation.await
    })
}

/// Runs until done or `stop` is cancelled; prints the summary to stdout. 0: everything was acknowledged.
///
/// # Errors
/// Settings that can't be used, or stdout.
pub async fn run(args: SimulateArgs, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    let fleet = Fleet::new(
        &args.format.fleet(usize::try_from(args.devices)?, usize::try_from(args.metrics)?),
        &args.prefix,
        args.seed,
        args.timestamps,
    );
    let plan = Plan {
        connections: usize::from(args.connections),
        rate: args.rate,
        messages: args.messages,
        duration: args.duration,
    };
    let settings = settings(&args)?;
    // One connection hears the commands to all devices, until the last of their messages is out.
    let done = CancellationToken::new();
    let hears = Settings { client_id: format!("{}-commands", settings.client_id), ..settings.clone() };
    let (mut devices, answered) = (Obedience::new(&args.prefix, &fleet), Answered::default());
    let filters = devices.filters().to_vec();
    let answers = async {
        if !args.answer {
            done.cancelled().await;
            return Ok(());
        }
        let answer = |topic: &str, payload: &[u8]| devices.answer(topic, payload);
        load::answer_all(&hears, &filters, answer, &answered, &done).await
    };
    let publishes = async {
        let summary = simulate::run(fleet, plan, &settings, Arc::new(Tally::default()), stop).await;
        done.cancel();
        summary
    };
    let (heard, summary) = tokio::join!(answers, publishes);
    let mut summary = summary?;
    summary.errors.extend(heard.err().map(|error| error.to_string()));
    if args.answer {
        summary.commands = Some(CommandSummary {
            carried_out: devices.carried_out(),
            repeated: devices.repeated(),
            answered: answered.answered.load(Ordering::Relaxed),
        });
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&summary)?);
    } else {
        println!("{}", table(&summary));
    }
    Ok(if summary.all_acknowledged() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn settings(args: &SimulateArgs) -> anyhow::Result<Settings> {
    let credentials = match (&args.username, &args.password_file) {
        (Some(username), Some(file)) => {
            let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
            Some((username.clone(), Secret::new(text.trim_end_matches(['\r', '\n']).to_owned())))
        }
        _ => None,
    };
    Ok(Settings {
        target: args.broker.clone(),
        client_id: args.client_id.clone().unwrap_or_else(|| format!("tidegate-simulate-{}", std::process::id())),
        credentials,
        ca: args.ca.clone(),
        qos: args.qos,
        window: args.window,
        grace: args.patience,
        give_up: args.patience,
    })
}

fn table(summary: &Summary) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    let milliseconds = |value: Option<f64>| value.map_or("-".to_owned(), |ms| format!("{ms:.2} ms"));
    let mut row = |name: &str, value: String| {
        table.add_row(vec![name.to_owned(), value]);
    };
    row("devices", format!("{} on {} connections", summary.devices, summary.connections));
    row("published", format!("{} at QoS {}", summary.published, summary.qos));
    if summary.qos > 0 {
        row("acknowledged", summary.acknowledged.to_string());
        for (reason, count) in &summary.refused {
            row("refused", format!("{count} {reason}"));
        }
        row("unacknowledged", summary.unacknowledged.to_string());
        row("resent", format!("{} after {} reconnects", summary.resent, reconnects(summary)));
        row("PUBLISH to acknowledgement, p50", milliseconds(summary.p50_ms));
        row("PUBLISH to acknowledgement, p99", milliseconds(summary.p99_ms));
    }
    row("took", format!("{:.3} s", summary.seconds));
    row("rate", format!("{:.0} messages/s", summary.messages_per_second));
    if let Some(commands) = &summary.commands {
        row("commands carried out", commands.carried_out.to_string());
        row("commands heard again", commands.repeated.to_string());
        row("commands answered", commands.answered.to_string());
    }
    for error in &summary.errors {
        row("error", error.clone());
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Left);
    }
    table
}

fn reconnects(summary: &Summary) -> u64 {
    summary.connects.saturating_sub(u64::try_from(summary.connections).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: SimulateArgs,
    }

    fn parse(args: &[&str]) -> Result<SimulateArgs, clap::Error> {
        Command::try_parse_from(std::iter::once("simulate").chain(args.iter().copied())).map(|parsed| parsed.args)
    }

    #[test]
    fn a_run_needs_an_end_and_refuses_nonsense() {
        assert!(parse(&[]).is_err());
        let args = parse(&["--for", "30s", "--rate", "100", "--format", "mixed", "--qos", "2"]).unwrap();
        assert_eq!((args.duration, args.rate, args.qos), (Some(Duration::from_secs(30)), 100.0, 2));
        assert!(parse(&["--messages", "5", "--for", "1s"]).is_ok());
        for wrong in [["--rate", "-1"], ["--qos", "3"], ["--prefix", "a/b"], ["--broker", "gw:1883"], ["--window", "0"]]
        {
            assert!(parse(&[&["--messages", "5"], wrong.as_slice()].concat()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_mixed_fleet_has_every_kind_and_the_number_asked_for() {
        let fleet = Format::Mixed.fleet(10, 5);
        assert_eq!(fleet.iter().map(|(_, count)| count).collect::<Vec<_>>(), [&3, &3, &2, &2]);
    }
}
