//! One connection, from its CONNECT to its end.

mod incoming;
mod listening;
mod outgoing;

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::loss::Loss;
use super::options::Options;
use super::protocol::{self, Client, Connection, Event};
use super::session::{Memory, Orders, Rooms, Settings};
use super::status;
use super::subscriptions::{Ask, Asked, Subscriptions};
use super::watchdog::Watchdog;
use crate::errands::Errand;

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
