//! What is asked of a store, and what it answers.

use std::sync::Arc;

use bytes::Bytes;
use quipu_protocol::{Message, Subject, SubjectPattern};

use crate::commit::{DedupKey, Durability, Offset, Outcome, QueueDefinition, QueueId, QueueLimits, Retention, Stored};
use crate::delivery::Token;

/// A message to be appended to every queue that takes its subject.
#[derive(Debug, Clone)]
pub struct Published {
    pub(super) subject: Subject,
    pub(super) dedup: Option<DedupKey>,
    pub(super) stored: Stored,
    /// Of a named publisher.
    pub(super) sequence: u64,
    /// What inline routes made of it.
    pub(super) outputs: Vec<Output>,
    /// An inline route took it.
    pub(super) is_taken: bool,
}

/// What became of a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Receipt {
    /// It is in these queues at these offsets, as durable as the strictest of them and of those of its outputs promises.
    /// In none where an inline route took it and no queue is bound to its subject, or it was handed to an inbox.
    Stored(Vec<(Arc<str>, Offset)>),
    /// Its id was published to this subject before; the first receipt. Or the sequence of a named publisher was; then
    /// without positions.
    Duplicate(Vec<(Arc<str>, Offset)>),
}

/// Why a publish is refused. Nothing of it is stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Nothing is bound to the subject.
    #[error("no queue or route takes `{0}`")]
    NoQueue(Subject),
    /// The inbox that it goes to is no more.
    #[error("no inbox `{0}`: who asked has what it asked for, gave up, or is gone")]
    NoInbox(Subject),
    /// More than a journal segment holds.
    #[error("a message of {0} bytes is larger than the journal's segments")]
    TooLarge(usize),
    /// A queue that takes it has reached its limit and refuses more, or an inbox's reader is behind.
    #[error("queue {0:?} is full; publish again once its consumers have settled some")]
    Full(Arc<str>),
    /// The disk has less room than is kept in reserve.
    #[error("the disk is nearly full (`store.disk_reserve`); publish again once there is room")]
    DiskFull,
    /// Another took the publisher's name.
    #[error("fenced: publisher {0:?} was opened again elsewhere, and this one is over")]
    Fenced(Arc<str>),
    /// One that was handed over together with it, before it, was refused.
    #[error("a message before this one was refused, and its publisher stops at that")]
    Stopped,
}

/// The settlement of one delivery, with what goes out in the same commit.
#[derive(Debug, Clone)]
pub struct Settle {
    /// Which delivery.
    pub token: Token,
    /// What becomes of it.
    pub settlement: Settlement,
    /// New messages, appended in order. All of them and the settlement, or nothing.
    pub outputs: Vec<Output>,
}

/// What becomes of a delivered message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// It is done with.
    Done(Outcome),
    /// It and every earlier delivery of this consumer, by offset, is acked.
    AckThrough,
    /// The attempt failed: again after a delay (none: the queue's backoff), or to the dead-letter queue after the
    /// queue's last attempt.
    Nack {
        /// Milliseconds.
        delay_ms: Option<u64>,
    },
    /// The attempt failed: again after a delay. The caller counts attempts by rules of its own.
    Park {
        /// Milliseconds.
        delay_ms: u64,
    },
    /// Not the message's fault: again after a delay, and no attempt is counted.
    Later {
        /// Milliseconds.
        delay_ms: u64,
    },
    /// Not begun: to the next in turn at once, and no attempt is counted.
    GiveBack,
    /// So long again to settle it, from now on. At most 12 hours. Nothing becomes durable.
    Extend {
        /// Milliseconds.
        by_ms: u64,
    },
    /// To a dead-letter queue, with headers that say why.
    DeadLetter {
        /// Its name; none: the queue's own. Made where it is not there.
        queue: Option<String>,
        /// What went wrong, for people.
        reason: String,
        /// More headers for the copy.
        headers: Vec<(String, String)>,
    },
}

/// A message that a settlement sends.
#[derive(Debug, Clone)]
pub struct Output {
    /// Where to.
    pub target: Target,
    /// A `MessageHeader`.
    pub header: Bytes,
    /// The payload; none: that of the message being settled.
    pub payload: Option<Bytes>,
}

/// Where an output goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// To every queue that takes the subject.
    Subject(Subject),
}

/// Why a settlement is refused. Nothing is changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettleError {
    /// The delivery was settled, given back or taken away before.
    #[error("stale token: this delivery was settled, or given to another")]
    Stale,
    /// Nowhere to put a dead letter.
    #[error("queue {0:?} has no dead-letter queue; ack or nack the message instead")]
    NoDeadLetter(String),
    /// An output that nothing takes.
    #[error("no queue or route takes `{0}`")]
    NoQueue(Subject),
    /// An output to the inbox of a request, which is no more.
    #[error("no inbox `{0}`: who asked has what it asked for, gave up, or is gone")]
    NoInbox(Subject),
    /// An output to the inbox of a request whose reader is behind.
    #[error("inbox `{0}` is full: who asked does not read its replies")]
    InboxFull(Subject),
    /// An output into a queue that takes no more for now.
    #[error("queue {0:?} is full")]
    Full(Arc<str>),
    /// One of the same key before it was refused, and order is kept.
    #[error("a message of the same key before this one was refused")]
    Behind,
    /// An output or the commit is larger than a journal segment.
    #[error("{0} bytes in one commit are more than the journal's segments hold")]
    TooLarge(usize),
    /// The message could not be read again.
    #[error("{0}")]
    Unreadable(String),
}

