//! A new store out of what can be read of a damaged one, which stays as it is.
//!
//! Whole chunks are copied, and the journal's records are taken operation by operation, as far as each still means
//! something: offsets are in the commits, so that a message after a gap keeps its own. What is uncertain is decided for
//! delivering again: a message may come twice, and none is passed over in silence.

mod apply;
mod rescue;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::checkpoint::{CHUNKS, CheckpointError, Checkpoints, FORMAT, Frozen, INDEX, Meta};
use crate::chunk::{Chunk, seal};
use crate::commit::{Offset, Operation, QueueDefinition, QueueId, Stored};
use crate::disk::{Disk, RealDisk};
use crate::inspect::found::{Found, Problems};
use crate::inspect::replay;
use crate::inspect::source::{Source, guarded};
use crate::inspect::{InspectError, Problem, QueueReport, counted, tell_damage};
use crate::journal::{self, Inspection, Reader};
use crate::offsets::OffsetSet;
use crate::plan::QueueSettings;
use crate::state::{ChunkInfo, QueueRow, State, Times};
use apply::Salvager;

/// Chunks go into the new state file in transactions of about so many bytes.
const BATCH_BYTES: usize = 16 << 20;

/// What was saved of a store, and what is lost.
#[derive(Debug, Clone, serde::Serialize)]
pub struct SalvageReport {
    /// The new store.
    pub path: PathBuf,
    /// What is in it, by name.
    pub queues: Vec<QueueReport>,
    /// What could not be saved, or not as it was.
    pub lost: Vec<Problem>,
    /// How many more of those there are.
    pub lost_left_out: usize,
}

/// Why nothing could be saved.
#[derive(Debug, thiserror::Error)]
pub enum SalvageError {
    /// The damaged store cannot be looked at.
    #[error(transparent)]
    From(#[from] InspectError),
    /// A later version wrote it.
    #[error("the store has format {0}; this version reads up to {FORMAT}: use a newer quipu")]
    Format(u32),
    /// The new store cannot be written.
    #[error("salvage into {path}: {why}")]
    To {
        /// Its directory.
        path: String,
        /// What is wrong.
        why: String,
    },
}

/// Makes a new store in a directory that is not there yet out of what can be read of one that is not running. It opens
/// like any store; the old one is not changed.
///
/// # Errors
///
/// [`SalvageError`]. Then there is no new store.
pub fn salvage(from: &Path, to: &Path) -> Result<SalvageReport, SalvageError> {
    let (source, opened) = Source::open(from)?;
    let mut problems = Problems::new(from);
    if let Err(why) = opened {
        problems.store("the file", format!("it cannot be opened: {why}"));
    }
    let failed = |why: String| SalvageError::To { path: to.display().to_string(), why };
    std::fs::create_dir(to).map_err(|e| failed(e.to_string()))?;
    let saved = save(&source, &mut problems, to).map_err(|e| match e {
        Failed::Format(found) => SalvageError::Format(found),
        Failed::Write(why) => failed(why),
    });
    let queues = saved.inspect_err(|_| {
        // It would be taken for all that there was, and the error is the one to tell.
        std::fs::remove_dir_all(to).ok();
    })?;
    let (lost, lost_left_out) = problems.into_list();
    Ok(SalvageReport { path: to.to_owned(), queues, lost, lost_left_out })
}

enum Failed {
    Format(u32),
    Write(String),
}

impl From<CheckpointError> for Failed {
    fn from(e: CheckpointError) -> Self {
        Self::Write(e.to_string())
    }
}

impl From<String> for Failed {
    fn from(why: String) -> Self {
        Self::Write(why)
    }
}

fn save(source: &Source, problems: &mut Problems, to: &Path) -> Result<Vec<QueueReport>, Failed> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(to).map_err(|e| e.to_string())?);
    let checkpoints = Checkpoints::open(disk.clone())?;
    let mut batch = Batch { checkpoints: &checkpoints, rows: Vec::new(), bytes: 0, failed: None };
    let mut found = Found::read(source, problems, |key, row, info| batch.take(key, row.to_vec(), info));
    batch.flush();
    batch.failed.map_or(Ok(()), Err)?;
    if let Some(format) = found.meta.as_ref().map(|meta| meta.format).filter(|format| *format > FORMAT) {
        return Err(Failed::Format(format));
    }
    let inspection = look_at_journal(source, &found, problems);
    if found.meta.is_none() && !inspection.records.is_empty() {
        let what =
            "it does not say where the journal goes on: all that is in there is taken, settled or not".to_owned();
        problems.store("table meta", what);
    }
    let format = found.meta.as_ref().map_or(FORMAT, |meta| meta.format);
    let definitions = Definitions::read(source, &inspection, format);
    let mut state = guarded(|| {
        let mut state = std::mem::take(&mut found.state);
        found.restore(&mut state);
        Ok(state)
    })?;
    let rebuilt = rebuild(&mut state, &found, &definitions, problems);
    let rescued = rescue::rescue(source, &inspection, format, &mut state, (&found, &checkpoints), problems)?;
    let mut salvager =
        Salvager::new(state, &checkpoints, found.meta.as_ref().map(|meta| meta.position), (rebuilt, definitions));
    salvager.replay(source, &inspection, format, problems, &rescued);
    let state = salvager.finish();
    write(state, &checkpoints, found.meta.as_ref(), &inspection)?;
    disk.sync_directory().map_err(|e| e.to_string())?;
    drop(checkpoints);
    // Looked at like any other: what is said to be saved can be read.
    let report = crate::inspect::inspect(to).map_err(|e| e.to_string())?;
    report.problems.iter().for_each(|problem| problems.tell(problem.clone()));
    Ok(report.queues)
}

