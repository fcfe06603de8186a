//! What can be read of a state file: every whole row, whatever is around it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use quipu_protocol::Message;

use super::report::Problem;
use super::source::{Source, guarded};
use crate::checkpoint::{CHUNKS, DEDUP, FORMAT, INDEX, META, Meta, PUBLISHERS, QUEUES, RECORDS, STATE_FILE};
use crate::chunk::{self, Chunk, RowError};
use crate::commit::{Offset, QueueId};
use crate::legacy;
use crate::state::{ChunkInfo, Publisher, QueueRow, State};

/// Problems told one by one; of the rest, how many there are.
const PROBLEMS_MAX: usize = 1_000;

/// The whole rows of a state file.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) meta: Option<Meta>,
    pub(crate) queues: BTreeMap<u32, QueueRow>,
    pub(crate) chunks: BTreeMap<u32, Held>,
    pub(crate) index: BTreeMap<(u32, u64), ChunkInfo>,
    /// Chunks that are told of.
    damaged: BTreeSet<(u32, u64)>,
    /// With the message ids and the named publishers, and no queues yet.
    pub(crate) state: State,
}

/// What the whole chunks of a queue hold.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) chunks: BTreeMap<u64, ChunkInfo>,
    /// Runs of offsets that do not touch, by the first; each with its last.
    runs: BTreeMap<u64, u64>,
}

/// A list of problems that does not grow without end.
#[derive(Debug)]
pub(crate) struct Problems {
    directory: PathBuf,
    list: Vec<Problem>,
    left_out: usize,
}

impl Found {
    /// Reads all rows; whole chunks are also handed on with their keys and rows.
    pub(crate) fn read(
        source: &Source,
        problems: &mut Problems,
        mut on_chunk: impl FnMut((u32, u64), &[u8], &ChunkInfo),
    ) -> Self {
        let mut found = Self::default();
        found.read_meta(source, problems);
        let format = found.meta.as_ref().map_or(FORMAT, |meta| meta.format);
        if format > FORMAT {
            return found;
        }
        found.read_queues(source, format, problems);
        found.read_index(source, problems);
        found.read_chunks(source, problems, &mut on_chunk);
        found.compare(format, problems);
        found.read_rest(source, format, problems);
        found
    }

    /// Puts the queues into a state, as opening the store does.
    pub(crate) fn restore(&mut self, state: &mut State) {
        for (id, row) in std::mem::take(&mut self.queues) {
            let infos: Vec<ChunkInfo> = self.chunks.get(&id).map(Held::infos).unwrap_or_default();
            state.restore(row, &infos);
        }
    }

    pub(crate) fn holds(&self, queue: QueueId, offset: Offset) -> bool {
        self.chunks.get(&queue.0).is_some_and(|held| held.contains(offset))
    }

    fn read_meta(&mut self, source: &Source, problems: &mut Problems) {
        let mut said = None;
        let whole = source.rows(META, |key, row| {
            if key == "meta" {
                said = Some(legacy::format_of(row).and_then(|format| match format {
                    1..=FORMAT => legacy::meta(format, row),
                    // Nothing more is known of it.
                    _ => Ok(unknown(format)),
                }));
            }
        });
        match (said, whole) {
            (Some(Ok(meta)), _) => self.meta = Some(meta),
            (Some(Err(e)), _) => problems.store("table meta", e.to_string()),
            (None, Err(why)) => problems.store("table meta", why),
            (None, Ok(())) => {}
        }
    }

    fn read_queues(&mut self, source: &Source, format: u32, problems: &mut Problems) {
        let whole = source.rows(QUEUES, |id, row| {
            let read = legacy::queue(format, row);
            let place = format!("table queues, row {id}");
            match read {
                Ok(row) if row.definition.id.0 == id => drop(self.queues.insert(id, row)),
                Ok(row) => problems.store(&place, format!("it is that of queue {}", row.definition.id.0)),
                Err(e) => problems.store(&place, format!("{e}; what the queue is and who settled what is lost")),
            }
        });
        if let Err(why) = whole {
            problems.store("table queues", why);
        }
    }

    fn read_index(&mut self, source: &Source, problems: &mut Problems) {
        let Self { index, queues, .. } = self;
        let whole = source.rows(INDEX, |key, row| match chunk::open::<ChunkInfo>(row) {
            Ok(info) if info.last.0 == key.1 && info.first <= info.last => drop(index.insert(key, info)),
            Ok(_) => problems.row("index", (key, queues), None, "it is about another chunk".into()),
            Err(e) => problems.row("index", (key, queues), None, e.to_string()),
        });
        if let Err(why) = whole {
            problems.store("table index", why);
        }
    }

    fn read_chunks(
        &mut self,
        source: &Source,
        problems: &mut Problems,
        on_chunk: &mut impl FnMut((u32, u64), &[u8], &ChunkInfo),
    ) {
        let whole = source.rows(CHUNKS, |key, row| self.take_chunk(key, row, problems, on_chunk));
        if let Err(why) = whole {
            problems.store("table chunks", why);
            // One that no walk reaches may still be found by its key.
            let known =
                |key: &&(u32, u64)| self.chunks.get(&key.0).is_some_and(|held| held.chunks.contains_key(&key.1));
            let missing: Vec<_> =
                self.index.keys().filter(|key| !known(key) && !self.damaged.contains(*key)).copied().collect();
            for key in missing {
                if let Some(row) = source.chunk_row(key) {
                    self.take_chunk(key, &row, problems, on_chunk);
                }
            }
        }
    }

