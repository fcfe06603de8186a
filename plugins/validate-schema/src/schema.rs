//! Schemas: read, compiled, and what they say about a value in the words of this project's other errors.

use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, Retrieve, Uri, ValidationError, Validator};
use quipu_plugin::json::kind;
use quipu_plugin::prelude::*;
use quipu_plugin::serde_json;
use serde::de::{Deserializer, Error as _};
use std::collections::BTreeMap;

/// How often a pattern with look-around or references may go back over one text. A value on which that is not enough
/// does not fit.
const BACKTRACKS_MAX: usize = 100_000;
/// Largest compiled pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 4 << 20;
/// Longest value that an explanation shows, in bytes of JSON.
const SHOWN_BYTES_MAX: usize = 64;
/// Where schemas without a URI of their own are.
const BASE: &str = "json-schema:///";

/// A schema as it is written: a value, or the text of one.
#[derive(Clone, Debug)]
pub(crate) struct Schema(Value);

impl<'de> Deserialize<'de> for Schema {
    fn deserialize<D: Deserializer<'de>>(config: D) -> Result<Self, D::Error> {
        let value = match Value::deserialize(config)? {
            Value::String(text) => {
                serde_json::from_str(&text).map_err(|error| D::Error::custom(format!("no JSON: {error}")))?
            }
            value => value,
        };
        match value {
            Value::Object(_) | Value::Bool(_) => Ok(Self(value)),
            other => Err(D::Error::custom(format!("{}, expected a schema: an object or a boolean", kind(&other)))),
        }
    }
}

/// Makes one validator of a schema and those that it may refer to, each of which is looked at, referred to or not.
pub(crate) fn compile(schema: &Schema, others: &BTreeMap<String, Schema>, formats: bool) -> Result<Validator, String> {
    let given = Given(others.iter().map(|(uri, Schema(value))| (uri.clone(), value.clone())).collect());
    let patterns = PatternOptions::fancy_regex().backtrack_limit(BACKTRACKS_MAX).size_limit(PATTERN_BYTES_MAX);
    let options = jsonschema::options()
        .with_retriever(given)
        .with_pattern_options(patterns)
        .should_validate_formats(formats)
        .should_ignore_unknown_formats(true);
    for (uri, Schema(value)) in others {
        let place = format!("schemas.{uri}");
        options.build(value).map_err(|error| refusal(&error, &place))?;
    }
    options.build(&schema.0).map_err(|error| refusal(&error, "schema"))
}

/// The schemas of the configuration; there are no others.
struct Given(BTreeMap<String, Value>);

impl Retrieve for Given {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        let uri = uri.as_str();
        let found = self.0.get(uri).or_else(|| self.0.get(uri.strip_prefix(BASE)?));
        found.cloned().ok_or_else(|| "`schemas` has none of this name".into())
    }
}

/// What is wrong with the schema of this key.
fn refusal(error: &ValidationError<'_>, key: &str) -> String {
    // Of a pattern that cannot be compiled the place is that of the keyword.
    let of_pattern =
        error.instance_path().as_str().is_empty() && matches!(error.kind(), ValidationErrorKind::Format { .. });
    let pointer = if of_pattern { error.schema_path() } else { error.instance_path() };
    say(error, pointer.as_str(), key, "")
}

/// Where a value does not fit, and why. The place is a path from what `place` names, or `whole` if that is empty.
pub(crate) fn explain(error: &ValidationError<'_>, place: &str, whole: &str) -> String {
    say(error, error.instance_path().as_str(), place, whole)
}

fn say(error: &ValidationError<'_>, pointer: &str, place: &str, whole: &str) -> String {
    let mut path = place.to_owned();
    for name in pointer.split('/').skip(1) {
        let name = name.replace("~1", "/").replace("~0", "~").replace('\\', r"\\").replace('.', r"\.");
        path = if path.is_empty() { name } else { format!("{path}.{name}") };
    }
    let path = if path.is_empty() { whole } else { &path };
    if let ValidationErrorKind::Referencing(error) = error.kind() {
        return format!("{path}: {error}");
    }
    let value = error.instance();
    let shown = match &**value {
        Value::Array(_) | Value::Object(_) => None,
        scalar => Some(scalar.to_string()).filter(|text| text.len() <= SHOWN_BYTES_MAX),
    };
    let shown = shown.unwrap_or_else(|| kind(value).to_owned());
    format!("{path}: {}", error.masked_with(shown))
}
