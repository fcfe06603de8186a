//! Capsules: an attempt that is made again comes to the same.

use std::sync::Arc;

use quipu_protocol::{Key, Subject};
use quipu_runtime::{Attempt, Capsule, CapsuleError, CapturedLog, Component, Hand, LogLevel, Plugin, Use, Verdict};

use crate::support::{RUNTIME, Source, hand, limits};

/// Its answer depends on all that may differ between two runs: the clocks and seeds of the attempt and of `configure`.
const CURIOUS: Source = Source {
    configure: "(global.set $c (i64.add (call $now-ms) (call $seed))) (i32.const 0)",
    process: "(call $log (i32.const 2) (i32.const 1024) (i32.const 1))
              (call $set-payload (i32.const 1024) (i32.const 3))
              (call $copy (i32.const 1024) (i32.const 1) (i32.const 64))
              (call $retry (i64.and (i64.const 0xffffffff)
                (i64.add (global.get $c) (i64.mul (call $now-ms) (i64.add (call $seed) (i64.extend_i32_u (call $attempt)))))))",
    extra: r#"(global $c (mut i64) (i64.const 0)) (data (i32.const 1024) "xyz")"#,
    pages: 2,
};

fn component(source: &Source) -> Component {
    RUNTIME.load("curious", "curious.wasm", &source.module()).expect("a plugin")
}

/// An attempt, its capsule, and an attempt from that capsule, after a trip through JSON.
fn twice(source: &Source, hand: Hand) -> (Attempt, Capsule, Attempt) {
    let component = component(source);
    let r#use = Use { route: "r".into(), config_json: "{\"a\": 1}".into(), limits: limits(), ..Use::default() };
    let mut guest = component.plugin(r#use.clone()).expect("an instance");
    let r#use = Use { started_ms: Some(guest.usage().started_ms), ..r#use };
    let capsule = Capsule::of(component.name(), *component.digest(), &r#use, &hand);
    let first = Attempt::of(&mut guest, hand, None);
    let capsule = Capsule::from_json(&capsule.with_outcome(&first).to_json()).expect("a capsule");
    let log = Arc::new(CapturedLog::default());
    let mut guest = component.plugin_with(capsule.r#use(), Arc::<CapturedLog>::clone(&log)).expect("an instance");
    let second = Attempt::of(&mut guest, capsule.hand().expect("a message"), Some(&log));
    (first, capsule, second)
}

#[test]
fn a_replay_comes_to_the_same_bit_for_bit() {
    let mut hand = hand();
    hand.message.reply_to = Some(Subject::new("answers").expect("a subject"));
    hand.message.key = Some(Key::new(&[0_u8, 255, 1][..]).expect("a key"));
    hand.message.payload = vec![0_u8, 159, 146, 150].into();
    (hand.message.expires_ms, hand.message.priority, hand.message.hops) = (Some(9), 3, 2);
    let (first, capsule, second) = twice(&CURIOUS, hand);
    assert!(matches!(first.verdict, Ok(Verdict::Retry { delay_ms, .. }) if delay_ms > 0), "{:?}", first.verdict);
    assert_eq!(first.verdict, second.verdict);
    assert_eq!(first.input, second.input, "all that a plugin can see");
    assert_eq!(
        (first.output.message.clone(), &first.output.emitted),
        (second.output.message.clone(), &second.output.emitted)
    );
    assert_eq!(capsule.outcome, Some(second.digest()));
    assert_eq!(capsule.verdict.as_deref(), Some("retry"));
    assert_eq!(second.logs, [(LogLevel::Info, "x".to_owned())]);
    // Another seed is another outcome.
    let mut other = capsule.hand().expect("a message");
    other.seed += 1;
    let mut guest = component(&CURIOUS).plugin(capsule.r#use()).expect("an instance");
    assert_ne!(Attempt::of(&mut guest, other, None).digest(), second.digest());
}

#[test]
fn a_fault_comes_again_too() {
    let trap = Source { process: "(unreachable)", ..Source::default() };
    let (first, capsule, second) = twice(&trap, hand());
    assert_eq!((capsule.verdict.as_deref(), capsule.outcome), (Some("fault unreachable"), Some(second.digest())));
    let (first, second) = (first.verdict.expect_err("a fault"), second.verdict.expect_err("a fault"));
    assert_eq!(first.fingerprint(), second.fingerprint());
}

#[test]
fn an_attempt_tells_what_it_changed() {
    let edits = Source {
        process: "(call $set-header (i32.const 1024) (i32.const 4) (i32.const 1028) (i32.const 3))
                  (call $remove-key)
                  (call $set-payload (i32.const 1040) (i32.const 15))
                  (call $verdict (i32.const 2) (i32.const 1028) (i32.const 3))",
        extra: r#"(data (i32.const 1024) "TypenewX") (data (i32.const 1040) "{\"a\":1,\"b\":[2]}")"#,
        ..Source::default()
    };
    let mut hand = hand();
    hand.message.payload = r#"{"a":1,"b":[3],"c":"x"}"#.into();
    let attempt = Attempt::of(&mut edits.guest(), hand, None);
    let told: Vec<_> = attempt.changes().into_iter().map(|c| (c.what, c.before, c.after)).collect();
    let change = |what: &str, before: Option<&str>, after: Option<&str>| {
        (what.to_owned(), before.map(Into::into), after.map(Into::into))
    };
    assert_eq!(
        told,
        [
            change("header type", Some("quake, second"), Some("new")),
            change("key", Some("k"), None),
            change("$.b[0]", Some("3"), Some("2")),
            change("$.c", Some("\"x\""), None),
        ]
    );
    let json = attempt.to_json();
    assert_eq!((&json["verdict"], &json["reason"]), (&"drop".into(), &"new".into()));
    assert_eq!(json["changes"][1]["what"], "key");
}

#[test]
fn what_is_no_capsule_is_refused() {
    let (_, capsule, _) = twice(&Source::default(), hand());
    let json = capsule.to_json();
    assert!(matches!(Capsule::from_json("{}"), Err(CapsuleError::Json(_))));
    let newer = json.replace("\"version\":1", "\"version\":2");
    assert_eq!(Capsule::from_json(&newer), Err(CapsuleError::Version(2)));
    let unknown = json.replace("\"version\":1", "\"version\":1,\"more\":1");
    assert!(matches!(Capsule::from_json(&unknown), Err(CapsuleError::Json(_))));
    let subject = json.replace("\"subject\":\"a.b\"", "\"subject\":\"a..b\"");
    assert!(matches!(Capsule::from_json(&subject), Err(CapsuleError::Message { field: "subject", .. })));
}
