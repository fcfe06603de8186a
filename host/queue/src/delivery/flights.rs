//! What is in flight: by token, by deadline and, where keys keep order, by key.
//!
//! Packed, since there may be a million: 40 bytes each, besides 6 to 12 in the index of tokens, 4 to 8 where there are
//! deadlines, and 6 to 12 where there are keys.

use hashbrown::HashTable;

use super::interface::{Held, Token};
use crate::commit::Offset;

/// Deliveries in one piece of memory: more of them move none.
const PIECE: usize = 1_024;
const NOWHERE: u32 = u32::MAX;

/// What keeps order: the messages of one key, or a message without a key for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Line {
    /// The low half of the key's hash. Two keys that share it keep order together, which does no harm.
    Key(u32),
    Single(Offset),
}

impl Line {
    pub(super) fn new(key: Option<u64>, offset: Offset) -> Self {
        key.map_or(Self::Single(offset), |hash| Self::Key(u32::try_from(hash & u64::from(u32::MAX)).unwrap_or(0)))
    }
}

/// One delivery in flight.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) token: Token,
    pub(super) offset: Offset,
    pub(super) deadline_ms: u64,
    /// Of the consumer.
    pub(super) seat: u32,
    /// The attempt, and above it the flags.
    state: u32,
    key: u32,
    heap_at: u32,
}

const SETTLING: u32 = 1 << 31;
const AGAIN: u32 = 1 << 30;
const KEYED: u32 = 1 << 29;

impl Flight {
    /// `line`: where keys keep order, and whether its line waits for it, because it failed or came back before.
    pub(super) fn new(token: Token, offset: Offset, seat: u32, attempt: u32, line: Option<(Line, bool)>) -> Self {
        let (keyed, key) = if let Some((Line::Key(key), _)) = line { (KEYED, key) } else { (0, 0) };
        let again = if line.is_some_and(|(_, again)| again) { AGAIN } else { 0 };
        let state = attempt.min(KEYED - 1) | keyed | again;
        Self { token, offset, deadline_ms: u64::MAX, seat, state, key, heap_at: NOWHERE }
    }

    pub(super) fn held(&self) -> Held {
        Held { offset: self.offset, attempt: self.state & (KEYED - 1) }
    }

    pub(super) fn line(&self) -> Line {
        if self.state & KEYED == 0 { Line::Single(self.offset) } else { Line::Key(self.key) }
    }

    pub(super) fn is_settling(&self) -> bool {
        self.state & SETTLING != 0
    }

    pub(super) fn is_again(&self) -> bool {
        self.state & AGAIN != 0
    }
}

/// All deliveries in flight.
#[derive(Debug, Default)]
pub(super) struct Flights {
    /// In no order; all pieces but the last one full.
    pieces: Vec<Vec<Flight>>,
    by_token: HashTable<u32>,
    by_key: HashTable<u32>,
    /// A binary heap of those with a deadline that are not settling, the next one first.
    heap: Vec<u32>,
}

