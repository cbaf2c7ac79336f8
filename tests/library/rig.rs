//! The whole library, and what becomes of a message in it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidegate::catalog::example::{Example, ExampleValue};
use tidegate::catalog::files::{self, ReadTemplate};
use tidegate::catalog::matching::{Criteria, Offer};
use tidegate::catalog::{Snapshot, Template};
use tidegate::config::{Config, Decoder, Retained, Source, Time};
use tidegate::decode::memory::Memory;
use tidegate::message::{Message, Publish};
use tidegate::metrics::Metrics;
use tidegate::normalize::Normalizer;
use tidegate::store::batch::{Batch, SensorOrigin};
use tidegate::time::UtcMicros;

/// When every message came. Payloads from public documents are years old, which no limit holds against them here.
const RECEIVED: UtcMicros = UtcMicros(1_800_000_000_000_000);
const FOREVER: Duration = Duration::from_secs(200 * 365 * 86_400);

/// The shipped templates, and nothing else.
pub struct Library {
    pub templates: Vec<ReadTemplate>,
    flat: HashMap<String, Arc<Template>>,
}

impl Library {
    pub fn shipped() -> Library {
        let templates = files::read(None, &[]).unwrap().templates;
        let flat = templates.iter().map(|read| (read.template.slug.clone(), Arc::new(read.template.clone())));
        Library { flat: flat.collect(), templates }
    }

    pub fn template(&self, slug: &str) -> Option<&ReadTemplate> {
        self.templates.iter().find(|read| read.template.slug == slug)
    }

    pub fn each_example(&self) -> impl Iterator<Item = (&ReadTemplate, &Example)> {
        self.templates.iter().flat_map(|read| read.examples.iter().map(move |example| (read, example)))
    }

    /// A pipeline that knows all templates but some, and no device.
    pub fn rig(&self, but: &[&str]) -> Rig {
        let templates = self.flat.iter().filter(|(slug, _)| !but.contains(&slug.as_str()));
        let offers = templates.clone().flat_map(|(_, template)| Offer::of(template, true)).collect();
        let templates = templates.map(|(slug, template)| (slug.clone(), Arc::clone(template))).collect();
        Rig { snapshot: Snapshot { templates, offers, ..Snapshot::default() }, normalizer: None, seq: 0 }
    }
}

/// A pipeline that reads one message after another, each by a source made for it.
pub struct Rig {
    snapshot: Snapshot,
    normalizer: Option<Normalizer>,
    seq: u64,
}

/// What became of a message.
#[derive(Debug, Default)]
pub struct Heard {
    /// Of the device that the readings are of.
    pub template: Option<String>,
    /// By sensor; those without a metric are left out.
    pub readings: BTreeMap<String, ExampleValue>,
    /// Raw keys without a metric.
    pub unmodeled: Vec<String>,
    pub refused: Vec<String>,
}

impl Rig {
    pub fn hear(&mut self, example: &Example, template: Option<&str>) -> Heard {
        self.message(source(&example.filter, example.decoder, template), &example.topic, &example.payload)
    }

    pub fn message(&mut self, source: Source, topic: &str, payload: &[u8]) -> Heard {
        let time = Time { max_future: FOREVER, max_age: FOREVER };
        let settings = Config { sources: vec![source], time, ..Config::default() };
        let normalizer = match &mut self.normalizer {
            Some(normalizer) => {
                normalizer.replace(&settings, &self.snapshot, 0).unwrap();
                normalizer
            }
            none => {
                none.insert(Normalizer::new(&settings, &self.snapshot, Memory::default(), Metrics::default()).unwrap())
            }
        };
        self.seq += 1;
        let publish = Publish {
            topic: topic.to_owned(),
            payload: Bytes::copy_from_slice(payload),
            qos: 1,
            retain: false,
            dup: false,
            packet_id: 1,
            client: None,
            properties: None,
        };
        let received_at = UtcMicros(RECEIVED.0 + i64::try_from(self.seq).unwrap() * 1_000_000);
        let mut batch = Batch::default();
        normalizer.process(&Arc::new(Message { seq: self.seq, received_at, publish }), &mut batch);
        told(&batch)
    }
}

fn told(batch: &Batch) -> Heard {
    let sensors: HashMap<u32, _> = batch.sensors.iter().map(|sensor| (sensor.index, sensor)).collect();
    let numbers = batch.readings.iter().map(|reading| (reading.sensor, ExampleValue::Number(reading.value)));
    let texts = batch.texts.iter().map(|text| (text.sensor, ExampleValue::Text(text.value.clone())));
    let mut heard = Heard::default();
    for (sensor, value) in numbers.chain(texts) {
        let sensor = sensors[&sensor];
        if heard.template.is_none() {
            let device = batch.devices.iter().find(|device| device.index == sensor.device).unwrap();
            heard.template.clone_from(&device.template);
        }
        if sensor.origin == SensorOrigin::Unmodeled {
            heard.unmodeled.push(sensor.metric.to_string());
        } else {
            heard.readings.insert(sensor.metric.to_string(), value);
        }
    }
    let refusals = batch.quarantined.iter().flat_map(|quarantined| &quarantined.refusals);
    heard.refused = refusals.map(|refusal| format!("{refusal:?}")).collect();
    heard
}

pub fn source(filter: &str, decoder: Decoder, template: Option<&str>) -> Source {
    Source {
        decoder,
        template: template.map(str::to_owned),
        retained: Retained::Store,
        max_payload: usize::MAX,
        ..Source::with("library".to_owned(), filter.to_owned())
    }
}

/// Rank, criteria and keys; what is less is stronger.
pub type Strength = (u8, Reverse<usize>, Reverse<usize>);

/// How strongly it matches at best, but for the slug that decides where nothing else does; none: it never does.
pub fn strength(template: &Template) -> Option<Strength> {
    template.matching.iter().filter_map(strength_of).min()
}

fn strength_of(criteria: &Criteria) -> Option<Strength> {
    let Criteria { decoder, source, topic, device, model, manufacturer, fields, keys } = criteria;
    let given = [
        !(model.is_empty() && manufacturer.is_empty() && fields.is_empty()),
        !device.is_empty(),
        !(topic.is_empty() && source.is_empty()),
        !keys.is_empty(),
        !decoder.is_empty(),
    ];
    let rank = given.iter().zip(3..).find_map(|(given, rank)| given.then_some(rank))?;
    let single = [!decoder.is_empty(), !source.is_empty(), !topic.is_empty(), !device.is_empty(), !model.is_empty()];
    let more = [!manufacturer.is_empty(), !keys.is_empty()];
    let count = single.into_iter().chain(more).filter(|given| *given).count() + fields.len();
    Some((rank, Reverse(count), Reverse(keys.len())))
}
