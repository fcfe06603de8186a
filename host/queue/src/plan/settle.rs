//! Settlements: what becomes of a delivery, what goes out with it, and dead letters.

use std::collections::HashSet;

use bytes::Bytes;
use quipu_protocol::{Message, Subject};

use super::destination::{Destination, copied_to_inboxes};
use super::{Input, OPERATION_BYTES, Output, PLACE_BYTES, Plan, Settle, SettleError, Settlement};
use crate::commit::{Durability, Mode, Operation, Outcome, QueueId, Stored, SubscriptionId};
use crate::delivery::{Held, Why};

/// Headers of a dead letter that say where it died and why. Redriving takes them off again.
pub(super) const DEAD_QUEUE: &str = "quipu-dead-queue";
pub(super) const DEAD_SUBSCRIPTION: &str = "quipu-dead-subscription";
/// What all of them begin with.
pub(super) const DEAD_PREFIX: &str = "quipu-dead-";

/// What happens to a delivery once the commit is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finish {
    Gone,
    Park {
        delay_ms: u64,
        why: Why,
    },
    Back,
    /// Settled already, by a consumer or by a queue that let go of it.
    Stale,
}

/// The subscription that a settlement belongs to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settler {
    pub(crate) queue: QueueId,
    pub(crate) subscription: SubscriptionId,
    pub(crate) held: Held,
}

/// A dead letter: its queue, and the message's header with what went wrong.
#[derive(Debug)]
struct Letter {
    to: Subject,
    header: Bytes,
}

/// The end of an attempt.
#[derive(Debug)]
struct End {
    finish: Finish,
    fate: Fate,
    letter: Option<Letter>,
}

/// What the state keeps of an attempt that ended.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// It is the end of the message too.
    Settled(Outcome),
    /// An attempt more.
    Failed,
    Unchanged,
}

impl End {
    fn dead(letter: Letter) -> Self {
        Self { finish: Finish::Gone, fate: Fate::Settled(Outcome::DeadLettered), letter: Some(letter) }
    }
}

