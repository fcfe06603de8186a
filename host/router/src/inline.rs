//! Inline routes: they run on messages as these are published, before anything of them is stored.
//!
//! One attempt, whose outputs go into the same commit as the message itself. A refusal goes to the publisher, and
//! nothing of the message is stored then. Queues that are bound to the subject get the message as it was published: a
//! route adds to that, and takes nothing away but by refusing.

mod lane;
mod route;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use quipu_protocol::{Message, Subject, SubjectPattern};
use quipu_queue::Output;
use quipu_runtime::{Fault, Plugin};

use crate::condition::Condition;
use crate::settings::{BROKEN_AFTER, OnBroken};
use crate::template::Template;
pub(crate) use route::InlineRoute;

/// What a publisher waits at the least where a route gives no time, in milliseconds.
pub const RETRY_LATER_MS: u64 = 1_000;

/// What an inline route is.
pub struct InlineSettings {
    /// Unique among all routes.
    pub name: String,
    /// Which messages it runs on.
    pub on: Vec<SubjectPattern>,
    /// As of other routes: which of them it is for.
    pub when: Option<Condition>,
    /// Where copies of the rest go; empty: nowhere.
    pub otherwise: Vec<Template>,
    /// A chain for each lane.
    pub plugins: Vec<Vec<Box<dyn Plugin>>>,
    /// Where messages go that no plugin routed.
    pub to: Vec<Template>,
    /// What happens when a plugin fails on everything. To hold is to have publishers try again later; to dead-letter, to
    /// reject.
    pub on_broken: OnBroken,
    /// As of other routes.
    pub broken_after: u32,
    /// Why its chain is not there yet: publishers are to try again later.
    pub held: Option<String>,
}

/// The inline routes of a router.
#[derive(Default)]
pub struct Inline {
    /// Whether there are any: asked for each message that is published.
    any: AtomicBool,
    /// By name.
    routes: RwLock<Arc<[Arc<InlineRoute>]>>,
}

/// What the inline routes made of a message.
pub type Admitted = Result<Admission, Refusal>;

/// A message that may be stored.
#[derive(Debug, Default)]
pub struct Admission {
    /// What goes into its commit; those without a payload have that of the message.
    pub outputs: Vec<Output>,
    /// Whether a route took it, so that no queue needs to.
    pub taken: bool,
    /// Whether a plugin dropped it. Its route sends only what was emitted.
    pub dropped: bool,
}

/// Messages that inline routes are asked of.
pub struct Asking {
    routes: Vec<Arc<InlineRoute>>,
    asked: VecDeque<Asked>,
}

/// A message, with what the first so many routes made of it.
struct Asked {
    message: Message,
    admitted: Admitted,
    routes: usize,
}

/// Why a message is not taken. Nothing of it may be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// For good.
    Reject {
        /// The route.
        route: String,
        /// What its plugin said.
        reason: String,
    },
    /// For now.
    RetryLater {
        /// The route.
        route: String,
        /// Milliseconds to wait.
        ms: u64,
        /// Why.
        reason: String,
    },
    /// A plugin failed on it.
    Failed {
        /// The route.
        route: String,
        /// Name and digest.
        plugin: String,
        /// What happened.
        fault: Fault,
    },
}

impl Inline {
    /// Whether there is an inline route. Costs next to nothing.
    pub fn is_any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Whether an inline route runs on messages of this subject. Costs next to nothing where there is none.
    pub fn is_for(&self, subject: &Subject) -> bool {
        self.is_any() && self.routes().iter().any(|route| route.is_for(subject))
    }

    /// Asks the routes that there are now of messages: see [`Asking::next`].
    pub fn ask(&self, messages: Vec<Message>) -> Asking {
        let asked = |message| Asked { message, admitted: Ok(Admission::default()), routes: 0 };
        Asking { routes: self.routes().to_vec(), asked: messages.into_iter().map(asked).collect() }
    }

