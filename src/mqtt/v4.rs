//! MQTT 3.1.1 through rumqttc.

use std::time::Duration;

use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, EventLoop, MqttOptions, NetworkOptions, Packet, Publish, QoS,
    StateError, SubscribeFilter, SubscribeReasonCode,
};

use super::ledger::Receipt;
use super::loss::{self, Loss};
use super::parcel::Parcel;
use super::protocol::{Event, Full, Sent};
use super::subscriptions::{Ask, Grant};
use crate::message;

/// An event loop, for one connection.
pub(super) struct Connection {
    events: Box<EventLoop>,
}

impl Connection {
    pub(super) fn new(options: MqttOptions, network: NetworkOptions, requests: usize) -> (AsyncClient, Connection) {
        let (client, mut events) = AsyncClient::new(options, requests);
        events.set_network_options(network);
        (client, Connection { events: Box::new(events) })
    }

    pub(super) async fn poll(&mut self) -> Result<Event, Loss> {
        // Boxed, because it has room for a TLS handshake and would be copied on its way to where it is polled.
        let polled = Box::pin(self.events.poll()).await;
        polled.map(|event| self.event(event)).map_err(|error| self.loss(error))
    }

    pub(super) fn buffered(&mut self) -> Option<Event> {
        self.events.state.events.pop_front().map(|event| self.event(event))
    }

    fn event(&mut self, event: rumqttc::Event) -> Event {
        match event {
            rumqttc::Event::Outgoing(outgoing) => Event::Sent(Sent::from(&outgoing)),
            rumqttc::Event::Incoming(packet) => self.incoming(packet),
        }
    }

    fn incoming(&mut self, packet: Packet) -> Event {
        // A PINGRESP waits behind whatever the broker has begun to send, longer than the next PINGREQ where that is a
        // backlog on a slow link. What comes shows that the connection lives; silence is the watchdog's to judge.
        self.events.state.await_pingresp = false;
        match packet {
            Packet::Publish(publish) => Event::Publish(from_wire(publish)),
            Packet::ConnAck(connack) => Event::Connected {
                session_present: connack.session_present,
                keep_alive: self.events.mqtt_options.keep_alive(),
                max_packet: None,
            },
            Packet::SubAck(suback) => {
                let grants = suback.return_codes.iter().map(|code| grant(*code)).collect();
                Event::Subscribed { packet_id: suback.pkid, grants }
            }
            Packet::UnsubAck(unsuback) => Event::Unsubscribed { packet_id: unsuback.pkid },
            Packet::PubAck(puback) => Event::Published { packet_id: puback.pkid, refusal: None, unheard: false },
            _ => Event::Other,
        }
    }

    pub(super) fn expect_release(&mut self, packet_id: u16) {
        let mut publish = Publish::new("", QoS::ExactlyOnce, Vec::new());
        publish.pkid = packet_id;
        if self.events.state.handle_incoming_packet(Packet::Publish(publish)).is_ok() {
            self.events.state.events.pop_back();
        }
    }

    fn loss(&self, error: ConnectionError) -> Loss {
        match error {
            ConnectionError::MqttState(error) => state_loss(error),
            ConnectionError::NetworkTimeout => {
                Loss::ConnectTimeout(Duration::from_secs(self.events.network_options.connection_timeout()))
            }
            ConnectionError::FlushTimeout => {
                Loss::Stalled(Duration::from_secs(self.events.network_options.connection_timeout()))
            }
            ConnectionError::Tls(rumqttc::TlsError::Io(error)) | ConnectionError::Io(error) => Loss::from_io(&error),
            ConnectionError::Tls(error) => Loss::Tls(error.to_string()),
            ConnectionError::ConnectionRefused(code) => Loss::Refused(refusal(code)),
            ConnectionError::NotConnAck(_) => Loss::Protocol("something else than a CONNACK came first".into()),
            ConnectionError::RequestsDone => Loss::Protocol("the request channel has closed".into()),
            other => Loss::WebSocket(other.to_string()),
        }
    }
}

fn state_loss(error: StateError) -> Loss {
    match error {
        StateError::ConnectionAborted => Loss::Closed(loss::MAYBE_TAKEN_OVER),
        StateError::Io(error) | StateError::Deserialization(rumqttc::Error::Io(error)) => Loss::from_io(&error),
        StateError::Unsolicited(packet_id) => Loss::UnknownPacketId(packet_id),
        StateError::AwaitPingResp => Loss::Unanswered("PINGREQ"),
        StateError::CollisionTimeout => Loss::Unanswered("PUBLISH"),
        other => Loss::Protocol(other.to_string()),
    }
}

pub(super) fn acknowledge(client: &AsyncClient, receipt: Receipt) -> Result<(), Full> {
    let qos = if receipt.qos == 2 { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
    // rumqttc reads no more of it than these two.
    let mut publish = Publish::new("", qos, Vec::new());
    publish.pkid = receipt.packet_id;
    client.try_ack(&publish).map_err(|_| Full)
}

pub(super) fn ask(client: &AsyncClient, ask: &Ask) -> Result<(), Full> {
    match ask {
        Ask::Subscribe(filters) => {
            let filters = filters.iter().map(|filter| SubscribeFilter::new(filter.clone(), QoS::AtLeastOnce));
            client.try_subscribe_many(filters).map_err(|_| Full)
        }
        Ask::Listen(filter) => client.try_subscribe(filter, QoS::AtMostOnce).map_err(|_| Full),
        Ask::Unsubscribe(filter) => client.try_unsubscribe(filter).map_err(|_| Full),
    }
}

pub(super) fn publish(client: &AsyncClient, parcel: &Parcel) -> Result<(), Full> {
    let (topic, payload) = (parcel.topic.as_str(), parcel.payload.as_ref());
    client.try_publish(topic, QoS::AtLeastOnce, parcel.retain, payload).map_err(|_| Full)
}

fn from_wire(publish: Publish) -> message::Publish {
    message::Publish {
        topic: publish.topic,
        payload: publish.payload,
        qos: publish.qos as u8,
        retain: publish.retain,
        dup: publish.dup,
        packet_id: publish.pkid,
        client: None,
        properties: None,
    }
}

fn grant(code: SubscribeReasonCode) -> Grant {
    match code {
        SubscribeReasonCode::Success(qos) => Grant::Granted(qos as u8),
        SubscribeReasonCode::Failure => Grant::Refused("refused (MQTT 3.1.1 gives no reason; often not authorized)"),
    }
}

fn refusal(code: ConnectReturnCode) -> String {
    match code {
        ConnectReturnCode::BadUserNamePassword => loss::BAD_CREDENTIALS,
        ConnectReturnCode::NotAuthorized => loss::NOT_AUTHORIZED,
        ConnectReturnCode::BadClientId => loss::BAD_CLIENT_ID,
        ConnectReturnCode::RefusedProtocolVersion => loss::BAD_VERSION,
        ConnectReturnCode::ServiceUnavailable => "it is not ready",
        ConnectReturnCode::Success => "it gave no reason",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_comes_counts_as_an_answer_to_pingreq() {
        let options = rumqttc::MqttOptions::new("id", "localhost", 1);
        let (_client, mut connection) = Connection::new(options, NetworkOptions::new(), 1);
        connection.events.state.await_pingresp = true;
        connection.incoming(Packet::Publish(Publish::new("t", QoS::AtLeastOnce, Vec::new())));
        assert!(!connection.events.state.await_pingresp);
    }
}
