//! `tidegate job list | show | executions`.

use std::io::Write;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};

use super::super::output::{self, instant, instant_or_dash, or_dash};
use crate::job::{ExecutionState, JobState};
use crate::store::Store;
use crate::store::jobs::{ExecutionFilter, ExecutionRow, JobFilter, JobRow};

#[derive(Args, Debug)]
pub(super) struct ListArgs {
    #[arg(long, value_enum, ignore_case = true)]
    state: Option<JobStateArg>,
    #[arg(long)]
    tenant: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..))]
    limit: i64,
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(super) struct ExecutionsArgs {
    /// The job's name, its id or the beginning of that
    job: String,
    /// Only those in this state
    #[arg(long, value_enum, ignore_case = true)]
    state: Option<ExecutionState>,
    /// Only that of this device
    #[arg(long, value_name = "UID")]
    device: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(i64).range(1..))]
    limit: i64,
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "SCREAMING_SNAKE_CASE")]
enum JobStateArg {
    Running,
    Paused,
    Completed,
    Aborted,
    Canceled,
    Expired,
    All,
}

impl JobStateArg {
    fn state(self) -> Option<JobState> {
        self.to_possible_value().and_then(|value| JobState::of(value.get_name()))
    }
}

impl ValueEnum for ExecutionState {
    fn value_variants<'a>() -> &'a [ExecutionState] {
        &ExecutionState::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.word()))
    }
}

pub(super) fn list(store: &Store, args: &ListArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let state = args.state.and_then(JobStateArg::state);
    let filter = JobFilter { tenant: args.tenant.clone(), state, open: args.state.is_none() };
    let rows = store.jobs(&filter, args.limit)?;
    if args.json {
        output::json(out, &rows.iter().map(JobRow::json).collect())?;
        return Ok(());
    }
    let lines = rows.iter().map(|row| {
        let failed: i64 =
            ExecutionState::ALL.into_iter().filter(|state| state.is_failure()).map(|state| row.count(state)).sum();
        vec![
            row.job.name.clone(),
            instant(row.job.created_at),
            row.job.state.clone(),
            row.job.command.clone(),
            row.job.devices.to_string(),
            row.ended().to_string(),
            row.count(ExecutionState::Succeeded).to_string(),
            failed.to_string(),
            or_dash(row.job.reason.as_deref()),
        ]
    });
    let headers = ["JOB", "CREATED", "STATE", "COMMAND", "DEVICES", "ENDED", "SUCCEEDED", "FAILED", "REASON"];
    output::table(out, &headers, lines)?;
    Ok(())
}

pub(super) fn show(store: &Store, job: &str, as_json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let row = store.job(job)?;
    if as_json {
        output::json(out, &row.json())?;
        return Ok(());
    }
    let job = &row.job;
    let canaries = match (job.canaries, job.canaries_passed_at) {
        (0, _) => "-".to_owned(),
        (canaries, None) => canaries.to_string(),
        (canaries, Some(at)) => format!("{canaries}, passed {}", instant(at)),
    };
    let abort = job.abort_percent.map(|percent| format!("{percent}% of {} or more", job.abort_after));
    let timeout = job.timeout_ms.and_then(|ms| u64::try_from(ms).ok()).map(std::time::Duration::from_millis);
    let facts = [
        ("job", job.name.clone()),
        ("id", job.id.clone()),
        ("tenant", job.tenant.clone()),
        ("state", job.state.clone()),
        ("reason", or_dash(job.reason.as_deref())),
        ("command", job.command.clone()),
        ("params", job.params.clone()),
        ("devices", format!("{}: {}", job.devices, job.selection)),
        ("version", or_dash(job.version.as_deref())),
        ("rate", job.rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate}/m"))),
        ("canaries", canaries),
        ("abort", or_dash(abort.as_deref())),
        ("timeout", timeout.map_or_else(|| "-".to_owned(), |timeout| humantime::format_duration(timeout).to_string())),
        ("asked for", format!("{} by {} ({})", instant(job.created_at), or_dash(job.who.as_deref()), job.via)),
        ("expires", instant_or_dash(job.expires_at)),
        ("instance", or_dash(job.instance.as_deref())),
        ("ended", instant_or_dash(job.ended_at)),
    ];
    output::table(out, &[], facts.map(|(name, value)| vec![name.to_owned(), value]))?;
    writeln!(out)?;
    let counts = ExecutionState::ALL.map(|state| vec![state.word().to_owned(), row.count(state).to_string()]);
    output::table(out, &["STATE", "EXECUTIONS"], counts)?;
    Ok(())
}

pub(super) fn executions(store: &Store, args: &ExecutionsArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let filter = ExecutionFilter { state: args.state, device: args.device.clone(), after: None };
    let rows = store.job_executions(&args.job, &filter, args.limit)?;
    if args.json {
        output::json(out, &rows.iter().map(ExecutionRow::json).collect())?;
        return Ok(());
    }
    let lines = rows.iter().map(|row| {
        vec![
            row.device.clone(),
            row.state.clone(),
            if row.canary { "canary".to_owned() } else { "-".to_owned() },
            or_dash(row.command()),
            instant_or_dash(row.begun_at),
            instant_or_dash(row.ended_at),
            or_dash(row.reason.as_deref()),
        ]
    });
    output::table(out, &["DEVICE", "STATE", "", "COMMAND", "BEGUN", "ENDED", "REASON"], lines)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_can_be_asked_for() {
        let jobs = JobStateArg::value_variants().iter().filter_map(|arg| arg.state()).count();
        assert_eq!(jobs, JobState::ALL.len());
        let parsed = ExecutionState::ALL.iter().filter_map(|state| ExecutionState::from_str(state.word(), false).ok());
        let executions = parsed.count();
        assert_eq!(executions, ExecutionState::ALL.len());
    }
}
