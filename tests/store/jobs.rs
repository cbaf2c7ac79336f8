//! Jobs as the database holds them: what begins when, what executions become, and what is refused.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate::command::new_id;
use tidegate::config::{Commands, Config};
use tidegate::job::{Ask, ExecutionState, Firmware, JobState, Percent, Rate, Selector, Share};
use tidegate::store::StoreError;
use tidegate::store::jobs::{Created, ExecutionFilter, JobFilter, JobRow};
use tidegate::time::UtcMicros;

use super::{Site, lookup, on_both};
use crate::support::daemon::eventually;

on_both!(
    executions_begin_once_and_follow_their_commands,
    the_others_wait_for_the_canaries,
    canaries_that_fail_end_the_job,
    failures_end_the_job_and_what_was_not_sent_is_taken_back,
    a_rate_lets_so_many_begin,
    a_job_is_paused_resumed_and_canceled,
    a_firmware_job_ends_by_the_version,
    a_job_whose_time_has_passed_begins_nothing,
    an_execution_that_takes_too_long_times_out,
    what_is_not_valid_is_rejected_or_refused,
    the_database_refuses_what_can_not_be,
    jobs_that_have_ended_go_with_their_executions,
);

const OTHER: &str = "other";

/// Lamps with two commands and firmware, at two sites; a plug that has no command; and a lamp of another tenant.
fn fleet(site: &Site, lamps: usize) {
    site.execute(
        "INSERT INTO tenants (id, name) VALUES (9, 'acme');
         INSERT INTO sites (id, tenant_id, name) VALUES (1, 1, 'north'), (2, 1, 'south');
         INSERT INTO device_templates (id, slug, name, category, version, locked) VALUES (1, 'lamp', 'L', '', 1, FALSE), (2, 'plug', 'P', '', 1, FALSE);
         INSERT INTO template_commands (template_id, ordinal, name, timeout_ms, parameters, manner) VALUES
             (1, 0, 'dim', 5000, '{\"type\":\"object\",\"properties\":{\"level\":{\"type\":\"integer\",\"maximum\":100}}}', '{}'),
             (1, 1, 'update', 5000, '{\"type\":\"object\"}', '{\"version_metric\":\"fw\"}');
         INSERT INTO devices (id, tenant_id, uid, template_id) VALUES (1000, 1, 'plug-1', 2), (1001, 9, 'lamp-0', 1)",
    );
    for number in 0..lamps {
        let tags = format!("{{\"floor\":\"{}\"}}", number % 2);
        let place = number % 2 + 1;
        site.execute(&format!(
            "INSERT INTO devices (id, tenant_id, uid, template_id, site_id, tags) VALUES ({}, 1, 'lamp-{number}', 1, {place}, '{tags}')",
            number + 1
        ));
    }
}

fn ask(name: &str) -> Ask {
    Ask {
        id: new_id(),
        tenant: "default".to_owned(),
        name: name.to_owned(),
        command: "dim".to_owned(),
        params: r#"{"level":7}"#.to_owned(),
        selector: Selector { templates: vec!["lamp".to_owned()], ..Selector::default() },
        firmware: None,
        rate: None,
        canary: None,
        abort: None,
        abort_after: 10,
        timeout: None,
        expires_at: None,
        priority: 0,
        at: now(),
        instance: None,
        who: Some("ann".to_owned()),
        via: "cli",
    }
}

fn now() -> UtcMicros {
    tidegate::clock::now()
}

fn later(seconds: u64) -> UtcMicros {
    now().checked_add(Duration::from_secs(seconds)).unwrap()
}

fn create(site: &Site, ask: &Ask) -> Created {
    site.store.create_job(ask, &Commands::default()).unwrap()
}

fn refusal(site: &Site, ask: &Ask) -> String {
    site.store.create_job(ask, &Commands::default()).unwrap_err().to_string()
}

