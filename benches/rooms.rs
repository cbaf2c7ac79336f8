//! Times the rooms between a message and its batch, each alone: `cargo bench --bench rooms [filter]`.
//!
//! Payloads are those of the simulated fleet. What a message costs beyond its decoding is routing and normalizing.
//! `cargo bench --bench rooms -- --formats` times every decoder on the corpus instead, and prints a table; `--alert-memory` prints what
//! alert rules keep in memory, `--alert-rules` what ten thousand of them take.

#[path = "rooms/alerts.rs"]
mod alerts;
#[path = "rooms/formats.rs"]
mod formats;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use bytes::Bytes;
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use tidegate::catalog::{Snapshot, Template, files};
use tidegate::config::{Config, Csv, Decoder, Limits, Source, SparkplugSource, Sync};
use tidegate::decode::memory::Memory;
use tidegate::decode::{self, Context};
use tidegate::journal::{Acknowledge, Bounds, Inbox, Journal, Options, Token};
use tidegate::message::{Message, Publish};
use tidegate::metrics::Metrics;
use tidegate::mqtt::load::Outgoing;
use tidegate::normalize::Normalizer;
use tidegate::simulate::{Fleet, Kind};
use tidegate::source::{Captures, Sources};
use tidegate::store::batch::Batch;
use tidegate::time::UtcMicros;

fn main() {
    if std::env::args().any(|argument| argument == "--formats") {
        formats::print();
    } else if std::env::args().any(|argument| argument == "--alert-memory") {
        alerts::print_memory();
    } else if std::env::args().any(|argument| argument == "--alert-rules") {
        alerts::print_many();
    } else {
        divan::main();
    }
}

fn message_of(kind: Kind) -> Outgoing {
    Fleet::new(&[(kind, 1)], "bench-", 1, false).publish().expect("a fleet of one")
}

mod decoding {
    use super::*;

    fn context<'a>(topic: &'a str, captures: &'a Captures<'a>, limits: &'a Limits) -> Context<'a> {
        Context {
            topic,
            captures,
            received_at: UtcMicros(1_700_000_000_000_000),
            timestamp: None,
            timezone: None,
            limits,
            csv: Csv::default(),
            sparkplug: SparkplugSource::default(),
        }
    }

    fn bench(bencher: Bencher<'_, '_>, decoder: Decoder, payload: &[u8], captures: &Captures<'_>) {
        let limits = Limits::default();
        let context = context("devices/d1/telemetry", captures, &limits);
        let mut memory = Memory::default();
        let mut recall = memory.of_source(&"bench".into());
        bencher.bench_local(|| decode::decode(decoder, black_box(payload), &context, &mut recall));
    }

    fn json(bencher: Bencher<'_, '_>, payload: &[u8]) {
        bench(bencher, Decoder::Json, payload, &Captures { device: Some("d1"), ..Captures::default() });
    }

    #[divan::bench(args = [1, 5, 10, 50])]
    fn json_keys(bencher: Bencher<'_, '_>, metrics: usize) {
        json(bencher, &message_of(Kind::Json { metrics }).payload);
    }

    #[divan::bench]
    fn json_tasmota(bencher: Bencher<'_, '_>) {
        json(bencher, &message_of(Kind::TasmotaPlug).payload);
    }

    #[divan::bench]
    fn json_nested_objects_and_arrays(bencher: Bencher<'_, '_>) {
        json(bencher, &from_corpus("nested objects and arrays"));
    }

    /// Data by alias, after the births of node and device.
    #[divan::bench]
    fn sparkplug(bencher: Bencher<'_, '_>) {
        let (limits, captures) = (Limits::default(), Captures::default());
        let mut memory = Memory::default();
        let mut recall = memory.of_source(&"bench".into());
        let mut fleet = Fleet::new(&[(Kind::SparkplugNode, 1)], "bench-", 1, true);
        let mut read = |message: &Outgoing| {
            let context = context(&message.topic, &captures, &limits);
            decode::decode(Decoder::Sparkplug, black_box(&message.payload), &context, &mut recall)
        };
        let births = [fleet.publish(), fleet.publish()];
        births.iter().flatten().for_each(|birth| drop(read(birth).expect("a birth")));
        let data = fleet.publish().expect("a fleet of one");
        assert!(read(&data).is_ok());
        bencher.bench_local(|| read(&data));
    }

