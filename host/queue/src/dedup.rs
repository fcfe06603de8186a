//! The window in which a repeated message id is a duplicate.
//!
//! Packed, in memory as in a checkpoint: at 4 million ids every byte of one counts. An id takes [`ENTRY_LEN`] bytes of a
//! ring in order of age, and 6 to 12 in the index.
//!
//! A checkpoint's row, all numbers little-endian: the time of its newest id (`u64`, Unix milliseconds), then its ids,
//! oldest first. Each is the key (16 bytes), its time (`u64`), a queue (`u32`) and an offset (`u64`). Where a message was
//! not stored in exactly one place, the queue is `u32::MAX` and the offset is how many places follow, each a queue
//! (`u32`) and an offset (`u64`).

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::commit::{DedupKey, Offset, QueueId};

/// How long an id is remembered, in milliseconds of commit time.
pub(crate) const WINDOW_MS: u64 = 120_000;
/// Ids remembered at once, past which publishers wait until some are older than the window. What is gathered for one
/// commit when the mark is reached still goes in.
pub(crate) const IDS_MAX: usize = 4_000_000;
pub(crate) const ENTRY_LEN: usize = 36;
/// Stands for "not exactly one place".
const SEVERAL: u32 = u32::MAX;
/// Entries in one piece of the ring: growing moves none of them, and room is given back in pieces.
const PIECE: usize = 4_096;

/// Where a message was stored, as its first receipt said.
pub(crate) type Places = Vec<(QueueId, Offset)>;

/// The ids of the last two minutes.
#[derive(Debug)]
pub(crate) struct Dedup {
    ids_max: usize,
    ring: Ring,
    /// Where in the ring the newest entry of each id is, counted from the first entry there ever was, modulo 2³².
    index: HashTable<u32>,
    /// Keyed by chance, so that no publisher can choose ids which collide.
    hasher: RandomState,
    /// Of the entries that say [`SEVERAL`], in the same order.
    several: VecDeque<Box<[(QueueId, Offset)]>>,
    several_gone: u64,
    /// How many of the newest are in no checkpoint yet.
    fresh: usize,
}

impl Default for Dedup {
    fn default() -> Self {
        Self::with_room_for(IDS_MAX)
    }
}

impl Dedup {
    pub(crate) fn with_room_for(ids_max: usize) -> Self {
        Self {
            ids_max,
            ring: Ring::default(),
            index: HashTable::new(),
            hasher: RandomState::new(),
            several: VecDeque::new(),
            several_gone: 0,
            fresh: 0,
        }
    }

    pub(crate) fn find(&self, key: DedupKey) -> Option<Places> {
        let position = self.index.find(self.hasher.hash_one(key.0), |at| self.ring.get(*at).key == key.0)?;
        Some(self.places(&self.ring.get(*position)))
    }

    pub(crate) fn is_full(&self) -> bool {
        self.ids() >= self.ids_max
    }

    /// Ids remembered.
    pub(crate) fn ids(&self) -> usize {
        self.index.len()
    }

    /// Bytes of memory, near enough.
    pub(crate) fn bytes(&self) -> usize {
        let places: usize = self.several.iter().map(|places| size_of_val(&**places)).sum();
        let several = self.several.capacity() * size_of::<Box<[(QueueId, Offset)]>>();
        self.ring.bytes() + self.index.allocation_size() + several + places
    }

    /// Remembers an id, whose time is not before that of any other. One that is known gets the new places.
    pub(crate) fn insert(&mut self, key: DedupKey, time_ms: u64, places: &[(QueueId, Offset)]) {
        let (queue, offset) = match *places {
            [(queue, offset)] if queue.0 != SEVERAL => (queue.0, offset.0),
            _ => {
                self.several.push_back(places.into());
                (SEVERAL, self.several_gone + self.several.len() as u64 - 1)
            }
        };
        let position = self.ring.push(&Packed { key: key.0, time_ms, queue, offset });
        let (ring, hasher) = (&self.ring, &self.hasher);
        let same = |at: &u32| ring.get(*at).key == key.0;
        match self.index.entry(hasher.hash_one(key.0), same, |at| hasher.hash_one(ring.get(*at).key)) {
            Entry::Occupied(mut known) => *known.get_mut() = position,
            Entry::Vacant(new) => drop(new.insert(position)),
        }
        self.fresh += 1;
    }

