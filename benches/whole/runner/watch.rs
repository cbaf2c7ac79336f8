//! A connection of its own that looks at what is committed, and when.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tidegate::clock;

use super::database::{Connection, Database};
use super::probe::{DEVICE, Stamps};

/// How long nothing may move before a run is given up.
const PATIENCE: Duration = Duration::from_secs(180);
/// Between two looks, unless told otherwise.
const LOOK: Duration = Duration::from_millis(10);

/// Looks until dropped.
pub struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    stop: AtomicBool,
    every_micros: AtomicU64,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    backend: Option<u32>,
    /// The probe's sensor, and the time from which on it is looked for.
    probe: Option<(i64, i64)>,
    position: i64,
    /// Every change of the position, and when it was seen.
    moves: Vec<(Instant, i64)>,
    /// Numbers of the probe that are visible.
    numbers: usize,
    /// Of each that has become visible, ms.
    latencies: Vec<f64>,
}

impl Watch {
    /// Starts to look; the schema is there.
    pub fn start(database: &Arc<Database>, stamps: &Stamps) -> Watch {
        let every_micros = AtomicU64::new(LOOK.as_micros() as u64);
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), every_micros, seen: Mutex::default() });
        let thread = std::thread::spawn({
            let (shared, database, stamps) = (Arc::clone(&shared), Arc::clone(database), stamps.clone());
            move || shared.look(&database, &stamps)
        });
        Watch { shared, thread: Some(thread) }
    }

    /// Looks this often from now on.
    pub fn look_every(&self, time: Duration) {
        self.shared.every_micros.store(time.as_micros() as u64, Ordering::Relaxed);
    }

    /// Finds the probe's sensor, whose first number is stored, and follows it.
    ///
    /// # Errors
    /// When it is not there.
    pub fn follow_probe(&self, database: &Database) -> anyhow::Result<()> {
        let sql = format!(
            "SELECT CAST(s.id AS bigint) AS n FROM device_sensors s JOIN devices d ON d.id = s.device_id \
             WHERE d.uid = '{DEVICE}' AND s.metric = 'n'"
        );
        let sensor = database.connect()?.number(&sql).context("the probe's sensor")?;
        self.shared.seen().probe = Some((sensor, clock::now().0 - 1_000_000));
        Ok(())
    }

    /// The process that serves it, whose work is not the database's for tidegate.
    pub fn backend(&self) -> Option<u32> {
        self.shared.seen().backend
    }

    /// Messages whose readings are committed.
    pub fn position(&self) -> i64 {
        self.shared.seen().position
    }

    /// Waits until this position is committed; when it was seen to be.
    ///
    /// # Errors
    /// When nothing moves any more.
    pub fn wait_for(&self, position: i64) -> anyhow::Result<Instant> {
        let mut idle = (self.position(), Instant::now());
        loop {
            if let Some(at) = self.shared.seen().reached(position) {
                return Ok(at);
            }
            let now = self.position();
            if now != idle.0 {
                idle = (now, Instant::now());
            }
            anyhow::ensure!(idle.1.elapsed() < PATIENCE, "stuck at position {now}; {position} is waited for");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until the position has not moved for so long; the last, and when it was reached.
    pub fn wait_until_still(&self, time: Duration) -> (i64, Instant) {
        let mut idle = (self.position(), Instant::now());
        while idle.1.elapsed() < time {
            std::thread::sleep(Duration::from_millis(10));
            let now = self.position();
            if now != idle.0 {
                idle = (now, Instant::now());
            }
        }
        let at = self.shared.seen().reached(idle.0).unwrap_or(idle.1);
        (idle.0, at)
    }

    /// The changes of the position since this instant.
    pub fn moves_since(&self, since: Instant) -> Vec<(Instant, i64)> {
        self.shared.seen().moves.iter().copied().filter(|(at, _)| *at >= since).collect()
    }

    /// What the probe has measured since the last call, ms. The changes of the position are forgotten too.
    pub fn take_latencies(&self) -> Vec<f64> {
        let mut seen = self.shared.seen();
        let last = seen.moves.len().saturating_sub(1);
        seen.moves.drain(..last);
        if let Some((_, since)) = &mut seen.probe {
            // No partition of yesterday need be looked at.
            *since = clock::now().0 - 600_000_000;
        }
        std::mem::take(&mut seen.latencies)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self, database: &Database, stamps: &Stamps) {
        let mut connection = None;
        while !self.stop.load(Ordering::Relaxed) {
            if connection.is_none() {
                connection = database.connect().ok();
                self.seen().backend = connection.as_mut().and_then(Connection::backend);
            }
            if let Some(open) = &mut connection {
                let probe = self.seen().probe;
                match open.committed(&question(open, probe)) {
                    Ok(committed) => self.seen().notice(committed.position, committed.probe, stamps),
                    // The database is away, as some scenarios want it.
                    Err(_) => connection = None,
                }
            }
            std::thread::sleep(Duration::from_micros(self.every_micros.load(Ordering::Relaxed)));
        }
    }
}

impl Seen {
    fn reached(&self, position: i64) -> Option<Instant> {
        self.moves.iter().find(|(_, reached)| *reached >= position).map(|(at, _)| *at)
    }

    fn notice(&mut self, position: Option<i64>, probe: Option<f64>, stamps: &Stamps) {
        let now = Instant::now();
        if let Some(position) = position.filter(|position| *position != self.position) {
            self.position = position;
            self.moves.push((now, position));
        }
        // Its numbers begin at 0.
        let visible = probe.map_or(0, |newest| newest as usize + 1);
        for number in self.numbers..visible {
            if let Some(sent) = stamps.of(number) {
                self.latencies.push(now.saturating_duration_since(sent).as_secs_f64() * 1e3);
            }
        }
        self.numbers = self.numbers.max(visible);
    }
}

/// One row, by two primary keys.
fn question(connection: &Connection, probe: Option<(i64, i64)>) -> String {
    let newest = probe.map(|(sensor, since)| {
        format!(
            "SELECT value FROM telemetry WHERE sensor_id = {sensor} AND time >= {} ORDER BY time DESC LIMIT 1",
            connection.instant(since)
        )
    });
    let newest = newest.unwrap_or_else(|| "SELECT CAST(NULL AS double precision)".to_owned());
    format!("SELECT (SELECT position FROM bridge_instances WHERE instance = 'bench') AS position, ({newest}) AS probe")
}
