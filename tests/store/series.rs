//! What becomes of series when their device gets another template, or the template another version.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidegate::catalog::matching::GivenBy;
use tidegate::catalog::{Declared, DeclaredDevice, DeclaredModule, DeclaredTemplate, Kind, Metric};
use tidegate::store::batch::{Batch, Change, DeviceChange, DeviceIntro, SensorIntro, SensorOrigin};
use tidegate::store::{Assignment, StoreError};

use super::catalog::template;
use super::{Site, device, lookup, on_both, reading, sensor};

on_both!(
    an_assignment_sets_aside_what_cant_go_on_and_what_is_under_way_goes_to_the_old_series,
    an_assignment_is_refused_with_a_clear_word,
    a_retired_template_is_kept_and_given_to_nobody,
    a_match_sets_aside_between_the_sensors_before_and_after_it,
    a_template_that_changes_its_unit_leaves_the_history_its_own,
    a_module_leaves_its_history_with_the_device_and_finds_it_again,
    a_device_declared_without_a_template_keeps_what_it_was_given,
);

fn metric(name: &str, unit: &str) -> Metric {
    Metric { unit: unit.into(), scale: 1.0, offset: 0.0, ..(*template("x").metrics[0]).clone() }.named(name)
}

trait Named {
    fn named(self, name: &str) -> Self;
}

impl Named for Metric {
    fn named(self, name: &str) -> Metric {
        Metric { name: name.into(), keys: vec![tidegate::catalog::Key::from(name)], required: false, ..self }
    }
}

fn of(slug: &str, metrics: Vec<Metric>) -> DeclaredTemplate {
    let metrics: Vec<_> = metrics.into_iter().map(Arc::new).collect();
    let slots = template("x").slots;
    DeclaredTemplate {
        template: tidegate::catalog::Template {
            tenant: None,
            slots,
            keys: tidegate::catalog::KeyMap::of(&metrics),
            metrics,
            ..template(slug)
        },
        shipped: false,
    }
}

/// Celsius and Fahrenheit, which share `humidity`.
fn declared() -> Declared {
    Declared {
        templates: vec![
            of("celsius", vec![metric("temperature", "°C"), metric("humidity", "%")]),
            of("fahrenheit", vec![metric("temperature", "°F"), metric("humidity", "%")]),
        ],
        ..Declared::default()
    }
}

fn celsius(position: u64, readings: Vec<tidegate::store::batch::Reading>) -> Batch {
    let given = DeviceIntro { template: Some("celsius".into()), template_by: Some(GivenBy::Source), ..device(0) };
    Batch {
        position,
        generation: 1,
        messages: 1,
        devices: vec![given],
        sensors: vec![sensor(0, 0, "temperature"), SensorIntro { unit: "%".into(), ..sensor(1, 0, "humidity") }],
        readings,
        ..Batch::default()
    }
}

/// `metric unit = how many`, as the view has them.
fn view(site: &Site) -> Vec<String> {
    let sql = "SELECT metric || ' ' || unit || ' = ' || CAST(count(*) AS text) AS t FROM readings GROUP BY metric, unit ORDER BY metric";
    site.texts(sql)
}

