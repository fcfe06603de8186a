//! Commits: the only way in which the state changes.
//!
//! A commit is a plain value. Times, ids and offsets are in it, so that applying it anywhere, at any time, gives the
//! same state. Its serialised form is what the journal holds; a variant's position and a field's type never change.

use std::fmt;

use bytes::Bytes;
use quipu_protocol::SubjectPattern;
use serde::{Deserialize, Serialize};

/// Everything that one record of the journal makes durable.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Commit {
    /// Unix milliseconds; never less than in the commit before.
    pub time_ms: u64,
    /// In order. An append may refer to the payload of a message that a later operation of this commit settles.
    pub operations: Vec<Operation>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Operation {
    /// The store was opened: what was in memory alone is gone. The first operation after each start.
    Opened {
        /// Whether it had been stopped in order. If not, whatever was perhaps handed out counts one crash more.
        clean: bool,
    },
    /// Makes a queue, or gives the one with this id a new definition.
    DefineQueue(QueueDefinition),
    /// Makes a subscription that has everything settled below `floor`.
    DefineSubscription {
        /// Its number, never used again.
        id: SubscriptionId,
        /// What it reads.
        queue: QueueId,
        /// Unique in its queue.
        name: String,
        /// How its consumers share it.
        mode: Mode,
        /// The first offset it may get.
        floor: Offset,
    },
    /// Puts a message into queues, once in the commit for all of them.
    Append {
        /// A `MessageHeader`.
        header: Bytes,
        /// The payload, or where it is already.
        payload: Payload,
        /// Which queues, and at which offset. None where an inline route took the message: then only its id is remembered.
        places: Vec<(QueueId, Offset)>,
        /// Set where duplicates are looked for.
        dedup: Option<DedupKey>,
    },
    /// Puts a dead letter back into the queue where it died, for the subscription that gave it up.
    Redrive {
        /// A `MessageHeader`.
        header: Bytes,
        /// The payload, or where it is already.
        payload: Payload,
        /// The queue.
        queue: QueueId,
        /// Its next offset.
        offset: Offset,
        /// For whom; all others have settled theirs long ago.
        subscription: SubscriptionId,
    },
    /// A subscription is done with a message.
    Settle {
        /// Whose message.
        subscription: SubscriptionId,
        /// Which one.
        offset: Offset,
        /// What became of it.
        outcome: Outcome,
    },
    /// An attempt failed.
    Attempt {
        /// Whose message.
        subscription: SubscriptionId,
        /// Which one.
        offset: Offset,
        /// How many failed so far.
        attempts: u32,
    },
    /// Messages below an offset may be handed out from now on.
    Deliverable {
        /// To whose consumers.
        subscription: SubscriptionId,
        /// The offset.
        through: Offset,
    },
    /// A message that was there at several crashes is handed out with nothing else beside it.
    Isolate {
        /// To whose consumers.
        subscription: SubscriptionId,
        /// Which one.
        offset: Offset,
    },
    /// A queue lets go of its oldest messages.
    Trim {
        /// Which queue.
        queue: QueueId,
        /// All below.
        below: Offset,
    },
    /// A queue lets go of one message: it was moved elsewhere by hand.
    Remove {
        /// Which queue.
        queue: QueueId,
        /// Which message.
        offset: Offset,
    },
    /// How far a named publisher has come.
    Publisher {
        /// Its name.
        name: String,
        /// Its run.
        epoch: u64,
        /// Everything up to here was stored or refused.
        sequence: u64,
        /// What was refused since the last operation of this kind: sent again it is tried again.
        refused: Vec<u64>,
        /// What had been refused before and is stored now.
        stored: Vec<u64>,
    },
    /// The message that was isolated last is in nobody's hands any more, though it is not settled.
    Release {
        /// By whose consumers.
        subscription: SubscriptionId,
    },
    /// A small fact that the router keeps beside its queues.
    Record {
        /// Its name.
        key: String,
        /// What it is from now on; none: it is gone.
        value: Option<Bytes>,
    },
    /// A subscription is no more, and what only it still needed goes.
    RemoveSubscription {
        /// Which one.
        id: SubscriptionId,
    },
    /// A queue is no more, with its messages and subscriptions.
    RemoveQueue {
        /// Which one.
        id: QueueId,
    },
    /// A subscription hands out nothing, or does so again.
    Pause {
        /// Which one.
        subscription: SubscriptionId,
        /// Whether it stands still from now on.
        paused: bool,
    },
    /// A subscription goes on elsewhere: whatever is at or above the offset and still there comes, again or for the first
    /// time, and all below counts as passed over. Failed attempts and crashes are forgotten.
    Seek {
        /// Which one.
        subscription: SubscriptionId,
        /// The first offset it may get.
        floor: Offset,
    },
    /// A queue lets go of its oldest messages, because somebody said so.
    Purge {
        /// Which queue.
        queue: QueueId,
        /// All below.
        below: Offset,
    },
    /// Consumers share a subscription in another way. What they have in hand comes again.
    Share {
        /// Which one.
        subscription: SubscriptionId,
        /// How, from now on.
        mode: Mode,
    },
}