    pub(crate) fn routes(&self) -> Arc<[Arc<InlineRoute>]> {
        self.routes.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn route(&self, name: &str) -> Option<Arc<InlineRoute>> {
        self.routes().iter().find(|route| route.name() == name).cloned()
    }

    /// Takes one in; not where the name is taken.
    pub(crate) fn add(&self, route: Arc<InlineRoute>) -> bool {
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        let is_free = routes.iter().all(|other| other.name() != route.name());
        if is_free {
            let mut all: Vec<_> = routes.iter().cloned().chain([route]).collect();
            all.sort_by(|a, b| a.name().cmp(b.name()));
            *routes = all.into();
            self.any.store(true, Ordering::Release);
        }
        is_free
    }

    /// Puts one in the place of that of its name, in one step: no message finds neither. None where there is none.
    pub(crate) fn replace(&self, route: &Arc<InlineRoute>) -> Option<Arc<InlineRoute>> {
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        let before = routes.iter().find(|other| other.name() == route.name()).cloned()?;
        let now = |other: &Arc<InlineRoute>| if other.name() == route.name() { route.clone() } else { other.clone() };
        *routes = routes.iter().map(now).collect();
        Some(before)
    }

    pub(crate) fn remove(&self, name: &str) -> Option<Arc<InlineRoute>> {
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        let removed = routes.iter().find(|route| route.name() == name).cloned()?;
        *routes = routes.iter().filter(|route| route.name() != name).cloned().collect();
        self.any.store(!routes.is_empty(), Ordering::Release);
        Some(removed)
    }
}

impl Asking {
    /// What all routes made of the messages that come next: one at the least, as long as there are any. They run on the
    /// workers of plugins; each message by itself, those of one call in order, and once on each. Waits as long as there is
    /// other work. `inline` are the routes that it began with, where one may have taken another's place since.
    ///
    /// A route that has made a mebibyte of outputs stops there for now; what other routes made of the rest is kept.
    ///
    /// Cancelled, what was begun is finished and thrown away, and what is left of these messages must not be asked for.
    pub async fn next(&mut self, inline: &Inline) -> Vec<Admitted> {
        let mut ready = self.asked.len();
        for n in 0..self.routes.len() {
            let mut made = self.ask(n, ready, inline).await.into_iter();
            let mut reached = 0;
            for asked in self.asked.iter_mut().take(ready) {
                if asked.is_for(n, &self.routes[n]) {
                    match (&mut asked.admitted, made.next()) {
                        (Ok(all), Some(Ok(one))) => all.add(one),
                        (slot, Some(refused)) => *slot = refused,
                        (_, None) => break,
                    }
                }
                asked.routes = asked.routes.max(n + 1);
                reached += 1;
            }
            ready = reached;
        }
        self.asked.drain(..ready).map(|asked| asked.admitted).collect()
    }

    /// What a route makes of those of the first messages that it is for and that have come as far.
    async fn ask(&mut self, n: usize, ready: usize, inline: &Inline) -> Vec<Admitted> {
        loop {
            let route = self.routes[n].clone();
            let meant = self.asked.iter().take(ready).filter(|asked| asked.is_for(n, &route));
            let meant: Vec<Message> = meant.map(|asked| asked.message.clone()).collect();
            if meant.is_empty() {
                return Vec::new();
            }
            let count = meant.len();
            match route.ask(meant).await {
                Some(made) => return made,
                None => match inline.route(route.name()).filter(|now| !Arc::ptr_eq(now, &route)) {
                    // Another took its place meanwhile.
                    Some(now) => self.routes[n] = now,
                    None => return route.refuse(count),
                },
            }
        }
    }

    /// Whether every message was answered.
    pub fn is_over(&self) -> bool {
        self.asked.is_empty()
    }
}

impl Asked {
    /// Whether it is this route's turn, and the route is for it.
    fn is_for(&self, n: usize, route: &InlineRoute) -> bool {
        self.routes == n && self.admitted.is_ok() && route.is_for(&self.message.subject)
    }
}

impl InlineSettings {
    /// A route with one lane that does nothing, until more is said.
    pub fn new(name: impl Into<String>, on: Vec<SubjectPattern>) -> Self {
        Self {
            name: name.into(),
            on,
            when: None,
            otherwise: Vec::new(),
            plugins: vec![Vec::new()],
            to: Vec::new(),
            on_broken: OnBroken::Hold,
            broken_after: BROKEN_AFTER,
            held: None,
        }
    }
}

impl Admission {
    fn add(&mut self, other: Self) {
        self.outputs.extend(other.outputs);
        self.taken |= other.taken;
        self.dropped |= other.dropped;
    }
}
