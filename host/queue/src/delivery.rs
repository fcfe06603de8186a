//! Who gets which message next: the delivery of one subscription.
//!
//! Sans-io: tell it what happened with [`Delivery::handle`], do what [`Delivery::poll_action`] returns, and call
//! [`Event::Tick`] when [`Delivery::poll_timeout`] is due. It keeps only what is in flight or set aside; what is settled,
//! what failed and what was perhaps handed out before an unclean stop is in the [state](crate::state), which it asks
//! through a [`View`].

mod consumers;
mod flights;
mod interface;
mod keyed;
#[cfg(test)]
mod random;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::commit::{Mode, Offset};
use crate::state::Mark;
use consumers::Consumers;
use flights::{Flight, Flights, Line};
pub use interface::{
    Action, CREDIT_MAX, ConsumerId, DEADLINE_MAX_MS, Event, Held, IN_FLIGHT_DEFAULT, IN_FLIGHT_MAX, Terms, Token, View,
    Why,
};
use keyed::{Keyed, LOOK_AHEAD};

/// A message that was perhaps in flight at so many unclean stops is handled alone from then on.
const CRASHES_ALONE: u32 = 3;
/// How near the next message may come to the durable mark before a new one is asked for; which is twice that ahead.
const MARK_AHEAD: u64 = 1_024;

/// The delivery of one subscription.
#[derive(Debug)]
pub struct Delivery {
    terms: Terms,
    /// The next offset not looked at in this run.
    next: Offset,
    /// The last mark that was asked for.
    asked: Offset,
    alone: Alone,
    /// Whether the state may still take a message for the only one in flight that is not.
    releases: bool,
    flights: Flights,
    parked: BTreeSet<Parked>,
    set_aside: SetAside,
    consumers: Consumers,
    token_next: u64,
}

/// What waits for a time. With its line, so that a message which cannot be read for a moment still finds its own. Packed,
/// since there may be a million: the line of a message without a key is its offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Parked {
    until_ms: u64,
    offset: Offset,
    key: u32,
    is_keyed: bool,
    why: Why,
}

/// How far a message that is handled alone has come. With the line that it was found in, which it would not be found in
/// again where it cannot be read for a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alone {
    Nothing,
    Asked(Offset, Line),
    Isolated(Offset, Line),
    InFlight(Token),
}

/// What was begun and is free, or waits for something else than time.
#[derive(Debug)]
enum SetAside {
    /// Delivered before, without what is parked.
    Plain(BTreeMap<Offset, Why>),
    /// With what is parked.
    Keyed(Box<Keyed>),
}

impl SetAside {
    /// Nothing yet, for a subscription that is shared so.
    fn new(mode: Mode) -> Self {
        match mode {
            Mode::Shared | Mode::Exclusive => Self::Plain(BTreeMap::new()),
            Mode::KeyShared => Self::Keyed(Box::new(Keyed::new())),
        }
    }
}

/// What may be delivered now.
struct Candidate {
    seat: u32,
    offset: Offset,
    /// None: it was not begun before.
    why: Option<Why>,
    /// Where keys keep order, and whether its line waits for it.
    line: Option<(Line, bool)>,
}

impl Parked {
    fn new(until_ms: u64, offset: Offset, why: Why, line: Line) -> Self {
        let (key, is_keyed) = if let Line::Key(key) = line { (key, true) } else { (0, false) };
        Self { until_ms, offset, key, is_keyed, why }
    }

    fn line(&self) -> Line {
        if self.is_keyed { Line::Key(self.key) } else { Line::Single(self.offset) }
    }
}

impl Delivery {
    /// A delivery that starts at a floor. Tokens count up from `token_first`.
    pub fn new(terms: Terms, floor: Offset, token_first: u64) -> Self {
        Self {
            terms: terms.within_limits(),
            next: floor,
            asked: Offset(0),
            alone: Alone::Nothing,
            // Of an earlier run.
            releases: true,
            flights: Flights::default(),
            parked: BTreeSet::new(),
            set_aside: SetAside::new(terms.mode),
            consumers: Consumers::default(),
            token_next: token_first,
        }
    }

    /// Sets limit and deadline for what is begun from now on, and whether anything is; the mode stays.
    pub fn set_terms(&mut self, terms: Terms) {
        self.terms = Terms { mode: self.terms.mode, ..terms.within_limits() };
    }

