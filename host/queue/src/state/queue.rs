//! One queue of the state: which messages are there, where they are, and what its subscriptions did with them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use quipu_protocol::{Subject, SubjectPattern};
use serde::{Deserialize, Serialize};

use super::chunks::Chunks;
use super::times::Times;
use crate::commit::{Durability, Mode, Offset, Outcome, QueueDefinition, Retention, Stored, SubscriptionId};
use crate::offsets::OffsetSet;

/// A tail of fewer slots is never called sparse.
const SPARSE_SLOTS_MIN: usize = 1 << 16;

/// One queue.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) name: Arc<str>,
    pub(crate) definition: QueueDefinition,
    own_subject: Option<SubjectPattern>,
    /// The offset of the next message.
    pub(crate) next: Offset,
    /// What is gone for every subscription there is and will be: trimmed, or removed by hand.
    pub(crate) removed: OffsetSet,
    /// Messages at `tail_first` and up; none where nobody needs it any more.
    tail: VecDeque<Option<Arc<Stored>>>,
    tail_first: Offset,
    /// Below this, what is live is in a checkpoint.
    pub(crate) stored_below: Offset,
    /// Where in the checkpoint.
    pub(crate) chunks: Chunks,
    /// When what was appended, of a log.
    pub(crate) times: Times,
    pub(crate) subscriptions: BTreeMap<SubscriptionId, Subscription>,
    /// Messages that are still needed.
    pub(crate) live: u64,
    /// Their bytes. Of those that only a checkpoint has, the average of their chunk.
    pub(crate) live_bytes: u64,
}

/// One subscription.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Subscription {
    pub(crate) name: String,
    pub(crate) mode: Mode,
    pub(crate) settled: OffsetSet,
    /// Of what is unsettled, where something went wrong with it.
    pub(crate) marks: BTreeMap<Offset, Mark>,
    /// Nothing at or above this was handed out.
    pub(crate) delivered_through: Offset,
    /// What is unsettled below this was perhaps in hand at a crash.
    pub(crate) returned_below: Offset,
    /// In hand with nothing else beside it, because it was there at several crashes.
    pub(crate) isolated: Option<Offset>,
    pub(crate) counts: Counts,
    /// It hands out nothing.
    pub(crate) paused: bool,
}

/// What went wrong with a message so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Attempts that failed.
    pub attempts: u32,
    /// Crashes of the router while it was perhaps in hand.
    pub crashes: u32,
}

/// How many messages a subscription saw, and what became of them: the ledger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each is named after its outcome")]
pub struct Counts {
    pub entered: u64,
    pub sought_back: u64,
    pub redriven: u64,
    pub acked: u64,
    pub filtered: u64,
    pub dropped: u64,
    pub dead_lettered: u64,
    pub expired: u64,
    pub evicted: u64,
    pub compacted: u64,
    pub purged: u64,
    pub sought_past: u64,
    /// Attempts that failed; a message may have several. Not a side of the ledger.
    pub failed_attempts: u64,
}

impl Counts {
    /// Messages that came: one side of the ledger.
    pub fn came(&self) -> u64 {
        self.entered + self.sought_back + self.redriven
    }

    /// Messages that are done with: the other side, but for those outstanding.
    pub fn gone(&self) -> u64 {
        let settled = self.acked + self.filtered + self.dropped + self.dead_lettered;
        settled + self.expired + self.evicted + self.compacted + self.purged + self.sought_past
    }

    fn of(&mut self, outcome: Outcome) -> &mut u64 {
        match outcome {
            Outcome::Acked => &mut self.acked,
            Outcome::Filtered => &mut self.filtered,
            Outcome::Dropped => &mut self.dropped,
            Outcome::DeadLettered => &mut self.dead_lettered,
        }
    }
}

impl Subscription {
    pub(crate) fn new(name: String, mode: Mode, settled: OffsetSet) -> Self {
        let nothing = Offset::default();
        Self {
            name,
            mode,
            settled,
            marks: BTreeMap::new(),
            delivered_through: nothing,
            returned_below: nothing,
            isolated: None,
            counts: Counts::default(),
            paused: false,
        }
    }

