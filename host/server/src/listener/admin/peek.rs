//! `queue.peek`: the last messages of a queue, as they are. Nothing is consumed.

use quipu_protocol::code::Code;
use quipu_protocol::{Message, proto};
use quipu_queue::{Offset, PeekError, Stored};
use quipu_runtime::MessageRecord;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{no_queue, unavailable};
use crate::services::Services;

/// Messages of one answer.
const MESSAGES_MAX: usize = 256;
/// Bytes of one answer's messages: in base64, with what is around them, well below what a frame holds.
const BYTES_MAX: u64 = 1 << 20;
/// The largest payload that one message may have to be shown; of larger ones only the size is.
const PAYLOAD_SHOWN_MAX: usize = 4 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {
    queue: String,
    last: usize,
    /// Those before this offset; from the end, unless said.
    before: Option<u64>,
}

/// Ascending; `before` is where the next older ones are asked for, and null where there are none.
pub(super) async fn peek(services: &Services, arguments: Arguments) -> Result<Value, proto::Error> {
    let Arguments { queue, last, before } = arguments;
    let before = Offset(before.unwrap_or(u64::MAX));
    let found = services.store.peek_before(&queue, before, last.min(MESSAGES_MAX), BYTES_MAX).await;
    let found = found.map_err(unavailable)?.map_err(|e| match e {
        PeekError::UnknownQueue(queue) => no_queue(&queue),
        unreadable @ PeekError::Unreadable { .. } => Code::Internal.error(unreadable.to_string()),
    })?;
    let next = found.first().map(|(offset, _)| offset.0);
    let messages: Vec<Value> = found.iter().map(|(offset, stored)| shown(*offset, stored)).collect();
    Ok(json!({ "queue": queue, "messages": messages, "before": next }))
}

fn shown(offset: Offset, stored: &Stored) -> Value {
    let bytes = stored.payload.len();
    let message = (bytes <= PAYLOAD_SHOWN_MAX).then(|| Message::decode(stored.header.clone(), stored.payload.clone()));
    let message = message.and_then(Result::ok).map(|message| MessageRecord::of(&message));
    json!({ "offset": offset.0, "payload_bytes": bytes, "message": message })
}
