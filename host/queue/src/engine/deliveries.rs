//! Consumers: who has joined, what they are handed, and how their settlements begin and end.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Engine, Now, Reader, is_immediate};
use crate::checkpoint::Checkpoints;
use crate::commit::{Offset, QueueId, Stored, SubscriptionId};
use crate::delivery::{Action, ConsumerId, Delivery as Deliverer, Event, Terms, Token, View};
use crate::plan::{Finish, Settle, SettleError, Settlement, Settler};
use crate::request::{Begun, Credit, Gathered, Joined, Reply, Sink, Subscribe};
use crate::state::{Mark, Queue, State, Subscription};
use crate::store::{Delivery, SubscribeError};

/// Before a message that cannot be read is tried again, in milliseconds.
const UNREADABLE_MS: u64 = 10_000;

/// What a delivery sees of the state.
pub(super) struct Seen<'a> {
    queue: &'a Queue,
    subscription: &'a Subscription,
    checkpoints: &'a Checkpoints,
}

impl<'a> Seen<'a> {
    pub(super) fn new(state: &'a State, checkpoints: &'a Checkpoints, id: SubscriptionId) -> Option<Self> {
        let (queue, subscription) = state.subscription(id)?;
        Some(Self { queue, subscription, checkpoints })
    }

    fn message(&self, offset: Offset) -> Result<Arc<Stored>, String> {
        match self.queue.in_memory(offset) {
            Some(stored) => Ok(stored.clone()),
            None => self.checkpoints.read_message(self.queue.definition.id, offset).map_err(|e| e.to_string()),
        }
    }
}

impl View for Seen<'_> {
    fn end(&self) -> Offset {
        self.queue.next
    }

    fn next_unsettled(&self, from: Offset) -> Offset {
        self.subscription.settled.next_absent(from)
    }

    fn mark(&self, offset: Offset) -> Mark {
        self.subscription.marks.get(&offset).copied().unwrap_or_default()
    }

    fn key(&self, offset: Offset) -> Option<u64> {
        // A message that cannot be read has no key; handing it out says why.
        quipu_protocol::Message::key_hash(&self.message(offset).ok()?.header)
    }

    fn delivered_through(&self) -> Offset {
        self.subscription.delivered_through
    }

    fn returned_below(&self) -> Offset {
        self.subscription.returned_below
    }

    fn isolated(&self) -> Option<Offset> {
        self.subscription.isolated
    }
}

impl Engine {
    pub(super) fn subscribe(
        &mut self,
        now: Now,
        subscribe: Subscribe,
        sink: Sink,
        reply: Reply<Result<Joined, SubscribeError>>,
    ) {
        let Some(known) = self.state.queue_named(&subscribe.queue) else {
            return reply.give(Err(SubscribeError::UnknownQueue(subscribe.queue)));
        };
        match known.subscription_named(&subscribe.name) {
            Some((id, _)) => {
                let queue = known.definition.id;
                let joined = self.join(now, queue, id, &subscribe, sink, false);
                reply.give(joined);
            }
            None => self.gather(Gathered::Subscribe { subscribe, sink, reply }),
        }
    }

    pub(super) fn join(
        &mut self,
        now: Now,
        queue: QueueId,
        id: SubscriptionId,
        subscribe: &Subscribe,
        sink: Sink,
        created: bool,
    ) -> Result<Joined, SubscribeError> {
        let known = &self.state.queues[&queue];
        let subscription = &known.subscriptions[&id];
        let (mode, floor, paused) = (subscription.mode, subscription.settled.floor(), subscription.paused);
        self.check_mode(id, subscribe)?;
        let consumer = ConsumerId(self.consumer_next);
        self.consumer_next += 1;
        let ack_deadline_ms = if subscribe.deadline { known.definition.ack_deadline_ms } else { 0 };
        let terms = terms(known, subscription, subscribe.deadline);
        let first = self.token_first;
        self.deliveries.entry(id).or_insert_with(|| Deliverer::new(terms, floor, first));
        self.consumers.insert(consumer, Reader { subscription: id, queue, sink });
        self.handle(now, id, Event::Join(consumer));
        Ok(Joined { consumer, created, floor, mode, ack_deadline_ms, paused })
    }

    /// Whether a subscription is as it is asked for.
    pub(super) fn check_mode(&self, id: SubscriptionId, subscribe: &Subscribe) -> Result<(), SubscribeError> {
        match self.state.subscription(id) {
            Some((_, known)) if subscribe.mode.is_some_and(|asked| asked != known.mode) => {
                let (queue, name) = (subscribe.queue.clone(), subscribe.name.clone());
                Err(SubscribeError::Mode { queue, name, mode: known.mode.as_str() })
            }
            _ => Ok(()),
        }
    }

    /// Tells a delivery what happened.
    pub(super) fn handle(&mut self, now: Now, id: SubscriptionId, event: Event) {
        let Some(delivery) = self.deliveries.get_mut(&id) else { return };
        delivery.handle(now.ms, event);
        self.active.insert(id);
    }

    pub(super) fn tell(&mut self, now: Now, consumer: ConsumerId, event: Event) {
        if let Some(id) = self.consumers.get(&consumer).map(|reader| reader.subscription) {
            self.handle(now, id, event);
        }
    }

    pub(super) fn credit(&mut self, now: Now, consumer: ConsumerId, credit: Credit) {
        if let Some(total) = credit.bytes {
            self.tell(now, consumer, Event::Window(consumer, total));
        }
        if let Some(total) = credit.messages {
            self.tell(now, consumer, Event::Credit(consumer, total));
        }
    }

