//! A job that is posted: a JSON object → an [`Ask`]. Pure.
//!
//! `{"name", "command", "params", "templates", "sites", "tags", "devices", "rate", "canary", "abort", "abort_after", "timeout",
//! "expires_in", "priority", "tenant", "instance", "who", "firmware"}`, of which the name, the command and something that tells the
//! devices are needed. `firmware` is `{"version", "url", "size", "sha256", "metric"}`; then the command is `update` unless told.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::firmware::{self, Firmware};
use super::{ABORT_AFTER, Ask, FIRMWARE_TIMEOUT, Selector};
use crate::catalog::DEFAULT_TENANT;
use crate::command::request::span;
use crate::config::fault::did_you_mean;
use crate::time::UtcMicros;

const MEMBERS: [&str; 18] = [
    "name",
    "command",
    "params",
    "templates",
    "sites",
    "tags",
    "devices",
    "rate",
    "canary",
    "abort",
    "abort_after",
    "timeout",
    "expires_in",
    "priority",
    "tenant",
    "instance",
    "who",
    "firmware",
];

/// Reads what is posted. `nobody`: who wants it, unless it says.
///
/// # Errors
/// Why it is no job.
pub fn posted(body: &[u8], at: UtcMicros, nobody: &str) -> Result<Ask, String> {
    let value: Value = serde_json::from_slice(body).map_err(|error| format!("the body is no JSON: {error}"))?;
    let Value::Object(members) = value else { return Err("the body is no JSON object".to_owned()) };
    known(&members, &MEMBERS)?;
    let firmware = members.get("firmware").map(document).transpose()?;
    let params = match members.get("params") {
        None => Map::new(),
        Some(Value::Object(params)) => params.clone(),
        Some(_) => return Err("params is no JSON object".to_owned()),
    };
    let params = match &firmware {
        Some(firmware) => firmware.params(params)?,
        None => Value::Object(params),
    };
    let command = match (text(&members, "command")?, &firmware) {
        (Some(command), _) => command,
        (None, Some(_)) => firmware::COMMAND.to_owned(),
        (None, None) => return Err("command is missing: what the devices are to do".to_owned()),
    };
    let timeout = members.get("timeout").map(|given| span("timeout", given)).transpose()?;
    let expires = members.get("expires_in").map(|given| span("expires_in", given)).transpose()?;
    Ok(Ask {
        id: crate::command::new_id(),
        tenant: text(&members, "tenant")?.unwrap_or_else(|| DEFAULT_TENANT.to_owned()),
        name: text(&members, "name")?.ok_or("name is missing: the job's own")?,
        command,
        params: params.to_string(),
        selector: selector(&members)?,
        timeout: timeout.or(firmware.as_ref().map(|_| FIRMWARE_TIMEOUT)),
        firmware,
        rate: measure(&members, "rate")?,
        canary: measure(&members, "canary")?,
        abort: measure(&members, "abort")?,
        abort_after: number(&members, "abort_after")?.unwrap_or(ABORT_AFTER),
        expires_at: expires.map(|expires| at.checked_add(expires).ok_or("expires_in is too long")).transpose()?,
        priority: number(&members, "priority")?.unwrap_or(0),
        at,
        instance: text(&members, "instance")?,
        who: Some(text(&members, "who")?.unwrap_or_else(|| nobody.to_owned())),
        via: "http",
    })
}

fn known(members: &Map<String, Value>, names: &[&str]) -> Result<(), String> {
    let Some(unknown) = members.keys().find(|key| !names.contains(&key.as_str())) else { return Ok(()) };
    let hint = did_you_mean(unknown, names.iter().copied());
    Err(format!("{unknown:?} is unknown; {}", hint.unwrap_or_else(|| format!("known are {}", names.join(", ")))))
}

fn text(members: &Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if !text.is_empty() && !text.contains('\0') => Ok(Some(text.clone())),
        Some(_) => Err(format!("{name} is no text")),
    }
}

fn number<N: TryFrom<i64>>(members: &Map<String, Value>, name: &str) -> Result<Option<N>, String> {
    let Some(given) = members.get(name) else { return Ok(None) };
    let read = given.as_i64().and_then(|number| N::try_from(number).ok());
    read.map(Some).ok_or_else(|| format!("{name} is no number that can be used: {given}"))
}

/// As people write it; a number stands for its text.
fn measure<M: FromStr<Err = String>>(members: &Map<String, Value>, name: &str) -> Result<Option<M>, String> {
    let written = match members.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(_) => return Err(format!("{name} is neither a text nor a number")),
    };
    written.parse().map(Some).map_err(|wrong: String| format!("{name}: {wrong}"))
}

fn texts(members: &Map<String, Value>, name: &str) -> Result<Vec<String>, String> {
    let read = |one: &Value| one.as_str().filter(|text| !text.is_empty() && !text.contains('\0')).map(str::to_owned);
    match members.get(name) {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) => {
            list.iter().map(read).collect::<Option<_>>().ok_or_else(|| format!("{name} is no list of texts"))
        }
        Some(one) => read(one).map(|one| vec![one]).ok_or_else(|| format!("{name} is no list of texts")),
    }
}

