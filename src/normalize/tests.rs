mod model;

use proptest::prelude::*;

use super::testing::*;
use super::*;
use crate::catalog::matching::GivenBy;
use crate::catalog::{Device, Metric, Sensor};
use crate::config::{Decoder, Retained};
use crate::quarantine::Reason;
use crate::store::batch::{DeviceIntro, SensorIntro, SensorOrigin};
use crate::time::UtcMicros;

const TOPIC: &str = "devices/d1/telemetry";

/// A climate sensor: scaled temperature with three keys, a required counter, text and a contact.
fn climate() -> crate::catalog::Template {
    let keys = ["temp", "t", "ENV.Temperature"].map(crate::catalog::Key::from).to_vec();
    let contact = [("open".to_owned(), 0.0), ("closed".to_owned(), 1.0)];
    template(
        "climate",
        vec![
            Metric { keys, unit: "°C".into(), range: Some((-40.0, 85.0)), ..metric("temperature", Kind::Number) },
            Metric { required: true, min_step: Some(0.0), unit: "kWh".into(), ..metric("energy", Kind::Number) },
            metric("serial", Kind::Text),
            Metric { values: contact.into_iter().collect(), ..metric("contact", Kind::Bool) },
        ],
    )
}

fn sources() -> Vec<crate::config::Source> {
    let mut native = source("native", "devices/{device}/telemetry", Decoder::Json);
    native.template = Some("climate".into());
    let modules = source("modules", "m/{tenant}/{device}/{module}", Decoder::Json);
    let mut scalars = source("scalars", "s/{device}/{metric...}", Decoder::Scalar);
    scalars.template = Some("climate".into());
    vec![native, modules, scalars, source("slashes", "z/{device...}", Decoder::Json)]
}

struct Bench {
    settings: Config,
    normalizer: Normalizer,
    seq: u64,
    introduced: Vec<SensorIntro>,
}

/// What became of one message, in words.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    /// metric=value, in order; numbers before text.
    stored: Vec<String>,
    refused: Vec<(Reason, Option<String>)>,
    devices: Vec<DeviceIntro>,
    times: Vec<UtcMicros>,
}

impl Outcome {
    fn reasons(&self) -> Vec<Reason> {
        self.refused.iter().map(|(reason, _)| *reason).collect()
    }
}

impl Bench {
    fn new(change: impl FnOnce(&mut Config), snapshot: &Snapshot) -> Bench {
        let mut settings = settings(sources());
        change(&mut settings);
        let normalizer = Normalizer::new(&settings, snapshot, Memory::default(), Metrics::new()).unwrap();
        Bench { settings, normalizer, seq: 0, introduced: Vec::new() }
    }

    fn plain() -> Bench {
        Bench::new(|_| {}, &snapshot(vec![climate()], Vec::new()))
    }

    fn send(&mut self, topic: &str, payload: impl Into<Vec<u8>>) -> Outcome {
        self.put(topic, payload, false)
    }

    fn put(&mut self, topic: &str, payload: impl Into<Vec<u8>>, retain: bool) -> Outcome {
        self.seq += 1;
        let mut message = message(self.seq, topic, payload);
        Arc::get_mut(&mut message).unwrap().publish.retain = retain;
        let mut batch = Batch::default();
        self.normalizer.process(&message, &mut batch);
        assert_eq!((batch.position, batch.messages, batch.oldest), (self.seq, 1, Some(message.received_at)));
        self.introduced.extend(batch.sensors);
        let name = |index: u32| &*self.introduced.iter().find(|intro| intro.index == index).unwrap().metric;
        let numbers = batch.readings.iter().map(|reading| format!("{}={}", name(reading.sensor), reading.value));
        let texts = batch.texts.iter().map(|reading| format!("{}={}", name(reading.sensor), reading.value));
        let refusals = batch.quarantined.iter().flat_map(|one| one.refusals.iter());
        Outcome {
            stored: numbers.chain(texts).collect(),
            refused: refusals.map(|refusal| (refusal.reason, refusal.key.clone())).collect(),
            devices: batch.devices,
            times: batch.readings.iter().map(|reading| reading.time).collect(),
        }
    }

    fn intro(&self, metric: &str) -> &SensorIntro {
        self.introduced.iter().find(|intro| &*intro.metric == metric).unwrap()
    }
}

