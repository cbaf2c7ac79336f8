//! The scenarios by name.

use std::time::Duration;

/// Something that is measured.
pub struct Scenario {
    pub name: &'static str,
    pub about: &'static str,
    /// Only when asked for.
    pub long: bool,
    pub shape: Shape,
}

/// How it is measured.
pub enum Shape {
    /// As fast as the broker takes it.
    Full(Setup),
    /// At a rate far below what it can do: latency.
    Steady(Setup),
    /// At such a rate: alerts on MQTT.
    Alerts(Setup),
    /// One command for every device.
    Jobs(Setup),
    /// The database goes away and comes back.
    Outage(Setup),
    /// A long time at a rate.
    Soak(Setup),
    /// A start with many devices known.
    Start(Setup),
    /// The store's writer without the rest, beside a plain client.
    Writer(Setup),
    /// One message at a time.
    Idle,
}

/// Which servers, and what the devices send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    pub broker: Broker,
    pub database: Kind,
    /// Numbers in a message.
    pub metrics: u32,
    pub devices: u32,
    pub qos: u8,
    /// tidegate's; it bounds what the broker has under way to it.
    pub receive_maximum: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broker {
    Mosquitto,
    Embedded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Without extensions.
    Postgres,
    Timescale,
    PgBouncer,
    Sqlite,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Postgres => "PostgreSQL",
            Kind::Timescale => "PostgreSQL with TimescaleDB",
            Kind::PgBouncer => "PostgreSQL through PgBouncer",
            Kind::Sqlite => "SQLite",
        }
    }
}

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub repetitions: u32,
    /// Of one repetition; none: the scenario's own.
    pub messages: Option<u64>,
    /// Readings a second; none: the scenario's own.
    pub rate: Option<u64>,
    /// Of the soak.
    pub duration: Option<Duration>,
    /// How long the database is away.
    pub outage: Option<Duration>,
}

/// What most scenarios have in common.
const USUAL: Setup = Setup {
    broker: Broker::Mosquitto,
    database: Kind::Postgres,
    metrics: 10,
    devices: 1000,
    qos: 1,
    receive_maximum: 1000,
};

impl Setup {
    /// Messages of a repetition: about a million readings, and long enough for a small message's cost to show.
    pub fn messages(&self, effort: &Effort) -> u64 {
        effort.messages.unwrap_or_else(|| (1_000_000 / u64::from(self.metrics)).clamp(20_000, 100_000))
    }

    /// Messages that bring every device up, and the caches of everybody.
    pub fn warm_up(&self, effort: &Effort) -> u64 {
        (self.messages(effort) / 5).max(u64::from(self.devices))
    }
}

/// Every scenario, in the order in which they are run.
pub fn all() -> Vec<Scenario> {
    let full = |name, about, setup| Scenario { name, about, long: false, shape: Shape::Full(setup) };
    let other = |name, about, shape| Scenario { name, about, long: false, shape };
    let metrics = |metrics| Setup { metrics, ..USUAL };
    let devices = |devices| Setup { devices, ..USUAL };
    let into = |database| Setup { database, ..USUAL };
    let fleet = |database| Setup { database, metrics: 1, devices: 10_000, ..USUAL };
    vec![
        full("metrics-1", "1 metric a message; mosquitto, QoS 1, PostgreSQL, 1,000 devices", metrics(1)),
        full("metrics-5", "5 metrics a message", metrics(5)),
        full("metrics-10", "10 metrics a message", metrics(10)),
        full("metrics-50", "50 metrics a message", metrics(50)),
        full("devices-10", "10 devices, 10 metrics a message", devices(10)),
        full("devices-1000", "1,000 devices", devices(1000)),
        full("devices-10000", "10,000 devices: a hundred thousand sensors", devices(10_000)),
        full("devices-100000", "100,000 devices: a million sensors", devices(100_000)),
        full("qos0", "QoS 0", Setup { qos: 0, ..USUAL }),
        full("qos1", "QoS 1", USUAL),
        full("postgres", "PostgreSQL without extensions", into(Kind::Postgres)),
        full("timescaledb", "PostgreSQL with TimescaleDB, where it is installed", into(Kind::Timescale)),
        full("sqlite", "SQLite", into(Kind::Sqlite)),
        full("sqlite-100", "SQLite, 100 devices: a thousand sensors", Setup { devices: 100, ..into(Kind::Sqlite) }),
        full("embedded", "the embedded broker and SQLite", Setup { broker: Broker::Embedded, ..into(Kind::Sqlite) }),
        full("pgbouncer", "PgBouncer in transaction pooling", into(Kind::PgBouncer)),
        full("window-20", "receive_maximum = 20", Setup { receive_maximum: 20, ..USUAL }),
        other("writer", "the store's writer alone, beside COPY into the same table", Shape::Writer(USUAL)),
        other("writer-sqlite", "the same into SQLite, beside a prepared insert", Shape::Writer(into(Kind::Sqlite))),
        other("catch-up", "the database away for a while, load and all", Shape::Outage(USUAL)),
        other("idle-latency", "PUBLISH to PUBACK, one message at a time, beside the disk's fsync", Shape::Idle),
        other("steady-10k", "10,000 readings a second: PUBLISH to visible", Shape::Steady(USUAL)),
        other(
            "alerts-10k",
            "10,000 readings a second and 1,000 rules: PUBLISH to the alert on MQTT",
            Shape::Alerts(USUAL),
        ),
        other("job-10k", "a job: 10,000 commands to 10,000 devices that answer", Shape::Jobs(fleet(Kind::Postgres))),
        other("job-10k-sqlite", "the same with SQLite", Shape::Jobs(fleet(Kind::Sqlite))),
        other("start-100k", "a start with 100,000 devices of 10 sensors known", Shape::Start(devices(100_000))),
        Scenario { name: "soak", about: "a long time at a rate", long: true, shape: Shape::Soak(USUAL) },
    ]
}
