//! What the store's other threads do, at a moment that chance picks; and what is seen of commits on the way.

use super::model::Queue;
use super::world::{Flight, Kind, Stage, World};
use crate::commit::{Commit, Durability, Offset, Operation, Outcome, Payload, QueueId, SubscriptionId};
use crate::engine::{Done, Job};
use crate::journal::JournalError;
use crate::plan::backoff;

impl World {
    pub(super) fn do_journal_job(&mut self) {
        self.hear();
        let now = self.now;
        let Some(running) = &mut self.running else { return };
        match running.journal_jobs.pop_front() {
            None | Some(Job::Checkpoint(_)) => {}
            Some(Job::Release { through }) => running.journal.release(through),
            Some(Job::Append { sequence, body, durable }) => self.append(sequence, body, durable),
            Some(Job::Sync) => {
                let synced = running.journal.sync();
                running.failed |= synced.is_err();
                if synced.is_ok() {
                    self.stable(self.written);
                    self.hit("syncs of what nobody waited for");
                }
                self.running().engine.done(now, Done::Synced(synced));
            }
        }
    }

    fn append(&mut self, sequence: u64, body: Vec<u8>, durable: bool) {
        let now = self.now;
        let commit: Commit = postcard::from_bytes(&body).expect("a commit");
        assert_eq!(sequence, self.written + 1, "a record's sequence");
        let written = self.running().journal.append(sequence, &body, durable);
        self.note(|| format!("record {sequence}, durable: {durable}: {written:?} {}", brief(&commit)));
        if matches!(written, Err(JournalError::Full)) {
            self.hit("journals that are full");
            return self.running().engine.done(now, Done::Written(written, body));
        }
        self.attempted = sequence;
        self.log.push_back((sequence, commit.clone()));
        if written.is_err() {
            self.running().failed = true;
            self.hit("journals that fail");
            return self.running().engine.done(now, Done::Written(written, body));
        }
        self.written = sequence;
        self.unsynced.push_back((sequence, now.us));
        if durable {
            self.stable(sequence);
        }
        if self.faults_may_strike() && self.random.percent(1) {
            self.hit("crashes before the engine was told");
            let kill = self.random.percent(50);
            return self.crash(kill);
        }
        self.observe(sequence, &commit);
        self.running().engine.done(now, Done::Written(written, body));
    }

    pub(super) fn do_checkpoint_job(&mut self) {
        self.hear();
        let now = self.now;
        let Some(running) = &mut self.running else { return };
        let Some(frozen) = running.checkpoint_job.take() else { return };
        let written = running.checkpoints.write(&frozen).map_err(|e| e.to_string());
        match &written {
            Ok(_) => {
                self.stable(frozen.position);
                self.hit(if frozen.shrink { "checkpoints that shrink" } else { "checkpoints" });
            }
            Err(_) => self.hit("checkpoints that fail"),
        }
        // What is not synced then is nothing to build upon.
        let is_unsynced = written.is_err() && self.running().checkpoints.is_unsynced();
        self.running().failed |= is_unsynced;
        self.note(|| format!("checkpoint at {}: {written:?}", frozen.position));
        self.running().engine.done(now, Done::Checkpointed(written));
    }

    /// Records up to this one survive whatever comes.
    pub(super) fn stable(&mut self, through: u64) {
        while self.log.front().is_some_and(|(sequence, _)| *sequence <= through) {
            if let Some((sequence, commit)) = self.log.pop_front() {
                self.base.apply(sequence, &commit, &self.sents);
            }
        }
        self.unsynced.retain(|(sequence, _)| *sequence > through);
    }

    /// A commit is in the journal, and the engine is about to hear of it.
    fn observe(&mut self, sequence: u64, commit: &Commit) {
        for operation in &commit.operations {
            match operation {
                Operation::Settle { subscription, offset, outcome } => {
                    self.check_settled(*subscription, *offset, *outcome);
                    self.note_settled(sequence, *subscription, *offset);
                }
                Operation::Attempt { subscription, offset, .. } => {
                    self.check_failed(*subscription, *offset);
                    self.note_settled(sequence, *subscription, *offset);
                }
                Operation::Trim { queue, below } => {
                    self.hit("trims");
                    self.ground(*queue, |offset| offset < below.0);
                }
                Operation::Remove { queue, offset } => {
                    self.hit("dead letters that go back");
                    self.ground(*queue, |other| other == offset.0);
                }
                Operation::Publisher { name, epoch, .. }
                    if self.model.runs.get(name).is_none_or(|run| run.epoch != *epoch) =>
                {
                    self.defined_in = sequence;
                }
                Operation::DefineQueue(definition) => {
                    self.defined_in = sequence;
                    let most = self.in_flight_max.entry(definition.name.clone()).or_default();
                    *most = definition.in_flight_max.max(*most);
                }
                Operation::Purge { queue, below } => {
                    self.changed_in = sequence;
                    self.ground(*queue, |offset| offset < below.0);
                }
                Operation::Record { .. } | Operation::Pause { .. } => self.changed_in = sequence,
                Operation::RemoveQueue { .. } | Operation::RemoveSubscription { .. } | Operation::Seek { .. } => {
                    self.changed_in = sequence;
                    self.check_alone(commit);
                    self.observe_end(operation);
                }
                Operation::Share { .. } => {
                    self.changed_in = sequence;
                    self.observe_end(operation);
                }
                Operation::Isolate { .. } => self.hit("messages handled alone"),
                Operation::Release { .. } => self.hit("messages handled alone that come back"),
                Operation::DefineSubscription { queue, name, floor, .. } => {
                    self.defined_in = sequence;
                    self.check_floor(*queue, name, floor.0);
                }
                _ => {}
            }
        }
        let definitions = self.model.queues.values().map(|queue| &queue.definition);
        let in_memory = definitions.filter(|d| d.durability == Durability::Memory);
        let new: Vec<_> = in_memory.filter(|d| !self.in_memory_once.contains(d)).cloned().collect();
        self.in_memory_once.extend(new);
        self.model.apply(sequence, commit, &self.sents);
    }

