//! Parcels that the broker has not answered, in order, over as many connections as it takes. Pure.

use std::collections::VecDeque;

use super::parcel::{Answer, Parcel};

/// Bounded by [`Outbox::WINDOW`]: what does not fit waits with its sender.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    parcels: VecDeque<(u64, Parcel)>,
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
        self.parcels.push_back((self.next, parcel));
        self.next = self.next.wrapping_add(1);
    }

    /// Another connection: nothing has been handed to it.
    pub(super) fn begin(&mut self) {
        self.handed = 0;
    }

    /// The first parcel that the connection does not have, and its number.
    pub(super) fn first(&self) -> Option<(u64, &Parcel)> {
        self.parcels.get(self.handed).map(|(number, parcel)| (*number, parcel))
    }

    /// The connection has the one that was [`first`](Outbox::first).
    pub(super) fn hand(&mut self) {
        self.handed = self.handed.saturating_add(1).min(self.parcels.len());
    }

    /// The broker has answered, or the parcel can't be sent: tells its sender. False: it was answered before.
    pub(super) fn answer(&mut self, number: u64, answer: Answer) -> bool {
        let Some(place) = self.parcels.iter().position(|(known, _)| *known == number) else { return false };
        if place < self.handed {
            self.handed -= 1;
        }
        if let Some((_, parcel)) = self.parcels.remove(place) {
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

    fn parcel(topic: &str) -> (Parcel, oneshot::Receiver<Answer>) {
        let (answer, told) = oneshot::channel();
        let parcel = Parcel {
            topic: topic.to_owned(),
            payload: Bytes::from_static(b"{}"),
            retain: true,
            properties: vec![("k".to_owned(), "v".to_owned())],
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
