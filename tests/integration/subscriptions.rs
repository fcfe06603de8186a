//! How the consumers of a subscription share it, and what becomes of what they do not settle.

use std::collections::HashMap;
use std::time::Duration;

use quipu_client::{
    Client, Code, Delivery, Mode, OutgoingMessage, PublisherOptions, SettleError, Settled, Start, Subscribe,
    SubscribeError, Subscriber, Why,
};
use quipu_tests::{TestServer, soon};
use serde_json::json;

use crate::QUIPU;

const KEYS: usize = 16;
const MESSAGES: usize = 800;

async fn publish(client: &Client, messages: impl IntoIterator<Item = OutgoingMessage>) {
    let publisher = client.publisher(PublisherOptions::default()).await.expect("a publisher");
    for message in messages {
        // The receipts are waited for in `close`.
        drop(publisher.publish(message).await.expect("published"));
    }
    publisher.close().await.expect("stored");
}

fn numbered(count: usize) -> impl Iterator<Item = OutgoingMessage> {
    (0..count).map(|n| OutgoingMessage::new("q", n.to_string()))
}

async fn next(subscriber: &mut Subscriber) -> Delivery {
    soon("a delivery", subscriber.next()).await.expect("open").expect("a delivery")
}

fn number(delivery: &Delivery) -> usize {
    std::str::from_utf8(&delivery.message.payload).expect("text").parse().expect("a number")
}

