//! What tidegate counts and measures of itself; Prometheus text at `/metrics`.
//!
//! One value, made in the composition root and handed to each room; no global registry.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// A label set of one reason code.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ByReason {
    pub reason: &'static str,
}

/// A label set of one state of a command.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ByState {
    pub state: &'static str,
}

/// A label set of one source's name.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct BySource {
    pub source: String,
}

/// A label set of one notification channel's name.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ByChannel {
    pub channel: String,
}

/// A label set of one chore's name.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ByChore {
    pub chore: &'static str,
}

/// A label set of one status of devices.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ByStatus {
    pub status: &'static str,
}

/// A label set of one class of data, as in `[retention]`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ByClass {
    pub class: &'static str,
}

/// A label set of one width of rollups.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ByGrain {
    pub grain: &'static str,
}

type Count = Counter<u64, AtomicU64>;
type Level = Gauge<i64, AtomicI64>;
/// A histogram of what may take days.
#[derive(Clone, Debug)]
pub struct Slow(Histogram);

impl Slow {
    pub fn observe(&self, seconds: f64) {
        self.0.observe(seconds);
    }
}

impl EncodeMetric for Slow {
    fn encode(&self, encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        EncodeMetric::metric_type(&self.0)
    }
}

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $field:ident: $kind:ty = $name:literal $(, $unit:expr)?;)+) => {
        /// Every metric; cloning shares them.
        #[derive(Clone)]
        pub struct Metrics {
            registry: Arc<Registry>,
            $($(#[doc = $help])+ pub $field: $kind,)+
        }

        impl Metrics {
            /// Registers everything, at zero.
            pub fn new() -> Metrics {
                let mut registry = Registry::with_prefix("tidegate");
                $(
                    let $field = <$kind as New>::new();
                    metrics!(@register registry, $name, concat!($($help),+).trim(), $field $(, $unit)?);
                )+
                Metrics { registry: Arc::new(registry), $($field),+ }
            }
        }
    };
    (@register $registry:ident, $name:literal, $help:expr, $field:ident) => {
        $registry.register($name, $help, $field.clone());
    };
    (@register $registry:ident, $name:literal, $help:expr, $field:ident, $unit:expr) => {
        $registry.register_with_unit($name, $help, $unit, $field.clone());
    };
}

trait New {
    fn new() -> Self;
}

impl New for Count {
    fn new() -> Self {
        Count::default()
    }
}

impl New for Level {
    fn new() -> Self {
        Level::default()
    }
}

impl New for Histogram {
    /// Seconds, 0.1 ms to 52 s.
    fn new() -> Self {
        Histogram::new(exponential_buckets(0.0001, 2.0, 20))
    }
}

impl New for Slow {
    /// Seconds, 10 ms to 8 days.
    fn new() -> Self {
        Slow(Histogram::new(exponential_buckets(0.01, 4.0, 14)))
    }
}

impl<L: Clone + std::hash::Hash + Eq> New for Family<L, Count> {
    fn new() -> Self {
        Family::default()
    }
}

impl<L: Clone + std::hash::Hash + Eq> New for Family<L, Level> {
    fn new() -> Self {
        Family::default()
    }
}

// Names get the suffix `_total` for counters from the encoder, and the unit where there is one.
metrics! {
    /// 1 while the MQTT session is up and every filter is granted
    broker_connected: Level = "broker_connected";
    /// Connections made to the broker
    broker_connects: Count = "broker_connects";
    /// Connections to the broker that failed or were lost
    broker_connection_errors: Count = "broker_connection_errors";
    /// Connections given up by the watchdog: up, and nothing moved
    broker_watchdog_trips: Count = "broker_watchdog_trips";
    /// Pauses in reading from the broker, because it sent more than its receive maximum and the journal was behind
    broker_pauses: Count = "broker_pauses";
    /// Subscriptions that the broker refused, or granted below QoS 1
    subscriptions_refused: Count = "subscriptions_refused";
    /// PUBLISH packets received
    messages_received: Count = "messages_received";
    /// Bytes of payload received
    payload_received: Count = "payload_received", Unit::Bytes;
    /// Acknowledgements handed to the connection
    messages_acknowledged: Count = "messages_acknowledged";
    /// Acknowledgements dropped because their connection had ended
    acknowledgements_stale: Count = "acknowledgements_stale";
    /// Messages dropped, by reason: at QoS 0 where the journal had no room or tidegate was stopping, or by the embedded broker
    messages_dropped: Family<ByReason, Count> = "messages_dropped";
    /// Messages to the embedded broker whose topic no source takes: forwarded to subscribers, not stored
    messages_unmatched: Count = "messages_unmatched";
    /// Templates that known devices were given by a stronger match than the one before
    templates_given: Count = "templates_given";
    /// Rows of alert_rules and of maintenance that should be in force and can't be read; they are left out
    alert_rules_invalid: Level = "alert_rules_invalid";
    /// Gateways that messages named and that could not be: a circle, a name that is none, one more device than may be
    parents_refused: Count = "parents_refused";
    /// Messages that tidegate published and the broker acknowledged
    messages_published: Count = "messages_published";
    /// Messages that tidegate could not publish, by reason
    publish_errors: Family<ByReason, Count> = "publish_errors";
    /// Steps of alerts that rules, the clock or people have brought about
    alert_transitions: Count = "alert_transitions";
    /// Alerts that are firing or acknowledged
    alerts_active: Level = "alerts_active";
    /// Readings not later than the one before them, which change no comparison of an alert rule
    alert_readings_late: Count = "alert_readings_late";
    /// Alerts that did not begin though their condition held, by what held them back
    alerts_withheld: Family<ByReason, Count> = "alerts_withheld";
    /// Requests to acknowledge, resolve or snooze an alert that could not be met, by reason
    alert_requests_refused: Family<ByReason, Count> = "alert_requests_refused";
    /// Steps of alerts that the broker has taken
    alerts_published: Count = "alerts_published";
    /// Steps of alerts left to the database for a while, since more came than could be published
    alerts_deferred: Count = "alerts_deferred";
    /// Publishes of alerts and of their summary that the broker refused, by reason
    alerts_refused: Family<ByReason, Count> = "alerts_refused";
    /// Published steps of alerts that the database was not told of for so long that the next start publishes them once more
    alerts_unmarked: Count = "alerts_unmarked";
    /// Notifications that a channel of `[[notify]]` has taken, by its name
    notifications_sent: Family<ByChannel, Count> = "notifications_sent";
    /// Attempts at notifications that failed, by channel
    notification_errors: Family<ByChannel, Count> = "notification_errors";
    /// Notifications given up, by channel
    notifications_dead: Family<ByChannel, Count> = "notifications_dead";
    /// Devices by their status, as the database has it; of all instances
    devices: Family<ByStatus, Level> = "devices";
    /// Changes of devices' connections
    connection_changes: Count = "connection_changes";
    /// Notifications that a channel's limit has held back for a digest, by channel
    notifications_held: Family<ByChannel, Count> = "notifications_held";
    /// Escalations that are through with all their levels, though nobody has acknowledged the alert
    escalations_exhausted: Count = "escalations_exhausted";
    /// Levels of escalations at which there was nobody to tell
    escalations_nobody: Count = "escalations_nobody";
    /// Commands that were asked for, by whatever way, and looked through
    commands_asked: Count = "commands_asked";
    /// Commands that have got into a state, by its name
    command_states: Family<ByState, Count> = "command_states";
    /// Requests for commands and answers to them that change nothing, by reason
    command_messages_refused: Family<ByReason, Count> = "command_messages_refused";
    /// Steps of commands that whoever asked by MQTT was told
    command_notices: Count = "command_notices";
    /// Steps of commands that the broker did not take for whoever asked, by reason
    command_notices_refused: Family<ByReason, Count> = "command_notices_refused";
    /// Commands that are with the broker's connection
    commands_sending: Level = "commands_sending";
    /// Failed questions of the courier to the database; each is tried again
    command_errors: Count = "command_errors";
    /// Changes of what devices are to be, by messages
    twin_desired_changes: Count = "twin_desired_changes";
    /// Changes of what devices say they are, by messages
    twin_reported_changes: Count = "twin_reported_changes";
    /// Messages of twins that change nothing, and readings that a reported state has no room for, by reason
    twin_messages_refused: Family<ByReason, Count> = "twin_messages_refused";
    /// How long devices took to be what they were to be
    twin_convergence: Slow = "twin_convergence", Unit::Seconds;
    /// Answers and news of twins that were left out, since too many waited
    twin_answers_left_out: Count = "twin_answers_left_out";
    /// Messages of twins that the broker has taken
    twin_messages_published: Count = "twin_messages_published";
    /// Messages of twins that the broker did not take, by reason
    twin_publishes_refused: Family<ByReason, Count> = "twin_publishes_refused";
    /// Failed questions of the twins' publisher to the database; each is tried again
    twin_errors: Count = "twin_errors";
    /// Jobs that have not ended
    jobs_active: Level = "jobs_active";
    /// Executions of jobs that have got into a state, by its name
    job_executions: Family<ByState, Count> = "job_executions";
    /// Failed questions of the driver of jobs to the database; each is tried again
    job_errors: Count = "job_errors";
    /// Broker redeliveries recognised and not stored again
    redeliveries_recognised: Count = "redeliveries_recognised";
    /// Messages made durable in the journal
    journal_messages: Count = "journal_messages";
    /// Groups committed to the journal, one fsync each
    journal_groups: Count = "journal_groups";
    /// Time of one group commit of the journal
    journal_commit_duration: Histogram = "journal_commit_duration", Unit::Seconds;
    /// Failed writes to the journal and reads from it; each is tried again
    journal_errors: Count = "journal_errors";
    /// Bytes of messages in the journal
    journal_size: Level = "journal_size", Unit::Bytes;
    /// 1 while the journal is full and nothing is acknowledged
    journal_full: Level = "journal_full";
    /// Messages in the journal that are not yet committed to the database
    journal_lag_messages: Level = "journal_lag_messages";
    /// Age of the oldest message in the journal that is not yet committed to the database; 0 when there is none
    journal_lag_seconds: Level = "journal_lag", Unit::Seconds;
    /// Messages that the journal no longer had when the database needed them
    journal_gap_messages: Count = "journal_gap_messages";
    /// Records of the journal that failed their checksum and were set aside
    journal_corrupt_records: Count = "journal_corrupt_records";
    /// Journals that could not be read and were set aside for a new one, and damaged logs of which a copy was kept
    journal_files_set_aside: Count = "journal_files_set_aside";
    /// Times that the journal's file was found removed or replaced while in use, and was written anew
    journal_displaced: Count = "journal_displaced";
    /// Times that the database was found ahead of the journal, which was then read from its beginning
    journal_rewinds: Count = "journal_rewinds";
    /// Times that the system's clock was found to be set back by more than a second
    clock_steps_back: Count = "clock_steps_back";
    /// Messages by the source that took them
    source_messages: Family<BySource, Count> = "source_messages";
    /// 1 while a source with `quiet_after` has been silent for longer than that
    source_quiet: Family<BySource, Level> = "source_quiet";
    /// Connections given up and made anew because a source with `quiet_reconnect` was silent
    deafness_reconnects: Count = "deafness_reconnects";
    /// Messages sent to devices because their format calls for it, such as requests for a rebirth
    errands_sent: Count = "errands_sent";
    /// Messages to devices that were called for and not sent, by reason
    errands_dropped: Family<ByReason, Count> = "errands_dropped";
    /// 1 while the STATE of `sparkplug.host_id` is online
    sparkplug_state_online: Level = "sparkplug_state_online";
    /// Retained messages left out because the source says so
    retained_ignored: Count = "retained_ignored";
    /// Messages on tidegate's own topics that no source names: what it said itself, as a wide filter brings it back
    own_ignored: Count = "own_ignored";
    /// Messages to a source with decoder `auto` that are no telemetry: commands, announcements, statistics of the broker
    auto_ignored: Count = "auto_ignored";
    /// Samples dropped because `metrics.unmodeled` says so
    unmodeled_dropped: Count = "unmodeled_dropped";
    /// Derived readings left out because their formula had no finite value, as of a division by zero
    derived_undefined: Count = "derived_undefined";
    /// Refusals of messages and samples, by reason
    quarantined: Family<ByReason, Count> = "quarantined";
    /// Quarantine events discarded at `quarantine.max_events`
    quarantine_discarded: Count = "quarantine_discarded";
    /// Readings committed to the database
    readings_stored: Count = "readings_stored";
    /// Readings that the database had already, by sensor and time
    readings_duplicate: Count = "readings_duplicate";
    /// Devices made at their first message
    devices_provisioned: Count = "devices_provisioned";
    /// Transactions committed to the database
    batches_committed: Count = "batches_committed";
    /// Batches that the database rejected and that were bisected
    batches_bisected: Count = "batches_bisected";
    /// Batches with readings that the fast way did not take: most often since the database had them already
    batches_staged: Count = "batches_staged";
    /// Sensors whose last value waits to be written
    last_values_waiting: Level = "last_values_waiting";
    /// Failed transactions; each is tried again
    database_errors: Count = "database_errors";
    /// How long the database has been at the transaction that waits longest; 0 when none does
    database_unanswered: Level = "database_unanswered", Unit::Seconds;
    /// Transactions that the database did not answer for half a minute
    database_stalls: Count = "database_stalls";
    /// 1 while the database takes what is written
    database_connected: Level = "database_connected";
    /// Time of one batch transaction
    batch_commit_duration: Histogram = "batch_commit_duration", Unit::Seconds;
    /// From the receipt of a batch's oldest message to its commit
    store_latency: Histogram = "store_latency", Unit::Seconds;
    /// Bytes of SQLite's write-ahead log; 0 on PostgreSQL
    sqlite_log_size: Level = "sqlite_log_size", Unit::Bytes;
    /// Steps of upkeep done, by chore
    upkeep_steps: Family<ByChore, Count> = "upkeep_steps";
    /// Steps of upkeep that failed, by chore; each is tried again
    upkeep_errors: Family<ByChore, Count> = "upkeep_errors";
    /// Rows removed at the end of their lifetime, by class; those of partitions dropped without an archive are not counted
    retention_rows: Family<ByClass, Count> = "retention_rows";
    /// Partitions, chunks, or days of a plain table dropped at the end of their lifetime, by class
    retention_parts: Family<ByClass, Count> = "retention_parts";
    /// Files written to the archive
    archive_files: Count = "archive_files";
    /// Attempts to archive that failed; nothing is dropped then, and it is tried again
    archive_errors: Count = "archive_errors";
    /// Chunks compressed by TimescaleDB
    chunks_compressed: Count = "chunks_compressed";
    /// Hours and days of a sensor that were rolled up, those with late readings once more
    rollup_buckets: Family<ByGrain, Count> = "rollup_buckets";
    /// Hours and days of a sensor that late readings came into, and that are still to be rolled up anew
    rollup_pending: Family<ByGrain, Level> = "rollup_pending";
    /// Figures written to `system_metrics`
    figures_written: Count = "figures_written";
    /// Figures older than `figures.retain` that were deleted
    figures_expired: Count = "figures_expired";
    /// Bytes of SQLite's file given back by the incremental vacuum
    sqlite_vacuumed: Count = "sqlite_vacuumed", Unit::Bytes;
    /// Catalogs swapped in
    catalog_reloads: Count = "catalog_reloads";
    /// Catalog or configuration changes that were refused at a reload
    reload_errors: Count = "reload_errors";
    /// Publishes that the embedded broker refused because the journal was full or failing
    embedded_refusals: Count = "embedded_refusals";
    /// Connections that the embedded broker closed for what came on them, or for want of a durable journal
    embedded_disconnects: Count = "embedded_disconnects";
    /// HTTP requests answered
    http_requests: Count = "http_requests";
    /// Requests to the HTTP API that were not met, by reason
    http_api_refused: Family<ByReason, Count> = "http_api_refused";
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

impl Metrics {
    /// The Prometheus text exposition.
    ///
    /// # Errors
    /// Only if formatting into a string fails.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// Counts one refusal.
    pub fn count_refusal(&self, reason: crate::quarantine::Reason) {
        self.quarantined.get_or_create(&ByReason { reason: reason.code() }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_contract() {
        let metrics = Metrics::new();
        metrics.count_refusal(crate::quarantine::Reason::Malformed);
        let text = metrics.encode().unwrap();
        let names: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .filter_map(|rest| rest.split(' ').next())
            .collect();
        assert!(names.len() > 30, "{names:?}");
        assert!(names.iter().all(|name| name.starts_with("tidegate_")), "{names:?}");
        assert!(text.contains("tidegate_quarantined_total{reason=\"malformed\"} 1"), "{text}");
        assert!(text.contains("tidegate_payload_received_bytes_total 0"), "{text}");
    }
}
