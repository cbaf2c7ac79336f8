use std::time::Duration;

use tidegate::config::Config;
use tidegate::metrics::Metrics;
use tidegate::store::figures::Figure;
use tidegate::upkeep::{Chore, Figures, Next};

use super::{Site, at, on_both};

on_both!(
    figures_are_written_once,
    old_figures_leave_in_small_batches_whoever_wrote_them,
    the_chore_writes_what_has_changed_and_everything_once_an_hour,
);

const MINUTE: i64 = 60_000_000;

fn figure(name: &str, labels: &str, value: f64) -> Figure {
    Figure { name: name.to_owned(), labels: labels.to_owned(), value }
}

fn figures_are_written_once(site: &Site) {
    let figures = [
        figure("a_total", "", 1.0),
        figure("a_total", "reason=\"x\"", 2.5),
        figure("no_number", "", f64::NAN),
        figure("far_too_long", &"x".repeat(1000), 1.0),
    ];
    assert_eq!(site.store.write_figures("gw", at(0), &figures).unwrap(), 2);
    assert_eq!(site.store.write_figures("gw", at(0), &figures).unwrap(), 0);
    assert_eq!(site.store.write_figures("gw-2", at(0), &figures).unwrap(), 2);
    assert_eq!(site.store.write_figures("gw", at(1), &[]).unwrap(), 0);
    assert_eq!(site.rows("system_metrics WHERE labels = 'reason=\"x\"' AND value = 2.5"), 2);
}

fn old_figures_leave_in_small_batches_whoever_wrote_them(site: &Site) {
    for n in 0..30 {
        let figures: Vec<Figure> = (0..4).map(|label| figure("a", &format!("n=\"{label}\""), 0.0)).collect();
        site.store.write_figures("gw", at(n), &figures).unwrap();
        site.store.write_figures("gone", at(n), &[figure("b", "", 0.0)]).unwrap();
    }
    let mut batches = 0;
    loop {
        let before = site.rows("system_metrics");
        let expired = site.store.expire_figures(at(20), 10).unwrap();
        assert_eq!(before - site.rows("system_metrics"), i64::try_from(expired.figures).unwrap());
        assert!(expired.figures <= 13, "as many as asked for, and what has the last one's time: {expired:?}");
        batches += 1;
        if !expired.more {
            break;
        }
    }
    assert!(batches > 5, "{batches}");
    assert_eq!(site.rows("system_metrics WHERE instance = 'gw'"), 40);
    assert_eq!(site.rows("system_metrics WHERE instance = 'gone'"), 10);
    assert_eq!(site.store.expire_figures(at(20), 10).unwrap().figures, 0);
}

fn the_chore_writes_what_has_changed_and_everything_once_an_hour(site: &Site) {
    let metrics = Metrics::new();
    let mut config = Config::default();
    config.figures.every = Some(Duration::from_secs(60));
    let mut chore = Figures::new(&config, metrics.clone()).unwrap();
    let rows = |name: &str| site.rows(&format!("system_metrics WHERE instance = 'gw-01' AND name = '{name}'"));

    assert_eq!(chore.step(&site.store, at(0)).unwrap(), Next::At(at(MINUTE)));
    let all = site.rows("system_metrics");
    assert!(all > 50, "{all}");
    metrics.readings_stored.inc();
    metrics.store_latency.observe(0.002);
    chore.step(&site.store, at(MINUTE)).unwrap();
    assert_eq!((rows("tidegate_readings_stored_total"), rows("tidegate_journal_full")), (2, 1));
    assert_eq!(site.rows("system_metrics WHERE labels = 'quantile=\"0.99\"' AND value BETWEEN 0.001 AND 0.004"), 1);
    for minute in 2..60 {
        chore.step(&site.store, at(minute * MINUTE)).unwrap();
    }
    assert_eq!((rows("tidegate_readings_stored_total"), rows("tidegate_journal_full")), (2, 1));
    chore.step(&site.store, at(60 * MINUTE)).unwrap();
    assert_eq!((rows("tidegate_readings_stored_total"), rows("tidegate_journal_full")), (3, 2));
    assert_eq!(i64::try_from(metrics.figures_written.get()).unwrap(), site.rows("system_metrics"));

    // A figure of before the retention goes with the next look.
    let retain = i64::try_from(config.figures.retain.as_micros()).unwrap();
    chore.step(&site.store, at(retain + 30 * MINUTE)).unwrap();
    assert_eq!((rows("tidegate_readings_stored_total"), rows("tidegate_journal_full")), (2, 2));

    config.figures.every = None;
    assert!(Figures::new(&config, metrics).is_none());
}
