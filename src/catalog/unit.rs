//! The units that a metric may have: how they are shown, their code in UCUM (<https://ucum.org/ucum>, case sensitive
//! codes), the quantity they measure, and how they are converted (NIST Special Publication 811, appendix B).
//!
//! The coulomb and the farad are left out: a bare "C" or "F" is meant as a temperature nearly always.

use crate::config::fault::nearest;

/// A unit of measure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unit {
    /// As it stands in templates and in the `readings` view.
    pub display: &'static str,
    /// Its code in UCUM, case sensitive.
    pub ucum: &'static str,
    /// What it measures.
    pub quantity: &'static str,
    /// Leads to the unit that all of its quantity are led to; none where that would say another thing, as of dB and dBm.
    base: Option<Conversion>,
}

macro_rules! units {
    ($($quantity:literal { $($display:literal = $ucum:literal $(($factor:expr $(, $offset:expr)?))?),+ $(,)? })+) => {
        /// Every unit, by quantity.
        pub const UNITS: &[Unit] = &[$($(Unit {
            display: $display,
            ucum: $ucum,
            quantity: $quantity,
            base: units!(@base $($factor $(, $offset)?)?),
        }),+),+];
    };
    (@base) => { None };
    (@base $factor:expr) => { Some(Conversion { scale: $factor, offset: 0.0 }) };
    (@base $factor:expr, $offset:expr) => { Some(Conversion { scale: $factor, offset: $offset }) };
}

/// Standard acceleration of free fall, m/s² (NIST SP 811, B.8).
const FREE_FALL: f64 = 9.806_65;
/// Radians in a degree.
const DEGREE: f64 = std::f64::consts::PI / 180.0;

