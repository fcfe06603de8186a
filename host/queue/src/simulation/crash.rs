//! The end of a run, in order or not, and the beginning of the next: what is on the disk must be what some prefix of the
//! commits adds up to, and no shorter one than was promised.

use std::collections::VecDeque;
use std::sync::Arc;

use super::ask::Ask;
use super::model::Model;
use super::world::{Event, Running, World};
use crate::disk::Disk;
use crate::engine::{Done, Engine, Job};
use crate::request::{Reply, Request};
use crate::store::open::{Opened, restore};

/// Rounds in which a store that is asked to stop must come to its end.
const STOP_ROUNDS: usize = 300;

impl World {
    pub(super) fn faults_may_strike(&self) -> bool {
        self.options.faults && !self.faults_are_over
    }

    /// Something goes wrong, or somebody stops the store.
    pub(super) fn upset(&mut self) {
        if !self.options.faults {
            return;
        }
        match self.random.below(12) {
            0 | 1 => {
                self.hit("crashes of the machine");
                self.crash(false);
            }
            2 | 3 => {
                self.hit("crashes of the process");
                self.crash(true);
            }
            4 => {
                self.armed = true;
                self.disk.lose_power_after(self.random.below(60));
            }
            5 => {
                self.armed = true;
                self.disk.fail_write_after(self.random.below(40));
            }
            6 if self.options.failed_syncs => {
                (self.armed, self.sync_may_fail) = (true, true);
                self.disk.fail_sync_after(self.random.below(20));
            }
            7 | 8 => self.stop(),
            _ => self.change_room(),
        }
    }

    fn change_room(&mut self) {
        self.no_room = !self.no_room;
        if self.no_room {
            let endless = 1 << 40;
            self.disk.set_capacity(Some(endless));
            let used = endless - self.disk.free_bytes().ok().flatten().unwrap_or(endless);
            let more = *self.random.pick(&[0, 10_000, 300_000]);
            self.disk.set_capacity(Some(used + more));
            self.hit("full disks");
        } else {
            self.disk.set_capacity(None);
        }
    }

    /// Ends the process, and the power with it or not.
    pub(super) fn crash(&mut self, kill: bool) {
        // What a failed sync lost is still in the system's cache, and nobody can know: only a new start of the machine helps.
        let kill = kill && !self.sync_may_fail && self.disk.free_bytes().is_ok();
        self.note(|| format!("crash, of the process alone: {kill}"));
        self.disk = if kill { self.disk.kill() } else { self.disk.crash() };
        self.running = None;
        if kill {
            self.floor = self.written;
        } else {
            self.floor = self.promised;
            (self.armed, self.sync_may_fail) = (false, false);
        }
        self.open(&[false]);
    }

    pub(super) fn recover(&mut self) {
        self.open(&[true]);
    }

    /// Stops in order and starts again.
    pub(super) fn stop(&mut self) {
        self.note(|| "stop".into());
        self.hit("clean stops");
        let events = self.events.clone();
        self.asks.insert(0, Ask::Stop);
        let reply = Reply::Call(Box::new(move |_| Self::say(&events, Event::Stopped)));
        self.take(Request::Stop { reply });
        for _ in 0..STOP_ROUNDS {
            self.settle_down();
            // The power may have gone, and all is new.
            if !self.asks.contains_key(&0) {
                return;
            }
            if self.running().engine.is_over() {
                return self.close();
            }
            self.do_journal_job();
            if self.random.percent(30) {
                self.do_checkpoint_job();
                self.later_ms(5);
            }
        }
        assert!(self.no_room || self.armed, "it does not stop");
        self.crash(true);
    }

    fn close(&mut self) {
        let now = self.now;
        let mut last = None;
        if self.running().engine.begin_last_checkpoint(now) {
            while let Some(job) = self.running().engine.next_job() {
                if let Job::Checkpoint(frozen) = job {
                    let written = self.running().checkpoints.write(&frozen).map_err(|e| e.to_string());
                    last = Some(Done::Checkpointed(written));
                }
            }
        }
        let (replies, outcome) = self.running().engine.stopped(last.as_ref());
        replies.into_iter().for_each(|reply| reply.give(outcome.clone()));
        let failed = self.running().failed;
        self.running = None;
        if self.armed && (self.disk.free_bytes().is_err() || self.sync_may_fail) {
            self.disk = self.disk.crash();
            (self.armed, self.sync_may_fail) = (false, false);
            self.floor = self.promised;
            return self.open(&[true, false]);
        }
        self.disk = self.disk.kill();
        self.floor = self.written;
        match outcome {
            Ok(()) => {
                assert!(!failed, "a store that failed says it stopped in order");
                self.stable(self.written);
                self.open(&[true]);
            }
            Err(_) if failed => self.open(&[false]),
            Err(_) => self.open(&[true, false]),
        }
    }

