//! `plugin.…`: versions in the store, what routes serve of them, and what they said and did.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use quipu_protocol::code::Code;
use quipu_protocol::proto;
use quipu_runtime::LogLevel;
use serde::Deserialize;
use serde_json::{Value, json};

use super::longer::What;
use super::{Nothing, RUNNING, arguments, unknown_method};
use crate::plugins::Push;
use crate::plugins::cases::Case;
use crate::plugins::deploy::{self, Order, Target};
use crate::plugins::figures::Figures;
use crate::plugins::upload::PIECE_BYTES_MAX;
use crate::plugins::version::{DEV, Reference, Version, is_own};
use crate::services::Services;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OnePlugin {
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Upload {
    size: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Piece {
    upload: String,
    offset: u64,
    /// Base64.
    data: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PushCall {
    upload: String,
    name: String,
    tag: Option<String>,
    #[serde(default)]
    cases: Vec<Case>,
    /// The file's name, where it was.
    source: Option<String>,
    call: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Deploy {
    name: String,
    version: String,
    route: String,
    call: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rollback {
    name: String,
    route: String,
    to: Option<String>,
    call: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Remove {
    name: String,
    version: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fetch {
    name: String,
    version: String,
    /// Where the piece begins.
    #[serde(default)]
    offset: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Logs {
    name: String,
    route: Option<String>,
    /// Lines with higher numbers than this, …
    #[serde(default)]
    after: u64,
    /// … as this run of the router counted them; another counts anew.
    life: Option<String>,
    /// Of this level and worse.
    level: Option<LogLevel>,
    /// No older than this, in Unix milliseconds.
    #[serde(default)]
    since_ms: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Traps {
    name: Option<String>,
}

pub(super) async fn answer(
    method: &str,
    payload: &Bytes,
    services: &Arc<Services>,
    who: &str,
) -> Result<Value, proto::Error> {
    match method {
        "plugin.list" => {
            let Nothing {} = arguments(method, payload)?;
            list(services).await
        }
        "plugin.show" => show(services, &arguments::<OnePlugin>(method, payload)?.name).await,
        "plugin.upload" => {
            let Upload { size } = arguments(method, payload)?;
            let upload = services.plugins.uploads.begin(size, services.plugins.store.blobs.dir());
            Ok(json!({ "upload": upload.map_err(refused)? }))
        }
        "plugin.piece" => {
            let Piece { upload, offset, data } = arguments(method, payload)?;
            let data = STANDARD.decode(data).map_err(|e| Code::InvalidCall.error(format!("plugin.piece: {e}")))?;
            let received = services.plugins.uploads.add(&upload, offset, &data).map_err(refused)?;
            Ok(json!({ "received": received }))
        }
        "plugin.fetch" => fetch(services, arguments(method, payload)?).await,
        "plugin.push" => push(services, arguments(method, payload)?, who.to_owned()).await,
        "plugin.deploy" => {
            let Deploy { name, version, route, call } = arguments(method, payload)?;
            deploy(services, Order { name, route, to: Target::Version(version), who: who.to_owned() }, call).await
        }
        "plugin.rollback" => {
            let Rollback { name, route, to, call } = arguments(method, payload)?;
            deploy(services, Order { name, route, to: Target::Back(to), who: who.to_owned() }, call).await
        }
        "plugin.remove" => {
            let Remove { name, version } = arguments(method, payload)?;
            let removed = deploy::remove(services, &Reference { name, version }).await.map_err(refused)?;
            tracing::info!(plugin = removed.name, version = removed.label(), who, "removed from the store");
            Ok(json!({ "removed": { "name": removed.name, "tag": removed.tag, "digest": removed.digest } }))
        }
        "plugin.logs" => logs(services, &arguments(method, payload)?),
        "plugin.traps" => traps(services, &arguments(method, payload)?),
        unknown => Err(unknown_method(unknown)),
    }
}

fn refused(e: anyhow::Error) -> proto::Error {
    Code::InvalidCall.error(format!("{e:#}"))
}

/// Every version, with the routes that serve it.
async fn list(services: &Services) -> Result<Value, proto::Error> {
    let (config, figures) = (services.config(), Figures::gather(&services.router));
    let line = |version: &Arc<Version>| {
        let limits = config.plugin.get(&version.name).cloned().unwrap_or_default();
        let mut uses = figures.uses_of(&version.name);
        uses.retain(|used| *used.plugin.digest == *version.digest);
        uses.dedup_by(|next, used| next.route == used.route);
        let routes: Vec<&str> = uses.iter().map(|used| used.route.as_str()).collect();
        let standing = uses.iter().filter(|used| used.state != RUNNING);
        let standing: Vec<Value> = standing
            .map(|used| json!({ "route": used.route, "state": used.state, "state_reason": used.state_reason }))
            .collect();
        json!({
            "name": version.name,
            "tag": version.tag,
            "digest": version.digest,
            "size_bytes": version.size_bytes,
            "when_ms": version.when_ms,
            "who": version.who,
            "source": version.source,
            "contract": version.contract,
            "imports": version.imports,
            "deadline_ms": limits.deadline.as_millis(),
            "memory_bytes": limits.memory_bytes,
            "output_bytes": limits.output_bytes,
            "routes": routes,
            "standing": standing,
        })
    };
    let versions = services.plugins.store.versions(None);
    Ok(json!({ "plugins": versions.iter().map(line).collect::<Vec<_>>() }))
}

async fn show(services: &Services, name: &str) -> Result<Value, proto::Error> {
    let versions = services.plugins.store.versions(Some(name));
    if versions.is_empty() {
        return Err(Code::InvalidCall.error(services.plugins.store.missing(name)));
    }
    let deployments = services.plugins.store.deployments().into_iter().filter(|(_, plugin, _)| plugin == name);
    let deployments: Vec<Value> =
        deployments.map(|(route, _, deployed)| json!({ "route": route, "deployed": deployed })).collect();
    let limits = services.config().plugin.get(name).cloned().unwrap_or_default();
    Ok(json!({
        "name": name,
        "versions": versions,
        "deployments": deployments,
        "uses": Figures::gather(&services.router).uses_of(name),
        "deadline_ms": limits.deadline.as_millis(),
        "memory_bytes": limits.memory_bytes,
        "output_bytes": limits.output_bytes,
    }))
}

async fn push(services: &Arc<Services>, call: PushCall, who: String) -> Result<Value, proto::Error> {
    let PushCall { upload, name, tag, cases, source, call } = call;
    if tag.as_deref().is_some_and(|tag| is_own(tag) && tag != DEV) {
        return Err(Code::InvalidCall.error("plugin.push: the router gives that tag itself"));
    }
    let (what, services_of) = (What::new(format!("push {upload}"), call), services.clone());
    let work = async move {
        let services = services_of;
        let bytes = services.plugins.uploads.finish(&upload).map_err(|e| format!("{e:#}"))?;
        let source = source.unwrap_or_else(|| format!("{name}.wasm"));
        let push = Push { name, tag, cases, source, who, bytes };
        let version = match services.plugins.push(push).await {
            Ok(version) => version,
            Err(e) => return Ok(json!({ "refused": format!("{e:#}") })),
        };
        let started = deploy::start_held(&services, &version.name).await;
        tracing::info!(plugin = version.name, version = version.label(), who = version.who, "pushed");
        Ok(json!({ "version": version, "started": started }))
    };
    let answer = services.longer.wait(what, work).await?;
    match answer["result"]["refused"].as_str() {
        Some(why) => Err(Code::InvalidCall.error(why)),
        None => Ok(answer),
    }
}

/// A piece of a version's file.
async fn fetch(services: &Arc<Services>, Fetch { name, version, offset }: Fetch) -> Result<Value, proto::Error> {
    let version = services.plugins.store.find(&name, &version).map_err(refused)?;
    let (blobs, digest) = (services.plugins.store.blobs.clone(), version.digest.clone());
    let bytes = tokio::task::spawn_blocking(move || blobs.read(&digest)).await;
    let bytes =
        bytes.map_err(anyhow::Error::from).and_then(|read| read).map_err(|e| Code::Internal.error(format!("{e:#}")))?;
    let piece = bytes.get(offset..bytes.len().min(offset.saturating_add(PIECE_BYTES_MAX))).unwrap_or_default();
    Ok(json!({ "digest": version.digest, "size": bytes.len(), "data": STANDARD.encode(piece) }))
}

/// A deployment that failed is an answer too: it says the step, and what serves on.
async fn deploy(services: &Arc<Services>, order: Order, call: Option<String>) -> Result<Value, proto::Error> {
    let what = What::new(format!("deploy {order:?}"), call);
    let services_of = services.clone();
    let work = async move {
        let answer = match deploy::deploy(&services_of, order).await {
            Ok(report) => serde_json::to_value(report),
            Err(failed) => serde_json::to_value(failed),
        };
        answer.map_err(|e| e.to_string())
    };
    services.longer.wait(what, work).await
}

/// The last lines. Of a plugin that is gone they are still there; of one that nobody knows there is nothing to wait for.
fn logs(services: &Services, call: &Logs) -> Result<Value, proto::Error> {
    let level = call.level.unwrap_or(LogLevel::Trace);
    let is_of_this = call.life.as_ref().is_none_or(|life| *life == services.life);
    let after = if is_of_this { call.after } else { 0 };
    let lines = services.plugins.compiler.runtime().logs(&call.name, call.route.as_deref(), after);
    let last = lines.last().map_or(after, |line| line.number);
    if lines.is_empty() && call.after == 0 {
        known(services, &call.name)?;
        if let Some(route) = &call.route {
            super::route(services, route)?;
        }
    }
    let wanted = lines.iter().filter(|line| line.level >= level && line.time_ms >= call.since_ms);
    Ok(json!({ "lines": wanted.collect::<Vec<_>>(), "after": last, "life": services.life }))
}

fn traps(services: &Services, call: &Traps) -> Result<Value, proto::Error> {
    let traps = services.router.traps().into_iter();
    let wanted: Vec<_> = traps.filter(|trap| call.name.as_ref().is_none_or(|name| trap.plugin == *name)).collect();
    if let Some(name) = call.name.as_ref().filter(|_| wanted.is_empty()) {
        known(services, name)?;
    }
    Ok(json!({ "traps": wanted }))
}

fn known(services: &Services, name: &str) -> Result<(), proto::Error> {
    if services.plugins.store.versions(Some(name)).is_empty() {
        return Err(Code::InvalidCall.error(services.plugins.store.missing(name)));
    }
    Ok(())
}
