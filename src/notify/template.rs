//! Texts with placeholders for what an alert says: `{device} is {state}: {message}`.

use super::Notice;
use crate::config::fault::did_you_mean;

/// A text in which `{name}` stands for something of the alert. Other braces stand for themselves, so that JSON needs no care.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Field(Field),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Id,
    Rule,
    Tenant,
    Device,
    Group,
    Metric,
    Severity,
    State,
    Value,
    Threshold,
    Unit,
    Since,
    At,
    Message,
    Who,
    Why,
    Escalation,
    Level,
}

impl Field {
    const ALL: [(&'static str, Field); 18] = [
        ("id", Field::Id),
        ("rule", Field::Rule),
        ("tenant", Field::Tenant),
        ("device", Field::Device),
        ("group", Field::Group),
        ("metric", Field::Metric),
        ("severity", Field::Severity),
        ("state", Field::State),
        ("value", Field::Value),
        ("threshold", Field::Threshold),
        ("unit", Field::Unit),
        ("since", Field::Since),
        ("at", Field::At),
        ("message", Field::Message),
        ("who", Field::Who),
        ("why", Field::Why),
        ("escalation", Field::Escalation),
        ("level", Field::Level),
    ];
}

/// A placeholder that stands for nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{{{name}}}` stands for nothing an alert has{hint}", hint = hint(.name))]
pub struct TemplateError {
    name: String,
}

fn hint(name: &str) -> String {
    match did_you_mean(name, Field::ALL.map(|(known, _)| known)) {
        Some(hint) => format!("; {hint}"),
        None => format!("; known are {}", Field::ALL.map(|(known, _)| known).join(", ")),
    }
}

impl Template {
    /// Reads a text. Only `{word}` of small letters is a placeholder.
    ///
    /// # Errors
    /// [`TemplateError`] at the first unknown one.
    pub fn parse(text: &str) -> Result<Template, TemplateError> {
        let (mut parts, mut plain, mut rest) = (Vec::new(), String::new(), text);
        while let Some((before, after)) = rest.split_once('{') {
            plain.push_str(before);
            let word = after.split_once('}').filter(|(word, _)| is_word(word));
            let Some((word, behind)) = word else {
                plain.push('{');
                rest = after;
                continue;
            };
            let Some((_, field)) = Field::ALL.into_iter().find(|(known, _)| *known == word) else {
                return Err(TemplateError { name: word.to_owned() });
            };
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Field(field));
            rest = behind;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Template { parts })
    }

    /// Whether it begins like a JSON object or array.
    pub fn looks_like_json(&self) -> bool {
        matches!(self.parts.first(), Some(Part::Text(text)) if text.trim_start().starts_with(['{', '[']))
    }

    /// The text for a notice, with each value as `quote` writes it.
    pub fn render(&self, notice: &Notice, quote: impl Fn(String) -> String) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Field(field) => quote(notice.field(*field)),
        };
        self.parts.iter().map(part).collect()
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

/// A value within the quotes of a JSON text.
pub fn within_json(value: String) -> String {
    let quoted = serde_json::Value::String(value).to_string();
    quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::State;
    use crate::alert::announce::tests::step;
    use crate::notify::notice::tests::{digest, notice};

    fn render(text: &str) -> String {
        Template::parse(text).unwrap().render(&notice("ab", 0), within_json)
    }

    #[test]
    fn placeholders_stand_for_what_the_alert_has_and_other_braces_for_themselves() {
        assert_eq!(render("{device} is {state}: {value}{unit} > {threshold}"), "d1 is firing: 31.5°C > 30");
        assert_eq!(render(r#"{"text": "{message}", "n": {}}"#), r#"{"text": "d1: too hot", "n": {}}"#);
        assert_eq!(render("{ state } {{rule}} {"), "{ state } {too-hot} {");
        assert_eq!(render(""), "");
        let of_digest = Template::parse("{rule} {state} {severity}{device}{level}: {message}").unwrap();
        let expected = "too-hot digest critical: 137 more of rule too-hot: 120 firing, 17 resolved";
        assert_eq!(of_digest.render(&digest(), |value| value), expected);
        assert_eq!(render("{since}/{at}"), "2023-11-14T22:13:20Z/2023-11-14T22:13:21.5Z");
    }

    #[test]
    fn an_unknown_placeholder_is_refused_with_a_suggestion() {
        let error = Template::parse("{mesage}").unwrap_err().to_string();
        assert!(error.contains("`{mesage}`") && error.contains("message"), "{error}");
        assert!(Template::parse("{colour}").unwrap_err().to_string().contains("known are id"));
    }

    #[test]
    fn values_can_be_put_into_json() {
        assert_eq!(within_json("a\"b\n".to_owned()), r#"a\"b\n"#);
        let mut quoted = step("ab", 0, State::Firing);
        quoted.message = "say \"hot\"".to_owned();
        let body =
            Template::parse(r#"{"m":"{message}"}"#).unwrap().render(&Notice::of_step(quoted.into()), within_json);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&body).unwrap()["m"], "say \"hot\"");
    }
}
