//! The composition root: every channel, thread and task of the daemon. What hangs together is started together: [`ingest`] up to the
//! journal, [`storing`] from there to the database, [`outgoing`] what tidegate says by itself.

mod bounds;
mod error;
mod ingest;
mod live;
mod outgoing;
mod shutdown;
mod storing;

use std::net::SocketAddr;
use std::sync::mpsc::{SyncSender, sync_channel};

use tokio::sync::{mpsc, oneshot, watch};

use bounds::{journal_options, max_packet};
pub use error::BridgeError;
use ingest::Ingest;
use outgoing::Outgoing;
use shutdown::Stop;
use storing::{Access, Storing};

use crate::alert::announcer::announcer;
use crate::carrier::bell::Bells;
use crate::catalog::Declared;
use crate::config::{self, Config, Endpoint};
use crate::deafness;
use crate::errands::errands;
use crate::health::Health;
use crate::http;
use crate::journal::{Inbox, Journal};
use crate::latency::LatencyRecorder;
use crate::listening::Listening;
use crate::metrics::Metrics;
use crate::mqtt::Link;
use crate::reload::Request;
use crate::state_dir::StateDir;
use crate::store::Store;
use crate::supervise::Crew;
use crate::unanswered::{self, Unanswered};

/// Publishes between whoever makes them and the broker's connection; there they have a window of their own.
const PARCELS_WAITING: usize = 16;

/// Threads for the tasks, beside those that the daemon starts by itself. One session needs no more than one, which then neither hands
/// it over nor sleeps so often: with two, a message costs a sixth more, and a fifth fewer are stored (docs/performance.md). The embedded
/// broker has a session for each device.
pub fn async_threads(config: &Config) -> usize {
    match config.broker.endpoint {
        Endpoint::Remote { .. } => 1,
        Endpoint::Embedded { .. } => std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1)),
    }
}

/// A running daemon.
pub struct Bridge {
    config: Config,
    crew: Crew,
    inbox: Inbox,
    requests: SyncSender<Request>,
    /// Who is told of alerts, for the notifier.
    channels: watch::Sender<Vec<config::Notify>>,
    /// What is asked of commands, for the courier and the HTTP API.
    commands: watch::Sender<config::Commands>,
    stop: Stop,
    /// What the broker was told at the start, bytes.
    max_packet: usize,
    pub metrics: Metrics,
    pub latency: LatencyRecorder,
    /// Where the embedded broker listens, if there is one.
    pub broker_addr: Option<SocketAddr>,
    pub http_addr: Option<SocketAddr>,
    /// Held for the daemon's life.
    _state_dir: StateDir,
}

impl Bridge {
    /// Starts everything. Messages are taken and journalled at once, whether or not the database answers.
    ///
    /// # Errors
    /// What can't be had at the start: the state directory, the HTTP address, the journal, the broker's address.
    pub async fn start(config: Config, declared: Declared) -> Result<Bridge, BridgeError> {
        let (metrics, latency, stop) = (Metrics::new(), LatencyRecorder::default(), Stop::default());
        let max_packet = max_packet(&config);
        let mut crew = Crew::default();

        let state_dir = StateDir::open(&config.instance.state_dir)?;
        let (link, link_watch) = watch::channel(Link::Connecting);
        let (commands, commands_watch) = watch::channel(config.commands.clone());
        let listener = match config.http.listen {
            Some(address) => Some(http::bind(address).await?),
            None => None,
        };
        let http_addr = listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let journal = Journal::open(journal_options(&config), metrics.clone())?;
        let (inbox, progress, access) = (journal.inbox(), journal.progress(), Access::of(&journal));
        let listening = Listening::new(&config)?;
        let store = Store::open(&config.database)?;

        if let (Some(listener), Some(address)) = (listener, http_addr) {
            let health = Health::new(link_watch.clone(), journal.health(), progress.clone(), metrics.clone());
            let settings = (commands_watch.clone(), config.twins.clone());
            let api = http::api::Api::new(&config.http, address, &config.database, settings, metrics.clone())?;
            crew.task("http", http::serve(listener, health, api, metrics.clone(), stop.http.clone()));
        }
        let deaf = deafness::watch(listening.ears(), link_watch.clone(), stop.intake.clone(), metrics.clone());
        crew.task("deafness", deaf);
        let unanswered = Unanswered::default();
        crew.task("unanswered", unanswered::watch(unanswered.clone(), stop.http.clone(), metrics.clone()));

        let (requests, requests_in) = sync_channel(1);
        let (errands, errands_in) = errands(config.sparkplug.rebirth_every, metrics.clone());
        let (mut announcer, announced) = announcer(metrics.clone());
        let (bells, (courier_begins, courier_begun)) = (Bells::default(), oneshot::channel());
        let (twins_begin, twins_begun) = oneshot::channel();
        let (jobs_begin, jobs_begun) = oneshot::channel();
        let (parcels_out, parcels) = mpsc::channel(PARCELS_WAITING);
        let broker_addr = Ingest {
            config: &config,
            max_packet,
            inbox: &inbox,
            listening: listening.clone(),
            errands: errands_in,
            parcels,
            link,
            link_watch: link_watch.clone(),
            metrics: &metrics,
            stop: &stop.intake,
        }
        .start(journal, &mut crew)
        .await?;
        let channels = Outgoing {
            config: &config,
            store: &store,
            progress: &progress,
            link_watch,
            parcels: parcels_out,
            bells: bells.clone(),
            courier_begun,
            twins_begun,
            jobs_begun,
            commands: commands_watch,
            announced,
            announcer: &mut announcer,
            stop: &stop,
            metrics: &metrics,
        }
        .start(&mut crew)?;
        Storing {
            config: &config,
            declared,
            store,
            journal: access,
            requests: requests_in,
            listening,
            unanswered,
            announcer,
            begins: [courier_begins, twins_begin, jobs_begin],
            errands,
            bells,
            stop: &stop,
            metrics: &metrics,
            latency: &latency,
        }
        .start(&mut crew)?;

        Ok(Bridge {
            config,
            crew,
            inbox,
            requests,
            channels,
            commands,
            stop,
            max_packet,
            metrics,
            latency,
            broker_addr,
            http_addr,
            _state_dir: state_dir,
        })
    }

    /// Pending until a thread or task ends that should not have; says which and why.
    pub async fn failed(&mut self) -> BridgeError {
        let exit = self.crew.failure().await;
        let why = exit.outcome.err().unwrap_or_else(|| "it ended unasked".to_owned());
        if self.stop.fenced.is_cancelled() {
            return BridgeError::Fenced { why };
        }
        BridgeError::Worker { name: exit.name, why }
    }
}
