//! A publisher for load: as many messages as the window lets out, each acknowledgement counted.
//!
//! MQTT 5. At QoS 1 a lost connection is resumed, and what was not acknowledged goes out again first, in order,
//! with its packet id and DUP set, so that a receiver can recognise what it has. At QoS 2 a lost connection
//! starts a new session: what had no PUBREC yet goes out again; what waited for PUBCOMP counts as refused,
//! since nobody can say.

mod answers;
mod driver;
mod target;

pub use answers::{Answered, answer_all};
pub use target::{Target, TargetError};

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rumqttc::tokio_rustls::rustls::pki_types::CertificateDer;
use rumqttc::tokio_rustls::rustls::pki_types::pem::PemObject;
use rumqttc::tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::{AsyncClient, MqttOptions};
use rumqttc::{TlsConfiguration, Transport as Wire};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::{Secret, Transport};
use crate::latency::LatencyRecorder;
use driver::Driver;

/// How to connect and to publish.
#[derive(Clone, Debug)]
pub struct Settings {
    pub target: Target,
    /// With the connection's number appended.
    pub client_id: String,
    pub credentials: Option<(String, Secret)>,
    /// PEM file that the broker's certificate is checked against; needed for TLS.
    pub ca: Option<PathBuf>,
    /// 0 to 2.
    pub qos: u8,
    /// Unacknowledged messages of one connection at most, 1 or more; the broker may allow fewer.
    pub window: u16,
    /// How long the last acknowledgements are waited for.
    pub grace: Duration,
    /// How long a broker may be away before the connection is given up.
    pub give_up: Duration,
}

/// Why nothing, or not all, was published.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{0}")]
    Settings(String),
    #[error("the broker refused the connection: {0}")]
    Refused(String),
    #[error("the broker could not be reached for {seconds} s: {detail}")]
    Unreachable { seconds: u64, detail: String },
}

/// One message to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    pub topic: String,
    pub payload: Vec<u8>,
}

/// What a supply has now.
#[derive(Debug)]
pub enum Due {
    Message(Outgoing),
    /// Nothing for so long.
    Wait(Duration),
    /// Nothing any more.
    Done,
}

/// Where a connection gets its messages.
pub trait Supply: Send {
    /// Must not block.
    fn next(&mut self) -> Due;
}

/// What became of the messages of every connection; read while it runs, too.
#[derive(Default)]
pub struct Tally {
    handed: AtomicU64,
    published: AtomicU64,
    acknowledged: AtomicU64,
    resent: AtomicU64,
    connects: AtomicU64,
    refused: Mutex<BTreeMap<String, u64>>,
    /// PUBLISH to acknowledgement, from the first try on.
    pub latency: LatencyRecorder,
}

/// A tally's counts at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Taken from the supply.
    pub handed: u64,
    /// Sent at least once.
    pub published: u64,
    /// PUBACK, or PUBCOMP at QoS 2, that says success.
    pub acknowledged: u64,
    pub resent: u64,
    pub connects: u64,
}

impl Tally {
    pub fn counts(&self) -> Counts {
        Counts {
            handed: self.handed.load(Ordering::Relaxed),
            published: self.published.load(Ordering::Relaxed),
            acknowledged: self.acknowledged.load(Ordering::Relaxed),
            resent: self.resent.load(Ordering::Relaxed),
            connects: self.connects.load(Ordering::Relaxed),
        }
    }

    /// Refusals by reason.
    pub fn refused(&self) -> BTreeMap<String, u64> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn refuse(&self, reason: String) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let count = refused.entry(reason).or_default();
        *count = count.saturating_add(1);
    }
}

impl Settings {
    /// Whether they can be used.
    ///
    /// # Errors
    /// [`LoadError::Settings`].
    pub fn check(&self) -> Result<(), LoadError> {
        options(self).map(drop)
    }

    /// The same with a client id of its own.
    pub fn for_connection(&self, index: usize) -> Settings {
        Settings { client_id: format!("{}-{index}", self.client_id), ..self.clone() }
    }
}

