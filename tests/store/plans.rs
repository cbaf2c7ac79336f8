//! The queries of docs/queries.md, at a size where a wrong plan would show: each runs, and takes the index it is meant to.

use std::collections::BTreeSet;
use std::path::Path;

use diesel::prelude::*;
use diesel::sql_types::Text;
use tidegate::config::DatabaseUrl;

use super::Site;

/// A query of the page, for one database.
pub(super) struct Documented {
    pub(super) heading: String,
    pub(super) sql: String,
}

/// What the plan of a query is to show.
pub(super) struct Expected {
    heading: &'static str,
    pub(super) telemetry: Telemetry,
    /// Indexes that the plan names: on PostgreSQL, on SQLite.
    pub(super) indexes: (&'static [&'static str], &'static [&'static str]),
}

/// How the plan may touch the readings.
pub(super) enum Telemetry {
    Never,
    /// By sensor, with both ends of time, in so many daily partitions or chunks at most.
    Range {
        partitions: usize,
    },
    /// From a sensor's end.
    End,
}

pub(super) const EXPECTED: [Expected; 14] = [
    Expected {
        heading: "Latest value of every sensor of a device",
        telemetry: Telemetry::Never,
        indexes: (
            &["devices_uid_tenant_id_key", "device_sensors_device_id_metric_key"],
            &["sqlite_autoindex_devices_1", "sqlite_autoindex_device_sensors_1"],
        ),
    },
    Expected {
        heading: "A metric's last 24 hours",
        telemetry: Telemetry::Range { partitions: 2 },
        indexes: (
            &["devices_uid_tenant_id_key", "device_sensors_device_id_metric_key"],
            &["sqlite_autoindex_devices_1"],
        ),
    },
    Expected {
        heading: "Hourly average of a month",
        telemetry: Telemetry::Range { partitions: 31 },
        indexes: (
            &["devices_uid_tenant_id_key", "device_sensors_device_id_metric_key"],
            &["sqlite_autoindex_devices_1"],
        ),
    },
    Expected { heading: "Devices silent for an hour", telemetry: Telemetry::Never, indexes: (&[], &[]) },
    Expected {
        heading: "Top movers over an hour",
        telemetry: Telemetry::Range { partitions: 2 },
        indexes: (&["device_sensors_metric"], &["device_sensors_metric"]),
    },
    Expected {
        heading: "Readings of a device between two times",
        telemetry: Telemetry::Range { partitions: 2 },
        indexes: (&["devices_uid_tenant_id_key"], &["sqlite_autoindex_devices_1"]),
    },
    Expected {
        heading: "Newest readings of a device",
        telemetry: Telemetry::End,
        indexes: (&["devices_uid_tenant_id_key"], &["sqlite_autoindex_devices_1"]),
    },
    Expected {
        heading: "Readings a day of a device",
        telemetry: Telemetry::Range { partitions: 31 },
        indexes: (&["devices_uid_tenant_id_key"], &["sqlite_autoindex_devices_1"]),
    },
    Expected {
        heading: "Quarantine of the last hour",
        telemetry: Telemetry::Never,
        indexes: (&["quarantine_events_at"], &["quarantine_events_at"]),
    },
    Expected {
        heading: "Events, newest first",
        telemetry: Telemetry::Never,
        indexes: (&["events_at"], &["events_at"]),
    },
    Expected {
        heading: "Alerts that are not over",
        telemetry: Telemetry::Never,
        indexes: (&["alerts_active"], &["alerts_active"]),
    },
    Expected {
        heading: "Alerts of a device, newest first",
        telemetry: Telemetry::Never,
        indexes: (
            &["devices_uid_tenant_id_key", "alerts_by_device"],
            &["sqlite_autoindex_devices_1", "alerts_by_device"],
        ),
    },
    Expected {
        heading: "Last values of a metric over all devices",
        telemetry: Telemetry::Never,
        indexes: (&["device_sensors_metric"], &["device_sensors_metric"]),
    },
    Expected {
        heading: "One of tidegate's own figures over a day",
        telemetry: Telemetry::Never,
        indexes: (&["system_metrics_pkey"], &["instance=? AND name=? AND time>? AND time<?"]),
    },
];

