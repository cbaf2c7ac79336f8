//! Raw keys with placeholders, and the names of the sensors that they stand for.
//!
//! | placeholder | stands for | the sensor's name |
//! | --- | --- | --- |
//! | `{n}`, `{n+1}` | a number counted from 1, or from 0 | the metric's, from the second on with `_2`, `_3`, … |
//! | `{word}` | one run of characters other than `. / [ ]` | holds it in lower case, all but `a-z 0-9` as `_` |
//! | `*` | one run of characters other than `.` | the metric's for the first key seen, then `_2`, `_3`, … |
//!
//! A backslash before `* { }` or `\` means that character itself.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::MAX_NAME;
use crate::config::fault::Wrong;

/// Most placeholders of one pattern.
const MAX_PLACEHOLDERS: usize = 6;
/// Most digits of a number that a placeholder stands for.
const MAX_DIGITS: usize = 6;
/// Most comparisons for one key: what takes more does not match. Reached only by keys made for it.
const MAX_STEPS: u32 = 4096;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    /// Counted from 0 or from 1.
    Number {
        first: u32,
    },
    Word(String),
    Star,
}

/// A raw key, or a pattern of raw keys.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Pattern {
    /// As written.
    text: String,
    parts: Vec<Part>,
}

/// What the placeholders of a pattern stood for in one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captured<'p, 'k> {
    /// Counted from 1.
    pub number: Option<u32>,
    /// Name of the placeholder, and what it stood for.
    pub words: Vec<(&'p str, &'k str)>,
    /// Whether the sensor's name depends on which keys came before.
    pub starred: bool,
}

impl Pattern {
    /// The key itself, whatever characters it has.
    pub fn exact(key: impl Into<String>) -> Pattern {
        let key: String = key.into();
        let text = key.chars().fold(String::with_capacity(key.len()), |mut text, letter| {
            if is_special(letter) {
                text.push('\\');
            }
            text.push(letter);
            text
        });
        Pattern { text, parts: vec![Part::Literal(key)] }
    }

    /// Reads a key as a template has it.
    ///
    /// # Errors
    /// A pattern that could match nothing, or that leaves open what a placeholder stands for.
    pub fn parse(text: &str) -> Result<Pattern, Wrong> {
        if text.is_empty() || text.len() > MAX_NAME || text.contains('\0') {
            return Err(format!("expected keys of 1 to {MAX_NAME} bytes without NUL").into());
        }
        let parts = parts(text)?;
        let placeholders = parts.iter().filter(|part| !matches!(part, Part::Literal(_))).count();
        if placeholders > MAX_PLACEHOLDERS {
            return Err(format!("\"{text}\" has {placeholders} placeholders, {MAX_PLACEHOLDERS} are the most").into());
        }
        if let Some([left, right]) = parts.windows(2).find_map(neighbours) {
            let message = format!("\"{text}\": {left} and {right} stand side by side, so that nobody could tell where");
            return Err(Wrong::new(format!("{message} one ends")).suggest(Some("put text between them".to_owned())));
        }
        let pattern = Pattern { text: text.to_owned(), parts };
        pattern.check_counters()?;
        Ok(pattern)
    }

    fn check_counters(&self) -> Result<(), Wrong> {
        let text = &self.text;
        let numbers = self.parts.iter().filter(|part| matches!(part, Part::Number { .. })).count();
        let stars = self.parts.iter().filter(|part| matches!(part, Part::Star)).count();
        if numbers + stars > 1 {
            let message =
                format!("\"{text}\" has more than one of {{n}}, {{n+1}} and *, of which each numbers sensors");
            let suggestion = "give all but one a word, such as {channel}, and put it into the metric's name";
            return Err(Wrong::new(message).suggest(Some(suggestion.to_owned())));
        }
        let mut words = self.words();
        let twice = words.clone().find(|word| words.by_ref().filter(|other| other == word).count() > 1);
        match twice {
            Some(word) => Err(format!("\"{text}\" has {{{word}}} twice").into()),
            None => Ok(()),
        }
    }