fn an_assignment_sets_aside_what_cant_go_on_and_what_is_under_way_goes_to_the_old_series(site: &Site) {
    site.store.reconcile(&declared()).unwrap();
    let (mut writer, _) = site.writer();
    writer.commit(&celsius(1, vec![reading(0, 1, 20.0, 1), reading(1, 1, 40.0, 1)]), &lookup).unwrap();
    let version = site.store.catalog_version().unwrap();
    let assigned = site.store.assign(None, "d0", Assignment::Template("fahrenheit")).unwrap();
    assert_eq!(
        (assigned.before.as_deref(), &assigned.set_aside[..]),
        (Some("celsius"), &["temperature~1".to_owned()][..])
    );
    assert_eq!(site.store.catalog_version().unwrap(), version + 1);

    // A batch of the generation before is under way still: it knows the sensors by their rows.
    let under_way = Batch { devices: Vec::new(), sensors: Vec::new(), ..celsius(2, vec![reading(0, 2, 21.0, 2)]) };
    writer.commit(&under_way, &lookup).unwrap();
    assert_eq!(view(site), ["humidity % = 1", "temperature~1 °C = 2"]);

    // The next generation, from a snapshot after it.
    let known = site.store.snapshot().unwrap().devices.remove(0);
    assert_eq!((known.template.as_deref(), known.template_by), (Some("fahrenheit"), Some(GivenBy::Assigned)));
    let mut next = celsius(3, vec![reading(0, 3, 68.0, 3), reading(1, 3, 41.0, 3)]);
    next.generation = 2;
    next.devices[0].id = Some(known.id);
    next.sensors[0].unit = "°F".into();
    next.sensors[1].id = known.sensors.iter().find(|one| &*one.metric == "humidity").map(|one| one.id);
    writer.commit(&next, &lookup).unwrap();
    assert_eq!(view(site), ["humidity % = 2", "temperature °F = 1", "temperature~1 °C = 2"]);

    // Back again: the series set aside stays aside, and so does the other.
    let back = site.store.assign(Some("default"), "d0", Assignment::Template("celsius")).unwrap();
    assert_eq!(back.set_aside, ["temperature~2"]);
    let none = site.store.assign(None, "d0", Assignment::Nothing).unwrap();
    assert_eq!((none.before.as_deref(), none.set_aside.len()), (Some("celsius"), 0));
    let row = site.store.device(None, "d0").unwrap().remove(0).device;
    assert_eq!((row.template.as_deref(), row.template_by.as_deref()), (None, Some("assigned")));
    site.store.assign(None, "d0", Assignment::Matching).unwrap();
    assert_eq!(site.store.device(None, "d0").unwrap()[0].device.template_by, None);
    assert_eq!(view(site), ["humidity % = 2", "temperature~1 °C = 2", "temperature~2 °F = 1"]);
}

fn an_assignment_is_refused_with_a_clear_word(site: &Site) {
    let by_file = DeclaredDevice {
        tenant: "default".into(),
        uid: "d0".into(),
        name: None,
        template: Some("celsius".into()),
        parent: None,
        site: None,
        tags: BTreeMap::new(),
        modules: Vec::new(),
    };
    let other = DeclaredDevice { tenant: "acme".into(), uid: "d1".into(), template: None, ..by_file.clone() };
    let another = DeclaredDevice { uid: "d1".into(), template: None, ..by_file.clone() };
    let own = of("rankine", vec![metric("temperature", "°F")]);
    let own = tidegate::catalog::Template { tenant: Some("acme".into()), ..own.template };
    let mut files = Declared { devices: vec![by_file, other, another], ..declared() };
    files.templates.push(DeclaredTemplate { template: own, shipped: false });
    site.store.reconcile(&files).unwrap();
    let version = site.store.catalog_version().unwrap();
    for (tenant, uid, slug, words) in [
        (None, "d0", "fahrenheit", "declared in a file"),
        (None, "nobody", "celsius", "there is no device nobody"),
        (Some("acme"), "d0", "celsius", "no device d0 in the tenant acme"),
        (None, "d1", "celsius", "more than one tenant"),
        (Some("acme"), "d1", "kelvin", "there is no template kelvin"),
        (
            Some("default"),
            "d1",
            "rankine",
            "rankine is a template of the tenant acme alone, and d1 is a device of the tenant default",
        ),
    ] {
        match site.store.assign(tenant, uid, Assignment::Template(slug)) {
            Err(StoreError::Unfit { detail }) => assert!(detail.contains(words), "{detail}"),
            other => panic!("{words}: {other:?}"),
        }
    }
    assert_eq!(site.store.catalog_version().unwrap(), version, "nothing has changed");
    for slug in ["celsius", "rankine"] {
        assert_eq!(site.store.assign(Some("acme"), "d1", Assignment::Template(slug)).unwrap().tenant, "acme");
    }
}

