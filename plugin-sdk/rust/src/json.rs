//! Fields of JSON payloads, by dotted path. Reads one field and skips over the rest, without building a tree of it;
//! changes fields in values, and in the text of JSON.

mod edit;
mod rewrite;

pub use edit::{Cast, CastError, SetError, kind, scalar_text};
pub use rewrite::{Change, Fields};

use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::{fmt, str::FromStr};
use thiserror::Error;

/// A dotted path to a field: `properties.mag`. A number picks an element of an array: `coordinates.0`. A dot that
/// belongs to a name is written `\.`, and a backslash `\\`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FieldPath {
    text: String,
    names: Vec<String>,
}

impl FieldPath {
    /// As written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The names on the way, the outermost first; at least one, none of them empty.
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

/// Why a text is no path.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("invalid path {path:?}: {problem}")]
pub struct PathError {
    path: String,
    problem: &'static str,
}

impl TryFrom<String> for FieldPath {
    type Error = PathError;

    fn try_from(text: String) -> Result<Self, PathError> {
        match split(&text) {
            Ok(names) => Ok(Self { text, names }),
            Err(problem) => Err(PathError { path: text, problem }),
        }
    }
}

impl FromStr for FieldPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::try_from(text.to_owned())
    }
}

impl From<FieldPath> for String {
    fn from(path: FieldPath) -> Self {
        path.text
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why a payload, or a field of it, could not be had.
#[derive(Debug, Error)]
pub enum JsonError {
    /// The payload is no JSON.
    #[error("the payload is no JSON: {0}")]
    NotJson(#[source] serde_json::Error),
    /// The payload is nested deeper than [`DEPTH_MAX`]; how deep.
    #[error("the payload is nested {0} levels deep, {DEPTH_MAX} at most")]
    TooDeep(usize),
    /// There is no such field.
    #[error("{path}: absent: {problem}")]
    Absent {
        /// The path that was asked for.
        path: String,
        /// Where it ended.
        problem: String,
    },
    /// The value does not fit the type that was asked for.
    #[error("{}{problem}", if path.is_empty() { String::new() } else { format!("{path}: ") })]
    Unfit {
        /// Where the value is; empty for the whole payload.
        path: String,
        /// What was found, and what was expected.
        problem: String,
    },
    /// The path itself makes no sense.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// How deep JSON may be nested for [`checked`]; serde_json reads no deeper either.
pub const DEPTH_MAX: usize = 127;

/// JSON as text, for parsers other than this crate's: valid, and nested no deeper than [`DEPTH_MAX`], so that a parser
/// that calls itself for each level keeps within its stack.
///
/// # Errors
///
/// It is no JSON, with line and column, or nested too deep.
pub fn checked(payload: &[u8]) -> Result<&str, JsonError> {
    serde_json::from_slice::<IgnoredAny>(payload).map_err(JsonError::NotJson)?;
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_text, mut is_escaped) = (false, false);
    for byte in payload {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_text => is_escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    if deepest > DEPTH_MAX {
        return Err(JsonError::TooDeep(deepest));
    }
    text_of(payload)
}

/// What a parser passes over it does not look at as text, and JSON is UTF-8 all through.
fn text_of(payload: &[u8]) -> Result<&str, JsonError> {
    str::from_utf8(payload).map_err(|error| JsonError::NotJson(de::Error::custom(error)))
}

/// The whole payload.
pub(crate) fn whole<T: DeserializeOwned>(payload: &[u8]) -> Result<T, JsonError> {
    serde_json::from_slice(payload).map_err(|error| {
        if error.is_data() { unfit::<T>(String::new(), payload, &error) } else { JsonError::NotJson(error) }
    })
}

/// One field of the payload.
pub(crate) fn field<T: DeserializeOwned>(payload: &[u8], path: &FieldPath) -> Result<T, JsonError> {
    let raw = find(payload, path)?.get();
    serde_json::from_str(raw).map_err(|error| unfit::<T>(path.text.clone(), raw.as_bytes(), &error))
}

/// One field of the payload, as the text that stands there. Of names that occur twice, the last one counts.
fn find<'a>(payload: &'a [u8], path: &FieldPath) -> Result<&'a RawValue, JsonError> {
    let mut json = serde_json::Deserializer::from_slice(payload);
    let found = Walk { names: &path.names, depth: 0 }.deserialize(&mut json).map_err(JsonError::NotJson)?;
    json.end().map_err(JsonError::NotJson)?;
    text_of(payload)?;
    let absent = |problem| JsonError::Absent { path: path.text.clone(), problem };
    match found {
        Found::Value(value) => Ok(value),
        Found::NoName(depth) => Err(absent(format!("{} has no {:?}", place(&path.names[..depth]), path.names[depth]))),
        Found::Other(depth, kind) => Err(absent(format!("{} is {kind}, not an object", place(&path.names[..depth])))),
    }
}

/// Says where in the value a type was not met; read again for that alone, so that reading what fits costs nothing more.
fn unfit<T: DeserializeOwned>(mut path: String, json: &[u8], error: &serde_json::Error) -> JsonError {
    let mut said = error.to_string();
    if let Err(error) = serde_path_to_error::deserialize::<_, T>(&mut serde_json::Deserializer::from_slice(json)) {
        let inner = error.path().to_string();
        if inner != "." {
            path = if path.is_empty() { inner } else { format!("{path}.{inner}") };
        }
        said = error.inner().to_string();
    }
    // Line and column are those of an excerpt, and differ from message to message.
    let problem = said.rsplit_once(" at line ").map_or(said.as_str(), |(problem, _)| problem).to_owned();
    JsonError::Unfit { path, problem }
}

fn place(names: &[String]) -> String {
    if names.is_empty() { "the payload".into() } else { format!("{:?}", names.join(".")) }
}

fn split(text: &str) -> Result<Vec<String>, &'static str> {
    let mut names = vec![String::new()];
    let mut chars = text.chars();
    while let Some(next) = chars.next() {
        let literal = match next {
            '.' => {
                names.push(String::new());
                continue;
            }
            '\\' => chars
                .next()
                .filter(|c| matches!(c, '.' | '\\'))
                .ok_or("a backslash stands before a dot or a backslash")?,
            other => other,
        };
        names.last_mut().expect("begins with one").push(literal);
    }
    if names.iter().any(String::is_empty) { Err("empty name") } else { Ok(names) }
}

/// Where a walk along a path ended. Numbers count the names that were passed.
enum Found<'de> {
    Value(&'de RawValue),
    NoName(usize),
    Other(usize, &'static str),
}

/// Follows `names` from `depth` on into a value; all else is skipped.
struct Walk<'p> {
    names: &'p [String],
    depth: usize,
}

impl Walk<'_> {
    fn next(&self) -> Self {
        Self { depth: self.depth + 1, ..*self }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = Found<'de>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Found<'de>, D::Error> {
        if self.depth == self.names.len() {
            <&RawValue>::deserialize(json).map(Found::Value)
        } else {
            json.deserialize_any(self)
        }
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = Found<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found<'de>, A::Error> {
        let mut found = Found::NoName(self.depth);
        while let Some(Matches(here)) = map.next_key_seed(Name(&self.names[self.depth]))? {
            if here {
                found = map.next_value_seed(self.next())?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Found<'de>, A::Error> {
        let Ok(index) = self.names[self.depth].parse::<usize>() else {
            while elements.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(Found::Other(self.depth, "an array"));
        };
        for _ in 0..index {
            if elements.next_element::<IgnoredAny>()?.is_none() {
                return Ok(Found::NoName(self.depth));
            }
        }
        let found = elements.next_element_seed(self.next())?.unwrap_or(Found::NoName(self.depth));
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Found<'de>, E> {
        Ok(Found::Other(self.depth, "a boolean"))
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Found<'de>, E> {
        Ok(Found::Other(self.depth, "a number"))
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Found<'de>, E> {
        Ok(Found::Other(self.depth, "a number"))
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Found<'de>, E> {
        Ok(Found::Other(self.depth, "a number"))
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<Found<'de>, E> {
        Ok(Found::Other(self.depth, "text"))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Found<'de>, E> {
        Ok(Found::Other(self.depth, "null"))
    }
}

/// Whether the next name of an object is this one; compared in place.
struct Name<'p>(&'p str);

struct Matches(bool);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Matches;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Matches, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Matches;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Matches, E> {
        Ok(Matches(name == self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::{DEPTH_MAX, checked, field, whole};
    use serde::Deserialize;
    use serde::de::DeserializeOwned;
    use std::fmt::Debug;

    const QUAKE: &str = r#"{"id":"ak1","properties":{"mag":4.6,"net":"ak","service.name":"x"},"at":[1,{"d":[[7]]}]}"#;

    #[track_caller]
    fn check<T: DeserializeOwned + Debug>(json: &str, path: &str, expected: &str) {
        let found = path.parse().map_err(Into::into).and_then(|path| field::<T>(json.as_bytes(), &path));
        assert_eq!(found.map_or_else(|error| error.to_string(), |value| format!("{value:?}")), expected);
    }

    #[test]
    fn finds_a_field() {
        check::<f64>(QUAKE, "properties.mag", "4.6");
        check::<String>(QUAKE, "id", r#""ak1""#);
        check::<u8>(QUAKE, "at.1.d.0.0", "7");
        check::<String>(QUAKE, r"properties.service\.name", r#""x""#);
        check::<Option<u8>>(r#"{"a":null}"#, "a", "None");
        check::<u8>(r#"{"a":1,"\u0061":2}"#, "a", "2");
    }

    #[test]
    fn says_where_it_ended() {
        check::<f64>(QUAKE, "properties.magnitude", r#"properties.magnitude: absent: "properties" has no "magnitude""#);
        check::<f64>(QUAKE, "nowhere.mag", r#"nowhere.mag: absent: the payload has no "nowhere""#);
        check::<f64>(QUAKE, "id.mag", r#"id.mag: absent: "id" is text, not an object"#);
        check::<f64>(QUAKE, "at.mag", r#"at.mag: absent: "at" is an array, not an object"#);
        check::<f64>(QUAKE, "at.5", r#"at.5: absent: "at" has no "5""#);
        check::<f64>("7", "mag", "mag: absent: the payload is a number, not an object");
    }

    #[test]
    fn what_is_passed_over_is_utf_8_too() {
        let path = "mag".parse().expect("a path");
        let found = field::<f64>(b"{\"mag\":5,\"net\":\"\xff\"}", &path);
        assert!(matches!(found, Err(super::JsonError::NotJson(_))), "{found:?}");
    }

    #[test]
    fn says_what_does_not_fit() {
        #[derive(Debug, Deserialize)]
        struct Properties {
            #[serde(rename = "net")]
            _net: u8,
        }
        check::<u8>(QUAKE, "properties.net", r#"properties.net: invalid type: string "ak", expected u8"#);
        check::<Properties>(QUAKE, "properties", r#"properties.net: invalid type: string "ak", expected u8"#);
        let error = whole::<Vec<u8>>(br#"[1, "x"]"#).unwrap_err().to_string();
        assert_eq!(error, r#"[1]: invalid type: string "x", expected u8"#);
    }

    #[test]
    fn says_what_is_no_json() {
        check::<f64>("", "a", "the payload is no JSON: EOF while parsing a value at line 1 column 0");
        check::<f64>(r#"{"a":1"#, "a", "the payload is no JSON: EOF while parsing an object at line 1 column 6");
        check::<f64>(r#"{"a":1} x"#, "a", "the payload is no JSON: trailing characters at line 1 column 9");
        assert!(whole::<u8>(b"\xff").unwrap_err().to_string().starts_with("the payload is no JSON"));
    }

    #[test]
    fn checks_for_other_parsers() {
        let check = |json: &str| checked(json.as_bytes()).map(str::len).map_err(|error| error.to_string());
        let deep = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(check(r#" {"a":[1,{"b":"]]]}\"["}]} "#), Ok(27));
        assert_eq!(check(&deep(DEPTH_MAX)), Ok(2 * DEPTH_MAX));
        assert_eq!(check(&deep(100_000)), Err("the payload is nested 100000 levels deep, 127 at most".into()));
        assert_eq!(check("[1,"), Err("the payload is no JSON: EOF while parsing a value at line 1 column 3".into()));
        assert!(checked(b"[\"\xff\"]").is_err());
    }

    #[test]
    fn paths() {
        check::<u8>("{}", "", r#"invalid path "": empty name"#);
        check::<u8>("{}", "a..b", r#"invalid path "a..b": empty name"#);
        check::<u8>("{}", r"a\b", r#"invalid path "a\\b": a backslash stands before a dot or a backslash"#);
    }
}
