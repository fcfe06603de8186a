//! The table: rows of named values by their id, out of CSV, JSON or NDJSON.
//!
//! A row keeps the numbers of its columns instead of their names, or a table of some MiB would fill the memory of an
//! instance.

use csv::StringRecord;
use quipu_plugin::json::{Cast, kind, scalar_text};
use quipu_plugin::prelude::{Deserialize, Value};
use quipu_plugin::serde_json::{self, Map};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// The column of a row that is a single value, in a table that is an object.
const SINGLE: &str = "value";

/// What the text of a table is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// Commas, quotes where needed, names in the first line.
    #[default]
    Csv,
    /// An array of objects, or an object of them by id.
    Json,
    /// An object in each line.
    Ndjson,
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    columns: Vec<String>,
    rows: BTreeMap<String, Vec<(usize, Value)>>,
}

impl Table {
    /// Reads a table; an error begins with the key that is wrong.
    pub(crate) fn read(
        source: Value,
        format: Format,
        id: Option<&str>,
        types: &BTreeMap<String, Cast>,
    ) -> Result<Self, String> {
        let mut table = Self::default();
        let mut reading = Reading { table: &mut table, id, types };
        match source {
            Value::String(text) => match format {
                Format::Csv => reading.csv(&text),
                Format::Ndjson => reading.ndjson(&text),
                Format::Json => {
                    let json = serde_json::from_str(&text).map_err(|error| format!("table: no JSON: {error}"))?;
                    reading.json(json)
                }
            },
            rows => reading.json(rows),
        }?;
        if table.rows.is_empty() { Err("table: has no rows".into()) } else { Ok(table) }
    }

    /// The row of this id.
    pub(crate) fn row(&self, id: &str) -> Option<Map<String, Value>> {
        let row = self.rows.get(id)?;
        Some(row.iter().map(|(column, value)| (self.columns[*column].clone(), value.clone())).collect())
    }

    pub(crate) fn has_column(&self, name: &str) -> bool {
        self.columns.iter().any(|column| column == name)
    }

    pub(crate) fn columns(&self) -> &[String] {
        &self.columns
    }

    fn column(&mut self, name: &str) -> usize {
        self.columns.iter().position(|column| column == name).unwrap_or_else(|| {
            self.columns.push(name.to_owned());
            self.columns.len() - 1
        })
    }
}

/// The line that a record is in; its position is before the blank lines that the reader skips.
fn line_of(text: &str, position: &csv::Position) -> u64 {
    let start = usize::try_from(position.byte()).unwrap_or(usize::MAX);
    let bytes = text.as_bytes().get(start..).unwrap_or_default();
    let skipped = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).filter(|byte| **byte == b'\n');
    position.line() + skipped.map(|_| 1).sum::<u64>()
}

/// A column, and what its cells become.
#[derive(Clone, Copy)]
struct Column {
    number: usize,
    cast: Option<Cast>,
}

struct Reading<'a> {
    table: &'a mut Table,
    id: Option<&'a str>,
    types: &'a BTreeMap<String, Cast>,
}

impl Reading<'_> {
    /// Rows are found by the first column, unless another is named.
    fn csv(&mut self, text: &str) -> Result<(), String> {
        // Excel begins its files with a mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let broken = |error: csv::Error| format!("table: {error}");
        let names = reader.headers().map_err(broken)?.clone();
        if let Some(twice) = (1..names.len()).find(|at| names.iter().take(*at).any(|name| name == &names[*at])) {
            return Err(format!("table: line 1: the column {:?} is there twice", &names[twice]));
        }
        let id = match self.id {
            None => 0,
            Some(id) => names.iter().position(|name| name == id).ok_or_else(|| {
                let names: Vec<_> = names.iter().collect();
                format!("id: the table has no column {id:?}; it has {}", names.join(", "))
            })?,
        };
        let columns: Vec<_> = names.iter().map(|name| self.column(name)).collect();
        let mut record = StringRecord::new();
        while reader.read_record(&mut record).map_err(broken)? {
            let place = || format!("line {}", record.position().map_or(0, |position| line_of(text, position)));
            let cells = columns.iter().zip(&record).map(|(column, cell)| (*column, Value::from(cell)));
            self.add(&place, record[id].to_owned(), cells)?;
        }
        Ok(())
    }

    fn ndjson(&mut self, text: &str) -> Result<(), String> {
        for (n, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let place = || format!("line {}", n + 1);
            let row = serde_json::from_str(line).map_err(|error| format!("table: {}: no JSON: {error}", place()))?;
            self.row(&place, row)?;
        }
        Ok(())
    }

    fn json(&mut self, json: Value) -> Result<(), String> {
        match json {
            Value::Array(rows) => {
                rows.into_iter().enumerate().try_for_each(|(n, row)| self.row(&|| format!("row {n}"), row))
            }
            Value::Object(rows) => rows.into_iter().try_for_each(|(id, row)| {
                let place = format!("row {id:?}");
                let cells = match row {
                    Value::Object(cells) => self.named(cells),
                    single => vec![(self.column(SINGLE), single)],
                };
                self.add(&|| place.clone(), id, cells)
            }),
            other => Err(format!("table: {}, expected text, an array or an object", kind(&other))),
        }
    }

    /// A row that has its id in it.
    fn row(&mut self, place: &dyn Fn() -> String, row: Value) -> Result<(), String> {
        let name = self.id.ok_or("id: is required for a table that is a list of rows")?;
        let Value::Object(cells) = row else {
            return Err(format!("table: {}: {}, not an object", place(), kind(&row)));
        };
        let id = cells.get(name).cloned().and_then(scalar_text);
        let id = id.ok_or_else(|| format!("table: {}: no text, number or boolean {name:?} to be its id", place()))?;
        let cells = self.named(cells);
        self.add(place, id, cells)
    }

    fn named(&mut self, cells: Map<String, Value>) -> Vec<(Column, Value)> {
        cells.into_iter().map(|(name, cell)| (self.column(&name), cell)).collect()
    }

    fn column(&mut self, name: &str) -> Column {
        Column { number: self.table.column(name), cast: self.types.get(name).copied() }
    }

    fn add(
        &mut self,
        place: &dyn Fn() -> String,
        id: String,
        cells: impl IntoIterator<Item = (Column, Value)>,
    ) -> Result<(), String> {
        let mut row = Vec::new();
        for (column, cell) in cells {
            let cell = match column.cast {
                // CSV has no other way to leave a cell out.
                Some(_) if cell.is_null() || cell == "" => Value::Null,
                Some(cast) => cast.apply(&cell).map_err(|error| {
                    format!("table: {}: column {:?}: {error}", place(), self.table.columns[column.number])
                })?,
                None => cell,
            };
            row.push((column.number, cell));
        }
        match self.table.rows.entry(id) {
            Entry::Vacant(free) => _ = free.insert(row),
            Entry::Occupied(taken) => {
                return Err(format!("table: {}: the id {:?} is there twice", place(), taken.key()));
            }
        }
        Ok(())
    }
}
