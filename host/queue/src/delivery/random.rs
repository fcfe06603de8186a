//! Anything at any time: what must hold whatever happens, and that everything arrives in the end.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const DEADLINE_MS: u64 = 50;

#[derive(Debug, Default, Clone)]
struct Message {
    key: Option<u64>,
    mark: Mark,
    gone: bool,
    /// In this run.
    deliveries: u32,
    parked_until_ms: u64,
}

#[derive(Debug, Default)]
struct Room {
    granted: u64,
    delivered: u64,
    window: u64,
    charged: u64,
}

#[derive(Debug, Clone, Copy)]
struct Begun {
    offset: Offset,
    consumer: ConsumerId,
    settling: bool,
    again: bool,
    deadline_ms: u64,
}

/// What the state knows.
#[derive(Debug, Default)]
struct Known {
    messages: Vec<Message>,
    delivered_through: u64,
    returned_below: u64,
    isolated: Option<Offset>,
}

impl Known {
    fn at(&self, offset: Offset) -> &Message {
        &self.messages[usize::try_from(offset.0).expect("an offset")]
    }

    fn at_mut(&mut self, offset: Offset) -> &mut Message {
        &mut self.messages[usize::try_from(offset.0).expect("an offset")]
    }
}

impl View for Known {
    fn end(&self) -> Offset {
        Offset(self.messages.len() as u64)
    }

    fn next_unsettled(&self, from: Offset) -> Offset {
        (from.0..self.end().0).map(Offset).find(|offset| !self.at(*offset).gone).unwrap_or(from.max(self.end()))
    }

    fn mark(&self, offset: Offset) -> Mark {
        self.at(offset).mark
    }

    fn key(&self, offset: Offset) -> Option<u64> {
        self.at(offset).key
    }

    fn delivered_through(&self) -> Offset {
        Offset(self.delivered_through)
    }

    fn returned_below(&self) -> Offset {
        Offset(self.returned_below)
    }

    fn isolated(&self) -> Option<Offset> {
        self.isolated
    }
}

/// A subscription, and a model of it that watches what it does.
struct World {
    delivery: Delivery,
    known: Known,
    now_ms: u64,
    /// In the order in which they came.
    consumers: Vec<ConsumerId>,
    rooms: BTreeMap<ConsumerId, Room>,
    begun: BTreeMap<Token, Begun>,
    advance: Option<Offset>,
    isolate: Option<Offset>,
    isolated: Option<Offset>,
    joined: u64,
}

impl World {
    fn new(terms: Terms, returned_below: u64) -> Self {
        Self {
            delivery: Delivery::new(terms, Offset(0), 1),
            known: Known { returned_below, ..Known::default() },
            now_ms: 0,
            consumers: Vec::new(),
            rooms: BTreeMap::new(),
            begun: BTreeMap::new(),
            advance: None,
            isolate: None,
            isolated: None,
            joined: 0,
        }
    }

    fn step(&mut self, [op, a, b]: [u8; 3]) {
        let event = match op % 32 {
            0..=7 => self.append(a, b),
            8 | 9 if self.consumers.len() < 4 => self.join(),
            10 => self.leave(a),
            11..=13 => self.credit(a, u64::from(b % 16)),
            14 | 15 => self.window(a, u64::from(b) * 4),
            16..=21 => self.begin_settle(a, b),
            22..=24 => self.end_settle(a, b),
            25 => self.settle_through(a),
            26 => self.extend(a, b),
            27 => self.remove(a, b),
            28 => self.durable(),
            29 => self.say_isolated(),
            _ => {
                self.now_ms += u64::from(a % 40);
                Event::Tick
            }
        };
        self.handle(event);
    }

