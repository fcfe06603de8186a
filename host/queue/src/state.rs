//! The state that all commits add up to.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use quipu_protocol::{Subject, SubjectPattern};
use serde::{Deserialize, Serialize};

use crate::commit::{Commit, Offset, Operation, Outcome, Payload, QueueDefinition, QueueId, Stored, SubscriptionId};
use crate::dedup::{Dedup, Entry};
use crate::offsets::OffsetSet;

/// Subjects whose queues are remembered; past that the memory starts anew.
const BINDINGS_CACHED_MAX: usize = 4_096;

/// A tail of fewer slots is never called sparse.
const SPARSE_SLOTS_MIN: usize = 1 << 16;

/// Queues, subscriptions and the dedup window. Changed by [`apply`](State::apply) alone.
#[derive(Debug, Default)]
pub struct State {
    pub(crate) time_ms: u64,
    pub(crate) queues: BTreeMap<QueueId, Queue>,
    pub(crate) names: HashMap<String, QueueId>,
    pub(crate) subscriptions: HashMap<SubscriptionId, QueueId>,
    pub(crate) dedup: Dedup,
    pub(crate) subscription_next: u32,
    /// Changed since the last checkpoint.
    pub(crate) dirty: BTreeSet<QueueId>,
    /// Bytes of messages in memory; one that is in several queues counts in each.
    pub(crate) tail_bytes: usize,
    bindings: HashMap<Subject, Arc<[QueueId]>>,
}

/// One queue.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) name: Arc<str>,
    pub(crate) definition: QueueDefinition,
    own_subject: Option<SubjectPattern>,
    /// The offset of the next message.
    pub(crate) next: Offset,
    /// Messages at `tail_first` and up; none where every subscription settled it.
    tail: VecDeque<Option<Arc<Stored>>>,
    tail_first: Offset,
    /// Below this, what is unsettled is in a checkpoint.
    pub(crate) stored_below: Offset,
    pub(crate) subscriptions: BTreeMap<SubscriptionId, Subscription>,
    /// Messages that a subscription has not settled.
    pub(crate) live: u64,
}

/// One subscription.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Subscription {
    pub(crate) name: String,
    pub(crate) settled: OffsetSet,
    /// Failed attempts of what is unsettled.
    pub(crate) attempts: BTreeMap<Offset, u32>,
    pub(crate) counts: Counts,
}

/// How many messages a subscription saw, and what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each is named after its outcome")]
pub struct Counts {
    pub entered: u64,
    pub acked: u64,
    pub filtered: u64,
    pub dropped: u64,
    pub dead_lettered: u64,
    /// Attempts that failed; a message may have several.
    pub failed_attempts: u64,
}

impl Counts {
    /// Messages that are done with.
    pub fn settled(&self) -> u64 {
        self.acked + self.filtered + self.dropped + self.dead_lettered
    }
}

/// What a checkpoint keeps of a queue, its messages apart.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct QueueRow {
    definition: QueueDefinition,
    next: Offset,
    live: u64,
    subscriptions: Vec<(SubscriptionId, Subscription)>,
}

/// Where messages are that memory no longer holds.
pub trait Bodies: std::fmt::Debug {
    /// An unsettled message.
    ///
    /// # Errors
    ///
    /// A text that says what could not be read.
    fn message(&self, queue: QueueId, offset: Offset) -> Result<Arc<Stored>, String>;
}

/// A commit that cannot be applied to this state: the journal does not belong to it, or is damaged.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// An operation names what is not there, or an offset that is not the next one.
    #[error("the journal does not fit the state: {0}")]
    Mismatch(String),
    /// The payload of a message could not be read.
    #[error("cannot read the payload of offset {offset} in {queue:?}: {why}")]
    Body {
        /// The queue's name.
        queue: String,
        /// Which message.
        offset: Offset,
        /// What failed.
        why: String,
    },
}

