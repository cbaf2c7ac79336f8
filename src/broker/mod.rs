//! The embedded broker: tidegate as the broker of its devices, with no other server and no loopback connection.
//!
//! A PUBLISH that a source wants is handed straight to the journal, and its PUBACK (PUBREC at QoS 2) waits
//! until it is durable there; the broker forwards it to ordinary subscribers only then. The price: the
//! messages of one connection wait in turn, one group fsync each, so many devices share an fsync and one
//! device alone gets one message through for each.
//!
//! What a device sees of bad input:
//! - a payload that can't be read is acknowledged like any other: it is durable, and goes to quarantine;
//! - a topic that no source takes is acknowledged and forwarded, and **not journalled**: clients may talk to each
//!   other. It is counted (`messages_unmatched`), and the log tells of some;
//! - an empty topic, or one with a wildcard or a NUL, and a packet beyond [`Limits::max_packet_size`], end the
//!   connection; that is counted (`embedded_disconnects`) and logged with the reason;
//! - a journal that is full answers *quota exceeded*; at 3.1.1, which can't say so, it ends the connection.
//!
//! The MQTT itself is the crate `rmqtt`, as a library. What comes with it:
//! - each connection, and each session kept for a client that is away, is a task of rmqtt's own on the
//!   runtime that [`start`] was called on; [`Embedded::run`] closes the connections when it stops;
//! - its executors belong to the context made here; it installs nothing global and logs through `log`;
//! - sessions, queued messages and retained messages live in memory: **a restart forgets them**. A source's
//!   messages are not affected, since those are in the journal before they are acknowledged.

mod hooks;
mod intake;
mod retained;
mod shared;
mod waiters;

use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rmqtt::codec::types::{Publish as CodecPublish, QoS};
use rmqtt::codec::v5::{PublishProperties, UserProperties};
use rmqtt::context::ServerContext;
use rmqtt::net::{Builder, Listener};
use rmqtt::server::MqttServer;
use rmqtt::session::SessionState;
use rmqtt::types::{From as Origin, Id, Message, Publish};
use tokio_util::sync::CancellationToken;

use crate::config::Secret;
use crate::journal::Inbox;
use crate::metrics::Metrics;
use crate::mqtt::{Answer, Delivery, Parcel};
use intake::Intake;
use retained::Retained;
use shared::Groups;

pub use waiters::Waiters;

/// Why connections are closed when the broker stops.
const SHUTDOWN: &str = "the broker shuts down";

/// Whether some source reads a topic; asked at each PUBLISH.
pub type Wanted = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// Why the embedded broker can't serve.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    #[error(
        "the embedded broker can't listen on {address}: {source}; end the broker that runs there, or set [broker] url \
         to embedded:// with a free address"
    )]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("the embedded broker can't be set up: {0}")]
    Setup(String),
    #[error("the embedded broker can't publish on {topic}: {detail}")]
    Publish { topic: String, detail: String },
}

/// What the embedded broker takes on at most, and who may connect.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of one MQTT packet; a larger one ends its connection.
    pub max_packet_size: u32,
    /// Sessions, of connected and absent clients together.
    pub max_sessions: usize,
    /// Unacknowledged QoS 1 and 2 messages of one client, in each direction (MQTT 5, 3.2.2.3.3).
    pub receive_maximum: NonZeroU16,
    /// Longest that the session of an absent client is kept.
    pub session_expiry: Duration,
    /// Messages queued for one subscriber; at it QoS 0 is dropped, else the oldest gives way, counted.
    pub max_queued: usize,
    /// Retained messages, and their bytes together; a new one beyond is not retained, counted.
    pub max_retained: usize,
    pub max_retained_bytes: usize,
    /// How long a PUBLISH waits to become durable before its connection is closed without acknowledgement.
    pub patience: Duration,
    /// What devices must present; none: anyone who reaches the address may connect.
    pub credentials: Option<(String, Secret)>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_packet_size: 1024 * 1024,
            max_sessions: 100_000,
            receive_maximum: NonZeroU16::new(256).unwrap_or(NonZeroU16::MIN),
            session_expiry: Duration::from_secs(2 * 60 * 60),
            max_queued: 1000,
            max_retained: 100_000,
            max_retained_bytes: 32 * 1024 * 1024,
            patience: Duration::from_secs(10),
            credentials: None,
        }
    }
}

/// The broker, bound to its address; serves while [`Embedded::run`] runs.
pub struct Embedded {
    context: ServerContext,
    local_addr: SocketAddr,
    /// Holds the listening socket; taken by `run`, and gone when that ends.
    server: Mutex<Option<MqttServer>>,
}

/// Binds the address (port 0: a free one) and sets up the broker; nothing is accepted before [`Embedded::run`].
///
/// # Errors
/// [`BrokerError::Listen`] when the port is in use or the address not ours, [`BrokerError::Setup`] else.
pub async fn start(
    listen: SocketAddr,
    limits: Limits,
    wanted: Wanted,
    inbox: Inbox,
    waiters: Arc<Waiters>,
    metrics: Metrics,
) -> Result<Embedded, BrokerError> {
    let listener = bind(listen, &limits)?;
    let local_addr = listener.local_addr().map_err(|error| BrokerError::Setup(error.to_string()))?;
    let context = ServerContext::new()
        .mqtt_max_sessions(isize::try_from(limits.max_sessions).unwrap_or(isize::MAX))
        // Its load check is a task that never ends and refuses clients on a busy machine.
        .busy_check_enable(false)
        .build()
        .await;
    let intake = Arc::new(Intake::new(wanted, inbox, waiters, limits.patience, metrics.clone()));
    hooks::install(&context, &intake, &limits, &metrics).await;
    let retained = Retained::new(limits.max_retained, limits.max_retained_bytes, metrics);
    *context.extends.retain_mut().await = Box::new(retained);
    *context.extends.shared_subscription_mut().await = Box::new(Groups);
    let server = MqttServer::new(context.clone()).listener_by_id(listener, local_addr.port()).build();
    tracing::info!(%local_addr, "embedded broker listens");
    Ok(Embedded { context, local_addr, server: Mutex::new(Some(server)) })
}

