//! One message at a time, turn about with an fsync of the same disk: PUBLISH to PUBACK, in fsyncs.

use std::time::{Duration, Instant};

use super::machine::Disk;
use super::results::{self, Outcome, quantile};
use super::scenario::Effort;
use crate::support::fake_broker::Packet;
use crate::support::scene::{Scene, TOPIC, numbered};

/// Messages of a repetition, and the pause before each and before each fsync.
const MESSAGES: u64 = 200;
const PAUSE: Duration = Duration::from_millis(5);

/// First with a broker of the benchmark's own, which sees tidegate's PUBACK itself; then with the embedded broker.
///
/// # Errors
/// When an acknowledgement does not come, or a file can't be written.
pub fn measure(effort: &Effort, outcome: &mut Outcome) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let messages = effort.messages.unwrap_or(MESSAGES);
    outcome.rows = runtime.block_on(through_a_session(effort.repetitions, messages, outcome))?;
    #[cfg(feature = "embedded-broker")]
    embedded(effort.repetitions, messages, outcome)?;
    Ok(())
}

async fn through_a_session(repetitions: u32, messages: u64, outcome: &mut Outcome) -> anyhow::Result<u64> {
    let mut scene = Scene::new(5, "").await;
    let mut peer = scene.start().await;
    let mut disk = Disk::of(&scene.tidegate.state_dir())?;
    let mut number = 0;
    for repetition in 0..=repetitions {
        let (mut waits, mut syncs, mut growths) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..messages {
            tokio::time::sleep(PAUSE).await;
            let id = u16::try_from(number % 60_000)? + 1;
            let payload = numbered(number);
            number += 1;
            let published = Instant::now();
            peer.publish(TOPIC, &payload, 1, id, false).await;
            let answer = peer.next().await;
            waits.push(milliseconds(published.elapsed()));
            anyhow::ensure!(answer == Packet::PubAck(id), "{answer:?} instead of the PUBACK");
            tokio::time::sleep(PAUSE).await;
            syncs.push(disk.sync()?);
            growths.push(disk.grow()?);
        }
        // The first is the warm-up.
        if repetition > 0 {
            let (p50, fsync) = (quantile(&waits, 0.5), quantile(&syncs, 0.5));
            outcome.add(results::FSYNC, "ms", fsync);
            let growth = quantile(&growths, 0.5);
            outcome.add(results::FSYNC_GROWING, "ms", growth);
            outcome.add(results::PUBACK_50, "ms", p50);
            outcome.add(results::PUBACK_99, "ms", quantile(&waits, 0.99));
            outcome.add(results::IN_FSYNCS, "", p50 / fsync);
            outcome.add(results::IN_GROWTHS, "", p50 / growth);
            eprintln!("  {repetition}: {p50:.2} ms; an fsync takes {fsync:.2} ms");
        }
    }
    scene.stores_once(0..number);
    Ok(number)
}

#[cfg(feature = "embedded-broker")]
fn embedded(repetitions: u32, messages: u64, outcome: &mut Outcome) -> anyhow::Result<()> {
    use crate::support::daemon::{NATIVE, Tidegate, between};
    use crate::support::device::Device;

    let mut tidegate = Tidegate::configured(&(between("embedded://127.0.0.1:0", "sqlite:tidegate.db") + NATIVE));
    tidegate.start();
    let mut device = Device::connect(tidegate.address("broker"), "idle");
    let mut disk = Disk::of(&tidegate.state_dir())?;
    for repetition in 0..=repetitions {
        let (mut waits, mut syncs) = (Vec::new(), Vec::new());
        for number in 0..messages {
            std::thread::sleep(PAUSE);
            let published = Instant::now();
            device.publish(TOPIC, numbered(number));
            waits.push(milliseconds(published.elapsed()));
            std::thread::sleep(PAUSE);
            syncs.push(disk.sync()?);
        }
        if repetition > 0 {
            let (p50, fsync) = (quantile(&waits, 0.5), quantile(&syncs, 0.5));
            outcome.add(results::EMBEDDED_PUBACK_50, "ms", p50);
            outcome.add(results::EMBEDDED_PUBACK_99, "ms", quantile(&waits, 0.99));
            outcome.add(results::EMBEDDED_IN_FSYNCS, "", p50 / fsync);
            eprintln!("  {repetition}: embedded broker {p50:.2} ms; an fsync takes {fsync:.2} ms");
        }
    }
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
