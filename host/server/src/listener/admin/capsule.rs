//! `message.capsule`: what the plugin saw that a dead letter died in, to be tried again elsewhere.

use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use bytes::Bytes;
use quipu_protocol::{Message, proto};
use quipu_queue::{Offset, PeekError, Stored};
use quipu_runtime::{Attempt, Capsule, CapturedLog, Component, Digest, Hand, Use, Verdict};
use serde::Deserialize;
use serde_json::{Value, json};

use super::longer::What;
use crate::nearest::did_you_mean;
use crate::services::Services;

const DEAD: &str = "quipu-dead-";
const CAPSULE: &str = "quipu-dead-capsule";
/// Messages of all queues that are looked at for an id.
const LOOK_MAX: u64 = 100_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {
    queue: Option<String>,
    offset: Option<u64>,
    id: Option<String>,
    call: Option<String>,
}

/// The header of a dead letter.
#[derive(Deserialize)]
struct Recorded {
    at: usize,
    attempt: u32,
    clock: u64,
    seed: u64,
    route: String,
    chain: Vec<String>,
    started: Vec<u64>,
}

/// A plugin of the chain, and how it was used.
struct Step {
    name: String,
    component: Component,
    r#use: Use,
}

pub(super) async fn capsule(
    services: &Arc<Services>,
    arguments: Arguments,
    payload: &Bytes,
) -> Result<Value, proto::Error> {
    let what = What::new(format!("capsule {}", Digest::of(payload)), arguments.call.clone());
    let services_of = services.clone();
    let work = async move { made(&services_of, arguments).await.map_err(|e| format!("{e:#}")) };
    services.longer.wait(what, work).await
}

async fn made(services: &Services, arguments: Arguments) -> Result<Value> {
    let _turn = services.trials.clone().acquire_owned().await?;
    let (place, stored) = find(services, arguments).await?;
    let mut message = Message::decode(stored.header.clone(), stored.payload.clone())?;
    let recorded = message.headers.first(CAPSULE);
    let recorded = recorded.with_context(|| format!("{place} did not die in a plugin: it has no {CAPSULE} header"))?;
    let recorded: Recorded = serde_json::from_str(recorded).with_context(|| format!("{place}: {CAPSULE}"))?;
    let said = |name: &str| message.headers.first(&format!("{DEAD}{name}")).map(str::to_owned);
    let (fault, fingerprint, reason) = (said("fault"), said("fingerprint"), said("reason"));
    let dead: Vec<String> =
        message.headers.iter().map(|(name, _)| name.to_owned()).filter(|name| name.starts_with(DEAD)).collect();
    for name in dead {
        message.headers.remove(&name);
    }
    let steps = steps(services, &recorded).await?;
    let hand = Hand::new(message, recorded.attempt, recorded.clock, recorded.seed);
    let (capsule, attempt) = tokio::task::spawn_blocking(move || replay(steps, hand)).await??;
    let same = match (&attempt.verdict, &fault) {
        (Err(again), Some(kind)) => {
            again.kind.as_str() == kind && fingerprint.as_ref().is_none_or(|known| *known == again.fingerprint())
        }
        (Ok(Verdict::Reject(text) | Verdict::Retry { reason: text, .. }), None) => {
            reason.as_ref().is_some_and(|reason| reason.contains(text.as_str()))
        }
        _ => false,
    };
    let again = attempt.verdict_name();
    // Only what the letter says is the record. Where a replay here differs, so will the one elsewhere.
    let capsule = match (same, fault) {
        (true, _) => capsule.with_outcome(&attempt),
        (false, fault) => Capsule {
            verdict: Some(fault.map_or_else(|| "reject".to_owned(), |kind| format!("fault {kind}"))),
            ..capsule
        },
    };
    let capsule: Value = serde_json::from_str(&capsule.to_json())?;
    Ok(json!({
        "place": place, "capsule": capsule, "same": same, "again": again, "fingerprint": fingerprint, "reason": reason,
    }))
}

