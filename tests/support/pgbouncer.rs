//! A private PgBouncer in transaction pooling, in front of a private PostgreSQL.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::postgres::{PASSWORD, Postgres, as_user, home, unprivileged};

/// A running (or stopped) pooler of its own.
pub struct PgBouncer {
    home: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
}

impl PgBouncer {
    /// Starts one that lends `connections` of each database's; `more` is further lines of its configuration.
    pub fn start(server: &Postgres, connections: u32, more: &str) -> PgBouncer {
        let home = home(unprivileged());
        let mut pooler = PgBouncer { home, port: 0, child: None };
        for _ in 0..5 {
            pooler.port = super::free_port();
            pooler.write_config(server.port(), connections, more);
            if pooler.launch() {
                return pooler;
            }
        }
        panic!("PgBouncer does not start: {}", pooler.log());
    }

    /// The URL of a database, through it.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres:{PASSWORD}@127.0.0.1:{}/{database}", self.port)
    }

    /// Ends it at once, connections and all, and starts it again on the same port.
    pub fn restart(&mut self) {
        self.end();
        assert!(self.launch(), "PgBouncer does not start again: {}", self.log());
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn write_config(&self, server: u16, connections: u32, more: &str) {
        fs::write(self.path("users"), format!("\"postgres\" \"{PASSWORD}\"\n")).unwrap();
        let config = format!(
            "[databases]\n* = host=127.0.0.1 port={server}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\n\
             unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\npool_mode = transaction\n\
             default_pool_size = {connections}\nserver_round_robin = 1\n{more}\n",
            self.port,
            self.path("users").display()
        );
        fs::write(self.path("pgbouncer.ini"), config).unwrap();
    }

    fn launch(&mut self) -> bool {
        let log = File::options().create(true).append(true).open(self.path("log")).unwrap();
        let program = if PathBuf::from("/usr/sbin/pgbouncer").exists() { "/usr/sbin/pgbouncer" } else { "pgbouncer" };
        let mut command = Command::new(program);
        command.arg(self.path("pgbouncer.ini")).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        as_user(&mut command, unprivileged());
        let mut child = command.spawn().expect("pgbouncer is installed (scripts/test does it)");
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline && child.try_wait().unwrap().is_none() {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                self.child = Some(child);
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
        false
    }

    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        self.end();
    }
}
