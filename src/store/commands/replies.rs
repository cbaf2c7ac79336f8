//! What is told on the response topics of those who asked by MQTT.

use bytes::Bytes;
use diesel::prelude::*;
use serde_json::{Value, json};

use super::limits;
use crate::command::State;
use crate::store::Store;
use crate::store::error::{During, StoreError};
use crate::store::pool::with_db;
use crate::store::schema::{device_command_steps, device_commands};
use crate::time::UtcMicros;

/// A step of a command, for whoever asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    pub id: String,
    pub step: i32,
    pub topic: String,
    pub correlation: Option<Bytes>,
    /// `{"id", "device", "name", "state", "at", "reason", "result", "error"}`.
    pub payload: String,
}

#[derive(Queryable)]
struct Row {
    id: String,
    step: i32,
    at: UtcMicros,
    state: String,
    cause: String,
    tenant: String,
    device: String,
    name: String,
    topic: Option<String>,
    correlation: Option<Vec<u8>>,
    result: Option<String>,
    error: Option<String>,
    repeated: bool,
}

impl Store {
    /// The first `limit` steps that whoever asked has not been told, in their order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn untold_steps(&self, instance: &str, limit: usize) -> Result<Vec<Notice>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows: Vec<Row> = self.db.with(|conn| {
            with_db!(conn, |c| device_command_steps::table
                .inner_join(device_commands::table)
                .filter(device_command_steps::told.eq(false))
                // A command that was rejected may be nobody's.
                .filter(device_commands::instance.is_null().or(device_commands::instance.eq(instance)))
                .select((
                    device_command_steps::command_id,
                    device_command_steps::step,
                    device_command_steps::at,
                    device_command_steps::state,
                    device_command_steps::cause,
                    device_commands::tenant,
                    device_commands::device,
                    device_commands::name,
                    device_commands::reply_topic,
                    device_commands::correlation,
                    device_commands::result,
                    device_commands::error,
                    device_commands::repeated,
                ))
                .order((device_command_steps::at, device_command_steps::command_id, device_command_steps::step))
                .limit(limit)
                .load(c))
            .during("looking for what is to be told of commands")
        })?;
        Ok(rows.into_iter().map(notice).collect())
    }

    /// Whoever asked has been told these steps, or can't be.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn steps_told(&self, steps: &[(String, i32)]) -> Result<(), StoreError> {
        self.db.write(|conn| {
            for (id, step) in steps {
                with_db!(conn, |c| diesel::update(device_command_steps::table.find((id, step)))
                    .set(device_command_steps::told.eq(true))
                    .execute(c))
                .during("noting what was told of a command")?;
            }
            Ok(())
        })
    }
}

fn notice(row: Row) -> Notice {
    let is_end = State::of(&row.state).is_some_and(State::is_end);
    let mut payload = json!({
        "id": row.id, "tenant": row.tenant, "device": row.device, "name": row.name, "state": row.state,
        "at": row.at.to_string(), "reason": limits::clip(&row.cause, limits::MESSAGE),
    });
    if let Value::Object(members) = &mut payload
        && is_end
    {
        let result = row.result.map(|result| serde_json::from_str(&result).unwrap_or(Value::String(result)));
        members.insert("result".to_owned(), result.unwrap_or(Value::Null));
        members.insert("error".to_owned(), row.error.map_or(Value::Null, Value::String));
        members.insert("repeated".to_owned(), row.repeated.into());
    }
    Notice {
        id: row.id,
        step: row.step,
        topic: row.topic.unwrap_or_default(),
        correlation: row.correlation.map(Bytes::from),
        payload: payload.to_string(),
    }
}
