//! Code that was compiled elsewhere: what opens runs as if it had been compiled here, and nothing else opens.

use quipu_runtime::{Digest, LoadError, Plugin, Runtime, RuntimeConfig, SealError, Sealed, Use, Verdict, compile};

use crate::support::{RUNTIME, Source, hand, limits};

const KEY: [u8; 32] = [7; 32];

fn compiled(module: &[u8]) -> Vec<u8> {
    compile("p.wasm", module, &RuntimeConfig::default()).expect("compiled")
}

#[test]
fn sealed_code_runs_and_knows_what_the_file_knew() {
    let module = Source { process: "(call $retry (i64.const 77))", ..Source::default() }.module();
    let digest = Digest::of(&module);
    let sealed = Sealed::seal(&KEY, &digest, &compiled(&module));
    let opened = Sealed::open(&KEY, &digest, sealed, &RUNTIME).expect("ours");
    let fresh = Runtime::new(RuntimeConfig { memories_max: 4, ..RuntimeConfig::default() }).expect("a runtime");
    let plugin = fresh.load_compiled("p", "p.wasm", digest, module.len(), &opened).expect("a plugin");
    let there = RUNTIME.load("p", "p.wasm", &module).expect("a plugin");
    assert_eq!((plugin.digest(), plugin.size_bytes(), plugin.imports()), (&digest, module.len(), there.imports()));
    assert_eq!((plugin.contract_version(), plugin.has_names()), ("0.1.0", true));
    assert_eq!((plugin.functions(), plugin.memories()), (there.functions(), 1));
    for name in ["verdict", "configure", "process"] {
        assert!(plugin.functions().iter().any(|function| function == name), "{:?}", plugin.functions());
    }
    let mut guest = plugin.plugin(Use { limits: limits(), ..Use::default() }).expect("an instance");
    assert_eq!(guest.process(&mut hand()), Ok(Verdict::Retry { delay_ms: 77, reason: String::new() }));
}

/// Every byte is under the keyed hash.
#[test]
fn what_was_not_sealed_here_for_this_file_does_not_open() {
    let module = Source::default().module();
    let digest = Digest::of(&module);
    let code = compiled(&module);
    let sealed = Sealed::seal(&KEY, &digest, &code);
    let open =
        |key: &[u8; 32], digest: &Digest, bytes: &[u8]| Sealed::open(key, digest, bytes.to_vec(), &RUNTIME).map(drop);
    open(&KEY, &digest, &sealed).expect("ours");
    assert_eq!(open(&[8; 32], &digest, &sealed), Err(SealError::NotOurs), "another key");
    assert_eq!(open(&KEY, &Digest::of(b"other"), &sealed), Err(SealError::NotOurs), "another file");
    assert_eq!(open(&KEY, &digest, &code), Err(SealError::NotOurs), "not sealed at all");
    for length in [0, 1, 31, 32, 33, sealed.len() / 2, sealed.len() - 1] {
        assert_eq!(open(&KEY, &digest, &sealed[..length]), Err(SealError::NotOurs), "cut at {length}");
    }
    for at in (0..sealed.len()).step_by(sealed.len() / 100) {
        let mut damaged = sealed.clone();
        damaged[at] ^= 1;
        assert_eq!(open(&KEY, &digest, &damaged), Err(SealError::NotOurs), "a bit at {at}");
    }
    let junk = Sealed::seal(&KEY, &digest, b"whatever");
    assert_eq!(open(&KEY, &digest, &junk), Err(SealError::Malformed));
}

#[test]
fn code_for_an_engine_with_other_settings_is_compiled_again() {
    let module = Source::default().module();
    let digest = Digest::of(&module);
    let lines = RuntimeConfig { trace_lines: true, memories_max: 4, ..RuntimeConfig::default() };
    let code = compile("p.wasm", &module, &lines).expect("compiled");
    let sealed = Sealed::seal(&KEY, &digest, &code);
    assert_eq!(Sealed::open(&KEY, &digest, sealed.clone(), &RUNTIME).map(drop), Err(SealError::OtherEngine));
    let other = Runtime::new(lines).expect("a runtime");
    let opened = Sealed::open(&KEY, &digest, sealed, &other).expect("its own");
    other.load_compiled("p", "p.wasm", digest, module.len(), &opened).expect("a plugin");
    // Opened for one engine and handed to another.
    let error = RUNTIME.load_compiled("p", "p.wasm", Digest::of(b"x"), 1, &opened).expect_err("refused");
    assert_eq!(error.to_string(), "the compiled code of p.wasm cannot be used: it is of another file");
    let source = Source { process: "(call $retry (i64.const 5_001))", ..Source::default() }.module();
    let digest = Digest::of(&source);
    let code = compile("q.wasm", &source, &RuntimeConfig { trace_lines: true, ..RuntimeConfig::default() });
    let opened = Sealed::open(&KEY, &digest, Sealed::seal(&KEY, &digest, &code.expect("compiled")), &other);
    let error = RUNTIME.load_compiled("q", "q.wasm", digest, 1, &opened.expect("its own")).expect_err("refused");
    assert!(matches!(error, LoadError::Compiled { .. }), "{error}");
}

#[test]
fn compiling_elsewhere_refuses_what_loading_refuses() {
    let config = RuntimeConfig::default();
    for wrong in [&b"#!/bin/sh"[..], &wat::parse_str("(module)").expect("WAT"), &Source::default().module()[..100]] {
        let there = compile("p.wasm", wrong, &config).expect_err("refused");
        assert_eq!(there, RUNTIME.load("p", "p.wasm", wrong).expect_err("refused"));
    }
}
