//! What operators change.

use bytes::Bytes;

use super::{Context, Model, Places, WINDOW_MS};
use crate::commit::{DedupKey, Operation, QueueId, SubscriptionId};

impl Model {
    pub(super) fn change(&mut self, operation: &Operation, context: &mut Context<'_>) {
        match operation {
            Operation::Record { key, value } => match value {
                Some(value) => drop(self.records.insert(key.clone(), value.clone())),
                None => drop(self.records.remove(key)),
            },
            Operation::RemoveSubscription { id } => self.unsubscribe(*id),
            Operation::RemoveQueue { id } => {
                context.trimmed.remove(id);
                assert!(self.queues.remove(id).is_some(), "queue {id:?} was removed twice");
            }
            Operation::Pause { subscription, paused } => {
                let reader = self.reader_mut(*subscription);
                assert_ne!(reader.paused, *paused, "a subscription is paused twice");
                reader.paused = *paused;
            }
            Operation::Share { subscription, mode } => {
                let reader = self.reader_mut(*subscription);
                assert_ne!(reader.mode, *mode, "a subscription is given the mode that it has");
                (reader.mode, reader.isolated) = (*mode, None);
            }
            Operation::Seek { subscription, floor } => self.seek(*subscription, floor.0),
            Operation::Purge { queue, below } => self.purge(*queue, below.0),
            other => panic!("{other:?} is no change"),
        }
    }

    fn unsubscribe(&mut self, id: SubscriptionId) {
        let (queue, ..) = self.reader(id).expect("the subscription that is removed");
        let queue = self.queue_mut(queue);
        let Some(gone) = queue.readers.remove(&id) else { return };
        // The last one of a work queue leaves what it had not settled.
        if !queue.readers.is_empty() {
            for offset in &gone.pending {
                queue.release(*offset);
            }
        }
    }

    fn seek(&mut self, id: SubscriptionId, floor: u64) {
        let (queue, ..) = self.reader(id).expect("the subscription that is sought");
        let queue = self.queue_mut(queue);
        let there = queue.messages.range(floor..).map(|(offset, _)| *offset).collect();
        let next = queue.next;
        let Some(reader) = queue.readers.get_mut(&id) else { return };
        let before = std::mem::replace(&mut reader.pending, there);
        reader.counts.sought_back += reader.pending.difference(&before).count() as u64;
        reader.counts.sought_past += before.difference(&reader.pending).count() as u64;
        reader.attempts.clear();
        reader.crashes.clear();
        // What is gone in front of the first message counts as settled.
        reader.delivered_through = reader.pending.first().copied().unwrap_or(next);
        reader.isolated = None;
        for offset in &before {
            queue.release(*offset);
        }
    }

    fn purge(&mut self, id: QueueId, below: u64) {
        let queue = self.queue_mut(id);
        assert_eq!(below, queue.next, "{} is purged in part", queue.definition.name);
        queue.messages.clear();
        for reader in queue.readers.values_mut() {
            let pending = std::mem::take(&mut reader.pending);
            reader.counts.purged += pending.len() as u64;
            reader.attempts.clear();
            reader.crashes.clear();
            reader.isolated = None;
        }
    }

    /// The id of a message that is nowhere itself.
    pub(super) fn remember(&mut self, header: &Bytes, dedup: Option<DedupKey>) {
        assert!(header.is_empty(), "a message is stored nowhere");
        let key = dedup.expect("an id to be remembered");
        let known = self.dedup.insert(key.0, (self.time_ms, Vec::new()));
        assert!(!self.counts(known.as_ref()), "an id was taken twice within the window");
    }

    /// Whether an id that was there is remembered: not where all that it went to is removed.
    pub(super) fn counts(&self, known: Option<&(u64, Places)>) -> bool {
        known.is_some_and(|(_, places)| places.is_empty() || places.iter().any(|(id, _)| self.queues.contains_key(id)))
    }

    /// Whether a message with this id is a duplicate at this time.
    pub(in crate::simulation) fn remembers(&self, key: DedupKey, now_ms: u64) -> bool {
        let known = self.dedup.get(&key.0).filter(|(then_ms, _)| *then_ms + WINDOW_MS > now_ms.max(self.time_ms));
        self.counts(known)
    }
}
