//! Publishers: unnamed ones, and named ones that go on after a lost connection.

use bytes::Bytes;
use quipu_protocol::{Key, Message, MessageId, Subject};

use super::{Ask, Named, QUEUES, SUBJECTS};
use crate::commit::SubscriptionId;
use crate::plan::{Output, Published, Run, Target};
use crate::request::{Reply, Request, Source};
use crate::simulation::model::Sent;
use crate::simulation::world::{Event, World};

/// Unnamed publishers, by the number of their source.
const SOURCES: u64 = 4;
const NAMES: [&str; 2] = ["ann", "bob"];
/// Messages of one named publisher that are under way at most.
const UNANSWERED_MAX: usize = 40;

impl World {
    /// A message that was never sent before.
    pub(in crate::simulation) fn message(
        &mut self,
        subject: &str,
        letter: char,
        source: u64,
        parent: Option<(SubscriptionId, u64)>,
    ) -> (String, Message) {
        let number = self.next();
        let id = format!("{letter}{number}");
        let random = &mut self.random;
        let bytes = match random.below(20) {
            0..=5 if self.is_heavy => random.within(30_000..100_000),
            0..=13 => random.below(40),
            14..=18 => random.below(4_000),
            _ => random.below(70_000),
        };
        let fill = u8::try_from(number % 251).unwrap_or(0);
        let mut payload = vec![fill; usize::try_from(bytes).unwrap_or(0)];
        payload.extend(number.to_le_bytes());
        let subject = Subject::new(subject).expect("a subject");
        let mut message = Message::new(MessageId::new(&id).expect("an id"), subject.clone(), Bytes::from(payload));
        if random.percent(60) {
            message.key = Key::new(vec![u8::try_from(random.below(4)).unwrap_or(0)]).ok();
        }
        message.published_ms = self.now.ms;
        let sent = Sent {
            subject,
            header: message.encode_header(),
            payload: message.payload.clone(),
            dedup: letter == 'i',
            source: (source, number),
            named: None,
            parent,
            outputs: Vec::new(),
            is_taken: false,
            of: None,
        };
        self.sents.insert(id.clone(), sent);
        (id, message)
    }

