//! Jobs for people to look at.

use std::collections::HashMap;

use diesel::dsl::count_star;
use diesel::prelude::*;
use serde_json::{Map, Value, json};

use super::unfit;
use crate::job::{ExecutionState, JobState};
use crate::store::Store;
use crate::store::error::{During, StoreError};
use crate::store::pool::{Conn, with_db};
use crate::store::schema::{job_executions, jobs, tenants};
use crate::time::UtcMicros;

/// Which jobs are listed; each that is given must fit.
#[derive(Clone, Debug, Default)]
pub struct JobFilter {
    pub tenant: Option<String>,
    pub state: Option<JobState>,
    /// Only those that have not ended.
    pub open: bool,
}

/// Which executions of a job are listed.
#[derive(Clone, Debug, Default)]
pub struct ExecutionFilter {
    pub state: Option<ExecutionState>,
    pub device: Option<String>,
    /// Only those behind this place.
    pub after: Option<i32>,
}

/// A job as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct JobRow {
    pub job: JobColumns,
    /// How many executions are in each state, in the order of [`ExecutionState::ALL`].
    pub executions: [i64; ExecutionState::ALL.len()],
}

/// What its row has.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable)]
#[diesel(table_name = jobs)]
pub struct JobColumns {
    pub id: String,
    #[diesel(select_expression = tenants::name)]
    pub tenant: String,
    pub name: String,
    pub command: String,
    /// JSON.
    pub params: String,
    /// JSON.
    pub selection: String,
    pub version: Option<String>,
    pub state: String,
    pub reason: Option<String>,
    /// Commands a minute.
    pub rate: Option<i32>,
    pub canaries: i32,
    pub canaries_passed_at: Option<UtcMicros>,
    pub abort_percent: Option<i32>,
    pub abort_after: i32,
    pub timeout_ms: Option<i64>,
    pub priority: i32,
    pub devices: i32,
    pub created_at: UtcMicros,
    pub expires_at: Option<UtcMicros>,
    pub ended_at: Option<UtcMicros>,
    pub instance: Option<String>,
    pub who: Option<String>,
    pub via: String,
}

/// An execution as it stands.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable)]
#[diesel(table_name = job_executions)]
pub struct ExecutionRow {
    pub place: i32,
    pub device: String,
    pub canary: bool,
    pub command_id: String,
    pub state: String,
    pub reason: Option<String>,
    pub begun_at: Option<UtcMicros>,
    pub started_at: Option<UtcMicros>,
    pub ended_at: Option<UtcMicros>,
}

impl JobRow {
    pub fn count(&self, state: ExecutionState) -> i64 {
        ExecutionState::ALL
            .iter()
            .position(|one| *one == state)
            .and_then(|at| self.executions.get(at))
            .copied()
            .unwrap_or(0)
    }

    /// Executions that have ended.
    pub fn ended(&self) -> i64 {
        ExecutionState::ALL.into_iter().filter(|state| state.is_end()).map(|state| self.count(state)).sum()
    }

    /// As the API has it.
    pub fn json(&self) -> Value {
        let job = &self.job;
        let document = |text: &str| serde_json::from_str::<Value>(text).unwrap_or(Value::Null);
        let time = |at: Option<UtcMicros>| at.map(UtcMicros::in_full);
        let counts: Map<String, Value> =
            ExecutionState::ALL.into_iter().map(|state| (state.word().to_owned(), json!(self.count(state)))).collect();
        json!({
            "id": job.id,
            "tenant": job.tenant,
            "name": job.name,
            "command": job.command,
            "params": document(&job.params),
            "selection": document(&job.selection),
            "version": job.version,
            "state": job.state,
            "reason": job.reason,
            "rate": job.rate,
            "canaries": job.canaries,
            "canaries_passed_at": time(job.canaries_passed_at),
            "abort_percent": job.abort_percent,
            "abort_after": job.abort_after,
            "timeout_s": job.timeout_ms.map(|ms| ms as f64 / 1000.0),
            "priority": job.priority,
            "devices": job.devices,
            "executions": counts,
            "created_at": job.created_at.in_full(),
            "expires_at": time(job.expires_at),
            "ended_at": time(job.ended_at),
            "instance": job.instance,
            "who": job.who,
            "via": job.via,
        })
    }
}

impl ExecutionRow {
    /// The id of its command, where there is one: what was rejected before it was sent has none.
    pub fn command(&self) -> Option<&str> {
        let is_made = self.started_at.is_some() || self.state != ExecutionState::Rejected.word();
        self.begun_at.filter(|_| is_made).map(|_| self.command_id.as_str())
    }

    /// As the API has it.
    pub fn json(&self) -> Value {
        let time = |at: Option<UtcMicros>| at.map(UtcMicros::in_full);
        json!({
            "place": self.place,
            "device": self.device,
            "canary": self.canary,
            "command": self.command(),
            "state": self.state,
            "reason": self.reason,
            "begun_at": time(self.begun_at),
            "started_at": time(self.started_at),
            "ended_at": time(self.ended_at),
        })
    }
}