fn options(settings: &Settings) -> Result<MqttOptions, LoadError> {
    let wrong = |text: String| LoadError::Settings(text);
    if settings.window == 0 || settings.window == u16::MAX {
        return Err(wrong("the window is 1 to 65534 messages".to_owned()));
    }
    let target = &settings.target;
    let web = |scheme: &str| format!("{scheme}://{}:{}{}", target.host, target.port, target.path);
    let (host, wire) = match target.transport {
        Transport::Tcp => (target.host.clone(), Wire::Tcp),
        Transport::Tls => (target.host.clone(), Wire::Tls(tls(settings)?)),
        Transport::WebSocket => (web("ws"), Wire::Ws),
        Transport::WebSocketTls => (web("wss"), Wire::Wss(tls(settings)?)),
    };
    let mut options = MqttOptions::new(settings.client_id.clone(), host, target.port);
    options
        .set_transport(wire)
        .set_keep_alive(Duration::from_secs(30))
        .set_clean_start(true)
        .set_outgoing_inflight_upper_limit(settings.window);
    if settings.qos == 1 {
        options.set_session_expiry_interval(Some(300));
    }
    if let Some((username, password)) = &settings.credentials {
        options.set_credentials(username.clone(), password.expose());
    }
    let mut network = options.network_options();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    Ok(options)
}

fn tls(settings: &Settings) -> Result<TlsConfiguration, LoadError> {
    let wrong = |detail: String| LoadError::Settings(format!("TLS: {detail}"));
    let path = settings.ca.as_ref().ok_or_else(|| wrong("give the broker's CA with --ca".to_owned()))?;
    let unreadable = |error: &dyn std::fmt::Display| wrong(format!("{}: {error}", path.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unreadable(&error))? {
        let certificate = certificate.map_err(|error| unreadable(&error))?;
        roots.add(certificate).map_err(|error| unreadable(&error))?;
    }
    let provider = Arc::new(crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConfiguration::Rustls(Arc::new(config)))
}

/// Publishes what the supply has on one connection; returns when all is settled, `grace` is over after the
/// last message, or the broker is lost. Cancelling `stop` ends the supply.
///
/// # Errors
/// [`LoadError`]; what was counted until then stands.
pub async fn publish_all(
    settings: &Settings,
    supply: &mut dyn Supply,
    tally: &Tally,
    stop: &CancellationToken,
) -> Result<(), LoadError> {
    let (client, connection) = AsyncClient::new(options(settings)?, usize::from(settings.window));
    let progress = Progress::new(settings.window);
    let mut driver = Driver::new(settings, tally, &progress, connection);
    tokio::select! {
        () = feed(&client, supply, settings, tally, &progress, stop) => Ok(()),
        ended = driver.run() => ended,
    }
}

/// What the two halves of a connection tell each other.
struct Progress {
    handed: AtomicU64,
    settled: AtomicU64,
    /// Messages that may be handed and not settled. With more, those that a lost connection leaves would have no packet id
    /// each: the client sends all of them at once, and loses the second that finds its id taken.
    window: AtomicU64,
    /// Nothing more is handed.
    last: AtomicBool,
    changed: Notify,
}

impl Progress {
    fn new(window: u16) -> Progress {
        Progress {
            handed: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            window: AtomicU64::new(u64::from(window)),
            last: AtomicBool::new(false),
            changed: Notify::new(),
        }
    }

    fn has_room(&self) -> bool {
        let open = self.handed.load(Ordering::Acquire).saturating_sub(self.settled.load(Ordering::Acquire));
        open < self.window.load(Ordering::Acquire)
    }

    fn all_settled(&self) -> bool {
        self.last.load(Ordering::Acquire) && self.settled.load(Ordering::Acquire) >= self.handed.load(Ordering::Acquire)
    }
}

/// Hands messages over as they fall due, waits for the rest to be settled, then disconnects.
async fn feed(
    client: &AsyncClient,
    supply: &mut dyn Supply,
    settings: &Settings,
    tally: &Tally,
    progress: &Progress,
    stop: &CancellationToken,
) {
    let qos = match settings.qos {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    };
    while !stop.is_cancelled() {
        if !progress.has_room() {
            tokio::select! {
                () = progress.changed.notified() => {}
                () = stop.cancelled() => {}
            }
            continue;
        }
        match supply.next() {
            Due::Done => break,
            Due::Wait(pause) => {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = stop.cancelled() => break,
                }
            }
            Due::Message(message) => {
                tokio::select! {
                    handed = client.publish(message.topic, qos, false, message.payload) => {
                        if handed.is_err() {
                            break;
                        }
                    }
                    // The broker is away: what waits for a place is not handed any more.
                    () = stop.cancelled() => break,
                }
                progress.handed.fetch_add(1, Ordering::Release);
                tally.handed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    progress.last.store(true, Ordering::Release);
    let settled = async {
        while !progress.all_settled() {
            progress.changed.notified().await;
        }
        if client.disconnect().await.is_ok() {
            // The other half ends the run once that is sent.
            std::future::pending::<()>().await;
        }
    };
    let _ = tokio::time::timeout(settings.grace, settled).await;
}
