//! The structured parts of a template as the JSON text in its rows.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::StoreError;
use crate::catalog::matching::Criteria;
use crate::catalog::pattern::Pattern;
use crate::catalog::{Derived, Expression, Formula, Key, Kind, Metric, Rate, UnitField};

/// A raw key: a text, as all were once, or a table.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum KeyJson {
    Text(Pattern),
    Table {
        key: Pattern,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unit: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scale: Option<f64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        offset: Option<f64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unit_from: Option<String>,
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        units: BTreeMap<String, String>,
    },
}

#[derive(Serialize, Deserialize)]
struct DerivedJson {
    name: String,
    unit: String,
    range: Option<(f64, f64)>,
    within_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expression: Option<Expression>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rate: Option<RateJson>,
}

#[derive(Serialize, Deserialize)]
struct RateJson {
    of: String,
    per_ms: u64,
    rollover: Option<f64>,
}

pub(super) fn keys_of(text: &str, whose: &str) -> Result<Vec<Key>, StoreError> {
    let keys: Vec<KeyJson> = json(text, whose)?;
    let key = |key| match key {
        KeyJson::Text(pattern) => Key::of(pattern),
        KeyJson::Table { key, unit, scale, offset, unit_from, units } => {
            let unit_from = unit_from.map(|key| Box::new(UnitField { key, units }));
            Key { pattern: key, unit, scale, offset, unit_from }
        }
    };
    let mut keys: Vec<Key> = keys.into_iter().map(key).collect();
    keys.shrink_to_fit();
    Ok(keys)
}

pub(super) fn keys_as_json(keys: &[Key]) -> Result<String, StoreError> {
    let one = |key: &Key| {
        let Key { pattern, unit, scale, offset, unit_from } = key.clone();
        if !key.converts() {
            return KeyJson::Text(pattern);
        }
        let (unit_from, units) = unit_from.map(|field| (field.key, field.units)).unzip();
        KeyJson::Table { key: pattern, unit, scale, offset, unit_from, units: units.unwrap_or_default() }
    };
    as_json(&keys.iter().map(one).collect::<Vec<_>>())
}

/// `values` and `words`, one of which is empty.
type Enumeration = (BTreeMap<String, f64>, BTreeMap<String, String>);

/// What raw values stand for: the object in the column has numbers, or texts for a metric that is one.
pub(super) fn enumeration_of(kind: Kind, text: &str, whose: &str) -> Result<Enumeration, StoreError> {
    match kind {
        Kind::Text => Ok((BTreeMap::new(), json(text, whose)?)),
        Kind::Number | Kind::Bool => Ok((json(text, whose)?, BTreeMap::new())),
    }
}

pub(super) fn enumeration_as_json(metric: &Metric) -> Result<String, StoreError> {
    match metric.kind {
        Kind::Text => as_json(&metric.words),
        Kind::Number | Kind::Bool => as_json(&metric.values),
    }
}

/// `[match]` as an object, as all were once, or several as a list.
pub(super) fn matching_of(text: Option<&str>, whose: &str) -> Result<Vec<Criteria>, StoreError> {
    match text {
        None => Ok(Vec::new()),
        Some(several) if several.starts_with('[') => json(several, whose),
        Some(one) => json(one, whose).map(|one| vec![one]),
    }
}

/// None for a template that is only given by name.
pub(super) fn matching_as_json(matching: &[Criteria]) -> Result<Option<String>, StoreError> {
    match matching {
        [] => Ok(None),
        [one] => as_json(one).map(Some),
        several => as_json(&several).map(Some),
    }
}

pub(super) fn derived_of(text: &str, whose: &str) -> Result<Vec<Derived>, StoreError> {
    let all: Vec<DerivedJson> = json(text, whose)?;
    let one = |one: DerivedJson| {
        let rate = one.rate.map(|rate| {
            let per = Duration::from_millis(rate.per_ms);
            Formula::Rate(Rate { of: rate.of, per, rollover: rate.rollover })
        });
        let formula = one.expression.map(Formula::Expression).or(rate).ok_or_else(|| StoreError::Unfit {
            detail: format!("the template row of {whose} has a derived metric without a formula, {}", one.name),
        })?;
        let within = Duration::from_millis(one.within_ms);
        Ok(Derived { name: one.name, unit: one.unit, range: one.range, formula, within })
    };
    all.into_iter().map(one).collect()
}