/// Steps until nothing is due; returns how many executions have got into each state.
fn advance_at(site: &Site, id: &str, at: UtcMicros) -> BTreeMap<&'static str, u64> {
    let mut states = BTreeMap::new();
    for _ in 0..100 {
        if !site.store.job_is_due(id, 1000, at).unwrap() {
            return states;
        }
        let advanced = site.store.advance_job(id, "gw", &Commands::default(), 1000, at).unwrap();
        for (state, count) in advanced.states.into_iter().filter(|(_, count)| *count > 0) {
            *states.entry(state.word()).or_insert(0) += count;
        }
    }
    panic!("the job is due for ever");
}

fn advance(site: &Site, id: &str) -> BTreeMap<&'static str, u64> {
    advance_at(site, id, now())
}

fn job(site: &Site, id: &str) -> JobRow {
    site.store.job_now(id).unwrap()
}

fn counts(site: &Site, id: &str) -> Vec<(&'static str, i64)> {
    let row = job(site, id);
    let counts = ExecutionState::ALL.into_iter().map(|state| (state.word(), row.count(state)));
    counts.filter(|(_, count)| *count > 0).collect()
}

/// What a time is now, in SQL.
fn clock(site: &Site) -> &'static str {
    if site.is_postgres { "now()" } else { "CAST(strftime('%s', 'now') AS INTEGER) * 1000000" }
}

/// The first commands that are queued come to this state, as the courier and the device would have it.
fn settle(site: &Site, state: &str, number: u64) {
    let ended = if ["sent", "delivered"].contains(&state) { "NULL" } else { clock(site) };
    site.execute(&format!(
        "UPDATE device_commands SET state = '{state}', sent_at = {}, attempts = 1, ended_at = {ended} WHERE id IN \
         (SELECT id FROM device_commands WHERE ended_at IS NULL AND attempts = 0 ORDER BY id LIMIT {number})",
        clock(site)
    ));
}

fn commands(site: &Site) -> i64 {
    site.rows("device_commands")
}

fn executions_begin_once_and_follow_their_commands(site: &Site) {
    fleet(site, 6);
    let created = create(site, &ask("all"));
    assert_eq!((created.devices, created.rejected, created.done, created.canaries), (6, 0, 0, 0));
    assert_eq!(commands(site), 0);
    assert_eq!(advance(site, &created.id), BTreeMap::from([("QUEUED", 6)]));
    assert_eq!((commands(site), site.rows("device_command_steps")), (6, 6));
    assert_eq!(site.number("SELECT count(DISTINCT device) AS n FROM device_commands WHERE tenant = 'default' AND via = 'job' AND instance = 'gw' AND params = '{\"level\":7}'"), 6);
    // Nothing begins twice, whoever steps; and another instance has no part in it.
    let elsewhere = site.store.advance_job(&created.id, "other", &Commands::default(), 1000, now()).unwrap();
    assert_eq!((elsewhere.commands, commands(site)), (0, 6));
    assert!(advance(site, &created.id).is_empty());
    assert_eq!(site.store.open_jobs("gw").unwrap(), [created.id.as_str()]);
    assert!(site.store.open_jobs("other").unwrap().is_empty());

    settle(site, "sent", 1);
    assert_eq!(advance(site, &created.id), BTreeMap::from([("IN_PROGRESS", 1)]));
    for state in ["succeeded", "failed", "rejected", "expired", "timed_out"] {
        settle(site, state, 1);
    }
    let states = [("FAILED", 1), ("REJECTED", 1), ("SUCCEEDED", 1), ("TIMED_OUT", 2)];
    assert_eq!(advance(site, &created.id), BTreeMap::from(states));
    site.execute(&format!(
        "UPDATE device_commands SET state = 'cancelled', ended_at = {} WHERE ended_at IS NULL",
        clock(site)
    ));
    assert_eq!(advance(site, &created.id), BTreeMap::from([("CANCELED", 1)]));
    let row = job(site, "all");
    assert_eq!((row.job.state.as_str(), row.ended()), ("COMPLETED", 6));
    assert!(row.job.ended_at.is_some() && row.job.reason.unwrap().contains("1 SUCCEEDED"));
    assert!(site.store.open_jobs("gw").unwrap().is_empty());
    let kinds = site.texts("SELECT kind AS t FROM events WHERE kind LIKE 'job%' ORDER BY id");
    assert_eq!(kinds, ["job_created", "job_completed"]);
    let filter = ExecutionFilter { state: Some(ExecutionState::TimedOut), ..ExecutionFilter::default() };
    let late = site.store.job_executions("all", &filter, 10).unwrap();
    assert!(
        late.iter().any(|one| one.reason.as_deref() == Some("its time passed before it could be sent")),
        "{late:?}"
    );
}

