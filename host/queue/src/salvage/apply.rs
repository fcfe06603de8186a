//! Operations of records of which some are missing: each is applied where it still means something.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::rescue::Rescued;
use super::{Definitions, row};
use crate::checkpoint::Checkpoints;
use crate::commit::{Commit, Offset, Operation, Payload, QueueDefinition, QueueId, Stored, SubscriptionId};
use crate::inspect::found::Problems;
use crate::inspect::replay::read;
use crate::inspect::source::{Source, guarded};
use crate::journal::{Inspection, Reader, RecordInfo};
use crate::state::{Queue, State};

/// Offsets that a gap may skip while messages before it are in memory: more than a journal holds messages.
const GAP_MAX: u64 = 1 << 24;

pub(super) struct Salvager<'a> {
    state: State,
    checkpoints: &'a Checkpoints,
    /// Records up to this one are in the state, but for queues that were rebuilt; none where nobody knows.
    position: Option<u64>,
    rebuilt: BTreeSet<QueueId>,
    definitions: Definitions,
    /// Keys of records whose rows are whole.
    records: BTreeSet<String>,
}

/// Where an operation stands.
#[derive(Clone, Copy)]
struct At<'a> {
    record: &'a RecordInfo,
    time_ms: u64,
    /// Whether it may be in the state already.
    old: bool,
}

impl<'a> Salvager<'a> {
    pub(super) fn new(
        state: State,
        checkpoints: &'a Checkpoints,
        position: Option<u64>,
        (rebuilt, definitions): (BTreeSet<QueueId>, Definitions),
    ) -> Self {
        let records = state.records.with_prefix("").map(|(key, _)| key.clone()).collect();
        Self { state, checkpoints, position, rebuilt, definitions, records }
    }

    pub(super) fn replay(
        &mut self,
        source: &Source,
        inspection: &Inspection,
        format: u32,
        problems: &mut Problems,
        rescued: &Rescued,
    ) {
        let mut reader = Reader::new(&source.disk);
        for record in &inspection.records {
            let old = self.position.is_none_or(|position| record.sequence <= position);
            let place = || format!("byte {}, record {}", record.at, record.sequence);
            let commit = match read(&mut reader, format, record) {
                Ok(commit) => commit,
                Err(why) => {
                    problems.journal(&record.path, place(), why);
                    continue;
                }
            };
            let at = At { record, time_ms: commit.time_ms, old };
            for operation in commit.operations {
                if let Err(why) = guarded(|| self.apply(operation, at, rescued, problems)) {
                    problems.journal(&record.path, place(), why);
                }
            }
        }
    }

    /// The state, with ledgers that close: what is lost counts as purged.
    pub(super) fn finish(mut self) -> State {
        for queue in self.state.queues.values_mut() {
            let next = queue.next;
            for subscription in queue.subscriptions.values_mut() {
                let left = subscription.outstanding(next);
                let counts = &mut subscription.counts;
                let (came, gone) = (counts.came(), counts.gone() + left);
                counts.purged += came.saturating_sub(gone);
                counts.entered += gone.saturating_sub(came);
                subscription.delivered_through = next;
            }
        }
        self.state
    }

