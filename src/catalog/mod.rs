//! What is known of devices: templates and their key maps, devices, modules.

mod derived;
mod derived_file;
mod device_file;
mod dialect_file;
pub mod example;
mod expression;
mod extends;
pub mod files;
mod key_map;
mod key_file;
pub mod matching;
mod matching_file;
mod metric_file;
pub mod pattern;
mod references;
pub mod series;
mod template_file;
pub mod unit;
pub mod registry;
mod shipped;
mod tags;
mod vain;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use jiff::tz::TimeZone;

use crate::alert::Rule;
use crate::alert::maintenance::{DeclaredMaintenance, Maintenance};
use crate::command::dialect::{Dialect, Manner};
use crate::decode::Told;
use crate::time::UtcMicros;
use matching::{GivenBy, Offer};

pub use derived::{Derived, Formula, Rate};
pub use expression::Expression;
pub use key_map::{Found, Key, KeyMap, KeyPlace, UnitField};

pub(crate) use device_file::name_in_topic;
pub(crate) use tags::{name_fault as tag_name_fault, read as read_tags};
pub(crate) use template_file::{display_name, slug_fault};

/// Most bytes of a slug, a category, or a slot's or a command's name.
pub const MAX_SLUG: usize = 64;
/// Most bytes of a metric's name.
pub const MAX_METRIC: usize = 128;
/// Most bytes of a display name, or of a raw key.
pub const MAX_NAME: usize = 255;

/// Name of the tenant of everything that names none.
pub const DEFAULT_TENANT: &str = "default";

/// What a metric's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Number,
    Bool,
    Text,
}

impl Kind {
    /// As templates and the tables have it.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Number => "number",
            Kind::Bool => "bool",
            Kind::Text => "text",
        }
    }
}

/// A device type: its metrics and the keys they go by, those that it has from its parents among them.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    pub slug: String,
    pub name: String,
    pub category: String,
    pub version: u32,
    /// The tenant whose devices may have it; none: any tenant's.
    pub tenant: Option<String>,
    /// Slug of the template that it extends; told to people only, since what it has from there is in it.
    pub extends: Option<String>,
    /// For people: who makes it, under which names, and where its payload is documented.
    pub manufacturer: Option<String>,
    pub models: Vec<String>,
    pub reference: Option<String>,
    /// Longest silence of a device that is to be expected; none: the template does not say.
    pub expected_interval: Option<std::time::Duration>,
    /// The devices that it is for, by any of these; none: it is only given by name.
    pub matching: Vec<matching::Criteria>,
    /// Those that templates share by `extends` are in memory once.
    pub metrics: Vec<Arc<Metric>>,
    /// Each behind those that it is worked out from.
    pub derived: Vec<Derived>,
    pub commands: Vec<TemplateCommand>,
    /// How its commands go out, and how they are answered.
    pub dialect: Dialect,
    pub slots: Vec<Slot>,
    /// Of `metrics`.
    pub keys: KeyMap,
}

/// A named quantity of a template.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// With placeholders in braces where its keys have them.
    pub name: String,
    /// Display unit, one of [`unit`]'s, or empty.
    pub unit: String,
    pub kind: Kind,
    /// Raw keys that carry it, in order of preference.
    pub keys: Vec<Key>,
    /// value = raw × scale + offset, for keys that say nothing else; numbers only.
    pub scale: f64,
    pub offset: f64,
    /// Inclusive bounds, after scale and offset.
    pub range: Option<(f64, f64)>,
    /// A sensor is made for it when a device is provisioned.
    pub required: bool,
    /// Words (or raw values as text) and the numbers that stand for them.
    pub values: BTreeMap<String, f64>,
    /// Raw values as text and the texts that are stored for them; texts only.
    pub words: BTreeMap<String, String>,
    /// Least rise above the sensor's last value; 0: non-decreasing.
    pub min_step: Option<f64>,
    /// Where in the device's reported state its readings go, dotted; none: nowhere.
    pub twin: Option<Box<str>>,
}

impl Template {
    /// The series that a sensor of this name, without its module, has under the template; none: no metric has it.
    pub fn series(&self, sensor: &str) -> Option<series::Series<'_>> {
        let derived = || {
            let derived = self.derived.iter().find(|derived| derived.name == sensor)?;
            Some(series::Series { unit: &derived.unit, kind: Kind::Number, modeled: true, plain: false })
        };
        let metric = self.metrics.iter().find(|metric| metric.names(sensor));
        metric.map(|metric| series::Series::of_metric(metric, sensor)).or_else(derived)
    }
}

impl Metric {
    /// Whether raw values that come by this key go into it as they are.
    pub fn takes_as_is(&self, raw: &str) -> bool {
        let key = self.keys.iter().find(|key| key.pattern.matches(raw));
        let converts = |key: &Key| key.unit_from.is_some() || key.conversion(self) != unit::Conversion::NONE;
        self.words.is_empty() && key.is_some_and(|key| !converts(key))
    }
}

