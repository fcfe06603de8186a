//! Checkpoints: the net effect of the journal so far, in redb.
//!
//! A checkpoint holds every queue's definition and subscriptions, the messages that someone still needs, the fresh part
//! of the dedup window, and the journal position that all this stands for, in one transaction.

mod frozen;
mod guard;
mod pages;
mod rows;
mod watched;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use redb::{Database, ReadableDatabase as _, ReadableTableMetadata as _, StorageBackend};
use serde::{Deserialize, Serialize};

use crate::chunk::{Chunk, RowError};
use crate::commit::{Offset, QueueId, Stored};
use crate::disk::{Disk, StateBackend};
use crate::journal;
use crate::legacy;
use crate::state::{Bodies, ChunkInfo, State};

pub use frozen::Frozen;
pub(crate) use frozen::{Begun, Written};
pub(crate) use guard::panic_text;
use guard::{Guarded, guarded, with_table};
pub(crate) use rows::{CHUNKS, DEDUP, INDEX, META, PUBLISHERS, QUEUES, RECORDS, read};
use watched::{Health, Watched};

/// Format of rows and records; one more for each change that older code cannot read.
pub const FORMAT: u32 = 3;
/// Name of the file in the store's directory.
pub(crate) const STATE_FILE: &str = "state.redb";
/// redb's cache, in bytes: at least twice a checkpoint, or pages are written twice.
pub const CACHE_BYTES: usize = 128 << 20;
/// Decoded chunks kept for readers.
pub(crate) const CHUNKS_CACHED_MAX: usize = 16;

/// The redb file of a store. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    disk: Arc<dyn Disk>,
    /// None where it could not be opened again after an error.
    database: Arc<Guarded>,
    cache: Arc<Mutex<Vec<Arc<Chunk>>>>,
    health: Arc<Health>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub(crate) format: u32,
    pub(crate) store_id: [u8; 16],
    pub(crate) position: u64,
    pub(crate) time_ms: u64,
    /// Whether the store was stopped in order with this checkpoint.
    pub(crate) clean: bool,
    /// Numbers of queues and subscriptions that were never used.
    pub(crate) queue_next: u32,
    pub(crate) subscription_next: u32,
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
    /// The format of its rows, and of the journal's records behind it.
    pub format: u32,
    /// Whether it was stopped in order.
    pub clean: bool,
}

/// Why a checkpoint cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// redb's own error, disk errors included.
    #[error("state file: {0}")]
    Redb(#[from] redb::Error),
    /// redb found something that it takes for impossible.
    #[error("state file: damaged: {0}; look at it with `quipu store verify`")]
    Damaged(String),
    /// There is more of the store than a new one has, but not its first row: going on would begin an empty store.
    #[error(
        "state file: it is empty or has lost its first row, and the store is no new one; see `quipu store salvage`"
    )]
    Lost,
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

impl CheckpointError {
    pub(crate) fn row(table: &'static str, row: impl ToString, source: RowError) -> Self {
        Self::Row { table, row: row.to_string(), source }
    }
}

