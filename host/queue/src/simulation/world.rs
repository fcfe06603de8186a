//! An engine, its disk and its clock, and everything around it that is yet to happen.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use super::Options;
use super::ask::{Ask, Named};
use super::model::{Model, Sents};
use super::random::Random;
use crate::checkpoint::{Checkpoints, Frozen};
use crate::commit::{Commit, QueueDefinition, SubscriptionId};
use crate::delivery::{ConsumerId, Token};
use crate::disk::{Disk as _, FaultyDisk};
use crate::engine::{Engine, Job, Now};
use crate::journal::{Journal, JournalConfig};
use crate::request::{
    ChangeAnswer, DefineAnswer, Joined, OpenAnswer, PublishAnswer, RedriveAnswer, Request, SettleAnswer,
};
use crate::store::{Delivery, Notice, StoreConfig, StoreFailed, SubscribeError};

/// Milliseconds and microseconds at which each simulation begins.
const BEGIN: Now = Now { ms: 1_700_000_000_000, us: 1_000_000 };

/// What is said by the engine, in order.
pub(super) enum Event {
    Defined(u64, DefineAnswer),
    Opened(u64, OpenAnswer),
    Published(u64, PublishAnswer),
    Settled(u64, SettleAnswer),
    Joined(u64, Result<Joined, SubscribeError>),
    Redriven(u64, RedriveAnswer),
    Checkpointed(u64, Result<(), StoreFailed>),
    Stopped,
    Delivered(u64, Vec<Delivery>),
    Told(u64, Notice),
    Changed(u64, ChangeAnswer),
    SubscriptionDefined(u64, Result<bool, SubscribeError>),
}

pub(super) type Events = Arc<Mutex<VecDeque<Event>>>;

/// A delivery that is not over.
#[derive(Debug, Clone)]
pub(super) struct Flight {
    pub(super) token: Token,
    pub(super) consumer: u64,
    pub(super) attempt: u32,
    pub(super) deadline_ms: u64,
    pub(super) stage: Stage,
    /// It was begun before, in this run or with a failed attempt.
    pub(super) again: bool,
    pub(super) key: Option<quipu_protocol::Key>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Held,
    Settling(Kind),
    Expiring,
}

/// How a delivery is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ack,
    Filtered,
    Dropped,
    Through,
    Nack(Option<u64>),
    Park(u64),
    Later(u64),
    GiveBack,
    Extend(u64),
    Dead,
}

#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) id: Option<ConsumerId>,
    pub(super) queue: String,
    pub(super) name: String,
    pub(super) subscription: Option<SubscriptionId>,
    pub(super) granted: u64,
    pub(super) delivered: u64,
    pub(super) window: u64,
    pub(super) charged: u64,
}

/// What runs until it is stopped or the power goes.
pub(super) struct Running {
    pub(super) engine: Engine,
    pub(super) journal: Box<dyn Journal>,
    pub(super) checkpoints: Checkpoints,
    pub(super) journal_jobs: VecDeque<Job>,
    pub(super) checkpoint_job: Option<Box<Frozen>>,
    pub(super) failed: bool,
}

