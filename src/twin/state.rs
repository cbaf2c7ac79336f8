//! A twin, and what becomes of it by an update. Pure.

use std::time::Duration;

use serde_json::Value;

use super::document::{Document, delta, is_deeper, merge, patch_at, same_document};
use super::refusal::{Reason, Refused};
use super::{Limits, seconds};
use crate::time::UtcMicros;

/// One of a twin's two documents.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Part {
    pub state: Document,
    /// When each value was set, see [`super::document`].
    pub stamps: Document,
    /// The twin's version with which it changed last.
    pub version: i64,
    pub at: Option<UtcMicros>,
}

/// What a device is to be and what it says it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Twin {
    /// Rises by one with each change of either document.
    pub version: i64,
    /// Whether there is one: nobody has said anything of it, or it was deleted. Its version goes on from there.
    pub exists: bool,
    pub desired: Part,
    pub reported: Part,
    /// When what is reported came to be what is desired, and how long after that was desired.
    pub converged_at: Option<UtcMicros>,
    pub convergence: Option<Duration>,
}

/// What is to become of a document.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Change {
    #[default]
    Keep,
    Merge(Document),
    /// It is to be just this; nulls in it mean nothing.
    Replace(Document),
}

/// The version that whoever asks has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// It is the twin's, as AWS IoT's shadows have it.
    Exactly(i64),
    /// What is to be changed has not changed since. A report does not stand in the way of a wish.
    UnchangedSince(i64),
}

/// What is asked of a twin.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Update {
    pub desired: Change,
    pub reported: Change,
    pub expected: Option<Expected>,
    /// Whether the version rises though nothing changes, as that of a shadow does.
    pub always: bool,
}

/// What an update has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    pub desired: bool,
    pub reported: bool,
    /// Whether other values differ than before.
    pub delta: bool,
    /// Set where nothing differs any more by what was reported.
    pub convergence: Option<Duration>,
}

impl Changed {
    /// Whether there is anything to write.
    pub fn any(&self) -> bool {
        self.desired || self.reported
    }
}

/// A reading that a template takes for reported state.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Dotted.
    pub path: String,
    pub value: Value,
    /// The reading's own time.
    pub time: UtcMicros,
}

impl Twin {
    /// What is desired and not reported so.
    pub fn delta(&self) -> Document {
        delta(&self.desired.state, &self.reported.state)
    }

    /// Does what is asked.
    ///
    /// # Errors
    /// Why not; then nothing has changed.
    pub fn update(&mut self, update: &Update, at: UtcMicros, limits: Limits) -> Result<Changed, Refused> {
        self.check(update)?;
        let (mut desired, mut reported) = (self.desired.clone(), self.reported.clone());
        desired.change(&update.desired, at);
        reported.change(&update.reported, at);
        for (what, part, change) in [("desired", &desired, &update.desired), ("reported", &reported, &update.reported)]
        {
            if *change != Change::Keep {
                fits(what, &part.state, limits)?;
            }
        }
        let is_touched = |change: &Change| update.always && *change != Change::Keep;
        let changed = (
            is_touched(&update.desired) || !same_document(&desired.state, &self.desired.state),
            is_touched(&update.reported) || !same_document(&reported.state, &self.reported.state),
        );
        Ok(self.settle(desired, reported, changed, at))
    }

    /// Takes readings for reported state, in order; those of them that are older than what is there, or the same, or that
    /// would make it too large, change nothing. The second value: how many would have.
    pub fn measure(&mut self, measured: &[Measured], at: UtcMicros, limits: Limits) -> (Changed, u64) {
        let (mut reported, mut changed, mut refused) = (self.reported.clone(), false, 0_u64);
        for Measured { path, value, time } in measured {
            let Some(patch) = patch_at(&reported.state, &reported.stamps, path, value, seconds(*time)) else {
                continue;
            };
            let mut tried = reported.clone();
            merge(&mut tried.state, &mut tried.stamps, &patch, seconds(*time));
            match fits("reported", &tried.state, limits) {
                Ok(()) => (reported, changed) = (tried, true),
                Err(_) => refused = refused.saturating_add(1),
            }
        }
        let desired = self.desired.clone();
        (self.settle(desired, reported, (false, changed), at), refused)
    }

    /// Takes it away.
    ///
    /// # Errors
    /// Where there is none, or another version of it.
    pub fn delete(&mut self, expected: Option<Expected>) -> Result<Changed, Refused> {
        if !self.exists {
            return Err(Refused::new(Reason::NoTwin, "there is nothing to delete"));
        }
        let clear = || Change::Replace(Document::new());
        self.check(&Update { desired: clear(), reported: clear(), expected, always: true })?;
        let had_delta = !self.delta().is_empty();
        let version = self.version.saturating_add(1);
        let gone = Part { version, ..Part::default() };
        *self = Twin { version, desired: gone.clone(), reported: gone, ..Twin::default() };
        Ok(Changed { desired: true, reported: true, delta: had_delta, convergence: None })
    }

