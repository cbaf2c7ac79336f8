//! What was learned of devices, into their rows.

use std::collections::{BTreeMap, HashMap};

use diesel::prelude::*;

use super::batch::{Batch, Change, DeviceChange, DeviceIntro};
use super::error::{During, StoreError};
use super::introduce::Ids;
use super::pool::{Conn, with_db};
use super::schema::devices;
use super::templates::Stored;
use super::{limits, series, templates};
use crate::catalog::matching::GivenBy;
use crate::decode::Told;

/// What a batch may teach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Learning {
    /// It is new.
    All,
    /// It is of messages from before, after which devices may have told something newer.
    Templates,
    /// It is of rows from before, which may belong to series that have been set aside since.
    Rows,
    /// It was committed already, and only its rows are looked for.
    Recall,
}

/// Longest word for a protocol or a transport.
const WORD: usize = 128;

/// What a device's row says of who it is; what is none stays as it is.
#[derive(Debug, Default, PartialEq, Insertable, AsChangeset)]
#[diesel(table_name = devices, treat_none_as_default_value = false)]
pub(super) struct Columns {
    name: Option<String>,
    manufacturer: Option<String>,
    model: Option<String>,
    firmware: Option<String>,
    connectivity: Option<String>,
    protocol: Option<String>,
    protocol_why: Option<String>,
}

impl Columns {
    /// Of a new device.
    pub(super) fn of(intro: &DeviceIntro) -> Columns {
        let mut columns = Columns::default();
        intro.told.iter().for_each(|(fact, text)| columns.tell(*fact, text));
        columns.protocol = intro.protocol.as_ref().map(|word| limits::clip(word, WORD));
        columns.protocol_why = intro.protocol_why.as_ref().map(|why| limits::clip(why, limits::DETAIL));
        columns
    }

    fn tell(&mut self, fact: Told, text: &str) {
        let column = match fact {
            Told::Manufacturer => &mut self.manufacturer,
            Told::Model => &mut self.model,
            Told::Firmware => &mut self.firmware,
            Told::Name => &mut self.name,
            Told::Connectivity => &mut self.connectivity,
        };
        *column = Some(limits::clip(text, limits::UID));
    }
}

/// Gives a device the template that something stronger than before matched, and settles its sensors' series. `templates`: what
/// was read of them, if they were needed before.
pub(super) fn give(
    conn: &mut Conn<'_>,
    given: &DeviceChange,
    ids: &Ids<'_>,
    templates: &mut Option<HashMap<String, Stored>>,
) -> Result<(), StoreError> {
    let (Change::Template { slug, by }, Some(device)) = (&given.change, ids.device(given.device)) else {
        return Ok(());
    };
    let known = match templates {
        Some(known) => known,
        None => templates.insert(templates::load(conn)?),
    };
    let Some(template) = known.get(&**slug).map(|stored| stored.id) else { return Ok(()) };
    let weaker: Vec<&str> =
        GivenBy::ALL.into_iter().filter(|before| by.is_stronger_than(Some(*before))).map(GivenBy::word).collect();
    let changed = with_db!(conn, |c| diesel::update(
        devices::table.find(device.id).filter(devices::template_by.is_null().or(devices::template_by.eq_any(weaker)))
    )
    .set((devices::template_id.eq(template), devices::template_by.eq(by.word())))
    .execute(c))
    .during("giving a template")?;
    if changed > 0 {
        series::follow(conn, &[device.id], known)?;
    }
    Ok(())
}

/// Keeps what devices told and what they are behind, one row after the other in the order of their ids. How many gateways were
/// refused.
pub(super) fn learn(conn: &mut Conn<'_>, batch: &Batch, ids: &Ids<'_>) -> Result<u64, StoreError> {
    let (mut facts, mut parents) = (BTreeMap::<i32, Columns>::new(), BTreeMap::<i32, i32>::new());
    for learned in &batch.changes {
        let Some(device) = ids.device(learned.device) else { continue };
        match &learned.change {
            Change::Template { .. } => {}
            Change::Told(told) => {
                let columns = facts.entry(device.id).or_default();
                told.iter().for_each(|(fact, text)| columns.tell(*fact, text));
            }
            Change::Protocol { decoder, why } => {
                let columns = facts.entry(device.id).or_default();
                columns.protocol = Some(limits::clip(decoder, WORD));
                columns.protocol_why = why.as_ref().map(|why| limits::clip(why, limits::DETAIL));
            }
            Change::Parent(above) => {
                if let Some(above) = ids.device(*above).filter(|above| above.tenant_id == device.tenant_id) {
                    parents.insert(device.id, above.id);
                }
            }
        }
    }
    for (device, mut columns) in facts {
        // A file that declares a device names it, or leaves it without a name.
        if let Some(name) = columns.name.take() {
            with_db!(conn, |c| diesel::update(devices::table.find(device).filter(devices::declared.eq(false)))
                .set(devices::name.eq(name))
                .execute(c))
            .during("keeping a device's name")?;
        }
        if columns != Columns::default() {
            with_db!(conn, |c| diesel::update(devices::table.find(device)).set(columns).execute(c))
                .during("keeping what a device told")?;
        }
    }
    let mut refused = 0_u64;
    for (device, above) in parents {
        refused = refused.saturating_add(u64::from(!put_behind(conn, device, above)?));
    }
    Ok(refused)
}

/// False: the database refused it.
fn put_behind(conn: &mut Conn<'_>, device: i32, above: i32) -> Result<bool, StoreError> {
    let outcome = conn.savepoint(|conn| {
        with_db!(conn, |c| diesel::update(
            devices::table
                .find(device)
                .filter(devices::parent_declared.eq(false))
                .filter(devices::parent_id.is_null().or(devices::parent_id.ne(above)))
        )
        .set(devices::parent_id.eq(above))
        .execute(c))
        .during("keeping what a device is behind")
    });
    match outcome {
        Ok(_) => Ok(true),
        Err(StoreError::Query { source: diesel::result::Error::DatabaseError(_, words), .. })
            if words.message().contains("would be behind") =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
