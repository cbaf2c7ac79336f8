//! The journal's promises, through the library's API: durable before acknowledged, in order, none lost, none twice.

mod damage;
mod redelivery;
mod size;

use std::fs;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use proptest::prelude::*;
use tempfile::TempDir;
use tidegate::config::Sync;
use tidegate::journal::{
    self, Acknowledge, Bounds, Health, Inbox, Journal, JournalError, Next, Options, Progress, Reader, Refused, State,
    Token,
};
use tidegate::message::{Message, Properties, Publish, Seq};
use tidegate::metrics::Metrics;

const DEADLINE: Duration = Duration::from_secs(30);

fn options(dir: &Path) -> Options {
    Options {
        dir: dir.to_owned(),
        max_size: 1 << 30,
        retain: Duration::from_secs(3600),
        sync: Sync::Always,
        redelivery_window: 100,
        inbox: Bounds { messages: 100_000, bytes: 1 << 28 },
        tail_bytes: 1 << 24,
    }
}

fn publish(packet_id: u16, payload: impl Into<Vec<u8>>) -> Publish {
    Publish {
        topic: "devices/d1/telemetry".into(),
        payload: Bytes::from(payload.into()),
        qos: u8::from(packet_id > 0),
        retain: false,
        dup: false,
        packet_id,
        client: None,
        properties: None,
    }
}

fn redelivered(packet_id: u16, payload: &str) -> Publish {
    Publish { dup: true, ..publish(packet_id, payload) }
}

/// Collects acknowledgements; while the gate is shut it holds the journal's thread in `durable`.
#[derive(Default)]
struct Acks {
    state: Mutex<AckState>,
    changed: Condvar,
}

#[derive(Default)]
struct AckState {
    tokens: Vec<u64>,
    calls: usize,
    shut: bool,
}

impl Acknowledge for Acks {
    fn durable(&self, tokens: &[Token]) {
        let mut state = self.state.lock().unwrap();
        state.tokens.extend(tokens.iter().map(|token| token.0));
        state.calls += 1;
        self.changed.notify_all();
        let _open = self.changed.wait_timeout_while(state, DEADLINE, |state| state.shut).unwrap();
    }
}

impl Acks {
    fn set_gate(&self, shut: bool) {
        self.state.lock().unwrap().shut = shut;
        self.changed.notify_all();
    }

    fn await_count(&self, count: usize) -> Vec<u64> {
        let state = self.state.lock().unwrap();
        let (state, _) = self.changed.wait_timeout_while(state, DEADLINE, |state| state.tokens.len() < count).unwrap();
        assert!(state.tokens.len() >= count, "only {} of {count} acknowledged", state.tokens.len());
        state.tokens.clone()
    }

    fn tokens(&self) -> Vec<u64> {
        self.state.lock().unwrap().tokens.clone()
    }
}

struct Running {
    inbox: Inbox,
    progress: Progress,
    health: Health,
    reader: Reader,
    id: String,
    metrics: Metrics,
    acks: Arc<Acks>,
    thread: JoinHandle<Result<(), JournalError>>,
}

fn start(options: Options) -> Running {
    let metrics = Metrics::new();
    run(Journal::open(options, metrics.clone()).unwrap(), metrics)
}

fn run(journal: Journal, metrics: Metrics) -> Running {
    let acks = Arc::new(Acks::default());
    let acknowledge = Arc::clone(&acks) as Arc<dyn Acknowledge>;
    Running {
        inbox: journal.inbox(),
        progress: journal.progress(),
        health: journal.health(),
        reader: journal.reader(),
        id: journal.id().to_owned(),
        metrics,
        acks,
        thread: std::thread::spawn(move || journal.run(acknowledge)),
    }
}

impl Running {
    fn submit(&self, token: u64, publish: Publish) {
        self.inbox.submit(publish, Some(Token(token))).unwrap();
    }

    /// Submits these one by one, each in a group of its own.
    fn store_each(&self, payloads: impl IntoIterator<Item = Vec<u8>>) {
        let mut count = self.acks.tokens().len();
        for payload in payloads {
            count += 1;
            self.submit(count as u64, publish(count as u16, payload));
            self.acks.await_count(count);
        }
    }

    fn read_all(&mut self, after: Seq) -> Vec<Arc<Message>> {
        read_all(&mut self.reader, after)
    }