pub(super) struct World {
    pub(super) options: Options,
    pub(super) random: Random,
    pub(super) disk: FaultyDisk,
    pub(super) config: StoreConfig,
    pub(super) running: Option<Running>,
    pub(super) now: Now,
    /// Messages are large and checkpoints rare, so that the journal fills up.
    pub(super) is_heavy: bool,
    /// What the engine has applied.
    pub(super) model: Model,
    /// Queues in memory alone, as they ever were.
    pub(super) in_memory_once: Vec<Arc<QueueDefinition>>,
    /// What is on the disk for certain, and what was handed to the journal since.
    pub(super) base: Model,
    pub(super) log: VecDeque<(u64, Commit)>,
    /// When records that are not synced were written.
    pub(super) unsynced: VecDeque<(u64, u64)>,
    /// The last record that the journal was asked to write, and the last it has.
    pub(super) attempted: u64,
    pub(super) written: u64,
    /// A promise was given that depends on this record.
    pub(super) promised: u64,
    /// The next opening must find this one.
    pub(super) floor: u64,
    /// The last commit that defined something or began a publisher's run.
    pub(super) defined_in: u64,
    pub(super) sents: Sents,
    pub(super) flights: BTreeMap<SubscriptionId, BTreeMap<u64, Flight>>,
    /// Deliveries of this run that are over: the message was begun.
    pub(super) begun: BTreeSet<(SubscriptionId, u64)>,
    pub(super) not_before: BTreeMap<(SubscriptionId, u64), u64>,
    /// The commit that settled or failed an attempt.
    pub(super) settled_in: BTreeMap<(SubscriptionId, u64), u64>,
    /// Milliseconds to settle a delivery, 0: for ever. Where a commit changes it, whatever was answered before in that
    /// commit still goes by the old one.
    pub(super) ack_deadlines_ms: BTreeMap<SubscriptionId, u64>,
    /// The last commit that an operator's change was in.
    pub(super) changed_in: u64,
    /// Requests to settle deliveries of subscriptions that were sought or removed since.
    pub(super) fenced: BTreeSet<u64>,
    /// Names of queues that were removed: receipts may still name them.
    pub(super) removed: BTreeSet<String>,
    /// Messages of queues in memory that are done with.
    pub(super) gone: BTreeSet<(SubscriptionId, u64)>,
    pub(super) consumers: BTreeMap<u64, Consumer>,
    pub(super) asks: BTreeMap<u64, Ask>,
    pub(super) named: BTreeMap<&'static str, Named>,
    pub(super) events: Events,
    pub(super) count: u64,
    /// In flight at once at most, since there is the queue.
    pub(super) in_flight_max: BTreeMap<String, u32>,
    pub(super) no_room: bool,
    /// A fault waits to strike; and whether that is a sync which fails.
    pub(super) armed: bool,
    pub(super) sync_may_fail: bool,
    pub(super) faults_are_over: bool,
    pub(super) coverage: BTreeMap<&'static str, u64>,
}

impl World {
    pub(super) fn new(seed: u64, options: Options) -> Self {
        let mut random = Random::new(seed);
        let disk = FaultyDisk::new(random.next());
        disk.set_sync_lies(options.sync_lies);
        let segments = usize::try_from(random.within(2..5)).unwrap_or(2);
        let journal = JournalConfig { segments, segment_bytes: 256 << 10 };
        let memory_bytes = *random.pick(&[0, 8 << 10, 64 << 10, 16 << 20]);
        let disk_reserve_bytes = *random.pick(&[0, 0, 64 << 10]);
        let is_heavy = random.percent(15);
        let config = StoreConfig { journal, memory_bytes, disk_reserve_bytes, ..StoreConfig::new("simulated") };
        Self {
            options,
            random,
            disk,
            config,
            running: None,
            now: BEGIN,
            is_heavy,
            model: Model::default(),
            in_memory_once: Vec::new(),
            base: Model::default(),
            log: VecDeque::new(),
            unsynced: VecDeque::new(),
            attempted: 0,
            written: 0,
            promised: 0,
            floor: 0,
            sents: Sents::new(),
            flights: BTreeMap::new(),
            begun: BTreeSet::new(),
            not_before: BTreeMap::new(),
            settled_in: BTreeMap::new(),
            ack_deadlines_ms: BTreeMap::new(),
            changed_in: 0,
            fenced: BTreeSet::new(),
            removed: BTreeSet::new(),
            gone: BTreeSet::new(),
            consumers: BTreeMap::new(),
            asks: BTreeMap::new(),
            named: BTreeMap::new(),
            events: Events::default(),
            count: 0,
            in_flight_max: BTreeMap::new(),
            no_room: false,
            defined_in: 0,
            armed: false,
            sync_may_fail: false,
            faults_are_over: false,
            coverage: BTreeMap::new(),
        }
    }

    pub(super) fn run(&mut self) {
        self.recover();
        self.begin();
        for step in 0..self.options.steps {
            self.note(|| format!("-- step {step}"));
            self.step();
            self.settle_down();
            if self.random.percent(10) {
                self.check_books();
            }
        }
        self.finish();
    }

    pub(super) fn hit(&mut self, what: &'static str) {
        *self.coverage.entry(what).or_default() += 1;
    }

