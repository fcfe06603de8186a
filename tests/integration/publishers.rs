//! Named publishers: exactly once and in order, over whatever happens to the connection.

use quipu_client::{Lost, OutgoingMessage, PublisherOptions, Receipt, ReceiptError, Subscribe};
use quipu_protocol::code::Code;
use quipu_protocol::frame::Body;
use quipu_protocol::proto;
use quipu_tests::{RawClient, RawStream, TestServer, soon};

use crate::QUIPU;

const KILLS: usize = 5;
const BETWEEN_KILLS: usize = 300;

fn named(name: &str) -> PublisherOptions {
    PublisherOptions { name: Some(name.into()), ..PublisherOptions::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_named_publisher_stores_each_message_once_and_in_order_over_kills() {
    let mut server = TestServer::start(QUIPU, "[queue.q]\n").await;
    let client = server.client().await;
    let publisher = client.publisher(named("till-7")).await.expect("a publisher");
    let mut n = 0;
    for _ in 0..KILLS {
        let mut receipts = Vec::new();
        for _ in 0..BETWEEN_KILLS {
            receipts.push(publisher.publish(OutgoingMessage::new("q", n.to_string())).await.expect("published"));
            n += 1;
        }
        // One is answered for certain; of the others, some are under way.
        let first = receipts.remove(0);
        soon("a receipt", first).await.expect("stored");
        server.kill().await;
        server.restart().await;
        for receipt in receipts {
            let receipt = soon("a receipt", receipt).await.expect("stored");
            assert!(matches!(receipt, Receipt::Stored(_) | Receipt::Duplicate(_)), "{receipt:?}");
        }
    }
    publisher.close().await.expect("closed");
    let mut subscriber = client.subscribe(Subscribe::new("q", "s")).await.expect("a subscriber");
    for expected in 0..n {
        let delivery = soon("a delivery", subscriber.next()).await.expect("open").expect("a delivery");
        assert_eq!(
            (delivery.offset, &delivery.message.payload[..]),
            (expected as u64, expected.to_string().as_bytes())
        );
        delivery.ack_later().await.expect("settled");
    }
    subscriber.close().await.expect("closed");
    let shown = client.call("queue.show", serde_json::json!({ "queue": "q" })).await.expect("an answer");
    assert_eq!(shown["queue"]["next_offset"], n);
}

#[tokio::test]
async fn who_opens_a_name_fences_who_had_it_at_once() {
    let server = TestServer::start(QUIPU, "[queue.q]\n").await;
    let (one, other) = (server.client().await, server.client().await);
    let first = one.publisher(named("p")).await.expect("a publisher");
    first.publish(OutgoingMessage::new("q", "1")).await.expect("published").await.expect("stored");
    let second = other.publisher(named("p")).await.expect("a publisher");
    let lost = soon("the end of the first", async {
        loop {
            match first.publish(OutgoingMessage::new("q", "2")).await {
                Ok(receipt) => {
                    if let Err(ReceiptError::Lost(lost)) = receipt.await {
                        return lost;
                    }
                }
                Err(quipu_client::PublishError::Lost(lost)) => return lost,
                Err(e) => panic!("{e}"),
            }
        }
    })
    .await;
    assert!(matches!(lost, Lost::Fenced(_)), "{lost:?}");
    second.publish(OutgoingMessage::new("q", "3")).await.expect("published").await.expect("stored");
    let queue = one.call("queue.show", serde_json::json!({ "queue": "q" })).await.expect("an answer");
    assert_eq!(queue["queue"]["next_offset"], 2);
}

async fn open(client: &RawClient, name: &str, epoch: u64) -> (RawStream, Body) {
    let mut stream = client.open().await;
    stream.put(proto::OpenPublisher { name: name.into(), epoch, stop_on_error: false }).await;
    let answer = stream.next().await.expect("an answer").body;
    (stream, answer)
}

#[tokio::test]
async fn epochs_and_names_are_checked() {
    let server = TestServer::start(QUIPU, "[queue.q]\n").await;
    let (client, _control) = RawClient::connect(&server).await;
    let code = |body: &Body| match body {
        Body::Error(error) => Code::from_number(error.code),
        _ => None,
    };
    let (mut first, opened) = open(&client, "p", 0).await;
    assert!(matches!(opened, Body::Opened(proto::Opened { epoch: 1, last_sequence: 0, .. })), "{opened:?}");
    let (_second, opened) = open(&client, "p", 0).await;
    assert!(matches!(opened, Body::Opened(proto::Opened { epoch: 2, .. })), "{opened:?}");
    // The stream of the older epoch is over though it sent nothing.
    assert_eq!(code(&Body::Error(first.error().await)), Some(Code::Fenced));
    let (_stream, refused) = open(&client, "p", 1).await;
    assert_eq!(code(&refused), Some(Code::Fenced));
    let (_stream, refused) = open(&client, "no name", 0).await;
    assert_eq!(code(&refused), Some(Code::InvalidCall));
}
