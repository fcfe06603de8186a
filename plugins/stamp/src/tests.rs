//! Headers, keys and events, and what is refused.

use super::Stamp;
use quipu_plugin::prelude::*;
use quipu_plugin::testing::{Harness, MockMessage, Outcome, hostile_payloads, run, survives};

fn quake() -> MockMessage {
    let payload = r#"{"net":"ak","mag":4.60}"#;
    MockMessage::new("quakes.raw").id("ak-1").key(b"\xff").header("Type", "quake").header("x", "1").payload(payload)
}

#[track_caller]
fn rejects(config: Value, reason: &str) {
    let outcome = run::<Stamp>(config, quake());
    assert_eq!((outcome.verdict, outcome.message), (reject(reason), quake()));
}

#[track_caller]
fn refused(config: Value, expected: &str) {
    assert_eq!(Harness::<Stamp>::new(config).err().as_deref(), Some(expected));
}

fn headers(outcome: &Outcome) -> Vec<String> {
    outcome.message.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect()
}

#[test]
fn sets_headers_and_the_key() {
    let outcome = run::<Stamp>(
        json!({
            "headers": { "net": "{field.net}", "type": "{header.type}/{header.x}", "quipu-priority": "7" },
            "default_headers": { "X": "other", "y": "{subject.1}" },
            "remove_headers": ["x"],
            "key": "{field.net}-{key}",
        }),
        quake(),
    );
    assert_eq!(outcome.verdict, forward());
    assert_eq!(headers(&outcome), ["Type: quake/1", "net: ak", "y: quakes"]);
    assert_eq!((outcome.message.key.as_deref(), outcome.message.priority), (Some(&b"ak-\xff"[..]), 7));
}

