use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::alert::rule::{
    Aggregate, Area, By, Check, Compare, Dependency, DependsOn, Enough, Group, Scope, Season, Selector,
};
use crate::alert::times::{Days, Spell};
use crate::config::Fault;

/// A whole file around some conditions.
fn file(rest: &str) -> String {
    format!("slug = \"hot\"\nseverity = \"warning\"\nscope.all = true\n{rest}")
}

fn read_text(text: &str) -> (Option<Rule>, Vec<String>, Vec<String>) {
    let findings = Findings::default();
    let document = Document::parse(&Arc::from(Path::new("hot.toml")), text);
    let rule = read(&document, &findings).and_then(|file| file.declared).map(|declared| declared.rule);
    let found = findings.into_inner();
    let told = |faults: &[Fault]| faults.iter().map(ToString::to_string).collect();
    (rule, told(&found.faults), told(&found.warnings))
}

fn accepted(text: &str) -> Rule {
    let (rule, faults, _) = read_text(text);
    assert_eq!(faults, [""; 0], "{text}");
    rule.unwrap()
}

fn test_of(condition: &str) -> Test {
    accepted(&file(&format!("when = {{ {condition} }}"))).when.test
}

fn refused(text: &str) -> String {
    let (rule, faults, _) = read_text(text);
    assert_eq!(rule, None, "{text}");
    assert_ne!(faults, [""; 0], "{text}");
    faults.join("\n")
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn metric(name: &str, check: Check) -> Test {
    Test::Metric { metric: name.into(), check }
}

#[test]
fn every_key_of_a_rule_is_read() {
    let rule = accepted(
        r#"
slug = "too-hot"
name = "Too hot"
tenant = "acme"
severity = "warning"
resolve = "auto"
min_firing = "1m"
cooldown = "1h"
message = "{device}: {value} {unit}"
runbook = "https://example.com/hot"
escalation = "night"
labels = { team = "cold chain" }
[scope]
template = ["acme-climate", "acme-other"]
site = "Cellar"
tags = { floor = "2" }
except = { device = ["spare-*"], tags = { test = "yes" } }
[when]
metric = "temperature"
gt = 30.0
for = "2m"
[clear]
lt = 28
for = "1m"
[[raise]]
severity = "critical"
when = { gt = 40 }
"#,
    );
    let texts = |name: &str, text: &str| BTreeMap::from([(name.to_owned(), text.to_owned())]);
    let number = |is| metric("temperature", Check::Number(is));
    let expected = Rule {
        slug: "too-hot".into(),
        name: "Too hot".into(),
        tenant: Some("acme".into()),
        severity: Severity::Warning,
        scope: Scope {
            of: vec![
                Selector::Template(vec!["acme-climate".into(), "acme-other".into()]),
                Selector::Site(vec!["Cellar".into()]),
                Selector::Tags(texts("floor", "2")),
            ],
            except: vec![Selector::Device(vec!["spare-*".into()]), Selector::Tags(texts("test", "yes"))],
        },
        when: Condition { test: number(Compare::Gt(30.0)), hold: secs(120) },
        clear: Some(Condition { test: number(Compare::Lt(28.0)), hold: secs(60) }),
        raise: vec![Raise {
            severity: Severity::Critical,
            when: Condition { test: number(Compare::Gt(40.0)), hold: Duration::ZERO },
        }],
        min_firing: secs(60),
        resolve: Resolve::Auto,
        cooldown: secs(3600),
        message: Some("{device}: {value} {unit}".into()),
        labels: texts("team", "cold chain"),
        runbook: Some("https://example.com/hot".into()),
        schedule: None,
        depends_on: Vec::new(),
        flapping: None,
        group: None,
        escalation: Some("night".into()),
    };
    assert_eq!(rule, expected);
}

#[test]
fn what_a_file_leaves_out_is_usual() {
    let rule = accepted(&file("when = { metric = \"t\", gt = 1 }"));
    assert_eq!((rule.name.as_str(), rule.resolve, rule.clear), ("hot", Resolve::Auto, None));
    assert_eq!(rule.scope, Scope::default());
    assert_eq!((rule.min_firing, rule.cooldown), (Duration::ZERO, Duration::ZERO));
}

#[test]
fn every_form_of_a_condition_is_read() {
    let gt = Compare::Gt(5.0);
    for (text, check) in [
        ("gt = 5", Check::Number(gt)),
        ("eq = \"open\"", Check::Text { any: vec!["open".into()], not: false }),
        ("samples = 5, least = 3, gt = 5", Check::Samples { is: gt, least: 3, of: 5 }),
        ("samples = 5, gt = 5", Check::Samples { is: gt, least: 5, of: 5 }),
        (
            "window = \"5m\", aggregate = \"p95\", gt = 5",
            Check::Window { over: secs(300), aggregate: Aggregate::P95, is: gt },
        ),
        ("rate = \"1m\", gt = 5", Check::Rate { per: secs(60), counter: false, is: gt }),
        ("rate = \"1m\", counter = true, gt = 5", Check::Rate { per: secs(60), counter: true, is: gt }),
        ("other = \"u\", gt = 5", Check::Difference { other: "u".into(), is: gt }),
        ("stuck = \"1h\"", Check::Stuck { over: secs(3600) }),
        ("anomaly = 4", Check::Anomaly { deviations: 4.0, season: Season::None }),
        ("anomaly = 4, season = \"hour_of_week\"", Check::Anomaly { deviations: 4.0, season: Season::HourOfWeek }),
        (
            "geofence = { circle = [1, 2, 3] }, is = \"outside\"",
            Check::Geofence {
                longitude: "longitude".into(),
                area: Area::Circle { centre: (1.0, 2.0), radius: 3.0 },
                inside: false,
            },
        ),
        (
            "geofence = { polygon = [[0, 0], [0, 1], [1, 1]] }, is = \"inside\", longitude = \"x\"",
            Check::Geofence {
                longitude: "x".into(),
                area: Area::Polygon(vec![(0.0, 0.0), (0.0, 1.0), (1.0, 1.0)]),
                inside: true,
            },
        ),
    ] {
        assert_eq!(test_of(&format!("metric = \"t\", {text}")), metric("t", check), "{text}");
    }
    assert_eq!(test_of("absent = \"10m\""), Test::Absent { metric: None, after: secs(600) });
    let silent = Test::Absent { metric: Some("t".into()), after: secs(600) };
    assert_eq!(test_of("absent = \"10m\", metric = \"t\", for = \"1m\""), silent);
}

#[test]
fn trees_keep_their_order_and_what_each_part_must_last() {
    let one = |is, hold| Condition { test: metric("t", Check::Number(is)), hold };
    let tree = test_of(
        "any = [{ metric = \"t\", gt = 5, for = \"1m\" }, { all = [{ metric = \"t\", lt = 1 }, { not = { absent = \"1m\" } }] }]",
    );
    let heard = Condition { test: Test::Absent { metric: None, after: secs(60) }, hold: Duration::ZERO };
    let not = Condition { test: Test::Not(Box::new(heard)), hold: Duration::ZERO };
    let all = Condition { test: Test::All(vec![one(Compare::Lt(1.0), Duration::ZERO), not]), hold: Duration::ZERO };
    assert_eq!(tree, Test::Any(vec![one(Compare::Gt(5.0), secs(60)), all]));
}

#[test]
fn clear_and_raise_have_from_when_what_they_leave_out() {
    let of = |rest: &str| accepted(&file(&format!("when.metric = \"t\"\n{rest}")));
    let window = |over, aggregate, is| metric("t", Check::Window { over: secs(over), aggregate, is });
    let rule = of(
        "when.window = \"5m\"\nwhen.aggregate = \"avg\"\nwhen.gt = 5\nclear.lt = 3\nraise = [{ severity = \"critical\", when = { window = \"1m\", gt = 9 } }]",
    );
    assert_eq!(rule.clear.unwrap().test, window(300, Aggregate::Avg, Compare::Lt(3.0)));
    assert_eq!(rule.raise[0].when.test, window(60, Aggregate::Avg, Compare::Gt(9.0)));
    // One that names its metric stands on its own.
    let rule = of("when.window = \"5m\"\nwhen.aggregate = \"avg\"\nwhen.gt = 5\nclear = { metric = \"t\", lt = 3 }");
    assert_eq!(rule.clear.unwrap().test, metric("t", Check::Number(Compare::Lt(3.0))));
    let rule = of("when.samples = 5\nwhen.least = 2\nwhen.gt = 5\nclear = { least = 4, lt = 3 }");
    assert_eq!(rule.clear.unwrap().test, metric("t", Check::Samples { is: Compare::Lt(3.0), least: 4, of: 5 }));
    let rule =
        of("when.rate = \"1m\"\nwhen.counter = true\nwhen.gt = 5\nclear.any = [{ lt = 3 }, { absent = \"1m\" }]");
    let Test::Any(parts) = rule.clear.unwrap().test else { panic!("no tree") };
    assert_eq!(parts[0].test, metric("t", Check::Rate { per: secs(60), counter: true, is: Compare::Lt(3.0) }));
    assert_eq!(parts[1].test, Test::Absent { metric: None, after: secs(60) });
    let rule = of(
        "when.geofence.circle = [1, 2, 3]\nwhen.longitude = \"x\"\nwhen.is = \"outside\"\nclear = { is = \"inside\", for = \"5m\" }",
    );
    let Test::Metric { check: Check::Geofence { longitude, inside, .. }, .. } = rule.clear.unwrap().test else {
        panic!("no geofence")
    };
    assert_eq!((&*longitude, inside), ("x", true));
    let rule = of("when.absent = \"10m\"\nclear.gt = 0");
    assert_eq!(rule.clear.unwrap().test, metric("t", Check::Number(Compare::Gt(0.0))));
}

#[test]
fn clear_and_raise_with_nothing_but_for_are_about_how_long() {
    let rule = accepted(&file(
        "when = { metric = \"t\", gt = 5, for = \"1m\" }\nclear.for = \"10m\"\nraise = [{ severity = \"critical\", when.for = \"1h\" }]",
    ));
    let test = metric("t", Check::Number(Compare::Gt(5.0)));
    let when = Condition { test: test.clone(), hold: Duration::ZERO };
    assert_eq!(rule.clear, Some(Condition { test: Test::Not(Box::new(when)), hold: secs(600) }));
    assert_eq!(rule.raise[0].when, Condition { test, hold: secs(3600) });
}

#[test]
fn a_condition_that_says_nothing_sensible_is_a_fault_with_its_place() {
    for (condition, fault) in [
        ("", "hot.toml:4: when: is empty, expected such as"),
        ("gt = 5", "hot.toml:4: when.metric: is missing, such as metric = \"temperature\""),
        ("metric = \"t\"", "when: compares with nothing, expected one of gt, lt"),
        ("metric = \"t\", gt = 5, lt = 9", "when.lt: stands beside gt"),
        ("metric = \"t\", gt = nan", "when.gt: expected a finite number, found a number that is not finite"),
        ("metric = \"t\", gt = 5, for = \"0s\"", "when.for: 0s is not within 1ms to 1year"),
        (
            "metric = \"t\", gt = 5, for = 30",
            "when.for: expected a duration such as \"30s\" or \"7d\", found an integer",
        ),
        ("metric = \"t\", gt = 5, grt = 5", "when.grt: unknown key (did you mean `gt`?)"),
        ("metric = \"t\", gt = 5, samples = 3, least = 4", "when.least: 4 of the last 3 can never be"),
        ("metric = \"t\", gt = 5, samples = 0", "when.samples: 0 is not within 1 to 64"),
        ("metric = \"t\", gt = 5, least = 4", "when.least: means nothing without samples"),
        ("metric = \"t\", gt = 5, window = \"5m\"", "when.aggregate: is missing, expected one of avg, min"),
        ("metric = \"t\", window = \"5m\", aggregate = \"avg\"", "when: window is compared with nothing"),
        ("metric = \"t\", gt = 5, window = \"5m\", aggregate = \"mean\"", "when.aggregate: \"mean\" is unknown"),
        (
            "metric = \"t\", eq = \"x\", window = \"5m\", aggregate = \"avg\"",
            "when.eq: is a text, but window gives a number",
        ),
        ("metric = \"t\", gt = 5, window = \"5m\", rate = \"1m\"", "when.rate: stands beside window"),
        (
            "metric = \"t\", lt = 0, window = \"5m\", aggregate = \"count\"",
            "when.lt: is never so: a count is never below 0",
        ),
        ("metric = \"t\", gte = 0, window = \"5m\", aggregate = \"stddev\"", "when.gte: is always so"),
        ("metric = \"t\", lt = 0, rate = \"5m\", counter = true", "when.lt: is never so"),
        ("metric = \"t\", other = \"t\", gt = 0", "when.other: is the metric itself"),
        ("metric = \"t\", stuck = \"1h\", gt = 0", "when.gt: means nothing beside stuck"),
        ("metric = \"t\", anomaly = 0", "when.anomaly: is not above 0"),
        ("metric = \"t\", anomaly = 4, season = \"day\"", "when.season: \"day\" is unknown"),
        ("metric = \"t\", geofence = { circle = [1, 2, 3] }", "when.is: is missing"),
        (
            "metric = \"t\", longitude = \"t\", is = \"inside\", geofence = { circle = [1, 2, 3] }",
            "when.longitude: is the",
        ),
        (
            "metric = \"t\", is = \"inside\", geofence = { polygon = [[1, 2], [3, 4]] }",
            "when.geofence.polygon: 2 corners",
        ),
        (
            "metric = \"t\", is = \"inside\", geofence = { circle = [91, 2, 3] }",
            "the latitude 91 is not within -90 to 90",
        ),
        ("absent = \"5m\", gt = 5", "when.gt: means nothing beside absent"),
        ("metric = 5, absent = \"5m\"", "when.metric: expected a metric's name, found an integer"),
        ("any = []", "when.any: is empty"),
        ("all = {}", "when.all: expected a list of conditions"),
        ("not = {}", "when.not: is empty"),
        ("not = 3", "when.not: expected a table, found an integer"),
        ("any = [{ metric = \"t\", gt = 5 }], metric = \"t\"", "when.metric: means nothing beside any"),
        ("any = [{ metric = \"t\", gt = 5 }, { metric = \"t\" }]", "when.any[1]: compares with nothing"),
        ("any = [{ metric = \"t\", gt = 5 }], all = [{ metric = \"t\", gt = 5 }]", "when.any: stands beside all"),
        (
            "all = [{ metric = \"t\", gt = 5 }, { metric = \"u\", lt = 1 }, { metric = \"t\", lt = 1 }]",
            "when.all[2]: can't hold together with all[0] (did you mean `any`?)",
        ),
    ] {
        let faults = refused(&file(&format!("when = {{ {condition} }}")));
        assert!(faults.contains(fault), "{condition}: {faults}");
        assert_eq!(faults.lines().count(), 1, "{condition}: {faults}");
    }
}

#[test]
fn a_rule_that_could_not_do_its_work_is_refused() {
    let when = "when = { metric = \"t\", gt = 30 }";
    for (rest, fault) in [
        ("", "hot.toml: when: is missing: what begins an episode?"),
        ("when = 3", "when: expected a table, found an integer"),
        ("WHEN\nclear.gt = 30", "clear: holds whenever [when] does, so that no episode could begin"),
        ("WHEN\nclear.gt = 28", "clear: holds whenever [when] does"),
        ("WHEN\nclear = { any = [{ gt = 29 }, { lt = 2 }] }", "clear: holds whenever [when] does"),
        ("WHEN\nclear = {}", "clear: is empty"),
        ("WHEN\nclear = { metric = \"t\" }", "clear: compares with nothing"),
        ("WHEN\nraise = [{ severity = \"warning\", when = { gt = 40 } }]", "\"warning\" is not worse than the rule's"),
        ("WHEN\nraise = [{ severity = \"info\", when = { gt = 40 } }]", "raise[0].severity: \"info\" is not worse"),
        (
            "WHEN\nraise = [{ severity = \"critical\", when = { gt = 20 } }]",
            "raise[0].when: holds whenever the rule's own",
        ),
        ("WHEN\nraise = [{ when = { gt = 40 } }]", "raise[0].severity: is missing, expected one of info"),
        ("WHEN\nraise = [{ severity = \"critical\" }]", "raise[0].when: is missing"),
        ("WHEN\nraise = { severity = \"critical\" }", "raise: expected a list of tables, each headed [[raise]]"),
        ("WHEN\nresolve = \"never\"", "resolve: \"never\" is unknown"),
        ("WHEN\nresolve = \"manual\"\nclear.lt = 3", "clear: means nothing beside resolve = \"manual\""),
        ("WHEN\ncooldown = \"0s\"", "cooldown: 0s is not within"),
        ("WHEN\nmessage = \"\"", "message: expected 1 to 2048 bytes"),
        ("WHEN\nlabels = { a = 1 }", "labels.a: expected a text in quotes, found an integer (write \"1\")"),
        ("WHEN\nmin_firng = \"1m\"", "min_firng: unknown key (did you mean `min_firing`?)"),
    ] {
        let faults = refused(&file(&rest.replace("WHEN", when)));
        assert!(faults.contains(fault), "{rest}: {faults}");
        assert_eq!(faults.lines().count(), 1, "{rest}: {faults}");
    }
}

#[test]
fn a_rule_may_be_kept_for_groups() {
    let when = "when = { metric = \"t\", gt = 30 }\n";
    for (group, by, enough) in [
        ("by = \"site\"", By::Site, Enough::Devices(1)),
        ("by = \"template\", min = 3", By::Template, Enough::Devices(3)),
        ("by = \"parent\", share = 0.2", By::Parent, Enough::Share(0.2)),
        ("by = \"tag:cold room\", share = 1", By::Tag("cold room".into()), Enough::Share(1.0)),
        ("by = \"all\", min = 1000000", By::All, Enough::Devices(1_000_000)),
    ] {
        let rule = accepted(&file(&format!("{when}group = {{ {group} }}")));
        assert_eq!(rule.group, Some(Group { by, enough }), "{group}");
    }
    for (group, fault) in [
        ("", "group.by: is missing, expected \"site\", \"template\", \"parent\", \"tag:NAME\" or \"all\""),
        ("by = \"sites\"", "group.by: is \"sites\", expected \"site\""),
        ("by = \"sites\"", "(did you mean `site`?)"),
        ("by = \"tag:\"", "group.by: expected a name of 1 to 64 bytes"),
        ("by = \"all\", min = 0", "group.min: 0 is not within 1 to 1000000"),
        ("by = \"all\", share = 0", "group.share: is 0, expected a part of the devices"),
        ("by = \"all\", share = 1.5", "group.share: is 1.5, expected a part of the devices"),
        ("by = \"all\", share = 0.5, min = 2", "group.share: stands beside min"),
        ("by = \"all\", least = 2", "group.least: unknown key"),
    ] {
        let faults = refused(&file(&format!("{when}group = {{ {group} }}")));
        assert!(faults.contains(fault), "{group}: {faults}");
        assert_eq!(faults.lines().count(), 1, "{group}: {faults}");
    }
}

#[test]
fn slug_severity_and_scope_must_be_given_and_right() {
    for (text, fault) in [
        ("severity = \"info\"\nscope.all = true\n", "slug: is missing"),
        ("slug = \"Too Hot\"\nseverity = \"info\"\nscope.all = true\n", "(perhaps `too-hot`)"),
        ("slug = \"ack\"\nseverity = \"info\"\nscope.all = true\n", "slug: \"ack\" ends topics that are no rule's"),
        ("slug = \"summary\"\nseverity = \"info\"\nscope.all = true\n", "such as `summary-alert`"),
        ("slug = \"a\"\nscope.all = true\n", "severity: is missing, expected one of info, warning, critical"),
        ("slug = \"a\"\nseverity = \"warn\"\nscope.all = true\n", "severity: \"warn\" is unknown"),
        ("slug = \"a\"\nseverity = \"info\"\n", "scope: is missing: which devices does the rule look at?"),
        ("slug = \"a\"\nseverity = \"info\"\nscope = {}\n", "scope: chooses no device"),
        ("slug = \"a\"\nseverity = \"info\"\nscope.all = false\n", "scope.all: is false"),
        (
            "slug = \"a\"\nseverity = \"info\"\nscope = { all = true, device = \"d\" }\n",
            "scope.all: stands beside device",
        ),
        ("slug = \"a\"\nseverity = \"info\"\nscope.device = []\n", "scope.device: 0 are given"),
        ("slug = \"a\"\nseverity = \"info\"\nscope.device = [1]\n", "scope.device: expected a text in quotes"),
        ("slug = \"a\"\nseverity = \"info\"\nscope.template = \"A B\"\n", "(perhaps `a-b`)"),
        ("slug = \"a\"\nseverity = \"info\"\nscope.tags = {}\n", "scope.tags: chooses by no tag"),
        ("slug = \"a\"\nseverity = \"info\"\nscope = { all = true, except = {} }\n", "scope.except: excepts nothing"),
        (
            "slug = \"a\"\nseverity = \"info\"\nscope = { all = true, except = { site = \"x\", all = true } }\n",
            "scope.except.all: unknown key",
        ),
    ] {
        let faults = refused(&format!("{text}when = {{ metric = \"t\", gt = 30 }}"));
        assert!(faults.contains(fault), "{text}: {faults}");
        assert_eq!(faults.lines().count(), 1, "{text}: {faults}");
    }
}

#[test]
fn all_faults_are_told_at_once_and_one_does_not_breed_others() {
    let faults = refused(
        "slug = \"Hot\"\nname = \"\"\n[scope]\ndevic = \"d\"\n[when]\nmetric = \"t\"\ngt = \"x\"\n[clear]\nlt = 3\nfor = \"soon\"\n",
    );
    let lines: Vec<&str> = faults.lines().map(|line| line.split(" ").nth(1).unwrap()).collect();
    assert_eq!(lines, ["slug:", "name:", "severity:", "scope:", "scope.devic:", "when.gt:", "clear.for:"], "{faults}");
}

#[test]
fn too_many_conditions_are_told_once() {
    let part = "{ metric = \"t\", gt = 1 }, ";
    accepted(&file(&format!("when.any = [{}]", part.repeat(31))));
    let faults = refused(&file(&format!("when.any = [{}]", part.repeat(200))));
    assert_eq!(faults, "hot.toml:4: when.any[31]: a rule may have 32 conditions, this is one more");
    let deep = format!("when.{}metric = \"t\"\n", "not.".repeat(40));
    assert!(refused(&file(&deep)).contains("a rule may have 32 conditions"));
    // Those that clear takes over count too.
    let faults = refused(&file(&format!("when.any = [{}]\nclear.for = \"1m\"", part.repeat(31))));
    assert!(faults.contains("hot.toml: has 65 conditions"), "{faults}");
}

#[test]
fn a_rule_that_the_table_could_not_take_is_refused() {
    let devices = format!("\"{}\",", "d".repeat(255)).repeat(1024);
    let text = format!("slug = \"a\"\nseverity = \"info\"\nscope.device = [{devices}]\nwhen.absent = \"1m\"\n");
    let faults = refused(&text);
    assert!(faults.starts_with("hot.toml: has 264") && faults.ends_with("as JSON, 262144 are the most"), "{faults}");
}

#[test]
fn what_works_but_hardly_as_meant_is_a_warning() {
    let warned = |rest: &str| {
        let (rule, faults, warnings) = read_text(&file(rest));
        assert!(rule.is_some(), "{faults:?}");
        warnings.join("\n")
    };
    let overlap = warned("when = { metric = \"t\", gt = 30 }\nclear.lt = 40");
    assert!(overlap.contains("hot.toml:5: clear.lt: holds together with [when]"), "{overlap}");
    let braces = warned("message = \"{devcie} {x} {}\"\nwhen = { metric = \"t\", gt = 30 }");
    assert!(braces.contains("{devcie} stands for nothing and stays as it is (did you mean {device}?)"), "{braces}");
    assert_eq!(warned("message = \"{device} { }\"\nwhen = { metric = \"t\", gt = 30 }\nclear.lt = 30"), "");
}

#[test]
fn a_row_is_read_as_a_file_is_and_its_faults_name_it() {
    let text = file("when = { metric = \"t\", gt = 30, for = \"2m\" }\nclear.lt = 28.5");
    let findings = Findings::default();
    let document = Document::parse(&Arc::from(Path::new("hot.toml")), &text);
    let declared = read(&document, &findings).unwrap().declared.unwrap();
    let expected = json!({
        "slug": "hot", "severity": "warning", "scope": {"all": true},
        "when": {"metric": "t", "gt": 30, "for": "2m"}, "clear": {"lt": 28.5},
    });
    assert_eq!(declared.definition, expected);
    assert_eq!(from_json(&declared.definition, "alert_rules hot").unwrap(), declared.rule);
    let faults = |definition: &Value| from_json(definition, "alert_rules hot").unwrap_err().to_string();
    assert!(faults(&json!(3)).contains("alert_rules hot: expected a table, found an integer"));
    assert!(faults(&Value::Null).starts_with("alert_rules hot: null means nothing here\n"));
    let wrong = with(expected, json!({"when": {"metric": "t", "gt": 30, "fro": "2m"}}));
    assert_eq!(faults(&wrong), "alert_rules hot: when.fro: unknown key (did you mean `for`?)");
}

#[test]
fn a_file_outside_of_the_catalog_is_read_with_its_faults() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hot.toml");
    std::fs::write(&path, file("when = { metric = \"t\", gt = 30 }")).unwrap();
    assert_eq!(&*load(&path).unwrap().rule.slug, "hot");
    assert!(load(&dir.path().join("cold.toml")).unwrap_err().to_string().contains("cold.toml: can't be read"));
}