    #[divan::bench]
    fn scalar(bencher: Bencher<'_, '_>) {
        let captures = Captures { metric: Some("battery_voltage".into()), ..Captures::default() };
        bench(bencher, Decoder::Scalar, b"52.4", &captures);
    }
}

/// A payload of the corpus that the decoders' tests go by.
fn from_corpus(name: &str) -> Vec<u8> {
    let corpus: serde_json::Value = serde_json::from_str(include_str!("../tests/payloads/json.json")).expect("JSON");
    let cases = corpus["cases"].as_array().expect("cases");
    let case = cases.iter().find(|case| case["name"] == name).expect("the case is in the corpus");
    case["payload"].as_str().expect("text").as_bytes().to_vec()
}

#[divan::bench(args = ["first", "last", "none"])]
fn route_among_20_sources(bencher: Bencher<'_, '_>, place: &str) {
    let topic = match place {
        "first" => "site0/hall/d1/data",
        "last" => "devices/d1/telemetry",
        _ => "elsewhere/d1",
    };
    let mut sources: Vec<Source> = (0..19)
        .map(|n| Source {
            name: format!("s{n}"),
            filter: format!("site{n}/+/{{device}}/data"),
            ..Kind::Climate.source()
        })
        .collect();
    sources.push(Kind::Climate.source());
    let sources = Sources::compile(&sources).expect("sources");
    bencher.bench(|| sources.route(black_box(topic)).map(|route| route.index));
}

/// From journalled messages to the readings in a batch, of devices that are known; a thousand messages at once.
mod messages_to_batch {
    use super::*;

    fn bench(bencher: Bencher<'_, '_>, kind: Kind, modeled: bool) {
        const MESSAGES: usize = 1000;
        let mut normalizer = normalizer(kind, modeled);
        let mut fleet = Fleet::new(&[(kind, 100)], "bench-", 1, false);
        let messages: Vec<Arc<Message>> = (1..=MESSAGES).map(|seq| journalled(seq, &mut fleet)).collect();
        let rows = batch(&mut normalizer, &messages).readings.len();
        bencher.counter(ItemsCount::new(rows)).bench_local(|| batch(&mut normalizer, &messages));
    }

    #[divan::bench(args = [1, 5, 10, 50])]
    fn metrics(bencher: Bencher<'_, '_>, metrics: usize) {
        bench(bencher, Kind::Json { metrics }, true);
    }

    #[divan::bench]
    fn unmodeled_10_keys(bencher: Bencher<'_, '_>) {
        bench(bencher, Kind::Json { metrics: 10 }, false);
    }

    #[divan::bench]
    fn scalar(bencher: Bencher<'_, '_>) {
        bench(bencher, Kind::Scalar { metrics: 1 }, false);
    }
}

fn batch(normalizer: &mut Normalizer, messages: &[Arc<Message>]) -> Batch {
    let mut batch = Batch::default();
    for message in messages {
        normalizer.process(message, &mut batch);
    }
    batch
}

fn normalizer(kind: Kind, modeled: bool) -> Normalizer {
    let mut snapshot = Snapshot::default();
    let mut source = kind.source();
    if let (Kind::Json { metrics }, true) = (kind, modeled) {
        let template = template(metrics);
        source.template = Some(template.slug.clone());
        snapshot.templates.insert(template.slug.clone(), Arc::new(template));
    }
    let config = Config { sources: vec![source], ..Config::default() };
    Normalizer::new(&config, &snapshot, Memory::default(), Metrics::new()).expect("a source that can be used")
}