async fn find(services: &Services, arguments: Arguments) -> Result<(String, Arc<Stored>)> {
    match arguments {
        Arguments { queue: Some(queue), offset: Some(offset), id: None, .. } => {
            let found = match services.store.peek(&queue, Offset(offset), 1, u64::MAX).await? {
                Err(e @ PeekError::UnknownQueue(_)) => {
                    let queues = services.store.info().await?.queues;
                    bail!("{e}{}", did_you_mean(&queue, queues.iter().map(|known| known.name.as_str())));
                }
                found => found?,
            };
            let found = found.into_iter().find(|(at, _)| at.0 == offset);
            let place = format!("{queue} offset {offset}");
            let (_, stored) = found.with_context(|| format!("there is no message at {place}"))?;
            Ok((place, stored))
        }
        Arguments { queue: None, offset: None, id: Some(id), .. } => {
            let found = services.store.find(&id, LOOK_MAX).await?;
            let has = |stored: &Stored| {
                let message = Message::decode(stored.header.clone(), Bytes::new());
                message.is_ok_and(|message| message.headers.first(CAPSULE).is_some())
            };
            let letter = found.messages.into_iter().find(|(.., stored)| has(stored));
            let (queue, offset, stored) = letter.ok_or_else(|| {
                anyhow!("no dead letter of a plugin has the id {id:?}, among {} messages", found.looked)
            })?;
            Ok((format!("{queue} offset {}", offset.0), stored))
        }
        _ => bail!("say `queue` and `offset`, or `id`"),
    }
}

/// The plugins up to the one that failed, each as it was used then.
async fn steps(services: &Services, recorded: &Recorded) -> Result<Vec<Step>> {
    let config = services.config();
    ensure!((1..=recorded.chain.len()).contains(&recorded.at), "the header's `at` is {}", recorded.at);
    let mut steps = Vec::new();
    for (n, text) in recorded.chain.iter().take(recorded.at).enumerate() {
        let (name, digests) = text.rsplit_once('@').unwrap_or(("", text));
        let (digest, config_digest) = digests.split_once('/').context("the header's `chain` has no digests")?;
        let name = match name {
            // A long chain has digests alone.
            "" => {
                let versions = services.plugins.store.versions(None);
                let found = versions.iter().find(|version| version.digest.starts_with(digest));
                found.with_context(|| format!("plugin {digest} is not in the store any more"))?.name.clone()
            }
            name => name.to_owned(),
        };
        let component = services.plugins.by_digest(&name, digest).await?;
        let r#use = services.plugins.use_of(&config, &recorded.route, &name, config_digest).await?;
        let r#use = Use { started_ms: recorded.started.get(n).copied(), ..r#use };
        steps.push(Step { name, component, r#use });
    }
    Ok(steps)
}

/// Runs the plugins before the last one, and then that one: what it saw, and what it comes to.
fn replay(steps: Vec<Step>, mut hand: Hand) -> Result<(Capsule, Attempt)> {
    let last = steps.len().saturating_sub(1);
    for (n, Step { name, component, r#use }) in steps.into_iter().enumerate() {
        let mut guest = component.plugin_with(r#use.clone(), Arc::new(CapturedLog::default()))?;
        if n == last {
            let capsule = Capsule::of(&name, *component.digest(), &r#use, &hand);
            return Ok((capsule, Attempt::of(&mut guest, hand, None)));
        }
        let attempt = Attempt::of(&mut guest, hand, None);
        match &attempt.verdict {
            Ok(Verdict::Forward | Verdict::Route(_)) => hand = attempt.output,
            _ => {
                bail!("plugin {} ({name}), before the one that failed, comes to {} now", n + 1, attempt.verdict_name())
            }
        }
        hand.emitted.clear();
    }
    bail!("a chain without plugins")
}
