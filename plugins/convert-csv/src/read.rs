//! Comma-separated values to rows of JSON.

use crate::{ConvertCsv, Types};
use csv::{ByteRecord, ErrorKind, ReaderBuilder};
use quipu_plugin::prelude::Value;
use quipu_plugin::serde_json::{self, Map};

/// The rows, as objects, or as arrays where nothing names the columns.
pub(crate) fn read(payload: &[u8], plugin: &ConvertCsv) -> Result<Vec<Value>, String> {
    let mut reader =
        ReaderBuilder::new().delimiter(plugin.delimiter.0).has_headers(false).flexible(true).from_reader(payload);
    let mut names = (!plugin.header && !plugin.columns.is_empty()).then(|| plugin.columns.clone());
    let mut rows = Vec::new();
    let mut width = names.as_ref().map(Vec::len);
    let mut last_line = 1;
    let mut record = ByteRecord::new();
    while reader.read_byte_record(&mut record).map_err(|error| unreadable(&error))? {
        let line = record.position().map_or(last_line, csv::Position::line);
        last_line = line;
        let width = *width.get_or_insert(record.len());
        if record.len() != width {
            return Err(format!("line {line}: {} fields, where {width} are expected", record.len()));
        }
        if plugin.header && names.is_none() {
            names = Some(header(&record, line)?);
            continue;
        }
        let fields = record.iter().enumerate().map(|(at, field)| value(field, plugin.types, line, at + 1));
        rows.push(match &names {
            Some(names) => {
                let named = names.iter().zip(fields).map(|(name, field)| Ok((name.clone(), field?)));
                Value::Object(named.collect::<Result<Map<_, _>, String>>()?)
            }
            None => Value::Array(fields.collect::<Result<_, _>>()?),
        });
    }
    // The library takes the end of the payload for the end of a quoted field.
    if payload.iter().filter(|byte| **byte == b'"').count() % 2 == 1 {
        return Err(format!("line {last_line}: a quote that nothing closes"));
    }
    if plugin.header && names.is_none() {
        return Err("the payload has no header row".into());
    }
    Ok(rows)
}

fn unreadable(error: &csv::Error) -> String {
    match error.kind() {
        ErrorKind::Utf8 { pos: Some(at), err } => format!("line {}: {err}", at.line()),
        _ => error.to_string(),
    }
}

fn header(record: &ByteRecord, line: u64) -> Result<Vec<String>, String> {
    let mut names = Vec::<String>::with_capacity(record.len());
    for (at, field) in record.iter().enumerate() {
        let name = text(field, line, at + 1)?;
        if name.is_empty() {
            return Err(format!("line {line}, field {}: a column without a name", at + 1));
        }
        if names.iter().any(|there| there == name) {
            return Err(format!("line {line}, field {}: the name {name:?} for the second time", at + 1));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

fn value(field: &[u8], types: Types, line: u64, at: usize) -> Result<Value, String> {
    let text = text(field, line, at)?;
    Ok(match types {
        Types::Text => text.into(),
        Types::Guess => guess(text).unwrap_or_else(|| text.into()),
    })
}

/// What a field is where it is no text. Only what JSON writes the same is a number: `007` and `+1` stay as they are, and
/// so do digits that a number would lose.
fn guess(text: &str) -> Option<Value> {
    match text {
        "" => return Some(Value::Null),
        "true" => return Some(true.into()),
        "false" => return Some(false.into()),
        _ => {}
    }
    let looks = text.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    let Value::Number(number) = (looks && text.len() <= 24).then(|| serde_json::from_str(text).ok())?? else {
        return None;
    };
    let is_whole = !text.contains(['.', 'e', 'E']);
    (!is_whole || !number.is_f64()).then_some(Value::Number(number))
}

fn text(field: &[u8], line: u64, at: usize) -> Result<&str, String> {
    str::from_utf8(field).map_err(|_| format!("line {line}, field {at}: text that is not UTF-8"))
}
