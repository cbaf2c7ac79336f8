//! What real brokers rarely do, up to the database: the fake broker acts, the daemon has to keep its promise.

use std::time::Duration;

use crate::support::daemon::eventually;
use crate::support::fake_broker::{Packet, Peer};
use crate::support::scene::{QUIET, Scene, TOPIC, numbered};

/// Why the daemon had no connection, each time.
fn losses(scene: &Scene) -> Vec<String> {
    scene.tidegate.told("no connection to the broker", "reason")
}

async fn redeliveries_are_stored_once(level: u8) {
    let mut scene = Scene::new(level, "").await;
    let mut peer = scene.start().await;
    peer.send_numbers(1..=5, false).await;
    peer.acknowledged(1..=5).await;
    // The broker has lost the acknowledgements.
    let (mut peer, _) = scene.reconnect(peer, true).await;
    peer.send_numbers(1..=5, true).await;
    peer.acknowledged(1..=5).await;
    // The connection breaks before the acknowledgements; 9 never arrived.
    peer.send_numbers(6..=8, false).await;
    eventually("they are journalled", || {
        (scene.tidegate.metric("tidegate_journal_messages_total") >= 8.0).then_some(())
    });
    let (mut peer, _) = scene.reconnect(peer, true).await;
    peer.send_numbers(6..=9, true).await;
    peer.acknowledged(6..=9).await;
    scene.stores_once(1..=9);
    scene.counted("tidegate_redeliveries_recognised_total", 8.0);
    scene.counted("tidegate_broker_connection_errors_total", 2.0);
    scene.said("no connection to the broker");

    // Also by a daemon that was killed since.
    scene.tidegate.kill();
    drop(peer);
    let mut peer = scene.start().await;
    peer.send_numbers(8..=10, true).await;
    peer.acknowledged(8..=10).await;
    scene.stores_once(1..=10);
    scene.counted("tidegate_redeliveries_recognised_total", 2.0);
}

#[tokio::test]
async fn redeliveries_of_acknowledged_and_unacknowledged_messages_are_stored_once() {
    redeliveries_are_stored_once(5).await;
}

#[tokio::test]
async fn redeliveries_are_stored_once_on_mqtt_3_1_1_too() {
    redeliveries_are_stored_once(4).await;
}

#[tokio::test]
async fn packet_ids_used_again_for_other_messages_after_a_reconnect_are_stored_each() {
    let mut scene = Scene::new(5, "").await;
    let mut peer = scene.start().await;
    peer.send_numbers(1..=3, false).await;
    let (mut peer, _) = scene.reconnect(peer, false).await;
    // New messages; then others that come for the second time, their first having been lost on the way.
    for (id, number, dup) in [(1, 11, false), (2, 12, false), (3, 13, true), (1, 21, true), (2, 22, false)] {
        peer.publish(TOPIC, &numbered(number), 1, id, dup).await;
        assert_eq!(peer.next().await, Packet::PubAck(id));
    }
    // The same words again without DUP are another message.
    peer.publish(TOPIC, &numbered(22), 1, 2, false).await;
    assert_eq!(peer.next().await, Packet::PubAck(2));
    eventually("all are stored", || (scene.stored().get(&22) == Some(&2)).then_some(()));
    let stored = scene.stored();
    for number in [11, 12, 13, 21] {
        assert_eq!(stored.get(&number), Some(&1), "{number} of {stored:?}");
    }
    // 1 to 3 were never acknowledged: at most once.
    assert!((1..=3).all(|number| stored.get(&number).is_none_or(|times| *times == 1)), "{stored:?}");
    assert_eq!(scene.tidegate.metric("tidegate_redeliveries_recognised_total"), 0.0);
}

