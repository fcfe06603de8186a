//! A set of offsets above a floor, as a bitmap.

use std::collections::VecDeque;

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
                return;
            }
            self.words.pop_front();
        }
    }

    /// Where the bit of an offset stands; none below the words.
    fn word(&self, offset: u64) -> Option<(usize, u64)> {
        let at = (offset / 64).checked_sub(self.floor / 64)?;
        Some((usize::try_from(at).ok()?, 1 << (offset % 64)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn is_the_set_it_says(floor in 0..200u64, offsets in prop::collection::vec(0..500u64, 0..400)) {
            let mut set = OffsetSet::below(Offset(floor));
            let mut model: std::collections::BTreeSet<u64> = (0..floor).collect();
            for offset in offsets {
                prop_assert_eq!(set.insert(Offset(offset)), model.insert(offset));
            }
            let model_floor = (0..).find(|n| !model.contains(n)).expect("a gap");
            prop_assert_eq!(set.floor().0, model_floor);
            prop_assert!((0..600).all(|n| set.contains(Offset(n)) == model.contains(&n)));
            let above: Vec<u64> = model.range(model_floor..).copied().collect();
            prop_assert_eq!(set.above_floor().map(|o| o.0).collect::<Vec<_>>(), above);
        }
    }
}
