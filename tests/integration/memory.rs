//! What a router takes of memory stays below what `quipu check --memory` adds up.

use bytes::Bytes;
use quipu_client::{Client, OutgoingMessage, PublisherOptions};
use quipu_protocol::frame::{Body, Frame};
use quipu_protocol::{Message, MessageId, Subject, proto};
use quipu_tests::{RawClient, TestServer, soon};
use serde_json::Value;

use crate::QUIPU;

const CONFIG: &str = r#"memory = "16MiB"
[limits]
sessions = 8
publishers = 8
consumers = 4
requests = 4
connection_window = "1MiB"
message = "1MiB"
ingest = "16MiB"
[queue.full]
max_bytes = "8MiB"
[queue.blocked]
max_bytes = "1MiB"
on_full = "block"
[queue.log]
retention = "log"
[queue.copies]
subjects = ["log"]
max_bytes = "128MiB"
on_full = "drop-oldest"
"#;
const PAYLOAD_BYTES: usize = 1 << 20;
/// Of each publisher.
const MESSAGES: usize = 150;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_stays_within_the_sum() {
    let server = TestServer::start(QUIPU, CONFIG).await;
    let total = total(&server).await;
    assert!(total < 1 << 30, "a small configuration is small: {total}");
    let (never_reads, _control) = RawClient::connect(&server).await;
    let mut unread = never_reads.open().await;
    unread.put(proto::Subscribe { queue: "log".into(), subscription: "s".into(), ..Default::default() }).await;
    assert!(matches!(unread.next().await.expect("an answer").body, Body::Subscribed(_)));
    unread.put(proto::Credit { messages: 4_096, bytes: 0 }).await;
    // Sends all that it has credit for into a queue that blocks, and never reads a receipt.
    let mut stalled = never_reads.open().await;
    stalled.put(proto::OpenPublisher::default()).await;
    let Body::Opened(opened) = stalled.next().await.expect("an answer").body else { panic!("not opened") };
    let credit = opened.credit.expect("credit");
    let mut floods = Vec::new();
    for queue in ["log", "log", "full"] {
        floods.push(tokio::spawn(flood(server.client().await, queue)));
    }
    let mut sent = 0;
    for sequence in 1..=credit.messages {
        if sent >= credit.bytes {
            break;
        }
        stalled.put(publish("blocked", sequence)).await;
        sent += PAYLOAD_BYTES as u64;
    }
    let mut outcomes = Vec::new();
    for flood in floods {
        outcomes.push(soon("a flood", flood).await.expect("it ends"));
    }
    assert_eq!(outcomes[..2], [MESSAGES; 2], "all of the log is stored");
    assert!(outcomes[2] < MESSAGES, "the full queue refuses");
    let most = server.memory_bytes_max();
    assert!(most < total, "{most} bytes at most, where {total} were said");
    assert!(most > total / 20, "{most} bytes at most: the sum of {total} says nothing");
}

/// What `check --memory` says of the configuration that the router runs with.
async fn total(server: &TestServer) -> u64 {
    let said = server.cli(&["check", "--memory", "--json"]).await;
    let said: Value = serde_json::from_str(&said).expect("JSON");
    said["memory"]["total_bytes"].as_u64().expect("a sum")
}

/// Publishes messages of a MiB as fast as it may; how many were stored.
async fn flood(client: Client, queue: &'static str) -> usize {
    let publisher = client.publisher(PublisherOptions::default()).await.expect("a publisher");
    let mut receipts = Vec::new();
    for _ in 0..MESSAGES {
        let message = OutgoingMessage::new(queue, Bytes::from(vec![b'x'; PAYLOAD_BYTES]));
        receipts.push(publisher.publish(message).await.expect("sent"));
    }
    let mut stored = 0;
    for receipt in receipts {
        stored += usize::from(soon("a receipt", receipt).await.is_ok());
    }
    stored
}

fn publish(queue: &str, sequence: u64) -> Frame {
    let id = MessageId::new("unused").expect("an id");
    let message = Message::new(id, Subject::new(queue).expect("a subject"), "").encode_header_without_id();
    Frame::with_payload(proto::Publish { sequence, message, resume: false }, Bytes::from(vec![b'x'; PAYLOAD_BYTES]))
}