#[tokio::test]
async fn acknowledgements_are_withheld_while_the_journal_fails_whatever_the_broker_does_meanwhile() {
    let mut scene = Scene::new(5, "").await;
    let mut peer = scene.start().await;
    peer.send_numbers(1..=1, false).await;
    peer.acknowledged(1..=1).await;
    let journal = |sql: &str| crate::support::daemon::sqlite(&scene.journal(), sql);
    journal("CREATE TRIGGER fails BEFORE INSERT ON journal_groups BEGIN SELECT RAISE(ABORT, 'disk I/O error'); END");
    peer.send_numbers(2..=4, false).await;
    assert_eq!(peer.during(QUIET).await, []);
    scene.readiness_of("journal", "failing");
    scene.counted("tidegate_journal_errors_total", 1.0);
    scene.said("the journal can't be written; nothing is acknowledged");
    // The same three again on another connection, and a fourth.
    let (mut peer, _) = scene.reconnect(peer, true).await;
    peer.send_numbers(2..=5, true).await;
    assert_eq!(peer.during(QUIET).await, []);
    journal("DROP TRIGGER fails");
    peer.acknowledged(2..=5).await;
    scene.stores_once(1..=5);
    scene.counted("tidegate_acknowledgements_stale_total", 3.0);
    eventually("ready again", || (scene.readiness().0 == 200).then_some(()));
}

#[tokio::test]
async fn refused_and_reduced_subscriptions_are_named_and_the_others_served() {
    let more = "[[sources]]\nname = \"native\"\nfilter = \"devices/{device}/telemetry\"\ndecoder = \"json\"\n\
                [[sources]]\nname = \"b\"\nfilter = \"forbidden/{device}\"\ndecoder = \"json\"\n\
                [[sources]]\nname = \"c\"\nfilter = \"reduced/{device}\"\ndecoder = \"json\"\n";
    let mut scene = Scene::new(5, more).await;
    scene.tidegate.start();
    let mut peer = scene.fake.accept().await;
    peer.next().await;
    peer.connack(false, 0, &[]).await;
    // More filters than go in one packet.
    let online = loop {
        match peer.next().await {
            Packet::Subscribe { id, filters } => {
                let code = |(filter, _): &(String, _)| match filter.as_str() {
                    "forbidden/+" => 0x87,
                    "reduced/+" => 0,
                    _ => 1,
                };
                peer.suback(id, &filters.iter().map(code).collect::<Vec<u8>>()).await;
            }
            Packet::Publish { id, .. } => break id,
            _ => panic!("neither a SUBSCRIBE nor online"),
        }
    };
    peer.puback(online).await;
    scene.readiness_of("broker", "forbidden/+ (not authorized");
    scene.readiness_of("broker", "reduced/+ (granted at QoS 0 only)");
    scene.counted("tidegate_subscriptions_refused_total", 2.0);
    assert_eq!(scene.tidegate.metric("tidegate_broker_connected"), 0.0);
    scene.said("the broker refused a subscription");
    assert_eq!(scene.tidegate.told("refused a subscription", "filter"), ["forbidden/+", "reduced/+"]);
    peer.send_numbers(1..=3, false).await;
    peer.acknowledged(1..=3).await;
    eventually("the database is open", || scene.tidegate.said("database open"));
    scene.stores_once(1..=3);
}

#[tokio::test]
async fn a_session_that_is_said_to_be_present_is_subscribed_again_all_the_same() {
    let mut scene = Scene::new(5, "").await;
    let mut peer = scene.start().await;
    for (turn, session_present) in [(1, true), (2, false), (3, true)] {
        let filters;
        (peer, filters) = scene.reconnect(peer, session_present).await;
        // Requests about alerts, for commands and for twins, answers to commands, and what devices say of their twins.
        let own =
            ["tidegate/alerts/+/+/", "tidegate/commands/", "devices/+/commands/", "tidegate/twins/", "devices/+/twin/"];
        let (requests, sources): (Vec<_>, Vec<_>) =
            filters.into_iter().partition(|filter| own.iter().any(|prefix| filter.starts_with(prefix)));
        assert_eq!((sources, requests.len()), (vec!["devices/+/telemetry".to_owned()], 9), "said: {session_present}");
        peer.send_numbers(turn..=turn, false).await;
        peer.acknowledged(turn..=turn).await;
    }
    scene.stores_once(1..=3);
    assert_eq!(scene.tidegate.told("connected to the broker", "session_present"), ["false", "true", "false", "true"]);
}

