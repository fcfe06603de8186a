//! What the engine answers must be so, and what it hands out must be due.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};

use super::ask::{Ask, Item};
use super::model::{Queue, Reader};
use super::world::{Event, Kind, Stage, World};
use crate::commit::{Durability, Offset, QueueId, SubscriptionId};
use crate::plan::{PublishError, Receipt, SettleError};
use crate::request::{Joined, Opened, PublishAnswer, SettleResults};
use crate::store::Start;

impl World {
    /// Hears what was said since.
    pub(super) fn hear(&mut self) {
        let events = self.events.clone();
        let mut heard: VecDeque<Event> = std::mem::take(&mut *events.lock().unwrap_or_else(PoisonError::into_inner));
        while let Some(event) = heard.pop_front() {
            self.hear_one(event);
        }
    }

    fn hear_one(&mut self, event: Event) {
        match event {
            Event::Delivered(consumer, batch) => {
                batch.into_iter().for_each(|delivery| self.delivered(consumer, &delivery));
            }
            Event::Told(consumer, notice) => self.told(consumer, &notice),
            Event::Changed(ask, answer) => self.changed(ask, answer),
            Event::SubscriptionDefined(ask, answer) => self.subscription_defined(ask, &answer),
            Event::Stopped => drop(self.asks.remove(&0)),
            Event::Defined(ask, answer) => {
                let asked = self.asks.remove(&ask);
                if answer.is_ok() {
                    self.is_positive();
                    self.promised = self.promised.max(self.defined_in);
                    self.set_ack_deadlines();
                }
                if let (Some(Ask::Define(settings)), Ok(Err(_))) = (asked, answer) {
                    panic!("queue {} was not defined", settings.name);
                }
            }
            Event::Opened(ask, answer) => {
                let Some(Ask::Open { name, epoch }) = self.asks.remove(&ask) else { panic!("answered twice") };
                if let Ok(opened) = answer {
                    self.is_positive();
                    match opened {
                        Ok(opened) => self.opened(name, epoch, opened),
                        Err(why) => self.not_opened(name, epoch, &why),
                    }
                }
            }
            Event::Published(ask, answer) => self.published(ask, answer),
            Event::Settled(ask, answer) => {
                let Some(Ask::Settle { consumer, subscription, items }) = self.asks.remove(&ask) else {
                    panic!("answered twice")
                };
                if let Ok(results) = answer {
                    self.is_positive();
                    if self.fenced.remove(&ask) {
                        return self.settled_before(&items, &results);
                    }
                    self.settled(consumer, subscription, &items, &results);
                }
            }
            Event::Joined(ask, answer) => {
                let Some(Ask::Subscribe { consumer, .. }) = self.asks.remove(&ask) else { panic!("answered twice") };
                match answer {
                    Ok(joined) => self.joined(consumer, &joined),
                    Err(_) => drop(self.consumers.remove(&consumer)),
                }
            }
            Event::Redriven(ask, answer) => {
                let asked = self.asks.remove(&ask);
                if let (Ok(Some(redriven)), Some(Ask::Redrive { dry_run })) = (answer, asked) {
                    self.is_positive();
                    let moved: u64 = redriven.moved.iter().map(|(.., count)| count).sum();
                    self.note(|| format!("redriven: {redriven:?}"));
                    if moved > 0 {
                        self.hit(if dry_run { "redrives that only look" } else { "redrives" });
                    }
                }
            }
            Event::Checkpointed(ask, answer) => {
                assert!(self.asks.remove(&ask).is_some(), "answered twice");
                self.hit(if answer.is_ok() { "checkpoints asked for" } else { "checkpoints asked for in vain" });
            }
        }
    }

    /// After a failure of the journal nothing is promised any more.
    pub(super) fn is_positive(&self) {
        let failed = self.running.as_ref().is_some_and(|running| running.failed);
        assert!(!failed, "a store that failed gave a positive answer");
    }

