//! A journal that is full, has no space, is torn, flipped, removed, foreign or out of reach: what was acknowledged is
//! stored once all the same, and the operator is told.

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::daemon::sqlite;
use crate::support::fake_broker::{Packet, Peer};
use crate::support::scene::{QUIET, Scene, TOPIC, numbered};

const SMALL: &str = "[journal]\nmax_size = \"1MiB\"\n\
    [[sources]]\nname = \"native\"\nfilter = \"devices/{device}/telemetry\"\ndecoder = \"json\"\nmax_payload = \"32KiB\"\n";

/// Sends one message after the other, each once the one before is acknowledged, until one is not; returns its number.
async fn until_unacknowledged(peer: &mut Peer, from: u16, padding: usize) -> u16 {
    for id in from..5000 {
        peer.publish(TOPIC, &(numbered(id.into()) + &" ".repeat(padding)), 1, id, false).await;
        match tokio::time::timeout(QUIET, peer.next()).await {
            Ok(packet) => assert_eq!(packet, Packet::PubAck(id)),
            Err(_) => return id,
        }
    }
    panic!("everything was acknowledged");
}

async fn each_acknowledged(peer: &mut Peer, ids: std::ops::RangeInclusive<u16>) {
    for id in ids {
        peer.send_numbers(id..=id, false).await;
        peer.acknowledged(id..=id).await;
    }
}

#[tokio::test]
async fn a_full_journal_acknowledges_nothing_beyond_and_resumes_when_the_database_is_back() {
    let mut scene = Scene::new(5, SMALL).await;
    let mut peer = scene.start().await;
    let lock = scene.lock_database();
    let waiting = until_unacknowledged(&mut peer, 1, 20_000).await;
    assert!((45..60).contains(&waiting), "{waiting}");
    peer.send_numbers(waiting + 1..=waiting + 20, false).await;
    assert_eq!(peer.during(QUIET).await, []);
    scene.counted("tidegate_journal_full", 1.0);
    scene.said("the journal is full: nothing is acknowledged until the database has taken some of it");
    scene.readiness_of("journal", "full");
    assert!(scene.tidegate.metric("tidegate_journal_size_bytes") < 1_080_000.0);
    drop(lock);
    peer.acknowledged(waiting..=waiting + 20).await;
    scene.stores_once(1..=u64::from(waiting) + 20);
    assert_eq!(scene.tidegate.metric("tidegate_journal_full"), 0.0);
}

/// A small file system of its own, for as long as this lives.
struct Mount(PathBuf);

