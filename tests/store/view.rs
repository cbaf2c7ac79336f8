use tidegate::cli;
use tidegate::store::batch::TextReading;
use tidegate::store::query::{DeviceFilter, ReadingsQuery};
use tidegate::time::UtcMicros;

use super::{Site, at, batch, lookup, on_both, reading};

on_both!(
    the_view_shows_each_reading_with_its_names,
    the_view_finds_a_series_by_the_primary_key,
    a_follower_sees_each_new_reading_once,
    lists_are_tables_or_json,
);

fn filled(site: &Site) {
    let (mut writer, _) = site.writer();
    let mut work = batch(1, vec![reading(0, 1, 21.5, 1)]);
    work.readings[0].time = UtcMicros(1_700_000_000_000_001);
    let mut early = reading(0, 0, -1.0, 1);
    early.time = UtcMicros(-1);
    work.readings.push(early);
    work.texts = vec![TextReading { sensor: 0, time: at(7), value: "wärm".into(), seq: 1 }];
    writer.commit(&work, &lookup).unwrap();
}

fn the_view_shows_each_reading_with_its_names(site: &Site) {
    filled(site);
    let (time, type_of) = if site.is_postgres {
        ("to_char(time AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')", "pg_typeof(time)::text")
    } else {
        ("time", "typeof(time)")
    };
    let rows = site.texts(&format!(
        "SELECT {time} || '|' || tenant || '|' || device || '|' || metric || '|' || coalesce(CAST(value AS text), '-')
            || '|' || coalesce(text_value, '-') || '|' || unit AS t FROM readings ORDER BY time"
    ));
    let value = |number: &str| if site.is_postgres { number.trim_end_matches(".0").to_owned() } else { number.into() };
    assert_eq!(
        rows,
        [
            format!("1969-12-31T23:59:59.999999Z|default|d0|temperature|{}|-|°C", value("-1.0")),
            "2023-11-14T22:13:20.000001Z|default|d0|temperature|21.5|-|°C".to_owned(),
            "2023-11-14T22:13:20.000007Z|default|d0|temperature|-|wärm|°C".to_owned(),
        ]
    );
    let types = site.texts(&format!("SELECT DISTINCT {type_of} AS t FROM readings"));
    assert_eq!(types, [if site.is_postgres { "timestamp with time zone" } else { "text" }]);
}

fn the_view_finds_a_series_by_the_primary_key(site: &Site) {
    filled(site);
    if site.is_postgres {
        let plan = explain(site, "time >= '2023-01-01' AND time < '2024-01-01'");
        let cond = plan
            .lines()
            .find(|line| line.contains("Index Scan using telemetry_p") && line.contains("_pkey"))
            .map(str::to_owned);
        assert!(cond.is_some(), "{plan}");
        assert!(
            plan.lines().any(|line| line.contains("Index Cond") && line.contains("sensor_id") && line.contains("time")),
            "{plan}"
        );
    } else {
        let plan = explain(site, "time >= '2023-01-01' AND time < '2024-01-01'");
        assert!(plan.contains("SEARCH t USING PRIMARY KEY (sensor_id=?)"), "{plan}");
        assert!(!plan.contains("SCAN t\n"), "{plan}");
    }
}

#[derive(diesel::QueryableByName)]
struct PlanLine {
    #[diesel(sql_type = diesel::sql_types::Text, column_name = "QUERY PLAN")]
    line: String,
}

#[derive(diesel::QueryableByName)]
struct PlanDetail {
    #[diesel(sql_type = diesel::sql_types::Text)]
    detail: String,
}

fn explain(site: &Site, range: &str) -> String {
    use diesel::connection::SimpleConnection;
    use diesel::{Connection, PgConnection, RunQueryDsl, SqliteConnection};
    use tidegate::config::DatabaseUrl;
    let query = format!("SELECT * FROM readings WHERE device = 'd0' AND metric = 'temperature' AND {range}");
    let lines: Vec<String> = match &site.settings.url {
        DatabaseUrl::Postgres(url) => {
            let mut connection = PgConnection::establish(url.expose()).unwrap();
            // Tables of a few rows are scanned whatever the indexes.
            connection
                .batch_execute("SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_bitmapscan = off")
                .unwrap();
            let plan: Vec<PlanLine> = diesel::sql_query(format!("EXPLAIN {query}")).load(&mut connection).unwrap();
            plan.into_iter().map(|line| line.line).collect()
        }
        DatabaseUrl::Sqlite(path) => {
            let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
            let plan: Vec<PlanDetail> =
                diesel::sql_query(format!("EXPLAIN QUERY PLAN {query}")).load(&mut connection).unwrap();
            plan.into_iter().map(|line| line.detail).collect()
        }
    };
    lines.join("\n") + "\n"
}

fn a_follower_sees_each_new_reading_once(site: &Site) {
    filled(site);
    let mut query = ReadingsQuery { device: "d0".into(), limit: 2, ..ReadingsQuery::default() };
    let page = site.store.readings(&query).unwrap();
    assert_eq!(page.rows.len(), 2);
    assert_eq!((page.rows[0].value, page.rows[1].text.as_deref()), (Some(21.5), Some("wärm")));
    query.after = Some(page.cursor);
    let page = site.store.readings(&query).unwrap();
    assert_eq!(page.rows.len(), 0);

    let mut writer =
        tidegate::store::BatchWriter::new(site.store.clone(), "gw", "journal-1", tidegate::metrics::Metrics::new());
    writer.commit(&batch(2, vec![reading(0, 50, 3.0, 2)]), &lookup).unwrap();
    query.after = Some(page.cursor);
    let page = site.store.readings(&query).unwrap();
    assert_eq!(page.rows.iter().filter_map(|row| row.value).collect::<Vec<_>>(), [3.0]);

    let since = ReadingsQuery { device: "d0".into(), limit: 9, since: Some(at(50)), ..ReadingsQuery::default() };
    assert_eq!(site.store.readings(&since).unwrap().rows.len(), 1);
    let other = ReadingsQuery { device: "d0".into(), limit: 9, metric: Some("x".into()), ..ReadingsQuery::default() };
    assert_eq!(site.store.readings(&other).unwrap().rows.len(), 0);
}

fn lists_are_tables_or_json(site: &Site) {
    filled(site);
    let mut out = Vec::new();
    cli::devices::list(&site.store, &DeviceFilter::default(), 10, false, &mut out).unwrap();
    assert!(String::from_utf8_lossy(&out).contains("d0"));
    out.clear();
    cli::devices::show(&site.store, None, "d0", true, &mut out).unwrap();
    let shown: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(shown[0]["sensors"][0]["last_value"], 21.5);
    assert!(cli::devices::show(&site.store, None, "nobody", false, &mut Vec::new()).is_err());
    out.clear();
    let query = ReadingsQuery { device: "d0".into(), limit: 10, ..ReadingsQuery::default() };
    cli::readings::show(&site.store, &query, true, &mut out).unwrap();
    let shown: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(shown[1]["time"], "2023-11-14T22:13:20.000001Z");
    out.clear();
    cli::readings::show(&site.store, &query, false, &mut out).unwrap();
    assert!(String::from_utf8_lossy(&out).contains("wärm"));
}
