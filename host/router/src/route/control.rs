//! What is done to a route while it runs: another chain, standing still, going on, and its end.
//!
//! One change at a time. Each goes on to its end, also where who asked for it is gone.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use quipu_queue::Offset;
use quipu_runtime::Digest;
use tokio::sync::oneshot;

use super::{Route, breaker, lock, servings};
use crate::breaker::{Breaker, Broke};
use crate::lane::Passed;
use crate::settings::{ChainSettings, RouteError, Swapped};

/// Why a route runs or does not. What is further up counts more.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    pub(crate) failed: bool,
    pub(crate) stopping: bool,
    pub(crate) held: Option<Held>,
    pub(crate) broken: Option<String>,
    pub(crate) paused: bool,
}

/// Why a route is held.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) reason: String,
    /// Its chain is not the one that it is to have: only another chain helps.
    pub(crate) lacks_chain: bool,
}

impl Held {
    /// Until it is released.
    pub(crate) fn by(reason: String) -> Self {
        Self { reason, lacks_chain: false }
    }

    /// Until its chain is there.
    pub(crate) fn without_chain(reason: String) -> Self {
        Self { reason, lacks_chain: true }
    }
}

impl Standing {
    /// For listings: the state, and why.
    pub(crate) fn said(&self) -> (&'static str, Option<String>) {
        match self {
            Self { failed: true, .. } => ("failed", Some("a bug of the router's; its log says more".into())),
            Self { stopping: true, .. } => ("stopping", None),
            Self { held: Some(held), .. } => ("held", Some(held.reason.clone())),
            Self { broken: Some(reason), .. } => ("broken", Some(reason.clone())),
            Self { paused: true, .. } => ("paused", None),
            _ => ("running", None),
        }
    }

    /// Why its chain is not there, where it is not.
    pub(crate) fn lacks(&self) -> Option<&str> {
        self.held.as_ref().filter(|held| held.lacks_chain).map(|held| held.reason.as_str())
    }

    /// Holds it, or says another reason. What lacks its chain goes on lacking it.
    pub(crate) fn hold(&mut self, held: Held) {
        let lacks_chain = held.lacks_chain || self.lacks().is_some();
        self.held = Some(Held { lacks_chain, ..held });
    }

    /// Its chain is there: it is held until it is released, and no longer than that.
    pub(crate) fn has_chain(&mut self) {
        if let Some(held) = &mut self.held {
            held.lacks_chain = false;
        }
    }
}

impl Route {
    pub(crate) async fn replace_chain(self: &Arc<Self>, chain: ChainSettings) -> Result<Swapped, RouteError> {
        let (lanes, given) = (self.lanes.len(), chain.plugins.len());
        if lanes != given {
            return Err(RouteError::OtherLanes { route: self.name.clone(), lanes, given });
        }
        self.change(|route| async move { route.swap(chain).await }).await
    }

    async fn swap(self: Arc<Self>, chain: ChainSettings) -> Result<Swapped, RouteError> {
        let begun = Instant::now();
        {
            let mut info = lock(&self.info);
            *info = info.clone().with_chain(&chain);
        }
        let breaker = Arc::new(breaker(&chain));
        let servings = servings(&self.name, chain, &breaker);
        let waits: Vec<_> = self.lanes.iter().zip(servings).map(|(lane, serving)| lane.swap(serving)).collect();
        let mut passed = Vec::with_capacity(waits.len());
        for wait in waits {
            passed.push(wait.await.map_err(|_| self.stopped())?);
        }
        self.settled_through(&passed).await;
        *lock(&self.breaker) = breaker;
        let is_held = {
            let mut standing = lock(&self.standing);
            standing.broken = None;
            standing.has_chain();
            standing.held.is_some()
        };
        if !is_held && !self.is_taking() {
            self.go_on().await?;
        }
        Ok(swapped(Offset(self.floor.load(Ordering::Acquire)), passed, begun))
    }

    pub(crate) async fn hold(self: &Arc<Self>, held: Held) -> Result<(), RouteError> {
        let hold = |route: Arc<Self>| async move {
            tracing::warn!(route = route.name, reason = held.reason, "a route is held");
            lock(&route.standing).hold(held);
            route.stand_still().await;
            Ok(())
        };
        self.change(hold).await
    }

    pub(crate) async fn release(self: &Arc<Self>) -> Result<(), RouteError> {
        let release = |route: Arc<Self>| async move {
            let was = {
                let mut standing = lock(&route.standing);
                if let Some(reason) = standing.lacks() {
                    return Err(RouteError::LacksChain { route: route.name.clone(), reason: reason.to_owned() });
                }
                let broken = standing.broken.take();
                standing.held.take().map(|held| held.reason).or(broken)
            };
            lock(&route.breaker).reset();
            if !route.is_taking() {
                route.go_on().await?;
            }
            if let Some(was) = was {
                tracing::info!(route = route.name, was, "a route runs again");
            }
            Ok(())
        };
        self.change(release).await
    }

