//! A panel: one of several that share the readings, each sensor's to one panel at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, ensure};
use quipu_client::{Client, Mode, Subscribe};
use tokio::sync::watch;

/// Takes readings until all panels together have so many, and checks that those of a sensor come in order. How many this
/// one had.
pub(super) async fn show(client: Client, shown: Arc<AtomicU64>, all: u64, done: watch::Sender<bool>) -> Result<u64> {
    let subscribe = Subscribe { mode: Mode::KeyShared, ..Subscribe::new("panel", "panels") };
    let mut subscriber = client.subscribe(subscribe).await?;
    let (mut is_done, mut last, mut own) = (done.subscribe(), HashMap::new(), 0);
    loop {
        let delivery = tokio::select! {
            next = crate::next(&mut subscriber) => next?,
            done = is_done.wait_for(|done| *done) => {
                done.context("the other panels")?;
                break;
            }
        };
        let reading = crate::json(&delivery)?;
        let (sensor, n) = (reading["sensor"].to_string(), reading["n"].as_u64().context("a number")?);
        let before = last.insert(sensor.clone(), n);
        ensure!(before.is_none_or(|before| before < n), "reading {n} of {sensor} came after {before:?}");
        delivery.ack_later().await?;
        own += 1;
        if shown.fetch_add(1, Ordering::AcqRel) + 1 == all {
            done.send_replace(true);
        }
    }
    subscriber.flush().await?;
    subscriber.close().await?;
    client.close().await;
    Ok(own)
}
