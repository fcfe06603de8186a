//! A route: one subscription, shared out over lanes that workers serve side by side.

mod control;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use quipu_protocol::Message;
use quipu_queue::{
    Consumer, Delivery, Mode, Notice, NoticeKind, ROUTE_PREFIX, SettleError, Start, Store, SubscribeError,
};
use quipu_runtime::Plugin;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::breaker::Breaker;
use crate::chain::Chain;
use crate::keys::Incoming;
use crate::lane::{Lane, LaneInfo};
use crate::settings::{ChainSettings, Order, RouteError, RouteSettings};
use crate::stats::{PluginInfo, RouteInfo};
use crate::told::Told;
use crate::trace::What;
use crate::work::{Answer, End, Event, Sent, Serving, Slice, Work};
use crate::workers::{Line, Place};
pub(crate) use control::{Held, Standing};

/// Deliveries that a route holds in its inboxes and in hand: so many at least, …
const PREFETCH: u64 = 512;
/// … and so many for each lane, but no more than the store grants ahead.
const PREFETCH_LANE: u64 = 128;
const PREFETCH_MAX: u64 = 4_096;
/// Bytes of these deliveries, past which no further one comes.
pub const PREFETCH_BYTES: u64 = 8 << 20;

/// Deliveries that a route with so many lanes holds at most.
pub fn prefetch(lanes: u64) -> u64 {
    PREFETCH.max(PREFETCH_LANE * lanes).min(PREFETCH_MAX)
}

/// One route.
pub(crate) struct Route {
    name: String,
    from: String,
    start: Start,
    order: Order,
    store: Store,
    /// Among the routes that take turns.
    place: Arc<Place>,
    lanes: Vec<Arc<Lane>>,
    /// Whether messages are begun.
    taking: AtomicBool,
    /// For good.
    stopping: AtomicBool,
    /// Held while settlements are sent, so that they reach the store in order.
    seat: Mutex<Option<Seat>>,
    /// Which seat of its life this is; what came for an earlier one is not taken.
    seats: AtomicU64,
    /// Whether its subscription keeps the order of keys.
    keeps_order: AtomicBool,
    /// Where its subscription was when the route came to it last.
    floor: AtomicU64,
    /// Of the chain that it has.
    breaker: Mutex<Arc<Breaker>>,
    told: Told,
    runtime: Handle,
    /// Somebody changes it.
    control: tokio::sync::Mutex<()>,
    /// The store has answered something.
    answered: Notify,
    standing: Mutex<Standing>,
    info: Mutex<RouteInfo>,
}

/// A consumer, and what it was granted in total.
struct Seat {
    consumer: Arc<Consumer>,
    messages: u64,
    bytes: u64,
}

/// Settlements on their way to the store, until this is dropped.
struct Underway {
    route: Weak<Route>,
    lane: Arc<Lane>,
    count: u64,
}

impl Route {
    pub(crate) async fn start(
        store: &Store,
        line: &Line,
        told: &Told,
        settings: RouteSettings,
    ) -> Result<Arc<Self>, RouteError> {
        let held = settings.held.clone();
        let route = Self::new(store.clone(), line.place(), told, settings);
        let failed = |source| RouteError::Subscribe { route: route.name.clone(), source };
        match held {
            None => route.take_seat().await.map_err(failed)?,
            Some(reason) => {
                // So that the subscription is there, and its messages wait.
                drop(route.subscribe().await.map_err(failed)?);
                tracing::warn!(route = route.name, reason, "a route is held");
                lock(&route.standing).hold(Held::without_chain(reason));
            }
        }
        Ok(route)
    }

    fn new(store: Store, place: Arc<Place>, told: &Told, settings: RouteSettings) -> Arc<Self> {
        let (name, from, start, order, chains) = parts(settings);
        let info = RouteInfo {
            name: name.clone(),
            from: from.clone(),
            parallel: chains.plugins.len(),
            order: order.as_str(),
            ..RouteInfo::default()
        };
        let breaker = Arc::new(breaker(&chains));
        Arc::new_cyclic(|this: &Weak<Self>| {
            let info = Mutex::new(RouteInfo { ..info }.with_chain(&chains));
            let lane = |serving: Serving| Lane::new(this.clone(), place.clone(), Work::new(serving, told.clone()));
            Self {
                lanes: servings(&name, chains, &breaker).into_iter().map(lane).collect(),
                name,
                from,
                start,
                order,
                store,
                place,
                taking: AtomicBool::new(false),
                stopping: AtomicBool::new(false),
                seat: Mutex::default(),
                seats: AtomicU64::new(0),
                keeps_order: AtomicBool::new(false),
                floor: AtomicU64::new(0),
                breaker: Mutex::new(breaker.clone()),
                told: told.clone(),
                runtime: Handle::current(),
                control: tokio::sync::Mutex::default(),
                answered: Notify::new(),
                standing: Mutex::default(),
                info,
            }
        })
    }

