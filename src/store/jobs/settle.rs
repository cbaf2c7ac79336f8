//! What executions become by what is known elsewhere: the states of their commands, the versions that devices report, the time.

use diesel::prelude::*;
use diesel::sql_types::{Bool, Double, Nullable, Text};

use super::Job;
use crate::command::State;
use crate::job::ExecutionState;
use crate::store::commands;
use crate::store::error::{During, StoreError};
use crate::store::pool::{Conn, with_db};
use crate::store::schema::{self, device_commands, job_executions};
use crate::time::UtcMicros;

/// Whether the version that a device reports is the one (`?2`, as a number `?3`): its newest reading of the execution's metric, or what
/// it tells of itself where it has none.
const REPORTS: &str = "EXISTS (SELECT 1 FROM devices d \
    LEFT JOIN device_sensors s ON s.device_id = d.id AND s.metric = job_executions.metric \
    WHERE d.id = job_executions.device_id AND CASE \
        WHEN s.last_time IS NULL AND s.last_text_time IS NULL THEN d.firmware = ?2 \
        WHEN s.last_time IS NULL OR s.last_text_time > s.last_time THEN s.last_text = ?2 \
        ELSE s.last_value = ?3 END)";

/// The open executions of a job (`?1`) of which that is asked.
const BY_VERSION: &str = "job_executions.job_id = ?1 AND job_executions.ended_at IS NULL AND ";

#[derive(QueryableByName)]
struct One {
    #[diesel(sql_type = Text)]
    state: String,
}

#[derive(QueryableByName)]
struct Id {
    #[diesel(sql_type = Text)]
    id: String,
}

#[derive(QueryableByName)]
struct Yes {
    #[diesel(sql_type = Bool)]
    yes: bool,
}

/// How many executions have got into each state.
pub(super) type States = Vec<(ExecutionState, u64)>;

/// The state that a command `c` gives its execution, as SQL: [`ExecutionState::of_command`] for each.
fn derived(by_version: bool) -> String {
    let cases = |ended: bool| {
        let case = |state: State| {
            format!("WHEN '{}' THEN '{}'", state.word(), ExecutionState::of_command(state, ended, by_version).word())
        };
        format!("CASE c.state {} END", State::ALL.map(case).join(" "))
    };
    format!("CASE WHEN c.ended_at IS NULL THEN {} ELSE {} END", cases(false), cases(true))
}

/// What tells an execution whose command has gone on from the others; it never goes back.
fn has_gone_on(derived: &str) -> String {
    format!(
        "job_executions.job_id = ?1 AND job_executions.ended_at IS NULL AND job_executions.begun_at IS NOT NULL \
         AND c.id = job_executions.command_id AND ({derived}) NOT IN ('QUEUED', job_executions.state)"
    )
}

/// Whether there is anything to settle.
pub(super) fn is_due(conn: &mut Conn<'_>, job: &Job, now: UtcMicros) -> Result<bool, StoreError> {
    let derived = derived(job.version.is_some());
    let sql = format!(
        "SELECT EXISTS (SELECT 1 FROM job_executions, device_commands c WHERE {}) AS yes",
        has_gone_on(&derived)
    );
    let sql = conn.numbered(&sql);
    let gone_on: Yes = with_db!(conn, |c| diesel::sql_query(&sql).bind::<Text, _>(&job.id).get_result(c))
        .during("looking for commands of a job that have gone on")?;
    if gone_on.yes || late(conn, job, now)? {
        return Ok(true);
    }
    let Some(version) = &job.version else { return Ok(false) };
    let sql =
        conn.numbered(&format!("SELECT EXISTS (SELECT 1 FROM job_executions WHERE {BY_VERSION}{REPORTS}) AS yes"));
    let reported: Yes = with_db!(conn, |c| diesel::sql_query(&sql)
        .bind::<Text, _>(&job.id)
        .bind::<Text, _>(version)
        .bind::<Nullable<Double>, _>(number(version))
        .get_result(c))
    .during("looking for versions that devices report")?;
    Ok(reported.yes)
}

/// Settles all that is due. Commands that were not sent, of executions that have ended without them, are taken back.
pub(super) fn settle(conn: &mut Conn<'_>, job: &Job, now: UtcMicros) -> Result<States, StoreError> {
    let mut states = by_version(conn, job, now)?;
    states.extend(by_command(conn, job, now)?);
    states.extend(by_time(conn, job, now)?);
    Ok(states)
}

/// Ends executions whose devices report the version.
pub(super) fn by_version(conn: &mut Conn<'_>, job: &Job, now: UtcMicros) -> Result<States, StoreError> {
    let Some(version) = &job.version else { return Ok(Vec::new()) };
    let sql = conn.numbered(&format!(
        "UPDATE job_executions SET state = 'SUCCEEDED', ended_at = ?4, \
         reason = CASE WHEN begun_at IS NULL THEN 'it reports the version already' ELSE 'it reports the version' END \
         WHERE {BY_VERSION}{REPORTS} RETURNING job_executions.command_id AS id"
    ));
    let ended: Vec<Id> = with_db!(conn, |c| diesel::sql_query(&sql)
        .bind::<Text, _>(&job.id)
        .bind::<Text, _>(version)
        .bind::<Nullable<Double>, _>(number(version))
        .bind::<schema::Instant, _>(now)
        .load(c))
    .during("ending executions by the version that is reported")?;
    let ids: Vec<String> = ended.into_iter().map(|ended| ended.id).collect();
    let mut unsent = Vec::new();
    for ids in ids.chunks(conn.rows_per_statement(1)) {
        let found: Vec<String> = with_db!(conn, |c| device_commands::table
            .filter(device_commands::id.eq_any(ids))
            .filter(device_commands::ended_at.is_null())
            .filter(device_commands::sending.eq(false))
            .filter(device_commands::attempts.eq(0))
            .select(device_commands::id)
            .load(c))
        .during("looking for commands that nobody needs any more")?;
        unsent.extend(found);
    }
    commands::end(conn, &unsent, State::Cancelled, now, "not needed: the device reports the version", None)?;
    Ok(vec![(ExecutionState::Succeeded, ids.len() as u64)])
}

