//! Turns what is asked for into the operations of one commit.
//!
//! Each request is validated by itself against the state and against what the requests before it in the same commit
//! will do, so that one that cannot be done never fails its neighbours.

mod change;
mod define;
mod destination;
mod publish;
mod redrive;
mod retain;
mod settle;
mod types;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::commit::{
    Commit, DedupKey, Durability, Offset, Operation, Payload, QueueDefinition, QueueId, Stored, SubscriptionId,
};
use crate::inbox::{self, Inboxes};
use crate::state::{Bodies, Publisher, Queue, State};

pub(crate) use change::{Change, ChangeError, Changed};
pub use change::{LookupError, RecordError, RemoveQueueError};
pub use define::DefineQueueError;
pub(crate) use publish::{Attempted, NewEpoch, Run};
pub use redrive::{Redrive, Redriven, Wanted};
pub use settle::backoff;
pub(crate) use settle::{Finish, Settler};
pub(crate) use types::MEMORY_QUEUE_BYTES;
pub use types::{Output, PublishError, Published, QueueSettings, Receipt, Settle, SettleError, Settlement, Target};

/// A commit takes no further request past this, in bytes, or a quarter of what a record holds.
pub(crate) const COMMIT_BYTES: usize = 8 << 20;
/// What an operation takes besides headers and payloads, at the most; and each place of an append.
const OPERATION_BYTES: usize = 64;
const PLACE_BYTES: usize = 16;

/// One commit in the making.
///
/// It takes requests up to a quarter of what a record holds; one message may be half a record, one settlement three
/// quarters, so that any message can be dead-lettered and the last request taken always fits.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    state: &'a mut State,
    bodies: &'a dyn Bodies,
    /// Where replies go; none: there are no inboxes.
    inboxes: Option<&'a mut Inboxes>,
    time_ms: u64,
    /// No publish is stored: the disk has no room.
    disk_is_full: bool,
    planned: Planned,
    /// Of the operations, near enough and never less.
    bytes: usize,
    /// Most bytes of the whole commit.
    bytes_max: usize,
    /// Takes nothing more.
    closed: bool,
    queues: HashMap<QueueId, QueuePlan>,
    dedup: HashMap<DedupKey, Vec<(QueueId, Offset)>>,
    publishers: HashMap<Arc<str>, PublisherPlan>,
    /// As this commit defines them.
    definitions: HashMap<String, QueueDefinition>,
    queues_made: u32,
    subscriptions_made: HashMap<(QueueId, String), SubscriptionId>,
    /// Whether somebody joins a subscription once this is applied: it must be there then.
    joins: bool,
    /// The queue that this commit removes or purges.
    emptied: Option<QueueId>,
}

/// What a commit will be.
#[derive(Debug, Default)]
pub(crate) struct Planned {
    /// For the journal.
    pub(crate) commit: Commit,
    /// Of queues that are in memory alone; applied after the commit.
    pub(crate) volatile: Vec<Operation>,
    /// For inboxes, once the commit is as durable as promised.
    pub(crate) replies: Vec<inbox::Planned>,
    /// Whether somebody waits for it to be synced.
    pub(crate) needs_sync: bool,
}

/// What this commit does to a queue so far.
#[derive(Debug, Default)]
struct QueuePlan {
    next: Option<Offset>,
    messages: u64,
    bytes: u64,
    /// All below goes.
    trimmed: Offset,
    messages_trimmed: u64,
    bytes_trimmed: u64,
    /// Where the queue has a limit, the sizes of what this commit appends.
    sizes: Vec<u64>,
}

#[derive(Debug)]
struct PublisherPlan {
    now: Publisher,
    refused: Vec<u64>,
    stored: Vec<u64>,
    /// Whether it stored something that the journal has.
    lasting: bool,
}

impl<'a> Plan<'a> {
    /// An empty plan for a record of at most so many bytes.
    pub(crate) fn new(state: &'a mut State, bodies: &'a dyn Bodies, bytes_max: usize, now_ms: u64) -> Self {
        let time_ms = now_ms.max(state.time_ms);
        // What is older than the window is no duplicate, also where no commit came to say how late it is.
        state.expire_window(time_ms);
        Self {
            state,
            bodies,
            inboxes: None,
            time_ms,
            disk_is_full: false,
            planned: Planned::default(),
            bytes: 0,
            bytes_max,
            closed: false,
            queues: HashMap::new(),
            dedup: HashMap::new(),
            publishers: HashMap::new(),
            definitions: HashMap::new(),
            queues_made: 0,
            subscriptions_made: HashMap::new(),
            joins: false,
            emptied: None,
        }
    }

    /// With inboxes, to which what is published and what settlements send may go.
    pub(crate) fn with_inboxes(self, inboxes: &'a mut Inboxes) -> Self {
        Self { inboxes: Some(inboxes), ..self }
    }

    /// Refuses every publish from here on.
    pub(crate) fn refuse_publishes(&mut self) {
        self.disk_is_full = true;
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
        self.closed || self.bytes >= COMMIT_BYTES.min(self.bytes_max / 4)
    }

