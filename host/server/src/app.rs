//! A router in one process: builds it from a configuration, runs it, and stops it in order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use quipu_queue::journal::JournalConfig;
use quipu_queue::{QueueSettings, Start, Store, StoreConfig};
use quipu_router::{ChainSettings, Condition, InlineSettings, OnError, Order, RouteError, RouteSettings, Router};
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::config::{self, Config, QueueConfig, RouteConfig, Source};
use crate::listener::{self, Listener};
use crate::live::Live;
use crate::pause;
use crate::plugins::{Chains, Holds, Plugins, Prepared, figures, watch};
use crate::services::Services;

/// Of the grace, what is kept after the sessions for plugins to finish what they have in hand.
const PLUGINS_STOP: Duration = Duration::from_secs(1);
/// Of the grace, what is kept for the store's last checkpoint.
const STORE_STOP: Duration = Duration::from_secs(2);

/// A router that is ready to accept.
pub(crate) struct App {
    listener: Listener,
    services: Arc<Services>,
    /// A directory whose plugins are deployed as they change.
    watch: Option<PathBuf>,
    grace: Duration,
}

impl App {
    /// Binds the socket, opens the store, loads the plugins and starts the routes. Nothing is accepted yet. `file` is where
    /// the configuration is read from again.
    pub(crate) async fn start(config: Config, file: Option<PathBuf>, access: Arc<Access>) -> Result<Self> {
        let socket = listener::bind(config.listen.quic)?;
        let store_config = StoreConfig {
            journal: JournalConfig {
                segments: config.store.journal_segments,
                segment_bytes: config.store.journal_segment_bytes,
            },
            memory_bytes: config.store.memory_bytes,
            disk_reserve_bytes: config.store.disk_reserve_bytes,
            path: config.store.path.clone(),
        };
        // Recovery takes its time, and blocks.
        let store = tokio::task::spawn_blocking(move || Store::open(&store_config)).await??;
        let live = Live::start(config, file, &store).await?;
        let config = live.config();
        let plugins = Arc::new(Plugins::open(&config, store.clone()).await?);
        let listener = Listener::new(socket, access.server_config()?, &store, &config.limits)?;
        for queue in &config.queues {
            store
                .define_queue(settings_of(queue))
                .await
                .with_context(|| format!("queue {:?}", queue.name.as_str()))??;
        }
        let router = Router::start(store.clone(), config.plugins.workers).context("cannot start plugin workers")?;
        router.trace().configure(config.trace.mode, config.trace.memory_bytes);
        for route in &config.routes {
            add(&router, plugins.route(&config, route, Holds::Wrong).await?).await?;
        }
        pause::restore(&store, &router).await?;
        plugins.take_in_all(&config).await;
        let services = Arc::new(Services::new(store, router, plugins, live, access));
        Ok(Self { listener, services, watch: config.plugins.watch.clone(), grace: config.listen.grace })
    }

    /// What it consists of.
    pub(crate) fn services(&self) -> Arc<Services> {
        self.services.clone()
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        self.listener.address().context("the listener has no address")
    }

    /// Serves until `stop` is cancelled; then: no new sessions, goodbye to the open ones, plugins finish what they have
    /// in hand, the store syncs and writes its last checkpoint.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<()> {
        let after = listener::CLOSE_WAIT + PLUGINS_STOP + STORE_STOP;
        drop(tokio::spawn(figures::summarise(self.services.clone(), stop.clone())));
        if let Some(dir) = self.watch {
            drop(tokio::spawn(watch::run(self.services.clone(), dir, stop.clone())));
        }
        let sessions = self.grace.saturating_sub(after).max(Duration::from_millis(100));
        self.listener.run(self.services.clone(), stop, sessions).await;
        let (services, router_of) = (self.services.clone(), self.services);
        let routes = tokio::task::spawn_blocking(move || router_of.router.stop());
        if tokio::time::timeout(PLUGINS_STOP, routes).await.is_err() {
            tracing::warn!("a plugin is still at work; what it had in hand comes again with the next start");
        }
        match tokio::time::timeout(STORE_STOP, services.store.stop()).await {
            Ok(stopped) => stopped.context("the store did not stop cleanly; its journal has everything")?,
            Err(_) => tracing::warn!("the last checkpoint takes too long; the next start replays the journal"),
        }
        Ok(())
    }
}

pub(crate) fn settings_of(queue: &QueueConfig) -> QueueSettings {
    QueueSettings {
        name: queue.name.clone(),
        subjects: queue.subjects.clone(),
        attempts_max: queue.attempts_max,
        backoff_ms: queue.backoff.iter().map(|step| millis(*step)).collect(),
        dead_letter: queue.dead_letter.as_ref().map(|name| name.as_str().to_owned()),
        durability: queue.durability,
        retention: queue.retention,
        limits: queue.limits,
        in_flight_max: queue.in_flight_max,
        ack_deadline_ms: millis(queue.ack_deadline),
    }
}

/// Starts a route of either kind.
pub(crate) async fn add(router: &Router, settings: Settings) -> Result<(), RouteError> {
    match settings {
        Settings::Queue(settings) => router.add(*settings).await,
        Settings::Inline(settings) => router.add_inline(*settings),
    }
}

impl Settings {
    /// Why the route is held, where it is.
    pub(crate) fn held(&self) -> Option<&str> {
        match self {
            Self::Queue(settings) => settings.held.as_deref(),
            Self::Inline(settings) => settings.held.as_deref(),
        }
    }
}

/// What a route is, by where its messages come from.
pub(crate) enum Settings {
    /// From a queue.
    Queue(Box<RouteSettings>),
    /// From those who publish.
    Inline(Box<InlineSettings>),
}

/// A route with these chains.
pub(crate) fn route_settings(route: &RouteConfig, prepared: Prepared) -> Result<Settings> {
    let Prepared { chains, held } = prepared;
    let ChainSettings { when, otherwise, plugins, to, on_error, on_broken, broken_after } =
        chain_settings(route, chains)?;
    let name = route.name.clone();
    let from = match &route.source {
        Source::Queue(from) => from.as_str().to_owned(),
        Source::Inline(on) => {
            let on = on.clone();
            let settings = InlineSettings { name, on, when, otherwise, plugins, to, on_broken, broken_after, held };
            return Ok(Settings::Inline(Box::new(settings)));
        }
    };
    Ok(Settings::Queue(Box::new(RouteSettings {
        name,
        from,
        start: match route.start {
            config::Start::First => Start::First,
            config::Start::New => Start::New,
        },
        when,
        otherwise,
        plugins,
        order: match route.order {
            config::Order::Key => Order::Key,
            config::Order::None => Order::None,
        },
        to,
        on_error,
        on_broken,
        broken_after,
        held,
    })))
}

/// What of a route changes while it runs, with these chains.
pub(crate) fn chain_settings(route: &RouteConfig, chains: Chains) -> Result<ChainSettings> {
    let when = route.when.as_deref().map(Condition::new).transpose();
    Ok(ChainSettings {
        when: when.with_context(|| format!("route {:?}: when", route.name))?,
        otherwise: route.otherwise.clone(),
        to: route.to.clone(),
        on_error: OnError {
            attempts: route.on_error.attempts_max,
            backoff_ms: route.on_error.backoff.iter().map(|step| millis(*step)).collect(),
            then: route.on_error.then.as_ref().map(|name| name.as_str().to_owned()),
        },
        on_broken: route.on_broken,
        broken_after: route.broken_after,
        plugins: chains,
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