    /// Forgets what is older than the window at this time.
    pub(crate) fn expire(&mut self, now_ms: u64) {
        while let Some((position, first)) = self.ring.first().filter(|(_, first)| first.time_ms + WINDOW_MS <= now_ms) {
            // The index may have a newer one of the same id.
            if let Ok(known) = self.index.find_entry(self.hasher.hash_one(first.key), |at| *at == position) {
                known.remove();
            }
            if first.queue == SEVERAL {
                self.several.pop_front();
                self.several_gone += 1;
            }
            self.ring.pop();
        }
        self.fresh = self.fresh.min(self.ring.len());
        if self.index.capacity() > PIECE && self.index.len() < self.index.capacity() / 8 {
            let (ring, hasher) = (&self.ring, &self.hasher);
            self.index.shrink_to(2 * self.index.len(), |at| hasher.hash_one(ring.get(*at).key));
        }
    }

    /// When the oldest that is remembered came, in Unix milliseconds.
    pub(crate) fn oldest_ms(&self) -> Option<u64> {
        self.ring.first().map(|(_, first)| first.time_ms)
    }

    /// Those added since this was last called, as a checkpoint's row; empty when there are none.
    pub(crate) fn take_fresh(&mut self) -> Vec<u8> {
        let fresh = std::mem::take(&mut self.fresh);
        let mut row = Vec::new();
        let Some((_, newest)) = self.ring.last().filter(|_| fresh > 0) else { return row };
        row.reserve_exact(8 + fresh * ENTRY_LEN);
        row.extend(newest.time_ms.to_le_bytes());
        for entry in self.ring.newest(fresh) {
            if entry.queue != SEVERAL {
                row.extend(entry.bytes());
                continue;
            }
            let places = self.places(&entry);
            row.extend(Packed { offset: places.len() as u64, ..entry }.bytes());
            for (queue, offset) in places {
                row.extend(queue.0.to_le_bytes());
                row.extend(offset.0.to_le_bytes());
            }
        }
        row
    }

    /// How many [`Self::take_fresh`] would take.
    pub(crate) fn fresh_count(&self) -> usize {
        self.fresh
    }

    /// Puts entries back into what the next checkpoint writes, after one that failed.
    pub(crate) fn renew_fresh(&mut self, count: usize) {
        self.fresh = (self.fresh + count).min(self.ring.len());
    }

    /// Takes a row that a checkpoint had.
    pub(crate) fn restore(&mut self, row: &[u8]) -> Result<(), String> {
        let fresh = self.fresh;
        let mut rest = row;
        if !row.is_empty() {
            take::<8>(&mut rest)?;
        }
        while !rest.is_empty() {
            let entry = Packed::read(&take(&mut rest)?);
            let places = match entry.queue {
                SEVERAL => (0..entry.offset).map(|_| take(&mut rest).map(place)).collect::<Result<_, _>>()?,
                queue => vec![(QueueId(queue), Offset(entry.offset))],
            };
            self.insert(DedupKey(entry.key), entry.time_ms, &places);
        }
        self.fresh = fresh;
        Ok(())
    }

    fn places(&self, entry: &Packed) -> Places {
        if entry.queue != SEVERAL {
            return vec![(QueueId(entry.queue), Offset(entry.offset))];
        }
        let at = usize::try_from(entry.offset - self.several_gone).ok();
        at.and_then(|at| self.several.get(at)).map(|places| places.to_vec()).unwrap_or_default()
    }
}

/// The time of the newest id in a checkpoint's row, past whose window the row goes.
pub(crate) fn newest_ms(row: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(*row.first_chunk()?))
}

/// One entry as it is read; it rests as [`ENTRY_LEN`] bytes.
struct Packed {
    key: [u8; 16],
    time_ms: u64,
    queue: u32,
    offset: u64,
}

impl Packed {
    fn bytes(&self) -> [u8; ENTRY_LEN] {
        let mut bytes = [0; ENTRY_LEN];
        bytes[..16].copy_from_slice(&self.key);
        bytes[16..24].copy_from_slice(&self.time_ms.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.queue.to_le_bytes());
        bytes[28..].copy_from_slice(&self.offset.to_le_bytes());
        bytes
    }

