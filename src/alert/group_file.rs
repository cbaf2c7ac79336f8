//! `[group]` of a rule: which devices have one alert together, and how many of them it takes.

use super::rule::{By, Enough, Group};
use crate::catalog::tag_name_fault;
use crate::config::fault::{Wrong, did_you_mean};
use crate::config::section::Section;

/// What can stand in `by`, but for `tag:NAME`.
const WORDS: [&str; 4] = ["site", "template", "parent", "all"];

/// None where there is no such table, or where it has a fault.
pub(super) fn read(root: &mut Section<'_>) -> Option<Group> {
    let has = root.has("group");
    root.table("group", |section| {
        let by = section.parsed("by", "a text", by);
        let least = section.integer("min", 1..=Enough::MOST);
        let share = section.number("share");
        if has && section.is_table() && !section.has("by") {
            section.fault("by", "is missing, expected \"site\", \"template\", \"parent\", \"tag:NAME\" or \"all\"");
        }
        if section.has("min") && section.has("share") {
            section.fault("share", "stands beside min: one of them says how many devices it takes");
        }
        if let Some(share) = share.filter(|share| !(*share > 0.0 && *share <= 1.0)) {
            section.fault("share", format!("is {share}, expected a part of the devices, above 0 and up to 1"));
            return None;
        }
        let enough = match (section.has("min"), share) {
            (true, _) => Enough::Devices(least?),
            (false, Some(share)) => Enough::Share(share),
            (false, None) if section.has("share") => return None,
            (false, None) => Enough::Devices(1),
        };
        Some(Group { by: by?, enough })
    })
}

fn by(text: &str) -> Result<By, Wrong> {
    if let Some(name) = text.strip_prefix("tag:") {
        return match tag_name_fault(name) {
            Some(wrong) => Err(wrong),
            None => Ok(By::Tag(name.to_owned())),
        };
    }
    match text {
        "site" => Ok(By::Site),
        "template" => Ok(By::Template),
        "parent" => Ok(By::Parent),
        "all" => Ok(By::All),
        other => {
            let wrong = Wrong::new(format!(
                "is {other:?}, expected \"site\", \"template\", \"parent\", \"tag:NAME\" or \"all\""
            ));
            Err(wrong.suggest(did_you_mean(other, WORDS)))
        }
    }
}
