//! A plugin that harms: each act is one way to run past a limit, and the router's tests show that it costs nobody else.
//!
//! `{ "act": "loop" }` and so on; on each message, but for the two acts of `configure`. Off WebAssembly the acts are
//! not to be run: some of them would end the process.

use quipu_plugin::prelude::*;
use std::hint::black_box;

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Act {
    /// Never comes back.
    Loop,
    /// Takes memory, and writes to it, until there is none.
    Allocate,
    /// Calls itself until the stack is used up.
    Recursion,
    /// Panics, with words.
    Panic,
    /// Panics on the first attempt at a message, and forwards on the next.
    PanicOnce,
    /// Executes `unreachable`, without a word.
    Trap,
    /// Makes the payload larger than any limit.
    Output,
    /// Emits until it is refused, then forwards; the header `emitted` says how many were taken.
    Emit,
    /// Emits copies to this same subject.
    EmitHere,
    /// Logs without end.
    Log,
    /// Sets a header that no plugin may set.
    Header,
    /// Routes to a subject that is none.
    Route,
    /// Gives a reason of a million letters.
    Reason,
    /// Asks the router for the payload without end.
    Calls,
    /// Rejects, by an error.
    Error,
    /// Does no harm, for comparison.
    Forward,
    /// Never comes back from `configure`.
    ConfigureLoop,
    /// Refuses its configuration.
    ConfigureError,
    /// Panics in `configure`.
    ConfigurePanic,
}

#[derive(Debug, Deserialize)]
struct Hostile {
    act: Act,
}

impl Plugin for Hostile {
    fn check(&self) -> Result<(), String> {
        match self.act {
            Act::ConfigureLoop => spin(),
            Act::ConfigureError => Err("act: refused, as asked".into()),
            Act::ConfigurePanic => panic!("said by the guest in configure"),
            _ => Ok(()),
        }
    }

    fn process(&mut self, message: &mut Message) -> Result<Verdict> {
        match self.act {
            Act::Loop => spin(),
            Act::Allocate => allocate(),
            Act::Recursion => {
                black_box(recurse(black_box(1)));
            }
            Act::Panic => panic!("said by the guest"),
            Act::PanicOnce => assert!(message.attempt() > 1, "said by the guest, once"),
            Act::Trap => trap(),
            Act::Output => message.set_payload(vec![b'x'; 48 << 20]),
            Act::Emit => emit(message),
            Act::EmitHere => message.emit_copy(message.subject())?,
            Act::Log => loop {
                log::error("x".repeat(1 << 16));
            },
            Act::Header => message.set_header("quipu-parent", "forged"),
            Act::Route => return Ok(route(["not a subject", "*.>"])),
            Act::Reason => return Ok(drop("x".repeat(1_000_000))),
            Act::Calls => loop {
                black_box(message.payload_range(0, u32::MAX));
            },
            Act::Error => Err("the guest's error")?,
            Act::Forward | Act::ConfigureLoop | Act::ConfigureError | Act::ConfigurePanic => {}
        }
        Ok(forward())
    }
}
plugin!(Hostile);

/// Has no effect that an optimiser could not remove, were it not for the black box.
fn spin() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

/// Steps of 1 MiB, kept, each byte written.
fn allocate() {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    loop {
        kept.push(black_box(vec![0xa5; 1 << 20]));
    }
}

/// Not a tail call, with a frame too large for registers, and with an end that nobody but the compiler hopes for.
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    if frame[1] == 0 { 0 } else { recurse(frame[63].wrapping_add(1)) + frame[0] }
}

fn emit(message: &mut Message) {
    let mut emitted = 0_u64;
    while message.emit(Outgoing::new("flood").payload("drop in the ocean")).is_ok() {
        emitted += 1;
    }
    message.set_header("emitted", &emitted.to_string());
}

fn trap() {
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    std::process::abort();
}

#[cfg(test)]
mod tests {
    use super::Hostile;
    use quipu_plugin::prelude::*;
    use quipu_plugin::testing::{Harness, MockMessage, run};

    #[test]
    fn emits_until_it_is_refused() {
        let outcome = run::<Hostile>(json!({ "act": "emit" }), MockMessage::new("a"));
        assert_eq!((outcome.verdict.clone(), outcome.header("emitted")), (forward(), Some("1024")));
    }

    #[test]
    fn refuses_its_configuration() {
        let error = Harness::<Hostile>::new(json!({ "act": "configure-error" })).err();
        assert_eq!(error.as_deref(), Some("act: refused, as asked"));
    }
}
