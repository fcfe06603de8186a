//! Subscribers: deliveries, settlements, credit, and what a lost connection does to them.

use std::pin::pin;
use std::time::Duration;

use futures_core::Stream;
use quipu_client::{Code, Lost, Mode, SettleError, Settled, Start, Subscribe, SubscribeError, Subscriber, Why};
use quipu_protocol::proto;

use crate::router::{Duplex, FakeRouter, Peer, is_pending, timely};

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
            stream.send(proto::Subscribed { created: false, floor: 0, credit_max: 3, ..Default::default() }).await;
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

/// Subscribes, and answers with this; what was asked for.
async fn subscribe(
    client: &quipu_client::Client,
    peer: &Peer,
    asked: Subscribe,
    answer: proto::Subscribed,
) -> (Subscriber, proto::Subscribe) {
    let (subscriber, (_, sent)) = tokio::join!(client.subscribe(asked), peer.accept_subscriber_with(answer));
    (subscriber.expect("subscribed"), sent)
}

#[tokio::test]
async fn modes_and_starts_are_asked_for() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        let asked = [
            (Mode::Shared, proto::Mode::Shared, Start::New, proto::Start::New, (0, 0)),
            (Mode::KeyShared, proto::Mode::KeyShared, Start::Offset(7), proto::Start::Offset, (7, 0)),
            (
                Mode::Exclusive,
                proto::Mode::Exclusive,
                Start::Time(1_700_000_000_000),
                proto::Start::Time,
                (0, 1_700_000_000_000),
            ),
        ];
        for (mode, mode_sent, start, start_sent, (offset, ms)) in asked {
            let wanted = Subscribe { mode, start, ..Subscribe::new("orders", "billing") };
            let answer =
                proto::Subscribed { mode: mode_sent.into(), ack_deadline_ms: 30_000, ..proto::Subscribed::default() };
            let (subscriber, sent) = subscribe(&client, &peer, wanted, answer).await;
            assert_eq!((sent.mode(), sent.start()), (mode_sent, start_sent));
            assert_eq!((sent.start_offset, sent.start_ms), (offset, ms));
            assert_eq!(subscriber.ack_deadline(), Some(Duration::from_secs(30)));
        }
        let (subscriber, _) =
            subscribe(&client, &peer, Subscribe::new("orders", "billing"), proto::Subscribed::default()).await;
        assert_eq!(subscriber.ack_deadline(), None);
    })
    .await;
}

#[tokio::test]
async fn another_mode_is_refused_and_never_taken_for_the_one_asked() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        let exclusive = Subscribe { mode: Mode::Exclusive, ..Subscribe::new("orders", "billing") };
        let (refused, _stream) = tokio::join!(client.subscribe(exclusive.clone()), async {
            let mut stream = Duplex::accept(&peer.connection).await;
            stream.next().await;
            stream.fail(Code::ModeMismatch, "`billing` is shared").await;
            stream
        });
        let Err(SubscribeError::Refused(refusal)) = refused else { panic!("refused") };
        assert_eq!((refusal.code(), refusal.retryable), (Some(Code::ModeMismatch), false));
        // A router that does not know the mode might give what it has.
        let (taken, _stream) = tokio::join!(client.subscribe(exclusive), async {
            let mut stream = Duplex::accept(&peer.connection).await;
            stream.next().await;
            stream.send(proto::Subscribed { created: true, ..proto::Subscribed::default() }).await;
            stream
        });
        assert!(matches!(taken, Err(SubscribeError::Lost(Lost::Protocol(_)))), "{taken:?}");
    })
    .await;
}

#[tokio::test]
async fn a_delivery_says_why_it_comes_and_what_it_has_been_through() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        let (mut subscriber, mut stream) = peer.subscriber(&client).await;
        let whys = [Why::First, Why::First, Why::Nacked, Why::Returned, Why::Expired, Why::Crashed, Why::Other];
        for (why, expected) in (0_i32..).zip(whys) {
            let crashes = why.unsigned_abs();
            stream.deliver_as(proto::Deliver { token: 9, why, crashes, ..proto::Deliver::default() }).await;
            let delivery = subscriber.next().await.expect("open").expect("a delivery");
            assert_eq!((delivery.why, delivery.crashes), (expected, crashes));
        }
    })
    .await;
}

#[tokio::test]
async fn acking_through_leaves_the_earlier_ones_stale() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        let (mut subscriber, mut stream) = peer.subscriber(&client).await;
        for token in 1..=3 {
            stream.deliver(token, 1).await;
        }
        let first = subscriber.next().await.expect("open").expect("a delivery");
        offsets(&mut subscriber, 1).await;
        let third = subscriber.next().await.expect("open").expect("a delivery");
        let (through, ()) = tokio::join!(third.ack_through(), async {
            let settle = stream.settle().await;
            assert_eq!((settle.verb(), settle.tokens), (proto::Verb::AckThrough, vec![3]));
            stream.committed(&[3]).await;
        });
        assert_eq!(through, Ok(Settled::Committed));
        let (late, ()) = tokio::join!(first.ack(), async {
            assert_eq!(stream.settle().await.tokens, [1]);
            stream.send(proto::Settled { stale: vec![1], ..Default::default() }).await;
        });
        assert_eq!(late, Ok(Settled::Stale));
        subscriber.flush().await.expect("nothing outstanding");
    })
    .await;
}

#[tokio::test]
async fn a_delivery_is_extended_until_it_is_stale() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        let (mut subscriber, mut stream) = peer.subscriber(&client).await;
        stream.deliver(1, 1).await;
        stream.deliver(2, 1).await;
        let one = subscriber.next().await.expect("open").expect("a delivery");
        let two = subscriber.next().await.expect("open").expect("a delivery");
        let minute = Duration::from_secs(60);
        let (extended, ()) = tokio::join!(one.extend(minute), async {
            let settle = stream.settle().await;
            assert_eq!((settle.verb(), settle.delay_ms, settle.tokens), (proto::Verb::Extend, 60_000, vec![1]));
            stream.committed(&[1]).await;
        });
        assert_eq!(extended, Ok(()));
        // One that nobody waits for any more does not take the ack's answer.
        assert!(is_pending(&mut pin!(one.extend(minute))).await);
        let (acked, ()) = tokio::join!(one.ack(), async {
            assert_eq!(stream.settle().await.verb(), proto::Verb::Extend);
            stream.send(proto::Settled { stale: vec![1], ..Default::default() }).await;
            assert_eq!(stream.settle().await.verb(), proto::Verb::Ack);
            stream.committed(&[1]).await;
        });
        assert_eq!(acked, Ok(Settled::Committed));
        let (extended, ()) = tokio::join!(two.extend(minute), async {
            stream.settle().await;
            stream.send(proto::Settled { stale: vec![2], ..Default::default() }).await;
        });
        assert_eq!(extended, Err(SettleError::Stale));
        peer.vanish();
        let peer = router.welcome().await;
        let _stream = peer.accept_subscriber().await;
        assert_eq!(two.extend(minute).await, Err(SettleError::Stale));
    })
    .await;
}
