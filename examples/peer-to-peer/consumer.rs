//! The side of a peer that listens.

use anyhow::Result;
use quipu_client::{Client, Subscribe};

/// Takes so many letters out of a mailbox, in the order in which they came, and says so.
pub(super) async fn listen(client: &Client, own: &str, letters: u32) -> Result<()> {
    let mut mailbox = client.subscribe(Subscribe::new(&format!("mail.{own}"), "reader")).await?;
    for _ in 0..letters {
        let delivery = crate::next(&mut mailbox).await?;
        println!("{own} got {}", String::from_utf8_lossy(&delivery.message.payload));
        delivery.ack().await?;
    }
    mailbox.close().await?;
    Ok(())
}
