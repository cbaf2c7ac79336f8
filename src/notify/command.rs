//! A local program, without a shell: the alert's JSON on its standard input, its exit status the answer.

use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStderr, ChildStdin, Command};

use super::Failure;
use crate::alert::{Transition, announce};

/// Bytes of its standard error that are kept for the reason of a failure.
const KEPT: usize = 300;

/// A program and its arguments. It gets of tidegate's environment the PATH only, since secrets may be in the rest; what it prints is
/// thrown away, and of its errors the beginning is kept where it fails. It is killed when its time is over; its own children are its
/// own affair.
pub struct Program {
    path: String,
    arguments: Vec<String>,
}

impl Program {
    /// The path, then the arguments.
    pub(super) fn new(words: Vec<String>) -> Program {
        let mut words = words.into_iter();
        Program { path: words.next().unwrap_or_default(), arguments: words.collect() }
    }

    pub(super) async fn tell(&self, step: &Transition) -> Result<(), Failure> {
        let mut command = Command::new(&self.path);
        command.args(&self.arguments).env_clear().kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        let mut child =
            command.spawn().map_err(|error| Failure::passing(format!("can't start {}: {error}", self.path)))?;
        let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
        let payload = announce::payload(step);
        let ((), said, status) = tokio::join!(feed(stdin, &payload), hear(stderr), child.wait());
        let status = status.map_err(Failure::passing)?;
        if status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&said);
        let separator = if said.trim().is_empty() { "" } else { ": " };
        Err(Failure::passing(format!("{} ended with {status}{separator}{}", self.path, said.trim())))
    }
}

/// A program need not read what it is given.
async fn feed(stdin: Option<ChildStdin>, payload: &[u8]) {
    if let Some(mut stdin) = stdin {
        let _ = stdin.write_all(payload).await;
        let _ = stdin.shutdown().await;
    }
}

/// Reads to the end, so that the program is not held up, and keeps the beginning.
async fn hear(stderr: Option<ChildStderr>) -> Vec<u8> {
    let (mut kept, mut chunk) = (Vec::new(), [0; 1024]);
    let Some(mut stderr) = stderr else { return kept };
    while let Ok(read @ 1..) = stderr.read(&mut chunk).await {
        let room = KEPT.saturating_sub(kept.len());
        kept.extend_from_slice(chunk.get(..read.min(room)).unwrap_or_default());
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::State;
    use crate::alert::announce::tests::step;

    async fn run(words: &[&str]) -> Result<(), Failure> {
        Program::new(words.iter().map(ToString::to_string).collect()).tell(&step("ab", 0, State::Firing)).await
    }

    #[tokio::test]
    async fn it_gets_the_alert_and_nothing_of_the_environment() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let script = format!("cat > {0}; env | cut -d= -f1 | grep -v -e PWD -e SHLVL -e _ >> {0}", out.display());
        run(&["/bin/sh", "-c", &script]).await.unwrap();
        let text = std::fs::read_to_string(out).unwrap();
        let alert = String::from_utf8(announce::payload(&step("ab", 0, State::Firing)).to_vec()).unwrap();
        assert_eq!(text, format!("{alert}PATH\n"));
    }

    #[tokio::test]
    async fn arguments_are_no_shells_and_a_failure_says_why() {
        assert_eq!(run(&["/bin/true", "; exit 1"]).await, Ok(()));
        let failure = run(&["/bin/sh", "-c", "head -c 100000 /dev/zero >&2; echo no >&2; exit 3"]).await.unwrap_err();
        assert!(failure.detail.contains("exit status: 3") && !failure.lasting, "{failure:?}");
        let failure = run(&["/bin/sh", "-c", "echo out of paper >&2; exit 1"]).await.unwrap_err();
        assert!(failure.detail.ends_with("out of paper"), "{failure:?}");
        let failure = run(&["/no/such/program"]).await.unwrap_err();
        assert!(failure.detail.contains("can't start /no/such/program"), "{failure:?}");
    }

    #[tokio::test]
    async fn it_is_killed_when_its_time_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let script = format!("echo $$ > {}; exec sleep 600", pid.display());
        let words = ["/bin/sh", "-c", &script];
        let mut telling = Box::pin(run(&words));
        let number = loop {
            let ended = tokio::time::timeout(std::time::Duration::from_millis(20), &mut telling).await;
            assert!(ended.is_err(), "it sleeps");
            match std::fs::read_to_string(&pid) {
                Ok(text) if text.ends_with('\n') => break text.trim().to_owned(),
                _ => {}
            }
        };
        drop(telling);
        // A zombie at most, until it is reaped.
        let state = || std::fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !state().is_empty() && !state().contains(") Z ") {
            assert!(std::time::Instant::now() < deadline, "still there: {}", state());
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}
