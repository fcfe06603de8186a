//! Plugin runtime: loads WebAssembly plugins and runs them on messages, within limits.
//!
//! The only crate that knows wasmtime; the router sees plugins through the trait [`Plugin`].
//!
//! What it deliberately is not:
//! - It grants nothing. A plugin gets the message in hand, its configuration and a log: no network, no files, no
//!   environment, no clock but the attempt's, and of WASI only what an inert stub can answer.
//! - It schedules nothing: [`Plugin::process`] blocks the caller's thread, which must not be one of an async runtime's.
//! - It decides nothing about delivery: what a verdict or a fault does to a message is the router's business.
//! - It keeps nothing on disk. Compiled code may be kept by others, [`Sealed`]; any that this router did not seal itself
//!   is never loaded.
//! - It never believes a guest: every pointer, length and text that comes from one is checked, and a number is clamped
//!   before anything is allocated by it.

mod attempt;
mod bindings;
mod capsule;
mod component;
mod fault;
mod fingerprint;
mod frames;
mod guest;
mod host;
mod load;
mod logs;
pub mod plugin;
mod runtime;
mod sealed;
mod slots;
mod text;

pub use attempt::{Attempt, Change};
pub use capsule::{CAPSULE_BYTES_MAX, Capsule, CapsuleError, MessageRecord};
pub use component::{Component, ConfigureError, Isolation, Recycle, Use};
pub use frames::Frame;
pub use guest::Guest;
pub use load::{FILE_BYTES_MAX, LoadError};
pub use logs::{CapturedLog, LOG_LINES_MAX, LogLevel, LogLine, LogSink};
pub use plugin::{Digest, DigestError, Emitted, Fault, FaultKind, Hand, Limits, Plugin, Usage, Verdict};
pub use runtime::{Room, Runtime, RuntimeConfig, RuntimeError, compile};
pub use sealed::{SealError, Sealed};
