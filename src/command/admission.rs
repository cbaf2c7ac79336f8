//! Whether a command can be sent at all, and on what terms. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::check::Schema;
use super::dialect::{Dialect, Manner, Outgoing, Wire};
use super::request::{LONGEST, PRIORITIES};
use super::text::Facts;
use super::{MAX_DOCUMENT, State, is_id, sparkplug};
use crate::catalog::TemplateCommand;
use crate::config;
use crate::config::fault::did_you_mean;
use crate::decode::sparkplug::command::Known;
use crate::time::UtcMicros;

/// The device that a command is for, as far as it matters.
#[derive(Clone, Debug)]
pub struct Target {
    /// None: it has no template.
    pub model: Option<Arc<Model>>,
    pub gateway: Option<String>,
    pub tags: BTreeMap<String, String>,
    /// When its newest message was received.
    pub last_seen: Option<UtcMicros>,
    /// Its connection is offline, or its gateway's.
    pub is_away: bool,
    /// For a dialect that goes by births; none: none is known, or nobody has looked.
    pub born: Option<Known>,
}

/// Why a command can't be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hindrance {
    Never(String),
    /// It waits.
    Now(String),
}

/// What its template says of commands.
#[derive(Clone, Debug)]
pub struct Model {
    pub slug: String,
    pub dialect: Dialect,
    pub commands: Vec<TemplateCommand>,
}

/// A command as somebody has asked for it.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    pub id: &'a str,
    pub tenant: &'a str,
    pub device: &'a str,
    pub name: &'a str,
    pub params: &'a str,
    pub priority: i32,
    pub state: &'a str,
    pub created_at: UtcMicros,
    pub expires_at: Option<UtcMicros>,
}

/// On what terms a command is sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// Slug of the template that it was checked against.
    pub template: String,
    /// None: nothing can say what becomes of it once it is sent.
    pub timeout: Option<Duration>,
    pub attempts: u32,
    pub in_flight: u16,
    pub expires_at: UtcMicros,
}

/// Whether a device of which so many commands have not ended may get another.
///
/// # Errors
/// That it has too many.
pub fn has_room(waiting: i64, settings: &config::Commands) -> Result<(), String> {
    let most = settings.max_waiting;
    match waiting < i64::from(most) {
        true => Ok(()),
        false => Err(format!("{waiting} commands of the device have not ended; commands.max_waiting is {most}")),
    }
}

impl Terms {
    /// As rows have it: 0 where nothing can say what becomes of it.
    pub fn timeout_ms(&self) -> i64 {
        self.timeout.map_or(0, |timeout| i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX))
    }
}

/// Schemas that have been read, by template and command.
#[derive(Default)]
pub struct Schemas(HashMap<(String, String), Result<Schema, String>>);

impl Model {
    /// A command that it has.
    ///
    /// # Errors
    /// That it has none of this name, and which one may be meant.
    pub fn command(&self, name: &str) -> Result<&TemplateCommand, String> {
        if let Some(command) = self.commands.iter().find(|command| command.name == name) {
            return Ok(command);
        }
        let names = || self.commands.iter().map(|command| command.name.as_str());
        let hint = match did_you_mean(name, names()) {
            Some(hint) => format!("; {hint}"),
            None if self.commands.is_empty() => "; it has none at all".to_owned(),
            None => format!("; it has {}", names().take(20).collect::<Vec<_>>().join(", ")),
        };
        Err(format!("the template {} has no command {name:?}{hint}", self.slug))
    }
}

impl Target {
    fn model(&self, device: &str) -> Result<&Model, String> {
        self.model.as_deref().ok_or_else(|| {
            format!("the device {device:?} has no template, so nobody knows its commands; give it one with `tidegate devices assign`")
        })
    }

    /// What is published for a command, once it is admitted.
    ///
    /// # Errors
    /// [`Hindrance`].
    pub fn render(&self, wanted: &Wanted<'_>, expires_at: UtcMicros, now: UtcMicros) -> Result<Outgoing, Hindrance> {
        let model = self.model(wanted.device).map_err(Hindrance::Never)?;
        let command = model.command(wanted.name).map_err(Hindrance::Never)?;
        let params = parse(wanted.params).map_err(Hindrance::Never)?;
        let outgoing = self.outgoing(&model.dialect, &command.manner, &self.facts(wanted, &params, expires_at, now))?;
        if self.is_away && model.dialect.waits_for_device {
            return Err(Hindrance::Now("the device is offline: it waits until it is back".to_owned()));
        }
        Ok(outgoing)
    }

