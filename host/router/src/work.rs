//! What a lane makes of its messages: settlements, and what they count as.
//!
//! Sans-io but for the clock: a [`Slice`] is filled with what is to be sent to the store.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quipu_protocol::Message;
use quipu_queue::{Delivery, Offset, Outcome, Output, ROUTE_PREFIX, Settle, SettleError, Settlement, backoff};
use quipu_runtime::{Fault, FaultKind};

use crate::breaker::{Breaker, Broke};
use crate::chain::{Chain, Counted, Decision, Seen, seed};
use crate::keys::{Incoming, Keys, Turn};
use crate::letter;
use crate::settings::{OnBroken, OnError};
use crate::stats::PluginInfo;
use crate::told::{Followed, Told};
use crate::trace::What;

/// A slice ends after so many messages …
const SLICE_MESSAGES: usize = 128;
/// … or so many bytes of outputs.
pub const SLICE_BYTES: usize = 1 << 20;
/// Before a message that cannot even be dead-lettered is tried again, at the least, in milliseconds.
const STUCK_MS_MIN: u64 = 1_000;
/// Longest delay that a plugin can ask for: a day.
const RETRY_MS_MAX: u64 = 86_400_000;
/// Before a message is tried again for which there was no plugin instance, in milliseconds.
const EXHAUSTED_MS: u64 = 1_000;
/// Before a message for a full queue is tried again, in milliseconds: twice as long each time.
const FULL_MS: std::ops::RangeInclusive<u64> = 100..=1_000;

/// What only one worker at a time touches.
pub(crate) struct Work {
    pub(crate) serving: Serving,
    told: Told,
    /// The highest offset that was begun.
    pub(crate) last: Option<Offset>,
    /// Which seat of the route its messages are from.
    seat: u64,
    keys: Keys,
    /// What waited for an answer that has come.
    ready: VecDeque<Incoming>,
    full: Option<Full>,
}

/// What a lane works with, and can be given another of between two messages.
pub(crate) struct Serving {
    pub(crate) chain: Chain,
    pub(crate) on_error: OnError,
    pub(crate) breaker: Arc<Breaker>,
    pub(crate) plugins: Vec<PluginInfo>,
}

/// A destination that takes no more for now.
struct Full {
    queue: Arc<str>,
    delay_ms: u64,
    /// Until then nothing is tried.
    until: Instant,
}

pub(crate) enum Event {
    Delivered(Incoming),
    Answered(Answer),
}

/// What the store said to one slice.
#[derive(Default)]
pub(crate) struct Answer {
    /// Keys that keep order, and which of their messages it has settled.
    pub(crate) done: Vec<(u64, Offset)>,
    pub(crate) refused: Vec<(Sent, SettleError)>,
    /// Whether an output found room.
    pub(crate) had_room: bool,
}

/// What a lane has done in one go.
#[derive(Default)]
pub(crate) struct Slice {
    pub(crate) items: Vec<Settle>,
    pub(crate) sent: Vec<Sent>,
    pub(crate) attempts: u64,
    /// Deliveries that it finished with, and their bytes: so much more may come.
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    /// A plugin that broke just now.
    pub(crate) broke: Option<Broke>,
    /// The id of the message in hand, where it is followed.
    followed: Option<Arc<str>>,
    bytes_out: usize,
    /// Keys that have something in this slice.
    keys: Vec<Option<u64>>,
}

/// A delivery whose settlement is on its way.
pub(crate) struct Sent {
    pub(crate) delivery: Delivery,
    pub(crate) key: Option<u64>,
    pub(crate) end: End,
    pub(crate) outputs: u64,
    /// Its id, where it is followed.
    pub(crate) followed: Option<Arc<str>>,
}

/// What an attempt counts as once it is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    Forwarded,
    Filtered {
        set_aside: bool,
        error: bool,
    },
    /// For a reason of the plugin's.
    Dropped(String),
    Retried,
    DeadLettered,
    /// A destination is full.
    Held,
    /// An earlier one of its key failed.
    GivenBack,
}

