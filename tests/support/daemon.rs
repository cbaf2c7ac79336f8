//! Runs the tidegate binary as an operator would, in a private directory.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
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
    /// Variables that `run` gets.
    pub env: Vec<(&'static str, String)>,
    /// Whom `run` runs as; none: whoever runs the tests.
    pub user: Option<u32>,
    child: Option<Child>,
    started: usize,
}

impl Tidegate {
    /// Writes `tidegate.toml`; `{state}` in it stands for the state directory.
    pub fn configured(toml: &str) -> Tidegate {
        let tidegate = Tidegate { dir: TempDir::new().unwrap(), env: Vec::new(), user: None, child: None, started: 0 };
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
        self.start_with(&[]);
    }

    /// The same with further environment variables.
    pub fn start_with(&mut self, environment: &[(&str, &str)]) {
        self.spawn_with(environment);
        eventually("tidegate runs", || {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().unwrap()) {
                panic!("tidegate ended at its start with {status}:\n{}", self.log());
            }
            self.said("runs")
        });
    }

    /// Starts `tidegate run` without waiting.
    pub fn spawn(&mut self) {
        self.spawn_with(&[]);
    }

    fn spawn_with(&mut self, environment: &[(&str, &str)]) {
        assert!(self.child.is_none(), "already running");
        self.started += 1;
        let log = File::create(self.log_file()).unwrap();
        let mut command = self.command(&["run"]);
        command.envs(environment.iter().copied()).envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
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

    /// The field of every log event whose message contains `words`, in order.
    pub fn told(&self, words: &str, field: &str) -> Vec<String> {
        let log = self.log();
        let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events
            .filter(|event| event["message"].as_str().is_some_and(|message| message.contains(words)))
            .map(|event| event[field].as_str().map_or_else(|| event[field].to_string(), str::to_owned))
            .collect()
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

    /// SIGHUP, and waits until the reload is over: true once it is in force, false when it was refused.
    pub fn reload(&self) -> bool {
        let over = |log: &str| {
            log.lines().filter(|line| line.contains("\"reloaded\"") || line.contains("refused, the old")).count()
        };
        let before = over(&self.log());
        self.signal("HUP");
        eventually("the reload is over", || (over(&self.log()) > before).then_some(()));
        self.log().lines().rfind(|line| over(line) > 0).is_some_and(|line| line.contains("\"reloaded\""))
    }

    /// The running daemon's.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("running").id()
    }

    /// CPU time used so far, seconds.
    pub fn cpu(&self) -> f64 {
        let pid = self.child.as_ref().expect("running").id();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // After the name, which may have blanks: state is the first, utime and stime the 12th and 13th.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: f64 = fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum();
        let second = Command::new("getconf").arg("CLK_TCK").output().unwrap();
        ticks / String::from_utf8(second.stdout).unwrap().trim().parse::<f64>().unwrap()
    }

    /// The most memory of its own that was resident so far, bytes: without the pages of the program, of which a debug build has
    /// several times as many.
    pub fn peak_own_memory(&self) -> u64 {
        let pid = self.child.as_ref().expect("running").id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let bytes = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            value.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
        };
        bytes("VmHWM:") - bytes("RssFile:")
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

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().unwrap();
        if status.is_some() {
            self.child = None;
        }
        status
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

    /// As [`json`](Self::json); none while there is no such alert or device, or no schema yet: what is on MQTT is stored a moment later.
    pub fn found(&self, arguments: &[&str]) -> Option<Value> {
        let output = self.command(arguments).arg("--json").stdin(Stdio::null()).output().unwrap();
        let complaint = complaint(&output);
        let is_early = ["there is no ", "has no schema"].iter().any(|words| complaint.contains(words));
        assert!(output.status.success() || is_early, "{arguments:?}: {complaint}");
        output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
    }

    /// Status and report of `/readyz`.
    pub fn readyz(&self) -> (u16, Value) {
        let (status, body) = http_get(self.address("http"), "/readyz");
        (status, serde_json::from_str(&body).unwrap())
    }

    /// Waits until the broker's connection stands and its filters are granted.
    pub fn listening(&self) {
        eventually("the session is up", || (self.metric("tidegate_broker_connected") > 0.0).then_some(()));
    }

    /// Waits until a metric has reached `least`, for as long as it moves.
    pub fn wait_for_metric(&self, name: &str, least: f64) {
        let (mut seen, mut moved) = (self.metric(name), Instant::now());
        while seen < least {
            assert!(moved.elapsed() < PATIENCE, "{name} stays at {seen} for {PATIENCE:?}; {least} is waited for");
            std::thread::sleep(Duration::from_millis(20));
            let now = self.metric(name);
            if now != seen {
                (seen, moved) = (now, Instant::now());
            }
        }
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

/// The beginning of a configuration: this broker and database, HTTP on a free port, the log as JSON.
pub fn between(broker: &str, database: &str) -> String {
    format!(
        "[instance]\nid = \"test\"\nstate_dir = \"{{state}}\"\n[broker]\nurl = {broker:?}\n\
         [database]\nurl = {database:?}\n[http]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n"
    )
}

/// The source of native JSON.
pub const NATIVE: &str =
    "[[sources]]\nname = \"native\"\nfilter = \"devices/{device}/telemetry\"\ndecoder = \"json\"\n";

/// A free port that no connection takes by chance while a server on it is away: below those the system hands out.
pub fn lasting_port() -> u16 {
    let seed = std::process::id().wrapping_mul(2_654_435_761) >> 8;
    let candidates = (0..1000_u32).map(|step| 15_000 + u16::try_from((seed + step * 7) % 15_000).unwrap());
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    candidates.into_iter().find(free).expect("a free port")
}

/// The binary, with no configuration but what is given. `BENCH_BINARY` names another build of it, to be measured.
pub fn tidegate(arguments: &[&str]) -> Command {
    let program = std::env::var_os("BENCH_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_tidegate").into());
    let mut command = Command::new(program);
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
