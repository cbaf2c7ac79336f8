//! A device's template given by hand.

use diesel::prelude::*;

use super::error::{During, StoreError};
use super::pool::{Conn, with_db};
use super::reconcile::raise_version;
use super::schema::{devices, tenants};
use super::{Store, series, templates};
use crate::catalog::matching::GivenBy;

/// What a device is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assignment<'a> {
    /// The template with this slug.
    Template(&'a str),
    /// None, whatever matches.
    Nothing,
    /// What matches, from its next message on; until then none.
    Matching,
}

/// What an assignment has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assigned {
    pub tenant: String,
    /// Slug that it had.
    pub before: Option<String>,
    /// New names of the series that could not go on.
    pub set_aside: Vec<String>,
}

type Row = (i32, String, Option<i32>, Option<String>, bool);

impl Store {
    /// Gives a device its template by hand, in one transaction; series that can't go on are set aside. Every daemon on the database
    /// takes it up within a second, and what it has under way goes to the old series.
    ///
    /// # Errors
    /// [`StoreError::Unfit`] where there is no such device or template, more than one tenant has the device, the template is retired
    /// and not the device's already, it is another tenant's own, or a file declares the device's.
    pub fn assign(&self, tenant: Option<&str>, uid: &str, to: Assignment<'_>) -> Result<Assigned, StoreError> {
        self.db.write(|conn| {
            raise_version(conn)?;
            let (device, tenant, had, by, declared) = the_device(conn, tenant, uid)?;
            if declared && by.as_deref() == Some(GivenBy::Declared.word()) {
                return Err(unfit(format!(
                    "the template of {uid} is declared in a file of the catalog, which would give it back; change it there"
                )));
            }
            let known = templates::load(conn)?;
            let (template, by) = match to {
                Assignment::Template(slug) => {
                    let Some(stored) = known.get(slug) else {
                        return Err(unfit(format!("there is no template {slug}")));
                    };
                    if stored.retired && had != Some(stored.id) {
                        return Err(unfit(format!(
                            "{slug} is retired: no file of the catalog has it any more, so the devices that have it keep it and no other gets it; bring its file back, or choose another (`tidegate templates list`)"
                        )));
                    }
                    if let Some(owner) = stored.template.tenant.as_ref().filter(|owner| **owner != tenant) {
                        return Err(unfit(format!(
                            "{slug} is a template of the tenant {owner} alone, and {uid} is a device of the tenant {tenant}"
                        )));
                    }
                    (Some(stored.id), Some(GivenBy::Assigned.word()))
                }
                Assignment::Nothing => (None, Some(GivenBy::Assigned.word())),
                Assignment::Matching => (None, None),
            };
            with_db!(conn, |c| diesel::update(devices::table.find(device))
                .set((devices::template_id.eq(template), devices::template_by.eq(by)))
                .execute(c))
            .during("assigning a template")?;
            let before = had.and_then(|id| known.values().find(|stored| stored.id == id));
            let before = before.map(|stored| stored.template.slug.clone());
            let set_aside = series::follow(conn, &[device], &known)?;
            Ok(Assigned { tenant, before, set_aside })
        })
    }
}

fn the_device(conn: &mut Conn<'_>, tenant: Option<&str>, uid: &str) -> Result<Row, StoreError> {
    let rows: Vec<Row> = with_db!(conn, |c| devices::table
        .inner_join(tenants::table)
        .filter(devices::uid.eq(uid))
        .select((devices::id, tenants::name, devices::template_id, devices::template_by, devices::declared))
        .order(tenants::name)
        .load(c))
    .during("finding the device")?;
    let mut rows: Vec<Row> = rows.into_iter().filter(|row| tenant.is_none_or(|tenant| row.1 == tenant)).collect();
    match (rows.pop(), rows.is_empty()) {
        (Some(row), true) => Ok(row),
        (Some(_), false) => Err(unfit(format!("more than one tenant has a device {uid}; say which with --tenant"))),
        (None, _) => {
            let place = tenant.map(|tenant| format!(" in the tenant {tenant}")).unwrap_or_default();
            Err(unfit(format!("there is no device {uid}{place}; `tidegate devices list` shows those there are")))
        }
    }
}

fn unfit(detail: String) -> StoreError {
    StoreError::Unfit { detail }
}
