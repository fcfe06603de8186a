//! The SDK seen from outside: the length of the smallest plugin, that it really becomes one, and what the mock takes.

use quipu_plugin::prelude::*;
use quipu_plugin::testing::{Harness, MockMessage, run};
use quipu_plugin_builder::{Builder, GuestCrate};
use std::path::Path;
use std::time::Duration;

const BIG_QUAKES: &str = include_str!("../examples/big-quakes.rs");

#[test]
fn the_smallest_plugin_is_small() {
    let (plugin, _tests) = BIG_QUAKES.split_once("#[cfg(test)]").unwrap();
    let code = plugin.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
    let lines: Vec<_> = code.collect();
    assert!(lines.len() <= 15, "{} lines:\n{}", lines.len(), lines.join("\n"));
}

#[test]
fn the_smallest_plugin_is_a_plugin() {
    let target_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let guest = GuestCrate::at(env!("CARGO_MANIFEST_DIR")).example("big-quakes");
    let built = Builder::in_target_dir(target_dir).build(&[guest]).unwrap_or_else(|error| panic!("{error}"));
    let wasm = built[0].bytes().unwrap();
    assert!(wasm.starts_with(b"\0asm\x01\0\0\0"), "a core module");
    let holds = |text: &str| wasm.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(holds("component-type"), "it carries its component type");
    assert!(holds("big_quakes"), "it keeps its names, for backtraces");
    assert!(!holds(env!("CARGO_MANIFEST_DIR")), "it does not say where it was built");
    let sources = &built[0].sources;
    for name in ["big-quakes.rs", "src/message.rs", "plugin.wit", "Cargo.toml"] {
        assert!(sources.iter().any(|source| source.ends_with(name)), "{name} is a source: {sources:?}");
    }
}

/// Does on a message what its configuration says.
#[derive(Deserialize)]
struct Does(Vec<Step>);

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Step {
    Set(String, String),
    Add(String, String),
    Remove(String),
    Key(Option<String>),
    Payload(String),
    Emit(String, String),
    Copy(String),
    Route(Vec<String>),
    Retry(u64),
    Fail,
}

impl Plugin for Does {
    fn process(&mut self, message: &mut Message) -> Result<Verdict> {
        for step in &self.0 {
            match step {
                Step::Set(name, value) => message.set_header(name, value),
                Step::Add(name, value) => message.add_header(name, value),
                Step::Remove(name) => message.remove_header(name),
                Step::Key(Some(key)) => message.set_key(key),
                Step::Key(None) => message.remove_key(),
                Step::Payload(text) => message.set_payload_text(text),
                Step::Emit(subject, text) => message.emit(Outgoing::new(subject).payload(text.as_str()))?,
                Step::Copy(subject) => message.emit_copy(subject)?,
                Step::Route(subjects) => return Ok(route(subjects)),
                Step::Retry(ms) => return Ok(retry_after(Duration::from_millis(*ms), "later")),
                Step::Fail => Err("no luck")?,
            }
        }
        log::info(format!("{} bytes", message.payload_len()));
        Ok(forward())
    }
}

fn quake() -> MockMessage {
    MockMessage::new("quakes.raw").header("Type", "earthquake").payload("four")
}

#[test]
fn edits_show_in_the_message() {
    let outcome = run::<Does>(
        json!([
            { "add": ["type", "second"] }, { "set": ["type", "blast"] }, { "add": ["tag", "a"] },
            { "add": ["tag", "b"] }, { "remove": "x" }, { "key": "ak" },
            { "payload": "longer" }, { "set": ["quipu-priority", "9"] },
        ]),
        quake(),
    );
    assert_eq!(
        (outcome.verdict.clone(), outcome.header("TYPE"), outcome.header("tag")),
        (forward(), Some("blast"), Some("a"))
    );
    assert_eq!(outcome.message.headers.len(), 3);
    assert_eq!((outcome.message.key.as_deref(), outcome.message.priority), (Some(&b"ak"[..]), 9));
    assert_eq!((outcome.payload_text(), outcome.logs[0].text.as_str()), ("longer".into(), "6 bytes"));
}

#[test]
fn emitted_messages_follow_the_verdict() {
    let emitted = |last: Value| {
        let steps = json!([{ "set": ["seen", "yes"] }, { "emit": ["alarms", "!"] }, { "copy": "audit" }, last]);
        run::<Does>(steps, quake().header("quipu-parent", "p")).emitted
    };
    let kept = emitted(json!({ "key": null }));
    assert_eq!(kept.iter().map(|message| message.subject.as_str()).collect::<Vec<_>>(), ["alarms", "audit"]);
    assert_eq!((kept[1].payload.as_slice(), kept[1].headers.len()), (&b"four"[..], 2));
    assert!(emitted(json!("fail")).is_empty());
    assert!(emitted(json!({ "retry": 5 })).is_empty());
    assert_eq!(emitted(json!({ "route": ["a.b"] })).len(), 2);
}

#[test]
fn refusals_reach_the_plugin() {
    let outcome = run::<Does>(json!([{ "copy": "a" }]), quake().refusing(Refusal::NotGranted));
    assert_eq!(outcome.verdict, reject("not granted to publish there"));
    let outcome = run::<Does>(json!([{ "copy": "a..b" }]), quake());
    assert_eq!(outcome.verdict, reject("the emitted message is invalid"));
    let many = vec![json!({ "copy": "a" }); 1_025];
    assert_eq!(run::<Does>(json!(many), quake()).verdict, reject("past the limit of emitted messages"));
}

#[test]
#[should_panic(expected = r#"header "quipu-parent" is the router's own"#)]
fn a_header_of_the_routers_own_traps() {
    let _ = run::<Does>(json!([{ "set": ["quipu-parent", "x"] }]), quake());
}

#[test]
#[should_panic(expected = r#"header "quipu-priority": "10" does not fit"#)]
fn a_property_out_of_range_traps() {
    let _ = run::<Does>(json!([{ "set": ["quipu-priority", "10"] }]), quake());
}

#[test]
#[should_panic(expected = "a control character in the value")]
fn an_invalid_header_traps() {
    let _ = run::<Does>(json!([{ "add": ["note", "two\nlines"] }]), quake());
}

#[test]
#[should_panic(expected = r#"routed to an invalid subject "a.*""#)]
fn a_route_to_a_pattern_traps() {
    let _ = run::<Does>(json!([{ "route": ["a.*"] }]), quake());
}

#[test]
fn a_harness_keeps_the_state_of_its_plugin() {
    #[derive(Deserialize)]
    struct Counts {
        at_most: u32,
        #[serde(skip)]
        seen: u32,
    }
    impl Plugin for Counts {
        fn check(&self) -> Result<(), String> {
            if self.at_most == 0 { Err("at_most: 0 lets nothing through".into()) } else { Ok(()) }
        }

        fn process(&mut self, message: &mut Message) -> Result<Verdict> {
            self.seen += 1;
            assert_eq!((message.attempt(), context::seed(), context::now_ms()), (2, 3, 4));
            Ok(if self.seen <= self.at_most { forward() } else { drop("enough") })
        }
    }
    assert_eq!(Harness::<Counts>::new(json!({ "at_most": 0 })).err().unwrap(), "at_most: 0 lets nothing through");
    let mut harness = Harness::<Counts>::new(r#"{ "at_most": 1 }"#).unwrap();
    let message = quake().attempt(2).seed(3).now_ms(4);
    assert_eq!(harness.process(message.clone()).verdict, forward());
    assert_eq!(harness.process(message).verdict, drop("enough"));
}
