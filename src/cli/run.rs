//! `tidegate run`: the daemon, until SIGTERM or SIGINT; SIGHUP reloads.
//!
//! Exit codes: 0 told to stop; 1 failed, and may be started again; 2 configuration refused; 3 another tidegate has taken the
//! instance over, and a new start would only take it back.

use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::check::Checked;
use super::{Place, logging};
use crate::bridge::{self, Bridge, BridgeError};
use crate::config::Fault;
use crate::supervise::Systemd;

/// Another tidegate has this instance's position.
const EXIT_FENCED: u8 = 3;

pub(super) fn run(place: &Place) -> anyhow::Result<ExitCode> {
    let Checked { config, declared, warnings, .. } = place.load()?;
    logging::start(&config.log)?;
    tell(&warnings);
    let workers = bridge::async_threads(&config);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    let outcome = runtime.block_on(async {
        let bridge = Bridge::start(config, declared).await?;
        serve(bridge, place).await
    });
    // Whatever did not end in time must not hold the process.
    runtime.shutdown_background();
    outcome
}

/// Says what works but should be put right.
fn tell(warnings: &[Fault]) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}

struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Signals> {
        Ok(Signals {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }
}

enum Event {
    Reload,
    Reloaded(Result<(), String>),
    Stop(&'static str),
    Failed(BridgeError),
}

async fn serve(mut bridge: Bridge, place: &Place) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    tracing::info!(broker = ?bridge.broker_addr, http = ?bridge.http_addr, "tidegate {} runs", env!("CARGO_PKG_VERSION"));
    Systemd::ready("running");
    let mut reload: Option<oneshot::Receiver<Result<(), String>>> = None;
    let watchdog = Systemd::feed_watchdog();
    tokio::pin!(watchdog);
    let failure = loop {
        let event = tokio::select! {
            _ = signals.hangup.recv() => Event::Reload,
            _ = signals.interrupt.recv() => Event::Stop("SIGINT"),
            _ = signals.terminate.recv() => Event::Stop("SIGTERM"),
            error = bridge.failed() => Event::Failed(error),
            told = settled(&mut reload) => Event::Reloaded(told),
            () = &mut watchdog => continue,
        };
        match event {
            Event::Reload => reload = begin_reload(&mut bridge, place).or(reload),
            Event::Reloaded(told) => {
                reload = None;
                end_reload(told);
            }
            Event::Stop(signal) => {
                tracing::info!(signal, "stopping: what is journalled is drained first");
                break None;
            }
            Event::Failed(error) => {
                tracing::error!(%error, "a part of tidegate ended; stopping the rest");
                break Some(error);
            }
        }
    };
    Systemd::stopping();
    let stopped = tokio::select! {
        stopped = bridge.stop() => stopped,
        _ = signals.interrupt.recv() => anyhow::bail!("interrupted again: stopped at once; the journal keeps what is not yet committed"),
    };
    if let Some(error) = failure {
        if matches!(error, BridgeError::Fenced { .. }) {
            eprintln!("tidegate: {error}");
            return Ok(ExitCode::from(EXIT_FENCED));
        }
        return Err(error.into());
    }
    stopped?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

fn begin_reload(bridge: &mut Bridge, place: &Place) -> Option<oneshot::Receiver<Result<(), String>>> {
    Systemd::reloading();
    let begun = match place.load() {
        Ok(Checked { config, declared, warnings, .. }) => {
            tell(&warnings);
            bridge.reload(config, declared)
        }
        Err(faults) => {
            bridge.metrics.reload_errors.inc();
            tracing::error!("the changed configuration is refused, the old one stays in force:\n{faults}");
            None
        }
    };
    if begun.is_none() {
        Systemd::ready("running; the last reload was refused");
    }
    begun
}

fn end_reload(told: Result<(), String>) {
    match told {
        Ok(()) => {
            tracing::info!("reloaded");
            Systemd::ready("running");
        }
        Err(error) => {
            tracing::error!(error, "the reload is refused, the old configuration stays in force");
            Systemd::ready("running; the last reload was refused");
        }
    }
}

/// What became of the reload under way; pending without one.
async fn settled(reload: &mut Option<oneshot::Receiver<Result<(), String>>>) -> Result<(), String> {
    match reload {
        Some(told) => told.await.unwrap_or_else(|_| Err("the catalog thread has ended".to_owned())),
        None => std::future::pending().await,
    }
}
