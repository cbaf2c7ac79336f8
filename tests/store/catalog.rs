use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidegate::catalog::matching::Criteria;
use tidegate::catalog::{
    Declared, DeclaredDevice, DeclaredModule, DeclaredTemplate, Derived, Expression, Formula, Key, KeyMap, Kind,
    Metric, Slot, Template, TemplateCommand,
};

use super::{Site, batch, lookup, on_both, reading, sensor};
use tidegate::store::Store;
use tidegate::store::batch::{Batch, SensorIntro, SensorOrigin};

on_both!(
    the_snapshot_is_what_was_reconciled,
    reconciling_again_changes_nothing,
    a_changed_template_is_overwritten_and_a_missing_one_retired,
    what_a_reconciliation_leaves_for_the_snapshot_is_what_the_database_has,
    parents_sites_and_modules_follow_the_files,
    a_version_that_does_not_rise_is_told,
    a_row_of_an_older_version_is_read,
    a_sensor_keeps_the_raw_key_and_the_unit_that_it_came_by,
);

pub fn template(slug: &str) -> Template {
    let metric = |name: &str, keys: &[&str]| Metric {
        name: name.into(),
        unit: "°C".into(),
        kind: Kind::Number,
        keys: keys.iter().map(|key| Key::from(*key)).collect(),
        scale: 0.1,
        offset: -40.25,
        range: Some((-40.0, 85.0)),
        required: true,
        values: BTreeMap::new(),
        words: BTreeMap::new(),
        min_step: None,
        twin: Some(format!("settings.{name}").into()),
    };
    let contact = Metric {
        kind: Kind::Bool,
        unit: String::new(),
        range: None,
        required: false,
        values: BTreeMap::from([("open".into(), 0.0), ("closed".into(), 1.0)]),
        min_step: Some(0.5),
        ..metric("contact", &["contact"])
    };
    let fahrenheit = Key { unit: Some("°F".into()), scale: Some(0.1), ..Key::from("{n}.tempf") };
    let mut temperature = metric("temperature", &["temp", "ENV.Temperature"]);
    temperature.keys.push(fahrenheit);
    let state = Metric {
        kind: Kind::Text,
        unit: String::new(),
        scale: 1.0,
        offset: 0.0,
        range: None,
        required: false,
        words: BTreeMap::from([("0".into(), "idle".into()), ("1".into(), "heating".into())]),
        ..metric("state", &["state"])
    };
    let metrics = vec![Arc::new(temperature), Arc::new(contact), Arc::new(state)];
    Template {
        slug: slug.into(),
        name: "ACME".into(),
        category: "sensor".into(),
        version: 3,
        tenant: Some("acme".into()),
        extends: Some("native-climate".into()),
        manufacturer: Some("ACME".into()),
        models: vec!["A-1".into(), "A-1B".into()],
        reference: Some("https://acme.example/a1".into()),
        expected_interval: Some(Duration::from_secs(600)),
        matching: vec![
            Criteria {
                decoder: vec!["json".into()],
                model: vec!["A-1*".into()],
                fields: BTreeMap::from([("model".into(), vec!["A-1".into()])]),
                keys: vec!["{n}.tempf".into()],
                ..Criteria::default()
            },
            Criteria { device: vec!["a1-*".into()], ..Criteria::default() },
        ],
        derived: vec![Derived {
            name: "temperature_2".into(),
            unit: "°C".into(),
            range: Some((-40.0, 85.0)),
            formula: Formula::Expression(Expression::parse("temperature / 2").unwrap()),
            within: Duration::from_secs(60),
        }],
        keys: KeyMap::of(&metrics),
        metrics,
        commands: vec![TemplateCommand {
            name: "set_interval".into(),
            timeout: Duration::from_secs(30),
            parameters: serde_json::json!({"type": "object"}),
            manner: Default::default(),
        }],
        dialect: Default::default(),
        slots: vec![Slot { name: "rs485-1".into(), interface: "rs485".into(), compatible: vec!["acme-meter".into()] }],
    }
}

fn device(uid: &str) -> DeclaredDevice {
    DeclaredDevice {
        tenant: "default".into(),
        uid: uid.into(),
        name: None,
        template: Some("acme-climate".into()),
        parent: None,
        site: None,
        tags: BTreeMap::new(),
        modules: Vec::new(),
    }
}

fn declared() -> Declared {
    let child = DeclaredDevice {
        name: Some("Cellar".into()),
        parent: Some("gateway".into()),
        site: Some("Home".into()),
        modules: vec![DeclaredModule {
            uid: "m1".into(),
            slot: Some("rs485-1".into()),
            address: None,
            template: Some("shipped".into()),
        }],
        ..device("cellar")
    };
    Declared {
        templates: vec![
            DeclaredTemplate { template: template("acme-climate"), shipped: false },
            DeclaredTemplate { template: Template { tenant: None, ..template("shipped") }, shipped: true },
        ],
        devices: vec![child, device("gateway")],
        rules: Vec::new(),
        ..Declared::default()
    }
}

