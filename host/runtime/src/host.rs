//! The router's side of one instance: the message in hand, what is left of the limits, and what the guest said.
//!
//! One file per interface of the contract in `host/`. Nothing here blocks or does I/O.

mod context;
mod edit;
mod emit;
mod log;
mod memory;
mod message;
mod property;

use std::sync::Arc;

use quipu_protocol::limits::{PAYLOAD_BYTES_MAX, TEXT_BYTES_MAX};
use quipu_protocol::{HeaderError, KeyError, Message, MessageId, Subject};

use crate::bindings::quipu::plugin::types;
use crate::logs::{LogLevel, LogSink};
use crate::plugin::{Fault, FaultKind, Hand, Limits, Verdict};
use crate::text::{Line, Size, cut, start};

pub(crate) use log::Said;
pub(crate) use memory::{HANDLES_MAX, Memory, Refused, TABLE_ELEMENTS_MAX, TABLES_MAX};

/// Seeds, and every other u64 of the contract, are below this.
pub(crate) const SEED_MAX: u64 = 1 << 53;

/// Most subjects in a `route` verdict.
const SUBJECTS_MAX: usize = 64;

/// Who runs where.
pub(crate) struct Identity {
    pub(crate) plugin: String,
    pub(crate) route: String,
    pub(crate) config_json: String,
    pub(crate) logs: Arc<dyn LogSink>,
}

/// The data of one store.
pub(crate) struct Host {
    identity: Arc<Identity>,
    limits: Limits,
    /// While there is no message in hand, an empty one.
    hand: Hand,
    in_hand: bool,
    /// Of this call of the guest.
    used: Used,
    pub(crate) memory: Memory,
    pub(crate) said: Option<Said>,
}

/// What one call of the guest has taken.
#[derive(Debug, Default)]
struct Used {
    output_bytes: usize,
    emits: u32,
    host_calls: u32,
    log_lines: u32,
    log_bytes: usize,
    log_suppressed: u64,
}

/// A call that the contract rules out; it traps.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Misuse {
    #[error("no message in hand")]
    NoMessage,
    #[error("more than {0} calls of the router for one message")]
    Calls(u32),
    #[error("output limit of {} reached", Size(*.0))]
    Output(usize),
    #[error("a payload of {0} bytes; at most {PAYLOAD_BYTES_MAX} are allowed")]
    Payload(usize),
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("invalid value {value:?} of header {name:?}: {expected}")]
    Property { name: &'static str, value: String, expected: String },
    #[error("header {0:?} names a new message; the id of the message in hand stays")]
    Id(String),
}

impl Misuse {
    pub(crate) fn kind(&self) -> FaultKind {
        match self {
            Self::Calls(_) => FaultKind::Calls,
            Self::Output(_) => FaultKind::Output,
            _ => FaultKind::Misuse,
        }
    }
}

impl Host {
    /// For an instance that starts at this moment.
    pub(crate) fn new(identity: Arc<Identity>, limits: Limits, now_ms: u64, seed: u64) -> Self {
        let memory = Memory::new(limits.memory_bytes);
        let hand = Hand::new(nothing(), 0, now_ms, seed);
        Self { identity, limits, hand, in_hand: false, used: Used::default(), memory, said: None }
    }

    /// Takes the message; an empty one lies in the caller's hand meanwhile.
    pub(crate) fn begin(&mut self, hand: &mut Hand) {
        std::mem::swap(&mut self.hand, hand);
        self.in_hand = true;
        self.used = Used::default();
        self.said = None;
        self.memory.refused = None;
    }

    /// Gives the message back.
    pub(crate) fn end(&mut self, hand: &mut Hand) {
        std::mem::swap(&mut self.hand, hand);
        self.in_hand = false;
        self.report_suppressed();
    }

