//! `tidegate check`: whether configuration, catalog and state directory are fit to run with.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::Place;
use crate::catalog::{Declared, files};
use crate::config::fault::{Wrong, did_you_mean};
use crate::config::{Config, Database, DatabaseUrl, Endpoint, Fault, Faults, Reading};
use crate::mqtt;
use crate::store::Store;

/// Wrong usage or configuration.
pub const EXIT_CONFIGURATION: u8 = 2;

#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    /// Also whether broker and database answer
    #[arg(long)]
    connect: bool,
}

/// How long the broker may take to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn run(place: &Place, args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let (mut out, mut err) = (io::stdout().lock(), io::stderr().lock());
    let (code, checked) = check(place.file(), &place.environment, &mut out, &mut err)?;
    match checked {
        Some(checked) if args.connect => connect(&checked.config, &mut out, &mut err),
        _ => Ok(code),
    }
}

/// Asks broker and database, each on its own, and says what they answer.
fn connect(config: &Config, out: &mut impl Write, err: &mut impl Write) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    let broker = match config.broker.endpoint {
        Endpoint::Embedded { listen } => std::net::TcpListener::bind(listen)
            .map(|_| ())
            .map_err(|error| format!("the embedded broker can't listen on {listen}: {error}")),
        Endpoint::Remote { .. } => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(mqtt::probe(&config.broker, CONNECT_TIMEOUT))
            .map_err(|error| error.to_string()),
    };
    let mut answers = vec![broker.map(|()| "broker answers")];
    answers.extend(database(&config.database, err)?);
    for answer in answers {
        match answer {
            Ok(words) => writeln!(out, "{words}")?,
            Err(why) => {
                writeln!(err, "{why}")?;
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

/// Whether the database answers, or, for SQLite, could be made at the start; and its replica, if there is one.
fn database(settings: &Database, err: &mut impl Write) -> io::Result<Vec<Result<&'static str, String>>> {
    match &settings.url {
        // Asking would make an empty file.
        DatabaseUrl::Sqlite(path) if !path.exists() => {
            return Ok(vec![Ok("database: not there yet; `tidegate run` makes it")]);
        }
        _ => {}
    }
    let store = match Store::open(settings) {
        Ok(store) => store,
        Err(error) => return Ok(vec![Err(error.to_string())]),
    };
    let database = store.ping();
    if database.is_ok() && store.is_behind_untold_pooler().is_ok_and(|untold| untold) {
        writeln!(
            err,
            "warning: a connection pooler such as PgBouncer stands before the database: set database.pgbouncer = true"
        )?;
    }
    let mut answers = vec![database.map(|()| "database answers").map_err(|error| error.to_string())];
    let replica = store.ping_replica();
    answers
        .extend(replica.map(|answer| {
            answer.map(|()| "replica answers").map_err(|error| format!("database.replica_url: {error}"))
        }));
    Ok(answers)
}

/// A configuration and a catalog without a fault.
#[derive(Debug)]
pub struct Checked {
    pub config: Config,
    pub declared: Declared,
    /// None: the built-in default.
    pub file: Option<PathBuf>,
    /// What works but should be put right.
    pub warnings: Vec<Fault>,
}

/// Reads configuration and catalog, each against the other; touches nothing.
///
/// # Errors
/// Every fault in any of the files.
pub fn validate(config_path: Option<&Path>, env: &[(String, String)]) -> Result<Checked, Faults> {
    let reading = Config::read(config_path, env);
    let catalog = files::read(reading.config.catalog.dir.as_deref(), &[]);
    let mut faults = reading.faults.clone();
    match catalog {
        Ok(mut catalog) => {
            let more = std::mem::take(&mut catalog.warnings);
            let vain = catalog.vain_matches(&reading.config.sources);
            let declared = catalog.into_declared();
            faults.extend(files::check_sources(&reading, &declared));
            if faults.is_empty() {
                let unknown_escalations = unknown_escalations(&reading, &declared);
                let Reading { config, file, mut warnings, .. } = reading;
                warnings.extend(more);
                warnings.extend(vain);
                warnings.extend(unknown_escalations);
                return Ok(Checked { config, declared, file, warnings });
            }
        }
        Err(more) => faults.extend(more.into_vec()),
    }
    Err(Faults::new(faults))
}

/// Warnings of rules whose escalation the configuration does not have. No faults, since a catalog may be shared by instances.
fn unknown_escalations(reading: &Reading, declared: &Declared) -> Vec<Fault> {
    let known = || reading.config.escalations.iter().map(|policy| policy.name.as_str());
    let named =
        declared.rules.iter().filter_map(|declared| Some((&declared.rule.slug, declared.rule.escalation.as_ref()?)));
    let unknown = named.filter(|(_, name)| known().all(|known| known != name.as_str()));
    unknown
        .map(|(slug, name)| {
            let wrong = Wrong::new(format!(
                "the rule \"{slug}\" names the escalation \"{name}\", and there is none of this name"
            ));
            reading.fault("escalation", wrong.suggest(did_you_mean(name, known())))
        })
        .collect()
}

/// Checks everything that needs no server. Faults and warnings go to `err`, the summary to `out`; the checked
/// configuration is returned for a caller that goes on to try the servers.
///
/// # Errors
/// If `out` or `err` can't be written.
pub fn check(
    config_path: Option<&Path>,
    env: &[(String, String)],
    out: &mut impl Write,
    err: &mut impl Write,
) -> anyhow::Result<(ExitCode, Option<Checked>)> {
    let checked = match validate(config_path, env) {
        Ok(checked) => checked,
        Err(faults) => {
            writeln!(err, "{faults}")?;
            let count = faults.len();
            writeln!(err, "configuration refused: {count} fault{}", if count == 1 { "" } else { "s" })?;
            return Ok((ExitCode::from(EXIT_CONFIGURATION), None));
        }
    };
    for warning in &checked.warnings {
        writeln!(err, "warning: {warning}")?;
    }
    let state_dir = &checked.config.instance.state_dir;
    if let Err(error) = writable(state_dir) {
        let place = checked.file.as_deref().map_or("built-in default".to_owned(), |file| file.display().to_string());
        writeln!(
            err,
            "{place}: instance.state_dir: {} can't be written: {error}; give a directory that this user can write",
            state_dir.display()
        )?;
        return Ok((ExitCode::from(EXIT_CONFIGURATION), None));
    }
    writeln!(
        out,
        "configuration ok: {}, {}, {}, {}",
        counted(checked.config.sources.len(), "source"),
        counted(checked.declared.templates.len(), "template"),
        counted(checked.declared.devices.len(), "device"),
        counted(checked.declared.rules.len(), "rule"),
    )?;
    Ok((ExitCode::SUCCESS, Some(checked)))
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Tries a file in the directory, making the directory if need be; leaves nothing behind.
///
/// # Errors
/// What the system says.
pub fn writable(dir: &Path) -> io::Result<()> {
    let missing: Vec<&Path> =
        dir.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    fs::create_dir_all(dir)?;
    let probe = dir.join(format!(".tidegate-check-{}", std::process::id()));
    let tried = OpenOptions::new().write(true).create_new(true).open(&probe).and_then(|mut file| file.write_all(b"\n"));
    let removed = if tried.is_ok() { fs::remove_file(&probe) } else { Ok(()) };
    for made in missing {
        fs::remove_dir(made)?;
    }
    tried.and(removed)
}