// In parentheses: factor to the quantity's base unit, and what is added then. The factors are exact by definition, or those of
// NIST SP 811 (2008), B.8, which gives seven digits: inHg and mmHg (conventional), psi, hp (550 ft·lbf/s), gal (US).
units! {
    "temperature" { "°C" = "Cel" (1.0), "°F" = "[degF]" (5.0 / 9.0, -160.0 / 9.0), "K" = "K" (1.0, -273.15) }
    "ratio" { "%" = "%" (1e-2), "‰" = "[ppth]" (1e-3), "ppm" = "[ppm]" (1e-6), "ppb" = "[ppb]" (1e-9) }
    "power" { "W" = "W" (1.0), "mW" = "mW" (1e-3), "kW" = "kW" (1e3), "MW" = "MW" (1e6), "hp" = "[HP]" (745.6999) }
    "apparent power" { "VA" = "V.A" (1.0), "kVA" = "kV.A" (1e3) }
    "reactive power" { "var" = "V.A{reactive}" (1.0), "kvar" = "kV.A{reactive}" (1e3) }
    "energy" { "J" = "J" (1.0), "kJ" = "kJ" (1e3), "MJ" = "MJ" (1e6), "Wh" = "W.h" (3600.0), "kWh" = "kW.h" (3.6e6),
        "MWh" = "MW.h" (3.6e9), "Wmin" = "W.min" (60.0) }
    "apparent energy" { "kVAh" = "kV.A.h" (1.0) }
    "reactive energy" { "varh" = "V.A.h{reactive}" (1.0), "kvarh" = "kV.A.h{reactive}" (1e3) }
    "electric potential" { "V" = "V" (1.0), "mV" = "mV" (1e-3), "µV" = "uV" (1e-6), "kV" = "kV" (1e3) }
    "electric current" { "A" = "A" (1.0), "mA" = "mA" (1e-3), "µA" = "uA" (1e-6) }
    "electric charge" { "Ah" = "A.h" (1.0), "mAh" = "mA.h" (1e-3) }
    "electric resistance" { "Ω" = "Ohm" (1.0), "kΩ" = "kOhm" (1e3), "MΩ" = "MOhm" (1e6) }
    "electric conductance" { "S" = "S" (1.0), "mS" = "mS" (1e-3), "µS" = "uS" (1e-6) }
    "conductivity" { "S/m" = "S/m" (1.0), "mS/cm" = "mS/cm" (1e-1), "µS/cm" = "uS/cm" (1e-4) }
    "capacitance" { "µF" = "uF" (1e-6), "nF" = "nF" (1e-9), "pF" = "pF" (1e-12) }
    "magnetic flux density" { "T" = "T" (1.0), "mT" = "mT" (1e-3), "µT" = "uT" (1e-6), "G" = "G" (1e-4) }
    "frequency" { "Hz" = "Hz" (1.0), "kHz" = "kHz" (1e3), "MHz" = "MHz" (1e6), "GHz" = "GHz" (1e9),
        "rpm" = "{rotation}/min" (1.0 / 60.0), "1/min" = "/min" (1.0 / 60.0) }
    "pressure" { "Pa" = "Pa" (1.0), "hPa" = "hPa" (1e2), "kPa" = "kPa" (1e3), "MPa" = "MPa" (1e6), "mbar" = "mbar" (1e2),
        "bar" = "bar" (1e5), "psi" = "[psi]" (6894.757), "mmHg" = "mm[Hg]" (133.3224), "inHg" = "[in_i'Hg]" (3386.389),
        "atm" = "atm" (101_325.0) }
    "length" { "µm" = "um" (1e-6), "mm" = "mm" (1e-3), "cm" = "cm" (1e-2), "m" = "m" (1.0), "km" = "km" (1e3),
        "in" = "[in_i]" (0.0254), "ft" = "[ft_i]" (0.3048), "mi" = "[mi_i]" (1609.344) }
    "area" { "cm²" = "cm2" (1e-4), "m²" = "m2" (1.0), "ha" = "har" (1e4), "km²" = "km2" (1e6) }
    "volume" { "mL" = "mL" (1e-3), "L" = "L" (1.0), "m³" = "m3" (1e3), "ft³" = "[cft_i]" (28.316_846_592),
        "gal" = "[gal_us]" (3.785_411_784) }
    "volume flow" { "L/s" = "L/s" (3600.0), "L/min" = "L/min" (60.0), "L/h" = "L/h" (1.0), "m³/s" = "m3/s" (3.6e6),
        "m³/h" = "m3/h" (1e3), "gal/min" = "[gal_us]/min" (227.124_707_04) }
    "mass" { "mg" = "mg" (1e-6), "g" = "g" (1e-3), "kg" = "kg" (1.0), "t" = "t" (1e3), "lb" = "[lb_av]" (0.453_592_37) }
    "mass concentration" { "µg/m³" = "ug/m3" (1e-6), "mg/m³" = "mg/m3" (1e-3), "g/m³" = "g/m3" (1.0), "mg/L" = "mg/L" (1.0) }
    "number concentration" { "1/cm³" = "/cm3" (1.0) }
    "density" { "kg/m³" = "kg/m3" (1.0) }
    "time" { "ns" = "ns" (1e-9), "µs" = "us" (1e-6), "ms" = "ms" (1e-3), "s" = "s" (1.0), "min" = "min" (60.0),
        "h" = "h" (3600.0), "d" = "d" (86_400.0) }
    "speed" { "m/s" = "m/s" (1.0), "km/h" = "km/h" (1.0 / 3.6), "mph" = "[mi_i]/h" (0.447_04),
        "kn" = "[kn_i]" (1852.0 / 3600.0) }
    "acceleration" { "m/s²" = "m/s2" (1.0), "mg₀" = "m[g]" (FREE_FALL * 1e-3), "g₀" = "[g]" (FREE_FALL) }
    "rotation" { "°/s" = "deg/s" (DEGREE), "rad/s" = "rad/s" (1.0) }
    "plane angle" { "°" = "deg" (DEGREE), "rad" = "rad" (1.0) }
    "force" { "N" = "N" (1.0), "kN" = "kN" (1e3) }
    "torque" { "Nm" = "N.m" (1.0) }
    "illuminance" { "lx" = "lx" (1.0), "klx" = "klx" (1e3) }
    "luminous intensity" { "cd" = "cd" (1.0) }
    "luminous flux" { "lm" = "lm" (1.0) }
    "irradiance" { "W/m²" = "W/m2" (1.0), "µW/cm²" = "uW/cm2" (1e-2) }
    "photon flux" { "µmol/(m²·s)" = "umol/(m2.s)" (1.0) }
    "precipitation" { "mm/h" = "mm/h" (1.0), "in/h" = "[in_i]/h" (25.4) }
    "signal level" { "dB" = "dB", "dBm" = "dB{mW}", "dBA" = "dB{A}" }
    "acidity" { "pH" = "[pH]" }
    "turbidity" { "NTU" = "{NTU}" }
    "radiation dose rate" { "µSv/h" = "uSv/h" (1e-6), "nSv/h" = "nSv/h" (1e-9) }
    "activity" { "Bq" = "Bq", "Bq/m³" = "Bq/m3" }
    "data" { "bit" = "bit" (1.0), "B" = "By" (8.0), "kB" = "kBy" (8e3), "MB" = "MBy" (8e6), "GB" = "GBy" (8e9),
        "KiB" = "KiBy" (8192.0), "MiB" = "MiBy" (8_388_608.0), "GiB" = "GiBy" (8_589_934_592.0) }
    "data rate" { "bit/s" = "bit/s" (1.0), "kbit/s" = "kbit/s" (1e3), "Mbit/s" = "Mbit/s" (1e6), "B/s" = "By/s" (8.0) }
}

