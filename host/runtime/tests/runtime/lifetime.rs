//! How long instances live, what they take, and what there is room for.

use std::sync::Arc;

use quipu_runtime::{
    CapturedLog, Digest, FaultKind, Guest, Isolation, Limits, LogLevel, Plugin, Recycle, Runtime, RuntimeConfig, Use,
    Verdict,
};

use crate::support::{RUNTIME, Source, hand, limits};

/// Counts its messages in a global and retries after so many milliseconds; takes a page of 64 KiB with each.
const COUNTER: Source = Source {
    configure: "(i32.const 0)",
    process: "(drop (memory.grow (i32.const 1)))
              (global.set $n (i64.add (global.get $n) (i64.const 1)))
              (call $retry (global.get $n))",
    extra: "(global $n (mut i64) (i64.const 0))",
    pages: 2,
};

fn counter(r#use: Use) -> Guest {
    let component = RUNTIME.load("counter", "counter.wasm", &COUNTER.module()).expect("a plugin");
    component.plugin(Use { limits: limits(), ..r#use }).expect("an instance")
}

fn count(guest: &mut Guest) -> u64 {
    match guest.process(&mut hand()) {
        Ok(Verdict::Retry { delay_ms, .. }) => delay_ms,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_instance_of_its_own_for_each_message() {
    let mut guest = counter(Use { isolation: Isolation::Message, ..Use::default() });
    assert_eq!([count(&mut guest), count(&mut guest), count(&mut guest)], [1, 1, 1]);
    let usage = guest.usage();
    assert_eq!((usage.instances_started, usage.recycled, usage.memory_bytes), (3, 0, 0));
    assert_eq!(usage.memory_peak_bytes, 3 << 16);
}

#[test]
fn an_instance_is_reused_and_its_memory_known() {
    let mut guest = counter(Use::default());
    assert_eq!(guest.usage().memory_bytes, 2 << 16);
    assert_eq!([count(&mut guest), count(&mut guest), count(&mut guest)], [1, 2, 3]);
    let usage = guest.usage();
    assert_eq!((usage.instances_started, usage.memory_bytes), (1, 5 << 16));
    assert!(usage.started_ms > 1_600_000_000_000, "{usage:?}");
}

#[test]
fn an_instance_is_recycled_past_a_mark() {
    let recycle = Recycle { memory_bytes: Some(4 << 16), messages: None };
    let mut guest = counter(Use { recycle, ..Use::default() });
    let counted: Vec<u64> = (0..7).map(|_| count(&mut guest)).collect();
    assert_eq!(counted, [1, 2, 3, 1, 2, 3, 1], "5 pages are too many");
    assert_eq!((guest.usage().recycled, guest.usage().memory_peak_bytes), (2, 5 << 16));
}

#[test]
fn an_instance_is_recycled_after_about_so_many_messages() {
    let recycle = Recycle { memory_bytes: None, messages: Some(20) };
    let mut guest = counter(Use { recycle, ..Use::default() });
    let counted: Vec<u64> = (0..200).map(|_| count(&mut guest)).collect();
    let lives: Vec<u64> = counted.windows(2).filter(|pair| pair[1] == 1).map(|pair| pair[0]).collect();
    assert!(lives.len() >= 9 && lives.iter().all(|life| (18..=22).contains(life)), "{lives:?}");
    // The last message may have been the end of a life too.
    let ended = guest.usage().recycled - lives.len() as u64;
    assert!(ended <= 1, "{ended} more than {lives:?}");
}

#[test]
fn a_fault_is_counted_as_a_start_and_leaves_no_memory() {
    let mut guest = Source { process: "(unreachable)", ..Source::default() }.guest();
    for _ in 0..3 {
        assert_eq!(guest.process(&mut hand()).expect_err("a trap").kind, FaultKind::Trap("unreachable"));
    }
    let usage = guest.usage();
    assert_eq!((usage.instances_started, usage.memory_bytes, usage.memory_peak_bytes), (3, 0, 2 << 16));
}

#[test]
fn a_use_is_known_by_its_configuration() {
    let guest = counter(Use { config_json: "{\"a\":1}".into(), ..Use::default() });
    assert_eq!(guest.config_digest(), &Digest::of(b"{\"a\":1}"));
}

#[test]
fn room_is_asked_for_by_setting() {
    let config = RuntimeConfig { instances_max: 4, memories_max: 6, ..RuntimeConfig::default() };
    let runtime = Runtime::new(config).expect("a runtime");
    let two_memories = Source::default().text().replace("(global $heap", "(memory 1) (global $heap");
    let component = runtime.load("two", "two.wasm", &wat::parse_str(two_memories).expect("WAT")).expect("a plugin");
    assert_eq!(component.memories(), 2);
    let two = std::slice::from_ref(&component);
    runtime.room_for(two, 3).expect("six memories");
    let _one = component.plugin(Use { limits: limits(), ..Use::default() }).expect("an instance");
    runtime.room_for(two, 2).expect("four memories");
    let text = runtime.room_for(two, 3).expect_err("too many").to_string();
    assert_eq!(
        text,
        "no room for 3 more of `two`: 6 linear memories are needed, 4 of 6 are free; set `plugins.memories` to at \
         least 8"
    );
    let room = runtime.room_for(two, 5).expect_err("too many");
    assert_eq!((room.setting, room.at_least), ("plugins.instances", 6));
    // Of a chain, each plugin counts for itself.
    let one = runtime.load("one", "one.wasm", &Source::default().module()).expect("a plugin");
    runtime.room_for(&[component.clone(), one.clone(), one.clone()], 1).expect("four memories");
    let room = runtime.room_for(&[component.clone(), component, one], 1).expect_err("five");
    assert_eq!((room.setting, room.needed, room.plugins.as_str()), ("plugins.memories", 5, "`two`, `one`"));
}

#[test]
fn lines_are_kept_by_plugin_and_route() {
    let talks = Source {
        process: "(call $log (i32.const 3) (i32.const 1024) (i32.const 5)) (i32.const 0)",
        extra: r#"(data (i32.const 1024) "a\0aend")"#,
        ..Source::default()
    };
    let component = RUNTIME.load("talks", "talks.wasm", &talks.module()).expect("a plugin");
    let say = |route: &str| {
        let r#use = Use { route: route.into(), limits: limits(), ..Use::default() };
        component.plugin(r#use).expect("an instance").process(&mut hand()).expect("a verdict");
    };
    ["one", "two", "one"].into_iter().for_each(say);
    let lines = RUNTIME.logs("talks", None, 0);
    let told: Vec<_> = lines.iter().map(|line| (line.number, &*line.route, line.level, line.text.as_str())).collect();
    let line = |number, route| (number, route, LogLevel::Warn, "a\\nend");
    assert_eq!(told, [line(1, "one"), line(2, "two"), line(3, "one")]);
    assert_eq!(RUNTIME.logs("talks", Some("one"), 1).len(), 1);
    assert!(RUNTIME.logs("silent", None, 0).is_empty());

    let captured = Arc::new(CapturedLog::default());
    let r#use = Use { limits: limits(), ..Use::default() };
    let mut guest = component.plugin_with(r#use, Arc::<CapturedLog>::clone(&captured)).expect("an instance");
    guest.process(&mut hand()).expect("a verdict");
    assert_eq!(captured.take(), [(LogLevel::Warn, "a\nend".to_owned())]);
    assert_eq!(RUNTIME.logs("talks", None, 3).len(), 0, "a log of one's own keeps all to itself");
}

#[test]
fn a_flood_is_kept_within_bounds() {
    let flood = Source {
        process: "(loop $more
                    (call $log (i32.const 2) (i32.const 1024) (i32.const 2000))
                    (global.set $n (i32.sub (global.get $n) (i32.const 1)))
                    (br_if $more (global.get $n)))
                  (i32.const 0)",
        extra: "(global $n (mut i32) (i32.const 5000))",
        ..Source::default()
    };
    let component = RUNTIME.load("floods", "floods.wasm", &flood.module()).expect("a plugin");
    let many = Limits { log_lines: 10_000, log_bytes: 1 << 30, host_calls: 10_000, ..limits() };
    let mut guest = component.plugin(Use { limits: many, ..Use::default() }).expect("an instance");
    guest.process(&mut hand()).expect("a verdict");
    let lines = RUNTIME.logs("floods", None, 0);
    assert_eq!((lines.len(), lines.last().map(|line| line.number)), (1_000, Some(5_000)));
    assert!(lines.iter().all(|line| line.text.len() <= 6 << 10), "1 KiB, escaped");
}
