//! Configuration: JSON into the plugin's own type, with errors that a stranger to the plugin can act on.

use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;

/// Why a configuration was refused. The text begins with the key, as in `table.ak[1]: invalid subject "a..b": empty
/// token`.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// Not JSON at all.
    #[error("the configuration is no JSON: {0}")]
    Syntax(#[source] serde_json::Error),
    /// A value that does not fit, or a required key that is absent.
    #[error("{}{problem}{}", prefix(path), hint(unknown))]
    Invalid {
        /// Dotted path to the key; empty where the whole is meant.
        path: String,
        /// What was found, and what was expected.
        problem: String,
        /// Keys that nothing reads: often the misspelt form of the one that is missed.
        unknown: Vec<String>,
    },
    /// Keys that nothing reads.
    #[error("unknown {}", keys(.0))]
    UnknownKeys(Vec<String>),
}

/// Reads a configuration, as [`Plugin::configure`](crate::Plugin::configure) does. An empty text counts as `{}`.
///
/// Keys that nothing reads are errors, with or without `deny_unknown_fields`; to take any key, flatten the rest into a
/// map.
///
/// # Errors
///
/// The first thing that does not fit, with the path of its key.
pub fn parse_config<T: DeserializeOwned>(json: &str) -> Result<T, ConfigError> {
    let json = if json.trim().is_empty() { "{}" } else { json };
    // By way of a `Value`, whose errors do not speak of lines and columns: the text that the user wrote is another one.
    let value: Value = serde_json::from_str(json).map_err(ConfigError::Syntax)?;
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(value, &mut track);
    let parsed = serde_ignored::deserialize(tracked, |path| unknown.push(readable(&path.to_string())));
    match parsed {
        Ok(config) if unknown.is_empty() => Ok(config),
        Ok(_) => Err(ConfigError::UnknownKeys(unknown)),
        Err(problem) => {
            let path = readable(&track.path().to_string());
            Err(ConfigError::Invalid { path, problem: problem.to_string(), unknown })
        }
    }
}

/// Without the `?` that the trackers write for an `Option` or a newtype on the way, and without the `.` for the root.
fn readable(path: &str) -> String {
    path.split('.').filter(|token| !matches!(*token, "?" | "")).collect::<Vec<_>>().join(".")
}

fn prefix(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("{path}: ") }
}

fn hint(unknown: &[String]) -> String {
    if unknown.is_empty() { String::new() } else { format!(" (unknown {})", keys(unknown)) }
}

fn keys(unknown: &[String]) -> String {
    let quoted: Vec<_> = unknown.iter().map(|key| format!("`{key}`")).collect();
    format!("key{} {}", if quoted.len() == 1 { "" } else { "s" }, quoted.join(", "))
}

#[cfg(test)]
mod tests {
    use super::parse_config;
    use crate::Subject;
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Debug, Deserialize)]
    struct Config {
        at_least: f64,
        #[serde(default)]
        table: BTreeMap<String, Vec<Subject>>,
        area: Option<Area>,
    }

    #[derive(Debug, Deserialize)]
    struct Area {
        radius: u8,
    }

    #[track_caller]
    fn refused(json: &str, expected: &str) {
        assert_eq!(parse_config::<Config>(json).unwrap_err().to_string(), expected);
    }

    #[test]
    fn names_key_and_problem() {
        refused(r#"{"at_least": "2"}"#, r#"at_least: invalid type: string "2", expected f64"#);
        refused("", "missing field `at_least`");
        refused(
            r#"{"at_least": 1, "area": {"radius": 300}}"#,
            "area.radius: invalid value: integer `300`, expected u8",
        );
        refused(
            r#"{"at_least": 1, "table": {"ak": ["x", "a..b"]}}"#,
            r#"table.ak[1]: invalid subject "a..b": empty token"#,
        );
        refused("[1, 2", "the configuration is no JSON: EOF while parsing a list at line 1 column 5");
    }

    #[test]
    fn names_keys_that_nothing_reads() {
        refused(r#"{"at_leest": 1}"#, "missing field `at_least` (unknown key `at_leest`)");
        refused(r#"{"at_least": 1, "area": {"radius": 1, "unit": "km"}, "x": 2}"#, "unknown keys `area.unit`, `x`");
    }

    #[test]
    fn takes_what_fits() {
        let config: Config = parse_config(r#"{"at_least": 2, "area": {"radius": 9}}"#).unwrap();
        assert_eq!((config.at_least, config.table.len(), config.area.map(|area| area.radius)), (2.0, 0, Some(9)));
    }
}