/// What people write for a unit that is shown otherwise.
const OTHER_SPELLINGS: &[(&str, &str)] = &[
    ("c", "°C"),
    ("degc", "°C"),
    ("°c", "°C"),
    ("ºc", "°C"),
    ("℃", "°C"),
    ("celsius", "°C"),
    ("f", "°F"),
    ("degf", "°F"),
    ("ºf", "°F"),
    ("℉", "°F"),
    ("fahrenheit", "°F"),
    ("kelvin", "K"),
    ("percent", "%"),
    ("pct", "%"),
    ("%rh", "%"),
    ("rh", "%"),
    ("%el", "%"),
    ("watt", "W"),
    ("watts", "W"),
    ("kilowatt", "kW"),
    ("kw/h", "kWh"),
    ("volt", "V"),
    ("volts", "V"),
    ("amp", "A"),
    ("amps", "A"),
    ("ampere", "A"),
    ("hertz", "Hz"),
    ("ohm", "Ω"),
    ("ohms", "Ω"),
    ("lux", "lx"),
    ("deg", "°"),
    ("degree", "°"),
    ("degrees", "°"),
    ("lon", "°"),
    ("lat", "°"),
    ("l", "L"),
    ("liter", "L"),
    ("litre", "L"),
    ("m3", "m³"),
    ("m^3", "m³"),
    ("m2", "m²"),
    ("m^2", "m²"),
    ("m3/h", "m³/h"),
    ("m^3/h", "m³/h"),
    ("w/m2", "W/m²"),
    ("w/m^2", "W/m²"),
    ("ug/m3", "µg/m³"),
    ("µg/m3", "µg/m³"),
    ("ug/m^3", "µg/m³"),
    ("us/cm", "µS/cm"),
    ("ms2", "m/s²"),
    ("m/s2", "m/s²"),
    ("m/s^2", "m/s²"),
    ("kph", "km/h"),
    ("kmh", "km/h"),
    ("sec", "s"),
    ("second", "s"),
    ("seconds", "s"),
    ("minute", "min"),
    ("minutes", "min"),
    ("hour", "h"),
    ("hours", "h"),
    ("day", "d"),
    ("days", "d"),
    ("byte", "B"),
    ("bytes", "B"),
];

/// The unit shown so.
pub fn find(display: &str) -> Option<&'static Unit> {
    UNITS.iter().find(|unit| unit.display == display)
}

/// What leads from a value in one unit to that in another: value × scale + offset. None where they measure different things,
/// or are not told apart by a factor.
pub fn convert(from: &str, to: &str) -> Option<Conversion> {
    let (from, to) = (find(from)?, find(to)?);
    from.to(to)
}

