//! More than is allowed, and larger than is usual: memory stays bounded, and nothing is lost.

use crate::support::scene::{Scene, TOPIC, numbered};

/// Resident memory at full load, bytes.
const BUDGET: u64 = 96 << 20;
const NATIVE: &str = "[[sources]]\nname = \"native\"\nfilter = \"devices/{device}/telemetry\"\ndecoder = \"json\"\n";

/// Sends so many payloads without waiting for an acknowledgement, as a broker that ignores the receive maximum.
async fn flood(scene: &mut Scene, messages: u16, payload: impl Fn(u16) -> String) {
    let mut peer = scene.start().await;
    for id in 1..=messages {
        peer.publish(TOPIC, &payload(id), 1, id, false).await;
    }
    peer.acknowledged(1..=messages).await;
    scene.stores_once(1..=messages.into());
    assert!(peer.during(std::time::Duration::ZERO).await.is_empty());
}

#[tokio::test]
async fn large_payloads_from_a_broker_that_ignores_the_receive_maximum_fit_the_memory() {
    let mut scene = Scene::new(5, NATIVE).await;
    // A disk that is slower than the network.
    scene.tidegate.env.push(("TIDEGATE_PAUSE_AT", "journal.before_commit:100".to_owned()));
    flood(&mut scene, 3000, |id| numbered(id.into()) + &" ".repeat(48 << 10)).await;
    assert!(scene.tidegate.metric("tidegate_broker_pauses_total") > 0.0, "it was read more slowly");
    assert_eq!(scene.tidegate.metric("tidegate_broker_connection_errors_total"), 0.0);
    let peak = scene.tidegate.peak_memory();
    assert!(peak < BUDGET, "{} MiB", peak >> 20);
}

#[tokio::test]
async fn long_texts_fit_the_memory_while_the_database_is_away_and_when_it_is_back() {
    let mut scene = Scene::new(5, NATIVE).await;
    let text = "x".repeat(16 << 10);
    let mut peer = scene.start().await;
    let lock = scene.lock_database();
    for id in 1..=4000 {
        peer.publish(TOPIC, &format!("{{\"n\":{id},\"text\":\"{text}\"}}"), 1, id, false).await;
    }
    peer.acknowledged(1..=4000).await;
    drop(lock);
    scene.stores_once(1..=4000);
    let peak = scene.tidegate.peak_memory();
    assert!(peak < BUDGET, "{} MiB", peak >> 20);
}
