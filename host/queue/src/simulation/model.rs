//! What a store should hold: plain maps, one message and one subscription at a time.
//!
//! It is told of commits, in the order of the journal, and checks each of them against what was ever sent. It knows
//! nothing of chunks, bitmaps, memory or the disk.

mod change;
mod compare;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use quipu_protocol::{Message, Subject};

use crate::commit::{
    Commit, DedupKey, Durability, Mode, Offset, OnFull, Operation, Outcome, Payload, QueueDefinition, QueueId,
    Retention, SubscriptionId,
};
use crate::plan::QueueSettings;
use crate::state::Counts;

pub(super) const WINDOW_MS: u64 = 120_000;

/// A message that was once handed over, or sent along with a settlement.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) subject: Subject,
    pub(super) header: Bytes,
    pub(super) payload: Bytes,
    pub(super) dedup: bool,
    /// Who published it, and its place among that one's messages.
    pub(super) source: (u64, u64),
    /// Of a named publisher: name, epoch, sequence.
    pub(super) named: Option<(String, u64, u64)>,
    /// Of an output, the delivery that it was sent with.
    pub(super) parent: Option<(SubscriptionId, u64)>,
    /// What inline routes made of it, and whether one took it.
    pub(super) outputs: Vec<String>,
    pub(super) is_taken: bool,
    /// Of what inline routes made, of which message.
    pub(super) of: Option<String>,
}

/// Where a message is.
pub(super) type Places = Vec<(QueueId, Offset)>;

/// Everything ever handed over, by message id.
pub(super) type Sents = BTreeMap<String, Sent>;

#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) header: Bytes,
    pub(super) payload: Bytes,
    /// The commit that stored it.
    pub(super) sequence: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Reader {
    pub(super) name: String,
    pub(super) mode: Mode,
    pub(super) pending: BTreeSet<u64>,
    pub(super) attempts: BTreeMap<u64, u32>,
    pub(super) crashes: BTreeMap<u64, u32>,
    pub(super) delivered_through: u64,
    pub(super) isolated: Option<u64>,
    pub(super) counts: Counts,
    pub(super) paused: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Queue {
    pub(super) definition: Arc<QueueDefinition>,
    pub(super) next: u64,
    /// Bytes of the largest message that there ever was.
    pub(super) largest: usize,
    pub(super) messages: BTreeMap<u64, Arc<Kept>>,
    pub(super) readers: BTreeMap<SubscriptionId, Reader>,
}

/// Where a message was stored by publishing it, or as an output.
#[derive(Debug, Clone)]
pub(super) struct Storing {
    pub(super) places: Places,
    pub(super) sequence: u64,
    /// Whether it went into a queue whose receipts wait for the sync.
    pub(super) synced: bool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Run {
    pub(super) epoch: u64,
    pub(super) sequence: u64,
    pub(super) refused: BTreeSet<u64>,
}

/// The model.
#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    pub(super) time_ms: u64,
    pub(super) sequence: u64,
    pub(super) queues: BTreeMap<QueueId, Queue>,
    /// By message id; one with its own id several times, when the window has passed.
    pub(super) stored: BTreeMap<String, Vec<Storing>>,
    pub(super) dedup: BTreeMap<[u8; 16], (u64, Places)>,
    pub(super) runs: BTreeMap<String, Run>,
    pub(super) records: BTreeMap<String, Bytes>,
    /// Numbers of queues and subscriptions that were never used.
    queue_next: u32,
    subscription_next: u32,
    /// The last message stored of each unnamed publisher.
    order: BTreeMap<u64, u64>,
}

/// What a commit is seen against: how things were when it was begun, and what else is in it.
struct Context<'a> {
    sents: &'a Sents,
    definitions: Vec<Arc<QueueDefinition>>,
    epochs: BTreeMap<String, u64>,
    settled: BTreeMap<(SubscriptionId, u64), Outcome>,
    /// Ids of what is stored.
    ids: BTreeSet<String>,
    released: BTreeMap<QueueId, u64>,
    trimmed: BTreeSet<QueueId>,
    /// Whether something was appended that limits hold for, and how much that they do not.
    appended: BTreeMap<QueueId, (bool, u64)>,
}

