use crate::ScriptJs;
use quipu_plugin::Refusal;
use quipu_plugin::prelude::*;
use quipu_plugin::testing::{Harness, MockMessage, Outcome, run, survives};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

const QUAKE: &str = r#"{"id":"ak1","properties":{"mag":4.6,"place":"12 km SE of Nanwalek"}}"#;

fn message() -> MockMessage {
    MockMessage::new("quakes.raw").key("ak").header("Source", "usgs").payload(QUAKE)
}

/// A script whose `process` is this.
fn does(body: &str) -> Outcome {
    run::<ScriptJs>(json!({ "code": format!("function process(message, config) {{ {body} }}") }), message())
}

#[track_caller]
fn says(body: &str, expected: Verdict) {
    assert_eq!(does(body).verdict, expected, "{body}");
}

/// What an expression comes to, as JSON.
#[track_caller]
fn gives(expression: &str, expected: &str) {
    let outcome = does(&format!("message.setJson({expression}); return forward();"));
    assert_eq!((outcome.verdict.clone(), outcome.payload_text().as_str()), (forward(), expected), "{expression}");
}

/// The fault: its text, and below it the trace.
#[track_caller]
fn fault(config: Value) -> String {
    let panicked = catch_unwind(AssertUnwindSafe(|| run::<ScriptJs>(config, message()).verdict));
    *panicked.expect_err("it goes on").downcast::<String>().unwrap()
}

#[track_caller]
fn fails(body: &str, expected: &str) {
    let said = fault(json!({ "code": format!("function process(message, config) {{ {body} }}") }));
    assert_eq!(said.lines().next(), Some(expected), "{body}");
}

#[track_caller]
fn refused(config: Value, expected: &str) {
    assert_eq!(Harness::<ScriptJs>::new(config).err().as_deref(), Some(expected));
}

#[test]
fn gives_each_verdict() {
    says("return forward()", forward());
    says("return drop('small')", drop("small"));
    says("return reject('no')", reject("no"));
    says("return route('a', 'b.c')", route(["a", "b.c"]));
    says("return route(['a'])", route(["a"]));
    says("return retry('later')", retry("later"));
    says("return retry('later', 1500)", retry_after(Duration::from_millis(1_500), "later"));
}

#[test]
fn takes_a_function_exported_or_not() {
    for code in [
        "function process() { return drop('x') }",
        "export function process() { return drop('x') }",
        "const process = () => drop('x');",
        "import { drop as d } from 'quipu'; export const process = () => d('x')",
        "const run = () => drop('x'); export { run as process } // and so on",
        "export default function process() { return drop('x') }",
    ] {
        let plugin = Harness::<ScriptJs>::new(json!({ "code": code })).map_err(|error| format!("{error}: {code}"));
        assert_eq!(plugin.unwrap().process(message()).verdict, drop("x"), "{code}");
    }
}

