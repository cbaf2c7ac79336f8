//! Maintenance: while somebody works at devices, no alert of theirs begins.

use jiff::tz::TimeZone;

use super::rule::Scope;
use super::times::Times;
use crate::time::UtcMicros;

/// Work at some devices, once or again and again.
#[derive(Clone, Debug, PartialEq)]
pub struct Maintenance {
    /// Unique over the installation.
    pub name: String,
    /// The tenant whose devices it concerns; none: every tenant's.
    pub tenant: Option<String>,
    pub scope: Scope,
    pub times: Times,
    /// Whose local times they are; none: that of each device's site, or else UTC.
    pub zone: Option<TimeZone>,
    /// For people: what is done, and by whom.
    pub note: Option<String>,
    /// From then on there is none, whatever the times say: somebody has ended it.
    pub ended_at: Option<UtcMicros>,
}

/// Maintenance of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct DeclaredMaintenance {
    pub maintenance: Maintenance,
    /// Its table as JSON, key by key.
    pub definition: serde_json::Value,
}
