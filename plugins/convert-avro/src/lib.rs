//! Stock plugin `convert-avro`: payloads from Avro to JSON, and back, by the schema that they are written with.
//!
//! The codec is our own: it keeps to the payload's size with lengths that lie, and says byte and field of what is wrong.
//! It reads one value for each payload; container files, and resolving one schema into another, are not here.

mod framing;
mod logical;
mod problem;
mod read;
mod schema;
mod write;

use framing::{Frame, Framing};
use quipu_plugin::prelude::*;
use quipu_plugin::serde_json;
use schema::Schema;
use serde::de::{Deserializer, Error as _};

/// The configuration of one use.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvertAvro {
    to: To,
    schema: Written,
    #[serde(default)]
    style: Style,
    #[serde(default)]
    unknown: Unknown,
    #[serde(default)]
    framing: Framing,
    /// Goes into the frame.
    schema_id: Option<u32>,
    /// Made in `configure`.
    #[serde(skip)]
    compiled: Option<(Schema, Frame)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum To {
    Json,
    Avro,
}

/// How JSON says what it has no words for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Style {
    /// As others would write it: a value of a union by itself, bytes as base64, times and decimals as text.
    #[default]
    Plain,
    /// Avro's own encoding as JSON: unions say the type, bytes are text of their code points.
    Avro,
}

/// What becomes of names in JSON that a record does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Unknown {
    #[default]
    Reject,
    Skip,
}

/// A schema as it is written: a value, or the text of one.
#[derive(Debug)]
struct Written(Value);

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(config: D) -> Result<Self, D::Error> {
        match Value::deserialize(config)? {
            Value::String(text) => {
                serde_json::from_str(&text).map(Self).map_err(|error| D::Error::custom(format!("no JSON: {error}")))
            }
            value => Ok(Self(value)),
        }
    }
}

impl Plugin for ConvertAvro {
    fn configure(config: &str) -> Result<Self> {
        let mut plugin: Self = quipu_plugin::parse_config(config)?;
        let writes_id = plugin.to == To::Avro && plugin.framing == Framing::Confluent;
        match (writes_id, plugin.schema_id) {
            (true, None) => return Err("schema_id: required with to = \"avro\" and framing = \"confluent\"".into()),
            (false, Some(_)) => {
                return Err("schema_id: goes with to = \"avro\" and framing = \"confluent\" alone".into());
            }
            _ => {}
        }
        let schema = Schema::parse(&plugin.schema.0)?;
        write::check_defaults(&schema)?;
        let frame = Frame::new(plugin.framing, plugin.schema_id, &schema);
        plugin.compiled = Some((schema, frame));
        Ok(plugin)
    }

    fn process(&mut self, message: &mut Message) -> Result<Verdict> {
        let (schema, frame) = self.compiled.as_ref().expect("configure makes both");
        match self.to {
            To::Json => {
                let at = frame.take_off(message.payload())?;
                let value = read::read(schema, message.payload(), at, self.style)?;
                message.set_json(&value)?;
            }
            To::Avro => {
                let mut written = frame.begin();
                write::write(schema, &message.json()?, self.style, self.unknown, &mut written)?;
                message.set_payload(written);
            }
        }
        Ok(forward())
    }
}
plugin!(ConvertAvro);

#[cfg(test)]
mod tests;