fn a_retired_template_is_kept_and_given_to_nobody(site: &Site) {
    site.store.reconcile(&declared()).unwrap();
    let (mut writer, _) = site.writer();
    writer.commit(&celsius(1, vec![reading(0, 1, 20.0, 1)]), &lookup).unwrap();
    site.store.assign(None, "d0", Assignment::Template("fahrenheit")).unwrap();
    let files = Declared { templates: vec![of("celsius", vec![metric("temperature", "°C")])], ..Declared::default() };
    assert_eq!(site.store.reconcile(&files).unwrap().templates_retired, ["fahrenheit"]);
    let snapshot = site.store.snapshot().unwrap();
    assert!(snapshot.templates.contains_key("fahrenheit") && snapshot.retired.contains("fahrenheit"));
    site.store.assign(None, "d0", Assignment::Template("fahrenheit")).expect("it has it already");
    site.store.assign(None, "d0", Assignment::Template("celsius")).unwrap();
    match site.store.assign(None, "d0", Assignment::Template("fahrenheit")) {
        Err(StoreError::Unfit { detail }) => {
            assert!(detail.contains("fahrenheit is retired") && detail.contains("bring its file back"), "{detail}");
        }
        other => panic!("{other:?}"),
    }
    site.store.reconcile(&declared()).unwrap();
    assert!(site.store.snapshot().unwrap().retired.is_empty());
    site.store.assign(None, "d0", Assignment::Template("fahrenheit")).expect("its file is back");
}

fn a_match_sets_aside_between_the_sensors_before_and_after_it(site: &Site) {
    site.store.reconcile(&declared()).unwrap();
    let (mut writer, _) = site.writer();
    let raw = |index, metric: &str| SensorIntro {
        unit: String::new(),
        origin: SensorOrigin::Unmodeled,
        ..sensor(index, 0, metric)
    };
    let by = |slug: &str, by, sensors_before| DeviceChange {
        device: 0,
        sensors_before,
        change: Change::Template { slug: slug.into(), by },
    };
    // One batch: raw, then °C, then °F. What is raw and plain goes on as °C; °C can't go on as °F.
    let batch = Batch {
        devices: vec![device(0)],
        sensors: vec![
            raw(0, "temperature"),
            raw(1, "other"),
            SensorIntro { unit: "°F".into(), ..sensor(2, 0, "temperature") },
        ],
        changes: vec![by("celsius", GivenBy::Decoder, 2), by("fahrenheit", GivenBy::Model, 2)],
        ..celsius(1, vec![reading(0, 1, 20.0, 1), reading(1, 1, 1.0, 1), reading(2, 2, 68.0, 1)])
    };
    writer.commit(&batch, &lookup).unwrap();
    assert_eq!(view(site), ["other  = 1", "temperature °F = 1", "temperature~1 °C = 1"]);

    // A sensor that another generation made in another unit is set aside when its name is wanted.
    let mut late = celsius(2, vec![reading(0, 3, 20.0, 2)]);
    late.generation = 2;
    late.sensors.truncate(1);
    writer.commit(&late, &lookup).unwrap();
    assert_eq!(view(site), ["other  = 1", "temperature °C = 1", "temperature~1 °C = 1", "temperature~2 °F = 1"]);
}

fn a_template_that_changes_its_unit_leaves_the_history_its_own(site: &Site) {
    let mut declared = declared();
    site.store.reconcile(&declared).unwrap();
    let (mut writer, _) = site.writer();
    writer.commit(&celsius(1, vec![reading(0, 1, 20.0, 1), reading(1, 1, 40.0, 1)]), &lookup).unwrap();
    Arc::make_mut(&mut declared.templates[0].template.metrics[1]).range = Some((0.0, 100.0));
    assert_eq!(site.store.reconcile(&declared).unwrap().series_set_aside, 0);
    Arc::make_mut(&mut declared.templates[0].template.metrics[0]).unit = "K".into();
    Arc::make_mut(&mut declared.templates[0].template.metrics[1]).kind = Kind::Text;
    assert_eq!(site.store.reconcile(&declared).unwrap().series_set_aside, 2);
    assert_eq!(view(site), ["humidity~1 % = 1", "temperature~1 °C = 1"]);
}