impl End {
    /// For people.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::Filtered { set_aside: true, .. } => "set aside",
            Self::Filtered { set_aside: false, .. } => "filtered",
            Self::Dropped(_) => "dropped",
            Self::Retried => "parked",
            Self::DeadLettered => "dead-lettered",
            Self::Held => "held",
            Self::GivenBack => "given back",
        }
    }
}

impl Slice {
    pub(crate) fn has_room(&self) -> bool {
        self.items.len() < SLICE_MESSAGES && self.bytes_out < SLICE_BYTES
    }

    fn push(&mut self, incoming: Incoming, end: End, settlement: Settlement, outputs: Vec<Output>) {
        let Incoming { delivery, key } = incoming;
        self.bytes_out += outputs.iter().map(output_bytes).sum::<usize>();
        let (token, count) = (delivery.token, outputs.len() as u64);
        self.items.push(Settle { token, settlement, outputs });
        let followed = self.followed.take();
        self.sent.push(Sent { delivery, key, end, outputs: count, followed });
    }
}

impl Work {
    pub(crate) fn new(serving: Serving, told: Told) -> Self {
        Self { serving, told, last: None, seat: 0, keys: Keys::default(), ready: VecDeque::new(), full: None }
    }

    /// What it gets from now on is from this seat; nothing is known of what came before.
    pub(crate) fn sit(&mut self, seat: u64) {
        if self.seat != seat {
            self.seat = seat;
            self.clear();
        }
    }

    /// What it took from its inbox and can go on with now.
    pub(crate) fn next(&mut self) -> Option<Event> {
        self.ready.pop_front().map(Event::Delivered)
    }

