//! The threads that plugins run on.
//!
//! Each route has a queue of its lanes that have work, and the routes take [turns] by the time that they used; a worker
//! lets a lane run for a slice. A lane is in its queue at most once, so none holds two workers, and no route holds them
//! all.

mod turns;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::route::lock;
use turns::{Taken, Turns};

/// Worker threads where the configuration says nothing: one more than cores, since no route holds them all; 3 to 17.
pub static WORKERS_DEFAULT: std::sync::LazyLock<usize> =
    std::sync::LazyLock::new(|| thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 16)) + 1);

/// Something that has work now and then.
pub(crate) trait Job: Send + Sync {
    /// Works for a slice; whether there is more to do.
    fn run(&self) -> bool;

    /// A slice panicked: a bug of the router's own, since what a guest does is a fault. It is not run again.
    fn panicked(&self);
}

/// Where work is waited for: as much of it as there are lanes, at the most.
#[derive(Clone)]
pub(crate) struct Line(Arc<Shared>);

struct Shared {
    waiting: Mutex<Waiting>,
    came: Condvar,
}

struct Waiting {
    turns: Turns<Arc<dyn Job>>,
    stops: bool,
}

/// A route's place among those that take turns, until it is dropped.
pub(crate) struct Place {
    line: Line,
    flow: u64,
}

/// The threads.
pub(crate) struct Workers {
    line: Line,
    threads: Vec<JoinHandle<()>>,
}

impl Line {
    fn new(workers: usize) -> Self {
        let waiting = Waiting { turns: Turns::new(workers.saturating_sub(1).max(1)), stops: false };
        Self(Arc::new(Shared { waiting: Mutex::new(waiting), came: Condvar::new() }))
    }

    /// A place for one more route.
    pub(crate) fn place(&self) -> Arc<Place> {
        let flow = lock(&self.0.waiting).turns.join();
        Arc::new(Place { line: self.clone(), flow })
    }

    /// The next job; none at the end, when nobody waits.
    fn next(&self) -> Option<Taken<Arc<dyn Job>>> {
        let mut waiting = lock(&self.0.waiting);
        loop {
            if let Some(taken) = waiting.turns.take() {
                return Some(taken);
            }
            if waiting.stops {
                return None;
            }
            waiting = self.0.came.wait(waiting).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    /// A slice is over, and took so long.
    fn done(&self, taken: Taken<Arc<dyn Job>>, time: Duration, has_more: bool) {
        let over = lock(&self.0.waiting).turns.done(taken, time, has_more);
        // Here, since the last of a route gives up its place.
        drop(over);
    }

    fn stop(&self) {
        lock(&self.0.waiting).stops = true;
        self.0.came.notify_all();
    }
}

impl Place {
    pub(crate) fn push(&self, job: Arc<dyn Job>) {
        let mut waiting = lock(&self.line.0.waiting);
        // Nobody would take it then.
        if !waiting.stops {
            waiting.turns.push(self.flow, job);
            drop(waiting);
            self.line.0.came.notify_one();
        }
    }

    /// Time of workers that its jobs have used.
    pub(crate) fn used(&self) -> Duration {
        lock(&self.line.0.waiting).turns.used(self.flow)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.line.0.waiting).turns.leave(self.flow);
    }
}

impl Workers {
    pub(crate) fn start(count: usize) -> io::Result<Self> {
        let line = Line::new(count);
        let start = |n| {
            let line = line.clone();
            thread::Builder::new().name(format!("quipu-plugin-{n}")).spawn(move || work(&line))
        };
        let threads = (0..count).map(start).collect::<io::Result<_>>()?;
        Ok(Self { line, threads })
    }

    pub(crate) fn handle(&self) -> Line {
        self.line.clone()
    }

    /// Lets every worker finish its slice, and ends it. What waits ends at once, because its route is told to stop.
    pub(crate) fn stop(self) {
        self.line.stop();
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a plugin worker panicked");
            }
        }
    }
}

fn work(line: &Line) {
    while let Some(taken) = line.next() {
        let begun = Instant::now();
        // One route's bug must not take a worker from the others.
        let has_more = catch_unwind(AssertUnwindSafe(|| taken.job.run())).unwrap_or_else(|_| {
            taken.job.panicked();
            false
        });
        line.done(taken, begun.elapsed(), has_more);
    }
}
