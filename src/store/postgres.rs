//! What only PostgreSQL does: whole columns as arrays, three binds for any number of rows.

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::serialize::ToSql;
use diesel::sql_types::{Array, HasSqlType, Integer};

use super::schema::Instant;
use crate::time::UtcMicros;

/// What stands before, between and after the arrays.
#[derive(Clone, Copy)]
pub(super) struct Text {
    head: &'static str,
    between: &'static str,
    tail: &'static str,
}

/// A statement around `unnest` of a sensor's or device's ids, times and perhaps values.
pub(super) struct Unnest<'a, V, ST> {
    text: Text,
    ids: &'a [i32],
    times: &'a [UtcMicros],
    values: Option<&'a [V]>,
    value_type: std::marker::PhantomData<ST>,
}

impl<'a, V, ST> Unnest<'a, V, ST> {
    pub(super) fn new(text: Text, ids: &'a [i32], times: &'a [UtcMicros], values: Option<&'a [V]>) -> Self {
        Unnest { text, ids, times, values, value_type: std::marker::PhantomData }
    }
}

impl<V, ST> QueryFragment<Pg> for Unnest<'_, V, ST>
where
    Pg: HasSqlType<ST>,
    [V]: ToSql<Array<ST>, Pg>,
    ST: 'static,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(self.text.head);
        out.push_bind_param::<Array<Integer>, [i32]>(self.ids)?;
        out.push_sql(self.text.between);
        out.push_bind_param::<Array<Instant>, [UtcMicros]>(self.times)?;
        if let Some(values) = self.values {
            out.push_sql(self.text.between);
            out.push_bind_param::<Array<ST>, [V]>(values)?;
        }
        out.push_sql(self.text.tail);
        Ok(())
    }
}

/// No static id: the statement is cached by its text.
impl<V, ST> QueryId for Unnest<'_, V, ST> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<V, ST> RunQueryDsl<PgConnection> for Unnest<'_, V, ST> {}

pub(super) const INSERT_NUMBERS: Text = Text {
    head: "INSERT INTO telemetry (sensor_id, time, value) SELECT * FROM unnest(",
    between: ", ",
    tail: ") ON CONFLICT DO NOTHING",
};
pub(super) const INSERT_TEXTS: Text = Text {
    head: "INSERT INTO telemetry_text (sensor_id, time, value) SELECT * FROM unnest(",
    between: ", ",
    tail: ") ON CONFLICT DO NOTHING",
};

// In the updates each array is the result of a sub-select: a planner that sees thousands of elements would rather read the
// whole table than look the rows up, which is several times slower where sensors are many.
pub(super) const LAST_NUMBERS: Text = Text {
    head: "UPDATE device_sensors AS s SET last_time = b.time, last_value = b.value FROM unnest((SELECT ",
    between: "), (SELECT ",
    tail: ")) AS b (id, time, value) WHERE s.id = b.id AND (s.last_time IS NULL OR s.last_time < b.time)",
};
pub(super) const LAST_TEXTS: Text = Text {
    head: "UPDATE device_sensors AS s SET last_text_time = b.time, last_text = b.value FROM unnest((SELECT ",
    between: "), (SELECT ",
    tail: ")) AS b (id, time, value) WHERE s.id = b.id AND (s.last_text_time IS NULL OR s.last_text_time < b.time)",
};
pub(super) const LAST_SEEN: Text = Text {
    head: "UPDATE devices AS d SET last_seen = b.time FROM unnest((SELECT ",
    between: "), (SELECT ",
    tail: ")) AS b (id, time) WHERE d.id = b.id AND (d.last_seen IS NULL OR d.last_seen < b.time)",
};
