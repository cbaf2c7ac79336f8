//! The HTTP API as its documentation has it: over a socket, on both databases, and against those who may not.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::daemon::{NATIVE, PATIENCE, Tidegate, between, complaint, eventually};
use crate::support::mosquitto::Mosquitto;
use crate::support::postgres::Postgres;
use crate::support::stranger::{SQLITE, Stranger};

const RULE: &str = "slug = \"too-hot\"\nseverity = \"critical\"\nscope.all = true\nrunbook = \"https://wiki.example/hot\"\nlabels = { team = \"ovens\" }\nwhen = { metric = \"temperature\", gt = 30.0 }\n";
const JSON: &str = "Content-Type: application/json";

/// What is asked, as it goes over the wire.
pub struct Ask<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub headers: &'a [&'a str],
    pub body: &'a str,
}

/// Status and body; a body that is no JSON is a text.
pub fn ask(address: SocketAddr, ask: &Ask<'_>) -> (u16, Value) {
    let (head, body) = answer_of(address, ask);
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(&body).unwrap_or_else(|_| json!(body)))
}

/// The answer's status line and headers.
pub fn head_of(address: SocketAddr, ask: &Ask<'_>) -> String {
    answer_of(address, ask).0
}

fn answer_of(address: SocketAddr, ask: &Ask<'_>) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let Ask { method, path, headers, body } = ask;
    let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    if !headers.iter().any(|header| header.starts_with("Host:")) {
        head.push_str(&format!("Host: {address}\r\n"));
    }
    headers.iter().for_each(|header| head.push_str(&format!("{header}\r\n")));
    // One that is refused by its head may be answered before its body is read.
    let _ = stream.write_all(format!("{head}\r\n{body}").as_bytes());
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    let (head, body) =
        answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer to {method} {path}: {answer}"));
    (head.to_owned(), body.to_owned())
}

fn get(tidegate: &Tidegate, path: &str) -> (u16, Value) {
    ask(tidegate.address("http"), &Ask { method: "GET", path, headers: &[], body: "" })
}

fn post(tidegate: &Tidegate, path: &str, body: &str) -> (u16, Value) {
    ask(tidegate.address("http"), &Ask { method: "POST", path, headers: &[JSON], body })
}

/// What a good answer is.
fn ok((status, body): (u16, Value)) -> Value {
    assert_eq!(status, 200, "{body}");
    body
}

