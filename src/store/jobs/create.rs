//! Jobs that are asked for: each device is looked through before anything is kept.

use diesel::prelude::*;

use super::{Job, read, record, settle, unfit};
use crate::clock;
use crate::command::State;
use crate::command::admission::{Schemas, Target, Wanted, examine};
use crate::config;
use crate::config::fault::did_you_mean;
use crate::job::selector::Candidate;
use crate::job::{Ask, CANARY_ABORT, ExecutionState, MAX_DEVICES, MAX_OPEN, command_id, firmware};
use crate::store::Store;
use crate::store::commands;
use crate::store::error::{During, StoreError};
use crate::store::limits;
use crate::store::pool::{Conn, with_db};
use crate::store::schema::{device_templates, devices, job_executions, jobs, sites, tenants};
use crate::time::UtcMicros;

/// A job that is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    pub id: String,
    pub devices: u64,
    /// Devices for which the command is not valid.
    pub rejected: u64,
    /// Devices that need no command, since they report the version already.
    pub done: u64,
    pub canaries: u64,
}

#[derive(Insertable)]
#[diesel(table_name = job_executions, treat_none_as_default_value = false)]
struct NewExecution {
    job_id: String,
    tenant_id: i32,
    place: i32,
    device_id: i32,
    device: String,
    canary: bool,
    command_id: String,
    metric: Option<String>,
    state: &'static str,
    reason: Option<String>,
    ended_at: Option<UtcMicros>,
}

impl NewExecution {
    const COLUMNS: usize = 11;
}

impl Store {
    /// Makes a job and an execution for each device that it means; a running daemon begins within a second.
    ///
    /// # Errors
    /// [`StoreError::Unfit`] where it means no device or too many, or is valid for none; [`StoreError::Past`] where the tenant has a job
    /// of this name; [`StoreError::Missing`] where there is no such tenant.
    pub fn create_job(&self, ask: &Ask, settings: &config::Commands) -> Result<Created, StoreError> {
        ask.check().map_err(unfit)?;
        // Not under the lock: to look through many devices takes a while, and each is looked at again when it begins.
        let (tenant, executions) = self.db.read(|conn| {
            let tenant = tenant(conn, &ask.tenant)?;
            Ok((tenant, examined(conn, tenant, ask, settings)?))
        })?;
        let count = executions.len() as u64;
        let rejected = executions.iter().filter(|one| one.ended_at.is_some()).count() as u64;
        if let Some(first) = executions.first().filter(|_| rejected == count) {
            let why = first.reason.as_deref().unwrap_or_default();
            return Err(unfit(match count {
                1 => why.to_owned(),
                _ => format!("a job on nothing: none of its {count} devices can be told; {}: {why}", first.device),
            }));
        }
        self.db.write(|conn| {
            let open: i64 = with_db!(conn, |c| jobs::table.filter(jobs::ended_at.is_null()).count().get_result(c))
                .during("counting jobs")?;
            if open >= i64::try_from(MAX_OPEN).unwrap_or(i64::MAX) {
                return Err(StoreError::Past {
                    detail: format!("{open} jobs have not ended; {MAX_OPEN} are the most"),
                });
            }
            insert(conn, tenant, ask, count)?;
            for rows in executions.chunks(conn.rows_per_statement(NewExecution::COLUMNS)) {
                with_db!(conn, |c| diesel::insert_into(job_executions::table).values(rows).execute(c))
                    .during("writing the executions of a job")?;
            }
            let Some(job) = read(conn, &ask.id)? else { return Err(unfit("the job is gone".to_owned())) };
            let done: u64 = settle::by_version(conn, &job, ask.at)?.iter().map(|(_, count)| count).sum();
            let canaries = choose_canaries(conn, &job, ask, count.saturating_sub(rejected).saturating_sub(done))?;
            let detail = format!("{} for {count} devices, asked for by {}", job.command, job.asker());
            record(conn, (tenant, &job.name), "job_created", &detail, ask.at)?;
            Ok(Created { id: job.id, devices: count, rejected, done, canaries })
        })
    }
}

