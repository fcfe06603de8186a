//! Back-pressure by credit, where a stopped reader would be a deadlock.

use bytes::Bytes;
use quipu_client::Subject;
use quipu_protocol::code::Code;
use quipu_protocol::frame::{Body, Frame};
use quipu_protocol::{Message, MessageId, proto};
use quipu_tests::{RawClient, RawStream, TestServer, soon};
use serde_json::json;

use crate::QUIPU;

const CONFIG: &str = "[queue.q]\n";
/// Of one message; with four publishers' credit this is far more than the connection's window of 4 MiB.
const PAYLOAD_BYTES: usize = 256 << 10;

fn publish(sequence: u64, bytes: usize) -> Frame {
    publish_to("q", sequence, bytes)
}

fn publish_to(queue: &str, sequence: u64, bytes: usize) -> Frame {
    let id = MessageId::new("unused").expect("an id");
    let header = Message::new(id, Subject::new(queue).expect("a subject"), "").encode_header_without_id();
    Frame::with_payload(proto::Publish { sequence, message: header, resume: false }, Bytes::from(vec![b'x'; bytes]))
}

async fn open_publisher(client: &RawClient) -> (RawStream, proto::Credit) {
    let mut stream = client.open().await;
    stream.put(proto::OpenPublisher::default()).await;
    match stream.next().await.expect("an answer").body {
        Body::Opened(opened) => (stream, opened.credit.expect("credit")),
        other => panic!("{other:?}"),
    }
}

