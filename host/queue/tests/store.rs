//! The store on a real disk: what was acknowledged is there after a restart, and what was settled is not.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use quipu_protocol::{Message, MessageId, Subject, SubjectPattern};
use quipu_queue::journal::JournalConfig;
use quipu_queue::{
    Consumer, Delivery, Outcome, Output, PublishError, Published, QueueInfo, QueueSettings, Receipt, Settle,
    SettleError, Settlement, Start, Store, StoreConfig, Target, Why,
};
use tokio::sync::mpsc;

fn config(path: &Path) -> StoreConfig {
    let journal = JournalConfig { segments: 4, segment_bytes: 1 << 20 };
    StoreConfig { journal, memory_bytes: 1 << 20, ..StoreConfig::new(path) }
}

fn subject(text: &str) -> Subject {
    Subject::new(text).expect("a subject")
}

fn message(to: &str, id: &str, payload: impl Into<Bytes>) -> Message {
    Message::new(MessageId::new(id).expect("an id"), subject(to), payload)
}

async fn queue(store: &Store, name: &str, subjects: &[&str]) {
    let patterns = subjects.iter().map(|s| SubjectPattern::new(s).expect("a pattern")).collect();
    let settings = QueueSettings { subjects: patterns, backoff_ms: vec![0], ..QueueSettings::new(subject(name)) };
    store.define_queue(settings).await.expect("a store").expect("a queue");
}

async fn publish(store: &Store, to: &str, id: &str) -> Result<Receipt, PublishError> {
    let published = Published::new(&message(to, id, id.to_owned()), true);
    store.publish(vec![published]).await.expect("a store").remove(0)
}

/// A consumer with what it gets.
struct Reader {
    consumer: Consumer,
    deliveries: mpsc::Receiver<Vec<Delivery>>,
    pending: Vec<Delivery>,
}

impl Reader {
    async fn start(store: &Store, queue: &str, credit: u64) -> Self {
        let (sender, deliveries) = mpsc::channel(4096);
        let sink = move |batch| drop(sender.try_send(batch));
        let consumer = store.subscribe(queue, "s", None, Start::First, sink).await.expect("a consumer");
        consumer.credit(credit).await.expect("a store");
        Self { consumer, deliveries, pending: Vec::new() }
    }

    async fn next(&mut self) -> Delivery {
        while self.pending.is_empty() {
            let batch = tokio::time::timeout(Duration::from_secs(10), self.deliveries.recv()).await;
            self.pending = batch.expect("a delivery in time").expect("an open store");
        }
        self.pending.remove(0)
    }

    async fn settle(
        &self,
        delivery: &Delivery,
        settlement: Settlement,
        outputs: Vec<Output>,
    ) -> Result<(), SettleError> {
        let settle = Settle { token: delivery.token, settlement, outputs };
        self.consumer.settle(vec![settle]).await.expect("a store").remove(0)
    }

    async fn ack(&self, delivery: &Delivery) {
        self.settle(delivery, Settlement::Done(Outcome::Acked), Vec::new()).await.expect("not stale");
    }
}

fn read(delivery: &Delivery) -> Message {
    Message::decode(delivery.stored.header.clone(), delivery.stored.payload.clone()).expect("a message")
}

async fn info(store: &Store, name: &str) -> QueueInfo {
    store.info().await.expect("a store").queues.into_iter().find(|q| q.name == name).expect("the queue")
}

