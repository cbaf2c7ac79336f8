//! How fast and how much, as people write it: `100/m`, `5%`, `20`.

use std::str::FromStr;

/// Commands a minute, 1 to [`Rate::MOST`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(u32);

impl Rate {
    pub const MOST: u32 = 600_000;

    /// None where it is out of bounds.
    pub fn new(per_minute: u32) -> Option<Rate> {
        (1..=Rate::MOST).contains(&per_minute).then_some(Rate(per_minute))
    }

    pub fn per_minute(self) -> u32 {
        self.0
    }

    /// Microseconds that so many commands take.
    pub fn micros(self, commands: u64) -> i64 {
        i64::try_from(u128::from(commands) * 60_000_000 / u128::from(self.0)).unwrap_or(i64::MAX)
    }

    /// How many commands fit into so many microseconds.
    pub fn commands(self, micros: i64) -> u64 {
        let micros = u128::try_from(micros).unwrap_or(0);
        u64::try_from(micros * u128::from(self.0) / 60_000_000).unwrap_or(u64::MAX)
    }
}

impl FromStr for Rate {
    type Err = String;

    /// `100/m`, or `2/s`, `6000/h`.
    fn from_str(text: &str) -> Result<Rate, String> {
        let wanted =
            || format!("{text:?} is no rate: write commands a minute, such as 100/m, from 1/m to {}/m", Rate::MOST);
        let (number, unit) = text.trim().split_once('/').ok_or_else(wanted)?;
        let number: u64 = number.trim().parse().map_err(|_| wanted())?;
        let per_minute = match unit.trim() {
            "m" | "min" => Some(number),
            "s" => number.checked_mul(60),
            "h" if number.is_multiple_of(60) => Some(number / 60),
            _ => None,
        };
        per_minute.and_then(|rate| u32::try_from(rate).ok()).and_then(Rate::new).ok_or_else(wanted)
    }
}

/// 1 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percent(u8);

impl Percent {
    /// Out of bounds it is the nearest.
    pub const fn new(percent: u8) -> Percent {
        match percent {
            0 => Percent(1),
            1..=100 => Percent(percent),
            _ => Percent(100),
        }
    }

    pub fn get(self) -> u8 {
        self.0
    }

    /// Whether so many `of` so many are that share, or more.
    pub fn is_reached(self, part: u64, of: u64) -> bool {
        part > 0 && u128::from(part) * 100 >= u128::from(of) * u128::from(self.0)
    }
}

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Percent, String> {
        let percent = text.trim().strip_suffix('%').and_then(|number| number.trim().parse().ok());
        match percent {
            Some(percent @ 1..=100) => Ok(Percent(percent)),
            _ => Err(format!("{text:?} is no share: write 1% to 100%")),
        }
    }
}

/// A part of a job's devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    Percent(Percent),
    Devices(u32),
}

impl Share {
    /// So many of `devices`: one at least, and all at most.
    pub fn of(self, devices: u32) -> u32 {
        let share = match self {
            Share::Percent(percent) => u64::from(devices).saturating_mul(u64::from(percent.0)).div_ceil(100),
            Share::Devices(number) => u64::from(number),
        };
        u32::try_from(share).unwrap_or(devices).clamp(devices.min(1), devices)
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Share, String> {
        if text.contains('%') {
            return text.parse().map(Share::Percent);
        }
        match text.trim().parse() {
            Ok(number @ 1..) => Ok(Share::Devices(number)),
            _ => Err(format!("{text:?} is neither a share of the devices, such as 5%, nor a number of them from 1")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_people_write_is_read() {
        let rates = [("100/m", 100), ("2/s", 120), ("600/h", 10), (" 1 / min ", 1), ("600000/m", 600_000)];
        for (text, per_minute) in rates {
            assert_eq!(text.parse(), Ok(Rate(per_minute)), "{text}");
        }
        for bad in ["", "100", "/m", "0/m", "-1/m", "1/d", "1.5/m", "61/h", "600001/m", "99999999999999999999/m"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
        assert_eq!(("5%".parse(), "20".parse()), (Ok(Share::Percent(Percent(5))), Ok(Share::Devices(20))));
        for bad in ["", "0", "0%", "101%", "-3", "5 %%", "half"] {
            assert!(bad.parse::<Share>().is_err(), "{bad}");
        }
        assert!("20".parse::<Percent>().is_err() && "20%".parse() == Ok(Percent(20)));
    }

    #[test]
    fn a_share_is_one_device_at_least_and_all_at_most() {
        let five = Share::Percent(Percent(5));
        assert_eq!([five.of(0), five.of(1), five.of(20), five.of(21), five.of(10_000)], [0, 1, 1, 2, 500]);
        assert_eq!([Share::Devices(3).of(2), Share::Devices(3).of(9)], [2, 3]);
        assert!(Percent(20).is_reached(1, 5) && !Percent(20).is_reached(1, 6) && !Percent(1).is_reached(0, 0));
    }

    proptest! {
        #[test]
        fn so_many_commands_take_the_time_into_which_they_fit(rate in 1..=Rate::MOST, commands in 0_u64..1_000_000) {
            let rate = Rate(rate);
            let micros = rate.micros(commands);
            prop_assert!(rate.commands(micros) <= commands);
            prop_assert!(rate.commands(micros + 1) >= commands);
        }
    }
}
