//! A daemon advances jobs, a step at a time.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Text};

use super::{Job, begin, enter, lock, read, record, settle, stop};
use crate::config;
use crate::job::plan::{self, Standing};
use crate::job::{Counts, ExecutionState, JobState, Move, Tally};
use crate::store::Store;
use crate::store::commands::heads;
use crate::store::error::{During, StoreError};
use crate::store::pool::{Conn, with_db};
use crate::store::schema::jobs;
use crate::time::UtcMicros;

/// Executions that begin in one step, and so in one transaction.
const STEP: u64 = 500;
/// Moves of a job in one step: the canaries pass, the others begin, and all that begins is rejected and ends.
const MOVES: usize = 4;

/// What a step has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advanced {
    /// How many executions have got into each state.
    pub states: Vec<(ExecutionState, u64)>,
    /// Commands that were made.
    pub commands: u64,
    /// Whether there is more to do at once.
    pub more: bool,
}

#[derive(QueryableByName)]
struct Group {
    #[diesel(sql_type = Bool)]
    canary: bool,
    #[diesel(sql_type = Text)]
    state: String,
    #[diesel(sql_type = Bool)]
    begun: bool,
    #[diesel(sql_type = BigInt)]
    count: i64,
}

impl Store {
    /// Ids of the jobs that have not ended and are this instance's, or nobody's, the oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open_jobs(&self, instance: &str) -> Result<Vec<String>, StoreError> {
        self.db.with(|conn| {
            with_db!(conn, |c| jobs::table
                .filter(jobs::ended_at.is_null())
                .filter(jobs::instance.is_null().or(jobs::instance.eq(instance)))
                .order((jobs::created_at, jobs::id))
                .select(jobs::id)
                .limit(i64::try_from(crate::job::MAX_OPEN).unwrap_or(i64::MAX))
                .load(c))
            .during("looking for jobs")
        })
    }

    /// How many of an instance's commands could be sent now and are not, counted up to `most`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn commands_to_send(&self, instance: &str, most: u64, now: UtcMicros) -> Result<u64, StoreError> {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        self.db.with(|conn| Ok(heads(conn, instance, most, now)?.len() as u64))
    }

    /// Whether there is anything to do for a job, if so many commands may be made. Looks only.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn job_is_due(&self, id: &str, room: u64, now: UtcMicros) -> Result<bool, StoreError> {
        self.db.read(|conn| is_due(conn, id, room, now))
    }

    /// Advances a job by a step, in one transaction: reads what has become of its commands, and does what is to be done then. `room`:
    /// commands that may be made at most.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing has changed.
    pub fn advance_job(
        &self,
        id: &str,
        instance: &str,
        settings: &config::Commands,
        room: u64,
        now: UtcMicros,
    ) -> Result<Advanced, StoreError> {
        let room = room.min(STEP);
        self.db.write(|conn| {
            let mut advanced = Advanced::default();
            // From here on the job is as it is read.
            if !lock(conn, id)? {
                return Ok(advanced);
            }
            let Some(mut job) = read(conn, id)? else { return Ok(advanced) };
            if job.ended_at.is_some() || !adopt(conn, &mut job, instance, &mut advanced)? {
                return Ok(advanced);
            }
            advanced.states.extend(settle::settle(conn, &job, now)?);
            for _ in 0..MOVES {
                let counts = counts(conn, id)?;
                match plan::decide(&job.rules(), &counts, &job.standing(room)?, now) {
                    Move::Wait => break,
                    Move::End => {
                        end(conn, &job, now)?;
                        break;
                    }
                    Move::Abort(why) => halt(conn, &mut job, (JobState::Aborted, &why), now, &mut advanced)?,
                    Move::Expire => {
                        let why = "its time had passed before all had begun";
                        halt(conn, &mut job, (JobState::Expired, why), now, &mut advanced)?;
                    }
                    Move::Pass => pass(conn, &mut job, &counts.canaries, now)?,
                    Move::Begin { count, next_at } => {
                        let begun = begin::begin(conn, &job, count, instance, settings, now)?;
                        with_db!(conn, |c| diesel::update(jobs::table.find(id))
                            .set(jobs::next_at.eq(next_at))
                            .execute(c))
                        .during("keeping when a job's next command may begin")?;
                        advanced.commands = begun.commands;
                        advanced.states.push((ExecutionState::Queued, begun.commands));
                        advanced.states.push((ExecutionState::Rejected, begun.rejected));
                        advanced.more = count == STEP || begun.rejected > 0;
                        break;
                    }
                }
            }
            Ok(advanced)
        })
    }
}

