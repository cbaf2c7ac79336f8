//! Messages on their way to the broker, and the answers to them, in order.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use crate::alert::Transition;
use crate::alert::announce::Announcement;
use crate::mqtt::{Answer, Delivery, Parcel};

/// Groups of messages under way at once.
const WINDOW: usize = 32;

/// What a group of messages tells.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Subject {
    /// A step of an alert, and how many attempts were made before.
    Step(Box<Transition>, u32),
    Summary,
}

/// A group whose messages are all answered.
#[derive(Debug, PartialEq)]
pub(super) struct Settled {
    pub(super) subject: Subject,
    /// Why the broker refused one of them; none: it has taken all.
    pub(super) refused: Option<&'static str>,
}

struct Flight {
    subject: Subject,
    answers: VecDeque<oneshot::Receiver<Answer>>,
    refused: Option<&'static str>,
}

/// Bounded by [`WINDOW`].
#[derive(Default)]
pub(super) struct Flights {
    /// Not yet handed to whoever publishes.
    ready: VecDeque<Parcel>,
    under_way: VecDeque<Flight>,
    closed: bool,
}

impl Flights {
    /// Whether another group may set out.
    pub(super) fn has_room(&self) -> bool {
        !self.closed && self.ready.is_empty() && self.under_way.len() < WINDOW
    }

    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(super) fn take_ready(&mut self) -> Option<Parcel> {
        self.ready.pop_front()
    }

    /// Nobody publishes any more: what is under way stays unanswered.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.ready.clear();
        self.under_way.clear();
    }

    pub(super) fn set_out(&mut self, announcements: Vec<Announcement>, subject: Subject) {
        let mut answers = VecDeque::with_capacity(announcements.len());
        for Announcement { topic, payload, properties } in announcements {
            let (answer, told) = oneshot::channel();
            answers.push_back(told);
            self.ready.push_back(Parcel {
                topic,
                payload,
                retain: true,
                properties,
                delivery: Delivery::default(),
                answer,
            });
        }
        self.under_way.push_back(Flight { subject, answers, refused: None });
    }

    /// Waits for the answers to the first group; none: nobody publishes any more. May be dropped while it waits. For ever
    /// pending without a group.
    pub(super) async fn settle(&mut self) -> Option<Settled> {
        let Some(flight) = self.under_way.front_mut() else { return std::future::pending().await };
        while let Some(first) = flight.answers.front_mut() {
            let answer = first.await.ok()?;
            flight.answers.pop_front();
            if let Answer::Refused(reason) = answer {
                flight.refused = flight.refused.or(Some(reason));
            }
        }
        self.under_way.pop_front().map(|Flight { subject, refused, .. }| Settled { subject, refused })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::State;
    use crate::alert::announce::{announcements, tests::step};

    #[tokio::test]
    async fn a_group_is_settled_once_all_of_it_is_answered_in_order() {
        let mut flights = Flights::default();
        let subject = |id: &str| Subject::Step(Box::new(step(id, 1, State::Resolved)), 0);
        for id in ["a", "b"] {
            let Subject::Step(step, _) = subject(id) else { unreachable!() };
            flights.set_out(announcements(&step), subject(id));
        }
        assert!(!flights.has_room(), "first what is ready");
        let mut parcels: Vec<Parcel> = std::iter::from_fn(|| flights.take_ready()).collect();
        assert_eq!(parcels.len(), 4);
        assert!(flights.has_room() && parcels.iter().all(|parcel| parcel.retain));
        let answer = |parcel: Parcel, answer| parcel.answer.send(answer).unwrap();
        answer(parcels.remove(0), Answer::Refused("not_authorized"));
        assert!(tokio::time::timeout(std::time::Duration::ZERO, flights.settle()).await.is_err());
        answer(parcels.remove(0), Answer::Taken);
        let settled = flights.settle().await.unwrap();
        assert_eq!(settled, Settled { subject: subject("a"), refused: Some("not_authorized") });
        drop(parcels);
        assert_eq!(flights.settle().await, None);
        flights.close();
        assert!(flights.is_empty() && !flights.has_room());
    }
}
