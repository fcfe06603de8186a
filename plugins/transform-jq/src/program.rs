//! A program: compiled once, with errors that say line and column, and run on one value after another.

use crate::natives;
use jaq_core::compile::{self, Undefined};
use jaq_core::data::JustLut;
use jaq_core::load::{self, Arena, Error as LoadError, File, Loader};
use jaq_core::{Compiler, Ctx, Filter, Vars, unwrap_valr};
use jaq_json::{Val, read};
use quipu_plugin::prelude::Value;
use std::collections::BTreeMap;
use std::fmt;

/// What the message in hand is called in a program.
const MESSAGE: &str = "$message";
/// Definitions of the library that need what is not offered here.
const LEFT_OUT: [&str; 7] = ["logb", "significand", "drem", "nexttoward", "gamma", "halt", "halt_error"];

/// A compiled program.
pub(crate) struct Program {
    filter: Filter<JustLut<Val>>,
    vars: Vec<Val>,
    reads_message: bool,
}

impl Program {
    /// Compiles a program that reads these variables, and `$message`.
    pub(crate) fn compile(code: &str, vars: &BTreeMap<String, Value>) -> Result<Self, String> {
        let names = names(vars)?;
        let defs = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
        let loader = Loader::new(defs.filter(|def| !LEFT_OUT.contains(&def.name)));
        let arena = Arena::default();
        let modules = loader.load(&arena, File { code, path: () }).map_err(|errors| unreadable(code, errors))?;
        let funs = jaq_core::funs().chain(jaq_std::base_funs()).chain(jaq_json::funs());
        let filter = Compiler::default()
            .with_funs(funs.filter(|(name, ..)| *name != "halt").chain(natives::all()))
            .with_global_vars(names.iter().map(String::as_str))
            .compile(modules)
            .map_err(|errors| undefined(code, errors))?;
        let values = vars.values().map(|value| read::parse_single(value.to_string().as_bytes()));
        let vars = values.collect::<Result<_, _>>().map_err(|error| format!("vars: {error}"))?;
        Ok(Self { filter, vars, reads_message: code.contains(MESSAGE) })
    }

    /// Whether it may read `$message`.
    pub(crate) fn reads_message(&self) -> bool {
        self.reads_message
    }

    /// All results, in order.
    pub(crate) fn run(&self, input: Val, message: Val, results_max: usize) -> Result<Vec<Val>, String> {
        let vars = Vars::new(std::iter::once(message).chain(self.vars.iter().cloned()));
        let context = Ctx::<JustLut<Val>>::new(&self.filter.lut, vars);
        let mut results = Vec::new();
        for result in self.filter.id.run((context, input)).map(unwrap_valr) {
            if results.len() == results_max {
                return Err(format!("the program gave more than {results_max} results"));
            }
            results.push(result.map_err(|error| format!("program: {}", plain(&error.into_val())))?);
        }
        Ok(results)
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").finish_non_exhaustive()
    }
}

/// What a program fails with: text as it is, anything else as JSON.
fn plain(thrown: &Val) -> String {
    match thrown {
        Val::TStr(text) => String::from_utf8_lossy(text).into_owned(),
        other => other.to_string(),
    }
}

/// The names of the variables as a program writes them, `$message` first.
fn names(vars: &BTreeMap<String, Value>) -> Result<Vec<String>, String> {
    let mut names = vec![MESSAGE.to_owned()];
    for name in vars.keys() {
        let starts = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
        if !starts || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(format!("vars.{name}: a name is letters, digits and `_`, and begins with no digit"));
        }
        let name = format!("${name}");
        if name == MESSAGE {
            return Err("vars.message: $message is the message in hand".into());
        }
        names.push(name);
    }
    Ok(names)
}

fn unreadable(code: &str, errors: load::Errors<&str, ()>) -> String {
    let first = errors.iter().find_map(|(_, error)| match error {
        LoadError::Io(all) => all.first().map(|(part, _)| at(code, part, "modules cannot be loaded")),
        LoadError::Lex(all) => all.first().map(|(expected, part)| {
            let found = part.chars().next();
            at(code, part, &format!("expected {}, found {}", expected.as_str(), quoted(found)))
        }),
        LoadError::Parse(all) => all.first().map(|(expected, part)| {
            let found = if part.is_empty() { "the end".into() } else { format!("{part:?}") };
            at(code, part, &format!("expected {}, found {found}", expected.as_str()))
        }),
    });
    first.unwrap_or_else(|| "program: it cannot be read".into())
}

fn quoted(found: Option<char>) -> String {
    found.map_or("the end".into(), |found| format!("{found:?}"))
}

fn undefined(code: &str, errors: compile::Errors<&str, ()>) -> String {
    let first = errors.into_iter().flat_map(|(_, errors)| errors).next();
    first.map_or_else(
        || "program: it cannot be compiled".into(),
        |(part, undefined)| {
            let name = match undefined {
                Undefined::Filter(arity) => format!("filter {part}/{arity}"),
                other => format!("{} {part}", other.as_str()),
            };
            at(code, part, &format!("there is no {name}"))
        },
    )
}

/// A problem with the line and column of this part of the program, both from 1.
fn at(code: &str, part: &str, problem: &str) -> String {
    let offset = (part.as_ptr() as usize).checked_sub(code.as_ptr() as usize);
    let before = offset.and_then(|offset| code.get(..offset)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("program: line {line}, column {column}: {problem}")
}
