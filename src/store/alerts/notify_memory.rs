//! What deciding who is told remembers, beside the position it belongs to.

use std::collections::BTreeMap;

use diesel::prelude::*;
use diesel::upsert::excluded;

use crate::notify::MemoryChange;
use crate::store::Store;
use crate::store::error::{During, StoreError};
use crate::store::pool::{Conn, with_db};
use crate::store::schema::notify_memory::{self, instance, key, table, value};

#[derive(Insertable)]
#[diesel(table_name = notify_memory, treat_none_as_default_value = false)]
struct Kept<'a> {
    instance: &'a str,
    key: &'a str,
    value: &'a str,
}

impl Store {
    /// What deciding who is told remembered at an instance's position: keys, and values as JSON.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn notify_memory(&self, of: &str) -> Result<Vec<(String, String)>, StoreError> {
        self.db.with(|conn| {
            with_db!(conn, |c| table.filter(instance.eq(of)).order(key).select((key, value)).load(c))
                .during("reading what is remembered of notifications")
        })
    }
}

/// Keeps what has changed; of one key the last counts.
pub(super) fn keep(conn: &mut Conn<'_>, of: &str, changes: &[MemoryChange]) -> Result<(), StoreError> {
    let newest: BTreeMap<&str, Option<&str>> =
        changes.iter().map(|change| (change.key.as_str(), change.value.as_deref())).collect();
    let gone: Vec<&str> = newest.iter().filter(|(_, text)| text.is_none()).map(|(name, _)| *name).collect();
    for names in gone.chunks(conn.rows_per_statement(1)) {
        let rows = table.filter(instance.eq(of)).filter(key.eq_any(names));
        with_db!(conn, |c| diesel::delete(rows).execute(c))
            .during("forgetting what was remembered of notifications")?;
    }
    let kept = newest.iter().filter_map(|(name, text)| Some(Kept { instance: of, key: name, value: (*text)? }));
    let kept: Vec<Kept<'_>> = kept.collect();
    for rows in kept.chunks(conn.rows_per_statement(3)) {
        with_db!(conn, |c| diesel::insert_into(table)
            .values(rows)
            .on_conflict((instance, key))
            .do_update()
            .set(value.eq(excluded(value)))
            .execute(c))
        .during("keeping what is remembered of notifications")?;
    }
    Ok(())
}
