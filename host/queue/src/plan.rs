//! Turns what is asked for into the operations of one commit.
//!
//! Each request is validated by itself against the state and against what the requests before it in the same commit
//! will do, so that one that cannot be done never fails its neighbours.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use quipu_protocol::{Message, Subject, SubjectPattern};

use crate::commit::{
    Commit, DedupKey, Offset, Operation, Outcome, Payload, QueueDefinition, QueueId, Stored, SubscriptionId,
};
use crate::dedup::Places;
use crate::delivery::{Held, Token};
use crate::state::{Bodies, State};

/// A commit takes no further request past this, in bytes, or a quarter of what a record holds.
pub(crate) const COMMIT_BYTES: usize = 8 << 20;
/// What an operation takes besides headers and payloads, at the most; and each place of an append.
const OPERATION_BYTES: usize = 64;
const PLACE_BYTES: usize = 16;

/// A message to be appended to every queue that takes its subject.
#[derive(Debug, Clone)]
pub struct Published {
    subject: Subject,
    dedup: Option<DedupKey>,
    stored: Stored,
}

/// What became of a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Receipt {
    /// It is on disk, in these queues at these offsets.
    Stored(Vec<(Arc<str>, Offset)>),
    /// Its id was published to this subject before; the first receipt.
    Duplicate(Vec<(Arc<str>, Offset)>),
}

/// Why a publish is refused. Nothing of it is stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Nothing is bound to the subject.
    #[error("no queue or route takes `{0}`")]
    NoQueue(Subject),
    /// More than a journal segment holds.
    #[error("a message of {0} bytes is larger than the journal's segments")]
    TooLarge(usize),
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
}

/// What happens to a delivery once the commit is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finish {
    Gone,
    Park { attempts: u32, delay_ms: u64 },
}

/// One commit in the making.
///
/// It takes requests up to a quarter of what a record holds; one message may be half a record, one settlement three
/// quarters, so that any message can be dead-lettered and the last request taken always fits.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    state: &'a mut State,
    bodies: &'a dyn Bodies,
    time_ms: u64,
    operations: Vec<Operation>,
    /// Of the operations, near enough and never less.
    bytes: usize,
    /// Most bytes of the whole commit.
    bytes_max: usize,
    next: HashMap<QueueId, Offset>,
    dedup: HashMap<DedupKey, Places>,
    /// As this commit defines them.
    queues: HashMap<String, QueueDefinition>,
    queues_made: u32,
    subscriptions_made: HashMap<(QueueId, String), SubscriptionId>,
}

/// The subscription that a settlement belongs to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settler {
    pub(crate) queue: QueueId,
    pub(crate) subscription: SubscriptionId,
    pub(crate) held: Held,
}

impl Published {
    /// Encodes a message; `dedup` says whether its id is the publisher's, so that duplicates are removed.
    pub fn new(message: &Message, dedup: bool) -> Self {
        Self {
            subject: message.subject.clone(),
            dedup: dedup.then(|| DedupKey::new(message.subject.as_str(), message.id.as_str())),
            // A copy of its own: a slice would keep all of the buffer it was received in.
            stored: Stored { header: message.encode_header(), payload: Bytes::copy_from_slice(&message.payload) },
        }
    }

    /// Bytes of memory, near enough.
    pub fn size(&self) -> usize {
        self.stored.size()
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
        }
    }

    /// A queue for the dead letters of others: it has none of its own, and attempts without end.
    pub fn for_dead_letters(name: Subject) -> Self {
        Self { attempts_max: 0, dead_letter: None, ..Self::new(name) }
    }

    fn define(&self, id: QueueId) -> QueueDefinition {
        QueueDefinition {
            id,
            name: self.name.as_str().to_owned(),
            subjects: self.subjects.clone(),
            attempts_max: self.attempts_max,
            backoff_ms: self.backoff_ms.clone(),
            dead_letter: self.dead_letter.clone(),
        }
    }
}

