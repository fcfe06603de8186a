//! A route at work: takes deliveries, runs the chain on a worker, settles.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use quipu_protocol::Message;
use quipu_queue::{
    Consumer, Delivery, Outcome, Output, Settle, SettleError, Settlement, Store, SubscribeError, backoff,
};

use crate::chain::{Chain, Decision};
use crate::stats::{PluginInfo, RouteInfo};
use crate::workers::{Job, Line};
use crate::{OnError, RouteSettings};

/// Deliveries that a route holds at most: in its inbox, in hand, or being settled.
const PREFETCH: u64 = 512;
/// A slice ends after so many messages …
const SLICE_MESSAGES: usize = 128;
/// … or so much time, between two messages.
const SLICE_TIME: Duration = Duration::from_millis(5);
/// … or so many bytes of outputs.
const SLICE_BYTES: usize = 1 << 20;
/// Before a message that cannot even be dead-lettered is tried again, at the least, in milliseconds.
const STUCK_MS_MIN: u64 = 1_000;
/// Longest delay that a plugin can ask for: a day.
const RETRY_MS_MAX: u64 = 86_400_000;

/// One route.
pub(crate) struct Route {
    this: Weak<Self>,
    name: String,
    line: Line,
    /// What came and waits for a worker. Bounded by credit.
    inbox: Mutex<VecDeque<Event>>,
    /// Whether it is in the line or at work.
    scheduled: AtomicBool,
    stopping: AtomicBool,
    work: Mutex<Work>,
    /// There before the first delivery is.
    consumer: OnceLock<Consumer>,
    info: Mutex<RouteInfo>,
}

/// What only one worker at a time touches.
struct Work {
    chain: Chain,
    on_error: OnError,
    credit: u64,
    plugins: Vec<PluginInfo>,
}

enum Event {
    Delivered(Delivery),
    /// The store refused what the chain made of it.
    Refused(Sent, SettleError),
}

/// A delivery whose settlement is on its way.
struct Sent {
    delivery: Delivery,
    end: End,
    outputs: u64,
}

/// What an attempt counts as once it is durable.
#[derive(Clone, PartialEq, Eq)]
enum End {
    Forwarded,
    Filtered {
        set_aside: bool,
        error: bool,
    },
    /// For a reason of the plugin's.
    Dropped(String),
    Retried,
    DeadLettered,
}

impl Route {
    pub(crate) async fn start(store: &Store, line: Line, settings: RouteSettings) -> Result<Arc<Self>, SubscribeError> {
        let info = RouteInfo {
            name: settings.name.clone(),
            from: settings.from.clone(),
            when: settings.when.as_ref().map(|when| when.as_str().to_owned()),
            to: settings.to.iter().map(ToString::to_string).collect(),
            state: "running",
            ..RouteInfo::default()
        };
        let plugin = |plugin: &dyn quipu_runtime::Plugin| PluginInfo {
            name: plugin.name().to_owned(),
            digest: plugin.digest().to_string(),
            ..PluginInfo::default()
        };
        let plugins: Vec<_> = settings.plugins.iter().map(|boxed| plugin(boxed.as_ref())).collect();
        let work = Work {
            plugins: plugins.clone(),
            chain: Chain {
                route: settings.name.clone(),
                when: settings.when,
                otherwise: settings.otherwise,
                plugins: settings.plugins,
                to: settings.to,
            },
            on_error: settings.on_error,
            credit: PREFETCH,
        };
        let route = Arc::new_cyclic(|this| Self {
            this: this.clone(),
            name: settings.name.clone(),
            line,
            inbox: Mutex::default(),
            scheduled: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            work: Mutex::new(work),
            consumer: OnceLock::new(),
            info: Mutex::new(RouteInfo { plugins, ..info }),
        });
        let sink_of = Arc::downgrade(&route);
        let sink = move |batch: Vec<Delivery>| {
            if let Some(route) = sink_of.upgrade() {
                route.push(batch.into_iter().map(Event::Delivered));
            }
        };
        let subscription = format!("route:{}", settings.name);
        let consumer = store.subscribe(&settings.from, &subscription, settings.start, sink).await?;
        // Only then the credit: a worker may have the first messages before this goes on.
        route.consumer.get_or_init(|| consumer).credit(PREFETCH).await?;
        Ok(route)
    }

    pub(crate) fn info(&self) -> RouteInfo {
        lock(&self.info).clone()
    }

