//! The shipped templates and the operator's catalog directory → what they declare, or every fault in them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::device_file::{self, DeviceEntry, SiteEntry};
use super::example::Example;
use super::references::Placed;
use super::shipped::SHIPPED;
use super::template_file::{self, TemplateFile};
use super::vain::{self, PlacedMatch};
use super::{
    DEFAULT_TENANT, Declared, DeclaredDevice, DeclaredRule, DeclaredSite, DeclaredTemplate, Template, extends,
    references,
};
use crate::alert::advice::{self, Known};
use crate::alert::maintenance::DeclaredMaintenance;
use crate::alert::maintenance_file::{self, MaintenanceFile};
use crate::alert::rule_file::{self, RuleFile};
use crate::config::document::{Document, MAX_FILE, read_text};
use crate::config::fault::{Fault, Faults, Place, Wrong, did_you_mean};
use crate::config::section::{Findings, Found};
use crate::config::{Reading, Source};

/// Directories that a catalog may hold.
const DIRECTORIES: [&str; 4] = ["templates", "devices", "rules", "maintenance"];

/// The shipped templates, and the operator's templates, devices and rules below `dir`.
///
/// A file that repeats a shipped template exactly is left out.
///
/// # Errors
/// Every fault in every file.
pub fn load(dir: Option<&Path>) -> Result<Declared, Faults> {
    read(dir, &[]).map(Catalog::into_declared)
}

/// A template's file, read and laid flat.
#[derive(Clone, Debug)]
pub struct ReadTemplate {
    pub template: Template,
    pub shipped: bool,
    /// Where it is; `shipped/…` in the binary.
    pub file: PathBuf,
    pub examples: Vec<Example>,
}

/// All files of a catalog.
#[derive(Clone, Debug)]
pub struct Catalog {
    pub templates: Vec<ReadTemplate>,
    pub devices: Vec<DeclaredDevice>,
    pub sites: Vec<DeclaredSite>,
    pub rules: Vec<DeclaredRule>,
    pub maintenance: Vec<DeclaredMaintenance>,
    /// What works, but hardly as it was meant.
    pub warnings: Vec<Fault>,
    /// Slugs of the further files that were asked for, in their order.
    pub asked: Vec<String>,
    /// Every source that a `[match]` of the operator's templates names.
    sources: Vec<Placed<String>>,
    matches: Vec<PlacedMatch>,
}

impl Catalog {
    /// What the daemon keeps of it.
    pub fn into_declared(self) -> Declared {
        let templates = self.templates.into_iter();
        let templates = templates.map(|file| DeclaredTemplate { template: file.template, shipped: file.shipped });
        Declared {
            templates: templates.collect(),
            devices: self.devices,
            sites: self.sites,
            rules: self.rules,
            maintenance: self.maintenance,
        }
    }

    /// Warnings of `[match]`es in the operator's templates that name a source that is none of `configured`, or that can never hold
    /// with these.
    pub fn vain_matches(&self, configured: &[Source]) -> Vec<Fault> {
        let shared = |slug: &str| {
            let found = self.templates.iter().find(|one| one.template.slug == slug);
            found.is_some_and(|one| one.template.tenant.is_none())
        };
        let never = self.matches.iter().filter_map(|one| vain::never(one, configured, shared));
        let mut warnings = vain::missing_sources(&self.sources, configured);
        warnings.extend(never);
        Faults::new(warnings).into_vec()
    }
}

