//! The configuration, validated: what the rest of the program works with.

mod broker;
mod database;
mod decoder;
mod defaults;
pub mod document;
mod environment;
mod escalation;
pub mod fault;
mod lifetime;
mod load;
mod notify;
mod on_call;
mod route;
pub mod section;
mod secret;
mod settings;
mod sources;
mod sparkplug;
mod twins;

pub use decoder::Decoder;
pub use defaults::DOCUMENTED;
pub use escalation::{Escalation, Level};
pub use fault::{Fault, Faults, Place};
pub use load::{Reading, SYSTEM_FILE};
pub use notify::{Limit, MailTls, Mailing, Notify, NotifyBy, SyslogAddress};
pub use on_call::{OnCall, Override, Person};
pub use route::{Route, Whose};
pub use secret::Secret;
pub(crate) use sources::timezone;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Everything an operator can set, checked and with defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub instance: Instance,
    pub broker: Broker,
    pub database: Database,
    pub journal: Journal,
    pub sparkplug: Sparkplug,
    pub sources: Vec<Source>,
    pub devices: Devices,
    pub metrics: Metrics,
    pub time: Time,
    pub limits: Limits,
    pub quarantine: Quarantine,
    pub commands: Commands,
    pub twins: Twins,
    pub retention: Retention,
    pub archive: Archive,
    pub rollups: Rollups,
    pub figures: Figures,
    pub maintenance: Maintenance,
    /// Who is told of alerts beside MQTT's subscribers.
    pub notify: Vec<Notify>,
    /// Who is on call when.
    pub on_call: Vec<OnCall>,
    /// Who is told of alerts that nobody sees to.
    pub escalations: Vec<Escalation>,
    pub http: Http,
    pub log: Log,
    pub catalog: Catalog,
}

/// Who this daemon is and where it keeps its files.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// 1 to 64 of `[A-Za-z0-9_.-]`; names the status topic and the position's row.
    pub id: String,
    pub state_dir: PathBuf,
    /// How long a shutdown may take to drain what the journal holds.
    pub drain_timeout: Duration,
}

/// The way to the MQTT broker.
#[derive(Clone, Debug, PartialEq)]
pub struct Broker {
    pub endpoint: Endpoint,
    pub version: MqttVersion,
    /// Fixed, so that the broker knows the session again.
    pub client_id: String,
    pub username: Option<String>,
    pub password: Option<Secret>,
    /// How long the broker keeps the session of a tidegate that is away; whole seconds, up to `u32::MAX`.
    pub session_expiry: Duration,
    /// Most QoS 1 deliveries that may be unacknowledged at once (MQTT 5, 3.1.2.11.3).
    pub receive_maximum: u16,
    /// 5 s or more.
    pub keep_alive: Duration,
    pub tls: Tls,
}

/// Where the broker is.
#[derive(Clone, Debug, PartialEq)]
pub enum Endpoint {
    /// tidegate is the broker, and listens here; port 0 takes a free one.
    Embedded { listen: SocketAddr },
    Remote {
        transport: Transport,
        host: String,
        port: u16,
        /** path of a WebSocket, `/mqtt` unless told */
        path: String,
    },
}

/// What carries MQTT to a remote broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Tls,
    WebSocket,
    WebSocketTls,
}

/// The protocol level that tidegate speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MqttVersion {
    V311,
    V5,
}

/// Certificates; PEM files. Without `ca`, the system's roots.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tls {
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

/// The way to the database.
#[derive(Clone, Debug, PartialEq)]
pub struct Database {
    pub url: DatabaseUrl,
    /// A copy of the primary for what is only read; a libpq URL, with the password in it. PostgreSQL only.
    pub replica_url: Option<Secret>,
    pub pool_min: u32,
    pub pool_max: u32,
    pub connect_timeout: Duration,
    /// Behind PgBouncer in transaction pooling: no prepared statement outlives its transaction.
    pub pgbouncer: bool,
    /// Most readings in one transaction.
    pub batch_max: usize,
    pub layout: LayoutChoice,
    pub duplicates: Duplicates,
}

/// Which layout of readings a new database is to get. What is recorded there already stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutChoice {
    /// TimescaleDB where it can be had, else partitions; on SQLite plain tables.
    Auto,
    /// TimescaleDB or nothing.
    Timescale,
    /// PostgreSQL's own partitions.
    Partitions,
}

/// Which of several readings of one sensor with one time stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duplicates {
    KeepFirst,
    KeepLast,
}

/// Which database, and how to reach it.
#[derive(Clone, PartialEq)]
pub enum DatabaseUrl {
    Sqlite(PathBuf),
    /// A libpq URL, with the password in it.
    Postgres(Secret),
}

/// The durable log.
#[derive(Clone, Debug, PartialEq)]
pub struct Journal {
    /// Bytes of messages kept at most; at it tidegate stops acknowledging.
    pub max_size: u64,
    /// How long messages stay after they are committed, for replays.
    pub retain: Duration,
    pub sync: Sync,
}

/// When the journal reaches the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Before the acknowledgement.
    Always,
    /// At least this often; a power cut may lose what came since.
    Every(Duration),
}

/// tidegate as a host application of Sparkplug.
#[derive(Clone, Debug, PartialEq)]
pub struct Sparkplug {
    /// Names the STATE topic; none: tidegate tells edge nodes nothing of its state.
    pub host_id: Option<String>,
    /// Between two requests for a rebirth to one edge node, at least.
    pub rebirth_every: Duration,
}

