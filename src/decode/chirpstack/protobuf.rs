//! The fields of a Protobuf message, one after another, from its bytes.
//!
//! Protocol Buffers documentation: "Encoding". Groups, which were withdrawn, are refused.

use crate::quarantine::{Reason, Refusal};

/// A field's value, as far as its wire type tells what it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Wire<'p> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'p [u8]),
    Fixed32(u32),
}

impl<'p> Wire<'p> {
    pub(super) fn message(self) -> Result<Fields<'p>, Refusal> {
        match self {
            Wire::Bytes(bytes) => Ok(Fields(bytes)),
            other => wrong(other, "a message"),
        }
    }

    pub(super) fn text(self) -> Result<&'p str, Refusal> {
        match self {
            Wire::Bytes(bytes) => std::str::from_utf8(bytes)
                .map_err(|_| Refusal::message(Reason::NotUtf8, "malformed Protobuf: invalid UTF-8 in a text field")),
            other => wrong(other, "text"),
        }
    }

    /// A number of 64 bits, and those of 32, which are sent as such.
    #[expect(clippy::cast_possible_wrap, reason = "negative numbers are sent in two's complement")]
    pub(super) fn signed(self) -> Result<i64, Refusal> {
        match self {
            Wire::Varint(number) => Ok(number as i64),
            other => wrong(other, "an integer"),
        }
    }

    pub(super) fn double(self) -> Result<f64, Refusal> {
        match self {
            Wire::Fixed64(bits) => Ok(f64::from_bits(bits)),
            other => wrong(other, "a double"),
        }
    }

    pub(super) fn float(self) -> Result<f32, Refusal> {
        match self {
            Wire::Fixed32(bits) => Ok(f32::from_bits(bits)),
            other => wrong(other, "a float"),
        }
    }
}

fn wrong<T>(found: Wire<'_>, wanted: &str) -> Result<T, Refusal> {
    let found = match found {
        Wire::Varint(_) => "an integer",
        Wire::Fixed64(_) => "64 bits",
        Wire::Bytes(_) => "bytes",
        Wire::Fixed32(_) => "32 bits",
    };
    malformed(&format!("{found} in a field, {wanted} is wanted"))
}

/// What is left of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'p>(pub(super) &'p [u8]);

impl<'p> Fields<'p> {
    /// The next field: its number and its value.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Wire<'p>)>, Refusal> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.fixed()?)),
            2 => {
                let length = self.varint()?;
                Wire::Bytes(self.take(usize::try_from(length).unwrap_or(usize::MAX))?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.fixed()?)),
            other => return malformed(&format!("wire type {other} of a field")),
        };
        Ok(Some((key >> 3, value)))
    }

    fn take(&mut self, length: usize) -> Result<&'p [u8], Refusal> {
        let Some((taken, rest)) = self.0.split_at_checked(length) else {
            return malformed(&format!("it ends where {length} bytes are wanted, {} are left", self.0.len()));
        };
        self.0 = rest;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    /// Up to ten bytes of seven bits; those beyond 64 are dropped.
    fn varint(&mut self) -> Result<u64, Refusal> {
        let mut number = 0_u64;
        for shift in (0_u32..70).step_by(7) {
            let [byte] = self.fixed()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        malformed("an integer of more than ten bytes")
    }
}

pub(super) fn malformed<T>(detail: &str) -> Result<T, Refusal> {
    Err(Refusal::message(Reason::Malformed, format!("neither a JSON object nor a Protobuf event: {detail}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(bytes: &[u8]) -> Result<Vec<(u64, Wire<'_>)>, Refusal> {
        let (mut fields, mut found) = (Fields(bytes), Vec::new());
        while let Some(field) = fields.next()? {
            found.push(field);
        }
        Ok(found)
    }

    #[test]
    fn fields_are_read() {
        assert_eq!(fields(&[0x08, 0x96, 0x01]).unwrap(), [(1, Wire::Varint(150))]);
        assert_eq!(fields(b"\x12\x07testing").unwrap(), [(2, Wire::Bytes(b"testing"))]);
        let minus_two = [0x08, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(fields(&minus_two).unwrap()[0].1.signed().unwrap(), -2);
        assert_eq!(fields(&[0x0d, 0, 0, 0x28, 0x41]).unwrap()[0].1.float().unwrap(), 10.5);
        assert_eq!(fields(&[0x09, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f]).unwrap()[0].1.double().unwrap(), 1.5);
    }

    #[test]
    fn what_breaks_the_format_is_refused() {
        for bad in [
            &[0x08][..],
            &[0x0b],
            &[0x0a, 5, 0],
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
            &[0xff; 12],
            &[0x0d, 0],
            &[0x0f],
        ] {
            assert_eq!(fields(bad).unwrap_err().reason, Reason::Malformed, "{bad:?}");
        }
        assert_eq!(fields(&[0x0a, 1, 0xff]).unwrap()[0].1.text().unwrap_err().reason, Reason::NotUtf8);
        assert_eq!(Wire::Varint(1).message().unwrap_err().reason, Reason::Malformed);
    }
}
