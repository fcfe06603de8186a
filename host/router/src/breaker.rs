//! The breaker of a chain: finds out which plugins fail on everything.
//!
//! Shared by the lanes of a route, for as long as they have that chain.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use quipu_queue::Offset;

use crate::route::lock;
use crate::settings::{BROKEN_AFTER_MAX, OnBroken};

/// What is known of a chain's plugins.
pub(crate) struct Breaker {
    then: OnBroken,
    after: usize,
    /// One more than the place of the plugin that faulted last and has said nothing since; 0: none.
    streak_of: AtomicUsize,
    /// Different messages that it faulted on in a row.
    streak: Mutex<Vec<Offset>>,
    /// A bit for each broken plugin. Those past the 64th never are.
    broken: AtomicU64,
}

/// A plugin broke.
pub(crate) struct Broke {
    pub(crate) position: usize,
    /// Name and digest.
    pub(crate) plugin: String,
    /// What its last fault said.
    pub(crate) text: String,
}

impl Broke {
    /// For people.
    pub(crate) fn reason(&self, breaker: &Breaker) -> String {
        let then = match breaker.then {
            OnBroken::Hold => "the route stands still until another is deployed or it is resumed",
            OnBroken::Bypass => "it is left out",
            OnBroken::DeadLetter => "messages for it are dead-lettered at once",
        };
        let Self { position, plugin, text } = self;
        let (at, after) = (position + 1, breaker.after);
        format!("plugin {at} ({plugin}) failed on {after} different messages in a row; {then}; last: {text}")
    }
}

impl Breaker {
    pub(crate) fn new(then: OnBroken, after: u32) -> Self {
        Self {
            then,
            after: usize::try_from(after.clamp(1, BROKEN_AFTER_MAX)).unwrap_or(usize::MAX),
            streak_of: AtomicUsize::new(0),
            streak: Mutex::default(),
            broken: AtomicU64::new(0),
        }
    }

    /// What becomes of the messages for a broken plugin.
    pub(crate) fn then(&self) -> OnBroken {
        self.then
    }

    /// Whether a route stands still for a broken plugin.
    pub(crate) fn stands_still(&self) -> bool {
        self.then == OnBroken::Hold
    }

    pub(crate) fn is_broken(&self, position: usize) -> bool {
        self.broken.load(Ordering::Acquire) & bit(position) != 0
    }

    /// The plugin at this place gave a verdict.
    pub(crate) fn passed(&self, position: usize) {
        if self.streak_of.load(Ordering::Acquire) == position + 1 {
            let mut streak = lock(&self.streak);
            streak.clear();
            self.streak_of.store(0, Ordering::Release);
        }
    }

    /// The plugin at this place faulted on this message; whether it is broken with that, and was not before.
    pub(crate) fn faulted(&self, position: usize, offset: Offset) -> bool {
        let mut streak = lock(&self.streak);
        if self.streak_of.swap(position + 1, Ordering::AcqRel) != position + 1 {
            streak.clear();
        }
        if !streak.contains(&offset) && streak.len() < self.after {
            streak.push(offset);
        }
        let breaks = streak.len() >= self.after && bit(position) != 0;
        breaks && self.broken.fetch_or(bit(position), Ordering::AcqRel) & bit(position) == 0
    }

    /// All of them have another chance.
    pub(crate) fn reset(&self) {
        let mut streak = lock(&self.streak);
        streak.clear();
        self.streak_of.store(0, Ordering::Release);
        self.broken.store(0, Ordering::Release);
    }
}

fn bit(position: usize) -> u64 {
    u32::try_from(position).ok().and_then(|position| 1_u64.checked_shl(position)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_different_messages_in_a_row_break_a_plugin() {
        let breaker = Breaker::new(OnBroken::Hold, 3);
        let fault = |position, offset| breaker.faulted(position, Offset(offset));
        assert!(!fault(1, 1) && !fault(1, 1) && !fault(1, 1), "one message, however often");
        assert!(!fault(1, 2));
        breaker.passed(0);
        assert!(!fault(0, 3) && !fault(1, 1) && !fault(1, 2), "another one was between");
        breaker.passed(1);
        assert!(!fault(1, 1) && !fault(1, 2) && fault(1, 3));
        assert!(!fault(1, 4), "it is already");
        assert!(breaker.is_broken(1) && !breaker.is_broken(0));
        breaker.reset();
        assert!(!breaker.is_broken(1) && !fault(1, 1));
        assert!((1..10).all(|offset| !fault(64, offset)) && !breaker.is_broken(64));
    }
}