#[tokio::test]
async fn a_receive_maximum_that_the_broker_ignores_costs_nothing() {
    let mut scene = Scene::new(5, "").await;
    scene.tidegate.env.push(("TIDEGATE_BROKER__RECEIVE_MAXIMUM", "10".into()));
    let mut peer = scene.start().await;
    let mut flood = Vec::new();
    for id in 1..=2000 {
        flood.extend(peer.publish_packet(TOPIC.as_bytes(), &numbered(id.into()), 1, id, false));
    }
    peer.send(&flood).await;
    peer.acknowledged(1..=2000).await;
    scene.stores_once(1..=2000);
    assert_eq!(losses(&scene), [""; 0]);
}

/// Sends 2 and something unbearable after it; then the connection ends with `words`, and the next one serves.
async fn bear(scene: &Scene, mut peer: Peer, unbearable: &[u8], words: &str, turn: u16) -> Peer {
    let known = losses(scene).len();
    let mut packets = peer.publish_packet(TOPIC.as_bytes(), &numbered(turn.into()), 1, turn, false);
    packets.extend_from_slice(unbearable);
    peer.send(&packets).await;
    peer.closed().await;
    let reason = eventually("the loss is told", || losses(scene).get(known).cloned());
    assert!(reason.contains(words), "{words}: {reason}");
    let (mut peer, _) = scene.reconnect(peer, true).await;
    // Whether or not it was acknowledged, the broker delivers it again.
    peer.send_numbers(turn..=turn, true).await;
    peer.acknowledged(turn..=turn).await;
    peer
}

#[tokio::test]
async fn oversize_packets_end_the_connection_with_a_word_and_the_rest_goes_on() {
    let mut scene = Scene::new(5, "").await;
    let mut peer = scene.start().await;
    let oversize = peer.publish_packet(TOPIC.as_bytes(), &"x".repeat(2_500_000), 1, 99, false);
    peer = bear(&scene, peer, &oversize, "bytes were announced as the most", 1).await;
    // A length that no packet has: five digits.
    peer = bear(&scene, peer, &[0x32, 0xff, 0xff, 0xff, 0xff, 0x7f], "broke the protocol", 2).await;
    peer.send_numbers(3..=3, false).await;
    peer.acknowledged(3..=3).await;
    scene.stores_once(1..=3);
    scene.counted("tidegate_broker_connection_errors_total", 2.0);
}

#[tokio::test]
async fn malformed_packets_end_the_connection_with_a_word_and_the_rest_goes_on() {
    let mut scene = Scene::new(5, "").await;
    let mut peer = scene.start().await;
    // A packet type that is reserved, QoS 3, properties that reach beyond their packet, an unknown packet id.
    peer = bear(&scene, peer, &[0xf0, 0x00], "broke the protocol", 1).await;
    peer = bear(&scene, peer, &[0x36, 0x06, 0, 1, b'a', 0, 9, 0], "broke the protocol", 2).await;
    peer = bear(&scene, peer, &[0x32, 0x06, 0, 1, b'a', 0, 9, 0x7f], "broke the protocol", 3).await;
    peer = bear(&scene, peer, &[0x40, 0x02, 0x77, 0x77], "packet id", 4).await;
    peer.send_numbers(5..=5, false).await;
    peer.acknowledged(5..=5).await;
    scene.stores_once(1..=5);
    scene.counted("tidegate_broker_connection_errors_total", 4.0);
}

#[tokio::test]
async fn a_flood_of_retained_messages_on_each_resubscribe_forges_no_reading() {
    let mut scene = Scene::new(5, "").await;
    let mut peer = scene.start().await;
    for turn in 1..=2 {
        let mut flood = Vec::new();
        for id in 1..=10_000 {
            let topic = format!("devices/r{id}/telemetry");
            let at = flood.len();
            flood.extend(peer.publish_packet(topic.as_bytes(), &numbered(1_000_000), 1, id, false));
            flood[at] |= 1;
        }
        peer.send(&flood).await;
        peer.acknowledged(1..=10_000).await;
        peer.send_numbers(turn..=turn, false).await;
        peer.acknowledged(turn..=turn).await;
        scene.counted("tidegate_retained_ignored_total", f64::from(turn) * 10_000.0);
        (peer, _) = scene.reconnect(peer, true).await;
    }
    peer.during(Duration::ZERO).await;
    scene.stores_once(1..=2);
}
