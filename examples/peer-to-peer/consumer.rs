//! The side of a peer that listens.

use anyhow::Result;
use quipu_client::{Client, Subscribe};

/// Takes so many letters out of a mailbox, in the order in which they came.
pub(super) async fn listen(client: &Client, own: &str, letters: u32) -> Result<Vec<String>> {
    let mut mailbox = client.subscribe(Subscribe::new(&format!("mail.{own}"), "reader")).await?;
    let mut read = Vec::new();
    for _ in 0..letters {
        let delivery = crate::next(&mut mailbox).await?;
        read.push(String::from_utf8_lossy(&delivery.message.payload).into_owned());
        delivery.ack().await?;
    }
    mailbox.close().await?;
    Ok(read)
}