/// A number with which no comparison below is settled or at odds with another.
fn number() -> impl Strategy<Value = Value> {
    prop_oneof![(1_i64..1000).prop_map(Value::from), (1.0_f64..1000.0).prop_map(Value::from)]
}

fn comparison() -> impl Strategy<Value = Value> {
    prop_oneof![
        (prop::sample::select(vec!["gt", "gte", "eq", "ne"]), number()).prop_map(|(key, bound)| json!({key: bound})),
        (number(), number()).prop_map(|(low, high)| {
            let [low, high] = [&low, &high].map(|bound| bound.as_f64().unwrap());
            json!({"inside": [low.min(high), low.max(high)]})
        }),
    ]
}

fn with(mut one: Value, more: Value) -> Value {
    let (Value::Object(entries), Value::Object(more)) = (&mut one, more) else { panic!("no tables") };
    entries.extend(more);
    one
}

fn leaf() -> impl Strategy<Value = Value> {
    let metric = "[a-z]{1,8}(\\.[a-z]{1,4})?".prop_map(|name| json!({"metric": name}));
    let check = prop_oneof![
        comparison(),
        comparison().prop_map(|is| with(is, json!({"window": "90s", "aggregate": "p95"}))),
        comparison().prop_map(|is| with(is, json!({"samples": 9, "least": 2}))),
        comparison().prop_map(|is| with(is, json!({"rate": "1m 5s", "counter": true}))),
        comparison().prop_map(|is| with(is, json!({"other": "none_such_"}))),
        Just(json!({"eq": ["a", "ü \"'\\"]})),
        Just(json!({"ne": true})),
        Just(json!({"stuck": "500ms"})),
        Just(json!({"absent": "1d"})),
        number().prop_map(|deviations| json!({"anomaly": deviations, "season": "hour_of_week"})),
        Just(json!({"geofence": {"polygon": [[0, 0], [0, 1.5], [-1, 1]]}, "is": "outside", "longitude": "lon_"})),
    ];
    (metric, check).prop_map(|(metric, check)| with(metric, check))
}