/// As [`load`], with what only people and tests need; `more`: further templates' files, one of which replaces a file of the
/// operator's that has the same slug.
///
/// # Errors
/// Every fault in every file.
pub fn read(dir: Option<&Path>, more: &[PathBuf]) -> Result<Catalog, Faults> {
    let findings = Findings::default();
    let shipped: Vec<TemplateFile> = SHIPPED
        .iter()
        .filter_map(|(name, text)| template_file::read(&Document::parse(&Arc::from(Path::new(name)), text), &findings))
        .collect();
    let Files { templates: mut files, devices: entries, sites, rules, maintenance } = match dir {
        Some(dir) => read_directory(dir, &findings),
        None => Files::default(),
    };
    let more: Vec<_> = more.iter().filter_map(|path| template_file::read(&Document::read(path), &findings)).collect();
    let asked = more.iter().map(|file| file.slug.value.clone()).collect();
    files.retain(|file| !more.iter().any(|other| other.slug.value == file.slug.value));
    files.extend(more);
    let files = references::distinct(&shipped, files, &findings);
    let locked = shipped.len();
    let files = extends::flatten(shipped.into_iter().chain(files).collect(), &findings);
    check(&files, &entries, &rules, &findings);
    references::sites(&sites, &findings);
    references::maintenance(&maintenance, &findings);

    let Found { faults, mut warnings, .. } = findings.into_inner();
    if !faults.is_empty() {
        return Err(Faults::new(faults));
    }
    warnings.extend(advice(&files, &entries, &rules, &maintenance));
    let rules = rules.into_iter().filter_map(|file| file.declared).collect();
    let sources = files.iter().skip(locked).flat_map(|file| file.sources.iter().cloned()).collect();
    let matches = files.iter().skip(locked).flat_map(TemplateFile::matches).collect();
    let templates = files.into_iter().enumerate().map(|(index, file)| ReadTemplate {
        file: file.slug.place.file().map(Path::to_owned).unwrap_or_default(),
        template: file.template,
        shipped: index < locked,
        examples: file.examples,
    });
    let devices = entries.into_iter().map(|entry| entry.device).collect();
    Ok(Catalog {
        templates: templates.collect(),
        devices,
        sites: sites.into_iter().map(|entry| entry.site).collect(),
        rules,
        maintenance: maintenance.into_iter().filter_map(|file| file.declared).collect(),
        warnings: Faults::new(warnings).into_vec(),
        asked,
        sources,
        matches,
    })
}

/// The text of a template's file.
///
/// # Errors
/// A sentence where it can't be read.
pub fn text(template: &ReadTemplate) -> Result<String, String> {
    let shipped = SHIPPED.iter().find(|(name, _)| template.shipped && Path::new(name) == template.file);
    match shipped {
        Some((_, text)) => Ok((*text).to_owned()),
        None => read_text(&template.file, MAX_FILE),
    }
}

/// Faults of sources whose `template` names none of the declared ones, or one that none of their devices may have.
pub fn check_sources(reading: &Reading, declared: &Declared) -> Vec<Fault> {
    let known: BTreeMap<&str, &Template> =
        declared.templates.iter().map(|declared| (declared.template.slug.as_str(), &declared.template)).collect();
    let wrong = |source: &Source| {
        let slug = source.template.as_deref()?;
        let Some(template) = known.get(slug) else { return Some(references::no_template(slug, &known)) };
        let owner = template.tenant.as_deref().filter(|owner| *owner != DEFAULT_TENANT)?;
        let message = format!(
            "\"{slug}\" is a template of the tenant \"{owner}\" alone, and without {{tenant}} in its filter the source's devices \
             are of \"{DEFAULT_TENANT}\""
        );
        (!source.filter.contains("{tenant")).then(|| message.into())
    };
    let sources = reading.config.sources.iter().enumerate();
    sources
        .filter_map(|(index, source)| Some(reading.fault(&format!("sources[{index}].template"), wrong(source)?)))
        .collect()
}

/// What the rules say that the other files don't bear out.
fn advice(
    files: &[TemplateFile],
    entries: &[DeviceEntry],
    rules: &[RuleFile],
    maintenance: &[MaintenanceFile],
) -> Vec<Fault> {
    let known = Known {
        templates: files.iter().map(|file| (file.slug.value.as_str(), &file.template)).collect(),
        devices: entries.iter().map(|entry| &entry.device).collect(),
        rules: rules.iter().map(|file| file.slug.as_str()).collect(),
    };
    let sound = rules.iter().filter_map(|file| Some((file, file.declared.as_ref()?)));
    let of_rules = sound.flat_map(|(file, declared)| advice::advise(&declared.rule, &known, |key| file.place_of(key)));
    let windows = maintenance.iter().filter_map(|file| Some((file, file.declared.as_ref()?)));
    let of_windows =
        windows.flat_map(|(file, declared)| advice::advise_maintenance(&declared.maintenance, &known, &file.place));
    of_rules.chain(of_windows).collect()
}

fn check(files: &[TemplateFile], entries: &[DeviceEntry], rules: &[RuleFile], findings: &Findings) {
    let known: BTreeMap<&str, &Template> =
        files.iter().map(|file| (file.slug.value.as_str(), &file.template)).collect();
    references::slots(files, &known, findings);
    references::devices(entries, &known, findings);
    references::rules(rules, findings);
}

