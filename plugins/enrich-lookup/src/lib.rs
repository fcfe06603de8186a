//! Stock plugin `enrich-lookup`: puts a row of a table into messages, found by something the message has.
//!
//! The table is part of the configuration, and read once for each instance.

mod table;

use quipu_plugin::FillError;
use quipu_plugin::json::{Cast, scalar_text};
use quipu_plugin::prelude::*;
use quipu_plugin::serde_json::Map;
use std::collections::BTreeMap;
use table::{Format, Table};

/// The configuration of one use. One of `into`, `fields`, `headers` is required.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrichLookup {
    /// The table, as text or as an object of rows; the rows move into `rows` in `configure`.
    table: Value,
    #[serde(default)]
    format: Format,
    /// The column that rows are found by.
    id: Option<String>,
    /// What the message is looked up by.
    by: Template,
    /// What columns become, before they are put into messages.
    #[serde(default)]
    types: BTreeMap<String, Cast>,
    /// Where the whole row goes.
    into: Option<FieldPath>,
    /// Fields of the payload, and the columns they come from.
    #[serde(default)]
    fields: BTreeMap<FieldPath, String>,
    /// Headers, and the columns they come from.
    #[serde(default)]
    headers: BTreeMap<HeaderName, String>,
    #[serde(default)]
    miss: Miss,
    default: Option<Map<String, Value>>,
    #[serde(skip)]
    rows: Table,
}

/// What becomes of a message that no row is found for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Miss {
    #[default]
    Forward,
    Drop,
    Reject,
    /// It gets the row `default`.
    Default,
}

impl Plugin for EnrichLookup {
    fn configure(config: &str) -> Result<Self> {
        let mut plugin: Self = quipu_plugin::parse_config(config)?;
        plugin.check()?;
        let table = plugin.table.take();
        plugin.rows = Table::read(table, plugin.format, plugin.id.as_deref(), &plugin.types)?;
        plugin.check_columns()?;
        Ok(plugin)
    }

    fn check(&self) -> Result<(), String> {
        if self.into.is_none() && self.fields.is_empty() && self.headers.is_empty() {
            return Err("one of into, fields, headers is required".into());
        }
        match (self.miss, &self.default) {
            (Miss::Default, None) => Err("default: is required for miss = \"default\"".into()),
            (Miss::Forward | Miss::Drop | Miss::Reject, Some(_)) => Err("default: goes with miss = \"default\"".into()),
            _ => Ok(()),
        }
    }

    fn process(&mut self, message: &mut Message) -> Result<Verdict> {
        let (row, what) = match self.by.fill(message) {
            Ok(by) => (self.rows.row(&by), format!("no row for {by:?}")),
            Err(absent @ FillError::Absent(_)) => (None, absent.to_string()),
            Err(error) => return Err(error.into()),
        };
        match (row, self.miss) {
            (Some(row), _) => self.put(row, message)?,
            (None, Miss::Default) => self.put(self.default.clone().unwrap_or_default(), message)?,
            (None, Miss::Forward) => {}
            (None, Miss::Drop) => return Ok(drop("no row")),
            (None, Miss::Reject) => return Ok(reject(what)),
        }
        Ok(forward())
    }
}
plugin!(EnrichLookup);

impl EnrichLookup {
    fn check_columns(&self) -> Result<(), String> {
        let fields = self.fields.iter().map(|(path, column)| ("fields", path.as_str(), column));
        let headers = self.headers.iter().map(|(name, column)| ("headers", name.as_str(), column));
        let types = self.types.keys().map(|column| ("types", column.as_str(), column));
        for (key, name, column) in fields.chain(headers).chain(types) {
            if !self.rows.has_column(column) {
                let columns = self.rows.columns().join(", ");
                return Err(format!("{key}.{name}: the table has no column {column:?}; it has {columns}"));
            }
        }
        Ok(())
    }

    fn put(&self, row: Map<String, Value>, message: &mut Message) -> Result<()> {
        for (name, column) in &self.headers {
            let text = match row.get(column) {
                None | Some(Value::Null) => continue,
                Some(value @ (Value::Array(_) | Value::Object(_))) => Some(value.to_string()),
                Some(single) => scalar_text(single.clone()),
            };
            message.try_set_header(name, &text.unwrap_or_default())?;
        }
        if self.into.is_none() && self.fields.is_empty() {
            return Ok(());
        }
        let mut payload = message.json()?;
        for (path, column) in &self.fields {
            if let Some(value) = row.get(column) {
                path.set(&mut payload, value.clone())?;
            }
        }
        if let Some(path) = &self.into {
            path.set(&mut payload, Value::Object(row))?;
        }
        message.set_json(&payload)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
