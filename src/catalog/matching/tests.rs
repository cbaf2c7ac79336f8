use proptest::prelude::*;

use super::*;

const FACTS: Facts<'static> = Facts {
    tenant: "acme",
    uid: "shellyplus1pm-a8032abe54dc",
    source: "shellies",
    decoder: "shelly",
    model: Some("SNSW-001P16EU"),
    manufacturer: Some("Shelly"),
};

fn point(samples: &[(&str, Value)]) -> Point {
    let mut point = Point::default();
    samples.iter().for_each(|(key, value)| point.push(key, value.clone()));
    point
}

fn offer(slug: &str, change: impl FnOnce(&mut Criteria)) -> Offer {
    let mut criteria = Criteria::default();
    change(&mut criteria);
    Offer { slug: slug.to_owned(), tenant: None, shipped: false, criteria }
}

fn one(text: &str) -> Vec<String> {
    vec![text.to_owned()]
}

fn best(offers: &[Offer], has: Option<GivenBy>) -> Option<(String, GivenBy)> {
    let points = [point(&[("switch:0.apower", Value::Number(3.0)), ("type", Value::Text("plug".into()))])];
    let heard = Heard { topic: "shellyplus1pm-a8032abe54dc/events/rpc", points: &points };
    let offers = Offers::of(offers);
    offers.best(&FACTS, &heard, has).map(|(slug, by)| (slug.to_string(), by))
}

#[test]
fn the_strongest_criterion_ranks_and_what_is_not_stronger_changes_nothing() {
    let all = [
        offer("family", |c| c.decoder = one("shelly")),
        offer("keyed", |c| c.keys = one("switch:{n+1}.apower")),
        offer("placed", |c| c.topic = one("+/events/rpc")),
        offer("named", |c| c.device = one("shellyplus1pm-*")),
        offer("told", |c| c.model = one("snsw-001p*")),
        offer("never", |_| {}),
    ];
    let given = |count: usize, has| best(all.get(..count).unwrap(), has).map(|(slug, by)| (slug, by.word()));
    let is = |slug: &str, by| Some((slug.to_owned(), by));
    assert_eq!(given(1, None), is("family", "decoder"));
    assert_eq!(given(2, None), is("keyed", "keys"));
    assert_eq!(given(3, None), is("placed", "topic"));
    assert_eq!(given(4, None), is("named", "device"));
    assert_eq!(given(6, None), is("told", "model"));
    assert_eq!(given(6, Some(GivenBy::Device)), is("told", "model"));
    assert_eq!(given(6, Some(GivenBy::Model)), None);
    assert_eq!(given(6, Some(GivenBy::Source)), None);
    assert_eq!(given(6, Some(GivenBy::Assigned)), None);
}

#[test]
fn within_a_rank_the_own_the_operators_and_the_more_exact_come_first() {
    let exact = |slug: &str, c: fn(&mut Criteria)| {
        offer(slug, |criteria| {
            criteria.keys = one("type");
            c(criteria);
        })
    };
    let shipped = |one: Offer| Offer { shipped: true, ..one };
    let own = |tenant: &str, one: Offer| Offer { tenant: Some(tenant.to_owned()), ..one };
    let mut all = vec![
        own("other", exact("another's", |_| {})),
        shipped(exact("a", |_| {})),
        shipped(exact("b", |c| c.keys.push("switch:0.apower".into()))),
        shipped(exact("c", |c| c.decoder = one("shelly"))),
        exact("z", |_| {}),
        exact("y", |_| {}),
        own("acme", shipped(exact("own", |_| {}))),
    ];
    for slug in ["own", "y", "z", "c", "b", "a"] {
        let found = best(&all, None).unwrap().0;
        assert_eq!(found, slug);
        all.retain(|offer| offer.slug != found);
    }
    assert_eq!(best(&all, None), None);
}

#[test]
fn a_template_that_matches_in_several_ways_is_given_by_the_strongest_that_holds() {
    let given = |model: &str, has| {
        let by_keys = Criteria { keys: one("type"), ..Criteria::default() };
        let by_model = Criteria { model: one(model), ..Criteria::default() };
        let matching = vec![by_keys, by_model];
        let template = Template { matching, ..crate::normalize::testing::template("t", Vec::new()) };
        best(&Offer::of(&template, true).collect::<Vec<_>>(), has).map(|(slug, by)| (slug, by.word()))
    };
    assert_eq!(given("another", None), Some(("t".to_owned(), "keys")));
    assert_eq!(given("another", Some(GivenBy::Keys)), None);
    assert_eq!(given("snsw*", None), Some(("t".to_owned(), "model")));
    assert_eq!(given("snsw*", Some(GivenBy::Keys)), Some(("t".to_owned(), "model")));
}

#[test]
fn every_criterion_must_hold() {
    let fits = |change: fn(&mut Criteria)| best(&[offer("t", change)], None).is_some();
    assert!(fits(|c| c.fields = BTreeMap::from([("type".into(), vec!["bulb".into(), "plug".into()])])));
    assert!(!fits(|c| c.fields = BTreeMap::from([("type".into(), one("bulb"))])));
    assert!(!fits(|c| c.fields = BTreeMap::from([("absent".into(), one("plug"))])));
    assert!(fits(|c| c.fields = BTreeMap::from([("switch:0.apower".into(), one("3"))])));
    assert!(!fits(|c| c.keys = vec!["type".into(), "absent".into()]));
    assert!(!fits(|c| (c.decoder, c.source) = (one("shelly"), one("elsewhere"))));
    assert!(!fits(|c| (c.model, c.manufacturer) = (one("*"), one("Sonoff"))));
    assert!(fits(|c| (c.topic, c.manufacturer) = (vec!["a/b".into(), "#".into()], one("SHELLY"))));
}

