//! Runs one connection of the load: sends, keeps account, and connects again.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rumqttc::Outgoing as Sending;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, Packet, PubAckReason, PubRecReason};
use rumqttc::v5::{ConnectionError, Event, EventLoop, Request};

use super::{LoadError, Progress, Settings, Tally};

/// A message that waits for its acknowledgement.
#[derive(Clone, Copy)]
struct Sent {
    at: Instant,
    order: u64,
}

/// Runs the connection and keeps account.
pub(super) struct Driver<'a> {
    settings: &'a Settings,
    tally: &'a Tally,
    progress: &'a Progress,
    connection: EventLoop,
    /// By packet id.
    sent: Vec<Option<Sent>>,
    order: u64,
    /// To be sent again on the next connection, before anything new.
    again: VecDeque<Request>,
    /// Places in the client's window that it does not free after a refused PUBREC.
    places_lost: u16,
    down_since: Option<Instant>,
    pause: Duration,
}

impl<'a> Driver<'a> {
    pub(super) fn new(
        settings: &'a Settings,
        tally: &'a Tally,
        progress: &'a Progress,
        connection: EventLoop,
    ) -> Driver<'a> {
        Driver {
            settings,
            tally,
            progress,
            connection,
            sent: vec![None; usize::from(settings.window) + 1],
            order: 0,
            again: VecDeque::new(),
            places_lost: 0,
            down_since: Some(Instant::now()),
            pause: Self::FIRST_PAUSE,
        }
    }
}

impl Driver<'_> {
    const FIRST_PAUSE: Duration = Duration::from_millis(50);
    const LONGEST_PAUSE: Duration = Duration::from_secs(3);

    pub(super) async fn run(&mut self) -> Result<(), LoadError> {
        loop {
            match self.connection.poll().await {
                Ok(event) => {
                    if self.account(event) {
                        return Ok(());
                    }
                    if self.places_lost > self.settings.window / 2 {
                        self.connection.clean();
                        self.collect_again();
                    }
                }
                Err(error) => {
                    if self.recover(error).await? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Counts one event; true: the connection is done.
    fn account(&mut self, event: Event) -> bool {
        match event {
            Event::Outgoing(Sending::Publish(id)) => self.published(id),
            Event::Outgoing(Sending::Disconnect) => return true,
            Event::Incoming(Packet::ConnAck(ack)) => {
                let allowed = ack.properties.and_then(|properties| properties.receive_max).unwrap_or(u16::MAX);
                let window = u64::from(allowed.min(self.settings.window));
                self.progress.window.store(window, Ordering::Release);
                self.connected();
            }
            Event::Incoming(Packet::PubAck(ack)) => match ack.reason {
                PubAckReason::Success | PubAckReason::NoMatchingSubscribers => self.acknowledged(ack.pkid),
                reason => self.refused(ack.pkid, format!("{reason:?}")),
            },
            Event::Incoming(Packet::PubRec(ack)) => match ack.reason {
                PubRecReason::Success | PubRecReason::NoMatchingSubscribers => {}
                reason => {
                    self.places_lost = self.places_lost.saturating_add(1);
                    self.refused(ack.pkid, format!("{reason:?}"));
                }
            },
            Event::Incoming(Packet::PubComp(ack)) => self.acknowledged(ack.pkid),
            _ => {}
        }
        false
    }

    fn connected(&mut self) {
        self.tally.connects.fetch_add(1, Ordering::Relaxed);
        self.down_since = None;
        self.pause = Self::FIRST_PAUSE;
        if self.settings.qos == 1 {
            self.connection.options.set_clean_start(false);
        }
        // Now, since the client clears what is pending when the broker has lost the session.
        self.connection.pending = std::mem::take(&mut self.again);
    }

    fn published(&mut self, id: u16) {
        if id == 0 {
            self.tally.published.fetch_add(1, Ordering::Relaxed);
            self.settle();
            return;
        }
        let Some(place) = self.sent.get_mut(usize::from(id)) else { return };
        if place.is_some() {
            self.tally.resent.fetch_add(1, Ordering::Relaxed);
        } else {
            self.order = self.order.saturating_add(1);
            *place = Some(Sent { at: Instant::now(), order: self.order });
            self.tally.published.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn acknowledged(&mut self, id: u16) {
        if let Some(sent) = self.sent.get_mut(usize::from(id)).and_then(Option::take) {
            self.tally.latency.record(sent.at.elapsed());
            self.tally.acknowledged.fetch_add(1, Ordering::Relaxed);
            self.settle();
        }
    }

    fn refused(&mut self, id: u16, reason: String) {
        if self.sent.get_mut(usize::from(id)).and_then(Option::take).is_some() {
            self.tally.refuse(reason);
            self.settle();
        }
    }

    fn settle(&self) {
        self.progress.settled.fetch_add(1, Ordering::Release);
        self.progress.changed.notify_one();
    }

    /// After an error: waits, and leaves the connection ready to be made anew. True: it was done anyway.
    async fn recover(&mut self, error: ConnectionError) -> Result<bool, LoadError> {
        if let ConnectionError::ConnectionRefused(code) = &error
            && !may_pass(*code)
        {
            return Err(LoadError::Refused(format!("{code:?}")));
        }
        // Acknowledgements that came with the last bytes are still queued, and count.
        while let Some(event) = self.connection.state.events.pop_front() {
            if self.account(event) {
                return Ok(true);
            }
        }
        self.collect_again();
        let down = self.down_since.get_or_insert_with(Instant::now).elapsed();
        if down >= self.settings.give_up {
            return Err(LoadError::Unreachable { seconds: down.as_secs(), detail: error.to_string() });
        }
        tracing::debug!(%error, pause_ms = self.pause.as_millis(), "connection lost; trying again");
        tokio::time::sleep(self.pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        self.pause = self.pause.saturating_mul(2).min(Self::LONGEST_PAUSE);
        Ok(false)
    }

    /// Takes what the client has left of the lost connection, to be sent again in its first order.
    fn collect_again(&mut self) {
        self.places_lost = 0;
        let mut left: Vec<Request> = self.again.drain(..).collect();
        if let Some(mut blocked) = self.connection.state.collision.take() {
            // It waited for another message's packet id, and was not sent.
            blocked.pkid = 0;
            left.push(Request::Publish(blocked));
        }
        left.append(&mut self.connection.pending.drain(..).collect());
        let mut again: Vec<(u64, Request)> = Vec::with_capacity(left.len());
        for request in left {
            match request {
                Request::Publish(mut publish) => {
                    let sent = self.sent.get(usize::from(publish.pkid)).copied().flatten();
                    publish.dup = sent.is_some();
                    again.push((sent.map_or(u64::MAX, |sent| sent.order), Request::Publish(publish)));
                }
                Request::PubRel(release) => {
                    self.refused(release.pkid, "connection lost before PUBCOMP".to_owned());
                }
                other => again.push((u64::MAX, other)),
            }
        }
        again.sort_by_key(|(order, _)| *order);
        self.again = again.into_iter().map(|(_, request)| request).collect();
    }
}

/// Whether a refusal of the connection may be a passing one.
fn may_pass(code: ConnectReturnCode) -> bool {
    use ConnectReturnCode::{
        ConnectionRateExceeded, QuotaExceeded, ServerBusy, ServerUnavailable, ServiceUnavailable, UnspecifiedError,
    };
    matches!(
        code,
        ServiceUnavailable | ServerUnavailable | ServerBusy | UnspecifiedError | QuotaExceeded | ConnectionRateExceeded
    )
}