impl<'a> Plan<'a> {
    /// An empty plan for a record of at most so many bytes.
    pub(crate) fn new(state: &'a mut State, bodies: &'a dyn Bodies, bytes_max: usize, now_ms: u64) -> Self {
        let time_ms = now_ms.max(state.time_ms);
        // What is older than the window is no duplicate, also where no commit came to say how late it is.
        state.dedup.expire(time_ms);
        Self {
            state,
            bodies,
            time_ms,
            operations: Vec::new(),
            bytes: 0,
            bytes_max,
            next: HashMap::new(),
            dedup: HashMap::new(),
            queues: HashMap::new(),
            queues_made: 0,
            subscriptions_made: HashMap::new(),
        }
    }

    /// The largest message for records of at most so many bytes.
    pub(crate) fn message_bytes_max(bytes_max: usize) -> usize {
        bytes_max / 2
    }

    #[cfg(test)]
    pub(crate) fn state(&self) -> &State {
        self.state
    }

    /// Whether the rest has to wait for the next commit.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= COMMIT_BYTES.min(self.bytes_max / 4)
    }

    /// The commit; empty where nothing changes.
    pub(crate) fn finish(self) -> Commit {
        Commit { time_ms: self.time_ms, operations: self.operations }
    }

    pub(crate) fn publish(&mut self, published: &Published) -> Result<Receipt, PublishError> {
        if let Some(places) = published.dedup.and_then(|key| self.dedup.get(&key).or(self.state.dedup.find(key))) {
            return Ok(Receipt::Duplicate(self.positions(places)));
        }
        let queues = self.state.bound(&published.subject);
        if queues.is_empty() {
            return Err(PublishError::NoQueue(published.subject.clone()));
        }
        if published.size() > Self::message_bytes_max(self.bytes_max) {
            return Err(PublishError::TooLarge(published.size()));
        }
        let Stored { header, payload } = published.stored.clone();
        let places = self.append(&queues, header, Payload::Inline(payload), published.dedup);
        let receipt = Receipt::Stored(self.positions(&places));
        if let Some(key) = published.dedup {
            self.dedup.insert(key, places.into());
        }
        Ok(receipt)
    }

    /// Plans a settlement with its outputs. Whatever can fail is done before the first operation is planned.
    pub(crate) fn settle(&mut self, settler: Settler, settle: &Settle) -> Result<Finish, SettleError> {
        let mut targets = Vec::with_capacity(settle.outputs.len());
        for Output { target: Target::Subject(subject), .. } in &settle.outputs {
            let queues = self.state.bound(subject);
            if queues.is_empty() {
                return Err(SettleError::NoQueue(subject.clone()));
            }
            targets.push(queues);
        }
        let Settler { queue, subscription, held } = settler;
        let (finish, outcome, letter) = self.end(settler, &settle.settlement)?;
        let of_input = letter.is_some() || settle.outputs.iter().any(|output| output.payload.is_none());
        let mut input = if of_input { Some(self.payload_of(queue, held.offset)?) } else { None };
        self.check_size(settle, &targets, letter.as_ref(), input.as_ref())?;
        if let Some(Letter { to, header }) = letter {
            let id = self.queue_for_dead_letters(to);
            let payload = input.clone().unwrap_or_default();
            let places = self.append(&[id], header, payload, None);
            refer(&mut input, &places);
        }
        for (output, queues) in settle.outputs.iter().zip(targets) {
            let payload = match &output.payload {
                Some(bytes) => Payload::Inline(bytes.clone()),
                None => input.clone().unwrap_or_default(),
            };
            let places = self.append(&queues, output.header.clone(), payload, None);
            if output.payload.is_none() {
                refer(&mut input, &places);
            }
        }
        let offset = held.offset;
        let last = match outcome {
            Some(outcome) => Operation::Settle { subscription, offset, outcome },
            None => Operation::Attempt { subscription, offset, attempts: held.attempt },
        };
        self.push(last, 0);
        Ok(finish)
    }

    /// Makes a queue or changes it. Nothing where it is so already.
    pub(crate) fn define_queue(&mut self, settings: &QueueSettings) {
        let name = settings.name.as_str();
        let stored = self.state.queue_named(name).map(|queue| &queue.definition);
        match self.queues.get(name).or(stored) {
            Some(known) => {
                let definition = settings.define(known.id);
                if definition != *known {
                    self.define(definition);
                }
            }
            None => drop(self.make_queue(settings)),
        }
    }

    /// The subscription of a queue, made where it is not there; none where there is no such queue.
    pub(crate) fn subscription(
        &mut self,
        queue: &str,
        name: &str,
        from_end: bool,
    ) -> Option<(QueueId, SubscriptionId)> {
        let queue = *self.state.names.get(queue)?;
        let known = self.state.queues.get(&queue)?.subscription_named(name);
        let id = known.map(|(id, _)| id).unwrap_or_else(|| self.define_subscription(queue, name, from_end));
        Some((queue, id))
    }

    fn define_subscription(&mut self, queue: QueueId, name: &str, from_end: bool) -> SubscriptionId {
        if let Some(made) = self.subscriptions_made.get(&(queue, name.to_owned())) {
            return *made;
        }
        let made = u32::try_from(self.subscriptions_made.len()).unwrap_or(u32::MAX);
        let id = SubscriptionId(self.state.subscription_next.saturating_add(made));
        let floor = match self.state.queues.get(&queue) {
            Some(known) if from_end => known.next,
            Some(known) => known.floor(),
            None => Offset(0),
        };
        self.subscriptions_made.insert((queue, name.to_owned()), id);
        self.push(Operation::DefineSubscription { id, queue, name: name.to_owned(), floor }, name.len());
        id
    }

    /// What becomes of the delivery, the outcome where that is the end of it, and the dead letter that goes along.
    fn end(
        &self,
        settler: Settler,
        settlement: &Settlement,
    ) -> Result<(Finish, Option<Outcome>, Option<Letter>), SettleError> {
        let attempts = settler.held.attempt;
        Ok(match settlement {
            Settlement::Done(outcome) => (Finish::Gone, Some(*outcome), None),
            Settlement::Park { delay_ms } => (Finish::Park { attempts, delay_ms: *delay_ms }, None, None),
            Settlement::Nack { delay_ms } => {
                let definition = &self.state.queues[&settler.queue].definition;
                let last = definition.attempts_max > 0 && attempts >= definition.attempts_max;
                if last && definition.dead_letter.is_some() {
                    let letter = self.letter(settler, None, &format!("nacked {attempts} times"), &[])?;
                    (Finish::Gone, Some(Outcome::DeadLettered), Some(letter))
                } else {
                    let delay_ms = delay_ms.unwrap_or_else(|| backoff(&definition.backoff_ms, attempts));
                    (Finish::Park { attempts, delay_ms }, None, None)
                }
            }
            Settlement::DeadLetter { queue, reason, headers } => {
                let letter = self.letter(settler, queue.as_deref(), reason, headers)?;
                (Finish::Gone, Some(Outcome::DeadLettered), Some(letter))
            }
        })
    }

    fn letter(
        &self,
        settler: Settler,
        to: Option<&str>,
        reason: &str,
        headers: &[(String, String)],
    ) -> Result<Letter, SettleError> {
        let Settler { queue, subscription, held } = settler;
        let source = &self.state.queues[&queue];
        let definition = &source.definition;
        let no_dead_letter = || SettleError::NoDeadLetter(definition.name.clone());
        let to = to.or(definition.dead_letter.as_deref()).ok_or_else(no_dead_letter)?;
        let to = Subject::new(to).map_err(|_| no_dead_letter())?;
        let stored = self.message(queue, held.offset)?;
        let mut message = Message::decode(stored.header.clone(), Bytes::new())
            .map_err(|e| SettleError::Unreadable(format!("message {}: {e}", held.offset)))?;
        let subscription = source.subscriptions.get(&subscription).map_or_else(String::new, |s| s.name.clone());
        let said = [
            ("quipu-dead-queue", definition.name.clone()),
            ("quipu-dead-subscription", subscription),
            ("quipu-dead-offset", held.offset.to_string()),
            ("quipu-dead-attempts", held.attempt.to_string()),
            ("quipu-dead-reason", reason.to_owned()),
        ];
        let more = headers.iter().map(|(name, value)| (name.as_str(), value.clone()));
        for (name, value) in said.into_iter().chain(more) {
            // A header that does not fit says less, but never keeps a message from its dead-letter queue.
            message.headers.set(name, &printable(&value)).ok();
        }
        Ok(Letter { to, header: message.encode_header() })
    }

    fn check_size(
        &self,
        settle: &Settle,
        targets: &[Arc<[QueueId]>],
        letter: Option<&Letter>,
        input: Option<&Payload>,
    ) -> Result<(), SettleError> {
        let inline = |payload: Option<&Bytes>| payload.map_or(0, Bytes::len);
        let largest = settle.outputs.iter().map(|o| o.header.len() + inline(o.payload.as_ref())).max().unwrap_or(0);
        let places: usize = targets.iter().map(|queues| OPERATION_BYTES + PLACE_BYTES * queues.len()).sum();
        let outputs: usize = settle.outputs.iter().map(|o| o.header.len() + inline(o.payload.as_ref())).sum();
        let input = if let Some(Payload::Inline(bytes)) = input { bytes.len() } else { 0 };
        let all = places + outputs + input + letter.map_or(0, |letter| letter.header.len());
        match () {
            () if largest > Self::message_bytes_max(self.bytes_max) => Err(SettleError::TooLarge(largest)),
            () if all > self.bytes_max / 4 * 3 => Err(SettleError::TooLarge(all)),
            () => Ok(()),
        }
    }

    fn message(&self, queue: QueueId, offset: Offset) -> Result<Arc<Stored>, SettleError> {
        match self.state.queues.get(&queue).and_then(|q| q.in_memory(offset)) {
            Some(stored) => Ok(stored.clone()),
            None => self.bodies.message(queue, offset).map_err(SettleError::Unreadable),
        }
    }

    /// Refers to the payload where memory has it; otherwise it goes along, so that applying never reads the disk.
    fn payload_of(&self, queue: QueueId, offset: Offset) -> Result<Payload, SettleError> {
        match self.state.queues.get(&queue).and_then(|q| q.in_memory(offset)) {
            Some(_) => Ok(Payload::Of(queue, offset)),
            None => Ok(Payload::Inline(self.message(queue, offset)?.payload.clone())),
        }
    }

    fn queue_for_dead_letters(&mut self, name: Subject) -> QueueId {
        let defined = self.queues.get(name.as_str()).map(|definition| definition.id);
        let known = defined.or_else(|| self.state.names.get(name.as_str()).copied());
        known.unwrap_or_else(|| self.make_queue(&QueueSettings::for_dead_letters(name)))
    }

    fn make_queue(&mut self, settings: &QueueSettings) -> QueueId {
        let known = self.state.queues.keys().last().map_or(0, |id| id.0 + 1);
        let id = QueueId(known.saturating_add(self.queues_made));
        self.queues_made += 1;
        self.define(settings.define(id));
        id
    }

    fn define(&mut self, definition: QueueDefinition) {
        let subjects: usize = definition.subjects.iter().map(|subject| subject.as_str().len() + 8).sum();
        let bytes = 2 * definition.name.len() + subjects + 16 * definition.backoff_ms.len();
        self.queues.insert(definition.name.clone(), definition.clone());
        self.push(Operation::DefineQueue(definition), bytes);
    }

    fn append(
        &mut self,
        queues: &[QueueId],
        header: Bytes,
        payload: Payload,
        dedup: Option<DedupKey>,
    ) -> Vec<(QueueId, Offset)> {
        let places: Vec<_> = queues.iter().map(|&id| (id, self.place(id))).collect();
        let inline = if let Payload::Inline(bytes) = &payload { bytes.len() } else { 0 };
        let bytes = header.len() + inline + PLACE_BYTES * places.len();
        self.push(Operation::Append { header, payload, places: places.clone(), dedup }, bytes);
        places
    }

    fn push(&mut self, operation: Operation, bytes: usize) {
        self.bytes += OPERATION_BYTES + bytes;
        self.operations.push(operation);
    }

    fn place(&mut self, id: QueueId) -> Offset {
        let state = &*self.state;
        let next = self.next.entry(id).or_insert_with(|| state.queues.get(&id).map_or(Offset(0), |queue| queue.next));
        let offset = *next;
        *next = offset.next();
        offset
    }

    fn positions(&self, places: &[(QueueId, Offset)]) -> Vec<(Arc<str>, Offset)> {
        let name = |id| self.state.queues.get(id).map(|queue| queue.name.clone());
        places.iter().filter_map(|(id, offset)| Some((name(id)?, *offset))).collect()
    }
}