/// Four publishers send all that their credit allows and never read a receipt. The same client still gets deliveries
/// and settles them.
#[tokio::test]
async fn four_stalled_publishers_do_not_stop_their_clients_acks() {
    let server = TestServer::start(QUIPU, CONFIG).await;
    let (client, _control) = RawClient::connect(&server).await;
    let mut stalled = Vec::new();
    let mut sent = 0;
    for _ in 0..4 {
        let (mut stream, credit) = open_publisher(&client).await;
        let mut bytes = 0;
        for sequence in 1..=credit.messages {
            if bytes >= credit.bytes {
                break;
            }
            stream.put(publish(sequence, PAYLOAD_BYTES)).await;
            bytes += PAYLOAD_BYTES as u64;
            sent += 1;
        }
        // Never read, and kept open.
        stalled.push(stream);
    }
    assert!(sent * PAYLOAD_BYTES > 12 << 20, "more than the windows hold: {sent} messages");
    let mut subscription = client.open().await;
    subscription
        .put(proto::Subscribe {
            queue: "q".into(),
            subscription: "s".into(),
            mode: 1,
            start: 1,
            ..proto::Subscribe::default()
        })
        .await;
    assert!(matches!(subscription.next().await.expect("an answer").body, Body::Subscribed(_)));
    subscription.put(proto::Credit { messages: sent as u64, bytes: 0 }).await;
    let (mut delivered, mut settled) = (0, 0);
    while settled < sent {
        match subscription.next().await.expect("open").body {
            Body::Deliver(deliver) => {
                delivered += 1;
                let tokens = vec![deliver.token];
                subscription.put(proto::Settle { verb: 1, tokens, ..proto::Settle::default() }).await;
            }
            Body::Settled(answer) => settled += answer.committed.len(),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(delivered, sent);
    // The receipts are all still there for who reads them in the end.
    let mut receipts = 0;
    for stream in &mut stalled {
        stream.put(proto::End {}).await;
        loop {
            match stream.next().await.expect("open").body {
                Body::Receipt(receipt) => receipts += receipt.results.len(),
                Body::Credit(_) => {}
                Body::End(_) => break,
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(receipts, sent);
}

/// Two messages of 8 MiB do not fit into a budget of 16 MiB beside their headers. The one that finds no room is thrown
/// away and refused; its stream goes on, and so does the router.
#[tokio::test]
async fn more_than_the_router_can_take_in_is_refused_and_read_nonetheless() {
    const LARGE: usize = 8 << 20;
    let config = "journal_segment = \"32MiB\"\n[limits]\ningest = \"16MiB\"\n[queue.free]\n\
                  [queue.q]\nmax_messages = 1\non_full = \"block\"\n";
    let server = TestServer::start(QUIPU, config).await;
    let (client, _control) = RawClient::connect(&server).await;
    let (mut first, _) = open_publisher(&client).await;
    first.put(publish(1, 1)).await;
    assert!(matches!(first.next().await.expect("open").body, Body::Receipt(_)));
    // Waits for room in the queue, and has half the budget until then.
    first.put(publish(2, LARGE)).await;
    let looks = server.client().await;
    soon("a publish that waits", async {
        let taken = async || looks.call("status", json!({})).await.expect("an answer")["ingest_bytes"].as_u64();
        while taken().await < Some(LARGE as u64) {}
    })
    .await;
    let (mut second, _) = open_publisher(&client).await;
    second.put(publish(1, LARGE)).await;
    let Body::Receipt(refused) = second.next().await.expect("open").body else { panic!("no receipt") };
    let Some(proto::result::Kind::Error(error)) = &refused.results[0].kind else { panic!("{refused:?}") };
    assert_eq!((Code::from_number(error.code), error.retryable), (Some(Code::Overloaded), true));
    // Whoever is small finds room, and once the queue has room, so does the large one.
    second.put(publish_to("free", 2, 1)).await;
    let stored = loop {
        match second.next().await.expect("open").body {
            Body::Receipt(receipt) => break receipt,
            Body::Credit(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(stored.results[0].kind, Some(proto::result::Kind::Stored(_))), "{stored:?}");
    let mut stream = subscribe(&client, 2).await;
    for _ in 0..2 {
        let tokens = vec![delivery(&mut stream).await.token];
        stream.put(proto::Settle { verb: 1, tokens, ..proto::Settle::default() }).await;
        assert!(matches!(stream.next().await.expect("open").body, Body::Settled(_)));
    }
    loop {
        match first.next().await.expect("open").body {
            Body::Receipt(receipt) => break assert_eq!((receipt.first, receipt.last), (2, 2)),
            Body::Credit(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn who_sends_beyond_the_credit_is_told_and_cut_off() {
    let server = TestServer::start(QUIPU, CONFIG).await;
    let (client, _control) = RawClient::connect(&server).await;
    // Frames that are never whole get no receipt, so no credit comes back: a router that is slow looks like this.
    let (mut stream, credit) = open_publisher(&client).await;
    let mut burst = bytes::BytesMut::new();
    for sequence in 1..=credit.messages * 64 {
        publish(sequence, 0).encode(&mut burst);
    }
    // Ignored: the router stops reading once it has seen enough.
    stream.send.write_all(&burst).await.ok();
    let mut receipts = 0;
    let error = loop {
        match stream.next().await.expect("an error first").body {
            Body::Receipt(receipt) => receipts += receipt.results.len() as u64,
            Body::Credit(_) => {}
            Body::Error(error) => break error,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(Code::from_number(error.code), Some(Code::Credit), "{error:?}");
    assert!(error.text.contains("beyond the credit"), "{error:?}");
    assert!(receipts >= credit.messages / 2, "what was within the credit is stored: {receipts}");
}

/// Publishes so many messages of a byte each.
async fn fill(client: &RawClient, count: u64) {
    let (mut stream, mut credit) = open_publisher(client).await;
    let (mut sent, mut receipts) = (0, 0);
    while receipts < count {
        while sent < count.min(credit.messages) {
            sent += 1;
            stream.put(publish(sent, 1)).await;
        }
        match stream.next().await.expect("open").body {
            Body::Receipt(receipt) => receipts += receipt.results.len() as u64,
            Body::Credit(total) => credit = total,
            other => panic!("{other:?}"),
        }
    }
}

async fn subscribe(client: &RawClient, credit: u64) -> RawStream {
    let mut stream = client.open().await;
    stream
        .put(proto::Subscribe {
            queue: "q".into(),
            subscription: "s".into(),
            mode: 1,
            start: 1,
            ..proto::Subscribe::default()
        })
        .await;
    assert!(matches!(stream.next().await.expect("an answer").body, Body::Subscribed(_)));
    stream.put(proto::Credit { messages: credit, bytes: 0 }).await;
    stream
}

async fn delivery(stream: &mut RawStream) -> proto::Deliver {
    match stream.next().await.expect("open").body {
        Body::Deliver(deliver) => deliver,
        other => panic!("{other:?}"),
    }
}

/// As many `Settle` frames as deliveries can be outstanding, all before the first is on disk.
#[tokio::test]
async fn settlements_may_come_one_by_one() {
    const COUNT: u64 = 4_000;
    let server = TestServer::start(QUIPU, CONFIG).await;
    let (client, _control) = RawClient::connect(&server).await;
    fill(&client, COUNT).await;
    let mut stream = subscribe(&client, COUNT).await;
    let mut burst = bytes::BytesMut::new();
    for _ in 0..COUNT {
        let tokens = vec![delivery(&mut stream).await.token];
        Frame::from(proto::Settle { verb: 1, tokens, ..proto::Settle::default() }).encode(&mut burst);
    }
    stream.send.write_all(&burst).await.expect("written");
    let mut committed = 0;
    while committed < COUNT {
        match stream.next().await.expect("open").body {
            Body::Settled(settled) => committed += settled.committed.len() as u64,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn who_stops_a_subscription_gives_its_deliveries_back_at_once() {
    let server = TestServer::start(QUIPU, CONFIG).await;
    let (client, _control) = RawClient::connect(&server).await;
    fill(&client, 1).await;
    let mut first = subscribe(&client, 1).await;
    delivery(&mut first).await;
    // Nothing is left to be written there, so only the stop itself can tell the router.
    first.recv.stop(10u32.into()).expect("open");
    let mut second = subscribe(&client, 1).await;
    let why = soon("what was given back", delivery(&mut second)).await.why;
    assert_eq!(why, i32::from(proto::Why::Returned));
    // The same for a publisher: the router gives it up.
    let (mut publisher, _) = open_publisher(&client).await;
    publisher.recv.stop(10u32.into()).expect("open");
    soon("the end of a publisher", publisher.send.stopped()).await.expect("connected");
}
