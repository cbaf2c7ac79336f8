//! Messages on their way to the journal.

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{End, Live, Phase, ROOM};
use crate::journal::Refused;
use crate::message::Publish;
use crate::metrics::ByReason;
use crate::mqtt::ledger::Receipt;
use crate::mqtt::loss::Loss;

impl Live<'_> {
    /// Hands a message to the journal. One that is not taken stays unacknowledged, for the broker to deliver again.
    pub(super) fn receive(&mut self, mut publish: Publish) -> Result<(), End> {
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

    /// Does not read on while the way to the journal is crowded. mosquitto 2.0 sends thousands of messages beyond the
    /// receive maximum once acknowledgements flow, and all of them again after a reconnect: only this slows it down.
    pub(super) async fn await_room(&mut self, stop: &CancellationToken) -> Result<(), End> {
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
}
