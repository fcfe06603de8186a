//! Rows of JSON to comma-separated values.

use crate::ConvertCsv;
use csv::WriterBuilder;
use quipu_plugin::json::kind;
use quipu_plugin::prelude::Value;
use std::collections::BTreeSet;

/// A list of objects or of arrays, or one of them, as text with a line for each.
pub(crate) fn write(payload: &Value, plugin: &ConvertCsv) -> Result<Vec<u8>, String> {
    let rows = match payload {
        Value::Array(rows) if !rows.is_empty() && rows.iter().any(|row| row.is_object() || row.is_array()) => rows,
        Value::Array(rows) if rows.is_empty() => rows,
        Value::Object(_) | Value::Array(_) => std::slice::from_ref(payload),
        _ => return Err(format!("the payload is {}, expected rows: objects or arrays", kind(payload))),
    };
    let columns = columns(rows, plugin);
    let mut writer = WriterBuilder::new().delimiter(plugin.delimiter.0).flexible(true).from_writer(Vec::new());
    let failed = |error: csv::Error| error.to_string();
    if plugin.header && !columns.is_empty() {
        writer.write_record(&columns).map_err(failed)?;
    }
    for (at, row) in rows.iter().enumerate() {
        writer.write_record(&fields(row, &columns, at + 1)?).map_err(failed)?;
    }
    writer.into_inner().map_err(|error| error.to_string())
}

/// The columns of the configuration, or every name of every row, sorted.
fn columns<'r>(rows: &'r [Value], plugin: &'r ConvertCsv) -> Vec<&'r str> {
    if !plugin.columns.is_empty() {
        return plugin.columns.iter().map(String::as_str).collect();
    }
    let names = rows.iter().filter_map(Value::as_object).flat_map(|row| row.keys().map(String::as_str));
    names.collect::<BTreeSet<_>>().into_iter().collect()
}

fn fields(row: &Value, columns: &[&str], at: usize) -> Result<Vec<String>, String> {
    match row {
        Value::Object(entries) => columns
            .iter()
            .map(|name| {
                let value = entries.get(*name).unwrap_or(&Value::Null);
                field(value).map_err(|kind| format!("row {at}, {name:?}: {kind}, which a field cannot hold"))
            })
            .collect(),
        Value::Array(_) if !columns.is_empty() && row.as_array().is_some_and(|row| row.len() != columns.len()) => {
            Err(format!(
                "row {at}: {} values, where {} columns are named",
                row.as_array().map_or(0, Vec::len),
                columns.len()
            ))
        }
        Value::Array(values) => values
            .iter()
            .enumerate()
            .map(|(index, value)| {
                field(value).map_err(|kind| format!("row {at}, [{index}]: {kind}, which a field cannot hold"))
            })
            .collect(),
        other => Err(format!("row {at}: {}, expected an object or an array", kind(other))),
    }
}

/// The text of a value; null is empty.
fn field(value: &Value) -> Result<String, &'static str> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        Value::Array(_) | Value::Object(_) => Err(kind(value)),
    }
}