impl Context<'_> {
    /// The queues on disk that a message belongs into.
    fn bound(&self, sent: &Sent) -> Vec<QueueId> {
        let takes = |definition: &&Arc<QueueDefinition>| {
            definition.durability != Durability::Memory && takes(definition, &sent.subject)
        };
        self.definitions.iter().filter(takes).map(|definition| definition.id).collect()
    }
}

fn id_of(operation: &Operation) -> Option<String> {
    let Operation::Append { header, places, .. } = operation else { return None };
    let message = Message::decode(header.clone(), Bytes::new());
    (!places.is_empty()).then(|| message.expect("a stored header is sound").id.as_str().to_owned())
}

impl Queue {
    pub(super) fn is_in_memory(&self) -> bool {
        self.definition.durability == Durability::Memory
    }

    pub(super) fn is_log(&self) -> bool {
        matches!(self.definition.retention, Retention::Log { .. })
    }

    /// Drops a message that nobody needs any more.
    fn release(&mut self, offset: u64) -> u64 {
        let wanted = self.readers.values().any(|reader| reader.pending.contains(&offset));
        if self.is_log() || wanted { 0 } else { u64::from(self.messages.remove(&offset).is_some()) }
    }

    fn append(&mut self, kept: Arc<Kept>) -> u64 {
        let offset = self.next;
        self.next += 1;
        self.largest = self.largest.max(kept.header.len() + kept.payload.len() + 64);
        self.messages.insert(offset, kept);
        offset
    }
}

impl Reader {
    fn forget(&mut self, offset: u64) -> bool {
        self.attempts.remove(&offset);
        self.crashes.remove(&offset);
        self.isolated = self.isolated.filter(|isolated| *isolated != offset);
        self.pending.remove(&offset)
    }
}

impl Model {
    pub(super) fn named(&self, name: &str) -> Option<(QueueId, &Queue)> {
        self.queues.iter().find(|(_, queue)| queue.definition.name == name).map(|(id, queue)| (*id, queue))
    }

    pub(super) fn reader(&self, id: SubscriptionId) -> Option<(QueueId, &Queue, &Reader)> {
        self.queues.iter().find_map(|(queue, known)| Some((*queue, known, known.readers.get(&id)?)))
    }

    fn reader_mut(&mut self, id: SubscriptionId) -> &mut Reader {
        let found = self.queues.values_mut().find_map(|queue| queue.readers.get_mut(&id));
        found.unwrap_or_else(|| panic!("a commit names subscription {id:?}, which is not there"))
    }

    fn queue_mut(&mut self, id: QueueId) -> &mut Queue {
        self.queues.get_mut(&id).unwrap_or_else(|| panic!("a commit names queue {id:?}, which is not there"))
    }

    /// Takes the commit of this sequence.
    pub(super) fn apply(&mut self, sequence: u64, commit: &Commit, sents: &Sents) {
        assert!(commit.time_ms >= self.time_ms, "time went back in commit {sequence}");
        (self.sequence, self.time_ms) = (sequence, commit.time_ms);
        self.expire(commit.time_ms);
        let settled = commit.operations.iter().filter_map(|operation| match operation {
            Operation::Settle { subscription, offset, outcome } => Some(((*subscription, offset.0), *outcome)),
            _ => None,
        });
        let mut context = Context {
            sents,
            definitions: self.queues.values().map(|queue| queue.definition.clone()).collect(),
            epochs: self.runs.iter().map(|(name, run)| (name.clone(), run.epoch)).collect(),
            settled: settled.collect(),
            ids: commit.operations.iter().filter_map(id_of).collect(),
            released: BTreeMap::new(),
            trimmed: BTreeSet::new(),
            appended: BTreeMap::new(),
        };
        let back = commit.operations.iter().filter(|o| matches!(o, Operation::Redrive { .. })).count();
        let gone = commit.operations.iter().filter(|o| self.is_moved_to_disk(o)).count();
        assert_eq!(back, gone, "a dead letter was copied or lost");
        for operation in &commit.operations {
            self.apply_one(operation, &mut context);
        }
        self.check_limits(&context);
        for id in &context.trimmed {
            let definition = &self.queues[id].definition;
            // What it was when the commit was begun is what it was trimmed by.
            if context.definitions.iter().any(|before| before == definition) {
                self.check_trimmed(*id, context.released.get(id).copied().unwrap_or(0));
            }
        }
    }

