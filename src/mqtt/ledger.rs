//! Which messages await their acknowledgement, and on which connection.
//!
//! Acknowledgements leave in the order in which the messages came (MQTT 5, 4.6), each on the connection that its
//! message came by or not at all: on a later one the packet id may mean another message.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::journal::{Acknowledge, Token};
use crate::metrics::Metrics;

/// A message to be acknowledged on the current connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Receipt {
    pub(super) packet_id: u16,
    /// 1: PUBACK, 2: PUBREC.
    pub(super) qos: u8,
}

/// The ack ledger: [`Acknowledge`]d by the journal's thread, sent by the connection. The journal only marks a group and wakes the
/// connection once: were it to hand over each by itself, the two would wake each other and wait for a lock at every message.
pub struct Ledger {
    book: Mutex<Book>,
    /// Whether something may be handed over.
    due: AtomicBool,
    called: Notify,
    metrics: Metrics,
}

struct Book {
    /// Of the current connection; raised at the begin and the end of each.
    epoch: u32,
    connected: bool,
    /// In order of receipt; bounded by what the journal's inbox takes.
    awaited: VecDeque<Awaited>,
}

struct Awaited {
    token: Token,
    durable: bool,
}

impl Ledger {
    /// A ledger without a connection.
    pub fn new(metrics: Metrics) -> Ledger {
        let book = Book { epoch: 0, connected: false, awaited: VecDeque::new() };
        Ledger { book: Mutex::new(book), due: AtomicBool::new(false), called: Notify::new(), metrics }
    }

    /// A connection begins, to which messages belong from now on.
    pub(super) fn begin(&self) {
        self.turn(true);
    }

    /// The connection has ended: what it still owed is the broker's to deliver again.
    pub(super) fn end(&self) {
        self.turn(false);
    }

    fn turn(&self, connected: bool) {
        let mut book = self.lock();
        book.epoch = book.epoch.wrapping_add(1);
        book.awaited.clear();
        book.connected = connected;
    }

    /// Enters a message that came by the current connection. Before it is submitted, since the journal may answer at
    /// once.
    pub(super) fn enter(&self, receipt: Receipt) -> Token {
        let mut book = self.lock();
        let token = pack(book.epoch, receipt);
        book.awaited.push_back(Awaited { token, durable: false });
        token
    }

    /// Takes the message entered last out again: it was not submitted.
    pub(super) fn retract(&self, token: Token) {
        let mut book = self.lock();
        if book.awaited.back().is_some_and(|last| last.token == token) {
            book.awaited.pop_back();
        }
    }

    /// Pending until there may be something to [`pump`](Ledger::pump).
    pub(super) async fn called(&self) {
        self.called.notified().await;
    }

    /// Hands over what is durable and before which nothing is awaited. `outlet` does not wait; false: no room now, the rest is for the
    /// next call.
    pub(super) fn pump(&self, outlet: impl FnMut(Receipt) -> bool) {
        if !self.due.swap(false, Ordering::AcqRel) {
            return;
        }
        let (handed, left) = self.lock().release(outlet);
        self.metrics.messages_acknowledged.inc_by(handed);
        if left {
            self.due.store(true, Ordering::Release);
        }
    }

