//! A stage with a probe and a watch on it, and the account of what was sent.

use std::time::Duration;

use super::load::{Load, Sent};
use super::probe::{Probe, Stamps};
use super::scenario::{Effort, Setup};
use super::stage::Stage;
use super::watch::Watch;
use crate::support::daemon::http_get;
use crate::support::load::Simulation;

/// How often the probe publishes beside the load.
pub const PROBE_EVERY: Duration = Duration::from_millis(25);
/// At QoS 0 nobody says what has arrived: all that will, once nothing moves for so long.
const STILL: Duration = Duration::from_secs(2);

pub struct Rig<'a> {
    pub setup: &'a Setup,
    // Ends before the database does.
    pub watch: Watch,
    pub stage: Stage,
    pub stamps: Stamps,
    /// Messages of the load, all repetitions together.
    messages: u64,
    /// Of those, lost at QoS 0, and counted by tidegate or by the broker.
    pub dropped: u64,
    seed: u64,
}

impl<'a> Rig<'a> {
    /// Starts the servers, brings every device up, and waits until all of that is stored.
    ///
    /// # Errors
    /// As [`Stage::start`].
    pub fn start(setup: &'a Setup, effort: &Effort) -> anyhow::Result<Rig<'a>> {
        Rig::start_with(setup, effort, std::iter::empty())
    }

    /// The same with further files in the catalog, by name and content.
    ///
    /// # Errors
    /// As [`Stage::start`].
    pub fn start_with(
        setup: &'a Setup,
        effort: &Effort,
        files: impl Iterator<Item = (String, String)>,
    ) -> anyhow::Result<Rig<'a>> {
        let mut stage = Stage::prepare(setup)?;
        files.for_each(|(name, text)| stage.tidegate.catalog_file(&name, &text));
        stage.begin();
        let stamps = Stamps::default();
        Probe::once(stage.port(), &stamps)?;
        stage.tidegate.wait_for_metric("tidegate_readings_stored_total", 1.0);
        let watch = Watch::start(&stage.database, &stamps);
        watch.follow_probe(&stage.database)?;
        let mut rig = Rig { setup, watch, stage, stamps, messages: 0, dropped: 0, seed: 0 };
        // At QoS 1 whatever the setup: a device that is dropped in the warm-up would be new in a measured run.
        let careful = Setup { qos: 1, ..*setup };
        rig.load(&careful).flood(setup.warm_up(effort));
        rig.messages += setup.warm_up(effort);
        rig.settle()?;
        rig.watch.take_latencies();
        Ok(rig)
    }

    /// Messages as fast as they are acknowledged. Waits until all are sent.
    pub fn flood(&mut self, messages: u64) -> Sent {
        self.messages += messages;
        let setup = *self.setup;
        self.load(&setup).flood(messages)
    }

    /// Messages at a rate, messages a second.
    pub fn paced(&mut self, messages: u64, rate: f64) -> Simulation {
        self.messages += messages;
        let setup = *self.setup;
        self.load(&setup).paced(messages, rate)
    }

    fn load<'l>(&mut self, setup: &'l Setup) -> Load<'l> {
        self.seed += 1;
        Load { setup, port: self.stage.port(), seed: self.seed }
    }

    /// When the probe's numbers were due.
    pub fn stamps(&self) -> &Stamps {
        &self.stamps
    }

    /// Publishes beside the load until ended.
    pub fn probe(&self, every: Duration) -> Probe {
        Probe::start(self.stage.port(), every, &self.stamps)
    }

    /// The position in the journal once everything sent is stored.
    pub fn end(&self) -> i64 {
        // Messages come to a few thousand million at most.
        (self.messages + self.stamps.count() - self.dropped) as i64
    }

    /// Readings that were sent and not dropped.
    pub fn readings(&self) -> u64 {
        (self.messages - self.dropped) * u64::from(self.setup.metrics) + self.stamps.count()
    }

    /// Waits until everything sent is stored, and says when that was.
    ///
    /// # Errors
    /// When nothing moves any more before that; when messages are missing that nobody has counted.
    pub fn settle(&mut self) -> anyhow::Result<std::time::Instant> {
        if self.setup.qos > 0 {
            return self.watch.wait_for(self.end());
        }
        let (position, at) = self.watch.wait_until_still(STILL);
        let missing = u64::try_from(self.end() - position)?;
        if missing > 0 {
            let told = self.counted_drops()?.saturating_sub(self.dropped);
            anyhow::ensure!(missing == told, "{missing} messages are missing at QoS 0, {told} are counted as dropped");
            self.dropped += missing;
        }
        Ok(at)
    }

    /// Messages that tidegate or mosquitto says it has dropped.
    fn counted_drops(&self) -> anyhow::Result<u64> {
        let text = http_get(self.stage.tidegate.address("http"), "/metrics").1;
        let lines = text.lines().filter(|line| line.starts_with("tidegate_messages_dropped_total{"));
        let own: f64 = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
        let broker = self.stage.broker.as_ref().and_then(|broker| {
            // It publishes these every ten seconds.
            std::thread::sleep(Duration::from_secs(11));
            broker.read_one("$SYS/broker/publish/messages/dropped")?.parse().ok()
        });
        Ok(own as u64 + broker.unwrap_or(0))
    }
}
