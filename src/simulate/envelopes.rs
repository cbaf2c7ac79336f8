//! Payloads of simulated devices that come in an envelope: a Shelly's notifications, a ChirpStack server's uplinks.

use std::io::Write as _;

use super::fleet::utc;

/// What a plug measures.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plug {
    /// V.
    pub(super) voltage: f64,
    /// A.
    pub(super) current: f64,
    /// Wh.
    pub(super) total: f64,
    /// °C.
    pub(super) temperature: f64,
}

/// `NotifyStatus` of a Shelly Plus 1PM: partial, and each fifth with the counters. `time` in µs.
pub(super) fn shelly(id: &str, turn: usize, time: Option<i64>, plug: Plug) -> Vec<u8> {
    let Plug { voltage, current, total, temperature } = plug;
    let power = voltage * current * 0.96;
    let mut out = Vec::with_capacity(320);
    // Writing to a Vec can't fail.
    let _ = write!(out, "{{\"src\":\"{id}\",\"dst\":\"{id}/events\",\"method\":\"NotifyStatus\",\"params\":{{");
    if let Some(micros) = time {
        let (seconds, hundredths) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000) / 10_000);
        let _ = write!(out, "\"ts\":{seconds}.{hundredths:02},");
    }
    let _ = write!(
        out,
        "\"switch:0\":{{\"id\":0,\"output\":true,\"apower\":{power:.1},\"voltage\":{voltage:.1},\"current\":{current:.3}"
    );
    if turn.is_multiple_of(5) {
        let _ = write!(
            out,
            ",\"aenergy\":{{\"by_minute\":[{:.3},{:.3},{:.3}],\"total\":{total:.3}}},\
             \"temperature\":{{\"tC\":{temperature:.1},\"tF\":{:.1}}}",
            power * 16.667,
            power * 16.667,
            power * 16.667,
            temperature * 1.8 + 32.0
        );
    }
    let _ = write!(out, "}}}}}}");
    out
}

/// What a climate sensor measures, and how it is heard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Climate {
    /// °C.
    pub(super) temperature: f64,
    /// %.
    pub(super) humidity: f64,
    /// V.
    pub(super) battery: f64,
    /// dBm.
    pub(super) rssi: f64,
    /// dB.
    pub(super) snr: f64,
}

/// The `up` event of a Dragino LHT65N. `time` in µs.
pub(super) fn chirpstack(id: &str, eui: &str, count: usize, time: Option<i64>, climate: Climate) -> Vec<u8> {
    let Climate { temperature, humidity, battery, rssi, snr } = climate;
    let mut out = Vec::with_capacity(900);
    let _ = write!(out, "{{\"deduplicationId\":\"{eui}-{count}\",");
    if let Some(micros) = time {
        let _ = write!(out, "\"time\":\"{}\",", utc(micros, "%Y-%m-%dT%H:%M:%S%.6f+00:00"));
    }
    let _ = write!(
        out,
        "\"deviceInfo\":{{\"tenantName\":\"ChirpStack\",\"applicationId\":\"{APPLICATION}\",\"applicationName\":\"simulated\",\
         \"deviceProfileName\":\"Dragino LHT65N\",\"deviceName\":\"{id}\",\"devEui\":\"{eui}\",\
         \"deviceClassEnabled\":\"CLASS_A\",\"tags\":{{}}}},\"devAddr\":\"01087309\",\"adr\":true,\"dr\":5,\"fCnt\":{count},\
         \"fPort\":2,\"confirmed\":false,\"data\":\"zOEJqQHEAQj1f/8=\",\"object\":{{\"BatV\":{battery:.3},\
         \"TempC_SHT\":{temperature:.2},\"Hum_SHT\":{humidity:.1},\"TempC_DS\":{:.2},\"Bat_status\":3,\
         \"Ext_sensor\":\"Temperature Sensor\",\"Node_type\":\"LHT65N\"}},\"rxInfo\":[{{\"gatewayId\":\"2cf7f11081400088\",\
         \"rssi\":{rssi:.0},\"snr\":{snr:.1},\"channel\":4,\"crcStatus\":\"CRC_OK\"}}],\"txInfo\":{{\"frequency\":868100000,\
         \"modulation\":{{\"lora\":{{\"bandwidth\":125000,\"spreadingFactor\":7,\"codeRate\":\"CR_4_5\"}}}}}},\
         \"regionConfigId\":\"eu868\"}}",
        temperature - 1.8
    );
    out
}

/// The ChirpStack application that all simulated sensors belong to.
pub(super) const APPLICATION: &str = "635fda7b-0428-495e-812f-027490bcaf9d";

/// An EUI for a device's name: Dragino's prefix, and FNV-1a of the name.
pub(super) fn eui(id: &str) -> String {
    let hash = id
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("a840{:012x}", hash & 0xffff_ffff_ffff)
}