    /// Whether every message that was submitted has been made durable and its acknowledgement handed over.
    pub(super) fn is_settled(&self) -> bool {
        self.lock().awaited.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        // The book is whole between any two statements that can panic.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// `from`: where the search begins, and the next one is to begin. Tokens come in the order of entry but for few.
    fn mark(&mut self, token: Token, from: &mut usize) -> bool {
        if !self.connected || epoch_of(token) != self.epoch {
            return false;
        }
        let sought = |awaited: &Awaited| !awaited.durable && awaited.token == token;
        let behind = self.awaited.iter().skip(*from).position(sought).map(|steps| *from + steps);
        let found = behind.or_else(|| self.awaited.iter().take(*from).position(sought));
        match found.and_then(|place| Some((place, self.awaited.get_mut(place)?))) {
            Some((place, awaited)) => {
                awaited.durable = true;
                *from = place + 1;
                true
            }
            None => false,
        }
    }

    /// How many were handed over, and whether some had no room.
    fn release(&mut self, mut outlet: impl FnMut(Receipt) -> bool) -> (u64, bool) {
        let mut handed = 0;
        while let Some(first) = self.awaited.front().filter(|first| first.durable) {
            if !outlet(unpack(first.token)) {
                return (handed, true);
            }
            self.awaited.pop_front();
            handed += 1;
        }
        (handed, false)
    }
}

impl Acknowledge for Ledger {
    fn durable(&self, tokens: &[Token]) {
        let (mut stale, mut from) = (0, 0);
        let mut book = self.lock();
        for token in tokens {
            if !book.mark(*token, &mut from) {
                stale += 1;
            }
        }
        drop(book);
        self.due.store(true, Ordering::Release);
        self.called.notify_one();
        if stale > 0 {
            self.metrics.acknowledgements_stale.inc_by(stale);
            tracing::debug!(stale, "acknowledgements of an earlier connection dropped; the broker delivers again");
        }
    }
}

fn pack(epoch: u32, receipt: Receipt) -> Token {
    Token((u64::from(epoch) << 32) | (u64::from(receipt.qos) << 16) | u64::from(receipt.packet_id))
}

fn unpack(token: Token) -> Receipt {
    let [_, _, _, _, _, qos, high, low] = token.0.to_be_bytes();
    Receipt { packet_id: u16::from_be_bytes([high, low]), qos }
}

fn epoch_of(token: Token) -> u32 {
    let [a, b, c, d, ..] = token.0.to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands over as much as there is room for; the packet ids.
    fn pump(ledger: &Ledger, room: usize) -> Vec<u16> {
        let mut sent = Vec::new();
        ledger.pump(|receipt| {
            let fits = sent.len() < room;
            if fits {
                sent.push(receipt.packet_id);
            }
            fits
        });
        sent
    }

    fn connected() -> Ledger {
        let ledger = Ledger::new(Metrics::new());
        ledger.begin();
        ledger
    }

    fn enter(ledger: &Ledger, packet_id: u16) -> Token {
        ledger.enter(Receipt { packet_id, qos: 1 })
    }

    #[test]
    fn a_token_carries_its_receipt() {
        let receipt = Receipt { packet_id: 65_535, qos: 2 };
        let token = pack(u32::MAX, receipt);
        assert_eq!((unpack(token), epoch_of(token)), (receipt, u32::MAX));
    }

    #[test]
    fn acknowledgements_leave_in_order_of_receipt() {
        let ledger = connected();
        let tokens: Vec<Token> = [7, 5, 6].into_iter().map(|id| enter(&ledger, id)).collect();
        ledger.durable(&[tokens[1]]);
        assert!(pump(&ledger, 9).is_empty());
        ledger.durable(&[tokens[0], tokens[2]]);
        assert_eq!(pump(&ledger, 9), [7, 5, 6]);
        assert!(ledger.is_settled());
    }

    #[test]
    fn those_of_an_earlier_connection_are_dropped_and_counted() {
        let ledger = connected();
        let before = enter(&ledger, 1);
        ledger.end();
        ledger.begin();
        let now = enter(&ledger, 1);
        ledger.durable(&[before]);
        assert!(pump(&ledger, 9).is_empty());
        assert_eq!(ledger.metrics.acknowledgements_stale.get(), 1);
        ledger.durable(&[now]);
        assert_eq!(pump(&ledger, 9), [1]);
    }

    #[test]
    fn what_does_not_fit_waits_and_keeps_its_place() {
        let ledger = connected();
        let tokens = [enter(&ledger, 1), enter(&ledger, 2)];
        ledger.durable(&tokens);
        assert_eq!(pump(&ledger, 1), [1]);
        assert!(!ledger.is_settled());
        assert_eq!(pump(&ledger, 1), [2]);
        assert_eq!(ledger.metrics.messages_acknowledged.get(), 2);
    }

    #[test]
    fn a_retracted_message_holds_nothing_up() {
        let ledger = connected();
        let first = enter(&ledger, 1);
        let refused = enter(&ledger, 2);
        ledger.retract(refused);
        let third = enter(&ledger, 3);
        ledger.durable(&[first, third]);
        assert_eq!(pump(&ledger, 9), [1, 3]);
    }

    #[tokio::test]
    async fn whoever_hands_over_is_called_though_it_was_not_waiting_yet() {
        let ledger = connected();
        let token = enter(&ledger, 1);
        ledger.durable(&[token]);
        ledger.called().await;
        assert_eq!(pump(&ledger, 9), [1]);
    }
}
