//! Which chunks of a queue's messages a checkpoint holds, and how much of them is still needed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::commit::Offset;

/// A chunk with fewer live messages than one in so many is rewritten, so that one unsettled message pins no others.
const LIVE_SHARE_MIN: u64 = 4;

/// The chunks of one queue, by the last offset in each.
#[derive(Debug, Default)]
pub(crate) struct Chunks(BTreeMap<Offset, Live>);

/// What a chunk was when it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChunkInfo {
    pub(crate) first: Offset,
    pub(crate) last: Offset,
    pub(crate) count: u64,
    pub(crate) bytes: u64,
}

/// What is left of it.
#[derive(Debug, Clone, Copy)]
struct Live {
    info: ChunkInfo,
    count: u64,
    bytes: u64,
}

impl Chunks {
    /// Takes a chunk that is in the checkpoint now, with what is still live in it.
    pub(crate) fn insert(&mut self, info: ChunkInfo, count: u64, bytes: u64) {
        self.0.insert(info.last, Live { info, count, bytes });
    }

    pub(crate) fn remove(&mut self, last: Offset) {
        self.0.remove(&last);
    }

    /// Forgets those that are wholly below the floor, as the checkpoint does.
    pub(crate) fn forget_below(&mut self, floor: Offset) {
        self.0 = self.0.split_off(&floor);
    }

    /// A message is needed no more. `known` is its size where memory has it; the bytes that count for it.
    pub(crate) fn release(&mut self, offset: Offset, known: Option<u64>) -> u64 {
        let found = self.0.range_mut(offset..).next().map(|(_, live)| live).filter(|live| live.info.first <= offset);
        let Some(live) = found else { return known.unwrap_or(0) };
        let bytes = match live.count {
            0 => known.unwrap_or(0),
            1 => live.bytes,
            count => known.unwrap_or(live.bytes / count),
        };
        live.count = live.count.saturating_sub(1);
        live.bytes = live.bytes.saturating_sub(bytes);
        bytes
    }

    /// The average size of what is live in the chunk that holds an offset; 0 where there is none.
    pub(crate) fn size_of(&self, offset: Offset) -> u64 {
        let found = self.0.range(offset..).next().map(|(_, live)| live).filter(|live| live.info.first <= offset);
        found.map_or(0, |live| live.bytes / live.count.max(1))
    }

    /// Chunks at or above the floor in which little is live, neighbours together; so many at most.
    pub(crate) fn sparse_runs(&self, floor: Offset, most: usize) -> Vec<Vec<ChunkInfo>> {
        let mut runs: Vec<Vec<ChunkInfo>> = Vec::new();
        let (mut count, mut neighbour) = (0, false);
        for live in self.0.range(floor..).map(|(_, live)| live) {
            let sparse = live.count * LIVE_SHARE_MIN < live.info.count;
            match runs.last_mut() {
                Some(run) if sparse && neighbour => run.push(live.info),
                _ if sparse => runs.push(vec![live.info]),
                _ => {}
            }
            (neighbour, count) = (sparse, count + usize::from(sparse));
            if count >= most {
                break;
            }
        }
        runs
    }

    /// Bytes of all chunks as they were written.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.values().map(|live| live.info.bytes).sum()
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.0.values().map(|live| live.bytes).sum()
    }
}
