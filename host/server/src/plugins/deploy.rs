//! Deploying: a version takes the place of another in a running route, and nothing is lost or done twice.
//!
//! Compile, room, instantiate, configure, self-test, warm, swap at a message boundary, drain, record, probe. Whatever
//! fails before the swap leaves what was there, and is said with its step.

use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use quipu_queue::ROUTE_PREFIX;
use quipu_router::Swapped;
use quipu_runtime::{Component, ConfigureError, Room, Use};
use serde::Serialize;

use super::cases::{Case, Tried};
use super::store::named;
use super::version::{Deployed, Reference, Version, short, unix_ms};
use super::{Holds, routes_with, r#use};
use crate::config::{Config, PluginUse, RouteConfig};
use crate::nearest::did_you_mean;
use crate::services::Services;

/// Differences of a case that failed that are told.
const DIFFERENCES_TOLD: usize = 8;
/// A version is tested as often where its route is changed meanwhile.
const ROUNDS_MAX: usize = 4;

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) name: String,
    pub(crate) route: String,
    pub(crate) to: Target,
    pub(crate) who: String,
}

/// Which version.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// This one.
    Version(String),
    /// The one before, or an earlier one that is named.
    Back(Option<String>),
}

/// What a deployment did.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    deployed: bool,
    plugin: String,
    route: String,
    version: Named,
    previous: Option<Named>,
    /// None: the code was there.
    compile_ms: Option<u64>,
    configure: &'static str,
    self_test: SelfTest,
    swap: Swap,
    ledger: Option<Ledger>,
    /// What the lanes say that they serve, of this plugin.
    serving: String,
    probed: bool,
}

/// A deployment that failed. Before the swap that leaves everything as it was.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Failed {
    deployed: bool,
    plugin: String,
    route: String,
    version: Option<Named>,
    step: &'static str,
    error: String,
    /// What serves on, or all the same.
    serving: Option<Named>,
    /// Whether that is something else than before.
    changed: bool,
}

/// A version, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Named {
    label: String,
    digest: String,
}

#[derive(Debug, Clone, Serialize)]
struct SelfTest {
    passed: usize,
    cases: usize,
}

#[derive(Debug, Clone, Serialize)]
struct Swap {
    queue: Option<String>,
    offset: u64,
    drained: u64,
    took_ms: u64,
}

/// What became of the route's messages until now.
#[derive(Debug, Clone, Serialize)]
struct Ledger {
    came: u64,
    delivered: u64,
    dropped: u64,
    filtered: u64,
    dead: u64,
    /// Expired, evicted, compacted, purged, sought past.
    otherwise: u64,
    pending: u64,
    lost: u64,
    twice: u64,
}

/// A step's failure.
struct Stop {
    step: &'static str,
    error: anyhow::Error,
}

