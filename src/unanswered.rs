//! Tells that the database has been at one transaction for long: a server that is stopped while its machine goes on answering, a
//! lock that somebody holds, something in between that swallows what is sent.
//!
//! libpq waits for an answer without an end, and TCP notices nothing where the other end's system acknowledges what it is sent.
//! Nothing can be done from here that would be sound, so this tells: a gauge, a counter and the log. The journal goes on taking
//! and acknowledging messages meanwhile, and the transaction goes on as soon as there is an answer.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// How long a transaction may take before it is told, and told again.
const LONG: Duration = Duration::from_secs(30);
/// How often the gauge is set.
const LOOK: Duration = Duration::from_secs(1);

/// What the database is being asked, and since when. Clones share it.
#[derive(Clone, Default)]
pub struct Unanswered {
    asked: Arc<Mutex<BTreeMap<&'static str, Instant>>>,
}

/// One question; over when dropped.
pub struct Question<'a> {
    of: &'a Unanswered,
    what: &'static str,
}

impl Unanswered {
    /// Notes a question by its name, of which there is one at a time.
    pub fn ask(&self, what: &'static str) -> Question<'_> {
        self.lock().insert(what, Instant::now());
        Question { of: self, what }
    }

    /// The question that waits longest.
    fn oldest(&self) -> Option<(&'static str, Instant)> {
        self.lock().iter().min_by_key(|(_, since)| **since).map(|(what, since)| (*what, *since))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Instant>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.of.lock().remove(self.what);
    }
}

/// Sets the gauge and tells, until `stop`.
///
/// # Errors
/// None; the signature is that of every task of the daemon.
pub async fn watch(unanswered: Unanswered, stop: CancellationToken, metrics: Metrics) -> Result<(), Infallible> {
    let mut told = Told::default();
    while tokio::time::timeout(LOOK, stop.cancelled()).await.is_err() {
        let now = Instant::now();
        let oldest = unanswered.oldest().map(|(what, since)| (what, since, now.saturating_duration_since(since)));
        let seconds = oldest.map_or(0, |(.., waited)| waited.as_secs());
        metrics.database_unanswered.set(i64::try_from(seconds).unwrap_or(i64::MAX));
        match told.look(oldest) {
            Word::Nothing => {}
            Word::Long { what, waited, first } => {
                if first {
                    metrics.database_stalls.inc();
                }
                tracing::warn!(
                    what,
                    waited_seconds = waited.as_secs(),
                    "the database has not answered for long: its server may be stopped or a lock held, or something between may \
                     swallow the connection; look at pg_stat_activity, end what holds it up, or restart what is between. \
                     Messages are journalled meanwhile"
                );
            }
            Word::Over => tracing::info!("the database has answered"),
        }
    }
    Ok(())
}

/// What was told last.
#[derive(Default)]
struct Told {
    last: Option<(Instant, Duration)>,
}

#[derive(Debug, PartialEq, Eq)]
enum Word {
    Nothing,
    Long { what: &'static str, waited: Duration, first: bool },
    Over,
}

impl Told {
    /// `oldest`: what is asked, since when, and how long that is.
    fn look(&mut self, oldest: Option<(&'static str, Instant, Duration)>) -> Word {
        match (oldest, self.last) {
            (Some((what, since, waited)), last) if waited >= LONG => {
                let before = last.filter(|(of, _)| *of == since).map(|(_, told)| told);
                if before.is_some_and(|told| waited < told.saturating_add(LONG)) {
                    return Word::Nothing;
                }
                self.last = Some((since, waited));
                Word::Long { what, waited, first: before.is_none() }
            }
            (_, Some(_)) => {
                self.last = None;
                Word::Over
            }
            (_, None) => Word::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_wait_is_told_again_and_again_and_its_end_once() {
        let (mut told, since) = (Told::default(), Instant::now());
        let mut after = |seconds| told.look(Some(("commit", since, Duration::from_secs(seconds))));
        let long = |seconds, first| Word::Long { what: "commit", waited: Duration::from_secs(seconds), first };
        assert_eq!([after(0), after(29), after(31)], [Word::Nothing, Word::Nothing, long(31, true)]);
        assert_eq!([after(60), after(62), after(63)], [Word::Nothing, long(62, false), Word::Nothing]);
        assert_eq!([told.look(None), told.look(None)], [Word::Over, Word::Nothing]);
    }

    #[test]
    fn the_question_that_waits_longest_counts_until_it_is_answered() {
        let unanswered = Unanswered::default();
        let first = unanswered.ask("reading the catalog");
        let _second = unanswered.ask("committing a batch");
        assert_eq!(unanswered.oldest().map(|(what, _)| what), Some("reading the catalog"));
        drop(first);
        assert_eq!(unanswered.oldest().map(|(what, _)| what), Some("committing a batch"));
    }
}
