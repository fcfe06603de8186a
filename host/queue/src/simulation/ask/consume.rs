//! Consumers: they come and go, take and settle.

use super::{Ask, Item};
use crate::commit::{Offset, Outcome, SubscriptionId};
use crate::delivery::Token;
use crate::plan::{Output, Settle, Settlement, Target};
use crate::request::{Credit, Reply, Request, Sink, Subscribe};
use crate::simulation::world::{Consumer, Event, Kind, Stage, World};
use crate::store::Start;

const CONSUMERS_MAX: usize = 10;

impl World {
    pub(in crate::simulation) fn subscribe(&mut self) {
        if self.consumers.len() >= CONSUMERS_MAX {
            return self.leave();
        }
        let queue = (*self.random.pick(&["q0", "q1", "q2", "l0", "m0", "q0-dead", "q1-dead"])).to_owned();
        let name = (*self.random.pick(&["shared", "keyed", "only", "route:r"])).to_owned();
        let start = match self.random.below(4) {
            0 | 1 => Start::First,
            2 => Start::New,
            _ => Start::Offset(Offset(self.random.below(40))),
        };
        self.join(queue, name, start);
    }

    pub(in crate::simulation) fn join(&mut self, queue: String, name: String, start: Start) {
        // As it is by now, or else as it was meant.
        let known = self.model.named(&queue).and_then(|(_, queue)| queue.readers.values().find(|r| r.name == name));
        let mode = known.map_or_else(|| Self::mode_of(&name), |reader| reader.mode);
        let (ask, consumer) = (self.next(), self.next());
        self.note(|| format!("ask {ask}: consumer {consumer} joins {name} of {queue} from {start:?}"));
        let known = Consumer {
            id: None,
            queue: queue.clone(),
            name: name.clone(),
            subscription: None,
            granted: 0,
            delivered: 0,
            window: u64::MAX,
            charged: 0,
        };
        self.consumers.insert(consumer, known);
        let (queue_of, name_of) = (queue.clone(), name.clone());
        self.asks.insert(ask, Ask::Subscribe { consumer, queue: queue_of, name: name_of, start });
        let deadline = !name.starts_with("route:");
        let subscribe = Subscribe { queue, name, mode: Some(mode), start, deadline };
        let (events, sunk) = (self.events.clone(), self.events.clone());
        let told = self.events.clone();
        let sink = Sink {
            deliver: Box::new(move |batch| Self::say(&sunk, Event::Delivered(consumer, batch))),
            notice: Box::new(move |notice| Self::say(&told, Event::Told(consumer, notice))),
        };
        let reply = Reply::Call(Box::new(move |answer| Self::say(&events, Event::Joined(ask, answer))));
        self.take(Request::Subscribe { subscribe, sink, reply });
    }

    fn a_consumer(&mut self) -> Option<u64> {
        let there: Vec<u64> = self.consumers.iter().filter(|(_, c)| c.id.is_some()).map(|(n, _)| *n).collect();
        (!there.is_empty()).then(|| *self.random.pick(&there))
    }

    pub(in crate::simulation) fn grant(&mut self) {
        let Some(number) = self.a_consumer() else { return };
        let (more, bytes) = (self.random.below(20), self.random.below(100_000));
        let windowed = self.random.percent(20);
        let Some(consumer) = self.consumers.get_mut(&number) else { return };
        consumer.granted += more;
        let mut credit = Credit { messages: Some(consumer.granted), bytes: None };
        if windowed {
            consumer.window = consumer.charged + bytes;
            credit.bytes = Some(consumer.window);
        }
        if let Some(consumer) = consumer.id {
            self.note(|| format!("consumer {number} gets {credit:?}"));
            self.take(Request::Credit { consumer, credit });
        }
    }

    pub(in crate::simulation) fn leave(&mut self) {
        let Some(number) = self.a_consumer() else { return };
        self.note(|| format!("consumer {number} leaves"));
        self.hit("consumers that leave");
        let Some(Consumer { id: Some(consumer), .. }) = self.consumers.remove(&number) else { return };
        for (subscription, flights) in &mut self.flights {
            let left = |flight: &super::super::world::Flight| flight.consumer == number && flight.stage == Stage::Held;
            self.begun.extend(flights.iter().filter(|(_, f)| left(f)).map(|(offset, _)| (*subscription, *offset)));
            flights.retain(|_, flight| !left(flight));
        }
        self.take(Request::Leave { consumer });
    }

    /// Settles some of what a consumer has.
    pub(in crate::simulation) fn settle(&mut self) {
        let Some(number) = self.a_consumer() else { return };
        let Some(subscription) = self.consumers[&number].subscription else { return };
        let empty = std::collections::BTreeMap::new();
        let flights = self.flights.get(&subscription).unwrap_or(&empty);
        // One that is being settled may be refused before the rest of its request is answered, and stand again.
        let is_free = |flight: &super::super::world::Flight| !matches!(flight.stage, Stage::Settling(_));
        let mine = flights.iter().filter(|(_, flight)| flight.consumer == number && is_free(flight));
        let mine: Vec<(u64, Token)> = mine.map(|(offset, flight)| (*offset, flight.token)).collect();
        if mine.is_empty() {
            return;
        }
        let mut requests = Vec::new();
        let mut items = Vec::new();
        for _ in 0..self.random.within(1..5) {
            let (offset, token) = *self.random.pick(&mine);
            let odd = self.random.percent(2);
            let token = if odd { Token(token.0 - 1_000_000) } else { token };
            let kind = self.kind();
            let (item, request) = self.item(subscription, number, (offset, token), kind);
            items.push(item);
            requests.push(request);
            // It is told apart from its neighbours by its answer alone.
            if matches!(kind, Kind::Later(_)) {
                break;
            }
        }
        self.send_settle(number, subscription, items, requests);
    }

