use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;
use crate::config::Config;
use crate::notify::notice::tests::notice;

const PATIENCE: Duration = Duration::from_secs(20);

/// By alert and channel: the attempts, what became of them, and the notice.
type Rows = BTreeMap<(String, String), (u32, Option<Fate>, Notice)>;

/// A database in memory.
#[derive(Default)]
struct Book {
    rows: Mutex<Rows>,
    committed: AtomicU64,
    down: AtomicBool,
}

impl Book {
    fn order(&self, notice: &Notice, channel: &str) {
        let key = (notice.id().to_string(), channel.to_owned());
        self.rows.lock().unwrap().insert(key, (0, None, notice.clone()));
        self.committed.fetch_max(notice.seq, Ordering::SeqCst);
    }

    fn fate(&self, id: &str, channel: &str) -> Option<(u32, Fate)> {
        let rows = self.rows.lock().unwrap();
        let (attempts, fate, _) = rows.get(&(id.to_owned(), channel.to_owned()))?;
        Some((*attempts, fate.clone()?))
    }
}

impl NotifyRecord for Book {
    fn record(&self, outcomes: &[Outcome]) -> Result<(), StoreError> {
        if self.down.load(Ordering::SeqCst) {
            return Err(StoreError::Refused { detail: "down".into() });
        }
        let mut rows = self.rows.lock().unwrap();
        for outcome in outcomes {
            let (Key::Step { id, .. } | Key::Digest { id }) = &outcome.key;
            let key = (id.to_string(), outcome.channel.to_string());
            let row = rows.get_mut(&key).expect("only what has a row is recorded");
            (row.0, row.1) = (outcome.attempts, Some(outcome.fate.clone()));
        }
        Ok(())
    }

    fn due(&self, channels: &[String], now: UtcMicros, limit: usize) -> Result<Vec<Waiting>, StoreError> {
        if self.down.load(Ordering::SeqCst) {
            return Err(StoreError::Refused { detail: "down".into() });
        }
        let rows = self.rows.lock().unwrap();
        let is_due = |fate: &Option<Fate>| match fate {
            None => true,
            Some(Fate::Pending { next_at, .. }) => *next_at <= now,
            Some(Fate::Sent | Fate::Dead { .. }) => false,
        };
        let due = rows.iter().filter(|((_, channel), (_, fate, _))| channels.contains(channel) && is_due(fate));
        Ok(due
            .map(|((_, channel), (attempts, _, notice))| Waiting {
                channel: channel.clone(),
                attempts: *attempts,
                notice: Notice { seq: 0, ..notice.clone() },
            })
            .take(limit)
            .collect())
    }
}

fn channels_of(tables: &str, dir: &std::path::Path) -> Vec<Notify> {
    let text = tables.replace("DIR", dir.to_str().unwrap());
    let reading = Config::parse(std::path::Path::new("t.toml"), &text, &[]);
    assert!(reading.faults.is_empty(), "{:?}", reading.faults);
    reading.config.notify
}

struct Rig {
    book: Arc<Book>,
    orders: mpsc::Sender<Order>,
    channels: watch::Sender<Vec<Notify>>,
    begin: Option<oneshot::Sender<()>>,
    metrics: Metrics,
    stop: CancellationToken,
    task: JoinHandle<Result<(), Infallible>>,
    dir: tempfile::TempDir,
}