    /// Takes note of what happened at this time, in Unix milliseconds.
    pub fn handle(&mut self, now_ms: u64, event: Event) {
        match event {
            Event::Join(id) => self.join(id),
            Event::Credit(id, granted) => self.change_room(id, |consumers, seat| consumers.credit(seat, granted)),
            Event::Window(id, window) => self.change_room(id, |consumers, seat| consumers.set_window(seat, window)),
            Event::Leave(id) => self.leave(id),
            Event::Settled(token) => {
                self.take(token);
            }
            Event::Parked { token, until_ms, why } => self.park(token, until_ms, why),
            Event::Refused(token) => self.refused(now_ms, token),
            Event::GiveBack(token) => self.give_back(token),
            Event::Unreadable { token, until_ms } => self.unreadable(token, until_ms),
            Event::Isolated(offset) => {
                if let Alone::Asked(asked, line) = self.alone
                    && asked == offset
                {
                    self.alone = Alone::Isolated(offset, line);
                }
            }
            Event::Trimmed(below) => {
                self.next = self.next.max(below);
                self.forget(|offset| offset < below);
            }
            Event::Sought(floor) => {
                self.forget(|_| true);
                (self.next, self.asked, self.alone) = (floor, Offset(0), Alone::Nothing);
            }
            Event::Shared(mode, floor) => {
                self.forget(|_| true);
                (self.terms.mode, self.set_aside) = (mode, SetAside::new(mode));
                (self.next, self.asked, self.alone) = (floor, Offset(0), Alone::Nothing);
                self.share_out();
                if let SetAside::Keyed(keyed) = &mut self.set_aside {
                    for seat in self.consumers.seats() {
                        keyed.set_room(seat, self.consumers.has_room(seat));
                    }
                }
            }
            Event::Removed(offset) if offset <= self.next => self.forget(|other| other == offset),
            Event::Available | Event::Removed(_) | Event::Tick => {}
        }
        self.unpark(now_ms);
    }

    /// What to do now; none when nothing is left.
    pub fn poll_action(&mut self, now_ms: u64, view: &impl View) -> Option<Action> {
        if let Some(expire) = self.expire(now_ms) {
            return Some(expire);
        }
        if let Some(release) = self.release(view) {
            return Some(release);
        }
        if self.terms.paused {
            return None;
        }
        self.skip_settled(view);
        if let Some(advance) = self.advance(view) {
            return Some(advance);
        }
        self.deliver(now_ms, view)
    }

    /// When to call again with [`Event::Tick`], in Unix milliseconds.
    pub fn poll_timeout(&self) -> Option<u64> {
        let parked = self.parked.first().map(|parked| parked.until_ms);
        let due = self.flights.first_due().map(|flight| flight.deadline_ms);
        parked.into_iter().chain(due).min()
    }

    /// Counts a message of this size against its consumer's window. A consumer whose window is used up gets none.
    pub fn charge(&mut self, consumer: ConsumerId, bytes: u64) {
        self.change_room(consumer, |consumers, seat| consumers.charge(seat, bytes));
    }

    /// Begins to settle a delivery; none where the token is stale, another's, or settled already. What then becomes of
    /// it is told by [`Event::Settled`], [`Event::Parked`], [`Event::Refused`] or [`Event::GiveBack`].
    pub fn begin_settle(&mut self, consumer: ConsumerId, token: Token) -> Option<Held> {
        self.standing(consumer, token)?;
        self.flights.begin(token)
    }

    /// Begins to settle a delivery and all of the same consumer at lower offsets, by offset; as [`Self::begin_settle`].
    /// Costs a look at everything in flight.
    pub fn begin_settle_through(&mut self, consumer: ConsumerId, token: Token) -> Option<Vec<(Token, Held)>> {
        let last = self.standing(consumer, token)?;
        let (seat, through) = (last.seat, last.offset);
        let is_meant = |flight: &&Flight| flight.seat == seat && flight.offset <= through && !flight.is_settling();
        let mut held: Vec<_> = self.flights.iter().filter(is_meant).map(|f| (f.token, f.held())).collect();
        held.sort_unstable_by_key(|(_, held)| held.offset);
        for (token, _) in &held {
            self.flights.begin(*token);
        }
        Some(held)
    }

