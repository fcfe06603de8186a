//! Stores of earlier formats: read once, and written in the present one by the checkpoint that every start ends with.
//!
//! Format 1 knew one durability, one retention and one mode, and neither named publishers nor an index of chunks. Format 2
//! knew neither records nor subscriptions that stand still, and used the number of a removed queue again, had there been
//! one.

use std::collections::BTreeMap;

use bytes::Bytes;
use redb::{ReadTransaction, ReadableTable as _, WriteTransaction};
use serde::Deserialize;

use crate::checkpoint::{CHUNKS, CheckpointError, DEDUP, INDEX, Meta, QUEUES, Restored, read};
use crate::chunk::{Chunk, RowError, open, seal};
use crate::commit::{
    Commit, DedupKey, Mode, Offset, Operation, Outcome, Payload, QueueDefinition, QueueId, SubscriptionId,
};
use crate::dedup::Dedup;
use crate::offsets::OffsetSet;
use crate::plan::QueueSettings;
use crate::state::{ChunkInfo, Counts, Mark, QueueRow, State, Subscription, Times};

/// The format that a store's first row tells.
pub(crate) fn format_of(row: &[u8]) -> Result<u32, RowError> {
    open::<u32>(row)
}

/// A commit from a record of this format.
pub(crate) fn commit(format: u32, body: &[u8]) -> Result<Commit, String> {
    if format == 1 {
        return postcard::from_bytes::<Commit1>(body).map(Commit1::upgrade).map_err(|e| e.to_string());
    }
    postcard::from_bytes(body).map_err(|e| e.to_string())
}

/// The state of a checkpoint of format 1.
pub(crate) fn restore(transaction: &ReadTransaction, meta: &[u8]) -> Result<Restored, CheckpointError> {
    let meta = self::meta(1, meta).map_err(|e| row("meta", "meta", e))?;
    let mut state = State::default();
    state.time_ms = meta.time_ms;
    let mut chunks: BTreeMap<u32, Vec<ChunkInfo>> = BTreeMap::new();
    for row in transaction.open_table(CHUNKS).map_err(redb::Error::from)?.iter().map_err(redb::Error::from)? {
        let (key, value) = row.map_err(redb::Error::from)?;
        let chunk: Chunk = read("chunks", format!("{:?}", key.value()), value.value())?;
        chunks.entry(key.value().0).or_default().extend(chunk.info());
    }
    let queues = transaction.open_table(QUEUES).map_err(redb::Error::from)?;
    for row in queues.iter().map_err(redb::Error::from)? {
        let (id, value) = row.map_err(redb::Error::from)?;
        let restored = queue(1, value.value()).map_err(|e| self::row("queues", id.value(), e))?;
        state.restore(restored, &chunks.remove(&id.value()).unwrap_or_default());
        state.dirty.insert(QueueId(id.value()));
    }
    let dedup = transaction.open_table(DEDUP).map_err(redb::Error::from)?;
    for row in dedup.iter().map_err(redb::Error::from)? {
        let (position, value) = row.map_err(redb::Error::from)?;
        self::dedup(value.value(), &mut state.dedup).map_err(|e| self::row("dedup", position.value(), e))?;
    }
    state.dedup.expire(meta.time_ms);
    Ok(Restored { state, position: meta.position, store_id: meta.store_id, format: meta.format, clean: false })
}

/// The first row of a store of this format.
pub(crate) fn meta(format: u32, row: &[u8]) -> Result<Meta, RowError> {
    let (queue_next, subscription_next) = (0, 0);
    match format {
        1 => {
            let Meta1 { format, store_id, position, time_ms } = open(row)?;
            Ok(Meta { format, store_id, position, time_ms, clean: false, queue_next, subscription_next })
        }
        2 => {
            let Meta2 { format, store_id, position, time_ms, clean } = open(row)?;
            Ok(Meta { format, store_id, position, time_ms, clean, queue_next, subscription_next })
        }
        _ => open(row),
    }
}

/// A queue's row of this format.
pub(crate) fn queue(format: u32, row: &[u8]) -> Result<QueueRow, RowError> {
    match format {
        1 => Ok(open::<QueueRow1>(row)?.upgrade()),
        2 => Ok(open::<QueueRow2>(row)?.upgrade()),
        _ => open(row),
    }
}

/// Takes a row of message ids of format 1.
pub(crate) fn dedup(row: &[u8], dedup: &mut Dedup) -> Result<(), RowError> {
    let entries: Vec<Entry1> = open(row)?;
    entries.iter().for_each(|entry| dedup.insert(entry.key, entry.time_ms, &entry.places));
    Ok(())
}

fn row(table: &'static str, row: impl ToString, source: RowError) -> CheckpointError {
    CheckpointError::Row { table, row: row.to_string(), source }
}

/// Takes out of a file of format 1 what the present one keeps otherwise, and indexes its chunks.
pub(crate) fn upgrade(transaction: &WriteTransaction, format: u32) -> Result<(), CheckpointError> {
    if format > 1 {
        return Ok(());
    }
    let mut dedup = transaction.open_table(DEDUP).map_err(redb::Error::from)?;
    dedup.retain(|_, _| false).map_err(redb::Error::from)?;
    let chunks = transaction.open_table(CHUNKS).map_err(redb::Error::from)?;
    let mut index = transaction.open_table(INDEX).map_err(redb::Error::from)?;
    for row in chunks.iter().map_err(redb::Error::from)? {
        let (key, value) = row.map_err(redb::Error::from)?;
        let key = key.value();
        let chunk: Chunk = read("chunks", format!("{key:?}"), value.value())?;
        let Some(info) = chunk.info() else { continue };
        let row =
            seal(&info).map_err(|source| CheckpointError::Row { table: "index", row: format!("{key:?}"), source })?;
        index.insert(key, row.as_slice()).map_err(redb::Error::from)?;
    }
    Ok(())
}

