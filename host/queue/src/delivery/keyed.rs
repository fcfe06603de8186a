//! What is set aside where keys keep order, and who may have it.
//!
//! A key's hash falls into one of 4,096 slots, which are shared out evenly over the consumers; a slot moves to another
//! only while nothing of it is in flight. Messages of one key are handed out in order of offset to the owner of its
//! slot. One that failed or came back stops its key: it goes again when nothing else of the key is in flight, alone,
//! and what is behind it follows once it is settled. Every message passes through here, if only for a moment; each step
//! costs the logarithm of what is set aside.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::flights::{Flights, Line};
use super::interface::Why;
use crate::commit::Offset;

/// Most messages set aside, because their key waits or its consumer has no room, before nothing new is begun.
pub(super) const LOOK_AHEAD: usize = 10_000;
const SLOTS: u16 = 4_096;
const NOBODY: u32 = u32::MAX;
const FIRST: Offset = Offset(0);
const LAST: Offset = Offset(u64::MAX);

/// A message that may be handed out, and to whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Free {
    pub(super) seat: u32,
    pub(super) offset: Offset,
    pub(super) line: Line,
    /// None: it was not begun before.
    pub(super) why: Option<Why>,
    pub(super) again: bool,
}

/// The slots and what is set aside.
#[derive(Debug)]
pub(super) struct Keyed {
    slots: Box<[Slot]>,
    waiting: BTreeMap<(Line, Offset), Waiting>,
    /// The first of each line, if it may go.
    ready: BTreeMap<(u16, Offset), Line>,
    /// The first ready one of each slot that has its owner.
    listed: BTreeSet<(u32, Offset, u16)>,
    /// The first listed one of each consumer with room.
    able: BTreeSet<(Offset, u32)>,
    seats: HashMap<u32, Seat>,
    with_room: usize,
}

#[derive(Debug, Clone)]
struct Slot {
    owner: u32,
    /// Who owns it once nothing of it is in flight.
    heir: u32,
    in_flight: u32,
    listed: Option<Offset>,
}

#[derive(Debug)]
struct Waiting {
    why: Option<Why>,
    /// It failed or came back, so its line waits for it.
    again: bool,
    parked: bool,
    ready: bool,
}

#[derive(Debug, Default)]
struct Seat {
    has_room: bool,
    able: Option<Offset>,
}

impl Keyed {
    pub(super) fn new() -> Self {
        let slot = Slot { owner: NOBODY, heir: NOBODY, in_flight: 0, listed: None };
        Self {
            slots: vec![slot; usize::from(SLOTS)].into(),
            waiting: BTreeMap::new(),
            ready: BTreeMap::new(),
            listed: BTreeSet::new(),
            able: BTreeSet::new(),
            seats: HashMap::new(),
            with_room: 0,
        }
    }

