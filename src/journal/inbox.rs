//! The way into the journal: a bounded queue where every message gets its `received_at`.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Token;
use crate::clock::{self, Stamper};
use crate::message::Publish;
use crate::metrics::Metrics;
use crate::time::UtcMicros;

/// A message on its way to the disk.
#[derive(Debug)]
pub struct Submission {
    pub received_at: UtcMicros,
    pub publish: Publish,
    /// Released once the message is durable; none where nobody waits (QoS 0).
    pub token: Option<Token>,
}

/// What the queue holds at most. At it a QoS 0 message is refused at once; one that waits for its
/// acknowledgement only at four times as much, since the sender's receive maximum bounds those.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub messages: usize,
    pub bytes: usize,
}

/// Why a message was not taken. The sender still has it, if its QoS is above 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the way to the journal is full")]
    Full,
    #[error("the journal is closed")]
    Closed,
}

/// A handle to the queue; clones share it.
#[derive(Clone)]
pub struct Inbox {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    ready: Condvar,
    bounds: Bounds,
    metrics: Metrics,
}

struct Queue {
    items: VecDeque<Submission>,
    bytes: usize,
    stamper: Stamper,
    closed: bool,
    /// Submissions so far, and how many of them are durable: they become so in their order.
    submitted: u64,
    settled: u64,
    /// Something else than a message calls the journal's thread.
    nudged: bool,
}

impl Inbox {
    /// An empty queue whose stamps follow `last_stamp`.
    pub fn new(last_stamp: UtcMicros, bounds: Bounds, metrics: Metrics) -> Inbox {
        let queue = Queue {
            items: VecDeque::new(),
            bytes: 0,
            stamper: Stamper::after(last_stamp),
            closed: false,
            submitted: 0,
            settled: 0,
            nudged: false,
        };
        Inbox { shared: Arc::new(Shared { queue: Mutex::new(queue), ready: Condvar::new(), bounds, metrics }) }
    }

    /// Stamps a message and queues it; never waits.
    ///
    /// # Errors
    /// [`Refused`] when the queue is full or closed; nothing was queued then.
    pub fn submit(&self, publish: Publish, token: Option<Token>) -> Result<(), Refused> {
        let size = publish.topic.len().saturating_add(publish.payload.len());
        let mut queue = self.lock();
        if queue.closed {
            return Err(Refused::Closed);
        }
        let allowance = if token.is_some() { 4 } else { 1 };
        let bounds = self.shared.bounds;
        let too_many = queue.items.len() >= bounds.messages.saturating_mul(allowance);
        let too_large = queue.bytes.saturating_add(size) > bounds.bytes.saturating_mul(allowance);
        // Alone it is taken however large: there would never be more room.
        if too_many || (too_large && !queue.items.is_empty()) {
            return Err(Refused::Full);
        }
        // Only then somebody may wait for it, and to call nobody is a system call too.
        let first = queue.items.is_empty();
        let stamp = queue.stamper.stamp(clock::now());
        queue.bytes = queue.bytes.saturating_add(size);
        queue.items.push_back(Submission { received_at: stamp.at, publish, token });
        queue.submitted = queue.submitted.saturating_add(1);
        drop(queue);
        if first {
            self.shared.ready.notify_one();
        }
        if let Some(micros) = stamp.set_back_micros {
            self.shared.metrics.clock_steps_back.inc();
            tracing::warn!(
                set_back_ms = micros / 1000,
                "the system clock was set back; readings without a time of their own follow it"
            );
        }
        Ok(())
    }

    /// How many messages were submitted so far: right after [`Inbox::submit`], the number of that one or of a later one.
    pub fn submitted(&self) -> u64 {
        self.lock().submitted
    }

    /// Whether the submission of this number, and all before it, are durable.
    pub fn is_settled(&self, number: u64) -> bool {
        self.lock().settled >= number
    }

    /// The next so many submissions are durable.
    pub(super) fn settle(&self, submissions: usize) {
        let mut queue = self.lock();
        queue.settled = queue.settled.saturating_add(submissions as u64);
    }

    /// Whether more waits than QoS 0 and a sender that keeps to its receive maximum bring about: time to read more slowly.
    pub fn is_crowded(&self) -> bool {
        let queue = self.lock();
        let bounds = self.shared.bounds;
        queue.items.len() > bounds.messages.saturating_mul(2) || queue.bytes > bounds.bytes.saturating_mul(2)
    }

