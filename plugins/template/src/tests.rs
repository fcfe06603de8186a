//! What templates make of messages, and what is refused.

use super::Template;
use quipu_plugin::prelude::{Plugin as _, Value, Verdict, forward, json, reject};
use quipu_plugin::testing::{Harness, MockMessage, run, survives};

fn quake() -> MockMessage {
    let payload = r#"{"id":"ak1","properties":{"mag":4.6,"place":"12 km \"SE\" of Nanwalek"},"tags":["a","b"]}"#;
    MockMessage::new("quakes.raw").id("m-7").key("ak").header("Type", "quake").payload(payload)
}

#[track_caller]
fn renders(template: &str, expected: &str) {
    let outcome = run::<Template>(json!({ "payload": template }), quake());
    assert_eq!((outcome.verdict.clone(), outcome.payload_text().as_str()), (forward(), expected));
}

#[track_caller]
fn rejects(config: Value, reason: &str) {
    let outcome = run::<Template>(config, quake());
    assert_eq!((outcome.verdict.clone(), outcome.message.payload), (reject(reason), quake().payload));
}

#[track_caller]
fn refused(config: Value, expected: &str) {
    assert_eq!(Harness::<Template>::new(config).err().as_deref(), Some(expected));
}

#[test]
fn sees_the_message() {
    renders("M {{ json.properties.mag }} {{ json.properties.place }}", "M 4.6 12 km \"SE\" of Nanwalek");
    renders("{{ message.id }} {{ message.tokens[1] }} {{ message.key }} {{ headers.type }}", "m-7 raw ak quake");
    renders(
        "{{ now }} {{ now_ms }} {{ message.published }}",
        "2026-05-28T20:26:40.000Z 1780000000000 2026-05-28T20:26:40.000Z",
    );
    renders("{{ text|length }} {{ message.expires_ms is none }} {{ route }}", "89 True mock-route");
    renders("{% for tag in json.tags %}<{{ tag|upper }}>{% endfor %}", "<A><B>");
    renders("{{ json.properties|tojson }}", r#"{"mag": 4.6, "place": "12 km \"SE\" of Nanwalek"}"#);
    renders("{{ json.none|default('-') }}{% if json.properties.mag > 4 %}!{% endif %}", "-!");
}

#[test]
fn sets_payload_headers_and_key() {
    let outcome = run::<Template>(
        json!({
            "payload": "{{ message.key }}", "key": "{{ json.id }}-{{ message.key }}",
            "headers": { "Level": "{{ 'high' if json.properties.mag > 4 else 'low' }}", "old": "{{ text|length }}" },
        }),
        quake(),
    );
    assert_eq!(outcome.verdict, forward());
    assert_eq!((outcome.header("level"), outcome.header("old")), (Some("high"), Some("89")));
    assert_eq!((outcome.message.key.as_deref(), outcome.payload_text().as_str()), (Some(&b"ak1-ak"[..]), "ak"));
}

#[test]
fn writes_json() {
    let config = |template: &str| json!({ "payload": template, "output": "json" });
    let template =
        r#"{"place": {{ json.properties.place }}, "tags": {{ json.tags }}, "big": {{ json.properties.mag > 4 }}}"#;
    let outcome = run::<Template>(config(template), quake());
    assert_eq!(outcome.json(), json!({ "place": "12 km \"SE\" of Nanwalek", "tags": ["a", "b"], "big": true }));
    rejects(config("{"), "payload: what comes out is no JSON: EOF while parsing an object at line 1 column 1");
}

#[test]
fn an_error_says_template_and_line() {
    rejects(json!({ "payload": "a\n{{ json.nowhere.x }}" }), "payload: line 2: undefined value");
    rejects(
        json!({ "headers": { "h": "{{ json.tags / 2 }}" } }),
        "headers.h: line 1: invalid operation: tried to use / operator on unsupported types sequence and number",
    );
    rejects(json!({ "headers": { "h": "a\nb" } }), r#"header "h": a control character in the value"#);
    let lenient = json!({ "payload": "<{{ json.nowhere }}>", "undefined": "lenient" });
    assert_eq!(run::<Template>(lenient, quake()).payload_text(), "<>");
}

#[test]
fn reads_the_payload_only_where_it_is_asked_for() {
    let plain = || quake().payload("no JSON");
    assert_eq!(run::<Template>(json!({ "payload": "{{ message.id }}" }), plain()).verdict, forward());
    let asked = run::<Template>(json!({ "payload": "{{ json.a }}" }), plain());
    assert_eq!(asked.verdict, reject("the payload is no JSON: expected ident at line 1 column 2"));
    let text = run::<Template>(json!({ "payload": "{{ text }}" }), plain().payload(b"\xff"));
    assert_eq!(text.verdict, reject("payload: line 1: undefined value"));
}

#[test]
fn rendering_has_a_budget() {
    let out_of_fuel = "payload: line 1: engine ran out of fuel";
    let starts = |template: &str| {
        let Verdict::Reject(reason) = run::<Template>(json!({ "payload": template }), quake()).verdict else {
            panic!("{template} is rendered");
        };
        assert!(reason.starts_with(out_of_fuel), "{reason}");
    };
    starts("{% for a in range(10000) %}{% for b in range(10000) %}{{ b }}{% endfor %}{% endfor %}");
    starts("{{ 'x' * 100000000 }}");
    rejects(json!({ "payload": "{{ json.id }}", "fuel": 1 }), out_of_fuel);
    let recursive = "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}";
    let verdict = run::<Template>(json!({ "payload": recursive }), quake()).verdict;
    assert!(matches!(&verdict, Verdict::Reject(reason) if reason.contains("recursion limit")), "{verdict:?}");
}

#[test]
fn nothing_of_a_message_is_a_template() {
    let outcome = run::<Template>(json!({ "payload": "{{ text }}" }), quake().payload("{{ now }}"));
    assert_eq!(outcome.payload_text(), "{{ now }}");
}

#[test]
fn survives_what_comes() {
    for undefined in ["strict", "lenient"] {
        let all = "{{ json }}{{ text|upper }}{{ headers['h-1'] }}{{ json.a.b }}{{ json|length }}{{ message }}";
        survives::<Template>(json!({ "payload": all, "undefined": undefined, "output": "json" }));
        survives::<Template>(
            json!({ "headers": { "h": "{{ text }}" }, "key": "{{ message.key }}{{ text }}", "undefined": undefined }),
        );
        survives::<Template>(
            json!({ "payload": "{% for x in json recursive %}{{ x }}{{ loop(x) }}{% endfor %}", "undefined": undefined }),
        );
        survives::<Template>(
            json!({ "payload": "{{ json|tojson(indent=4) }}{{ json.a|int }}{{ json.a|sort }}", "undefined": undefined }),
        );
    }
}

#[test]
fn names_what_is_wrong_with_a_configuration() {
    refused(json!({}), "one of payload, headers, key is required");
    refused(json!({ "payload": "a\n{% if %}" }), "payload: line 2: syntax error: unexpected end of block");
    refused(
        json!({ "headers": { "h": "{{ a" } }),
        "headers.h: line 1: syntax error: unexpected end of input, expected end of variable block",
    );
    refused(json!({ "headers": { "quipu-id": "x" } }), r#"headers.quipu-id: header "quipu-id" is the router's own"#);
    refused(json!({ "key": "x", "output": "json" }), "output: goes with payload");
    refused(json!({ "key": "x", "fuel": 0 }), "fuel: 0 is not between 1 and 100000000");
    assert!(Template::configure(r#"{"payload":"{% include 'x' %}"}"#).is_err());
}
