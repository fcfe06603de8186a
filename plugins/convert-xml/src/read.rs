//! XML to JSON. Every error says line and column.

use crate::{ConvertXml, TEXT};
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;
use quick_xml::{XmlVersion, escape};
use quipu_plugin::json::DEPTH_MAX;
use quipu_plugin::prelude::Value;
use quipu_plugin::serde_json::Map;

/// The document, as an object with the name of the outermost element.
pub(crate) fn read(payload: &[u8], plugin: &ConvertXml) -> Result<Value, String> {
    let text = str::from_utf8(payload).map_err(|error| {
        let before = String::from_utf8_lossy(&payload[..error.valid_up_to()]).into_owned();
        format!("{}: text that is not UTF-8", place(&before, before.len()))
    })?;
    let mut reader = Reader::from_str(text);
    reader.config_mut().expand_empty_elements = true;
    Document { text, plugin, open: Vec::new(), root: None }.read(&mut reader)
}

/// An element whose end has not come yet.
struct Open {
    name: String,
    entries: Map<String, Value>,
    text: String,
}

struct Document<'d> {
    text: &'d str,
    plugin: &'d ConvertXml,
    open: Vec<Open>,
    root: Option<(String, Value)>,
}

impl Document<'_> {
    fn read(mut self, reader: &mut Reader<&[u8]>) -> Result<Value, String> {
        loop {
            let at = offset(reader.buffer_position());
            let event = reader
                .read_event()
                .map_err(|error| format!("{}: {error}", place(self.text, offset(reader.error_position()))))?;
            if matches!(event, Event::Eof) {
                return self.ended();
            }
            self.take(event).map_err(|problem| {
                let blanks = self.text[at..].len() - self.text[at..].trim_start().len();
                format!("{}: {problem}", place(self.text, at + blanks))
            })?;
        }
    }

    fn ended(self) -> Result<Value, String> {
        let end = place(self.text, self.text.len());
        if let Some(open) = self.open.last() {
            return Err(format!("{end}: it ends within <{}>", open.name));
        }
        let (name, value) = self.root.ok_or_else(|| format!("{end}: it ends before any element"))?;
        Ok(Value::Object([(name, value)].into_iter().collect()))
    }

    fn take(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::Start(start) | Event::Empty(start) => self.start(&start),
            Event::End(_) => self.end(),
            Event::Text(text) => self.text(&text.xml10_content()),
            Event::CData(text) => self.text(&text.xml10_content()),
            Event::GeneralRef(reference) => {
                let resolved = match reference.resolve_char_ref() {
                    Ok(Some(c)) => c.to_string(),
                    Ok(None) => escape::resolve_xml_entity(&reference)
                        .ok_or_else(|| format!("&{};: an entity that XML itself does not have", &*reference))?
                        .to_owned(),
                    Err(error) => return Err(error.to_string()),
                };
                self.text(&resolved)
            }
            Event::DocType(_) => Err("a document type, which is not read".into()),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::Eof => Ok(()),
        }
    }

    fn start(&mut self, start: &BytesStart<'_>) -> Result<(), String> {
        if self.open.is_empty() && self.root.is_some() {
            return Err("a second outermost element".into());
        }
        if self.open.len() >= DEPTH_MAX {
            return Err(format!("elements nested deeper than {DEPTH_MAX} levels"));
        }
        let mut entries = Map::new();
        for attribute in start.attributes() {
            let attribute = attribute.map_err(|error| error.to_string())?;
            let value = attribute.normalized_value(XmlVersion::Explicit1_0).map_err(|error| error.to_string())?;
            let key = format!("{}{}", self.plugin.attribute, attribute.key.as_ref());
            entries.insert(key, value.into_owned().into());
        }
        self.open.push(Open { name: start.name().as_ref().to_owned(), entries, text: String::new() });
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        let Open { name, mut entries, text } = self.open.pop().ok_or("an end without its start")?;
        let text = text.trim();
        let value = match (entries.is_empty(), text.is_empty()) {
            (true, true) => Value::Null,
            (true, false) => text.into(),
            (false, true) => entries.into(),
            (false, false) => {
                entries.insert(TEXT.into(), text.into());
                entries.into()
            }
        };
        let is_array = self.plugin.arrays.contains(&name);
        let Some(parent) = self.open.last_mut() else {
            self.root = Some((name, value));
            return Ok(());
        };
        match parent.entries.get_mut(&name) {
            None => {
                parent.entries.insert(name, if is_array { vec![value].into() } else { value });
            }
            // A value of its own is no array before the second of its name comes.
            Some(Value::Array(values)) => values.push(value),
            Some(first) => {
                let first_value = first.take();
                *first = vec![first_value, value].into();
            }
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), String> {
        match self.open.last_mut() {
            Some(open) => open.text.push_str(text),
            None if text.trim().is_empty() => {}
            None => return Err("text outside of every element".into()),
        }
        Ok(())
    }
}

fn offset(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}

/// Line and column of a byte, both from 1.
fn place(text: &str, at: usize) -> String {
    let before = &text[..text.floor_char_boundary(at)];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column} of the payload")
}