    fn apply(
        &mut self,
        operation: Operation,
        at: At<'_>,
        rescued: &Rescued,
        problems: &mut Problems,
    ) -> Result<(), String> {
        let operation = match operation {
            Operation::Append { header, payload, places, dedup } => {
                // An id that is remembered without its message.
                let is_id = places.is_empty() && !at.old;
                let places = self.places(places, at, problems);
                if places.is_empty() && !is_id {
                    return Ok(());
                }
                let payload = self.payload(payload, rescued);
                let Some(payload) = payload else { return self.lose(&places, at, problems) };
                Operation::Append { header, payload, places, dedup }
            }
            Operation::Redrive { header, payload, queue, offset, subscription } => {
                let places = self.places(vec![(queue, offset)], at, problems);
                if places.is_empty() {
                    return Ok(());
                }
                let payload = self.payload(payload, rescued);
                let Some(payload) = payload else { return self.lose(&places, at, problems) };
                Operation::Redrive { header, payload, queue, offset, subscription }
            }
            Operation::DefineQueue(definition) => return self.define(definition, at),
            Operation::DefineSubscription { id, queue, name, mode, floor } => {
                if self.state.subscriptions.contains_key(&id) || self.is_known(queue, at) {
                    return Ok(());
                }
                self.queue(queue);
                // One that was made before it, and is lost, may have had more before it.
                let floor = if self.rebuilt.contains(&queue) { Offset(0) } else { floor };
                Operation::DefineSubscription { id, queue, name, mode, floor }
            }
            other if self.means_something(&other, at) => other,
            _ => return Ok(()),
        };
        self.apply_one(operation, at)
    }

    fn apply_one(&mut self, operation: Operation, at: At<'_>) -> Result<(), String> {
        let commit = Commit { time_ms: at.time_ms, operations: vec![operation] };
        self.state.apply(commit, self.checkpoints).map_err(|e| e.to_string())
    }

    /// Whether an operation is about what is there and has not been applied before.
    fn means_something(&self, operation: &Operation, at: At<'_>) -> bool {
        let unsettled = |id: SubscriptionId, offset: Offset| {
            let known = self.state.subscription(id).filter(|(queue, _)| !self.is_known(queue.definition.id, at));
            known.is_some_and(|(queue, s)| offset < queue.next && !s.settled.contains(offset))
        };
        match operation {
            Operation::Settle { subscription, offset, .. } => unsettled(*subscription, *offset),
            Operation::Attempt { subscription, offset, .. } | Operation::Isolate { subscription, offset } => {
                !at.old && unsettled(*subscription, *offset)
            }
            Operation::Release { subscription } => {
                let known = self.state.subscription(*subscription);
                !at.old && known.is_some_and(|(queue, _)| !self.is_known(queue.definition.id, at))
            }
            Operation::Trim { queue, .. } => self.state.queues.contains_key(queue) && !self.is_known(*queue, at),
            Operation::Remove { queue, offset } => {
                let known = self.state.queues.get(queue).filter(|_| !self.is_known(*queue, at));
                known.is_some_and(|queue| *offset < queue.next && !queue.removed.contains(*offset))
            }
            Operation::Publisher { name, epoch, sequence, .. } => match self.state.publishers.get(name) {
                Some(known) => !at.old || (known.epoch, known.sequence) < (*epoch, *sequence),
                None => true,
            },
            Operation::Opened { .. } => !at.old,
            // What the state has of it is newer.
            Operation::Record { key, .. } => !at.old || self.position.is_none() || !self.records.contains(key),
            Operation::RemoveSubscription { id }
            | Operation::Pause { subscription: id, .. }
            | Operation::Share { subscription: id, .. } => {
                self.state.subscription(*id).is_some_and(|(queue, _)| !self.is_known(queue.definition.id, at))
            }
            Operation::RemoveQueue { id } => self.state.queues.contains_key(id),
            Operation::Purge { queue, .. } => self.state.queues.contains_key(queue) && !self.is_known(*queue, at),
            Operation::Seek { subscription, .. } => {
                let known = self.state.subscription(*subscription);
                known.is_some_and(|(queue, _)| !self.is_known(queue.definition.id, at))
            }
            // All of it may have been handed out, as far as anybody knows.
            _ => false,
        }
    }

    /// Whether a queue's row has what an old record says, or is gone for good.
    fn is_known(&self, queue: QueueId, at: At<'_>) -> bool {
        let has_its_row = || !self.rebuilt.contains(&queue) && self.state.queues.contains_key(&queue);
        let is_removed = || self.definitions.is_removed_after(queue, at.record.sequence);
        at.old && self.position.is_some() && (is_removed() || has_its_row())
    }

