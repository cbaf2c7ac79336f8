//! The value templates that are a plain path. Documentation of Home Assistant, *Templating*; nothing else of Jinja is read.

use serde::{Deserialize, Serialize};

use super::super::document::Node;

/// A step into a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Step {
    Member(String),
    Element(u32),
}

/// What a value template takes of a payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Template {
    /// The payload as it is: no template, or `{{ value }}`.
    Whole,
    /// `{{ value_json.a['b'][0] }}`, perhaps with `| is_defined`: absent is absence here anyway.
    Path(Vec<Step>),
}

impl Template {
    /// None: more than a plain path, or one of more than `most` steps.
    pub(super) fn read(text: &str, most: usize) -> Option<Template> {
        let inner = text.trim_ascii().strip_prefix("{{")?.strip_suffix("}}")?;
        let inner = inner.trim_start_matches('-').trim_end_matches('-').trim_ascii();
        let (inner, filter) = inner.split_once('|').unwrap_or((inner, "is_defined"));
        if filter.trim_ascii() != "is_defined" {
            return None;
        }
        let inner = inner.trim_ascii();
        if inner == "value" {
            return Some(Template::Whole);
        }
        let mut left = inner.strip_prefix("value_json")?;
        let mut steps = Vec::new();
        while !left.is_empty() {
            if steps.len() == most {
                return None;
            }
            let (step, after) = step(left)?;
            steps.push(step);
            left = after;
        }
        Some(Template::Path(steps))
    }

    /// What a path leads to.
    pub(super) fn follow<'n>(path: &[Step], document: &'n Node) -> Option<&'n Node> {
        path.iter().try_fold(document, |node, step| match step {
            Step::Member(key) => node.get(key),
            Step::Element(index) => node.elements().get(usize::try_from(*index).ok()?),
        })
    }
}

/// The step that the text begins with, and what follows it.
fn step(text: &str) -> Option<(Step, &str)> {
    if let Some(rest) = text.strip_prefix('.') {
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        let (name, after) = rest.split_at_checked(end)?;
        let begins_a_name = name.starts_with(|c: char| c.is_alphabetic() || c == '_');
        return begins_a_name.then(|| (Step::Member(name.to_owned()), after));
    }
    let rest = text.strip_prefix('[')?.trim_ascii_start();
    let (step, after) = match rest.chars().next()? {
        quote @ ('\'' | '"') => {
            let (name, after) = rest.strip_prefix(quote)?.split_once(quote)?;
            (Step::Member((!name.contains('\\')).then(|| name.to_owned())?), after)
        }
        _ => {
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (digits, after) = rest.split_at_checked(end)?;
            (Step::Element(digits.parse().ok()?), after)
        }
    };
    Some((step, after.trim_ascii_start().strip_prefix(']')?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(text: &str) -> Option<String> {
        let Template::Path(steps) = Template::read(text, 8)? else { return Some("whole".into()) };
        let shown = |step: &Step| match step {
            Step::Member(key) => format!("<{key}>"),
            Step::Element(index) => index.to_string(),
        };
        Some(steps.iter().map(shown).collect())
    }

    #[test]
    fn plain_paths_are_read() {
        for (text, found) in [
            ("{{ value_json.temperature }}", "<temperature>"),
            ("{{value_json['ENERGY'][\"Power\"][1]}}", "<ENERGY><Power>1"),
            ("{{- value_json.a.b[ 'PM2.5' ] -}}", "<a><b><PM2.5>"),
            ("{{ value_json.tempc | is_defined }}", "<tempc>"),
            (" {{ value_json }}\n", ""),
            ("{{ value }}", "whole"),
        ] {
            assert_eq!(path(text).as_deref(), Some(found), "{text}");
        }
    }

    #[test]
    fn anything_else_is_not() {
        for text in [
            "",
            "x",
            "{{ }}",
            "{{}}}",
            "{{ value_json.a | float }}",
            "{{ value_json.a + 1 }}",
            "{{ value_json.a.1 }}",
            "{{ value_json.a-b }}",
            "{{ value_json['a\\'b'] }}",
            "{{ value_json[-1] }}",
            "{{ value_json[99999999999] }}",
            "{{ value_json.get('a') }}",
            "{{ value_json.a }} {{ value_json.b }}",
            "{% if value_json.a %}1{% endif %}",
            "{{ value_json.a.b.c.d.e.f.g.h.i }}",
        ] {
            assert_eq!(path(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_template_panics(text in "\\{\\{( ?value(_json)?)?[\\[\\].'\"a0é| -]*\\}\\}") {
            let _ = Template::read(&text, 4);
        }
    }
}
