//! What real brokers rarely do and the client library does badly; against a fake broker.

use std::time::Duration;

use tidegate::config::MqttVersion;
use tidegate::journal::Bounds;
use tidegate::metrics::ByReason;
use tidegate::mqtt::Link;

use super::rig::{Rig, broker, payloads, settings};
use crate::support::fake_broker::{FakeBroker, Packet, Peer};

const QUIET: Duration = Duration::from_millis(400);
const LEVELS: [(u8, MqttVersion); 2] = [(5, MqttVersion::V5), (4, MqttVersion::V311)];

#[tokio::test]
async fn trap_session_settings_are_all_in_the_connect() {
    let fake = FakeBroker::start(5).await;
    let rig = Rig::start(broker(fake.port, MqttVersion::V5, "connect"), &["a"]);
    let mut peer = fake.accept().await;
    let Packet::Connect { client_id, clean, keep_alive, properties } = peer.next().await else { panic!() };
    assert_eq!((client_id.as_str(), clean, keep_alive), ("connect", false, 30));
    let mut expected = vec![0x11];
    expected.extend_from_slice(&3600_u32.to_be_bytes());
    expected.push(0x21);
    expected.extend_from_slice(&100_u16.to_be_bytes());
    expected.push(0x27);
    expected.extend_from_slice(&(64 * 1024_u32).to_be_bytes());
    // Session expiry, receive maximum, maximum packet size; no topic alias maximum (0x22).
    assert_eq!(properties, expected);
    rig.stop().await;
}

#[tokio::test]
async fn trap_epoch_acknowledgements_of_an_earlier_connection_never_leave() {
    for (level, version) in LEVELS {
        let fake = FakeBroker::start(level).await;
        let mut rig = Rig::start(broker(fake.port, version, "stale"), &["a"]);
        let (mut peer, _) = fake.serve(false).await;
        peer.publish("a", "old", 1, 1, false).await;
        let old = rig.take(1).await;
        drop(peer);
        rig.down().await;
        let (mut peer, _) = fake.serve(false).await;
        // The same packet id, another message: the session was lost.
        peer.publish("a", "new", 1, 1, false).await;
        let new = rig.take(1).await;
        rig.durable(&old);
        assert_eq!(peer.during(QUIET).await, [], "acknowledged what is not durable");
        assert_eq!(rig.metrics.acknowledgements_stale.get(), 1);
        rig.durable(&new);
        assert_eq!(peer.next().await, Packet::PubAck(1));
        rig.crash().await;
    }
}