    fn read(bytes: &[u8; ENTRY_LEN]) -> Self {
        Self {
            key: part(&bytes[..16]),
            time_ms: u64::from_le_bytes(part(&bytes[16..24])),
            queue: u32::from_le_bytes(part(&bytes[24..28])),
            offset: u64::from_le_bytes(part(&bytes[28..])),
        }
    }
}

fn part<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(bytes);
    part
}

fn place(bytes: [u8; 12]) -> (QueueId, Offset) {
    (QueueId(u32::from_le_bytes(part(&bytes[..4]))), Offset(u64::from_le_bytes(part(&bytes[4..]))))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], String> {
    let (first, after) = rest.split_first_chunk().ok_or("a row of message ids ends in the middle of one")?;
    *rest = after;
    Ok(*first)
}

/// Entries in order of age. A position counts from the first entry there ever was, modulo 2³².
#[derive(Debug, Default)]
struct Ring {
    /// All but the last one full; of the first one, `gone` are.
    pieces: VecDeque<Vec<[u8; ENTRY_LEN]>>,
    gone: usize,
    len: usize,
    /// Of the oldest.
    position: u32,
}

impl Ring {
    fn len(&self) -> usize {
        self.len
    }

    fn bytes(&self) -> usize {
        self.pieces.iter().map(|piece| piece.capacity() * ENTRY_LEN).sum()
    }

    fn push(&mut self, entry: &Packed) -> u32 {
        if self.pieces.back().is_none_or(|piece| piece.len() == PIECE) {
            self.pieces.push_back(Vec::new());
        }
        if let Some(last) = self.pieces.back_mut() {
            last.push(entry.bytes());
        }
        self.len += 1;
        self.last_position()
    }

    fn pop(&mut self) {
        self.gone += 1;
        self.len -= 1;
        self.position = self.position.wrapping_add(1);
        if self.gone == PIECE || self.len == 0 {
            self.pieces.pop_front();
            self.gone = 0;
        }
    }

    fn get(&self, position: u32) -> Packed {
        self.at(position.wrapping_sub(self.position) as usize)
    }

    fn first(&self) -> Option<(u32, Packed)> {
        (self.len > 0).then(|| (self.position, self.at(0)))
    }

    fn last(&self) -> Option<(u32, Packed)> {
        let last = self.len.checked_sub(1)?;
        Some((self.last_position(), self.at(last)))
    }

