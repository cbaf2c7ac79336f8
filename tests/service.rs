//! What systemd hears (sd_notify(3)).

use std::os::unix::net::UnixDatagram;

use tempfile::TempDir;

use crate::support::daemon::{NATIVE, PATIENCE, Tidegate, between};
use crate::support::mosquitto::Mosquitto;
use crate::support::stranger::SQLITE;

/// The other end of `NOTIFY_SOCKET`.
struct Manager {
    dir: TempDir,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Manager {
        let dir = TempDir::new().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Manager { dir, socket }
    }

    fn address(&self) -> String {
        self.dir.path().join("notify").display().to_string()
    }

    /// The next notification that has this assignment.
    fn hears(&self, assignment: &str) -> String {
        let mut buffer = [0; 4096];
        loop {
            let length = self.socket.recv(&mut buffer).unwrap_or_else(|_| panic!("never heard {assignment}"));
            let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
            if text.lines().any(|line| line == assignment) {
                return text;
            }
        }
    }
}

#[test]
fn systemd_hears_of_readiness_reloads_life_and_the_end() {
    let (manager, broker) = (Manager::new(), Mosquitto::plain());
    let toml = between(&format!("mqtt://127.0.0.1:{}", broker.port), SQLITE) + NATIVE;
    let mut tidegate = Tidegate::configured(&toml);
    let socket = manager.address();
    tidegate.start_with(&[("NOTIFY_SOCKET", &socket), ("WATCHDOG_USEC", "200000")]);
    manager.hears("READY=1");
    for _ in 0..3 {
        manager.hears("WATCHDOG=1");
    }
    tidegate.signal("HUP");
    let reloading = manager.hears("RELOADING=1");
    let micros = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).expect(&reloading);
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    let told = micros.parse::<f64>().unwrap() / 1e6;
    assert!(told <= uptime + 1.0 && told > uptime - PATIENCE.as_secs_f64(), "{told} s of {uptime} s");
    manager.hears("READY=1");
    // A refused reload ends too.
    tidegate.configure("nonsense = 1");
    tidegate.signal("HUP");
    manager.hears("RELOADING=1");
    let refused = manager.hears("READY=1");
    assert!(refused.contains("STATUS=") && refused.contains("refused"), "{refused}");
    manager.hears("WATCHDOG=1");
    tidegate.signal("TERM");
    manager.hears("STOPPING=1");
    assert!(tidegate.wait().success());
}
