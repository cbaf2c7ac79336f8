//! What decoders remember, beside the position it belongs to.

use diesel::prelude::*;

use super::Store;
use super::error::{During, StoreError};
use super::pool::{Conn, with_db};
use super::schema::decoder_memory::{self, instance, key, source, table, value};
use crate::decode::memory::{Changes, Memory};

#[derive(Insertable)]
#[diesel(table_name = decoder_memory, treat_none_as_default_value = false)]
struct Remembered<'a> {
    instance: &'a str,
    source: &'a str,
    key: &'a str,
    value: &'a [u8],
}

impl Store {
    /// What the decoders of an instance remembered at its position.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn memory(&self, of: &str) -> Result<Memory, StoreError> {
        self.db.with(|conn| {
            let rows: Vec<(String, String, Vec<u8>)> =
                with_db!(conn, |c| table.filter(instance.eq(of)).select((source, key, value)).load(c))
                    .during("reading what decoders remember")?;
            Ok(Memory::of(rows))
        })
    }
}

/// Keeps what has changed.
pub(super) fn keep(conn: &mut Conn<'_>, of: &str, changes: &Changes) -> Result<(), StoreError> {
    for ((from, name), _) in changes.iter().filter(|(_, kept)| kept.is_none()) {
        with_db!(conn, |c| diesel::delete(table.find((of, &**from, name))).execute(c))
            .during("forgetting what a decoder remembered")?;
    }
    let kept = changes.iter().filter_map(|((from, name), kept)| {
        Some(Remembered { instance: of, source: from, key: name, value: kept.as_deref()? })
    });
    let kept: Vec<_> = kept.collect();
    for rows in kept.chunks(conn.rows_per_statement(4)) {
        let newest = value.eq(diesel::upsert::excluded(value));
        with_db!(conn, |c| diesel::insert_into(table)
            .values(rows)
            .on_conflict((instance, source, key))
            .do_update()
            .set(newest)
            .execute(c))
        .during("keeping what decoders remember")?;
    }
    Ok(())
}