fn the_others_wait_for_the_canaries(site: &Site) {
    fleet(site, 20);
    let id = create(site, &Ask { canary: "10%".parse().ok(), ..ask("careful") }).id;
    assert_eq!(advance(site, &id), BTreeMap::from([("QUEUED", 2)]));
    settle(site, "succeeded", 1);
    assert_eq!(advance(site, &id), BTreeMap::from([("SUCCEEDED", 1)]));
    assert_eq!(commands(site), 2, "one canary has not ended");
    settle(site, "succeeded", 1);
    assert_eq!(advance(site, &id), BTreeMap::from([("QUEUED", 18), ("SUCCEEDED", 1)]));
    assert!(job(site, &id).job.canaries_passed_at.is_some());
    settle(site, "succeeded", 18);
    advance(site, &id);
    assert_eq!((job(site, &id).job.state.as_str(), counts(site, &id)), ("COMPLETED", vec![("SUCCEEDED", 20)]));
}

fn canaries_that_fail_end_the_job(site: &Site) {
    fleet(site, 20);
    let id = create(site, &Ask { canary: Some(Share::Devices(4)), abort: Some(Percent::new(25)), ..ask("careful") }).id;
    advance(site, &id);
    settle(site, "failed", 1);
    settle(site, "succeeded", 3);
    let states = BTreeMap::from([("CANCELED", 16), ("FAILED", 1), ("SUCCEEDED", 3)]);
    assert_eq!(advance(site, &id), states);
    let row = job(site, &id);
    assert_eq!((row.job.state.as_str(), commands(site)), ("ABORTED", 4));
    assert!(row.job.ended_at.is_some() && row.job.reason.unwrap().contains("1 of the 4 canaries"));
    let why = site.texts("SELECT DISTINCT reason AS t FROM job_executions WHERE state = 'CANCELED'");
    assert!(why.len() == 1 && why[0].contains("canaries"), "{why:?}");
}

fn failures_end_the_job_and_what_was_not_sent_is_taken_back(site: &Site) {
    fleet(site, 20);
    let id = create(site, &Ask { abort: Some(Percent::new(50)), abort_after: 4, ..ask("brave") }).id;
    advance(site, &id);
    settle(site, "timed_out", 3);
    assert_eq!(advance(site, &id), BTreeMap::from([("TIMED_OUT", 3)]), "not enough has ended");
    settle(site, "sent", 2);
    advance(site, &id);
    settle(site, "rejected", 1);
    assert_eq!(advance(site, &id), BTreeMap::from([("CANCELED", 14), ("REJECTED", 1)]));
    let row = job(site, &id);
    assert_eq!((row.job.state.as_str(), row.job.ended_at), ("ABORTED", None), "two are on their way");
    assert_eq!(site.number("SELECT count(*) AS n FROM device_commands WHERE state = 'cancelled'"), 14);
    let steps = site.number(
        "SELECT count(*) AS n FROM device_command_steps WHERE state = 'cancelled' AND cause LIKE '%job brave%'",
    );
    assert_eq!(steps, 14);
    site.execute(&format!(
        "UPDATE device_commands SET state = 'succeeded', ended_at = {} WHERE ended_at IS NULL",
        clock(site)
    ));
    advance(site, &id);
    let row = job(site, &id);
    assert!(row.job.ended_at.is_some() && row.job.state == "ABORTED");
    assert_eq!(row.count(ExecutionState::Succeeded), 2);
}

