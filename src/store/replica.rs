//! A second server for what is only looked at: a copy of the primary that may be a little behind.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::error::StoreError;
use super::pool::{Conn, Db, connect_once};
use crate::config::{Database, DatabaseUrl};

/// How long the primary answers alone after the replica did not.
const AWAY: Duration = Duration::from_secs(30);

/// The replica, asked first while it answers. Clones share what is known of it.
#[derive(Clone)]
pub(super) struct Replica {
    db: Db,
    settings: Database,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Whether it has answered, and nothing has gone wrong since.
    answers: bool,
    /// Until when it is not asked again.
    away_until: Option<Instant>,
    /// Why it did not answer last, until it does again.
    why: Option<String>,
}

impl Replica {
    /// The replica that `settings` name, if they do. It need not answer yet, and no connection is made before it is asked.
    ///
    /// # Errors
    /// [`StoreError::BadUrl`].
    pub(super) fn open(settings: &Database) -> Result<Option<Replica>, StoreError> {
        let Some(url) = &settings.replica_url else { return Ok(None) };
        let settings =
            Database { url: DatabaseUrl::Postgres(url.clone()), pool_min: 0, replica_url: None, ..settings.clone() };
        Ok(Some(Replica { db: Db::open(&settings)?, settings, state: Arc::default() }))
    }

    /// What `work` finds there; none where the primary is to be asked, whatever the reason.
    pub(super) fn ask<T>(&self, work: &impl Fn(&mut Conn<'_>) -> Result<T, StoreError>) -> Option<T> {
        if !self.is_there() {
            return None;
        }
        match self.db.read(work) {
            Ok(found) => Some(found),
            // It answers, but may be behind: whether that is so the primary says.
            Err(StoreError::Missing { .. }) => None,
            Err(error) => {
                self.went_away(&error);
                None
            }
        }
    }

    /// Whether it is there, asked once and on a connection of its own.
    pub(super) fn ping(&self) -> Result<(), StoreError> {
        connect_once(&self.settings, |_| Ok(()))
    }

    /// Why the primary answers in its place; none while it answers itself.
    pub(super) fn away(&self) -> Option<String> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).why.clone()
    }

    /// A connection outside of the pool tells at once that nobody is there, and why; the pool would wait.
    fn is_there(&self) -> bool {
        {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.answers {
                return true;
            }
            if state.away_until.is_some_and(|until| Instant::now() < until) {
                return false;
            }
        }
        match self.ping() {
            Ok(()) => {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                if state.why.take().is_some() {
                    tracing::info!("the replica answers again, and serves what is only read");
                }
                *state = State { answers: true, ..State::default() };
                true
            }
            Err(error) => {
                self.went_away(&error);
                false
            }
        }
    }

    fn went_away(&self, error: &StoreError) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.why.is_none() {
            tracing::warn!(%error, "the replica does not answer; the primary is asked in its place, and the replica again every {AWAY:?}");
        }
        *state = State { answers: false, away_until: Instant::now().checked_add(AWAY), why: Some(error.to_string()) };
    }
}