    /// As written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The one key that it stands for, if it has no placeholder.
    pub fn literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [Part::Literal(key)] => Some(key),
            _ => None,
        }
    }

    /// Names of its word placeholders.
    pub fn words(&self) -> impl Iterator<Item = &str> + Clone {
        self.parts.iter().filter_map(|part| match part {
            Part::Word(word) => Some(word.as_str()),
            _ => None,
        })
    }

    /// Whether the metric may have several sensors numbered by it.
    pub fn numbers(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Number { .. } | Part::Star))
    }

    /// Whether it has a `*`.
    pub fn is_starred(&self) -> bool {
        self.parts.contains(&Part::Star)
    }

    /// Equal for patterns that match the same keys.
    pub fn shape(&self) -> String {
        let shape = |part: &Part| match part {
            Part::Literal(text) if !text.contains(is_special) => text.clone(),
            Part::Literal(text) => Pattern::exact(text.as_str()).text,
            Part::Number { .. } => "{#}".to_owned(),
            Part::Word(_) => "{}".to_owned(),
            Part::Star => "*".to_owned(),
        };
        self.parts.iter().map(shape).collect()
    }

    /// What its placeholders stand for in a key; none if it does not match.
    pub fn captures<'p, 'k>(&'p self, key: &'k str) -> Option<Captured<'p, 'k>> {
        let mut captured = Captured::default();
        let mut steps = 0;
        walk(&self.parts, key, &mut captured, &mut steps).then_some(captured)
    }

    /// Whether it matches a key.
    pub fn matches(&self, key: &str) -> bool {
        self.captures(key).is_some()
    }
}