trait At<T> {
    fn at(self, step: &'static str) -> Result<T, Stop>;
}

impl<T, E: Into<anyhow::Error>> At<T> for Result<T, E> {
    fn at(self, step: &'static str) -> Result<T, Stop> {
        self.map_err(|e| Stop { step, error: e.into() })
    }
}

/// Puts a version into a route.
pub(crate) async fn deploy(services: &Arc<Services>, order: Order) -> Result<Report, Box<Failed>> {
    let _turn = services.plugins.deploying.lock().await;
    let mut known = Known::default();
    let report = attempt(services, &order, &mut known).await;
    report.map_err(|Stop { step, error }| {
        let error = format!("{error:#}");
        let (plugin, route, serving) = (order.name.clone(), order.route.clone(), serving(services, &order));
        let changed = known.before.is_some_and(|before| before != serving);
        tracing::warn!(route, plugin, step, error, changed, "a deployment failed");
        Box::new(Failed { deployed: false, plugin, route, version: known.version, step, error, serving, changed })
    })
}

/// What is known of a deployment, however it ends.
#[derive(Default)]
struct Known {
    version: Option<Named>,
    /// What served as the swap began; none: it did not begin.
    before: Option<Option<Named>>,
}

/// Tests first, with all that takes its time, and lets the configuration change meanwhile; then swaps, if it was tested
/// with what is so still.
async fn attempt(services: &Arc<Services>, order: &Order, known: &mut Known) -> Result<Report, Stop> {
    for _ in 0..ROUNDS_MAX {
        let config = services.config();
        let (route, version) = find(services, &config, order).at("find")?;
        known.version = Some(Named::of(&version));
        let (name, label) = (&order.name, version.label());
        tracing::info!(route = route.name, plugin = name, version = label, who = order.who, "a deployment is tested");
        let mut deployment = Deployment { services, config, order, route, version, before: None };
        let tested = deployment.test().await?;
        let _unchanged = services.live.unchanged().await;
        if deployment.is_current() {
            deployment.before = serving(services, order);
            known.before = Some(deployment.before.clone());
            return deployment.swap(tested).await;
        }
    }
    Err(anyhow!("the route was changed {ROUNDS_MAX} times meanwhile; try again")).at("find")
}

/// Starts the routes that were held because a plugin was not there, now that it is: their names.
pub(crate) async fn start_held(services: &Services, plugin: &str) -> Vec<String> {
    let _turn = services.plugins.deploying.lock().await;
    let _unchanged = services.live.unchanged().await;
    let (config, mut started) = (services.config(), Vec::new());
    let waits = |route: &RouteConfig| services.router.lacks_chain(&route.name).is_some();
    for route in routes_with(&config, plugin).into_iter().filter(waits) {
        match start(services, &config, &route).await {
            Ok(true) => started.push(route.name),
            Ok(false) => {}
            Err(e) => tracing::warn!(route = route.name, "still held: {e:#}"),
        }
    }
    started
}

/// Lets a route run that stood still. One that waits for its plugins looks for them once more.
pub(crate) async fn resume(services: &Services, name: &str) -> Result<()> {
    if services.router.lacks_chain(name).is_some() {
        let _turn = services.plugins.deploying.lock().await;
        let _unchanged = services.live.unchanged().await;
        let config = services.config();
        if let Some(route) = config.routes.iter().find(|route| route.name == name) {
            start(services, &config, route).await?;
        }
    }
    Ok(services.router.release(name).await?)
}

async fn start(services: &Services, config: &Config, route: &RouteConfig) -> Result<bool> {
    let prepared = services.plugins.prepare(config, route, Holds::Wrong).await?;
    if let Some(reason) = prepared.held {
        services.router.hold_without_chain(&route.name, &reason).await?;
        return Ok(false);
    }
    services.router.replace_chain(&route.name, crate::app::chain_settings(route, prepared.chains)?).await?;
    services.router.release(&route.name).await?;
    Ok(true)
}

fn find(services: &Services, config: &Config, order: &Order) -> Result<(RouteConfig, Arc<Version>)> {
    let (plugins, Order { name, route: to, .. }) = (&services.plugins, order);
    let route = config.routes.iter().find(|route| route.name == *to);
    let route = route.cloned().ok_or_else(|| {
        let near = did_you_mean(to, config.routes.iter().map(|route| route.name.as_str()));
        anyhow!("there is no route {to:?}{near}")
    })?;
    let mut uses = route.plugins.iter().filter(|plugin| plugin.name == *name).peekable();
    if uses.peek().is_none() {
        let others: Vec<&str> = route.plugins.iter().map(|plugin| plugin.name.as_str()).collect();
        bail!(
            "route {to:?} has no plugin {name:?}; it has {}",
            if others.is_empty() { "none".into() } else { others.join(", ") }
        );
    }
    if let Some(pinned) = uses.find_map(|plugin| plugin.version.as_ref()) {
        bail!("route {to:?} pins {name}@{pinned} in the configuration: change it there");
    }
    let version = match &order.to {
        Target::Version(version) | Target::Back(Some(version)) => version.clone(),
        Target::Back(None) => {
            let deployed = plugins.store.deployed(to, name);
            let previous = deployed.and_then(|deployed| deployed.previous);
            previous
                .with_context(|| format!("nothing was deployed before for {name} in route {to:?}; say --to VERSION"))?
        }
    };
    Ok((route, plugins.store.find(name, &version)?))
}

/// What the route serves of the plugin now.
fn serving(services: &Services, order: &Order) -> Option<Named> {
    let route = services.router.routes().into_iter().find(|route| route.name == order.route)?;
    let plugin = route.plugins.into_iter().find(|plugin| *plugin.name == *order.name)?;
    Some(match services.plugins.store.get(&order.name, &plugin.digest) {
        Some(version) => Named::of(&version),
        None => Named { label: short(&plugin.digest).to_owned(), digest: plugin.digest.to_string() },
    })
}

struct Deployment<'a> {
    services: &'a Arc<Services>,
    config: Arc<Config>,
    order: &'a Order,
    route: RouteConfig,
    version: Arc<Version>,
    before: Option<Named>,
}

/// What a version showed before it served.
struct Tested {
    compiled: Option<std::time::Duration>,
    self_test: SelfTest,
}

