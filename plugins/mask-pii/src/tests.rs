//! Payloads before and after, and what is refused.

use super::MaskPii;
use quipu_plugin::prelude::*;
use quipu_plugin::testing::{Harness, MockMessage, hostile_payloads, run, survives};

const KEY: &str = "0123456789abcdef";
const EVERYTHING: [&str; 7] = ["email", "iban", "ipv6", "ipv4", "credit-card", "us-ssn", "phone"];

#[track_caller]
fn masks(config: Value, payload: &str, expected: &str) {
    let outcome = run::<MaskPii>(config, MockMessage::new("a").payload(payload));
    assert_eq!((outcome.verdict.clone(), outcome.payload_text().as_str()), (forward(), expected));
}

#[track_caller]
fn rejects(config: Value, payload: &[u8], reason: &str) {
    assert_eq!(run::<MaskPii>(config, MockMessage::new("a").payload(payload)).verdict, reject(reason));
}

#[track_caller]
fn refused(config: Value, expected: &str) {
    assert_eq!(Harness::<MaskPii>::new(config).err().as_deref(), Some(expected));
}

/// The hashes are those of `printf %s TEXT | openssl dgst -sha256 -hmac 0123456789abcdef`.
#[test]
fn removes_masks_and_hashes_fields() {
    let config = json!({ "remove": ["card.cvv"], "mask": ["name"], "hash": ["user", "n"], "hash_key": KEY });
    masks(
        config.clone(),
        r#"{ "name": {"first":"A"}, "user":"ann", "n": 1.50, "card": {"cvv":1,"x": 1.10} }"#,
        r#"{ "name": "***", "user":"fb385915a0623c0be3e7b0a7134dbb62", "n": "a056620904076ee8b9f0a3b2cd795080", "card": {"x": 1.10} }"#,
    );
    masks(config.clone(), r#"[{"user":"\u0061nn"}]"#, r#"[{"user":"fb385915a0623c0be3e7b0a7134dbb62"}]"#);
    masks(config, r#"{"other": 1 }"#, r#"{"other": 1 }"#);
    masks(json!({ "mask": ["a"], "replacement": "\"" }), r#"{"a":1}"#, r#"{"a":"\""}"#);
}

#[test]
fn detects_in_all_texts_and_numbers_but_no_names() {
    masks(
        json!({ "detect": EVERYTHING }),
        r#"{ "a@b.co": "to a@b.co\n", "l": ["\u0061@b.co", 4111111111111111, 1.10], "ip":"10.0.0.1" , "x":"\"\\"}"#,
        r#"{ "a@b.co": "to [email]\n", "l": ["[email]", "[credit-card]", 1.10], "ip":"[ipv4]" , "x":"\"\\"}"#,
    );
    masks(json!({ "detect": ["phone"] }), r#""a@b.co""#, r#""a@b.co""#);
}

#[test]
fn detects_in_the_fields_that_are_asked() {
    masks(
        json!({ "detect": ["email"], "detect_in": ["note", "l.text"] }),
        r#"{"note":{"x":["a@b.co"]},"l":[{"text":"c@d.co","from":"e@f.co"}]}"#,
        r#"{"note":{"x":["[email]"]},"l":[{"text":"[email]","from":"e@f.co"}]}"#,
    );
}

#[test]
fn hashes_what_it_detects() {
    masks(
        json!({ "detect": ["email"], "detected": "hash", "hash_key": KEY, "remove": ["x"] }),
        r#"{"x":1,"y":"ann@example.org, ann@example.org"}"#,
        r#"{"y":"[email:b2eadfbaaca8f7b30b76563378bedc2f], [email:b2eadfbaaca8f7b30b76563378bedc2f]"}"#,
    );
}

#[test]
fn masks_plain_text() {
    masks(
        json!({ "detect": EVERYTHING, "payload": "text" }),
        "Ann <ann@example.org> paid with 4111 1111 1111 1111\nfrom DE89 3704 0044 0532 0130 00, tel. +49 30 1234567\n",
        "Ann <[email]> paid with [credit-card]\nfrom [iban], tel. [phone]\n",
    );
    masks(json!({ "detect": EVERYTHING, "payload": "text" }), "{", "{");
}

#[test]
fn rejects_what_it_cannot_read() {
    let config = json!({ "detect": ["email"] });
    rejects(config.clone(), b"a@b.co", "the payload is no JSON: expected value at line 1 column 1");
    rejects(config.clone(), b"\xff", "the payload is not UTF-8");
    rejects(json!({ "detect": ["email"], "payload": "text" }), b"a@b.co\xff", "the payload is not UTF-8");
    // Half a character may not carry an address past the search.
    let half = br#"{"a":"\ud800 a@b.co"}"#;
    let Verdict::Reject(reason) = run::<MaskPii>(config, MockMessage::new("a").payload(half)).verdict else { panic!() };
    assert!(reason.starts_with("the payload is no JSON: "), "{reason}");
    let within = json!({ "detect": ["email"], "detect_in": ["a"] });
    assert!(matches!(run::<MaskPii>(within, MockMessage::new("a").payload(half)).verdict, Verdict::Reject(_)));
}

#[test]
fn survives_what_comes() {
    for payload in ["json", "text"] {
        survives::<MaskPii>(json!({ "detect": EVERYTHING, "detected": "hash", "hash_key": KEY, "payload": payload }));
    }
    survives::<MaskPii>(
        json!({ "remove": ["a.b"], "mask": ["b"], "hash": ["a"], "hash_key": KEY, "detect": EVERYTHING, "detect_in": ["a"] }),
    );
    // Whatever a text is, as JSON it stays JSON.
    let mut plugin = Harness::<MaskPii>::new(json!({ "detect": EVERYTHING })).unwrap();
    for payload in hostile_payloads() {
        let text = String::from_utf8_lossy(&payload).into_owned();
        let outcome = plugin.process(MockMessage::new("a").json(text));
        assert_eq!(outcome.verdict, forward());
        assert!(outcome.json().is_string());
    }
}

#[test]
fn names_what_is_wrong_with_a_configuration() {
    refused(json!({}), "one of remove, mask, hash, detect is required");
    refused(json!({ "hash": ["a"] }), "hash_key: is required for hashes");
    refused(json!({ "detect": ["email"], "detected": "hash" }), "hash_key: is required for hashes");
    refused(json!({ "hash": ["a"], "hash_key": "short" }), "hash_key: 5 bytes, at least 16 are needed");
    refused(json!({ "mask": ["a", "b."] }), r#"mask[1]: invalid path "b.": empty name"#);
    refused(
        json!({ "detect": ["email", "name"] }),
        "detect[1]: unknown variant `name`, expected one of `email`, `phone`, `credit-card`, `iban`, `ipv4`, `ipv6`, \
         `us-ssn`",
    );
    refused(json!({ "mask": ["a"], "payload": "text" }), r#"mask: text has no fields; it goes with payload = "json""#);
    refused(json!({ "mask": ["a"], "detect_in": ["b"] }), r#"detect_in: goes with detect and payload = "json""#);
}
