//! Stock plugin `split-json`: makes a message of each element of an array.
//!
//! Elements go out as they are written, unless something of the parent goes with them.

use quipu_plugin::json::{JsonError, scalar_text};
use quipu_plugin::prelude::*;
use quipu_plugin::serde_json::{self, value::RawValue};
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;

/// Most elements: the router takes no more new messages for one in hand.
const ELEMENTS_MAX: usize = 1_024;
/// The headers that each new message has, besides those of its parent.
const OWN_HEADERS: [&str; 3] = ["split-index", "split-total", "split-parent"];

/// The configuration of one use.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitJson {
    /// Where the array is; the whole payload unless said otherwise.
    field: Option<FieldPath>,
    to: Subject,
    /// Where in an element its key is.
    key: Option<FieldPath>,
    /// What each element gets of the parent: names in the element, and where in the parent.
    #[serde(default)]
    carry: BTreeMap<String, FieldPath>,
    #[serde(default)]
    parent: Parent,
    /// What becomes of a message without elements; it is dropped unless said otherwise.
    empty: Option<Otherwise>,
}

/// What becomes of the message that was split.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Parent {
    #[default]
    Drop,
    Forward,
}

impl Plugin for SplitJson {
    fn process(&mut self, message: &mut Message) -> Result<Verdict> {
        let Elements { kept, count } = match &self.field {
            Some(field) => message.json_field(field)?,
            None => message.json_as()?,
        };
        if count == 0 {
            return Ok(self.empty.unwrap_or(Otherwise::Drop).verdict("no elements"));
        }
        if count > ELEMENTS_MAX {
            return Ok(reject(format!("{}{count} elements, {ELEMENTS_MAX} at most", self.place())));
        }
        let carried = self.carried(message)?;
        let child = self.child(message, count);
        for (index, element) in kept.iter().enumerate() {
            let sent = self.fill(child.clone(), index, element, &carried).and_then(|child| Ok(message.emit(child)?));
            sent.map_err(|error| format!("{}element {index}: {error}", self.place()))?;
        }
        Ok(match self.parent {
            Parent::Drop => drop("split"),
            Parent::Forward => forward(),
        })
    }
}
plugin!(SplitJson);

impl SplitJson {
    /// Before what is said of the array.
    fn place(&self) -> String {
        self.field.as_ref().map_or_else(String::new, |field| format!("{field}: "))
    }

