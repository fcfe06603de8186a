//! A route: one subscription, shared out over lanes that workers serve side by side.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use quipu_protocol::Message;
use quipu_queue::{Consumer, Delivery, Mode, ROUTE_PREFIX, SettleError, Start, Store, SubscribeError};

use crate::chain::Chain;
use crate::keys::Incoming;
use crate::lane::{Lane, LaneInfo};
use crate::stats::{PluginInfo, RouteInfo};
use crate::work::{Answer, End, Event, Sent, Slice, Work};
use crate::workers::Line;
use crate::{Order, RouteSettings};

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
    order: Order,
    lanes: Vec<Arc<Lane>>,
    stopping: AtomicBool,
    /// There before the first delivery is.
    consumer: OnceLock<Consumer>,
    /// Messages and bytes in total. Held while they are sent, so that they reach the store in order.
    granted: Mutex<(u64, u64)>,
    info: Mutex<RouteInfo>,
}

impl Route {
    pub(crate) async fn start(store: &Store, line: Line, settings: RouteSettings) -> Result<Arc<Self>, SubscribeError> {
        let lanes = settings.plugins.len() as u64;
        let messages = prefetch(lanes);
        let (from, start) = (settings.from.clone(), settings.start);
        let route = Self::new(line, settings, (messages, PREFETCH_BYTES));
        let consumer = route.subscribe(store, &from, start).await?;
        let consumer = route.consumer.get_or_init(|| consumer);
        // Only then the credit: a worker may have the first messages before this goes on.
        consumer.window(PREFETCH_BYTES).await?;
        consumer.credit(messages).await?;
        Ok(route)
    }

    fn new(line: Line, settings: RouteSettings, granted: (u64, u64)) -> Arc<Self> {
        let RouteSettings { name, from, start: _, when, otherwise, plugins: chains, order, to, on_error } = settings;
        let info = RouteInfo {
            name: name.clone(),
            from,
            when: when.as_ref().map(|when| when.as_str().to_owned()),
            to: to.iter().map(ToString::to_string).collect(),
            state: "running",
            parallel: chains.len(),
            order: order.as_str(),
            ..RouteInfo::default()
        };
        Arc::new_cyclic(|this: &Weak<Self>| {
            let lane = |plugins: Vec<Box<dyn quipu_runtime::Plugin>>| {
                let infos = plugins.iter().map(|plugin| PluginInfo::new(plugin.as_ref())).collect();
                let (route, when, otherwise, to) = (name.clone(), when.clone(), otherwise.clone(), to.clone());
                let chain = Chain { route, when, otherwise, plugins, to };
                Lane::new(this.clone(), line.clone(), Work::new(chain, on_error.clone(), infos))
            };
            Self {
                lanes: chains.into_iter().map(lane).collect(),
                name,
                order,
                stopping: AtomicBool::new(false),
                consumer: OnceLock::new(),
                granted: Mutex::new(granted),
                info: Mutex::new(info),
            }
        })
    }

    async fn subscribe(self: &Arc<Self>, store: &Store, from: &str, start: Start) -> Result<Consumer, SubscribeError> {
        let subscription = format!("{ROUTE_PREFIX}{}", self.name);
        let mode = match self.order {
            Order::Key => Mode::KeyShared,
            Order::None => Mode::Shared,
        };
        match store.subscribe(from, &subscription, Some(mode), start, self.sink()).await {
            Err(SubscribeError::Mode { mode: made, .. }) => {
                let (route, order) = (&self.name, self.order.as_str());
                tracing::warn!(
                    route,
                    order,
                    "the route's subscription was made {made} before and stays so: keys keep the order that it gives"
                );
                store.subscribe(from, &subscription, None, start, self.sink()).await
            }
            subscribed => subscribed,
        }
    }

    fn sink(self: &Arc<Self>) -> impl FnMut(Vec<Delivery>) + Send + 'static {
        let (route, mut turn) = (Arc::downgrade(self), 0);
        move |batch| {
            if let Some(route) = route.upgrade() {
                route.share_out(batch, &mut turn);
            }
        }
    }

    fn share_out(&self, batch: Vec<Delivery>, turn: &mut usize) {
        let count = self.lanes.len();
        let keeps_order = self.consumer.get().is_some_and(|consumer| consumer.mode == Mode::KeyShared);
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
        let LaneInfo { attempts, plugins, waiting_for } = sum;
        let waiting_for = waiting_for.map(|queue| queue.as_ref().to_owned());
        RouteInfo { attempts, plugins, waiting_for, ..lock(&self.info).clone() }
    }

    /// Takes no further message; what is in hand is finished.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        lock(&self.info).state = "stopping";
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// All its lanes stand still: a lane that never runs again would soon hold all that the route may have.
    pub(crate) fn fail(&self) {
        tracing::error!(route = self.name, "a bug in the router: this route stands still until it is restarted");
        self.stop();
        lock(&self.info).state = "failed";
    }

    pub(crate) fn settle(self: &Arc<Self>, lane: Arc<Lane>, slice: Slice) {
        let Some(consumer) = self.consumer.get() else { return };
        let Slice { items, sent, messages, bytes, .. } = slice;
        let this = Arc::downgrade(self);
        let answer = move |answer: Result<Vec<Result<(), SettleError>>, _>| {
            let Some(route) = this.upgrade() else { return };
            match answer {
                Ok(results) => route.settled(&lane, sent.into_iter().zip(results)),
                Err(e) => tracing::error!(route = route.name, %e, "a route stands still"),
            }
        };
        let mut granted = lock(&self.granted);
        granted.0 += messages;
        granted.1 += bytes;
        if let Err(e) = consumer.settle_blocking(items, *granted, answer) {
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

impl RouteInfo {
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