/// A row of the database may be older than placeholders: what is no pattern is the key itself.
impl From<String> for Pattern {
    fn from(text: String) -> Pattern {
        Pattern::parse(&text).unwrap_or_else(|_| Pattern::exact(text))
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> String {
        pattern.text
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

/// A test or a simple template names a key by its text.
impl PartialEq<&str> for Pattern {
    fn eq(&self, other: &&str) -> bool {
        self.text == *other
    }
}

fn is_special(letter: char) -> bool {
    matches!(letter, '*' | '{' | '}' | '\\')
}

fn parts(text: &str) -> Result<Vec<Part>, Wrong> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let mut after = rest.get(letter.len_utf8()..).unwrap_or_default();
        let part = match letter {
            '\\' if after.starts_with(is_special) => {
                let special = after.chars().next().unwrap_or(letter);
                literal.push(special);
                after = after.get(1..).unwrap_or_default();
                None
            }
            '*' => Some(Part::Star),
            '{' => {
                let Some((inside, behind)) = after.split_once('}') else {
                    let suggestion = Some("close it, or write \\{ for the character itself".to_owned());
                    return Err(Wrong::new(format!("\"{text}\": the brace is not closed")).suggest(suggestion));
                };
                after = behind;
                Some(placeholder(text, inside)?)
            }
            '}' => {
                let suggestion = Some("write \\} for the character itself".to_owned());
                return Err(Wrong::new(format!("\"{text}\": a brace is closed that is not open")).suggest(suggestion));
            }
            other => {
                literal.push(other);
                None
            }
        };
        if let Some(part) = part {
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            parts.push(part);
        }
        rest = after;
    }
    if !literal.is_empty() {
        parts.push(Part::Literal(literal));
    }
    Ok(parts)
}

fn placeholder(text: &str, inside: &str) -> Result<Part, Wrong> {
    match inside {
        "n" => return Ok(Part::Number { first: 1 }),
        "n+1" => return Ok(Part::Number { first: 0 }),
        _ if is_word(inside) => return Ok(Part::Word(inside.to_owned())),
        _ => {}
    }
    let suggestion = if inside.starts_with("n+") || inside.starts_with("n-") || inside == "n0" {
        "{n} counts from 1, {n+1} from 0".to_owned()
    } else {
        "expected {n}, {n+1} or a word of a-z, 0-9 and _, such as {phase}".to_owned()
    };
    Err(Wrong::new(format!("\"{text}\": {{{inside}}} is no placeholder")).suggest(Some(suggestion)))
}

fn is_word(text: &str) -> bool {
    text.starts_with(|letter: char| letter.is_ascii_lowercase())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Two placeholders with nothing between them, as they are written.
fn neighbours(pair: &[Part]) -> Option<[String; 2]> {
    let shown = |part: &Part| match part {
        Part::Literal(_) => None,
        Part::Number { first: 0 } => Some("{n+1}".to_owned()),
        Part::Number { .. } => Some("{n}".to_owned()),
        Part::Word(word) => Some(format!("{{{word}}}")),
        Part::Star => Some("*".to_owned()),
    };
    match pair {
        [left, right] => Some([shown(left)?, shown(right)?]),
        _ => None,
    }
}

/// Whether the parts match all of the key; the shortest runs that let the rest match are taken.
fn walk<'p, 'k>(parts: &'p [Part], key: &'k str, captured: &mut Captured<'p, 'k>, steps: &mut u32) -> bool {
    *steps += 1;
    if *steps > MAX_STEPS {
        return false;
    }
    let Some((part, rest)) = parts.split_first() else { return key.is_empty() };
    match part {
        Part::Literal(literal) => {
            key.strip_prefix(literal.as_str()).is_some_and(|after| walk(rest, after, captured, steps))
        }
        Part::Number { first } => {
            let digits = key.bytes().take_while(u8::is_ascii_digit).count();
            let (number, after) = key.split_at(digits);
            let Some(number) = count(number, *first) else { return false };
            captured.number = Some(number);
            walk(rest, after, captured, steps)
        }
        Part::Word(word) => {
            let fits = |letter: char| !matches!(letter, '.' | '/' | '[' | ']');
            let depth = captured.words.len();
            runs(key, fits).any(|end| {
                let (run, after) = key.split_at(end);
                captured.words.truncate(depth);
                captured.words.push((word, run));
                walk(rest, after, captured, steps)
            })
        }
        Part::Star => {
            captured.starred = true;
            runs(key, |letter| letter != '.').any(|end| walk(rest, key.split_at(end).1, captured, steps))
        }
    }
}

/// Where the runs of fitting characters at the key's start may end, the shortest first.
fn runs(key: &str, fits: impl Fn(char) -> bool) -> impl Iterator<Item = usize> {
    key.char_indices().take_while(move |(_, letter)| fits(*letter)).map(|(at, letter)| at + letter.len_utf8())
}

/// The number counted from 1. Written with a leading zero it is no number: `01` would be another key of the same sensor.
fn count(digits: &str, first: u32) -> Option<u32> {
    if digits.len() > MAX_DIGITS || (digits.len() > 1 && digits.starts_with('0')) {
        return None;
    }
    let number: u32 = digits.parse().ok()?;
    number.checked_sub(first)?.checked_add(1)
}

/// Name of the sensor that a key stands for: the metric's name with its words put in. A number from 2 on is appended.
pub fn sensor_name(metric: &str, captured: &Captured<'_, '_>) -> String {
    let mut name = metric.to_owned();
    for (word, run) in &captured.words {
        let plain = run.chars().map(|letter| match letter.to_ascii_lowercase() {
            letter @ ('a'..='z' | '0'..='9') => letter,
            _ => '_',
        });
        name = name.replace(&format!("{{{word}}}"), &plain.collect::<String>());
    }
    numbered(name, captured.number.unwrap_or(1))
}

/// The name of the n-th sensor of a metric.
pub fn numbered(name: String, number: u32) -> String {
    if number < 2 { name } else { format!("{name}_{number}") }
}

/// Names of the placeholders in a metric's name.
pub fn words_in_name(name: &str) -> Vec<&str> {
    name.split('{').skip(1).filter_map(|part| part.split_once('}')).map(|(word, _)| word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    fn name(metric: &str, text: &str, key: &str) -> Option<String> {
        pattern(text).captures(key).map(|captured| sensor_name(metric, &captured))
    }

    #[test]
    fn numbers_count_from_one_or_from_zero() {
        assert_eq!(name("power", "switch:{n+1}.apower", "switch:0.apower").as_deref(), Some("power"));
        assert_eq!(name("power", "switch:{n+1}.apower", "switch:3.apower").as_deref(), Some("power_4"));
        assert_eq!(name("power", "POWER{n}", "POWER1").as_deref(), Some("power"));
        assert_eq!(name("power", "POWER{n}", "POWER12").as_deref(), Some("power_12"));
        for key in ["POWER", "POWER0", "POWER01", "POWER1x", "POWER1234567", "xPOWER1", "POWER-1"] {
            assert_eq!(name("power", "POWER{n}", key), None, "{key}");
        }
    }

    #[test]
    fn words_go_into_the_name() {
        let found = name("power_{phase}", "ENERGY.{phase}.P", "ENERGY.L1-N.P");
        assert_eq!(found.as_deref(), Some("power_l1_n"));
        assert_eq!(name("power_{phase}", "ENERGY.{phase}.P", "ENERGY.a.b.P"), None);
        assert_eq!(name("{a}_{b}", "{b}-{a}", "x-y-z").as_deref(), Some("y_z_x"));
        assert_eq!(name("x_{a}", "{a}_p_{n}", "q_p_7_p_2").as_deref(), Some("x_q_p_7_2"));
    }

    #[test]
    fn a_star_stops_at_a_dot_and_specials_can_be_escaped() {
        assert!(pattern("DS18B20*.Temperature").captures("DS18B20-1.Temperature").unwrap().starred);
        assert!(!pattern("DS18B20*.Temperature").matches("DS18B20-1.x.Temperature"));
        assert!(!pattern("DS18B20*.Temperature").matches("DS18B20.Temperature"));
        assert_eq!(pattern(r"a\*b\{n\}\c").literal(), Some(r"a*b{n}\c"));
        assert_eq!(Pattern::parse(Pattern::exact("a*{\\}").text()).unwrap().literal(), Some("a*{\\}"));
    }

    #[test]
    fn a_pattern_that_is_none_says_what_would_be_right() {
        for (text, part) in [
            ("a{n", "not closed"),
            ("a}", "not open"),
            ("a{n+2}", "{n} counts from 1"),
            ("a{}", "is no placeholder"),
            ("a{Phase}", "such as {phase}"),
            ("{a}{b}", "side by side"),
            ("{a}*", "side by side"),
            ("{n}.{n+1}", "more than one"),
            ("*.*", "more than one"),
            ("{a}.{a}", "twice"),
            ("", "1 to 255 bytes"),
        ] {
            let Wrong { message, suggestion } = Pattern::parse(text).unwrap_err();
            let told = format!("{message} {}", suggestion.unwrap_or_default());
            assert!(told.contains(part), "{text}: {told}");
        }
    }

    #[test]
    fn keys_made_to_take_long_do_not() {
        let pattern = pattern("{a}-{b}-{c}-{d}-x");
        assert!(!pattern.matches(&"-".repeat(255)));
        assert!(pattern.matches("1-2-3-4-x"));
    }

    proptest! {
        #[test]
        fn an_exact_key_matches_itself_alone(key in "[ -~]{1,40}", other in "[ -~]{1,40}") {
            let pattern = Pattern::exact(key.as_str());
            prop_assert!(pattern.matches(&key));
            prop_assert_eq!(pattern.matches(&other), key == other);
            prop_assert_eq!(Pattern::parse(pattern.text()).unwrap(), pattern);
        }

        #[test]
        fn no_text_panics_and_names_stay_plain(text in "[a-c*{}n+1.\\\\]{0,20}", key in "[a-c0-9.äß/]{0,20}") {
            if let Ok(pattern) = Pattern::parse(&text)
                && let Some(captured) = pattern.captures(&key)
            {
                let name: String = pattern.words().map(|word| format!("{{{word}}}")).collect();
                let name = sensor_name(&name, &captured);
                prop_assert!(name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')), "{}", name);
            }
        }
    }
}