/// Whether there is anything to do.
fn is_due(conn: &mut Conn<'_>, id: &str, room: u64, now: UtcMicros) -> Result<bool, StoreError> {
    let Some(job) = read(conn, id)?.filter(|job| job.ended_at.is_none()) else { return Ok(false) };
    if job.instance.is_none() || settle::is_due(conn, &job, now)? {
        return Ok(true);
    }
    let counts = counts(conn, id)?;
    Ok(plan::decide(&job.rules(), &counts, &job.standing(room)?, now) != Move::Wait)
}

/// Makes a job this instance's if it is nobody's; what had ended when it was made is counted then. Returns whether it is.
fn adopt(conn: &mut Conn<'_>, job: &mut Job, instance: &str, advanced: &mut Advanced) -> Result<bool, StoreError> {
    if let Some(of) = &job.instance {
        return Ok(of == instance);
    }
    with_db!(conn, |c| diesel::update(jobs::table.find(&job.id)).set(jobs::instance.eq(instance)).execute(c))
        .during("taking up a job")?;
    job.instance = Some(instance.to_owned());
    for group in groups(conn, &job.id)? {
        if let Some(state) = ExecutionState::of(&group.state).filter(|state| state.is_end()) {
            advanced.states.push((state, group.count.unsigned_abs()));
        }
    }
    Ok(true)
}

fn halt(
    conn: &mut Conn<'_>,
    job: &mut Job,
    (state, why): (JobState, &str),
    now: UtcMicros,
    advanced: &mut Advanced,
) -> Result<(), StoreError> {
    let canceled = stop(conn, job, (state, why), false, now)?;
    job.state = state.word().to_owned();
    advanced.states.push((ExecutionState::Canceled, canceled));
    advanced.states.extend(settle::by_command(conn, job, now)?);
    Ok(())
}

fn pass(conn: &mut Conn<'_>, job: &mut Job, canaries: &Tally, now: UtcMicros) -> Result<(), StoreError> {
    job.canaries_passed_at = Some(now);
    with_db!(conn, |c| diesel::update(jobs::table.find(&job.id)).set(jobs::canaries_passed_at.eq(now)).execute(c))
        .during("recording that a job's canaries have passed")?;
    let detail = format!("its canaries have passed: {} succeeded, {} failed", canaries.succeeded, canaries.failed);
    record(conn, (job.tenant_id, &job.name), "job_canaries_passed", &detail, now)
}

/// Every execution has ended.
fn end(conn: &mut Conn<'_>, job: &Job, now: UtcMicros) -> Result<(), StoreError> {
    let groups = groups(conn, &job.id)?;
    let told = ExecutionState::ALL.into_iter().filter_map(|state| {
        let count: i64 = groups.iter().filter(|group| group.state == state.word()).map(|group| group.count).sum();
        (count > 0).then(|| format!("{count} {}", state.word()))
    });
    let told = told.collect::<Vec<_>>().join(", ");
    if job.state()?.goes_on() {
        return enter(conn, job, JobState::Completed, Some(&told), now);
    }
    with_db!(conn, |c| diesel::update(jobs::table.find(&job.id)).set(jobs::ended_at.eq(now)).execute(c))
        .during("ending a job")?;
    record(conn, (job.tenant_id, &job.name), "job_ended", &told, now)
}

impl Job {
    fn standing(&self, room: u64) -> Result<Standing, StoreError> {
        let passed = self.canaries == 0 || self.canaries_passed_at.is_some();
        Ok(Standing { state: self.state()?, passed, next_at: self.next_at, room })
    }
}

fn groups(conn: &mut Conn<'_>, id: &str) -> Result<Vec<Group>, StoreError> {
    let sql = conn.numbered(
        "SELECT canary, state, begun_at IS NOT NULL AS begun, count(*) AS count FROM job_executions WHERE job_id = ?1 \
         GROUP BY canary, state, begun_at IS NOT NULL",
    );
    with_db!(conn, |c| diesel::sql_query(&sql).bind::<Text, _>(id).load(c)).during("counting a job's executions")
}

fn counts(conn: &mut Conn<'_>, id: &str) -> Result<Counts, StoreError> {
    let mut counts = Counts::default();
    for group in groups(conn, id)? {
        let tally = if group.canary { &mut counts.canaries } else { &mut counts.others };
        let place = match ExecutionState::of(&group.state) {
            Some(ExecutionState::Queued) if !group.begun => &mut tally.waiting,
            Some(state) if !state.is_end() => &mut tally.under_way,
            // Never begun, it says nothing of what the command does.
            Some(ExecutionState::Succeeded) if group.begun => &mut tally.succeeded,
            Some(state) if group.begun && state.is_failure() => &mut tally.failed,
            _ => continue,
        };
        *place = place.saturating_add(group.count.unsigned_abs());
    }
    Ok(counts)
}