    /// Whose answer is a promise.
    fn note_settled(&mut self, sequence: u64, subscription: SubscriptionId, offset: Offset) {
        if self.queue_of(subscription).definition.durability == Durability::Synced {
            self.settled_in.insert((subscription, offset.0), sequence);
        }
    }

    fn take_off(&mut self, subscription: SubscriptionId, offset: Offset) -> Flight {
        let flight = self.flights.get_mut(&subscription).and_then(|flights| flights.remove(&offset.0));
        self.begun.insert((subscription, offset.0));
        flight.unwrap_or_else(|| panic!("{offset} of {subscription:?} was settled, and is not in flight"))
    }

    fn queue_of(&self, subscription: SubscriptionId) -> &Queue {
        self.model.reader(subscription).expect("a subscription").1
    }

    fn check_settled(&mut self, subscription: SubscriptionId, offset: Offset, outcome: Outcome) {
        let flight = self.take_off(subscription, offset);
        let definition = &self.queue_of(subscription).definition;
        let was_last = definition.attempts_max > 0 && flight.attempt >= definition.attempts_max;
        let expected = match flight.stage {
            Stage::Settling(Kind::Ack | Kind::Through) => Outcome::Acked,
            Stage::Settling(Kind::Filtered) => Outcome::Filtered,
            Stage::Settling(Kind::Dropped) => Outcome::Dropped,
            Stage::Settling(Kind::Dead) => Outcome::DeadLettered,
            Stage::Settling(Kind::Nack(_)) | Stage::Expiring if was_last => Outcome::DeadLettered,
            stage => {
                panic!("{offset} of {subscription:?} is {outcome:?}, and was {stage:?} at attempt {}", flight.attempt)
            }
        };
        assert_eq!(outcome, expected, "what became of {offset} of {subscription:?}");
        if outcome == Outcome::DeadLettered {
            self.hit("dead letters");
        }
    }

    fn check_failed(&mut self, subscription: SubscriptionId, offset: Offset) {
        let flight = self.take_off(subscription, offset);
        let definition = &self.queue_of(subscription).definition;
        let is_last = definition.attempts_max > 0 && flight.attempt >= definition.attempts_max;
        let delay_ms = match flight.stage {
            Stage::Settling(Kind::Park(delay_ms)) => delay_ms,
            Stage::Settling(Kind::Nack(_)) | Stage::Expiring if is_last && definition.dead_letter.is_some() => {
                panic!("{offset} of {subscription:?} goes on after attempt {}", flight.attempt)
            }
            Stage::Settling(Kind::Nack(Some(delay_ms))) => delay_ms,
            Stage::Settling(Kind::Nack(None)) | Stage::Expiring => backoff(&definition.backoff_ms, flight.attempt),
            stage => panic!("an attempt at {offset} of {subscription:?} failed, and was {stage:?}"),
        };
        if flight.stage == Stage::Expiring {
            self.hit("deliveries that expire");
        }
        self.not_before.insert((subscription, offset.0), self.now.ms + delay_ms);
    }

    /// The queue has let go of these.
    fn ground(&mut self, queue: QueueId, is_gone: impl Fn(u64) -> bool) {
        for id in self.model.queues[&queue].readers.keys() {
            if let Some(flights) = self.flights.get_mut(id) {
                flights.retain(|offset, _| !is_gone(*offset));
            }
        }
    }
}

/// A commit without what fills pages.
fn brief(commit: &Commit) -> String {
    let one = |operation: &Operation| match operation {
        Operation::Append { places, .. } if places.is_empty() => "remember an id".to_owned(),
        Operation::Append { header, payload, places, .. } => {
            let message = quipu_protocol::Message::decode(header.clone(), bytes::Bytes::new()).expect("a sound header");
            let dead = if message.headers.first("quipu-dead-queue").is_some() { "letter of " } else { "" };
            let of = if let Payload::Of(queue, offset) = payload {
                format!(" of {}:{offset}", queue.0)
            } else {
                String::new()
            };
            let places: Vec<String> = places.iter().map(|(queue, offset)| format!("{}:{offset}", queue.0)).collect();
            format!("append {dead}{}{of} at {places:?}", message.id)
        }
        Operation::Redrive { queue, offset, subscription, .. } => {
            format!("redrive to {}:{offset} for {}", queue.0, subscription.0)
        }
        Operation::DefineQueue(definition) => format!("define {} {}", definition.id.0, definition.name),
        operation => format!("{operation:?}"),
    };
    let operations: Vec<String> = commit.operations.iter().map(one).collect();
    format!("at {}: {}", commit.time_ms, operations.join("; "))
}
