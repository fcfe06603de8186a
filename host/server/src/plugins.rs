//! Finds plugins by name, loads them, and makes the instances that routes need.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use quipu_runtime::{Component, Limits, Plugin, Runtime, RuntimeConfig, Use};

use crate::config::{Config, InlineConfig, PluginConfig, PluginUse, RouteConfig};
use crate::services::PluginListing;

/// Instances beyond those that the configuration needs, for those made anew after a fault while the old one is freed.
const INSTANCES_SPARE: u32 = 16;

/// The plugins of a configuration, compiled.
pub(crate) struct Plugins {
    loaded: BTreeMap<String, Loaded>,
}

struct Loaded {
    component: Component,
    source: String,
    limits: Limits,
}

impl Plugins {
    /// Loads every plugin that a route uses or that the configuration names. Compiles, so it takes a moment; blocks.
    pub(crate) fn load(config: &Config) -> Result<Self> {
        let inline = config.inline.iter().map(|route| route.plugins.len() * route.parallel);
        let uses: usize = config.routes.iter().map(|route| route.plugins.len() * route.parallel).chain(inline).sum();
        let instances = u32::try_from(uses).unwrap_or(u32::MAX).saturating_add(INSTANCES_SPARE).max(64);
        let defaults = RuntimeConfig::default();
        let wanted = config.plugin.values().map(|plugin| plugin.memory_bytes);
        let runtime = Runtime::new(RuntimeConfig {
            instances_max: instances,
            memories_max: instances.saturating_mul(3),
            memory_bytes_max: wanted.max().unwrap_or(0).max(defaults.memory_bytes_max),
            ..defaults
        })
        .context("cannot start the plugin runtime")?;
        let inline = config.inline.iter().flat_map(|route| &route.plugins);
        let used = config.routes.iter().flat_map(|route| &route.plugins).chain(inline).map(|plugin| &plugin.name);
        let mut loaded = BTreeMap::new();
        for name in used.chain(config.plugin.keys()) {
            if loaded.contains_key(name) {
                continue;
            }
            let settings = config.plugin.get(name).cloned().unwrap_or_default();
            loaded.insert(name.clone(), load(&runtime, name, &settings, config.plugins.dir.as_deref())?);
        }
        Ok(Self { loaded })
    }

    /// The chains of a route, one for each message that it works on at once.
    pub(crate) fn chains(&self, route: &RouteConfig) -> Result<Vec<Vec<Box<dyn Plugin>>>> {
        (0..route.parallel).map(|_| self.chain(&route.name, &route.plugins)).collect()
    }

    /// The same of an inline route.
    pub(crate) fn inline_chains(&self, route: &InlineConfig) -> Result<Vec<Vec<Box<dyn Plugin>>>> {
        (0..route.parallel).map(|_| self.chain(&route.name, &route.plugins)).collect()
    }

    /// One chain, each plugin with its configuration.
    fn chain(&self, route: &str, uses: &[PluginUse]) -> Result<Vec<Box<dyn Plugin>>> {
        let count = uses.len();
        let mut chain: Vec<Box<dyn Plugin>> = Vec::with_capacity(count);
        for (n, plugin) in uses.iter().enumerate() {
            let loaded = &self.loaded[&plugin.name];
            let (config_json, limits) = (plugin.config.to_string(), loaded.limits);
            let r#use = Use { route: route.to_owned(), config_json, limits, ..Use::default() };
            let guest = loaded.component.plugin(r#use);
            let place = || format!("route {route:?}, plugin {} of {count} ({})", n + 1, loaded.source);
            chain.push(Box::new(guest.with_context(place)?));
        }
        Ok(chain)
    }

    /// For listings.
    pub(crate) fn listing(&self, config: &Config) -> Vec<PluginListing> {
        let uses = |name: &str| {
            let queue = config.routes.iter().map(|route| (&route.name, &route.plugins));
            let inline = config.inline.iter().map(|route| (&route.name, &route.plugins));
            let using = queue.chain(inline).filter(|(_, uses)| uses.iter().any(|plugin| plugin.name == name));
            using.map(|(route, _)| route.clone()).collect()
        };
        let listing = |(name, loaded): (&String, &Loaded)| PluginListing {
            name: name.clone(),
            source: loaded.source.clone(),
            digest: loaded.component.digest().to_string(),
            size_bytes: loaded.component.size_bytes(),
            imports: loaded.component.imports().to_vec(),
            deadline_ms: loaded.limits.deadline.as_millis(),
            memory_bytes: loaded.limits.memory_bytes,
            output_bytes: loaded.limits.output_bytes,
            routes: uses(name),
        };
        self.loaded.iter().map(listing).collect()
    }
}

fn load(runtime: &Runtime, name: &str, settings: &PluginConfig, dir: Option<&Path>) -> Result<Loaded> {
    let in_dir: Option<PathBuf> = dir.map(|dir| dir.join(format!("{name}.wasm"))).filter(|file| file.exists());
    let limits = Limits {
        deadline: settings.deadline,
        memory_bytes: settings.memory_bytes,
        output_bytes: settings.output_bytes,
        ..Limits::default()
    };
    let (source, bytes) = match (settings.file.clone().or(in_dir), quipu_plugin_artifacts::by_name(name)) {
        (Some(file), _) => {
            let bytes =
                std::fs::read(&file).with_context(|| format!("plugin {name:?}: cannot read {}", file.display()))?;
            (file.display().to_string(), bytes)
        }
        (None, Some(stock)) => ("stock".to_owned(), stock.wasm.to_vec()),
        (None, None) => {
            let stock: Vec<&str> = quipu_plugin_artifacts::ALL.iter().map(|stock| stock.name).collect();
            bail!(
                "there is no plugin {name:?}: set `plugin.{name}.file`, or put {name}.wasm into `plugins.dir`; \
                 stock plugins are {}",
                stock.join(", ")
            );
        }
    };
    let component = runtime.load(name, &source, &bytes).with_context(|| format!("plugin {name:?}"))?;
    Ok(Loaded { component, source, limits })
}
