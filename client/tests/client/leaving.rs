//! Goodbyes: the client's own, and the router's `Goaway`.

use quinn::{ConnectionError, VarInt};
use quipu_client::{Code, Lost, OpenError, OutgoingMessage, PublisherOptions, Receipt, Settled, SubscribeError};
use quipu_protocol::proto;

use crate::router::{FakeRouter, Peer, timely};

/// Answers the goodbye, and sees the connection closed with the right code.
async fn goodbye(mut peer: Peer) {
    peer.control.expect(proto::Goodbye {}).await;
    peer.control.send(proto::Goodbye {}).await;
    let ConnectionError::ApplicationClosed(close) = peer.connection.closed().await else { panic!("closed by it") };
    assert_eq!(close.error_code, VarInt::from_u32(Code::Goodbye as u32));
}

#[tokio::test]
async fn closing_says_goodbye_after_everything_else() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        let (publisher, mut published) = peer.publisher(&client, PublisherOptions::default()).await;
        let (mut subscriber, mut delivered) = peer.subscriber(&client).await;
        delivered.deliver(1, 1).await;
        let delivery = subscriber.next().await.expect("open").expect("a delivery");
        delivery.ack_later().await.expect("handed over");
        let receipt = publisher.publish(OutgoingMessage::new("orders.eu", "1")).await.expect("handed over");
        let other = client.clone();
        let closing = tokio::spawn(async move { other.close().await });
        published.publish().await;
        assert_eq!(delivered.settle().await.tokens, [1]);
        published.stored(1, 1).await;
        published.end().await;
        delivered.committed(&[1]).await;
        delivered.end().await;
        goodbye(peer).await;
        closing.await.expect("no panic");
        assert!(matches!(receipt.await, Ok(Receipt::Stored(_))));
        assert_eq!(publisher.flush().await, Err(Lost::Closed));
        let error = subscriber.next().await.expect("an error").expect_err("over");
        assert_eq!(error, SubscribeError::Lost(Lost::Closed));
        let refused = client.publisher(PublisherOptions::default()).await;
        assert!(matches!(refused, Err(OpenError::Lost(Lost::Closed))));
        client.close().await;
    })
    .await;
}

#[tokio::test]
async fn dropping_everything_closes_the_connection() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        drop(client);
        let ConnectionError::ApplicationClosed(close) = peer.connection.closed().await else { panic!("closed by it") };
        assert_eq!(close.error_code, VarInt::from_u32(Code::Goodbye as u32));
    })
    .await;
}

#[tokio::test]
async fn closing_while_reconnecting_does_not_wait_for_a_connection() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        peer.vanish();
        // Nobody welcomes the next connection.
        let connection = router.accept().await;
        client.close().await;
        assert!(matches!(
            client.call("queue.list", serde_json::json!({})).await,
            Err(quipu_client::CallError::Lost(_))
        ));
        drop(connection);
    })
    .await;
}

#[tokio::test]
async fn a_router_that_goes_away_is_left_in_order() {
    timely(async {
        let router = FakeRouter::start();
        let (client, mut peer) = router.client().await;
        let (publisher, mut published) = peer.publisher(&client, PublisherOptions::default()).await;
        let (mut subscriber, mut delivered) = peer.subscriber(&client).await;
        delivered.deliver(1, 1).await;
        let delivery = subscriber.next().await.expect("open").expect("a delivery");
        let outstanding = publish(&publisher, "1").await;
        published.publish().await;

        peer.control.send(proto::Goaway { reason: "restart".into(), grace_ms: 60_000 }).await;
        // The subscriber has nothing outstanding and ends at once; the publisher waits for its receipt.
        delivered.end().await;
        let later = publish(&publisher, "2").await;
        published.stored(1, 1).await;
        published.end().await;
        assert!(matches!(outstanding.await, Ok(Receipt::Stored(_))));
        goodbye(peer).await;

        let peer = router.welcome().await;
        again(&peer).await;
        assert_eq!(delivery.ack().await, Ok(Settled::Stale));
        drop((later, subscriber));
    })
    .await;
}

async fn publish(publisher: &quipu_client::Publisher, payload: &'static str) -> quipu_client::PendingReceipt {
    publisher.publish(OutgoingMessage::new("orders.eu", payload)).await.expect("handed over")
}

/// Both streams come back on the next connection, in either order; the publisher goes on where it was.
async fn again(peer: &Peer) {
    use quipu_protocol::frame::Body;
    for _ in 0..2 {
        let mut stream = crate::router::Duplex::accept(&peer.connection).await;
        match stream.next().await.body {
            Body::OpenPublisher(_) => {
                let credit = Some(proto::Credit { messages: 10, bytes: 1 << 20 });
                stream.send(proto::Opened { last_sequence: 0, credit, epoch: 0 }).await;
                let (sequence, message) = stream.publish().await;
                assert_eq!((sequence, message.payload.as_ref()), (1, &b"2"[..]));
            }
            Body::Subscribe(_) => {
                stream
                    .send(proto::Subscribed { created: false, floor: 0, credit_max: 1000, ..Default::default() })
                    .await;
            }
            other => panic!("{} opens a stream", other.name()),
        }
    }
}
