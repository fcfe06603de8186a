//! `[limits]`: how much may be open and wait at once. What a router takes of memory follows from these.

use quipu_protocol::limits::PAYLOAD_BYTES_MAX;

use super::check::{Checker, bytes};
use super::raw;
use super::units::ByteSize;

/// How much may be open and wait at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LimitsConfig {
    /// `sessions`: connections. Default 1,024; 1 to 65,536.
    pub(crate) sessions: usize,
    /// `publishers`: publisher streams of all sessions. Default 1,024; 1 to 65,536.
    pub(crate) publishers: usize,
    /// `consumers`: subscription streams of all sessions. Default 1,024; 1 to 65,536.
    pub(crate) consumers: usize,
    /// `requests`: requests of all sessions that wait for replies. Default 1,024; 1 to 65,536.
    pub(crate) requests: usize,
    /// `connection_window`: bytes of one connection that wait to be read, and as many that wait for the peer. Default 4
    /// MiB; 256 KiB to 64 MiB.
    pub(crate) connection_window_bytes: u32,
    /// `message`: the largest payload of a publish. Default and at most 8 MiB; at least 64 KiB.
    pub(crate) message_bytes: usize,
    /// `ingest`: bytes of publishes that are being received or wait for the store. Default 256 MiB; at least 16 MiB.
    pub(crate) ingest_bytes: u64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            sessions: 1_024,
            publishers: 1_024,
            consumers: 1_024,
            requests: 1_024,
            connection_window_bytes: 4 << 20,
            message_bytes: PAYLOAD_BYTES_MAX,
            ingest_bytes: 256 << 20,
        }
    }
}

const OPEN_MAX: usize = 65_536;

pub(super) fn check(checker: &mut Checker<'_>, raw: raw::Limits) -> LimitsConfig {
    let default = LimitsConfig::default();
    let window = ByteSize(256 << 10)..=ByteSize(64 << 20);
    let window = checker.within(raw.connection_window, "limits.connection_window", window);
    let message = ByteSize(64 << 10)..=ByteSize(PAYLOAD_BYTES_MAX as u64);
    let message = checker.within(raw.message, "limits.message", message);
    let ingest = checker.within(raw.ingest, "limits.ingest", ByteSize(16 << 20)..=ByteSize(1 << 40));
    LimitsConfig {
        sessions: checker.within(raw.sessions, "limits.sessions", 1..=OPEN_MAX).unwrap_or(default.sessions),
        publishers: checker.within(raw.publishers, "limits.publishers", 1..=OPEN_MAX).unwrap_or(default.publishers),
        consumers: checker.within(raw.consumers, "limits.consumers", 1..=OPEN_MAX).unwrap_or(default.consumers),
        requests: checker.within(raw.requests, "limits.requests", 1..=OPEN_MAX).unwrap_or(default.requests),
        connection_window_bytes: window
            .and_then(|window| u32::try_from(window.0).ok())
            .unwrap_or(default.connection_window_bytes),
        message_bytes: message.map_or(default.message_bytes, bytes),
        ingest_bytes: ingest.map_or(default.ingest_bytes, |ingest| ingest.0),
    }
}