    /// Takes no further message; what is in hand is finished.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        lock(&self.info).state = "stopping";
    }

    fn push(&self, events: impl IntoIterator<Item = Event>) {
        lock(&self.inbox).extend(events);
        self.schedule();
    }

    fn schedule(&self) {
        if !self.scheduled.swap(true, Ordering::AcqRel)
            && let Some(this) = self.this.upgrade()
        {
            self.line.push(this);
        }
    }

    fn settle(&self, credit: u64, items: Vec<Settle>, sent: Vec<Sent>) {
        let this = self.this.clone();
        let answer = move |answer: Result<Vec<Result<(), SettleError>>, _>| {
            let Some(route) = this.upgrade() else { return };
            match answer {
                Ok(results) => route.settled(sent.into_iter().zip(results)),
                Err(e) => tracing::error!(route = route.name, %e, "a route stands still"),
            }
        };
        let Some(consumer) = self.consumer.get() else { return };
        if let Err(e) = consumer.settle_blocking(items, credit, answer) {
            tracing::error!(route = self.name, %e, "a route stands still");
        }
    }

    fn settled(&self, results: impl Iterator<Item = (Sent, Result<(), SettleError>)>) {
        let mut refused = Vec::new();
        let mut info = lock(&self.info);
        for (sent, result) in results {
            match result {
                Ok(()) => info.count(&sent),
                // Another has it.
                Err(SettleError::Stale) => {}
                Err(e) => refused.push(Event::Refused(sent, e)),
            }
        }
        drop(info);
        if !refused.is_empty() {
            self.push(refused);
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
        }
    }
}

impl Job for Route {
    fn run(&self) -> bool {
        let mut work = lock(&self.work);
        let begun = Instant::now();
        let (mut items, mut sent, mut bytes) = (Vec::new(), Vec::new(), 0);
        while items.len() < SLICE_MESSAGES && bytes < SLICE_BYTES && begun.elapsed() < SLICE_TIME {
            if self.stopping.load(Ordering::Acquire) {
                lock(&self.inbox).clear();
                // Dropping the consumer gives back what it holds, but for what is being settled.
                break;
            }
            let Some(event) = lock(&self.inbox).pop_front() else { break };
            // What the store refused was counted when it was delivered.
            work.credit += u64::from(matches!(event, Event::Delivered(_)));
            let (settle, end) = work.handle(event, &self.info);
            bytes += settle.outputs.iter().map(output_bytes).sum::<usize>();
            items.push(settle);
            sent.push(end);
        }
        if !items.is_empty() {
            self.settle(work.credit, items, sent);
        }
        drop(work);
        if !lock(&self.inbox).is_empty() {
            return true;
        }
        self.scheduled.store(false, Ordering::Release);
        // Something may have come between the two lines above.
        !lock(&self.inbox).is_empty() && !self.scheduled.swap(true, Ordering::AcqRel)
    }

    fn panicked(&self) {
        // It stays scheduled, so that it never runs again; what it held comes back with the next start.
        tracing::error!(route = self.name, "a bug in the router: this route stands still until it is restarted");
        lock(&self.info).state = "failed";
    }
}

impl Work {
    fn handle(&mut self, event: Event, info: &Mutex<RouteInfo>) -> (Settle, Sent) {
        let (delivery, end, settlement, outputs) = match event {
            Event::Delivered(delivery) => {
                let stored = &delivery.stored;
                let (end, settlement, outputs) = match Message::decode(stored.header.clone(), stored.payload.clone()) {
                    Ok(message) => {
                        let decision = self.chain.attempt(message, delivery.attempt, now_ms(), &mut self.plugins);
                        let mut counts = lock(info);
                        counts.attempts += 1;
                        counts.plugins.clone_from(&self.plugins);
                        drop(counts);
                        self.decide(&delivery, decision)
                    }
                    Err(e) => {
                        let (end, settlement) = self.dead_letter(format!("unreadable message: {e}"), Vec::new());
                        (end, settlement, Vec::new())
                    }
                };
                (delivery, end, settlement, outputs)
            }
            Event::Refused(Sent { delivery, end: End::DeadLettered, .. }, error) => {
                let (end, settlement) = self.keep(&delivery, &error);
                (delivery, end, settlement, Vec::new())
            }
            Event::Refused(Sent { delivery, .. }, error) => {
                let (end, settlement) = self.fail(&delivery, error.to_string(), 0, Vec::new());
                (delivery, end, settlement, Vec::new())
            }
        };
        let (token, count) = (delivery.token, outputs.len() as u64);
        (Settle { token, settlement, outputs }, Sent { delivery, end, outputs: count })
    }

