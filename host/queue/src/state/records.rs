//! Small facts that the router keeps beside its queues, by key. What they mean is for others to know.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;

/// What one takes besides its key and value, near enough.
const OVERHEAD_BYTES: usize = 64;

/// Every record.
#[derive(Debug, Default)]
pub(crate) struct Records {
    by_key: BTreeMap<String, Bytes>,
    bytes: usize,
    /// Changed since the last checkpoint.
    pub(crate) dirty: BTreeSet<String>,
}

impl Records {
    pub(crate) fn get(&self, key: &str) -> Option<&Bytes> {
        self.by_key.get(key)
    }

    /// Those whose keys begin so, sorted by key.
    pub(crate) fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a String, &'a Bytes)> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        self.by_key.range::<str, _>(from).take_while(move |(key, _)| key.starts_with(prefix))
    }

    pub(crate) fn count(&self) -> usize {
        self.by_key.len()
    }

    /// Bytes of memory or disk, near enough.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What a record counts for.
    pub(crate) fn size(key: &str, value: &Bytes) -> usize {
        OVERHEAD_BYTES + key.len() + value.len()
    }

    pub(crate) fn set(&mut self, key: String, value: Option<Bytes>) {
        self.dirty.insert(key.clone());
        self.put(key, value);
    }

    /// The next checkpoint has all of them.
    pub(crate) fn renew(&mut self) {
        self.dirty.extend(self.by_key.keys().cloned());
    }

    /// Takes one that a checkpoint had.
    pub(crate) fn restore(&mut self, key: String, value: Bytes) {
        self.put(key, Some(value));
    }

    /// What changed since this was last called; none for one that is gone.
    pub(crate) fn take_dirty(&mut self) -> Vec<(String, Option<Bytes>)> {
        let dirty = std::mem::take(&mut self.dirty);
        dirty.into_iter().map(|key| (key.clone(), self.by_key.get(&key).cloned())).collect()
    }

    fn put(&mut self, key: String, value: Option<Bytes>) {
        let added = value.as_ref().map_or(0, |value| Self::size(&key, value));
        let before = match value {
            // A copy of its own: a slice would keep all of the buffer it was read in.
            Some(value) => self.by_key.insert(key.clone(), Bytes::copy_from_slice(&value)),
            None => self.by_key.remove(&key),
        };
        self.bytes += added;
        self.bytes -= before.map_or(0, |before| Self::size(&key, &before));
    }
}
