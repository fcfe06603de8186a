//! Queues and routes that were defined while the router runs, beside those of the file.
//!
//! A definition is what a table of the file would hold. File and definitions are checked as one text, so that the same
//! rules hold for both. What the file defines is the file's: a definition of the same name steps back.

use std::fmt;
use std::path::Path;

use serde::de::DeserializeOwned;

use super::check;
use super::problem::{Problem, join};
use super::raw::Raw;
use super::{Config, ConfigError};

/// Longest definition, in bytes.
pub(crate) const DEFINITION_BYTES_MAX: usize = 64 << 10;

/// What is defined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// `[queue.NAME]`.
    Queue,
    /// `[[route]]`.
    Route,
}

/// A queue or route of the router's own, not of its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Definition {
    /// Queue or route.
    pub(crate) kind: Kind,
    /// Its name.
    pub(crate) name: String,
    /// Its keys and values, one a line, without the name.
    pub(crate) body: String,
}

/// A configuration with what was defined at run time.
#[derive(Debug)]
pub(crate) struct Composed {
    /// All of it.
    pub(crate) config: Config,
    /// Definitions that the file has taken over: it defines them itself.
    pub(crate) taken_over: Vec<(Kind, String)>,
}

/// Why a definition cannot be written down.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DefinitionError {
    #[error("{0}: expected KEY=VALUE")]
    NoValue(String),
    #[error("{key}: {reason}")]
    Value { key: String, reason: String },
    #[error("{0}: the name is what comes before the keys")]
    Name(&'static str),
    #[error("a definition of {0} bytes; at most {DEFINITION_BYTES_MAX} are allowed")]
    TooLong(usize),
}

impl Kind {
    /// As in messages and commands.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Route => "route",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Definition {
    /// A definition of `KEY=VALUE` pairs, where a value is TOML, or a text without quotes; `unset` names keys that get
    /// their defaults back. Keys of `before` that are not named stay.
    ///
    /// # Errors
    ///
    /// [`DefinitionError`]; whether the keys mean something is for [`Config::compose`].
    pub(crate) fn new(
        kind: Kind,
        name: &str,
        before: Option<&Self>,
        pairs: &[String],
        unset: &[String],
    ) -> Result<Self, DefinitionError> {
        let before = before.and_then(|before| before.body.parse::<toml::Table>().ok());
        let mut table = before.unwrap_or_default();
        for key in unset {
            table.remove(key);
        }
        for pair in pairs {
            let (key, value) = pair.split_once('=').ok_or_else(|| DefinitionError::NoValue(pair.clone()))?;
            let key = key.trim();
            if key == "name" {
                return Err(DefinitionError::Name("name"));
            }
            table.insert(key.to_owned(), value_of(key, value.trim())?);
        }
        Self::of_table(kind, name, &table)
    }

    /// A definition of a table, such as one of JSON.
    ///
    /// # Errors
    ///
    /// [`DefinitionError::TooLong`].
    pub(crate) fn of_table(kind: Kind, name: &str, table: &toml::Table) -> Result<Self, DefinitionError> {
        // One line a key: a table header of its own would begin something else.
        let lines: Vec<String> = table.iter().map(|(key, value)| format!("{} = {value}", join("", key))).collect();
        let body = lines.join("\n");
        match body.len() {
            long if long > DEFINITION_BYTES_MAX => Err(DefinitionError::TooLong(long)),
            _ => Ok(Self { kind, name: name.to_owned(), body }),
        }
    }

    /// As it would stand in the file.
    pub(crate) fn to_toml(&self) -> String {
        match self.kind {
            Kind::Queue => format!("[{}]\n{}\n", join("queue", &self.name), self.body),
            Kind::Route => format!("[[route]]\nname = {:?}\n{}\n", self.name, self.body),
        }
    }
}

/// A TOML value, or a text that is none.
fn value_of(key: &str, text: &str) -> Result<toml::Value, DefinitionError> {
    let parsed = format!("value = {text}").parse::<toml::Table>();
    match parsed.ok().filter(|table| table.len() == 1).and_then(|mut table| table.remove("value")) {
        Some(value) => Ok(value),
        None if text.starts_with(['[', '{', '"', '\'']) || text.contains('\n') => {
            Err(DefinitionError::Value { key: key.to_owned(), reason: format!("{text} is no TOML value") })
        }
        None => Ok(toml::Value::String(text.to_owned())),
    }
}

impl Config {
    /// Reads and checks a configuration file together with what was defined at run time.
    ///
    /// # Errors
    ///
    /// As [`Config::load`]; problems of a definition name it in place of the file.
    pub(crate) fn load_with(path: &Path, definitions: &[Definition]) -> Result<Composed, ConfigError> {
        let read_error = |source| ConfigError::Read { path: path.into(), source };
        let text = std::fs::read_to_string(path).map_err(read_error)?;
        let base = path.parent().unwrap_or(Path::new(""));
        Self::compose(&text, &path.display().to_string(), base, definitions)
    }

