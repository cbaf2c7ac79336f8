//! A load source for any broker: simulated devices, paced, and what became of their messages.

pub mod answers;
mod envelopes;
mod fleet;
mod makes;
mod orders;
mod sparkplug;
mod walk;

pub use crate::mqtt::load::{Outgoing, Target, TargetError};
pub use fleet::{Fleet, Kind, demo_sources};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::mqtt::load::{self, Due, LoadError, Settings, Supply, Tally};

/// How much is published, and how fast.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Connections that the devices share; a device keeps to one.
    pub connections: usize,
    /// Messages a second of all devices together; 0: as fast as they are acknowledged.
    pub rate: f64,
    /// Messages of all devices together; none: until `duration` is over or the run is stopped.
    pub messages: Option<u64>,
    pub duration: Option<Duration>,
}

/// What became of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    pub devices: usize,
    pub connections: usize,
    pub qos: u8,
    pub published: u64,
    pub acknowledged: u64,
    /// By the broker's reason, as MQTT 5 names it.
    pub refused: BTreeMap<String, u64>,
    /// Published, or about to be, and neither acknowledged nor refused in time.
    pub unacknowledged: u64,
    /// Published again after a lost connection.
    pub resent: u64,
    pub connects: u64,
    pub seconds: f64,
    pub messages_per_second: f64,
    /// PUBLISH to acknowledgement.
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    /// What became of commands to the devices, where they answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commands: Option<CommandSummary>,
    /// Why a connection was given up.
    pub errors: Vec<String>,
}

/// What devices have made of commands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CommandSummary {
    /// Or refused as the device would.
    pub carried_out: u64,
    /// Heard more than once, and carried out once.
    pub repeated: u64,
    /// At once: what a Sparkplug node reports comes in its turn.
    pub answered: u64,
}

impl Summary {
    /// Whether the broker took over everything. At QoS 0 it never says; sent is all that is known.
    pub fn all_acknowledged(&self) -> bool {
        self.errors.is_empty() && self.unacknowledged == 0 && self.refused.is_empty()
    }
}

/// Publishes as planned until done or stopped, then waits for the acknowledgements still due.
///
/// # Errors
/// [`LoadError::Settings`] for settings that can't be used. A broker that can't be reached, or is lost for
/// too long, is told in the summary.
pub async fn run(
    fleet: Fleet,
    plan: Plan,
    settings: &Settings,
    tally: Arc<Tally>,
    stop: CancellationToken,
) -> Result<Summary, LoadError> {
    settings.check()?;
    let devices = fleet.len();
    let fleets = fleet.split(plan.connections);
    let connections = fleets.len();
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for (index, fleet) in fleets.into_iter().enumerate() {
        let mut pace = Pace::new(fleet, plan, index, connections, started);
        let settings = settings.for_connection(index);
        let (tally, stop) = (Arc::clone(&tally), stop.clone());
        tasks.spawn(async move { load::publish_all(&settings, &mut pace, &tally, &stop).await });
    }
    let mut errors = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => errors.push(error.to_string()),
            Err(panic) => errors.push(panic.to_string()),
        }
    }
    errors.dedup();
    Ok(summary(&tally, devices, connections, settings.qos, started.elapsed(), errors))
}

fn summary(tally: &Tally, devices: usize, connections: usize, qos: u8, took: Duration, errors: Vec<String>) -> Summary {
    let counts = tally.counts();
    let refused = tally.refused();
    let settled = if qos == 0 { counts.published } else { counts.acknowledged + refused.values().sum::<u64>() };
    let seconds = took.as_secs_f64();
    let done = if qos == 0 { counts.published } else { counts.acknowledged };
    let milliseconds = |share| tally.latency.quantile(share).map(|latency| latency.as_secs_f64() * 1e3);
    Summary {
        devices,
        connections,
        qos,
        published: counts.published,
        acknowledged: counts.acknowledged,
        refused,
        unacknowledged: counts.handed.saturating_sub(settled),
        resent: counts.resent,
        connects: counts.connects,
        seconds,
        messages_per_second: if seconds > 0.0 { done as f64 / seconds } else { 0.0 },
        p50_ms: milliseconds(0.5),
        p99_ms: milliseconds(0.99),
        commands: None,
        errors,
    }
}

/// One connection's share of the plan.
struct Pace {
    fleet: Fleet,
    started: Instant,
    /// Messages a second of this connection; 0: unpaced.
    rate: f64,
    left: Option<u64>,
    until: Option<Instant>,
    sent: u64,
}

impl Pace {
    /// Messages due within this are sent together.
    const TICK: Duration = Duration::from_millis(1);

    fn new(fleet: Fleet, plan: Plan, index: usize, connections: usize, started: Instant) -> Pace {
        let (parts, index) = (connections.max(1) as u64, index as u64);
        let left = plan.messages.map(|all| all / parts + u64::from(index < all % parts));
        let until = plan.duration.and_then(|duration| started.checked_add(duration));
        Pace { fleet, started, rate: plan.rate / parts as f64, left, until, sent: 0 }
    }

    fn next_at(&mut self, now: Instant) -> Due {
        if self.left == Some(0) || self.until.is_some_and(|until| now >= until) {
            return Due::Done;
        }
        if self.rate > 0.0 {
            let due = Duration::try_from_secs_f64(self.sent as f64 / self.rate).unwrap_or(Duration::MAX);
            let early = due.saturating_sub(now.duration_since(self.started));
            if !early.is_zero() {
                let rest = self.until.map_or(early, |until| early.min(until.duration_since(now)));
                return Due::Wait(rest.max(Self::TICK));
            }
        }
        let Some(message) = self.fleet.publish() else { return Due::Done };
        self.left = self.left.map(|left| left.saturating_sub(1));
        self.sent = self.sent.saturating_add(1);
        Due::Message(message)
    }
}

impl Supply for Pace {
    fn next(&mut self) -> Due {
        self.next_at(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(plan: Plan, index: usize, connections: usize, started: Instant) -> Pace {
        Pace::new(Fleet::new(&[(Kind::Climate, 3)], "", 1, false), plan, index, connections, started)
    }

    fn burst(pace: &mut Pace, now: Instant) -> usize {
        std::iter::from_fn(|| matches!(pace.next_at(now), Due::Message(_)).then_some(())).take(100_000).count()
    }

    #[test]
    fn a_rate_is_shared_by_the_connections_and_kept() {
        let started = Instant::now();
        let plan = Plan { connections: 4, rate: 1000.0, messages: None, duration: Some(Duration::from_secs(2)) };
        let mut pace = pace(plan, 0, 4, started);
        assert_eq!(burst(&mut pace, started), 1);
        assert_eq!(burst(&mut pace, started + Duration::from_secs(1)), 250);
        assert_eq!(burst(&mut pace, started + Duration::from_millis(1500)), 125);
        assert!(matches!(pace.next_at(started + Duration::from_secs(2)), Due::Done));
    }

    #[test]
    fn a_count_is_shared_out_exactly() {
        let started = Instant::now();
        let plan = Plan { connections: 4, rate: 0.0, messages: Some(1003), duration: None };
        let shares: Vec<usize> = (0..4).map(|index| burst(&mut pace(plan, index, 4, started), started)).collect();
        assert_eq!(shares, [251, 251, 251, 250]);
    }
}
