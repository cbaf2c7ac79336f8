//! What is asked of the broker and what it has granted, on one connection. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use tokio::time::Instant;

/// Some brokers take no more filters than this in one SUBSCRIBE.
const FILTERS_IN_A_PACKET: usize = 8;

/// One SUBSCRIBE or UNSUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Subscribe(Vec<String>),
    /// One filter, at QoS 0.
    Listen(String),
    Unsubscribe(String),
}

/// The broker's answer to one filter (MQTT 5, 3.9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grant {
    /// The QoS granted, 0 to 2.
    Granted(u8),
    Refused(&'static str),
}

/// Things handed to the client, then known by packet id, then answered; in order.
#[derive(Debug)]
pub(super) struct Asked<T> {
    handed: VecDeque<(T, Instant)>,
    flying: BTreeMap<u16, (T, Instant)>,
}

impl<T> Asked<T> {
    pub(super) fn new() -> Asked<T> {
        Asked { handed: VecDeque::new(), flying: BTreeMap::new() }
    }

    pub(super) fn hand(&mut self, thing: T, now: Instant) {
        self.handed.push_back((thing, now));
    }

    /// The next one handed over has got a packet id.
    pub(super) fn sent(&mut self, packet_id: u16) {
        if let Some(entry) = self.handed.pop_front() {
            self.flying.insert(packet_id, entry);
        }
    }

    pub(super) fn answered(&mut self, packet_id: u16) -> Option<T> {
        self.flying.remove(&packet_id).map(|(thing, _)| thing)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.handed.is_empty() && self.flying.is_empty()
    }

    /// Since when the longest unanswered one waits.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let handed = self.handed.iter().map(|(_, at)| *at);
        handed.chain(self.flying.values().map(|(_, at)| *at)).min()
    }
}

/// The filters wanted on this connection and how each stands.
#[derive(Debug)]
pub(super) struct Subscriptions {
    standing: HashMap<String, Standing>,
    asked: Asked<Ask>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    Asked,
    Granted,
    Refused(&'static str),
}

impl Subscriptions {
    pub(super) fn new() -> Subscriptions {
        Subscriptions { standing: HashMap::new(), asked: Asked::new() }
    }

    /// What to ask so that exactly `wanted` is subscribed; `held` are filters that the broker's session may still
    /// have. What `valid` refuses is not asked.
    pub(super) fn want(&mut self, wanted: &[String], held: &BTreeSet<String>, valid: fn(&str) -> bool) -> Vec<Ask> {
        let goal: BTreeSet<&String> = wanted.iter().collect();
        let mut drop: BTreeSet<String> = held.iter().filter(|filter| !goal.contains(filter)).cloned().collect();
        drop.extend(self.standing.keys().filter(|filter| !goal.contains(filter)).cloned());
        self.standing.retain(|filter, _| goal.contains(filter));
        let mut add = Vec::new();
        for filter in goal {
            if self.standing.contains_key(filter) {
                continue;
            }
            let standing = if valid(filter) { Standing::Asked } else { Standing::Refused("not a topic filter") };
            if standing == Standing::Asked {
                add.push(filter.clone());
            }
            self.standing.insert(filter.clone(), standing);
        }
        drop.retain(|filter| valid(filter));
        // What is new first: a message that an old and a new filter both match has no gap.
        let subscribes = add.chunks(FILTERS_IN_A_PACKET).map(|chunk| Ask::Subscribe(chunk.to_vec()));
        subscribes.chain(drop.into_iter().map(Ask::Unsubscribe)).collect()
    }

    /// Asks again for what was refused: the broker's access rules may have changed.
    pub(super) fn ask_again(&mut self) -> Vec<Ask> {
        let mut again: Vec<String> = self.refused().into_iter().map(|(filter, _)| filter).collect();
        again.retain(|filter| self.standing.get(filter) != Some(&Standing::Refused("not a topic filter")));
        again.chunks(FILTERS_IN_A_PACKET).map(|chunk| Ask::Subscribe(chunk.to_vec())).collect()
    }

    pub(super) fn hand(&mut self, ask: Ask, now: Instant) {
        self.asked.hand(ask, now);
    }

    pub(super) fn sent(&mut self, packet_id: u16) {
        self.asked.sent(packet_id);
    }

