//! Publishes: duplicates, named publishers, and queues that are full.

use std::collections::BTreeSet;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use bytes::Bytes;

use super::destination::{Destination, copied_to_inboxes};
use super::{
    Input, OPERATION_BYTES, Output, PLACE_BYTES, Plan, PublishError, Published, PublisherPlan, QueuePlan, Receipt,
};
use crate::commit::{DedupKey, Offset, OnFull, Operation, Payload, QueueId};
use crate::state::{Publisher, Queue};

/// Sequences that a named publisher may pass over, so that they are still no duplicates when they come.
const PASSED_MAX: u64 = 4_096;

/// A named publisher's run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) name: Arc<str>,
    pub(crate) epoch: u64,
}

/// What became of a publish in the plan.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Attempted {
    Done(Result<Receipt, PublishError>),
    /// Nothing was planned: this queue is full, and its publishers wait.
    Blocked(QueueId),
}

/// A run of a named publisher that was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewEpoch {
    pub(crate) epoch: u64,
    pub(crate) last_sequence: u64,
    /// Up to there, what was refused.
    pub(crate) refused: BTreeSet<u64>,
}

/// What there is no room for.
enum Room {
    /// Once the oldest messages of these queues have gone.
    Enough(Vec<QueueId>),
    Blocked(QueueId),
    Refused(Arc<str>),
}