fn a_rate_lets_so_many_begin(site: &Site) {
    fleet(site, 9);
    let id = create(site, &Ask { rate: Rate::new(60), ..ask("slow") }).id;
    let begun = now();
    let at = |seconds| begun.checked_add(Duration::from_secs(seconds)).unwrap();
    assert_eq!(advance_at(site, &id, begun), BTreeMap::from([("QUEUED", 1)]));
    assert!(advance_at(site, &id, begun).is_empty());
    assert_eq!(advance_at(site, &id, at(1)), BTreeMap::from([("QUEUED", 1)]));
    // A long pause is not made up for.
    assert_eq!(advance_at(site, &id, at(600)), BTreeMap::from([("QUEUED", 3)]));
    assert_eq!((commands(site), counts(site, &id)), (5, vec![("QUEUED", 9)]));
    let steps = site.store.advance_job(&id, "gw", &Commands::default(), 0, at(700)).unwrap();
    assert_eq!(steps.commands, 0, "there is no room");
}

fn a_job_is_paused_resumed_and_canceled(site: &Site) {
    fleet(site, 8);
    let created = create(site, &Ask { canary: Some(Share::Devices(3)), ..ask("held") });
    let (id, store) = (created.id.as_str(), &site.store);
    advance(site, id);
    assert_eq!(store.pause_job("held", "bob").unwrap(), id);
    assert!(matches!(store.pause_job("held", "bob"), Err(StoreError::Past { .. })));
    settle(site, "succeeded", 3);
    assert_eq!(advance(site, id), BTreeMap::from([("SUCCEEDED", 3)]));
    let row = job(site, id);
    assert_eq!(
        (row.job.state.as_str(), row.job.reason.as_deref(), commands(site)),
        ("PAUSED", Some("paused by bob"), 3)
    );
    store.resume_job(&id[..8], "bob").unwrap();
    assert_eq!(advance(site, id), BTreeMap::from([("QUEUED", 5)]));
    settle(site, "sent", 2);
    advance(site, id);
    store.cancel_job("held", "bob", false).unwrap();
    assert_eq!(advance(site, id), BTreeMap::from([("CANCELED", 3)]));
    assert_eq!(counts(site, id), [("IN_PROGRESS", 2), ("SUCCEEDED", 3), ("CANCELED", 3)]);
    assert!(matches!(store.resume_job("held", "bob"), Err(StoreError::Past { .. })));
    assert!(matches!(store.cancel_job("held", "bob", false), Err(StoreError::Past { .. })));
    store.cancel_job("held", "bob", true).unwrap();
    assert_eq!(advance(site, id), BTreeMap::from([("CANCELED", 2)]));
    let row = job(site, id);
    assert!(row.job.state == "CANCELED" && row.job.ended_at.is_some());
    assert!(matches!(store.cancel_job("nothing", "bob", false), Err(StoreError::Missing { .. })));
    let open = JobFilter { open: true, ..JobFilter::default() };
    assert!(store.jobs(&open, 10).unwrap().is_empty());
    let canceled = JobFilter { state: Some(JobState::Canceled), ..JobFilter::default() };
    assert_eq!(store.jobs(&canceled, 10).unwrap().len(), 1);
}

fn firmware(version: &str, metric: Option<&str>) -> Option<Firmware> {
    Firmware::new(version, "https://files.example/fw.bin", 1024, &"ab".repeat(32), metric).ok()
}

fn sensor(site: &Site, device: usize, metric: &str, text: Option<&str>, value: Option<f64>) {
    let (text, text_at) = text.map_or(("NULL".to_owned(), "NULL"), |text| (format!("'{text}'"), clock(site)));
    let (value, value_at) = value.map_or(("NULL".to_owned(), "NULL"), |value| (value.to_string(), clock(site)));
    site.execute(&format!(
        "DELETE FROM device_sensors WHERE device_id = {device} AND metric = '{metric}';
         INSERT INTO device_sensors (tenant_id, device_id, metric, unit, kind, source, last_time, last_value, last_text_time, last_text)
         VALUES (1, {device}, '{metric}', '', 'text', 'optional', {value_at}, {value}, {text_at}, {text})"
    ));
}