    /// Whether it takes a dead letter away that goes back to a queue on disk.
    fn is_moved_to_disk(&self, operation: &Operation) -> bool {
        let Operation::Remove { queue, offset } = operation else { return false };
        let kept = self.queues[queue].messages.get(&offset.0).expect("the dead letter that goes back");
        let message = Message::decode(kept.header.clone(), Bytes::new()).expect("a sound header");
        let to = message.headers.first("quipu-dead-queue").and_then(|name| self.named(name));
        !to.expect("where it died").1.is_in_memory()
    }

    pub(super) fn expire(&mut self, time_ms: u64) {
        self.dedup.retain(|_, (then_ms, _)| *then_ms + WINDOW_MS > time_ms);
    }

    fn apply_one(&mut self, operation: &Operation, context: &mut Context<'_>) {
        match operation {
            Operation::Opened { .. } => panic!("no journal has this"),
            Operation::DefineQueue(definition) => self.define(definition),
            Operation::DefineSubscription { id, queue, name, mode, floor } => {
                let before = self.queues.get(queue).map_or(0, |queue| queue.messages.len() as u64);
                self.subscribe(*id, *queue, name, *mode, floor.0);
                *context.released.entry(*queue).or_default() += before - self.queues[queue].messages.len() as u64;
            }
            Operation::Append { header, payload, places, dedup } => {
                let payload = self.payload(payload);
                self.append(header, &payload, places, *dedup, context);
            }
            Operation::Redrive { header, payload, queue, offset, subscription } => {
                let payload = self.payload(payload);
                context.appended.entry(*queue).or_default().1 += 1;
                self.redrive(header, payload, (*queue, offset.0), *subscription);
            }
            Operation::Settle { subscription, offset, outcome } => {
                let (queue, released) = self.settle(*subscription, offset.0, *outcome);
                *context.released.entry(queue).or_default() += released;
            }
            Operation::Attempt { subscription, offset, attempts } => {
                let reader = self.reader_mut(*subscription);
                assert!(reader.pending.contains(&offset.0), "an attempt at {offset}, which is settled");
                let before = reader.attempts.insert(offset.0, *attempts).unwrap_or(0);
                assert_eq!(*attempts, before + 1, "attempts at {offset} jumped");
                reader.counts.failed_attempts += 1;
                reader.isolated = reader.isolated.filter(|isolated| *isolated != offset.0);
            }
            Operation::Deliverable { subscription, through } => {
                let reader = self.reader_mut(*subscription);
                reader.delivered_through = reader.delivered_through.max(through.0);
            }
            Operation::Isolate { subscription, offset } => {
                let reader = self.reader_mut(*subscription);
                reader.isolated = Some(offset.0).filter(|offset| reader.pending.contains(offset));
            }
            Operation::Release { subscription } => self.reader_mut(*subscription).isolated = None,
            Operation::Trim { queue, below } => {
                context.trimmed.insert(*queue);
                self.trim(*queue, below.0);
            }
            Operation::Remove { queue, offset } => self.remove(*queue, offset.0),
            Operation::Publisher { name, epoch, sequence, refused, stored } => {
                let run = self.runs.entry(name.clone()).or_default();
                assert!(*epoch >= run.epoch, "publisher {name} went back to epoch {epoch}");
                if *epoch != run.epoch {
                    *run = Run { epoch: *epoch, ..Run::default() };
                }
                run.sequence = run.sequence.max(*sequence);
                run.refused.extend(refused);
                run.refused.retain(|sequence| !stored.contains(sequence));
            }
            other => self.change(other, context),
        }
    }

