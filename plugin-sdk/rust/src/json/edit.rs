//! Changes to JSON values by path, and values as other types: what plugins that reshape payloads have in common.

use super::{FieldPath, place};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};
use thiserror::Error;

/// Integers of a float are exact up to here: 2^53.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// Why a field could not be set.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{path}: cannot be set: {problem}")]
pub struct SetError {
    path: String,
    problem: String,
}

/// Fields of a value at hand. For a look at one field of a payload, `Message::json_field` is cheaper.
impl FieldPath {
    /// The field, where there is one.
    pub fn get<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        self.names.iter().try_fold(value, |here, name| match here {
            Value::Object(map) => map.get(name),
            Value::Array(elements) => elements.get(name.parse::<usize>().ok()?),
            _ => None,
        })
    }

    /// As [`FieldPath::get`], to change it in place.
    pub fn get_mut<'a>(&self, value: &'a mut Value) -> Option<&'a mut Value> {
        child_of(value, &self.names)
    }

    /// Sets the field, in the place of what is there. Objects on the way are made where nothing or null is; of an array,
    /// an element that is there can be set, and the one behind the last.
    ///
    /// # Errors
    ///
    /// Something else is on the way. The value is as it was.
    pub fn set(&self, value: &mut Value, field: Value) -> Result<(), SetError> {
        let mut here = value;
        for (depth, name) in self.names.iter().enumerate() {
            if here.is_null() {
                *here = Value::Object(Map::new());
            }
            let problem = |kind: &str| {
                let problem = format!("{} is {kind}", place(&self.names[..depth]));
                SetError { path: self.text.clone(), problem }
            };
            here = match here {
                Value::Object(map) => map.entry(name.as_str()).or_insert(Value::Null),
                Value::Array(elements) => {
                    let index = name.parse::<usize>().map_err(|_| problem("an array, not an object"))?;
                    let length = elements.len();
                    if index == length {
                        elements.push(Value::Null);
                    }
                    elements.get_mut(index).ok_or_else(|| problem(&format!("an array of {length}")))?
                }
                other => return Err(problem(&format!("{}, not an object", kind(other)))),
            };
        }
        *here = field;
        Ok(())
    }

    /// Takes the field out, where there is one. Elements behind it move up.
    pub fn remove(&self, value: &mut Value) -> Option<Value> {
        let (last, above) = self.names.split_last()?;
        match child_of(value, above)? {
            Value::Object(map) => map.remove(last),
            Value::Array(elements) => {
                let index = last.parse::<usize>().ok().filter(|index| *index < elements.len())?;
                Some(elements.remove(index))
            }
            _ => None,
        }
    }
}

fn child_of<'a>(value: &'a mut Value, names: &[String]) -> Option<&'a mut Value> {
    names.iter().try_fold(value, |here, name| match here {
        Value::Object(map) => map.get_mut(name),
        Value::Array(elements) => elements.get_mut(name.parse::<usize>().ok()?),
        _ => None,
    })
}

