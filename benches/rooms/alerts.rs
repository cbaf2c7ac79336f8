//! What alert rules cost: ten on each metric of every message, and the memory of ten for each of 100,000 devices.

use std::sync::Arc;
use std::time::Instant;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use tidegate::alert::rule_file::from_json;
use tidegate::alert::{Added, Evaluator, Rule};
use tidegate::catalog::{Kind, Snapshot, files};
use tidegate::store::batch::{DeviceIntro, Reading, SensorIntro, SensorOrigin};
use tidegate::time::UtcMicros;

const METRICS: u32 = 10;
/// On each metric.
const RULES: u32 = 10;
const START: i64 = 1_700_000_000_000_000;

/// Rules of the kinds that people write most, whose thresholds are seldom passed.
fn rules(metrics: u32) -> Vec<Arc<Rule>> {
    let of = |metric: u32, n: u32| {
        let when = match n % 5 {
            0 => serde_json::json!({ "metric": format!("m{metric}"), "gt": 90.0 + f64::from(n) }),
            1 => serde_json::json!({ "metric": format!("m{metric}"), "gt": 95.0, "for": "2m" }),
            2 => serde_json::json!({ "metric": format!("m{metric}"), "lt": -1.0 - f64::from(n) }),
            3 => serde_json::json!({ "metric": format!("m{metric}"), "outside": [-5.0, 120.0] }),
            _ => serde_json::json!({ "metric": format!("m{metric}"), "gte": 99.5, "for": "10s" }),
        };
        let slug = format!("rule-{metric}-{n}");
        let rule = serde_json::json!({ "slug": slug, "name": slug, "severity": "warning", "scope": { "all": true }, "when": when });
        Arc::new(from_json(&rule, "bench").expect("a sound rule"))
    };
    (0..metrics).flat_map(|metric| (0..RULES).map(move |n| (metric, n))).map(|(metric, n)| of(metric, n)).collect()
}

/// A fleet that has been heard once.
struct Watched {
    evaluator: Evaluator,
    devices: u32,
    metrics: u32,
    seq: u64,
}

impl Watched {
    fn new(rules: Vec<Arc<Rule>>, devices: u32, metrics: u32) -> Watched {
        let snapshot = Snapshot { rules, ..Snapshot::default() };
        let mut watched = Watched { evaluator: Evaluator::new(&snapshot, Vec::new()), devices, metrics, seq: 0 };
        for device in 0..devices {
            let intro = DeviceIntro {
                index: device,
                id: None,
                tenant: "default".into(),
                uid: format!("device-{device}").into(),
                template: None,
                template_by: None,
                told: Vec::new(),
                protocol: None,
                protocol_why: None,
                source: String::new(),
                first_seen: UtcMicros(0),
            };
            let sensors = (0..metrics).map(|metric| SensorIntro {
                index: device * metrics + metric,
                id: None,
                device,
                module: None,
                metric: format!("m{metric}").into(),
                unit: String::new(),
                kind: Kind::Number,
                plain: true,
                origin: SensorOrigin::Unmodeled,
                raw_key: None,
            });
            watched.take(device, &[intro], &sensors.collect::<Vec<_>>());
        }
        watched
    }

    fn take(&mut self, device: u32, devices: &[DeviceIntro], sensors: &[SensorIntro]) {
        self.seq += 1;
        let time = UtcMicros(START + self.seq as i64 * 100);
        let value = |metric: u32| f64::from((device * 7 + metric * 3 + self.seq as u32) % 90);
        let readings: Vec<Reading> = (0..self.metrics)
            .map(|metric| Reading { sensor: device * self.metrics + metric, time, value: value(metric), seq: self.seq })
            .collect();
        let seen = [(device, time)];
        let added = Added { devices, sensors, changes: &[], readings: &readings, texts: &[], seen: &seen };
        self.evaluator.message(time, self.seq, black_box(added));
    }

    /// A message of the next device.
    fn next(&mut self) {
        let device = (self.seq % u64::from(self.devices)) as u32;
        self.take(device, &[], &[]);
    }
}

/// Of each reading; ten rules look at its metric.
#[divan::bench(args = [1, 1000, 10_000])]
fn ten_rules_on_a_metric(bencher: Bencher<'_, '_>, devices: u32) {
    let mut watched = Watched::new(rules(METRICS), devices, METRICS);
    bencher.counter(ItemsCount::new(METRICS)).bench_local(|| watched.next());
}

/// The same without rules, to be taken off.
#[divan::bench]
fn without_rules(bencher: Bencher<'_, '_>) {
    let mut watched = Watched::new(Vec::new(), 1000, METRICS);
    bencher.counter(ItemsCount::new(METRICS)).bench_local(|| watched.next());
}

/// Rules that an installation might have at most: most of them of one device each, some of every device.
const MANY: u32 = 10_000;

/// Prints what it takes to read [`MANY`] rules from files and to keep them, and what a reading costs with them.
pub fn print_many() {
    let dir = tempfile::tempdir().expect("a directory");
    let rules = dir.path().join("rules");
    std::fs::create_dir(&rules).expect("a directory");
    for n in 0..MANY {
        let (scope, metric) = if n.is_multiple_of(100) {
            ("all = true".to_owned(), n / 100 % 10)
        } else {
            (format!("device = \"device-{n}\""), n % 10)
        };
        let text = format!(
            "slug = \"r{n}\"\nseverity = \"warning\"\nscope.{scope}\nwhen = {{ metric = \"m{metric}\", gt = 200, for = \"2m\" }}\n"
        );
        std::fs::write(rules.join(format!("r{n}.toml")), text).expect("a file");
    }
    let before = resident();
    let begun = Instant::now();
    let declared = files::load(Some(dir.path())).expect("sound rules");
    println!("{MANY} rules from files, checked: {:.2} s", begun.elapsed().as_secs_f64());
    let rules = declared.rules.iter().map(|declared| Arc::new(declared.rule.clone())).collect();
    let begun = Instant::now();
    let mut watched = Watched::new(rules, MANY, METRICS);
    println!(
        "brought to {MANY} devices of {METRICS} metrics: {:.2} s, {:.0} MiB",
        begun.elapsed().as_secs_f64(),
        resident() - before
    );
    let messages = 100_000;
    let begun = Instant::now();
    (0..messages).for_each(|_| watched.next());
    let each = begun.elapsed().as_secs_f64() * 1e6 / f64::from(messages * METRICS);
    println!("a reading that 10 of them look at, and one of its device's own sometimes: {each:.3} µs");
}

/// MiB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / 1024.0
}

/// Prints what 100,000 devices with ten rules each take.
pub fn print_memory() {
    let before = resident();
    let watched = Watched::new(rules(1), 100_000, 1);
    println!("100,000 devices with 10 rules each: {:.0} MiB", resident() - before);
    black_box(&watched.evaluator);
}
