//! A set of offsets above a floor, as a bitmap.

use std::collections::VecDeque;
use std::iter::{once, repeat};

use serde::{Deserialize, Serialize};

use crate::commit::Offset;

/// Everything below the floor, and some offsets above it: one bit each, from the floor to the highest one in it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct OffsetSet {
    floor: u64,
    /// Bit 0 of the first word is the offset `floor / 64 * 64`.
    words: VecDeque<u64>,
}

impl OffsetSet {
    pub(crate) fn below(floor: Offset) -> Self {
        Self { floor: floor.0, words: VecDeque::new() }
    }

    pub(crate) fn floor(&self) -> Offset {
        Offset(self.floor)
    }

    pub(crate) fn contains(&self, offset: Offset) -> bool {
        offset.0 < self.floor
            || self.word(offset.0).is_some_and(|(at, bit)| self.words.get(at).is_some_and(|w| w & bit != 0))
    }

    /// Whether it was not in it before.
    pub(crate) fn insert(&mut self, offset: Offset) -> bool {
        if self.contains(offset) {
            return false;
        }
        let Some((at, bit)) = self.word(offset.0) else { return false };
        if self.words.len() <= at {
            self.words.resize(at + 1, 0);
        }
        self.words[at] |= bit;
        if offset.0 == self.floor {
            self.raise();
        }
        true
    }

    /// Puts everything below an offset into it; how many were not in it before.
    pub(crate) fn insert_below(&mut self, below: Offset) -> u64 {
        let added = self.count_absent(Offset(self.floor), below);
        if below.0 > self.floor {
            let passed = usize::try_from(below.0 / 64 - self.floor / 64).unwrap_or(usize::MAX);
            self.words.drain(..passed.min(self.words.len()));
            self.floor = below.0;
            self.raise();
        }
        added
    }

    /// Puts all of another set into it.
    pub(crate) fn insert_all(&mut self, other: &Self) {
        self.insert_below(Offset(other.floor));
        let first = self.floor / 64;
        let passed = usize::try_from(first - (other.floor / 64).min(first)).unwrap_or(usize::MAX);
        let words = other.words.iter().skip(passed);
        if words.len() > self.words.len() {
            self.words.resize(words.len(), 0);
        }
        self.words.iter_mut().zip(words).for_each(|(word, other)| *word |= other);
        self.raise();
    }

