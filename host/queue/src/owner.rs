//! The owner of a store's state: one thread that plans, applies, answers and hands out.
//!
//! While the journal's thread syncs one commit, requests for the next are gathered; deliveries go on meanwhile, from
//! what is durable. Checkpoints are written by a third thread, from a frozen copy of references.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::sync::{Arc, mpsc as blocking};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::checkpoint::{Begun, Checkpoints, Frozen};
use crate::commit::{Commit, Offset, QueueId, Stored, SubscriptionId};
use crate::delivery::{Action, ConsumerId, Delivery as Deliverer, Event, Token};
use crate::journal::{Journal, JournalError, RECORD_ALIGN};
use crate::plan::{COMMIT_BYTES, Finish, Plan, Settle, SettleError, Settler};
use crate::request::{Answer, Gathered, Joined, Reply, Request, Sink};
use crate::state::{Bodies as _, State};
use crate::store::{Delivery, QueueInfo, StoreFailed, SubscribeError, SubscriptionInfo};

/// Requests gathered for one commit.
const GATHERED_MAX: usize = 4_096;
/// Between two looks whether a full dedup window has room.
const WINDOW_LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Requests taken before deliveries are looked at again.
const REQUESTS_PER_TURN: usize = 256;
/// A checkpoint is written after so many bytes of journal, or a quarter of it.
const CHECKPOINT_BYTES: u64 = 32 << 20;
/// … or after this time with changes.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);
/// After a failed checkpoint, the next try.
const CHECKPOINT_RETRY: Duration = Duration::from_secs(1);
/// What a commit takes besides its message, at the most.
pub(crate) const COMMIT_OVERHEAD_BYTES: usize = 16 << 10;

/// What an open store is made of.
pub(crate) struct Parts {
    pub(crate) state: State,
    pub(crate) sequence: u64,
    pub(crate) store_id: [u8; 16],
    pub(crate) checkpoints: Checkpoints,
    pub(crate) journal: Box<dyn Journal>,
    pub(crate) memory_bytes: usize,
    pub(crate) lock: File,
}

