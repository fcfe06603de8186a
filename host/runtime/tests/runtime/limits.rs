//! Floods: output, emitted messages, calls, log lines, and the pool itself.

use std::io::Write;
use std::sync::{Arc, Mutex};

use quipu_runtime::{ConfigureError, FaultKind, Limits, Plugin, Runtime, RuntimeConfig, Use, Verdict};

use crate::support::{Source, hand, limits};

#[test]
fn a_payload_over_the_output_limit_is_a_fault() {
    let once = Source {
        process: "(call $set-payload (i32.const 1024) (i32.const 100000)) (i32.const 0)",
        ..Source::default()
    };
    let small = Limits { output_bytes: 150_000, ..limits() };
    assert_eq!(once.start(small).expect("up").process(&mut hand()), Ok(Verdict::Forward));
    let flood = Source {
        process: "(loop $more (call $set-payload (i32.const 1024) (i32.const 100000)) (br $more)) (unreachable)",
        ..Source::default()
    };
    let fault = flood.fault();
    assert_eq!((fault.kind, fault.text.as_str()), (FaultKind::Output, "output limit of 4 MiB reached"));
}

#[test]
fn a_verdict_counts_as_output() {
    let wordy =
        Source { process: "(call $verdict (i32.const 2) (i32.const 1024) (i32.const 100000))", ..Source::default() };
    let small = Limits { output_bytes: 1_000, ..limits() };
    let fault = wordy.start(small).expect("up").process(&mut hand()).expect_err("too long");
    assert_eq!(fault.kind, FaultKind::Output);
    let Verdict::Drop(reason) = wordy.run().expect("within 4 MiB").0 else { panic!("no drop") };
    assert_eq!(reason.len(), 4 << 10, "what is kept of a reason");
}

#[test]
fn too_much_in_one_crossing_is_a_fault_before_it_is_copied() {
    let huge = Source {
        process: "(call $log (i32.const 4) (i32.const 0) (i32.const 16777216)) (i32.const 0)",
        pages: 300,
        ..Source::default()
    };
    let fault = huge.fault();
    assert_eq!(fault.kind, FaultKind::Output, "{fault}");
}

/// Emits copies until it is refused, then retries after the refusal's number; both bytes of the answer lie at 64.
const EMIT_UNTIL_REFUSED: Source = Source {
    configure: "(i32.const 0)",
    process: "(loop $more (call $copy (i32.const 1024) (i32.const 1) (i32.const 64))
                (br_if $more (i32.eqz (i32.load8_u (i32.const 64)))))
              (call $retry (i64.load16_u (i32.const 64)))",
    extra: r#"(data (i32.const 1024) "x")"#,
    pages: 2,
};

#[test]
fn emitting_past_a_limit_is_refused() {
    let refused = Verdict::Retry { delay_ms: 0x00_01, reason: String::new() }; // an error, `limit`
    for (limits, expected) in [
        (limits(), 1_024),
        (Limits { emits: 7, ..limits() }, 7),
        // A copy counts its subject, headers and key: 1 + 9 + 10 + 1.
        (Limits { output_bytes: 105, ..limits() }, 5),
    ] {
        let mut hand = hand();
        let verdict = EMIT_UNTIL_REFUSED.start(limits).expect("up").process(&mut hand);
        assert_eq!((verdict, hand.emitted.len()), (Ok(refused.clone()), expected));
    }
}

#[test]
fn the_last_hop_emits_nothing() {
    let mut hand = hand();
    hand.message.hops = 16;
    let verdict = EMIT_UNTIL_REFUSED.guest().process(&mut hand);
    assert_eq!(verdict, Ok(Verdict::Retry { delay_ms: 0x03_01, reason: String::new() }), "an error, `loop`");
}

#[test]
fn limits_are_per_message() {
    let mut guest = EMIT_UNTIL_REFUSED.start(Limits { emits: 7, ..limits() }).expect("up");
    let mut hand = hand();
    for emitted in [7, 14] {
        guest.process(&mut hand).expect("a verdict");
        assert_eq!(hand.emitted.len(), emitted);
    }
}

#[test]
fn calls_of_the_router_are_bounded() {
    let busy = Source { process: "(loop $more (drop (call $seed)) (br $more)) (unreachable)", ..Source::default() };
    let fault = busy.fault();
    assert_eq!(
        (fault.kind, fault.text.as_str()),
        (FaultKind::Calls, "more than 100000 calls of the router for one message")
    );
}

#[test]
fn a_log_flood_is_counted_and_not_written() {
    let flood = Source {
        process: "(loop $more
                    (call $log (i32.const 2) (i32.const 1024) (i32.const 9))
                    (global.set $n (i32.sub (global.get $n) (i32.const 1)))
                    (br_if $more (global.get $n)))
                  (call $log (i32.const 4) (i32.const 1024) (i32.const 9))
                  (i32.const 0)",
        extra: r#"(global $n (mut i32) (i32.const 1000)) (data (i32.const 1024) "a\0aFORGED")"#,
        ..Source::default()
    };
    let mut guest = flood.guest();
    let written = captured(|| {
        guest.process(&mut hand()).expect("a verdict");
    });
    assert_eq!(written.lines().count(), 65, "64 lines and one that counts the rest:\n{written}");
    assert!(written.lines().all(|line| line.contains("plugin=\"tried\" route=\"r\"")), "{written}");
    assert!(written.lines().next().is_some_and(|line| line.contains("INFO") && line.contains("a\\nFORGED")));
    assert!(written.ends_with("937 more log lines suppressed plugin=\"tried\" route=\"r\"\n"), "{written}");
}

#[test]
fn a_full_pool_refuses_the_next_use_and_disturbs_no_other() {
    let config = RuntimeConfig { instances_max: 2, memories_max: 2, ..RuntimeConfig::default() };
    let runtime = Runtime::new(config).expect("a small runtime");
    let trap = Source { process: "(unreachable)", ..Source::default() };
    let component = runtime.load("tried", "tried.wasm", &trap.module()).expect("a plugin");
    let one = || component.plugin(Use { limits: limits(), ..Use::default() });
    let (first, mut second) = (one().expect("room"), one().expect("room"));
    assert!(matches!(one(), Err(ConfigureError::Exhausted { .. })));
    // Its instance is gone after a fault; its place is not.
    assert_eq!(second.process(&mut hand()).expect_err("a trap").kind, FaultKind::Trap("unreachable"));
    assert!(matches!(one(), Err(ConfigureError::Exhausted { .. })));
    assert_eq!(second.process(&mut hand()).expect_err("a trap").kind, FaultKind::Trap("unreachable"));
    drop(first);
    one().expect("room again");
}

#[test]
fn no_use_gets_more_memory_than_the_runtime_has() {
    let error = Source::default().start(Limits { memory_bytes: 1 << 30, ..limits() }).expect_err("refused");
    assert_eq!(
        error.to_string(),
        "a memory limit of 1024 MiB for plugin `tried` (`plugin.tried.memory`); the router grants at most 256 MiB: the \
         largest of these as it starts counts"
    );
}

/// What is logged meanwhile, without time and colour.
fn captured(run: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);
    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("a lock").write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let buffer = Buffer::default();
    let writer = buffer.clone();
    let subscriber =
        tracing_subscriber::fmt().with_ansi(false).without_time().with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, run);
    let bytes = buffer.0.lock().expect("a lock").clone();
    String::from_utf8(bytes).expect("text")
}