#[test]
fn a_new_device_is_introduced_once_with_its_required_sensors() {
    let mut bench = Bench::plain();
    let first = bench.send(TOPIC, r#"{"temp":21.5,"hum":40,"ok":true,"serial":12}"#);
    assert_eq!(first.stored, ["temperature=21.5", "hum=40", "ok=1", "serial=12"]);
    assert_eq!(first.devices.len(), 1);
    let device = &first.devices[0];
    assert_eq!((device.id, &*device.uid, &*device.tenant, device.index), (None, "d1", "default", 0));
    assert_eq!((device.template.as_deref(), device.source.as_str()), (Some("climate"), "native"));
    let kinds = |metric: &str| (bench.intro(metric).kind, bench.intro(metric).origin);
    assert_eq!(kinds("energy"), (Kind::Number, SensorOrigin::Required));
    assert_eq!(kinds("temperature"), (Kind::Number, SensorOrigin::Optional));
    assert_eq!(kinds("ok"), (Kind::Bool, SensorOrigin::Unmodeled));
    assert_eq!(bench.intro("temperature").unit, "°C");
    let introduced = bench.introduced.len();
    let second = bench.send(TOPIC, r#"{"temp":22,"energy":3}"#);
    assert_eq!(second.devices, []);
    assert_eq!(bench.introduced.len(), introduced);
}

#[test]
fn a_known_device_keeps_its_row_and_its_own_template() {
    // It has none, and somebody decided so.
    let mut known = Device { template_by: Some(GivenBy::Assigned), ..device(7, "d1", None) };
    known.sensors.push(sensor(70, "temp", Some((0, 1.0))));
    let mut bench = Bench::new(|_| {}, &snapshot(vec![climate()], vec![known]));
    let outcome = bench.send(TOPIC, r#"{"temp":21.5}"#);
    assert_eq!(outcome.stored, ["temp=21.5"]);
    assert_eq!((outcome.devices[0].id, outcome.devices[0].template.as_deref()), (Some(7), None));
    assert_eq!(bench.intro("temp").id, Some(70));
    assert_eq!(bench.introduced.len(), 1);
}

#[test]
fn the_first_of_a_metrics_keys_counts() {
    let mut bench = Bench::plain();
    for _ in 0..2 {
        let outcome = bench.send(TOPIC, r#"{"ENV":{"Temperature":3},"temp":1,"t":2}"#);
        assert_eq!((outcome.stored, outcome.refused), (vec!["temperature=1".to_owned()], Vec::new()));
    }
    assert_eq!(bench.send(TOPIC, r#"{"ENV":{"Temperature":3},"t":2}"#).stored, ["temperature=2"]);
}

#[test]
fn a_bad_sample_costs_itself_only() {
    let mut bench = Bench::plain();
    let outcome = bench.send(TOPIC, r#"{"temp":900,"contact":"ajar","energy":1,"note":"a\u0000b","hum":"40"}"#);
    assert_eq!(outcome.stored, ["energy=1", "hum=40"]);
    let refused: Vec<_> = outcome.refused.iter().map(|(reason, key)| (*reason, key.as_deref().unwrap())).collect();
    let expected = [(Reason::OutOfRange, "temp"), (Reason::WrongKind, "contact"), (Reason::BadText, "note")];
    assert_eq!(refused, expected);
    assert_eq!(bench.send(TOPIC, r#"{"temp":" 21.5 ","contact":"closed"}"#).stored, ["temperature=21.5", "contact=1"]);
}

#[test]
fn modules_are_looked_up_before_the_device() {
    let meter = template("meter", vec![Metric { unit: "W".into(), ..metric("power", Kind::Number) }]);
    let own = template("own", vec![metric("power", Kind::Number), metric("volt", Kind::Number)]);
    let mut known = device(1, "d", Some("own"));
    known.tenant = "acme".into();
    known.modules = vec![module("m1", "meter"), module("m2", "meter")];
    let mut bench = Bench::new(|_| {}, &snapshot(vec![climate(), meter, own], vec![known]));
    assert_eq!(bench.send("m/acme/d/m2", r#"{"power":5,"volt":6,"x":7}"#).stored, ["m2.power=5", "volt=6", "m2.x=7"]);
    assert_eq!(bench.intro("m2.power").module.as_deref(), Some("m2"));
    assert_eq!(bench.intro("volt").module, None);
    assert_eq!(bench.intro("m2.x").module.as_deref(), Some("m2"));
    assert_eq!(bench.send("m/acme/d/other", r#"{"power":5,"x":7}"#).stored, ["power=5", "other.x=7"]);
    let clash = bench.send("m/acme/d/m1", r#"{"y":1}"#);
    assert_eq!(clash.stored, ["m1.y=1"]);
}

#[test]
fn a_key_with_a_metrics_name_does_not_mix_with_it() {
    let mut bench = Bench::plain();
    let outcome = bench.send(TOPIC, r#"{"temperature":70,"hum":1}"#);
    assert_eq!(outcome.stored, ["hum=1"]);
    assert_eq!(outcome.refused, [(Reason::UnmodeledMetric, Some("temperature".to_owned()))]);
}

#[test]
fn unmodeled_keys_go_where_the_configuration_says() {
    let known = snapshot(vec![climate()], Vec::new());
    let mut drop = Bench::new(|settings| settings.metrics.unmodeled = Unmodeled::Drop, &known);
    let outcome = drop.send(TOPIC, r#"{"temp":1,"hum":2}"#);
    assert_eq!((outcome.stored, outcome.refused), (vec!["temperature=1".to_owned()], Vec::new()));
    assert_eq!(drop.normalizer.metrics.unmodeled_dropped.get(), 1);
    let mut quarantine = Bench::new(|settings| settings.metrics.unmodeled = Unmodeled::Quarantine, &known);
    assert_eq!(quarantine.send(TOPIC, r#"{"temp":1,"hum":2}"#).reasons(), [Reason::UnmodeledMetric]);
    let mut store = Bench::new(|_| {}, &known);
    for (payload, stored) in
        [("1", "k=1"), ("\"a\"", "k=a"), ("true", "k=1"), ("9007199254740993", "k=9007199254740992")]
    {
        assert_eq!(store.send(TOPIC, format!("{{\"k\":{payload}}}")).stored, [stored], "changed kind");
    }
    assert_eq!(store.send(TOPIC, r#"{"":1,"a\u0001":2}"#).reasons(), [Reason::BadName, Reason::BadName]);
}

#[test]
fn a_counter_does_not_fall() {
    let mut known = device(1, "d1", Some("climate"));
    known.sensors.push(sensor(10, "energy", Some((RECEIVED.0, 100.0))));
    let mut bench = Bench::new(|_| {}, &snapshot(vec![climate()], vec![known]));
    assert_eq!(bench.send(TOPIC, r#"{"energy":99}"#).reasons(), [Reason::NotMonotonic]);
    assert_eq!(bench.send(TOPIC, r#"{"energy":100}"#).stored, ["energy=100"]);
    let late = bench.send(TOPIC, r#"{"ts":1699999000,"values":{"energy":50}}"#);
    assert_eq!(late.stored, ["energy=50"], "an earlier reading is stored as it is");
    assert_eq!(bench.send(TOPIC, r#"{"energy":99}"#).reasons(), [Reason::NotMonotonic]);
    assert!(points::rises(0.2, 0.3, 0.1) && !points::rises(0.2, 0.29, 0.1) && !points::rises(1.0, 1.0 - 1e-12, 0.0));
}

#[test]
fn times_far_from_the_receipt_are_refused() {
    let mut bench = Bench::plain();
    for ts in ["0", "5", "\"1970-01-01T00:00:00Z\"", "4102444799", "\"2099-12-31T23:59:59Z\"", "1710000000"] {
        let outcome = bench.send(TOPIC, format!("{{\"ts\":{ts},\"values\":{{\"temp\":1}}}}"));
        assert_eq!((outcome.stored, outcome.refused), (Vec::new(), vec![(Reason::BadTime, None)]), "{ts}");
        assert_eq!(bench.send(TOPIC, format!("{{\"ts\":{ts},\"temp\":1}}")).reasons(), [Reason::BadTime]);
    }
    let mixed = bench.send(TOPIC, r#"[{"ts":0,"values":{"temp":1}},{"ts":1700000000,"values":{"temp":2}},{"temp":3}]"#);
    assert_eq!((mixed.stored.len(), mixed.reasons()), (2, vec![Reason::BadTime]));
    assert_eq!(mixed.times[0], RECEIVED);
}

#[test]
fn retained_messages_forge_no_readings() {
    let stored = |retained: Retained, payload: &str| {
        let mut known = device(1, "d1", Some("climate"));
        let temperature = sensor(10, "temperature", Some((RECEIVED.0, 20.0)));
        known.sensors.push(Sensor { unit: "°C".into(), modeled: true, ..temperature });
        let known = snapshot(vec![climate()], vec![known]);
        let mut bench = Bench::new(|settings| settings.sources[0].retained = retained, &known);
        let outcome = bench.put(TOPIC, payload, true);
        assert_eq!(outcome.refused, []);
        (outcome.stored, bench.normalizer.metrics.retained_ignored.get())
    };
    let (old, new) = (r#"{"ts":1700000000,"temp":1}"#, r#"{"ts":1700000001,"temp":1}"#);
    let one = || vec!["temperature=1".to_owned()];
    assert_eq!(stored(Retained::Ignore, new), (vec![], 1));
    assert_eq!(stored(Retained::Latest, old), (vec![], 1));
    assert_eq!(stored(Retained::Latest, r#"{"temp":1}"#), (vec![], 1));
    assert_eq!(stored(Retained::Latest, new), (one(), 0));
    assert_eq!(stored(Retained::Store, old), (one(), 0));
    assert_eq!(stored(Retained::Store, r#"{"temp":1}"#), (one(), 0));
}

#[test]
fn names_from_the_topic_are_checked() {
    let mut bench = Bench::plain();
    assert_eq!(bench.send("devices/🌡️/telemetry", r#"{"temp":1}"#).stored, ["temperature=1"]);
    assert_eq!(bench.send("z/a/b", r#"{"temp":1}"#).devices[0].uid.as_ref(), "a/b");
    let long = format!("devices/{}/telemetry", "d".repeat(300));
    for topic in [long.as_str(), "devices//telemetry", "devices/a\0b/telemetry", "devices/a\u{7f}/telemetry", "z"] {
        assert_eq!(bench.send(topic, r#"{"temp":1}"#).refused, [(Reason::BadName, None)], "{topic:?}");
    }
    assert_eq!(bench.send("m//d/m", "{}").reasons(), [Reason::BadName]);
    assert_eq!(bench.send(&format!("s/d/{}", "m/".repeat(200)), "1").reasons(), [Reason::BadName]);
    assert_eq!(bench.send("nobody/listens", "1").refused, [(Reason::UnknownSource, None)]);
}

#[test]
fn unknown_devices_are_quarantined_on_demand_and_never_made_by_garbage() {
    let known = snapshot(vec![climate()], vec![device(1, "known", None)]);
    let mut strict = Bench::new(|settings| settings.devices.unknown = UnknownDevice::Quarantine, &known);
    assert_eq!(strict.send(TOPIC, r#"{"temp":1}"#).reasons(), [Reason::UnknownDevice]);
    let heard = strict.send("devices/known/telemetry", r#"{"temp":1}"#);
    assert_eq!(heard.stored, ["temperature=1"], "it had no template, and has the source's now");
    let mut bench = Bench::new(|settings| settings.devices.max_devices = 2, &known);
    for (topic, garbage) in [(TOPIC, "{\"temp\":"), (TOPIC, ""), ("s/d1/x", "")] {
        assert_eq!(bench.send(topic, garbage).devices, []);
    }
    assert_eq!(bench.send(TOPIC, "{}").devices.len(), 1);
    assert_eq!(bench.send("devices/d2/telemetry", "{}").reasons(), [Reason::TooManyDevices]);
}

#[test]
fn sensors_and_refusals_are_bounded() {
    let mut bench = Bench::new(|settings| settings.devices.max_sensors = 3, &snapshot(vec![climate()], Vec::new()));
    let keys: Vec<String> = (0..200).map(|i| format!("\"k{i}\":{i}")).collect();
    let message = message(1, TOPIC, format!("{{{}}}", keys.join(",")));
    let mut batch = Batch::default();
    bench.normalizer.process(&message, &mut batch);
    assert_eq!(batch.readings.len(), 2, "the required one counts");
    let quarantined = &batch.quarantined[0];
    assert_eq!((quarantined.refusals.len(), quarantined.more), (64, 198 - 64));
    let text = bench.normalizer.metrics.encode().unwrap();
    assert!(text.contains("tidegate_quarantined_total{reason=\"too_many_sensors\"} 198"), "{text}");
    assert_eq!(quarantined.device.as_deref(), Some("d1"));
}

#[test]
fn payloads_beyond_the_limits_are_refused_whole() {
    let mut bench =
        Bench::new(|settings| settings.sources[0].max_payload = 1 << 21, &snapshot(vec![climate()], vec![]));
    let keys: Vec<String> = (0..10_000).map(|i| format!("\"k{i}\":{i}")).collect();
    for (payload, reason) in [
        ("{\"k\":".repeat(500) + "1" + &"}".repeat(500), Reason::TooDeep),
        (format!("{{\"temp\":1,\"s\":\"{}\"}}", "a".repeat(1 << 20)), Reason::TooLarge),
        (" ".repeat(1 << 22), Reason::TooLarge),
        (format!("{{{}}}", keys.join(",")), Reason::TooManyKeys),
        ("{\"temp\":1,\"temp\":2}".into(), Reason::DuplicateKey),
        ("{\"temp\":NaN}".into(), Reason::Malformed),
        ("{\"temp\":1e400}".into(), Reason::NumberOutOfRange),
        (String::new(), Reason::Empty),
    ] {
        let outcome = bench.send(TOPIC, payload);
        assert_eq!((outcome.stored, outcome.refused), (Vec::new(), vec![(reason, None)]));
    }
    assert_eq!(bench.send(TOPIC, [b'{', 0xff, b'}']).reasons(), [Reason::NotUtf8]);
}

#[test]
fn a_swapped_catalog_starts_a_generation_and_keeps_newer_values() {
    let mut bench = Bench::plain();
    bench.send(TOPIC, r#"{"energy":100}"#);
    bench.send("devices/d2/telemetry", r#"{"energy":7}"#);
    let mut behind = device(1, "d1", Some("climate"));
    behind.sensors.push(sensor(10, "energy", Some((5, 1.0))));
    bench.settings.sources[0].filter = "devices/{device}/telemetry".into();
    bench.normalizer.replace(&bench.settings, &snapshot(vec![climate()], vec![behind]), 0).unwrap();
    bench.introduced.clear();
    assert_eq!(bench.normalizer.generation(), 1);
    assert_eq!(bench.send(TOPIC, r#"{"energy":99}"#).reasons(), [Reason::NotMonotonic]);
    assert_eq!(bench.send(TOPIC, r#"{"energy":101}"#).stored, ["energy=101"]);
    assert_eq!((bench.intro("energy").id, bench.intro("energy").index), (Some(10), 0));
    let uncommitted = bench.send("devices/d2/telemetry", r#"{"energy":6}"#);
    assert_eq!((uncommitted.reasons(), uncommitted.devices[0].id), (vec![Reason::NotMonotonic], None));
    bench.settings.sources[0].template = Some("gone".into());
    let refused = bench.normalizer.replace(&bench.settings, &Snapshot::default(), 0);
    assert!(matches!(refused, Err(NormalizeError::UnknownTemplate { .. })));
    bench.settings.sources[0].template = Some("climate".into());
    // Some device may still have it.
    let retired = Snapshot { retired: ["climate".to_owned()].into(), ..snapshot(vec![climate()], Vec::new()) };
    let refused = bench.normalizer.replace(&bench.settings, &retired, 0);
    assert!(matches!(&refused, Err(NormalizeError::RetiredTemplate { .. })), "{refused:?}");
    assert_eq!(bench.send(TOPIC, r#"{"energy":102}"#).stored, ["energy=102"], "all stays as it was");
}

fn payloads() -> impl Strategy<Value = Vec<(String, String)>> {
    let topic = prop::sample::select(vec![TOPIC, "devices/d2/telemetry", "m/acme/d1/m1", "s/d1/energy", "none"]);
    let key = prop::sample::select(vec!["temp", "t", "energy", "serial", "contact", "x", "y.z", "ts"]);
    let value =
        prop::sample::select(vec!["1", "2.5", "\"a\"", "true", "\"7\"", "null", "1700000003", "900", "\"open\""]);
    let body = prop::collection::vec((key, value), 0..5).prop_map(|members| {
        let members: Vec<String> = members.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        format!("{{{}}}", members.join(","))
    });
    prop::collection::vec((topic.prop_map(str::to_owned), body), 0..40)
}

proptest! {
    #[test]
    fn batches_split_anywhere_give_the_same_rows(messages in payloads(), cuts in prop::collection::vec(any::<bool>(), 40)) {
        let mut known = device(1, "d1", Some("climate"));
        known.sensors.push(sensor(10, "energy", Some((RECEIVED.0, 2.0))));
        let known = snapshot(vec![climate()], vec![known]);
        let run = |cuts: &[bool]| {
            let mut normalizer = Normalizer::new(&settings(sources()), &known, Memory::default(), Metrics::new()).unwrap();
            let mut batches = vec![Batch::default()];
            for (i, (topic, payload)) in messages.iter().enumerate() {
                if cuts.get(i) == Some(&true) {
                    batches.push(Batch { position: i as u64, ..Batch::default() });
                }
                let message = message(i as u64 + 1, topic, payload.as_str());
                normalizer.process(&message, batches.last_mut().unwrap());
            }
            let mut batches = batches.into_iter();
            let mut whole = batches.next().unwrap();
            batches.for_each(|batch| whole.append(batch));
            whole.seen.dedup_by(|later, earlier| {
                let same = later.0 == earlier.0;
                if same {
                    earlier.1 = later.1;
                }
                same
            });
            format!("{whole:?}")
        };
        prop_assert_eq!(run(&[]), run(&cuts));
    }
}

#[test]
fn what_is_retained_teaches_though_its_values_are_ignored() {
    let ignoring = |settings: &mut Config| {
        settings.sources = vec![source("ha", "#", Decoder::HomeAssistant)];
        settings.sources[0].retained = Retained::Ignore;
    };
    let mut bench = Bench::new(ignoring, &snapshot(Vec::new(), Vec::new()));
    let config = r#"{"stat_t":"d/state","val_tpl":"{{ value_json.t }}","dev":{"ids":"d9"}}"#;
    assert_eq!(bench.put("homeassistant/sensor/t/config", config, true), Outcome::default());
    assert_eq!(bench.put("d/state", r#"{"t":20}"#, true), Outcome::default());
    assert_eq!(bench.put("unheard/of", "1", true), Outcome::default());
    assert_eq!(bench.normalizer.metrics.retained_ignored.get(), 3);
    let outcome = bench.send("d/state", r#"{"t":21}"#);
    assert_eq!((outcome.stored, outcome.refused), (vec!["sensor.t=21".to_owned()], Vec::new()));
    assert_eq!(outcome.devices[0].uid.as_ref(), "d9");
    assert_eq!(bench.put("homeassistant/sensor/t/config", "[", true).reasons(), [Reason::Malformed]);
}

#[test]
fn what_tidegate_says_itself_is_no_telemetry_but_for_a_source_that_names_it() {
    let everything = |settings: &mut Config| {
        settings.sources = vec![
            source("all", "{tenant}/{device}/{metric...}", Decoder::Scalar),
            source("others", "tidegate/alerts/{tenant}/{device}/heat", Decoder::Json),
        ];
    };
    let mut bench = Bench::new(everything, &snapshot(Vec::new(), Vec::new()));
    assert_eq!(bench.send("tidegate/alerts/default/d1/too-hot", "1"), Outcome::default());
    assert_eq!(bench.send("tidegate/alerts/default/d1/heat", r#"{"value": 3}"#).stored, ["value=3"]);
    assert_eq!(bench.send("tide/d1/level", "3").stored, ["level=3"]);
    assert_eq!(bench.normalizer.metrics.own_ignored.get(), 1);
}

#[test]
fn auto_finds_the_devices_by_itself_and_counts_what_it_ignores() {
    let everything = |settings: &mut Config| {
        settings.sources = vec![source("all", "#", Decoder::Auto)];
        settings.sources[0].retained = Retained::Ignore;
    };
    let mut bench = Bench::new(everything, &snapshot(Vec::new(), Vec::new()));
    let mut heard = |topic: &str, payload: &str| {
        let outcome = bench.send(topic, payload);
        assert_eq!(outcome.refused, [], "{topic}");
        (outcome.devices.first().map(|intro| intro.uid.to_string()), outcome.stored.join(" "))
    };
    let told = |uid: &str, stored: &str| (Some(uid.to_owned()), stored.to_owned());
    assert_eq!(heard("tele/plug/SENSOR", r#"{"ENERGY":{"Power":5}}"#), told("plug", "ENERGY.Power=5"));
    assert_eq!(heard("plant/pump/flow", "3"), told("plant/pump", "flow=3"));
    assert_eq!(heard("m", "x"), told("m", "value=x"));
    for ignored in ["cmnd/plug/POWER", "tidegate/status/gw", "devices/d/commands/1"] {
        assert_eq!(heard(ignored, "ON"), (None, String::new()));
    }
    let metrics = &bench.normalizer.metrics;
    // What tidegate itself tells a device is of the latter.
    assert_eq!((metrics.auto_ignored.get(), metrics.own_ignored.get()), (1, 2));
    // What announces is heard though it is retained.
    bench.put("homie/car/n/p/$datatype", "string", true);
    assert_eq!(bench.send("homie/car/n/p", "0042").stored, ["n.p=0042"]);
    assert_eq!(bench.send("plant/pump", r#"{"a":"#).reasons(), [Reason::Malformed]);
}
