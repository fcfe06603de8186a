//! A lane of an inline route: what publishers ask of it, one batch after the other.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use quipu_protocol::Message;
use quipu_queue::{Offset, Output};
use quipu_runtime::FaultKind;
use tokio::sync::oneshot;

use super::route::InlineRoute;
use super::{Admission, Admitted, RETRY_LATER_MS, Refusal};
use crate::breaker::Broke;
use crate::chain::Decision;
use crate::lane::{LaneInfo, SLICE_TIME};
use crate::route::lock;
use crate::settings::OnBroken;
use crate::stats::{PluginInfo, add_all};
use crate::work::{SLICE_BYTES, Serving};
use crate::workers::{Job, Place};

/// One lane.
pub(super) struct InlineLane {
    this: Weak<Self>,
    route: Weak<InlineRoute>,
    place: Arc<Place>,
    /// Bounded by what publishers may have under way.
    inbox: Mutex<Inbox>,
    scheduled: AtomicBool,
    /// Messages that wait in it.
    waiting: AtomicUsize,
    serving: Mutex<Serving>,
    info: Mutex<LaneInfo>,
}

#[derive(Default)]
struct Inbox {
    /// It never runs again.
    over: bool,
    asks: VecDeque<Ask>,
    swaps: VecDeque<(Serving, oneshot::Sender<Vec<PluginInfo>>)>,
}

/// Messages of one publisher, and what was made of those that are through.
struct Ask {
    messages: VecDeque<Message>,
    made: Vec<Admitted>,
    /// Of their outputs.
    bytes: usize,
    reply: oneshot::Sender<Vec<Admitted>>,
}

impl InlineLane {
    pub(super) fn new(route: Weak<InlineRoute>, place: Arc<Place>, serving: Serving) -> Arc<Self> {
        let info = LaneInfo { plugins: serving.plugins.clone(), ..LaneInfo::default() };
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            route,
            place,
            inbox: Mutex::default(),
            scheduled: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            serving: Mutex::new(serving),
            info: Mutex::new(info),
        })
    }

    /// How many messages wait for it.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Makes an attempt at each, or at as many as outputs are not too much of; without messages, comes once all before are through. Nothing comes where it has ended.
    pub(super) fn ask(&self, messages: Vec<Message>) -> oneshot::Receiver<Vec<Admitted>> {
        let (reply, receiver) = oneshot::channel();
        let mut inbox = lock(&self.inbox);
        if !inbox.over {
            self.waiting.fetch_add(messages.len(), Ordering::Relaxed);
            let made = Vec::with_capacity(messages.len());
            inbox.asks.push_back(Ask { messages: messages.into(), made, bytes: 0, reply });
            drop(inbox);
            self.schedule();
        }
        receiver
    }

    /// Has it take another chain before its next message; what the one before did comes back.
    pub(super) fn swap(&self, serving: Serving) -> oneshot::Receiver<Vec<PluginInfo>> {
        let (reply, receiver) = oneshot::channel();
        let mut inbox = lock(&self.inbox);
        if !inbox.over {
            inbox.swaps.push_back((serving, reply));
            drop(inbox);
            self.schedule();
        }
        receiver
    }

    /// It never runs again: nobody shall wait for it.
    pub(super) fn close(&self) {
        let over = std::mem::replace(&mut *lock(&self.inbox), Inbox { over: true, ..Inbox::default() });
        // Not under the lock: a chain's end takes a moment.
        drop(over);
    }

    /// Adds what it did to a sum.
    pub(super) fn add_to(&self, sum: &mut LaneInfo) {
        let info = lock(&self.info);
        sum.attempts += info.attempts;
        if info.chains > sum.chains {
            sum.chains = info.chains;
            sum.plugins.clear();
        }
        if info.chains == sum.chains {
            add_all(&mut sum.plugins, &info.plugins);
        }
    }

    fn schedule(&self) {
        if !self.scheduled.swap(true, Ordering::AcqRel)
            && let Some(this) = self.this.upgrade()
        {
            self.place.push(this);
        }
    }

    /// Works until the slice is over; whether anything is left.
    fn work_through(&self, route: &InlineRoute, serving: &mut Serving) -> bool {
        let begun = Instant::now();
        loop {
            let (swap, ask) = {
                let mut inbox = lock(&self.inbox);
                let swap = inbox.swaps.pop_front();
                let ask = if swap.is_none() { inbox.asks.pop_front() } else { None };
                (swap, ask)
            };
            match (swap, ask) {
                (Some((next, reply)), _) => {
                    let before = std::mem::replace(serving, next);
                    lock(&self.info).chains += 1;
                    self.note(serving);
                    // Nobody may wait for it any more.
                    reply.send(before.plugins).ok();
                }
                (None, Some(ask)) => {
                    if !self.answer(route, serving, ask, begun) {
                        return true;
                    }
                }
                (None, None) => return false,
            }
        }
    }

    /// Makes attempts until the slice is over; whether it is answered.
    fn answer(&self, route: &InlineRoute, serving: &mut Serving, mut ask: Ask, begun: Instant) -> bool {
        while let Some(message) = ask.messages.pop_front() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            if ask.reply.is_closed() {
                // The publisher is gone, and what it sent with it.
                self.waiting.fetch_sub(ask.messages.len(), Ordering::Relaxed);
                return true;
            }
            let admitted = attempt(route, serving, message);
            let outputs = admitted.as_ref().map_or(&[][..], |admission| &admission.outputs);
            ask.bytes += outputs.iter().map(Output::size).sum::<usize>();
            ask.made.push(admitted);
            if ask.bytes >= SLICE_BYTES {
                self.waiting.fetch_sub(ask.messages.len(), Ordering::Relaxed);
                break;
            }
            if begun.elapsed() >= SLICE_TIME && !ask.messages.is_empty() {
                lock(&self.inbox).asks.push_front(ask);
                return false;
            }
        }
        self.note(serving);
        ask.reply.send(ask.made).ok();
        true
    }

    fn note(&self, serving: &mut Serving) {
        serving.measure();
        lock(&self.info).plugins.clone_from(&serving.plugins);
    }

    fn has_work(&self) -> bool {
        let inbox = lock(&self.inbox);
        !inbox.asks.is_empty() || !inbox.swaps.is_empty()
    }
}