mod the_queries_people_run_take_their_index {
    use super::*;

    #[test]
    fn postgres_plain() {
        let site = Site::postgres();
        plain_table(&site);
        fill(&site);
        look(&site, false);
    }

    #[test]
    fn postgres_partitions() {
        let site = Site::postgres();
        daily_partitions(&site);
        fill(&site);
        look(&site, true);
    }

    #[test]
    fn sqlite() {
        let site = Site::sqlite();
        fill(&site);
        look(&site, false);
    }
}

#[test]
fn every_documented_query_has_both_forms_and_an_expected_plan() {
    let expected: Vec<&str> = EXPECTED.iter().map(|expected| expected.heading).collect();
    for database in ["postgres", "sqlite"] {
        let queries = documented(database);
        assert_eq!(queries.iter().map(|query| query.heading.as_str()).collect::<Vec<_>>(), expected, "{database}");
    }
}

/// The page's queries for one database, in order.
pub(super) fn documented(database: &str) -> Vec<Documented> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/queries.md");
    let page = std::fs::read_to_string(page).unwrap();
    let mut queries = Vec::new();
    for section in page.split("\n## ").skip(1) {
        let heading = section.lines().next().unwrap().to_owned();
        let fence = format!("```sql {database}\n");
        for block in section.split(fence.as_str()).skip(1) {
            let sql = block.split("```").next().unwrap().trim().trim_end_matches(';').to_owned();
            queries.push(Documented { heading: heading.clone(), sql });
        }
    }
    queries
}

/// The table as it is without partitions, whatever `migrate` has made of it.
pub fn plain_table(site: &Site) {
    with_telemetry(
        site,
        "CREATE TABLE telemetry (sensor_id integer NOT NULL, time timestamptz NOT NULL, value double precision NOT NULL, PRIMARY KEY (sensor_id, time))",
    );
}

/// Fifty days behind and seven ahead.
pub fn daily_partitions(site: &Site) {
    with_telemetry(
        site,
        "CREATE TABLE telemetry (sensor_id integer NOT NULL, time timestamptz NOT NULL, value double precision NOT NULL, PRIMARY KEY (sensor_id, time)) PARTITION BY RANGE (time);
         DO $$ BEGIN
             FOR day IN -50..7 LOOP
                 EXECUTE format('CREATE TABLE telemetry_of_%s PARTITION OF telemetry FOR VALUES FROM (%L) TO (%L)',
                     day + 50, date_trunc('day', now()) + make_interval(days => day), date_trunc('day', now()) + make_interval(days => day + 1));
             END LOOP;
         END $$",
    );
}

/// Puts another table in the place of `telemetry`, and a plain one in that of `telemetry_text`, under the same view.
fn with_telemetry(site: &Site, create: &str) {
    let view = site.texts("SELECT pg_get_viewdef('readings'::regclass) AS t").remove(0);
    let texts = "CREATE TABLE telemetry_text (sensor_id integer NOT NULL, time timestamptz NOT NULL, value text NOT NULL, PRIMARY KEY (sensor_id, time))";
    site.execute(&format!(
        "DROP TABLE telemetry, telemetry_text CASCADE; {create}; {texts}; CREATE OR REPLACE VIEW readings AS {view}"
    ));
}

/// 2,000 devices with ten sensors each; 500 of them report `temperature` hourly for 40 days, one (`boiler-7`) reports all its
/// metrics every ten minutes: some 530,000 readings.
pub fn fill(site: &Site) {
    let statements = if site.is_postgres { POSTGRES } else { SQLITE };
    site.execute(statements);
    if site.is_postgres {
        site.execute("ANALYZE");
    } else {
        site.store.analyze_sqlite().unwrap();
    }
}

