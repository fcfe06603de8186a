//! Texts and what becomes of them, and what is refused.

use super::ParseText;
use quipu_plugin::prelude::*;
use quipu_plugin::testing::{Harness, MockMessage, run, survives};

#[track_caller]
fn parses(config: Value, text: &str, expected: Value) {
    let outcome = run::<ParseText>(config, MockMessage::new("a").payload(text));
    assert_eq!(outcome.verdict, forward());
    assert_eq!(outcome.json(), expected);
}

#[track_caller]
fn rejects(config: Value, text: &str, reason: &str) {
    let outcome = run::<ParseText>(config, MockMessage::new("a").payload(text));
    assert_eq!((outcome.verdict.clone(), outcome.payload_text().as_str()), (reject(reason), text));
}

#[track_caller]
fn refused(config: Value, expected: &str) {
    assert_eq!(Harness::<ParseText>::new(config).err().as_deref(), Some(expected));
}

#[test]
fn reads_by_patterns() {
    let config = json!({
        "patterns": [r"^(?<ip>\S+) \S+ \[(?<at>[^]]*)\] (?<status>\d+)(?: (?<bytes>\d+))?$", "^(?P<rest>never)"],
        "types": { "status": "integer", "bytes": "integer" },
    });
    parses(
        config.clone(),
        "10.0.0.1 - [29/Nov] 200 512",
        json!({ "ip": "10.0.0.1", "at": "29/Nov", "status": 200, "bytes": 512 }),
    );
    parses(config.clone(), "::1 - [] 404", json!({ "ip": "::1", "at": "", "status": 404 }));
    parses(config.clone(), "never mind", json!({ "rest": "never" }));
    rejects(config, "mine", "no pattern matches");
    rejects(json!({ "patterns": ["(?<n>.*)"], "types": { "n": "number" } }), "x", "n: text that is not a number");
}