fn a_module_leaves_its_history_with_the_device_and_finds_it_again(site: &Site) {
    let module = |address: &str| DeclaredModule {
        uid: "m1".into(),
        slot: Some("rs485-1".into()),
        address: Some(address.into()),
        template: Some("celsius".into()),
    };
    let of = |uid: &str, modules| DeclaredDevice {
        tenant: "default".into(),
        uid: uid.into(),
        name: None,
        template: None,
        parent: None,
        site: None,
        tags: BTreeMap::new(),
        modules,
    };
    let at_first = Declared { devices: vec![of("d0", vec![module("17")]), of("d1", Vec::new())], ..declared() };
    let moved = Declared { devices: vec![of("d0", Vec::new()), of("d1", vec![module("18")])], ..declared() };
    let of_module =
        |index, device| SensorIntro { module: Some("m1".into()), ..sensor(index, device, "m1.temperature") };
    site.store.reconcile(&at_first).unwrap();
    let (mut writer, _) = site.writer();
    let batch = |position, generation, device_index: u32, value| Batch {
        position,
        generation,
        devices: vec![device(device_index)],
        sensors: vec![of_module(0, device_index)],
        readings: vec![reading(0, position as i64, value, position)],
        ..Batch::default()
    };
    writer.commit(&batch(1, 1, 0, 1.0), &lookup).unwrap();
    let found = site.store.device(None, "d0").unwrap().remove(0);
    assert_eq!((found.modules[0].slot.as_deref(), found.modules[0].address.as_deref()), (Some("rs485-1"), Some("17")));

    assert_eq!(site.store.reconcile(&moved).unwrap().modules_changed, 2);
    writer.commit(&batch(2, 2, 1, 2.0), &lookup).unwrap();
    let history = |uid: &str| {
        site.number(&format!(
            "SELECT CAST(max(value) AS bigint) AS n FROM readings WHERE device = '{uid}' AND metric = 'm1.temperature'"
        ))
    };
    assert_eq!((history("d0"), history("d1")), (1, 2), "each history stays with its device");

    site.store.reconcile(&at_first).unwrap();
    writer.commit(&batch(3, 3, 0, 3.0), &lookup).unwrap();
    assert_eq!((history("d0"), history("d1")), (3, 2));
    let owned = "SELECT count(*) AS n FROM device_sensors s JOIN device_modules m ON m.id = s.module_id AND m.device_id = s.device_id";
    assert_eq!(site.number(owned), 1);
    // In another place on the same bus it is the same module.
    let elsewhere = Declared { devices: vec![of("d0", vec![module("19")]), of("d1", Vec::new())], ..declared() };
    assert_eq!(site.store.reconcile(&elsewhere).unwrap().modules_changed, 1);
    assert_eq!(site.number(owned), 1);
}

fn a_device_declared_without_a_template_keeps_what_it_was_given(site: &Site) {
    let of = |template: Option<&str>| DeclaredDevice {
        tenant: "default".into(),
        uid: "d0".into(),
        name: None,
        template: template.map(str::to_owned),
        parent: None,
        site: None,
        tags: BTreeMap::new(),
        modules: Vec::new(),
    };
    let reconcile = |devices| site.store.reconcile(&Declared { devices, ..declared() }).unwrap();
    let given = || {
        let row = site.store.device(None, "d0").unwrap().remove(0).device;
        (row.template, row.template_by)
    };
    let is = |template: Option<&str>, by: Option<&str>| (template.map(str::to_owned), by.map(str::to_owned));
    reconcile(vec![of(None)]);
    site.store.assign(None, "d0", Assignment::Template("fahrenheit")).unwrap();
    assert!(reconcile(vec![of(None)]).is_empty());
    assert_eq!(given(), is(Some("fahrenheit"), Some("assigned")));
    reconcile(vec![of(Some("celsius"))]);
    assert_eq!(given(), is(Some("celsius"), Some("declared")));
    reconcile(Vec::new());
    assert_eq!(given(), is(Some("celsius"), None), "it keeps it until something matches");
    reconcile(vec![of(Some("celsius"))]);
    reconcile(vec![of(None)]);
    assert_eq!(given(), is(None, None));
    // A parent that a message told gives way to the files.
    site.execute("UPDATE devices SET parent_id = NULL");
    let gateway = DeclaredDevice { uid: "gw".into(), ..of(None) };
    reconcile(vec![of(None), gateway.clone()]);
    site.execute("UPDATE devices SET parent_id = (SELECT id FROM devices WHERE uid = 'd0') WHERE uid = 'gw'");
    assert!(reconcile(vec![of(None), gateway.clone()]).is_empty());
    reconcile(vec![DeclaredDevice { parent: Some("gw".into()), ..of(None) }, gateway.clone()]);
    assert_eq!(site.store.device(None, "d0").unwrap()[0].parent.as_deref(), Some("gw"));
    assert_eq!(site.store.device(None, "gw").unwrap()[0].parent, None);
    // And they may turn around what they said.
    reconcile(vec![of(None), DeclaredDevice { parent: Some("d0".into()), ..gateway }]);
    assert_eq!(site.store.device(None, "gw").unwrap()[0].parent.as_deref(), Some("d0"));
}
