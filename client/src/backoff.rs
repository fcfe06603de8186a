//! Pauses between attempts: longer each time, with chance in them, and an end. No clock of its own.

use std::time::{Duration, Instant};

use crate::config::Reconnect;

pub(crate) struct Backoff {
    policy: Reconnect,
    chance: u64,
    attempts: u32,
    since: Option<Instant>,
}

impl Backoff {
    pub(crate) fn new(policy: Reconnect, seed: u64) -> Self {
        Self { policy, chance: seed, attempts: 0, since: None }
    }

    /// The pause before the next attempt; none where it has been tried for long enough.
    pub(crate) fn pause(&mut self, now: Instant) -> Option<Duration> {
        let tried = now.duration_since(*self.since.get_or_insert(now));
        let left = self.policy.give_up_after.checked_sub(tried).filter(|left| !left.is_zero())?;
        let factor = 1_u32.checked_shl(self.attempts.min(16)).unwrap_or(u32::MAX);
        self.attempts = self.attempts.saturating_add(1);
        let whole = self.policy.delay_min.saturating_mul(factor).min(self.policy.delay_max);
        Some((whole / 2 + (whole / 2).mul_f64(self.fraction())).min(left))
    }

    /// It worked: the next failure is a first one again.
    pub(crate) fn reset(&mut self) {
        (self.attempts, self.since) = (0, None);
    }

    /// At least 0 and under 1, by splitmix64 (Steele, Lea and Flood, 2014).
    fn fraction(&mut self) -> f64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.chance;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let high = u32::try_from((z ^ (z >> 31)) >> 32).unwrap_or(0);
        f64::from(high) / (f64::from(u32::MAX) + 1.0)
    }
}

/// A seed that differs between processes and between calls.
pub(crate) fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_their_limit_and_end() {
        let policy = Reconnect { give_up_after: Duration::from_secs(20), ..Reconnect::default() };
        let mut backoff = Backoff::new(policy, 7);
        let mut now = Instant::now();
        let start = now;
        let mut whole = policy.delay_min;
        while let Some(pause) = backoff.pause(now) {
            let left = policy.give_up_after - (now - start);
            assert!(pause <= whole && (pause >= whole / 2 || pause == left), "{pause:?} of {whole:?}");
            now += pause;
            whole = (whole * 2).min(policy.delay_max);
        }
        assert_eq!(now - start, policy.give_up_after);
        backoff.reset();
        assert!(backoff.pause(now).expect("a first pause") <= policy.delay_min);
    }
}