#[test]
fn reads_keys_and_values() {
    let blanks = json!({ "key_values": {}, "types": { "n": "integer" } });
    parses(
        blanks.clone(),
        "level=info  msg=\"two \\\"words\\\"\" n=7\tempty= url=a=b last=\"\"\n",
        json!({ "level": "info", "msg": "two \"words\"", "n": 7, "empty": "", "url": "a=b", "last": "" }),
    );
    parses(
        json!({ "key_values": { "pairs": ";", "between": ":" } }),
        " a: x y ; b:\"1;2\" ;; c : 3;",
        json!({ "a": "x y", "b": "1;2", "c": "3" }),
    );
    rejects(blanks.clone(), "", "no pairs");
    rejects(blanks.clone(), "a=1 word", r#"pair 2 is no key, "=" and value"#);
    rejects(blanks.clone(), "=1", r#"pair 1 is no key, "=" and value"#);
    rejects(blanks.clone(), "a=\"x", "pair 1 has no closing quote");
    rejects(blanks, "a=\"x\"y", "pair 1 goes on behind its closing quote");
}

#[test]
fn reads_cells() {
    let config = json!({ "delimited": { "columns": ["a", "b"] }, "types": { "b": "number" } });
    parses(config.clone(), "\"x, \"\"y\"\"\",2.5\r\n", json!({ "a": "x, \"y\"", "b": 2.5 }));
    parses(json!({ "delimited": { "separator": "\t", "columns": ["a", "b"] } }), "1\t", json!({ "a": "1", "b": "" }));
    rejects(config.clone(), "1,2,3", "3 cells for 2 columns");
    rejects(config.clone(), "1,2\n3,4", "more than one line");
    rejects(config, "", "no cells");
}

#[test]
fn reads_lines() {
    let config =
        |no_match: &str| json!({ "delimited": { "columns": ["a", "b"] }, "lines": true, "no_match": no_match });
    let text = "1,2\r\n\n3\n4,5\n";
    parses(config("forward"), text, json!([{ "a": "1", "b": "2" }, "3", { "a": "4", "b": "5" }]));
    parses(config("drop"), text, json!([{ "a": "1", "b": "2" }, { "a": "4", "b": "5" }]));
    rejects(config("reject"), text, "line 3: 1 cells for 2 columns");
    let none = run::<ParseText>(config("drop"), MockMessage::new("a").payload("x\ny\n"));
    assert_eq!(none.verdict, drop("no match"));
}

#[test]
fn reads_a_field() {
    let payload = r#"{"n":1,"log":"a=1"}"#;
    parses(json!({ "key_values": {}, "field": "log" }), payload, json!({ "n": 1, "log": { "a": "1" } }));
    parses(
        json!({ "key_values": {}, "field": "log", "into": "parsed.log" }),
        payload,
        json!({ "n": 1, "log": "a=1", "parsed": { "log": { "a": "1" } } }),
    );
    let config = json!({ "key_values": {}, "field": "log" });
    rejects(config.clone(), r#"{"log":7}"#, "log: invalid type: integer `7`, expected a string");
    rejects(config, "{}", r#"log: absent: the payload has no "log""#);
}

#[test]
fn what_does_not_match_is_the_configurations_to_say() {
    let verdict = |no_match: &str, payload: &[u8]| {
        let config = json!({ "patterns": ["^(?<a>x)$"], "no_match": no_match });
        run::<ParseText>(config, MockMessage::new("a").payload(payload)).verdict
    };
    assert_eq!(verdict("forward", b"y"), forward());
    assert_eq!(verdict("drop", b"y"), drop("no match"));
    assert_eq!(verdict("drop", b"\xff"), reject("the payload is not UTF-8"));
}

#[test]
fn survives_what_comes() {
    for lines in [true, false] {
        let config = |form: &str, value: Value| json!({ form: value, "lines": lines, "no_match": "drop" });
        survives::<ParseText>(config("patterns", json!(["(?<a>[^=]*)=(?<b>.*)"])));
        survives::<ParseText>(config("key_values", json!({})));
        survives::<ParseText>(config("key_values", json!({ "pairs": ",", "between": "==" })));
        survives::<ParseText>(config("delimited", json!({ "columns": ["a", "b", "c"] })));
        survives::<ParseText>(json!({ "key_values": {}, "field": "a", "into": "b.c", "lines": lines }));
    }
}

#[test]
fn names_what_is_wrong_with_a_configuration() {
    let one = "one of patterns, key_values, delimited is required, and no two of them";
    refused(json!({}), one);
    refused(json!({ "patterns": ["(?<a>x)"], "key_values": {} }), one);
    refused(json!({ "patterns": [] }), "patterns: names no pattern");
    refused(json!({ "patterns": ["(x)"] }), r#"patterns[0]: the pattern "(x)" has no named group, (?<name>…)"#);
    let error = Harness::<ParseText>::new(json!({ "patterns": ["(?<a>x)", "("] })).err().unwrap();
    assert!(error.starts_with(r#"patterns[1]: invalid pattern "(": "#), "{error}");
    refused(json!({ "key_values": { "pairs": "" } }), "key_values.pairs: an empty text separates nothing");
    refused(json!({ "delimited": { "columns": [] } }), "delimited.columns: names no column");
    refused(json!({ "delimited": { "columns": ["a", "a"] } }), r#"delimited.columns[1]: "a" is there twice"#);
    refused(
        json!({ "delimited": { "columns": ["a"], "separator": "é" } }),
        "delimited.separator: 'é' is no ASCII character, or ends a cell by itself",
    );
    refused(
        json!({ "delimited": { "columns": ["a"], "separator": "::" } }),
        r#"delimited.separator: invalid value: string "::", expected a character"#,
    );
    refused(
        json!({ "patterns": ["(?<a>x)"], "types": { "b": "text" } }),
        "types.b: no pattern has a group of this name",
    );
    refused(
        json!({ "delimited": { "columns": ["a"] }, "types": { "b": "text" } }),
        "types.b: there is no column of this name",
    );
    refused(json!({ "key_values": {}, "into": "a" }), "into: goes with field");
}