fn look_at_journal(source: &Source, found: &Found, problems: &mut Problems) -> Inspection {
    let known = found.meta.as_ref().map(|meta| (meta.store_id, meta.position));
    match journal::inspect(&source.disk, known.map(|(id, _)| id), known.map(|(_, position)| position)) {
        Ok(inspection) => {
            tell_damage(source, &inspection, problems);
            inspection
        }
        Err(e) => {
            problems.journal("journal", "the directory", e.to_string());
            Inspection::default()
        }
    }
}

/// Makes queues of chunks whose queue has no row any more. Who had settled what is not known, so all of it comes again.
fn rebuild(state: &mut State, found: &Found, definitions: &Definitions, problems: &mut Problems) -> BTreeSet<QueueId> {
    let mut rebuilt = BTreeSet::new();
    for (id, held) in &found.chunks {
        let id = QueueId(*id);
        let Some(last) = held.last().filter(|last| last.0 < u64::MAX) else { continue };
        if state.queues.contains_key(&id) {
            continue;
        }
        let mut row = row(definitions.definition(id), last.next());
        for gap in held.gaps() {
            if gap.start == 0 {
                row.removed.insert_below(Offset(gap.end));
                continue;
            }
            for offset in gap {
                row.removed.insert(Offset(offset));
            }
        }
        row.live = row.removed.count_absent(Offset(0), row.next);
        let what = "its row is lost: what is in its chunks is saved, settled or not, for subscriptions made anew";
        problems.queue("table queues", &row.definition.name, None, what.into());
        state.restore(row, &held.infos());
        rebuilt.insert(id);
    }
    rebuilt
}

/// A queue without subscriptions, and without messages until some are said to be in it.
fn row(definition: QueueDefinition, next: Offset) -> QueueRow {
    let (removed, times, subscriptions) = (OffsetSet::default(), Times::default(), Vec::new());
    QueueRow { definition, next, removed, times, live: 0, subscriptions }
}

/// What the journal still says that queues are.
struct Definitions {
    definitions: BTreeMap<QueueId, QueueDefinition>,
    /// Queues that were removed, and by which record.
    removed: BTreeMap<QueueId, u64>,
}

impl Definitions {
    fn read(source: &Source, inspection: &Inspection, format: u32) -> Self {
        let (mut definitions, mut removed) = (BTreeMap::new(), BTreeMap::new());
        let mut reader = Reader::new(&source.disk);
        for record in &inspection.records {
            // One that cannot be read is told of when it is to be applied.
            let commit = replay::read(&mut reader, format, record).unwrap_or_default();
            for operation in commit.operations {
                match operation {
                    Operation::DefineQueue(definition) => drop(definitions.insert(definition.id, definition)),
                    Operation::RemoveQueue { id } => drop(removed.insert(id, record.sequence)),
                    _ => {}
                }
            }
        }
        Self { definitions, removed }
    }