    /// Messages set aside, parked ones among them.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn has_room(&self) -> bool {
        self.with_room > 0
    }

    /// The lowest that may go.
    pub(super) fn first(&self) -> Option<Free> {
        let &(_, seat) = self.able.first()?;
        let &(_, offset, slot) = self.listed.range((seat, FIRST, 0)..).next()?;
        self.free(*self.ready.get(&(slot, offset))?, offset, seat)
    }

    /// This one, if it may go.
    pub(super) fn get(&self, line: Line, offset: Offset) -> Option<Free> {
        let seat = self.slots[slot_of(line)].owner_at_rest()?;
        let is_ready = self.waiting.get(&(line, offset))?.ready && self.seats.get(&seat)?.has_room;
        is_ready.then(|| self.free(line, offset, seat))?
    }

    /// Sets a message aside. `why` is none where it was not begun before.
    pub(super) fn put(&mut self, line: Line, offset: Offset, message: (Option<Why>, bool, bool), flights: &Flights) {
        let (why, again, parked) = message;
        self.change(line, flights, |keyed| {
            keyed.waiting.insert((line, offset), Waiting { why, again, parked, ready: false });
        });
    }

    /// A parked message's time has come.
    pub(super) fn unpark(&mut self, line: Line, offset: Offset, flights: &Flights) {
        self.change(line, flights, |keyed| {
            if let Some(waiting) = keyed.waiting.get_mut(&(line, offset)) {
                waiting.parked = false;
            }
        });
    }

    /// A message that was set aside is in flight.
    pub(super) fn took_off(&mut self, line: Line, offset: Offset, flights: &Flights) {
        self.change(line, flights, |keyed| {
            keyed.waiting.remove(&(line, offset));
            keyed.slots[slot_of(line)].in_flight += 1;
        });
    }

    /// A message of a line is in flight no more.
    pub(super) fn landed(&mut self, line: Line, flights: &Flights) {
        self.change(line, flights, |keyed| {
            let slot = &mut keyed.slots[slot_of(line)];
            slot.in_flight -= 1;
            slot.settle_owner();
        });
    }

    /// Forgets the messages that are gone.
    pub(super) fn forget(&mut self, is_gone: impl Fn(Offset) -> bool, flights: &Flights) {
        let gone: Vec<_> = self.waiting.keys().filter(|(_, offset)| is_gone(*offset)).copied().collect();
        for (line, offset) in gone {
            self.change(line, flights, |keyed| {
                keyed.waiting.remove(&(line, offset));
            });
        }
    }

    pub(super) fn set_room(&mut self, seat: u32, has_room: bool) {
        let Some(known) = self.seats.get_mut(&seat) else { return };
        if known.has_room != has_room {
            known.has_room = has_room;
            self.with_room = if has_room { self.with_room + 1 } else { self.with_room - 1 };
            self.refresh_seat(seat);
        }
    }

    /// Shares the slots out over these consumers, and moves no more of them than it must.
    pub(super) fn share_out(&mut self, seats: &[u32]) {
        let gone: Vec<u32> = self.seats.keys().filter(|seat| !seats.contains(seat)).copied().collect();
        for seat in gone {
            self.set_room(seat, false);
            self.seats.remove(&seat);
        }
        for seat in seats {
            self.seats.entry(*seat).or_default();
        }
        let count = seats.len().max(1);
        let share = |n: usize| usize::from(SLOTS) / count + usize::from(n < usize::from(SLOTS) % count);
        let mut left: BTreeMap<u32, usize> = seats.iter().enumerate().map(|(n, seat)| (*seat, share(n))).collect();
        left.retain(|_, left| *left > 0);
        let keeps = |slot: &Slot| take_one(&mut left, slot.heir);
        let kept: Vec<bool> = self.slots.iter().map(keeps).collect();
        for (slot, kept) in (0..SLOTS).zip(kept) {
            self.unlist(slot);
            let heir = left.first_key_value().map_or(NOBODY, |(seat, _)| *seat);
            if !kept {
                take_one(&mut left, heir);
                self.slots[usize::from(slot)].heir = heir;
            }
            self.slots[usize::from(slot)].settle_owner();
            self.list(slot);
        }
    }

    #[cfg(test)]
    pub(super) fn owners(&self) -> Vec<u32> {
        self.slots.iter().map(|slot| slot.owner).collect()
    }

    fn free(&self, line: Line, offset: Offset, seat: u32) -> Option<Free> {
        let waiting = self.waiting.get(&(line, offset))?;
        Some(Free { seat, offset, line, why: waiting.why, again: waiting.again })
    }

    /// Changes something of a line, and then what is ready of it.
    fn change(&mut self, line: Line, flights: &Flights, change: impl FnOnce(&mut Self)) {
        let slot = slot_number(line);
        self.unlist(slot);
        if let Some((offset, first)) = self.head(line) {
            first.ready = false;
            self.ready.remove(&(slot, offset));
        }
        change(self);
        let in_flight = flights.one_of(line).map(|flight| flight.is_again());
        if let Some((offset, first)) = self.head(line) {
            // One that goes again waits for all others of its line; the others wait for one that goes again.
            first.ready = !first.parked && in_flight.is_none_or(|again| !again && !first.again);
            if first.ready {
                self.ready.insert((slot, offset), line);
            }
        }
        self.list(slot);
    }

    fn head(&mut self, line: Line) -> Option<(Offset, &mut Waiting)> {
        self.waiting.range_mut((line, FIRST)..=(line, LAST)).next().map(|((_, offset), waiting)| (*offset, waiting))
    }

    fn unlist(&mut self, number: u16) {
        let slot = &mut self.slots[usize::from(number)];
        if let Some(offset) = slot.listed.take() {
            let owner = slot.owner;
            self.listed.remove(&(owner, offset, number));
            self.refresh_seat(owner);
        }
    }

    fn list(&mut self, number: u16) {
        let slot = &mut self.slots[usize::from(number)];
        let Some(owner) = slot.owner_at_rest() else { return };
        slot.listed = self.ready.range((number, FIRST)..=(number, LAST)).next().map(|((_, offset), _)| *offset);
        if let Some(offset) = slot.listed {
            self.listed.insert((owner, offset, number));
            self.refresh_seat(owner);
        }
    }

    fn refresh_seat(&mut self, number: u32) {
        let Some(seat) = self.seats.get_mut(&number) else { return };
        let first = self.listed.range((number, FIRST, 0)..=(number, LAST, SLOTS)).next();
        let able = first.filter(|_| seat.has_room).map(|(_, offset, _)| *offset);
        if let Some(before) = std::mem::replace(&mut seat.able, able) {
            self.able.remove(&(before, number));
        }
        self.able.extend(able.map(|offset| (offset, number)));
    }
}

impl Slot {
    /// None while it is to move.
    fn owner_at_rest(&self) -> Option<u32> {
        (self.owner == self.heir && self.owner != NOBODY).then_some(self.owner)
    }

    fn settle_owner(&mut self) {
        if self.in_flight == 0 {
            self.owner = self.heir;
        }
    }
}

fn take_one(left: &mut BTreeMap<u32, usize>, seat: u32) -> bool {
    let Some(count) = left.get_mut(&seat) else { return false };
    *count -= 1;
    if *count == 0 {
        left.remove(&seat);
    }
    true
}

fn slot_of(line: Line) -> usize {
    usize::from(slot_number(line))
}

/// Messages without a key share the first slot.
fn slot_number(line: Line) -> u16 {
    match line {
        Line::Key(hash) => u16::try_from(hash % u32::from(SLOTS)).unwrap_or(0),
        Line::Single(_) => 0,
    }
}
