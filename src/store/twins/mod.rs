//! Twins: their rows, every change of them, and what is to be told of them.
//!
//! A change locks the device's row first, so that of two that come at once the second sees what the first has made. It counts up what is to
//! be told; whoever tells notes how far the broker has it, so that only the newest state is ever told.

mod change;
mod keep;
mod row;
mod tell;

pub use change::TwinDetail;
pub use keep::Kept;
pub(super) use keep::keep;
pub use tell::{Due, Message, Told};

use std::collections::{BTreeMap, HashMap};

use diesel::prelude::*;

use super::connections::Mode;
use super::error::{During, StoreError};
use super::limits;
use super::pool::{Conn, with_db};
use super::schema::{device_twin_messages, devices, tenants};
use crate::catalog::DEFAULT_TENANT;
use crate::time::UtcMicros;
use crate::twin::answer::{self, Note};
use crate::twin::state::{Changed, Twin};
use crate::twin::{MAX_NAMED, Reason, Refused};

pub(in crate::store) use tell::untell;

/// Answers and news that wait for the broker at most; what comes beyond is left out, counted.
const MAX_MESSAGES: usize = 10_000;

/// A device whose twins are asked for.
#[derive(Clone, Debug)]
struct Device {
    id: i32,
    tenant_id: i32,
    tenant: String,
    uid: String,
    retired: bool,
}

/// Devices by uid.
#[derive(Debug, Default)]
struct Devices(HashMap<String, Vec<Device>>);

impl Devices {
    fn load(conn: &mut Conn<'_>, uids: &[&str]) -> Result<Devices, StoreError> {
        let mut devices = Devices::default();
        for chunk in uids.chunks(conn.rows_per_statement(1)) {
            let rows: Vec<(i32, i32, String, String, String)> = with_db!(conn, |c| devices::table
                .inner_join(tenants::table)
                .filter(devices::uid.eq_any(chunk))
                .select((devices::id, devices::tenant_id, tenants::name, devices::uid, devices::mode))
                .load(c))
            .during("finding the devices of twins")?;
            for (id, tenant_id, tenant, uid, mode) in rows {
                let device = Device { id, tenant_id, tenant, uid, retired: mode == Mode::Retired.word() };
                devices.0.entry(device.uid.clone()).or_default().push(device);
            }
        }
        Ok(devices)
    }

    /// The one that is meant: of the tenant, or the default tenant's, or the only one.
    fn find(&self, tenant: Option<&str>, uid: &str) -> Result<&Device, Refused> {
        let named = self.0.get(uid).map(Vec::as_slice).unwrap_or_default();
        let of = |tenant: &str| named.iter().find(|device| device.tenant == tenant);
        let unknown = || {
            let uid = limits::clip(uid, limits::UID);
            Refused::new(Reason::UnknownDevice, format!("there is no device {uid:?}"))
        };
        match (tenant, named) {
            (Some(tenant), _) => of(tenant).ok_or_else(unknown),
            (None, []) => Err(unknown()),
            (None, [only]) => Ok(only),
            (None, several) => of(DEFAULT_TENANT).ok_or_else(|| {
                let detail = format!("{} tenants have a device {uid:?}; say which", several.len());
                Refused::new(Reason::Ambiguous, detail)
            }),
        }
    }
}

/// A twin in hand, with what its row says beside it.
#[derive(Clone, Debug, Default)]
struct Held {
    tenant_id: i32,
    twin: Twin,
    shadow: bool,
    instance: Option<String>,
    desired_tell: i64,
    delta_tell: i64,
    tell_at: Option<UtcMicros>,
    /// Whether the row differs from it.
    dirty: bool,
}

/// Twins in hand by device and name.
type Hand = BTreeMap<(i32, String), Held>;

/// The twin of this device and name, made where there is none yet.
fn of_device<'h>(hand: &'h mut Hand, device: &Device, name: &str) -> Result<&'h mut Held, Refused> {
    let key = (device.id, name.to_owned());
    if !name.is_empty() && !hand.contains_key(&key) {
        let named = hand.keys().filter(|(id, name)| *id == device.id && !name.is_empty()).count();
        if named >= MAX_NAMED {
            let detail = format!("the device has {named} twins beside its own, and {MAX_NAMED} are the most");
            return Err(Refused::new(Reason::TooMany, detail));
        }
    }
    Ok(hand.entry(key).or_insert_with(|| Held { tenant_id: device.tenant_id, ..Held::default() }))
}

impl Held {
    /// Notes what is to be told of a change. `by_update`: whether somebody asked for it, and not a reading; `answered`: whether whoever asked
    /// is told on the shadow's topics already.
    fn note(
        &mut self,
        (device, name): (&Device, &str),
        before: &Twin,
        changed: Changed,
        (by_update, answered): (bool, bool),
        at: UtcMicros,
    ) -> Vec<Note> {
        if !changed.any() {
            return Vec::new();
        }
        self.dirty = true;
        if name.is_empty() {
            self.tell(changed.desired, changed.delta, at);
        }
        if self.shadow && !answered && (by_update || changed.delta) {
            return answer::news(&device.uid, name, before, &self.twin, by_update, at);
        }
        Vec::new()
    }

    /// Has the retained messages published.
    fn tell(&mut self, desired: bool, delta: bool, at: UtcMicros) {
        self.desired_tell = self.desired_tell.saturating_add(i64::from(desired));
        self.delta_tell = self.delta_tell.saturating_add(i64::from(delta));
        self.tell_at = Some(at);
        self.dirty |= desired || delta;
    }
}

#[derive(Insertable)]
#[diesel(table_name = device_twin_messages, treat_none_as_default_value = false)]
struct NewMessage<'a> {
    instance: Option<&'a str>,
    topic: String,
    payload: String,
    retain: bool,
    correlation: Option<Vec<u8>>,
}

/// Puts messages up for the broker; returns how many there was no room for.
fn put_up(conn: &mut Conn<'_>, instance: Option<&str>, notes: Vec<Note>) -> Result<u64, StoreError> {
    if notes.is_empty() {
        return Ok(0);
    }
    let waiting: i64 = with_db!(conn, |c| device_twin_messages::table.count().get_result(c))
        .during("counting what is to be told of twins")?;
    let room = MAX_MESSAGES.saturating_sub(usize::try_from(waiting).unwrap_or(0));
    let all = notes.len();
    // On a topic as long as can be an answer's has no place.
    let fits = |note: &Note| note.topic.len() <= limits::TOPIC && !note.topic.contains('\0');
    let rows = notes.into_iter().filter(fits).take(room).map(|note| NewMessage {
        instance,
        topic: note.topic,
        payload: note.payload,
        retain: false,
        correlation: note.correlation.map(|data| data.to_vec()),
    });
    let rows: Vec<NewMessage<'_>> = rows.collect();
    for rows in rows.chunks(conn.rows_per_statement(5)) {
        with_db!(conn, |c| diesel::insert_into(device_twin_messages::table).values(rows).execute(c))
            .during("writing what is to be told of twins")?;
    }
    Ok(all.saturating_sub(rows.len()) as u64)
}
