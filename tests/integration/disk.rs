//! A disk that is full: publishers are told, consumers go on, and room that comes back is used without a restart.

use bytes::Bytes;
use quipu_client::{Client, Code, OutgoingMessage, PublisherOptions, Receipt, ReceiptError, Subscribe};
use quipu_tests::{TestServer, soon};
use serde_json::{Value, json};

use crate::QUIPU;

const PAYLOAD_BYTES: usize = 64 << 10;
/// The journal's segments are within this, the state file soon is not.
const FILE_BYTES: u64 = 6 << 20;
/// Far more than the journal holds.
const MESSAGES_MAX: u64 = 2_000;

/// Refused publishes, each by itself: as records they would be more than the journal holds.
const REFUSED: usize = 1_500;

async fn publish(client: &Client, name: Option<&str>) -> Result<Receipt, ReceiptError> {
    let options = PublisherOptions { name: name.map(str::to_owned), ..PublisherOptions::default() };
    let publisher = client.publisher(options).await.expect("a publisher");
    let message = OutgoingMessage::new("q", Bytes::from(vec![b'x'; PAYLOAD_BYTES]));
    let receipt = publisher.publish(message).await.expect("sent");
    let receipt = soon("a receipt", receipt).await;
    publisher.close().await.expect("closed");
    receipt
}

async fn status(server: &TestServer) -> (Option<i32>, Value) {
    let output = server.cli_output(&["status", "--json"]).await;
    (output.status.code(), serde_json::from_slice(&output.stdout).expect("JSON"))
}

#[tokio::test]
async fn a_full_disk_stops_publishers_alone_and_only_while_it_is_full() {
    fill_the_disk(None).await;
}

/// Refusals of a named publisher are remembered, but not at the cost of those who make room.
#[tokio::test]
async fn a_full_disk_stops_a_named_publisher_alone_and_only_while_it_is_full() {
    fill_the_disk(Some("orders")).await;
}

async fn fill_the_disk(name: Option<&str>) {
    let server = TestServer::start(QUIPU, "memory = \"1MiB\"\n[queue.q]\n").await;
    let client = server.client().await;
    let mut subscriber = client.subscribe(Subscribe::new("q", "s")).await.expect("a subscriber");
    server.limit_file_bytes(Some(FILE_BYTES));
    let mut stored = 0;
    let refused = loop {
        match publish(&client, name).await {
            Ok(_) => stored += 1,
            Err(refused) => break refused,
        }
        assert!(stored < MESSAGES_MAX, "nothing was ever refused");
    };
    assert_eq!((refused.code(), refused.is_retryable()), (Some(Code::DiskFull), true), "{refused}");
    let (code, said) = status(&server).await;
    assert_eq!((code, &said["ready"]), (Some(1), &false.into()), "{said}");
    assert!(said["reasons"].to_string().contains("checkpoint failed"), "{said}");

    let options = PublisherOptions { name: name.map(str::to_owned), ..PublisherOptions::default() };
    let publisher = client.publisher(options).await.expect("a publisher");
    for _ in 0..REFUSED {
        let receipt = publisher.publish(OutgoingMessage::new("q", "x")).await.expect("sent");
        let refused = soon("an answer", receipt).await.expect_err("refused");
        assert_eq!(refused.code(), Some(Code::DiskFull), "{refused}");
    }
    publisher.close().await.expect("closed");
    for _ in 0..stored {
        let delivery = soon("a delivery", subscriber.next()).await.expect("open").expect("a delivery");
        assert_eq!(delivery.message.payload.len(), PAYLOAD_BYTES);
        delivery.ack().await.expect("settled");
    }
    server.limit_file_bytes(None);
    soon("room", async {
        while let Err(refused) = publish(&client, name).await {
            assert_eq!(refused.code(), Some(Code::DiskFull), "{refused}");
        }
    })
    .await;
    soon("a router that is ready", async { while status(&server).await.0 != Some(0) {} }).await;
    let shown = client.call("queue.show", json!({ "queue": "q" })).await.expect("an answer");
    assert_eq!(shown["queue"]["next_offset"], stored + 1);
}

#[tokio::test]
async fn a_failed_journal_ends_acknowledgements_and_says_so() {
    let mut server = TestServer::start(QUIPU, "[queue.q]\n").await;
    let client = server.client().await;
    // The journal's own segments pass this.
    server.limit_file_bytes(Some(1 << 20));
    let mut stored = 0;
    let refused = soon("a failed write", async {
        loop {
            match publish(&client, None).await {
                Ok(_) => stored += 1,
                Err(refused) => return refused,
            }
        }
    })
    .await;
    assert_eq!(refused.code(), Some(Code::Unavailable), "{refused}");
    server.limit_file_bytes(None);
    // For good: what is on disk is no longer known.
    let (code, said) = status(&server).await;
    assert_eq!((code, &said["ready"]), (Some(1), &false.into()), "{said}");
    assert!(said["reasons"].to_string().contains("the journal failed"), "{said}");
    assert_eq!(publish(&client, None).await.expect_err("refused").code(), Some(Code::Unavailable));
    assert!(client.subscribe(Subscribe::new("q", "s")).await.is_err());
    server.kill().await;
    server.restart().await;
    // The old connection is not lost yet.
    let client = server.client().await;
    let mut subscriber = client.subscribe(Subscribe::new("q", "s")).await.expect("a subscriber");
    for _ in 0..stored {
        let delivery = soon("what was stored", subscriber.next()).await.expect("open").expect("a delivery");
        delivery.ack().await.expect("settled");
    }
    assert_eq!(status(&server).await.0, Some(0));
}

#[tokio::test]
async fn the_reserve_is_kept() {
    let server = TestServer::start(QUIPU, "disk_reserve = \"1024GiB\"\n[queue.q]\n").await;
    let client = server.client().await;
    // The room is looked at now and then.
    let refused = soon("a refusal", async {
        loop {
            if let Err(refused) = publish(&client, None).await {
                return refused;
            }
        }
    })
    .await;
    assert_eq!(refused.code(), Some(Code::DiskFull));
    assert!(status(&server).await.1["reasons"].to_string().contains("the disk is nearly full"));
}
