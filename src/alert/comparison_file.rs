//! The comparison of a condition as a file has it: `gt = 30.0`, `inside = [2, 8]`, `eq = "open"`.

use super::rule::Compare;
use crate::config::document::Value;
use crate::config::fault::Wrong;
use crate::config::section::{Section, as_number};

/// Of each condition at most one.
pub(super) const KEYS: [&str; 8] = ["gt", "lt", "gte", "lte", "eq", "ne", "inside", "outside"];
/// Most texts that a condition compares with.
const MAX_TEXTS: usize = 64;
/// Most bytes of each.
const MAX_TEXT: usize = 1024;

/// What a condition compares with.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Given {
    Number(Compare),
    /// With `not`: none of them.
    Text {
        any: Vec<String>,
        not: bool,
    },
}

/// Whether there is one, right or not.
pub(super) fn is_given(section: &Section<'_>) -> bool {
    KEYS.iter().any(|key| section.has(key))
}

/// The key that is given.
pub(super) fn given_key(section: &Section<'_>) -> &'static str {
    KEYS.into_iter().find(|key| section.has(key)).unwrap_or("gt")
}

/// The key that it is written by.
pub(super) fn key(compare: Compare) -> &'static str {
    match compare {
        Compare::Gt(_) => "gt",
        Compare::Lt(_) => "lt",
        Compare::Gte(_) => "gte",
        Compare::Lte(_) => "lte",
        Compare::Eq(_) => "eq",
        Compare::Ne(_) => "ne",
        Compare::Inside(..) => "inside",
        Compare::Outside(..) => "outside",
    }
}

/// None where none is given, or it has a fault.
pub(super) fn read(section: &mut Section<'_>) -> Option<Given> {
    // Each is read, so that the faults of all are told.
    let number = |number: Option<f64>, compare: fn(f64) -> Compare| number.map(compare).map(Given::Number);
    let (gt, lt) = (section.number("gt"), section.number("lt"));
    let (gte, lte) = (section.number("gte"), section.number("lte"));
    let all = [
        number(gt, Compare::Gt),
        number(lt, Compare::Lt),
        number(gte, Compare::Gte),
        number(lte, Compare::Lte),
        equality(section, "eq", false),
        equality(section, "ne", true),
        bounds(section, "inside").map(|(low, high)| Given::Number(Compare::Inside(low, high))),
        bounds(section, "outside").map(|(low, high)| Given::Number(Compare::Outside(low, high))),
    ];
    let mut given = KEYS.into_iter().filter(|key| section.has(key));
    let (Some(first), second) = (given.next(), given.next()) else { return None };
    let Some(second) = second else { return all.into_iter().flatten().next() };
    let range = above(gt.or(gte), lt.or(lte));
    let message = format!("stands beside {first}; a condition compares once");
    section.fault(second, Wrong::new(message).suggest(range));
    None
}

/// The range that a lower and an upper bound beside each other were probably meant as.
fn above(above: Option<f64>, below: Option<f64>) -> Option<String> {
    let (above, below) = above.zip(below)?;
    Some(match above < below {
        true => format!("did you mean `inside = [{above:?}, {below:?}]`?"),
        false => format!("did you mean `outside = [{below:?}, {above:?}]`?"),
    })
}

/// `[low, high]`.
fn bounds(section: &mut Section<'_>, key: &'static str) -> Option<(f64, f64)> {
    let numbers = section.numbers(key)?;
    match *numbers.as_slice() {
        [low, high] if low <= high => Some((low, high)),
        [low, high] => {
            let suggestion = Some(format!("did you mean `{key} = [{high:?}, {low:?}]`?"));
            let message = format!("the lower bound {low} is above the upper bound {high}");
            section.fault(key, Wrong::new(message).suggest(suggestion));
            None
        }
        _ => {
            section.fault(key, format!("expected [lowest, highest], found {} numbers", numbers.len()));
            None
        }
    }
}

