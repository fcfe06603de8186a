//! Stock plugin `convert-xml`: payloads from XML to JSON, and back, by one mapping for both ways.
//!
//! Names are kept as they are written, prefixes included. No document type is read and no entity but the five of XML
//! itself, so that nothing grows on the way.

mod read;
mod write;

use quipu_plugin::prelude::*;
use std::collections::BTreeSet;

/// The key of an element's own text, where it has attributes or children beside it.
const TEXT: &str = "#text";

/// The configuration of one use.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvertXml {
    to: To,
    /// What begins the keys of attributes.
    #[serde(default = "at_sign")]
    attribute: String,
    /// Elements that are an array however many there are.
    #[serde(default)]
    arrays: BTreeSet<String>,
    /// The outermost element, where JSON does not name it.
    root: Option<String>,
    /// Whether XML begins with its declaration.
    #[serde(default = "yes")]
    declaration: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum To {
    Json,
    Xml,
}

fn at_sign() -> String {
    "@".into()
}

fn yes() -> bool {
    true
}

impl Plugin for ConvertXml {
    fn check(&self) -> Result<(), String> {
        if self.attribute.is_empty() || self.attribute.starts_with('#') {
            return Err("attribute: a text that begins the keys of attributes, and not with `#`".into());
        }
        if self.to == To::Json && self.root.is_some() {
            return Err("root: goes with to = \"xml\" alone".into());
        }
        if self.to == To::Xml && !self.arrays.is_empty() {
            return Err("arrays: goes with to = \"json\" alone".into());
        }
        if let Some(root) = self.root.as_ref().filter(|root| !write::is_name(root)) {
            return Err(format!("root: {root:?} is no name of an element"));
        }
        Ok(())
    }

    fn process(&mut self, message: &mut Message) -> Result<Verdict> {
        match self.to {
            To::Json => {
                let value = read::read(message.payload(), self)?;
                message.set_json(&value)?;
            }
            To::Xml => {
                let xml = write::write(&message.json()?, self)?;
                message.set_payload_text(&xml);
            }
        }
        Ok(forward())
    }
}
plugin!(ConvertXml);

#[cfg(test)]
mod tests;
