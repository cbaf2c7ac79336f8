//! PUBACKs that wait together leave in one write.
//!
//! rumqttc flushes after each request, so that each PUBACK costs a system call: half of what a message costs under load. A poll
//! in which no I/O can happen takes a request into rumqttc's buffer and then waits in the flush. It is dropped there, and
//! nothing is lost: the packet is in the buffer, the event in the queue, and the flush of the next ordinary poll takes all
//! along. So all acknowledgements but the last that waits are taken in this way.
//!
//! What keeps I/O from happening is the budget that tokio gives a task for each of its turns (`tokio::task::coop`): once it is
//! used up, sockets and timers answer that they are not ready, and the request channel, which is not tokio's, goes on.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::task::{Context, Poll};

use tokio::task::coop;

/// Polls without I/O between two with it. Well below the 8 KiB at which the buffer would flush before it takes more, for then
/// a dropped poll would lose a packet; the longest that one poll adds are ten PUBCOMPs of 4 bytes.
const MOST: usize = 200;

/// One of rumqttc's event loops.
pub(super) trait EventLoop: Send {
    type Polled: Send;

    fn next(&mut self) -> impl Future<Output = Self::Polled> + Send;
}

impl EventLoop for rumqttc::v5::EventLoop {
    type Polled = Result<rumqttc::v5::Event, rumqttc::v5::ConnectionError>;

    fn next(&mut self) -> impl Future<Output = Self::Polled> + Send {
        self.poll()
    }
}

impl EventLoop for rumqttc::EventLoop {
    type Polled = Result<rumqttc::Event, rumqttc::ConnectionError>;

    fn next(&mut self) -> impl Future<Output = Self::Polled> + Send {
        self.poll()
    }
}

/// How many acknowledgements are in a connection's request channel; clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiting(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// Below 0 while the connection is faster than the thread that hands them over.
    acknowledgements: AtomicI64,
    closing: AtomicBool,
}

impl Waiting {
    /// One has been put into the channel.
    pub(super) fn handed(&self) {
        self.0.acknowledgements.fetch_add(1, Ordering::Relaxed);
    }

    /// One has been taken in by the event loop.
    pub(super) fn taken(&self) {
        self.0.acknowledgements.fetch_sub(1, Ordering::Relaxed);
    }

    /// A DISCONNECT follows, after which the connection is not polled until everything has left.
    pub(super) fn close(&self) {
        self.0.closing.store(true, Ordering::Relaxed);
    }

    /// Whether another acknowledgement follows the next one.
    fn are_several(&self) -> bool {
        self.0.acknowledgements.load(Ordering::Relaxed) > 1 && !self.0.closing.load(Ordering::Relaxed)
    }
}

/// Polls one connection's event loop.
#[derive(Debug)]
pub(super) struct Cork {
    pub(super) waiting: Waiting,
    /// Polls without I/O since the last with it.
    held: usize,
}

impl Cork {
    pub(super) fn new(waiting: Waiting) -> Cork {
        Cork { waiting, held: 0 }
    }

    /// As the event loop's own poll, for whose results it makes no difference. Must not be dropped before it ends.
    pub(super) async fn poll<E: EventLoop>(&mut self, events: &mut E) -> E::Polled {
        // The first takes a request in, the second brings its event.
        for _ in 0..2 {
            if self.held >= MOST || !self.waiting.are_several() {
                break;
            }
            match poll_without_io(events.next()).await {
                Some(Poll::Ready(polled)) => return polled,
                Some(Poll::Pending) => self.held += 1,
                None => break,
            }
        }
        self.held = 0;
        events.next().await
    }
}

/// Polls once, with no budget for I/O, and drops the future. None: tokio gives no such budget here.
async fn poll_without_io<F: Future>(future: F) -> Option<Poll<F::Output>> {
    let mut future = pin!(future);
    std::future::poll_fn(|context| Poll::Ready(use_up_budget(context).then(|| future.as_mut().poll(context)))).await
}

/// False: there is more than a task's turn ever has.
fn use_up_budget(context: &mut Context<'_>) -> bool {
    let spend = |context: &mut Context<'_>| pin!(coop::consume_budget()).poll(context).is_ready();
    (0..=u8::MAX).any(|_| !coop::has_budget_remaining() || !spend(context))
}

#[cfg(test)]
mod tests {
    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::mqttbytes::v5::Publish;
    use rumqttc::v5::{AsyncClient, Event, MqttOptions};
    use rumqttc::Outgoing;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const ACKS: u16 = 450;

    async fn accept(listener: TcpListener) -> TcpStream {
        let (mut broker, _) = listener.accept().await.unwrap();
        assert!(broker.read(&mut [0; 1024]).await.unwrap() > 0);
        broker.write_all(&[0x20, 3, 0, 0, 0]).await.unwrap();
        broker
    }

    #[tokio::test]
    async fn acknowledgements_that_wait_together_leave_in_order_and_in_few_writes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut options = MqttOptions::new("id", "127.0.0.1", port);
        options.set_manual_acks(true);
        let (client, mut events) = AsyncClient::new(options, usize::from(ACKS));
        let mut cork = Cork::new(Waiting::default());
        let (connack, broker) = tokio::join!(cork.poll(&mut events), accept(listener));
        assert!(matches!(connack, Ok(Event::Incoming(_))), "{connack:?}");
        for pkid in 1..=ACKS {
            client.try_ack(&Publish { pkid, qos: QoS::AtLeastOnce, ..Publish::default() }).unwrap();
            cork.waiting.handed();
        }
        let (mut sent, mut arrived, mut writes) = (0, Vec::new(), 0);
        while sent < ACKS {
            match cork.poll(&mut events).await.unwrap() {
                Event::Outgoing(Outgoing::PubAck(pkid)) => {
                    sent += 1;
                    assert_eq!(pkid, sent);
                    cork.waiting.taken();
                }
                other => panic!("{other:?}"),
            }
            // On the loopback a write has arrived when it returns.
            let mut buffer = [0; 4096];
            if let Ok(length) = broker.try_read(&mut buffer) {
                arrived.extend_from_slice(&buffer[..length]);
                writes += 1;
            }
            tokio::task::yield_now().await;
        }
        let ids: Vec<u16> = arrived.chunks(4).map(|ack| u16::from_be_bytes([ack[2], ack[3]])).collect();
        assert_eq!(ids, (1..=ACKS).collect::<Vec<_>>());
        assert!(writes < 10, "{writes}");
    }
}
