//! Publishers: receipts, credit, errors, and what a lost connection does to them.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use quipu_client::{
    ClientConfig, Code, Lost, OpenError, OutgoingMessage, Position, PublishError, PublisherOptions, Receipt,
    ReceiptError, Reconnect,
};
use quipu_protocol::frame::Body;
use quipu_protocol::proto;
use quipu_protocol::proto::result::Kind;

use crate::router::{FakeRouter, is_pending, position, timely};

fn message(payload: impl Into<Bytes>) -> OutgoingMessage {
    OutgoingMessage::new("orders.eu", payload)
}

fn stored(offset: u64) -> Receipt {
    Receipt::Stored(vec![Position { queue: "orders".into(), offset }])
}

#[tokio::test]
async fn many_publishes_are_under_way_at_once() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        let (publisher, mut stream) = peer.publisher(&client, PublisherOptions::default()).await;
        let mut pending = Vec::new();
        for n in 0..1000_u64 {
            pending.push(publisher.publish(message(n.to_string())).await.expect("handed over"));
        }
        for n in 0..1000_u64 {
            let (sequence, message) = stream.publish().await;
            assert_eq!((sequence, message.payload), (n + 1, n.to_string().into()));
        }
        stream.stored(1, 1).await;
        for first in (2..=1000).step_by(111) {
            stream.stored(first, first + 110).await;
        }
        publisher.flush().await.expect("all answered");
        for (receipt, offset) in pending.into_iter().zip(1..) {
            assert_eq!(receipt.await, Ok(stored(offset)));
        }
    })
    .await;
}

#[tokio::test]
async fn publishing_waits_while_too_much_is_pending() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        let options = PublisherOptions { pending_bytes_max: 2 << 10, ..PublisherOptions::default() };
        let (publisher, mut stream) = peer.publisher(&client, options).await;
        let first = publisher.publish(message("1")).await.expect("handed over");
        let _second = publisher.publish(message("2")).await.expect("handed over");
        let mut third = pin!(publisher.publish(message("3")));
        assert!(is_pending(&mut third).await);
        stream.stored(1, 1).await;
        assert!(first.await.is_ok());
        let third = third.await.expect("handed over");
        stream.stored(2, 3).await;
        assert_eq!(third.await, Ok(stored(3)));
        // One that is larger than all the room is let through alone.
        let large = publisher.publish(message(vec![0; 100_000])).await.expect("handed over");
        stream.stored(4, 4).await;
        assert_eq!(large.await, Ok(stored(4)));
    })
    .await;
}

#[tokio::test]
async fn sending_waits_for_credit() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        let (publisher, stream) = tokio::join!(client.publisher(PublisherOptions::default()), peer.accept_publisher(2));
        let (publisher, mut stream) = (publisher.expect("opened"), stream);
        let mut pending = Vec::new();
        for n in 1..=3 {
            pending.push(publisher.publish(message(n.to_string())).await.expect("handed over"));
        }
        assert_eq!((stream.publish().await.0, stream.publish().await.0), (1, 2));
        stream.stored(1, 2).await;
        stream.send(proto::Credit { messages: 3, bytes: 1 << 30 }).await;
        assert_eq!(stream.publish().await.0, 3);
        stream.stored(3, 3).await;
        assert_eq!(pending.pop().expect("there").await, Ok(stored(3)));
    })
    .await;
}

#[tokio::test]
async fn a_refused_message_concerns_no_other() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        let (publisher, mut stream) = peer.publisher(&client, PublisherOptions::default()).await;
        let refused = publisher.publish(message("1").id("again")).await.expect("handed over");
        let duplicate = publisher.publish(message("2").id("again")).await.expect("handed over");
        let routed = publisher.publish(message("3")).await.expect("handed over");
        let kinds = vec![
            Kind::Error(Code::Unavailable.error("disk full")),
            Kind::Duplicate(position(9)),
            Kind::Routed(proto::Routed {}),
        ];
        stream.receipt(1, kinds).await;
        let Err(ReceiptError::Refused(refusal)) = refused.await else { panic!("refused") };
        assert_eq!((refusal.code(), refusal.retryable), (Some(Code::Unavailable), true));
        assert_eq!(refusal.text, "disk full");
        assert!(matches!(duplicate.await, Ok(Receipt::Duplicate(_))));
        assert_eq!(routed.await, Ok(Receipt::Routed));
        // What breaks a rule is not even sent.
        let wrong = publisher.publish(OutgoingMessage::new("no..subject", "")).await;
        assert!(matches!(wrong, Err(PublishError::Invalid(_))));
    })
    .await;
}

