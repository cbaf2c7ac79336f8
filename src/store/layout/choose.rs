//! The choice of a layout, once for each database.

use diesel::prelude::*;

use super::{Layout, Recorded, partitions, recorded, timescale};
use crate::clock;
use crate::config::LayoutChoice;
use crate::store::error::{During, StoreError};
use crate::store::limits;
use crate::store::pool::{Conn, with_db};
use crate::store::schema::telemetry_layout;

/// Chooses the layout and brings both tables of readings into it, rows and all, unless that has been done. Inside the
/// transaction of the migrations, under their lock.
pub(in crate::store) fn settle(conn: &mut Conn<'_>, wanted: LayoutChoice) -> Result<Recorded, StoreError> {
    if let Some(found) = recorded(conn)? {
        if !agrees(wanted, found.layout) {
            tracing::warn!(
                layout = found.layout.word(),
                since = %found.since,
                "[database] layout asks for another layout than the one recorded; a layout is chosen once and stays. To change \
                 it, archive or copy the readings and begin with a new database"
            );
        }
        if let (Conn::Postgres(c), Layout::Partitions) = (conn, found.layout) {
            partitions::begin(c)?;
        }
        return Ok(found);
    }
    let (layout, detail) = match conn {
        Conn::Postgres(c) => on_postgres(c, wanted)?,
        Conn::Sqlite(_) => (Layout::Plain, "SQLite keeps readings in one table each".to_owned()),
    };
    let chosen = Recorded { layout, since: clock::now(), detail: limits::clip(&detail, limits::DETAIL) };
    let row = (
        telemetry_layout::id.eq(1),
        telemetry_layout::kind.eq(layout.word()),
        telemetry_layout::chosen_at.eq(chosen.since),
        telemetry_layout::detail.eq(&chosen.detail),
    );
    with_db!(conn, |c| diesel::insert_into(telemetry_layout::table).values(row).execute(c))
        .during("recording the layout of readings")?;
    tracing::info!(layout = layout.word(), detail = chosen.detail, "the layout of readings is chosen");
    Ok(chosen)
}

fn agrees(wanted: LayoutChoice, found: Layout) -> bool {
    match wanted {
        LayoutChoice::Auto => true,
        LayoutChoice::Timescale => found == Layout::Timescale,
        LayoutChoice::Partitions => found == Layout::Partitions,
    }
}

fn on_postgres(c: &mut PgConnection, wanted: LayoutChoice) -> Result<(Layout, String), StoreError> {
    let why = match wanted {
        LayoutChoice::Partitions => "[database] layout asks for partitions".to_owned(),
        LayoutChoice::Auto | LayoutChoice::Timescale => match timescale::take_over(c)? {
            Ok(version) => return Ok((Layout::Timescale, format!("TimescaleDB {version}"))),
            Err(why) if wanted == LayoutChoice::Timescale => {
                let detail = format!("[database] layout is \"timescaledb\", but {why}");
                return Err(StoreError::Migration { detail, transient: false });
            }
            Err(why) => why,
        },
    };
    partitions::convert(c)?;
    Ok((Layout::Partitions, why))
}
