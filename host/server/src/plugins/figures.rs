//! What plugins and routes do, in one place: for listings, for the log, and for whoever is to export it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quipu_router::{PluginInfo, RouteInfo, Router, Verdicts};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::services::Services;

/// Between two summaries in the log.
const SUMMARY_INTERVAL: Duration = Duration::from_mins(1);
/// Routes in one summary; the others are counted.
const SUMMARY_ROUTES_MAX: usize = 64;

/// All figures of a moment. They count from the router's start; a deployment begins those of its plugin anew.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figures {
    pub(crate) routes: Vec<RouteInfo>,
}

/// One use of a plugin.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct UseFigures {
    pub(crate) route: String,
    /// The route's: `broken` where one of its plugins fails on everything; and why.
    pub(crate) state: &'static str,
    pub(crate) state_reason: Option<String>,
    /// In the chain, from 1.
    pub(crate) position: usize,
    /// Half of its calls took no longer.
    pub(crate) p50_ns: u64,
    /// Of a hundred calls 99 took no longer.
    pub(crate) p99_ns: u64,
    #[serde(flatten)]
    pub(crate) plugin: PluginInfo,
}

impl Figures {
    /// As they are now.
    pub(crate) fn gather(router: &Router) -> Self {
        Self { routes: router.routes() }
    }

    /// Every use of a plugin.
    pub(crate) fn uses_of(&self, name: &str) -> Vec<UseFigures> {
        let uses = self.routes.iter().flat_map(uses_in);
        uses.filter(|used| *used.plugin.name == *name).collect()
    }
}

/// A route's plugins, in the order of its chain.
pub(crate) fn uses_in(route: &RouteInfo) -> impl Iterator<Item = UseFigures> {
    route.plugins.iter().enumerate().map(|(n, plugin)| {
        let [p50_ns, p99_ns] = [0.5, 0.99].map(|share| plugin.time.quantile(share));
        UseFigures {
            route: route.name.clone(),
            state: route.state,
            state_reason: route.state_reason.clone(),
            position: n + 1,
            p50_ns,
            p99_ns,
            plugin: plugin.clone(),
        }
    })
}

/// A line a minute in the log for each route that did something, until told to stop.
pub(crate) async fn summarise(services: Arc<Services>, stop: CancellationToken) {
    let mut before: BTreeMap<String, u64> = BTreeMap::new();
    while stop.run_until_cancelled(tokio::time::sleep(SUMMARY_INTERVAL)).await.is_some() {
        let routes = Figures::gather(&services.router).routes;
        let did = |route: &&RouteInfo| route.attempts > before.get(&route.name).copied().unwrap_or(0);
        let active: Vec<&RouteInfo> = routes.iter().filter(did).collect();
        for route in active.iter().take(SUMMARY_ROUTES_MAX) {
            let attempts = route.attempts - before.get(&route.name).copied().unwrap_or(0);
            log(route, attempts);
        }
        if let Some(others) = active.len().checked_sub(SUMMARY_ROUTES_MAX).filter(|others| *others > 0) {
            tracing::info!(others, "more routes were at work");
        }
        before = routes.into_iter().map(|route| (route.name, route.attempts)).collect();
    }
}

fn log(route: &RouteInfo, attempts: u64) {
    let plugins: Vec<String> = route.plugins.iter().map(summary).collect();
    tracing::info!(
        target: "figures",
        route = route.name,
        state = route.state,
        attempts,
        forwarded = route.forwarded,
        dropped = route.dropped,
        dead_lettered = route.dead_lettered,
        plugins = plugins.join(", "),
        "a minute's work; all but `attempts` since the start"
    );
}

fn summary(plugin: &PluginInfo) -> String {
    let PluginInfo { name, calls, verdicts, faults_by, memory_bytes, time, instances, instances_started, .. } = plugin;
    let [p50, p99] = [0.5, 0.99].map(|share| time.quantile(share) / 1_000);
    let Verdicts { forward, route, drop, retry, reject } = *verdicts;
    let said = [("forward", forward), ("route", route), ("drop", drop), ("retry", retry), ("reject", reject)];
    let faults = faults_by.iter().map(|(code, count)| (*code, *count));
    let counts: Vec<String> = said
        .into_iter()
        .chain(faults)
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    format!(
        "{name} {calls} calls ({}) p50 {p50} µs p99 {p99} µs {} KiB {instances} instances of {instances_started}",
        counts.join(" "),
        memory_bytes >> 10
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_has_verdicts_fault_codes_and_instances() {
        let plugin = PluginInfo {
            name: "p".into(),
            calls: 7,
            verdicts: Verdicts { forward: 3, drop: 1, ..Verdicts::default() },
            faults: 3,
            faults_by: [("deadline", 1), ("unreachable", 2)].into(),
            memory_bytes: 128 << 10,
            instances: 2,
            instances_started: 5,
            ..PluginInfo::default()
        };
        let expected =
            "p 7 calls (forward 3 drop 1 deadline 1 unreachable 2) p50 0 µs p99 0 µs 128 KiB 2 instances of 5";
        assert_eq!(summary(&plugin), expected);
    }
}