/// Status, `error` and `field` of a refusal.
fn refused((status, body): (u16, Value)) -> (u16, String, String) {
    assert!(body["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
    let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
    (status, text("error"), text("field"))
}

fn told(status: u16, error: &str, field: &str) -> (u16, String, String) {
    (status, error.to_owned(), field.to_owned())
}

struct Scene {
    broker: Mosquitto,
    tidegate: Tidegate,
    stranger: Stranger,
}

impl Scene {
    fn start(database: &str, stranger: impl FnOnce(&Tidegate) -> Stranger, http: &str) -> Scene {
        let broker = Mosquitto::plain();
        let toml = between(&format!("mqtt://127.0.0.1:{}", broker.port), database) + NATIVE;
        let mut tidegate = Tidegate::configured(&toml.replace("[http]\n", &format!("[http]\n{http}\n")));
        tidegate.catalog_file("rules/too-hot.toml", RULE);
        tidegate.start();
        tidegate.listening();
        eventually("the database is open", || (tidegate.readyz().1["database"] == "up").then_some(()));
        let stranger = stranger(&tidegate);
        Scene { broker, tidegate, stranger }
    }

    fn on_sqlite(http: &str) -> Scene {
        Scene::start(SQLITE, Stranger::of_file, http)
    }

    fn send(&self, device: &str, payload: &str) {
        self.broker.publish(&format!("devices/{device}/telemetry"), payload, &["-q", "1"]);
    }

    /// Raises an alert on a device; its id.
    fn raise(&self, device: &str) -> String {
        self.send(device, r#"{"temperature": 31.5}"#);
        eventually("the alert is recorded", || {
            let alerts = ok(get(&self.tidegate, &format!("/api/v1/alerts?device={device}")));
            alerts["alerts"][0]["id"].as_str().map(str::to_owned)
        })
    }
}

fn on_both(check: impl Fn(&Scene)) {
    check(&Scene::on_sqlite(""));
    let (stranger, url) = Stranger::on_shared_server();
    check(&Scene::start(&url, |_| stranger, ""));
}

#[test]
fn alerts_are_listed_page_by_page_and_their_story_is_told() {
    on_both(|scene| {
        let ids: Vec<String> = (0..5).map(|n| scene.raise(&format!("oven-{n}"))).collect();
        scene.send("oven-0", r#"{"temperature": 20}"#);
        eventually("one is over", || {
            let over = ok(get(&scene.tidegate, "/api/v1/alerts?state=resolved"));
            (over["alerts"][0]["id"] == ids[0].as_str()).then_some(())
        });
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = ok(get(&scene.tidegate, &format!("/api/v1/alerts?state=all&limit=2{cursor}")));
            let of_page = page["alerts"].as_array().unwrap();
            assert!((1..=2).contains(&of_page.len()), "{page}");
            seen.extend(of_page.iter().map(|alert| alert["id"].as_str().unwrap().to_owned()));
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        let newest_first: Vec<String> = ids.iter().rev().cloned().collect();
        assert_eq!(seen, newest_first);
        let count = |query: &str| {
            ok(get(&scene.tidegate, &format!("/api/v1/alerts?{query}")))["alerts"].as_array().unwrap().len()
        };
        assert_eq!((count(""), count("state=firing"), count("state=acknowledged")), (4, 4, 0));
        assert_eq!((count("since=1h"), count("since=2100-01-01T00:00:00Z")), (4, 0));
        assert_eq!((count("severity=critical&rule=too-hot&tenant=default"), count("severity=info")), (4, 0));
        let story = eventually("both steps are published", || {
            let story = ok(get(&scene.tidegate, &format!("/api/v1/alerts/{}", ids[0])));
            story["steps"].as_array().unwrap().iter().all(|step| step["published"] == true).then_some(story)
        });
        assert_eq!(
            (&story["labels"], &story["runbook"]),
            (&json!({"team": "ovens"}), &json!("https://wiki.example/hot"))
        );
        assert!(scene.tidegate.output(&["alerts", "show", &ids[0]]).contains("team = ovens"));
        let states: Vec<_> = story["steps"].as_array().unwrap().iter().map(|step| &step["state"]).collect();
        assert_eq!(states, ["firing", "resolved"], "{story}");
        assert_eq!(story, scene.tidegate.json(&["alerts", "show", &ids[0]]), "as the command has it");
    });
}

#[test]
fn what_is_asked_of_an_alert_goes_through_the_journal_and_is_told_with_who_asked() {
    on_both(|scene| {
        let id = scene.raise("oven");
        let path = |verb: &str| format!("/api/v1/alerts/{}/{verb}", &id[..8]);
        let acknowledged = ok(post(&scene.tidegate, &path("ack"), r#"{"who": "ann", "note": "on my way"}"#));
        assert_eq!((&acknowledged["state"], &acknowledged["acknowledged_by"]), (&json!("acknowledged"), &json!("ann")));
        let again = post(&scene.tidegate, &path("ack"), "{}");
        assert!(again.1["message"].as_str().unwrap().contains("acknowledged already, by ann"), "{again:?}");
        assert_eq!(refused(again), told(409, "conflict", ""));
        ok(post(&scene.tidegate, &path("note"), r#"{"note": "it is the fan"}"#));
        let topic = "tidegate/alerts/default/oven/too-hot";
        eventually("the daemon says it", || {
            scene.broker.read_one(topic).filter(|payload| payload.contains("acknowledged")).map(drop)
        });
        let snoozed = ok(post(&scene.tidegate, &path("snooze"), r#"{"for": "2h"}"#));
        assert!(snoozed["snoozed_until"].is_string(), "{snoozed}");
        assert_eq!(ok(post(&scene.tidegate, &path("resolve"), ""))["state"], "resolved");
        assert_eq!(refused(post(&scene.tidegate, &path("resolve"), "")), told(409, "conflict", ""));
        eventually("the daemon has taken all of it", || {
            let story = ok(get(&scene.tidegate, &format!("/api/v1/alerts/{id}")));
            (story["waiting"] == 0).then_some(())
        });
        eventually("and ended it itself", || {
            let asked = "SELECT count(*) FROM alert_transitions WHERE asked = true";
            (scene.stranger.number(asked) == 0).then_some(())
        });
        let story = ok(get(&scene.tidegate, &format!("/api/v1/alerts/{id}")));
        let steps = story["steps"].as_array().unwrap();
        let told: Vec<_> = steps.iter().map(|step| (step["who"].as_str(), step["why"].as_str().unwrap())).collect();
        let me = Some("http 127.0.0.1");
        assert_eq!(
            told[1..],
            [(Some("ann"), "on my way"), (me, "it is the fan"), (me, "snoozed"), (me, "resolved by hand")]
        );
        assert!(scene.tidegate.said("asked of an alert over HTTP").is_some_and(|event| event["who"] == "ann"));
    });
}

#[test]
fn devices_and_readings_are_shown_page_by_page() {
    on_both(|scene| {
        for n in 0..3 {
            scene.send(
                "a%2Fb",
                &format!(
                    "[{{\"ts\": {}, \"values\": {{\"t\": {n}, \"h\": {n}, \"mode\": \"m{n}\"}}}}]",
                    1_700_000_000 + n
                ),
            );
            scene.send(&format!("d{n}"), r#"{"t": 1}"#);
        }
        scene.stranger.wait_for_rows(12);
        let page = ok(get(&scene.tidegate, "/api/v1/devices?limit=3"));
        let uids = |page: &Value| -> Vec<String> {
            page["devices"].as_array().unwrap().iter().map(|one| one["device"].as_str().unwrap().to_owned()).collect()
        };
        let rest = ok(get(&scene.tidegate, &format!("/api/v1/devices?cursor={}", page["next"].as_str().unwrap())));
        assert_eq!((uids(&page), uids(&rest)), (vec!["a%2Fb".into(), "d0".into(), "d1".into()], vec!["d2".into()]));
        assert_eq!(rest["next"], Value::Null);
        // The uid has a percent sign.
        let device = "/api/v1/devices/default/a%252Fb";
        let mut shown = scene.tidegate.json(&["devices", "show", "a%2Fb"])[0].take();
        shown.as_object_mut().unwrap().remove("history");
        assert_eq!(ok(get(&scene.tidegate, device)), shown);
        let latest = eventually("the last values", || {
            let latest = ok(get(&scene.tidegate, &format!("{device}/latest")));
            (latest["latest"].as_array().unwrap().len() == 3).then_some(latest)
        });
        assert_eq!(latest["latest"][0]["value"], 2.0, "{latest}");
        assert_eq!((&latest["latest"][1]["text_value"], &latest["latest"][1]["value"]), (&json!("m2"), &Value::Null));

        let mut seen = Vec::new();
        let mut to = String::new();
        loop {
            let page = ok(get(&scene.tidegate, &format!("/api/v1/readings?device=a%252Fb&limit=4{to}")));
            let rows = page["readings"].as_array().unwrap();
            seen.splice(
                0..0,
                rows.iter().map(|row| (row["time"].to_string(), row["metric"].as_str().unwrap().to_owned())),
            );
            match page["earlier"].as_str() {
                Some(earlier) => to = format!("&to={earlier}"),
                None => break,
            }
        }
        assert_eq!(seen.len(), 9, "{seen:?}");
        assert!(seen.is_sorted(), "{seen:?}");
        let some = ok(get(
            &scene.tidegate,
            "/api/v1/readings?device=a%252Fb&metric=t&from=1700000001&to=2023-11-14T22:13:22Z",
        ));
        assert_eq!((some["readings"].as_array().unwrap().len(), &some["readings"][0]["value"]), (1, &json!(1.0)));
        for (path, wanted) in [
            ("/api/v1/readings?metric=t", told(400, "bad_parameter", "device")),
            ("/api/v1/readings?device=nobody", told(404, "not_found", "device")),
            ("/api/v1/readings?device=d0&tenant=other", told(404, "not_found", "device")),
            ("/api/v1/readings?device=d0&metric=q", told(404, "not_found", "metric")),
            ("/api/v1/readings?device=d0&from=1h&to=2h", told(400, "bad_parameter", "to")),
            ("/api/v1/readings?device=d0&limit=10001", told(400, "bad_parameter", "limit")),
            ("/api/v1/devices/default/nobody/latest", told(404, "not_found", "device")),
            ("/api/v1/devices/%00/x", told(404, "not_found", "device")),
            ("/api/v1/devices?cursor=x", told(400, "bad_parameter", "cursor")),
            ("/api/v1/devices?device=%00", told(400, "bad_parameter", "device")),
        ] {
            assert_eq!(refused(get(&scene.tidegate, path)), wanted, "{path}");
        }
    });
}

#[test]
fn every_example_of_the_documentation_does_what_it_says() {
    let scene = Scene::on_sqlite("");
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api.md")).unwrap();
    let id = scene.raise("fridge-7");
    let mut answers: Vec<Value> = Vec::new();
    let (mut ran, mut held) = (0, 0);
    for block in page.split("```").skip(1).step_by(2) {
        let Some((language, text)) = block.split_once('\n') else { continue };
        match language {
            "sh" => {
                answers.clear();
                for line in text.lines() {
                    let line = line.replace("127.0.0.1:9108", &scene.tidegate.address("http").to_string());
                    let output = Command::new("sh").args(["-c", &line.replace("3f0a91", &id[..6])]).output().unwrap();
                    assert!(output.status.success(), "{line}: {}", complaint(&output));
                    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
                    assert_eq!(answer.get("error").is_some(), line.contains("?stat="), "{line}: {answer}");
                    answers.push(answer);
                    ran += 1;
                }
            }
            // The answer to the block above it, and of the same form.
            "json" => {
                let shown: Value = serde_json::from_str(text).unwrap();
                let form = form(&shown);
                assert!(answers.iter().any(|answer| self::form(answer) == form), "{shown}\n{answers:?}");
                held += 1;
            }
            _ => {}
        }
    }
    assert!(ran >= 11 && held >= 4, "{ran} {held}");
}

/// A value with nothing but its keys.
fn form(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), form(value))).collect(),
        Value::Array(items) => items.first().map_or(json!([]), |first| json!([form(first)])),
        _ => Value::Null,
    }
}

#[test]
fn bad_requests_are_told_what_is_wrong_and_cost_only_themselves() {
    let scene = Scene::on_sqlite("");
    let id = scene.raise("oven");
    let path = |verb: &str| format!("/api/v1/alerts/{id}/{verb}");
    for (body, verb, wanted) in [
        ("now", "ack", told(400, "bad_body", "")),
        (r#"{"by": "ann"}"#, "ack", told(400, "bad_body", "")),
        ("", "note", told(400, "bad_body", "note")),
        ("", "snooze", told(400, "bad_body", "for")),
        (r#"{"for": "soon"}"#, "snooze", told(400, "bad_body", "for")),
        ("", "explode", told(404, "no_such_path", "")),
        (&" ".repeat(20_000), "ack", told(413, "too_large", "")),
    ] {
        assert_eq!(refused(post(&scene.tidegate, &path(verb), body)), wanted, "{verb} {body:.30}");
    }
    for (given, wanted) in [
        ("/api/v1/alerts?state=burning", told(400, "bad_parameter", "state")),
        ("/api/v1/alerts?limit=0", told(400, "bad_parameter", "limit")),
        ("/api/v1/alerts?since=yesterday", told(400, "bad_parameter", "since")),
        ("/api/v1/alerts?stat=all", told(400, "bad_parameter", "stat")),
        ("/api/v1/alerts?state=all&state=all", told(400, "bad_parameter", "state")),
        ("/api/v1/alerts?cursor=YQBi", told(400, "bad_parameter", "cursor")),
        ("/api/v1/alerts/zz", told(400, "bad_request", "")),
        ("/api/v1/alerts/0123456789abcdef", told(404, "not_found", "id")),
        ("/api/v1/alerts/%ff", told(404, "no_such_path", "")),
        ("/api/v1/nothing", told(404, "no_such_path", "")),
        (&path("ack"), told(405, "method_not_allowed", "")),
    ] {
        assert_eq!(refused(get(&scene.tidegate, given)), wanted, "{given}");
    }
    let address = scene.tidegate.address("http");
    let try_to = |headers: &[&str]| ask(address, &Ask { method: "POST", path: &path("ack"), headers, body: "" });
    assert_eq!(refused(try_to(&[])), told(415, "unsupported_media_type", "Content-Type"));
    assert_eq!(refused(try_to(&["Content-Type: text/plain"])), told(415, "unsupported_media_type", "Content-Type"));
    assert_eq!(refused(try_to(&[JSON, "Origin: http://evil.example"])), told(403, "forbidden", "Origin"));
    assert_eq!(refused(try_to(&[JSON, "Sec-Fetch-Site: cross-site"])), told(403, "forbidden", "Sec-Fetch-Site"));
    assert_eq!(refused(try_to(&[JSON, "Host: evil.example"])), told(403, "forbidden", "Host"));
    // What is no HTTP is cut off.
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"\x16\x03\x01\x00\xa5\x01\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
    assert_eq!(ok(get(&scene.tidegate, &format!("/api/v1/alerts/{id}")))["state"], "firing");
    assert!(scene.tidegate.metric("tidegate_http_api_refused_total{reason=\"forbidden\"}") >= 3.0);
    assert_eq!(scene.tidegate.readyz().0, 200);
}

#[test]
fn with_a_token_only_whoever_bears_it_is_let_in_and_the_probes_are_as_they_were() {
    let token = "s3cret-s3cret-s3cret";
    let scene = Scene::on_sqlite(&format!("token = \"{token}\""));
    let address = scene.tidegate.address("http");
    let get = |headers: &[&str]| ask(address, &Ask { method: "GET", path: "/api/v1/alerts", headers, body: "" });
    let bearer = format!("Authorization: Bearer {token}");
    assert_eq!(ok(get(&[&bearer]))["alerts"], json!([]));
    // By whatever name.
    assert_eq!(ok(get(&[&bearer, "Host: bridge.example"]))["alerts"], json!([]));
    for headers in [&[][..], &["Authorization: Bearer s3cret-s3cret-s3creT"], &["Authorization: Basic eDp5"]] {
        assert_eq!(refused(get(headers)), told(401, "unauthorized", ""), "{headers:?}");
    }
    let post = Ask { method: "POST", path: "/api/v1/alerts/abcd/ack", headers: &[JSON], body: "" };
    assert_eq!(refused(ask(address, &post)), told(401, "unauthorized", ""));
    assert_eq!(scene.tidegate.readyz().0, 200);
    assert_eq!(scene.tidegate.metric("tidegate_http_api_refused_total{reason=\"unauthorized\"}"), 4.0);
    assert!(!scene.tidegate.log().contains(token));
}

#[test]
fn without_a_token_it_is_off_where_the_network_can_reach_it() {
    let broker = Mosquitto::plain();
    let toml = between(&format!("mqtt://127.0.0.1:{}", broker.port), SQLITE) + NATIVE;
    let mut tidegate = Tidegate::configured(&toml.replace("listen = \"127.0.0.1:0\"", "listen = \"0.0.0.0:0\""));
    tidegate.start();
    assert_eq!(refused(get(&tidegate, "/api/v1/alerts")), told(403, "off", ""));
    assert_eq!(refused(post(&tidegate, "/api/v1/alerts/abcd/ack", "")), told(403, "off", ""));
    assert!(tidegate.said("the HTTP API is off").is_some());
    tidegate.listening();
}

#[test]
fn without_the_database_it_says_so_and_goes_on_when_it_is_back() {
    let server = Postgres::start(false);
    let url = server.url("postgres");
    let stranger = Stranger::Postgres(url.clone(), None);
    let scene = Scene::start(&url, |_| stranger, "");
    let id = scene.raise("oven");
    server.stop();
    for path in ["/api/v1/alerts", "/api/v1/devices/default/oven/latest", "/api/v1/readings?device=oven"] {
        assert_eq!(refused(get(&scene.tidegate, path)), told(503, "database_down", ""), "{path}");
    }
    let acknowledge = format!("/api/v1/alerts/{id}/ack");
    assert_eq!(refused(post(&scene.tidegate, &acknowledge, "")), told(503, "database_down", ""));
    assert_eq!(scene.tidegate.readyz().0, 200);
    server.restart();
    let alert = eventually("it answers again", || {
        let (status, alert) = post(&scene.tidegate, &acknowledge, "");
        (status == 200).then_some(alert)
    });
    assert_eq!(alert["state"], "acknowledged");
}

#[test]
fn a_lock_on_the_database_holds_up_a_request_and_not_the_probes() {
    let scene = Scene::on_sqlite("");
    let id = scene.raise("oven");
    let lock = crate::support::scene::lock(&scene.tidegate.state_dir().join("tidegate.db"));
    let waiting = {
        let (address, path) = (scene.tidegate.address("http"), format!("/api/v1/alerts/{id}/ack"));
        std::thread::spawn(move || ask(address, &Ask { method: "POST", path: &path, headers: &[JSON], body: "" }))
    };
    assert_eq!(scene.tidegate.readyz().0, 200);
    assert_eq!(ok(get(&scene.tidegate, &format!("/api/v1/alerts/{id}")))["state"], "firing");
    assert_eq!(refused(waiting.join().unwrap()), told(503, "database_down", ""));
    drop(lock);
    assert_eq!(ok(post(&scene.tidegate, &format!("/api/v1/alerts/{id}/ack"), ""))["state"], "acknowledged");
}

#[test]
fn commands_are_asked_for_shown_and_taken_back() {
    let broker = Mosquitto::plain();
    let toml = between(&format!("mqtt://127.0.0.1:{}", broker.port), SQLITE) + NATIVE;
    let mut tidegate = Tidegate::configured(&toml);
    let template = "slug = \"lamp\"\nname = \"L\"\n[[command]]\nname = \"dim\"\n\
                    parameters = { properties = { level = { maximum = 100 } } }\n";
    tidegate.catalog_file("templates/lamp.toml", template);
    tidegate.catalog_file("devices/lamp.toml", "[[device]]\nuid = \"lamp-1\"\ntemplate = \"lamp\"\n");
    tidegate.start();
    tidegate.listening();
    eventually("the database is open", || tidegate.said("database open"));
    let path = "/api/v1/devices/default/lamp-1/commands";
    let asked = ok(post(&tidegate, path, r#"{"name":"dim","params":{"level":4},"id":"by-http","who":"ann"}"#));
    assert_eq!(
        (&asked["id"], &asked["via"], &asked["who"]),
        (&json!("by-http"), &json!("http"), &json!("ann")),
        "{asked}"
    );
    for (body, status) in [
        (r#"{"name":"dim","params":{"level":400}}"#, 400),
        (r#"{"name":"fly"}"#, 400),
        (r#"{"params":{}}"#, 400),
        ("dim", 400),
        (r#"{"name":"dim","id":"by-http"}"#, 409),
    ] {
        let (said, answer) = post(&tidegate, path, body);
        assert_eq!(said, status, "{body}: {answer}");
    }
    assert_eq!(post(&tidegate, "/api/v1/devices/default/nobody/commands", r#"{"name":"dim"}"#).0, 400);
    let open = ok(get(&tidegate, "/api/v1/devices/default/lamp-1/commands?state=open"));
    assert_eq!(open["commands"].as_array().unwrap().len(), 1, "{open}");
    let cancelled = ok(post(&tidegate, "/api/v1/commands/by-h/cancel?who=ann", ""));
    assert_eq!(cancelled["state"], "cancelled", "{cancelled}");
    assert_eq!(post(&tidegate, "/api/v1/commands/by-http/cancel", "").0, 409);
    let shown = ok(get(&tidegate, "/api/v1/commands/by-http"));
    assert!(shown["steps"].as_array().unwrap().iter().any(|step| step["state"] == "cancelled"), "{shown}");
    assert_eq!(get(&tidegate, "/api/v1/commands/never").0, 404);
    assert_eq!(get(&tidegate, "/api/v1/commands?state=done").0, 400);
    assert_eq!(ok(get(&tidegate, "/api/v1/commands?state=cancelled"))["commands"].as_array().unwrap().len(), 1);
}

#[test]
fn jobs_are_asked_for_held_and_taken_back() {
    let broker = Mosquitto::plain();
    let toml = between(&format!("mqtt://127.0.0.1:{}", broker.port), SQLITE) + NATIVE;
    let mut tidegate = Tidegate::configured(&toml);
    let commands = "[[command]]\nname = \"dim\"\n[[command]]\nname = \"update\"\n";
    tidegate.catalog_file("templates/lamp.toml", &format!("slug = \"lamp\"\nname = \"L\"\n{commands}"));
    let device = |number| format!("[[device]]\nuid = \"lamp-{number}\"\ntemplate = \"lamp\"\n");
    tidegate.catalog_file("devices/lamps.toml", &(0..5).map(device).collect::<String>());
    tidegate.start();
    tidegate.listening();
    eventually("the database is open", || tidegate.said("database open"));
    // One a minute, and nobody answers: so it stays as it is.
    let body = r#"{"name":"slow","command":"dim","params":{"level":1},"templates":["lamp"],"rate":"1/m","canary":"20%","who":"ann"}"#;
    let made = ok(post(&tidegate, "/api/v1/jobs", body));
    assert_eq!((&made["name"], &made["devices"], &made["who"]), (&json!("slow"), &json!(5), &json!("ann")));
    assert_eq!((&made["canaries"], &made["rate"], &made["abort_percent"]), (&json!(1), &json!(1), &json!(20)));
    eventually("one has begun", || {
        let shown = ok(get(&tidegate, "/api/v1/jobs/slow/executions?limit=1"));
        (!shown["executions"][0]["begun_at"].is_null()).then_some(())
    });
    let page = ok(get(&tidegate, "/api/v1/jobs/slow/executions?limit=3"));
    assert_eq!((page["executions"].as_array().unwrap().len(), &page["next"]), (3, &json!(2)));
    let rest = ok(get(&tidegate, "/api/v1/jobs/slow/executions?after=2&state=QUEUED"));
    assert_eq!((rest["executions"].as_array().unwrap().len(), &rest["next"]), (2, &Value::Null));
    assert_eq!(ok(post(&tidegate, "/api/v1/jobs/slow/pause?who=ann", ""))["state"], "PAUSED");
    assert_eq!(post(&tidegate, "/api/v1/jobs/slow/pause", "").0, 409);
    assert_eq!(ok(post(&tidegate, "/api/v1/jobs/slow/resume", ""))["state"], "RUNNING");
    assert_eq!(ok(get(&tidegate, "/api/v1/jobs?state=open"))["jobs"].as_array().unwrap().len(), 1);
    let canceled = ok(post(&tidegate, "/api/v1/jobs/slow/cancel?sent=true&who=bob", ""));
    assert_eq!((&canceled["state"], &canceled["reason"]), (&json!("CANCELED"), &json!("canceled by bob")));
    eventually("it has ended", || (!ok(get(&tidegate, "/api/v1/jobs/slow"))["ended_at"].is_null()).then_some(()));
    assert_eq!(ok(get(&tidegate, "/api/v1/jobs?state=CANCELED"))["jobs"][0]["executions"]["CANCELED"], 5);

    let firmware = json!({ "name": "fw", "templates": "lamp", "rate": "1/m",
        "firmware": { "version": "2", "url": "https://files.example/2", "size": 9, "sha256": "0".repeat(64) } });
    assert_eq!(ok(post(&tidegate, "/api/v1/jobs", &firmware.to_string()))["params"]["size"], 9);
    for (body, status, error) in [
        (body, 409, "conflict"),
        ("[]", 400, "bad_body"),
        (r#"{"name":"a","command":"dim"}"#, 400, "bad_request"),
        (r#"{"name":"a","command":"dim","templates":["lamp"],"rate":"fast"}"#, 400, "bad_body"),
        (r#"{"name":"a","command":"fly","templates":["lamp"]}"#, 400, "bad_request"),
        (r#"{"name":"a","command":"dim","templates":["lamp"],"tenant":"acme"}"#, 404, "not_found"),
    ] {
        let (given, why, _) = refused(post(&tidegate, "/api/v1/jobs", body));
        assert_eq!((given, why.as_str()), (status, error), "{body}");
    }
    for (path, status) in [
        ("jobs/none", 404),
        ("jobs?state=done", 400),
        ("jobs/fw/executions?state=succeeded", 400),
        ("jobs/fw/executions?after=x", 400),
    ] {
        assert_eq!(get(&tidegate, &format!("/api/v1/{path}")).0, status, "{path}");
    }
    for (path, status) in [("jobs/fw/stop", 404), ("jobs/fw/pause?sent=true", 400), ("jobs/none/pause", 404)] {
        assert_eq!(post(&tidegate, &format!("/api/v1/{path}"), "").0, status, "{path}");
    }
    assert!(tidegate.metric("tidegate_http_api_refused_total{reason=\"bad_body\"}") >= 2.0);
}
