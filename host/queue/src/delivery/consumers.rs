//! The consumers of a subscription and what room they have.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::interface::ConsumerId;

/// Who is there. A consumer's seat is its number in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Consumers {
    by_seat: BTreeMap<u32, Consumer>,
    seats: HashMap<ConsumerId, u32>,
    /// Seats with room, in turn. One that lost its room goes when its turn comes.
    turn: VecDeque<u32>,
    seat_next: u32,
}

#[derive(Debug)]
struct Consumer {
    id: ConsumerId,
    granted: u64,
    delivered: u64,
    window: u64,
    charged: u64,
    in_turn: bool,
}

impl Consumer {
    fn has_room(&self) -> bool {
        self.delivered < self.granted && self.charged < self.window
    }
}

impl Consumers {
    pub(super) fn len(&self) -> usize {
        self.by_seat.len()
    }

    /// In the order in which they came.
    pub(super) fn seats(&self) -> Vec<u32> {
        self.by_seat.keys().copied().collect()
    }

    pub(super) fn seat(&self, id: ConsumerId) -> Option<u32> {
        self.seats.get(&id).copied()
    }

    pub(super) fn id(&self, seat: u32) -> Option<ConsumerId> {
        self.by_seat.get(&seat).map(|consumer| consumer.id)
    }

    pub(super) fn has_room(&self, seat: u32) -> bool {
        self.by_seat.get(&seat).is_some_and(Consumer::has_room)
    }

    /// The one that came first, if it has room.
    pub(super) fn first(&self) -> Option<u32> {
        self.by_seat.first_key_value().filter(|(_, consumer)| consumer.has_room()).map(|(seat, _)| *seat)
    }

    /// The one whose turn it is.
    pub(super) fn next(&mut self) -> Option<u32> {
        while let Some(&seat) = self.turn.front() {
            if self.has_room(seat) {
                return Some(seat);
            }
            self.leave_turn(seat);
        }
        None
    }

    /// Whether it was not there.
    pub(super) fn join(&mut self, id: ConsumerId) -> bool {
        if self.seats.contains_key(&id) {
            return false;
        }
        let consumer = Consumer { id, granted: 0, delivered: 0, window: u64::MAX, charged: 0, in_turn: false };
        self.by_seat.insert(self.seat_next, consumer);
        self.seats.insert(id, self.seat_next);
        self.seat_next += 1;
        true
    }

    pub(super) fn leave(&mut self, id: ConsumerId) -> Option<u32> {
        let seat = self.seats.remove(&id)?;
        self.by_seat.remove(&seat);
        self.turn.retain(|other| *other != seat);
        Some(seat)
    }

    pub(super) fn credit(&mut self, seat: u32, granted: u64) {
        self.change(seat, |consumer| consumer.granted = consumer.granted.max(granted));
    }

    pub(super) fn set_window(&mut self, seat: u32, window: u64) {
        self.change(seat, |consumer| consumer.window = window);
    }

    pub(super) fn charge(&mut self, seat: u32, bytes: u64) {
        self.change(seat, |consumer| consumer.charged = consumer.charged.saturating_add(bytes));
    }

    /// It got a message, and is the last one in turn now.
    pub(super) fn deliver(&mut self, seat: u32) {
        if self.turn.front() == Some(&seat) {
            self.leave_turn(seat);
        }
        self.change(seat, |consumer| consumer.delivered += 1);
    }

    /// What it was to get cannot be read.
    pub(super) fn undeliver(&mut self, seat: u32) {
        self.change(seat, |consumer| consumer.delivered = consumer.delivered.saturating_sub(1));
    }

    fn change(&mut self, seat: u32, change: impl FnOnce(&mut Consumer)) {
        let Some(consumer) = self.by_seat.get_mut(&seat) else { return };
        change(consumer);
        if consumer.has_room() && !consumer.in_turn {
            consumer.in_turn = true;
            self.turn.push_back(seat);
        }
    }

    fn leave_turn(&mut self, seat: u32) {
        self.turn.pop_front();
        if let Some(consumer) = self.by_seat.get_mut(&seat) {
            consumer.in_turn = false;
        }
    }
}
