//! Where the walk through a document is, and what its points become.

use std::ops::Range;

use super::super::{Context, Point, Sample, Value, integer, key_too_long, out_of_range, text_too_long};
use crate::quarantine::{Reason, Refusal};
use crate::time::{self, Stamp};

/// What the flattened keys of an envelope begin with.
const ENVELOPE: &str = "values.";

/// Room is made at once for payloads of up to so many bytes, and for a member in every few of them.
const MOST_ROOM: usize = 4096;
const BYTES_A_MEMBER: usize = 12;

/// Where the walk through the document is, and what it has found.
pub(super) struct Walk<'c> {
    context: &'c Context<'c>,
    pub(super) points: Vec<Point>,
    samples: Vec<Sample>,
    /// Flattened key of the value at hand, within its point.
    pub(super) path: String,
    pub(super) depth: usize,
    /// Values met in the whole message, `null`s too.
    values: usize,
    /// Number of the last object entered.
    pub(super) object: u32,
    pub(super) members: Members,
    pub(super) shape: Shape,
    /// Keys and outcomes of what may turn out to be the point's time.
    stamps: Vec<(String, Found)>,
    /// Why the walk was broken off.
    pub(super) refusal: Option<Refusal>,
}

/// What a candidate for the time holds.
enum Found {
    Time(Result<time::UtcMicros, time::StampError>),
    Absent,
    Other,
}

/// Which of the native forms the point at hand has.
#[derive(Default)]
pub(super) struct Shape {
    /// It has `values`, an object.
    pub(super) values: bool,
    /// It has members beside `values` and a plain `ts`.
    pub(super) others: bool,
}

/// Every member's flattened key, for finding duplicates.
pub(super) struct Members {
    paths: String,
    list: Vec<Member>,
    /// A bit for each key that came, chosen by a hash of it: as long as none is set twice, there are no two equal keys.
    seen: [u64; SEEN_WORDS],
    /// A bit was to be set twice.
    suspicious: bool,
}

/// With so many words of 64 bits, one point of ten keys in a hundred is looked at closely.
const SEEN_WORDS: usize = 64;

struct Member {
    place: Range<usize>,
    /// The object it stands in; 0 for elements of arrays.
    object: u32,
    /// It gives a sample, or is `null`.
    leaf: bool,
}

impl Members {
    fn with_room_for(bytes: usize) -> Members {
        let list = Vec::with_capacity(bytes / BYTES_A_MEMBER);
        Members { paths: String::with_capacity(bytes), list, seen: [0; SEEN_WORDS], suspicious: false }
    }

    /// Returns where the key stands in `paths`.
    pub(super) fn add(&mut self, path: &str, object: u32, leaf: bool) -> Range<usize> {
        let hash = fnv1a(path.as_bytes());
        let bit = 1 << (hash % 64);
        if let Some(word) = self.seen.get_mut((hash / 64) as usize % SEEN_WORDS) {
            self.suspicious |= *word & bit != 0;
            *word |= bit;
        }
        let start = self.paths.len();
        self.paths.push_str(path);
        let place = start..self.paths.len();
        self.list.push(Member { place: place.clone(), object, leaf });
        place
    }

    /// A key that one object has twice, or that two leaves flatten to.
    fn duplicate(&mut self) -> Option<&str> {
        if !self.suspicious {
            return None;
        }
        let paths = &self.paths;
        let path = |member: &Member| paths.get(member.place.clone()).unwrap_or("");
        self.list.sort_unstable_by(|a, b| path(a).cmp(path(b)).then(a.object.cmp(&b.object)));
        let twice = |same: &&[Member]| {
            same.iter().filter(|member| member.leaf).count() > 1
                || same.windows(2).any(|pair| matches!(pair, [a, b] if a.object == b.object && a.object != 0))
        };
        self.list.chunk_by(|a, b| path(a) == path(b)).find(twice).and_then(|same| same.first()).map(path)
    }

    /// Begins anew; gives the keys away.
    fn take(&mut self) -> String {
        self.list.clear();
        self.seen = [0; SEEN_WORDS];
        self.suspicious = false;
        std::mem::take(&mut self.paths)
    }
}

/// A quick hash of short keys. Whoever makes keys collide only makes his own message dearer.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A value that holds no others.
pub(super) enum Leaf<'t> {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(&'t str),
}

/// The walk was broken off; [`Walk::refusal`] says why.
pub(super) struct Stopped;