    fn define(&mut self, definition: QueueDefinition, at: At<'_>) -> Result<(), String> {
        let known = self.state.queues.contains_key(&definition.id);
        if self.is_known(definition.id, at) || known && at.old && !self.rebuilt.contains(&definition.id) {
            return Ok(());
        }
        if !known {
            self.rebuilt.insert(definition.id);
        }
        self.apply_one(Operation::DefineQueue(definition), at)
    }

    /// Makes a queue that should be there and is not.
    fn queue(&mut self, id: QueueId) {
        if !self.state.queues.contains_key(&id) {
            self.rebuilt.insert(id);
            self.state.restore(row(self.definitions.definition(id), Offset(0)), &[]);
        }
    }

    /// Those of the places that are not in the state; each queue's next offset is theirs afterwards.
    fn places(
        &mut self,
        places: Vec<(QueueId, Offset)>,
        at: At<'_>,
        problems: &mut Problems,
    ) -> Vec<(QueueId, Offset)> {
        let mut ready = Vec::new();
        for (id, offset) in places {
            if self.is_known(id, at) {
                continue;
            }
            self.queue(id);
            let Some(queue) = self.state.queues.get_mut(&id) else { continue };
            if offset < queue.next || offset.0 == u64::MAX {
                continue;
            }
            let place = format!("before record {}", at.record.sequence);
            let name = queue.name.to_string();
            if queue.next < offset {
                let first = queue.next;
                if !skip(queue, offset) {
                    let what = "lost: its offset is far from all others".to_owned();
                    problems.queue_in(&at.record.path, &place, &name, (offset, offset), what);
                    continue;
                }
                let what = if at.old { "settled long ago or lost" } else { "lost with the records that are missing" };
                problems.queue_in(&at.record.path, &place, &name, (first, Offset(offset.0 - 1)), what.into());
            }
            ready.push((id, offset));
        }
        ready
    }

    /// A payload that can be had; that of another message is looked for in memory, in the chunks and in the journal.
    fn payload(&self, payload: Payload, rescued: &Rescued) -> Option<Payload> {
        let (id, offset) = match payload {
            Payload::Inline(_) => return Some(payload),
            Payload::Of(id, offset) => (id, offset),
        };
        let in_memory = self.state.queues.get(&id).and_then(|queue| queue.in_memory(offset));
        let stored = in_memory.or_else(|| rescued.get(&(id, offset))).cloned();
        let stored = stored.map_or_else(|| self.checkpoints.read_message(id, offset).ok(), Some);
        stored.map(|stored| Payload::Inline(stored.payload.clone()))
    }

    /// Messages whose payload is gone: their offsets are not used again.
    fn lose(&mut self, places: &[(QueueId, Offset)], at: At<'_>, problems: &mut Problems) -> Result<(), String> {
        for (id, offset) in places {
            let Some(queue) = self.state.queues.get_mut(id) else { continue };
            skip(queue, offset.next());
            let place = format!("byte {}, record {}", at.record.at, at.record.sequence);
            let what = "lost: its payload is that of a message which is lost".to_owned();
            problems.queue_in(&at.record.path, &place, &queue.name, (*offset, *offset), what);
        }
        Ok(())
    }
}

/// Lets the next message of a queue have this offset, and takes all between for gone.
fn skip(queue: &mut Queue, to: Offset) -> bool {
    if queue.live == 0 {
        queue.begin_at(to);
        queue.removed.insert_below(to);
        for subscription in queue.subscriptions.values_mut() {
            subscription.settled.insert_below(to);
        }
        return true;
    }
    if to.0 - queue.next.0 > GAP_MAX {
        return false;
    }
    let nothing = Arc::new(Stored { header: bytes::Bytes::new(), payload: bytes::Bytes::new() });
    while queue.next < to {
        let offset = queue.next;
        queue.append(&nothing, 0);
        queue.remove(offset);
    }
    true
}
