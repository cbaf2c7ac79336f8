//! tidegate's own figures in the table `system_metrics`: written, and deleted when they are old.

use diesel::prelude::*;
use diesel::sql_types::Text;

use super::Store;
use super::error::{During, StoreError};
use super::extensions::{has_extension, is_hypertable};
use super::pool::{Conn, with_db};
use super::schema::{Instant, system_metrics};
use crate::time::UtcMicros;

/// Most bytes of a figure's name and of its labels, as the table has it.
const NAME: usize = 128;
const LABELS: usize = 512;

/// One figure at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// As at `/metrics`, e.g. `tidegate_readings_stored_total`.
    pub name: String,
    /// As Prometheus writes them, without the braces; may be empty.
    pub labels: String,
    /// Finite.
    pub value: f64,
}

/// What one look for old figures did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Rows deleted; those of chunks that were dropped whole are not counted.
    pub figures: u64,
    /// Whether there are more.
    pub more: bool,
}

#[derive(QueryableByName)]
struct Series {
    #[diesel(sql_type = Text)]
    instance: String,
    #[diesel(sql_type = Text)]
    name: String,
}

impl Store {
    /// Writes figures of one moment in one transaction; returns how many were new. What the table can't hold (no number, or a
    /// name or labels that are too long) is left out.
    ///
    /// # Errors
    /// [`StoreError`]; then none is written.
    pub fn write_figures(&self, of: &str, at: UtcMicros, figures: &[Figure]) -> Result<u64, StoreError> {
        let fits =
            |figure: &&Figure| figure.value.is_finite() && figure.name.len() <= NAME && figure.labels.len() <= LABELS;
        let rows: Vec<_> = figures
            .iter()
            .filter(fits)
            .map(|figure| {
                (
                    system_metrics::instance.eq(of),
                    system_metrics::name.eq(&figure.name),
                    system_metrics::time.eq(at),
                    system_metrics::labels.eq(&figure.labels),
                    system_metrics::value.eq(figure.value),
                )
            })
            .collect();
        self.db.write(|conn| {
            let mut written = 0;
            for rows in rows.chunks(conn.rows_per_statement(5)) {
                written += with_db!(conn, |c| diesel::insert_into(system_metrics::table)
                    .values(rows)
                    .on_conflict_do_nothing()
                    .execute(c))
                .during("writing figures")? as u64;
            }
            Ok(written)
        })
    }

    /// Deletes figures from before `before`, of every instance, `at_most` at once or a few more; of a hypertable whole chunks.
    ///
    /// # Errors
    /// [`StoreError`]; what was deleted before it stays deleted.
    pub fn expire_figures(&self, before: UtcMicros, at_most: u32) -> Result<Expired, StoreError> {
        if self.db.with(|conn| drop_chunks(conn, before))? {
            return Ok(Expired::default());
        }
        let mut expired = Expired::default();
        let mut last = Series { instance: String::new(), name: String::new() };
        while let Some(series) = self.db.with(|conn| series_after(conn, &last))? {
            let left = u64::from(at_most).saturating_sub(expired.figures);
            expired.figures += self.expire_series(&series, before, left)?;
            if expired.figures >= u64::from(at_most) {
                return Ok(Expired { more: true, ..expired });
            }
            last = series;
        }
        Ok(expired)
    }

    /// The oldest `at_most` rows of one figure from before `before`, and what has the same time as the last of them.
    fn expire_series(&self, series: &Series, before: UtcMicros, at_most: u64) -> Result<u64, StoreError> {
        let old = || {
            system_metrics::table
                .filter(system_metrics::instance.eq(&series.instance))
                .filter(system_metrics::name.eq(&series.name))
                .filter(system_metrics::time.lt(before))
        };
        let beyond = i64::try_from(at_most).unwrap_or(i64::MAX).saturating_sub(1).max(0);
        let times = |offset: i64| {
            let nth = old().select(system_metrics::time).order(system_metrics::time).offset(offset).limit(1);
            self.db
                .with(|conn| with_db!(conn, |c| nth.first::<UtcMicros>(c).optional()).during("looking for old figures"))
        };
        // Most figures have nothing old most of the time: no transaction that writes is begun for them.
        if times(0)?.is_none() {
            return Ok(0);
        }
        let last = times(beyond)?;
        self.db.write(|conn| {
            let deleted = match last {
                Some(last) => {
                    with_db!(conn, |c| diesel::delete(old().filter(system_metrics::time.le(last))).execute(c))
                }
                None => with_db!(conn, |c| diesel::delete(old()).execute(c)),
            };
            deleted.map(|rows| rows as u64).during("deleting old figures")
        })
    }
}

/// Makes `system_metrics` a hypertable with chunks of a week where the database has TimescaleDB, with what is in it;
/// returns whether it is one now. Elsewhere, and where it is one already, nothing changes.
pub(super) fn make_hypertable(conn: &mut Conn<'_>) -> Result<bool, StoreError> {
    let Conn::Postgres(c) = conn else { return Ok(false) };
    if !has_extension(c, "timescaledb").during("looking for TimescaleDB")? {
        return Ok(false);
    }
    // No default index on time: the primary key serves, and old figures leave by whole chunks.
    diesel::sql_query(
        "SELECT create_hypertable('system_metrics', by_range('time', INTERVAL '7 days'), \
         create_default_indexes => false, if_not_exists => true, migrate_data => true)",
    )
    .execute(*c)
    .during("making a hypertable of system_metrics")?;
    Ok(true)
}

/// Drops old chunks if the table has chunks; returns whether it has.
fn drop_chunks(conn: &mut Conn<'_>, before: UtcMicros) -> Result<bool, StoreError> {
    let Conn::Postgres(c) = conn else { return Ok(false) };
    if !is_hypertable(c, "system_metrics").during("looking for the hypertable of figures")? {
        return Ok(false);
    }
    diesel::sql_query("SELECT drop_chunks('system_metrics', older_than => $1)")
        .bind::<Instant, _>(before)
        .execute(*c)
        .during("dropping chunks of old figures")?;
    Ok(true)
}

/// The figure after this one, by one descent of the primary key: a DISTINCT would read all of it.
fn series_after(conn: &mut Conn<'_>, last: &Series) -> Result<Option<Series>, StoreError> {
    let next = diesel::sql_query(
        "SELECT instance, name FROM system_metrics WHERE (instance, name) > ($1, $2) ORDER BY instance, name LIMIT 1",
    )
    .bind::<Text, _>(&last.instance)
    .bind::<Text, _>(&last.name);
    with_db!(conn, |c| next.get_result(c).optional()).during("looking for old figures")
}