#[tokio::test]
async fn a_restart_brings_back_what_is_unsettled_and_nothing_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(&config(directory.path())).expect("a store");
    queue(&store, "q", &["in.>"]).await;
    for n in 0..20 {
        publish(&store, "in.x", &format!("m{n}")).await.expect("stored");
    }
    let mut reader = Reader::start(&store, "q", 20).await;
    for n in 0..20 {
        let delivery = reader.next().await;
        assert_eq!(delivery.offset.0, n);
        if n % 3 == 0 {
            reader.ack(&delivery).await;
        }
    }
    store.stop().await.expect("a clean stop");
    let store = Store::open(&config(directory.path())).expect("the store again");
    let mut reader = Reader::start(&store, "q", 20).await;
    for n in (0..20).filter(|n| n % 3 != 0) {
        let delivery = reader.next().await;
        assert_eq!((delivery.offset.0, read(&delivery).id.as_str()), (n, format!("m{n}").as_str()));
        assert_eq!(read(&delivery).payload, format!("m{n}"));
    }
    let info = info(&store, "q").await;
    assert_eq!((info.messages, info.next_offset, info.subscriptions[0].counts.acked), (13, 20, 7));
}

#[tokio::test]
async fn a_store_is_one_process_own() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(&config(directory.path())).expect("a store");
    let refused = Store::open(&config(directory.path())).expect_err("it is locked");
    assert!(refused.to_string().contains("in use by another quipu process"), "{refused}");
    store.stop().await.expect("a clean stop");
    Store::open(&config(directory.path())).expect("free again");
}

#[tokio::test]
async fn a_repeated_id_is_a_duplicate_also_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(&config(directory.path())).expect("a store");
    queue(&store, "a", &["in.*"]).await;
    queue(&store, "b", &["in.x"]).await;
    let Ok(Receipt::Stored(first)) = publish(&store, "in.x", "m").await else { panic!("not stored") };
    let names: Vec<_> = first.iter().map(|(queue, offset)| (&**queue, offset.0)).collect();
    assert_eq!(names, [("a", 0), ("b", 0)]);
    assert_eq!(publish(&store, "in.x", "m").await, Ok(Receipt::Duplicate(first.clone())));
    // Another subject is another message.
    assert!(matches!(publish(&store, "in.y", "m").await, Ok(Receipt::Stored(_))));
    // Twice in one commit.
    let twice = vec![Published::new(&message("a", "n", "n"), true), Published::new(&message("a", "n", "n"), true)];
    let receipts = store.publish(twice).await.expect("a store");
    assert!(matches!((&receipts[0], &receipts[1]), (Ok(Receipt::Stored(s)), Ok(Receipt::Duplicate(d))) if s == d));
    store.stop().await.expect("a clean stop");
    let store = Store::open(&config(directory.path())).expect("the store again");
    assert_eq!(publish(&store, "in.x", "m").await, Ok(Receipt::Duplicate(first)));
    assert!(matches!(publish(&store, "in.x", "other").await, Ok(Receipt::Stored(_))));
}

#[tokio::test]
async fn what_nothing_takes_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(&config(directory.path())).expect("a store");
    queue(&store, "q", &[]).await;
    let refused = publish(&store, "x.y", "m").await.expect_err("nothing takes it");
    assert_eq!(refused.to_string(), "no queue or route takes `x.y`");
    let large = Published::new(&message("q", "large", vec![0; 2 << 20]), true);
    let refused = store.publish(vec![large]).await.expect("a store").remove(0);
    assert!(matches!(refused, Err(PublishError::TooLarge(_))));
    assert!(publish(&store, "q", "m").await.is_ok());
}

#[tokio::test]
async fn a_settlement_and_its_outputs_are_one_commit() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(&config(directory.path())).expect("a store");
    queue(&store, "q", &[]).await;
    queue(&store, "out", &[]).await;
    publish(&store, "q", "m").await.expect("stored");
    let mut reader = Reader::start(&store, "q", 5).await;
    let delivery = reader.next().await;
    let output = |to: &str, payload| Output {
        target: Target::Subject(subject(to)),
        header: message(to, "derived", "").encode_header(),
        payload,
    };
    let done = Settlement::Done(Outcome::Acked);
    let nowhere = vec![output("out", None), output("nowhere", None)];
    assert_eq!(reader.settle(&delivery, done.clone(), nowhere).await, Err(SettleError::NoQueue(subject("nowhere"))));
    assert_eq!(info(&store, "out").await.next_offset, 0);
    let outputs = vec![output("out", None), output("out", Some(Bytes::from_static(b"new")))];
    assert_eq!(reader.settle(&delivery, done.clone(), outputs.clone()).await, Ok(()));
    assert_eq!(reader.settle(&delivery, done, outputs).await, Err(SettleError::Stale));
    store.stop().await.expect("a clean stop");
    let store = Store::open(&config(directory.path())).expect("the store again");
    let mut reader = Reader::start(&store, "out", 5).await;
    assert_eq!([read(&reader.next().await).payload, read(&reader.next().await).payload], ["m", "new"]);
    assert_eq!(info(&store, "q").await.messages, 0);
}

