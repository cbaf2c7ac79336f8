//! Jobs: their rows, an execution for each device, and the commands that are made of those.
//!
//! Every change of a job is made under its row's lock: the daemon that carries it out, and people who pause or cancel it, come one after
//! the other. Everything is done for many executions at once, and what has begun is committed together with its commands.

mod act;
mod advance;
mod begin;
mod create;
mod list;
mod settle;

pub use advance::Advanced;
pub use create::Created;
pub use list::{ExecutionFilter, ExecutionRow, JobFilter, JobRow};

use diesel::prelude::*;

use super::commands;
use super::error::{During, StoreError};
use super::limits;
use super::pool::{Conn, with_db};
use super::schema::{events, job_executions, jobs, tenants};
use crate::command::State;
use crate::job::{Abort, ExecutionState, JobState, Percent, Rate, Rules};
use crate::time::UtcMicros;

/// Most bytes of a reason.
const REASON: usize = limits::MESSAGE;

/// A job as it is carried out.
#[derive(Clone, Debug, Queryable)]
struct Job {
    id: String,
    tenant_id: i32,
    tenant: String,
    name: String,
    command: String,
    params: String,
    version: Option<String>,
    state: String,
    rate: Option<i32>,
    canaries: i32,
    canaries_passed_at: Option<UtcMicros>,
    abort_percent: Option<i32>,
    abort_after: i32,
    timeout_ms: Option<i64>,
    priority: i32,
    expires_at: Option<UtcMicros>,
    ended_at: Option<UtcMicros>,
    instance: Option<String>,
    who: Option<String>,
    via: String,
    next_at: Option<UtcMicros>,
}

impl Job {
    fn state(&self) -> Result<JobState, StoreError> {
        // The database's CHECK has them.
        JobState::of(&self.state)
            .ok_or_else(|| unfit(format!("the job {} is in no known state: {}", self.name, self.state)))
    }

    fn rules(&self) -> Rules {
        let percent = self.abort_percent.and_then(|percent| u8::try_from(percent).ok()).map(Percent::new);
        let after = u32::try_from(self.abort_after).unwrap_or(1);
        Rules {
            rate: self.rate.and_then(|rate| u32::try_from(rate).ok()).and_then(Rate::new),
            abort: percent.map(|percent| Abort { percent, after }),
            expires_at: self.expires_at,
        }
    }

    fn asker(&self) -> String {
        match self.who.as_deref().filter(|who| !who.is_empty()) {
            Some(who) => format!("{who} ({})", self.via),
            None => self.via.clone(),
        }
    }
}

/// Reads a job; none where there is none any more.
fn read(conn: &mut Conn<'_>, id: &str) -> Result<Option<Job>, StoreError> {
    with_db!(conn, |c| jobs::table
        .inner_join(tenants::table)
        .filter(jobs::id.eq(id))
        .select((
            jobs::id,
            jobs::tenant_id,
            tenants::name,
            jobs::name,
            jobs::command,
            jobs::params,
            jobs::version,
            jobs::state,
            jobs::rate,
            jobs::canaries,
            jobs::canaries_passed_at,
            jobs::abort_percent,
            jobs::abort_after,
            jobs::timeout_ms,
            jobs::priority,
            jobs::expires_at,
            jobs::ended_at,
            jobs::instance,
            jobs::who,
            jobs::via,
            jobs::next_at,
        ))
        .first(c)
        .optional())
    .during("reading a job")
}

/// Changes a job's state, and says so in `events`.
fn enter(
    conn: &mut Conn<'_>,
    job: &Job,
    state: JobState,
    reason: Option<&str>,
    at: UtcMicros,
) -> Result<(), StoreError> {
    let reason = reason.map(|reason| limits::clip(reason, REASON));
    with_db!(conn, |c| diesel::update(jobs::table.find(&job.id))
        .set((
            jobs::state.eq(state.word()),
            jobs::reason.eq(&reason),
            (state == JobState::Completed).then_some(jobs::ended_at.eq(at)),
        ))
        .execute(c))
    .during("changing a job's state")?;
    let kind = match state {
        JobState::Running => "job_resumed",
        JobState::Paused => "job_paused",
        JobState::Completed => "job_completed",
        JobState::Aborted => "job_aborted",
        JobState::Canceled => "job_canceled",
        JobState::Expired => "job_expired",
    };
    record(conn, (job.tenant_id, &job.name), kind, reason.as_deref().unwrap_or_default(), at)
}

/// Puts what has happened to a job into `events`.
fn record(
    conn: &mut Conn<'_>,
    (tenant, name): (i32, &str),
    kind: &str,
    detail: &str,
    at: UtcMicros,
) -> Result<(), StoreError> {
    let detail = limits::clip(format!("job {name}: {detail}").trim_end_matches([':', ' ']), limits::DETAIL);
    with_db!(conn, |c| diesel::insert_into(events::table)
        .values((events::tenant_id.eq(tenant), events::at.eq(at), events::kind.eq(kind), events::detail.eq(&detail)))
        .execute(c))
    .during("recording what has happened to a job")?;
    Ok(())
}

/// A job begins nothing any more: what has not begun is canceled, and commands that were not sent yet are taken back; with `sent`, those
/// that were, too. What is on its way goes on to its end.
fn stop(
    conn: &mut Conn<'_>,
    job: &Job,
    (state, reason): (JobState, &str),
    sent: bool,
    at: UtcMicros,
) -> Result<u64, StoreError> {
    enter(conn, job, state, Some(reason), at)?;
    let why = limits::clip(reason, REASON);
    let unbegun = with_db!(conn, |c| diesel::update(job_executions::table)
        .filter(job_executions::job_id.eq(&job.id))
        .filter(job_executions::ended_at.is_null())
        .filter(job_executions::begun_at.is_null())
        .set((
            job_executions::state.eq(ExecutionState::Canceled.word()),
            job_executions::ended_at.eq(at),
            job_executions::reason.eq(&why),
        ))
        .execute(c))
    .during("canceling what a job has not begun")?;
    let ids = settle::commands_under_way(conn, &job.id, sent)?;
    let cause = match sent {
        true => format!("taken back with the job {}; if it was sent, the device may carry it out: {reason}", job.name),
        false => format!("taken back with the job {} before it was sent: {reason}", job.name),
    };
    commands::end(conn, &ids, State::Cancelled, at, &cause, None)?;
    Ok(unbegun as u64)
}

/// Takes the job's row, so that nobody else changes the job in this transaction.
fn lock(conn: &mut Conn<'_>, id: &str) -> Result<bool, StoreError> {
    let locked =
        with_db!(conn, |c| diesel::update(jobs::table.find(id)).set(jobs::priority.eq(jobs::priority)).execute(c))
            .during("taking a job")?;
    Ok(locked > 0)
}

fn unfit(detail: String) -> StoreError {
    StoreError::Unfit { detail }
}
