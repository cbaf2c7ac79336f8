//! The catalog thread: opens the database, then brings every changed configuration or catalog to the
//! pipeline, without a message lost or reordered.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::alert::Evaluator;
use crate::alert::desk::Desk;
use crate::backoff::{self, Backoff};
use crate::catalog::{Declared, Snapshot};
use crate::config::Config;
use crate::decode::memory::Memory;
use crate::journal::Progress;
use crate::listening::Listening;
use crate::message::Seq;
use crate::metrics::Metrics;
use crate::normalize::{NormalizeError, Normalizer};
use crate::notify::dispatch::Dispatcher;
use crate::pipeline::Reload;
use crate::presence::Observer;
use crate::store::{Store, StoreError};
use crate::unanswered::Unanswered;

/// How often the database is asked whether another program changed the catalog.
const LOOK: Duration = Duration::from_secs(1);
/// Between attempts at a database that does not answer, at least and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// The same at one that refuses tidegate: a server may lock out who asks too often.
const REFUSED_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// A reload of the files; already valid.
pub struct Request {
    pub config: Config,
    pub declared: Declared,
    /// Told when the pipeline has it, or why it never will.
    pub done: oneshot::Sender<Result<(), String>>,
}

/// What the pipeline starts from.
pub struct Opening {
    pub snapshot: Snapshot,
    /// What decoders remembered there.
    pub memory: Memory,
    /// The alert rules, with what they remembered there.
    pub evaluator: Evaluator,
    /// What is known of devices' connections there.
    pub observer: Observer,
    /// Who is told of alerts, with what that remembered there.
    pub dispatcher: Dispatcher,
    /// The last message that the database has.
    pub position: Seq,
}

/// Keeps the pipeline's catalog the database's.
pub struct CatalogKeeper {
    pub store: Store,
    pub config: Config,
    pub journal_id: String,
    /// Newest message in the journal when it was opened.
    pub journal_last: Seq,
    pub progress: Progress,
    pub opening: SyncSender<Opening>,
    /// Told once the database has its schema and catalog.
    pub opened: SyncSender<()>,
    pub requests: Receiver<Request>,
    pub reloads: SyncSender<Reload>,
    pub listening: Listening,
    pub unanswered: Unanswered,
    /// Looked after with each look at the database.
    pub desk: Desk,
    pub stop: CancellationToken,
    pub metrics: Metrics,
}

