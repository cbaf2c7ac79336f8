//! Which device is behind which, as far as rules care.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Tenant and uid.
type Key = (Arc<str>, Arc<str>);

/// Gateways above one another at most, as far as is looked.
const DEEPEST: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Gateways {
    above: HashMap<Key, Arc<str>>,
    below: HashMap<Key, BTreeSet<Arc<str>>>,
}

impl Gateways {
    /// The device is behind this one from now on.
    pub fn put(&mut self, tenant: &Arc<str>, uid: &Arc<str>, gateway: &Arc<str>) {
        let key = |uid: &Arc<str>| (Arc::clone(tenant), Arc::clone(uid));
        if let Some(before) = self.above.insert(key(uid), Arc::clone(gateway))
            && let Some(below) = self.below.get_mut(&key(&before))
        {
            below.remove(uid);
        }
        self.below.entry(key(gateway)).or_default().insert(Arc::clone(uid));
    }

    /// The device that it is behind.
    pub fn of(&self, tenant: &Arc<str>, uid: &Arc<str>) -> Option<&Arc<str>> {
        self.above.get(&(Arc::clone(tenant), Arc::clone(uid)))
    }

    /// The gateways that a device is behind, the nearest first.
    pub fn above(&self, tenant: &Arc<str>, uid: &Arc<str>) -> impl Iterator<Item = &Arc<str>> {
        let tenant = Arc::clone(tenant);
        let next = move |uid: &&Arc<str>| self.of(&tenant, uid);
        std::iter::successors(next(&uid), next).take(DEEPEST)
    }

    /// The devices behind a gateway, however far, in the order of their uids on each level.
    pub fn below(&self, tenant: &Arc<str>, uid: &Arc<str>) -> Vec<Arc<str>> {
        let mut found: Vec<Arc<str>> = Vec::new();
        let mut level = vec![Arc::clone(uid)];
        for _ in 0..DEEPEST {
            let next = level.iter().flat_map(|uid| self.below.get(&(Arc::clone(tenant), Arc::clone(uid)))).flatten();
            level = next.cloned().collect();
            if level.is_empty() {
                break;
            }
            found.extend(level.iter().cloned());
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_moves_with_what_is_behind_it() {
        let text = |text: &str| -> Arc<str> { text.into() };
        let (tenant, mut gateways) = (text("t"), Gateways::default());
        for (uid, gateway) in [("sensor", "repeater"), ("repeater", "one"), ("meter", "one"), ("repeater", "two")] {
            gateways.put(&tenant, &text(uid), &text(gateway));
        }
        let above: Vec<&str> = gateways.above(&tenant, &text("sensor")).map(|uid| &**uid).collect();
        assert_eq!(above, ["repeater", "two"]);
        assert_eq!(gateways.below(&tenant, &text("one")), [text("meter")]);
        assert_eq!(gateways.below(&tenant, &text("two")), [text("repeater"), text("sensor")]);
        assert!(gateways.below(&text("other"), &text("two")).is_empty());
    }
}
