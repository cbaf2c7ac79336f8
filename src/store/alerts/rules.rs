//! Rules of files and of people, as rows: brought in, read, switched.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use diesel::prelude::*;

use super::{defined, unfit};
use crate::alert::{Rule, dependency, rule_file};
use crate::catalog::{AmissTable, Declared, DeclaredRule, RowAmiss};
use crate::clock;
use crate::config::fault::did_you_mean;
use crate::store::error::{During, StoreError};
use crate::store::pool::{Conn, with_db};
use crate::store::position::default_tenant;
use crate::store::reconcile::Report;
use crate::store::schema::{alert_rules, alerts, events, tenants};
use crate::store::{Store, introduce, limits};

/// A rule as a person wants to see it.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleRow {
    pub slug: String,
    pub name: String,
    /// The tenant whose devices it looks at; none: every tenant's.
    pub tenant: Option<String>,
    /// Whether a file declares it.
    pub declared: bool,
    pub enabled: bool,
    /// Whether it has gone from the files.
    pub retired: bool,
    /// How many of its episodes are not over.
    pub active: i64,
    /// As it would be evaluated, or why it is not.
    pub rule: Result<Rule, String>,
}

#[derive(Clone, Debug, PartialEq, Queryable)]
struct Row {
    id: i32,
    tenant: Option<String>,
    slug: String,
    name: String,
    definition: String,
    declared: bool,
    enabled: bool,
    retired: bool,
}

impl Store {
    /// Rules by slug, those out of force too.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn alert_rules(&self) -> Result<Vec<RuleRow>, StoreError> {
        self.look(|conn| {
            let rows = read(conn)?;
            // Counted here: SQLite would go through every alert there ever was to have them by rule.
            let slugs: Vec<String> = with_db!(conn, |c| alerts::table
                .filter(alerts::resolved_at.is_null())
                .order(alerts::since)
                .select(alerts::rule)
                .load(c))
            .during("counting active alerts")?;
            let mut active: HashMap<String, i64> = HashMap::new();
            slugs.into_iter().for_each(|slug| *active.entry(slug).or_default() += 1);
            let shown = |row: Row| RuleRow {
                rule: rule_of(&row),
                active: active.remove(&row.slug).unwrap_or(0),
                slug: row.slug,
                name: row.name,
                tenant: row.tenant,
                declared: row.declared,
                enabled: row.enabled,
                retired: row.retired,
            };
            Ok(rows.into_iter().map(shown).collect())
        })
    }

    /// Switches a rule on or off, whether a file declares it or not; false: it was so already. Daemons take it up within a second.
    ///
    /// # Errors
    /// [`StoreError::Unfit`] where there is no such rule.
    pub fn switch_rule(&self, slug: &str, enabled: bool) -> Result<bool, StoreError> {
        self.db.write(|conn| {
            let rows = read(conn)?;
            let Some(row) = rows.iter().find(|row| row.slug == slug) else {
                let slugs = rows.iter().map(|row| row.slug.as_str());
                let hint = did_you_mean(slug, slugs).map(|hint| format!("; {hint}"));
                let hint = hint.unwrap_or_else(|| "; `tidegate alerts rules` shows those there are".to_owned());
                return Err(unfit(format!("there is no rule {slug}{hint}")));
            };
            if row.enabled == enabled {
                return Ok(false);
            }
            with_db!(conn, |c| diesel::update(alert_rules::table.find(row.id))
                .set(alert_rules::enabled.eq(enabled))
                .execute(c))
            .during("switching a rule")?;
            Ok(true)
        })
    }

    /// Records in `events` that a row can't be read.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn record_amiss(&self, amiss: &RowAmiss) -> Result<(), StoreError> {
        let (kind, what) = match amiss.table {
            AmissTable::AlertRules => ("alert_rule_invalid", "alert rule"),
            AmissTable::Maintenance => ("maintenance_invalid", "maintenance"),
        };
        self.db.write(|conn| {
            let tenant = default_tenant(conn)?;
            let detail = format!("{what} {}: {}", amiss.name, amiss.why);
            with_db!(conn, |c| diesel::insert_into(events::table)
                .values((
                    events::tenant_id.eq(tenant),
                    events::at.eq(clock::now()),
                    events::kind.eq(kind),
                    events::detail.eq(limits::clip(&detail, limits::DETAIL)),
                ))
                .execute(c))
            .during("recording a row that can't be read")?;
            Ok(())
        })
    }
}

/// The rules in force, by slug, and the rows that should be in force and can't be read.
pub(in crate::store) fn load(conn: &mut Conn<'_>) -> Result<(Vec<Arc<Rule>>, Vec<RowAmiss>), StoreError> {
    let (mut rules, mut amiss) = (Vec::new(), Vec::new());
    for row in read(conn)?.into_iter().filter(|row| row.enabled && !row.retired) {
        match rule_of(&row) {
            Ok(rule) => rules.push((row.declared, Arc::new(rule))),
            Err(why) => amiss.push(rule_amiss(row.slug, why)),
        }
    }
    leave_out_circles(&mut rules, &mut amiss);
    Ok((rules.into_iter().map(|(_, rule)| rule).collect(), amiss))
}

