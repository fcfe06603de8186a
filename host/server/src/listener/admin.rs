//! An admin stream: one call, one answer, both JSON. A call is short; what takes long is called again until it is done.

mod ledger;
mod longer;
mod plugin;
mod redrive;
mod status;

use std::sync::Arc;

use bytes::Bytes;
use quipu_protocol::code::Code;
use quipu_protocol::frame::Frame;
use quipu_protocol::proto;
use quipu_queue::{StoreFailed, StoreInfo};
use serde::Deserialize;
use serde_json::{Value, json};

use super::frames::FrameWriter;
use crate::access::Client;
use crate::services::Services;
pub(crate) use longer::Longer;

/// Longest arguments of a call, in bytes.
const ARGUMENTS_BYTES_MAX: usize = 1 << 20;
/// Calls that are answered at a time; the rest waits.
pub(crate) const CALLS_MAX: usize = 16;
/// Who is said to have done what a call does, where there are no users.
const NOBODY: &str = "local";
const METHODS: &str = "queue.list, queue.show, queue.redrive, ledger, route.list, status, store.backup, store.compact";

pub(super) async fn run(
    call: proto::AdminCall,
    payload: &Bytes,
    mut writer: FrameWriter,
    services: Arc<Services>,
    client: &Client,
) {
    let _turn = services.calls.acquire().await;
    let answered = match client.check_call(&call.method, payload) {
        Ok(()) if call.method.starts_with("plugin.") => {
            let who = client.user().unwrap_or_else(|| NOBODY.to_owned());
            plugin::answer(&call.method, payload, &services, &who).await
        }
        Ok(()) => answer(&call.method, payload, &services).await,
        Err(error) => Err(error),
    };
    match answered.map(|answer| client.visible(&call.method, answer)) {
        Ok(value) => {
            let answer = Frame::with_payload(proto::AdminAnswer {}, value.to_string().into());
            if writer.send(answer).await.is_ok() {
                writer.finish();
            }
        }
        Err(error) => writer.fail(error).await,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OneQueue {
    queue: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

async fn answer(method: &str, payload: &Bytes, services: &Arc<Services>) -> Result<Value, proto::Error> {
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
        "queue.redrive" => redrive::redrive(services, arguments(method, payload)?).await,
        "ledger" => ledger::ledger(services, arguments(method, payload)?).await,
        "route.list" => {
            let Nothing {} = arguments(method, payload)?;
            Ok(json!({ "routes": services.router.routes() }))
        }
        "status" => {
            let Nothing {} = arguments(method, payload)?;
            status::status(services).await
        }
        "store.backup" => longer::backup(services, arguments(method, payload)?).await,
        "store.compact" => {
            let Nothing {} = arguments(method, payload)?;
            longer::compact(services).await
        }
        unknown => {
            let all = format!("{METHODS}, {}", plugin::METHODS);
            Err(Code::InvalidCall.error(format!("unknown method {unknown:?}; there are {all}")))
        }
    }
}

async fn info(services: &Services) -> Result<StoreInfo, proto::Error> {
    services.store.info().await.map_err(unavailable)
}

fn unavailable(e: StoreFailed) -> proto::Error {
    Code::Unavailable.error(e.to_string())
}

fn no_queue(name: &str) -> proto::Error {
    Code::UnknownQueue.error(format!("there is no queue {name:?}"))
}

fn arguments<T: for<'de> Deserialize<'de>>(method: &str, payload: &Bytes) -> Result<T, proto::Error> {
    if payload.len() > ARGUMENTS_BYTES_MAX {
        return Err(Code::TooLarge.error(format!("{method}: {} bytes of arguments", payload.len())));
    }
    let payload: &[u8] = if payload.is_empty() { b"{}" } else { payload };
    serde_json::from_slice(payload).map_err(|e| Code::InvalidCall.error(format!("{method}: {e}")))
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_method_has_its_right() {
        let all = super::METHODS.split(", ").chain(super::plugin::METHODS.split(", "));
        assert_eq!(all.collect::<Vec<_>>(), crate::access::methods());
    }
}
