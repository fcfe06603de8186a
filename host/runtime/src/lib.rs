//! Plugin runtime: loads WebAssembly plugins and runs them on messages, within limits.
//!
//! The only crate that knows wasmtime; the router sees plugins through the trait [`Plugin`].
//!
//! What it deliberately is not:
//! - It grants nothing. A plugin gets the message in hand, its configuration and a log: no network, no files, no
//!   environment, no clock but the attempt's, and of WASI only what an inert stub can answer.
//! - It schedules nothing: [`Plugin::process`] blocks the caller's thread, which must not be one of an async runtime's.
//! - It decides nothing about delivery: what a verdict or a fault does to a message is the router's business.
//! - It keeps nothing on disk and counts nothing. Compiled code lives in memory only, by digest, and precompiled code is
//!   never loaded.
//! - It never believes a guest: every pointer, length and text that comes from one is checked, and a number is clamped
//!   before anything is allocated by it.

mod bindings;
mod component;
mod fault;
mod guest;
mod host;
mod load;
pub mod plugin;
mod runtime;
mod slots;
mod text;

pub use component::{Component, ConfigureError, Use};
pub use guest::Guest;
pub use load::{FILE_BYTES_MAX, LoadError};
pub use plugin::{Digest, Emitted, Fault, FaultKind, Hand, Limits, Plugin, Verdict};
pub use runtime::{Runtime, RuntimeConfig, RuntimeError};
