//! What formats with an envelope share: who sent it, and how well it was heard.

use super::{Context, Sample, Value};

/// The device of a report: none where the filter takes it from the topic, which brokers let only some write to; else the
/// one that the payload, or a level of the topic, names.
pub(super) fn device(context: &Context<'_>, named: Option<&str>) -> Option<String> {
    if context.captures.device.is_some() { None } else { named.map(str::to_owned) }
}

/// The level of a topic after the first one that is `name`.
pub(super) fn level_after<'t>(topic: &'t str, name: &str) -> Option<&'t str> {
    let mut levels = topic.split('/');
    levels.find(|level| *level == name)?;
    levels.next()
}

/// How one gateway heard the device.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Heard {
    /// dBm.
    pub(super) rssi: Option<f64>,
    /// dB.
    pub(super) snr: Option<f64>,
}

/// `rssi` and `snr` of the gateway that heard the device best: by its SNR, which tells the margin of a LoRa signal where the
/// RSSI tells the noise too, and by its RSSI where that is the same.
pub(super) fn signal(gateways: impl Iterator<Item = Heard>) -> Vec<Sample> {
    let rank = |number: Option<f64>| number.unwrap_or(f64::NEG_INFINITY);
    let better =
        |a: &Heard, b: &Heard| rank(a.snr).total_cmp(&rank(b.snr)).then_with(|| rank(a.rssi).total_cmp(&rank(b.rssi)));
    let best = gateways.max_by(better).unwrap_or_default();
    let named = [("rssi", best.rssi), ("snr", best.snr)];
    let sample = |(key, value): (&str, Option<f64>)| Some(Sample { key: key.to_owned(), value: Value::Number(value?) });
    named.into_iter().filter_map(sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best(gateways: &[(Option<f64>, Option<f64>)]) -> Vec<(String, Value)> {
        let heard = gateways.iter().map(|&(rssi, snr)| Heard { rssi, snr });
        signal(heard).into_iter().map(|sample| (sample.key, sample.value)).collect()
    }

    #[test]
    fn the_best_gateway_is_told() {
        let pair = |rssi, snr| vec![("rssi".to_owned(), Value::Number(rssi)), ("snr".to_owned(), Value::Number(snr))];
        let a = (Some(-113.0), Some(1.0));
        assert_eq!(best(&[a, (Some(-106.0), Some(4.5)), (None, None)]), pair(-106.0, 4.5));
        assert_eq!(best(&[(Some(-100.0), Some(1.0)), a]), pair(-100.0, 1.0));
        assert_eq!(best(&[(Some(-100.0), Some(-3.0)), a]), pair(-113.0, 1.0));
        assert_eq!(best(&[(Some(-60.0), None)]), [("rssi".to_owned(), Value::Number(-60.0))]);
        assert_eq!(best(&[]), []);
    }

    #[test]
    fn levels_are_found() {
        assert_eq!(level_after("$aws/things/t1/shadow", "things"), Some("t1"));
        assert_eq!(level_after("a/things", "things"), None);
        assert_eq!(level_after("a/b", "things"), None);
        assert_eq!(level_after("te/device/main///m/", "device"), Some("main"));
    }
}