    /// Whether a record that comes later removes the queue.
    fn is_removed_after(&self, id: QueueId, sequence: u64) -> bool {
        self.removed.get(&id).is_some_and(|removed| *removed >= sequence)
    }

    /// Where nothing is known of a queue but its number, it gets a name that says so.
    fn definition(&self, id: QueueId) -> QueueDefinition {
        let stand_in = || {
            let name = quipu_protocol::Subject::new(&format!("salvaged-{}", id.0)).expect("a subject");
            QueueSettings::for_dead_letters(name).define(id)
        };
        self.definitions.get(&id).cloned().unwrap_or_else(stand_in)
    }
}

fn write(
    mut state: State,
    checkpoints: &Checkpoints,
    meta: Option<&Meta>,
    inspection: &Inspection,
) -> Result<(), CheckpointError> {
    let last = inspection.records.last().map_or(0, |record| record.sequence);
    let position = last.max(meta.map_or(0, |meta| meta.position));
    let store_id = meta.map(|meta| meta.store_id).or(inspection.store_id);
    state.dirty.extend(state.queues.keys().copied());
    state.publishers.renew();
    state.records.renew();
    state.dedup.renew_fresh(usize::MAX / 2);
    let frozen = Frozen::new(&mut state, position, store_id.unwrap_or_else(|| *uuid::Uuid::new_v4().as_bytes()));
    checkpoints.write(&frozen).map(drop)
}

/// Chunks on their way into the new state file.
struct Batch<'a> {
    checkpoints: &'a Checkpoints,
    rows: Vec<((u32, u64), Vec<u8>, ChunkInfo)>,
    bytes: usize,
    failed: Option<String>,
}

impl Batch<'_> {
    fn take(&mut self, key: (u32, u64), row: Vec<u8>, info: &ChunkInfo) {
        self.bytes += row.len();
        self.rows.push((key, row, *info));
        if self.bytes >= BATCH_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        if let Err(e) = put_chunks(self.checkpoints, &rows) {
            self.failed.get_or_insert(e.to_string());
        }
    }
}

fn put_chunks(checkpoints: &Checkpoints, rows: &[((u32, u64), Vec<u8>, ChunkInfo)]) -> Result<(), CheckpointError> {
    checkpoints.transaction(|transaction| {
        let mut chunks = transaction.open_table(CHUNKS).map_err(redb::Error::from)?;
        let mut index = transaction.open_table(INDEX).map_err(redb::Error::from)?;
        for (key, row, info) in rows {
            let info = seal(info).map_err(|e| CheckpointError::row("index", format!("{key:?}"), e))?;
            chunks.insert(key, row.as_slice()).map_err(redb::Error::from)?;
            index.insert(key, info.as_slice()).map_err(redb::Error::from)?;
        }
        Ok(())
    })
}

/// Puts messages that were found elsewhere into the new state file, between the chunks that are there.
fn put_messages(
    checkpoints: &Checkpoints,
    queue: QueueId,
    messages: BTreeMap<Offset, Arc<Stored>>,
) -> Result<Vec<ChunkInfo>, CheckpointError> {
    let mut rows = Vec::new();
    for chunk in Chunk::cut(queue, messages.into_iter().collect()) {
        let Some(info) = chunk.info() else { continue };
        let key = (queue.0, info.last.0);
        let row = seal(&chunk).map_err(|e| CheckpointError::row("chunks", format!("{key:?}"), e))?;
        rows.push((key, row, info));
    }
    put_chunks(checkpoints, &rows)?;
    Ok(rows.into_iter().map(|(_, _, info)| info).collect())
}

impl fmt::Display for SalvageReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "new store {}", self.path.display())?;
        for queue in &self.queues {
            writeln!(f, "saved: queue {}: {}, {} bytes", queue.name, counted(queue.messages, "message"), queue.bytes)?;
        }
        self.lost.iter().try_for_each(|problem| writeln!(f, "not saved: {problem}"))?;
        if self.lost_left_out > 0 {
            writeln!(f, "and {} more", self.lost_left_out)?;
        }
        match self.lost.is_empty() {
            true => writeln!(f, "nothing is lost"),
            false => writeln!(f, "Messages may be delivered again: where it is uncertain, they count as not settled."),
        }
    }
}
