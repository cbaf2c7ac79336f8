//! Twins as people and programs look at them and change them, there and then.

use std::collections::BTreeSet;

use diesel::prelude::*;
use serde_json::{Value, json};

use super::keep::wants_no_retired;
use super::row::{self, Row};
use super::{Devices, of_device, put_up};
use crate::clock;
use crate::store::Store;
use crate::store::error::{During, StoreError};
use crate::store::pool::{Conn, with_db};
use crate::store::schema::device_twins;
use crate::twin::state::{Twin, Update};
use crate::twin::{Limits, answer};

/// A device's twin.
#[derive(Clone, Debug, PartialEq)]
pub struct TwinDetail {
    pub tenant: String,
    pub device: String,
    /// Empty: the device's own.
    pub name: String,
    pub twin: Twin,
    /// Names of the twins that the device has beside its own.
    pub others: Vec<String>,
    /// Whether the broker has what is to be told of it.
    pub told: bool,
}

impl TwinDetail {
    /// As commands and the API have it.
    pub fn json(&self) -> Value {
        let mut whole = answer::whole(&self.tenant, &self.device, &self.name, &self.twin);
        if let Value::Object(members) = &mut whole {
            members.insert("published".to_owned(), self.told.into());
            members.insert("others".to_owned(), json!(self.others));
        }
        whole
    }
}

impl Store {
    /// The twin of this name, empty for its own, of a device; a device without one has an empty one of version 0.
    ///
    /// # Errors
    /// [`StoreError::Twin`] where no device is meant, or more than one.
    pub fn twin(&self, tenant: Option<&str>, uid: &str, name: &str) -> Result<TwinDetail, StoreError> {
        // That there is no such device is an answer, and no failure of a replica.
        let found = self.look(|conn| match look(conn, tenant, uid, name) {
            Err(StoreError::Twin(refused)) => Ok(Err(refused)),
            other => other.map(Ok),
        })?;
        Ok(found?)
    }

    /// Changes a twin; a running daemon tells of it within a second.
    ///
    /// # Errors
    /// [`StoreError::Twin`] with the reason where it is refused.
    pub fn change_twin(
        &self,
        (tenant, uid, name): (Option<&str>, &str, &str),
        update: &Update,
        limits: Limits,
    ) -> Result<TwinDetail, StoreError> {
        self.db.write(|conn| {
            let devices = Devices::load(conn, &possible(uid))?;
            let device = devices.find(tenant, uid)?;
            wants_no_retired(device, update)?;
            let mut hand = row::take(conn, &BTreeSet::from([device.id]))?;
            let held = of_device(&mut hand, device, name)?;
            let (before, at) = (held.twin.clone(), clock::now());
            let changed = held.twin.update(update, at, limits)?;
            let news = held.note((device, name), &before, changed, (true, false), at);
            let instance = held.instance.clone();
            row::put_back(conn, &hand)?;
            put_up(conn, instance.as_deref(), news)?;
            if changed.any()
                && let Conn::Postgres(c) = conn
            {
                diesel::sql_query("SELECT pg_notify('tidegate_twins', '')").execute(*c).during("telling of a twin")?;
            }
            look(conn, Some(&device.tenant), uid, name)
        })
    }
}

/// No device's uid has a NUL, and PostgreSQL would refuse the question.
fn possible(uid: &str) -> Vec<&str> {
    if uid.contains('\0') { Vec::new() } else { vec![uid] }
}

fn look(conn: &mut Conn<'_>, tenant: Option<&str>, uid: &str, name: &str) -> Result<TwinDetail, StoreError> {
    let devices = Devices::load(conn, &possible(uid))?;
    let device = devices.find(tenant, uid)?;
    let rows: Vec<(Row, i64, i64)> = with_db!(conn, |c| device_twins::table
        .filter(device_twins::device_id.eq(device.id))
        .order(device_twins::name)
        .select((Row::as_select(), device_twins::desired_told, device_twins::delta_told))
        .load(c))
    .during("reading a twin")?;
    let mut detail = TwinDetail {
        tenant: device.tenant.clone(),
        device: device.uid.clone(),
        name: name.to_owned(),
        twin: Twin::default(),
        others: Vec::new(),
        told: true,
    };
    for (row, desired_told, delta_told) in rows {
        let ((_, found), held) = row.held()?;
        if found == name {
            detail.told = desired_told >= held.desired_tell && delta_told >= held.delta_tell;
            detail.twin = held.twin;
        } else if !found.is_empty() {
            detail.others.push(found);
        }
    }
    Ok(detail)
}