/// The operator's files, read.
#[derive(Default)]
struct Files {
    templates: Vec<TemplateFile>,
    devices: Vec<DeviceEntry>,
    sites: Vec<SiteEntry>,
    rules: Vec<RuleFile>,
    maintenance: Vec<MaintenanceFile>,
}

fn read_directory(dir: &Path, findings: &Findings) -> Files {
    if !dir.is_dir() {
        findings.fault(Place::File(Arc::from(dir)), "", "is no directory that can be read");
        return Files::default();
    }
    misspelt_directories(dir, findings);
    let documents = |name: &str| toml_files(&dir.join(name), findings).into_iter().map(|path| Document::read(&path));
    let (devices, sites): (Vec<_>, Vec<_>) =
        documents("devices").map(|file| device_file::read(&file, findings)).unzip();
    Files {
        templates: documents("templates").filter_map(|file| template_file::read(&file, findings)).collect(),
        devices: devices.into_iter().flatten().collect(),
        sites: sites.into_iter().flatten().collect(),
        rules: documents("rules").filter_map(|file| rule_file::read(&file, findings)).collect(),
        maintenance: documents("maintenance").flat_map(|file| maintenance_file::read(&file, findings)).collect(),
    }
}

/// A directory `template/` would be passed over in silence.
fn misspelt_directories(dir: &Path, findings: &Findings) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !DIRECTORIES.contains(name)) else { continue };
        let suggestion = did_you_mean(name, DIRECTORIES);
        if suggestion.is_some() && entry.path().is_dir() {
            let wrong = Wrong::new("is not read").suggest(suggestion);
            findings.fault(Place::File(Arc::from(entry.path())), "", wrong);
        }
    }
}

/// The `.toml` files of a directory and of those below it, by name; none where there is no such directory.
fn toml_files(dir: &Path, findings: &Findings) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    gather(dir, &mut paths, findings);
    paths.sort();
    paths
}

/// A link to a directory is not followed: it could lead back here.
fn gather(dir: &Path, paths: &mut Vec<PathBuf>, findings: &Findings) {
    let unreadable = |error: std::io::Error| {
        findings.fault(Place::File(Arc::from(dir)), "", format!("can't be read: {error}"));
    };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => return unreadable(error),
    };
    for entry in entries {
        let (path, kind) = match entry.and_then(|entry| Ok((entry.path(), entry.file_type()?))) {
            Ok(found) => found,
            Err(error) => {
                unreadable(error);
                continue;
            }
        };
        if kind.is_dir() {
            gather(&path, paths, findings);
        } else if path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Kind;

    #[test]
    fn every_shipped_template_is_read_and_its_keys_lead_to_its_metrics() {
        let declared = load(None).unwrap();
        assert_eq!(declared.templates.len(), SHIPPED.len());
        for DeclaredTemplate { template, shipped } in &declared.templates {
            assert!(shipped);
            assert!(!template.metrics.is_empty(), "{}", template.slug);
            for (index, metric) in template.metrics.iter().enumerate() {
                for literal in metric.keys.iter().filter_map(|key| key.pattern.literal()) {
                    let at = template.keys.exact(literal).map(|at| at.metric);
                    assert_eq!(at, Some(index), "{}: {literal}", metric.name);
                }
                let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_{}".contains(&byte);
                assert!(metric.name.bytes().all(plain), "{}", metric.name);
            }
        }
    }

    #[test]
    fn every_template_file_in_the_repository_is_shipped() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/catalog/templates");
        let names: Vec<String> = toml_files(&dir, &Findings::default())
            .iter()
            .filter_map(|path| Some(format!("shipped/{}", path.strip_prefix(&dir).ok()?.to_str()?)))
            .collect();
        assert_eq!(names, SHIPPED.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    }

    #[test]
    fn the_shipped_files_as_an_operators_catalog_change_nothing() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/catalog");
        assert_eq!(load(Some(&dir)).unwrap(), load(None).unwrap());
    }

    #[test]
    fn the_tasmota_plug_maps_dotted_keys_and_words() {
        let declared = load(None).unwrap();
        let plug = declared.templates.iter().find(|t| t.template.slug == "tasmota-plug").unwrap();
        let metric = |key: &str| &plug.template.metrics[plug.template.keys.exact(key).unwrap().metric];
        assert_eq!((metric("ENERGY.Power").name.as_str(), metric("ENERGY.Power").unit.as_str()), ("power", "W"));
        assert_eq!(metric("POWER").kind, Kind::Bool);
        assert_eq!(metric("POWER").values["ON"], 1.0);
    }
}
