//! `tidegate/status/{instance}`: retained `online` and `offline`, the latter as the connection's will too.

pub(super) const ONLINE: &str = "online";
pub(super) const OFFLINE: &str = "offline";

/// The topic of an instance's status; its id is free of `/`, `+` and `#` by the configuration's check.
pub fn topic(instance_id: &str) -> String {
    format!("tidegate/status/{instance_id}")
}