    /// Subscribes, and lets messages come.
    async fn take_seat(self: &Arc<Self>) -> Result<(), SubscribeError> {
        let consumer = Arc::new(self.subscribe().await?);
        let messages = prefetch(self.lanes.len() as u64);
        *lock(&self.seat) = Some(Seat { consumer: consumer.clone(), messages, bytes: PREFETCH_BYTES });
        self.taking.store(true, Ordering::Release);
        // Only then the credit: a worker may have the first messages before this goes on.
        consumer.window(PREFETCH_BYTES).await?;
        Ok(consumer.credit(messages).await?)
    }

    async fn subscribe(self: &Arc<Self>) -> Result<Consumer, SubscribeError> {
        let seat = self.seats.fetch_add(1, Ordering::AcqRel) + 1;
        let subscription = format!("{ROUTE_PREFIX}{}", self.name);
        let mode = match self.order {
            Order::Key => Mode::KeyShared,
            Order::None => Mode::Shared,
        };
        let (store, from, start) = (&self.store, &self.from, self.start);
        let subscribe = |mode| {
            store.subscribe_with_notices(from, &subscription, (mode, start), self.sink(seat), self.notices(seat))
        };
        let subscribed = match subscribe(Some(mode)).await {
            Err(SubscribeError::Mode { mode: made, .. }) => {
                let (route, order) = (&self.name, self.order.as_str());
                tracing::warn!(
                    route,
                    order,
                    "the route's subscription was made {made} before and stays so: keys keep the order that it gives"
                );
                subscribe(None).await
            }
            subscribed => subscribed,
        }?;
        self.keeps_order.store(subscribed.mode == Mode::KeyShared, Ordering::Release);
        self.floor.store(subscribed.floor.0, Ordering::Release);
        self.set_paused(subscribed.paused);
        Ok(subscribed)
    }

    fn sink(self: &Arc<Self>, seat: u64) -> impl FnMut(Vec<Delivery>) + Send + 'static {
        let (route, mut turn) = (Arc::downgrade(self), 0);
        move |batch| {
            // What comes for a seat that was left goes back by itself.
            if let Some(route) = route.upgrade().filter(|route| route.seat_number() == seat) {
                route.share_out(batch, &mut turn);
            }
        }
    }

    /// What becomes of the subscription while the route has it.
    fn notices(self: &Arc<Self>, seat: u64) -> impl FnMut(Notice) + Send + 'static {
        let route = Arc::downgrade(self);
        move |notice| {
            let Some(route) = route.upgrade().filter(|route| route.seat_number() == seat) else { return };
            match notice.kind {
                NoticeKind::Paused => route.set_paused(true),
                NoticeKind::Resumed => route.set_paused(false),
                // What lanes have of before is stale, which costs no more than its attempts.
                NoticeKind::Moved => {}
                NoticeKind::Deleted => route.lost(notice.text),
            }
        }
    }

    fn share_out(&self, batch: Vec<Delivery>, turn: &mut usize) {
        let count = self.lanes.len();
        let keeps_order = self.keeps_order.load(Ordering::Acquire);
        let mut shares: Vec<Vec<Event>> = self.lanes.iter().map(|_| Vec::new()).collect();
        for delivery in batch {
            let (lane, key) = match self.order {
                Order::Key => {
                    let key = Message::key_hash(&delivery.stored.header);
                    // Those without a key keep to one lane. The high half, since the low one has chosen more already.
                    let lane = key.map_or(0, |hash| usize::try_from(hash >> 32).unwrap_or(0) % count);
                    (lane, key.filter(|_| keeps_order))
                }
                Order::None => {
                    *turn = (*turn + 1) % count;
                    (*turn, None)
                }
            };
            shares[lane].push(Event::Delivered(Incoming { delivery, key }));
        }
        for (lane, share) in self.lanes.iter().zip(shares).filter(|(_, share)| !share.is_empty()) {
            lane.push(share);
        }
    }

    pub(crate) fn info(&self) -> RouteInfo {
        let mut sum = LaneInfo::default();
        self.lanes.iter().for_each(|lane| lane.add_to(&mut sum));
        let LaneInfo { attempts, plugins, waiting_for, .. } = sum;
        let waiting_for = waiting_for.map(|queue| queue.as_ref().to_owned());
        let (state, state_reason) = lock(&self.standing).said();
        let busy_ns = u64::try_from(self.place.used().as_nanos()).unwrap_or(u64::MAX);
        RouteInfo { busy_ns, attempts, plugins, waiting_for, state, state_reason, ..lock(&self.info).clone() }
    }

    /// Why its chain is not there, where it is not.
    pub(crate) fn lacks_chain(&self) -> Option<String> {
        lock(&self.standing).lacks().map(str::to_owned)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub(crate) fn is_taking(&self) -> bool {
        self.taking.load(Ordering::Acquire)
    }

    pub(crate) fn seat_number(&self) -> u64 {
        self.seats.load(Ordering::Acquire)
    }

    pub(crate) fn settle(self: &Arc<Self>, lane: Arc<Lane>, slice: Slice) {
        let Slice { items, sent, messages, bytes, .. } = slice;
        let underway = Underway { route: Arc::downgrade(self), lane, count: items.len() as u64 };
        let mut seat = lock(&self.seat);
        // None: what it had went back with the seat.
        let Some(seat) = seat.as_mut() else { return };
        let answer = move |answer: Result<Vec<Result<(), SettleError>>, _>| {
            let Some(route) = underway.route.upgrade() else { return };
            match answer {
                Ok(results) => route.settled(&underway.lane, sent.into_iter().zip(results)),
                Err(e) => tracing::error!(route = route.name, %e, "a route stands still"),
            }
        };
        seat.messages += messages;
        seat.bytes += bytes;
        if let Err(e) = seat.consumer.settle_blocking(items, (seat.messages, seat.bytes), answer) {
            tracing::error!(route = self.name, %e, "a route stands still");
        }
    }

    fn settled(&self, lane: &Lane, results: impl Iterator<Item = (Sent, Result<(), SettleError>)>) {
        let mut answer = Answer::default();
        let mut info = lock(&self.info);
        for (sent, result) in results {
            match result {
                Ok(()) => {
                    info.count(&sent);
                    if let Some(id) = &sent.followed {
                        let subscription = format!("{ROUTE_PREFIX}{}", self.name);
                        let outcome = sent.end.name().to_owned();
                        self.told.trace.add(id, What::Settled { subscription, outcome });
                    }
                    answer.had_room |= sent.outputs > 0;
                }
                // Another has it.
                Err(SettleError::Stale) => {}
                Err(e) => {
                    answer.refused.push((sent, e));
                    continue;
                }
            }
            if let Some(key) = sent.key {
                answer.done.push((key, sent.delivery.offset));
            }
        }
        drop(info);
        if !answer.refused.is_empty() || !answer.done.is_empty() || (answer.had_room && lane.is_waiting()) {
            lane.push([Event::Answered(answer)]);
        }
    }
}