    fn take_chunk(
        &mut self,
        key: (u32, u64),
        row: &[u8],
        problems: &mut Problems,
        on_chunk: &mut impl FnMut((u32, u64), &[u8], &ChunkInfo),
    ) {
        let held = self.chunks.entry(key.0).or_default();
        // What it said it holds, or everything since the chunk before.
        let before = held.chunks.range(..key.1).next_back().map_or(0, |(last, _)| last.saturating_add(1));
        let first = self.index.get(&key).map_or(before, |info| info.first.0);
        match sound_chunk(key, row).and_then(|chunk| held.insert(&chunk)) {
            Ok(info) => on_chunk(key, row, &info),
            Err(why) => {
                self.damaged.insert(key);
                problems.row("chunks", (key, &self.queues), Some((Offset(first), Offset(key.1))), why);
            }
        }
    }

    /// Whether index and chunks say the same.
    fn compare(&self, format: u32, problems: &mut Problems) {
        if format == 1 {
            return;
        }
        for (key, info) in &self.index {
            let offsets = Some((info.first, info.last));
            match self.chunks.get(&key.0).and_then(|held| held.chunks.get(&key.1)) {
                None if self.damaged.contains(key) => {}
                None => problems.row("chunks", (*key, &self.queues), offsets, "it is missing".into()),
                Some(chunk) if chunk != info => {
                    problems.row("index", (*key, &self.queues), offsets, "it says other than the chunk itself".into());
                }
                Some(_) => {}
            }
        }
        let chunks = self.chunks.iter().flat_map(|(id, held)| held.chunks.values().map(|info| (*id, *info)));
        for (id, info) in chunks {
            let key = (id, info.last.0);
            if !self.index.contains_key(&key) {
                let what = "it is missing, so that nobody finds the chunk again";
                problems.row("index", (key, &self.queues), Some((info.first, info.last)), what.into());
            }
            if !self.queues.contains_key(&id) {
                problems.store("table queues", format!("there is no row of queue {id}, which has messages"));
            }
        }
    }

    fn read_rest(&mut self, source: &Source, format: u32, problems: &mut Problems) {
        let Self { state, meta, .. } = self;
        let whole = source.rows(DEDUP, |position, row| {
            let read = guarded(|| match format {
                1 => legacy::dedup(row, &mut state.dedup).map_err(|e| e.to_string()),
                _ => chunk::open::<serde_bytes::ByteBuf>(row)
                    .map_err(|e| e.to_string())
                    .and_then(|packed| state.dedup.restore(&packed)),
            });
            if let Err(why) = read {
                let what = format!("{why}; a message that is published again may be stored twice");
                problems.state("dedup", position, what);
            }
        });
        if let Err(why) = whole {
            problems.store("table dedup", why);
        }
        let whole = source.rows(PUBLISHERS, |name, row| match chunk::open::<Publisher>(row) {
            Ok(publisher) => state.publishers.restore(name.to_owned(), publisher),
            Err(e) => {
                let what = format!("{e}; what this publisher sends again may be stored twice");
                problems.state("publishers", name, what);
            }
        });
        if let Err(why) = whole {
            problems.store("table publishers", why);
        }
        let whole = source.rows(RECORDS, |key, row| match chunk::open::<serde_bytes::ByteBuf>(row) {
            Ok(value) => state.records.restore(key.to_owned(), value.into_vec().into()),
            Err(e) => problems.state("records", key, format!("{e}; what the router noted there is lost")),
        });
        if let Err(why) = whole {
            problems.store("table records", why);
        }
        if let Some(meta) = meta {
            state.time_ms = meta.time_ms;
            (state.queue_next, state.subscription_next) = (meta.queue_next, meta.subscription_next);
            state.dedup.expire(meta.time_ms);
        }
    }
}

impl Held {
    pub(crate) fn infos(&self) -> Vec<ChunkInfo> {
        self.chunks.values().copied().collect()
    }

    pub(crate) fn contains(&self, offset: Offset) -> bool {
        self.runs.range(..=offset.0).next_back().is_some_and(|(_, last)| offset.0 <= *last)
    }

    /// The last offset that any chunk holds.
    pub(crate) fn last(&self) -> Option<Offset> {
        self.chunks.keys().next_back().copied().map(Offset)
    }