#[derive(Deserialize)]
struct Meta1 {
    format: u32,
    store_id: [u8; 16],
    position: u64,
    time_ms: u64,
}

#[derive(Deserialize)]
struct QueueRow1 {
    definition: Definition1,
    next: Offset,
    live: u64,
    subscriptions: Vec<(SubscriptionId, Subscription1)>,
}

#[derive(Deserialize)]
struct Meta2 {
    format: u32,
    store_id: [u8; 16],
    position: u64,
    time_ms: u64,
    clean: bool,
}

#[derive(Deserialize)]
struct QueueRow2 {
    definition: QueueDefinition,
    next: Offset,
    removed: OffsetSet,
    times: Times,
    live: u64,
    subscriptions: Vec<(SubscriptionId, Subscription2)>,
}

#[derive(Deserialize)]
struct Subscription2 {
    name: String,
    mode: Mode,
    settled: OffsetSet,
    marks: BTreeMap<Offset, Mark>,
    delivered_through: Offset,
    returned_below: Offset,
    isolated: Option<Offset>,
    counts: Counts,
}

#[derive(Deserialize)]
struct Subscription1 {
    name: String,
    settled: OffsetSet,
    attempts: BTreeMap<Offset, u32>,
    counts: Counts1,
}

#[derive(Deserialize)]
struct Counts1 {
    entered: u64,
    acked: u64,
    filtered: u64,
    dropped: u64,
    dead_lettered: u64,
    failed_attempts: u64,
}

#[derive(Deserialize)]
struct Entry1 {
    key: DedupKey,
    time_ms: u64,
    places: Box<[(QueueId, Offset)]>,
}

#[derive(Deserialize)]
struct Definition1 {
    id: QueueId,
    name: String,
    subjects: Vec<quipu_protocol::SubjectPattern>,
    attempts_max: u32,
    backoff_ms: Vec<u64>,
    dead_letter: Option<String>,
}

#[derive(Deserialize)]
struct Commit1 {
    time_ms: u64,
    operations: Vec<Operation1>,
}

#[derive(Deserialize)]
enum Operation1 {
    DefineQueue(Definition1),
    DefineSubscription { id: SubscriptionId, queue: QueueId, name: String, floor: Offset },
    Append { header: Bytes, payload: Payload, places: Vec<(QueueId, Offset)>, dedup: Option<DedupKey> },
    Settle { subscription: SubscriptionId, offset: Offset, outcome: Outcome },
    Attempt { subscription: SubscriptionId, offset: Offset, attempts: u32 },
}

impl QueueRow1 {
    fn upgrade(self) -> QueueRow {
        let subscriptions = self.subscriptions.into_iter().map(|(id, s)| (id, s.upgrade(self.next))).collect();
        QueueRow {
            definition: self.definition.upgrade(),
            next: self.next,
            removed: OffsetSet::default(),
            times: Times::default(),
            live: self.live,
            subscriptions,
        }
    }
}

impl QueueRow2 {
    fn upgrade(self) -> QueueRow {
        let Self { definition, next, removed, times, live, subscriptions } = self;
        let subscriptions = subscriptions.into_iter().map(|(id, s)| (id, s.upgrade())).collect();
        QueueRow { definition, next, removed, times, live, subscriptions }
    }
}

impl Subscription2 {
    fn upgrade(self) -> Subscription {
        let Self { name, mode, settled, marks, delivered_through, returned_below, isolated, counts } = self;
        let paused = false;
        Subscription { name, mode, settled, marks, delivered_through, returned_below, isolated, counts, paused }
    }
}

impl Subscription1 {
    fn upgrade(self, next: Offset) -> Subscription {
        let mut now = Subscription::new(self.name, Mode::Shared, self.settled);
        let mark = |(offset, attempts)| (offset, Mark { attempts, crashes: 0 });
        now.marks = self.attempts.into_iter().map(mark).collect();
        // Nobody noted what was handed out.
        now.delivered_through = next;
        now.counts.entered = self.counts.entered;
        now.counts.acked = self.counts.acked;
        now.counts.filtered = self.counts.filtered;
        now.counts.dropped = self.counts.dropped;
        now.counts.dead_lettered = self.counts.dead_lettered;
        now.counts.failed_attempts = self.counts.failed_attempts;
        now
    }
}

impl Definition1 {
    fn upgrade(self) -> QueueDefinition {
        let defaults = QueueSettings::for_dead_letters(quipu_protocol::Subject::new("q").expect("a subject"));
        QueueDefinition {
            name: self.name,
            subjects: self.subjects,
            attempts_max: self.attempts_max,
            backoff_ms: self.backoff_ms,
            dead_letter: self.dead_letter,
            ..defaults.define(self.id)
        }
    }
}

impl Commit1 {
    fn upgrade(self) -> Commit {
        Commit { time_ms: self.time_ms, operations: self.operations.into_iter().map(Operation1::upgrade).collect() }
    }
}

impl Operation1 {
    fn upgrade(self) -> Operation {
        match self {
            Self::DefineQueue(definition) => Operation::DefineQueue(definition.upgrade()),
            Self::DefineSubscription { id, queue, name, floor } => {
                Operation::DefineSubscription { id, queue, name, mode: Mode::Shared, floor }
            }
            Self::Append { header, payload, places, dedup } => Operation::Append { header, payload, places, dedup },
            Self::Settle { subscription, offset, outcome } => Operation::Settle { subscription, offset, outcome },
            Self::Attempt { subscription, offset, attempts } => Operation::Attempt { subscription, offset, attempts },
        }
    }
}
