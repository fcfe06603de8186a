//! Who gets which message next: the delivery of one subscription in `shared` mode.
//!
//! Sans-io: tell it what happened with [`Delivery::handle`], hand out what [`Delivery::poll_action`] returns, and call
//! [`Event::Tick`] when [`Delivery::poll_timeout`] is due. It keeps only what is in flight or set aside; what is settled
//! for good is in the [state](crate::state).

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use crate::commit::Offset;

/// Most messages in flight at once per subscription; with the parked ones, before a further message is begun.
pub const IN_FLIGHT_MAX: usize = 10_000;
/// Most deliveries that one consumer may have credit for.
pub const CREDIT_MAX: u32 = 4_096;

/// A consumer of one subscription, for as long as it is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConsumerId(pub u64);

/// Names one delivery; never used again within a run of the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

/// Why a message is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The first time.
    First,
    /// An attempt failed before.
    Nacked,
    /// A consumer went away with it.
    Returned,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Messages up to this offset, itself not among them, are there.
    Available(Offset),
    /// A consumer came, without credit.
    Join(ConsumerId),
    /// A consumer takes so many deliveries in total since it joined.
    Credit(ConsumerId, u64),
    /// A consumer went. What it had in flight goes to the others at once.
    Leave(ConsumerId),
    /// A settlement that began is durable: the message is gone.
    Settled(Token),
    /// A settlement that began is durable: the attempt failed, the next one is not before this time.
    Parked {
        /// Of the failed attempt.
        token: Token,
        /// Attempts that failed so far.
        attempts: u32,
        /// Unix milliseconds.
        until_ms: u64,
    },
    /// A settlement that began came to nothing: the delivery stands.
    Refused(Token),
    /// Time has passed.
    Tick,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Hand this message to this consumer.
    Deliver {
        /// To whom.
        consumer: ConsumerId,
        /// What settles it.
        token: Token,
        /// Which message.
        offset: Offset,
        /// 1 on the first try.
        attempt: u32,
        /// Why.
        why: Why,
    },
}

/// A delivery whose settlement began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Which message.
    pub offset: Offset,
    /// Which attempt.
    pub attempt: u32,
}

/// The delivery of one subscription.
#[derive(Debug)]
pub struct Delivery {
    /// The next offset never delivered in this run, and where messages end.
    next: Offset,
    end: Offset,
    /// At or above `next`, settled in an earlier run.
    settled: BTreeSet<Offset>,
    /// Delivered before and free again.
    returned: BTreeMap<Offset, Why>,
    parked: BTreeSet<(u64, Offset)>,
    /// Failed attempts of what is unsettled.
    attempts: HashMap<Offset, u32>,
    in_flight: HashMap<Token, InFlight>,
    consumers: BTreeMap<ConsumerId, Consumer>,
    /// Consumers with credit, in turn.
    ready: VecDeque<ConsumerId>,
    token_next: u64,
}

#[derive(Debug)]
struct InFlight {
    offset: Offset,
    consumer: ConsumerId,
    attempt: u32,
    settling: bool,
}

#[derive(Debug, Default)]
struct Consumer {
    granted: u64,
    delivered: u64,
    tokens: BTreeSet<Token>,
}

impl Delivery {
    /// A delivery that starts at a floor: `settled` above it are left out, and unsettled ones may have had `attempts`.
    /// Tokens count up from `token_first`.
    pub fn new(
        floor: Offset,
        settled: impl IntoIterator<Item = Offset>,
        attempts: impl IntoIterator<Item = (Offset, u32)>,
        token_first: u64,
    ) -> Self {
        Self {
            next: floor,
            end: floor,
            settled: settled.into_iter().collect(),
            returned: BTreeMap::new(),
            parked: BTreeSet::new(),
            attempts: attempts.into_iter().collect(),
            in_flight: HashMap::new(),
            consumers: BTreeMap::new(),
            ready: VecDeque::new(),
            token_next: token_first,
        }
    }

    /// Takes note of what happened at this time, in Unix milliseconds.
    pub fn handle(&mut self, now_ms: u64, event: Event) {
        match event {
            Event::Available(end) => self.end = self.end.max(end),
            Event::Join(consumer) => drop(self.consumers.insert(consumer, Consumer::default())),
            Event::Credit(consumer, granted) => self.credit(consumer, granted),
            Event::Leave(consumer) => self.leave(consumer),
            Event::Settled(token) => drop(self.take(token).map(|held| self.attempts.remove(&held.offset))),
            Event::Parked { token, attempts, until_ms } => {
                if let Some(held) = self.take(token) {
                    self.attempts.insert(held.offset, attempts);
                    self.parked.insert((until_ms, held.offset));
                }
            }
            Event::Refused(token) => self.refused(token),
            Event::Tick => {}
        }
        self.unpark(now_ms);
    }

