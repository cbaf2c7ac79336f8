//! MQTT 5 through rumqttc.

use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::{
    ConnectReturnCode, DisconnectReasonCode, Filter, Packet, PubAckReason, Publish, PublishProperties,
    SubscribeReasonCode,
};
use rumqttc::v5::mqttbytes::{self, QoS};
use rumqttc::v5::{self, AsyncClient, ConnectionError, EventLoop, MqttOptions, StateError};

use super::ledger::Receipt;
use super::loss::{self, Loss};
use super::parcel::Parcel;
use super::protocol::{Event, Full, Sent};
use super::subscriptions::{Ask, Grant};
use crate::message;

/// Brokers that only speak 3.1.1 end it so.
const NO_CONNACK_HINT: &str = "; it may not speak MQTT 5 (broker.version)";

/// An event loop, for one connection.
pub(super) struct Connection {
    events: Box<EventLoop>,
    keep_alive: Duration,
    connected: bool,
}

impl Connection {
    pub(super) fn new(options: MqttOptions, requests: usize) -> (AsyncClient, Connection) {
        let keep_alive = options.keep_alive();
        let (client, events) = AsyncClient::new(options, requests);
        (client, Connection { events: Box::new(events), keep_alive, connected: false })
    }

    pub(super) async fn poll(&mut self) -> Result<Event, Loss> {
        // Boxed, because it has room for a TLS handshake and would be copied on its way to where it is polled.
        let polled = Box::pin(self.events.poll()).await;
        polled.map(|event| self.event(event)).map_err(|error| self.loss(error))
    }

    pub(super) fn buffered(&mut self) -> Option<Event> {
        self.events.state.events.pop_front().map(|event| self.event(event))
    }

    fn event(&mut self, event: v5::Event) -> Event {
        match event {
            v5::Event::Outgoing(outgoing) => Event::Sent(Sent::from(&outgoing)),
            v5::Event::Incoming(packet) => self.incoming(packet),
        }
    }

    fn incoming(&mut self, packet: Packet) -> Event {
        // A PINGRESP waits behind whatever the broker has begun to send, longer than the next PINGREQ where that is a
        // backlog on a slow link. What comes shows that the connection lives; silence is the watchdog's to judge.
        self.events.state.await_pingresp = false;
        match packet {
            Packet::Publish(publish) => Event::Publish(from_wire(publish)),
            Packet::ConnAck(connack) => {
                self.connected = true;
                // A server keep-alive of 0 turns pings off; rumqttc would send them without pause.
                if self.events.options.keep_alive().is_zero() {
                    self.events.options.set_keep_alive(self.keep_alive);
                }
                let keep_alive = self.events.options.keep_alive();
                let max_packet = connack.properties.and_then(|properties| properties.max_packet_size);
                let max_packet = max_packet.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
                Event::Connected { session_present: connack.session_present, keep_alive, max_packet }
            }
            Packet::SubAck(suback) => {
                let grants = suback.return_codes.iter().map(|code| grant(*code)).collect();
                Event::Subscribed { packet_id: suback.pkid, grants }
            }
            Packet::UnsubAck(unsuback) => Event::Unsubscribed { packet_id: unsuback.pkid },
            Packet::PubAck(puback) => {
                let unheard = puback.reason == PubAckReason::NoMatchingSubscribers;
                Event::Published { packet_id: puback.pkid, refusal: publish_refusal(puback.reason), unheard }
            }
            _ => Event::Other,
        }
    }

    pub(super) fn expect_release(&mut self, packet_id: u16) {
        let publish = Publish { qos: QoS::ExactlyOnce, pkid: packet_id, ..Publish::default() };
        if self.events.state.handle_incoming_packet(Packet::Publish(publish)).is_ok() {
            self.events.state.events.pop_back();
        }
    }

    fn loss(&self, error: ConnectionError) -> Loss {
        match error {
            ConnectionError::MqttState(error) => self.state_loss(error),
            ConnectionError::Timeout(_) => {
                Loss::ConnectTimeout(Duration::from_secs(self.events.options.connection_timeout()))
            }
            ConnectionError::Tls(v5::TlsError::Io(error)) | ConnectionError::Io(error) => Loss::from_io(&error),
            ConnectionError::Tls(error) => Loss::Tls(error.to_string()),
            ConnectionError::ConnectionRefused(code) => Loss::Refused(refusal(code)),
            ConnectionError::NotConnAck(_) => Loss::Protocol("something else than a CONNACK came first".into()),
            ConnectionError::RequestsDone => Loss::Protocol("the request channel has closed".into()),
            other => Loss::WebSocket(other.to_string()),
        }
    }

