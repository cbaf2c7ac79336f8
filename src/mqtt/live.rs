//! One connection, from its CONNECT to its end.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::loss::Loss;
use super::options::Options;
use super::parcel::{Answer, Parcel};
use super::protocol::{self, Client, Connection, Event, Sent};
use super::session::{Link, Memory, Orders, RefusedFilter, Rooms, Settings};
use super::subscriptions::{Ask, Asked, Subscriptions};
use super::watchdog::Watchdog;
use super::{ledger::Receipt, status};
use crate::alert::request;
use crate::command;
use crate::crash;
use crate::errands::Errand;
use crate::journal::Refused;
use crate::message::Publish;
use crate::metrics::ByReason;
use crate::twin;

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(200);
/// How often room on the way to the journal is looked for.
const ROOM: Duration = Duration::from_millis(2);
/// Requests besides acknowledgements that fit the channel at once; further ones wait their turn.
const CONTROL_SLOTS: usize = 64;
/// How long the DISCONNECT may take to leave.
const CLOSING: Duration = Duration::from_secs(1);

/// How a connection ended.
pub(super) enum End {
    Stopped,
    Lost(Loss),
}

/// One connection being served; see [`Phase`] for its life.
pub(super) struct Live<'a> {
    settings: &'a Settings,
    rooms: &'a Rooms,
    memory: &'a mut Memory,
    client: Client,
    /// Waits for room in the request channel.
    control: VecDeque<Control>,
    subscriptions: Subscriptions,
    /// Publishes that await their PUBACK.
    publishes: Asked<Ours>,
    /// Bytes of the largest packet that the broker takes, where it told.
    max_packet: Option<usize>,
    watchdog: Watchdog,
    phase: Phase,
    ask_again_at: Instant,
    connected_at: Option<Instant>,
}