/// What the criteria say, word for word.
fn holds(criteria: &Criteria, facts: &Facts<'_>, heard: &Heard<'_>) -> bool {
    let any = |list: &[String], is: &dyn Fn(&str) -> bool| list.is_empty() || list.iter().any(|one| is(one));
    let keys: Vec<&str> = heard.points.iter().flat_map(|point| point.iter().map(|(key, _)| key)).collect();
    any(&criteria.decoder, &|one| one == facts.decoder)
        && any(&criteria.source, &|one| one == facts.source)
        && any(&criteria.topic, &|one| Filter::parse(one).unwrap().captures(heard.topic).is_some())
        && any(&criteria.device, &|one| slow_glob(one.as_bytes(), facts.uid.as_bytes()))
        && any(&criteria.model, &|one| {
            facts.model.is_some_and(|text| slow_glob(one.to_lowercase().as_bytes(), text.to_lowercase().as_bytes()))
        })
        && criteria.keys.iter().all(|wanted| keys.contains(&wanted.as_str()))
}

fn slow_glob(glob: &[u8], text: &[u8]) -> bool {
    match (glob.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), None) => slow_glob(rest, text),
        (Some((b'*', rest)), Some((_, after))) => slow_glob(rest, text) || slow_glob(glob, after),
        (Some((one, rest)), Some((letter, after))) => (*one == b'?' || one == letter) && slow_glob(rest, after),
        _ => false,
    }
}

fn words(words: &'static [&'static str], most: usize) -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(prop::sample::select(words).prop_map(str::to_owned), 0..=most)
}

fn offers() -> impl Strategy<Value = Vec<Offer>> {
    let criteria = (
        words(&["json", "shelly"], 1),
        words(&["s1", "s2"], 1),
        words(&["#", "a/+", "b/#"], 1),
        words(&["d*", "?1", "x"], 1),
        words(&["M*", "m1"], 1),
        words(&["k1", "k2", "k3"], 2),
    );
    let criteria = criteria.prop_map(|(decoder, source, topic, device, model, mut keys)| {
        keys.dedup();
        Criteria { decoder, source, topic, device, model, keys, ..Criteria::default() }
    });
    let tenant = prop::sample::select(vec![None, Some("acme".to_owned()), Some("other".to_owned())]);
    let offer = (criteria, tenant, any::<bool>());
    prop::collection::vec(offer, 0..8).prop_map(|offers| {
        let numbered = offers.into_iter().enumerate();
        let offer =
            |(number, (criteria, tenant, shipped))| Offer { slug: format!("t{number}"), tenant, shipped, criteria };
        numbered.map(offer).collect()
    })
}

proptest! {
    #[test]
    fn the_best_is_what_a_slow_search_finds(
        offers in offers(),
        source in prop::sample::select(vec!["s1", "s2"]),
        topic in prop::sample::select(vec!["a/d1", "b/d1/x", "c"]),
        model in prop::sample::select(vec![None, Some("M1"), Some("m2")]),
        keys in words(&["k1", "k2", "k3"], 3),
        has in prop::sample::select(vec![None, Some(GivenBy::Source), Some(GivenBy::Device), Some(GivenBy::Decoder)]),
    ) {
        let facts = Facts { tenant: "acme", uid: "d1", source, decoder: "json", model, manufacturer: None };
        let samples: Vec<(&str, Value)> = keys.iter().map(|key| (key.as_str(), Value::Number(1.0))).collect();
        let points = [point(&samples)];
        let heard = Heard { topic, points: &points };
        let mut found: Option<(&Offer, GivenBy)> = None;
        for offer in &offers {
            let Some(rank) = offer.criteria.rank() else { continue };
            let mine = offer.tenant.as_deref().is_none_or(|tenant| tenant == "acme");
            if !mine || !rank.is_stronger_than(has) || !holds(&offer.criteria, &facts, &heard) {
                continue;
            }
            let before = |other: &Offer, other_rank: GivenBy| {
                let criteria = (other.criteria.count(), other.criteria.keys.len());
                let own = (offer.criteria.count(), offer.criteria.keys.len());
                (rank, offer.tenant.is_none(), offer.shipped) < (other_rank, other.tenant.is_none(), other.shipped)
                    || ((rank, offer.tenant.is_none(), offer.shipped)
                        == (other_rank, other.tenant.is_none(), other.shipped)
                        && (own > criteria || (own == criteria && offer.slug < other.slug)))
            };
            if found.is_none_or(|(other, other_rank)| before(other, other_rank)) {
                found = Some((offer, rank));
            }
        }
        let compiled = Offers::of(&offers);
        let best = compiled.best(&facts, &heard, has);
        prop_assert_eq!(best.map(|(slug, by)| (&**slug, by)), found.map(|(offer, by)| (offer.slug.as_str(), by)));
        // Where nothing can come of a message, none is looked at.
        prop_assert!(best.is_none() || compiled.open(&facts, has).is_open());
    }

    #[test]
    fn globs_fit_as_a_slow_search_says(glob_text in "[ab*?]{0,6}", text in "[ab]{0,6}") {
        prop_assert_eq!(glob(&glob_text, &text, false), slow_glob(glob_text.as_bytes(), text.as_bytes()));
    }
}
