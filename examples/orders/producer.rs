//! The shop: it publishes orders, and knows nothing of who takes them.

use std::time::Duration;

use anyhow::Result;
use quipu_client::{Client, OutgoingMessage, PublisherOptions};
use serde_json::json;

/// Between two orders of a shop that is open.
const PAUSE: Duration = Duration::from_millis(10);

/// Publishes the orders with these numbers, many under way at once, and waits until all are on disk.
pub(super) async fn publish(client: &Client, numbers: impl Iterator<Item = u64>) -> Result<()> {
    let publisher = client.publisher(PublisherOptions::default()).await?;
    let mut receipts = Vec::new();
    for number in numbers {
        receipts.push(publisher.publish(order(number)).await?);
    }
    for receipt in receipts {
        receipt.await?;
    }
    Ok(publisher.close().await?)
}

/// Publishes one order after the other, from this number on, while something else goes on: what that comes to, and the
/// last order.
pub(super) async fn publish_during<T>(
    client: &Client,
    first: u64,
    goes_on: impl Future<Output = T>,
) -> Result<(T, u64)> {
    let publisher = client.publisher(PublisherOptions::default()).await?;
    let mut goes_on = std::pin::pin!(goes_on);
    let mut number = first;
    loop {
        publisher.publish(order(number)).await?.await?;
        tokio::select! {
            done = &mut goes_on => {
                publisher.close().await?;
                return Ok((done, number));
            }
            () = tokio::time::sleep(PAUSE) => number += 1,
        }
    }
}

fn order(number: u64) -> OutgoingMessage {
    // A free sample has no pieces to pay for.
    let pieces = if number == super::SAMPLE { 0 } else { 1 + number % 3 };
    let order = json!({
        "order": number, "customer": format!("c{}", number % 7), "pieces": pieces, "total_cents": 1_250 * pieces,
        "pick_up": number.is_multiple_of(4),
    });
    OutgoingMessage::new("orders.shop", order.to_string()).id(&format!("order-{number}"))
}
