//! Counts devices by their status, for the metric.

use std::time::Duration;

use super::{Chore, Next};
use crate::metrics::{ByStatus, Metrics};
use crate::store::connections::STATUSES;
use crate::store::{Store, StoreError};
use crate::time::UtcMicros;

/// Between two counts.
const EVERY: Duration = Duration::from_secs(10);

/// The chore.
pub struct DeviceStatus {
    metrics: Metrics,
}

impl DeviceStatus {
    pub fn new(metrics: Metrics) -> DeviceStatus {
        DeviceStatus { metrics }
    }
}

impl Chore for DeviceStatus {
    fn name(&self) -> &'static str {
        "device_status"
    }

    fn step(&mut self, store: &Store, now: UtcMicros) -> Result<Next, StoreError> {
        let found = store.devices_by_status()?;
        for status in STATUSES {
            let count = found.iter().find(|(word, _)| word == status).map_or(0, |(_, count)| *count);
            self.metrics.devices.get_or_create(&ByStatus { status }).set(count);
        }
        Ok(Next::At(now.checked_add(EVERY).unwrap_or(now)))
    }
}
