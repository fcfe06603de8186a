//! One way of telling: a queue, and what is sent by it.

use anyhow::Result;
use quipu_client::{Client, Subscribe};

/// Takes so many notifications, and gives their texts.
pub(super) async fn send(client: &Client, queue: &str, count: usize) -> Result<Vec<String>> {
    let mut subscriber = client.subscribe(Subscribe::new(queue, "sender")).await?;
    let mut texts = Vec::new();
    for _ in 0..count {
        let delivery = crate::next(&mut subscriber).await?;
        let text = crate::json(&delivery)?["text"].as_str().unwrap_or_default().to_owned();
        println!("{queue:<8} {text}");
        texts.push(text);
        delivery.ack().await?;
    }
    subscriber.close().await?;
    Ok(texts)
}
