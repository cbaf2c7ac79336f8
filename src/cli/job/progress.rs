//! Whoever waits for a job sees how far it is.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::super::output;
use crate::job::ExecutionState;
use crate::store::Store;
use crate::store::jobs::JobRow;

/// How often whoever waits looks.
const LOOK: Duration = Duration::from_millis(200);
/// Between lines where there is no terminal.
const SAID_EVERY: Duration = Duration::from_secs(5);
/// When it is said that no daemon has looked yet.
const UNHEARD: Duration = Duration::from_secs(5);

/// A bar on a terminal, else a line now and then; on stderr.
enum Progress {
    Bar(ProgressBar),
    Lines(Option<Instant>),
}

/// Looks until the job has ended, or `wait` is over. Succeeds where every execution has.
pub(super) fn await_end(
    store: &Store,
    id: &str,
    wait: Option<Duration>,
    as_json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let (begun, mut progress, mut unheard) = (Instant::now(), None, false);
    let row = loop {
        let row = store.job_now(id)?;
        progress.get_or_insert_with(|| Progress::begin(&row)).at(&row);
        if row.job.ended_at.is_some() || wait.is_some_and(|wait| begun.elapsed() >= wait) {
            break row;
        }
        if row.job.instance.is_none() && begun.elapsed() > UNHEARD && !unheard {
            unheard = true;
            eprintln!("tidegate: no daemon has looked at it yet");
        }
        std::thread::sleep(LOOK);
    };
    if let Some(Progress::Bar(bar)) = progress {
        bar.abandon();
    }
    match as_json {
        true => output::json(out, &row.json())?,
        false => writeln!(out, "job {} is {}: {}", row.job.name, row.job.state, told(&row))?,
    }
    let succeeded = row.count(ExecutionState::Succeeded) == i64::from(row.job.devices);
    if row.job.ended_at.is_none() {
        eprintln!("tidegate: the job has not ended; see `tidegate job show {}`", row.job.name);
    } else if let Some(reason) = row.job.reason.as_deref().filter(|_| !succeeded) {
        eprintln!("tidegate: {reason}; see `tidegate job executions {}`", row.job.name);
    }
    Ok(if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How many executions are in each state in which there are any.
fn told(row: &JobRow) -> String {
    let counts = ExecutionState::ALL.into_iter().map(|state| (state, row.count(state))).filter(|(_, count)| *count > 0);
    counts.map(|(state, count)| format!("{count} {}", state.word())).collect::<Vec<_>>().join(", ")
}

impl Progress {
    fn begin(row: &JobRow) -> Progress {
        if !std::io::stderr().is_terminal() {
            return Progress::Lines(None);
        }
        let bar = ProgressBar::new(u64::try_from(row.job.devices).unwrap_or(0));
        let style = ProgressStyle::with_template("{wide_bar} {human_pos} of {human_len}, {eta} left: {msg}");
        Progress::Bar(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
    }

    fn at(&mut self, row: &JobRow) {
        match self {
            Progress::Bar(bar) => {
                bar.set_position(u64::try_from(row.ended()).unwrap_or(0));
                bar.set_message(format!("{}, {}", row.job.state, told(row)));
            }
            Progress::Lines(said) if said.is_none_or(|said| said.elapsed() >= SAID_EVERY) => {
                *said = Some(Instant::now());
                eprintln!("{} of {} have ended: {}, {}", row.ended(), row.job.devices, row.job.state, told(row));
            }
            Progress::Lines(_) => {}
        }
    }
}
