//! Writes a store of the present format, with something of everything in it, as a text that tests read.
//!
//! `cargo run -p quipu-queue --example golden` writes `tests/golden/v3.hex`; with a directory and a file it dumps that
//! store's files instead.

#[path = "../tests/golden/dump.rs"]
#[allow(dead_code, reason = "the test reads, and this writes")]
mod dump;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use quipu_protocol::{Key, Message, MessageId, Subject, SubjectPattern};
use quipu_queue::journal::JournalConfig;
use quipu_queue::{
    Consumer, Delivery, Durability, Mode, Offset, OnFull, Outcome, Output, Published, QueueLimits, QueueSettings,
    Redrive, Retention, Settle, Settlement, Start, Store, StoreConfig, Target, Token,
};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [directory, file] = &arguments[..] {
        return Ok(std::fs::write(file, dump::dump(Path::new(directory)))?);
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v3.hex");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let directory = runtime.block_on(make())?;
    Ok(std::fs::write(file, dump::dump(directory.path()))?)
}

/// A store as a kill leaves it: its last checkpoint, and records behind that.
async fn make() -> anyhow::Result<tempfile::TempDir> {
    let (live, copy) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let journal = JournalConfig { segments: 2, segment_bytes: 256 << 10 };
    let store = Store::open(&StoreConfig { journal, ..StoreConfig::new(live.path()) })?;
    define(&store).await?;
    let desk = store.named_publisher("desk", 0).await?;
    let keep = async |numbers: std::ops::RangeInclusive<u64>| {
        let each = |n: u64| Published::new(&message("kept", &format!("k{n}")), false).with_sequence(n);
        desk.submit(numbers.map(each).collect()).await?.await??;
        anyhow::Ok(())
    };
    publish(&store, "orders.eu.new", 'o', 1..=12).await?;
    publish(&store, "jobs.a", 'j', 1..=5).await?;
    publish(&store, "small", 's', 1..=3).await?;
    publish(&store, "seen", 'm', 1..=2).await?;
    keep(1..=2).await?;
    let shop = Hands::join(&store, "orders", "shop", Mode::Shared).await?;
    let log = Hands::join(&store, "audit", "log", Mode::Exclusive).await?;
    let workers = Hands::join(&store, "jobs", "workers", Mode::KeyShared).await?;
    let kept = Hands::join(&store, "kept", "s", Mode::Shared).await?;
    let acked = Settlement::Done(Outcome::Acked);
    let given_up = Settlement::DeadLetter { queue: None, reason: "torn".into(), headers: Vec::new() };
    shop.settle(&acked, &[0, 1]).await?;
    shop.settle(&given_up, &[2, 7]).await?;
    log.settle(&acked, &[7]).await?;
    workers.settle(&acked, &[0, 2]).await?;
    let clerk = Hands::join(&store, "orders-dead", "clerk", Mode::Shared).await?;
    operate(&store).await?;
    store.compact().await?;
    // Nothing has changed since, so that no checkpoint is due.
    std::fs::copy(live.path().join("state.redb"), copy.path().join("state.redb"))?;
    shop.settle(&acked, &[3, 4]).await?;
    workers.settle(&acked, &[4]).await?;
    publish(&store, "jobs.a", 'j', 6..=6).await?;
    keep(3..=4).await?;
    let only = Box::new(|_: Offset, message: &Message| message.id.as_str() == "o3");
    let redrive = Redrive { queue: "orders-dead".into(), from: Offset(0), look: 10, take: 10, only, dry_run: false };
    anyhow::ensure!(store.redrive(redrive).await?.is_some_and(|said| said.moved.len() == 1), "o3 is driven back");
    operate_more(&store).await?;
    std::fs::create_dir(copy.path().join("journal"))?;
    for name in ["journal/000.journal", "journal/001.journal"] {
        std::fs::copy(live.path().join(name), copy.path().join(name))?;
    }
    drop((shop, log, workers, kept, clerk));
    store.stop().await?;
    Ok(copy)
}

/// What operators did before the checkpoint …
async fn operate(store: &Store) -> anyhow::Result<()> {
    set_records(store, &[("plugin/a", Some("one")), ("plugin/b", Some("two"))]).await?;
    publish(store, "early", 'e', 1..=2).await?;
    store.remove_queue("early").await??;
    store.define_subscription("kept", "idle", None, Start::First).await?;
    store.set_paused("kept", "idle", true).await??;
    store.define_subscription("audit", "replay", Some(Mode::Shared), Start::New).await?;
    publish(store, "extra", 'x', 1..=3).await
}

