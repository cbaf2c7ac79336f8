//! A device that publishes by MQTT 5 and hears what becomes of it.

use std::net::SocketAddr;
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions};
use tokio::runtime::{self, Runtime};

const DEADLINE: Duration = Duration::from_secs(60);

/// Connected; one message at a time.
pub struct Device {
    runtime: Runtime,
    client: AsyncClient,
    connection: EventLoop,
}

impl Device {
    pub fn connect(broker: SocketAddr, id: &str) -> Device {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut options = MqttOptions::new(id, broker.ip().to_string(), broker.port());
        options.set_max_packet_size(Some(16 << 20));
        let (client, connection) = AsyncClient::new(options, 10);
        let mut device = Device { runtime, client, connection };
        device.until(|packet| matches!(packet, Packet::ConnAck(_)).then_some(()));
        device
    }

    /// Publishes at QoS 1; panics unless it is acknowledged.
    pub fn publish(&mut self, topic: &str, payload: impl AsRef<[u8]>) {
        self.try_publish(topic, payload).expect("the connection stays up");
    }

    /// Publishes at QoS 1; whether it is acknowledged before the connection ends.
    pub fn publish_if_up(&mut self, topic: &str, payload: impl AsRef<[u8]>) -> bool {
        self.try_publish(topic, payload).is_ok()
    }

    fn try_publish(&mut self, topic: &str, payload: impl AsRef<[u8]>) -> Result<(), Box<ConnectionError>> {
        let payload = payload.as_ref().to_vec();
        self.runtime.block_on(self.client.publish(topic, QoS::AtLeastOnce, false, payload)).unwrap();
        let reason = self.find(|packet| if let Packet::PubAck(ack) = packet { Some(ack.reason) } else { None })?;
        assert!(matches!(reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers), "{reason:?}");
        Ok(())
    }

    /// Publishes so many at QoS 0, each payload made from its number; returns once all are sent.
    pub fn flood(&mut self, topic: &str, messages: usize, payload: impl Fn(usize) -> String) {
        let (client, connection) = (&self.client, &mut self.connection);
        self.runtime.block_on(async {
            let send = async {
                for number in 0..messages {
                    client.publish(topic, QoS::AtMostOnce, false, payload(number)).await.unwrap();
                }
            };
            let poll = async {
                loop {
                    connection.poll().await.expect("the connection stays up");
                }
            };
            tokio::select! {
                () = send => {}
                () = poll => {}
            }
        });
    }

    /// Polls until a packet answers.
    fn until<T>(&mut self, wanted: impl Fn(&Packet) -> Option<T>) -> T {
        self.find(wanted).expect("the connection stays up")
    }

    /// Polls until a packet answers, or the connection ends.
    fn find<T>(&mut self, wanted: impl Fn(&Packet) -> Option<T>) -> Result<T, Box<ConnectionError>> {
        let connection = &mut self.connection;
        let found = async {
            loop {
                let event = connection.poll().await?;
                if let Event::Incoming(packet) = event
                    && let Some(found) = wanted(&packet)
                {
                    return Ok(found);
                }
            }
        };
        self.runtime.block_on(async { tokio::time::timeout(DEADLINE, found).await.expect("an answer in time") })
    }
}
