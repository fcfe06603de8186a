//! The operators: what a field can be asked, and the values and patterns that a configuration names.

use quipu_plugin::prelude::{Deserialize, Value};
use regex_lite::Regex;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use std::fmt;

/// The answer of one field.
#[derive(Debug, PartialEq)]
pub(crate) enum Asked {
    Yes,
    /// It falls short; how, in words that follow the name of the field.
    No(String),
    /// It is nothing that the operator could look at.
    Unanswered(&'static str),
}

/// Compares a number; the shortfall is worded only where it is needed.
pub(crate) fn number(value: &Value, test: impl Fn(f64) -> bool, shortfall: impl Fn() -> String) -> Asked {
    match value.as_f64() {
        Some(found) if test(found) => Asked::Yes,
        Some(_) => Asked::No(shortfall()),
        None => Asked::Unanswered("not a number"),
    }
}

pub(crate) fn text(value: &Value, test: impl Fn(&str) -> bool, shortfall: &str) -> Asked {
    value.as_str().map_or(Asked::Unanswered("not text"), |found| holds(test(found), shortfall))
}

pub(crate) fn holds(test: bool, shortfall: &str) -> Asked {
    if test { Asked::Yes } else { Asked::No(shortfall.into()) }
}

/// A value that a field can be equal to.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Value")]
pub(crate) struct Scalar(Value);

impl Scalar {
    /// Equal, numbers by what they are worth: 2 is 2.0. Integers compare exactly, whatever their size.
    pub(crate) fn is(&self, value: &Value) -> bool {
        match (&self.0, value) {
            (Value::Number(a), Value::Number(b)) if a.is_f64() || b.is_f64() => a.as_f64() == b.as_f64(),
            (wanted, found) => wanted == found,
        }
    }
}

impl TryFrom<Value> for Scalar {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let kind = match value {
            Value::String(_) | Value::Number(_) | Value::Bool(_) => return Ok(Self(value)),
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
            Value::Null => "null",
        };
        Err(format!("{kind}, expected text, a number or a boolean"))
    }
}

/// One regular expression or several.
#[derive(Debug)]
pub(crate) struct Patterns(Vec<Regex>);

impl Patterns {
    pub(crate) fn any(&self, text: &str) -> bool {
        self.0.iter().any(|pattern| pattern.is_match(text))
    }
}

/// By hand, since an untagged enum would say nothing but that no variant fits.
impl<'de> Deserialize<'de> for Patterns {
    fn deserialize<D: Deserializer<'de>>(config: D) -> Result<Self, D::Error> {
        struct OneOrMore;

        impl<'de> Visitor<'de> for OneOrMore {
            type Value = Patterns;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a regular expression or a list of them")
            }

            fn visit_str<E: Error>(self, pattern: &str) -> Result<Patterns, E> {
                Ok(Patterns(vec![Pattern::try_from(pattern.to_owned()).map_err(E::custom)?.0]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Patterns, A::Error> {
                let mut patterns = Vec::new();
                while let Some(Pattern(pattern)) = list.next_element()? {
                    patterns.push(pattern);
                }
                if patterns.is_empty() { Err(A::Error::custom("names no pattern")) } else { Ok(Patterns(patterns)) }
            }
        }

        config.deserialize_any(OneOrMore)
    }
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Pattern(Regex);

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(pattern: String) -> Result<Self, String> {
        Regex::new(&pattern).map(Self).map_err(|error| format!("invalid pattern {pattern:?}: {error}"))
    }
}
