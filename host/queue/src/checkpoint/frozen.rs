//! What one checkpoint writes, and what the state takes note of once it is written.

use std::sync::Arc;

use bytes::Bytes;
use redb::{ReadableTable as _, WriteTransaction};
use serde::Serialize;

use super::{CHUNKS, CheckpointError, DEDUP, FORMAT, INDEX, META, Meta, PUBLISHERS, QUEUES, RECORDS, read, with_table};
use crate::chunk::{Chunk, seal};
use crate::commit::{Offset, QueueId, Stored};
use crate::dedup;
use crate::legacy;
use crate::offsets::OffsetSet;
use crate::state::{ChunkInfo, Publisher, QueueRow, State};

/// Chunks that one checkpoint rewrites at most, so that none takes long.
const REWRITTEN_MAX: usize = 64;

/// What one checkpoint writes: frozen, so that commits go on meanwhile.
#[derive(Debug)]
pub struct Frozen {
    pub(crate) position: u64,
    pub(crate) time_ms: u64,
    pub(crate) store_id: [u8; 16],
    pub(crate) clean: bool,
    /// Whether the file gives room back afterwards.
    pub(crate) shrink: bool,
    /// When the oldest id that is remembered came, in Unix milliseconds: rows of older ones go.
    oldest_id_ms: Option<u64>,
    /// The format of the file, where it is an earlier one.
    pub(crate) upgrade: Option<u32>,
    queue_next: u32,
    subscription_next: u32,
    queues: Vec<FrozenQueue>,
    /// Queues that are no more.
    removed: Vec<QueueId>,
    /// Packed, and how many.
    dedup: Vec<u8>,
    dedup_count: usize,
    publishers: Vec<(String, Option<Publisher>)>,
    records: Vec<(String, Option<Bytes>)>,
}

#[derive(Debug)]
struct FrozenQueue {
    id: QueueId,
    row: QueueRow,
    /// Everything below is needed no more.
    floor: Offset,
    messages: Vec<(Offset, Arc<Stored>)>,
    /// Runs of sparse chunks, with what is live in them.
    rewrite: Vec<(Vec<ChunkInfo>, Vec<Offset>)>,
    /// Where this checkpoint goes on, and the next one.
    stored_from: Offset,
    stored_below: Offset,
}

/// The checkpoint that is being written: what the state takes note of once it is, or has failed.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) position: u64,
    queues: Vec<(QueueId, Offset, Offset)>,
    removed: Vec<QueueId>,
    dedup: usize,
    publishers: Vec<String>,
    records: Vec<String>,
}

/// What a checkpoint wrote.
#[derive(Debug, Default)]
pub(crate) struct Written {
    added: Vec<(QueueId, ChunkInfo)>,
    removed: Vec<(QueueId, Offset)>,
    /// Of the state file.
    pub(crate) file_bytes: u64,
}

impl Frozen {
    /// Freezes what changed since the last checkpoint; `position` is the last journal record in the state.
    pub(crate) fn new(state: &mut State, position: u64, store_id: [u8; 16]) -> Self {
        let dirty = std::mem::take(&mut state.dirty);
        let (there, removed): (Vec<_>, Vec<_>) = dirty.into_iter().partition(|id| state.queues.contains_key(id));
        let queues = there.into_iter().filter_map(|id| FrozenQueue::new(state, id)).collect();
        let dedup_count = state.dedup.fresh_count();
        Self {
            position,
            time_ms: state.time_ms,
            store_id,
            oldest_id_ms: state.dedup.oldest_ms(),
            clean: false,
            shrink: false,
            upgrade: None,
            queue_next: state.queue_next,
            subscription_next: state.subscription_next,
            queues,
            removed,
            dedup: state.dedup.take_fresh(),
            dedup_count,
            publishers: state.publishers.take_dirty(),
            records: state.records.take_dirty(),
        }
    }

    pub(crate) fn begun(&self) -> Begun {
        Begun {
            position: self.position,
            queues: self.queues.iter().map(|queue| (queue.id, queue.stored_below, queue.floor)).collect(),
            removed: self.removed.clone(),
            dedup: self.dedup_count,
            publishers: self.publishers.iter().map(|(name, _)| name.clone()).collect(),
            records: self.records.iter().map(|(key, _)| key.clone()).collect(),
        }
    }

