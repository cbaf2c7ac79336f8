use std::time::Duration;

use tidegate::config::{DatabaseUrl, Secret};
use tidegate::metrics::Metrics;
use tidegate::store::{BatchWriter, Store};

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
