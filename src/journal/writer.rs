//! The journal's thread: takes what has gathered, makes it durable as one group, then acknowledges it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::file::{JournalFile, Synchronous};
use super::group::{Group, MAX_BYTES, MAX_MESSAGES};
use super::place::{self, Place};
use super::progress::{Health, Progress, State, Told};
use super::redelivery::Redeliveries;
use super::tail::Tail;
use super::trim::{Holdings, Moment};
use super::{Acknowledge, Bounds, FILE_NAME, Inbox, JournalError, Reader, Submission, corrupt, wal};
use crate::backoff::Backoff;
use crate::clock;
use crate::config::Sync;
use crate::crash;
use crate::message::{Message, Seq};
use crate::metrics::{ByReason, Metrics};
use crate::time::UtcMicros;

/// Longest time without a look at what may be trimmed, and at whether the files are still in their place.
const MAX_IDLE: Duration = Duration::from_secs(2);
const MIN_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// Bytes written after which the write-ahead log is moved into the file.
const CHECKPOINT_BYTES: u64 = 4 << 20;
/// Frames in the write-ahead log, 4 KiB each, at which a checkpoint waits for the readers.
const LONG_LOG: u64 = 16 << 10;

/// How to open a journal.
#[derive(Clone, Debug)]
pub struct Options {
    /// The state directory; it exists, and no other process runs a journal in it.
    pub dir: PathBuf,
    /// Bytes of messages at which it is full; passed by less than one group.
    pub max_size: u64,
    /// How long messages stay once they are committed to the database.
    pub retain: Duration,
    /// When a message counts as durable. With an interval it is acknowledged after a commit that does not wait for
    /// the disk; a commit that does follows within the interval, and takes all before it along.
    pub sync: Sync,
    /// Messages above QoS 0 among which redeliveries are recognised: what may be unacknowledged at once.
    pub redelivery_window: usize,
    pub inbox: Bounds,
    /// Memory for the newest messages, bytes, about.
    pub tail_bytes: usize,
}

/// An open journal, until its thread [runs](Journal::run) it.
pub struct Journal {
    file: JournalFile,
    options: Options,
    metrics: Metrics,
    id: String,
    inbox: Inbox,
    tail: Arc<Tail>,
    progress: Progress,
    health: Health,
    redeliveries: Redeliveries,
    holdings: Holdings,
    last_seq: Seq,
    unsynced: Option<Instant>,
    since_checkpoint: u64,
    told: Told,
}

impl Journal {
    /// Opens the journal, makes it if there is none, and finds out where it ended. A file that SQLite can't read is
    /// set aside and a new journal, with a new id, takes its place.
    ///
    /// # Errors
    /// The file can't be opened or written, has a newer format, or is no journal.
    pub fn open(options: Options, metrics: Metrics) -> Result<Journal, JournalError> {
        place::finish(&options.dir)?;
        wal::inspect(&options.dir, &metrics);
        if let Some(cause) = corrupt::condemned(&options.dir) {
            corrupt::set_aside_file(&options.dir, &cause, &metrics)?;
        }
        match Journal::recover(options.clone(), metrics.clone()) {
            Err(error) if error.is_malformed() => {
                corrupt::set_aside_file(&options.dir, &error.to_string(), &metrics)?;
                Journal::recover(options, metrics)
            }
            outcome => outcome,
        }
    }

    fn recover(options: Options, metrics: Metrics) -> Result<Journal, JournalError> {
        let mut file = JournalFile::open(&options.dir)?;
        let Some(id) = file.meta("id")? else { return Err(JournalError::Foreign { path: file.path().to_owned() }) };
        // Besides its use, this commit reaches the disk and takes along what a killed process had written but not
        // yet synced: its messages are recognised as stored from now on, so they must be durable.
        file.set_meta("max_size", &options.max_size.to_string())?;
        let holdings = Holdings::recover(&mut file, options.max_size, options.retain)?;
        let (last_seq, last_stamp) =
            holdings.newest.map_or((0, UtcMicros(0)), |newest| (newest.last, newest.received_to));
        let redeliveries = Redeliveries::recall(&mut file, last_seq, options.redelivery_window)?;
        if options.sync != Sync::Always {
            file.set_synchronous(Synchronous::Normal)?;
        }
        let place = Place::of(&options.dir)?.ok_or_else(|| displaced(&options.dir))?;
        let tail = Arc::new(Tail::new(last_seq, options.tail_bytes, place));
        let inbox = Inbox::new(last_stamp, options.inbox, metrics.clone());
        let progress = Progress::new(Arc::clone(&tail), inbox.clone(), metrics.clone());
        metrics.journal_size.set(level(holdings.bytes()));
        tracing::info!(id, last_seq, bytes = holdings.bytes(), file = %file.path().display(), "the journal is open");
        Ok(Journal {
            file,
            options,
            metrics,
            id,
            inbox,
            tail,
            progress,
            health: Health::new(),
            redeliveries,
            holdings,
            last_seq,
            unsynced: None,
            since_checkpoint: 0,
            told: Told::default(),
        })
    }

