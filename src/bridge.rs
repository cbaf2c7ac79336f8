//! The composition root: every channel, thread and task of the daemon, in flow order.

mod ingest;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use ingest::Ingest;

use crate::alert::announcer::announcer;
use crate::alert::desk::Desk;
use crate::alert::publisher::{Publisher, Recorded};
use crate::alert::watch::Watch;
use crate::archive::Archive;
#[cfg(feature = "embedded-broker")]
use crate::broker;
use crate::catalog::Declared;
use crate::catch_up::CatchUp;
use crate::command::bell::Bell;
use crate::command::courier::Courier;
use crate::config::{self, Config, DatabaseUrl, Endpoint};
use crate::deafness;
use crate::errands::errands;
use crate::health::Health;
use crate::http;
use crate::journal::{self, Inbox, Journal};
use crate::latency::LatencyRecorder;
use crate::listening::Listening;
use crate::metrics::Metrics;
use crate::mqtt::Link;
use crate::normalize::Normalizer;
use crate::notify::{self, Notifier};
use crate::pipeline::{Pipeline, PipelineError};
use crate::presence;
use crate::reload::{CatalogKeeper, Request};
use crate::state_dir::StateDir;
use crate::store::{BatchWriter, Store, StoreError};
use crate::supervise::{Crew, Exit};
use crate::unanswered::{self, Unanswered};
use crate::upkeep::checkpoint::CheckpointLog;
use crate::upkeep::compression::Compression;
use crate::upkeep::partitions::Partitions;
use crate::upkeep::retention::Retention;
use crate::upkeep::rollups::Rollups;
use crate::upkeep::status::DeviceStatus;
use crate::upkeep::{Chore, Figures, SqliteCare, Upkeep};
use crate::writer::Writer;

/// Batches between pipeline and writer: one that waits, while one is committed and one is made.
const BATCHES_WAITING: usize = 2;
/// Publishes between whoever makes them and the broker's connection; there they have a window of their own.
const PARCELS_WAITING: usize = 16;
/// What waits for the journal at most: QoS 0 bursts; QoS 1 is bounded by the receive maximum, and where a broker ignores that
/// by four times as much.
const INBOX: journal::Bounds = journal::Bounds { messages: 65_536, bytes: 8 << 20 };
/// Packet ids that a sender has. Most give them in turn, so that after so many messages one comes back for another message.
const PACKET_IDS: usize = 65_535;
/// Newest messages kept in memory for the pipeline, bytes.
const TAIL_BYTES: usize = 8 << 20;
/// Payloads up to here reach the journal, and quarantine, though every source's max_payload is less: a broker discards
/// in silence what is larger than its client announced. Bytes.
const REFUSED_WITH_REASON: usize = 2 << 20;
/// Room for the topic and properties of a PUBLISH beside its payload, bytes.
const PACKET_OVERHEAD: usize = 128 << 10;
/// How long the broker may take to hear the last acknowledgements and the farewell: a little more than the session allows it.
const FAREWELL: Duration = Duration::from_secs(12);
/// What a commit under way gets once the drain deadline has passed.
const LAST_COMMIT: Duration = Duration::from_secs(5);