    /// Messages below `next` that it has not settled.
    pub(crate) fn outstanding(&self, next: Offset) -> u64 {
        self.settled.count_absent(self.settled.floor(), next)
    }

    /// Whether it had not settled this one before.
    fn settle(&mut self, offset: Offset) -> bool {
        self.marks.remove(&offset);
        if self.isolated == Some(offset) {
            self.isolated = None;
        }
        self.settled.insert(offset)
    }

    /// Its queue let go of all below: how many of those it had not settled.
    pub(super) fn forget_below(&mut self, below: Offset) -> u64 {
        self.marks = self.marks.split_off(&below);
        self.isolated = self.isolated.filter(|offset| *offset >= below);
        self.settled.insert_below(below)
    }

    pub(crate) fn attempt(&mut self, offset: Offset, attempts: u32) {
        self.counts.failed_attempts += 1;
        self.marks.entry(offset).or_default().attempts = attempts;
        if self.isolated == Some(offset) {
            self.isolated = None;
        }
    }

    /// Whatever was perhaps in hand counts one crash more.
    fn crashed(&mut self, next: Offset) {
        let through = self.delivered_through.min(next);
        self.returned_below = self.returned_below.max(through);
        let mut offset = self.settled.next_absent(self.settled.floor());
        while offset < through {
            self.marks.entry(offset).or_default().crashes += 1;
            offset = self.settled.next_absent(offset.next());
        }
    }
}

impl Queue {
    pub(crate) fn new(definition: QueueDefinition) -> Self {
        Self {
            own_subject: SubjectPattern::new(&definition.name).ok(),
            name: definition.name.as_str().into(),
            definition,
            next: Offset(0),
            removed: OffsetSet::default(),
            tail: VecDeque::new(),
            tail_first: Offset(0),
            stored_below: Offset(0),
            chunks: Chunks::default(),
            times: Times::default(),
            subscriptions: BTreeMap::new(),
            live: 0,
            live_bytes: 0,
        }
    }

    /// Everything up to `next` is in a checkpoint, and nothing in memory.
    pub(crate) fn begin_at(&mut self, next: Offset) {
        (self.next, self.tail_first, self.stored_below) = (next, next, next);
    }

    pub(crate) fn takes(&self, subject: &Subject) -> bool {
        self.own_subject.iter().chain(&self.definition.subjects).any(|pattern| pattern.matches(subject))
    }

    pub(crate) fn is_in_memory_alone(&self) -> bool {
        self.definition.durability == Durability::Memory
    }

    pub(crate) fn is_limited(&self) -> bool {
        self.definition.limits.messages.is_some() || self.definition.limits.bytes.is_some()
    }

    pub(crate) fn is_log(&self) -> bool {
        matches!(self.definition.retention, Retention::Log { .. })
    }

