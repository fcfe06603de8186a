//! What operators do to a store on a real disk: records, and queues and subscriptions removed, paused, sought and purged;
//! and what inline routes make of a publish.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quipu_protocol::{Message, MessageId, Subject, SubjectPattern};
use quipu_queue::journal::JournalConfig;
use quipu_queue::{
    Consumer, Delivery, Durability, LookupError, Mode, Notice, NoticeKind, Offset, OnFull, Outcome, Output, PeekError,
    PublishError, Published, QueueInfo, QueueLimits, QueueSettings, Receipt, RecordError, Retention, Settle,
    SettleError, Settlement, Start, Store, StoreConfig, Stored, SubscribeError, SubscriptionInfo, Target,
};
use tokio::sync::mpsc;

fn config(path: &Path) -> StoreConfig {
    let journal = JournalConfig { segments: 4, segment_bytes: 1 << 20 };
    StoreConfig { journal, memory_bytes: 0, ..StoreConfig::new(path) }
}

fn subject(text: &str) -> Subject {
    Subject::new(text).expect("a subject")
}

fn message(to: &str, id: &str) -> Message {
    Message::new(MessageId::new(id).expect("an id"), subject(to), id.to_owned())
}

fn output(to: &str, id: &str, payload: Option<&'static str>) -> Output {
    let payload = payload.map(|text| Bytes::from_static(text.as_bytes()));
    Output { target: Target::Subject(subject(to)), header: message(to, id).encode_header(), payload }
}

async fn define(store: &Store, settings: QueueSettings) {
    store.define_queue(settings).await.expect("a store").expect("a queue");
}

async fn queue(store: &Store, name: &str) {
    define(store, QueueSettings::new(subject(name))).await;
}

async fn log(store: &Store, name: &str) {
    let retention = Retention::Log { age_ms: None, bytes: None, messages: None };
    define(store, QueueSettings { retention, ..QueueSettings::new(subject(name)) }).await;
}

async fn send(store: &Store, published: Published) -> Result<Receipt, PublishError> {
    store.publish(vec![published]).await.expect("a store").remove(0)
}

async fn publish(store: &Store, to: &str, ids: std::ops::Range<u32>) {
    for n in ids {
        send(store, Published::new(&message(to, &format!("m{n}")), true)).await.expect("stored");
    }
}

async fn info(store: &Store, name: &str) -> QueueInfo {
    store.info().await.expect("a store").queues.into_iter().find(|q| q.name == name).expect("the queue")
}

/// A subscription whose ledger closes.
async fn subscription(store: &Store, queue: &str, name: &str) -> SubscriptionInfo {
    let known = info(store, queue).await.subscriptions.into_iter().find(|s| s.name == name).expect("it");
    assert_eq!(known.ledger().0, known.ledger().1, "{known:?}");
    known
}

/// A consumer with what it gets and is told.
struct Reader {
    consumer: Consumer,
    deliveries: mpsc::Receiver<Vec<Delivery>>,
    notices: mpsc::Receiver<Notice>,
    pending: Vec<Delivery>,
}

impl Reader {
    async fn start(store: &Store, queue: &str, name: &str) -> Self {
        let (sender, deliveries) = mpsc::channel(4096);
        let (told, notices) = mpsc::channel(64);
        let sink = move |batch| drop(sender.try_send(batch));
        let tell = move |notice| drop(told.try_send(notice));
        let consumer = store.subscribe_with_notices(queue, name, (None, Start::First), sink, tell).await;
        let consumer = consumer.expect("a consumer");
        consumer.credit(1_000).await.expect("a store");
        Self { consumer, deliveries, notices, pending: Vec::new() }
    }

    async fn next(&mut self) -> Delivery {
        while self.pending.is_empty() {
            let batch = tokio::time::timeout(Duration::from_secs(10), self.deliveries.recv()).await;
            self.pending = batch.expect("a delivery in time").expect("an open store");
        }
        self.pending.remove(0)
    }

    async fn take(&mut self, count: usize) -> Vec<Delivery> {
        let mut taken = Vec::new();
        for _ in 0..count {
            taken.push(self.next().await);
        }
        taken
    }

    async fn ack(&self, delivery: &Delivery) -> Result<(), SettleError> {
        let settlement = Settlement::Done(Outcome::Acked);
        let settle = Settle { token: delivery.token, settlement, outputs: Vec::new() };
        self.consumer.settle(vec![settle]).await.expect("a store").remove(0)
    }

    async fn notice(&mut self) -> NoticeKind {
        let notice = tokio::time::timeout(Duration::from_secs(10), self.notices.recv()).await;
        notice.expect("a notice in time").expect("an open store").kind
    }
}