impl<'c> Walk<'c> {
    /// `length`: of the payload.
    pub(super) fn new(context: &'c Context<'c>, length: usize) -> Walk<'c> {
        let room = length.min(MOST_ROOM);
        Walk {
            context,
            points: Vec::with_capacity(1),
            samples: Vec::with_capacity(room / BYTES_A_MEMBER),
            path: String::with_capacity(64),
            depth: 0,
            values: 0,
            object: 0,
            members: Members::with_room_for(room),
            shape: Shape::default(),
            stamps: Vec::new(),
            refusal: None,
        }
    }

    pub(super) fn stop(&mut self, refusal: Refusal) -> Stopped {
        self.refusal = Some(refusal);
        Stopped
    }

    pub(super) fn enter(&mut self) -> Result<(), Stopped> {
        self.depth += 1;
        let most = self.context.limits.max_depth;
        if self.depth > most {
            let detail = format!("nested too deep: limits.max_depth is {most}");
            return Err(self.stop(Refusal::message(Reason::TooDeep, detail)));
        }
        Ok(())
    }

    pub(super) fn count_value(&mut self) -> Result<(), Stopped> {
        self.values += 1;
        let most = self.context.limits.max_keys;
        if self.values > most {
            let detail = format!("too many keys: limits.max_keys is {most}");
            return Err(self.stop(Refusal::message(Reason::TooManyKeys, detail)));
        }
        Ok(())
    }

    pub(super) fn extend_path(&mut self, separator: &str, part: &str) -> Result<(), Stopped> {
        self.path.push_str(separator);
        self.path.push_str(part);
        if self.path.len() > self.context.limits.max_key_length + ENVELOPE.len() {
            let refusal = key_too_long(&self.path, self.context.limits);
            return Err(self.stop(refusal));
        }
        Ok(())
    }

    pub(super) fn leaf(&mut self, leaf: Leaf<'_>, object: u32, top: bool) -> Result<(), Stopped> {
        self.count_value()?;
        let place = self.members.add(&self.path, object, true);
        if top && self.path == "values" {
            self.shape.others = true;
        }
        let named = |key: &str| self.path == key || self.path.strip_prefix(ENVELOPE) == Some(key);
        if (top && self.path == "ts") || self.context.timestamp.is_some_and(named) {
            let found = self.found(&leaf);
            self.stamps.push((self.path.clone(), found));
        }
        let value = match leaf {
            Leaf::Null => return Ok(()),
            Leaf::Bool(value) => Value::Bool(value),
            Leaf::Integer(number) => integer(number),
            Leaf::Float(number) if !number.is_finite() => {
                let refusal = out_of_range(&self.path);
                return Err(self.stop(refusal));
            }
            Leaf::Float(number) => Value::Number(number),
            Leaf::Text(text) if text.len() > self.context.limits.max_text_length => {
                let refusal = text_too_long(&self.path, text.len(), self.context.limits);
                return Err(self.stop(refusal));
            }
            Leaf::Text(text) => Value::Text(text.to_owned()),
        };
        self.samples.push(Sample { place, value });
        Ok(())
    }

    fn found(&self, leaf: &Leaf<'_>) -> Found {
        let stamp = match *leaf {
            Leaf::Null => return Found::Absent,
            Leaf::Bool(_) => return Found::Other,
            Leaf::Integer(number) => Stamp::Integer(number),
            Leaf::Float(number) => Stamp::Float(number),
            Leaf::Text(text) => Stamp::Text(text),
        };
        Found::Time(time::read(stamp, self.context.timezone))
    }

    /// Ends the point at hand: its form decides what its keys and its time are.
    pub(super) fn finish_point(&mut self) -> Result<(), Stopped> {
        let envelope = self.shape.values && !self.shape.others;
        if let Some(key) = self.members.duplicate() {
            let key = if envelope { key.strip_prefix(ENVELOPE).unwrap_or(key) } else { key };
            let refusal = Refusal::message(Reason::DuplicateKey, format!("duplicate key {key}"));
            return Err(self.stop(refusal));
        }
        let time = self.take_time(envelope).map_err(|refusal| self.stop(refusal))?;
        let keys = self.members.take();
        if envelope {
            self.samples.retain(|sample| sample.key(&keys) != "ts");
            for sample in &mut self.samples {
                if sample.key(&keys).starts_with(ENVELOPE) {
                    sample.place.start += ENVELOPE.len();
                }
            }
        }
        let limits = self.context.limits;
        if let Some(long) = self.samples.iter().find(|sample| sample.place.len() > limits.max_key_length) {
            let refusal = key_too_long(long.key(&keys), limits);
            return Err(self.stop(refusal));
        }
        self.points.push(Point { time, keys, samples: std::mem::take(&mut self.samples) });
        self.stamps.clear();
        self.shape = Shape::default();
        Ok(())
    }

    /// The point's own time; its sample is taken out.
    fn take_time(&mut self, envelope: bool) -> Result<Option<time::UtcMicros>, Refusal> {
        let names = |path: &str| match self.context.timestamp {
            None => path == "ts",
            Some(key) if envelope => path.strip_prefix(ENVELOPE) == Some(key),
            Some(key) => path == key,
        };
        let present = |stamp: &&(String, Found)| !matches!(stamp.1, Found::Absent);
        let own = self.stamps.iter().filter(present).find(|(path, _)| names(path));
        let stamp = own.or_else(|| self.stamps.iter().filter(present).find(|(path, _)| envelope && path == "ts"));
        let Some((path, found)) = stamp else {
            return Ok(None);
        };
        let hint = match self.context.timestamp {
            None if !envelope => "; if it is no time, set the source's `timestamp` to the key that is",
            _ => "",
        };
        match found {
            Found::Time(Ok(time)) => {
                let keys = &self.members.paths;
                self.samples.retain(|sample| sample.key(keys) != *path);
                Ok(Some(*time))
            }
            Found::Time(Err(error)) => Err(Refusal::message(Reason::BadTime, format!("{path}: {error}{hint}"))),
            Found::Other if envelope || self.context.timestamp.is_some() => {
                Err(Refusal::message(Reason::BadTime, format!("{path} is a boolean, a timestamp is wanted")))
            }
            Found::Other | Found::Absent => Ok(None),
        }
    }
}