const POSTGRES: &str = "
INSERT INTO devices (tenant_id, uid, first_seen, last_seen)
    SELECT 1, 'boiler-' || n, now() - interval '50 days', now() - make_interval(mins => n % 90) FROM generate_series(1, 2000) n;
INSERT INTO device_sensors (tenant_id, device_id, metric, unit, kind, source, last_time, last_value)
    SELECT 1, d.id, CASE WHEN m = 0 AND (d.id % 4 = 0 OR d.uid = 'boiler-7') THEN 'temperature' ELSE 'metric-' || m END, '°C', 'number', 'optional',
        d.last_seen, m FROM devices d, generate_series(0, 8) m;
INSERT INTO device_sensors (tenant_id, device_id, metric, unit, kind, source, last_text_time, last_text)
    SELECT 1, d.id, 'state', '', 'text', 'optional', d.last_seen, 'on' FROM devices d;
INSERT INTO telemetry (sensor_id, time, value)
    SELECT s.id, now() - make_interval(hours => h), h FROM generate_series(0, 960) h, device_sensors s WHERE s.metric = 'temperature';
INSERT INTO telemetry (sensor_id, time, value)
    SELECT s.id, now() - make_interval(mins => 10 * n + 1), n FROM generate_series(0, 5760) n, device_sensors s
    JOIN devices d ON d.id = s.device_id WHERE d.uid = 'boiler-7' AND s.kind = 'number';
INSERT INTO telemetry_text (sensor_id, time, value)
    SELECT s.id, now() - make_interval(hours => h), 'on' FROM generate_series(0, 960) h, device_sensors s
    WHERE s.metric = 'state' AND s.device_id % 40 = 7;
INSERT INTO quarantine_messages (tenant_id, instance, journal_id, seq, received_at, topic, payload, qos, retain, more)
    SELECT 1, 'gw-01', 'j', n, now() - make_interval(mins => n), 't', '', 1, false, 0 FROM generate_series(1, 20000) n;
INSERT INTO quarantine_events (tenant_id, message_id, at, reason, detail)
    SELECT 1, id, received_at, 'malformed', '' FROM quarantine_messages;
INSERT INTO events (tenant_id, at, kind, detail)
    SELECT 1, now() - make_interval(mins => n), 'started', '' FROM generate_series(1, 20000) n;
INSERT INTO alerts (id, tenant_id, instance, rule, device_id, metric, severity, state, step, unit, onset, since, resolved_at, message)
    SELECT md5(n::text), 1, 'gw-01', 'too-hot', d.id, 'temperature', 'warning', CASE WHEN n < 20 THEN 'firing' ELSE 'resolved' END, 1,
        '°C', now() - make_interval(mins => n), now() - make_interval(mins => n),
        CASE WHEN n < 20 THEN NULL ELSE now() - make_interval(mins => n - 1) END, ''
    FROM generate_series(1, 20000) n JOIN devices d ON d.uid = 'boiler-' || (1 + n % 2000);
INSERT INTO system_metrics (instance, name, time, labels, value)
    SELECT 'gw-01', name, now() - make_interval(mins => n), label, n FROM generate_series(1, 10000) n,
        (VALUES ('tidegate_store_latency_seconds', 'quantile=\"0.99\"'), ('tidegate_readings_stored_total', '')) names (name, label);
";

const SQLITE: &str = "
CREATE TEMP TABLE numbers AS WITH RECURSIVE n (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < 20000) SELECT n FROM n;
CREATE TEMP TABLE clock AS SELECT unixepoch('now') * 1000000 AS now, 60000000 AS minute;
INSERT INTO devices (tenant_id, uid, declared, first_seen, last_seen)
    SELECT 1, 'boiler-' || n, 0, now - 50 * 1440 * minute, now - (n % 90) * minute FROM numbers, clock WHERE n BETWEEN 1 AND 2000;
