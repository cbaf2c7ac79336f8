//! The units that a metric may have: how they are shown, their code in UCUM (<https://ucum.org/ucum>, case sensitive
//! codes), and the quantity they measure.
//!
//! The coulomb and the farad are left out: a bare "C" or "F" is meant as a temperature nearly always.

use crate::config::fault::nearest;

/// A unit of measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// As it stands in templates and in the `readings` view.
    pub display: &'static str,
    /// Its code in UCUM, case sensitive.
    pub ucum: &'static str,
    /// What it measures.
    pub quantity: &'static str,
}

macro_rules! units {
    ($($quantity:literal { $($display:literal = $ucum:literal),+ $(,)? })+) => {
        /// Every unit, by quantity.
        pub const UNITS: &[Unit] =
            &[$($(Unit { display: $display, ucum: $ucum, quantity: $quantity }),+),+];
    };
}

units! {
    "temperature" { "°C" = "Cel", "°F" = "[degF]", "K" = "K" }
    "ratio" { "%" = "%", "‰" = "[ppth]", "ppm" = "[ppm]", "ppb" = "[ppb]" }
    "power" { "W" = "W", "mW" = "mW", "kW" = "kW", "MW" = "MW", "hp" = "[HP]" }
    "apparent power" { "VA" = "V.A", "kVA" = "kV.A" }
    "reactive power" { "var" = "V.A{reactive}", "kvar" = "kV.A{reactive}" }
    "energy" { "J" = "J", "kJ" = "kJ", "MJ" = "MJ", "Wh" = "W.h", "kWh" = "kW.h", "MWh" = "MW.h", "Wmin" = "W.min" }
    "apparent energy" { "kVAh" = "kV.A.h" }
    "reactive energy" { "varh" = "V.A.h{reactive}", "kvarh" = "kV.A.h{reactive}" }
    "electric potential" { "V" = "V", "mV" = "mV", "µV" = "uV", "kV" = "kV" }
    "electric current" { "A" = "A", "mA" = "mA", "µA" = "uA" }
    "electric charge" { "Ah" = "A.h", "mAh" = "mA.h" }
    "electric resistance" { "Ω" = "Ohm", "kΩ" = "kOhm", "MΩ" = "MOhm" }
    "electric conductance" { "S" = "S", "mS" = "mS", "µS" = "uS" }
    "conductivity" { "S/m" = "S/m", "mS/cm" = "mS/cm", "µS/cm" = "uS/cm" }
    "capacitance" { "µF" = "uF", "nF" = "nF", "pF" = "pF" }
    "magnetic flux density" { "T" = "T", "mT" = "mT", "µT" = "uT", "G" = "G" }
    "frequency" { "Hz" = "Hz", "kHz" = "kHz", "MHz" = "MHz", "GHz" = "GHz", "rpm" = "{rotation}/min", "1/min" = "/min" }
    "pressure" { "Pa" = "Pa", "hPa" = "hPa", "kPa" = "kPa", "MPa" = "MPa", "mbar" = "mbar", "bar" = "bar",
        "psi" = "[psi]", "mmHg" = "mm[Hg]", "inHg" = "[in_i'Hg]", "atm" = "atm" }
    "length" { "µm" = "um", "mm" = "mm", "cm" = "cm", "m" = "m", "km" = "km", "in" = "[in_i]", "ft" = "[ft_i]",
        "mi" = "[mi_i]" }
    "area" { "cm²" = "cm2", "m²" = "m2", "ha" = "har", "km²" = "km2" }
    "volume" { "mL" = "mL", "L" = "L", "m³" = "m3", "ft³" = "[cft_i]", "gal" = "[gal_us]" }
    "volume flow" { "L/s" = "L/s", "L/min" = "L/min", "L/h" = "L/h", "m³/s" = "m3/s", "m³/h" = "m3/h",
        "gal/min" = "[gal_us]/min" }
    "mass" { "mg" = "mg", "g" = "g", "kg" = "kg", "t" = "t", "lb" = "[lb_av]" }
    "mass concentration" { "µg/m³" = "ug/m3", "mg/m³" = "mg/m3", "g/m³" = "g/m3", "mg/L" = "mg/L" }
    "number concentration" { "1/cm³" = "/cm3" }
    "density" { "kg/m³" = "kg/m3" }
    "time" { "ns" = "ns", "µs" = "us", "ms" = "ms", "s" = "s", "min" = "min", "h" = "h", "d" = "d" }
    "speed" { "m/s" = "m/s", "km/h" = "km/h", "mph" = "[mi_i]/h", "kn" = "[kn_i]" }
    "acceleration" { "m/s²" = "m/s2", "mg₀" = "m[g]", "g₀" = "[g]" }
    "rotation" { "°/s" = "deg/s", "rad/s" = "rad/s" }
    "plane angle" { "°" = "deg", "rad" = "rad" }
    "force" { "N" = "N", "kN" = "kN" }
    "torque" { "Nm" = "N.m" }
    "illuminance" { "lx" = "lx", "klx" = "klx" }
    "luminous intensity" { "cd" = "cd" }
    "luminous flux" { "lm" = "lm" }
    "irradiance" { "W/m²" = "W/m2", "µW/cm²" = "uW/cm2" }
    "photon flux" { "µmol/(m²·s)" = "umol/(m2.s)" }
    "precipitation" { "mm/h" = "mm/h", "in/h" = "[in_i]/h" }
    "signal level" { "dB" = "dB", "dBm" = "dB{mW}", "dBA" = "dB{A}" }
    "acidity" { "pH" = "[pH]" }
    "turbidity" { "NTU" = "{NTU}" }
    "radiation dose rate" { "µSv/h" = "uSv/h", "nSv/h" = "nSv/h" }
    "activity" { "Bq" = "Bq", "Bq/m³" = "Bq/m3" }
    "data" { "bit" = "bit", "B" = "By", "kB" = "kBy", "MB" = "MBy", "GB" = "GBy", "KiB" = "KiBy", "MiB" = "MiBy",
        "GiB" = "GiBy" }
    "data rate" { "bit/s" = "bit/s", "kbit/s" = "kbit/s", "Mbit/s" = "Mbit/s", "B/s" = "By/s" }
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

/// The unit that was probably meant by something that is none.
pub fn meant(text: &str) -> Option<&'static Unit> {
    // MICRO SIGN and GREEK SMALL LETTER MU, OHM SIGN and GREEK CAPITAL OMEGA look the same.
    let text = text.trim().replace('\u{3bc}', "\u{b5}").replace('\u{2126}', "Ω");
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
}
