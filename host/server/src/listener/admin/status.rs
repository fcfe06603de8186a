//! `status`: whether the router does its work, and if not, why.

use quipu_protocol::proto;
use quipu_queue::StoreInfo;
use quipu_router::RouteInfo;
use serde_json::{Value, json};

use super::{PAUSED, RUNNING, info};
use crate::services::Services;

pub(super) async fn status(services: &Services) -> Result<Value, proto::Error> {
    let store = info(services).await?;
    let mut reasons = reasons(&store, &super::routes(services, &store));
    reasons.extend(services.live.left_out().into_iter().map(|why| format!("not in effect: {why}")));
    Ok(json!({
        "ready": reasons.is_empty(),
        "reasons": reasons,
        "journal_used_bytes": store.journal_used_bytes,
        "state_file_bytes": store.state_file_bytes,
        "memory_bytes": store.memory_bytes,
        "dedup_ids": store.dedup_ids,
        "blocked_publishers": store.blocked_publishers,
        "access": services.access.listing(),
        "ingest_bytes": services.ingest.used_bytes(),
    }))
}

fn reasons(store: &StoreInfo, routes: &[RouteInfo]) -> Vec<String> {
    let mut reasons = Vec::new();
    if let Some(why) = &store.failed {
        reasons.push(format!("the journal failed, and nothing is acknowledged until a restart: {why}"));
    }
    if let Some(why) = &store.checkpoint_failed {
        reasons.push(format!("the last checkpoint failed, and is tried again: {why}"));
    }
    if store.failed.is_none() && store.refuses_publishes {
        reasons.push("publishes are refused: the disk is nearly full".into());
    }
    for route in routes.iter().filter(|route| ![RUNNING, PAUSED].contains(&route.state)) {
        let why = route.state_reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        reasons.push(format!("route {:?} stands still: {}{why}", route.name, route.state));
    }
    reasons
}
