//! Alerts as the database has them: their steps, what rules remember, what people ask, and what is still to be published.

mod actions;
mod notifications;
mod desk;
mod maintenance;
mod outbox;
mod rules;

use std::time::Duration;

use tidegate::alert::{Holder, Remembered, Severity, State, StateChange, Transition, Who};
use tidegate::catalog::{Declared, DeclaredDevice};
use tidegate::config::{Config, Retention as Lifetimes};
use tidegate::store::BatchWriter;
use tidegate::store::alerts::{AlertFilter, Which};
use tidegate::store::batch::Batch;
use tidegate::time::UtcMicros;

use super::{Site, at, batch, device, lookup, on_both, reading, retention};

on_both!(
    steps_and_the_episode_go_with_the_position,
    a_step_from_before_changes_nothing,
    what_rules_remember_goes_with_the_position,
    a_device_that_is_deleted_holds_nothing_up,
    texts_that_no_table_takes_are_cut,
    lists_show_what_is_asked_for,
    the_newest_readings_of_sensors_are_found,
    alerts_that_are_over_and_told_expire,
    devices_have_their_site_tags_and_last_seen,
);

/// 32 digits, beginning with these.
pub fn id(digits: &str) -> String {
    format!("{digits:0<32}")
}

/// A step of an alert of `too-hot` on `d0`.
pub fn step(digits: &str, number: u32, state: State) -> Transition {
    Transition {
        id: id(digits).into(),
        step: number,
        rule: "too-hot".into(),
        tenant: "default".into(),
        device: "d0".into(),
        group: None,
        metric: "temperature".into(),
        state,
        severity: Severity::Warning,
        at: at(100 + i64::from(number)),
        onset: at(10),
        since: at(100),
        value: Some(31.5 + f64::from(number)),
        threshold: Some(30.0),
        unit: "°C".into(),
        message: format!("hot, step {number}"),
        snoozed: false,
        snoozed_until: None,
        who: Who::Rule,
        why: "held for 2m".into(),
        seq: 1,
    }
}

/// A writer, after a batch that has brought in the device `d0`.
pub fn begun(site: &Site) -> BatchWriter {
    let (mut writer, _) = site.writer();
    writer.commit(&batch(1, vec![reading(0, 0, 20.0, 1)]), &lookup).unwrap();
    writer
}

pub fn steps(position: u64, transitions: Vec<Transition>) -> Batch {
    Batch { position, generation: 1, messages: 1, transitions, ..Batch::default() }
}

pub fn everything() -> AlertFilter {
    AlertFilter { which: Which::All, ..AlertFilter::default() }
}

fn steps_and_the_episode_go_with_the_position(site: &Site) {
    let mut writer = begun(site);
    let by = |who: &str, step: Transition| Transition { who: Who::Person(who.into()), why: "on my way".into(), ..step };
    let first = step("ab", 0, State::Firing);
    let worse = Transition { severity: Severity::Critical, ..step("ab", 1, State::Firing) };
    let batch = steps(2, vec![first, worse, by("eve", step("ab", 2, State::Acknowledged))]);
    assert_eq!(batch.rows(), 3);
    writer.commit(&batch, &lookup).unwrap();
    let detail = site.store.alert(&id("ab")).unwrap();
    let alert = &detail.alert;
    assert_eq!((alert.state.as_str(), alert.severity.as_str(), alert.step), ("acknowledged", "warning", 2));
    assert_eq!((alert.rule.as_str(), alert.device.as_str(), alert.tenant.as_str()), ("too-hot", "d0", "default"));
    assert_eq!((alert.value, alert.threshold, alert.unit.as_str()), (Some(33.5), Some(30.0), "°C"));
    assert_eq!((alert.acknowledged_at, alert.acknowledged_by.as_deref()), (Some(at(102)), Some("eve")));
    assert_eq!((alert.onset, alert.since, alert.resolved_at), (at(10), at(100), None));
    let told: Vec<_> =
        detail.steps.iter().map(|step| (step.step, step.severity.as_str(), step.who.as_deref())).collect();
    assert_eq!(told, [(0, "warning", None), (1, "critical", None), (2, "warning", Some("eve"))]);
    assert!(detail.steps.is_sorted_by(|a, b| a.recorded_at < b.recorded_at));

    // What fails leaves nothing, and what comes next goes on from there.
    let resolved = steps(2, vec![step("ab", 3, State::Resolved)]);
    writer.commit(&resolved, &lookup).unwrap_err();
    assert_eq!(site.store.alert(&id("ab")).unwrap(), detail);
    writer.commit(&Batch { position: 3, ..resolved }, &lookup).unwrap();
    let alert = site.store.alert(&id("ab")).unwrap().alert;
    assert_eq!((alert.state.as_str(), alert.resolved_at), ("resolved", Some(at(103))));
    assert_eq!((alert.acknowledged_at, alert.acknowledged_by.as_deref()), (Some(at(102)), Some("eve")));
}

