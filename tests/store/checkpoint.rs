use diesel::connection::SimpleConnection;
use diesel::{Connection, SqliteConnection};
use tidegate::config::DatabaseUrl;
use tidegate::store::batch::Batch;

use super::{Site, batch, lookup, reading};

fn path(site: &Site) -> String {
    match &site.settings.url {
        DatabaseUrl::Sqlite(path) => path.to_str().unwrap().to_owned(),
        DatabaseUrl::Postgres(_) => unreachable!(),
    }
}

fn fill(site: &Site, writer: &mut tidegate::store::BatchWriter, from: i64) {
    let position = u64::try_from(from).unwrap() + 1;
    let readings = (from..from + 20_000).map(|n| reading(0, n, 1.0, position)).collect();
    let work = if from == 0 {
        batch(position, readings)
    } else {
        Batch { position, generation: 1, readings, ..Batch::default() }
    };
    assert_eq!(writer.commit(&work, &lookup).unwrap().stored, 20_000);
    assert!(site.store.checkpoint(u64::MAX).unwrap().bytes > 0);
}

#[test]
fn the_log_is_begun_anew_while_the_writer_lives() {
    let site = Site::sqlite();
    let (mut writer, _) = site.writer();
    fill(&site, &mut writer, 0);
    let done = site.store.checkpoint(0).unwrap();
    assert_eq!((done.bytes, done.held), (0, false));
    fill(&site, &mut writer, 20_000);
    assert_eq!(site.rows("telemetry"), 40_000);
}

#[test]
fn a_reader_holds_the_log_and_nothing_else() {
    let site = Site::sqlite();
    let (mut writer, _) = site.writer();
    fill(&site, &mut writer, 0);
    let mut reader = SqliteConnection::establish(&path(&site)).unwrap();
    reader.batch_execute("BEGIN; SELECT count(*) FROM telemetry").unwrap();
    fill(&site, &mut writer, 20_000);
    assert!(site.store.checkpoint(0).unwrap().held);
    fill(&site, &mut writer, 40_000);
    reader.batch_execute("COMMIT").unwrap();
    assert_eq!(site.store.checkpoint(0).unwrap().bytes, 0);
    assert_eq!(site.rows("telemetry"), 60_000);
}