    fn opened(&mut self, name: &'static str, epoch: u64, opened: Opened) {
        self.promised = self.promised.max(self.defined_in);
        let run = self.model.runs.get(name).cloned().unwrap_or_default();
        let (is, last) = (opened.run.epoch, opened.run.last_sequence);
        // Another stream of the same run may have stored more in the same commit.
        assert!(is == run.epoch && last <= run.sequence, "the run of {name} is {run:?}, not {is} at {last}");
        let source = 10_000 + self.next();
        let known = self.named.entry(name).or_default();
        known.opening = false;
        if let Some((source, session)) = known.stream {
            known.old = Some((known.epoch, source, session));
        }
        known.stream = Some((source, opened.session));
        if epoch == 0 || is != known.epoch {
            assert!(is > known.epoch || known.epoch == 0, "an epoch of {name} was used again");
            known.unanswered.clear();
            known.refused.clear();
            (known.epoch, known.sequence) = (is, 0);
            return self.hit("runs of named publishers");
        }
        let lost = known
            .unanswered
            .range(..=last)
            .find(|(sequence, id)| !run.refused.contains(sequence) && !self.model.stored.contains_key(*id));
        assert!(lost.is_none(), "{name} came as far as {last}, and {lost:?} is not there");
        self.hit("runs of named publishers that go on");
        self.send_again(name);
    }

    /// A run that was begun before a crash, and whose answer went with that, fences this one.
    fn not_opened(&mut self, name: &'static str, epoch: u64, why: &PublishError) {
        let run = self.model.runs.get(name).map_or(0, |run| run.epoch);
        assert!(epoch > 0 && run > epoch, "{name} cannot open epoch {epoch}: {why}");
        let known = self.named.entry(name).or_default();
        *known = super::ask::Named::default();
    }

    fn published(&mut self, ask: u64, answer: PublishAnswer) {
        let Some(Ask::Publish { ids, named, zombie }) = self.asks.remove(&ask) else { panic!("answered twice") };
        let Ok(results) = answer else { return };
        self.is_positive();
        self.note(|| format!("answer {ask}: {results:?}"));
        assert_eq!(ids.len(), results.len());
        for (id, result) in ids.iter().zip(&results) {
            let sent = self.sents[id].clone();
            if zombie {
                assert!(matches!(result, Err(PublishError::Fenced(_))), "{id} of a run that is over: {result:?}");
                self.hit("publishers that are fenced");
                continue;
            }
            let known = named.and_then(|name| self.named.get_mut(name));
            if let (Some(known), Some((_, epoch, sequence))) = (known, &sent.named)
                && known.epoch == *epoch
                && !matches!(result, Err(PublishError::Fenced(_)))
            {
                known.unanswered.remove(sequence);
                if result.is_err() {
                    known.refused.insert(*sequence, id.clone());
                }
            }
            match result {
                Ok(Receipt::Stored(places)) => self.check_receipt(id, places, true),
                Ok(Receipt::Duplicate(places)) => {
                    self.hit("duplicates");
                    assert!(sent.dedup || sent.named.is_some(), "{id} is called a duplicate");
                    self.check_receipt(id, places, false);
                }
                Err(why) => self.refused(id, why),
            }
        }
    }

    fn refused(&mut self, id: &str, why: &PublishError) {
        match why {
            PublishError::Full(_) => self.hit("publishes into full queues"),
            PublishError::DiskFull => self.hit("publishes onto full disks"),
            PublishError::NoQueue(_) | PublishError::Fenced(_) => {}
            PublishError::NoInbox(_) => panic!("{id} is no reply"),
            PublishError::Stopped => panic!("{id} of a publisher that does not stop"),
            // With all that was made of it.
            PublishError::TooLarge(_) if !self.sents[id].outputs.is_empty() => {}
            PublishError::TooLarge(bytes) => panic!("{id} of {bytes} bytes is called too large"),
        }
        let sent = &self.sents[id];
        let is_stored = |id: &str| self.model.stored.contains_key(id);
        let stored = is_stored(id) || sent.outputs.iter().any(|id| is_stored(id));
        assert!(!stored || sent.dedup || sent.named.is_some(), "{id} was refused and is stored");
    }

