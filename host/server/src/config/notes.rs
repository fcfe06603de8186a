//! What a configuration means that is easy to overlook: nothing of it is wrong.

use quipu_protocol::Subject;
use quipu_queue::{Durability, Retention};

use super::graph::Takers;
use super::{Config, QueueConfig, RouteConfig};

impl Config {
    /// A line for each thing to know.
    pub(crate) fn notes(&self) -> Vec<String> {
        let logs = self.queues.iter().filter_map(endless);
        let routes = self.routes.iter().filter_map(|route| self.weakest(route));
        logs.chain(routes).collect()
    }

    /// A route promises no more than the weakest of the queues at its ends, those for its dead letters included.
    fn weakest(&self, route: &RouteConfig) -> Option<String> {
        let takers = Takers::new(&self.queues);
        let named = |name: &Subject| self.queues.iter().find(|queue| queue.name == *name);
        let from = named(route.queue()?)?;
        let dead_letters = route.on_error.then.as_ref().or(from.dead_letter.as_ref()).and_then(named);
        let outputs = route.to.iter().chain(&route.otherwise).filter_map(|to| to.fixed());
        let outputs = outputs.flat_map(|subject| takers.of(subject)).map(|n| &self.queues[n]);
        let ends = std::iter::once(from).chain(outputs).chain(dead_letters);
        let weakest = ends.min_by_key(|queue| queue.durability).filter(|q| q.durability < Durability::Synced)?;
        let (promise, because) = (weakest.durability.as_str(), weakest.name.as_str());
        Some(format!("route {:?}: {promise}, because queue {because:?} is", route.name))
    }
}

fn endless(queue: &QueueConfig) -> Option<String> {
    let Retention::Log { age_ms: None, bytes: None, messages: None } = queue.retention else { return None };
    let keys = "`retention_age`, `retention_bytes` or `retention_messages`";
    Some(format!("queue {:?}: a log without end; {keys} bound it", queue.name.as_str()))
}
