use crate::ValidateSchema;
use quipu_plugin::prelude::*;
use quipu_plugin::testing::{Harness, MockMessage, Outcome, run, survives};

fn quake() -> Value {
    json!({
        "type": "object",
        "required": ["id", "mag"],
        "additionalProperties": false,
        "properties": {
            "id": { "type": "string", "pattern": "^[a-z]{2}[0-9]+$" },
            "mag": { "type": "number", "minimum": -1, "maximum": 10 },
            "at": { "type": "string", "format": "date-time" },
            "kind": { "enum": ["earthquake", "quarry blast"] },
            "a.b": { "type": ["integer", "null"] },
            "reports": { "type": "array", "maxItems": 2, "items": { "$ref": "#/$defs/report" } },
        },
        "$defs": { "report": { "type": "object", "required": ["by"], "properties": { "by": { "minLength": 1 } } } },
    })
}

fn validate(config: Value, payload: &str) -> Outcome {
    run::<ValidateSchema>(config, MockMessage::new("a").payload(payload))
}

#[track_caller]
fn rejected(schema: Value, payload: &str, expected: &str) {
    assert_eq!(validate(json!({ "schema": schema }), payload).verdict, reject(expected));
}

#[track_caller]
fn fits(schema: Value, payload: &str) {
    let outcome = validate(json!({ "schema": schema }), payload);
    assert_eq!((outcome.verdict.clone(), outcome.payload_text().as_str()), (forward(), payload));
}

#[track_caller]
fn refused(config: Value, expected: &str) {
    assert_eq!(Harness::<ValidateSchema>::new(config).err().as_deref(), Some(expected));
}

