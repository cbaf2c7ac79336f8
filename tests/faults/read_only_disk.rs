//! A file system that turns read-only under the state directory, as one does that has found an error on its disk.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::daemon::complaint;
use crate::support::fake_broker::Packet;
use crate::support::scene::{QUIET, Scene, TOPIC, numbered};

/// An ext4 of its own in a file; unmounted when dropped.
struct Disk {
    image: PathBuf,
    at: PathBuf,
}

impl Disk {
    /// None where that is not permitted, or the kernel has no such thing.
    fn make(home: &Path, at: &Path) -> Option<Disk> {
        if fs::metadata("/proc/self").unwrap().uid() != 0 {
            return None;
        }
        fs::create_dir_all(at).unwrap();
        let image = home.join("disk.img");
        fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        let made =
            Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image).status().is_ok_and(|status| status.success());
        let disk = Disk { image, at: at.to_owned() };
        (made && disk.mount("loop,errors=remount-ro")).then_some(disk)
    }

    fn mount(&self, options: &str) -> bool {
        let mut mount = Command::new("mount");
        mount.args(["-t", "ext4", "-o", options]).arg(&self.image).arg(&self.at);
        mount.output().is_ok_and(|output| output.status.success())
    }

    /// The kernel finds an error on it. False: this kernel can't be told to.
    fn fails(&self) -> bool {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let line = mounts.lines().find(|line| line.split(' ').nth(1) == self.at.to_str()).unwrap();
        let device = line.split(' ').next().unwrap().trim_start_matches("/dev/");
        fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "1").is_ok()
            && fs::write(self.at.join("probe"), "").is_err()
    }

    fn unmount(&self) -> bool {
        Command::new("umount").arg(&self.at).output().is_ok_and(|output| output.status.success())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).output();
    }
}

#[tokio::test]
async fn a_disk_that_turns_read_only_stops_acknowledgements_and_loses_nothing() {
    let mut scene = Scene::new(5, "").await;
    let Some(disk) = Disk::make(scene.tidegate.dir.path(), &scene.tidegate.state_dir()) else {
        eprintln!(
            "skipped: only root can mount the file system that this needs, on a kernel with ext4 and loop devices"
        );
        return;
    };
    let mut peer = scene.start().await;
    peer.send_numbers(1..=5, false).await;
    peer.acknowledged(1..=5).await;
    if !disk.fails() {
        eprintln!("skipped: this kernel can't be told that a disk has failed");
        return;
    }
    peer.send_numbers(6..=20, false).await;
    assert_eq!(peer.during(QUIET).await, [], "nothing is acknowledged");
    scene.counted("tidegate_journal_errors_total", 1.0);
    scene.said("the journal can't be written; nothing is acknowledged until it can");
    let advice = scene.tidegate.told("the journal can't be written", "error");
    assert!(
        advice[0].contains("check the disk, and the kernel's log") && advice[0].contains("read-only"),
        "{advice:?}"
    );
    scene.readiness_of("journal", "failing");
    scene.stores_once(1..=5);

    // Such a disk is mounted anew, which it can't be while it is in use. What is refused meanwhile is told too.
    scene.tidegate.signal("TERM");
    scene.tidegate.wait();
    drop(peer);
    assert!(disk.unmount() && disk.mount("loop") && disk.mount("remount,ro"));
    let refused = scene.tidegate.command(&["run"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let said = complaint(&refused);
    assert!(said.contains("can't write in the state directory") && said.contains("Read-only file system"), "{said}");
    assert!(disk.mount("remount,rw"));
    let mut peer = scene.start().await;
    for id in 6..=20 {
        peer.publish(TOPIC, &numbered(id.into()), 1, id, true).await;
        assert_eq!(peer.next().await, Packet::PubAck(id));
    }
    scene.stores_once(1..=20);
    scene.tidegate.kill();
}