impl Plan<'_> {
    pub(crate) fn publish(&mut self, published: &Published, run: Option<&Run>) -> Attempted {
        self.attempt(published, run, Self::publish_one)
    }

    /// Refuses a message, since one before it was refused; remembered like any other refusal.
    pub(crate) fn stop(&mut self, published: &Published, run: Option<&Run>) -> Attempted {
        self.attempt(published, run, |_, _| Attempted::Done(Err(PublishError::Stopped)))
    }

    fn attempt(
        &mut self,
        published: &Published,
        run: Option<&Run>,
        one: impl FnOnce(&mut Self, &Published) -> Attempted,
    ) -> Attempted {
        let Some(run) = run else { return one(self, published) };
        let known = match self.publisher(&run.name) {
            Some(known) if known.now.epoch == run.epoch => known,
            _ => return Attempted::Done(Err(PublishError::Fenced(run.name.clone()))),
        };
        let sequence = published.sequence;
        let again = known.now.refused.contains(&sequence);
        if sequence <= known.now.sequence && !again {
            return Attempted::Done(Ok(Receipt::Duplicate(Vec::new())));
        }
        let needs_sync = self.planned.needs_sync;
        let written = self.planned.commit.operations.len();
        let attempted = one(self, published);
        let lasting = self.planned.commit.operations.len() > written || self.planned.needs_sync != needs_sync;
        let Attempted::Done(done) = attempted else { return attempted };
        // Not remembered, since each would be a record of a journal that has its last room for settlements. Once a later
        // one is stored, it is among those that were passed over.
        if done.is_err() && self.disk_is_full {
            return Attempted::Done(done);
        }
        if let Some(known) = self.publishers.get_mut(&run.name) {
            // What was passed over had been refused in a commit that a crash took.
            for passed in (known.now.sequence + 1).max(sequence.saturating_sub(PASSED_MAX))..sequence {
                known.now.refused.insert(passed);
                known.refused.push(passed);
            }
            known.now.sequence = known.now.sequence.max(sequence);
            known.lasting |= lasting || done.is_err();
            if done.is_err() {
                known.now.refused.insert(sequence);
                known.refused.push(sequence);
            } else if again {
                known.now.refused.remove(&sequence);
                known.stored.push(sequence);
            }
        }
        Attempted::Done(done)
    }

    /// Opens a run of a named publisher: the next one for epoch 0; none where it is an older one, or names are used up.
    pub(crate) fn open_publisher(&mut self, name: &Arc<str>, epoch: u64) -> Result<NewEpoch, PublishError> {
        let time_ms = self.time_ms;
        let now = self.publisher(name).map(|known| known.now.clone());
        if now.is_none() && self.state.publishers.room(time_ms).is_err() {
            return Err(PublishError::Full("named publishers".into()));
        }
        let now = now.unwrap_or_default();
        if epoch != 0 && epoch < now.epoch {
            return Err(PublishError::Fenced(name.clone()));
        }
        if epoch == now.epoch && epoch != 0 {
            return Ok(NewEpoch { epoch, last_sequence: now.sequence, refused: now.refused });
        }
        let epoch = if epoch == 0 { now.epoch + 1 } else { epoch };
        let begun = Publisher { epoch, ..Publisher::default() };
        let plan = PublisherPlan { now: begun, refused: Vec::new(), stored: Vec::new(), lasting: true };
        self.publishers.insert(name.clone(), plan);
        self.planned.needs_sync = true;
        Ok(NewEpoch { epoch, last_sequence: 0, refused: BTreeSet::new() })
    }

    /// How far the publishers came, behind what they published.
    pub(super) fn advance_publishers(&mut self) {
        for (name, PublisherPlan { now, refused, stored, lasting }) in std::mem::take(&mut self.publishers) {
            let bytes = name.len() + 10 * (refused.len() + stored.len());
            let Publisher { epoch, sequence, .. } = now;
            let operation = Operation::Publisher { name: name.as_ref().to_owned(), epoch, sequence, refused, stored };
            self.push(operation, bytes, !lasting);
        }
    }

    fn publisher(&mut self, name: &Arc<str>) -> Option<&mut PublisherPlan> {
        match self.publishers.entry(name.clone()) {
            Entry::Occupied(planned) => Some(planned.into_mut()),
            Entry::Vacant(free) => {
                let now = self.state.publishers.get(name)?.clone();
                Some(free.insert(PublisherPlan { now, refused: Vec::new(), stored: Vec::new(), lasting: false }))
            }
        }
    }

    fn publish_one(&mut self, published: &Published) -> Attempted {
        if published.subject.is_inbox() {
            return Attempted::Done(self.publish_reply(published));
        }
        if let Some(places) = published.dedup.and_then(|key| {
            let known = self.dedup.get(&key).cloned();
            known.or_else(|| self.state.remembered(key))
        }) {
            return Attempted::Done(Ok(Receipt::Duplicate(self.positions(&places))));
        }
        let queues = self.state.bound(&published.subject);
        if published.is_taken || !published.outputs.is_empty() {
            return self.publish_taken(published, &queues).unwrap_or_else(|why| Attempted::Done(Err(why)));
        }
        if queues.is_empty() {
            return Attempted::Done(Err(PublishError::NoQueue(published.subject.clone())));
        }
        if published.size() > Self::message_bytes_max(self.bytes_max) {
            return Attempted::Done(Err(PublishError::TooLarge(published.size())));
        }
        if self.disk_is_full && queues.iter().any(|id| !self.state.queues[id].is_in_memory_alone()) {
            return Attempted::Done(Err(PublishError::DiskFull));
        }
        match self.room(&queues, published.size() as u64) {
            Room::Enough(dropping) => {
                dropping.into_iter().for_each(|id| self.drop_oldest(id, (1, published.size() as u64)));
            }
            Room::Blocked(queue) => return Attempted::Blocked(queue),
            Room::Refused(queue) => return Attempted::Done(Err(PublishError::Full(queue))),
        }
        let mut input = Input::new(published.stored.payload.clone());
        let places = self.append(&queues, &published.stored.header, &mut input, published.dedup);
        let receipt = Receipt::Stored(self.positions(&places));
        if let Some(key) = published.dedup {
            self.dedup.insert(key, places);
        }
        Attempted::Done(Ok(receipt))
    }

    /// A message that inline routes took, with what they made of it.
    fn publish_taken(&mut self, published: &Published, queues: &Arc<[QueueId]>) -> Result<Attempted, PublishError> {
        let outputs = &published.outputs;
        let targets = self.destinations(outputs)?;
        self.check_taken(published, queues, &targets)?;
        let payload = &published.stored.payload;
        let bytes = |output: &Output| output.header.len() + output.payload.as_ref().unwrap_or(payload).len();
        let mut dropping = Vec::new();
        let own: (&[QueueId], usize) = (queues, published.stored.size());
        let others = targets.iter().map(Destination::queues).zip(outputs.iter().map(bytes));
        for (queues, bytes) in std::iter::once(own).chain(others) {
            match self.room(queues, bytes as u64) {
                Room::Enough(more) => dropping.extend(more),
                Room::Blocked(queue) => return Ok(Attempted::Blocked(queue)),
                Room::Refused(queue) => return Err(PublishError::Full(queue)),
            }
        }
        let mut input = Input::new(payload.clone());
        let places = match queues.is_empty() {
            true => Vec::new(),
            false => self.append(queues, &published.stored.header, &mut input, published.dedup),
        };
        if let Some(key) = published.dedup {
            self.remember(key, queues, &targets);
            self.dedup.insert(key, places.clone());
        }
        self.send(outputs, targets, &mut input);
        // Behind all of it, since outputs may refer to the message.
        dropping.into_iter().for_each(|id| self.drop_oldest(id, (0, 0)));
        Ok(Attempted::Done(Ok(Receipt::Stored(self.positions(&places)))))
    }

    /// Sends outputs where they go; one without a payload has the input's.
    pub(super) fn send(&mut self, outputs: &[Output], destinations: Vec<Destination>, input: &mut Input) {
        for (output, destination) in outputs.iter().zip(destinations) {
            match (destination, &output.payload) {
                (Destination::Inbox(ticket), payload) => {
                    let payload = payload.clone().unwrap_or_else(|| input.bytes.clone());
                    self.reply(ticket, output.header.clone(), payload);
                }
                (Destination::Queues(queues), Some(bytes)) => {
                    self.append(&queues, &output.header, &mut Input::new(bytes.clone()), None);
                }
                (Destination::Queues(queues), None) => {
                    self.append(&queues, &output.header, input, None);
                }
            }
        }
    }

    /// Whether the journal and the disk take it.
    fn check_taken(
        &self,
        published: &Published,
        queues: &[QueueId],
        targets: &[Destination],
    ) -> Result<(), PublishError> {
        let largest = published.outputs.iter().map(Output::size).chain([published.stored.size()]).max().unwrap_or(0);
        let places: usize = targets.iter().map(|to| OPERATION_BYTES + PLACE_BYTES * to.queues().len()).sum();
        let all = published.size() + places + copied_to_inboxes(&published.outputs, targets, &published.stored.payload);
        if largest > Self::message_bytes_max(self.bytes_max) {
            return Err(PublishError::TooLarge(largest));
        }
        if all > self.bytes_max / 4 * 3 {
            return Err(PublishError::TooLarge(all));
        }
        match self.disk_is_full && self.is_lasting(queues, targets) {
            true => Err(PublishError::DiskFull),
            false => Ok(()),
        }
    }

    fn is_lasting(&self, queues: &[QueueId], targets: &[Destination]) -> bool {
        let mut all = targets.iter().flat_map(Destination::queues).chain(queues);
        all.any(|id| !self.state.queues[id].is_in_memory_alone())
    }

    /// The id of a message that went nowhere itself, or is in memory alone while its outputs are not: they must not come
    /// twice.
    fn remember(&mut self, key: DedupKey, queues: &[QueueId], targets: &[Destination]) {
        let lasting = self.is_lasting(&[], targets);
        if self.is_lasting(queues, &[]) || !(lasting || queues.is_empty()) {
            return;
        }
        let (header, payload, places) = (Bytes::new(), Payload::default(), Vec::new());
        self.push(Operation::Append { header, payload, places, dedup: Some(key) }, 0, !lasting);
    }

    /// Whether an output may go there, and which queues let go of their oldest messages for it: once it is there, since
    /// the message that it comes of may be one of them. A queue whose publishers wait refuses it, and who settles tries
    /// again.
    pub(super) fn room_for_output(&mut self, queues: &[QueueId], bytes: u64) -> Result<Vec<QueueId>, Arc<str>> {
        match self.room(queues, bytes) {
            Room::Enough(dropping) => Ok(dropping),
            Room::Refused(queue) => Err(queue),
            Room::Blocked(id) => Err(self.state.queues[&id].name.clone()),
        }
    }

    /// Who has no room; otherwise where the oldest messages go for it.
    fn room(&mut self, queues: &[QueueId], bytes: u64) -> Room {
        let mut dropping = Vec::new();
        for id in queues {
            let queue = &self.state.queues[id];
            let limits = queue.definition.limits;
            if !queue.is_limited() {
                continue;
            }
            let plan = self.queues.entry(*id).or_default();
            if !plan.is_full(queue, (1, bytes)) {
                continue;
            }
            match limits.on_full {
                OnFull::Reject => return Room::Refused(queue.name.clone()),
                OnFull::Block => return Room::Blocked(*id),
                OnFull::DropOldest => dropping.push(*id),
            }
        }
        Room::Enough(dropping)
    }

    /// Makes room for so many more messages, and bytes of them.
    pub(super) fn drop_oldest(&mut self, id: QueueId, more: (u64, u64)) {
        let queue = &self.state.queues[&id];
        let plan = self.queues.entry(id).or_default();
        let before = plan.trimmed;
        while plan.is_full(queue, more) && plan.trim_one(queue) {}
        let (below, volatile) = (plan.trimmed, queue.is_in_memory_alone());
        if below > before {
            self.push(Operation::Trim { queue: id, below }, 0, volatile);
        }
    }
}

