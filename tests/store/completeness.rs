use std::time::Duration;

use tidegate::cli;
use tidegate::store::batch::TextReading;
use tidegate::store::completeness::{Basis, DeviceCompleteness, Period};
use tidegate::store::query::DeviceFilter;

use super::{Site, at, batch, device, lookup, on_both, reading, sensor};

on_both!(
    a_devices_gaps_are_found_and_its_completeness_told,
    one_sensor_that_reports_keeps_a_device_up,
    every_device_is_told_on_a_line_of_its_own,
);

const SECOND: i64 = 1_000_000;

/// Device 0: a reading each ten seconds, of 1,000 seconds but for 400 to 600. Device 1: text each ten seconds throughout, and
/// a number at the beginning only. Device 2 is silent.
fn filled(site: &Site) {
    let (mut writer, _) = site.writer();
    let times = (0..100).map(|n| n * 10 * SECOND);
    let mut work = batch(1, Vec::new());
    work.devices = (0..3).map(device).collect();
    work.sensors =
        vec![sensor(0, 0, "temperature"), sensor(1, 1, "state"), sensor(2, 1, "count"), sensor(3, 2, "none")];
    work.sensors[1].kind = tidegate::catalog::Kind::Text;
    work.seen = Vec::new();
    let holed = times.clone().filter(|time| !(400..600).contains(&(time / SECOND)));
    work.readings = holed.map(|time| reading(0, time, 1.0, 1)).collect();
    work.readings.extend((0..10).map(|n| reading(2, n * SECOND, 1.0, 1)));
    work.texts = times.map(|time| TextReading { sensor: 1, time: at(time), value: "on".into(), seq: 1 }).collect();
    writer.commit(&work, &lookup).unwrap();
}

fn period(interval: Option<u64>) -> Period {
    Period { from: at(-5000 * SECOND), to: at(1000 * SECOND), interval: interval.map(Duration::from_secs) }
}

fn asked(site: &Site, uid: &str, interval: Option<u64>) -> DeviceCompleteness {
    let filter = DeviceFilter { uid: Some(uid.to_owned()), ..DeviceFilter::default() };
    let mut found = Vec::new();
    let each = |device| {
        found.push(device);
        Ok::<(), tidegate::store::StoreError>(())
    };
    site.store.completeness(&filter, period(interval), each).unwrap();
    assert_eq!(found.len(), 1);
    found.remove(0)
}

fn a_devices_gaps_are_found_and_its_completeness_told(site: &Site) {
    filled(site);
    let device = asked(site, "d0", None);
    assert_eq!((device.period.from, device.period.to), (at(0), at(1000 * SECOND)), "it begins with the device");
    let sensor = &device.sensors[0];
    let (interval, basis) = sensor.interval.unwrap();
    assert_eq!(basis, Basis::Median);
    assert!((9.9..10.1).contains(&interval.as_secs_f64()));
    assert_eq!((sensor.present, sensor.gaps, sensor.longest[0].from), (80, 1, at(390 * SECOND)));
    assert_eq!(sensor.longest[0].length(), Duration::from_secs(210));
    assert!((device.completeness.unwrap() - 0.8).abs() < 0.01, "{device:?}");
    assert!((device.uptime.unwrap() - 0.79).abs() < 0.001, "{device:?}");

    let given = asked(site, "d0", Some(5));
    assert_eq!(given.sensors[0].interval, Some((Duration::from_secs(5), Basis::Given)));
    assert_eq!((given.sensors[0].expected, given.completeness), (Some(200), Some(0.4)));
}

fn one_sensor_that_reports_keeps_a_device_up(site: &Site) {
    filled(site);
    let device = asked(site, "d1", None);
    let of = |metric: &str| device.sensors.iter().find(|sensor| sensor.metric == metric).unwrap();
    assert!(of("count").covered.unwrap() < 0.02);
    assert_eq!((of("state").present, of("state").gaps, of("state").covered), (100, 0, Some(1.0)));
    assert_eq!(device.uptime, Some(1.0));
    assert!(device.longest_down.is_empty());

    let silent = asked(site, "d2", None);
    assert_eq!((silent.uptime, silent.completeness, silent.sensors[0].interval), (None, None, None));
    assert_eq!(asked(site, "d2", Some(10)).uptime, Some(0.0));
}

fn every_device_is_told_on_a_line_of_its_own(site: &Site) {
    filled(site);
    let mut out = Vec::new();
    let filter = DeviceFilter::default();
    cli::uptime::all(&site.store, &filter, period(None), true, &mut out).unwrap();
    let list: serde_json::Value = serde_json::from_slice(&out).unwrap();
    let names: Vec<&str> = list.as_array().unwrap().iter().map(|one| one["device"].as_str().unwrap()).collect();
    assert_eq!(names, ["d0", "d1", "d2"]);
    out.clear();
    cli::uptime::all(&site.store, &filter, period(None), false, &mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap().lines().count(), 4);

    let mut out = Vec::new();
    let one = DeviceFilter { uid: Some("d0".into()), ..DeviceFilter::default() };
    cli::uptime::one(&site.store, &one, "d0", period(None), false, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("10s median") && text.contains("3m 30s from"), "{text}");
    let nobody = DeviceFilter { uid: Some("nobody".into()), ..DeviceFilter::default() };
    assert!(cli::uptime::one(&site.store, &nobody, "nobody", period(None), false, &mut Vec::new()).is_err());
    let nobody = DeviceFilter { template: Some("nothing".into()), ..DeviceFilter::default() };
    let mut out = Vec::new();
    cli::uptime::all(&site.store, &nobody, period(None), true, &mut out).unwrap();
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&out).unwrap(), serde_json::json!([]));
}
