//! Plugins without a router: files and stock plugins, for `quipu check` and for those who try a file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use quipu_runtime::{Component, FILE_BYTES_MAX, Runtime, RuntimeConfig};

use super::compile::{CompileLimits, Compiler};
use super::version::STOCK;
use super::{limits, names, routes_with, sizes, r#use};
use crate::config::Config;
use crate::files;
use crate::services::PluginListing;

/// Bytes of a plugin that is not in a store.
pub(super) struct Found {
    /// A file, or `stock`.
    pub(super) source: String,
    pub(super) bytes: Vec<u8>,
}

/// The plugins of a configuration that can be had without a store.
pub(crate) struct Offline {
    loaded: BTreeMap<String, (Component, String)>,
    /// Those that only a store can have.
    pub(crate) elsewhere: Vec<String>,
}

/// Where a plugin is found without a store: its file, `NAME.wasm` in the directory, or the stock.
pub(super) fn find(name: &str, file: Option<PathBuf>, dir: Option<&Path>) -> Result<Option<Found>> {
    let in_dir: Option<PathBuf> = dir.map(|dir| dir.join(format!("{name}.wasm"))).filter(|file| file.exists());
    if let Some(file) = file.or(in_dir) {
        return found(name, &file).map(Some);
    }
    let stock = quipu_plugin_artifacts::by_name(name);
    Ok(stock.map(|stock| Found { source: STOCK.into(), bytes: stock.wasm.to_vec() }))
}

/// The bytes of a plugin's file.
fn found(name: &str, file: &Path) -> Result<Found> {
    let bytes = files::read(file, FILE_BYTES_MAX as u64).with_context(|| format!("plugin {name:?}"))?;
    Ok(Found { source: file.display().to_string(), bytes })
}

/// A file, compiled for who tries it, and how long that took.
pub(crate) async fn load(file: &Path, config: RuntimeConfig) -> Result<(Component, Duration)> {
    let name = file.file_stem().and_then(|name| name.to_str()).unwrap_or("plugin").to_owned();
    load_as(&name, file, config).await
}

/// As [`load`], under this name.
pub(crate) async fn load_as(name: &str, file: &Path, config: RuntimeConfig) -> Result<(Component, Duration)> {
    let Found { source, bytes } = found(name, file)?;
    load_bytes(name, &source, bytes, config).await
}

/// As [`load`], of a file's bytes; `source` is what errors call it.
pub(crate) async fn load_bytes(
    name: &str,
    source: &str,
    bytes: Vec<u8>,
    config: RuntimeConfig,
) -> Result<(Component, Duration)> {
    let runtime = Runtime::new(config).context("cannot start the plugin runtime")?;
    let loaded = Compiler::new(runtime, CompileLimits::default(), None).load(name, source, bytes).await?;
    Ok((loaded.component, loaded.compiled.unwrap_or_default()))
}

impl Offline {
    /// Compiles what is there, and has each use read its configuration.
    pub(crate) async fn check(config: &Config) -> Result<Self> {
        let runtime = Runtime::new(sizes(config)).context("cannot start the plugin runtime")?;
        let compiler = Compiler::new(runtime, CompileLimits::of(&config.plugins), None);
        let (mut loaded, mut elsewhere) = (BTreeMap::new(), Vec::new());
        for name in names(config) {
            let file = config.plugin.get(&name).and_then(|plugin| plugin.file.clone());
            match find(&name, file, config.plugins.dir.as_deref())? {
                Some(Found { source, bytes }) => {
                    let component = compiler.load(&name, &source, bytes).await;
                    let component = component.with_context(|| format!("plugin {name:?}"))?.component;
                    loaded.insert(name, (component, source));
                }
                None => elsewhere.push(name),
            }
        }
        let offline = Self { loaded, elsewhere };
        for route in &config.routes {
            let (name, count) = (&route.name, route.plugins.len());
            for (n, plugin) in route.plugins.iter().enumerate().filter(|(_, plugin)| plugin.version.is_none()) {
                let Some((component, source)) = offline.loaded.get(&plugin.name) else { continue };
                let r#use = r#use(config, name, plugin);
                let place = || format!("route {name:?}, plugin {} of {count} ({source})", n + 1);
                tokio::task::block_in_place(|| component.plugin(r#use)).with_context(place)?;
            }
        }
        Ok(offline)
    }

    /// For listings.
    pub(crate) fn listing(&self, config: &Config) -> Vec<PluginListing> {
        let listing = |(name, (component, source)): (&String, &(Component, String))| {
            let limits = limits(&config.plugin.get(name).cloned().unwrap_or_default());
            PluginListing {
                name: name.clone(),
                source: source.clone(),
                digest: component.digest().to_string(),
                size_bytes: component.size_bytes(),
                imports: component.imports().to_vec(),
                deadline_ms: limits.deadline.as_millis(),
                memory_bytes: limits.memory_bytes,
                output_bytes: limits.output_bytes,
                routes: routes_with(config, name).into_iter().map(|route| route.name).collect(),
            }
        };
        self.loaded.iter().map(listing).collect()
    }
}