fn tree() -> impl Strategy<Value = Value> {
    let held = |condition: Value, held: bool| if held { with(condition, json!({"for": "2m"})) } else { condition };
    leaf()
        .prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 1..3).prop_map(|parts| json!({ "any": parts })),
                inner.clone().prop_map(|part| json!({ "not": part })),
                inner.prop_map(|part| json!({ "all": [part] })),
            ]
        })
        .prop_flat_map(move |condition| any::<bool>().prop_map(move |is_held| held(condition.clone(), is_held)))
}

/// As the database gives it back.
fn written(json: &Value) -> Value {
    serde_json::from_str(&json.to_string()).unwrap()
}

/// TOML of JSON without null: inline tables all the way.
fn toml_of(json: &Value) -> String {
    match json {
        Value::Object(entries) => {
            let entries = entries
                .iter()
                .map(|(key, value)| format!("{} = {}", toml_of(&Value::from(key.as_str())), toml_of(value)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(toml_of).collect::<Vec<_>>().join(", ")),
        Value::Number(number) if number.is_f64() => format!("{:?}", number.as_f64().unwrap()),
        // JSON leaves DEL as it is, TOML does not.
        other => other.to_string().replace('\u{7f}', "\\u007F"),
    }
}

proptest! {
    #[test]
    fn a_rule_is_the_same_from_toml_from_json_and_from_json_of_it(
        when in tree(), raise in prop::option::of("[1-9][0-9]{0,2}h"), labels in prop::collection::btree_map("[a-z]{1,6}", "[^\\p{C}]{0,9}", 0..4)
    ) {
        let mut rule = json!({
            "slug": "some-rule", "severity": "warning", "scope": {"device": ["a*", "b"], "except": {"site": "x"}},
            "when": when, "clear": {"for": "1m"}, "labels": labels,
        });
        if let Some(hold) = raise {
            rule = with(rule, json!({"raise": [{"severity": "critical", "when": {"for": hold}}]}));
        }
        let of_row = from_json(&written(&rule), "a row");
        let lines: Vec<String> = rule.as_object().unwrap().iter().map(|(key, value)| format!("{key} = {}", toml_of(value))).collect();
        let findings = Findings::default();
        let document = Document::parse(&Arc::from(Path::new("r.toml")), &lines.join("\n"));
        let declared = read(&document, &findings).and_then(|file| file.declared);
        let faults: Vec<String> = findings.into_inner().faults.iter().map(ToString::to_string).collect();
        // Trees at random have too many conditions at times; nothing else may be wrong.
        match declared {
            Some(declared) => {
                prop_assert_eq!(&declared.definition, &rule);
                prop_assert_eq!(Ok(&declared.rule), of_row.as_ref());
                let again = from_json(&written(&declared.definition), "a row");
                prop_assert_eq!(Ok(declared.rule), again);
            }
            None => {
                prop_assert!(of_row.is_err());
                prop_assert!(faults.iter().all(|fault| fault.contains("conditions")), "{faults:?} {rule}");
                // So that a run in which most are refused fails.
                return Err(TestCaseError::reject("too many conditions"));
            }
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,200}") {
        let _ = read_text(&text);
        if let Ok(json) = serde_json::from_str(&text) {
            let _ = from_json(&json, "a row");
        }
    }

    #[test]
    fn no_mixture_of_keys_and_values_makes_the_reader_panic(
        entries in prop::collection::vec((prop::sample::select(KEYS.to_vec()), prop::sample::select(KEYS.to_vec()), value()), 0..24)
    ) {
        let mut rule = json!({"slug": "x", "severity": "info", "scope": {"all": true}});
        for (table, key, value) in &entries {
            let tables = rule.as_object_mut().unwrap();
            match tables.entry(*table).or_insert_with(|| json!({})) {
                Value::Object(inside) => drop(inside.insert((*key).to_owned(), value.clone())),
                other => *other = value.clone(),
            }
        }
        let of_row = from_json(&written(&rule), "a row");
        let lines: Vec<String> = rule.as_object().unwrap().iter().map(|(key, value)| format!("{key} = {}", toml_of(value))).collect();
        let (of_file, _, _) = read_text(&lines.join("\n"));
        prop_assert_eq!(of_row.ok(), of_file);
    }
}

const KEYS: [&str; 42] = [
    "when",
    "clear",
    "raise",
    "scope",
    "slug",
    "severity",
    "name",
    "tenant",
    "labels",
    "message",
    "min_firing",
    "cooldown",
    "resolve",
    "metric",
    "gt",
    "lt",
    "eq",
    "ne",
    "inside",
    "outside",
    "for",
    "samples",
    "least",
    "window",
    "aggregate",
    "rate",
    "counter",
    "absent",
    "stuck",
    "anomaly",
    "season",
    "geofence",
    "circle",
    "polygon",
    "longitude",
    "is",
    "other",
    "any",
    "all",
    "not",
    "device",
    "tags",
];

fn value() -> impl Strategy<Value = Value> {
    let plain = prop_oneof![
        Just(json!(true)),
        Just(json!(i64::MIN)),
        Just(json!(u64::MAX)),
        Just(json!(f64::MAX)),
        Just(json!(-1e-300)),
        Just(json!(3)),
        prop::sample::select(vec![
            "",
            "5m",
            "t",
            "info",
            "avg",
            "inside",
            "critical",
            "99999999999999999999y",
            "\u{7f}"
        ])
        .prop_map(Value::from),
    ];
    plain.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(prop::sample::select(KEYS.to_vec()), inner, 0..4)
                .prop_map(|entries| json!(entries)),
        ]
    })
}