/// A dead letter: its queue, and the message's header with what went wrong.
#[derive(Debug)]
struct Letter {
    to: Subject,
    header: Bytes,
}

/// From its second copy on, a payload that went along refers to the first.
fn refer(input: &mut Option<Payload>, places: &[(QueueId, Offset)]) {
    if let (Some(Payload::Inline(_)), Some(&(queue, offset))) = (&input, places.first()) {
        *input = Some(Payload::Of(queue, offset));
    }
}

/// The delay after so many failed attempts, in milliseconds: a step for each, and the last one goes on.
pub fn backoff(backoff_ms: &[u64], attempts: u32) -> u64 {
    let at = usize::try_from(attempts).unwrap_or(usize::MAX).saturating_sub(1);
    backoff_ms.get(at).or(backoff_ms.last()).copied().unwrap_or(0)
}

/// The text as a header's value: control characters become spaces, and it is cut to what fits.
fn printable(text: &str) -> String {
    let mut text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    quipu_protocol::code::truncate(&mut text, quipu_protocol::limits::HEADER_VALUE_BYTES_MAX);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(to: &str, id: &str) -> Published {
        let id = quipu_protocol::MessageId::new(id).expect("an id");
        Published::new(&Message::new(id, Subject::new(to).expect("a subject"), ""), true)
    }

    /// Plans at a time and applies.
    fn commit<T>(state: &mut State, now_ms: u64, work: impl FnOnce(&mut Plan<'_>) -> T) -> T {
        let nothing = crate::state::tests::Nothing;
        let mut plan = Plan::new(state, &nothing, 1 << 20, now_ms);
        let done = work(&mut plan);
        let commit = plan.finish();
        state.apply(commit, &nothing).expect("it fits");
        done
    }

    #[test]
    fn a_repeated_id_is_a_duplicate_until_the_window_is_over_though_nothing_else_was_committed() {
        let mut state = State::default();
        let queue = QueueSettings::new(Subject::new("q").expect("a subject"));
        commit(&mut state, 1_000, |plan| plan.define_queue(&queue));
        let mut publish = |now_ms| commit(&mut state, now_ms, |plan| plan.publish(&published("q", "m")));
        let places = |offset| vec![("q".into(), Offset(offset))];
        let end_ms = 1_000 + crate::dedup::WINDOW_MS;
        assert_eq!(publish(1_000), Ok(Receipt::Stored(places(0))));
        // A clock that goes back stands still.
        assert_eq!(publish(500), Ok(Receipt::Duplicate(places(0))));
        assert_eq!(publish(end_ms - 1), Ok(Receipt::Duplicate(places(0))));
        assert_eq!(publish(end_ms), Ok(Receipt::Stored(places(1))));
        assert_eq!(publish(end_ms + 1), Ok(Receipt::Duplicate(places(1))));
    }

    #[test]
    fn a_queue_defined_twice_in_a_commit_is_one_queue() {
        let mut state = State::default();
        let queue = |name: &str| QueueSettings::new(Subject::new(name).expect("a subject"));
        commit(&mut state, 0, |plan| {
            plan.define_queue(&queue("a"));
            plan.define_queue(&QueueSettings { attempts_max: 9, ..queue("a") });
            plan.define_queue(&queue("b"));
            plan.define_queue(&queue("a"));
        });
        let known: Vec<_> = state.queues.values().map(|q| (&*q.name, q.definition.attempts_max)).collect();
        assert_eq!(known, [("a", 5), ("b", 5)]);
    }

    #[test]
    fn backoff_stays_at_its_last_step() {
        let steps = [100, 1_000, 10_000];
        assert_eq!([1, 2, 3, 4, 99].map(|n| backoff(&steps, n)), [100, 1_000, 10_000, 10_000, 10_000]);
        assert_eq!(backoff(&[], 3), 0);
    }
}
