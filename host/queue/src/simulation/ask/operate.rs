//! Operators: they keep records, and remove, pause, seek, share out, purge and look at what there is.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::{Ask, QUEUES};
use crate::commit::{DedupKey, Mode, Offset};
use crate::plan::Change;
use crate::request::{Reply, Request, Subscribe};
use crate::simulation::world::{Event, World};
use crate::store::{PageFrom, Start};

const KEYS: [&str; 5] = ["a", "b/1", "b/2", "b/3", "c"];
const READERS: [&str; 4] = ["shared", "keyed", "only", "route:r"];

impl World {
    pub(super) fn operate(&mut self) {
        let queue = (*self.random.pick(&QUEUES)).to_owned();
        let name = (*self.random.pick(&READERS)).to_owned();
        match self.random.below(20) {
            0..=3 => self.set_records(),
            4..=6 => {
                let paused = self.random.percent(50);
                self.change(Change::Pause { queue, name, paused });
            }
            7..=10 => {
                let start = match self.random.below(4) {
                    0 => Start::First,
                    1 => Start::New,
                    _ => Start::Offset(Offset(self.random.below(40))),
                };
                self.change(Change::Seek { queue, name, start });
            }
            11 => self.change(Change::Purge { queue }),
            12 | 13 => self.change(Change::RemoveSubscription { queue, name }),
            14 if queue != "q0" => {
                let with_messages = self.random.percent(60);
                self.change(Change::RemoveQueue { name: queue, with_messages });
            }
            15 | 16 => self.define_subscription(&queue, &name),
            17 => {
                let mode = *self.random.pick(&[Mode::Shared, Mode::KeyShared, Mode::Exclusive]);
                self.change(Change::Share { queue, name, mode });
            }
            _ => self.look(&queue),
        }
    }

    fn set_records(&mut self) {
        let mut records = Vec::new();
        for _ in 0..self.random.within(1..4) {
            let key = (*self.random.pick(&KEYS)).to_owned();
            let bytes = usize::try_from(self.random.below(3_000)).unwrap_or(0);
            let fill = u8::try_from(self.random.below(250)).unwrap_or(0);
            let value = self.random.percent(70).then(|| Bytes::from(vec![fill; bytes]));
            records.push((key, value));
        }
        self.change(Change::Records(records));
    }

    pub(in crate::simulation) fn change(&mut self, change: Change) {
        let ask = self.next();
        self.note(|| format!("ask {ask}: {change:?}"));
        self.asks.insert(ask, Ask::Change(change.clone()));
        let events = self.events.clone();
        let reply = Reply::Call(Box::new(move |answer| Self::say(&events, Event::Changed(ask, answer))));
        self.take(Request::Change { change, reply });
    }

    /// What a subscription of this name begins as.
    pub(super) fn mode_of(name: &str) -> Mode {
        match name {
            "keyed" => Mode::KeyShared,
            "only" => Mode::Exclusive,
            _ => Mode::Shared,
        }
    }

    fn define_subscription(&mut self, queue: &str, name: &str) {
        let mode = Self::mode_of(name);
        let start = if self.random.percent(50) { Start::First } else { Start::New };
        let ask = self.next();
        self.note(|| format!("ask {ask}: define {name} of {queue} from {start:?}"));
        // As if somebody joined: where it begins is looked at in the same way.
        let (queue_of, name_of) = (queue.to_owned(), name.to_owned());
        self.asks.insert(ask, Ask::Subscribe { consumer: 0, queue: queue_of, name: name_of, start });
        let events = self.events.clone();
        let reply = Reply::Call(Box::new(move |answer| Self::say(&events, Event::SubscriptionDefined(ask, answer))));
        let subscribe = Subscribe::new(queue, name, Some(mode), start);
        self.take(Request::DefineSubscription { subscribe, reply });
    }

    /// What is only looked at is answered at once, and is what the model says.
    fn look(&mut self, queue: &str) {
        self.hit("looks");
        let (at, most) = (self.random.below(60), usize::try_from(self.random.within(1..9)).unwrap_or(1));
        let from = if self.random.percent(50) { PageFrom::At(Offset(at)) } else { PageFrom::Before(Offset(at)) };
        let name = queue.to_owned();
        let page = self.answer(|reply| Request::Page { queue: name, from, most: (most, 1 << 40), reply });
        let prefix = *self.random.pick(&["", "b/", "x"]);
        let records = self.answer(|reply| Request::Records { prefix: prefix.to_owned(), reply });
        let ids: Vec<&String> = self.sents.keys().filter(|id| id.starts_with('i')).take(20).collect();
        let keys: Vec<DedupKey> = ids.iter().map(|id| DedupKey::new(self.sents[*id].subject.as_str(), id)).collect();
        let asked = keys.clone();
        let known = self.answer(|reply| Request::Known { ids: asked, reply });
        if self.running.as_ref().is_some_and(|running| running.failed) {
            return;
        }
        let (page, records, known) = (page.expect("a page"), records.expect("records"), known.expect("ids"));
        let mine = self.model.records.iter().filter(|(key, _)| key.starts_with(prefix));
        assert!(mine.eq(records.iter().map(|(key, value)| (key, value))), "records are {records:?}");
        for (key, known) in keys.iter().zip(&known) {
            assert!(known.is_some() || !self.model.remembers(*key, self.now.ms), "an id is not known");
        }
        let Some((_, queue)) = self.model.named(queue) else { return assert!(page.is_none(), "a page of no queue") };
        let page = page.expect("a page of a queue");
        if queue.is_in_memory() {
            return;
        }
        let offsets = queue.messages.keys().copied();
        let mine: Vec<u64> = match from {
            PageFrom::At(_) => offsets.filter(|offset| *offset >= at).take(most).collect(),
            PageFrom::Before(_) => offsets.rev().filter(|offset| *offset < at).take(most).collect(),
        };
        let theirs: Vec<u64> = page.messages.iter().map(|(offset, _)| offset.0).collect();
        assert_eq!(theirs, mine, "a page of {} from {from:?}", queue.definition.name);
    }

    fn answer<T: Send + 'static>(&mut self, request: impl FnOnce(Reply<T>) -> Request) -> T {
        let answer = Arc::new(Mutex::new(None));
        let place = answer.clone();
        let reply = Reply::Call(Box::new(move |said| {
            place.lock().unwrap_or_else(PoisonError::into_inner).replace(said);
        }));
        self.take(request(reply));
        let said = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        said.expect("it is answered at once")
    }
}