/// value × scale + offset.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conversion {
    pub scale: f64,
    pub offset: f64,
}

impl Conversion {
    /// Leaves values as they are.
    pub const NONE: Conversion = Conversion { scale: 1.0, offset: 0.0 };

    pub fn apply(self, value: f64) -> f64 {
        value * self.scale + self.offset
    }

    /// This one, and another on what it gives.
    #[must_use]
    pub fn then(self, next: Conversion) -> Conversion {
        Conversion { scale: self.scale * next.scale, offset: self.offset * next.scale + next.offset }
    }
}

impl Unit {
    /// What leads from values in this unit to values in the other; as [`convert`].
    pub fn to(&self, other: &Unit) -> Option<Conversion> {
        if self.display == other.display {
            return Some(Conversion::NONE);
        }
        let (from, to) = self.base.zip(other.base).filter(|_| self.quantity == other.quantity)?;
        Some(Conversion { scale: from.scale / to.scale, offset: (from.offset - to.offset) / to.scale })
    }

    /// The units that its values can be given in, itself among them.
    pub fn fellows(&self) -> impl Iterator<Item = &'static Unit> + use<'_> {
        UNITS.iter().filter(|other| self.to(other).is_some())
    }
}

/// The unit that a payload declares: as shown, by its code, or a known spelling. Nothing is guessed.
pub fn declared(text: &str) -> Option<&'static Unit> {
    find(text).or_else(|| {
        let text = one_writing(text);
        find(&text).or_else(|| UNITS.iter().find(|unit| unit.ucum == text)).or_else(|| spelt(&text.to_lowercase()))
    })
}

fn spelt(lower: &str) -> Option<&'static Unit> {
    OTHER_SPELLINGS.iter().find(|(other, _)| *other == lower).and_then(|(_, display)| find(display)).or_else(|| {
        let mut alike = UNITS.iter().filter(|unit| unit.display.to_lowercase() == lower);
        // Of mW and MW neither; nor MWh where mwh is written, which is a thousand millionth of it.
        alike.next().filter(|unit| alike.next().is_none() && !unit.display.starts_with('M'))
    })
}

/// MICRO SIGN and GREEK SMALL LETTER MU, OHM SIGN and GREEK CAPITAL OMEGA look the same.
fn one_writing(text: &str) -> String {
    text.trim().replace('\u{3bc}', "\u{b5}").replace('\u{2126}', "Ω")
}