    /// Opens what is on the disk. `clean`: what it may take the last end for.
    fn open(&mut self, clean: &[bool]) {
        self.no_room = false;
        self.disk.set_capacity(None);
        let mut failed_opens = 0;
        let opened = loop {
            if self.faults_may_strike() && self.random.percent(8) {
                self.arm_opening();
            }
            let mut id = [0; 16];
            id[..8].copy_from_slice(&self.random.next().to_le_bytes());
            let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
            match restore(disk, self.config.journal, self.now.ms, id) {
                Ok(opened) => break opened,
                Err(why) => {
                    assert!(self.armed && failed_opens < 20, "it cannot be opened: {why}");
                    self.note(|| format!("not opened: {why}"));
                    self.hit("openings that fail");
                    failed_opens += 1;
                    let power = self.disk.free_bytes().is_err() || self.sync_may_fail || self.random.percent(30);
                    self.disk = if power { self.disk.crash() } else { self.disk.kill() };
                    if power {
                        (self.armed, self.sync_may_fail, self.floor) = (false, false, self.promised);
                    }
                }
            }
        };
        self.hit("openings");
        self.agree(&opened, clean, failed_opens);
        self.begin_run(opened);
    }

    fn arm_opening(&mut self) {
        self.armed = true;
        match self.random.below(3) {
            0 => self.disk.lose_power_after(self.random.below(40)),
            1 if self.options.failed_syncs => {
                self.sync_may_fail = true;
                self.disk.fail_sync_after(self.random.below(10));
            }
            _ => self.disk.fail_write_after(self.random.below(30)),
        }
    }

    /// Finds the prefix of commits that the state is.
    fn agree(&mut self, opened: &Opened, clean: &[bool], failed_opens: usize) {
        let mut prefixes = vec![self.base.clone()];
        for (sequence, commit) in &self.log {
            let mut next = prefixes.last().cloned().unwrap_or_default();
            next.apply(*sequence, commit, &self.sents);
            prefixes.push(next);
        }
        let mut differences = Vec::new();
        for prefix in prefixes.iter().rev() {
            for mut found in self.lives(prefix, clean, failed_opens) {
                let Some(why) = found.differs(&opened.state, &opened.checkpoints) else {
                    let (is, promised) = (prefix.sequence, self.floor);
                    assert!(is >= promised, "record {promised} was promised, and the last one there is {is}");
                    if is < self.written {
                        self.hit("records that a crash takes");
                    }
                    // A record that changes nothing may be there or not; only the time tells.
                    found.time_ms = found.time_ms.min(opened.state.time_ms);
                    (self.model, self.base) = (found.clone(), found);
                    return;
                };
                differences.push(format!("as of {}: {why}", prefix.sequence));
            }
        }
        panic!("what is there is no prefix of what was written ({}): {}", self.written, differences.join("\n  "));
    }

    /// What a prefix may be after it was opened, perhaps in vain before.
    fn lives(&self, prefix: &Model, clean: &[bool], failed_opens: usize) -> Vec<Model> {
        let mut lives = Vec::new();
        for clean in clean {
            let mut life = prefix.clone();
            life.opened(*clean, self.now.ms);
            lives.push(life.clone());
            for _ in 0..failed_opens {
                life.opened(prefix.queues.is_empty(), self.now.ms);
                lives.push(life.clone());
            }
        }
        lives
    }

    fn begin_run(&mut self, opened: Opened) {
        let last = opened.last;
        (self.written, self.attempted, self.promised) = (last, last, last);
        (self.model.sequence, self.base.sequence) = (last, last);
        self.log.clear();
        self.unsynced.clear();
        self.flights.clear();
        self.begun.clear();
        self.not_before.clear();
        self.settled_in.clear();
        self.ack_deadlines_ms.clear();
        self.gone.clear();
        self.fenced.clear();
        self.changed_in = 0;
        self.consumers.clear();
        self.asks.clear();
        self.named.values_mut().for_each(super::ask::Named::disconnect);
        // Also of queues that were only in a record whose end was not seen, or that the opening made for dead letters.
        for queue in self.model.queues.values() {
            let most = self.in_flight_max.entry(queue.definition.name.clone()).or_default();
            *most = queue.definition.in_flight_max.max(*most);
        }
        self.events = super::world::Events::default();
        let checkpoints = opened.checkpoints.clone();
        let mut parts = opened.into_parts(Arc::new(self.disk.clone()), &self.config);
        parts.engine.token_first = self.now.us * 1_000;
        self.now.us += 1;
        self.running = Some(Running {
            engine: Engine::new(parts.engine),
            journal: parts.journal,
            checkpoints,
            journal_jobs: VecDeque::new(),
            checkpoint_job: None,
            failed: false,
        });
    }

    pub(super) fn later_ms(&mut self, ms: u64) {
        self.now.us += ms * 1_000;
        self.now.ms += ms;
    }
}