impl Checkpoints {
    /// Opens the file or makes it.
    ///
    /// # Errors
    ///
    /// Where it cannot be read or made, is damaged, or is open elsewhere.
    pub fn open(disk: Arc<dyn Disk>) -> Result<Self, CheckpointError> {
        let health = Arc::default();
        let database = open_database(disk.as_ref(), true, &health)?;
        let this =
            Self { disk, database: Arc::new(Guarded::new(database, health.clone())), cache: Arc::default(), health };
        this.transaction(|transaction| {
            transaction.open_table(META).map_err(redb::Error::from)?;
            transaction.open_table(QUEUES).map_err(redb::Error::from)?;
            transaction.open_table(CHUNKS).map_err(redb::Error::from)?;
            transaction.open_table(INDEX).map_err(redb::Error::from)?;
            transaction.open_table(DEDUP).map_err(redb::Error::from)?;
            transaction.open_table(PUBLISHERS).map_err(redb::Error::from)?;
            transaction.open_table(RECORDS).map_err(redb::Error::from)?;
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
        self.guarded(|| self.restore_unguarded())
    }

    fn restore_unguarded(&self) -> Result<Option<Restored>, CheckpointError> {
        let transaction = self.begin_read()?;
        let metas = transaction.open_table(META).map_err(redb::Error::from)?;
        let Some(row) = metas.get("meta").map_err(redb::Error::from)? else {
            let queues = transaction.open_table(QUEUES).map_err(redb::Error::from)?;
            return if queues.is_empty().map_err(redb::Error::from)? { Ok(None) } else { Err(CheckpointError::Lost) };
        };
        let format = legacy::format_of(row.value()).map_err(|e| CheckpointError::row("meta", "meta", e))?;
        if format > FORMAT {
            return Err(CheckpointError::Format { found: format });
        }
        if format == 1 {
            return legacy::restore(&transaction, row.value()).map(Some);
        }
        let meta = legacy::meta(format, row.value()).map_err(|e| CheckpointError::row("meta", "meta", e))?;
        let mut state = State::default();
        state.time_ms = meta.time_ms;
        (state.queue_next, state.subscription_next) = (meta.queue_next, meta.subscription_next);
        let mut chunks: BTreeMap<u32, Vec<ChunkInfo>> = BTreeMap::new();
        rows::each(&transaction, INDEX, |(queue, last), value| {
            chunks.entry(queue).or_default().push(read("index", format!("{:?}", (queue, last)), value)?);
            Ok(())
        })?;
        rows::each(&transaction, QUEUES, |id, value| {
            let chunks = chunks.remove(&id).unwrap_or_default();
            let row = legacy::queue(format, value).map_err(|e| CheckpointError::row("queues", id, e))?;
            state.restore(row, &chunks);
            if format < FORMAT {
                state.dirty.insert(QueueId(id));
            }
            Ok(())
        })?;
        if let Some(id) = chunks.into_keys().next() {
            return Err(CheckpointError::row("queues", id, RowError::Absent));
        }
        rows::each(&transaction, DEDUP, |position, value| {
            let packed: serde_bytes::ByteBuf = read("dedup", position, value)?;
            let format = |e| CheckpointError::row("dedup", position, RowError::Format(e));
            state.dedup.restore(&packed).map_err(format)
        })?;
        rows::each(&transaction, PUBLISHERS, |name, value| {
            state.publishers.restore(name.to_owned(), read("publishers", name, value)?);
            Ok(())
        })?;
        rows::each(&transaction, RECORDS, |key, value| {
            let value: serde_bytes::ByteBuf = read("records", key, value)?;
            state.records.restore(key.to_owned(), value.into_vec().into());
            Ok(())
        })?;
        state.dedup.expire(meta.time_ms);
        let Meta { position, store_id, format, clean, .. } = meta;
        Ok(Some(Restored { state, position, store_id, format, clean }))
    }

    /// Writes a checkpoint. Blocks until it is synced.
    ///
    /// # Errors
    ///
    /// Where the disk does not take it; the one before stays as it is.
    pub(crate) fn write(&self, frozen: &Frozen) -> Result<Written, CheckpointError> {
        let mut written = Written::default();
        self.transaction(|transaction| {
            written = frozen.write(transaction)?;
            Ok(())
        })?;
        if frozen.shrink {
            self.compact()?;
        }
        written.file_bytes = self.disk.state_bytes(STATE_FILE).unwrap_or(0);
        Ok(written)
    }

    /// Gives the room of what is gone back to the file system. Readers wait meanwhile: as long as it takes to move what
    /// is left.
    ///
    /// # Errors
    ///
    /// Where the disk fails; nothing is lost.
    pub fn compact(&self) -> Result<(), CheckpointError> {
        self.reopen_damaged();
        let compacted = {
            let _writer = self.health.begin_write();
            let mut database = self.database.write();
            let database = database.as_mut().ok_or(CheckpointError::Closed)?;
            self.guarded(|| match database.compact() {
                // Somebody reads: another time.
                Ok(_) | Err(redb::CompactionError::TransactionInProgress) => Ok(()),
                Err(e) => Err(CheckpointError::Redb(e.into())),
            })
        };
        match compacted {
            // A commit with quick repair, since those of a compaction have none.
            Ok(()) => self.transaction(|_| Ok(())),
            Err(e) => {
                self.reopen();
                Err(e)
            }
        }
    }

    /// Whether a sync of the file failed. What it should have made durable may still be read, from the system's cache,
    /// but will never reach the disk: nothing may be built upon it.
    pub(crate) fn is_unsynced(&self) -> bool {
        self.health.is_unsynced()
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
        let chunk: Chunk = self.guarded(|| {
            let transaction = self.begin_read()?;
            let chunks = transaction.open_table(CHUNKS).map_err(redb::Error::from)?;
            let mut range = chunks.range((queue.0, offset.0)..=(queue.0, u64::MAX)).map_err(redb::Error::from)?;
            let (key, value) = range.next().ok_or_else(missing)?.map_err(redb::Error::from)?;
            read("chunks", format!("{:?}", key.value()), value.value())
        })?;
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

    pub(crate) fn begin_read(&self) -> Result<redb::ReadTransaction, CheckpointError> {
        let database = self.database.read();
        let database = database.as_ref().ok_or(CheckpointError::Closed)?;
        Ok(database.begin_read().map_err(redb::Error::from)?)
    }

    /// One durable transaction, with the quick repair that makes opening after a kill independent of the file's size.
    pub(crate) fn transaction(
        &self,
        work: impl FnOnce(&redb::WriteTransaction) -> Result<(), CheckpointError>,
    ) -> Result<(), CheckpointError> {
        self.reopen_damaged();
        let written = self.try_transaction(work);
        if matches!(written, Err(CheckpointError::Redb(_) | CheckpointError::Damaged(_) | CheckpointError::Closed)) {
            self.reopen();
        }
        written
    }

    fn try_transaction(
        &self,
        work: impl FnOnce(&redb::WriteTransaction) -> Result<(), CheckpointError>,
    ) -> Result<(), CheckpointError> {
        let _writer = self.health.begin_write();
        let database = self.database.read();
        let database = database.as_ref().ok_or(CheckpointError::Closed)?;
        let transaction = self.guarded(|| {
            let mut transaction = database.begin_write().map_err(redb::Error::from)?;
            transaction.set_quick_repair(true);
            Ok(transaction)
        })?;
        match self.guarded(|| work(&transaction)) {
            Ok(()) => self.guarded(|| Ok(transaction.commit().map_err(redb::Error::from)?)),
            Err(e) => {
                // By itself, since it may panic too, and must not do so while another panic unwinds.
                guard::close_one(transaction);
                Err(e)
            }
        }
    }

    /// A reader has left a damaged page in redb's cache, where a writer would find it. One that works on that page is to
    /// fail in order, and any other not to.
    fn reopen_damaged(&self) {
        if self.health.damage().is_some() {
            self.reopen();
        }
    }

    /// What redb makes of a damaged page is told by the page.
    fn guarded<T>(&self, work: impl FnOnce() -> Result<T, CheckpointError>) -> Result<T, CheckpointError> {
        guarded(work).map_err(|e| damaged(e, &self.health))
    }

    /// redb refuses everything after an error of the disk until the file is opened again, so that the next try would
    /// fail whatever the disk does by then.
    fn reopen(&self) {
        let mut open = self.database.write();
        // Closed first: it is locked. Never made anew: it holds what the journal no longer does.
        guard::close(&mut open, &self.health);
        if self.is_unsynced() {
            // Opening it would write, and put upon the disk what points to pages that are not there.
            return;
        }
        *open = open_database(self.disk.as_ref(), false, &self.health)
            .inspect_err(|e| tracing::error!(%e, "cannot open the state file again"))
            .ok();
    }
}

fn open_database(disk: &dyn Disk, create: bool, health: &Arc<Health>) -> Result<Database, CheckpointError> {
    let database = try_open(disk, create, health)?;
    if health.damage().is_none() {
        return Ok(database);
    }
    // A commit that the power cut off, and that redb has put aside: but for it, everything is as it was written.
    guard::close(&mut Some(database), health);
    let database = try_open(disk, create, health)?;
    match health.damage() {
        None => Ok(database),
        Some(text) => {
            guard::close(&mut Some(database), health);
            Err(CheckpointError::Damaged(text))
        }
    }
}

fn try_open(disk: &dyn Disk, create: bool, health: &Arc<Health>) -> Result<Database, CheckpointError> {
    health.clear_damage();
    let io = |e| CheckpointError::from(redb::Error::from(redb::StorageError::Io(e)));
    let file = disk.state(STATE_FILE, create).map_err(io)?;
    if create {
        begin_anew(disk, &file).map_err(io)?;
    }
    let backend = Watched::new(file, health.clone());
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    let opened = guarded(|| Ok(builder.create_with_backend(backend).map_err(redb::Error::from)?));
    opened.map_err(|e| damaged(e, health))
}

/// The error, or the damage behind it.
fn damaged(error: CheckpointError, health: &Health) -> CheckpointError {
    match (error, health.damage()) {
        (CheckpointError::Redb(_) | CheckpointError::Damaged(_), Some(text)) => CheckpointError::Damaged(text),
        (error, _) => error,
    }
}

/// Empties a file that was being made when the power went: redb writes its magic last.
fn begin_anew(disk: &dyn Disk, file: &StateBackend) -> io::Result<()> {
    let mut head = [0; 9];
    if file.len()? < head.len() as u64 {
        return Ok(());
    }
    file.read(0, &mut head)?;
    // A journal with records belongs to a state that was there.
    let is_new = || journal::inspect(disk, None, None).map(|found| found.records.is_empty());
    if head == [0; 9] && is_new().map_err(io::Error::other)? { file.set_len(0) } else { Ok(()) }
}

impl Bodies for Checkpoints {
    fn message(&self, queue: QueueId, offset: Offset) -> Result<Arc<Stored>, String> {
        self.read_message(queue, offset).map_err(|e| e.to_string())
    }
}
