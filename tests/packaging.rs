//! The unit that systemd runs is well formed and confined.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(name)
}

/// None where systemd is not installed.
fn systemd_analyze(arguments: &[&str], unit: &Path) -> Option<Output> {
    match Command::new("systemd-analyze").args(arguments).arg(unit).output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: there is no systemd-analyze here");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn the_unit_is_confined_to_an_exposure_of_two_or_better() {
    let arguments = ["security", "--offline=true", "--no-pager", "--threshold=20"];
    let Some(output) = systemd_analyze(&arguments, &shipped("tidegate.service")) else { return };
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn the_unit_has_nothing_that_systemd_does_not_know() {
    let dir = TempDir::new().unwrap();
    let unit = dir.path().join("tidegate.service");
    let original = fs::read_to_string(shipped("tidegate.service")).unwrap();
    // The program is not installed where the tests run.
    fs::write(&unit, original.replace("/usr/bin/tidegate", "/bin/true")).unwrap();
    let Some(output) = systemd_analyze(&["verify", "--man=no"], &unit) else { return };
    let newer_than_252 = ["notify-reload", "'RestartSteps'", "'RestartMaxDelaySec'"];
    let text = text(&output);
    let complaints: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("tidegate.service") && !newer_than_252.iter().any(|word| line.contains(word)))
        .collect();
    assert!(complaints.is_empty(), "{text}");
}

#[test]
fn the_unit_checks_before_it_starts_reloads_and_is_watched() {
    let unit = fs::read_to_string(shipped("tidegate.service")).unwrap();
    for line in [
        "Type=notify-reload",
        "ExecStartPre=/usr/bin/tidegate check",
        "WatchdogSec=",
        "StateDirectory=tidegate",
        // Refused configurations, and an instance that another has taken over.
        "RestartPreventExitStatus=2 3",
    ] {
        assert!(unit.lines().any(|text| text.starts_with(line)), "{line}");
    }
    let users = fs::read_to_string(shipped("tidegate.sysusers")).unwrap();
    assert!(users.lines().any(|line| line.starts_with("u tidegate ")), "{users}");
}
