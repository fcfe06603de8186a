//! JSON to XML.

use crate::{ConvertXml, TEXT};
use quipu_plugin::prelude::Value;
use std::borrow::Cow;

/// Largest document. A long name in JSON is there once for a whole array, and twice for each element in XML.
const XML_BYTES_MAX: usize = 16 << 20;

pub(crate) fn write(payload: &Value, plugin: &ConvertXml) -> Result<String, String> {
    let mut xml = String::new();
    if plugin.declaration {
        xml.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>");
    }
    let mut writer = Writer { xml, plugin };
    match (&plugin.root, payload) {
        (Some(root), Value::Array(_)) => {
            return Err(format!("the payload is an array, where <{root}> is one element"));
        }
        (Some(root), value) => writer.element(root, value, root)?,
        (None, Value::Object(entries)) if entries.len() == 1 => {
            for (name, value) in entries {
                if value.is_array() {
                    return Err(format!("{name}: an array, where the outermost element is one"));
                }
                writer.element(name, value, name)?;
            }
        }
        (None, _) => {
            return Err(
                "the payload is no object with one name, which would be the outermost element; root names one".into()
            );
        }
    }
    Ok(writer.xml)
}

struct Writer<'w> {
    xml: String,
    plugin: &'w ConvertXml,
}

impl Writer<'_> {
    /// An element, or one for each value of an array. `path` is for errors.
    fn element(&mut self, name: &str, value: &Value, path: &str) -> Result<(), String> {
        if !is_name(name) {
            return Err(format!("{path}: {name:?} is no name of an element"));
        }
        self.named(name, value, path)
    }

    fn named(&mut self, name: &str, value: &Value, path: &str) -> Result<(), String> {
        if self.xml.len() > XML_BYTES_MAX {
            return Err(format!("the payload becomes more than {} MiB of XML", XML_BYTES_MAX >> 20));
        }
        match value {
            Value::Array(values) => values.iter().enumerate().try_for_each(|(index, value)| {
                let path = format!("{path}[{index}]");
                if value.is_array() {
                    return Err(format!("{path}: an array within an array, which has no name"));
                }
                self.named(name, value, &path)
            }),
            Value::Object(entries) => {
                self.xml.extend(["<", name]);
                let prefix = self.plugin.attribute.as_str();
                for (key, value) in entries {
                    if let Some(attribute) = key.strip_prefix(prefix) {
                        self.attribute(attribute, value, &format!("{path}.{key}"))?;
                    }
                }
                self.xml.push('>');
                let start = self.xml.len();
                for (key, value) in entries.iter().filter(|(key, _)| !key.starts_with(prefix)) {
                    let path = format!("{path}.{key}");
                    if key == TEXT {
                        let text =
                            plain(value).ok_or_else(|| format!("{path}: text, a number or a boolean is expected"))?;
                        self.text(&text, &path)?;
                    } else {
                        self.element(key, value, &path)?;
                    }
                }
                self.close(name, start);
                Ok(())
            }
            plain_value => {
                self.xml.extend(["<", name, ">"]);
                let start = self.xml.len();
                self.text(&plain(plain_value).unwrap_or_default(), path)?;
                self.close(name, start);
                Ok(())
            }
        }
    }

    fn attribute(&mut self, name: &str, value: &Value, path: &str) -> Result<(), String> {
        if !is_name(name) {
            return Err(format!("{path}: {name:?} is no name of an attribute"));
        }
        let text = plain(value).ok_or_else(|| format!("{path}: text, a number or a boolean is expected"))?;
        self.xml.extend([" ", name, "=\""]);
        self.text(&text, path)?;
        self.xml.push('"');
        Ok(())
    }

    fn text(&mut self, text: &str, path: &str) -> Result<(), String> {
        for c in text.chars() {
            match c {
                '<' => self.xml.push_str("&lt;"),
                '>' => self.xml.push_str("&gt;"),
                '&' => self.xml.push_str("&amp;"),
                '"' => self.xml.push_str("&quot;"),
                // Readers make blanks of these, or one line end of two.
                '\r' => self.xml.push_str("&#13;"),
                '\n' | '\t' => self.xml.push(c),
                c if c.is_ascii_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {
                    return Err(format!("{path}: the character U+{:04X}, which XML cannot say", u32::from(c)));
                }
                c => self.xml.push(c),
            }
        }
        Ok(())
    }

    /// The end of an element whose content begins at `start`.
    fn close(&mut self, name: &str, start: usize) {
        if self.xml.len() == start {
            self.xml.truncate(start - 1);
            self.xml.push_str("/>");
        } else {
            self.xml.extend(["</", name, ">"]);
        }
    }
}

/// The text of a value that is no array and no object; null is empty.
fn plain(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::Null => Some("".into()),
        Value::String(text) => Some(text.into()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string().into()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

/// Whether XML takes this for a name; of the letters beyond ASCII, all are let through.
pub(crate) fn is_name(name: &str) -> bool {
    let is_start = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':' || (!c.is_ascii() && c.is_alphabetic());
    let is_inner =
        |c: char| is_start(c) || c.is_ascii_digit() || c == '-' || c == '.' || (!c.is_ascii() && c.is_alphanumeric());
    name.starts_with(is_start) && name.chars().all(is_inner)
}
