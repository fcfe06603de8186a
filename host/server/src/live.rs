//! The configuration that a router runs by, and how it becomes another one while it runs.
//!
//! A change is made in two steps. The first does all that can fail and changes nothing: reading, checking, compiling,
//! making instances of plugins. The second makes queues and routes what they are to be. Where even that fails, what was
//! done is undone. So a router runs by the configuration before or by the one after, never by half of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use quipu_queue::{DefineQueueError, RecordError, RemoveQueueError, StoreFailed};
use quipu_router::{ChainSettings, InlineSettings, OnError, PluginInfo, RouteError, RouteSettings, Swapped};
use serde::Serialize;

use crate::app::{Settings, add, settings_of};
use crate::config::{
    Change, Composed, Config, ConfigError, Definition, DefinitionError, Difference, Kind, RouteConfig, changes, diff,
};
use crate::nearest::did_you_mean;
use crate::pause;
use crate::plugins::Holds;
use crate::services::Services;
use crate::tls::TlsError;

/// What the keys of records begin with that hold definitions: then the kind, a slash, and the name.
const RECORDS: &str = "define/";
/// Most queues and routes that can be defined at run time, together.
pub(crate) const DEFINITIONS_MAX: usize = 1_024;

/// What a router runs by.
pub(crate) struct Live {
    /// None where there is no file, as in the demo: nothing is read again then.
    file: Option<PathBuf>,
    running: Mutex<Arc<Running>>,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
}

struct Running {
    config: Arc<Config>,
    definitions: Vec<Definition>,
    /// Definitions that are not in effect, and why.
    left_out: Vec<String>,
}

/// What a change came to.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// What is different now.
    pub(crate) differences: Vec<Difference>,
    /// Routes that went on with another chain.
    pub(crate) swaps: Vec<RouteSwap>,
    /// What to know besides.
    pub(crate) notes: Vec<String>,
}