impl CatalogKeeper {
    /// Opens the database with what the files declare, lets the pipeline start, and serves reloads until
    /// nobody can ask for one any more, or `stop`.
    ///
    /// A database that refuses tidegate (a wrong password or certificate, a right not granted) is asked again ever more
    /// slowly, and each time it is said what to do: somebody can mend that at the database, and devices must not suffer
    /// meanwhile.
    ///
    /// # Errors
    /// What only another configuration or another version of tidegate mends, so that it must be started again anyway: a newer
    /// schema, a file that is no database, a URL that is none, a catalog that the database rejects.
    pub fn run(mut self, declared: Declared) -> Result<(), StoreError> {
        let Some(()) = self.persist("migrate", |keeper| keeper.store.migrate().map(|_| ()))? else { return Ok(()) };
        let Some(mut version) = self.persist("fill the catalog", |keeper| {
            keeper.fill(&declared)?;
            keeper.store.catalog_version()
        })?
        else {
            return Ok(());
        };
        // The database has it from now on.
        drop(declared);
        let Some(opening) = self.persist("read the catalog", CatalogKeeper::open)? else { return Ok(()) };
        self.metrics.database_connected.set(1);
        self.progress.committed(opening.position);
        tracing::info!(
            position = opening.position,
            templates = opening.snapshot.templates.len(),
            devices = opening.snapshot.devices.len(),
            rules = opening.snapshot.rules.len(),
            "database open"
        );
        self.desk.tell_amiss(&opening.snapshot.amiss, &self.store, &self.metrics);
        self.listening.learn(&opening.snapshot, &self.config);
        self.listening.change(&self.config);
        // A closed channel: the pipeline has ended already.
        let _ = self.opening.send(opening);
        let _ = self.opened.send(());
        while !self.stop.is_cancelled() {
            match self.requests.recv_timeout(LOOK) {
                Ok(request) => version = self.serve(request, version),
                Err(RecvTimeoutError::Timeout) => version = self.look(version),
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Tries until the database answers. None: told to stop first.
    fn persist<T>(
        &mut self,
        what: &'static str,
        mut attempt: impl FnMut(&mut Self) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let mut refused = Backoff::new(REFUSED_RETRY.0, REFUSED_RETRY.1);
        loop {
            let unanswered = self.unanswered.clone();
            let question = unanswered.ask(what);
            let outcome = attempt(self);
            drop(question);
            let error = match outcome {
                Ok(done) => return Ok(Some(done)),
                Err(error) if error.is_transient() || error.awaits_a_person() => error,
                Err(error) => return Err(error),
            };
            self.metrics.database_errors.inc();
            if self.stop.is_cancelled() {
                return Ok(None);
            }
            let wait = if error.is_transient() {
                let wait = backoff.next_delay();
                tracing::warn!(%error, retry_in = ?wait, "can't {what} yet; messages are journalled meanwhile");
                wait
            } else {
                let wait = refused.next_delay();
                tracing::error!(%error, retry_in = ?wait, "can't {what} until somebody mends this; messages are journalled meanwhile");
                wait
            };
            backoff::pause(wait, &self.stop);
        }
    }

    fn open(&mut self) -> Result<Opening, StoreError> {
        let instance = &self.config.instance.id;
        let found = self.store.position(instance, &self.journal_id)?;
        if let Some(other) = &found.replaced {
            tracing::warn!(
                journal = other.journal_id,
                position = other.seq,
                "the database knew another journal of this instance; the position begins anew with this one"
            );
        }
        let mut position = found.seq;
        if position > self.journal_last {
            // A journal restored from a copy: what it has must not be skipped. Rows that exist already stay single.
            tracing::warn!(
                position,
                journal_last = self.journal_last,
                "the database is ahead of the journal, as after restoring an old state directory; the journal is read from its beginning"
            );
            self.metrics.journal_rewinds.inc();
            self.store.rewind(instance, &self.journal_id, self.journal_last)?;
            position = 0;
        }
        let memory = self.store.memory(instance)?;
        let snapshot = self.store.snapshot()?;
        let evaluator = Evaluator::new(&snapshot, self.store.alert_states(instance)?);
        let mut evaluator = evaluator.keeping(self.config.database.duplicates);
        evaluator.recall_texts(&self.store.text_times(&evaluator.texts_wanted())?);
        evaluator.recall(&self.store.recent(&evaluator.wanted())?);
        let observer = Observer::new(&self.config.devices, &snapshot, self.store.presence(instance)?);
        let dispatcher = Dispatcher::new(&self.config, &snapshot.rules, self.store.notify_memory(instance)?);
        Ok(Opening { snapshot, memory, evaluator, observer, dispatcher, position })
    }

    /// Brings what the files declare into the database.
    fn fill(&self, declared: &Declared) -> Result<(), StoreError> {
        let report = self.store.reconcile(declared)?;
        report.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        Ok(())
    }

    fn serve(&mut self, request: Request, version: i64) -> i64 {
        let outcome = self.persist("reload", |keeper| {
            keeper.fill(&request.declared)?;
            keeper.hand_over(request.config.clone())
        });
        let (answer, version) = match outcome {
            Ok(Some((version, fit))) => (fit.map_err(|error| error.to_string()), version),
            Ok(None) => (Err("tidegate is stopping".to_owned()), version),
            Err(error) => (Err(error.to_string()), version),
        };
        if answer.is_err() {
            self.metrics.reload_errors.inc();
        }
        // Whoever asked may be gone.
        let _ = request.done.send(answer);
        version
    }

    /// Swaps the snapshot when another program has changed the catalog in the database, and takes what people ask of alerts.
    fn look(&mut self, version: i64) -> i64 {
        let unanswered = self.unanswered.clone();
        let _question = unanswered.ask("look for changes");
        let news = self.store.news(&self.config.instance.id);
        if let Ok((_, true)) = news
            && let Err(error) = self.desk.take_actions(&self.store, &self.config.instance.id)
        {
            tracing::debug!(%error, "could not take what is asked of alerts");
        }
        let found = match news {
            Ok((found, _)) if found == version => return version,
            Ok(_) => self.hand_over(self.config.clone()),
            Err(error) => Err(error),
        };
        match found {
            Ok((version, fit)) => {
                if let Err(error) = fit {
                    self.metrics.reload_errors.inc();
                    tracing::error!(%error, "the catalog was changed so that it can't be used; the old one stays in force");
                }
                version
            }
            Err(error) => {
                // The writer reports an outage; here the old snapshot simply stays.
                tracing::debug!(%error, "could not look for catalog changes");
                version
            }
        }
    }

    /// Brings the database's catalog and `config` to the pipeline, unless the two don't fit. Returns the catalog's version
    /// with that.
    fn hand_over(&mut self, config: Config) -> Result<(i64, Result<(), NormalizeError>), StoreError> {
        // The version and the position first: what slips in between is seen at the next look, or was learned twice.
        let version = self.store.catalog_version()?;
        let committed = self.progress.position();
        let snapshot = self.store.snapshot()?;
        if let Err(error) = Normalizer::check(&config, &snapshot) {
            return Ok((version, Err(error)));
        }
        tracing::info!(
            version,
            templates = snapshot.templates.len(),
            devices = snapshot.devices.len(),
            rules = snapshot.rules.len(),
            "catalog swapped"
        );
        self.desk.tell_amiss(&snapshot.amiss, &self.store, &self.metrics);
        self.listening.learn(&snapshot, &config);
        // A closed channel: the pipeline has ended and needs no catalog.
        let _ = self.reloads.send(Reload { config: config.clone(), snapshot, committed });
        self.listening.change(&config);
        self.config = config;
        Ok((version, Ok(())))
    }
}
