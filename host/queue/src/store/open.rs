//! Opening a store: lock, checkpoint, journal, and a checkpoint of what they add up to.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::mpsc;

use super::{OpenError, REQUESTS_MAX, Store, StoreConfig};
use crate::checkpoint::{CheckpointError, Checkpoints, FORMAT, Frozen, Restored, STATE_FILE};
use crate::commit::{Commit, Operation, SubscriptionId};
use crate::delivery::Held;
use crate::disk::{Disk, RealDisk};
use crate::engine::{COMMIT_OVERHEAD_BYTES, Parts};
use crate::journal::{self, Journal as _, JournalConfig, RecoverError, Recovered, SegmentJournal};
use crate::legacy;
use crate::owner::{self, now_ms, token_first};
use crate::plan::{Plan, Settle, Settlement, Settler};
use crate::state::{Bodies, State};

/// What a disk holds, ready to go on from.
pub(crate) struct Opened {
    pub(crate) state: State,
    pub(crate) last: u64,
    pub(crate) store_id: [u8; 16],
    pub(crate) checkpoints: Checkpoints,
    pub(crate) journal: SegmentJournal,
}

/// Why a disk's content cannot be gone on from.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    #[error(transparent)]
    State(#[from] CheckpointError),
    #[error(transparent)]
    Journal(#[from] RecoverError),
}

impl Store {
    /// Opens a store or makes it, replays its journal, and starts its threads. Blocks.
    ///
    /// # Errors
    ///
    /// [`OpenError`] names the file and what is wrong.
    pub fn open(config: &StoreConfig) -> Result<Self, OpenError> {
        let path = &config.path;
        let io = |at: &Path, source| OpenError::Io { path: at.display().to_string(), source };
        std::fs::create_dir_all(path).map_err(|e| io(path, e))?;
        let lock = lock(path)?;
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(path).map_err(|e| io(path, e))?);
        let name = || path.display().to_string();
        let fresh_id = *uuid::Uuid::new_v4().as_bytes();
        let opened = restore(disk.clone(), config.journal, now_ms(), fresh_id).map_err(|e| match e {
            RestoreError::State(source) => OpenError::State { path: name(), source },
            RestoreError::Journal(source) => OpenError::Journal { path: name(), source },
        })?;
        let parts = opened.into_parts(disk, config);
        Self::start(owner::Store { lock: Some(lock), ..parts }).map_err(|e| io(path, e))
    }

    pub(crate) fn start(parts: owner::Store) -> io::Result<Self> {
        let (body_bytes_max, store_id) = (parts.engine.body_bytes_max, parts.engine.store_id);
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        owner::start(parts, receiver)?;
        Ok(Self { requests, body_bytes_max, store_id, sources: Arc::new(AtomicU64::new(1)) })
    }
}

impl Opened {
    pub(crate) fn into_parts(self, disk: Arc<dyn Disk>, config: &StoreConfig) -> owner::Store {
        let engine = Parts {
            state: self.state,
            sequence: self.last,
            store_id: self.store_id,
            checkpoints: self.checkpoints,
            disk,
            memory_bytes: config.memory_bytes,
            disk_reserve_bytes: config.disk_reserve_bytes,
            body_bytes_max: self.journal.body_bytes_max(),
            journal_bytes: self.journal.bytes(),
            token_first: token_first(),
        };
        owner::Store { engine, journal: Box::new(self.journal), lock: None }
    }
}

/// Reads the checkpoint, replays the journal, and writes a checkpoint of all that, so that the journal starts empty.
pub(crate) fn restore(
    disk: Arc<dyn Disk>,
    journal: JournalConfig,
    now_ms: u64,
    fresh_id: [u8; 16],
) -> Result<Opened, RestoreError> {
    let bytes = disk.state_bytes(STATE_FILE).map_err(|e| CheckpointError::Redb(redb::Error::Io(e)))?;
    if bytes == 0 {
        // Before the file is made.
        refuse_lost(disk.as_ref())?;
    }
    let checkpoints = Checkpoints::open(disk.clone())?;
    let restored = checkpoints.restore()?;
    let is_new = restored.is_none();
    if is_new {
        refuse_lost(disk.as_ref())?;
    }
    let fresh = || Restored { state: State::default(), position: 0, store_id: fresh_id, format: FORMAT, clean: true };
    let Restored { mut state, position, store_id, format, clean } = restored.unwrap_or_else(fresh);
    let replay = |_: u64, body: &[u8]| {
        let commit = legacy::commit(format, body)?;
        state.apply(commit, &checkpoints).map_err(|e| e.to_string())
    };
    let (journal, Recovered { last, replayed, .. }) =
        SegmentJournal::open(disk.as_ref(), store_id, journal.sound(), position, replay)?;
    let clean = clean && replayed == 0;
    tracing::info!(checkpoint = position, replayed, clean, "store is open");
    let bytes_max = journal.body_bytes_max() - COMMIT_OVERHEAD_BYTES;
    begin(&mut state, &checkpoints, bytes_max, now_ms, clean || is_new)?;
    let mut frozen = Frozen::new(&mut state, last, store_id);
    frozen.upgrade = Some(format).filter(|format| *format < FORMAT);
    let begun = frozen.begun();
    let written = checkpoints.write(&frozen)?;
    begun.done(&mut state, &written);
    disk.sync_directory().map_err(|e| CheckpointError::Redb(redb::Error::Io(e)))?;
    Ok(Opened { state, last, store_id, checkpoints, journal })
}