    /// What is in each of these sets, of which there is one at least; all that there is where there is none.
    pub(crate) fn common<'a>(sets: impl Iterator<Item = &'a Self> + Clone) -> Self {
        let floor = sets.clone().map(|set| set.floor).min().unwrap_or(u64::MAX);
        // A set that is whole below its floor may have no words.
        let end = |set: &Self| set.floor / 64 + (set.words.len() as u64).max(1);
        let end = sets.clone().map(end).min().unwrap_or(0);
        let word = |n: u64| sets.clone().fold(u64::MAX, |all, set| all & set.whole_word(n));
        let mut words: VecDeque<u64> = (floor / 64..end).map(word).collect();
        while words.back() == Some(&0) {
            words.pop_back();
        }
        let mut common = Self { floor, words };
        common.raise();
        common
    }

    /// The bits of the offsets from `64 * n` on, those below the floor included.
    fn whole_word(&self, n: u64) -> u64 {
        let first = self.floor / 64;
        match n.checked_sub(first) {
            None => u64::MAX,
            Some(at) => {
                let word = usize::try_from(at).ok().and_then(|at| self.words.get(at)).copied().unwrap_or(0);
                if at == 0 { word | !(u64::MAX << (self.floor % 64)) } else { word }
            }
        }
    }

    /// The first offset at or after this one that is not in it.
    pub(crate) fn next_absent(&self, from: Offset) -> Offset {
        let from = from.0.max(self.floor);
        let base = from / 64 * 64;
        let words = self.word(from).map_or(usize::MAX, |(at, _)| at);
        for ((n, word), below) in (0..).zip(self.words.iter().skip(words)).zip(once(from - base).chain(repeat(0))) {
            // What is before `from` counts as in it.
            let first = (word | !(u64::MAX << below)).trailing_ones();
            if first < 64 {
                return Offset(base + n * 64 + u64::from(first));
            }
        }
        let end = self.floor / 64 * 64 + 64 * self.words.len() as u64;
        Offset(from.max(end))
    }

    /// The last offset before this one that is not in it; none where there is none.
    pub(crate) fn previous_absent(&self, before: Offset) -> Option<Offset> {
        let mut last = before.0.checked_sub(1)?;
        while last >= self.floor {
            let Some(word) = self.word(last).and_then(|(at, _)| self.words.get(at)) else { return Some(Offset(last)) };
            // What is behind `last` counts as in it.
            let above = u64::MAX.checked_shl(u32::try_from(last % 64).unwrap_or(0) + 1).unwrap_or(0);
            let run = u64::from((word | above).leading_ones());
            let base = last / 64 * 64;
            if run < 64 {
                let found = base + 63 - run;
                return (found >= self.floor).then_some(Offset(found));
            }
            last = base.checked_sub(1)?;
        }
        None
    }

    /// How many from the first offset on, and before the second, are not in it.
    pub(crate) fn count_absent(&self, from: Offset, to: Offset) -> u64 {
        let from = from.0.max(self.floor);
        to.0.saturating_sub(from) - self.count(from, to.0)
    }

    /// Offsets at or above the floor that are in it, ascending.
    pub(crate) fn above_floor(&self) -> impl Iterator<Item = Offset> + '_ {
        let base = self.floor / 64 * 64;
        let bits = self.words.iter().zip(0u64..).flat_map(move |(&word, n)| {
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| base + n * 64 + bit)
        });
        bits.filter(|offset| *offset >= self.floor).map(Offset)
    }

    fn raise(&mut self) {
        loop {
            let bit = self.floor % 64;
            let Some(first) = self.words.front() else { return };
            let run = u64::from((first >> bit).trailing_ones());
            self.floor += run;
            if bit + run < 64 {
                break;
            }
            self.words.pop_front();
        }
        // What is below the floor has no bits, so that equal sets are equal.
        if let Some(first) = self.words.front_mut() {
            *first &= u64::MAX << (self.floor % 64);
        }
        if self.words.back() == Some(&0) {
            self.words.clear();
        }
    }

    /// How many from `from` on, which is not below the floor, and before `to` are in it.
    fn count(&self, from: u64, to: u64) -> u64 {
        let Some((first, _)) = self.word(from) else { return 0 };
        let words = (from / 64..to.div_ceil(64)).zip(self.words.iter().skip(first));
        let ones = words.map(|(n, word)| {
            let low = u64::MAX << from.saturating_sub(n * 64);
            let high = to.checked_sub((n + 1) * 64).map_or_else(|| !(u64::MAX << (to - n * 64)), |_| u64::MAX);
            u64::from((word & low & high).count_ones())
        });
        ones.sum()
    }

    /// Where the bit of an offset stands; none below the words.
    fn word(&self, offset: u64) -> Option<(usize, u64)> {
        let at = (offset / 64).checked_sub(self.floor / 64)?;
        Some((usize::try_from(at).ok()?, 1 << (offset % 64)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u64),
        InsertBelow(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![30 => (0..500u64).prop_map(Step::Insert), 1 => (0..500u64).prop_map(Step::InsertBelow)];
        prop::collection::vec(step, 0..400)
    }

    fn absent(model: &BTreeSet<u64>, from: u64, to: u64) -> u64 {
        (from..to).filter(|n| !model.contains(n)).count() as u64
    }

    proptest! {
        #[test]
        fn are_put_together_and_compared(sets in prop::collection::vec((0..300u64, steps()), 1..4)) {
            let (mut all, mut models) = (Vec::new(), Vec::new());
            for (floor, steps) in sets {
                let (mut set, mut model) = (OffsetSet::below(Offset(floor)), (0..floor).collect::<BTreeSet<_>>());
                for step in steps {
                    match step {
                        Step::Insert(offset) => assert_eq!(set.insert(Offset(offset)), model.insert(offset)),
                        Step::InsertBelow(below) => {
                            set.insert_below(Offset(below));
                            model.extend(0..below);
                        }
                    }
                }
                all.push(set);
                models.push(model);
            }
            let of = |model: &BTreeSet<u64>| {
                let mut set = OffsetSet::default();
                for offset in model {
                    set.insert(Offset(*offset));
                }
                set
            };
            let in_each = |offset: &u64| models.iter().all(|model| model.contains(offset));
            prop_assert_eq!(OffsetSet::common(all.iter()), of(&(0..600).filter(in_each).collect()));
            let mut together = all[0].clone();
            all.iter().for_each(|set| together.insert_all(set));
            prop_assert_eq!(together, of(&models.iter().flatten().copied().collect()));
        }

        #[test]
        fn is_the_set_it_says(floor in 0..200u64, steps in steps(), (from, to) in (0..600u64, 0..600u64)) {
            let mut set = OffsetSet::below(Offset(floor));
            let mut model: BTreeSet<u64> = (0..floor).collect();
            for step in steps {
                match step {
                    Step::Insert(offset) => prop_assert_eq!(set.insert(Offset(offset)), model.insert(offset)),
                    Step::InsertBelow(below) => {
                        prop_assert_eq!(set.insert_below(Offset(below)), absent(&model, 0, below));
                        model.extend(0..below);
                    }
                }
            }
            let model_floor = (0..).find(|n| !model.contains(n)).expect("a gap");
            prop_assert_eq!(set.floor().0, model_floor);
            prop_assert!((0..600).all(|n| set.contains(Offset(n)) == model.contains(&n)));
            let above: Vec<u64> = model.range(model_floor..).copied().collect();
            prop_assert_eq!(set.above_floor().map(|o| o.0).collect::<Vec<_>>(), above);
            prop_assert_eq!(set.count_absent(Offset(from), Offset(to)), absent(&model, from, to));
            let next = (from..).find(|n| !model.contains(n)).expect("a gap");
            prop_assert_eq!(set.next_absent(Offset(from)).0, next);
            let previous = (0..from).rev().find(|n| !model.contains(n));
            prop_assert_eq!(set.previous_absent(Offset(from)).map(|offset| offset.0), previous);
        }

        /// However it came to be: a state that was replayed equals the one that was restored.
        #[test]
        fn equal_sets_are_equal(floor in 0..200u64, steps in steps()) {
            let mut set = OffsetSet::below(Offset(floor));
            for step in steps {
                match step {
                    Step::Insert(offset) => assert_ne!(set.contains(Offset(offset)), set.insert(Offset(offset))),
                    Step::InsertBelow(below) => assert!(set.insert_below(Offset(below)) <= below),
                }
            }
            let mut other = OffsetSet::below(set.floor());
            prop_assert!(set.above_floor().all(|offset| other.insert(offset)));
            prop_assert_eq!(set, other);
        }
    }

    #[test]
    fn the_ends_of_the_numbers_do_no_harm() {
        let mut set = OffsetSet::below(Offset(0));
        assert!(set.insert(Offset(70)));
        assert_eq!(set.count_absent(Offset(0), Offset(u64::MAX)), u64::MAX - 1);
        assert_eq!(set.next_absent(Offset(u64::MAX)), Offset(u64::MAX));
        assert_eq!(set.insert_below(Offset(u64::MAX)), u64::MAX - 1);
        assert_eq!(set.floor(), Offset(u64::MAX));
    }
}