    /// As [`Config::load_with`], of a text; relative paths in it begin at `base_dir`.
    ///
    /// # Errors
    ///
    /// As [`Config::load_with`].
    pub(crate) fn compose(
        text: &str,
        file_name: &str,
        base_dir: &Path,
        definitions: &[Definition],
    ) -> Result<Composed, ConfigError> {
        let invalid = |problems| ConfigError::Invalid { file: file_name.into(), problems };
        let raw: Raw = read_toml(text).map_err(invalid)?;
        let of_file = |definition: &&Definition| raw.defines(definition.kind, &definition.name);
        let (taken, own): (Vec<_>, Vec<_>) = definitions.iter().partition(of_file);
        let taken_over = taken.into_iter().map(|definition| (definition.kind, definition.name.clone())).collect();
        if own.is_empty() {
            let config = check::check(raw, text, base_dir).map_err(invalid)?;
            return Ok(Composed { config, taken_over });
        }
        let (text, places) = append(text, &own);
        let checked = read_toml(&text).and_then(|raw: Raw| check::check(raw, &text, base_dir));
        let config =
            checked.map_err(|problems| ConfigError::Composed { lines: place(problems, file_name, &places) })?;
        Ok(Composed { config, taken_over })
    }
}

/// Reads a text into the shape of its tables and keys.
///
/// # Errors
///
/// The first thing that does not fit, with its place.
pub(crate) fn read_toml<T: DeserializeOwned>(text: &str) -> Result<T, Vec<Problem>> {
    let toml = toml::Deserializer::parse(text).map_err(|e| vec![Problem::syntax(text, &e)])?;
    serde_path_to_error::deserialize(toml).map_err(|e| vec![Problem::shape(text, &e)])
}

/// File and definitions as one text, and at which line each definition begins.
fn append<'a>(text: &str, definitions: &[&'a Definition]) -> (String, Vec<(usize, &'a Definition)>) {
    let mut whole = format!("{text}\n");
    let mut places = Vec::new();
    for definition in definitions {
        places.push((whole.matches('\n').count() + 1, *definition));
        whole += &definition.to_toml();
    }
    (whole, places)
}

/// The lines that say where each problem is.
fn place(problems: Vec<Problem>, file_name: &str, places: &[(usize, &Definition)]) -> Vec<String> {
    let line = |problem: Problem| match places.iter().rev().find(|(begins, _)| problem.line >= *begins) {
        None => format!("{file_name}:{problem}"),
        Some((_, Definition { kind, name, .. })) => {
            let key = if problem.key.is_empty() { String::new() } else { format!("{}: ", problem.key) };
            format!("{kind} {name:?}, defined at run time: {key}{}", problem.message)
        }
    };
    problems.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "[queue.a]\n[queue.b]\n[[route]]\nname = \"r\"\nfrom = \"a\"\nto = [\"b\"]\n";

    fn define(kind: Kind, name: &str, pairs: &[&str]) -> Definition {
        let pairs: Vec<String> = pairs.iter().map(|&pair| pair.to_owned()).collect();
        Definition::new(kind, name, None, &pairs, &[]).expect("a definition")
    }

    fn compose(definitions: &[Definition]) -> Result<Composed, String> {
        Config::compose(FILE, "quipu.toml", Path::new("/etc"), definitions).map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_defined_stands_beside_the_file() {
        let queue =
            define(Kind::Queue, "eu.orders", &["max_attempts=3", "subjects=[\"orders.eu.>\"]", "retention=log"]);
        let plugins = "plugins=[{name=\"filter-json\",config={field=\"n\",at_least=1}}]";
        let route = define(Kind::Route, "extra", &["from=eu.orders", plugins, "to=[\"b\"]"]);
        let composed = compose(&[queue, route]).expect("fine");
        let names: Vec<&str> = composed.config.queues.iter().map(|queue| queue.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "eu.orders"]);
        assert_eq!(composed.config.routes[1].plugins[0].config["at_least"], 1);
        assert!(composed.taken_over.is_empty());
    }

    #[test]
    fn the_file_owns_what_it_defines() {
        let composed = compose(&[define(Kind::Queue, "b", &["max_attempts=9"])]).expect("fine");
        assert_eq!(composed.taken_over, [(Kind::Queue, "b".to_owned())]);
        assert_eq!(composed.config.queues[1].attempts_max, 5);
    }

    #[test]
    fn problems_of_a_definition_name_it() {
        let wrong = [define(Kind::Queue, "c", &["max_attempt=1"]), define(Kind::Route, "s", &["from=d", "to=[\"b\"]"])];
        let refused =
            |definition: &Definition| compose(std::slice::from_ref(definition)).map(drop).expect_err("refused");
        assert_eq!(
            refused(&wrong[0]),
            "queue \"c\", defined at run time: queue.c.max_attempt: unknown key; did you mean `max_attempts`?"
        );
        let said = refused(&wrong[1]);
        assert!(said.starts_with("route \"s\", defined at run time: route[1].from: there is no queue `d`"), "{said}");
    }

    #[test]
    fn a_change_keeps_the_other_keys() {
        let before = define(Kind::Queue, "c", &["max_attempts=3", "ack_deadline=5s"]);
        let changed =
            Definition::new(Kind::Queue, "c", Some(&before), &["max_attempts=4".into()], &["ack_deadline".into()]);
        assert_eq!(changed.expect("fine").body, "max_attempts = 4");
    }

    #[test]
    fn a_value_cannot_begin_a_table_of_its_own() {
        let value = value_of("from", "x\n[tls]\nkey = 1");
        assert!(matches!(value, Err(DefinitionError::Value { .. })), "{value:?}");
        assert_eq!(
            value_of("from", "[tls"),
            Err(DefinitionError::Value { key: "from".into(), reason: "[tls is no TOML value".into() })
        );
    }
}
