//! The operator's catalog files declare templates and devices, or every fault in them is reported at once.

use std::fs;
use std::path::Path;

use tempfile::TempDir;
use tidegate::catalog::{Declared, Kind, Template, files};

/// A catalog directory of `(path below it, text)`.
fn catalog(entries: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (path, text) in entries {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

fn accepted(entries: &[(&str, &str)]) -> Declared {
    let dir = catalog(entries);
    files::load(Some(dir.path())).unwrap_or_else(|faults| panic!("{faults}"))
}

/// All faults, with places relative to the catalog.
fn refused(entries: &[(&str, &str)]) -> String {
    let dir = catalog(entries);
    let faults = files::load(Some(dir.path())).expect_err("accepted");
    faults.to_string().replace(&format!("{}/", dir.path().display()), "")
}

fn own<'a>(declared: &'a Declared, slug: &str) -> &'a Template {
    let found = declared.templates.iter().find(|declared| declared.template.slug == slug).unwrap();
    assert!(!found.shipped);
    &found.template
}

const METER: &str = r#"
slug = "acme-meter"
name = "ACME meter"
category = "meter"
version = 3

[[metric]]
name = "energy"
unit = "kWh"
keys = ["e", "ENERGY.Total"]
scale = 0.001
offset = -1
range = [0, 1e9]
required = true
non_decreasing = true

[[metric]]
name = "mode"
kind = "number"
values = { "auto" = 2, "off" = 0, "on" = true }
min_step = 0.5

[[metric]]
name = "serial"
kind = "text"

[[command]]
name = "reset"
timeout = "5s"
parameters = { type = "object", properties = { hard = { type = "boolean" } } }

[[slot]]
name = "rs485-1"
interface = "rs485"
compatible = ["native-climate"]

[[slot]]
name = "usb"
interface = "usb"
"#;

#[test]
fn a_template_is_read_whole() {
    let declared = accepted(&[("templates/meter.toml", METER)]);
    let meter = own(&declared, "acme-meter");
    assert_eq!((meter.name.as_str(), meter.category.as_str(), meter.version), ("ACME meter", "meter", 3));
    let energy = &meter.metrics[0];
    assert_eq!((energy.unit.as_str(), energy.kind), ("kWh", Kind::Number));
    assert_eq!((energy.scale, energy.offset, energy.range), (0.001, -1.0, Some((0.0, 1e9))));
    assert_eq!((energy.required, energy.min_step), (true, Some(0.0)));
    let mode = &meter.metrics[1];
    assert_eq!(mode.keys, [tidegate::catalog::Key::from("mode")]);
    assert_eq!(
        mode.values.iter().map(|(word, value)| (word.as_str(), *value)).collect::<Vec<_>>(),
        [("auto", 2.0), ("off", 0.0), ("on", 1.0)]
    );
    assert_eq!(mode.min_step, Some(0.5));
    assert_eq!(meter.keys.exact("ENERGY.Total").map(|at| at.metric), Some(0));
    assert_eq!(meter.keys.exact("serial").map(|at| at.metric), Some(2));
    assert_eq!(meter.commands[0].parameters["properties"]["hard"]["type"], "boolean");
    assert_eq!(meter.slots[0].compatible, ["native-climate"]);
}

#[test]
fn devices_are_read_with_parents_and_modules_in_any_order_of_files() {
    let devices = r#"
[[device]]
uid = "leaf"
name = "Leaf"
template = "acme-meter"
parent = "root"
site = "hall"
tags = { floor = "2" }
[[device.module]]
uid = "m1"
slot = "rs485-1"
address = "17"
template = "native-climate"
[[device.module]]
uid = "m2"
slot = "rs485-1"
address = "18"
"#;
    let declared = accepted(&[
        ("devices/a.toml", devices),
        ("devices/b.toml", "[[device]]\nuid = \"root\"\n[[device]]\nuid = \"leaf\"\ntenant = \"other\"\n"),
        ("templates/meter.toml", METER),
        ("templates/notes.txt", "not read"),
        ("other/hot.toml", "not = \"read here\""),
    ]);
    let leaf = &declared.devices[0];
    assert_eq!((leaf.tenant.as_str(), leaf.uid.as_str()), ("default", "leaf"));
    assert_eq!((leaf.parent.as_deref(), leaf.site.as_deref()), (Some("root"), Some("hall")));
    assert_eq!(leaf.tags.iter().collect::<Vec<_>>(), [(&"floor".to_owned(), &"2".to_owned())]);
    assert!(declared.devices[1].tags.is_empty());
    let place = (leaf.modules[0].slot.as_deref(), leaf.modules[0].address.as_deref());
    assert_eq!(place, (Some("rs485-1"), Some("17")));
    assert_eq!((leaf.modules[1].uid.as_str(), leaf.modules[1].template.as_deref()), ("m2", None));
    assert_eq!(declared.devices[2].tenant, "other");
}