    pub(super) fn write(&self, transaction: &WriteTransaction) -> Result<Written, CheckpointError> {
        let Self { position, time_ms, store_id, clean, queue_next, subscription_next, .. } = *self;
        if let Some(format) = self.upgrade {
            legacy::upgrade(transaction, format)?;
        }
        let meta = Meta { format: FORMAT, store_id, position, time_ms, clean, queue_next, subscription_next };
        put(transaction, META, "meta", ("meta", &meta))?;
        let mut written = Written::default();
        for queue in &self.queues {
            queue.write(transaction, &mut written)?;
        }
        self.removed.iter().try_for_each(|id| remove_queue(transaction, *id))?;
        for (name, publisher) in &self.publishers {
            match publisher {
                Some(publisher) => put(transaction, PUBLISHERS, name.as_str(), ("publishers", publisher))?,
                None => remove(transaction, PUBLISHERS, name)?,
            }
        }
        for (key, value) in &self.records {
            match value {
                Some(value) => put(transaction, RECORDS, key.as_str(), ("records", serde_bytes::Bytes::new(value)))?,
                None => remove(transaction, RECORDS, key)?,
            }
        }
        self.write_dedup(transaction)?;
        Ok(written)
    }

    /// One row for the fresh ids; rows of which memory remembers none go.
    fn write_dedup(&self, transaction: &WriteTransaction) -> Result<(), CheckpointError> {
        with_table(transaction, DEDUP, |table| {
            let mut old = Vec::new();
            for row in table.iter().map_err(redb::Error::from)? {
                let (key, row) = row.map_err(redb::Error::from)?;
                let packed: serde_bytes::ByteBuf = read("dedup", key.value(), row.value())?;
                if dedup::newest_ms(&packed) >= Some(self.oldest_id_ms.unwrap_or(u64::MAX)) {
                    break;
                }
                old.push(key.value());
            }
            for key in old {
                table.remove(key).map_err(redb::Error::from)?;
            }
            Ok(())
        })?;
        match self.dedup.is_empty() {
            true => Ok(()),
            false => put(transaction, DEDUP, self.position, ("dedup", serde_bytes::Bytes::new(&self.dedup))),
        }
    }
}

impl FrozenQueue {
    fn new(state: &State, id: QueueId) -> Option<Self> {
        let queue = state.queues.get(&id)?;
        let floor = queue.floor();
        let mut row = state.row(id)?;
        if queue.is_in_memory_alone() {
            // Only that it is there: what it holds is gone with the process.
            (row.live, row.removed) = (0, OffsetSet::below(row.next));
            let (rewrite, messages, stored_below) = (Vec::new(), Vec::new(), queue.stored_below);
            return Some(Self { id, row, floor, messages, rewrite, stored_from: stored_below, stored_below });
        }
        let live = |chunks: &Vec<ChunkInfo>| {
            let (first, last) = (chunks.first()?.first, chunks.last()?.last);
            let mut live = Vec::new();
            let mut offset = queue.next_live(first);
            while offset <= last && offset < queue.next {
                live.push(offset);
                offset = queue.next_live(offset.next());
            }
            Some(live)
        };
        let runs = queue.chunks.sparse_runs(floor, REWRITTEN_MAX);
        let rewrite =
            runs.into_iter().filter_map(|chunks| Some((live(&chunks)?, chunks))).map(|(l, c)| (c, l)).collect();
        let fresh = queue.live_from(queue.stored_below);
        let messages = fresh.map(|(offset, stored)| (offset, stored.clone())).collect();
        let stored_from = queue.stored_below;
        Some(Self { id, row, floor, messages, rewrite, stored_from, stored_below: queue.next })
    }

    fn write(&self, transaction: &WriteTransaction, written: &mut Written) -> Result<(), CheckpointError> {
        put(transaction, QUEUES, self.id.0, ("queues", &self.row))?;
        with_table(transaction, CHUNKS, |chunks| {
            with_table(transaction, INDEX, |index| self.write_messages(chunks, index, written))
        })
    }

