//! A day of a fleet of 1,000 devices, from its journal through decoding, rules and writer into the database: in large batches, and in small
//! ones with crashes in between. Every step of every alert must be the same.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use bytes::Bytes;
use diesel::prelude::*;
use diesel::sql_types::Text;
use tokio_util::sync::CancellationToken;

use super::announcer::announcer;
use super::desk::Desk;
use super::evaluator::episode_id;
use super::transition::TICK_TOPIC;
use super::watch::Watch;
use crate::catalog::{Declared, files};
use crate::config::{Config, Database, DatabaseUrl, Sync};
use crate::errands::errands;
use crate::journal::{Acknowledge, Bounds, Journal, Options, Token, testing};
use crate::listening::Listening;
use crate::message::{Message, Publish};
use crate::metrics::Metrics;
use crate::normalize::Normalizer;
use crate::pipeline::Pipeline;
use crate::presence;
use crate::reload::CatalogKeeper;
use crate::store::batch::Batch;
use crate::store::{BatchWriter, Store};
use crate::time::UtcMicros;
use crate::unanswered::Unanswered;

const DEVICES: u64 = 1000;
/// Messages of a device, evenly over the day.
const SLOTS: u64 = 64;
const SECOND: i64 = 1_000_000;
const SLOT: i64 = 1350 * SECOND;
/// Midnight, 2023-11-15.
const BEGIN: i64 = 1_700_006_400 * SECOND;
/// Devices whose alert people deal with.
const HANDLED: u64 = 10;
const INSTANCE: &str = "test";

/// A rule of each kind of condition, with what else a rule can say spread over them.
const RULES: [(&str, &str); 18] = [
    (
        "hot",
        "when = { metric = \"temperature\", gt = 31.0, for = \"20m\" }\nclear = { lt = 29.0, for = \"10m\" }\nraise = [{ severity = \"critical\", when = { gt = 33.0 } }]",
    ),
    ("cold", "when = { metric = \"temperature\", lte = 9.0 }\nmin_firing = \"1h\"\ncooldown = \"2h\""),
    ("pressed", "when = { metric = \"pressure\", outside = [2.0, 4.0] }\nclear = { inside = [2.2, 3.8] }"),
    ("door", "when = { metric = \"contact\", eq = false, for = \"25m\" }\nclear = { for = \"5m\" }"),
    ("faulty", "when = { metric = \"mode\", eq = \"fault\" }"),
    ("shaky", "when = { metric = \"temperature\", samples = 5, least = 3, gt = 30.0 }"),
    ("mean", "when = { metric = \"temperature\", window = \"2h\", aggregate = \"avg\", gt = 29.5 }"),
    ("tail", "when = { metric = \"flow\", window = \"3h\", aggregate = \"p95\", gt = 12.5 }"),
    ("few", "when = { metric = \"flow\", window = \"90m\", aggregate = \"count\", lt = 3 }"),
    ("used", "when = { metric = \"energy\", rate = \"1h\", counter = true, gt = 30.0 }"),
    ("falling", "when = { metric = \"temperature\", rate = \"1h\", lt = -3.2 }"),
    ("silent", "when = { absent = \"1h 15m\" }\nraise = [{ severity = \"critical\", when = { absent = \"3h\" } }]"),
    ("unmeasured", "when = { metric = \"temperature\", absent = \"2h\" }"),
    ("stuck", "when = { metric = \"level\", stuck = \"5h\" }"),
    ("odd", "when = { metric = \"flow\", anomaly = 4.0 }"),
    ("away", "when = { metric = \"latitude\", geofence = { circle = [52.5, 13.4, 900] }, is = \"outside\" }"),
    (
        "tree",
        "when = { all = [{ any = [{ metric = \"temperature\", gt = 28.0, for = \"30m\" }, { metric = \"pressure\", gt = 3.9 }] }, { not = { metric = \"mode\", eq = \"auto\" } }] }",
    ),
    ("apart", "resolve = \"manual\"\nwhen = { metric = \"pressure\", other = \"level\", gt = 1.6 }"),
];
/// Only people end it.
const WATCHED: &str = "resolve = \"manual\"\nscope.device = \"watched-*\"\nwhen = { metric = \"v\", gt = 99 }";

/// What is received, in order: when, on which topic, what.
type Day = Vec<(i64, String, String)>;