    /// What a receipt says is there, and the promise is noted.
    fn check_receipt(&mut self, id: &str, places: &[(Arc<str>, Offset)], is_new: bool) {
        if places.iter().any(|(name, _)| self.removed.contains(name.as_ref())) {
            // Of a queue that is gone, or of one that has its name.
            return;
        }
        let queue = |name: &str| self.model.named(name).unwrap_or_else(|| panic!("a receipt names {name}"));
        let lasting: Vec<(QueueId, Offset)> = places
            .iter()
            .filter(|(name, _)| !queue(name).1.is_in_memory())
            .map(|(name, o)| (queue(name).0, *o))
            .collect();
        let sent = &self.sents[id];
        if is_new {
            let outputs = sent.outputs.iter().filter_map(|id| self.model.stored.get(id)?.last());
            let synced = outputs.filter(|storing| storing.synced).map(|storing| storing.sequence).max();
            self.promised = self.promised.max(synced.unwrap_or(0));
        }
        if places.is_empty() || lasting.is_empty() {
            let was_stored = self.model.stored.contains_key(id);
            let was_routed = sent.is_taken || !sent.outputs.is_empty();
            let is_sound = !places.is_empty() || was_routed || (!is_new && sent.named.is_some() && was_stored);
            return assert!(is_sound, "{id} was answered and is nowhere");
        }
        let stored = self.model.stored.get(id).unwrap_or_else(|| panic!("{id} was answered and is nowhere"));
        let is_there = |place: &&(QueueId, Offset)| self.model.queues.contains_key(&place.0);
        let storing = stored.iter().rfind(|storing| storing.places.iter().filter(is_there).eq(&lasting));
        let storing =
            storing.unwrap_or_else(|| panic!("the receipt of {id} says {lasting:?}, and it is at {stored:?}"));
        if storing.synced {
            self.promised = self.promised.max(storing.sequence);
        }
    }

    fn settled(&mut self, consumer: u64, subscription: SubscriptionId, items: &[Item], results: &SettleResults) {
        self.note(|| format!("consumer {consumer} of {subscription:?} is answered {results:?}"));
        assert_eq!(items.len(), results.len());
        for (item, result) in items.iter().zip(results) {
            match result {
                Ok(()) => self.settled_well(subscription, item),
                Err(why) => self.settled_badly(consumer, subscription, item, why),
            }
        }
    }

    fn settled_well(&mut self, subscription: SubscriptionId, item: &Item) {
        let at = (subscription, item.offset);
        assert!(!item.is_stale, "{item:?} was stale and is settled");
        let (in_memory, is_pending) = {
            let (_, queue, reader) = self.model.reader(subscription).expect("a subscription");
            (queue.is_in_memory(), reader.pending.contains(&item.offset))
        };
        let lasts = !matches!(item.kind, Kind::Later(_) | Kind::GiveBack | Kind::Extend(_));
        if lasts && let Some(sequence) = self.settled_in.get(&at) {
            self.promised = self.promised.max(*sequence);
        }
        let is_end = matches!(item.kind, Kind::Ack | Kind::Filtered | Kind::Dropped | Kind::Through | Kind::Dead);
        assert!(in_memory || !is_end || !is_pending, "{item:?} is said to be settled and is not");
        for id in &item.outputs {
            let storing = self.model.stored.get(id);
            assert!(storing.is_some() || self.goes_to_memory(id), "output {id} is nowhere");
        }
        match item.kind {
            Kind::Later(delay_ms) | Kind::Park(delay_ms) if in_memory || matches!(item.kind, Kind::Later(_)) => {
                self.land(at);
                self.not_before.insert(at, self.now.ms + delay_ms);
            }
            Kind::Through if in_memory => {
                let flights = self.flights.entry(subscription).or_default();
                let is_meant = |offset: u64, stage| offset <= item.offset && stage == Stage::Settling(Kind::Through);
                let meant: Vec<u64> = flights.iter().filter(|(o, f)| is_meant(**o, f.stage)).map(|(o, _)| *o).collect();
                for offset in meant {
                    self.land((subscription, offset));
                    self.gone.insert((subscription, offset));
                }
            }
            Kind::GiveBack | Kind::Extend(_) => {}
            _ if in_memory => {
                self.land(at);
                if is_end {
                    self.gone.insert(at);
                }
            }
            _ => {}
        }
    }

    /// Also by what the queues were, since a request may be answered several commits later.
    fn goes_to_memory(&self, id: &str) -> bool {
        let subject = &self.sents[id].subject;
        let now = self.model.queues.values().map(|queue| &queue.definition);
        let mut all = now.chain(&self.in_memory_once).filter(|d| d.durability == Durability::Memory);
        all.any(|definition| super::model::takes(definition, subject))
    }