/// What a queue is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueueDefinition {
    /// Its number, never used again.
    pub id: QueueId,
    /// Its name, which is also one of its subjects.
    pub name: String,
    /// What it takes besides.
    pub subjects: Vec<SubjectPattern>,
    /// After so many failed attempts a message goes to the dead-letter queue; 0: never.
    pub attempts_max: u32,
    /// Milliseconds before the second attempt, the third, …; the last one goes on.
    pub backoff_ms: Vec<u64>,
    /// The queue for dead letters, made when the first one dies.
    pub dead_letter: Option<String>,
    /// What survives what.
    pub durability: Durability,
    /// When messages go.
    pub retention: Retention,
    /// How much it holds.
    pub limits: QueueLimits,
    /// Messages of one subscription that are in flight or parked at once.
    pub in_flight_max: u32,
    /// Milliseconds that a consumer has to settle a delivery; 0: for ever.
    pub ack_deadline_ms: u64,
}

/// What a receipt promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Nothing: messages are in memory alone and gone after a restart.
    Memory,
    /// The message survives the end of the process, and after 50 ms at most that of the machine.
    Buffered,
    /// The message is on disk and synced.
    #[default]
    Synced,
}

/// When a queue's messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Retention {
    /// When every subscription has settled them.
    #[default]
    Work,
    /// By age, bytes or number alone, so that subscriptions can read them again.
    Log {
        /// Milliseconds after which a message goes.
        age_ms: Option<u64>,
        /// Bytes past which the oldest go.
        bytes: Option<u64>,
        /// Messages past which the oldest go.
        messages: Option<u64>,
    },
}

/// How much a queue holds, and what happens then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct QueueLimits {
    /// Messages at most.
    pub messages: Option<u64>,
    /// Bytes of headers and payloads at most, near enough.
    pub bytes: Option<u64>,
    /// What a publish into a full queue does.
    pub on_full: OnFull,
}

/// What a publish into a full queue does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFull {
    /// It is refused.
    #[default]
    Reject,
    /// The oldest messages go, settled or not.
    DropOldest,
    /// It waits, and its publisher with it.
    Block,
}

/// How the consumers of a subscription share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Each message goes to one of them, whichever has credit.
    #[default]
    Shared,
    /// Messages of one key go to one of them, in order.
    KeyShared,
    /// All go to the one that came first.
    Exclusive,
}

impl Mode {
    /// Its name in listings and configurations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::KeyShared => "key-shared",
            Self::Exclusive => "exclusive",
        }
    }
}

impl OnFull {
    /// Its name in listings and configurations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::DropOldest => "drop-oldest",
            Self::Block => "block",
        }
    }
}

impl Durability {
    /// Its name in listings and configurations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Buffered => "buffered",
            Self::Synced => "synced",
        }
    }
}

impl Retention {
    /// Its name in listings and configurations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Work => "work",
            Self::Log { .. } => "log",
        }
    }
}

/// The payload of an appended message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Payload {
    /// Here.
    Inline(Bytes),
    /// That of a message which is unsettled until this commit, or which this commit appended before.
    Of(QueueId, Offset),
}

impl Default for Payload {
    fn default() -> Self {
        Self::Inline(Bytes::new())
    }
}

/// What a subscription did with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Processed.
    Acked,
    /// Refused by a route's `when`.
    Filtered,
    /// Dropped by a plugin.
    Dropped,
    /// Given up: it is in a dead-letter queue now.
    DeadLettered,
}

/// A message as it rests: its header encoded, its payload beside it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// A `MessageHeader`.
    pub header: Bytes,
    /// The payload.
    pub payload: Bytes,
}

impl Stored {
    /// Bytes of memory or disk, near enough.
    pub fn size(&self) -> usize {
        self.header.len() + self.payload.len() + 64
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stored({} + {} bytes)", self.header.len(), self.payload.len())
    }
}

/// Number of a queue within the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QueueId(pub u32);

/// Number of a subscription within the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SubscriptionId(pub u32);

/// Position in one queue; 0 is the first message ever appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Offset(pub u64);

impl Offset {
    /// The position after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// First 16 bytes of the BLAKE3 hash of subject and id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DedupKey(pub [u8; 16]);

impl DedupKey {
    /// The key of a message id on a subject.
    pub fn new(subject: &str, id: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        // No subject holds a zero byte, so the two cannot run into each other.
        hasher.update(subject.as_bytes()).update(&[0]).update(id.as_bytes());
        let mut key = [0; 16];
        key.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self(key)
    }
}
