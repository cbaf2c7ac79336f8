//! What is left of messages that had to leave before redeliveries of them are out of the question.

use std::ops::Range;

use diesel::prelude::*;

use super::{JournalFile, journal_groups, signed, unsigned};
use crate::journal::JournalError;
use crate::journal::redelivery::Trace;
use crate::message::Seq;

/// Traces written with one statement, which may have 32,766 values.
const TRACE_ROWS: usize = 4_096;

// Not in files of the first versions, which do without it. Client and content are unsigned.
pub(super) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS journal_traces (
        seq       INTEGER PRIMARY KEY,
        client    INTEGER NOT NULL,
        packet_id INTEGER NOT NULL,
        content   INTEGER NOT NULL
    );
";

diesel::table! {
    journal_traces (seq) {
        seq -> BigInt,
        client -> BigInt,
        packet_id -> Integer,
        content -> BigInt,
    }
}

impl JournalFile {
    /// Deletes every group up to and with the one that begins at `first`. Of their messages `traces` stay, until what is remembered
    /// begins later.
    pub fn delete_through(
        &mut self,
        first: Seq,
        traces: &[Trace],
        remembered: Option<Seq>,
    ) -> Result<(), JournalError> {
        let rows: Vec<_> = traces.iter().map(trace_row).collect();
        let bygone = journal_traces::table.filter(journal_traces::seq.lt(signed(remembered.unwrap_or(u64::MAX))));
        let outcome = self.connection.transaction(|connection| {
            diesel::delete(journal_groups::table.filter(journal_groups::first_seq.le(signed(first))))
                .execute(connection)?;
            diesel::delete(bygone).execute(connection)?;
            for rows in rows.chunks(TRACE_ROWS) {
                diesel::insert_or_ignore_into(journal_traces::table).values(rows).execute(connection)?;
            }
            Ok(())
        });
        outcome.map_err(self.failed("trimming"))
    }

    /// The newest traces of these positions, up to `limit`, newest first.
    pub fn traces(&mut self, positions: Range<Seq>, limit: usize) -> Result<Vec<Trace>, JournalError> {
        let rows: Vec<(i64, i64, i32, i64)> = journal_traces::table
            .filter(journal_traces::seq.ge(signed(positions.start)).and(journal_traces::seq.lt(signed(positions.end))))
            .order(journal_traces::seq.desc())
            .limit(i64::try_from(limit).unwrap_or(i64::MAX))
            .load(&mut self.connection)
            .map_err(self.failed("reading"))?;
        let traces = rows.into_iter().filter_map(|(seq, client, packet_id, content)| {
            Some(Trace {
                seq: unsigned(seq),
                client: client.cast_unsigned(),
                packet_id: u16::try_from(packet_id).ok()?,
                content: content.cast_unsigned(),
            })
        });
        Ok(traces.collect())
    }
}

type TraceRow = (
    diesel::dsl::Eq<journal_traces::seq, i64>,
    diesel::dsl::Eq<journal_traces::client, i64>,
    diesel::dsl::Eq<journal_traces::packet_id, i32>,
    diesel::dsl::Eq<journal_traces::content, i64>,
);

fn trace_row(trace: &Trace) -> TraceRow {
    (
        journal_traces::seq.eq(signed(trace.seq)),
        journal_traces::client.eq(trace.client.cast_signed()),
        journal_traces::packet_id.eq(i32::from(trace.packet_id)),
        journal_traces::content.eq(trace.content.cast_signed()),
    )
}