fn offsets(deliveries: &[Delivery]) -> Vec<u64> {
    deliveries.iter().map(|delivery| delivery.offset.0).collect()
}

fn ids(messages: &[(Offset, Arc<Stored>)]) -> Vec<String> {
    let id = |(_, stored): &(Offset, Arc<Stored>)| {
        let message = Message::decode(stored.header.clone(), stored.payload.clone()).expect("a message");
        assert_eq!(message.payload, message.id.as_str());
        message.id.as_str().to_owned()
    };
    messages.iter().map(id).collect()
}

fn pairs(records: &[(&str, &str)]) -> Vec<(String, Bytes)> {
    records.iter().map(|(key, value)| ((*key).to_owned(), Bytes::copy_from_slice(value.as_bytes()))).collect()
}

async fn set(store: &Store, records: &[(&str, Option<&str>)]) -> Result<(), RecordError> {
    let value = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let records = records.iter().map(|(key, text)| ((*key).to_owned(), text.map(value))).collect();
    store.set_records(records).await.expect("a store")
}

#[tokio::test]
async fn records_are_there_after_restarts_and_kills() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(&config(directory.path())).expect("a store");
    set(&store, &[("b/2", Some("two")), ("a", Some("x")), ("b/1", Some("one"))]).await.expect("set");
    set(&store, &[("b/1", Some("uno")), ("c", None)]).await.expect("set");
    assert_eq!(store.records("b/").await.expect("a store"), pairs(&[("b/1", "uno"), ("b/2", "two")]));
    // From the journal alone, as after a kill.
    let copy = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(copy.path().join("journal")).expect("a directory");
    for n in 0..4 {
        let name = format!("journal/00{n}.journal");
        std::fs::copy(directory.path().join(&name), copy.path().join(&name)).expect("copied");
    }
    std::fs::copy(directory.path().join("state.redb"), copy.path().join("state.redb")).expect("copied");
    let all = pairs(&[("a", "x"), ("b/1", "uno"), ("b/2", "two")]);
    let copied = Store::open(&config(copy.path())).expect("the copy");
    assert_eq!(copied.records("").await.expect("a store"), all);
    // From the checkpoint, and a removed one stays so.
    store.stop().await.expect("a clean stop");
    let store = Store::open(&config(directory.path())).expect("the store again");
    assert_eq!(store.records("").await.expect("a store"), all);
    set(&store, &[("a", None)]).await.expect("set");
    store.stop().await.expect("a clean stop");
    let store = Store::open(&config(directory.path())).expect("the store again");
    assert_eq!(store.records("").await.expect("a store"), all[1..]);
    let info = store.info().await.expect("a store");
    assert_eq!((info.records, info.records_bytes), (2, 2 * 64 + 6 + 6));
}

#[tokio::test]
async fn records_have_limits_and_are_set_all_or_none() {
    let directory = tempfile::tempdir().expect("a directory");
    let journal = JournalConfig { segments: 2, segment_bytes: 4 << 20 };
    let store = Store::open(&StoreConfig { journal, ..config(directory.path()) }).expect("a store");
    let long = "k".repeat(513);
    assert_eq!(set(&store, &[("a", Some("x")), (&long, Some("y"))]).await, Err(RecordError::Key(513)));
    assert_eq!(set(&store, &[("", None)]).await, Err(RecordError::Key(0)));
    let large = "v".repeat((256 << 10) + 1);
    let refused = RecordError::Value { key: "b".into(), bytes: (256 << 10) + 1 };
    assert_eq!(set(&store, &[("a", Some("x")), ("b", Some(&large))]).await, Err(refused));
    assert_eq!(store.records("").await.expect("a store"), []);
    let full = &large[1..];
    let many = |first: u32, count: u32| -> Vec<(String, Option<Bytes>)> {
        let value = Bytes::copy_from_slice(full.as_bytes());
        (first..first + count).map(|n| (format!("k{n:04}"), Some(value.clone()))).collect()
    };
    let refused = store.set_records(many(0, 20)).await.expect("a store");
    assert!(matches!(refused, Err(RecordError::TooLarge(_))), "{refused:?}");
    for n in 0..31 {
        store.set_records(many(n * 8, 8)).await.expect("a store").expect("room");
    }
    store.set_records(many(248, 7)).await.expect("a store").expect("room");
    let refused = store.set_records(many(255, 1)).await.expect("a store");
    assert!(matches!(refused, Err(RecordError::Full(_))), "{refused:?}");
    // What frees room is taken.
    set(&store, &[("k0000", Some("small"))]).await.expect("room");
    store.set_records(many(255, 1)).await.expect("a store").expect("room");
}