#[test]
fn without_a_directory_there_are_the_shipped_templates() {
    let declared = files::load(None).unwrap();
    assert!(declared.templates.iter().all(|template| template.shipped));
    assert!(declared.templates.iter().any(|template| template.template.slug == "native-climate"));
    assert_eq!(accepted(&[]), declared);
    assert!(files::load(Some(Path::new("/does/not/exist"))).unwrap_err().to_string().contains("no directory"));
}

#[test]
fn every_wrong_template_is_refused_with_its_place_and_what_would_be_right() {
    let metric = |rest: &str| format!("slug = \"x\"\n[[metric]]\nname = \"m\"\n{rest}");
    let slot = |rest: &str| format!("slug = \"x\"\n[[slot]]\nname = \"s\"\n{rest}");
    let two = |rest: &str| metric(&format!("keys = [\"k\"]\n[[metric]]\nname = \"n\"\n{rest}"));
    let cases = [
        ("name = \"x\"".to_owned(), "t.toml: slug: is missing"),
        ("slug = \"ACME Climate\"".to_owned(), "t.toml:1: slug: \"ACME Climate\": expected"),
        ("slug = \"ACME Climate\"".to_owned(), "(perhaps `acme-climate`)"),
        ("slug = \"x\"\nversoin = 2".to_owned(), "t.toml:2: versoin: unknown key (did you mean `version`?)"),
        ("slug = \"x\"\nversion = 0".to_owned(), "t.toml:2: version: 0 is not within 1"),
        ("slug = \"x\"\n[[metrics]]\nname = \"m\"".to_owned(), "metrics: unknown key (did you mean `metric`?)"),
        ("slug = \"x\"\nname = ".to_owned(), "t.toml:2: not TOML"),
        ("slug = \"x\"\n[[metric]]\nunit = \"V\"".to_owned(), "t.toml:2: metric[0].name: is missing"),
        ("slug = \"x\"\n[[metric]]\nname = \"a b\"".to_owned(), "t.toml:3: metric[0].name: expected"),
        (metric("unti = \"V\""), "t.toml:4: metric[0].unti: unknown key (did you mean `unit`?)"),
        (metric("unit = \"C\""), "t.toml:4: metric[0].unit: \"C\" is no unit that tidegate knows (did you mean `°C`?)"),
        (metric("unit = \"furlong\""), "\"furlong\" is no unit"),
        (metric("kind = \"nubmer\""), "t.toml:4: metric[0].kind: \"nubmer\" is unknown"),
        (metric("kind = \"nubmer\""), "did you mean `number`?"),
        (metric("range = [85, -40]"), "t.toml:4: metric[0].range: the lower bound 85 is above the upper bound -40"),
        (metric("range = [1]"), "expected [lowest, highest], found 1 numbers"),
        (metric("range = [0, inf]"), "expected a list of finite numbers"),
        (metric("scale = 0"), "metric[0].scale: is 0"),
        (metric("scale = nan"), "metric[0].scale: expected a finite number"),
        (metric("offset = \"1\""), "expected a finite number, found a text"),
        (metric("kind = \"text\"\nscale = 2"), "t.toml:5: metric[0].scale: has no meaning for kind = \"text\""),
        (metric("kind = \"text\"\noffset = 2"), "t.toml:5: metric[0].offset: has no meaning"),
        (metric("kind = \"text\"\nrange = [0, 1]"), "t.toml:5: metric[0].range: has no meaning"),
        (metric("kind = \"bool\"\nmin_step = 1"), "metric[0].min_step: has no meaning for kind = \"bool\""),
        (metric("kind = \"bool\"\nvalues = { open = 2 }"), "metric[0].values.open: is 2; for kind = \"bool\""),
        (metric("values = { open = \"x\" }"), "metric[0].values.open: expected a finite number, found a text"),
        (metric("min_step = -1"), "metric[0].min_step: is below 0"),
        (metric("min_step = 1\nnon_decreasing = true"), "give one of them"),
        (metric("keys = []"), "metric[0].keys: is empty"),
        (metric("keys = [\n \"a\",\n 5]"), "t.toml:6: metric[0].keys: expected a text or a table, found an integer"),
        (metric("keys = [\"a\", \"a\"]"), "\"a\" is listed twice"),
        (metric("keys = [\"\"]"), "expected keys of 1 to 255 bytes"),
        (two("keys = [\n\"j\",\n\"k\"]"), "t.toml:9: metric[1].keys: \"k\" is claimed by the metric \"m\" too"),
        (
            metric("[[metric]]\nname = \"m\"\nkeys = [\"z\"]"),
            "t.toml:5: metric[1].name: \"m\" is the name of an earlier",
        ),
        (slot("interface = \"rs-485\""), "did you mean `rs485`?"),
        (slot("interface = \"canbus\""), "expected one of \"analog\", \"rs485\""),
        (slot(""), "slot[0]: interface is missing"),
        (
            slot("interface = \"usb\"\ncompatible = [\"acme-climat\"]"),
            "t.toml:5: slot[0].compatible: there is no template",
        ),
        (
            slot("interface = \"usb\"\n[[slot]]\nname = \"s\"\ninterface = \"usb\""),
            "\"s\" is the name of an earlier slot",
        ),
        ("slug = \"x\"\n[[command]]\nname = \"c\"\ntimeout = \"0s\"".to_owned(), "t.toml:4: command[0].timeout: 0s"),
        ("slug = \"x\"\n[[command]]\nname = \"c\"\nparameters = 1".to_owned(), "expected a JSON Schema as a table"),
        (
            "slug = \"tasmota-plug\"".to_owned(),
            "t.toml:1: slug: \"tasmota-plug\" is a template shipped with tidegate, which is locked",
        ),
    ];
    for (text, expected) in &cases {
        let faults = refused(&[("templates/t.toml", text)]);
        assert!(faults.contains(expected), "{text}\n→ {faults}\nlacks {expected}");
        assert_eq!(faults.lines().count(), 1, "{text}\n→ {faults}");
    }
}

