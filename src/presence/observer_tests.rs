use super::*;
use crate::config::{Config, Decoder, Retained, Source};
use crate::decode::memory::Memory;
use crate::metrics::Metrics;
use crate::normalize::Normalizer;
use crate::normalize::testing::{device, message, settings, snapshot, source, template};

/// A pipeline as far as connections go.
struct Scene {
    config: Config,
    snapshot: Snapshot,
    normalizer: Normalizer,
    observer: Observer,
    batch: Batch,
    at: u64,
}

impl Scene {
    fn of(sources: Vec<Source>, snapshot: Snapshot, change: impl FnOnce(&mut Devices)) -> Scene {
        let mut config = settings(sources);
        change(&mut config.devices);
        let normalizer = Normalizer::new(&config, &snapshot, Memory::default(), Metrics::new()).unwrap();
        let observer = Observer::new(&config.devices, &snapshot, Vec::new());
        Scene { config, snapshot, normalizer, observer, batch: Batch::default(), at: 0 }
    }

    fn send(&mut self, topic: &str, payload: &str) -> &mut Scene {
        self.publish(topic, payload, false)
    }

    /// A second after the message before.
    fn publish(&mut self, topic: &str, payload: &str, retain: bool) -> &mut Scene {
        self.at += 1;
        let mut message = (*message(self.at, topic, payload)).clone();
        message.publish.retain = retain;
        let message = Arc::new(message);
        let before = Before::of(&self.batch);
        self.normalizer.process(&message, &mut self.batch);
        self.observer.message(message.received_at, self.normalizer.sightings(), before, &mut self.batch);
        self
    }

    fn wait(&mut self, seconds: u64) -> &mut Scene {
        self.at += seconds;
        let now = message(self.at, "t", "").received_at;
        self.observer.advance(now, &mut self.batch);
        self
    }

    /// Device, event, and how long after the beginning, in seconds.
    fn events(&self) -> Vec<(String, &'static str, i64)> {
        let start = message(0, "t", "").received_at.0;
        let told = |change: &ConnectionChange| {
            Some((change.device.to_string(), change.event?, (change.at.0 - start) / 1_000_000))
        };
        self.batch.connections.iter().filter_map(told).collect()
    }

    fn words(&self, device: &str) -> Vec<&'static str> {
        self.events().into_iter().filter(|(of, ..)| of == device).map(|(_, word, _)| word).collect()
    }
}

fn native() -> Vec<Source> {
    let status = Source { decoder: Decoder::Presence, ..source("status", "devices/{device}/status", Decoder::Json) };
    vec![source("native", "devices/{device}/telemetry", Decoder::Json), status]
}

fn hour(devices: &mut Devices) {
    devices.stale_after = Some(Duration::from_secs(3600));
}

