//! The end: with nothing in the way, everything is settled, and a stop in order changes nothing.

use super::ask::{Ask, QUEUES};
use super::world::{Kind, Stage, World};
use crate::commit::{Durability, QueueLimits, SubscriptionId};
use crate::plan::{Change, QueueSettings};
use crate::request::{Credit, Request};
use crate::store::Start;

const ROUNDS: usize = 3_000;

impl World {
    pub(super) fn finish(&mut self) {
        self.note(|| "-- the end".into());
        self.faults_are_over = true;
        self.no_room = false;
        self.disk.set_capacity(None);
        if self.armed {
            // Faults that did not strike go with the power.
            self.crash(false);
        }
        self.wait_long(3_000_000);
        assert!(self.describe().is_ready(), "the disk has room again");
        self.do_what_was_asked();
        self.free_queues();
        self.come_all();
        let mut rounds = 0;
        while !self.is_done() {
            rounds += 1;
            assert!(rounds < ROUNDS, "it does not come to an end: {:#?}", self.describe());
            self.round();
        }
        // What is under way ends first, or nothing is due meanwhile.
        self.wait_long(1_000);
        self.wait_long(5_000_000);
        self.check_books();
        assert!(self.running().engine.is_idle(), "it is not idle");
        self.stop();
        self.settle_down();
        self.check_books();
    }

    /// What waits may still make queues and subscriptions; but for publishes, some of which wait for room.
    fn do_what_was_asked(&mut self) {
        let mut rounds = 0;
        while self.asks.values().any(|ask| !matches!(ask, Ask::Publish { .. })) {
            rounds += 1;
            assert!(rounds < ROUNDS, "there is no answer to {:?}", self.asks);
            self.wait_long(100_000);
        }
    }

    /// No limit is in the way.
    fn free_queues(&mut self) {
        let definitions: Vec<_> = self.model.queues.values().map(|queue| queue.definition.clone()).collect();
        for definition in definitions {
            let name = quipu_protocol::Subject::new(&definition.name).expect("a subject");
            let is_letters = definition.name.ends_with("-dead");
            let base = if is_letters { QueueSettings::for_dead_letters(name) } else { QueueSettings::new(name) };
            let subjects = definition.subjects.clone();
            let (durability, retention) = (definition.durability, definition.retention);
            let limits = QueueLimits::default();
            self.define_as(QueueSettings { subjects, durability, retention, limits, ack_deadline_ms: 0, ..base });
        }
        self.wait_long(1_000_000);
    }

    /// Somebody with credit reads every subscription, and none stands still.
    fn come_all(&mut self) {
        let paused: Vec<(String, String)> = self
            .model
            .queues
            .values()
            .flat_map(|queue| {
                let paused = queue.readers.values().filter(|reader| reader.paused);
                paused.map(|reader| (queue.definition.name.clone(), reader.name.clone()))
            })
            .collect();
        for (queue, name) in paused {
            self.change(Change::Pause { queue, name, paused: false });
        }
        self.wait_long(1_000_000);
        let there = self.model.queues.values().flat_map(|queue| {
            let name = &queue.definition.name;
            queue.readers.values().map(move |reader| (name.clone(), reader.name.clone()))
        });
        let there: Vec<(String, String)> = there.collect();
        for (queue, name) in there {
            self.join(queue, name, Start::First);
        }
        self.wait_long(100_000);
        for consumer in self.consumers.values_mut() {
            (consumer.granted, consumer.window) = (1 << 40, u64::MAX);
        }
        let ids: Vec<_> = self.consumers.values().filter_map(|consumer| consumer.id).collect();
        for consumer in ids {
            let credit = Credit { messages: Some(1 << 40), bytes: Some(u64::MAX) };
            self.take(Request::Credit { consumer, credit });
        }
    }

    fn round(&mut self) {
        let mut held: Vec<(SubscriptionId, u64, u64, crate::delivery::Token)> = Vec::new();
        for (subscription, flights) in &self.flights {
            for (offset, flight) in flights.iter().filter(|(_, flight)| flight.stage == Stage::Held) {
                held.push((*subscription, flight.consumer, *offset, flight.token));
            }
        }
        for (subscription, consumer, offset, token) in held {
            if self.running().engine.has_room() {
                let (mut item, mut settle) = self.item(subscription, consumer, (offset, token), Kind::Filtered);
                (item.outputs, settle.outputs) = (Vec::new(), Vec::new());
                self.send_settle(consumer, subscription, vec![item], vec![settle]);
            }
        }
        self.settle_down();
        self.do_journal_job();
        self.settle_down();
        if self.random.percent(20) {
            self.do_checkpoint_job();
        }
        self.later_ms(20);
        self.settle_down();
    }

    fn is_done(&mut self) -> bool {
        let pending = self.model.queues.values().filter(|queue| queue.definition.durability != Durability::Memory);
        let pending = pending.flat_map(|queue| queue.readers.values()).any(|reader| !reader.pending.is_empty());
        let info = self.describe();
        let counts = |count: fn(&crate::store::SubscriptionInfo) -> u64| {
            info.queues.iter().flat_map(|queue| &queue.subscriptions).map(count).sum::<u64>()
        };
        let outstanding = counts(|s| s.waiting + s.in_flight + s.parked);
        debug_assert!(QUEUES.len() > 1);
        !pending && outstanding == 0 && info.blocked_publishers == 0 && self.asks.is_empty()
    }
}
