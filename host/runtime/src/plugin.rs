//! What the rest of the router sees of plugins: a message in hand goes in, a verdict or a fault comes out.
//!
//! Knows no WebAssembly: a test may put a [`Plugin`] of its own into a chain.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use quipu_protocol::{Headers, Key, Message, MessageId, Subject};

/// One use of a plugin in a route's chain.
pub trait Plugin: Send {
    /// The name under which it was deployed.
    fn name(&self) -> &str;

    /// Which file it is.
    fn digest(&self) -> &Digest;

    /// Of the configuration of this use, as it is written.
    fn config_digest(&self) -> &Digest {
        static NONE: LazyLock<Digest> = LazyLock::new(|| Digest::of(b""));
        &NONE
    }

    /// What it takes, and has taken so far.
    fn usage(&self) -> Usage {
        Usage::default()
    }

    /// Runs the plugin on the message in hand.
    ///
    /// Blocks for at most the deadline and one tick, and as long again where the instance has to be made anew because
    /// the call before this one ended in a fault. Needs 1 MiB of the thread's stack.
    ///
    /// # Errors
    ///
    /// [`Fault`] where the plugin trapped, overran a limit or broke the contract. Its instance is gone then, and the hand
    /// holds what the plugin left half done: the caller throws hand and emitted messages away.
    fn process(&mut self, hand: &mut Hand) -> Result<Verdict, Fault>;
}

/// What one use of a plugin takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Usage {
    /// Linear memory of its instance; 0 where there is none at the moment.
    pub memory_bytes: usize,
    /// The most of any of its instances so far.
    pub memory_peak_bytes: usize,
    /// Instances that were begun, those that failed to start included.
    pub instances_started: u64,
    /// Instances that ended because of [`Recycle`](crate::Recycle).
    pub recycled: u64,
    /// When the last instance was begun, in Unix milliseconds: the clock that its `configure` saw.
    pub started_ms: u64,
}

/// BLAKE3 of a plugin file's bytes, as they were before anything was done to them. Displayed as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(blake3::Hash);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes))
    }

    /// The first 8 hex digits, for people.
    pub fn short(&self) -> String {
        self.0.to_hex()[..8].to_owned()
    }

    /// The first 16 hex digits, for records.
    pub fn prefix(&self) -> String {
        self.0.to_hex()[..16].to_owned()
    }

    /// What [`Digest::as_bytes`] gave.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(blake3::Hash::from_bytes(bytes))
    }

    /// The digest itself.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_hex())
    }
}

/// Not 64 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a digest has 64 hex digits")]
pub struct DigestError;

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        blake3::Hash::from_hex(text).map(Self).map_err(|_| DigestError)
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", self.short())
    }
}

/// The message in hand, and what the chain so far did with it. One hand goes through all plugins of a chain.
#[derive(Debug, Clone)]
pub struct Hand {
    /// As the plugins so far left it.
    pub message: Message,
    /// 1 on the first try.
    pub attempt: u32,
    /// Unix milliseconds; stands still within the attempt.
    pub now_ms: u64,
    /// Below 2^53; the same throughout an attempt and its replay.
    pub seed: u64,
    /// New messages, in call order.
    pub emitted: Vec<Emitted>,
    /// Whether a plugin set the payload; while false, `message.payload` is the input's own.
    pub payload_changed: bool,
    /// Whether a plugin changed anything else: headers, key, or a property.
    pub header_changed: bool,
}

impl Hand {
    /// A message that no plugin has seen yet.
    pub fn new(message: Message, attempt: u32, now_ms: u64, seed: u64) -> Self {
        Self { message, attempt, now_ms, seed, emitted: Vec::new(), payload_changed: false, header_changed: false }
    }
}