#[test]
fn every_wrong_device_is_refused_with_its_place_and_what_would_be_right() {
    let long = format!("[[device]]\nuid = \"{}\"", "x".repeat(300));
    let module = |rest: &str| {
        format!("[[device]]\nuid = \"d\"\ntemplate = \"acme-meter\"\n[[device.module]]\nuid = \"m\"\n{rest}")
    };
    let cases = [
        ("[[device]]\nname = \"x\"".to_owned(), "d.toml:1: device[0].uid: is missing"),
        ("[[device]]\nuid = \"a\\u0000b\"".to_owned(), "device[0].uid: expected 1 to 255 bytes without control"),
        (long, "device[0].uid: expected 1 to 255 bytes"),
        ("[[device]]\nuid = \"a+\"".to_owned(), "wildcards"),
        ("[[device]]\nuid = \"a\"\ntenent = \"t\"".to_owned(), "did you mean `tenant`?"),
        ("[[devices]]\nuid = \"a\"".to_owned(), "d.toml:1: devices: unknown key (did you mean `device`?)"),
        (
            "[[device]]\nuid = \"a\"\n[[device]]\nuid = \"a\"".to_owned(),
            "d.toml:4: device[1].uid: \"a\" is another device of this tenant, at d",
        ),
        (
            "[[device]]\nuid = \"a\"\ntemplate = \"acme-metre\"".to_owned(),
            "d.toml:3: device[0].template: there is no template",
        ),
        ("[[device]]\nuid = \"a\"\ntemplate = \"acme-metre\"".to_owned(), "did you mean `acme-meter`?"),
        ("[[device]]\nuid = \"gw-1\"\n[[device]]\nuid = \"b\"\nparent = \"gw-2\"".to_owned(), "did you mean `gw-1`?"),
        (
            "[[device]]\nuid = \"g\"\ntenant = \"t\"\n[[device]]\nuid = \"b\"\nparent = \"g\"".to_owned(),
            "d.toml:6: device[1].parent: there is no device \"g\" declared in the tenant \"default\"",
        ),
        (
            "[[device]]\nuid = \"a\"\nparent = \"a\"".to_owned(),
            "d.toml:3: device[0].parent: the parents form a cycle: a → a",
        ),
        (module("template = \"acme-climat\""), "device[0].module[0].template: there is no template"),
        (module("slot = \"rs485-2\""), "has no slot \"rs485-2\" (did you mean `rs485-1`?)"),
        (module("slot = \"can\""), "has no slot \"can\" (it has: rs485-1, usb)"),
        (
            module("slot = \"rs485-1\"\ntemplate = \"tasmota-plug\""),
            "d.toml:7: device[0].module[0].template: \"tasmota-plug\" does not fit the slot \"rs485-1\" of \"acme-meter\" (compatible: native-climate)",
        ),
        (module("[[device.module]]\nuid = \"m\""), "\"m\" is an earlier module of this device"),
        (module("slot = \"usb\"\n[[device.module]]\nuid = \"n\"\nslot = \"usb\""), "has a module already"),
        (
            module("slot = \"usb\"\naddress = \"1\""),
            "d.toml:7: device[0].module[0].address: the slot \"usb\" is no bus but usb, so its module has no address",
        ),
        (module("address = \"1\""), "d.toml:6: device[0].module[0].address: has no meaning without a slot"),
        (
            module(
                "slot = \"rs485-1\"\naddress = \"1\"\n[[device.module]]\nuid = \"n\"\nslot = \"rs485-1\"\naddress = \"1\"",
            ),
            "d.toml:11: device[0].module[1].address: \"1\" is the address of an earlier module on the bus \"rs485-1\"",
        ),
        (
            module("slot = \"rs485-1\"\naddress = \"1\"\n[[device.module]]\nuid = \"n\"\nslot = \"rs485-1\""),
            "d.toml:10: device[0].module[1].slot: other modules are on the bus \"rs485-1\": each needs an address",
        ),
        (
            module("slot = \"rs485-1\"\n[[device.module]]\nuid = \"n\"\nslot = \"rs485-1\"\naddress = \"1\""),
            "d.toml:9: device[0].module[1].slot: an earlier module on the bus \"rs485-1\" has no address",
        ),
        (
            "[[device]]\nuid = \"d\"\n[[device.module]]\nuid = \"m\"\nslot = \"usb\"".to_owned(),
            "d.toml:5: device[0].module[0].slot: the device has no template",
        ),
    ];
    for (text, expected) in &cases {
        let faults = refused(&[("devices/d.toml", text), ("templates/meter.toml", METER)]);
        assert!(faults.contains(expected), "{text}\n→ {faults}\nlacks {expected}");
        assert_eq!(faults.lines().count(), 1, "{text}\n→ {faults}");
    }
}

