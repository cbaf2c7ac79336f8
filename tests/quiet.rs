//! A source that falls silent is told, once for each silence, and where it asks for it the connection is made anew.

use serde_json::Value;

use crate::support::daemon::{Tidegate, eventually};
use crate::support::mosquitto::Mosquitto;

const QUIET: &str = "tidegate_source_quiet{source=\"watched\"}";

fn configured(broker: &Mosquitto, quiet: &str) -> Tidegate {
    let tidegate = Tidegate::configured("");
    configure(&tidegate, broker, quiet);
    tidegate
}

fn configure(tidegate: &Tidegate, broker: &Mosquitto, quiet: &str) {
    tidegate.configure(&format!(
        r#"
[instance]
state_dir = "{{state}}"
[broker]
url = "mqtt://127.0.0.1:{}"
[[sources]]
name = "watched"
filter = "watched/{{device}}"
{quiet}
[[sources]]
name = "other"
filter = "other/{{device}}"
[http]
listen = "127.0.0.1:0"
[log]
format = "json"
"#,
        broker.port
    ));
}

/// How often the daemon has said this.
fn times_said(tidegate: &Tidegate, words: &str) -> usize {
    let events = tidegate.log();
    let events = events.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(|event| event["message"].as_str().is_some_and(|message| message.contains(words))).count()
}

fn until(tidegate: &Tidegate, name: &str, value: f64) {
    eventually(&format!("{name} is {value}"), || (tidegate.metric(name) == value).then_some(()));
}

#[test]
fn a_silence_is_told_once_with_one_reconnect_and_its_end_too() {
    let broker = Mosquitto::plain();
    // It comes again at each subscription, and is no sign of life.
    broker.publish("watched/old", "{\"temp\": 1}", &["-r", "-q", "1"]);
    let mut tidegate = configured(&broker, "quiet_after = \"700ms\"\nquiet_reconnect = true");
    tidegate.start();
    until(&tidegate, QUIET, 1.0);
    until(&tidegate, "tidegate_broker_connects_total", 2.0);
    // Twice as long again, by the other source's messages: nothing more is said of this silence.
    eventually("messages on another source", || {
        broker.publish("other/d1", "{\"temp\": 1}", &["-q", "1"]);
        (tidegate.metric("tidegate_source_messages_total{source=\"other\"}") >= 60.0).then_some(())
    });
    assert_eq!(times_said(&tidegate, "no message on a source"), 1);
    assert_eq!(times_said(&tidegate, "the source is heard again"), 0);
    assert_eq!(tidegate.metric("tidegate_deafness_reconnects_total"), 1.0);
    assert_eq!(tidegate.metric("tidegate_broker_connects_total"), 2.0);

    broker.publish("watched/d1", "{\"temp\": 1}", &["-q", "1"]);
    eventually("its end is told", || tidegate.said("the source is heard again"));
    until(&tidegate, "tidegate_deafness_reconnects_total", 2.0);
    assert_eq!(times_said(&tidegate, "no message on a source"), 2);
    until(&tidegate, QUIET, 1.0);
}

#[test]
fn without_quiet_reconnect_a_silence_is_only_told_and_a_reload_can_end_the_watch() {
    let broker = Mosquitto::plain();
    let mut tidegate = configured(&broker, "quiet_after = \"300ms\"");
    tidegate.start();
    let told = eventually("the silence is told", || tidegate.said("no message on a source"));
    assert_eq!((&told["source"], &told["broker"]), (&"watched".into(), &"up".into()), "{told}");
    until(&tidegate, QUIET, 1.0);
    assert_eq!(tidegate.metric("tidegate_broker_connects_total"), 1.0);
    configure(&tidegate, &broker, "");
    tidegate.signal("HUP");
    until(&tidegate, QUIET, 0.0);
    assert_eq!(tidegate.metric("tidegate_deafness_reconnects_total"), 0.0);
}
