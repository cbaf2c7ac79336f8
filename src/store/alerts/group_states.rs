//! What rules remember of groups of devices, beside the position it belongs to.

use std::collections::BTreeMap;

use diesel::prelude::*;
use diesel::upsert::excluded;

use crate::alert::{Holder, Remembered};
use crate::store::error::{During, StoreError};
use crate::store::introduce;
use crate::store::pool::{Conn, with_db};
use crate::store::schema::alert_group_states::{self, group_name, instance, rule, state, table, tenant_id};
use crate::store::schema::tenants;

#[derive(Insertable)]
#[diesel(table_name = alert_group_states, treat_none_as_default_value = false)]
struct Kept<'a> {
    tenant_id: i32,
    rule: &'a str,
    group_name: &'a str,
    instance: &'a str,
    state: &'a str,
}

/// What the rules of an instance remembered of groups at its position.
pub(super) fn load(conn: &mut Conn<'_>, of: &str) -> Result<Vec<Remembered>, StoreError> {
    let rows: Vec<(String, String, String, String)> = with_db!(conn, |c| table
        .inner_join(tenants::table)
        .filter(instance.eq(of))
        .select((rule, tenants::name, group_name, state))
        .load(c))
    .during("reading what rules remember of groups")?;
    let remembered = rows.into_iter().map(|(slug, tenant, name, text)| Remembered {
        rule: slug.into(),
        tenant: tenant.into(),
        holder: Holder::Group(name.into()),
        state: text,
    });
    Ok(remembered.collect())
}

/// Keeps what has changed, by tenant, rule and name; none: it is forgotten.
pub(super) fn keep(
    conn: &mut Conn<'_>,
    of: &str,
    newest: &BTreeMap<(&str, &str, &str), Option<&str>>,
) -> Result<(), StoreError> {
    let owners = introduce::tenants(conn, newest.keys().map(|(tenant, ..)| *tenant))?;
    let mut kept = Vec::with_capacity(newest.len());
    for ((tenant, slug, name), text) in newest {
        let Some(owner) = owners.get(*tenant).copied() else { continue };
        match text {
            Some(text) => {
                kept.push(Kept { tenant_id: owner, rule: slug, group_name: name, instance: of, state: text });
            }
            None => {
                let row = table.find((owner, slug, name, of));
                with_db!(conn, |c| diesel::delete(row).execute(c))
                    .during("forgetting what a rule remembered of a group")?;
            }
        }
    }
    for rows in kept.chunks(conn.rows_per_statement(5)) {
        with_db!(conn, |c| diesel::insert_into(table)
            .values(rows)
            .on_conflict((tenant_id, rule, group_name, instance))
            .do_update()
            .set(state.eq(excluded(state)))
            .execute(c))
        .during("keeping what rules remember of groups")?;
    }
    Ok(())
}
