//! What a running router consists of, as sessions see it.

use std::sync::Arc;

use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use quipu_queue::Store;
use quipu_router::Router;

use crate::access::Access;
use crate::config::{Config, LimitsConfig};
use crate::listener::{CALLS_MAX, Ingest, Longer, Names, Parts};
use crate::live::Live;
use crate::plugins::figures::Figures;
use crate::plugins::{Plugins, metrics};

/// Messages that are explained or replayed at a time; the rest waits.
const TRIALS_MAX: usize = 2;

/// Shared by all sessions.
pub(crate) struct Services {
    /// The queues.
    pub(crate) store: Store,
    /// The routes.
    pub(crate) router: Arc<Router>,
    /// Its figures, ready to be exported.
    pub(crate) metrics: Registry,
    /// The configuration that it runs by.
    pub(crate) live: Live,
    /// Every version of every plugin, and how routes come to another.
    pub(crate) plugins: Arc<Plugins>,
    /// Who may do what.
    pub(crate) access: Arc<Access>,
    /// What may wait and be open at once.
    pub(crate) limits: LimitsConfig,
    /// What is being published.
    pub(crate) ingest: Arc<Ingest>,
    /// Who has which name.
    pub(crate) names: Names,
    pub(crate) publishers: Places,
    pub(crate) consumers: Places,
    pub(crate) requests: Places,
    /// For admin calls.
    pub(crate) calls: Semaphore,
    /// For plugins that are tried beside those at work.
    pub(crate) trials: Arc<Semaphore>,
    /// Admin calls that take longer than an answer may.
    pub(crate) longer: Longer,
    /// Answers that are larger than a frame.
    pub(crate) parts: Parts,
    /// Tells this run of the router from others, for those who count on from what it said before.
    pub(crate) life: String,
}

/// So many at a time.
pub(crate) struct Places {
    max: usize,
    free: Arc<Semaphore>,
}

impl Services {
    pub(crate) fn new(store: Store, router: Router, plugins: Arc<Plugins>, live: Live, access: Arc<Access>) -> Self {
        let (limits, router) = (live.config().limits.clone(), Arc::new(router));
        let gathered = router.clone();
        let metrics = metrics::registry(move || Figures::gather(&gathered));
        Self {
            live,
            store,
            router,
            metrics,
            plugins,
            access,
            ingest: Ingest::new(limits.ingest_bytes),
            names: Names::new(),
            publishers: Places::new(limits.publishers),
            consumers: Places::new(limits.consumers),
            requests: Places::new(limits.requests),
            calls: Semaphore::new(CALLS_MAX),
            trials: Arc::new(Semaphore::new(TRIALS_MAX)),
            longer: Longer::default(),
            parts: Parts::default(),
            life: uuid::Uuid::now_v7().to_string(),
            limits,
        }
    }
}

impl Services {
    /// The configuration that the router runs by now.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.live.config()
    }
}

impl Places {
    fn new(max: usize) -> Self {
        Self { max, free: Arc::new(Semaphore::new(max)) }
    }

    /// How many there are.
    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// One of them, until it is dropped, where one is left.
    pub(crate) fn take(&self) -> Option<OwnedSemaphorePermit> {
        self.free.clone().try_acquire_owned().ok()
    }
}

/// What a listing says of a plugin.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct PluginListing {
    pub(crate) name: String,
    /// A file, or `stock`.
    pub(crate) source: String,
    pub(crate) digest: String,
    pub(crate) size_bytes: usize,
    pub(crate) imports: Vec<String>,
    pub(crate) deadline_ms: u128,
    pub(crate) memory_bytes: usize,
    pub(crate) output_bytes: usize,
    /// The routes that use it.
    pub(crate) routes: Vec<String>,
}
