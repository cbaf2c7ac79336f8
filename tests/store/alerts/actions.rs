//! What people ask of alerts holds at once, and the daemon's word is the last.

use tidegate::alert::transition::Deed;
use tidegate::alert::{Action, Severity, State, Transition, Who};
use tidegate::clock;
use tidegate::store::alerts::AlertRow;

use super::{Site, begun, id, on_both, step, steps};
use crate::store::{at, lookup};

on_both!(
    what_is_asked_holds_without_a_daemon,
    the_daemons_own_step_takes_the_place,
    what_comes_in_between_does_not_undo_it,
    what_makes_no_sense_is_refused_with_a_reason,
    an_id_is_told_by_its_first_digits,
    actions_wait_for_their_instance_until_they_are_taken,
    what_is_over_can_be_remarked_on,
);

fn action(digits: &str, deed: Deed, note: &str) -> Action {
    Action { id: digits.into(), action: deed, who: " eve ".into(), note: note.into(), ask: None }
}

fn ask(site: &Site, digits: &str, deed: Deed) -> Result<AlertRow, String> {
    site.store.ask_of_alert(&action(digits, deed, "")).map_err(|error| error.to_string())
}

fn what_is_asked_holds_without_a_daemon(site: &Site) {
    let mut writer = begun(site);
    writer.commit(&steps(2, vec![step("ab", 0, State::Firing)]), &lookup).unwrap();
    let version = site.store.catalog_version().unwrap();
    let before = clock::now();
    let alert = site.store.ask_of_alert(&action("ab00", Deed::Acknowledge, "on my way")).unwrap();
    assert_eq!((alert.state.as_str(), alert.step, alert.acknowledged_by.as_deref()), ("acknowledged", 1, Some("eve")));
    assert!(alert.acknowledged_at.unwrap() >= before);
    let until = clock::now().0 + 3_600_000_000;
    let alert = ask(site, "ab00", Deed::Snooze { until }).unwrap();
    assert_eq!((alert.state.as_str(), alert.snoozed_until.unwrap().0, alert.step), ("acknowledged", until, 2));
    let alert = ask(site, "ab00", Deed::Resolve).unwrap();
    assert_eq!((alert.state.as_str(), alert.step, alert.acknowledged_by.as_deref()), ("resolved", 3, Some("eve")));
    assert!(alert.resolved_at.unwrap() >= before);

    let detail = site.store.alert("ab00").unwrap();
    assert_eq!((detail.alert, detail.waiting), (alert, 3));
    let told =
        detail.steps.iter().map(|step| (step.state.as_str(), step.who.as_deref(), step.why.as_str(), step.asked));
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            ("firing", None, "held for 2m", false),
            ("acknowledged", Some("eve"), "on my way", true),
            ("acknowledged", Some("eve"), "snoozed", true),
            ("resolved", Some("eve"), "resolved by hand", true),
        ]
    );
    assert_eq!(site.store.catalog_version().unwrap(), version, "the catalog is as it was");
}

fn the_daemons_own_step_takes_the_place(site: &Site) {
    let mut writer = begun(site);
    writer.commit(&steps(2, vec![step("ab", 0, State::Firing)]), &lookup).unwrap();
    let asked = ask(site, "ab00", Deed::Acknowledge).unwrap();
    let by_eve = |step: Transition| Transition { who: Who::Person("eve".into()), why: "acknowledged".into(), ..step };
    writer.commit(&steps(3, vec![by_eve(step("ab", 1, State::Acknowledged))]), &lookup).unwrap();
    let detail = site.store.alert("ab00").unwrap();
    assert_eq!(detail.steps.len(), 2);
    assert_eq!((detail.steps[1].asked, detail.steps[1].at), (false, at(101)));
    assert_eq!(detail.alert.acknowledged_at, asked.acknowledged_at, "when it was said counts");
    assert_eq!(site.store.unpublished("gw", 10).unwrap().len(), 2);
}

fn what_comes_in_between_does_not_undo_it(site: &Site) {
    let mut writer = begun(site);
    writer.commit(&steps(2, vec![step("ab", 0, State::Firing), step("cd", 0, State::Firing)]), &lookup).unwrap();
    ask(site, "ab00", Deed::Acknowledge).unwrap();
    ask(site, "cd00", Deed::Resolve).unwrap();
    // The rule had another step of that number before it was told.
    let worse = |digits: &str| Transition { severity: Severity::Critical, ..step(digits, 1, State::Firing) };
    writer.commit(&steps(3, vec![worse("ab"), worse("cd")]), &lookup).unwrap();
    let state = |digits: &str| {
        let detail = site.store.alert(digits).unwrap();
        let last = detail.steps.last().unwrap();
        (detail.alert.state, detail.alert.severity, detail.steps.len(), last.state.clone(), last.asked)
    };
    let as_told = |state: &str, number| (state.to_owned(), "critical".to_owned(), number, "firing".to_owned(), false);
    assert_eq!((state("ab00"), state("cd00")), (as_told("acknowledged", 2), as_told("resolved", 2)));
    // Then it hears of it; and the readings end the other one by themselves.
    let who = Who::Person("eve".into());
    let acknowledged = Transition { who: who.clone(), ..step("ab", 2, State::Acknowledged) };
    let resolved = Transition { who, ..step("cd", 2, State::Resolved) };
    writer.commit(&steps(4, vec![acknowledged, resolved]), &lookup).unwrap();
    writer.commit(&steps(5, vec![step("ab", 3, State::Resolved)]), &lookup).unwrap();
    let (ab, cd) = (site.store.alert("ab00").unwrap(), site.store.alert("cd00").unwrap());
    assert_eq!((ab.alert.state.as_str(), ab.steps.len(), ab.alert.step), ("resolved", 4, 3));
    assert_eq!((cd.alert.state.as_str(), cd.steps.len(), cd.alert.step), ("resolved", 3, 2));
    assert_eq!(ab.alert.acknowledged_by.as_deref(), Some("eve"));
}

