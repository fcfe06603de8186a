//! From what was gathered to a commit, a record, the state, and the answers; and checkpoints.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{
    CHECKPOINT_RETRY_US, COMMIT_OVERHEAD_BYTES, Checkpoint, Engine, Job, Now, SEAL_AFTER_US, SHRINK_BYTES_MIN,
    SHRINK_FACTOR, SHRINK_MOVED_MAX, SYNC_INTERVAL_US, Writing,
};
use crate::checkpoint::{Frozen, Written};
use crate::commit::{Commit, Offset, OnFull, Operation, QueueId};
use crate::dedup;
use crate::delivery::Event;
use crate::inbox;
use crate::plan::{Plan, Planned};
use crate::request::{Answer, Gathered, Opened, Rest};
use crate::store::StoreFailed;

/// What a commit does that deliveries must hear of.
#[derive(Default)]
struct Touched {
    appended: BTreeSet<QueueId>,
    trimmed: BTreeMap<QueueId, Offset>,
    removed: Vec<(QueueId, Offset)>,
}

impl Engine {
    /// Plans what was gathered and hands it to the journal's thread, unless that has a commit already.
    pub(super) fn start_commit(&mut self, now: Now) {
        let paused = self.pace.next_us().is_some_and(|at_us| now.us < at_us);
        if self.writing.is_some() || self.failed.is_some() || self.gathered.is_empty() || paused {
            return;
        }
        let (planned, answers) = self.plan(now);
        if planned.commit.operations.is_empty() {
            // Nothing for the journal: it is as durable as it will be.
            return self.committed(now, Writing { planned, answers, durable: false, recorded: false, full: None });
        }
        // What nobody waits for is synced in time, also where one commit follows the other.
        let durable = planned.needs_sync || self.sync_due_us.is_some_and(|due_us| due_us <= now.us);
        match postcard::to_extend(&planned.commit, std::mem::take(&mut self.spare)) {
            Ok(body) => {
                self.writing = Some(Writing { planned, answers, durable, recorded: true, full: None });
                self.seal_due_us = Some(now.us + SEAL_AFTER_US);
                self.jobs.push_back(Job::Append { sequence: self.applied + 1, body, durable });
            }
            Err(e) => self.fail(&format!("a commit cannot be written: {e}")),
        }
    }

    fn plan(&mut self, now: Now) -> (Planned, Vec<Answer>) {
        let refuses = self.refuses_publishes();
        let bytes_max = self.body_bytes_max - COMMIT_OVERHEAD_BYTES;
        let mut gathered = std::mem::take(&mut self.gathered);
        let plan = Plan::new(&mut self.state, &self.checkpoints, bytes_max, now.ms);
        let mut plan = plan.with_inboxes(&mut self.inboxes);
        if refuses {
            plan.refuse_publishes();
        }
        let mut answers = Vec::with_capacity(gathered.len());
        let mut waits = false;
        while !plan.is_full()
            && let Some(request) = gathered.pop_front()
        {
            let source = if let Gathered::Publish { source, .. } = &request { Some(source.id) } else { None };
            if let Some(source) = source.filter(|source| self.blocked.holds(*source)) {
                self.blocked.push_back(source, request);
                continue;
            }
            let (answer, rest) = request.plan(&mut plan);
            answers.extend(answer);
            match rest {
                Rest::Nothing => {}
                Rest::Next(rest) => gathered.push_front(rest),
                Rest::Blocked(queue, rest) => {
                    waits = true;
                    self.blocked.push_front(source.unwrap_or_default(), queue, rest);
                }
            }
        }
        plan.retain();
        let planned = plan.finish();
        if waits {
            self.hold_back(&mut gathered);
        }
        self.gathered_bytes = gathered.iter().map(Gathered::bytes).sum();
        self.gathered = gathered;
        (planned, answers)
    }

    /// What a publisher sent behind a publish that waits waits as well, or it would go first once there is room.
    fn hold_back(&mut self, gathered: &mut VecDeque<Gathered>) {
        for request in std::mem::take(gathered) {
            match &request {
                Gathered::Publish { source, .. } if self.blocked.holds(source.id) => {
                    let id = source.id;
                    self.blocked.push_back(id, request);
                }
                _ => gathered.push_back(request),
            }
        }
    }

    /// A commit is as durable as promised: it becomes the state, and everybody hears of it.
    pub(super) fn committed(&mut self, now: Now, writing: Writing) {
        let Writing { planned, answers, durable, recorded, .. } = writing;
        let Planned { commit, volatile, replies, .. } = planned;
        let touched = Touched::of(commit.operations.iter().chain(&volatile));
        let volatile = Commit { time_ms: commit.time_ms, operations: volatile };
        let applied = self.state.apply(commit, &self.checkpoints);
        if let Err(e) = applied.and_then(|()| self.state.apply_volatile(volatile, &self.checkpoints)) {
            return self.fail(&e.to_string());
        }
        if recorded {
            self.applied += 1;
            self.sync_due_us = match durable {
                true => None,
                false => self.sync_due_us.or(Some(now.us + SYNC_INTERVAL_US)),
            };
        }
        self.tell_touched(now, touched);
        replies.into_iter().for_each(inbox::Planned::hand_over);
        answers.into_iter().for_each(|answer| self.answer(now, answer));
    }

