//! A device that publishes numbers at a steady pace beside the load, and remembers when.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use tidegate::config::Transport;
use tidegate::mqtt::load::{Due, Outgoing, Settings, Supply, Tally, publish_all};
use tidegate::simulate::Target;
use tokio_util::sync::CancellationToken;

/// Uid of the device.
pub const DEVICE: &str = "probe";

/// When each number was due, from 0. Kept for the whole scenario.
#[derive(Clone, Default)]
pub struct Stamps {
    sent: Arc<Mutex<Vec<Instant>>>,
}

impl Stamps {
    /// When this number was due to be published.
    pub fn of(&self, number: usize) -> Option<Instant> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).get(number).copied()
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).len() as u64
    }

    fn add(&self, due: Instant) -> usize {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.push(due);
        sent.len() - 1
    }
}

/// Publishes until ended.
pub struct Probe {
    stop: CancellationToken,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Probe {
    /// One number each `every`; at QoS 1.
    pub fn start(port: u16, every: Duration, stamps: &Stamps) -> Probe {
        let stop = CancellationToken::new();
        let mut pace = Pace { stamps: stamps.clone(), every, next: Instant::now(), left: None };
        let stopping = stop.clone();
        let thread = std::thread::spawn(move || publish(port, &mut pace, &stopping));
        Probe { stop, thread }
    }

    /// Publishes one number, and waits until the broker has acknowledged it.
    ///
    /// # Errors
    /// When the broker does not.
    pub fn once(port: u16, stamps: &Stamps) -> anyhow::Result<()> {
        let mut pace = Pace { stamps: stamps.clone(), every: Duration::ZERO, next: Instant::now(), left: Some(1) };
        publish(port, &mut pace, &CancellationToken::new())
    }

    /// Ends it; everything published is then acknowledged by the broker.
    ///
    /// # Errors
    /// When it was not.
    pub fn end(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.thread.join().map_err(|_| anyhow!("the probe panicked"))?
    }
}

fn publish(port: u16, pace: &mut Pace, stop: &CancellationToken) -> anyhow::Result<()> {
    static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
    let target = Target { transport: Transport::Tcp, host: "127.0.0.1".to_owned(), port, path: "/mqtt".to_owned() };
    let settings = Settings {
        target,
        client_id: format!("probe-{}", CONNECTIONS.fetch_add(1, Ordering::Relaxed)),
        credentials: None,
        ca: None,
        qos: 1,
        window: 1000,
        grace: Duration::from_secs(120),
        give_up: Duration::from_secs(60),
    };
    let tally = Tally::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(publish_all(&settings, pace, &tally, stop))?;
    let counts = tally.counts();
    anyhow::ensure!(counts.handed == counts.acknowledged, "the broker did not acknowledge the probe: {counts:?}");
    Ok(())
}

struct Pace {
    stamps: Stamps,
    every: Duration,
    next: Instant,
    left: Option<u64>,
}

impl Supply for Pace {
    fn next(&mut self) -> Due {
        if self.left == Some(0) {
            return Due::Done;
        }
        let wait = self.next.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            return Due::Wait(wait);
        }
        // From when it was due: a broker that lets it wait is part of what is measured.
        let number = self.stamps.add(self.next);
        self.next += self.every;
        self.left = self.left.map(|left| left - 1);
        Due::Message(Outgoing {
            topic: format!("probe/{DEVICE}/telemetry"),
            payload: format!("{{\"n\":{number}}}").into_bytes(),
        })
    }
}