#[tokio::test]
async fn a_publish_and_what_inline_routes_made_of_it_are_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(&config(directory.path())).expect("a store");
    for name in ["q", "out", "other"] {
        queue(&store, name).await;
    }
    let limits = QueueLimits { messages: Some(1), bytes: None, on_full: OnFull::Reject };
    define(&store, QueueSettings { limits, ..QueueSettings::new(subject("small")) }).await;
    let with = |to: &str, id: &str, outputs| Published::new(&message(to, id), true).with_outputs(outputs);
    // All of it, in order.
    let outputs = vec![output("out", "o1", None), output("other", "o2", Some("o2")), output("out", "o3", Some("o3"))];
    let receipt = send(&store, with("q", "m", outputs.clone())).await;
    assert_eq!(receipt, Ok(Receipt::Stored(vec![("q".into(), Offset(0))])));
    assert_eq!(send(&store, with("q", "m", outputs)).await, Ok(Receipt::Duplicate(vec![("q".into(), Offset(0))])));
    let there = store.peek("out", Offset(0), 9, 1 << 20).await.expect("a store").expect("a queue");
    assert_eq!(there.iter().map(|(_, stored)| stored.payload.clone()).collect::<Vec<_>>(), ["m", "o3"]);
    // Or nothing.
    let nowhere = vec![output("out", "o4", None), output("nowhere", "o5", None)];
    assert_eq!(send(&store, with("q", "n", nowhere)).await, Err(PublishError::NoQueue(subject("nowhere"))));
    send(&store, Published::new(&message("small", "s"), true)).await.expect("room");
    let full = vec![output("out", "o6", None), output("small", "o7", None)];
    assert_eq!(send(&store, with("q", "n", full)).await, Err(PublishError::Full("small".into())));
    let large = vec![output("out", "o8", None); 900];
    let large: Vec<Output> =
        large.into_iter().map(|o| Output { payload: Some(vec![0; 1 << 10].into()), ..o }).collect();
    let refused = send(&store, with("q", "n", large)).await;
    assert!(matches!(refused, Err(PublishError::TooLarge(_))), "{refused:?}");
    assert_eq!((info(&store, "q").await.next_offset, info(&store, "out").await.next_offset), (1, 2));
    assert_eq!(send(&store, with("nowhere", "n", Vec::new())).await, Err(PublishError::NoQueue(subject("nowhere"))));
}

#[tokio::test]
async fn what_an_inline_route_took_needs_no_queue_and_is_known_by_its_id() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(&config(directory.path())).expect("a store");
    queue(&store, "out").await;
    define(&store, QueueSettings { durability: Durability::Memory, ..QueueSettings::new(subject("seen")) }).await;
    let taken = |id: &str, outputs| Published::new(&message("in.x", id), true).with_outputs(outputs).taken();
    assert_eq!(send(&store, taken("dropped", Vec::new())).await, Ok(Receipt::Stored(Vec::new())));
    assert_eq!(send(&store, taken("dropped", Vec::new())).await, Ok(Receipt::Duplicate(Vec::new())));
    let outputs = vec![output("seen", "o1", None), output("out", "o1", None)];
    assert_eq!(send(&store, taken("sent", outputs.clone())).await, Ok(Receipt::Stored(Vec::new())));
    let in_memory = Published::new(&message("seen", "m"), true).with_outputs(vec![output("out", "o2", None)]);
    let Ok(Receipt::Stored(seen)) = send(&store, in_memory.clone()).await else { panic!("not stored") };
    let key = |to: &str, id: &str| (subject(to), MessageId::new(id).expect("an id"));
    let asked = vec![key("in.x", "dropped"), key("in.x", "sent"), key("in.x", "new"), key("seen", "m")];
    let known = store.known(asked.clone()).await.expect("a store");
    assert_eq!(known, [Some(Vec::new()), Some(Vec::new()), None, Some(seen)]);
    store.stop().await.expect("a clean stop");
    // What left something on disk must not do so twice.
    let store = Store::open(&config(directory.path())).expect("the store again");
    let known = store.known(asked).await.expect("a store");
    assert_eq!(known, [None, Some(Vec::new()), None, Some(Vec::new())]);
    assert_eq!(send(&store, taken("sent", outputs)).await, Ok(Receipt::Duplicate(Vec::new())));
    assert_eq!(send(&store, in_memory).await, Ok(Receipt::Duplicate(Vec::new())));
    assert_eq!(info(&store, "out").await.next_offset, 2);
}