impl Deployment<'_> {
    /// All that can be done beside what serves.
    async fn test(&self) -> Result<Tested, Stop> {
        let loaded = self.services.plugins.component(&self.version).await.at("compile")?;
        let uses = self.uses();
        let one = std::slice::from_ref(&loaded.component);
        self.services.plugins.compiler.runtime().room_for(one, 1).at("room")?;
        try_out(&loaded.component, &uses).await?;
        let self_test = self_test(&loaded.component, &uses[0], &self.version.cases).await?;
        Ok(Tested { compiled: loaded.compiled, self_test })
    }

    /// Whether what was tested is what would be served now. Other changes of the configuration are taken along.
    fn is_current(&mut self) -> bool {
        let config = self.services.config();
        if !Arc::ptr_eq(&config, &self.config) {
            let uses = self.uses();
            let Ok((route, version)) = find(self.services, &config, self.order) else { return false };
            let is_same = version.digest == self.version.digest;
            (self.config, self.route, self.version) = (config, route, version);
            return is_same && self.uses() == uses;
        }
        true
    }

    async fn swap(self, Tested { compiled, self_test }: Tested) -> Result<Report, Stop> {
        let Self { services, config, order, route, .. } = &self;
        let chains = services.plugins.chains(config, route, &self.versions().await?).await.map_err(|error| {
            let step = if error.is::<Room>() { "room" } else { "warm" };
            Stop { step, error }
        })?;
        let chain = crate::app::chain_settings(route, chains).at("warm")?;
        let before = self.ledger().await;
        let swapped = services.router.replace_chain(&order.route, chain).await.at("swap")?;
        services.router.release(&order.route).await.at("swap")?;
        self.record().await.at("record")?;
        let probed = self.probe(&swapped);
        let ledger = self.ledger().await.map(|after| after.since(before.as_ref()));
        let report = self.report(compiled, self_test, &swapped, ledger, probed);
        let (route, plugin, version) = (&report.route, &report.plugin, &report.version.label);
        tracing::info!(route, plugin, version, offset = report.swap.offset, probed, who = order.who, "deployed");
        if probed { Ok(report) } else { Err(anyhow!("the lanes serve something else")).at("probe") }
    }

    fn uses(&self) -> Vec<Use> {
        let of = self.route.plugins.iter().filter(|plugin| plugin.name == self.order.name);
        of.map(|plugin| r#use(&self.config, &self.route.name, plugin)).collect()
    }

    /// The whole chain: this version in its places, and the others as they are.
    async fn versions(&self) -> Result<Vec<Arc<Version>>, Stop> {
        let mut versions = Vec::new();
        for plugin in &self.route.plugins {
            versions.push(match plugin.name == self.order.name {
                true => self.version.clone(),
                false => self.services.plugins.chosen(&self.config, &self.route.name, plugin).await.at("warm")?,
            });
        }
        Ok(versions)
    }

    async fn record(&self) -> Result<()> {
        let deployed = Deployed {
            digest: self.version.digest.clone(),
            previous: self.previous(),
            who: self.order.who.clone(),
            when_ms: unix_ms(),
        };
        self.services.plugins.store.set_deployed(&self.order.route, &self.order.name, deployed).await
    }

    /// What a rollback goes back to. Deploying what serves already changes nothing of that.
    fn previous(&self) -> Option<String> {
        let before = self.before.as_ref().map(|before| before.digest.clone());
        let again = || self.services.plugins.store.deployed(&self.order.route, &self.order.name)?.previous;
        if before.as_ref() == Some(&self.version.digest) { again() } else { before }
    }

    /// Whether every lane says that it serves the version, in every place.
    fn probe(&self, swapped: &Swapped) -> bool {
        let places = self.route.plugins.iter().zip(&swapped.serving);
        let mut of = places.filter(|(plugin, _)| plugin.name == self.order.name);
        swapped.serving.len() == self.route.plugins.len()
            && of.all(|(_, digest)| digest.to_string() == self.version.digest)
    }

    async fn ledger(&self) -> Option<Ledger> {
        let store = self.services.store.info().await.ok()?;
        let read = self.route.queue()?.as_str();
        let queue = store.queues.into_iter().find(|queue| queue.name == read)?;
        let name = format!("{ROUTE_PREFIX}{}", self.route.name);
        let subscription = queue.subscriptions.into_iter().find(|subscription| subscription.name == name)?;
        let (came, accounted) = subscription.ledger();
        let counts = &subscription.counts;
        let named = counts.acked + counts.dropped + counts.filtered + counts.dead_lettered;
        Some(Ledger {
            came,
            delivered: counts.acked,
            dropped: counts.dropped,
            filtered: counts.filtered,
            dead: counts.dead_lettered,
            otherwise: counts.gone() - named,
            pending: subscription.waiting + subscription.in_flight + subscription.parked,
            lost: came.saturating_sub(accounted),
            twice: accounted.saturating_sub(came),
        })
    }

    fn report(
        &self,
        compiled: Option<std::time::Duration>,
        self_test: SelfTest,
        swapped: &Swapped,
        ledger: Option<Ledger>,
        probed: bool,
    ) -> Report {
        let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Report {
            deployed: true,
            plugin: self.order.name.clone(),
            route: self.order.route.clone(),
            version: Named::of(&self.version),
            previous: self.before.clone(),
            compile_ms: compiled.map(ms),
            configure: "ok",
            self_test,
            swap: Swap {
                queue: self.route.queue().map(ToString::to_string),
                offset: swapped.offset.0,
                drained: swapped.drained,
                took_ms: ms(swapped.took),
            },
            ledger,
            serving: self.version.short().to_owned(),
            probed,
        }
    }
}

