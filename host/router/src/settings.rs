//! What a route is, and what it can be changed to while it runs.

use std::time::Duration;

use quipu_queue::{Offset, Start, SubscribeError};
use quipu_runtime::{Digest, Plugin};

use crate::condition::Condition;
use crate::stats::PluginInfo;
use crate::template::Template;

/// Messages of one route that are worked on at once, at most.
pub const LANES_MAX: usize = 64;
/// Different messages in a row that one plugin faults on before it counts as broken, where nothing else is said.
pub const BROKEN_AFTER: u32 = 10;
/// The most that can be said there.
pub const BROKEN_AFTER_MAX: u32 = 1_000;

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
    /// What happens when a plugin fails on everything.
    pub on_broken: OnBroken,
    /// Different messages in a row that make it so; [`BROKEN_AFTER`] unless said.
    pub broken_after: u32,
    /// Why its chain is not there yet. It has its subscription then and takes nothing, until [`Router::replace_chain`] and
    /// [`Router::release`].
    ///
    /// [`Router::replace_chain`]: crate::Router::replace_chain
    /// [`Router::release`]: crate::Router::release
    pub held: Option<String>,
}

/// What of a route can be replaced while it runs.
pub struct ChainSettings {
    /// As in [`RouteSettings`].
    pub when: Option<Condition>,
    /// As in [`RouteSettings`].
    pub otherwise: Vec<Template>,
    /// As many chains as the route has lanes.
    pub plugins: Vec<Vec<Box<dyn Plugin>>>,
    /// As in [`RouteSettings`].
    pub to: Vec<Template>,
    /// As in [`RouteSettings`].
    pub on_error: OnError,
    /// As in [`RouteSettings`].
    pub on_broken: OnBroken,
    /// As in [`RouteSettings`].
    pub broken_after: u32,
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

/// What becomes of a route's messages once a plugin of it fails on everything, until another is deployed or the route is
/// released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnBroken {
    /// The route stands still; what it had goes back to its queue.
    #[default]
    Hold,
    /// The plugin is left out; its messages carry the header `quipu-bypassed`.
    Bypass,
    /// They are dead-lettered at once, without an attempt.
    DeadLetter,
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

/// What a replaced chain did last, and what took its place.
#[derive(Debug, Clone)]
pub struct Swapped {
    /// The first offset that the chain before had nothing of: it began no message from there on.
    pub offset: Offset,
    /// Messages that it had finished and that were not settled yet as lanes took the new one. They are settled now.
    pub drained: u64,
    /// From the call until all lanes had the new chain and that was settled.
    pub took: Duration,
    /// The plugins before.
    pub before: Vec<Digest>,
    /// The plugins now, as the lanes say.
    pub serving: Vec<Digest>,
    /// What those before did in all.
    pub served: Vec<PluginInfo>,
}

/// Why a route cannot start, change or stand still.
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
    /// The name is not taken.
    #[error("there is no route {0:?}")]
    Unknown(String),
    /// Too few or too many chains of plugins.
    #[error("route {route:?} has {lanes} lanes; 1 to {LANES_MAX} are allowed")]
    Lanes {
        /// The route.
        route: String,
        /// How many.
        lanes: usize,
    },
    /// A chain for another number of lanes.
    #[error("route {route:?} has {lanes} lanes, not {given}; remove it and add it to change that")]
    OtherLanes {
        /// The route.
        route: String,
        /// How many it has.
        lanes: usize,
        /// How many chains came.
        given: usize,
    },
    /// It cannot run before it has its chain.
    #[error("route {route:?} lacks its plugins: {reason}")]
    LacksChain {
        /// The route.
        route: String,
        /// Why they are not there.
        reason: String,
    },
    /// Its name is that of a route of the other kind.
    #[error("route {0:?} does not run as messages are published; remove it and add it to change that")]
    NotInline(String),
    /// A bug of the router's stopped it, or the router itself stops.
    #[error("route {0:?} has stopped; remove it and add it again")]
    Stopped(String),
}

impl RouteSettings {
    /// A route with one lane that does nothing with a queue's messages but settle them, until more is said.
    pub fn new(name: impl Into<String>, from: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            from: from.into(),
            start: Start::First,
            when: None,
            otherwise: Vec::new(),
            plugins: vec![Vec::new()],
            order: Order::Key,
            to: Vec::new(),
            on_error: OnError::default(),
            on_broken: OnBroken::Hold,
            broken_after: BROKEN_AFTER,
            held: None,
        }
    }
}

impl ChainSettings {
    /// As [`RouteSettings::new`], with these chains.
    pub fn new(plugins: Vec<Vec<Box<dyn Plugin>>>) -> Self {
        Self {
            when: None,
            otherwise: Vec::new(),
            plugins,
            to: Vec::new(),
            on_error: OnError::default(),
            on_broken: OnBroken::Hold,
            broken_after: BROKEN_AFTER,
        }
    }
}

impl Default for OnError {
    fn default() -> Self {
        Self { attempts: 5, backoff_ms: vec![100, 1_000, 10_000], then: None }
    }
}

impl OnBroken {
    /// Its name in listings and configurations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Bypass => "bypass",
            Self::DeadLetter => "dead-letter",
        }
    }
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
