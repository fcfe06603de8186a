use crate::ConvertProtobuf;
use quipu_plugin::prelude::*;
use quipu_plugin::testing::{Harness, MockMessage, Outcome, hostile_payloads, run, survives};

const QUAKE: &str = r#"
    syntax = "proto3";
    package quakes;

    import "google/protobuf/timestamp.proto";

    message Quake {
        string id = 1;
        float magnitude = 2;
        google.protobuf.Timestamp seen_at = 3;
        Kind kind = 4;
        repeated sint32 depths = 5;
        map<string, int64> counts = 6;
        oneof source {
            string station = 7;
            bytes raw = 8;
        }
        Quake after = 9;
    }

    enum Kind { UNKNOWN = 0; EARTHQUAKE = 1; }
"#;

/// As protoc writes `{id: "ak1", magnitude: 4.6, seen_at: {seconds: 1709208000}, kind: EARTHQUAKE, depths: [-1, 300],
/// counts: {a: 1}, raw: "\x01\x02"}`.
const BYTES: &[u8] = b"\x0a\x03ak1\x15\x33\x33\x93\x40\x1a\x06\x08\xc0\xe3\x81\xaf\x06\x20\x01\x2a\x03\x01\xd8\x04\
    \x32\x05\x0a\x01a\x10\x01\x42\x02\x01\x02";
const JSON: &str = concat!(
    r#"{"counts":{"a":"1"},"depths":[-1,300],"id":"ak1","kind":"EARTHQUAKE","magnitude":4.6,"raw":"AQI=","#,
    r#""seenAt":"2024-02-29T12:00:00Z"}"#,
);

