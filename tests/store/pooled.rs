//! The life of stored readings where PgBouncer lends another session for each transaction: rolled up, compressed, archived, dropped,
//! restored.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidegate::archive::Archive;
use tidegate::cli;
use tidegate::config::{Config, DatabaseUrl, LayoutChoice, Secret};
use tidegate::metrics::{ByClass, Metrics};
use tidegate::store::Store;
use tidegate::store::layout::Layout;
use tidegate::upkeep::retention::Retention;
use tidegate::upkeep::rollups::Rollups;

use super::retention::{contents, fill, lifetimes, run, until_done};
use super::timescale::compress;
use super::{Site, settings};
use crate::support::pgbouncer::PgBouncer;
use crate::support::postgres::{self, Postgres};

/// The pooler, and a site whose store goes through it while its own questions go straight to the server.
fn site(server: &Arc<Postgres>, layout: LayoutChoice) -> (PgBouncer, Site) {
    let direct = server.database();
    let pooler = PgBouncer::start(server, 3, "");
    let mut through = settings(DatabaseUrl::Postgres(Secret::new(pooler.url(direct.rsplit('/').next().unwrap()))));
    through.layout = layout;
    through.pgbouncer = true;
    let store = Store::open(&through).unwrap();
    store.migrate().unwrap();
    let settings = settings(DatabaseUrl::Postgres(Secret::new(direct)));
    (pooler, Site { store, settings, is_postgres: true, _server: Some(Arc::clone(server)), _dir: None })
}

/// Does something while another client of the pooler has transactions of its own, so that sessions change hands.
fn in_company(site: &Site, work: impl FnOnce()) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let other = site.store.clone();
            while !over.load(Ordering::Relaxed) {
                other.catalog_version().unwrap();
            }
        });
        // Whatever happens, the other one ends.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        over.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

fn a_whole_life(site: &Site, compressed: u64) {
    fill(site, &[0, 1, 12, 13, 400]);
    let before = contents(site);
    let dir = tempfile::tempdir().unwrap();
    let archive = Archive::new(dir.path().to_owned());
    let metrics = Metrics::new();
    in_company(site, || {
        let mut rollups = Rollups::new(Config::default().rollups, lifetimes(10).raw, metrics.clone());
        until_done(&mut rollups, &site.store).unwrap();
        assert_eq!(compress(site), compressed);
        let mut retention = Retention::new(&lifetimes(10), Some(archive.clone()), true, metrics.clone());
        until_done(&mut retention, &site.store).unwrap();
    });
    assert_eq!((site.rows("telemetry"), site.rows("telemetry_text")), (8, 4));
    let parts = |class| metrics.retention_parts.get_or_create(&ByClass { class }).get();
    assert_eq!((parts("raw"), parts("text"), metrics.archive_errors.get()), (3, 3, 0));
    let entries = archive.entries().unwrap();
    assert_eq!(entries.iter().map(|entry| entry.rows).sum::<u64>(), 18);
    assert!(cli::archive::verify(&archive, false, &mut Vec::new()).unwrap());
    in_company(site, || {
        let month = Duration::from_secs(30 * 86_400);
        cli::archive::restore(&archive, &site.store, &entries, month, false, &mut Vec::new()).unwrap();
    });
    assert_eq!(contents(site), before);
    in_company(site, || drop(run(&site.store, &lifetimes(10), Some(&archive)).unwrap()));
    assert_eq!(contents(site), before, "restored readings are left alone");
    let stats = site.store.stats(tidegate::clock::now()).unwrap();
    assert_eq!(stats.unknown, Vec::<String>::new());
}

#[test]
fn partitions_through_a_pooler_live_and_go_as_without() {
    let (pooler, site) = site(&postgres::shared(), LayoutChoice::Partitions);
    assert_eq!(site.store.layout().unwrap(), Layout::Partitions);
    a_whole_life(&site, 0);
    quiet(&pooler);
}

#[test]
fn chunks_through_a_pooler_live_and_go_as_without() {
    let Some(server) = Postgres::with_timescaledb().map(Arc::new) else { return };
    let (pooler, site) = site(&server, LayoutChoice::Timescale);
    assert_eq!(site.store.layout().unwrap(), Layout::Timescale);
    a_whole_life(&site, 6);
    quiet(&pooler);
}

/// No session was given back in a transaction, and no statement was missing.
fn quiet(pooler: &PgBouncer) {
    let log = pooler.log();
    assert!(!log.contains("prepared statement") && !log.contains("unclean server"), "{log}");
}
