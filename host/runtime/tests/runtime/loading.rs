//! Files that are plugins, and files that are not: each error names the file and what is wrong.

use quipu_runtime::{FILE_BYTES_MAX, LoadError, Plugin, Use, Verdict};
use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::Resolve;

use crate::support::{RUNTIME, Source, hand, limits};

fn error(bytes: &[u8]) -> LoadError {
    RUNTIME.load("p", "p.wasm", bytes).expect_err("refused")
}

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("valid WAT")
}

/// The module with the type that its contract's version gives it, as an SDK of that version leaves it.
fn typed(version: &str) -> Vec<u8> {
    let wit = include_str!("../../../../plugin-sdk/wit/0.1.0/plugin.wit")
        .replace("plugin@0.1.0", &format!("plugin@{version}"));
    let mut resolve = Resolve::default();
    let package = resolve.push_str("plugin.wit", &wit).expect("valid WIT");
    let world = resolve.select_world(&[package], Some("plugin")).expect("a world");
    let mut module = wat(&Source::default().text().replace("@0.1.0", &format!("@{version}")));
    wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("embedded");
    module
}

fn component() -> Vec<u8> {
    ComponentEncoder::default().module(&typed("0.1.0")).expect("a typed module").encode().expect("a component")
}

#[test]
fn modules_and_components_of_any_0_1_version_run() {
    for bytes in [Source::default().module(), typed("0.1.0"), typed("0.1.7"), component()] {
        let plugin = RUNTIME.load("p", "p.wasm", &bytes).expect("a plugin");
        assert_eq!((plugin.name(), plugin.size_bytes()), ("p", bytes.len()));
        assert!(plugin.imports().iter().all(|import| import.starts_with("quipu:plugin/")), "{:?}", plugin.imports());
        let mut guest = plugin.plugin(Use { limits: limits(), ..Use::default() }).expect("an instance");
        assert_eq!(guest.process(&mut hand()), Ok(Verdict::Forward));
        assert_eq!(guest.digest(), plugin.digest());
    }
}

#[test]
fn what_is_no_webassembly_is_said_to_be_none() {
    assert_eq!(error(b"").to_string(), "p.wasm is not WebAssembly: it is empty");
    assert_eq!(error(b"#!/bin/sh\n").to_string(), "p.wasm is not WebAssembly: it begins with \"#!/bin/s\"");
    assert_eq!(error(b"(module)").to_string(), "p.wasm is not WebAssembly: it begins with \"(module)\"");
    let text = error(b"\0asm\x02\0\0\0").to_string();
    assert!(text.starts_with("p.wasm is damaged") && text.contains("[02, 00, 00, 00]"), "{text}");
    assert!(matches!(error(&vec![0; FILE_BYTES_MAX + 1]), LoadError::TooLarge { .. }));
}

#[test]
fn a_truncated_file_never_panics() {
    for whole in [component(), Source::default().module()] {
        for length in (8..whole.len() - 1).step_by(7) {
            let Err(error) = RUNTIME.load("p", "p.wasm", &whole[..length]) else { continue };
            assert!(error.to_string().starts_with("p.wasm "), "{error}");
        }
    }
    assert!(matches!(error(&component()[..200]), LoadError::Invalid { .. }));
}

/// The 16th of these once overflowed the stack: its component type had packages that depend on each other in a circle.
#[test]
fn a_damaged_file_never_panics() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64; // xorshift64; the seed of what was found
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let files = [typed("0.1.0"), Source::default().module(), component()];
    for round in 0..300 {
        let mut damaged = files[round % files.len()].clone();
        for _ in 0..=next() % 3 {
            let at = 8 + usize::try_from(next()).expect("64 bits") % (damaged.len() - 8);
            damaged[at] = next().to_le_bytes()[0];
        }
        RUNTIME.load("p", "p.wasm", &damaged).ok(); // some damage is harmless: a name, a constant
    }
}

#[test]
fn a_component_type_may_come_first() {
    let module = typed("0.1.0");
    let at = Source::default().module().len();
    let moved = [&module[..8], &module[at..], &module[8..at]].concat();
    RUNTIME.load("p", "p.wasm", &moved).expect("a plugin");
}

