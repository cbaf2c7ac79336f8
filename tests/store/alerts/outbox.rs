//! What the broker has not acknowledged is found again, in order.

use tidegate::alert::transition::Deed;
use tidegate::alert::{Action, State, Transition, Who};

use super::{Site, begun, id, on_both, step, steps};
use crate::store::lookup;

on_both!(
    unpublished_steps_are_found_in_order,
    steps_asked_for_are_left_to_the_daemon_at_first,
    the_end_of_an_alert_that_sleeps_is_found_to_clear_its_topic,
    a_snooze_says_until_when_whoever_asked_for_it,
);

fn waiting(site: &Site, instance: &str, limit: usize) -> Vec<(String, u32)> {
    let found = site.store.unpublished(instance, limit).unwrap();
    found.iter().map(|step| (step.id[..2].to_owned(), step.step)).collect()
}

fn keys(keys: &[(&str, u32)]) -> Vec<(String, u32)> {
    keys.iter().map(|(digits, step)| ((*digits).to_owned(), *step)).collect()
}

fn unpublished_steps_are_found_in_order(site: &Site) {
    let mut writer = begun(site);
    // One episode ends, and another of the same rule and device begins: the other way round the broker would keep the wrong one.
    let snoozed = Transition { snoozed: true, ..step("f0", 2, State::Firing) };
    let first =
        vec![step("f0", 0, State::Firing), step("f0", 1, State::Firing), snoozed, step("f0", 3, State::Resolved)];
    let mut second = step("a1", 0, State::Firing);
    second.who = Who::Person("eve".into());
    writer.commit(&steps(2, [first.clone(), vec![second.clone()]].concat()), &lookup).unwrap();
    writer.commit(&steps(3, vec![step("00", 0, State::Firing)]), &lookup).unwrap();
    let all = keys(&[("f0", 0), ("f0", 1), ("f0", 3), ("a1", 0), ("00", 0)]);
    assert_eq!(waiting(site, "gw", 10), all);
    assert_eq!(waiting(site, "gw", 2), all[..2]);
    assert_eq!(waiting(site, "another", 10), []);
    let found = site.store.unpublished("gw", 10).unwrap();
    assert_eq!(found[0], Transition { seq: 0, ..first[0].clone() }, "as the rule had it");
    assert_eq!(found[3].who, second.who);

    let marked = [("f0", 0), ("a1", 0), ("f0", 1), ("ee", 7)].map(|(digits, step)| (id(digits).into(), step));
    site.store.mark_published(&marked).unwrap();
    assert_eq!(waiting(site, "gw", 10), keys(&[("f0", 3), ("00", 0)]));
}

fn steps_asked_for_are_left_to_the_daemon_at_first(site: &Site) {
    let mut writer = begun(site);
    writer.commit(&steps(2, vec![step("ab", 0, State::Firing)]), &lookup).unwrap();
    site.store.mark_published(&[(id("ab").into(), 0)]).unwrap();
    let resolve = Action { id: id("ab"), action: Deed::Resolve, who: "eve".into(), note: String::new(), ask: None };
    site.store.ask_of_alert(&resolve).unwrap();
    assert_eq!(waiting(site, "gw", 10), []);
    // No rule has taken it up, so that nobody else would say it.
    let back = if site.is_postgres { "recorded_at - interval '11 seconds'" } else { "recorded_at - 11000000" };
    site.execute(&format!("UPDATE alert_transitions SET recorded_at = {back}"));
    assert_eq!(waiting(site, "gw", 10), keys(&[("ab", 1)]));

    // What the readings have ended meanwhile is not acknowledged afterwards.
    writer.commit(&steps(3, vec![step("cd", 0, State::Firing)]), &lookup).unwrap();
    let act = |deed| Action { id: id("cd"), action: deed, note: "n".into(), ..resolve.clone() };
    site.store.ask_of_alert(&act(Deed::Acknowledge)).unwrap();
    site.store.ask_of_alert(&act(Deed::Note)).unwrap();
    writer.commit(&steps(4, vec![step("cd", 1, State::Resolved)]), &lookup).unwrap();
    site.execute(&format!("UPDATE alert_transitions SET recorded_at = {back}"));
    assert_eq!(waiting(site, "gw", 10), keys(&[("ab", 1), ("cd", 0), ("cd", 1)]));
}

fn the_end_of_an_alert_that_sleeps_is_found_to_clear_its_topic(site: &Site) {
    let mut writer = begun(site);
    let asleep = |number, state| Transition { snoozed: true, ..step("ab", number, state) };
    let all = vec![step("ab", 0, State::Firing), asleep(1, State::Firing), asleep(2, State::Resolved)];
    writer.commit(&steps(2, all), &lookup).unwrap();
    let found = site.store.unpublished("gw", 10).unwrap();
    let found: Vec<(u32, bool)> = found.iter().map(|step| (step.step, step.snoozed)).collect();
    assert_eq!(found, [(0, false), (2, true)]);

    // By a command likewise, where the rule is gone that would say so.
    writer.commit(&steps(3, vec![step("cd", 0, State::Firing)]), &lookup).unwrap();
    let act = |deed| Action { id: id("cd"), action: deed, who: "eve".into(), note: "n".into(), ask: None };
    site.store.ask_of_alert(&act(Deed::Snooze { until: 9_000_000_000_000_000 })).unwrap();
    site.store.ask_of_alert(&act(Deed::Resolve)).unwrap();
    let back = if site.is_postgres { "recorded_at - interval '11 seconds'" } else { "recorded_at - 11000000" };
    site.execute(&format!("UPDATE alert_transitions SET recorded_at = {back}"));
    let found = site.store.unpublished("gw", 10).unwrap();
    let found: Vec<(u32, bool)> =
        found.iter().filter(|step| step.id.starts_with("cd")).map(|step| (step.step, step.snoozed)).collect();
    assert_eq!(found, [(0, false), (2, true)]);
}

fn a_snooze_says_until_when_whoever_asked_for_it(site: &Site) {
    let mut writer = begun(site);
    let until = |second| Some(super::at(second));
    let snoozed_until = || site.store.alert(&id("ab")).unwrap().alert.snoozed_until;
    let asleep = |number, second| Transition {
        snoozed: true,
        snoozed_until: until(second),
        ..step("ab", number, State::Firing)
    };
    writer.commit(&steps(2, vec![step("ab", 0, State::Firing)]), &lookup).unwrap();
    assert_eq!(snoozed_until(), None);
    writer.commit(&steps(3, vec![asleep(1, 900), asleep(2, 700)]), &lookup).unwrap();
    assert_eq!(snoozed_until(), until(700));
    // The clock ends it; and what was before, met again in a replay, changes nothing.
    writer.commit(&steps(4, vec![step("ab", 3, State::Firing)]), &lookup).unwrap();
    writer.commit(&steps(5, vec![asleep(1, 900)]), &lookup).unwrap();
    assert_eq!(snoozed_until(), until(700));
}