/// Where a route took another chain, and what the one before had done.
#[derive(Debug, Serialize)]
pub(crate) struct RouteSwap {
    pub(crate) route: String,
    /// None: it runs inline, and has no offset.
    pub(crate) queue: Option<String>,
    /// The first offset that the chain before began nothing of.
    pub(crate) offset: u64,
    /// Messages that it had finished and that were settled meanwhile.
    pub(crate) drained: u64,
    pub(crate) took_ms: u64,
    pub(crate) served: Vec<PluginInfo>,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LiveError {
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Definition(#[from] DefinitionError),
    #[error("{kind} {name:?} is the configuration file's: change it there, then `quipu reload`")]
    OfFile { kind: Kind, name: String },
    #[error("there is a {kind} {name:?} already; `quipu {kind} change {name}` changes it")]
    Exists { kind: Kind, name: String },
    #[error("there is no {kind} {name:?}{near}")]
    Unknown { kind: Kind, name: String, near: String },
    #[error("{DEFINITIONS_MAX} queues and routes are defined at run time, and no more are taken")]
    TooMany,
    #[error("this router has no configuration file to read again")]
    NoFile,
    #[error("{0:#}")]
    Prepare(anyhow::Error),
    #[error(transparent)]
    Remove(#[from] RemoveQueueError),
    #[error("queue {queue:?}: {source}")]
    Queue { queue: String, source: DefineQueueError },
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Store(#[from] StoreFailed),
    #[error("the change was given up: {0}")]
    GivenUp(#[from] tokio::task::JoinError),
}

impl Live {
    /// What the file says, with the definitions of the store's records. Definitions that no longer fit are left out and
    /// named: a router that does not start serves nobody.
    ///
    /// # Errors
    ///
    /// [`LiveError`] where the store does not answer or the file is not fine by itself.
    pub(crate) async fn start(
        config: Config,
        file: Option<PathBuf>,
        store: &quipu_queue::Store,
    ) -> Result<Self, LiveError> {
        let definitions = stored(store.records(RECORDS).await?);
        let mut running = Running { config: Arc::new(config), definitions, left_out: Vec::new() };
        if let Some(file) = file.clone().filter(|_| !running.definitions.is_empty()) {
            running = tokio::task::spawn_blocking(move || running.fit(&file)).await??;
        }
        running.left_out.iter().for_each(|why| tracing::error!("not in effect: {why}"));
        Ok(Self { file, running: Mutex::new(Arc::new(running)), changing: tokio::sync::Mutex::default() })
    }

    /// The configuration as it is now.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.running().config.clone()
    }

    /// What keeps definitions out of effect.
    pub(crate) fn left_out(&self) -> Vec<String> {
        self.running().left_out.clone()
    }

    /// What reading the file again would change; changes nothing.
    ///
    /// # Errors
    ///
    /// [`LiveError`].
    pub(crate) async fn diff(&self, services: &Services) -> Result<Vec<Difference>, LiveError> {
        let running = self.running();
        let composed = self.compose(running.definitions.clone()).await?;
        Ok(differences(&running.config, &composed.config, services).await)
    }

    /// Reads the file again and makes the router what it says.
    ///
    /// # Errors
    ///
    /// [`LiveError`]; nothing is changed then.
    pub(crate) async fn reload(&self, services: &Arc<Services>) -> Result<Applied, LiveError> {
        let _one = self.changing.lock().await;
        let definitions = self.running().definitions.clone();
        self.become_with(definitions, None, services).await
    }

    /// Makes or changes a queue or route that is not the file's. `is_new`: whether it must not be there yet, or must be.
    ///
    /// # Errors
    ///
    /// [`LiveError`]; nothing is changed then.
    pub(crate) async fn define(
        &self,
        (kind, name): (Kind, &str),
        (set, unset): (&[String], &[String]),
        is_new: bool,
        services: &Arc<Services>,
    ) -> Result<Applied, LiveError> {
        let _one = self.changing.lock().await;
        let running = self.running();
        let known = running.find(kind, name)?;
        match (known, is_new) {
            (Some(_), true) => return Err(LiveError::Exists { kind, name: name.into() }),
            (None, false) => return Err(running.unknown(kind, name)),
            _ => {}
        }
        let definition = Definition::new(kind, name, known.map(|at| &running.definitions[at]), set, unset)?;
        let mut definitions = running.definitions.clone();
        match known {
            Some(at) => definitions[at] = definition,
            None if definitions.len() >= DEFINITIONS_MAX => return Err(LiveError::TooMany),
            None => definitions.push(definition),
        }
        self.become_with(definitions, None, services).await
    }

    /// Removes a queue that is not the file's: with its messages, or only where it has none.
    ///
    /// # Errors
    ///
    /// [`LiveError`]; nothing is changed then.
    pub(crate) async fn remove_queue(
        &self,
        name: &str,
        with_messages: bool,
        services: &Arc<Services>,
    ) -> Result<Applied, LiveError> {
        let _one = self.changing.lock().await;
        let running = self.running();
        let removal = Removal { name: name.to_owned(), with_messages };
        let Some(at) = running.find(Kind::Queue, name)? else {
            // One that the file no longer has is nobody's.
            removal.make(services).await?;
            return Ok(Applied::default());
        };
        let mut definitions = running.definitions.clone();
        definitions.remove(at);
        self.become_with(definitions, Some(removal), services).await
    }

    /// Forgets a queue or route that is not the file's. Its messages and its subscription are another matter.
    ///
    /// # Errors
    ///
    /// [`LiveError`]; nothing is changed then.
    pub(crate) async fn forget(&self, kind: Kind, name: &str, services: &Arc<Services>) -> Result<Applied, LiveError> {
        let _one = self.changing.lock().await;
        let running = self.running();
        let at = running.find(kind, name)?.ok_or_else(|| running.unknown(kind, name))?;
        let mut definitions = running.definitions.clone();
        definitions.remove(at);
        self.become_with(definitions, None, services).await
    }

    /// Keeps the configuration as it is until this is dropped: for who changes routes by it.
    pub(crate) async fn unchanged(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    fn running(&self) -> Arc<Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn compose(&self, definitions: Vec<Definition>) -> Result<Composed, LiveError> {
        let file = self.file.clone().ok_or(LiveError::NoFile)?;
        Ok(tokio::task::spawn_blocking(move || Config::load_with(&file, &definitions)).await??)
    }

    /// Becomes what the file says with these definitions, without a queue that goes.
    async fn become_with(
        &self,
        definitions: Vec<Definition>,
        removal: Option<Removal>,
        services: &Arc<Services>,
    ) -> Result<Applied, LiveError> {
        let Composed { config, taken_over } = self.compose(definitions.clone()).await?;
        let is_own = |d: &Definition| !taken_over.iter().any(|(kind, name)| (d.kind, &d.name) == (*kind, name));
        let definitions: Vec<Definition> = definitions.into_iter().filter(is_own).collect();
        let (running, config) = (self.running(), Arc::new(config));
        let differences = differences(&running.config, &config, services).await;
        let step = Step { before: running.config.clone(), after: config.clone(), removal, services: services.clone() };
        let records = changed_records(&running.definitions, &definitions);
        let mut applied = step.make(differences, records).await?;
        applied.notes.extend(taken_over.iter().map(|(kind, name)| format!("{kind} {name} is the file's now")));
        let now = Running { config, definitions, left_out: Vec::new() };
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(now);
        Ok(applied)
    }
}

impl Running {
    /// Which definition it is; none where nothing has this name. An error where it is the file's.
    fn find(&self, kind: Kind, name: &str) -> Result<Option<usize>, LiveError> {
        let found = self.definitions.iter().position(|definition| definition.kind == kind && definition.name == name);
        let is_there = match kind {
            Kind::Queue => self.config.queues.iter().any(|queue| queue.name.as_str() == name),
            Kind::Route => self.config.routes.iter().any(|route| route.name == name),
        };
        match found {
            None if is_there => Err(LiveError::OfFile { kind, name: name.into() }),
            found => Ok(found),
        }
    }

    fn unknown(&self, kind: Kind, name: &str) -> LiveError {
        let names: Vec<&str> = match kind {
            Kind::Queue => self.config.queues.iter().map(|queue| queue.name.as_str()).collect(),
            Kind::Route => self.config.routes.iter().map(|route| route.name.as_str()).collect(),
        };
        LiveError::Unknown { kind, name: name.into(), near: did_you_mean(name, names) }
    }

    /// Takes the definitions that fit to the file: all, or where they do not fit together, one after the other.
    fn fit(self, file: &Path) -> Result<Self, ConfigError> {
        if let Ok(composed) = Config::load_with(file, &self.definitions) {
            return Ok(Self { config: Arc::new(composed.config), ..self });
        }
        let mut fitting = Self { config: self.config, definitions: Vec::new(), left_out: Vec::new() };
        // Queues first: routes need them.
        let mut definitions = self.definitions;
        definitions.sort_by_key(|definition| definition.kind);
        for definition in definitions {
            fitting.definitions.push(definition);
            match Config::load_with(file, &fitting.definitions) {
                Ok(composed) => fitting.config = Arc::new(composed.config),
                Err(why) => {
                    fitting.left_out.push(why.to_string());
                    fitting.definitions.pop();
                }
            }
        }
        Ok(fitting)
    }
}

impl RouteSwap {
    fn of(route: &str, queue: Option<String>, swapped: Swapped) -> Self {
        let Swapped { offset, drained, took, served, .. } = swapped;
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        Self { route: route.to_owned(), queue, offset: offset.0, drained, took_ms, served }
    }
}

/// What differs between two configurations, and between files of plugins and what is served of them.
async fn differences(before: &Config, after: &Config, services: &Services) -> Vec<Difference> {
    let mut found = diff(before, after);
    for (route, text) in services.plugins.changed_files(after, &services.router.routes()).await {
        changes(&mut found, &route, vec![text]);
    }
    found
}

/// A queue that goes.
struct Removal {
    name: String,
    with_messages: bool,
}

impl Removal {
    async fn make(&self, services: &Services) -> Result<(), LiveError> {
        match self.with_messages {
            true => services.store.remove_queue(&self.name).await?.map_err(RemoveQueueError::from)?,
            false => services.store.remove_empty_queue(&self.name).await??,
        }
        Ok(())
    }
}

/// From one configuration to another.
struct Step {
    before: Arc<Config>,
    after: Arc<Config>,
    removal: Option<Removal>,
    services: Arc<Services>,
}

/// What a route is to become.
enum Becomes {
    /// It is new, or has to begin anew.
    Another(String, Settings),
    /// Its lanes stay.
    Chain(String, Box<ChainSettings>, Option<String>),
}

impl Step {
    /// Does it, and says what to know.
    async fn make(
        self,
        differences: Vec<Difference>,
        records: Vec<(String, Option<Bytes>)>,
    ) -> Result<Applied, LiveError> {
        // In a task of its own: a caller that goes away leaves nothing half done.
        tokio::spawn(async move { self.make_all(differences, records).await }).await?
    }

    async fn make_all(
        &self,
        differences: Vec<Difference>,
        records: Vec<(String, Option<Bytes>)>,
    ) -> Result<Applied, LiveError> {
        let (access, after) = (self.services.access.clone(), self.after.clone());
        let shown = tokio::task::spawn_blocking(move || access.prepare(&after)).await??;
        let routes = self.prepare(&differences).await?;
        self.define_queues(&differences).await?;
        if let Some(removal) = &self.removal
            && let Err(e) = removal.make(&self.services).await
        {
            self.undo_queues().await;
            return Err(e);
        }
        if !records.is_empty()
            && let Err(e) = self.services.store.set_records(records).await?
        {
            self.undo_queues().await;
            return Err(e.into());
        }
        let trace = &self.after.trace;
        if self.before.trace != *trace {
            self.services.router.trace().configure(trace.mode, trace.memory_bytes);
        }
        let (mut notes, mut swaps) = (shown.notes.clone(), Vec::new());
        self.services.access.replace(shown);
        for route in routes {
            // Nothing of the configuration can fail any more. What still can is a route that stopped by itself.
            match route {
                Becomes::Chain(name, chain, held) => swaps.extend(self.change(&name, *chain, held, &mut notes).await?),
                Becomes::Another(name, settings) => self.put(&name, settings, &mut notes).await?,
            }
        }
        for gone in differences.iter().filter(|difference| difference.change == Change::Remove) {
            notes.extend(self.remove(gone).await?);
        }
        Ok(Applied { differences, swaps, notes })
    }

    /// Routes that are new or become something else, with instances of their plugins.
    async fn prepare(&self, differences: &[Difference]) -> Result<Vec<Becomes>, LiveError> {
        let of = |kind: &'static str| differences.iter().filter(move |d| d.kind == kind && d.change != Change::Remove);
        let plugins: BTreeSet<&str> =
            differences.iter().filter(|d| d.kind == "plugin").map(|d| d.name.as_str()).collect();
        let named: BTreeSet<&str> = of("route").map(|difference| difference.name.as_str()).collect();
        let is_touched = |route: &&RouteConfig| {
            named.contains(route.name.as_str()) || route.plugins.iter().any(|used| plugins.contains(used.name.as_str()))
        };
        let mut all = Vec::new();
        for route in self.after.routes.iter().filter(is_touched) {
            let before = self.before.routes.iter().find(|before| before.name == route.name);
            // One that runs does not stop because of what it is to become.
            let runs = before.is_some() && self.services.router.lacks_chain(&route.name).is_none();
            let holds = if runs { Holds::Nothing } else { Holds::Missing };
            let settings = self.services.plugins.route(&self.after, route, holds).await.map_err(LiveError::Prepare)?;
            all.push(match before.filter(|before| keeps_lanes(before, route)) {
                Some(_) => {
                    let (chain, held) = chain_of(settings);
                    Becomes::Chain(route.name.clone(), Box::new(chain), held)
                }
                None => Becomes::Another(route.name.clone(), settings),
            });
        }
        Ok(all)
    }

    /// New and changed queues. All of them, or none.
    async fn define_queues(&self, differences: &[Difference]) -> Result<(), LiveError> {
        let is_named =
            |name: &str| differences.iter().any(|d| d.kind == "queue" && d.name == name && d.change != Change::Remove);
        for queue in self.after.queues.iter().filter(|queue| is_named(queue.name.as_str())) {
            if let Err(source) = self.services.store.define_queue(settings_of(queue)).await? {
                self.undo_queues().await;
                return Err(LiveError::Queue { queue: queue.name.to_string(), source });
            }
        }
        Ok(())
    }

    /// Queues that were there become what they were. New ones are left: nothing routes to them, and they are empty.
    async fn undo_queues(&self) {
        for queue in &self.before.queues {
            match self.services.store.define_queue(settings_of(queue)).await {
                Ok(Ok(())) => {}
                Ok(Err(e)) => tracing::error!(queue = queue.name.as_str(), %e, "cannot be made what it was before"),
                Err(e) => tracing::error!(queue = queue.name.as_str(), %e, "cannot be made what it was before"),
            }
        }
    }

    async fn change(
        &self,
        name: &str,
        chain: ChainSettings,
        held: Option<String>,
        notes: &mut Vec<String>,
    ) -> Result<Option<RouteSwap>, LiveError> {
        let router = &self.services.router;
        if let Some(reason) = held {
            notes.push(is_held(name, &reason));
            router.hold_without_chain(name, &reason).await?;
            return Ok(None);
        }
        let swapped = router.replace_chain(name, chain).await?;
        // It may have waited for what is there now.
        router.release(name).await?;
        let route = self.after.routes.iter().find(|route| route.name == name);
        Ok(Some(RouteSwap::of(name, route.and_then(RouteConfig::queue).map(ToString::to_string), swapped)))
    }

    async fn put(&self, name: &str, settings: Settings, notes: &mut Vec<String>) -> Result<(), LiveError> {
        let router = &self.services.router;
        let of = |config: &Config| config.routes.iter().find(|route| route.name == name).cloned();
        notes.extend(settings.held().map(|reason| is_held(name, reason)));
        let Some(before) = of(&self.before) else { return Ok(add(router, settings).await?) };
        let settings = match settings {
            // In one step, or messages would go past it.
            Settings::Inline(settings) if before.queue().is_none() => {
                router.replace_inline(*settings).await?;
                return Ok(());
            }
            settings => settings,
        };
        router.remove(name).await?;
        self.forget_pause(&before).await;
        if of(&self.after).is_none_or(|after| after.source != before.source) {
            notes.extend(kept_subscription(&before));
        }
        Ok(add(router, settings).await?)
    }

    /// Nobody paused the next inline route of this name.
    async fn forget_pause(&self, gone: &RouteConfig) {
        if gone.queue().is_none()
            && let Err(e) = pause::set(&self.services.store, &gone.name, false).await
        {
            tracing::error!(route = gone.name, "it is still kept that it was paused: {e:#}");
        }
    }

    async fn remove(&self, gone: &Difference) -> Result<Option<String>, LiveError> {
        match gone.kind {
            "route" => {
                self.services.router.remove(&gone.name).await?;
                let Some(before) = self.before.routes.iter().find(|route| route.name == gone.name) else {
                    return Ok(None);
                };
                self.forget_pause(before).await;
                Ok(kept_subscription(before))
            }
            "queue" => Ok(Some(format!(
                "queue {0} stays with its messages, and takes more, until `quipu queue delete {0}`",
                gone.name
            ))),
            _ => Ok(None),
        }
    }
}

/// Whether a route becomes the other by another chain alone.
fn keeps_lanes(before: &RouteConfig, after: &RouteConfig) -> bool {
    (&before.source, before.parallel, before.order) == (&after.source, after.parallel, after.order)
}

/// What a held route waits for is not there for a chain either.
fn chain_of(settings: Settings) -> (ChainSettings, Option<String>) {
    match settings {
        Settings::Queue(settings) => {
            let RouteSettings { when, otherwise, plugins, to, on_error, on_broken, broken_after, held, .. } = *settings;
            (ChainSettings { when, otherwise, plugins, to, on_error, on_broken, broken_after }, held)
        }
        Settings::Inline(settings) => {
            let InlineSettings { when, otherwise, plugins, to, on_broken, broken_after, held, .. } = *settings;
            let on_error = OnError::default();
            (ChainSettings { when, otherwise, plugins, to, on_error, on_broken, broken_after }, held)
        }
    }
}

fn is_held(route: &str, reason: &str) -> String {
    format!("route {route} is held: {reason}")
}

fn kept_subscription(route: &RouteConfig) -> Option<String> {
    let (name, from) = (&route.name, route.queue()?);
    Some(format!(
        "its subscription stays, and keeps messages in {from}: `quipu subscription delete {from} route:{name}`"
    ))
}

fn stored(records: Vec<(String, Bytes)>) -> Vec<Definition> {
    let read = |(key, value): (String, Bytes)| {
        let (kind, name) = key.strip_prefix(RECORDS)?.split_once('/')?;
        let kind = [Kind::Queue, Kind::Route].into_iter().find(|known| known.as_str() == kind)?;
        Some(Definition { kind, name: name.to_owned(), body: String::from_utf8(value.to_vec()).ok()? })
    };
    records.into_iter().filter_map(read).collect()
}

fn changed_records(before: &[Definition], after: &[Definition]) -> Vec<(String, Option<Bytes>)> {
    let key = |definition: &Definition| format!("{RECORDS}{}/{}", definition.kind, definition.name);
    let is_in = |all: &[Definition], one: &Definition| all.iter().any(|d| (d.kind, &d.name) == (one.kind, &one.name));
    let gone = before.iter().filter(|definition| !is_in(after, definition)).map(|definition| (key(definition), None));
    let new = after.iter().filter(|definition| !before.contains(definition));
    gone.chain(new.map(|definition| (key(definition), Some(Bytes::from(definition.body.clone()))))).collect()
}
