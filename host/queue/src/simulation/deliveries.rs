//! What is handed out, and the books that the store keeps of it.

use std::sync::{Arc, Mutex, PoisonError};

use quipu_protocol::{Key, Message};

use super::model::{Queue, Reader};
use super::world::{Flight, Stage, World};
use crate::commit::{Durability, Mode, SubscriptionId};
use crate::request::{Reply, Request};
use crate::store::{Delivery, QueueInfo, StoreInfo, SubscriptionInfo};

impl World {
    pub(super) fn delivered(&mut self, consumer: u64, delivery: &Delivery) {
        let offset = delivery.offset.0;
        let known = self.consumers.get_mut(&consumer).expect("a consumer that is there");
        assert!(known.delivered < known.granted, "consumer {consumer} has no credit");
        assert!(known.charged < known.window, "consumer {consumer} has no window");
        known.delivered += 1;
        known.charged += delivery.stored.size() as u64;
        let subscription = known.subscription.expect("it has joined");
        let at = (subscription, offset);
        self.note(|| format!("consumer {consumer} of {subscription:?} gets {delivery:?}"));
        let not_before_ms = self.not_before.remove(&at).unwrap_or(0);
        let message = Message::decode(delivery.stored.header.clone(), delivery.stored.payload.clone()).expect("sound");
        let in_memory = self.check_content(at, delivery, &message);
        assert!(in_memory || not_before_ms <= self.now.ms, "{at:?} comes too early");
        let flights = self.flights.entry(subscription).or_default();
        if in_memory && flights.get(&offset).is_some_and(|flight| flight.stage != Stage::Held) {
            // Its commit was in memory alone.
            flights.remove(&offset);
            self.begun.insert(at);
        }
        let flights = self.flights.entry(subscription).or_default();
        assert!(!flights.contains_key(&offset), "{at:?} is in flight twice");
        let again = self.begun.contains(&at) || delivery.attempt > 1;
        self.check_turn(at, consumer, message.key.as_ref(), again);
        let (_, queue, _) = self.model.reader(subscription).expect("a subscription");
        let deadline_ms = self.deadline_ms(subscription);
        let (attempt, token, stage) = (delivery.attempt, delivery.token, Stage::Held);
        let flight = Flight { token, consumer, attempt, deadline_ms, stage, again, key: message.key };
        let flights = self.flights.entry(subscription).or_default();
        flights.insert(offset, flight);
        let most = self.in_flight_max.get(&queue.definition.name).copied().unwrap_or(u32::MAX);
        assert!(in_memory || flights.len() <= most as usize, "{} in flight of {most}", flights.len());
        if delivery.crashes > 0 {
            self.hit("deliveries after a crash");
        }
        if again {
            self.hit("deliveries again");
        }
    }

    /// It is what was published, it is due, and it is as durable as promised.
    fn check_content(&self, at: (SubscriptionId, u64), delivery: &Delivery, message: &Message) -> bool {
        let (subscription, offset) = at;
        let (_, queue, reader) = self.model.reader(subscription).expect("a subscription");
        assert!(!reader.paused, "{at:?} is handed out, and its subscription stands still");
        if queue.is_in_memory() {
            let sent = self.sents.get(message.id.as_str()).unwrap_or_else(|| panic!("{} was never sent", message.id));
            assert!(sent.payload == delivery.stored.payload, "{at:?} was altered");
            assert!(!self.gone.contains(&at), "{at:?} was settled");
            return true;
        }
        assert!(reader.pending.contains(&offset), "{at:?} is settled");
        let kept = &queue.messages[&offset];
        assert!(kept.header == delivery.stored.header && kept.payload == delivery.stored.payload, "{at:?} was altered");
        let of = |marks: &std::collections::BTreeMap<u64, u32>| marks.get(&offset).copied().unwrap_or(0);
        assert_eq!(delivery.attempt, of(&reader.attempts) + 1, "the attempt at {at:?}");
        assert_eq!(delivery.crashes, of(&reader.crashes), "the crashes of {at:?}");
        let is_synced = self.log.front().is_none_or(|(sequence, _)| kept.sequence < *sequence);
        let synced = queue.definition.durability == Durability::Synced;
        assert!(!synced || is_synced || kept.sequence <= self.base.sequence, "{at:?} is handed out before its sync");
        false
    }

