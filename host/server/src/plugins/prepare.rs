//! Which version of a plugin a route serves, and the instances that it needs for that.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use quipu_router::RouteInfo;
use quipu_runtime::{CapturedLog, Component, Digest, Plugin, Use};

use super::offline::Found;
use super::version::{Deployed, FILE, Version, short, unix_ms};
use super::{Plugins, r#use};
use crate::config::{Config, PluginUse, RouteConfig};

/// One chain for each lane.
pub(crate) type Chains = Vec<Vec<Box<dyn Plugin>>>;

/// What a route needs to start.
pub(crate) struct Prepared {
    pub(crate) chains: Chains,
    /// Why it may not run yet. The chains are empty then.
    pub(crate) held: Option<String>,
}

/// What a route is held for. Anything else is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holds {
    /// Whatever is wrong with a version of the store: a router that does not start serves nobody.
    Wrong,
    /// A plugin that is not there: nothing runs yet that would stop.
    Missing,
    /// Nothing: it runs, and goes on as it is.
    Nothing,
}

/// By whose word a version is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    /// The route's, in the configuration.
    Pinned,
    /// Of who deployed it last.
    Deployed,
    /// The file's, or the stock's.
    File,
    /// Nobody's: it was pushed last.
    Latest,
}

/// Why there is no version to serve.
enum Unready {
    /// It has to be pushed.
    Missing(String),
    /// The configuration's file is no good, and none before it was.
    Broken(anyhow::Error),
}

impl Plugins {
    /// Everything that a route needs to start, or why it is held. What is wrong with the configuration and its files is an
    /// error.
    pub(crate) async fn prepare(&self, config: &Config, route: &RouteConfig, holds: Holds) -> Result<Prepared> {
        let held = |reason: String| {
            let chains = (0..route.parallel).map(|_| Vec::new()).collect();
            Ok(Prepared { chains, held: Some(reason) })
        };
        let mut chosen = Vec::new();
        for plugin in &route.plugins {
            match self.choose(config, &route.name, plugin, holds == Holds::Wrong).await {
                Ok(choice) => chosen.push(choice),
                Err(Unready::Missing(reason)) if holds == Holds::Nothing => {
                    return Err(anyhow!("route {:?}: {reason}", route.name));
                }
                Err(Unready::Missing(reason)) => return held(reason),
                Err(Unready::Broken(e)) => return Err(e),
            }
        }
        let versions: Vec<Arc<Version>> = chosen.iter().map(|(version, _)| version.clone()).collect();
        match self.chains(config, route, &versions).await {
            Ok(chains) => {
                self.keep_choices(&route.name, &chosen).await?;
                Ok(Prepared { chains, held: None })
            }
            Err(e) if holds == Holds::Wrong && chosen.iter().any(|(_, choice)| *choice != Choice::File) => {
                held(format!("{e:#}"))
            }
            Err(e) => Err(e),
        }
    }

    /// What nobody chose is served from now on, so that a push alone never changes what a restart serves.
    async fn keep_choices(&self, route: &str, chosen: &[(Arc<Version>, Choice)]) -> Result<()> {
        for (version, _) in chosen.iter().filter(|(_, choice)| *choice == Choice::Latest) {
            let digest = version.digest.clone();
            let deployed = Deployed { digest, previous: None, who: "router".into(), when_ms: unix_ms() };
            self.store.set_deployed(route, &version.name, deployed).await?;
        }
        Ok(())
    }