#[tokio::test]
async fn a_paused_subscription_hands_out_nothing_and_stays_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(&config(directory.path())).expect("a store");
    queue(&store, "q").await;
    publish(&store, "q", 0..2).await;
    let mut reader = Reader::start(&store, "q", "s").await;
    let held = reader.take(2).await;
    store.set_paused("q", "s", true).await.expect("a store").expect("it");
    assert_eq!(reader.notice().await, NoticeKind::Paused);
    publish(&store, "q", 2..4).await;
    // What is in hand may be settled.
    assert_eq!(reader.ack(&held[0]).await, Ok(()));
    let known = subscription(&store, "q", "s").await;
    assert!(known.paused);
    assert_eq!((known.waiting, known.in_flight, known.counts.acked), (2, 1, 1));
    drop(reader);
    store.stop().await.expect("a clean stop");
    let store = Store::open(&config(directory.path())).expect("the store again");
    let mut reader = Reader::start(&store, "q", "s").await;
    assert!(reader.consumer.paused);
    let known = subscription(&store, "q", "s").await;
    assert_eq!((known.paused, known.waiting, known.in_flight), (true, 3, 0));
    store.set_paused("q", "s", false).await.expect("a store").expect("it");
    assert_eq!(reader.notice().await, NoticeKind::Resumed);
    assert_eq!(offsets(&reader.take(3).await), [1, 2, 3]);
    let missing = store.set_paused("q", "t", true).await.expect("a store").expect_err("it is not there");
    assert_eq!(missing.to_string(), "queue \"q\" has no subscription \"t\"");
}

#[tokio::test]
async fn seeking_fences_what_is_in_hand() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(&config(directory.path())).expect("a store");
    log(&store, "l").await;
    publish(&store, "l", 0..6).await;
    let mut reader = Reader::start(&store, "l", "s").await;
    let held = reader.take(6).await;
    for delivery in &held[..3] {
        reader.ack(delivery).await.expect("not stale");
    }
    let at = store.seek("l", "s", Start::Offset(Offset(1))).await.expect("a store").expect("it");
    assert_eq!((at, reader.notice().await), (Offset(1), NoticeKind::Moved));
    for delivery in &held[3..] {
        assert_eq!(reader.ack(delivery).await, Err(SettleError::Stale));
    }
    let again = reader.take(5).await;
    assert_eq!(offsets(&again), [1, 2, 3, 4, 5]);
    assert!(again.iter().all(|delivery| delivery.attempt == 1));
    reader.ack(&again[0]).await.expect("not stale");
    let known = subscription(&store, "l", "s").await;
    assert_eq!((known.counts.entered, known.counts.acked, known.counts.sought_back), (6, 4, 2));
    assert_eq!(store.seek("l", "s", Start::New).await.expect("a store"), Ok(Offset(6)));
    let known = subscription(&store, "l", "s").await;
    assert_eq!((known.counts.sought_past, known.waiting, known.in_flight), (4, 0, 0));
    publish(&store, "l", 6..7).await;
    assert_eq!(reader.next().await.offset, Offset(6));
    store.stop().await.expect("a clean stop");
    let store = Store::open(&config(directory.path())).expect("the store again");
    assert_eq!(subscription(&store, "l", "s").await.floor, 6);
    assert_eq!(store.seek("l", "s", Start::First).await.expect("a store"), Ok(Offset(0)));
    let mut reader = Reader::start(&store, "l", "s").await;
    assert_eq!(offsets(&reader.take(7).await), [0, 1, 2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn a_work_queue_is_sought_back_to_what_is_there() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(&config(directory.path())).expect("a store");
    queue(&store, "q").await;
    publish(&store, "q", 0..6).await;
    assert_eq!(store.define_subscription("q", "other", Some(Mode::Shared), Start::First).await, Ok(true));
    assert_eq!(store.define_subscription("q", "other", None, Start::New).await, Ok(false));
    let refused = store.define_subscription("q", "other", Some(Mode::Exclusive), Start::New).await;
    assert!(matches!(refused, Err(SubscribeError::Mode { mode: "shared", .. })), "{refused:?}");
    let mut other = Reader::start(&store, "q", "other").await;
    let mut reader = Reader::start(&store, "q", "s").await;
    for delivery in reader.take(4).await {
        reader.ack(&delivery).await.expect("not stale");
    }
    let mine = other.take(6).await;
    for delivery in [&mine[0], &mine[2]] {
        other.ack(delivery).await.expect("not stale");
    }
    assert_eq!(store.seek("q", "s", Start::First).await.expect("a store"), Ok(Offset(1)));
    let again = loop {
        let delivery = reader.next().await;
        // The two it had in hand before are stale now.
        if delivery.offset.0 < 4 {
            break [vec![delivery], reader.take(3).await].concat();
        }
    };
    assert_eq!(offsets(&again), [1, 3, 4, 5]);
    assert_eq!(subscription(&store, "q", "s").await.counts.sought_back, 2);
    // What nobody else needs goes with what is passed over.
    for delivery in [&mine[1], &mine[3], &mine[4]] {
        other.ack(delivery).await.expect("not stale");
    }
    assert_eq!(info(&store, "q").await.messages, 4);
    store.seek("q", "s", Start::New).await.expect("a store").expect("it");
    assert_eq!(info(&store, "q").await.messages, 1);
    assert_eq!(subscription(&store, "q", "s").await.counts.sought_past, 4);
}

#[tokio::test]
async fn a_purged_queue_is_empty_and_its_ledgers_close() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(&config(directory.path())).expect("a store");
    for name in ["q", "m"] {
        let durability = if name == "m" { Durability::Memory } else { Durability::Synced };
        define(&store, QueueSettings { durability, ..QueueSettings::new(subject(name)) }).await;
        publish(&store, name, 0..5).await;
        let first = info(&store, name).await.first_offset;
        let mut reader = Reader::start(&store, name, "s").await;
        let held = reader.take(5).await;
        reader.ack(&held[0]).await.expect("not stale");
        assert_eq!(store.purge(name).await.expect("a store"), Ok(4));
        assert_eq!(reader.ack(&held[1]).await, Err(SettleError::Stale));
        publish(&store, name, 5..6).await;
        assert_eq!(reader.next().await.offset, Offset(first + 5));
        let known = subscription(&store, name, "s").await;
        assert_eq!((known.counts.purged, known.counts.acked, known.in_flight), (4, 1, 1));
        assert_eq!(info(&store, name).await.messages, 1);
    }
    assert_eq!(store.purge("x").await.expect("a store"), Err(LookupError::Queue("x".into())));
}