#[tokio::test]
async fn the_last_failed_attempt_is_a_dead_letter() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(&config(directory.path())).expect("a store");
    let settings = QueueSettings { attempts_max: 3, backoff_ms: vec![0], ..QueueSettings::new(subject("q")) };
    store.define_queue(settings).await.expect("a store").expect("a queue");
    publish(&store, "q", "poison").await.expect("stored");
    let mut reader = Reader::start(&store, "q", 9).await;
    for attempt in 1..=3 {
        let delivery = reader.next().await;
        assert_eq!((delivery.attempt, delivery.why == Why::Nacked), (attempt, attempt > 1));
        assert_eq!(reader.settle(&delivery, Settlement::Nack { delay_ms: None }, Vec::new()).await, Ok(()));
    }
    let mut dead = Reader::start(&store, "q-dead", 9).await;
    let letter = dead.next().await;
    let read = read(&letter);
    let said = |name| read.headers.first(name).unwrap_or_default().to_owned();
    assert_eq!((read.id.as_str(), read.subject.as_str(), &read.payload[..]), ("poison", "q", &b"poison"[..]));
    assert_eq!(said("quipu-dead-attempts"), "3");
    assert_eq!((said("quipu-dead-queue"), said("quipu-dead-offset")), ("q".into(), "0".into()));
    assert_eq!(info(&store, "q").await.subscriptions[0].counts.dead_lettered, 1);
    // A queue of dead letters has nowhere to send them.
    let reject = Settlement::DeadLetter { queue: None, reason: "again".into(), headers: Vec::new() };
    assert_eq!(dead.settle(&letter, reject, Vec::new()).await, Err(SettleError::NoDeadLetter("q-dead".into())));
    dead.ack(&letter).await;
}

#[tokio::test]
async fn a_consumer_that_goes_gives_its_messages_to_the_others() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(&config(directory.path())).expect("a store");
    queue(&store, "q", &[]).await;
    for n in 0..4 {
        publish(&store, "q", &n.to_string()).await.expect("stored");
    }
    let mut gone = Reader::start(&store, "q", 3).await;
    gone.next().await;
    let mut other = Reader::start(&store, "q", 9).await;
    assert_eq!(other.next().await.offset.0, 3);
    drop(gone);
    let mut back = Vec::new();
    for _ in 0..3 {
        let delivery = other.next().await;
        assert_eq!((delivery.why, delivery.attempt), (Why::Returned, 1));
        back.push(delivery.offset.0);
    }
    assert_eq!(back, [0, 1, 2]);
}

/// Far more than journal and memory hold, while nobody reads: it goes to the state file and comes back whole.
#[tokio::test]
async fn a_backlog_beyond_journal_and_memory_is_read_from_disk() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(&config(directory.path())).expect("a store");
    queue(&store, "q", &[]).await;
    let body = |n: u32| Bytes::from(n.to_le_bytes().repeat(2_000));
    for batch in (0..1_600).collect::<Vec<u32>>().chunks(20) {
        let batch = batch.iter().map(|&n| Published::new(&message("q", &n.to_string(), body(n)), true)).collect();
        assert!(store.publish(batch).await.expect("a store").iter().all(Result::is_ok));
    }
    let mut reader = Reader::start(&store, "q", 1_600).await;
    for n in 0..1_600 {
        let delivery = reader.next().await;
        assert_eq!(read(&delivery).payload, body(n), "message {n}");
        if n < 1_500 {
            reader.ack(&delivery).await;
        }
    }
    store.stop().await.expect("a clean stop");
    let store = Store::open(&config(directory.path())).expect("the store again");
    let mut reader = Reader::start(&store, "q", 1_600).await;
    for n in 1_500..1_600 {
        assert_eq!(read(&reader.next().await).payload, body(n), "message {n}");
    }
}

