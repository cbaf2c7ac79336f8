//! Alert rules: which there are and where they are from, and their switch.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::{Value, json};

use crate::alert::Rule;
use crate::alert::evaluator::wording;
use crate::alert::rule::{Scope, Selector};
use crate::cli::output::{self, or_dash, printable};
use crate::store::Store;
use crate::store::alerts::RuleRow;

/// Lists the rules by slug; those that have gone from the files only as long as something of them is active.
///
/// # Errors
/// The store's, and those of writing.
pub fn rules(store: &Store, as_json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let rows: Vec<RuleRow> = store.alert_rules()?.into_iter().filter(|row| !row.retired || row.active > 0).collect();
    if as_json {
        output::json(out, &rows.iter().map(rule_json).collect())?;
        return Ok(());
    }
    let lines = rows.iter().map(|row| {
        let rule = row.rule.as_ref();
        vec![
            row.slug.clone(),
            rule.map_or_else(|_| or_dash(None), |rule| rule.severity.word().to_owned()),
            standing(row).to_owned(),
            if row.declared { "file" } else { "row" }.to_owned(),
            row.active.to_string(),
            rule.map_or_else(|_| or_dash(None), scope),
            rule.map_or_else(|why| format!("can't be read: {why}"), |rule| wording::condition(&rule.when)),
        ]
    });
    output::table(out, &["RULE", "SEVERITY", "STANDING", "FROM", "ACTIVE", "SCOPE", "CONDITION"], lines)?;
    Ok(())
}

/// Switches a rule on or off.
///
/// # Errors
/// When there is none of this slug; the store's, and those of writing.
pub fn switch(store: &Store, slug: &str, enabled: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let changed = store.switch_rule(slug, enabled)?;
    let already = if changed { "" } else { " already" };
    let state = if enabled { "enabled" } else { "disabled" };
    writeln!(out, "rule {} is {state}{already}", printable(slug))?;
    Ok(())
}

fn standing(row: &RuleRow) -> &'static str {
    match (row.retired, row.enabled, row.rule.is_ok()) {
        (true, ..) => "gone",
        (false, false, _) => "disabled",
        (false, true, false) => "invalid",
        (false, true, true) => "enabled",
    }
}

fn rule_json(row: &RuleRow) -> Value {
    let rule = row.rule.as_ref().ok();
    json!({
        "rule": row.slug, "name": row.name, "tenant": row.tenant, "declared": row.declared, "enabled": row.enabled,
        "retired": row.retired, "active": row.active, "severity": rule.map(|rule| rule.severity.word()),
        "scope": rule.map(scope), "condition": rule.map(|rule| wording::condition(&rule.when)),
        "invalid": row.rule.as_ref().err(),
    })
}

/// The devices that a rule looks at, in words.
fn scope(rule: &Rule) -> String {
    scope_in_words(&rule.scope, rule.tenant.as_deref())
}

/// As [`scope`], of a tenant's devices or of every tenant's.
pub(super) fn scope_in_words(scope: &Scope, tenant: Option<&str>) -> String {
    let Scope { of, except } = scope;
    let mut words = match of.as_slice() {
        [] => "every device".to_owned(),
        some => some.iter().map(selector).collect::<Vec<_>>().join(", "),
    };
    if let Some(tenant) = tenant {
        words += &format!(" of tenant {tenant}");
    }
    if !except.is_empty() {
        words += &format!(", except {}", except.iter().map(selector).collect::<Vec<_>>().join(", "));
    }
    words
}

fn selector(selector: &Selector) -> String {
    match selector {
        Selector::Device(uids) => format!("device {}", uids.join(" or ")),
        Selector::Template(slugs) => format!("template {}", slugs.join(" or ")),
        Selector::Site(names) => format!("site {}", names.join(" or ")),
        Selector::Tags(tags) => tag_words(tags),
    }
}

fn tag_words(tags: &BTreeMap<String, String>) -> String {
    tags.iter().map(|(name, text)| format!("{name} = {text}")).collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_told_in_words() {
        let tags = BTreeMap::from([("floor".to_owned(), "2".to_owned()), ("room".to_owned(), "b".to_owned())]);
        let of = vec![Selector::Template(vec!["a".into(), "b".into()]), Selector::Tags(tags)];
        let except = vec![Selector::Device(vec!["d*".into()])];
        let definition = json!({
            "slug": "s", "name": "S", "severity": "info", "tenant": "acme", "scope": {"all": true},
            "when": {"metric": "t", "gt": 1}
        });
        let mut rule = crate::alert::rule_file::from_json(&definition, "a test").unwrap();
        assert_eq!(scope(&rule), "every device of tenant acme");
        rule.tenant = None;
        rule.scope = Scope { of, except };
        assert_eq!(scope(&rule), "template a or b, floor = 2 and room = b, except device d*");
    }
}
