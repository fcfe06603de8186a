//! Stores as earlier versions wrote them: what they hold is read, and kept in the present format.
//!
//! `golden/v1.hex` was written by the first version, killed while messages were unsettled. `golden/v2.hex` is written by
//! `cargo run -p quipu-queue --example golden`, for as long as that format may still change.

#[path = "golden/dump.rs"]
mod dump;

use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use quipu_protocol::{Message, MessageId, Subject};
use quipu_queue::checkpoint::FORMAT;
use quipu_queue::journal::JournalConfig;
use quipu_queue::{Delivery, Mode, PublishError, Published, QueueInfo, Receipt, Start, Store, StoreConfig, inspect};

fn config(path: &Path) -> StoreConfig {
    let journal = JournalConfig { segments: 2, segment_bytes: 1 << 20 };
    StoreConfig { journal, ..StoreConfig::new(path) }
}

fn message(to: &str, id: &str, payload: impl Into<Bytes>) -> Message {
    Message::new(MessageId::new(id).expect("an id"), Subject::new(to).expect("a subject"), payload)
}

fn read(delivery: &Delivery) -> Message {
    Message::decode(delivery.stored.header.clone(), delivery.stored.payload.clone()).expect("a message")
}

async fn info(store: &Store, queue: &str) -> QueueInfo {
    let info = store.info().await.expect("a store");
    info.queues.into_iter().find(|known| known.name == queue).expect("the queue")
}

/// All that a subscription gets, in order. Given back when this returns.
async fn drain(store: &Store, queue: &str, subscription: &str) -> Vec<Delivery> {
    let got: Arc<Mutex<Vec<Delivery>>> = Arc::default();
    let sink = got.clone();
    let sink = move |batch| sink.lock().expect("no panic holds it").extend(batch);
    let joined = store.subscribe(queue, subscription, None, Start::First, sink).await.expect("a consumer");
    assert!(!joined.created, "{queue} has no subscription {subscription}");
    joined.credit(1_000).await.expect("a store");
    while info(store, queue).await.subscriptions.iter().any(|s| s.name == subscription && s.waiting > 0) {
        tokio::task::yield_now().await;
    }
    std::mem::take(&mut *got.lock().expect("no panic holds it"))
}

fn ids(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(|delivery| read(delivery).id.as_str().to_owned()).collect()
}

fn named(letter: char, numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    numbers.into_iter().map(|n| format!("{letter}{n}")).collect()
}

#[tokio::test]
async fn a_store_of_format_1_goes_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let text = include_str!("golden/v1.hex");
    dump::restore(text, directory.path());
    assert!(dump::dump(directory.path()) == text, "the files are not those that were dumped");
    let report = inspect(directory.path()).expect("a store");
    assert!(report.is_sound() && report.format == Some(1) && report.records > 0, "{report}");
    let store = Store::open(&config(directory.path())).expect("the store");
    let orders = drain(&store, "orders", "shop").await;
    assert_eq!(ids(&orders), named('o', 6..=16));
    for (delivery, n) in orders.iter().zip(6..) {
        let message = read(delivery);
        assert_eq!(message.payload, format!("{{\"n\":\"o{n}\",\"v\":{n}}}"));
        let key = Some(format!("o{n}").into_bytes()).filter(|_| n <= 12);
        assert_eq!(message.key.map(|key| key.as_bytes().to_vec()), key);
        assert_eq!(message.subject.as_str(), if n <= 12 { "orders.eu.new" } else { "orders.us.new" });
        assert_eq!(delivery.offset.0, n - 1);
    }
    assert_eq!(ids(&drain(&store, "audit", "log").await), named('o', 6..=12));
    let known = info(&store, "orders").await;
    assert_eq!((known.next_offset, known.messages, known.subscriptions[0].counts.acked), (16, 11, 5));
    let (came, gone) = known.subscriptions[0].ledger();
    assert_eq!(came, gone);
    // The window is two minutes, and that long ago it was.
    let again = Published::new(&message("orders.us.new", "o16", "again"), true);
    let receipt = store.publish(vec![again.clone()]).await.expect("a store").remove(0).expect("stored");
    assert!(matches!(&receipt, Receipt::Stored(places) if places[0].1.0 == 16), "{receipt:?}");
    let receipt = store.publish(vec![again]).await.expect("a store").remove(0);
    assert!(matches!(receipt, Ok(Receipt::Duplicate(_))), "{receipt:?}");
    store.stop().await.expect("a clean stop");
    let report = inspect(directory.path()).expect("a store");
    assert!(report.is_sound() && report.format == Some(FORMAT), "{report}");
    let store = Store::open(&config(directory.path())).expect("the store again");
    let orders = drain(&store, "orders", "shop").await;
    assert_eq!(ids(&orders), [named('o', 6..=16), named('o', [16])].concat());
    assert_eq!(read(orders.last().expect("some")).payload, "again");
}

