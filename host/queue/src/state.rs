//! The state that all commits add up to.

mod change;
mod chunks;
mod publishers;
mod queue;
mod records;
mod times;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use quipu_protocol::Subject;
use serde::{Deserialize, Serialize};

use crate::commit::{
    Commit, DedupKey, Offset, Operation, Outcome, Payload, QueueDefinition, QueueId, Retention, Stored, SubscriptionId,
};
use crate::dedup::Dedup;
use crate::offsets::OffsetSet;

pub(crate) use chunks::ChunkInfo;
pub(crate) use publishers::{Publisher, Publishers};
pub use queue::{Counts, Mark};
pub(crate) use queue::{Queue, Subscription};
pub(crate) use records::Records;
pub(crate) use times::Times;

/// Subjects whose queues are remembered; past that the memory starts anew.
const BINDINGS_CACHED_MAX: usize = 4_096;

/// Queues, subscriptions, publishers and the dedup window. Changed by [`apply`](State::apply) alone.
#[derive(Debug, Default)]
pub struct State {
    pub(crate) time_ms: u64,
    pub(crate) queues: BTreeMap<QueueId, Queue>,
    pub(crate) names: HashMap<String, QueueId>,
    /// The queues that are logs.
    pub(crate) logs: BTreeSet<QueueId>,
    pub(crate) subscriptions: HashMap<SubscriptionId, QueueId>,
    pub(crate) dedup: Dedup,
    /// Ids of messages that are in memory alone: in no checkpoint.
    pub(crate) dedup_volatile: Dedup,
    pub(crate) publishers: Publishers,
    pub(crate) records: Records,
    /// Numbers that were never used.
    pub(crate) queue_next: u32,
    pub(crate) subscription_next: u32,
    /// Changed since the last checkpoint, or removed.
    pub(crate) dirty: BTreeSet<QueueId>,
    /// Bytes of messages in memory; one that is in several queues counts in each.
    pub(crate) tail_bytes: usize,
    bindings: HashMap<Subject, Arc<[QueueId]>>,
}

