//! What the messages of a broker would become, and the configuration that would take them. Pure: nothing is stored, and what is
//! remembered is bounded.
//!
//! Messages go through the decoder `auto` and through normalize, as those of a source with the filter `#` would.

mod render;
mod sources;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::{DEFAULT_TENANT, Kind, Snapshot};
use crate::config::{
    Config, Csv, Decoder, Devices, Limits, Retained, Source, SparkplugSource, Time, UnknownDevice, Unmodeled,
};
use crate::decode::memory::Memory;
use crate::decode::{Context, decode};
use crate::message::{Message, Publish};
use crate::metrics::Metrics;
use crate::normalize::{Fate, NormalizeError, Normalizer};
use crate::source::Captures;
use crate::store::batch::{Batch, DeviceIndex, SensorIndex, SensorOrigin};
use crate::time::UtcMicros;
use sources::Proposals;

pub use sources::Proposal;

/// Most devices, and most series of all devices, that are remembered.
const MAX_DEVICES: usize = 10_000;
const MAX_SERIES: usize = 100_000;
/// Longest value kept for show, in characters.
const MAX_SHOWN: usize = 60;
/// However old a retained value is, it shows what a device has.
const ANY_AGE: Duration = Duration::from_secs(100 * 31_557_600);

/// A survey under way.
pub struct Survey {
    normalizer: Normalizer,
    /// What `auto` remembers for the look that tells which decoder reads a message.
    memory: Memory,
    limits: Limits,
    devices: BTreeMap<Arc<str>, Found>,
    uids: HashMap<DeviceIndex, Arc<str>>,
    series: HashMap<SensorIndex, (Arc<str>, Arc<str>)>,
    proposals: Proposals,
    counts: Counts,
}

/// How much was heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub messages: u64,
    /// Commands, announcements, statistics: no telemetry.
    pub ignored: u64,
    /// Messages that gave nothing but a reason why not.
    pub refused: u64,
}

/// One device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// What its messages were taken for, and why.
    pub read_as: Option<(Decoder, String)>,
    pub template: Option<String>,
    /// By name.
    pub metrics: BTreeMap<Arc<str>, FoundMetric>,
}

/// One series of a device.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundMetric {
    /// The raw key that it came by last.
    pub key: String,
    pub unit: String,
    pub kind: Kind,
    /// Whether a template has it.
    pub modeled: bool,
    /// The last value, cut for show.
    pub value: String,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Findings {
    pub counts: Counts,
    /// By uid.
    pub devices: BTreeMap<Arc<str>, Found>,
    /// In an order in which the first that matches is the right one.
    pub sources: Vec<Proposal>,
}

impl Survey {
    /// With the templates and the declared devices of `snapshot`, under the limits of `config`.
    ///
    /// # Errors
    /// When they can't work together.
    pub fn new(config: &Config, snapshot: &Snapshot) -> Result<Survey, NormalizeError> {
        let everything = Source {
            decoder: Decoder::Auto,
            // What was retained tells of devices that are silent just now.
            retained: Retained::Store,
            max_payload: usize::MAX,
            ..Source::with("discover".to_owned(), "#".to_owned())
        };
        let mut config = Config { sources: vec![everything], ..config.clone() };
        config.devices = Devices { unknown: UnknownDevice::Provision, max_devices: usize::MAX, ..config.devices };
        config.time = Time { max_future: ANY_AGE, max_age: ANY_AGE };
        config.metrics.unmodeled = Unmodeled::Store;
        Ok(Survey {
            normalizer: Normalizer::new(&config, snapshot, Memory::default(), Metrics::new())?,
            memory: Memory::default(),
            limits: config.limits,
            devices: BTreeMap::new(),
            uids: HashMap::new(),
            series: HashMap::new(),
            proposals: Proposals::default(),
            counts: Counts::default(),
        })
    }

