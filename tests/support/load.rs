//! `tidegate simulate` as the devices, and what they are known to have sent.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tidegate::simulate::{Fleet, Kind};

use super::daemon::{Tidegate, eventually, tidegate};

/// Numbers in each message.
pub const METRICS: usize = 5;
/// Devices, on so many connections.
pub const DEVICES: usize = 10;
pub const CONNECTIONS: usize = 4;

/// Values of each (device, metric), in the order they were published.
pub type Series = BTreeMap<(String, String), Vec<f64>>;

/// A fleet that publishes beside the test.
pub struct Simulation {
    dir: TempDir,
    child: Child,
}

impl Simulation {
    /// Native JSON with [`METRICS`] numbers from [`DEVICES`] devices; `arguments` are further ones.
    pub fn numbers(port: u16, messages: u64, arguments: &[&str]) -> Simulation {
        let (messages, devices) = (messages.to_string(), DEVICES.to_string());
        let (metrics, connections) = (METRICS.to_string(), CONNECTIONS.to_string());
        let mut all = vec!["--messages", &messages, "--devices", &devices, "--metrics", &metrics];
        all.extend(["--connections", &connections]);
        all.extend(arguments);
        Simulation::start(port, &all)
    }

    /// `tidegate simulate --json` with these arguments.
    pub fn start(port: u16, arguments: &[&str]) -> Simulation {
        let dir = TempDir::new().unwrap();
        let broker = format!("mqtt://127.0.0.1:{port}");
        let child = tidegate(&["simulate", "--json", "--broker", &broker])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(File::create(dir.path().join("summary")).unwrap())
            .stderr(File::create(dir.path().join("errors")).unwrap())
            .spawn()
            .unwrap();
        Simulation { dir, child }
    }

    /// Waits for its end; its summary. Panics unless everything was acknowledged.
    pub fn finish(mut self) -> Value {
        // It gives up by itself when the broker falls silent, so however many messages there are, it ends.
        let status = self.child.wait().unwrap();
        let text = |name: &str| std::fs::read_to_string(self.path(name)).unwrap();
        assert!(status.success(), "simulate: {status}\n{}{}", text("summary"), text("errors"));
        serde_json::from_str(&text("summary")).unwrap()
    }

    /// Stops it as a person does; its summary.
    pub fn interrupted(self) -> Value {
        self.signal("INT");
        self.finish()
    }

    /// Waits for what must come before the last message: the devices hold their breath once so many have been received.
    pub fn lasts_until(&self, tidegate: &Tidegate, messages: f64, what: &str, mut found: impl FnMut() -> bool) {
        let mut held = false;
        eventually(what, || {
            if !held && tidegate.metric("tidegate_messages_received_total") >= messages {
                self.hold();
                held = true;
            }
            found().then_some(())
        });
        self.go_on();
    }

    /// The devices do nothing until [`Simulation::go_on`].
    pub fn hold(&self) {
        self.signal("STOP");
    }

    pub fn go_on(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What [`Simulation::numbers`] sends with its default seed.
pub fn sent(messages: u64) -> Series {
    let fleet = Fleet::new(&[(Kind::Json { metrics: METRICS }, DEVICES)], "sim-", 1, false);
    let mut series = Series::new();
    for (index, mut part) in fleet.split(CONNECTIONS).into_iter().enumerate() {
        let (parts, index) = (CONNECTIONS as u64, index as u64);
        for _ in 0..messages / parts + u64::from(index < messages % parts) {
            let message = part.publish().unwrap();
            let device = message.topic.split('/').nth(1).unwrap().to_owned();
            let values: BTreeMap<String, f64> = serde_json::from_slice(&message.payload).unwrap();
            for (metric, value) in values {
                series.entry((device.clone(), metric)).or_default().push(value);
            }
        }
    }
    series
}