    pub(crate) fn has_more(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The queue that it waits for.
    pub(crate) fn waiting_for(&self) -> Option<&Arc<str>> {
        self.full.as_ref().map(|full| &full.queue)
    }

    /// Lets go of what waits.
    pub(crate) fn clear(&mut self) {
        self.ready.clear();
        self.keys = Keys::default();
    }

    pub(crate) fn handle(&mut self, event: Event, slice: &mut Slice) {
        match event {
            Event::Delivered(incoming) => self.delivered(incoming, slice),
            Event::Answered(answer) => self.answered(answer, slice),
        }
    }

    /// The slice is sent: its keys wait for the answer.
    pub(crate) fn end_slice(&mut self, slice: &mut Slice) {
        slice.keys.drain(..).for_each(|key| self.keys.sent(key));
    }

    fn delivered(&mut self, incoming: Incoming, slice: &mut Slice) {
        let bytes = incoming.delivery.stored.size() as u64;
        match self.keys.turn(incoming) {
            Turn::Wait => return,
            Turn::GiveBack(delivery) => {
                // It is not on its way anywhere, so nothing waits for it.
                let incoming = Incoming { delivery, key: None };
                slice.push(incoming, End::GivenBack, Settlement::GiveBack, Vec::new());
            }
            Turn::Now(incoming) => {
                let (end, settlement, outputs) = self.attempt(&incoming.delivery, slice);
                self.send(incoming, (end, settlement, outputs), slice);
            }
        }
        slice.messages += 1;
        slice.bytes += bytes;
    }

    fn attempt(&mut self, delivery: &Delivery, slice: &mut Slice) -> (End, Settlement, Vec<Output>) {
        if self.full.as_ref().is_some_and(|full| Instant::now() < full.until) {
            // Behind those that were tried: there may be many.
            return (End::Held, Settlement::Later { delay_ms: *FULL_MS.end() }, Vec::new());
        }
        // Once more for each plugin that breaks meanwhile and is gone past from then on.
        loop {
            let stored = &delivery.stored;
            let message = match Message::decode(stored.header.clone(), stored.payload.clone()) {
                Ok(message) => message,
                Err(e) => {
                    let (end, settlement) = self.dead_letter(format!("unreadable message: {e}"), Vec::new());
                    return (end, settlement, Vec::new());
                }
            };
            slice.attempts += 1;
            self.last = self.last.max(Some(delivery.offset));
            let mut followed = self.told.follow(&message);
            let (seen, decision) = self.serving.attempt(message, delivery.attempt, followed.as_mut());
            if let Some(followed) = &mut followed {
                let route = &self.serving.chain.route;
                self.told.attempt(route, delivery.attempt, followed, decision.name(), decision.outputs());
            }
            slice.followed = followed.map(|followed| followed.id);
            let is_broken = match &decision {
                Decision::Fault { position, fault } => self.faulted((*position, fault), delivery.offset, seen, slice),
                _ => false,
            };
            match (is_broken, self.serving.breaker.then()) {
                (false, _) => return self.decide(delivery, seen, decision),
                (true, OnBroken::Hold) => return self.decide(delivery, seen, Decision::Broken),
                (true, OnBroken::Bypass | OnBroken::DeadLetter) => {}
            }
        }
    }

    /// Takes note of a fault; whether the plugin is broken.
    fn faulted(
        &self,
        (position, fault): (usize, &Fault),
        offset: Offset,
        Seen { now_ms, .. }: Seen,
        slice: &mut Slice,
    ) -> bool {
        let Serving { chain, breaker, .. } = &self.serving;
        let plugin = &chain.plugins[position];
        self.told.traps.add(&chain.route, (plugin.name(), plugin.digest()), fault, now_ms);
        if fault.kind == FaultKind::Exhausted {
            return false;
        }
        if breaker.faulted(position, offset) {
            slice.broke = Some(Broke { position, plugin: chain.plugin_name(position), text: fault.text.clone() });
        }
        breaker.is_broken(position)
    }

    fn send(&mut self, incoming: Incoming, made: (End, Settlement, Vec<Output>), slice: &mut Slice) {
        let (end, settlement, outputs) = made;
        if let (Some(id), Settlement::DeadLetter { reason, .. }) = (&slice.followed, &settlement) {
            let subscription = format!("{ROUTE_PREFIX}{}", self.serving.chain.route);
            self.told.trace.add(id, What::DeadLettered { subscription, reason: reason.clone() });
        }
        if matches!(settlement, Settlement::Park { .. } | Settlement::Later { .. }) {
            self.keys.stop(incoming.key, incoming.delivery.offset);
        }
        // Of one request, a full queue may refuse a message and take the next: one of each key at a time then.
        match self.full.is_some() {
            true => self.keys.sent(incoming.key),
            false => slice.keys.push(incoming.key),
        }
        slice.push(incoming, end, settlement, outputs);
    }

    fn answered(&mut self, answer: Answer, slice: &mut Slice) {
        let Answer { done, refused, had_room } = answer;
        self.look_for_room(had_room, &refused);
        let done = done.into_iter().map(|(key, offset)| (Some(key), offset));
        let answered: Vec<_> = done.chain(refused.iter().map(|(sent, _)| (sent.key, sent.delivery.offset))).collect();
        answered.iter().for_each(|(key, offset)| self.keys.answered(*key, *offset));
        refused.into_iter().for_each(|(sent, why)| self.refused(sent, why, slice));
        for (key, _) in answered {
            let released = self.keys.release(key);
            self.ready.extend(released);
        }
    }

    fn look_for_room(&mut self, had_room: bool, refused: &[(Sent, SettleError)]) {
        let full =
            refused.iter().find_map(|(_, why)| if let SettleError::Full(queue) = why { Some(queue) } else { None });
        let Some(queue) = full else {
            if had_room && let Some(Full { queue, .. }) = self.full.take() {
                tracing::debug!(route = self.serving.chain.route, %queue, "there is room again");
            }
            return;
        };
        let now = Instant::now();
        let delay_ms = match &self.full {
            None => {
                tracing::debug!(route = self.serving.chain.route, %queue, "a destination is full");
                *FULL_MS.start()
            }
            Some(_) if had_room => *FULL_MS.start(),
            Some(full) if now < full.until => full.delay_ms,
            Some(full) => (2 * full.delay_ms).min(*FULL_MS.end()),
        };
        // Over before the first of them comes back.
        let until = now + Duration::from_millis(delay_ms - delay_ms / 8);
        self.full = Some(Full { queue: queue.clone(), delay_ms, until });
    }

    /// The store refused what the chain made of it.
    fn refused(&mut self, sent: Sent, why: SettleError, slice: &mut Slice) {
        let Sent { delivery, key, end, followed, .. } = sent;
        slice.followed = followed;
        if self.keys.is_stopped(key, delivery.offset) {
            let incoming = Incoming { delivery, key: None };
            return slice.push(incoming, End::GivenBack, Settlement::GiveBack, Vec::new());
        }
        let incoming = Incoming { delivery, key };
        let delivery = &incoming.delivery;
        let (end, settlement) = match (why, end) {
            (SettleError::Full(_), _) => {
                let delay_ms = self.full.as_ref().map_or(*FULL_MS.start(), |full| full.delay_ms);
                (End::Held, Settlement::Later { delay_ms })
            }
            (why, End::DeadLettered) => self.keep(delivery, &why),
            // An inbox that is gone does not come back.
            (why @ SettleError::NoInbox(_), _) => {
                let (route, offset) = (&self.serving.chain.route, delivery.offset);
                tracing::info!(route, %offset, %why, "dead-lettered");
                self.dead_letter(why.to_string(), Vec::new())
            }
            (why, _) => self.fail(delivery, why.to_string(), 0, Vec::new()),
        };
        self.send(incoming, (end, settlement, Vec::new()), slice);
    }

    fn decide(&self, delivery: &Delivery, seen: Seen, decision: Decision) -> (End, Settlement, Vec<Output>) {
        let (route, offset) = (&self.serving.chain.route, delivery.offset);
        let (end, settlement) = match decision {
            Decision::Filtered { outputs, error } => {
                if let Some(why) = &error {
                    tracing::debug!(route, %offset, %why, "`when` failed");
                }
                let end = End::Filtered { set_aside: !outputs.is_empty(), error: error.is_some() };
                return (end, Settlement::Done(Outcome::Filtered), outputs);
            }
            Decision::Forward(outputs) => return (End::Forwarded, Settlement::Done(Outcome::Acked), outputs),
            Decision::Drop { outputs, reason } => {
                tracing::debug!(route, %offset, %reason, "dropped");
                return (End::Dropped(reason), Settlement::Done(Outcome::Dropped), outputs);
            }
            Decision::Reject { position, reason } => {
                let said = position.map(|at| letter::headers(&self.serving.chain, at, seen, None));
                self.dead_letter(reason, said.unwrap_or_default())
            }
            Decision::Retry { position, delay_ms, reason } => {
                let said = letter::headers(&self.serving.chain, position, seen, None);
                self.fail(delivery, reason, delay_ms, said)
            }
            Decision::Fault { fault, .. } if fault.kind == FaultKind::Exhausted => {
                tracing::warn!(route, %offset, reason = fault.text, "a message waits for room for a plugin instance");
                (End::Held, Settlement::Later { delay_ms: EXHAUSTED_MS })
            }
            Decision::Fault { position, fault } => {
                let said = letter::headers(&self.serving.chain, position, seen, Some(&fault));
                self.fail(delivery, fault.text, 0, said)
            }
            Decision::Broken => (End::GivenBack, Settlement::GiveBack),
        };
        (end, settlement, Vec::new())
    }

    /// An attempt that failed: another one later, or the dead-letter queue after the last.
    fn fail(
        &self,
        delivery: &Delivery,
        reason: String,
        delay_ms: u64,
        said: Vec<(String, String)>,
    ) -> (End, Settlement) {
        let (route, offset, attempt) = (&self.serving.chain.route, delivery.offset, delivery.attempt);
        if attempt >= self.serving.on_error.attempts {
            tracing::warn!(route, %offset, attempt, %reason, "dead-lettered");
            return self.dead_letter(reason, said);
        }
        tracing::info!(route, %offset, attempt, %reason, "an attempt failed");
        let delay_ms = if delay_ms > 0 { delay_ms.min(RETRY_MS_MAX) } else { self.backoff_ms(attempt) };
        (End::Retried, Settlement::Park { delay_ms })
    }

    /// A message that could not be dead-lettered stays where it is and is tried again: never lost, never in haste.
    fn keep(&self, delivery: &Delivery, why: &SettleError) -> (End, Settlement) {
        let (route, offset, attempt) = (&self.serving.chain.route, delivery.offset, delivery.attempt);
        tracing::error!(route, %offset, attempt, %why, "a message cannot be dead-lettered and stays in its queue");
        (End::Retried, Settlement::Park { delay_ms: self.backoff_ms(attempt).max(STUCK_MS_MIN) })
    }

    fn backoff_ms(&self, attempts: u32) -> u64 {
        backoff(&self.serving.on_error.backoff_ms, attempts)
    }

    fn dead_letter(&self, reason: String, said: Vec<(String, String)>) -> (End, Settlement) {
        let mut headers = vec![(letter::ROUTE.to_owned(), self.serving.chain.route.clone())];
        headers.extend(said);
        (End::DeadLettered, Settlement::DeadLetter { queue: self.serving.on_error.then.clone(), reason, headers })
    }
}

impl Serving {
    pub(crate) fn attempt(
        &mut self,
        message: Message,
        attempt: u32,
        followed: Option<&mut Followed>,
    ) -> (Seen, Decision) {
        let seen = Seen { attempt, now_ms: quipu_queue::now_ms(), seed: seed(&message, &self.chain.route) };
        let hops = followed.map(|followed| &mut followed.hops);
        let mut calls = Counted { stats: &mut self.plugins, hops };
        (seen, self.chain.attempt(message, seen, &self.breaker, &mut calls))
    }

