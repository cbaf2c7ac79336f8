//! Alerts on their way out: MQTT's properties and summary, what people ask by MQTT, and the channels of `[[notify]]` against real
//! servers and programs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
#[cfg(feature = "embedded-broker")]
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use ring::hmac;
use serde_json::Value;

use crate::support::certificates::Certificates;
#[cfg(feature = "embedded-broker")]
use crate::support::daemon::lasting_port;
use crate::support::daemon::{NATIVE, Tidegate, between, eventually};
use crate::support::mosquitto::Mosquitto;
use crate::support::stranger::{SQLITE, Stranger};

const HOT: &str = r#"
slug = "too-hot"
name = "Too hot"
severity = "critical"
[scope]
all = true
[when]
metric = "temperature"
gt = 30.0
"#;

fn configured(broker: &Mosquitto, more: &str) -> Tidegate {
    let toml = between(&format!("mqtt://127.0.0.1:{}", broker.port), SQLITE) + NATIVE + more;
    let tidegate = Tidegate::configured(&toml);
    tidegate.catalog_file("rules/hot.toml", HOT);
    tidegate
}

fn watching(broker: &Mosquitto, more: &str) -> Tidegate {
    let mut tidegate = configured(broker, more);
    tidegate.start();
    tidegate.listening();
    eventually("the database is open", || tidegate.said("database open"));
    tidegate
}

fn send(broker: &Mosquitto, device: &str, temperature: f64) {
    let payload = format!("{{\"temperature\": {temperature}}}");
    broker.publish(&format!("devices/{device}/telemetry"), &payload, &["-q", "1"]);
}

/// A request as an HTTP server has it.
struct Request {
    head: String,
    body: Vec<u8>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// A server that answers with these status codes in turn, the last for ever; 0: it hangs.
fn server(codes: &'static [u16]) -> (u16, Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, requests) = channel();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for (number, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let request = read_request(&mut stream);
            let code = codes.get(number).or(codes.last()).copied().unwrap_or(200);
            if code == 0 {
                held.push(stream);
            } else {
                let _ = write!(stream, "HTTP/1.1 {code} said so\r\nContent-Length: 2\r\n\r\nok");
            }
            if sender.send(request).is_err() {
                return;
            }
        }
    });
    (port, requests)
}

fn read_request(stream: &mut impl Read) -> Request {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while reader.read_line(&mut head).unwrap() > 2 {}
    let mut request = Request { head, body: Vec::new() };
    let length = request.header("content-length").unwrap().parse().unwrap();
    request.body.resize(length, 0);
    reader.read_exact(&mut request.body).unwrap();
    request
}

/// A server over TLS that takes everything.
fn tls_server(certificates: &Certificates) -> (u16, Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = Arc::clone(certificates.acceptor().config());
    let (sender, requests) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, stream.unwrap());
            // One that does not trust it says so, and goes.
            while stream.conn.is_handshaking() && stream.conn.complete_io(&mut stream.sock).is_ok() {}
            if stream.conn.is_handshaking() {
                continue;
            }
            let request = read_request(&mut stream);
            let _ = write!(stream, "HTTP/1.1 204 No Content\r\n\r\n");
            if sender.send(request).is_err() {
                return;
            }
        }
    });
    (port, requests)
}

fn next(requests: &Receiver<Request>) -> Request {
    requests.recv_timeout(Duration::from_secs(60)).expect("a request comes")
}