/// What the simulated devices send, as an operator would model it.
fn template(metrics: usize) -> Template {
    let dir = tempfile::tempdir().expect("a directory");
    let mut text = "slug = \"bench\"\nname = \"Bench\"\ncategory = \"sensor\"\nversion = 1\n".to_owned();
    for n in 1..=metrics {
        text.push_str(&format!("[[metric]]\nname = \"q{n}\"\nunit = \"%\"\nkind = \"number\"\n"));
        text.push_str(&format!("keys = [\"m{n}\"]\nrange = [0, 100]\n"));
    }
    std::fs::create_dir(dir.path().join("templates")).expect("a directory");
    std::fs::write(dir.path().join("templates/bench.toml"), text).expect("a file");
    let declared = files::load(Some(dir.path())).expect("a template");
    let own = declared.templates.into_iter().find(|declared| !declared.shipped);
    own.expect("the template is declared").template
}

fn journalled(seq: usize, fleet: &mut Fleet) -> Arc<Message> {
    let publish = publish(fleet.publish().expect("a fleet that is not empty"));
    let at = UtcMicros(1_700_000_000_000_000 + seq as i64);
    Arc::new(Message { seq: seq as u64, received_at: at, publish })
}

fn publish(message: Outgoing) -> Publish {
    Publish {
        topic: message.topic,
        payload: Bytes::from(message.payload),
        qos: 1,
        retain: false,
        dup: false,
        packet_id: 1,
        client: None,
        properties: None,
    }
}

/// Until so many messages, submitted at once, are acknowledged: encoded, appended and, on a disk, fsynced.
mod journal_until_durable {
    use super::*;

    #[divan::bench(args = [1, 64, 1024])]
    fn on_tmpfs(bencher: Bencher<'_, '_>, messages: usize) {
        bench(bencher, messages, Path::new("/dev/shm"));
    }

    #[divan::bench(args = [1, 64, 1024])]
    fn on_disk(bencher: Bencher<'_, '_>, messages: usize) {
        bench(bencher, messages, &std::env::temp_dir());
    }

    fn bench(bencher: Bencher<'_, '_>, messages: usize, parent: &Path) {
        let dir = tempfile::tempdir_in(parent).expect("a directory");
        let journal = Journal::open(options(dir.path().to_owned()), Metrics::new()).expect("a journal");
        let (inbox, progress) = (journal.inbox(), journal.progress());
        let (durable, told) = channel();
        let thread = std::thread::spawn(move || journal.run(Arc::new(Told(durable))));
        let mut fleet = Fleet::new(&[(Kind::Json { metrics: 10 }, 100)], "bench-", 1, false);
        let publishes = || {
            // Nobody reads them: the journal may forget.
            progress.committed(progress.last());
            (0..messages).filter_map(|_| fleet.publish()).map(publish).collect::<Vec<_>>()
        };
        bencher.counter(ItemsCount::new(messages)).with_inputs(publishes).bench_local_values(|publishes| {
            append(&inbox, &told, publishes);
        });
        inbox.close();
        let _ = thread.join();
    }

    fn options(dir: PathBuf) -> Options {
        Options {
            dir,
            max_size: 256 << 20,
            retain: Duration::ZERO,
            sync: Sync::Always,
            redelivery_window: 1000,
            inbox: Bounds { messages: 65_536, bytes: 32 << 20 },
            tail_bytes: 16 << 20,
        }
    }

    fn append(inbox: &Inbox, told: &Receiver<usize>, publishes: Vec<Publish>) {
        let messages = publishes.len();
        for (token, publish) in publishes.into_iter().enumerate() {
            inbox.submit(publish, Some(Token(token as u64))).expect("room in the inbox");
        }
        let mut durable = 0;
        while durable < messages {
            durable += told.recv().expect("the journal runs");
        }
    }
}

/// Passes on how many messages have become durable.
struct Told(Sender<usize>);

impl Acknowledge for Told {
    fn durable(&self, tokens: &[Token]) {
        let _ = self.0.send(tokens.len());
    }
}