    pub(in crate::simulation) fn subject(&mut self) -> &'static str {
        if self.random.percent(60) { self.random.pick::<&str>(&SUBJECTS) } else { self.random.pick::<&str>(&QUEUES) }
    }

    /// One that was sent before, as it was.
    fn again(&self, id: &str) -> Published {
        let sent = &self.sents[id];
        let message = Message::decode(sent.header.clone(), sent.payload.clone()).expect("a sound header");
        let output = |id: &String| {
            let Sent { subject, header, payload, .. } = self.sents[id].clone();
            let payload = Some(payload).filter(|payload| *payload != sent.payload);
            Output { target: Target::Subject(subject), header, payload }
        };
        let published = Published::new(&message, sent.dedup).with_outputs(sent.outputs.iter().map(output).collect());
        let published = if sent.is_taken { published.taken() } else { published };
        published.with_sequence(sent.named.as_ref().map_or(0, |(_, _, sequence)| *sequence))
    }

    pub(in crate::simulation) fn publish(&mut self) {
        let source = self.random.within(1..1 + SOURCES);
        let mut ids = Vec::new();
        for _ in 0..*self.random.pick(&[1, 1, 1, 2, 5]) {
            let known: Vec<&String> = self.sents.keys().filter(|id| id.starts_with('i')).collect();
            if !known.is_empty() && self.random.percent(15) {
                let id = known[self.random.index(known.len())].clone();
                ids.push(id);
                self.hit("ids sent again");
                continue;
            }
            let letter = if self.random.percent(40) { 'i' } else { 'p' };
            let subject = self.subject();
            let id = self.message(subject, letter, source, None).0;
            if self.random.percent(15) {
                self.route_inline(&id);
            }
            ids.push(id);
        }
        self.submit(ids, Source { id: source, named: None, stops: false }, None, false);
    }

    /// What inline routes make of a message before it is handed over.
    fn route_inline(&mut self, of: &str) {
        self.hit("messages of inline routes");
        let is_taken = self.random.percent(50);
        let mut outputs = Vec::new();
        for _ in 0..self.random.below(3) {
            let subject = self.subject();
            let (id, _) = self.message(subject, 't', 0, None);
            let payload = self.sents[of].payload.clone();
            let keeps = self.random.percent(50);
            if let Some(sent) = self.sents.get_mut(&id) {
                sent.of = Some(of.to_owned());
                sent.payload = if keeps { payload } else { sent.payload.clone() };
            }
            outputs.push(id);
        }
        let nowhere = self.random.percent(50).then(|| Subject::new("nowhere").expect("a subject"));
        let Some(sent) = self.sents.get_mut(of) else { return };
        if let Some(subject) = nowhere {
            let mut message = Message::decode(sent.header.clone(), sent.payload.clone()).expect("a sound header");
            message.subject = subject.clone();
            (sent.header, sent.subject) = (message.encode_header(), subject);
        }
        (sent.outputs, sent.is_taken) = (outputs, is_taken);
    }

    fn submit(&mut self, ids: Vec<String>, source: Source, named: Option<&'static str>, zombie: bool) {
        let ask = self.next();
        self.note(|| format!("ask {ask}: publish {ids:?} by {source:?}"));
        let messages = ids.iter().map(|id| self.again(id)).collect();
        self.asks.insert(ask, Ask::Publish { ids, named, zombie });
        let events = self.events.clone();
        let reply = Reply::Call(Box::new(move |answer| Self::say(&events, Event::Published(ask, answer))));
        self.take(Request::Publish { messages, source, reply });
    }

    pub(in crate::simulation) fn open_publisher(&mut self) {
        let name = *self.random.pick(&NAMES);
        let new_run = self.random.percent(30);
        let known = self.named.entry(name).or_default();
        if known.opening {
            return;
        }
        let epoch = if new_run { 0 } else { known.epoch };
        known.opening = true;
        let ask = self.next();
        self.note(|| format!("ask {ask}: open {name} at {epoch}"));
        self.asks.insert(ask, Ask::Open { name, epoch });
        let events = self.events.clone();
        let reply = Reply::Call(Box::new(move |answer| Self::say(&events, Event::Opened(ask, answer))));
        self.take(Request::OpenPublisher { name: name.into(), epoch, reply });
    }

    pub(in crate::simulation) fn publish_named(&mut self) {
        let name = *self.random.pick(&NAMES);
        let zombie = self.random.percent(15);
        let known = self.named.entry(name).or_default();
        let (Some((source, session)), false) = (known.stream, known.opening) else {
            return self.open_publisher();
        };
        let (epoch, source, session) = match known.old {
            Some(old) if zombie => old,
            _ => (known.epoch, source, session),
        };
        let is_zombie = (source, session) != known.stream.unwrap_or_default();
        if known.unanswered.len() >= UNANSWERED_MAX {
            return;
        }
        let mut ids = Vec::new();
        if let Some((sequence, id)) = known.refused.pop_first().filter(|_| !is_zombie) {
            known.unanswered.insert(sequence, id.clone());
            ids.push(id);
        }
        for _ in 0..self.random.within(1..4) {
            // Queues that are in memory alone forget what they had.
            let subject = *self.random.pick(&["q0", "q1", "q2", "l0"]);
            let (id, _) = self.message(subject, 'n', source, None);
            let Some(known) = self.named.get_mut(name) else { return };
            let sequence = if is_zombie { 1_000_000 + self.count } else { known.sequence + 1 };
            if !is_zombie {
                known.sequence = sequence;
                known.unanswered.insert(sequence, id.clone());
            }
            if let Some(sent) = self.sents.get_mut(&id) {
                sent.named = Some((name.to_owned(), epoch, sequence));
            }
            ids.push(id);
        }
        let run = Run { name: name.into(), epoch };
        self.submit(ids, Source { id: source, named: Some((run, session)), stops: false }, Some(name), is_zombie);
    }

    /// After it was let in again: everything that was not answered, in order.
    pub(in crate::simulation) fn send_again(&mut self, name: &'static str) {
        let Some(Named { stream: Some((source, session)), epoch, unanswered, .. }) = self.named.get(name) else {
            return;
        };
        let (run, ids) = (Run { name: name.into(), epoch: *epoch }, unanswered.values().cloned().collect::<Vec<_>>());
        if !ids.is_empty() {
            let source = Source { id: *source, named: Some((run, *session)), stops: false };
            self.hit("named publishers that send again");
            self.submit(ids, source, Some(name), false);
        }
    }
}
