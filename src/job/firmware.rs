//! A firmware campaign's document: which version, from where, and how a device sees that it has got it whole. Pure.

use serde_json::{Map, Value, json};
use url::Url;

/// The metric that tells a device's version, unless the job or the template's command names another. Where a device has no such
/// reading, the version that it tells of itself counts.
pub const METRIC: &str = "firmware";
/// The command that installs one, unless told.
pub const COMMAND: &str = "update";
/// Most bytes of a URL and of a version.
const MAX_URL: usize = 2048;
const MAX_VERSION: usize = 512;
/// Hexadecimal digits of a SHA-256 (FIPS 180-4).
const DIGITS: usize = 64;

/// What is to be installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firmware {
    pub version: String,
    pub url: String,
    /// Bytes.
    pub size: u64,
    /// In hexadecimal digits, small ones.
    pub sha256: String,
    /// In place of the template's or [`METRIC`].
    pub metric: Option<String>,
}

impl Firmware {
    /// Looks through a document as it was written.
    ///
    /// # Errors
    /// What is wrong, with the field's name first.
    pub fn new(version: &str, url: &str, size: i64, sha256: &str, metric: Option<&str>) -> Result<Firmware, String> {
        let version = version.trim();
        if version.is_empty() || version.len() > MAX_VERSION || version.chars().any(char::is_control) {
            return Err(format!(
                "version: {version:?} is none: 1 to {MAX_VERSION} bytes, as the device will report it"
            ));
        }
        let read = Url::parse(url).map_err(|error| format!("url: {url:?} is no URL: {error}"))?;
        if !matches!(read.scheme(), "http" | "https") || read.host_str().is_none_or(str::is_empty) {
            return Err(format!(
                "url: {url:?} is neither an http nor an https URL, which is where devices fetch firmware"
            ));
        }
        if url.len() > MAX_URL {
            return Err(format!("url: it has {} bytes, {MAX_URL} are allowed", url.len()));
        }
        let size = u64::try_from(size).ok().filter(|size| *size > 0);
        let size = size.ok_or_else(|| "size: the firmware's bytes are counted from 1".to_owned())?;
        if sha256.len() != DIGITS || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(format!(
                "sha256: {sha256:?} is no SHA-256: {DIGITS} hexadecimal digits, as sha256sum prints them"
            ));
        }
        if metric.is_some_and(|metric| metric.is_empty() || metric.contains('\0')) {
            return Err("metric: expected the name of a metric".to_owned());
        }
        let (url, sha256) = (read.to_string(), sha256.to_ascii_lowercase());
        Ok(Firmware { version: version.to_owned(), url, size, sha256, metric: metric.map(str::to_owned) })
    }

    /// The command's parameters: the document, and whatever else the device's command wants.
    ///
    /// # Errors
    /// That a parameter of `more` is the document's.
    pub fn params(&self, more: Map<String, Value>) -> Result<Value, String> {
        let mut params = Map::new();
        params.insert("version".to_owned(), json!(self.version));
        params.insert("url".to_owned(), json!(self.url));
        params.insert("size".to_owned(), json!(self.size));
        params.insert("sha256".to_owned(), json!(self.sha256));
        for (name, value) in more {
            if params.insert(name.clone(), value).is_some() {
                return Err(format!("params.{name} is the firmware document's, and can't be given besides"));
            }
        }
        Ok(Value::Object(params))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUM: &str = "E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855";

    #[test]
    fn a_document_becomes_parameters() {
        let firmware = Firmware::new(" 2.1.0 ", "https://files.example/fw.bin", 1024, SUM, None).unwrap();
        let more = json!({ "slot": 1 }).as_object().unwrap().clone();
        let params = firmware.params(more).unwrap();
        assert_eq!((&params["version"], &params["size"], &params["slot"]), (&json!("2.1.0"), &json!(1024), &json!(1)));
        assert_eq!(params["sha256"], json!(SUM.to_lowercase()));
        let again = json!({ "url": "x" }).as_object().unwrap().clone();
        assert!(firmware.params(again).unwrap_err().contains("params.url"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let url = "http://files.example/fw.bin";
        let long = format!("{url}?{}", "x".repeat(MAX_URL));
        for (version, url, size, sum, field) in [
            ("", url, 1, SUM, "version"),
            ("1\n2", url, 1, SUM, "version"),
            ("1", "fw.bin", 1, SUM, "url"),
            ("1", "ftp://files.example/fw.bin", 1, SUM, "url"),
            ("1", "file:///etc/passwd", 1, SUM, "url"),
            ("1", &long, 1, SUM, "url"),
            ("1", url, 0, SUM, "size"),
            ("1", url, -5, SUM, "size"),
            ("1", url, 1, "", "sha256"),
            ("1", url, 1, &SUM[1..], "sha256"),
            ("1", url, 1, &SUM.replace('E', "g"), "sha256"),
        ] {
            let wrong = Firmware::new(version, url, size, sum, None).unwrap_err();
            assert!(wrong.starts_with(&format!("{field}: ")), "{wrong}");
        }
        assert!(Firmware::new("1", url, 1, SUM, Some("")).unwrap_err().starts_with("metric: "));
    }
}
