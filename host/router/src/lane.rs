//! A lane of a route: what came for it, and its place in the route's queue for workers.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use quipu_queue::Offset;
use quipu_runtime::Digest;
use tokio::sync::oneshot;

use crate::route::{Route, lock};
use crate::stats::{PluginInfo, add_all};
use crate::work::{Event, Serving, Slice, Work};
use crate::workers::{Job, Place};

/// A slice ends after so much time, between two messages.
pub(crate) const SLICE_TIME: Duration = Duration::from_millis(5);

/// One lane.
pub(crate) struct Lane {
    this: Weak<Self>,
    route: Weak<Route>,
    place: Arc<Place>,
    /// What came and waits for a worker. Bounded by credit.
    inbox: Mutex<VecDeque<Event>>,
    /// Whether it waits for a worker or has one.
    scheduled: AtomicBool,
    work: Mutex<Work>,
    info: Mutex<LaneInfo>,
    orders: Mutex<Orders>,
    /// Whether a chain waits there.
    has_swap: AtomicBool,
    /// Settlements that were sent, and those that the store has answered.
    sent: AtomicU64,
    answered: AtomicU64,
}

/// What was asked of a lane besides messages. As much as there are changes under way: one, and those whose callers are
/// gone.
#[derive(Default)]
struct Orders {
    /// It never runs again.
    over: bool,
    swaps: VecDeque<(Serving, oneshot::Sender<Passed>)>,
    idle: Vec<oneshot::Sender<()>>,
}

/// What a lane says as it takes another chain.
pub(crate) struct Passed {
    /// The highest offset that it has begun.
    pub(crate) last: Option<Offset>,
    /// Settlements that it had sent by then, and those of them without an answer.
    pub(crate) sent: u64,
    pub(crate) underway: u64,
    pub(crate) before: Vec<Digest>,
    pub(crate) serving: Vec<Digest>,
    pub(crate) served: Vec<PluginInfo>,
}

/// What a lane did so far, as of its last slice.
#[derive(Default)]
pub(crate) struct LaneInfo {
    pub(crate) attempts: u64,
    /// How many chains it has had; what they count is told apart by it.
    pub(crate) chains: u64,
    pub(crate) plugins: Vec<PluginInfo>,
    pub(crate) waiting_for: Option<Arc<str>>,
}

