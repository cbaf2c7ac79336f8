//! A local program, without a shell: the alert's JSON on its standard input, its exit status the answer.

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStderr, ChildStdin, Command};

use super::{Failure, Notice};

/// Bytes of its standard error that are kept for the reason of a failure.
const KEPT: usize = 300;

/// A program and its arguments. It gets of tidegate's environment the PATH only, since secrets may be in the rest; what it prints is
/// thrown away, and of its errors the beginning is kept where it fails. It leads a process group of its own, which is killed when its time
/// is over: with all its children, but for those that have left the group.
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

    pub(super) async fn tell(&self, notice: &Notice) -> Result<(), Failure> {
        let mut command = Command::new(&self.path);
        command.args(&self.arguments).env_clear().kill_on_drop(true).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        let mut child =
            command.spawn().map_err(|error| Failure::passing(format!("can't start {}: {error}", self.path)))?;
        // Dropped before the child: as long as it is not waited for, nobody else has its number.
        let mut group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
        let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
        let payload = notice.payload();
        let ((), said, status) = tokio::join!(feed(stdin, &payload), hear(stderr), child.wait());
        // It has ended by itself: what it has left running without holding anything of ours may go on.
        group.0 = None;
        let status = status.map_err(Failure::passing)?;
        if status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&said);
        let separator = if said.trim().is_empty() { "" } else { ": " };
        Err(Failure::passing(format!("{} ended with {status}{separator}{}", self.path, said.trim())))
    }
}

/// The processes of a program, ended when it is dropped.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // There may be none any more.
            let _ = kill_process_group(leader, Signal::KILL);
        }
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
    use crate::notify::notice::tests::notice;

    async fn run(words: &[&str]) -> Result<(), Failure> {
        Program::new(words.iter().map(ToString::to_string).collect()).tell(&notice("ab", 0)).await
    }

    #[tokio::test]
    async fn it_gets_the_alert_and_nothing_of_the_environment() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let script = format!("cat > {0}; env | cut -d= -f1 | grep -v -e PWD -e SHLVL -e _ >> {0}", out.display());
        run(&["/bin/sh", "-c", &script]).await.unwrap();
        let text = std::fs::read_to_string(out).unwrap();
        let alert = String::from_utf8(notice("ab", 0).payload().to_vec()).unwrap();
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

    /// Lets a program run until it has written lines to the file, and drops it then; what it wrote.
    async fn dropped(script: &str, file: &std::path::Path, lines: usize) -> Vec<String> {
        let words = ["/bin/sh", "-c", script];
        let mut telling = Box::pin(run(&words));
        loop {
            let ended = tokio::time::timeout(std::time::Duration::from_millis(20), &mut telling).await;
            assert!(ended.is_err(), "it goes on");
            let text = std::fs::read_to_string(file).unwrap_or_default();
            if text.matches('\n').count() >= lines {
                return text.lines().map(str::to_owned).collect();
            }
        }
    }

    async fn is_gone(number: &str) {
        // A zombie at most, until it is reaped.
        let state = || std::fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !state().is_empty() && !state().contains(") Z ") {
            assert!(std::time::Instant::now() < deadline, "still there: {}", state());
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn it_is_killed_when_its_time_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let numbers = dropped(&format!("echo $$ > {}; exec sleep 600", pid.display()), &pid, 1).await;
        is_gone(&numbers[0]).await;
    }

    #[tokio::test]
    async fn its_children_go_with_it_also_where_it_has_ended_before_them() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        for end in ["wait", "exit 0"] {
            let script = format!("sleep 600 & echo $! > {0}; echo $$ >> {0}; {end}", pid.display());
            for number in dropped(&script, &pid, 2).await {
                is_gone(&number).await;
            }
            std::fs::remove_file(&pid).unwrap();
        }
    }
}