fn the_snapshot_is_what_was_reconciled(site: &Site) {
    let report = site.store.reconcile(&declared()).unwrap();
    assert_eq!(report.templates_added, ["acme-climate", "shipped"]);
    assert_eq!((report.devices_added, report.devices_changed), (2, 0));
    assert_eq!(report.unresolved, Vec::<String>::new());
    let snapshot = site.store.snapshot().unwrap();
    assert_eq!(snapshot.templates.len(), 2);
    assert_eq!(*snapshot.templates["acme-climate"], template("acme-climate"));
    assert_eq!(snapshot.offers.len(), 4, "two of each template");
    let cellar = snapshot.devices.iter().find(|device| &*device.uid == "cellar").unwrap();
    assert_eq!(cellar.template.as_deref(), Some("acme-climate"));
    assert_eq!(&*cellar.tenant, "default");
    assert_eq!((cellar.modules[0].uid.as_str(), cellar.modules[0].template.as_deref()), ("m1", Some("shipped")));
    assert_eq!(site.number("SELECT count(*) AS n FROM device_templates WHERE tenant_id IS NULL AND locked"), 1);
    assert_eq!(site.number("SELECT count(*) AS n FROM template_metrics WHERE tenant_id IS NULL"), 3);
}

fn reconciling_again_changes_nothing(site: &Site) {
    let first = site.store.reconcile(&declared()).unwrap();
    let again = site.store.reconcile(&declared()).unwrap();
    assert!(again.is_empty(), "{again:?}");
    assert_eq!(again.catalog_version, first.catalog_version);
    assert_eq!(site.store.catalog_version().unwrap(), first.catalog_version);
}

fn a_changed_template_is_overwritten_and_a_missing_one_retired(site: &Site) {
    let before = site.store.reconcile(&declared()).unwrap().catalog_version;
    let mut changed = declared();
    Arc::make_mut(&mut changed.templates[0].template.metrics[0]).scale = 2.0;
    let gone = changed.templates.remove(1);
    changed.devices[0].modules.clear();
    let report = site.store.reconcile(&changed).unwrap();
    assert_eq!(report.templates_changed, ["acme-climate"]);
    assert_eq!(report.templates_retired, ["shipped"]);
    assert_eq!(report.catalog_version, before + 1);
    let snapshot = site.store.snapshot().unwrap();
    assert!((snapshot.templates["acme-climate"].metrics[0].scale - 2.0).abs() < f64::EPSILON);
    assert!(!snapshot.templates.contains_key("shipped"));
    // It comes back as the row it was.
    let id = site.number(
        "SELECT id AS n FROM device_templates WHERE slug = 'shipped'"
            .replace("id AS", "CAST(id AS bigint) AS")
            .as_str(),
    );
    changed.templates.push(gone);
    assert_eq!(site.store.reconcile(&changed).unwrap().templates_changed, ["shipped"]);
    assert_eq!(site.number("SELECT CAST(id AS bigint) AS n FROM device_templates WHERE slug = 'shipped'"), id);
    assert!(site.store.snapshot().unwrap().templates.contains_key("shipped"));
}

fn what_a_reconciliation_leaves_for_the_snapshot_is_what_the_database_has(site: &Site) {
    let other = Store::open(&site.settings).unwrap();
    let holds = |what: &str| {
        let (left, read) = (site.store.snapshot().unwrap(), other.snapshot().unwrap());
        assert_eq!((left.templates, left.retired), (read.templates, read.retired), "{what}");
        assert_eq!(left.offers.len(), read.offers.len(), "{what}");
    };
    let mut files = declared();
    for what in ["added", "unchanged"] {
        site.store.reconcile(&files).unwrap();
        holds(what);
    }
    Arc::make_mut(&mut files.templates[0].template.metrics[0]).offset = 3.5;
    let gone = files.templates.remove(1);
    site.store.reconcile(&files).unwrap();
    holds("changed and retired");
    files.templates.push(gone);
    site.store.reconcile(&files).unwrap();
    holds("back");
    // Another changes the catalog between a reconciliation and the snapshot.
    site.store.reconcile(&files).unwrap();
    files.templates.remove(0);
    other.reconcile(&files).unwrap();
    assert_eq!(site.store.snapshot().unwrap().retired.len(), 1);
}

