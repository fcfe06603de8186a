//! `ledger`: what became of all messages that entered, for each subscription.

use quipu_protocol::proto;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{info, no_queue};
use crate::services::Services;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {
    queue: Option<String>,
}

pub(super) async fn ledger(services: &Services, arguments: Arguments) -> Result<Value, proto::Error> {
    let mut queues = info(services).await?.queues;
    if let Some(name) = arguments.queue {
        queues.retain(|queue| queue.name == name);
        if queues.is_empty() {
            return Err(no_queue(&name));
        }
    }
    let mut subscriptions = Vec::new();
    for queue in &queues {
        for subscription in &queue.subscriptions {
            let (came, accounted) = subscription.ledger();
            subscriptions.push(json!({
                "queue": queue.name,
                "subscription": subscription.name,
                "came": came,
                "accounted": accounted,
                "balanced": came == accounted,
                "counts": subscription.counts,
                "waiting": subscription.waiting,
                "in_flight": subscription.in_flight,
                "parked": subscription.parked,
            }));
        }
    }
    Ok(json!({ "subscriptions": subscriptions }))
}