/// Rules that wait for one another: those of files were found to be sound among themselves, so it is the others that are left out.
fn leave_out_circles(rules: &mut Vec<(bool, Arc<Rule>)>, amiss: &mut Vec<RowAmiss>) {
    // Each time around at least one is gone.
    loop {
        let circles = dependency::circles(rules.iter().map(|(_, rule)| &**rule));
        let Some(circle) = circles.first() else { return };
        let why = format!("waits for itself: {}", dependency::in_words(circle));
        let within = |rule: &Rule| circle.contains(&rule.slug);
        let by_people = rules.iter().any(|(declared, rule)| !declared && within(rule));
        let gone = |declared: bool, rule: &Rule| within(rule) && !(declared && by_people);
        for (_, rule) in rules.iter().filter(|(declared, rule)| gone(*declared, rule)) {
            amiss.push(rule_amiss(rule.slug.to_string(), why.clone()));
        }
        rules.retain(|(declared, rule)| !gone(*declared, rule));
    }
}

fn rule_amiss(slug: String, why: String) -> RowAmiss {
    RowAmiss { table: AmissTable::AlertRules, name: slug, why }
}

fn read(conn: &mut Conn<'_>) -> Result<Vec<Row>, StoreError> {
    with_db!(conn, |c| alert_rules::table
        .left_join(tenants::table.on(alert_rules::tenant_id.eq(tenants::id.nullable())))
        .select((
            alert_rules::id,
            tenants::name.nullable(),
            alert_rules::slug,
            alert_rules::name,
            alert_rules::definition,
            alert_rules::declared,
            alert_rules::enabled,
            alert_rules::retired,
        ))
        .order(alert_rules::slug)
        .load(c))
    .during("reading alert rules")
}

/// What the row's definition says, or what is wrong with it, on one line.
fn rule_of(row: &Row) -> Result<Rule, String> {
    let mut rule = defined(&row.definition, &format!("alert_rules {}", row.slug), rule_file::from_json)?;
    if *rule.slug != *row.slug {
        return Err(format!("its definition has the slug {}, and the row {}", rule.slug, row.slug));
    }
    match (&rule.tenant, &row.tenant) {
        (Some(told), Some(owner)) if told != owner => {
            return Err(format!("its definition is for the tenant {told}, and the row belongs to {owner}"));
        }
        (None, Some(owner)) => rule.tenant = Some(owner.clone()),
        _ => {}
    }
    Ok(rule)
}

/// What the table takes; the rest of a rule's file was validated when it was read.
pub(in crate::store) fn check_lengths(declared: &Declared) -> Result<(), StoreError> {
    for DeclaredRule { rule, definition } in &declared.rules {
        let text = definition.to_string();
        let fault = limits::fault("a rule's slug", &rule.slug, limits::SLUG)
            .or_else(|| limits::fault("a rule's name", &rule.name, limits::UID))
            .or_else(|| {
                limits::fault(&format!("the file of the rule {}, as JSON,", rule.slug), &text, limits::DEFINITION)
            });
        if let Some(detail) = fault {
            return Err(unfit(detail));
        }
    }
    Ok(())
}

/// Makes the declared rows agree with the files. A row that a person has put in keeps its slug.
pub(in crate::store) fn reconcile(
    conn: &mut Conn<'_>,
    declared: &Declared,
    report: &mut Report,
) -> Result<(), StoreError> {
    let owners = introduce::tenants(conn, declared.rules.iter().filter_map(|one| one.rule.tenant.as_deref()))?;
    let mut known: BTreeMap<String, Row> = read(conn)?.into_iter().map(|row| (row.slug.clone(), row)).collect();
    for DeclaredRule { rule, definition } in &declared.rules {
        let slug = rule.slug.to_string();
        let (was, text) = (known.remove(&slug), definition.to_string());
        match &was {
            Some(row) if !row.declared => {
                report.warnings.push(format!(
                    "alert rule {slug}: somebody has put a rule of this slug into alert_rules, and that one holds; the file's is \
                     left out until one of them gets another slug"
                ));
                continue;
            }
            Some(row) if !row.retired && row.definition == text && row.tenant == rule.tenant => continue,
            _ => {}
        }
        let owner = rule.tenant.as_ref().and_then(|tenant| owners.get(tenant).copied());
        write(conn, was.as_ref().map(|row| row.id), rule, &text, owner)?;
        if was.is_some() { &mut report.rules_changed } else { &mut report.rules_added }.push(slug);
    }
    for row in known.into_values().filter(|row| row.declared && !row.retired) {
        with_db!(conn, |c| diesel::update(alert_rules::table.find(row.id))
            .set(alert_rules::retired.eq(true))
            .execute(c))
        .during("retiring a rule")?;
        report.rules_retired.push(row.slug);
    }
    report.rules_added.sort();
    report.rules_changed.sort();
    Ok(())
}

fn write(
    conn: &mut Conn<'_>,
    id: Option<i32>,
    rule: &Rule,
    definition: &str,
    owner: Option<i32>,
) -> Result<(), StoreError> {
    let content = (
        alert_rules::tenant_id.eq(owner),
        alert_rules::slug.eq(&*rule.slug),
        alert_rules::name.eq(&rule.name),
        alert_rules::severity.eq(rule.severity.word()),
        alert_rules::definition.eq(definition),
        alert_rules::declared.eq(true),
        alert_rules::retired.eq(false),
    );
    match id {
        Some(id) => with_db!(conn, |c| diesel::update(alert_rules::table.find(id)).set(content).execute(c)),
        None => with_db!(conn, |c| diesel::insert_into(alert_rules::table).values(content).execute(c)),
    }
    .during("writing a rule")?;
    Ok(())
}