    /// What is in no chunk, from 0 up to the last one.
    pub(crate) fn gaps(&self) -> impl Iterator<Item = std::ops::Range<u64>> + '_ {
        let after = std::iter::once(0).chain(self.runs.values().map(|last| last.saturating_add(1)));
        after.zip(self.runs.keys()).map(|(from, to)| from..*to)
    }

    /// Takes a whole chunk, whose offsets ascend, unless one of its messages is in another already.
    pub(crate) fn insert(&mut self, chunk: &Chunk) -> Result<ChunkInfo, String> {
        let info = chunk.info().ok_or("it is empty")?;
        let before = self.chunks.range(info.first.0..).next().map(|(_, other)| other);
        if before.is_some_and(|other| other.first <= info.last) {
            return Err("another chunk holds the same offsets".into());
        }
        self.chunks.insert(info.last.0, info);
        for (offset, _) in &chunk.messages {
            let offset = offset.0;
            match self.runs.range_mut(..offset).next_back() {
                Some((_, last)) if last.checked_add(1) == Some(offset) => *last = offset,
                _ => drop(self.runs.insert(offset, offset)),
            }
        }
        Ok(info)
    }
}

/// Of a store that a later version wrote.
fn unknown(format: u32) -> Meta {
    Meta { format, store_id: [0; 16], position: 0, time_ms: 0, clean: false, queue_next: 0, subscription_next: 0 }
}

/// A chunk that is whole, stands at its key, and holds messages in order.
fn sound_chunk(key: (u32, u64), row: &[u8]) -> Result<Chunk, String> {
    let chunk: Chunk = guarded(|| chunk::open(row).map_err(|e: RowError| e.to_string()))?;
    if (chunk.queue.0, chunk.messages.last().map(|(last, _)| last.0)) != (key.0, Some(key.1)) {
        return Err("it is about other messages".into());
    }
    if !chunk.messages.is_sorted_by(|(a, _), (b, _)| a < b) {
        return Err("its messages are out of order".into());
    }
    for (offset, stored) in &chunk.messages {
        Message::decode(stored.header.clone(), stored.payload.clone())
            .map_err(|e| format!("message {offset} is none: {e}"))?;
    }
    Ok(chunk)
}

impl Problems {
    pub(crate) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), list: Vec::new(), left_out: 0 }
    }

    /// Of the state file, and of anything in the store.
    pub(crate) fn store(&mut self, place: &str, what: String) {
        let (file, place) = (self.file(STATE_FILE), place.to_owned());
        self.push(Problem { file, place, what, queue: None, offsets: None, is_of_store: true });
    }

    /// Of the journal, and of anything in the store: nobody knows what was in a record that is gone.
    pub(crate) fn journal(&mut self, file: &str, place: impl Into<String>, what: String) {
        let (file, place) = (self.file(file), place.into());
        self.push(Problem { file, place, what, queue: None, offsets: None, is_of_store: true });
    }

    /// Of one queue's messages.
    pub(crate) fn queue(&mut self, place: &str, queue: &str, offsets: Option<(Offset, Offset)>, what: String) {
        let (file, place) = (self.file(STATE_FILE), place.to_owned());
        self.push(Problem { file, place, what, queue: Some(queue.to_owned()), offsets, is_of_store: false });
    }

    /// The same, in another file.
    pub(crate) fn queue_in(&mut self, file: &str, place: &str, queue: &str, offsets: (Offset, Offset), what: String) {
        let (file, place, queue) = (self.file(file), place.to_owned(), Some(queue.to_owned()));
        let joined = self
            .list
            .last_mut()
            .filter(|last| last.what == what && last.queue == queue && last.file == file && last.place == place);
        match joined.and_then(|last| last.offsets.as_mut()) {
            Some((_, last)) if last.0.checked_add(1) == Some(offsets.0.0) => *last = offsets.1,
            _ => self.push(Problem { file, place, what, queue, offsets: Some(offsets), is_of_store: false }),
        }
    }

    /// Of what a queue's row says of itself, and of no message.
    pub(crate) fn books(&mut self, place: &str, queue: &str, what: String) {
        let (file, place) = (self.file(STATE_FILE), format!("{place}, queue {queue}"));
        self.push(Problem { file, place, what, queue: None, offsets: None, is_of_store: false });
    }

    /// Of a row that is about no message.
    fn state(&mut self, table: &str, row: impl std::fmt::Display, what: String) {
        let (file, place) = (self.file(STATE_FILE), format!("table {table}, row {row}"));
        self.push(Problem { file, place, what, queue: None, offsets: None, is_of_store: false });
    }

    fn row(
        &mut self,
        table: &str,
        (key, queues): ((u32, u64), &BTreeMap<u32, QueueRow>),
        offsets: Option<(Offset, Offset)>,
        what: String,
    ) {
        let place = format!("table {table}, row {key:?}");
        match queues.get(&key.0) {
            Some(row) => self.queue(&place, &row.definition.name, offsets, what),
            None => self.store(&place, what),
        }
    }

    /// One that was found elsewhere.
    pub(crate) fn tell(&mut self, problem: Problem) {
        self.push(problem);
    }

    /// As the user knows it; some names are so already.
    fn file(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    fn push(&mut self, problem: Problem) {
        let known = self.list.last().is_some_and(|last| *last == problem);
        if self.list.len() < PROBLEMS_MAX && !known {
            self.list.push(problem);
        } else if !known {
            self.left_out += 1;
        }
    }

    pub(crate) fn into_list(self) -> (Vec<Problem>, usize) {
        (self.list, self.left_out)
    }
}
