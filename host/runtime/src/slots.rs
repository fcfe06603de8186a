//! Places in the instance pool, taken for as long as a guest lives.
//!
//! A guest whose instance was thrown away keeps its place, so that an exhausted pool refuses a deployment and never a
//! message.

use std::sync::{Arc, Mutex, PoisonError};

/// What instances take from the pool, each a number of slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slots {
    pub(crate) instances: u32,
    pub(crate) memories: u32,
    pub(crate) tables: u32,
}

/// All places, and how many are free.
#[derive(Debug)]
pub(crate) struct Places {
    total: Slots,
    free: Mutex<Slots>,
}

/// Places that belong to one guest until this is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    places: Arc<Places>,
    taken: Slots,
}

impl Slots {
    fn checked_sub(self, other: Self) -> Option<Self> {
        Some(Self {
            instances: self.instances.checked_sub(other.instances)?,
            memories: self.memories.checked_sub(other.memories)?,
            tables: self.tables.checked_sub(other.tables)?,
        })
    }
}

impl Places {
    pub(crate) fn new(total: Slots) -> Arc<Self> {
        Arc::new(Self { total, free: Mutex::new(total) })
    }

    pub(crate) fn total(&self) -> Slots {
        self.total
    }

    pub(crate) fn free(&self) -> Slots {
        *self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the places, or nothing.
    pub(crate) fn take(self: &Arc<Self>, wanted: Slots) -> Option<Permit> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        *free = free.checked_sub(wanted)?;
        Some(Permit { places: Arc::clone(self), taken: wanted })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut free = self.places.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.instances += self.taken.instances;
        free.memories += self.taken.memories;
        free.tables += self.taken.tables;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back() {
        let places = Places::new(Slots { instances: 2, memories: 3, tables: 2 });
        let two = Slots { instances: 1, memories: 2, tables: 1 };
        let first = places.take(two).expect("room");
        assert!(places.take(two).is_none(), "one memory is left");
        drop(first);
        assert!(places.take(two).is_some());
    }
}
