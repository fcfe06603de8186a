//! Whether a state is what the model says.

use super::{Model, Queue, Reader};
use crate::commit::{DedupKey, Offset};
use crate::state::{Bodies, Queue as Known, State, Subscription};

impl Model {
    /// The first difference.
    pub(in crate::simulation) fn differs(&self, state: &State, bodies: &dyn Bodies) -> Option<String> {
        let (mine, theirs): (Vec<_>, Vec<_>) = (self.queues.keys().collect(), state.queues.keys().collect());
        if mine != theirs {
            return Some(format!("queues {mine:?}, and there are {theirs:?}"));
        }
        let pairs = self.queues.values().zip(state.queues.values());
        let differs = |(queue, known): (&Queue, &Known)| {
            let why = queue.differs(known, bodies)?;
            Some(format!("queue {}: {why}", queue.definition.name))
        };
        pairs.into_iter().find_map(differs).or_else(|| self.rest_differs(state))
    }

    fn rest_differs(&self, state: &State) -> Option<String> {
        for (name, run) in &self.runs {
            let Some(known) = state.publishers.get(name) else { return Some(format!("no publisher {name}")) };
            if known.epoch != run.epoch || known.sequence != run.sequence || known.refused != run.refused {
                return Some(format!("publisher {name}: {run:?}, and it is {known:?}"));
            }
        }
        let theirs: std::collections::BTreeMap<_, _> =
            state.records.with_prefix("").map(|(key, value)| (key.clone(), value.clone())).collect();
        if self.records != theirs {
            return Some(format!("records {:?}, and they are {theirs:?}", self.records));
        }
        for (key, (_, places)) in &self.dedup {
            let found = state.dedup.find(DedupKey(*key));
            if found.as_ref() != Some(places) {
                return Some(format!("an id of {places:?} is found at {found:?}"));
            }
        }
        let (mine, theirs) = (self.dedup.len(), state.dedup.ids());
        (mine != theirs).then(|| format!("{mine} ids, and there are {theirs}"))
    }
}

impl Queue {
    fn differs(&self, known: &Known, bodies: &dyn Bodies) -> Option<String> {
        if *self.definition != known.definition {
            return Some(format!("{:?}, and it is {:?}", self.definition, known.definition));
        }
        if !self.is_in_memory() {
            let (mine, theirs) = ((self.next, self.messages.len() as u64), (known.next.0, known.live));
            if mine != theirs {
                return Some(format!("next offset and messages {mine:?}, and they are {theirs:?}"));
            }
            if let Some(why) = self.messages_differ(known, bodies) {
                return Some(why);
            }
        }
        let (mine, theirs): (Vec<_>, Vec<_>) = (self.readers.keys().collect(), known.subscriptions.keys().collect());
        if mine != theirs {
            return Some(format!("subscriptions {mine:?}, and there are {theirs:?}"));
        }
        let mut pairs = self.readers.values().zip(known.subscriptions.values());
        pairs.find_map(|(reader, theirs)| {
            let rest = || if self.is_in_memory() { None } else { reader.differs(theirs, self.next) };
            let why = reader.terms_differ(theirs).or_else(rest);
            why.map(|why| format!("subscription {}: {why}", reader.name))
        })
    }

    fn messages_differ(&self, known: &Known, bodies: &dyn Bodies) -> Option<String> {
        for (offset, kept) in &self.messages {
            let offset = Offset(*offset);
            if !known.is_live(offset) {
                return Some(format!("{offset} is not there"));
            }
            let stored = match known.in_memory(offset) {
                Some(stored) => Ok(stored.clone()),
                None => bodies.message(known.definition.id, offset),
            };
            match stored {
                Ok(stored) if stored.header == kept.header && stored.payload == kept.payload => {}
                Ok(_) => return Some(format!("{offset} was altered")),
                Err(why) => return Some(format!("{offset} cannot be read: {why}")),
            }
        }
        // Of what only a checkpoint has, the average of its chunk counts, in which what is gone counts too.
        let most = (self.largest * self.messages.len()) as u64;
        (known.live_bytes > most).then(|| format!("at most {most} bytes, and it says {}", known.live_bytes))
    }
}

impl Reader {
    /// What lasts of a subscription also where the messages of its queue do not.
    fn terms_differ(&self, known: &Subscription) -> Option<String> {
        let (mine, theirs) =
            ((self.name.as_str(), self.mode, self.paused), (known.name.as_str(), known.mode, known.paused));
        (mine != theirs).then(|| format!("{mine:?}, and it is {theirs:?}"))
    }

    fn differs(&self, known: &Subscription, next: u64) -> Option<String> {
        if self.counts != known.counts {
            return Some(format!("{:?}, and they are {:?}", self.counts, known.counts));
        }
        let outstanding = known.outstanding(Offset(next));
        let settled = self.pending.iter().find(|offset| known.settled.contains(Offset(**offset)));
        if settled.is_some() || outstanding != self.pending.len() as u64 {
            let mine = self.pending.len();
            return Some(format!("{mine} outstanding, and there are {outstanding}; settled: {settled:?}"));
        }
        for offset in &self.pending {
            let of = |marks: &std::collections::BTreeMap<u64, u32>| marks.get(offset).copied().unwrap_or(0);
            let theirs = known.marks.get(&Offset(*offset)).copied().unwrap_or_default();
            if (of(&self.attempts), of(&self.crashes)) != (theirs.attempts, theirs.crashes) {
                let mine = (of(&self.attempts), of(&self.crashes));
                return Some(format!("{offset}: attempts and crashes {mine:?}, and they are {theirs:?}"));
            }
        }
        let mine = (self.delivered_through, self.isolated);
        let theirs = (known.delivered_through.0, known.isolated.map(|offset| offset.0));
        (mine != theirs).then(|| format!("{mine:?}, and it is {theirs:?}"))
    }
}