fn a_firmware_job_ends_by_the_version(site: &Site) {
    fleet(site, 6);
    // Of each kind one has the version already: as a reading, and as what it tells of itself where there is no reading.
    sensor(site, 1, "fw", Some("7"), None);
    sensor(site, 2, "fw", None, Some(7.0));
    site.execute("UPDATE devices SET firmware = '7' WHERE id IN (3, 4)");
    sensor(site, 4, "fw", Some("6"), None);
    let update = Ask {
        command: "update".to_owned(),
        firmware: firmware("7", None),
        canary: Some(Share::Devices(1)),
        timeout: Some(Duration::from_secs(60)),
        ..ask("seven")
    };
    let created = create(site, &update);
    assert_eq!((created.devices, created.done, created.canaries), (6, 3, 1));
    let id = created.id.as_str();
    assert_eq!(advance(site, id), BTreeMap::from([("QUEUED", 1), ("SUCCEEDED", 3)]));
    assert_eq!(commands(site), 1, "those that have it get no command");
    // What a device says of the command is not enough.
    settle(site, "succeeded", 1);
    assert_eq!(advance(site, id), BTreeMap::from([("IN_PROGRESS", 1)]));
    let canary: usize =
        site.texts("SELECT CAST(device_id AS text) AS t FROM job_executions WHERE canary")[0].parse().unwrap();
    sensor(site, canary, "fw", Some("7"), None);
    assert_eq!(advance(site, id), BTreeMap::from([("QUEUED", 2), ("SUCCEEDED", 1)]));
    // One reports it before its command is sent, which is taken back; the other never does.
    let rest =
        site.texts("SELECT CAST(device_id AS text) AS t FROM job_executions WHERE ended_at IS NULL ORDER BY place");
    sensor(site, rest[0].parse().unwrap(), "fw", Some("7"), None);
    assert_eq!(advance(site, id), BTreeMap::from([("SUCCEEDED", 1)]));
    assert_eq!(site.number("SELECT count(*) AS n FROM device_commands WHERE state = 'cancelled'"), 1);
    settle(site, "timed_out", 1);
    assert_eq!(advance(site, id), BTreeMap::from([("IN_PROGRESS", 1)]), "it may be busy with it");
    assert!(advance_at(site, id, later(30)).is_empty());
    assert_eq!(advance_at(site, id, later(61)), BTreeMap::from([("TIMED_OUT", 1)]));
    assert_eq!(counts(site, id), [("SUCCEEDED", 5), ("TIMED_OUT", 1)]);
    assert_eq!(job(site, id).job.state, "COMPLETED");

    // The job's word for the metric goes before the template's.
    let named = Ask {
        firmware: firmware("7", Some(OTHER)),
        selector: ask("").selector,
        id: new_id(),
        name: "named".to_owned(),
        ..update
    };
    sensor(site, 1, OTHER, Some("1"), None);
    assert_eq!(create(site, &named).done, 2, "two tell it of themselves");
}

fn a_job_whose_time_has_passed_begins_nothing(site: &Site) {
    fleet(site, 5);
    let id = create(site, &Ask { expires_at: Some(later(60)), canary: Some(Share::Devices(2)), ..ask("today") }).id;
    advance(site, &id);
    let until = site.number("SELECT count(*) AS n FROM device_commands c, jobs j WHERE c.expires_at = j.expires_at");
    assert_eq!(until, 2, "no command waits longer than its job");
    assert_eq!(advance_at(site, &id, later(61)), BTreeMap::from([("CANCELED", 5)]));
    let row = job(site, &id);
    assert!(row.job.state == "EXPIRED" && row.job.ended_at.is_some(), "{row:?}");
}

fn an_execution_that_takes_too_long_times_out(site: &Site) {
    fleet(site, 2);
    let id = create(site, &Ask { timeout: Some(Duration::from_secs(60)), ..ask("hasty") }).id;
    advance(site, &id);
    settle(site, "sent", 1);
    advance(site, &id);
    assert_eq!(advance_at(site, &id, later(62)), BTreeMap::from([("TIMED_OUT", 1)]), "the other is not in progress");
    // What the device says afterwards changes nothing.
    site.execute(&format!("UPDATE device_commands SET state = 'succeeded', ended_at = {}", clock(site)));
    assert_eq!(advance(site, &id), BTreeMap::from([("SUCCEEDED", 1)]));
    assert_eq!(counts(site, &id), [("SUCCEEDED", 1), ("TIMED_OUT", 1)]);
}