    fn define(&mut self, definition: &QueueDefinition) {
        let id = definition.id;
        let is_new = !self.queues.contains_key(&id);
        assert!(!is_new || id.0 >= self.queue_next, "the number of a queue that was removed is used again");
        self.queue_next = self.queue_next.max(id.0 + 1);
        let same = self.named(&definition.name).is_none_or(|(known, _)| known == id);
        assert!(same, "two queues have the name {}", definition.name);
        let definition = Arc::new(definition.clone());
        match self.queues.get_mut(&id) {
            Some(queue) => {
                assert_eq!(queue.definition.name, definition.name, "a queue's number was used again");
                queue.definition = definition;
            }
            None => {
                let (messages, readers) = (BTreeMap::new(), BTreeMap::new());
                self.queues.insert(id, Queue { definition, next: 0, largest: 0, messages, readers });
            }
        }
    }

    fn subscribe(&mut self, id: SubscriptionId, queue: QueueId, name: &str, mode: Mode, floor: u64) {
        assert!(id.0 >= self.subscription_next, "a subscription's number was used again");
        self.subscription_next = id.0 + 1;
        let queue = self.queue_mut(queue);
        assert!(queue.readers.values().all(|reader| reader.name != name), "subscription {name} was made twice");
        if queue.readers.is_empty() && !queue.is_log() {
            queue.messages = queue.messages.split_off(&floor);
        }
        let pending: BTreeSet<u64> = queue.messages.range(floor..).map(|(offset, _)| *offset).collect();
        let counts = Counts { entered: pending.len() as u64, ..Counts::default() };
        let reader = Reader {
            name: name.to_owned(),
            mode,
            pending,
            attempts: BTreeMap::new(),
            crashes: BTreeMap::new(),
            delivered_through: 0,
            isolated: None,
            counts,
            paused: false,
        };
        queue.readers.insert(id, reader);
    }

    fn payload(&self, payload: &Payload) -> Bytes {
        match payload {
            Payload::Inline(bytes) => bytes.clone(),
            Payload::Of(queue, offset) => {
                let kept = self.queues.get(queue).and_then(|queue| queue.messages.get(&offset.0));
                let kept = kept.unwrap_or_else(|| panic!("a payload of {queue:?} {offset}, which is gone"));
                kept.payload.clone()
            }
        }
    }

    fn append(
        &mut self,
        header: &Bytes,
        payload: &Bytes,
        places: &[(QueueId, Offset)],
        dedup: Option<DedupKey>,
        context: &mut Context<'_>,
    ) {
        if places.is_empty() {
            return self.remember(header, dedup);
        }
        let message = Message::decode(header.clone(), payload.clone()).expect("a stored header is sound");
        let id = message.id.as_str();
        match message.headers.first("quipu-dead-queue") {
            Some(_) => self.check_letter(&message, places, context),
            None => self.check_sent(id, (header, payload, places), dedup, context),
        }
        let kept = Arc::new(Kept { header: header.clone(), payload: payload.clone(), sequence: self.sequence });
        let is_letter = message.headers.first("quipu-dead-queue").is_some();
        // Limits are looked at before the first of what a publish brings.
        let is_free = is_letter || context.sents.get(id).is_some_and(|sent| sent.of.is_some());
        for (queue, offset) in places {
            let (limited, free) = context.appended.entry(*queue).or_default();
            (*limited, *free) = (*limited || !is_letter, *free + u64::from(is_free));
            let queue = self.queue_mut(*queue);
            assert_eq!(queue.append(kept.clone()), offset.0, "an offset was left out in {}", queue.definition.name);
            for reader in queue.readers.values_mut() {
                reader.counts.entered += 1;
                reader.pending.insert(offset.0);
            }
        }
    }

