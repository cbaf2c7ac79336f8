//! Readings whose transactions are under way while the chore works: PostgreSQL lets two write at once.

use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection};
use tidegate::config::DatabaseUrl;

use super::model::{assert_right, reading, store};
use super::{HOUR, MINUTE, START, ten_hours};
use crate::store::Site;

/// A transaction that has read the horizon and not yet committed its reading, as the writer's last moments are.
#[test]
fn the_horizon_waits_for_who_is_storing() {
    let site = Site::postgres();
    let (_writer, mut model, mut clockwork) = ten_hours(&site);
    let DatabaseUrl::Postgres(url) = &site.settings.url else { panic!() };
    let mut storing = PgConnection::establish(url.expose()).unwrap();
    let insert = "INSERT INTO telemetry SELECT id, '2026-03-05 09:30:00.5+00', 77 FROM device_sensors \
         WHERE metric = 'humidity'; SELECT * FROM rollup_horizon ORDER BY grain FOR KEY SHARE";
    storing.batch_execute(&format!("BEGIN; {insert}")).unwrap();
    model.0.insert((1, START + 9 * HOUR + 30 * MINUTE + 500_000), 77.0);
    clockwork.now += 2 * MINUTE;
    std::thread::scope(|scope| {
        let rolling = scope.spawn(|| clockwork.run(&site.store));
        let waits = "SELECT count(*) AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%rollup_horizon%'";
        crate::support::daemon::eventually("the horizon waits", || (site.number(waits) > 0).then_some(()));
        storing.batch_execute("COMMIT").unwrap();
        rolling.join().unwrap();
    });
    assert_eq!(site.rows("rollup_hourly"), 30, "the tenth hour is rolled up");
    assert_right(&site, &model, "with what was being stored");
}

/// The mark of a reading that is being stored is neither taken nor lost.
#[test]
fn a_mark_that_is_being_put_is_left_for_later() {
    let site = Site::postgres();
    let (mut writer, mut model, mut clockwork) = ten_hours(&site);
    store(&mut writer, &mut model, 2, vec![reading(1, START + 1, 5.0)]);
    let DatabaseUrl::Postgres(url) = &site.settings.url else { panic!() };
    let mut storing = PgConnection::establish(url.expose()).unwrap();
    let insert = "INSERT INTO telemetry SELECT id, '2026-03-05 00:30:00.5+00', 77 FROM device_sensors \
         WHERE metric = 'humidity'; INSERT INTO rollup_pending SELECT * FROM rollup_pending \
         ON CONFLICT (grain, sensor_id, bucket) DO UPDATE SET bucket = excluded.bucket WHERE false";
    storing.batch_execute(&format!("BEGIN; {insert}")).unwrap();
    clockwork.run(&site.store);
    assert_eq!(site.rows("rollup_pending"), 1);
    assert_right(&site, &model, "while it is stored");
    storing.batch_execute("COMMIT").unwrap();
    model.0.insert((1, START + 30 * MINUTE + 500_000), 77.0);
    assert_right(&site, &model, "stored");
    clockwork.run(&site.store);
    assert_eq!(site.rows("rollup_pending"), 0);
    assert_right(&site, &model, "rolled up anew");
}
