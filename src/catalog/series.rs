//! Whether a sensor's series goes on when its device gets another template, or the template another version. Pure.
//!
//! A series never changes its unit or its kind, and never mixes raw values with scaled ones: where it can't go on, it is set aside
//! under a name of its own, with its history and its unit, and a new one begins.

use super::{Kind, Metric};

/// A series as it is, or as it is wanted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Series<'a> {
    /// Display unit; empty: none is known.
    pub unit: &'a str,
    pub kind: Kind,
    /// Whether a template's metric is behind it.
    pub modeled: bool,
    /// Whether raw values go into it as they are. Of one that is there, nobody knows any more.
    pub plain: bool,
}

/// What becomes of a series that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onward {
    /// It goes on as it is.
    Same,
    /// It goes on, with the unit that is wanted, and is modeled if that is wanted.
    Takes,
    /// It is set aside, and another begins.
    Aside,
}

impl<'a> Series<'a> {
    /// The series that a metric wants for its sensor of this name, which is without its module. What came raw under that name came
    /// by that key.
    pub fn of_metric(metric: &'a Metric, sensor: &str) -> Series<'a> {
        Series { unit: &metric.unit, kind: metric.kind, modeled: true, plain: metric.takes_as_is(sensor) }
    }

    /// That of values under a raw key, in a unit that the payload declares, if it does.
    pub fn raw(unit: &'a str, kind: Kind) -> Series<'a> {
        Series { unit, kind, modeled: false, plain: true }
    }

    /// What becomes of this series where `wanted` has its name.
    pub fn onward(&self, wanted: &Series<'_>) -> Onward {
        let is_raw = !self.modeled && self.unit.is_empty();
        if !wanted.modeled && !self.modeled {
            // Whatever comes under a raw key is one series; a unit may become known.
            return match (self.unit, wanted.unit) {
                (old, new) if old == new || new.is_empty() => Onward::Same,
                ("", _) => Onward::Takes,
                _ => Onward::Aside,
            };
        }
        // A raw key's kind is only what its values happen to be.
        if wanted.modeled && self.kind != wanted.kind {
            return Onward::Aside;
        }
        let goes_on = match (self.unit == wanted.unit, self.unit.is_empty()) {
            (true, _) if !is_raw => true,
            // Without a unit, only values that went in as they do from now on are the same quantity.
            (true, _) | (false, true) => wanted.plain,
            (false, false) => false,
        };
        match goes_on {
            false => Onward::Aside,
            // What a template stood behind once stays so.
            true if self.unit == wanted.unit && (self.modeled || !wanted.modeled) => Onward::Same,
            true => Onward::Takes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modeled(unit: &str) -> Series<'_> {
        Series { unit, kind: Kind::Number, modeled: true, plain: true }
    }

    fn raw(unit: &str) -> Series<'_> {
        Series { modeled: false, ..modeled(unit) }
    }

    #[test]
    fn a_series_goes_on_with_its_unit_and_kind_and_else_is_set_aside() {
        let scaled = |series| Series { plain: false, ..series };
        for (old, wanted, onward) in [
            (modeled("°C"), modeled("°C"), Onward::Same),
            (modeled("°C"), scaled(modeled("°C")), Onward::Same),
            (modeled("°C"), modeled("°F"), Onward::Aside),
            (modeled("°C"), Series { kind: Kind::Text, ..modeled("°C") }, Onward::Aside),
            (modeled("°C"), modeled(""), Onward::Aside),
            (modeled(""), modeled("°C"), Onward::Takes),
            (modeled(""), scaled(modeled("°C")), Onward::Aside),
            (raw(""), modeled("°C"), Onward::Takes),
            (raw(""), scaled(modeled("°C")), Onward::Aside),
            (raw(""), modeled(""), Onward::Takes),
            (raw(""), scaled(modeled("")), Onward::Aside),
            (raw(""), Series { kind: Kind::Bool, ..modeled("") }, Onward::Aside),
            (raw("°F"), modeled("°C"), Onward::Aside),
            (raw("°C"), scaled(modeled("°C")), Onward::Takes),
            (modeled("°C"), raw(""), Onward::Aside),
            (modeled("°C"), raw("°C"), Onward::Same),
            (raw(""), Series { kind: Kind::Text, ..raw("") }, Onward::Same),
            (raw(""), raw("°C"), Onward::Takes),
            (raw("°C"), raw(""), Onward::Same),
            (raw("°C"), raw("°F"), Onward::Aside),
        ] {
            assert_eq!(old.onward(&wanted), onward, "{old:?} {wanted:?}");
        }
    }
}
