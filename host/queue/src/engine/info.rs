//! What listings say.

use super::Engine;
use crate::commit::{Retention, SubscriptionId};
use crate::delivery::Delivery as Deliverer;
use crate::state::{Queue, Subscription};
use crate::store::{QueueInfo, StoreInfo, SubscriptionInfo};

impl Engine {
    pub(super) fn describe(&self) -> StoreInfo {
        let mut queues: Vec<QueueInfo> = self.state.queues.values().map(|queue| self.describe_queue(queue)).collect();
        queues.sort_by(|a, b| a.name.cmp(&b.name));
        StoreInfo {
            queues,
            failed: self.failed.as_ref().map(|failed| failed.0.to_string()),
            checkpoint_failed: self.checkpoint_failed.clone(),
            refuses_publishes: self.refuses_publishes(),
            journal_used_bytes: self.pace.used(),
            state_file_bytes: self.file_bytes,
            memory_bytes: self.state.tail_bytes as u64,
            dedup_ids: (self.state.dedup.ids() + self.state.dedup_volatile.ids()) as u64,
            dedup_bytes: (self.state.dedup.bytes() + self.state.dedup_volatile.bytes()) as u64,
            records: self.state.records.count() as u64,
            records_bytes: self.state.records.bytes() as u64,
            blocked_publishers: self.blocked.sources() as u64,
        }
    }

    fn describe_queue(&self, queue: &Queue) -> QueueInfo {
        let definition = &queue.definition;
        QueueInfo {
            name: definition.name.clone(),
            subjects: definition.subjects.iter().map(ToString::to_string).collect(),
            durability: definition.durability.as_str(),
            retention: definition.retention.as_str(),
            messages: queue.live,
            bytes: queue.live_bytes,
            messages_max: definition.limits.messages,
            bytes_max: definition.limits.bytes,
            on_full: definition.limits.on_full.as_str(),
            retention_age_ms: if let Retention::Log { age_ms, .. } = definition.retention { age_ms } else { None },
            first_offset: queue.next_live(queue.floor()).0,
            next_offset: queue.next.0,
            attempts_max: definition.attempts_max,
            ack_deadline_ms: definition.ack_deadline_ms,
            in_flight_max: definition.in_flight_max,
            dead_letter: definition.dead_letter.clone(),
            pinned_by: self.pinned_by(queue),
            subscriptions: queue
                .subscriptions
                .iter()
                .map(|(id, s)| self.describe_subscription(queue, *id, s))
                .collect(),
        }
    }

    /// Who still needs the oldest message.
    fn pinned_by(&self, queue: &Queue) -> Option<String> {
        let oldest = queue.next_live(queue.floor());
        let mut pins = queue.subscriptions.values().filter(|s| oldest < queue.next && !s.settled.contains(oldest));
        pins.next().filter(|_| !queue.is_log()).map(|s| s.name.clone())
    }

    fn describe_subscription(&self, queue: &Queue, id: SubscriptionId, known: &Subscription) -> SubscriptionInfo {
        let delivery = self.deliveries.get(&id);
        let in_flight = delivery.map_or(0, |d| d.in_flight() as u64);
        let parked = delivery.map_or(0, |d| d.parked() as u64);
        SubscriptionInfo {
            name: known.name.clone(),
            mode: known.mode.as_str(),
            paused: known.paused,
            floor: known.settled.floor().0,
            consumers: delivery.map_or(0, Deliverer::consumers),
            waiting: known.outstanding(queue.next).saturating_sub(in_flight + parked),
            in_flight,
            parked,
            counts: known.counts,
        }
    }
}
