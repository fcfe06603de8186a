//! JSON to values of the language, without a tree between, by the same parser that other plugins have.

use boa_engine::object::builtins::JsArray;
use boa_engine::property::PropertyKey;
use boa_engine::{Context, JsError, JsNativeError, JsObject, JsString, JsValue};
use quipu_plugin::serde_json::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// What `JSON.parse` gives. It goes 127 levels deep, and names keep their order.
pub(crate) fn parse(text: &str, context: &mut Context) -> Result<JsValue, JsError> {
    let mut json = Deserializer::from_str(text);
    let value = Build(context).deserialize(&mut json).and_then(|value| json.end().map(|()| value));
    value.map_err(|error| JsNativeError::syntax().with_message(error.to_string()).into())
}

struct Build<'c>(&'c mut Context);

impl<'de> DeserializeSeed<'de> for Build<'_> {
    type Value = JsValue;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<JsValue, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Build<'_> {
    type Value = JsValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<JsValue, E> {
        Ok(JsValue::null())
    }

    fn visit_bool<E: Error>(self, boolean: bool) -> Result<JsValue, E> {
        Ok(boolean.into())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<JsValue, E> {
        Ok(i32::try_from(number).map_or_else(|_| JsValue::from(number as f64), JsValue::from))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<JsValue, E> {
        Ok(i32::try_from(number).map_or_else(|_| JsValue::from(number as f64), JsValue::from))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<JsValue, E> {
        Ok(number.into())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<JsValue, E> {
        Ok(JsString::from(text).into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut json: A) -> Result<JsValue, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = json.next_element_seed(Build(self.0))? {
            elements.push(element);
        }
        Ok(JsArray::from_iter(elements, self.0).into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut json: A) -> Result<JsValue, A::Error> {
        let object = JsObject::with_object_proto(self.0.intrinsics());
        while let Some(name) = json.next_key::<String>()? {
            let value = json.next_value_seed(Build(self.0))?;
            // Its own property, `__proto__` too.
            object
                .create_data_property_or_throw(PropertyKey::from(JsString::from(name)), value, self.0)
                .map_err(A::Error::custom)?;
        }
        Ok(object.into())
    }
}
