//! One record in a group's blob: `[u32 length][u32 CRC-32][record]`, little endian, the record in postcard.
//!
//! The checksum covers the position and the length too, so that a record is valid only in its own place.
//! The record's shape belongs to the file's format: a change to `Publish` needs a new one.

use serde::{Deserialize, Serialize};

use crate::message::{Message, Publish, Seq};
use crate::time::UtcMicros;

const HEADER: usize = 8;

#[derive(Serialize)]
struct RecordRef<'a> {
    received_at: UtcMicros,
    publish: &'a Publish,
}

#[derive(Deserialize)]
struct Record {
    received_at: UtcMicros,
    publish: Publish,
}

/// Adds a message's frame to a blob; leaves the blob as it was on an error.
pub(super) fn append(
    blob: &mut Vec<u8>,
    seq: Seq,
    received_at: UtcMicros,
    publish: &Publish,
) -> Result<(), postcard::Error> {
    let start = blob.len();
    blob.extend_from_slice(&[0; HEADER]);
    let body_at = blob.len();
    let encoded = postcard::to_extend(&RecordRef { received_at, publish }, Sink(blob)).map(|_| ());
    let body = blob.get(body_at..).unwrap_or_default();
    let length = u32::try_from(body.len()).map_err(|_| postcard::Error::SerializeBufferFull);
    match encoded.and(length) {
        Ok(length) => {
            let [l0, l1, l2, l3] = length.to_le_bytes();
            let [c0, c1, c2, c3] = checksum(seq, length, body).to_le_bytes();
            if let Some(header) = blob.get_mut(start..body_at) {
                header.copy_from_slice(&[l0, l1, l2, l3, c0, c1, c2, c3]);
            }
            Ok(())
        }
        Err(error) => {
            blob.truncate(start);
            Err(error)
        }
    }
}

struct Sink<'a>(&'a mut Vec<u8>);

impl Extend<u8> for Sink<'_> {
    fn extend<I: IntoIterator<Item = u8>>(&mut self, bytes: I) {
        self.0.extend(bytes);
    }
}

fn checksum(seq: Seq, length: u32, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&seq.to_le_bytes());
    hasher.update(&length.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

/// The frames of one group, as read from the disk.
pub(super) struct Frames {
    first: Seq,
    last: Seq,
    blob: Vec<u8>,
    /// Where each frame starts, as far as the lengths lead.
    starts: Vec<usize>,
    /// The lengths do not lead to the blob's end: one of them is damaged.
    torn: bool,
}

/// A run of messages that can't be read, and their bytes.
pub(super) struct Damage<'a> {
    pub from: Seq,
    pub to: Seq,
    pub bytes: &'a [u8],
}

impl Frames {
    pub fn new(first: Seq, last: Seq, blob: Vec<u8>) -> Frames {
        let count = last.saturating_sub(first).saturating_add(1);
        let mut starts = Vec::new();
        let mut at = 0_usize;
        let mut torn = last < first;
        while (starts.len() as u64) < count && !torn {
            starts.push(at);
            match frame_at(&blob, at) {
                Some((_, _, end)) => at = end,
                None => torn = true,
            }
        }
        torn |= at != blob.len();
        Frames { first, last, blob, starts, torn }
    }

    pub fn first(&self) -> Seq {
        self.first
    }

    pub fn last(&self) -> Seq {
        self.last
    }

    /// Where frames were found: all positions of the group, unless a length is damaged.
    pub fn positions(&self) -> std::ops::Range<Seq> {
        self.first..self.first.saturating_add(self.starts.len() as u64)
    }

