//! Samples → readings, or refusals with a reason. Pure: no I/O, no clock; the same messages give the same rows, however
//! they are split into batches.
//!
//! - A device that nobody knows is provisioned only by a payload that could be read.
//! - Where several keys of one metric come at one instant, the key that stands first in the metric's `keys` counts, and the
//!   others are left out, neither stored nor refused.
//! - An unmodeled key with the name of one of the device's metrics is refused: stored raw, it would mix with that metric's
//!   scaled readings.
//! - A unit that the payload declares is converted to the metric's, or to that of an unmodeled sensor, unless the template gives
//!   the key a scale of its own.
//! - Where a template says that another key tells the unit, the one of the same instant counts, and it is not stored unless it is
//!   a metric's too.
//! - Derived metrics follow the samples of their instant; one without a finite value gives no reading.
//! - `min_step` looks at readings later than the sensor's last one; an earlier one is stored as it is.

mod work;
mod identity;
mod keys;
mod points;
mod coerce;
mod units;
mod derived;
mod reported;
#[cfg(test)]
mod identity_tests;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use crate::catalog::registry::Registry;
use crate::catalog::{DEFAULT_TENANT, Kind, Snapshot};
use crate::command::Hearing;
use crate::config::{Config, Limits, UnknownDevice, Unmodeled};
use crate::decode::Ask;
use crate::decode::memory::Memory;
use crate::message::{Message, Seq};
use crate::metrics::{BySource, Metrics};
use crate::presence::Sighting;
use crate::quarantine::Refusal;
use crate::source::{SourceError, Sources};
use crate::store::batch::{Batch, Reading, TextReading};
use crate::twin;

/// Longest name of a device, tenant, module, gateway or metric, in bytes.
pub const MAX_NAME: usize = 255;

/// Why a configuration and a catalog can't work together.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NormalizeError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("source {source_name}: there is no template {template:?}; declare it in the catalog or name another")]
    UnknownTemplate { source_name: String, template: String },
    #[error(
        "source {source_name}: the template {template:?} is retired, since no file of the catalog has it any more: the devices that \
         have it keep it, and no other gets it; bring its file back or name another"
    )]
    RetiredTemplate { source_name: String, template: String },
}

