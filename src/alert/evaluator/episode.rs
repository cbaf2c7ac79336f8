//! An episode of a rule on one device, from the moment it fires.

use std::sync::Arc;

use ring::digest;
use serde::{Deserialize, Serialize};

use crate::alert::rule::Severity;
use crate::alert::transition::State;

/// Instants are by the device's own time, but for `snoozed`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Episode {
    /// Empty: of a member of a group, which has no alert of its own.
    pub id: Arc<str>,
    pub onset: i64,
    pub since: i64,
    /// Of the next transition.
    pub step: u32,
    pub state: State,
    pub severity: Severity,
    /// Until when nothing is said of it, by the journal's time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snoozed: Option<i64>,
    /// Of a group: the member that brought it over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Arc<str>>,
    /// Number of the last thing that was asked of it by a command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<i64>,
}

/// The id of an episode: equal for whoever finds the same rule, device or group, metric and onset.
pub(crate) fn id(rule: &str, tenant: &str, device: &str, metric: &str, onset: i64) -> Arc<str> {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [rule, tenant, device, metric] {
        // The length keeps neighbours apart.
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    context.update(&onset.to_be_bytes());
    let digest = context.finish();
    digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::id;

    #[test]
    fn ids_tell_everything_apart_and_stay_the_same() {
        let one = id("hot", "default", "pump", "temperature", 1);
        assert_eq!(one.len(), 32);
        assert_eq!(one, id("hot", "default", "pump", "temperature", 1));
        for other in [
            id("hot", "default", "pump", "temperature", 2),
            id("hotd", "efault", "pump", "temperature", 1),
            id("hot", "default", "pumpt", "emperature", 1),
        ] {
            assert_ne!(one, other);
        }
    }
}