/// A new message that a plugin emitted. Its id is derived by the router where the plugin gave none.
#[derive(Debug, Clone, PartialEq)]
pub struct Emitted {
    /// Valid, and none of the router's own.
    pub subject: Subject,
    /// As given, or as of the copied message.
    pub key: Option<Key>,
    /// Without the property headers; a copy keeps the headers that the router itself put on the message in hand.
    pub headers: Headers,
    /// None: the input's payload, untouched, as [`Hand::message`] still has it at this moment.
    pub payload: Option<Bytes>,
    /// Given by `quipu-id`.
    pub id: Option<MessageId>,
    /// Of a copied message; nothing else can say it.
    pub reply_to: Option<Subject>,
    /// Given by `quipu-expires-ms`.
    pub expires_ms: Option<u64>,
    /// Given by `quipu-deliver-at-ms`.
    pub deliver_at_ms: Option<u64>,
    /// Given by `quipu-priority`.
    pub priority: u8,
}

/// What becomes of the message in hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Next plugin of the chain; after the last one, the route's `to`.
    Forward,
    /// As forward, but these 1 to 64 subjects take the place of `to`.
    Route(Vec<Subject>),
    /// Settled and gone; the reason is counted.
    Drop(String),
    /// Try again later.
    Retry {
        /// Below 2^53; 0 means the route's own backoff.
        delay_ms: u64,
        /// Why.
        reason: String,
    },
    /// To the dead-letter queue now.
    Reject(String),
}

/// Why an attempt failed. The text is what people see; the kind is what is counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Fault {
    /// What sort of failure.
    pub kind: FaultKind,
    /// What happened, in a sentence; at most 4 KiB of what the plugin itself said, line breaks and all.
    pub text: String,
    /// The traceback that the plugin's SDK reported, at most 16 KiB, then at most 32 lines of WebAssembly frames.
    pub trace: Vec<String>,
}

/// The sorts of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultKind {
    /// It ran longer than it may.
    Deadline,
    /// It wanted more memory, or more table elements, than it may have, and did not survive the refusal.
    Memory,
    /// It produced more bytes than it may.
    Output,
    /// It called the router more often than it may.
    Calls,
    /// It panicked or threw, and its SDK said what.
    Said,
    /// It trapped and said nothing; the name of the trap.
    Trap(&'static str),
    /// It called the router with an argument that the contract rules out, or at a moment when it may not.
    Misuse,
    /// What it handed over is not what its types promise: pointers outside its memory, invalid UTF-8, unknown cases.
    Abi,
    /// Its verdict breaks the contract's rules.
    InvalidVerdict,
    /// Made anew after a fault, it refused its configuration.
    Configure,
    /// The pool had no room for its new instance.
    Exhausted,
}

impl FaultKind {
    /// A short name that stays the same, for metrics and headers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Output => "output",
            Self::Calls => "calls",
            Self::Said => "fault",
            Self::Trap(code) => code,
            Self::Misuse => "misuse",
            Self::Abi => "abi",
            Self::InvalidVerdict => "invalid-verdict",
            Self::Configure => "configure",
            Self::Exhausted => "exhausted",
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What one use of a plugin may take. All but the memory are per call of `process`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest run; 50 ms. Checked once a tick, so the bound is this, a tick, and one bulk memory operation. Starting an
    /// instance, with `configure`, has the same again.
    pub deadline: Duration,
    /// Most linear memory, all memories of the instance together; 64 MiB.
    pub memory_bytes: usize,
    /// Most bytes of payloads set, messages emitted, headers and keys set, and the verdict's texts; 4 MiB.
    pub output_bytes: usize,
    /// Most messages emitted; 1,024.
    pub emits: u32,
    /// Most calls of the router; 100,000.
    pub host_calls: u32,
    /// Most log lines; what exceeds them is counted; 64.
    pub log_lines: u32,
    /// Most bytes of log text; 16 KiB.
    pub log_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            deadline: Duration::from_millis(50),
            memory_bytes: 64 << 20,
            output_bytes: 4 << 20,
            emits: 1_024,
            host_calls: 100_000,
            log_lines: 64,
            log_bytes: 16 << 10,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_names_the_file() {
        let digest = Digest::of(b"plugin");
        assert_eq!(digest.to_string(), blake3::hash(b"plugin").to_string());
        assert!(digest.to_string().starts_with(&digest.short()));
        assert_eq!((digest.short().len(), digest.prefix().len()), (8, 16));
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(digest.short().parse::<Digest>(), Err(DigestError));
    }
}