impl Flights {
    pub(super) fn len(&self) -> usize {
        self.pieces.len().saturating_sub(1) * PIECE + self.pieces.last().map_or(0, Vec::len)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Flight> {
        self.pieces.iter().flatten()
    }

    pub(super) fn get(&self, token: Token) -> Option<&Flight> {
        self.find(token).map(|at| self.at(at))
    }

    /// One of those of a line.
    pub(super) fn one_of(&self, line: Line) -> Option<&Flight> {
        let Line::Key(key) = line else { return None };
        self.by_key.find(spread(u64::from(key)), |at| self.at(*at).key == key).map(|at| self.at(*at))
    }

    /// The next one whose deadline comes.
    pub(super) fn first_due(&self) -> Option<&Flight> {
        self.heap.first().map(|at| self.at(*at))
    }

    pub(super) fn insert(&mut self, flight: Flight, deadline_ms: Option<u64>) {
        let at = u32::try_from(self.len()).unwrap_or(NOWHERE);
        let (token, keyed) = (flight.token, flight.state & KEYED != 0);
        let key = u64::from(flight.key);
        if self.pieces.last().is_none_or(|piece| piece.len() == PIECE) {
            self.pieces.push(Vec::new());
        }
        if let Some(piece) = self.pieces.last_mut() {
            piece.push(flight);
        }
        let pieces = &self.pieces;
        self.by_token.insert_unique(spread(token.0), at, |at| spread(locate(pieces, *at).token.0));
        if keyed {
            self.by_key.insert_unique(spread(key), at, |at| spread(u64::from(locate(pieces, *at).key)));
        }
        if let Some(deadline_ms) = deadline_ms {
            self.set_deadline(token, deadline_ms);
        }
    }

    pub(super) fn remove(&mut self, token: Token) -> Option<Flight> {
        let at = self.find(token)?;
        self.unheap(at);
        let last = u32::try_from(self.len() - 1).unwrap_or(NOWHERE);
        forget(&mut self.by_token, spread(token.0), at);
        let (key, moved) = (self.at(at).key, self.at(last));
        let (moved_token, moved_key, moved_heap_at) = (moved.token, moved.key, moved.heap_at);
        if self.at(at).state & KEYED != 0 {
            forget(&mut self.by_key, spread(u64::from(key)), at);
        }
        let mut flight = self.pop()?;
        if last != at {
            // The last one fills the gap.
            rename(&mut self.by_token, spread(moved_token.0), last, at);
            rename(&mut self.by_key, spread(u64::from(moved_key)), last, at);
            if moved_heap_at != NOWHERE {
                self.heap[moved_heap_at as usize] = at;
            }
            std::mem::swap(&mut flight, self.at_mut(at));
        }
        self.shrink();
        Some(flight)
    }

    /// Its settlement began; until it comes to nothing it has no deadline.
    pub(super) fn begin(&mut self, token: Token) -> Option<Held> {
        let at = self.find(token)?;
        self.unheap(at);
        self.at_mut(at).state |= SETTLING;
        Some(self.at(at).held())
    }

    /// Its settlement came to nothing.
    pub(super) fn resume(&mut self, token: Token) {
        if let Some(at) = self.find(token) {
            self.at_mut(at).state &= !SETTLING;
        }
    }

    /// `u64::MAX`: none.
    pub(super) fn set_deadline(&mut self, token: Token, deadline_ms: u64) {
        let Some(at) = self.find(token) else { return };
        self.unheap(at);
        self.at_mut(at).deadline_ms = deadline_ms;
        if deadline_ms < u64::MAX {
            self.heap.push(at);
            self.lift(self.heap.len() - 1);
        }
    }

    fn find(&self, token: Token) -> Option<u32> {
        self.by_token.find(spread(token.0), |at| self.at(*at).token == token).copied()
    }

    fn at(&self, at: u32) -> &Flight {
        locate(&self.pieces, at)
    }

    fn at_mut(&mut self, at: u32) -> &mut Flight {
        &mut self.pieces[at as usize / PIECE][at as usize % PIECE]
    }

    fn pop(&mut self) -> Option<Flight> {
        let piece = self.pieces.last_mut()?;
        let flight = piece.pop();
        if piece.is_empty() {
            self.pieces.pop();
        }
        flight
    }

    /// Gives room back after a burst.
    fn shrink(&mut self) {
        let (len, pieces) = (self.len(), &self.pieces);
        let is_wide = |capacity: usize, len: usize| capacity > PIECE && len < capacity / 8;
        if is_wide(self.by_token.capacity(), len) {
            self.by_token.shrink_to(2 * len, |at| spread(locate(pieces, *at).token.0));
        }
        if is_wide(self.by_key.capacity(), self.by_key.len()) {
            let room = 2 * self.by_key.len();
            self.by_key.shrink_to(room, |at| spread(u64::from(locate(pieces, *at).key)));
        }
        if is_wide(self.heap.capacity(), self.heap.len()) {
            self.heap.shrink_to(2 * self.heap.len());
        }
    }

    fn unheap(&mut self, at: u32) {
        let hole = std::mem::replace(&mut self.at_mut(at).heap_at, NOWHERE);
        if hole == NOWHERE {
            return;
        }
        let hole = hole as usize;
        self.heap.swap_remove(hole);
        if hole < self.heap.len() {
            self.lift(hole);
            self.sink(hole);
        }
    }

    /// Moves an entry of the heap up to where it belongs.
    fn lift(&mut self, mut n: usize) {
        let at = self.heap[n];
        let due = self.due(at);
        while n > 0 && due < self.due(self.heap[(n - 1) / 2]) {
            self.seat(n, self.heap[(n - 1) / 2]);
            n = (n - 1) / 2;
        }
        self.seat(n, at);
    }

    /// Moves an entry of the heap down to where it belongs.
    fn sink(&mut self, mut n: usize) {
        let at = self.heap[n];
        let due = self.due(at);
        let children = |n: usize, len: usize| 2 * n + 1..len.min(2 * n + 3);
        while let Some((first, child)) = children(n, self.heap.len()).map(|c| (self.due(self.heap[c]), c)).min() {
            if due <= first {
                break;
            }
            self.seat(n, self.heap[child]);
            n = child;
        }
        self.seat(n, at);
    }

    fn seat(&mut self, n: usize, at: u32) {
        self.heap[n] = at;
        self.at_mut(at).heap_at = u32::try_from(n).unwrap_or(NOWHERE);
    }

    fn due(&self, at: u32) -> (u64, Token) {
        let flight = self.at(at);
        (flight.deadline_ms, flight.token)
    }
}

fn locate(pieces: &[Vec<Flight>], at: u32) -> &Flight {
    &pieces[at as usize / PIECE][at as usize % PIECE]
}

fn forget(index: &mut HashTable<u32>, hash: u64, at: u32) {
    if let Ok(entry) = index.find_entry(hash, |known| *known == at) {
        entry.remove();
    }
}

fn rename(index: &mut HashTable<u32>, hash: u64, from: u32, to: u32) {
    if let Some(known) = index.find_mut(hash, |known| *known == from) {
        *known = to;
    }
}

/// Tokens are counted up and keys are hashes already: one multiplication spreads them over all bits.
fn spread(number: u64) -> u64 {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Against a plain map: what is there, what is due next, and whether one of a line is there.
        #[test]
        fn finds_what_is_there(steps in prop::collection::vec((0..8u8, 0..200u64, 0..1_000u64), 0..600)) {
            let mut flights = Flights::default();
            let mut model: BTreeMap<Token, (u64, Line)> = BTreeMap::new();
            for ((op, n, deadline_ms), next) in steps.into_iter().zip(0..) {
                let token = model.keys().nth(usize::try_from(n).expect("a count") % model.len().max(1)).copied();
                match (op, token) {
                    (0..=3, _) | (_, None) => {
                        let line = Line::new((n % 3 > 0).then_some(n % 16), Offset(next));
                        flights.insert(Flight::new(Token(next), Offset(next), 0, 1, Some((line, false))), Some(deadline_ms));
                        model.insert(Token(next), (deadline_ms, line));
                    }
                    (4 | 5, Some(token)) => {
                        flights.set_deadline(token, deadline_ms);
                        model.entry(token).and_modify(|known| known.0 = deadline_ms);
                    }
                    (6, Some(token)) => {
                        prop_assert_eq!(flights.begin(token).map(|held| held.offset), Some(Offset(token.0)));
                        model.entry(token).and_modify(|known| known.0 = u64::MAX);
                    }
                    (_, Some(token)) => {
                        prop_assert_eq!(flights.remove(token).map(|flight| flight.offset), Some(Offset(token.0)));
                        model.remove(&token);
                        prop_assert!(flights.remove(token).is_none());
                    }
                }
                let due = model.iter().map(|(token, known)| (known.0, *token)).filter(|due| due.0 < u64::MAX).min();
                prop_assert_eq!(flights.first_due().map(|flight| (flight.deadline_ms, flight.token)), due);
                prop_assert_eq!((flights.len(), flights.is_empty()), (model.len(), model.is_empty()));
                let line = Line::new(Some(n % 16), Offset(0));
                prop_assert_eq!(flights.one_of(line).is_some(), model.values().any(|known| known.1 == line));
            }
            prop_assert!(model.iter().all(|(token, known)| flights.get(*token).is_some_and(|f| f.line() == known.1)));
        }
    }
}