fn what_makes_no_sense_is_refused_with_a_reason(site: &Site) {
    let mut writer = begun(site);
    writer.commit(&steps(2, vec![step("ab", 0, State::Resolved), step("cd", 0, State::Firing)]), &lookup).unwrap();
    ask(site, "cd00", Deed::Acknowledge).unwrap();
    let before = (site.store.alert("ab00").unwrap(), site.store.alert("cd00").unwrap());
    let until = clock::now().0 + 1_000_000;
    for (digits, deed, words) in [
        ("ab00", Deed::Acknowledge, "was resolved at 2023-11-14T22:13:20.0001Z; there is nothing left to see to"),
        ("ab00", Deed::Resolve, "it is over already"),
        ("ab00", Deed::Snooze { until }, "nothing is said of it any more"),
        ("cd00", Deed::Acknowledge, "is acknowledged already, by eve at "),
        ("cd00", Deed::Snooze { until: 1 }, "1970-01-01T00:00:00.000001Z is past"),
        ("cd00", Deed::Note, "without words"),
    ] {
        let said = ask(site, digits, deed).unwrap_err();
        assert!(said.contains(words), "{said}");
    }
    let nobody = Action { who: " ".into(), ..action("cd00", Deed::Resolve, "") };
    assert!(site.store.ask_of_alert(&nobody).unwrap_err().to_string().contains("somebody must be named"));
    assert_eq!((site.store.alert("ab00").unwrap(), site.store.alert("cd00").unwrap()), before, "nothing has changed");
}

fn an_id_is_told_by_its_first_digits(site: &Site) {
    let mut writer = begun(site);
    let all = ["abcd1", "abcd2", "ffff"].map(|digits| step(digits, 0, State::Firing));
    writer.commit(&steps(2, all.to_vec()), &lookup).unwrap();
    assert_eq!(site.store.alert("ABCD2").unwrap().alert.id, id("abcd2"));
    assert_eq!(site.store.alert(&id("ffff")).unwrap().alert.id, id("ffff"));
    for (digits, words) in [
        ("abc", "4 to 32 hexadecimal digits are wanted"),
        ("temperature", "4 to 32 hexadecimal digits are wanted"),
        ("abcd", "more than one alert begins with abcd: abcd1000"),
        ("ffff1", "there is no alert ffff1; did you mean ffff0000"),
        ("abcd3", "there is no alert abcd3; `tidegate alerts list --state all`"),
        ("1234", "there is no alert 1234; `tidegate alerts list --state all`"),
    ] {
        let said = site.store.alert(digits).unwrap_err().to_string();
        assert!(said.contains(words), "{digits}: {said}");
    }
}

fn actions_wait_for_their_instance_until_they_are_taken(site: &Site) {
    let mut writer = begun(site);
    writer.commit(&steps(2, vec![step("ab", 0, State::Firing)]), &lookup).unwrap();
    let version = site.store.catalog_version().unwrap();
    assert_eq!(site.store.news("gw").unwrap(), (version, false));
    ask(site, "ab00", Deed::Acknowledge).unwrap();
    site.store.ask_of_alert(&action("ab00", Deed::Note, " it's the fan ")).unwrap();
    assert_eq!(site.store.news("gw").unwrap(), (version, true));
    assert_eq!(site.store.news("another").unwrap(), (version, false));
    assert_eq!(site.store.waiting_actions("another").unwrap(), []);
    let waiting = site.store.waiting_actions("gw").unwrap();
    let asked: Vec<Action> = waiting.iter().map(|one| serde_json::from_str(&one.action).unwrap()).collect();
    let by_eve =
        |deed, note: &str| Action { id: id("ab"), action: deed, who: "eve".into(), note: note.into(), ask: None };
    assert_eq!(asked, [by_eve(Deed::Acknowledge, ""), by_eve(Deed::Note, "it's the fan")]);
    site.store.actions_taken(&[waiting[0].number]).unwrap();
    assert_eq!(site.store.waiting_actions("gw").unwrap(), waiting[1..]);
    site.store.actions_taken(&[waiting[1].number]).unwrap();
    assert_eq!(site.store.news("gw").unwrap(), (version, false));
    assert_eq!(site.store.alert("ab00").unwrap().waiting, 0);
}

fn what_is_over_can_be_remarked_on(site: &Site) {
    let mut writer = begun(site);
    writer.commit(&steps(2, vec![step("ab", 0, State::Resolved)]), &lookup).unwrap();
    let alert = site.store.ask_of_alert(&action("ab00", Deed::Note, "the fan was broken")).unwrap();
    assert_eq!((alert.state.as_str(), alert.step), ("resolved", 1));
    let detail = site.store.alert("ab00").unwrap();
    let told = &detail.steps[1];
    assert_eq!((told.why.as_str(), told.published, told.asked), ("the fan was broken", true, false));
    assert_eq!(site.store.waiting_actions("gw").unwrap(), []);
}
