//! Stock plugin `validate-schema`: lets JSON payloads through that fit a JSON Schema.
//!
//! All schemas are in the configuration. Nothing is fetched, and the payload stays as it is.

mod schema;

use jsonschema::Validator;
use quipu_plugin::json::JsonError;
use quipu_plugin::prelude::*;
use schema::Schema;
use std::collections::BTreeMap;

/// The reason of drops, which are counted by it.
const UNFIT: &str = "does not fit the schema";
/// Longest value of the header, in characters; the router takes 4 KiB.
const HEADER_CHARS_MAX: usize = 1_000;

/// The configuration of one use.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidateSchema {
    schema: Schema,
    /// What `$ref` may name besides, by URI.
    #[serde(default)]
    schemas: BTreeMap<String, Schema>,
    /// What is looked at, where it is not the whole payload.
    field: Option<FieldPath>,
    /// Whether `format` is checked, or only says something to people.
    #[serde(default = "yes")]
    formats: bool,
    #[serde(default = "reject_it")]
    otherwise: Otherwise,
    /// Says what is wrong, of messages that go on all the same.
    header: Option<HeaderName>,
    /// Made of the schemas in `configure`.
    #[serde(skip)]
    validator: Option<Validator>,
}

fn yes() -> bool {
    true
}

fn reject_it() -> Otherwise {
    Otherwise::Reject
}

impl Plugin for ValidateSchema {
    fn configure(config: &str) -> Result<Self> {
        let mut plugin: Self = quipu_plugin::parse_config(config)?;
        if plugin.header.is_some() && plugin.otherwise != Otherwise::Forward {
            return Err("header: goes with otherwise = \"forward\" alone".into());
        }
        plugin.validator = Some(schema::compile(&plugin.schema, &plugin.schemas, plugin.formats)?);
        Ok(plugin)
    }

    fn process(&mut self, message: &mut Message) -> Result<Verdict> {
        let value = match &self.field {
            None => message.json()?,
            Some(field) => match message.json_field(field) {
                Err(error @ JsonError::Absent { .. }) => return self.unfit(message, &error.to_string()),
                other => other?,
            },
        };
        let validator = self.validator.as_ref().expect("configure makes it");
        let place = self.field.as_ref().map_or("", FieldPath::as_str);
        if let Err(error) = validator.validate(&value) {
            return self.unfit(message, &schema::explain(&error, place, "the payload"));
        }
        // Not what somebody else put there.
        if let Some(header) = &self.header {
            message.remove_header(header.as_str());
        }
        Ok(forward())
    }
}
plugin!(ValidateSchema);

impl ValidateSchema {
    fn unfit(&self, message: &mut Message, problem: &str) -> Result<Verdict> {
        if let Some(header) = &self.header {
            let plain = |c: char| if c.is_control() { ' ' } else { c };
            let value: String = problem.chars().map(plain).take(HEADER_CHARS_MAX).collect();
            message.try_set_header(header, &value)?;
        }
        Ok(self.otherwise.verdict(if self.otherwise == Otherwise::Drop { UNFIT } else { problem }))
    }
}

#[cfg(test)]
mod tests;
