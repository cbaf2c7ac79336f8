//! A private PostgreSQL: a copy of a cluster that is made once, on a free loopback port, gone when it is dropped.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection};

pub(super) const PASSWORD: &str = "tide";

/// A running (or stopped) server of its own.
pub struct Postgres {
    home: tempfile::TempDir,
    user: Option<User>,
    port: u16,
    flavor: Flavor,
    settings: Mutex<Vec<String>>,
    child: Mutex<Option<Child>>,
}

/// How it is set up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flavor {
    /// Small, and without fsync.
    Quick,
    /// Small, with fsync.
    Durable,
    /// PostgreSQL's own defaults.
    Stock,
}

impl Flavor {
    fn settings(self) -> &'static [&'static str] {
        match self {
            Flavor::Quick => &["max_connections=200", "shared_buffers=32MB", "fsync=off"],
            Flavor::Durable => &["max_connections=200", "shared_buffers=32MB", "fsync=on"],
            Flavor::Stock => &[],
        }
    }
}

/// Whom the server runs as, since it refuses to be root.
#[derive(Clone, Copy)]
pub(super) struct User {
    pub uid: u32,
    pub gid: u32,
}

/// The server that tests share; each makes its own database in it. It ends with the last test that has it.
pub fn shared() -> Arc<Postgres> {
    static SHARED: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(running) = shared.upgrade() {
        return running;
    }
    let started = Arc::new(Postgres::start(false));
    *shared = Arc::downgrade(&started);
    started
}

impl Postgres {
    /// Starts a server with TimescaleDB loaded; none, and a word on stderr, where the extension is not installed.
    pub fn with_timescaledb() -> Option<Postgres> {
        let shared = Command::new(bin("pg_config")).arg("--sharedir").output().ok()?;
        let shared = PathBuf::from(String::from_utf8_lossy(&shared.stdout).trim());
        if !shared.join("extension/timescaledb.control").exists() {
            eprintln!("TimescaleDB is not installed: skipped");
            return None;
        }
        let server = Postgres::start(false);
        server.configure(&["shared_preload_libraries=timescaledb", "timescaledb.telemetry_level=off"]);
        server.stop();
        server.restart();
        Some(server)
    }

    /// Starts a server. `durable`: with fsync, for tests that kill it and look at what is left.
    pub fn start(durable: bool) -> Postgres {
        Postgres::of(if durable { Flavor::Durable } else { Flavor::Quick })
    }

    /// Starts a server with PostgreSQL's own defaults, fsync and the size of its log's segments among them: to be measured.
    pub fn stock() -> Postgres {
        Postgres::of(Flavor::Stock)
    }

    fn of(flavor: Flavor) -> Postgres {
        let user = unprivileged();
        let template = template(user, flavor);
        let home = home(user);
        let status = Command::new("cp").arg("-a").arg(&template).arg(home.path().join("data")).status().unwrap();
        assert!(status.success());
        Postgres::run(home, user, flavor)
    }

    /// A streaming standby of this server, which must live longer.
    pub fn standby(&self) -> Postgres {
        let home = home(self.user);
        let mut command = Command::new(bin("pg_basebackup"));
        command.args(["-R", "-X", "stream", "-c", "fast", "--no-sync", "-d", &self.url("postgres"), "-D"]);
        command.arg(home.path().join("data"));
        as_user(&mut command, self.user);
        assert!(command.current_dir("/").status().unwrap().success(), "pg_basebackup: {}", self.log());
        Postgres::run(home, self.user, Flavor::Quick)
    }

    fn run(mut home: tempfile::TempDir, user: Option<User>, flavor: Flavor) -> Postgres {
        for _ in 0..5 {
            let port = super::free_port();
            let mut server = Postgres { home, user, port, flavor, settings: Mutex::default(), child: Mutex::new(None) };
            if server.try_run() {
                return server;
            }
            // Somebody took the port in between.
            let spare = tempfile::tempdir().unwrap();
            home = std::mem::replace(&mut server.home, spare);
        }
        panic!("PostgreSQL does not start");
    }