    fn newest(&self, count: usize) -> impl Iterator<Item = Packed> + '_ {
        (self.len - count..self.len).map(|n| self.at(n))
    }

    fn at(&self, n: usize) -> Packed {
        let n = self.gone + n;
        Packed::read(&self.pieces[n / PIECE][n % PIECE])
    }

    fn last_position(&self) -> u32 {
        let last = u32::try_from(self.len - 1).unwrap_or(u32::MAX);
        self.position.wrapping_add(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(dedup: &mut Dedup, id: &str, time_ms: u64) {
        dedup.insert(DedupKey::new("s", id), time_ms, &[(QueueId(0), Offset(time_ms))]);
    }

    fn place(dedup: &Dedup, id: &str) -> Option<u64> {
        dedup.find(DedupKey::new("s", id)).map(|places| places[0].1.0)
    }

    fn row(ids: &[(&str, u64)]) -> Vec<u8> {
        let mut dedup = Dedup::default();
        ids.iter().for_each(|(id, time_ms)| insert(&mut dedup, id, *time_ms));
        dedup.take_fresh()
    }

    #[test]
    fn an_id_is_forgotten_after_the_window() {
        let mut dedup = Dedup::default();
        insert(&mut dedup, "a", 5);
        insert(&mut dedup, "b", 6);
        dedup.expire(5 + WINDOW_MS - 1);
        assert_eq!((place(&dedup, "a"), place(&dedup, "b")), (Some(5), Some(6)));
        dedup.expire(5 + WINDOW_MS);
        assert_eq!((place(&dedup, "a"), place(&dedup, "b"), dedup.ids()), (None, Some(6), 1));
        assert_eq!(dedup.take_fresh(), row(&[("b", 6)]));
    }

    /// A checkpoint's row goes when its newest id has left the window; the others in it may have come again meanwhile.
    #[test]
    fn an_id_that_came_again_outlives_its_first_entry() {
        let mut dedup = Dedup::default();
        dedup.restore(&row(&[("a", 5), ("b", 100)])).expect("a row");
        dedup.restore(&row(&[("a", 5 + WINDOW_MS)])).expect("a row");
        dedup.expire(6 + WINDOW_MS);
        assert_eq!((place(&dedup, "a"), place(&dedup, "b")), (Some(5 + WINDOW_MS), Some(100)));
        assert!(dedup.take_fresh().is_empty());
    }

    #[test]
    fn what_a_failed_checkpoint_had_is_fresh_again() {
        let mut dedup = Dedup::default();
        dedup.restore(&row(&[("old", 1)])).expect("a row");
        insert(&mut dedup, "a", 2);
        let taken = dedup.fresh_count();
        assert_eq!(dedup.take_fresh(), row(&[("a", 2)]));
        insert(&mut dedup, "b", 3);
        dedup.renew_fresh(taken);
        assert_eq!(dedup.take_fresh(), row(&[("a", 2), ("b", 3)]));
    }

    #[test]
    fn a_row_holds_any_number_of_places() {
        let everywhere = [(QueueId(1), Offset(7)), (QueueId(2), Offset(u64::MAX))];
        let odd = [(QueueId(SEVERAL), Offset(3))];
        let cases: [(&str, &[_]); 4] = [("none", &[]), ("two", &everywhere), ("one", &everywhere[..1]), ("odd", &odd)];
        let mut dedup = Dedup::default();
        cases.iter().zip(10..).for_each(|((id, places), ms)| dedup.insert(DedupKey::new("s", id), ms, places));
        dedup.expire(10 + WINDOW_MS);
        let bytes = dedup.take_fresh();
        assert_eq!((newest_ms(&bytes), newest_ms(&[])), (Some(13), None));
        let mut restored = Dedup::default();
        restored.restore(&bytes).expect("a row");
        for (id, places) in &cases[1..] {
            assert_eq!(dedup.find(DedupKey::new("s", id)).as_deref(), Some(*places), "{id}");
            assert_eq!(restored.find(DedupKey::new("s", id)).as_deref(), Some(*places), "{id}");
        }
        assert_eq!(restored.find(DedupKey::new("s", "none")), None);
        let whole = |len: &usize| Dedup::default().restore(&bytes[..*len]).is_ok();
        assert_eq!((1..=bytes.len()).filter(whole).collect::<Vec<_>>(), [8, 68, 104, 152]);
    }

    #[test]
    fn a_full_window_says_so_until_some_are_older() {
        let mut dedup = Dedup::with_room_for(2);
        insert(&mut dedup, "a", 1);
        assert!(!dedup.is_full());
        insert(&mut dedup, "b", 2);
        assert!(dedup.is_full());
        dedup.expire(1 + WINDOW_MS);
        assert!(!dedup.is_full());
    }

    /// Several times round, with positions that pass 2³².
    #[test]
    fn an_id_takes_at_most_48_bytes() {
        const IDS: u64 = 120_000;
        let mut dedup = Dedup::default();
        dedup.ring.position = u32::MAX - 150_000;
        let key = |n: u64| DedupKey(std::array::from_fn(|at| n.to_le_bytes()[at % 8]));
        let info = allocation_counter::measure(|| {
            (0..2 * IDS).for_each(|n| {
                dedup.expire(n);
                dedup.insert(key(n), n, &[(QueueId(1), Offset(n))]);
            });
        });
        assert_eq!(dedup.ids() as u64, WINDOW_MS);
        assert!((0..2 * IDS).all(|n| dedup.find(key(n)).is_some() == (n >= IDS)));
        let bytes = usize::try_from(info.bytes_current).expect("an amount");
        assert!(bytes / dedup.ids() <= 48, "{bytes}");
        assert!(bytes.abs_diff(dedup.bytes()) < bytes / 50, "{bytes} {}", dedup.bytes());
        dedup.expire(u64::MAX / 2);
        assert!(dedup.bytes() < 100_000, "{}", dedup.bytes());
    }
}