    /// Whether nothing is planned yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0 && self.publishers.is_empty() && !self.joins
    }

    /// Whatever else is asked waits for the next commit.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    /// The commit; empty where nothing changes.
    pub(crate) fn finish(mut self) -> Planned {
        self.advance_publishers();
        self.planned.commit.time_ms = self.time_ms;
        self.planned
    }

    /// Consumers of a subscription may get what is below.
    pub(crate) fn deliverable(&mut self, subscription: SubscriptionId, through: Offset) {
        // It may have been removed since.
        let Some(volatile) = self.is_volatile(subscription) else { return };
        self.push(Operation::Deliverable { subscription, through }, 0, volatile);
    }

    /// A message is handed out with nothing else beside it.
    pub(crate) fn isolate(&mut self, subscription: SubscriptionId, offset: Offset) {
        let Some(volatile) = self.is_volatile(subscription) else { return };
        self.push(Operation::Isolate { subscription, offset }, 0, volatile);
    }

    /// The message that was handed out alone came back.
    pub(crate) fn release(&mut self, subscription: SubscriptionId) {
        let Some(volatile) = self.is_volatile(subscription) else { return };
        self.push(Operation::Release { subscription }, 0, volatile);
    }

    /// None where there is no such subscription.
    fn is_volatile(&self, subscription: SubscriptionId) -> Option<bool> {
        self.state.subscription(subscription).map(|(queue, _)| queue.is_in_memory_alone())
    }

    /// One message into queues: at once for those that are on disk, and for those in memory alone.
    fn append(
        &mut self,
        queues: &[QueueId],
        header: &Bytes,
        input: &mut Input,
        dedup: Option<DedupKey>,
    ) -> Vec<(QueueId, Offset)> {
        let (mut lasting, mut volatile) = (Vec::with_capacity(queues.len()), Vec::new());
        for &id in queues {
            let durability = self.durability(id);
            self.planned.needs_sync |= durability == Durability::Synced;
            let offset = self.place(id, (header.len() + input.bytes.len()) as u64);
            let places = if durability == Durability::Memory { &mut volatile } else { &mut lasting };
            places.push((id, offset));
        }
        let places: Vec<_> = lasting.iter().chain(&volatile).copied().collect();
        if !lasting.is_empty() {
            let payload =
                input.reference.map_or_else(|| Payload::Inline(input.bytes.clone()), |(q, o)| Payload::Of(q, o));
            let inline = if let Payload::Inline(bytes) = &payload { bytes.len() } else { 0 };
            // From its second copy on, a payload that went along refers to the first.
            input.reference = input.reference.or(lasting.first().copied());
            let bytes = header.len() + inline + PLACE_BYTES * lasting.len();
            self.push(Operation::Append { header: header.clone(), payload, places: lasting, dedup }, bytes, false);
        }
        if !volatile.is_empty() {
            let payload = Payload::Inline(input.bytes.clone());
            let bytes = header.len() + input.bytes.len() + PLACE_BYTES * volatile.len();
            self.push(Operation::Append { header: header.clone(), payload, places: volatile, dedup }, bytes, true);
        }
        places
    }

    fn push(&mut self, operation: Operation, bytes: usize, volatile: bool) {
        self.bytes += OPERATION_BYTES + bytes;
        let operations = if volatile { &mut self.planned.volatile } else { &mut self.planned.commit.operations };
        operations.push(operation);
    }

    fn place(&mut self, id: QueueId, bytes: u64) -> Offset {
        let state = &*self.state;
        let plan = self.queues.entry(id).or_default();
        let next = plan.next.unwrap_or_else(|| state.queues.get(&id).map_or(Offset(0), |queue| queue.next));
        plan.next = Some(next.next());
        plan.messages += 1;
        plan.bytes += bytes;
        if state.queues.get(&id).is_some_and(Queue::is_limited) {
            plan.sizes.push(bytes);
        }
        next
    }

    fn durability(&self, id: QueueId) -> Durability {
        let known = self.state.queues.get(&id).map(|queue| queue.definition.durability);
        known.or_else(|| self.definitions.values().find(|d| d.id == id).map(|d| d.durability)).unwrap_or_default()
    }

    fn message(&self, queue: QueueId, offset: Offset) -> Result<Arc<Stored>, String> {
        match self.state.queues.get(&queue).and_then(|q| q.in_memory(offset)) {
            Some(stored) => Ok(stored.clone()),
            None => self.bodies.message(queue, offset),
        }
    }

    /// A stored message's payload for outputs: referred to where memory has it; otherwise it goes along, so that
    /// applying never reads the disk.
    fn input(&self, queue: QueueId, offset: Offset) -> Result<(Arc<Stored>, Input), String> {
        let known = self.state.queues.get(&queue);
        let in_memory = known.is_some_and(|known| known.in_memory(offset).is_some() && !known.is_in_memory_alone());
        let stored = self.message(queue, offset)?;
        let input = Input { bytes: stored.payload.clone(), reference: in_memory.then_some((queue, offset)) };
        Ok((stored, input))
    }

    fn positions(&self, places: &[(QueueId, Offset)]) -> Vec<(Arc<str>, Offset)> {
        let name = |id| self.state.queues.get(id).map(|queue| queue.name.clone());
        places.iter().filter_map(|(id, offset)| Some((name(id)?, *offset))).collect()
    }
}

/// A payload, and where the journal has it already.
#[derive(Debug, Clone)]
struct Input {
    bytes: Bytes,
    reference: Option<(QueueId, Offset)>,
}

impl Input {
    fn new(bytes: Bytes) -> Self {
        Self { bytes, reference: None }
    }
}

#[cfg(test)]
mod tests;
