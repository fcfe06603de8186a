//! A lane of a route: what came for it, and its place in the workers' line.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use crate::route::{Route, lock};
use crate::stats::PluginInfo;
use crate::work::{Event, Slice, Work};
use crate::workers::{Job, Line};

/// A slice ends after so much time, between two messages.
const SLICE_TIME: Duration = Duration::from_millis(5);

/// One lane.
pub(crate) struct Lane {
    this: Weak<Self>,
    route: Weak<Route>,
    line: Line,
    /// What came and waits for a worker. Bounded by credit.
    inbox: Mutex<VecDeque<Event>>,
    /// Whether it is in the line or at work.
    scheduled: AtomicBool,
    work: Mutex<Work>,
    info: Mutex<LaneInfo>,
}

/// What a lane did so far, as of its last slice.
#[derive(Default)]
pub(crate) struct LaneInfo {
    pub(crate) attempts: u64,
    pub(crate) plugins: Vec<PluginInfo>,
    pub(crate) waiting_for: Option<Arc<str>>,
}

impl Lane {
    pub(crate) fn new(route: Weak<Route>, line: Line, work: Work) -> Arc<Self> {
        let info = LaneInfo { plugins: work.plugins.clone(), ..LaneInfo::default() };
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            route,
            line,
            inbox: Mutex::default(),
            scheduled: AtomicBool::new(false),
            work: Mutex::new(work),
            info: Mutex::new(info),
        })
    }

    pub(crate) fn push(&self, events: impl IntoIterator<Item = Event>) {
        lock(&self.inbox).extend(events);
        if !self.scheduled.swap(true, Ordering::AcqRel)
            && let Some(this) = self.this.upgrade()
        {
            self.line.push(this);
        }
    }

    /// Adds what it did to a sum.
    pub(crate) fn add_to(&self, sum: &mut LaneInfo) {
        let info = lock(&self.info);
        sum.attempts += info.attempts;
        sum.waiting_for = sum.waiting_for.take().or_else(|| info.waiting_for.clone());
        if sum.plugins.is_empty() {
            sum.plugins.clone_from(&info.plugins);
        } else {
            sum.plugins.iter_mut().zip(&info.plugins).for_each(|(sum, plugin)| sum.add(plugin));
        }
    }

    pub(crate) fn is_waiting(&self) -> bool {
        lock(&self.info).waiting_for.is_some()
    }

    fn work_through(&self, route: &Route, work: &mut Work) -> Slice {
        let begun = Instant::now();
        let mut slice = Slice::default();
        while slice.has_room() && begun.elapsed() < SLICE_TIME {
            if route.is_stopping() {
                // Dropping the consumer gives back what it holds, but for what is being settled.
                lock(&self.inbox).clear();
                work.clear();
                break;
            }
            let Some(event) = work.next().or_else(|| lock(&self.inbox).pop_front()) else { break };
            work.handle(event, &mut slice);
        }
        work.end_slice(&mut slice);
        slice
    }

    fn note(&self, work: &Work, slice: &Slice) {
        let mut info = lock(&self.info);
        if slice.attempts > 0 {
            info.attempts += slice.attempts;
            info.plugins.clone_from(&work.plugins);
        }
        info.waiting_for = work.waiting_for().cloned();
    }
}

impl Job for Lane {
    fn run(&self) -> bool {
        let Some(route) = self.route.upgrade() else { return false };
        let mut work = lock(&self.work);
        let slice = self.work_through(&route, &mut work);
        self.note(&work, &slice);
        if !slice.items.is_empty()
            && let Some(this) = self.this.upgrade()
        {
            route.settle(this, slice);
        }
        let has_more = work.has_more();
        drop(work);
        if has_more || !lock(&self.inbox).is_empty() {
            return true;
        }
        self.scheduled.store(false, Ordering::Release);
        // Something may have come between the two lines above.
        !lock(&self.inbox).is_empty() && !self.scheduled.swap(true, Ordering::AcqRel)
    }

    fn panicked(&self) {
        // It stays scheduled, so that it never runs again; what it held comes back with the next start.
        if let Some(route) = self.route.upgrade() {
            route.fail();
        }
    }
}