/// The unit that was probably meant by something that is none.
pub fn meant(text: &str) -> Option<&'static Unit> {
    let text = one_writing(text);
    let lower = text.to_lowercase();
    let spelling = OTHER_SPELLINGS.iter().find(|(other, _)| *other == lower).map(|(_, display)| *display);
    let by_code = || UNITS.iter().find(|unit| unit.ucum == text).map(|unit| unit.display);
    let by_case = || UNITS.iter().find(|unit| unit.display.to_lowercase() == lower).map(|unit| unit.display);
    let exact = find(&text).map(|unit| unit.display);
    let near = || if text.chars().count() < 3 { None } else { nearest(&text, UNITS.iter().map(|unit| unit.display)) };
    find(exact.or_else(by_code).or(spelling).or_else(by_case).or_else(near)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn no_unit_is_listed_twice_and_every_spelling_leads_to_one() {
        let displays: HashSet<&str> = UNITS.iter().map(|unit| unit.display).collect();
        assert_eq!(displays.len(), UNITS.len());
        let codes: HashSet<&str> = UNITS.iter().map(|unit| unit.ucum).collect();
        assert_eq!(codes.len(), UNITS.len());
        for (other, display) in OTHER_SPELLINGS {
            assert!(find(display).is_some(), "{other} → {display}");
            assert_eq!(*other, other.to_lowercase());
        }
    }

    #[test]
    fn what_people_write_leads_to_the_unit_meant() {
        for (text, display) in [
            ("Celsius", "°C"),
            ("Cel", "°C"),
            ("degC", "°C"),
            ("KWH", "kWh"),
            ("kW.h", "kWh"),
            ("percent", "%"),
            ("ug/m3", "µg/m³"),
            ("\u{3bc}g/m³", "µg/m³"),
            ("hpa", "hPa"),
            ("bars", "bar"),
        ] {
            assert_eq!(meant(text).map(|unit| unit.display), Some(display), "{text}");
        }
        assert_eq!(meant("furlong"), None);
    }

    #[test]
    fn known_values_are_converted() {
        for (value, from, to, expected) in [
            (32.0, "°F", "°C", 0.0),
            (212.0, "°F", "°C", 100.0),
            (-40.0, "°F", "°C", -40.0),
            (0.0, "K", "°C", -273.15),
            (300.0, "K", "°F", 80.33),
            (1.0, "inHg", "hPa", 33.863_89),
            (1.0, "kWh", "MJ", 3.6),
            (60.0, "Wmin", "Wh", 1.0),
            (1.0, "atm", "hPa", 1013.25),
            (1.0, "psi", "kPa", 6.894_757),
            (36.0, "km/h", "m/s", 10.0),
            (1.0, "kn", "km/h", 1.852),
            (1.0, "gal/min", "L/min", 3.785_411_784),
            (60.0, "rpm", "Hz", 1.0),
            (1.0, "MiB", "KiB", 1024.0),
            (180.0, "°", "rad", std::f64::consts::PI),
            (1.0, "mS/cm", "µS/cm", 1000.0),
            (5.0, "dBm", "dBm", 5.0),
        ] {
            let found = convert(from, to).unwrap().apply(value);
            assert!((found - expected).abs() <= 1e-9 * expected.abs().max(1.0), "{value} {from} = {found} {to}");
        }
        for (from, to) in [("dB", "dBm"), ("W", "Wh"), ("Bq", "Bq/m³"), ("VA", "W"), ("furlong", "m")] {
            assert_eq!(convert(from, to), None, "{from} {to}");
        }
    }

    #[test]
    fn what_a_payload_declares_is_taken_as_written() {
        for (text, display) in [
            ("°C", "°C"),
            ("C", "°C"),
            ("degF", "°F"),
            ("KWH", "kWh"),
            ("kW.h", "kWh"),
            ("\u{3bc}g/m³", "µg/m³"),
            ("lux", "lx"),
        ] {
            assert_eq!(declared(text).map(|unit| unit.display), Some(display), "{text}");
        }
        for text in ["mw", "mwh", "hPb", "lqi", ""] {
            assert_eq!(declared(text), None, "{text}");
        }
    }

    fn pair() -> impl Strategy<Value = (&'static Unit, &'static Unit)> {
        let all: Vec<_> = UNITS.iter().flat_map(|unit| unit.fellows().map(move |fellow| (unit, fellow))).collect();
        proptest::sample::select(all)
    }

    proptest! {
        #[test]
        fn there_and_back_is_where_one_was((from, to) in pair(), value in -1e6_f64..1e6) {
            let (there, back) = (from.to(to).unwrap(), to.to(from).unwrap());
            let slack = 1e-9 * (value.abs() + back.offset.abs() + (there.offset * back.scale).abs() + 1.0);
            prop_assert!((back.apply(there.apply(value)) - value).abs() <= slack);
            prop_assert!((there.then(back).apply(value) - value).abs() <= slack);
            prop_assert_eq!(from.quantity, to.quantity);
        }

        #[test]
        fn by_way_of_a_third_is_the_same((from, to) in pair(), value in -1e6_f64..1e6, third in 0_usize..20) {
            let fellows: Vec<_> = from.fellows().collect();
            let third = fellows[third % fellows.len()];
            let (direct, around) = (from.to(to).unwrap(), from.to(third).unwrap().then(third.to(to).unwrap()));
            let turned = (from.to(third).unwrap().offset * third.to(to).unwrap().scale).abs();
            let slack = 1e-9 * ((value * direct.scale).abs() + direct.offset.abs() + turned) + f64::MIN_POSITIVE;
            prop_assert!((direct.apply(value) - around.apply(value)).abs() <= slack);
        }
    }
}