    /// A publish or an output: what was sent, where it belongs, and not again.
    fn check_sent(
        &mut self,
        id: &str,
        (header, payload, places): (&Bytes, &Bytes, &[(QueueId, Offset)]),
        dedup: Option<DedupKey>,
        context: &Context<'_>,
    ) {
        let sent = context.sents.get(id).unwrap_or_else(|| panic!("{id} was stored and never sent"));
        assert!(sent.header == *header && sent.payload == *payload, "{id} was altered");
        let mut places_of: Vec<QueueId> = places.iter().map(|(queue, _)| *queue).collect();
        places_of.sort();
        assert_eq!(places_of, context.bound(sent), "{id} is not where its subject is bound");
        if let Some(parent) = sent.parent {
            assert!(context.settled.contains_key(&parent), "output {id} came without its settlement");
        }
        self.check_together(id, sent, context);
        assert_eq!(dedup.is_some(), sent.dedup, "{id} and its deduplication");
        match dedup {
            Some(key) => {
                let known = self.dedup.insert(key.0, (self.time_ms, places.to_vec()));
                assert!(!self.counts(known.as_ref()), "{id} was stored twice within the window");
            }
            None => {
                let again = sent.of.as_ref().is_some_and(|of| context.sents[of].dedup);
                assert!(again || !self.stored.contains_key(id), "{id} was stored twice");
                if sent.of.is_none() {
                    self.check_order(id, sent, context);
                }
            }
        }
        let synced = |id: &QueueId| {
            let of = context.definitions.iter().find(|definition| definition.id == *id);
            of.is_some_and(|definition| definition.durability == Durability::Synced)
        };
        let synced = places_of.iter().any(synced);
        let storing = Storing { places: places.to_vec(), sequence: self.sequence, synced };
        self.stored.entry(id.to_owned()).or_default().push(storing);
    }

    /// A message and what inline routes made of it are in one commit.
    fn check_together(&self, id: &str, sent: &Sent, context: &Context<'_>) {
        let others = sent.outputs.iter().chain(&sent.of);
        let missing =
            |other: &&String| !context.bound(&context.sents[*other]).is_empty() && !context.ids.contains(*other);
        let missing: Vec<&String> = others.filter(missing).collect();
        assert!(missing.is_empty(), "{id} was stored without {missing:?}");
    }

    fn check_order(&mut self, id: &str, sent: &Sent, context: &Context<'_>) {
        if let Some((name, epoch, sequence)) = &sent.named {
            assert_eq!(context.epochs.get(name), Some(epoch), "{id} of {name} is of another epoch");
            let run = &self.runs[name];
            let again = run.refused.contains(sequence);
            assert!(*sequence > run.sequence || again, "{id} of {name}: sequence {sequence} was there before");
        } else if sent.parent.is_none() {
            let (source, index) = sent.source;
            let last = self.order.insert(source, index);
            assert!(last.is_none_or(|last| last < index), "{id} overtook another of its publisher");
        }
    }