/// A topic filter and how to read what arrives there.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    pub name: String,
    /// As written, with `{name}` captures; parsed by [`crate::source`].
    pub filter: String,
    pub decoder: Decoder,
    /// Slug of the template given to devices first seen here.
    pub template: Option<String>,
    /// Raw key that holds the time of the readings, e.g. `Time`.
    pub timestamp: Option<String>,
    /// IANA zone for timestamps that carry none.
    pub timezone: Option<String>,
    pub retained: Retained,
    /// Largest payload accepted, bytes.
    pub max_payload: usize,
    /// Silence after which a warning is given; none: never.
    pub quiet_after: Option<Duration>,
    /// Whether such a silence also ends the connection, once, to begin another.
    pub quiet_reconnect: bool,
    pub csv: Csv,
    pub sparkplug: SparkplugSource,
    pub aws_shadow: AwsShadowSource,
}

/// How a source of the decoder `aws_shadow` goes about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AwsShadowSource {
    /// Whether tidegate answers on these topics, as AWS IoT does, with devices' twins for shadows.
    pub answer: bool,
}

/// How a source of the decoder `sparkplug`, or `auto` where it reads Sparkplug, goes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SparkplugSource {
    /// Whether its edge nodes are asked for a rebirth where one is needed.
    pub rebirth: bool,
    pub device: SparkplugDevice,
}

/// What a Sparkplug device is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SparkplugDevice {
    /// The device id, or the edge node id: as long as they differ within a tenant.
    Id,
    /// `group/node/device`, and `group/node`.
    Path,
}

/// How the decoder `csv` reads a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Csv {
    /// Whether the first record names the columns.
    pub header: bool,
}

/// What to do with a message that the broker had retained when tidegate subscribed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retained {
    /// Count it and leave it: a resubscribe forges no readings.
    Ignore,
    /// Store only what carries a time of its own, later than the sensor's last reading.
    Latest,
    /// Store it like any other.
    Store,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Devices {
    pub unknown: UnknownDevice,
    /// Most devices this instance provisions.
    pub max_devices: usize,
    /// Most sensors of one device.
    pub max_sensors: usize,
    /// Silence after which a device is stale whose template says nothing of it; none: never.
    pub stale_after: Option<Duration>,
    /// A device whose connection changes more often than this …
    pub flapping_changes: usize,
    /// … within this flaps.
    pub flapping_window: Duration,
}

/// What happens at the first message of an unknown device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownDevice {
    Provision,
    Quarantine,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Metrics {
    pub unmodeled: Unmodeled,
}

/// What happens to a key that neither module nor template knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmodeled {
    Store,
    Drop,
    Quarantine,
}

/// How far from its receipt a reading's time may lie.
#[derive(Clone, Debug, PartialEq)]
pub struct Time {
    pub max_future: Duration,
    pub max_age: Duration,
}

/// Bounds on one message.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    pub max_depth: usize,
    pub max_keys: usize,
    /// Bytes.
    pub max_key_length: usize,
    /// Bytes.
    pub max_text_length: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Quarantine {
    /// Most events kept; the oldest give way, counted.
    pub max_events: u64,
}

/// What devices are told to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Commands {
    /// Whether commands are taken by MQTT, on `tidegate/commands/…`.
    pub requests: bool,
    /// How long a command may wait to be sent, where neither it nor its template says.
    pub expires: Duration,
    /// Most commands of one device that have not ended.
    pub max_waiting: u32,
    /// Bytes.
    pub max_params: usize,
    /// Bytes.
    pub max_result: usize,
}

/// What devices are to be and what they say they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Twins {
    /// Whether other programs may ask by MQTT, on `tidegate/twins/…`.
    pub requests: bool,
    /// Bytes of JSON of a document.
    pub max_size: usize,
    /// Objects and arrays in one another.
    pub max_depth: usize,
}

/// How long data lives, by class; none: for ever.
#[derive(Clone, Debug, PartialEq)]
pub struct Retention {
    /// Numbers; `time.max_age` or more.
    pub raw: Option<Duration>,
    /// Texts; `time.max_age` or more.
    pub text: Option<Duration>,
    pub rollups_hourly: Option<Duration>,
    pub rollups_daily: Option<Duration>,
    pub quarantine: Option<Duration>,
    pub events: Option<Duration>,
    pub alerts: Option<Duration>,
    /// Those that have ended.
    pub commands: Option<Duration>,
    /// Age at which TimescaleDB compresses a day; none: never.
    pub compress_after: Option<Duration>,
}

/// Where readings go before they are dropped.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Archive {
    /// None: nowhere.
    pub dir: Option<PathBuf>,
}

/// The figures of each hour and day behind `readings_hourly` and `readings_daily`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rollups {
    pub enabled: bool,
    /// How long after its end an hour or day is rolled up; what comes later has it rolled up anew.
    pub grace: Duration,
    /// How often the daemon looks for what is to be rolled up.
    pub refresh: Duration,
}

/// tidegate's own figures in the table `system_metrics`.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// How often they are written; none: never.
    pub every: Option<Duration>,
    /// How long they stay.
    pub retain: Duration,
}

/// What SQLite needs done once a day.
#[derive(Clone, Debug, PartialEq)]
pub struct Maintenance {
    /// Time of day, local to the machine; none: never.
    pub at: Option<jiff::civil::Time>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Http {
    /// None: no HTTP.
    pub listen: Option<SocketAddr>,
    /// What a request to the API must bear; none: the API is there for this machine only.
    pub token: Option<Secret>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// A tracing-subscriber filter, e.g. `info` or `info,tidegate::mqtt=debug`.
    pub level: String,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
    Journald,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Catalog {
    /// Holds `templates/*.toml` and `devices/*.toml`; none: the shipped templates only.
    pub dir: Option<PathBuf>,
}

impl std::fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DatabaseUrl::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            DatabaseUrl::Postgres(_) => f.write_str("postgres:***"),
        }
    }
}
