//! From a device's PUBLISH to a row in the view `readings`: exactly one for each value, on every broker and database.
//!
//! `MESSAGES=100000 cargo nextest run main_job --no-capture` does it with more messages, and tells the rate.

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::json;

use crate::support::daemon::{NATIVE, Tidegate, between, eventually};
use crate::support::load::{METRICS, Simulation, sent};
use crate::support::mosquitto::{Mosquitto, Setup};
use crate::support::stranger::{SQLITE, Stranger};

/// Messages of one run.
fn messages() -> u64 {
    std::env::var("MESSAGES").map_or(2000, |text| text.parse().expect("MESSAGES is a number"))
}

/// A broker that holds whatever tidegate has not taken yet.
fn patient_mosquitto() -> Mosquitto {
    Mosquitto::start(Setup { extra: "max_queued_messages 0".to_owned(), ..Setup::default() })
}

/// Where the devices publish, and the rest of the configuration.
enum Broker {
    Mosquitto(Mosquitto),
    #[cfg(feature = "embedded-broker")]
    Embedded,
}

impl Broker {
    fn url(&self) -> String {
        match self {
            Broker::Mosquitto(broker) => format!("mqtt://127.0.0.1:{}", broker.port),
            #[cfg(feature = "embedded-broker")]
            Broker::Embedded => "embedded://127.0.0.1:0".to_owned(),
        }
    }

    fn port(&self, tidegate: &Tidegate) -> u16 {
        match self {
            Broker::Mosquitto(broker) => {
                tidegate.listening();
                broker.port
            }
            #[cfg(feature = "embedded-broker")]
            Broker::Embedded => tidegate.address("broker").port(),
        }
    }
}

fn main_job(broker: &Broker, version: u8, on_postgres: bool, qos: &str) {
    let (stranger, url) = if on_postgres {
        let (stranger, url) = Stranger::on_shared_server();
        (Some(stranger), url)
    } else {
        (None, SQLITE.to_owned())
    };
    let toml = between(&broker.url(), &url).replace("[broker]\n", &format!("[broker]\nversion = {version}\n"));
    let mut tidegate = Tidegate::configured(&(toml + NATIVE));
    tidegate.start();
    let stranger = stranger.unwrap_or_else(|| Stranger::of_file(&tidegate));
    let messages = messages();
    let rows = messages * METRICS as u64;
    // Nobody acknowledges QoS 0, so it must not come faster than it can be taken.
    let pace: &[&str] = if qos == "0" { &["--rate", "1000"] } else { &[] };
    let (port, idle_cpu, began) = (broker.port(&tidegate), tidegate.cpu(), Instant::now());
    let summary = Simulation::numbers(port, messages, &[&["--qos", qos], pace].concat()).finish();
    assert_eq!(summary["published"], messages);
    tidegate.wait_for_metric("tidegate_readings_stored_total", rows as f64);
    let (took, cpu) = (began.elapsed().as_secs_f64(), tidegate.cpu() - idle_cpu);
    if messages > 2000 {
        let (rate, cost) = (rows as f64 / took, cpu * 1e6 / rows as f64);
        println!("{rows} readings in {took:.2} s: {rate:.0} readings/s, {cost:.2} µs of CPU a reading");
    }
    exactly_what_was_sent(&stranger, messages);
    for nothing in ["readings_duplicate", "redeliveries_recognised", "database_errors", "batches_bisected"] {
        assert_eq!(tidegate.metric(&format!("tidegate_{nothing}_total")), 0.0, "{nothing}");
    }
    assert!(tidegate.stop().success());
    assert_eq!(stranger.rows(), rows, "nothing more came at the end");
}

/// Holds the database against what [`Simulation::numbers`] sent.
pub fn exactly_what_was_sent(stranger: &Stranger, messages: u64) {
    let sent = sent(messages);
    let series = sent.len() as u64;
    assert!(stranger.series() == sent, "every value once, each device's in its order");
    assert_eq!(stranger.number("SELECT count(*) FROM device_sensors"), series);
    let newest = "SELECT count(*) FROM device_sensors s JOIN telemetry t ON t.sensor_id = s.id AND t.time = s.last_time \
                  WHERE t.value = s.last_value AND NOT EXISTS \
                  (SELECT 1 FROM telemetry l WHERE l.sensor_id = s.id AND l.time > t.time)";
    assert_eq!(stranger.number(newest), series, "every sensor's last value is its newest reading");
    let seen = "SELECT count(*) FROM devices d WHERE last_seen = \
                (SELECT max(last_time) FROM device_sensors s WHERE s.device_id = d.id) AND first_seen <= last_seen";
    assert_eq!(stranger.number(seen), series / METRICS as u64, "every device was last seen at its newest reading");
    assert_eq!(stranger.number("SELECT count(*) FROM readings WHERE tenant <> 'default' OR unit <> ''"), 0);
    assert_eq!(stranger.number("SELECT count(*) FROM quarantine_events"), 0);
}

#[test]
fn mosquitto_to_postgres() {
    main_job(&Broker::Mosquitto(patient_mosquitto()), 5, true, "1");
}

#[test]
fn mosquitto_to_sqlite() {
    main_job(&Broker::Mosquitto(patient_mosquitto()), 5, false, "1");
}

#[test]
fn mosquitto_over_mqtt_3_to_postgres() {
    main_job(&Broker::Mosquitto(patient_mosquitto()), 3, true, "1");
}

#[test]
fn mosquitto_over_mqtt_3_to_sqlite() {
    main_job(&Broker::Mosquitto(patient_mosquitto()), 3, false, "1");
}

