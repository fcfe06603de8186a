//! How fast commits may follow each other: freely while the journal has room, and from half of it on slower and slower,
//! down to what checkpoints give back. A hard stop at a full journal would be a pause of most of a second.

/// Longest pause before one commit, in microseconds.
const PAUSE_US_MAX: u64 = 200_000;
/// Bytes a second that checkpoints are taken to manage before one was measured.
const RATE_FIRST: u64 = 100 << 20;

/// The fill of the journal, and what a checkpoint takes away of it.
#[derive(Debug)]
pub(crate) struct Pace {
    journal_bytes: u64,
    /// In records that no checkpoint has.
    used: u64,
    /// Of those, in the checkpoint that is being written.
    frozen: u64,
    since_checkpoint: u64,
    /// Bytes a second.
    rate: u64,
    next_us: Option<u64>,
}

impl Pace {
    pub(crate) fn new(journal_bytes: u64) -> Self {
        Self { journal_bytes, used: 0, frozen: 0, since_checkpoint: 0, rate: RATE_FIRST, next_us: None }
    }

    pub(crate) fn written(&mut self, bytes: u64) {
        self.used += bytes;
        self.since_checkpoint += bytes;
    }

    /// Bytes of records since the last checkpoint began.
    pub(crate) fn since_checkpoint(&self) -> u64 {
        self.since_checkpoint
    }

    pub(crate) fn is_half_full(&self) -> bool {
        self.used > self.journal_bytes / 2
    }

    pub(crate) fn used(&self) -> u64 {
        self.used
    }

    pub(crate) fn freeze(&mut self) {
        (self.frozen, self.since_checkpoint) = (self.used, 0);
    }

    pub(crate) fn checkpointed(&mut self, took_us: u64) {
        if self.frozen > 0 {
            let measured = self.frozen.saturating_mul(1_000_000) / took_us.max(1);
            self.rate = (3 * self.rate + measured) / 4;
        }
        self.used -= std::mem::take(&mut self.frozen);
    }

    pub(crate) fn failed(&mut self) {
        self.since_checkpoint += std::mem::take(&mut self.frozen);
    }

    /// A commit of so many bytes was written: when the next may be.
    pub(crate) fn after(&mut self, now_us: u64, bytes: u64) {
        let half = self.journal_bytes / 2;
        let over = self.used.saturating_sub(half);
        if over == 0 {
            self.next_us = None;
            return;
        }
        let at_rate_us = bytes.saturating_mul(1_000_000) / self.rate.max(1);
        // None at half a journal, twice the rate's at a full one.
        let pause_us = (at_rate_us.saturating_mul(2 * over) / half.max(1)).min(PAUSE_US_MAX);
        self.next_us = Some(now_us + pause_us);
    }

    /// Before this the next commit is not to begin.
    pub(crate) fn next_us(&self) -> Option<u64> {
        self.next_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_slow_down_from_half_a_journal_on() {
        let mut pace = Pace::new(100 << 20);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            pace.written(10 << 20);
            pace.after(0, 10 << 20);
            pauses.push(pace.next_us().unwrap_or(0));
        }
        assert_eq!(pauses[..5], [0; 5]);
        assert!(pauses[5..].is_sorted() && pauses[5] > 10_000 && pauses[9] == PAUSE_US_MAX, "{pauses:?}");
        pace.freeze();
        pace.checkpointed(1_000_000);
        pace.after(0, 1 << 20);
        assert_eq!((pace.next_us(), pace.used()), (None, 0));
    }
}