    fn state_loss(&self, error: StateError) -> Loss {
        match error {
            StateError::ServerDisconnect { reason_code: DisconnectReasonCode::SessionTakenOver, .. } => Loss::TakenOver,
            StateError::ServerDisconnect { reason_code, reason_string } => {
                Loss::Disconnected(Loss::with_reason_string(&disconnection(reason_code), reason_string.as_deref()))
            }
            // rumqttc waits for the rest of a CONNACK of 3.1.1, which is shorter, until the broker closes.
            StateError::ConnectionAborted if !self.connected => Loss::Closed(NO_CONNACK_HINT),
            StateError::ConnectionAborted => Loss::Closed(loss::MAYBE_TAKEN_OVER),
            StateError::Io(error) | StateError::Deserialization(mqttbytes::Error::Io(error)) => Loss::from_io(&error),
            StateError::Deserialization(mqttbytes::Error::PayloadSizeLimitExceeded { pkt_size, max }) => {
                Loss::Oversize { size: pkt_size, max: usize::try_from(max).unwrap_or(usize::MAX) }
            }
            StateError::Deserialization(_) if !self.connected => Loss::Protocol(loss::NOT_MQTT.into()),
            // DISCONNECT without a reason code means 0, a normal one; rumqttc can't read that form.
            StateError::Deserialization(mqttbytes::Error::PayloadRequired) => {
                Loss::Disconnected("normal disconnection".into())
            }
            StateError::Unsolicited(packet_id) => Loss::UnknownPacketId(packet_id),
            StateError::AwaitPingResp => Loss::Unanswered("PINGREQ"),
            StateError::CollisionTimeout => Loss::Unanswered("PUBLISH"),
            other => Loss::Protocol(other.to_string()),
        }
    }
}

pub(super) fn acknowledge(client: &AsyncClient, receipt: Receipt) -> Result<(), Full> {
    let qos = if receipt.qos == 2 { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
    // rumqttc reads no more of it than these two.
    let publish = Publish { qos, pkid: receipt.packet_id, ..Publish::default() };
    client.try_ack(&publish).map_err(|_| Full)
}

pub(super) fn ask(client: &AsyncClient, ask: &Ask) -> Result<(), Full> {
    match ask {
        Ask::Subscribe(filters) => {
            // Retain-as-published stays off: RETAIN then means that the broker had the message stored.
            let filters = filters.iter().map(|filter| Filter::new(filter, QoS::AtLeastOnce));
            client.try_subscribe_many(filters).map_err(|_| Full)
        }
        Ask::Listen(filter) => client.try_subscribe(filter, QoS::AtMostOnce).map_err(|_| Full),
        Ask::Unsubscribe(filter) => client.try_unsubscribe(filter).map_err(|_| Full),
    }
}

pub(super) fn publish(client: &AsyncClient, parcel: &Parcel) -> Result<(), Full> {
    let (topic, payload) = (parcel.topic.as_str(), parcel.payload.clone());
    let delivery = &parcel.delivery;
    let properties = PublishProperties {
        user_properties: parcel.properties.clone(),
        message_expiry_interval: delivery.expiry_seconds(tokio::time::Instant::now()),
        response_topic: delivery.response_topic.clone(),
        correlation_data: delivery.correlation.clone(),
        ..PublishProperties::default()
    };
    let sent = if properties == PublishProperties::default() {
        client.try_publish(topic, QoS::AtLeastOnce, parcel.retain, payload)
    } else {
        client.try_publish_with_properties(topic, QoS::AtLeastOnce, parcel.retain, payload, properties)
    };
    sent.map_err(|_| Full)
}

fn from_wire(publish: Publish) -> message::Publish {
    let topic = match String::from_utf8_lossy(&publish.topic) {
        std::borrow::Cow::Borrowed(topic) => topic.to_owned(),
        std::borrow::Cow::Owned(topic) => {
            tracing::warn!(%topic, "a topic that is not UTF-8; its stray bytes were replaced");
            topic
        }
    };
    let properties = publish.properties.map(|properties| message::Properties {
        content_type: properties.content_type,
        response_topic: properties.response_topic,
        correlation_data: properties.correlation_data,
        user: properties.user_properties,
    });
    message::Publish {
        topic,
        payload: publish.payload,
        qos: publish.qos as u8,
        retain: publish.retain,
        dup: publish.dup,
        packet_id: publish.pkid,
        client: None,
        properties: properties.filter(|kept| *kept != message::Properties::default()).map(Box::new),
    }
}

/// The name of a PUBACK's reason code, where it is a refusal (MQTT 5, 3.4.2.1).
fn publish_refusal(code: PubAckReason) -> Option<&'static str> {
    match code {
        PubAckReason::Success | PubAckReason::NoMatchingSubscribers => None,
        PubAckReason::UnspecifiedError => Some("unspecified_error"),
        PubAckReason::ImplementationSpecificError => Some("implementation_specific_error"),
        PubAckReason::NotAuthorized => Some("not_authorized"),
        PubAckReason::TopicNameInvalid => Some("topic_name_invalid"),
        PubAckReason::PacketIdentifierInUse => Some("packet_identifier_in_use"),
        PubAckReason::QuotaExceeded => Some("quota_exceeded"),
        PubAckReason::PayloadFormatInvalid => Some("payload_format_invalid"),
    }
}

