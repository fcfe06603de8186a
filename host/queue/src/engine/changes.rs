//! What operators change, as consumers see it; and what is only looked at.

use super::{Engine, Now};
use crate::commit::{DedupKey, Offset, QueueId, SubscriptionId};
use crate::delivery::{ConsumerId, Event};
use crate::plan::{Changed, SettleError};
use crate::request::{Begun, Gathered, Positions, Reply, Subscribe};
use crate::store::{Notice, NoticeKind, Page, PageFrom, SubscribeError};

impl Engine {
    pub(super) fn define_subscription(&mut self, subscribe: Subscribe, reply: Reply<Result<bool, SubscribeError>>) {
        let Some(known) = self.state.queue_named(&subscribe.queue) else {
            return reply.give(Err(SubscribeError::UnknownQueue(subscribe.queue)));
        };
        match known.subscription_named(&subscribe.name) {
            Some((id, _)) => reply.give(self.check_mode(id, &subscribe).map(|()| false)),
            None => self.gather(Gathered::DefineSubscription { subscribe, reply }),
        }
    }

    /// A change is durable: whom it is about hears of it.
    pub(super) fn changed(&mut self, now: Now, changed: &Changed) {
        match changed {
            Changed::Nothing | Changed::Records | Changed::Purged(_) => {}
            Changed::Removed(ids) => ids.iter().for_each(|id| self.end_delivery(*id)),
            Changed::Paused(id, paused) => {
                self.set_terms();
                match paused {
                    true => self.notify(*id, NoticeKind::Paused, "the subscription is paused"),
                    false => self.notify(*id, NoticeKind::Resumed, "the subscription goes on"),
                }
            }
            Changed::Shared(id, mode, floor) => {
                self.fence(*id);
                self.handle(now, *id, Event::Shared(*mode, *floor));
                let text = format!("the subscription is {} from now on", mode.as_str());
                self.notify(*id, NoticeKind::Moved, &text);
            }
            Changed::Sought(id, floor) => {
                self.fence(*id);
                self.handle(now, *id, Event::Sought(*floor));
                self.notify(*id, NoticeKind::Moved, &format!("the subscription goes on at offset {floor}"));
            }
        }
    }

    /// Settlements that began before and are not planned yet are stale.
    fn fence(&mut self, id: SubscriptionId) {
        self.gathered.retain(|request| match request {
            Gathered::Expire { settler, .. } => settler.subscription != id,
            // Of what was to be handed out before; it would mark as handed out what nobody was given yet.
            Gathered::Deliverable { subscription, .. } | Gathered::Isolate { subscription, .. } => *subscription != id,
            _ => true,
        });
        for request in &mut self.gathered {
            if let Gathered::Settle { subscription: Some(subscription), items, .. } = request
                && *subscription == id
            {
                let stale = |begun| match begun {
                    Begun::Done(done) => Begun::Done(done),
                    Begun::One(_) | Begun::Through(_) => Begun::Done(Err(SettleError::Stale)),
                };
                let fenced: Vec<_> = std::mem::take(items).map(|(settle, begun)| (settle, stale(begun))).collect();
                *items = fenced.into_iter();
            }
        }
    }

    /// The subscription is no more, and its consumers with it.
    fn end_delivery(&mut self, id: SubscriptionId) {
        self.deliveries.remove(&id);
        self.active.remove(&id);
        self.waiting.remove(&id);
        self.notify(id, NoticeKind::Deleted, "the subscription or its queue is removed");
        self.consumers.retain(|_, reader| reader.subscription != id);
    }

    fn notify(&mut self, id: SubscriptionId, kind: NoticeKind, text: &str) {
        let mut told: Vec<ConsumerId> = self
            .consumers
            .iter()
            .filter(|(_, reader)| reader.subscription == id)
            .map(|(consumer, _)| *consumer)
            .collect();
        told.sort_unstable();
        for consumer in told {
            if let Some(reader) = self.consumers.get_mut(&consumer) {
                (reader.sink.notice)(Notice { kind, text: text.to_owned() });
            }
        }
    }

    pub(super) fn records(&self, prefix: &str) -> Vec<(String, bytes::Bytes)> {
        self.state.records.with_prefix(prefix).map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    pub(super) fn known(&mut self, now: Now, ids: &[DedupKey]) -> Vec<Option<Positions>> {
        self.state.expire_window(now.ms);
        let known = |key: &DedupKey| Some(self.positions(&self.state.remembered(*key)?));
        ids.iter().map(known).collect()
    }

    fn positions(&self, places: &[(QueueId, Offset)]) -> Positions {
        let name = |id| self.state.queues.get(id).map(|queue| queue.name.clone());
        places.iter().filter_map(|(id, offset)| Some((name(id)?, *offset))).collect()
    }

    /// Messages of a queue, ascending from an offset or descending before one; none where there is no such queue.
    pub(super) fn page(&self, queue: &str, from: PageFrom, (messages_max, bytes_max): (usize, u64)) -> Option<Page> {
        let queue = self.state.queue_named(queue)?;
        let step = |from| match from {
            PageFrom::At(offset) => Some(queue.next_live(offset)).filter(|offset| *offset < queue.next),
            PageFrom::Before(offset) => queue.previous_live(offset),
        };
        let (mut messages, mut bytes, mut at) = (Vec::new(), 0, from);
        let mut more = None;
        while let Some(offset) = step(at) {
            if messages.len() >= messages_max || (bytes >= bytes_max && !messages.is_empty()) {
                more = Some(at);
                break;
            }
            bytes += queue.size_of(offset);
            messages.push((offset, queue.in_memory(offset).cloned()));
            at = match from {
                PageFrom::At(_) => PageFrom::At(offset.next()),
                PageFrom::Before(_) => PageFrom::Before(offset),
            };
        }
        Some(Page { queue: queue.definition.id, messages, more, checkpoints: self.checkpoints.clone() })
    }
}
