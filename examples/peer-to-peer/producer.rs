//! The side of a peer that sends.

use anyhow::Result;
use quipu_client::{Client, OutgoingMessage, PublisherOptions};

/// Sends so many letters to somebody's mailbox, one after the other, each once the one before is on disk.
pub(super) async fn send(client: &Client, from: &str, to: &str, letters: u32) -> Result<u32> {
    let publisher = client.publisher(PublisherOptions::default()).await?;
    for n in 1..=letters {
        let letter = OutgoingMessage::new(&format!("mail.{to}"), format!("{from}'s letter {n}")).header("from", from);
        publisher.publish(letter).await?.await?;
    }
    publisher.close().await?;
    Ok(letters)
}
