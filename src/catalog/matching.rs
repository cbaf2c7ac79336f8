//! Which template a device is given by itself: by what it tells, by its name, by where it is heard, by its keys. Pure: the same
//! templates and the same facts give the same template.

use std::collections::BTreeMap;

/// `[match]` of a template: every criterion that is given must hold, and a list means any of its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Criteria {
    /// Names of decoders.
    pub decoder: Vec<String>,
    /// Names of configured sources.
    pub source: Vec<String>,
    /// MQTT topic filters.
    pub topic: Vec<String>,
    /// Globs (`*`, `?`) over the uid.
    pub device: Vec<String>,
    /// Globs over what the payload tells as its model, whatever the case.
    pub model: Vec<String>,
    /// The same of the manufacturer.
    pub manufacturer: Vec<String>,
    /// Raw keys and the values, as text, that they may have.
    pub fields: BTreeMap<String, Vec<String>>,
    /// Raw keys, or patterns of them, that are all in one message.
    pub keys: Vec<String>,
}