fn what_is_not_valid_is_rejected_or_refused(site: &Site) {
    fleet(site, 3);
    let devices =
        |uids: &[&str]| Selector { devices: uids.iter().map(|uid| (*uid).to_owned()).collect(), ..Selector::default() };
    // Some can't do it: they are rejected, with the reason, and count for nothing.
    let some =
        create(site, &Ask { selector: devices(&["lamp-0", "plug-1"]), canary: Some(Share::Devices(1)), ..ask("some") });
    assert_eq!((some.devices, some.rejected, some.canaries), (2, 1, 1));
    assert_eq!(advance(site, &some.id), BTreeMap::from([("QUEUED", 1), ("REJECTED", 1)]));
    let filter = ExecutionFilter { state: Some(ExecutionState::Rejected), ..ExecutionFilter::default() };
    let rejected = site.store.job_executions("some", &filter, 10).unwrap();
    assert!(
        rejected[0].device == "plug-1" && rejected[0].reason.as_deref().unwrap().contains("no command"),
        "{rejected:?}"
    );
    assert!(!rejected[0].canary);

    let named = |name: &str| Ask { name: name.to_owned(), ..ask("x") };
    let tagged = BTreeMap::from([("flor".to_owned(), "1".to_owned())]);
    for (ask, word) in [
        (named("some"), "already"),
        (named("no/name"), "characters"),
        (Ask { command: "dimm".to_owned(), ..named("a") }, "did you mean `dim`"),
        (Ask { params: r#"{"level":101}"#.to_owned(), ..named("a") }, "params.level"),
        (Ask { params: "x".to_owned(), ..named("a") }, "no JSON"),
        (Ask { selector: Selector::default(), ..named("a") }, "a job on nothing"),
        (Ask { selector: devices(&["lamp-7"]), ..named("a") }, "no device \"lamp-7\""),
        (
            Ask { selector: Selector { templates: vec!["lmap".to_owned()], ..Selector::default() }, ..named("a") },
            "did you mean `lamp`",
        ),
        (
            Ask { selector: Selector { sites: vec!["noth".to_owned()], ..Selector::default() }, ..named("a") },
            "did you mean `north`",
        ),
        (Ask { selector: Selector { tags: tagged, ..Selector::default() }, ..named("a") }, "did you mean `floor`"),
        (Ask { tenant: "acm".to_owned(), ..named("a") }, "did you mean `acme`"),
        (Ask { expires_at: Some(UtcMicros(1)), ..named("a") }, "passed already"),
    ] {
        let why = refusal(site, &ask);
        assert!(why.contains(word), "{why}");
    }
    assert_eq!(site.rows("jobs"), 1);
    // A device that became something else since then is looked at again.
    let id = create(site, &named("late")).id;
    site.execute("UPDATE devices SET template_id = 2 WHERE uid = 'lamp-2'; DELETE FROM devices WHERE uid = 'lamp-1'");
    assert_eq!(advance(site, &id), BTreeMap::from([("QUEUED", 1), ("REJECTED", 2)]));
    let few = Commands { max_waiting: 1, ..Config::default().commands };
    let id = create(site, &Ask { selector: devices(&["lamp-0"]), ..named("much") }).id;
    let advanced = site.store.advance_job(&id, "gw", &few, 10, now()).unwrap();
    assert!(advanced.states.contains(&(ExecutionState::Rejected, 1)), "{advanced:?}");
    for number in 0..100 {
        let _ = site.store.create_job(&named(&format!("n{number}")), &Commands::default());
    }
    assert!(refusal(site, &named("last")).contains("100 are the most"));
}

fn the_database_refuses_what_can_not_be(site: &Site) {
    fleet(site, 2);
    let id = create(site, &ask("a")).id;
    for (sql, word) in [
        (format!("UPDATE job_executions SET state = 'DONE' WHERE job_id = '{id}'"), "job_executions"),
        (format!("UPDATE job_executions SET state = 'SUCCEEDED' WHERE job_id = '{id}'"), "job_executions"),
        (format!("UPDATE job_executions SET state = 'IN_PROGRESS' WHERE job_id = '{id}'"), "job_executions"),
        (format!("UPDATE job_executions SET device_id = 1001 WHERE job_id = '{id}' AND place = 0"), "another tenant"),
        (format!("UPDATE job_executions SET command_id = '{}' WHERE job_id = '{id}'", "0".repeat(32)), "command_id"),
        ("UPDATE jobs SET state = 'COMPLETED'".to_owned(), "jobs"),
        ("UPDATE jobs SET rate = 0".to_owned(), "rate"),
        ("UPDATE jobs SET abort_percent = 101".to_owned(), "abort_percent"),
    ] {
        let refused = site.attempt(&sql).expect_err(&sql);
        assert!(refused.contains(word) || refused.contains("CHECK"), "{sql}: {refused}");
    }
    // A device that goes leaves its history.
    site.execute("DELETE FROM devices WHERE uid = 'lamp-1'");
    assert_eq!(site.rows("job_executions"), 2);
}

fn jobs_that_have_ended_go_with_their_executions(site: &Site) {
    fleet(site, 3);
    let id = create(site, &ask("old")).id;
    advance(site, &id);
    settle(site, "succeeded", 3);
    let expire = |class| site.store.expire(class, later(60)).unwrap();
    use tidegate::store::retention::Class;
    assert_eq!(expire(Class::Commands), 0, "their executions have not heard of it");
    advance(site, &id);
    assert_eq!((expire(Class::Commands), expire(Class::Jobs), expire(Class::Jobs)), (3, 1, 0));
    assert_eq!((site.rows("jobs"), site.rows("job_executions")), (0, 0));
}

/// The courier records what the broker has said while the writer records what devices have answered, each of many commands at once.
#[test]
fn whoever_changes_commands_takes_them_in_one_order() {
    use diesel::connection::SimpleConnection as _;
    use diesel::{Connection as _, PgConnection};
    use tidegate::command::Outcome;
    use tidegate::command::dialect::Verdict;
    use tidegate::command::hearing::{About, Reply};
    use tidegate::config::DatabaseUrl;
    use tidegate::store::batch::Batch;

    let site = Site::postgres();
    site.execute(
        "INSERT INTO device_commands (id, device, name, admitted_at, instance, state, attempts) VALUES
             ('a', 'd', 'n', now(), 'gw', 'sent', 1), ('b', 'd', 'n', now(), 'gw', 'sent', 1)",
    );
    let DatabaseUrl::Postgres(url) = &site.settings.url else { panic!() };
    let mut holder = PgConnection::establish(url.expose()).unwrap();
    holder.batch_execute("BEGIN; SELECT 1 FROM device_commands WHERE id = 'b' FOR UPDATE").unwrap();
    let reply = |id: &str| Reply {
        tenant: None,
        device: "d".into(),
        at: now(),
        about: About::Id {
            id: id.to_owned(),
            verdict: Verdict { outcome: Outcome::Succeeded, result: None, error: None },
        },
    };
    let replies = vec![reply("b"), reply("a")];
    let answers = Batch { position: 1, generation: 1, messages: 1, replies, ..Batch::default() };
    let (mut writer, _) = site.writer();
    std::thread::scope(|scope| {
        let committed = scope.spawn(|| writer.commit(&answers, &lookup).unwrap());
        // It waits for the second, and has the first by then.
        eventually("the first is taken", || {
            site.attempt("SELECT 1 FROM device_commands WHERE id = 'a' FOR UPDATE NOWAIT").err().map(drop)
        });
        holder.batch_execute("COMMIT").unwrap();
        committed.join().unwrap();
    });
    assert_eq!(site.number("SELECT count(*) AS n FROM device_commands WHERE state = 'succeeded'"), 2);
}
