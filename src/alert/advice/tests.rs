use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::alert::rule_file;
use crate::catalog::{Derived, Expression, Formula, Metric};
use crate::config::document::Document;
use crate::config::section::Findings;
use crate::normalize::testing::{metric, template};

fn templates() -> Vec<Template> {
    let in_unit = |name: &str, unit: &str| Metric { unit: unit.into(), ..metric(name, Kind::Number) };
    let temperature = Metric { range: Some((-40.0, 85.0)), ..in_unit("temperature", "°C") };
    let mode = Metric { values: BTreeMap::from([("auto".into(), 2.0)]), ..metric("mode", Kind::Number) };
    let mut climate = template(
        "climate",
        vec![temperature, in_unit("dew_point", "°F"), in_unit("supply", "°C"), mode, metric("contact", Kind::Bool)],
    );
    climate.derived.push(Derived {
        name: "heat".into(),
        unit: "W".into(),
        range: Some((0.0, 100.0)),
        formula: Formula::Expression(Expression::parse("temperature * 2").unwrap()),
        within: std::time::Duration::ZERO,
    });
    let tracker = template(
        "tracker",
        vec![
            in_unit("latitude", "°"),
            in_unit("longitude", "°"),
            in_unit("east", "m"),
            metric("status", Kind::Text),
            metric("power_{phase}", Kind::Number),
        ],
    );
    let foreign =
        Template { tenant: Some("other".into()), ..template("foreign", vec![metric("secret", Kind::Number)]) };
    vec![climate, tracker, foreign]
}

fn device(uid: &str, template: Option<&str>) -> DeclaredDevice {
    DeclaredDevice {
        tenant: "default".into(),
        uid: uid.into(),
        name: None,
        template: template.map(str::to_owned),
        parent: None,
        site: Some("Cellar".into()),
        tags: BTreeMap::from([("floor".into(), "-1".into())]),
        modules: Vec::new(),
    }
}

/// The warnings of a rule that is written behind slug and severity.
fn advice(rest: &str) -> Vec<String> {
    let text = format!("slug = \"r\"\nseverity = \"info\"\n{rest}");
    let findings = Findings::default();
    let file = rule_file::read(&Document::parse(&Arc::from(Path::new("r.toml")), &text), &findings).unwrap();
    let faults: Vec<String> = findings.into_inner().faults.iter().map(ToString::to_string).collect();
    assert_eq!(faults, [""; 0], "{rest}");
    let (templates, devices) = (templates(), [device("pump-01", Some("climate")), device("gateway", None)]);
    let known = Known {
        rules: ["gateway-silent"].into(),
        templates: templates.iter().map(|template| (template.slug.as_str(), template)).collect(),
        devices: devices.iter().collect(),
    };
    let warnings = advise(&file.declared.as_ref().unwrap().rule, &known, |key| file.place_of(key));
    warnings.iter().map(ToString::to_string).collect()
}

/// Of a rule on all devices.
fn of(condition: &str) -> Vec<String> {
    advice(&format!("scope.all = true\nwhen = {{ {condition} }}"))
}

#[test]
fn a_rule_that_fits_the_catalog_has_no_warning() {
    for condition in [
        "metric = \"temperature\", gt = 30",
        "metric = \"heat\", gt = 30",
        "metric = \"power_a\", gt = 30",
        "metric = \"m1.temperature\", gt = 300",
        "metric = \"status\", eq = \"open\"",
        "metric = \"contact\", eq = true",
        "metric = \"temperature\", window = \"5m\", aggregate = \"sum\", gt = 300",
        "metric = \"temperature\", other = \"supply\", gt = 300",
        "metric = \"latitude\", geofence = { circle = [1, 2, 3] }, is = \"outside\"",
        "absent = \"5m\"",
        "metric = \"status\", absent = \"5m\"",
    ] {
        assert_eq!(of(condition), [""; 0], "{condition}");
    }
}

#[test]
fn a_metric_that_no_template_has_is_told_once_with_what_was_probably_meant() {
    let warnings = advice(
        "scope.all = true\nwhen = { metric = \"temprature\", gt = 30 }\nclear.lt = 28\nraise = [{ severity = \"critical\", when.gt = 40 }]",
    );
    assert_eq!(
        warnings,
        [
            "r.toml:4: when.metric: no template has a metric \"temprature\", so only a raw key of that name is meant (did you mean `temperature`?)"
        ]
    );
    let warnings = of("any = [{ absent = \"1h\" }, { not = { metric = \"sttus\", absent = \"1h\" } }]");
    assert!(
        warnings.len() == 1 && warnings[0].starts_with("r.toml:4: when.any[1].not.metric: no template"),
        "{warnings:?}"
    );
    let warnings = advice("scope.template = \"climate\"\nwhen = { metric = \"status\", absent = \"1h\" }");
    let expected = "when.metric: no template in the rule's scope has a metric \"status\" (`tracker` has it)";
    assert!(warnings.len() == 1 && warnings[0].ends_with(expected), "{warnings:?}");
    // What the scope's devices are declared to be is known.
    let of_device =
        |uid: &str| advice(&format!("scope.device = \"{uid}\"\nwhen = {{ metric = \"status\", absent = \"1h\" }}"));
    assert_eq!(of_device("pump-01").len(), 1);
    assert_eq!(of_device("gateway"), [""; 0]);
    assert_eq!(of_device("pump-*"), [""; 0]);
}

