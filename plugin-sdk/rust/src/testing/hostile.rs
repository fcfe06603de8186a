//! Messages that nobody sends on purpose, and that a plugin has to have a verdict on all the same.

use super::{Harness, MockMessage};
use crate::Plugin;
use std::fmt::Display;

/// Hands a plugin one message after another that is broken, deep, huge or empty, and finds that it panics on none:
/// whatever comes in at the front ends in a verdict. Messages that have this, where the plugin would look at nothing
/// without it: hand those to `Harness::process` as well, with the payloads of [`hostile_payloads`].
///
/// # Panics
///
/// Where the plugin refuses the configuration, panics, or does what the router traps on.
pub fn survives<P: Plugin>(config: impl Display) {
    let mut harness = Harness::<P>::new(config).unwrap_or_else(|error| panic!("the configuration is refused: {error}"));
    for payload in hostile_payloads() {
        let plain = MockMessage::new("a.b").payload(payload);
        let full = (0..64).fold(plain.clone().key(b"\xff\x00"), |message, n| message.header(format!("h-{n}"), "v"));
        harness.process(plain);
        harness.process(full);
    }
}

/// Payloads that are hard to read: empty, no UTF-8, cut off, deep, with huge numbers, long names, lone surrogates and
/// control characters; some are JSON, some are not.
pub fn hostile_payloads() -> Vec<Vec<u8>> {
    let nested = |depth: usize, open: &str, inside: &str, close: &str| {
        format!("{}{inside}{}", open.repeat(depth), close.repeat(depth))
    };
    let texts = [
        String::new(),
        " ".into(),
        "\0".into(),
        "\u{feff}{}".into(),
        "null".into(),
        "true".into(),
        "-0".into(),
        "1e400".into(),
        "\"\"".into(),
        "{".into(),
        "[]".into(),
        "{}".into(),
        "[[],{},null,\"\",0]".into(),
        r#""\ud800""#.into(),
        r#"{"a":"\u0000\n\r\t","a":{"":{"a":null}}}"#.into(),
        r#"{"a":[1,{"b":[{"c":-1e-320}]}],"b":null,"":7}"#.into(),
        format!("{{\"a\":{}.{}e-7}}", "9".repeat(400), "1".repeat(400)),
        format!("{{\"a\":{{\"{}\":[{}]}}}}", "n".repeat(70_000), "1,".repeat(2_000) + "2"),
        format!("{{\"a\":\"{}\"}}", "\u{e9}\\n\u{1f600}".repeat(5_000)),
        nested(100, "[", "1", "]"),
        nested(120, r#"{"a":"#, "1", "}"),
        nested(100_000, "[", "", "]"),
        nested(100_000, r#"{"a":"#, "1", "}"),
        "=,;\"'%{}()\\|\t\r\n".repeat(2_000),
        "a=b=c==d \u{85}\u{2028} 9999999999999999999999=-99999999999999999999\r\n,\",\"\"\r".into(),
        "@.@".repeat(10_000),
        "+1-".repeat(10_000),
        "::1:".repeat(10_000),
        "GB33".repeat(10_000),
        "4".repeat(100_000),
    ];
    let mut payloads: Vec<Vec<u8>> = texts.into_iter().map(String::into_bytes).collect();
    payloads.extend([b"\xff\xfe".to_vec(), b"{\"a\":\"\xc3\"}".to_vec(), vec![0x80; 5_000]]);
    payloads
}