INSERT INTO device_sensors (tenant_id, device_id, metric, unit, kind, source, last_time, last_value)
    SELECT 1, d.id, CASE WHEN n = 0 AND (d.id % 4 = 0 OR d.uid = 'boiler-7') THEN 'temperature' ELSE 'metric-' || n END, '°C', 'number', 'optional',
        d.last_seen, n FROM devices d, numbers WHERE n <= 8;
INSERT INTO device_sensors (tenant_id, device_id, metric, unit, kind, source, last_text_time, last_text)
    SELECT 1, d.id, 'state', '', 'text', 'optional', d.last_seen, 'on' FROM devices d;
INSERT INTO telemetry (sensor_id, time, value)
    SELECT s.id, now - 60 * n * minute, n FROM device_sensors s, numbers, clock WHERE s.metric = 'temperature' AND n <= 960;
INSERT INTO telemetry (sensor_id, time, value)
    SELECT s.id, now - (10 * n + 1) * minute, n FROM device_sensors s JOIN devices d ON d.id = s.device_id, numbers, clock
    WHERE d.uid = 'boiler-7' AND s.kind = 'number' AND n <= 5760;
INSERT INTO telemetry_text (sensor_id, time, value)
    SELECT s.id, now - 60 * n * minute, 'on' FROM device_sensors s, numbers, clock
    WHERE s.metric = 'state' AND s.device_id % 40 = 7 AND n <= 960;
INSERT INTO quarantine_messages (tenant_id, instance, journal_id, seq, received_at, topic, payload, qos, retain, more)
    SELECT 1, 'gw-01', 'j', n, now - n * minute, 't', x'', 1, 0, 0 FROM numbers, clock WHERE n > 0;
INSERT INTO quarantine_events (tenant_id, message_id, at, reason, detail)
    SELECT 1, id, received_at, 'malformed', '' FROM quarantine_messages;
INSERT INTO events (tenant_id, at, kind, detail) SELECT 1, now - n * minute, 'started', '' FROM numbers, clock WHERE n > 0;
INSERT INTO alerts (id, tenant_id, instance, rule, device_id, metric, severity, state, step, unit, onset, since, resolved_at, message)
    SELECT printf('%032x', n), 1, 'gw-01', 'too-hot', d.id, 'temperature', 'warning', CASE WHEN n < 20 THEN 'firing' ELSE 'resolved' END, 1,
        '°C', now - n * minute, now - n * minute, CASE WHEN n < 20 THEN NULL ELSE now - (n - 1) * minute END, ''
    FROM clock, numbers JOIN devices d ON d.uid = 'boiler-' || (1 + n % 2000) WHERE n > 0;
INSERT INTO system_metrics (instance, name, time, labels, value)
    SELECT 'gw-01', names.column1, now - n * minute, names.column2, n FROM numbers, clock,
        (VALUES ('tidegate_store_latency_seconds', 'quantile=\"0.99\"'), ('tidegate_readings_stored_total', '')) names WHERE n BETWEEN 1 AND 10000;
";

#[derive(QueryableByName)]
struct PlanLine {
    #[diesel(sql_type = Text, column_name = "QUERY PLAN")]
    line: String,
}

#[derive(QueryableByName)]
struct PlanDetail {
    #[diesel(sql_type = Text)]
    detail: String,
}

pub(super) fn plan(site: &Site, sql: &str) -> Vec<String> {
    match &site.settings.url {
        DatabaseUrl::Postgres(url) => {
            let mut connection = PgConnection::establish(url.expose()).unwrap();
            let lines: Vec<PlanLine> = diesel::sql_query(format!("EXPLAIN {sql}")).load(&mut connection).unwrap();
            lines.into_iter().map(|line| line.line).collect()
        }
        DatabaseUrl::Sqlite(path) => {
            let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
            let lines: Vec<PlanDetail> =
                diesel::sql_query(format!("EXPLAIN QUERY PLAN {sql}")).load(&mut connection).unwrap();
            lines.into_iter().map(|line| line.detail).collect()
        }
    }
}