impl State {
    /// Takes a commit into the state. Pure but for `bodies`: no clock, no randomness.
    ///
    /// # Errors
    ///
    /// [`ApplyError`]; the state is then no longer usable.
    pub fn apply(&mut self, commit: Commit, bodies: &dyn Bodies) -> Result<(), ApplyError> {
        self.time_ms = self.time_ms.max(commit.time_ms);
        // First, because an id that has left the window may be in this commit again.
        self.dedup.expire(self.time_ms);
        for operation in commit.operations {
            match operation {
                Operation::DefineQueue(definition) => self.define_queue(definition),
                Operation::DefineSubscription { id, queue, name, floor } => {
                    self.define_subscription(id, queue, name, floor)?;
                }
                Operation::Append { header, payload, places, dedup } => {
                    let payload = match payload {
                        Payload::Inline(bytes) => bytes,
                        Payload::Of(queue, offset) => self.payload(queue, offset, bodies)?,
                    };
                    self.append(&Arc::new(Stored { header, payload }), &places)?;
                    if let Some(key) = dedup {
                        self.dedup.insert(Entry { key, time_ms: self.time_ms, places: places.into() });
                    }
                }
                Operation::Settle { subscription, offset, outcome } => self.settle(subscription, offset, outcome)?,
                Operation::Attempt { subscription, offset, attempts } => {
                    let subscription = self.subscription_mut(subscription)?.1;
                    subscription.attempts.insert(offset, attempts);
                    subscription.counts.failed_attempts += 1;
                }
            }
        }
        Ok(())
    }

    /// A queue by its name.
    pub(crate) fn queue_named(&self, name: &str) -> Option<&Queue> {
        self.queues.get(self.names.get(name)?)
    }

    /// The queues that take a subject.
    pub(crate) fn bound(&mut self, subject: &Subject) -> Arc<[QueueId]> {
        if let Some(known) = self.bindings.get(subject) {
            return known.clone();
        }
        let bound: Arc<[QueueId]> =
            self.queues.iter().filter(|(_, queue)| queue.takes(subject)).map(|(id, _)| *id).collect();
        if self.bindings.len() >= BINDINGS_CACHED_MAX {
            self.bindings.clear();
        }
        self.bindings.insert(subject.clone(), bound.clone());
        bound
    }

    /// What checkpoints keep of this queue.
    pub(crate) fn row(&self, id: QueueId) -> Option<QueueRow> {
        let queue = self.queues.get(&id)?;
        Some(QueueRow {
            definition: queue.definition.clone(),
            next: queue.next,
            live: queue.live,
            subscriptions: queue.subscriptions.iter().map(|(id, s)| (*id, s.clone())).collect(),
        })
    }

    /// Takes back what a checkpoint kept.
    pub(crate) fn restore(&mut self, row: QueueRow) {
        let id = row.definition.id;
        self.define_queue(row.definition);
        for (id_of, _) in &row.subscriptions {
            self.subscriptions.insert(*id_of, id);
            self.subscription_next = self.subscription_next.max(id_of.0 + 1);
        }
        if let Some(queue) = self.queues.get_mut(&id) {
            (queue.next, queue.tail_first, queue.stored_below, queue.live) = (row.next, row.next, row.next, row.live);
            queue.subscriptions = row.subscriptions.into_iter().collect();
        }
        self.dirty.remove(&id);
    }

    /// Frees memory down to `bytes`, as far as messages are in a checkpoint. So that one unsettled message does not
    /// keep an empty slot for each settled one behind it, a tail of hardly anything else is shortened too.
    pub(crate) fn evict(&mut self, bytes: usize) {
        for queue in self.queues.values_mut() {
            while (self.tail_bytes > bytes || queue.is_sparse()) && queue.tail_first < queue.stored_below {
                let Some(slot) = queue.tail.pop_front() else { break };
                queue.tail_first = queue.tail_first.next();
                self.tail_bytes -= slot.map_or(0, |stored| stored.size());
            }
        }
    }

