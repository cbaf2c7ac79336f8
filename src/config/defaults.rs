//! The built-in configuration: an embedded broker on the loopback and SQLite. `config/tidegate.toml` documents it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// humantime's year, 365.25 days.
const YEAR: Duration = Duration::from_secs(31_557_600);

/// The configuration file with every key, its default and what it is for.
pub const DOCUMENTED: &str = include_str!("../../config/tidegate.toml");

/// `127.0.0.1` at a port.
pub(super) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

impl Default for Config {
    fn default() -> Config {
        let instance = Instance::default();
        Config {
            broker: Broker::of(&instance.id),
            database: Database::under(&instance.state_dir),
            instance,
            journal: Journal::default(),
            sparkplug: Sparkplug::default(),
            sources: vec![Source::native()],
            devices: Devices::default(),
            metrics: Metrics::default(),
            time: Time::default(),
            limits: Limits::default(),
            quarantine: Quarantine::default(),
            commands: Commands::default(),
            twins: Twins::default(),
            retention: Retention::default(),
            archive: Archive::default(),
            rollups: Rollups::default(),
            figures: Figures::default(),
            maintenance: Maintenance::default(),
            notify: Vec::new(),
            on_call: Vec::new(),
            escalations: Vec::new(),
            http: Http::default(),
            log: Log::default(),
            catalog: Catalog { dir: None },
        }
    }
}

impl Default for Commands {
    fn default() -> Commands {
        Commands { requests: true, expires: HOUR, max_waiting: 1000, max_params: 64 << 10, max_result: 64 << 10 }
    }
}

impl Default for Twins {
    fn default() -> Twins {
        Twins { requests: true, max_size: 32 << 10, max_depth: 8 }
    }
}

impl Default for Instance {
    fn default() -> Instance {
        Instance {
            id: "gw-01".to_owned(),
            state_dir: PathBuf::from("./tidegate-data"),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

impl Broker {
    /// The default for an instance.
    pub(super) fn of(instance_id: &str) -> Broker {
        Broker {
            endpoint: Endpoint::Embedded { listen: loopback(1883) },
            version: MqttVersion::V5,
            client_id: format!("tidegate-{instance_id}"),
            username: None,
            password: None,
            session_expiry: 7 * DAY,
            receive_maximum: 1000,
            keep_alive: Duration::from_secs(30),
            tls: Tls::default(),
        }
    }
}

impl Database {
    /// The default for a state directory.
    pub(super) fn under(state_dir: &Path) -> Database {
        let url = DatabaseUrl::Sqlite(state_dir.join("tidegate.db"));
        Database {
            batch_max: Database::usual_batch(&url),
            url,
            replica_url: None,
            pool_min: 1,
            pool_max: 4,
            connect_timeout: Duration::from_secs(10),
            pgbouncer: false,
            layout: LayoutChoice::Auto,
            duplicates: Duplicates::KeepFirst,
        }
    }

    /// What a transaction takes unless told. On SQLite a transaction writes a page for every sensor that it has a reading of, however
    /// many readings that page gets, so larger ones cost less a reading.
    pub(super) fn usual_batch(url: &DatabaseUrl) -> usize {
        match url {
            DatabaseUrl::Sqlite(_) => 100_000,
            DatabaseUrl::Postgres(_) => 30_000,
        }
    }
}

impl Default for Journal {
    fn default() -> Journal {
        Journal { max_size: 1 << 30, retain: DAY, sync: Sync::Always }
    }
}

impl Source {
    /// The default of every key but `name` and `filter`.
    pub fn with(name: String, filter: String) -> Source {
        Source {
            name,
            filter,
            decoder: Decoder::Json,
            template: None,
            timestamp: None,
            timezone: None,
            retained: Retained::Ignore,
            max_payload: 256 << 10,
            quiet_after: None,
            quiet_reconnect: false,
            csv: Csv::default(),
            sparkplug: SparkplugSource::default(),
            aws_shadow: AwsShadowSource::default(),
        }
    }

    /// tidegate's own topics.
    pub(super) fn native() -> Source {
        Source::with("native".to_owned(), "devices/{device}/telemetry".to_owned())
    }
}

impl Default for SparkplugSource {
    fn default() -> SparkplugSource {
        SparkplugSource { rebirth: true, device: SparkplugDevice::Id }
    }
}

impl Default for Sparkplug {
    fn default() -> Sparkplug {
        Sparkplug { host_id: None, rebirth_every: Duration::from_secs(30) }
    }
}

impl Default for Csv {
    fn default() -> Csv {
        Csv { header: true }
    }
}

impl Default for Devices {
    fn default() -> Devices {
        Devices {
            unknown: UnknownDevice::Provision,
            max_devices: 1_000_000,
            max_sensors: 1000,
            stale_after: None,
            flapping_changes: 6,
            flapping_window: Duration::from_secs(600),
        }
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics { unmodeled: Unmodeled::Store }
    }
}

impl Default for Time {
    fn default() -> Time {
        Time { max_future: HOUR, max_age: 20 * YEAR }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { max_depth: 64, max_keys: 5000, max_key_length: 255, max_text_length: 64 << 10 }
    }
}

impl Default for Quarantine {
    fn default() -> Quarantine {
        Quarantine { max_events: 100_000 }
    }
}

impl Default for Retention {
    fn default() -> Retention {
        Retention {
            raw: None,
            text: None,
            rollups_hourly: None,
            rollups_daily: None,
            quarantine: Some(90 * DAY),
            events: Some(YEAR),
            alerts: None,
            commands: Some(90 * DAY),
            compress_after: Some(7 * DAY),
        }
    }
}

impl Default for Rollups {
    fn default() -> Rollups {
        Rollups { enabled: true, grace: Duration::from_secs(120), refresh: Duration::from_secs(30) }
    }
}

impl Default for Figures {
    fn default() -> Figures {
        Figures { every: Some(Duration::from_secs(60)), retain: 90 * DAY }
    }
}

impl Default for Maintenance {
    fn default() -> Maintenance {
        Maintenance { at: Some(jiff::civil::time(3, 0, 0, 0)) }
    }
}

impl Default for Http {
    fn default() -> Http {
        Http { listen: Some(loopback(9108)), token: None }
    }
}

impl Default for Log {
    fn default() -> Log {
        Log { level: "info".to_owned(), format: LogFormat::Text }
    }
}