#[test]
fn a_foreign_import_is_named() {
    let sockets = wat(r#"(component (import "wasi:sockets/tcp@0.2.0" (instance)))"#);
    let text = error(&sockets).to_string();
    let expected = "p.wasm imports `wasi:sockets/tcp@0.2.0`, which the router does not offer: plugins have the interfaces of \
                    quipu:plugin@0.1 and nothing else";
    assert_eq!(text, expected);
    let newer = wat(r#"(component (import "quipu:plugin/state@0.1.1" (instance)))"#);
    assert!(matches!(error(&newer), LoadError::Import { import, .. } if import == "quipu:plugin/state@0.1.1"));
    let module =
        Source::default().text().replace("(memory (export", r#"(import "env" "abort" (func)) (memory (export"#);
    assert!(matches!(error(&wat(&module)), LoadError::Import { import, .. } if import == "env::abort"));
    let wasi = module.replace("\"env\" \"abort\"", "\"wasi_snapshot_preview1\" \"fork\"");
    let text = error(&wat(&wasi)).to_string();
    assert!(text.contains("`wasi_snapshot_preview1::fork`"), "{text}");
}

#[test]
fn another_version_of_the_contract_is_named() {
    let text = Source::default().text();
    let module = error(&wat(&text.replace("@0.1.0", "@0.2.0"))).to_string();
    let expected = "p.wasm is made for version 0.2.0 of the plugin contract, as its `quipu:plugin/";
    assert!(
        module.starts_with(expected) && module.ends_with("build it against the contract of this router"),
        "{module}"
    );
    let component = wat(r#"(component (import "quipu:plugin/message@1.0.0" (instance)))"#);
    assert!(matches!(error(&component), LoadError::ContractVersion { version, .. } if version == "1.0.0"));
    let exports = wat(r#"(component (instance $i) (export "quipu:plugin/handler@0.3.0" (instance $i)))"#);
    assert!(matches!(error(&exports), LoadError::ContractVersion { version, .. } if version == "0.3.0"));
}

#[test]
fn an_import_of_another_type_is_named() {
    let module = Source::default()
        .text()
        .replace(r#""attempt" (func $attempt (result i32))"#, r#""attempt" (func $attempt (result i64))"#);
    let module = module.replace("{process}", "");
    let text = error(&wat(&module)).to_string();
    assert!(text.starts_with("p.wasm does not keep to the plugin contract") && text.contains("attempt"), "{text}");
    let component = wat(r#"(component
            (import "quipu:plugin/message@0.1.0" (instance (export "attempt" (func (result u64)))))
            (core module $m (func (export "process") (result i32) (i32.const 0)) (memory (export "memory") 1))
            (core instance $i (instantiate $m))
            (func $f (result bool) (canon lift (core func $i "process")))
            (instance $h (export "process" (func $f)) (export "configure" (func $f)))
            (export "quipu:plugin/handler@0.1.0" (instance $h)))"#);
    let error = error(&component);
    assert!(matches!(&error, LoadError::ImportType { .. }) && error.to_string().contains("attempt"), "{error}");
}

#[test]
fn a_missing_or_mistyped_handler_is_named() {
    assert_eq!(error(&wat("(component)")).to_string(), "p.wasm does not export `quipu:plugin/handler@0.1.0`");
    let text = error(&wat("(module)")).to_string();
    assert_eq!(text, "p.wasm does not export `quipu:plugin/handler@0.1.0#configure`");
    let module = Source::default().text().replace("handler@0.1.0#process", "handler@0.1.0#proces");
    assert!(matches!(error(&wat(&module)), LoadError::Export { export, .. } if export.ends_with("#process")));
    let module = Source::default().text().replace(
        r#"(func $configure (export "quipu:plugin/handler@0.1.0#configure") (result i32) (i32.const 0))"#,
        r#"(func $configure (export "quipu:plugin/handler@0.1.0#configure") (param i32))"#,
    );
    let text = error(&wat(&module)).to_string();
    assert!(text.starts_with("p.wasm does not keep") && text.contains("handler@0.1.0#configure"), "{text}");
    let component = wat(r#"(component
            (core module $m (func (export "f")))
            (core instance $i (instantiate $m))
            (func $f (canon lift (core func $i "f")))
            (instance $h (export "process" (func $f)) (export "configure" (func $f)))
            (export "quipu:plugin/handler@0.1.0" (instance $h)))"#);
    let error = error(&component);
    assert!(matches!(&error, LoadError::ExportType { .. }), "{error:?}");
    assert!(error.to_string().contains("quipu:plugin/handler@0.1.0"), "{error}");
}

#[test]
fn stray_wasi_is_answered_without_effect() {
    // Writes 5 bytes to standard output, asks for randomness, and retries after what was written.
    let stray = Source {
        process: "(i32.store (i32.const 1024) (i32.const 2048)) (i32.store (i32.const 1028) (i32.const 5))
                  (drop (call $fd_write (i32.const 1) (i32.const 1024) (i32.const 1) (i32.const 64)))
                  (drop (call $random_get (i32.const 72) (i32.const 8)))
                  (if (i64.eqz (i64.load (i32.const 72))) (then (unreachable)))
                  (call $retry (i64.load32_u (i32.const 64)))",
        ..Source::default()
    };
    let text = stray.text().replace(
        "(memory (export",
        r#"(import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
           (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
           (memory (export"#,
    );
    let plugin = RUNTIME.load("p", "p.wasm", &wat(&text)).expect("a plugin");
    assert!(plugin.imports().iter().all(|import| import.starts_with("quipu:plugin/")), "{:?}", plugin.imports());
    let mut guest = plugin.plugin(Use { limits: limits(), ..Use::default() }).expect("an instance");
    assert_eq!(guest.process(&mut hand()), Ok(Verdict::Retry { delay_ms: 5, reason: String::new() }));
}

#[test]
fn more_memories_than_a_plugin_may_have_are_refused() {
    let memories = "(memory 1)".repeat(9);
    let module = Source::default().text().replace("(global $heap", &format!("{memories} (global $heap"));
    assert_eq!(error(&wat(&module)).to_string(), "p.wasm has 10 linear memories; a plugin has at most 8");
}

/// A Python interpreter comes as 38 modules, one for each of its libraries.
#[test]
fn a_plugin_of_many_modules_runs() {
    let of_modules = |count: u8| {
        // Behind the three that the encoder made: an empty one, and so many instances of it.
        let mut bytes = component();
        bytes.extend(b"\x01\x08\0asm\x01\0\0\0");
        let instances: Vec<u8> = std::iter::once(count).chain([0, 3, 0].repeat(count.into())).collect();
        bytes.extend([2, u8::try_from(instances.len() & 0x7f).expect("seven bits") | 0x80]);
        bytes.push(u8::try_from(instances.len() >> 7).expect("seven bits"));
        bytes.extend(instances);
        bytes
    };
    let plugin = RUNTIME.load("p", "p.wasm", &of_modules(40)).expect("a plugin");
    let mut guest = plugin.plugin(Use { limits: limits(), ..Use::default() }).expect("an instance");
    assert_eq!(guest.process(&mut hand()), Ok(Verdict::Forward));
    let text = error(&of_modules(70)).to_string();
    assert!(text.starts_with("p.wasm ") && text.contains("core"), "{text}");
}

/// The reader of such types calls itself for each. What the survey lets through must not overflow its stack, and what it
/// does not is never read: 5 million of them take 15 MB.
#[test]
fn types_inside_of_types_do_not_use_up_the_stack() {
    for (levels, is_read) in [(500, true), (600, false), (5_000_000, false)] {
        let mut types = vec![1, 0x41, 1];
        types.extend([0x01, 0x41, 1].repeat(levels));
        types.extend([0x01, 0x41, 0]);
        let mut file = b"\0asm\x0d\0\x01\0\x07".to_vec();
        let mut length = types.len();
        while length >= 0x80 {
            file.push(u8::try_from(length & 0x7f).expect("seven bits") | 0x80);
            length >>= 7;
        }
        file.push(u8::try_from(length).expect("seven bits"));
        file.extend(types);
        let text = error(&file).to_string();
        assert_eq!(text.contains("types of components inside of others; a plugin has at most 512"), !is_read, "{text}");
    }
}
