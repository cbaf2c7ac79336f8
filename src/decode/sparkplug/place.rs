//! Where a message stands in Sparkplug's topics: `spBv1.0/<group>/<type>/<edge node>[/<device>]` (Sparkplug 3.0.0, 4.1).

use crate::config::SparkplugDevice;
use crate::decode::topic;
use crate::quarantine::{Reason, Refusal};

/// Longest name of a group, an edge node or a device, bytes.
const MAX_NAME: usize = 255;

/// The kinds of message that tell something of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Birth,
    Data,
    Death,
}

/// Whose message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place<'t> {
    /// What stands before the group: `spBv1.0`, after whatever a bridge between brokers puts in front.
    pub(super) namespace: &'t str,
    pub(super) group: &'t str,
    pub(super) node: &'t str,
    /// None: the edge node itself.
    pub(super) device: Option<&'t str>,
}

impl<'t> Place<'t> {
    /// None: a command, or the state of a host application, which tell of no device.
    ///
    /// # Errors
    /// [`Refusal`] of the message: the topic is none of Sparkplug's.
    pub(super) fn of(whole: &'t str) -> Result<Option<(Kind, Place<'t>)>, Refusal> {
        let wrong = |what: &str| Err(Refusal::message(Reason::BadName, format!("the topic {what}")));
        let Some((before, namespace, rest)) = topic::around(whole, |level| level == "spBv1.0") else {
            return wrong("has no level spBv1.0, which Sparkplug B begins with");
        };
        let namespace = match before.len() {
            0 => namespace,
            before => whole.get(..before.saturating_add(1).saturating_add(namespace.len())).unwrap_or(namespace),
        };
        let mut levels = rest.split('/');
        let (group, kind) = (levels.next().unwrap_or_default(), levels.next().unwrap_or_default());
        if group == "STATE" {
            return Ok(None);
        }
        let (node, device) = (levels.next().unwrap_or_default(), levels.next());
        let (kind, of_device) = match kind {
            "NBIRTH" => (Kind::Birth, false),
            "NDATA" => (Kind::Data, false),
            "NDEATH" => (Kind::Death, false),
            "DBIRTH" => (Kind::Birth, true),
            "DDATA" => (Kind::Data, true),
            "DDEATH" => (Kind::Death, true),
            "NCMD" | "DCMD" => return Ok(None),
            other => return wrong(&format!("has the type {other:?}, none of Sparkplug B's")),
        };
        if of_device != device.is_some() || levels.next().is_some() {
            return wrong("is not spBv1.0/<group>/<type>/<edge node>, with /<device> for the types that begin with D");
        }
        for name in [group, node].into_iter().chain(device) {
            if name.is_empty() || name.len() > MAX_NAME || name.contains(char::is_control) {
                return wrong("has a name that is empty, longer than 255 bytes or has control characters");
            }
        }
        Ok(Some((kind, Place { namespace, group, node, device })))
    }

    /// What tidegate calls the device, or the edge node.
    pub(super) fn uid(self, named: SparkplugDevice) -> String {
        match (named, self.device) {
            (SparkplugDevice::Id, device) => device.unwrap_or(self.node).to_owned(),
            (SparkplugDevice::Path, None) => format!("{}/{}", self.group, self.node),
            (SparkplugDevice::Path, Some(device)) => format!("{}/{}/{device}", self.group, self.node),
        }
    }

    /// What tidegate calls the edge node that a device is behind.
    pub(super) fn parent(self, named: SparkplugDevice) -> Option<String> {
        self.device.map(|_| Place { device: None, ..self }.uid(named))
    }

    /// Where a topic of the message type leads to.
    pub(super) fn topic(self, of_node: &str, of_device: &str) -> String {
        let kind = if self.device.is_some() { of_device } else { of_node };
        let (slash, device) = self.device.map_or(("", ""), |device| ("/", device));
        format!("{}/{}/{kind}/{}{slash}{device}", self.namespace, self.group, self.node)
    }

    /// A place by its key of the memory.
    pub(super) fn of_key(what: &str, key: &'t str) -> Option<Place<'t>> {
        let whole = key.strip_prefix(what)?.strip_prefix(' ')?;
        let (before, namespace, rest) = topic::around(whole, |level| level == "spBv1.0")?;
        let namespace = match before.len() {
            0 => namespace,
            before => whole.get(..before.saturating_add(1).saturating_add(namespace.len()))?,
        };
        let mut levels = rest.split('/');
        let place = Place { namespace, group: levels.next()?, node: levels.next()?, device: levels.next() };
        levels.next().is_none().then_some(place)
    }

    /// A key of the memory. No name has a `/`.
    pub(super) fn key(self, what: &str, device: Option<&str>) -> String {
        let (slash, device) = device.map_or(("", ""), |device| ("/", device));
        format!("{what} {}/{}/{}{slash}{device}", self.namespace, self.group, self.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read() {
        let place = |namespace, device| Place { namespace, group: "G", node: "N", device };
        assert_eq!(Place::of("spBv1.0/G/NBIRTH/N"), Ok(Some((Kind::Birth, place("spBv1.0", None)))));
        assert_eq!(Place::of("spBv1.0/G/DDATA/N/D"), Ok(Some((Kind::Data, place("spBv1.0", Some("D"))))));
        assert_eq!(Place::of("site/a/spBv1.0/G/NDEATH/N"), Ok(Some((Kind::Death, place("site/a/spBv1.0", None)))));
        assert_eq!(place("x/spBv1.0", None).key("births", Some("D")), "births x/spBv1.0/G/N/D");
        for place in [place("spBv1.0", None), place("x/y/spBv1.0", Some("D"))] {
            assert_eq!(Place::of_key("births", &place.key("births", place.device)), Some(place));
        }
        assert_eq!(
            Place::of_key("births", "births spBv1.0/G/N/D/E").or(Place::of_key("births", "seq spBv1.0/G/N")),
            None
        );
        assert_eq!(place("x/spBv1.0", Some("D")).topic("NCMD", "DCMD"), "x/spBv1.0/G/DCMD/N/D");
        let uid = |device, named| place("spBv1.0", device).uid(named);
        assert_eq!((uid(None, SparkplugDevice::Id), uid(Some("D"), SparkplugDevice::Id)), ("N".into(), "D".into()));
        assert_eq!(
            (uid(None, SparkplugDevice::Path), uid(Some("D"), SparkplugDevice::Path)),
            ("G/N".into(), "G/N/D".into())
        );
        for quiet in ["spBv1.0/STATE/scada", "spBv1.0/G/NCMD/N", "spBv1.0/G/DCMD/N/D"] {
            assert_eq!(Place::of(quiet), Ok(None));
        }
        for wrong in [
            "",
            "spAv1.0/G/NDATA/N",
            "spBv1.0/G",
            "spBv1.0/G/NDATA/N/D",
            "spBv1.0/G/DDATA/N",
            "spBv1.0/G/DDATA/N/D/E",
            "spBv1.0/G/XDATA/N",
            "spBv1.0//NDATA/N",
            "spBv1.0/G/DDATA/N/",
            "spBv1.0/G/NDATA/\u{7}",
        ] {
            assert_eq!(Place::of(wrong).unwrap_err().reason, Reason::BadName, "{wrong}");
        }
        assert!(Place::of(&format!("spBv1.0/G/NDATA/{}", "n".repeat(256))).is_err());
    }
}
