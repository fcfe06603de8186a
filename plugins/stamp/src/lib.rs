//! Stock plugin `stamp`: sets headers, the key, and the attributes of CloudEvents 1.0, from texts with placeholders.
//!
//! All texts are filled by the message as it came, before anything is set.

mod cloudevents;

use cloudevents::CloudEvents;
use quipu_plugin::FillError;
use quipu_plugin::prelude::*;
use std::collections::BTreeMap;

/// The configuration of one use.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stamp {
    #[serde(default)]
    headers: BTreeMap<HeaderName, Template>,
    /// Set where the message has no such header.
    #[serde(default)]
    default_headers: BTreeMap<HeaderName, Template>,
    #[serde(default)]
    remove_headers: Vec<HeaderName>,
    key: Option<Template>,
    cloudevents: Option<CloudEvents>,
    #[serde(default)]
    missing: Missing,
}

/// What becomes of a text that asks for something that the message has not.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Missing {
    /// The message is rejected.
    #[default]
    Reject,
    /// What the text is for is left as it is.
    Skip,
}

impl Missing {
    /// The text for the message in hand; nothing where it is to be left out.
    fn fill(self, what: &str, template: &Template, message: &Message) -> Result<Option<String>, String> {
        match (template.fill(message), self) {
            (Ok(text), _) => Ok(Some(text)),
            (Err(FillError::Absent(_)), Self::Skip) => Ok(None),
            (Err(error), _) => Err(format!("{what}: {error}")),
        }
    }
}

impl Plugin for Stamp {
    fn check(&self) -> Result<(), String> {
        let has_headers =
            !(self.headers.is_empty() && self.default_headers.is_empty() && self.remove_headers.is_empty());
        if has_headers || self.key.is_some() || self.cloudevents.is_some() {
            return Ok(());
        }
        Err("one of headers, default_headers, remove_headers, key, cloudevents is required".into())
    }

    fn process(&mut self, message: &mut Message) -> Result<Verdict> {
        let mut headers = Vec::new();
        let absent = self.default_headers.iter().filter(|(name, _)| message.header(name.as_str()).is_none());
        for (name, template) in self.headers.iter().chain(absent) {
            if let Some(value) = self.missing.fill(&format!("header {name}"), template, message)? {
                headers.push((name.clone(), value));
            }
        }
        let key = match &self.key {
            // By its bytes: a key that is taken from a key need not be text.
            Some(template) => match (template.fill_bytes(message), self.missing) {
                (Err(FillError::Absent(_)), Missing::Skip) => None,
                (filled, _) => Some(filled.map_err(|error| format!("key: {error}"))?),
            },
            None => None,
        };
        let event = self.cloudevents.as_ref().map(|event| event.of(message, self.missing)).transpose()?;
        for name in &self.remove_headers {
            message.remove_header(name.as_str());
        }
        let (attributes, envelope) = event.map_or_else(Default::default, |event| (event.headers, event.envelope));
        for (name, value) in headers.iter().chain(&attributes) {
            message.try_set_header(name, value)?;
        }
        if let Some(key) = key {
            message.try_set_key(key)?;
        }
        if let Some(envelope) = envelope {
            message.set_payload_text(&envelope);
        }
        Ok(forward())
    }
}
plugin!(Stamp);

#[cfg(test)]
mod tests;