    /// A plugin of its chain fails on everything.
    pub(crate) fn broke(self: &Arc<Self>, broke: &Broke, breaker: &Breaker) {
        let reason = broke.reason(breaker);
        tracing::error!(route = self.name, reason, "a plugin is broken");
        lock(&self.standing).broken = Some(reason);
        if breaker.stands_still() {
            self.taking.store(false, Ordering::Release);
            let route = self.clone();
            self.runtime.spawn(async move {
                let _turn = route.control.lock().await;
                // It may go on again by now.
                if !route.is_taking() {
                    route.stand_still().await;
                }
            });
        }
    }

    /// Its subscription is gone: it takes nothing until it is released, and makes it anew then.
    pub(super) fn lost(&self, why: String) {
        tracing::warn!(route = self.name, why, "a route is held");
        self.taking.store(false, Ordering::Release);
        lock(&self.standing).hold(Held::by(why));
    }

    pub(crate) fn set_paused(&self, paused: bool) {
        lock(&self.standing).paused = paused;
    }

    /// Takes no further message, finishes what is in hand, and leaves its subscription.
    pub(crate) async fn end(self: &Arc<Self>) {
        let _turn = self.control.lock().await;
        lock(&self.standing).stopping = true;
        self.stand_still().await;
        self.stop();
        self.close();
    }

    /// Takes no further message; what is in hand is finished.
    pub(crate) fn stop(&self) {
        lock(&self.standing).stopping = true;
        self.stopping.store(true, Ordering::Release);
    }

    /// The workers have stopped, or it has: gives back what it holds, and lets go of who waits for it.
    pub(crate) fn close(&self) {
        drop(lock(&self.seat).take());
        self.lanes.iter().for_each(|lane| lane.close());
    }

    /// All its lanes stand still: a lane that never runs again would soon hold all that the route may have.
    pub(crate) fn fail(&self) {
        tracing::error!(route = self.name, "a bug in the router: this route stands still until it is added anew");
        self.stop();
        lock(&self.standing).failed = true;
    }

    /// Changes it, after whatever changes it now.
    async fn change<T, F>(self: &Arc<Self>, change: impl FnOnce(Arc<Self>) -> F) -> Result<T, RouteError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, RouteError>> + Send + 'static,
    {
        let route = self.clone();
        let change = change(self.clone());
        let changing = tokio::spawn(async move {
            let _turn = route.control.lock().await;
            if route.is_stopping() { Err(route.stopped()) } else { change.await }
        });
        changing.await.unwrap_or_else(|_| Err(self.stopped()))
    }

    /// Begins nothing more, settles what is in hand, and gives the rest back.
    async fn stand_still(&self) {
        self.taking.store(false, Ordering::Release);
        loop {
            let sent = self.idle().await;
            self.answered_through(sent).await;
            // What was refused may have led to more.
            if self.idle().await == sent {
                break;
            }
        }
        drop(lock(&self.seat).take());
    }

    /// Begins again after it stood still, or was about to.
    async fn go_on(self: &Arc<Self>) -> Result<(), RouteError> {
        self.stand_still().await;
        self.take_seat().await.map_err(|source| {
            lock(&self.standing).hold(Held::by(source.to_string()));
            RouteError::Subscribe { route: self.name.clone(), source }
        })
    }

    /// Until no lane has anything to do; how much was sent until then.
    async fn idle(&self) -> u64 {
        let waits: Vec<oneshot::Receiver<()>> = self.lanes.iter().map(|lane| lane.idle()).collect();
        for wait in waits {
            // One that has ended is idle too.
            wait.await.ok();
        }
        self.lanes.iter().map(|lane| lane.sent_count()).sum()
    }

    async fn answered_through(&self, sent: u64) {
        self.until(|route| route.lanes.iter().map(|lane| lane.answered_count()).sum::<u64>() >= sent).await;
    }

    async fn settled_through(&self, passed: &[Passed]) {
        let is_settled = |route: &Self| {
            let mut lanes = route.lanes.iter().zip(passed);
            lanes.all(|(lane, passed)| lane.answered_count() >= passed.sent)
        };
        self.until(is_settled).await;
    }

    /// Until this is so; looked at after each answer of the store.
    async fn until(&self, is_so: impl Fn(&Self) -> bool) {
        loop {
            let answered = self.answered.notified();
            if is_so(self) {
                return;
            }
            answered.await;
        }
    }

    fn stopped(&self) -> RouteError {
        RouteError::Stopped(self.name.clone())
    }
}

fn swapped(floor: Offset, passed: Vec<Passed>, begun: Instant) -> Swapped {
    let after = |passed: &Passed| passed.last.map(|last| Offset(last.0 + 1));
    let offset = passed.iter().filter_map(after).fold(floor, Offset::max);
    let drained = passed.iter().map(|passed| passed.underway).sum();
    let digests = |of: fn(&Passed) -> &Vec<Digest>| passed.first().map(|passed| of(passed).clone()).unwrap_or_default();
    let (before, serving) = (digests(|passed| &passed.before), digests(|passed| &passed.serving));
    let mut served = Vec::new();
    for passed in passed {
        crate::stats::add_all(&mut served, &passed.served);
    }
    Swapped { offset, drained, took: begun.elapsed(), before, serving, served }
}
