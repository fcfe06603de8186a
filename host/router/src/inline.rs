//! Inline routes: they run on messages as these are published, before anything of them is stored.
//!
//! One attempt, whose outputs go into the same commit as the message itself. A refusal goes to the publisher, and
//! nothing of the message is stored then. Queues that are bound to the subject get the message as it was published: a
//! route adds to that, and takes nothing away but by refusing.

mod lane;
mod route;

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

    /// Runs the routes on messages, on the workers of plugins; each message by itself, those of one call in order. Waits
    /// as long as there is other work.
    ///
    /// Past a mebibyte of outputs it comes back with what it has, one at least: the rest is to be asked again. A route
    /// may see a message twice then, where another one behind it made so much.
    ///
    /// Cancelled, it forgets them; what was begun is finished and thrown away.
    pub async fn admit(&self, messages: Vec<Message>) -> Vec<Admitted> {
        let mut admitted: Vec<Admitted> = messages.iter().map(|_| Ok(Admission::default())).collect();
        for route in self.routes().iter() {
            let mut route = route.clone();
            loop {
                let is_meant = |n: &usize| admitted[*n].is_ok() && route.is_for(&messages[*n].subject);
                let meant: Vec<usize> = (0..admitted.len()).filter(is_meant).collect();
                if meant.is_empty() {
                    break;
                }
                let made = match route.ask(meant.iter().map(|n| messages[*n].clone()).collect()).await {
                    Some(made) => made,
                    None => match self.route(route.name()).filter(|now| !Arc::ptr_eq(now, &route)) {
                        // Another took its place meanwhile.
                        Some(now) => {
                            route = now;
                            continue;
                        }
                        None => route.refuse(meant.len()),
                    },
                };
                merge(&mut admitted, &meant, made);
                break;
            }
        }
        admitted
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

/// Adds what a route made of these messages, or of the first of them; those behind are not admitted then.
fn merge(admitted: &mut Vec<Admitted>, meant: &[usize], made: Vec<Admitted>) {
    if let Some(first_left) = meant.get(made.len()) {
        admitted.truncate(*first_left);
    }
    for (n, made) in meant.iter().zip(made) {
        match (&mut admitted[*n], made) {
            (Ok(all), Ok(one)) => all.add(one),
            (slot, made) => *slot = made,
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
