//! `message.show`: what became of a message, as far as it is known.

use quipu_protocol::{Message, proto};
use quipu_queue::Stored;
use serde::Deserialize;
use serde_json::{Value, json};

use super::unavailable;
use crate::services::Services;

/// Messages of all queues that are looked at.
const LOOK_MAX: u64 = 100_000;
/// What the headers of a dead letter begin with.
const DEAD: &str = "quipu-dead-";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OneMessage {
    id: String,
}

pub(super) async fn show(services: &Services, OneMessage { id }: OneMessage) -> Result<Value, proto::Error> {
    let trace = services.router.trace();
    let events = trace.show(&id);
    let mut ids: Vec<&str> = vec![&id];
    for event in &events {
        if !ids.contains(&event.id.as_str()) {
            ids.push(&event.id);
        }
    }
    let (mut places, mut looked, mut done) = (Vec::new(), 0, true);
    // What it was made of and what was made of it, a few of each: every search goes through all queues.
    for id in ids.into_iter().take(8) {
        let found = services.store.find(id, LOOK_MAX).await.map_err(unavailable)?;
        looked = looked.max(found.looked);
        done &= found.done;
        places.extend(found.messages.iter().map(|(queue, offset, stored)| place(queue, offset.0, stored)));
    }
    Ok(json!({ "id": id, "events": events, "places": places, "trace": trace.info(), "looked": looked, "all": done }))
}

fn place(queue: &str, offset: u64, stored: &Stored) -> Value {
    let mut place = json!({ "queue": queue, "offset": offset, "payload_bytes": stored.payload.len() });
    if let Ok(message) = Message::decode(stored.header.clone(), bytes::Bytes::new()) {
        place["id"] = message.id.as_str().into();
        place["subject"] = message.subject.as_str().into();
        place["published_ms"] = message.published_ms.into();
        let dead = message.headers.iter().filter_map(|(name, value)| Some((name.strip_prefix(DEAD)?, value)));
        let dead: serde_json::Map<String, Value> =
            dead.map(|(name, value)| (name.to_owned(), value.to_owned().into())).collect();
        if !dead.is_empty() {
            place["dead"] = dead.into();
        }
    }
    place
}
