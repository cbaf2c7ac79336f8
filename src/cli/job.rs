//! `tidegate job create | firmware | list | show | executions | pause | resume | cancel`.

mod create;
mod list;
mod progress;

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::Place;

#[derive(Args, Debug)]
pub(super) struct JobArgs {
    #[command(subcommand)]
    action: JobAction,
}

#[derive(Debug, Subcommand)]
enum JobAction {
    /// Tell many devices to do something; a running daemon begins within a second
    Create(create::CreateArgs),
    /// Have many devices install firmware; each is done once it reports the version
    Firmware(create::FirmwareArgs),
    /// List jobs, the newest first; without --state those that have not ended
    List(list::ListArgs),
    /// Show a job, and how many of its executions are in each state
    Show {
        /// The job's name, its id or the beginning of that
        job: String,
        #[arg(long)]
        json: bool,
    },
    /// List what has become of a job on each device
    Executions(list::ExecutionsArgs),
    /// Have a job begin nothing until it is resumed; what is under way goes on
    Pause(ActArgs),
    /// Have a job that was paused go on
    Resume(ActArgs),
    /// Take a job back: nothing more begins, and what was not sent is taken back
    Cancel {
        #[command(flatten)]
        act: ActArgs,
        /// Wait no longer for what was sent, either; the devices may carry it out all the same
        #[arg(long)]
        sent: bool,
    },
}

#[derive(Args, Debug)]
struct ActArgs {
    /// The job's name, its id or the beginning of that
    job: String,
    /// Who wants it
    #[arg(long, env = "USER", hide_env_values = true, default_value = "somebody")]
    who: String,
}

pub(super) fn run(place: &Place, args: &JobArgs) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match &args.action {
        JobAction::Create(args) => return create::create(place, args, &mut out),
        JobAction::Firmware(args) => return create::firmware(place, args, &mut out),
        JobAction::List(args) => list::list(&place.reader()?, args, &mut out)?,
        JobAction::Show { job, json } => list::show(&place.reader()?, job, *json, &mut out)?,
        JobAction::Executions(args) => list::executions(&place.reader()?, args, &mut out)?,
        JobAction::Pause(act) => {
            place.store()?.pause_job(&act.job, &act.who)?;
            writeln!(out, "job {} is paused; what is under way goes on", act.job)?;
        }
        JobAction::Resume(act) => {
            place.store()?.resume_job(&act.job, &act.who)?;
            writeln!(out, "job {} goes on", act.job)?;
        }
        JobAction::Cancel { act, sent } => {
            place.store()?.cancel_job(&act.job, &act.who, *sent)?;
            writeln!(out, "job {} is canceled; what was sent may be carried out", act.job)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
