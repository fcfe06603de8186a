//! The owner of a store's state, without threads, clock or disk of its own.
//!
//! Tell it what is asked with [`Engine::take`] and what became of its jobs with [`Engine::done`], call
//! [`Engine::advance`] after either and when [`Engine::timeout_us`] is due, and do what [`Engine::next_job`] returns, in
//! order, jobs of one kind one after the other. While the journal has one commit, requests for the next are gathered;
//! deliveries go on meanwhile, from what was applied.

mod blocked;
mod changes;
mod commits;
mod deliveries;
mod info;
mod pace;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::checkpoint::{Begun, Checkpoints, Frozen, Written};
use crate::commit::{QueueId, SubscriptionId};
use crate::delivery::{ConsumerId, Delivery as Deliverer, Event};
use crate::disk::Disk;
use crate::inbox::Inboxes;
use crate::journal::{JournalError, RECORD_ALIGN};
use crate::plan::{COMMIT_BYTES, Plan, Planned, PublishError, Settlement};
use crate::request::{Answer, Gathered, Reply, Request, Sink};
use crate::state::State;
use crate::store::StoreFailed;
use blocked::Blocked;
use pace::Pace;

/// Requests gathered for one commit.
const GATHERED_MAX: usize = 4_096;
/// A checkpoint is written after so many bytes of journal, or a quarter of it.
const CHECKPOINT_BYTES: u64 = 32 << 20;
/// … or after this time with changes, in microseconds.
const CHECKPOINT_INTERVAL_US: u64 = 1_000_000;
/// After a failed checkpoint, the next try.
const CHECKPOINT_RETRY_US: u64 = 1_000_000;
/// Between two looks at what only time changes: a full dedup window, the age of logs, the room on the disk.
const LOOK_INTERVAL_US: u64 = 250_000;
/// A commit that nobody waits for is synced after this time.
const SYNC_INTERVAL_US: u64 = 50_000;
/// The largest buffer that is kept for the next record, in bytes.
const SPARE_BYTES_MAX: usize = 2 << 20;
/// After a burst of commits, an empty one tells later that the last of them was whole.
const SEAL_AFTER_US: u64 = 20_000;
/// What a commit takes besides its message, at the most.
pub(crate) const COMMIT_OVERHEAD_BYTES: usize = 16 << 10;
/// The file gives room back past this size, in bytes: with a journal of the default size that is under 200 MiB …
const SHRINK_BYTES_MIN: u64 = 48 << 20;
/// … where it is so many times as large as what is in it …
const SHRINK_FACTOR: u64 = 4;
/// … and no more than this must be moved for it, in bytes, since readers wait meanwhile.
const SHRINK_MOVED_MAX: u64 = 128 << 20;

/// Both clocks.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Now {
    /// Unix milliseconds; may jump.
    pub(crate) ms: u64,
    /// Microseconds since some moment; never goes back.
    pub(crate) us: u64,
}

/// What an engine begins with.
pub(crate) struct Parts {
    pub(crate) state: State,
    pub(crate) sequence: u64,
    pub(crate) store_id: [u8; 16],
    pub(crate) checkpoints: Checkpoints,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) memory_bytes: usize,
    pub(crate) disk_reserve_bytes: u64,
    /// Of the journal: the largest body, and all records together.
    pub(crate) body_bytes_max: usize,
    pub(crate) journal_bytes: u64,
    /// The first token of this run: above all of earlier ones.
    pub(crate) token_first: u64,
}

/// Work for the threads that may block.
#[derive(Debug)]
pub(crate) enum Job {
    Append { sequence: u64, body: Vec<u8>, durable: bool },
    Sync,
    Release { through: u64 },
    Checkpoint(Box<Frozen>),
}

/// What became of a job.
#[derive(Debug)]
pub(crate) enum Done {
    Written(Result<(), JournalError>, Vec<u8>),
    Synced(Result<(), JournalError>),
    Checkpointed(Result<Written, String>),
}