/// Most of a backlog that was read and settled goes back to the file system while the store runs. `QUIPU_SPACE_MIB` sets
/// how much is published.
#[tokio::test]
async fn the_room_of_a_settled_backlog_is_given_back() {
    const MESSAGE_BYTES: usize = 64 << 10;
    let mib: usize = std::env::var("QUIPU_SPACE_MIB").map_or(224, |text| text.parse().expect("a number"));
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(&config(directory.path())).expect("a store");
    queue(&store, "q", &[]).await;
    let publisher = store.publisher();
    let count = (mib << 20) / MESSAGE_BYTES;
    for batch in (0..count).collect::<Vec<_>>().chunks(8) {
        let body = |n: &usize| Bytes::from(u64::try_from(*n).expect("few").to_le_bytes().repeat(MESSAGE_BYTES / 8));
        let batch = batch.iter().map(|n| Published::new(&message("q", &n.to_string(), body(n)), false)).collect();
        let answer = publisher.submit(batch).await.expect("a store").await.expect("an answer").expect("a store");
        assert!(answer.iter().all(Result::is_ok));
    }
    store.backup(directory.path().join("copy")).await.expect("everything in the state file");
    std::fs::remove_dir_all(directory.path().join("copy")).expect("removed");
    let full = disk_use(directory.path());
    assert!(full > (mib as u64) << 20, "{full} bytes for {mib} MiB");
    let mut reader = Reader::start(&store, "q", count as u64).await;
    for _ in 0..count {
        let delivery = reader.next().await;
        let settle =
            Settle { token: delivery.token, settlement: Settlement::Done(Outcome::Acked), outputs: Vec::new() };
        reader.consumer.submit_settle(vec![settle]).await.expect("a store");
    }
    // Checkpoints come once a second; the room is back after a few of them, and nobody asked for it.
    let mut look = tokio::time::interval(Duration::from_millis(100));
    let small = async {
        while disk_use(directory.path()) > 64 << 20 {
            look.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), small).await.expect("room given back");
    store.stop().await.expect("a clean stop");
}

/// Bytes that the files of a store take on disk.
fn disk_use(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let journal = std::fs::read_dir(path.join("journal")).expect("a journal");
    let segments: u64 = journal.map(|entry| entry.expect("a file").metadata().expect("a file").blocks()).sum();
    512 * (segments + std::fs::metadata(path.join("state.redb")).expect("a file").blocks())
}

/// Copies the files of a live store, as a kill leaves them, at some moment while messages come and go.
#[tokio::test]
async fn a_store_that_was_never_stopped_recovers_from_its_journal() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(&config(directory.path())).expect("a store");
    queue(&store, "q", &[]).await;
    for n in 0..50 {
        publish(&store, "q", &n.to_string()).await.expect("stored");
    }
    let mut reader = Reader::start(&store, "q", 10).await;
    for _ in 0..10 {
        let delivery = reader.next().await;
        reader.ack(&delivery).await;
    }
    let copy = tempfile::tempdir().expect("a directory");
    // The state file first: the journal is then at least as new.
    std::fs::copy(directory.path().join("state.redb"), copy.path().join("state.redb")).expect("copied");
    std::fs::create_dir(copy.path().join("journal")).expect("made");
    for entry in std::fs::read_dir(directory.path().join("journal")).expect("a journal") {
        let from = entry.expect("a segment").path();
        std::fs::copy(&from, copy.path().join("journal").join(from.file_name().expect("a name"))).expect("copied");
    }
    let again = Store::open(&config(copy.path())).expect("recovered");
    let mut reader = Reader::start(&again, "q", 50).await;
    for n in 10..50 {
        assert_eq!(reader.next().await.offset.0, n);
    }
    assert!(matches!(publish(&again, "q", "7").await, Ok(Receipt::Duplicate(_))));
}