    /// The message at `seq`, which lies in this group; where a length is damaged, all after it is lost too.
    pub fn get(&self, seq: Seq) -> Result<Message, Damage<'_>> {
        let index = usize::try_from(seq.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let start = self.starts.get(index).copied();
        let frame = start.and_then(|start| frame_at(&self.blob, start));
        if let Some((crc, body, _)) = frame
            && let Ok(length) = u32::try_from(body.len())
            && checksum(seq, length, body) == crc
            && let Ok((Record { received_at, publish }, [])) = postcard::take_from_bytes(body)
        {
            return Ok(Message { seq, received_at, publish });
        }
        let start = start.unwrap_or(self.blob.len());
        let (to, end) = match frame {
            Some((_, _, end)) if !self.torn => (seq, end),
            _ => (self.last.max(seq), self.blob.len()),
        };
        Err(Damage { from: seq, to, bytes: self.blob.get(start..end).unwrap_or_default() })
    }
}

/// Checksum, body and end of the frame that starts at `at`, if the blob holds all of it.
fn frame_at(blob: &[u8], at: usize) -> Option<(u32, &[u8], usize)> {
    let (length, rest) = blob.get(at..)?.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let body = rest.get(..length)?;
    let end = at.checked_add(HEADER)?.checked_add(length)?;
    Some((u32::from_le_bytes(*crc), body, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Properties;
    use bytes::Bytes;

    fn publish(payload: &str) -> Publish {
        Publish {
            topic: "a/b".into(),
            payload: Bytes::from(payload.to_owned()),
            qos: 1,
            retain: false,
            dup: true,
            packet_id: 300,
            client: Some("c".into()),
            properties: Some(Box::new(Properties {
                content_type: Some("t".into()),
                response_topic: None,
                correlation_data: Some(Bytes::from_static(b"\0\xff")),
                user: vec![("k".into(), "v".into())],
            })),
        }
    }

    fn blob(payloads: &[&str]) -> Vec<u8> {
        let mut blob = Vec::new();
        for (index, payload) in payloads.iter().enumerate() {
            append(&mut blob, 10 + index as u64, UtcMicros(-5), &publish(payload)).unwrap();
        }
        blob
    }

    fn readable(frames: &Frames) -> Vec<bool> {
        (frames.first()..=frames.last()).map(|seq| frames.get(seq).is_ok()).collect()
    }

    #[test]
    fn what_was_appended_is_read_back() {
        let frames = Frames::new(10, 12, blob(&["x", "", "z"]));
        let message = frames.get(12).ok().unwrap();
        assert_eq!(message, Message { seq: 12, received_at: UtcMicros(-5), publish: publish("z") });
        assert_eq!(readable(&frames), [true, true, true]);
    }

    /// A file written by an earlier build must stay readable: these bytes are format 1.
    #[test]
    fn the_record_of_format_1_keeps_its_bytes() {
        let hex: String = blob(&["x"]).iter().skip(HEADER).map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "0903612f620178010001ac02010163010101740001020".to_owned() + "0ff01016b0176");
    }

    #[test]
    fn a_damaged_body_costs_its_own_record() {
        let mut damaged = blob(&["xxxx", "yyyy", "zzzz"]);
        let at = damaged.windows(4).position(|window| window == b"yyyy").unwrap();
        damaged[at] ^= 1;
        let frames = Frames::new(10, 12, damaged);
        assert_eq!(readable(&frames), [true, false, true]);
        let damage = frames.get(11).err().unwrap();
        assert_eq!((damage.from, damage.to), (11, 11));
        assert_eq!(damage.bytes.len(), frames.blob.len() / 3);
    }

    #[test]
    fn a_damaged_length_costs_the_rest_of_its_group() {
        let mut damaged = blob(&["xxxx", "yyyy", "zzzz"]);
        let second = damaged.len() / 3;
        damaged[second] ^= 1;
        let frames = Frames::new(10, 12, damaged);
        assert!(frames.get(10).is_ok());
        let damage = frames.get(11).err().unwrap();
        assert_eq!((damage.from, damage.to, damage.bytes.len()), (11, 12, second * 2));
    }

    #[test]
    fn a_record_in_another_place_is_not_taken() {
        assert_eq!(readable(&Frames::new(11, 13, blob(&["x", "y", "z"]))), [false, false, false]);
        assert!(Frames::new(10, 9, blob(&["x"])).get(10).is_err());
        assert!(Frames::new(10, u64::MAX, blob(&["x"])).get(11).is_err());
    }
}