    fn handle(&mut self, event: Event) {
        self.delivery.handle(self.now_ms, event);
        while let Some(action) = self.delivery.poll_action(self.now_ms, &self.known) {
            match action {
                Action::Deliver { .. } => self.delivered(action),
                Action::Advance { through } => {
                    assert!(self.advance.replace(through).is_none() && !self.consumers.is_empty());
                    assert!(through.0 > self.known.delivered_through);
                }
                Action::Isolate { offset } => {
                    assert!(self.begun.is_empty() && self.isolate.is_none() && self.isolated.is_none());
                    assert!(self.known.at(offset).mark.crashes >= CRASHES_ALONE);
                    self.isolate = Some(offset);
                }
                Action::Release { offset } => {
                    assert_eq!(self.known.isolated.take(), Some(offset));
                    self.isolated = None;
                }
                Action::Expire { consumer, token, held } => {
                    let begun = self.begun.get_mut(&token).expect("a delivery");
                    assert!(!begun.settling && begun.deadline_ms <= self.now_ms);
                    assert_eq!((begun.consumer, begun.offset), (consumer, held.offset));
                    begun.settling = true;
                }
            }
        }
        let in_hand = |offset| self.begun.values().any(|begun| begun.offset == offset);
        let is_next = |offset| self.isolated == Some(offset) && !self.consumers.is_empty();
        assert!(self.known.isolated.is_none_or(|offset| in_hand(offset) || is_next(offset)));
        assert!(self.delivery.poll_timeout().is_none_or(|timeout_ms| timeout_ms > self.now_ms));
        let due_ms = self.begun.values().filter(|begun| !begun.settling).map(|begun| begun.deadline_ms).min();
        assert!(due_ms.is_none_or(|due_ms| due_ms > self.now_ms));
        let begun = self.delivery.in_flight() + self.delivery.parked() + self.delivery.set_aside();
        assert!(begun <= self.delivery.terms.in_flight_max);
        assert_eq!(self.delivery.in_flight(), self.begun.len());
    }

    fn delivered(&mut self, action: Action) {
        let Action::Deliver { consumer, token, offset, attempt, crashes, why } = action else { return };
        let message = self.known.at(offset);
        assert!(!message.gone && offset.0 < self.known.delivered_through);
        assert!(message.parked_until_ms <= self.now_ms, "too early");
        assert!(self.begun.values().all(|begun| begun.offset != offset), "in flight twice");
        assert_eq!((attempt, crashes), (message.mark.attempts + 1, message.mark.crashes));
        let new = match message.mark.attempts {
            0 if offset.0 < self.known.returned_below => Why::Crashed,
            0 => Why::First,
            _ => Why::Nacked,
        };
        assert!(if message.deliveries == 0 { why == new } else { !matches!(why, Why::First | Why::Crashed) });
        let room = self.rooms.get_mut(&consumer).expect("a consumer");
        assert!(room.delivered < room.granted && room.charged < room.window);
        room.delivered += 1;
        room.charged += 100;
        self.delivery.charge(consumer, 100);
        match self.delivery.terms.mode {
            Mode::Shared => {}
            Mode::Exclusive => assert_eq!(self.consumers.first(), Some(&consumer)),
            Mode::KeyShared => self.check_order(consumer, offset),
        }
        let alone = |begun: &Begun| self.known.at(begun.offset).mark.crashes >= CRASHES_ALONE;
        assert!(!self.begun.values().any(alone) && self.isolate.is_none());
        assert!(self.isolated.is_none_or(|isolated| isolated == offset));
        if crashes >= CRASHES_ALONE {
            assert!(self.begun.is_empty() && self.isolated.take() == Some(offset));
        }
        let deadline_ms = self.delivery.terms.ack_deadline_ms.map_or(u64::MAX, |ms| self.now_ms + ms);
        let message = self.known.at_mut(offset);
        // One that failed before this run is a redelivery too.
        let again = message.deliveries > 0 || message.mark.attempts > 0;
        message.deliveries += 1;
        assert!(self.begun.insert(token, Begun { offset, consumer, settling: false, again, deadline_ms }).is_none());
    }

    fn check_order(&self, consumer: ConsumerId, offset: Offset) {
        let message = self.known.at(offset);
        let slot = message.key.unwrap_or(0) % 4_096;
        for begun in self.begun.values() {
            let other = self.known.at(begun.offset).key;
            assert!(other.unwrap_or(0) % 4_096 != slot || begun.consumer == consumer, "a slot with two consumers");
        }
        if message.key.is_none() {
            return;
        }
        let in_flight = |offset: u64| self.begun.values().any(|begun| begun.offset.0 == offset);
        let same =
            |offset: &u64| self.known.at(Offset(*offset)).key == message.key && !self.known.at(Offset(*offset)).gone;
        assert!((0..offset.0).filter(same).all(in_flight), "out of order");
        let again = message.deliveries > 0 || message.mark.attempts > 0;
        let mut others = self.begun.values().filter(|begun| same(&begun.offset.0));
        assert!(others.all(|begun| !again && !begun.again), "not alone of its key");
    }

