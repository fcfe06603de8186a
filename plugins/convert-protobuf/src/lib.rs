//! Stock plugin `convert-protobuf`: payloads from Protocol Buffers to JSON, and back.
//!
//! The `.proto` source is in the configuration, and compiled when the plugin is. JSON is that of the canonical mapping
//! (<https://protobuf.dev/programming-guides/json/>), with its well-known types.

mod framing;
mod schema;

use framing::Framing;
use prost::Message as _;
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use quipu_plugin::prelude::*;
use quipu_plugin::serde_json;
use std::collections::BTreeMap;

/// The configuration of one use.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvertProtobuf {
    to: To,
    /// Source of the file that has the message.
    proto: String,
    /// Sources of what it imports, by the name it does so.
    #[serde(default)]
    imports: BTreeMap<String, String>,
    /// Full name of the message; that of the file's only one, if left out.
    message: Option<String>,
    #[serde(default)]
    names: Names,
    #[serde(default)]
    enums: Enums,
    #[serde(default)]
    int64: Int64,
    /// Whether JSON has fields that are not set, too.
    #[serde(default)]
    defaults: bool,
    #[serde(default)]
    unknown: Unknown,
    #[serde(default)]
    framing: Framing,
    /// Goes into the frame.
    schema_id: Option<u32>,
    /// The message's type, compiled in `configure`.
    #[serde(skip)]
    descriptor: Option<MessageDescriptor>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum To {
    Json,
    Protobuf,
}

/// What fields are called in JSON; both are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Names {
    #[default]
    Camel,
    Proto,
}

/// How JSON has the values of enums; both are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Enums {
    #[default]
    Name,
    Number,
}

/// How JSON has integers of 64 bits, which many readers of JSON cannot keep as numbers; both are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Int64 {
    #[default]
    Text,
    Number,
}

/// What becomes of names in JSON that the message does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Unknown {
    #[default]
    Reject,
    Skip,
}

impl Plugin for ConvertProtobuf {
    fn configure(config: &str) -> Result<Self> {
        let mut plugin: Self = quipu_plugin::parse_config(config)?;
        let writes_frame = plugin.to == To::Protobuf && plugin.framing == Framing::Confluent;
        match (writes_frame, plugin.schema_id) {
            (true, None) => return Err("schema_id: required with to = \"protobuf\" and framing = \"confluent\"".into()),
            (false, Some(_)) => {
                return Err("schema_id: goes with to = \"protobuf\" and framing = \"confluent\" alone".into());
            }
            _ => {}
        }
        plugin.descriptor = Some(schema::compile(&plugin.proto, &plugin.imports, plugin.message.as_deref())?);
        Ok(plugin)
    }

    fn process(&mut self, message: &mut Message) -> Result<Verdict> {
        let descriptor = self.descriptor.as_ref().expect("configure compiles it");
        match self.to {
            To::Json => {
                let value = self.read(descriptor, message.payload())?;
                message.set_json(&value)?;
            }
            To::Protobuf => {
                let written = self.write(descriptor, message.payload())?;
                message.set_payload(written);
            }
        }
        Ok(forward())
    }
}
plugin!(ConvertProtobuf);

impl ConvertProtobuf {
    fn read(&self, descriptor: &MessageDescriptor, payload: &[u8]) -> Result<Value> {
        let no = |problem: &str| format!("the payload is no {}: {problem}", descriptor.full_name());
        let body = framing::take_off(self.framing, descriptor, payload).map_err(|problem| no(&problem))?;
        let decoded = DynamicMessage::decode(descriptor.clone(), body).map_err(|error| {
            let said = error.to_string();
            no(said.strip_prefix("failed to decode Protobuf message: ").unwrap_or(&said))
        })?;
        let options = SerializeOptions::new()
            .use_proto_field_name(self.names == Names::Proto)
            .use_enum_numbers(self.enums == Enums::Number)
            .stringify_64_bit_integers(self.int64 == Int64::Text)
            .skip_default_fields(!self.defaults);
        // By way of text, in which floats of 32 bits are short, and then sorted: the entries of a map have no order.
        let mut text = Vec::new();
        decoded
            .serialize_with_options(&mut serde_json::Serializer::new(&mut text), &options)
            .map_err(|error| format!("JSON cannot say the payload: {error}"))?;
        Ok(serde_json::from_slice(&text)?)
    }

    fn write(&self, descriptor: &MessageDescriptor, payload: &[u8]) -> Result<Vec<u8>> {
        let options = DeserializeOptions::new().deny_unknown_fields(self.unknown == Unknown::Reject);
        let mut json = serde_json::Deserializer::from_slice(payload);
        let mut track = serde_path_to_error::Track::new();
        let tracked = serde_path_to_error::Deserializer::new(&mut json, &mut track);
        let read = DynamicMessage::deserialize_with_options(descriptor.clone(), tracked, &options);
        let made = read.map_err(|error| unfit(&error, &track.path().to_string()))?;
        json.end().map_err(|error| format!("the payload is no JSON: {error}"))?;
        let mut written = framing::begin(self.schema_id, descriptor);
        made.encode(&mut written)?;
        Ok(written)
    }
}

/// In the words of other plugins: syntax by line and column, a value that does not fit by its path.
fn unfit(error: &serde_json::Error, path: &str) -> String {
    if !error.is_data() {
        return format!("the payload is no JSON: {error}");
    }
    let said = error.to_string();
    let problem = said.rsplit_once(" at line ").map_or(said.as_str(), |(problem, _)| problem);
    let place = if path == "." { "the payload" } else { path };
    format!("{place}: {problem}")
}

#[cfg(test)]
mod tests;