/// What kind of value it is, for messages: `text`, `a number`, `a boolean`, `null`, `an array`, `an object`.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// A single value as text: text as it is, numbers and booleans as JSON writes them (`7`, `2.5`, `true`). Nothing for
/// null, arrays and objects.
pub fn scalar_text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A type that a value can be turned into; in configurations `"text"`, `"number"`, `"integer"`, `"boolean"`, `"json"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cast {
    /// Numbers and booleans as JSON writes them, arrays and objects as JSON text.
    Text,
    /// From text that holds a number, blanks around it aside.
    Number,
    /// As `Number`, and without a fraction: 2.0 becomes 2, and 2.5 is refused.
    Integer,
    /// From `true`, `false`, `1` and `0`, as text in any case or as a number.
    Boolean,
    /// From text that holds JSON.
    Json,
}

/// Why a value could not be turned into a type.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CastError {
    /// A value of this kind never can.
    #[error("{0} cannot become {1}")]
    Kind(&'static str, &'static str),
    /// A value of this kind may, but this one does not.
    #[error("{0} that is not {1}")]
    Value(&'static str, &'static str),
}

impl Cast {
    /// The value as this type; one that is of it already stays as it is.
    ///
    /// # Errors
    ///
    /// It has none. The text never has the value in it.
    pub fn apply(self, value: &Value) -> Result<Value, CastError> {
        let cast = match self {
            Self::Text => match value {
                Value::Null => None,
                Value::Array(_) | Value::Object(_) => Some(Value::String(value.to_string())),
                single => scalar_text(single.clone()).map(Value::String),
            },
            Self::Number => number(value).map(Value::Number),
            Self::Integer => number(value).and_then(integer).map(Value::Number),
            Self::Boolean => boolean(value).map(Value::Bool),
            Self::Json => value.as_str().and_then(|text| serde_json::from_str(text).ok()),
        };
        cast.ok_or_else(|| {
            let could = match value {
                Value::String(_) => true,
                Value::Number(_) => matches!(self, Self::Integer | Self::Boolean),
                _ => false,
            };
            if could { CastError::Value(kind(value), self.name()) } else { CastError::Kind(kind(value), self.name()) }
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Number => "a number",
            Self::Integer => "an integer",
            Self::Boolean => "a boolean",
            Self::Json => "JSON",
        }
    }
}

fn number(value: &Value) -> Option<Number> {
    match value {
        Value::Number(number) => Some(number.clone()),
        Value::String(text) => {
            let text = text.trim();
            let whole = text.parse::<i64>().map(Number::from).or_else(|_| text.parse::<u64>().map(Number::from));
            // Rust also reads `inf` and `nan`, which JSON has no numbers for.
            whole.ok().or_else(|| Number::from_f64(text.parse().ok()?))
        }
        _ => None,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the range has been looked at, and there is no fraction")]
fn integer(number: Number) -> Option<Number> {
    if !number.is_f64() {
        return Some(number);
    }
    let float = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() <= EXACT_MAX)?;
    Some(Number::from(float as i64))
}

fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(truth) => Some(*truth),
        Value::Number(number) => match number.as_u64()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        },
        Value::String(text) => match text.trim() {
            "0" => Some(false),
            "1" => Some(true),
            text if text.eq_ignore_ascii_case("false") => Some(false),
            text if text.eq_ignore_ascii_case("true") => Some(true),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Cast, scalar_text};
    use crate::json::FieldPath;
    use serde_json::{Value, json};

    fn path(text: &str) -> FieldPath {
        text.parse().unwrap()
    }

    #[track_caller]
    fn sets(before: Value, at: &str, expected: Result<Value, &str>) {
        let mut value = before.clone();
        match (path(at).set(&mut value, json!(9)), expected) {
            (Ok(()), Ok(expected)) => assert_eq!(value, expected),
            (Err(error), Err(expected)) => assert_eq!((error.to_string().as_str(), value), (expected, before)),
            (found, _) => panic!("{found:?}: {value}"),
        }
    }

    #[test]
    fn sets_fields() {
        sets(json!({}), "a.b", Ok(json!({ "a": { "b": 9 } })));
        sets(json!({ "a": null }), "a.b", Ok(json!({ "a": { "b": 9 } })));
        sets(json!({ "a": [1, { "b": 2 }] }), "a.1.b", Ok(json!({ "a": [1, { "b": 9 }] })));
        sets(json!([1]), "1", Ok(json!([1, 9])));
        sets(json!([1]), "2", Err("2: cannot be set: the payload is an array of 1"));
        sets(json!({ "a": [1] }), "a.b", Err(r#"a.b: cannot be set: "a" is an array, not an object"#));
        sets(json!({ "a": "x" }), "a.b.c", Err(r#"a.b.c: cannot be set: "a" is text, not an object"#));
        sets(json!(7), "a", Err("a: cannot be set: the payload is a number, not an object"));
    }

    #[test]
    fn finds_and_removes_fields() {
        let mut value = json!({ "a": { "x.y": 1, "l": [1, 2, 3] } });
        assert_eq!(path(r"a.x\.y").get(&value), Some(&json!(1)));
        assert_eq!(path("a.l.3").get(&value), None);
        assert_eq!(path("a.l.1").remove(&mut value), Some(json!(2)));
        assert_eq!(path("a.l.2").remove(&mut value), None);
        assert_eq!(path(r"a.x\.y").remove(&mut value), Some(json!(1)));
        assert_eq!(path("a.l.0.b").remove(&mut value), None);
        *path("a.l.0").get_mut(&mut value).unwrap() = json!("one");
        assert_eq!(value, json!({ "a": { "l": ["one", 3] } }));
    }

    #[track_caller]
    fn casts(cast: Cast, value: Value, expected: Result<Value, &str>) {
        assert_eq!(cast.apply(&value).map_err(|error| error.to_string()), expected.map_err(str::to_owned));
    }

    #[test]
    fn casts_what_fits() {
        casts(Cast::Text, json!(2.50), Ok(json!("2.5")));
        casts(Cast::Text, json!([1, "a"]), Ok(json!(r#"[1,"a"]"#)));
        casts(Cast::Number, json!(" 4.6 "), Ok(json!(4.6)));
        casts(Cast::Number, json!("18446744073709551615"), Ok(json!(u64::MAX)));
        casts(Cast::Integer, json!("7"), Ok(json!(7)));
        casts(Cast::Integer, json!(2.0), Ok(json!(2)));
        casts(Cast::Boolean, json!("TRUE"), Ok(json!(true)));
        casts(Cast::Boolean, json!(0), Ok(json!(false)));
        casts(Cast::Json, json!(r#"{"a":[1]}"#), Ok(json!({ "a": [1] })));
    }

    #[test]
    fn says_what_does_not_fit() {
        casts(Cast::Text, json!(null), Err("null cannot become text"));
        casts(Cast::Number, json!("nan"), Err("text that is not a number"));
        casts(Cast::Number, json!("1e999"), Err("text that is not a number"));
        casts(Cast::Number, json!(true), Err("a boolean cannot become a number"));
        casts(Cast::Integer, json!(2.5), Err("a number that is not an integer"));
        casts(Cast::Integer, json!(1e300), Err("a number that is not an integer"));
        casts(Cast::Boolean, json!("yes"), Err("text that is not a boolean"));
        casts(Cast::Json, json!("{"), Err("text that is not JSON"));
        casts(Cast::Json, json!(1), Err("a number cannot become JSON"));
    }

    #[test]
    fn single_values_have_a_text() {
        let text = |value| scalar_text(value).unwrap_or_default();
        assert_eq!([text(json!("a")), text(json!(7.0)), text(json!(true)), text(json!([1]))], ["a", "7.0", "true", ""]);
    }
}
