//! What is still to be told of twins, and that the broker has it.

use bytes::Bytes;
use diesel::prelude::*;

use super::row::Row;
use crate::catalog::DEFAULT_TENANT;
use crate::clock;
use crate::store::Store;
use crate::store::connections::Mode;
use crate::store::error::{During, StoreError};
use crate::store::pool::{Conn, with_db};
use crate::store::schema::{device_twin_messages, device_twins, devices, tenants};
use crate::twin::state::Twin;

/// A twin whose retained messages are to be published.
#[derive(Clone, Debug, PartialEq)]
pub struct Due {
    pub device_id: i32,
    pub device: String,
    pub twin: Twin,
    /// The device is out of use: what is there is cleared.
    pub retired: bool,
    /// Another tenant's device goes by the name on these topics.
    pub hidden: bool,
    /// How much of it the broker has once this is published.
    pub desired: i64,
    pub delta: i64,
    /// Which of the two it lacks.
    pub lacks_desired: bool,
    pub lacks_delta: bool,
}

/// That the broker has so much of a twin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    pub device_id: i32,
    pub desired: i64,
    pub delta: i64,
}

/// An answer, or news.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub id: i64,
    pub topic: String,
    pub payload: String,
    pub retain: bool,
    pub correlation: Option<Bytes>,
}

type MessageRow = (i64, String, String, bool, Option<Vec<u8>>);

impl Store {
    /// The first `limit` twins of which the broker lacks something, those that have waited longest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn untold_twins(&self, of: &str, limit: usize) -> Result<Vec<Due>, StoreError> {
        use device_twins::{
            delta_tell, delta_told, desired_tell, desired_told, device_id, instance, name, table, tell_at,
        };
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.db.with(|conn| {
            type Found = (Row, i64, i64, i64, i64, String, String, String);
            let rows: Vec<Found> = with_db!(conn, |c| table
                .inner_join(devices::table.inner_join(tenants::table))
                .filter(desired_told.lt(desired_tell).or(delta_told.lt(delta_tell)))
                .filter(name.eq(""))
                .filter(instance.is_null().or(instance.eq(of)))
                .order((tell_at, device_id))
                .limit(limit)
                .select((
                    Row::as_select(),
                    desired_tell,
                    desired_told,
                    delta_tell,
                    delta_told,
                    devices::uid,
                    devices::mode,
                    tenants::name,
                ))
                .load(c))
            .during("looking for twins to tell of")?;
            let mut due = Vec::with_capacity(rows.len());
            for (row, desired, desired_has, delta, delta_has, device, mode, tenant) in rows {
                let ((id, _), held) = row.held()?;
                due.push(Due {
                    device_id: id,
                    hidden: tenant != DEFAULT_TENANT && has_namesakes(conn, &device)?,
                    device,
                    twin: held.twin,
                    retired: mode == Mode::Retired.word(),
                    desired,
                    delta,
                    lacks_desired: desired_has < desired,
                    lacks_delta: delta_has < delta,
                });
            }
            Ok(due)
        })
    }

    /// Notes what the broker has.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn twins_told(&self, told: &[Told]) -> Result<(), StoreError> {
        use device_twins::{delta_told, desired_told};
        self.db.write(|conn| {
            for Told { device_id, desired, delta } in told {
                with_db!(conn, |c| diesel::update(device_twins::table.find((device_id, "")))
                    .set((desired_told.eq(desired), delta_told.eq(delta)))
                    .execute(c))
                .during("noting what was told of a twin")?;
            }
            Ok(())
        })
    }

    /// The first `limit` answers and news, in order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn twin_messages(&self, of: &str, limit: usize) -> Result<Vec<Message>, StoreError> {
        use device_twin_messages as m;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows: Vec<MessageRow> = self.db.with(|conn| {
            with_db!(conn, |c| m::table
                .filter(m::instance.is_null().or(m::instance.eq(of)))
                .order(m::id)
                .limit(limit)
                .select((m::id, m::topic, m::payload, m::retain, m::correlation))
                .load(c))
            .during("looking for what is to be told of twins")
        })?;
        let message = |(id, topic, payload, retain, correlation): MessageRow| Message {
            id,
            topic,
            payload,
            retain,
            correlation: correlation.map(Bytes::from),
        };
        Ok(rows.into_iter().map(message).collect())
    }

    /// The broker has these, or never will.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn twin_messages_told(&self, ids: &[i64]) -> Result<(), StoreError> {
        self.db.write(|conn| {
            for ids in ids.chunks(conn.rows_per_statement(1)) {
                with_db!(conn, |c| diesel::delete(
                    device_twin_messages::table.filter(device_twin_messages::id.eq_any(ids))
                )
                .execute(c))
                .during("noting what was told of twins")?;
            }
            Ok(())
        })
    }

    /// Has everything published again that was once, for a broker that keeps nothing over a restart. Returns of how many twins.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn tell_twins_again(&self, of: &str) -> Result<usize, StoreError> {
        use device_twins::{delta_told, desired_told, instance, name, table};
        self.db.write(|conn| {
            with_db!(conn, |c| diesel::update(
                table
                    .filter(name.eq(""))
                    .filter(instance.is_null().or(instance.eq(of)))
                    .filter(desired_told.gt(0_i64).or(delta_told.gt(0_i64)))
            )
            .set((desired_told.eq(0_i64), delta_told.eq(0_i64)))
            .execute(c))
            .during("having twins told again")
        })
    }
}

/// Whether another tenant has a device of this uid.
fn has_namesakes(conn: &mut Conn<'_>, uid: &str) -> Result<bool, StoreError> {
    let count: i64 = with_db!(conn, |c| devices::table.filter(devices::uid.eq(uid)).count().get_result(c))
        .during("looking for devices of one name")?;
    Ok(count > 1)
}

/// Has what is told of a device's twin looked at anew: whether it is in use has changed.
pub(in crate::store) fn untell(conn: &mut Conn<'_>, device: i32) -> Result<(), StoreError> {
    use device_twins::{delta_tell, delta_told, desired_tell, desired_told, tell_at};
    with_db!(conn, |c| diesel::update(device_twins::table.find((device, "")))
        .filter(desired_told.gt(0_i64).or(delta_told.gt(0_i64)))
        .set((desired_tell.eq(desired_tell + 1_i64), delta_tell.eq(delta_tell + 1_i64), tell_at.eq(clock::now()),))
        .execute(c))
    .during("having a twin told anew")?;
    Ok(())
}
