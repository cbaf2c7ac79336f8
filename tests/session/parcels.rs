//! Publishes whose fate matters: in order, answered by reason, and again on the next connection.

use bytes::Bytes;
use tidegate::config::MqttVersion;
use tidegate::metrics::ByReason;
use tidegate::mqtt::{Answer, Delivery, Parcel};
use tokio::sync::oneshot;

use super::rig::{PATIENCE, Rig, broker};
use crate::support::fake_broker::{FakeBroker, Packet, Peer};

const LEVELS: [(u8, MqttVersion); 2] = [(5, MqttVersion::V5), (4, MqttVersion::V311)];

async fn send(rig: &Rig, topic: &str) -> oneshot::Receiver<Answer> {
    let (answer, told) = oneshot::channel();
    let properties = vec![("severity".to_owned(), "info".to_owned())];
    let parcel = Parcel {
        topic: topic.to_owned(),
        payload: Bytes::from_static(b"{}"),
        retain: true,
        properties,
        delivery: Delivery::default(),
        answer,
    };
    rig.parcels.send(parcel).await.unwrap();
    told
}

async fn told(answer: oneshot::Receiver<Answer>) -> Answer {
    tokio::time::timeout(PATIENCE, answer).await.expect("an answer comes").expect("the session lives")
}

/// The next PUBLISH: its topic and packet id.
async fn published(peer: &mut Peer) -> (String, u16) {
    match peer.next().await {
        Packet::Publish { topic, id, qos: 1, retain: true, .. } => (topic, id),
        other => panic!("not a retained PUBLISH at QoS 1: {other:?}"),
    }
}

#[tokio::test]
async fn each_publish_is_answered_with_what_the_broker_says() {
    let fake = FakeBroker::start(5).await;
    let mut rig = Rig::start(broker(fake.port, MqttVersion::V5, "answers"), &["a"]);
    let (mut peer, _) = fake.serve(false).await;
    rig.up().await;
    let mut answers = Vec::new();
    for topic in ["one", "two", "three"] {
        answers.push(send(&rig, topic).await);
    }
    for (topic, code) in [("one", 0x00), ("two", 0x87), ("three", 0x10)] {
        let Packet::Publish { topic: sent, id, properties, .. } = peer.next().await else { panic!("no PUBLISH") };
        assert_eq!(sent, topic);
        assert_eq!(properties, b"\x26\x00\x08severity\x00\x04info");
        peer.puback_with(id, code).await;
    }
    let expected = [Answer::Taken, Answer::Refused("not_authorized"), Answer::Taken];
    for (answer, expected) in answers.into_iter().zip(expected) {
        assert_eq!(told(answer).await, expected);
    }
    let refused = rig.metrics.publish_errors.get_or_create(&ByReason { reason: "not_authorized" }).get();
    assert_eq!((refused, rig.metrics.messages_published.get()), (1, 3));
    rig.crash().await;
}

#[tokio::test]
async fn what_a_lost_connection_left_unanswered_is_published_again_in_order() {
    for (level, version) in LEVELS {
        let fake = FakeBroker::start(level).await;
        let mut rig = Rig::start(broker(fake.port, version, "again"), &["a"]);
        let mut answers = vec![send(&rig, "one").await];
        // Before there is any connection it waits.
        let (mut peer, _) = fake.serve(false).await;
        rig.up().await;
        for topic in ["two", "three"] {
            answers.push(send(&rig, topic).await);
        }
        let mut ids = Vec::new();
        for expected in ["one", "two", "three"] {
            let (topic, id) = published(&mut peer).await;
            assert_eq!(topic, expected);
            ids.push(id);
        }
        peer.puback(ids[0]).await;
        assert_eq!(told(answers.remove(0)).await, Answer::Taken);
        drop(peer);
        rig.down().await;
        answers.push(send(&rig, "four").await);
        let (mut peer, _) = fake.serve(false).await;
        for expected in ["two", "three", "four"] {
            let (topic, id) = published(&mut peer).await;
            assert_eq!(topic, expected);
            peer.puback(id).await;
            assert_eq!(told(answers.remove(0)).await, Answer::Taken);
        }
        rig.crash().await;
    }
}

