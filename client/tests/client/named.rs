//! Named publishers: epochs, sequences over lost connections, and fencing.

use quipu_client::{
    Client, Code, Lost, OutgoingMessage, PendingReceipt, Position, PublishError, Publisher, PublisherOptions, Receipt,
    ReceiptError,
};
use quipu_protocol::frame::Body;
use quipu_protocol::proto;
use quipu_protocol::proto::result::Kind;

use crate::router::{Duplex, FakeRouter, Peer, position, timely};

fn stored(offset: u64) -> Receipt {
    Receipt::Stored(vec![Position { queue: "orders".into(), offset }])
}

fn opened(epoch: u64, last_sequence: u64) -> proto::Opened {
    proto::Opened { epoch, last_sequence, credit: None }
}

async fn named(client: &Client, peer: &Peer, epoch: u64) -> (Publisher, Duplex) {
    let options = PublisherOptions { name: Some("till".into()), ..PublisherOptions::default() };
    let (publisher, stream) = tokio::join!(client.publisher(options), peer.accept_named(0, opened(epoch, 0)));
    (publisher.expect("opened"), stream)
}

async fn publish(publisher: &Publisher, payload: &str) -> PendingReceipt {
    publisher.publish(OutgoingMessage::new("orders.eu", payload.to_owned())).await.expect("handed over")
}

/// The next publish: its sequence, its id and its payload.
async fn published(stream: &mut Duplex) -> (u64, String, String) {
    let frame = stream.next().await;
    let Body::Publish(publish) = frame.body else { panic!("a Publish, not {}", frame.body.name()) };
    let header: proto::MessageHeader = prost::Message::decode(publish.message).expect("a header");
    (publish.sequence, header.id, String::from_utf8(frame.payload.into()).expect("text"))
}

#[tokio::test]
async fn a_lost_connection_repeats_the_same_sequences_in_the_same_epoch() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        let (publisher, mut stream) = named(&client, &peer, 3).await;
        let one = publish(&publisher, "1").await;
        let two = publish(&publisher, "2").await;
        let id = OutgoingMessage::new("orders.eu", "3").id("mine");
        let three = publisher.publish(id).await.expect("handed over");
        // Only an id that the caller gave is sent.
        assert_eq!(published(&mut stream).await, (1, String::new(), "1".into()));
        assert_eq!(published(&mut stream).await, (2, String::new(), "2".into()));
        assert_eq!(published(&mut stream).await, (3, "mine".into(), "3".into()));
        stream.stored(1, 1).await;
        assert_eq!(one.await, Ok(stored(1)));
        peer.vanish();

        // The router had stored the second when the connection was lost.
        let peer = router.welcome().await;
        let mut stream = peer.accept_named(3, opened(3, 2)).await;
        let four = publish(&publisher, "4").await;
        for expected in [(2, "", "2"), (3, "mine", "3"), (4, "", "4")] {
            let (sequence, id, payload) = published(&mut stream).await;
            assert_eq!((sequence, id.as_str(), payload.as_str()), expected);
        }
        let repeated = Kind::Duplicate(proto::Stored::default());
        stream.receipt(2, vec![repeated, Kind::Duplicate(position(9)), Kind::Stored(position(10))]).await;
        assert_eq!(two.await, Ok(Receipt::Duplicate(vec![])));
        let before = Receipt::Duplicate(vec![Position { queue: "orders".into(), offset: 9 }]);
        assert_eq!((three.await, four.await), (Ok(before), Ok(stored(10))));
    })
    .await;
}

#[tokio::test]
async fn a_fenced_publisher_fails_and_does_not_come_back() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        let (publisher, mut stream) = named(&client, &peer, 1).await;
        let pending = publish(&publisher, "1").await;
        assert_eq!(published(&mut stream).await.0, 1);
        stream.fail(Code::Fenced, "publisher `till` was opened anew").await;
        let Err(ReceiptError::Lost(Lost::Fenced(refusal))) = pending.await else { panic!("fenced") };
        assert_eq!(refusal.code(), Some(Code::Fenced));
        let late = publisher.publish(OutgoingMessage::new("orders.eu", "2")).await.expect_err("fenced");
        assert_eq!(late.to_string(), "fenced: publisher `till` was opened anew");
        assert!(matches!(publisher.flush().await, Err(Lost::Fenced(_))));
        // The next stream is another publisher's.
        let (_other, _stream) = peer.publisher(&client, PublisherOptions::default()).await;
    })
    .await;
}

#[tokio::test]
async fn a_publisher_fenced_while_it_was_away_fails_when_it_comes_back() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        let (publisher, mut stream) = named(&client, &peer, 7).await;
        let pending = publish(&publisher, "1").await;
        assert_eq!(published(&mut stream).await.0, 1);
        peer.vanish();
        let peer = router.welcome().await;
        let mut stream = Duplex::accept(&peer.connection).await;
        stream.expect(proto::OpenPublisher { name: "till".into(), epoch: 7, stop_on_error: false }).await;
        stream.fail(Code::Fenced, "epoch 8 is open").await;
        assert!(matches!(pending.await, Err(ReceiptError::Lost(Lost::Fenced(_)))));
        let late = publisher.publish(OutgoingMessage::new("orders.eu", "2")).await;
        assert!(matches!(late, Err(PublishError::Lost(Lost::Fenced(_)))), "{late:?}");
    })
    .await;
}

#[tokio::test]
async fn a_router_that_has_what_was_never_sent_is_not_trusted() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        let (publisher, mut stream) = named(&client, &peer, 1).await;
        let pending = publish(&publisher, "1").await;
        assert_eq!(published(&mut stream).await.0, 1);
        peer.vanish();
        let peer = router.welcome().await;
        let _stream = peer.accept_named(1, opened(1, 5)).await;
        let error = pending.await.expect_err("lost").to_string();
        assert!(error.contains("sequence 5 of a publisher that sent 1"), "{error}");
    })
    .await;
}
