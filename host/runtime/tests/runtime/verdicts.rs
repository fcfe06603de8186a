//! What plugins see, change, emit and decide.

use quipu_protocol::Headers;
use quipu_runtime::{Emitted, FaultKind, Plugin, Verdict};

use crate::support::{Source, hand, subject};

#[test]
fn forward_leaves_the_message_alone() {
    let (verdict, after) = Source::default().run().expect("a verdict");
    assert_eq!(verdict, Verdict::Forward);
    assert_eq!(after.message, hand().message);
    assert!(after.emitted.is_empty() && !after.payload_changed && !after.header_changed);
}

#[test]
fn route_names_subjects() {
    let route = Source {
        process: "(call $verdict (i32.const 1) (i32.const 1024) (i32.const 2))",
        extra: r#"(data (i32.const 1024) "\40\04\00\00\05\00\00\00\45\04\00\00\01\00\00\00")
                  (data (i32.const 1088) "alert") (data (i32.const 1093) "b")"#,
        ..Source::default()
    };
    let (verdict, _) = route.run().expect("a verdict");
    assert_eq!(verdict, Verdict::Route(vec![subject("alert"), subject("b")]));
}

#[test]
fn a_header_read_and_a_reason_given() {
    // Drops with the first value of `tYPe` as its reason; the option lies at 64.
    let drop = Source {
        process: "(call $header (i32.const 1024) (i32.const 4) (i32.const 64))
                  (call $verdict (i32.const 2) (i32.load (i32.const 68)) (i32.load (i32.const 72)))",
        extra: r#"(data (i32.const 1024) "tYPe")"#,
        ..Source::default()
    };
    assert_eq!(drop.run().expect("a verdict").0, Verdict::Drop("quake".into()));
}

#[test]
fn retry_and_reject_carry_time_and_reason() {
    let retry = Source { process: "(call $retry (i64.const 5000000000))", ..Source::default() };
    let expected = Verdict::Retry { delay_ms: 5_000_000_000, reason: String::new() };
    assert_eq!(retry.run().expect("a verdict").0, expected);
    let reject = Source {
        process: "(call $verdict (i32.const 4) (i32.const 1024) (i32.const 3))",
        extra: r#"(data (i32.const 1024) "bad")"#,
        ..Source::default()
    };
    assert_eq!(reject.run().expect("a verdict").0, Verdict::Reject("bad".into()));
}

#[test]
fn verdicts_against_the_rules_are_faults() {
    let late = Source { process: "(call $retry (i64.const 9007199254740992))", ..Source::default() };
    let none = Source { process: "(call $verdict (i32.const 1) (i32.const 0) (i32.const 0))", ..Source::default() };
    let many = Source { process: "(call $verdict (i32.const 1) (i32.const 0) (i32.const 65))", ..Source::default() };
    let own = Source {
        process: "(call $verdict (i32.const 1) (i32.const 1024) (i32.const 1))",
        extra: r#"(data (i32.const 1024) "\40\04\00\00\02\00\00\00") (data (i32.const 1088) "$q")"#,
        ..Source::default()
    };
    let cases = [(late, "2^53"), (none, "to 0 subjects"), (many, "to 65 subjects"), (own, "the router's own")];
    for (source, expected) in cases {
        let fault = source.fault();
        assert_eq!(fault.kind, FaultKind::InvalidVerdict);
        assert!(fault.text.contains(expected), "{fault}");
    }
}

