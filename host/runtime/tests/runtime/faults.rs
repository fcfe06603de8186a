//! Guests that fail: what the fault says, and that nothing but their own instance is harmed.

use std::time::Duration;

use quipu_runtime::{ConfigureError, FaultKind, Limits, Plugin, Verdict};

use crate::support::{Source, hand, limits};

fn short() -> Limits {
    Limits { deadline: Duration::from_millis(20), ..Limits::default() }
}

#[test]
fn a_looping_guest_is_stopped_and_its_neighbour_goes_on() {
    let mut neighbour = Source::default().guest();
    neighbour.process(&mut hand()).expect("a verdict");
    let mut looping =
        Source { process: "(loop (br 0)) (unreachable)", ..Source::default() }.start(short()).expect("up");
    let fault = looping.process(&mut hand()).expect_err("stopped");
    assert_eq!((fault.kind, fault.text.as_str()), (FaultKind::Deadline, "plugin ran over 20 ms"));
    assert!(fault.trace.iter().any(|frame| frame.contains("process")), "{:?}", fault.trace);
    assert_eq!(neighbour.process(&mut hand()), Ok(Verdict::Forward));
}

#[test]
fn start_and_configure_have_a_deadline_too() {
    let start = Source { extra: "(func $spin (loop (br 0))) (start $spin)", ..Source::default() };
    let configure = Source { configure: "(loop (br 0)) (unreachable)", ..Source::default() };
    for source in [start, configure] {
        let Err(ConfigureError::Fault { fault, .. }) = source.start(short()) else { panic!("not stopped") };
        assert_eq!(fault.kind, FaultKind::Deadline);
    }
}

#[test]
fn a_memory_bomb_is_named() {
    let bomb = Source {
        process: "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) (unreachable)",
        ..Source::default()
    };
    let mut guest = bomb.guest();
    for _ in 0..2 {
        let fault = guest.process(&mut hand()).expect_err("too much");
        assert_eq!(fault.kind, FaultKind::Memory);
        assert!(fault.text.starts_with("memory limit of 64 MiB reached; "), "{fault}");
    }
    let large = Source { pages: 2_000, ..Source::default() };
    let Err(ConfigureError::Fault { fault, .. }) = large.start(limits()) else { panic!("125 MiB were granted") };
    assert_eq!(fault.kind, FaultKind::Memory, "{fault}");
}

#[test]
fn a_refused_growth_that_the_guest_survives_is_no_fault() {
    let modest = Source { process: "(drop (memory.grow (i32.const 2000))) (i32.const 0)", ..Source::default() };
    assert_eq!(modest.run().expect("a verdict").0, Verdict::Forward);
}

#[test]
fn traps_have_a_name_and_a_trace() {
    let recursion = Source {
        process: "(call $deeper) (i32.const 0)",
        extra: "(func $deeper (call $deeper) (call $deeper))",
        ..Source::default()
    };
    let unreachable = Source {
        process: "(call $_ZN5tried4boom17h0123456789abcdefE) (i32.const 0)",
        extra: "(func $_ZN5tried4boom17h0123456789abcdefE (unreachable))",
        ..Source::default()
    };
    let far = Source { process: "(i32.load (i32.const -8))", ..Source::default() };
    let fault = recursion.fault();
    assert_eq!(fault.kind, FaultKind::Trap("stack-overflow"));
    assert_eq!(fault.trace.len(), 32, "bounded");
    let fault = unreachable.fault();
    assert_eq!(fault.kind, FaultKind::Trap("unreachable"));
    assert!(fault.text.contains("unreachable"), "{fault}");
    assert!(fault.trace[0].contains("tried::boom") && fault.trace[1].contains("process"), "{:?}", fault.trace);
    assert_eq!(far.fault().kind, FaultKind::Trap("memory-out-of-bounds"));
}

#[test]
fn what_the_guest_said_is_the_reason() {
    let said = Source {
        process: "(call $fault (i32.const 1024) (i32.const 4) (i32.const 1028) (i32.const 7)) (unreachable)",
        extra: r#"(data (i32.const 1024) "boomone\0atwo")"#,
        ..Source::default()
    };
    let fault = said.fault();
    assert_eq!((fault.kind, fault.text.as_str()), (FaultKind::Said, "boom"));
    assert_eq!(fault.trace[..2], ["one", "two"]);
    assert!(fault.trace[2].contains("process"), "{:?}", fault.trace);
    let long = Source {
        process: "(call $fault (i32.const 1024) (i32.const 100000) (i32.const 1024) (i32.const 100000)) (unreachable)",
        ..Source::default()
    };
    assert_eq!(long.fault().text.len(), 4 << 10);
    let harmless = Source {
        process: "(call $fault (i32.const 1024) (i32.const 4) (i32.const 1028) (i32.const 7)) (i32.const 0)",
        ..Source::default()
    };
    assert_eq!(harmless.run().expect("it did not trap").0, Verdict::Forward);
}

