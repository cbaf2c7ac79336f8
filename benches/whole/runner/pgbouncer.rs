//! A private PgBouncer in transaction pooling, in front of a private PostgreSQL.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::stage::Skipped;

/// Killed when dropped.
pub struct PgBouncer {
    pub port: u16,
    child: Child,
    _dir: tempfile::TempDir,
}

impl PgBouncer {
    /// Starts it.
    ///
    /// # Errors
    /// [`Skipped`] where it is not installed.
    pub fn start(server: u16, user: &str, password: &str) -> anyhow::Result<PgBouncer> {
        let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"].into_iter().find(|path| Path::new(path).exists());
        let program = program.ok_or_else(|| Skipped("PgBouncer is not installed".to_owned()))?;
        let dir = tempfile::tempdir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        let port = crate::support::free_port();
        let users = dir.path().join("users");
        fs::write(&users, format!("\"{user}\" \"{password}\"\n"))?;
        let settings = dir.path().join("pgbouncer.ini");
        fs::write(
            &settings,
            format!(
                "[databases]\n* = host=127.0.0.1 port={server}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
                 listen_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\n\
                 pool_mode = transaction\n",
                users.display()
            ),
        )?;
        let mut command = Command::new(program);
        if fs::metadata("/proc/self")?.uid() == 0 {
            // It refuses to be root.
            command.args(["-u", "postgres"]);
        }
        let log = fs::File::create(dir.path().join("log"))?;
        let child = command.arg(&settings).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let started = PgBouncer { port, child, _dir: dir };
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = fs::read_to_string(started._dir.path().join("log")).context("its log")?;
            anyhow::ensure!(Instant::now() < deadline, "PgBouncer does not start: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(started)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
