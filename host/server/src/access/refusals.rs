//! Counts what is refused, and says so in the log, but not without end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

/// Lines in the log within [`LOG_WINDOW`]; what is beyond is counted, and the count said later.
const LOG_LINES_MAX: u32 = 20;
const LOG_WINDOW: Duration = Duration::from_secs(10);

/// Why something was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// A client certificate that no authority vouches for, or that is not valid now.
    Certificate,
    /// A good certificate that is no user's, or another's than the token.
    UnknownCertificate,
    /// Nothing shown, where that is not enough.
    NoCredential,
    /// A token that is no user's.
    Token,
    /// A user that is revoked.
    Revoked,
    /// The right of that name.
    Publish,
    Consume,
    Read,
    Admin,
}

impl Reason {
    const ALL: [Self; 9] = [
        Self::Certificate,
        Self::UnknownCertificate,
        Self::NoCredential,
        Self::Token,
        Self::Revoked,
        Self::Publish,
        Self::Consume,
        Self::Read,
        Self::Admin,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::UnknownCertificate => "unknown_certificate",
            Self::NoCredential => "no_credential",
            Self::Token => "token",
            Self::Revoked => "revoked",
            Self::Publish => "publish",
            Self::Consume => "consume",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }
}

/// What was refused since the start.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    counts: [AtomicU64; Reason::ALL.len()],
    log: Mutex<Log>,
}

#[derive(Debug, Default)]
struct Log {
    window: Option<Instant>,
    lines: u32,
    /// Not said, since the last line that was.
    unsaid: u64,
}

impl Refusals {
    /// Counts one, and says it in the log where that has room.
    pub(super) fn note(&self, reason: Reason, text: &str) {
        self.counts[reason as usize].fetch_add(1, Ordering::Relaxed);
        let line = self.log.lock().unwrap_or_else(PoisonError::into_inner).line(Instant::now());
        if let Some(unsaid) = line {
            tracing::warn!(reason = reason.as_str(), unsaid, "refused: {text}");
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Only the reasons that there were.
    pub(super) fn by_reason(&self) -> Value {
        let counts = Reason::ALL.iter().map(|reason| (*reason, self.counts[*reason as usize].load(Ordering::Relaxed)));
        let counts = counts.filter(|(_, count)| *count > 0);
        Value::Object(counts.map(|(reason, count)| (reason.as_str().to_owned(), count.into())).collect::<Map<_, _>>())
    }
}

impl Log {
    /// Whether a line may be said now, and how many were not before it.
    fn line(&mut self, now: Instant) -> Option<u64> {
        if self.window.is_none_or(|since| now.duration_since(since) >= LOG_WINDOW) {
            self.window = Some(now);
            self.lines = 0;
        }
        if self.lines >= LOG_LINES_MAX {
            self.unsaid += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_reason() {
        let refusals = Refusals::default();
        for reason in Reason::ALL.into_iter().chain([Reason::Admin]) {
            refusals.note(reason, "a test");
        }
        assert_eq!(refusals.total(), 10);
        let by_reason = refusals.by_reason();
        assert_eq!((&by_reason["admin"], &by_reason["certificate"]), (&2.into(), &1.into()));
    }

    #[test]
    fn the_log_has_an_end_and_says_what_it_left_out() {
        let (mut log, start) = (Log::default(), Instant::now());
        let said = (0..LOG_LINES_MAX + 5).filter_map(|_| log.line(start)).collect::<Vec<_>>();
        assert_eq!(said, vec![0; LOG_LINES_MAX as usize]);
        assert_eq!(log.line(start + LOG_WINDOW), Some(5));
        assert_eq!(log.line(start + LOG_WINDOW), Some(0));
    }
}
