//! CPU time and memory of processes, from /proc (proc(5)).

use std::fs;
use std::time::Duration;

/// Of one line of /proc/PID/stat.
struct Stat {
    parent: u32,
    own: u64,
    /// Of children that have ended and were waited for.
    reaped: u64,
}

/// What a process has used: user and system time, all threads.
pub fn cpu(pid: u32) -> Duration {
    time(stat(pid).map_or(0, |stat| stat.own))
}

/// The same with its children, living and ended, but for some of them.
pub fn cpu_with_children(pid: u32, except: &[u32]) -> Duration {
    let mut ticks = stat(pid).map_or(0, |stat| stat.own + stat.reaped);
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if except.contains(&child) {
            continue;
        }
        ticks += stat(child).filter(|stat| stat.parent == pid).map_or(0, |stat| stat.own + stat.reaped);
    }
    time(ticks)
}

/// What this process's own children have used that have ended.
pub fn cpu_of_ended_children() -> Duration {
    time(stat(std::process::id()).map_or(0, |stat| stat.reaped))
}

/// Most memory that it has had resident since its start or [`forget_peak`], bytes (VmHWM).
pub fn peak(pid: u32) -> u64 {
    status(pid, "VmHWM:")
}

/// Resident memory, bytes (VmRSS).
pub fn resident(pid: u32) -> u64 {
    status(pid, "VmRSS:")
}

/// Lets the peak begin anew, where the kernel allows it.
pub fn forget_peak(pid: u32) {
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

fn status(pid: u32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn stat(pid: u32) -> Option<Stat> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name, which may have blanks: the state is field 3.
    let fields: Vec<&str> = line.rsplit(')').next()?.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    Some(Stat { parent: u32::try_from(number(4)).ok()?, own: number(14) + number(15), reaped: number(16) + number(17) })
}

/// Linux counts these in hundredths of a second for every program, whatever the kernel's own clock (USER_HZ).
fn time(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 10)
}