    fn stop(self) {
        self.inbox.close();
        self.thread.join().unwrap().unwrap();
    }
}

fn read_all(reader: &mut Reader, after: Seq) -> Vec<Arc<Message>> {
    let mut all: Vec<Arc<Message>> = Vec::new();
    loop {
        let position = all.last().map_or(after, |message| message.seq);
        match reader.next(position, Duration::ZERO).unwrap() {
            Next::Messages(messages) => all.extend(messages),
            Next::Idle | Next::End => return all,
        }
    }
}

fn seqs(messages: &[Arc<Message>]) -> Vec<Seq> {
    messages.iter().map(|message| message.seq).collect()
}

fn payloads(messages: &[Arc<Message>]) -> Vec<String> {
    messages.iter().map(|message| String::from_utf8_lossy(&message.publish.payload).into_owned()).collect()
}

fn await_condition(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn connect(dir: &Path) -> SqliteConnection {
    let mut connection = SqliteConnection::establish(dir.join("journal.db").to_str().unwrap()).unwrap();
    connection.batch_execute("PRAGMA busy_timeout = 5000").unwrap();
    connection
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

fn number(connection: &mut SqliteConnection, sql: &str) -> i64 {
    diesel::sql_query(sql).get_result::<Number>(connection).unwrap().n
}

fn files(dir: &Path, prefix: &str) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(prefix)).collect()
}

#[test]
fn a_message_is_read_back_as_it_came() {
    let dir = TempDir::new().unwrap();
    let mut running = start(options(dir.path()));
    let full = Publish {
        topic: "ünï/\u{1F30A}".into(),
        payload: Bytes::from_static(&[0, 255, 128, 10]),
        qos: 2,
        retain: true,
        dup: true,
        packet_id: u16::MAX,
        client: Some("sensor-7".into()),
        properties: Some(Box::new(Properties {
            content_type: Some("application/octet-stream".into()),
            response_topic: Some("r/t".into()),
            correlation_data: Some(Bytes::from_static(b"\0\x01")),
            user: vec![("k".into(), "v".into()), ("k".into(), String::new())],
        })),
    };
    running.submit(1, full.clone());
    running.inbox.submit(publish(0, ""), None).unwrap();
    running.submit(2, publish(3, "x"));
    running.acks.await_count(2);
    let from_memory = running.read_all(0);
    assert_eq!(seqs(&from_memory), [1, 2, 3]);
    assert_eq!(from_memory[0].publish, full);
    running.stop();

    let mut reopened = start(options(dir.path()));
    assert_eq!(reopened.read_all(0), from_memory);
    assert_eq!(reopened.reader.get(1).unwrap().as_ref(), Some(&*from_memory[0]));
    assert_eq!(reopened.reader.get(4).unwrap(), None);
    reopened.stop();
}

#[test]
fn who_reads_first_once_the_journal_has_ended_finds_everything() {
    let dir = TempDir::new().unwrap();
    let running = start(Options { tail_bytes: 1, ..options(dir.path()) });
    running.store_each((0..3).map(|n| vec![b'0' + n; 100]));
    let Running { inbox, mut reader, thread, .. } = running;
    inbox.close();
    thread.join().unwrap().unwrap();
    assert_eq!(files(dir.path(), "journal.db-wal"), Vec::<String>::new(), "the log went into the file");
    assert_eq!(seqs(&read_all(&mut reader, 0)), [1, 2, 3]);
}

#[test]
fn an_acknowledgement_finds_its_message_on_the_disk() {
    struct Looks {
        connection: Mutex<SqliteConnection>,
        acks: Acks,
    }
    impl Acknowledge for Looks {
        fn durable(&self, tokens: &[Token]) {
            let last = number(&mut self.connection.lock().unwrap(), "SELECT max(last_seq) AS n FROM journal_groups");
            assert!(tokens.iter().all(|token| token.0 <= last as u64), "{tokens:?} acknowledged, {last} on disk");
            self.acks.durable(tokens);
        }
    }
    let dir = TempDir::new().unwrap();
    let journal = Journal::open(options(dir.path()), Metrics::new()).unwrap();
    let looks = Arc::new(Looks { connection: Mutex::new(connect(dir.path())), acks: Acks::default() });
    let (inbox, acknowledge) = (journal.inbox(), Arc::clone(&looks) as Arc<dyn Acknowledge>);
    let thread = std::thread::spawn(move || journal.run(acknowledge));
    for token in 1..=500_u16 {
        inbox.submit(publish(token, "x"), Some(Token(token.into()))).unwrap();
    }
    looks.acks.await_count(500);
    inbox.close();
    thread.join().unwrap().unwrap();
}