#[test]
fn edits_change_the_message_in_hand() {
    let edit = Source {
        process: "(call $set-header (i32.const 1024) (i32.const 4) (i32.const 1028) (i32.const 3))
                  (call $set-header (i32.const 1031) (i32.const 14) (i32.const 1045) (i32.const 1))
                  (call $set-key (i32.const 1028) (i32.const 3))
                  (call $set-payload (i32.const 1024) (i32.const 7))
                  (i32.const 0)",
        extra: r#"(data (i32.const 1024) "typenewquipu-priority7")"#,
        ..Source::default()
    };
    let (verdict, hand) = edit.run().expect("a verdict");
    assert_eq!(verdict, Verdict::Forward);
    assert!(hand.payload_changed && hand.header_changed);
    let message = hand.message;
    assert_eq!(message.headers.iter().collect::<Vec<_>>(), [("Type", "new")]);
    assert_eq!((message.priority, &message.payload[..]), (7, &b"typenew"[..]));
    assert_eq!(message.key.expect("a key").as_bytes(), &b"new"[..]);
    let remove = Source {
        process: "(call $remove-header (i32.const 1024) (i32.const 4)) (call $remove-key) (i32.const 0)",
        extra: r#"(data (i32.const 1024) "TYPE")"#,
        ..Source::default()
    };
    let (_, hand) = remove.run().expect("a verdict");
    assert_eq!((hand.message.headers, hand.message.key), (Headers::new(), None));
    assert!(hand.header_changed && !hand.payload_changed);
}

