//! Where the configuration comes from, and the order in which its sections are read.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::document::Document;
use super::environment;
use super::fault::Wrong;
use super::section::{Findings, Section};
use super::*;

/// Read where neither `--config` nor `$TIDEGATE_CONFIG` names a file.
pub const SYSTEM_FILE: &str = "/etc/tidegate/tidegate.toml";

/// One of each list of tables.
const LISTS: &str = "[[sources]]\n[[notify]]\n[[on_call]]\n[[on_call.people]]\n[[on_call.overrides]]\n[[escalation]]\n[[escalation.levels]]";

/// A configuration as far as it could be read, with what was found on the way.
#[derive(Debug)]
pub struct Reading {
    /// Whole only where there are no faults; the default stands in for what is wrong.
    pub config: Config,
    /// None: the built-in default.
    pub file: Option<PathBuf>,
    pub faults: Vec<Fault>,
    /// What works but should be put right, such as a password in the file.
    pub warnings: Vec<Fault>,
    places: BTreeMap<String, Place>,
}

impl Reading {
    /// A fault at the place of a dotted key such as `sources[0].template`.
    pub fn fault(&self, key: &str, wrong: impl Into<Wrong>) -> Fault {
        let Wrong { message, suggestion } = wrong.into();
        let place = match (self.places.get(key), &self.file) {
            (Some(place), _) => place.clone(),
            (None, Some(file)) => Place::File(Arc::from(file.as_path())),
            (None, None) => Place::BuiltIn,
        };
        Fault { place, key: key.to_owned(), message, suggestion }
    }
}

/// What the meaning of a section depends on beside its text.
pub(super) struct Surroundings<'a> {
    /// Directory of the configuration file, which the files it names are relative to.
    pub directory: Option<PathBuf>,
    pub env: &'a [(String, String)],
}

impl Surroundings<'_> {
    /// A path of the configuration, from the directory of its file.
    pub fn path(&self, text: &str) -> PathBuf {
        match &self.directory {
            Some(directory) => directory.join(text),
            None => PathBuf::from(text),
        }
    }
}

impl Config {
    /// The file to read: `path`, else `$TIDEGATE_CONFIG`, else [`SYSTEM_FILE`] if it exists, else none.
    pub fn locate(path: Option<&Path>, env: &[(String, String)]) -> Option<PathBuf> {
        let named = || env.iter().find(|(name, value)| name == "TIDEGATE_CONFIG" && !value.is_empty());
        let system = || Some(PathBuf::from(SYSTEM_FILE)).filter(|file| file.exists());
        path.map(Path::to_owned).or_else(|| named().map(|(_, value)| PathBuf::from(value))).or_else(system)
    }

    /// The configuration of the file that [`Config::locate`] finds, under the overrides in `env`.
    ///
    /// # Errors
    /// Every fault there is.
    pub fn load(path: Option<&Path>, env: &[(String, String)]) -> Result<Config, Faults> {
        let reading = Config::read(path, env);
        if reading.faults.is_empty() { Ok(reading.config) } else { Err(Faults::new(reading.faults)) }
    }

    /// As [`Config::load`], with the warnings, and with what could be read in spite of faults.
    pub fn read(path: Option<&Path>, env: &[(String, String)]) -> Reading {
        let file = Config::locate(path, env);
        let mut document = match &file {
            Some(file) => Document::read(file),
            None => Document::empty(Place::BuiltIn),
        };
        if file.as_ref().is_some_and(|file| !file.exists()) {
            let hint = "`tidegate print-config` prints one to begin with";
            document.faults.iter_mut().for_each(|fault| fault.suggestion = Some(hint.to_owned()));
        }
        interpret(document, file, env)
    }

    /// As [`Config::read`], of a text that is, or might be, the contents of `file`.
    pub fn parse(file: &Path, text: &str, env: &[(String, String)]) -> Reading {
        interpret(Document::parse(&Arc::from(file), text), Some(file.to_owned()), env)
    }

    /// Every dotted key that a configuration may have; those of `[[sources]]` as `sources.name`, and of other lists likewise.
    pub fn keys() -> Vec<String> {
        let document = Document::parse(&Arc::from(Path::new("")), LISTS);
        let findings = Findings::default();
        findings.read(&document, |root| sections(root, &Surroundings { directory: None, env: &[] }));
        let known = findings.into_inner().known;
        let tables: HashSet<String> = known.iter().filter_map(|key| Some(key.rsplit_once('.')?.0.to_owned())).collect();
        known.into_iter().filter(|key| !tables.contains(key)).collect()
    }
}

fn interpret(mut document: Document, file: Option<PathBuf>, env: &[(String, String)]) -> Reading {
    environment::overlay(&mut document, env);
    let directory = file.as_deref().map(|file| file.parent().unwrap_or(Path::new("")).to_owned());
    let around = Surroundings { directory, env };
    let findings = Findings::default();
    let config = findings.read(&document, |root| sections(root, &around));
    let mut found = findings.into_inner();
    found.faults.extend(environment::near_misses(env, found.known.iter().map(String::as_str)));
    Reading { config, file, faults: found.faults, warnings: found.warnings, places: found.places }
}

fn sections(root: &mut Section<'_>, around: &Surroundings<'_>) -> Config {
    let instance = root.table("instance", Instance::read);
    let notify = notify::read(root, around);
    let on_call = on_call::read(root, around, &notify);
    let config = Config {
        broker: root.table("broker", |section| Broker::read(section, around, &instance.id)),
        database: root.table("database", |section| Database::read(section, around, &instance.state_dir)),
        journal: root.table("journal", Journal::read),
        sparkplug: root.table("sparkplug", Sparkplug::read),
        sources: sources::read(root),
        devices: root.table("devices", Devices::read),
        metrics: root.table("metrics", Metrics::read),
        time: root.table("time", Time::read),
        limits: root.table("limits", Limits::read),
        quarantine: root.table("quarantine", Quarantine::read),
        commands: root.table("commands", Commands::read),
        twins: root.table("twins", Twins::read),
        retention: root.table("retention", Retention::read),
        archive: root.table("archive", |section| Archive::read(section, around)),
        rollups: root.table("rollups", Rollups::read),
        figures: root.table("figures", Figures::read),
        maintenance: root.table("maintenance", Maintenance::read),
        escalations: escalation::read(root, &notify, &on_call),
        on_call,
        notify,
        http: root.table("http", |section| Http::read(section, around)),
        log: root.table("log", Log::read),
        catalog: root.table("catalog", |section| Catalog::read(section, around)),
        instance,
    };
    largest_fits(root, &config);
    sparkplug::hears(root, &config);
    lifetime::outlives_what_comes(root, &config);
    config
}

/// A message that the journal can never hold would stop everything behind it.
fn largest_fits(root: &Section<'_>, config: &Config) {
    let largest = config.sources.iter().map(|source| source.max_payload as u64).max().unwrap_or(0);
    if largest.saturating_mul(2) > config.journal.max_size {
        let message = format!(
            "{} is less than twice the largest max_payload of a source, {}",
            bytesize::ByteSize(config.journal.max_size),
            bytesize::ByteSize(largest)
        );
        root.fault_at(root.place_of("journal"), "journal.max_size", message);
    }
}
