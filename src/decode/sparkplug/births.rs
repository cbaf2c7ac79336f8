//! What births told of the metrics of an edge node or a device: a table in bytes, looked up where it lies. Births are rare and
//! data are many, so a table of thousands of metrics is never read whole for a message.
//!
//! ```text
//! i64  when it was told, u32 metrics, u32 aliases          all numbers little-endian
//! (u64 alias, u32 metric) × aliases          sorted by alias
//! u32  where the metric begins × metrics     sorted by name
//! (u8 data type, u8 length of the unit, u16 length of the name, unit, name) × metrics
//! ```

use super::datatype::DataType;
use crate::decode::document::duplicate;
use crate::quarantine::{Reason, Refusal};
use crate::time::UtcMicros;

const HEAD: usize = 16;
/// Where the counts of metrics and of aliases are.
const METRICS: usize = 8;
const ALIASES: usize = 12;
const ALIAS: usize = 12;

/// A metric as its birth told it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Born<'b> {
    pub(super) name: &'b str,
    pub(super) datatype: DataType,
    /// Empty: it told none.
    pub(super) unit: &'b str,
}

/// Writes the table of a birth received at `told_at`. A unit longer than 255 bytes is no unit.
///
/// # Errors
/// [`Refusal`] of the message: two metrics have one name or one alias.
pub(super) fn table(told_at: UtcMicros, mut metrics: Vec<(Option<u64>, Born<'_>)>) -> Result<Vec<u8>, Refusal> {
    metrics.sort_by_key(|(_, born)| born.name);
    let twice = |pair: &&[(_, Born<'_>)]| matches!(pair, [(_, one), (_, other)] if one.name == other.name);
    if let Some([(_, twice), ..]) = metrics.windows(2).find(twice) {
        return Err(duplicate(twice.name));
    }
    let mut aliases: Vec<(u64, usize)> =
        metrics.iter().enumerate().filter_map(|(index, (alias, _))| alias.map(|alias| (alias, index))).collect();
    aliases.sort_unstable();
    let twice = |pair: &&[(u64, usize)]| matches!(pair, [(one, _), (other, _)] if one == other);
    if let Some([(twice, _), ..]) = aliases.windows(2).find(twice) {
        return Err(Refusal::message(Reason::DuplicateKey, format!("duplicate alias {twice}")));
    }
    let mut out = told_at.0.to_le_bytes().to_vec();
    out.extend(short(metrics.len()));
    out.extend(short(aliases.len()));
    for (alias, index) in aliases {
        out.extend(alias.to_le_bytes());
        out.extend(short(index));
    }
    let (mut places, mut entries) = (Vec::new(), Vec::new());
    for (_, born) in metrics {
        let unit = Some(born.unit).filter(|unit| unit.len() <= usize::from(u8::MAX)).unwrap_or_default();
        places.extend(short(entries.len()));
        entries.extend([born.datatype.0, u8::try_from(unit.len()).unwrap_or_default()]);
        entries.extend(u16::try_from(born.name.len()).unwrap_or_default().to_le_bytes());
        entries.extend(unit.as_bytes());
        entries.extend(born.name.as_bytes());
    }
    out.extend(places);
    out.extend(entries);
    Ok(out)
}

/// Bytes of a payload, and so all counts in it, fit 32 bits: MQTT has no longer ones.
fn short(number: usize) -> [u8; 4] {
    u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes()
}

/// A table as it lies in the memory. One that is broken knows nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Births<'m>(pub(super) &'m [u8]);

impl<'m> Births<'m> {
    /// Whether they hold for a message received at `at`. A later birth's do not: when the journal is read once more, what
    /// is known first is what was told last, and an alias may have meant another metric before.
    pub(super) fn hold_at(self, at: UtcMicros) -> bool {
        self.told_at().is_some_and(|told_at| told_at <= at)
    }

    pub(super) fn by_alias(self, alias: u64) -> Option<Born<'m>> {
        let aliases = self.at(HEAD, self.count(ALIASES)?.checked_mul(ALIAS)?)?;
        let (aliases, _) = aliases.as_chunks::<ALIAS>();
        let key = |entry: &[u8; ALIAS]| entry.first_chunk().map_or(0, |raw| u64::from_le_bytes(*raw));
        let found = aliases.get(aliases.binary_search_by_key(&alias, key).ok()?)?;
        self.metric(usize::try_from(u32::from_le_bytes(*found.last_chunk()?)).ok()?)
    }

    /// When the birth was received.
    pub(super) fn told_at(self) -> Option<UtcMicros> {
        self.0.first_chunk().map(|raw| UtcMicros(i64::from_le_bytes(*raw)))
    }

    pub(super) fn by_name(self, name: &str) -> Option<Born<'m>> {
        self.find(name).map(|(_, born)| born)
    }

    /// The alias of a metric, as far as it has one.
    pub(super) fn alias_of(self, name: &str) -> Option<u64> {
        let (metric, _) = self.find(name)?;
        let aliases = self.at(HEAD, self.count(ALIASES)?.checked_mul(ALIAS)?)?;
        let (aliases, _) = aliases.as_chunks::<ALIAS>();
        let is_its = |entry: &&[u8; ALIAS]| {
            let index = entry.last_chunk().map(|raw| u32::from_le_bytes(*raw));
            index.and_then(|index| usize::try_from(index).ok()) == Some(metric)
        };
        Some(u64::from_le_bytes(*aliases.iter().find(is_its)?.first_chunk()?))
    }

    /// All metrics, by name.
    pub(super) fn iter(self) -> impl Iterator<Item = Born<'m>> {
        (0..self.count(METRICS).unwrap_or(0)).map_while(move |index| self.metric(index))
    }

    fn find(self, name: &str) -> Option<(usize, Born<'m>)> {
        let (mut low, mut high) = (0, self.count(METRICS)?);
        while low < high {
            let middle = low.midpoint(high);
            let born = self.metric(middle)?;
            match born.name.cmp(name) {
                std::cmp::Ordering::Less => low = middle.checked_add(1)?,
                std::cmp::Ordering::Equal => return Some((middle, born)),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    fn metric(self, index: usize) -> Option<Born<'m>> {
        let places = self.count(ALIASES)?.checked_mul(ALIAS)?.checked_add(HEAD)?;
        let entries = self.count(METRICS)?.checked_mul(4)?.checked_add(places)?;
        let place = self.count(index.checked_mul(4)?.checked_add(places)?)?.checked_add(entries)?;
        let [datatype, unit, name @ ..]: [u8; 4] = *self.0.get(place..)?.first_chunk()?;
        let start = place.checked_add(4)?;
        let (unit, name) = (usize::from(unit), usize::from(u16::from_le_bytes(name)));
        let text = |start, length| std::str::from_utf8(self.at(start, length)?).ok();
        Some(Born {
            name: text(start.checked_add(unit)?, name)?,
            datatype: DataType(datatype),
            unit: text(start, unit)?,
        })
    }

    fn count(self, at: usize) -> Option<usize> {
        usize::try_from(u32::from_le_bytes(*self.0.get(at..)?.first_chunk()?)).ok()
    }

    fn at(self, start: usize, length: usize) -> Option<&'m [u8]> {
        self.0.get(start..start.checked_add(length)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn born<'b>(name: &'b str, datatype: u8, unit: &'b str) -> Born<'b> {
        Born { name, datatype: DataType(datatype), unit }
    }

    #[test]
    fn metrics_are_found_by_alias_and_by_name() {
        let metrics = vec![
            (Some(7), born("Motor/Speed", 3, "rpm")),
            (None, born("A", 11, "")),
            (Some(0), born("Motor/State", 12, "")),
            (Some(u64::MAX), born("é", 10, "°C")),
        ];
        let bytes = table(UtcMicros(0), metrics.clone()).unwrap();
        for (alias, metric) in &metrics {
            assert_eq!(Births(&bytes).by_name(metric.name), Some(*metric));
            assert_eq!(alias.and_then(|alias| Births(&bytes).by_alias(alias)), alias.map(|_| *metric));
            assert_eq!(Births(&bytes).alias_of(metric.name), *alias);
        }
        assert_eq!(Births(&bytes).by_alias(1), None);
        assert_eq!((Births(&bytes).by_name(""), Births(&bytes).by_name("Z")), (None, None));
        let empty = table(UtcMicros(0), Vec::new()).unwrap();
        assert_eq!((Births(&empty).by_alias(0), Births(&empty).by_name("")), (None, None));
        let long = "u".repeat(256);
        let bytes = table(UtcMicros(0), vec![(None, born("a", 1, &long))]).unwrap();
        assert_eq!(Births(&bytes).by_name("a"), Some(born("a", 1, "")));
    }

    #[test]
    fn what_is_ambiguous_is_refused() {
        let refused = |metrics| table(UtcMicros(0), metrics).unwrap_err().detail;
        assert_eq!(refused(vec![(None, born("a", 1, "")), (Some(1), born("a", 2, ""))]), "duplicate key a");
        assert_eq!(refused(vec![(Some(1), born("a", 1, "")), (Some(1), born("b", 2, ""))]), "duplicate alias 1");
    }

    proptest! {
        #[test]
        fn bytes_that_are_no_table_know_nothing_that_breaks(
            bytes in prop::collection::vec(prop_oneof![0..4_u8, any::<u8>()], 0..80),
            alias in 0..4_u64,
        ) {
            let _ = Births(&bytes).by_alias(alias);
            let _ = (Births(&bytes).by_name("a"), Births(&bytes).hold_at(UtcMicros(0)));
            let _ = (Births(&bytes).alias_of("a"), Births(&bytes).iter().count());
        }

        #[test]
        fn every_metric_is_found(names in prop::collection::btree_map("[a-z/]{0,6}", any::<u16>(), 0..40)) {
            let metrics = |(at, (name, alias)): (usize, (&'static str, u16))| {
                (alias.is_multiple_of(2).then_some(at as u64 * 3), born(name, 10, "m"))
            };
            let leaked: Vec<(&'static str, u16)> =
                names.iter().map(|(name, alias)| (&*name.clone().leak(), *alias)).collect();
            let metrics: Vec<_> = leaked.into_iter().enumerate().map(metrics).collect();
            let bytes = table(UtcMicros(0), metrics.clone()).unwrap();
            for (alias, metric) in metrics {
                prop_assert_eq!(Births(&bytes).by_name(metric.name), Some(metric));
                if let Some(alias) = alias {
                    prop_assert_eq!(Births(&bytes).by_alias(alias), Some(metric));
                }
            }
        }
    }
}
