//! The catalog thread: it waits for its database, and brings only what can be used to the pipeline.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use tidegate::alert::desk::Desk;
use tidegate::catalog::{Declared, files};
use tidegate::config::{Config, Database, DatabaseUrl, Secret};
use tidegate::journal::{Bounds, Journal, Options};
use tidegate::listening::Listening;
use tidegate::metrics::Metrics;
use tidegate::pipeline::Reload;
use tidegate::reload::{CatalogKeeper, Opening, Request};
use tidegate::store::{Store, StoreError};
use tidegate::unanswered::Unanswered;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::support::postgres::{self, Postgres};

const DEADLINE: Duration = Duration::from_secs(30);

/// A catalog thread at work.
struct Keeping {
    store: Store,
    opening: Receiver<Opening>,
    requests: SyncSender<Request>,
    reloads: Receiver<Reload>,
    stop: CancellationToken,
    metrics: Metrics,
    thread: JoinHandle<Result<(), StoreError>>,
    _dir: tempfile::TempDir,
}

/// The default configuration, whose one source gives its devices a shipped template.
fn config(database: DatabaseUrl) -> Config {
    let mut config = Config::default();
    config.database = Database { url: database, connect_timeout: Duration::from_secs(2), ..config.database };
    config.sources[0].template = Some("native-climate".into());
    config
}

fn keep(database: DatabaseUrl) -> Keeping {
    let dir = tempfile::tempdir().unwrap();
    let (config, metrics, stop) = (config(database), Metrics::new(), CancellationToken::new());
    let options = Options {
        dir: dir.path().to_owned(),
        max_size: 1 << 20,
        retain: Duration::ZERO,
        sync: config.journal.sync,
        redelivery_window: 10,
        inbox: Bounds { messages: 10, bytes: 1 << 20 },
        tail_bytes: 1 << 20,
    };
    let journal = Journal::open(options, metrics.clone()).unwrap();
    let store = Store::open(&config.database).unwrap();
    let (opening_out, opening) = sync_channel(1);
    let (requests, requests_in) = sync_channel(1);
    let (reloads_out, reloads) = sync_channel(1);
    let keeper = CatalogKeeper {
        store: store.clone(),
        listening: Listening::new(&config).unwrap(),
        config,
        journal_id: journal.id().to_owned(),
        journal_last: journal.last_seq(),
        progress: journal.progress(),
        opening: opening_out,
        opened: sync_channel(1).0,
        requests: requests_in,
        reloads: reloads_out,
        unanswered: Unanswered::default(),
        desk: Desk::new(journal.inbox()),
        stop: stop.clone(),
        metrics: metrics.clone(),
    };
    let thread = std::thread::spawn(move || keeper.run(files::load(None).unwrap()));
    Keeping { store, opening, requests, reloads, stop, metrics, thread, _dir: dir }
}

fn sqlite(path: &Path) -> DatabaseUrl {
    DatabaseUrl::Sqlite(path.to_owned())
}

