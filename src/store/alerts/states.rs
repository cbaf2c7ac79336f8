//! What rules remember of devices, beside the position it belongs to.

use std::collections::{BTreeMap, HashMap};

use diesel::connection::DefaultLoadingMode;
use diesel::pg::PgRowByRowLoadingMode;
use diesel::prelude::*;
use diesel::upsert::excluded;

use super::{Owners, group_states};
use crate::alert::{Holder, Remembered, StateChange};
use crate::store::Store;
use crate::store::error::{During, StoreError};
use crate::store::pool::{Conn, with_db};
use crate::store::schema::alert_states::{self, device_id, instance, rule, state, table};
use crate::store::schema::{devices, tenants};
use crate::store::snapshot::Names;

#[derive(Insertable)]
#[diesel(table_name = alert_states, treat_none_as_default_value = false)]
struct Kept<'a> {
    device_id: i32,
    rule: &'a str,
    instance: &'a str,
    state: &'a str,
}

/// Rule, tenant, uid, state.
type Row = (String, String, String, String);

impl Store {
    /// What the rules of an instance remembered at its position.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn alert_states(&self, of: &str) -> Result<Vec<Remembered>, StoreError> {
        self.db.with(|conn| {
            let (mut names, mut found) = (Names::default(), Vec::new());
            // There may be one for each rule and device: they are streamed, and their names shared.
            let mut add = |row: QueryResult<Row>| -> QueryResult<()> {
                let (slug, tenant, uid, text) = row?;
                let (slug, tenant, uid) = (names.share(slug), names.share(tenant), names.share(uid));
                found.push(Remembered { rule: slug, tenant, holder: Holder::Device(uid), state: text });
                Ok(())
            };
            let query = table.inner_join(devices::table.inner_join(tenants::table)).filter(instance.eq(of)).select((
                rule,
                tenants::name,
                devices::uid,
                state,
            ));
            match conn {
                Conn::Postgres(c) => {
                    query.load_iter::<Row, PgRowByRowLoadingMode>(*c).and_then(|mut rows| rows.try_for_each(&mut add))
                }
                Conn::Sqlite(c) => {
                    query.load_iter::<Row, DefaultLoadingMode>(*c).and_then(|mut rows| rows.try_for_each(&mut add))
                }
            }
            .during("reading what rules remember")?;
            found.extend(group_states::load(conn, of)?);
            Ok(found)
        })
    }
}

/// Keeps what has changed; of one rule and device or group the last counts.
pub(super) fn keep(conn: &mut Conn<'_>, of: &str, changes: &[StateChange], owners: &Owners) -> Result<(), StoreError> {
    let mut newest: BTreeMap<(i32, &str), Option<&str>> = BTreeMap::new();
    let mut groups = BTreeMap::new();
    for change in changes {
        let text = change.state.as_deref();
        match &change.holder {
            Holder::Group(name) => drop(groups.insert((&*change.tenant, &*change.rule, &**name), text)),
            Holder::Device(uid) => {
                if let Some(device) = owners.device(&change.tenant, uid) {
                    newest.insert((device.id, &change.rule), text);
                }
            }
        }
    }
    let mut gone: HashMap<&str, Vec<i32>> = HashMap::new();
    let mut kept = Vec::with_capacity(newest.len());
    for ((device, slug), text) in newest {
        match text {
            Some(text) => kept.push(Kept { device_id: device, rule: slug, instance: of, state: text }),
            None => gone.entry(slug).or_default().push(device),
        }
    }
    for (slug, devices) in gone {
        for ids in devices.chunks(conn.rows_per_statement(1)) {
            let rows = table.filter(device_id.eq_any(ids)).filter(rule.eq(slug)).filter(instance.eq(of));
            with_db!(conn, |c| diesel::delete(rows).execute(c)).during("forgetting what a rule remembered")?;
        }
    }
    for rows in kept.chunks(conn.rows_per_statement(4)) {
        with_db!(conn, |c| diesel::insert_into(table)
            .values(rows)
            .on_conflict((device_id, rule, instance))
            .do_update()
            .set(state.eq(excluded(state)))
            .execute(c))
        .during("keeping what rules remember")?;
    }
    if groups.is_empty() { Ok(()) } else { group_states::keep(conn, of, &groups) }
}
