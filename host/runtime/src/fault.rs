//! From the engine's error to what people are told: which limit, what the guest said, where it was.

use std::num::NonZeroUsize;

use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};

use crate::host::{HANDLES_MAX, Host, Misuse, Refused, Said, TABLE_ELEMENTS_MAX};
use crate::plugin::{Fault, FaultKind};
use crate::text::{Line, Size, start};

/// Most WebAssembly frames in a trace.
pub(crate) const FRAMES_MAX: NonZeroUsize = NonZeroUsize::new(32).expect("not zero");

/// Most lines of a guest's own trace.
const SAID_LINES_MAX: usize = 128;

/// Longest line of a trace, in bytes; names of generic functions have no end.
const LINE_BYTES_MAX: usize = 256;

impl Host {
    /// What a failed call amounts to. Takes what the guest said.
    pub(crate) fn fault(&mut self, error: &wasmtime::Error) -> Fault {
        let said = self.said.take();
        let (kind, text) = self.reason(error, said.as_ref());
        let mut trace = Vec::new();
        if let Some(said) = &said {
            let lines = said.trace.lines().filter(|line| !line.trim().is_empty());
            trace.extend(lines.take(SAID_LINES_MAX).map(line));
        }
        if let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() {
            trace.extend(frames(&backtrace.to_string()));
        }
        Fault { kind, text, trace }
    }

    fn reason(&self, error: &wasmtime::Error, said: Option<&Said>) -> (FaultKind, String) {
        if let Some(misuse) = error.downcast_ref::<Misuse>() {
            return (misuse.kind(), misuse.to_string());
        }
        let trap = error.downcast_ref::<Trap>();
        if trap == Some(&Trap::Interrupt) {
            return (FaultKind::Deadline, format!("plugin ran over {} ms", self.limits().deadline.as_millis()));
        }
        if error.is::<PoolConcurrencyLimitError>() {
            return (FaultKind::Exhausted, format!("no room for another plugin instance: {}", error.root_cause()));
        }
        let (kind, text) = match (said, trap) {
            (Some(said), _) => (FaultKind::Said, said.text.clone()),
            (None, Some(trap)) => trapped(*trap),
            (None, None) => handed_over(error),
        };
        match self.memory.refused {
            Some(Refused::Memory) => {
                (FaultKind::Memory, format!("memory limit of {} reached; {text}", Size(self.limits().memory_bytes)))
            }
            Some(Refused::Table) => {
                (FaultKind::Memory, format!("limit of {TABLE_ELEMENTS_MAX} table elements reached; {text}"))
            }
            None => (kind, text),
        }
    }
}

fn trapped(trap: Trap) -> (FaultKind, String) {
    let code = match trap {
        Trap::StackOverflow => "stack-overflow",
        Trap::MemoryOutOfBounds => "memory-out-of-bounds",
        Trap::TableOutOfBounds => "table-out-of-bounds",
        Trap::IndirectCallToNull => "call-to-null",
        Trap::BadSignature => "call-signature",
        Trap::IntegerOverflow => "integer-overflow",
        Trap::IntegerDivisionByZero => "division-by-zero",
        Trap::BadConversionToInteger => "float-to-integer",
        Trap::UnreachableCodeReached => "unreachable",
        _ => "trap",
    };
    let text = trap.to_string();
    (FaultKind::Trap(code), format!("plugin trapped: {}", text.strip_prefix("wasm trap: ").unwrap_or(&text)))
}

/// An error without a trap: the engine refused what the guest handed over.
fn handed_over(error: &wasmtime::Error) -> (FaultKind, String) {
    let text = error.root_cause().to_string();
    // The engine has no public types for these; its version is pinned, and tests look for them.
    if text.contains("store handle limit exceeded") {
        return (FaultKind::Memory, format!("limit of {HANDLES_MAX} handles of resources reached"));
    }
    let too_much = text.contains("fuel allocated for hostcalls has been exhausted");
    let kind = if too_much { FaultKind::Output } else { FaultKind::Abi };
    let what = if too_much { "too much was handed over in one call" } else { "what was handed over breaks its type" };
    (kind, format!("{what}: {}", Line(start(&text, 1 << 10))))
}

/// The lines of a displayed backtrace, without the numbers: `module!function (0x12)`, and `at file:line` where known.
///
/// Only the displayed form has names demangled.
fn frames(displayed: &str) -> impl Iterator<Item = String> {
    displayed.lines().skip(1).take(FRAMES_MAX.get()).map(|shown| {
        let shown = shown.trim();
        let numbered = shown.split_once(": ").filter(|(n, _)| n.bytes().all(|b| b.is_ascii_digit()));
        let named = numbered.and_then(|(_, rest)| rest.trim_start().split_once(" - "));
        match named {
            Some((offset, name)) => format!("{} ({offset})", line(name.strip_prefix("<unknown>!").unwrap_or(name))),
            None => line(shown),
        }
    })
}

fn line(text: &str) -> String {
    Line(start(text, LINE_BYTES_MAX)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_lose_their_numbers_and_keep_their_names() {
        let shown = "error while executing at wasm backtrace:\n    0:     0x1f - <unknown>!boom\n    \
                     1:   0x1a2b - filter.wasm!core::panic\n                    at src/lib.rs:7\n";
        let lines: Vec<_> = frames(shown).collect();
        assert_eq!(lines, ["boom (0x1f)", "filter.wasm!core::panic (0x1a2b)", "at src/lib.rs:7"]);
    }
}
