//! Tables in all forms, what becomes of messages, and what is refused.

use super::EnrichLookup;
use quipu_plugin::prelude::*;
use quipu_plugin::testing::{Harness, MockMessage, Outcome, run, survives};

const NETWORKS: &str = "code,name,stations,lat\nak,\"Alaska, all\",402,61.2\nus,USGS,,\n";

/// A configuration with this table, and these keys besides.
fn with(mut more: Value) -> Value {
    let defaults = json!({ "table": NETWORKS, "by": "{field.net}", "into": "network" });
    for (key, value) in defaults.as_object().unwrap() {
        more.as_object_mut().unwrap().entry(key).or_insert(value.clone());
    }
    more
}

#[track_caller]
fn enrich(config: Value) -> Outcome {
    run::<EnrichLookup>(config, MockMessage::new("a").header("code", "us").json(json!({ "net": "ak", "n": 7 })))
}

#[track_caller]
fn refused(config: Value, expected: &str) {
    assert_eq!(Harness::<EnrichLookup>::new(config).err().as_deref(), Some(expected));
}

#[test]
fn puts_in_the_row() {
    let row = json!({ "code": "ak", "name": "Alaska, all", "stations": "402", "lat": "61.2" });
    assert_eq!(enrich(with(json!({}))).json(), json!({ "net": "ak", "n": 7, "network": row }));
    let typed = enrich(with(json!({ "types": { "stations": "integer", "lat": "number" }, "by": "{header.code}" })));
    assert_eq!(typed.json()["network"], json!({ "code": "us", "name": "USGS", "stations": null, "lat": null }));
}

#[test]
fn puts_columns_into_fields_and_headers() {
    let outcome = enrich(json!({
        "table": NETWORKS, "by": "{field.net}", "types": { "stations": "integer" },
        "fields": { "net": "name", "place.stations": "stations" }, "headers": { "network": "name", "stations": "stations" },
    }));
    assert_eq!(outcome.json(), json!({ "net": "Alaska, all", "n": 7, "place": { "stations": 402 } }));
    assert_eq!((outcome.header("network"), outcome.header("stations")), (Some("Alaska, all"), Some("402")));
    let headers_alone = json!({ "table": NETWORKS, "by": "{key}", "headers": { "network": "name" } });
    let outcome = run::<EnrichLookup>(headers_alone, MockMessage::new("a").key("us").payload("no JSON"));
    assert_eq!((outcome.header("network"), outcome.payload_text().as_str()), (Some("USGS"), "no JSON"));
}