#[test]
fn reads_the_message() {
    gives(
        "[message.id, message.subject, message.originSubject, message.keyText, message.header('source'), message.attempt]",
        r#"["m-1","quakes.raw","quakes.raw","ak","usgs",1]"#,
    );
    gives("[message.headers, message.headerValues('x'), message.header('x')]", r#"[[["Source","usgs"]],[],null]"#);
    gives("[message.publishedMs, message.expiresMs, message.priority, message.replyTo]", "[1780000000000,null,0,null]");
    gives("[message.payload.length, message.payloadLength, message.text.length]", "[68,68,68]");
    gives("[...message.payloadRange(2, 2), ...message.key]", "[105,100,97,107]");
    gives("message.jsonAt('properties.mag', Number) * 2", "9.2");
    gives("message.json.properties", r#"{"mag":4.6,"place":"12 km SE of Nanwalek"}"#);
    gives("[context.plugin, context.route]", r#"["mock-plugin","mock-route"]"#);
}

#[test]
fn changes_the_message() {
    let outcome = does(
        "message.setHeader('size', 'big'); message.addHeader('seen', 'a'); message.removeHeader('SOURCE');
         message.setKey('ü'); message.setPayload(new Uint8Array([1, 2, 255]).subarray(1)); return forward()",
    );
    assert_eq!(
        (outcome.header("size"), outcome.header("seen"), outcome.header("source")),
        (Some("big"), Some("a"), None)
    );
    assert_eq!((outcome.message.key, outcome.message.payload), (Some("ü".into()), vec![2, 255]));
    let outcome = does(
        "message.removeKey(); message.setPayload('ä€😀'); message.setPayload(message.text + message.payload.length); return forward()",
    );
    assert_eq!((outcome.message.key.clone(), outcome.payload_text().as_str()), (None, "ä€😀9"));
    fails("message.setHeader('a b', '')", "TypeError: header \"a b\": a name is visible ASCII without `:` (code:1:54)");
    fails("message.setHeader('quipu-id', 'x')", "TypeError: header \"quipu-id\" is the router's own (code:1:54)");
    fails("message.setHeader('a', 7)", "TypeError: setHeader takes a value as text, not 7 (code:1:54)");
}

#[test]
fn emits_messages() {
    let body = "message.emit({ subject: 'alarms', key: 'k', headers: { type: 'quake' }, json: { a: 1 }, priority: 9 });
        message.emit({ subject: 'raw', payload: new Uint8Array([0]) }); message.emitCopy('audit'); return forward()";
    let outcome = does(body);
    let alarm = Outgoing::new("alarms").key("k").header("type", "quake").priority(9).payload(r#"{"a":1}"#);
    let copy = Outgoing::new("audit").key("ak").header("Source", "usgs").payload(QUAKE);
    assert_eq!(outcome.emitted, [alarm, Outgoing::new("raw").payload([0]), copy]);
    let code = "function process(message) { try { message.emitCopy('a') } catch (e) { return drop(`${e instanceof Refused} ${e.refusal}`) } }";
    let outcome = run::<ScriptJs>(json!({ "code": code }), message().refusing(Refusal::NotGranted));
    assert_eq!(outcome.verdict, drop("true not-granted"));
}

#[test]
fn logs_what_it_is_told() {
    let outcome = does("log.warn('a', { b: 1 }); console.log('c'); return forward()");
    let lines: Vec<_> = outcome.logs.iter().map(|line| (line.level, line.text.as_str())).collect();
    assert_eq!(lines, [(log::Level::Warn, "a {\"b\":1}"), (log::Level::Info, "c")]);
}

#[test]
fn time_and_chance_are_the_routers() {
    gives(
        "[Date.now(), new Date().toISOString(), new Date().getTimezoneOffset()]",
        "[1780000000000,\"2026-05-28T20:26:40.000Z\",0]",
    );
    let code = "function process(message) { message.setJson([Math.random(), Math.random()]); return forward() }";
    let mut plugin = Harness::<ScriptJs>::new(json!({ "code": code })).unwrap();
    let mut next = |seed| plugin.process(message().seed(seed)).payload_text();
    let (first, other) = (next(7), next(8));
    assert_ne!(first, other);
    assert_eq!(next(7), first);
    let [a, b] = serde_json_pair(&first);
    assert!(a != b && (0.0..1.0).contains(&a) && (0.0..1.0).contains(&b), "{first}");
}

fn serde_json_pair(text: &str) -> [f64; 2] {
    quipu_plugin::serde_json::from_str(text).unwrap()
}

#[test]
fn configures() {
    let code = "export const schema = { at_least: Number, label: 'big' };
        let seen = 0;
        export function configure(config) { if (config.at_least < 0) throw new ConfigError('at_least: below zero'); seen = config.at_least }
        export function process(message, config) { return drop(`${config.label} ${seen}`) }";
    let with = |config: Value| json!({ "code": code, "config": config });
    assert_eq!(run::<ScriptJs>(with(json!({ "at_least": 4.5 })), message()).verdict, drop("big 4.5"));
    refused(with(json!({})), "config: missing key `at_least`");
    refused(with(json!({ "at_least": "x" })), "config: at_least: found text, expected a number: \"x\"");
    refused(with(json!({ "at_least": 1, "lable": "x" })), "config: unknown key `lable`; known: at_least, label");
    refused(with(json!({ "at_least": -1 })), "config: at_least: below zero");
    says("return drop(JSON.stringify(config))", drop("{}"));
}

#[test]
fn keeps_what_a_script_remembers() {
    let code = "let count = 0; function process() { count += 1; return drop(String(count)) }";
    let mut plugin = Harness::<ScriptJs>::new(json!({ "code": code })).unwrap();
    let said: Vec<_> = (0..3).map(|_| plugin.process(message()).verdict).collect();
    assert_eq!(said, [drop("1"), drop("2"), drop("3")]);
}

#[test]
fn rejects_what_is_no_json_or_lacks_a_field() {
    let at = |payload: &str| {
        let code = "function process(message) { message.jsonAt('p.n', Number); return forward() }";
        run::<ScriptJs>(json!({ "code": code }), MockMessage::new("a").payload(payload)).verdict
    };
    assert_eq!(at(r#"{"p":{"n":1}}"#), forward());
    assert_eq!(at(r#"{"p":{}}"#), reject("p.n: absent: \"p\" has no \"n\""));
    assert_eq!(at(r#"{"p":{"n":"x"}}"#), reject("p.n: found text, expected a number"));
    assert_eq!(at("[1"), reject("the payload is no JSON: EOF while parsing a list at line 1 column 2"));
    assert_eq!(
        at(&"[".repeat(100_000)),
        reject("the payload is no JSON: recursion limit exceeded at line 1 column 128")
    );
    says("throw new Reject('too odd')", reject("too odd"));
}

#[test]
fn faults_have_places_and_lines() {
    let code = "function mag(message) {\n  return message.json.none.value;\n}\nfunction process(message) {\n  return mag(message);\n}";
    assert_eq!(
        fault(json!({ "code": code })),
        "TypeError: cannot convert 'null' or 'undefined' to object (code:2:28)\n\
         at mag (code:2:28)\n    | return message.json.none.value;\n\
         at process (code:5:13)\n    | return mag(message);",
    );
    // Of what is called the engine knows no more than the function around it.
    let around = "TypeError: cannot convert 'null' or 'undefined' to object (in the function at code:1:35)";
    fails("message.json.none.call()", around);
    fails("throw new RangeError('far')", "RangeError: far (code:1:43)");
    fails("throw 'plain'", "thrown: plain (code:1:43)");
    fails("nothing.there", "ReferenceError: nothing is not defined (code:1:45)");
    fails("return drop(7)", "TypeError: drop takes a reason as text, not 7 (code:1:48)");
    fails("return retry('x', -1)", "TypeError: retry takes whole milliseconds from 0 on, not -1 (code:1:49)");
}

#[test]
fn what_is_no_verdict_is_a_fault() {
    let instead = "it has to return forward(), route(…), drop(…), retry(…) or reject(…)";
    fails("return 7", &format!("TypeError: process gave 7: {instead}"));
    fails("", &format!("TypeError: process gave nothing: {instead}"));
    fails(
        "return Promise.resolve(forward())",
        "TypeError: process gave a promise: it cannot be async, since there is nothing to wait for",
    );
}

#[test]
fn json_is_parsed_as_the_language_does() {
    gives(
        r#"JSON.parse('{"b":1,"a":[1,2.5,"x",null,true],"__proto__":7,"b":2}')"#,
        r#"{"b":2,"a":[1,2.5,"x",null,true],"__proto__":7}"#,
    );
    gives("JSON.parse('{\"a\":[1,2],\"b\":3}', (name, value) => (name === 'b' ? undefined : value))", r#"{"a":[1,2]}"#);
    says(
        "try { JSON.parse('[1') } catch (e) { return drop(String(e)) }",
        drop("SyntaxError: EOF while parsing a list at line 1 column 2"),
    );
}

#[test]
fn calls_within_calls_end() {
    let said = fault(json!({ "code": "const process = () => process()" }));
    assert!(said.starts_with("RuntimeLimitError: reached the maximum number of recursive calls"), "{said}");
    let said = fault(json!({ "code": "const process = () => [1].map(process)" }));
    assert!(said.starts_with("RuntimeLimitError: reached the maximum number of recursive calls"), "{said}");
}

#[test]
fn survives_hostile_payloads() {
    let code = "function process(message) {
        message.payloadRange(0, 100).reverse(); message.headers; message.keyText;
        const found = JSON.stringify(message.json);
        message.setJson({ found });
        return forward();
    }";
    survives::<ScriptJs>(json!({ "code": code }));
}

#[test]
fn names_what_is_wrong_with_a_configuration() {
    let code = |code: &str, expected: &str| refused(json!({ "code": code }), expected);
    refused(json!({}), "missing field `code`");
    refused(json!({ "code": "", "confg": {} }), "confg: unknown field `confg`, expected `code` or `config`");
    code("", "code: it has no function `process(message, config)`");
    code("const process = 7", "code: it has no function `process(message, config)`");
    code(
        "function process() {\n  return forward(;\n}",
        "code: line 2, column 18: unexpected token ';', primary expression",
    );
    code("function process() {", "code: abrupt end");
    code("let a = 1;\nthrow new RangeError('far');\nfunction process() {}", "code: line 2, column 7: RangeError: far");
    // At the top the engine has a place for what is thrown by hand alone.
    code("let b = none;\nfunction process() {}", "code: ReferenceError: none is not defined");
    code("let a;\nlet a;\nfunction process() {}", "code: line 1, column 1: lexical name `a` declared multiple times");
    code(
        "import fs from 'fs'; function process() {}",
        "code: SyntaxError: there is no module \"fs\": a script can import \"quipu\" alone",
    );
    code("import { fetch } from 'quipu'; function process() {}", "code: SyntaxError: could not find export `fetch`");
    code("await new Promise(() => {}); function process() {}", "code: TypeError: it waits for what never comes");
    code(
        "function configure() {\n  throw new Error('x');\n}\nfunction process() {}",
        "code: line 2, column 9: Error: x",
    );
}