    /// Gives a delivery so much time from now on, [`DEADLINE_MAX_MS`] at most; false where the token is stale, another's,
    /// or settled already.
    pub fn extend(&mut self, now_ms: u64, consumer: ConsumerId, token: Token, by_ms: u64) -> bool {
        let Some(flight) = self.standing(consumer, token) else { return false };
        if flight.deadline_ms < u64::MAX {
            self.flights.set_deadline(token, now_ms + by_ms.min(DEADLINE_MAX_MS));
        }
        true
    }

    /// Deliveries that are not settled.
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Messages that wait for their next attempt.
    pub fn parked(&self) -> usize {
        self.parked.len()
    }

    /// Messages that were begun and are neither in flight nor parked.
    pub fn set_aside(&self) -> usize {
        match &self.set_aside {
            SetAside::Plain(returned) => returned.len(),
            SetAside::Keyed(keyed) => keyed.len() - self.parked.len(),
        }
    }

    /// Consumers that are there.
    pub fn consumers(&self) -> usize {
        self.consumers.len()
    }

    fn join(&mut self, id: ConsumerId) {
        if self.consumers.join(id) {
            self.share_out();
        }
    }

    fn leave(&mut self, id: ConsumerId) {
        let Some(seat) = self.consumers.leave(id) else { return };
        self.share_out();
        // One whose settlement is under way goes with that.
        let left = self.flights.iter().filter(|flight| flight.seat == seat && !flight.is_settling());
        let left: Vec<Token> = left.map(|flight| flight.token).collect();
        left.into_iter().for_each(|token| self.give_back(token));
    }

    fn share_out(&mut self) {
        if let SetAside::Keyed(keyed) = &mut self.set_aside {
            keyed.share_out(&self.consumers.seats());
        }
    }

    fn change_room(&mut self, id: ConsumerId, change: impl FnOnce(&mut Consumers, u32)) {
        let Some(seat) = self.consumers.seat(id) else { return };
        change(&mut self.consumers, seat);
        if let SetAside::Keyed(keyed) = &mut self.set_aside {
            keyed.set_room(seat, self.consumers.has_room(seat));
        }
    }

    fn standing(&self, consumer: ConsumerId, token: Token) -> Option<&Flight> {
        let seat = self.consumers.seat(consumer)?;
        self.flights.get(token).filter(|flight| flight.seat == seat && !flight.is_settling())
    }

    fn park(&mut self, token: Token, until_ms: u64, why: Why) {
        let Some(flight) = self.take(token) else { return };
        self.parked.insert(Parked::new(until_ms, flight.offset, why, flight.line()));
        if let SetAside::Keyed(keyed) = &mut self.set_aside {
            keyed.put(flight.line(), flight.offset, (Some(why), true, true), &self.flights);
        }
    }

    /// Its consumer never saw it, and so has the credit for another.
    fn unreadable(&mut self, token: Token, until_ms: u64) {
        let Some(consumer) = self.flights.get(token).and_then(|flight| self.consumers.id(flight.seat)) else { return };
        self.change_room(consumer, Consumers::undeliver);
        self.park(token, until_ms, Why::Returned);
    }

    fn unpark(&mut self, now_ms: u64) {
        while let Some(parked) = self.parked.first().filter(|parked| parked.until_ms <= now_ms).copied() {
            self.parked.pop_first();
            let Parked { offset, why, .. } = parked;
            match &mut self.set_aside {
                SetAside::Plain(returned) => drop(returned.insert(offset, why)),
                SetAside::Keyed(keyed) => keyed.unpark(parked.line(), offset, &self.flights),
            }
        }
    }

    fn refused(&mut self, now_ms: u64, token: Token) {
        self.flights.resume(token);
        let Some(flight) = self.flights.get(token) else { return };
        if self.consumers.id(flight.seat).is_none() {
            self.give_back(token);
        } else if flight.deadline_ms < u64::MAX {
            let again_ms = self.terms.ack_deadline_ms.map_or(u64::MAX, |ms| now_ms + ms);
            let deadline_ms = if flight.deadline_ms > now_ms { flight.deadline_ms } else { again_ms };
            self.flights.set_deadline(token, deadline_ms);
        }
    }