#[test]
fn lets_through_what_fits_as_it_is() {
    fits(quake(), r#"{ "mag": 4.60, "id": "ak1" }"#);
    fits(
        quake(),
        r#"{"id":"ak1","mag":1,"at":"2026-05-01T12:00:00Z","kind":"earthquake","a.b":null,"reports":[{"by":"x"}]}"#,
    );
    fits(json!(true), "[1]");
    fits(json!(r#"{"type":"integer"}"#), "2.0");
}

#[test]
fn says_where_and_what() {
    rejected(quake(), r#"{"id":"ak1"}"#, r#"the payload: "mag" is a required property"#);
    rejected(quake(), r#"{"id":"ak1","mag":"4.6"}"#, r#"mag: "4.6" is not of type "number""#);
    rejected(quake(), r#"{"id":"ak1","mag":11}"#, "mag: 11 is greater than the maximum of 10");
    rejected(quake(), r#"{"id":"x","mag":1}"#, r#"id: "x" does not match "^[a-z]{2}[0-9]+$""#);
    rejected(quake(), r#"{"id":"ak1","mag":1,"at":"yesterday"}"#, r#"at: "yesterday" is not a "date-time""#);
    rejected(
        quake(),
        r#"{"id":"ak1","mag":1,"kind":"ice"}"#,
        r#"kind: "ice" is not one of "earthquake" or "quarry blast""#,
    );
    rejected(
        quake(),
        r#"{"id":"ak1","mag":1,"b":2}"#,
        "the payload: Additional properties are not allowed ('b' was unexpected)",
    );
    rejected(
        quake(),
        r#"{"id":"ak1","mag":1,"reports":[{"by":"x"},{"by":""}]}"#,
        r#"reports.1.by: "" is shorter than 1 character"#,
    );
    rejected(quake(), r#"{"id":"ak1","mag":1,"a.b":1.5}"#, r#"a\.b: 1.5 is not of types "null", "integer""#);
    rejected(json!(false), "1", "the payload: False schema does not allow 1");
}

#[test]
fn shows_no_long_values() {
    let long = format!("\"{}\"", "x".repeat(100));
    rejected(json!({ "type": "number" }), &long, "the payload: text is not of type \"number\"");
    rejected(json!({ "type": "number" }), "[1,2]", "the payload: an array is not of type \"number\"");
}

#[test]
fn looks_at_one_field() {
    let config = |otherwise| json!({ "schema": { "maximum": 3 }, "field": "p.n", "otherwise": otherwise });
    assert_eq!(validate(config("reject"), r#"{"p":{"n":3}}"#).verdict, forward());
    assert_eq!(
        validate(config("reject"), r#"{"p":{"n":4}}"#).verdict,
        reject("p.n: 4 is greater than the maximum of 3")
    );
    assert_eq!(
        validate(config("reject"), r#"{"p":1}"#).verdict,
        reject("p.n: absent: \"p\" is a number, not an object")
    );
    assert_eq!(validate(config("drop"), "{}").verdict, drop("does not fit the schema"));
    assert!(matches!(validate(config("drop"), "{").verdict, Verdict::Reject(_)));
}

#[test]
fn marks_what_goes_on_all_the_same() {
    let config = json!({ "schema": { "type": "number" }, "otherwise": "forward", "header": "problem" });
    let mark = |payload: &str| {
        run::<ValidateSchema>(&config, MockMessage::new("a").header("Problem", "none, trust me").payload(payload))
    };
    let outcome = mark("1");
    assert_eq!((outcome.verdict.clone(), outcome.header("problem")), (forward(), None));
    let outcome = mark(r#""a\u0007""#);
    assert_eq!(outcome.verdict, forward());
    assert_eq!(outcome.header("problem"), Some(r#"the payload: "a\u0007" is not of type "number""#));
}

#[test]
fn drops_by_one_reason() {
    let config = json!({ "schema": { "type": "number" }, "otherwise": "drop" });
    for payload in ["[]", "\"a\"", "null"] {
        assert_eq!(validate(config.clone(), payload).verdict, drop("does not fit the schema"));
    }
}

#[test]
fn knows_the_drafts() {
    let items = |draft: &str| json!({ "$schema": draft, "items": [{ "type": "number" }], "additionalItems": false });
    rejected(
        items("http://json-schema.org/draft-07/schema#"),
        "[1,2]",
        "the payload: Additional items are not allowed (1 items)",
    );
    fits(json!({ "prefixItems": [{ "type": "number" }] }), "[1,2]");
    refused(
        json!({ "schema": items("https://json-schema.org/draft/2020-12/schema") }),
        r#"schema.items: an array is not of types "boolean", "object""#,
    );
}

#[test]
fn formats_can_be_left_to_people() {
    let schema = json!({ "format": "ipv4" });
    rejected(schema.clone(), "\"256.1.1.1\"", r#"the payload: "256.1.1.1" is not a "ipv4""#);
    assert_eq!(validate(json!({ "schema": schema, "formats": false }), "\"256.1.1.1\"").verdict, forward());
    fits(json!({ "format": "telephone" }), "\"x\"");
}

#[test]
fn refers_to_other_schemas_of_the_configuration_alone() {
    let config = json!({
        "schema": { "properties": { "price": { "$ref": "money.json" }, "tax": { "$ref": "https://e.com/tax#/$defs/rate" } } },
        "schemas": {
            "money.json": { "type": "number", "minimum": 0 },
            "https://e.com/tax": r#"{"$defs":{"rate":{"maximum":1}}}"#,
        },
    });
    assert_eq!(validate(config.clone(), r#"{"price":1,"tax":1}"#).verdict, forward());
    assert_eq!(validate(config.clone(), r#"{"price":-1}"#).verdict, reject("price: -1 is less than the minimum of 0"));
    assert_eq!(validate(config, r#"{"tax":2}"#).verdict, reject("tax: 2 is greater than the maximum of 1"));
    refused(
        json!({ "schema": { "$ref": "https://e.com/other" } }),
        "schema: Resource 'https://e.com/other' is not present in a registry and retrieving it failed: \
         `schemas` has none of this name",
    );
    refused(json!({ "schema": { "$ref": "#/$defs/a" } }), "schema: Pointer '/$defs/a' does not exist");
}

#[test]
fn a_pattern_cannot_run_for_ever() {
    let slow = json!({ "pattern": "^(?=(a+)+$)(a|aa)+$" });
    let text = format!("\"{}b\"", "a".repeat(5_000));
    let Verdict::Reject(reason) = validate(json!({ "schema": slow }), &text).verdict else { panic!() };
    assert!(reason.starts_with("the payload: "), "{reason}");
    refused(json!({ "schema": { "pattern": "(" } }), "schema.pattern: \"(\" is not a \"regex\"");
    let inside = json!({ "properties": { "a": { "pattern": "(" } } });
    refused(json!({ "schema": inside }), "schema.properties.a.pattern: \"(\" is not a \"regex\"");
    let large = json!({ "properties": { "a": { "pattern": "((a{1000}){1000}){100}" } } });
    assert!(Harness::<ValidateSchema>::new(json!({ "schema": large })).is_err());
}

#[test]
fn survives_hostile_payloads() {
    survives::<ValidateSchema>(json!({ "schema": quake() }));
    let tree = json!({ "anyOf": [
        { "type": "array", "uniqueItems": true, "items": { "$ref": "#" } },
        { "type": "object", "additionalProperties": { "$ref": "#" } },
        { "type": "string", "format": "email" },
        { "type": "number", "multipleOf": 0.01 },
    ] });
    survives::<ValidateSchema>(json!({ "schema": tree }));
    survives::<ValidateSchema>(json!({ "schema": {}, "otherwise": "forward", "field": "a" }));
    assert_eq!(
        validate(json!({ "schema": true }), "[1").verdict,
        reject("the payload is no JSON: EOF while parsing a list at line 1 column 2")
    );
}

#[test]
fn names_what_is_wrong_with_a_configuration() {
    refused(json!({}), "missing field `schema`");
    refused(json!({ "schema": 1 }), "schema: a number, expected a schema: an object or a boolean");
    refused(json!({ "schema": "{" }), "schema: no JSON: EOF while parsing an object at line 1 column 1");
    refused(
        json!({ "schema": { "properties": { "mag": { "minimum": "1" } } } }),
        r#"schema.properties.mag.minimum: "1" is not of type "number""#,
    );
    refused(
        json!({ "schema": {}, "schemas": { "a.json": { "minLength": -1 } } }),
        "schemas.a.json.minLength: -1 is less than the minimum of 0",
    );
    refused(json!({ "schema": {}, "header": "x" }), "header: goes with otherwise = \"forward\" alone");
    refused(
        json!({ "schema": {}, "otherwise": "forward", "header": "quipu-id" }),
        "header: header \"quipu-id\" is the router's own",
    );
}
