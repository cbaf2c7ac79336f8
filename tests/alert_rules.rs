//! Rules in the operator's catalog: taken in, checked against the rest of it, and as the documentation has them.

use std::fs;
use std::path::Path;

use tempfile::TempDir;
use tidegate::catalog::{DeclaredRule, files};
use tidegate::config::Config;

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

fn rule(slug: &str, when: &str) -> String {
    format!("slug = \"{slug}\"\nseverity = \"warning\"\nscope.all = true\nwhen = {{ {when} }}\n")
}

/// All faults, with places relative to the catalog.
fn refused(entries: &[(&str, &str)]) -> String {
    let dir = catalog(entries);
    let faults = files::load(Some(dir.path())).expect_err("accepted");
    faults.to_string().replace(&format!("{}/", dir.path().display()), "")
}

#[test]
fn rules_are_declared_with_their_files_as_json() {
    let (hot, silent) = (rule("hot", "metric = \"temperature\", gt = 30"), rule("silent", "absent = \"5m\""));
    let dir = catalog(&[("rules/hot.toml", &hot), ("rules/more/silent.toml", &silent), ("rules/README.md", "no rule")]);
    let declared = files::load(Some(dir.path())).unwrap();
    let slugs: Vec<&str> = declared.rules.iter().map(|one| &*one.rule.slug).collect();
    assert_eq!(slugs, ["hot", "silent"]);
    let definition = serde_json::json!({
        "slug": "silent", "severity": "warning", "scope": {"all": true}, "when": {"absent": "5m"},
    });
    assert_eq!(declared.rules[1].definition, definition);
}

#[test]
fn a_slug_of_two_rules_and_every_other_fault_are_told_at_once() {
    let one = rule("hot", "metric = \"temperature\", gt = 30");
    let faults = refused(&[
        ("rules/a.toml", &one),
        ("rules/b.toml", &one),
        ("rules/c.toml", &rule("cold", "metric = \"temperature\", lt = -300, gt = 5")),
        ("rules/d.toml", "slug = \"d\"\n"),
        ("devices/d.toml", "[[device]]\nuid = \"d1\"\ntags = { floor = 2 }\n"),
        ("rule/e.toml", &one),
    ]);
    for fault in [
        "rules/b.toml:1: slug: \"hot\" is the slug of another rule, at ",
        "rules/c.toml:4: when.lt: stands beside gt",
        "rules/d.toml: when: is missing",
        "rules/d.toml: scope: is missing",
        "rules/d.toml: severity: is missing",
        "devices/d.toml:3: device[0].tags.floor: expected a text in quotes, found an integer (write \"2\")",
        "rule: is not read (did you mean `rules`?)",
    ] {
        assert!(faults.contains(fault), "{fault} is not in\n{faults}");
    }
    assert_eq!(faults.lines().count(), 7, "{faults}");
}

#[test]
fn what_the_catalog_does_not_bear_out_is_a_warning_with_its_place() {
    let dir = catalog(&[("rules/hot.toml", &rule("hot", "metric = \"temprature\", gt = 30"))]);
    let catalog = files::read(Some(dir.path()), &[]).unwrap();
    let told: Vec<String> = catalog.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("rules/hot.toml:4: when.metric: no template has a metric \"temprature\""), "{told:?}");
    assert!(told[0].contains("did you mean `temperature`?"), "{told:?}");
    assert_eq!(catalog.into_declared().rules.len(), 1);
}

/// The fenced blocks of a language.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    page.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

#[test]
fn every_example_of_the_documentation_is_read_without_a_fault() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/alerts.md")).unwrap();
    let mut entries: Vec<(String, String)> = Vec::new();
    for block in blocks(&page, "toml") {
        if block.starts_with("[[") {
            let reading = Config::parse(Path::new("tidegate.toml"), block, &[]);
            assert!(reading.faults.is_empty(), "{:?}\n{block}", reading.faults);
            continue;
        }
        let path = block.lines().next().unwrap().trim_start_matches("# ");
        assert!(path.ends_with(".toml"), "a block begins with its file's path: {block}");
        entries.push((path.to_owned(), block.to_owned()));
    }
    // The first column of the table of conditions.
    let codes = page.lines().filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0));
    let conditions: Vec<&str> = codes.filter(|code| code.contains(" = ") && *code != "all = true").collect();
    assert!(conditions.len() > 20, "{conditions:?}");
    for (index, condition) in conditions.iter().enumerate() {
        entries.push((format!("rules/condition-{index}.toml"), rule(&format!("condition-{index}"), condition)));
    }
    for (index, json) in blocks(&page, "json").into_iter().filter(|json| json.contains("\"when\"")).enumerate() {
        let definition: serde_json::Value = serde_json::from_str(json).unwrap();
        let row = tidegate::alert::rule_file::from_json(&definition, &format!("example {index}"));
        assert!(row.is_ok(), "{}", row.unwrap_err());
    }
    let written: Vec<(&str, &str)> = entries.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let dir = catalog(&written);
    let declared = files::load(Some(dir.path())).unwrap_or_else(|faults| panic!("{faults}"));
    let rules = written.iter().filter(|(path, _)| path.starts_with("rules/")).count();
    assert_eq!(declared.rules.len(), rules);
    let tags = declared.devices.iter().find(|device| device.uid == "fridge-7").map(|device| device.tags.len());
    assert_eq!(tags, Some(2));
    for DeclaredRule { rule, definition } in &declared.rules {
        let row = tidegate::alert::rule_file::from_json(definition, "a row");
        assert_eq!(row.as_ref(), Ok(rule));
    }
}