    fn land(&mut self, (subscription, offset): (SubscriptionId, u64)) {
        if let Some(flights) = self.flights.get_mut(&subscription) {
            flights.remove(&offset);
        }
        self.begun.insert((subscription, offset));
    }

    fn settled_badly(&mut self, consumer: u64, subscription: SubscriptionId, item: &Item, why: &SettleError) {
        for id in &item.outputs {
            assert!(!self.model.stored.contains_key(id), "output {id} of a settlement that was refused is there");
        }
        self.hit(match why {
            SettleError::Stale => "settlements that are stale",
            SettleError::Full(_) => "settlements into full queues",
            _ => "settlements that are refused",
        });
        if item.is_stale {
            return assert_eq!(*why, SettleError::Stale, "{item:?}");
        }
        let (_, queue, reader) = self.model.reader(subscription).expect("a subscription");
        let (in_memory, is_pending) = (queue.is_in_memory(), reader.pending.contains(&item.offset));
        if *why == SettleError::Stale {
            assert!(in_memory || !is_pending, "{item:?} is called stale and is not");
            return self.land((subscription, item.offset));
        }
        let is_there = self.consumers.contains_key(&consumer);
        let (now_ms, again_ms) = (self.now.ms, self.deadline_ms(subscription));
        let Some(flights) = self.flights.get_mut(&subscription) else { return };
        let Some(flight) = flights.get_mut(&item.offset) else { return };
        if !is_there {
            return self.land((subscription, item.offset));
        }
        flight.stage = Stage::Held;
        if flight.deadline_ms <= now_ms {
            flight.deadline_ms = again_ms;
        }
    }

    fn joined(&mut self, consumer: u64, joined: &Joined) {
        self.is_positive();
        if joined.created {
            self.promised = self.promised.max(self.defined_in);
        }
        let Some(known) = self.consumers.get_mut(&consumer) else { return };
        let (_, queue) = self.model.named(&known.queue).expect("its queue");
        let found = queue.readers.iter().find(|(_, reader)| reader.name == known.name);
        let (id, reader) = found.expect("a subscription that was joined");
        assert_eq!(reader.mode, joined.mode);
        known.subscription = Some(*id);
        known.id = Some(joined.consumer);
        let ack_deadline_ms = ack_deadline_ms(queue, reader);
        self.ack_deadlines_ms.entry(*id).or_insert(ack_deadline_ms);
    }

    /// What was asked of queues holds from here on.
    fn set_ack_deadlines(&mut self) {
        let model = &self.model;
        self.ack_deadlines_ms.retain(|id, known_ms| {
            let known = model.reader(*id);
            known.is_some_and(|(_, queue, reader)| {
                *known_ms = ack_deadline_ms(queue, reader);
                true
            })
        });
    }

    /// A new subscription begins where it was asked to.
    pub(super) fn check_floor(&self, id: QueueId, name: &str, floor: u64) {
        let queue = &self.model.queues[&id];
        let from = |start: &Start| match start {
            Start::New => queue.next,
            Start::Offset(offset) => offset.0,
            _ => 0,
        };
        let asked = self.asks.values().any(|ask| match ask {
            Ask::Subscribe { queue: of, name: asked, start, .. } if *of == queue.definition.name && asked == name => {
                queue.is_in_memory() || queue.messages.range(floor..).eq_by_offset(queue.messages.range(from(start)..))
            }
            _ => false,
        });
        assert!(asked, "subscription {name} begins at {floor}, and nobody asked for that");
    }
}

/// Routes have none.
fn ack_deadline_ms(queue: &Queue, reader: &Reader) -> u64 {
    if reader.name.starts_with("route:") { 0 } else { queue.definition.ack_deadline_ms }
}

trait Offsets {
    fn eq_by_offset(self, other: Self) -> bool;
}

impl<'a, T: Iterator<Item = (&'a u64, V)>, V> Offsets for T {
    fn eq_by_offset(self, other: Self) -> bool {
        self.map(|(offset, _)| *offset).eq(other.map(|(offset, _)| *offset))
    }
}