    fn tell_touched(&mut self, now: Now, touched: Touched) {
        let mut events: Vec<(QueueId, Event)> = touched.appended.into_iter().map(|id| (id, Event::Available)).collect();
        events.extend(touched.trimmed.into_iter().map(|(id, below)| (id, Event::Trimmed(below))));
        events.extend(touched.removed.into_iter().map(|(id, offset)| (id, Event::Removed(offset))));
        for (queue, event) in events {
            let Some(known) = self.state.queues.get(&queue) else { continue };
            let subscriptions: Vec<_> = known.subscriptions.keys().copied().collect();
            for id in subscriptions {
                self.handle(now, id, event);
            }
        }
    }

    fn answer(&mut self, now: Now, answer: Answer) {
        match answer {
            Answer::Defined(defined, reply) => {
                self.set_terms();
                reply.give(Ok(defined));
            }
            Answer::Opened(name, run, reply) => {
                let opened = run.map(|run| {
                    let session = self.session_next;
                    self.session_next += 1;
                    self.sessions.insert(name, session);
                    Opened { run, session }
                });
                reply.give(Ok(opened));
            }
            Answer::Published(results, reply) => reply.give(Ok(results)),
            Answer::Settled { subscription, finishes, reply } => {
                finishes.into_iter().for_each(|(token, finish)| self.finish(now, subscription, token, &finish));
                if let Some((results, reply)) = reply {
                    reply.give(Ok(results));
                }
            }
            Answer::Isolated(subscription, offset) => self.handle(now, subscription, Event::Isolated(offset)),
            Answer::Deliverable(subscription) => drop(self.active.insert(subscription)),
            Answer::Subscribed { queue, subscription, subscribe, sink, reply } => {
                let joined = self.join(now, queue, subscription, &subscribe, sink, true);
                reply.give(joined);
            }
            Answer::SubscriptionDefined(id, subscribe, reply) => {
                let fits = self.check_mode(id, &subscribe);
                reply.give(fits.map(|()| true));
            }
            Answer::Redriven(redriven, reply) => reply.give(Ok(redriven)),
            Answer::Changed(changed, reply) => {
                if let Ok(changed) = &changed {
                    self.changed(now, changed);
                }
                reply.give(Ok(changed));
            }
        }
    }

    /// Moves what waits and has room now to what is gathered.
    pub(super) fn unblock(&mut self) {
        while !self.blocked.is_empty() && self.has_room() && !self.state.window_is_full() {
            let Some(publish) = self.blocked.next_for_window() else { break };
            match &publish {
                Gathered::Publish { source, .. } if self.blocked.holds(source.id) => {
                    let id = source.id;
                    self.blocked.push_back(id, publish);
                }
                _ => self.gather(publish),
            }
        }
        let queues = &self.state.queues;
        let has_room = |id| {
            queues.get(&id).is_none_or(|queue| {
                let limits = queue.definition.limits;
                let messages = limits.messages.is_none_or(|most| queue.live < most);
                let waits = limits.on_full == OnFull::Block;
                !waits || queue.live == 0 || (messages && limits.bytes.is_none_or(|most| queue.live_bytes < most))
            })
        };
        let mut ready = Vec::new();
        while self.writing.is_none()
            && let Some(publishes) = self.blocked.take_ready(has_room)
        {
            ready.extend(publishes);
        }
        ready.into_iter().for_each(|publish| self.gather(publish));
    }

    /// Syncs what nobody waited for, and tells after a burst that its last record was whole.
    pub(super) fn seal_and_sync(&mut self, now: Now) {
        // While a record waits for room, the journal is free.
        let waits = self.writing.as_ref().is_none_or(|writing| writing.full.is_some());
        if !waits || self.failed.is_some() {
            return;
        }
        let stops = self.stopping.is_some();
        let quiet = self.writing.is_none() && self.gathered.is_empty();
        if quiet && self.seal_due_us.is_some_and(|due_us| due_us <= now.us) && !stops {
            self.seal_due_us = None;
            let commit = Commit { time_ms: self.state.time_ms, operations: Vec::new() };
            let Ok(body) = postcard::to_allocvec(&commit) else { return };
            let planned = Planned { commit, ..Planned::default() };
            self.writing = Some(Writing { planned, answers: Vec::new(), durable: true, recorded: true, full: None });
            self.jobs.push_back(Job::Append { sequence: self.applied + 1, body, durable: true });
        } else if self.sync_due_us.is_some_and(|due_us| due_us <= now.us || stops) {
            self.sync_due_us = None;
            self.jobs.push_back(Job::Sync);
        }
    }

