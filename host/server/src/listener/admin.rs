//! An admin stream: one call, one answer, both JSON.

use std::sync::Arc;

use bytes::Bytes;
use quipu_protocol::code::Code;
use quipu_protocol::frame::Frame;
use quipu_protocol::proto;
use serde::Deserialize;
use serde_json::{Value, json};

use super::frames::FrameWriter;
use crate::services::Services;

/// Longest arguments of a call, in bytes.
const ARGUMENTS_BYTES_MAX: usize = 1 << 20;

pub(super) async fn run(call: proto::AdminCall, payload: &Bytes, mut writer: FrameWriter, services: Arc<Services>) {
    match answer(&call.method, payload, &services).await {
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
struct QueueShow {
    queue: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

async fn answer(method: &str, payload: &Bytes, services: &Services) -> Result<Value, proto::Error> {
    match method {
        "queue.list" => {
            let Nothing {} = arguments(method, payload)?;
            let queues = services.store.queues().await.map_err(|e| Code::Unavailable.error(e.to_string()))?;
            Ok(json!({ "queues": queues }))
        }
        "queue.show" => {
            let QueueShow { queue } = arguments(method, payload)?;
            let queues = services.store.queues().await.map_err(|e| Code::Unavailable.error(e.to_string()))?;
            let found = queues.into_iter().find(|known| known.name == queue);
            let found = found.ok_or_else(|| Code::UnknownQueue.error(format!("there is no queue {queue:?}")))?;
            Ok(json!({ "queue": found }))
        }
        "route.list" => {
            let Nothing {} = arguments(method, payload)?;
            Ok(json!({ "routes": services.router.routes() }))
        }
        "plugin.list" => {
            let Nothing {} = arguments(method, payload)?;
            Ok(json!({ "plugins": services.plugins }))
        }
        unknown => {
            let methods = "queue.list, queue.show, route.list, plugin.list";
            Err(Code::InvalidCall.error(format!("unknown method {unknown:?}; there are {methods}")))
        }
    }
}

fn arguments<T: for<'de> Deserialize<'de>>(method: &str, payload: &Bytes) -> Result<T, proto::Error> {
    if payload.len() > ARGUMENTS_BYTES_MAX {
        return Err(Code::TooLarge.error(format!("{method}: {} bytes of arguments", payload.len())));
    }
    let payload: &[u8] = if payload.is_empty() { b"{}" } else { payload };
    serde_json::from_slice(payload).map_err(|e| Code::InvalidCall.error(format!("{method}: {e}")))
}
