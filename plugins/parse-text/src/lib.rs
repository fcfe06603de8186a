//! Stock plugin `parse-text`: makes JSON of text, by patterns with named groups, pairs of keys and values, or cells
//! between separators.

mod record;

use quipu_plugin::json::Cast;
use quipu_plugin::prelude::*;
use quipu_plugin::serde_json::Map;
use record::{Delimited, KeyValues, Pattern};
use std::collections::BTreeMap;

/// The configuration of one use. One of `patterns`, `key_values`, `delimited` is required.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParseText {
    patterns: Option<Vec<Pattern>>,
    key_values: Option<KeyValues>,
    delimited: Option<Delimited>,
    /// What parts become; text unless said otherwise.
    #[serde(default)]
    types: BTreeMap<String, Cast>,
    /// Where the text is in a JSON payload; the payload is the text unless said otherwise.
    field: Option<FieldPath>,
    /// Where the result goes; in the place of `field` unless said otherwise.
    into: Option<FieldPath>,
    #[serde(default)]
    lines: bool,
    /// What becomes of text that cannot be read; it is rejected unless said otherwise.
    no_match: Option<Otherwise>,
}

impl Plugin for ParseText {
    fn check(&self) -> Result<(), String> {
        let given = [self.patterns.is_some(), self.key_values.is_some(), self.delimited.is_some()];
        if given.into_iter().filter(|given| *given).count() != 1 {
            return Err("one of patterns, key_values, delimited is required, and no two of them".into());
        }
        if self.patterns.as_ref().is_some_and(Vec::is_empty) {
            return Err("patterns: names no pattern".into());
        }
        if self.into.is_some() && self.field.is_none() {
            return Err("into: goes with field".into());
        }
        self.delimited.as_ref().map_or(Ok(()), Delimited::check)?;
        let knows = |name: &String| match (&self.patterns, &self.delimited) {
            (Some(patterns), _) => patterns.iter().any(|pattern| pattern.names().any(|group| group == name)),
            (_, Some(delimited)) => delimited.columns.contains(name),
            _ => true,
        };
        match self.types.keys().find(|name| !knows(name)) {
            Some(name) if self.patterns.is_some() => Err(format!("types.{name}: no pattern has a group of this name")),
            Some(name) => Err(format!("types.{name}: there is no column of this name")),
            None => Ok(()),
        }
    }

    fn process(&mut self, message: &mut Message) -> Result<Verdict> {
        let (mut whole, text) = match &self.field {
            None => (Value::Null, message.payload_text().ok_or("the payload is not UTF-8")?.to_owned()),
            Some(field) => (message.json()?, message.json_field(field)?),
        };
        let parsed = if self.lines { self.parse_lines(&text) } else { self.parse(&text).map(Value::Object) };
        let parsed = match (parsed, self.no_match) {
            (Ok(parsed), _) => parsed,
            // Drops are counted by their reason.
            (Err(_), Some(Otherwise::Drop)) => return Ok(drop("no match")),
            (Err(why), otherwise) => return Ok(otherwise.unwrap_or(Otherwise::Reject).verdict(why)),
        };
        match self.into.as_ref().or(self.field.as_ref()) {
            None => whole = parsed,
            Some(path) => path.set(&mut whole, parsed)?,
        }
        message.set_json(&whole)?;
        Ok(forward())
    }
}
plugin!(ParseText);

impl ParseText {
    /// An element for each line that is not blank.
    fn parse_lines(&self, text: &str) -> Result<Value, String> {
        let mut parsed = Vec::new();
        for (n, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            match (self.parse(line), self.no_match) {
                (Ok(record), _) => parsed.push(Value::Object(record)),
                (Err(_), Some(Otherwise::Forward)) => parsed.push(line.into()),
                (Err(_), Some(Otherwise::Drop)) => {}
                (Err(why), Some(Otherwise::Reject) | None) => return Err(format!("line {}: {why}", n + 1)),
            }
        }
        if parsed.is_empty() { Err("no line matches".into()) } else { Ok(Value::Array(parsed)) }
    }

    /// The parts of one record; an error never has the text in it.
    fn parse(&self, text: &str) -> Result<Map<String, Value>, String> {
        let mut record = if let Some(patterns) = &self.patterns {
            patterns.iter().find_map(|pattern| pattern.parse(text)).ok_or("no pattern matches")?
        } else if let Some(key_values) = &self.key_values {
            key_values.parse(text)?
        } else {
            self.delimited.as_ref().map_or_else(|| Ok(Map::new()), |delimited| delimited.parse(text))?
        };
        for (name, cast) in &self.types {
            if let Some(part) = record.get_mut(name) {
                *part = cast.apply(part).map_err(|error| format!("{name}: {error}"))?;
            }
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests;
