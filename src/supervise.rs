//! Starting, watching and ending the daemon's threads and tasks, and telling systemd.

use std::any::Any;
use std::fmt::Display;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Most threads and tasks of one daemon; its exits fit the channel.
const MAX_WORKERS: usize = 16;

/// How long after a worker that ended in good order the one that failed is waited for.
const CAUSE_TOLD: Duration = Duration::from_secs(1);

/// How one worker ended.
#[derive(Clone, Debug)]
pub struct Exit {
    pub name: &'static str,
    /// What went wrong, for a person.
    pub outcome: Result<(), String>,
}

/// The threads and tasks at work. None is detached: each one's end is reported here.
pub struct Crew {
    exits: mpsc::Receiver<Exit>,
    report: mpsc::Sender<Exit>,
    at_work: Vec<&'static str>,
    /// A worker that ended in good order, unasked.
    failed: Option<Exit>,
}

/// Why a worker could not be started.
#[derive(Debug, thiserror::Error)]
#[error("can't start the {name} thread: {cause}")]
pub struct SpawnError {
    name: &'static str,
    cause: std::io::Error,
}

impl Default for Crew {
    fn default() -> Self {
        let (report, exits) = mpsc::channel(MAX_WORKERS);
        Crew { exits, report, at_work: Vec::new(), failed: None }
    }
}

impl Crew {
    /// Starts a thread. A panic in it is an exit with an error, like any other.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn thread<E: Display>(
        &mut self,
        name: &'static str,
        body: impl FnOnce() -> Result<(), E> + Send + 'static,
    ) -> Result<(), SpawnError> {
        let report = self.report.clone();
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let outcome = match catch_unwind(AssertUnwindSafe(body)) {
                    Ok(outcome) => outcome.map_err(|error| error.to_string()),
                    Err(panic) => Err(format!("panicked: {}", panic_text(panic.as_ref()))),
                };
                // Nobody listens any more only when the daemon is past its deadline.
                let _ = report.blocking_send(Exit { name, outcome });
            })
            .map_err(|cause| SpawnError { name, cause })?;
        self.at_work.push(name);
        Ok(())
    }

    /// Starts a task on the current runtime.
    pub fn task<E: Display + Send + 'static>(
        &mut self,
        name: &'static str,
        body: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let report = self.report.clone();
        let work = tokio::spawn(body);
        self.at_work.push(name);
        tokio::spawn(async move {
            let outcome = match work.await {
                Ok(outcome) => outcome.map_err(|error| error.to_string()),
                Err(join) if join.is_panic() => Err(format!("panicked: {}", panic_text(join.into_panic().as_ref()))),
                Err(_) => Ok(()),
            };
            let _ = report.send(Exit { name, outcome }).await;
        });
    }

    /// The next worker to end; pending for ever when none is left.
    pub async fn next_exit(&mut self) -> Exit {
        match self.exits.recv().await {
            Some(exit) => {
                self.at_work.retain(|name| *name != exit.name);
                exit
            }
            None => std::future::pending().await,
        }
    }

    /// Pending until a worker ends; the failure behind it, where that is another's: a worker ends in good order for want
    /// of one that failed, and may be heard of first.
    pub async fn failure(&mut self) -> Exit {
        let mut exit = match self.failed.clone() {
            Some(exit) => exit,
            None => self.next_exit().await,
        };
        let deadline = Instant::now() + CAUSE_TOLD;
        while exit.outcome.is_ok() {
            // Kept: whoever waits here may give up and come again.
            self.failed = Some(exit.clone());
            match tokio::time::timeout_at(deadline, self.next_exit()).await {
                Ok(next) if next.outcome.is_err() => exit = next,
                Ok(_) => {}
                Err(_) => break,
            }
        }
        exit
    }

    /// Waits for these workers until `deadline`; returns the exits that came and the names that did not.
    pub async fn wait_for(&mut self, names: &[&'static str], deadline: Instant) -> (Vec<Exit>, Vec<&'static str>) {
        let mut exits = Vec::new();
        while self.at_work.iter().any(|name| names.contains(name)) {
            match tokio::time::timeout_at(deadline, self.next_exit()).await {
                Ok(exit) => exits.push(exit),
                Err(_) => break,
            }
        }
        let late = self.at_work.iter().copied().filter(|name| names.contains(name)).collect();
        (exits, late)
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("?")
}

/// What systemd is told (sd_notify(3)); nothing when it did not start us.
pub struct Systemd;

impl Systemd {
    /// Start-up is complete.
    pub fn ready(status: &str) {
        Systemd::tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// A reload begins; [`Systemd::ready`] ends it.
    pub fn reloading() {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => Systemd::tell(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!(%error, "no monotonic time for systemd"),
        }
    }

    pub fn stopping() {
        Systemd::tell(&[NotifyState::Stopping]);
    }

    /// Feeds the watchdog at half its period for as long as it is polled; for ever pending without one.
    pub async fn feed_watchdog() {
        let Some(period) = sd_notify::watchdog_enabled() else {
            return std::future::pending().await;
        };
        let mut tick = tokio::time::interval(period.max(Duration::from_millis(2)) / 2);
        loop {
            tick.tick().await;
            Systemd::tell(&[NotifyState::Watchdog]);
        }
    }

    fn tell(states: &[NotifyState]) {
        if let Err(error) = sd_notify::notify(states) {
            tracing::warn!(%error, "could not notify systemd");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_and_an_error_are_exits_with_words() {
        let mut crew = Crew::default();
        crew.thread("one", || -> Result<(), String> { panic!("disk on fire") }).unwrap();
        crew.task("two", async { Err::<(), _>("no route".to_owned()) });
        let deadline = Instant::now() + Duration::from_secs(30);
        let (mut exits, late) = crew.wait_for(&["one", "two"], deadline).await;
        exits.sort_by_key(|exit| exit.name);
        assert!(late.is_empty());
        assert_eq!(exits[0].outcome, Err("panicked: disk on fire".to_owned()));
        assert_eq!(exits[1].outcome, Err("no route".to_owned()));
    }

    #[tokio::test]
    async fn the_worker_that_failed_is_told_though_another_ended_before_it() {
        let mut crew = Crew::default();
        let (cause, effect) = tokio::sync::oneshot::channel::<()>();
        crew.task("pipeline", async { Ok::<(), String>(()) });
        crew.task("catalog", async {
            let _ = effect.await;
            Err::<(), _>("newer schema".to_owned())
        });
        // Given up once, and come again.
        assert!(tokio::time::timeout(Duration::from_millis(50), crew.failure()).await.is_err());
        drop(cause);
        let exit = crew.failure().await;
        assert_eq!((exit.name, exit.outcome), ("catalog", Err("newer schema".to_owned())));
    }

    #[tokio::test]
    async fn a_worker_past_the_deadline_is_named() {
        let mut crew = Crew::default();
        crew.task("stuck", std::future::pending::<Result<(), String>>());
        let (exits, late) = crew.wait_for(&["stuck"], Instant::now()).await;
        assert!(exits.is_empty());
        assert_eq!(late, ["stuck"]);
    }
}
