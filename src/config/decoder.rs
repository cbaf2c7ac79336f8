//! The names of the payload formats, as `[[sources]] decoder` has them.

/// The payload formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decoder {
    Json,
    Scalar,
    /// Whichever of the others fits, told by topic and payload.
    Auto,
    AwsShadow,
    Cbor,
    Chirpstack,
    Csv,
    Esphome,
    HomeAssistant,
    Homie,
    LineProtocol,
    Losant,
    Msgpack,
    OpenMqttGateway,
    /// No telemetry: who is there, told by devices' own words or by the broker.
    Presence,
    Rtl433,
    Ruuvi,
    Senml,
    Shelly,
    Sparkplug,
    Tasmota,
    ThinEdge,
    Thingsboard,
    Ttn,
    Victron,
    Zigbee2Mqtt,
}

impl Decoder {
    pub const ALL: [Decoder; 26] = [
        Decoder::Json,
        Decoder::Scalar,
        Decoder::Auto,
        Decoder::AwsShadow,
        Decoder::Cbor,
        Decoder::Chirpstack,
        Decoder::Csv,
        Decoder::Esphome,
        Decoder::HomeAssistant,
        Decoder::Homie,
        Decoder::LineProtocol,
        Decoder::Losant,
        Decoder::Msgpack,
        Decoder::OpenMqttGateway,
        Decoder::Presence,
        Decoder::Rtl433,
        Decoder::Ruuvi,
        Decoder::Senml,
        Decoder::Shelly,
        Decoder::Sparkplug,
        Decoder::Tasmota,
        Decoder::ThinEdge,
        Decoder::Thingsboard,
        Decoder::Ttn,
        Decoder::Victron,
        Decoder::Zigbee2Mqtt,
    ];

    /// As `[[sources]] decoder` has it.
    pub fn name(self) -> &'static str {
        match self {
            Decoder::Json => "json",
            Decoder::Scalar => "scalar",
            Decoder::Auto => "auto",
            Decoder::AwsShadow => "aws_shadow",
            Decoder::Cbor => "cbor",
            Decoder::Chirpstack => "chirpstack",
            Decoder::Csv => "csv",
            Decoder::Esphome => "esphome",
            Decoder::HomeAssistant => "home_assistant",
            Decoder::Homie => "homie",
            Decoder::LineProtocol => "line_protocol",
            Decoder::Losant => "losant",
            Decoder::Msgpack => "msgpack",
            Decoder::OpenMqttGateway => "openmqttgateway",
            Decoder::Presence => "presence",
            Decoder::Rtl433 => "rtl_433",
            Decoder::Ruuvi => "ruuvi",
            Decoder::Senml => "senml",
            Decoder::Shelly => "shelly",
            Decoder::Sparkplug => "sparkplug",
            Decoder::Tasmota => "tasmota",
            Decoder::ThinEdge => "thin_edge",
            Decoder::Thingsboard => "thingsboard",
            Decoder::Ttn => "ttn",
            Decoder::Victron => "victron",
            Decoder::Zigbee2Mqtt => "zigbee2mqtt",
        }
    }

    /// Whether a payload, or the topic's own levels, can tell the device where the filter has no `{device}`.
    pub fn names_devices(self) -> bool {
        match self {
            Decoder::Auto
            | Decoder::AwsShadow
            | Decoder::Chirpstack
            | Decoder::Esphome
            | Decoder::HomeAssistant
            | Decoder::Homie
            | Decoder::Losant
            | Decoder::OpenMqttGateway
            | Decoder::Presence
            | Decoder::Rtl433
            | Decoder::Ruuvi
            | Decoder::Shelly
            | Decoder::Sparkplug
            | Decoder::Tasmota
            | Decoder::ThinEdge
            | Decoder::Thingsboard
            | Decoder::Ttn
            | Decoder::Victron
            | Decoder::Zigbee2Mqtt => true,
            Decoder::Json
            | Decoder::Scalar
            | Decoder::Cbor
            | Decoder::Csv
            | Decoder::LineProtocol
            | Decoder::Msgpack
            | Decoder::Senml => false,
        }
    }
}
