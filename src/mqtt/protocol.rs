//! Both of rumqttc's event loops behind one face: what happened, and what can be asked for.

use std::time::Duration;

use super::ledger::Receipt;
use super::loss::Loss;
use super::options::Options;
use super::parcel::Parcel;
use super::subscriptions::{Ask, Grant};
use super::{v4, v5};
use crate::message::Publish;

/// Something that the connection reports.
#[derive(Debug)]
pub(super) enum Event {
    /// CONNACK; `keep_alive` is what is in force, for the broker may set its own. `max_packet`: bytes of the largest packet that
    /// it takes, where it told.
    Connected {
        session_present: bool,
        keep_alive: Duration,
        max_packet: Option<usize>,
    },
    Publish(Publish),
    Subscribed {
        packet_id: u16,
        grants: Vec<Grant>,
    },
    Unsubscribed {
        packet_id: u16,
    },
    /// PUBACK to a publish of ours; `refusal`: its reason code's name; `unheard`: nobody is subscribed to its topic.
    Published {
        packet_id: u16,
        refusal: Option<&'static str>,
        unheard: bool,
    },
    Sent(Sent),
    /// Anything else that came in.
    Other,
}

/// Something that went out, flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// A SUBSCRIBE or UNSUBSCRIBE has got this packet id.
    Ask(u16),
    /// A publish of ours has got this packet id; 0 at QoS 0.
    Publish(u16),
    /// A PUBACK or PUBREC.
    Acknowledgement,
    Disconnect,
    Other,
}

impl From<&rumqttc::Outgoing> for Sent {
    fn from(outgoing: &rumqttc::Outgoing) -> Sent {
        use rumqttc::Outgoing;
        match outgoing {
            Outgoing::Subscribe(id) | Outgoing::Unsubscribe(id) => Sent::Ask(*id),
            // Not so AwaitAck: that one collides with an unanswered publish and is sent when that is answered.
            Outgoing::Publish(id) => Sent::Publish(*id),
            Outgoing::PubAck(_) | Outgoing::PubRec(_) => Sent::Acknowledgement,
            Outgoing::Disconnect => Sent::Disconnect,
            _ => Sent::Other,
        }
    }
}

/// The request channel is full: try again after the next event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// One connection, from its first attempt to its end; never used for a second.
pub(super) enum Connection {
    V5(v5::Connection),
    V4(v4::Connection),
}

/// The way to ask something of the connection; never waits.
#[derive(Clone)]
pub(super) enum Client {
    V5(rumqttc::v5::AsyncClient),
    V4(rumqttc::AsyncClient),
}

/// An event loop of its own for each connection. `requests` is the capacity of the channel to it.
pub(super) fn open(options: Options, requests: usize) -> (Client, Connection) {
    match options {
        Options::V5(options) => {
            let (client, connection) = v5::Connection::new(*options, requests);
            (Client::V5(client), Connection::V5(connection))
        }
        Options::V4(options, network) => {
            let (client, connection) = v4::Connection::new(*options, network, requests);
            (Client::V4(client), Connection::V4(connection))
        }
    }
}

impl Connection {
    /// Connects at the first call, then gives one event after the other. A call must not be dropped before it
    /// ends, unless the connection is given up: a packet half written would be lost.
    pub(super) async fn poll(&mut self) -> Result<Event, Loss> {
        match self {
            Connection::V5(connection) => connection.poll().await,
            Connection::V4(connection) => connection.poll().await,
        }
    }

    /// What came along with the event before: rumqttc reads several packets at once. Much cheaper than a poll.
    pub(super) fn buffered(&mut self) -> Option<Event> {
        match self {
            Connection::V5(connection) => connection.buffered(),
            Connection::V4(connection) => connection.buffered(),
        }
    }

    /// Lets a PUBREL for this packet id be answered, though its PUBLISH came by an earlier connection.
    pub(super) fn expect_release(&mut self, packet_id: u16) {
        match self {
            Connection::V5(connection) => connection.expect_release(packet_id),
            Connection::V4(connection) => connection.expect_release(packet_id),
        }
    }
}

impl Client {
    pub(super) fn acknowledge(&self, receipt: Receipt) -> Result<(), Full> {
        match self {
            Client::V5(client) => v5::acknowledge(client, receipt),
            Client::V4(client) => v4::acknowledge(client, receipt),
        }
    }

    pub(super) fn ask(&self, ask: &Ask) -> Result<(), Full> {
        match self {
            Client::V5(client) => v5::ask(client, ask),
            Client::V4(client) => v4::ask(client, ask),
        }
    }

    /// At QoS 1, retained.
    pub(super) fn publish_retained(&self, topic: &str, payload: impl Into<Vec<u8>>) -> Result<(), Full> {
        match self {
            Client::V5(client) => {
                let qos = rumqttc::v5::mqttbytes::QoS::AtLeastOnce;
                client.try_publish(topic, qos, true, payload.into()).map_err(|_| Full)
            }
            Client::V4(client) => client.try_publish(topic, rumqttc::QoS::AtLeastOnce, true, payload).map_err(|_| Full),
        }
    }

    /// At QoS 1. Its topic is a topic name: another would look like a channel that is full.
    pub(super) fn publish(&self, parcel: &Parcel) -> Result<(), Full> {
        match self {
            Client::V5(client) => v5::publish(client, parcel),
            Client::V4(client) => v4::publish(client, parcel),
        }
    }

    /// At QoS 0, not retained: nothing answers, and its packet id is 0.
    pub(super) fn publish_once(&self, topic: &str, payload: &[u8]) -> Result<(), Full> {
        match self {
            Client::V5(client) => {
                let qos = rumqttc::v5::mqttbytes::QoS::AtMostOnce;
                client.try_publish(topic, qos, false, payload.to_vec()).map_err(|_| Full)
            }
            Client::V4(client) => client.try_publish(topic, rumqttc::QoS::AtMostOnce, false, payload).map_err(|_| Full),
        }
    }

    pub(super) fn disconnect(&self) -> Result<(), Full> {
        match self {
            Client::V5(client) => client.try_disconnect().map_err(|_| Full),
            Client::V4(client) => client.try_disconnect().map_err(|_| Full),
        }
    }
}

/// Whether the client would send it at all.
pub(super) fn valid_filter(filter: &str) -> bool {
    rumqttc::valid_filter(filter) && filter.len() <= usize::from(u16::MAX) && !filter.contains('\0')
}
