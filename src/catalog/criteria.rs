//! What a template says of the devices that it is for (`[match]`).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::pattern::Pattern;

/// The criteria of a template's `[match]`: all that are given must hold; of a list, any.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Criteria {
    /// Names of decoders.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub decoder: Vec<String>,
    /// Names of configured sources.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source: Vec<String>,
    /// MQTT topic filters, which [`crate::source::Filter`] reads.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub topic: Vec<String>,
    /// Over the uid, as it is written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device: Vec<Glob>,
    /// Over the model that the payload tells, in any case.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub model: Vec<Glob>,
    /// Over the manufacturer that the payload tells, in any case.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub manufacturer: Vec<Glob>,
    /// Raw keys, and the values as text of which each must have one.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, Vec<String>>,
    /// Raw keys that are all in one message.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<Pattern>,
}

impl Criteria {
    /// How many criteria are given.
    pub fn criteria(&self) -> usize {
        let lists = [self.decoder.is_empty(), self.source.is_empty(), self.topic.is_empty(), self.device.is_empty()];
        let more = [self.model.is_empty(), self.manufacturer.is_empty(), self.fields.is_empty(), self.keys.is_empty()];
        lists.iter().chain(&more).filter(|empty| !**empty).count()
    }
}

/// A text in which `*` stands for any run of characters, also none, and `?` for one.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Glob(String);

impl Glob {
    pub fn new(text: impl Into<String>) -> Glob {
        Glob(text.into())
    }

    pub fn text(&self) -> &str {
        &self.0
    }

    /// Whether it matches all of `text`.
    pub fn matches(&self, text: &str) -> bool {
        glob(&self.0, text, |a, b| a == b)
    }

    /// Whether it matches all of `text`, in any case.
    pub fn matches_any_case(&self, text: &str) -> bool {
        glob(&self.0, text, |a, b| a == b || a.to_lowercase().eq(b.to_lowercase()))
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Takes at most as many steps as the product of both lengths: only the last star is ever tried anew.
fn glob(pattern: &str, text: &str, same: impl Fn(char, char) -> bool) -> bool {
    let (mut pattern, mut text) = (pattern.chars(), text.chars());
    let mut star: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
    loop {
        let (mut ahead, before) = (pattern.clone(), text.clone());
        match (ahead.next(), text.next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                star = Some((ahead.clone(), before.clone()));
                (pattern, text) = (ahead, before);
                continue;
            }
            (Some('?'), Some(_)) => {
                pattern = ahead;
                continue;
            }
            (Some(wanted), Some(found)) if same(wanted, found) => {
                pattern = ahead;
                continue;
            }
            _ => {}
        }
        // The last star takes one character more.
        let Some((behind, from)) = &mut star else { return false };
        if from.next().is_none() {
            return false;
        }
        (pattern, text) = (behind.clone(), from.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn globs_match_the_whole_text() {
        for (glob, text, matches) in [
            ("shellyplus1pm-*", "shellyplus1pm-a8032a", true),
            ("shellyplus1pm-*", "shellyplus1pm", false),
            ("*", "", true),
            ("", "", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*ab*ab", "abxab", true),
            ("*ab*ab", "ab", false),
            ("a*", "A1", false),
        ] {
            assert_eq!(Glob::new(glob).matches(text), matches, "{glob} {text}");
        }
        assert!(Glob::new("wsdcgq*LM").matches_any_case("WSDCGQ11lm"));
    }

    /// As the definition has it, in as many steps as it takes.
    fn plainly(glob: &[char], text: &[char]) -> bool {
        match (glob.split_first(), text.split_first()) {
            (None, None) => true,
            (Some(('*', rest)), _) => (0..=text.len()).any(|taken| plainly(rest, &text[taken..])),
            (Some((wanted, glob)), Some((found, text))) => (*wanted == '?' || wanted == found) && plainly(glob, text),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn globs_do_as_defined(glob in "[ab*?]{0,8}", text in "[ab]{0,10}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(Glob::new(glob.as_str()).matches(&text), plainly(&chars(&glob), &chars(&text)));
        }
    }
}
