//! What a bench asks of a router besides messages.

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quipu_client::Client;
use serde_json::{Value, json};

/// Bytes of a file that go in one call.
const PIECE_BYTES: usize = 512 << 10;

/// Copies a plugin into the router's store; its digest.
pub(crate) async fn push(client: &Client, name: &str, bytes: &[u8]) -> Result<String> {
    let begun = client.call("plugin.upload", json!({ "size": bytes.len() })).await?;
    let upload = &begun["upload"];
    for (n, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
        let call = json!({ "upload": upload, "offset": n * PIECE_BYTES, "data": STANDARD.encode(piece) });
        client.call("plugin.piece", call).await?;
    }
    let pushed = until_done(client, "plugin.push", &json!({ "upload": upload, "name": name })).await?;
    Ok(pushed["version"]["digest"].as_str().context("a version without a digest")?.to_owned())
}

/// Puts a version into a route; what the router says of it.
pub(crate) async fn deploy(client: &Client, name: &str, version: &str, route: &str) -> Result<Value> {
    let order = json!({ "name": name, "version": version, "route": route });
    let report = until_done(client, "plugin.deploy", &order).await?;
    ensure!(report["deployed"] == true && report["probed"] == true, "not deployed: {report}");
    Ok(report)
}

/// Has the router read its configuration again, which must have changed.
pub(crate) async fn reload(client: &Client) -> Result<()> {
    let answer = client.call("config.reload", json!({})).await?;
    ensure!(answer["changes"].as_array().is_some_and(|changes| !changes.is_empty()), "nothing changed: {answer}");
    Ok(())
}

/// A field of a queue's listing.
pub(crate) async fn queue(client: &Client, name: &str, field: &str) -> Result<u64> {
    let answer = client.call("queue.show", json!({ "queue": name })).await?;
    answer["queue"][field].as_u64().with_context(|| format!("no {field} in {answer}"))
}

/// A route's listing.
pub(crate) async fn route(client: &Client, name: &str) -> Result<Value> {
    let answer = client.call("route.list", json!({})).await?;
    let mut routes = answer["routes"].as_array().into_iter().flatten();
    routes.find(|route| route["name"] == name).cloned().with_context(|| format!("no route {name} in {answer}"))
}

async fn until_done(client: &Client, method: &str, arguments: &Value) -> Result<Value> {
    loop {
        let mut answer = client.call(method, arguments.clone()).await.with_context(|| method.to_owned())?;
        if answer["done"] == true {
            return Ok(answer["result"].take());
        }
    }
}
