//! Operations on payloads, and what is refused.

use super::MapJson;
use quipu_plugin::prelude::*;
use quipu_plugin::testing::{Harness, MockMessage, hostile_payloads, run, survives};

#[track_caller]
fn maps(operations: Value, before: Value, after: Value) {
    let config = json!({ "operations": operations, "missing": "reject" });
    let outcome = run::<MapJson>(config, MockMessage::new("a.b").json(before));
    assert_eq!((outcome.verdict.clone(), outcome.json()), (forward(), after));
}

#[track_caller]
fn rejects(operations: Value, payload: Value, reason: &str) {
    let config = json!({ "operations": operations, "missing": "reject" });
    let outcome = run::<MapJson>(config, MockMessage::new("a.b").json(&payload));
    assert_eq!((outcome.verdict.clone(), outcome.json()), (reject(reason), payload));
}

#[track_caller]
fn refused(config: Value, expected: &str) {
    assert_eq!(Harness::<MapJson>::new(config).err().as_deref(), Some(expected));
}

#[test]
fn renames_and_copies() {
    maps(
        json!([{ "rename": { "from": "a.b", "to": "c.d" } }]),
        json!({ "a": { "b": 1, "x": 2 } }),
        json!({ "a": { "x": 2 }, "c": { "d": 1 } }),
    );
    maps(json!([{ "rename": { "from": "a", "to": "a.b" } }]), json!({ "a": 1 }), json!({ "a": { "b": 1 } }));
    maps(json!([{ "rename": { "from": "a", "to": "b" } }]), json!({ "a": 1, "b": 2 }), json!({ "b": 1 }));
    maps(
        json!([{ "rename": { "from": "l.0", "to": "first" } }]),
        json!({ "l": [1, 2] }),
        json!({ "l": [2], "first": 1 }),
    );
    maps(json!([{ "copy": { "from": "a", "to": "b" } }]), json!({ "a": [1] }), json!({ "a": [1], "b": [1] }));
    rejects(
        json!([{ "rename": { "from": "a", "to": "b.c" } }]),
        json!({ "a": 1, "b": "x" }),
        r#"operations[0].rename: b.c: cannot be set: "b" is text, not an object"#,
    );
}

#[test]
fn inserts_values_and_texts() {
    maps(
        json!([{ "insert": { "field": "a.b", "value": { "c": [1] } } }]),
        json!({ "a": null }),
        json!({ "a": { "b": { "c": [1] } } }),
    );
    maps(
        json!([{ "delete": ["x"] }, { "insert": { "field": "id", "text": "{subject.2}-{field.x}" } }]),
        json!({ "x": 7 }),
        json!({ "id": "b-7" }),
    );
    let insert = json!([{ "insert": { "field": "a", "value": 9, "only_if_absent": true } }]);
    maps(insert.clone(), json!({ "a": 1 }), json!({ "a": 1 }));
    maps(insert, json!({}), json!({ "a": 9 }));
    rejects(
        json!([{ "insert": { "field": "a", "text": "{field.b}" } }]),
        json!({}),
        "operations[0].insert: the message has no field b",
    );
}

#[test]
fn deletes_and_keeps() {
    maps(
        json!([{ "delete": ["a.b", "l.1"] }]),
        json!({ "a": { "b": 1 }, "l": [1, 2, 3] }),
        json!({ "a": {}, "l": [1, 3] }),
    );
    let payload = json!({ "a": { "b": 1, "c": { "d": 2, "e": 3 } }, "l": [{ "m": 1, "n": 2 }, 3], "z": 4 });
    maps(
        json!([{ "keep": ["a.c.d", "l.0.n"] }]),
        payload.clone(),
        json!({ "a": { "c": { "d": 2 } }, "l": [{ "n": 2 }] }),
    );
    maps(json!([{ "keep": ["a", "a.b"] }]), payload, json!({ "a": { "b": 1, "c": { "d": 2, "e": 3 } } }));
    rejects(json!([{ "keep": ["a", "b"] }]), json!({ "a": 1 }), "operations[0].keep: b: absent");
}