    /// 32 hex digits, made with the journal: positions of another journal mean other messages.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The position given last; 0 if none was.
    pub fn last_seq(&self) -> Seq {
        self.last_seq
    }

    /// The way in.
    pub fn inbox(&self) -> Inbox {
        self.inbox.clone()
    }

    /// A new place to read from.
    pub fn reader(&self) -> Reader {
        Reader::new(self.options.dir.clone(), Arc::clone(&self.tail), self.metrics.clone())
    }

    /// For the writer, to say what is committed to the database.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// For those who ask whether the journal takes messages.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Gives later positions than `seq` from now on: where the database's position is ahead of this journal (it lost
    /// its end to a power cut, with an interval as `sync`), a position must not mean a second message.
    pub fn continue_after(&mut self, seq: Seq) {
        if seq > self.last_seq {
            tracing::warn!(
                journal = self.last_seq,
                database = seq,
                "the database is ahead of the journal, which has lost its end; positions go on after the database's"
            );
            self.last_seq = seq;
        }
    }

    /// The journal's thread: ends when the inbox is closed and drained. Without a timer: a group is what came while
    /// the one before was written. A write that fails is tried again, and nothing is acknowledged meanwhile.
    ///
    /// # Errors
    /// The file is malformed (the next open sets it aside), or writes still fail when the inbox is closed. What was not acknowledged then, the
    /// senders still have.
    pub fn run(mut self, acknowledge: Arc<dyn Acknowledge>) -> Result<(), JournalError> {
        let mut group = Group::default();
        // A group is let in whole while there is any room, so it must be small beside `max_size`.
        let group_bytes = usize::try_from(self.options.max_size / 8).unwrap_or(MAX_BYTES).min(MAX_BYTES);
        while let Some(submissions) = self.inbox.take(MAX_MESSAGES, group_bytes, self.idle()) {
            let gathered = submissions.len();
            self.gather(&mut group, submissions)?;
            if crash::has(crash::Mutation::AckBeforeFsync) {
                acknowledge.durable(&std::mem::take(&mut group.tokens));
            }
            match self.store(&mut group) {
                Ok(true) => {
                    if !group.tokens.is_empty() {
                        acknowledge.durable(&group.tokens);
                    }
                    self.inbox.settle(gathered);
                    // Only then: who is woken would take the processor from the acknowledgements on their way out.
                    if !group.frames.is_empty() {
                        self.tail.wake();
                    }
                }
                Ok(false) => {
                    self.abandon(&group, "journal_full");
                    return Ok(());
                }
                Err(error) => {
                    self.abandon(&group, "journal_failed");
                    return Err(error);
                }
            }
            group.clear();
            self.housekeep();
            // Where processors are scarce, whoever brings messages and takes acknowledgements gets its turn first, and the next group is larger
            // for it; where there is one to spare this is nothing.
            std::thread::yield_now();
        }
        self.stay_in_place()?;
        if self.unsynced.is_some() { self.sync() } else { Ok(()) }
    }

    fn gather(&mut self, group: &mut Group, submissions: Vec<Submission>) -> Result<(), JournalError> {
        for Submission { received_at, publish, token } in submissions {
            group.tokens.extend(token);
            if self.redeliveries.recognises(&publish) {
                self.metrics.redeliveries_recognised.inc();
                continue;
            }
            let seq = self.last_seq.saturating_add(1);
            self.redeliveries.remember(seq, &publish);
            group.push(Message { seq, received_at, publish })?;
            self.last_seq = seq;
        }
        Ok(())
    }

