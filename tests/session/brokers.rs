//! What the session promises, against a real mosquitto.

use std::time::Duration;

use tidegate::config::{Endpoint, MqttVersion, Secret, Transport};
use tidegate::mqtt::{self, Loss, SessionError};

use super::rig::{Rig, broker, payloads, settings};
use crate::support::certificates::Certificates;
use crate::support::mosquitto::{Mosquitto, Setup, Tls};
use crate::support::websocket_front::WebSocketFront;

const VERSIONS: [MqttVersion; 2] = [MqttVersion::V5, MqttVersion::V311];

fn over(mut broker: tidegate::config::Broker, transport: Transport, host: &str) -> tidegate::config::Broker {
    if let Endpoint::Remote { transport: current, host: name, .. } = &mut broker.endpoint {
        *current = transport;
        *name = host.into();
    }
    broker
}

#[tokio::test]
async fn messages_arrive_whole_and_are_acknowledged() {
    let mosquitto = Mosquitto::plain();
    for version in VERSIONS {
        mosquitto.publish("a/stored", "kept", &["-q", "1", "-r"]);
        let mut rig = Rig::start(broker(mosquitto.port, version, &format!("whole-{version:?}")), &["a/#"]);
        rig.up().await;
        let stored = rig.take(1).await;
        assert!(stored[0].publish.retain, "it was stored when we subscribed");
        for (qos, text) in [("0", "zero"), ("1", "one"), ("2", "two")] {
            mosquitto.publish("a/live", text, &["-q", qos, "-r"]);
        }
        let live = rig.take(3).await;
        assert_eq!(payloads(&live), ["zero", "one", "two"]);
        assert!(live.iter().all(|submission| !submission.publish.retain && submission.publish.topic == "a/live"));
        assert_eq!(live.iter().map(|submission| submission.publish.qos).collect::<Vec<_>>(), [0, 1, 1]);
        assert!(live[0].token.is_none() && live[1].token.is_some());
        rig.durable(&stored);
        rig.durable(&live);
        rig.until("the acknowledgements", |metrics| metrics.messages_acknowledged.get() == 3).await;
        assert_eq!(rig.metrics.messages_received.get(), 4);
        rig.stop().await;
        mosquitto.publish("a/live", "", &["-r"]);
    }
}

#[tokio::test]
async fn mqtt_5_properties_come_along() {
    let mosquitto = Mosquitto::plain();
    let mut rig = Rig::start(broker(mosquitto.port, MqttVersion::V5, "properties"), &["a"]);
    rig.up().await;
    let arguments = ["-V", "5", "-q", "1", "-D", "publish", "content-type", "application/json", "-D", "publish"];
    mosquitto.publish("a", "x", &[&arguments[..], &["user-property", "k", "v"]].concat());
    let taken = rig.take(1).await;
    let properties = taken[0].publish.properties.as_ref().unwrap();
    assert_eq!(properties.content_type.as_deref(), Some("application/json"));
    assert_eq!(properties.user, [("k".to_owned(), "v".to_owned())]);
    rig.stop().await;
}

#[tokio::test]
async fn tls_with_an_authority_and_a_client_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let certificates = Certificates::make(dir.path());
    let tls = Tls {
        ca: certificates.ca.clone(),
        cert: certificates.server.0.clone(),
        key: certificates.server.1.clone(),
        require_client_certificate: true,
    };
    let mosquitto = Mosquitto::start(Setup { tls: Some(tls), ..Setup::default() });
    for version in VERSIONS {
        let mut secure = over(broker(mosquitto.port, version, "tls"), Transport::Tls, "localhost");
        secure.tls.ca = Some(certificates.ca.clone());
        secure.tls.cert = Some(certificates.client.0.clone());
        secure.tls.key = Some(certificates.client.1.clone());
        let mut rig = Rig::start(secure.clone(), &["a"]);
        rig.up().await;
        rig.stop().await;

        secure.tls.cert = None;
        secure.tls.key = None;
        let unknown = mqtt::probe(&secure, Duration::from_secs(5)).await.unwrap_err();
        assert!(unknown.to_string().contains("broker.tls.cert"), "{unknown}");
        secure.tls.ca = Some(certificates.stranger.clone());
        let untrusted = mqtt::probe(&secure, Duration::from_secs(5)).await.unwrap_err();
        assert!(untrusted.to_string().contains("broker.tls.ca"), "{untrusted}");
    }
}

#[tokio::test]
async fn a_missing_authority_file_is_told_at_once() {
    let mut secure = over(broker(1, MqttVersion::V5, "tls"), Transport::Tls, "localhost");
    secure.tls.ca = Some("/nonexistent/ca.pem".into());
    let refused = mqtt::probe(&secure, Duration::from_secs(5)).await.unwrap_err();
    assert!(matches!(refused, SessionError::Options(_)), "{refused}");
    assert!(refused.to_string().contains("/nonexistent/ca.pem"), "{refused}");
}