    pub(super) fn note(&self, text: impl FnOnce() -> String) {
        if self.options.verbose {
            eprintln!("{:>9} {}", self.now.us / 1_000 - 1_000, text());
        }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    pub(super) fn running(&mut self) -> &mut Running {
        self.running.as_mut().expect("a store that is open")
    }

    pub(super) fn say(events: &Events, event: Event) {
        events.lock().unwrap_or_else(PoisonError::into_inner).push_back(event);
    }

    /// Hands a request over where the engine takes one.
    pub(super) fn take(&mut self, request: Request) {
        let now = self.now;
        self.running().engine.take(now, request);
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..=44 => {
                for _ in 0..self.random.within(1..6) {
                    if self.running().engine.has_room() {
                        self.ask();
                    }
                }
            }
            45..=74 => self.do_journal_job(),
            75..=80 => {
                if !self.is_heavy || self.random.percent(10) {
                    self.do_checkpoint_job();
                }
            }
            81..=97 => self.pass_time(),
            _ => self.upset(),
        }
    }

    /// Lets the engine act and looks at what it says, until it is quiet.
    pub(super) fn settle_down(&mut self) {
        let Some(running) = &mut self.running else { return };
        running.engine.advance(self.now);
        while let Some(job) = running.engine.next_job() {
            match job {
                Job::Checkpoint(frozen) => {
                    assert!(running.checkpoint_job.replace(frozen).is_none(), "two checkpoints at once");
                }
                job => running.journal_jobs.push_back(job),
            }
        }
        self.hear();
        self.expire();
        self.check_sync();
        // Whatever is opened on the disk is dead.
        if self.armed && self.disk.free_bytes().is_err() {
            self.hit("power lost during an operation");
            self.crash(false);
        } else if self.running.as_ref().is_some_and(|running| running.failed) && !self.is_stopping() {
            self.hit("restarts after a failed journal");
            let power = self.random.percent(50);
            self.crash(!power);
        }
    }

    fn is_stopping(&self) -> bool {
        self.asks.values().any(|ask| matches!(ask, Ask::Stop))
    }

    /// What was written and is not synced is not older than promised.
    fn check_sync(&mut self) {
        let Some(running) = &self.running else { return };
        if running.failed || !running.journal_jobs.is_empty() {
            return;
        }
        if let Some((sequence, us)) = self.unsynced.front() {
            let late_us = self.now.us.saturating_sub(us + 50_000);
            assert!(late_us == 0, "record {sequence} is not synced: {late_us} us late");
        }
    }

    fn pass_time(&mut self) {
        let timeout_us = {
            let now = self.now;
            self.running().engine.timeout_us(now)
        };
        match self.random.below(20) {
            0..=5 => self.wait(self.now.us),
            6..=15 => {
                let far = self.now.us + 10_000_000;
                self.wait(timeout_us.unwrap_or(self.now.us).clamp(self.now.us, far));
            }
            16 | 17 => {
                self.now.ms = self.now.ms.saturating_sub(self.random.below(200));
                self.hit("clocks that jump back");
            }
            18 => self.wait_long(1_000_000),
            _ => {
                if self.random.percent(25) {
                    self.hit("windows that pass");
                    self.wait_long(125_000_000);
                }
            }
        }
    }

    /// Until a time and a little more.
    fn wait(&mut self, until_us: u64) {
        let us = until_us - self.now.us + self.random.within(1..8_000);
        self.later(us);
    }

    fn later(&mut self, us: u64) {
        self.now.us += us;
        self.now.ms += us.div_ceil(1_000);
    }

    /// Unhurried, so that what is due on the way happens in time.
    pub(super) fn wait_long(&mut self, us: u64) {
        let end_us = self.now.us + us;
        while self.now.us < end_us && self.running.is_some() {
            let now = self.now;
            let due_us = self.running().engine.timeout_us(now).unwrap_or(end_us).clamp(now.us + 1, end_us);
            let coarse_us = if self.unsynced.is_empty() { us / 8 } else { 0 };
            self.later(due_us.max(now.us + coarse_us).min(end_us) - now.us);
            self.settle_down();
            while self.running.as_ref().is_some_and(|running| !running.journal_jobs.is_empty()) {
                self.do_journal_job();
                self.settle_down();
            }
            if !self.is_heavy || self.faults_are_over || self.random.percent(10) {
                self.do_checkpoint_job();
            }
            self.settle_down();
        }
    }
}
