use std::time::Duration;

use tidegate::config::{DatabaseUrl, Duplicates, Secret};
use tidegate::metrics::Metrics;
use tidegate::store::batch::{Batch, TextReading};
use tidegate::store::{BatchWriter, Store};

use super::{Site, at, batch, lookup, on_both, reading, settings};
use crate::support::proxy::{Proxy, Way};

on_both!(
    a_batch_with_one_duplicate_stores_the_rest_exactly_once,
    keep_last_puts_the_later_reading_in_the_place_of_the_earlier,
    a_stream_of_duplicates_stays_exact,
);

/// More readings of the sensor that the first batch has made.
fn more(position: u64, times: std::ops::Range<i64>, value: f64) -> Batch {
    let readings = times.map(|time| reading(0, time, value, position)).collect();
    Batch { position, generation: 1, readings, ..Batch::default() }
}

fn writer(site: &Site, duplicates: Duplicates) -> (BatchWriter, Metrics) {
    let mut settings = site.settings.clone();
    settings.duplicates = duplicates;
    let (store, metrics) = (Store::open(&settings).unwrap(), Metrics::new());
    store.position("gw", "journal-1").unwrap();
    (BatchWriter::new(store, "gw", "journal-1", metrics.clone()), metrics)
}

fn a_batch_with_one_duplicate_stores_the_rest_exactly_once(site: &Site) {
    let (mut writer, metrics) = site.writer();
    writer.commit(&batch(1, vec![reading(0, 500, 7.0, 1)]), &lookup).unwrap();
    let done = writer.commit(&more(2, 0..1000, 1.0), &lookup).unwrap();
    assert_eq!((done.stored, done.duplicates, done.rejected, done.bisected), (999, 1, 0, false));
    assert_eq!(done.staged, site.is_postgres);
    assert_eq!(site.rows("telemetry"), 1000);
    assert_eq!(site.number("SELECT count(*) AS n FROM telemetry WHERE value = 7"), 1, "the first to come stays");

    let done = writer.commit(&more(3, 1000..2000, 1.0), &lookup).unwrap();
    assert_eq!((done.stored, done.staged), (1000, false), "that batch alone");
    assert_eq!(metrics.batches_staged.get(), u64::from(site.is_postgres));
    assert_eq!((metrics.readings_stored.get(), metrics.readings_duplicate.get()), (2000, 1));
    assert_eq!(metrics.batches_bisected.get(), 0);
}

fn keep_last_puts_the_later_reading_in_the_place_of_the_earlier(site: &Site) {
    let (mut writer, metrics) = writer(site, Duplicates::KeepLast);
    let text = |value: &str| TextReading { sensor: 0, time: at(1), value: value.into(), seq: 1 };
    let mut first = batch(1, vec![reading(0, 1, 1.0, 1), reading(0, 2, 1.0, 1), reading(0, 1, 2.0, 1)]);
    first.texts = vec![text("a"), text("b")];
    let done = writer.commit(&first, &lookup).unwrap();
    assert_eq!((done.stored, done.duplicates), (3, 2));
    let value = |time: i64| {
        let time = if site.is_postgres { format!("to_timestamp({}e-6)", at(time).0) } else { at(time).0.to_string() };
        site.number(&format!("SELECT CAST(value AS bigint) AS n FROM telemetry WHERE time = {time}"))
    };
    assert_eq!((value(1), value(2)), (2, 1));
    assert_eq!(site.texts("SELECT value AS t FROM telemetry_text"), ["b"]);

    let mut second = more(2, 2..4, 5.0);
    second.texts = vec![text("c")];
    let done = writer.commit(&second, &lookup).unwrap();
    assert_eq!((done.stored, done.duplicates), (1, 2));
    assert_eq!((value(1), value(2), value(3)), (2, 5, 5));
    assert_eq!(site.texts("SELECT value AS t FROM telemetry_text"), ["c"]);
    writer.commit(&more(3, 3..4, 6.0), &lookup).unwrap();
    let sensor = site.store.device(None, "d0").unwrap().remove(0).sensors.remove(0);
    assert_eq!((sensor.last_value, sensor.last_text.as_deref()), (Some(6.0), Some("c")));
    assert_eq!(metrics.readings_duplicate.get(), 5);
}