    fn decide(&self, delivery: &Delivery, decision: Decision) -> (End, Settlement, Vec<Output>) {
        let (route, offset) = (&self.chain.route, delivery.offset);
        let (end, settlement) = match decision {
            Decision::Filtered { outputs, error } => {
                if let Some(why) = &error {
                    tracing::debug!(route, %offset, %why, "`when` failed");
                }
                let end = End::Filtered { set_aside: !outputs.is_empty(), error: error.is_some() };
                return (end, Settlement::Done(Outcome::Filtered), outputs);
            }
            Decision::Forward(outputs) => return (End::Forwarded, Settlement::Done(Outcome::Acked), outputs),
            Decision::Drop { outputs, reason } => {
                tracing::debug!(route, %offset, %reason, "dropped");
                return (End::Dropped(reason), Settlement::Done(Outcome::Dropped), outputs);
            }
            Decision::Reject { position, reason, headers } => {
                let mut said = headers;
                said.extend(position.map(|at| ("quipu-dead-plugin".into(), self.plugin_name(at))));
                self.dead_letter(reason, said)
            }
            Decision::Retry { position, delay_ms, reason } => {
                let said = vec![("quipu-dead-plugin".into(), self.plugin_name(position))];
                self.fail(delivery, reason, delay_ms, said)
            }
            Decision::Fault { position, fault } => {
                let said = vec![
                    ("quipu-dead-plugin".into(), self.plugin_name(position)),
                    ("quipu-dead-fault".into(), fault.kind.to_string()),
                    ("quipu-dead-trace".into(), fault.trace.join(" | ")),
                ];
                self.fail(delivery, fault.text, 0, said)
            }
        };
        (end, settlement, Vec::new())
    }

    /// An attempt that failed: another one later, or the dead-letter queue after the last.
    fn fail(
        &self,
        delivery: &Delivery,
        reason: String,
        delay_ms: u64,
        said: Vec<(String, String)>,
    ) -> (End, Settlement) {
        let (route, offset, attempt) = (&self.chain.route, delivery.offset, delivery.attempt);
        if attempt >= self.on_error.attempts {
            tracing::warn!(route, %offset, attempt, %reason, "dead-lettered");
            return self.dead_letter(reason, said);
        }
        tracing::info!(route, %offset, attempt, %reason, "an attempt failed");
        let delay_ms = if delay_ms > 0 { delay_ms.min(RETRY_MS_MAX) } else { self.backoff_ms(attempt) };
        (End::Retried, Settlement::Park { delay_ms })
    }

    /// A message that could not be dead-lettered stays where it is and is tried again: never lost, never in haste.
    fn keep(&self, delivery: &Delivery, why: &SettleError) -> (End, Settlement) {
        let (route, offset, attempt) = (&self.chain.route, delivery.offset, delivery.attempt);
        tracing::error!(route, %offset, attempt, %why, "a message cannot be dead-lettered and stays in its queue");
        (End::Retried, Settlement::Park { delay_ms: self.backoff_ms(attempt).max(STUCK_MS_MIN) })
    }

    fn backoff_ms(&self, attempts: u32) -> u64 {
        backoff(&self.on_error.backoff_ms, attempts)
    }

    fn dead_letter(&self, reason: String, said: Vec<(String, String)>) -> (End, Settlement) {
        let mut headers = vec![("quipu-dead-route".to_owned(), self.chain.route.clone())];
        headers.extend(said);
        (End::DeadLettered, Settlement::DeadLetter { queue: self.on_error.then.clone(), reason, headers })
    }

    /// Name and digest of the plugin at this place.
    fn plugin_name(&self, position: usize) -> String {
        let plugin = self.chain.plugins.get(position);
        plugin.map_or_else(String::new, |plugin| format!("{}@{}", plugin.name(), plugin.digest().short()))
    }
}

fn output_bytes(output: &Output) -> usize {
    output.header.len() + output.payload.as_ref().map_or(0, bytes::Bytes::len)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quipu_queue::commit::Stored;
    use quipu_queue::{Offset, Token, Why};

    /// Otherwise it would be dead-lettered and refused again as fast as the store can answer.
    #[test]
    fn a_message_that_cannot_be_dead_lettered_waits() {
        let chain = Chain { route: "r".into(), when: None, otherwise: Vec::new(), plugins: Vec::new(), to: Vec::new() };
        let on_error = OnError { attempts: 2, backoff_ms: vec![0], then: None };
        let mut work = Work { chain, on_error, credit: PREFETCH, plugins: Vec::new() };
        let stored = Stored { header: Default::default(), payload: Default::default() };
        let delivery =
            Delivery { token: Token(1), offset: Offset(0), attempt: 2, why: Why::First, stored: Arc::new(stored) };
        let info = Mutex::new(RouteInfo::default());
        let sent = Sent { delivery, end: End::Forwarded, outputs: 1 };
        let nowhere = SettleError::TooLarge(1);
        let (settle, sent) = work.handle(Event::Refused(sent, nowhere), &info);
        assert!(matches!(settle.settlement, Settlement::DeadLetter { .. }));
        let (settle, sent) = work.handle(Event::Refused(sent, SettleError::NoDeadLetter("in".into())), &info);
        assert_eq!(settle.settlement, Settlement::Park { delay_ms: STUCK_MS_MIN });
        assert!(sent.end == End::Retried);
    }
}
