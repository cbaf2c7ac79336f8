//! Messages of Sparkplug B, as nodes write and read them.

/// `sparkplug_b.proto`, as far as it is needed here.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Payload {
    #[prost(uint64, optional, tag = "1")]
    pub timestamp: Option<u64>,
    #[prost(message, repeated, tag = "2")]
    pub metrics: Vec<Metric>,
    #[prost(uint64, optional, tag = "3")]
    pub seq: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Metric {
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    #[prost(uint64, optional, tag = "2")]
    pub alias: Option<u64>,
    #[prost(uint32, optional, tag = "4")]
    pub datatype: Option<u32>,
    #[prost(uint32, optional, tag = "10")]
    pub int: Option<u32>,
    #[prost(uint64, optional, tag = "11")]
    pub long: Option<u64>,
    #[prost(float, optional, tag = "12")]
    pub float: Option<f32>,
    #[prost(bool, optional, tag = "14")]
    pub flag: Option<bool>,
}

impl Metric {
    /// Of this name and data type, without a value.
    pub fn named(name: &str, datatype: u32) -> Metric {
        Metric { name: Some(name.to_owned()), datatype: Some(datatype), ..Metric::default() }
    }
}
