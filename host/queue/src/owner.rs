//! The threads of a store: one that runs the [engine](crate::engine), one for the journal, one for checkpoints.
//!
//! While the journal's thread syncs one commit, the engine gathers requests for the next and hands out deliveries. Where
//! nothing else is to be done, the engine's thread writes the commit itself: two threads that wake each other take longer
//! than a fast disk.
//! Checkpoints are written by the third thread, from a frozen copy of references.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, mpsc as blocking};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::checkpoint::{Checkpoints, Frozen};
use crate::engine::{Done, Engine, Job, Now, Parts};
use crate::journal::Journal;
use crate::request::Request;

/// Requests taken before deliveries are looked at again.
const REQUESTS_PER_TURN: usize = 256;
/// The largest record that the engine's thread writes itself, in bytes: under load, gathering the next commit meanwhile
/// is worth more.
const OWN_BYTES_MAX: usize = 32 << 10;
/// Jobs of one thread that wait: at most one commit, one sync and one release are under way.
const JOBS_MAX: usize = 8;

/// What an open store is made of.
pub(crate) struct Store {
    pub(crate) engine: Parts,
    pub(crate) journal: Box<dyn Journal>,
    pub(crate) lock: Option<File>,
}

/// Starts the three threads.
pub(crate) fn start(store: Store, requests: mpsc::Receiver<Request>) -> io::Result<()> {
    let Store { engine, journal, lock } = store;
    let (done_sender, done) = mpsc::channel(JOBS_MAX);
    let (journal_jobs, jobs) = blocking::sync_channel(JOBS_MAX);
    let sender = done_sender.clone();
    let journal = Arc::new(Mutex::new(journal));
    let shared = journal.clone();
    let journal_thread = thread::Builder::new().name("quipu-journal".into());
    let journal_thread = journal_thread.spawn(move || run_journal(&shared, &jobs, &sender))?;
    let (checkpoint_jobs, jobs) = blocking::sync_channel(1);
    let checkpoints = engine.checkpoints.clone();
    let checkpoint_thread = thread::Builder::new().name("quipu-checkpoint".into());
    let checkpoint_thread = checkpoint_thread.spawn(move || run_checkpoints(&checkpoints, &jobs, &done_sender))?;
    let owner = Owner {
        engine: Engine::new(engine),
        began: Instant::now(),
        journal,
        journal_jobs,
        under_way: 0,
        checkpointer: checkpoint_jobs,
        threads: [journal_thread, checkpoint_thread],
        lock,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    thread::Builder::new().name("quipu-store".into()).spawn(move || runtime.block_on(owner.run(requests, done)))?;
    Ok(())
}

fn run_journal(journal: &SharedJournal, jobs: &blocking::Receiver<Job>, done: &mpsc::Sender<Done>) {
    for job in jobs {
        let said = do_journal(journal, job);
        if said.is_some_and(|said| done.blocking_send(said).is_err()) {
            return;
        }
    }
}

fn do_journal(journal: &SharedJournal, job: Job) -> Option<Done> {
    let mut journal = journal.lock().unwrap_or_else(PoisonError::into_inner);
    match job {
        Job::Append { sequence, body, durable } => Some(Done::Written(journal.append(sequence, &body, durable), body)),
        Job::Sync => Some(Done::Synced(journal.sync())),
        Job::Release { through } => {
            journal.release(through);
            None
        }
        Job::Checkpoint(_) => None,
    }
}

fn run_checkpoints(checkpoints: &Checkpoints, jobs: &blocking::Receiver<Box<Frozen>>, done: &mpsc::Sender<Done>) {
    for frozen in jobs {
        let written = checkpoints.write(&frozen).map_err(|e| e.to_string());
        if done.blocking_send(Done::Checkpointed(written)).is_err() {
            return;
        }
    }
}

/// Used by one thread at a time; by the engine's only while the other has no job.
type SharedJournal = Arc<Mutex<Box<dyn Journal>>>;

struct Owner {
    engine: Engine,
    began: Instant,
    journal: SharedJournal,
    journal_jobs: blocking::SyncSender<Job>,
    /// Jobs that the journal's thread has and will answer.
    under_way: usize,
    checkpointer: blocking::SyncSender<Box<Frozen>>,
    threads: [thread::JoinHandle<()>; 2],
    lock: Option<File>,
}

impl Owner {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>, mut done: mpsc::Receiver<Done>) {
        let mut open = true;
        while open || !self.engine.is_idle() {
            let now = self.now();
            let far = Duration::from_secs(3_600);
            let wait = self.engine.timeout_us(now).map_or(far, |us| Duration::from_micros(us.saturating_sub(now.us)));
            tokio::select! {
                biased;
                Some(done) = done.recv() => self.done(done),
                request = requests.recv(), if open && self.engine.has_room() => match request {
                    Some(request) => self.take(request, &mut requests),
                    None => open = false,
                },
                () = tokio::time::sleep(wait) => {}
            }
            let now = self.now();
            self.engine.advance(now);
            self.do_jobs(requests.is_empty());
            if self.engine.is_over() {
                break;
            }
        }
        self.close(&mut done).await;
    }

    fn take(&mut self, first: Request, requests: &mut mpsc::Receiver<Request>) {
        let now = self.now();
        self.engine.take(now, first);
        for _ in 1..REQUESTS_PER_TURN {
            if !self.engine.has_room() {
                return;
            }
            let Ok(request) = requests.try_recv() else { return };
            self.engine.take(now, request);
        }
    }

    fn done(&mut self, done: Done) {
        self.under_way -= usize::from(!matches!(done, Done::Checkpointed(_)));
        let now = self.now();
        self.engine.done(now, done);
    }

    /// `is_quiet`: nobody waits for the engine meanwhile.
    fn do_jobs(&mut self, is_quiet: bool) {
        while let Some(job) = self.engine.next_job() {
            let sent = match job {
                Job::Checkpoint(frozen) => self.checkpointer.send(frozen).is_ok(),
                Job::Append { ref body, .. } if is_quiet && self.under_way == 0 && body.len() <= OWN_BYTES_MAX => {
                    self.under_way += 1;
                    let said = do_journal(&self.journal, job);
                    said.into_iter().for_each(|said| self.done(said));
                    let now = self.now();
                    self.engine.advance(now);
                    true
                }
                job => {
                    self.under_way += usize::from(!matches!(job, Job::Release { .. }));
                    self.journal_jobs.send(job).is_ok()
                }
            };
            if !sent {
                self.engine.fail("a thread of the store is gone");
            }
        }
    }

    /// The last checkpoint, after which nothing needs to be replayed.
    async fn close(mut self, done: &mut mpsc::Receiver<Done>) {
        let now = self.now();
        let mut last = None;
        if self.engine.begin_last_checkpoint(now) {
            self.do_jobs(false);
            while let Some(said) = done.recv().await {
                if matches!(said, Done::Checkpointed(_)) {
                    last = Some(said);
                    break;
                }
            }
        }
        let (replies, outcome) = self.engine.stopped(last.as_ref());
        // The files are closed before the answer, so that who waited for it can open the store again.
        let Self { engine, journal, journal_jobs, checkpointer, threads, lock, .. } = self;
        drop((engine, journal, journal_jobs, checkpointer));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
        drop(lock);
        replies.into_iter().for_each(|reply| reply.give(outcome.clone()));
    }

    fn now(&self) -> Now {
        let us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        Now { ms: now_ms(), us }
    }
}

/// Tokens of different runs of the router differ, so that one from before a restart is stale: they count up from the
/// start's time in microseconds.
pub(crate) fn token_first() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX / 2)
}

/// Unix milliseconds, by a clock that may jump.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