    /// Takes up to `max_messages` and about `max_bytes` of what has gathered, waiting up to `wait` for the
    /// first. Empty: nothing came, or a nudge did. None: the queue is closed and empty.
    pub fn take(&self, max_messages: usize, max_bytes: usize, wait: Duration) -> Option<Vec<Submission>> {
        let guard = self.lock();
        let (mut queue, _) = self
            .shared
            .ready
            .wait_timeout_while(guard, wait, |queue| queue.items.is_empty() && !queue.closed && !queue.nudged)
            .unwrap_or_else(PoisonError::into_inner);
        queue.nudged = false;
        if queue.items.is_empty() {
            return if queue.closed { None } else { Some(Vec::new()) };
        }
        let mut taken = Vec::new();
        let mut bytes = 0_usize;
        while taken.len() < max_messages && (taken.is_empty() || bytes < max_bytes) {
            let Some(submission) = queue.items.pop_front() else { break };
            let size = submission.publish.topic.len().saturating_add(submission.publish.payload.len());
            bytes = bytes.saturating_add(size);
            taken.push(submission);
        }
        queue.bytes = queue.bytes.saturating_sub(bytes);
        Some(taken)
    }

    /// Refuses whatever comes from now on; what is queued can still be taken.
    pub fn close(&self) {
        self.lock().closed = true;
        self.shared.ready.notify_all();
    }

    /// Wakes the journal's thread though no message came.
    pub(super) fn nudge(&self) {
        self.lock().nudged = true;
        self.shared.ready.notify_all();
    }

    /// Waits for a nudge or the close, at most `wait`. True: the queue is closed.
    pub(super) fn await_nudge(&self, wait: Duration) -> bool {
        self.pause(wait, |queue| queue.closed || queue.nudged)
    }

    /// Waits for the close, at most `wait`. True: the queue is closed.
    pub(super) fn await_close(&self, wait: Duration) -> bool {
        self.pause(wait, |queue| queue.closed)
    }

    fn pause(&self, wait: Duration, over: impl Fn(&Queue) -> bool) -> bool {
        let (mut queue, _) = self
            .shared
            .ready
            .wait_timeout_while(self.lock(), wait, |queue| !over(queue))
            .unwrap_or_else(PoisonError::into_inner);
        queue.nudged = false;
        queue.closed
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // The queue is whole between any two statements that can panic.
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn publish(qos: u8, size: usize) -> Publish {
        let payload = Bytes::from(vec![b'x'; size]);
        Publish {
            topic: "t".into(),
            payload,
            qos,
            retain: false,
            dup: false,
            packet_id: 1,
            client: None,
            properties: None,
        }
    }

    fn inbox() -> Inbox {
        Inbox::new(UtcMicros(0), Bounds { messages: 2, bytes: 1000 }, Metrics::new())
    }

    #[test]
    fn stamps_grow_and_order_is_kept() {
        let inbox = inbox();
        for token in 1..=4 {
            inbox.submit(publish(1, 1), Some(Token(token))).unwrap();
        }
        let taken = inbox.take(3, 1000, Duration::ZERO).unwrap();
        assert_eq!(taken.iter().filter_map(|s| s.token).collect::<Vec<_>>(), [Token(1), Token(2), Token(3)]);
        assert!(taken.windows(2).all(|pair| pair[0].received_at < pair[1].received_at));
        assert_eq!(inbox.take(3, 1000, Duration::ZERO).unwrap().len(), 1);
    }

    #[test]
    fn qos_0_is_refused_first() {
        let inbox = inbox();
        inbox.submit(publish(0, 1), None).unwrap();
        inbox.submit(publish(0, 1), None).unwrap();
        assert_eq!(inbox.submit(publish(0, 1), None), Err(Refused::Full));
        assert_eq!(inbox.submit(publish(1, 1), Some(Token(1))), Ok(()));
        assert_eq!(inbox.submit(publish(1, 5000), Some(Token(1))), Err(Refused::Full));
    }

    #[test]
    fn a_message_larger_than_the_bound_is_taken_alone() {
        let inbox = inbox();
        inbox.submit(publish(0, 5000), None).unwrap();
        assert_eq!(inbox.submit(publish(1, 1), Some(Token(1))), Err(Refused::Full));
        assert_eq!(inbox.take(9, 9, Duration::ZERO).unwrap().len(), 1);
    }

    #[test]
    fn a_submission_is_settled_with_its_turn() {
        let inbox = inbox();
        inbox.submit(publish(1, 1), Some(Token(1))).unwrap();
        inbox.submit(publish(1, 1), None).unwrap();
        assert_eq!(inbox.submit(publish(0, 1), None), Err(Refused::Full));
        let number = inbox.submitted();
        assert_eq!(number, 2, "what is refused does not count");
        inbox.settle(1);
        assert!(inbox.is_settled(1) && !inbox.is_settled(number));
        inbox.settle(1);
        assert!(inbox.is_settled(number));
    }

    #[test]
    fn a_closed_inbox_is_drained_then_ends() {
        let inbox = inbox();
        inbox.submit(publish(1, 1), Some(Token(1))).unwrap();
        inbox.close();
        assert_eq!(inbox.submit(publish(1, 1), None), Err(Refused::Closed));
        assert_eq!(inbox.take(9, 9, Duration::ZERO).unwrap().len(), 1);
        assert!(inbox.take(9, 9, Duration::ZERO).is_none());
    }
}