/// The lane hears of it first: who waits for the answers finds what they lead to.
impl Drop for Underway {
    fn drop(&mut self) {
        self.lane.answered(self.count);
        if let Some(route) = self.route.upgrade() {
            route.answered.notify_waiters();
        }
    }
}

/// What stays, and what can be replaced.
fn parts(settings: RouteSettings) -> (String, String, Start, Order, ChainSettings) {
    let RouteSettings { name, from, start, when, otherwise, plugins, order, to, on_error, on_broken, .. } = settings;
    let broken_after = settings.broken_after;
    (name, from, start, order, ChainSettings { when, otherwise, plugins, to, on_error, on_broken, broken_after })
}

pub(crate) fn breaker(chain: &ChainSettings) -> Breaker {
    Breaker::new(chain.on_broken, chain.broken_after)
}

/// A chain for each lane.
pub(crate) fn servings(route: &str, settings: ChainSettings, breaker: &Arc<Breaker>) -> Vec<Serving> {
    let ChainSettings { when, otherwise, plugins: chains, to, on_error, .. } = settings;
    let serving = |plugins: Vec<Box<dyn Plugin>>| {
        let infos = plugins.iter().map(|plugin| PluginInfo::new(plugin.as_ref())).collect();
        let (when, otherwise, to) = (when.clone(), otherwise.clone(), to.clone());
        let chain = Chain { route: route.to_owned(), when, otherwise, plugins, to };
        Serving { chain, on_error: on_error.clone(), breaker: breaker.clone(), plugins: infos }
    };
    chains.into_iter().map(serving).collect()
}

impl RouteInfo {
    pub(crate) fn with_chain(self, chain: &ChainSettings) -> Self {
        Self {
            when: chain.when.as_ref().map(|when| when.as_str().to_owned()),
            to: chain.to.iter().map(ToString::to_string).collect(),
            on_broken: chain.on_broken.as_str(),
            ..self
        }
    }

    fn count(&mut self, sent: &Sent) {
        self.outputs += sent.outputs;
        match &sent.end {
            End::Forwarded => self.forwarded += 1,
            End::Filtered { set_aside, error } => {
                self.filtered += 1;
                self.set_aside += u64::from(*set_aside);
                self.when_errors += u64::from(*error);
            }
            End::Dropped(reason) => {
                self.dropped += 1;
                self.drop_reasons.count(reason);
            }
            End::Retried => self.retried += 1,
            End::DeadLettered => self.dead_lettered += 1,
            End::Held => self.held += 1,
            End::GivenBack => {}
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
