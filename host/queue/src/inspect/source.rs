//! A store's directory, opened to be read and nothing else.

use std::fs::{File, TryLockError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use redb::{Database, Key, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _, TableDefinition};

use super::InspectError;
use super::overlay::Overlay;
use crate::checkpoint::{CACHE_BYTES, CHUNKS, STATE_FILE};
use crate::chunk::{self, Chunk};
use crate::commit::{Offset, QueueId, Stored};
use crate::disk::{Disk as _, RealDisk};
use crate::state::Bodies;

/// Nothing is written there. redb writes while it opens a file and while it checks one: into memory here.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) disk: RealDisk,
    /// None where it cannot be opened.
    database: Option<Database>,
    /// The chunk that was read last.
    chunk: Mutex<Option<Chunk>>,
    _locks: Vec<File>,
}

impl Source {
    /// Opens a directory, with the state file as far as that goes; the text says what keeps it from being opened.
    pub(crate) fn open(path: &Path) -> Result<(Self, Result<(), String>), InspectError> {
        let io = |at: &Path, source| InspectError::Io { path: at.display().to_string(), source };
        let state = path.join(STATE_FILE);
        let has_journal = path.join("journal").is_dir();
        if !path.is_dir() || !(has_journal || state.is_file()) {
            return Err(InspectError::NoStore(path.display().to_string()));
        }
        let mut locks = Vec::new();
        for file in [path.join("LOCK"), state.clone()] {
            match lock(&file) {
                Ok(lock) => locks.extend(lock),
                Err(TryLockError::WouldBlock) => return Err(InspectError::Locked(path.display().to_string())),
                Err(TryLockError::Error(e)) => return Err(io(&file, e)),
            }
        }
        let disk = RealDisk::open(path).map_err(|e| io(path, e))?;
        let (database, told) = match open_database(&state) {
            Ok(database) => (Some(database), Ok(())),
            Err(why) => (None, Err(why)),
        };
        Ok((Self { disk, database, chunk: Mutex::default(), _locks: locks }, told))
    }

    /// Whether every page that is in use is what it was when it was written. Reads the whole file.
    pub(crate) fn check_pages(&self, path: &Path) -> Result<(), String> {
        if self.database.is_none() {
            return Ok(());
        }
        let mut database = open_database(&path.join(STATE_FILE))?;
        guarded(|| {
            let checked = database.check_integrity().map_err(|e| e.to_string())?;
            drop(database);
            if checked { Ok(()) } else { Err("pages are not what they were when they were written".into()) }
        })
    }

    /// The segments of the journal as the user knows them, and how long each is.
    pub(crate) fn segment_lengths(&self) -> Vec<(String, u64)> {
        let names = self.disk.list("journal").unwrap_or_default();
        let paths = names.into_iter().filter(|name| name.ends_with(".journal")).map(|name| format!("journal/{name}"));
        paths.filter_map(|path| Some((self.disk.display(&path), self.disk.state_bytes(&path).ok()?))).collect()
    }

    /// Calls for each row of a table that can be reached, first from the start and, where that fails, from the end. The
    /// text says what keeps from reading the rest. A table that is not there has no rows.
    pub(crate) fn rows<K: Key + 'static>(
        &self,
        table: TableDefinition<'static, K, &'static [u8]>,
        mut take: impl FnMut(K::SelfType<'_>, &[u8]),
    ) -> Result<(), String> {
        let Some(database) = &self.database else { return Ok(()) };
        let mut walk = Walk::default();
        let read = guarded(|| walk.from(End::First, database, table, &mut take));
        if read.is_err() {
            // What cannot be reached from this end either is told of by the first failure.
            guarded(|| walk.from(End::Last, database, table, &mut take)).ok();
        }
        read
    }

    /// A row by its key; none where it is not there or cannot be reached.
    pub(crate) fn chunk_row(&self, key: (u32, u64)) -> Option<Vec<u8>> {
        let database = self.database.as_ref()?;
        let read = guarded(|| {
            let transaction = database.begin_read().map_err(|e| e.to_string())?;
            let table = transaction.open_table(CHUNKS).map_err(|e| e.to_string())?;
            Ok(table.get(key).map_err(|e| e.to_string())?.map(|row| row.value().to_vec()))
        });
        read.ok().flatten()
    }