fn tenant(conn: &mut Conn<'_>, name: &str) -> Result<i32, StoreError> {
    let known: Vec<(i32, String)> =
        with_db!(conn, |c| tenants::table.select((tenants::id, tenants::name)).load(c)).during("reading tenants")?;
    if let Some((id, _)) = known.iter().find(|(_, known)| known == name) {
        return Ok(*id);
    }
    let hint = did_you_mean(name, known.iter().map(|(_, name)| name.as_str()));
    let hint = hint.map_or_else(String::new, |hint| format!("; {hint}"));
    Err(StoreError::Missing { what: "tenant", detail: format!("there is no tenant {name:?}{hint}") })
}

/// An execution for each device that is meant, in the order in which they begin: as the ids of their commands fall, so that the first
/// ones are of all kinds. Those for which the command is not valid have ended.
fn examined(
    conn: &mut Conn<'_>,
    tenant: i32,
    ask: &Ask,
    settings: &config::Commands,
) -> Result<Vec<NewExecution>, StoreError> {
    let chosen = ask.selector.choose(candidates(conn, tenant)?).map_err(unfit)?;
    if chosen.len() > MAX_DEVICES {
        return Err(unfit(format!("{} devices are meant; {MAX_DEVICES} are the most for one job", chosen.len())));
    }
    let targets = commands::targets_of(conn, chosen.iter().map(|one| (ask.tenant.as_str(), one.uid.as_str())))?;
    let mut schemas = Schemas::default();
    let now = clock::now();
    let mut executions: Vec<NewExecution> = Vec::with_capacity(chosen.len());
    for one in chosen {
        let id = command_id(&ask.id, &one.uid);
        let target = targets.get(&(ask.tenant.clone(), one.uid.clone()));
        let why = examine(&wanted(ask, &id, &one.uid), target, settings, &mut schemas, now).err();
        executions.push(NewExecution {
            job_id: ask.id.clone(),
            tenant_id: tenant,
            place: 0,
            device_id: one.id,
            device: one.uid,
            canary: false,
            command_id: id,
            metric: metric(ask, target),
            state: why.as_ref().map_or(ExecutionState::Queued, |_| ExecutionState::Rejected).word(),
            ended_at: why.is_some().then_some(ask.at),
            reason: why.map(|why| limits::clip(&why, super::REASON)),
        });
    }
    executions.sort_by(|a, b| a.command_id.cmp(&b.command_id));
    for (place, one) in (0..).zip(&mut executions) {
        one.place = place;
    }
    Ok(executions)
}

fn wanted<'a>(ask: &'a Ask, id: &'a str, device: &'a str) -> Wanted<'a> {
    Wanted {
        id,
        tenant: &ask.tenant,
        device,
        name: &ask.command,
        params: &ask.params,
        priority: ask.priority,
        state: State::Queued.word(),
        created_at: ask.at,
        expires_at: ask.expires_at,
    }
}

/// What tells the device's version: as the job says, as its template's command does, or the usual metric.
fn metric(ask: &Ask, target: Option<&Target>) -> Option<String> {
    let firmware = ask.firmware.as_ref()?;
    let of_template = || {
        let command = target?.model.as_ref()?.command(&ask.command).ok()?;
        command.manner.version_metric.clone()
    };
    let metric = firmware.metric.clone().or_else(of_template);
    Some(limits::clip(metric.as_deref().unwrap_or(firmware::METRIC), limits::METRIC))
}

type CandidateRow = (i32, String, Option<String>, Option<String>, String, String);