fn grant(code: SubscribeReasonCode) -> Grant {
    Grant::Refused(match code {
        SubscribeReasonCode::Success(qos) => return Grant::Granted(qos as u8),
        SubscribeReasonCode::NotAuthorized => "not authorized",
        SubscribeReasonCode::TopicFilterInvalid => "topic filter not accepted",
        SubscribeReasonCode::PkidInUse => "packet id in use",
        SubscribeReasonCode::QuotaExceeded => "quota exceeded",
        SubscribeReasonCode::SharedSubscriptionsNotSupported => "shared subscriptions not supported",
        SubscribeReasonCode::SubscriptionIdNotSupported => "subscription identifiers not supported",
        SubscribeReasonCode::WildcardSubscriptionsNotSupported => "wildcards not supported",
        SubscribeReasonCode::Failure
        | SubscribeReasonCode::Unspecified
        | SubscribeReasonCode::ImplementationSpecific => "refused without a reason",
    })
}

fn refusal(code: ConnectReturnCode) -> String {
    match code {
        ConnectReturnCode::BadUserNamePassword => loss::BAD_CREDENTIALS.into(),
        ConnectReturnCode::NotAuthorized => loss::NOT_AUTHORIZED.into(),
        ConnectReturnCode::BadClientId | ConnectReturnCode::ClientIdentifierNotValid => loss::BAD_CLIENT_ID.into(),
        ConnectReturnCode::RefusedProtocolVersion | ConnectReturnCode::UnsupportedProtocolVersion => {
            loss::BAD_VERSION.into()
        }
        ConnectReturnCode::RetainNotSupported => "it keeps no retained messages, which the status topic needs".into(),
        ConnectReturnCode::QoSNotSupported => "it does not take QoS 1, which the status topic needs".into(),
        ConnectReturnCode::Banned => "this client is banned".into(),
        ConnectReturnCode::PacketTooLarge => "the CONNECT packet is too large for it".into(),
        ConnectReturnCode::ServerBusy | ConnectReturnCode::ServerUnavailable => "it is busy or not ready".into(),
        other => in_words(&other),
    }
}

fn disconnection(code: DisconnectReasonCode) -> String {
    match code {
        DisconnectReasonCode::KeepAliveTimeout => "it heard nothing from us for 1.5 times the keep-alive".into(),
        DisconnectReasonCode::PacketTooLarge => "a packet was too large for it".into(),
        DisconnectReasonCode::ReceiveMaximumExceeded => "too many publishes of ours were unacknowledged".into(),
        DisconnectReasonCode::AdministrativeAction => "an administrator closed it".into(),
        DisconnectReasonCode::NotAuthorized => loss::NOT_AUTHORIZED.into(),
        other => in_words(&other),
    }
}

/// `ServerShuttingDown` → `server shutting down`.
fn in_words(code: &impl std::fmt::Debug) -> String {
    let mut words = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn whatever_comes_counts_as_an_answer_to_pingreq() {
        let (_client, mut connection) = Connection::new(MqttOptions::new("id", "localhost", 1), 1);
        connection.events.state.await_pingresp = true;
        connection.incoming(Packet::Publish(Publish::default()));
        assert!(!connection.events.state.await_pingresp);
    }

    #[test]
    fn codes_read_like_words() {
        assert_eq!(in_words(&DisconnectReasonCode::ServerShuttingDown), "server shutting down");
    }

    #[test]
    fn a_topic_that_is_not_utf8_is_kept_lossily() {
        let publish = Publish { topic: Bytes::from_static(b"a/\xff"), ..Publish::default() };
        assert_eq!(from_wire(publish).topic, "a/\u{fffd}");
    }

    #[test]
    fn properties_without_anything_kept_are_none() {
        let properties = mqttbytes::v5::PublishProperties { message_expiry_interval: Some(3), ..Default::default() };
        let publish = Publish { topic: "t".into(), properties: Some(properties), ..Publish::default() };
        assert_eq!(from_wire(publish).properties, None);
    }
}
