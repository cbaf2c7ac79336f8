//! Key patterns, units that a payload declares, and derived metrics.

use std::collections::HashMap;
use std::time::Duration;

use super::*;
use crate::catalog::{Derived, Expression, Formula, Key, KeyMap, Rate, Sensor, Template, UnitField};

fn keyed(name: &str, unit: &str, keys: &[&str]) -> Metric {
    let keys = keys.iter().map(|key| Key::from(*key)).collect();
    let mut metric = Metric { keys, unit: unit.into(), ..metric(name, Kind::Number) };
    metric.keys.extend(metric.own_name().into_iter().map(Key::of));
    metric
}

fn bench(template: Template) -> Bench {
    Bench::new(
        |settings| settings.sources[0].template = Some("t".into()),
        &snapshot(vec![template, climate()], Vec::new()),
    )
}

/// The snapshot that a database would give after what the bench has stored.
fn restarted(bench: &Bench, template: Template, last: &HashMap<String, (UtcMicros, f64)>) -> Bench {
    let mut known = device(1, "d1", Some("t"));
    for (id, intro) in (1_i32..).zip(&bench.introduced) {
        if let Some(sensor) = known.sensors.iter_mut().find(|sensor| sensor.metric == intro.metric) {
            sensor.raw_key = sensor.raw_key.take().or(intro.raw_key.clone());
            continue;
        }
        let (metric, unit) = (intro.metric.clone(), intro.unit.as_str().into());
        let last = last.get(&*metric).copied();
        let (kind, modeled) = (intro.kind, intro.origin != SensorOrigin::Unmodeled);
        known.sensors.push(Sensor { id, metric, unit, kind, modeled, raw_key: intro.raw_key.clone(), last });
    }
    let snapshot = snapshot(vec![template, climate()], vec![known]);
    let mut fresh = Bench::new(|settings| settings.sources[0].template = Some("t".into()), &snapshot);
    fresh.seq = bench.seq;
    fresh
}

