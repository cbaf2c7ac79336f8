//! Who devices are, from message to batch.

use proptest::prelude::*;

use super::testing::*;
use super::*;
use crate::catalog::matching::{GivenBy, Offer};
use crate::catalog::{Metric, Template};
use crate::config::{Decoder, Retained, Source};
use crate::decode::Told;
use crate::store::batch::{Change, DeviceChange, DeviceIntro};

/// A family template and a better one, in which `temperature` is of another unit.
fn templates() -> Vec<Template> {
    let temperature = |unit: &str, scale| Metric { unit: unit.into(), scale, ..metric("temperature", Kind::Number) };
    let required = Metric { required: true, ..metric("battery", Kind::Number) };
    vec![
        template("family", vec![temperature("°C", 1.0), metric("humidity", Kind::Number)]),
        template("exact", vec![temperature("°F", 1.0), metric("humidity", Kind::Number), required]),
        template("by-hand", vec![]),
        Template { tenant: Some("acme".into()), ..template("acmes", vec![]) },
    ]
}

fn offers() -> Vec<Offer> {
    vec![
        offer("family", |c| c.decoder = vec!["json".into(), "zigbee2mqtt".into()]),
        offer("exact", |c| c.keys = vec!["temperature".into(), "pressure".into()]),
        offer("exact", |c| c.model = vec!["wsd*".into()]),
    ]
}

fn known(devices: Vec<crate::catalog::Device>) -> Snapshot {
    Snapshot { offers: offers(), ..snapshot(templates(), devices) }
}

fn sources() -> Vec<Source> {
    let z2m = Source { retained: Retained::Ignore, ..source("z2m", "zigbee2mqtt/{device...}", Decoder::Zigbee2Mqtt) };
    let hand = Source { template: Some("by-hand".into()), ..source("hand", "h/{device}", Decoder::Json) };
    vec![
        source("native", "n/{device}", Decoder::Json),
        source("behind", "g/{gateway}/{device}", Decoder::Json),
        z2m,
        hand,
        Source { template: Some("acmes".into()), ..source("tenants", "t/{tenant}/{device}", Decoder::Json) },
    ]
}

struct Bench {
    normalizer: Normalizer,
    settings: Config,
    seq: u64,
}

impl Bench {
    fn new(snapshot: &Snapshot) -> Bench {
        let settings = settings(sources());
        let normalizer = Normalizer::new(&settings, snapshot, Memory::default(), Metrics::new()).unwrap();
        Bench { normalizer, settings, seq: 0 }
    }

    fn send(&mut self, topic: &str, payload: &str) -> Batch {
        self.seq += 1;
        let mut batch = Batch::default();
        self.normalizer.process(&message(self.seq, topic, payload), &mut batch);
        assert!(batch.quarantined.is_empty(), "{:?}", batch.quarantined);
        batch
    }

    fn template(&self, uid: &str) -> Option<&str> {
        self.normalizer.template_of("default", uid)
    }
}

fn given(batch: &Batch) -> Vec<(&str, GivenBy)> {
    let one = |change: &'_ DeviceChange| match &change.change {
        Change::Template { slug, by } => Some((slug.to_string(), *by)),
        _ => None,
    };
    // Slugs are those of the templates above.
    let known = ["family", "exact", "by-hand"];
    let found = batch.changes.iter().filter_map(one);
    found.map(|(slug, by)| (*known.iter().find(|known| **known == slug).unwrap(), by)).collect()
}

fn intro(batch: &Batch) -> &DeviceIntro {
    &batch.devices[0]
}