impl Mount {
    fn tmpfs(at: &Path, size: &str) -> Mount {
        fs::create_dir_all(at).unwrap();
        let options = format!("size={size}");
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).status().unwrap();
        assert!(status.success());
        Mount(at.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn may_mount() -> bool {
    let probe = ["-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"];
    is_root() && Command::new("unshare").args(probe).status().is_ok_and(|status| status.success())
}

#[tokio::test]
async fn without_space_nothing_is_acknowledged_until_there_is_some_again() {
    if !may_mount() {
        eprintln!("skipped: only root can mount the small file system that this needs");
        return;
    }
    let mut scene = Scene::new(5, "").await;
    let _mount = Mount::tmpfs(&scene.tidegate.state_dir(), "3m");
    let mut peer = scene.start().await;
    each_acknowledged(&mut peer, 1..=5).await;
    let filler = scene.tidegate.state_dir().join("filler");
    let fill = || {
        let mut file = OpenOptions::new().create(true).append(true).open(&filler).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    };
    fill();
    let waiting = until_unacknowledged(&mut peer, 6, 30_000).await;
    scene.counted("tidegate_journal_errors_total", 1.0);
    scene.said("the journal can't be written; nothing is acknowledged until it can");
    let advice = scene.tidegate.told("the journal can't be written", "error");
    assert!(advice[0].contains("free space on its file system"), "{advice:?}");
    scene.readiness_of("journal", "failing");
    fs::remove_file(&filler).unwrap();
    peer.acknowledged(waiting..=waiting).await;
    scene.stores_once(1..=waiting.into());

    // Killed for want of space, it goes on as well.
    fill();
    let waiting = until_unacknowledged(&mut peer, waiting + 1, 30_000).await;
    scene.tidegate.kill();
    fs::remove_file(&filler).unwrap();
    drop(peer);
    let mut peer = scene.start().await;
    peer.publish(TOPIC, &(numbered(waiting.into()) + &" ".repeat(30_000)), 1, waiting, true).await;
    peer.acknowledged(waiting..=waiting).await;
    scene.stores_once(1..=waiting.into());
}

/// What a power cut may leave of a write that was under way.
fn tear(scene: &Scene, how: &str) {
    let log = scene.tidegate.state_dir().join("journal.db-wal");
    let file = OpenOptions::new().write(true).open(&log).unwrap();
    let length = file.metadata().unwrap().len();
    match how {
        "cut" => file.set_len(length - 100).unwrap(),
        "garbled" => file.write_all_at(&[0x5a; 50], length - 50).unwrap(),
        "begun" => file.write_all_at(&[0x5a; 700], length).unwrap(),
        _ => unreachable!(),
    }
}

#[tokio::test]
async fn a_torn_last_write_costs_at_most_itself() {
    for (how, whole) in [("cut", 9), ("garbled", 9), ("begun", 10)] {
        let mut scene = Scene::new(5, "").await;
        let mut peer = scene.start().await;
        let lock = scene.lock_database();
        each_acknowledged(&mut peer, 1..=10).await;
        scene.tidegate.kill();
        tear(&scene, how);
        drop((lock, peer));
        let mut peer = scene.start().await;
        each_acknowledged(&mut peer, 21..=22).await;
        scene.stores_once((1..=whole).chain(21..=22));
        assert_eq!(scene.tidegate.metric("tidegate_journal_files_set_aside_total"), 0.0, "{how}");
    }
}

#[tokio::test]
async fn flipped_bytes_in_the_middle_of_the_write_ahead_log_are_not_taken_for_its_end_in_silence() {
    let mut scene = Scene::new(5, "").await;
    let mut peer = scene.start().await;
    let lock = scene.lock_database();
    each_acknowledged(&mut peer, 1..=9).await;
    scene.tidegate.kill();
    let log = scene.tidegate.state_dir().join("journal.db-wal");
    let mut bytes = fs::read(&log).unwrap();
    let payload = numbered(5);
    let at = bytes.windows(payload.len()).position(|window| window == payload.as_bytes()).unwrap();
    bytes[at] ^= 1;
    fs::write(&log, &bytes).unwrap();
    drop((lock, peer));
    let mut peer = scene.start().await;
    scene.said("THE JOURNAL'S WRITE-AHEAD LOG IS DAMAGED");
    scene.counted("tidegate_journal_files_set_aside_total", 1.0);
    let kept = fs::read_dir(scene.tidegate.state_dir()).unwrap().flatten();
    let mut copies = kept.filter(|entry| entry.file_name().to_string_lossy().starts_with("journal.db-wal.corrupt-"));
    assert_eq!(fs::read(copies.next().unwrap().path()).unwrap(), bytes);
    each_acknowledged(&mut peer, 10..=11).await;
    scene.stores_once((1..=4).chain(10..=11));
}

#[tokio::test]
async fn a_journal_behind_the_database_is_read_again_and_nothing_is_stored_twice() {
    let mut scene = Scene::new(5, "").await;
    let mut peer = scene.start().await;
    each_acknowledged(&mut peer, 1..=10).await;
    scene.stores_once(1..=10);
    scene.tidegate.kill();
    tear(&scene, "cut");
    drop(peer);
    let mut peer = scene.start().await;
    scene.said("the database is ahead of the journal");
    scene.counted("tidegate_journal_rewinds_total", 1.0);
    each_acknowledged(&mut peer, 21..=22).await;
    scene.stores_once((1..=10).chain(21..=22));
}

#[tokio::test]
async fn flipped_bytes_in_a_group_cost_their_record_which_is_set_aside_counted_and_said() {
    let mut scene = Scene::new(5, "").await;
    let mut peer = scene.start().await;
    let lock = scene.lock_database();
    peer.send_numbers(1..=30, false).await;
    peer.acknowledged(1..=30).await;
    scene.tidegate.kill();
    sqlite(&scene.journal(), "PRAGMA wal_checkpoint(TRUNCATE)");
    let mut bytes = fs::read(scene.journal()).unwrap();
    let payload = numbered(17);
    let at = bytes.windows(payload.len()).position(|window| window == payload.as_bytes()).unwrap();
    bytes[at + 5] ^= 1;
    fs::write(scene.journal(), bytes).unwrap();
    drop((lock, peer));
    let mut peer = scene.start().await;
    each_acknowledged(&mut peer, 31..=31).await;
    scene.stores_once((1..=31).filter(|number| *number != 17));
    scene.counted("tidegate_journal_corrupt_records_total", 1.0);
    scene.said("records of the journal are damaged and were skipped; check the disk");
    assert!(scene.tidegate.state_dir().join("journal-corrupt-17.bin").exists());
}

#[tokio::test]
async fn a_journal_that_can_not_be_read_is_set_aside_counted_and_said() {
    let mut scene = Scene::new(5, "").await;
    let mut peer = scene.start().await;
    each_acknowledged(&mut peer, 1..=3).await;
    scene.stores_once(1..=3);
    scene.tidegate.kill();
    sqlite(&scene.journal(), "PRAGMA wal_checkpoint(TRUNCATE)");
    fs::write(scene.journal(), [0x5a; 9000]).unwrap();
    drop(peer);
    let mut peer = scene.start().await;
    scene.said("THE JOURNAL CAN'T BE READ");
    scene.said("the database knew another journal of this instance");
    scene.counted("tidegate_journal_files_set_aside_total", 1.0);
    each_acknowledged(&mut peer, 4..=5).await;
    scene.stores_once(1..=5);
}

/// Takes the journal away under the running daemon.
fn displace(scene: &Scene, how: &str) {
    let file = |suffix: &str| scene.tidegate.state_dir().join(format!("journal.db{suffix}"));
    match how {
        "all" => ["", "-wal", "-shm"].into_iter().for_each(|suffix| fs::remove_file(file(suffix)).unwrap()),
        "file" => fs::remove_file(file("")).unwrap(),
        "log" => fs::remove_file(file("-wal")).unwrap(),
        "replaced" => {
            fs::write(file(".new"), "a stranger").unwrap();
            fs::rename(file(".new"), file("")).unwrap();
        }
        _ => unreachable!(),
    }
}

#[tokio::test]
async fn a_journal_removed_or_replaced_while_running_is_written_anew_before_anything_more_is_acknowledged() {
    for how in ["all", "file", "log", "replaced"] {
        let mut scene = Scene::new(5, "").await;
        let mut peer = scene.start().await;
        let lock = scene.lock_database();
        each_acknowledged(&mut peer, 1..=3).await;
        displace(&scene, how);
        each_acknowledged(&mut peer, 4..=6).await;
        scene.counted("tidegate_journal_displaced_total", 1.0);
        scene.said("THE JOURNAL'S FILE WAS REMOVED OR REPLACED");
        scene.tidegate.kill();
        drop((lock, peer));
        let mut peer = scene.start().await;
        each_acknowledged(&mut peer, 7..=7).await;
        scene.stores_once(1..=7);
        if how == "replaced" {
            let kept = fs::read_dir(scene.tidegate.state_dir()).unwrap().flatten();
            let strangers = kept.filter(|entry| entry.file_name().to_string_lossy().contains("stray"));
            assert!(strangers.map(|entry| fs::read(entry.path()).unwrap()).any(|kept| kept == b"a stranger"));
        }
    }
}

#[tokio::test]
async fn a_journal_removed_while_nothing_comes_is_back_before_a_restart_needs_it() {
    let mut scene = Scene::new(5, "").await;
    let mut peer = scene.start().await;
    let lock = scene.lock_database();
    each_acknowledged(&mut peer, 1..=3).await;
    displace(&scene, "all");
    scene.counted("tidegate_journal_displaced_total", 1.0);
    scene.tidegate.kill();
    drop((lock, peer));
    scene.start().await;
    scene.stores_once(1..=3);
}

#[tokio::test]
async fn a_state_directory_removed_while_running_stops_acknowledgements_until_it_is_made_again() {
    let mut scene = Scene::new(5, "").await;
    let mut peer = scene.start().await;
    let lock = scene.lock_database();
    each_acknowledged(&mut peer, 1..=3).await;
    fs::remove_dir_all(scene.tidegate.state_dir()).unwrap();
    peer.send_numbers(4..=6, false).await;
    assert_eq!(peer.during(QUIET).await, []);
    scene.said("the journal can't be written; nothing is acknowledged until it can");
    let advice = scene.tidegate.told("the journal can't be written", "error");
    assert!(advice[0].contains("check that the directory exists"), "{advice:?}");
    scene.readiness_of("journal", "failing");
    fs::create_dir(scene.tidegate.state_dir()).unwrap();
    peer.acknowledged(4..=6).await;
    scene.tidegate.kill();
    drop((lock, peer));
    scene.start().await;
    scene.stores_once(1..=6);
}

/// Starts the daemon, which must refuse with these words and exit code 1.
fn refuses(scene: &mut Scene, words: &str) {
    scene.tidegate.spawn();
    let status = scene.tidegate.wait();
    assert_eq!(status.code(), Some(1), "{}", scene.tidegate.log());
    assert!(scene.tidegate.log().contains(words), "{words}: {}", scene.tidegate.log());
}

#[tokio::test]
async fn a_journal_of_another_format_is_refused_and_left_alone() {
    let mut scene = Scene::new(5, "").await;
    let mut peer = scene.start().await;
    each_acknowledged(&mut peer, 1..=3).await;
    drop(peer);
    assert!(scene.tidegate.stop().success());
    for (format, words) in [(99, "go back to the newer tidegate"), (0, "is a SQLite file but no journal")] {
        sqlite(&scene.journal(), &format!("PRAGMA user_version = {format}"));
        refuses(&mut scene, words);
        assert_eq!(sqlite(&scene.journal(), "PRAGMA user_version"), format.to_string());
        assert_eq!(sqlite(&scene.journal(), "SELECT max(last_seq) FROM journal_groups"), "3");
    }
    sqlite(&scene.journal(), "PRAGMA user_version = 1");
    let mut peer = scene.start().await;
    each_acknowledged(&mut peer, 4..=4).await;
    scene.stores_once(1..=4);
}

#[tokio::test]
async fn a_state_directory_out_of_reach_stops_acknowledgements_until_it_is_in_reach_again() {
    let mut scene = Scene::new(5, "").await;
    let state = scene.tidegate.state_dir();
    fs::create_dir(&state).unwrap();
    if is_root() {
        // Permissions mean nothing to root, so the daemon runs as nobody.
        const NOBODY: u32 = 65_534;
        let open = |path: &Path| fs::metadata(path).unwrap().mode() & 0o001 != 0;
        if !Path::new(env!("CARGO_BIN_EXE_tidegate")).ancestors().all(open) {
            eprintln!("skipped: the build lies where an unprivileged daemon can't be started");
            return;
        }
        fs::set_permissions(scene.tidegate.dir.path(), Permissions::from_mode(0o755)).unwrap();
        for path in [state.as_path(), scene.database().parent().unwrap()] {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        scene.tidegate.user = Some(NOBODY);
    }
    let allow = |mode| fs::set_permissions(&state, Permissions::from_mode(mode)).unwrap();
    let mut peer = scene.start().await;
    each_acknowledged(&mut peer, 1..=3).await;
    allow(0o000);
    peer.send_numbers(4..=6, false).await;
    assert_eq!(peer.during(QUIET).await, []);
    scene.said("the journal can't be written; nothing is acknowledged until it can");
    scene.counted("tidegate_journal_errors_total", 1.0);
    let advice = scene.tidegate.told("the journal can't be written", "error");
    assert!(advice[0].contains("this user can write it"), "{advice:?}");
    allow(0o750);
    peer.acknowledged(4..=6).await;
    scene.stores_once(1..=6);
    scene.tidegate.kill();
    drop(peer);
    allow(0o550);
    refuses(&mut scene, "can't write in the state directory");
    allow(0o750);
    let mut peer = scene.start().await;
    each_acknowledged(&mut peer, 7..=7).await;
    scene.stores_once(1..=7);
    peer.during(Duration::ZERO).await;
}
