//! What is being published: the bytes that are received or wait for the store, over all publishers, and each one's
//! share of them.
//!
//! A reader never stops reading. What finds no room is thrown away as it comes, and its publisher is told so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that one publisher is granted at the most, and at the least.
const SHARE_BYTES_MAX: u64 = 4 << 20;
const SHARE_BYTES_MIN: u64 = 64 << 10;

/// The budget of all publishers together.
#[derive(Debug)]
pub(crate) struct Ingest {
    limit_bytes: u64,
    used_bytes: AtomicU64,
    publishers: AtomicU64,
}

/// Room that was taken; given back when dropped.
#[derive(Debug)]
pub(crate) struct Room {
    ingest: Arc<Ingest>,
    bytes: u64,
}

/// A publisher among those that share the budget, until it is dropped.
#[derive(Debug)]
pub(crate) struct Share(Arc<Ingest>);

impl Ingest {
    pub(crate) fn new(limit_bytes: u64) -> Arc<Self> {
        Arc::new(Self { limit_bytes, used_bytes: AtomicU64::new(0), publishers: AtomicU64::new(0) })
    }

    /// Room for so many bytes, where it is left.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: u64) -> Option<Room> {
        let more = |used: u64| used.checked_add(bytes).filter(|used| *used <= self.limit_bytes);
        let taken = self.used_bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        taken.ok().map(|_| Room { ingest: self.clone(), bytes })
    }

    /// What is taken.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Acquire)
    }

    /// One more publisher; the shares of the others shrink with their next grants.
    pub(crate) fn join(self: &Arc<Self>) -> Share {
        self.publishers.fetch_add(1, Ordering::AcqRel);
        Share(self.clone())
    }
}

impl Room {
    /// Both together.
    pub(crate) fn add(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.ingest.used_bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

impl Share {
    /// Bytes that the publisher may have under way: half the budget is granted, the rest is for those that came while it
    /// was, and for messages that pass their grant.
    pub(crate) fn bytes(&self) -> u64 {
        let publishers = self.0.publishers.load(Ordering::Acquire).max(1);
        (self.0.limit_bytes / 2 / publishers).clamp(SHARE_BYTES_MIN, SHARE_BYTES_MAX)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.publishers.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_given_back() {
        let ingest = Ingest::new(100);
        let mut first = ingest.reserve(60).expect("room");
        assert!(ingest.reserve(41).is_none());
        first.add(ingest.reserve(40).expect("room"));
        assert!(ingest.reserve(1).is_none());
        drop(first);
        assert!(ingest.reserve(100).is_some());
        assert!(ingest.reserve(u64::MAX).is_none());
    }

    #[test]
    fn shares_shrink_as_publishers_come() {
        let ingest = Ingest::new(16 << 20);
        let first = ingest.join();
        assert_eq!(first.bytes(), 4 << 20);
        let others: Vec<Share> = (0..3).map(|_| ingest.join()).collect();
        assert_eq!(first.bytes(), 2 << 20);
        let crowd: Vec<Share> = (0..1_000).map(|_| ingest.join()).collect();
        assert_eq!(first.bytes(), 64 << 10);
        drop((others, crowd));
        assert_eq!(first.bytes(), 4 << 20);
    }
}