#[test]
fn a_signed_webhook_is_tried_again_until_the_server_takes_it() {
    let broker = Mosquitto::plain();
    let (port, requests) = server(&[500, 503, 200]);
    let table = format!(
        "[[notify]]\nname = \"hook\"\nkind = \"webhook\"\nurl = \"http://127.0.0.1:{port}/a?token=hidden\"\nsecret = \"s3cret\"\n\
         retry = \"50ms\"\n"
    );
    let mut tidegate = watching(&broker, &table);
    send(&broker, "oven", 31.5);
    let tries = [next(&requests), next(&requests), next(&requests)];
    assert!(tries[0].head.starts_with("POST /a?token=hidden HTTP/1.1\r\n"), "{}", tries[0].head);
    let alert = tries[2].json();
    assert_eq!((&alert["device"], &alert["state"], &alert["value"]), (&"oven".into(), &"firing".into(), &31.5.into()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"s3cret");
    for request in &tries {
        assert_eq!(request.body, tries[0].body);
        let tag = hmac::sign(&key, &request.body);
        let digits: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(request.header("x-tidegate-signature"), Some(&*format!("sha256={digits}")));
        let delivery = format!("{}/0", alert["id"].as_str().unwrap());
        assert_eq!(request.header("x-tidegate-delivery"), Some(&*delivery));
        assert_eq!(request.header("content-type"), Some("application/json"));
    }
    let list = || tidegate.json(&["alerts", "notify", "list"]);
    let sent = eventually("it is recorded", || Some(list()).filter(|rows| rows[0]["state"] == "sent"));
    assert_eq!((&sent[0]["attempts"], &sent[0]["channel"]), (&3.into(), &"hook".into()));
    assert_eq!(sent.as_array().unwrap().len(), 1);
    let failures = tidegate.told("a notification failed", "error");
    assert!(failures.len() == 2 && failures[0].contains("500") && failures[1].contains("503"), "{failures:?}");
    assert!(!tidegate.log().contains("hidden") && !tidegate.log().contains("s3cret"));
    assert!(tidegate.stop().success());
}

#[test]
fn a_webhook_that_hangs_is_given_up_and_sent_when_somebody_asks() {
    let broker = Mosquitto::plain();
    let (port, requests) = server(&[0, 0, 200]);
    let tables = format!(
        "[[notify]]\nname = \"slow\"\nkind = \"slack\"\nurl = \"http://127.0.0.1:{port}/\"\ntimeout = \"300ms\"\nretry = \"20ms\"\n\
         attempts = 2\nbody = \"{{device}} is {{severity}}\"\n\
         [[notify]]\nname = \"never\"\nkind = \"webhook\"\nurl = \"http://127.0.0.1:1/\"\nattempts = 1\nrules = [\"another\"]\n"
    );
    let mut tidegate = watching(&broker, &tables);
    send(&broker, "oven", 31.5);
    let list = |state: &str| tidegate.json(&["alerts", "notify", "list", "--state", state]);
    let dead = eventually("it is dead", || Some(list("dead")).filter(|rows| rows[0].is_object()));
    assert_eq!((&dead[0]["attempts"], &dead[0]["channel"]), (&2.into(), &"slow".into()));
    assert!(dead[0]["last_error"].as_str().unwrap().contains("300ms"), "{dead}");
    for _ in 0..2 {
        assert_eq!(next(&requests).json()["text"], "oven is critical");
    }
    assert_eq!(tidegate.output(&["alerts", "notify", "retry", "--channel", "slow"]).trim(), "1 to be sent once more");
    eventually("it is sent", || Some(list("sent")).filter(|rows| rows[0].is_object()));
    assert_eq!(next(&requests).json()["text"], "oven is critical");
    assert_eq!(tidegate.output(&["alerts", "notify", "retry"]).trim(), "0 to be sent once more");
    assert!(tidegate.stop().success());
}

#[test]
fn a_server_over_tls_is_told_only_where_the_systems_authorities_vouch_for_it() {
    let broker = Mosquitto::plain();
    let dir = tempfile::tempdir().unwrap();
    let certificates = Certificates::make(dir.path());
    let (port, requests) = tls_server(&certificates);
    let table = format!(
        "[[notify]]\nname = \"hook\"\nkind = \"webhook\"\nurl = \"https://localhost:{port}/\"\nretry = \"100ms\"\nattempts = 100\n"
    );
    let mut tidegate = configured(&broker, &table);
    let trust = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    tidegate.start_with(&[("SSL_CERT_FILE", &trust(&certificates.stranger))]);
    tidegate.listening();
    eventually("the database is open", || tidegate.said("database open"));
    send(&broker, "oven", 31.5);
    eventually("it is not trusted", || {
        let failures = tidegate.told("a notification failed", "error");
        failures.first().filter(|error| error.contains("TLS") && error.contains("certificate")).cloned()
    });
    tidegate.kill();
    tidegate.start_with(&[("SSL_CERT_FILE", &trust(&certificates.ca))]);
    assert_eq!(next(&requests).json()["device"], "oven");
    eventually("it is recorded", || {
        Some(tidegate.json(&["alerts", "notify", "list"])).filter(|rows| rows[0]["state"] == "sent")
    });
    assert!(tidegate.stop().success());
}

#[test]
fn a_program_a_topic_and_a_lasting_refusal_by_their_routes_over_a_kill() {
    let broker = Mosquitto::plain();
    let (port, requests) = server(&[404]);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let tables = format!(
        "[[notify]]\nname = \"program\"\nkind = \"command\"\nprogram = [\"/bin/sh\", \"-c\", \"test -e {0}.open && cat >> {0}\"]\n\
         retry = \"200ms\"\nattempts = 100\n\
         [[notify]]\nname = \"topic\"\nkind = \"mqtt\"\ntopic = \"plant/alarms/{{device}}\"\nretain = true\nleast = \"critical\"\n\
         [[notify]]\nname = \"gone\"\nkind = \"webhook\"\nurl = \"http://127.0.0.1:{port}/\"\nstates = [\"firing\"]\n\
         [[notify]]\nname = \"info\"\nkind = \"command\"\nprogram = [\"/bin/false\"]\nseverities = [\"info\"]\n",
        out.display()
    );
    let mut tidegate = watching(&broker, &tables);
    send(&broker, "press", 40.0);
    next(&requests);
    let row = |tidegate: &Tidegate, channel: &str| {
        tidegate.json(&["alerts", "notify", "list", "--channel", channel])[0].clone()
    };
    let gone = eventually("given up", || Some(row(&tidegate, "gone")).filter(|row| row["state"] == "dead"));
    assert_eq!(gone["attempts"], 1, "404 stays 404");
    eventually("by the topic", || Some(row(&tidegate, "topic")).filter(|row| row["state"] == "sent"));
    let told: Value = serde_json::from_str(&broker.read_one("plant/alarms/press").unwrap()).unwrap();
    assert_eq!(told["rule"], "too-hot");
    eventually("the program has failed", || {
        let row = row(&tidegate, "program");
        (row["state"] == "pending" && row["attempts"].as_i64()? > 1).then_some(())
    });
    tidegate.kill();
    std::fs::write(out.with_extension("open"), "").unwrap();
    tidegate.start();
    eventually("the next start goes on", || Some(row(&tidegate, "program")).filter(|row| row["state"] == "sent"));
    let alert: Value = serde_json::from_str(&std::fs::read_to_string(&out).unwrap()).expect("one alert, once");
    assert_eq!(alert["device"], "press");
    assert_eq!(row(&tidegate, "info"), Value::Null);
    assert!(tidegate.stop().success());
}

#[test]
fn notifications_go_out_while_the_database_is_away_and_are_recorded_later() {
    let broker = Mosquitto::plain();
    let (port, requests) = server(&[200]);
    let table = format!("[[notify]]\nname = \"hook\"\nkind = \"webhook\"\nurl = \"http://127.0.0.1:{port}/\"\n");
    let mut tidegate = watching(&broker, &table);
    let stranger = Stranger::of_file(&tidegate);
    send(&broker, "oven", 20.0);
    stranger.wait_for_rows(1);
    let lock = crate::support::scene::lock(&tidegate.state_dir().join("tidegate.db"));
    send(&broker, "oven", 31.5);
    assert_eq!(next(&requests).json()["device"], "oven");
    drop(lock);
    eventually("it is recorded", || {
        (stranger.number("SELECT count(*) FROM alert_notifications WHERE state = 'sent'") == 1).then_some(())
    });
    assert!(tidegate.stop().success());
}

/// The retained message of a topic, or the next: user properties and payload.
#[cfg(feature = "embedded-broker")]
fn read(port: u16, topic: &str) -> (String, String) {
    let output = Command::new("mosquitto_sub")
        .args(["-V", "5", "-p", &port.to_string(), "-t", topic, "-q", "1", "-C", "1", "-W", "20", "-F", "%P|%p"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (properties, payload) = text.trim().split_once('|').unwrap_or_else(|| panic!("nothing on {topic}"));
    (properties.to_owned(), payload.to_owned())
}

#[cfg(feature = "embedded-broker")]
fn publish(port: u16, topic: &str, payload: &str) {
    let arguments = ["-p", &port.to_string(), "-t", topic, "-q", "1", "-m", payload];
    assert!(Command::new("mosquitto_pub").args(arguments).status().unwrap().success());
}

#[cfg(feature = "embedded-broker")]
#[test]
fn an_embedded_broker_keeps_alerts_and_their_number_and_has_them_again_after_a_kill() {
    let port = lasting_port();
    let toml = between(&format!("embedded://127.0.0.1:{port}"), SQLITE) + NATIVE;
    let mut tidegate = Tidegate::configured(&toml);
    tidegate.catalog_file("rules/hot.toml", HOT);
    tidegate.start();
    eventually("the database is open", || tidegate.said("database open"));
    publish(port, "devices/a/telemetry", r#"{"temperature": 40}"#);
    publish(port, "devices/b/telemetry", r#"{"temperature": 41}"#);
    let alert = "tidegate/alerts/default/a/too-hot";
    let both = r#"{"info":0,"warning":0,"critical":2}"#;
    let number = || read(port, "tidegate/alerts/default/summary").1;
    eventually("both are counted", || (number() == both).then_some(()));
    let (properties, payload) = read(port, alert);
    for property in ["severity:critical", "state:firing", "rule:too-hot", "tenant:default"] {
        assert!(properties.contains(property), "{property}: {properties}");
    }
    let stranger = Stranger::of_file(&tidegate);
    eventually("it is marked", || {
        (stranger.number("SELECT count(*) FROM alert_transitions WHERE published") == 2).then_some(())
    });
    tidegate.kill();
    tidegate.start();
    assert_eq!(read(port, alert).1, payload);
    eventually("both are counted again", || (number() == both).then_some(()));

    let id = serde_json::from_str::<Value>(&payload).unwrap()["id"].as_str().unwrap().to_owned();
    publish(port, &format!("tidegate/alerts/default/{id}/ack"), r#"{"who": "ann"}"#);
    eventually("it is acknowledged", || read(port, alert).0.contains("state:acknowledged").then_some(()));
    publish(port, "devices/a/telemetry", r#"{"temperature": 10}"#);
    eventually("one is left", || (number() == r#"{"info":0,"warning":0,"critical":1}"#).then_some(()));
    // What is retained now is the other one only.
    assert!(read(port, "tidegate/alerts/default/+/too-hot").1.contains(r#""device":"b""#));
    assert!(tidegate.stop().success());
}