/// Why the daemon can't start, or had to stop. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    #[error(transparent)]
    StateDir(#[from] crate::state_dir::StateDirError),
    #[error(transparent)]
    Http(#[from] http::HttpError),
    #[error(transparent)]
    Journal(#[from] journal::JournalError),
    #[error(transparent)]
    Source(#[from] crate::source::SourceError),
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    #[error(transparent)]
    Spawn(#[from] crate::supervise::SpawnError),
    #[cfg(feature = "embedded-broker")]
    #[error(transparent)]
    Broker(#[from] broker::BrokerError),
    #[error("this tidegate is built without the embedded broker; set [broker] url to a broker's address")]
    NoEmbeddedBroker,
    #[error("the {name} stopped: {why}")]
    Worker { name: &'static str, why: String },
    /// Another tidegate has this instance's position. To start again would take it back, and so on without an end.
    #[error("the writer stopped: {why}")]
    Fenced { why: String },
}

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

/// The stages of a shutdown, in order.
#[derive(Clone, Default)]
struct Stop {
    /// No message is taken any more.
    intake: CancellationToken,
    /// A database that does not answer is not waited for.
    waiting: CancellationToken,
    /// What is not yet committed stays in the journal.
    draining: CancellationToken,
    http: CancellationToken,
    /// Not a stage: set by a writer that another tidegate has fenced off.
    fenced: CancellationToken,
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
        let listener = match config.http.listen {
            Some(address) => Some(http::bind(address).await?),
            None => None,
        };
        let http_addr = listener.as_ref().and_then(|listener| listener.local_addr().ok());

        let journal = Journal::open(journal_options(&config), metrics.clone())?;
        let (inbox, progress, journal_id) = (journal.inbox(), journal.progress(), journal.id().to_owned());
        let (pipeline_reader, writer_reader) = (journal.reader(), journal.reader());
        let journal_last = journal.last_seq();
        let listening = Listening::new(&config)?;
        let store = Store::open(&config.database)?;

        if let (Some(listener), Some(address)) = (listener, http_addr) {
            let health = Health::new(link_watch.clone(), journal.health(), progress.clone(), metrics.clone());
            let api =
                http::api::Api::new(&config.http, address, &config.database, config.commands.clone(), metrics.clone())?;
            crew.task("http", http::serve(listener, health, api, metrics.clone(), stop.http.clone()));
        }
        crew.task(
            "deafness",
            deafness::watch(listening.ears(), link_watch.clone(), stop.intake.clone(), metrics.clone()),
        );
        let unanswered = Unanswered::default();
        crew.task("unanswered", unanswered::watch(unanswered.clone(), stop.http.clone(), metrics.clone()));
        let (opening_out, opening) = sync_channel(1);
        let (opened_out, opened) = sync_channel(1);
        let (reloads_out, reloads) = sync_channel(1);
        let (requests, requests_in) = sync_channel(1);
        let (batches_out, batches) = sync_channel(BATCHES_WAITING);
        let (errands, errands_in) = errands(config.sparkplug.rebirth_every, metrics.clone());
        let (mut announcer, announced) = announcer(metrics.clone());
        let (bell, (courier_begins, courier_begun)) = (Bell::default(), oneshot::channel());
        let courier_link = link_watch.clone();
        let (parcels_out, parcels) = mpsc::channel(PARCELS_WAITING);

        let keeper = CatalogKeeper {
            store: store.clone(),
            config: config.clone(),
            journal_id: journal_id.clone(),
            journal_last,
            progress: progress.clone(),
            opening: opening_out,
            opened: opened_out,
            requests: requests_in,
            reloads: reloads_out,
            listening: listening.clone(),
            unanswered: unanswered.clone(),
            desk: Desk::new(inbox.clone()),
            stop: stop.waiting.clone(),
            metrics: metrics.clone(),
        };
        let broker_addr = Ingest {
            config: &config,
            max_packet,
            inbox: &inbox,
            listening,
            errands: errands_in,
            parcels,
            link,
            link_watch,
            metrics: &metrics,
            stop: &stop.intake,
        }
        .start(journal, &mut crew)
        .await?;
        let notices = parcels_out.clone();
        let courier = Courier {
            store: store.clone(),
            instance: config.instance.id.clone(),
            settings: config.commands.clone(),
            parcels: parcels_out.clone(),
            link: courier_link,
            bell: bell.clone(),
            begun: courier_begun,
            closing: stop.intake.clone(),
            stop: stop.http.clone(),
            metrics: metrics.clone(),
        };
        crew.task("courier", courier.run());
        if store.tells_of_commands() {
            let (store, bell, stop, metrics) = (store.clone(), bell.clone(), stop.waiting.clone(), metrics.clone());
            crew.thread("command ear", move || {
                let failed = || {
                    metrics.command_errors.inc();
                };
                store.hear_commands(&stop, || bell.ring(), failed);
                Ok::<(), StoreError>(())
            })?;
        }
        let publisher = Publisher {
            announced,
            parcels: parcels_out,
            record: Arc::new(Recorded { store: store.clone(), instance: config.instance.id.clone() }),
            committed: {
                let progress = progress.clone();
                Box::new(move || progress.position())
            },
            forgetful: matches!(config.broker.endpoint, Endpoint::Embedded { .. }),
            stop: stop.http.clone(),
            metrics: metrics.clone(),
        };
        crew.task("alert publisher", publisher.run());
        let (orders, begun) = announcer.notify();
        let (channels_out, channels) = watch::channel(config.notify.clone());
        let notifier = Notifier {
            orders,
            begun,
            channels,
            parcels: notices,
            record: Arc::new(notify::Recorded { store: store.clone(), instance: config.instance.id.clone() }),
            committed: {
                let progress = progress.clone();
                Box::new(move || progress.position())
            },
            stop: stop.http.clone(),
            metrics: metrics.clone(),
        };
        crew.task("notifier", notifier.run());
        crew.thread("catalog", move || keeper.run(declared))?;
        crew.thread("pipeline", {
            let (config, metrics, stop) = (config.clone(), metrics.clone(), stop.draining.clone());
            let inbox = inbox.clone();
            move || -> Result<(), PipelineError> {
                let Ok(opening) = opening.recv() else { return Ok(()) };
                announcer.begin();
                // The courier ends with the daemon only.
                let _ = courier_begins.send(());
                let normalizer = Normalizer::new(&config, &opening.snapshot, opening.memory, metrics.clone())?;
                let position = opening.position;
                let (reader, batches, batch_max) = (pipeline_reader, batches_out, config.database.batch_max);
                let observer = opening.observer;
                let presence =
                    presence::Watch { observer, inbox: inbox.clone(), metrics: metrics.clone(), ticked: None };
                let (evaluator, dispatcher) = (opening.evaluator, opening.dispatcher);
                let metrics_of = metrics.clone();
                let watch = Watch {
                    evaluator,
                    dispatcher,
                    announcer,
                    inbox,
                    metrics: metrics_of,
                    ticking: None,
                    dispatched: 0,
                };
                Pipeline {
                    normalizer,
                    reader,
                    position,
                    batches,
                    ahead: Default::default(),
                    batch_max,
                    reloads,
                    watch,
                    presence,
                    errands,
                    stop,
                    metrics,
                }
                .run()
            }
        })?;
        let upkeep = Upkeep::new(store.clone(), chores(&config, &metrics), stop.waiting.clone(), metrics.clone());
        crew.thread("upkeep", move || upkeep.run(&opened))?;
        let writer = Writer {
            batches,
            rows: BatchWriter::new(store.clone(), &config.instance.id, &journal_id, metrics.clone()),
            store,
            reader: writer_reader,
            progress,
            batch_max: config.database.batch_max,
            quarantine_max: config.quarantine.max_events,
            unanswered,
            stop: stop.waiting.clone(),
            metrics: metrics.clone(),
            latency: latency.clone(),
            catch_up: CatchUp::new(std::time::Instant::now(), journal_last),
            bell,
        };
        let fenced = stop.fenced.clone();
        crew.thread("writer", move || {
            writer.run().inspect_err(|error| {
                if matches!(error, StoreError::Fenced { .. }) {
                    fenced.cancel();
                }
            })
        })?;

        Ok(Bridge {
            config,
            crew,
            inbox,
            requests,
            channels: channels_out,
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

    /// Brings a changed configuration and catalog to the running daemon; names what can't change live.
    /// The receiver is told when it is in force.
    pub fn reload(&mut self, config: Config, declared: Declared) -> Option<oneshot::Receiver<Result<(), String>>> {
        for section in fixed_sections_changed(&self.config, &config) {
            tracing::warn!(section, "a change in this section takes effect at the next start");
        }
        if max_packet(&config) > self.max_packet {
            tracing::warn!(
                max_packet = self.max_packet,
                "a source's max_payload is larger than any at the start; until the next start the broker keeps back what does \
                 not fit the packet size it was told then"
            );
        }
        let mut live = self.config.clone();
        live.sources = config.sources;
        live.devices = config.devices;
        live.metrics = config.metrics;
        live.time = config.time;
        live.limits = config.limits;
        live.catalog = config.catalog;
        live.notify = config.notify;
        live.on_call = config.on_call;
        live.escalations = config.escalations;
        let (done, told) = oneshot::channel();
        match self.requests.try_send(Request { config: live.clone(), declared, done }) {
            Ok(()) => {
                self.channels.send_replace(live.notify.clone());
                self.config = live;
                Some(told)
            }
            Err(_) => {
                self.metrics.reload_errors.inc();
                tracing::error!("a reload is still waiting for the database; try again when it is back");
                None
            }
        }
    }

    /// Stops in stages: intake, journal, pipeline and writer up to `instance.drain_timeout`, HTTP.
    ///
    /// # Errors
    /// When a worker failed on the way. Messages left in the journal are no error: the next start goes on with them.
    pub async fn stop(mut self) -> Result<(), BridgeError> {
        let deadline = Instant::now() + self.config.instance.drain_timeout;
        let mut exits = Vec::new();
        self.stop.intake.cancel();
        let intake = ["broker session", "host state", "embedded broker", "deafness"];
        let (ended, late) = self.crew.wait_for(&intake, Instant::now() + FAREWELL).await;
        exits.extend(ended);
        warn_late(&late);

        self.inbox.close();
        drop(self.requests);
        self.stop.waiting.cancel();
        let threads = ["journal", "catalog", "pipeline", "writer", "upkeep", "command ear"];
        let (ended, late) = self.crew.wait_for(&threads, deadline).await;
        exits.extend(ended);
        if !late.is_empty() {
            tracing::warn!("the drain deadline has passed; what is left stays in the journal for the next start");
            self.stop.draining.cancel();
            let (ended, late) = self.crew.wait_for(&threads, Instant::now() + LAST_COMMIT).await;
            exits.extend(ended);
            warn_late(&late);
        }

        self.stop.http.cancel();
        let last = ["http", "unanswered", "alert publisher", "notifier", "courier"];
        let (ended, _) = self.crew.wait_for(&last, Instant::now() + Duration::from_secs(1)).await;
        exits.extend(ended);
        first_failure(exits)
    }
}

/// Bytes: the largest payload that any source takes, or what is still taken to be refused with its reason, and room
/// beside it.
fn max_packet(config: &Config) -> usize {
    let largest = config.sources.iter().map(|source| source.max_payload).max().unwrap_or(0);
    // The journal must be able to hold it.
    let half = usize::try_from(config.journal.max_size / 2).unwrap_or(usize::MAX);
    largest.max(REFUSED_WITH_REASON.min(half)).saturating_add(PACKET_OVERHEAD)
}

/// Messages among which a redelivery is looked for. Not the receive maximum alone, since mosquitto 2.0.11 has more than that
/// outstanding once acknowledgements flow; and of one sender only half of its packet ids, lest the next message of an id,
/// with the same topic and payload, be taken for the one before it. The embedded broker has many senders.
fn redelivery_window(broker: &config::Broker) -> usize {
    match broker.endpoint {
        Endpoint::Remote { .. } => usize::from(broker.receive_maximum).max(PACKET_IDS / 2),
        Endpoint::Embedded { .. } => PACKET_IDS,
    }
}

/// What upkeep does, the urgent first.
fn chores(config: &Config, metrics: &Metrics) -> Vec<Box<dyn Chore>> {
    let archive = config.archive.dir.clone().map(Archive::new);
    let mut chores: Vec<Box<dyn Chore>> = vec![
        Box::new(Partitions::new(config.time.max_future)),
        Box::new(Rollups::new(config.rollups.clone(), config.retention.raw, metrics.clone())),
        Box::new(Retention::new(&config.retention, archive, config.rollups.enabled, metrics.clone())),
    ];
    chores.push(Box::new(DeviceStatus::new(metrics.clone())));
    if matches!(config.database.url, DatabaseUrl::Sqlite(_)) {
        chores.push(Box::new(CheckpointLog::new(metrics.clone())));
    }
    if let Some(after) = config.retention.compress_after {
        chores.push(Box::new(Compression::new(after, metrics.clone())));
    }
    chores.extend(Figures::new(config, metrics.clone()).map(|chore| Box::new(chore) as Box<dyn Chore>));
    chores.extend(SqliteCare::new(config, metrics.clone()).map(|chore| Box::new(chore) as Box<dyn Chore>));
    chores
}

fn journal_options(config: &Config) -> journal::Options {
    journal::Options {
        dir: config.instance.state_dir.clone(),
        max_size: config.journal.max_size,
        retain: config.journal.retain,
        sync: config.journal.sync,
        redelivery_window: redelivery_window(&config.broker),
        inbox: INBOX,
        tail_bytes: TAIL_BYTES,
    }
}

fn warn_late(names: &[&'static str]) {
    for name in names {
        tracing::warn!(name, "did not end in time");
    }
}

fn first_failure(exits: Vec<Exit>) -> Result<(), BridgeError> {
    for exit in exits {
        if let Err(why) = exit.outcome {
            return Err(BridgeError::Worker { name: exit.name, why });
        }
    }
    Ok(())
}

/// Sections whose change needs a restart.
fn fixed_sections_changed(old: &Config, new: &Config) -> Vec<&'static str> {
    let compared = [
        ("instance", old.instance == new.instance),
        ("broker", old.broker == new.broker),
        ("database", old.database == new.database),
        ("journal", old.journal == new.journal),
        ("sparkplug", old.sparkplug == new.sparkplug),
        ("quarantine", old.quarantine == new.quarantine),
        ("commands", old.commands == new.commands),
        ("retention", old.retention == new.retention),
        ("archive", old.archive == new.archive),
        ("rollups", old.rollups == new.rollups),
        ("figures", old.figures == new.figures),
        ("maintenance", old.maintenance == new.maintenance),
        ("http", old.http == new.http),
        ("log", old.log == new.log),
    ];
    compared.into_iter().filter(|(_, same)| !same).map(|(section, _)| section).collect()
}
