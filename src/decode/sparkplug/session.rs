//! What is remembered of an edge node between its messages: where its sequence stands, what its births and its devices' told.
//!
//! Under the names `seq`, `births` and `devices`: the first is written with each message, and so is small. A node's birth and its
//! death forget all that was known of it and of its devices, so that what is remembered is of nodes that live.

use super::births::Births;
use super::place::Place;
use crate::decode::memory::Recall;
use crate::quarantine::Refusal;
use crate::time::UtcMicros;

/// Where an edge node's sequence stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Standing {
    /// Of its last message (Sparkplug 3.0.0, 6.4.1).
    seq: u8,
    /// Of its birth; pairs it with the death that its session left with the broker (6.4.20).
    bd_seq: Option<u64>,
}

impl Standing {
    fn of(bytes: &[u8]) -> Option<Standing> {
        let (seq, rest) = bytes.split_first()?;
        Some(Standing { seq: *seq, bd_seq: rest.first_chunk().map(|raw| u64::from_le_bytes(*raw)) })
    }

    fn bytes(self) -> Vec<u8> {
        let mut bytes = vec![self.seq];
        bytes.extend(self.bd_seq.iter().flat_map(|number| number.to_le_bytes()));
        bytes
    }
}

/// The memory of one edge node.
pub(super) struct Session<'r, 'm> {
    memory: &'r mut Recall<'m>,
    place: Place<'r>,
}

impl<'r, 'm> Session<'r, 'm> {
    pub(super) fn new(memory: &'r mut Recall<'m>, place: Place<'r>) -> Session<'r, 'm> {
        Session { memory, place }
    }

    /// What the birth of the topic's device, or of the node itself, told before `at`; none: no such birth was seen.
    pub(super) fn births(&self, at: UtcMicros) -> Option<Births<'_>> {
        self.memory.get(&self.place.key("births", self.place.device)).map(Births).filter(|births| births.hold_at(at))
    }

    fn standing(&self) -> Option<Standing> {
        Standing::of(self.memory.get(&self.place.key("seq", None))?)
    }

    /// Begins the node's session anew.
    ///
    /// # Errors
    /// [`Refusal`] of the message: the memory is full.
    pub(super) fn node_born(&mut self, births: &[u8], seq: Option<u64>, bd_seq: Option<u64>) -> Result<(), Refusal> {
        self.forget_all();
        self.memory.put(&self.place.key("births", None), births)?;
        self.memory.put(&self.place.key("seq", None), &Standing { seq: byte(seq), bd_seq }.bytes())
    }

    /// # Errors
    /// [`Refusal`] of the message: the memory is full.
    pub(super) fn device_born(&mut self, device: &str, births: &[u8]) -> Result<(), Refusal> {
        let mut devices = self.devices();
        if let Err(at) = devices.binary_search_by(|known| known.as_str().cmp(device)) {
            devices.insert(at, device.to_owned());
            self.memory.put(&self.place.key("devices", None), devices.join("/").as_bytes())?;
        }
        self.memory.put(&self.place.key("births", Some(device)), births)
    }

    /// Forgets the topic's device, or the node and all its devices.
    pub(super) fn died(&mut self) {
        match self.place.device {
            Some(device) => self.memory.forget(&self.place.key("births", Some(device))),
            None => self.forget_all(),
        }
    }

    /// False: it is the death of an earlier session, which the node's birth has overtaken.
    pub(super) fn node_died(&mut self, bd_seq: Option<u64>) -> bool {
        let born = self.standing().and_then(|standing| standing.bd_seq);
        let meant = born.is_none() || bd_seq.is_none() || born == bd_seq;
        if meant {
            self.forget_all();
        }
        meant
    }

    /// Takes note of a message's number; whether messages are missing before it, or the birth is. The last one once more is
    /// a redelivery.
    ///
    /// # Errors
    /// [`Refusal`] of the message: the memory is full.
    pub(super) fn follows(&mut self, seq: Option<u64>) -> Result<bool, Refusal> {
        let Some(standing) = self.standing() else { return Ok(false) };
        let Some(seq) = seq else { return Ok(true) };
        let seq = byte(Some(seq));
        if seq == standing.seq {
            return Ok(true);
        }
        self.memory.put(&self.place.key("seq", None), &Standing { seq, ..standing }.bytes())?;
        Ok(seq == standing.seq.wrapping_add(1))
    }

    /// Those of the node that were born.
    pub(super) fn devices(&self) -> Vec<String> {
        let known = self.memory.get(&self.place.key("devices", None)).unwrap_or_default();
        let known = std::str::from_utf8(known).unwrap_or_default();
        known.split('/').filter(|device| !device.is_empty()).map(str::to_owned).collect()
    }

    fn forget_all(&mut self) {
        for device in self.devices() {
            self.memory.forget(&self.place.key("births", Some(&device)));
        }
        for what in ["devices", "births", "seq"] {
            self.memory.forget(&self.place.key(what, None));
        }
    }
}

/// 0 to 255, and again (6.4.1).
fn byte(seq: Option<u64>) -> u8 {
    seq.unwrap_or_default().to_le_bytes()[0]
}