impl Lane {
    pub(crate) fn new(route: Weak<Route>, place: Arc<Place>, work: Work) -> Arc<Self> {
        let info = LaneInfo { plugins: work.serving.plugins.clone(), ..LaneInfo::default() };
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            route,
            place,
            inbox: Mutex::default(),
            scheduled: AtomicBool::new(false),
            work: Mutex::new(work),
            info: Mutex::new(info),
            orders: Mutex::default(),
            has_swap: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            answered: AtomicU64::new(0),
        })
    }

    pub(crate) fn push(&self, events: impl IntoIterator<Item = Event>) {
        lock(&self.inbox).extend(events);
        self.schedule();
    }

    fn schedule(&self) {
        if !self.scheduled.swap(true, Ordering::AcqRel)
            && let Some(this) = self.this.upgrade()
        {
            self.place.push(this);
        }
    }

    /// Has it take another chain before its next message; nothing comes where it never runs again.
    pub(crate) fn swap(&self, serving: Serving) -> oneshot::Receiver<Passed> {
        let (reply, receiver) = oneshot::channel();
        let mut orders = lock(&self.orders);
        if !orders.over {
            orders.swaps.push_back((serving, reply));
            self.has_swap.store(true, Ordering::Release);
            drop(orders);
            self.schedule();
        }
        receiver
    }

    /// Comes once it has nothing to do.
    pub(crate) fn idle(&self) -> oneshot::Receiver<()> {
        let (reply, receiver) = oneshot::channel();
        let mut orders = lock(&self.orders);
        if !orders.over {
            orders.idle.push(reply);
            drop(orders);
            self.schedule();
        }
        receiver
    }

    /// It never runs again: nobody shall wait for it.
    pub(crate) fn close(&self) {
        *lock(&self.orders) = Orders { over: true, ..Orders::default() };
    }

    /// Settlements that it sent.
    pub(crate) fn sent_count(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    /// Those of them that the store has answered.
    pub(crate) fn answered_count(&self) -> u64 {
        self.answered.load(Ordering::Acquire)
    }

    pub(crate) fn answered(&self, count: u64) {
        self.answered.fetch_add(count, Ordering::AcqRel);
    }

    /// Adds what it did to a sum. While lanes take a new chain, only those count that have it.
    pub(crate) fn add_to(&self, sum: &mut LaneInfo) {
        let info = lock(&self.info);
        sum.attempts += info.attempts;
        sum.waiting_for = sum.waiting_for.take().or_else(|| info.waiting_for.clone());
        if info.chains > sum.chains {
            sum.chains = info.chains;
            sum.plugins.clear();
        }
        if info.chains == sum.chains {
            add_all(&mut sum.plugins, &info.plugins);
        }
    }

    pub(crate) fn is_waiting(&self) -> bool {
        lock(&self.info).waiting_for.is_some()
    }

    fn work_through(&self, route: &Arc<Route>, work: &mut Work) -> (Slice, Option<Taken>) {
        let begun = Instant::now();
        let (mut slice, mut taken) = (Slice::default(), None);
        work.sit(route.seat_number());
        while slice.has_room() && begun.elapsed() < SLICE_TIME {
            taken = self.take_swap(work);
            if taken.is_some() {
                break;
            }
            if route.is_stopping() {
                // Dropping the consumer gives back what it holds, but for what is being settled.
                lock(&self.inbox).clear();
                work.clear();
                break;
            }
            if !route.is_taking() {
                // The same, but for what the store says: it may ask for more.
                lock(&self.inbox).retain(|event| matches!(event, Event::Answered(_)));
                work.clear();
            }
            let Some(event) = work.next().or_else(|| lock(&self.inbox).pop_front()) else { break };
            work.handle(event, &mut slice);
            if let Some(broke) = slice.broke.take() {
                route.broke(&broke, &work.serving.breaker);
            }
        }
        work.end_slice(&mut slice);
        (slice, taken)
    }

    fn take_swap(&self, work: &mut Work) -> Option<Taken> {
        if !self.has_swap.load(Ordering::Acquire) {
            return None;
        }
        let mut orders = lock(&self.orders);
        let next = orders.swaps.pop_front();
        self.has_swap.store(!orders.swaps.is_empty(), Ordering::Release);
        drop(orders);
        let (serving, reply) = next?;
        let before = std::mem::replace(&mut work.serving, serving);
        Some(Taken { before, reply })
    }

    fn note(&self, work: &mut Work, slice: &Slice, has_swapped: bool) {
        let mut info = lock(&self.info);
        info.attempts += slice.attempts;
        info.chains += u64::from(has_swapped);
        if slice.attempts > 0 || has_swapped {
            work.serving.measure();
            info.plugins.clone_from(&work.serving.plugins);
        }
        info.waiting_for = work.waiting_for().cloned();
    }

    /// Says that it has its new chain. The old one's instances end here, after what they made was sent.
    fn tell(&self, work: &Work, taken: Taken) {
        let Taken { before, reply } = taken;
        let (sent, answered) = (self.sent_count(), self.answered_count());
        let passed = Passed {
            last: work.last,
            sent,
            underway: sent.saturating_sub(answered),
            before: before.chain.digests(),
            serving: work.serving.chain.digests(),
            served: before.plugins,
        };
        // Nobody may wait for it any more.
        reply.send(passed).ok();
    }
}

/// A chain that was taken from a lane.
struct Taken {
    before: Serving,
    reply: oneshot::Sender<Passed>,
}

impl Job for Lane {
    fn run(&self) -> bool {
        let Some(route) = self.route.upgrade() else { return false };
        let mut work = lock(&self.work);
        let (slice, taken) = self.work_through(&route, &mut work);
        self.note(&mut work, &slice, taken.is_some());
        self.sent.fetch_add(slice.items.len() as u64, Ordering::AcqRel);
        if !slice.items.is_empty()
            && let Some(this) = self.this.upgrade()
        {
            route.settle(this, slice);
        }
        if let Some(taken) = taken {
            self.tell(&work, taken);
        }
        let has_more = work.has_more();
        drop(work);
        let has_work = || !lock(&self.inbox).is_empty() || self.has_swap.load(Ordering::Acquire);
        if has_more || has_work() {
            return true;
        }
        self.scheduled.store(false, Ordering::Release);
        // Something may have come between the two lines above.
        if has_work() && !self.scheduled.swap(true, Ordering::AcqRel) {
            return true;
        }
        let idle = std::mem::take(&mut lock(&self.orders).idle);
        for reply in idle {
            // Nobody may wait for it any more.
            reply.send(()).ok();
        }
        false
    }

    fn panicked(&self) {
        // It stays scheduled, so that it never runs again; what it held comes back with the next start.
        if let Some(route) = self.route.upgrade() {
            route.fail();
        }
        self.close();
    }
}
