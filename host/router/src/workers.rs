//! The threads that plugins run on.
//!
//! Routes with work wait in one line; a worker takes the first, lets it run for a slice, and it goes to the end of the
//! line if there is more to do. A route is in the line at most once, so none holds two workers.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// Worker threads where the configuration says nothing: as many as cores, at least 2, at most 16.
pub static WORKERS_DEFAULT: std::sync::LazyLock<usize> =
    std::sync::LazyLock::new(|| thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 16)));

/// Most routes that can wait in the line: more than a configuration may hold.
const LINE_MAX: usize = 8_192;

/// Something that has work now and then.
pub(crate) trait Job: Send + Sync {
    /// Works for a slice; whether there is more to do.
    fn run(&self) -> bool;

    /// A slice panicked: a bug of the router's own, since what a guest does is a fault. It is not run again.
    fn panicked(&self);
}

/// Puts jobs into the line.
#[derive(Clone)]
pub(crate) struct Line(SyncSender<Option<Arc<dyn Job>>>);

/// The threads.
pub(crate) struct Workers {
    line: Line,
    threads: Vec<JoinHandle<()>>,
}

impl Line {
    pub(crate) fn push(&self, job: Arc<dyn Job>) {
        match self.0.try_send(Some(job)) {
            // The workers are gone: the router stops.
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => unreachable!("each route is in the line once, and there are fewer routes"),
        }
    }
}

impl Workers {
    pub(crate) fn start(count: usize) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(LINE_MAX);
        let receiver = Arc::new(Mutex::new(receiver));
        let line = Line(sender);
        let start = |n| {
            let (receiver, line) = (receiver.clone(), line.clone());
            thread::Builder::new().name(format!("quipu-plugin-{n}")).spawn(move || work(&receiver, &line))
        };
        let threads = (0..count).map(start).collect::<io::Result<_>>()?;
        Ok(Self { line, threads })
    }

    pub(crate) fn handle(&self) -> Line {
        self.line.clone()
    }

    /// Lets every worker finish its slice, and ends it.
    pub(crate) fn stop(self) {
        for _ in &self.threads {
            // Behind the jobs in the line, which end at once because their routes are told to stop.
            if self.line.0.send(None).is_err() {
                break;
            }
        }
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a plugin worker panicked");
            }
        }
    }
}

fn work(receiver: &Mutex<Receiver<Option<Arc<dyn Job>>>>, line: &Line) {
    loop {
        let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Some(job)) = next else { return };
        // One route's bug must not take a worker from the others.
        match catch_unwind(AssertUnwindSafe(|| job.run())) {
            Ok(true) => line.push(job),
            Ok(false) => {}
            Err(_) => job.panicked(),
        }
    }
}
