//! Writes tidegate's own figures to the table `system_metrics`, and deletes those that are old.

use std::collections::HashMap;
use std::time::Duration;

use super::exposition::Reader;
use super::{Chore, Next};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::store::figures::Figure;
use crate::store::{Store, StoreError};
use crate::time::UtcMicros;

/// A figure that does not change is written this often, so that a query finds one without going far back.
const UNCHANGED: Duration = Duration::from_secs(3600);
/// Between two looks for old figures.
const LOOK: Duration = Duration::from_secs(3600);
/// Figures deleted in one step.
const AT_ONCE: u32 = 5_000;

/// The chore.
pub struct Figures {
    instance: String,
    every: Duration,
    retain: Duration,
    metrics: Metrics,
    reader: Reader,
    /// By name and labels, what was written last.
    written: HashMap<(String, String), f64>,
    /// When everything is to be written again, changed or not.
    whole_due: Option<UtcMicros>,
    write_due: Option<UtcMicros>,
    look_due: Option<UtcMicros>,
}

impl Figures {
    /// None where `figures.every` is off.
    pub fn new(config: &Config, metrics: Metrics) -> Option<Figures> {
        Some(Figures {
            instance: config.instance.id.clone(),
            every: config.figures.every?,
            retain: config.figures.retain,
            metrics,
            reader: Reader::default(),
            written: HashMap::new(),
            whole_due: None,
            write_due: None,
            look_due: None,
        })
    }

    fn write(&mut self, store: &Store, now: UtcMicros) -> Result<(), StoreError> {
        // Formatting into a string does not fail.
        let reading = self.reader.read(&self.metrics.encode().unwrap_or_default());
        let whole = is_due(self.whole_due, now);
        let changed: Vec<Figure> =
            reading.figures.iter().filter(|figure| whole || self.is_new(figure)).cloned().collect();
        let written = store.write_figures(&self.instance, now, &changed)?;
        self.metrics.figures_written.inc_by(written);
        if whole {
            self.whole_due = now.checked_add(UNCHANGED);
        }
        self.written.extend(changed.into_iter().map(|figure| ((figure.name, figure.labels), figure.value)));
        self.reader.stored(reading);
        Ok(())
    }

    fn is_new(&self, figure: &Figure) -> bool {
        // A quantile is of its own time, so it is always news.
        let known = self.written.get(&(figure.name.clone(), figure.labels.clone()));
        figure.labels.contains("quantile=") || known.is_none_or(|known| known.to_bits() != figure.value.to_bits())
    }

    /// Returns whether there is more to delete.
    fn expire(&mut self, store: &Store, now: UtcMicros) -> Result<bool, StoreError> {
        let Some(before) = now.checked_sub(self.retain) else { return Ok(false) };
        let expired = store.expire_figures(before, AT_ONCE)?;
        self.metrics.figures_expired.inc_by(expired.figures);
        Ok(expired.more)
    }
}

/// What was never done is due.
fn is_due(due: Option<UtcMicros>, now: UtcMicros) -> bool {
    due.is_none_or(|due| due <= now)
}

impl Chore for Figures {
    fn name(&self) -> &'static str {
        "figures"
    }

    fn step(&mut self, store: &Store, now: UtcMicros) -> Result<Next, StoreError> {
        if is_due(self.write_due, now) {
            self.write(store, now)?;
            self.write_due = now.checked_add(self.every);
        }
        if is_due(self.look_due, now) {
            if self.expire(store, now)? {
                return Ok(Next::AtOnce);
            }
            self.look_due = now.checked_add(LOOK);
        }
        let next = [self.write_due, self.look_due].into_iter().flatten().min();
        Ok(Next::At(next.unwrap_or(now)))
    }
}
