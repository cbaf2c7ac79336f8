//! The configured broker as rumqttc's options, for both versions.

use std::sync::Arc;
use std::time::Duration;

use rumqttc::{NetworkOptions, TlsConfiguration, Transport, v5};

use super::status;
use super::tls::{self, TlsError};
use crate::config::{self, Endpoint, MqttVersion};

/// Publishes of its own that tidegate has unacknowledged at once: more than the outbox hands over, since at this many rumqttc
/// sends nothing more, acknowledgements neither. Its default of 65,535 allocates 14 MB.
const OUTGOING_IN_FLIGHT: u16 = 16;
/// The largest packet that MQTT has (MQTT 3.1.1, 2.2.3), with its fixed header.
const LARGEST_PACKET: usize = 268_435_455 + 5;
/// rumqttc panics below this.
const LEAST_KEEP_ALIVE: Duration = Duration::from_secs(5);

/// What keeps the configured broker from being connected to at all.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    #[error("broker.url: the broker is embedded, there is none to connect to")]
    Embedded,
    #[error("broker.client_id is empty: the broker could not know the session again")]
    NoClientId,
    #[error("broker.url: {0} over TLS needs a host name, not an IPv6 address")]
    Ipv6OverTls(String),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What the connection is for.
pub(super) enum Purpose<'a> {
    /// The persistent session, with a will on the instance's status topic.
    Session { instance_id: &'a str },
    /// The state of a host application of Sparkplug, with its will.
    HostState { topic: &'a str, will: &'a str },
    /// Only to see whether the broker answers; leaves nothing behind.
    Probe,
    /// To hear what there is; leaves nothing behind.
    Listen,
}

/// Bounds of one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Bytes.
    pub(super) max_packet: usize,
    pub(super) connect_timeout: Duration,
}

/// Ready for an event loop.
pub(super) enum Options {
    V5(Box<v5::MqttOptions>),
    V4(Box<rumqttc::MqttOptions>, NetworkOptions),
}

/// Reads the certificates and sets everything; no setter is called with what it would panic on.
pub(super) fn build(broker: &config::Broker, purpose: &Purpose<'_>, bounds: Bounds) -> Result<Options, OptionsError> {
    let client_id = match purpose {
        Purpose::Session { .. } => broker.client_id.clone(),
        Purpose::HostState { .. } => format!("{}-state", broker.client_id),
        // Not the session's: the broker would end that.
        Purpose::Probe => format!("{}-check-{:04x}", broker.client_id, fastrand::u16(..)),
        Purpose::Listen => format!("{}-discover-{:04x}", broker.client_id, fastrand::u16(..)),
    };
    if client_id.is_empty() {
        return Err(OptionsError::NoClientId);
    }
    let place = place(&broker.endpoint, &broker.tls)?;
    let mut network = NetworkOptions::new();
    // A PUBACK is a small packet of its own: Nagle would hold it for the peer's delayed ACK.
    network.set_tcp_nodelay(true);
    let connect_seconds = bounds.connect_timeout.as_secs().max(1);
    network.set_connection_timeout(connect_seconds);
    Ok(match broker.version {
        MqttVersion::V5 => {
            let mut options = v5_options(broker, purpose, client_id, place, bounds.max_packet);
            options.set_network_options(network).set_connection_timeout(connect_seconds);
            Options::V5(Box::new(options))
        }
        MqttVersion::V311 => Options::V4(Box::new(v4_options(broker, purpose, client_id, place)), network),
    })
}

