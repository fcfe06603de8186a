//! Random WebAssembly by a seed, and what is tried with it. Shared by the test and by the example that runs for longer.

use std::sync::LazyLock;
use std::time::Duration;

use arbitrary::{Arbitrary as _, Unstructured};
use quipu_protocol::{Message, MessageId, Subject};
use quipu_runtime::{
    Attempt, Component, Digest, FaultKind, Hand, Limits, LoadError, Recycle, Runtime, RuntimeConfig, Sealed, Use,
    compile,
};
use wasm_smith::{Component as SmithComponent, Config, Module};
use wasmparser::{Parser, Payload};

/// What became of random files.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) tried: u64,
    /// Refused as no plugins.
    pub(crate) refused: u64,
    /// Loaded, and failed to start.
    pub(crate) failed_to_start: u64,
    /// Came to a verdict.
    pub(crate) decided: u64,
    /// Came to a fault.
    pub(crate) faulted: u64,
}

/// All imports and exports of the contract, so that a random module calls the router at random.
static SHAPE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    wat::parse_str(
        r#"(module
          (import "quipu:plugin/message@0.1.0" "id" (func (param i32)))
          (import "quipu:plugin/message@0.1.0" "header" (func (param i32 i32 i32)))
          (import "quipu:plugin/message@0.1.0" "headers" (func (param i32)))
          (import "quipu:plugin/message@0.1.0" "payload" (func (param i32)))
          (import "quipu:plugin/message@0.1.0" "payload-range" (func (param i32 i32 i32)))
          (import "quipu:plugin/message@0.1.0" "attempt" (func (result i32)))
          (import "quipu:plugin/edit@0.1.0" "set-header" (func (param i32 i32 i32 i32)))
          (import "quipu:plugin/edit@0.1.0" "set-key" (func (param i32 i32)))
          (import "quipu:plugin/edit@0.1.0" "remove-key" (func))
          (import "quipu:plugin/edit@0.1.0" "set-payload" (func (param i32 i32)))
          (import "quipu:plugin/emit@0.1.0" "copy" (func (param i32 i32 i32)))
          (import "quipu:plugin/emit@0.1.0" "publish" (func (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
          (import "quipu:plugin/context@0.1.0" "config" (func (param i32)))
          (import "quipu:plugin/context@0.1.0" "now-ms" (func (result i64)))
          (import "quipu:plugin/context@0.1.0" "seed" (func (result i64)))
          (import "quipu:plugin/log@0.1.0" "log" (func (param i32 i32 i32)))
          (import "quipu:plugin/log@0.1.0" "fault" (func (param i32 i32 i32 i32)))
          (memory (export "memory") 1 100)
          (func (export "quipu:plugin/handler@0.1.0#process") (result i32) unreachable)
          (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
          (func (export "quipu:plugin/handler@0.1.0#configure") (result i32) unreachable))"#,
    )
    .expect("valid WAT")
});

/// A key like a router's.
const KEY: [u8; 32] = [5; 32];

/// For short loops to be over soon.
const DEADLINE: Duration = Duration::from_millis(10);

/// Small limits, so that random code runs into them.
const LIMITS: Limits = Limits {
    deadline: DEADLINE,
    memory_bytes: 16 << 20,
    output_bytes: 64 << 10,
    emits: 16,
    host_calls: 10_000,
    log_lines: 4,
    log_bytes: 1 << 10,
};

/// A runtime whose clock looks often.
pub(crate) fn runtime() -> Runtime {
    Runtime::new(RuntimeConfig { tick: Duration::from_millis(1), memories_max: 32, ..RuntimeConfig::default() })
        .expect("a runtime")
}

/// Makes the file of a seed and tries it.
///
/// # Panics
///
/// Where the runtime breaks a promise. The seed is in the text.
pub(crate) fn try_seed(runtime: &Runtime, seed: u64, tally: &mut Tally) {
    tally.tried += 1;
    let Some(file) = file(seed) else { return tally.refused += 1 };
    let component = match load(runtime, seed, &file) {
        Ok(component) => component,
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("smith.wasm") && text.len() < 2 << 10, "seed {seed}: {text}");
            return tally.refused += 1;
        }
    };
    let Some(first) = attempts(&component, seed) else { return tally.failed_to_start += 1 };
    let second = attempts(&component, seed);
    // Only time is not the same twice.
    let late = |attempt: &Attempt| matches!(&attempt.verdict, Err(fault) if fault.kind == FaultKind::Deadline);
    let digests = |attempts: &[Attempt]| attempts.iter().map(Attempt::digest).collect::<Vec<_>>();
    if let Some(second) = second
        && !first.iter().chain(&second).any(late)
    {
        assert_eq!(digests(&first), digests(&second), "seed {seed}: {first:?} {second:?}");
    }
    for attempt in &first {
        assert!(attempt.usage.memory_peak_bytes <= LIMITS.memory_bytes, "seed {seed}: {:?}", attempt.usage);
        assert!(attempt.output.emitted.len() <= LIMITS.emits as usize, "seed {seed}");
        match attempt.verdict {
            Ok(_) => tally.decided += 1,
            Err(_) => tally.faulted += 1,
        }
    }
}

