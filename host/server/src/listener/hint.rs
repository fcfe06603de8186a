//! What an unknown name was most likely meant to be, told to those who may see that name anyway.

use bytes::Bytes;
use quipu_protocol::code::Code;
use quipu_protocol::proto;
use serde::Deserialize;

use crate::access::Client;
use crate::nearest::did_you_mean;
use crate::services::Services;

/// What a call names.
#[derive(Default, Deserialize)]
struct Named {
    queue: Option<String>,
    /// The queue, in calls that are about one.
    name: Option<String>,
    subscription: Option<String>,
}

/// The error of a call, with the queue or subscription that is nearest to what the call names.
pub(super) async fn for_call(
    error: proto::Error,
    payload: &Bytes,
    services: &Services,
    client: &Client,
) -> proto::Error {
    let code = Code::from_number(error.code);
    if !matches!(code, Some(Code::UnknownQueue | Code::UnknownSubscription)) {
        return error;
    }
    let Named { queue, name, subscription } = serde_json::from_slice(payload).unwrap_or_default();
    match (code, queue, subscription) {
        (Some(Code::UnknownSubscription), Some(queue), Some(subscription)) if client.may_read(&queue) => {
            let queues = services.store.info().await.map(|info| info.queues).unwrap_or_default();
            let of_queue = queues.iter().filter(|known| known.name == queue).flat_map(|known| &known.subscriptions);
            with(error, &did_you_mean(&subscription, of_queue.map(|known| known.name.as_str())))
        }
        (Some(Code::UnknownQueue), queue, _) => match queue.or(name) {
            Some(queue) => for_queue(error, &queue, services, |name| client.may_read(name)).await,
            None => error,
        },
        _ => error,
    }
}

/// The error about an unknown queue, with the nearest of those that may be seen.
pub(super) async fn for_queue(
    error: proto::Error,
    queue: &str,
    services: &Services,
    may_see: impl Fn(&str) -> bool,
) -> proto::Error {
    let queues = services.store.info().await.map(|info| info.queues).unwrap_or_default();
    let visible = queues.iter().map(|known| known.name.as_str()).filter(|name| may_see(name));
    with(error, &did_you_mean(queue, visible))
}

fn with(error: proto::Error, hint: &str) -> proto::Error {
    let text = error.text.clone() + hint;
    // Cut to what an error holds.
    match Code::from_number(error.code) {
        Some(code) => code.error(text),
        None => error,
    }
}