/// A version that is a number too, for metrics that have it so.
fn number(version: &str) -> Option<f64> {
    version.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Has executions follow their commands.
pub(super) fn by_command(conn: &mut Conn<'_>, job: &Job, now: UtcMicros) -> Result<States, StoreError> {
    let derived = derived(job.version.is_some());
    let sql = conn.numbered(&format!(
        "UPDATE job_executions SET state = {derived}, \
         ended_at = CASE WHEN ({derived}) = 'IN_PROGRESS' THEN NULL ELSE c.ended_at END, \
         started_at = coalesce(job_executions.started_at, c.sent_at, c.delivered_at, CASE WHEN ({derived}) = 'IN_PROGRESS' THEN ?2 END), \
         reason = CASE WHEN ({derived}) = 'IN_PROGRESS' THEN NULL WHEN c.error IS NOT NULL THEN c.error \
            WHEN c.state = 'expired' THEN 'its time passed before it could be sent' \
            WHEN c.state = 'cancelled' THEN 'its command was taken back' \
            WHEN c.state = 'sent' THEN 'it is sent; nothing can say what the device makes of it' END \
         FROM device_commands AS c WHERE {} RETURNING job_executions.state",
        has_gone_on(&derived)
    ));
    let changed: Vec<One> =
        with_db!(conn, |c| diesel::sql_query(&sql).bind::<Text, _>(&job.id).bind::<schema::Instant, _>(now).load(c))
            .during("having executions follow their commands")?;
    let count = |state: ExecutionState| (state, changed.iter().filter(|one| one.state == state.word()).count() as u64);
    Ok(ExecutionState::ALL.map(count).into_iter().filter(|(_, count)| *count > 0).collect())
}

/// Since when an execution must be in progress to be late.
fn late_since(job: &Job, now: UtcMicros) -> Option<UtcMicros> {
    let timeout = job.timeout_ms.and_then(|ms| u64::try_from(ms).ok())?;
    now.checked_sub(std::time::Duration::from_millis(timeout))
}

fn late(conn: &mut Conn<'_>, job: &Job, now: UtcMicros) -> Result<bool, StoreError> {
    let Some(since) = late_since(job, now) else { return Ok(false) };
    let found: Option<i32> = with_db!(conn, |c| job_executions::table
        .filter(job_executions::job_id.eq(&job.id))
        .filter(job_executions::ended_at.is_null())
        .filter(job_executions::started_at.le(since))
        .select(job_executions::place)
        .first(c)
        .optional())
    .during("looking for executions that take too long")?;
    Ok(found.is_some())
}

/// Ends executions that have been in progress for too long. Their commands' stories go on.
fn by_time(conn: &mut Conn<'_>, job: &Job, now: UtcMicros) -> Result<States, StoreError> {
    let Some(since) = late_since(job, now) else { return Ok(Vec::new()) };
    let reason = match &job.version {
        Some(version) => format!("it did not report version {version} in time"),
        None => "it was in progress for longer than the job allows".to_owned(),
    };
    let ended = with_db!(conn, |c| diesel::update(job_executions::table)
        .filter(job_executions::job_id.eq(&job.id))
        .filter(job_executions::ended_at.is_null())
        .filter(job_executions::started_at.le(since))
        .set((
            job_executions::state.eq(ExecutionState::TimedOut.word()),
            job_executions::ended_at.eq(now),
            job_executions::reason.eq(&reason),
        ))
        .execute(c))
    .during("ending executions that take too long")?;
    Ok(vec![(ExecutionState::TimedOut, ended as u64)])
}

/// Ids of a job's commands that have not ended: of those that were not sent, or of all.
pub(super) fn commands_under_way(conn: &mut Conn<'_>, job: &str, sent: bool) -> Result<Vec<String>, StoreError> {
    let only = if sent { "" } else { " AND NOT c.sending AND c.attempts = 0" };
    let sql = conn.numbered(&format!(
        "SELECT c.id FROM job_executions e JOIN device_commands c ON c.id = e.command_id \
         WHERE e.job_id = ?1 AND e.ended_at IS NULL AND e.begun_at IS NOT NULL AND c.ended_at IS NULL{only}"
    ));
    let found: Vec<Id> = with_db!(conn, |c| diesel::sql_query(&sql).bind::<Text, _>(job).load(c))
        .during("looking for the commands of a job")?;
    Ok(found.into_iter().map(|one| one.id).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_of_a_command_is_in_the_statement() {
        for by_version in [false, true] {
            let sql = derived(by_version);
            for state in State::ALL {
                assert_eq!(sql.matches(&format!("WHEN '{}' ", state.word())).count(), 2, "{sql}");
            }
        }
    }

    #[test]
    fn a_version_may_be_a_number() {
        assert_eq!(
            [number("12"), number("1.5"), number("1.5.0"), number("inf"), number("")],
            [Some(12.0), Some(1.5), None, None, None]
        );
    }
}