#[tokio::test]
async fn a_removed_subscription_frees_what_only_it_needed() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(&config(directory.path())).expect("a store");
    queue(&store, "q").await;
    publish(&store, "q", 0..5).await;
    let mut one = Reader::start(&store, "q", "one").await;
    let mut two = Reader::start(&store, "q", "two").await;
    let (ones, twos) = (one.take(5).await, two.take(5).await);
    for n in [0, 2, 3] {
        one.ack(&ones[n]).await.expect("not stale");
    }
    two.ack(&twos[4]).await.expect("not stale");
    store.remove_subscription("q", "two").await.expect("a store").expect("it");
    assert_eq!(two.notice().await, NoticeKind::Deleted);
    assert_eq!(two.ack(&twos[0]).await, Err(SettleError::Stale));
    assert_eq!(info(&store, "q").await.messages, 2);
    // The last one leaves what it had not settled.
    store.remove_subscription("q", "one").await.expect("a store").expect("it");
    assert_eq!(info(&store, "q").await.messages, 2);
    publish(&store, "q", 5..6).await;
    store.stop().await.expect("a clean stop");
    let store = Store::open(&config(directory.path())).expect("the store again");
    assert_eq!((info(&store, "q").await.messages, info(&store, "q").await.subscriptions.len()), (3, 0));
    let mut three = Reader::start(&store, "q", "three").await;
    assert_eq!(offsets(&three.take(3).await), [1, 4, 5]);
    subscription(&store, "q", "three").await;
}