impl Plan<'_> {
    /// Plans a settlement with its outputs.
    pub(crate) fn settle(&mut self, settler: Settler, settle: &Settle) -> Result<Finish, SettleError> {
        if self.is_gone(settler) {
            return Ok(Finish::Stale);
        }
        let targets = self.destinations(&settle.outputs)?;
        let end = self.end(settler, &settle.settlement)?;
        self.conclude(settler, end, &settle.outputs, targets)
    }

    /// Plans what comes after a consumer let the deadline pass.
    pub(crate) fn expire(&mut self, settler: Settler) -> Result<Finish, SettleError> {
        if self.is_gone(settler) {
            return Ok(Finish::Stale);
        }
        let end = self.failed(settler, Why::Expired, None, "not settled in time, tried")?;
        self.conclude(settler, end, &[], Vec::new())
    }

    /// Plans the end of an attempt. Whatever can fail is done before the first operation is planned.
    fn conclude(
        &mut self,
        settler: Settler,
        end: End,
        outputs: &[Output],
        targets: Vec<Destination>,
    ) -> Result<Finish, SettleError> {
        let Settler { queue, subscription, held } = settler;
        let End { finish, fate, letter } = end;
        let offset = held.offset;
        let of_input = letter.is_some() || outputs.iter().any(|output| output.payload.is_none());
        let mut input = match of_input {
            true => self.input(queue, offset).map_err(SettleError::Unreadable)?.1,
            false => Input::new(Bytes::new()),
        };
        self.check_size(outputs, &targets, letter.as_ref(), &input)?;
        let mut dropping = Vec::new();
        for (output, to) in outputs.iter().zip(&targets) {
            let bytes = output.header.len() + output.payload.as_ref().unwrap_or(&input.bytes).len();
            dropping.extend(self.room_for_output(to.queues(), bytes as u64).map_err(SettleError::Full)?);
        }
        if let Some(Letter { to, header }) = letter {
            let id = self.queue_for_dead_letters(to);
            self.append(&[id], &header, &mut input, None);
        }
        self.send(outputs, targets, &mut input);
        match fate {
            Fate::Settled(outcome) => self.end_with(settler, Operation::Settle { subscription, offset, outcome }),
            Fate::Failed => {
                self.end_with(settler, Operation::Attempt { subscription, offset, attempts: held.attempt });
            }
            Fate::Unchanged => {}
        }
        dropping.into_iter().for_each(|id| self.drop_oldest(id, (0, 0)));
        Ok(finish)
    }

    /// As [`Self::settle`], but where keys keep order and one of the same key was refused before, it is refused too.
    pub(crate) fn settle_in_order(
        &mut self,
        settler: Settler,
        settle: &Settle,
        refused: &mut HashSet<u64>,
    ) -> Result<Finish, SettleError> {
        if !refused.is_empty() && self.ordered_key(settler).is_some_and(|key| refused.contains(&key)) {
            return Err(SettleError::Behind);
        }
        let settled = self.settle(settler, settle);
        if settled.is_err() {
            refused.extend(self.ordered_key(settler));
        }
        settled
    }

    /// The key of the message, where the subscription keeps order by it.
    fn ordered_key(&self, settler: Settler) -> Option<u64> {
        let (_, subscription) = self.state.subscription(settler.subscription)?;
        let ordered = subscription.mode == Mode::KeyShared;
        let stored = ordered.then(|| self.message(settler.queue, settler.held.offset))?.ok()?;
        Message::key_hash(&stored.header)
    }

    /// The queue has let go of it, or a neighbour in this commit lets it.
    fn is_gone(&self, settler: Settler) -> bool {
        let offset = settler.held.offset;
        let known = self.state.queues.get(&settler.queue).and_then(|q| q.subscriptions.get(&settler.subscription));
        let trimmed = self.queues.get(&settler.queue).is_some_and(|plan| plan.has_trimmed(offset));
        trimmed || known.is_none_or(|subscription| subscription.settled.contains(offset))
    }

    fn end_with(&mut self, settler: Settler, operation: Operation) {
        let durability = self.durability(settler.queue);
        self.planned.needs_sync |= durability == Durability::Synced;
        self.push(operation, 0, durability == Durability::Memory);
    }

    fn end(&self, settler: Settler, settlement: &Settlement) -> Result<End, SettleError> {
        let why = Why::Nacked;
        let (finish, fate) = match settlement {
            Settlement::Done(outcome) => (Finish::Gone, Fate::Settled(*outcome)),
            Settlement::AckThrough => (Finish::Gone, Fate::Settled(Outcome::Acked)),
            Settlement::Park { delay_ms } => (Finish::Park { delay_ms: *delay_ms, why }, Fate::Failed),
            Settlement::Later { delay_ms } => (Finish::Park { delay_ms: *delay_ms, why }, Fate::Unchanged),
            Settlement::GiveBack | Settlement::Extend { .. } => (Finish::Back, Fate::Unchanged),
            Settlement::Nack { delay_ms } => return self.failed(settler, why, *delay_ms, "nacked"),
            Settlement::DeadLetter { queue, reason, headers } => {
                return Ok(End::dead(self.letter(settler, queue.as_deref(), reason, headers)?));
            }
        };
        Ok(End { finish, fate, letter: None })
    }

    fn failed(&self, settler: Settler, why: Why, delay_ms: Option<u64>, how: &str) -> Result<End, SettleError> {
        let attempts = settler.held.attempt;
        let definition = &self.state.queues[&settler.queue].definition;
        let last = definition.attempts_max > 0 && attempts >= definition.attempts_max;
        if last && definition.dead_letter.is_some() {
            return Ok(End::dead(self.letter(settler, None, &format!("{how} {attempts} times"), &[])?));
        }
        let delay_ms = delay_ms.unwrap_or_else(|| backoff(&definition.backoff_ms, attempts));
        Ok(End { finish: Finish::Park { delay_ms, why }, fate: Fate::Failed, letter: None })
    }

    fn letter(
        &self,
        settler: Settler,
        to: Option<&str>,
        reason: &str,
        headers: &[(String, String)],
    ) -> Result<Letter, SettleError> {
        let Settler { queue, subscription, held } = settler;
        let source = &self.state.queues[&queue];
        let definition = &source.definition;
        let no_dead_letter = || SettleError::NoDeadLetter(definition.name.clone());
        let to = to.or(definition.dead_letter.as_deref()).ok_or_else(no_dead_letter)?;
        let to = Subject::new(to).map_err(|_| no_dead_letter())?;
        let stored = self.message(queue, held.offset).map_err(SettleError::Unreadable)?;
        let mut message = decode(&stored).map_err(|e| SettleError::Unreadable(format!("{}: {e}", held.offset)))?;
        let subscription = source.subscriptions.get(&subscription).map_or_else(String::new, |s| s.name.clone());
        let said = [
            (DEAD_QUEUE, definition.name.clone()),
            (DEAD_SUBSCRIPTION, subscription),
            ("quipu-dead-subject", message.subject.to_string()),
            ("quipu-dead-offset", held.offset.to_string()),
            ("quipu-dead-attempts", held.attempt.to_string()),
            ("quipu-dead-reason", reason.to_owned()),
        ];
        let more = headers.iter().map(|(name, value)| (name.as_str(), value.clone()));
        for (name, value) in said.into_iter().chain(more) {
            // A header that does not fit says less, but never keeps a message from its dead-letter queue.
            message.headers.set(name, &printable(&value)).ok();
        }
        Ok(Letter { to, header: message.encode_header() })
    }

    fn check_size(
        &self,
        outputs: &[Output],
        targets: &[Destination],
        letter: Option<&Letter>,
        input: &Input,
    ) -> Result<(), SettleError> {
        let size = |o: &Output| o.header.len() + o.payload.as_ref().map_or(0, Bytes::len);
        let largest = outputs.iter().map(size).max().unwrap_or(0);
        let places: usize = targets.iter().map(|to| OPERATION_BYTES + PLACE_BYTES * to.queues().len()).sum();
        let sent: usize = outputs.iter().map(size).sum::<usize>() + copied_to_inboxes(outputs, targets, &input.bytes);
        let along = if input.reference.is_some() { 0 } else { input.bytes.len() };
        let all = places + sent + along + letter.map_or(0, |letter| letter.header.len());
        match () {
            () if largest > Self::message_bytes_max(self.bytes_max) => Err(SettleError::TooLarge(largest)),
            () if all > self.bytes_max / 4 * 3 => Err(SettleError::TooLarge(all)),
            () => Ok(()),
        }
    }
}

pub(super) fn decode(stored: &Stored) -> Result<Message, quipu_protocol::MessageError> {
    Message::decode(stored.header.clone(), Bytes::new())
}

/// The delay after so many failed attempts, in milliseconds: a step for each, and the last one goes on.
pub fn backoff(backoff_ms: &[u64], attempts: u32) -> u64 {
    let at = usize::try_from(attempts).unwrap_or(usize::MAX).saturating_sub(1);
    backoff_ms.get(at).or(backoff_ms.last()).copied().unwrap_or(0)
}

/// The text as a header's value: control characters become spaces, and it is cut to what fits.
fn printable(text: &str) -> String {
    let mut text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    quipu_protocol::code::truncate(&mut text, quipu_protocol::limits::HEADER_VALUE_BYTES_MAX);
    text
}
