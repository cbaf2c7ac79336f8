//! Templates as files: the whole syntax, every fault with what would be right, and `tidegate templates`.

use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use serde_json::Value as Json;
use tempfile::TempDir;
use tidegate::catalog::{Declared, Formula, Template, files};

use crate::support::daemon::Tidegate;

fn catalog(templates: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("templates")).unwrap();
    for (name, text) in templates {
        fs::write(dir.path().join("templates").join(name), text).unwrap();
    }
    dir
}

fn accepted(templates: &[(&str, &str)]) -> Declared {
    let dir = catalog(templates);
    files::load(Some(dir.path())).unwrap_or_else(|faults| panic!("{faults}"))
}

fn refused(templates: &[(&str, &str)]) -> String {
    let dir = catalog(templates);
    let faults = files::load(Some(dir.path())).expect_err("accepted");
    faults.to_string().replace(&format!("{}/templates/", dir.path().display()), "")
}

fn template<'d>(declared: &'d Declared, slug: &str) -> &'d Template {
    &declared.templates.iter().find(|one| one.template.slug == slug).unwrap().template
}

const PLUG: &str = r#"
slug = "acme-plug"
name = "ACME plug"
category = "plug"
manufacturer = "ACME"
models = ["P-1", "P-1E"]
reference = "https://acme.example/p1"

[match]
decoder = ["json"]
source = ["acme"]
topic = ["acme/+/state"]
device = ["plug-*"]
model = ["P-1*"]
manufacturer = ["acme"]
fields = { "model" = ["P-1", 1, true], "kind" = "plug" }
keys = ["switch:{n+1}.apower"]

[[metric]]
name = "power"
unit = "W"
keys = ["apower", "switch:{n+1}.apower", { key = "power_mw", unit = "mW" }, { key = "p", unit = "W", unit_from = "p_in", units = { k = "kW" } }, { key = "raw", scale = 0.5, offset = 1 }]
range = [-5000, 5000]
required = true

[[metric]]
name = "voltage_{phase}"
unit = "V"
keys = ["em.{phase}_voltage"]

[[metric]]
name = "water"
unit = "L"
keys = ["counter"]

[[metric]]
name = "state"
kind = "text"
keys = ["st"]
words = { 0 = "idle", "1" = "heating" }

[[derived]]
name = "flow"
unit = "L/h"
rate = { of = "water", per = "1h", rollover = 65536 }

[[derived]]
name = "cost"
expression = "doubled * 3"

[[derived]]
name = "doubled"
unit = "W"
range = [0, 1e4]
expression = "power_2 * 2 + voltage_a * 0"
within = "0s"

[[command]]
name = "toggle"

[[example]]
origin = "https://acme.example/p1#status"
decoder = "json"
filter = "acme/{device}/state"
topic = "acme/plug-1/state"
payload = '{"switch:0":{"apower":12.5},"switch:1":{"apower":2},"p_in":"k","em":{"a_voltage":230},"st":1,"extra":1}'
readings = { power = 12.5, power_2 = 2, voltage_a = 230, doubled = 4, cost = 12, state = "heating" }
unmodeled = ["extra"]

[[example]]
decoder = "json"
filter = "acme/{device}/state"
topic = "acme/plug-1/state"
payload_base64 = "eyJwb3dlcl9tdyI6MTUwMH0="
readings = { power = 1.5 }
"#;

#[test]
fn the_whole_syntax_is_read() {
    let declared = accepted(&[("plug.toml", PLUG)]);
    let plug = template(&declared, "acme-plug");
    assert_eq!((plug.manufacturer.as_deref(), plug.models.len()), (Some("ACME"), 2));
    let [matching] = plug.matching.as_slice() else { panic!("{:?}", plug.matching) };
    assert_eq!(
        (matching.device.as_slice(), matching.keys.as_slice()),
        (["plug-*".to_owned()].as_slice(), ["switch:{n+1}.apower".to_owned()].as_slice())
    );
    assert_eq!(matching.fields["model"], ["P-1", "1", "true"]);
    let order: Vec<&str> = plug.derived.iter().map(|derived| derived.name.as_str()).collect();
    assert_eq!(order, ["flow", "doubled", "cost"], "each behind its inputs");
    assert!(matches!(&plug.derived[0].formula, Formula::Rate(rate) if rate.per == Duration::from_secs(3600)));
    assert_eq!(plug.derived[1].within, Duration::ZERO);
    let found = plug.keys.find(&plug.metrics, "switch:4.apower").unwrap();
    assert_eq!((found.at.metric, found.captured.unwrap().number), (0, Some(5)));
}