#[test]
fn there_is_no_message_in_hand_outside_process() {
    for call in [
        "(drop (call $payload-len))",
        "(call $remove-key)",
        "(call $copy (i32.const 0) (i32.const 1) (i32.const 64))",
        "(call $set-header (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 1))",
    ] {
        let configure: &'static str = format!("{call} (i32.const 0)").leak();
        let Err(error) = (Source { configure, ..Source::default() }).start(limits()) else { panic!("{call}") };
        assert!(matches!(&error, ConfigureError::Fault { fault, .. } if fault.kind == FaultKind::Misuse), "{error}");
        assert_eq!(error.to_string(), "plugin `tried` failed to start: no message in hand");
    }
}

#[test]
fn configure_sees_its_context_and_may_refuse() {
    // A `result<_, string>` at 128: the error is the configuration itself.
    let refuse = Source {
        configure: "(call $config (i32.const 64))
                    (drop (call $now-ms)) (drop (call $seed))
                    (i32.store (i32.const 132) (i32.load (i32.const 64)))
                    (i32.store (i32.const 136) (i32.load (i32.const 68)))
                    (i32.store8 (i32.const 128) (i32.const 1)) (i32.const 128)",
        ..Source::default()
    };
    let error = refuse.start(limits()).expect_err("refused");
    assert_eq!(error.to_string(), r#"plugin `tried` refuses its configuration: {"a":1}"#);
}

#[test]
fn an_instance_is_made_anew_after_a_trap() {
    // Counts its calls; traps on an empty payload.
    let count = Source {
        process: "(if (i32.eqz (call $payload-len)) (then (unreachable)))
                  (global.set $calls (i64.add (global.get $calls) (i64.const 1))) (call $retry (global.get $calls))",
        extra: "(global $calls (mut i64) (i64.const 0))",
        ..Source::default()
    };
    let mut guest = count.guest();
    let mut calls = |empty: bool| {
        let mut hand = hand();
        if empty {
            hand.message.payload.clear();
        }
        guest.process(&mut hand).map_err(|fault| fault.kind)
    };
    let retry = |delay_ms| Ok(Verdict::Retry { delay_ms, reason: String::new() });
    assert_eq!((calls(false), calls(false)), (retry(1), retry(2)));
    assert_eq!(calls(true), Err(FaultKind::Trap("unreachable")));
    assert_eq!((calls(false), calls(false)), (retry(1), retry(2)));
}

#[test]
fn what_breaks_its_type_is_a_fault() {
    let cases = [
        ("pointer beyond the memory", "(i32.const -16)"),
        ("pointer out of line", "(i32.const 3)"),
        ("text beyond the memory", "(call $verdict (i32.const 2) (i32.const 131070) (i32.const 100))"),
        ("list beyond the memory", "(call $verdict (i32.const 1) (i32.const 1024) (i32.const -1))"),
        ("unknown case", "(call $verdict (i32.const 9) (i32.const 0) (i32.const 0))"),
        ("no UTF-8", "(call $verdict (i32.const 2) (i32.const 1024) (i32.const 1))"),
    ];
    for (what, process) in cases {
        let source = Source { process, extra: r#"(data (i32.const 1024) "\ff")"#, ..Source::default() };
        let mut guest = source.guest();
        let fault = guest.process(&mut hand()).expect_err(what);
        assert!(matches!(fault.kind, FaultKind::Abi | FaultKind::Output), "{what}: {fault:?}");
        assert!(guest.process(&mut hand()).is_err(), "and again, in a new instance");
    }
}

#[test]
fn an_allocator_that_lies_is_a_fault() {
    // Sets the heap's end beyond the memory before it asks for a header.
    let lie = Source {
        process: "(global.set $heap (i32.const -64)) (call $headers (i32.const 64)) (i32.const 0)",
        ..Source::default()
    };
    assert_eq!(lie.fault().kind, FaultKind::Abi);
}
