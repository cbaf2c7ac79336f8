//! More than is allowed, and larger than is usual: memory stays bounded, and nothing is lost.

use crate::support::scene::{Scene, TOPIC, numbered};

/// Memory of its own at full load, bytes: the 96 MiB of the budget without the 16 of the program itself.
const BUDGET: u64 = (96 - 16) << 20;
const NATIVE: &str = "[[sources]]\nname = \"native\"\nfilter = \"devices/{device}/telemetry\"\ndecoder = \"json\"\n";

#[tokio::test]
async fn large_payloads_from_a_broker_that_ignores_the_receive_maximum_fit_the_memory() {
    let mut scene = Scene::new(5, NATIVE).await;
    // A disk that is slower than the network.
    scene.tidegate.env.push(("TIDEGATE_PAUSE_AT", "journal.before_commit:100".to_owned()));
    let mut peer = scene.start().await;
    let padding = " ".repeat(48 << 10);
    for id in 1..=3000 {
        peer.publish(TOPIC, &(numbered(id.into()) + &padding), 1, id, false).await;
    }
    peer.acknowledged(1..=3000).await;
    scene.stores_once(1..=3000);
    assert!(scene.tidegate.metric("tidegate_broker_pauses_total") > 0.0, "it was read more slowly");
    assert_eq!(scene.tidegate.metric("tidegate_broker_connection_errors_total"), 0.0);
    let peak = scene.tidegate.peak_own_memory();
    println!("{} MiB at most", peak >> 20);
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
    let peak = scene.tidegate.peak_own_memory();
    println!("{} MiB at most", peak >> 20);
    assert!(peak < BUDGET, "{} MiB", peak >> 20);
}