    /// What to do now; none when nothing is left.
    pub fn poll_action(&mut self) -> Option<Action> {
        if self.in_flight.len() >= IN_FLIGHT_MAX {
            return None;
        }
        let consumer = *self.ready.front()?;
        let (offset, why) = self.take_next()?;
        self.ready.pop_front();
        let token = Token(self.token_next);
        self.token_next += 1;
        let attempt = self.attempts.get(&offset).map_or(1, |failed| failed + 1);
        self.in_flight.insert(token, InFlight { offset, consumer, attempt, settling: false });
        if let Some(known) = self.consumers.get_mut(&consumer) {
            known.delivered += 1;
            known.tokens.insert(token);
            if known.delivered < known.granted {
                self.ready.push_back(consumer);
            }
        }
        Some(Action::Deliver { consumer, token, offset, attempt, why })
    }

    /// When to call again with [`Event::Tick`], in Unix milliseconds.
    pub fn poll_timeout(&self) -> Option<u64> {
        self.parked.first().map(|(until_ms, _)| *until_ms)
    }

    /// Begins to settle a delivery; none where the token is stale, another's, or settled already. What then becomes of
    /// it is told by [`Event::Settled`], [`Event::Parked`] or [`Event::Refused`].
    pub fn begin_settle(&mut self, consumer: ConsumerId, token: Token) -> Option<Held> {
        let held = self.in_flight.get_mut(&token).filter(|held| held.consumer == consumer && !held.settling)?;
        held.settling = true;
        Some(Held { offset: held.offset, attempt: held.attempt })
    }

    /// Deliveries that are not settled.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Messages that wait for their next attempt.
    pub fn parked(&self) -> usize {
        self.parked.len()
    }

    /// Consumers that are there.
    pub fn consumers(&self) -> usize {
        self.consumers.len()
    }

    fn credit(&mut self, id: ConsumerId, granted: u64) {
        let Some(consumer) = self.consumers.get_mut(&id) else { return };
        let had = consumer.delivered < consumer.granted;
        consumer.granted = consumer.granted.max(granted);
        if !had && consumer.delivered < consumer.granted {
            self.ready.push_back(id);
        }
    }

    fn leave(&mut self, id: ConsumerId) {
        let Some(consumer) = self.consumers.remove(&id) else { return };
        self.ready.retain(|ready| *ready != id);
        for token in consumer.tokens {
            // One whose settlement is under way goes with that.
            if self.in_flight.get(&token).is_some_and(|held| !held.settling) {
                self.give_back(token);
            }
        }
    }

    fn refused(&mut self, token: Token) {
        let Some(held) = self.in_flight.get_mut(&token) else { return };
        held.settling = false;
        if !self.consumers.contains_key(&held.consumer) {
            self.give_back(token);
        }
    }

    fn give_back(&mut self, token: Token) {
        if let Some(held) = self.take(token) {
            self.returned.insert(held.offset, Why::Returned);
        }
    }

    fn take(&mut self, token: Token) -> Option<InFlight> {
        let held = self.in_flight.remove(&token)?;
        if let Some(consumer) = self.consumers.get_mut(&held.consumer) {
            consumer.tokens.remove(&token);
        }
        Some(held)
    }

    fn unpark(&mut self, now_ms: u64) {
        while let Some(&(until_ms, offset)) = self.parked.first() {
            if until_ms > now_ms {
                return;
            }
            self.parked.pop_first();
            self.returned.insert(offset, Why::Nacked);
        }
    }