    fn give_back(&mut self, token: Token) {
        let Some(flight) = self.take(token) else { return };
        let why = Why::Returned;
        match &mut self.set_aside {
            SetAside::Plain(returned) => drop(returned.insert(flight.offset, why)),
            SetAside::Keyed(keyed) => {
                keyed.put(flight.line(), flight.offset, (Some(why), true, false), &self.flights);
            }
        }
    }

    fn take(&mut self, token: Token) -> Option<Flight> {
        let flight = self.flights.remove(token)?;
        if self.alone == Alone::InFlight(token) {
            (self.alone, self.releases) = (Alone::Nothing, true);
        }
        if let SetAside::Keyed(keyed) = &mut self.set_aside {
            keyed.landed(flight.line(), &self.flights);
        }
        Some(flight)
    }

    fn forget(&mut self, is_gone: impl Fn(Offset) -> bool) {
        let stale: Vec<Token> = self.flights.iter().filter(|f| is_gone(f.offset)).map(|f| f.token).collect();
        for token in stale {
            self.take(token);
        }
        self.parked.retain(|parked| !is_gone(parked.offset));
        match &mut self.set_aside {
            SetAside::Plain(returned) => returned.retain(|offset, _| !is_gone(*offset)),
            SetAside::Keyed(keyed) => keyed.forget(&is_gone, &self.flights),
        }
        if let Alone::Asked(offset, _) | Alone::Isolated(offset, _) = self.alone
            && is_gone(offset)
        {
            self.alone = Alone::Nothing;
        }
    }

    fn expire(&mut self, now_ms: u64) -> Option<Action> {
        let due = self.flights.first_due().filter(|flight| flight.deadline_ms <= now_ms)?;
        let (token, consumer) = (due.token, self.consumers.id(due.seat)?);
        Some(Action::Expire { consumer, token, held: self.flights.begin(token)? })
    }

    /// What came back, or waits for a consumer, did nothing should the router crash now.
    fn release(&mut self, view: &impl View) -> Option<Action> {
        if self.consumers.len() == 0 && matches!(self.alone, Alone::Isolated(..)) {
            (self.alone, self.releases) = (Alone::Nothing, true);
        }
        let releases = std::mem::take(&mut self.releases);
        view.isolated().filter(|_| releases).map(|offset| Action::Release { offset })
    }

    fn skip_settled(&mut self, view: &impl View) {
        let end = view.end();
        if self.next < end {
            self.next = view.next_unsettled(self.next).min(end);
        }
    }

    /// Asks for a new durable mark long before it is needed, and once.
    fn advance(&mut self, view: &impl View) -> Option<Action> {
        let mark = view.delivered_through();
        if self.consumers.len() == 0 || self.next.0 + MARK_AHEAD <= mark.0 || self.asked > mark {
            return None;
        }
        self.asked = Offset(self.next.0 + 2 * MARK_AHEAD);
        Some(Action::Advance { through: self.asked })
    }

    fn deliver(&mut self, now_ms: u64, view: &impl View) -> Option<Action> {
        if self.flights.len() >= self.terms.in_flight_max {
            return None;
        }
        let candidate = match self.alone {
            Alone::Nothing => self.first(view)?,
            Alone::Asked(..) | Alone::InFlight(_) => return None,
            Alone::Isolated(offset, line) => self.find(offset, line, view)?,
        };
        let mark = view.mark(candidate.offset);
        if mark.crashes >= CRASHES_ALONE && self.alone == Alone::Nothing {
            // What is behind it waits as well, so that it is not overtaken for ever.
            return self.flights.is_empty().then(|| self.isolate(&candidate));
        }
        Some(self.begin(now_ms, candidate, mark, view))
    }

    fn isolate(&mut self, candidate: &Candidate) -> Action {
        let offset = candidate.offset;
        let line = candidate.line.map_or(Line::Single(offset), |(line, _)| line);
        self.alone = Alone::Asked(offset, line);
        Action::Isolate { offset }
    }