    /// Pinned, else deployed, else the file or the stock, else what was pushed last. In place of a broken file the last good
    /// one, where that is to do.
    async fn choose(
        &self,
        config: &Config,
        route: &str,
        plugin: &PluginUse,
        or_earlier: bool,
    ) -> Result<(Arc<Version>, Choice), Unready> {
        let name = &plugin.name;
        if let Some(version) = &plugin.version {
            let found = self.store.find(name, version).map_err(|e| Unready::Missing(e.to_string()))?;
            return Ok((found, Choice::Pinned));
        }
        if let Some(deployed) = self.store.deployed(route, name) {
            match self.store.get(name, &deployed.digest) {
                Some(version) => return Ok((version, Choice::Deployed)),
                None => tracing::warn!(route, plugin = name, digest = deployed.digest, "what was deployed is gone"),
            }
        }
        match self.take_in(config, name).await {
            Ok(Some(version)) => return Ok((version, Choice::File)),
            Ok(None) => {}
            Err(why) => {
                // A file that is gone was copied before, and is not needed.
                let or_earlier = or_earlier || why.downcast_ref::<std::io::Error>().is_some_and(is_not_found);
                let earlier = self.store.versions(Some(name)).into_iter().find(|version| version.tag == FILE);
                let why = why.context(format!("plugin {name:?}"));
                let Some(version) = earlier.filter(|_| or_earlier) else { return Err(Unready::Broken(why)) };
                let digest = version.short();
                tracing::error!(route, plugin = name, digest, "its file is broken, the last good one serves: {why:#}");
                return Ok((version, Choice::File));
            }
        }
        let missing = || Unready::Missing(self.store.missing(name));
        self.store.latest(name).map(|version| (version, Choice::Latest)).ok_or_else(missing)
    }

    /// The version that a plugin of a route is, where it is there.
    pub(super) async fn chosen(&self, config: &Config, route: &str, plugin: &PluginUse) -> Result<Arc<Version>> {
        match self.choose(config, route, plugin, true).await {
            Ok((version, _)) => Ok(version),
            Err(Unready::Missing(reason)) => Err(anyhow!(reason)),
            Err(Unready::Broken(e)) => Err(e),
        }
    }

    /// Where a route serves another file than the one that is there now: its name, and how that is told. What is pinned or
    /// deployed does not follow its file.
    pub(crate) async fn changed_files(&self, config: &Config, running: &[RouteInfo]) -> Vec<(String, String)> {
        let mut changed = Vec::new();
        for (route, runs) in config.routes.iter().filter_map(|route| Some((route, named(running, &route.name)?))) {
            for (n, plugin) in route.plugins.iter().enumerate().filter(|(_, plugin)| plugin.version.is_none()) {
                let deployed = self.store.deployed(&route.name, &plugin.name);
                if deployed.is_some_and(|deployed| self.store.get(&plugin.name, &deployed.digest).is_some()) {
                    continue;
                }
                // One that cannot be read is not needed.
                let Ok(Some(Found { source, bytes })) = self.found(config, &plugin.name).await else { continue };
                let digest = Digest::of(&bytes).to_string();
                let before = match runs.plugins.get(n) {
                    Some(serves) if *serves.name == *plugin.name && *serves.digest != digest => short(&serves.digest),
                    // It waits for its plugins, and perhaps for this one.
                    None if runs.plugins.is_empty() && self.store.get(&plugin.name, &digest).is_none() => "none",
                    _ => continue,
                };
                let text = format!("plugins[{n}] ({source}): {before} → {}", short(&digest));
                changed.push((route.name.clone(), text));
            }
        }
        changed
    }

    /// The code of a version.
    pub(super) async fn component(&self, version: &Version) -> Result<super::compile::Loaded> {
        let Version { name, digest, source, size_bytes, .. } = version;
        self.compiler.load_kept(name, source, digest, *size_bytes).await.with_context(|| format!("plugin {name:?}"))
    }

