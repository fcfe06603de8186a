use crate::ConvertAvro;
use quipu_plugin::prelude::*;
use quipu_plugin::testing::{Harness, MockMessage, Outcome, hostile_payloads, run, survives};

fn quake() -> Value {
    json!({
        "type": "record", "name": "Quake", "namespace": "quakes",
        "fields": [
            { "name": "id", "type": "string" },
            { "name": "mag", "type": "float" },
            { "name": "kind", "type": { "type": "enum", "name": "Kind", "symbols": ["EARTHQUAKE", "BLAST"] }, "default": "BLAST" },
            { "name": "at", "type": { "type": "long", "logicalType": "timestamp-millis" } },
            { "name": "place", "type": ["null", "string"], "default": null },
            { "name": "depths", "type": { "type": "array", "items": "int" }, "default": [] },
            { "name": "counts", "type": { "type": "map", "values": "long" }, "default": {} },
            { "name": "after", "type": ["null", "Quake"], "default": null },
        ],
    })
}

const BYTES: &[u8] =
    b"\x06ak1\x33\x33\x93\x40\x00\x80\xd8\xe2\xcb\xbe\x63\x02\x04Ny\x04\x01\xd8\x04\x00\x02\x02a\x02\x00\x00";
const JSON: &str = concat!(
    r#"{"after":null,"at":"2024-02-29T12:00:00.000Z","counts":{"a":1},"depths":[-1,300],"id":"ak1","#,
    r#""kind":"EARTHQUAKE","mag":4.6,"place":"Ny"}"#,
);

fn convert(config: Value, payload: impl Into<Vec<u8>>) -> Outcome {
    run::<ConvertAvro>(config, MockMessage::new("a").payload(payload))
}

#[track_caller]
fn to_json(schema: Value, payload: &[u8], expected: &str) {
    let outcome = convert(json!({ "to": "json", "schema": schema }), payload);
    assert_eq!((outcome.verdict.clone(), outcome.payload_text().as_str()), (forward(), expected));
}

#[track_caller]
fn to_avro(schema: Value, json: &str, expected: &[u8]) {
    let outcome = convert(json!({ "to": "avro", "schema": schema }), json);
    assert_eq!((outcome.verdict, outcome.message.payload.as_slice()), (forward(), expected));
}

#[track_caller]
fn both(schema: Value, avro: &[u8], json: &str) {
    to_json(schema.clone(), avro, json);
    to_avro(schema, json, avro);
}

#[track_caller]
fn unread(schema: Value, payload: &[u8], expected: &str) {
    assert_eq!(convert(json!({ "to": "json", "schema": schema }), payload).verdict, reject(expected));
}

#[track_caller]
fn unwritten(schema: Value, json: &str, expected: &str) {
    assert_eq!(convert(json!({ "to": "avro", "schema": schema }), json).verdict, reject(expected));
}

#[track_caller]
fn refused(config: Value, expected: &str) {
    assert_eq!(Harness::<ConvertAvro>::new(config).err().as_deref(), Some(expected));
}

