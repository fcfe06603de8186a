//! When a log's messages were appended: enough to trim by age, and to start at a time, without reading them.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::commit::{Offset, Retention};

/// Entries kept for the age that a log keeps; what is trimmed is late by a part in so many.
const ENTRIES: u64 = 1_000;
/// Between two entries at the least, in milliseconds.
const STEP_MS_MIN: u64 = 100;
/// Between two entries of a log that is not trimmed by age, in milliseconds: a minute.
const STEP_MS: u64 = 60_000;
/// Entries at the most; then every second one goes.
const ENTRIES_MAX: usize = 4_096;

/// Times and the offset that came next then, both ascending.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Times(VecDeque<(u64, Offset)>);

impl Times {
    /// A message is about to be appended.
    pub(crate) fn note(&mut self, time_ms: u64, next: Offset, retention: &Retention) {
        let Some(step_ms) = step_ms(retention) else { return };
        if self.0.back().is_some_and(|(last_ms, _)| time_ms < last_ms + step_ms) {
            return;
        }
        if self.0.len() >= ENTRIES_MAX {
            let mut at = 0;
            self.0.retain(|_| {
                at += 1;
                at % 2 == 1
            });
        }
        self.0.push_back((time_ms, next));
    }

    /// What was appended before a time is below this; `next` is what the next message gets.
    pub(crate) fn known_before(&self, ms: u64, next: Offset, retention: &Retention) -> Offset {
        // What came a step or more after the last entry would have made one.
        if let (Some((last_ms, _)), Some(step_ms)) = (self.0.back(), step_ms(retention))
            && last_ms + step_ms <= ms
        {
            return next;
        }
        let at = self.0.partition_point(|(time_ms, _)| *time_ms <= ms);
        at.checked_sub(1).map_or(Offset(0), |at| self.0[at].1)
    }

    pub(crate) fn forget_below(&mut self, below: Offset) {
        // The last one at or below stays: what follows it is newer than its time.
        while self.0.get(1).is_some_and(|(_, offset)| *offset <= below) {
            self.0.pop_front();
        }
    }
}

/// Between two entries, in milliseconds; none where times are not kept.
fn step_ms(retention: &Retention) -> Option<u64> {
    let Retention::Log { age_ms, .. } = retention else { return None };
    Some(age_ms.map_or(STEP_MS, |age_ms| (age_ms / ENTRIES).max(STEP_MS_MIN)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_older_than_a_time() {
        let log = Retention::Log { age_ms: Some(100_000), bytes: None, messages: None };
        let mut times = Times::default();
        for n in 0..50 {
            times.note(n * 50, Offset(n), &log);
        }
        let known = |times: &Times, ms| times.known_before(ms, Offset(50), &log).0;
        assert_eq!([0, 99, 100, 1_000, 2_499].map(|ms| known(&times, ms)), [0, 0, 2, 20, 48]);
        // The last two, for which there is no entry, came by then, though nothing came since.
        assert_eq!([2_500, 9_999].map(|ms| known(&times, ms)), [50, 50]);
        times.forget_below(Offset(21));
        assert_eq!([99, 1_000, 1_100].map(|ms| known(&times, ms)), [0, 20, 22]);
    }
}
