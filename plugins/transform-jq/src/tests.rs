use super::TransformJq;
use quipu_plugin::prelude::*;
use quipu_plugin::testing::{Harness, MockMessage, Outcome, run, survives};

const QUAKE: &str =
    r#"{"id":"ak1","properties":{"mag":4.6,"place":"12 km SE of Nanwalek","n":12345678901234567890123}}"#;

fn transform(config: Value, payload: impl Into<Vec<u8>>) -> Outcome {
    run::<TransformJq>(config, MockMessage::new("quakes.raw").header("Source", "usgs").key("ak").payload(payload))
}

/// A program on the quake, and the payload that comes of it.
#[track_caller]
fn gives(program: &str, expected: &str) {
    let outcome = transform(json!({ "program": program }), QUAKE);
    assert_eq!((outcome.verdict.clone(), outcome.payload_text().as_str()), (forward(), expected));
}

#[track_caller]
fn rejected(program: &str, expected: &str) {
    assert_eq!(transform(json!({ "program": program }), QUAKE).verdict, reject(expected));
}

#[track_caller]
fn refused(config: Value, expected: &str) {
    assert_eq!(Harness::<TransformJq>::new(config).err().as_deref(), Some(expected));
}

#[test]
fn one_result_is_the_payload() {
    gives("{ id, mag: .properties.mag }", r#"{"id":"ak1","mag":4.6}"#);
    gives(".properties.n", "12345678901234567890123");
    gives("if .properties.mag >= 4.5 then .size = \"big\" | .size else empty end", "\"big\"");
    gives("[.properties | to_entries[] | .key] | sort", r#"["mag","n","place"]"#);
    gives("del(.properties)", r#"{"id":"ak1"}"#);
    gives("null", "null");
}

#[test]
fn no_result_is_a_drop() {
    let outcome = transform(json!({ "program": "select(.properties.mag > 9)" }), QUAKE);
    assert_eq!(outcome.verdict, drop("the program gave no result"));
}

#[test]
fn many_results_are_as_told() {
    let of = |many: &str| {
        let mut config = json!({ "program": ".[]", "many": many });
        if many == "split" {
            config["subject"] = json!("parts");
        }
        transform(config, "[1,{\"a\":2},\"x\"]")
    };
    assert_eq!(of("reject").verdict, reject("the program gave 3 results, where many is \"reject\""));
    let outcome = of("array");
    assert_eq!((outcome.verdict.clone(), outcome.payload_text().as_str()), (forward(), r#"[1,{"a":2},"x"]"#));
    let outcome = of("split");
    assert_eq!(outcome.verdict, drop("split"));
    let emitted: Vec<_> = outcome.emitted.iter().map(|one| String::from_utf8_lossy(&one.payload)).collect();
    assert_eq!(emitted, ["1", r#"{"a":2}"#, "\"x\""]);
    assert!(outcome.emitted.iter().all(|one| one.subject == "parts" && one.key.as_deref() == Some(b"ak")));
    assert_eq!(transform(json!({ "program": "empty", "many": "array" }), "1").payload_text(), "[]");
    let config = json!({ "program": "range(2000)", "many": "array" });
    assert_eq!(transform(config, "1").verdict, reject("the program gave more than 1024 results"));
}

#[test]
fn a_refused_part_rejects_the_whole() {
    let config = json!({ "program": ".[]", "many": "split", "subject": "parts" });
    let message = MockMessage::new("a").payload("[1,2]").refusing(Refusal::Loop);
    let outcome = run::<TransformJq>(config, message);
    assert_eq!(outcome.verdict, reject("part 1 to parts: emitting there would loop"));
}

#[test]
fn reads_the_message_and_its_variables() {
    gives(
        "[$message.subject, $message.key, $message.headers.source, $message.attempt]",
        r#"["quakes.raw","ak","usgs",1]"#,
    );
    let config =
        json!({ "program": ".properties.mag * $scale + $more.by", "vars": { "scale": 10, "more": { "by": 1 } } });
    assert_eq!(transform(config, QUAKE).payload_text(), "47.0");
    gives("now | floor", "1780000000");
}

#[test]
fn knows_patterns() {
    gives(r#".properties.place | test("^\\d+ km")"#, "true");
    gives(r#".properties.place | capture("(?<km>\\d+) km (?<way>[NSEW]+)")"#, r#"{"km":"12","way":"SE"}"#);
    gives(r#".properties.place | [scan("[A-Z]+")] | join("-")"#, "\"SE-N\"");
    gives(r#".properties.place | gsub("(?<n>\\d)"; "<\(.n)>")"#, "\"<1><2> km SE of Nanwalek\"");
    gives(r#".properties.place | sub("KM"; "miles"; "i")"#, "\"12 miles SE of Nanwalek\"");
    gives(r#""äb, c,d" | [splits(", *")]"#, r#"["äb","c","d"]"#);
    gives(r#""äbä" | [match("ä"; "g").offset]"#, "[0,2]");
    gives(r#""b" | match("(a)|b").captures"#, "[]");
    rejected(r#".id | test("(")"#, "program: invalid regex: found open group without closing ')'");
    rejected(r#".id | test("a"; "q")"#, "program: invalid regex flag: q");
}

#[test]
fn knows_formats() {
    gives(".id | @base64", "\"YWsx\"");
    gives(".id | @base64 | @base64d", "\"ak1\"");
    gives(r#""a b/ü" | @uri"#, "\"a%20b%2F%C3%BC\"");
    gives(r#""<a&'b'>" | @html"#, "\"&lt;a&amp;&#39;b&#39;&gt;\"");
    gives(r#"[1,"a\"b"] | @csv"#, r#""1,\"a\"\"b\"""#);
    gives(r#"[null,"a\tb",true] | @tsv"#, r#""\ta\\tb\ttrue""#);
    rejected("[[1]] | @csv", "program: cannot use [1] as field of a row");
    gives(r#""it's" | @sh"#, r#""'it'\\''s'""#);
    rejected(r#""*" | @base64d"#, "program: Invalid symbol 42, offset 0.");
}

#[test]
fn knows_numbers_and_dates() {
    gives("[9 | sqrt, pow(2; 10)]", "[3.0,1024.0]");
    gives("1709208000 | todate", "\"2024-02-29T12:00:00Z\"");
    gives(r#""2024-02-29T12:00:00Z" | fromdate"#, "1709208000");
    rejected(r#""yesterday" | fromdate"#, r#"program: cannot read "yesterday" as a date such as 2026-05-01T12:00:00Z"#);
}

#[test]
fn logs_what_a_program_debugs() {
    let outcome = transform(json!({ "program": ".id | debug" }), QUAKE);
    assert_eq!(outcome.logs[0].text, "\"ak1\"");
}

#[test]
fn rejects_what_a_program_fails_on() {
    rejected(".id + 1", r#"program: cannot calculate "ak1" + 1"#);
    rejected(r#"error("no such order")"#, "program: no such order");
    rejected("nan", "the result is no JSON: a number that is not finite");
    rejected(
        "{(.properties.mag | tostring | .[:1] | tonumber): 1}",
        "the result is no JSON: an object whose key is no text",
    );
    rejected("reduce range(200) as $i (0; [.])", "the result is no JSON: it is nested too deep");
}

#[test]
fn survives_hostile_payloads() {
    survives::<TransformJq>(json!({ "program": "$message, ., (.. | tostring)", "many": "array" }));
    survives::<TransformJq>(json!({ "program": "[.. | strings | test(\"a+\"), ascii_upcase, @uri, length]" }));
    let rejected = |payload: &[u8]| match transform(json!({ "program": "." }), payload).verdict {
        Verdict::Reject(reason) => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(rejected(b""), "the payload is no JSON: EOF while parsing a value at line 1 column 0");
    assert_eq!(rejected(b"{\"a\":1"), "the payload is no JSON: EOF while parsing an object at line 1 column 6");
    assert_eq!(rejected(b"NaN"), "the payload is no JSON: expected value at line 1 column 1");
    assert!(rejected(b"\"\xff\"").starts_with("the payload is no JSON: invalid"));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(rejected(deep.as_bytes()), "the payload is nested 100000 levels deep, 127 at most");
    assert_eq!(transform(json!({ "program": "." }), "[1e999,-0,0.10]").payload_text(), "[1e999,0,0.10]");
    assert_eq!(
        transform(json!({ "program": ".[0] + 1" }), "[1e999]").verdict,
        reject("the result is no JSON: a number that is not finite")
    );
}

#[test]
fn names_what_is_wrong_with_a_configuration() {
    refused(json!({}), "missing field `program`");
    refused(json!({ "program": ". |\n  foo(1)" }), "program: line 2, column 3: there is no filter foo/1");
    refused(json!({ "program": "{ a: $x }" }), "program: line 1, column 6: there is no variable $x");
    refused(json!({ "program": "(.a" }), "program: line 1, column 4: expected closing parenthesis, found the end");
    refused(json!({ "program": "if . then 1" }), "program: line 1, column 12: expected else or end, found the end");
    refused(json!({ "program": "env" }), "program: line 1, column 1: there is no filter env/0");
    refused(json!({ "program": ".", "many": "split" }), "subject: required where many is \"split\"");
    refused(json!({ "program": ".", "subject": "a" }), "subject: goes with many = \"split\" alone");
    refused(
        json!({ "program": ".", "vars": { "1a": 1 } }),
        "vars.1a: a name is letters, digits and `_`, and begins with no digit",
    );
    refused(json!({ "program": ".", "vars": { "message": 1 } }), "vars.message: $message is the message in hand");
    refused(json!({ "program": "include \"a\"; ." }), "program: line 1, column 10: modules cannot be loaded");
}
