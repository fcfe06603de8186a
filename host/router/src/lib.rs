//! Routes: from a queue, through a condition and a chain of plugins, to subjects.
//!
//! A route is a named subscription of its queue. What it makes of a message (outputs, and the settlement of the input)
//! is one commit of the store, so that between queues of one router each message takes effect exactly once. An
//! [inline](Inline) route runs as messages are published, and its outputs go into their commit.
//!
//! Deliberately not here: WebAssembly (plugins are seen through [`quipu_runtime::Plugin`]), the network, and any thread
//! of the asynchronous runtime: plugins run on the [workers].

mod breaker;
mod chain;
pub mod condition;
mod explain;
mod inline;
mod keys;
mod lane;
mod letter;
mod outputs;
mod route;
mod settings;
mod stats;
mod template;
mod told;
mod trace;
mod traps;
mod work;
mod workers;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex};

use quipu_queue::Store;

pub use condition::{Condition, ConditionError};
pub use explain::{Explain, Explained};
pub use inline::{Admission, Admitted, Asking, Inline, InlineSettings, RETRY_LATER_MS, Refusal};
pub use settings::{
    BROKEN_AFTER, BROKEN_AFTER_MAX, ChainSettings, LANES_MAX, OnBroken, OnError, Order, RouteError, RouteSettings,
    Swapped,
};
pub use stats::{PluginInfo, Reasons, RouteInfo, TIME_BUCKETS, TimesNs, Verdicts};
pub use template::{Template, TemplateError};
pub use trace::{Event, Hop, TRACE_BYTES, TraceInfo, TraceLog, TraceMode, What};
pub use traps::{TRAPS_MAX, TrapInfo};
pub use workers::WORKERS_DEFAULT;

pub use route::{PREFETCH_BYTES, prefetch};
pub use work::SLICE_BYTES;

use inline::InlineRoute;
use route::{Held, Route, lock};
use told::Told;
use workers::{Line, Workers};

/// The routes of a router, and the threads that they run on.
pub struct Router {
    store: Store,
    line: Line,
    workers: Mutex<Option<Workers>>,
    routes: Mutex<BTreeMap<String, Arc<Route>>>,
    inline: Arc<Inline>,
    told: Told,
}

impl Router {
    /// A router without routes, with so many worker threads (at least 2, so that no route holds them all).
    ///
    /// # Errors
    ///
    /// Where the system gives no thread.
    pub fn start(store: Store, workers: usize) -> std::io::Result<Self> {
        let workers = Workers::start(workers.max(2))?;
        let (line, workers) = (workers.handle(), Mutex::new(Some(workers)));
        Ok(Self { store, line, workers, routes: Mutex::default(), inline: Arc::default(), told: Told::default() })
    }

    /// Starts a route.
    ///
    /// # Errors
    ///
    /// [`RouteError`].
    pub async fn add(&self, settings: RouteSettings) -> Result<(), RouteError> {
        let name = settings.name.clone();
        self.check_new(&name, settings.plugins.len())?;
        let route = Route::start(&self.store, &self.line, &self.told, settings).await?;
        match lock(&self.routes).entry(name) {
            // Another of this name was faster.
            Entry::Occupied(taken) => Err(RouteError::Exists(taken.key().clone())),
            Entry::Vacant(free) => {
                free.insert(route);
                Ok(())
            }
        }
    }

    /// Starts an inline route: messages of its subjects that are published from now on go through it.
    ///
    /// # Errors
    ///
    /// [`RouteError`].
    pub fn add_inline(&self, settings: InlineSettings) -> Result<(), RouteError> {
        let name = settings.name.clone();
        self.check_new(&name, settings.plugins.len())?;
        match self.inline.add(InlineRoute::new(&self.line, &self.told, settings)) {
            true => Ok(()),
            false => Err(RouteError::Exists(name)),
        }
    }

    /// Puts an inline route in the place of the one of its name, in one step: every message goes through the one or the
    /// other. One that is paused stays so. What the one before has in hand is finished before this returns; cancelled, all
    /// the same. What it did comes back.
    ///
    /// # Errors
    ///
    /// [`RouteError`]; the one before stays.
    pub async fn replace_inline(&self, settings: InlineSettings) -> Result<RouteInfo, RouteError> {
        let (name, lanes) = (settings.name.clone(), settings.plugins.len());
        check_lanes(&name, lanes)?;
        let route = InlineRoute::new(&self.line, &self.told, settings);
        let before = self.inline.route(&name).ok_or_else(|| RouteError::NotInline(name.clone()))?;
        route.set_paused(before.is_paused());
        let before = self.inline.replace(&route).ok_or_else(|| RouteError::NotInline(name.clone()))?;
        let ending = tokio::spawn(async move {
            before.end().await;
            before.info()
        });
        ending.await.map_err(|_| RouteError::Stopped(name))
    }

    /// The inline routes, for those who take in what is published.
    pub fn inline(&self) -> Arc<Inline> {
        self.inline.clone()
    }

