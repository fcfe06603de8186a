//! The window in which a repeated message id is a duplicate.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::commit::{DedupKey, Offset, QueueId};

/// How long an id is remembered, in milliseconds of commit time.
pub(crate) const WINDOW_MS: u64 = 120_000;
/// Ids remembered at once, past which publishers wait until some are older than the window. What is gathered for one
/// commit when the mark is reached still goes in.
const IDS_MAX: usize = 4_000_000;

/// Where a message was stored, as its first receipt said.
pub(crate) type Places = Box<[(QueueId, Offset)]>;

/// One id in the window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) key: DedupKey,
    pub(crate) time_ms: u64,
    pub(crate) places: Places,
}

/// The ids of the last two minutes.
#[derive(Debug)]
pub(crate) struct Dedup {
    ids_max: usize,
    /// With the time of the entry: an id may come again after the window.
    places: HashMap<DedupKey, (u64, Places)>,
    by_age: VecDeque<(u64, DedupKey)>,
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
        Self { ids_max, places: HashMap::new(), by_age: VecDeque::new(), fresh: 0 }
    }

    pub(crate) fn find(&self, key: DedupKey) -> Option<&Places> {
        self.places.get(&key).map(|(_, places)| places)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.places.len() >= self.ids_max
    }

    pub(crate) fn insert(&mut self, entry: Entry) {
        self.by_age.push_back((entry.time_ms, entry.key));
        self.places.insert(entry.key, (entry.time_ms, entry.places));
        self.fresh += 1;
    }

    /// Forgets what is older than the window at this time.
    pub(crate) fn expire(&mut self, now_ms: u64) {
        while self.by_age.front().is_some_and(|(time_ms, _)| time_ms + WINDOW_MS <= now_ms) {
            let Some((time_ms, key)) = self.by_age.pop_front() else { return };
            if self.places.get(&key).is_some_and(|(newest_ms, _)| *newest_ms == time_ms) {
                self.places.remove(&key);
            }
        }
        self.fresh = self.fresh.min(self.by_age.len());
    }

    /// Those added since this was last called.
    pub(crate) fn take_fresh(&mut self) -> Vec<Entry> {
        let from = self.by_age.len() - std::mem::take(&mut self.fresh);
        let entry = |&(time_ms, key): &(u64, DedupKey)| Some(Entry { key, time_ms, places: self.find(key)?.clone() });
        self.by_age.range(from..).filter_map(entry).collect()
    }

    /// Puts entries back into what the next checkpoint writes, after one that failed.
    pub(crate) fn renew_fresh(&mut self, count: usize) {
        self.fresh = (self.fresh + count).min(self.by_age.len());
    }

    /// Takes entries that a checkpoint had.
    pub(crate) fn restore(&mut self, entries: Vec<Entry>) {
        let fresh = self.fresh;
        entries.into_iter().for_each(|entry| self.insert(entry));
        self.fresh = fresh;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, time_ms: u64) -> Entry {
        Entry { key: DedupKey::new("s", id), time_ms, places: [(QueueId(0), Offset(time_ms))].into() }
    }

    fn place(dedup: &Dedup, id: &str) -> Option<u64> {
        dedup.find(DedupKey::new("s", id)).map(|places| places[0].1.0)
    }

    #[test]
    fn an_id_is_forgotten_after_the_window() {
        let mut dedup = Dedup::default();
        dedup.insert(entry("a", 5));
        dedup.insert(entry("b", 6));
        dedup.expire(5 + WINDOW_MS - 1);
        assert_eq!((place(&dedup, "a"), place(&dedup, "b")), (Some(5), Some(6)));
        dedup.expire(5 + WINDOW_MS);
        assert_eq!((place(&dedup, "a"), place(&dedup, "b")), (None, Some(6)));
        assert_eq!(dedup.take_fresh(), [entry("b", 6)]);
    }

    /// A checkpoint's row goes when its newest id has left the window; the others in it may have come again meanwhile.
    #[test]
    fn an_id_that_came_again_outlives_its_first_entry() {
        let mut dedup = Dedup::default();
        dedup.restore(vec![entry("a", 5), entry("b", 100)]);
        dedup.restore(vec![entry("a", 5 + WINDOW_MS)]);
        dedup.expire(6 + WINDOW_MS);
        assert_eq!((place(&dedup, "a"), place(&dedup, "b")), (Some(5 + WINDOW_MS), Some(100)));
        assert!(dedup.take_fresh().is_empty());
    }

    #[test]
    fn what_a_failed_checkpoint_had_is_fresh_again() {
        let mut dedup = Dedup::default();
        dedup.restore(vec![entry("old", 1)]);
        dedup.insert(entry("a", 2));
        let taken = dedup.take_fresh().len();
        dedup.insert(entry("b", 3));
        dedup.renew_fresh(taken);
        assert_eq!(dedup.take_fresh(), [entry("a", 2), entry("b", 3)]);
    }
}
