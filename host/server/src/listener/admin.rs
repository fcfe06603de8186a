//! An admin stream: one call, one answer, both JSON. A call is short; what takes long is called again until it is done.

mod capsule;
mod define;
mod explain;
mod ledger;
mod longer;
mod message;
mod parts;
mod peek;
mod plugin;
mod redrive;
mod status;

use std::sync::Arc;

use bytes::Bytes;
use quipu_protocol::code::Code;
use quipu_protocol::frame::Frame;
use quipu_protocol::proto;
use quipu_queue::{ROUTE_PREFIX, StoreFailed, StoreInfo};
use quipu_router::RouteInfo;
use serde::Deserialize;
use serde_json::{Value, json};

use super::frames::FrameWriter;
use super::hint;
use crate::access::Client;
use crate::config::Kind;
use crate::nearest::did_you_mean;
use crate::plugins::figures::uses_in;
use crate::plugins::metrics;
use crate::services::Services;
pub(crate) use longer::Longer;
pub(crate) use parts::Parts;

/// Longest arguments of a call, in bytes.
const ARGUMENTS_BYTES_MAX: usize = 1 << 20;
/// Calls that are answered at a time; the rest waits.
pub(crate) const CALLS_MAX: usize = 16;
/// What a route is that takes messages.
const RUNNING: &str = "running";
/// What a route is that was told to take none.
const PAUSED: &str = "paused";
/// Who has done what a call does, where there are no users.
const NOBODY: &str = "local";

pub(super) async fn run(
    call: proto::AdminCall,
    payload: &Bytes,
    mut writer: FrameWriter,
    services: Arc<Services>,
    client: &Client,
) {
    let _turn = services.calls.acquire().await;
    let answered = match client.check_call(&call.method, payload) {
        Ok(()) => answer(&call.method, payload, &services, client).await,
        Err(error) => Err(error),
    };
    let answered = answered.map(|answer| client.visible(&call.method, answer));
    match answered.and_then(|answer| within_a_frame(&call.method, &answer, &services)) {
        Ok(text) => {
            let answer = Frame::with_payload(proto::AdminAnswer {}, text);
            if writer.send(answer).await.is_ok() {
                writer.finish();
            }
        }
        Err(error) => writer.fail(hint::for_call(error, payload, &services, client).await).await,
    }
}

/// Methods whose answers may come in parts: each shows a whole message.
const IN_PARTS: [&str; 2] = ["explain", "message.capsule"];