    fn outgoing(&self, dialect: &Dialect, manner: &Manner, facts: &Facts<'_>) -> Result<Outgoing, Hindrance> {
        if dialect.wire != Wire::Sparkplug {
            return dialect.render(manner, facts).map_err(Hindrance::Never);
        }
        let metrics = sparkplug::metrics(manner, facts).map_err(Hindrance::Never)?;
        let Some(born) = &self.born else { return Err(Hindrance::Now(sparkplug::UNBORN.to_owned())) };
        let (topic, payload) = born.command(&metrics, facts.at).map_err(Hindrance::Never)?;
        Ok(Outgoing { topic, payload, response_topic: None })
    }

    fn facts<'a>(&'a self, wanted: &Wanted<'a>, params: &'a Value, expires_at: UtcMicros, at: UtcMicros) -> Facts<'a> {
        Facts {
            id: wanted.id,
            name: wanted.name,
            tenant: wanted.tenant,
            device: wanted.device,
            gateway: self.gateway.as_deref(),
            tags: &self.tags,
            params,
            expires_at,
            at,
        }
    }
}

/// Looks through a command. `target`: none where there is no such device.
///
/// # Errors
/// Why it is rejected.
pub fn examine(
    wanted: &Wanted<'_>,
    target: Option<&Target>,
    settings: &config::Commands,
    schemas: &mut Schemas,
    now: UtcMicros,
) -> Result<Terms, String> {
    if wanted.state != State::Queued.word() {
        return Err(format!("a command begins as queued, not as {}", wanted.state));
    }
    if !is_id(wanted.id) {
        return Err("its id is not 1 to 64 of the characters A-Z a-z 0-9 _ . -".to_owned());
    }
    if !PRIORITIES.contains(&wanted.priority) {
        return Err(format!("its priority is not within {} to {}", PRIORITIES.start(), PRIORITIES.end()));
    }
    let most = settings.max_params.min(MAX_DOCUMENT);
    if wanted.params.len() > most {
        return Err(format!("params has {} bytes, commands.max_params is {most}", wanted.params.len()));
    }
    let Some(target) = target else {
        return Err(format!("there is no device {:?} of the tenant {:?}", wanted.device, wanted.tenant));
    };
    let model = target.model(wanted.device)?;
    let command = model.command(wanted.name)?;
    let params = parse(wanted.params)?;
    schemas.check(model, command, &params)?;
    let lives = command.manner.expires().unwrap_or(settings.expires);
    let default = || wanted.created_at.checked_add(lives).unwrap_or(wanted.created_at);
    let expires_at = wanted.expires_at.unwrap_or_else(default);
    if expires_at.since(now) > LONGEST {
        return Err("it expires more than 366 days from now".to_owned());
    }
    match target.outgoing(&model.dialect, &command.manner, &target.facts(wanted, &params, expires_at, now)) {
        Err(Hindrance::Never(why)) => return Err(why),
        // What it waits for is no matter of its own.
        Ok(_) | Err(Hindrance::Now(_)) => {}
    }
    Ok(Terms {
        template: model.slug.clone(),
        timeout: model.dialect.is_answered(&command.manner).then_some(command.timeout),
        attempts: if command.manner.idempotent { command.manner.attempts } else { 1 },
        in_flight: model.dialect.in_flight,
        expires_at,
    })
}

impl Schemas {
    fn check(&mut self, model: &Model, command: &TemplateCommand, params: &Value) -> Result<(), String> {
        let key = (model.slug.clone(), command.name.clone());
        let schema = self.0.entry(key).or_insert_with(|| Schema::new(&command.parameters));
        match schema {
            Ok(schema) => schema.check(params),
            Err(wrong) => {
                Err(format!("the schema of {:?} in the template {} can't be used: {wrong}", command.name, model.slug))
            }
        }
    }
}