fn a_step_from_before_changes_nothing(site: &Site) {
    let mut writer = begun(site);
    let all = vec![step("ab", 0, State::Firing), step("ab", 1, State::Firing), step("ab", 2, State::Resolved)];
    writer.commit(&steps(2, all.clone()), &lookup).unwrap();
    let once = site.store.alert("ab00").unwrap();
    site.store.mark_published(&[(id("ab").into(), 1)]).unwrap();
    for (again, position) in [&all[..1], &all[1..2], &all[..2], &all[2..], &all[..]].into_iter().zip(3..) {
        // As after a rewind: the same steps, in other batches.
        writer.commit(&steps(position, again.to_vec()), &lookup).unwrap();
    }
    let again = site.store.alert("ab00").unwrap();
    assert_eq!(again.alert, once.alert);
    assert_eq!(again.steps.iter().map(|step| step.published).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!(again.steps[0], once.steps[0]);
}

fn remembered(site: &Site, of: &str) -> Vec<(String, String)> {
    let states = site.store.alert_states(of).unwrap().into_iter();
    let mut states: Vec<_> =
        states.map(|one: Remembered| (format!("{} {}", one.rule, one.holder.name()), one.state)).collect();
    states.sort();
    states
}

fn state(rule: &str, uid: &str, json: Option<&str>) -> StateChange {
    let (tenant, state) = ("default".into(), json.map(str::to_owned));
    StateChange { rule: rule.into(), tenant, holder: Holder::Device(uid.into()), state }
}

fn what_rules_remember_goes_with_the_position(site: &Site) {
    let mut writer = begun(site);
    let changes = |position, alert_states| Batch { alert_states, ..steps(position, Vec::new()) };
    let mut first = changes(2, vec![state("a", "d0", Some("{\"n\":1}")), state("b", "d0", Some("{}"))]);
    // Of a device that the same batch brings in; and of one rule and device the last counts, over batches too.
    first.devices.push(device(1));
    first.append(changes(3, vec![state("a", "d1", Some("{}")), state("a", "d0", Some("{\"n\":2}"))]));
    writer.commit(&first, &lookup).unwrap();
    let kept = [("a d0", "{\"n\":2}"), ("a d1", "{}"), ("b d0", "{}")];
    assert_eq!(remembered(site, "gw"), kept.map(|(key, json)| (key.to_owned(), json.to_owned())));
    assert_eq!(remembered(site, "another"), []);

    let gone = changes(3, vec![state("a", "d0", None), state("b", "d0", Some("{\"n\":3}")), state("a", "d1", None)]);
    writer.commit(&gone, &lookup).unwrap_err();
    assert_eq!(remembered(site, "gw").len(), 3);
    writer.commit(&Batch { position: 4, ..gone }, &lookup).unwrap();
    assert_eq!(remembered(site, "gw"), [("b d0".to_owned(), "{\"n\":3}".to_owned())]);
}

fn a_device_that_is_deleted_holds_nothing_up(site: &Site) {
    let mut writer = begun(site);
    let both = |position: u64, number: u32| Batch {
        alert_states: vec![state("too-hot", "d0", Some("{}"))],
        ..steps(position, vec![step("ab", number, State::Firing)])
    };
    writer.commit(&both(2, 0), &lookup).unwrap();
    assert_eq!((site.rows("alerts"), site.rows("alert_states")), (1, 1));
    site.execute("DELETE FROM device_sensors; DELETE FROM devices");
    assert_eq!((site.rows("alerts"), site.rows("alert_transitions"), site.rows("alert_states")), (0, 0, 0));
    writer.commit(&both(3, 1), &lookup).unwrap();
    assert_eq!((site.rows("alerts"), site.rows("alert_states")), (0, 0));
}

fn texts_that_no_table_takes_are_cut(site: &Site) {
    let mut writer = begun(site);
    let odd = "ä\0".repeat(4000);
    let odd = Transition {
        message: odd.clone(),
        why: odd.clone(),
        who: Who::Person(odd.clone()),
        unit: odd.into(),
        value: Some(f64::INFINITY),
        threshold: Some(f64::NAN),
        ..step("ab", 0, State::Firing)
    };
    writer.commit(&steps(2, vec![odd]), &lookup).unwrap();
    let detail = site.store.alert("ab00").unwrap();
    assert!(detail.alert.message.starts_with("ä\u{2400}") && detail.alert.message.len() > 4000);
    assert_eq!(detail.steps[0].who.as_ref().unwrap().len(), 512);
    // What would hold up the rest for ever is left out, or put right.
    let no_id = Transition { id: "short".into(), ..step("ab", 0, State::Firing) };
    let no_time = Transition { at: UtcMicros(i64::MIN), onset: UtcMicros(i64::MIN), ..step("cd", 0, State::Resolved) };
    writer.commit(&steps(3, vec![no_id, no_time]), &lookup).unwrap();
    assert_eq!(site.rows("alerts"), 2);
    assert!(site.store.alert("cd00").unwrap().alert.resolved_at < Some(UtcMicros(0)));
}

fn lists_show_what_is_asked_for(site: &Site) {
    let mut writer = begun(site);
    let of = |digits: &str, state: State, since: i64| Transition { since: at(since), ..step(digits, 0, state) };
    let other = Transition {
        rule: "silent".into(),
        device: "d1".into(),
        severity: Severity::Critical,
        metric: "".into(),
        ..of("d4", State::Firing, 400)
    };
    let mut batch = steps(
        2,
        vec![of("a1", State::Firing, 100), of("b2", State::Acknowledged, 200), of("c3", State::Resolved, 300), other],
    );
    batch.devices.push(device(1));
    writer.commit(&batch, &lookup).unwrap();
    let found = |filter: &AlertFilter| -> Vec<String> {
        site.store.alerts(filter, 10).unwrap().into_iter().map(|row| row.id[..2].to_owned()).collect()
    };
    assert_eq!(found(&AlertFilter::default()), ["d4", "b2", "a1"]);
    assert_eq!(found(&everything()), ["d4", "c3", "b2", "a1"]);
    let inn = |state| AlertFilter { which: Which::In(state), ..AlertFilter::default() };
    assert_eq!(found(&inn(State::Firing)), ["d4", "a1"]);
    assert_eq!(found(&inn(State::Acknowledged)), ["b2"]);
    assert_eq!(found(&inn(State::Resolved)), ["c3"]);
    assert_eq!(found(&AlertFilter { severity: Some(Severity::Critical), ..everything() }), ["d4"]);
    assert_eq!(found(&AlertFilter { device: Some("d0".into()), ..everything() }), ["c3", "b2", "a1"]);
    assert_eq!(found(&AlertFilter { rule: Some("silent".into()), ..everything() }), ["d4"]);
    assert_eq!(found(&AlertFilter { since: Some(at(200)), ..everything() }), ["d4", "c3", "b2"]);
    assert_eq!(found(&AlertFilter { tenant: Some("acme".into()), ..everything() }), [""; 0]);
    assert_eq!(site.store.alerts(&everything(), 2).unwrap().len(), 2);
    let standing = site.store.active_alerts("gw").unwrap();
    assert_eq!(standing.iter().map(|step| &step.id[..2]).collect::<Vec<_>>(), ["a1", "b2", "d4"]);
    assert_eq!(standing[1].state, State::Acknowledged);
    assert_eq!(site.store.active_alerts("another").unwrap(), []);
}

fn the_newest_readings_of_sensors_are_found(site: &Site) {
    let (mut writer, _) = site.writer();
    let readings = (0..100).map(|n| reading(0, n * 10, n as f64, 1)).collect();
    writer.commit(&batch(1, readings), &lookup).unwrap();
    let sensor = i32::try_from(site.number("SELECT CAST(id AS bigint) AS n FROM device_sensors")).unwrap();
    let numbers = |from: i64| (from..100).map(|n| (at(n * 10), n as f64)).collect::<Vec<_>>();
    let wanted = [(sensor, at(955), 100), (sensor + 1, at(0), 5), (sensor, at(0), 3), (sensor, UtcMicros(i64::MIN), 1)];
    let found = site.store.recent(&wanted).unwrap();
    let expected = [(sensor, numbers(96)), (sensor + 1, Vec::new()), (sensor, numbers(97)), (sensor, numbers(99))];
    assert_eq!(found, expected);
    assert_eq!(site.store.recent(&[]).unwrap(), []);
}

fn alerts_that_are_over_and_told_expire(site: &Site) {
    let mut writer = begun(site);
    let old = |digits: &str, state: State| Transition { at: retention::days_ago(20), ..step(digits, 0, state) };
    let young = Transition { at: retention::days_ago(1), ..step("c3", 0, State::Resolved) };
    let all = vec![old("a1", State::Resolved), old("b2", State::Firing), young, old("d4", State::Resolved)];
    writer.commit(&steps(2, all), &lookup).unwrap();
    site.store.mark_published(&["a1", "b2", "c3"].map(|digits| (id(digits).into(), 0))).unwrap();
    let life = Some(Duration::from_secs(10 * 86_400));
    let lifetimes = Lifetimes { alerts: life, ..Config::default().retention };
    retention::run(&site.store, &lifetimes, None).unwrap();
    let left = |site: &Site| site.texts("SELECT substr(id, 1, 2) AS t FROM alerts ORDER BY 1");
    assert_eq!(left(site), ["b2", "c3", "d4"], "the broker has not heard yet that d4 is over");
    assert_eq!(site.rows("alert_transitions"), 3);
    site.store.mark_published(&[(id("d4").into(), 0)]).unwrap();
    retention::run(&site.store, &lifetimes, None).unwrap();
    assert_eq!(left(site), ["b2", "c3"]);
}

fn devices_have_their_site_tags_and_last_seen(site: &Site) {
    begun(site);
    site.execute(
        "INSERT INTO sites (id, tenant_id, name) VALUES (1, 1, 'Cellar');
         INSERT INTO devices (tenant_id, uid, tags) VALUES (1, 'e1', 'nonsense');
         UPDATE devices SET site_id = 1, tags = '{\"floor\":\"2\"}' WHERE uid = 'd0'",
    );
    let snapshot = site.store.snapshot().unwrap();
    let tagged = &snapshot.devices[0];
    assert_eq!((tagged.site.as_deref(), tagged.last_seen), (Some("Cellar"), Some(at(5))));
    assert_eq!(tagged.tags.iter().map(|(name, text)| format!("{name}={text}")).collect::<Vec<_>>(), ["floor=2"]);
    let plain = &snapshot.devices[1];
    assert_eq!((plain.site.as_deref(), plain.last_seen, plain.tags.len()), (None, None, 0));

    // Those of a file take their place, and go with it again.
    let declared = |tags: &[(&str, &str)]| Declared {
        devices: vec![DeclaredDevice {
            tenant: "default".into(),
            uid: "d0".into(),
            name: None,
            template: None,
            parent: None,
            site: None,
            tags: tags.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect(),
            modules: Vec::new(),
        }],
        ..Declared::default()
    };
    let tags = || site.store.snapshot().unwrap().devices.remove(0).tags;
    let both = declared(&[("floor", "3"), ("room \"b\"", "ä")]);
    assert_eq!(site.store.reconcile(&both).unwrap().devices_changed, 1);
    assert_eq!(tags(), both.devices[0].tags);
    assert!(site.store.reconcile(&both).unwrap().is_empty());
    assert_eq!(site.store.reconcile(&declared(&[])).unwrap().devices_changed, 1);
    assert_eq!(tags().len(), 0);
}
