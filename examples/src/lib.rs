//! Examples: programs against a router, each in a folder with its configuration.
//!
//! `cargo run --example NAME` runs one of them on a router of its own: a real process with a store in a temporary
//! directory. The integration tests run the same code and count.

#[path = "../notifications/run.rs"]
pub mod notifications;
#[path = "../orders/run.rs"]
pub mod orders;
#[path = "../peer-to-peer/run.rs"]
pub mod peer_to_peer;
#[path = "../request-reply/run.rs"]
pub mod request_reply;
#[path = "../sensors/run.rs"]
pub mod sensors;

mod router;

use std::time::Duration;

use anyhow::{Context as _, Result};
use quipu_client::{Delivery, Subscriber};

pub use router::{Router, build_example};

/// For anything that must happen: far longer than it takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs an example by its name: builds the router where it is not built yet, starts it, and stops it again.
///
/// # Errors
///
/// Whatever went wrong.
pub fn main<T>(name: &str, example: impl AsyncFnOnce(&Router) -> Result<T>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let binary = router::build().await?;
        let router = Router::start(&binary, name).await?;
        println!("A router listens on {}.\n", router.address());
        example(&router).await?;
        router.stop().await
    })
}

/// The next delivery of a subscriber, which must come.
async fn next(subscriber: &mut Subscriber) -> Result<Delivery> {
    let next = tokio::time::timeout(PATIENCE, subscriber.next()).await.context("nothing is delivered")?;
    Ok(next.context("the subscription is over")??)
}

/// The payload as JSON.
fn json(delivery: &Delivery) -> Result<serde_json::Value> {
    serde_json::from_slice(&delivery.message.payload).context("a payload that is no JSON")
}