#[tokio::test]
async fn a_removed_queue_is_gone_with_all_that_was_in_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(&config(directory.path())).expect("a store");
    define(
        &store,
        QueueSettings {
            subjects: vec![SubjectPattern::new("in.>").expect("a pattern")],
            ..QueueSettings::new(subject("q"))
        },
    )
    .await;
    queue(&store, "last").await;
    publish(&store, "in.x", 0..5).await;
    publish(&store, "last", 0..1).await;
    store.compact().await.expect("a checkpoint");
    let mut reader = Reader::start(&store, "q", "s").await;
    let held = reader.take(5).await;
    let refused = store.remove_empty_queue("q").await.expect("a store").expect_err("it is not empty");
    assert_eq!(refused.to_string(), "queue \"q\" has 5 messages");
    assert!(store.remove_empty_queue("x").await.expect("a store").is_err(), "there is none");
    store.remove_queue("q").await.expect("a store").expect("it");
    assert_eq!(reader.notice().await, NoticeKind::Deleted);
    assert_eq!(reader.ack(&held[0]).await, Err(SettleError::Stale));
    let refused = send(&store, Published::new(&message("in.x", "m9"), true)).await;
    assert_eq!(refused, Err(PublishError::NoQueue(subject("in.x"))));
    store.purge("last").await.expect("a store").expect("it");
    store.remove_empty_queue("last").await.expect("a store").expect("nothing is lost");
    store.stop().await.expect("a clean stop");
    let report = quipu_queue::inspect(directory.path()).expect("a store");
    assert!(report.is_sound() && report.queues.is_empty(), "{report}");
    let store = Store::open(&config(directory.path())).expect("the store again");
    // A new one of the same name is another one: its ids were never published to it, and no number is used again.
    queue(&store, "last").await;
    let receipt = send(&store, Published::new(&message("last", "m0"), true)).await;
    assert_eq!(receipt, Ok(Receipt::Stored(vec![("last".into(), Offset(0))])));
    assert_eq!(store.remove_queue("q").await.expect("a store"), Err(LookupError::Queue("q".into())));
    store.stop().await.expect("a clean stop");
    assert!(quipu_queue::inspect(directory.path()).expect("a store").is_sound());
}

#[tokio::test]
async fn a_subscription_is_shared_in_another_way_from_now_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(&config(directory.path())).expect("a store");
    queue(&store, "q").await;
    publish(&store, "q", 0..5).await;
    let mut reader = Reader::start(&store, "q", "s").await;
    let held = reader.take(5).await;
    reader.ack(&held[1]).await.expect("not stale");
    for mode in [Mode::KeyShared, Mode::Exclusive, Mode::Shared, Mode::KeyShared] {
        store.set_mode("q", "s", mode).await.expect("a store").expect("it");
        assert_eq!(reader.notice().await, NoticeKind::Moved);
        assert_eq!(reader.ack(&held[0]).await, Err(SettleError::Stale), "it comes again");
        assert_eq!(offsets(&reader.take(4).await), [0, 2, 3, 4], "{mode:?}");
        assert_eq!(subscription(&store, "q", "s").await.mode, mode.as_str());
    }
    // Once more says nothing.
    store.set_mode("q", "s", Mode::KeyShared).await.expect("a store").expect("it");
    assert!(store.set_mode("q", "x", Mode::Shared).await.expect("a store").is_err());
    publish(&store, "q", 5..6).await;
    let last = reader.next().await;
    reader.ack(&last).await.expect("not stale");
    drop(reader);
    store.stop().await.expect("a clean stop");
    let store = Store::open(&config(directory.path())).expect("the store again");
    assert_eq!(subscription(&store, "q", "s").await.mode, "key-shared");
    let other = store.subscribe("q", "s", Some(Mode::Shared), Start::First, |_| {}).await;
    assert!(matches!(other, Err(SubscribeError::Mode { mode: "key-shared", .. })));
    let mut reader = Reader::start(&store, "q", "s").await;
    assert_eq!(offsets(&reader.take(4).await), [0, 2, 3, 4]);
    store.stop().await.expect("a clean stop");
}

#[tokio::test]
async fn messages_are_looked_at_without_being_consumed() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(&config(directory.path())).expect("a store");
    queue(&store, "q").await;
    log(&store, "l").await;
    publish(&store, "q", 0..300).await;
    // Out of memory, but for the last ones.
    store.compact().await.expect("a checkpoint");
    publish(&store, "q", 300..320).await;
    let mut reader = Reader::start(&store, "q", "s").await;
    let held = reader.take(320).await;
    for delivery in held.iter().filter(|delivery| (5..310).contains(&delivery.offset.0)) {
        reader.ack(delivery).await.expect("not stale");
    }
    let look = async |from, messages, bytes| store.peek("q", Offset(from), messages, bytes).await.expect("a store");
    assert_eq!(ids(&look(3, 4, 1 << 20).await.expect("a queue")), ["m3", "m4", "m310", "m311"]);
    assert_eq!(ids(&look(3, 4, 1).await.expect("a queue")), ["m3"]);
    assert_eq!(look(320, 4, 1).await, Ok(Vec::new()));
    let last = store.peek_last("q", 12).await.expect("a store").expect("a queue");
    let wanted: Vec<String> = [3, 4].into_iter().chain(310..320).map(|n| format!("m{n}")).collect();
    assert_eq!(ids(&last), wanted);
    assert_eq!(store.peek("x", Offset(0), 1, 1).await.expect("a store"), Err(PeekError::UnknownQueue("x".into())));
    // By id, wherever it is.
    publish(&store, "l", 2..4).await;
    let found = store.find("m3", 10_000).await.expect("a store");
    let places: Vec<(&str, u64)> = found.messages.iter().map(|(queue, offset, _)| (&**queue, offset.0)).collect();
    assert!(found.done && places == [("l", 1), ("q", 3)], "{places:?}");
    assert_eq!(found.looked, 17);
    let found = store.find("m3", 1).await.expect("a store");
    assert!(!found.done && found.looked == 1, "{found:?}");
    assert_eq!(info(&store, "q").await.messages, 15);
}