fn selector(members: &Map<String, Value>) -> Result<Selector, String> {
    let tags = match members.get("tags") {
        None => BTreeMap::new(),
        Some(Value::Object(tags)) => tags
            .iter()
            .map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
            .collect::<Option<_>>()
            .ok_or("tags have texts as values")?,
        Some(_) => return Err("tags is no JSON object".to_owned()),
    };
    Ok(Selector {
        templates: texts(members, "templates")?,
        sites: texts(members, "sites")?,
        tags,
        devices: texts(members, "devices")?.into_iter().collect(),
    })
}

fn document(given: &Value) -> Result<Firmware, String> {
    let Value::Object(members) = given else { return Err("firmware is no JSON object".to_owned()) };
    let read = || {
        known(members, &["version", "url", "size", "sha256", "metric"])?;
        let needed = |name: &str| text(members, name)?.ok_or_else(|| format!("{name}: it is missing"));
        let size = number(members, "size")?.ok_or("size: it is missing")?;
        let metric = text(members, "metric")?;
        Firmware::new(&needed("version")?, &needed("url")?, size, &needed("sha256")?, metric.as_deref())
    };
    read().map_err(|wrong: String| format!("firmware.{wrong}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::job::{Percent, Share};

    fn post(body: &str) -> Result<Ask, String> {
        posted(body.as_bytes(), UtcMicros(1_000_000), "http ::1")
    }

    #[test]
    fn a_job_is_read() {
        let ask = post(
            r#"{"name":"dim-all","command":"dim","params":{"level":3},"templates":["lamp"],"sites":"north","tags":{"floor":"2"},
            "rate":"100/m","canary":"5%","abort":"10%","abort_after":3,"timeout":"2m","expires_in":60,"who":"ann"}"#,
        )
        .unwrap();
        assert_eq!(
            (ask.name.as_str(), ask.command.as_str(), ask.params.as_str()),
            ("dim-all", "dim", r#"{"level":3}"#)
        );
        assert_eq!((ask.selector.templates.len(), ask.selector.sites.len(), ask.selector.tags.len()), (1, 1, 1));
        assert_eq!((ask.canary, ask.abort), (Some(Share::Percent(Percent::new(5))), Some(Percent::new(10))));
        assert_eq!((ask.timeout, ask.expires_at), (Some(Duration::from_secs(120)), Some(UtcMicros(61_000_000))));
        assert_eq!((ask.abort_after, ask.who.as_deref(), ask.tenant.as_str()), (3, Some("ann"), "default"));
        assert_eq!(
            post(r#"{"name":"j","command":"c","devices":["d"],"canary":3}"#).unwrap().canary,
            Some(Share::Devices(3))
        );
    }

    #[test]
    fn firmware_becomes_parameters() {
        let sum = "0".repeat(64);
        let document =
            format!(r#"{{"version":"2","url":"https://f.example/2","size":10,"sha256":"{sum}","metric":"fw"}}"#);
        let ask = post(&format!(r#"{{"name":"f","templates":["lamp"],"firmware":{document}}}"#)).unwrap();
        assert_eq!((ask.command.as_str(), ask.timeout), ("update", Some(FIRMWARE_TIMEOUT)));
        assert!(ask.params.contains(&sum) && ask.params.contains("https://f.example/2"), "{}", ask.params);
        assert_eq!(ask.firmware.unwrap().metric.as_deref(), Some("fw"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let with = |more: &str| format!(r#"{{"name":"j","command":"c","devices":["d"],{more}}}"#);
        for (body, word) in [
            ("now", "no JSON"),
            ("[]", "no JSON object"),
            ("{}", "command is missing"),
            (r#"{"command":"c"}"#, "name is missing"),
            (&with(r#""cannary":1"#), "did you mean `canary`"),
            (&with(r#""params":[]"#), "params"),
            (&with(r#""rate":"fast""#), "rate: "),
            (&with(r#""canary":"0%""#), "canary: "),
            (&with(r#""abort":20"#), "abort: "),
            (&with(r#""abort_after":-1"#), "abort_after"),
            (&with(r#""timeout":"soon""#), "timeout"),
            (&with(r#""expires_in":0"#), "expires_in"),
            (&with(r#""sites":[1]"#), "sites"),
            (&with(r#""tags":{"a":1}"#), "tags"),
            (&with(r#""firmware":{"version":"1"}"#), "firmware.size"),
            (&with(r#""firmware":{"version":"1","url":"x","size":1,"sha256":"y"}"#), "firmware.url"),
            (&with(r#""firmware":7"#), "firmware"),
        ] {
            let why = post(body).unwrap_err();
            assert!(why.contains(word), "{body}: {why}");
        }
    }
}