#[test]
fn casts() {
    let cast = |to: &str, on_error: &str| json!([{ "cast": { "field": "a", "to": to, "on_error": on_error } }]);
    maps(cast("number", "reject"), json!({ "a": "4.6" }), json!({ "a": 4.6 }));
    maps(cast("text", "reject"), json!({ "a": 7 }), json!({ "a": "7" }));
    maps(cast("json", "reject"), json!({ "a": "[1]" }), json!({ "a": [1] }));
    maps(cast("integer", "keep"), json!({ "a": "x" }), json!({ "a": "x" }));
    maps(cast("integer", "null"), json!({ "a": "x" }), json!({ "a": null }));
    maps(cast("integer", "delete"), json!({ "a": "x" }), json!({}));
    rejects(cast("integer", "reject"), json!({ "a": "x" }), "operations[0].cast: a: text that is not an integer");
}

#[test]
fn flattens_and_unflattens() {
    let deep = json!({ "a": { "b": { "c": 1 }, "d": [1, { "e": 2 }] }, "f": {}, "g": 3 });
    maps(json!([{ "flatten": {} }]), deep.clone(), json!({ "a.b.c": 1, "a.d": [1, { "e": 2 }], "f": {}, "g": 3 }));
    maps(
        json!([{ "flatten": { "separator": "_", "arrays": true } }]),
        deep.clone(),
        json!({ "a_b_c": 1, "a_d_0": 1, "a_d_1_e": 2, "f": {}, "g": 3 }),
    );
    maps(
        json!([{ "flatten": { "field": "a" } }]),
        deep.clone(),
        json!({ "a": { "b.c": 1, "d": [1, { "e": 2 }] }, "f": {}, "g": 3 }),
    );
    maps(json!([{ "flatten": {} }, { "unflatten": {} }]), deep.clone(), deep);
    maps(
        json!([{ "unflatten": { "separator": "__" } }]),
        json!({ "a__b": 1, "a__c": 2, "__x": 3 }),
        json!({ "a": { "b": 1, "c": 2 }, "__x": 3 }),
    );
    rejects(
        json!([{ "flatten": {} }]),
        json!({ "a": { "b": 1 }, "a.b": 2 }),
        r#"operations[0].flatten: two fields become "a.b""#,
    );
    rejects(
        json!([{ "flatten": { "field": "a" } }]),
        json!({ "a": 1 }),
        "operations[0].flatten: a: a number, not an object",
    );
    rejects(
        json!([{ "unflatten": {} }]),
        json!({ "a": 1, "a.b": 2 }),
        r#"operations[0].unflatten: "a.b" stands where another field does"#,
    );
    let many = json!({ "a.".repeat(64) + "b": 1 });
    rejects(json!([{ "unflatten": {} }]), many, "operations[0].unflatten: a name has more than 64 levels");
}

#[test]
fn a_long_name_over_many_fields_does_not_fill_the_memory() {
    let below: Value =
        (0..1_000).map(|n| (n.to_string(), json!(n))).collect::<quipu_plugin::serde_json::Map<_, _>>().into();
    let payload = json!({ "n".repeat(10_000): below });
    rejects(json!([{ "flatten": {} }]), payload, "operations[0].flatten: the flat names take more than 4 MiB");
}

#[test]
fn goes_through_arrays() {
    let each = json!([{ "each": { "field": "items", "operations": [
        { "rename": { "from": "sku", "to": "article" } },
        { "cast": { "field": "count", "to": "integer" } },
    ] } }]);
    maps(
        each.clone(),
        json!({ "items": [{ "sku": "a", "count": "2" }, { "sku": "b", "count": 3 }] }),
        json!({ "items": [{ "article": "a", "count": 2 }, { "article": "b", "count": 3 }] }),
    );
    rejects(
        each.clone(),
        json!({ "items": [{ "sku": "a", "count": "two" }] }),
        "operations[0].each.operations[1].cast: count: text that is not an integer",
    );
    rejects(each.clone(), json!({ "items": {} }), "operations[0].each: items: an object, not an array");
    rejects(each, json!({}), "operations[0].each: items: absent");
}