pub(super) fn derived_as_json(derived: &[Derived]) -> Result<String, StoreError> {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let one = |one: &Derived| {
        let (expression, rate) = match &one.formula {
            Formula::Expression(expression) => (Some(expression.clone()), None),
            Formula::Rate(rate) => {
                let Rate { of, per, rollover } = rate.clone();
                (None, Some(RateJson { of, per_ms: millis(per), rollover }))
            }
        };
        let (name, unit, range, within_ms) = (one.name.clone(), one.unit.clone(), one.range, millis(one.within));
        DerivedJson { name, unit, range, within_ms, expression, rate }
    };
    as_json(&derived.iter().map(one).collect::<Vec<_>>())
}

pub(super) fn json<T: serde::de::DeserializeOwned>(text: &str, whose: &str) -> Result<T, StoreError> {
    serde_json::from_str(text)
        .map_err(|error| StoreError::Unfit { detail: format!("the template row of {whose} can't be read: {error}") })
}

pub(super) fn as_json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value)
        .map_err(|error| StoreError::Unfit { detail: format!("a template can't be written: {error}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_an_older_version_are_read() {
        let keys = keys_of(r#"["temp","a{b","x.*"]"#, "t").unwrap();
        assert_eq!(keys[0], Key::from("temp"));
        assert_eq!(keys[1].pattern.literal(), Some("a{b"));
        assert_eq!(keys_as_json(&keys).unwrap(), r#"["temp","a\\{b","x.*"]"#);
    }

    #[test]
    fn one_match_is_an_object_and_several_are_a_list() {
        let by_key = |key: &str| Criteria { keys: vec![key.into()], ..Criteria::default() };
        for all in [vec![], vec![by_key("a")], vec![by_key("a"), by_key("b")]] {
            let written = matching_as_json(&all).unwrap();
            assert_eq!(written.as_ref().map(|text| text.starts_with('[')), (!all.is_empty()).then_some(all.len() > 1));
            assert_eq!(matching_of(written.as_deref(), "t").unwrap(), all);
        }
        assert_eq!(matching_of(Some(r#"{"keys":["a"]}"#), "t").unwrap(), [by_key("a")]);
        assert!(matching_of(Some("[1]"), "t").is_err() && matching_of(Some(r#"{"kyes":[]}"#), "t").is_err());
    }

    #[test]
    fn what_raw_values_stand_for_goes_by_the_kind() {
        let (_, words) = enumeration_of(Kind::Text, r#"{"0":"idle"}"#, "t").unwrap();
        assert_eq!(words["0"], "idle");
        let (values, _) = enumeration_of(Kind::Bool, r#"{"open":0.0}"#, "t").unwrap();
        assert_eq!(values["open"], 0.0);
        assert!(enumeration_of(Kind::Number, r#"{"0":"idle"}"#, "t").is_err());
        let state = Metric { words, ..crate::normalize::testing::metric("state", Kind::Text) };
        assert_eq!(enumeration_as_json(&state).unwrap(), r#"{"0":"idle"}"#);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let scaled = Key { unit: Some("°F".into()), scale: Some(0.1), offset: None, ..Key::from("t{n}") };
        let units = [("1".to_owned(), "°F".to_owned())].into();
        let told = Key { unit_from: Some(Box::new(UnitField { key: "us".into(), units })), ..Key::from("q") };
        let keys = vec![Key::from("p"), scaled, told];
        assert_eq!(keys_of(&keys_as_json(&keys).unwrap(), "t").unwrap(), keys);
        let derived = |formula| Derived {
            name: "power".into(),
            unit: "W".into(),
            range: Some((-0.1, 1e9)),
            formula,
            within: Duration::from_millis(1500),
        };
        let rate = Rate { of: "water".into(), per: Duration::from_secs(3600), rollover: Some(4_294_967_296.0) };
        let expression = Expression::parse("voltage * {a.current}").unwrap();
        let all = vec![derived(Formula::Rate(rate)), derived(Formula::Expression(expression))];
        assert_eq!(derived_of(&derived_as_json(&all).unwrap(), "t").unwrap(), all);
        assert!(derived_of(r#"[{"name":"x","unit":"","range":null,"within_ms":1}]"#, "t").is_err());
        assert!(derived_of("[1]", "t").is_err());
    }
}