    /// Instances of these versions, one for each lane and place in the chain.
    pub(super) async fn chains(
        &self,
        config: &Config,
        route: &RouteConfig,
        versions: &[Arc<Version>],
    ) -> Result<Chains> {
        let mut components: BTreeMap<String, Component> = BTreeMap::new();
        for version in versions {
            if !components.contains_key(&version.digest) {
                components.insert(version.digest.clone(), self.component(version).await?.component);
            }
        }
        let chain: Vec<Component> = versions.iter().map(|version| components[&version.digest].clone()).collect();
        // The chain before serves until this one is there.
        let lanes = u32::try_from(route.parallel).unwrap_or(u32::MAX);
        let room = self.compiler.runtime().room_for(&chain, lanes);
        room.with_context(|| format!("route {:?}", route.name))?;
        let place = |(n, (plugin, version)): (usize, (&PluginUse, &Arc<Version>))| Place {
            component: components[&version.digest].clone(),
            r#use: r#use(config, &route.name, plugin),
            name: format!("route {:?}, plugin {} of {} ({})", route.name, n + 1, versions.len(), version.source),
        };
        let places: Vec<Place> = route.plugins.iter().zip(versions).enumerate().map(place).collect();
        let kept = places.iter().zip(&route.plugins).filter(|(_, plugin)| !plugin.has_secret);
        self.store.keep_configs(kept.map(|(place, _)| place.r#use.config_json.as_str())).await?;
        let lanes = route.parallel;
        tokio::task::spawn_blocking(move || (0..lanes).map(|_| places.iter().map(Place::guest).collect()).collect())
            .await?
    }
}

impl Plugins {
    /// Instances of a route's own chain, apart from those at work: of the versions with these digests, or of another
    /// component where one is given for that plugin. What they log goes to the sinks alone.
    pub(crate) async fn trial(
        &self,
        config: &Config,
        route: &RouteConfig,
        digests: &[String],
        with: Option<&(String, Component)>,
    ) -> Result<Trial> {
        anyhow::ensure!(digests.len() == route.plugins.len(), "the route is being changed; ask again");
        let mut places = Vec::new();
        for (plugin, digest) in route.plugins.iter().zip(digests) {
            let component = match with.filter(|(name, _)| *name == plugin.name) {
                Some((_, component)) => component.clone(),
                None => {
                    let version = self.store.get(&plugin.name, digest);
                    let version = version.with_context(|| format!("{}@{digest} is gone", plugin.name))?;
                    self.component(&version).await?.component
                }
            };
            places.push((component, r#use(config, &route.name, plugin)));
        }
        tokio::task::spawn_blocking(move || places.into_iter().map(trial).collect()).await?
    }

    /// A plugin of the store by the beginning of its digest.
    pub(crate) async fn by_digest(&self, name: &str, digest: &str) -> Result<Component> {
        let version = self.store.find(name, digest)?;
        Ok(self.component(&version).await?.component)
    }

    /// What a plugin of a route is configured with, where it is that of these first 16 digits; else as it was kept. With
    /// the limits of the present.
    pub(crate) async fn use_of(&self, config: &Config, route: &str, name: &str, digest: &str) -> Result<Use> {
        let present = config.routes.iter().find(|known| known.name == route);
        let uses = present.into_iter().flat_map(|route| &route.plugins).filter(|plugin| plugin.name == name);
        let uses = uses.map(|plugin| r#use(config, route, plugin));
        let of = |text: &str| Digest::of(text.as_bytes()).prefix();
        if let Some(found) = uses.into_iter().find(|found| of(&found.config_json) == digest) {
            return Ok(found);
        }
        let kept = self.store.config(digest).await?;
        let kept = kept.with_context(|| {
            format!(
                "the configuration {digest} of plugin {name:?} is not kept any more, and the route's is another now"
            )
        })?;
        let plugin =
            PluginUse { name: name.to_owned(), version: None, config: serde_json::Value::Null, has_secret: false };
        Ok(Use { config_json: kept, ..r#use(config, route, &plugin) })
    }
}

fn named<'a>(routes: &'a [RouteInfo], name: &str) -> Option<&'a RouteInfo> {
    routes.iter().find(|route| route.name == name)
}

fn is_not_found(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotFound
}

/// Plugins of a chain, and what they log to, by their places.
pub(crate) type Trial = Vec<(Box<dyn Plugin>, Arc<CapturedLog>)>;

fn trial((component, r#use): (Component, Use)) -> Result<(Box<dyn Plugin>, Arc<CapturedLog>)> {
    let log = Arc::new(CapturedLog::default());
    let guest = component.plugin_with(r#use, log.clone())?;
    Ok((Box::new(guest), log))
}

/// One place of a chain.
struct Place {
    component: Component,
    r#use: Use,
    name: String,
}

impl Place {
    fn guest(&self) -> Result<Box<dyn Plugin>> {
        let guest = self.component.plugin(self.r#use.clone()).with_context(|| self.name.clone())?;
        Ok(Box::new(guest))
    }
}