fn await_condition(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn it_waits_for_its_database_and_migrates_when_that_is_up() {
    let server = Postgres::start(false);
    server.stop();
    let url = || DatabaseUrl::Postgres(Secret::new(server.url("postgres")));
    let told_to_stop = keep(url());
    await_condition("an attempt has failed", || told_to_stop.metrics.database_errors.get() > 0);
    told_to_stop.stop.cancel();
    told_to_stop.thread.join().unwrap().unwrap();
    assert!(told_to_stop.opening.try_recv().is_err(), "nothing to open with");

    let waiting = keep(url());
    await_condition("an attempt has failed", || waiting.metrics.database_errors.get() > 0);
    server.restart();
    let opening = waiting.opening.recv_timeout(DEADLINE).unwrap();
    assert!(opening.position == 0 && opening.snapshot.templates.contains_key("native-climate"));
    assert!(waiting.store.migrate().unwrap().is_empty(), "the schema is there");
    drop(waiting.requests);
    waiting.thread.join().unwrap().unwrap();
}

#[test]
fn a_wrong_password_or_database_is_asked_again_until_somebody_has_mended_it() {
    let server = postgres::shared();
    let wrong = format!("postgres://postgres:wrong-secret@127.0.0.1:{}/postgres", server.port());
    let database = "made_only_when_it_was_missed";
    let missing = server.url(database);
    for url in [&wrong, &missing] {
        let store = Store::open(&config(DatabaseUrl::Postgres(Secret::new(url.clone()))).database).unwrap();
        let error = store.migrate().unwrap_err();
        assert!(matches!(error, StoreError::Refused { .. }), "{error}");
        assert!(!error.to_string().contains("wrong-secret"), "{error}");
    }
    let told_to_stop = keep(DatabaseUrl::Postgres(Secret::new(wrong)));
    await_condition("it was refused", || told_to_stop.metrics.database_errors.get() > 0);
    told_to_stop.stop.cancel();
    told_to_stop.thread.join().unwrap().unwrap();

    let waiting = keep(DatabaseUrl::Postgres(Secret::new(missing)));
    await_condition("it was refused", || waiting.metrics.database_errors.get() > 0);
    server.connect("postgres").batch_execute(&format!("CREATE DATABASE {database} TEMPLATE template0")).unwrap();
    waiting.opening.recv_timeout(DEADLINE).unwrap();
    drop(waiting.requests);
    waiting.thread.join().unwrap().unwrap();
}

#[test]
fn a_right_that_is_missing_is_waited_for_too() {
    let server = postgres::shared();
    let url = server.database();
    let database = url.rsplit('/').next().unwrap().to_owned();
    let mut admin = server.connect(&database);
    admin.batch_execute("CREATE ROLE powerless LOGIN PASSWORD 'tide'").unwrap();
    let waiting = keep(DatabaseUrl::Postgres(Secret::new(url.replace("postgres:tide@", "powerless:tide@"))));
    await_condition("it was refused", || waiting.metrics.database_errors.get() > 0);
    admin.batch_execute("GRANT ALL ON SCHEMA public TO powerless").unwrap();
    waiting.opening.recv_timeout(DEADLINE).unwrap();
    drop(waiting.requests);
    waiting.thread.join().unwrap().unwrap();
}

#[test]
fn a_file_that_is_no_database_is_told_at_once_and_one_out_of_reach_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("text"), "this is no database, and long enough to be told from one").unwrap();
    let error = keep(sqlite(&dir.path().join("text"))).thread.join().unwrap().unwrap_err();
    assert!(matches!(error, StoreError::NotSqlite { .. }), "{error}");

    // As a disk that is mounted late.
    let late = dir.path().join("mounted-late");
    let waiting = keep(sqlite(&late.join("file")));
    await_condition("it was refused", || waiting.metrics.database_errors.get() > 0);
    std::fs::create_dir(late).unwrap();
    waiting.opening.recv_timeout(DEADLINE).unwrap();
    drop(waiting.requests);
    waiting.thread.join().unwrap().unwrap();
}

#[test]
fn a_catalog_that_does_not_fit_the_sources_is_refused_and_the_old_one_stays() {
    let dir = tempfile::tempdir().unwrap();
    let url = sqlite(&dir.path().join("tidegate.db"));
    let keeping = keep(url.clone());
    keeping.opening.recv_timeout(DEADLINE).unwrap();

    // Another program takes the template away that a source names.
    keeping.store.reconcile(&Declared::default()).unwrap();
    await_condition("the change is seen", || keeping.metrics.reload_errors.get() == 1);
    let (done, told) = oneshot::channel();
    keeping.requests.send(Request { config: config(url.clone()), declared: Declared::default(), done }).unwrap();
    let refused = told.blocking_recv().unwrap().unwrap_err();
    assert!(refused.contains("native-climate"), "{refused}");
    assert_eq!(keeping.metrics.reload_errors.get(), 2);
    assert_eq!(keeping.reloads.try_recv().err(), Some(TryRecvError::Empty));

    let (done, told) = oneshot::channel();
    keeping.requests.send(Request { config: config(url), declared: files::load(None).unwrap(), done }).unwrap();
    told.blocking_recv().unwrap().unwrap();
    assert!(keeping.reloads.try_recv().unwrap().snapshot.templates.contains_key("native-climate"));
    drop(keeping.requests);
    keeping.thread.join().unwrap().unwrap();
}