    /// Looks at one message.
    pub fn take(&mut self, publish: Publish, received_at: UtcMicros) {
        self.counts.messages = self.counts.messages.saturating_add(1);
        let context = Context {
            topic: &publish.topic,
            captures: &Captures::default(),
            received_at,
            timestamp: None,
            timezone: None,
            limits: &self.limits,
            csv: Csv::default(),
            sparkplug: SparkplugSource::default(),
        };
        let mut recall = self.memory.of_source(&"discover".into());
        // A refusal is the normalizer's to tell.
        let reports = decode(Decoder::Auto, &publish.payload, &context, &mut recall);
        if reports.as_ref().is_ok_and(Vec::is_empty) {
            self.counts.ignored = self.counts.ignored.saturating_add(1);
        }
        // Nobody commits them, and nobody is asked.
        self.memory.take_changes();
        self.memory.take_asks();
        let read: Vec<_> = reports
            .unwrap_or_default()
            .into_iter()
            .filter(|report| report.points.iter().any(|point| !point.samples.is_empty()))
            .filter_map(|report| Some((Arc::<str>::from(report.device?), report.read_as?)))
            .collect();
        let topic = publish.topic.clone();
        self.normalize(publish, received_at);
        for (uid, read_as) in read {
            let Some(found) = self.devices.get_mut(&uid) else { continue };
            self.proposals.add(read_as.0, &topic, &uid);
            found.read_as.get_or_insert(read_as);
        }
    }

    fn normalize(&mut self, publish: Publish, received_at: UtcMicros) {
        let message = Message { seq: self.counts.messages, received_at, publish };
        let (mut batch, mut values) = (Batch::default(), Vec::new());
        self.normalizer.process_observed(&Arc::new(message), &mut batch, |key, fate| match fate {
            Fate::Number(reading, Kind::Bool) => {
                values.push((reading.sensor, key.to_owned(), (reading.value != 0.0).to_string()))
            }
            Fate::Number(reading, _) => values.push((reading.sensor, key.to_owned(), reading.value.to_string())),
            Fate::Text(text) => values.push((text.sensor, key.to_owned(), format!("{:?}", text.value))),
            Fate::Refused(_) | Fate::Dropped | Fate::Shadowed | Fate::Unit | Fate::Stale => {}
        });
        if values.is_empty() && !batch.quarantined.is_empty() {
            self.counts.refused = self.counts.refused.saturating_add(1);
        }
        for intro in batch.devices {
            self.uids.insert(intro.index, Arc::clone(&intro.uid));
            self.devices.entry(intro.uid).or_default();
        }
        for intro in batch.sensors {
            let Some(uid) = self.uids.get(&intro.device) else { continue };
            let metric = FoundMetric {
                key: String::new(),
                unit: intro.unit,
                kind: intro.kind,
                modeled: intro.origin != SensorOrigin::Unmodeled,
                value: String::new(),
            };
            self.series.insert(intro.index, (Arc::clone(uid), Arc::clone(&intro.metric)));
            if let Some(found) = self.devices.get_mut(uid) {
                found.metrics.insert(intro.metric, metric);
            }
        }
        for (sensor, key, value) in values {
            let place = self.series.get(&sensor);
            let found = place.and_then(|(uid, metric)| self.devices.get_mut(uid)?.metrics.get_mut(metric));
            if let Some(found) = found {
                found.key = key;
                found.value = value.chars().take(MAX_SHOWN).collect();
            }
        }
    }

    /// Whether as much is remembered as may be: what was found until then is told.
    pub fn is_full(&self) -> bool {
        self.devices.len() >= MAX_DEVICES || self.series.len() >= MAX_SERIES
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Devices and series so far.
    pub fn found(&self) -> (usize, usize) {
        (self.devices.len(), self.series.len())
    }

    /// Ends it. Metrics that a template requires but nothing sent are left out.
    pub fn finish(self) -> Findings {
        let mut devices = self.devices;
        for (uid, found) in &mut devices {
            found.template = self.normalizer.template_of(DEFAULT_TENANT, uid).map(str::to_owned);
            found.metrics.retain(|_, metric| !metric.key.is_empty());
        }
        devices.retain(|_, found| !found.metrics.is_empty());
        Findings { counts: self.counts, devices, sources: self.proposals.finish() }
    }
}

impl Findings {
    /// Series, and those of them that a template has.
    pub fn keys(&self) -> (usize, usize) {
        let all = || self.devices.values().flat_map(|found| found.metrics.values());
        (all().count(), all().filter(|metric| metric.modeled).count())
    }
}