#[test]
fn skips_what_is_absent_unless_told_otherwise() {
    let config = json!({ "operations": [
        { "rename": { "from": "x", "to": "y" } }, { "copy": { "from": "x", "to": "y" } }, { "delete": ["x", "a"] },
        { "cast": { "field": "x", "to": "text" } }, { "flatten": { "field": "x" } }, { "keep": ["x", "b"] },
        { "each": { "field": "x", "operations": [{ "delete": ["y"] }] } },
    ] });
    let outcome = run::<MapJson>(config, MockMessage::new("a").json(json!({ "a": 1, "b": 2 })));
    assert_eq!((outcome.verdict.clone(), outcome.json()), (forward(), json!({ "b": 2 })));
}

#[test]
fn survives_what_comes() {
    let operations = json!([
        { "insert": { "field": "b.c", "text": "{payload}" } }, { "rename": { "from": "a.a", "to": "d.0.e" } },
        { "each": { "field": "a", "operations": [{ "flatten": { "arrays": true } }] } },
        { "flatten": { "arrays": true } }, { "unflatten": { "separator": "n" } }, { "cast": { "field": "a", "to": "json" } },
    ]);
    survives::<MapJson>(json!({ "operations": operations }));
    let mut plugin = Harness::<MapJson>::new(json!({ "operations": [{ "flatten": { "arrays": true } }] })).unwrap();
    for payload in hostile_payloads() {
        let verdict = plugin.process(MockMessage::new("a").payload(payload)).verdict;
        assert!(matches!(verdict, Verdict::Forward | Verdict::Reject(_)), "{verdict:?}");
    }
}

#[test]
fn rejects_what_is_no_json() {
    let config = json!({ "operations": [{ "delete": ["a"] }] });
    let outcome = run::<MapJson>(config, MockMessage::new("a").payload("a=1"));
    assert_eq!(outcome.verdict, reject("the payload is no JSON: expected value at line 1 column 1"));
}

#[test]
fn names_what_is_wrong_with_a_configuration() {
    let with = |operation: Value| json!({ "operations": [{ "delete": ["a"] }, operation] });
    refused(json!({}), "missing field `operations`");
    refused(json!({ "operations": [] }), "operations: 0 operations, expected 1 to 256");
    refused(
        with(json!({ "renam": { "from": "a", "to": "b" } })),
        "operations[1]: unknown variant `renam`, expected one of `rename`, `copy`, `insert`, `delete`, `keep`, `cast`, \
         `flatten`, `unflatten`, `each`",
    );
    refused(
        with(json!({ "rename": { "from": "a", "to": "b." } })),
        r#"operations[1].rename.to: invalid path "b.": empty name"#,
    );
    refused(with(json!({ "rename": { "from": "a" } })), "operations[1].rename: missing field `to`");
    refused(
        with(json!({ "insert": { "field": "a" } })),
        "operations[1].insert: one of value, text is required, and not both",
    );
    refused(with(json!({ "delete": [] })), "operations[1].delete: names no field");
    refused(
        with(json!({ "cast": { "field": "a", "to": "float" } })),
        "operations[1].cast.to: unknown variant `float`, expected one of `text`, `number`, `integer`, `boolean`, `json`",
    );
    refused(
        with(json!({ "flatten": { "separator": "" } })),
        "operations[1].flatten.separator: an empty text separates nothing",
    );
    refused(
        with(json!({ "each": { "field": "a", "operations": [] } })),
        "operations[1].each.operations: 0 operations, expected 1 to 256",
    );
    refused(
        with(json!({ "delete": ["a"], "keep": ["b"] })),
        "operations[1]: invalid value: map, expected map with a single key",
    );
}
