//! SIGTERM.

use quipu_client::{OutgoingMessage, PublisherOptions, Receipt, Subscribe};
use quipu_protocol::frame::Body;
use quipu_protocol::proto;
use quipu_tests::{RawClient, TestServer, soon};

use crate::QUIPU;

#[tokio::test]
async fn sigterm_says_goaway_finishes_and_exits_with_0() {
    let mut server = TestServer::start(QUIPU, "[queue.q]\n").await;
    let (client, mut control) = RawClient::connect(&server).await;
    server.signal_terminate();
    let Body::Goaway(goaway) = control.next().await.expect("a frame").body else { panic!("no Goaway") };
    assert!(goaway.grace_ms > 0 && goaway.grace_ms <= 10_000);
    control.put(proto::Goodbye {}).await;
    assert!(matches!(control.next().await.expect("a frame").body, Body::Goodbye(_)));
    client.connection.close(10u32.into(), b"");
    assert_eq!(server.ended().await, Some(0));
}

#[tokio::test]
async fn a_client_that_does_not_leave_does_not_hold_up_the_end() {
    let mut server = TestServer::start(QUIPU, "[queue.q]\n").await;
    let (_client, _control) = RawClient::connect(&server).await;
    assert_eq!(server.terminate().await, Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let mut server = TestServer::start(QUIPU, "[queue.q]\n").await;
    let (_client, mut control) = RawClient::connect(&server).await;
    server.signal_terminate();
    assert!(matches!(control.next().await.expect("a frame").body, Body::Goaway(_)));
    assert_eq!(server.terminate().await, Some(1));
}

#[tokio::test]
async fn what_is_published_around_a_restart_is_there_once() {
    let mut server = TestServer::start(QUIPU, "[queue.q]\n").await;
    let client = server.client().await;
    let publisher = client.publisher(PublisherOptions::default()).await.expect("a publisher");
    let mut receipts = Vec::new();
    for n in 0..200 {
        let message = OutgoingMessage::new("q", n.to_string()).id(&format!("m{n}"));
        receipts.push(publisher.publish(message).await.expect("published"));
        if n == 100 {
            assert_eq!(server.terminate().await, Some(0));
            server.restart().await;
        }
    }
    for receipt in receipts {
        assert!(matches!(soon("a receipt", receipt).await, Ok(Receipt::Stored(_) | Receipt::Duplicate(_))));
    }
    let mut subscriber = client.subscribe(Subscribe::new("q", "s")).await.expect("a subscriber");
    for n in 0..200 {
        let delivery = soon("a delivery", subscriber.next()).await.expect("open").expect("a delivery");
        assert_eq!(delivery.message.payload, n.to_string());
        delivery.ack_later().await.expect("settled");
    }
    subscriber.close().await.expect("closed");
    let shown = server.cli(&["queue", "show", "q", "--json"]).await;
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!((&shown["queue"]["messages"], &shown["queue"]["next_offset"]), (&0.into(), &200.into()));
    client.close().await;
}