#[test]
fn a_cycle_of_parents_is_named_once_whatever_leads_into_it() {
    let device = |uid: &str, parent: &str| format!("[[device]]\nuid = \"{uid}\"\nparent = \"{parent}\"\n");
    let text = [("a", "b"), ("b", "c"), ("c", "d"), ("d", "b"), ("e", "d")].map(|(uid, parent)| device(uid, parent));
    let faults = refused(&[("devices/d.toml", &text.concat())]);
    assert_eq!(faults, "devices/d.toml:6: device[1].parent: the parents form a cycle: b → c → d → b");
}

#[test]
fn a_slug_in_two_files_names_both() {
    let faults = refused(&[("templates/a.toml", "slug = \"x\""), ("templates/b.toml", "\nslug = \"x\"")]);
    assert!(faults.starts_with("templates/b.toml:2: slug: \"x\" is the slug of another template, at "), "{faults}");
    assert!(faults.contains("templates/a.toml:1"), "{faults}");
}

#[test]
fn faults_of_all_files_come_at_once() {
    let faults = refused(&[
        ("templates/a.toml", "slug = \"x\"\nsize = 1"),
        ("templates/b.toml", "slug = [\n"),
        ("devices/c.toml", "[[device]]\nuid = \"d\"\nparent = \"e\""),
    ]);
    for start in ["templates/a.toml:2: size", "templates/b.toml:", "devices/c.toml:3: device[0].parent"] {
        assert!(faults.lines().any(|line| line.starts_with(start)), "{start} in\n{faults}");
    }
}

#[test]
fn a_misspelt_directory_is_not_passed_over() {
    let faults = refused(&[("template/a.toml", "slug = \"x\"")]);
    assert_eq!(faults, "template: is not read (did you mean `templates`?)");
}