/// What a queue is to be; see [`QueueDefinition`].
#[derive(Debug, Clone, PartialEq)]
pub struct QueueSettings {
    /// Letters, digits, `-`, `_`, in tokens joined by dots.
    pub name: Subject,
    /// What it takes besides its own name.
    pub subjects: Vec<SubjectPattern>,
    /// Failed attempts before a message is dead-lettered. Default 5.
    pub attempts_max: u32,
    /// Milliseconds before the second attempt, the third, …; the last one goes on. Default 100 ms, 1 s, 10 s.
    pub backoff_ms: Vec<u64>,
    /// Where dead letters go. Default the queue's name with `-dead`.
    pub dead_letter: Option<String>,
    /// What a receipt promises. Default synced. A queue in memory alone stays one, and no other becomes one.
    pub durability: Durability,
    /// When messages go. Default when all have settled them.
    pub retention: Retention,
    /// How much it holds. Default without end; a queue in memory alone 64 MiB.
    pub limits: QueueLimits,
    /// In flight or parked at once, of one subscription. Default 10,000, at most 1,000,000.
    pub in_flight_max: u32,
    /// Milliseconds that a consumer has to settle a delivery; 0: for ever. Default 30 s. Routes have no deadline.
    pub ack_deadline_ms: u64,
}

/// Bytes that a queue in memory alone holds where nothing else is said.
pub(crate) const MEMORY_QUEUE_BYTES: u64 = 64 << 20;
/// Milliseconds to settle a delivery where nothing else is said.
const ACK_DEADLINE_MS: u64 = 30_000;
const IN_FLIGHT_MAX: u32 = 10_000;

impl Published {
    /// Encodes a message; `dedup` says whether its id is the publisher's, so that duplicates are removed.
    pub fn new(message: &Message, dedup: bool) -> Self {
        Self {
            subject: message.subject.clone(),
            dedup: dedup.then(|| DedupKey::new(message.subject.as_str(), message.id.as_str())),
            // A copy of its own: a slice would keep all of the buffer it was received in.
            stored: Stored { header: message.encode_header(), payload: Bytes::copy_from_slice(&message.payload) },
            sequence: 0,
            outputs: Vec::new(),
            is_taken: false,
        }
    }

    /// With its sequence in the run of a named publisher.
    #[must_use]
    pub fn with_sequence(self, sequence: u64) -> Self {
        Self { sequence, ..self }
    }

    /// With what inline routes made of it: appended in order, behind it, in the same commit; all of it or nothing. One
    /// without a payload has that of the message.
    #[must_use]
    pub fn with_outputs(self, outputs: Vec<Output>) -> Self {
        Self { outputs, ..self }
    }

    /// An inline route took it, so that no queue needs to.
    #[must_use]
    pub fn taken(self) -> Self {
        Self { is_taken: true, ..self }
    }

    /// Bytes of memory, near enough.
    pub fn size(&self) -> usize {
        self.stored.size() + self.outputs.iter().map(Output::size).sum::<usize>()
    }
}

impl Output {
    /// Bytes of memory, near enough.
    pub fn size(&self) -> usize {
        64 + self.header.len() + self.payload.as_ref().map_or(0, Bytes::len)
    }
}

impl QueueSettings {
    /// A queue with this name and defaults.
    pub fn new(name: Subject) -> Self {
        Self {
            dead_letter: Some(format!("{name}-dead")),
            name,
            subjects: Vec::new(),
            attempts_max: 5,
            backoff_ms: vec![100, 1_000, 10_000],
            durability: Durability::default(),
            retention: Retention::default(),
            limits: QueueLimits::default(),
            in_flight_max: IN_FLIGHT_MAX,
            ack_deadline_ms: ACK_DEADLINE_MS,
        }
    }

    /// A queue for the dead letters of others: it has none of its own, and attempts without end.
    pub fn for_dead_letters(name: Subject) -> Self {
        Self { attempts_max: 0, dead_letter: None, ..Self::new(name) }
    }

    pub(crate) fn define(&self, id: QueueId) -> QueueDefinition {
        let mut limits = self.limits;
        if self.durability == Durability::Memory {
            limits.bytes = limits.bytes.or(Some(MEMORY_QUEUE_BYTES));
        }
        QueueDefinition {
            id,
            name: self.name.as_str().to_owned(),
            subjects: self.subjects.clone(),
            attempts_max: self.attempts_max,
            backoff_ms: self.backoff_ms.clone(),
            dead_letter: self.dead_letter.clone(),
            durability: self.durability,
            retention: self.retention,
            limits,
            in_flight_max: self.in_flight_max.max(1),
            ack_deadline_ms: self.ack_deadline_ms,
        }
    }
}
