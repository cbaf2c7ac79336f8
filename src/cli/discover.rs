//! `tidegate discover`: listens to a broker without storing anything, and prints the configuration that would take what it has.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{Place, decode, output};
use crate::clock;
use crate::config::{Broker, Config, Endpoint, Faults, Transport};
use crate::discover::Survey;
use crate::message::Publish;
use crate::mqtt;

/// How long the broker may take for the connection, and for the subscription.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two progress lines where they are written one below the other, and on a terminal.
const REPORT: Duration = Duration::from_secs(10);
const FRAME: Duration = Duration::from_millis(500);

#[derive(Args, Debug)]
pub(super) struct DiscoverArgs {
    /// mqtt://, mqtts://, ws:// or wss:// host[:port]; without it, the configured one
    #[arg(long, value_name = "URL")]
    broker: Option<String>,
    /// How long to listen, e.g. 60s; Ctrl-C ends it sooner, and what was found is printed
    #[arg(long = "for", id = "duration", default_value = "60s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Stop after so many messages
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    messages: Option<u64>,
    /// What to listen to
    #[arg(long, default_value = "#")]
    filter: String,
    #[arg(long, requires = "broker")]
    username: Option<String>,
    /// File that holds the password
    #[arg(long, value_name = "FILE", requires = "username")]
    password_file: Option<PathBuf>,
    /// CA of the broker's certificate, PEM; else the system's
    #[arg(long, value_name = "FILE", requires = "broker")]
    ca: Option<PathBuf>,
    /// Client certificate and its key, PEM
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// 5, or 3 for MQTT 3.1.1
    #[arg(long, value_parser = clap::value_parser!(u8).range(3..=5), default_value_t = 5)]
    mqtt_version: u8,
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(place: &Place, args: &DiscoverArgs) -> anyhow::Result<ExitCode> {
    let checked = place.load()?;
    let broker = match &args.broker {
        Some(url) => given(url, args)?,
        None => configured(&checked.config),
    };
    let mut survey = Survey::new(&checked.config, &decode::snapshot(&checked.declared)?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let heard = runtime.block_on(listen(&broker, args, &mut survey));
    let (full, messages) = (survey.is_full(), survey.counts().messages);
    if full {
        eprintln!("tidegate: there is more than is kept in mind; narrow it with --filter");
    }
    match (heard, messages) {
        (Err(error), 0) => return Err(error.into()),
        (Err(error), _) => eprintln!("tidegate: {error}; this was found until then"),
        (Ok(()), 0) => bail!(
            "nothing was heard on {} within {}: does anything publish there, and may this user read it? (--for, --username)",
            args.filter,
            humantime::format_duration(args.duration)
        ),
        (Ok(()), _) => {}
    }
    let found = survey.finish();
    let mut out = std::io::stdout().lock();
    if args.json {
        output::json(&mut out, &found.json())?;
    } else {
        out.write_all(found.toml().as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The broker of the command line, read as the configuration reads it.
fn given(url: &str, args: &DiscoverArgs) -> Result<Broker, Faults> {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let file = |path: &Option<PathBuf>| path.as_ref().map(|path| quoted(&path.to_string_lossy()));
    let mut text = format!("[broker]\nurl = {}\nversion = {}\n", quoted(url), args.mqtt_version);
    let options = [("username", args.username.as_deref().map(quoted)), ("password_file", file(&args.password_file))];
    let certificates = [("ca", file(&args.ca)), ("cert", file(&args.cert)), ("key", file(&args.key))];
    let lines = |options: &[(&str, Option<String>)]| -> String {
        let given = options.iter().filter_map(|(key, value)| Some((key, value.as_ref()?)));
        given.map(|(key, value)| format!("{key} = {value}\n")).collect()
    };
    text.push_str(&lines(&options));
    if certificates.iter().any(|(_, file)| file.is_some()) {
        text.push_str("[broker.tls]\n");
        text.push_str(&lines(&certificates));
    }
    let reading = Config::parse(Path::new("the command line"), &text, &[]);
    if reading.faults.is_empty() { Ok(reading.config.broker) } else { Err(Faults::new(reading.faults)) }
}

/// The configured broker; an embedded one is a running daemon's, and listens on this machine too.
fn configured(config: &Config) -> Broker {
    let mut broker = config.broker.clone();
    if let Endpoint::Embedded { listen } = broker.endpoint {
        let host = if listen.ip().is_unspecified() { "127.0.0.1".to_owned() } else { listen.ip().to_string() };
        let (transport, path) = (Transport::Tcp, "/mqtt".to_owned());
        broker.endpoint = Endpoint::Remote { transport, host, port: listen.port(), path };
    }
    broker
}

async fn listen(broker: &Broker, args: &DiscoverArgs, survey: &mut Survey) -> Result<(), mqtt::ListenError> {
    let stop = CancellationToken::new();
    let interrupted = stop.clone();
    let signals = async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            interrupted.cancel();
        }
        std::future::pending::<()>().await;
    };
    let (begun, enough) = (CancellationToken::new(), stop.clone());
    let mut progress = Progress::new(args.duration);
    let heard = |publish: Publish| {
        survey.take(publish, clock::now());
        progress.told(survey);
        if survey.is_full() || args.messages.is_some_and(|most| survey.counts().messages >= most) {
            enough.cancel();
        }
    };
    let subscribed = || begun.cancel();
    let listening = mqtt::listen(broker, &args.filter, PATIENCE, stop.clone(), subscribed, heard);
    let time_up = async {
        begun.cancelled().await;
        tokio::time::sleep(args.duration).await;
        stop.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = listening => ended,
        () = time_up => Ok(()),
        () = signals => Ok(()),
    }
}

/// One line on stderr that is written over on a terminal, and now and then one elsewhere.
struct Progress {
    duration: Duration,
    began: Instant,
    next: Instant,
    terminal: bool,
}

impl Progress {
    fn new(duration: Duration) -> Progress {
        let (now, terminal) = (Instant::now(), std::io::stderr().is_terminal());
        Progress { duration, began: now, next: now, terminal }
    }

    fn told(&mut self, survey: &Survey) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = now.checked_add(if self.terminal { FRAME } else { REPORT }).unwrap_or(now);
        let (devices, keys) = survey.found();
        let passed = now.saturating_duration_since(self.began).as_secs();
        let line = format!(
            "{passed} of {} s: {} messages, {devices} devices, {keys} keys",
            self.duration.as_secs(),
            survey.counts().messages
        );
        if self.terminal { eprint!("\r{line}\u{1b}[K") } else { eprintln!("{line}") }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal {
            eprintln!();
        }
    }
}
