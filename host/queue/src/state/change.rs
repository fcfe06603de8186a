//! What operators do to queues and subscriptions: remove, seek and purge.

use super::queue::Subscription;
use super::{ApplyError, Queue, State, mismatch};
use crate::commit::{Offset, QueueId, SubscriptionId};
use crate::offsets::OffsetSet;

impl State {
    pub(super) fn remove_subscription(&mut self, id: SubscriptionId) -> Result<(), ApplyError> {
        let unknown = || mismatch(format!("no subscription {id:?}"));
        let queue = self.subscriptions.remove(&id).ok_or_else(unknown)?;
        self.tail_bytes -= self.queue_mut(queue)?.unsubscribe(id);
        Ok(())
    }

    pub(super) fn remove_queue(&mut self, id: QueueId) -> Result<(), ApplyError> {
        let queue = self.queues.remove(&id).ok_or_else(|| mismatch(format!("no queue {id:?}")))?;
        self.dirty.insert(id);
        self.bindings.clear();
        self.names.remove(&queue.definition.name);
        self.logs.remove(&id);
        self.subscriptions.retain(|_, of| *of != id);
        self.tail_bytes -= queue.tail_bytes();
        Ok(())
    }

    pub(super) fn seek(&mut self, id: SubscriptionId, floor: Offset) -> Result<(), ApplyError> {
        let unknown = || mismatch(format!("no subscription {id:?}"));
        let queue = *self.subscriptions.get(&id).ok_or_else(unknown)?;
        self.tail_bytes -= self.queue_mut(queue)?.seek(id, floor);
        Ok(())
    }
}

impl Queue {
    /// Takes a subscription away. The last one of a work queue leaves what it had not settled to whoever comes next. The
    /// bytes of memory that this frees.
    pub(super) fn unsubscribe(&mut self, id: SubscriptionId) -> usize {
        let Some(gone) = self.subscriptions.remove(&id) else { return 0 };
        if self.is_log() {
            return 0;
        }
        if self.subscriptions.is_empty() {
            // What it had settled was let go of, and stays so.
            self.removed.insert_below(gone.settled.floor());
            for offset in gone.settled.above_floor() {
                self.removed.insert(offset);
            }
            return 0;
        }
        self.release_of(&gone.settled, self.next)
    }

    /// Puts a subscription elsewhere; the bytes of memory that this frees.
    pub(super) fn seek(&mut self, id: SubscriptionId, floor: Offset) -> usize {
        let next = self.next;
        let settled = self.gone_from(floor.min(next));
        let Some(known) = self.subscriptions.get_mut(&id) else { return 0 };
        let floor = settled.floor();
        let before = std::mem::replace(&mut known.settled, settled);
        known.counts.sought_past += before.count_absent(before.floor(), floor.min(next));
        let (now, then) = (known.settled.count_absent(floor, next), before.count_absent(floor, next));
        known.counts.sought_back += now.saturating_sub(then);
        known.begin_anew();
        if self.is_log() { 0 } else { self.release_of(&before, floor) }
    }

    /// Lets go of all below, because somebody said so; the bytes of memory that this frees.
    pub(super) fn purge(&mut self, below: Offset) -> usize {
        let below = below.min(self.next);
        let freed = self.let_go_below(below);
        self.removed.insert_below(below);
        self.times.forget_below(below);
        for subscription in self.subscriptions.values_mut() {
            subscription.counts.purged += subscription.forget_below(below);
        }
        freed
    }

    /// Lets go of what only one subscription still needed, which had settled this much of what is below an offset.
    fn release_of(&mut self, settled: &OffsetSet, below: Offset) -> usize {
        let mut freed = 0;
        let mut offset = settled.next_absent(settled.floor());
        while offset < below.min(self.next) {
            if !self.removed.contains(offset) && !self.is_live(offset) {
                freed += self.let_go(offset);
            }
            offset = settled.next_absent(offset.next());
        }
        freed
    }
}

impl Subscription {
    /// Nothing was handed out yet of what it is to get.
    fn begin_anew(&mut self) {
        self.marks.clear();
        self.delivered_through = self.settled.floor();
        self.returned_below = Offset::default();
        self.isolated = None;
    }
}
