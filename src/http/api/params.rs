//! A request's parameters: each read once as what it should be, and what nobody asked for is a fault.

use std::collections::BTreeMap;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::fault::Fault;
use crate::clock;
use crate::config::fault::did_you_mean;
use crate::time::{self, Stamp, UtcMicros};

/// What stands behind the `?`.
#[derive(Debug)]
pub(super) struct Params {
    given: BTreeMap<String, String>,
    asked: Vec<&'static str>,
}

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Params, Fault> {
        Params::of(parts.uri.query().unwrap_or_default())
    }
}

impl Params {
    fn of(query: &str) -> Result<Params, Fault> {
        let mut given = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            if value.contains('\0') {
                // PostgreSQL takes no text with one.
                return Err(Fault::parameter(&name, "has a NUL"));
            }
            if given.insert(name.to_string(), value.into_owned()).is_some() {
                return Err(Fault::parameter(&name, "is given twice"));
            }
        }
        Ok(Params { given, asked: Vec::new() })
    }

    pub(super) fn text(&mut self, name: &'static str) -> Option<String> {
        self.asked.push(name);
        self.given.remove(name)
    }

    pub(super) fn required(&mut self, name: &'static str) -> Result<String, Fault> {
        self.text(name).filter(|text| !text.is_empty()).ok_or_else(|| Fault::parameter(name, "is missing"))
    }

    /// One of some words.
    pub(super) fn word<T: Copy>(&mut self, name: &'static str, words: &[(&str, T)]) -> Result<Option<T>, Fault> {
        let Some(text) = self.text(name) else { return Ok(None) };
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Ok(Some(*value));
        }
        let list = words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        Err(Fault::parameter(name, format!("{text:?} is none of {list}")))
    }

    /// `state`: one of `states`, or the `open` ones, or `all`, as without it. Whether only the open ones are meant, and which state.
    pub(super) fn state<T: Copy, const N: usize>(
        &mut self,
        states: [(&str, T); N],
    ) -> Result<(bool, Option<T>), Fault> {
        let states = states.map(|(word, state)| (word, (false, Some(state))));
        let words: Vec<_> = [("open", (true, None)), ("all", (false, None))].into_iter().chain(states).collect();
        Ok(self.word("state", &words)?.unwrap_or((false, None)))
    }

    /// `limit`, from 1 to `most`.
    pub(super) fn limit(&mut self, default: usize, most: usize) -> Result<usize, Fault> {
        let Some(text) = self.text("limit") else { return Ok(default) };
        let limit = text.parse().ok().filter(|limit| (1..=most).contains(limit));
        limit.ok_or_else(|| Fault::parameter("limit", format!("{text:?} is no number from 1 to {most}")))
    }

    /// An instant as devices write them, or so long ago as `24h`.
    pub(super) fn instant(&mut self, name: &'static str) -> Result<Option<UtcMicros>, Fault> {
        let Some(text) = self.text(name) else { return Ok(None) };
        if let Ok(ago) = humantime::parse_duration(text.trim()) {
            return Ok(clock::now().checked_sub(ago));
        }
        // A plus that was meant as such has become a blank.
        let text = text.trim();
        let read =
            time::read(Stamp::Text(text), None).or_else(|_| time::read(Stamp::Text(&text.replace(' ', "+")), None));
        let wanted = "an instant such as 2026-01-31T12:00:00Z, or a time ago such as 24h, is wanted";
        read.map(Some).map_err(|_| Fault::parameter(name, format!("{text:?}: {wanted}")))
    }

    /// To be called when all has been asked for.
    pub(super) fn end(self) -> Result<(), Fault> {
        let Some(unknown) = self.given.into_keys().next() else { return Ok(()) };
        let known = format!("known here: {}", self.asked.join(", "));
        let hint = did_you_mean(&unknown, self.asked.iter().copied()).unwrap_or(known);
        Err(Fault::parameter(&unknown, format!("unknown parameter; {hint}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Params {
        Params::of(query).unwrap()
    }

    #[test]
    fn instants_are_rfc_3339_unix_time_or_an_age() {
        let at = |text: &str| read(&format!("from={text}")).instant("from");
        assert_eq!(at("1970-01-01T00:00:01Z"), Ok(Some(UtcMicros(1_000_000))));
        assert_eq!(at("1970-01-01T01:00:01%2B01:00"), Ok(Some(UtcMicros(1_000_000))));
        assert_eq!(at("1970-01-01T01:00:01+01:00"), Ok(Some(UtcMicros(1_000_000))));
        assert_eq!(at("1700000000000"), Ok(Some(UtcMicros(1_700_000_000_000_000))));
        let ago = clock::now().0 - at("1h").unwrap().unwrap().0;
        assert!((3_500_000_000..=3_600_000_000).contains(&ago), "{ago}");
        assert!(at("yesterday").is_err());
        assert_eq!(read("").instant("from"), Ok(None));
    }

    #[test]
    fn what_can_not_be_read_is_told_by_name() {
        let told = |fault: Fault| format!("{fault:?}");
        assert!(told(read("limit=0").limit(1, 9).unwrap_err()).contains("\\\"0\\\" is no number from 1 to 9"));
        assert!(told(read("limit=10").limit(1, 9).unwrap_err()).contains("limit"));
        assert!(told(read("state=x").word("state", &[("a", 1), ("b", 2)]).unwrap_err()).contains("none of a, b"));
        assert!(told(read("").required("device").unwrap_err()).contains("is missing"));
        assert!(told(Params::of("a=1&a=2").unwrap_err()).contains("twice"));
        let mut params = read("devic=x");
        assert_eq!(params.text("device"), None);
        assert!(told(params.end().unwrap_err()).contains("did you mean `device`?"));
    }
}
