//! Plugins of a running router: which versions there are, which of them each route serves, and how that changes.
//!
//! A version is in the [store](store::PluginStore), where files of the configuration and stock plugins are copied to as
//! the router starts; a route never needs a file or the network again. Which one a route serves is decided by
//! [`Plugins::choose`], and changed by a [deployment](deploy).

mod blobs;
pub(crate) mod cases;
mod compile;
pub(crate) mod deploy;
pub(crate) mod figures;
pub(crate) mod metrics;
pub(crate) mod offline;
mod prepare;
mod push;
mod store;
pub(crate) mod upload;
pub(crate) mod version;
pub(crate) mod watch;

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use quipu_queue::Store;
use quipu_runtime::{Limits, Recycle, Runtime, RuntimeConfig, Use};

use crate::app::Settings;
use crate::config::{Config, PluginConfig, PluginUse, RouteConfig};
pub(crate) use blobs::Blobs;
pub(crate) use compile::{CompileLimits, Compiler};
pub(crate) use offline::Offline;
pub(crate) use prepare::{Chains, Holds, Prepared};
pub(crate) use push::Push;
use store::PluginStore;
pub(crate) use version::check_tag;

/// Instances beyond those that the routes need twice over.
const INSTANCES_SPARE: u32 = 32;
/// The fewest that there are.
const INSTANCES_MIN: u32 = 64;
/// The most, where the configuration does not say; also of memories. Each memory takes 4 GiB of address space.
const INSTANCES_MAX: u32 = 10_000;
const MEMORIES_MAX: u32 = 20_000;
/// Memories for each instance, where the configuration does not say.
const MEMORIES_EACH: u32 = 3;
/// What the code of plugins is sealed for.
const SECRET: &str = "quipu compiled plugins";

/// All plugins of a router.
pub(crate) struct Plugins {
    pub(crate) compiler: Compiler,
    pub(crate) store: PluginStore,
    pub(crate) uploads: upload::Uploads,
    /// One deployment at a time.
    deploying: tokio::sync::Mutex<()>,
}

impl Plugins {
    /// Reads the index of the store beside this one, and starts the engine.
    pub(crate) async fn open(config: &Config, store: Store) -> Result<Self> {
        let runtime = Runtime::new(sizes(config)).context("cannot start the plugin runtime")?;
        let (dir, secret) = (config.store.path.join("plugins"), store.secret(SECRET));
        let blobs = tokio::task::spawn_blocking(move || Blobs::open(dir)).await??;
        let compiler = Compiler::new(runtime, CompileLimits::of(&config.plugins), Some((blobs.clone(), secret)));
        let store = PluginStore::open(store, blobs, config.plugins.store_bytes_max).await?;
        Ok(Self { compiler, store, uploads: upload::Uploads::default(), deploying: tokio::sync::Mutex::default() })
    }

    /// A route of this configuration, with instances of its plugins; or held, for what it may be.
    ///
    /// # Errors
    ///
    /// What is wrong with the configuration and its files. Nothing that runs is changed.
    pub(crate) async fn route(&self, config: &Config, route: &RouteConfig, holds: Holds) -> Result<Settings> {
        crate::app::route_settings(route, self.prepare(config, route, holds).await?)
    }
}

/// The routes that use a plugin.
fn routes_with(config: &Config, name: &str) -> Vec<RouteConfig> {
    let uses = |route: &&RouteConfig| route.plugins.iter().any(|plugin| plugin.name == name);
    config.routes.iter().filter(uses).cloned().collect()
}

/// One use of a plugin, with what the configuration grants it.
fn r#use(config: &Config, route: &str, plugin: &PluginUse) -> Use {
    let settings = config.plugin.get(&plugin.name).cloned().unwrap_or_default();
    Use {
        route: route.to_owned(),
        config_json: plugin.config.to_string(),
        limits: limits(&settings),
        isolation: settings.isolation,
        recycle: Recycle { memory_bytes: settings.recycle_memory_bytes, messages: settings.recycle_messages },
        ..Use::default()
    }
}

/// Every plugin that a route uses or that the configuration names.
fn names(config: &Config) -> BTreeSet<String> {
    let used = config.routes.iter().flat_map(|route| &route.plugins).map(|plugin| &plugin.name);
    used.chain(config.plugin.keys()).cloned().collect()
}

fn limits(settings: &PluginConfig) -> Limits {
    Limits {
        deadline: settings.deadline,
        memory_bytes: settings.memory_bytes,
        output_bytes: settings.output_bytes,
        ..Limits::default()
    }
}

/// How large the pool of instances is: every chain can be made once more while it serves.
fn sizes(config: &Config) -> RuntimeConfig {
    let uses: usize = config.routes.iter().map(|route| route.plugins.len() * route.parallel).sum();
    let twice = u32::try_from(uses * 2).unwrap_or(u32::MAX).saturating_add(INSTANCES_SPARE);
    let instances = config.plugins.instances.unwrap_or(twice.clamp(INSTANCES_MIN, INSTANCES_MAX));
    let memories = instances.saturating_mul(MEMORIES_EACH).min(MEMORIES_MAX);
    let defaults = RuntimeConfig::default();
    let wanted = config.plugin.values().map(|plugin| plugin.memory_bytes).max().unwrap_or(0);
    RuntimeConfig {
        instances_max: instances,
        memories_max: config.plugins.memories.unwrap_or(memories),
        memory_bytes_max: wanted.max(defaults.memory_bytes_max),
        ..defaults
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
