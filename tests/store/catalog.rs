use std::collections::BTreeMap;
use std::time::Duration;

use tidegate::catalog::matching::Criteria;
use tidegate::catalog::{
    Declared, DeclaredDevice, DeclaredModule, DeclaredTemplate, Derived, Expression, Formula, Key, KeyMap, Kind,
    Metric, Slot, Template, TemplateCommand,
};

use super::{Site, on_both};

on_both!(
    the_snapshot_is_what_was_reconciled,
    reconciling_again_changes_nothing,
    a_changed_template_is_overwritten_and_a_missing_one_retired,
    parents_sites_and_modules_follow_the_files,
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
        min_step: None,
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
    let metrics = vec![temperature, contact];
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
        matching: Some(Criteria {
            decoder: vec!["json".into()],
            model: vec!["A-1*".into()],
            fields: BTreeMap::from([("model".into(), vec!["A-1".into()])]),
            keys: vec!["{n}.tempf".into()],
            ..Criteria::default()
        }),
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
        }],
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
            DeclaredTemplate { template: template("shipped"), shipped: true },
        ],
        devices: vec![child, device("gateway")],
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
    let cellar = snapshot.devices.iter().find(|device| &*device.uid == "cellar").unwrap();
    assert_eq!(cellar.template.as_deref(), Some("acme-climate"));
    assert_eq!(&*cellar.tenant, "default");
    assert_eq!((cellar.modules[0].uid.as_str(), cellar.modules[0].template.as_deref()), ("m1", Some("shipped")));
    assert_eq!(site.number("SELECT count(*) AS n FROM device_templates WHERE tenant_id IS NULL AND locked"), 1);
    assert_eq!(site.number("SELECT count(*) AS n FROM template_metrics WHERE tenant_id IS NULL"), 2);
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
    changed.templates[0].template.metrics[0].scale = 2.0;
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