    /// Makes a group durable and visible, however often that takes. False: the inbox was closed while the journal
    /// was full.
    fn store(&mut self, group: &mut Group) -> Result<bool, JournalError> {
        let mut failures = 0_u32;
        let mut backoff = Backoff::new(MIN_BACKOFF, MAX_BACKOFF);
        let mut appended = false;
        while !group.messages.is_empty() {
            match self.try_store(group, &mut appended) {
                Ok(true) => {
                    self.enter(State::Working);
                    let first = group.messages.first().map(|message| message.received_at);
                    self.tail.publish(&mut group.messages);
                    if let Some(received_at) = first {
                        self.progress.appended(received_at);
                    }
                }
                Ok(false) => {
                    self.enter(State::Full);
                    if self.inbox.await_nudge(MAX_IDLE) {
                        return Ok(false);
                    }
                }
                Err(error) => {
                    self.metrics.journal_errors.inc();
                    self.enter(State::Failing);
                    failures = failures.saturating_add(1);
                    // Said at once, and about once a minute.
                    if failures % 12 == 1 {
                        tracing::error!(%error, failures, "the journal can't be written; nothing is acknowledged until it can");
                    }
                    if error.is_malformed() {
                        corrupt::condemn(&self.options.dir, &error);
                        return Err(error);
                    }
                    if self.inbox.await_close(backoff.next_delay()) {
                        return Err(error);
                    }
                }
            }
        }
        Ok(true)
    }

    /// One attempt, which goes on where the one before failed. False: the journal is full.
    fn try_store(&mut self, group: &Group, appended: &mut bool) -> Result<bool, JournalError> {
        if !*appended {
            if !self.make_room(group.frames.len() as u64)? {
                self.stay_in_place()?;
                return Ok(false);
            }
            self.append(group)?;
            *appended = true;
        }
        // After the commit: what is found in its place now was so when the group reached the disk.
        self.stay_in_place()?;
        Ok(true)
    }

    /// Sees that the next start would find what is committed; writes the journal anew if not.
    fn stay_in_place(&mut self) -> Result<(), JournalError> {
        let dir = &self.options.dir;
        if Place::of(dir)? == Some(self.tail.place()) {
            return Ok(());
        }
        let mut file = place::write_anew(&mut self.file, dir)?;
        // A commit makes the write-ahead log, whose place is watched too.
        file.set_meta("max_size", &self.options.max_size.to_string())?;
        if self.options.sync != Sync::Always {
            file.set_synchronous(Synchronous::Normal)?;
        }
        let place = Place::of(dir)?.ok_or_else(|| displaced(dir))?;
        self.file = file;
        self.tail.moved_to(place);
        self.metrics.journal_displaced.inc();
        tracing::error!(
            file = %self.file.path().display(),
            "THE JOURNAL'S FILE WAS REMOVED OR REPLACED while it was in use. It was written anew and nothing is lost; \
             find out what touches the state directory, and keep it from doing so"
        );
        Ok(())
    }

    fn append(&mut self, group: &Group) -> Result<(), JournalError> {
        let Some(extent) = group.extent(self.holdings.newest.as_ref()) else { return Ok(()) };
        let started = Instant::now();
        crash::point("journal.before_commit");
        self.file.append(&extent, &group.frames)?;
        crash::point("journal.after_commit");
        self.metrics.journal_commit_duration.observe(started.elapsed().as_secs_f64());
        self.metrics.journal_groups.inc();
        self.metrics.journal_messages.inc_by(group.messages.len() as u64);
        self.holdings.appended(extent);
        self.metrics.journal_size.set(level(self.holdings.bytes()));
        self.since_checkpoint = self.since_checkpoint.saturating_add(extent.bytes).saturating_add(8192);
        if self.options.sync != Sync::Always {
            self.unsynced.get_or_insert(started);
        }
        Ok(())
    }

    /// Lets committed groups give way to `bytes` more. False: the journal is full.
    fn make_room(&mut self, bytes: u64) -> Result<bool, JournalError> {
        while self.trim_step(bytes)? {}
        Ok(!self.holdings.is_full(self.progress.position()))
    }

