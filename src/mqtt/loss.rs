//! Why a connection ended, or did not come to be, in plain words.

use std::time::Duration;

/// Why there is no connection any more. Its text is for operators and holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Loss {
    /// CONNACK with a reason code (MQTT 5, 3.2.2.2).
    #[error("the broker refused the connection: {0}")]
    Refused(String),
    /// DISCONNECT 0x8E.
    #[error(
        "another client has connected with the same client id and taken the session over; \
         give each instance a broker.client_id of its own"
    )]
    TakenOver,
    /// DISCONNECT with a reason code (MQTT 5, 3.14.2.1).
    #[error("the broker ended the connection: {0}")]
    Disconnected(String),
    #[error("the broker closed the connection and gave no reason{0}")]
    Closed(&'static str),
    #[error("{0}")]
    Network(String),
    #[error("TLS: {0}")]
    Tls(String),
    #[error("WebSocket: {0}")]
    WebSocket(String),
    #[error("no answer to the connection attempt within {0:?}")]
    ConnectTimeout(Duration),
    #[error("the connection is up, but nothing came in for {0:?}")]
    Stalled(Duration),
    /// `quiet_reconnect` of a source.
    #[error("a source has been silent for its quiet_after and asks for a new connection")]
    Deaf,
    #[error("the broker did not answer {0} in time")]
    Unanswered(&'static str),
    #[error("the broker sent more unacknowledged messages than the way to the journal holds")]
    Overrun,
    #[error(
        "the broker sent a packet of {size} bytes though {max} bytes were announced as the most; raise a source's max_payload if it should come"
    )]
    Oversize { size: usize, max: usize },
    /// An acknowledgement or PUBREL for a packet id that the client does not know.
    #[error("the broker referred to packet id {0}, which this connection does not know")]
    UnknownPacketId(u16),
    #[error("the broker broke the protocol: {0}")]
    Protocol(String),
    #[error("{0}")]
    Options(String),
}

impl Loss {
    /// Never try again sooner than this: two clients that keep throwing each other out should not do so at full speed.
    pub(super) fn least_wait(&self) -> Duration {
        match self {
            Loss::TakenOver => Duration::from_secs(15),
            _ => Duration::ZERO,
        }
    }

    /// From an I/O error, with a hint where TLS is the likely cause.
    pub(super) fn from_io(error: &std::io::Error) -> Loss {
        let text = error.to_string();
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match inner {
            Some(rustls::Error::InvalidCertificate(_)) => Loss::Tls(format!(
                "{text} (the broker's certificate must be signed by broker.tls.ca, or else a system root, for the \
                 host in broker.url)"
            )),
            Some(rustls::Error::AlertReceived(_)) => {
                Loss::Tls(format!("{text} (does the broker want a client certificate? broker.tls.cert and key)"))
            }
            Some(_) => Loss::Tls(text),
            None => match error.kind() {
                std::io::ErrorKind::ConnectionRefused => {
                    Loss::Network(format!("{text}: nothing listens there (is the broker running?)"))
                }
                // A close by the broker that a write ran into.
                std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset => {
                    Loss::Network(format!("{text}{MAYBE_TAKEN_OVER}"))
                }
                _ => Loss::Network(text),
            },
        }
    }

    pub(super) fn with_reason_string(reason: &str, reason_string: Option<&str>) -> String {
        match reason_string.filter(|text| !text.is_empty()) {
            Some(text) => format!("{reason}; it says {text:?}"),
            None => reason.to_owned(),
        }
    }
}

/// What to say where credentials are wrong, whatever the version.
pub(super) const BAD_CREDENTIALS: &str =
    "bad user name or password (broker.username, and broker.password or password_file)";
/// What to say where the broker knows the client and won't have it.
pub(super) const NOT_AUTHORIZED: &str =
    "not authorized (check user name, password and the broker's access rules for this client)";
/// What to say where the client id is the trouble.
pub(super) const BAD_CLIENT_ID: &str = "client id not accepted (broker.client_id)";
/// What to say where the broker does not speak the version.
pub(super) const BAD_VERSION: &str = "it does not speak this version of MQTT (broker.version)";
/// MQTT 3.1.1 has no word for a takeover, and mosquitto 2.0.11 says none in MQTT 5 either.
pub(super) const MAYBE_TAKEN_OVER: &str =
    "; if that repeats, another client may be using the same client id (broker.client_id)";
/// What to say where the answer to CONNECT is none that MQTT 5 knows.
pub(super) const NOT_MQTT: &str =
    "its answer to CONNECT is not MQTT 5 (check broker.version, and scheme and port of broker.url)";