fn bind(listen: SocketAddr, limits: &Limits) -> Result<Listener, BrokerError> {
    Builder::new()
        .name("embedded")
        .laddr(listen)
        // Rebinding soon after a restart; on Linux this does not allow two listeners.
        .reuseaddr(Some(true))
        .nodelay(true)
        .allow_anonymous(limits.credentials.is_none())
        .max_connections(limits.max_sessions)
        .max_packet_size(limits.max_packet_size)
        .max_inflight(limits.receive_maximum)
        .max_mqueue_len(limits.max_queued)
        .session_expiry_interval(limits.session_expiry)
        .max_session_expiry_interval(limits.session_expiry)
        // Messages expire only if their publisher says so (MQTT 5, 3.3.2.3.3).
        .message_expiry_interval(Duration::ZERO)
        .bind()
        .and_then(Listener::tcp)
        .map_err(|error| match error.downcast::<std::io::Error>() {
            Ok(source) => BrokerError::Listen { address: listen, source },
            Err(error) => BrokerError::Setup(error.to_string()),
        })
}

impl Embedded {
    /// How long `run` waits for connections to close.
    const CLOSE_WITHIN: Duration = Duration::from_secs(1);

    /// The address it listens on, with the port that was free if 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until `stop` is cancelled, then listens no more and closes every connection; a device whose
    /// PUBLISH is not acknowledged by then still has it. A second call returns at once.
    pub async fn run(&self, stop: CancellationToken) {
        let taken = self.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(server) = taken else { return };
        tokio::select! {
            () = stop.cancelled() => {}
            ended = server.run() => tracing::error!(?ended, "the embedded broker's listener ended"),
        }
        self.close_connections().await;
    }

    async fn close_connections(&self) {
        for entry in self.context.extends.shared().await.iter() {
            if let Some(session) = entry.tx() {
                // An error says that it is closed already.
                let _ = session.unbounded_send(Message::Closed(SHUTDOWN.into()));
            }
        }
        let closed = async {
            while self.context.connections.count() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(Self::CLOSE_WITHIN, closed).await.is_err() {
            tracing::warn!(open = self.context.connections.count(), "connections of devices are still open");
        }
    }

    /// Publishes at QoS 1 to the subscribers there are and keeps the message for those to come; an empty
    /// payload clears the topic. Sources do not see it.
    ///
    /// # Errors
    /// [`BrokerError::Publish`] when the topic is no topic name.
    pub async fn publish_retained(&self, topic: &str, payload: Bytes) -> Result<(), BrokerError> {
        self.publish(topic, payload, QoS::AtLeastOnce, true, &[], &Delivery::default()).await
    }

    /// Publishes a parcel as [`Embedded::publish_retained`] does, retained or not, and tells its sender what became of it.
    pub async fn publish_parcel(&self, parcel: Parcel) {
        let Parcel { topic, payload, retain, properties, delivery, answer } = parcel;
        let said = if delivery.is_late(tokio::time::Instant::now()) {
            Answer::Refused("expired")
        } else {
            let outcome = self.publish(&topic, payload, QoS::AtLeastOnce, retain, &properties, &delivery).await;
            let taken =
                if delivery.traced { Answer::Traced { unheard: false, repeated: false } } else { Answer::Taken };
            outcome.map_or(Answer::Refused("topic_name_invalid"), |()| taken)
        };
        // Whoever asked may be gone.
        let _ = answer.send(said);
    }

    /// Publishes at QoS 0 to the subscribers there are. Sources do not see it.
    ///
    /// # Errors
    /// [`BrokerError::Publish`] when the topic is no topic name.
    pub async fn publish_once(&self, topic: &str, payload: Bytes) -> Result<(), BrokerError> {
        self.publish(topic, payload, QoS::AtMostOnce, false, &[], &Delivery::default()).await
    }

    async fn publish(
        &self,
        topic: &str,
        payload: Bytes,
        qos: QoS,
        retain: bool,
        user: &[(String, String)],
        delivery: &Delivery,
    ) -> Result<(), BrokerError> {
        let refused = |detail: String| BrokerError::Publish { topic: topic.to_owned(), detail };
        if !intake::is_topic_name(topic) {
            return Err(refused("empty, or it has a wildcard or a NUL".to_owned()));
        }
        let origin = Id::new(self.context.node.id(), 0, None, None, "tidegate".into(), None);
        let user: UserProperties =
            user.iter().map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect();
        let expiry = delivery.expiry_seconds(tokio::time::Instant::now());
        let is_plain =
            user.is_empty() && expiry.is_none() && delivery.response_topic.is_none() && delivery.correlation.is_none();
        let properties = (!is_plain).then(|| {
            let mut properties: PublishProperties = user.into();
            properties.message_expiry_interval = expiry.and_then(NonZeroU32::new);
            properties.response_topic = delivery.response_topic.as_deref().map(Into::into);
            properties.correlation_data = delivery.correlation.clone();
            properties
        });
        let lives = expiry.map(|seconds| Duration::from_secs(u64::from(seconds)));
        let publish =
            CodecPublish { dup: false, retain, qos, topic: topic.into(), packet_id: None, payload, properties };
        SessionState::forwards(&self.context, Origin::from_system(origin), Publish::from(publish), false, lives)
            .await
            .map_err(|error| refused(error.to_string()))
    }
}
