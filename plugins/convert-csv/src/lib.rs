//! Stock plugin `convert-csv`: payloads from comma-separated values to JSON, and back.

mod read;
mod write;

use quipu_plugin::prelude::*;
use quipu_plugin::serde_json;

/// The configuration of one use.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvertCsv {
    to: To,
    #[serde(default = "comma")]
    delimiter: Mark,
    #[serde(default = "yes")]
    header: bool,
    /// Names of the columns, where no header row has them; with `to = "csv"`, the columns to write, in order.
    #[serde(default)]
    columns: Vec<String>,
    #[serde(default)]
    types: Types,
    /// A message for each row.
    #[serde(default)]
    split: bool,
    /// Where the rows go with `split`.
    subject: Option<Subject>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum To {
    Json,
    Csv,
}

/// What fields are read as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Types {
    /// Numbers, booleans and null where a field is written as JSON writes them, or empty; text otherwise.
    #[default]
    Guess,
    Text,
}

/// One character of ASCII.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
struct Mark(u8);

impl TryFrom<String> for Mark {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        match text.as_bytes() {
            [b'"' | b'\r' | b'\n'] => Err("a quote or a line end cannot separate fields"),
            [mark] if mark.is_ascii() => Ok(Self(*mark)),
            _ => Err("expected one character of ASCII"),
        }
    }
}

fn comma() -> Mark {
    Mark(b',')
}

fn yes() -> bool {
    true
}

impl Plugin for ConvertCsv {
    fn check(&self) -> Result<(), String> {
        let reads = self.to == To::Json;
        if let Some(twice) = (1..self.columns.len()).find(|at| self.columns[..*at].contains(&self.columns[*at])) {
            return Err(format!("columns[{twice}]: {:?} for the second time", self.columns[twice]));
        }
        if reads && self.header && !self.columns.is_empty() {
            return Err("columns: the header row names them; header = false says that there is none".into());
        }
        if !reads && self.split {
            return Err("split: goes with to = \"json\" alone".into());
        }
        match (self.split, &self.subject) {
            (true, None) => Err("subject: required where split is true".into()),
            (false, Some(_)) => Err("subject: goes with split = true alone".into()),
            _ => Ok(()),
        }
    }

    fn process(&mut self, message: &mut Message) -> Result<Verdict> {
        match self.to {
            To::Csv => {
                let written = write::write(&message.json()?, self)?;
                message.set_payload(written);
            }
            To::Json => {
                let rows = read::read(message.payload(), self)?;
                if let Some(subject) = &self.subject {
                    let parts = rows.iter().map(serde_json::to_vec).collect::<Result<Vec<_>, _>>()?;
                    message.emit_parts(subject, parts)?;
                    return Ok(drop("split"));
                }
                message.set_json(&rows)?;
            }
        }
        Ok(forward())
    }
}
plugin!(ConvertCsv);

#[cfg(test)]
mod tests;