enum Control {
    Ask(Ask),
    Status(&'static str),
    Errand(Errand),
    Disconnect,
}

/// A publish of ours at QoS 1.
enum Ours {
    Status(&'static str),
    /// The outbox's, by its number.
    Parcel(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Until the CONNACK.
    Connecting,
    /// Until every filter has its answer.
    Subscribing,
    Serving,
    /// Takes no more messages; waits for the acknowledgements of those it took.
    Draining {
        until: Instant,
    },
    /// Waits for the PUBACK of `offline`.
    Leaving {
        until: Instant,
    },
    /// Waits for the DISCONNECT to be out.
    Closing {
        until: Instant,
    },
}

impl<'a> Live<'a> {
    /// Serves one connection to its end; also says how long it was connected.
    pub(super) async fn serve(
        options: Options,
        settings: &'a Settings,
        rooms: &'a Rooms,
        memory: &'a mut Memory,
        orders: &mut Orders,
        stop: &CancellationToken,
    ) -> (End, Duration) {
        let slots = usize::from(settings.broker.receive_maximum).saturating_add(CONTROL_SLOTS);
        let (client, mut connection) = protocol::open(options, slots);
        rooms.ledger.begin();
        let now = Instant::now();
        // The connection attempt has its own bound; the keep-alive's limit comes with the CONNACK.
        let attempt = settings.timing.connect.saturating_mul(2).max(Duration::from_secs(2));
        let mut live = Live {
            settings,
            rooms,
            memory,
            client,
            control: VecDeque::new(),
            subscriptions: Subscriptions::new(),
            publishes: Asked::new(),
            max_packet: None,
            watchdog: Watchdog::new(attempt, now),
            phase: Phase::Connecting,
            ask_again_at: now,
            connected_at: None,
        };
        live.memory.outbox.begin();
        let end = live.drive(&mut connection, orders, stop).await;
        let lasted = live.connected_at.map(|at| at.elapsed()).unwrap_or_default();
        // Before anything else can happen: what the journal still releases belongs to this connection.
        rooms.ledger.end();
        (end, lasted)
    }

    async fn drive(&mut self, connection: &mut Connection, orders: &mut Orders, stop: &CancellationToken) -> End {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stopped = std::pin::pin!(stop.cancelled());
        let (mut stopping, mut filters_live, mut errands_live, mut parcels_live) = (false, true, true, true);
        // Only what is asked from now on is meant for this connection.
        let (rooms, mut reconnects) = (self.rooms, self.rooms.ears.reconnects());
        loop {
            let polled = if let Some(event) = connection.buffered() {
                Ok(event)
            } else {
                // One poll, kept until it ends, whatever else happens meanwhile: dropping it could lose a packet.
                let mut poll = std::pin::pin!(connection.poll());
                loop {
                    let step = tokio::select! {
                        biased;
                        polled = &mut poll => break polled,
                        () = rooms.ledger.called() => self.advance(Instant::now),
                        () = &mut stopped, if !stopping => {
                            stopping = true;
                            self.begin_stop()
                        }
                        changed = orders.filters.changed(), if filters_live => {
                            filters_live = changed.is_ok();
                            self.change_filters(&mut orders.filters)
                        }
                        parcel = orders.parcels.recv(), if parcels_live && self.takes_parcels() => {
                            parcels_live = parcel.is_some();
                            self.put_parcel(parcel);
                            Ok(())
                        }
                        errand = orders.errands.recv(), if errands_live && self.has_room() => {
                            errands_live = errand.is_some();
                            self.run_errand(errand);
                            Ok(())
                        }
                        () = reconnects.asked(), if !stopping => Err(End::Lost(Loss::Deaf)),
                        _ = tick.tick() => self.check(Instant::now()),
                    };
                    if let Err(end) = step {
                        return end;
                    }
                }
            };
            let is_message = matches!(polled, Ok(Event::Publish(_)));
            let step = match polled {
                Ok(event) => self.handle(event, connection, &mut orders.filters),
                Err(_) if matches!(self.phase, Phase::Closing { .. }) => Err(End::Stopped),
                Err(loss) => Err(End::Lost(loss)),
            };
            if let Err(end) = step.and_then(|()| self.advance(Instant::now)) {
                return end;
            }
            // Here too: while the broker has much to say, nothing else gets its turn above.
            while self.takes_parcels()
                && let Ok(parcel) = orders.parcels.try_recv()
            {
                self.put_parcel(Some(parcel));
            }
            if is_message && let Err(end) = self.await_room(stop).await {
                return end;
            }
        }
    }

    /// Does not read on while the way to the journal is crowded. mosquitto 2.0 sends thousands of messages beyond the
    /// receive maximum once acknowledgements flow, and all of them again after a reconnect: only this slows it down.
    async fn await_room(&mut self, stop: &CancellationToken) -> Result<(), End> {
        if !self.rooms.inbox.is_crowded() {
            return Ok(());
        }
        self.rooms.metrics.broker_pauses.inc();
        let deadline = Instant::now() + self.settings.timing.answer;
        while self.rooms.inbox.is_crowded() && !stop.is_cancelled() {
            if Instant::now() >= deadline {
                return Err(End::Lost(Loss::Overrun));
            }
            tokio::time::sleep(ROOM).await;
        }
        Ok(())
    }

    fn handle(
        &mut self,
        event: Event,
        connection: &mut Connection,
        filters: &mut watch::Receiver<Vec<String>>,
    ) -> Result<(), End> {
        if let Event::Sent(sent) = event {
            self.went_out(sent);
            return Ok(());
        }
        self.watchdog.saw();
        match event {
            Event::Publish(publish) => return self.receive(publish),
            Event::Connected { session_present, keep_alive, max_packet } => {
                self.max_packet = max_packet;
                self.connected(session_present, keep_alive, connection, filters);
            }
            Event::Subscribed { packet_id, grants } => {
                let refused = self.subscriptions.granted(packet_id, &grants);
                self.report_refused(&refused);
                self.settle();
            }
            Event::Unsubscribed { packet_id } => {
                if let Some(filter) = self.subscriptions.dropped(packet_id) {
                    tracing::info!(filter, "unsubscribed");
                    self.memory.held.remove(&filter);
                }
                self.settle();
            }
            Event::Published { packet_id, refusal, unheard } => self.published(packet_id, refusal, unheard),
            Event::Sent(_) | Event::Other => {}
        }
        Ok(())
    }

    fn connected(
        &mut self,
        session_present: bool,
        keep_alive: Duration,
        connection: &mut Connection,
        filters: &mut watch::Receiver<Vec<String>>,
    ) {
        let limit = self.settings.timing.stall.unwrap_or_else(|| Watchdog::limit_for(keep_alive));
        self.watchdog.set_limit(limit);
        self.connected_at = Some(Instant::now());
        self.rooms.metrics.broker_connects.inc();
        tracing::info!(session_present, client_id = self.settings.broker.client_id, "connected to the broker");
        let unreleased = std::mem::take(&mut self.memory.unreleased);
        if session_present {
            for packet_id in unreleased {
                connection.expect_release(packet_id);
            }
        } else {
            self.memory.held.clear();
        }
        self.phase = Phase::Subscribing;
        // Whether or not the session was there: it may have come back without its subscriptions.
        self.subscribe(filters);
        self.settle();
    }

    fn change_filters(&mut self, filters: &mut watch::Receiver<Vec<String>>) -> Result<(), End> {
        // Before the CONNACK nothing is asked; then the newest list is.
        if matches!(self.phase, Phase::Subscribing | Phase::Serving) {
            self.subscribe(filters);
            self.settle();
        }
        Ok(())
    }

    fn subscribe(&mut self, filters: &mut watch::Receiver<Vec<String>>) {
        let wanted = filters.borrow_and_update().clone();
        let asks = self.subscriptions.want(&wanted, &self.memory.held, protocol::valid_filter);
        self.memory.held.extend(wanted);
        self.control.extend(asks.into_iter().map(Control::Ask));
        self.request();
    }

    /// Whether an errand would be sent at once.
    fn has_room(&self) -> bool {
        self.phase == Phase::Serving && self.control.is_empty()
    }

    fn run_errand(&mut self, errand: Option<Errand>) {
        let Some(errand) = errand else { return };
        if errand.is_late() {
            self.rooms.metrics.errands_dropped.get_or_create(&ByReason { reason: "late" }).inc();
            return;
        }
        self.control.push_back(Control::Errand(errand));
        self.request();
    }

    /// Whether a parcel would be published at once.
    fn takes_parcels(&self) -> bool {
        self.has_room() && self.memory.outbox.has_room()
    }

    fn put_parcel(&mut self, parcel: Option<Parcel>) {
        let Some(parcel) = parcel else { return };
        self.memory.outbox.put(parcel);
        self.post();
    }

    /// Publishes the parcels that this connection has not been given yet, as far as there is room.
    fn post(&mut self) {
        while self.has_room()
            && let Some((number, parcel)) = self.memory.outbox.first()
        {
            // Whoever asked has given it up.
            if parcel.answer.is_closed() {
                self.memory.outbox.answer(number, Answer::Refused("given_up"));
                continue;
            }
            if parcel.delivery.is_late(Instant::now()) {
                self.memory.outbox.answer(number, Answer::Refused("expired"));
                continue;
            }
            if let Err(reason) = parcel.check(self.max_packet) {
                self.rooms.metrics.publish_errors.get_or_create(&ByReason { reason }).inc();
                self.memory.outbox.answer(number, Answer::Refused(reason));
                continue;
            }
            if self.client.publish(parcel).is_err() {
                return;
            }
            self.publishes.hand(Ours::Parcel(number), Instant::now());
            self.memory.outbox.hand();
        }
    }

    /// Hands over what waits, as far as there is room.
    fn request(&mut self) {
        while let Some(control) = self.control.front() {
            let handed = match control {
                Control::Ask(ask) => self.client.ask(ask),
                Control::Status(payload) => {
                    self.client.publish_retained(&status::topic(&self.settings.instance_id), *payload)
                }
                Control::Errand(errand) => self.client.publish_once(&errand.topic, &errand.payload),
                Control::Disconnect => self.client.disconnect(),
            };
            if handed.is_err() {
                return;
            }
            let now = Instant::now();
            match self.control.pop_front() {
                Some(Control::Ask(ask)) => self.subscriptions.hand(ask, now),
                Some(Control::Status(payload)) => self.publishes.hand(Ours::Status(payload), now),
                Some(Control::Errand(_)) => {
                    self.rooms.metrics.errands_sent.inc();
                }
                Some(Control::Disconnect) | None => {}
            }
        }
    }

    fn went_out(&mut self, sent: Sent) {
        match sent {
            Sent::Acknowledgement => crash::point("session.after_puback"),
            Sent::Ask(packet_id) => self.subscriptions.sent(packet_id),
            // An errand: at QoS 0 nothing answers.
            Sent::Publish(0) => {}
            Sent::Publish(packet_id) => self.publishes.sent(packet_id),
            Sent::Disconnect => {
                if matches!(self.phase, Phase::Closing { .. }) {
                    self.phase = Phase::Closing { until: Instant::now() };
                }
            }
            Sent::Other => {}
        }
    }

    /// Hands a message to the journal. One that is not taken stays unacknowledged, for the broker to deliver again.
    fn receive(&mut self, mut publish: Publish) -> Result<(), End> {
        let metrics = &self.rooms.metrics;
        metrics.messages_received.inc();
        metrics.payload_received.inc_by(u64::try_from(publish.payload.len()).unwrap_or(u64::MAX));
        let dropped = |reason| metrics.messages_dropped.get_or_create(&ByReason { reason }).inc();
        if !matches!(self.phase, Phase::Subscribing | Phase::Serving) {
            if publish.qos == 0 {
                dropped("shutting_down");
            }
            return Ok(());
        }
        if publish.payload.len() > self.settings.max_packet {
            let (bytes, topic) = (publish.payload.len(), &publish.topic);
            tracing::warn!(%topic, bytes, "payload cut: larger than any source takes, it can only be quarantined");
            publish.payload = bytes::Bytes::copy_from_slice(
                publish.payload.get(..self.settings.max_packet).unwrap_or(&publish.payload),
            );
        }
        // What the broker had stored tells nothing of its publisher.
        if !publish.retain {
            self.rooms.ears.heard(&publish.topic);
        }
        let receipt = Receipt { packet_id: publish.packet_id, qos: publish.qos };
        let token = (publish.qos > 0).then(|| self.rooms.ledger.enter(receipt));
        match self.rooms.inbox.submit(publish, token) {
            Ok(()) => Ok(()),
            Err(refused) => {
                if let Some(token) = token {
                    self.rooms.ledger.retract(token);
                }
                match (refused, token) {
                    (Refused::Full, None) => {
                        dropped("journal_full");
                        Ok(())
                    }
                    (Refused::Closed, None) => {
                        dropped("shutting_down");
                        Ok(())
                    }
                    // On this connection it would not come again.
                    (Refused::Full, Some(_)) => Err(End::Lost(Loss::Overrun)),
                    (Refused::Closed, Some(_)) => Ok(()),
                }
            }
        }
    }

    fn report_refused(&self, refused: &[(String, &'static str)]) {
        for (filter, reason) in refused {
            self.rooms.metrics.subscriptions_refused.inc();
            if twin::is_filter(filter) {
                tracing::warn!(
                    filter,
                    reason,
                    "the broker refused a subscription: what devices or programs say to twins by MQTT is not heard there"
                );
                continue;
            }
            if command::is_filter(filter) {
                tracing::warn!(
                    filter,
                    reason,
                    "the broker refused a subscription: commands can't be asked for by MQTT, or their answers not heard"
                );
                continue;
            }
            if request::is_filter(filter) {
                tracing::warn!(
                    filter,
                    reason,
                    "the broker refused a subscription: this can't be asked of alerts by MQTT"
                );
                continue;
            }
            tracing::error!(
                filter,
                reason,
                "the broker refused a subscription: nothing that matches it is received; let the broker's access rules allow it to this client at QoS 1"
            );
        }
    }

    /// Once every filter has its answer: says how the connection stands, and the first time that it is online.
    fn settle(&mut self) {
        if !self.subscriptions.is_settled() || !self.control.is_empty() {
            return;
        }
        if self.phase == Phase::Subscribing {
            self.phase = Phase::Serving;
            self.control.push_back(Control::Status(status::ONLINE));
            self.request();
        }
        if self.phase != Phase::Serving {
            return;
        }
        // Readings don't depend on what people ask for by MQTT: a broker that does not allow it is no fault of the link.
        let is_own = |filter: &str| request::is_filter(filter) || command::is_filter(filter) || twin::is_filter(filter);
        let sources = self.subscriptions.refused().into_iter().filter(|(filter, _)| !is_own(filter));
        let refused: Vec<RefusedFilter> = sources.map(|(filter, reason)| RefusedFilter { filter, reason }).collect();
        self.rooms.metrics.broker_connected.set(i64::from(refused.is_empty()));
        self.ask_again_at = Instant::now() + self.settings.timing.ask_again;
        let link = if refused.is_empty() { Link::Up } else { Link::Partial { refused } };
        self.rooms.link.send_if_modified(|current| {
            let changed = *current != link;
            *current = link;
            changed
        });
    }

    fn published(&mut self, packet_id: u16, refusal: Option<&'static str>, unheard: bool) {
        let Some(ours) = self.publishes.answered(packet_id) else { return };
        match refusal {
            None => {
                self.rooms.metrics.messages_published.inc();
            }
            Some(reason) => {
                self.rooms.metrics.publish_errors.get_or_create(&ByReason { reason }).inc();
            }
        }
        match (ours, refusal) {
            (Ours::Parcel(number), None) => {
                self.memory.outbox.taken(number, unheard);
            }
            (Ours::Parcel(number), Some(reason)) => {
                self.memory.outbox.answer(number, Answer::Refused(reason));
            }
            (Ours::Status(payload), Some(reason)) => {
                tracing::warn!(payload, reason, "the broker refused the status message");
            }
            (Ours::Status(_), None) => {}
        }
    }

    fn begin_stop(&mut self) -> Result<(), End> {
        if self.phase == Phase::Connecting {
            return Err(End::Stopped);
        }
        self.phase = Phase::Draining { until: Instant::now() + self.settings.timing.drain };
        self.control.clear();
        self.advance(Instant::now)
    }

    /// After each event: hands over what waits, and takes the next step of a stop.
    fn advance(&mut self, now: impl Fn() -> Instant) -> Result<(), End> {
        let client = &self.client;
        self.rooms.ledger.pump(|receipt| client.acknowledge(receipt).is_ok());
        if !self.control.is_empty() {
            self.request();
            self.settle();
        }
        self.post();
        if let Phase::Draining { until } = self.phase {
            let settled = self.rooms.ledger.is_settled();
            if settled || now() >= until {
                if !settled {
                    tracing::warn!("stopping with unacknowledged messages; the broker delivers them again");
                }
                self.phase = Phase::Leaving { until: now() + self.settings.timing.drain };
                self.control.push_back(Control::Status(status::OFFLINE));
                self.request();
            }
        }
        if let Phase::Leaving { until } = self.phase
            && ((self.publishes.is_empty() && self.control.is_empty()) || now() >= until)
        {
            self.phase = Phase::Closing { until: now() + CLOSING };
            self.control.push_back(Control::Disconnect);
            self.request();
        }
        match self.phase {
            Phase::Closing { until } if now() >= until => Err(End::Stopped),
            _ => Ok(()),
        }
    }

    /// Deadlines, at each tick.
    fn check(&mut self, now: Instant) -> Result<(), End> {
        if let Some(silent) = self.watchdog.check(now) {
            return Err(End::Lost(Loss::Stalled(silent)));
        }
        self.advance(|| now)?;
        if !matches!(self.phase, Phase::Subscribing | Phase::Serving) {
            return Ok(());
        }
        let overdue = |asked: Option<Instant>| {
            asked.is_some_and(|at| now.saturating_duration_since(at) >= self.settings.timing.answer)
        };
        if overdue(self.subscriptions.oldest()) {
            return Err(End::Lost(Loss::Unanswered("SUBSCRIBE")));
        }
        if overdue(self.publishes.oldest()) {
            return Err(End::Lost(Loss::Unanswered("PUBLISH")));
        }
        if self.phase == Phase::Serving && now >= self.ask_again_at && self.subscriptions.is_settled() {
            self.ask_again_at = now + self.settings.timing.ask_again;
            let again = self.subscriptions.ask_again();
            self.control.extend(again.into_iter().map(Control::Ask));
            self.request();
        }
        Ok(())
    }
}
