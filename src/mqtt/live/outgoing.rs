//! What this connection publishes and asks for.

use tokio::time::Instant;

use super::{Control, Live, Ours, Phase};
use crate::crash;
use crate::errands::Errand;
use crate::metrics::ByReason;
use crate::mqtt::parcel::{Answer, Parcel};
use crate::mqtt::protocol::Sent;
use crate::mqtt::status;

impl Live<'_> {
    /// Whether an errand would be sent at once.
    pub(super) fn has_room(&self) -> bool {
        self.phase == Phase::Serving && self.control.is_empty()
    }

    pub(super) fn run_errand(&mut self, errand: Option<Errand>) {
        let Some(errand) = errand else { return };
        if errand.is_late() {
            self.rooms.metrics.errands_dropped.get_or_create(&ByReason { reason: "late" }).inc();
            return;
        }
        self.control.push_back(Control::Errand(errand));
        self.request();
    }

    /// Whether a parcel would be published at once.
    pub(super) fn takes_parcels(&self) -> bool {
        self.has_room() && self.memory.outbox.has_room()
    }

    pub(super) fn put_parcel(&mut self, parcel: Option<Parcel>) {
        let Some(parcel) = parcel else { return };
        self.memory.outbox.put(parcel);
        self.post();
    }

    /// Publishes the parcels that this connection has not been given yet, as far as there is room.
    pub(super) fn post(&mut self) {
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
    pub(super) fn request(&mut self) {
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

    pub(super) fn went_out(&mut self, sent: Sent) {
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

    pub(super) fn published(&mut self, packet_id: u16, refusal: Option<&'static str>, unheard: bool) {
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
}