    fn check_letter(&self, message: &Message, places: &[(QueueId, Offset)], context: &Context<'_>) {
        let header = |name: &str| message.headers.first(name).unwrap_or_else(|| panic!("a letter without {name}"));
        let (queue, reader) = (header("quipu-dead-queue"), header("quipu-dead-subscription"));
        let offset: u64 = header("quipu-dead-offset").parse().expect("an offset");
        let attempts: u32 = header("quipu-dead-attempts").parse().expect("a number");
        assert!(!header("quipu-dead-reason").is_empty() && places.len() == 1);
        let (_, queue) = self.named(queue).expect("the queue of a dead letter");
        let (id, reader) = queue.readers.iter().find(|(_, r)| r.name == reader).expect("its subscription");
        if queue.is_in_memory() {
            return;
        }
        assert_eq!(context.settled.get(&(*id, offset)), Some(&Outcome::DeadLettered), "a letter of what lives on");
        let kept = queue.messages.get(&offset).expect("the message that died");
        let dead = Message::decode(kept.header.clone(), kept.payload.clone()).expect("a sound header");
        assert_eq!(dead.subject.as_str(), header("quipu-dead-subject"), "a letter's subject");
        let same = dead.id == message.id && dead.key == message.key && dead.payload == message.payload;
        assert!(same, "a letter differs from what died");
        assert_eq!(attempts, reader.attempts.get(&offset).copied().unwrap_or(0) + 1, "a letter's attempts");
    }

    /// No queue holds more than it may, but for one, and for dead letters.
    fn check_limits(&self, context: &Context<'_>) {
        for (id, (limited, free)) in &context.appended {
            let Some(definition) = context.definitions.iter().find(|definition| definition.id == *id) else { continue };
            let held = self.queues[id].messages.len() as u64;
            if let Some(most) = definition.limits.messages.filter(|_| *limited) {
                assert!(held <= most.max(1) + 1 + free, "{} holds {held} messages of {most}", definition.name);
            }
        }
    }

    fn redrive(&mut self, header: &Bytes, payload: Bytes, (queue, offset): (QueueId, u64), to: SubscriptionId) {
        let message = Message::decode(header.clone(), payload.clone()).expect("a stored header is sound");
        assert!(message.headers.iter().all(|(name, _)| !name.starts_with("quipu-dead-")), "it still says it is dead");
        let kept = Arc::new(Kept { header: header.clone(), payload, sequence: self.sequence });
        let queue = self.queue_mut(queue);
        assert_eq!(queue.append(kept), offset, "an offset was left out in {}", queue.definition.name);
        let reader = queue.readers.get_mut(&to).expect("who gave it up");
        reader.counts.redriven += 1;
        reader.pending.insert(offset);
    }

    fn settle(&mut self, id: SubscriptionId, offset: u64, outcome: Outcome) -> (QueueId, u64) {
        let reader = self.reader_mut(id);
        assert!(reader.forget(offset), "{offset} of {} was settled twice", reader.name);
        *match outcome {
            Outcome::Acked => &mut reader.counts.acked,
            Outcome::Filtered => &mut reader.counts.filtered,
            Outcome::Dropped => &mut reader.counts.dropped,
            Outcome::DeadLettered => &mut reader.counts.dead_lettered,
        } += 1;
        let queue = self.reader(id).map_or(QueueId(u32::MAX), |(queue, ..)| queue);
        (queue, self.queue_mut(queue).release(offset))
    }

    fn trim(&mut self, id: QueueId, below: u64) {
        let queue = self.queue_mut(id);
        queue.messages = queue.messages.split_off(&below);
        for reader in queue.readers.values_mut() {
            for offset in reader.pending.range(..below).copied().collect::<Vec<_>>() {
                reader.forget(offset);
                reader.counts.evicted += 1;
            }
            reader.isolated = reader.isolated.filter(|isolated| *isolated >= below);
        }
    }

    /// Only by a rule that says so, and no more than it says.
    fn check_trimmed(&self, id: QueueId, released: u64) {
        let queue = &self.queues[&id];
        let definition = &queue.definition;
        let drops = definition.limits.on_full == OnFull::DropOldest;
        assert!(drops || queue.is_log(), "{} was trimmed", definition.name);
        let (by_age, retained) = match definition.retention {
            Retention::Log { age_ms, bytes, messages } => (age_ms.is_some() || bytes.is_some(), messages),
            Retention::Work => (false, None),
        };
        if !by_age && definition.limits.bytes.is_none() {
            let limit = definition.limits.messages.filter(|_| drops);
            let most = retained.into_iter().chain(limit).min().unwrap_or(0);
            let held = queue.messages.len() as u64 + released;
            assert!(held >= most, "{} was trimmed to {held} of {most}", definition.name);
        }
    }

