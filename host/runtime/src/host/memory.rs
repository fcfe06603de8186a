//! What an instance may take of memory and tables, all of its memories together.

use wasmtime::ResourceLimiter;

use crate::runtime::{CORE_INSTANCES_MAX, MEMORIES_MAX};

/// Tables that one plugin may have.
pub(crate) const TABLES_MAX: u32 = 32;

/// Elements of one table, of 8 bytes each. Rust plugins have some 20, Go and Python 5,700.
pub(crate) const TABLE_ELEMENTS_MAX: usize = 20_000;

/// Handles of resources that one instance may have at a time. The contract has no resources, so these are a component's
/// own; the engine keeps some 32 bytes of each.
pub(crate) const HANDLES_MAX: usize = 10_000;

/// Elements of all tables together.
const TABLE_ELEMENTS_TOTAL: usize = 2 * TABLE_ELEMENTS_MAX;

/// Counts what was granted, and remembers a refusal, since the guest's own failure after it would not name it.
#[derive(Debug)]
pub(crate) struct Memory {
    bytes_max: usize,
    bytes: usize,
    elements: usize,
    /// Granted last, and to be taken back should the engine not manage it.
    granted: usize,
    /// Within this call.
    pub(crate) refused: Option<Refused>,
}

/// What was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Memory,
    Table,
}

impl Memory {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: 0, elements: 0, granted: 0, refused: None }
    }

    /// What was granted so far; memories never shrink.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl ResourceLimiter for Memory {
    fn memory_growing(&mut self, now: usize, wanted: usize, _most: Option<usize>) -> wasmtime::Result<bool> {
        let more = wanted.saturating_sub(now);
        let sum = self.bytes.saturating_add(more);
        if sum > self.bytes_max {
            self.granted = 0;
            self.refused = Some(Refused::Memory);
            return Ok(false);
        }
        (self.bytes, self.granted) = (sum, more);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _why: wasmtime::Error) -> wasmtime::Result<()> {
        self.bytes -= std::mem::take(&mut self.granted);
        Ok(())
    }

    fn table_growing(&mut self, now: usize, wanted: usize, _most: Option<usize>) -> wasmtime::Result<bool> {
        let sum = self.elements.saturating_add(wanted.saturating_sub(now));
        if wanted > TABLE_ELEMENTS_MAX || sum > TABLE_ELEMENTS_TOTAL {
            self.refused = Some(Refused::Table);
            return Ok(false);
        }
        self.elements = sum; // a growth that fails after this counts all the same: tables never shrink, and it is rare
        Ok(true)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_MAX as usize
    }

    fn tables(&self) -> usize {
        TABLES_MAX as usize
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_memories_count_together() {
        let mut memory = Memory::new(4 << 16);
        assert!(memory.memory_growing(0, 3 << 16, None).expect("an answer"));
        assert!(!memory.memory_growing(0, 2 << 16, None).expect("an answer"));
        assert_eq!(memory.refused, Some(Refused::Memory));
        assert!(memory.memory_growing(0, 1 << 16, None).expect("an answer"));
    }

    #[test]
    fn a_failed_growth_is_given_back() {
        let mut memory = Memory::new(2 << 16);
        assert!(memory.memory_growing(0, 2 << 16, None).expect("an answer"));
        memory.memory_grow_failed(wasmtime::Error::msg("no")).expect("an answer");
        assert!(memory.memory_growing(0, 2 << 16, None).expect("an answer"));
    }
}