/// Every fault of every plan at once.
fn look(site: &Site, partitioned: bool) {
    let database = if site.is_postgres { "postgres" } else { "sqlite" };
    let mut faults = String::new();
    for (query, expected) in documented(database).iter().zip(&EXPECTED) {
        let rows = site.number(&format!("SELECT count(*) AS n FROM ({}) q", query.sql));
        let lines = plan(site, &query.sql);
        let mut wrong = if site.is_postgres {
            postgres_faults(&lines, expected, partitioned)
        } else {
            sqlite_faults(&lines, expected)
        };
        if rows == 0 {
            wrong.push("it finds nothing".to_owned());
        }
        if !wrong.is_empty() {
            faults += &format!("{}: {}\n{}\n\n", query.heading, wrong.join("; "), lines.join("\n"));
        }
    }
    assert!(faults.is_empty(), "{faults}");
}

fn postgres_faults(lines: &[String], expected: &Expected, partitioned: bool) -> Vec<String> {
    let mut faults: Vec<String> = expected
        .indexes
        .0
        .iter()
        .filter(|index| !lines.iter().any(|line| line.contains(**index)))
        .map(|index| format!("does not use {index}"))
        .collect();
    let mut partitions = BTreeSet::new();
    let mut touched = false;
    for (number, line) in lines.iter().enumerate() {
        let Some((how, table)) = line.split_once(" on telemetry") else { continue };
        touched = true;
        if how.contains("Seq Scan") {
            faults.push(format!("reads the table whole:{line}"));
        }
        if let Some(name) = table.strip_prefix("_of_").and_then(|name| name.split(' ').next()) {
            partitions.insert(name.to_owned());
        }
        // The heap's side of a bitmap scan tells the same condition as its index.
        let cond = lines.iter().skip(number + 1).find(|line| line.contains("Cond:")).map_or("", String::as_str);
        if !cond.contains("sensor_id =") {
            faults.push(format!("does not go by sensor:{line}"));
        }
        if matches!(expected.telemetry, Telemetry::Range { .. }) && !(cond.contains(" >= ") && cond.contains(" < ")) {
            faults.push(format!("does not bound time:{line}"));
        }
    }
    match expected.telemetry {
        Telemetry::Never if touched => faults.push("touches the readings".to_owned()),
        Telemetry::Range { partitions: most } if partitioned && (partitions.is_empty() || partitions.len() > most) => {
            faults.push(format!("reads the partitions {partitions:?}, at most {most} are needed"));
        }
        Telemetry::Range { .. } | Telemetry::End if !touched => faults.push("touches no reading".to_owned()),
        _ => {}
    }
    faults
}

fn sqlite_faults(lines: &[String], expected: &Expected) -> Vec<String> {
    let mut faults: Vec<String> = expected
        .indexes
        .1
        .iter()
        .filter(|index| !lines.iter().any(|line| line.contains(**index)))
        .map(|index| format!("does not use {index}"))
        .collect();
    // The aliases that the page and the view give the tables of readings.
    let on_readings = |line: &&String| {
        ["t", "x", "telemetry"].iter().any(|table| {
            line.starts_with(&format!("SEARCH {table} ")) && line.contains("sensor_id")
                || **line == format!("SCAN {table}")
        })
    };
    let mut touched = false;
    for line in lines.iter().filter(on_readings) {
        touched = true;
        let range = "PRIMARY KEY (sensor_id=? AND time>? AND time<?)";
        match expected.telemetry {
            Telemetry::Never => faults.push(format!("touches the readings: {line}")),
            Telemetry::Range { .. } if !line.contains(range) => faults.push(format!("does not bound time: {line}")),
            Telemetry::End if !line.contains("PRIMARY KEY (sensor_id=?") => {
                faults.push(format!("does not go by sensor: {line}"));
            }
            _ => {}
        }
    }
    if !touched && !matches!(expected.telemetry, Telemetry::Never) {
        faults.push("touches no reading".to_owned());
    }
    faults
}
