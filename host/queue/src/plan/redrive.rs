//! Dead letters that go back to where they died.

use quipu_protocol::Message;

use super::settle::{DEAD_PREFIX, DEAD_QUEUE, DEAD_SUBSCRIPTION, decode};
use super::{Input, Plan};
use crate::commit::{Durability, Offset, Operation, Payload, QueueId, SubscriptionId};

/// Says of a dead letter whether it is wanted.
pub type Wanted = Box<dyn Fn(Offset, &Message) -> bool + Send>;

/// Which dead letters go back.
pub struct Redrive {
    /// The queue that holds them.
    pub queue: String,
    /// Looks at messages from this offset on.
    pub from: Offset,
    /// Looks at so many at most.
    pub look: usize,
    /// Moves so many at most.
    pub take: usize,
    /// Which ones.
    pub only: Wanted,
    /// Says what would be done, and does nothing.
    pub dry_run: bool,
}

/// What became of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redriven {
    /// By where they went to: queue, subscription, how many.
    pub moved: Vec<(String, String, u64)>,
    /// Those that cannot go back, with why; the first few.
    pub refused: Vec<(Offset, String)>,
    /// How many cannot.
    pub refused_count: u64,
    /// Where to go on.
    pub next: Offset,
    /// Whether nothing is left to look at.
    pub done: bool,
}

/// Refusals that are told one by one.
const REFUSED_MAX: usize = 16;

/// One that can go back.
struct Letter {
    queue: QueueId,
    subscription: SubscriptionId,
    names: (String, String),
    header: bytes::Bytes,
    input: Input,
}

impl Plan<'_> {
    /// Moves dead letters back; none where there is no such queue.
    pub(crate) fn redrive(&mut self, redrive: &Redrive) -> Option<Redriven> {
        let id = *self.state.names.get(&redrive.queue)?;
        let mut said = Redriven { next: redrive.from, ..Redriven::default() };
        let mut looked = 0;
        let mut moved = 0;
        loop {
            let queue = &self.state.queues[&id];
            let offset = queue.next_live(said.next);
            said.done = offset >= queue.next;
            if said.done || looked >= redrive.look || moved >= redrive.take || self.is_full() {
                return Some(said);
            }
            said.next = offset.next();
            looked += 1;
            match self.dead_letter(id, offset, redrive) {
                Ok(None) => {}
                Ok(Some(letter)) => {
                    moved += 1;
                    said.count(&letter.names);
                    if !redrive.dry_run {
                        self.move_back(id, offset, letter);
                    }
                }
                Err(why) => {
                    said.refused_count += 1;
                    if said.refused.len() < REFUSED_MAX {
                        said.refused.push((offset, why));
                    }
                }
            }
        }
    }

    /// The letter at an offset, if it is one of those asked for.
    fn dead_letter(&self, id: QueueId, offset: Offset, redrive: &Redrive) -> Result<Option<Letter>, String> {
        let (stored, input) = self.input(id, offset)?;
        let mut message = decode(&stored).map_err(|e| e.to_string())?;
        message.payload = stored.payload.clone();
        if !(redrive.only)(offset, &message) {
            return Ok(None);
        }
        let header = |name| message.headers.first(name).map(str::to_owned);
        let (Some(to), Some(whose)) = (header(DEAD_QUEUE), header(DEAD_SUBSCRIPTION)) else {
            return Err("it has no headers that say where it died".into());
        };
        let queue = self.state.queue_named(&to).ok_or_else(|| format!("queue {to:?} is not there any more"))?;
        let known = queue.subscription_named(&whose);
        let (subscription, _) = known.ok_or_else(|| format!("queue {to:?} has no subscription {whose:?} any more"))?;
        if queue.definition.id == id {
            return Err("it died in this very queue".into());
        }
        let dead: Vec<String> = message
            .headers
            .iter()
            .filter(|(name, _)| name.starts_with(DEAD_PREFIX))
            .map(|(n, _)| n.to_owned())
            .collect();
        for name in dead {
            message.headers.remove(&name);
        }
        let (queue, names) = (queue.definition.id, (to, whose));
        Ok(Some(Letter { queue, subscription, names, header: message.encode_header(), input }))
    }

    fn move_back(&mut self, from: QueueId, offset: Offset, letter: Letter) {
        let Letter { queue, subscription, header, input, .. } = letter;
        let durability = [self.durability(queue), self.durability(from)];
        self.planned.needs_sync |= durability.contains(&Durability::Synced);
        let volatile = durability.map(|durability| durability == Durability::Memory);
        let to = self.place(queue, (header.len() + input.bytes.len()) as u64);
        let payload = match input.reference {
            Some((queue, offset)) if !volatile[0] => Payload::Of(queue, offset),
            _ => Payload::Inline(input.bytes.clone()),
        };
        let inline = if let Payload::Inline(bytes) = &payload { bytes.len() } else { 0 };
        let bytes = header.len() + inline;
        self.push(Operation::Redrive { header, payload, queue, offset: to, subscription }, bytes, volatile[0]);
        self.push(Operation::Remove { queue: from, offset }, 0, volatile[1]);
    }
}

impl Redriven {
    fn count(&mut self, names: &(String, String)) {
        match self.moved.iter_mut().find(|(queue, subscription, _)| (queue, subscription) == (&names.0, &names.1)) {
            Some((_, _, count)) => *count += 1,
            None => self.moved.push((names.0.clone(), names.1.clone(), 1)),
        }
    }
}