#[test]
fn a_group_is_what_came_while_the_one_before_was_written() {
    let dir = TempDir::new().unwrap();
    let running = start(options(dir.path()));
    running.acks.set_gate(true);
    running.submit(1, publish(1, "first"));
    running.acks.await_count(1);
    for token in 2..=1000 {
        running.submit(token, publish(token as u16, "later"));
    }
    running.acks.set_gate(false);
    assert_eq!(running.acks.await_count(1000), (1..=1000).collect::<Vec<_>>());
    assert_eq!(running.acks.state.lock().unwrap().calls, 2);
    assert_eq!(running.metrics.journal_groups.get(), 2);
    assert_eq!(running.metrics.journal_messages.get(), 1000);
    running.stop();
}

#[test]
fn a_restart_goes_on_with_positions_stamps_and_id() {
    let dir = TempDir::new().unwrap();
    let mut first = start(options(dir.path()));
    first.store_each((0..5).map(|_| b"x".to_vec()));
    let before = first.read_all(0);
    let id = first.id.clone();
    first.stop();

    let mut second = start(options(dir.path()));
    assert_eq!(second.id, id);
    assert_eq!((id.len(), second.reader.last_durable()), (32, 5));
    second.store_each((0..2).map(|_| b"y".to_vec()));
    let after = second.read_all(0);
    assert_eq!(seqs(&after), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(after[..5], before);
    assert!(after.windows(2).all(|pair| pair[0].received_at < pair[1].received_at));
    second.stop();
}

#[test]
fn positions_go_on_after_the_databases() {
    let dir = TempDir::new().unwrap();
    let metrics = Metrics::new();
    let mut journal = Journal::open(options(dir.path()), metrics.clone()).unwrap();
    journal.continue_after(41);
    journal.continue_after(7);
    assert_eq!(journal.last_seq(), 41);
    let mut running = run(journal, metrics);
    running.store_each([b"x".to_vec(), b"y".to_vec()]);
    assert_eq!(seqs(&running.read_all(0)), [42, 43]);
    running.stop();
    let mut running = start(Options { tail_bytes: 0, ..options(dir.path()) });
    running.store_each([b"z".to_vec()]);
    assert_eq!(seqs(&running.read_all(41)), [42, 43, 44]);
    running.stop();
}

#[test]
fn a_reader_waits_for_messages_and_learns_of_the_end() {
    let dir = TempDir::new().unwrap();
    let mut running = start(options(dir.path()));
    assert_eq!(running.reader.next(0, Duration::ZERO).unwrap(), Next::Idle);
    let inbox = running.inbox.clone();
    let sender = std::thread::spawn(move || inbox.submit(publish(1, "x"), None).unwrap());
    let Next::Messages(messages) = running.reader.next(0, DEADLINE).unwrap() else { panic!("no message") };
    assert_eq!(seqs(&messages), [1]);
    sender.join().unwrap();
    let (inbox, mut reader) = (running.inbox, running.reader);
    let closer = std::thread::spawn(move || inbox.close());
    assert_eq!(reader.next(1, DEADLINE).unwrap(), Next::End);
    assert_eq!(seqs(&read_all(&mut reader, 0)), [1]);
    closer.join().unwrap();
    running.thread.join().unwrap().unwrap();
}

#[test]
fn reads_hand_out_about_a_mebibyte_at_a_time() {
    for tail_bytes in [0, 1 << 28] {
        let dir = TempDir::new().unwrap();
        let mut running = start(Options { tail_bytes, ..options(dir.path()) });
        for token in 1..=100 {
            running.submit(token, publish(token as u16, vec![b'x'; 100_000]));
        }
        running.acks.await_count(100);
        let mut position = 0;
        while let Next::Messages(messages) = running.reader.next(position, Duration::ZERO).unwrap() {
            assert!(messages.len() <= 12, "{}", messages.len());
            assert_eq!(messages[0].seq, position + 1);
            position = messages.last().unwrap().seq;
        }
        assert_eq!(position, 100);
        running.stop();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_and_disk_give_the_same_messages(
        sizes in proptest::collection::vec(prop_oneof![8 => 0..200_usize, 1 => 0..300_000_usize], 1..150),
        tail_bytes in prop_oneof![Just(0_usize), 1..100_000_usize, 100_000..5_000_000_usize],
        pauses in proptest::collection::vec(any::<bool>(), 150),
        start_at in 0..150_u64,
    ) {
        let dir = TempDir::new().unwrap();
        let mut running = start(Options { tail_bytes, ..options(dir.path()) });
        for (index, (size, pause)) in sizes.iter().zip(&pauses).enumerate() {
            running.submit(index as u64, publish(index as u16 + 1, vec![index as u8; *size]));
            if *pause {
                running.acks.await_count(index + 1);
            }
        }
        running.acks.await_count(sizes.len());
        let live = running.read_all(0);
        let found: Vec<usize> = live.iter().map(|message| message.publish.payload.len()).collect();
        prop_assert_eq!(&found, &sizes);
        prop_assert_eq!(seqs(&live), (1..=sizes.len() as u64).collect::<Vec<_>>());
        prop_assert_eq!(&running.read_all(start_at)[..], live.get(start_at as usize..).unwrap_or_default());
        running.stop();

        let mut reopened = start(Options { tail_bytes: 0, ..options(dir.path()) });
        prop_assert_eq!(&reopened.read_all(0), &live);
        for message in &live {
            let got = reopened.reader.get(message.seq).unwrap();
            prop_assert_eq!(got.as_ref(), Some(&**message));
        }
        reopened.stop();
    }
}

#[test]
fn with_an_interval_commits_reach_the_disk_within_it_and_at_the_end() {
    #[derive(QueryableByName)]
    struct Value {
        #[diesel(sql_type = Text)]
        value: String,
    }
    let dir = TempDir::new().unwrap();
    let synced = || {
        diesel::sql_query("SELECT value FROM journal_meta WHERE key = 'synced_to'")
            .get_result::<Value>(&mut connect(dir.path()))
            .map_or(0, |row| row.value.parse::<u64>().unwrap())
    };
    let running = start(Options { sync: Sync::Every(Duration::from_millis(20)), ..options(dir.path()) });
    running.store_each((0..10).map(|_| b"x".to_vec()));
    await_condition("all is synced though nothing more comes", || synced() == 10);
    running.stop();

    let running = start(Options { sync: Sync::Every(Duration::from_secs(3600)), ..options(dir.path()) });
    running.store_each((0..3).map(|_| b"x".to_vec()));
    assert_eq!(synced(), 10);
    running.stop();
    assert_eq!(synced(), 13);
}

#[test]
fn the_status_tells_what_the_journal_holds_with_and_without_a_daemon() {
    let dir = TempDir::new().unwrap();
    assert!(matches!(journal::status(dir.path()), Err(JournalError::Absent { .. })));
    let mut running = start(options(dir.path()));
    let empty = journal::status(dir.path()).unwrap();
    assert_eq!((empty.messages, empty.bytes, empty.oldest, empty.last_seq), (0, 0, None, 0));
    running.store_each((0..3).map(|_| b"x".to_vec()));
    let messages = running.read_all(0);
    let status = journal::status(dir.path()).unwrap();
    assert_eq!(status.id, running.id);
    assert_eq!((status.messages, status.last_seq, status.max_size), (3, 3, Some(1 << 30)));
    assert_eq!(status.oldest.unwrap().received_at, messages[0].received_at);
    assert_eq!(status.newest.unwrap().received_at, messages[2].received_at);
    running.stop();
    assert_eq!(journal::status(dir.path()).unwrap(), status);

    let (mut text, mut object) = (Vec::new(), Vec::new());
    tidegate::cli::journal::status(dir.path(), false, &mut text).unwrap();
    tidegate::cli::journal::status(dir.path(), true, &mut object).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains(&status.id) && text.contains("messages  3\n") && text.contains("1.0 GiB"), "{text}");
    let object: serde_json::Value = serde_json::from_slice(&object).unwrap();
    assert_eq!((&object["messages"], &object["oldest"]["seq"]), (&3.into(), &1.into()));
    assert!(object["newest"]["received_at"].as_str().unwrap().ends_with('Z'), "{object}");
}
