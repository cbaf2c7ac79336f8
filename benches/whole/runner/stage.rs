//! Private servers, and the release build of tidegate between them.

use std::sync::Arc;

use super::database::{Connection, Database};
use super::pgbouncer::PgBouncer;
use super::process;
use super::scenario::{Broker, Kind, Setup};
use crate::support::daemon::Tidegate;
use crate::support::mosquitto::{self, Mosquitto};
use crate::support::postgres::Postgres;

/// Why a scenario can't be run here.
#[derive(Debug, thiserror::Error)]
#[error("skipped: {0}")]
pub struct Skipped(pub String);

/// Everything that runs; ends with it, tidegate first.
pub struct Stage {
    pub tidegate: Tidegate,
    pub broker: Option<Mosquitto>,
    pub pooler: Option<PgBouncer>,
    pub database: Arc<Database>,
}

/// Processor seconds used so far.
#[derive(Clone, Copy, Default)]
pub struct Used {
    pub tidegate: f64,
    pub broker: f64,
    pub database: f64,
    pub pooler: f64,
    /// By load generators that have ended.
    pub load: f64,
}

impl Stage {
    /// Starts all of it, and waits until tidegate listens to the broker.
    ///
    /// # Errors
    /// [`Skipped`] where something is not installed; a server that does not start.
    pub fn start(setup: &Setup) -> anyhow::Result<Stage> {
        let mut stage = Stage::prepare(setup)?;
        stage.begin();
        Ok(stage)
    }

    /// Starts tidegate.
    pub fn begin(&mut self) {
        self.tidegate.start();
        self.tidegate.listening();
    }

    /// The same, with tidegate not yet started.
    ///
    /// # Errors
    /// As [`Stage::start`].
    pub fn prepare(setup: &Setup) -> anyhow::Result<Stage> {
        // Broker's defaults but for two bounds: its queue must not drop what tidegate has not read yet, and the devices'
        // own window of 20 would be what is measured.
        let extra = "max_queued_messages 0\nmax_inflight_messages 1000".to_owned();
        let broker = match setup.broker {
            Broker::Mosquitto => Some(Mosquitto::start(mosquitto::Setup { extra, ..mosquitto::Setup::default() })),
            Broker::Embedded if cfg!(feature = "embedded-broker") => None,
            Broker::Embedded => return Err(Skipped("built without the embedded broker".to_owned()).into()),
        };
        let tidegate = Tidegate::configured("");
        let (database, pooler, url) = match setup.database {
            Kind::Sqlite => {
                let file = tidegate.state_dir().join("tidegate.db");
                (Database::Sqlite(file), None, "sqlite:tidegate.db".to_owned())
            }
            kind => {
                let server = Arc::new(Postgres::stock());
                let url = server.database();
                if kind == Kind::Timescale {
                    with_timescale(&server, &url)?;
                }
                let (_, name) = url.rsplit_once('/').unwrap_or_default();
                let pooler = match kind {
                    Kind::PgBouncer => Some(PgBouncer::start(server.port(), "postgres", "tide")?),
                    _ => None,
                };
                let through = pooler.as_ref().map(|pooler| {
                    url.replace(&format!(":{}/{name}", server.port()), &format!(":{}/{name}", pooler.port))
                });
                let through = through.unwrap_or_else(|| url.clone());
                (Database::Postgres { server, url }, pooler, through)
            }
        };
        tidegate.configure(&configuration(setup, broker.as_ref(), &url));
        tidegate.catalog_file("templates/bench.toml", &template(setup.metrics));
        Ok(Stage { tidegate, broker, pooler, database: Arc::new(database) })
    }

    /// Where devices publish.
    pub fn port(&self) -> u16 {
        self.broker.as_ref().map_or_else(|| self.tidegate.address("broker").port(), |broker| broker.port)
    }

    /// What everybody has used, but for the database's work for the benchmark's own connection.
    pub fn used(&self, own_backend: Option<u32>) -> Used {
        let except: Vec<u32> = own_backend.into_iter().collect();
        Used {
            tidegate: process::cpu(self.tidegate.pid()).as_secs_f64(),
            broker: self.broker.as_ref().and_then(Mosquitto::pid).map_or(0.0, |pid| process::cpu(pid).as_secs_f64()),
            database: self.database.pid().map_or(0.0, |pid| process::cpu_with_children(pid, &except).as_secs_f64()),
            pooler: self.pooler.as_ref().map_or(0.0, |pooler| process::cpu(pooler.pid()).as_secs_f64()),
            load: process::cpu_of_ended_children().as_secs_f64(),
        }
    }
}

impl std::ops::Sub for Used {
    type Output = Used;

    fn sub(self, before: Used) -> Used {
        Used {
            tidegate: self.tidegate - before.tidegate,
            broker: self.broker - before.broker,
            database: self.database - before.database,
            pooler: self.pooler - before.pooler,
            load: self.load - before.load,
        }
    }
}

fn with_timescale(server: &Postgres, url: &str) -> anyhow::Result<()> {
    use diesel::connection::SimpleConnection as _;
    use diesel::{Connection as _, PgConnection};

    let mut connection = Connection::Postgres(PgConnection::establish(url)?);
    let there = "SELECT count(*) AS n FROM pg_available_extensions WHERE name = 'timescaledb'";
    if connection.number(there)? == 0 {
        return Err(Skipped("the extension timescaledb is not installed".to_owned()).into());
    }
    server.configure(&["shared_preload_libraries=timescaledb"]);
    server.stop();
    server.restart();
    Ok(PgConnection::establish(url)?.batch_execute("CREATE EXTENSION timescaledb")?)
}

fn configuration(setup: &Setup, broker: Option<&Mosquitto>, database: &str) -> String {
    let broker =
        broker.map_or("embedded://127.0.0.1:0".to_owned(), |broker| format!("mqtt://127.0.0.1:{}", broker.port));
    format!(
        "[instance]\nid = \"bench\"\nstate_dir = \"{{state}}\"\n\
         [broker]\nurl = {broker:?}\nreceive_maximum = {receive_maximum}\n\
         [database]\nurl = {database:?}\npgbouncer = {pgbouncer}\n\
         [http]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n\
         [[sources]]\nname = \"native\"\nfilter = \"devices/{{device}}/telemetry\"\ntemplate = \"bench\"\n\
         [[sources]]\nname = \"probe\"\nfilter = \"probe/{{device}}/telemetry\"\n",
        receive_maximum = setup.receive_maximum,
        pgbouncer = setup.database == Kind::PgBouncer,
    )
}

/// What the simulated devices send, as an operator would model it.
pub fn template(metrics: u32) -> String {
    let mut text = "slug = \"bench\"\nname = \"Bench\"\ncategory = \"sensor\"\nversion = 1\n".to_owned();
    for n in 1..=metrics {
        text.push_str(&format!("[[metric]]\nname = \"q{n}\"\nunit = \"%\"\nkind = \"number\"\n"));
        text.push_str(&format!("keys = [\"m{n}\"]\nrange = [0, 100]\nrequired = true\n"));
    }
    text
}
