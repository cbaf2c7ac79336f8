//! The pipeline's part in it: lets the observer see what each message tells, and gives the journal's clock a tick when a silence is
//! due and nothing comes.

use std::time::Duration;

use bytes::Bytes;

use super::{Before, Observer, Sighting};
use crate::alert::transition::TICK_TOPIC;
use crate::catalog::Snapshot;
use crate::config::Devices;
use crate::journal::Inbox;
use crate::message::{Message, Publish};
use crate::metrics::Metrics;
use crate::store::batch::Batch;
use crate::time::UtcMicros;

/// Between two ticks at least: a fleet that falls silent device by device is not worth a message for each.
const BETWEEN_TICKS: Duration = Duration::from_millis(500);

/// What watches over devices' connections.
pub struct Watch {
    pub observer: Observer,
    /// For ticks.
    pub inbox: Inbox,
    pub metrics: Metrics,
    /// When the last tick was put into the journal, and whether it is still on its way.
    pub ticked: Option<(UtcMicros, bool)>,
}

impl Watch {
    /// Takes what a message that has been normalized into `batch` tells of devices.
    pub fn message(&mut self, message: &Message, sightings: &[Sighting], before: Before, batch: &mut Batch) {
        if let Some((at, waits)) = &mut self.ticked {
            *waits &= message.received_at < *at;
        }
        self.observer.message(message.received_at, sightings, before, batch);
        let changes = self.observer.take_changes();
        if changes > 0 {
            self.metrics.connection_changes.inc_by(changes);
        }
    }

    /// Takes another configuration and catalog.
    pub fn replace(&mut self, settings: &Devices, snapshot: &Snapshot) {
        self.observer.replace(settings, snapshot);
    }

    /// How long nothing needs to be done though no message comes; none: for ever.
    pub fn rests(&mut self, now: UtcMicros) -> Option<Duration> {
        let due = self.due()?;
        Some(due.since(now).max(Duration::from_millis(2)))
    }

    /// Nothing has come: puts a tick into the journal if a silence is due. One that finds no room is tried again with the next look.
    pub fn tick(&mut self, now: UtcMicros) {
        if self.due().is_none_or(|due| due > now) {
            return;
        }
        let publish = Publish::plain(TICK_TOPIC, Bytes::new(), 0);
        if self.inbox.submit(publish, None).is_ok() {
            self.ticked = Some((now, true));
        }
    }

    /// When the next tick is to be made; none: one is on its way, or none is needed.
    fn due(&mut self) -> Option<UtcMicros> {
        let due = self.observer.next_due()?;
        match self.ticked {
            Some((_, true)) => None,
            Some((at, false)) => at.checked_add(BETWEEN_TICKS).map(|earliest| due.max(earliest)),
            None => Some(due),
        }
    }
}
