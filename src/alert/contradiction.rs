//! What conditions say of each other: whether one holds whenever another does, or never beside it. Pure.

use super::rule::{Check, Compare, Condition, Test};

/// Whether a comparison holds for the numbers of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Never,
    Always,
    Sometimes,
}

/// For every number of `range`, whose ends may be infinite.
pub(super) fn verdict(compare: Compare, range: (f64, f64)) -> Verdict {
    let (low, high) = range;
    let mut held = probes(&[compare], &[low, high])
        .into_iter()
        .filter(|number| (low..=high).contains(number))
        .map(|number| compare.holds(number));
    let first = held.next();
    match (first, held.all(|other| Some(other) == first)) {
        (Some(true), true) => Verdict::Always,
        (Some(false), true) => Verdict::Never,
        _ => Verdict::Sometimes,
    }
}

/// Whether `then` holds for every number for which `when` does.
pub(super) fn follows(when: Compare, then: Compare) -> bool {
    probes(&[when, then], &[]).into_iter().all(|number| !when.holds(number) || then.holds(number))
}

/// A number for which both hold.
pub(super) fn common(one: Compare, other: Compare) -> Option<f64> {
    probes(&[one, other], &[]).into_iter().find(|number| one.holds(*number) && other.holds(*number))
}

/// Numbers enough to tell the comparisons apart: every bound, one between each two neighbours, and one beyond each end.
fn probes(compares: &[Compare], more: &[f64]) -> Vec<f64> {
    let mut bounds: Vec<f64> =
        compares.iter().flat_map(|compare| bounds(*compare)).chain(more.iter().copied()).collect();
    bounds.retain(|bound| bound.is_finite());
    bounds.sort_by(f64::total_cmp);
    let between = bounds.windows(2).filter_map(|pair| match pair {
        [low, high] => Some(low + (high - low) / 2.0),
        _ => None,
    });
    let beyond = [bounds.first().map(|low| low - low.abs() - 1.0), bounds.last().map(|high| high + high.abs() + 1.0)];
    let mut probes: Vec<f64> = between.chain(beyond.into_iter().flatten()).collect();
    probes.append(&mut bounds);
    probes
}

fn bounds(compare: Compare) -> [f64; 2] {
    match compare {
        Compare::Gt(bound)
        | Compare::Lt(bound)
        | Compare::Gte(bound)
        | Compare::Lte(bound)
        | Compare::Eq(bound)
        | Compare::Ne(bound) => [bound, bound],
        Compare::Inside(low, high) | Compare::Outside(low, high) => [low, high],
    }
}

/// Whether `then` holds whenever `when` does, as far as that can be told from the two; how long they must hold is left out.
pub(super) fn is_implied(when: &Test, then: &Test) -> bool {
    match (when, then) {
        _ if when == then => true,
        (_, Test::Any(parts)) => parts.iter().any(|part| part.hold.is_zero() && is_implied(when, &part.test)),
        (Test::All(parts), _) => parts.iter().any(|part| is_implied(&part.test, then)),
        (Test::Absent { metric, after }, Test::Absent { metric: other, after: earlier }) => {
            metric == other && earlier <= after
        }
        (Test::Metric { metric, check }, Test::Metric { metric: other, check: then }) if metric == other => {
            follows_check(check, then)
        }
        _ => false,
    }
}

fn follows_check(when: &Check, then: &Check) -> bool {
    match (when, then) {
        (Check::Stuck { over }, Check::Stuck { over: earlier }) => earlier <= over,
        (Check::Anomaly { deviations, season }, Check::Anomaly { deviations: fewer, season: other }) => {
            season == other && fewer <= deviations
        }
        (Check::Text { any, not }, Check::Text { any: other, not: other_not }) => match (not, other_not) {
            (false, false) => any.iter().all(|text| other.contains(text)),
            (false, true) => !any.iter().any(|text| other.contains(text)),
            (true, true) => other.iter().all(|text| any.contains(text)),
            (true, false) => false,
        },
        _ => comparisons(when, then).is_some_and(|(when, then)| follows(when, then)),
    }
}

/// The comparisons of two tests that are the same but for them.
fn comparisons(one: &Check, other: &Check) -> Option<(Compare, Compare)> {
    match (one, other) {
        (Check::Number(is), Check::Number(other)) => Some((*is, *other)),
        (Check::Samples { is, least, of }, Check::Samples { is: other, least: other_least, of: other_of }) => {
            (least == other_least && of == other_of).then_some((*is, *other))
        }
        (
            Check::Window { over, aggregate, is },
            Check::Window { over: other_over, aggregate: other_aggregate, is: other },
        ) => (over == other_over && aggregate == other_aggregate).then_some((*is, *other)),
        (Check::Rate { per, counter, is }, Check::Rate { per: other_per, counter: other_counter, is: other }) => {
            (per == other_per && counter == other_counter).then_some((*is, *other))
        }
        (Check::Difference { other: of, is }, Check::Difference { other: other_of, is: other }) => {
            (of == other_of).then_some((*is, *other))
        }
        _ => None,
    }
}