#[test]
fn schedules_dependencies_and_flapping_are_read() {
    let rule = accepted(&file(
        "when = { metric = \"t\", gt = 1 }\n\
         schedule = [{ days = [\"mon-fri\"], from = \"08:00\", to = \"18:00\" }, { cron = \"0 20 * * SAT\", lasts = \"2h\" }, \
         { days = \"fri-mon\", from = \"22:00\", to = \"06:00\" }, { days = [\"sunday\"] }]\n\
         depends_on = [{ rule = \"hot\", on = \"gateway\", grace = \"5m\" }, { rule = \"off\" }]\n\
         flapping = { changes = 6, within = \"1h\" }",
    ));
    let schedule = rule.schedule.unwrap();
    let time = |hour| jiff::civil::time(hour, 0, 0, 0);
    let weekly =
        |days, from, to, overnight| Spell::Weekly { days: Days(days), from: time(from), to: time(to), overnight };
    assert_eq!(schedule.times.0[0], weekly(0b001_1111, 8, 18, false));
    assert!(matches!(&schedule.times.0[1], Spell::Cron { lasts, .. } if *lasts == secs(7200)));
    assert_eq!(schedule.times.0[2..], [weekly(0b111_0001, 22, 6, true), weekly(0b100_0000, 0, 0, true)]);
    assert_eq!(schedule.zone, None);
    let depends = |rule: &str, on, grace| Dependency { rule: rule.into(), on, grace: secs(grace) };
    assert_eq!(rule.depends_on, [depends("hot", DependsOn::Gateway, 300), depends("off", DependsOn::Device, 0)]);
    assert_eq!(rule.flapping, Some(Flapping { changes: 6, within: secs(3600), calm: secs(3600) }));
}

