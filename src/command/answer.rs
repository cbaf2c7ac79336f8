//! What native devices answer: `devices/{device}/commands/{id}/response` with `{"status", "result", "error"}`. Pure.

use serde_json::Value;

use super::dialect::Verdict;
use super::path;
use super::state::Outcome;

/// What is subscribed to.
pub const FILTER: &str = "devices/+/commands/+/response";
/// Most bytes of an error's text that are kept.
pub const MAX_ERROR: usize = 2048;

/// A native topic of commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic<'t> {
    /// tidegate's own publish, as a wide filter brings it back.
    Command,
    Answer {
        device: &'t str,
        id: &'t str,
    },
}

/// Whether a topic is one of native commands; none: it is another.
pub fn of_topic(topic: &str) -> Option<Topic<'_>> {
    let mut levels = topic.strip_prefix("devices/")?.split('/');
    let (device, commands, id) = (levels.next()?, levels.next()?, levels.next()?);
    if commands != "commands" {
        return None;
    }
    match (levels.next(), levels.next()) {
        (None, _) => Some(Topic::Command),
        (Some("response"), None) => Some(Topic::Answer { device, id }),
        _ => None,
    }
}

/// Reads an answer. `max_result`: bytes; a longer result is left out, which the error then says.
///
/// # Errors
/// Why it is none.
pub fn read(payload: &[u8], max_result: usize) -> Result<Verdict, String> {
    let value: Value = serde_json::from_slice(payload).map_err(|error| format!("it is no JSON: {error}"))?;
    let status = value.get("status").ok_or("it has no status")?;
    let outcome = status
        .as_str()
        .and_then(|word| Outcome::WORDS.iter().find(|(known, _)| *known == word))
        .map(|(_, outcome)| *outcome)
        .ok_or_else(|| {
            format!("its status is {}, not one of in_progress, succeeded, failed, rejected", short(status))
        })?;
    let part = |key: &str| value.get(key).filter(|part| !part.is_null());
    Ok(bounded(Verdict { outcome, result: part("result").cloned(), error: part("error").map(path::plain) }, max_result))
}

/// A verdict whose texts fit.
pub fn bounded(mut verdict: Verdict, max_result: usize) -> Verdict {
    if let Some(error) = &mut verdict.error
        && error.len() > MAX_ERROR
    {
        error.truncate(error.floor_char_boundary(MAX_ERROR));
    }
    let bytes = verdict.result.as_ref().map_or(0, |result| result.to_string().len());
    if bytes > max_result {
        verdict.result = None;
        let left_out = format!("a result of {bytes} bytes was left out; commands.max_result is {max_result}");
        verdict.error = Some(match verdict.error {
            Some(error) => format!("{error} ({left_out})"),
            None => left_out,
        });
    }
    verdict
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn native_topics_are_told_apart() {
        assert_eq!(of_topic("devices/d/commands/7/response"), Some(Topic::Answer { device: "d", id: "7" }));
        assert_eq!(of_topic("devices/d/commands/7"), Some(Topic::Command));
        for other in [
            "devices/d/telemetry",
            "devices/d/commands",
            "devices/d/commands/7/other",
            "devices/d/commands/7/response/x",
            "x/d/commands/7",
        ] {
            assert_eq!(of_topic(other), None, "{other}");
        }
    }

    #[test]
    fn an_answer_says_status_result_and_error() {
        let read = |text: &str| read(text.as_bytes(), 20);
        let done = read(r#"{"status":"succeeded","result":{"a":1}}"#).unwrap();
        assert_eq!(done, Verdict { outcome: Outcome::Succeeded, result: Some(json!({ "a": 1 })), error: None });
        assert_eq!(read(r#"{"status":"failed","error":"jammed"}"#).unwrap().error.as_deref(), Some("jammed"));
        assert_eq!(read(r#"{"status":"failed","error":{"code":7}}"#).unwrap().error.as_deref(), Some(r#"{"code":7}"#));
        assert_eq!(read(r#"{"status":"in_progress","result":null}"#).unwrap().result, None);
        for garbage in ["", "ok", "[]", "{}", r#"{"status":"done"}"#, r#"{"status":1}"#, "\u{0}"] {
            assert!(read(garbage).is_err(), "{garbage}");
        }
        let long = read(&format!(r#"{{"status":"succeeded","result":"{}"}}"#, "x".repeat(30))).unwrap();
        assert!(long.result.is_none() && long.error.unwrap().contains("max_result"));
        let wrong = read(&format!(r#"{{"status":"{}"}}"#, "ä".repeat(500))).unwrap_err();
        assert!(wrong.len() < 200, "{wrong}");
    }
}