/// The comparisons that two conditions make of one and the same number.
pub(super) fn of_one_number(one: &Test, other: &Test) -> Option<(Compare, Compare)> {
    match (one, other) {
        // Some of the samples may pass one, and others the other.
        (Test::Metric { check: Check::Samples { .. }, .. }, _) => None,
        (Test::Metric { metric, check }, Test::Metric { metric: other, check: other_check }) if metric == other => {
            comparisons(check, other_check)
        }
        _ => None,
    }
}

/// Indexes of the first two of some conditions that can't hold together.
pub(super) fn at_odds(parts: &[Condition]) -> Option<(usize, usize)> {
    let never = |one: &Condition, other: &Condition| {
        of_one_number(&one.test, &other.test).is_some_and(|(one, other)| common(one, other).is_none())
    };
    parts.iter().enumerate().find_map(|(at, other)| {
        let earlier = parts.iter().take(at).position(|one| never(one, other))?;
        Some((earlier, at))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_comparison_may_follow_from_another() {
        for (when, then, expected) in [
            (Compare::Gt(30.0), Compare::Gt(30.0), true),
            (Compare::Gt(30.0), Compare::Gte(30.0), true),
            (Compare::Gte(30.0), Compare::Gt(30.0), false),
            (Compare::Gt(30.0), Compare::Gt(28.0), true),
            (Compare::Gt(28.0), Compare::Gt(30.0), false),
            (Compare::Gt(30.0), Compare::Lt(28.0), false),
            (Compare::Eq(3.0), Compare::Inside(1.0, 3.0), true),
            (Compare::Inside(1.0, 3.0), Compare::Eq(3.0), false),
            (Compare::Outside(1.0, 3.0), Compare::Ne(2.0), true),
            (Compare::Outside(1.0, 3.0), Compare::Ne(4.0), false),
            (Compare::Ne(1.0), Compare::Outside(1.0, 1.0), true),
        ] {
            assert_eq!(follows(when, then), expected, "{when:?} {then:?}");
        }
        assert_eq!(common(Compare::Gt(30.0), Compare::Lt(28.0)), None);
        assert_eq!(common(Compare::Gt(30.0), Compare::Lte(30.0)), None);
        assert!(common(Compare::Gt(30.0), Compare::Lt(32.0)).is_some_and(|number| number > 30.0 && number < 32.0));
    }

    #[test]
    fn within_a_range_a_comparison_may_be_settled() {
        for (compare, range, expected) in [
            (Compare::Gt(90.0), (-40.0, 85.0), Verdict::Never),
            (Compare::Gt(85.0), (-40.0, 85.0), Verdict::Never),
            (Compare::Gte(85.0), (-40.0, 85.0), Verdict::Sometimes),
            (Compare::Lt(90.0), (-40.0, 85.0), Verdict::Always),
            (Compare::Outside(-50.0, 90.0), (-40.0, 85.0), Verdict::Never),
            (Compare::Eq(2.0), (0.0, 1.0), Verdict::Never),
            (Compare::Eq(1.0), (0.0, 1.0), Verdict::Sometimes),
            (Compare::Lt(0.0), (0.0, f64::INFINITY), Verdict::Never),
            (Compare::Gte(0.0), (0.0, f64::INFINITY), Verdict::Always),
            (Compare::Gt(5.0), (0.0, f64::INFINITY), Verdict::Sometimes),
            (Compare::Eq(7.0), (7.0, 7.0), Verdict::Always),
        ] {
            assert_eq!(verdict(compare, range), expected, "{compare:?} {range:?}");
        }
    }

    fn compare() -> impl Strategy<Value = Compare> {
        let bound = || (-4_i8..=4).prop_map(f64::from);
        prop_oneof![
            bound().prop_map(Compare::Gt),
            bound().prop_map(Compare::Lt),
            bound().prop_map(Compare::Gte),
            bound().prop_map(Compare::Lte),
            bound().prop_map(Compare::Eq),
            bound().prop_map(Compare::Ne),
            (bound(), bound()).prop_map(|(a, b)| Compare::Inside(a.min(b), a.max(b))),
            (bound(), bound()).prop_map(|(a, b)| Compare::Outside(a.min(b), a.max(b))),
        ]
    }

    proptest! {
        #[test]
        fn what_is_said_is_so_for_every_number_of_a_fine_grid(one in compare(), other in compare(), low in -5_i8..=0, high in 1_i8..=5) {
            let grid = || (-80..=80).map(|step| f64::from(step) / 8.0);
            prop_assert_eq!(follows(one, other), grid().all(|x| !one.holds(x) || other.holds(x)));
            prop_assert_eq!(common(one, other).is_some(), grid().any(|x| one.holds(x) && other.holds(x)));
            let range = (f64::from(low), f64::from(high));
            let held: Vec<bool> = grid().filter(|x| (range.0..=range.1).contains(x)).map(|x| one.holds(x)).collect();
            let expected = match (held.contains(&true), held.contains(&false)) {
                (true, false) => Verdict::Always,
                (false, true) => Verdict::Never,
                _ => Verdict::Sometimes,
            };
            prop_assert_eq!(verdict(one, range), expected);
        }
    }
}