fn with(changes: Value) -> Value {
    let mut config = json!({ "to": "json", "proto": QUAKE });
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

fn convert(changes: Value, payload: impl Into<Vec<u8>>) -> Outcome {
    run::<ConvertProtobuf>(with(changes), MockMessage::new("a").payload(payload))
}

#[track_caller]
fn to_json(changes: Value, payload: &[u8], expected: &str) {
    let outcome = convert(changes, payload);
    assert_eq!((outcome.verdict.clone(), outcome.payload_text().as_str()), (forward(), expected));
}

#[track_caller]
fn to_protobuf(json: &str, expected: &[u8]) {
    let outcome = convert(json!({ "to": "protobuf" }), json);
    assert_eq!((outcome.verdict, outcome.message.payload.as_slice()), (forward(), expected));
}

#[track_caller]
fn rejected(changes: Value, payload: impl Into<Vec<u8>>, expected: &str) {
    assert_eq!(convert(changes, payload).verdict, reject(expected));
}

#[track_caller]
fn refused(changes: Value, expected: &str) {
    assert_eq!(Harness::<ConvertProtobuf>::new(with(changes)).err().as_deref(), Some(expected));
}

#[test]
fn both_ways() {
    to_json(json!({}), BYTES, JSON);
    to_protobuf(JSON, BYTES);
    to_json(json!({}), b"", "{}");
    to_protobuf("{}", b"");
}

#[test]
fn reads_json_in_each_of_its_forms() {
    to_protobuf(r#"{"seen_at":"2024-02-29T13:00:00+01:00","kind":1,"counts":{"a":1},"magnitude":"4.6"}"#, {
        b"\x15\x33\x33\x93\x40\x1a\x06\x08\xc0\xe3\x81\xaf\x06\x20\x01\x32\x05\x0a\x01a\x10\x01"
    });
    to_protobuf(r#"{"station":null,"after":{"id":"b"}}"#, b"\x4a\x03\x0a\x01b");
}

#[test]
fn writes_json_as_asked() {
    let bytes = b"\x20\x01\x32\x05\x0a\x01a\x10\x01\x3a\x01s\x1a\x00";
    let all = json!({ "names": "proto", "enums": "number", "int64": "number" });
    to_json(all, bytes, r#"{"counts":{"a":1},"kind":1,"seen_at":"1970-01-01T00:00:00Z","station":"s"}"#);
    to_json(
        json!({ "defaults": true }),
        b"\x0a\x01b",
        r#"{"counts":{},"depths":[],"id":"b","kind":"UNKNOWN","magnitude":0.0}"#,
    );
}

#[test]
fn leaves_out_what_the_schema_does_not_have() {
    to_json(json!({}), b"\x0a\x01b\x98\x06\x01", r#"{"id":"b"}"#);
    // A value that the enum lacks stays a number.
    to_json(json!({}), b"\x20\x07", r#"{"kind":7}"#);
    rejected(json!({ "to": "protobuf" }), r#"{"id":"b","ip":1}"#, "the payload: unrecognized field name 'ip'");
    let outcome = convert(json!({ "to": "protobuf", "unknown": "skip" }), r#"{"id":"b","ip":{"a":[1]}}"#);
    assert_eq!(outcome.message.payload, b"\x0a\x01b");
}

#[test]
fn says_where_it_fails() {
    let json = |payload: &str, expected: &str| rejected(json!({ "to": "protobuf" }), payload, expected);
    json(r#"{"depths":[1,"x"]}"#, "depths[1]: invalid digit found in string");
    json(r#"{"depths":[1,{}]}"#, "depths[1]: invalid type: map, expected a 32-bit signed integer");
    json(r#"{"after":{"kind":"ICE"}}"#, "after.kind: unrecognized enum value 'ICE'");
    json("[1]", "the payload: invalid type: sequence, expected a map");
    json("{} x", "the payload is no JSON: trailing characters at line 1 column 4");
    json(r#"{"id":"#, "the payload is no JSON: EOF while parsing a value at line 1 column 6");
    let deep = format!("{}{}", r#"{"after":"#.repeat(200), "}".repeat(200));
    json(&deep, "the payload is no JSON: recursion limit exceeded at line 1 column 1144");
    let wire = |payload: &[u8], expected: &str| rejected(json!({}), payload, expected);
    wire(b"\x0a\x05ab", "the payload is no quakes.Quake: buffer underflow");
    wire(b"\x08\x01", "the payload is no quakes.Quake: invalid wire type: Varint (expected LengthDelimited)");
    wire(b"\x0a\x01\xff", "the payload is no quakes.Quake: invalid string value: data is not UTF-8 encoded");
    wire(b"\x1a\x07\x08\x80\x80\x80\x80\x80\x40", "JSON cannot say the payload: timestamp out of range");
    let mut deep = Vec::new();
    for _ in 0..200 {
        let mut outer = vec![0x4a];
        prost::encoding::encode_varint(deep.len() as u64, &mut outer);
        outer.append(&mut deep);
        deep = outer;
    }
    wire(&deep, "the payload is no quakes.Quake: recursion limit reached");
}

#[test]
fn compiles_imports_and_finds_the_message() {
    let config = json!({
        "to": "json",
        "proto": "import 'shared/place.proto'; message A { optional geo.Place at = 1; message B { required int32 n = 1; } } message C {}",
        "imports": { "shared/place.proto": "syntax = 'proto3'; package geo; message Place { double lat = 1; }" },
    });
    let of = |message: &str, payload: &[u8]| {
        let mut config = config.clone();
        config["message"] = message.into();
        run::<ConvertProtobuf>(config, MockMessage::new("a").payload(payload)).payload_text()
    };
    assert_eq!(of("A", b"\x0a\x09\x09\0\0\0\0\0\0\xf8\x3f"), r#"{"at":{"lat":1.5}}"#);
    assert_eq!(of("A.B", b"\x08\x07"), r#"{"n":7}"#);
    assert_eq!(of(".geo.Place", b""), "{}");
    refused(config.clone(), "message: required where the file has several: A, C");
    let mut unknown = config;
    unknown["message"] = "B".into();
    refused(unknown, r#"message: there is no "B"; there are geo.Place, A, A.B, C"#);
}

#[test]
fn knows_the_frame_of_a_registry() {
    let proto = "message A { message X {} message B { optional int32 n = 1; } }";
    let config = |message: &str| json!({ "framing": "confluent", "proto": proto, "message": message });
    to_json(config("A.B"), b"\0\0\0\0\x07\x04\0\x02\x08\x05", r#"{"n":5}"#);
    to_json(config("A"), b"\0\0\0\0\x07\0", "{}");
    let framed = |message: &str, json: &str| {
        let mut config = config(message);
        config["to"] = "protobuf".into();
        config["schema_id"] = 258.into();
        convert(config, json).message.payload
    };
    assert_eq!(framed("A.B", r#"{"n":5}"#), b"\0\0\0\x01\x02\x04\0\x02\x08\x05");
    assert_eq!(framed("A", "{}"), b"\0\0\0\x01\x02\0");
    rejected(
        config("A"),
        b"\0\0\0\0\x07\x04\0\x02\x08\x05".to_vec(),
        "the payload is no A: its frame is that of message [0, 1] of the schema, not [0]",
    );
    rejected(config("A"), b"\x01\0\0\0\x07\0".to_vec(), {
        "the payload is no A: it does not begin with a zero and the id of a schema"
    });
    rejected(config("A"), b"\0\0\0\0\x07\xfe\xff\xff\xff\x0f\0".to_vec(), "the payload is no A: its frame is cut off");
}

#[test]
fn survives_hostile_payloads() {
    survives::<ConvertProtobuf>(with(json!({ "to": "protobuf" })));
    survives::<ConvertProtobuf>(with(json!({ "to": "protobuf", "unknown": "skip" })));
    survives::<ConvertProtobuf>(with(json!({})));
    let any = "import 'google/protobuf/any.proto'; import 'google/protobuf/struct.proto'; import 'google/protobuf/field_mask.proto';
        import 'google/protobuf/duration.proto'; import 'google/protobuf/wrappers.proto';
        message A { optional google.protobuf.Any a = 1; optional google.protobuf.Struct b = 2; optional google.protobuf.FieldMask c = 3;
        optional google.protobuf.Duration d = 4; optional google.protobuf.FloatValue e = 5; optional google.protobuf.ListValue f = 6;
        map<bool, A> g = 7; repeated group H = 8 { optional A h = 1; } }";
    for to in ["json", "protobuf"] {
        survives::<ConvertProtobuf>(json!({ "to": to, "proto": any }));
    }
    // Every cut and every changed byte of a good payload, which random bytes hardly come near.
    let mut plugin = Harness::<ConvertProtobuf>::new(with(json!({}))).unwrap();
    for at in 0..BYTES.len() {
        plugin.process(MockMessage::new("a").payload(&BYTES[..at]));
        for bit in 0..8 {
            let mut changed = BYTES.to_vec();
            changed[at] ^= 1 << bit;
            plugin.process(MockMessage::new("a").payload(changed));
        }
    }
    let mut plugin = Harness::<ConvertProtobuf>::new(with(json!({ "framing": "confluent" }))).unwrap();
    for payload in hostile_payloads() {
        plugin.process(MockMessage::new("a").payload([b"\0\0\0\0\0".as_slice(), &payload].concat()));
    }
}

#[test]
fn names_what_is_wrong_with_a_configuration() {
    let proto = |source: &str, expected: &str| refused(json!({ "proto": source }), expected);
    let gone = Harness::<ConvertProtobuf>::new(json!({ "to": "json" })).err();
    assert_eq!(gone.as_deref(), Some("missing field `proto`"));
    refused(json!({ "to": "xml" }), "to: unknown variant `xml`, expected `json` or `protobuf`");
    proto("message A {\n  string a = 1\n}", "proto: line 3, column 1: expected ';' or '[', but found '}'");
    proto(
        "syntax = 'proto3';\nmessage A {\n  Nothing a = 1;\n}",
        "proto: line 3, column 3: name 'Nothing' is not defined",
    );
    proto("", "proto: it has no message");
    proto("import 'b.proto';", "proto: line 1, column 1: import 'b.proto' not found");
    refused(
        json!({ "proto": "import 'b.proto'; message A {}", "imports": { "b.proto": "message B { x }" } }),
        "imports.b.proto: line 1, column 15: expected '.' or an identifier, but found '}'",
    );
    refused(
        json!({ "proto": "import 'b.proto';", "imports": { "b.proto": "import 'proto';" } }),
        "proto: import cycle detected: proto -> b.proto -> proto",
    );
    refused(
        json!({ "to": "protobuf", "framing": "confluent" }),
        "schema_id: required with to = \"protobuf\" and framing = \"confluent\"",
    );
    refused(json!({ "schema_id": 1 }), "schema_id: goes with to = \"protobuf\" and framing = \"confluent\" alone");
}
