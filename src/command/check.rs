//! Parameters against the JSON Schema of their command. No schema is fetched from elsewhere.

use jsonschema::Validator;
use serde_json::Value;

/// Faults told of one set of parameters; the rest is counted.
const TOLD: usize = 4;
/// Most bytes of a fault as it is told.
const MAX_FAULT: usize = 300;

/// A command's schema, ready to use.
pub struct Schema(Validator);

impl Schema {
    /// Reads a schema; without `$schema` it is of draft 2020-12.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(schema: &Value) -> Result<Schema, String> {
        jsonschema::validator_for(schema).map(Schema).map_err(|error| clip(&error.to_string()))
    }

    /// Whether parameters are as the schema has them.
    ///
    /// # Errors
    /// What is wrong, field by field: `params.level: 300 is greater than the maximum of 100`.
    pub fn check(&self, params: &Value) -> Result<(), String> {
        let mut told: Vec<String> = Vec::new();
        let mut more = 0_usize;
        for error in self.0.iter_errors(params) {
            if told.len() < TOLD {
                let field = field(&error.instance_path().to_string());
                told.push(format!("{field}: {}", clip(&error.to_string())));
            } else {
                more = more.saturating_add(1);
            }
        }
        match (told.is_empty(), more) {
            (true, _) => Ok(()),
            (false, 0) => Err(told.join("; ")),
            (false, more) => Err(format!("{}; and {more} more", told.join("; "))),
        }
    }
}

/// A JSON pointer (RFC 6901) as people write it: `/a/0` → `params.a.0`.
fn field(pointer: &str) -> String {
    let levels = pointer.split('/').skip(1).map(|level| level.replace("~1", "/").replace("~0", "~"));
    std::iter::once("params".to_owned()).chain(levels).collect::<Vec<_>>().join(".")
}

fn clip(text: &str) -> String {
    let mut text = text.to_owned();
    if text.len() > MAX_FAULT {
        text.truncate(text.floor_char_boundary(MAX_FAULT));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_fault_names_its_field() {
        let schema = Schema::new(&json!({
            "type": "object", "required": ["level"], "additionalProperties": false,
            "properties": { "level": { "type": "integer", "minimum": 0, "maximum": 100 }, "ramp": { "type": "number" } },
        }))
        .unwrap();
        assert_eq!(schema.check(&json!({ "level": 7, "ramp": 0.5 })), Ok(()));
        let wrong = schema.check(&json!({ "level": 300 })).unwrap_err();
        assert!(wrong.starts_with("params.level: ") && wrong.contains("100"), "{wrong}");
        let wrong = schema.check(&json!({})).unwrap_err();
        assert!(wrong.starts_with("params: ") && wrong.contains("level"), "{wrong}");
        let wrong = schema.check(&json!({ "level": 1, "rmap": 1 })).unwrap_err();
        assert!(wrong.contains("rmap"), "{wrong}");
        assert!(schema.check(&json!([1])).is_err());
    }

    #[test]
    fn a_schema_that_is_none_or_lies_elsewhere_is_refused() {
        assert!(Schema::new(&json!({ "type": "objekt" })).is_err());
        assert!(Schema::new(&json!({ "$ref": "https://schemas.example/level.json" })).is_err());
        assert!(Schema::new(&json!({ "$ref": "file:///etc/passwd" })).is_err());
    }

    #[test]
    fn many_and_long_faults_are_told_in_part() {
        let schema = Schema::new(&json!({ "type": "object", "additionalProperties": { "type": "string" } })).unwrap();
        let many: serde_json::Map<String, Value> = (0..9).map(|n| (format!("p{n}"), json!(n))).collect();
        let wrong = schema.check(&Value::Object(many)).unwrap_err();
        assert!(wrong.ends_with("and 5 more"), "{wrong}");
        let long = schema.check(&json!({ "x": ["y".repeat(10_000)] })).unwrap_err();
        assert!(long.len() < 400, "{}", long.len());
    }
}