#[tokio::test]
async fn websocket_plain_and_over_tls() {
    let mosquitto = Mosquitto::plain();
    let dir = tempfile::tempdir().unwrap();
    let certificates = Certificates::make(dir.path());
    let plain = WebSocketFront::start(mosquitto.port, "/mqtt", None).await;
    let secure = WebSocketFront::start(mosquitto.port, "/mqtt", Some(certificates.acceptor())).await;
    let ways = [(&plain, Transport::WebSocket), (&secure, Transport::WebSocketTls)];
    for (version, (front, transport)) in VERSIONS.into_iter().flat_map(|version| ways.map(|way| (version, way))) {
        let mut web = over(broker(front.port, version, "ws"), transport, "localhost");
        web.tls.ca = Some(certificates.ca.clone());
        let mut rig = Rig::start(web, &["a"]);
        rig.up().await;
        mosquitto.publish("a", &"x".repeat(20_000), &["-q", "1"]);
        let taken = rig.take(1).await;
        assert_eq!(taken[0].publish.payload.len(), 20_000);
        rig.durable(&taken);
        rig.until("the acknowledgement", |metrics| metrics.messages_acknowledged.get() == 1).await;
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_wrong_password_is_explained_and_not_shown() {
    let mosquitto = Mosquitto::start(Setup { users: vec![("gw", "right-Secret")], ..Setup::default() });
    for version in VERSIONS {
        let mut known = broker(mosquitto.port, version, "password");
        known.username = Some("gw".into());
        known.password = Some(Secret::new("right-Secret".into()));
        let mut rig = Rig::start(known.clone(), &["a"]);
        rig.up().await;
        rig.stop().await;

        known.password = Some(Secret::new("wrong-Secret".into()));
        let mut rig = Rig::start(known.clone(), &["a"]);
        let reason = rig.down().await;
        assert!(reason.contains("not authorized") && reason.contains("password"), "{reason}");
        assert!(!reason.contains("Secret"), "{reason}");
        rig.until("another attempt", |metrics| metrics.broker_connection_errors.get() >= 2).await;
        let probed = mqtt::probe(&known, Duration::from_secs(5)).await.unwrap_err().to_string();
        assert!(probed.contains("password") && !probed.contains("Secret"), "{probed}");
        rig.stop().await;
    }
}

#[tokio::test]
async fn what_is_published_while_away_arrives_after() {
    let mosquitto = Mosquitto::plain();
    for version in VERSIONS {
        let mut rig = Rig::start(broker(mosquitto.port, version, "away"), &["a/+"]);
        rig.up().await;
        rig.stop().await;
        mosquitto.publish("a/b", "missed", &["-q", "1"]);
        let mut rig = Rig::start(broker(mosquitto.port, version, "away"), &["a/+"]);
        rig.up().await;
        let taken = rig.take(1).await;
        assert_eq!(payloads(&taken), ["missed"]);
        rig.durable(&taken);
        rig.stop().await;
    }
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again_with_dup() {
    let mosquitto = Mosquitto::plain();
    for version in VERSIONS {
        let mut rig = Rig::start(broker(mosquitto.port, version, "again"), &["a"]);
        rig.up().await;
        mosquitto.publish_lines("a", &["one".into(), "two".into(), "three".into()]);
        let first = rig.take(3).await;
        rig.durable(&first[..1]);
        rig.until("the acknowledgement", |metrics| metrics.messages_acknowledged.get() == 1).await;
        // The broker answers in order: once a later subscription has brought its message, it has had the PUBACK.
        mosquitto.publish("later", "x", &["-r"]);
        rig.filters.send_replace(vec!["a".into(), "later".into()]);
        assert_eq!(payloads(&rig.take(1).await), ["x"]);
        rig.crash().await;
        let mut rig = Rig::start(broker(mosquitto.port, version, "again"), &["a"]);
        rig.up().await;
        let again = rig.take(2).await;
        assert_eq!(payloads(&again), ["two", "three"]);
        assert!(again.iter().all(|submission| submission.publish.dup));
        assert_eq!(again[0].publish.packet_id, first[1].publish.packet_id);
        rig.durable(&again);
        rig.stop().await;
    }
}

#[tokio::test]
async fn exactly_receive_maximum_messages_are_outstanding_while_none_is_durable() {
    let mosquitto = Mosquitto::plain();
    let mut narrow = broker(mosquitto.port, MqttVersion::V5, "narrow");
    narrow.receive_maximum = 7;
    let mut rig = Rig::start(narrow, &["a"]);
    rig.up().await;
    let lines: Vec<String> = (0..30).map(|n| n.to_string()).collect();
    mosquitto.publish_lines("a", &lines);
    let mut seen = rig.take(7).await;
    assert!(rig.during(Duration::from_millis(300)).await.is_empty(), "an eighth came");
    rig.durable(&seen);
    // mosquitto 2.0.11 overshoots once it is acknowledged; whatever comes is taken, in order.
    while seen.len() < lines.len() {
        let more = rig.take(1).await;
        rig.durable(&more);
        seen.extend(more);
    }
    assert_eq!(payloads(&seen), lines);
    assert_eq!(rig.metrics.broker_connection_errors.get(), 0);
    rig.stop().await;
}

#[tokio::test]
async fn a_burst_of_acknowledgements_finds_room() {
    let mosquitto = Mosquitto::start(Setup { extra: "max_queued_messages 0".into(), ..Setup::default() });
    let mut wide = broker(mosquitto.port, MqttVersion::V5, "burst");
    wide.receive_maximum = 1000;
    let mut rig = Rig::start(wide, &["a"]);
    rig.up().await;
    let lines: Vec<String> = (0..3000).map(|n| n.to_string()).collect();
    mosquitto.publish_lines("a", &lines);
    let mut seen = Vec::new();
    for _ in 0..3 {
        let taken = rig.take(1000).await;
        rig.durable(&taken);
        seen.extend(payloads(&taken));
    }
    assert_eq!(seen, lines);
    rig.until("every acknowledgement", |metrics| metrics.messages_acknowledged.get() == 3000).await;
    assert_eq!(rig.metrics.broker_connection_errors.get(), 0);
    rig.stop().await;
}

#[tokio::test]
async fn trap_max_packet_size_an_oversize_message_harms_no_other() {
    let mosquitto = Mosquitto::plain();
    let big = "x".repeat(100_000);
    for version in VERSIONS {
        let mut rig = Rig::start(broker(mosquitto.port, version, "oversize"), &["a"]);
        rig.up().await;
        // Above rumqttc's own default of 10 KiB, and under what is announced.
        mosquitto.publish("a", &"y".repeat(40_000), &["-q", "1"]);
        mosquitto.publish("a", &big, &["-q", "1"]);
        mosquitto.publish("a", "small", &["-q", "1"]);
        let expected = if version == MqttVersion::V5 { 2 } else { 3 };
        let taken = rig.take(expected).await;
        let sizes: Vec<usize> = taken.iter().map(|submission| submission.publish.payload.len()).collect();
        match version {
            MqttVersion::V5 => assert_eq!(sizes, [40_000, 5], "the broker keeps it back"),
            MqttVersion::V311 => assert_eq!(sizes, [40_000, 64 * 1024, 5], "it is cut"),
        }
        rig.durable(&taken);
        assert_eq!(rig.metrics.broker_connection_errors.get(), 0);
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_killed_broker_is_found_again_and_asked_again() {
    for persistent in [true, false] {
        let mut mosquitto = Mosquitto::start(Setup { persistent, ..Setup::default() });
        let mut rig = Rig::start(broker(mosquitto.port, MqttVersion::V5, "killed"), &["a"]);
        rig.up().await;
        mosquitto.kill();
        let reason = rig.down().await;
        assert!(!reason.is_empty());
        assert_eq!(rig.metrics.broker_connected.get(), 0);
        mosquitto.restart();
        rig.up().await;
        mosquitto.publish("a", "after", &["-q", "1"]);
        let taken = rig.take(1).await;
        assert_eq!(payloads(&taken), ["after"]);
        assert_eq!(rig.metrics.broker_connects.get(), 2);
        rig.stop().await;
    }
}

#[tokio::test]
async fn filters_change_on_the_live_connection() {
    let mosquitto = Mosquitto::plain();
    for version in VERSIONS {
        let mut rig = Rig::start(broker(mosquitto.port, version, "filters"), &["a", "b"]);
        rig.up().await;
        rig.filters.send_replace(vec!["b".into(), "c".into()]);
        // Retained, so that it arrives whenever the subscription is made.
        mosquitto.publish("c", "new", &["-q", "1", "-r"]);
        assert_eq!(payloads(&rig.take(1).await), ["new"]);
        let deadline = std::time::Instant::now() + super::rig::PATIENCE;
        loop {
            mosquitto.publish("a", "old", &["-q", "1"]);
            mosquitto.publish("b", "both", &["-q", "1"]);
            let mut seen = Vec::new();
            while !seen.contains(&"both".to_owned()) {
                let taken = rig.take(1).await;
                rig.durable(&taken);
                seen.extend(payloads(&taken));
            }
            if !seen.contains(&"old".to_owned()) {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "still subscribed to what was removed");
        }
        assert_eq!(rig.metrics.broker_connects.get(), 1);
        rig.stop().await;
        mosquitto.publish("c", "", &["-r"]);
    }
}

#[tokio::test]
async fn the_status_says_online_offline_and_the_will_when_it_dies() {
    let mosquitto = Mosquitto::plain();
    for version in VERSIONS {
        let mut rig = Rig::start(broker(mosquitto.port, version, "status"), &["a"]);
        rig.up().await;
        rig.until("the status", |metrics| metrics.messages_published.get() == 1).await;
        assert_eq!(mosquitto.read_one("tidegate/status/gw-01").as_deref(), Some("online"));
        rig.stop().await;
        assert_eq!(mosquitto.read_one("tidegate/status/gw-01").as_deref(), Some("offline"));

        let mut rig = Rig::start(broker(mosquitto.port, version, "status"), &["a"]);
        rig.up().await;
        rig.until("the status", |metrics| metrics.messages_published.get() == 1).await;
        rig.crash().await;
        assert_eq!(mosquitto.read_one("tidegate/status/gw-01").as_deref(), Some("offline"));
    }
}

#[tokio::test]
async fn a_takeover_is_explained() {
    let mosquitto = Mosquitto::plain();
    for version in VERSIONS {
        let mut first = Rig::start(broker(mosquitto.port, version, "twin"), &["a"]);
        first.up().await;
        let second = Rig::start(broker(mosquitto.port, version, "twin"), &["a"]);
        let reason = first.down().await;
        assert!(reason.contains("client id") && reason.contains("broker.client_id"), "{reason}");
        first.crash().await;
        second.crash().await;
    }
}

#[tokio::test]
async fn a_probe_answers_and_leaves_the_session_alone() {
    let mosquitto = Mosquitto::plain();
    for version in VERSIONS {
        let here = broker(mosquitto.port, version, "probed");
        let mut rig = Rig::start(here.clone(), &["a"]);
        rig.up().await;
        mqtt::probe(&here, Duration::from_secs(5)).await.unwrap();
        assert!(rig.link.borrow().is_up());
        assert_eq!(rig.metrics.broker_connection_errors.get(), 0);
        rig.stop().await;
    }
    let mut nobody = mosquitto;
    nobody.stop();
    let refused = mqtt::probe(&broker(nobody.port, MqttVersion::V5, "probed"), Duration::from_secs(5)).await;
    let refused = refused.unwrap_err();
    assert!(matches!(&refused, SessionError::Connect { loss: Loss::Network(_), .. }), "{refused:?}");
    assert!(refused.to_string().contains(&nobody.port.to_string()), "{refused}");
}

#[tokio::test]
async fn a_stop_waits_for_what_was_taken() {
    let mosquitto = Mosquitto::plain();
    for version in VERSIONS {
        let mut rig = Rig::start(broker(mosquitto.port, version, "drain"), &["a"]);
        rig.up().await;
        mosquitto.publish("a", "taken", &["-q", "1"]);
        let taken = rig.take(1).await;
        rig.begin_stop();
        tokio::time::sleep(Duration::from_millis(300)).await;
        mosquitto.publish("a", "late", &["-q", "1"]);
        tokio::time::sleep(Duration::from_millis(300)).await;
        rig.durable(&taken);
        let left = rig.inbox.clone();
        rig.stop().await;
        assert!(left.take(9, 9, Duration::ZERO).unwrap().is_empty(), "taken though it was stopping");
        let mut rig = Rig::start(broker(mosquitto.port, version, "drain"), &["a"]);
        rig.up().await;
        let again = rig.take(1).await;
        assert_eq!(payloads(&again), ["late"], "the first was acknowledged, the second was not");
        rig.durable(&again);
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_full_way_to_the_journal_drops_qos_0_counted() {
    let mosquitto = Mosquitto::plain();
    let bounds = tidegate::journal::Bounds { messages: 2, bytes: 1 << 20 };
    let mut rig = Rig::with(settings(broker(mosquitto.port, MqttVersion::V5, "full")), &["a"], bounds);
    rig.up().await;
    for text in ["1", "2", "3"] {
        mosquitto.publish("a", text, &["-q", "0"]);
    }
    rig.until("all three", |metrics| metrics.messages_received.get() == 3).await;
    assert_eq!(payloads(&rig.take(2).await), ["1", "2"]);
    let text = rig.metrics.encode().unwrap();
    assert!(text.contains("tidegate_messages_dropped_total{reason=\"journal_full\"} 1"), "{text}");
    rig.stop().await;
}