/// Starts the three threads.
pub(crate) fn start(parts: Parts, requests: mpsc::Receiver<Request>) -> io::Result<()> {
    // At most one job of each kind is under way.
    let (done_sender, done) = mpsc::channel(4);
    let (journal_jobs, jobs) = blocking::sync_channel(4);
    let (journal, sender) = (parts.journal, done_sender.clone());
    let body_bytes_max = journal.body_bytes_max();
    let checkpoint_bytes = CHECKPOINT_BYTES.min(journal.bytes() / 4);
    let journal_thread = thread::Builder::new().name("quipu-journal".into());
    let journal_thread = journal_thread.spawn(move || run_journal(journal, &jobs, &sender))?;
    let (checkpoint_jobs, jobs) = blocking::sync_channel(1);
    let checkpoints = parts.checkpoints.clone();
    let checkpoint_thread = thread::Builder::new().name("quipu-checkpoint".into());
    let checkpoint_thread = checkpoint_thread.spawn(move || run_checkpoints(&checkpoints, &jobs, &done_sender))?;
    let owner = Owner {
        state: parts.state,
        deliveries: HashMap::new(),
        consumers: HashMap::new(),
        consumer_next: 1,
        checkpoints: parts.checkpoints,
        gathered: VecDeque::new(),
        gathered_bytes: 0,
        held: VecDeque::new(),
        writing: None,
        body_bytes_max,
        applied: parts.sequence,
        store_id: parts.store_id,
        journal: journal_jobs,
        checkpointer: checkpoint_jobs,
        checkpoint: None,
        checkpointed: parts.sequence,
        checkpoint_due: None,
        checkpoint_bytes,
        journal_bytes: 0,
        memory_bytes: parts.memory_bytes,
        active: BTreeSet::new(),
        waiting: BTreeSet::new(),
        failed: None,
        stopping: None,
        threads: [journal_thread, checkpoint_thread],
        lock: parts.lock,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    thread::Builder::new().name("quipu-store".into()).spawn(move || runtime.block_on(owner.run(requests, done)))?;
    Ok(())
}

enum JournalJob {
    Append { sequence: u64, body: Vec<u8> },
    Release { through: u64 },
}

enum Done {
    Written(Result<(), JournalError>, Vec<u8>),
    Checkpointed(Result<(), String>),
}

fn run_journal(mut journal: Box<dyn Journal>, jobs: &blocking::Receiver<JournalJob>, done: &mpsc::Sender<Done>) {
    for job in jobs {
        match job {
            JournalJob::Release { through } => journal.release(through),
            JournalJob::Append { sequence, body } => {
                let written = journal.append(sequence, &body);
                if done.blocking_send(Done::Written(written, body)).is_err() {
                    return;
                }
            }
        }
    }
}

fn run_checkpoints(checkpoints: &Checkpoints, jobs: &blocking::Receiver<Frozen>, done: &mpsc::Sender<Done>) {
    for frozen in jobs {
        let written = checkpoints.write(frozen).map_err(|e| e.to_string());
        if done.blocking_send(Done::Checkpointed(written)).is_err() {
            return;
        }
    }
}

struct Owner {
    state: State,
    deliveries: HashMap<SubscriptionId, Deliverer>,
    consumers: HashMap<ConsumerId, Reader>,
    consumer_next: u64,
    checkpoints: Checkpoints,
    /// Requests that the next commit is made of.
    gathered: VecDeque<Gathered>,
    gathered_bytes: usize,
    /// Publishes that wait for room in the dedup window, in order. Bounded by the credit of their publishers.
    held: VecDeque<Gathered>,
    writing: Option<Writing>,
    body_bytes_max: usize,
    /// Sequence of the last record in the state.
    applied: u64,
    store_id: [u8; 16],
    journal: blocking::SyncSender<JournalJob>,
    checkpointer: blocking::SyncSender<Frozen>,
    checkpoint: Option<Begun>,
    /// Sequence of the last record in a checkpoint.
    checkpointed: u64,
    checkpoint_due: Option<Instant>,
    checkpoint_bytes: u64,
    /// Bytes of records since the last checkpoint.
    journal_bytes: u64,
    memory_bytes: usize,
    /// Subscriptions that may have something to hand out.
    active: BTreeSet<SubscriptionId>,
    /// Subscriptions with a timeout.
    waiting: BTreeSet<SubscriptionId>,
    failed: Option<StoreFailed>,
    stopping: Option<Vec<Reply<Result<(), StoreFailed>>>>,
    threads: [thread::JoinHandle<()>; 2],
    lock: File,
}

struct Reader {
    subscription: SubscriptionId,
    queue: QueueId,
    sink: Sink,
}

/// The commit that the journal's thread has.
struct Writing {
    commit: Commit,
    answers: Vec<Answer>,
    /// Its record, where the journal was full: tried again after the next checkpoint.
    full: Option<Vec<u8>>,
}

impl Owner {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>, mut done: mpsc::Receiver<Done>) {
        let mut open = true;
        while open || !self.is_idle() {
            let due = self.timeout();
            tokio::select! {
                biased;
                Some(done) = done.recv() => self.done(done),
                request = requests.recv(), if open && self.has_room() => match request {
                    Some(request) => {
                        self.take(request);
                        for _ in 1..REQUESTS_PER_TURN {
                            if !self.has_room() { break }
                            let Ok(request) = requests.try_recv() else { break };
                            self.take(request);
                        }
                    }
                    None => open = false,
                },
                () = tokio::time::sleep_until(due) => {}
            }
            self.tick();
            self.start_commit();
            self.hand_out();
            self.start_checkpoint();
            if self.stopping.is_some() && self.is_idle() {
                break;
            }
        }
        self.close(&mut done).await;
    }

    /// The last checkpoint, after which nothing needs to be replayed.
    async fn close(mut self, done: &mut mpsc::Receiver<Done>) {
        let mut outcome = match &self.failed {
            Some(failed) => Err(failed.clone()),
            None => Ok(()),
        };
        if outcome.is_ok() && self.applied > self.checkpointed {
            self.freeze();
            let written = if self.failed.is_none() { done.recv().await } else { None };
            if let Some(Done::Checkpointed(Err(why))) = written {
                outcome = Err(StoreFailed(format!("the last checkpoint failed: {why}").into()));
            }
        }
        // The files are closed before the answer, so that who waited for it can open the store again.
        let Self { journal, checkpointer, checkpoints, threads, lock, stopping, .. } = self;
        drop((journal, checkpointer, checkpoints));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
        drop(lock);
        stopping.into_iter().flatten().for_each(|reply| reply.give(outcome.clone()));
    }

    fn is_idle(&self) -> bool {
        self.failed.is_some() || (self.gathered.is_empty() && self.writing.is_none() && self.checkpoint.is_none())
    }

    fn has_room(&self) -> bool {
        self.gathered.len() < GATHERED_MAX && self.gathered_bytes < COMMIT_BYTES.min(self.body_bytes_max / 2)
    }

    fn timeout(&self) -> Instant {
        let parked = self.waiting.iter().filter_map(|id| self.deliveries.get(id)?.poll_timeout()).min();
        let parked = parked.map(|at_ms| Instant::now() + Duration::from_millis(at_ms.saturating_sub(now_ms())));
        let far = Instant::now() + Duration::from_secs(3_600);
        // What will not be begun is not waited for either.
        let checkpoint = self.checkpoint_due.filter(|_| self.checkpoint.is_none() && self.failed.is_none());
        let held = (!self.held.is_empty()).then(|| Instant::now() + WINDOW_LOOK_INTERVAL);
        parked.into_iter().chain(checkpoint).chain(held).min().unwrap_or(far)
    }

    fn take(&mut self, request: Request) {
        if let Some(failed) = &self.failed {
            return request.refuse(failed.clone());
        }
        match request {
            Request::Credit { consumer, total } => self.tell(consumer, Event::Credit(consumer, total)),
            Request::Leave { consumer } => {
                self.tell(consumer, Event::Leave(consumer));
                self.consumers.remove(&consumer);
            }
            Request::Describe { reply } => reply.give(Ok(self.describe())),
            Request::Stop { reply } => {
                self.stopping.get_or_insert_default().push(reply);
                let stopped = StoreFailed("it is stopped".into());
                self.held.drain(..).for_each(|publish| publish.refuse(stopped.clone()));
            }
            Request::Subscribe { queue, subscription, start, sink, reply } => {
                let Some(known) = self.state.queue_named(&queue) else {
                    return reply.give(Err(SubscribeError::UnknownQueue(queue)));
                };
                match known.subscription_named(&subscription) {
                    Some((id, _)) => {
                        let queue = known.definition.id;
                        let joined = self.join(queue, id, sink, false);
                        reply.give(Ok(joined));
                    }
                    None => self.gather(Gathered::Subscribe { queue, subscription, start, sink, reply }),
                }
            }
            Request::DefineQueue { settings, reply } => self.gather(Gathered::DefineQueue { settings, reply }),
            Request::Publish { messages, reply } => {
                let publish = Gathered::Publish { messages: messages.into_iter(), results: Vec::new(), reply };
                // In order, so whoever comes behind one that waits for the dedup window waits as well.
                if self.held.is_empty() && !self.state.dedup.is_full() {
                    self.gather(publish);
                } else {
                    self.held.push_back(publish);
                }
            }
            Request::Settle { consumer, items, credit, reply } => {
                if let Some(total) = credit {
                    self.tell(consumer, Event::Credit(consumer, total));
                }
                let subscription = self.consumers.get(&consumer).map(|reader| reader.subscription);
                let items: Vec<_> = items.into_iter().map(|settle| self.begin(consumer, settle)).collect();
                self.gather(Gathered::Settle { subscription, items: items.into_iter(), results: Vec::new(), reply });
            }
        }
    }

    fn gather(&mut self, request: Gathered) {
        self.gathered_bytes += request.bytes();
        self.gathered.push_back(request);
    }

    /// From here on the delivery stays with its settlement, whatever becomes of the consumer.
    fn begin(&mut self, consumer: ConsumerId, settle: Settle) -> (Settle, Result<Settler, SettleError>) {
        let reader = self.consumers.get(&consumer);
        let settler = reader.and_then(|reader| {
            let held = self.deliveries.get_mut(&reader.subscription)?.begin_settle(consumer, settle.token)?;
            Some(Settler { queue: reader.queue, subscription: reader.subscription, held })
        });
        (settle, settler.ok_or(SettleError::Stale))
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Written(Ok(()), body) => {
                self.journal_bytes += body.len().next_multiple_of(RECORD_ALIGN) as u64;
                self.checkpoint_due.get_or_insert_with(|| Instant::now() + CHECKPOINT_INTERVAL);
                if let Some(writing) = self.writing.take() {
                    self.committed(writing);
                }
            }
            Done::Written(Err(JournalError::Full), body) => {
                if let Some(writing) = &mut self.writing {
                    writing.full = Some(body);
                }
                self.checkpoint_due = Some(Instant::now());
            }
            Done::Written(Err(e), _) => self.fail(&e.to_string()),
            Done::Checkpointed(written) => self.checkpointed(written),
        }
    }

    fn committed(&mut self, writing: Writing) {
        let appended: BTreeSet<QueueId> = places(&writing.commit);
        if let Err(e) = self.state.apply(writing.commit, &self.checkpoints) {
            return self.fail(&e.to_string());
        }
        self.applied += 1;
        for id in appended {
            let Some(queue) = self.state.queues.get(&id) else { continue };
            for subscription in queue.subscriptions.keys() {
                if let Some(delivery) = self.deliveries.get_mut(subscription) {
                    delivery.handle(now_ms(), Event::Available(queue.next));
                    self.active.insert(*subscription);
                }
            }
        }
        writing.answers.into_iter().for_each(|answer| self.answer(answer));
    }

    fn answer(&mut self, answer: Answer) {
        match answer {
            Answer::Defined(reply) => reply.give(Ok(())),
            Answer::Published(results, reply) => reply.give(Ok(results)),
            Answer::Settled { subscription, finishes, reply } => {
                finishes.into_iter().for_each(|(token, finish)| self.finish(subscription, token, &finish));
                if let Some((results, reply)) = reply {
                    reply.give(Ok(results));
                }
            }
            Answer::Subscribed { queue, subscription, sink, reply } => {
                let joined = self.join(queue, subscription, sink, true);
                reply.give(Ok(joined));
            }
        }
    }

    fn finish(&mut self, subscription: Option<SubscriptionId>, token: Token, finish: &Result<Finish, SettleError>) {
        let now_ms = now_ms();
        let event = match finish {
            Ok(Finish::Gone) => Event::Settled(token),
            Ok(Finish::Park { attempts, delay_ms }) => {
                Event::Parked { token, attempts: *attempts, until_ms: now_ms.saturating_add(*delay_ms) }
            }
            Err(SettleError::Stale) => return,
            Err(_) => Event::Refused(token),
        };
        if let Some((id, delivery)) = subscription.and_then(|id| Some((id, self.deliveries.get_mut(&id)?))) {
            delivery.handle(now_ms, event);
            self.active.insert(id);
            if delivery.poll_timeout().is_some() {
                self.waiting.insert(id);
            }
        }
    }

    fn join(&mut self, queue: QueueId, id: SubscriptionId, sink: Sink, created: bool) -> Joined {
        let consumer = ConsumerId(self.consumer_next);
        self.consumer_next += 1;
        let known = &self.state.queues[&queue];
        let subscription = &known.subscriptions[&id];
        let delivery = self.deliveries.entry(id).or_insert_with(|| {
            let attempts = subscription.attempts.iter().map(|(offset, n)| (*offset, *n));
            let mut made = Deliverer::new(
                subscription.settled.floor(),
                subscription.settled.above_floor(),
                attempts,
                token_first(),
            );
            made.handle(now_ms(), Event::Available(known.next));
            made
        });
        delivery.handle(now_ms(), Event::Join(consumer));
        self.consumers.insert(consumer, Reader { subscription: id, queue, sink });
        Joined { consumer, created, floor: subscription.settled.floor() }
    }

    fn tell(&mut self, consumer: ConsumerId, event: Event) {
        let Some(reader) = self.consumers.get(&consumer) else { return };
        if let Some(delivery) = self.deliveries.get_mut(&reader.subscription) {
            delivery.handle(now_ms(), event);
            self.active.insert(reader.subscription);
        }
    }

    fn tick(&mut self) {
        let now_ms = now_ms();
        if !self.held.is_empty() {
            self.state.dedup.expire(now_ms.max(self.state.time_ms));
        }
        while !self.state.dedup.is_full()
            && self.has_room()
            && let Some(publish) = self.held.pop_front()
        {
            self.gather(publish);
        }
        for id in &self.waiting {
            let Some(delivery) = self.deliveries.get_mut(id) else { continue };
            if delivery.poll_timeout().is_some_and(|at_ms| at_ms <= now_ms) {
                delivery.handle(now_ms, Event::Tick);
                self.active.insert(*id);
            }
        }
        let deliveries = &self.deliveries;
        self.waiting.retain(|id| deliveries.get(id).is_some_and(|delivery| delivery.poll_timeout().is_some()));
    }

    /// Plans what was gathered and hands it to the journal's thread, unless that has a commit already.
    fn start_commit(&mut self) {
        if self.writing.is_some() || self.gathered.is_empty() || self.failed.is_some() {
            return;
        }
        let mut gathered = std::mem::take(&mut self.gathered);
        let bytes_max = self.body_bytes_max - COMMIT_OVERHEAD_BYTES;
        let mut plan = Plan::new(&mut self.state, &self.checkpoints, bytes_max, now_ms());
        let mut answers = Vec::with_capacity(gathered.len());
        while !plan.is_full()
            && let Some(request) = gathered.pop_front()
        {
            let (answer, rest) = request.plan(&mut plan);
            answers.extend(answer);
            if let Some(rest) = rest {
                gathered.push_front(rest);
            }
        }
        let commit = plan.finish();
        self.gathered_bytes = gathered.iter().map(Gathered::bytes).sum();
        self.gathered = gathered;
        if commit.operations.is_empty() {
            answers.into_iter().for_each(|answer| self.answer(answer));
            return;
        }
        match postcard::to_allocvec(&commit) {
            Ok(body) => {
                self.writing = Some(Writing { commit, answers, full: None });
                self.write(body);
            }
            Err(e) => self.fail(&format!("a commit cannot be written: {e}")),
        }
    }

    fn write(&mut self, body: Vec<u8>) {
        let sequence = self.applied + 1;
        if self.journal.send(JournalJob::Append { sequence, body }).is_err() {
            self.fail("the journal's thread is gone");
        }
    }

    fn hand_out(&mut self) {
        for id in std::mem::take(&mut self.active) {
            let Some(delivery) = self.deliveries.get_mut(&id) else { continue };
            let mut batches: BTreeMap<ConsumerId, Vec<Delivery>> = BTreeMap::new();
            while let Some(Action::Deliver { consumer, token, offset, attempt, why }) = delivery.poll_action() {
                let Some(reader) = self.consumers.get(&consumer) else { continue };
                match message(&self.state, &self.checkpoints, reader.queue, offset) {
                    Ok(stored) => {
                        let handed = Delivery { token, offset, attempt, why, stored };
                        batches.entry(consumer).or_default().push(handed);
                    }
                    // Kept in flight: never altered, never skipped in silence.
                    Err(why) => tracing::error!(queue = ?reader.queue, %offset, %why, "a message cannot be read"),
                }
            }
            for (consumer, batch) in batches {
                if let Some(reader) = self.consumers.get_mut(&consumer) {
                    (reader.sink)(batch);
                }
            }
        }
    }

    fn start_checkpoint(&mut self) {
        let due =
            self.journal_bytes >= self.checkpoint_bytes || self.checkpoint_due.is_some_and(|at| at <= Instant::now());
        if due && self.checkpoint.is_none() && self.failed.is_none() {
            self.freeze();
        }
    }

    fn freeze(&mut self) {
        let frozen = Frozen::new(&mut self.state, self.applied, self.store_id);
        self.checkpoint = Some(frozen.begun());
        (self.checkpoint_due, self.journal_bytes) = (None, 0);
        if self.checkpointer.send(frozen).is_err() {
            self.fail("the checkpoint's thread is gone");
        }
    }

    fn checkpointed(&mut self, written: Result<(), String>) {
        let Some(checkpoint) = self.checkpoint.take() else { return };
        if let Err(why) = written {
            tracing::error!(%why, "a checkpoint failed and is tried again");
            checkpoint.failed(&mut self.state);
            self.checkpoint_due = Some(Instant::now() + CHECKPOINT_RETRY);
            return;
        }
        self.checkpointed = checkpoint.position;
        checkpoint.done(&mut self.state);
        self.state.evict(self.memory_bytes);
        // Ignored: where the thread is gone, the next append says so.
        self.journal.send(JournalJob::Release { through: self.checkpointed }).ok();
        if let Some(body) = self.writing.as_mut().and_then(|writing| writing.full.take()) {
            self.write(body);
        }
    }

    /// Ends acknowledgements for good: what is on disk is no longer known.
    fn fail(&mut self, why: &str) {
        tracing::error!(%why, "the store has failed");
        let failed = StoreFailed(why.into());
        self.failed = Some(failed.clone());
        let answers = self.writing.take().map(|writing| writing.answers);
        answers.into_iter().flatten().for_each(|answer| answer.refuse(failed.clone()));
        let waiting = std::mem::take(&mut self.held).into_iter().chain(std::mem::take(&mut self.gathered));
        waiting.for_each(|request| request.refuse(failed.clone()));
    }

    fn describe(&self) -> Vec<QueueInfo> {
        let mut queues: Vec<QueueInfo> = self.state.queues.values().map(|queue| self.describe_queue(queue)).collect();
        queues.sort_by(|a, b| a.name.cmp(&b.name));
        queues
    }

    fn describe_queue(&self, queue: &crate::state::Queue) -> QueueInfo {
        let subscription = |(id, s): (&SubscriptionId, &crate::state::Subscription)| {
            let delivery = self.deliveries.get(id);
            let in_flight = delivery.map_or(0, |d| d.in_flight() as u64);
            let parked = delivery.map_or(0, |d| d.parked() as u64);
            SubscriptionInfo {
                name: s.name.clone(),
                mode: "shared",
                floor: s.settled.floor().0,
                consumers: delivery.map_or(0, Deliverer::consumers),
                waiting: (s.counts.entered - s.counts.settled()).saturating_sub(in_flight + parked),
                in_flight,
                parked,
                counts: s.counts,
            }
        };
        QueueInfo {
            name: queue.definition.name.clone(),
            subjects: queue.definition.subjects.iter().map(ToString::to_string).collect(),
            durability: "synced",
            retention: "work",
            messages: queue.live,
            next_offset: queue.next.0,
            attempts_max: queue.definition.attempts_max,
            dead_letter: queue.definition.dead_letter.clone(),
            subscriptions: queue.subscriptions.iter().map(subscription).collect(),
        }
    }
}

fn places(commit: &Commit) -> BTreeSet<QueueId> {
    let mut queues = BTreeSet::new();
    for operation in &commit.operations {
        if let crate::commit::Operation::Append { places, .. } = operation {
            queues.extend(places.iter().map(|(id, _)| *id));
        }
    }
    queues
}

fn message(state: &State, checkpoints: &Checkpoints, queue: QueueId, offset: Offset) -> Result<Arc<Stored>, String> {
    match state.queues.get(&queue).and_then(|queue| queue.in_memory(offset)) {
        Some(stored) => Ok(stored.clone()),
        None => checkpoints.message(queue, offset),
    }
}

/// Tokens of different runs of the router differ, so that one from before a restart is stale: they count up from the
/// start's time in microseconds.
fn token_first() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX / 2)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
