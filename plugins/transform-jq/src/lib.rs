//! Stock plugin `transform-jq`: makes a new payload of a JSON payload, by a program in the language of jq.
//!
//! The language is jaq's. What a program can reach is the message in hand and its configuration: there is no
//! environment, no file and no other clock than the router's.

mod natives;
mod program;

use jaq_json::{Num, Val, read};
use program::Program;
use quipu_plugin::json::{DEPTH_MAX, checked};
use quipu_plugin::prelude::*;
use std::collections::BTreeMap;

/// Most results that a program may give for one message. A copy of each goes out with `many = "split"`, and the router
/// takes as many.
const RESULTS_MAX: usize = 1_024;

/// The configuration of one use.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransformJq {
    program: String,
    /// Values that the program reads as `$NAME`.
    #[serde(default)]
    vars: BTreeMap<String, Value>,
    #[serde(default)]
    many: Many,
    /// Where the results go with `many = "split"`.
    subject: Option<Subject>,
    /// The program, compiled in `configure`.
    #[serde(skip)]
    compiled: Option<Program>,
}

/// What becomes of more results than one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Many {
    /// The message is rejected.
    #[default]
    Reject,
    /// One payload, an array of them; also where there is one result, or none.
    Array,
    /// A message for each.
    Split,
}

impl Plugin for TransformJq {
    fn configure(config: &str) -> Result<Self> {
        let mut plugin: Self = quipu_plugin::parse_config(config)?;
        match (plugin.many, &plugin.subject) {
            (Many::Split, None) => return Err("subject: required where many is \"split\"".into()),
            (Many::Split, Some(_)) | (_, None) => {}
            (_, Some(_)) => return Err("subject: goes with many = \"split\" alone".into()),
        }
        plugin.compiled = Some(Program::compile(&plugin.program, &plugin.vars)?);
        Ok(plugin)
    }

    fn process(&mut self, message: &mut Message) -> Result<Verdict> {
        let program = self.compiled.as_ref().expect("configure compiles the program");
        let input = read::parse_single(checked(message.payload())?.as_bytes())
            .map_err(|error| format!("the payload is no JSON: {error}"))?;
        let about = if program.reads_message() { about(message) } else { Val::Null };
        let results = program.run(input, about, RESULTS_MAX)?;
        self.answer(message, &results)
    }
}
plugin!(TransformJq);

impl TransformJq {
    fn answer(&self, message: &mut Message, results: &[Val]) -> Result<Verdict> {
        let texts = results.iter().map(text).collect::<Result<Vec<_>, _>>()?;
        match (self.many, texts.as_slice()) {
            (Many::Array, texts) => message.set_payload_text(&format!("[{}]", texts.join(","))),
            (_, []) => return Ok(drop("the program gave no result")),
            (Many::Reject, [one]) => message.set_payload_text(one),
            (Many::Reject, more) => {
                return Ok(reject(format!("the program gave {} results, where many is \"reject\"", more.len())));
            }
            (Many::Split, texts) => {
                let subject = self.subject.as_ref().expect("configure asks for it");
                message.emit_parts(subject, texts)?;
                return Ok(drop("split"));
            }
        }
        Ok(forward())
    }
}

/// What a program reads as `$message`.
fn about(message: &Message) -> Val {
    let key = message.key().map(|key| String::from_utf8_lossy(&key).into_owned());
    let mut headers = Vec::<(String, Val)>::new();
    for (name, value) in message.headers() {
        let name = name.to_ascii_lowercase();
        // The first of several, as `Message::header` has it.
        if !headers.iter().any(|(there, _)| *there == name) {
            headers.push((name, value.into()));
        }
    }
    object([
        ("id".to_owned(), message.id().into()),
        ("subject".to_owned(), message.subject().into()),
        ("key".to_owned(), key.map_or(Val::Null, Val::from)),
        ("headers".to_owned(), object(headers)),
        ("published_ms".to_owned(), Val::Num(Num::from_integral(message.published_ms()))),
        ("attempt".to_owned(), Val::Num(Num::from_integral(message.attempt()))),
    ])
}

fn object(entries: impl IntoIterator<Item = (String, Val)>) -> Val {
    Val::obj(entries.into_iter().map(|(name, value)| (name.into(), value)).collect())
}

/// A result as JSON. The language has values that JSON lacks.
fn text(result: &Val) -> Result<String, String> {
    match unfit(result, 0) {
        Some(problem) => Err(format!("the result is no JSON: {problem}")),
        None => Ok(result.to_string()),
    }
}

fn unfit(value: &Val, depth: usize) -> Option<&'static str> {
    match value {
        Val::Num(Num::Float(float)) if !float.is_finite() => Some("a number that is not finite"),
        Val::Null | Val::Bool(_) | Val::Num(_) => None,
        Val::BStr(_) => Some("bytes, not text"),
        Val::TStr(text) => str::from_utf8(text).is_err().then_some("text that is not UTF-8"),
        Val::Arr(_) | Val::Obj(_) if depth >= DEPTH_MAX => Some("it is nested too deep"),
        Val::Arr(elements) => elements.iter().find_map(|element| unfit(element, depth + 1)),
        Val::Obj(entries) => entries.iter().find_map(|(name, value)| match name {
            Val::TStr(_) => unfit(name, depth).or_else(|| unfit(value, depth + 1)),
            _ => Some("an object whose key is no text"),
        }),
    }
}

#[cfg(test)]
mod tests;