#[tokio::test]
async fn what_the_router_has_no_room_for_is_told_or_sent_again() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        let (publisher, mut stream) = peer.publisher(&client, PublisherOptions::default()).await;
        let refused = publisher.publish(message("1")).await.expect("handed over");
        stream.receipt(1, vec![Kind::Error(Code::QueueFull.error("full"))]).await;
        let error = refused.await.expect_err("full");
        assert_eq!((error.code(), error.is_retryable()), (Some(Code::QueueFull), true));

        let options = PublisherOptions { retry_refused: true, ..PublisherOptions::default() };
        let (publisher, mut stream) = peer.publisher(&client, options).await;
        let refused = publisher.publish(message("1")).await.expect("handed over");
        let second = publisher.publish(message("2")).await.expect("handed over");
        let wrong = publisher.publish(message("3")).await.expect("handed over");
        let first = stream.publish().await;
        assert_eq!((stream.publish().await.0, stream.publish().await.0), (2, 3));
        let kinds = vec![
            Kind::Error(Code::DiskFull.error("full")),
            Kind::Stored(position(2)),
            Kind::Error(Code::NoQueue.error("nowhere")),
        ];
        stream.receipt(1, kinds).await;
        assert_eq!(second.await, Ok(stored(2)));
        assert!(!wrong.await.expect_err("refused").is_retryable());
        let again = stream.publish().await;
        assert_eq!((again.0, &again.1), (4, &first.1));
        stream.receipt(4, vec![Kind::Error(Code::Overloaded.error("busy"))]).await;
        assert_eq!(stream.publish().await, (5, first.1));
        stream.stored(5, 5).await;
        assert_eq!(refused.await, Ok(stored(5)));
    })
    .await;
}

#[tokio::test]
async fn sending_again_what_the_router_has_no_room_for_has_an_end() {
    timely(async {
        let router = FakeRouter::start();
        let reconnect = Reconnect { give_up_after: Duration::from_millis(50), ..router.client_config().reconnect };
        let (client, peer) = router.client_with(ClientConfig { reconnect, ..router.client_config() }).await;
        let options = PublisherOptions { retry_refused: true, ..PublisherOptions::default() };
        let (publisher, mut stream) = peer.publisher(&client, options).await;
        let refused = publisher.publish(message("1")).await.expect("handed over");
        let refusing = async {
            loop {
                let (sequence, _) = stream.publish().await;
                stream.receipt(sequence, vec![Kind::Error(Code::QueueFull.error("full"))]).await;
            }
        };
        let error = tokio::select! {
            receipt = refused => receipt.expect_err("full"),
            () = refusing => unreachable!("without an end"),
        };
        assert_eq!(error.code(), Some(Code::QueueFull));
    })
    .await;
}

#[tokio::test]
async fn a_lost_connection_repeats_what_has_no_receipt_under_the_same_ids() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        let (publisher, mut stream) = peer.publisher(&client, PublisherOptions::default()).await;
        let mut pending = Vec::new();
        for n in 1..=3 {
            pending.push(publisher.publish(message(n.to_string())).await.expect("handed over"));
        }
        let mut before = Vec::new();
        for _ in 1..=3 {
            before.push(stream.publish().await.1);
        }
        stream.stored(1, 1).await;
        assert_eq!(pending.remove(0).await, Ok(stored(1)));
        peer.vanish();

        let peer = router.welcome().await;
        let mut stream = peer.accept_publisher(100).await;
        let after = [stream.publish().await, stream.publish().await];
        assert_eq!(after.each_ref().map(|(sequence, _)| *sequence), [1, 2]);
        assert_eq!(after.map(|(_, message)| message), before[1..]);
        // The router had stored the second when the connection was lost.
        stream.receipt(1, vec![Kind::Duplicate(position(2)), Kind::Stored(position(3))]).await;
        assert_eq!(pending.remove(0).await, Ok(stored(2)));
        assert_eq!(pending.remove(0).await, Ok(stored(3)));
    })
    .await;
}