#[test]
fn an_invalid_edit_traps_and_is_named() {
    let cases = [
        (r#"(data (i32.const 1024) "a bv")"#, 3, "\"a b\""),
        (r#"(data (i32.const 1024) "quipu-rootv")"#, 10, "quipu-root"),
        (r#"(data (i32.const 1024) "quipu-idv")"#, 8, "quipu-id"),
        (r#"(data (i32.const 1024) "quipu-expires-msv")"#, 16, "quipu-expires-ms"),
        (r#"(data (i32.const 1024) "a\0a")"#, 1, "control character"),
    ];
    for (extra, length, named) in cases {
        let process: &'static str = format!(
            "(call $set-header (i32.const 1024) (i32.const {length}) (i32.const {}) (i32.const 1)) (i32.const 0)",
            1024 + length
        )
        .leak();
        let fault = Source { process, extra, ..Source::default() }.fault();
        assert_eq!(fault.kind, FaultKind::Misuse, "{fault}");
        assert!(fault.text.contains(named), "{fault}");
        assert!(fault.trace.iter().any(|frame| frame.contains("process")), "{:?}", fault.trace);
    }
    let absent = Source {
        process: "(call $remove-header (i32.const 1024) (i32.const 3)) (i32.const 0)",
        extra: r#"(data (i32.const 1024) "a b")"#,
        ..Source::default()
    };
    assert!(absent.fault().text.contains("\"a b\""));
}

#[test]
fn a_payload_range_is_clamped() {
    // Drops with bytes 8 and on of a payload of ten, asked for with a length of 4 GiB; the list lies at 64.
    let range = Source {
        process: "(call $payload-range (i32.const 8) (i32.const -1) (i32.const 64))
                  (call $verdict (i32.const 2) (i32.load (i32.const 64)) (i32.load (i32.const 68)))",
        ..Source::default()
    };
    assert_eq!(range.run().expect("a verdict").0, Verdict::Drop("89".into()));
    let beyond = Source {
        process: "(call $payload-range (i32.const -1) (i32.const -1) (i32.const 64))
                  (call $retry (i64.load32_u (i32.const 68)))",
        ..Source::default()
    };
    assert_eq!(beyond.run().expect("a verdict").0, Verdict::Retry { delay_ms: 0, reason: String::new() });
}

#[test]
fn a_copy_shares_the_payload_until_it_is_changed() {
    let copy = Source {
        process: "(call $copy (i32.const 1024) (i32.const 5) (i32.const 64))
                  (call $set-payload (i32.const 1024) (i32.const 2))
                  (call $copy (i32.const 1024) (i32.const 5) (i32.const 72))
                  (call $retry (i64.load16_u (i32.const 64)))",
        extra: r#"(data (i32.const 1024) "audit")"#,
        ..Source::default()
    };
    let (verdict, after) = copy.run().expect("a verdict");
    assert_eq!(verdict, Verdict::Retry { delay_ms: 0, reason: String::new() }, "0 is ok");
    let before = hand().message;
    let copied = Emitted {
        subject: subject("audit"),
        key: before.key,
        headers: before.headers,
        payload: None,
        id: None,
        reply_to: None,
        expires_ms: None,
        deliver_at_ms: None,
        priority: 0,
    };
    let changed = Emitted { payload: Some((&b"au"[..]).into()), ..copied.clone() };
    assert_eq!(after.emitted, [copied, changed]);
}

#[test]
fn publish_reads_properties_from_headers_and_refuses_the_rest() {
    // Two headers in a list at 1,200; the first publish has both, the second names one of the router's own.
    let publish = Source {
        process: r"(call $publish (i32.const 1024) (i32.const 1) (i32.const 1) (i32.const 1024) (i32.const 1)
                    (i32.const 1200) (i32.const 2) (i32.const 1024) (i32.const 3) (i32.const 64))
                  (i32.store (i32.const 1204) (i32.const 10))
                  (i32.store (i32.const 1200) (i32.const 1048))
                  (call $publish (i32.const 1024) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0)
                    (i32.const 1200) (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 66))
                  (call $copy (i32.const 1064) (i32.const 2) (i32.const 68))
                  (call $retry (i64.load (i32.const 64)))",
        // subject "x", payload "xyz"; "quipu-id" = "n1", "h" = "v"; then "quipu-root" and "$x".
        extra: r#"(data (i32.const 1024) "xyz") (data (i32.const 1032) "quipu-idn1hv")
                  (data (i32.const 1048) "quipu-root") (data (i32.const 1064) "$x")
                  (data (i32.const 1200) "\08\04\00\00\08\00\00\00\10\04\00\00\02\00\00\00"
                                         "\12\04\00\00\01\00\00\00\13\04\00\00\01\00\00\00")"#,
        ..Source::default()
    };
    let (verdict, after) = publish.run().expect("a verdict");
    // Byte by byte from the low end: ok; error, `invalid`; error, `not-granted`.
    assert_eq!(verdict, Verdict::Retry { delay_ms: 0x02_01_01_01_00_00, reason: String::new() });
    let [emitted] = &after.emitted[..] else { panic!("{:?}", after.emitted) };
    assert_eq!((emitted.subject.as_str(), emitted.payload.as_deref()), ("x", Some(&b"xyz"[..])));
    assert_eq!(emitted.id.as_ref().map(|id| id.as_str()), Some("n1"));
    assert_eq!(emitted.headers.iter().collect::<Vec<_>>(), [("h", "v")]);
}

#[test]
fn an_attempt_has_its_own_clock_seed_and_configuration() {
    let clock = Source { process: "(call $retry (call $now-ms))", ..Source::default() };
    let retry = |delay_ms| Verdict::Retry { delay_ms, reason: String::new() };
    assert_eq!(clock.run().expect("a verdict").0, retry(1_700_000_000_123));
    let seed = Source { process: "(call $retry (call $seed))", ..Source::default() };
    assert_eq!(seed.run().expect("a verdict").0, retry(42));
    let attempt = Source { process: "(call $retry (i64.extend_i32_u (call $attempt)))", ..Source::default() };
    assert_eq!(attempt.run().expect("a verdict").0, retry(3));
    let config = Source {
        process: "(call $config (i32.const 64))
                  (call $verdict (i32.const 4) (i32.load (i32.const 64)) (i32.load (i32.const 68)))",
        ..Source::default()
    };
    assert_eq!(config.run().expect("a verdict").0, Verdict::Reject(r#"{"a":1}"#.into()));
}

#[test]
fn one_instance_sees_message_after_message() {
    let count = Source {
        process: "(global.set $calls (i64.add (global.get $calls) (i64.const 1))) (call $retry (global.get $calls))",
        extra: "(global $calls (mut i64) (i64.const 0))",
        ..Source::default()
    };
    let mut guest = count.guest();
    for call in 1..=100 {
        let verdict = guest.process(&mut hand()).expect("a verdict");
        assert_eq!(verdict, Verdict::Retry { delay_ms: call, reason: String::new() });
    }
}