#[tokio::test]
async fn what_comes_at_qos_0_while_it_stops_is_counted() {
    for (level, version) in LEVELS {
        let fake = FakeBroker::start(level).await;
        let mut rig = Rig::start(broker(fake.port, version, "late"), &["a"]);
        let (mut peer, _) = fake.serve(false).await;
        rig.up().await;
        let dropped =
            |rig: &Rig| rig.metrics.messages_dropped.get_or_create(&ByReason { reason: "shutting_down" }).get();
        // Owed an acknowledgement, the session waits, and takes nothing more.
        peer.publish("a", "owed", 1, 1, false).await;
        let owed = rig.take(1).await;
        rig.begin_stop();
        while dropped(&rig) == 0 {
            peer.publish("a", "late", 0, 0, false).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        rig.durable(&owed);
        rig.stop().await;

        let mut rig = Rig::start(broker(fake.port, version, "closed"), &["a"]);
        let (mut peer, _) = fake.serve(false).await;
        rig.up().await;
        rig.inbox.close();
        peer.publish("a", "late", 0, 0, false).await;
        rig.until("it is counted", |_| dropped(&rig) == 1).await;
        rig.crash().await;
    }
}

#[tokio::test]
async fn trap_queued_events_of_a_cut_batch_do_not_come_out_later() {
    for (level, version) in LEVELS {
        let fake = FakeBroker::start(level).await;
        let mut rig = Rig::start(broker(fake.port, version, "cut"), &["a"]);
        let (mut peer, _) = fake.serve(false).await;
        // Five messages and a broken packet in one piece: the client has queued the five when it fails.
        let mut batch = Vec::new();
        for id in 1..=5 {
            batch.extend(peer.publish_packet(b"a", &format!("before {id}"), 1, id, false));
        }
        batch.extend_from_slice(&[0xf0, 0x00, 0xff, 0xff]);
        peer.send(&batch).await;
        peer.closed().await;
        drop(peer);
        let (mut peer, _) = fake.serve(false).await;
        peer.publish("a", "after", 1, 1, false).await;
        let mut taken = Vec::new();
        while payloads(&taken).last().map(String::as_str) != Some("after") {
            taken.extend(rig.take(1).await);
        }
        // Those from before may have been taken before the error, never after it; and their acknowledgement,
        // whose packet ids mean other messages now, never leaves.
        rig.durable(&taken);
        assert_eq!(peer.next().await, Packet::PubAck(1));
        assert_eq!(peer.during(QUIET).await, []);
        assert!(rig.during(Duration::ZERO).await.is_empty());
        rig.up().await;
        rig.crash().await;
    }
}

#[tokio::test]
async fn trap_collision_neither_hangs_a_stop_nor_outlives_its_connection() {
    for (level, version) in LEVELS {
        let fake = FakeBroker::start(level).await;
        let mut brief = settings(broker(fake.port, version, "collision"));
        brief.timing.drain = Duration::from_millis(600);
        let mut rig = Rig::with(brief, &["a"], Bounds { messages: 10, bytes: 1000 });
        let (mut peer, online) = serve_without_puback(&fake).await;
        rig.up().await;
        // Packet ids wrap at the in-flight limit of 16: subscribe until the next publish gets the id of the unanswered
        // one.
        for n in 0..8 {
            rig.filters.send_replace(vec!["a".into(), format!("f{n}")]);
            answer(&mut peer, if n == 0 { 1 } else { 2 }).await;
        }
        rig.begin_stop();
        assert_eq!(peer.during(QUIET).await, [], "offline has the id {online} too, and waits");
        // Answered, it goes out.
        peer.puback(online).await;
        match peer.next().await {
            Packet::Publish { payload, id, .. } => assert_eq!((payload.as_str(), id), ("offline", online)),
            other => panic!("not offline: {other:?}"),
        }
        // Never answered, it is given up; the DISCONNECT goes out all the same.
        assert_eq!(peer.during(QUIET / 4).await, []);
        assert_eq!(peer.next().await, Packet::Disconnect);
        rig.stop().await;

        let mut rig = Rig::start(broker(fake.port, version, "collision"), &["a"]);
        let (_peer, _) = fake.serve(false).await;
        rig.up().await;
        rig.crash().await;
    }
}

#[tokio::test]
async fn trap_a_publish_that_is_never_acknowledged_ends_the_connection() {
    let fake = FakeBroker::start(5).await;
    let mut impatient = settings(broker(fake.port, MqttVersion::V5, "unanswered"));
    impatient.timing.answer = Duration::from_millis(300);
    let mut rig = Rig::with(impatient, &["a"], Bounds { messages: 10, bytes: 1000 });
    let (mut peer, _) = serve_without_puback(&fake).await;
    assert!(rig.down().await.contains("PUBLISH"));
    peer.closed().await;
    // Nor is it sent again from an earlier connection's memory: exactly one comes on the next.
    let (mut peer, _) = fake.serve(true).await;
    rig.up().await;
    assert_eq!(peer.during(QUIET).await, []);
    rig.crash().await;
}

#[tokio::test]
async fn a_missing_suback_ends_the_connection() {
    for (level, version) in LEVELS {
        let fake = FakeBroker::start(level).await;
        let mut impatient = settings(broker(fake.port, version, "deaf"));
        impatient.timing.answer = Duration::from_millis(300);
        let mut rig = Rig::with(impatient, &["a"], Bounds { messages: 10, bytes: 1000 });
        let mut peer = fake.accept().await;
        peer.next().await;
        peer.connack(true, 0, &[]).await;
        assert!(matches!(peer.next().await, Packet::Subscribe { .. }), "also when the session is there");
        assert!(!rig.link.borrow().is_up());
        assert!(rig.down().await.contains("SUBSCRIBE"));
        let (_peer, filters) = fake.serve(true).await;
        assert_eq!(filters, ["a"]);
        rig.up().await;
        rig.crash().await;
    }
}

#[tokio::test]
async fn a_refused_filter_is_reported_and_the_others_are_served() {
    for (level, version) in LEVELS {
        let fake = FakeBroker::start(level).await;
        let mut patient = settings(broker(fake.port, version, "refused"));
        patient.timing.ask_again = Duration::from_millis(500);
        let mut rig = Rig::with(patient, &["a", "b", "c"], Bounds { messages: 10, bytes: 1000 });
        let mut peer = fake.accept().await;
        peer.next().await;
        peer.connack(false, 0, &[]).await;
        let Packet::Subscribe { id, filters } = peer.next().await else { panic!() };
        assert_eq!(filters, [("a".to_owned(), 1), ("b".to_owned(), 1), ("c".to_owned(), 1)]);
        peer.suback(id, &[1, if level == 5 { 0x87 } else { 0x80 }, 0]).await;
        let link = rig.link_until("partial", |link| matches!(link, Link::Partial { .. })).await;
        let Link::Partial { refused } = link else { unreachable!() };
        assert_eq!(refused.iter().map(|refused| refused.filter.as_str()).collect::<Vec<_>>(), ["b", "c"]);
        assert!(refused[0].reason.contains("authorized"), "{refused:?}");
        assert!(refused[1].reason.contains("QoS 0"), "{refused:?}");
        assert_eq!((rig.metrics.subscriptions_refused.get(), rig.metrics.broker_connected.get()), (2, 0));
        let Packet::Publish { id, payload, .. } = peer.next().await else { panic!() };
        assert_eq!(payload, "online");
        peer.puback(id).await;
        peer.publish("a", "served", 1, 9, false).await;
        let taken = rig.take(1).await;
        rig.durable(&taken);
        assert_eq!(peer.next().await, Packet::PubAck(9));
        // Asked again after a while, only for those.
        assert_eq!(peer.grant_all().await, ["b", "c"]);
        rig.up().await;
        assert_eq!(rig.metrics.broker_connected.get(), 1);
        rig.crash().await;
    }
}

#[tokio::test]
async fn trap_a_connection_that_is_up_and_dead_is_given_up() {
    for (level, version) in LEVELS {
        let fake = FakeBroker::start(level).await;
        let mut watched = settings(broker(fake.port, version, "dead"));
        watched.timing.stall = Some(Duration::from_millis(700));
        let mut rig = Rig::with(watched, &["a"], Bounds { messages: 10, bytes: 1000 });
        let (peer, _) = fake.serve(false).await;
        rig.up().await;
        // Held open, never read nor written.
        let reason = rig.down().await;
        assert!(reason.contains("nothing came in"), "{reason}");
        assert_eq!(rig.metrics.broker_watchdog_trips.get(), 1);
        let (_alive, _) = fake.serve(true).await;
        rig.up().await;
        drop(peer);
        rig.crash().await;
    }
}

#[tokio::test]
async fn trap_a_flush_that_hangs_is_given_up_too() {
    let fake = FakeBroker::start(5).await;
    let mut watched = settings(broker(fake.port, MqttVersion::V5, "flush"));
    watched.timing.stall = Some(Duration::from_millis(1500));
    watched.timing.answer = Duration::from_secs(60);
    watched.broker.receive_maximum = 65_535;
    let mut rig = Rig::with(watched, &["a"], Bounds { messages: 1 << 20, bytes: 1 << 30 });
    let (mut peer, _) = fake.serve(false).await;
    rig.up().await;
    // The broker reads nothing: 20 MB of requests fill both sockets, and a flush blocks in the midst of a poll.
    let filters = rig.filters.clone();
    let flood = async {
        let long = "f".repeat(60_000);
        for turn in 0..330 {
            filters.send_replace(vec!["a".into(), format!("{long}/{turn}")]);
            peer.publish("a", "alive", 0, 0, false).await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let (reason, ()) = tokio::join!(rig.down(), flood);
    assert!(reason.contains("nothing came in"), "{reason}");
    assert_eq!(rig.metrics.broker_watchdog_trips.get(), 1);
    rig.crash().await;
}

#[tokio::test]
async fn trap_an_answer_to_a_ping_behind_a_backlog_is_no_dead_connection() {
    for (level, version) in LEVELS {
        let fake = FakeBroker::start(level).await;
        let mut brief = settings(broker(fake.port, version, "backlog"));
        if version == MqttVersion::V311 {
            brief.broker.keep_alive = Duration::from_secs(1);
        }
        let mut rig = Rig::with(brief, &["a"], Bounds { messages: 1000, bytes: 1_000_000 });
        let mut peer = fake.accept().await;
        peer.next().await;
        // The server asks MQTT 5 clients for a keep-alive of 1 s.
        peer.connack(false, 0, if level == 5 { &[0x13, 0, 1] } else { &[] }).await;
        peer.grant_all().await;
        let Packet::Publish { id, .. } = peer.next().await else { panic!() };
        peer.puback(id).await;
        rig.up().await;
        // It sends what it has queued, and would answer the pings only after that.
        for _ in 0..40 {
            peer.publish("a", "queued", 0, 0, false).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(rig.metrics.broker_connection_errors.get(), 0, "{version:?}");
        assert_eq!(rig.take(40).await.len(), 40);
        rig.crash().await;
    }
}

#[tokio::test]
async fn trap_a_server_keep_alive_of_0_makes_no_storm_of_pings() {
    let fake = FakeBroker::start(5).await;
    let mut rig = Rig::start(broker(fake.port, MqttVersion::V5, "pings"), &["a"]);
    let mut peer = fake.accept().await;
    peer.next().await;
    peer.connack(false, 0, &[0x13, 0, 0]).await;
    peer.grant_all().await;
    let Packet::Publish { id, .. } = peer.next().await else { panic!() };
    peer.puback(id).await;
    rig.up().await;
    peer.during(QUIET).await;
    assert!(peer.pings <= 1, "{} pings", peer.pings);
    assert_eq!(rig.metrics.broker_connection_errors.get(), 0);
    rig.crash().await;
}

#[tokio::test]
async fn trap_limits_that_a_broker_set_do_not_outlive_the_connection() {
    let fake = FakeBroker::start(5).await;
    let mut rig = Rig::start(broker(fake.port, MqttVersion::V5, "limits"), &["a"]);
    let mut peer = fake.accept().await;
    peer.next().await;
    // Session expiry 7 s, receive maximum 1.
    peer.connack(false, 0, &[0x11, 0, 0, 0, 7, 0x21, 0, 1]).await;
    peer.grant_all().await;
    peer.next().await;
    rig.up().await;
    drop(peer);
    let mut peer = fake.accept().await;
    let Packet::Connect { properties, .. } = peer.next().await else { panic!() };
    assert_eq!(properties[..5], [0x11, 0, 0, 0x0e, 0x10], "3600 s again");
    peer.connack(false, 0, &[]).await;
    peer.grant_all().await;
    rig.crash().await;
}

#[tokio::test]
async fn more_unacknowledged_messages_than_there_is_room_for_wait_then_end_the_connection() {
    for (level, version) in LEVELS {
        let fake = FakeBroker::start(level).await;
        let bounds = Bounds { messages: 2, bytes: 1 << 20 };
        let mut settings = settings(broker(fake.port, version, "overrun"));
        settings.timing.answer = Duration::from_millis(200);
        let mut rig = Rig::with(settings, &["a"], bounds);
        let (mut peer, _) = fake.serve(false).await;
        for id in 1..=9 {
            peer.publish("a", &id.to_string(), 1, id, false).await;
        }
        assert!(rig.down().await.contains("way to the journal"));
        // Twice the bound and one were read before the pause.
        let taken = rig.take(5).await;
        rig.durable(&taken);
        let (mut peer, _) = fake.serve(true).await;
        for id in 1..=3 {
            peer.publish("a", &id.to_string(), 1, id, true).await;
        }
        let again = rig.take(3).await;
        assert!(again.iter().all(|submission| submission.publish.dup));
        rig.durable(&again);
        for id in 1..=3 {
            assert_eq!(peer.next().await, Packet::PubAck(id));
        }
        rig.crash().await;
    }
}

#[tokio::test]
async fn a_broker_that_sends_more_than_the_receive_maximum_is_read_more_slowly_and_keeps_its_connection() {
    for (level, version) in LEVELS {
        let fake = FakeBroker::start(level).await;
        let bounds = Bounds { messages: 2, bytes: 1 << 20 };
        let rig = Rig::with(settings(broker(fake.port, version, "crowd")), &["a"], bounds);
        let (mut peer, _) = fake.serve(false).await;
        for id in 1..=30 {
            peer.publish("a", &id.to_string(), 1, id, false).await;
        }
        let taken = rig.take(30).await;
        rig.durable(&taken);
        for id in 1..=30 {
            assert_eq!(peer.next().await, Packet::PubAck(id));
        }
        assert!(rig.metrics.broker_pauses.get() > 0);
        rig.crash().await;
    }
}

#[tokio::test]
async fn qos_2_is_shaken_hands_on_over_a_reconnect_too() {
    for (level, version) in LEVELS {
        let fake = FakeBroker::start(level).await;
        let mut rig = Rig::start(broker(fake.port, version, "exactly"), &["a"]);
        let (mut peer, _) = fake.serve(false).await;
        peer.publish("a", "twice safe", 2, 4, false).await;
        let taken = rig.take(1).await;
        assert_eq!(taken[0].publish.qos, 2);
        assert_eq!(peer.during(QUIET).await, [], "not before it is durable");
        rig.durable(&taken);
        assert_eq!(peer.next().await, Packet::PubRec(4));
        peer.pubrel(4).await;
        assert_eq!(peer.next().await, Packet::PubComp(4));

        // A PUBREL of an earlier connection: the library takes it for an error, which must not repeat for ever.
        peer.pubrel(5).await;
        peer.closed().await;
        let (mut peer, _) = fake.serve(true).await;
        peer.pubrel(5).await;
        assert_eq!(peer.next().await, Packet::PubComp(5));
        rig.up().await;
        rig.crash().await;
    }
}

#[tokio::test]
async fn acknowledgements_leave_in_the_order_of_receipt() {
    let fake = FakeBroker::start(5).await;
    let rig = Rig::start(broker(fake.port, MqttVersion::V5, "order"), &["a"]);
    let (mut peer, _) = fake.serve(false).await;
    for id in [3, 1, 2] {
        peer.publish("a", "x", 1, id, false).await;
    }
    let taken = rig.take(3).await;
    rig.durable(&taken[2..]);
    rig.durable(&taken[..2]);
    for id in [3, 1, 2] {
        assert_eq!(peer.next().await, Packet::PubAck(id));
    }
    rig.crash().await;
}

#[tokio::test]
async fn a_topic_that_is_not_utf8_is_still_taken() {
    let fake = FakeBroker::start(5).await;
    let rig = Rig::start(broker(fake.port, MqttVersion::V5, "utf8"), &["#"]);
    let (mut peer, _) = fake.serve(false).await;
    let packet = peer.publish_packet(b"a/\xff", "x", 1, 1, false);
    peer.send(&packet).await;
    let taken = rig.take(1).await;
    assert_eq!(taken[0].publish.topic, "a/\u{fffd}");
    rig.crash().await;
}

#[tokio::test]
async fn reasons_of_the_broker_are_given_in_words() {
    let fake = FakeBroker::start(5).await;
    let mut rig = Rig::start(broker(fake.port, MqttVersion::V5, "words"), &["a"]);
    let (mut peer, _) = fake.serve(false).await;
    rig.up().await;
    peer.disconnect(0x8b).await;
    let reason = rig.down().await;
    assert!(reason.contains("server shutting down"), "{reason}");
    for (code, words) in [(0x86, "bad user name or password"), (0x85, "client id"), (0x84, "broker.version")] {
        let mut peer = fake.accept().await;
        peer.next().await;
        rig.link.mark_unchanged();
        peer.connack(false, code, &[]).await;
        let told = rig.link_until(words, |link| match link {
            Link::Down { reason } => reason.to_string().contains(words),
            _ => false,
        });
        told.await;
    }
    rig.crash().await;
}

#[tokio::test]
async fn after_a_takeover_the_session_holds_back() {
    let fake = FakeBroker::start(5).await;
    let mut rig = Rig::start(broker(fake.port, MqttVersion::V5, "twin"), &["a"]);
    let (mut peer, _) = fake.serve(false).await;
    rig.up().await;
    peer.disconnect(0x8e).await;
    let reason = rig.down().await;
    assert!(reason.contains("taken the session over") && reason.contains("broker.client_id"), "{reason}");
    assert!(tokio::time::timeout(Duration::from_secs(1), fake.accept()).await.is_err(), "at once again");
    // And yet a stop is not kept waiting.
    rig.stop().await;
}

#[tokio::test]
async fn a_broker_of_version_3_only_is_told_apart() {
    let fake = FakeBroker::start(5).await;
    let mut rig = Rig::start(broker(fake.port, MqttVersion::V5, "old"), &["a"]);
    let mut peer = fake.accept().await;
    peer.next().await;
    // CONNACK of 3.1.1: unacceptable protocol version; then it must close (MQTT 3.1.1, 3.1.2.2).
    peer.send(&[0x20, 2, 0, 1]).await;
    drop(peer);
    let reason = rig.down().await;
    assert!(reason.contains("broker.version"), "{reason}");
    rig.crash().await;
}

#[tokio::test]
async fn filters_removed_while_the_connection_is_down_are_unsubscribed() {
    let fake = FakeBroker::start(5).await;
    let rig = Rig::start(broker(fake.port, MqttVersion::V5, "held"), &["a", "b"]);
    let (peer, filters) = fake.serve(false).await;
    assert_eq!(filters, ["a", "b"]);
    drop(peer);
    let mut peer = fake.accept().await;
    rig.filters.send_replace(vec!["b".into()]);
    peer.next().await;
    peer.connack(true, 0, &[]).await;
    assert_eq!(peer.grant_all().await, ["b"]);
    let Packet::Unsubscribe { id, filters } = peer.next().await else { panic!() };
    assert_eq!(filters, ["a"]);
    peer.unsuback(id).await;
    rig.crash().await;
}

/// Up to `online`, which gets no PUBACK.
async fn serve_without_puback(fake: &FakeBroker) -> (Peer, u16) {
    let mut peer = fake.accept().await;
    peer.next().await;
    peer.connack(false, 0, &[]).await;
    peer.grant_all().await;
    match peer.next().await {
        Packet::Publish { payload, id, .. } if payload == "online" => (peer, id),
        other => panic!("not online: {other:?}"),
    }
}

/// Answers as many SUBSCRIBE and UNSUBSCRIBE packets.
async fn answer(peer: &mut Peer, count: usize) {
    for _ in 0..count {
        match peer.next().await {
            Packet::Subscribe { id, filters } => peer.suback(id, &vec![1; filters.len()]).await,
            Packet::Unsubscribe { id, .. } => peer.unsuback(id).await,
            other => panic!("{other:?}"),
        }
    }
}