    pub(in crate::simulation) fn send_settle(
        &mut self,
        consumer: u64,
        subscription: SubscriptionId,
        items: Vec<Item>,
        requests: Vec<Settle>,
    ) {
        let Some(id) = self.consumers.get(&consumer).and_then(|consumer| consumer.id) else { return };
        let ask = self.next();
        self.note(|| format!("ask {ask}: consumer {consumer} of {subscription:?} settles {items:?}"));
        self.asks.insert(ask, Ask::Settle { consumer, subscription, items });
        let events = self.events.clone();
        let reply = Reply::Call(Box::new(move |answer| Self::say(&events, Event::Settled(ask, answer))));
        self.take(Request::Settle { consumer: id, items: requests, credit: None, reply });
    }

    fn kind(&mut self) -> Kind {
        let random = &mut self.random;
        match random.below(40) {
            0..=15 => Kind::Ack,
            16 | 17 => Kind::Filtered,
            18 => Kind::Dropped,
            19..=21 => Kind::Through,
            22..=25 => Kind::Nack(None),
            26..=28 => Kind::Nack(Some(random.below(2_000))),
            29 | 30 => Kind::Park(random.below(500)),
            31 | 32 => Kind::Later(random.below(500)),
            33 | 34 => Kind::GiveBack,
            35 | 36 => Kind::Extend(random.below(5_000)),
            _ => Kind::Dead,
        }
    }

    /// One settlement, and what becomes of the delivery at once.
    pub(in crate::simulation) fn item(
        &mut self,
        subscription: SubscriptionId,
        consumer: u64,
        (offset, token): (u64, Token),
        kind: Kind,
    ) -> (Item, Settle) {
        let is_stale = !self.touch(subscription, consumer, (offset, token), kind);
        let in_memory = self.model.reader(subscription).is_some_and(|(_, queue, _)| queue.is_in_memory());
        let mut outputs = Vec::new();
        let mut ids = Vec::new();
        let many = if self.random.percent(30) { self.random.within(1..3) } else { 0 };
        if matches!(kind, Kind::Ack | Kind::Dropped | Kind::Dead) {
            for _ in 0..many {
                let (id, output) = self.output((subscription, offset), in_memory);
                ids.push(id);
                outputs.push(output);
            }
        }
        let settlement = match kind {
            Kind::Ack => Settlement::Done(Outcome::Acked),
            Kind::Filtered => Settlement::Done(Outcome::Filtered),
            Kind::Dropped => Settlement::Done(Outcome::Dropped),
            Kind::Through => Settlement::AckThrough,
            Kind::Nack(delay_ms) => Settlement::Nack { delay_ms },
            Kind::Park(delay_ms) => Settlement::Park { delay_ms },
            Kind::Later(delay_ms) => Settlement::Later { delay_ms },
            Kind::GiveBack => Settlement::GiveBack,
            Kind::Extend(by_ms) => Settlement::Extend { by_ms },
            Kind::Dead => {
                let queue = self.random.pick(&[None, Some("q0-dead".to_owned())]).clone();
                Settlement::DeadLetter { queue, reason: "it is\nbroken".into(), headers: Vec::new() }
            }
        };
        (Item { offset, kind, outputs: ids, is_stale }, Settle { token, settlement, outputs })
    }

    fn output(&mut self, parent: (SubscriptionId, u64), in_memory: bool) -> (String, Output) {
        let subject = self.subject();
        let source = 1_000_000 + self.count;
        let (id, mut message) = self.message(subject, 'o', source, Some(parent).filter(|_| !in_memory));
        let kept = self.model.reader(parent.0).and_then(|(_, queue, _)| queue.messages.get(&parent.1)).cloned();
        let of_input = kept.filter(|_| !in_memory && self.random.percent(60));
        let payload = match of_input {
            Some(kept) => {
                message.payload = kept.payload.clone();
                if let Some(sent) = self.sents.get_mut(&id) {
                    sent.payload = kept.payload.clone();
                }
                None
            }
            None => Some(message.payload.clone()),
        };
        (id, Output { target: Target::Subject(message.subject.clone()), header: message.encode_header(), payload })
    }

    /// Whether the delivery stands, and takes note of how it is being settled.
    fn touch(
        &mut self,
        subscription: SubscriptionId,
        consumer: u64,
        (offset, token): (u64, Token),
        kind: Kind,
    ) -> bool {
        let now_ms = self.now.ms;
        let Some(flights) = self.flights.get_mut(&subscription) else { return false };
        let is_held = |f: &super::super::world::Flight| f.consumer == consumer && f.stage == Stage::Held;
        let Some(flight) = flights.get_mut(&offset).filter(|f| f.token == token && is_held(f)) else { return false };
        match kind {
            Kind::Extend(by_ms) if flight.deadline_ms < u64::MAX => flight.deadline_ms = now_ms + by_ms,
            Kind::Extend(_) => {}
            Kind::GiveBack => {
                flights.remove(&offset);
                self.begun.insert((subscription, offset));
            }
            Kind::Through => {
                let meant = flights.range_mut(..=offset).filter(|(_, flight)| is_held(flight));
                meant.for_each(|(_, flight)| flight.stage = Stage::Settling(kind));
            }
            kind => flight.stage = Stage::Settling(kind),
        }
        true
    }
}