    /// What can wait until the acknowledgements are out.
    fn housekeep(&mut self) {
        if self.sync_due().is_some_and(|wait| wait.is_zero()) {
            let outcome = self.sync();
            self.note(outcome.map(|()| true));
        }
        let outcome = self.stay_in_place();
        self.note(outcome.map(|()| true));
        if self.since_checkpoint >= CHECKPOINT_BYTES {
            self.since_checkpoint = 0;
            let outcome = self.checkpoint();
            self.note(outcome);
        }
        let headroom = self.holdings.headroom();
        if self.holdings.due(self.moment(headroom)).is_some_and(|wait| wait.is_zero()) {
            let outcome = self.trim_step(headroom);
            self.note(outcome);
        }
    }

    fn note(&self, outcome: Result<bool, JournalError>) {
        if let Err(error) = outcome {
            self.metrics.journal_errors.inc();
            tracing::warn!(%error, "the journal's upkeep failed; it is tried again");
        }
    }

    /// How long nothing is to do but to wait for messages.
    fn idle(&self) -> Duration {
        let trim = self.holdings.due(self.moment(self.holdings.headroom()));
        [trim, self.sync_due()].into_iter().flatten().fold(MAX_IDLE, Duration::min)
    }

    fn moment(&self, wanted: u64) -> Moment {
        let committed = self.progress.position();
        Moment { committed, remembered: self.redeliveries.oldest(), now: clock::now(), wanted }
    }

    fn trim_step(&mut self, wanted: u64) -> Result<bool, JournalError> {
        let then = if self.options.sync == Sync::Always { Synchronous::Full } else { Synchronous::Normal };
        let moment = self.moment(wanted);
        let trimmed = self.holdings.step(&mut self.file, moment, &self.redeliveries, then)?;
        if trimmed {
            self.since_checkpoint = self.since_checkpoint.saturating_add(64 << 10);
            self.metrics.journal_size.set(level(self.holdings.bytes()));
        }
        Ok(trimmed)
    }

    /// How long until commits that did not wait for the disk must be made to.
    fn sync_due(&self) -> Option<Duration> {
        let (Sync::Every(interval), Some(since)) = (self.options.sync, self.unsynced) else { return None };
        Some(interval.saturating_sub(since.elapsed()))
    }

    /// A commit that waits for the disk, and so for all before it in the write-ahead log.
    fn sync(&mut self) -> Result<(), JournalError> {
        self.unsynced = Some(Instant::now());
        self.file.set_synchronous(Synchronous::Full)?;
        let outcome = self.file.set_meta("synced_to", &self.last_seq.to_string());
        self.file.set_synchronous(Synchronous::Normal)?;
        outcome?;
        self.unsynced = None;
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<bool, JournalError> {
        let log = self.file.checkpoint(false)?;
        if log > LONG_LOG {
            self.file.checkpoint(true)?;
        }
        Ok(true)
    }

    fn enter(&mut self, state: State) {
        self.told.tell(self.health.state(), state, self.options.max_size);
        self.health.set(state);
        self.metrics.journal_full.set(i64::from(state == State::Full));
    }

    /// Counts what nobody will send again. The rest stays unacknowledged, so that its senders do.
    fn abandon(&self, group: &Group, reason: &'static str) {
        let mut unacknowledged = group.tokens.len();
        let mut dropped = group.messages.iter().filter(|message| message.publish.qos == 0).count();
        self.inbox.close();
        while let Some(left) = self.inbox.take(MAX_MESSAGES, MAX_BYTES, Duration::ZERO) {
            let waiting = left.iter().filter(|submission| submission.token.is_some()).count();
            unacknowledged = unacknowledged.saturating_add(waiting);
            dropped = dropped.saturating_add(left.len().saturating_sub(waiting));
        }
        self.metrics.messages_dropped.get_or_create(&ByReason { reason }).inc_by(dropped as u64);
        tracing::warn!(unacknowledged, dropped, reason, "the journal ends with messages that it could not store");
    }
}

impl Drop for Journal {
    /// Also after a panic: whoever submits or reads learns that nobody answers any more.
    fn drop(&mut self) {
        self.inbox.close();
        self.tail.end();
        self.health.set(State::Ended);
    }
}

fn displaced(dir: &Path) -> JournalError {
    JournalError::Displaced { path: dir.join(FILE_NAME) }
}

fn level(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
