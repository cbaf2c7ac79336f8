//! What a template's version says about its content: a change raises it.

use std::collections::HashMap;

use diesel::prelude::*;

use super::error::{During, StoreError};
use super::pool::{Conn, with_db};
use super::position::default_tenant;
use super::schema::events;
use super::templates::Stored;
use crate::catalog::{Declared, Template};
use crate::clock;

/// Versions of the templates as the database has them.
pub(super) struct Versions<'d> {
    stored: HashMap<String, u32>,
    declared: HashMap<&'d str, &'d Template>,
}

/// What is amiss with a template that differs from the database's.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Amiss {
    /// Another content under the same version.
    SameVersion,
    /// The database's version.
    Lowered(u32),
}

impl<'d> Versions<'d> {
    pub(super) fn new(stored: &HashMap<String, Stored>, declared: &'d Declared) -> Versions<'d> {
        let versions = stored.iter().map(|(slug, stored)| (slug.clone(), stored.template.version));
        let declared = declared.templates.iter().map(|one| (one.template.slug.as_str(), &one.template));
        Versions { stored: versions.collect(), declared: declared.collect() }
    }

    /// What is amiss with a template whose content has changed. One that changes because a template that it extends has a new
    /// version needs none of its own.
    pub(super) fn amiss(&self, new: &Template) -> Option<Amiss> {
        let before = *self.stored.get(&new.slug)?;
        match new.version.cmp(&before) {
            std::cmp::Ordering::Greater => None,
            std::cmp::Ordering::Less => Some(Amiss::Lowered(before)),
            std::cmp::Ordering::Equal if self.parent_has_risen(new) => None,
            std::cmp::Ordering::Equal => Some(Amiss::SameVersion),
        }
    }

    fn parent_has_risen(&self, new: &Template) -> bool {
        let mut at = new.extends.as_deref();
        // The files' chains end: `extends` has been checked.
        while let Some(parent) = at.and_then(|slug| self.declared.get(slug)) {
            if self.stored.get(&parent.slug).is_none_or(|before| parent.version > *before) {
                return true;
            }
            at = parent.extends.as_deref();
        }
        false
    }
}

impl Amiss {
    /// In words, for the operator.
    pub(super) fn told(&self, template: &Template) -> String {
        let Template { slug, version, .. } = template;
        match self {
            Amiss::SameVersion => {
                format!(
                    "template {slug}: its content has changed under the same version {version}; raise it with each change"
                )
            }
            Amiss::Lowered(before) => {
                format!("template {slug}: version {version} takes the place of version {before}, which is higher")
            }
        }
    }
}

/// Records in `events` that a template went back to a lower version.
pub(super) fn record_lowered(conn: &mut Conn<'_>, detail: &str) -> Result<(), StoreError> {
    let tenant = default_tenant(conn)?;
    with_db!(conn, |c| diesel::insert_into(events::table)
        .values((
            events::tenant_id.eq(tenant),
            events::at.eq(clock::now()),
            events::kind.eq("template_lowered"),
            events::detail.eq(detail),
        ))
        .execute(c))
    .during("recording a template's lower version")?;
    Ok(())
}
