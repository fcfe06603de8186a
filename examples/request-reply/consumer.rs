//! The price desk: it takes questions and answers each.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use quipu_client::{Client, Subscribe};

const PRICES: [(&[u8], &str); 3] = [(b"loom", "250"), (b"yarn", "12"), (b"spindle", "180")];

/// Answers until it is stopped. Several of these share the questions.
pub(super) async fn answer(client: Client, answered: Arc<AtomicUsize>) -> Result<()> {
    let mut responder = client.respond(Subscribe::new("prices", "desk")).await?;
    while let Some(asked) = responder.next().await {
        let asked = asked?;
        match PRICES.iter().find(|(item, _)| asked.message().payload == item) {
            Some((_, price)) => asked.reply(*price).await?,
            None => asked.fail("no such item").await?,
        };
        answered.fetch_add(1, Ordering::AcqRel);
    }
    Ok(())
}