#[test]
fn a_new_device_is_given_what_matches_and_a_source_with_a_template_comes_first() {
    let mut bench = Bench::new(&known(Vec::new()));
    let first = bench.send("n/d1", r#"{"temperature":20}"#);
    assert_eq!(
        (intro(&first).template.as_deref(), intro(&first).template_by),
        (Some("family"), Some(GivenBy::Decoder))
    );
    assert_eq!(intro(&first).protocol.as_deref(), Some("json"));
    assert_eq!(first.changes, []);
    let exact = bench.send("n/d2", r#"{"temperature":20,"pressure":1000}"#);
    assert_eq!((intro(&exact).template.as_deref(), intro(&exact).template_by), (Some("exact"), Some(GivenBy::Keys)));
    let hand = bench.send("h/d3", r#"{"temperature":20,"pressure":1000}"#);
    assert_eq!((intro(&hand).template.as_deref(), intro(&hand).template_by), (Some("by-hand"), Some(GivenBy::Source)));
}

#[test]
fn a_stronger_match_replaces_a_weaker_one_once_and_series_that_cant_go_on_begin_anew() {
    let mut bench = Bench::new(&known(Vec::new()));
    let first = bench.send("n/d1", r#"{"temperature":20,"humidity":40}"#);
    let same = bench.send("n/d1", r#"{"temperature":21,"humidity":41}"#);
    assert_eq!((same.changes.len(), same.sensors.len()), (0, 0));
    let better = bench.send("n/d1", r#"{"temperature":68,"humidity":41,"pressure":1000}"#);
    assert_eq!(given(&better), [("exact", GivenBy::Keys)]);
    assert_eq!(better.changes[0].sensors_before, 0);
    assert_eq!(bench.template("d1"), Some("exact"));
    let names: Vec<(&str, &str)> = better.sensors.iter().map(|one| (&*one.metric, one.unit.as_str())).collect();
    assert_eq!(names, [("battery", ""), ("temperature", "°F"), ("pressure", "")]);
    let series = |batch: &Batch| batch.readings.iter().map(|reading| reading.sensor).collect::<Vec<_>>();
    assert_ne!(series(&first)[0], series(&better)[0], "another unit is another series");
    assert_eq!(series(&first)[1], series(&better)[1], "the same unit is the same series");
    // What was replaced never comes back, and what was given is not given again.
    assert_eq!(bench.send("n/d1", r#"{"temperature":20,"humidity":40}"#).changes, []);
    assert_eq!(bench.send("n/d1", r#"{"temperature":68,"pressure":1000}"#).changes, []);
    assert_eq!(bench.template("d1"), Some("exact"));
}

#[test]
fn keys_of_the_same_letters_are_other_keys() {
    let mut bench = Bench::new(&known(Vec::new()));
    bench.send("n/d1", r#"{"temper":1,"aturepressure":2}"#);
    bench.send("n/d1", r#"{"temper":1,"aturepressure":2}"#);
    let better = bench.send("n/d1", r#"{"temperature":68,"pressure":1000}"#);
    assert_eq!(given(&better), [("exact", GivenBy::Keys)]);
}

#[test]
fn what_was_assigned_or_declared_stays_and_a_source_with_a_template_wins_over_a_match() {
    let with = |id, uid, template, by| crate::catalog::Device { template_by: by, ..device(id, uid, template) };
    let devices = vec![
        with(1, "assigned", Some("family"), Some(GivenBy::Assigned)),
        with(2, "nothing", None, Some(GivenBy::Assigned)),
        with(3, "declared", Some("family"), Some(GivenBy::Declared)),
        with(4, "keyed", Some("exact"), Some(GivenBy::Keys)),
        with(5, "open", None, None),
    ];
    let mut bench = Bench::new(&known(devices));
    for uid in ["assigned", "nothing", "declared"] {
        let batch = bench.send(&format!("h/{uid}"), r#"{"temperature":20,"pressure":1000}"#);
        assert_eq!(given(&batch), [], "{uid}");
    }
    assert_eq!(given(&bench.send("h/keyed", r#"{"x":20}"#)), [("by-hand", GivenBy::Source)]);
    assert_eq!(given(&bench.send("n/open", r#"{"x":20}"#)), [("family", GivenBy::Decoder)]);
}

#[test]
fn a_sources_template_of_one_tenant_is_given_to_none_of_another() {
    let mut bench = Bench::new(&known(Vec::new()));
    bench.send("t/acme/d1", r#"{"x":1}"#);
    assert_eq!(bench.normalizer.template_of("acme", "d1"), Some("acmes"));
    for _ in 0..2 {
        bench.send("t/other/d1", r#"{"x":1}"#);
        assert_eq!(bench.normalizer.template_of("other", "d1"), Some("family"), "what matches");
    }
}

#[test]
fn what_a_device_tells_is_kept_once_and_gives_its_template() {
    let mut bench = Bench::new(&known(Vec::new()));
    let first = bench.send("zigbee2mqtt/attic", r#"{"temperature":20}"#);
    assert_eq!(intro(&first).template.as_deref(), Some("family"));
    assert_eq!(intro(&first).told, [(Told::Connectivity, "zigbee".into())]);
    let list = r#"[{"friendly_name":"attic","definition":{"model":"WSDCGQ11LM","vendor":"Aqara"}},
        {"friendly_name":"unheard","definition":{"model":"WSDCGQ12LM","vendor":"Aqara"}}]"#;
    let told = bench.send("zigbee2mqtt/bridge/devices", list);
    assert_eq!((told.devices.len(), told.seen.len(), told.readings.len()), (0, 0, 0));
    let news = vec![(Told::Manufacturer, "Aqara".into()), (Told::Model, "WSDCGQ11LM".into())];
    assert_eq!(told.changes, [DeviceChange { device: 0, sensors_before: 0, change: Change::Told(news) }]);
    let next = bench.send("zigbee2mqtt/attic", r#"{"temperature":20}"#);
    assert_eq!(given(&next), [("exact", GivenBy::Model)]);
    assert_eq!(bench.send("zigbee2mqtt/attic", r#"{"temperature":20}"#).changes, []);
    let new = bench.send("zigbee2mqtt/unheard", r#"{"temperature":20}"#);
    assert_eq!((intro(&new).template.as_deref(), intro(&new).template_by), (Some("exact"), Some(GivenBy::Model)));
    assert!(intro(&new).told.contains(&(Told::Model, "WSDCGQ12LM".into())));
}

#[test]
fn what_no_table_takes_is_not_told() {
    let mut bench = Bench::new(&known(Vec::new()));
    let long = "x".repeat(256);
    let payload =
        format!(r#"{{"t":1,"device":{{"model":"a\u0000b","manufacturerName":"{long}","softwareBuildID":" 1 "}}}}"#);
    let first = bench.send("zigbee2mqtt/d", &payload);
    assert_eq!(intro(&first).told, [(Told::Connectivity, "zigbee".into()), (Told::Firmware, "1".into())]);
}

#[test]
fn a_device_is_behind_the_gateway_that_the_topic_names_and_follows_it() {
    let mut bench = Bench::new(&known(Vec::new()));
    let first = bench.send("g/gw1/d1", r#"{"x":1}"#);
    let uids: Vec<&str> = first.devices.iter().map(|intro| &*intro.uid).collect();
    assert_eq!(uids, ["d1", "gw1"]);
    assert_eq!(first.devices[1].template, None);
    assert_eq!(first.changes, [DeviceChange { device: 0, sensors_before: 0, change: Change::Parent(1) }]);
    assert_eq!(bench.send("g/gw1/d1", r#"{"x":1}"#).changes, []);
    assert_eq!(bench.send("g/gw2/d1", r#"{"x":1}"#).changes[0].change, Change::Parent(2));
    // Its own messages put a gateway behind nothing, and what would be a circle is counted.
    assert_eq!(
        bench.send("g/gw2/gw2", r#"{"x":1}"#).changes,
        [
            // It was not heard before.
            DeviceChange {
                device: 2,
                sensors_before: 0,
                change: Change::Protocol { decoder: "json".into(), why: None }
            },
            DeviceChange {
                device: 2,
                sensors_before: 0,
                change: Change::Template { slug: "family".into(), by: GivenBy::Decoder }
            },
        ]
    );
    assert_eq!(bench.normalizer.metrics.parents_refused.get(), 0);
    let circle = bench.send("g/d1/gw2", r#"{"x":1}"#);
    assert_eq!((circle.changes.len(), circle.readings.len()), (0, 1));
    assert_eq!(bench.normalizer.metrics.parents_refused.get(), 1);
}

#[test]
fn a_declared_parent_stays_and_no_gateway_is_made_where_none_may_be() {
    let declared =
        crate::catalog::Device { parent: Some("gw1".into()), parent_declared: true, ..device(1, "d1", Some("family")) };
    let mut bench = Bench::new(&known(vec![declared, device(2, "gw1", None)]));
    let moved = bench.send("g/gw2/d1", r#"{"x":1}"#);
    assert!(moved.changes.iter().all(|change| !matches!(change.change, Change::Parent(_))));
    bench.settings.devices.unknown = crate::config::UnknownDevice::Quarantine;
    let known = known(vec![device(1, "d1", Some("family"))]);
    bench.normalizer.replace(&bench.settings, &known, 1).unwrap();
    assert_eq!(bench.send("g/gw3/d1", r#"{"x":1}"#).devices.len(), 1);
    assert_eq!(bench.normalizer.metrics.parents_refused.get(), 1);
}

#[test]
fn what_was_learned_and_may_not_be_in_the_snapshot_is_taken_over_and_told_again() {
    let before = known(vec![device(1, "d1", None), device(2, "gw", None)]);
    let mut bench = Bench::new(&before);
    assert_eq!(given(&bench.send("n/d1", r#"{"temperature":68,"pressure":1}"#)), [("exact", GivenBy::Keys)]);
    bench.send("g/gw/d1", r#"{"temperature":68}"#);
    // Nothing of it is committed: the new snapshot is as before.
    bench.normalizer.replace(&bench.settings, &before, 0).unwrap();
    assert_eq!(bench.template("d1"), Some("exact"));
    let again = bench.send("n/d1", r#"{"temperature":68}"#);
    assert_eq!(given(&again), [("exact", GivenBy::Keys)]);
    assert!(again.changes.iter().any(|change| matches!(change.change, Change::Parent(_))));
    // All of it is committed, and somebody gave the device another template by hand.
    let assigned = crate::catalog::Device { template_by: Some(GivenBy::Assigned), ..device(1, "d1", Some("by-hand")) };
    bench.normalizer.replace(&bench.settings, &known(vec![assigned]), bench.seq).unwrap();
    assert_eq!(bench.template("d1"), Some("by-hand"));
    assert_eq!(given(&bench.send("n/d1", r#"{"temperature":68,"pressure":1}"#)), []);
}

fn messages() -> impl Strategy<Value = Vec<(String, String)>> {
    let topic = prop::sample::select(vec!["n/d1", "n/d2", "h/d2", "g/d1/d2", "g/d2/d1", "zigbee2mqtt/d1"]);
    let key = prop::sample::select(vec!["temperature", "pressure", "humidity", "x"]);
    let body = prop::collection::vec(key, 1..4).prop_map(|mut keys| {
        keys.sort_unstable();
        keys.dedup();
        let members: Vec<String> = keys.iter().map(|key| format!("\"{key}\":1")).collect();
        format!("{{{}}}", members.join(","))
    });
    prop::collection::vec((topic.prop_map(str::to_owned), body), 0..25)
}

proptest! {
    #[test]
    fn a_start_in_between_changes_no_template(sent in messages(), stop in 0_usize..25) {
        let uids = ["d1", "d2"];
        let whole = |sent: &[(String, String)], bench: &mut Bench| {
            sent.iter().for_each(|(topic, payload)| drop(bench.send(topic, payload)));
        };
        let mut once = Bench::new(&known(Vec::new()));
        whole(&sent, &mut once);
        let stop = stop.min(sent.len());
        let mut twice = Bench::new(&known(Vec::new()));
        whole(&sent[..stop], &mut twice);
        // As the database has it then: only who devices are, nothing of what was tried.
        let registry = &twice.normalizer.registry;
        let kept: Vec<_> = uids.iter().zip(1..).filter_map(|(uid, id)| {
            let slot = registry.device("default", uid)?;
            Some(crate::catalog::Device {
                template_by: registry.template_by(slot),
                source: registry.source(slot).cloned(),
                protocol: registry.protocol(slot).cloned(),
                told: registry.told(slot),
                parent: registry.parent(slot).map(|above| Arc::clone(registry.uid(above))),
                ..device(id, uid, registry.template(slot).map(|template| template.slug.as_str()))
            })
        }).collect();
        let mut after = Bench::new(&known(kept));
        whole(&sent[stop..], &mut after);
        for uid in uids {
            prop_assert_eq!(once.template(uid), after.template(uid), "{}", uid);
        }
    }
}
