//! The shipped templates: every example becomes what its template says, found among all of them; names and units are those of
//! docs/metrics.md; real payloads leave few keys without a metric.

mod page;
mod rig;
mod share;
mod vocabulary;

use rig::{Library, source, strength};
use tidegate::catalog::example::{Example, ExampleValue};
use tidegate::catalog::files::ReadTemplate;
use tidegate::config::Decoder;

/// Least templates that are shipped.
const LEAST: usize = 60;

#[test]
fn every_template_has_an_example_and_says_where_its_payload_is_from() {
    let library = Library::shipped();
    assert!(library.templates.len() >= LEAST, "{} templates", library.templates.len());
    for template in &library.templates {
        let slug = &template.template.slug;
        assert!(!template.examples.is_empty(), "{slug} has no example");
        for example in &template.examples {
            assert!(
                example.origin.as_ref().is_some_and(|origin| origin.len() > 10),
                "{slug}: an example without origin"
            );
        }
    }
}

#[test]
fn every_example_becomes_what_its_template_says() {
    let library = Library::shipped();
    let faults: Vec<String> =
        library.each_example().filter_map(|(template, example)| fault(&library, template, example)).collect();
    assert!(faults.is_empty(), "{} examples:\n{}", faults.len(), faults.join("\n"));
}

/// What is wrong with an example, if anything.
fn fault(library: &Library, template: &ReadTemplate, example: &Example) -> Option<String> {
    let slug = &template.template.slug;
    let named = strength(&template.template).is_none().then_some(slug.as_str());
    let heard = library.rig(&[]).hear(example, named);
    let mut wrong = Vec::new();
    if heard.template.as_deref() != Some(slug) {
        wrong.push(format!("was given {:?}", heard.template));
    }
    wrong.extend(heard.refused.iter().map(|refusal| format!("refused: {refusal}")));
    for key in heard.unmodeled.iter().filter(|key| !example.unmodeled.contains(key)) {
        wrong.push(format!("{key} has no metric"));
    }
    for (name, value) in &heard.readings {
        match example.readings.get(name) {
            None => wrong.push(format!("{name} = {value:?} is not in readings")),
            Some(expected) if !same(expected, value) => wrong.push(format!("{name} is {value:?}, not {expected:?}")),
            Some(_) => {}
        }
    }
    for name in example.readings.keys().filter(|name| !heard.readings.contains_key(*name)) {
        wrong.push(format!("{name} did not come"));
    }
    (!wrong.is_empty()).then(|| format!("{slug}, {}: {}", example.topic, wrong.join("; ")))
}

/// A number may differ in its last digits: a conversion is written in decimal, and worked out in binary.
fn same(expected: &ExampleValue, found: &ExampleValue) -> bool {
    match (expected, found) {
        (ExampleValue::Number(expected), ExampleValue::Number(found)) => {
            (expected - found).abs() <= 1e-9 * expected.abs().max(1.0)
        }
        (expected, found) => expected == found,
    }
}

/// Of two templates that match as strongly, only the alphabet would tell which one a device gets.
#[test]
fn no_two_templates_match_an_example_as_strongly() {
    let library = Library::shipped();
    let mut ties = Vec::new();
    for (template, example) in library.each_example().filter(|(template, _)| strength(&template.template).is_some()) {
        let slug = &template.template.slug;
        let second = library.rig(&[slug]).hear(example, None).template;
        let second = second.and_then(|second| library.template(&second));
        if let Some(second) = second
            && strength(&second.template) == strength(&template.template)
        {
            ties.push(format!("{slug} and {} for {}", second.template.slug, example.topic));
        }
    }
    assert!(ties.is_empty(), "{}", ties.join("\n"));
}

/// Owners rename them, and then only the announcement tells what they are.
#[test]
fn a_shelly_with_another_name_is_known_by_what_it_announces() {
    let library = Library::shipped();
    for (model, topic, payload, slug) in [
        ("SHSW-25", "roller/0", "open", "shelly-25"),
        ("SHEM-3", "emeter/0/power", "12.5", "shelly-3em"),
        ("SHEM", "emeter/0/power", "12.5", "shelly-em"),
        ("SHDM-2", "light/0", "on", "shelly-dimmer"),
        ("SHRGBW2", "color/0", "on", "shelly-rgbw2"),
    ] {
        let mut rig = library.rig(&[]);
        let mut hear = |topic: &str, payload: &str| {
            let source = source("shellies/{device}/{metric...}", Decoder::Shelly, None);
            rig.message(source, &format!("shellies/attic/{topic}"), payload.as_bytes()).template
        };
        assert_eq!(hear(topic, payload).as_deref(), Some("shelly-gen1"), "{model}");
        hear(
            "announce",
            &format!(r#"{{"id":"attic","model":"{model}","mac":"0123456789AB","ip":"10.0.0.9","fw_ver":"x"}}"#),
        );
        assert_eq!(hear(topic, payload).as_deref(), Some(slug), "{model}");
    }
}