#[test]
fn both_ways() {
    both(quake(), BYTES, JSON);
    both(json!("\"null\""), b"", "null");
    both(json!("\"boolean\""), b"\x01", "true");
    both(json!("\"int\""), b"\xff\xff\xff\xff\x0f", "-2147483648");
    both(json!("\"long\""), b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", "9223372036854775807");
    both(json!("\"long\""), b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "-9223372036854775808");
    both(json!("\"double\""), b"\0\0\0\0\0\0\xf8\x3f", "1.5");
    both(json!("\"float\""), b"\xcd\xcc\xcc\x3d", "0.1");
    both(json!("\"string\""), b"\x04\xc3\xbc", "\"ü\"");
    both(json!("\"bytes\""), b"\x06abc", "\"YWJj\"");
    both(json!({ "type": "fixed", "name": "F", "size": 2 }), b"\x01\xff", "\"Af8=\"");
    both(json!(r#"{"type":"array","items":"null"}"#), b"\x04\x00", "[null,null]");
}

#[test]
fn reads_blocks_of_each_kind() {
    let list = json!({ "type": "array", "items": "int" });
    to_json(list.clone(), b"\x02\x02\x03\x04\x04\x06\x00", "[1,2,3]");
    to_json(list, b"\x00", "[]");
    to_json(json!({ "type": "map", "values": "int" }), b"\x01\x06\x02b\x04\x02\x02a\x02\x00", r#"{"a":1,"b":2}"#);
}

#[test]
fn knows_dates_times_and_decimals() {
    let of = |base: &str, logical: &str| json!({ "type": base, "logicalType": logical });
    both(of("int", "date"), b"\x8c\xb5\x02", "\"2024-02-29\"");
    both(of("int", "date"), b"\x01", "\"1969-12-31\"");
    both(of("long", "timestamp-micros"), b"\x01", "\"1969-12-31T23:59:59.999999Z\"");
    both(of("long", "timestamp-nanos"), b"\x02", "\"1970-01-01T00:00:00.000000001Z\"");
    let millis = of("long", "timestamp-millis");
    to_avro(millis.clone(), "\"1970-01-01t01:00:00.1000+01:00\"", b"\xc8\x01");
    to_avro(millis.clone(), "100", b"\xc8\x01");
    // Past the year 9999 it stays a number.
    both(millis.clone(), b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", "9223372036854775807");
    for wrong in [
        "yesterday",
        "2023-02-29T00:00:00Z",
        "1970-01-01T00:00:00.0001Z",
        "1970-01-01T24:00:00Z",
        "1970-01-01T00:00:00",
        "1970-01-01T00:00:00+1",
        "ü970-01-01T00:00:00Z",
    ] {
        unwritten(millis.clone(), &format!("{wrong:?}"), &format!("the payload: {wrong:?} is not a time that fits"));
    }
    unwritten(
        of("int", "date"),
        "\"2024-02-29T12:00:00Z\"",
        "the payload: \"2024-02-29T12:00:00Z\" is not a date that fits",
    );
    let decimal = json!({ "type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2 });
    both(decimal.clone(), b"\x04\x04\xd2", "\"12.34\"");
    both(decimal.clone(), b"\x02\xff", "\"-0.01\"");
    both(decimal.clone(), b"\x02\x00", "\"0.00\"");
    to_avro(decimal.clone(), "12.34", b"\x04\x04\xd2");
    to_avro(decimal.clone(), "\"1.5000\"", b"\x04\x00\x96");
    for wrong in ["1.234", "12345.67", "1e3", "", "-", "1.2.3"] {
        let reason = format!("the payload: {wrong:?} is no decimal of 6 digits, 2 of them behind the point");
        unwritten(decimal.clone(), &format!("{wrong:?}"), &reason);
    }
    unread(decimal, &[&[0x22, 1], [0_u8; 16].as_slice()].concat(), "byte 0 of the payload: a decimal beyond 128 bits");
    let fixed = json!({ "type": "fixed", "name": "D", "size": 3, "logicalType": "decimal", "precision": 4 });
    both(fixed, b"\xff\xff\xfe", "\"-2\"");
    // What makes no sense is not there.
    both(json!({ "type": "int", "logicalType": "decimal" }), b"\x02", "1");
}

#[test]
fn picks_the_type_of_a_union() {
    let union = json!([
        "null", "boolean", "int", "double", "string",
        { "type": "record", "name": "A", "fields": [{ "name": "a", "type": "int" }] },
        { "type": "record", "name": "B", "fields": [{ "name": "b", "type": "int", "default": 7 }] },
        { "type": "array", "items": "int" },
    ]);
    both(union.clone(), b"\x00", "null");
    both(union.clone(), b"\x02\x01", "true");
    both(union.clone(), b"\x04\x02", "1");
    both(union.clone(), b"\x06\0\0\0\0\0\0\xe0\x3f", "0.5");
    both(union.clone(), b"\x08\x02x", "\"x\"");
    both(union.clone(), b"\x0a\x02", r#"{"a":1}"#);
    both(union.clone(), b"\x0c\x02", r#"{"b":1}"#);
    to_avro(union.clone(), "{}", b"\x0c\x0e");
    both(union.clone(), b"\x0e\x02\x02\x00", "[1]");
    unwritten(
        union,
        r#"{"a":1,"b":2}"#,
        "the payload: an object that fits none of null, boolean, int, double, string, A, B, array",
    );
    // Of two, the one that is not null says what is wrong.
    unwritten(json!(["null", "int"]), "\"x\"", "the payload: text, expected an int");
}

#[test]
fn speaks_the_json_of_avro() {
    let config = |to: &str| {
        json!({ "to": to, "style": "avro", "schema": {
        "type": "record", "name": "a.R", "fields": [
            { "name": "n", "type": ["null", "int", "R"] },
            { "name": "b", "type": "bytes" },
            { "name": "d", "type": { "type": "int", "logicalType": "date" } },
        ],
    } })
    };
    let (avro, json) =
        (b"\x04\x02\x0e\x02\xff\x02\x00\x04", r#"{"b":"","d":2,"n":{"a.R":{"b":"ÿ","d":1,"n":{"int":7}}}}"#);
    assert_eq!(convert(config("json"), avro).payload_text(), json);
    assert_eq!(convert(config("avro"), json).message.payload, avro);
    let wrong = |json: &str, expected: &str| assert_eq!(convert(config("avro"), json).verdict, reject(expected));
    wrong(r#"{"n":7,"b":"","d":1}"#, "n: a number, expected null or an object of one type and its value");
    wrong(r#"{"n":{"long":7},"b":"","d":1}"#, r#"n: the union has no type "long""#);
    wrong(r#"{"n":null,"b":"€","d":1}"#, "b: text with code points beyond a byte");
}

#[test]
fn puts_defaults_where_json_has_nothing() {
    to_avro(quake(), r#"{"id":"b","mag":1,"at":0}"#, b"\x02b\0\0\x80\x3f\x02\0\0\0\0\0");
    let bytes =
        json!({ "type": "record", "name": "R", "fields": [{ "name": "b", "type": "bytes", "default": "\u{ff}" }] });
    to_avro(bytes, "{}", b"\x02\xff");
    unwritten(quake(), r#"{"id":"b","mag":1}"#, "at: absent");
    unwritten(quake(), r#"{"id":"b","mag":1,"at":0,"ip":1}"#, "ip: quakes.Quake has no such field");
    let config = json!({ "to": "avro", "schema": quake(), "unknown": "skip" });
    assert_eq!(convert(config, r#"{"id":"b","mag":1,"at":0,"ip":1}"#).verdict, forward());
}

#[test]
fn says_where_it_fails() {
    unread(quake(), b"", "id: byte 0 of the payload: it ends within a value");
    unread(quake(), b"\x06ak", "id: byte 3 of the payload: it ends within a value");
    unread(quake(), b"\x02\xff", "id: byte 0 of the payload: text that is not UTF-8");
    unread(quake(), b"\x01", "id: byte 0 of the payload: text of length -1");
    unread(quake(), &[BYTES, b"\0"].concat(), "byte 30 of the payload: it goes on after its value");
    unread(quake(), b"\x02b\0\0\xc0\x7f", "mag: byte 2 of the payload: NaN, which JSON cannot say");
    unread(quake(), b"\x02b\0\0\0\0\x04", "kind: byte 6 of the payload: quakes.Kind has no symbol 2");
    unread(quake(), b"\x02b\0\0\0\0\0\0\x06", "place: byte 8 of the payload: the union has no type 3");
    unread(
        quake(),
        b"\x02b\0\0\0\0\0\0\0\x02\xff\xff\xff\xff\x7f",
        "depths.0: byte 10 of the payload: an int beyond 32 bits",
    );
    unread(
        quake(),
        b"\x02b\0\0\0\0\0\0\0\0\x04\x02a\0\x02a\0",
        "counts: byte 14 of the payload: the name \"a\" for the second time",
    );
    unread(json!("\"boolean\""), b"\x02", "byte 0 of the payload: a boolean of 2");
    unread(json!("\"long\""), &[0xff; 11], "byte 0 of the payload: a number beyond 64 bits");
    unread(
        json!("\"long\""),
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
        "byte 0 of the payload: a number beyond 64 bits",
    );
    unwritten(quake(), r#"{"id":7}"#, "id: a number, expected text");
    unwritten(quake(), r#"{"id":"b","mag":1,"at":0,"depths":[1,2.5]}"#, "depths.1: 2.5 is not an int");
    unwritten(quake(), r#"{"id":"b","mag":1,"at":0,"depths":[3e9]}"#, "depths.0: 3000000000 is beyond an int");
    unwritten(quake(), r#"{"id":"b","mag":1e39}"#, "mag: 1e+39 is beyond a float");
    unwritten(quake(), r#"{"id":"b","mag":1,"kind":"ICE"}"#, "kind: quakes.Kind has no symbol \"ICE\"");
    unwritten(quake(), r#"{"id":"b","mag":1,"at":0,"after":{"id":[]}}"#, "after.id: an array, expected text");
    unwritten(json!("\"bytes\""), "\"*\"", "the payload: text that is no base64: Invalid symbol 42, offset 0.");
    unwritten(json!({ "type": "fixed", "name": "F", "size": 2 }), "\"YWJj\"", "the payload: 3 bytes, expected 2");
    unwritten(json!("\"int\""), "[1", "the payload is no JSON: EOF while parsing a list at line 1 column 2");
}

#[test]
fn lengths_that_lie_cost_nothing() {
    let far = b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    unread(json!("\"string\""), far, "byte 10 of the payload: it ends within a value");
    unread(json!({ "type": "array", "items": "int" }), far, "0: byte 10 of the payload: it ends within a value");
    let empty = json!({ "type": "array", "items": "null" });
    unread(empty, far, "byte 10 of the payload: more than 10000 elements without bytes");
    let records = json!({ "type": "array", "items": { "type": "record", "name": "R", "fields": [] } });
    unread(
        records,
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00",
        "byte 11 of the payload: more than 10000 elements without bytes",
    );
    // A record that has itself in it has no end.
    let endless = json!({ "type": "record", "name": "R", "fields": [{ "name": "r", "type": "R" }] });
    let Verdict::Reject(reason) = convert(json!({ "to": "json", "schema": endless }), "").verdict else { panic!() };
    assert!(reason.ends_with("r.r: byte 0 of the payload: nested deeper than 127 levels"), "{reason}");
    let list = json!({ "type": "record", "name": "L", "fields": [{ "name": "l", "type": ["null", "L"] }] });
    let Verdict::Reject(reason) = convert(json!({ "to": "json", "schema": list }), [2; 100_000]).verdict else {
        panic!()
    };
    assert!(reason.ends_with("l.l: byte 127 of the payload: nested deeper than 127 levels"), "{reason}");
}

#[test]
fn knows_frames() {
    // The fingerprint that the specification's own implementations give "int".
    let config = |to: &str| json!({ "to": to, "schema": "\"int\"", "framing": "single-object" });
    let framed = b"\xc3\x01\x8f\x5c\x39\x3f\x1a\xd5\x75\x72\x0e";
    assert_eq!(convert(config("avro"), "7").message.payload, framed);
    assert_eq!(convert(config("json"), framed).payload_text(), "7");
    let wrong = |payload: &[u8], expected: &str| assert_eq!(convert(config("json"), payload).verdict, reject(expected));
    wrong(b"\xc3", "byte 1 of the payload: it ends within its frame");
    wrong(
        b"\x00\x01\x8f\x5c\x39\x3f\x1a\xd5\x75\x72\x0e",
        "byte 0 of the payload: it does not begin with c3 01, as a single object does",
    );
    wrong(
        b"\xc3\x01\x00\x5c\x39\x3f\x1a\xd5\x75\x72\x0e",
        "byte 2 of the payload: it is written with another schema, of the fingerprint 7275d51a3f395c00",
    );
    let config = json!({ "to": "avro", "schema": "\"int\"", "framing": "confluent", "schema_id": 258 });
    assert_eq!(convert(config, "7").message.payload, b"\0\0\0\x01\x02\x0e");
    let config = json!({ "to": "json", "schema": "\"int\"", "framing": "confluent" });
    assert_eq!(convert(config.clone(), b"\0\0\0\0\x09\x0e").payload_text(), "7");
    assert_eq!(
        convert(config, b"\x01\0\0\0\x09\x0e").verdict,
        reject("byte 0 of the payload: it does not begin with a zero and an id")
    );
}

#[test]
fn survives_hostile_payloads() {
    for style in ["plain", "avro"] {
        survives::<ConvertAvro>(json!({ "to": "json", "schema": quake(), "style": style }));
        survives::<ConvertAvro>(json!({ "to": "avro", "schema": quake(), "style": style }));
        let tree = json!({ "type": "record", "name": "T", "fields": [{ "name": "a", "type": [
            "null", "T", "bytes", { "type": "array", "items": "T" }, { "type": "map", "values": "T" },
            { "type": "fixed", "name": "D", "size": 4, "logicalType": "decimal", "precision": 9, "scale": 3 },
            { "type": "int", "logicalType": "date" }, { "type": "long", "logicalType": "timestamp-nanos" },
        ] }] });
        survives::<ConvertAvro>(json!({ "to": "json", "schema": tree, "style": style }));
        survives::<ConvertAvro>(json!({ "to": "avro", "schema": tree, "style": style, "unknown": "skip" }));
    }
    // Every cut and every changed byte of a good payload, which random bytes hardly come near.
    let mut plugin = Harness::<ConvertAvro>::new(json!({ "to": "json", "schema": quake() })).unwrap();
    for at in 0..BYTES.len() {
        plugin.process(MockMessage::new("a").payload(&BYTES[..at]));
        for bit in 0..8 {
            let mut changed = BYTES.to_vec();
            changed[at] ^= 1 << bit;
            plugin.process(MockMessage::new("a").payload(changed));
        }
    }
    for to in ["json", "avro"] {
        let schema = json!({ "type": "long", "logicalType": "timestamp-micros" });
        let mut plugin = Harness::<ConvertAvro>::new(json!({ "to": to, "schema": schema })).unwrap();
        for payload in hostile_payloads() {
            let text = serde_json_text(&String::from_utf8_lossy(&payload));
            plugin.process(MockMessage::new("a").payload(text));
        }
    }
}

fn serde_json_text(text: &str) -> String {
    Value::from(text).to_string()
}

#[test]
fn names_what_is_wrong_with_a_configuration() {
    let schema = |schema: Value, expected: &str| refused(json!({ "to": "json", "schema": schema }), expected);
    refused(json!({ "to": "json" }), "missing field `schema`");
    refused(json!({ "to": "xml", "schema": {} }), "to: unknown variant `xml`, expected `json` or `avro`");
    schema(json!("{"), "schema: no JSON: EOF while parsing an object at line 1 column 1");
    schema(json!(7), "schema: a number, expected a schema: a name, an object or a list");
    schema(json!({ "name": "R" }), "schema.type: missing");
    schema(json!({ "type": "text" }), "schema.type: there is no type \"text\"");
    schema(json!({ "type": "array" }), "schema.items: missing");
    schema(json!({ "type": "record", "name": "R" }), "schema.fields: missing");
    schema(
        json!({ "type": "record", "name": "1R", "fields": [] }),
        "schema.name: \"1R\": a name is letters, digits and `_`, and begins with no digit",
    );
    schema(
        json!({ "type": "record", "name": "R", "fields": [{ "name": "a", "type": ["null", { "type": "map", "values": "M" }] }] }),
        "schema.fields[0].type[1].values: there is no type \"M\"",
    );
    schema(
        json!({ "type": "record", "name": "R", "fields": [{ "name": "a", "type": "int", "default": "x" }] }),
        "schema.fields[0].default: text, expected an int",
    );
    schema(
        json!({ "type": "record", "name": "R", "fields": [{ "name": "a", "type": "int" }, { "name": "a", "type": "int" }] }),
        "schema.fields[1].name: \"a\" for the second time",
    );
    schema(json!(["int", ["null"]]), "schema[1]: a union within a union");
    schema(json!(["int", "int"]), "schema[1]: the type \"int\" for the second time");
    schema(json!([]), "schema: a union of nothing");
    schema(json!({ "type": "fixed", "name": "F" }), "schema.size: expected a number of bytes, 67108864 at most");
    schema(
        json!({ "type": "enum", "name": "E", "symbols": ["A", "A"] }),
        "schema.symbols[1]: \"A\" for the second time",
    );
    refused(
        json!({ "to": "avro", "schema": "\"int\"", "framing": "confluent" }),
        "schema_id: required with to = \"avro\" and framing = \"confluent\"",
    );
    refused(
        json!({ "to": "json", "schema": "\"int\"", "schema_id": 1 }),
        "schema_id: goes with to = \"avro\" and framing = \"confluent\" alone",
    );
}