/// All devices of a tenant.
fn candidates(conn: &mut Conn<'_>, tenant: i32) -> Result<Vec<Candidate>, StoreError> {
    let rows: Vec<CandidateRow> = with_db!(conn, |c| devices::table
        .left_join(device_templates::table.on(devices::template_id.eq(device_templates::id.nullable())))
        .left_join(sites::table.on(devices::site_id.eq(sites::id.nullable())))
        .filter(devices::tenant_id.eq(tenant))
        .select((
            devices::id,
            devices::uid,
            device_templates::slug.nullable(),
            sites::name.nullable(),
            devices::tags,
            devices::mode,
        ))
        .load(c))
    .during("looking for the devices of a job")?;
    let candidate = |(id, uid, template, site, tags, mode): CandidateRow| Candidate {
        id,
        uid,
        template,
        site,
        // Written by tidegate; a person's nonsense is no tag.
        tags: serde_json::from_str(&tags).unwrap_or_default(),
        retired: mode == "retired",
    };
    Ok(rows.into_iter().map(candidate).collect())
}

fn insert(conn: &mut Conn<'_>, tenant: i32, ask: &Ask, devices: u64) -> Result<(), StoreError> {
    let abort = ask.abort.or_else(|| ask.canary.map(|_| CANARY_ABORT));
    let made = with_db!(conn, |c| diesel::insert_into(jobs::table)
        .values((
            (
                jobs::id.eq(&ask.id),
                jobs::tenant_id.eq(tenant),
                jobs::name.eq(&ask.name),
                jobs::command.eq(limits::clip(&ask.command, limits::UID)),
                jobs::params.eq(ask.params.replace('\0', "\u{2400}")),
                jobs::selection.eq(ask.selector.json().to_string()),
                jobs::version.eq(ask.firmware.as_ref().map(|firmware| &firmware.version)),
                jobs::rate.eq(ask.rate.and_then(|rate| i32::try_from(rate.per_minute()).ok())),
                jobs::canaries.eq(0),
                jobs::abort_percent.eq(abort.map(|percent| i32::from(percent.get()))),
            ),
            jobs::abort_after.eq(i32::try_from(ask.abort_after).unwrap_or(i32::MAX)),
            jobs::timeout_ms.eq(ask.timeout.map(|timeout| i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX))),
            jobs::priority.eq(ask.priority),
            jobs::devices.eq(i32::try_from(devices).unwrap_or(i32::MAX)),
            jobs::created_at.eq(ask.at),
            jobs::expires_at.eq(ask.expires_at),
            jobs::instance.eq(ask.instance.as_deref()),
            jobs::who.eq(ask.who.as_deref().map(|who| limits::clip(who, limits::WHO))),
            jobs::via.eq(ask.via),
        ))
        .on_conflict_do_nothing()
        .execute(c))
    .during("writing a job")?;
    match made {
        0 => Err(StoreError::Past {
            detail: format!("there is a job {:?} already; give this one another name", ask.name),
        }),
        _ => Ok(()),
    }
}

/// The first ones of those that are to begin are canaries. Returns how many.
fn choose_canaries(conn: &mut Conn<'_>, job: &Job, ask: &Ask, open: u64) -> Result<u64, StoreError> {
    let Some(share) = ask.canary else { return Ok(0) };
    let canaries = i64::from(share.of(u32::try_from(open).unwrap_or(u32::MAX)));
    let first: Vec<i32> = with_db!(conn, |c| job_executions::table
        .filter(job_executions::job_id.eq(&job.id))
        .filter(job_executions::ended_at.is_null())
        .order(job_executions::place)
        .limit(canaries)
        .select(job_executions::place)
        .load(c))
    .during("choosing a job's canaries")?;
    let Some(last) = first.last() else { return Ok(0) };
    with_db!(conn, |c| diesel::update(job_executions::table)
        .filter(job_executions::job_id.eq(&job.id))
        .filter(job_executions::ended_at.is_null())
        .filter(job_executions::place.le(last))
        .set(job_executions::canary.eq(true))
        .execute(c))
    .during("choosing a job's canaries")?;
    let number = i32::try_from(first.len()).unwrap_or(i32::MAX);
    with_db!(conn, |c| diesel::update(jobs::table.find(&job.id)).set(jobs::canaries.eq(number)).execute(c))
        .during("choosing a job's canaries")?;
    Ok(first.len() as u64)
}