#[test]
fn numbers_and_words_in_keys_give_sensors_of_their_own() {
    let power = keyed("power", "W", &["switch:{n+1}.apower"]);
    let phase = keyed("voltage_{phase}", "V", &["em.{phase}_voltage"]);
    let mut bench = bench(template("t", vec![power, phase, keyed("power_3", "", &["x"])]));
    let found = bench.send(
        TOPIC,
        r#"{"switch:1.apower":2,"switch:0.apower":1,"em":{"a_voltage":230,"B_voltage":231},"switch:2.apower":3,"power_2":9}"#,
    );
    // The third is another metric's name, so the key has none; and the last is another key of the second.
    assert_eq!(found.stored, ["power_2=2", "power=1", "voltage_a=230", "voltage_b=231", "switch:2.apower=3"]);
    assert_eq!((bench.intro("power_2").unit.as_str(), bench.intro("voltage_b").unit.as_str()), ("W", "V"));
    assert_eq!(bench.intro("switch:2.apower").origin, SensorOrigin::Unmodeled);
    assert_eq!(bench.send(TOPIC, r#"{"power":5,"power_4":6}"#).stored, ["power=5", "power_4=6"]);
    assert!(bench.introduced.iter().all(|intro| intro.raw_key.is_none()));
}

#[test]
fn patterned_sensors_count_against_the_devices_bound() {
    let keys = template("t", vec![keyed("power", "W", &["p{n}"])]);
    let mut bench = Bench::new(
        |settings| {
            settings.sources[0].template = Some("t".into());
            settings.devices.max_sensors = 2;
        },
        &snapshot(vec![keys, climate()], Vec::new()),
    );
    let found = bench.send(TOPIC, r#"{"p1":1,"p2":2,"p3":3}"#);
    assert_eq!(found.stored, ["power=1", "power_2=2"]);
    assert_eq!(found.refused, [(Reason::TooManySensors, Some("p3".into()))]);
}

fn probes() -> Template {
    let temperature = Metric { range: Some((-40.0, 85.0)), ..keyed("temperature", "°C", &["DS18B20*.T"]) };
    template("t", vec![Metric { required: true, ..temperature }])
}

#[test]
fn a_starred_key_keeps_the_number_it_came_by() {
    let mut bench = bench(probes());
    let first = bench.send(TOPIC, r#"{"DS18B20-2":{"T":999},"DS18B20-7":{"T":7}}"#);
    assert_eq!(
        (first.stored, first.refused.len()),
        (vec!["temperature=7".to_owned()], 1),
        "what is refused claims nothing"
    );
    let both = r#"{"DS18B20-2":{"T":2},"DS18B20-7":{"T":7},"DS18B20-9":{"T":9}}"#;
    let named = ["temperature_2=2", "temperature=7", "temperature_3=9"];
    assert_eq!(bench.send(TOPIC, both).stored, named);
    let claims: Vec<_> =
        bench.introduced.iter().filter_map(|intro| Some((&*intro.metric, intro.raw_key.as_deref()?))).collect();
    let expected = [("temperature", "DS18B20-7.T"), ("temperature_2", "DS18B20-2.T"), ("temperature_3", "DS18B20-9.T")];
    assert_eq!(claims, expected);
    let turned = r#"{"DS18B20-9":{"T":9},"DS18B20-7":{"T":7},"DS18B20-2":{"T":2}}"#;
    let expected = ["temperature_3=9", "temperature=7", "temperature_2=2"];
    assert_eq!(bench.send(TOPIC, turned).stored, expected);

    let mut after = restarted(&bench, probes(), &HashMap::new());
    assert_eq!(after.send(TOPIC, turned).stored, expected);
    assert!(after.introduced.iter().all(|intro| intro.raw_key.is_none()), "nothing is news");
    // A catalog swapped in before the batch is committed knows none of the sensors.
    let settings = bench.settings.clone();
    bench.normalizer.replace(&settings, &snapshot(vec![probes(), climate()], Vec::new()), 0).unwrap();
    bench.introduced.clear();
    assert_eq!(bench.send(TOPIC, turned).stored, expected);
}

/// Tasmota says beside its temperatures which unit they have.
fn tasmota(metrics: Vec<Metric>) -> Bench {
    let mut source = source("tasmota", "tele/{device}/SENSOR", Decoder::Tasmota);
    source.template = Some("t".into());
    Bench::new(|settings| settings.sources.push(source), &snapshot(vec![template("t", metrics), climate()], Vec::new()))
}

const FAHRENHEIT: &str = r#"{"AM2301":{"Temperature":212.0},"TempUnit":"F"}"#;
const CELSIUS: &str = r#"{"AM2301":{"Temperature":20.0},"TempUnit":"C"}"#;

#[test]
fn a_declared_unit_is_converted_to_the_metrics() {
    let metrics = || keyed("temperature", "°C", &["AM2301.Temperature"]);
    let mut bench = tasmota(vec![metrics()]);
    let stored = |bench: &mut Bench, payload: &str| {
        let found = bench.send("tele/d1/SENSOR", payload);
        (
            found
                .stored
                .into_iter()
                .filter(|text| text.starts_with("temp") || text.starts_with("AM"))
                .collect::<Vec<_>>(),
            found.refused,
        )
    };
    assert_eq!(stored(&mut bench, FAHRENHEIT).0, ["temperature=100"]);
    assert_eq!(stored(&mut bench, CELSIUS).0, ["temperature=20"]);
    assert_eq!(stored(&mut bench, FAHRENHEIT).0, ["temperature=100"], "remembered keys too");

    let mut scaled = tasmota(vec![Metric { scale: 0.5, ..metrics() }]);
    assert_eq!(stored(&mut scaled, FAHRENHEIT).0, ["temperature=106"], "who gives a scale knows the payload");

    let mut wrong = tasmota(vec![Metric { unit: "%".into(), ..metrics() }]);
    let (none, refused) = stored(&mut wrong, FAHRENHEIT);
    assert_eq!((none, refused), (vec![], vec![(Reason::WrongUnit, Some("AM2301.Temperature".into()))]));
}

/// A key in the unit that `us` tells, 1 for the one and anything else by its name.
fn told_by_us(key: &str, unit: &str) -> Key {
    let units = [("1".to_owned(), unit.to_owned())].into();
    Key { unit_from: Some(Box::new(UnitField { key: "us".into(), units })), ..Key::from(key) }
}

#[test]
fn one_field_tells_the_units_of_several_keys() {
    let keyed = |name: &str, unit: &str, key: Key| Metric { keys: vec![key], ..keyed(name, unit, &[]) };
    let tenths = Key { scale: Some(0.1), ..told_by_us("in", "°F") };
    let metrics = vec![
        keyed("temperature", "°C", told_by_us("out", "°F")),
        keyed("temperature_inside", "°C", tenths),
        keyed("pressure", "hPa", Key { unit: Some("kPa".into()), ..told_by_us("bar", "inHg") }),
    ];
    let mut bench = bench(template("t", metrics));
    let mut stored = |payload: &str| {
        let found = bench.send(TOPIC, payload);
        (found.stored, found.refused)
    };
    let (found, refused) = stored(r#"{"us":1,"out":212,"in":2120,"bar":29.92,"x":5}"#);
    assert_eq!(refused, []);
    assert_eq!(found[..2], ["temperature=100", "temperature_inside=100"], "{found:?}");
    assert!(found[2].starts_with("pressure=1013.2") && found[3] == "x=5" && found.len() == 4, "{found:?}");
    assert_eq!(stored(r#"{"out":20,"us":"celsius"}"#).0, ["temperature=20"], "wherever it stands");
    assert_eq!(stored(r#"{"out":293.15,"us":"K"}"#).0, ["temperature=20"]);
    // Without a word that tells: the key's own unit, or else the metric's.
    assert_eq!(
        stored(r#"{"us":"?","out":20,"in":200,"bar":101}"#).0,
        ["temperature=20", "temperature_inside=20", "pressure=1010"]
    );
    assert_eq!(stored(r#"{"out":20,"bar":101}"#).0, ["temperature=20", "pressure=1010"]);
    let (found, refused) = stored(r#"{"us":"hPa","out":20,"bar":1010}"#);
    assert_eq!((found, refused), (vec!["pressure=1010".to_owned()], vec![(Reason::WrongUnit, Some("out".into()))]));
}

#[test]
fn a_field_that_tells_units_is_stored_where_it_is_a_metric() {
    let metrics = |more: Vec<Metric>| {
        let told = Metric { keys: vec![told_by_us("out", "°F")], ..keyed("temperature", "°C", &[]) };
        template("t", [vec![told], more].concat())
    };
    let payload = r#"{"out":50,"us":1}"#;
    let mut plain = bench(metrics(vec![]));
    assert_eq!(plain.send(TOPIC, payload).stored, ["temperature=10"]);
    let units = Metric { keys: vec![Key::from("us")], ..metric("unit_system", Kind::Text) };
    let mut kept = bench(metrics(vec![units]));
    assert_eq!(kept.send(TOPIC, payload).stored, ["temperature=10", "unit_system=1"]);
    let mut other = Bench::new(|_| {}, &snapshot(vec![metrics(vec![]), climate()], Vec::new()));
    assert_eq!(other.send(TOPIC, payload).stored, ["out=50", "us=1"], "of a device with another template");
}

#[test]
fn a_declared_unit_becomes_that_of_an_unmodeled_sensor() {
    let mut bench = tasmota(Vec::new());
    let stored = |bench: &mut Bench, payload: &str| {
        let found = bench.send("tele/d1/SENSOR", payload);
        found.stored.into_iter().find(|text| text.starts_with("AM")).unwrap()
    };
    assert_eq!(stored(&mut bench, CELSIUS), "AM2301.Temperature=20");
    assert_eq!(bench.intro("AM2301.Temperature").unit, "");
    assert_eq!(stored(&mut bench, FAHRENHEIT), "AM2301.Temperature=212");
    let last = bench.introduced.last().unwrap();
    assert_eq!((&*last.metric, last.unit.as_str()), ("AM2301.Temperature", "°F"));
    let told = bench.introduced.len();
    assert_eq!(stored(&mut bench, FAHRENHEIT), "AM2301.Temperature=212");
    assert_eq!(bench.introduced.len(), told);
}

fn derived(name: &str, formula: Formula) -> Derived {
    Derived {
        name: name.into(),
        unit: "W".into(),
        range: Some((-1000.0, 1e6)),
        formula,
        within: Duration::from_secs(60),
    }
}

fn expression(text: &str) -> Formula {
    Formula::Expression(Expression::parse(text).unwrap())
}

fn meter() -> Template {
    let rate = Rate { of: "c".into(), per: Duration::from_secs(3600), rollover: Some(1000.0) };
    let mut all = template("t", ["a", "b", "c"].map(|name| metric(name, Kind::Number)).to_vec());
    all.derived = vec![
        derived("power", expression("a * b")),
        Derived { within: Duration::from_secs(600), ..derived("flow", Formula::Rate(rate)) },
        derived("double", expression("power * 2")),
        derived("share", expression("a / b")),
    ];
    all
}

#[test]
fn derived_values_follow_their_inputs() {
    let mut bench = bench(meter());
    assert_eq!(bench.send(TOPIC, r#"{"a":2}"#).stored, ["a=2"]);
    assert_eq!(bench.send(TOPIC, r#"{"b":3}"#).stored, ["b=3", "power=6", "double=12", "share=0.6666666666666666"]);
    assert_eq!(bench.send(TOPIC, r#"{"x":1}"#).stored, ["x=1"], "nothing is new that they are over");
    assert_eq!((bench.intro("power").unit.as_str(), bench.intro("power").kind), ("W", Kind::Number));
    bench.seq += 58;
    assert_eq!(bench.send(TOPIC, r#"{"a":5}"#).stored, ["a=5", "power=15", "double=30", "share=1.6666666666666667"]);
    bench.seq += 10;
    assert_eq!(bench.send(TOPIC, r#"{"a":5}"#).stored, ["a=5"], "b is older than a minute");
    // Neither a division by zero nor what is out of range is a reading.
    let zero = bench.send(TOPIC, r#"{"a":1,"b":0}"#);
    assert_eq!(
        (zero.stored, zero.refused.len()),
        (["a=1", "b=0", "power=0", "double=0"].map(str::to_owned).to_vec(), 0)
    );
    assert_eq!(bench.normalizer.metrics.derived_undefined.get(), 1);
    let far = bench.send(TOPIC, r#"{"a":-2000,"b":1}"#);
    assert_eq!(far.stored, ["a=-2000", "b=1"]);
    assert_eq!(far.refused, [(Reason::OutOfRange, Some("power".into())), (Reason::OutOfRange, Some("share".into()))]);
}

#[test]
fn a_counters_rate_survives_a_roll_over_and_a_reset_gives_none() {
    let mut bench = bench(meter());
    let mut send = |count: u32| {
        bench.seq += 59;
        bench.send(TOPIC, format!("{{\"c\":{count}}}")).stored
    };
    assert_eq!(send(950), ["c=950"]);
    assert_eq!(send(960), ["c=960", "flow=600"]);
    assert_eq!(send(10), ["c=10", "flow=3000"]);
    assert_eq!(send(5), ["c=5"]);
    assert_eq!(send(5), ["c=5", "flow=0"]);
}

#[test]
fn a_modules_derived_metrics_are_over_its_own() {
    let mut known = device(1, "d1", None);
    known.modules.push(module("m1", "t"));
    let mut bench = Bench::new(|_| {}, &snapshot(vec![meter(), climate()], vec![known]));
    assert_eq!(
        bench.send("m/default/d1/m1", r#"{"a":2,"b":4}"#).stored,
        ["m1.a=2", "m1.b=4", "m1.power=8", "m1.double=16", "m1.share=0.5"]
    );
    assert_eq!(bench.intro("m1.power").module.as_deref(), Some("m1"));
}

/// As the documentation has it, in the plainest way.
#[derive(Default)]
struct Reference {
    newest: HashMap<&'static str, (i64, f64)>,
}

impl Reference {
    fn message(&mut self, time: i64, values: &[(&'static str, f64)]) -> Vec<(&'static str, f64)> {
        let before = self.newest.clone();
        let mut here: HashMap<&str, f64> = HashMap::new();
        let mut out: Vec<(&'static str, f64)> = Vec::new();
        let mut put = |this: &mut Reference, name: &'static str, value: f64| {
            here.insert(name, value);
            let newest = this.newest.entry(name).or_insert((time, value));
            if time > newest.0 {
                *newest = (time, value);
            }
            out.push((name, value));
            here.clone()
        };
        let mut now = HashMap::new();
        for (name, value) in values {
            now = put(self, name, *value);
        }
        let input = |this: &Reference, now: &HashMap<&str, f64>, name: &str| {
            let old = this.newest.get(name).filter(|(at, _)| (0..=60).contains(&(time - at))).map(|(_, value)| *value);
            now.get(name).copied().or(old)
        };
        let news = |now: &HashMap<&str, f64>, names: &[&str]| names.iter().any(|name| now.contains_key(name));
        if news(&now, &["a", "b"])
            && let (Some(a), Some(b)) = (input(self, &now, "a"), input(self, &now, "b"))
        {
            now = put(self, "power", a * b);
        }
        if let (Some(new), Some((at, old))) = (now.get("c").copied(), before.get("c").copied())
            && (1..=600).contains(&(time - at))
        {
            let rise = if new >= old {
                Some(new - old)
            } else if (900.0..=1000.0).contains(&old) && new <= 100.0 {
                Some(new + 1000.0 - old)
            } else {
                None
            };
            if let Some(rise) = rise {
                now = put(self, "flow", rise * 3600.0 / (time - at) as f64);
            }
        }
        if let Some(power) = now.get("power").copied() {
            now = put(self, "double", power * 2.0);
        }
        if news(&now, &["a", "b"])
            && let (Some(a), Some(b)) = (input(self, &now, "a"), input(self, &now, "b"))
            && b != 0.0
        {
            put(self, "share", a / b);
        }
        out
    }
}

proptest! {
    #[test]
    fn derived_values_are_those_of_a_plain_reference_also_after_a_restart(
        messages in prop::collection::vec(
            (-30_i64..120, prop::option::of(0_u32..30), prop::option::of(0_u32..30), prop::option::of(0_u32..1000)), 1..40),
        restart in 0_usize..40,
    ) {
        let mut template = meter();
        template.derived.iter_mut().for_each(|derived| derived.range = None);
        template.keys = KeyMap::of(&template.metrics);
        let mut bench = bench(template.clone());
        let mut reference = Reference::default();
        let mut last: HashMap<String, (UtcMicros, f64)> = HashMap::new();
        let mut at = 0_i64;
        for (number, (step, a, b, c)) in messages.into_iter().enumerate() {
            at += step;
            let values: Vec<(&'static str, f64)> = [("a", a), ("b", b), ("c", c)]
                .into_iter()
                .filter_map(|(name, value)| Some((name, f64::from(value?))))
                .collect();
            let fields: Vec<String> = values.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
            let base = RECEIVED.0 / 1_000_000 + 100;
            let payload = format!("{{\"ts\":{},\"values\":{{{}}}}}", (base + at) * 1000, fields.join(","));
            if number == restart {
                bench = restarted(&bench, template.clone(), &last);
            }
            // As late as the clock of the device has gone ahead.
            bench.seq = 5000 + number as u64;
            let found = bench.send(TOPIC, payload);
            prop_assert_eq!(&found.refused, &vec![]);
            let expected = reference.message(at, &values);
            let shown: Vec<String> = expected.iter().map(|(name, value)| format!("{name}={value}")).collect();
            prop_assert_eq!(&found.stored, &shown);
            for (name, _) in &expected {
                let (seconds, value) = reference.newest[name];
                last.insert((*name).to_owned(), (UtcMicros((base + seconds) * 1_000_000), value));
            }
        }
    }
}
