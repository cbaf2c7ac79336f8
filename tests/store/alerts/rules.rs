//! Rules of files and rules of people, in one table.

use serde_json::json;
use tidegate::alert::{State, rule_file};
use tidegate::catalog::{AmissTable, Declared, DeclaredRule, RowAmiss};

use super::{Site, begun, on_both, step, steps};
use crate::store::lookup;

on_both!(
    the_rules_in_force_are_those_of_the_files,
    a_rule_that_somebody_put_in_keeps_its_slug,
    a_row_that_is_no_rule_costs_itself_only,
    a_rule_can_be_switched_off_and_on,
    alerts_tell_which_rule_they_are_of,
);

fn definition(slug: &str, gt: f64) -> serde_json::Value {
    json!({
        "slug": slug, "name": format!("Rule {slug}"), "severity": "critical", "scope": {"all": true},
        "when": {"metric": "temperature", "gt": gt, "for": "2m"},
    })
}

fn rule(slug: &str, gt: f64) -> DeclaredRule {
    let definition = definition(slug, gt);
    DeclaredRule { rule: rule_file::from_json(&definition, "a test").unwrap(), definition }
}

fn declared(rules: Vec<DeclaredRule>) -> Declared {
    Declared { rules, ..Declared::default() }
}

fn in_force(site: &Site) -> Vec<String> {
    site.store.snapshot().unwrap().rules.iter().map(|rule| rule.slug.to_string()).collect()
}

fn insert(slug: &str, definition: &str) -> String {
    format!(
        "INSERT INTO alert_rules (slug, name, severity, definition) VALUES ('{slug}', 'By hand', 'info', '{definition}')"
    )
}

fn the_rules_in_force_are_those_of_the_files(site: &Site) {
    let mut theirs = rule("acme-hot", 40.0);
    theirs.definition["tenant"] = "acme".into();
    theirs.rule = rule_file::from_json(&theirs.definition, "a test").unwrap();
    let all = declared(vec![rule("too-hot", 30.0), theirs.clone(), rule("hotter", 50.0)]);
    let report = site.store.reconcile(&all).unwrap();
    assert_eq!(report.rules_added, ["acme-hot", "hotter", "too-hot"]);
    assert_eq!(report.catalog_version, site.store.catalog_version().unwrap());
    let snapshot = site.store.snapshot().unwrap();
    assert_eq!(*snapshot.rules[0], theirs.rule);
    assert_eq!((snapshot.rules.len(), snapshot.amiss.len()), (3, 0));
    assert_eq!(site.number("SELECT count(*) AS n FROM alert_rules r JOIN tenants t ON t.id = r.tenant_id"), 1);

    let again = site.store.reconcile(&all).unwrap();
    assert!(again.is_empty(), "{again:?}");
    assert_eq!(again.catalog_version, report.catalog_version);

    let report = site.store.reconcile(&declared(vec![rule("too-hot", 31.0), theirs])).unwrap();
    assert_eq!((report.rules_changed, report.rules_retired), (vec!["too-hot".to_owned()], vec!["hotter".to_owned()]));
    assert_eq!(report.catalog_version, site.store.catalog_version().unwrap());
    assert_eq!(in_force(site), ["acme-hot", "too-hot"]);
    let rows = site.store.alert_rules().unwrap();
    assert_eq!(
        rows.iter().map(|row| (row.slug.as_str(), row.retired)).collect::<Vec<_>>(),
        [("acme-hot", false), ("hotter", true), ("too-hot", false)]
    );
    // It comes back as the row it was.
    assert_eq!(site.store.reconcile(&all).unwrap().rules_changed, ["hotter", "too-hot"]);
    assert_eq!((in_force(site).len(), site.rows("alert_rules")), (3, 3));
}

fn a_rule_that_somebody_put_in_keeps_its_slug(site: &Site) {
    let version = site.store.catalog_version().unwrap();
    site.execute(&insert("too-hot", &definition("too-hot", 25.0).to_string()));
    assert!(site.store.catalog_version().unwrap() > version, "a daemon must hear of it");
    let report = site.store.reconcile(&declared(vec![rule("too-hot", 30.0), rule("hotter", 50.0)])).unwrap();
    assert_eq!(report.rules_added, ["hotter"]);
    assert!(report.warnings[0].contains("alert rule too-hot: somebody has put a rule of this slug"), "{report:?}");
    let snapshot = site.store.snapshot().unwrap();
    assert_eq!(*snapshot.rules[1], rule("too-hot", 25.0).rule);
    // Files that have no rules take none of a person's away.
    site.store.reconcile(&declared(Vec::new())).unwrap();
    assert_eq!(in_force(site), ["too-hot"]);
    let version = site.store.catalog_version().unwrap();
    site.execute("DELETE FROM alert_rules WHERE slug = 'too-hot'");
    assert!(site.store.catalog_version().unwrap() > version);
}