/// A new store has no records: where there are some, the state that they go on from is lost.
fn refuse_lost(disk: &dyn Disk) -> Result<(), RestoreError> {
    match journal::inspect(disk, None, None)?.records.is_empty() {
        true => Ok(()),
        false => Err(CheckpointError::Lost.into()),
    }
}

/// A new life: crashes are counted, and a message that was in hand alone at a crash is given up.
fn begin(
    state: &mut State,
    checkpoints: &Checkpoints,
    bytes_max: usize,
    now_ms: u64,
    clean: bool,
) -> Result<(), RestoreError> {
    let time_ms = now_ms.max(state.time_ms);
    let opened = Commit { time_ms, operations: vec![Operation::Opened { clean }] };
    apply(state, opened, checkpoints)?;
    if clean {
        return Ok(());
    }
    let mut alone = Vec::new();
    for (queue, known) in &state.queues {
        for (subscription, s) in &known.subscriptions {
            alone.extend(s.isolated.map(|offset| (*queue, *subscription, offset)));
        }
    }
    for (queue, subscription, offset) in alone {
        let mark =
            state.subscription(subscription).and_then(|(_, s)| s.marks.get(&offset)).copied().unwrap_or_default();
        let held = Held { offset, attempt: mark.attempts + 1 };
        let settler = Settler { queue, subscription, held };
        give_up(state, checkpoints, bytes_max, (now_ms, mark.crashes), settler)?;
    }
    Ok(())
}

fn give_up(
    state: &mut State,
    checkpoints: &Checkpoints,
    bytes_max: usize,
    (now_ms, crashes): (u64, u32),
    settler: Settler,
) -> Result<(), RestoreError> {
    let reason = format!("the router stopped uncleanly {crashes} times with this message in hand, the last time alone");
    let settlement = Settlement::DeadLetter { queue: None, reason, headers: Vec::new() };
    let settle = Settle { token: crate::delivery::Token(0), settlement, outputs: Vec::new() };
    let mut plan = Plan::new(state, checkpoints, bytes_max, now_ms);
    let settled = plan.settle(settler, &settle);
    let planned = plan.finish();
    let SubscriptionId(subscription) = settler.subscription;
    match settled {
        Ok(_) => tracing::error!(subscription, offset = %settler.held.offset, crashes, "gave up a message"),
        Err(why) => {
            tracing::error!(subscription, offset = %settler.held.offset, crashes, %why, "cannot give up a message");
            return Ok(());
        }
    }
    let volatile = Commit { time_ms: planned.commit.time_ms, operations: planned.volatile };
    apply(state, planned.commit, checkpoints)?;
    let failed = |e: crate::state::ApplyError| RecoverError::Record { sequence: 0, why: e.to_string() };
    Ok(state.apply_volatile(volatile, checkpoints).map_err(failed)?)
}

fn apply(state: &mut State, commit: Commit, bodies: &dyn Bodies) -> Result<(), RestoreError> {
    let failed = |e: crate::state::ApplyError| RecoverError::Record { sequence: 0, why: e.to_string() };
    Ok(state.apply(commit, bodies).map_err(failed)?)
}

/// Takes the store for this process; the lock goes with the file handle, also when the process is killed.
fn lock(path: &Path) -> Result<File, OpenError> {
    let file = path.join("LOCK");
    let io = |source| OpenError::Io { path: file.display().to_string(), source };
    let handle = File::options().create(true).truncate(false).write(true).open(&file).map_err(io)?;
    match handle.try_lock() {
        Ok(()) => Ok(handle),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked(path.display().to_string())),
        Err(TryLockError::Error(source)) => Err(io(source)),
    }
}