    fn check(&self, update: &Update) -> Result<(), Refused> {
        let conflict = |detail: String| Err(Refused::new(Reason::Conflict, detail));
        match update.expected {
            None => Ok(()),
            Some(Expected::Exactly(version)) if version == self.version => Ok(()),
            Some(Expected::Exactly(version)) => {
                conflict(format!("version {version} is expected, it is {}", self.version))
            }
            Some(Expected::UnchangedSince(seen)) if seen > self.version => {
                conflict(format!("version {seen} is yet to come, it is {}", self.version))
            }
            Some(Expected::UnchangedSince(seen)) => {
                let parts =
                    [("desired", &self.desired, &update.desired), ("reported", &self.reported, &update.reported)];
                let changed =
                    |(_, part, change): &(&str, &Part, &Change)| **change != Change::Keep && part.version > seen;
                match parts.into_iter().find(changed) {
                    None => Ok(()),
                    Some((what, part, _)) => {
                        conflict(format!("{what} has changed since version {seen}: with version {}", part.version))
                    }
                }
            }
        }
    }

    /// Takes up documents of which it is known whether they have changed.
    fn settle(&mut self, desired: Part, reported: Part, changed: (bool, bool), at: UtcMicros) -> Changed {
        let before = self.delta();
        let version = self.version.saturating_add(i64::from(changed.0 || changed.1));
        for (part, new, changed) in [(&mut self.desired, desired, changed.0), (&mut self.reported, reported, changed.1)]
        {
            if changed {
                *part = Part { version, at: Some(at), ..new };
            }
        }
        self.version = version;
        self.exists |= changed.0 || changed.1;
        let after = self.delta();
        if changed.0 {
            (self.converged_at, self.convergence) = (None, None);
        }
        let converged = changed.1 && !changed.0 && !before.is_empty() && after.is_empty();
        let convergence = converged.then(|| self.desired.at.map_or(Duration::ZERO, |desired| at.since(desired)));
        if convergence.is_some() {
            (self.converged_at, self.convergence) = (Some(at), convergence);
        }
        Changed { desired: changed.0, reported: changed.1, delta: !same_document(&before, &after), convergence }
    }
}

impl Part {
    fn change(&mut self, change: &Change, at: UtcMicros) {
        match change {
            Change::Keep => {}
            Change::Merge(patch) => merge(&mut self.state, &mut self.stamps, patch, seconds(at)),
            Change::Replace(document) => {
                let (mut state, mut stamps) = (Document::new(), Document::new());
                merge(&mut state, &mut stamps, document, seconds(at));
                (self.state, self.stamps) = (state, stamps);
            }
        }
    }
}