#[tokio::test]
async fn what_operators_did_is_in_a_backup_and_is_salvaged() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(&config(directory.path())).expect("a store");
    for name in ["q", "gone", "late"] {
        queue(&store, name).await;
        publish(&store, name, 0..4).await;
        assert_eq!(store.define_subscription(name, "s", None, Start::First).await, Ok(true));
    }
    set(&store, &[("a", Some("one")), ("b", Some("two")), ("c", Some("three"))]).await.expect("set");
    store.remove_queue("gone").await.expect("a store").expect("it");
    store.set_paused("q", "s", true).await.expect("a store").expect("it");
    set(&store, &[("a", None)]).await.expect("set");
    let copies = tempfile::tempdir().expect("a directory");
    let backup = copies.path().join("backup");
    store.backup(backup.clone()).await.expect("a copy");
    // Behind the checkpoint.
    set(&store, &[("b", None), ("c", Some("trois"))]).await.expect("set");
    store.seek("q", "s", Start::Offset(Offset(2))).await.expect("a store").expect("it");
    store.remove_queue("late").await.expect("a store").expect("it");
    let killed = copies.path().join("killed");
    std::fs::create_dir_all(killed.join("journal")).expect("a directory");
    for name in ["state.redb", "journal/000.journal", "journal/001.journal", "journal/002.journal"] {
        std::fs::copy(directory.path().join(name), killed.join(name)).expect("copied");
    }
    let (saved, blind) = (copies.path().join("saved"), copies.path().join("blind"));
    let report = quipu_queue::salvage(&killed, &saved).expect("a new store");
    assert!(report.lost.is_empty(), "{report}");
    // With the journal alone, which has all of it still.
    std::fs::remove_file(killed.join("state.redb")).expect("removed");
    quipu_queue::salvage(&killed, &blind).expect("a new store");
    for (path, queues, records) in [
        (backup, vec!["late", "q"], pairs(&[("b", "two"), ("c", "three")])),
        (saved, vec!["q"], pairs(&[("c", "trois")])),
        (blind, vec!["q"], pairs(&[("c", "trois")])),
    ] {
        let store = Store::open(&config(&path)).expect("a store");
        assert_eq!(store.records("").await.expect("a store"), records, "{}", path.display());
        let known: Vec<String> =
            store.info().await.expect("a store").queues.into_iter().map(|queue| queue.name).collect();
        assert_eq!(known, queues, "{}", path.display());
        assert!(subscription(&store, "q", "s").await.paused, "{}", path.display());
        store.stop().await.expect("a clean stop");
    }
}

#[tokio::test]
async fn a_request_that_stops_at_a_failure_stores_nothing_behind_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(&config(directory.path())).expect("a store");
    queue(&store, "q").await;
    let of =
        |to: &str, sequence: u64| Published::new(&message(to, &format!("m{sequence}")), false).with_sequence(sequence);
    let stored = |offset| Ok(Receipt::Stored(vec![("q".into(), Offset(offset))]));
    let nowhere = || Err(PublishError::NoQueue(subject("nowhere")));
    let submit = async |publisher: &quipu_queue::Publisher, messages: Vec<Published>| {
        publisher.submit(messages).await.expect("a store").await.expect("an answer").expect("a store")
    };
    let four = || vec![of("q", 1), of("nowhere", 2), of("q", 3), of("q", 4)];
    // Others go on behind it.
    let publisher = store.publisher();
    assert_eq!(submit(&publisher, four()).await, [stored(0), nowhere(), stored(1), stored(2)]);
    let stopping = store.publisher().stopping();
    let refused = || Err(PublishError::Stopped);
    assert_eq!(submit(&stopping, four()).await, [stored(3), nowhere(), refused(), refused()]);
    // The next request is another.
    assert_eq!(submit(&stopping, vec![of("q", 5)]).await, [stored(4)]);
    // What a named publisher was refused it may send again, after a restart too.
    let named = store.named_publisher("p", 0).await.expect("a publisher").stopping();
    assert_eq!(submit(&named, four()).await, [stored(5), nowhere(), refused(), refused()]);
    store.stop().await.expect("a clean stop");
    let store = Store::open(&config(directory.path())).expect("the store again");
    let named = store.named_publisher("p", named.epoch).await.expect("a publisher").stopping();
    assert_eq!(named.last_sequence, 4);
    let again = [of("q", 1), of("q", 2), of("q", 3), of("q", 4)];
    let had = || Ok(Receipt::Duplicate(Vec::new()));
    assert_eq!(submit(&named, again.to_vec()).await, [had(), stored(6), stored(7), stored(8)]);
    assert_eq!(submit(&named, again.to_vec()).await, [had(), had(), had(), had()]);
}

