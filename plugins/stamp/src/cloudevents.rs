//! CloudEvents 1.0: the attributes in headers, as in the HTTP binding's binary mode, or around the payload in the JSON
//! format. <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md>

use crate::Missing;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use quipu_plugin::prelude::*;
use quipu_plugin::serde_json::{self, Map, value::RawValue};
use std::collections::BTreeMap;

/// The media type of an event as one JSON object.
const ENVELOPE_TYPE: &str = "application/cloudevents+json";
/// Attributes that have keys of their own, or that the format gives a meaning.
const CORE: [&str; 10] =
    ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "data", "data_base64"];

/// Where the attributes come from.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CloudEvents {
    #[serde(default)]
    mode: Mode,
    source: Template,
    r#type: Template,
    /// The id of the message unless said otherwise.
    id: Option<Template>,
    /// When it was published unless said otherwise.
    time: Option<Template>,
    subject: Option<Template>,
    datacontenttype: Option<Template>,
    dataschema: Option<Template>,
    #[serde(default)]
    extensions: BTreeMap<Attribute, Template>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// Attributes in headers; the payload is the data.
    #[default]
    Binary,
    /// Attributes and data in one JSON object, which takes the place of the payload.
    Structured,
}

/// The name of an attribute that is no core one: lower-case letters and digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
struct Attribute(String);

impl TryFrom<String> for Attribute {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        /// What the specification asks for, so that names fit everywhere.
        const BYTES_MAX: usize = 20;
        if CORE.contains(&name.as_str()) {
            return Err(format!("{name:?} is no extension: it has a key of its own"));
        }
        let is_plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if is_plain && (1..=BYTES_MAX).contains(&name.len()) {
            Ok(Self(name))
        } else {
            Err(format!("invalid attribute {name:?}: 1 to {BYTES_MAX} lower-case letters and digits"))
        }
    }
}

/// What a message gets to be an event.
pub(crate) struct Event {
    pub(crate) headers: Vec<(HeaderName, String)>,
    pub(crate) envelope: Option<String>,
}

impl CloudEvents {
    /// The event that the message in hand becomes; an error begins with the attribute.
    pub(crate) fn of(&self, message: &Message, missing: Missing) -> Result<Event, String> {
        let mut attributes = vec![("specversion", "1.0".to_owned())];
        let id = self.id.as_ref().map_or_else(|| Ok(message.id()), |id| required("id", id, message))?;
        attributes.push(("id", id));
        attributes.push(("source", required("source", &self.source, message)?));
        attributes.push(("type", required("type", &self.r#type, message)?));
        match &self.time {
            None => attributes.push(("time", context::rfc3339(message.published_ms()))),
            Some(time) => {
                attributes.extend(missing.fill("cloudevents.time", time, message)?.map(|time| ("time", time)));
            }
        }
        let named =
            [("subject", &self.subject), ("datacontenttype", &self.datacontenttype), ("dataschema", &self.dataschema)];
        let named = named.into_iter().filter_map(|(name, template)| Some((name, template.as_ref()?)));
        let extensions = self.extensions.iter().map(|(name, template)| (name.0.as_str(), template));
        for (name, template) in named.chain(extensions) {
            let value = missing.fill(&format!("cloudevents.{name}"), template, message)?;
            attributes.extend(value.map(|value| (name, value)));
        }
        match self.mode {
            Mode::Binary => Ok(Event { headers: headers(attributes), envelope: None }),
            Mode::Structured => envelope(attributes, message),
        }
    }
}

/// The specification wants these, and none of them empty.
fn required(name: &str, template: &Template, message: &Message) -> Result<String, String> {
    match template.fill(message) {
        Ok(value) if value.is_empty() => Err(format!("cloudevents.{name}: empty")),
        Ok(value) => Ok(value),
        Err(error) => Err(format!("cloudevents.{name}: {error}")),
    }
}

fn headers(attributes: Vec<(&str, String)>) -> Vec<(HeaderName, String)> {
    let named = attributes.into_iter().map(|(attribute, value)| {
        let name = match attribute {
            "datacontenttype" => "content-type".into(),
            other => format!("ce-{other}"),
        };
        (header_name(&name), value)
    });
    named.collect()
}

fn header_name(name: &str) -> HeaderName {
    name.parse().expect("letters, digits and a hyphen")
}

fn envelope(mut attributes: Vec<(&str, String)>, message: &Message) -> Result<Event, String> {
    if !attributes.iter().any(|(name, _)| *name == "datacontenttype") {
        attributes.extend(message.header("content-type").map(|kind| ("datacontenttype", kind)));
    }
    let kind = attributes.iter().find(|(name, _)| *name == "datacontenttype").map(|(_, kind)| kind.as_str());
    // Without a type the format takes the data for JSON.
    let data = data(message.payload(), kind.is_none_or(is_json))?;
    let attributes: Map<String, Value> =
        attributes.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    let mut envelope = Value::Object(attributes).to_string();
    if let Some((name, json)) = data {
        envelope.truncate(envelope.len() - 1);
        envelope.push_str(&format!(",\"{name}\":{json}}}"));
    }
    Ok(Event { headers: vec![(header_name("content-type"), ENVELOPE_TYPE.into())], envelope: Some(envelope) })
}

/// The data as JSON, as it is written where it is JSON, with the name of its member; nothing where it is empty.
fn data(payload: &[u8], is_json: bool) -> Result<Option<(&'static str, String)>, String> {
    if payload.is_empty() {
        return Ok(None);
    }
    if is_json {
        let raw: &RawValue =
            serde_json::from_slice(payload).map_err(|error| format!("the payload is no JSON: {error}"))?;
        return Ok(Some(("data", raw.get().to_owned())));
    }
    Ok(Some(match str::from_utf8(payload) {
        Ok(text) => ("data", json!(text).to_string()),
        Err(_) => ("data_base64", json!(BASE64_STANDARD.encode(payload)).to_string()),
    }))
}

/// Whether a media type says JSON: `application/json`, `text/json`, `application/geo+json; charset=utf-8`.
fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.ends_with("/json") || essence.ends_with("+json")
}
