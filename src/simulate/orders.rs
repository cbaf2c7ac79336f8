//! What simulated Sparkplug nodes are told, on its way to their next message: a node reports what was set itself, in its sequence.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use prost::Message as _;

use crate::decode::sparkplug::wire::{Metric, Payload};

/// Orders of one node that wait at most; further ones are left out, as by a node that is too slow.
const WAITING: usize = 64;
/// Orders of all nodes.
const ALL: usize = 100_000;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Order {
    Rebirth,
    Set {
        /// Else the node's own.
        of_device: bool,
        metrics: Vec<Metric>,
    },
}

/// By node; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Orders(Arc<Mutex<HashMap<String, VecDeque<Order>>>>);

impl Orders {
    /// Takes the payload of an NCMD or a DCMD; whether it is one that a node can do something with.
    pub(super) fn give(&self, node: &str, of_device: bool, payload: &[u8]) -> bool {
        let Ok(Payload { metrics, .. }) = Payload::decode(payload) else { return false };
        let Ok(metrics) = metrics.into_iter().map(Metric::decode).collect::<Result<Vec<_>, _>>() else { return false };
        let is_rebirth = |metric: &Metric| metric.name.as_deref() == Some("Node Control/Rebirth");
        let order = match metrics.iter().any(is_rebirth) {
            true => Order::Rebirth,
            false => Order::Set { of_device, metrics },
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= ALL && !all.contains_key(node) {
            return false;
        }
        let waiting = all.entry(node.to_owned()).or_default();
        let has_room = waiting.len() < WAITING;
        if has_room {
            waiting.push_back(order);
        }
        has_room
    }

    /// The first of a node's.
    pub(super) fn take(&self, node: &str) -> Option<Order> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = all.get_mut(node)?;
        let first = waiting.pop_front();
        if waiting.is_empty() {
            all.remove(node);
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::sparkplug::wire::Carried;

    #[test]
    fn a_node_takes_its_orders_in_turn() {
        let told = |name: &str| {
            let metric =
                Metric { name: Some(name.to_owned()), value: Some(Carried::Boolean(true)), ..Metric::default() };
            Payload { metrics: vec![metric.encode_to_vec().into()], ..Payload::default() }.encode_to_vec()
        };
        let orders = Orders::default();
        assert!(
            orders.give("n", true, &told("Line/Running")) && orders.give("n", false, &told("Node Control/Rebirth"))
        );
        assert!(!orders.give("n", true, b"\xff"));
        assert!(matches!(orders.take("n"), Some(Order::Set { of_device: true, metrics }) if metrics.len() == 1));
        assert_eq!((orders.take("n"), orders.take("n"), orders.take("m")), (Some(Order::Rebirth), None, None));
        for _ in 0..100 {
            orders.give("n", true, &told("x"));
        }
        assert_eq!(std::iter::from_fn(|| orders.take("n")).count(), WAITING);
    }
}