    /// The URL of a database.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres:{PASSWORD}@127.0.0.1:{}/{database}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its first process, parent of the others; none: stopped.
    pub fn pid(&self) -> Option<u32> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Child::id)
    }

    /// Makes a database of its own for a test; returns its URL.
    pub fn database(&self) -> String {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.connect("postgres").batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0")).unwrap();
        self.url(&name)
    }

    pub fn connect(&self, database: &str) -> PgConnection {
        PgConnection::establish(&self.url(database)).unwrap()
    }

    /// Ends it as a crash would, children and all.
    pub fn kill(&self) {
        self.end("-QUIT");
    }

    /// Ends it orderly, without waiting for clients.
    pub fn stop(&self) {
        self.end("-INT");
    }

    /// SIGKILL, of the server alone: its children find out.
    pub fn kill_9(&self) {
        self.end("-KILL");
    }

    /// It and its children stand still, and its machine goes on acknowledging what is sent to them.
    pub fn freeze(&self) {
        self.signal_all("-STOP");
    }

    /// They go on as if nothing had been.
    pub fn thaw(&self) {
        self.signal_all("-CONT");
    }

    fn signal_all(&self, signal: &str) {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(server) = child.as_ref().map(|child| child.id().to_string()) else { return };
        let children = Command::new("ps").args(["-o", "pid=", "--ppid", &server]).output().unwrap();
        let children = String::from_utf8(children.stdout).unwrap();
        // The server first: it makes no more children then.
        for pid in std::iter::once(server.as_str()).chain(children.split_whitespace()) {
            let _ = Command::new("kill").args([signal, pid]).status();
        }
    }

    /// Puts a file where the server may read it, and nobody else; returns its path.
    pub fn private_file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.home.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        if let Some(user) = self.user {
            chown(&path, Some(user.uid), Some(user.gid)).unwrap();
        }
        path
    }

    /// Who is let in, for the next start: lines of `pg_hba.conf`.
    pub fn let_in(&self, lines: &str) {
        fs::write(self.home.path().join("data/pg_hba.conf"), lines).unwrap();
    }

    /// Settings that the next start gets, e.g. `max_connections=8`.
    pub fn configure(&self, settings: &[&str]) {
        *self.settings.lock().unwrap() = settings.iter().map(|setting| (*setting).to_owned()).collect();
    }

    /// Starts it again on the same port and data.
    pub fn restart(&self) {
        // After a SIGKILL not before its orphans are gone.
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.try_run() {
            assert!(Instant::now() < deadline, "PostgreSQL does not start again: {}", self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    fn end(&self, signal: &str) {
        self.thaw();
        let Some(mut child) = self.child.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let _ = Command::new("kill").arg(signal).arg(child.id().to_string()).status();
        let _ = child.wait();
    }

    fn try_run(&self) -> bool {
        let log = File::options().create(true).append(true).open(self.home.path().join("log")).unwrap();
        let mut command = Command::new(bin("postgres"));
        command
            .arg("-D")
            .arg(self.home.path().join("data"))
            .args(["-c", "listen_addresses=127.0.0.1"])
            .args(self.flavor.settings().iter().flat_map(|setting| ["-c", setting]))
            .args(["-c", &format!("port={}", self.port)])
            .args(["-c", &format!("unix_socket_directories={}", self.home.path().display())])
            .args(self.settings.lock().unwrap().iter().flat_map(|setting| ["-c", setting]))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        as_user(&mut command, self.user);
        let mut child = command.spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            if PgConnection::establish(&self.url("postgres")).is_ok() {
                *self.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
                return true;
            }
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
        false
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A directory that the server's user has.
pub(super) fn home(user: Option<User>) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    if let Some(user) = user {
        chown(home.path(), Some(user.uid), Some(user.gid)).unwrap();
    }
    home
}

pub(super) fn as_user(command: &mut Command, user: Option<User>) {
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid);
    }
}

/// None unless we are root.
pub(super) fn unprivileged() -> Option<User> {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let line = users
        .lines()
        .find(|line| line.starts_with("postgres:"))
        .or_else(|| users.lines().find(|line| line.starts_with("nobody:")))
        .expect("a user postgres or nobody");
    let mut ids = line.split(':').skip(2).map(|id| id.parse().unwrap());
    Some(User { uid: ids.next().unwrap(), gid: ids.next().unwrap() })
}

/// A program of the newest PostgreSQL there is.
pub fn bin(name: &str) -> PathBuf {
    let mut found: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|versions| versions.flatten().map(|version| version.path().join("bin").join(name)).collect())
        .unwrap_or_default();
    found.retain(|path| path.exists());
    found.sort();
    found.pop().unwrap_or_else(|| PathBuf::from(name))
}

/// A fresh cluster that the others are copies of, made by the first that needs it.
fn template(user: Option<User>, flavor: Flavor) -> PathBuf {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("postgres");
    fs::create_dir_all(&cache).unwrap();
    let lock = File::create(cache.join("lock")).unwrap();
    lock.lock().unwrap();
    let (name, segments) = match flavor {
        Flavor::Stock => ("stock", None),
        Flavor::Quick | Flavor::Durable => ("template", Some("--wal-segsize=2")),
    };
    let done = cache.join(name);
    if done.exists() {
        return done;
    }
    // Beside a temporary directory, because the build's may not be open to the server's user.
    let work = tempfile::tempdir().unwrap();
    fs::set_permissions(work.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let password_file = work.path().join("password");
    fs::write(&password_file, PASSWORD).unwrap();
    if let Some(user) = user {
        chown(work.path(), Some(user.uid), Some(user.gid)).unwrap();
        chown(&password_file, Some(user.uid), Some(user.gid)).unwrap();
    }
    let mut command = Command::new(bin("initdb"));
    command
        .args(["-U", "postgres", "-A", "scram-sha-256", "-E", "UTF8", "--locale=C", "--no-sync"])
        .args(segments)
        .arg(format!("--pwfile={}", password_file.display()))
        .arg("-D")
        .arg(work.path().join("data"))
        .stdout(Stdio::null());
    as_user(&mut command, user);
    assert!(command.status().unwrap().success(), "initdb failed");
    let half = cache.join("half");
    let _ = fs::remove_dir_all(&half);
    assert!(Command::new("cp").arg("-a").arg(work.path().join("data")).arg(&half).status().unwrap().success());
    fs::rename(&half, &done).unwrap();
    done
}
