//! What the layout has come to: the parts of each table.

use super::{Layout, ReadingTable, Recorded, Span, partitions, timescale};
use crate::store::error::StoreError;
use crate::store::pool::Conn;

/// A partition or a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// As SQL takes it, quoted where that is needed.
    pub name: String,
    pub span: Span,
    pub compressed: bool,
}

/// One of the two tables of readings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableStatus {
    pub table: ReadingTable,
    pub parts: u64,
    pub compressed: u64,
    /// From the oldest part's beginning to the newest one's end.
    pub span: Option<Span>,
}

/// The layout as recorded, and what there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutStatus {
    pub recorded: Recorded,
    /// None for plain tables.
    pub tables: Vec<TableStatus>,
}

/// The parts of a table, the oldest first; none for a plain one.
pub(in crate::store) fn parts(
    conn: &mut Conn<'_>,
    layout: Layout,
    table: ReadingTable,
) -> Result<Vec<Part>, StoreError> {
    match (conn, layout) {
        (Conn::Postgres(c), Layout::Partitions) => partitions::list(c, table),
        (Conn::Postgres(c), Layout::Timescale) => timescale::list(c, table),
        _ => Ok(Vec::new()),
    }
}

impl LayoutStatus {
    pub(in crate::store) fn read(conn: &mut Conn<'_>) -> Result<Option<LayoutStatus>, StoreError> {
        let Some(recorded) = super::recorded(conn)? else { return Ok(None) };
        let mut tables = Vec::new();
        if recorded.layout != Layout::Plain {
            for table in ReadingTable::ALL {
                let parts = parts(conn, recorded.layout, table)?;
                let from = parts.iter().map(|part| part.span.from).min();
                let to = parts.iter().map(|part| part.span.to).max();
                tables.push(TableStatus {
                    table,
                    parts: parts.len() as u64,
                    compressed: parts.iter().filter(|part| part.compressed).count() as u64,
                    span: from.zip(to).map(|(from, to)| Span { from, to }),
                });
            }
        }
        Ok(Some(LayoutStatus { recorded, tables }))
    }
}