impl QueuePlan {
    /// Whether a queue with what this commit does has no room for so many more messages and bytes. One message always fits.
    fn is_full(&self, queue: &Queue, (more, bytes): (u64, u64)) -> bool {
        let limits = queue.definition.limits;
        let messages = (queue.live + self.messages).saturating_sub(self.messages_trimmed);
        let held = (queue.live_bytes + self.bytes).saturating_sub(self.bytes_trimmed);
        messages + more > 1
            && (limits.messages.is_some_and(|most| messages + more > most)
                || limits.bytes.is_some_and(|most| held + bytes > most))
    }

    /// Lets the oldest message go that is in the state; false where there is none.
    pub(super) fn trim_one(&mut self, queue: &Queue) -> bool {
        let oldest = queue.next_live(self.trimmed).max(self.trimmed);
        // From there on, what this commit appends.
        let appended = oldest.0.checked_sub(queue.next.0).and_then(|at| usize::try_from(at).ok());
        let size = match appended {
            None => Some(queue.size_of(oldest)),
            Some(at) => self.sizes.get(at).copied(),
        };
        let Some(size) = size else { return false };
        self.bytes_trimmed += size;
        self.messages_trimmed += 1;
        self.trimmed = oldest.next();
        true
    }

    pub(super) fn has_trimmed(&self, offset: Offset) -> bool {
        offset < self.trimmed
    }
}
