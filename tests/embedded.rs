//! The embedded broker, seen from its clients.

use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, LastWill, Packet, PubAckReason, PubRecReason, Publish, RetainForwardRule};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions};
use tidegate::broker::{BrokerError, Limits};
use tidegate::config::Secret;
use tidegate::metrics::ByReason;
use tidegate::mqtt::{Answer, Delivery, Parcel};

use crate::support::embedded::{Broker, DEADLINE};

const TOPIC: &str = "devices/d1/telemetry";

/// A v5 client that is polled by hand.
struct Client {
    client: AsyncClient,
    connection: EventLoop,
}

impl Client {
    fn new(options: MqttOptions) -> Client {
        let (client, connection) = AsyncClient::new(options, 50);
        Client { client, connection }
    }

    async fn connect(broker: &Broker, id: &str) -> Client {
        let mut client = Client::new(MqttOptions::new(id, "127.0.0.1", broker.port()));
        client.until(|packet| matches!(packet, Packet::ConnAck(_)).then_some(())).await;
        client
    }

    async fn subscribe(&mut self, filter: &str) {
        let mut filter = Filter::new(filter, QoS::AtLeastOnce);
        filter.preserve_retain = true;
        filter.retain_forward_rule = RetainForwardRule::OnEverySubscribe;
        self.client.subscribe_many([filter]).await.unwrap();
        self.until(|packet| matches!(packet, Packet::SubAck(_)).then_some(())).await;
    }

    async fn publish(&self, topic: &str, qos: QoS, retain: bool, payload: &str) {
        self.client.publish(topic, qos, retain, payload.to_owned()).await.unwrap();
    }

    /// Polls until a packet answers, at most until the deadline.
    async fn until<T>(&mut self, mut wanted: impl FnMut(&Packet) -> Option<T>) -> T {
        self.try_until(&mut wanted).await.expect("the connection stays up")
    }

    async fn try_until<T>(&mut self, mut wanted: impl FnMut(&Packet) -> Option<T>) -> Result<T, ConnectionError> {
        let found = async {
            loop {
                if let Event::Incoming(packet) = self.connection.poll().await?
                    && let Some(found) = wanted(&packet)
                {
                    return Ok(found);
                }
            }
        };
        tokio::time::timeout(DEADLINE, found).await.expect("an answer before the deadline")
    }

    async fn message(&mut self) -> Publish {
        self.until(|packet| if let Packet::Publish(publish) = packet { Some(publish.clone()) } else { None }).await
    }

    /// Polls for so long; every packet that came.
    async fn packets_for(&mut self, time: Duration) -> Vec<Packet> {
        let mut packets = Vec::new();
        let _ = tokio::time::timeout(time, async {
            while let Ok(event) = self.connection.poll().await {
                if let Event::Incoming(packet) = event {
                    packets.push(packet);
                }
            }
        })
        .await;
        packets
    }
}