    /// What each element gets; what the parent has not, it has not either.
    fn carried(&self, message: &Message) -> Result<BTreeMap<String, Box<RawValue>>> {
        let mut carried = BTreeMap::new();
        for (name, path) in &self.carry {
            match message.json_field(path) {
                Ok(value) => _ = carried.insert(name.clone(), value),
                Err(JsonError::Absent { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(carried)
    }

    /// What all new messages have in common: the parent's headers, key, priority and end.
    fn child(&self, message: &Message, count: usize) -> Outgoing {
        let mut child = Outgoing::new(&self.to);
        child.key = message.key();
        child.headers = message.own_headers();
        child.headers.retain(|(name, _)| !OWN_HEADERS.iter().any(|own| own.eq_ignore_ascii_case(name)));
        child = child.header("split-total", count.to_string()).header("split-parent", message.id());
        child = child.priority(message.priority());
        match message.expires_ms() {
            Some(at) => child.expires_ms(at),
            None => child,
        }
    }

    fn fill(
        &self,
        mut child: Outgoing,
        index: usize,
        element: &RawValue,
        carried: &BTreeMap<String, Box<RawValue>>,
    ) -> Result<Outgoing> {
        if let Some(path) = &self.key {
            let element: Value = serde_json::from_str(element.get())?;
            if let Some(key) = path.get(&element).cloned().and_then(scalar_text) {
                child = child.key(key);
            }
        }
        child = child.header("split-index", index.to_string());
        if self.carry.is_empty() {
            return Ok(child.payload(element.get()));
        }
        let mut fields: BTreeMap<String, Box<RawValue>> =
            serde_json::from_str(element.get()).map_err(|_| "carry: the element is not an object")?;
        fields.extend(carried.iter().map(|(name, value)| (name.clone(), value.clone())));
        Ok(child.json(&fields)?)
    }
}

/// The elements of an array as they are written. One that is past the limit is counted and not kept, so that an array of
/// millions does not fill the memory before it is refused.
struct Elements {
    kept: Vec<Box<RawValue>>,
    count: usize,
}

impl<'de> Deserialize<'de> for Elements {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Array;

        impl<'de> Visitor<'de> for Array {
            type Value = Elements;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Elements, A::Error> {
                let mut kept = Vec::new();
                while kept.len() < ELEMENTS_MAX {
                    let Some(element) = array.next_element()? else { return Ok(Elements { count: kept.len(), kept }) };
                    kept.push(element);
                }
                let mut count = kept.len();
                while array.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Elements { kept, count })
            }
        }

        json.deserialize_seq(Array)
    }
}

#[cfg(test)]
mod tests {
    use super::SplitJson;
    use quipu_plugin::prelude::*;
    use quipu_plugin::testing::{Harness, MockMessage, Outcome, run, survives};

    fn order() -> MockMessage {
        MockMessage::new("orders")
            .id("o-1")
            .key("c-7")
            .header("region", "eu")
            .header("Split-Index", "9")
            .header("quipu-parent", "p")
            .json(json!({ "id": 17, "items": [{ "sku": "a", "n": 1.10 }, { "sku": "b" }, 7] }))
    }

    #[track_caller]
    fn split(config: Value) -> Outcome {
        let text = r#"{"id":17,"items":[{ "sku":"a", "n":1.10 }, {"sku":"b"},7]}"#;
        run::<SplitJson>(config, order().payload(text))
    }

    #[track_caller]
    fn rejects(config: Value, payload: &str, reason: &str) {
        let outcome = run::<SplitJson>(config, MockMessage::new("a").payload(payload));
        assert_eq!((outcome.verdict, outcome.emitted.len()), (reject(reason), 0));
    }

    #[track_caller]
    fn refused(config: Value, expected: &str) {
        assert_eq!(Harness::<SplitJson>::new(config).err().as_deref(), Some(expected));
    }

    #[test]
    fn makes_a_message_of_each_element() {
        let outcome = split(json!({ "field": "items", "to": "items" }));
        assert_eq!(outcome.verdict, drop("split"));
        let payloads: Vec<_> = outcome.emitted.iter().map(|child| str::from_utf8(&child.payload).unwrap()).collect();
        assert_eq!(payloads, [r#"{ "sku":"a", "n":1.10 }"#, r#"{"sku":"b"}"#, "7"]);
        let first = Outgoing::new("items")
            .key("c-7")
            .header("region", "eu")
            .header("split-total", "3")
            .header("split-parent", "o-1")
            .priority(0)
            .header("split-index", "0")
            .payload(payloads[0]);
        assert_eq!(outcome.emitted[0], first);
        assert_eq!(outcome.emitted[2].headers.last().unwrap(), &("split-index".into(), "2".into()));
    }

    #[test]
    fn takes_keys_from_elements_and_fields_from_the_parent() {
        let outcome = run::<SplitJson>(
            json!({ "field": "items", "to": "items", "key": "sku", "carry": { "order": "id", "none": "x" } }),
            MockMessage::new("a").key("k").payload(r#"{"id":1.50,"items":[{"sku":"a","order":0},{"n":1}]}"#),
        );
        let seen = |n: usize| (outcome.emitted[n].key.as_deref(), str::from_utf8(&outcome.emitted[n].payload));
        assert_eq!(seen(0), (Some(&b"a"[..]), Ok(r#"{"order":1.50,"sku":"a"}"#)));
        assert_eq!(seen(1), (Some(&b"k"[..]), Ok(r#"{"n":1,"order":1.50}"#)));
    }

    #[test]
    fn the_parent_may_go_on() {
        let outcome = split(json!({ "field": "items", "to": "items", "parent": "forward" }));
        assert_eq!((outcome.verdict, outcome.emitted.len()), (forward(), 3));
        let empty = |empty: &str| {
            run::<SplitJson>(json!({ "to": "items", "empty": empty }), MockMessage::new("a").payload("[]")).verdict
        };
        assert_eq!(
            [empty("drop"), empty("reject"), empty("forward")],
            [drop("no elements"), reject("no elements"), forward()]
        );
    }

    #[test]
    fn takes_as_many_as_the_router() {
        let array = |count: usize| format!("[{}]", vec!["1"; count].join(","));
        let outcome = run::<SplitJson>(json!({ "to": "a" }), MockMessage::new("a").payload(array(1_024)));
        assert_eq!((outcome.verdict, outcome.emitted.len()), (drop("split"), 1_024));
        rejects(json!({ "to": "a" }), &array(1_025), "1025 elements, 1024 at most");
        rejects(
            json!({ "field": "a", "to": "a" }),
            &format!("{{\"a\":{}}}", array(9_000)),
            "a: 9000 elements, 1024 at most",
        );
        let large = format!("[{}]", vec![format!("\"{}\"", "x".repeat(1 << 20)); 5].join(","));
        rejects(json!({ "to": "a" }), &large, "element 3: past the limit of emitted messages");
    }

    #[test]
    fn rejects_what_cannot_be_split() {
        let config = json!({ "field": "items", "to": "a" });
        rejects(config.clone(), "{}", r#"items: absent: the payload has no "items""#);
        rejects(config.clone(), r#"{"items":{}}"#, "items: invalid type: map, expected an array");
        rejects(config, "[", "the payload is no JSON: EOF while parsing a list at line 1 column 1");
        rejects(json!({ "to": "a" }), "7", "invalid type: integer `7`, expected an array");
        rejects(json!({ "to": "a", "carry": { "x": "y" } }), "[7]", "element 0: carry: the element is not an object");
        let long = format!(r#"[{{"k":"{}"}}]"#, "k".repeat(513));
        rejects(json!({ "to": "a", "key": "k" }), &long, "element 0: the emitted message is invalid");
    }

    #[test]
    fn survives_what_comes() {
        survives::<SplitJson>(json!({ "to": "a" }));
        survives::<SplitJson>(
            json!({ "field": "a", "to": "a", "key": "b.0", "carry": { "": "a" }, "parent": "forward" }),
        );
    }

    #[test]
    fn names_what_is_wrong_with_a_configuration() {
        refused(json!({}), "missing field `to`");
        refused(json!({ "to": "a.*" }), r#"to: invalid subject "a.*": '*' is no letter, digit, `-`, `_` or `.`"#);
        refused(json!({ "to": "a", "carry": { "x": "y." } }), r#"carry.x: invalid path "y.": empty name"#);
        refused(json!({ "to": "a", "parent": "keep" }), "parent: unknown variant `keep`, expected `drop` or `forward`");
        refused(
            json!({ "to": "a", "subject": "b" }),
            "subject: unknown field `subject`, expected one of `field`, `to`, `key`, `carry`, `parent`, `empty`",
        );
    }
}