#[tokio::test]
async fn many_keep_their_order_and_acknowledgements_flow_beside_them() {
    let fake = FakeBroker::start(5).await;
    let mut rig = Rig::start(broker(fake.port, MqttVersion::V5, "many"), &["a"]);
    let (mut peer, _) = fake.serve(false).await;
    rig.up().await;
    let parcels = rig.parcels.clone();
    let sending = tokio::spawn(async move {
        let mut answers = Vec::new();
        for number in 0..200 {
            let (answer, told) = oneshot::channel();
            let (topic, payload) = (number.to_string(), Bytes::new());
            parcels
                .send(Parcel {
                    topic,
                    payload,
                    retain: true,
                    properties: Vec::new(),
                    delivery: Delivery::default(),
                    answer,
                })
                .await
                .unwrap();
            answers.push(told);
        }
        answers
    });
    // With as many unanswered as there may be, a message is still acknowledged.
    let mut waiting: Vec<(String, u16)> = Vec::new();
    while waiting.len() < 8 {
        waiting.push(published(&mut peer).await);
    }
    peer.publish("a", "1", 1, 900, false).await;
    let message = rig.take(1).await;
    rig.durable(&message);
    assert_eq!(peer.next().await, Packet::PubAck(900));
    for number in 0..200 {
        let (topic, id) = if waiting.is_empty() { published(&mut peer).await } else { waiting.remove(0) };
        assert_eq!(topic, number.to_string());
        peer.puback(id).await;
    }
    for answer in sending.await.unwrap() {
        assert_eq!(told(answer).await, Answer::Taken);
    }
    rig.crash().await;
}

#[tokio::test]
async fn what_can_never_be_sent_is_refused_and_holds_nothing_up() {
    let fake = FakeBroker::start(5).await;
    let mut rig = Rig::start(broker(fake.port, MqttVersion::V5, "never"), &["a"]);
    let mut peer = fake.accept().await;
    peer.next().await;
    // It takes packets of 100 bytes (MQTT 5, 3.2.2.3.6).
    peer.connack(false, 0, &[0x27, 0, 0, 0, 100]).await;
    peer.grant_all().await;
    let (topic, id) = published(&mut peer).await;
    assert_eq!(topic, "tidegate/status/gw-01");
    peer.puback(id).await;
    rig.up().await;
    let wild = send(&rig, "a/#").await;
    let large = send(&rig, &"x".repeat(100)).await;
    let good = send(&rig, "good").await;
    assert_eq!(told(wild).await, Answer::Refused("topic_name_invalid"));
    assert_eq!(told(large).await, Answer::Refused("packet_too_large"));
    let (topic, id) = published(&mut peer).await;
    assert_eq!(topic, "good");
    peer.puback(id).await;
    assert_eq!(told(good).await, Answer::Taken);
    rig.crash().await;
}

#[tokio::test]
async fn a_stop_waits_for_the_answers_to_what_is_under_way() {
    let fake = FakeBroker::start(5).await;
    let mut rig = Rig::start(broker(fake.port, MqttVersion::V5, "stop"), &["a"]);
    let (mut peer, _) = fake.serve(false).await;
    rig.up().await;
    let answer = send(&rig, "last").await;
    let (_, last) = published(&mut peer).await;
    rig.begin_stop();
    let (topic, offline) = published(&mut peer).await;
    assert_eq!(topic, "tidegate/status/gw-01");
    peer.puback(last).await;
    peer.puback(offline).await;
    assert_eq!(told(answer).await, Answer::Taken);
    assert_eq!(peer.next().await, Packet::Disconnect);
    rig.stop().await;
}

#[tokio::test]
async fn a_broker_that_lets_nobody_ask_of_alerts_serves_the_sources_all_the_same() {
    let fake = FakeBroker::start(5).await;
    let mut rig = Rig::start(broker(fake.port, MqttVersion::V5, "asking"), &["a", "tidegate/alerts/+/+/ack"]);
    let mut peer = fake.accept().await;
    peer.next().await;
    peer.connack(false, 0, &[]).await;
    let Packet::Subscribe { id, filters } = peer.next().await else { panic!("no SUBSCRIBE") };
    let code = |filter: &str| if filter == "a" { 1 } else { 0x87 };
    let codes: Vec<u8> = filters.iter().map(|(filter, _)| code(filter)).collect();
    peer.suback(id, &codes).await;
    rig.up().await;
    assert_eq!(rig.metrics.subscriptions_refused.get(), 1);
    rig.crash().await;
}