impl Named {
    fn of(version: &Version) -> Self {
        Self { label: version.label().to_owned(), digest: version.digest.clone() }
    }
}

impl Ledger {
    /// What was out of balance before is none of the deployment's doing.
    fn since(self, before: Option<&Self>) -> Self {
        let (lost, twice) = before.map_or((0, 0), |before| (before.lost, before.twice));
        Self { lost: self.lost.saturating_sub(lost), twice: self.twice.saturating_sub(twice), ..self }
    }
}

/// An instance for each place in the chain reads its configuration, and goes again.
async fn try_out(component: &Component, uses: &[Use]) -> Result<(), Stop> {
    let (component, uses) = (component.clone(), uses.to_vec());
    let tried = tokio::task::spawn_blocking(move || {
        uses.into_iter().try_for_each(|r#use| component.plugin(r#use).map(drop)).map_err(|e| {
            let step = if matches!(e, ConfigureError::Refused { .. }) { "configure" } else { "instantiate" };
            Stop { step, error: e.into() }
        })
    });
    tried.await.at("instantiate")?
}

/// Each case on an instance of its own.
async fn self_test(component: &Component, r#use: &Use, cases: &[Case]) -> Result<SelfTest, Stop> {
    let (component, r#use, cases) = (component.clone(), r#use.clone(), cases.to_vec());
    let count = cases.len();
    let tried = tokio::task::spawn_blocking(move || {
        let tried =
            |case: &Case| case.try_on(&component, &r#use, unix_ms()).with_context(|| format!("case {:?}", case.name));
        cases.iter().map(tried).collect()
    });
    let tried: Result<Vec<Tried>> = tried.await.at("self-test")?;
    let tried = tried.at("self-test")?;
    match tried.iter().find(|case| !case.differences.is_empty()) {
        None => Ok(SelfTest { passed: count, cases: count }),
        Some(failed) => {
            let passed = tried.iter().filter(|case| case.differences.is_empty()).count();
            let told = failed.differences.iter().take(DIFFERENCES_TOLD).map(ToString::to_string);
            let (name, differences) = (&failed.name, told.collect::<Vec<_>>().join("; "));
            Err(anyhow!("{passed} of {count} passed; case {name:?}: {differences}")).at("self-test")
        }
    }
}

/// Takes a version out of the store, unless somebody needs it.
pub(crate) async fn remove(services: &Services, reference: &Reference) -> Result<Arc<Version>> {
    let _turn = services.plugins.deploying.lock().await;
    let plugins = &services.plugins;
    let version = plugins.store.find(&reference.name, &reference.version)?;
    let is_it = |name: &str, digest: &str| name == version.name && digest == version.digest;
    let routes = services.router.routes();
    let serves = routes.iter().filter(|route| route.plugins.iter().any(|plugin| is_it(&plugin.name, &plugin.digest)));
    let mut users: Vec<String> = serves.map(|route| route.name.clone()).collect();
    let deployed = plugins.store.deployments().into_iter();
    users.extend(deployed.filter(|(_, name, deployed)| is_it(name, &deployed.digest)).map(|(route, ..)| route));
    for route in routes_with(&services.config(), &version.name) {
        let pins = |plugin: &PluginUse| plugin.version.as_ref().is_some_and(|pinned| version.is_called(pinned));
        if route.plugins.iter().any(|plugin| plugin.name == version.name && pins(plugin)) {
            users.push(route.name);
        }
    }
    users.sort();
    users.dedup();
    ensure!(users.is_empty(), "{} {} is in use by route {}", version.name, named(&version), users.join(", "));
    plugins.store.remove(&version).await?;
    Ok(version)
}