fn day(seed: u64) -> Day {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut day = Day::new();
    for device in 0..DEVICES {
        of_device(device, &mut rng, &mut day);
    }
    for device in 0..HANDLED {
        handled(device, &mut day);
    }
    for minute in 0..24 * 60 {
        day.push((BEGIN + minute * 60 * SECOND, TICK_TOPIC.to_owned(), String::new()));
    }
    day.sort();
    day
}

fn of_device(device: u64, rng: &mut fastrand::Rng, day: &mut Day) {
    let topic = format!("devices/d{device:03}/telemetry");
    let phase = i64::try_from(rng.u64(0..1350)).unwrap() * SECOND;
    let (mut energy, mut place, mut open) = (rng.f64() * 1000.0, 0.0, false);
    for slot in 0..SLOTS {
        let time = BEGIN + i64::try_from(slot).unwrap() * SLOT + phase;
        let hour = (time - BEGIN) as f64 / (3600.0 * SECOND as f64);
        let noise = |rng: &mut fastrand::Rng| rng.f64() + rng.f64() - 1.0;
        let curve = 20.0 - 9.0 * (hour / 24.0 * std::f64::consts::TAU).cos();
        let mut values = Vec::new();
        // Some lose their thermometer for a while, others are silent altogether.
        let lost = device % 40 == 4 && (20..40).contains(&slot);
        if device % 40 == 3 && (50..50 + device / 40).contains(&slot) {
            continue;
        }
        if !lost {
            values.push(format!("\"temperature\":{:.2}", curve + (device % 7) as f64 - 2.0 + 1.5 * noise(rng)));
        }
        if device.is_multiple_of(5) {
            let flow = if rng.u64(0..150) == 0 { 30.0 } else { 10.0 + 2.0 * noise(rng) };
            values.push(format!("\"flow\":{flow:.3}"));
        }
        if device % 9 == 1 && slot.is_multiple_of(2) {
            // A reset now and then.
            energy = if rng.u64(0..80) == 0 { 0.0 } else { energy + rng.f64() * 25.0 };
            values.push(format!("\"energy\":{energy:.1}"));
        }
        if device % 6 == 2 {
            open = if open { rng.u64(0..3) > 0 } else { rng.u64(0..12) == 0 };
            values.push(format!("\"contact\":{}", !open));
        }
        if device % 8 == 3 {
            let mode = ["auto", "auto", "manual", "fault"][rng.usize(0..4)];
            values.push(format!("\"mode\":\"{mode}\",\"pressure\":{:.2}", 3.0 + 1.1 * noise(rng)));
            values.push(format!("\"level\":{}", if (slot / 30).is_multiple_of(2) { 2 } else { 1 + slot % 3 }));
        }
        if device % 20 == 7 {
            place += 0.004 * noise(rng);
            values.push(format!("\"latitude\":{:.5},\"longitude\":13.4", 52.5 + place));
        }
        let payload = format!("{{\"ts\":{},\"values\":{{{}}}}}", time / 1000, values.join(","));
        let delay = match rng.u64(0..100) {
            0..=2 => SLOT * rng.i64(1..4) + rng.i64(0..SLOT),
            3..=5 => rng.i64(0..60 * SECOND),
            _ => rng.i64(0..2 * SECOND),
        };
        day.push((time + delay, topic.clone(), payload.clone()));
        if rng.u64(0..100) == 0 {
            day.push((time + delay + rng.i64(1..SLOT), topic.clone(), payload));
        }
    }
}