impl Rig {
    /// Channels are of `[[notify]]` tables in which `DIR` stands for a directory of the test's.
    fn start(book: Arc<Book>, tables: &str) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let (channels, configured) = watch::channel(channels_of(tables, dir.path()));
        let (parcels, _) = mpsc::channel(1);
        let (orders, orders_out) = mpsc::channel(10);
        let (begin, begun) = oneshot::channel();
        let (stop, metrics) = (CancellationToken::new(), Metrics::new());
        let of = Arc::clone(&book);
        let notifier = Notifier {
            orders: orders_out,
            begun,
            channels: configured,
            parcels,
            record: Arc::clone(&book),
            committed: Box::new(move || of.committed.load(Ordering::SeqCst)),
            stop: stop.clone(),
            metrics: metrics.clone(),
        };
        Rig { book, orders, channels, begin: Some(begin), metrics, stop, task: tokio::spawn(notifier.run()), dir }
    }

    async fn tell(&self, notice: &Notice, channels: &[&str]) {
        for channel in channels {
            self.orders.send(Order { notice: notice.clone(), channel: (*channel).into() }).await.unwrap();
        }
    }

    fn begin(&mut self) {
        self.begin.take().unwrap().send(()).unwrap();
    }

    /// How many lines a channel's program has written.
    fn lines(&self, file: &str) -> usize {
        std::fs::read_to_string(self.dir.path().join(file)).unwrap_or_default().lines().count()
    }

    async fn until(&self, what: &str, so: impl Fn(&Rig) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !so(self) {
            assert!(Instant::now() < deadline, "waited for {what}: {:?}", self.book.rows.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("it stops").unwrap().unwrap();
    }
}

const BOTH: &str = r#"
    [[notify]]
    name = "all"
    kind = "command"
    program = ["/bin/sh", "-c", "echo told >> DIR/all"]
    [[notify]]
    name = "ends"
    kind = "command"
    program = ["/bin/sh", "-c", "echo told >> DIR/ends"]
"#;

fn at(id: &str, seq: Seq) -> Notice {
    Notice { seq, ..notice(id, 0) }
}

#[tokio::test]
async fn notices_go_by_their_channels_and_are_recorded_once_they_have_rows() {
    let mut rig = Rig::start(Arc::default(), BOTH);
    let (first, second) = (at("a", 1), at("b", 2));
    rig.tell(&first, &["all"]).await;
    rig.tell(&second, &["all", "ends"]).await;
    // The database has not been opened yet.
    rig.until("three are told", |rig| rig.lines("all") == 2 && rig.lines("ends") == 1).await;
    rig.begin();
    rig.book.order(&first, "all");
    rig.until("the first record", |rig| rig.book.fate("a", "all") == Some((1, Fate::Sent))).await;
    rig.book.order(&second, "all");
    rig.book.order(&second, "ends");
    rig.until("the others", |rig| rig.book.fate("b", "all").is_some() && rig.book.fate("b", "ends").is_some()).await;
    assert_eq!((rig.lines("all"), rig.lines("ends")), (2, 1), "none twice");
    let sent = rig.metrics.notifications_sent.get_or_create(&ByChannel { channel: "all".to_owned() }).get();
    assert_eq!(sent, 2);
    rig.stop().await;
}

#[tokio::test]
async fn what_fails_is_tried_again_then_dead_and_once_more_when_somebody_asks() {
    let table = r#"
        [[notify]]
        name = "ops"
        kind = "command"
        attempts = 3
        retry = "20ms"
        program = ["/bin/sh", "-c", "echo tried >> DIR/tried; test -e DIR/open || { echo shut >&2; exit 7; }"]
    "#;
    let mut rig = Rig::start(Arc::default(), table);
    rig.begin();
    let step = at("a", 1);
    rig.book.order(&step, "ops");
    rig.tell(&step, &["ops"]).await;
    let dead =
        |rig: &Rig| matches!(rig.book.fate("a", "ops"), Some((3, Fate::Dead { error })) if error.contains("shut"));
    rig.until("it is dead", dead).await;
    assert_eq!(rig.lines("tried"), 3);
    std::fs::write(rig.dir.path().join("open"), "").unwrap();
    rig.book.order(&step, "ops");
    rig.until("it is sent", |rig| rig.book.fate("a", "ops") == Some((1, Fate::Sent))).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_channel_that_hangs_holds_no_other_up_and_a_start_goes_on_with_what_is_due() {
    let tables = format!(
        "{BOTH}
        [[notify]]
        name = \"slow\"
        kind = \"command\"
        timeout = \"200ms\"
        attempts = 1
        program = [\"/bin/sleep\", \"600\"]"
    );
    let book: Arc<Book> = Arc::default();
    let step = at("a", 1);
    book.order(&step, "slow");
    book.order(&step, "all");
    book.order(&step, "gone");
    let mut rig = Rig::start(book, &tables);
    rig.begin();
    rig.until("told", |rig| rig.book.fate("a", "all") == Some((1, Fate::Sent))).await;
    let late =
        |rig: &Rig| matches!(rig.book.fate("a", "slow"), Some((1, Fate::Dead { error })) if error.contains("200ms"));
    rig.until("given up", late).await;
    assert_eq!((rig.lines("all"), rig.book.fate("a", "gone")), (1, None));
    rig.stop().await;
}

#[tokio::test]
async fn with_the_database_away_it_goes_on_from_memory_and_records_later() {
    let mut rig = Rig::start(Arc::default(), BOTH);
    rig.begin();
    rig.book.down.store(true, Ordering::SeqCst);
    let step = at("a", 1);
    rig.book.order(&step, "all");
    rig.tell(&step, &["all"]).await;
    rig.until("it is told", |rig| rig.lines("all") == 1).await;
    rig.book.down.store(false, Ordering::SeqCst);
    rig.until("it is recorded", |rig| rig.book.fate("a", "all") == Some((1, Fate::Sent))).await;
    assert_eq!(rig.lines("all"), 1);
    rig.stop().await;
}

#[tokio::test]
async fn channels_change_while_it_runs_and_what_waits_for_one_that_has_gone_is_told_when_it_is_back() {
    let shut = r#"
        [[notify]]
        name = "ops"
        kind = "command"
        retry = "20ms"
        attempts = 100
        program = ["/bin/sh", "-c", "echo tried >> DIR/tried; exit 1"]
    "#;
    let mut rig = Rig::start(Arc::default(), shut);
    rig.begin();
    let step = at("a", 1);
    rig.book.order(&step, "ops");
    rig.tell(&step, &["ops"]).await;
    rig.until("it fails", |rig| rig.lines("tried") > 1).await;
    rig.channels.send_replace(channels_of(BOTH, rig.dir.path()));
    let other = at("b", 2);
    rig.book.order(&other, "all");
    rig.tell(&other, &["all"]).await;
    rig.until("the new one tells", |rig| rig.book.fate("b", "all") == Some((1, Fate::Sent))).await;
    assert!(!matches!(rig.book.fate("a", "ops"), Some((_, Fate::Sent | Fate::Dead { .. }))));
    let open = shut.replace("echo tried >> DIR/tried; exit 1", "echo told >> DIR/told");
    rig.channels.send_replace(channels_of(&format!("{BOTH}{open}"), rig.dir.path()));
    rig.until("what waited is told", |rig| matches!(rig.book.fate("a", "ops"), Some((_, Fate::Sent)))).await;
    assert_eq!((rig.lines("told"), rig.lines("all")), (1, 1));
    rig.stop().await;
}
