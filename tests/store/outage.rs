use std::cell::Cell;
use std::time::Duration;

use tidegate::config::{DatabaseUrl, Secret};
use tidegate::metrics::Metrics;
use tidegate::store::{BatchWriter, Store, StoreError};

use super::{batch, lookup, reading, settings};
use crate::support::postgres::Postgres;

#[test]
fn a_batch_survives_a_crash_of_postgresql() {
    let server = Postgres::start(true);
    let mut settings = settings(DatabaseUrl::Postgres(Secret::new(server.url("postgres"))));
    settings.connect_timeout = Duration::from_secs(2);
    let store = Store::open(&settings).unwrap();
    store.migrate().unwrap();
    store.position("gw", "j").unwrap();
    let mut writer = BatchWriter::new(store.clone(), "gw", "j", Metrics::new());
    writer.commit(&batch(1, vec![reading(0, 1, 1.0, 1)]), &lookup).unwrap();

    server.kill();
    let mut next = batch(2, vec![reading(0, 2, 2.0, 2)]);
    next.devices.clear();
    next.sensors.clear();
    let error = writer.commit(&next, &lookup).unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert!(store.ping().unwrap_err().is_transient());
    assert!(store.snapshot().unwrap_err().is_transient());

    server.restart();
    assert_eq!(writer.commit(&next, &lookup).unwrap().stored, 1);
    assert_eq!(store.position("gw", "j").unwrap().seq, 2);
}

#[test]
fn a_store_opens_before_its_database_and_migrates_when_it_is_up() {
    let server = Postgres::start(false);
    server.stop();
    let settings = settings(DatabaseUrl::Postgres(Secret::new(server.url("postgres"))));
    let store = Store::open(&settings).unwrap();
    let metrics = Metrics::new();

    let looked = Cell::new(0);
    let stop = || {
        looked.set(looked.get() + 1);
        looked.get() > 5
    };
    assert_eq!(store.migrate_when_up(&stop, &metrics).unwrap(), None);

    let done = std::thread::scope(|scope| {
        let run = scope.spawn(|| store.migrate_when_up(&|| false, &metrics).unwrap());
        server.restart();
        run.join().unwrap()
    });
    assert_eq!(done.unwrap().len(), 3);
    assert!(metrics.database_errors.get() > 0);
}

#[test]
fn a_wrong_password_or_database_is_told_at_once_and_without_the_password() {
    let server = crate::support::postgres::shared();
    for url in [
        format!("postgres://postgres:wrong-secret@127.0.0.1:{}/postgres", server.port()),
        server.url("no_such_database"),
    ] {
        let store = Store::open(&settings(DatabaseUrl::Postgres(Secret::new(url)))).unwrap();
        let error = store.migrate_when_up(&|| false, &Metrics::new()).unwrap_err();
        assert!(matches!(error, StoreError::Refused { .. }), "{error}");
        assert!(!error.to_string().contains("wrong-secret"), "{error}");
    }
}

#[test]
fn a_sqlite_file_that_cannot_be_one_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("text"), "this is no database, and long enough to be told from one").unwrap();
    for path in [dir.path().join("text"), dir.path().join("no-such-directory/file")] {
        let store = Store::open(&settings(DatabaseUrl::Sqlite(path))).unwrap();
        let error = store.migrate_when_up(&|| false, &Metrics::new()).unwrap_err();
        assert!(!error.is_transient(), "{error}");
    }
}

#[test]
fn without_prepared_statements_everything_works_as_well() {
    let server = crate::support::postgres::shared();
    let mut settings = settings(DatabaseUrl::Postgres(Secret::new(server.database())));
    settings.pgbouncer = true;
    let store = Store::open(&settings).unwrap();
    store.migrate().unwrap();
    store.position("gw", "j").unwrap();
    let mut writer = BatchWriter::new(store, "gw", "j", Metrics::new());
    for n in 1..4 {
        let work = batch(n, vec![reading(0, i64::try_from(n).unwrap(), 1.0, n)]);
        assert_eq!(writer.commit(&work, &lookup).unwrap().stored, 1);
    }
}