    fn take_next(&mut self) -> Option<(Offset, Why)> {
        if let Some(returned) = self.returned.pop_first() {
            return Some(returned);
        }
        // What is parked takes memory too, and a subscription that only fails must not go through all of its queue.
        while self.next < self.end && self.in_flight.len() + self.parked.len() < IN_FLIGHT_MAX {
            let offset = self.next;
            self.next = offset.next();
            if !self.settled.remove(&offset) {
                let failed_before = self.attempts.contains_key(&offset);
                return Some((offset, if failed_before { Why::Nacked } else { Why::First }));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays a script: `+N` N more messages, `join a`, `a=N` credit of a in total, `leave a`, `ack T`, `nack T MS`,
    /// `refuse T`, `~MS` time passes. Returns what is delivered, as `a<-OFFSET#TOKEN`, with `/ATTEMPT` after the first
    /// and `!` for returned ones.
    fn play(delivery: &mut Delivery, script: &str) -> String {
        let mut now_ms = 0;
        let mut end = delivery.end;
        let mut out = Vec::new();
        for step in script.split(", ") {
            let words: Vec<&str> = step.split(' ').collect();
            let id = |name: &str| ConsumerId(u64::from(name.as_bytes()[0]));
            let number = |text: &str| text.parse::<u64>().expect("a number");
            let event = match words[..] {
                ["join", name] => Event::Join(id(name)),
                ["leave", name] => Event::Leave(id(name)),
                ["ack", token] => begin(delivery, number(token), Event::Settled, &mut out),
                ["refuse", token] => begin(delivery, number(token), Event::Refused, &mut out),
                ["nack", token, ms] => {
                    let (attempts, until_ms) = (attempt_of(delivery, number(token)), now_ms + number(ms));
                    begin(delivery, number(token), |token| Event::Parked { token, attempts, until_ms }, &mut out)
                }
                [word] => match word.split_at(1) {
                    ("+", n) => {
                        end = Offset(end.0 + number(n));
                        Event::Available(end)
                    }
                    ("~", ms) => {
                        now_ms += number(ms);
                        Event::Tick
                    }
                    (name, grant) => Event::Credit(id(name), number(&grant[1..])),
                },
                _ => panic!("no step: {step}"),
            };
            delivery.handle(now_ms, event);
            while let Some(Action::Deliver { consumer, token, offset, attempt, why }) = delivery.poll_action() {
                let name = char::from(u8::try_from(consumer.0).expect("a letter"));
                let attempt = if attempt > 1 { format!("/{attempt}") } else { String::new() };
                let returned = if why == Why::Returned { "!" } else { "" };
                out.push(format!("{name}<-{offset}#{}{attempt}{returned}", token.0));
            }
        }
        out.join(" ")
    }

    fn attempt_of(delivery: &Delivery, token: u64) -> u32 {
        delivery.in_flight.get(&Token(token)).map_or(0, |held| held.attempt)
    }

    fn begin(delivery: &mut Delivery, token: u64, event: impl Fn(Token) -> Event, out: &mut Vec<String>) -> Event {
        let token = Token(token);
        let holder = delivery.in_flight.get(&token).map_or(ConsumerId(0), |held| held.consumer);
        match delivery.begin_settle(holder, token) {
            Some(_) => event(token),
            None => {
                out.push(format!("stale {}", token.0));
                Event::Tick
            }
        }
    }

    fn check(script: &str, expect: &str) {
        assert_eq!(play(&mut Delivery::new(Offset(0), [], [], 1), script), expect, "{script}");
    }

    #[test]
    fn credit_bounds_what_is_handed_out() {
        check("+3, join a, a=2", "a<-0#1 a<-1#2");
        check("join a, a=2, +3, a=2, a=3", "a<-0#1 a<-1#2 a<-2#3");
        check("join a, a=1, +2, ack 1", "a<-0#1");
        check("+2, a=5", "");
    }

    #[test]
    fn consumers_take_turns() {
        check("join a, join b, a=2, b=3, +5", "a<-0#1 b<-1#2 a<-2#3 b<-3#4 b<-4#5");
    }

    #[test]
    fn a_leaving_consumer_gives_back_at_once() {
        check("join a, a=9, +2, join b, b=9, leave a", "a<-0#1 a<-1#2 b<-0#3! b<-1#4!");
        check("join a, a=9, +2, ack 1, leave a, join b, b=9", "a<-0#1 a<-1#2 b<-1#3!");
    }

    #[test]
    fn a_failed_attempt_waits_and_counts() {
        check("join a, a=9, +1, nack 1 100, ~99, ~1", "a<-0#1 a<-0#2/2");
        check("join a, a=9, +2, nack 1 5, nack 2 3, ~5", "a<-0#1 a<-1#2 a<-0#3/2 a<-1#4/2");
        check(
            "join a, a=9, +1, nack 1 1, ~1, nack 2 1, ~1, leave a, join b, b=1",
            "a<-0#1 a<-0#2/2 a<-0#3/3 b<-0#4/3!",
        );
    }

    #[test]
    fn stale_tokens_change_nothing() {
        check("join a, a=9, +1, ack 1, ack 1", "a<-0#1 stale 1");
        check("join a, a=1, +1, leave a, ack 1, join b, b=1, ack 2", "a<-0#1 stale 1 b<-0#2!");
        check("join a, a=9, +1, refuse 1, ack 1, ack 1", "a<-0#1 stale 1");
    }

    #[test]
    fn what_an_earlier_run_settled_is_left_out() {
        let mut delivery = Delivery::new(Offset(2), [Offset(3), Offset(5)], [(Offset(4), 2)], 7);
        assert_eq!(play(&mut delivery, "+5, join a, a=9"), "a<-2#7 a<-4#8/3 a<-6#9");
        assert!(delivery.settled.is_empty());
    }

    #[test]
    fn in_flight_has_a_limit() {
        let mut delivery = Delivery::new(Offset(0), [], [], 1);
        let script = format!("join a, a={0}, +{0}", IN_FLIGHT_MAX + 5);
        assert_eq!(play(&mut delivery, &script).split(' ').count(), IN_FLIGHT_MAX);
        assert_eq!(play(&mut delivery, "ack 1"), format!("a<-{IN_FLIGHT_MAX}#{}", IN_FLIGHT_MAX + 1));
    }

    #[test]
    fn what_is_parked_counts_against_the_limit() {
        let mut delivery = Delivery::new(Offset(0), [], [], 1);
        let nacks: Vec<String> = (1..=IN_FLIGHT_MAX).map(|token| format!("nack {token} 9")).collect();
        let script = format!("join a, a={0}, +{0}, {1}", 3 * IN_FLIGHT_MAX, nacks.join(", "));
        assert_eq!(play(&mut delivery, &script).split(' ').count(), IN_FLIGHT_MAX);
        assert_eq!((delivery.parked(), delivery.in_flight()), (IN_FLIGHT_MAX, 0));
        assert!(play(&mut delivery, "~9").starts_with(&format!("a<-0#{}/2", IN_FLIGHT_MAX + 1)));
    }
}