fn parents_sites_and_modules_follow_the_files(site: &Site) {
    site.store.reconcile(&declared()).unwrap();
    let found = site.store.device(None, "cellar").unwrap().remove(0);
    assert_eq!(found.parent.as_deref(), Some("gateway"));
    assert_eq!(found.device.site.as_deref(), Some("Home"));
    assert_eq!(found.device.name.as_deref(), Some("Cellar"));
    assert_eq!(found.modules[0].slot.as_deref(), Some("rs485-1"));

    let mut changed = declared();
    changed.devices[0].parent = Some("nobody".into());
    changed.devices[0].site = None;
    changed.devices[0].modules.clear();
    changed.devices.remove(1);
    let report = site.store.reconcile(&changed).unwrap();
    assert_eq!((report.devices_changed, report.modules_changed), (2, 1));
    assert_eq!(report.unresolved, ["device cellar: there is no parent nobody"]);
    let found = site.store.device(None, "cellar").unwrap().remove(0);
    assert_eq!((found.parent, found.device.site, found.modules.len()), (None, None, 0));
    // A device whose declaration is gone stays.
    assert!(!site.store.device(None, "gateway").unwrap()[0].device.declared);
}

fn a_version_that_does_not_rise_is_told(site: &Site) {
    let version = |version: u32, name: &str| {
        let parent = Template { version, name: name.into(), extends: None, ..template("acme-climate") };
        let child = Template { name: name.into(), extends: Some("acme-climate".into()), ..template("child") };
        let declared = [parent, child].map(|template| DeclaredTemplate { template, shipped: false });
        Declared { templates: declared.into(), ..Declared::default() }
    };
    let told = |declared: &Declared| site.store.reconcile(declared).unwrap().warnings;
    let events = || site.texts("SELECT detail AS t FROM events WHERE kind = 'template_lowered'");
    assert_eq!(told(&version(3, "first")), Vec::<String>::new());
    assert_eq!(told(&version(4, "second")), Vec::<String>::new(), "the child changes with its parent");
    let same = told(&version(4, "third"));
    assert_eq!(same.len(), 2, "{same:?}");
    assert!(same[0].contains("its content has changed under the same version 4"), "{same:?}");
    assert_eq!(events(), Vec::<String>::new());
    let lowered = "template acme-climate: version 2 takes the place of version 4, which is higher";
    assert_eq!(told(&version(2, "third")), [lowered]);
    assert_eq!(events(), [lowered]);
    assert_eq!(told(&version(2, "third")), Vec::<String>::new());
    // The files are what counts, whatever their version.
    assert_eq!(site.store.snapshot().unwrap().templates["acme-climate"].version, 2);
}

fn a_row_of_an_older_version_is_read(site: &Site) {
    site.store.reconcile(&declared()).unwrap();
    site.execute(
        "UPDATE template_metrics SET keys = '[\"temp\",\"a{b\"]' WHERE name = 'temperature';
         UPDATE device_templates SET extends = NULL, models = '[]', matching = NULL, derived = '[]', manufacturer = NULL;",
    );
    // The next start, that is: what was just reconciled is not read once more.
    let snapshot = Store::open(&site.settings).unwrap().snapshot().unwrap();
    let old = &snapshot.templates["acme-climate"];
    assert!(old.derived.is_empty() && old.matching.is_empty());
    assert_eq!(old.keys.exact("a{b").map(|at| at.metric), Some(0));
    assert_eq!(site.store.reconcile(&declared()).unwrap().templates_changed, ["acme-climate", "shipped"]);
}

fn a_sensor_keeps_the_raw_key_and_the_unit_that_it_came_by(site: &Site) {
    let (mut writer, _) = site.writer();
    let unmodeled = |index: u32, metric: &str, unit: &str| SensorIntro {
        unit: unit.into(),
        origin: SensorOrigin::Unmodeled,
        ..sensor(index, 0, metric)
    };
    let mut first = batch(1, vec![reading(0, 1, 1.0, 1)]);
    first.sensors = vec![
        sensor(0, 0, "temperature"),
        SensorIntro { raw_key: Some("probe-1".into()), ..sensor(1, 0, "temperature_2") },
        unmodeled(2, "bare", ""),
        unmodeled(3, "told", "°F"),
        // In one batch with its introduction, as one that a template requires.
        SensorIntro { raw_key: Some("probe-7".into()), ..sensor(0, 0, "temperature") },
    ];
    writer.commit(&first, &lookup).unwrap();
    let later = Batch {
        position: 2,
        generation: 1,
        sensors: vec![
            SensorIntro { raw_key: Some("probe-9".into()), ..sensor(1, 0, "temperature_2") },
            unmodeled(2, "bare", "hPa"),
            unmodeled(3, "told", "K"),
        ],
        ..Batch::default()
    };
    writer.commit(&later, &lookup).unwrap();
    let snapshot = site.store.snapshot().unwrap();
    let found: Vec<(&str, Option<&str>, &str)> = snapshot.devices[0]
        .sensors
        .iter()
        .map(|sensor| (&*sensor.metric, sensor.raw_key.as_deref(), &*sensor.unit))
        .collect();
    let mut expected = [
        ("temperature", Some("probe-7"), "°C"),
        ("temperature_2", Some("probe-1"), "°C"),
        ("bare", None, "hPa"),
        ("told", None, "°F"),
    ];
    let mut found = found;
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected, "what it came by first stays");
}