fn parse(params: &str) -> Result<Value, String> {
    match serde_json::from_str(params) {
        Ok(Value::Object(members)) => Ok(Value::Object(members)),
        Ok(_) => Err("params is no JSON object".to_owned()),
        Err(error) => Err(format!("params is no JSON: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::command::dialect::{Encoding, Wire};
    use crate::command::text::Text;

    fn model(dialect: Dialect) -> Target {
        let command = TemplateCommand {
            name: "dim".to_owned(),
            timeout: Duration::from_secs(5),
            parameters: json!({ "type": "object", "required": ["level"], "properties": { "level": { "maximum": 100 } } }),
            manner: Manner { idempotent: true, ..Manner::default() },
        };
        let model = Model { slug: "lamp".to_owned(), dialect, commands: vec![command] };
        Target {
            model: Some(Arc::new(model)),
            gateway: None,
            tags: BTreeMap::new(),
            last_seen: None,
            is_away: false,
            born: None,
        }
    }

    fn wanted() -> Wanted<'static> {
        Wanted {
            id: "c1",
            tenant: "default",
            device: "lamp-1",
            name: "dim",
            params: r#"{"level":7}"#,
            priority: 0,
            state: "queued",
            created_at: UtcMicros(1_000_000),
            expires_at: None,
        }
    }

    fn look(wanted: &Wanted<'_>, target: Option<&Target>) -> Result<Terms, String> {
        examine(wanted, target, &config::Commands::default(), &mut Schemas::default(), UtcMicros(1_000_000))
    }

    #[test]
    fn a_command_that_fits_gets_its_terms() {
        let terms = look(&wanted(), Some(&model(Dialect::default()))).unwrap();
        assert_eq!((terms.template.as_str(), terms.attempts, terms.in_flight), ("lamp", 3, 1));
        assert_eq!(terms.timeout, Some(Duration::from_secs(5)));
        assert_eq!(terms.expires_at, UtcMicros(3_601_000_000));
        let given = look(&Wanted { expires_at: Some(UtcMicros(2)), ..wanted() }, Some(&model(Dialect::default())));
        assert_eq!(given.unwrap().expires_at, UtcMicros(2));
    }

    #[test]
    fn what_does_not_fit_is_rejected_with_the_reason() {
        let target = model(Dialect::default());
        let long = format!(r#"{{"level":"{}"}}"#, "x".repeat(70_000));
        for (bad, word) in [
            (Wanted { state: "sent", ..wanted() }, "begins as queued"),
            (Wanted { id: "a/b", ..wanted() }, "its id"),
            (Wanted { priority: 5000, ..wanted() }, "priority"),
            (Wanted { name: "dimm", ..wanted() }, "did you mean `dim`"),
            (Wanted { name: "reboot", ..wanted() }, "it has dim"),
            (Wanted { params: "{", ..wanted() }, "no JSON"),
            (Wanted { params: "[]", ..wanted() }, "no JSON object"),
            (Wanted { params: r#"{"level":101}"#, ..wanted() }, "params.level"),
            (Wanted { params: "{}", ..wanted() }, "level"),
            (Wanted { params: &long, ..wanted() }, "max_params"),
            (Wanted { expires_at: Some(UtcMicros(i64::MAX)), ..wanted() }, "366 days"),
        ] {
            let why = look(&bad, Some(&target)).unwrap_err();
            assert!(why.contains(word), "{why}");
        }
        assert!(look(&wanted(), None).unwrap_err().contains("no device \"lamp-1\""));
        let bare = Target { model: None, ..target };
        assert!(look(&wanted(), Some(&bare)).unwrap_err().contains("no template"));
    }

    #[test]
    fn a_command_for_a_device_that_is_away_waits_where_the_template_has_it_so() {
        let render = |target: &Target| target.render(&wanted(), UtcMicros(9), UtcMicros(1));
        let away = Target { is_away: true, ..model(Dialect::default()) };
        assert!(matches!(render(&away), Err(Hindrance::Now(why)) if why.contains("offline")));
        let at_once = Dialect { waits_for_device: false, ..Dialect::default() };
        assert!(render(&Target { is_away: true, ..model(at_once) }).is_ok());
        // Nothing to wait for.
        let gone = Target { model: None, ..away };
        assert!(matches!(render(&gone), Err(Hindrance::Never(_))));
    }

    #[test]
    fn a_placeholder_without_a_value_is_a_rejection_with_its_name() {
        let wire = Wire::Template {
            topic: Text::parse("cmnd/{device}").unwrap(),
            payload: Encoding::Text(Text::parse("{params.ramp}").unwrap()),
        };
        let target = model(Dialect { wire, ..Dialect::default() });
        assert!(look(&wanted(), Some(&target)).unwrap_err().contains("{params.ramp}"));
        let ramp = Wanted { params: r#"{"level":7,"ramp":2}"#, ..wanted() };
        assert_eq!(look(&ramp, Some(&target)).unwrap().timeout, None, "nothing answers");
    }
}