    /// Queues may have other limits and deadlines now.
    pub(super) fn set_terms(&mut self) {
        for (id, delivery) in &mut self.deliveries {
            self.active.insert(*id);
            if let Some((queue, subscription)) = self.state.subscription(*id) {
                let deadline = !subscription.name.starts_with(crate::store::ROUTE_PREFIX);
                delivery.set_terms(terms(queue, subscription, deadline));
            }
        }
    }

    /// From here on the delivery stays with its settlement, whatever becomes of the consumer.
    pub(super) fn begin(&mut self, now: Now, consumer: ConsumerId, settle: Settle) -> (Settle, Begun) {
        let begun = self.begin_one(now, consumer, &settle);
        (settle, begun.unwrap_or(Begun::Done(Err(SettleError::Stale))))
    }

    fn begin_one(&mut self, now: Now, consumer: ConsumerId, settle: &Settle) -> Option<Begun> {
        let reader = self.consumers.get(&consumer)?;
        let (queue, subscription) = (reader.queue, reader.subscription);
        let delivery = self.deliveries.get_mut(&subscription)?;
        let settler = |held| Settler { queue, subscription, held };
        match &settle.settlement {
            Settlement::Extend { by_ms } => {
                let extended = delivery.extend(now.ms, consumer, settle.token, *by_ms);
                self.waiting.insert(subscription);
                extended.then_some(Begun::Done(Ok(())))
            }
            Settlement::AckThrough => {
                let held = delivery.begin_settle_through(consumer, settle.token)?;
                Some(Begun::Through(held.into_iter().map(|(token, held)| (token, settler(held))).collect()))
            }
            settlement => {
                let held = delivery.begin_settle(consumer, settle.token)?;
                if is_immediate(settlement) {
                    self.handle(now, subscription, Event::GiveBack(settle.token));
                    return Some(Begun::Done(Ok(())));
                }
                Some(Begun::One(settler(held)))
            }
        }
    }

    pub(super) fn finish(
        &mut self,
        now: Now,
        subscription: Option<SubscriptionId>,
        token: Token,
        finish: &Result<Finish, SettleError>,
    ) {
        let event = match finish {
            Ok(Finish::Gone | Finish::Stale) => Event::Settled(token),
            Ok(Finish::Back) => Event::GiveBack(token),
            Ok(Finish::Park { delay_ms, why }) => {
                Event::Parked { token, until_ms: now.ms.saturating_add(*delay_ms), why: *why }
            }
            Err(_) => Event::Refused(token),
        };
        if let Some(id) = subscription {
            self.handle(now, id, event);
        }
    }

    pub(super) fn hand_out(&mut self, now: Now) {
        for id in std::mem::take(&mut self.active) {
            let mut batches: BTreeMap<ConsumerId, Vec<Delivery>> = BTreeMap::new();
            while let Some(action) = self.next_action(now, id) {
                match action {
                    Action::Deliver { consumer, token, offset, attempt, crashes, why } => {
                        let Some(stored) = self.charge(id, consumer, offset) else {
                            // Never altered, never skipped in silence: it is tried again.
                            let until_ms = now.ms.saturating_add(UNREADABLE_MS);
                            self.handle(now, id, Event::Unreadable { token, until_ms });
                            continue;
                        };
                        let handed = Delivery { token, offset, attempt, crashes, why, stored };
                        batches.entry(consumer).or_default().push(handed);
                    }
                    Action::Advance { through } => self.gather(Gathered::Deliverable { subscription: id, through }),
                    Action::Isolate { offset } => self.gather(Gathered::Isolate { subscription: id, offset }),
                    Action::Release { .. } => self.gather(Gathered::Release { subscription: id }),
                    Action::Expire { token, held, .. } => {
                        let Some(queue) = self.state.subscriptions.get(&id).copied() else { continue };
                        let settler = Settler { queue, subscription: id, held };
                        self.gather(Gathered::Expire { token, settler });
                    }
                }
            }
            for (consumer, batch) in batches {
                if let Some(reader) = self.consumers.get_mut(&consumer) {
                    (reader.sink.deliver)(batch);
                }
            }
            match self.deliveries.get(&id).and_then(Deliverer::poll_timeout) {
                Some(_) => self.waiting.insert(id),
                None => self.waiting.remove(&id),
            };
        }
    }

    fn next_action(&mut self, now: Now, id: SubscriptionId) -> Option<Action> {
        let seen = Seen::new(&self.state, &self.checkpoints, id)?;
        self.deliveries.get_mut(&id)?.poll_action(now.ms, &seen)
    }

    /// The message, counted against its consumer's window.
    fn charge(&mut self, id: SubscriptionId, consumer: ConsumerId, offset: Offset) -> Option<Arc<Stored>> {
        let seen = Seen::new(&self.state, &self.checkpoints, id)?;
        match seen.message(offset) {
            Ok(stored) => {
                self.deliveries.get_mut(&id)?.charge(consumer, stored.size() as u64);
                Some(stored)
            }
            Err(why) => {
                tracing::error!(queue = %seen.queue.name, %offset, %why, "a message cannot be read");
                None
            }
        }
    }
}

fn terms(queue: &Queue, subscription: &Subscription, deadline: bool) -> Terms {
    let deadline_ms = Some(queue.definition.ack_deadline_ms).filter(|ms| deadline && *ms > 0);
    Terms {
        mode: subscription.mode,
        in_flight_max: usize::try_from(queue.definition.in_flight_max).unwrap_or(usize::MAX),
        ack_deadline_ms: deadline_ms,
        paused: subscription.paused,
    }
}
