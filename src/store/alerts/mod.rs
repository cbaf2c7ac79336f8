//! Alerts: rules, what they have decided, what people say of it, and what is still to be published.

mod actions;
mod digests;
mod group_states;
mod list;
mod maintenance;
mod notifications;
mod notify_memory;
mod outbox;
mod record;
mod rules;
mod states;
mod windows;

pub use actions::Waiting;
pub use list::{About, AlertDetail, AlertFilter, AlertRow, StepRow, Which};
pub use maintenance::MaintenanceRow;
pub(super) use maintenance::{load as load_maintenance, reconcile as reconcile_maintenance};
pub use notifications::{NotificationFilter, NotificationRow};
pub(super) use record::keep;
pub use rules::RuleRow;
pub(super) use rules::{check_lengths, load, reconcile};

use std::collections::{BTreeSet, HashMap};

use diesel::prelude::*;

use super::batch::Batch;
use super::error::{During, StoreError};
use super::introduce::DeviceId;
use super::pool::{Conn, with_db};
use super::schema::{devices, tenants};
use crate::alert::Holder;
use crate::config::fault::Faults;

/// The rows of devices, by uid and tenant. Read anew with each batch that has steps or states: a device that was deleted meanwhile
/// must not hold up the rest.
struct Owners(HashMap<String, Vec<(String, DeviceId)>>);

impl Owners {
    fn of(conn: &mut Conn<'_>, batch: &Batch) -> Result<Owners, StoreError> {
        let acting = batch.transitions.iter().map(|step| &*step.device);
        let uids: BTreeSet<&str> =
            acting.chain(batch.alert_states.iter().filter_map(|state| uid_of(&state.holder))).collect();
        let uids: Vec<&str> = uids.into_iter().collect();
        let mut owners: HashMap<String, Vec<(String, DeviceId)>> = HashMap::with_capacity(uids.len());
        for chunk in uids.chunks(conn.rows_per_statement(1)) {
            let rows: Vec<(String, String, i32, i32)> = with_db!(conn, |c| devices::table
                .inner_join(tenants::table)
                .filter(devices::uid.eq_any(chunk))
                .select((devices::uid, tenants::name, devices::id, devices::tenant_id))
                .load(c))
            .during("finding the devices of alerts")?;
            for (uid, tenant, id, tenant_id) in rows {
                owners.entry(uid).or_default().push((tenant, DeviceId { id, tenant_id }));
            }
        }
        Ok(Owners(owners))
    }

    fn device(&self, tenant: &str, uid: &str) -> Option<DeviceId> {
        self.0.get(uid)?.iter().find(|(name, _)| name == tenant).map(|(_, device)| *device)
    }
}

/// What a row's definition says, or what is wrong with it, on one line; `row`: how people find it, such as `alert_rules too-hot`.
fn defined<T>(
    definition: &str,
    row: &str,
    read: impl FnOnce(&serde_json::Value, &str) -> Result<T, Faults>,
) -> Result<T, String> {
    let json = serde_json::from_str(definition).map_err(|error| format!("its definition is no JSON: {error}"))?;
    read(&json, row).map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

fn uid_of(holder: &Holder) -> Option<&str> {
    match holder {
        Holder::Device(uid) => Some(uid),
        Holder::Group(_) => None,
    }
}

fn unfit(detail: String) -> StoreError {
    StoreError::Unfit { detail }
}
