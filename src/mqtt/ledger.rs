//! Which messages await their acknowledgement, and on which connection.
//!
//! Acknowledgements leave in the order in which the messages came (MQTT 5, 4.6), each on the connection that its
//! message came by or not at all: on a later one the packet id may mean another message.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::journal::{Acknowledge, Token};
use crate::metrics::Metrics;

/// A message to be acknowledged on the current connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Receipt {
    pub(super) packet_id: u16,
    /// 1: PUBACK, 2: PUBREC.
    pub(super) qos: u8,
}

/// Hands an acknowledgement to the connection without waiting; false: no room now.
pub(super) type Outlet = Box<dyn Fn(Receipt) -> bool + Send>;

/// The ack ledger: [`Acknowledge`]d by the journal's thread, sent by the connection.
pub struct Ledger {
    book: Mutex<Book>,
    metrics: Metrics,
}

struct Book {
    /// Of the current connection; raised at the begin and the end of each.
    epoch: u32,
    outlet: Option<Outlet>,
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
        let book = Book { epoch: 0, outlet: None, awaited: VecDeque::new() };
        Ledger { book: Mutex::new(book), metrics }
    }

    /// A connection begins: from now on acknowledgements go out by `outlet`.
    pub(super) fn begin(&self, outlet: Outlet) {
        let mut book = self.lock();
        book.epoch = book.epoch.wrapping_add(1);
        book.awaited.clear();
        book.outlet = Some(outlet);
    }

    /// The connection has ended: what it still owed is the broker's to deliver again.
    pub(super) fn end(&self) {
        let mut book = self.lock();
        book.epoch = book.epoch.wrapping_add(1);
        book.awaited.clear();
        book.outlet = None;
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

    /// Tries again to hand over what did not fit.
    pub(super) fn pump(&self) {
        let handed = self.lock().release();
        self.metrics.messages_acknowledged.inc_by(handed);
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
        if self.outlet.is_none() || epoch_of(token) != self.epoch {
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

    fn release(&mut self) -> u64 {
        let Some(outlet) = &self.outlet else { return 0 };
        let mut handed = 0;
        while self.awaited.front().is_some_and(|first| first.durable && outlet(unpack(first.token))) {
            self.awaited.pop_front();
            handed += 1;
        }
        handed
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
        let handed = book.release();
        drop(book);
        self.metrics.messages_acknowledged.inc_by(handed);
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
    use std::sync::Arc;

    /// A ledger whose outlet takes `room` acknowledgements.
    fn connect(ledger: &Ledger, room: usize) -> Arc<Mutex<Vec<u16>>> {
        let sent = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&sent);
        ledger.begin(Box::new(move |receipt| {
            let mut sent = into.lock().unwrap();
            let fits = sent.len() < room;
            if fits {
                sent.push(receipt.packet_id);
            }
            fits
        }));
        sent
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
        let ledger = Ledger::new(Metrics::new());
        let sent = connect(&ledger, 9);
        let tokens: Vec<Token> = [7, 5, 6].into_iter().map(|id| enter(&ledger, id)).collect();
        ledger.durable(&[tokens[1]]);
        assert!(sent.lock().unwrap().is_empty());
        ledger.durable(&[tokens[0], tokens[2]]);
        assert_eq!(*sent.lock().unwrap(), [7, 5, 6]);
        assert!(ledger.is_settled());
    }

    #[test]
    fn those_of_an_earlier_connection_are_dropped_and_counted() {
        let metrics = Metrics::new();
        let ledger = Ledger::new(metrics.clone());
        connect(&ledger, 9);
        let before = enter(&ledger, 1);
        ledger.end();
        let sent = connect(&ledger, 9);
        let now = enter(&ledger, 1);
        ledger.durable(&[before]);
        assert!(sent.lock().unwrap().is_empty());
        assert_eq!(metrics.acknowledgements_stale.get(), 1);
        ledger.durable(&[now]);
        assert_eq!(*sent.lock().unwrap(), [1]);
    }

    #[test]
    fn what_does_not_fit_waits_and_keeps_its_place() {
        let ledger = Ledger::new(Metrics::new());
        let sent = connect(&ledger, 1);
        let tokens = [enter(&ledger, 1), enter(&ledger, 2)];
        ledger.durable(&tokens);
        assert_eq!(*sent.lock().unwrap(), [1]);
        assert!(!ledger.is_settled());
        sent.lock().unwrap().clear();
        ledger.pump();
        assert_eq!(*sent.lock().unwrap(), [2]);
    }

    #[test]
    fn a_retracted_message_holds_nothing_up() {
        let ledger = Ledger::new(Metrics::new());
        let sent = connect(&ledger, 9);
        let first = enter(&ledger, 1);
        let refused = enter(&ledger, 2);
        ledger.retract(refused);
        let third = enter(&ledger, 3);
        ledger.durable(&[first, third]);
        assert_eq!(*sent.lock().unwrap(), [1, 3]);
    }
}
