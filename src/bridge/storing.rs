//! The way from the journal to the database: catalog, pipeline, writer and upkeep, a thread each.

use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;

use tokio::sync::oneshot;

use super::BridgeError;
use super::shutdown::Stop;
use crate::alert::announcer::Announcer;
use crate::alert::desk::Desk;
use crate::alert::watch::Watch;
use crate::carrier::bell::Bells;
use crate::catalog::Declared;
use crate::catch_up::CatchUp;
use crate::config::Config;
use crate::errands::Errands;
use crate::journal::{Inbox, Journal, Progress, Reader};
use crate::latency::LatencyRecorder;
use crate::listening::Listening;
use crate::message::Seq;
use crate::metrics::Metrics;
use crate::normalize::Normalizer;
use crate::pipeline::{Pipeline, PipelineError};
use crate::presence;
use crate::reload::{CatalogKeeper, Request};
use crate::store::{BatchWriter, Store, StoreError};
use crate::supervise::Crew;
use crate::unanswered::Unanswered;
use crate::upkeep::{self, Upkeep};
use crate::writer::Writer;

/// Batches between pipeline and writer: one that waits, while one is committed and one is made.
const BATCHES_WAITING: usize = 2;

/// What they need of the journal, whose thread takes it.
pub(super) struct Access {
    inbox: Inbox,
    progress: Progress,
    id: String,
    last: Seq,
    for_pipeline: Reader,
    for_writer: Reader,
}

impl Access {
    pub(super) fn of(journal: &Journal) -> Access {
        Access {
            inbox: journal.inbox(),
            progress: journal.progress(),
            id: journal.id().to_owned(),
            last: journal.last_seq(),
            for_pipeline: journal.reader(),
            for_writer: journal.reader(),
        }
    }
}

/// Whatever stands between journal and database.
pub(super) struct Storing<'a> {
    pub config: &'a Config,
    pub declared: Declared,
    pub store: Store,
    pub journal: Access,
    pub requests: Receiver<Request>,
    pub listening: Listening,
    pub unanswered: Unanswered,
    pub announcer: Announcer,
    /// Tell the courier, the publisher of twins and the driver of jobs that the database was opened.
    pub begins: [oneshot::Sender<()>; 3],
    pub errands: Errands,
    pub bells: Bells,
    pub stop: &'a Stop,
    pub metrics: &'a Metrics,
    pub latency: &'a LatencyRecorder,
}

impl Storing<'_> {
    /// Starts its threads. They wait for the database by themselves.
    pub(super) fn start(self, crew: &mut Crew) -> Result<(), BridgeError> {
        let Storing { config, store, journal, stop, metrics, .. } = self;
        let (opening_out, opening) = sync_channel(1);
        let (opened_out, opened) = sync_channel(1);
        let (reloads_out, reloads) = sync_channel(1);
        let (batches_out, batches) = sync_channel(BATCHES_WAITING);
        let inbox = journal.inbox;
        let keeper = CatalogKeeper {
            store: store.clone(),
            config: config.clone(),
            journal_id: journal.id.clone(),
            journal_last: journal.last,
            progress: journal.progress.clone(),
            opening: opening_out,
            opened: opened_out,
            requests: self.requests,
            reloads: reloads_out,
            listening: self.listening,
            unanswered: self.unanswered.clone(),
            desk: Desk::new(inbox.clone()),
            stop: stop.waiting.clone(),
            metrics: metrics.clone(),
        };
        let declared = self.declared;
        crew.thread("catalog", move || keeper.run(declared))?;
        let (normalizing, reader) = ((config.clone(), metrics.clone()), journal.for_pipeline);
        let (mut announcer, errands, begins) = (self.announcer, self.errands, self.begins);
        let draining = stop.draining.clone();
        crew.thread("pipeline", move || -> Result<(), PipelineError> {
            let Ok(opening) = opening.recv() else { return Ok(()) };
            announcer.begin();
            for begins in begins {
                // Who is told ends with the daemon only.
                let _ = begins.send(());
            }
            let (config, metrics) = normalizing;
            let presence = presence::Watch {
                observer: opening.observer,
                inbox: inbox.clone(),
                metrics: metrics.clone(),
                ticked: None,
            };
            let watch = Watch {
                evaluator: opening.evaluator,
                dispatcher: opening.dispatcher,
                announcer,
                inbox,
                metrics: metrics.clone(),
                ticking: None,
                dispatched: 0,
            };
            Pipeline {
                normalizer: Normalizer::new(&config, &opening.snapshot, opening.memory, metrics.clone())?,
                reader,
                position: opening.position,
                batches: batches_out,
                ahead: Default::default(),
                batch_max: config.database.batch_max,
                reloads,
                watch,
                presence,
                errands,
                stop: draining,
                metrics,
            }
            .run()
        })?;
        let chores = upkeep::chores(config, metrics);
        let upkeep = Upkeep::new(store.clone(), chores, stop.waiting.clone(), metrics.clone());
        crew.thread("upkeep", move || upkeep.run(&opened))?;
        let writer = Writer {
            batches,
            rows: BatchWriter::new(store.clone(), &config.instance.id, &journal.id, metrics.clone()),
            store,
            reader: journal.for_writer,
            progress: journal.progress,
            batch_max: config.database.batch_max,
            quarantine_max: config.quarantine.max_events,
            unanswered: self.unanswered,
            stop: stop.waiting.clone(),
            metrics: metrics.clone(),
            latency: self.latency.clone(),
            catch_up: CatchUp::new(Instant::now(), journal.last),
            bells: self.bells,
        };
        let fenced = stop.fenced.clone();
        crew.thread("writer", move || {
            writer.run().inspect_err(|error| {
                if matches!(error, StoreError::Fenced { .. }) {
                    fenced.cancel();
                }
            })
        })?;
        Ok(())
    }
}