pub(crate) struct Engine {
    state: State,
    deliveries: HashMap<SubscriptionId, Deliverer>,
    consumers: HashMap<ConsumerId, Reader>,
    consumer_next: u64,
    token_first: u64,
    /// Streams of named publishers, by name: only the last one that was opened goes on.
    sessions: HashMap<Arc<str>, u64>,
    session_next: u64,
    checkpoints: Checkpoints,
    disk: Arc<dyn Disk>,
    jobs: VecDeque<Job>,
    /// The last record's buffer, for the next one.
    spare: Vec<u8>,
    /// Requests that the next commit is made of.
    gathered: VecDeque<Gathered>,
    gathered_bytes: usize,
    blocked: Blocked,
    /// Where replies go; nothing of it lasts.
    inboxes: Inboxes,
    writing: Option<Writing>,
    body_bytes_max: usize,
    /// Sequence of the last record in the state.
    applied: u64,
    store_id: [u8; 16],
    /// When the commits that nobody waited for are synced.
    sync_due_us: Option<u64>,
    /// When the burst is sealed, if it is not yet.
    seal_due_us: Option<u64>,
    checkpoint: Option<Checkpoint>,
    /// Sequence of the last record in a checkpoint.
    checkpointed: u64,
    checkpoint_due_us: Option<u64>,
    checkpoint_bytes: u64,
    checkpoint_failed: Option<String>,
    /// Who waits for a checkpoint, and whether the next one is to give room back.
    checkpoint_asked: Vec<Reply<Result<Checkpoints, StoreFailed>>>,
    shrink_asked: bool,
    file_bytes: u64,
    pace: Pace,
    memory_bytes: usize,
    disk_reserve_bytes: u64,
    disk_is_low: bool,
    looked_us: u64,
    /// Subscriptions that may have something to hand out.
    active: BTreeSet<SubscriptionId>,
    /// Subscriptions with a timeout.
    waiting: BTreeSet<SubscriptionId>,
    failed: Option<StoreFailed>,
    stopping: Option<Vec<StopReply>>,
}

struct Reader {
    subscription: SubscriptionId,
    queue: QueueId,
    sink: Sink,
}

/// The commit that the journal's thread has.
struct Writing {
    planned: Planned,
    answers: Vec<Answer>,
    durable: bool,
    /// Whether the journal has it.
    recorded: bool,
    /// Its record, where the journal was full: tried again after the next checkpoint.
    full: Option<Vec<u8>>,
}

/// The checkpoint that is being written.
struct Checkpoint {
    begun: Begun,
    asked: Vec<Reply<Result<Checkpoints, StoreFailed>>>,
    began_us: u64,
    clean: bool,
}