    fn find_chunk(&self, queue: QueueId, offset: Offset) -> Result<Chunk, String> {
        let database = self.database.as_ref().ok_or("the state file cannot be read")?;
        guarded(|| {
            let transaction = database.begin_read().map_err(|e| e.to_string())?;
            let table = transaction.open_table(CHUNKS).map_err(|e| e.to_string())?;
            let mut range = table.range((queue.0, offset.0)..=(queue.0, u64::MAX)).map_err(|e| e.to_string())?;
            let row = range.next().ok_or("it is not in the state file")?.map_err(|e| e.to_string())?;
            chunk::open::<Chunk>(row.1.value()).map_err(|e| e.to_string())
        })
    }
}

impl Bodies for Source {
    fn message(&self, queue: QueueId, offset: Offset) -> Result<Arc<Stored>, String> {
        let mut last = self.chunk.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stored) = last.as_ref().filter(|chunk| chunk.queue == queue).and_then(|chunk| chunk.find(offset)) {
            return Ok(stored.clone());
        }
        let chunk = self.find_chunk(queue, offset)?;
        let found = chunk.find(offset).filter(|_| chunk.queue == queue).cloned();
        *last = Some(chunk);
        found.ok_or_else(|| "it is not in the state file".into())
    }
}

/// From where a table is read.
#[derive(Clone, Copy)]
enum End {
    First,
    Last,
}

/// The rows of a table that were read so far, from both ends. What comes must lie between: damaged pages may lead in a
/// circle.
#[derive(Default)]
struct Walk {
    count: u64,
    first: Option<Vec<u8>>,
    last: Option<Vec<u8>>,
}

impl Walk {
    fn from<K: Key + 'static>(
        &mut self,
        end: End,
        database: &Database,
        definition: TableDefinition<'static, K, &'static [u8]>,
        take: &mut impl FnMut(K::SelfType<'_>, &[u8]),
    ) -> Result<(), String> {
        let Some(table) = open_table(database, definition)? else { return Ok(()) };
        let mut rows = table.iter().map_err(|e| e.to_string())?;
        let mut next = || match end {
            End::First => rows.next(),
            End::Last => rows.next_back(),
        };
        while let Some(row) = next() {
            let (key, value) = row.map_err(|e| e.to_string())?;
            let bytes = K::as_bytes(&key.value()).as_ref().to_vec();
            let before = self.first.as_ref().is_some_and(|first| K::compare(first, &bytes).is_ge());
            if before || self.last.as_ref().is_some_and(|last| K::compare(last, &bytes).is_le()) {
                return Err("its keys are out of order".into());
            }
            match end {
                End::First => self.first = Some(bytes),
                End::Last => self.last = Some(bytes),
            }
            self.count += 1;
            take(key.value(), value.value());
        }
        let said = table.len().map_err(|e| e.to_string())?;
        if said == self.count { Ok(()) } else { Err(format!("it has {} rows and should have {said}", self.count)) }
    }
}

fn open_table<K: Key + 'static>(
    database: &Database,
    definition: TableDefinition<'static, K, &'static [u8]>,
) -> Result<Option<redb::ReadOnlyTable<K, &'static [u8]>>, String> {
    let transaction = database.begin_read().map_err(|e| e.to_string())?;
    match transaction.open_table(definition) {
        Ok(table) => Ok(Some(table)),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(e) => Err(e.to_string()),
    }
}

fn open_database(path: &Path) -> Result<Database, String> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    let overlay = Overlay::new(file).map_err(|e| e.to_string())?;
    if redb::StorageBackend::len(&overlay).map_err(|e| e.to_string())? == 0 {
        return Err("it is empty".into());
    }
    guarded(|| {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        builder.create_with_backend(overlay).map_err(|e| e.to_string())
    })
}

/// Locks a file for as long as it is open; none where there is none.
fn lock(path: &Path) -> Result<Option<File>, TryLockError> {
    match File::open(path) {
        Ok(file) => file.try_lock().map(|()| Some(file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(TryLockError::Error(e)),
    }
}

/// What breaks an assertion, of redb's or of ours, is damage as well: a whole store breaks none.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(crate::checkpoint::panic_text(panic.as_ref())))
}

impl Drop for Source {
    fn drop(&mut self) {
        let database = self.database.take();
        // Closing writes into memory; nothing depends on it.
        guarded(|| {
            drop(database);
            Ok(())
        })
        .ok();
    }
}
