//! Settings, templates and messages for tests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::catalog::matching::{Criteria, GivenBy, Offer};
use crate::catalog::{Device, Key, KeyMap, Kind, Metric, Module, Sensor, Snapshot, Template};
use crate::config::{Config, Decoder, Devices, Limits, Retained, Source, Time};
use crate::message::{Message, Publish};
use crate::time::UtcMicros;

pub(crate) const RECEIVED: UtcMicros = UtcMicros(1_700_000_000_000_000);

pub(crate) fn source(name: &str, filter: &str, decoder: Decoder) -> Source {
    Source {
        decoder,
        retained: Retained::Latest,
        max_payload: 1 << 21,
        ..Source::with(name.to_owned(), filter.to_owned())
    }
}

/// The default, but for narrower bounds.
pub(crate) fn settings(sources: Vec<Source>) -> Config {
    Config {
        sources,
        devices: Devices { max_devices: 1000, max_sensors: 100, ..Devices::default() },
        time: Time { max_future: Duration::from_secs(600), max_age: Duration::from_secs(30 * 86_400) },
        limits: Limits { max_depth: 32, max_keys: 1000, max_key_length: 255, max_text_length: 4096 },
        ..Config::default()
    }
}

pub(crate) fn metric(name: &str, kind: Kind) -> Metric {
    Metric {
        name: name.to_owned(),
        unit: String::new(),
        kind,
        keys: vec![Key::from(name)],
        scale: 1.0,
        offset: 0.0,
        range: None,
        required: false,
        values: BTreeMap::new(),
        words: BTreeMap::new(),
        min_step: None,
        twin: None,
    }
}

pub(crate) fn template(slug: &str, metrics: Vec<Metric>) -> Template {
    let metrics: Vec<_> = metrics.into_iter().map(Arc::new).collect();
    Template {
        slug: slug.to_owned(),
        name: slug.to_owned(),
        category: "sensor".to_owned(),
        version: 1,
        tenant: None,
        extends: None,
        manufacturer: None,
        models: Vec::new(),
        reference: None,
        expected_interval: None,
        matching: Vec::new(),
        keys: KeyMap::of(&metrics),
        metrics,
        derived: Vec::new(),
        commands: Vec::new(),
        dialect: Default::default(),
        slots: Vec::new(),
    }
}

pub(crate) fn snapshot(templates: Vec<Template>, devices: Vec<Device>) -> Snapshot {
    let templates = templates.into_iter().map(|template| (template.slug.clone(), Arc::new(template))).collect();
    Snapshot { templates, devices, ..Snapshot::default() }
}

pub(crate) fn device(id: i32, uid: &str, template: Option<&str>) -> Device {
    Device {
        id,
        tenant: "default".into(),
        uid: uid.into(),
        template: template.map(str::to_owned),
        template_by: template.map(|_| GivenBy::Source),
        source: None,
        protocol: None,
        told: Vec::new(),
        parent: None,
        parent_declared: false,
        site: None,
        tags: BTreeMap::new(),
        last_seen: None,
        modules: Vec::new(),
        sensors: Vec::new(),
    }
}

pub(crate) fn module(uid: &str, template: &str) -> Module {
    Module { uid: uid.to_owned(), template: Some(template.to_owned()) }
}

pub(crate) fn sensor(id: i32, metric: &str, last: Option<(i64, f64)>) -> Sensor {
    let last = last.map(|(at, value)| (UtcMicros(at), value));
    Sensor { id, metric: metric.into(), unit: "".into(), kind: Kind::Number, modeled: false, raw_key: None, last }
}

/// Received `seq` seconds after [`RECEIVED`].
pub(crate) fn message(seq: u64, topic: &str, payload: impl Into<Vec<u8>>) -> Arc<Message> {
    let publish = Publish {
        topic: topic.to_owned(),
        payload: Bytes::from(payload.into()),
        qos: 1,
        retain: false,
        dup: false,
        packet_id: 1,
        client: None,
        properties: None,
    };
    let received_at = UtcMicros(RECEIVED.0 + i64::try_from(seq).unwrap() * 1_000_000);
    Arc::new(Message { seq, received_at, publish })
}

/// A template that is given by itself.
pub(crate) fn offer(slug: &str, change: impl FnOnce(&mut Criteria)) -> Offer {
    let mut criteria = Criteria::default();
    change(&mut criteria);
    Offer { slug: slug.to_owned(), tenant: None, shipped: false, criteria }
}