/// Whether a document that is to be kept is small and flat enough.
fn fits(what: &str, document: &Document, limits: Limits) -> Result<(), Refused> {
    if is_deeper(document, limits.max_depth) {
        let detail = format!("JSON contains too many levels of nesting; maximum is {}", limits.max_depth);
        return Err(Refused::new(Reason::TooDeep, detail));
    }
    let size = serde_json::to_string(document).map_or(usize::MAX, |text| text.len());
    if size > limits.max_size {
        let detail = format!("{what} would have {size} bytes; twins.max_size is {}", limits.max_size);
        return Err(Refused::new(Reason::TooLarge, detail));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LIMITS: Limits = Limits { max_size: 200, max_depth: 3 };

    fn at(seconds: i64) -> UtcMicros {
        UtcMicros(seconds * 1_000_000)
    }

    fn object(value: Value) -> Document {
        match value {
            Value::Object(document) => document,
            other => panic!("{other}"),
        }
    }

    fn desire(value: Value) -> Update {
        Update { desired: Change::Merge(object(value)), ..Update::default() }
    }

    fn report(value: Value) -> Update {
        Update { reported: Change::Merge(object(value)), ..Update::default() }
    }

    #[test]
    fn a_wish_differs_until_it_is_reported_and_the_time_is_taken() {
        let mut twin = Twin::default();
        let changed = twin.update(&desire(json!({"on": true, "level": 5})), at(10), LIMITS).unwrap();
        assert_eq!(changed, Changed { desired: true, delta: true, ..Changed::default() });
        assert_eq!((twin.version, twin.desired.version, twin.reported.version), (1, 1, 0));
        let changed = twin.update(&report(json!({"on": true, "rssi": -60})), at(12), LIMITS).unwrap();
        assert!(changed.reported && changed.delta && changed.convergence.is_none());
        assert_eq!(Value::Object(twin.delta()), json!({"level": 5}));
        let changed = twin.update(&report(json!({"level": 5.0})), at(13), LIMITS).unwrap();
        assert_eq!(changed.convergence, Some(Duration::from_secs(3)));
        assert_eq!((twin.version, twin.desired.version, twin.reported.version), (3, 1, 3));
        assert_eq!((twin.converged_at, twin.convergence), (Some(at(13)), Some(Duration::from_secs(3))));
        // Nothing new: no version, and no time either.
        let changed = twin.update(&report(json!({"level": 5})), at(20), LIMITS).unwrap();
        assert_eq!((changed, twin.version), (Changed::default(), 3));
        // A wish that is fulfilled already is not converged to.
        let changed = twin.update(&desire(json!({"rssi": -60})), at(30), LIMITS).unwrap();
        assert_eq!((changed.convergence, changed.delta, twin.convergence), (None, false, None));
    }

    #[test]
    fn a_version_that_is_not_the_expected_one_is_a_conflict() {
        let mut twin = Twin::default();
        twin.update(&desire(json!({"a": 1})), at(1), LIMITS).unwrap();
        twin.update(&report(json!({"a": 0})), at(2), LIMITS).unwrap();
        let with = |expected, update: Update| Update { expected: Some(expected), ..update };
        for (expected, good) in [
            (Expected::Exactly(1), false),
            (Expected::Exactly(2), true),
            (Expected::Exactly(3), false),
            // The report has not touched what is desired.
            (Expected::UnchangedSince(0), false),
            (Expected::UnchangedSince(1), true),
            (Expected::UnchangedSince(2), true),
            (Expected::UnchangedSince(3), false),
        ] {
            let outcome = twin.clone().update(&with(expected, desire(json!({"a": 2}))), at(3), LIMITS);
            assert_eq!(outcome.is_ok(), good, "{expected:?}");
            if let Err(refused) = outcome {
                assert_eq!((refused.reason, refused.reason.code()), (Reason::Conflict, 409));
            }
        }
        let before = twin.clone();
        assert!(twin.update(&with(Expected::UnchangedSince(1), report(json!({"a": 1}))), at(3), LIMITS).is_err());
        assert_eq!(twin, before, "nothing of it");
    }

    #[test]
    fn what_is_too_large_or_too_deep_changes_nothing() {
        let mut twin = Twin::default();
        twin.update(&desire(json!({"a": "x".repeat(150)})), at(1), LIMITS).unwrap();
        let before = twin.clone();
        let refused = twin.update(&desire(json!({"b": "x".repeat(60)})), at(2), LIMITS).unwrap_err();
        assert_eq!((refused.reason, refused.reason.code()), (Reason::TooLarge, 413));
        let refused = twin.update(&report(json!({"a": {"b": {"c": {}}}})), at(2), LIMITS).unwrap_err();
        assert_eq!((refused.reason, refused.reason.code()), (Reason::TooDeep, 400));
        assert_eq!(twin, before);
        // What is there makes room for it.
        twin.update(&desire(json!({"a": null, "b": "x".repeat(60)})), at(2), LIMITS).unwrap();
        let whole = Update { desired: Change::Replace(object(json!({"c": {"d": null}}))), ..Update::default() };
        twin.update(&whole, at(3), LIMITS).unwrap();
        assert_eq!(Value::Object(twin.desired.state.clone()), json!({"c": {}}));
    }

    #[test]
    fn a_shadow_counts_every_update_and_its_version_goes_on_behind_a_deletion() {
        let mut twin = Twin::default();
        let update = Update { always: true, ..desire(json!({"a": 1})) };
        twin.update(&update, at(1), LIMITS).unwrap();
        twin.update(&update, at(2), LIMITS).unwrap();
        assert_eq!((twin.version, twin.exists), (2, true));
        assert!(twin.delete(Some(Expected::Exactly(1))).is_err());
        assert!(twin.delete(None).unwrap().delta);
        assert_eq!((twin.version, twin.exists, twin.delta().is_empty()), (3, false, true));
        assert_eq!(twin.delete(None).unwrap_err().reason.code(), 404);
        twin.update(&update, at(4), LIMITS).unwrap();
        assert_eq!((twin.version, twin.exists), (4, true));
    }

    #[test]
    fn readings_become_reported_state_where_they_are_news() {
        let mut twin = Twin::default();
        twin.update(&desire(json!({"set": {"interval": 30}})), at(5), LIMITS).unwrap();
        let measured = |value: Value, time| Measured { path: "set.interval".into(), value, time: at(time) };
        let (changed, refused) = twin.measure(&[measured(json!(60), 6), measured(json!(30), 7)], at(8), LIMITS);
        assert_eq!((changed.convergence, refused), (Some(Duration::from_secs(3)), 0));
        assert_eq!(twin.version, 2, "one version for all of them");
        let (changed, _) = twin.measure(&[measured(json!(30.0), 9), measured(json!(60), 6)], at(9), LIMITS);
        assert_eq!((changed, twin.version), (Changed::default(), 2));
        let (changed, refused) = twin.measure(&[measured(json!("x".repeat(500)), 10)], at(10), LIMITS);
        assert_eq!((changed, refused), (Changed::default(), 1));
    }
}