#[test]
fn publishers_of_qos_0_and_2_work_as_well() {
    let broker = Broker::Mosquitto(patient_mosquitto());
    for qos in ["0", "2"] {
        main_job(&broker, 5, false, qos);
    }
}

#[cfg(feature = "embedded-broker")]
#[test]
fn embedded_to_postgres() {
    main_job(&Broker::Embedded, 5, true, "1");
}

#[cfg(feature = "embedded-broker")]
#[test]
fn embedded_to_sqlite() {
    for qos in ["0", "1", "2"] {
        main_job(&Broker::Embedded, 5, false, qos);
    }
}

/// Format of `simulate`, its source, and what the shipped template makes of it.
const SHAPES: [(&str, &str, &str); 4] = [
    (
        "climate",
        "name = \"native\"\nfilter = \"devices/{device}/telemetry\"\ntemplate = \"native-climate\"",
        "battery|% humidity|% temperature|°C",
    ),
    (
        "tasmota",
        "name = \"tasmota\"\nfilter = \"tele/{device}/SENSOR\"\ntemplate = \"tasmota-plug\"\ntimestamp = \"Time\"",
        "energy_period|kWh apparent_power|VA current|A energy_today|kWh energy_yesterday|kWh energy|kWh power_factor| \
         power|W reactive_power|var voltage|V",
    ),
    (
        "zigbee2mqtt",
        "name = \"zigbee\"\nfilter = \"zigbee2mqtt/{device}\"\ntemplate = \"zigbee-climate\"\ntimestamp = \"last_seen\"",
        "battery|% battery_voltage|V humidity|% link_quality| temperature|°C",
    ),
    (
        "easun",
        "name = \"easun\"\nfilter = \"EASUN/{device}/{metric...}\"\ndecoder = \"scalar\"\ntemplate = \"scalar-inverter\"",
        "battery|% battery_voltage|V grid_voltage|V load|% output_power|W solar_power|W",
    ),
];

#[test]
fn payloads_of_real_devices_become_named_readings_with_units() {
    let broker = patient_mosquitto();
    for on_postgres in [false, true] {
        let on_server = on_postgres.then(Stranger::on_shared_server);
        let url = on_server.as_ref().map_or(SQLITE, |(_, url)| url);
        let mut toml = between(&format!("mqtt://127.0.0.1:{}", broker.port), url);
        for (_, source, _) in SHAPES {
            toml += &format!("[[sources]]\n{source}\n");
        }
        let mut tidegate = Tidegate::configured(&toml);
        tidegate.start();
        tidegate.listening();
        let stranger = on_server.map_or_else(|| Stranger::of_file(&tidegate), |(stranger, _)| stranger);
        for (format, source, readings) in SHAPES {
            let name = source.split('"').nth(1).unwrap();
            let arguments = ["--format", format, "--devices", "2", "--messages", "60", "--timestamps"];
            Simulation::start(broker.port, &arguments).finish();
            let taken = format!("tidegate_source_messages_total{{source=\"{name}\"}}");
            tidegate.wait_for_metric(&taken, 60.0);
            eventually("all is committed", || (tidegate.metric("tidegate_journal_lag_messages") == 0.0).then_some(()));
            let found = stranger.ask(&format!(
                "SELECT DISTINCT r.metric || '|' || r.unit FROM readings r JOIN devices d ON d.uid = r.device WHERE d.source = '{name}'"
            ));
            let found: BTreeSet<&str> = found.lines().collect();
            assert_eq!(found, readings.split(' ').collect(), "{format}");
        }
        assert_eq!(stranger.number("SELECT count(*) FROM quarantine_events"), 0);
        assert_eq!(stranger.number("SELECT count(*) FROM devices WHERE template_id IS NULL"), 0);
        // Millivolts of Zigbee2MQTT are volts here.
        let scaled = "SELECT count(*) FROM readings WHERE metric = 'battery_voltage' AND device LIKE '%room%' \
                      AND (value < 2.6 OR value > 3.2)";
        assert_eq!(stranger.number(scaled), 0);
        assert!(tidegate.stop().success());
    }
}

#[test]
fn a_reading_has_the_time_that_the_device_gave_it() {
    let broker = patient_mosquitto();
    let (stranger, url) = Stranger::on_shared_server();
    let climate = NATIVE.to_owned() + "template = \"native-climate\"\n";
    let mut tidegate = Tidegate::configured(&(between(&format!("mqtt://127.0.0.1:{}", broker.port), &url) + &climate));
    tidegate.start();
    tidegate.listening();
    let list = json!([
        {"ts": 1_700_000_000, "values": {"temp": 20.5}},
        {"ts": "2023-11-14T22:13:21.000001Z", "values": {"temp": 21.5, "note": "warm"}},
    ]);
    broker.publish("devices/attic/telemetry", &list.to_string(), &["-q", "1"]);
    stranger.wait_for_rows(3);
    let rows = stranger.ask(
        "SELECT tenant, device, metric, value, text_value, unit, to_char(time AT TIME ZONE 'UTC', 'HH24:MI:SS.US') \
         FROM readings ORDER BY time, metric DESC",
    );
    let expected = [
        "default|attic|temperature|20.5||°C|22:13:20.000000",
        "default|attic|temperature|21.5||°C|22:13:21.000001",
        "default|attic|note||warm||22:13:21.000001",
    ];
    assert_eq!(rows.lines().collect::<Vec<_>>(), expected);
    let sensors = stranger.ask("SELECT metric, source, last_value, last_text FROM device_sensors ORDER BY metric");
    let expected = ["humidity|required||", "note|unmodeled||warm", "temperature|required|21.5|"];
    assert_eq!(sensors.lines().collect::<Vec<_>>(), expected);
}