/// The answer as it goes.
fn within_a_frame(method: &str, answer: &Value, services: &Services) -> Result<Bytes, proto::Error> {
    let text = answer.to_string();
    if text.len() <= parts::ANSWER_BYTES_MAX {
        return Ok(text.into());
    }
    if IN_PARTS.contains(&method) {
        return Ok(services.parts.keep(method, text.into())?.to_string().into());
    }
    let most = parts::ANSWER_BYTES_MAX;
    Err(Code::TooLarge.error(format!("{method}: the answer has {} bytes; a frame holds {most}", text.len())))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OneQueue {
    queue: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

async fn answer(
    method: &str,
    payload: &Bytes,
    services: &Arc<Services>,
    client: &Client,
) -> Result<Value, proto::Error> {
    match method {
        "queue.list" => {
            let Nothing {} = arguments(method, payload)?;
            Ok(json!({ "queues": info(services).await?.queues }))
        }
        "queue.show" => {
            let OneQueue { queue } = arguments(method, payload)?;
            let found = info(services).await?.queues.into_iter().find(|known| known.name == queue);
            Ok(json!({ "queue": found.ok_or_else(|| no_queue(&queue))? }))
        }
        "queue.peek" => peek::peek(services, arguments(method, payload)?).await,
        "queue.redrive" => redrive::redrive(services, arguments(method, payload)?).await,
        "ledger" => ledger::ledger(services, arguments(method, payload)?).await,
        "route.list" => {
            let Nothing {} = arguments(method, payload)?;
            Ok(json!({ "routes": routes(services, &info(services).await?) }))
        }
        "route.show" => {
            let Named { name } = arguments(method, payload)?;
            let routes = routes(services, &info(services).await?);
            let found = one(routes, &name)?;
            Ok(json!({ "uses": uses_in(&found).collect::<Vec<_>>(), "route": found }))
        }
        plugin if plugin.starts_with("plugin.") => {
            let who = client.user().unwrap_or_else(|| NOBODY.to_owned());
            plugin::answer(plugin, payload, services, &who).await
        }
        "status" => {
            let Nothing {} = arguments(method, payload)?;
            status::status(services).await
        }
        "metrics" => {
            let Nothing {} = arguments(method, payload)?;
            let text = metrics::encoded(&services.metrics).map_err(|e| Code::Internal.error(e.to_string()))?;
            Ok(json!({ "text": text }))
        }
        "explain" => explain::explain(services, arguments(method, payload)?, payload).await,
        "message.show" => message::show(services, arguments(method, payload)?).await,
        "message.capsule" => capsule::capsule(services, arguments(method, payload)?, payload).await,
        "store.backup" => longer::backup(services, arguments(method, payload)?).await,
        "store.compact" => longer::compact(services, arguments(method, payload)?).await,
        "answer.part" => services.parts.fetch(&arguments(method, payload)?),
        other => changing(other, payload, services).await,
    }
}

/// Methods that change what the router is.
async fn changing(method: &str, payload: &Bytes, services: &Arc<Services>) -> Result<Value, proto::Error> {
    match method {
        "config.reload" => {
            let Nothing {} = arguments(method, payload)?;
            define::reload(services).await
        }
        "config.diff" => {
            let Nothing {} = arguments(method, payload)?;
            define::diff(services).await
        }
        "queue.create" => define::create(Kind::Queue, arguments(method, payload)?, services).await,
        "queue.change" => define::change(Kind::Queue, arguments(method, payload)?, services).await,
        "queue.delete" => define::delete_queue(arguments(method, payload)?, services).await,
        "queue.purge" => define::purge(arguments(method, payload)?, services).await,
        "subscription.create" => define::create_subscription(arguments(method, payload)?, services).await,
        "subscription.change" => define::change_subscription(arguments(method, payload)?, services).await,
        "subscription.pause" => define::pause(arguments(method, payload)?, true, services).await,
        "subscription.resume" => define::pause(arguments(method, payload)?, false, services).await,
        "subscription.seek" => define::seek(arguments(method, payload)?, services).await,
        "subscription.delete" => define::delete_subscription(arguments(method, payload)?, services).await,
        "route.create" => define::create(Kind::Route, arguments(method, payload)?, services).await,
        "route.change" => define::change(Kind::Route, arguments(method, payload)?, services).await,
        "route.delete" => define::delete_route(arguments(method, payload)?, services).await,
        "route.pause" => define::pause_route(arguments(method, payload)?, true, services).await,
        "route.resume" => define::pause_route(arguments(method, payload)?, false, services).await,
        "route.seek" => define::seek_route(arguments(method, payload)?, services).await,
        unknown => Err(unknown_method(unknown)),
    }
}

fn unknown_method(method: &str) -> proto::Error {
    let all = crate::access::methods().collect::<Vec<_>>().join(", ");
    Code::InvalidCall.error(format!("unknown method {method:?}; there are {all}"))
}

async fn info(services: &Services) -> Result<StoreInfo, proto::Error> {
    services.store.info().await.map_err(unavailable)
}

/// The routes, with those that the store has paused shown as such.
fn routes(services: &Services, store: &StoreInfo) -> Vec<RouteInfo> {
    let mut routes = services.router.routes();
    for route in &mut routes {
        let queue = store.queues.iter().find(|queue| queue.name == route.from);
        let subscription = format!("{ROUTE_PREFIX}{}", route.name);
        let found = queue.and_then(|queue| queue.subscriptions.iter().find(|known| known.name == subscription));
        if route.state == RUNNING && found.is_some_and(|subscription| subscription.paused) {
            route.state = PAUSED;
        }
    }
    routes
}

/// The route of this name. Those who may ask for one by name may see all of them.
fn route(services: &Services, name: &str) -> Result<RouteInfo, proto::Error> {
    one(services.router.routes(), name)
}

fn one(mut routes: Vec<RouteInfo>, name: &str) -> Result<RouteInfo, proto::Error> {
    if let Some(at) = routes.iter().position(|running| running.name == name) {
        return Ok(routes.swap_remove(at));
    }
    let near = did_you_mean(name, routes.iter().map(|running| running.name.as_str()));
    Err(Code::InvalidCall.error(format!("there is no route {name:?}{near}")))
}

fn unavailable(e: StoreFailed) -> proto::Error {
    Code::Unavailable.error(e.to_string())
}

fn no_queue(name: &str) -> proto::Error {
    Code::UnknownQueue.error(format!("there is no queue {name:?}"))
}

fn arguments<T: for<'de> Deserialize<'de>>(method: &str, payload: &Bytes) -> Result<T, proto::Error> {
    if payload.len() > ARGUMENTS_BYTES_MAX {
        let text = format!("{method}: {} bytes of arguments; at most {ARGUMENTS_BYTES_MAX} are taken", payload.len());
        return Err(Code::TooLarge.error(text));
    }
    let payload: &[u8] = if payload.is_empty() { b"{}" } else { payload };
    serde_json::from_slice(payload).map_err(|e| Code::InvalidCall.error(format!("{method}: {e}")))
}
