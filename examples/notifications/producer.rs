//! Whoever has something to tell: good and bad.

use anyhow::{Context as _, Result};
use quipu_client::{Client, OutgoingMessage, PublisherOptions};

/// Publishes payloads to subjects; of each, in how many queues it is, or why it is refused.
pub(super) async fn publish(client: &Client, messages: &[(&str, &'static str)]) -> Result<Vec<Result<usize, String>>> {
    let publisher = client.publisher(PublisherOptions::default()).await?;
    let mut pending = Vec::new();
    for (subject, payload) in messages {
        pending.push(publisher.publish(OutgoingMessage::new(subject, *payload)).await?);
    }
    let mut answers = Vec::new();
    for receipt in pending {
        answers.push(match receipt.await {
            Ok(quipu_client::Receipt::Stored(places)) => Ok(places.len()),
            Ok(other) => anyhow::bail!("{other:?} of a notification"),
            Err(e) => Err(e.to_string()),
        });
    }
    publisher.close().await.context("the publisher")?;
    Ok(answers)
}