    /// Checks what the guest made of the message.
    pub(crate) fn verdict(&mut self, said: types::Verdict) -> Result<Verdict, Fault> {
        let bytes = match &said {
            types::Verdict::Forward => 0,
            types::Verdict::Route(subjects) => subjects.iter().map(String::len).fold(0, usize::saturating_add),
            types::Verdict::Drop(reason) | types::Verdict::Reject(reason) => reason.len(),
            types::Verdict::Retry(after) => after.reason.len(),
        };
        if let Err(e) = self.spend(bytes) {
            return Err(Fault { kind: e.kind(), text: e.to_string(), trace: Vec::new() });
        }
        let invalid = |text: String| Fault { kind: FaultKind::InvalidVerdict, text, trace: Vec::new() };
        Ok(match said {
            types::Verdict::Forward => Verdict::Forward,
            types::Verdict::Route(subjects) => Verdict::Route(route(&subjects).map_err(invalid)?),
            types::Verdict::Drop(reason) => Verdict::Drop(cut(reason, TEXT_BYTES_MAX)),
            types::Verdict::Reject(reason) => Verdict::Reject(cut(reason, TEXT_BYTES_MAX)),
            types::Verdict::Retry(after) if after.ms >= SEED_MAX => {
                return Err(invalid(format!("verdict `retry` after {} ms; it must be below 2^53", after.ms)));
            }
            types::Verdict::Retry(after) => {
                Verdict::Retry { delay_ms: after.ms, reason: cut(after.reason, TEXT_BYTES_MAX) }
            }
        })
    }

    /// Says how many log lines were held back.
    pub(crate) fn report_suppressed(&mut self) {
        let lines = std::mem::take(&mut self.used.log_suppressed);
        if lines > 0 {
            self.identity.logs.line(LogLevel::Warn, &format!("{lines} more log lines suppressed"));
        }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Counts a call of the router.
    fn called(&mut self) -> Result<(), Misuse> {
        self.used.host_calls = self.used.host_calls.saturating_add(1);
        if self.used.host_calls > self.limits.host_calls {
            return Err(Misuse::Calls(self.limits.host_calls));
        }
        Ok(())
    }

    /// Counts a call that needs a message in hand.
    fn hand(&mut self) -> Result<&mut Hand, Misuse> {
        self.called()?;
        if self.in_hand { Ok(&mut self.hand) } else { Err(Misuse::NoMessage) }
    }

    /// Takes so much of the output, or nothing.
    fn spend(&mut self, bytes: usize) -> Result<(), Misuse> {
        let sum = self.used.output_bytes.saturating_add(bytes);
        if sum > self.limits.output_bytes {
            return Err(Misuse::Output(self.limits.output_bytes));
        }
        self.used.output_bytes = sum;
        Ok(())
    }
}

impl types::Host for Host {}

fn route(subjects: &[String]) -> Result<Vec<Subject>, String> {
    if !(1..=SUBJECTS_MAX).contains(&subjects.len()) {
        return Err(format!("verdict `route` to {} subjects; 1 to {SUBJECTS_MAX} are allowed", subjects.len()));
    }
    let read = |text: &String| match Subject::new(text) {
        // Whoever knows an inbox may reply to it.
        Ok(subject) if subject.is_internal() && !subject.is_inbox() => {
            Err(format!("verdict `route` to `{subject}`, which is the router's own"))
        }
        Ok(subject) => Ok(subject),
        Err(e) => Err(format!("verdict `route`: {}", Line(start(&e.to_string(), TEXT_BYTES_MAX)))),
    };
    subjects.iter().map(read).collect()
}

/// What lies in a hand that is empty. Never seen by a guest.
fn nothing() -> Message {
    let id = MessageId::new("-").expect("one character is an id");
    let subject = Subject::new("-").expect("one character is a subject");
    Message::new(id, subject, bytes::Bytes::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_routers_own_subjects_a_plugin_may_route_to_inboxes_alone() {
        assert!(route(&["$inbox.0af3".into(), "orders".into()]).is_ok());
        let text = route(&["$sys.health".into()]).expect_err("refused");
        assert_eq!(text, "verdict `route` to `$sys.health`, which is the router's own");
    }
}
