//! Checkpoints: the net effect of the journal so far, in redb.
//!
//! A checkpoint holds every queue's definition and subscriptions, the messages that someone still needs, the fresh part
//! of the dedup window, and the journal position that all this stands for, in one transaction.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

use crate::chunk::{Chunk, RowError, open, seal};
use crate::commit::{Offset, QueueId, Stored};
use crate::dedup::{Entry, WINDOW_MS};
use crate::state::{Bodies, QueueRow, State};

const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const QUEUES: TableDefinition<u32, &[u8]> = TableDefinition::new("queues");
const CHUNKS: TableDefinition<(u32, u64), &[u8]> = TableDefinition::new("chunks");
const DEDUP: TableDefinition<u64, &[u8]> = TableDefinition::new("dedup");

/// Format of the rows; one more for each change that older code cannot read.
const FORMAT: u32 = 1;
/// redb's cache, in bytes: at least twice a checkpoint, or pages are written twice.
const CACHE_BYTES: usize = 128 << 20;
/// Decoded chunks kept for readers.
const CHUNKS_CACHED_MAX: usize = 16;

/// The redb file of a store. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    path: PathBuf,
    /// None where it could not be opened again after an error.
    database: Arc<RwLock<Option<Database>>>,
    cache: Arc<Mutex<Vec<Arc<Chunk>>>>,
}

/// What one checkpoint writes: frozen, so that commits go on meanwhile.
#[derive(Debug)]
pub struct Frozen {
    pub(crate) position: u64,
    pub(crate) time_ms: u64,
    pub(crate) store_id: [u8; 16],
    pub(crate) queues: Vec<FrozenQueue>,
    pub(crate) dedup: Vec<Entry>,
}

/// The checkpoint that is being written: what the state takes note of once it is, or has failed.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) position: u64,
    stored_below: Vec<(QueueId, Offset)>,
    dedup: usize,
}

#[derive(Debug)]
pub(crate) struct FrozenQueue {
    pub(crate) id: QueueId,
    row: QueueRow,
    /// Everything below is settled by all.
    floor: Offset,
    messages: Vec<(Offset, Arc<Stored>)>,
    /// Where the next checkpoint goes on.
    pub(crate) stored_below: Offset,
}

#[derive(Debug, Serialize, Deserialize)]
struct Meta {
    format: u32,
    store_id: [u8; 16],
    position: u64,
    time_ms: u64,
}

/// What a store was at its last checkpoint.
#[derive(Debug)]
pub struct Restored {
    /// The state then.
    pub state: State,
    /// The last journal record in it.
    pub position: u64,
    /// Random; in every journal record of this store.
    pub store_id: [u8; 16],
}

/// Why a checkpoint cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// redb's own error, disk errors included.
    #[error("state file: {0}")]
    Redb(#[from] redb::Error),
    /// It could not be opened again after an error; the next checkpoint tries to.
    #[error("state file: closed after an error")]
    Closed,
    /// A row that is damaged.
    #[error("state file, table {table}, row {row}: {source}")]
    Row {
        /// Which table.
        table: &'static str,
        /// Its key.
        row: String,
        /// What is wrong with it.
        source: RowError,
    },
    /// Written by a later version.
    #[error("the store has format {found}; this version reads up to {FORMAT}: use a newer quipu")]
    Format {
        /// What it says it is.
        found: u32,
    },
    /// An unsettled message that is not where it should be.
    #[error("message {offset} of queue {queue:?} is not in the store")]
    Missing {
        /// Which queue.
        queue: QueueId,
        /// Which message.
        offset: Offset,
    },
}

