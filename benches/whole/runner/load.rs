//! `tidegate simulate` as the devices.

use std::time::{Duration, Instant};

use super::scenario::Setup;
use crate::support::load::Simulation;

/// What the devices do.
pub struct Load<'a> {
    pub setup: &'a Setup,
    pub port: u16,
    /// Another for each repetition: the same seed would send the same values.
    pub seed: u64,
}

/// What became of it.
pub struct Sent {
    /// When the first connection was made.
    pub began: Instant,
    /// As the devices see it: of mosquitto's acknowledgement, or of the embedded broker's.
    pub puback_p50_ms: Option<f64>,
    pub puback_p99_ms: Option<f64>,
}

impl Load<'_> {
    /// Connections that the devices share, and messages under way on each.
    const CONNECTIONS: u32 = 4;
    const WINDOW: u32 = 100;

    /// So many messages, as fast as they are acknowledged. Waits for the end.
    pub fn flood(&self, messages: u64) -> Sent {
        Load::finish(self.start(&["--messages", &messages.to_string()]))
    }

    /// So many messages at a rate, messages a second, beside whatever else is done.
    pub fn paced(&self, messages: u64, rate: f64) -> Simulation {
        self.start(&["--messages", &messages.to_string(), "--rate", &rate.to_string()])
    }

    /// Waits for the end; panics unless everything was acknowledged.
    pub fn finish(simulation: Simulation) -> Sent {
        let summary = simulation.finish();
        let ended = Instant::now();
        let took = Duration::from_secs_f64(summary["seconds"].as_f64().unwrap_or(0.0));
        Sent {
            began: ended.checked_sub(took).unwrap_or(ended),
            puback_p50_ms: summary["p50_ms"].as_f64(),
            puback_p99_ms: summary["p99_ms"].as_f64(),
        }
    }

    fn start(&self, how_much: &[&str]) -> Simulation {
        let Setup { metrics, devices, qos, .. } = self.setup;
        let common = [
            ("--metrics", metrics.to_string()),
            ("--devices", devices.to_string()),
            ("--qos", qos.to_string()),
            ("--connections", Load::CONNECTIONS.to_string()),
            ("--window", Load::WINDOW.to_string()),
            ("--seed", self.seed.to_string()),
            ("--client-id", format!("load-{}", self.seed)),
            ("--patience", "120s".to_owned()),
        ];
        let mut arguments: Vec<&str> = common.iter().flat_map(|(name, value)| [*name, value.as_str()]).collect();
        arguments.extend(how_much);
        Simulation::start(self.port, &arguments)
    }
}