    /// Hardly anything but empty slots, which one message in front keeps.
    pub(crate) fn is_sparse(&self) -> bool {
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

    /// Below this, nothing is needed any more.
    pub(crate) fn floor(&self) -> Offset {
        let settled = self.subscriptions.values().map(|s| s.settled.floor()).min();
        let settled = settled.filter(|_| !self.is_log()).unwrap_or_default();
        settled.max(self.removed.floor())
    }

    /// Whether the message is still needed. A log keeps all that it does not trim; so does a queue without subscriptions.
    pub(crate) fn is_live(&self, offset: Offset) -> bool {
        let wanted = || self.subscriptions.values().any(|s| !s.settled.contains(offset));
        offset < self.next
            && !self.removed.contains(offset)
            && (self.is_log() || self.subscriptions.is_empty() || wanted())
    }

    /// The first live message at or after this one; `next` where there is none.
    pub(crate) fn next_live(&self, from: Offset) -> Offset {
        let from = from.max(self.floor());
        let kept = self.is_log() || self.subscriptions.is_empty();
        let mut offset = from;
        while offset < self.next {
            let not_removed = self.removed.next_absent(offset);
            let wanted = || self.subscriptions.values().map(|s| s.settled.next_absent(not_removed)).min();
            let at = if kept { not_removed } else { wanted().unwrap_or(not_removed) };
            if at == offset || !self.removed.contains(at) {
                return at.min(self.next);
            }
            offset = at;
        }
        self.next
    }

    /// Live messages in memory from an offset up.
    pub(crate) fn live_from(&self, from: Offset) -> impl Iterator<Item = (Offset, &Arc<Stored>)> {
        let skipped = usize::try_from(from.0.saturating_sub(self.tail_first.0)).unwrap_or(usize::MAX);
        let slots = self.tail.iter().zip(self.tail_first.0..).skip(skipped);
        slots.filter_map(|(slot, offset)| slot.as_ref().map(|stored| (Offset(offset), stored)))
    }

    /// The last live message before this one; none where there is none.
    pub(crate) fn previous_live(&self, before: Offset) -> Option<Offset> {
        let kept = self.is_log() || self.subscriptions.is_empty();
        let mut before = before.min(self.next);
        loop {
            let not_removed = self.removed.previous_absent(before)?;
            let wanted =
                || self.subscriptions.values().filter_map(|s| s.settled.previous_absent(not_removed.next())).max();
            let at = if kept { not_removed } else { wanted()? };
            if !self.removed.contains(at) {
                return Some(at);
            }
            before = at;
        }
    }

    /// Bytes of messages in memory.
    pub(crate) fn tail_bytes(&self) -> usize {
        self.tail.iter().flatten().map(|stored| stored.size()).sum()
    }

    /// Live messages within a chunk's offsets, and their bytes where memory has them.
    pub(crate) fn live_within(&self, first: Offset, last: Offset) -> (u64, u64) {
        let (mut count, mut bytes) = (0, 0);
        let mut offset = self.next_live(first);
        while offset <= last && offset < self.next {
            count += 1;
            bytes += self.in_memory(offset).map_or(0, |stored| stored.size() as u64);
            offset = self.next_live(offset.next());
        }
        (count, bytes)
    }

    /// Bytes of a live message. Of one that only a checkpoint has, the average of its chunk.
    pub(crate) fn size_of(&self, offset: Offset) -> u64 {
        self.in_memory(offset).map_or_else(|| self.chunks.size_of(offset), |stored| stored.size() as u64)
    }

    /// Everything appended before this time, as far as that is known: at most this offset, or a little less.
    pub(crate) fn known_before(&self, ms: u64) -> Offset {
        self.times.known_before(ms, self.next, &self.definition.retention)
    }

    pub(crate) fn append(&mut self, stored: &Arc<Stored>, time_ms: u64) {
        self.times.note(time_ms, self.next, &self.definition.retention);
        self.next = self.next.next();
        self.live += 1;
        self.live_bytes += stored.size() as u64;
        self.tail.push_back(Some(stored.clone()));
    }

    /// It is defined otherwise from now on.
    pub(crate) fn redefine(&mut self, definition: QueueDefinition, time_ms: u64) {
        // Entries of a log's times keep the steps of their retention: whatever came before is older than this one.
        self.times.note(time_ms, self.next, &definition.retention);
        self.definition = definition;
    }

    /// Everything below an offset, and what is not there any more from there on: what all have settled is gone, and a
    /// newcomer cannot get it.
    pub(super) fn gone_from(&self, floor: Offset) -> OffsetSet {
        let mut gone = self.removed.clone();
        if !self.is_log() && !self.subscriptions.is_empty() {
            gone.insert_all(&OffsetSet::common(self.subscriptions.values().map(|s| &s.settled)));
        }
        gone.insert_below(floor);
        gone
    }

    /// Makes a subscription; the bytes of memory that this frees.
    pub(crate) fn subscribe(&mut self, id: SubscriptionId, name: String, mode: Mode, floor: Offset) -> usize {
        let settled = self.gone_from(floor);
        // Nobody wants what is below the floor of the only subscription.
        let is_first = !self.is_log() && self.subscriptions.is_empty();
        let freed = if is_first { self.let_go_below(floor) } else { 0 };
        let mut subscription = Subscription::new(name, mode, settled);
        subscription.counts.entered = subscription.outstanding(self.next);
        self.subscriptions.insert(id, subscription);
        freed
    }

    /// Whether the subscription had not settled it before, and the bytes of memory that this frees.
    pub(crate) fn settle(&mut self, id: SubscriptionId, offset: Offset, outcome: Outcome) -> Option<usize> {
        let subscription = self.subscriptions.get_mut(&id)?;
        if !subscription.settle(offset) {
            return None;
        }
        *subscription.counts.of(outcome) += 1;
        Some(if self.is_live(offset) { 0 } else { self.let_go(offset) })
    }

    /// Lets go of all below, settled or not; the bytes of memory that this frees.
    pub(crate) fn trim(&mut self, below: Offset) -> usize {
        let below = below.min(self.next);
        let freed = self.let_go_below(below);
        self.removed.insert_below(below);
        self.times.forget_below(below);
        self.subscriptions.values_mut().for_each(|s| s.counts.evicted += s.forget_below(below));
        freed
    }

    /// Lets go of one message, settled or not; the bytes of memory that this frees.
    pub(crate) fn remove(&mut self, offset: Offset) -> usize {
        let freed = if self.is_live(offset) { self.let_go(offset) } else { 0 };
        self.removed.insert(offset);
        for subscription in self.subscriptions.values_mut() {
            subscription.counts.purged += u64::from(subscription.settle(offset));
        }
        freed
    }

    /// A new life: what was in memory alone is gone, and what was perhaps in hand counts one crash more. Offsets of
    /// messages that are in memory alone go on beyond any that there was.
    pub(crate) fn opened(&mut self, clean: bool, time_ms: u64) {
        if self.is_in_memory_alone() {
            let next = Offset(time_ms / 1_000 * (1 << 20)).max(self.next);
            self.begin_at(next);
            (self.live, self.live_bytes, self.removed) = (0, 0, OffsetSet::below(next));
            for known in self.subscriptions.values_mut() {
                let (name, paused) = (std::mem::take(&mut known.name), known.paused);
                *known = Subscription { paused, ..Subscription::new(name, known.mode, OffsetSet::below(next)) };
            }
        } else if !clean {
            let next = self.next;
            self.subscriptions.values_mut().for_each(|s| s.crashed(next));
        } else {
            self.subscriptions.values_mut().for_each(|s| s.isolated = None);
        }
    }

    /// Takes the oldest slot out of memory; its bytes.
    pub(crate) fn evict_one(&mut self) -> Option<usize> {
        if self.tail_first >= self.stored_below {
            return None;
        }
        let slot = self.tail.pop_front()?;
        self.tail_first = self.tail_first.next();
        Some(slot.map_or(0, |stored| stored.size()))
    }

    pub(super) fn let_go_below(&mut self, below: Offset) -> usize {
        let mut freed = 0;
        let mut offset = self.next_live(Offset(0));
        while offset < below.min(self.next) {
            freed += self.let_go(offset);
            offset = self.next_live(offset.next());
        }
        freed
    }

    /// A live message that nobody needs any more; the bytes of memory that this frees.
    pub(super) fn let_go(&mut self, offset: Offset) -> usize {
        let at = offset.0.checked_sub(self.tail_first.0).and_then(|at| usize::try_from(at).ok());
        let slot = at.and_then(|at| self.tail.get_mut(at)).and_then(Option::take);
        while matches!(self.tail.front(), Some(None)) {
            self.tail.pop_front();
            self.tail_first = self.tail_first.next();
        }
        let in_memory = slot.map(|stored| stored.size());
        let bytes = self.chunks.release(offset, in_memory.map(|bytes| bytes as u64));
        self.live -= 1;
        self.live_bytes = self.live_bytes.saturating_sub(bytes);
        in_memory.unwrap_or(0)
    }
}