    fn begin(&mut self, now_ms: u64, candidate: Candidate, mark: Mark, view: &impl View) -> Action {
        let Candidate { seat, offset, why, line } = candidate;
        let token = Token(self.token_next);
        self.token_next += 1;
        let attempt = mark.attempts.saturating_add(1);
        let flight = Flight::new(token, offset, seat, attempt, line);
        let line = flight.line();
        let deadline_ms = self.terms.ack_deadline_ms.map(|ms| now_ms + ms);
        self.flights.insert(flight, deadline_ms);
        match &mut self.set_aside {
            SetAside::Plain(_) if why.is_none() => self.next = offset.next(),
            SetAside::Plain(returned) => drop(returned.remove(&offset)),
            SetAside::Keyed(keyed) => keyed.took_off(line, offset, &self.flights),
        }
        if matches!(self.alone, Alone::Isolated(..)) {
            self.alone = Alone::InFlight(token);
        }
        let consumer = self.consumers.id(seat).unwrap_or(ConsumerId(u64::MAX));
        self.change_room(consumer, Consumers::deliver);
        let why = why.unwrap_or_else(|| why_new(offset, mark, view));
        Action::Deliver { consumer, token, offset, attempt, crashes: mark.crashes, why }
    }

    /// The lowest that may go to the consumer whose turn it is, or where keys keep order to any.
    fn first(&mut self, view: &impl View) -> Option<Candidate> {
        if let SetAside::Keyed(keyed) = &self.set_aside {
            return keyed.first().or_else(|| self.look_ahead(view)).map(Candidate::from);
        }
        let seat = self.next_seat()?;
        let SetAside::Plain(returned) = &self.set_aside else { return None };
        let returned = returned.first_key_value().map(|(offset, why)| (*offset, Some(*why)));
        let (offset, why) = returned.or_else(|| self.may_begin(view).then_some((self.next, None)))?;
        Some(Candidate { seat, offset, why, line: None })
    }

    /// This one, if a consumer may have it.
    fn find(&mut self, offset: Offset, line: Line, view: &impl View) -> Option<Candidate> {
        if let SetAside::Keyed(keyed) = &self.set_aside {
            return keyed.get(line, offset).map(Candidate::from);
        }
        let seat = self.next_seat()?;
        let SetAside::Plain(returned) = &self.set_aside else { return None };
        let why = returned.get(&offset).copied();
        if why.is_none() && offset != self.next {
            // It is gone, and nobody said so.
            self.alone = Alone::Nothing;
            return self.first(view);
        }
        Some(Candidate { seat, offset, why, line: None })
    }

    fn next_seat(&mut self) -> Option<u32> {
        if self.terms.mode == Mode::Exclusive { self.consumers.first() } else { self.consumers.next() }
    }

    /// Sets new messages aside until one of them may go.
    fn look_ahead(&mut self, view: &impl View) -> Option<keyed::Free> {
        while self.may_begin(view) {
            let offset = self.next;
            self.next = offset.next();
            self.skip_settled(view);
            let line = Line::new(view.key(offset), offset);
            let SetAside::Keyed(keyed) = &mut self.set_aside else { return None };
            // Its line waited for it in an earlier run.
            let again = view.mark(offset).attempts > 0;
            keyed.put(line, offset, (None, again, false), &self.flights);
            if let Some(free) = keyed.first() {
                return Some(free);
            }
        }
        None
    }

    /// Whether the next new message may be begun. What is parked or set aside takes memory too, and a subscription that
    /// only fails must not go through all of its queue.
    fn may_begin(&self, view: &impl View) -> bool {
        let has_room = match &self.set_aside {
            SetAside::Plain(_) => true,
            SetAside::Keyed(keyed) => keyed.has_room() && keyed.len() < LOOK_AHEAD,
        };
        let begun = self.flights.len() + self.parked.len() + self.set_aside();
        let is_there = self.next < view.end() && self.next < view.delivered_through();
        has_room && is_there && begun < self.terms.in_flight_max
    }
}

impl From<keyed::Free> for Candidate {
    fn from(free: keyed::Free) -> Self {
        Self { seat: free.seat, offset: free.offset, why: free.why, line: Some((free.line, free.again)) }
    }
}

/// Why a message goes that this run has not begun before.
fn why_new(offset: Offset, mark: Mark, view: &impl View) -> Why {
    if mark.attempts > 0 {
        Why::Nacked
    } else if offset < view.returned_below() {
        Why::Crashed
    } else {
        Why::First
    }
}