    /// By mode: whose turn it is.
    fn check_turn(&self, (subscription, offset): (SubscriptionId, u64), consumer: u64, key: Option<&Key>, again: bool) {
        let (_, queue, reader) = self.model.reader(subscription).expect("a subscription");
        match reader.mode {
            Mode::Shared => {}
            Mode::Exclusive => {
                let there = self.consumers.iter().filter(|(_, c)| c.subscription == Some(subscription));
                let first = there.filter_map(|(number, c)| Some((c.id?, *number))).min();
                assert_eq!(first.map(|(_, number)| number), Some(consumer), "an exclusive subscription");
            }
            Mode::KeyShared => {
                if let Some(key) = key {
                    self.check_key(subscription, (queue, reader), (offset, consumer, again), key);
                }
            }
        }
    }

    fn check_key(
        &self,
        subscription: SubscriptionId,
        (queue, reader): (&Queue, &Reader),
        (offset, consumer, again): (u64, u64, bool),
        key: &Key,
    ) {
        let flights = &self.flights[&subscription];
        let same: Vec<(&u64, &Flight)> =
            flights.iter().filter(|(_, flight)| flight.key.as_ref() == Some(key)).collect();
        if queue.is_in_memory() {
            return;
        }
        for (other, flight) in &same {
            assert_eq!(flight.consumer, consumer, "{offset} and {other} of one key go to two consumers");
            assert!(!again && !flight.again, "{offset} goes beside {other} of its key, and one of them again");
        }
        for earlier in reader.pending.range(..offset) {
            let kept = &queue.messages[earlier];
            let message = Message::decode(kept.header.clone(), kept.payload.clone()).expect("a sound header");
            let overtaken = message.key.as_ref() == Some(key) && !flights.contains_key(earlier);
            assert!(!overtaken, "{offset} overtakes {earlier} of its key");
        }
    }

    /// Of a delivery that has all of its time from now on.
    pub(super) fn deadline_ms(&self, subscription: SubscriptionId) -> u64 {
        match self.ack_deadlines_ms[&subscription] {
            0 => u64::MAX,
            ms => self.now.ms + ms,
        }
    }

    /// Deliveries whose time is over: the engine takes them back.
    pub(super) fn expire(&mut self) {
        let now_ms = self.now.ms;
        // What is free stays free when the clock jumps back.
        self.not_before.retain(|_, ms| *ms > now_ms);
        for flight in self.flights.values_mut().flat_map(|flights| flights.values_mut()) {
            if flight.stage == Stage::Held && flight.deadline_ms <= now_ms {
                flight.stage = Stage::Expiring;
            }
        }
    }

    pub(super) fn describe(&mut self) -> StoreInfo {
        let answer = Arc::new(Mutex::new(None));
        let place = answer.clone();
        let reply = Reply::Call(Box::new(move |info| {
            place.lock().unwrap_or_else(PoisonError::into_inner).replace(info);
        }));
        self.take(Request::Describe { reply });
        let info = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        info.expect("it is answered at once").expect("also of a store that has failed")
    }

    /// The ledgers balance, and say what the model says.
    pub(super) fn check_books(&mut self) {
        let info = self.describe();
        if info.blocked_publishers > 0 {
            self.hit("publishers that wait");
        }
        for queue in &info.queues {
            let Some((_, known)) = self.model.named(&queue.name) else { panic!("queue {} is not known", queue.name) };
            for (subscription, (id, reader)) in queue.subscriptions.iter().zip(&known.readers) {
                let (came, gone) = subscription.ledger();
                assert_eq!(came, gone, "the ledger of {} of {}: {subscription:?}", subscription.name, queue.name);
                if !known.is_in_memory() {
                    self.check_subscription(queue, subscription, (*id, reader));
                }
            }
            if !known.is_in_memory() {
                let (is, should) = ((queue.messages, queue.next_offset), (known.messages.len() as u64, known.next));
                assert_eq!(is, should, "messages and next offset of {}", queue.name);
            }
        }
    }

    fn check_subscription(&self, queue: &QueueInfo, info: &SubscriptionInfo, (id, reader): (SubscriptionId, &Reader)) {
        let of = format!("{} of {}", reader.name, queue.name);
        assert_eq!(info.counts, reader.counts, "the counts of {of}");
        let in_flight = self.flights.get(&id).map_or(0, |flights| flights.len() as u64);
        assert_eq!(info.in_flight, in_flight, "what is in flight of {of}");
        let outstanding = info.waiting + info.in_flight + info.parked;
        assert_eq!(outstanding, reader.pending.len() as u64, "what is outstanding of {of}");
        let consumers = self.consumers.values().filter(|c| c.subscription == Some(id) && c.id.is_some()).count();
        assert_eq!(info.consumers, consumers, "the consumers of {of}");
    }
}
