//! How well a device was heard, as the envelopes of LoRaWAN servers tell it.

use super::{Signal, Value};

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
pub(super) fn signal(gateways: impl Iterator<Item = Heard>) -> Vec<Signal> {
    let rank = |number: Option<f64>| number.unwrap_or(f64::NEG_INFINITY);
    let better =
        |a: &Heard, b: &Heard| rank(a.snr).total_cmp(&rank(b.snr)).then_with(|| rank(a.rssi).total_cmp(&rank(b.rssi)));
    let best = gateways.max_by(better).unwrap_or_default();
    let named = [("rssi", best.rssi), ("snr", best.snr)];
    let told = |(name, value): (&'static str, Option<f64>)| Some((name, Value::Number(value?)));
    named.into_iter().filter_map(told).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best(gateways: &[(Option<f64>, Option<f64>)]) -> Vec<Signal> {
        let heard = gateways.iter().map(|&(rssi, snr)| Heard { rssi, snr });
        signal(heard)
    }

    #[test]
    fn the_best_gateway_is_told() {
        let pair = |rssi, snr| vec![("rssi", Value::Number(rssi)), ("snr", Value::Number(snr))];
        let a = (Some(-113.0), Some(1.0));
        assert_eq!(best(&[a, (Some(-106.0), Some(4.5)), (None, None)]), pair(-106.0, 4.5));
        assert_eq!(best(&[(Some(-100.0), Some(1.0)), a]), pair(-100.0, 1.0));
        assert_eq!(best(&[(Some(-100.0), Some(-3.0)), a]), pair(-113.0, 1.0));
        assert_eq!(best(&[(Some(-60.0), None)]), [("rssi", Value::Number(-60.0))]);
        assert_eq!(best(&[]), []);
    }
}
