//! A router in one process: builds it from a configuration, runs it, and stops it in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use quipu_queue::journal::JournalConfig;
use quipu_queue::{QueueSettings, Start, Store, StoreConfig};
use quipu_router::{Condition, OnError, Order, RouteSettings, Router};
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::config::{self, Config, QueueConfig, RouteConfig};
use crate::listener::{self, Listener};
use crate::plugins::Plugins;
use crate::services::Services;

/// Of the grace, what is kept after the sessions for plugins to finish what they have in hand.
const PLUGINS_STOP: Duration = Duration::from_secs(1);
/// Of the grace, what is kept for the store's last checkpoint.
const STORE_STOP: Duration = Duration::from_secs(2);

/// A router that is ready to accept.
pub(crate) struct App {
    listener: Listener,
    services: Arc<Services>,
    grace: Duration,
}

impl App {
    /// Binds the socket, opens the store, loads the plugins and starts the routes. Nothing is accepted yet.
    pub(crate) async fn start(config: Config, access: Arc<Access>) -> Result<Self> {
        let socket = listener::bind(config.listen.quic)?;
        let config = Arc::new(config);
        // Compiling and recovery take their time, and block.
        let for_plugins = config.clone();
        let plugins = tokio::task::spawn_blocking(move || Plugins::load(&for_plugins)).await??;
        let store_config = StoreConfig {
            journal: JournalConfig {
                segments: config.store.journal_segments,
                segment_bytes: config.store.journal_segment_bytes,
            },
            memory_bytes: config.store.memory_bytes,
            disk_reserve_bytes: config.store.disk_reserve_bytes,
            path: config.store.path.clone(),
        };
        let store = tokio::task::spawn_blocking(move || Store::open(&store_config)).await??;
        let listener = Listener::new(socket, access.server_config()?, &store, &config.limits)?;
        for queue in &config.queues {
            store
                .define_queue(settings_of(queue))
                .await
                .with_context(|| format!("queue {:?}", queue.name.as_str()))??;
        }
        let router = Router::start(store.clone(), config.plugins.workers).context("cannot start plugin workers")?;
        for route in &config.routes {
            router.add(route_settings(route, &plugins)?).await?;
        }
        let services = Services::new(store, router, plugins.listing(&config), access, config.limits.clone());
        Ok(Self { listener, services: Arc::new(services), grace: config.listen.grace })
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        self.listener.address().context("the listener has no address")
    }

    /// Serves until `stop` is cancelled; then: no new sessions, goodbye to the open ones, plugins finish what they have
    /// in hand, the store syncs and writes its last checkpoint.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<()> {
        let after = listener::CLOSE_WAIT + PLUGINS_STOP + STORE_STOP;
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

/// Checks what only the plugins and the expression compiler can tell, without a store or a socket.
pub(crate) fn check(config: &Config) -> Result<Plugins> {
    let plugins = Plugins::load(config)?;
    for route in &config.routes {
        route_settings(route, &plugins)?;
    }
    Ok(plugins)
}

fn settings_of(queue: &QueueConfig) -> QueueSettings {
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

fn route_settings(route: &RouteConfig, plugins: &Plugins) -> Result<RouteSettings> {
    let when = route.when.as_deref().map(Condition::new).transpose();
    Ok(RouteSettings {
        name: route.name.clone(),
        from: route.from.as_str().to_owned(),
        start: match route.start {
            config::Start::First => Start::First,
            config::Start::New => Start::New,
        },
        when: when.with_context(|| format!("route {:?}: when", route.name))?,
        otherwise: route.otherwise.clone(),
        plugins: plugins.chains(route)?,
        order: match route.order {
            config::Order::Key => Order::Key,
            config::Order::None => Order::None,
        },
        to: route.to.clone(),
        on_error: OnError {
            attempts: route.on_error.attempts_max,
            backoff_ms: route.on_error.backoff.iter().map(|step| millis(*step)).collect(),
            then: route.on_error.then.as_ref().map(|name| name.as_str().to_owned()),
        },
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
