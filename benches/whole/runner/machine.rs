//! What the figures were measured on.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::results::quantile;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    pub cores: usize,
    pub processor: String,
    pub memory_mib: u64,
    pub kernel: String,
    /// Of the directory in which servers and tidegate keep their files.
    pub file_system: String,
    /// 4 KiB of a file written anew and brought to the disk: median and 99th percentile, ms.
    pub fsync_p50_ms: f64,
    pub fsync_p99_ms: f64,
    /// Processes that wanted to run in the last minute, before the first measurement.
    pub load_before: f64,
    pub tidegate: String,
    pub mosquitto: String,
    pub postgres: String,
    pub pgbouncer: String,
}

impl Machine {
    /// # Errors
    /// When a temporary file can't be written.
    pub fn look() -> anyhow::Result<Machine> {
        let dir = tempfile::tempdir()?;
        let mut disk = Disk::of(dir.path())?;
        let syncs = (0..200).map(|_| disk.sync()).collect::<anyhow::Result<Vec<f64>>>()?;
        let words = |file: &str, field: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
            line.trim_start_matches([' ', '\t', ':']).trim().to_owned()
        };
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let memory = words("/proc/meminfo", "MemTotal:");
        Ok(Machine {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            processor: words("/proc/cpuinfo", "model name"),
            memory_mib: memory.split(' ').next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) / 1024,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            file_system: said("findmnt", &["-no", "FSTYPE", "-T", &dir.path().display().to_string()]),
            fsync_p50_ms: quantile(&syncs, 0.5),
            fsync_p99_ms: quantile(&syncs, 0.99),
            load_before: load.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0.0),
            tidegate: said(crate::support::daemon::tidegate(&["--version"]).get_program(), &["--version"]),
            mosquitto: said("/usr/sbin/mosquitto", &["-h"]),
            postgres: said(crate::support::postgres::bin("postgres"), &["--version"]),
            pgbouncer: said("/usr/sbin/pgbouncer", &["--version"]),
        })
    }
}

/// A file on whose disk the least that a durable write can cost is measured: 4 KiB in its midst, so that it does not grow.
pub struct Disk {
    file: File,
    next: u64,
    growing: File,
}

impl Disk {
    const BLOCK: [u8; 4096] = [0x55; 4096];
    const BLOCKS: u64 = 256;

    /// # Errors
    /// When the file can't be written.
    pub fn of(dir: &Path) -> anyhow::Result<Disk> {
        let mut file = File::create(dir.join("fsync"))?;
        for _ in 0..Disk::BLOCKS {
            file.write_all(&Disk::BLOCK)?;
        }
        file.sync_all()?;
        Ok(Disk { file, next: 0, growing: File::create(dir.join("growing"))? })
    }

    /// How long one takes at the end of a file of its own, which grows by it, ms: what a new log costs.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn grow(&mut self) -> anyhow::Result<f64> {
        let started = Instant::now();
        self.growing.write_all(&Disk::BLOCK)?;
        self.growing.sync_data()?;
        Ok(started.elapsed().as_secs_f64() * 1e3)
    }

    /// How long one takes, ms.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn sync(&mut self) -> anyhow::Result<f64> {
        let place = (self.next % Disk::BLOCKS) * Disk::BLOCK.len() as u64;
        self.next += 1;
        let started = Instant::now();
        self.file.write_all_at(&Disk::BLOCK, place)?;
        self.file.sync_data()?;
        Ok(started.elapsed().as_secs_f64() * 1e3)
    }
}

/// The first line that a program prints; how it ends does not matter.
fn said(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> String {
    let Ok(output) = Command::new(program).args(arguments).output() else { return "not installed".to_owned() };
    String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned()
}
