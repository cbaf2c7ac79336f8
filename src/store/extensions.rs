//! What PostgreSQL has been given beside its own: asked of the system's catalogs, never assumed.

use diesel::prelude::*;
use diesel::sql_types::{Bool, Text};

#[derive(QueryableByName)]
struct Answer {
    #[diesel(sql_type = Bool)]
    yes: bool,
}

/// Whether this database has the extension.
pub(super) fn has_extension(connection: &mut PgConnection, name: &str) -> QueryResult<bool> {
    diesel::sql_query("SELECT EXISTS (SELECT FROM pg_extension WHERE extname = $1) AS yes")
        .bind::<Text, _>(name)
        .get_result::<Answer>(connection)
        .map(|answer| answer.yes)
}

/// Whether the table is a hypertable; without TimescaleDB none is.
pub(super) fn is_hypertable(connection: &mut PgConnection, table: &str) -> QueryResult<bool> {
    if !has_extension(connection, "timescaledb")? {
        return Ok(false);
    }
    diesel::sql_query(
        "SELECT EXISTS (SELECT FROM timescaledb_information.hypertables \
         WHERE hypertable_schema = current_schema() AND hypertable_name = $1) AS yes",
    )
    .bind::<Text, _>(table)
    .get_result::<Answer>(connection)
    .map(|answer| answer.yes)
}
