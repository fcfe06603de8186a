//! What a running router consists of, as sessions see it.

use serde::Serialize;

use quipu_queue::Store;
use quipu_router::Router;

/// Shared by all sessions.
pub(crate) struct Services {
    /// The queues.
    pub(crate) store: Store,
    /// The routes.
    pub(crate) router: Router,
    /// The plugins that were loaded, by name.
    pub(crate) plugins: Vec<PluginListing>,
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
