//! `queue.redrive`: dead letters go back to where they died, a slice a call.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quipu_protocol::code::Code;
use quipu_protocol::{Message, proto};
use quipu_queue::{Offset, Redrive};
use quipu_router::Condition;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{no_queue, unavailable};
use crate::services::Services;

/// Letters that one call looks at. A filter is evaluated where the store waits for it, so those are fewer.
const LOOK: usize = 1_024;
const LOOK_FILTERED: usize = 64;

/// What a dead letter says of its fault.
const FINGERPRINT: &str = "quipu-dead-fingerprint";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {
    queue: String,
    /// Where to go on: `next` of the answer before.
    #[serde(default)]
    from: u64,
    /// A CEL expression over the letter.
    filter: Option<String>,
    id: Option<String>,
    /// Of a plugin's fault, as in the letter's header.
    fingerprint: Option<String>,
    offset: Option<u64>,
    /// Moves so many at most.
    limit: Option<u64>,
    /// Messages a second: the answer comes no sooner than what it moved takes.
    rate: Option<u64>,
    #[serde(default)]
    dry_run: bool,
}

pub(super) async fn redrive(services: &Services, arguments: Arguments) -> Result<Value, proto::Error> {
    let Arguments { queue, from, filter, id, fingerprint, offset, limit, rate, dry_run } = arguments;
    if limit == Some(0) || rate == Some(0) {
        return Err(Code::InvalidCall.error("queue.redrive: `limit` and `rate` are at least 1"));
    }
    let filter = filter.as_deref().map(Condition::new).transpose();
    let filter = filter.map_err(|e| Code::InvalidCall.error(format!("queue.redrive: filter: {e}")))?;
    let look = match (offset, &filter) {
        (Some(_), _) => 1,
        (None, Some(_)) => LOOK_FILTERED,
        (None, None) => LOOK,
    };
    // What takes a second at most, so that the call is short.
    let take = limit.unwrap_or(u64::MAX).min(rate.unwrap_or(u64::MAX));
    let unclear = Arc::new(AtomicU64::new(0));
    let redrive = Redrive {
        queue: queue.clone(),
        from: Offset(offset.unwrap_or(from)),
        look,
        take: usize::try_from(take).unwrap_or(usize::MAX),
        only: only(filter, (id, fingerprint), offset, unclear.clone()),
        dry_run,
    };
    let said = services.store.redrive(redrive).await.map_err(unavailable)?.ok_or_else(|| no_queue(&queue))?;
    let moved: u64 = said.moved.iter().map(|(_, _, count)| count).sum();
    if let Some(rate) = rate.filter(|_| !dry_run && moved > 0) {
        tokio::time::sleep(Duration::from_secs(moved) / u32::try_from(rate).unwrap_or(u32::MAX)).await;
    }
    let by_destination: Vec<Value> = said
        .moved
        .iter()
        .map(|(queue, subscription, count)| json!({ "queue": queue, "subscription": subscription, "count": count }))
        .collect();
    let refused: Vec<Value> =
        said.refused.iter().map(|(offset, why)| json!({ "offset": offset.0, "why": why })).collect();
    Ok(json!({
        "moved": by_destination,
        "moved_count": moved,
        "refused": refused,
        "refused_count": said.refused_count,
        "filter_errors": unclear.load(Ordering::Acquire),
        "next": said.next.0,
        "done": said.done || offset.is_some(),
    }))
}

type Only = Box<dyn Fn(Offset, &Message) -> bool + Send>;

/// Which letters are meant. Those that the filter cannot be evaluated on are not; they are counted.
fn only(
    filter: Option<Condition>,
    (id, fingerprint): (Option<String>, Option<String>),
    offset: Option<u64>,
    unclear: Arc<AtomicU64>,
) -> Only {
    Box::new(move |at, message| {
        let meant = offset.is_none_or(|offset| at.0 == offset)
            && id.as_ref().is_none_or(|id| message.id.as_str() == id)
            && fingerprint.as_deref().is_none_or(|wanted| message.headers.first(FINGERPRINT) == Some(wanted));
        let Some(filter) = filter.as_ref().filter(|_| meant) else { return meant };
        filter.matches(message, attempts(message)).unwrap_or_else(|_| {
            unclear.fetch_add(1, Ordering::AcqRel);
            false
        })
    })
}

/// How often it was tried before it died.
fn attempts(message: &Message) -> u32 {
    message.headers.first("quipu-dead-attempts").and_then(|attempts| attempts.parse().ok()).unwrap_or(1)
}