/// One request may be more than a record of the journal holds: it goes into several commits and is answered once.
#[tokio::test]
async fn a_request_larger_than_a_segment_is_committed_in_parts() {
    const MESSAGES: usize = 120;
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(&config(directory.path())).expect("a store");
    queue(&store, "q", &[]).await;
    let body = |n: usize| vec![u8::try_from(n).expect("small"); 20_000];
    let batch = (0..MESSAGES).map(|n| Published::new(&message("q", &n.to_string(), body(n)), true)).collect();
    let receipts = store.publish(batch).await.expect("a store");
    for (n, receipt) in receipts.into_iter().enumerate() {
        assert_eq!(receipt, Ok(Receipt::Stored(vec![("q".into(), quipu_queue::Offset(n as u64))])));
    }
    store.stop().await.expect("a clean stop");
    // Opened again, the messages are on disk only, so that each dead letter brings its payload along.
    let store = Store::open(&config(directory.path())).expect("the store again");
    let mut reader = Reader::start(&store, "q", 4_096).await;
    let mut items = Vec::new();
    for _ in 0..MESSAGES {
        let token = reader.next().await.token;
        let settlement = Settlement::DeadLetter { queue: None, reason: "bad".into(), headers: Vec::new() };
        items.push(Settle { token, settlement, outputs: Vec::new() });
    }
    let results = reader.consumer.settle(items).await.expect("a store");
    assert_eq!(results, vec![Ok(()); MESSAGES]);
    store.stop().await.expect("a clean stop");
    let store = Store::open(&config(directory.path())).expect("the store again");
    let mut dead = Reader::start(&store, "q-dead", 4_096).await;
    for n in 0..MESSAGES {
        assert!(read(&dead.next().await).payload == body(n), "message {n}");
    }
    assert_eq!(info(&store, "q").await.subscriptions[0].counts.dead_lettered, MESSAGES as u64);
}

#[tokio::test]
async fn the_largest_message_can_be_dead_lettered_and_sent_to_many() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(&config(directory.path())).expect("a store");
    queue(&store, "q", &[]).await;
    queue(&store, "out", &[]).await;
    let of = |bytes: usize| Published::new(&message("q", &bytes.to_string(), vec![7; bytes]), true);
    let largest = store.message_bytes_max() - of(500_000).size() + 500_000;
    let receipts = store.publish(vec![of(largest), of(largest + 1), of(largest)]).await.expect("a store");
    assert!(receipts[0].is_ok() && matches!(receipts[1], Err(PublishError::TooLarge(_))));
    publish(&store, "q", "end").await.expect("stored");
    store.stop().await.expect("a clean stop");
    let store = Store::open(&config(directory.path())).expect("the store again");
    let mut reader = Reader::start(&store, "q", 9).await;
    let delivery = reader.next().await;
    let header = message("out", "derived", "").encode_header();
    let copy = Output { target: Target::Subject(subject("out")), header, payload: None };
    let letter = Settlement::DeadLetter { queue: None, reason: "bad".repeat(2_000), headers: Vec::new() };
    assert_eq!(reader.settle(&delivery, letter, vec![copy; 16]).await, Ok(()));
    store.stop().await.expect("a clean stop");
    let store = Store::open(&config(directory.path())).expect("the store again");
    for (queue, copies) in [("out", 16), ("q-dead", 1)] {
        let mut reader = Reader::start(&store, queue, 99).await;
        for _ in 0..copies {
            assert!(read(&reader.next().await).payload == vec![7; largest], "{queue}");
        }
    }
}
