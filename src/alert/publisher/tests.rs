use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;
use crate::alert::announce::tests::step;
use crate::alert::announcer::{Announcer, announcer};
use crate::mqtt::Answer;

/// Long enough for anything that should happen; a test that waits for it in full fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A database in memory, and the journal's position in it.
#[derive(Default)]
struct Book {
    rows: Mutex<Vec<(Transition, bool)>>,
    committed: AtomicU64,
    down: AtomicBool,
}

impl Book {
    fn rows(&self) -> Result<std::sync::MutexGuard<'_, Vec<(Transition, bool)>>, StoreError> {
        match self.down.load(Ordering::SeqCst) {
            true => Err(StoreError::Refused { detail: "down".into() }),
            false => Ok(self.rows.lock().unwrap()),
        }
    }

    fn commit(&self, steps: &[Transition]) {
        self.rows.lock().unwrap().extend(steps.iter().map(|step| (step.clone(), false)));
        let last = steps.iter().map(|step| step.seq).max().unwrap_or_default();
        self.committed.fetch_max(last, Ordering::SeqCst);
    }

    fn published(&self) -> Vec<(String, u32)> {
        let rows = self.rows.lock().unwrap();
        rows.iter().filter(|(_, published)| *published).map(|(step, _)| (step.id.to_string(), step.step)).collect()
    }
}

impl Record for Book {
    fn mark_published(&self, steps: &[Key]) -> Result<(), StoreError> {
        for (step, published) in self.rows()?.iter_mut() {
            *published |= steps.contains(&(Arc::clone(&step.id), step.step));
        }
        Ok(())
    }

    fn unpublished(&self, limit: usize) -> Result<Vec<Transition>, StoreError> {
        Ok(self.rows()?.iter().filter(|(_, published)| !published).map(|(step, _)| step.clone()).take(limit).collect())
    }

    fn active(&self) -> Result<Vec<Transition>, StoreError> {
        let rows = self.rows()?;
        let mut newest: Vec<Transition> = Vec::new();
        for (step, _) in rows.iter() {
            newest.retain(|known| known.id != step.id);
            newest.push(step.clone());
        }
        newest.retain(|step| step.state != State::Resolved);
        Ok(newest)
    }
}

struct Rig {
    book: Arc<Book>,
    announcer: Announcer,
    parcels: mpsc::Receiver<Parcel>,
    metrics: Metrics,
    stop: CancellationToken,
    task: JoinHandle<Result<(), Infallible>>,
}

impl Rig {
    fn start(book: Arc<Book>, forgetful: bool) -> Rig {
        let metrics = Metrics::new();
        let (announcer, announced) = announcer(metrics.clone());
        let (parcels_in, parcels) = mpsc::channel(4);
        let stop = CancellationToken::new();
        let of = Arc::clone(&book);
        let publisher = Publisher {
            announced,
            parcels: parcels_in,
            record: Arc::clone(&book),
            committed: Box::new(move || of.committed.load(Ordering::SeqCst)),
            forgetful,
            stop: stop.clone(),
            metrics: metrics.clone(),
        };
        Rig { book, announcer, parcels, metrics, stop, task: tokio::spawn(publisher.run()) }
    }

    async fn parcel(&mut self) -> Parcel {
        tokio::time::timeout(PATIENCE, self.parcels.recv()).await.expect("a parcel comes").expect("the publisher lives")
    }

    /// The next message that is no summary, answered; in short.
    async fn next(&mut self, answer: Answer) -> String {
        loop {
            let parcel = self.parcel().await;
            let summary = parcel.topic.ends_with("/summary");
            let _ = parcel.answer.send(if summary { Answer::Taken } else { answer });
            if summary {
                continue;
            }
            if parcel.payload.is_empty() {
                return "clear".to_owned();
            }
            let alert: serde_json::Value = serde_json::from_slice(&parcel.payload).unwrap();
            return format!("{} {}", alert["id"].as_str().unwrap(), alert["state"].as_str().unwrap());
        }
    }

    async fn taken(&mut self, count: usize) -> Vec<String> {
        let mut taken = Vec::new();
        while taken.len() < count {
            taken.push(self.next(Answer::Taken).await);
        }
        taken
    }

    /// Answers whatever comes until it is so.
    async fn until(&mut self, what: &str, so: impl Fn(&Book, &Metrics) -> bool) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while !so(&self.book, &self.metrics) {
            assert!(Instant::now() < deadline, "waited for {what}: {:?}", self.book.rows.lock().unwrap());
            if let Ok(Some(parcel)) = tokio::time::timeout(Duration::from_millis(20), self.parcels.recv()).await {
                seen.push(parcel.topic);
                let _ = parcel.answer.send(Answer::Taken);
            }
        }
        seen
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("it stops").unwrap().unwrap();
    }
}

fn at(id: &str, number: u32, state: State, seq: Seq) -> Transition {
    Transition { seq, ..step(id, number, state) }
}

