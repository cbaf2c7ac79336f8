//! What this connection is subscribed to, and how it stands by that.

use tokio::sync::watch;
use tokio::time::Instant;

use super::{Control, End, Live, Phase};
use crate::alert::request;
use crate::command;
use crate::mqtt::protocol;
use crate::mqtt::session::{Link, RefusedFilter};
use crate::mqtt::status;
use crate::twin;

impl Live<'_> {
    pub(super) fn change_filters(&mut self, filters: &mut watch::Receiver<Vec<String>>) -> Result<(), End> {
        // Before the CONNACK nothing is asked; then the newest list is.
        if matches!(self.phase, Phase::Subscribing | Phase::Serving) {
            self.subscribe(filters);
            self.settle();
        }
        Ok(())
    }

    pub(super) fn subscribe(&mut self, filters: &mut watch::Receiver<Vec<String>>) {
        let wanted = filters.borrow_and_update().clone();
        let asks = self.subscriptions.want(&wanted, &self.memory.held, protocol::valid_filter);
        self.memory.held.extend(wanted);
        self.control.extend(asks.into_iter().map(Control::Ask));
        self.request();
    }

    pub(super) fn report_refused(&self, refused: &[(String, &'static str)]) {
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
    pub(super) fn settle(&mut self) {
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
}
