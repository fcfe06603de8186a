//! `log`: lines for people, and the guest's own account of a failure.

use wasmtime::Result;

use super::Host;
use crate::bindings::quipu::plugin::log::{self, Level};
use crate::logs::LogLevel;
use crate::text::{cut, start};

/// What a guest said of its failure before it trapped.
#[derive(Debug)]
pub(crate) struct Said {
    /// At most 4 KiB.
    pub(crate) text: String,
    /// At most 16 KiB.
    pub(crate) trace: String,
}

/// Longest text of a fault that is kept, in bytes.
const FAULT_TEXT_BYTES_MAX: usize = 4 << 10;
/// Longest trace of a fault that is kept, in bytes.
const FAULT_TRACE_BYTES_MAX: usize = 16 << 10;

impl log::Host for Host {
    fn log(&mut self, level: Level, text: String) -> Result<()> {
        self.called()?;
        if let Some(bytes) = self.log_bytes_granted(text.len()) {
            self.identity.logs.line(level.into(), start(&text, bytes));
        }
        Ok(())
    }

    fn fault(&mut self, text: String, trace: String) -> Result<()> {
        self.called()?;
        self.said = Some(Said { text: cut(text, FAULT_TEXT_BYTES_MAX), trace: cut(trace, FAULT_TRACE_BYTES_MAX) });
        Ok(())
    }
}

impl Host {
    /// How much of a line of so many bytes may be written; None where the line is only counted.
    fn log_bytes_granted(&mut self, bytes: usize) -> Option<usize> {
        let left = self.limits.log_bytes.saturating_sub(self.used.log_bytes);
        if self.used.log_lines >= self.limits.log_lines || left == 0 {
            self.used.log_suppressed += 1;
            return None;
        }
        let granted = bytes.min(left);
        self.used.log_lines += 1;
        self.used.log_bytes += granted;
        Some(granted)
    }
}

impl From<Level> for LogLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::Trace => Self::Trace,
            Level::Debug => Self::Debug,
            Level::Info => Self::Info,
            Level::Warn => Self::Warn,
            Level::Error => Self::Error,
        }
    }
}
