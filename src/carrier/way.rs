//! Parcels on their way to the broker, each with what it is about.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::mqtt::{Answer, Delivery, Parcel};

struct Flight<S> {
    subject: S,
    answer: oneshot::Receiver<Answer>,
}

/// What was sent and is not answered yet. Whoever sends bounds it.
pub struct Way<S> {
    /// Not yet handed to whoever publishes.
    ready: VecDeque<Parcel>,
    under_way: VecDeque<Flight<S>>,
    closed: bool,
}

impl<S> Default for Way<S> {
    fn default() -> Way<S> {
        Way { ready: VecDeque::new(), under_way: VecDeque::new(), closed: false }
    }
}

impl<S> Way<S> {
    /// How many are under way.
    pub fn len(&self) -> usize {
        self.under_way.len()
    }

    pub fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// What those are about that are under way.
    pub fn subjects(&self) -> impl Iterator<Item = &S> {
        self.under_way.iter().map(|flight| &flight.subject)
    }

    /// The next for whoever publishes.
    pub fn take_ready(&mut self) -> Option<Parcel> {
        self.ready.pop_front()
    }

    /// Nobody publishes any more: what is under way stays unanswered.
    pub fn close(&mut self) {
        self.closed = true;
        self.ready.clear();
        self.under_way.clear();
    }

    /// Sends something; nothing once it is closed.
    pub fn send(&mut self, subject: S, (topic, payload): (String, Bytes), (retain, delivery): (bool, Delivery)) {
        if self.closed {
            return;
        }
        let (answer, told) = oneshot::channel();
        self.ready.push_back(Parcel { topic, payload, retain, properties: Vec::new(), delivery, answer });
        self.under_way.push_back(Flight { subject, answer: told });
    }

    /// Waits for the answer to the first that is under way, and takes along what else has been answered. May be dropped while it waits. For
    /// ever pending where nothing is.
    pub async fn land(&mut self) -> Vec<(S, Answer)> {
        let Some(flight) = self.under_way.front_mut() else { return std::future::pending().await };
        let Ok(first) = (&mut flight.answer).await else {
            self.close();
            return Vec::new();
        };
        let mut landed = Vec::new();
        let mut answer = Some(first);
        while let Some(told) = answer.take()
            && let Some(flight) = self.under_way.pop_front()
        {
            landed.push((flight.subject, told));
            answer = self.under_way.front_mut().and_then(|flight| flight.answer.try_recv().ok());
        }
        landed
    }
}