fn a_stream_of_duplicates_stays_exact(site: &Site) {
    let (mut writer, metrics) = site.writer();
    writer.commit(&batch(1, vec![]), &lookup).unwrap();
    for n in 0..8 {
        let position = u64::try_from(n).unwrap() + 2;
        let done = writer.commit(&more(position, n * 10..n * 10 + 11, n as f64), &lookup).unwrap();
        assert_eq!((done.stored, done.duplicates), if n == 0 { (11, 0) } else { (10, 1) });
    }
    // The first three find it out, the others know.
    assert_eq!(metrics.batches_staged.get(), if site.is_postgres { 3 } else { 0 });
    writer.commit(&more(20, 1000..1010, 1.0), &lookup).unwrap();
    writer.commit(&more(21, 1009..1020, 1.0), &lookup).unwrap();
    assert_eq!(metrics.batches_staged.get(), if site.is_postgres { 4 } else { 0 }, "a clean batch opens the fast way");
    assert_eq!(site.rows("telemetry"), 101);
}

#[test]
fn the_language_of_the_servers_words_does_not_matter() {
    let site = Site::postgres();
    let (mut writer, metrics) = site.writer();
    writer.commit(&batch(1, vec![]), &lookup).unwrap();
    // Words that nobody knows, once with the code of a unique violation and once with one that diesel does not tell.
    for (position, code) in [(2_u64, "unique_violation"), (3, "P0001")] {
        site.execute(&format!(
            "CREATE FUNCTION refuse_{position}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF NEW.value = 13 AND current_query() LIKE 'COPY%' THEN
                     RAISE EXCEPTION 'doppelter Schlüsselwert verletzt Unique-Constraint' USING ERRCODE = '{code}';
                 END IF;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON telemetry FOR EACH ROW EXECUTE FUNCTION refuse_{position}();"
        ));
        let from = i64::try_from(position).unwrap() * 100;
        let mut work = more(position, from..from + 10, 1.0);
        work.readings[4].value = 13.0;
        let done = writer.commit(&work, &lookup).unwrap();
        assert_eq!((done.stored, done.staged, done.rejected), (10, true, 0), "{code}");
        site.execute("DROP TRIGGER refuse ON telemetry");
    }
    assert_eq!((site.rows("telemetry"), metrics.batches_staged.get()), (20, 2));
}

#[test]
fn a_copy_that_is_cut_in_the_middle_is_repeated_and_stored_once() {
    let server = crate::support::postgres::shared();
    let direct = server.database();
    let proxy = Proxy::start(server.port());
    let through = direct.replace(&format!(":{}/", server.port()), &format!(":{}/", proxy.port));
    let store = Store::open(&settings(DatabaseUrl::Postgres(Secret::new(direct.clone())))).unwrap();
    store.migrate().unwrap();
    store.position("gw", "j").unwrap();
    let mut settings = settings(DatabaseUrl::Postgres(Secret::new(through)));
    settings.connect_timeout = Duration::from_secs(10);
    let mut writer = BatchWriter::new(Store::open(&settings).unwrap(), "gw", "j", Metrics::new());
    writer.commit(&batch(1, vec![]), &lookup).unwrap();
    // 34 bytes a row: the cut comes between the first rows and the last.
    let work = more(2, 0..20_000, 1.0);
    proxy.cut_after(Way::ToServer, 300_000);
    let error = writer.commit(&work, &lookup).unwrap_err();
    assert!(error.is_transient(), "{error}");
    let done = writer.commit(&work, &lookup).unwrap();
    assert_eq!((done.stored, done.duplicates, done.rejected), (20_000, 0, 0));
    assert_eq!(store.position("gw", "j").unwrap().seq, 2);
}
