//! A private mosquitto on a free port, in a directory of its own.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How the broker is set up.
#[derive(Clone, Default)]
pub struct Setup {
    /// Sessions and retained messages survive a restart, and a kill after a second or so.
    pub persistent: bool,
    /// Names and passwords; none: anyone.
    pub users: Vec<(&'static str, &'static str)>,
    pub tls: Option<Tls>,
    /// Further lines of its configuration.
    pub extra: String,
}

/// PEM files.
#[derive(Clone)]
pub struct Tls {
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
    pub require_client_certificate: bool,
}

/// A broker that is killed, and whose files are removed, when dropped.
pub struct Mosquitto {
    pub port: u16,
    dir: TempDir,
    setup: Setup,
    child: Option<Child>,
}

impl Mosquitto {
    /// Starts one and waits until it listens.
    pub fn start(setup: Setup) -> Mosquitto {
        let dir = tempfile::tempdir().unwrap();
        let mut broker = Mosquitto { port: 0, dir, setup, child: None };
        for _ in 0..5 {
            broker.port = super::free_port();
            if broker.launch() {
                return broker;
            }
        }
        panic!("mosquitto does not start: {}", broker.log());
    }

    /// Anyone may connect and nothing is kept.
    pub fn plain() -> Mosquitto {
        Mosquitto::start(Setup::default())
    }

    /// SIGTERM, and waits for its end.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            child.wait().unwrap();
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            child.wait().unwrap();
        }
    }

    /// Starts it again on the same port, with the same files.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "still running");
        assert!(self.launch(), "mosquitto does not start again: {}", self.log());
    }

    /// Publishes with `mosquitto_pub`; `arguments` are further ones of it.
    pub fn publish(&self, topic: &str, payload: &str, arguments: &[&str]) {
        let output = self.client("mosquitto_pub").args(["-t", topic, "-m", payload]).args(arguments).output().unwrap();
        assert!(output.status.success(), "mosquitto_pub: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Publishes each line as a message, at QoS 1.
    pub fn publish_lines(&self, topic: &str, lines: &[String]) {
        let input = self.dir.path().join("lines");
        fs::write(&input, lines.join("\n")).unwrap();
        let mut publisher = self.client("mosquitto_pub");
        publisher.args(["-t", topic, "-q", "1", "-l"]).stdin(fs::File::open(input).unwrap());
        assert!(publisher.status().unwrap().success());
    }

    /// The retained message of a topic, or the next to come within 5 s.
    pub fn read_one(&self, topic: &str) -> Option<String> {
        let output = self.client("mosquitto_sub").args(["-t", topic, "-C", "1", "-W", "5"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (!text.is_empty()).then_some(text)
    }

    /// Its process; none: stopped.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        if let Some((name, password)) = self.setup.users.first() {
            command.args(["-u", name, "-P", password]);
        }
        command
    }

    fn launch(&mut self) -> bool {
        let config = self.write_config();
        let log = fs::File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let mut child = Command::new(program("mosquitto"))
            .arg("-c")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("mosquitto is installed");
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            if TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok() {
                self.child = Some(child);
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = child.kill();
        let _ = child.wait();
        false
    }

    fn write_config(&self) -> PathBuf {
        let dir = self.dir.path();
        let mut lines = vec![
            // Else it gives up root and can't write into the directory.
            "user root".to_owned(),
            format!("listener {} 127.0.0.1", self.port),
            format!("allow_anonymous {}", self.setup.users.is_empty()),
            "log_dest stdout".to_owned(),
        ];
        if !self.setup.users.is_empty() {
            lines.push(format!("password_file {}", self.write_passwords().display()));
        }
        if let Some(tls) = &self.setup.tls {
            lines.push(format!("cafile {}", tls.ca.display()));
            lines.push(format!("certfile {}", tls.cert.display()));
            lines.push(format!("keyfile {}", tls.key.display()));
            lines.push(format!("require_certificate {}", tls.require_client_certificate));
        }
        if self.setup.persistent {
            lines.push(format!("persistence true\npersistence_location {}/", dir.display()));
            lines.push("autosave_on_changes true\nautosave_interval 1".to_owned());
        }
        lines.push(self.setup.extra.clone());
        let path = dir.join("mosquitto.conf");
        fs::write(&path, lines.join("\n")).unwrap();
        path
    }

    fn write_passwords(&self) -> PathBuf {
        let path = self.dir.path().join("passwords");
        fs::write(&path, "").unwrap();
        for (name, password) in &self.setup.users {
            let status = Command::new("mosquitto_passwd").arg("-b").arg(&path).args([name, password]).status().unwrap();
            assert!(status.success());
        }
        path
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Debian keeps servers where an ordinary PATH does not look.
fn program(name: &str) -> PathBuf {
    let there = Path::new("/usr/sbin").join(name);
    if there.exists() { there } else { PathBuf::from(name) }
}
