//! One inline route: its lanes, and what is done to it while it runs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use quipu_protocol::{Message, Subject, SubjectPattern};
use quipu_queue::Offset;
use quipu_runtime::{Digest, Fault, Plugin};

use super::lane::{InlineLane, Made};
use super::{Admitted, InlineSettings, RETRY_LATER_MS, Refusal};
use crate::breaker::{Breaker, Broke};
use crate::lane::LaneInfo;
use crate::route::{Held, Standing, breaker, lock, servings};
use crate::settings::{ChainSettings, RouteError, Swapped};
use crate::stats::{RouteInfo, add_all};
use crate::told::Told;
use crate::workers::{Line, Place};

/// One inline route.
pub(crate) struct InlineRoute {
    name: String,
    on: Vec<SubjectPattern>,
    place: Arc<Place>,
    lanes: Vec<Arc<InlineLane>>,
    /// Whether it refuses everything for now.
    stands_still: AtomicBool,
    breaker: Mutex<Arc<Breaker>>,
    /// Its plugins' files.
    serving: Mutex<Vec<Digest>>,
    standing: Mutex<Standing>,
    info: Mutex<RouteInfo>,
    pub(super) told: Told,
    /// Somebody changes it.
    control: tokio::sync::Mutex<()>,
}

impl InlineRoute {
    pub(crate) fn new(line: &Line, told: &Told, settings: InlineSettings) -> Arc<Self> {
        let InlineSettings { name, on, when, otherwise, plugins, to, on_broken, broken_after, held } = settings;
        let chain =
            ChainSettings { when, otherwise, plugins, to, on_broken, broken_after, on_error: Default::default() };
        let info = RouteInfo {
            name: name.clone(),
            on: on.iter().map(|pattern| pattern.as_str().to_owned()).collect(),
            parallel: chain.plugins.len(),
            order: "none",
            ..RouteInfo::default()
        };
        let info = Mutex::new(info.with_chain(&chain));
        let (place, breaker, serving) = (line.place(), Arc::new(breaker(&chain)), digests(&chain));
        Arc::new_cyclic(|this: &Weak<Self>| Self {
            lanes: servings(&name, chain, &breaker)
                .into_iter()
                .map(|serving| InlineLane::new(this.clone(), place.clone(), serving))
                .collect(),
            name,
            on,
            place,
            stands_still: AtomicBool::new(held.is_some()),
            breaker: Mutex::new(breaker.clone()),
            serving: Mutex::new(serving),
            standing: Mutex::new(Standing { held: held.map(Held::without_chain), ..Standing::default() }),
            info,
            told: told.clone(),
            control: tokio::sync::Mutex::default(),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The router's own subjects are outside every pattern that does not name them.
    pub(super) fn is_for(&self, subject: &Subject) -> bool {
        self.on.iter().any(|pattern| pattern.matches(subject))
    }

    /// Makes its one attempt at each of these, in order, or at as many as outputs are not too much of. None where it has
    /// ended: another may have its place.
    pub(super) async fn ask(&self, messages: Vec<Message>) -> Option<Vec<Admitted>> {
        if self.stands_still.load(Ordering::Acquire) {
            let has_ended = lock(&self.standing).stopping;
            return (!has_ended).then(|| self.refuse(messages.len()));
        }
        let lane = self.lanes.iter().min_by_key(|lane| lane.waiting())?;
        lane.ask(messages).await.ok()
    }

    /// Has publishers try again later, so many times.
    pub(super) fn refuse(&self, count: usize) -> Vec<Admitted> {
        let reason = self.why_not().unwrap_or_else(|| "it stops".into());
        let refusal = Refusal::RetryLater { route: self.name.clone(), ms: RETRY_LATER_MS, reason };
        let refused: Vec<Admitted> = (0..count).map(|_| Err(refusal.clone())).collect();
        lock(&self.info).retried += count as u64;
        refused
    }

    /// Why it takes nothing now.
    pub(super) fn why_not(&self) -> Option<String> {
        let (state, reason) = lock(&self.standing).said();
        (state != "running").then(|| reason.map_or_else(|| state.to_owned(), |reason| format!("{state}: {reason}")))
    }

    pub(super) fn note(&self, plugin: &dyn Plugin, fault: &Fault, now_ms: u64) {
        self.told.traps.add(&self.name, (plugin.name(), plugin.digest()), fault, now_ms);
    }

    pub(super) fn count(&self, answer: &Admitted, made: &Made) {
        let mut info = lock(&self.info);
        info.attempts += 1;
        match answer {
            Ok(admission) => {
                info.outputs += admission.outputs.len() as u64;
                info.when_errors += u64::from(made.when_error);
                match &made.drop_reason {
                    Some(reason) => {
                        info.dropped += 1;
                        info.drop_reasons.count(reason);
                    }
                    None if made.filtered => {
                        info.filtered += 1;
                        info.set_aside += u64::from(admission.taken);
                    }
                    None => info.forwarded += 1,
                }
            }
            Err(Refusal::RetryLater { .. }) => info.retried += 1,
            Err(Refusal::Reject { .. }) => info.rejected += 1,
            Err(Refusal::Failed { .. }) => info.failed += 1,
        }
    }

    pub(super) fn broke(&self, broke: &Broke, breaker: &Breaker) {
        let reason = broke.reason(breaker);
        tracing::error!(route = self.name, reason, "a plugin is broken");
        lock(&self.standing).broken = Some(reason);
        if breaker.stands_still() {
            self.stands_still.store(true, Ordering::Release);
        }
    }

    pub(crate) fn info(&self) -> RouteInfo {
        let mut sum = LaneInfo::default();
        self.lanes.iter().for_each(|lane| lane.add_to(&mut sum));
        let (state, state_reason) = lock(&self.standing).said();
        let busy_ns = u64::try_from(self.place.used().as_nanos()).unwrap_or(u64::MAX);
        RouteInfo { busy_ns, plugins: sum.plugins, state, state_reason, ..lock(&self.info).clone() }
    }

    pub(crate) async fn replace_chain(self: &Arc<Self>, chain: ChainSettings) -> Result<Swapped, RouteError> {
        let (lanes, given) = (self.lanes.len(), chain.plugins.len());
        if lanes != given {
            return Err(RouteError::OtherLanes { route: self.name.clone(), lanes, given });
        }
        let _turn = self.control.lock().await;
        let begun = Instant::now();
        {
            let mut info = lock(&self.info);
            *info = info.clone().with_chain(&chain);
        }
        let (breaker, serving) = (Arc::new(breaker(&chain)), digests(&chain));
        let servings = servings(&self.name, chain, &breaker);
        *lock(&self.breaker) = breaker;
        let before = std::mem::replace(&mut *lock(&self.serving), serving.clone());
        let waits: Vec<_> = self.lanes.iter().zip(servings).map(|(lane, serving)| lane.swap(serving)).collect();
        let mut served = Vec::new();
        for wait in waits {
            add_all(&mut served, &wait.await.map_err(|_| RouteError::Stopped(self.name.clone()))?);
        }
        self.mend(false);
        Ok(Swapped { offset: Offset(0), drained: 0, took: begun.elapsed(), before, serving, served })
    }

    pub(crate) async fn hold(&self, held: Held) {
        let _turn = self.control.lock().await;
        tracing::warn!(route = self.name, reason = held.reason, "a route is held");
        lock(&self.standing).hold(held);
        self.stands_still.store(true, Ordering::Release);
        self.idle().await;
    }

    pub(crate) async fn release(&self) -> Result<(), RouteError> {
        let _turn = self.control.lock().await;
        if let Some(reason) = self.lacks_chain() {
            return Err(RouteError::LacksChain { route: self.name.clone(), reason });
        }
        lock(&self.breaker).reset();
        self.mend(true);
        Ok(())
    }

    /// Why its chain is not there, where it is not.
    pub(crate) fn lacks_chain(&self) -> Option<String> {
        lock(&self.standing).lacks().map(str::to_owned)
    }

    /// Has publishers try again later, or no longer.
    pub(crate) fn set_paused(&self, paused: bool) {
        let mut standing = lock(&self.standing);
        standing.paused = paused;
        self.follow(&standing);
    }

    pub(crate) fn is_paused(&self) -> bool {
        lock(&self.standing).paused
    }

    /// Nothing comes any more: until all that came is through.
    pub(crate) async fn end(&self) {
        let _turn = self.control.lock().await;
        lock(&self.standing).stopping = true;
        // Who comes late goes to the one that has its place.
        self.stands_still.store(true, Ordering::Release);
        self.idle().await;
        self.close();
    }

    pub(crate) fn close(&self) {
        lock(&self.standing).stopping = true;
        self.stands_still.store(true, Ordering::Release);
        self.lanes.iter().for_each(|lane| lane.close());
    }

    pub(super) fn fail(&self) {
        tracing::error!(route = self.name, "a bug in the router: this route stands still until it is added anew");
        lock(&self.standing).failed = true;
        self.close();
    }

    /// Runs again, unless it is held.
    fn mend(&self, release: bool) {
        let mut standing = lock(&self.standing);
        standing.broken = None;
        standing.has_chain();
        if release {
            standing.held = None;
        }
        self.follow(&standing);
    }

    /// Stands still as this says.
    fn follow(&self, standing: &Standing) {
        let is_broken = standing.broken.is_some() && lock(&self.breaker).stands_still();
        let stands_still = standing.held.is_some() || standing.stopping || standing.paused || is_broken;
        self.stands_still.store(stands_still, Ordering::Release);
    }

    async fn idle(&self) {
        let waits: Vec<_> = self.lanes.iter().map(|lane| lane.ask(Vec::new())).collect();
        for wait in waits {
            // One that has ended is idle too.
            wait.await.ok();
        }
    }
}

fn digests(chain: &ChainSettings) -> Vec<Digest> {
    let first = chain.plugins.first().map(Vec::as_slice).unwrap_or_default();
    first.iter().map(|plugin| *plugin.digest()).collect()
}
