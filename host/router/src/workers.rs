//! The threads that plugins run on.
//!
//! Lanes of routes that have work wait in one line; a worker takes the first, lets it run for a slice, and it goes to
//! the end of the line if there is more to do. A lane is in the line at most once, so none holds two workers.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// Worker threads where the configuration says nothing: as many as cores, at least 2, at most 16.
pub static WORKERS_DEFAULT: std::sync::LazyLock<usize> =
    std::sync::LazyLock::new(|| thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 16)));

/// Something that has work now and then.
pub(crate) trait Job: Send + Sync {
    /// Works for a slice; whether there is more to do.
    fn run(&self) -> bool;

    /// A slice panicked: a bug of the router's own, since what a guest does is a fault. It is not run again.
    fn panicked(&self);
}

/// The line: as long as there are lanes, at the most.
#[derive(Clone, Default)]
pub(crate) struct Line(Arc<Shared>);

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    came: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Arc<dyn Job>>,
    stops: bool,
}

/// The threads.
pub(crate) struct Workers {
    line: Line,
    threads: Vec<JoinHandle<()>>,
}

impl Line {
    pub(crate) fn push(&self, job: Arc<dyn Job>) {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody would take it then.
        if !waiting.stops {
            waiting.jobs.push_back(job);
            self.0.came.notify_one();
        }
    }

    /// The next job; none at the end, when the line is empty.
    fn next(&self) -> Option<Arc<dyn Job>> {
        let waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let is_idle = |waiting: &mut Waiting| waiting.jobs.is_empty() && !waiting.stops;
        self.0.came.wait_while(waiting, is_idle).unwrap_or_else(PoisonError::into_inner).jobs.pop_front()
    }

    fn stop(&self) {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).stops = true;
        self.0.came.notify_all();
    }
}

impl Workers {
    pub(crate) fn start(count: usize) -> io::Result<Self> {
        let line = Line::default();
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

    /// Lets every worker finish its slice, and ends it. What is in the line ends at once, because its route is told to
    /// stop.
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
    while let Some(job) = line.next() {
        // One route's bug must not take a worker from the others.
        match catch_unwind(AssertUnwindSafe(|| job.run())) {
            Ok(true) => line.push(job),
            Ok(false) => {}
            Err(_) => job.panicked(),
        }
    }
}