#[test]
fn a_template_can_match_in_several_ways() {
    let more = "[[match]]\nmodel = [\"P-2\"]\n\n[[metric]]\nname = \"power\"";
    let text = PLUG.replace("[match]", "[[match]]").replacen("[[metric]]\nname = \"power\"", more, 1);
    let declared = accepted(&[("plug.toml", &text)]);
    let plug = template(&declared, "acme-plug");
    let models: Vec<_> = plug.matching.iter().map(|criteria| criteria.model.concat()).collect();
    assert_eq!(models, ["P-1*", "P-2"]);
    let single = template(&accepted(&[("plug.toml", PLUG)]), "acme-plug").matching.clone();
    assert_eq!(single, plug.matching[..1], "a single table is the list of one");
}

#[test]
fn a_template_has_what_its_parents_have_unless_it_says_otherwise() {
    let child = r#"
slug = "acme-plug-2"
name = "ACME plug 2"
extends = "acme-plug"
tenant = "acme"
[[metric]]
name = "water"
unit = "m³"
keys = ["counter", { key = "counter_l", unit = "L" }]
[[metric]]
name = "pulse"
keys = ["apower"]
[[derived]]
name = "cost"
expression = "power + pulse"
"#;
    let grandchild = "slug = \"acme-plug-3\"\nname = \"3\"\nextends = \"acme-plug-2\"\ntenant = \"acme\"\n";
    let declared = accepted(&[("c.toml", grandchild), ("b.toml", child), ("a.toml", PLUG)]);
    for slug in ["acme-plug-2", "acme-plug-3"] {
        let plug = template(&declared, slug);
        let names: Vec<&str> = plug.metrics.iter().map(|metric| metric.name.as_str()).collect();
        assert_eq!(names, ["water", "pulse", "power", "voltage_{phase}", "state"]);
        assert_eq!(plug.metrics[0].unit, "m³");
        let holder = plug.keys.exact("apower").map(|at| names[at.metric]);
        assert_eq!(holder, Some("pulse"), "a key that it claims is no longer its parent's");
        let cost = plug.derived.iter().find(|derived| derived.name == "cost").unwrap();
        assert_eq!(cost.inputs(), ["power", "pulse"]);
        assert_eq!((plug.category.as_str(), plug.commands.len(), plug.tenant.as_deref()), ("plug", 1, Some("acme")));
        assert!(plug.matching.is_empty() && plug.manufacturer.is_none());
    }
}

