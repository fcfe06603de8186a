//! Named publishers: how far each has come, so that what it sends again is known without a window.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Names remembered at once.
const NAMES_MAX: usize = 10_000;
/// A name that was not used for so long may be forgotten for a new one, in milliseconds: a day.
const IDLE_MS: u64 = 86_400_000;
/// Refused sequences that are remembered: more than a publisher may have under way.
const REFUSED_MAX: usize = 4_096;

/// Every named publisher.
#[derive(Debug, Default)]
pub(crate) struct Publishers {
    by_name: BTreeMap<String, Publisher>,
    /// Changed since the last checkpoint.
    pub(crate) dirty: BTreeSet<String>,
}

/// One named publisher.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Publisher {
    /// Its run; an older one is fenced off.
    pub(crate) epoch: u64,
    /// Everything up to here was stored or refused.
    pub(crate) sequence: u64,
    /// Of those, the refused ones.
    pub(crate) refused: BTreeSet<u64>,
    pub(crate) used_ms: u64,
}

impl Publishers {
    pub(crate) fn get(&self, name: &str) -> Option<&Publisher> {
        self.by_name.get(name)
    }

    /// Whether a name that is not known can be taken, and which one goes for it.
    pub(crate) fn room(&self, now_ms: u64) -> Result<(), ()> {
        if self.by_name.len() < NAMES_MAX || self.idle(now_ms).is_some() { Ok(()) } else { Err(()) }
    }

    pub(crate) fn advance(
        &mut self,
        name: String,
        epoch: u64,
        sequence: u64,
        (refused, stored): (&[u64], &[u64]),
        time_ms: u64,
    ) {
        if !self.by_name.contains_key(&name)
            && self.by_name.len() >= NAMES_MAX
            && let Some(idle) = self.idle(time_ms)
        {
            self.by_name.remove(&idle);
            self.dirty.insert(idle);
        }
        let publisher = self.by_name.entry(name.clone()).or_default();
        if publisher.epoch != epoch {
            *publisher = Publisher { epoch, ..Publisher::default() };
        }
        publisher.sequence = publisher.sequence.max(sequence);
        publisher.used_ms = time_ms;
        publisher.refused.extend(refused);
        publisher.refused.retain(|sequence| !stored.contains(sequence));
        while publisher.refused.len() > REFUSED_MAX {
            publisher.refused.pop_first();
        }
        self.dirty.insert(name);
    }

    /// How many names are known.
    pub(crate) fn count(&self) -> usize {
        self.by_name.len()
    }

    /// The next checkpoint has all of them.
    pub(crate) fn renew(&mut self) {
        self.dirty.extend(self.by_name.keys().cloned());
    }

    pub(crate) fn restore(&mut self, name: String, publisher: Publisher) {
        self.by_name.insert(name, publisher);
    }

    /// What changed since this was last called; none for a name that was forgotten.
    pub(crate) fn take_dirty(&mut self) -> Vec<(String, Option<Publisher>)> {
        let dirty = std::mem::take(&mut self.dirty);
        dirty.into_iter().map(|name| (name.clone(), self.by_name.get(&name).cloned())).collect()
    }

    fn idle(&self, now_ms: u64) -> Option<String> {
        let idle = self.by_name.iter().min_by_key(|(_, publisher)| publisher.used_ms)?;
        (idle.1.used_ms + IDLE_MS <= now_ms).then(|| idle.0.clone())
    }
}