fn puback(packet: &Packet) -> Option<PubAckReason> {
    if let Packet::PubAck(ack) = packet { Some(ack.reason) } else { None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_v5_device_gets_its_puback_only_once_the_message_is_durable() {
    let broker = Broker::start().await;
    let mut device = Client::connect(&broker, "d1").await;
    device.publish(TOPIC, QoS::AtLeastOnce, true, "{\"temp\":21}").await;
    let early = device.packets_for(Duration::from_millis(300)).await;
    assert!(early.is_empty(), "{early:?}");
    let submission = broker.submitted().await;
    let publish = &submission.publish;
    assert_eq!((publish.topic.as_str(), &publish.payload[..], publish.qos), (TOPIC, &b"{\"temp\":21}"[..], 1));
    assert_eq!((publish.client.as_deref(), publish.packet_id, publish.dup), (Some("d1"), 1, false));
    assert!(!publish.retain, "the device asked to store it; it was not stored");
    broker.make_durable(&submission);
    assert_eq!(device.until(puback).await, PubAckReason::Success);
    assert!(broker.waiters.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_v311_device_gets_its_puback_only_once_the_message_is_durable() {
    let broker = Broker::start().await;
    let options = rumqttc::MqttOptions::new("d1", "127.0.0.1", broker.port());
    let (client, mut connection) = rumqttc::AsyncClient::new(options, 10);
    client.publish(TOPIC, rumqttc::QoS::AtLeastOnce, false, "1").await.unwrap();
    let mut acknowledged = false;
    let submission = loop {
        tokio::select! {
            event = connection.poll() => {
                acknowledged |= matches!(event.unwrap(), rumqttc::Event::Incoming(rumqttc::Packet::PubAck(_)));
            }
            submission = broker.submitted() => break submission,
        }
    };
    assert!(!acknowledged && submission.publish.properties.is_none());
    broker.make_durable(&submission);
    let acknowledged = async {
        while !matches!(connection.poll().await.unwrap(), rumqttc::Event::Incoming(rumqttc::Packet::PubAck(_))) {}
    };
    tokio::time::timeout(DEADLINE, acknowledged).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_journal_tells_a_v5_device_quota_exceeded_and_keeps_its_connection() {
    let broker = Broker::with(Limits::default(), 0).await;
    let mut device = Client::connect(&broker, "d1").await;
    device.publish(TOPIC, QoS::AtLeastOnce, false, "1").await;
    assert_eq!(device.until(puback).await, PubAckReason::QuotaExceeded);
    device.publish(TOPIC, QoS::ExactlyOnce, false, "2").await;
    let received = |packet: &Packet| if let Packet::PubRec(ack) = packet { Some(ack.reason) } else { None };
    assert_eq!(device.until(received).await, PubRecReason::QuotaExceeded);
    device.publish("other/topic", QoS::AtLeastOnce, false, "3").await;
    assert_ne!(device.until(puback).await, PubAckReason::QuotaExceeded);
    assert_eq!(broker.metrics.embedded_refusals.get(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_journal_closes_a_v311_connection_rather_than_acknowledge() {
    let broker = Broker::with(Limits::default(), 0).await;
    for qos in [rumqttc::QoS::AtLeastOnce, rumqttc::QoS::ExactlyOnce] {
        let options = rumqttc::MqttOptions::new("d1", "127.0.0.1", broker.port());
        let (client, mut connection) = rumqttc::AsyncClient::new(options, 10);
        client.publish(TOPIC, qos, false, "1").await.unwrap();
        let closed = async {
            loop {
                match connection.poll().await {
                    Ok(rumqttc::Event::Incoming(packet)) => {
                        assert!(matches!(packet, rumqttc::Packet::ConnAck(_)), "{packet:?}");
                    }
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
        };
        tokio::time::timeout(DEADLINE, closed).await.unwrap();
    }
    assert!(broker.metrics.embedded_refusals.get() >= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_become_durable_in_time_is_not_acknowledged() {
    let limits = Limits { patience: Duration::from_millis(100), ..Limits::default() };
    let broker = Broker::with(limits, 10).await;
    let mut device = Client::connect(&broker, "d1").await;
    device.publish(TOPIC, QoS::AtLeastOnce, false, "1").await;
    assert!(device.try_until(puback).await.is_err());
    assert!(broker.waiters.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn qos_0_is_journalled_without_anyone_waiting_and_counted_when_there_is_no_room() {
    let broker = Broker::with(Limits::default(), 1).await;
    let mut device = Client::connect(&broker, "d1").await;
    device.publish(TOPIC, QoS::AtMostOnce, false, "1").await;
    device.publish(TOPIC, QoS::AtMostOnce, false, "2").await;
    device.publish("other", QoS::AtLeastOnce, false, "3").await;
    device.until(puback).await;
    let submission = broker.submitted().await;
    assert_eq!((submission.token, submission.publish.qos, submission.publish.packet_id), (None, 0, 0));
    assert!(broker.nothing_submitted());
    let dropped = broker.metrics.messages_dropped.get_or_create(&ByReason { reason: "journal_full" });
    assert_eq!(dropped.get(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_qos_2_message_is_journalled_once_and_received_only_once_durable() {
    let broker = Broker::start().await;
    let mut device = Client::connect(&broker, "d1").await;
    device.publish(TOPIC, QoS::ExactlyOnce, false, "1").await;
    let early = device.packets_for(Duration::from_millis(200)).await;
    assert!(early.is_empty(), "{early:?}");
    let submission = broker.submitted().await;
    assert_eq!(submission.publish.qos, 2);
    broker.make_durable(&submission);
    device.until(|packet| matches!(packet, Packet::PubRec(_)).then_some(())).await;
    device.until(|packet| matches!(packet, Packet::PubComp(_)).then_some(())).await;
    assert!(broker.nothing_submitted());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_properties_of_a_v5_message_reach_the_journal() {
    let broker = Broker::start().await;
    let mut device = Client::connect(&broker, "d1").await;
    let properties = rumqttc::v5::mqttbytes::v5::PublishProperties {
        response_topic: Some("answers".into()),
        correlation_data: Some("42".into()),
        content_type: Some("application/json".into()),
        user_properties: vec![("a".into(), "b".into())],
        ..Default::default()
    };
    device.client.publish_with_properties(TOPIC, QoS::AtMostOnce, false, "1", properties).await.unwrap();
    device.packets_for(Duration::from_millis(100)).await;
    let properties = broker.submitted().await.publish.properties.unwrap();
    assert_eq!(properties.response_topic.as_deref(), Some("answers"));
    assert_eq!(properties.correlation_data.as_deref(), Some(&b"42"[..]));
    assert_eq!(properties.content_type.as_deref(), Some("application/json"));
    assert_eq!(properties.user, [("a".to_owned(), "b".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_subscriber_gets_the_retained_message_and_an_empty_one_clears_it() {
    let broker = Broker::start().await;
    let journal = broker.journal();
    let mut device = Client::connect(&broker, "d1").await;
    for (topic, payload) in [(TOPIC, "1"), (TOPIC, "2"), ("devices/d2/telemetry", "3"), ("devices/d2/telemetry", "")] {
        device.publish(topic, QoS::AtLeastOnce, true, payload).await;
        device.until(puback).await;
    }
    let mut late = Client::connect(&broker, "late").await;
    late.subscribe("devices/+/telemetry").await;
    let message = late.message().await;
    assert_eq!((&message.payload[..], message.retain, &message.topic[..]), (&b"2"[..], true, TOPIC.as_bytes()));
    let more = late.packets_for(Duration::from_millis(200)).await;
    assert!(more.is_empty(), "{more:?}");
    assert_eq!(journal.end().len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_talk_to_each_other_and_what_no_source_wants_is_not_journalled() {
    let broker = Broker::start().await;
    let mut listener = Client::connect(&broker, "listener").await;
    listener.subscribe("house/#").await;
    let mut sender = Client::connect(&broker, "sender").await;
    sender.publish("house/kitchen/light", QoS::AtLeastOnce, false, "on").await;
    assert_eq!(sender.until(puback).await, PubAckReason::Success);
    let message = listener.message().await;
    assert_eq!((&message.topic[..], &message.payload[..]), (&b"house/kitchen/light"[..], &b"on"[..]));
    assert!(broker.nothing_submitted() && broker.metrics.messages_received.get() == 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_see_a_wanted_message_once_it_is_durable() {
    let broker = Broker::start().await;
    let journal = broker.journal();
    let mut listener = Client::connect(&broker, "listener").await;
    listener.subscribe("devices/#").await;
    let mut device = Client::connect(&broker, "d1").await;
    device.publish(TOPIC, QoS::AtLeastOnce, false, "1").await;
    device.until(puback).await;
    assert_eq!(&listener.message().await.payload[..], b"1");
    assert_eq!(journal.end().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_members_of_a_shared_subscription_share_the_messages() {
    let broker = Broker::start().await;
    let (mut one, mut two) = (Client::connect(&broker, "one").await, Client::connect(&broker, "two").await);
    one.subscribe("$share/group/jobs/#").await;
    two.subscribe("$share/group/jobs/#").await;
    let mut sender = Client::connect(&broker, "sender").await;
    for n in 0..40 {
        sender.publish("jobs/a", QoS::AtLeastOnce, false, &n.to_string()).await;
        sender.until(puback).await;
    }
    let publishes = |packets: Vec<Packet>| packets.iter().filter(|packet| matches!(packet, Packet::Publish(_))).count();
    let (first, second) =
        tokio::join!(one.packets_for(Duration::from_secs(1)), two.packets_for(Duration::from_secs(1)));
    let (first, second) = (publishes(first), publishes(second));
    assert_eq!(first + second, 40);
    assert!(first > 0 && second > 0, "{first} and {second}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_will_that_a_source_wants_is_journalled() {
    let broker = Broker::start().await;
    let mut options = MqttOptions::new("d1", "127.0.0.1", broker.port());
    options.set_last_will(LastWill::new("devices/d1/gone", "bye", QoS::AtLeastOnce, false, None));
    let mut device = Client::new(options);
    device.until(|packet| matches!(packet, Packet::ConnAck(_)).then_some(())).await;
    drop(device);
    let submission = broker.submitted().await;
    assert_eq!((submission.publish.topic.as_str(), submission.token), ("devices/d1/gone", None));
    assert_eq!(submission.publish.client.as_deref(), Some("d1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use_is_named() {
    let broker = Broker::start().await;
    let (inbox, waiters) = (broker.inbox.clone(), broker.waiters.clone());
    let error = Broker::on(broker.port(), Limits::default(), inbox, waiters, broker.metrics.clone()).await.err();
    assert!(matches!(error, Some(BrokerError::Listen { .. })), "{error:?}");
    let text = error.unwrap().to_string();
    assert!(text.contains(&broker.port().to_string()) && text.contains("in use"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_is_seen_by_those_who_listen_and_by_those_who_come_later() {
    let broker = Broker::start().await;
    let mut early = Client::connect(&broker, "early").await;
    early.subscribe("tidegate/status/+").await;
    broker.embedded.publish_retained("tidegate/status/gw-01", "online".into()).await.unwrap();
    assert_eq!(&early.message().await.payload[..], b"online");
    let mut late = Client::connect(&broker, "late").await;
    late.subscribe("tidegate/status/gw-01").await;
    let message = late.message().await;
    assert_eq!((&message.payload[..], message.retain), (&b"online"[..], true));
    assert!(broker.embedded.publish_retained("tidegate/#", "x".into()).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parcel_is_answered_kept_with_its_properties_and_cleared() {
    let broker = Broker::start().await;
    let send = async |topic: &str, payload: &'static [u8]| {
        let (answer, told) = tokio::sync::oneshot::channel();
        let properties = vec![("state".to_owned(), "firing".to_owned())];
        let (topic, payload) = (topic.to_owned(), payload.into());
        broker
            .embedded
            .publish_parcel(Parcel { topic, payload, retain: true, properties, delivery: Delivery::default(), answer })
            .await;
        told.await.unwrap()
    };
    assert_eq!(send("tidegate/alerts/t/d/r", b"{}").await, Answer::Taken);
    assert_eq!(send("tidegate/alerts/#", b"{}").await, Answer::Refused("topic_name_invalid"));
    let mut late = Client::connect(&broker, "late").await;
    late.subscribe("tidegate/alerts/#").await;
    let kept = late.message().await;
    assert_eq!((&kept.payload[..], kept.retain, kept.qos), (&b"{}"[..], true, QoS::AtLeastOnce));
    let properties = kept.properties.unwrap().user_properties;
    assert_eq!(properties, [("state".to_owned(), "firing".to_owned())]);
    assert_eq!(send("tidegate/alerts/t/d/r", b"").await, Answer::Taken);
    assert!(late.message().await.payload.is_empty());
    let mut later = Client::connect(&broker, "later").await;
    later.subscribe("tidegate/alerts/#").await;
    assert_eq!(send("tidegate/alerts/t/d/other", b"1").await, Answer::Taken);
    assert_eq!(&later.message().await.payload[..], b"1", "the other topic was cleared");
    assert!(broker.nothing_submitted(), "sources don't see it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_credentials_set_only_who_presents_them_may_connect() {
    let credentials = Some(("devices".to_owned(), Secret::new("s3cret".to_owned())));
    let broker = Broker::with(Limits { credentials, ..Limits::default() }, 10).await;
    for given in [None, Some(("devices", "wrong")), Some(("other", "s3cret"))] {
        let mut options = MqttOptions::new("d1", "127.0.0.1", broker.port());
        given.map(|(username, password)| options.set_credentials(username, password));
        let refused = Client::new(options).try_until(|_| Some(())).await;
        assert!(matches!(refused, Err(ConnectionError::ConnectionRefused(_))), "{given:?} {refused:?}");
    }
    let mut options = MqttOptions::new("d1", "127.0.0.1", broker.port());
    options.set_credentials("devices", "s3cret");
    let mut device = Client::new(options);
    device.publish(TOPIC, QoS::AtLeastOnce, false, "1").await;
    let journal = broker.journal();
    assert_eq!(device.until(puback).await, PubAckReason::Success);
    journal.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_with_a_wildcard_ends_the_connection() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let broker = Broker::start().await;
    let mut socket = tokio::net::TcpStream::connect(broker.embedded.local_addr()).await.unwrap();
    socket.write_all(b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02d1").await.unwrap();
    socket.write_all(b"\x32\x0e\x00\x09devices/+\x00\x01x").await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(DEADLINE, socket.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, b"\x20\x02\x00\x00", "a CONNACK, no PUBACK, and the end");
    assert!(broker.nothing_submitted());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_closes_the_port_and_every_connection() {
    let broker = Broker::start().await;
    let address = broker.embedded.local_addr();
    let mut device = Client::connect(&broker, "d1").await;
    broker.stop().await;
    assert!(device.try_until(|_| None::<()>).await.is_err());
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
