use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;
use crate::alert::State;
use crate::alert::announce::tests::step;
use crate::config::Config;

const PATIENCE: Duration = Duration::from_secs(20);

/// By alert and channel: the attempts, what became of them, and the step.
type Rows = BTreeMap<(String, String), (u32, Option<Fate>, Transition)>;

/// A database in memory.
#[derive(Default)]
struct Book {
    rows: Mutex<Rows>,
    committed: AtomicU64,
    down: AtomicBool,
}

impl Book {
    fn order(&self, step: &Transition, channel: &str) {
        let key = (step.id.to_string(), channel.to_owned());
        self.rows.lock().unwrap().insert(key, (0, None, step.clone()));
        self.committed.fetch_max(step.seq, Ordering::SeqCst);
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
            let key = (outcome.id.to_string(), outcome.channel.to_string());
            let row = rows.get_mut(&key).expect("only what has a row is recorded");
            (row.0, row.1) = (outcome.attempts, Some(outcome.fate.clone()));
        }
        Ok(())
    }

    fn due(
        &self,
        channels: &[String],
        now: UtcMicros,
        limit: usize,
    ) -> Result<Vec<(String, u32, Transition)>, StoreError> {
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
            .map(|((_, channel), (attempts, _, step))| (channel.clone(), *attempts, step.clone()))
            .take(limit)
            .collect())
    }
}

struct Rig {
    book: Arc<Book>,
    steps: mpsc::Sender<Transition>,
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
        let text = tables.replace("DIR", dir.path().to_str().unwrap());
        let config = Config::parse(std::path::Path::new("t.toml"), &text, &[]);
        assert!(config.faults.is_empty(), "{:?}", config.faults);
        let (parcels, _) = mpsc::channel(1);
        let channels = config.config.notify.into_iter().map(|notify| {
            let channel = Channel::new(&notify, &parcels);
            (notify, channel)
        });
        let (steps, steps_out) = mpsc::channel(10);
        let (begin, begun) = oneshot::channel();
        let (stop, metrics) = (CancellationToken::new(), Metrics::new());
        let of = Arc::clone(&book);
        let notifier = Notifier {
            steps: steps_out,
            begun,
            channels: channels.collect(),
            record: Arc::clone(&book),
            committed: Box::new(move || of.committed.load(Ordering::SeqCst)),
            stop: stop.clone(),
            metrics: metrics.clone(),
        };
        Rig { book, steps, begin: Some(begin), metrics, stop, task: tokio::spawn(notifier.run()), dir }
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
    states = ["resolved"]
    program = ["/bin/sh", "-c", "echo told >> DIR/ends"]
"#;

fn at(id: &str, state: State, seq: Seq) -> Transition {
    Transition { seq, ..step(id, 0, state) }
}

#[tokio::test]
async fn steps_go_by_the_channels_whose_routes_fit_and_are_recorded_once_they_have_rows() {
    let mut rig = Rig::start(Arc::default(), BOTH);
    let (first, second) = (at("a", State::Firing, 1), at("b", State::Resolved, 2));
    rig.steps.send(first.clone()).await.unwrap();
    rig.steps.send(second.clone()).await.unwrap();
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
    let step = at("a", State::Firing, 1);
    rig.book.order(&step, "ops");
    rig.steps.send(step.clone()).await.unwrap();
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
    let step = at("a", State::Firing, 1);
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
    let step = at("a", State::Firing, 1);
    rig.book.order(&step, "all");
    rig.steps.send(step).await.unwrap();
    rig.until("it is told", |rig| rig.lines("all") == 1).await;
    rig.book.down.store(false, Ordering::SeqCst);
    rig.until("it is recorded", |rig| rig.book.fate("a", "all") == Some((1, Fate::Sent))).await;
    assert_eq!(rig.lines("all"), 1);
    rig.stop().await;
}
