//! Channels of `[[notify]]` against real servers of their kinds: a mail server with STARTTLS and AUTH, a web server over TLS, rsyslog. Each
//! of them refuses, hangs, is down and is well again.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::certificates::Certificates;
use crate::support::daemon::{NATIVE, Tidegate, between, eventually};
use crate::support::free_port;
use crate::support::mosquitto::Mosquitto;
use crate::support::stranger::SQLITE;

const HOT: &str =
    "slug = \"too-hot\"\nseverity = \"critical\"\nscope.all = true\nwhen = { metric = \"temperature\", gt = 30.0 }\n";

/// A server of the test's, ended with it.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One of the scripts beside this file, with its port. Debian's interpreter, since its modules are Debian's.
fn script(name: &str, certificates: &Certificates, dir: &Path) -> (Server, u16) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/alert_servers").join(name);
    let (certificate, key) = &certificates.server;
    let child = Command::new("/usr/bin/python3")
        .arg(path)
        .args([certificate, key])
        .arg(dir)
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is installed; scripts/test sees to it");
    let mut server = Server(child);
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let port = line.trim().parse().unwrap_or_else(|_| panic!("{name} told no port: {line:?}"));
    (server, port)
}

fn lines(file: &Path) -> Vec<String> {
    std::fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

struct Rig {
    broker: Mosquitto,
    tidegate: Tidegate,
    dir: tempfile::TempDir,
    certificates: Certificates,
}

impl Rig {
    fn new() -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let certificates = Certificates::make(dir.path());
        Rig { broker: Mosquitto::plain(), tidegate: Tidegate::configured(""), dir, certificates }
    }

    fn start(&mut self, tables: &str) {
        let url = format!("mqtt://127.0.0.1:{}", self.broker.port);
        self.tidegate.configure(&(between(&url, SQLITE) + NATIVE + tables));
        self.tidegate.catalog_file("rules/hot.toml", HOT);
        let ca = self.certificates.ca.to_str().unwrap().to_owned();
        self.tidegate.start_with(&[("SSL_CERT_FILE", &ca)]);
        self.tidegate.listening();
        eventually("the database is open", || self.tidegate.said("database open"));
    }

    fn hot(&self, device: &str) {
        self.broker.publish(&format!("devices/{device}/telemetry"), r#"{"temperature": 31.5}"#, &["-q", "1"]);
    }

    fn mode(&self, mode: &str) {
        std::fs::write(self.dir.path().join("mode"), mode).unwrap();
    }

    fn lines(&self, file: &str) -> Vec<Value> {
        lines(&self.dir.path().join(file)).iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// What became of a device's notification by a channel.
    fn fate(&self, device: &str, channel: &str) -> Option<Value> {
        let rows = self.tidegate.json(&["alerts", "notify", "list", "--channel", channel]);
        rows.as_array()?.iter().find(|row| row["device"] == device).cloned()
    }

    fn until(&self, device: &str, channel: &str, state: &str) -> Value {
        eventually(&format!("{device} by {channel} is {state}"), || {
            self.fate(device, channel).filter(|row| row["state"] == state)
        })
    }
}

#[test]
fn a_mail_server_with_starttls_and_auth_that_refuses_hangs_and_is_down() {
    let mut rig = Rig::new();
    let (server, port) = script("mail.py", &rig.certificates, rig.dir.path());
    let mail = |name: &str, password: &str| {
        format!(
            "[[notify]]\nname = \"{name}\"\nkind = \"email\"\nserver = \"localhost:{port}\"\nusername = \"tidegate\"\n\
             password = \"{password}\"\nfrom = \"tidegate <gw@plant.test>\"\nto = [\"Ann <ann@plant.test>\"]\ntimeout = \"3s\"\n\
             retry = \"50ms\"\nattempts = 2\n"
        )
    };
    let other = mail("wrong", "guessed") + "devices = [\"first\"]\n";
    rig.start(&(mail("mail", "mail-s3cret") + &other));
    rig.hot("first");
    rig.until("first", "mail", "sent");
    let mails = rig.lines("mails");
    assert_eq!(mails.len(), 1);
    assert_eq!((&mails[0]["from"], &mails[0]["to"][0]), (&"gw@plant.test".into(), &"ann@plant.test".into()));
    assert_eq!((&mails[0]["tls"], &mails[0]["authenticated"]), (&true.into(), &true.into()));
    let text = mails[0]["text"].as_str().unwrap();
    assert!(text.contains("first, temperature is 31.5") && text.contains("Message-ID:"), "{text}");
    let wrong = rig.until("first", "wrong", "dead");
    assert!(wrong["last_error"].as_str().unwrap().contains("535"), "{wrong}");

    rig.mode("451 4.3.0 later");
    rig.hot("second");
    let dead = rig.until("second", "mail", "dead");
    assert!(dead["attempts"] == 2 && dead["last_error"].as_str().unwrap().contains("451"), "{dead}");
    rig.mode("hang");
    rig.hot("third");
    let dead = rig.until("third", "mail", "dead");
    assert_eq!(dead["attempts"], 2, "{dead}");
    rig.mode("550 5.7.1 no");
    rig.hot("fourth");
    assert_eq!(rig.until("fourth", "mail", "dead")["attempts"], 1, "550 stays 550");
    rig.mode("");
    assert_eq!(
        rig.tidegate.output(&["alerts", "notify", "retry", "--channel", "mail"]).trim(),
        "3 to be sent once more"
    );
    for device in ["second", "third", "fourth"] {
        rig.until(device, "mail", "sent");
    }
    assert_eq!(rig.lines("mails").len(), 4);

    drop(server);
    rig.hot("fifth");
    let dead = rig.until("fifth", "mail", "dead");
    assert_eq!(dead["attempts"], 2, "{dead}");
    let log = rig.tidegate.log();
    assert!(!log.contains("mail-s3cret") && !log.contains("guessed"));
    assert!(rig.tidegate.stop().success());
}

#[test]
fn a_web_server_over_tls_that_answers_500_hangs_and_is_down_and_a_chat() {
    let mut rig = Rig::new();
    let (server, port) = script("hook.py", &rig.certificates, rig.dir.path());
    let common = "timeout = \"2s\"\nretry = \"50ms\"\nattempts = 2\n";
    rig.start(&format!(
        "[[notify]]\nname = \"hook\"\nkind = \"webhook\"\nurl = \"https://localhost:{port}/hook/s3cret-path\"\nsecret = \"k\"\n{common}\
         [[notify]]\nname = \"chat\"\nkind = \"slack\"\nurl = \"https://localhost:{port}/chat/s3cret-path\"\n{common}\
         devices = [\"first\"]\n"
    ));
    rig.hot("first");
    rig.until("first", "hook", "sent");
    rig.until("first", "chat", "sent");
    let told =
        |path: &str| rig.lines("requests").into_iter().find(|one| one["path"].as_str().unwrap().starts_with(path));
    let hook = told("/hook/").unwrap();
    let alert: Value = serde_json::from_str(hook["body"].as_str().unwrap()).unwrap();
    assert_eq!((&alert["device"], &alert["rule"]), (&"first".into(), &"too-hot".into()));
    assert!(hook["headers"]["x-tidegate-signature"].as_str().unwrap().starts_with("sha256="));
    let chat: Value = serde_json::from_str(told("/chat/").unwrap()["body"].as_str().unwrap()).unwrap();
    assert!(
        chat["text"].as_str().unwrap().starts_with("[CRITICAL] firing: too-hot: first, temperature is 31.5"),
        "{chat}"
    );

    for (mode, device, words) in [("500", "second", "500"), ("hang", "third", "no answer within 2s")] {
        rig.mode(mode);
        rig.hot(device);
        let dead = rig.until(device, "hook", "dead");
        assert!(dead["attempts"] == 2 && dead["last_error"].as_str().unwrap().contains(words), "{dead}");
    }
    rig.mode("");
    assert_eq!(rig.tidegate.output(&["alerts", "notify", "retry"]).trim(), "2 to be sent once more");
    rig.until("second", "hook", "sent");
    rig.until("third", "hook", "sent");
    drop(server);
    rig.hot("fourth");
    let dead = rig.until("fourth", "hook", "dead");
    assert!(dead["last_error"].as_str().unwrap().contains("can't connect"), "{dead}");
    assert!(!rig.tidegate.log().contains("s3cret-path"));
    assert!(rig.tidegate.stop().success());
}

#[test]
fn rsyslog_takes_alerts_by_udp_tcp_and_a_local_socket() {
    let mut rig = Rig::new();
    let (udp, tcp) = (free_port(), free_port());
    let (socket, out) = (rig.dir.path().join("sock"), rig.dir.path().join("out"));
    let conf = rig.dir.path().join("rsyslog.conf");
    let template = "%inputname%|%syslogfacility-text%.%syslogseverity-text%|%app-name%|%msg%\\n";
    let text = format!(
        "module(load=\"imudp\")\nmodule(load=\"imtcp\")\nmodule(load=\"imuxsock\" SysSock.Use=\"off\")\n\
         input(type=\"imudp\" address=\"127.0.0.1\" port=\"{udp}\")\ninput(type=\"imtcp\" address=\"127.0.0.1\" port=\"{tcp}\")\n\
         input(type=\"imuxsock\" Socket={socket:?})\ntemplate(name=\"all\" type=\"string\" string=\"{template}\")\n\
         *.* action(type=\"omfile\" file={out:?} template=\"all\")\n"
    );
    std::fs::write(&conf, text).unwrap();
    let pid = rig.dir.path().join("pid");
    let begin = || {
        let _ = std::fs::remove_file(&pid);
        let path = format!("/usr/sbin:{}", std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("rsyslogd");
        command.env("PATH", path).arg("-n").arg("-f").arg(&conf).arg("-i").arg(&pid);
        Server(command.stdout(Stdio::null()).spawn().expect("rsyslogd is installed; scripts/test sees to it"))
    };
    let server = begin();
    eventually("rsyslog listens", || {
        (socket.exists() && std::net::TcpStream::connect(("127.0.0.1", tcp)).is_ok()).then_some(())
    });
    let common = "kind = \"syslog\"\nretry = \"50ms\"\nattempts = 100\n";
    rig.start(&format!(
        "[[notify]]\nname = \"udp\"\naddress = \"udp://127.0.0.1:{udp}\"\n{common}\
         [[notify]]\nname = \"tcp\"\naddress = \"tcp://127.0.0.1:{tcp}\"\n{common}\
         [[notify]]\nname = \"unix\"\naddress = \"unix:{}\"\n{common}",
        socket.display()
    ));
    let said = |input: &str, device: &str| {
        let words = format!("[CRITICAL] firing: too-hot: {device}, temperature is 31.5");
        lines(&out).into_iter().find(|line| line.starts_with(&format!("{input}|")) && line.contains(&words))
    };
    rig.hot("oven");
    for input in ["imudp", "imtcp", "imuxsock"] {
        let line = eventually(input, || said(input, "oven"));
        // By a local socket it expects the older format, and takes the program's name out of that too.
        assert!(line.contains("|daemon.crit|tidegate|"), "{line}");
    }
    drop(server);
    rig.hot("press");
    eventually("it is tried again", || rig.fate("press", "tcp").filter(|row| row["attempts"].as_i64() > Some(1)));
    let _server = begin();
    eventually("by TCP once it is back", || said("imtcp", "press"));
    rig.until("press", "tcp", "sent");
    assert!(rig.tidegate.stop().success());
}

#[test]
fn a_topic_of_the_broker_is_told_once_the_broker_is_back() {
    let mut rig = Rig::new();
    let silent = "slug = \"silent\"\nseverity = \"warning\"\nscope.all = true\nwhen = { absent = \"5s\" }\n";
    rig.tidegate.catalog_file("rules/silent.toml", silent);
    rig.start(
        "[[notify]]\nname = \"topic\"\nkind = \"mqtt\"\ntopic = \"plant/{rule}/{device}\"\nretain = true\ntimeout = \"500ms\"\n\
         retry = \"50ms\"\nattempts = 100\nrules = [\"silent\"]\n",
    );
    rig.hot("oven");
    eventually("it is stored", || (rig.tidegate.metric("tidegate_readings_stored_total") >= 1.0).then_some(()));
    rig.broker.kill();
    // Time alone brings the alert about, and nobody takes it.
    let waiting =
        eventually("it is tried again", || rig.fate("oven", "topic").filter(|row| row["attempts"].as_i64() > Some(1)));
    assert_eq!(waiting["state"], "pending");
    rig.broker.restart();
    rig.until("oven", "topic", "sent");
    let told: Value = serde_json::from_str(&rig.broker.read_one("plant/silent/oven").unwrap()).unwrap();
    assert_eq!((&told["device"], &told["rule"]), (&"oven".into(), &"silent".into()));
    assert!(rig.tidegate.stop().success());
}