#[tokio::test]
async fn without_ids_a_lost_connection_leaves_it_open() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        let options = PublisherOptions { ids: false, ..PublisherOptions::default() };
        let (publisher, mut stream) = peer.publisher(&client, options).await;
        let without = publisher.publish(message("1")).await.expect("handed over");
        let with = publisher.publish(message("2").id("mine")).await.expect("handed over");
        let frame = stream.next().await;
        let Body::Publish(publish) = frame.body else { panic!("a Publish") };
        let header: proto::MessageHeader = prost::Message::decode(publish.message).expect("a header");
        assert_eq!(header.id, "");
        stream.publish().await;
        peer.vanish();
        assert_eq!(without.await, Err(ReceiptError::Ambiguous));
        let peer = router.welcome().await;
        let mut stream = peer.accept_publisher(100).await;
        assert_eq!(stream.publish().await.1.id.as_str(), "mine");
        stream.stored(1, 1).await;
        assert_eq!(with.await, Ok(stored(1)));
    })
    .await;
}

#[tokio::test]
async fn closing_waits_for_receipts_and_ends_the_stream() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        let (publisher, mut stream) = peer.publisher(&client, PublisherOptions::default()).await;
        let receipt = publisher.publish(message("1")).await.expect("handed over");
        let closing = tokio::spawn(publisher.close());
        assert_eq!(stream.publish().await.0, 1);
        stream.stored(1, 1).await;
        stream.end().await;
        assert_eq!(closing.await.expect("no panic"), Ok(()));
        assert_eq!(receipt.await, Ok(stored(1)));
        // Dropping does the same in the background.
        let (publisher, mut stream) = peer.publisher(&client, PublisherOptions::default()).await;
        let receipt = publisher.publish(message("2")).await.expect("handed over");
        drop(publisher);
        assert_eq!(stream.publish().await.0, 1);
        stream.stored(1, 1).await;
        assert_eq!(receipt.await, Ok(stored(1)));
        stream.end().await;
    })
    .await;
}

#[tokio::test]
async fn a_refused_stream_ends_the_publisher_where_trying_again_is_pointless() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        let (publisher, mut stream) = peer.publisher(&client, PublisherOptions::default()).await;
        let receipt = publisher.publish(message("1")).await.expect("handed over");
        stream.fail(Code::Busy, "later").await;
        // That may pass: another stream is opened, and the message sent again.
        let mut stream = peer.accept_publisher(100).await;
        stream.publish().await;
        stream.fail(Code::Forbidden, "never").await;
        let Err(ReceiptError::Lost(Lost::Refused(refusal))) = receipt.await else { panic!("lost") };
        assert_eq!(refusal.code(), Some(Code::Forbidden));
        let late = publisher.publish(message("2")).await;
        assert!(matches!(late, Err(PublishError::Lost(Lost::Refused(_)))), "{late:?}");
        assert!(matches!(publisher.flush().await, Err(Lost::Refused(_))));
    })
    .await;
}

#[tokio::test]
async fn everything_pending_fails_with_the_reason_after_giving_up() {
    timely(async {
        let router = FakeRouter::start();
        let quick = Reconnect { give_up_after: Duration::from_millis(50), ..router.client_config().reconnect };
        let connect_timeout = Duration::from_millis(500);
        let config = ClientConfig { reconnect: quick, connect_timeout, ..router.client_config() };
        let (client, peer) = router.client_with(config).await;
        let (publisher, _stream) = peer.publisher(&client, PublisherOptions::default()).await;
        let receipt = publisher.publish(message("1")).await.expect("handed over");
        // Nobody accepts the next connection.
        peer.vanish();
        let Err(ReceiptError::Lost(Lost::GaveUp { last, .. })) = receipt.await else { panic!("gave up") };
        assert!(last.contains("is the router running there?"), "{last}");
        let refused = client.publisher(PublisherOptions::default()).await;
        assert!(matches!(refused, Err(OpenError::Lost(Lost::GaveUp { .. }))));
    })
    .await;
}

#[tokio::test]
async fn a_stream_given_up_is_reset() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router
            .client_with(ClientConfig { open_timeout: Duration::from_millis(50), ..router.client_config() })
            .await;
        let refused = client.publisher(PublisherOptions::default()).await;
        assert!(matches!(refused, Err(OpenError::TimedOut(_))), "{refused:?}");
        let mut stream = crate::router::Duplex::accept(&peer.connection).await;
        let reset = loop {
            match stream.read().await {
                Ok(frame) => assert!(frame.is_some(), "not finished"),
                Err(e) => break e,
            }
        };
        assert_eq!(reset, quinn::ReadError::Reset(quinn::VarInt::from_u32(Code::Goodbye as u32)));
    })
    .await;
}
