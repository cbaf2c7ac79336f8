//! docs/metrics.md is the vocabulary, and every shipped template keeps to it.

use std::collections::BTreeMap;

use tidegate::catalog::{Kind, unit};

use super::rig::Library;

const PAGE: &str = include_str!("../../docs/metrics.md");

struct Word {
    unit: String,
    code: String,
    kind: Kind,
}

/// The rows of all tables, by name.
fn words() -> BTreeMap<String, Word> {
    let mut words = BTreeMap::new();
    for line in PAGE.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let [_, name, unit, code, kind, ..] = cells.as_slice() else { panic!("{line}") };
        let kind = match *kind {
            "number" => Kind::Number,
            "bool" => Kind::Bool,
            "text" => Kind::Text,
            other => panic!("{name}: {other}"),
        };
        let word = Word { unit: (*unit).to_owned(), code: (*code).to_owned(), kind };
        assert!(words.insert((*name).to_owned(), word).is_none(), "{name} stands there twice");
    }
    words
}

/// The word that a metric's name is, or that its channel stands behind.
fn word_of<'w>(words: &'w BTreeMap<String, Word>, metric: &str) -> Option<(&'w str, &'w Word)> {
    let is = |word: &str| metric.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'));
    let found = words.iter().filter(|(word, _)| is(word)).max_by_key(|(word, _)| word.len());
    found.map(|(name, word)| (name.as_str(), word))
}

#[test]
fn every_unit_of_the_vocabulary_stands_with_its_code() {
    let words = words();
    assert!(words.len() > 100);
    for (name, word) in &words {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        assert!(name.bytes().all(plain), "{name}");
        let code = unit::find(&word.unit).map_or("", |unit| unit.ucum);
        assert_eq!(word.code, code, "{name} in {:?}", word.unit);
        assert!(word.kind == Kind::Number || word.unit.is_empty(), "{name}");
    }
}

#[test]
fn every_metric_of_every_template_is_in_the_vocabulary() {
    let words = words();
    let mut faults = Vec::new();
    for read in Library::shipped().templates {
        let template = read.template;
        let metrics = template.metrics.iter().map(|metric| (&metric.name, &metric.unit, metric.kind));
        let derived = template.derived.iter().map(|derived| (&derived.name, &derived.unit, Kind::Number));
        for (name, unit, kind) in metrics.chain(derived) {
            match word_of(&words, name) {
                None => faults.push(format!("{}: {name} is not in docs/metrics.md", template.slug)),
                Some((word, meant)) if (&meant.unit, meant.kind) != (unit, kind) => {
                    faults.push(format!("{}: {name} is {kind:?} in {unit:?}, other than {word}", template.slug));
                }
                Some(_) => {}
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