    fn define_queue(&mut self, definition: QueueDefinition) {
        let id = definition.id;
        self.bindings.clear();
        self.dirty.insert(id);
        self.names.insert(definition.name.clone(), id);
        match self.queues.get_mut(&id) {
            Some(queue) => queue.definition = definition,
            None => drop(self.queues.insert(id, Queue::new(definition))),
        }
    }

    fn define_subscription(
        &mut self,
        id: SubscriptionId,
        queue_id: QueueId,
        name: String,
        floor: Offset,
    ) -> Result<(), ApplyError> {
        let queue = self.queue_mut(queue_id)?;
        let mut settled = OffsetSet::below(floor);
        // What all others settled is gone; a newcomer cannot get it.
        if let Some(first) = queue.subscriptions.values().next() {
            let gone = |offset: &Offset| queue.subscriptions.values().all(|s| s.settled.contains(*offset));
            let gone: Vec<Offset> = (floor.0..first.settled.floor().0)
                .map(Offset)
                .chain(first.settled.above_floor())
                .filter(|offset| *offset >= floor)
                .filter(gone)
                .collect();
            for offset in gone {
                settled.insert(offset);
            }
        }
        let waiting = queue.next.0.saturating_sub(settled.floor().0) - settled.above_floor().count() as u64;
        let counts = Counts { entered: waiting, ..Counts::default() };
        let subscription = Subscription { name, settled, attempts: BTreeMap::new(), counts };
        if queue.subscriptions.is_empty() {
            // Nobody wants what is below the floor of the only subscription.
            queue.live = waiting;
        }
        queue.subscriptions.insert(id, subscription);
        self.subscriptions.insert(id, queue_id);
        self.subscription_next = self.subscription_next.max(id.0 + 1);
        self.trim(queue_id);
        Ok(())
    }

    fn append(&mut self, stored: &Arc<Stored>, places: &[(QueueId, Offset)]) -> Result<(), ApplyError> {
        for &(id, offset) in places {
            self.tail_bytes += stored.size();
            let queue = self.queue_mut(id)?;
            if offset != queue.next {
                let name = &queue.definition.name;
                return Err(mismatch(format!("an append to {name:?} at {offset}, where {} is next", queue.next)));
            }
            queue.next = offset.next();
            queue.live += 1;
            queue.tail.push_back(Some(stored.clone()));
            queue.subscriptions.values_mut().for_each(|s| s.counts.entered += 1);
        }
        Ok(())
    }

    fn settle(&mut self, id: SubscriptionId, offset: Offset, outcome: Outcome) -> Result<(), ApplyError> {
        let (queue_id, subscription) = self.subscription_mut(id)?;
        if !subscription.settled.insert(offset) {
            let name = &subscription.name;
            return Err(mismatch(format!("offset {offset} of subscription {name:?} is settled twice")));
        }
        subscription.attempts.remove(&offset);
        let counts = &mut subscription.counts;
        *match outcome {
            Outcome::Acked => &mut counts.acked,
            Outcome::Filtered => &mut counts.filtered,
            Outcome::Dropped => &mut counts.dropped,
            Outcome::DeadLettered => &mut counts.dead_lettered,
        } += 1;
        let freed = self.queue_mut(queue_id)?.release(offset);
        self.tail_bytes -= freed;
        Ok(())
    }

    fn trim(&mut self, id: QueueId) {
        if let Some(queue) = self.queues.get_mut(&id) {
            self.tail_bytes -= queue.trim();
        }
    }

    fn payload(&self, id: QueueId, offset: Offset, bodies: &dyn Bodies) -> Result<Bytes, ApplyError> {
        let queue = self.queues.get(&id).ok_or_else(|| mismatch(format!("no queue {id:?}")))?;
        match queue.in_memory(offset) {
            Some(stored) => Ok(stored.payload.clone()),
            None => bodies.message(id, offset).map(|stored| stored.payload.clone()).map_err(|why| {
                let queue = queue.definition.name.clone();
                ApplyError::Body { queue, offset, why }
            }),
        }
    }

