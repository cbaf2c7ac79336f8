//! What decoders remember between messages: aliases, data types, names that a discovery told. It is a function of the
//! messages before, and committed with the position, so that a restart goes on as if nothing had happened.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Ask;
use crate::quarantine::{Reason, Refusal};

/// Most bytes that all decoders of an instance remember, keys included.
pub const MAX_BYTES: usize = 64 << 20;

/// What was put or taken since the last look; `None`: forgotten.
pub type Changes = BTreeMap<(Arc<str>, String), Option<Arc<[u8]>>>;

/// All that is remembered, by source and key.
#[derive(Debug, Default)]
pub struct Memory {
    sources: HashMap<Arc<str>, HashMap<String, Arc<[u8]>>>,
    bytes: usize,
    changes: Changes,
    /// Nothing that is remembered: whoever does not take them leaves them.
    asks: Vec<Ask>,
}

impl Memory {
    /// What was committed: source, key and value.
    pub fn of(entries: impl IntoIterator<Item = (String, String, Vec<u8>)>) -> Memory {
        let mut memory = Memory::default();
        for (source, key, value) in entries {
            memory.bytes = memory.bytes.saturating_add(key.len()).saturating_add(value.len());
            memory.sources.entry(source.into()).or_default().insert(key, value.into());
        }
        memory
    }

    /// The part of one source.
    pub fn of_source<'m>(&'m mut self, source: &Arc<str>) -> Recall<'m> {
        Recall { source: Arc::clone(source), room: "", memory: self }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn has_changed(&self) -> bool {
        !self.changes.is_empty()
    }

    /// What has changed since it was last taken.
    pub fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    /// What decoders want told to devices since it was last taken.
    pub fn take_asks(&mut self) -> Vec<Ask> {
        std::mem::take(&mut self.asks)
    }
}

/// What one source's decoder remembers. Whatever is written stays only if the batch is committed; a decoder writes once it
/// is sure that it takes the message.
pub struct Recall<'m> {
    source: Arc<str>,
    /// What all its keys begin with.
    room: &'static str,
    memory: &'m mut Memory,
}

impl Recall<'_> {
    /// The part of one decoder, where a source has several: what one puts, another does not get.
    pub fn of_decoder(&mut self, name: &'static str) -> Recall<'_> {
        Recall { source: Arc::clone(&self.source), room: name, memory: self.memory }
    }

    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.memory.sources.get(&self.source)?.get(&*self.placed(key)).map(|value| &**value)
    }

    /// Remembers a value; what the key had is forgotten.
    ///
    /// # Errors
    /// [`Refusal`] of the message when [`MAX_BYTES`] would be passed.
    pub fn put(&mut self, key: &str, value: &[u8]) -> Result<(), Refusal> {
        let placed = self.placed(key);
        let entries = self.memory.sources.get(&self.source);
        let old = entries.and_then(|entries| entries.get(&*placed));
        if old.is_some_and(|old| **old == *value) {
            return Ok(());
        }
        let before = old.map_or(0, |old| old.len().saturating_add(placed.len()));
        let after = self.memory.bytes.saturating_sub(before).saturating_add(placed.len()).saturating_add(value.len());
        if after > MAX_BYTES {
            let detail = format!("the decoders remember {MAX_BYTES} bytes already, which is the most");
            return Err(Refusal::message(Reason::TooLarge, detail));
        }
        let (placed, value) = (placed.into_owned(), Arc::<[u8]>::from(value));
        self.memory.bytes = after;
        self.memory.changes.insert((Arc::clone(&self.source), placed.clone()), Some(Arc::clone(&value)));
        self.memory.sources.entry(Arc::clone(&self.source)).or_default().insert(placed, value);
        Ok(())
    }

    /// Lets something be told to a device, whether or not the message is taken.
    pub fn ask(&mut self, ask: Ask) {
        self.memory.asks.push(ask);
    }

    pub fn forget(&mut self, key: &str) {
        let placed = self.placed(key).into_owned();
        let old = self.memory.sources.get_mut(&self.source).and_then(|entries| entries.remove(&placed));
        if let Some(old) = old {
            self.memory.bytes = self.memory.bytes.saturating_sub(old.len().saturating_add(placed.len()));
            self.memory.changes.insert((Arc::clone(&self.source), placed), None);
        }
    }

    fn placed<'k>(&self, key: &'k str) -> Cow<'k, str> {
        if self.room.is_empty() { Cow::Borrowed(key) } else { Cow::Owned(format!("{} {key}", self.room)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_told_once_and_what_did_not_is_not() {
        let mut memory = Memory::of([("s".to_owned(), "a".to_owned(), vec![1])]);
        let source: Arc<str> = "s".into();
        let mut recall = memory.of_source(&source);
        assert_eq!(recall.get("a"), Some(&[1][..]));
        recall.put("a", &[1]).unwrap();
        recall.put("b", &[2]).unwrap();
        recall.forget("a");
        recall.forget("never");
        let key = |key: &str| (Arc::clone(&source), key.to_owned());
        let changes = memory.take_changes();
        assert_eq!(changes, BTreeMap::from([(key("a"), None), (key("b"), Some(Arc::from([2_u8])))]));
        assert!(memory.take_changes().is_empty());
        assert_eq!(memory.bytes, 2);
    }

    #[test]
    fn decoders_of_one_source_do_not_meet() {
        let mut memory = Memory::default();
        let mut recall = memory.of_source(&"s".into());
        recall.of_decoder("a").put("k", &[1]).unwrap();
        assert_eq!(recall.get("k"), None);
        assert_eq!(recall.of_decoder("b").get("k"), None);
        assert_eq!(recall.of_decoder("a").get("k"), Some(&[1][..]));
        recall.of_decoder("b").forget("k");
        recall.of_decoder("a").forget("k");
        assert_eq!(memory.bytes, 0);
    }

    #[test]
    fn it_is_bounded() {
        let mut memory = Memory::default();
        let mut recall = memory.of_source(&"s".into());
        recall.put("a", &vec![0; MAX_BYTES - 1]).unwrap();
        assert_eq!(recall.put("b", &[1]).unwrap_err().reason, Reason::TooLarge);
        recall.forget("a");
        recall.put("b", &[1]).unwrap();
    }
}