#[test]
fn a_device_is_online_stale_and_online_again() {
    let mut quick = template("quick", Vec::new());
    quick.expected_interval = Some(Duration::from_secs(60));
    let known = snapshot(vec![quick], vec![device(1, "slow", None), device(2, "fast", Some("quick"))]);
    let mut scene = Scene::of(native(), known, hour);
    assert_eq!(scene.observer.next_due(), None, "nobody was heard");
    scene.send("devices/fast/telemetry", r#"{"t":1}"#).send("devices/slow/telemetry", r#"{"t":1}"#);
    scene.wait(30).send("devices/fast/telemetry", r#"{"t":1}"#);
    scene.wait(4000).send("devices/fast/telemetry", r#"{"t":1}"#);
    let event = |device: &str, word, at| (device.to_owned(), word, at);
    let expected = [
        event("fast", "online", 1),
        event("slow", "online", 2),
        event("fast", "stale", 93),
        event("slow", "stale", 3602),
        event("fast", "online", 4034),
    ];
    assert_eq!(scene.events(), expected);
}

#[test]
fn wills_are_believed_and_what_is_retained_forges_nothing() {
    let mut scene = Scene::of(native(), Snapshot::default(), |_| {});
    scene.config.sources[0].retained = Retained::Ignore;
    scene.publish("devices/d/status", "online", true);
    assert_eq!(scene.observer.status("d"), None, "nobody knows it");
    scene.send("devices/d/telemetry", r#"{"t":1}"#).publish("devices/d/status", "online", true);
    scene.publish("devices/d/status", "offline", true).publish("devices/d/status", "offline", true);
    scene.publish("devices/d/telemetry", r#"{"ts":1700000000000,"values":{"t":1}}"#, true);
    assert_eq!(scene.words("d"), ["online", "offline"]);
    scene.send("devices/d/status", "online").send("devices/d/status", "offline").send("devices/d/status", "perhaps");
    assert_eq!(
        scene.words("d"),
        ["online", "offline", "online", "offline", "online"],
        "whatever it said, it was heard"
    );
}

#[test]
fn what_is_behind_a_gateway_goes_with_it_and_comes_back() {
    let sources = vec![
        source("gw", "gw/{gateway}/{device}/data", Decoder::Json),
        source("status", "gw/{device}/status", Decoder::Presence),
    ];
    let mut scene = Scene::of(sources, snapshot(vec![], vec![device(1, "g", None)]), hour);
    scene.send("gw/g/status", "online").send("gw/g/a/data", r#"{"t":1}"#).send("gw/g/b/data", r#"{"t":1}"#);
    scene.send("gw/a/c/data", r#"{"t":1}"#).send("gw/b/status", "offline");
    scene.send("gw/g/status", "offline");
    assert_eq!(scene.words("a"), ["online", "unreachable"]);
    assert_eq!((scene.words("b"), scene.words("c")), (vec!["online", "offline"], vec!["online", "unreachable"]));
    scene.send("gw/a/c/data", r#"{"t":1}"#);
    assert_eq!(scene.words("c"), ["online", "unreachable", "online"], "it was heard by another way");
    scene.wait(7200).send("gw/g/status", "online");
    assert_eq!(scene.words("a"), ["online", "unreachable", "online"], "while it could not be heard it was not silent");
    assert_eq!(scene.words("b"), ["online", "offline"]);
    scene.wait(3700);
    assert_eq!(scene.words("a").last(), Some(&"stale"));
}

#[test]
fn a_device_that_flaps_has_one_event_until_it_is_steady() {
    let mut scene = Scene::of(native(), Snapshot::default(), |devices| {
        (devices.flapping_changes, devices.flapping_window) = (4, Duration::from_secs(60));
    });
    scene.send("devices/d/telemetry", r#"{"t":1}"#);
    for _ in 0..20 {
        scene.send("devices/d/status", "offline").send("devices/d/status", "online");
    }
    assert_eq!(scene.words("d"), ["online", "offline", "online", "offline", "flapping"]);
    assert_eq!(scene.batch.connections.len(), 41, "its status is kept all the same");
    scene.wait(120).send("devices/d/status", "offline");
    assert_eq!(scene.words("d")[5..], ["online", "offline"]);
}

#[test]
fn what_is_remembered_goes_on_wherever_a_crash_comes_and_a_reload() {
    let known = || snapshot(vec![], vec![device(1, "g", None)]);
    let run = |crash_after: Option<usize>, reload: bool| {
        let mut scene = Scene::of(native(), known(), |devices| {
            hour(devices);
            (devices.flapping_changes, devices.flapping_window) = (3, Duration::from_secs(600));
        });
        let steps = ["online", "offline", "online", "offline", "online"];
        scene.send("devices/d/telemetry", r#"{"t":1}"#);
        for (step, word) in steps.into_iter().enumerate() {
            if crash_after == Some(step) {
                crash(&mut scene);
            }
            if reload {
                let snapshot = scene.snapshot.clone();
                scene.normalizer.replace(&scene.config, &snapshot, scene.at).unwrap();
                scene.observer.replace(&scene.config.devices, &snapshot);
                let before = std::mem::take(&mut scene.batch.connections);
                let generation = scene.normalizer.generation();
                scene.batch = Batch { connections: before, generation, ..Batch::default() };
            }
            scene.send("devices/d/status", word);
        }
        scene.wait(10_000);
        scene.events()
    };
    let expected = run(None, false);
    assert_eq!(expected.len(), 6, "{expected:?}");
    for step in 0..5 {
        assert_eq!(run(Some(step), false), expected, "a crash before step {step}");
    }
    assert_eq!(run(None, true), expected);
}

/// The observer anew, from what was committed.
fn crash(scene: &mut Scene) {
    let mut remembered: HashMap<Arc<str>, Remembered> = HashMap::new();
    for change in &scene.batch.connections {
        let (tenant, device) = (Arc::clone(&change.tenant), Arc::clone(&change.device));
        remembered.insert(Arc::clone(&device), Remembered { tenant, device, memory: change.memory.clone() });
    }
    let mut snapshot = scene.snapshot.clone();
    let last_seen = message(scene.at, "t", "").received_at;
    snapshot.devices.push(crate::catalog::Device { last_seen: Some(last_seen), ..device(2, "d", None) });
    scene.normalizer = Normalizer::new(&scene.config, &snapshot, Memory::default(), Metrics::new()).unwrap();
    scene.observer = Observer::new(&scene.config.devices, &snapshot, remembered.into_values().collect());
    let before = std::mem::take(&mut scene.batch.connections);
    scene.batch = Batch { connections: before, ..Batch::default() };
    scene.snapshot = snapshot;
}

#[test]
fn formats_tell_who_is_there() {
    let sources = vec![
        Source { retained: Retained::Ignore, ..source("all", "#", Decoder::Auto) },
        source("clients", "$SYS/brokers/+/clients/#", Decoder::Presence),
    ];
    let mut scene = Scene::of(sources, Snapshot::default(), |_| {});
    scene.send("tele/plug/LWT", "Online").publish("tele/plug/LWT", "Offline", true);
    scene.send("zigbee2mqtt/bridge/state", r#"{"state":"online"}"#);
    scene.send("zigbee2mqtt/lamp", r#"{"linkquality":9}"#).send("zigbee2mqtt/lamp/availability", "offline");
    scene.send("zigbee2mqtt/bulb", r#"{"linkquality":9}"#).send("zigbee2mqtt/bridge/state", "offline");
    scene.send("homie/car/n/p", "1").send("homie/car/$state", "ready").send("homie/car/$state", "lost");
    scene.send("shellies/em/online", "true").send("shellies/em/online", "false");
    scene.send("attic/sensor/t/state", "21.5").send("attic/status", "offline");
    scene.send("$SYS/brokers/e@1/clients/plug/connected", r#"{"clientid":"plug"}"#);
    scene.send("$SYS/brokers/e@1/clients/nobody/connected", r#"{"clientid":"nobody"}"#);
    let told = |device: &str| scene.words(device);
    assert_eq!(told("plug"), ["online", "offline", "online"]);
    assert_eq!((told("bridge"), told("lamp")), (vec!["online", "offline"], vec!["online", "offline"]));
    assert_eq!((told("bulb"), told("car")), (vec!["online", "unreachable"], vec!["online", "offline"]));
    assert_eq!((told("em"), told("attic")), (vec!["online", "offline"], vec!["online", "offline"]));
    assert!(told("nobody").is_empty());
}