    fn queue_mut(&mut self, id: QueueId) -> Result<&mut Queue, ApplyError> {
        self.dirty.insert(id);
        self.queues.get_mut(&id).ok_or_else(|| mismatch(format!("no queue {id:?}")))
    }

    fn subscription_mut(&mut self, id: SubscriptionId) -> Result<(QueueId, &mut Subscription), ApplyError> {
        let unknown = || mismatch(format!("no subscription {id:?}"));
        let queue = *self.subscriptions.get(&id).ok_or_else(unknown)?;
        let subscription = self.queue_mut(queue)?.subscriptions.get_mut(&id).ok_or_else(unknown)?;
        Ok((queue, subscription))
    }
}

impl Queue {
    fn new(definition: QueueDefinition) -> Self {
        Self {
            own_subject: SubjectPattern::new(&definition.name).ok(),
            name: definition.name.as_str().into(),
            definition,
            next: Offset(0),
            tail: VecDeque::new(),
            tail_first: Offset(0),
            stored_below: Offset(0),
            subscriptions: BTreeMap::new(),
            live: 0,
        }
    }

    fn takes(&self, subject: &Subject) -> bool {
        self.own_subject.iter().chain(&self.definition.subjects).any(|pattern| pattern.matches(subject))
    }

    fn is_sparse(&self) -> bool {
        self.tail.len() > SPARSE_SLOTS_MIN && self.tail.len() as u64 / 8 > self.live
    }

    /// The message, where memory still holds it.
    pub(crate) fn in_memory(&self, offset: Offset) -> Option<&Arc<Stored>> {
        let at = usize::try_from(offset.0.checked_sub(self.tail_first.0)?).ok()?;
        self.tail.get(at)?.as_ref()
    }

    pub(crate) fn subscription_named(&self, name: &str) -> Option<(SubscriptionId, &Subscription)> {
        self.subscriptions.iter().find(|(_, s)| s.name == name).map(|(id, s)| (*id, s))
    }

    /// Below this, every subscription has settled everything.
    pub(crate) fn floor(&self) -> Offset {
        self.subscriptions.values().map(|s| s.settled.floor()).min().unwrap_or(Offset(0))
    }

    /// Whether a subscription still needs this message. A queue without subscriptions keeps all.
    pub(crate) fn is_live(&self, offset: Offset) -> bool {
        self.subscriptions.is_empty() || self.subscriptions.values().any(|s| !s.settled.contains(offset))
    }

    /// Live messages in memory from an offset up.
    pub(crate) fn live_from(&self, from: Offset) -> impl Iterator<Item = (Offset, &Arc<Stored>)> {
        let skipped = usize::try_from(from.0.saturating_sub(self.tail_first.0)).unwrap_or(usize::MAX);
        let slots = self.tail.iter().zip(self.tail_first.0..).skip(skipped);
        slots.filter_map(|(slot, offset)| slot.as_ref().map(|stored| (Offset(offset), stored)))
    }

    /// Lets go of a message that may have been settled by all; the bytes freed.
    fn release(&mut self, offset: Offset) -> usize {
        if self.is_live(offset) {
            return 0;
        }
        self.live -= 1;
        let at = offset.0.checked_sub(self.tail_first.0).and_then(|at| usize::try_from(at).ok());
        let slot = at.and_then(|at| self.tail.get_mut(at)).and_then(Option::take);
        while matches!(self.tail.front(), Some(None)) {
            self.tail.pop_front();
            self.tail_first = self.tail_first.next();
        }
        slot.map_or(0, |stored| stored.size())
    }

    /// Lets go of everything that nobody needs; the bytes freed.
    fn trim(&mut self) -> usize {
        let floor = self.floor();
        let mut freed = 0;
        while self.tail_first < floor {
            let Some(slot) = self.tail.pop_front() else { break };
            self.tail_first = self.tail_first.next();
            freed += slot.map_or(0, |stored| stored.size());
        }
        freed
    }
}

fn mismatch(text: String) -> ApplyError {
    ApplyError::Mismatch(text)
}

#[cfg(test)]
pub(crate) mod tests;
