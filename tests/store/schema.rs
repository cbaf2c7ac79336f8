use std::collections::BTreeSet;

use diesel::query_source::Table;
use tidegate::store::{StoreError, schema};

use super::{Site, migrations, on_both};

on_both!(
    migrations_go_up_and_down_and_up,
    every_table_has_the_columns_that_the_code_expects,
    a_newer_schema_is_refused_by_name,
    two_that_migrate_at_once_both_succeed,
);

fn migrations_go_up_and_down_and_up(site: &Site) {
    assert_eq!(site.store.migrate().unwrap(), Vec::<String>::new());
    site.store.revert_all().unwrap();
    let left = site.texts(tables_sql(site));
    assert_eq!(left, ["__diesel_schema_migrations"]);
    assert_eq!(site.store.migrate().unwrap().len(), count());
    assert_eq!(site.number("SELECT count(*) AS n FROM tenants WHERE name = 'default'"), 1);
}

/// How many migrations each database has.
fn count() -> usize {
    std::fs::read_dir(migrations().join("postgres")).unwrap().count()
}

fn tables_sql(site: &Site) -> &'static str {
    if site.is_postgres {
        "SELECT relname::text AS t FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') \
         AND NOT relispartition ORDER BY 1"
    } else {
        "SELECT name AS t FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY 1"
    }
}

#[test]
fn both_folders_have_the_same_migrations() {
    let names = |database: &str| -> BTreeSet<_> {
        let folder = std::fs::read_dir(migrations().join(database)).unwrap();
        folder.map(|entry| entry.unwrap().file_name()).collect()
    };
    assert!(!names("postgres").is_empty());
    assert_eq!(names("postgres"), names("sqlite"));
}

fn every_table_has_the_columns_that_the_code_expects(site: &Site) {
    let mut expected = Vec::new();
    macro_rules! tables {
        ($($table:ident),+) => {
            $(expected.push((
                stringify!($table),
                diesel::debug_query::<diesel::pg::Pg, _>(
                    &diesel::QueryDsl::select(schema::$table::table, schema::$table::table::all_columns())
                ).to_string(),
            ));)+
        };
    }
    tables!(
        alert_actions,
        alert_digests,
        alert_group_states,
        alert_notifications,
        alert_rules,
        alert_states,
        alert_transitions,
        alerts,
        archive_restored,
        bridge_instances,
        catalog_version,
        decoder_memory,
        device_command_steps,
        device_commands,
        device_connection_events,
        device_modules,
        device_presence,
        device_sensors,
        device_templates,
        device_twin_messages,
        device_twins,
        devices,
        events,
        job_executions,
        jobs,
        maintenance,
        notify_memory,
        quarantine_events,
        quarantine_messages,
        rollup_daily,
        rollup_horizon,
        rollup_hourly,
        rollup_pending,
        sites,
        system_metrics,
        telemetry,
        telemetry_layout,
        telemetry_text,
        template_commands,
        template_metrics,
        template_slots,
        tenants
    );
    let mut names: Vec<&str> = expected.iter().map(|(table, _)| *table).collect();
    names.insert(0, "__diesel_schema_migrations");
    assert_eq!(site.texts(tables_sql(site)), names);
    for (table, query) in expected {
        let prefix = format!("\"{table}\".\"");
        let columns: BTreeSet<String> =
            query.split(&prefix).skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned).collect();
        let there = if site.is_postgres {
            format!("SELECT column_name::text AS t FROM information_schema.columns WHERE table_name = '{table}'")
        } else {
            format!("SELECT name AS t FROM pragma_table_info('{table}')")
        };
        assert_eq!(columns, site.texts(&there).into_iter().collect::<BTreeSet<_>>(), "{table}");
    }
}

fn a_newer_schema_is_refused_by_name(site: &Site) {
    site.execute("INSERT INTO __diesel_schema_migrations (version) VALUES ('29990101000000')");
    match site.store.migrate() {
        Err(error @ StoreError::NewerSchema { .. }) => {
            assert!(error.to_string().contains("29990101000000"), "{error}");
            assert!(!error.is_transient());
        }
        other => panic!("{other:?}"),
    }
}

fn two_that_migrate_at_once_both_succeed(site: &Site) {
    site.store.revert_all().unwrap();
    let done: usize = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4).map(|_| scope.spawn(|| site.store.migrate().unwrap().len())).collect();
        runs.into_iter().map(|run| run.join().unwrap()).sum()
    });
    assert_eq!(done, count());
}