#[test]
fn each_fault_is_told_with_its_line_and_what_would_be_right() {
    let head = "slug = \"t\"\nname = \"T\"\n";
    let metric = |lines: &str| format!("{head}[[metric]]\nname = \"power\"\nunit = \"W\"\n{lines}\n");
    let derived = |lines: &str| format!("{}[[derived]]\nname = \"d\"\n{lines}\n", metric(""));
    let example = |lines: &str| format!("{head}[[example]]\n{lines}\n");
    let cases: Vec<(String, &str)> = vec![
        (
            format!("{head}extends = \"native-climat\""),
            "t.toml:3: extends: there is no template \"native-climat\" (did you mean `native-climate`?)",
        ),
        (format!("{head}extends = \"t\""), "t.toml:3: extends: the templates extend each other in a cycle: t → t"),
        (format!("{head}tenant = \"a/+\""), "t.toml:3: tenant: may not have + or #"),
        (format!("{head}[match]\n"), "match: holds no criterion"),
        (
            format!("{head}[match]\ndecoder = [\"jsn\"]"),
            "t.toml:4: match.decoder: there is no decoder \"jsn\" (did you mean `json`?)",
        ),
        (format!("{head}[match]\ntopic = [\"a/#/b\"]"), "t.toml:4: match.topic:"),
        (format!("{head}[[match]]\nkeys = [\"a\"]\n[[match]]\ntopic = [\"a/#/b\"]"), "t.toml:6: match[1].topic:"),
        (format!("{head}[[match]]\n[[match]]\nkeys = [\"a\"]"), "match[0]: holds no criterion"),
        (format!("{head}match = []"), "t.toml:3: match: expected a table, or 1 to 32 each headed [[match]]"),
        (format!("{head}[match]\nmodle = [\"x\"]"), "t.toml:4: match.modle: unknown key (did you mean `model`?)"),
        (format!("{head}[match]\nfields = {{ a = [] }}"), "match.fields.a: is empty"),
        (metric("keys = [\"a{n\"]"), "t.toml:6: metric[0].keys: \"a{n\": the brace is not closed"),
        (metric("keys = [\"a{n+2}\"]"), "{n+2} is no placeholder ({n} counts from 1, {n+1} from 0)"),
        (
            metric("keys = [\"a.{phase}\"]"),
            "has {phase}, but the metric's name has not (put it there, such as \"power_{phase}\")",
        ),
        (metric("keys = [\"a{n}\",\n\"a{n+1}\"]"), "t.toml:7: metric[0].keys: \"a{n+1}\" is listed twice"),
        (
            metric("keys = [{ key = \"a\", unit = \"°C\" }]"),
            "metric[0].keys[0].unit: \"°C\" measures temperature, but the metric's \"W\" power (convertible to W: W, mW, kW, MW, hp)",
        ),
        (
            metric("keys = [{ key = \"a\", unit = \"mw\" }]"),
            "\"mw\" is no unit that tidegate knows (did you mean `mW`?)",
        ),
        (metric("keys = [{ unit = \"mW\" }]"), "metric[0].keys[0].key: is missing"),
        (
            metric("keys = [{ key = \"a\", unit_from = \"u\",\nunits = { 1 = \"W\", 2 = \"kw\" } }]"),
            "t.toml:7: metric[0].keys[0].units.2: \"kw\" is no unit that tidegate knows (did you mean `kW`?)",
        ),
        (
            metric("keys = [{ key = \"a\", unit_from = \"u\", units = { 1 = \"°C\" } }]"),
            "metric[0].keys[0].units.1: \"°C\" measures temperature, but the metric's \"W\" power (convertible to W: W,",
        ),
        (
            metric("keys = [{ key = \"a\", unit_from = \"a\" }]"),
            "metric[0].keys[0].unit_from: \"a\" is the key itself, expected another one",
        ),
        (metric("keys = [{ key = \"a\", unit_from = \"\" }]"), "unit_from: expected 1 to 255 bytes"),
        (
            metric("keys = [{ key = \"a\", units = { 1 = \"kW\" } }]"),
            "keys[0].units: has no meaning without unit_from, the raw key whose values it puts into units (for one unit",
        ),
        (
            format!("{head}[[metric]]\nname = \"p\"\nkeys = [{{ key = \"a\", unit_from = \"u\" }}]"),
            "keys[0].unit_from: has no meaning, since the metric has no unit to convert to",
        ),
        (metric("keys = [{ key = \"a\", scale = 0 }]"), "metric[0].keys[0].scale: is 0"),
        (metric("keys = [1]"), "expected a text or a table, found an integer"),
        (
            metric("words = { \"0\" = \"idle\" }"),
            "t.toml:6: metric[0].words: has no meaning for kind = \"number\" (values gives numbers for raw values; words",
        ),
        (
            metric("kind = \"text\"\nvalues = { idle = 0 }"),
            "metric[0].values: has no meaning for kind = \"text\" (words gives texts for raw values)",
        ),
        (
            metric("kind = \"text\"\nwords = { 0 = 1 }"),
            "metric[0].words.0: expected a text in quotes, found an integer",
        ),
        (metric("kind = \"text\"\nwords = { 0 = \"\" }"), "metric[0].words.0: expected 1 to 255 bytes without NUL"),
        (
            metric("kind = \"text\"\nkeys = [{ key = \"a\", unit = \"mW\" }]"),
            "has a meaning for kind = \"number\" only",
        ),
        (
            metric("[[metric]]\nname = \"p2\"\nkeys = [\"x.*\"]\n[[metric]]\nname = \"p3\"\nkeys = [\"x.*\"]"),
            "\"x.*\" is claimed by the metric \"p2\" too",
        ),
        (
            format!("{head}[[metric]]\nname = \"p_{{a}}\"\nkeys = [\"x\"]"),
            "\"x\" lacks {a}, which the metric's name needs",
        ),
        (
            format!("{head}[[metric]]\nname = \"p_{{a}}\"\nkeys = [\"{{a}}.x\"]\nrequired = true"),
            "required: can't be: before the first message",
        ),
        (format!("{head}[[metric]]\nname = \"{{a}}\"\nkeys = [\"{{a}}.x\"]"), "says nothing beside its placeholders"),
        (
            format!("{head}[[metric]]\nname = \"p_{{n}}\"\nkeys = [\"{{n}}.x\"]"),
            "has a number's placeholder (leave it out",
        ),
        (
            derived("expression = \"powr * 2\""),
            "t.toml:9: derived[0].expression: there is no metric \"powr\" (did you mean `power`?)",
        ),
        (
            derived("expression = \"power * (2\""),
            "t.toml:9: derived[0].expression: the parenthesis at column 9 is not closed",
        ),
        (derived("expression = \"d + power\""), "is worked out from itself: d → d"),
        (
            derived("expression = \"e + power\"\n[[derived]]\nname = \"e\"\nexpression = \"d\""),
            "is worked out from itself: d → e → d",
        ),
        (derived(""), "derived[0]: expression is missing"),
        (derived("rate = { of = \"power\" }"), "derived[0].rate.per: is missing"),
        (derived("rate = { of = \"power\", per = \"1h\", rollover = 0 }"), "rollover: is not above 0"),
        (derived("expression = \"power\"\nrate = { of = \"power\", per = \"1h\" }"), "stands beside expression"),
        (
            derived("rate = { of = \"power\", per = \"1h\" }\nwithin = \"0s\""),
            "t.toml:10: derived[0].within: is 0s, so that the rate never has a value: its two readings are of different instants (leave it out for 1day)",
        ),
        (derived("expression = \"power\"\nunit = \"watt\""), "did you mean `W`?"),
        (
            format!("{}[[derived]]\nname = \"power\"\nexpression = \"power\"", metric("")),
            "derived[0].name: \"power\" is the name of a metric",
        ),
        (
            format!("{head}[[metric]]\nname = \"m\"\nkind = \"text\"\n[[derived]]\nname = \"d\"\nexpression = \"m\""),
            "\"m\" is a text, which has no value to count with",
        ),
        (example("decoder = \"json\""), "example[0].filter: is missing"),
        (
            example("decoder = \"json\"\nfilter = \"a/{device}\"\ntopic = \"b/x\"\npayload = '1'\nreadings = {}"),
            "t.toml:6: example[0].topic: the filter \"a/{device}\" does not match it",
        ),
        (
            example("decoder = \"json\"\nfilter = \"{device}\"\ntopic = \"x\"\npayload_base64 = \"*\"\nreadings = {}"),
            "is not base64",
        ),
        (
            example("decoder = \"json\"\nfilter = \"{device}\"\ntopic = \"x\"\npayload = '1'\nreadings = { a = [1] }"),
            "example[0].readings.a: expected a number, true, false or a text",
        ),
    ];
    let mut wrong = Vec::new();
    for (text, told) in cases {
        let found = refused(&[("t.toml", &text)]);
        if !found.contains(told) {
            wrong.push(format!("{text}\nexpected: {told}\nfound: {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn faults_between_templates_are_told_once_and_where_they_were_made() {
    let with = |slug: &str, more: &str| format!("slug = \"{slug}\"\nname = \"x\"\n{more}");
    let found = refused(&[
        ("a.toml", &with("a", "extends = \"b\"")),
        ("b.toml", &with("b", "extends = \"c\"")),
        ("c.toml", &with("c", "extends = \"a\"")),
        ("d.toml", &with("d", "extends = \"a\"")),
    ]);
    assert_eq!(found, "a.toml:3: extends: the templates extend each other in a cycle: a → b → c → a");
    let files: Vec<(String, String)> = (0..10)
        .map(|n| {
            (
                format!("{n}.toml"),
                with(&format!("t{n}"), &if n == 0 { String::new() } else { format!("extends = \"t{}\"", n - 1) }),
            )
        })
        .collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    assert!(refused(&files).contains("8.toml:3: extends: more than 8 templates extend one another"));
    let own = refused(&[("a.toml", &with("a", "tenant = \"acme\"")), ("b.toml", &with("b", "extends = \"a\""))]);
    assert!(
        own.contains(
            "b.toml:3: extends: \"a\" is a template of the tenant \"acme\" alone (give this one tenant = \"acme\" too)"
        ),
        "{own}"
    );
    // A parent's derived metric that the child's metric breaks, and one that is broken anyway.
    let parent = with("a", "[[metric]]\nname = \"m\"\n[[derived]]\nname = \"d\"\nexpression = \"m\"\n");
    let child = with("b", "extends = \"a\"\n[[metric]]\nname = \"m\"\nkind = \"text\"\n");
    let found = refused(&[("a.toml", &parent), ("b.toml", &child)]);
    assert!(
        found.starts_with("b.toml:3: extends: its derived metric \"d\" does not work here: \"m\" is a text"),
        "{found}"
    );
    let broken = with("a", "[[derived]]\nname = \"d\"\nexpression = \"m\"\n");
    let found = refused(&[("a.toml", &broken), ("b.toml", &with("b", "extends = \"a\"\n"))]);
    assert_eq!(found.lines().count(), 1, "{found}");
    assert!(found.starts_with("a.toml:5: derived[0].expression: there is no metric \"m\""), "{found}");
}

#[test]
fn a_tenants_own_template_is_not_for_other_tenants() {
    let dir = catalog(&[("a.toml", "slug = \"a\"\nname = \"x\"\ntenant = \"acme\"\n")]);
    fs::create_dir(dir.path().join("devices")).unwrap();
    let device = |tenant: &str| {
        let text = format!("[[device]]\nuid = \"d\"\ntenant = \"{tenant}\"\ntemplate = \"a\"\n");
        fs::write(dir.path().join("devices/d.toml"), text).unwrap();
        files::load(Some(dir.path()))
    };
    assert!(device("acme").is_ok());
    let told = device("other").unwrap_err().to_string();
    assert!(told.contains("d.toml:4: device[0].template: \"a\" is a template of the tenant \"acme\""), "{told}");
}

struct Bench {
    tidegate: Tidegate,
    dir: TempDir,
}

impl Bench {
    fn new() -> Bench {
        let dir = catalog(&[]);
        let catalog = dir.path().display();
        let tidegate =
            Tidegate::configured(&format!("[instance]\nstate_dir = \"{{state}}\"\n[catalog]\ndir = \"{catalog}\"\n"));
        Bench { tidegate, dir }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.tidegate.command(&["templates"]).args(arguments).output().unwrap()
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn failed(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }
}

#[test]
fn a_templates_examples_are_its_test() {
    let bench = Bench::new();
    let plug = bench.file("plug.toml", PLUG);
    let told = bench.done(&["test", &plug]);
    assert!(
        told.contains("example[0]: as expected, readings: 7") && told.contains("example[1]: as expected"),
        "{told}"
    );

    let wrong = PLUG
        .replace("power_2 = 2,", "power_2 = 3, gone = 1,")
        .replace("voltage_a = 230, ", "")
        .replace("unmodeled = [\"extra\"]", "");
    let told = bench.failed(1, &["test", &bench.file("wrong.toml", &wrong)]);
    for part in [
        "example[0]: differs",
        "power_2: expected 3, found 2 W",
        "gone: expected 1, found nothing",
        "voltage_a: not expected, found 230 (key em.a_voltage)",
        "extra: no metric has this key; model it, or list it in unmodeled",
        "example[1]: as expected",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let faulty = bench.file("faulty.toml", &PLUG.replace("power_2 * 2", "power_2 ** 2"));
    let told = bench.failed(2, &["test", &faulty]);
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(told.contains("faulty.toml:55: derived[2].expression: column 10: expected a value before *"), "{told}");
    let bare = bench.file("bare.toml", "slug = \"bare\"\nname = \"x\"\n");
    assert!(bench.failed(1, &["test", &bare]).contains("has no [[example]]"));

    let payload = bench.file("payload.json", r#"{"power_mw":"2500","raw":4,"zzz":"x"}"#);
    let told = bench.done(&["test", &plug, &payload]);
    assert!(told.contains("power_mw") && told.contains("2.5") && told.contains("unmodeled"), "{told}");
    assert!(bench.failed(1, &["test", &bare, &payload]).contains("give --decoder"));
    let told = bench.done(&["test", &bare, &payload, "--decoder", "json", "--filter", "{device}", "--topic", "d"]);
    assert!(told.contains("zzz"), "{told}");
}

#[test]
fn templates_are_listed_and_shown() {
    let bench = Bench::new();
    fs::write(bench.dir.path().join("templates/plug.toml"), PLUG).unwrap();
    let tenants = "slug = \"own\"\nname = \"Own\"\ntenant = \"acme\"\nextends = \"acme-plug\"\n";
    fs::write(bench.dir.path().join("templates/own.toml"), tenants).unwrap();
    let told = bench.done(&["list"]);
    for part in ["native-climate", "tidegate", "acme-plug", "operator", "tenant acme"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(!bench.done(&["list", "--tenant", "other"]).contains("tenant acme"));
    let all: Json = serde_json::from_str(&bench.done(&["list", "--json"])).unwrap();
    let own = all.as_array().unwrap().iter().find(|one| one["slug"] == "own").unwrap();
    assert_eq!((&own["tenant"], &own["extends"], &own["metrics"]), (&"acme".into(), &"acme-plug".into(), &4.into()));
    let told = bench.done(&["show", "acme-plug"]);
    for part in [
        "P-1, P-1E",
        "switch:{n+1}.apower",
        "power_mw (mW)",
        "p (in p_in, else W)",
        "rate of water per 1h",
        "doubled * 3",
        "toggle",
        "plug-*",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let second = "slug = \"two\"\nname = \"x\"\n[[match]]\nmodel = [\"P-3\"]\n[[match]]\ndevice = [\"p3-*\"]\n";
    fs::write(bench.dir.path().join("templates/two.toml"), second).unwrap();
    let told = bench.done(&["show", "two"]);
    assert!(told.matches("MATCH").count() == 2 && told.contains("P-3") && told.contains("p3-*"), "{told}");
    let shown: Json = serde_json::from_str(&bench.done(&["show", "two", "--json"])).unwrap();
    assert_eq!((&shown["match"][0]["model"][0], &shown["match"][1]["device"][0]), (&"P-3".into(), &"p3-*".into()));
    let shown: Json = serde_json::from_str(&bench.done(&["show", "own", "--json"])).unwrap();
    assert_eq!(shown["derived"].as_array().unwrap().len(), 3);
    assert!(bench.failed(1, &["show", "acme-plgu"]).contains("did you mean `acme-plug`?"));
}

#[test]
fn what_is_exported_can_be_imported() {
    let bench = Bench::new();
    let place = |slug: &str| bench.dir.path().join("templates").join(format!("{slug}.toml"));
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    let plug = bench.file("plug.toml", PLUG);
    assert!(bench.done(&["import", &plug]).contains("acme-plug: "));
    assert_eq!(read(&place("acme-plug")), PLUG);
    assert_eq!(bench.done(&["export", "acme-plug"]), PLUG);
    assert!(bench.done(&["import", &plug]).contains("already"));

    let changed = bench.file("changed.toml", &PLUG.replace("ACME plug", "ACME plug B"));
    assert!(bench.failed(1, &["import", &changed]).contains("--force replaces it"));
    assert_eq!(read(&place("acme-plug")), PLUG);
    bench.done(&["import", "--force", &changed]);
    assert!(read(&place("acme-plug")).contains("ACME plug B"));

    // A shipped one can be read back as a variant of its own.
    let shipped = bench.done(&["export", "native-climate"]);
    assert!(bench.done(&["import", &bench.file("same.toml", &shipped)]).contains("is shipped"));
    let variant = bench.file("variant.toml", &shipped.replace("slug = \"native-climate\"", "slug = \"my-climate\""));
    bench.done(&["import", &variant]);
    assert!(place("my-climate").exists());

    // Nothing of several is written where one is faulty.
    let fine = bench.file("fine.toml", "slug = \"fine\"\nname = \"x\"\n");
    let faulty = bench.file("faulty.toml", "slug = \"faulty\"\nname = \"x\"\nextends = \"nobody\"\n");
    assert!(bench.failed(2, &["import", &fine, &faulty]).contains("faulty.toml:3: extends"));
    assert!(!place("fine").exists());
}