    fn append(&mut self, a: u8, b: u8) -> Event {
        // Two of the keys share a slot, two have slots far from it.
        let key = [None, Some(1), Some(1 + 4_096), Some(3_000), Some(4_095)][usize::from(a % 5)];
        let mark = Mark { crashes: u32::from(b.is_multiple_of(16)) * 3, attempts: u32::from(b % 16 == 1) };
        self.known.messages.push(Message { key, mark, ..Message::default() });
        Event::Available
    }

    fn join(&mut self) -> Event {
        self.joined += 1;
        let id = ConsumerId(self.joined);
        self.consumers.push(id);
        self.rooms.insert(id, Room { window: u64::MAX, ..Room::default() });
        Event::Join(id)
    }

    fn leave(&mut self, a: u8) -> Event {
        let Some(id) = self.consumer(a) else { return Event::Tick };
        self.consumers.retain(|other| *other != id);
        self.rooms.remove(&id);
        self.begun.retain(|_, begun| begun.consumer != id || begun.settling);
        Event::Leave(id)
    }

    fn credit(&mut self, a: u8, more: u64) -> Event {
        let Some(id) = self.consumer(a) else { return Event::Tick };
        let room = self.rooms.get_mut(&id).expect("a consumer");
        room.granted += more;
        Event::Credit(id, room.granted)
    }

    fn window(&mut self, a: u8, more: u64) -> Event {
        let Some(id) = self.consumer(a) else { return Event::Tick };
        let room = self.rooms.get_mut(&id).expect("a consumer");
        room.window = room.charged + more;
        Event::Window(id, room.window)
    }

    fn begin_settle(&mut self, a: u8, b: u8) -> Event {
        let Some(token) = self.token(a) else { return Event::Tick };
        let begun = self.begun[&token];
        let held = self.delivery.begin_settle(begun.consumer, token);
        assert_eq!(held.map(|held| held.offset), (!begun.settling).then_some(begun.offset));
        assert_eq!(self.delivery.begin_settle(begun.consumer, token), None);
        self.begun.get_mut(&token).expect("a delivery").settling = true;
        if b.is_multiple_of(4) { Event::Tick } else { self.outcome(token, b) }
    }

    fn end_settle(&mut self, a: u8, b: u8) -> Event {
        let settling: Vec<Token> = self.begun.iter().filter(|(_, begun)| begun.settling).map(|(t, _)| *t).collect();
        let token = (!settling.is_empty()).then(|| settling[usize::from(a) % settling.len()]);
        token.map_or(Event::Tick, |token| self.outcome(token, b))
    }

    fn outcome(&mut self, token: Token, b: u8) -> Event {
        let begun = self.begun.remove(&token).expect("a delivery");
        let message = self.known.at_mut(begun.offset);
        match b % 8 {
            0..=2 => {
                message.gone = true;
                self.known.isolated = self.known.isolated.filter(|isolated| *isolated != begun.offset);
                Event::Settled(token)
            }
            3..=5 => {
                let until_ms = self.now_ms + u64::from(b);
                message.mark.attempts += 1;
                message.parked_until_ms = until_ms;
                self.known.isolated = self.known.isolated.filter(|isolated| *isolated != begun.offset);
                Event::Parked { token, until_ms, why: if b.is_multiple_of(2) { Why::Nacked } else { Why::Expired } }
            }
            6 => Event::GiveBack(token),
            _ => {
                if self.consumers.contains(&begun.consumer) {
                    let passed = begun.deadline_ms <= self.now_ms;
                    let deadline_ms = if passed { self.now_ms + DEADLINE_MS } else { begun.deadline_ms };
                    self.begun.insert(token, Begun { settling: false, deadline_ms, ..begun });
                }
                Event::Refused(token)
            }
        }
    }

    fn settle_through(&mut self, a: u8) -> Event {
        let Some(token) = self.token(a) else { return Event::Tick };
        let last = self.begun[&token];
        let is_meant = |b: &Begun| b.consumer == last.consumer && b.offset <= last.offset && !b.settling;
        let mut meant: Vec<Offset> = self.begun.values().filter(|b| is_meant(b)).map(|b| b.offset).collect();
        meant.sort();
        let held = self.delivery.begin_settle_through(last.consumer, token);
        let Some(held) = held else {
            assert!(last.settling || !self.consumers.contains(&last.consumer));
            return Event::Tick;
        };
        assert_eq!(held.iter().map(|(_, held)| held.offset).collect::<Vec<_>>(), meant);
        held.iter().for_each(|(token, _)| self.begun.get_mut(token).expect("a delivery").settling = true);
        Event::Tick
    }

