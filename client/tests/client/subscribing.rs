//! Subscribers: deliveries, settlements, credit, and what a lost connection does to them.

use std::pin::pin;
use std::time::Duration;

use futures_core::Stream;
use quipu_client::{Code, Lost, SettleError, Settled, Subscribe, SubscribeError, Subscriber, Why};
use quipu_protocol::proto;

use crate::router::{Duplex, FakeRouter, is_pending, timely};

async fn offsets(subscriber: &mut Subscriber, count: usize) -> Vec<u64> {
    let mut offsets = Vec::new();
    for _ in 0..count {
        offsets.push(subscriber.next().await.expect("open").expect("a delivery").offset);
    }
    offsets
}

#[tokio::test]
async fn deliveries_come_in_order_and_acks_share_frames() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        let (mut subscriber, mut stream) = peer.subscriber(&client).await;
        for token in 1..=50 {
            stream.deliver(token, 1).await;
        }
        for offset in 1..=50 {
            let delivery = subscriber.next().await.expect("open").expect("a delivery");
            assert_eq!((delivery.offset, delivery.attempt, delivery.why), (offset, 1, Why::First));
            assert_eq!(delivery.message.payload, "{}");
            delivery.ack_later().await.expect("handed over");
        }
        let flushed = async { subscriber.flush().await.expect("answered") };
        let router = async {
            let (mut tokens, mut frames) = (Vec::new(), 0);
            while tokens.len() < 50 {
                let settle = stream.settle().await;
                assert_eq!(settle.verb(), proto::Verb::Ack);
                tokens.extend_from_slice(&settle.tokens);
                frames += 1;
                stream.committed(&settle.tokens).await;
            }
            assert_eq!(tokens, (1..=50).collect::<Vec<_>>());
            assert!(frames < 50, "{frames} frames for 50 acks");
        };
        tokio::join!(flushed, router);
    })
    .await;
}

#[tokio::test]
async fn settlements_are_answered_one_by_one() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        let (mut subscriber, mut stream) = peer.subscriber(&client).await;
        for token in 1..=3 {
            stream.deliver(token, 2).await;
        }
        let mut deliveries = Vec::new();
        for _ in 0..3 {
            deliveries.push(subscriber.next().await.expect("open").expect("a delivery"));
        }
        let [one, two, three] = deliveries.try_into().expect("three");
        let settling = async { tokio::join!(one.ack(), two.nack(Duration::from_millis(70)), three.reject("bad")) };
        let answering = async {
            let (ack, nack, reject) = (stream.settle().await, stream.settle().await, stream.settle().await);
            assert_eq!((ack.verb(), ack.tokens), (proto::Verb::Ack, vec![1]));
            assert_eq!((nack.verb(), nack.delay_ms), (proto::Verb::Nack, 70));
            assert_eq!((reject.verb(), reject.reason.as_str()), (proto::Verb::Reject, "bad"));
            let error = Some(Code::NoDeadLetter.error("nowhere to go"));
            stream.send(proto::Settled { committed: vec![1], stale: vec![2], refused: vec![3], error }).await;
        };
        let ((acked, nacked, rejected), ()) = tokio::join!(settling, answering);
        assert_eq!((acked, nacked), (Ok(Settled::Committed), Ok(Settled::Stale)));
        let Err(SettleError::Refused(refusal)) = rejected else { panic!("refused") };
        assert_eq!(refusal.code(), Some(Code::NoDeadLetter));
    })
    .await;
}

#[tokio::test]
async fn credit_follows_what_is_taken() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        let subscribe = client.subscribe(Subscribe { prefetch: 4, ..Subscribe::new("orders", "billing") });
        let (subscriber, mut stream) = tokio::join!(subscribe, async {
            let mut stream = Duplex::accept(&peer.connection).await;
            stream.next().await;
            stream.send(proto::Subscribed { created: false, floor: 0, credit_max: 3 }).await;
            // The router's limit goes before.
            stream.expect(proto::Credit { messages: 3, bytes: 0 }).await;
            stream
        });
        let mut subscriber = subscriber.expect("subscribed");
        for token in 1..=3 {
            stream.deliver(token, 1).await;
        }
        assert_eq!(offsets(&mut subscriber, 1).await, [1]);
        stream.expect(proto::Credit { messages: 4, bytes: 0 }).await;
        stream.deliver(4, 1).await;
        assert_eq!(offsets(&mut subscriber, 3).await, [2, 3, 4]);
    })
    .await;
}

