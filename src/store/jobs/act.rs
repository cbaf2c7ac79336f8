//! What people do with jobs.

use super::{Job, enter, list, lock, read, stop, unfit};
use crate::clock;
use crate::job::JobState;
use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::pool::Conn;

impl Store {
    /// Has a job begin nothing until it is resumed; what is under way goes on. Returns its id.
    ///
    /// # Errors
    /// [`StoreError::Missing`] where no job is meant, [`StoreError::Unfit`] where more than one is, [`StoreError::Past`] where it is not
    /// running.
    pub fn pause_job(&self, name: &str, who: &str) -> Result<String, StoreError> {
        self.turn(name, JobState::Running, JobState::Paused, &format!("paused by {who}"))
    }

    /// Has a job that was paused go on. Returns its id.
    ///
    /// # Errors
    /// As [`Store::pause_job`].
    pub fn resume_job(&self, name: &str, who: &str) -> Result<String, StoreError> {
        self.turn(name, JobState::Paused, JobState::Running, &format!("resumed by {who}"))
    }

    fn turn(&self, name: &str, from: JobState, to: JobState, reason: &str) -> Result<String, StoreError> {
        self.db.write(|conn| {
            let job = take(conn, name)?;
            if job.state()? != from {
                return Err(past(&job));
            }
            enter(conn, &job, to, Some(reason), clock::now())?;
            Ok(job.id)
        })
    }

    /// Takes a job back: nothing more begins, and commands that were not sent are taken back. With `sent` nobody waits for those that
    /// were, either. Returns its id.
    ///
    /// # Errors
    /// [`StoreError::Missing`] where no job is meant, [`StoreError::Unfit`] where more than one is, [`StoreError::Past`] where it has
    /// ended, or nothing would begin any more and `sent` is not asked for.
    pub fn cancel_job(&self, name: &str, who: &str, sent: bool) -> Result<String, StoreError> {
        self.db.write(|conn| {
            let job = take(conn, name)?;
            if job.ended_at.is_some() || (!job.state()?.goes_on() && !sent) {
                return Err(past(&job));
            }
            let now = clock::now();
            stop(conn, &job, (JobState::Canceled, &format!("canceled by {who}")), sent, now)?;
            Ok(job.id)
        })
    }
}

/// The job that is meant, which nobody else changes from here on.
fn take(conn: &mut Conn<'_>, name: &str) -> Result<Job, StoreError> {
    let id = list::find(conn, name)?;
    lock(conn, &id)?;
    read(conn, &id)?.ok_or_else(|| unfit(format!("the job {name} is gone")))
}

fn past(job: &Job) -> StoreError {
    let ended = if job.ended_at.is_some() { " and has ended" } else { "" };
    StoreError::Past { detail: format!("the job {} is {}{ended}", job.name, job.state) }
}