    fn extend(&mut self, a: u8, b: u8) -> Event {
        let Some(token) = self.token(a) else { return Event::Tick };
        let begun = self.begun.get_mut(&token).expect("a delivery");
        let stands = self.delivery.extend(self.now_ms, begun.consumer, token, u64::from(b));
        assert_eq!(stands, !begun.settling);
        if stands && self.delivery.terms.ack_deadline_ms.is_some() {
            begun.deadline_ms = self.now_ms + u64::from(b);
        }
        Event::Tick
    }

    fn remove(&mut self, a: u8, b: u8) -> Event {
        let end = self.known.end().0;
        if end == 0 {
            return Event::Tick;
        }
        let offset = Offset(u64::from(a) % end);
        let is_gone = |other: Offset| if b.is_multiple_of(4) { other < offset } else { other == offset };
        (0..end).map(Offset).filter(|o| is_gone(*o)).for_each(|o| self.known.at_mut(o).gone = true);
        self.begun.retain(|_, begun| !is_gone(begun.offset));
        self.isolate = self.isolate.filter(|offset| !is_gone(*offset));
        self.isolated = self.isolated.filter(|offset| !is_gone(*offset));
        self.known.isolated = self.known.isolated.filter(|offset| !is_gone(*offset));
        if b.is_multiple_of(4) { Event::Trimmed(offset) } else { Event::Removed(offset) }
    }

    fn durable(&mut self) -> Event {
        if let Some(through) = self.advance.take() {
            self.known.delivered_through = through.0;
        }
        Event::Available
    }

    fn say_isolated(&mut self) -> Event {
        if let Some(offset) = self.isolate.take() {
            (self.isolated, self.known.isolated) = (Some(offset), Some(offset));
        }
        self.isolated.map_or(Event::Tick, Event::Isolated)
    }

    fn consumer(&self, a: u8) -> Option<ConsumerId> {
        (!self.consumers.is_empty()).then(|| self.consumers[usize::from(a) % self.consumers.len()])
    }

    fn token(&self, a: u8) -> Option<Token> {
        self.begun.keys().nth(usize::from(a) % self.begun.len().max(1)).copied()
    }

    /// Consumers come, take what there is and settle it.
    fn finish(&mut self) {
        let join = self.join();
        self.handle(join);
        for id in self.consumers.clone() {
            let room = self.rooms.get_mut(&id).expect("a consumer");
            (room.granted, room.window) = (1 << 40, u64::MAX);
            self.handle(Event::Credit(id, 1 << 40));
            self.handle(Event::Window(id, u64::MAX));
        }
        for _ in 0..10 * self.known.messages.len() + 10 {
            let durable = self.durable();
            self.handle(durable);
            let isolated = self.say_isolated();
            self.handle(isolated);
            for token in self.begun.keys().copied().collect::<Vec<_>>() {
                let begun = self.begun[&token];
                assert_eq!(self.delivery.begin_settle(begun.consumer, token).is_none(), begun.settling);
                let settled = self.outcome(token, 0);
                self.handle(settled);
            }
            if self.begun.is_empty()
                && let Some(timeout_ms) = self.delivery.poll_timeout()
            {
                self.now_ms = timeout_ms;
                self.handle(Event::Tick);
            }
        }
        let left: BTreeSet<u64> =
            (0..self.known.end().0).filter(|offset| !self.known.at(Offset(*offset)).gone).collect();
        assert!(left.is_empty(), "never delivered: {left:?}");
        assert_eq!((self.delivery.in_flight(), self.delivery.parked(), self.delivery.set_aside()), (0, 0, 0));
    }
}

fn terms() -> impl Strategy<Value = Terms> {
    let mode = prop_oneof![1 => Just(Mode::Shared), 2 => Just(Mode::KeyShared), 1 => Just(Mode::Exclusive)];
    (mode, 1..12usize, any::<bool>()).prop_map(|(mode, in_flight_max, has_deadline)| Terms {
        mode,
        in_flight_max,
        ack_deadline_ms: has_deadline.then_some(DEADLINE_MS),
        paused: false,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn the_rules_hold_whatever_happens(
        terms in terms(),
        returned_below in 0..20u64,
        steps in prop::collection::vec(any::<[u8; 3]>(), 0..300),
    ) {
        let mut world = World::new(terms, returned_below);
        steps.into_iter().for_each(|step| world.step(step));
        world.finish();
    }
}