#[test]
fn what_a_metric_never_is_is_told() {
    for (condition, told) in [
        ("metric = \"status\", gt = 3", "when.metric: \"status\" is a text: only eq, ne and absent look at texts"),
        ("metric = \"status\", stuck = \"1h\"", "when.metric: \"status\" is a text"),
        ("metric = \"temperature\", eq = \"hot\"", "when.eq: \"temperature\" is a number, so no text ever comes"),
        ("metric = \"mode\", eq = \"auto\"", "no text ever comes (that word stands for eq = 2.0)"),
        (
            "metric = \"contact\", ne = \"open\"",
            "\"contact\" is true or false, so no text ever comes (write ne = true or ne = false)",
        ),
        ("metric = \"contact\", eq = 2", "when.eq: is never so: \"contact\" goes from 0 to 1"),
        ("metric = \"temperature\", gt = 90", "when.gt: is never so: \"temperature\" goes from -40 to 85"),
        ("metric = \"temperature\", samples = 3, outside = [-50, 90]", "when.outside: is never so"),
        ("metric = \"temperature\", window = \"5m\", aggregate = \"p95\", lt = 100", "when.lt: is always so"),
        ("metric = \"heat\", lt = 0", "when.lt: is never so: \"heat\" goes from 0 to 100"),
        (
            "metric = \"temperature\", other = \"dew_point\", lt = 2",
            "when.other: \"dew_point\" is in °F, but \"temperature\" in °C",
        ),
        ("metric = \"temperature\", other = \"dewpoint\", lt = 2", "when.other: no template has a metric \"dewpoint\""),
        (
            "metric = \"latitude\", longitude = \"east\", geofence = { circle = [1, 2, 3] }, is = \"outside\"",
            "when.longitude: \"east\" is in m, but a place is in °",
        ),
        ("metric = \"east\", geofence = { circle = [1, 2, 3] }, is = \"outside\"", "when.metric: \"east\" is in m"),
    ] {
        let warnings = of(condition);
        assert!(warnings.len() == 1 && warnings[0].contains(told), "{condition}: {warnings:?}");
    }
}

#[test]
fn a_scope_that_names_what_nothing_declares_is_told() {
    for (scope, told) in [
        (
            "template = \"climat\"",
            "r.toml:3: scope.template: there is no template \"climat\" (did you mean `climate`?)",
        ),
        ("site = \"Celar\"", "scope.site: no device file has the site \"Celar\" (did you mean `Cellar`?)"),
        ("device = \"pmup-01\"", "scope.device: no device file has the device \"pmup-01\" (did you mean `pump-01`?)"),
        ("tags = { flor = \"-1\" }", "scope.tags.flor: no device file has the tag \"flor\" (did you mean `floor`?)"),
        ("tags = { floor = \"1\" }", "scope.tags.floor: no device file has the tag floor = \"1\""),
        ("all = true, except = { template = \"climat\" }", "scope.except.template: there is no template \"climat\""),
    ] {
        let warnings = advice(&format!("scope = {{ {scope} }}\nwhen = {{ metric = \"temperature\", gt = 30 }}"));
        assert!(warnings.len() == 1 && warnings[0].contains(told), "{scope}: {warnings:?}");
    }
    for (by, told) in [
        ("site", None),
        ("tag:floor", None),
        (
            "tag:flor",
            Some(
                "group.by: no device file has a tag \"flor\": until one has, no device is in a group (did you mean `floor`?)",
            ),
        ),
    ] {
        let warnings =
            advice(&format!("scope.all = true\ngroup.by = \"{by}\"\nwhen = {{ metric = \"temperature\", gt = 30 }}"));
        assert!(warnings.len() == usize::from(told.is_some()), "{by}: {warnings:?}");
        assert!(warnings.iter().all(|warning| warning.contains(told.unwrap_or_default())), "{by}: {warnings:?}");
    }
    let foreign = advice("tenant = \"default\"\nscope.template = \"foreign\"\nwhen = { metric = \"secret\", gt = 30 }");
    assert!(
        foreign.len() == 1 && foreign[0].contains("of the tenant \"other\", this is for \"default\""),
        "{foreign:?}"
    );
    // A device need not be declared, and those of a fleet have names alike.
    for scope in ["device = \"pump-02\"", "device = \"press-7\"", "device = [\"pump-01\", \"gate*\"]"] {
        assert_eq!(advice(&format!("scope = {{ {scope} }}\nwhen.absent = \"1h\"")), [""; 0], "{scope}");
    }
}