impl Job for InlineLane {
    fn run(&self) -> bool {
        let Some(route) = self.route.upgrade() else {
            self.close();
            return false;
        };
        let mut serving = lock(&self.serving);
        let has_more = self.work_through(&route, &mut serving);
        drop(serving);
        if has_more || self.has_work() {
            return true;
        }
        self.scheduled.store(false, Ordering::Release);
        // Something may have come between the two lines above.
        self.has_work() && !self.scheduled.swap(true, Ordering::AcqRel)
    }

    fn panicked(&self) {
        if let Some(route) = self.route.upgrade() {
            route.fail();
        }
        self.close();
    }
}

/// The one attempt that a message has.
fn attempt(route: &InlineRoute, serving: &mut Serving, message: Message) -> Admitted {
    // Once more for each plugin that breaks meanwhile and is gone past from then on.
    loop {
        let mut followed = route.told.follow(&message);
        let (seen, decision) = serving.attempt(message.clone(), 1, followed.as_mut());
        if let Some(followed) = &mut followed {
            route.told.attempt(route.name(), 1, followed, decision.name(), decision.outputs());
        }
        if let Decision::Fault { position, fault } = &decision {
            let plugin = &serving.chain.plugins[*position];
            route.note(plugin.as_ref(), fault, seen.now_ms);
            let is_its = fault.kind != FaultKind::Exhausted;
            // Different messages have different seeds.
            if is_its && serving.breaker.faulted(*position, Offset(seen.seed)) {
                let plugin = serving.chain.plugin_name(*position);
                route.broke(&Broke { position: *position, plugin, text: fault.text.clone() }, &serving.breaker);
            }
            if serving.breaker.is_broken(*position) && serving.breaker.then() != OnBroken::Hold {
                continue;
            }
        }
        let made = admitted(route, serving, decision);
        route.count(&made.0, &made.1);
        return made.0;
    }
}

/// What counts, besides the answer.
#[derive(Default)]
pub(super) struct Made {
    pub(super) filtered: bool,
    pub(super) when_error: bool,
    pub(super) drop_reason: Option<String>,
}

fn admitted(route: &InlineRoute, serving: &Serving, decision: Decision) -> (Admitted, Made) {
    let name = || route.name().to_owned();
    let later = |ms, reason| Err(Refusal::RetryLater { route: name(), ms, reason });
    let mut made = Made::default();
    let answer = match decision {
        Decision::Forward(outputs) => Ok(Admission { outputs, taken: true, dropped: false }),
        Decision::Filtered { outputs, error } => {
            (made.filtered, made.when_error) = (true, error.is_some());
            if let Some(why) = error {
                tracing::debug!(route = route.name(), %why, "`when` failed");
            }
            Ok(Admission { taken: !outputs.is_empty(), outputs, dropped: false })
        }
        Decision::Drop { outputs, reason } => {
            made.drop_reason = Some(reason);
            Ok(Admission { outputs, taken: true, dropped: true })
        }
        Decision::Retry { delay_ms, reason, .. } => later(if delay_ms > 0 { delay_ms } else { RETRY_LATER_MS }, reason),
        Decision::Reject { reason, .. } => Err(Refusal::Reject { route: name(), reason }),
        Decision::Fault { fault, .. } if fault.kind == FaultKind::Exhausted => later(RETRY_LATER_MS, fault.text),
        Decision::Fault { position, fault } => {
            Err(Refusal::Failed { route: name(), plugin: serving.chain.plugin_name(position), fault })
        }
        Decision::Broken => later(RETRY_LATER_MS, route.why_not().unwrap_or_else(|| "a plugin is broken".into())),
    };
    (answer, made)
}
