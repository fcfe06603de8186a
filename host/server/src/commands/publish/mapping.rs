//! What of a message comes from its payload.

use anyhow::{Result, ensure};
use quipu_client::OutgoingMessage;
use serde_json::Value;

/// Id, key and headers, given or taken from fields of a JSON payload by dotted paths.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Mapping {
    /// The field that holds the message id, which removes duplicates; a dotted path into the JSON payload.
    #[arg(long, value_name = "PATH")]
    pub(crate) id_field: Option<String>,
    /// The field that holds the key; a dotted path.
    #[arg(long, value_name = "PATH")]
    pub(crate) key_field: Option<String>,
    /// A header with the value of a field, as type=properties.type; may be repeated.
    #[arg(long, value_name = "NAME=PATH", value_parser = pair)]
    pub(crate) header_from: Vec<(String, String)>,
    /// A header; may be repeated.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) headers: Vec<(String, String)>,
}

impl Mapping {
    /// Refuses what cannot be right for any message.
    pub(crate) fn check(&self) -> Result<()> {
        let paths = self.id_field.iter().chain(&self.key_field).chain(self.header_from.iter().map(|(_, path)| path));
        for path in paths {
            ensure!(path.split('.').all(|step| !step.is_empty()), "`{path}`: a path has no empty step, as in `a.b.c`");
        }
        Ok(())
    }

    /// The message of a payload.
    ///
    /// # Errors
    ///
    /// A text that names the field that is missing.
    pub(crate) fn message(&self, subject: &str, payload: Vec<u8>) -> Result<OutgoingMessage, String> {
        let fields = self.id_field.is_some() || self.key_field.is_some() || !self.header_from.is_empty();
        let json: Value = match fields {
            true => serde_json::from_slice(&payload).map_err(|e| format!("the payload is no JSON: {e}"))?,
            false => Value::Null,
        };
        let mut message = OutgoingMessage::new(subject, payload);
        if let Some(path) = &self.id_field {
            message = message.id(&field(&json, path)?);
        }
        if let Some(path) = &self.key_field {
            message = message.key(field(&json, path)?.into_bytes());
        }
        for (name, path) in &self.header_from {
            message = message.header(name, &field(&json, path)?);
        }
        for (name, value) in &self.headers {
            message = message.header(name, value);
        }
        Ok(message)
    }
}

/// A text, number or boolean at a dotted path; a number is an index where the value there is a list.
fn field(json: &Value, path: &str) -> Result<String, String> {
    let mut value = json;
    for step in path.split('.') {
        let inner = match value {
            Value::Array(list) => step.parse::<usize>().ok().and_then(|n| list.get(n)),
            other => other.get(step),
        };
        value = inner.ok_or_else(|| format!("the payload has no field `{path}`"))?;
    }
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
        Value::Null => Err(format!("field `{path}` is null")),
        Value::Array(_) | Value::Object(_) => Err(format!("field `{path}` is no text, number or boolean")),
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("NAME=VALUE is expected".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_path() {
        let json = serde_json::json!({ "a": { "b": [1, "two"], "n": null, "yes": true } });
        assert_eq!(field(&json, "a.b.1").as_deref(), Ok("two"));
        assert_eq!(field(&json, "a.b.0").as_deref(), Ok("1"));
        assert_eq!(field(&json, "a.yes").as_deref(), Ok("true"));
        assert_eq!(field(&json, "a.c"), Err("the payload has no field `a.c`".into()));
        assert_eq!(field(&json, "a.n"), Err("field `a.n` is null".into()));
        assert_eq!(field(&json, "a"), Err("field `a` is no text, number or boolean".into()));
    }

    #[test]
    fn pairs_have_two_sides() {
        assert_eq!(pair("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(pair("a").is_err() && pair("=b").is_err());
    }
}