impl Checkpoints {
    /// Opens the file or makes it.
    ///
    /// # Errors
    ///
    /// Where it cannot be read or made, is damaged, or is open elsewhere.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let database = builder().create(path).map_err(redb::Error::from)?;
        let database = Arc::new(RwLock::new(Some(database)));
        let this = Self { path: path.to_owned(), database, cache: Arc::default() };
        this.transaction(|transaction| {
            transaction.open_table(META).map_err(redb::Error::from)?;
            transaction.open_table(QUEUES).map_err(redb::Error::from)?;
            transaction.open_table(CHUNKS).map_err(redb::Error::from)?;
            transaction.open_table(DEDUP).map_err(redb::Error::from)?;
            Ok(())
        })?;
        Ok(this)
    }

    /// The state of the last checkpoint; none in a new store.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`] names what is damaged.
    pub fn restore(&self) -> Result<Option<Restored>, CheckpointError> {
        let transaction = self.begin_read()?;
        let metas = transaction.open_table(META).map_err(redb::Error::from)?;
        let Some(row) = metas.get("meta").map_err(redb::Error::from)? else { return Ok(None) };
        let meta: Meta = read("meta", "meta", row.value())?;
        if meta.format > FORMAT {
            return Err(CheckpointError::Format { found: meta.format });
        }
        let mut state = State::default();
        state.time_ms = meta.time_ms;
        let queues = transaction.open_table(QUEUES).map_err(redb::Error::from)?;
        for row in queues.iter().map_err(redb::Error::from)? {
            let (id, value) = row.map_err(redb::Error::from)?;
            state.restore(read("queues", id.value(), value.value())?);
        }
        let dedup = transaction.open_table(DEDUP).map_err(redb::Error::from)?;
        for row in dedup.iter().map_err(redb::Error::from)? {
            let (position, value) = row.map_err(redb::Error::from)?;
            state.dedup.restore(read("dedup", position.value(), value.value())?);
        }
        state.dedup.expire(meta.time_ms);
        Ok(Some(Restored { state, position: meta.position, store_id: meta.store_id }))
    }

    /// Writes a checkpoint. Blocks until it is synced.
    ///
    /// # Errors
    ///
    /// Where the disk does not take it; the one before stays as it is.
    pub fn write(&self, frozen: Frozen) -> Result<(), CheckpointError> {
        self.transaction(|transaction| {
            let meta =
                Meta { format: FORMAT, store_id: frozen.store_id, position: frozen.position, time_ms: frozen.time_ms };
            let put = |table, key: &str, sealed: Result<Vec<u8>, RowError>| {
                sealed.map_err(|source| CheckpointError::Row { table, row: key.to_owned(), source })
            };
            let mut metas = transaction.open_table(META).map_err(redb::Error::from)?;
            metas.insert("meta", put("meta", "meta", seal(&meta))?.as_slice()).map_err(redb::Error::from)?;

            let mut queues = transaction.open_table(QUEUES).map_err(redb::Error::from)?;
            let mut chunks = transaction.open_table(CHUNKS).map_err(redb::Error::from)?;
            for queue in frozen.queues {
                let row = put("queues", &queue.id.0.to_string(), seal(&queue.row))?;
                queues.insert(queue.id.0, row.as_slice()).map_err(redb::Error::from)?;
                chunks
                    .retain_in((queue.id.0, 0)..(queue.id.0, queue.floor.0), |_, _| false)
                    .map_err(redb::Error::from)?;
                for chunk in Chunk::cut(queue.id, queue.messages) {
                    let Some(last) = chunk.last() else { continue };
                    let row = put("chunks", &format!("{:?}", (queue.id.0, last.0)), seal(&chunk))?;
                    chunks.insert((queue.id.0, last.0), row.as_slice()).map_err(redb::Error::from)?;
                }
            }
            write_dedup(transaction, frozen.position, frozen.time_ms, &frozen.dedup)
        })
    }

    /// A message that memory no longer holds.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`] where it cannot be read or is not there.
    pub fn read_message(&self, queue: QueueId, offset: Offset) -> Result<Arc<Stored>, CheckpointError> {
        let missing = || CheckpointError::Missing { queue, offset };
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stored) = cache.iter().filter(|c| c.queue == queue).find_map(|chunk| chunk.find(offset)) {
            return Ok(stored.clone());
        }
        let transaction = self.begin_read()?;
        let chunks = transaction.open_table(CHUNKS).map_err(redb::Error::from)?;
        let mut range = chunks.range((queue.0, offset.0)..=(queue.0, u64::MAX)).map_err(redb::Error::from)?;
        let (key, value) = range.next().ok_or_else(missing)?.map_err(redb::Error::from)?;
        let chunk: Chunk = read("chunks", format!("{:?}", key.value()), value.value())?;
        if chunk.queue != queue {
            return Err(missing());
        }
        let stored = chunk.find(offset).ok_or_else(missing)?.clone();
        if cache.len() >= CHUNKS_CACHED_MAX {
            cache.remove(0);
        }
        cache.push(Arc::new(chunk));
        Ok(stored)
    }

    fn begin_read(&self) -> Result<redb::ReadTransaction, CheckpointError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or(CheckpointError::Closed)?;
        Ok(database.begin_read().map_err(redb::Error::from)?)
    }

    /// One durable transaction, with the quick repair that makes opening after a kill independent of the file's size.
    fn transaction(
        &self,
        work: impl FnOnce(&redb::WriteTransaction) -> Result<(), CheckpointError>,
    ) -> Result<(), CheckpointError> {
        let written = self.try_transaction(work);
        if matches!(written, Err(CheckpointError::Redb(_) | CheckpointError::Closed)) {
            self.reopen();
        }
        written
    }

    fn try_transaction(
        &self,
        work: impl FnOnce(&redb::WriteTransaction) -> Result<(), CheckpointError>,
    ) -> Result<(), CheckpointError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or(CheckpointError::Closed)?;
        let mut transaction = database.begin_write().map_err(redb::Error::from)?;
        transaction.set_quick_repair(true);
        work(&transaction)?;
        transaction.commit().map_err(redb::Error::from)?;
        Ok(())
    }

    /// redb refuses everything after an error of the disk until the file is opened again, so that the next try would
    /// fail whatever the disk does by then.
    fn reopen(&self) {
        let mut open = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // Closed first: it is locked. Never made anew: it holds what the journal no longer does.
        *open = None;
        *open = builder()
            .open(&self.path)
            .inspect_err(|e| tracing::error!(path = %self.path.display(), %e, "cannot open the state file again"))
            .ok();
    }
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

