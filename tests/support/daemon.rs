//! Runs the tidegate binary as an operator would, in a private directory.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// How long any condition may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Polls until `found` gives something.
pub fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A directory with a configuration file, and the daemon that runs on it.
pub struct Tidegate {
    pub dir: TempDir,
    child: Option<Child>,
    started: usize,
}

impl Tidegate {
    /// Writes `tidegate.toml`; `{state}` in it stands for the state directory.
    pub fn configured(toml: &str) -> Tidegate {
        let tidegate = Tidegate { dir: TempDir::new().unwrap(), child: None, started: 0 };
        tidegate.configure(toml);
        tidegate
    }

    /// Replaces the configuration file.
    pub fn configure(&self, toml: &str) {
        let state = self.state_dir();
        std::fs::write(self.config_file(), toml.replace("{state}", state.to_str().unwrap())).unwrap();
    }

    /// Writes a file of the catalog, e.g. `templates/acme.toml`.
    pub fn catalog_file(&self, name: &str, toml: &str) {
        let path = self.dir.path().join("catalog").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, toml).unwrap();
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub fn config_file(&self) -> PathBuf {
        self.dir.path().join("tidegate.toml")
    }

    /// Starts `tidegate run` and waits until it says that it runs.
    pub fn start(&mut self) {
        self.spawn();
        eventually("tidegate runs", || {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().unwrap()) {
                panic!("tidegate ended at its start with {status}:\n{}", self.log());
            }
            self.said("runs")
        });
    }

    /// Starts `tidegate run` without waiting.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "already running");
        self.started += 1;
        let log = File::create(self.log_file()).unwrap();
        let child = self.command(&["run"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.child = Some(child);
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join(format!("log-{}", self.started))
    }

    /// What the running (or last) daemon has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// The first log event whose message contains `words`.
    pub fn said(&self, words: &str) -> Option<Value> {
        self.log()
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(|event| event["message"].as_str().is_some_and(|message| message.contains(words)))
    }

    /// An address that the daemon told at its start: `broker` or `http`.
    pub fn address(&self, field: &str) -> SocketAddr {
        let told = self.said("runs").expect("tidegate runs")[field].as_str().unwrap_or_default().to_owned();
        told.trim_start_matches("Some(").trim_end_matches(')').parse().unwrap_or_else(|_| panic!("{field}: {told}"))
    }

    /// Sends a signal by name, e.g. `HUP`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("running").id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// SIGTERM, and how it ended.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("running");
        eventually("tidegate ends", || child.try_wait().unwrap())
    }

    /// A command of tidegate on this configuration.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = tidegate(arguments);
        command.current_dir(self.dir.path()).env("TIDEGATE_CONFIG", self.config_file());
        command
    }

    /// Runs a command to its end; panics unless it succeeds.
    pub fn output(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}: {}", output.status, complaint(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command with `--json` and reads what it prints.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let mut all = arguments.to_vec();
        all.push("--json");
        serde_json::from_str(&self.output(&all)).unwrap()
    }

    /// One sample of `/metrics`; 0 when it is not there.
    pub fn metric(&self, name: &str) -> f64 {
        let text = http_get(self.address("http"), "/metrics").1;
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
            .map_or(0.0, |value| value.trim().parse().unwrap())
    }
}

impl Drop for Tidegate {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- log of tidegate\n{}", self.log());
        }
    }
}

/// The binary, with no configuration but what is given.
pub fn tidegate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(arguments);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TIDEGATE_")) {
        command.env_remove(name);
    }
    command
}

/// What a command said on stderr and stdout.
pub fn complaint(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout))
}

/// Status and body of `GET path`.
pub fn http_get(address: SocketAddr, path: &str) -> (u16, String) {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// A value asked of a SQLite file with the `sqlite3` shell, as a stranger would.
pub fn sqlite(file: &Path, sql: &str) -> String {
    let output =
        Command::new("sqlite3").args(["-batch", "-cmd", ".timeout 20000"]).arg(file).arg(sql).output().unwrap();
    assert!(output.status.success(), "{sql}: {}", complaint(&output));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
