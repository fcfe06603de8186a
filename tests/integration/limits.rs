//! Queues that are full, and what publishers see of it.

use quipu_client::{Client, Code, OutgoingMessage, Publisher, PublisherOptions, Receipt, ReceiptError, Subscribe};
use quipu_tests::{TestServer, soon};
use serde_json::{Value, json};

use crate::QUIPU;

async fn publisher(client: &Client) -> Publisher {
    client.publisher(PublisherOptions::default()).await.expect("a publisher")
}

async fn publish(publisher: &Publisher, n: u64) -> Result<Receipt, ReceiptError> {
    let receipt = publisher.publish(OutgoingMessage::new("q", n.to_string())).await.expect("published");
    soon("a receipt", receipt).await
}

async fn shown(client: &Client) -> Value {
    client.call("queue.show", json!({ "queue": "q" })).await.expect("an answer")["queue"].take()
}

fn config(on_full: &str) -> String {
    format!("[queue.q]\nmax_messages = 3\non_full = \"{on_full}\"\n")
}

#[tokio::test]
async fn a_full_queue_that_rejects_says_so() {
    let server = TestServer::start(QUIPU, &config("reject")).await;
    let client = server.client().await;
    let publisher = publisher(&client).await;
    for n in 0..3 {
        publish(&publisher, n).await.expect("stored");
    }
    let refused = publish(&publisher, 3).await.expect_err("refused");
    assert_eq!((refused.code(), refused.is_retryable()), (Some(Code::QueueFull), true));
    let mut subscriber = client.subscribe(Subscribe::new("q", "s")).await.expect("a subscriber");
    let delivery = soon("a delivery", subscriber.next()).await.expect("open").expect("a delivery");
    delivery.ack().await.expect("settled");
    publish(&publisher, 4).await.expect("there is room again");
}

#[tokio::test]
async fn a_full_queue_that_drops_the_oldest_takes_everything() {
    let server = TestServer::start(QUIPU, &config("drop-oldest")).await;
    let client = server.client().await;
    let publisher = publisher(&client).await;
    for n in 0..10 {
        publish(&publisher, n).await.expect("stored");
    }
    let queue = shown(&client).await;
    assert_eq!((&queue["messages"], &queue["first_offset"]), (&3.into(), &7.into()));
    let mut subscriber = client.subscribe(Subscribe::new("q", "s")).await.expect("a subscriber");
    let delivery = soon("a delivery", subscriber.next()).await.expect("open").expect("a delivery");
    assert_eq!(delivery.message.payload, "7");
}

#[tokio::test]
async fn a_full_queue_that_blocks_holds_its_publisher_and_no_other() {
    let server = TestServer::start(QUIPU, &(config("block") + "[queue.other]\n")).await;
    let client = server.client().await;
    let publisher = publisher(&client).await;
    let mut receipts = Vec::new();
    for n in 0..10 {
        receipts.push(publisher.publish(OutgoingMessage::new("q", n.to_string())).await.expect("published"));
    }
    soon("a publisher that waits", async {
        while client.call("status", json!({})).await.expect("an answer")["blocked_publishers"] != 1 {}
    })
    .await;
    let other = client.publisher(PublisherOptions::default()).await.expect("a publisher");
    let receipt = other.publish(OutgoingMessage::new("other", "x")).await.expect("published");
    soon("the receipt of another", receipt).await.expect("stored");
    assert_eq!(shown(&client).await["messages"], 3);
    let mut subscriber = client.subscribe(Subscribe::new("q", "s")).await.expect("a subscriber");
    for n in 0..10 {
        let delivery = soon("a delivery", subscriber.next()).await.expect("open").expect("a delivery");
        assert_eq!(delivery.message.payload, n.to_string());
        delivery.ack().await.expect("settled");
    }
    for receipt in receipts {
        assert!(matches!(soon("a receipt", receipt).await, Ok(Receipt::Stored(_))));
    }
}