#[tokio::test]
async fn steps_are_published_while_the_database_is_away_and_marked_once_their_message_is_committed() {
    let mut rig = Rig::start(Arc::default(), false);
    rig.book.down.store(true, Ordering::SeqCst);
    rig.announcer.begin();
    let steps = [at("a", 0, State::Firing, 5), at("a", 1, State::Resolved, 6), at("b", 0, State::Firing, 6)];
    rig.announcer.announce(&steps);
    assert_eq!(rig.taken(4).await, ["a firing", "a resolved", "clear", "b firing"]);
    rig.book.down.store(false, Ordering::SeqCst);
    rig.book.commit(&steps[..1]);
    rig.until("the first mark", |book, _| book.published() == [("a".to_owned(), 0)]).await;
    rig.book.commit(&steps[1..]);
    rig.until("all marks", |book, _| book.published().len() == 3).await;
    assert_eq!((rig.metrics.alerts_published.get(), rig.metrics.alerts_deferred.get()), (3, 0));
    rig.stop().await;
}

#[tokio::test]
async fn a_start_publishes_what_the_last_run_left_and_nothing_that_was_overtaken() {
    let book: Arc<Book> = Arc::default();
    book.commit(&[at("a", 0, State::Firing, 1), at("b", 0, State::Firing, 2)]);
    book.mark_published(&[("b".into(), 0)]).unwrap();
    let mut rig = Rig::start(Arc::clone(&book), false);
    // Before the database has been asked: the pipeline goes on with the journal.
    let after = at("a", 1, State::Resolved, 3);
    rig.announcer.announce(std::slice::from_ref(&after));
    assert_eq!(rig.taken(2).await, ["a resolved", "clear"]);
    rig.announcer.begin();
    book.commit(&[after]);
    let seen = rig.until("all marks", |book, _| book.published().len() == 3).await;
    assert!(seen.iter().all(|topic| topic.ends_with("/summary")), "{seen:?}");
    rig.announcer.announce(&[at("b", 1, State::Acknowledged, 4)]);
    assert_eq!(rig.taken(1).await, ["b acknowledged"]);
    rig.stop().await;
}

#[tokio::test]
async fn a_broker_that_forgets_is_told_of_active_alerts_and_their_number_anew() {
    let book: Arc<Book> = Arc::default();
    let steps = [at("a", 0, State::Firing, 1), at("b", 0, State::Firing, 1), at("b", 1, State::Resolved, 2)];
    book.commit(&steps);
    book.mark_published(&steps.map(|step| (step.id, step.step))).unwrap();
    let mut rig = Rig::start(book, true);
    rig.announcer.begin();
    assert_eq!(rig.taken(1).await, ["a firing"]);
    let summary = rig.parcel().await;
    assert_eq!(summary.payload, r#"{"info":0,"warning":0,"critical":1}"#);
    rig.stop().await;
}

#[tokio::test]
async fn a_refused_step_is_tried_three_times_and_stays_unpublished() {
    let mut rig = Rig::start(Arc::default(), false);
    rig.announcer.begin();
    let first = at("a", 0, State::Firing, 1);
    rig.announcer.announce(std::slice::from_ref(&first));
    rig.book.commit(&[first]);
    for _ in 0..ATTEMPTS {
        assert_eq!(rig.next(Answer::Refused("not_authorized")).await, "a firing");
    }
    let refused =
        |metrics: &Metrics| metrics.alerts_refused.get_or_create(&ByReason { reason: "not_authorized" }).get();
    rig.until("the count", |_, metrics| refused(metrics) == 3).await;
    let second = at("a", 1, State::Acknowledged, 2);
    rig.announcer.announce(std::slice::from_ref(&second));
    assert_eq!(rig.taken(1).await, ["a acknowledged"], "not a fourth time");
    assert_eq!(rig.book.published(), []);
    rig.book.commit(&[second]);
    rig.until("both marks: the first is history", |book, _| book.published().len() == 2).await;
    rig.stop().await;
}

#[tokio::test]
async fn what_was_deferred_comes_from_the_database_and_then_the_channel_is_used_again() {
    let mut rig = Rig::start(Arc::default(), false);
    rig.announcer.begin();
    let many: Vec<Transition> = (1..=5000).map(|seq| at(&format!("{seq:04}"), 0, State::Firing, seq)).collect();
    rig.announcer.announce(&many);
    let deferred = rig.metrics.alerts_deferred.get();
    assert!(deferred > 500, "{deferred}");
    rig.book.commit(&many);
    let taken = rig.taken(5000).await;
    assert!(taken.iter().zip(1..).all(|(told, seq)| *told == format!("{seq:04} firing")), "in order, none twice");
    rig.until("all marks", |book, _| book.published().len() == 5000).await;
    let deadline = Instant::now() + PATIENCE;
    while rig.announcer.is_deferring() {
        assert!(Instant::now() < deadline, "still deferring");
        rig.until("a moment", |_, _| true).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    rig.announcer.announce(&[at("last", 0, State::Firing, 6000)]);
    assert_eq!(rig.taken(1).await, ["last firing"]);
    assert_eq!(rig.metrics.alerts_deferred.get(), deferred);
    rig.stop().await;
}

#[tokio::test]
async fn when_nobody_publishes_any_more_it_waits_for_the_stop() {
    let mut rig = Rig::start(Arc::default(), false);
    rig.announcer.begin();
    rig.announcer.announce(&[at("a", 0, State::Firing, 1)]);
    drop(rig.parcel().await);
    rig.parcels.close();
    rig.announcer.announce(&[at("a", 1, State::Resolved, 2)]);
    assert_eq!(rig.metrics.alerts_published.get(), 0);
    rig.stop().await;
}