/// … and behind it.
async fn operate_more(store: &Store) -> anyhow::Result<()> {
    set_records(store, &[("plugin/b", None), ("plugin/c", Some("three"))]).await?;
    store.seek("audit", "replay", Start::First).await??;
    store.remove_subscription("extra", "nobody").await??;
    store.purge("extra").await??;
    let target = Target::Subject(Subject::new("extra")?);
    let output = Output { target, header: message("extra", "t1").encode_header(), payload: None };
    let taken = Published::new(&message("inline", "t0"), true).with_outputs(vec![output]).taken();
    store.publish(vec![taken]).await?.remove(0)?;
    publish(store, "late", 'l', 1..=2).await?;
    store.remove_queue("late").await??;
    Ok(())
}

async fn set_records(store: &Store, records: &[(&str, Option<&'static str>)]) -> anyhow::Result<()> {
    let records = records.iter().map(|(key, text)| ((*key).to_owned(), text.map(|text| text.as_bytes().into())));
    Ok(store.set_records(records.collect()).await??)
}

async fn define(store: &Store) -> anyhow::Result<()> {
    let settings = |name: &str, pattern: &str| -> anyhow::Result<QueueSettings> {
        let subjects = vec![SubjectPattern::new(pattern)?];
        Ok(QueueSettings { subjects, backoff_ms: vec![3_600_000], ..QueueSettings::new(Subject::new(name)?) })
    };
    let retention = Retention::Log { age_ms: None, bytes: None, messages: Some(5) };
    let limits = QueueLimits { messages: Some(3), bytes: None, on_full: OnFull::Reject };
    let queues = [
        settings("orders", "orders.>")?,
        QueueSettings { retention, ..settings("audit", "orders.*.new")? },
        QueueSettings { durability: Durability::Buffered, ..settings("jobs", "jobs.>")? },
        QueueSettings { durability: Durability::Memory, ..settings("seen", "seen.>")? },
        QueueSettings { limits, ..settings("small", "small.>")? },
        settings("kept", "kept.>")?,
        settings("early", "early.>")?,
        settings("extra", "extra.>")?,
        settings("late", "late.>")?,
    ];
    for queue in queues {
        store.define_queue(queue).await??;
    }
    store.define_subscription("extra", "nobody", None, Start::First).await?;
    Ok(())
}

fn message(to: &str, id: &str) -> Message {
    let subject = Subject::new(to).expect("a subject");
    let mut message = Message::new(MessageId::new(id).expect("an id"), subject, format!("payload of {id}"));
    message.key = Key::new(id.as_bytes().to_vec()).ok();
    message
}

async fn publish(store: &Store, to: &str, letter: char, numbers: std::ops::RangeInclusive<u32>) -> anyhow::Result<()> {
    let batch = numbers.map(|n| Published::new(&message(to, &format!("{letter}{n}")), true)).collect();
    for receipt in store.publish(batch).await? {
        receipt?;
    }
    Ok(())
}

/// A consumer, and the tokens of what it got by offset.
struct Hands {
    consumer: Consumer,
    tokens: Arc<Mutex<BTreeMap<u64, Token>>>,
}

impl Hands {
    async fn join(store: &Store, queue: &str, subscription: &str, mode: Mode) -> anyhow::Result<Self> {
        let tokens: Arc<Mutex<BTreeMap<u64, Token>>> = Arc::default();
        let sink = tokens.clone();
        let sink = move |batch: Vec<Delivery>| {
            let mut tokens = sink.lock().expect("no panic holds it");
            tokens.extend(batch.into_iter().map(|delivery| (delivery.offset.0, delivery.token)));
        };
        let consumer = store.subscribe(queue, subscription, Some(mode), Start::First, sink).await?;
        consumer.credit(1_000).await?;
        loop {
            let info = store.info().await?;
            let known = info.queues.iter().find(|known| known.name == queue);
            let known = known.and_then(|queue| queue.subscriptions.iter().find(|s| s.name == subscription));
            if known.is_some_and(|s| s.waiting == 0) {
                return Ok(Self { consumer, tokens });
            }
            tokio::task::yield_now().await;
        }
    }

    async fn settle(&self, settlement: &Settlement, offsets: &[u64]) -> anyhow::Result<()> {
        let tokens = self.tokens.lock().expect("no panic holds it").clone();
        let settle = |offset| Settle { token: tokens[offset], settlement: settlement.clone(), outputs: Vec::new() };
        for settled in self.consumer.settle(offsets.iter().map(settle).collect()).await? {
            settled?;
        }
        Ok(())
    }
}