impl Store {
    /// Jobs, the newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn jobs(&self, filter: &JobFilter, limit: i64) -> Result<Vec<JobRow>, StoreError> {
        self.look(|conn| {
            let found: Vec<JobColumns> = with_db!(conn, |c, Backend| {
                let mut query =
                    jobs::table.inner_join(tenants::table).select(JobColumns::as_select()).into_boxed::<Backend>();
                if let Some(tenant) = &filter.tenant {
                    query = query.filter(tenants::name.eq(tenant));
                }
                if let Some(state) = filter.state {
                    query = query.filter(jobs::state.eq(state.word()));
                }
                if filter.open {
                    query = query.filter(jobs::ended_at.is_null());
                }
                query.order((jobs::created_at.desc(), jobs::id)).limit(limit).load(c)
            })
            .during("listing jobs")?;
            counted(conn, found)
        })
    }

    /// A job, by its name, its id or the beginning of that.
    ///
    /// # Errors
    /// [`StoreError::Missing`] where no job is meant, [`StoreError::Unfit`] where more than one is.
    pub fn job(&self, name: &str) -> Result<JobRow, StoreError> {
        self.look(|conn| show(conn, name))
    }

    /// As [`Store::job`], from the primary: for whoever waits for what becomes of it.
    ///
    /// # Errors
    /// As there.
    pub fn job_now(&self, name: &str) -> Result<JobRow, StoreError> {
        self.db.read(|conn| show(conn, name))
    }

    /// Executions of a job, in the order in which they begin.
    ///
    /// # Errors
    /// As [`Store::job`].
    pub fn job_executions(
        &self,
        name: &str,
        filter: &ExecutionFilter,
        limit: i64,
    ) -> Result<Vec<ExecutionRow>, StoreError> {
        self.look(|conn| {
            let id = find(conn, name)?;
            with_db!(conn, |c, Backend| {
                let mut query = job_executions::table
                    .filter(job_executions::job_id.eq(&id))
                    .select(ExecutionRow::as_select())
                    .into_boxed::<Backend>();
                if let Some(state) = filter.state {
                    query = query.filter(job_executions::state.eq(state.word()));
                }
                if let Some(device) = &filter.device {
                    query = query.filter(job_executions::device.eq(device));
                }
                if let Some(after) = filter.after {
                    query = query.filter(job_executions::place.gt(after));
                }
                query.order(job_executions::place).limit(limit).load(c)
            })
            .during("listing the executions of a job")
        })
    }
}

fn show(conn: &mut Conn<'_>, name: &str) -> Result<JobRow, StoreError> {
    let id = find(conn, name)?;
    let found: Vec<JobColumns> = with_db!(conn, |c| jobs::table
        .inner_join(tenants::table)
        .filter(jobs::id.eq(&id))
        .select(JobColumns::as_select())
        .load(c))
    .during("reading a job")?;
    counted(conn, found)?.pop().ok_or_else(|| missing(name))
}

/// Jobs with the counts of their executions.
fn counted(conn: &mut Conn<'_>, found: Vec<JobColumns>) -> Result<Vec<JobRow>, StoreError> {
    let ids: Vec<&str> = found.iter().map(|job| job.id.as_str()).collect();
    let groups: Vec<(String, String, i64)> = with_db!(conn, |c| job_executions::table
        .filter(job_executions::job_id.eq_any(&ids))
        .group_by((job_executions::job_id, job_executions::state))
        .select((job_executions::job_id, job_executions::state, count_star()))
        .load(c))
    .during("counting the executions of jobs")?;
    let mut counts: HashMap<String, [i64; ExecutionState::ALL.len()]> = HashMap::new();
    for (job, state, count) in groups {
        let of_job = counts.entry(job).or_default();
        if let Some(place) =
            ExecutionState::ALL.iter().position(|one| one.word() == state).and_then(|at| of_job.get_mut(at))
        {
            *place = count;
        }
    }
    let row = |job: JobColumns| JobRow { executions: counts.get(&job.id).copied().unwrap_or_default(), job };
    Ok(found.into_iter().map(row).collect())
}

fn missing(name: &str) -> StoreError {
    StoreError::Missing {
        what: "job",
        detail: format!("there is no job whose name is {name:?}, or whose id begins so"),
    }
}

/// The id of the job that has this name, or whose id begins so.
pub(super) fn find(conn: &mut Conn<'_>, name: &str) -> Result<String, StoreError> {
    if !crate::command::is_id(name) {
        return Err(unfit("a job is named by its name, its id or the beginning of that".to_owned()));
    }
    // Ids are compared byte by byte, and no character of one comes after `~`.
    let end = format!("{name}~");
    let found: Vec<(String, String)> = with_db!(conn, |c| jobs::table
        .filter(jobs::name.eq(name).or(jobs::id.ge(name).and(jobs::id.lt(&end))))
        .select((jobs::id, jobs::name))
        .order(jobs::id)
        .limit(100)
        .load(c))
    .during("looking for a job")?;
    let named: Vec<&String> = found.iter().filter(|(id, of)| of == name || id == name).map(|(id, _)| id).collect();
    match (named.as_slice(), found.as_slice()) {
        ([one], _) => Ok((*one).clone()),
        ([], [(one, _)]) => Ok(one.clone()),
        ([], []) => Err(missing(name)),
        ([], _) => Err(unfit(format!("several jobs' ids begin with {name:?}; give more of it"))),
        (_, _) => Err(unfit(format!("several tenants have a job {name:?}; name it by its id"))),
    }
}
