//! The languages that plugins are written in: one file each, and a line in [`ALL`]. A language is listed once a project
//! made from its template builds.

pub(crate) mod assemblyscript;
pub(crate) mod c;
mod go;
mod js;
mod python;
pub(crate) mod rust;
mod ts;
pub(crate) mod zig;

use std::ffi::OsStr;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Arg, Command};

use super::embedded::Embedded;
use super::job::{BuildError, Job};
use crate::nearest::nearest;

/// Every language, in the order they are named in.
pub(crate) static ALL: [&Language; 8] =
    [&rust::RUST, &c::C, &zig::ZIG, &assemblyscript::ASSEMBLYSCRIPT, &js::JS, &ts::TS, &python::PYTHON, &go::GO];

/// What is needed to make a project in a language, and a plugin of the project.
#[derive(Debug)]
pub(crate) struct Language {
    /// As `--lang` takes it.
    pub(crate) name: &'static str,
    /// Where a project has its source, unless its `plugin.toml` says otherwise.
    pub(crate) source: &'static str,
    /// Written into a project's `.quipu/sdk/`, beside the contract.
    pub(crate) sdk: &'static [Embedded],
    /// Written into a new project. In contents and paths, `{{name}}` is its name in kebab-case, `{{ident}}` in snake_case
    /// and `{{Type}}` in CamelCase.
    pub(crate) template: &'static [Embedded],
    /// Names in `toolchains.toml`, without what only installs the others.
    pub(crate) tools: &'static [&'static str],
    /// Makes the module or component, anywhere below `.quipu/`, and gives its path. It need not be stripped.
    pub(crate) build: fn(&Job<'_>) -> Result<PathBuf, BuildError>,
}

/// No language of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) struct UnknownLanguage(String);

impl fmt::Display for UnknownLanguage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = names().collect();
        write!(f, "no language {:?}; there are {}", self.0, names.join(", "))?;
        match nearest(&self.0, names) {
            Some(name) => write!(f, "; did you mean {name}?"),
            None => Ok(()),
        }
    }
}

impl FromStr for &'static Language {
    type Err = UnknownLanguage;

    fn from_str(name: &str) -> Result<Self, UnknownLanguage> {
        ALL.iter().find(|language| language.name == name).copied().ok_or_else(|| UnknownLanguage(name.into()))
    }
}

/// Takes a language of the command line: its names are in the help and offered by shells, and errors are our own.
#[derive(Debug, Clone)]
pub(crate) struct Parser;

impl TypedValueParser for Parser {
    type Value = &'static Language;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<Self::Value, clap::Error> {
        let parser = StringValueParser::new().try_map(|name: String| name.parse::<&'static Language>());
        parser.parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(names().map(PossibleValue::new)))
    }
}

/// As `--lang` takes them.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|language| language.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::author::toolchains::Toolchains;

    #[test]
    fn an_unknown_language_hears_of_those_there_are() {
        let error = <&Language>::from_str("rusty").expect_err("no such language").to_string();
        assert!(error.starts_with("no language \"rusty\"; there are rust"), "{error}");
        assert!(error.ends_with("; did you mean rust?"), "{error}");
    }

    #[test]
    fn each_has_a_whole_template_and_known_tools() {
        let toolchains = Toolchains::embedded();
        for language in ALL {
            for file in [language.source, "plugin.toml", "tests/first.toml", "sample.ndjson", ".gitignore"] {
                let has = language.template.iter().any(|embedded| embedded.path == file);
                assert!(has, "{}: its template has no {file}", language.name);
            }
            for tool in language.tools {
                assert!(toolchains.tool(tool).is_some(), "{}: no tool {tool}", language.name);
            }
        }
    }
}
