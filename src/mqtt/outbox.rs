//! Parcels that the broker has not answered, in order, over as many connections as it takes. Pure.

use std::collections::VecDeque;

use super::parcel::{Answer, Parcel};

#[derive(Debug)]
struct Waiting {
    number: u64,
    parcel: Parcel,
    /// Connections that it has been handed to.
    tries: u32,
}

/// Bounded by [`Outbox::WINDOW`]: what does not fit waits with its sender.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    parcels: VecDeque<Waiting>,
    /// How many from the front have been handed to the connection at hand.
    handed: usize,
    next: u64,
}

impl Outbox {
    /// Unanswered parcels at once. Fewer than the publishes that rumqttc lets out, at which it stops to send
    /// acknowledgements too.
    pub(super) const WINDOW: usize = 8;

    pub(super) fn has_room(&self) -> bool {
        self.parcels.len() < Self::WINDOW
    }

    /// One whose sender has given it up while it waited is left out: it comes again, or nobody wants it any more.
    pub(super) fn put(&mut self, parcel: Parcel) {
        if parcel.answer.is_closed() {
            return;
        }
        self.parcels.push_back(Waiting { number: self.next, parcel, tries: 0 });
        self.next = self.next.wrapping_add(1);
    }

    /// Another connection: nothing has been handed to it. Those that are not to be sent twice, and were sent, are done.
    pub(super) fn begin(&mut self) {
        self.handed = 0;
        let is_spent = |waiting: &Waiting| waiting.parcel.delivery.once && waiting.tries > 0;
        while let Some(number) = self.parcels.iter().find(|waiting| is_spent(waiting)).map(|spent| spent.number) {
            self.answer(number, Answer::Refused("connection_lost"));
        }
    }

    /// The first parcel that the connection does not have, and its number.
    pub(super) fn first(&self) -> Option<(u64, &Parcel)> {
        self.parcels.get(self.handed).map(|waiting| (waiting.number, &waiting.parcel))
    }

    /// The connection has the one that was [`first`](Outbox::first).
    pub(super) fn hand(&mut self) {
        if let Some(waiting) = self.parcels.get_mut(self.handed) {
            waiting.tries = waiting.tries.saturating_add(1);
        }
        self.handed = self.handed.saturating_add(1).min(self.parcels.len());
    }

    /// The broker has taken it; `unheard`: it says that nobody is subscribed. False: it was answered before.
    pub(super) fn taken(&mut self, number: u64, unheard: bool) -> bool {
        let Some(waiting) = self.parcels.iter().find(|waiting| waiting.number == number) else { return false };
        let repeated = waiting.tries > 1;
        let traced = waiting.parcel.delivery.traced;
        self.answer(number, if traced { Answer::Traced { unheard, repeated } } else { Answer::Taken })
    }

    /// The broker has answered, or the parcel can't be sent: tells its sender. False: it was answered before.
    pub(super) fn answer(&mut self, number: u64, answer: Answer) -> bool {
        let Some(place) = self.parcels.iter().position(|waiting| waiting.number == number) else { return false };
        if place < self.handed {
            self.handed -= 1;
        }
        if let Some(Waiting { parcel, .. }) = self.parcels.remove(place) {
            // Whoever asked may be gone.
            let _ = parcel.answer.send(answer);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::sync::oneshot;

    use super::*;
    use crate::mqtt::Delivery;

    fn parcel(topic: &str) -> (Parcel, oneshot::Receiver<Answer>) {
        let (answer, told) = oneshot::channel();
        let parcel = Parcel {
            topic: topic.to_owned(),
            payload: Bytes::from_static(b"{}"),
            retain: true,
            properties: vec![("k".to_owned(), "v".to_owned())],
            delivery: Delivery::default(),
            answer,
        };
        (parcel, told)
    }

    /// Hands all over; returns the topics.
    fn hand_all(outbox: &mut Outbox) -> Vec<String> {
        let mut topics = Vec::new();
        while let Some((_, parcel)) = outbox.first() {
            topics.push(parcel.topic.clone());
            outbox.hand();
        }
        topics
    }

    #[test]
    fn what_was_not_answered_goes_to_the_next_connection_in_order() {
        let mut outbox = Outbox::default();
        let (parcels, mut told): (Vec<_>, Vec<_>) = ["a", "b", "c"].map(parcel).into_iter().unzip();
        parcels.into_iter().for_each(|parcel| outbox.put(parcel));
        assert_eq!(hand_all(&mut outbox), ["a", "b", "c"]);
        assert!(outbox.answer(1, Answer::Refused("quota_exceeded")));
        assert!(!outbox.answer(1, Answer::Taken), "answered before");
        assert_eq!(told[1].try_recv(), Ok(Answer::Refused("quota_exceeded")));
        let (fourth, _told) = parcel("d");
        outbox.put(fourth);
        let (given_up, answer) = parcel("given up");
        drop(answer);
        outbox.put(given_up);
        assert_eq!(hand_all(&mut outbox), ["d"]);
        outbox.begin();
        assert_eq!(hand_all(&mut outbox), ["a", "c", "d"]);
        assert!(outbox.answer(0, Answer::Taken));
        assert_eq!(told[0].try_recv(), Ok(Answer::Taken));
        assert!(outbox.first().is_none(), "the others stay handed over");
    }

    #[test]
    fn one_that_is_traced_tells_whether_it_went_out_twice_and_was_heard() {
        let mut outbox = Outbox::default();
        let (mut traced, mut told) = parcel("a");
        traced.delivery.traced = true;
        outbox.put(traced);
        hand_all(&mut outbox);
        outbox.begin();
        hand_all(&mut outbox);
        assert!(outbox.taken(0, true) && !outbox.taken(0, true));
        assert_eq!(told.try_recv(), Ok(Answer::Traced { unheard: true, repeated: true }));
        let (plain, mut told) = parcel("b");
        outbox.put(plain);
        assert!(outbox.taken(1, true));
        assert_eq!(told.try_recv(), Ok(Answer::Taken));
    }

    #[test]
    fn one_that_is_sent_once_is_not_handed_to_another_connection() {
        let mut outbox = Outbox::default();
        let (mut once, mut told) = parcel("a");
        once.delivery.once = true;
        outbox.put(once);
        outbox.begin();
        assert_eq!(hand_all(&mut outbox), ["a"], "it has not been sent before");
        outbox.begin();
        assert_eq!(told.try_recv(), Ok(Answer::Refused("connection_lost")));
        assert!(outbox.first().is_none());
    }

    #[test]
    fn it_is_bounded() {
        let (mut outbox, mut told) = (Outbox::default(), Vec::new());
        for _ in 0..Outbox::WINDOW {
            assert!(outbox.has_room());
            let (next, answer) = parcel("t");
            outbox.put(next);
            told.push(answer);
        }
        assert!(!outbox.has_room());
        assert!(outbox.answer(3, Answer::Taken) && outbox.has_room());
    }

    #[test]
    fn what_can_never_be_sent_is_found_before() {
        let check = |topic: &str, most| parcel(topic).0.check(most);
        assert_eq!(check("a/b", None), Ok(()));
        assert_eq!(check("a/b", Some(100)), Ok(()));
        assert_eq!(check("a/b", Some(20)), Err("packet_too_large"));
        for bad in ["", "a/+", "#", "a\0", &"x".repeat(70_000)] {
            assert_eq!(check(bad, None), Err("topic_name_invalid"));
        }
    }
}