    /// Takes a SUBACK in; returns what it refused or granted too low.
    pub(super) fn granted(&mut self, packet_id: u16, grants: &[Grant]) -> Vec<(String, &'static str)> {
        let Some(Ask::Subscribe(filters)) = self.asked.answered(packet_id) else { return Vec::new() };
        let mut refused = Vec::new();
        let grants = grants.iter().copied().chain(std::iter::repeat(Grant::Refused("no answer for it in the SUBACK")));
        for (filter, grant) in filters.into_iter().zip(grants) {
            let Some(standing) = self.standing.get_mut(&filter) else { continue };
            *standing = match grant {
                Grant::Granted(0) => Standing::Refused("granted at QoS 0 only"),
                Grant::Granted(_) => Standing::Granted,
                Grant::Refused(why) => Standing::Refused(why),
            };
            if let Standing::Refused(why) = standing {
                refused.push((filter, *why));
            }
        }
        refused
    }

    /// Takes an UNSUBACK in; returns the filter that it ends.
    pub(super) fn dropped(&mut self, packet_id: u16) -> Option<String> {
        match self.asked.answered(packet_id) {
            Some(Ask::Unsubscribe(filter)) => Some(filter),
            _ => None,
        }
    }

    /// Whether every question has been answered.
    pub(super) fn is_settled(&self) -> bool {
        self.asked.is_empty()
    }

    pub(super) fn oldest(&self) -> Option<Instant> {
        self.asked.oldest()
    }

    /// The filters that are not granted at QoS 1, and why, by name.
    pub(super) fn refused(&self) -> Vec<(String, &'static str)> {
        let mut refused: Vec<_> = self
            .standing
            .iter()
            .filter_map(|(filter, standing)| match standing {
                Standing::Refused(why) => Some((filter.clone(), *why)),
                _ => None,
            })
            .collect();
        refused.sort_unstable();
        refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    fn any(_: &str) -> bool {
        true
    }

    /// Hands all of it over, with packet ids from `first`.
    fn send(subscriptions: &mut Subscriptions, asks: Vec<Ask>, first: u16) {
        for (ask, id) in asks.into_iter().zip(first..) {
            subscriptions.hand(ask, Instant::now());
            subscriptions.sent(id);
        }
    }

    #[test]
    fn every_code_of_a_suback_counts() {
        let mut subscriptions = Subscriptions::new();
        let asks = subscriptions.want(&filters(&["a", "b", "c", "d"]), &BTreeSet::new(), any);
        assert_eq!(asks, [Ask::Subscribe(filters(&["a", "b", "c", "d"]))]);
        send(&mut subscriptions, asks, 1);
        assert!(!subscriptions.is_settled());
        let refused = subscriptions.granted(1, &[Grant::Granted(1), Grant::Refused("no"), Grant::Granted(0)]);
        assert_eq!(refused.iter().map(|(filter, _)| filter.as_str()).collect::<Vec<_>>(), ["b", "c", "d"]);
        assert!(subscriptions.is_settled());
        assert_eq!(subscriptions.refused(), refused);
    }

    #[test]
    fn a_change_asks_only_for_the_difference() {
        let mut subscriptions = Subscriptions::new();
        let asks = subscriptions.want(&filters(&["a", "b"]), &BTreeSet::new(), any);
        send(&mut subscriptions, asks, 1);
        let asks = subscriptions.want(&filters(&["b", "c"]), &BTreeSet::new(), any);
        assert_eq!(asks, [Ask::Subscribe(filters(&["c"])), Ask::Unsubscribe("a".into())]);
    }

    #[test]
    fn what_the_session_still_holds_is_unsubscribed() {
        let held = BTreeSet::from(["old".to_owned(), "a".to_owned()]);
        let asks = Subscriptions::new().want(&filters(&["a"]), &held, any);
        assert_eq!(asks, [Ask::Subscribe(filters(&["a"])), Ask::Unsubscribe("old".into())]);
    }

    #[test]
    fn many_filters_go_in_small_packets() {
        let many: Vec<String> = (0..20).map(|n| format!("f{n:02}")).collect();
        let asks = Subscriptions::new().want(&many, &BTreeSet::new(), any);
        assert_eq!(asks.len(), 3);
    }

    #[test]
    fn an_impossible_filter_is_refused_without_asking() {
        let mut subscriptions = Subscriptions::new();
        assert!(subscriptions.want(&filters(&["a#"]), &BTreeSet::new(), |_| false).is_empty());
        assert_eq!(subscriptions.refused().len(), 1);
        assert!(subscriptions.ask_again().is_empty());
    }
}