#[test]
fn takes_tables_in_all_forms() {
    let name = |table: Value, format: &str, id: Option<&str>, column: &str| {
        let mut config = json!({ "table": table, "format": format, "by": "{field.n}", "fields": { "out": column } });
        if let Some(id) = id {
            config["id"] = json!(id);
        }
        enrich(config).json()["out"].clone()
    };
    assert_eq!(name(json!(r#"[{"n":7,"x":[1]}]"#), "json", Some("n"), "x"), json!([1]));
    assert_eq!(name(json!(r#"{"7":{"x":true}}"#), "json", None, "x"), json!(true));
    assert_eq!(name(json!("{\"n\":\"7\",\"x\":1}\n\n{\"n\":8}\n"), "ndjson", Some("n"), "x"), json!(1));
    assert_eq!(name(json!({ "7": "seven" }), "csv", None, "value"), json!("seven"));
    assert_eq!(name(json!("\u{feff}x,n\r\nseven,7\r\n"), "csv", Some("n"), "x"), json!("seven"));
}

#[test]
fn a_miss_is_what_the_configuration_says() {
    let miss = |more: Value, payload: Value| {
        let outcome = run::<EnrichLookup>(with(more), MockMessage::new("a").json(payload));
        (outcome.verdict.clone(), outcome.json())
    };
    let payload = json!({ "net": "xx" });
    assert_eq!(miss(json!({}), payload.clone()), (forward(), payload.clone()));
    assert_eq!(miss(json!({ "miss": "drop" }), payload.clone()).0, drop("no row"));
    assert_eq!(miss(json!({ "miss": "reject" }), payload.clone()).0, reject(r#"no row for "xx""#));
    assert_eq!(miss(json!({ "miss": "reject" }), json!({})).0, reject("the message has no field net"));
    let default = json!({ "miss": "default", "default": { "name": "unknown" } });
    assert_eq!(miss(default, payload), (forward(), json!({ "net": "xx", "network": { "name": "unknown" } })));
}

#[test]
fn rejects_what_it_cannot_put_anything_into() {
    let verdict = |config: Value, payload: &str| {
        run::<EnrichLookup>(config, MockMessage::new("a").key("ak").payload(payload)).verdict
    };
    assert_eq!(verdict(with(json!({})), "x"), reject("the payload is no JSON: expected value at line 1 column 1"));
    let by_key = with(json!({ "by": "{key}" }));
    assert_eq!(verdict(by_key.clone(), "7"), reject("network: cannot be set: the payload is a number, not an object"));
    let lines = json!({ "table": { "ak": "a\nb" }, "by": "{key}", "headers": { "h": "value" } });
    assert_eq!(verdict(lines, "7"), reject(r#"header "h": a control character in the value"#));
}

#[test]
fn survives_what_comes() {
    let table = json!({ "1": { "x": 1 }, "": { "x": {} }, "{}": "a" });
    survives::<EnrichLookup>(json!({ "table": table, "by": "{payload}", "into": "a.b", "headers": { "h": "x" } }));
    survives::<EnrichLookup>(
        json!({ "table": table, "by": "{field.a}", "fields": { "a.0.b": "x" }, "miss": "default", "default": { "x": 1 } }),
    );
}

#[test]
fn names_what_is_wrong_with_a_configuration() {
    refused(json!({ "by": "{key}", "into": "a" }), "missing field `table`");
    refused(json!({ "table": NETWORKS, "by": "{key}" }), "one of into, fields, headers is required");
    refused(
        with(json!({ "fields": { "a": "nme" } })),
        r#"fields.a: the table has no column "nme"; it has code, name, stations, lat"#,
    );
    refused(with(json!({ "id": "x" })), r#"id: the table has no column "x"; it has code, name, stations, lat"#);
    refused(
        with(json!({ "types": { "name": "number" } })),
        r#"table: line 2: column "name": text that is not a number"#,
    );
    refused(with(json!({ "miss": "default" })), r#"default: is required for miss = "default""#);
    refused(with(json!({ "default": {} })), r#"default: goes with miss = "default""#);
    refused(with(json!({ "table": "a,b\n1,2\n\n1,3\n" })), r#"table: line 4: the id "1" is there twice"#);
    refused(with(json!({ "table": "a,a\n1,2\n" })), r#"table: line 1: the column "a" is there twice"#);
    refused(
        with(json!({ "table": "a,b\n1\n" })),
        "table: CSV error: record 1 (line: 2, byte: 4): found record with 1 fields, but the previous record has 2 fields",
    );
    refused(with(json!({ "table": "" })), "table: has no rows");
    refused(with(json!({ "table": 7 })), "table: a number, expected text, an array or an object");
    refused(with(json!({ "table": [{ "a": 1 }] })), "id: is required for a table that is a list of rows");
    refused(
        with(json!({ "table": [{ "a": 1 }, { "b": 1 }], "id": "a" })),
        r#"table: row 1: no text, number or boolean "a" to be its id"#,
    );
    refused(
        with(json!({ "table": "{\"a\":1}\n{", "format": "ndjson", "id": "a" })),
        "table: line 2: no JSON: EOF while parsing an object at line 1 column 1",
    );
    refused(with(json!({ "table": "x", "format": "json" })), "table: no JSON: expected value at line 1 column 1");
    refused(
        with(json!({ "table": "x", "format": "xml" })),
        "format: unknown variant `xml`, expected one of `csv`, `json`, `ndjson`",
    );
}
