//! The store's writer without broker, journal and decoding, beside the plain client, batch for batch into one table.

use std::time::{Duration, Instant};

use tidegate::catalog::Kind as Values;
use tidegate::clock;
use tidegate::config::{Config, Database as Settings, DatabaseUrl, Secret};
use tidegate::metrics::Metrics;
use tidegate::store::batch::{Batch, DeviceIntro, Reading, SensorIntro, SensorOrigin};
use tidegate::store::{BatchWriter, Store};
use tidegate::time::UtcMicros;

use super::copy::{self, BATCH, Rows};
use super::database::Database;
use super::results::{self, Outcome};
use super::scenario::{Effort, Setup};
use super::stage::Stage;

/// A name that no other writer of the database has.
const INSTANCE: &str = "bench-writer";

/// tidegate makes the database as it always does and is stopped; then writer and client take turns.
///
/// # Errors
/// The database's, and a wrong count.
pub fn measure(setup: &Setup, effort: &Effort, outcome: &mut Outcome) -> anyhow::Result<()> {
    let mut stage = Stage::start(setup)?;
    crate::support::daemon::eventually("the database is open", || stage.tidegate.said("database open"));
    stage.tidegate.stop();
    outcome.layout = stage.database.layout()?.to_owned();
    let store = Store::open(&settings(&stage.database))?;
    store.position(INSTANCE, INSTANCE)?;
    let metrics = Metrics::new();
    let mut writer = BatchWriter::new(store, INSTANCE, INSTANCE, metrics);
    let mut batches = Batches::new(setup);
    let rounds = (setup.messages(effort) * u64::from(setup.metrics) / BATCH as u64).max(1);
    let mut stored = 0;
    for repetition in 0..=effort.repetitions {
        let (mut ours, mut theirs) = (Duration::ZERO, Duration::ZERO);
        let mut connection = stage.database.connect()?;
        let mut rows = Rows::new(setup);
        for _ in 0..rounds {
            let batch = batches.next(stored == 0);
            let started = Instant::now();
            let committed = writer.commit(&batch, &|_| None)?;
            ours += started.elapsed();
            anyhow::ensure!(committed.stored == BATCH as u64, "a batch of {BATCH} came to {committed:?}");
            stored += committed.stored;
            theirs += copy::insert(&mut connection, &rows.batch())?;
        }
        // The first is the warm-up.
        if repetition > 0 {
            let count = (rounds * BATCH as u64) as f64;
            let ratio = theirs.as_secs_f64() / ours.as_secs_f64();
            outcome.add(results::RATE, "readings/s", count / ours.as_secs_f64());
            outcome.add(results::CEILING, "readings/s", count / theirs.as_secs_f64());
            outcome.add(results::OF_CEILING, "", ratio);
            eprintln!("  {repetition}: {:.0} readings/s, {ratio:.2} of the plain client", count / ours.as_secs_f64());
        }
    }
    stage.database.holds_exactly(stored)?;
    outcome.rows = stored;
    Ok(())
}

fn settings(database: &Database) -> Settings {
    let url = match database {
        Database::Postgres { url, .. } => DatabaseUrl::Postgres(Secret::new(url.clone())),
        Database::Sqlite(file) => DatabaseUrl::Sqlite(file.clone()),
    };
    Settings { url, ..Config::default().database }
}

/// What the pipeline would hand over.
struct Batches {
    devices: u32,
    metrics: u32,
    message: u32,
    position: u64,
    began: UtcMicros,
}

impl Batches {
    fn new(setup: &Setup) -> Batches {
        Batches { devices: setup.devices, metrics: setup.metrics, message: 0, position: 0, began: clock::now() }
    }

    /// The next [`BATCH`] readings; with the first, every device and sensor.
    fn next(&mut self, first: bool) -> Batch {
        let mut batch = Batch { generation: 1, oldest: Some(self.began), ..Batch::default() };
        if first {
            self.introduce(&mut batch);
        }
        while batch.readings.len() < BATCH {
            let device = self.message % self.devices;
            let time = UtcMicros(self.began.0 + i64::from(self.message));
            self.position += 1;
            let sensors = device * self.metrics..(device + 1) * self.metrics;
            let (seq, left) = (self.position, BATCH - batch.readings.len());
            let readings = sensors.map(|sensor| Reading { sensor, time, value: fastrand::f64(), seq });
            batch.readings.extend(readings.take(left));
            batch.seen.push((device, time));
            batch.messages += 1;
            self.message += 1;
        }
        batch.position = self.position;
        batch
    }

    fn introduce(&self, batch: &mut Batch) {
        for device in 0..self.devices {
            batch.devices.push(DeviceIntro {
                index: device,
                id: None,
                tenant: "default".into(),
                uid: format!("writer-{device}").into(),
                template: None,
                template_by: None,
                told: Vec::new(),
                protocol: None,
                protocol_why: None,
                source: "native".to_owned(),
                first_seen: self.began,
            });
            for metric in 0..self.metrics {
                batch.sensors.push(SensorIntro {
                    index: device * self.metrics + metric,
                    id: None,
                    device,
                    module: None,
                    metric: format!("m{metric}").into(),
                    unit: String::new(),
                    kind: Values::Number,
                    plain: true,
                    origin: SensorOrigin::Unmodeled,
                    raw_key: None,
                });
            }
        }
    }
}