#[tokio::test]
async fn a_store_of_format_2_goes_on() {
    let directory = tempfile::tempdir().expect("a directory");
    dump::restore(include_str!("golden/v2.hex"), directory.path());
    let report = inspect(directory.path()).expect("a store");
    assert!(report.is_sound() && report.format == Some(2) && report.records > 0, "{report}");
    let store = Store::open(&config(directory.path())).expect("the store");
    check_format_2(&store).await;
    // A named publisher goes on where it was.
    let desk = store.named_publisher("desk", 1).await.expect("the publisher");
    assert_eq!((desk.epoch, desk.last_sequence), (1, 4));
    let repeated = Published::new(&message("kept", "k4", "k4"), false).with_sequence(4);
    let answer = desk.submit(vec![repeated]).await.expect("a store").await.expect("a store");
    assert!(matches!(answer.expect("an answer")[0], Ok(Receipt::Duplicate(_))));
    // A queue at its limit stays there.
    let known = info(&store, "small").await;
    assert_eq!((known.messages, known.messages_max), (3, Some(3)));
    let refused = store.publish(vec![Published::new(&message("small", "s9", "s9"), true)]).await.expect("a store");
    assert_eq!(refused, [Err(PublishError::Full("small".into()))]);
    store.stop().await.expect("a clean stop");
    let report = inspect(directory.path()).expect("a store");
    assert!(report.is_sound() && report.format == Some(FORMAT), "{report}");
    let store = Store::open(&config(directory.path())).expect("the store again");
    check_format_2(&store).await;
}

#[tokio::test]
async fn a_store_of_format_3_goes_on() {
    let directory = tempfile::tempdir().expect("a directory");
    dump::restore(include_str!("golden/v3.hex"), directory.path());
    let report = inspect(directory.path()).expect("a store");
    assert!(report.is_sound() && report.format == Some(3) && report.records > 0, "{report}");
    for _ in 0..2 {
        let store = Store::open(&config(directory.path())).expect("the store");
        check_format_2(&store).await;
        check_format_3(&store).await;
        store.stop().await.expect("a clean stop");
        let report = inspect(directory.path()).expect("a store");
        assert!(report.is_sound() && report.format == Some(FORMAT), "{report}");
    }
}

/// What operators did.
async fn check_format_3(store: &Store) {
    let records = store.records("plugin/").await.expect("a store");
    let records: Vec<(&str, &[u8])> = records.iter().map(|(key, value)| (key.as_str(), &value[..])).collect();
    assert_eq!(records, [("plugin/a", &b"one"[..]), ("plugin/c", b"three")]);
    let queues: Vec<String> = store.info().await.expect("a store").queues.into_iter().map(|queue| queue.name).collect();
    assert_eq!(queues, ["audit", "extra", "jobs", "kept", "orders", "orders-dead", "seen", "small"]);
    let kept = info(store, "kept").await;
    let idle = kept.subscriptions.iter().find(|s| s.name == "idle").expect("it");
    assert_eq!((idle.paused, idle.waiting, idle.ledger()), (true, 4, (4, 4)));
    let audit = info(store, "audit").await;
    let replay = audit.subscriptions.iter().find(|s| s.name == "replay").expect("it");
    assert_eq!((replay.counts.sought_back, replay.waiting, replay.ledger()), (5, 5, (5, 5)));
    let extra = info(store, "extra").await;
    assert_eq!((extra.messages, extra.first_offset, extra.subscriptions.len()), (1, 3, 0));
    let last = store.peek_last("extra", 9).await.expect("a store").expect("the queue");
    assert_eq!(last[0].1.payload, "payload of t0");
}

async fn check_format_2(store: &Store) {
    let orders = drain(store, "orders", "shop").await;
    // Both o3 and o8 were given up; o3 was driven back, behind the others.
    assert_eq!(ids(&orders), named('o', [6, 7, 9, 10, 11, 12, 3]));
    for delivery in &orders {
        assert_eq!(read(delivery).payload, format!("payload of {}", read(delivery).id.as_str()));
    }
    assert!(orders.iter().all(|delivery| delivery.attempt == 1));
    assert_eq!(ids(&drain(store, "orders-dead", "clerk").await), named('o', [8]));
    let known = info(store, "orders").await;
    let counts = known.subscriptions[0].counts;
    assert_eq!((counts.acked, counts.dead_lettered, counts.redriven), (4, 2, 1));
    assert_eq!(known.subscriptions[0].ledger().0, known.subscriptions[0].ledger().1);
    // A log keeps what was settled, and trims what is more than five.
    let log = info(store, "audit").await;
    assert_eq!((log.retention, log.messages, log.first_offset, log.next_offset), ("log", 5, 7, 12));
    assert_eq!(ids(&drain(store, "audit", "log").await), named('o', 9..=12));
    // Keyed messages on a buffered queue.
    let jobs = info(store, "jobs").await;
    assert_eq!((jobs.durability, jobs.subscriptions[0].mode), ("buffered", Mode::KeyShared.as_str()));
    assert_eq!(ids(&drain(store, "jobs", "workers").await), named('j', [2, 4, 6]));
    assert_eq!(ids(&drain(store, "kept", "s").await), named('k', 1..=4));
    // In memory alone: only that it is there.
    let seen = info(store, "seen").await;
    assert_eq!((seen.durability, seen.messages), ("memory", 0));
}