    fn remove(&mut self, id: QueueId, offset: u64) {
        let queue = self.queue_mut(id);
        assert!(queue.messages.remove(&offset).is_some(), "{offset} of {} went twice", queue.definition.name);
        for reader in queue.readers.values_mut() {
            reader.counts.purged += u64::from(reader.forget(offset));
        }
    }

    /// A new life.
    pub(super) fn opened(&mut self, clean: bool, now_ms: u64) {
        self.time_ms = self.time_ms.max(now_ms);
        self.expire(self.time_ms);
        let mut alone = Vec::new();
        for (id, queue) in &mut self.queues {
            if queue.is_in_memory() {
                queue.messages.clear();
                for reader in queue.readers.values_mut() {
                    reader.pending.clear();
                    (reader.delivered_through, reader.isolated, reader.counts) = (0, None, Counts::default());
                }
                continue;
            }
            for (subscription, reader) in &mut queue.readers {
                if clean {
                    reader.isolated = None;
                    continue;
                }
                for offset in reader.pending.range(..reader.delivered_through) {
                    *reader.crashes.entry(*offset).or_default() += 1;
                }
                alone.extend(reader.isolated.map(|offset| (*id, *subscription, offset)));
            }
        }
        alone.into_iter().for_each(|(queue, subscription, offset)| self.give_up(queue, subscription, offset));
    }

    fn give_up(&mut self, id: QueueId, subscription: SubscriptionId, offset: u64) {
        let queue = &self.queues[&id];
        let Some(to) = queue.definition.dead_letter.clone() else { return };
        let reader = &queue.readers[&subscription];
        // It went before it was handed out alone.
        let Some(kept) = queue.messages.get(&offset).filter(|_| reader.pending.contains(&offset)) else { return };
        let mut message = Message::decode(kept.header.clone(), kept.payload.clone()).expect("a sound header");
        let crashes = reader.crashes.get(&offset).copied().unwrap_or(0);
        let attempts = reader.attempts.get(&offset).copied().unwrap_or(0) + 1;
        let subject = message.subject.to_string();
        for (name, value) in [
            ("quipu-dead-queue", queue.definition.name.clone()),
            ("quipu-dead-subscription", reader.name.clone()),
            ("quipu-dead-subject", subject),
            ("quipu-dead-offset", offset.to_string()),
            ("quipu-dead-attempts", attempts.to_string()),
            (
                "quipu-dead-reason",
                format!("the router stopped uncleanly {crashes} times with this message in hand, the last time alone"),
            ),
        ] {
            message.headers.set(name, &value).expect("room for it");
        }
        let (header, payload) = (message.encode_header(), kept.payload.clone());
        let letters = self.named(&to).map(|(id, _)| id).unwrap_or_else(|| {
            let id = QueueId(self.queue_next);
            self.define(&QueueSettings::for_dead_letters(Subject::new(&to).expect("a subject")).define(id));
            id
        });
        let kept = Arc::new(Kept { header, payload, sequence: self.sequence });
        let queue = self.queue_mut(letters);
        let at = queue.append(kept);
        for reader in queue.readers.values_mut() {
            reader.counts.entered += 1;
            reader.pending.insert(at);
        }
        self.settle(subscription, offset, Outcome::DeadLettered);
    }
}

/// Patterns here are whole subjects, or end with a token that stands for any one.
pub(super) fn takes(definition: &QueueDefinition, subject: &Subject) -> bool {
    let matches = |pattern: &str| match pattern.strip_suffix('*') {
        Some(start) => subject.as_str().strip_prefix(start).is_some_and(|rest| !rest.contains('.')),
        None => pattern == subject.as_str(),
    };
    definition.name == subject.as_str() || definition.subjects.iter().any(|pattern| matches(pattern.as_str()))
}