#[tokio::test]
async fn a_request_that_waits_for_room_and_fills_commits_stops_all_the_same() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(&config(directory.path())).expect("a store");
    queue(&store, "q").await;
    let limits = QueueLimits { messages: Some(1), on_full: OnFull::Block, ..QueueLimits::default() };
    define(&store, QueueSettings { limits, ..QueueSettings::new(subject("small")) }).await;
    let of = |to: &str, id: &str, bytes: usize| {
        let id = MessageId::new(id).expect("an id");
        Published::new(&Message::new(id, subject(to), vec![7; bytes]), false)
    };
    // More than one commit takes.
    let mut messages: Vec<Published> = (0..4).map(|n| of("q", &format!("large{n}"), 100_000)).collect();
    messages.extend([of("small", "first", 1), of("small", "waits", 1), of("nowhere", "fails", 1)]);
    messages.extend((0..4).map(|n| of("q", &format!("behind{n}"), 100_000)));
    let publisher = store.publisher().stopping();
    let mut answer = publisher.submit(messages).await.expect("a store");
    let mut reader = Reader::start(&store, "small", "s").await;
    let delivery = reader.next().await;
    assert!(answer.try_recv().is_err(), "it waits for room");
    assert_eq!(reader.ack(&delivery).await, Ok(()));
    let results = answer.await.expect("an answer").expect("a store");
    assert!(results[..6].iter().all(Result::is_ok), "{results:?}");
    assert_eq!(results[6], Err(PublishError::NoQueue(subject("nowhere"))));
    assert_eq!(results[7..], [const { Err(PublishError::Stopped) }; 4]);
    assert_eq!((info(&store, "q").await.next_offset, info(&store, "small").await.next_offset), (4, 2));
}

/// Nobody publishes, settles or asks for anything meanwhile.
#[tokio::test]
async fn a_log_lets_go_of_what_is_too_old_by_itself() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(&config(directory.path())).expect("a store");
    let retention = Retention::Log { age_ms: Some(400), bytes: None, messages: None };
    define(&store, QueueSettings { retention, ..QueueSettings::new(subject("l")) }).await;
    log(&store, "kept").await;
    publish(&store, "l", 0..5).await;
    publish(&store, "kept", 5..10).await;
    let mut look = tokio::time::interval(Duration::from_millis(20));
    let gone = async {
        while info(&store, "l").await.messages > 0 {
            look.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("it lets go");
    assert_eq!((info(&store, "l").await.next_offset, info(&store, "kept").await.messages), (5, 5));
    store.stop().await.expect("a clean stop");
}

/// A seek back to the beginning of what another subscription has settled in part.
#[tokio::test]
async fn what_all_have_settled_is_not_there_for_who_seeks_or_comes_late() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(&config(directory.path())).expect("a store");
    queue(&store, "q").await;
    let (mut a, mut b) = (Reader::start(&store, "q", "a").await, Reader::start(&store, "q", "b").await);
    publish(&store, "q", 0..200).await;
    for n in 0..200 {
        let (of_a, of_b) = (a.next().await, b.next().await);
        // `a` has settled all but every third one, `b` all but every fifth.
        if n % 3 != 0 {
            a.ack(&of_a).await.expect("settled");
        }
        if n % 5 != 0 {
            b.ack(&of_b).await.expect("settled");
        }
    }
    let left: Vec<u64> = (0..200).filter(|n| n % 3 == 0 || n % 5 == 0).collect();
    store.seek("q", "a", Start::First).await.expect("a store").expect("sought");
    let mut late = Reader::start(&store, "q", "late").await;
    for n in left {
        assert_eq!(late.next().await.offset.0, n);
        loop {
            let again = a.next().await;
            if again.offset.0 == n {
                break;
            }
        }
    }
    for name in ["a", "b", "late"] {
        subscription(&store, "q", name).await;
    }
    store.stop().await.expect("a clean stop");
}
