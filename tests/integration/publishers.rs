//! Named publishers: exactly once and in order, over whatever happens to the connection.

use bytes::BytesMut;
use quipu_client::{Lost, OutgoingMessage, PublisherOptions, Receipt, ReceiptError, Subscribe};
use quipu_protocol::code::Code;
use quipu_protocol::frame::{Body, Frame};
use quipu_protocol::{Message, MessageId, Subject, proto};
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

async fn open_stopping(client: &RawClient, name: &str, epoch: u64) -> (RawStream, proto::Opened) {
    let mut stream = client.open().await;
    stream.put(proto::OpenPublisher { name: name.into(), epoch, stop_on_error: true }).await;
    match stream.next().await.expect("an answer").body {
        Body::Opened(opened) => (stream, opened),
        other => panic!("{other:?}"),
    }
}

/// Messages in one write, from this sequence on; a `!` before the subject takes up again.
async fn send(stream: &mut RawStream, first: u64, subjects: &[&str]) {
    let mut bytes = BytesMut::new();
    for (sequence, to) in (first..).zip(subjects) {
        let subject = Subject::new(to.trim_start_matches('!')).expect("a subject");
        let message = Message::new(MessageId::new("unused").expect("an id"), subject, "");
        let message = message.encode_header_without_id();
        let publish = proto::Publish { sequence, message, resume: to.starts_with('!') };
        Frame::with_payload(publish, bytes::Bytes::from_static(b"x")).encode(&mut bytes);
    }
    soon("writing", stream.send.write_all(&bytes)).await.expect("an open stream");
}

/// What becomes of so many, from this sequence on.
async fn told(stream: &mut RawStream, first: u64, count: usize) -> Vec<String> {
    use proto::result::Kind;
    let mut told = Vec::new();
    while told.len() < count {
        let receipt = match stream.next().await.expect("a frame").body {
            Body::Receipt(receipt) => receipt,
            Body::Credit(_) => continue,
            other => panic!("{other:?}"),
        };
        assert_eq!(receipt.first, first + told.len() as u64);
        told.extend(receipt.results.into_iter().map(|result| match result.kind.expect("a result") {
            Kind::Stored(stored) => format!("stored {}", stored.positions[0].offset),
            Kind::Duplicate(_) => "duplicate".into(),
            Kind::Routed(_) => "routed".into(),
            Kind::Error(error) => {
                let behind = error.text.strip_prefix("sequence ").and_then(|text| text.split(' ').next());
                let code = Code::from_number(error.code).expect("known");
                assert_eq!(error.retryable, code.is_retryable());
                format!("{code:?} {}", behind.unwrap_or_default()).trim_end().into()
            }
        }));
    }
    told
}

#[tokio::test]
async fn a_publisher_that_stops_has_everything_behind_a_failure_refused() {
    let server = TestServer::start(QUIPU, "[queue.q]\n[queue.small]\nmax_messages = 1\n").await;
    let (client, _control) = RawClient::connect(&server).await;
    let (mut stream, _) = open_stopping(&client, "", 0).await;
    send(&mut stream, 1, &["q", "q", "q", "nowhere", "q", "nowhere", "q"]).await;
    let stopped = ["NoQueue", "Stopped 4", "Stopped 4", "Stopped 4"];
    assert_eq!(told(&mut stream, 1, 7).await[..], [&["stored 0", "stored 1", "stored 2"][..], &stopped].concat());
    // Later batches too; and more than one go in one batch, of which one fails as it comes and one as it resumes.
    send(&mut stream, 8, &["q", "$own", "!q", "$own", "q", "!nowhere", "q", "!small", "small", "q", "!q"]).await;
    let expected = [
        ["Stopped 4", "Stopped 4", "stored 3", "InvalidMessage", "Stopped 11"],
        ["NoQueue", "Stopped 13", "stored 0", "QueueFull", "Stopped 16"],
    ];
    assert_eq!(told(&mut stream, 8, 11).await[..], [&expected.concat()[..], &["stored 4"]].concat());
    // Another stream goes on: to stop is each publisher's own.
    let (mut other, _) = open(&client, "", 0).await;
    send(&mut other, 1, &["nowhere", "q"]).await;
    assert_eq!(told(&mut other, 1, 2).await, ["NoQueue", "stored 5"]);
}

#[tokio::test]
async fn a_named_publisher_that_stopped_sends_again_what_was_refused() {
    let mut server = TestServer::start(QUIPU, "[queue.q]\n").await;
    let (client, _control) = RawClient::connect(&server).await;
    let (mut stream, opened) = open_stopping(&client, "till", 0).await;
    send(&mut stream, 1, &["q", "q", "q", "nowhere", "q", "$own", "q"]).await;
    let stopped = ["NoQueue", "Stopped 4", "Stopped 4", "Stopped 4"];
    assert_eq!(told(&mut stream, 1, 7).await[..], [&["stored 0", "stored 1", "stored 2"][..], &stopped].concat());
    server.kill().await;
    server.restart().await;
    // The receipts of these were lost, say; the new stream has no failure behind it.
    let (client, _control) = RawClient::connect(&server).await;
    let (mut stream, opened) = open_stopping(&client, "till", opened.epoch).await;
    assert!(opened.last_sequence >= 3, "{opened:?}");
    send(&mut stream, 3, &["q", "q", "q", "nowhere", "q", "q"]).await;
    let expected = ["duplicate", "stored 3", "stored 4", "NoQueue", "Stopped 6", "Stopped 6"];
    assert_eq!(told(&mut stream, 3, 6).await, expected);
    send(&mut stream, 9, &["!q"]).await;
    assert_eq!(told(&mut stream, 9, 1).await, ["stored 5"]);
}

/// Otherwise a message would come past a filter by being sent again.
#[tokio::test]
async fn a_refused_message_that_is_sent_again_under_its_sequence_is_filtered_again() {
    let config = "[queue.q]\nsubjects = [\"door\"]\n[[route]]\nname = \"guard\"\non = \"door\"\nto = [\"q\"]\n\
                  plugins = [{ name = \"filter-json\", config = { field = \"n\", at_least = 1 } }]\n";
    let server = TestServer::start(QUIPU, config).await;
    let (client, _control) = RawClient::connect(&server).await;
    let (mut first, opened) = open(&client, "p", 0).await;
    assert!(matches!(opened, Body::Opened(proto::Opened { epoch: 1, .. })), "{opened:?}");
    send(&mut first, 1, &["door", "q"]).await;
    let rejected = told(&mut first, 1, 2).await;
    assert_eq!(rejected, ["Rejected", "stored 0"]);
    let (mut again, opened) = open(&client, "p", 1).await;
    assert!(matches!(opened, Body::Opened(proto::Opened { last_sequence: 2, .. })), "{opened:?}");
    send(&mut again, 1, &["door"]).await;
    assert_eq!(told(&mut again, 1, 1).await, rejected[..1]);
}
