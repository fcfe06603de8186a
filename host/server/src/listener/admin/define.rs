//! `config.*`, `queue.create` and its like: what changes while the router runs.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use quipu_protocol::code::Code;
use quipu_protocol::proto;
use quipu_queue::{LookupError, Mode, Offset, ROUTE_PREFIX, RemoveQueueError, Start, StoreFailed, SubscribeError};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Named, no_queue, unavailable};
use crate::config::Kind;
use crate::live::{Applied, LiveError};
use crate::pause;
use crate::plugins::deploy;
use crate::services::Services;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Define {
    name: String,
    #[serde(default)]
    set: Vec<String>,
    #[serde(default)]
    unset: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeleteQueue {
    name: String,
    #[serde(default)]
    with_messages: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeleteRoute {
    name: String,
    #[serde(default)]
    drop_subscription: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SeekRoute {
    name: String,
    to: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct One {
    queue: String,
    subscription: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    queue: String,
    subscription: String,
    #[serde(default)]
    mode: Mode,
    #[serde(default = "first")]
    start: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Share {
    queue: String,
    subscription: String,
    mode: Mode,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Seek {
    queue: String,
    subscription: String,
    to: String,
}

fn first() -> String {
    "first".into()
}

pub(super) async fn reload(services: &Arc<Services>) -> Result<Value, proto::Error> {
    let applied = services.live.reload(services).await.map_err(refused)?;
    let did = if applied.differences.is_empty() { "nothing has changed" } else { "reloaded" };
    Ok(said(&applied, did))
}

pub(super) async fn diff(services: &Arc<Services>) -> Result<Value, proto::Error> {
    let differences = services.live.diff(services).await.map_err(refused)?;
    let did = if differences.is_empty() { "nothing would change" } else { "`quipu reload` makes it so" };
    Ok(said(&Applied { differences, ..Applied::default() }, did))
}

pub(super) async fn create(kind: Kind, arguments: Define, services: &Arc<Services>) -> Result<Value, proto::Error> {
    let Define { name, set, unset } = arguments;
    let applied = services.live.define((kind, &name), (&set, &unset), true, services).await.map_err(refused)?;
    Ok(said(&applied, &format!("{kind} {name} is there")))
}

pub(super) async fn change(kind: Kind, arguments: Define, services: &Arc<Services>) -> Result<Value, proto::Error> {
    let Define { name, set, unset } = arguments;
    let applied = services.live.define((kind, &name), (&set, &unset), false, services).await.map_err(refused)?;
    Ok(said(&applied, &format!("{kind} {name} is changed")))
}

pub(super) async fn delete_queue(arguments: DeleteQueue, services: &Arc<Services>) -> Result<Value, proto::Error> {
    let DeleteQueue { name, with_messages } = arguments;
    let applied = services.live.remove_queue(&name, with_messages, services).await.map_err(refused)?;
    Ok(said(&Applied { notes: Vec::new(), ..applied }, &format!("queue {name} is gone")))
}

pub(super) async fn purge(Named { name }: Named, services: &Arc<Services>) -> Result<Value, proto::Error> {
    let count = services.store.purge(&name).await.map_err(unavailable)?.map_err(not_changed)?;
    Ok(json!({ "did": format!("queue {name} is empty"), "count": count }))
}

pub(super) async fn delete_route(arguments: DeleteRoute, services: &Arc<Services>) -> Result<Value, proto::Error> {
    let DeleteRoute { name, drop_subscription } = arguments;
    let from = queue_of(&name, services)?;
    let applied = services.live.forget(Kind::Route, &name, services).await.map_err(refused)?;
    if drop_subscription && let Some(from) = from {
        let subscription = format!("{ROUTE_PREFIX}{name}");
        services.store.remove_subscription(&from, &subscription).await.map_err(unavailable)?.map_err(not_changed)?;
        return Ok(json!({ "did": format!("route {name} and its subscription are gone") }));
    }
    Ok(said(&applied, &format!("route {name} is gone")))
}

pub(super) async fn pause_route(
    Named { name }: Named,
    paused: bool,
    services: &Services,
) -> Result<Value, proto::Error> {
    let from = queue_of(&name, services)?;
    if !paused {
        // First, since it may be refused, and may make the subscription anew.
        deploy::resume(services, &name).await.map_err(|e| Code::InvalidCall.error(format!("{e:#}")))?;
    }
    match from {
        Some(from) => {
            let subscription = format!("{ROUTE_PREFIX}{name}");
            services.store.set_paused(&from, &subscription, paused).await.map_err(unavailable)?.map_err(not_changed)?;
        }
        None => {
            let _unchanged = services.live.unchanged().await;
            let kept = pause::set(&services.store, &name, paused).await;
            kept.map_err(|e| Code::Unavailable.error(format!("{e:#}")))?;
            services.router.set_paused(&name, paused).map_err(|e| Code::InvalidCall.error(e.to_string()))?;
        }
    }
    Ok(json!({ "did": format!("route {name} {}", if paused { "is paused" } else { "goes on" }) }))
}

pub(super) async fn seek_route(SeekRoute { name, to }: SeekRoute, services: &Services) -> Result<Value, proto::Error> {
    let Some(queue) = queue_of(&name, services)? else {
        let text = format!("route {name:?} runs as messages are published: it has no place in a queue");
        return Err(Code::InvalidCall.error(text));
    };
    seek(Seek { queue, subscription: format!("{ROUTE_PREFIX}{name}"), to }, services).await
}

pub(super) async fn create_subscription(arguments: Create, services: &Services) -> Result<Value, proto::Error> {
    let Create { queue, subscription, mode, start } = arguments;
    if subscription.is_empty() || subscription.starts_with(ROUTE_PREFIX) {
        let text =
            format!("subscription {subscription:?}: names are not empty, and those of routes are the router's own");
        return Err(Code::InvalidCall.error(text));
    }
    let made = services.store.define_subscription(&queue, &subscription, Some(mode), start_of(&start)?).await;
    let made = made.map_err(|e| match e {
        SubscribeError::UnknownQueue(_) => no_queue(&queue),
        SubscribeError::Mode { .. } => Code::ModeMismatch.error(e.to_string()),
        SubscribeError::Failed(e) => unavailable(e),
    })?;
    let did = if made { "is there" } else { "was there, and stays as it is" };
    Ok(json!({ "did": format!("subscription {subscription} of {queue} {did}") }))
}

pub(super) async fn change_subscription(arguments: Share, services: &Services) -> Result<Value, proto::Error> {
    let Share { queue, subscription, mode } = arguments;
    if let Some(route) = subscription.strip_prefix(ROUTE_PREFIX) {
        let text = format!("route {route:?} reads by it: `quipu route change {route} order=...` is what changes it");
        return Err(Code::InvalidCall.error(text));
    }
    services.store.set_mode(&queue, &subscription, mode).await.map_err(unavailable)?.map_err(not_changed)?;
    Ok(json!({ "did": format!("subscription {subscription} of {queue} is {}", mode.as_str()) }))
}

pub(super) async fn pause(
    One { queue, subscription }: One,
    paused: bool,
    services: &Services,
) -> Result<Value, proto::Error> {
    services.store.set_paused(&queue, &subscription, paused).await.map_err(unavailable)?.map_err(not_changed)?;
    Ok(json!({ "did": format!("subscription {subscription} {}", if paused { "is paused" } else { "goes on" }) }))
}

pub(super) async fn seek(Seek { queue, subscription, to }: Seek, services: &Services) -> Result<Value, proto::Error> {
    let sought = services.store.seek(&queue, &subscription, start_of(&to)?).await;
    let offset = sought.map_err(unavailable)?.map_err(not_changed)?;
    Ok(json!({ "did": format!("{subscription} goes on at offset {offset} of {queue}"), "offset": offset.0 }))
}

pub(super) async fn delete_subscription(
    One { queue, subscription }: One,
    services: &Services,
) -> Result<Value, proto::Error> {
    if let Some(route) = subscription.strip_prefix(ROUTE_PREFIX)
        && services.router.routes().iter().any(|running| running.name == route)
    {
        let text = format!("route {route:?} reads by it; `quipu route delete {route} --drop-subscription` ends both");
        return Err(Code::InvalidCall.error(text));
    }
    services.store.remove_subscription(&queue, &subscription).await.map_err(unavailable)?.map_err(not_changed)?;
    Ok(json!({ "did": format!("subscription {subscription} of {queue} is gone") }))
}

/// The queue that a route reads; none where it runs inline.
fn queue_of(route: &str, services: &Services) -> Result<Option<String>, proto::Error> {
    super::route(services, route).map(|running| Some(running.from).filter(|from| !from.is_empty()))
}

/// `first`, `new`, an offset, or a time.
fn start_of(text: &str) -> Result<Start, proto::Error> {
    match text {
        "first" => return Ok(Start::First),
        "new" => return Ok(Start::New),
        _ => {}
    }
    if let Ok(offset) = text.parse() {
        return Ok(Start::Offset(Offset(offset)));
    }
    let time = humantime::parse_rfc3339_weak(text).ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let ms = time.and_then(|since| u64::try_from(since.as_millis()).ok());
    ms.map(Start::Time).ok_or_else(|| {
        Code::InvalidCall.error(format!(
            "expected `first`, `new`, an offset, or a time such as 2026-11-21T10:00:00Z, found {text:?}"
        ))
    })
}

fn said(applied: &Applied, did: &str) -> Value {
    let lines: Vec<String> = applied.differences.iter().map(ToString::to_string).collect();
    json!({ "did": did, "differences": lines, "changes": applied.differences, "swaps": applied.swaps, "notes": applied.notes })
}

fn not_changed(e: LookupError) -> proto::Error {
    let code = match e {
        LookupError::Queue(_) => Code::UnknownQueue,
        LookupError::Subscription { .. } => Code::UnknownSubscription,
    };
    code.error(e.to_string())
}

fn refused(e: LiveError) -> proto::Error {
    match e {
        LiveError::Store(StoreFailed(_)) => Code::Unavailable.error(e.to_string()),
        LiveError::Remove(RemoveQueueError::Lookup(e)) => not_changed(e),
        LiveError::Remove(e) => Code::InvalidCall.error(format!("{e}; --with-messages deletes them too")),
        e => Code::InvalidCall.error(e.to_string()),
    }
}