fn a_row_that_is_no_rule_costs_itself_only(site: &Site) {
    site.store.reconcile(&declared(vec![rule("too-hot", 30.0)])).unwrap();
    site.execute(&insert("broken", "{"));
    site.execute(&insert("unknown-key", &json!({"slug": "unknown-key", "whenever": 1}).to_string()));
    site.execute(&insert("misnamed", &definition("another", 1.0).to_string()));
    site.execute("INSERT INTO tenants (id, name) VALUES (9, 'acme')");
    site.execute(&insert("theirs", &definition("theirs", 1.0).to_string()));
    site.execute("UPDATE alert_rules SET tenant_id = 9 WHERE slug = 'theirs'");
    let snapshot = site.store.snapshot().unwrap();
    assert_eq!(in_force(site), ["theirs", "too-hot"]);
    assert_eq!(snapshot.rules[0].tenant.as_deref(), Some("acme"), "the row's tenant holds");
    let amiss = &snapshot.amiss;
    assert!(amiss.iter().all(|one| one.table == AmissTable::AlertRules));
    assert_eq!(amiss.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["broken", "misnamed", "unknown-key"]);
    assert!(amiss[0].why.contains("no JSON"), "{amiss:?}");
    assert!(amiss[1].why.contains("its definition has the slug another, and the row misnamed"), "{amiss:?}");
    assert!(amiss[2].why.contains("whenever"), "{amiss:?}");
    let shown = site.store.alert_rules().unwrap();
    assert_eq!(shown.iter().filter(|row| row.rule.is_err()).count(), 3);
    let long = RowAmiss { table: AmissTable::AlertRules, name: "broken".into(), why: "x".repeat(5000) };
    site.store.record_amiss(&long).unwrap();
    let events = site.texts("SELECT detail AS t FROM events WHERE kind = 'alert_rule_invalid'");
    assert!(events.len() == 1 && events[0].starts_with("alert rule broken: xxx"), "{events:?}");
}

fn a_rule_can_be_switched_off_and_on(site: &Site) {
    let files = declared(vec![rule("too-hot", 30.0), rule("hotter", 50.0)]);
    site.store.reconcile(&files).unwrap();
    let version = site.store.catalog_version().unwrap();
    assert!(site.store.switch_rule("too-hot", false).unwrap());
    assert!(!site.store.switch_rule("too-hot", false).unwrap(), "it is so already");
    assert_eq!(site.store.catalog_version().unwrap(), version + 1);
    assert_eq!(in_force(site), ["hotter"]);
    // The file is as it was, and does not switch it on again.
    assert!(site.store.reconcile(&files).unwrap().is_empty());
    site.store.reconcile(&declared(vec![rule("too-hot", 31.0), rule("hotter", 50.0)])).unwrap();
    assert_eq!(in_force(site), ["hotter"]);
    assert!(site.store.switch_rule("too-hot", true).unwrap());
    assert_eq!(in_force(site), ["hotter", "too-hot"]);
    let said = site.store.switch_rule("to-hot", true).unwrap_err().to_string();
    assert_eq!(said, "there is no rule to-hot; did you mean `too-hot`?");
}

fn alerts_tell_which_rule_they_are_of(site: &Site) {
    site.store.reconcile(&declared(vec![rule("too-hot", 30.0)])).unwrap();
    let mut writer = begun(site);
    let all = vec![step("a1", 0, State::Firing), step("b2", 0, State::Firing), step("c3", 0, State::Resolved)];
    writer.commit(&steps(2, all), &lookup).unwrap();
    assert_eq!(site.number("SELECT count(*) AS n FROM alerts a JOIN alert_rules r ON r.id = a.rule_id"), 3);
    assert_eq!(site.store.alert_rules().unwrap()[0].active, 2);
    // Their history stays without it.
    site.execute("DELETE FROM alert_rules");
    assert_eq!(site.store.alert("a100").unwrap().alert.rule, "too-hot");
    writer.commit(&steps(3, vec![step("a1", 1, State::Resolved)]), &lookup).unwrap();
    assert_eq!(site.store.alert("a100").unwrap().alert.state, "resolved");
}