fn v5_options(
    broker: &config::Broker,
    purpose: &Purpose<'_>,
    client_id: String,
    place: Place,
    max_packet: usize,
) -> v5::MqttOptions {
    let mut options = v5::MqttOptions::new(client_id, place.address, place.port);
    options.set_transport(place.transport).set_keep_alive(keep_alive(broker)).set_manual_acks(true);
    options.set_outgoing_inflight_upper_limit(OUTGOING_IN_FLIGHT);
    // No topic alias maximum: rumqttc queues the event before it resolves the alias, so topics would come empty.
    let max_packet = max_packet.clamp(1024, LARGEST_PACKET);
    options.set_max_packet_size(Some(u32::try_from(max_packet).unwrap_or(u32::MAX)));
    options.set_receive_maximum(Some(broker.receive_maximum.max(1)));
    if let Some((username, password)) = credentials(broker) {
        options.set_credentials(username, password);
    }
    match purpose {
        Purpose::Session { instance_id } => {
            options.set_clean_start(false);
            // Left out it means 0: the session would end with the connection.
            let expiry = u32::try_from(broker.session_expiry.as_secs()).unwrap_or(u32::MAX);
            options.set_session_expiry_interval(Some(expiry));
            let qos = v5::mqttbytes::QoS::AtLeastOnce;
            let topic = status::topic(instance_id);
            options.set_last_will(v5::mqttbytes::v5::LastWill::new(topic, status::OFFLINE, qos, true, None));
        }
        Purpose::HostState { topic, will } => {
            options.set_clean_start(true);
            let qos = v5::mqttbytes::QoS::AtLeastOnce;
            options.set_last_will(v5::mqttbytes::v5::LastWill::new(*topic, *will, qos, true, None));
        }
        Purpose::Probe | Purpose::Listen => {
            options.set_clean_start(true);
        }
    }
    options
}

fn v4_options(broker: &config::Broker, purpose: &Purpose<'_>, client_id: String, place: Place) -> rumqttc::MqttOptions {
    let mut options = rumqttc::MqttOptions::new(client_id, place.address, place.port);
    options.set_transport(place.transport).set_keep_alive(keep_alive(broker)).set_manual_acks(true);
    options.set_inflight(OUTGOING_IN_FLIGHT);
    // The broker can't be told a limit in this version: it would deliver an oversize message again after each
    // connection that it killed. So all are let in, and the session cuts them.
    options.set_max_packet_size(LARGEST_PACKET, LARGEST_PACKET);
    if let Some((username, password)) = credentials(broker) {
        options.set_credentials(username, password);
    }
    match purpose {
        Purpose::Session { instance_id } => {
            options.set_clean_session(false);
            let qos = rumqttc::QoS::AtLeastOnce;
            options.set_last_will(rumqttc::LastWill::new(status::topic(instance_id), status::OFFLINE, qos, true));
        }
        Purpose::HostState { topic, will } => {
            options.set_clean_session(true);
            options.set_last_will(rumqttc::LastWill::new(*topic, *will, rumqttc::QoS::AtLeastOnce, true));
        }
        Purpose::Probe | Purpose::Listen => {
            options.set_clean_session(true);
        }
    }
    options
}

/// Whole seconds that fit CONNECT's field (MQTT 5, 3.1.2.10).
fn keep_alive(broker: &config::Broker) -> Duration {
    broker.keep_alive.clamp(LEAST_KEEP_ALIVE, Duration::from_secs(u64::from(u16::MAX)))
}

fn credentials(broker: &config::Broker) -> Option<(&str, &str)> {
    let password = broker.password.as_ref().map(config::Secret::expose);
    match (broker.username.as_deref(), password) {
        (None, None) => None,
        (username, password) => Some((username.unwrap_or_default(), password.unwrap_or_default())),
    }
}

struct Place {
    /// A host, or a URL for WebSocket.
    address: String,
    port: u16,
    transport: Transport,
}

