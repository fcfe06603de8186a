//! Stock plugin `redact-json`: takes fields out of a JSON payload, or puts a text in their place.
//!
//! It cuts them out of the text: every other byte of the payload stays as it was, so that the order of names, the
//! digits of numbers and blanks are kept.

use quipu_plugin::json::{Change, Fields};
use quipu_plugin::prelude::*;

/// The configuration of one use.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedactJson {
    fields: Vec<FieldPath>,
    replacement: Option<String>,
    /// The paths as a tree, made in `configure`.
    #[serde(skip)]
    tree: Fields,
}

impl Plugin for RedactJson {
    fn configure(config: &str) -> Result<Self> {
        let mut plugin: Self = quipu_plugin::parse_config(config)?;
        if plugin.fields.is_empty() {
            return Err("fields: names no field".into());
        }
        plugin.tree = plugin.fields.iter().collect();
        Ok(plugin)
    }

    fn process(&mut self, message: &mut Message) -> Result<Verdict> {
        let text = message.payload_text().ok_or("the payload is no JSON: it is not UTF-8")?;
        let redacted = self.tree.rewrite(text, &mut |_, _| match &self.replacement {
            Some(replacement) => Change::Replace(json!(replacement).to_string()),
            None => Change::Remove,
        });
        if let Some(redacted) = redacted.map_err(|error| format!("the payload is no JSON: {error}"))? {
            message.set_payload_text(&redacted);
        }
        Ok(forward())
    }
}
plugin!(RedactJson);

#[cfg(test)]
mod tests {
    use super::RedactJson;
    use quipu_plugin::prelude::*;
    use quipu_plugin::testing::{Harness, MockMessage, run};

    #[track_caller]
    fn redacted(config: Value, payload: &str, expected: &str) {
        let outcome = run::<RedactJson>(config, MockMessage::new("a").payload(payload));
        assert_eq!((outcome.verdict, outcome.message.payload.as_slice()), (forward(), expected.as_bytes()));
    }

    #[track_caller]
    fn removes(fields: &[&str], payload: &str, expected: &str) {
        redacted(json!({ "fields": fields }), payload, expected);
    }

    #[track_caller]
    fn refused(config: Value, expected: &str) {
        assert_eq!(Harness::<RedactJson>::new(config).err().as_deref(), Some(expected));
    }

    #[test]
    fn removes_fields() {
        removes(&["b"], r#"{"a":1,"b":2,"c":3}"#, r#"{"a":1,"c":3}"#);
        removes(&["a"], r#"{"a":1,"b":2}"#, r#"{"b":2}"#);
        removes(&["c"], r#"{"a":1, "c":3}"#, r#"{"a":1}"#);
        removes(&["a", "b"], r#"{"a":1,"b":2,"c":3}"#, r#"{"c":3}"#);
        removes(&["a", "c"], r#"{"a":1,"b":2,"c":3}"#, r#"{"b":2}"#);
        removes(&["b", "c"], r#"{"a":1,"b":2,"c":3}"#, r#"{"a":1}"#);
        removes(&["a", "b"], r#"{ "a":1, "b":2 }"#, "{  }");
        removes(&["b", "d"], r#"{"a":1 , "b" : 2 , "c":3,"d":4}"#, r#"{"a":1 , "c":3}"#);
        removes(&["a"], r#"{"a":1,"\u0061":2,"b":3}"#, r#"{"b":3}"#);
        removes(&["p.detail", "p.url"], r#"{"p":{"url":"u","mag":4,"detail":{"x":[1]}}}"#, r#"{"p":{"mag":4}}"#);
        removes(&["p", "p.url"], r#"{"p":{"url":"u"},"q":1}"#, r#"{"q":1}"#);
        removes(&[r"service\.name"], r#"{"service.name":"x","b":1}"#, r#"{"b":1}"#);
    }

    #[test]
    fn keeps_every_other_byte() {
        let kept = "{ \"z\": 1.10,\n  \"n\": 12345678901234567890123,\n  \"a\": \"\\u00e9\", \"d\": 1, \"d\": 2 }\n";
        removes(&["absent", "z.deeper"], kept, kept);
        removes(&["a"], kept, &kept.replace(",\n  \"a\": \"\\u00e9\"", ""));
        removes(&["a"], "[]", "[]");
        removes(&["a"], " 7 ", " 7 ");
    }

    #[test]
    fn goes_through_arrays() {
        removes(&["q.url"], r#"{"q":[{"url":1,"m":2},3,[{"url":4}],{"m":5}]}"#, r#"{"q":[{"m":2},3,[{}],{"m":5}]}"#);
        removes(&["url"], r#"[{"url":1},{"url":2,"m":3}]"#, r#"[{},{"m":3}]"#);
        removes(&["q.1"], r#"{"q":[1,2,3]}"#, r#"{"q":[1,3]}"#);
        removes(&["q.0", "q.1", "q.3"], r#"{"q":[1, 2, {"x":","}, 4]}"#, r#"{"q":[{"x":","}]}"#);
        removes(&["q.0", "q.1"], r#"{"q":[ 1, 2 ]}"#, r#"{"q":[  ]}"#);
        removes(&["q.0.url"], r#"{"q":[{"url":1},{"url":2}]}"#, r#"{"q":[{},{"url":2}]}"#);
    }

    #[test]
    fn replaces_fields() {
        let config = json!({ "fields": ["p.url", "q"], "replacement": "\"cut\"" });
        redacted(config, r#"{"p":[{"url":{"a":1}}],"q" : null}"#, r#"{"p":[{"url":"\"cut\""}],"q" : "\"cut\""}"#);
    }

    #[test]
    fn rejects_what_is_no_json() {
        let rejected = |payload: &[u8]| {
            let outcome = run::<RedactJson>(json!({ "fields": ["a.b"] }), MockMessage::new("a").payload(payload));
            let Verdict::Reject(reason) = outcome.verdict else { panic!("{:?}", outcome.verdict) };
            reason
        };
        assert_eq!(rejected(b"a=1"), "the payload is no JSON: expected value at line 1 column 1");
        assert_eq!(rejected(b"\"\xff\""), "the payload is no JSON: it is not UTF-8");
        assert_eq!(
            rejected(br#"{"a":{"b":1}"#),
            "the payload is no JSON: EOF while parsing an object at line 1 column 12"
        );
        assert_eq!(rejected(b"{} {}"), "the payload is no JSON: trailing characters at line 1 column 4");
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(rejected(deep.as_bytes()).contains("recursion limit exceeded"));
    }

    #[test]
    fn names_what_is_wrong_with_a_configuration() {
        refused(json!({}), "missing field `fields`");
        refused(json!({ "fields": [] }), "fields: names no field");
        refused(json!({ "fields": ["a", "b."] }), r#"fields[1]: invalid path "b.": empty name"#);
        refused(json!({ "fields": "a" }), r#"fields: invalid type: string "a", expected a sequence"#);
        refused(
            json!({ "fields": ["a"], "replace": "x" }),
            "replace: unknown field `replace`, expected `fields` or `replacement`",
        );
    }
}
