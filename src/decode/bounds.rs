//! The limits on one message, held while it is read.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::document::Node;
use super::text_too_long;
use crate::config::Limits;
use crate::quarantine::{Reason, Refusal};

/// How deep a reader is, and how many values it has met.
pub(super) struct Bounds<'l> {
    limits: &'l Limits,
    depth: usize,
    values: usize,
}

impl<'l> Bounds<'l> {
    pub(super) fn new(limits: &'l Limits) -> Bounds<'l> {
        Bounds { limits, depth: 0, values: 0 }
    }

    /// Goes one level deeper.
    ///
    /// # Errors
    /// [`Refusal`] of the message: that is too deep.
    pub(super) fn enter(&mut self) -> Result<(), Refusal> {
        self.depth = self.depth.saturating_add(1);
        let most = self.limits.max_depth;
        if self.depth > most {
            return Err(Refusal::message(Reason::TooDeep, format!("nested too deep: limits.max_depth is {most}")));
        }
        Ok(())
    }

    pub(super) fn leave(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    /// Counts a value: anything that holds no others.
    ///
    /// # Errors
    /// [`Refusal`] of the message: there are too many.
    pub(super) fn count(&mut self) -> Result<(), Refusal> {
        self.values = self.values.saturating_add(1);
        let most = self.limits.max_keys;
        if self.values > most {
            return Err(Refusal::message(Reason::TooManyKeys, format!("too many keys: limits.max_keys is {most}")));
        }
        Ok(())
    }

    /// # Errors
    /// [`Refusal`] of the message: the text is too long.
    pub(super) fn text(&self, key: &str, text: &str) -> Result<(), Refusal> {
        if text.len() > self.limits.max_text_length {
            return Err(text_too_long(key, text.len(), self.limits));
        }
        Ok(())
    }
}

/// A float of a binary format: NaN is absence.
///
/// # Errors
/// [`Refusal`] of the message: it is infinite.
pub(super) fn float(number: f64) -> Result<Node, Refusal> {
    if number.is_nan() {
        Ok(Node::Null)
    } else if number.is_finite() {
        Ok(Node::Float(number))
    } else {
        Err(beyond("an infinite value"))
    }
}

/// Refusal of a number whose key is not known yet.
pub(super) fn beyond(what: &str) -> Refusal {
    Refusal::message(Reason::NumberOutOfRange, format!("number out of range of a 64-bit float: {what}"))
}

/// Bytes as RFC 8949, section 6.1, writes them in JSON.
pub(super) fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