    /// Ends a route: what plugins have in hand is finished and settled, the rest goes back to the queue. Its subscription
    /// stays. Takes as long as a plugin may run; cancelled, the route is gone and goes on ending.
    ///
    /// # Errors
    ///
    /// [`RouteError::Unknown`].
    pub async fn remove(&self, name: &str) -> Result<RouteInfo, RouteError> {
        let ending = if let Some(route) = self.inline.remove(name) {
            tokio::spawn(async move {
                route.end().await;
                route.info()
            })
        } else {
            let route = lock(&self.routes).remove(name).ok_or_else(|| RouteError::Unknown(name.into()))?;
            tokio::spawn(async move {
                route.end().await;
                route.info()
            })
        };
        ending.await.map_err(|_| RouteError::Stopped(name.into()))
    }

    /// Gives every lane of a route, inline or not, a new chain, each between two messages: no message is lost, none is in two chains at
    /// once. A broken route runs again; a held one stays held. Cancelled, the lanes get it all the same.
    ///
    /// # Errors
    ///
    /// [`RouteError`]; the chain before stays, except where the route has stopped.
    pub async fn replace_chain(&self, name: &str, chain: ChainSettings) -> Result<Swapped, RouteError> {
        match self.inline.route(name) {
            Some(route) => {
                let changing = tokio::spawn(async move { route.replace_chain(chain).await });
                changing.await.unwrap_or_else(|_| Err(RouteError::Stopped(name.into())))
            }
            None => self.route(name)?.replace_chain(chain).await,
        }
    }

    /// Lets a route stand still: what plugins have in hand is finished, the rest goes back to the queue at once. It keeps
    /// its place until [`Router::release`].
    ///
    /// # Errors
    ///
    /// [`RouteError`].
    pub async fn hold(&self, name: &str, reason: &str) -> Result<(), RouteError> {
        self.hold_for(name, Held::by(reason.to_owned())).await
    }

    /// As [`Router::hold`], because the chain that it is to have is not there: no release lets it run before
    /// [`Router::replace_chain`].
    ///
    /// # Errors
    ///
    /// [`RouteError`].
    pub async fn hold_without_chain(&self, name: &str, reason: &str) -> Result<(), RouteError> {
        self.hold_for(name, Held::without_chain(reason.to_owned())).await
    }

    async fn hold_for(&self, name: &str, held: Held) -> Result<(), RouteError> {
        match self.inline.route(name) {
            Some(route) => {
                route.hold(held).await;
                Ok(())
            }
            None => self.route(name)?.hold(held).await,
        }
    }

    /// Lets a route run that was held or broken; nothing happens to one that runs.
    ///
    /// # Errors
    ///
    /// [`RouteError`]: [`RouteError::LacksChain`] where it would run without its plugins.
    pub async fn release(&self, name: &str) -> Result<(), RouteError> {
        match self.inline.route(name) {
            Some(route) => route.release().await,
            None => self.route(name)?.release().await,
        }
    }

    /// Why the chain of a route is not there; none where it is, or there is no such route.
    pub fn lacks_chain(&self, name: &str) -> Option<String> {
        match self.inline.route(name) {
            Some(route) => route.lacks_chain(),
            None => self.route(name).ok()?.lacks_chain(),
        }
    }

    /// Says whether the store has a route's subscription paused: for its listing alone. An inline route has none: it has
    /// publishers try again later until it is told otherwise.
    ///
    /// # Errors
    ///
    /// [`RouteError::Unknown`].
    pub fn set_paused(&self, name: &str, paused: bool) -> Result<(), RouteError> {
        match self.inline.route(name) {
            Some(route) => route.set_paused(paused),
            None => self.route(name)?.set_paused(paused),
        }
        Ok(())
    }

    /// What the routes did so far, by name.
    pub fn routes(&self) -> Vec<RouteInfo> {
        let mut routes: Vec<RouteInfo> = lock(&self.routes).values().map(|route| route.info()).collect();
        routes.extend(self.inline.routes().iter().map(|route| route.info()));
        routes.sort_by(|a, b| a.name.cmp(&b.name));
        routes
    }

    /// What plugins failed on so far, the most frequent first; at most [`TRAPS_MAX`].
    pub fn traps(&self) -> Vec<TrapInfo> {
        self.told.traps.list()
    }

    /// What became of messages; off until it is configured.
    pub fn trace(&self) -> Arc<TraceLog> {
        self.told.trace.clone()
    }

    /// Finishes the messages that plugins have in hand and gives the others back. Blocks as long as a plugin may run.
    pub fn stop(&self) {
        let routes = std::mem::take(&mut *lock(&self.routes));
        routes.values().for_each(|route| route.stop());
        let workers = lock(&self.workers).take();
        if let Some(workers) = workers {
            workers.stop();
        }
        routes.values().for_each(|route| route.close());
        self.inline.routes().iter().for_each(|route| route.close());
    }

    fn check_new(&self, name: &str, lanes: usize) -> Result<(), RouteError> {
        if lock(&self.routes).contains_key(name) || self.inline.route(name).is_some() {
            return Err(RouteError::Exists(name.to_owned()));
        }
        check_lanes(name, lanes)
    }

    fn route(&self, name: &str) -> Result<Arc<Route>, RouteError> {
        lock(&self.routes).get(name).cloned().ok_or_else(|| RouteError::Unknown(name.into()))
    }
}

fn check_lanes(name: &str, lanes: usize) -> Result<(), RouteError> {
    match (1..=LANES_MAX).contains(&lanes) {
        true => Ok(()),
        false => Err(RouteError::Lanes { route: name.to_owned(), lanes }),
    }
}