fn with(mode: Mode) -> Subscribe {
    Subscribe { mode, prefetch: 32, ..Subscribe::new("q", "s") }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_shared_keeps_each_keys_order_over_two_consumers() {
    let server = TestServer::start(QUIPU, "[queue.q]\n").await;
    let client = server.client().await;
    let message = |n: usize| OutgoingMessage::new("q", n.to_string()).key(format!("key-{}", n % KEYS).into_bytes());
    publish(&client, (0..MESSAGES).map(message)).await;
    let (sender, mut seen) = tokio::sync::mpsc::channel(MESSAGES);
    for consumer in 0..2 {
        let mut subscriber = client.subscribe(with(Mode::KeyShared)).await.expect("a subscriber");
        let sender = sender.clone();
        tokio::spawn(async move {
            while let Some(Ok(delivery)) = subscriber.next().await {
                let n = number(&delivery);
                delivery.ack().await.expect("settled");
                if sender.send((consumer, n)).await.is_err() {
                    return;
                }
            }
        });
    }
    let (mut last, mut by_consumer) = (HashMap::new(), [0, 0]);
    for _ in 0..MESSAGES {
        let (consumer, n) = soon("a message", seen.recv()).await.expect("open");
        by_consumer[consumer] += 1;
        let before = last.insert(n % KEYS, n);
        assert!(before.is_none_or(|before| before + KEYS == n), "{n} of its key came after {before:?}");
    }
    assert!(by_consumer.iter().all(|count| *count > 0), "both had their share: {by_consumer:?}");
}

#[tokio::test]
async fn an_exclusive_subscription_passes_on_when_its_consumer_goes() {
    let server = TestServer::start(QUIPU, "[queue.q]\n").await;
    let client = server.client().await;
    publish(&client, numbered(2)).await;
    let mut first = client.subscribe(with(Mode::Exclusive)).await.expect("a subscriber");
    let mut second = client.subscribe(with(Mode::Exclusive)).await.expect("a subscriber");
    next(&mut first).await.ack().await.expect("settled");
    assert_eq!(number(&next(&mut first).await), 1);
    first.close().await.expect("closed");
    let delivery = next(&mut second).await;
    assert_eq!((number(&delivery), delivery.why), (1, Why::Returned));
    let other = client.subscribe(with(Mode::Shared)).await;
    let Err(SubscribeError::Refused(refusal)) = other else { panic!("another mode was taken") };
    assert_eq!(refusal.code(), Some(Code::ModeMismatch));
}

#[tokio::test]
async fn a_new_subscription_starts_where_it_says() {
    let server = TestServer::start(QUIPU, "[queue.q]\nretention = \"log\"\n").await;
    let client = server.client().await;
    publish(&client, numbered(10)).await;
    for (name, start, expected) in [("a", Start::Offset(7), 7), ("b", Start::Time(0), 0), ("c", Start::First, 0)] {
        let subscribe = Subscribe { start, ..Subscribe::new("q", name) };
        let mut subscriber = client.subscribe(subscribe).await.expect("a subscriber");
        assert_eq!(number(&next(&mut subscriber).await), expected, "{name}");
    }
    let from_offset = server.cli(&["sub", "q", "--subscription", "d", "--from-offset", "9", "-n", "1"]).await;
    let since = server.cli(&["sub", "q", "--subscription", "e", "--since", "1h", "-n", "1"]).await;
    assert_eq!((from_offset.as_str(), since.as_str()), ("9\n", "0\n"));
}

#[tokio::test]
async fn acked_through_is_acked_before_it() {
    let server = TestServer::start(QUIPU, "[queue.q]\n").await;
    let client = server.client().await;
    publish(&client, numbered(5)).await;
    let mut subscriber = client.subscribe(Subscribe::new("q", "s")).await.expect("a subscriber");
    let mut deliveries = Vec::new();
    for _ in 0..4 {
        deliveries.push(next(&mut subscriber).await);
    }
    let last = deliveries.pop().expect("four");
    assert_eq!(last.ack_through().await, Ok(Settled::Committed));
    for earlier in deliveries {
        assert_eq!(earlier.ack().await, Ok(Settled::Stale));
    }
    let shown = client.call("queue.show", json!({ "queue": "q" })).await.expect("an answer");
    let subscription = &shown["queue"]["subscriptions"][0];
    assert_eq!((&subscription["acked"], &subscription["floor"]), (&4.into(), &4.into()));
    assert_eq!(number(&next(&mut subscriber).await), 4);
}

#[tokio::test]
async fn what_is_not_settled_in_time_expires_and_what_is_extended_does_not() {
    let config = "[queue.q]\nack_deadline = \"1s\"\nbackoff = [\"0s\"]\n";
    let server = TestServer::start(QUIPU, config).await;
    let client = server.client().await;
    publish(&client, numbered(2)).await;
    let mut subscriber = client.subscribe(Subscribe::new("q", "s")).await.expect("a subscriber");
    assert_eq!(subscriber.ack_deadline(), Some(Duration::from_secs(1)));
    let (kept, left) = (next(&mut subscriber).await, next(&mut subscriber).await);
    kept.extend(Duration::from_secs(3_600)).await.expect("extended");
    let again = next(&mut subscriber).await;
    assert_eq!((number(&again), again.why, again.attempt), (1, Why::Expired, 2));
    assert_eq!(left.ack().await, Ok(Settled::Stale));
    assert_eq!(again.ack().await, Ok(Settled::Committed));
    assert_eq!(kept.ack().await, Ok(Settled::Committed));
    let extended = {
        publish(&client, numbered(1)).await;
        next(&mut subscriber).await.extend(Duration::from_secs(13 * 3_600)).await
    };
    // Clamped by the library, or refused by the router: never taken as it is.
    assert!(matches!(extended, Ok(()) | Err(SettleError::Refused(_))), "{extended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_seeks_and_what_it_had_is_stale() {
    let server = TestServer::start(QUIPU, "[queue.q]\nretention = \"log\"\n").await;
    let client = server.client().await;
    publish(&client, numbered(10)).await;
    let mut subscriber = client.subscribe(Subscribe { prefetch: 1, ..Subscribe::new("q", "s") }).await.expect("one");
    for expected in 0..4 {
        let delivery = next(&mut subscriber).await;
        assert_eq!(number(&delivery), expected);
        assert_eq!(delivery.ack().await, Ok(Settled::Committed));
    }
    let held = next(&mut subscriber).await;
    assert_eq!(number(&held), 4);
    for (offset, crossing) in [(2, 5..10), (8, 3..8)] {
        subscriber.seek(offset).await.expect("sent");
        // What was on its way comes first, and is stale.
        loop {
            let delivery = next(&mut subscriber).await;
            if delivery.offset == offset {
                assert_eq!(delivery.ack().await, Ok(Settled::Committed));
                break;
            }
            assert!(crossing.contains(&number(&delivery)), "{}", number(&delivery));
            assert_eq!(delivery.ack().await, Ok(Settled::Stale));
        }
    }
    assert_eq!(held.ack().await, Ok(Settled::Stale));
    assert_eq!(number(&next(&mut subscriber).await), 9);
    subscriber.close().await.expect("closed");
    let ledger = server.cli(&["ledger"]).await;
    assert!(ledger.contains("q"), "{ledger}");
}