/// Something a device can be told to do.
#[derive(Clone, Debug, PartialEq)]
pub struct TemplateCommand {
    pub name: String,
    /// How long the device may take to answer once it was sent.
    pub timeout: std::time::Duration,
    /// JSON Schema of its parameters.
    pub parameters: serde_json::Value,
    pub manner: Manner,
}

/// A place on a device for a module.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    pub name: String,
    pub interface: String,
    /// Slugs of templates that fit.
    pub compatible: Vec<String>,
}

/// One physical thing, as the database has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    pub id: i32,
    pub tenant: Arc<str>,
    pub uid: Arc<str>,
    /// Slug of its template.
    pub template: Option<String>,
    /// Who gave it, or decided that there is none.
    pub template_by: Option<GivenBy>,
    /// Name of the source it was first heard by.
    pub source: Option<Arc<str>>,
    /// Name of the decoder that read it.
    pub protocol: Option<Arc<str>>,
    /// What it has told of itself; never its name.
    pub told: Vec<(Told, Arc<str>)>,
    /// Uid of its gateway.
    pub parent: Option<Arc<str>>,
    /// Whether a file says who its gateway is.
    pub parent_declared: bool,
    pub site: Option<Arc<str>>,
    pub tags: BTreeMap<String, String>,
    /// When its newest message was received, as far as that is committed.
    pub last_seen: Option<UtcMicros>,
    pub modules: Vec<Module>,
    pub sensors: Vec<Sensor>,
}

/// A part plugged into a device.
#[derive(Clone, Debug, PartialEq)]
pub struct Module {
    pub uid: String,
    /// Slug of its template.
    pub template: Option<String>,
}

/// One metric of one device, as the database has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sensor {
    pub id: i32,
    /// Name in the `readings` view; `module.metric` for a module's.
    pub metric: Arc<str>,
    /// Display unit, or empty.
    pub unit: Arc<str>,
    pub kind: Kind,
    /// Whether a metric of a template stood behind it when it was made.
    pub modeled: bool,
    /// The raw key that it stands for, where its number depends on which came first.
    pub raw_key: Option<Arc<str>>,
    /// Time and value of its newest numeric reading.
    pub last: Option<(UtcMicros, f64)>,
}

/// The catalog at one moment; immutable, swapped whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// By slug.
    pub templates: HashMap<String, Arc<Template>>,
    /// Slugs of those that no file declares any more: whoever has one keeps it, nobody else gets it.
    pub retired: HashSet<String>,
    /// Templates that devices are given by their `[match]`.
    pub offers: Vec<Offer>,
    pub devices: Vec<Device>,
    /// Those that have a time zone.
    pub sites: Vec<Site>,
    /// Those in force.
    pub rules: Vec<Arc<Rule>>,
    /// What may still come, or was not long ago.
    pub maintenance: Vec<Arc<Maintenance>>,
    /// Rules, and maintenance, that should be in force, and why they can't be.
    pub amiss: Vec<RowAmiss>,
}

/// A place where devices are.
#[derive(Clone, Debug, PartialEq)]
pub struct Site {
    pub tenant: Arc<str>,
    pub name: Arc<str>,
    /// Whose local times the schedules of its devices are.
    pub zone: TimeZone,
}

/// A row of the database that can't be read: it is left out, and the others hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowAmiss {
    pub table: AmissTable,
    /// A rule's slug, or a maintenance's name.
    pub name: String,
    /// Every fault, on one line.
    pub why: String,
}

/// Where rows may be that can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AmissTable {
    AlertRules,
    Maintenance,
}

impl AmissTable {
    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            AmissTable::AlertRules => "alert_rules",
            AmissTable::Maintenance => "maintenance",
        }
    }
}

/// What the shipped and the operator's files declare; reconciled into the database, which is the truth at run time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Declared {
    pub templates: Vec<DeclaredTemplate>,
    pub devices: Vec<DeclaredDevice>,
    pub sites: Vec<DeclaredSite>,
    pub rules: Vec<DeclaredRule>,
    pub maintenance: Vec<DeclaredMaintenance>,
}

/// A site, of which a file says something beside its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredSite {
    pub tenant: String,
    pub name: String,
    /// IANA name.
    pub timezone: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct DeclaredTemplate {
    pub template: Template,
    /// Shipped in the binary, and locked.
    pub shipped: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct DeclaredDevice {
    pub tenant: String,
    pub uid: String,
    pub name: Option<String>,
    /// Slug.
    pub template: Option<String>,
    /// Uid of its gateway, in the same tenant; the parents form no cycle.
    pub parent: Option<String>,
    pub site: Option<String>,
    pub tags: BTreeMap<String, String>,
    pub modules: Vec<DeclaredModule>,
}

/// An alert rule of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct DeclaredRule {
    pub rule: Rule,
    /// The file as JSON, key by key.
    pub definition: serde_json::Value,
}

#[derive(Clone, Debug, PartialEq)]
pub struct DeclaredModule {
    pub uid: String,
    /// Name of the template's slot it sits in.
    pub slot: Option<String>,
    /// Where on the slot's bus it is.
    pub address: Option<String>,
    /// Slug.
    pub template: Option<String>,
}