    pub(super) fn start_checkpoint(&mut self, now: Now) {
        let due = self.pace.since_checkpoint() >= self.checkpoint_bytes && self.checkpoint_failed.is_none();
        let due = due || self.checkpoint_due_us.is_some_and(|at_us| at_us <= now.us);
        if (due || !self.checkpoint_asked.is_empty()) && self.checkpoint.is_none() && self.failed.is_none() {
            self.freeze(now, false);
        }
    }

    pub(super) fn freeze(&mut self, now: Now, clean: bool) {
        let roomy = self.has_room_to_give();
        if roomy {
            // Otherwise time passes with commits only, and a router at rest would keep the ids of its last load.
            self.state.expire_window(now.ms);
        }
        let mut frozen = Frozen::new(&mut self.state, self.applied, self.store_id);
        frozen.clean = clean;
        frozen.shrink = std::mem::take(&mut self.shrink_asked) || (roomy && self.wants_to_shrink());
        let asked = std::mem::take(&mut self.checkpoint_asked);
        self.checkpoint = Some(Checkpoint { begun: frozen.begun(), asked, began_us: now.us, clean });
        self.checkpoint_due_us = None;
        self.pace.freeze();
        self.jobs.push_back(Job::Checkpoint(Box::new(frozen)));
    }

    /// The state file is far larger than what stays in it: now, or once the ids in it are past their window.
    fn has_room_to_give(&self) -> bool {
        self.file_bytes > SHRINK_BYTES_MIN && self.lasting_bytes() * SHRINK_FACTOR < self.file_bytes
    }

    fn wants_to_shrink(&self) -> bool {
        let held = self.lasting_bytes() + (self.state.dedup.ids() * dedup::ENTRY_LEN) as u64;
        held < SHRINK_MOVED_MAX && held * SHRINK_FACTOR < self.file_bytes
    }

    fn lasting_bytes(&self) -> u64 {
        let chunks: u64 = self.state.queues.values().map(|queue| queue.chunks.bytes()).sum();
        chunks + self.state.records.bytes() as u64
    }

    pub(super) fn checkpointed(&mut self, now: Now, written: Result<Written, String>) {
        let Some(Checkpoint { begun, asked, began_us, clean }) = self.checkpoint.take() else { return };
        match written {
            Ok(written) => {
                if self.checkpoint_failed.take().is_some() {
                    tracing::info!("checkpoints are written again");
                }
                self.file_bytes = written.file_bytes;
                self.checkpointed = begun.position;
                begun.done(&mut self.state, &written);
                self.pace.checkpointed(now.us.saturating_sub(began_us));
                self.state.evict(self.memory_bytes);
                self.jobs.push_back(Job::Release { through: self.checkpointed });
                asked.into_iter().for_each(|reply| reply.give(Ok(self.checkpoints.clone())));
                if self.has_room_to_give() {
                    self.checkpoint_due_us.get_or_insert(now.us + super::CHECKPOINT_INTERVAL_US);
                }
                if let Some(body) = self.writing.as_mut().and_then(|writing| writing.full.take()) {
                    let durable = self.writing.as_ref().is_some_and(|writing| writing.durable);
                    self.jobs.push_back(Job::Append { sequence: self.applied + 1, body, durable });
                }
            }
            // What was not synced then never will be, though it may be read.
            Err(why) if self.checkpoints.is_unsynced() => {
                asked.into_iter().for_each(|reply| reply.give(Err(StoreFailed(why.as_str().into()))));
                self.fail(&format!("the state file could not be synced: {why}"));
            }
            Err(why) => {
                tracing::error!(%why, "a checkpoint failed and is tried again");
                begun.failed(&mut self.state);
                self.pace.failed();
                if !clean {
                    self.checkpoint_due_us = Some(now.us + CHECKPOINT_RETRY_US);
                }
                let failed = StoreFailed(format!("a checkpoint failed: {why}").into());
                asked.into_iter().for_each(|reply| reply.give(Err(failed.clone())));
                self.checkpoint_failed = Some(why);
            }
        }
    }
}

impl Touched {
    fn of<'a>(operations: impl Iterator<Item = &'a Operation>) -> Self {
        let mut touched = Self::default();
        for operation in operations {
            match operation {
                Operation::Append { places, .. } => touched.appended.extend(places.iter().map(|(id, _)| *id)),
                Operation::Redrive { queue, .. } => drop(touched.appended.insert(*queue)),
                Operation::Trim { queue, below } | Operation::Purge { queue, below } => {
                    let known = touched.trimmed.entry(*queue).or_default();
                    *known = (*known).max(*below);
                }
                Operation::Remove { queue, offset } => touched.removed.push((*queue, *offset)),
                _ => {}
            }
        }
        touched
    }
}