#[test]
fn what_never_comes_and_what_waits_for_itself_is_a_fault() {
    for (more, fault) in [
        ("schedule = {}", "schedule: says no time"),
        ("schedule = []", "schedule: 0 are given"),
        ("schedule = { days = [] }", "days: is empty"),
        ("schedule = { days = [\"mon\"], from = \"08:00\", to = \"08:00\" }", "to: is empty"),
        ("schedule = { days = [\"mo\"] }", "\"mo\" is no day"),
        ("schedule = { from = \"25:00\" }", "\"25:00\" is no time"),
        ("schedule = { cron = \"0 0 30 2 *\", lasts = \"1h\" }", "never comes"),
        ("schedule = { cron = \"0 0 * *\", lasts = \"1h\" }", "is no cron expression"),
        ("schedule = { cron = \"0 0 1 * *\" }", "give lasts"),
        ("schedule = { cron = \"0 0 1 * *\", lasts = \"1h\", from = \"08:00\" }", "from: means nothing beside cron"),
        ("schedule = { lasts = \"1h\" }", "lasts: means nothing without cron"),
        ("schedule = { from = \"2026-12-01T08:00\", to = \"2026-12-01T09:00\" }", "is a day that comes once"),
        ("schedule = { days = \"mon\", timezone = \"Europe/Berln\" }", "no IANA time zone"),
        ("schedule = [{ days = \"mon\", timezone = \"Europe/Berlin\" }, { days = \"tue\" }]", "more than one timezone"),
        ("depends_on = { rule = \"hot\" }", "is the rule itself"),
        ("depends_on = { on = \"gateway\" }", "rule: is missing"),
        ("depends_on = { rule = \"x\", on = \"site\" }", "on: \"site\" is unknown"),
        ("flapping = { changes = 1, within = \"1h\" }", "is not within 2 to 100"),
        ("flapping = { changes = 5 }", "within: is missing"),
    ] {
        let faults = refused(&file(&format!("when = {{ metric = \"t\", gt = 1 }}\n{more}")));
        assert!(faults.contains(fault), "{more}: {faults}");
    }
}