/// What became of a sample, told to [`Normalizer::process_observed`].
#[derive(Clone, Copy, Debug)]
pub enum Fate<'a> {
    Number(&'a Reading, Kind),
    Text(&'a TextReading),
    Refused(&'a Refusal),
    /// Unmodeled, and `metrics.unmodeled = "drop"`.
    Dropped,
    /// Another key of the same metric was preferred.
    Shadowed,
    /// No metric's: it tells the unit of other keys.
    Unit,
    /// Retained, and not newer than what is stored.
    Stale,
}

/// What the configuration says about messages.
#[derive(Clone, Debug)]
struct Policy {
    unknown: UnknownDevice,
    max_devices: usize,
    max_sensors: usize,
    unmodeled: Unmodeled,
    max_future: Duration,
    max_age: Duration,
    limits: Limits,
}

/// Turns messages into what the writer commits. Remembers devices, sensors and their last values.
pub struct Normalizer {
    sources: Sources,
    /// By position of the source.
    counts: Vec<prometheus_client::metrics::counter::Counter>,
    policy: Policy,
    registry: Registry,
    memory: Memory,
    hearing: Hearing,
    twins: twin::Hearing,
    metrics: Metrics,
    generation: u32,
    scratch: Vec<Option<keys::Resolved>>,
    sightings: Vec<Sighting>,
}

impl Normalizer {
    /// Ready for the first message after the snapshot; `memory` is what decoders remembered then.
    ///
    /// # Errors
    /// [`NormalizeError`] when a source can't be used.
    pub fn new(
        settings: &Config,
        snapshot: &Snapshot,
        memory: Memory,
        metrics: Metrics,
    ) -> Result<Normalizer, NormalizeError> {
        let sources = sources(settings, snapshot)?;
        let counts = counts(&sources, &metrics);
        let (policy, registry) = (policy(settings), Registry::of(snapshot));
        let hearing = Hearing::new(settings, snapshot, metrics.clone());
        let twins = twin::Hearing::new(settings, metrics.clone());
        Ok(Normalizer {
            sources,
            counts,
            policy,
            registry,
            memory,
            hearing,
            twins,
            metrics,
            generation: 0,
            scratch: Vec::new(),
            sightings: Vec::new(),
        })
    }

    /// Whether a configuration and a catalog can work together: [`Normalizer::replace`] would take them.
    ///
    /// # Errors
    /// [`NormalizeError`] when a source can't be used.
    pub fn check(settings: &Config, snapshot: &Snapshot) -> Result<(), NormalizeError> {
        sources(settings, snapshot).map(drop)
    }

    /// Takes another configuration and catalog, and starts a new generation: a batch begun before must not be added to.
    /// Last values are kept where they are newer than the snapshot's, and what was learned of devices by messages after
    /// `committed`, up to which the snapshot surely has everything.
    ///
    /// # Errors
    /// [`NormalizeError`] when a source can't be used; everything stays as it was.
    pub fn replace(&mut self, settings: &Config, snapshot: &Snapshot, committed: Seq) -> Result<(), NormalizeError> {
        let sources = sources(settings, snapshot)?;
        let mut registry = Registry::of(snapshot);
        registry.inherit(&self.registry, committed);
        self.counts = counts(&sources, &self.metrics);
        self.sources = sources;
        self.policy = policy(settings);
        self.registry = registry;
        self.hearing = Hearing::new(settings, snapshot, self.metrics.clone());
        self.twins = twin::Hearing::new(settings, self.metrics.clone());
        self.generation = self.generation.wrapping_add(1);
        Ok(())
    }

    /// The generation that batches are made in now.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// The sources in use.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Whether the device is known: declared, in the database, or provisioned since.
    pub fn knows(&self, tenant: &str, uid: &str) -> bool {
        self.registry.device(tenant, uid).is_some()
    }

    /// Slug of the template of a device, if it is known and has one.
    pub fn template_of(&self, tenant: &str, uid: &str) -> Option<&str> {
        let device = self.registry.device(tenant, uid)?;
        self.registry.template(device).map(|template| template.slug.as_str())
    }

    /// Adds what becomes of a message to `out`, which is empty or of this generation. Messages come in the journal's order.
    pub fn process(&mut self, message: &Arc<Message>, out: &mut Batch) {
        self.process_observed(message, out, |_, _| {});
    }

    /// What decoders want told to devices, for the message before.
    pub fn take_asks(&mut self) -> Vec<Ask> {
        self.memory.take_asks()
    }

    /// What the message before told of devices' connections.
    pub fn sightings(&self) -> &[Sighting] {
        &self.sightings
    }

    /// As [`Normalizer::process`], and tells what became of each sample, by its raw key.
    pub fn process_observed(&mut self, message: &Arc<Message>, out: &mut Batch, observe: impl FnMut(&str, Fate<'_>)) {
        debug_assert!(out.messages == 0 || out.generation == self.generation, "a batch is of one generation");
        // Of a replay, or a dry run, nobody takes them.
        self.memory.take_asks();
        self.sightings.clear();
        out.generation = self.generation;
        out.position = message.seq;
        out.messages = out.messages.saturating_add(1);
        out.oldest.get_or_insert(message.received_at);
        if self.hear(message, out) {
            return;
        }
        work::Work {
            message,
            policy: &self.policy,
            registry: &mut self.registry,
            memory: &mut self.memory,
            hearing: &self.hearing,
            twins: self.twins.limits(),
            metrics: &self.metrics,
            scratch: &mut self.scratch,
            sightings: &mut self.sightings,
            out,
            observe,
            units: Vec::new(),
            stored: Vec::new(),
            deriving: false,
            reports: false,
            measured: Vec::new(),
            tells_units: false,
            source: None,
            place: 0,
            why: None,
            captures: crate::source::Captures::default(),
            tenant: DEFAULT_TENANT,
            device: None,
            refusals: Vec::new(),
            more: 0,
        }
        .run(&self.sources, &self.counts);
        if self.memory.has_changed() {
            out.memory.append(&mut self.memory.take_changes());
        }
    }
}

impl Normalizer {
    /// Adds what a message says of commands and twins. True: it is nothing but that.
    fn hear(&mut self, message: &Message, out: &mut Batch) -> bool {
        if let Some(heard) = self.twins.hear(message) {
            let is_telemetry = heard.telemetry && self.sources.route(&message.publish.topic).is_some();
            if let Some(ask) = heard.ask {
                let weight = message.publish.payload.len().saturating_add(twin::Ask::WEIGHT);
                out.bytes = out.bytes.saturating_add(weight);
                out.twins.push(ask);
            }
            return !is_telemetry;
        }
        let registry = &self.registry;
        let template = |tenant: &str, uid: &str| {
            let device = registry.device(tenant, uid)?;
            registry.template(device).map(|template| template.slug.as_str())
        };
        let mut heard = self.hearing.hear(message, template);
        if !heard.asks.is_empty() || !heard.replies.is_empty() {
            out.bytes = out.bytes.saturating_add(message.publish.payload.len());
            out.asks.append(&mut heard.asks);
            out.replies.append(&mut heard.replies);
        }
        heard.only
    }
}

fn sources(settings: &Config, snapshot: &Snapshot) -> Result<Sources, NormalizeError> {
    for source in &settings.sources {
        let Some(template) = source.template.clone() else { continue };
        let source_name = source.name.clone();
        if snapshot.retired.contains(&template) {
            return Err(NormalizeError::RetiredTemplate { source_name, template });
        }
        if !snapshot.templates.contains_key(&template) {
            return Err(NormalizeError::UnknownTemplate { source_name, template });
        }
    }
    Ok(Sources::compile(&settings.sources)?)
}

fn counts(sources: &Sources, metrics: &Metrics) -> Vec<prometheus_client::metrics::counter::Counter> {
    let label = |source: &crate::source::Source| BySource { source: source.name.to_string() };
    sources.iter().map(|source| metrics.source_messages.get_or_create_owned(&label(source))).collect()
}

fn policy(settings: &Config) -> Policy {
    Policy {
        unknown: settings.devices.unknown,
        max_devices: settings.devices.max_devices,
        max_sensors: settings.devices.max_sensors,
        unmodeled: settings.metrics.unmodeled,
        max_future: settings.time.max_future,
        max_age: settings.time.max_age,
        limits: settings.limits.clone(),
    }
}