    /// Looks at what the plugins take.
    pub(crate) fn measure(&mut self) {
        for (plugin, info) in self.chain.plugins.iter().zip(&mut self.plugins) {
            info.measure(plugin.as_ref());
        }
    }
}

fn output_bytes(output: &Output) -> usize {
    output.header.len() + output.payload.as_ref().map_or(0, bytes::Bytes::len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quipu_queue::{Stored, Token, Why};

    /// A lane without plugins that sends nothing anywhere.
    fn work(attempts: u32) -> Work {
        let chain = Chain { route: "r".into(), ..Chain::default() };
        let breaker = Arc::new(Breaker::new(OnBroken::Hold, 10));
        let on_error = OnError { attempts, backoff_ms: vec![0], then: None };
        Work::new(Serving { chain, on_error, breaker, plugins: Vec::new() }, Told::default())
    }

    fn sent(offset: u64, attempt: u32, key: Option<u64>) -> Sent {
        let stored = Arc::new(Stored { header: Default::default(), payload: Default::default() });
        let (token, offset) = (Token(offset), Offset(offset));
        let delivery = Delivery { token, offset, attempt, crashes: 0, why: Why::First, stored };
        Sent { delivery, key, end: End::Forwarded, outputs: 1, followed: None }
    }

    fn refuse(work: &mut Work, refused: Vec<(Sent, SettleError)>) -> Slice {
        let mut slice = Slice::default();
        work.handle(Event::Answered(Answer { refused, ..Answer::default() }), &mut slice);
        work.end_slice(&mut slice);
        slice
    }

    fn settlements(slice: &Slice) -> Vec<Settlement> {
        slice.items.iter().map(|settle| settle.settlement.clone()).collect()
    }

    /// Otherwise it would be dead-lettered and refused again as fast as the store can answer.
    #[test]
    fn a_message_that_cannot_be_dead_lettered_waits() {
        let mut work = work(2);
        let mut slice = refuse(&mut work, vec![(sent(0, 2, None), SettleError::TooLarge(1))]);
        assert!(matches!(settlements(&slice)[..], [Settlement::DeadLetter { .. }]));
        let letter = slice.sent.remove(0);
        let slice = refuse(&mut work, vec![(letter, SettleError::NoDeadLetter("in".into()))]);
        assert_eq!(settlements(&slice), [Settlement::Park { delay_ms: STUCK_MS_MIN }]);
        assert_eq!(slice.sent[0].end, End::Retried);
    }

    #[test]
    fn a_reply_that_comes_too_late_is_a_dead_letter_at_once() {
        let inbox = quipu_protocol::Subject::inbox("1").expect("a subject");
        let slice = refuse(&mut work(5), vec![(sent(0, 1, None), SettleError::NoInbox(inbox))]);
        let [Settlement::DeadLetter { reason, .. }] = &settlements(&slice)[..] else { panic!("no dead letter") };
        assert_eq!(reason, "no inbox `$inbox.1`: who asked has what it asked for, gave up, or is gone");
    }

    /// It may never be read, and would hold what is behind it for as long.
    #[test]
    fn a_reply_that_is_not_read_costs_attempts() {
        let inbox = || quipu_protocol::Subject::inbox("1").expect("a subject");
        let mut work = work(2);
        let slice = refuse(&mut work, vec![(sent(0, 1, None), SettleError::InboxFull(inbox()))]);
        assert!(matches!(settlements(&slice)[..], [Settlement::Park { .. }]), "{:?}", settlements(&slice));
        assert_eq!(work.waiting_for(), None, "no queue is waited for");
        let slice = refuse(&mut work, vec![(sent(0, 2, None), SettleError::InboxFull(inbox()))]);
        let [Settlement::DeadLetter { reason, .. }] = &settlements(&slice)[..] else { panic!("no dead letter") };
        assert_eq!(reason, "inbox `$inbox.1` is full: who asked does not read its replies");
    }

    #[test]
    fn a_full_queue_costs_no_attempt_and_no_order_and_is_tried_less_and_less_often() {
        let mut work = work(1);
        let full = || SettleError::Full("out".into());
        let [a, b] = [Some(1), Some(2)];
        let refused = vec![(sent(0, 1, a), full()), (sent(1, 1, b), full()), (sent(2, 1, a), full())];
        let slice = refuse(&mut work, refused);
        let later = |delay_ms| Settlement::Later { delay_ms };
        assert_eq!(settlements(&slice), [later(100), later(100), Settlement::GiveBack]);
        assert_eq!(work.waiting_for().map(|queue| &**queue), Some("out"));
        let mut slice = Slice::default();
        let Sent { delivery, key, .. } = sent(3, 1, Some(3));
        work.handle(Event::Delivered(Incoming { delivery, key }), &mut slice);
        assert_eq!((settlements(&slice), slice.attempts), (vec![later(1_000)], 0), "nothing is tried meanwhile");
        for delay_ms in [200, 400, 800, 1_000, 1_000] {
            work.full.as_mut().expect("it waits").until = Instant::now();
            assert_eq!(settlements(&refuse(&mut work, vec![(sent(4, 1, None), full())])), [later(delay_ms)]);
        }
        let answer = Answer { had_room: true, ..Answer::default() };
        work.handle(Event::Answered(answer), &mut slice);
        assert_eq!(work.waiting_for(), None);
    }
}
