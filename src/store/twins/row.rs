//! The rows of twins: read under their devices' locks, written whole.

use std::collections::BTreeSet;
use std::time::Duration;

use diesel::prelude::*;
use diesel::upsert::excluded;
use serde_json::Value;

use super::{Hand, Held};
use crate::store::error::{During, StoreError};
use crate::store::pool::{Conn, with_db};
use crate::store::schema::{device_twins, devices};
use crate::time::UtcMicros;
use crate::twin::document::Document;
use crate::twin::state::{Part, Twin};

/// All but what whoever tells writes.
#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = device_twins, treat_none_as_default_value = false)]
pub(super) struct Row {
    device_id: i32,
    name: String,
    tenant_id: i32,
    version: i64,
    present: bool,
    desired: String,
    desired_stamps: String,
    desired_version: i64,
    desired_at: Option<UtcMicros>,
    reported: String,
    reported_stamps: String,
    reported_version: i64,
    reported_at: Option<UtcMicros>,
    delta: String,
    converged_at: Option<UtcMicros>,
    convergence_ms: Option<i64>,
    shadow: bool,
    instance: Option<String>,
    desired_tell: i64,
    delta_tell: i64,
    tell_at: Option<UtcMicros>,
}

/// Columns of a row.
const COUNT: usize = 21;

impl Row {
    fn of(device_id: i32, name: &str, held: &Held) -> Row {
        let twin = &held.twin;
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        Row {
            device_id,
            name: name.to_owned(),
            tenant_id: held.tenant_id,
            version: twin.version,
            present: twin.exists,
            desired: written(&twin.desired.state),
            desired_stamps: written(&twin.desired.stamps),
            desired_version: twin.desired.version,
            desired_at: twin.desired.at,
            reported: written(&twin.reported.state),
            reported_stamps: written(&twin.reported.stamps),
            reported_version: twin.reported.version,
            reported_at: twin.reported.at,
            delta: written(&twin.delta()),
            converged_at: twin.converged_at,
            convergence_ms: twin.convergence.map(millis),
            shadow: held.shadow,
            instance: held.instance.clone(),
            desired_tell: held.desired_tell,
            delta_tell: held.delta_tell,
            tell_at: held.tell_at,
        }
    }

    pub(super) fn held(self) -> Result<((i32, String), Held), StoreError> {
        let read = |text: &str, what: &str| match serde_json::from_str(text) {
            Ok(Value::Object(document)) => Ok(document),
            _ => {
                Err(StoreError::Unfit { detail: format!("the row of a twin has no JSON object in {what}: {text:.80}") })
            }
        };
        let part = |state: &str, stamps: &str, what: &str, version, at| -> Result<Part, StoreError> {
            Ok(Part { state: read(state, what)?, stamps: read(stamps, what)?, version, at })
        };
        let twin = Twin {
            version: self.version,
            exists: self.present,
            desired: part(&self.desired, &self.desired_stamps, "desired", self.desired_version, self.desired_at)?,
            reported: part(&self.reported, &self.reported_stamps, "reported", self.reported_version, self.reported_at)?,
            converged_at: self.converged_at,
            convergence: self.convergence_ms.and_then(|millis| u64::try_from(millis).ok()).map(Duration::from_millis),
        };
        let held = Held {
            tenant_id: self.tenant_id,
            twin,
            shadow: self.shadow,
            instance: self.instance,
            desired_tell: self.desired_tell,
            delta_tell: self.delta_tell,
            tell_at: self.tell_at,
            dirty: false,
        };
        Ok(((self.device_id, self.name), held))
    }
}

/// JSON writes a NUL as an escape, so that both databases take it.
fn written(document: &Document) -> String {
    serde_json::to_string(document).unwrap_or_else(|_| "{}".to_owned())
}

/// Takes all twins of these devices in hand; until the transaction's end nobody else does.
pub(super) fn take(conn: &mut Conn<'_>, ids: &BTreeSet<i32>) -> Result<Hand, StoreError> {
    let ids: Vec<i32> = ids.iter().copied().collect();
    let mut hand = Hand::new();
    for chunk in ids.chunks(conn.rows_per_statement(1)) {
        // On SQLite the transaction has the database's lock.
        if let Conn::Postgres(c) = conn {
            let _locked: Vec<i32> = devices::table
                .filter(devices::id.eq_any(chunk))
                .select(devices::id)
                .order(devices::id)
                .for_no_key_update()
                .load(*c)
                .during("locking the devices of twins")?;
        }
        let rows: Vec<Row> = with_db!(conn, |c| device_twins::table
            .filter(device_twins::device_id.eq_any(chunk))
            .select(Row::as_select())
            .load(c))
        .during("reading twins")?;
        for row in rows {
            let (key, held) = row.held()?;
            hand.insert(key, held);
        }
    }
    Ok(hand)
}

/// Writes those that have changed. A named one that was deleted leaves no row, so that names can't pile up.
pub(super) fn put_back(conn: &mut Conn<'_>, hand: &Hand) -> Result<(), StoreError> {
    let is_gone = |name: &str, held: &Held| !name.is_empty() && !held.twin.exists;
    for ((device, name), _) in hand.iter().filter(|((_, name), held)| held.dirty && is_gone(name, held)) {
        with_db!(conn, |c| diesel::delete(device_twins::table.find((device, name))).execute(c))
            .during("deleting a twin")?;
    }
    let kept = hand.iter().filter(|((_, name), held)| held.dirty && !is_gone(name, held));
    let rows: Vec<Row> = kept.map(|((device, name), held)| Row::of(*device, name, held)).collect();
    for rows in rows.chunks(conn.rows_per_statement(COUNT)) {
        with_db!(conn, |c| diesel::insert_into(device_twins::table)
            .values(rows)
            .on_conflict((device_twins::device_id, device_twins::name))
            .do_update()
            .set((
                device_twins::version.eq(excluded(device_twins::version)),
                device_twins::present.eq(excluded(device_twins::present)),
                device_twins::desired.eq(excluded(device_twins::desired)),
                device_twins::desired_stamps.eq(excluded(device_twins::desired_stamps)),
                device_twins::desired_version.eq(excluded(device_twins::desired_version)),
                device_twins::desired_at.eq(excluded(device_twins::desired_at)),
                device_twins::reported.eq(excluded(device_twins::reported)),
                device_twins::reported_stamps.eq(excluded(device_twins::reported_stamps)),
                device_twins::reported_version.eq(excluded(device_twins::reported_version)),
                device_twins::reported_at.eq(excluded(device_twins::reported_at)),
                device_twins::delta.eq(excluded(device_twins::delta)),
                device_twins::converged_at.eq(excluded(device_twins::converged_at)),
                device_twins::convergence_ms.eq(excluded(device_twins::convergence_ms)),
                device_twins::shadow.eq(excluded(device_twins::shadow)),
                device_twins::instance.eq(excluded(device_twins::instance)),
                device_twins::desired_tell.eq(excluded(device_twins::desired_tell)),
                device_twins::delta_tell.eq(excluded(device_twins::delta_tell)),
                device_twins::tell_at.eq(excluded(device_twins::tell_at)),
            ))
            .execute(c))
        .during("writing twins")?;
    }
    Ok(())
}
