//! Who waits for which message to become durable.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::journal::{Acknowledge, Token};

/// The publishes of the embedded broker's clients that wait for the journal; its [`Acknowledge`].
pub struct Waiters {
    pending: Mutex<HashMap<u64, oneshot::Sender<()>>>,
    next: AtomicU64,
    max: usize,
}

/// One publish that waits. Dropped before it is durable (the wait was given up), it leaves nothing behind.
pub struct Waiter {
    waiters: Arc<Waiters>,
    token: u64,
    durable: oneshot::Receiver<()>,
}

impl Waiters {
    /// At most `max` wait at once; each connection has one at a time.
    pub fn new(max: usize) -> Arc<Waiters> {
        Arc::new(Waiters { pending: Mutex::new(HashMap::new()), next: AtomicU64::new(1), max })
    }

    /// How many wait now.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// A place to wait with a token of its own; none at the bound.
    pub fn enter(self: &Arc<Waiters>) -> Option<Waiter> {
        let token = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, durable) = oneshot::channel();
        let mut pending = self.lock();
        if pending.len() >= self.max {
            return None;
        }
        pending.insert(token, sender);
        Some(Waiter { waiters: Arc::clone(self), token, durable })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<()>>> {
        // The map is whole between any two statements that can panic.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Acknowledge for Waiters {
    fn durable(&self, tokens: &[Token]) {
        let mut pending = self.lock();
        for token in tokens {
            if let Some(waiter) = pending.remove(&token.0) {
                // It may have given up between the two.
                let _ = waiter.send(());
            }
        }
    }
}

impl Waiter {
    /// What the journal is given to say that this message is durable.
    pub fn token(&self) -> Token {
        Token(self.token)
    }

    /// Waits; false: it will never be known.
    pub async fn durable(&mut self) -> bool {
        (&mut self.durable).await.is_ok()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.waiters.lock().remove(&self.token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_waiter_hears_of_its_own_message_only() {
        let waiters = Waiters::new(10);
        let (mut first, mut second) = (waiters.enter().unwrap(), waiters.enter().unwrap());
        waiters.durable(&[second.token()]);
        assert!(second.durable().await);
        assert!(first.durable.try_recv().is_err());
        waiters.durable(&[first.token(), first.token(), Token(9999)]);
        assert!(first.durable().await);
    }

    #[test]
    fn the_bound_holds_and_an_abandoned_wait_frees_its_place() {
        let waiters = Waiters::new(1);
        let first = waiters.enter().unwrap();
        assert!(waiters.enter().is_none());
        let token = first.token();
        drop(first);
        assert!(waiters.is_empty());
        waiters.durable(&[token]);
        assert!(waiters.enter().is_some());
    }
}