/// One alert, and what people do with it until it is over.
fn handled(device: u64, day: &mut Day) {
    let uid = format!("watched-{device}");
    let onset = BEGIN + i64::try_from(10 + device).unwrap() * SLOT;
    let payload = |value: u32, time: i64| format!("{{\"ts\":{},\"values\":{{\"v\":{value}}}}}", time / 1000);
    let topic = format!("devices/{uid}/telemetry");
    day.push((onset - SLOT, topic.clone(), payload(1, onset - SLOT)));
    day.push((onset + 1, topic.clone(), payload(100, onset)));
    day.push((onset + 9 * SLOT, topic, payload(1, onset + 9 * SLOT)));
    let id = episode_id("watched", "default", &uid, "v", onset);
    for (slots, verb, payload) in [
        (2, "ack", r#"{"who":"ann","note":"on my way"}"#),
        (3, "note", r#"{"note":"it is the fan"}"#),
        (4, "snooze", r#"{"who":"bo","for":"40m"}"#),
        (8, "resolve", r#"{"who":"ann"}"#),
        (12, "ack", r#"{"who":"late"}"#),
    ] {
        day.push((onset + slots * SLOT + 7, format!("tidegate/alerts/default/{id}/{verb}"), payload.to_owned()));
    }
}

fn messages(day: Day) -> impl Iterator<Item = Message> {
    let mut last = 0;
    day.into_iter().zip(1..).map(move |((at, topic, payload), seq)| {
        // No two are equal.
        last = at.max(last + 1);
        let publish = Publish::plain(topic, Bytes::from(payload), 1);
        Message { seq, received_at: UtcMicros(last), publish }
    })
}

fn declared(dir: &Path) -> Declared {
    let rules = dir.join("rules");
    std::fs::create_dir(&rules).unwrap();
    let scope = "scope = { all = true, except = { device = \"watched-*\" } }";
    let all = RULES.iter().map(|(slug, rest)| (*slug, format!("{scope}\n{rest}")));
    for (slug, rest) in all.chain([("watched", WATCHED.to_owned())]) {
        let text = format!("slug = \"{slug}\"\nseverity = \"warning\"\n{rest}\n");
        std::fs::write(rules.join(format!("{slug}.toml")), text).unwrap();
    }
    files::load(Some(dir)).unwrap_or_else(|faults| panic!("{faults}"))
}

struct Nobody;

impl Acknowledge for Nobody {
    fn durable(&self, _: &[Token]) {}
}

/// A daemon's life on the journal, from where the database is: until `commits` batches are committed, then it dies; or to the end.
fn live(journal_dir: &Path, catalog: &Declared, config: &Config, commits: Option<usize>) {
    let metrics = Metrics::new();
    let options = Options {
        dir: journal_dir.to_owned(),
        max_size: 1 << 30,
        retain: Duration::from_secs(3600),
        sync: Sync::Always,
        redelivery_window: 10,
        inbox: Bounds { messages: 10, bytes: 1 << 20 },
        tail_bytes: 1 << 20,
    };
    let journal = Journal::open(options, metrics.clone()).unwrap();
    let (inbox, reader, journal_id) = (journal.inbox(), journal.reader(), journal.id().to_owned());
    let (journal_last, progress, find) = (journal.last_seq(), journal.progress(), journal.reader());
    inbox.close();
    journal.run(Arc::new(Nobody)).unwrap();

    let store = Store::open(&config.database).unwrap();
    let (opening_out, opening) = sync_channel(1);
    let (opened_out, _opened) = sync_channel(1);
    let (reloads_out, reloads) = sync_channel(1);
    let (requests_out, requests) = sync_channel(1);
    drop(requests_out);
    let keeper = CatalogKeeper {
        store: store.clone(),
        config: config.clone(),
        journal_id: journal_id.clone(),
        journal_last,
        progress,
        opening: opening_out,
        opened: opened_out,
        requests,
        reloads: reloads_out,
        listening: Listening::new(config).unwrap(),
        unanswered: Unanswered::default(),
        desk: Desk::new(inbox.clone()),
        stop: CancellationToken::new(),
        metrics: metrics.clone(),
    };
    keeper.run(catalog.clone()).unwrap();
    let opening = opening.recv().unwrap();
    let normalizer = Normalizer::new(config, &opening.snapshot, opening.memory, metrics.clone()).unwrap();
    let (mut announcer, _announced) = announcer(metrics.clone());
    announcer.begin();
    let (errands, _errands) = errands(Duration::from_secs(30), metrics.clone());
    let observer = opening.observer;
    let presence = presence::Watch { observer, inbox: inbox.clone(), metrics: metrics.clone(), ticked: None };
    let (evaluator, dispatcher) = (opening.evaluator, opening.dispatcher);
    let watch =
        Watch { evaluator, dispatcher, announcer, inbox, metrics: metrics.clone(), ticking: None, dispatched: 0 };
    let (batches_out, batches) = sync_channel(2);
    let pipeline = Pipeline {
        normalizer,
        reader,
        position: opening.position,
        batches: batches_out,
        ahead: VecDeque::new(),
        batch_max: config.database.batch_max,
        reloads,
        watch,
        presence,
        errands,
        stop: CancellationToken::new(),
        metrics: metrics.clone(),
    };
    let rows = BatchWriter::new(store, INSTANCE, &journal_id, metrics);
    std::thread::scope(|scope| {
        let pipeline = scope.spawn(move || pipeline.run().unwrap());
        write(&batches, rows, find, commits);
        drop(batches);
        pipeline.join().unwrap();
    });
}

fn write(batches: &Receiver<Batch>, mut rows: BatchWriter, mut find: crate::journal::Reader, commits: Option<usize>) {
    let find = std::cell::RefCell::new(&mut find);
    for batch in batches.iter().take(commits.unwrap_or(usize::MAX)) {
        rows.commit(&batch, &|seq| find.borrow_mut().get(seq).unwrap()).unwrap();
    }
}

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = Text)]
    line: String,
}

fn lines(database: &Path, sql: &str) -> Vec<String> {
    let mut connection = SqliteConnection::establish(database.to_str().unwrap()).unwrap();
    let lines: Vec<Line> = diesel::sql_query(sql).load(&mut connection).unwrap();
    lines.into_iter().map(|line| line.line).collect()
}

/// Every step but when it was recorded.
const STEPS: &str = "SELECT concat_ws('|', a.rule, d.uid, a.group_name, a.id, t.step, t.at, a.onset, a.since, t.state, t.severity, t.value, t.threshold, \
                     t.who, t.why, t.message) AS line FROM alert_transitions t JOIN alerts a ON a.id = t.alert_id \
                     JOIN devices d ON d.id = a.device_id ORDER BY a.id, t.step";
/// What is remembered at the end; when each rule was last looked at is a matter of when it was kept.
const ALERTS: &str = "SELECT concat_ws('|', id, state, severity, step, value, acknowledged_by, acknowledged_at, resolved_at, snoozed_until) AS line \
                      FROM alerts ORDER BY id";
const READINGS: &str = "SELECT concat_ws('|', count(*), sum(time % 1000003), total(value)) AS line FROM telemetry";

#[test]
fn a_day_of_a_thousand_devices_gives_the_same_alerts_whatever_the_batches_and_crashes() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = declared(dir.path());
    let journal = dir.path().join("journal");
    std::fs::create_dir(&journal).unwrap();
    let day = day(7);
    let received = day.len();
    testing::write(&journal, messages(day));
    let config = |name: &str, batch_max: usize| {
        let database = dir.path().join(name);
        let default = Config::default();
        let instance = crate::config::Instance { id: INSTANCE.to_owned(), ..default.instance.clone() };
        let of = Database { url: DatabaseUrl::Sqlite(database.clone()), batch_max, ..default.database.clone() };
        (database, Config { instance, database: of, ..default })
    };

    let (at_once, settings) = config("at-once.db", 30_000);
    live(&journal, &catalog, &settings, None);
    let (in_pieces, settings) = config("in-pieces.db", 700);
    for commits in [Some(1), Some(60), Some(90), None] {
        live(&journal, &catalog, &settings, commits);
    }

    assert_eq!(lines(&at_once, READINGS), lines(&in_pieces, READINGS));
    let (one, other) = (lines(&at_once, STEPS), lines(&in_pieces, STEPS));
    let mut by_rule: BTreeMap<&str, usize> = BTreeMap::new();
    for step in &one {
        *by_rule.entry(step.split('|').next().unwrap()).or_default() += 1;
    }
    println!("{received} messages, {} steps: {by_rule:?}", one.len());
    for (slug, _) in RULES.iter().chain(&[("watched", "")]) {
        assert!(by_rule.get(slug).is_some_and(|steps| *steps >= 10), "{slug}: {by_rule:?}");
    }
    let (of_one, of_other): (BTreeSet<&String>, BTreeSet<&String>) = (one.iter().collect(), other.iter().collect());
    let differing: Vec<_> = of_one.difference(&of_other).take(40).collect();
    let only_there: Vec<_> = of_other.difference(&of_one).take(40).collect();
    assert!(differing.is_empty() && only_there.is_empty(), "{differing:#?}\nagainst\n{only_there:#?}");
    assert_eq!(one, other);
    assert_eq!(lines(&at_once, ALERTS), lines(&in_pieces, ALERTS));
}
