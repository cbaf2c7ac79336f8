//! Executions begin: their commands are made, many at once, in the transaction that says so.

use std::collections::BTreeMap;

use diesel::prelude::*;

use super::{Job, REASON};
use crate::command::admission::{Schemas, Terms, Wanted, examine, has_room};
use crate::command::{Ask, State};
use crate::config;
use crate::job::ExecutionState;
use crate::store::commands::{self, AdmittedAsk};
use crate::store::error::{During, StoreError};
use crate::store::limits;
use crate::store::pool::{Conn, with_db};
use crate::store::schema::job_executions;
use crate::time::UtcMicros;

#[derive(Queryable)]
struct Next {
    place: i32,
    device: String,
    command_id: String,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Begun {
    pub(super) commands: u64,
    pub(super) rejected: u64,
}

/// Begins the first `count` executions that have not begun. One that is not valid any more is rejected.
pub(super) fn begin(
    conn: &mut Conn<'_>,
    job: &Job,
    count: u64,
    instance: &str,
    settings: &config::Commands,
    now: UtcMicros,
) -> Result<Begun, StoreError> {
    let next: Vec<Next> = with_db!(conn, |c| job_executions::table
        .filter(job_executions::job_id.eq(&job.id))
        .filter(job_executions::ended_at.is_null())
        .filter(job_executions::begun_at.is_null())
        .order(job_executions::place)
        .limit(i64::try_from(count).unwrap_or(i64::MAX))
        .select((job_executions::place, job_executions::device, job_executions::command_id))
        .load(c))
    .during("looking for what a job begins next")?;
    let targets = commands::targets_of(conn, next.iter().map(|one| (job.tenant.as_str(), one.device.as_str())))?;
    let devices: Vec<&str> = next.iter().map(|one| one.device.as_str()).collect();
    let open = commands::open_by_device(conn, &job.tenant, &devices)?;
    let mut schemas = Schemas::default();
    let (mut made, mut places) = (Vec::with_capacity(next.len()), Vec::with_capacity(next.len()));
    let mut rejected: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for one in &next {
        let target = targets.get(&(job.tenant.clone(), one.device.clone()));
        let waiting = open.get(&one.device).copied().unwrap_or(0);
        let examined = examine(&job.wanted(&one.command_id, &one.device, now), target, settings, &mut schemas, now);
        match examined.and_then(|terms| has_room(waiting, settings).map(|()| terms)) {
            Ok(terms) => {
                places.push(one.place);
                made.push(job.command(one, terms, now));
            }
            Err(why) => rejected.entry(limits::clip(&why, REASON)).or_default().push(one.place),
        }
    }
    let begun = Begun { commands: made.len() as u64, rejected: (next.len().saturating_sub(made.len())) as u64 };
    let cause = format!("asked for by the job {} of {}", job.name, job.asker());
    commands::enqueue(conn, made, instance, now, &cause)?;
    mark(conn, job, &places, (ExecutionState::Queued, None), now)?;
    for (why, places) in &rejected {
        mark(conn, job, places, (ExecutionState::Rejected, Some(why)), now)?;
    }
    Ok(begun)
}

fn mark(
    conn: &mut Conn<'_>,
    job: &Job,
    places: &[i32],
    (state, reason): (ExecutionState, Option<&String>),
    now: UtcMicros,
) -> Result<(), StoreError> {
    for places in places.chunks(conn.rows_per_statement(1)) {
        with_db!(conn, |c| diesel::update(job_executions::table)
            .filter(job_executions::job_id.eq(&job.id))
            .filter(job_executions::place.eq_any(places))
            .set((
                job_executions::state.eq(state.word()),
                job_executions::reason.eq(reason),
                job_executions::begun_at.eq(now),
                job_executions::ended_at.eq(state.is_end().then_some(now)),
            ))
            .execute(c))
        .during("marking executions as begun")?;
    }
    Ok(())
}

impl Job {
    fn wanted<'a>(&'a self, id: &'a str, device: &'a str, now: UtcMicros) -> Wanted<'a> {
        Wanted {
            id,
            tenant: &self.tenant,
            device,
            name: &self.command,
            params: &self.params,
            priority: self.priority,
            state: State::Queued.word(),
            created_at: now,
            expires_at: self.expires_at,
        }
    }

    fn command(&self, one: &Next, terms: Terms, now: UtcMicros) -> AdmittedAsk {
        let ask = Ask {
            id: one.command_id.clone(),
            tenant: self.tenant.clone(),
            device: one.device.clone(),
            name: self.command.clone(),
            params: self.params.clone(),
            priority: self.priority,
            at: now,
            expires_at: self.expires_at,
            who: self.who.clone(),
            via: "job",
            reply: None,
            refused: None,
        };
        AdmittedAsk { ask, terms }
    }
}
