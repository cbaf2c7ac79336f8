//! Topics on which answers come, as patterns with names: `stat/{device}/RESULT`, `{device}/rpc/{id}`, `+` and a last `#`. Any other
//! placeholder of commands in a level is what the command that is answered has there: `homie/{device}/{params.node}/+`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::text::{Facts, Text};

/// Longest pattern, bytes.
const MAX_PATTERN: usize = 1024;

#[derive(Clone, Debug, PartialEq)]
enum Level {
    Literal(String),
    Any,
    Named(Name),
    /// What a command has there.
    Filled(Text),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Device,
    Tenant,
    Id,
    Command,
}

/// A pattern of topics; see the module.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    written: String,
    levels: Vec<Level>,
    /// Whether it ends in `#`.
    rest: bool,
}

/// What the names of a pattern stood for in one topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found<'t> {
    pub device: &'t str,
    pub tenant: Option<&'t str>,
    pub id: Option<&'t str>,
    pub name: Option<&'t str>,
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.written.fmt(f)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> String {
        pattern.written
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(written: String) -> Result<Pattern, String> {
        Pattern::parse(&written)
    }
}

impl Pattern {
    /// Reads a pattern as written.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(written: &str) -> Result<Pattern, String> {
        if written.is_empty() || written.len() > MAX_PATTERN || written.contains('\0') {
            return Err(format!("expected a topic of 1 to {MAX_PATTERN} bytes without NUL"));
        }
        let mut pattern = Pattern { written: written.to_owned(), levels: Vec::new(), rest: false };
        let mut parts = written.split('/').peekable();
        while let Some(part) = parts.next() {
            let level = match part {
                "#" if parts.peek().is_none() => {
                    pattern.rest = true;
                    break;
                }
                "+" => Level::Any,
                "{device}" => Level::Named(Name::Device),
                "{tenant}" => Level::Named(Name::Tenant),
                "{id}" => Level::Named(Name::Id),
                "{name}" => Level::Named(Name::Command),
                plain if plain.contains(['+', '#']) => {
                    return Err(format!(
                        "the level `{plain}` is neither plain nor one of {{device}} {{tenant}} {{id}} {{name}} + and a last #"
                    ));
                }
                filled if filled.contains(['{', '}']) => Level::Filled(
                    Text::parse(filled).map_err(|wrong| format!("the level `{filled}`: {}", wrong.message))?,
                ),
                plain => Level::Literal(plain.to_owned()),
            };
            pattern.levels.push(level);
        }
        match pattern.levels.first() {
            Some(Level::Literal(first)) if first == "tidegate" => {
                return Err("topics under tidegate/ are tidegate's own".to_owned());
            }
            _ => {}
        }
        let devices = pattern.levels.iter().filter(|level| **level == Level::Named(Name::Device)).count();
        if devices > 1 {
            return Err("a level {device} is given twice".to_owned());
        }
        Ok(pattern)
    }

    /// How many levels its topics have; none where it ends in `#`.
    pub fn length(&self) -> Option<usize> {
        (!self.rest).then_some(self.levels.len())
    }

    /// Whether the topic says who answers.
    pub fn names_device(&self) -> bool {
        self.levels.contains(&Level::Named(Name::Device))
    }

    /// What to subscribe to.
    pub fn subscription(&self) -> String {
        let levels = self.levels.iter().map(|level| match level {
            Level::Literal(literal) => literal.as_str(),
            Level::Any | Level::Named(_) | Level::Filled(_) => "+",
        });
        levels.chain(self.rest.then_some("#")).collect::<Vec<_>>().join("/")
    }

    /// What the names stand for, where it matches. A pattern that begins with a wildcard matches neither `$…` (MQTT 5, 4.7.2) nor
    /// `tidegate/…`.
    pub fn find<'t>(&self, topic: &'t str) -> Option<Found<'t>> {
        let mut found = Found::default();
        let mut parts = topic.split('/');
        for (index, level) in self.levels.iter().enumerate() {
            let part = parts.next()?;
            match level {
                Level::Literal(literal) if literal == part => continue,
                Level::Literal(_) => return None,
                Level::Any | Level::Named(_) | Level::Filled(_)
                    if index == 0 && (part.starts_with('$') || part == "tidegate") =>
                {
                    return None;
                }
                Level::Any | Level::Filled(_) => {}
                Level::Named(Name::Device) => found.device = part,
                Level::Named(Name::Tenant) => found.tenant = Some(part),
                Level::Named(Name::Id) => found.id = Some(part),
                Level::Named(Name::Command) => found.name = Some(part),
            }
        }
        let is_whole = self.rest || parts.next().is_none();
        is_whole.then_some(found).filter(|found| !found.device.is_empty() || !self.names_device())
    }

    /// Whether a topic that matches has what a command has, wherever one of its placeholders stands.
    pub fn agrees(&self, topic: &str, facts: &Facts<'_>) -> bool {
        self.levels.iter().zip(topic.split('/')).all(|(level, part)| match level {
            Level::Filled(text) => text.fill(facts).is_ok_and(|filled| filled == part),
            Level::Literal(_) | Level::Any | Level::Named(_) => true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_wildcards_match_levels() {
        let pattern = Pattern::parse("stat/{device}/+/{name}/{id}").unwrap();
        assert_eq!(pattern.subscription(), "stat/+/+/+/+");
        let found = Found { device: "d", tenant: None, id: Some("7"), name: Some("n") };
        assert_eq!(pattern.find("stat/d/x/n/7"), Some(found));
        for other in ["stat/d/x/n", "stat/d/x/n/7/8", "tele/d/x/n/7", "stat//x/n/7"] {
            assert_eq!(pattern.find(other), None, "{other}");
        }
        let rest = Pattern::parse("{tenant}/{device}/#").unwrap();
        assert_eq!(rest.subscription(), "+/+/#");
        assert_eq!(rest.find("t/d").unwrap().tenant, Some("t"));
        assert!(rest.find("t/d/e/f").is_some());
        assert!(rest.find("$SYS/d").is_none() && rest.find("tidegate/d").is_none());
    }

    #[test]
    fn a_level_may_be_what_the_command_has() {
        let pattern = Pattern::parse("shellies/{device}/relay/{params.channel:int=0}").unwrap();
        assert_eq!(pattern.subscription(), "shellies/+/relay/+");
        let (one, none) = (serde_json::json!({ "channel": 1 }), serde_json::json!({}));
        let tags = std::collections::BTreeMap::new();
        let facts = |params| Facts {
            id: "c1",
            name: "set",
            tenant: "default",
            device: "d",
            gateway: None,
            tags: &tags,
            params,
            expires_at: crate::time::UtcMicros(0),
            at: crate::time::UtcMicros(0),
        };
        assert!(pattern.find("shellies/d/relay/1").is_some());
        assert!(
            pattern.agrees("shellies/d/relay/1", &facts(&one)) && !pattern.agrees("shellies/d/relay/0", &facts(&one))
        );
        assert!(pattern.agrees("shellies/d/relay/0", &facts(&none)));
        let of_many = Pattern::parse("bridge/logging").unwrap();
        assert!(!of_many.names_device() && of_many.find("bridge/logging").is_some());
    }

    #[test]
    fn what_is_no_pattern_is_told() {
        for bad in [
            "",
            "{device}/{device}",
            "a/#/{device}",
            "{device}/x+",
            "{device}/{uid}",
            "tidegate/{device}",
            "{device}\0",
        ] {
            assert!(Pattern::parse(bad).is_err(), "{bad:?}");
        }
    }
}