#[test]
fn rejects_what_is_missing_unless_told_otherwise() {
    rejects(json!({ "headers": { "a": "{header.none}" } }), r#"header a: the message has no header "none""#);
    rejects(json!({ "key": "{field.none}" }), "key: the message has no field none");
    let config = json!({
        "headers": { "a": "{header.none}", "b": "{id}" }, "key": "{field.none}", "missing": "skip",
        "cloudevents": { "source": "s", "type": "t", "time": "{header.none}", "subject": "{field.none}" },
    });
    let outcome = run::<Stamp>(config, quake());
    assert_eq!(outcome.message.key, quake().key);
    let expected =
        ["Type: quake", "x: 1", "b: ak-1", "ce-specversion: 1.0", "ce-id: ak-1", "ce-source: s", "ce-type: t"];
    assert_eq!(headers(&outcome), expected);
}

#[test]
fn rejects_what_no_header_can_have() {
    rejects(json!({ "headers": { "a": "{key}" } }), "header a: key is not UTF-8");
    let outcome = run::<Stamp>(json!({ "headers": { "a": "{payload}" } }), quake().payload("two\nlines"));
    assert_eq!(outcome.verdict, reject(r#"header "a": a control character in the value"#));
    let outcome = run::<Stamp>(json!({ "key": "{payload}" }), quake().payload("k".repeat(513)));
    assert_eq!(outcome.verdict, reject("key of 513 bytes, 512 at most"));
}

#[test]
fn makes_binary_events() {
    let outcome = run::<Stamp>(
        json!({ "cloudevents": {
            "source": "/quakes/{field.net}", "type": "org.example.{header.type}", "subject": "{subject}",
            "datacontenttype": "application/json", "extensions": { "magnitude": "{field.mag}" },
        } }),
        quake().published_ms(1_700_000_000_123),
    );
    assert_eq!(outcome.message.payload, quake().payload);
    let expected = [
        "Type: quake",
        "x: 1",
        "ce-specversion: 1.0",
        "ce-id: ak-1",
        "ce-source: /quakes/ak",
        "ce-type: org.example.quake",
        "ce-time: 2023-11-14T22:13:20.123Z",
        "ce-subject: quakes.raw",
        "content-type: application/json",
        "ce-magnitude: 4.6",
    ];
    assert_eq!(headers(&outcome), expected);
}

#[test]
fn makes_structured_events() {
    let config = json!({ "cloudevents": { "mode": "structured", "source": "s", "type": "t", "id": "{subject}-{id}", "time": "{now}" } });
    let event = |message: MockMessage| {
        let outcome = run::<Stamp>(&config, message);
        assert_eq!(outcome.header("content-type"), Some("application/cloudevents+json"), "{:?}", outcome.verdict);
        outcome.payload_text()
    };
    let core = r#""source":"s","specversion":"1.0","time":"2026-05-28T20:26:40.000Z","type":"t""#;
    assert_eq!(event(quake()), format!(r#"{{"id":"quakes.raw-ak-1",{core},"data":{{"net":"ak","mag":4.60}}}}"#));
    assert_eq!(event(quake().payload("")), format!(r#"{{"id":"quakes.raw-ak-1",{core}}}"#));
    let typed = |kind: &str, payload: &[u8]| event(quake().header("Content-Type", kind).payload(payload));
    assert_eq!(
        typed("text/plain", b"\"hi\""),
        format!(r#"{{"datacontenttype":"text/plain","id":"quakes.raw-ak-1",{core},"data":"\"hi\""}}"#)
    );
    assert!(typed("image/png", b"\xff\xfe").ends_with(r#","data_base64":"//4="}"#));
    assert!(typed("application/geo+json; charset=utf-8", b" [1] ").ends_with(r#","data":[1]}"#));
    let outcome = run::<Stamp>(&config, quake().payload("x"));
    assert_eq!(outcome.verdict, reject("the payload is no JSON: expected value at line 1 column 1"));
}

#[test]
fn an_event_has_what_the_specification_wants() {
    rejects(
        json!({ "cloudevents": { "source": "{field.none}", "type": "t" }, "missing": "skip" }),
        "cloudevents.source: the message has no field none",
    );
    rejects(json!({ "cloudevents": { "source": "s", "type": "" } }), "cloudevents.type: empty");
}

#[test]
fn survives_what_comes() {
    survives::<Stamp>(json!({ "headers": { "a": "{payload}", "b": "{key}" }, "key": "{field.a}", "missing": "skip" }));
    survives::<Stamp>(
        json!({ "cloudevents": { "source": "{field.a}", "type": "t", "extensions": { "b": "{field.b}" } } }),
    );
    for mode in ["binary", "structured"] {
        let config = json!({ "cloudevents": { "mode": mode, "source": "s", "type": "t" } });
        let mut plugin = Harness::<Stamp>::new(config).unwrap();
        for payload in hostile_payloads() {
            for kind in ["text/plain", "application/json"] {
                plugin.process(MockMessage::new("a").header("content-type", kind).payload(payload.clone()));
            }
        }
    }
}

#[test]
fn names_what_is_wrong_with_a_configuration() {
    refused(json!({}), "one of headers, default_headers, remove_headers, key, cloudevents is required");
    refused(
        json!({ "headers": { "a": "{id" } }),
        r#"headers.a: invalid template "{id": a brace without its partner; one that is meant is written twice"#,
    );
    refused(json!({ "headers": { "quipu-id": "x" } }), r#"headers.quipu-id: header "quipu-id" is the router's own"#);
    refused(
        json!({ "remove_headers": ["a b"] }),
        r#"remove_headers[0]: header "a b": a name is visible ASCII without `:`"#,
    );
    refused(json!({ "cloudevents": { "source": "s" } }), "cloudevents: missing field `type`");
    let extension = |name: &str| json!({ "cloudevents": { "source": "s", "type": "t", "extensions": { name: "v" } } });
    refused(
        extension("A"),
        r#"cloudevents.extensions.A: invalid attribute "A": 1 to 20 lower-case letters and digits"#,
    );
    refused(extension("time"), r#"cloudevents.extensions.time: "time" is no extension: it has a key of its own"#);
    refused(json!({ "key": "k", "missing": "drop" }), "missing: unknown variant `drop`, expected `reject` or `skip`");
}
