//! The devices that commands are for, with what their templates say of commands.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use diesel::prelude::*;

use super::super::templates::commands_of;
use crate::command::admission::{Model, Target};
use crate::command::dialect::Wire;
use crate::decode::sparkplug::command::{self, Known};
use crate::presence::Status;
use crate::store::error::{During, StoreError};
use crate::store::pool::{Conn, with_db};
use crate::store::schema::{decoder_memory, devices, tenants};
use crate::time::UtcMicros;

/// By tenant and uid.
pub(in crate::store) type Targets = HashMap<(String, String), Target>;

#[derive(Queryable)]
struct Row {
    tenant: String,
    uid: String,
    template_id: Option<i32>,
    parent_id: Option<i32>,
    tags: String,
    last_seen: Option<UtcMicros>,
    connection: String,
}

/// The devices of these tenants and uids, as far as there are any.
pub(in crate::store) fn load<'a>(
    conn: &mut Conn<'_>,
    wanted: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<Targets, StoreError> {
    let wanted: BTreeSet<(&str, &str)> = wanted.collect();
    let uids: BTreeSet<&str> = wanted.iter().map(|(_, uid)| *uid).collect();
    let uids: Vec<&str> = uids.into_iter().collect();
    let mut rows: Vec<Row> = Vec::with_capacity(uids.len());
    for chunk in uids.chunks(conn.rows_per_statement(1)) {
        let found: Vec<Row> = with_db!(conn, |c| devices::table
            .inner_join(tenants::table)
            .filter(devices::uid.eq_any(chunk))
            .select((
                tenants::name,
                devices::uid,
                devices::template_id,
                devices::parent_id,
                devices::tags,
                devices::last_seen,
                devices::connection,
            ))
            .load(c))
        .during("finding the devices of commands")?;
        rows.extend(found.into_iter().filter(|row| wanted.contains(&(row.tenant.as_str(), row.uid.as_str()))));
    }
    let gateways = gateways(conn, &rows)?;
    let mut models: HashMap<i32, Arc<Model>> = HashMap::new();
    let templates: BTreeSet<i32> = rows.iter().filter_map(|row| row.template_id).collect();
    for id in templates {
        if let Some((slug, dialect, commands)) = commands_of(conn, id)? {
            models.insert(id, Arc::new(Model { slug, dialect, commands }));
        }
    }
    let target = |row: Row| {
        let target = Target {
            model: row.template_id.and_then(|id| models.get(&id).cloned()),
            gateway: row.parent_id.and_then(|id| gateways.get(&id).cloned()),
            // Written by tidegate; a person's nonsense is no tag.
            tags: serde_json::from_str::<BTreeMap<String, String>>(&row.tags).unwrap_or_default(),
            last_seen: row.last_seen,
            is_away: [Status::Offline, Status::Unreachable].iter().any(|away| away.word() == row.connection),
            born: None,
        };
        ((row.tenant, row.uid), target)
    };
    Ok(rows.into_iter().map(target).collect())
}

/// Looks up the births of devices whose dialect goes by them.
pub(super) fn look_for_births(conn: &mut Conn<'_>, instance: &str, targets: &mut Targets) -> Result<(), StoreError> {
    let by_births = |target: &Target| target.model.as_ref().is_some_and(|model| model.dialect.wire == Wire::Sparkplug);
    let wanted: HashMap<String, (String, String)> = targets
        .iter()
        .filter(|(_, target)| by_births(target))
        .flat_map(|(who, _)| command::keys_of(&who.0, &who.1).map(|key| (key, who.clone())))
        .collect();
    let places = remembered(conn, instance, wanted.keys().map(String::as_str))?;
    let mut births: HashMap<(String, String), (String, String)> = HashMap::new();
    for (source, found_at, place) in places {
        let Some(who) = wanted.get(&found_at) else { continue };
        if let Some(key) = command::births_key(&found_at, &place) {
            births.insert((source, key), who.clone());
        }
    }
    let keys: BTreeSet<&str> = births.keys().map(|(_, key)| key.as_str()).collect();
    for (source, key, value) in remembered(conn, instance, keys.into_iter())? {
        let Some(known) = Known::of(&key, value) else { continue };
        let Some(target) = births.get(&(source, key)).and_then(|who| targets.get_mut(who)) else { continue };
        // Of two sources that hear it the later birth counts.
        if target.born.as_ref().is_none_or(|other| other.told_at() < known.told_at()) {
            target.born = Some(known);
        }
    }
    Ok(())
}

/// What decoders remember under these keys: source, key and value.
fn remembered<'k>(
    conn: &mut Conn<'_>,
    instance: &str,
    keys: impl Iterator<Item = &'k str>,
) -> Result<Vec<(String, String, Vec<u8>)>, StoreError> {
    let keys: Vec<&str> = keys.collect();
    let mut all = Vec::with_capacity(keys.len());
    for chunk in keys.chunks(super::AT_ONCE) {
        let found: Vec<(String, String, Vec<u8>)> = with_db!(conn, |c| decoder_memory::table
            .filter(decoder_memory::instance.eq(instance))
            .filter(decoder_memory::key.eq_any(chunk))
            .select((decoder_memory::source, decoder_memory::key, decoder_memory::value))
            .load(c))
        .during("reading the births of devices")?;
        all.extend(found);
    }
    Ok(all)
}

/// Uids of the devices that others are behind, by row.
fn gateways(conn: &mut Conn<'_>, rows: &[Row]) -> Result<HashMap<i32, String>, StoreError> {
    let ids: BTreeSet<i32> = rows.iter().filter_map(|row| row.parent_id).collect();
    let ids: Vec<i32> = ids.into_iter().collect();
    let mut gateways = HashMap::with_capacity(ids.len());
    for chunk in ids.chunks(conn.rows_per_statement(1)) {
        let found: Vec<(i32, String)> = with_db!(conn, |c| devices::table
            .filter(devices::id.eq_any(chunk))
            .select((devices::id, devices::uid))
            .load(c))
        .during("finding the gateways of devices")?;
        gateways.extend(found);
    }
    Ok(gateways)
}