/// What a checkpoint keeps of a queue, its messages apart.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct QueueRow {
    pub(crate) definition: QueueDefinition,
    pub(crate) next: Offset,
    pub(crate) removed: OffsetSet,
    pub(crate) times: Times,
    pub(crate) live: u64,
    pub(crate) subscriptions: Vec<(SubscriptionId, Subscription)>,
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
        self.apply_all(commit, true, bodies)
    }

    /// Takes what is in no journal: of queues in memory alone, and ids that are remembered for this run of the router.
    pub(crate) fn apply_volatile(&mut self, commit: Commit, bodies: &dyn Bodies) -> Result<(), ApplyError> {
        self.apply_all(commit, false, bodies)
    }

    fn apply_all(&mut self, commit: Commit, lasting: bool, bodies: &dyn Bodies) -> Result<(), ApplyError> {
        self.time_ms = self.time_ms.max(commit.time_ms);
        // First, because an id that has left the window may be in this commit again.
        self.dedup.expire(self.time_ms);
        self.dedup_volatile.expire(self.time_ms);
        commit.operations.into_iter().try_for_each(|operation| self.apply_one(operation, lasting, bodies))
    }

    fn apply_one(&mut self, operation: Operation, lasting: bool, bodies: &dyn Bodies) -> Result<(), ApplyError> {
        match operation {
            Operation::Append { header, payload, places, dedup } => {
                let stored = Arc::new(Stored { header, payload: self.payload(payload, bodies)? });
                self.append(&stored, &places)?;
                if let Some(key) = dedup {
                    let lasting = match places.is_empty() {
                        true => lasting,
                        false => places.iter().any(|(id, _)| !self.queues[id].is_in_memory_alone()),
                    };
                    let dedup = if lasting { &mut self.dedup } else { &mut self.dedup_volatile };
                    dedup.insert(key, self.time_ms, &places);
                }
            }
            Operation::Redrive { header, payload, queue, offset, subscription } => {
                let stored = Arc::new(Stored { header, payload: self.payload(payload, bodies)? });
                self.redrive(&stored, queue, offset, subscription)?;
            }
            Operation::Settle { subscription, offset, outcome } => self.settle(subscription, offset, outcome)?,
            Operation::Attempt { subscription, offset, attempts } => {
                self.subscription_mut(subscription)?.attempt(offset, attempts);
            }
            Operation::Deliverable { subscription, through } => {
                let known = self.subscription_mut(subscription)?;
                known.delivered_through = known.delivered_through.max(through);
            }
            Operation::Isolate { subscription, offset } => {
                // Not where its queue let go of it meanwhile.
                let known = self.subscription_mut(subscription)?;
                known.isolated = Some(offset).filter(|offset| !known.settled.contains(*offset));
            }
            Operation::Release { subscription } => self.subscription_mut(subscription)?.isolated = None,
            Operation::Trim { queue, below } => self.tail_bytes -= self.queue_mut(queue)?.trim(below),
            Operation::Remove { queue, offset } => self.tail_bytes -= self.queue_mut(queue)?.remove(offset),
            Operation::Publisher { name, epoch, sequence, refused, stored } => {
                self.publishers.advance(name, epoch, sequence, (&refused, &stored), self.time_ms);
            }
            other => self.change(other)?,
        }
        Ok(())
    }

    /// What is rare: definitions, and what operators do.
    fn change(&mut self, operation: Operation) -> Result<(), ApplyError> {
        match operation {
            Operation::Opened { clean } => self.opened(clean),
            Operation::DefineQueue(definition) => self.define_queue(definition),
            Operation::DefineSubscription { id, queue, name, mode, floor } => {
                let freed = self.queue_mut(queue)?.subscribe(id, name, mode, floor);
                self.tail_bytes -= freed;
                self.subscriptions.insert(id, queue);
                self.subscription_next = self.subscription_next.max(id.0 + 1);
            }
            Operation::Record { key, value } => self.records.set(key, value),
            Operation::RemoveSubscription { id } => self.remove_subscription(id)?,
            Operation::RemoveQueue { id } => self.remove_queue(id)?,
            Operation::Pause { subscription, paused } => self.subscription_mut(subscription)?.paused = paused,
            Operation::Seek { subscription, floor } => self.seek(subscription, floor)?,
            Operation::Share { subscription, mode } => {
                let known = self.subscription_mut(subscription)?;
                (known.mode, known.isolated) = (mode, None);
            }
            Operation::Purge { queue, below } => self.tail_bytes -= self.queue_mut(queue)?.purge(below),
            other => return Err(mismatch(format!("{other:?} is no change"))),
        }
        Ok(())
    }

    /// A queue by its name.
    pub(crate) fn queue_named(&self, name: &str) -> Option<&Queue> {
        self.queues.get(self.names.get(name)?)
    }

    /// A subscription with its queue.
    pub(crate) fn subscription(&self, id: SubscriptionId) -> Option<(&Queue, &Subscription)> {
        let queue = self.queues.get(self.subscriptions.get(&id)?)?;
        Some((queue, queue.subscriptions.get(&id)?))
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

    /// Whether the dedup window takes no more ids for now.
    pub(crate) fn window_is_full(&self) -> bool {
        self.dedup.is_full() || self.dedup_volatile.is_full()
    }

    /// Where the first message of this id went. One that went to queues which are all removed since is forgotten with
    /// them.
    pub(crate) fn remembered(&self, key: DedupKey) -> Option<Vec<(QueueId, Offset)>> {
        let is_there = |(id, _): &(QueueId, Offset)| self.queues.contains_key(id);
        let counts = |places: &Vec<(QueueId, Offset)>| places.is_empty() || places.iter().any(is_there);
        let (lasting, volatile) = (self.dedup.find(key).filter(counts), self.dedup_volatile.find(key).filter(counts));
        match (lasting, volatile) {
            (Some(lasting), Some(volatile)) => Some(lasting.into_iter().chain(volatile).collect()),
            (lasting, volatile) => lasting.or(volatile),
        }
    }

    /// Forgets ids that are older than the window at this time.
    pub(crate) fn expire_window(&mut self, now_ms: u64) {
        let now_ms = now_ms.max(self.time_ms);
        self.dedup.expire(now_ms);
        self.dedup_volatile.expire(now_ms);
    }

    /// What checkpoints keep of this queue.
    pub(crate) fn row(&self, id: QueueId) -> Option<QueueRow> {
        let queue = self.queues.get(&id)?;
        Some(QueueRow {
            definition: queue.definition.clone(),
            next: queue.next,
            removed: queue.removed.clone(),
            times: queue.times.clone(),
            live: queue.live,
            subscriptions: queue.subscriptions.iter().map(|(id, s)| (*id, s.clone())).collect(),
        })
    }

    /// Takes back what a checkpoint kept of a queue and where its messages are.
    pub(crate) fn restore(&mut self, row: QueueRow, chunks: &[ChunkInfo]) {
        let id = row.definition.id;
        self.define_queue(row.definition);
        for (id_of, _) in &row.subscriptions {
            self.subscriptions.insert(*id_of, id);
            self.subscription_next = self.subscription_next.max(id_of.0 + 1);
        }
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.begin_at(row.next);
            (queue.live, queue.removed, queue.times) = (row.live, row.removed, row.times);
            queue.subscriptions = row.subscriptions.into_iter().collect();
            for chunk in chunks {
                let (live, _) = queue.live_within(chunk.first, chunk.last);
                queue.chunks.insert(*chunk, live, chunk.bytes * live / chunk.count.max(1));
            }
            queue.live_bytes = queue.chunks.live_bytes();
        }
        self.dirty.remove(&id);
    }

    /// Frees memory down to `bytes`, as far as messages are in a checkpoint. So that one unsettled message does not
    /// keep an empty slot for each settled one behind it, a tail of hardly anything else is shortened too.
    pub(crate) fn evict(&mut self, bytes: usize) {
        for queue in self.queues.values_mut() {
            while self.tail_bytes > bytes || queue.is_sparse() {
                let Some(freed) = queue.evict_one() else { break };
                self.tail_bytes -= freed;
            }
        }
    }

    fn opened(&mut self, clean: bool) {
        for (id, queue) in &mut self.queues {
            queue.opened(clean, self.time_ms);
            self.dirty.insert(*id);
        }
    }

    fn define_queue(&mut self, definition: QueueDefinition) {
        let id = definition.id;
        self.bindings.clear();
        self.dirty.insert(id);
        self.queue_next = self.queue_next.max(id.0 + 1);
        self.names.insert(definition.name.clone(), id);
        // A log stays one, and no other queue becomes one.
        if matches!(definition.retention, Retention::Log { .. }) {
            self.logs.insert(id);
        }
        match self.queues.get_mut(&id) {
            Some(queue) => queue.redefine(definition, self.time_ms),
            None => drop(self.queues.insert(id, Queue::new(definition))),
        }
    }

    fn append(&mut self, stored: &Arc<Stored>, places: &[(QueueId, Offset)]) -> Result<(), ApplyError> {
        let time_ms = self.time_ms;
        for &(id, offset) in places {
            self.tail_bytes += stored.size();
            let queue = self.queue_mut(id)?;
            check_next(queue, offset)?;
            queue.append(stored, time_ms);
            queue.subscriptions.values_mut().for_each(|s| s.counts.entered += 1);
        }
        Ok(())
    }

    fn redrive(
        &mut self,
        stored: &Arc<Stored>,
        id: QueueId,
        offset: Offset,
        to: SubscriptionId,
    ) -> Result<(), ApplyError> {
        let time_ms = self.time_ms;
        self.tail_bytes += stored.size();
        let queue = self.queue_mut(id)?;
        check_next(queue, offset)?;
        queue.append(stored, time_ms);
        for (known, subscription) in &mut queue.subscriptions {
            if *known == to {
                subscription.counts.redriven += 1;
            } else {
                subscription.settled.insert(offset);
            }
        }
        Ok(())
    }

    fn settle(&mut self, id: SubscriptionId, offset: Offset, outcome: Outcome) -> Result<(), ApplyError> {
        let unknown = || mismatch(format!("no subscription {id:?}"));
        let queue = *self.subscriptions.get(&id).ok_or_else(unknown)?;
        let queue = self.queue_mut(queue)?;
        let Some(freed) = queue.settle(id, offset, outcome) else {
            let name = &queue.name;
            return Err(mismatch(format!("offset {offset} of {id:?} in {name:?} is settled twice")));
        };
        self.tail_bytes -= freed;
        Ok(())
    }

    fn payload(&self, payload: Payload, bodies: &dyn Bodies) -> Result<Bytes, ApplyError> {
        let (id, offset) = match payload {
            Payload::Inline(bytes) => return Ok(bytes),
            Payload::Of(id, offset) => (id, offset),
        };
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

    fn subscription_mut(&mut self, id: SubscriptionId) -> Result<&mut Subscription, ApplyError> {
        let unknown = || mismatch(format!("no subscription {id:?}"));
        let queue = *self.subscriptions.get(&id).ok_or_else(unknown)?;
        self.queue_mut(queue)?.subscriptions.get_mut(&id).ok_or_else(unknown)
    }
}

fn check_next(queue: &Queue, offset: Offset) -> Result<(), ApplyError> {
    if offset == queue.next {
        return Ok(());
    }
    Err(mismatch(format!("an append to {:?} at {offset}, where {} is next", queue.name, queue.next)))
}

fn mismatch(text: String) -> ApplyError {
    ApplyError::Mismatch(text)
}

#[cfg(test)]
pub(crate) mod tests;
