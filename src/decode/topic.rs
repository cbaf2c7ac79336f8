//! What a format sees in the topic itself, for filters that leave it uncaptured.

use super::Context;

/// The levels before the first one that is meant, that level, and those after it; none: no level is meant.
pub(super) fn around(topic: &str, is_meant: impl Fn(&str) -> bool) -> Option<(&str, &str, &str)> {
    let mut start = 0_usize;
    for level in topic.split('/') {
        let end = start.saturating_add(level.len());
        if is_meant(level) {
            let before = topic.get(..start.saturating_sub(1)).unwrap_or("");
            return Some((before, level, topic.get(end.saturating_add(1)..).unwrap_or("")));
        }
        start = end.saturating_add(1);
    }
    None
}

/// The levels before the last, and the last.
pub(super) fn split_last(topic: &str) -> (&str, &str) {
    topic.rsplit_once('/').unwrap_or(("", topic))
}

/// The device of a report: none where the filter captured one, which brokers let only some write to; else the one that the
/// payload, or a level of the topic, names.
pub(super) fn device<'t>(context: &Context<'_>, found: impl Into<Option<&'t str>>) -> Option<String> {
    let found = found.into().filter(|found| !found.is_empty() && context.captures.device.is_none());
    found.map(str::to_owned)
}

/// The level of a topic after the first one that is `name`.
pub(super) fn level_after<'t>(topic: &'t str, name: &str) -> Option<&'t str> {
    let mut levels = topic.split('/');
    levels.find(|level| *level == name)?;
    levels.next()
}

/// The levels after the device, joined with dots: what the filter captured as metric, else what follows the device that
/// it captured, else `found`.
pub(super) fn key(context: &Context<'_>, found: &str) -> String {
    if let Some(metric) = &context.captures.metric {
        return metric.to_string();
    }
    context.captures.device.and_then(|device| after(context.topic, device)).unwrap_or(found).replace('/', ".")
}

/// What follows `levels` where the topic has them first.
fn after<'t>(topic: &'t str, levels: &str) -> Option<&'t str> {
    topic.match_indices(levels).find_map(|(start, _)| {
        let (before, rest) = topic.split_at_checked(start)?;
        let rest = rest.strip_prefix(levels)?.strip_prefix('/')?;
        (before.is_empty() || before.ends_with('/')).then_some(rest)
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::context;
    use super::*;
    use crate::source::Captures;

    #[test]
    fn a_topic_is_cut_at_the_level_that_is_meant() {
        assert_eq!(around("a/b/c", |level| level == "b"), Some(("a", "b", "c")));
        assert_eq!(around("b/c/b", |level| level == "b"), Some(("", "b", "c/b")));
        assert_eq!(around("a/b", |level| level == "b"), Some(("a", "b", "")));
        assert_eq!(around("/b", |level| level == "b"), Some(("", "b", "")));
        assert_eq!(around("a/bb", |level| level == "b"), None);
        assert_eq!(around("ä/", str::is_empty), Some(("ä", "", "")));
    }

    #[test]
    fn the_key_is_captured_or_follows_the_device_or_is_found() {
        let captures = Captures { device: Some("d"), ..Captures::default() };
        let named = Context { topic: "xd/dx/d/a/b", captures: &captures, ..context() };
        assert_eq!(key(&named, "found"), "a.b");
        let captures = Captures { metric: Some("m.n".into()), ..captures };
        assert_eq!(key(&Context { captures: &captures, ..named }, "found"), "m.n");
        assert_eq!(key(&context(), "f/g"), "f.g");
        assert_eq!(
            (device(&named, "f"), device(&context(), "f"), device(&context(), "")),
            (None, Some("f".into()), None)
        );
    }

    #[test]
    fn levels_are_found() {
        assert_eq!(level_after("$aws/things/t1/shadow", "things"), Some("t1"));
        assert_eq!(level_after("a/things", "things"), None);
        assert_eq!(level_after("a/b", "things"), None);
        assert_eq!(level_after("te/device/main///m/", "device"), Some("main"));
    }
}