impl Engine {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            deliveries: HashMap::new(),
            consumers: HashMap::new(),
            consumer_next: 1,
            token_first: parts.token_first,
            sessions: HashMap::new(),
            session_next: 1,
            checkpoints: parts.checkpoints,
            disk: parts.disk,
            jobs: VecDeque::new(),
            spare: Vec::new(),
            gathered: VecDeque::new(),
            gathered_bytes: 0,
            blocked: Blocked::default(),
            inboxes: Inboxes::default(),
            writing: None,
            body_bytes_max: parts.body_bytes_max,
            applied: parts.sequence,
            store_id: parts.store_id,
            sync_due_us: None,
            seal_due_us: None,
            checkpoint: None,
            checkpointed: parts.sequence,
            checkpoint_due_us: None,
            checkpoint_bytes: CHECKPOINT_BYTES.min(parts.journal_bytes / 4),
            checkpoint_failed: None,
            checkpoint_asked: Vec::new(),
            shrink_asked: false,
            file_bytes: 0,
            pace: Pace::new(parts.journal_bytes),
            memory_bytes: parts.memory_bytes,
            disk_reserve_bytes: parts.disk_reserve_bytes,
            disk_is_low: false,
            looked_us: 0,
            active: BTreeSet::new(),
            waiting: BTreeSet::new(),
            failed: None,
            stopping: None,
            state: parts.state,
        }
    }

    pub(crate) fn next_job(&mut self) -> Option<Job> {
        self.jobs.pop_front()
    }

    /// Whether nothing is under way that an end would cut off.
    pub(crate) fn is_idle(&self) -> bool {
        let busy = !self.gathered.is_empty() || self.writing.is_some() || self.sync_due_us.is_some();
        self.failed.is_some() || !(busy || self.checkpoint.is_some())
    }

    /// Whether it is asked to stop and has nothing left to do.
    pub(crate) fn is_over(&self) -> bool {
        self.stopping.is_some() && self.is_idle()
    }

    pub(crate) fn has_room(&self) -> bool {
        self.gathered.len() < GATHERED_MAX && self.gathered_bytes < COMMIT_BYTES.min(self.body_bytes_max / 2)
    }

    /// When to call [`advance`](Self::advance) at the latest.
    pub(crate) fn timeout_us(&self, now: Now) -> Option<u64> {
        let in_us = |at_ms: u64| now.us + at_ms.saturating_sub(now.ms).saturating_mul(1_000);
        let parked = self.waiting.iter().filter_map(|id| self.deliveries.get(id)?.poll_timeout()).min().map(in_us);
        if self.failed.is_some() {
            return None;
        }
        // What will not be begun is not waited for either.
        let checkpoint = self.checkpoint_due_us.filter(|_| self.checkpoint.is_none());
        let idle = self.writing.is_none();
        let sync = self.sync_due_us.filter(|_| self.writing.as_ref().is_none_or(|writing| writing.full.is_some()));
        let seal = self.seal_due_us.filter(|_| idle && self.gathered.is_empty());
        // A commit in which nothing was to be done leaves the rest to the next, and no job that would end.
        let next = (idle && !self.gathered.is_empty()).then(|| self.pace.next_us().unwrap_or(now.us));
        let looks = !self.blocked.is_empty() || self.disk_is_low || !self.state.logs.is_empty();
        let look = looks.then_some(self.looked_us + LOOK_INTERVAL_US);
        // What a commit without a record woke.
        let active = (!self.active.is_empty()).then_some(now.us);
        [parked, checkpoint, sync, seal, next, look, active].into_iter().flatten().min()
    }

    pub(crate) fn take(&mut self, now: Now, request: Request) {
        if let Some(failed) = &self.failed {
            return self.refuse(request, failed.clone());
        }
        match request {
            Request::Credit { consumer, credit } => self.credit(now, consumer, credit),
            Request::Leave { consumer } => {
                self.tell(now, consumer, Event::Leave(consumer));
                self.consumers.remove(&consumer);
            }
            Request::OpenInbox { subject, most, reply } => reply.give(Ok(self.inboxes.open(subject, most))),
            Request::CloseInbox { subject } => self.inboxes.close(&subject),
            Request::Describe { reply } => reply.give(Ok(self.describe())),
            Request::Stop { reply } => {
                self.stopping.get_or_insert_default().push(reply);
                let stopped = StoreFailed("it is stopped".into());
                self.blocked.take_all().for_each(|publish| publish.refuse(stopped.clone()));
                // What nobody waits for is synced now.
                self.sync_due_us = self.sync_due_us.map(|_| now.us);
            }
            Request::Checkpoint { shrink, reply } => {
                self.checkpoint_asked.push(reply);
                self.shrink_asked |= shrink;
            }
            Request::Subscribe { subscribe, sink, reply } => self.subscribe(now, subscribe, sink, reply),
            Request::DefineSubscription { subscribe, reply } => self.define_subscription(subscribe, reply),
            Request::Change { change, reply } => self.gather(Gathered::Change { change, reply }),
            Request::Records { prefix, reply } => reply.give(Ok(self.records(&prefix))),
            Request::Known { ids, reply } => reply.give(Ok(self.known(now, &ids))),
            Request::Page { queue, from, most, reply } => reply.give(Ok(self.page(&queue, from, most))),
            Request::DefineQueue { settings, reply } => self.gather(Gathered::DefineQueue { settings, reply }),
            Request::OpenPublisher { name, epoch, reply } => {
                self.gather(Gathered::OpenPublisher { name, epoch, reply });
            }
            Request::Redrive { redrive, reply } => self.gather(Gathered::Redrive { redrive, reply }),
            Request::Publish { messages, source, reply } => {
                let (id, named) = (source.id, source.named.clone());
                let messages = messages.into_iter();
                let publish = Gathered::Publish { messages, source, results: Vec::new(), reply };
                if let Some((run, session)) = named
                    && self.sessions.get(&run.name) != Some(&session)
                {
                    let Gathered::Publish { messages, reply, .. } = publish else { return };
                    return reply.give(Ok(messages.map(|_| Err(PublishError::Fenced(run.name.clone()))).collect()));
                }
                // In order, so whatever comes behind one that waits waits as well.
                if self.blocked.holds(id) {
                    self.blocked.push_back(id, publish);
                } else if self.state.window_is_full() || self.blocked.window_waits() {
                    self.blocked.wait_for_window(publish);
                } else {
                    self.gather(publish);
                }
            }
            Request::Settle { consumer, items, credit, reply } => {
                if let Some(credit) = credit {
                    self.credit(now, consumer, credit);
                }
                let subscription = self.consumers.get(&consumer).map(|reader| reader.subscription);
                let items: Vec<_> = items.into_iter().map(|settle| self.begin(now, consumer, settle)).collect();
                let items = items.into_iter();
                self.gather(Gathered::Settle {
                    subscription,
                    items,
                    results: Vec::new(),
                    refused: HashSet::new(),
                    reply,
                });
            }
        }
    }

    pub(crate) fn done(&mut self, now: Now, done: Done) {
        match done {
            Done::Written(Ok(()), body) => {
                let bytes = body.len().next_multiple_of(RECORD_ALIGN) as u64;
                self.keep(body);
                self.pace.written(bytes);
                self.checkpoint_due_us.get_or_insert(now.us + CHECKPOINT_INTERVAL_US);
                if let Some(writing) = self.writing.take() {
                    self.pace.after(now.us, bytes);
                    self.committed(now, writing);
                }
            }
            Done::Written(Err(JournalError::Full), body) => {
                if let Some(writing) = &mut self.writing {
                    writing.full = Some(body);
                }
                if self.checkpoint_failed.is_none() {
                    self.checkpoint_due_us = Some(now.us);
                }
            }
            Done::Written(Err(e), _) | Done::Synced(Err(e)) => self.fail(&e.to_string()),
            Done::Synced(Ok(())) => {}
            Done::Checkpointed(written) => self.checkpointed(now, written),
        }
    }

    /// Does whatever can be done now.
    pub(crate) fn advance(&mut self, now: Now) {
        if self.failed.is_some() {
            return;
        }
        self.tick(now);
        self.hand_out(now);
        self.start_commit(now);
        self.seal_and_sync(now);
        self.start_checkpoint(now);
    }

    /// The checkpoint that a stop in order ends with, after which nothing needs to be replayed; false where there is
    /// nothing to write. [`Done::Checkpointed`] answers.
    pub(crate) fn begin_last_checkpoint(&mut self, now: Now) -> bool {
        if self.failed.is_none() {
            self.freeze(now, true);
        }
        self.failed.is_none()
    }

    /// Answers those who wait for the end.
    pub(crate) fn stopped(&mut self, last: Option<&Done>) -> (Vec<StopReply>, Result<(), StoreFailed>) {
        let mut outcome = self.failed.clone().map_or(Ok(()), Err);
        if let Some(Done::Checkpointed(Err(why))) = last {
            outcome = Err(StoreFailed(format!("the last checkpoint failed: {why}").into()));
        }
        (self.stopping.take().unwrap_or_default(), outcome)
    }

    /// Ends acknowledgements for good: what is on disk is no longer known.
    pub(crate) fn fail(&mut self, why: &str) {
        tracing::error!(%why, "the store has failed");
        let failed = StoreFailed(why.into());
        self.failed = Some(failed.clone());
        self.inboxes.clear();
        let answers = self.writing.take().map(|writing| writing.answers);
        answers.into_iter().flatten().for_each(|answer| answer.refuse(failed.clone()));
        let waiting = self.blocked.take_all().chain(std::mem::take(&mut self.gathered));
        waiting.for_each(|request| request.refuse(failed.clone()));
        std::mem::take(&mut self.checkpoint_asked).into_iter().for_each(|reply| reply.give(Err(failed.clone())));
    }

    /// What is asked of a store that has failed: only what it is and to stop is answered.
    fn refuse(&mut self, request: Request, failed: StoreFailed) {
        match request {
            Request::Describe { reply } => reply.give(Ok(self.describe())),
            Request::Stop { reply } => self.stopping.get_or_insert_default().push(reply),
            request => request.refuse(failed),
        }
    }

    /// Keeps a buffer for the next record, unless it is a rare large one.
    fn keep(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() <= SPARE_BYTES_MAX {
            buffer.clear();
            self.spare = buffer;
        }
    }

    fn gather(&mut self, request: Gathered) {
        self.gathered_bytes += request.bytes();
        self.gathered.push_back(request);
    }

    fn tick(&mut self, now: Now) {
        if now.us >= self.looked_us + LOOK_INTERVAL_US {
            self.looked_us = now.us;
            self.look(now);
        }
        self.unblock();
        let is_due = |id: &&SubscriptionId| {
            let due = self.deliveries.get(id).and_then(Deliverer::poll_timeout);
            due.is_some_and(|at_ms| at_ms <= now.ms)
        };
        let due: Vec<SubscriptionId> = self.waiting.iter().filter(is_due).copied().collect();
        due.into_iter().for_each(|id| self.handle(now, id, Event::Tick));
    }

    /// What only time changes.
    fn look(&mut self, now: Now) {
        if self.blocked.window_waits() {
            self.state.expire_window(now.ms);
        }
        // Where anything else is to be done, logs are looked at with it.
        let is_quiet = self.writing.is_none() && self.gathered.is_empty();
        let is_too_old = |id| self.state.queues.get(id).is_some_and(|queue| Plan::is_too_old(queue, now.ms));
        if is_quiet && self.state.logs.iter().any(is_too_old) {
            self.gather(Gathered::Retain);
        }
        let free = self.disk.free_bytes().ok().flatten();
        let is_low = free.is_some_and(|free| free < self.disk_reserve_bytes);
        if is_low != self.disk_is_low {
            tracing::warn!(free, reserve = self.disk_reserve_bytes, is_low, "the room on the disk passed the reserve");
            self.disk_is_low = is_low;
        }
    }

    /// No publish is taken: the disk has no room, or soon has none.
    fn refuses_publishes(&self) -> bool {
        self.disk_is_low || (self.checkpoint_failed.is_some() && self.pace.is_half_full())
    }
}

/// How those who wait for the end are told.
type StopReply = Reply<Result<(), StoreFailed>>;

/// A settlement that ends a delivery without anything that must become durable.
fn is_immediate(settlement: &Settlement) -> bool {
    matches!(settlement, Settlement::GiveBack | Settlement::Extend { .. })
}