#[tokio::test]
async fn waiting_for_a_delivery_can_be_given_up() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        let (mut subscriber, mut stream) = peer.subscriber(&client).await;
        assert!(is_pending(&mut pin!(subscriber.next())).await);
        stream.deliver(1, 1).await;
        let mut pinned = pin!(subscriber);
        let next = std::future::poll_fn(|cx| pinned.as_mut().poll_next(cx)).await;
        assert_eq!(next.expect("open").expect("a delivery").offset, 1);
    })
    .await;
}

#[tokio::test]
async fn a_lost_connection_makes_deliveries_stale() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        let (mut subscriber, mut stream) = peer.subscriber(&client).await;
        for token in 1..=3 {
            stream.deliver(token, 1).await;
        }
        let old = subscriber.next().await.expect("open").expect("a delivery");
        let unanswered = subscriber.next().await.expect("open").expect("a delivery");
        let unanswered = tokio::spawn(unanswered.ack());
        assert_eq!(stream.settle().await.tokens, [2]);
        peer.vanish();
        assert_eq!(unanswered.await.expect("no panic"), Err(SettleError::Unanswered));

        let peer = router.welcome().await;
        let (mut stream, _) = peer.accept_subscriber().await;
        assert_eq!(old.ack().await, Ok(Settled::Stale));
        // The third was waiting here, and is not given out under its old token.
        stream.deliver(11, 2).await;
        let new = subscriber.next().await.expect("open").expect("a delivery");
        assert_eq!((new.offset, new.attempt), (11, 2));
        let (settled, ()) = tokio::join!(new.ack(), async {
            assert_eq!(stream.settle().await.tokens, [11]);
            stream.committed(&[11]).await;
        });
        assert_eq!(settled, Ok(Settled::Committed));
    })
    .await;
}

#[tokio::test]
async fn closing_sends_what_was_settled_and_gives_back_the_rest() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        let (mut subscriber, mut stream) = peer.subscriber(&client).await;
        for token in 1..=2 {
            stream.deliver(token, 1).await;
        }
        let settled = subscriber.next().await.expect("open").expect("a delivery");
        let kept = subscriber.next().await.expect("open").expect("a delivery");
        settled.ack_later().await.expect("handed over");
        let closing = tokio::spawn(subscriber.close());
        assert_eq!(stream.settle().await.tokens, [1]);
        stream.committed(&[1]).await;
        stream.end().await;
        assert_eq!(closing.await.expect("no panic"), Ok(()));
        assert_eq!(kept.ack().await, Err(SettleError::Closed));
    })
    .await;
}

#[tokio::test]
async fn dropping_the_subscriber_ends_its_stream() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        let (mut subscriber, mut stream) = peer.subscriber(&client).await;
        assert!(is_pending(&mut pin!(subscriber.next())).await);
        drop(subscriber);
        stream.end().await;
    })
    .await;
}

#[tokio::test]
async fn an_unknown_queue_is_refused() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        let (refused, _stream) = tokio::join!(client.subscribe(Subscribe::new("no", "s")), async {
            let mut stream = Duplex::accept(&peer.connection).await;
            stream.next().await;
            stream.fail(Code::UnknownQueue, "no queue `no`").await;
            stream
        });
        let Err(SubscribeError::Refused(refusal)) = refused else { panic!("refused") };
        assert_eq!(refusal.to_string(), "no queue `no` (code 48)");
    })
    .await;
}

#[tokio::test]
async fn the_router_ends_a_subscription_and_says_why() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        let (mut subscriber, mut stream) = peer.subscriber(&client).await;
        let kind = proto::notice::Kind::Deleted.into();
        stream.send(proto::Notice { kind, text: "queue `orders` is deleted".into() }).await;
        stream.send(proto::End {}).await;
        let error = subscriber.next().await.expect("an error").expect_err("over");
        assert_eq!(error, SubscribeError::Ended("queue `orders` is deleted".into()));
        assert!(subscriber.next().await.is_none());
        assert_eq!(subscriber.close().await, Err(error));
    })
    .await;
}

#[tokio::test]
async fn deliveries_beyond_the_credit_are_the_routers_mistake() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        let (mut subscriber, mut stream) = peer.subscriber(&client).await;
        for token in 1..=257 {
            stream.deliver(token, 1).await;
        }
        // Nothing is taken, so nothing more is granted; the client gives the stream up.
        while stream.read().await.is_ok_and(|frame| frame.is_some()) {}
        let error = subscriber.next().await.expect("an error").expect_err("over");
        assert!(matches!(error, SubscribeError::Lost(Lost::Protocol(_))), "{error}");
    })
    .await;
}