fn place(endpoint: &Endpoint, tls: &config::Tls) -> Result<Place, OptionsError> {
    let Endpoint::Remote { transport, host, port, path } = endpoint else {
        return Err(OptionsError::Embedded);
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let bracketed = if bare.contains(':') { format!("[{bare}]") } else { bare.to_owned() };
    let slash = if path.starts_with('/') { "" } else { "/" };
    let rustls = || tls::client_config(tls).map(|config: Arc<_>| TlsConfiguration::Rustls(config));
    let (address, transport) = match transport {
        config::Transport::Tcp => (bracketed, Transport::Tcp),
        // rumqttc takes the one string for both the address and the server's name.
        config::Transport::Tls if bare.contains(':') => return Err(OptionsError::Ipv6OverTls(host.clone())),
        config::Transport::Tls => (bracketed, Transport::Tls(rustls()?)),
        config::Transport::WebSocket => (format!("ws://{bracketed}:{port}{slash}{path}"), Transport::Ws),
        config::Transport::WebSocketTls => {
            (format!("wss://{bracketed}:{port}{slash}{path}"), Transport::Wss(rustls()?))
        }
    };
    Ok(Place { address, port: *port, transport })
}

/// The endpoint as a person would write it; without credentials.
pub(super) fn describe(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Embedded { listen } => format!("embedded, {listen}"),
        Endpoint::Remote { transport, host, port, path } => {
            let (scheme, path) = match transport {
                config::Transport::Tcp => ("mqtt", ""),
                config::Transport::Tls => ("mqtts", ""),
                config::Transport::WebSocket => ("ws", path.as_str()),
                config::Transport::WebSocketTls => ("wss", path.as_str()),
            };
            format!("{scheme}://{host}:{port}{path}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(version: MqttVersion) -> config::Broker {
        config::Broker {
            endpoint: Endpoint::Remote {
                transport: config::Transport::Tcp,
                host: "::1".into(),
                port: 1883,
                path: "/mqtt".into(),
            },
            version,
            client_id: "gw-01".into(),
            username: Some("u".into()),
            password: Some(config::Secret::new("p".into())),
            session_expiry: Duration::from_secs(u64::MAX),
            receive_maximum: 0,
            keep_alive: Duration::from_secs(1),
            ..config::Config::default().broker
        }
    }

    const BOUNDS: Bounds = Bounds { max_packet: 0, connect_timeout: Duration::ZERO };

    #[test]
    fn values_that_setters_panic_on_are_brought_into_range() {
        for version in [MqttVersion::V5, MqttVersion::V311] {
            let state = Purpose::HostState { topic: "spBv1.0/STATE/h", will: "{}" };
            for purpose in [Purpose::Session { instance_id: "gw" }, state, Purpose::Probe] {
                build(&broker(version), &purpose, BOUNDS).unwrap();
            }
        }
        let mut nameless = broker(MqttVersion::V311);
        nameless.client_id = String::new();
        let refused = build(&nameless, &Purpose::Session { instance_id: "gw" }, BOUNDS);
        assert!(matches!(refused, Err(OptionsError::NoClientId)));
    }

    #[test]
    fn the_session_is_persistent_and_bounded() {
        let Ok(Options::V5(options)) = build(&broker(MqttVersion::V5), &Purpose::Session { instance_id: "gw" }, BOUNDS)
        else {
            panic!("version 5");
        };
        assert_eq!(options.session_expiry_interval(), Some(u32::MAX));
        assert_eq!(options.receive_maximum(), Some(1));
        assert_eq!(options.max_packet_size(), Some(1024));
        assert_eq!(options.topic_alias_max(), None);
        assert!(!options.clean_start() && options.manual_acks());
        assert_eq!(options.keep_alive(), LEAST_KEEP_ALIVE);
        assert_eq!(options.broker_address(), ("[::1]".to_owned(), 1883));
    }

    #[test]
    fn tls_to_an_ipv6_address_is_refused_with_the_way_out() {
        let endpoint =
            Endpoint::Remote { transport: config::Transport::Tls, host: "::1".into(), port: 8883, path: String::new() };
        let error = place(&endpoint, &config::Tls::default()).err().unwrap();
        assert!(matches!(error, OptionsError::Ipv6OverTls(_)), "{error}");
    }
}
