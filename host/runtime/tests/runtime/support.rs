//! A guest in WAT, with the pieces that a test fills in, and one runtime for all tests.

use std::sync::LazyLock;
use std::time::Duration;

use quipu_protocol::{Key, Message, MessageId, Subject};
use quipu_runtime::{ConfigureError, Fault, Guest, Hand, Limits, Plugin, Runtime, RuntimeConfig, Use, Verdict};

/// Shared by all tests, as all routes of a router share one.
pub(crate) static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Runtime::new(RuntimeConfig::default()).expect("a runtime"));

/// A guest's functions, in WAT. Its own data may start at 1,024; what the host hands over lies from 8,192 on; where an
/// import returns a structure, 64 is free for it.
pub(crate) struct Source {
    /// Body of `configure`; returns the place of a `result<_, string>`.
    pub(crate) configure: &'static str,
    /// Body of `process`; returns the place of a `verdict`.
    pub(crate) process: &'static str,
    /// More fields of the module.
    pub(crate) extra: &'static str,
    /// Pages of memory to begin with.
    pub(crate) pages: u32,
}

impl Default for Source {
    fn default() -> Self {
        Self { configure: "(i32.const 0)", process: "(i32.const 0)", extra: "", pages: 2 }
    }
}

impl Source {
    pub(crate) fn text(&self) -> String {
        let Self { configure, process, extra, pages } = self;
        TEMPLATE
            .replace("{configure}", configure)
            .replace("{process}", process)
            .replace("{extra}", extra)
            .replace("{pages}", &pages.to_string())
    }

    pub(crate) fn module(&self) -> Vec<u8> {
        wat::parse_str(self.text()).expect("valid WAT")
    }

    pub(crate) fn start(&self, limits: Limits) -> Result<Guest, ConfigureError> {
        let component = RUNTIME.load("tried", "tried.wasm", &self.module()).expect("a plugin");
        component.plugin(Use { route: "r".into(), config_json: r#"{"a":1}"#.into(), limits, ..Use::default() })
    }

    pub(crate) fn guest(&self) -> Guest {
        self.start(limits()).expect("an instance")
    }

    /// One message through a new instance.
    pub(crate) fn run(&self) -> Result<(Verdict, Hand), Fault> {
        let mut hand = hand();
        let verdict = self.guest().process(&mut hand)?;
        Ok((verdict, hand))
    }

    pub(crate) fn fault(&self) -> Fault {
        self.run().expect_err("a fault")
    }
}

/// As by default, but with a deadline that a slow machine does not miss by itself.
pub(crate) fn limits() -> Limits {
    Limits { deadline: Duration::from_secs(5), ..Limits::default() }
}

/// Subject `a.b`, key `k`, headers `type: quake` and `type: second`, payload `0123456789`.
pub(crate) fn hand() -> Hand {
    let mut message = Message::new(MessageId::new("m1").expect("id"), subject("a.b"), &b"0123456789"[..]);
    message.key = Some(Key::new(&b"k"[..]).expect("key"));
    message.headers.add("Type", "quake").expect("header");
    message.headers.add("type", "second").expect("header");
    Hand::new(message, 3, 1_700_000_000_123, 42)
}

pub(crate) fn subject(text: &str) -> Subject {
    Subject::new(text).expect("a subject")
}

const TEMPLATE: &str = r#"(module $guest
  (import "quipu:plugin/message@0.1.0" "header" (func $header (param i32 i32 i32)))
  (import "quipu:plugin/message@0.1.0" "headers" (func $headers (param i32)))
  (import "quipu:plugin/message@0.1.0" "payload-len" (func $payload-len (result i32)))
  (import "quipu:plugin/message@0.1.0" "payload-range" (func $payload-range (param i32 i32 i32)))
  (import "quipu:plugin/message@0.1.0" "attempt" (func $attempt (result i32)))
  (import "quipu:plugin/edit@0.1.0" "set-header" (func $set-header (param i32 i32 i32 i32)))
  (import "quipu:plugin/edit@0.1.0" "remove-header" (func $remove-header (param i32 i32)))
  (import "quipu:plugin/edit@0.1.0" "set-key" (func $set-key (param i32 i32)))
  (import "quipu:plugin/edit@0.1.0" "remove-key" (func $remove-key))
  (import "quipu:plugin/edit@0.1.0" "set-payload" (func $set-payload (param i32 i32)))
  (import "quipu:plugin/emit@0.1.0" "copy" (func $copy (param i32 i32 i32)))
  (import "quipu:plugin/emit@0.1.0" "publish"
    (func $publish (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "quipu:plugin/context@0.1.0" "config" (func $config (param i32)))
  (import "quipu:plugin/context@0.1.0" "now-ms" (func $now-ms (result i64)))
  (import "quipu:plugin/context@0.1.0" "seed" (func $seed (result i64)))
  (import "quipu:plugin/log@0.1.0" "log" (func $log (param i32 i32 i32)))
  (import "quipu:plugin/log@0.1.0" "fault" (func $fault (param i32 i32 i32 i32)))
  (memory (export "memory") {pages})
  (global $heap (mut i32) (i32.const 8192))
  (func (export "cabi_realloc") (param i32 i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and
      (i32.add (global.get $heap) (i32.sub (local.get $align) (i32.const 1)))
      (i32.sub (i32.const 0) (local.get $align))))
    (global.set $heap (i32.add (local.get $at) (local.get $size)))
    (local.get $at))
  ;; A verdict with a list or text: 1 route, 2 drop, 4 reject.
  (func $verdict (param $case i32) (param $at i32) (param $length i32) (result i32)
    (i32.store8 (i32.const 128) (local.get $case))
    (i32.store (i32.const 136) (local.get $at))
    (i32.store (i32.const 140) (local.get $length))
    (i32.const 128))
  (func $retry (param $ms i64) (result i32)
    (i32.store8 (i32.const 128) (i32.const 3))
    (i64.store (i32.const 136) (local.get $ms))
    (i64.store (i32.const 144) (i64.const 0))
    (i32.const 128))
  (func $configure (export "quipu:plugin/handler@0.1.0#configure") (result i32) {configure})
  (func $process (export "quipu:plugin/handler@0.1.0#process") (result i32)
    (global.set $heap (i32.const 8192))
    {process})
  {extra})"#;
