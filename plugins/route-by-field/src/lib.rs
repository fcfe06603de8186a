//! Stock plugin `route-by-field`: sends messages to subjects by the value of one field of their JSON payload.

use quipu_plugin::json::{JsonError, scalar_text};
use quipu_plugin::prelude::*;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;

/// Most subjects of one value: the router takes no more from one verdict.
const SUBJECTS_MAX: usize = 64;

/// The configuration of one use.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteByField {
    field: FieldPath,
    table: BTreeMap<String, Subjects>,
    otherwise: Option<Subjects>,
}

impl Plugin for RouteByField {
    fn check(&self) -> Result<(), String> {
        if self.table.is_empty() { Err("table: names no value".into()) } else { Ok(()) }
    }

    fn process(&mut self, message: &mut Message) -> Result<Verdict> {
        let value = match message.json_field::<Value>(&self.field) {
            Ok(value) => scalar_text(value),
            Err(JsonError::Absent { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let subjects = value.and_then(|value| self.table.get(&value)).or(self.otherwise.as_ref());
        Ok(subjects.map_or_else(forward, |subjects| route(&subjects.0)))
    }
}
plugin!(RouteByField);

/// One subject or several.
#[derive(Debug)]
struct Subjects(Vec<Subject>);

/// By hand, since an untagged enum would say nothing but that no variant fits.
impl<'de> Deserialize<'de> for Subjects {
    fn deserialize<D: Deserializer<'de>>(config: D) -> Result<Self, D::Error> {
        config.deserialize_any(OneOrMore)
    }
}

struct OneOrMore;

impl<'de> Visitor<'de> for OneOrMore {
    type Value = Subjects;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a subject or a list of them")
    }

    fn visit_str<E: serde::de::Error>(self, subject: &str) -> Result<Subjects, E> {
        Ok(Subjects(vec![subject.parse().map_err(E::custom)?]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Subjects, A::Error> {
        let mut subjects = Vec::new();
        while let Some(subject) = list.next_element()? {
            subjects.push(subject);
        }
        match subjects.len() {
            1..=SUBJECTS_MAX => Ok(Subjects(subjects)),
            count => Err(A::Error::custom(format!("{count} subjects, expected 1 to {SUBJECTS_MAX}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RouteByField;
    use quipu_plugin::prelude::*;
    use quipu_plugin::testing::{Harness, MockMessage, run};

    /// By the field `p.net`; a payload, and the verdict with and without an `otherwise`.
    #[track_caller]
    fn check(payload: &str, with: Verdict, without: Verdict) {
        let mut config = json!({
            "field": "p.net",
            "table": { "ak": "region.ak", "us": ["region.us", "audit"], "7": "seven", "true": "yes" },
            "otherwise": "region.other",
        });
        let message = MockMessage::new("quakes.raw").payload(payload);
        assert_eq!(run::<RouteByField>(&config, message.clone()).verdict, with);
        config.as_object_mut().unwrap().remove("otherwise");
        assert_eq!(run::<RouteByField>(&config, message).verdict, without);
    }

    #[track_caller]
    fn refused(config: Value, expected: &str) {
        assert_eq!(Harness::<RouteByField>::new(config).err().as_deref(), Some(expected));
    }

    #[test]
    fn routes_by_the_table() {
        check(r#"{"p":{"net":"ak"}}"#, route(["region.ak"]), route(["region.ak"]));
        check(r#"{"p":{"net":"us"}}"#, route(["region.us", "audit"]), route(["region.us", "audit"]));
        check(r#"{"p":{"net":7}}"#, route(["seven"]), route(["seven"]));
        check(r#"{"p":{"net":true}}"#, route(["yes"]), route(["yes"]));
    }

    #[test]
    fn routes_the_rest_otherwise() {
        for payload in [r#"{"p":{"net":"xx"}}"#, r#"{"p":{}}"#, r#"{"p":{"net":null}}"#, r#"{"p":{"net":["ak"]}}"#, "1"]
        {
            check(payload, route(["region.other"]), forward());
        }
    }

    #[test]
    fn rejects_what_is_no_json() {
        let no_json = || reject("the payload is no JSON: expected ident at line 1 column 2");
        check("net=ak", no_json(), no_json());
    }

    #[test]
    fn names_what_is_wrong_with_a_configuration() {
        let with = |table: Value| json!({ "field": "net", "table": table });
        refused(with(json!({ "ak": "a..b" })), r#"table.ak: invalid subject "a..b": empty token"#);
        refused(
            with(json!({ "ak": ["a", "b c"] })),
            r#"table.ak[1]: invalid subject "b c": ' ' is no letter, digit, `-`, `_` or `.`"#,
        );
        refused(with(json!({ "ak": [] })), "table.ak: 0 subjects, expected 1 to 64");
        refused(with(json!({ "ak": 7 })), "table.ak: invalid type: integer `7`, expected a subject or a list of them");
        refused(with(json!({})), "table: names no value");
        refused(json!({ "field": "net" }), "missing field `table`");
        refused(
            json!({ "field": "net", "table": { "ak": "a" }, "otherwise": "$sys" }),
            r#"otherwise: invalid subject "$sys": '$' is no letter, digit, `-`, `_` or `.`"#,
        );
        refused(
            json!({ "field": "net", "table": { "ak": "a" }, "else": "b" }),
            "else: unknown field `else`, expected one of `field`, `table`, `otherwise`",
        );
    }
}