    fn write_messages(
        &self,
        chunks: &mut redb::Table<'_, (u32, u64), &'static [u8]>,
        index: &mut redb::Table<'_, (u32, u64), &'static [u8]>,
        written: &mut Written,
    ) -> Result<(), CheckpointError> {
        let below = (self.id.0, 0)..(self.id.0, self.floor.0);
        chunks.retain_in(below.clone(), |_, _| false).map_err(redb::Error::from)?;
        index.retain_in(below, |_, _| false).map_err(redb::Error::from)?;
        // Of a checkpoint that was told to have failed and is there all the same.
        let again = (self.id.0, self.stored_from.0)..=(self.id.0, u64::MAX);
        chunks.retain_in(again.clone(), |_, _| false).map_err(redb::Error::from)?;
        index.retain_in(again, |_, _| false).map_err(redb::Error::from)?;
        let mut messages = Vec::new();
        for (sparse, live) in &self.rewrite {
            for info in sparse {
                let key = (self.id.0, info.last.0);
                index.remove(key).map_err(redb::Error::from)?;
                written.removed.push((self.id, info.last));
                let Some(row) = chunks.remove(key).map_err(redb::Error::from)? else { continue };
                let chunk: Chunk = read("chunks", format!("{key:?}"), row.value())?;
                messages.extend(chunk.messages.into_iter().filter(|(offset, _)| live.binary_search(offset).is_ok()));
            }
            self.put_chunks(std::mem::take(&mut messages), chunks, index, written)?;
        }
        self.put_chunks(self.messages.clone(), chunks, index, written)
    }

    fn put_chunks(
        &self,
        messages: Vec<(Offset, Arc<Stored>)>,
        chunks: &mut redb::Table<'_, (u32, u64), &'static [u8]>,
        index: &mut redb::Table<'_, (u32, u64), &'static [u8]>,
        written: &mut Written,
    ) -> Result<(), CheckpointError> {
        for chunk in Chunk::cut(self.id, messages) {
            let Some(info) = chunk.info() else { continue };
            let key = (self.id.0, info.last.0);
            let sealed = |table, value: Result<Vec<u8>, _>| {
                value.map_err(|source| CheckpointError::row(table, format!("{key:?}"), source))
            };
            chunks.insert(key, sealed("chunks", seal(&chunk))?.as_slice()).map_err(redb::Error::from)?;
            index.insert(key, sealed("index", seal(&info))?.as_slice()).map_err(redb::Error::from)?;
            written.added.push((self.id, info));
        }
        Ok(())
    }
}

impl Begun {
    pub(crate) fn done(self, state: &mut State, written: &Written) {
        for (id, last) in &written.removed {
            if let Some(queue) = state.queues.get_mut(id) {
                queue.chunks.remove(*last);
            }
        }
        for (id, info) in &written.added {
            if let Some(queue) = state.queues.get_mut(id) {
                let (count, in_memory) = queue.live_within(info.first, info.last);
                let bytes = if in_memory > 0 { in_memory } else { info.bytes * count / info.count.max(1) };
                queue.chunks.insert(*info, count, bytes);
            }
        }
        for (id, stored_below, floor) in self.queues {
            if let Some(queue) = state.queues.get_mut(&id) {
                queue.stored_below = stored_below;
                queue.chunks.forget_below(floor);
            }
        }
    }

    /// The next checkpoint has all of it again.
    pub(crate) fn failed(self, state: &mut State) {
        state.dirty.extend(self.queues.iter().map(|(id, _, _)| *id));
        state.dirty.extend(self.removed);
        state.dedup.renew_fresh(self.dedup);
        state.publishers.dirty.extend(self.publishers);
        state.records.dirty.extend(self.records);
    }
}

fn remove(
    transaction: &WriteTransaction,
    table: redb::TableDefinition<'_, &'static str, &'static [u8]>,
    key: &str,
) -> Result<(), CheckpointError> {
    with_table(transaction, table, |table| {
        table.remove(key).map_err(redb::Error::from)?;
        Ok(())
    })
}

/// Everything of a queue.
fn remove_queue(transaction: &WriteTransaction, id: QueueId) -> Result<(), CheckpointError> {
    with_table(transaction, QUEUES, |table| {
        table.remove(id.0).map_err(redb::Error::from)?;
        Ok(())
    })?;
    for table in [CHUNKS, INDEX] {
        with_table(transaction, table, |table| {
            Ok(table.retain_in((id.0, 0)..=(id.0, u64::MAX), |_, _| false).map_err(redb::Error::from)?)
        })?;
    }
    Ok(())
}

fn put<'k, K: redb::Key + 'static>(
    transaction: &WriteTransaction,
    table: redb::TableDefinition<'_, K, &'static [u8]>,
    key: impl std::borrow::Borrow<K::SelfType<'k>>,
    (name, value): (&'static str, &(impl Serialize + ?Sized)),
) -> Result<(), CheckpointError> {
    let row = seal(value).map_err(|source| CheckpointError::row(name, "", source))?;
    with_table(transaction, table, |table| {
        table.insert(key, row.as_slice()).map_err(redb::Error::from)?;
        Ok(())
    })
}
