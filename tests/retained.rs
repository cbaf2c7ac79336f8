//! What the broker had stored forges no readings, unless the source asks for it; what is live counts as live.

use crate::support::daemon::{Tidegate, eventually};
use crate::support::mosquitto::{Mosquitto, Setup};

const VERSIONS: [u8; 2] = [5, 3];

fn configured(broker: &Mosquitto, version: u8) -> Tidegate {
    Tidegate::configured(&format!(
        r#"
[instance]
state_dir = "{{state}}"
[broker]
url = "mqtt://127.0.0.1:{}"
version = {version}
[[sources]]
name = "ignored"
filter = "ignored/{{device}}"
[[sources]]
name = "newest"
filter = "newest/{{device}}"
retained = "latest"
[[sources]]
name = "stored"
filter = "stored/{{device}}"
retained = "store"
[http]
listen = "127.0.0.1:0"
[log]
format = "json"
"#,
        broker.port
    ))
}

fn persistent() -> Mosquitto {
    Mosquitto::start(Setup { persistent: true, ..Setup::default() })
}

/// How many readings a device has, once everything that each source heard is committed.
fn settled(tidegate: &Tidegate, heard: [(&str, f64); 3]) {
    eventually("every message is committed", || {
        let all = heard.iter().all(|(name, count)| {
            tidegate.metric(&format!("tidegate_source_messages_total{{source=\"{name}\"}}")) == *count
        });
        (all && tidegate.metric("tidegate_journal_lag_messages") == 0.0).then_some(())
    });
}

fn readings(tidegate: &Tidegate, device: &str) -> usize {
    tidegate.json(&["readings", device]).as_array().unwrap().len()
}

#[test]
fn a_resubscribe_forges_no_readings_but_where_the_source_asks_for_it() {
    for version in VERSIONS {
        let mut broker = persistent();
        let recent = format!("{{\"ts\": {}, \"values\": {{\"temp\": 2}}}}", jiff::Timestamp::now().as_millisecond());
        for (topic, payload) in [
            ("ignored/plain", "{\"temp\": 1}"),
            ("ignored/timed", &recent),
            ("newest/untimed", "{\"temp\": 1}"),
            ("newest/fresh", &recent),
            ("stored/any", "{\"temp\": 3}"),
        ] {
            broker.publish(topic, payload, &["-r", "-q", "1"]);
        }
        let mut tidegate = configured(&broker, version);
        tidegate.start();
        settled(&tidegate, [("ignored", 2.0), ("newest", 2.0), ("stored", 1.0)]);
        let counts = |tidegate: &Tidegate| readings(tidegate, "fresh");
        assert_eq!(counts(&tidegate), 1, "version {version}");
        assert_eq!(readings(&tidegate, "any"), 1);
        assert_eq!(tidegate.metric("tidegate_retained_ignored_total"), 3.0);

        broker.stop();
        broker.restart();
        settled(&tidegate, [("ignored", 4.0), ("newest", 4.0), ("stored", 2.0)]);
        assert_eq!(counts(&tidegate), 1, "not newer than what is stored");
        assert_eq!(readings(&tidegate, "any"), 2, "like any other message");
        assert_eq!(tidegate.metric("tidegate_retained_ignored_total"), 7.0);
        for device in ["plain", "timed", "untimed"] {
            let rows = crate::support::daemon::sqlite(
                &tidegate.state_dir().join("tidegate.db"),
                &format!("SELECT count(*) FROM readings WHERE device = '{device}'"),
            );
            assert_eq!(rows, "0", "{device}, version {version}");
        }
    }
}

#[test]
fn a_live_message_whose_publisher_retains_it_is_live() {
    for version in VERSIONS {
        let broker = persistent();
        let mut tidegate = configured(&broker, version);
        tidegate.start();
        eventually("subscribed", || (tidegate.metric("tidegate_broker_connected") == 1.0).then_some(()));
        broker.publish("ignored/live", "{\"temp\": 1}", &["-r", "-q", "1"]);
        broker.publish("newest/live2", "{\"temp\": 1}", &["-r", "-q", "1"]);
        settled(&tidegate, [("ignored", 1.0), ("newest", 1.0), ("stored", 0.0)]);
        assert_eq!((readings(&tidegate, "live"), readings(&tidegate, "live2")), (1, 1), "version {version}");
        assert_eq!(tidegate.metric("tidegate_retained_ignored_total"), 0.0);

        // While tidegate is away the session keeps it; and the resubscribe brings it once more, as retained.
        assert!(tidegate.stop().success());
        broker.publish("ignored/live", "{\"temp\": 2}", &["-r", "-q", "1"]);
        tidegate.start();
        settled(&tidegate, [("ignored", 2.0), ("newest", 1.0), ("stored", 0.0)]);
        assert_eq!((readings(&tidegate, "live"), readings(&tidegate, "live2")), (2, 1), "version {version}");
        assert_eq!(tidegate.metric("tidegate_retained_ignored_total"), 2.0);
    }
}