/// A number, `true` or `false`, a text, or a list of texts.
fn equality(section: &mut Section<'_>, key: &'static str, not: bool) -> Option<Given> {
    let number = |number| Given::Number(if not { Compare::Ne(number) } else { Compare::Eq(number) });
    let read = match &section.node(key)?.value {
        Value::Text(text) => texts([text.as_str()].into_iter()),
        Value::Flag(flag) => return Some(number(f64::from(u8::from(*flag)))),
        Value::List(items) => {
            let all = items.iter().map(|item| match &item.value {
                Value::Text(text) => Some(text.as_str()),
                _ => None,
            });
            match all.collect::<Option<Vec<&str>>>() {
                Some(all) => texts(all.into_iter()),
                None => Err(Wrong::new("expected a list of texts alone")
                    .suggest(Some("of numbers, list conditions with one each, by any = [{…}, {…}]".to_owned()))),
            }
        }
        other => match as_number(other) {
            Some(value) => return Some(number(value)),
            None => Err(Wrong::new(format!(
                "expected a finite number, true or false, a text, or a list of texts, found {}",
                other.kind()
            ))),
        },
    };
    match read {
        Ok(any) => Some(Given::Text { any, not }),
        Err(wrong) => {
            section.fault(key, wrong);
            None
        }
    }
}

fn texts<'a>(texts: impl ExactSizeIterator<Item = &'a str>) -> Result<Vec<String>, Wrong> {
    if !(1..=MAX_TEXTS).contains(&texts.len()) {
        return Err(format!("{} texts are given, expected 1 to {MAX_TEXTS}", texts.len()).into());
    }
    let texts: Vec<String> = texts.map(str::to_owned).collect();
    match texts.iter().find(|text| text.len() > MAX_TEXT) {
        Some(text) => Err(format!("a text has {} bytes, {MAX_TEXT} are the most", text.len()).into()),
        None => Ok(texts),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::config::document::Document;
    use crate::config::section::Findings;

    fn read_text(text: &str) -> (Option<Given>, Vec<String>) {
        let findings = Findings::default();
        let document = Document::parse(&Arc::from(Path::new("r.toml")), text);
        let given = findings.read(&document, read);
        (given, findings.into_inner().faults.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn each_comparison_is_read() {
        let texts = |any: &[&str], not| Given::Text { any: any.iter().map(|&text| text.to_owned()).collect(), not };
        for (text, given) in [
            ("gt = 30", Given::Number(Compare::Gt(30.0))),
            ("lt = -0.5", Given::Number(Compare::Lt(-0.5))),
            ("gte = 1e3", Given::Number(Compare::Gte(1000.0))),
            ("lte = 0x10", Given::Number(Compare::Lte(16.0))),
            ("eq = 3", Given::Number(Compare::Eq(3.0))),
            ("ne = 3.5", Given::Number(Compare::Ne(3.5))),
            ("eq = true", Given::Number(Compare::Eq(1.0))),
            ("ne = false", Given::Number(Compare::Ne(0.0))),
            ("inside = [2, 8.5]", Given::Number(Compare::Inside(2.0, 8.5))),
            ("outside = [-1, -1]", Given::Number(Compare::Outside(-1.0, -1.0))),
            ("eq = 'open'", texts(&["open"], false)),
            ("ne = ['ok', 'idle']", texts(&["ok", "idle"], true)),
        ] {
            assert_eq!(read_text(text), (Some(given), Vec::new()), "{text}");
        }
        assert_eq!(read_text(""), (None, Vec::new()));
    }

    #[test]
    fn what_can_not_be_compared_with_is_a_fault() {
        for (text, fault) in [
            ("gt = nan", "gt: expected a finite number, found a number that is not finite"),
            ("eq = inf", "found a number that is not finite"),
            ("gt = '30'", "gt: expected a finite number, found a text"),
            ("inside = [8, 2]", "the lower bound 8 is above the upper bound 2 (did you mean `inside = [2.0, 8.0]`?)"),
            ("outside = [1]", "outside: expected [lowest, highest], found 1 numbers"),
            ("inside = [nan, 2]", "inside: expected a list of finite numbers"),
            ("gt = 2\nlt = 8", "lt: stands beside gt; a condition compares once (did you mean `inside = [2.0, 8.0]`?)"),
            (
                "gte = 8\nlt = 2",
                "gte: stands beside lt; a condition compares once (did you mean `outside = [2.0, 8.0]`?)",
            ),
            ("eq = 1\nne = 2", "ne: stands beside eq"),
            ("eq = []", "eq: 0 texts are given, expected 1 to 64"),
            ("eq = [1, 2]", "eq: expected a list of texts alone (of numbers, list conditions"),
            ("ne = {}", "ne: expected a finite number, true or false, a text, or a list of texts, found a table"),
        ] {
            let (given, faults) = read_text(text);
            assert_eq!(given, None, "{text}");
            assert!(faults.len() == 1 && faults[0].contains(fault), "{text}: {faults:?}");
        }
    }
}
