//! Publishes that wait: for room in a queue whose publishers wait, or for room in the dedup window. Each publisher's stay
//! in order, and those of others go on. Bounded by the credit of the publishers.

use std::collections::{BTreeMap, VecDeque};

use crate::commit::QueueId;
use crate::request::Gathered;

#[derive(Default)]
pub(crate) struct Blocked {
    by_source: BTreeMap<u64, Waiting>,
    /// Counts those that began to wait.
    begun: u64,
    window: VecDeque<Gathered>,
}

struct Waiting {
    /// Who waits longest goes first.
    since: u64,
    queue: QueueId,
    publishes: VecDeque<Gathered>,
}

impl Blocked {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_source.is_empty() && self.window.is_empty()
    }

    /// Publishers that wait for room in a queue.
    pub(crate) fn sources(&self) -> usize {
        self.by_source.len()
    }

    pub(crate) fn window_waits(&self) -> bool {
        !self.window.is_empty()
    }

    pub(crate) fn wait_for_window(&mut self, publish: Gathered) {
        self.window.push_back(publish);
    }

    pub(crate) fn next_for_window(&mut self) -> Option<Gathered> {
        self.window.pop_front()
    }

    /// Whether something of this publisher waits for room in a queue.
    pub(crate) fn holds(&self, source: u64) -> bool {
        self.by_source.contains_key(&source)
    }

    pub(crate) fn push_back(&mut self, source: u64, publish: Gathered) {
        if let Some(waiting) = self.by_source.get_mut(&source) {
            waiting.publishes.push_back(publish);
        }
    }

    /// A publish found its queue full.
    pub(crate) fn push_front(&mut self, source: u64, queue: QueueId, publish: Gathered) {
        self.begun += 1;
        let since = self.begun;
        let begin = || Waiting { since, queue, publishes: VecDeque::new() };
        let waiting = self.by_source.entry(source).or_insert_with(begin);
        waiting.queue = queue;
        waiting.publishes.push_front(publish);
    }

    /// All of one publisher whose queue has room now.
    pub(crate) fn take_ready(&mut self, has_room: impl Fn(QueueId) -> bool) -> Option<VecDeque<Gathered>> {
        let ready = self.by_source.iter().filter(|(_, waiting)| has_room(waiting.queue));
        let source = *ready.min_by_key(|(_, waiting)| waiting.since)?.0;
        self.by_source.remove(&source).map(|waiting| waiting.publishes)
    }

    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = Gathered> + use<> {
        let sources = std::mem::take(&mut self.by_source).into_values().flat_map(|waiting| waiting.publishes);
        sources.chain(std::mem::take(&mut self.window))
    }
}