impl Frozen {
    /// Freezes what changed since the last checkpoint; `position` is the last journal record in the state.
    pub(crate) fn new(state: &mut State, position: u64, store_id: [u8; 16]) -> Self {
        let dirty = std::mem::take(&mut state.dirty);
        let freeze = |id: QueueId| {
            let queue = state.queues.get(&id)?;
            Some(FrozenQueue {
                id,
                row: state.row(id)?,
                floor: queue.floor(),
                messages: queue
                    .live_from(queue.stored_below)
                    .map(|(offset, stored)| (offset, stored.clone()))
                    .collect(),
                stored_below: queue.next,
            })
        };
        let queues = dirty.into_iter().filter_map(freeze).collect();
        Self { position, time_ms: state.time_ms, store_id, queues, dedup: state.dedup.take_fresh() }
    }

    pub(crate) fn begun(&self) -> Begun {
        Begun {
            position: self.position,
            stored_below: self.queues.iter().map(|queue| (queue.id, queue.stored_below)).collect(),
            dedup: self.dedup.len(),
        }
    }
}

impl Begun {
    pub(crate) fn done(self, state: &mut State) {
        for (id, stored_below) in self.stored_below {
            if let Some(queue) = state.queues.get_mut(&id) {
                queue.stored_below = stored_below;
            }
        }
    }

    /// The next checkpoint has all of it again.
    pub(crate) fn failed(self, state: &mut State) {
        state.dirty.extend(self.stored_below.iter().map(|(id, _)| *id));
        state.dedup.renew_fresh(self.dedup);
    }
}

impl Bodies for Checkpoints {
    fn message(&self, queue: QueueId, offset: Offset) -> Result<Arc<Stored>, String> {
        self.read_message(queue, offset).map_err(|e| e.to_string())
    }
}

/// One row for the fresh ids; rows whose newest id has left the window go.
fn write_dedup(
    transaction: &redb::WriteTransaction,
    position: u64,
    time_ms: u64,
    fresh: &[Entry],
) -> Result<(), CheckpointError> {
    let mut table = transaction.open_table(DEDUP).map_err(redb::Error::from)?;
    let mut old = Vec::new();
    for row in table.iter().map_err(redb::Error::from)? {
        let (key, row) = row.map_err(redb::Error::from)?;
        let entries: Vec<Entry> = read("dedup", key.value(), row.value())?;
        if entries.last().is_some_and(|entry| entry.time_ms + WINDOW_MS > time_ms) {
            break;
        }
        old.push(key.value());
    }
    for key in old {
        table.remove(key).map_err(redb::Error::from)?;
    }
    if !fresh.is_empty() {
        let row = seal(&fresh);
        let row = row.map_err(|source| CheckpointError::Row { table: "dedup", row: position.to_string(), source })?;
        table.insert(position, row.as_slice()).map_err(redb::Error::from)?;
    }
    Ok(())
}

fn read<T: for<'de> Deserialize<'de>>(
    table: &'static str,
    row: impl ToString,
    value: &[u8],
) -> Result<T, CheckpointError> {
    open(value).map_err(|source| CheckpointError::Row { table, row: row.to_string(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_file_is_opened_again_in_place() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("state.redb");
        let checkpoints = Checkpoints::open(&path).expect("a state file");
        let write = |position| checkpoints.write(Frozen::new(&mut State::default(), position, [1; 16]));
        let position = || checkpoints.restore().map(|restored| restored.map(|restored| restored.position));
        write(1).expect("a disk");
        let failed = || Err(CheckpointError::Redb(redb::Error::PreviousIo));
        assert!(checkpoints.transaction(|_| failed()).is_err());
        assert_eq!(position().expect("open again"), Some(1));
        // While its place is taken it stays closed; after that the next try but one succeeds.
        let aside = directory.path().join("aside");
        std::fs::rename(&path, &aside).expect("moved");
        std::fs::create_dir(&path).expect("made");
        assert!(checkpoints.transaction(|_| failed()).is_err());
        assert!(matches!(position(), Err(CheckpointError::Closed)));
        std::fs::remove_dir(&path).expect("removed");
        std::fs::rename(&aside, &path).expect("moved back");
        assert!(matches!(write(2), Err(CheckpointError::Closed)));
        write(2).expect("open again");
        assert_eq!(position().expect("open"), Some(2));
    }
}