/// Some are compiled as if elsewhere.
fn load(runtime: &Runtime, seed: u64, file: &[u8]) -> Result<Component, LoadError> {
    if !seed.is_multiple_of(5) {
        return runtime.load("smith", "smith.wasm", file);
    }
    let digest = Digest::of(file);
    let code = compile("smith.wasm", file, &RuntimeConfig::default())?;
    let sealed = Sealed::open(&KEY, &digest, Sealed::seal(&KEY, &digest, &code), runtime).expect("sealed by ourselves");
    runtime.load_compiled("smith", "smith.wasm", digest, file.len(), &sealed)
}

/// Two messages through a new instance; none where it does not start.
fn attempts(component: &Component, seed: u64) -> Option<Vec<Attempt>> {
    let recycle = Recycle { memory_bytes: Some(8 << 20), messages: None };
    let r#use = Use {
        route: "r".into(),
        config_json: "{\"a\":[1,2,3]}".into(),
        limits: LIMITS,
        recycle,
        started_ms: Some(1_700_000_000_000),
        ..Use::default()
    };
    let mut guest = component.plugin(r#use).ok()?;
    let attempt = |n: u32| Attempt::of(&mut guest, hand(seed, n), None);
    Some([1, 2].map(attempt).into())
}

fn hand(seed: u64, attempt: u32) -> Hand {
    let id = MessageId::new(&format!("m{seed}")).expect("an id");
    let mut message = Message::new(id, Subject::new("a.b").expect("a subject"), seed.to_le_bytes().repeat(100));
    message.headers.add("type", "test").expect("a header");
    Hand::new(message, attempt, 1_700_000_000_001, seed)
}

/// Of a seed: mostly modules that fit the contract, else components, and modules with everything that there is.
fn file(seed: u64) -> Option<Vec<u8>> {
    let bytes = random_bytes(seed);
    let mut entropy = Unstructured::new(&bytes);
    match seed % 8 {
        0 => SmithComponent::new(sober(), &mut entropy).ok().map(|component| component.to_bytes()),
        1 => {
            let config = Config::arbitrary(&mut entropy).ok()?;
            SmithComponent::new(config, &mut entropy).ok().map(|component| component.to_bytes())
        }
        2 => {
            let config = Config::arbitrary(&mut entropy).ok()?;
            Module::new(config, &mut entropy).ok().map(|module| inside(&module.to_bytes()))
        }
        _ => {
            let config = Config { module_shape: Some(SHAPE.clone()), ..sober() };
            let mut module = Module::new(config, &mut entropy).ok()?;
            if seed.is_multiple_of(2) {
                // Without loops that only the clock ends, there is more to compare.
                module.ensure_termination(10_000).ok()?;
            }
            let module = module.to_bytes();
            Some(if seed.is_multiple_of(3) { module } else { configured(&module) })
        }
    }
}

/// The module with a `configure` that always succeeds, so that `process` has its turn.
fn configured(module: &[u8]) -> Vec<u8> {
    const SUCCEEDS: [u8; 4] = [0, 0x41, 0, 0x0b]; // no variables, i32.const 0, end
    let mut file = module[..8].to_vec();
    let (mut imported, mut configure, mut functions, mut bodies) = (0, 0, 0, Vec::new());
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload.expect("a valid module");
        match &payload {
            Payload::ImportSection(imports) => imported = imports.count(),
            Payload::ExportSection(exports) => {
                let mut exports = exports.clone().into_iter().map(|export| export.expect("valid"));
                let found = exports.find(|export| export.name.ends_with("#configure"));
                configure = found.expect("of the shape").index;
            }
            Payload::CodeSectionStart { count, .. } => functions = *count as usize,
            Payload::CodeSectionEntry(body) => {
                let is_configure = bodies.len() == (configure - imported) as usize;
                bodies.push(if is_configure { &SUCCEEDS[..] } else { &module[body.range()] });
                if bodies.len() == functions {
                    let mut code = leb(bodies.len());
                    bodies.iter().for_each(|body| code.extend([leb(body.len()).as_slice(), body].concat()));
                    file.extend([&[10], leb(code.len()).as_slice(), &code].concat());
                }
            }
            _ => {}
        }
        if let Some((id, range)) = payload.as_section().filter(|(id, _)| *id != 10) {
            file.extend([&[id], leb(range.len()).as_slice(), &module[range]].concat());
        }
    }
    file
}

/// What the engine runs.
fn sober() -> Config {
    Config {
        gc_enabled: false,
        reference_types_enabled: false,
        exceptions_enabled: false,
        threads_enabled: false,
        memory64_enabled: false,
        custom_page_sizes_enabled: false,
        max_memories: 2,
        max_memory32_bytes: 32 << 20,
        max_tables: 4,
        max_table_elements: 30_000,
        max_instructions: 400,
        allow_start_export: false,
        ..Config::default()
    }
}

/// A component with this module in it.
fn inside(module: &[u8]) -> Vec<u8> {
    [b"\0asm\x0d\0\x01\0\x01".as_slice(), &leb(module.len()), module].concat()
}

/// As WebAssembly writes numbers.
fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(u8::try_from(number & 0x7f).expect("seven bits") | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).expect("seven bits"));
    bytes
}

/// 1 to 8 KiB, by splitmix64.
fn random_bytes(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    let words = 128 + next() % 896;
    (0..words).flat_map(|_| next().to_le_bytes()).collect()
}
