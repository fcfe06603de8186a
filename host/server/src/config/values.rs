//! A plugin's configuration as JSON, with files and environment variables put in.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use serde_json::Value as Json;
use toml::Value as Toml;

use super::CONFIG_FILE_BYTES_MAX;
use super::problem::join;

/// Turns TOML into JSON. A table that is `{ file = "…" }` or `{ env = "…" }` and nothing more, the whole configuration
/// included, becomes the text that is there.
///
/// Hands each thing that is wrong to `report`, with its key, and puts null there.
pub(crate) fn to_json(toml: Toml, path: &str, base: &Path, report: &mut dyn FnMut(String, String)) -> Json {
    match toml {
        Toml::String(text) => Json::String(text),
        Toml::Integer(number) => number.into(),
        Toml::Boolean(truth) => truth.into(),
        Toml::Datetime(time) => Json::String(time.to_string()),
        Toml::Float(number) => serde_json::Number::from_f64(number).map(Json::Number).unwrap_or_else(|| {
            report(path.into(), format!("{number} cannot be passed to a plugin: JSON has no such number"));
            Json::Null
        }),
        Toml::Array(items) => items
            .into_iter()
            .enumerate()
            .map(|(n, item)| to_json(item, &format!("{path}[{n}]"), base, report))
            .collect(),
        Toml::Table(table) => match taken_in(&table, base) {
            Some(Ok(text)) => Json::String(text),
            Some(Err(message)) => {
                report(path.into(), message);
                Json::Null
            }
            None => table
                .into_iter()
                .map(|(key, value)| {
                    let below = join(path, &key);
                    (key, to_json(value, &below, base, report))
                })
                .collect(),
        },
    }
}

/// Whether a part of it is an environment variable.
pub(crate) fn has_secret(toml: &Toml) -> bool {
    match toml {
        Toml::Array(items) => items.iter().any(has_secret),
        Toml::Table(table) => {
            let is_variable = table.len() == 1 && matches!(table.get("env"), Some(Toml::String(_)));
            is_variable || table.values().any(has_secret)
        }
        _ => false,
    }
}

fn taken_in(table: &toml::Table, base: &Path) -> Option<Result<String, String>> {
    let mut entries = table.iter();
    match (entries.next(), entries.next()) {
        (Some((key, Toml::String(path))), None) if key == "file" => {
            let path = base.join(path);
            Some(read(&path).map_err(|e| format!("cannot read {}: {e}", path.display())))
        }
        (Some((key, Toml::String(name))), None) if key == "env" => Some(variable(name)),
        _ => None,
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(CONFIG_FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > CONFIG_FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it has more than {} MiB", CONFIG_FILE_BYTES_MAX >> 20)));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8"))
}

fn variable(name: &str) -> Result<String, String> {
    // `std::env::var` panics over names that no variable can have.
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(format!("{name:?} cannot name an environment variable"));
    }
    std::env::var(name).map_err(|e| match e {
        std::env::VarError::NotPresent => format!("the environment variable {name} is not set"),
        std::env::VarError::NotUnicode(_) => format!("the environment variable {name} is not UTF-8"),
    })
}
