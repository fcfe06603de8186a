//! Parts of messages as people write them: payloads as JSON, text or base64, headers with one value or several.

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use quipu_protocol::Key;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

/// The values of a header: one, or several in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Values(pub(crate) Vec<String>);

/// Key and payload, each in one of the forms that it may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Content<'a> {
    pub(crate) key: Option<&'a str>,
    pub(crate) key_base64: Option<&'a str>,
    pub(crate) payload: Option<&'a Value>,
    pub(crate) payload_text: Option<&'a str>,
    pub(crate) payload_base64: Option<&'a str>,
}

impl Content<'_> {
    /// The payload; none where none is said.
    ///
    /// # Errors
    ///
    /// It is said in more than one form, or is not base64.
    pub(crate) fn payload(self) -> Result<Option<Vec<u8>>> {
        Ok(match (self.payload, self.payload_text, self.payload_base64) {
            (None, None, None) => None,
            (Some(json), None, None) => Some(json.to_string().into_bytes()),
            (None, Some(text), None) => Some(text.as_bytes().to_vec()),
            (None, None, Some(text)) => Some(STANDARD.decode(text).context("payload_base64")?),
            _ => bail!("say one of `payload`, `payload_text` and `payload_base64`"),
        })
    }

    /// The key; none where none is said, or an empty one.
    ///
    /// # Errors
    ///
    /// It is said in more than one form, or cannot be.
    pub(crate) fn key(self) -> Result<Option<Key>> {
        let key = match (self.key, self.key_base64) {
            (None, None) => return Ok(None),
            (Some(text), None) => text.as_bytes().to_vec(),
            (None, Some(text)) => STANDARD.decode(text).context("key_base64")?,
            _ => bail!("say one of `key` and `key_base64`"),
        };
        let key = (!key.is_empty()).then(|| Key::new(Bytes::from(key)));
        key.transpose().context("key")
    }
}

impl Values {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl Serialize for Values {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => serializer.serialize_str(one),
            several => several.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValuesVisitor)
    }
}

struct ValuesVisitor;

impl<'de> Visitor<'de> for ValuesVisitor {
    type Value = Values;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a text, or a list of texts")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Values, E> {
        Ok(Values(vec![text.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Values, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Values(values))
    }
}

/// How TOML hands a date to what knows no dates.
const TOML_DATE: &str = "$__toml_private_datetime";

/// Any value, of JSON or TOML; a date of TOML is its text.
pub(crate) fn some_json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    // A null that is written is a value: it is what was expected.
    Value::deserialize(deserializer).map(|value| Some(json_value(value)))
}

pub(crate) fn json_value(value: Value) -> Value {
    match value {
        Value::Object(fields) if fields.len() == 1 && fields.contains_key(TOML_DATE) => {
            fields.into_iter().next().map_or(Value::Null, |(_, text)| text)
        }
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(name, value)| (name, json_value(value))).collect::<Map<_, _>>())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(json_value).collect()),
        other => other,
    }
}

/// Bytes as JSON, text or base64, in that order: the name of the form, after this one, and the value.
pub(crate) fn readable(name: &str, bytes: &[u8]) -> (String, Value) {
    match (name, std::str::from_utf8(bytes)) {
        ("payload", Ok(text)) => match serde_json::from_str::<Value>(text) {
            Ok(json) => ("payload".into(), json),
            Err(_) => ("payload_text".into(), text.into()),
        },
        (_, Ok(text)) => (name.into(), text.into()),
        (_, Err(_)) => (format!("{name}_base64"), STANDARD.encode(bytes).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bytes_are_shown_in_the_form_that_suits() {
        assert_eq!(readable("payload", b"{\"a\":1}"), ("payload".into(), json!({ "a": 1 })));
        assert_eq!(readable("payload", b"hello"), ("payload_text".into(), json!("hello")));
        assert_eq!(readable("payload", b"\xff"), ("payload_base64".into(), json!("/w==")));
        assert_eq!(readable("key", b"12"), ("key".into(), json!("12")));
    }

    #[test]
    fn a_date_of_toml_is_its_text() {
        #[derive(Deserialize)]
        struct Holds {
            #[serde(deserialize_with = "some_json")]
            x: Option<Value>,
        }
        let holds: Holds = toml::from_str("x = { at = 2026-11-29T12:00:00Z, n = [1] }").expect("TOML");
        assert_eq!(holds.x, Some(json!({ "at": "2026-11-29T12:00:00Z", "n": [1] })));
    }

    #[test]
    fn headers_have_one_value_or_several() {
        let values = |json: Value| serde_json::from_value::<Values>(json);
        assert_eq!(values(json!("a")).expect("one").0, ["a"]);
        assert_eq!(values(json!(["a", "b"])).expect("two").0, ["a", "b"]);
        assert!(values(json!(3)).expect_err("refused").to_string().contains("a text, or a list of texts"));
    }
}
