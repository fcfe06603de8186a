//! Routes: from a queue, through a condition and a chain of plugins, to subjects.
//!
//! A route is a named subscription of its queue. What it makes of a message (outputs, and the settlement of the input)
//! is one commit of the store, so that between queues of one router each message takes effect exactly once.
//!
//! Deliberately not here: WebAssembly (plugins are seen through [`quipu_runtime::Plugin`]), the network, and any thread
//! of the asynchronous runtime: plugins run on the [workers].

mod chain;
pub mod condition;
mod keys;
mod lane;
mod outputs;
mod route;
mod stats;
mod template;
mod work;
mod workers;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use quipu_queue::{Start, Store, SubscribeError};
use quipu_runtime::Plugin;

pub use condition::{Condition, ConditionError};
pub use stats::{PluginInfo, Reasons, RouteInfo, TimesNs};
pub use template::{Template, TemplateError};
pub use workers::WORKERS_DEFAULT;

pub use route::{PREFETCH_BYTES, prefetch};
pub use work::SLICE_BYTES;

use route::Route;
use workers::{Line, Workers};

/// Messages of one route that are worked on at once, at most.
pub const LANES_MAX: usize = 64;

/// What a route is.
pub struct RouteSettings {
    /// Unique; in headers, logs and the name of its subscription.
    pub name: String,
    /// The queue it reads.
    pub from: String,
    /// Where it starts the first time.
    pub start: Start,
    /// What is for it; none: everything.
    pub when: Option<Condition>,
    /// Where the rest goes; empty: it is settled and counted as filtered.
    pub otherwise: Vec<Template>,
    /// A chain of plugins, in order, for each lane: 1 to 64 of them, and so many messages are worked on at once.
    pub plugins: Vec<Vec<Box<dyn Plugin>>>,
    /// Which messages keep theirs.
    pub order: Order,
    /// Where messages go that no plugin routed.
    pub to: Vec<Template>,
    /// What happens on a fault or a retry.
    pub on_error: OnError,
}

/// How often a message is tried, and what comes then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnError {
    /// Attempts before the message is dead-lettered. Default 5.
    pub attempts: u32,
    /// Milliseconds before the second attempt, the third, …; the last one goes on. Default 100 ms, 1 s, 10 s.
    pub backoff_ms: Vec<u64>,
    /// The queue for what failed for good; none: that of the queue it came from. Made where it is not there.
    pub then: Option<String>,
}

/// Which messages of a route keep their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Those of one key: one that failed is tried again, and settled, before the next of its key. Those without a key
    /// are begun in order, in one lane; one that failed is overtaken.
    #[default]
    Key,
    /// None: each goes to the next lane.
    None,
}

impl Order {
    /// Its name in listings and configurations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::None => "none",
        }
    }
}

impl Default for OnError {
    fn default() -> Self {
        Self { attempts: 5, backoff_ms: vec![100, 1_000, 10_000], then: None }
    }
}

/// Why a route cannot start.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// Its queue.
    #[error("route {route:?}: {source}")]
    Subscribe {
        /// The route.
        route: String,
        /// What is wrong.
        source: SubscribeError,
    },
    /// The name is taken.
    #[error("there is a route {0:?} already")]
    Exists(String),
    /// Too few or too many chains of plugins.
    #[error("route {route:?} has {lanes} lanes; 1 to {LANES_MAX} are allowed")]
    Lanes {
        /// The route.
        route: String,
        /// How many.
        lanes: usize,
    },
}

/// The routes of a router, and the threads that they run on.
pub struct Router {
    store: Store,
    line: Line,
    workers: Mutex<Option<Workers>>,
    routes: Mutex<BTreeMap<String, Arc<Route>>>,
}

impl Router {
    /// A router without routes, with so many worker threads (at least 2, so that no route holds them all).
    ///
    /// # Errors
    ///
    /// Where the system gives no thread.
    pub fn start(store: Store, workers: usize) -> std::io::Result<Self> {
        let workers = Workers::start(workers.max(2))?;
        Ok(Self { store, line: workers.handle(), workers: Mutex::new(Some(workers)), routes: Mutex::default() })
    }

    /// Starts a route.
    ///
    /// # Errors
    ///
    /// [`RouteError`].
    pub async fn add(&self, settings: RouteSettings) -> Result<(), RouteError> {
        let name = settings.name.clone();
        if self.routes.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&name) {
            return Err(RouteError::Exists(name));
        }
        let lanes = settings.plugins.len();
        if !(1..=LANES_MAX).contains(&lanes) {
            return Err(RouteError::Lanes { route: name, lanes });
        }
        let started = Route::start(&self.store, self.line.clone(), settings).await;
        let route = started.map_err(|source| RouteError::Subscribe { route: name.clone(), source })?;
        match self.routes.lock().unwrap_or_else(PoisonError::into_inner).entry(name) {
            // Another of this name was faster.
            Entry::Occupied(taken) => Err(RouteError::Exists(taken.key().clone())),
            Entry::Vacant(free) => {
                free.insert(route);
                Ok(())
            }
        }
    }

    /// What the routes did so far, by name.
    pub fn routes(&self) -> Vec<RouteInfo> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner).values().map(|route| route.info()).collect()
    }

    /// Finishes the messages that plugins have in hand and gives the others back. Blocks as long as a plugin may run.
    pub fn stop(&self) {
        let routes = std::mem::take(&mut *self.routes.lock().unwrap_or_else(PoisonError::into_inner));
        routes.values().for_each(|route| route.stop());
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(workers) = workers {
            workers.stop();
        }
    }
}
