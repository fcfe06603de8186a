//! Damaged stores: whatever is altered on disk, nothing wrong is delivered, nothing is lost in silence, and nothing
//! panics. `cargo run --release -p quipu-queue --example damage -- --count 20000` does more of the same.

#[path = "damage/harness.rs"]
mod harness;

use std::collections::BTreeMap;
use std::path::Path;

use harness::{Counts, Damaged, Delivered, Panics, config, drain, is_published, temporary};
use quipu_queue::checkpoint::CheckpointError;
use quipu_queue::disk::RealDisk;
use quipu_queue::journal;
use quipu_queue::{InspectError, Offset, OpenError, QueueReport, SalvageReport, Store, inspect, salvage};
use redb::{Database, TableDefinition};

const SEED: u64 = 1;
const CASES: u64 = 200;
const QUEUES: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("queues");

#[test]
fn damage_is_refused_or_named_and_never_delivered() {
    let store = Damaged::build(Panics::collect());
    let mut counts = Counts::default();
    let failed: Vec<String> = (0..CASES).filter_map(|case| store.case(SEED, case, &mut counts).err()).collect();
    assert!(failed.is_empty(), "{}\n{counts:?}", failed.join("\n"));
    assert!(counts.refused > 0 && counts.opened_whole > 0 && counts.opened_and_lost_named > 0, "{counts:?}");
    assert!(counts.salvaged_whole > 0 && counts.salvaged_whole < counts.salvaged, "{counts:?}");
}

#[test]
fn a_sound_store_has_no_problems_and_is_salvaged_whole() {
    let store = Damaged::build(Panics::default());
    let directory = store.copy();
    let report = inspect(directory.path()).expect("a store");
    assert!(report.is_sound() && report.to_string().ends_with("no damage\n"), "{report}");
    let (saved, delivered) = salvaged(directory.path(), store.truth());
    // Bytes are averages of what was in a chunk.
    let same = |(saved, was): (&QueueReport, &QueueReport)| QueueReport { bytes: was.bytes, ..saved.clone() } == *was;
    assert!(saved.lost.is_empty() && saved.queues.iter().zip(&report.queues).all(same), "{saved}\n{report}");
    assert!(delivered == *store.truth());
    let held = Store::open(&config(directory.path())).expect("the store");
    assert!(matches!(inspect(directory.path()), Err(InspectError::Locked(_))));
    drop(held);
    assert!(matches!(inspect(temporary().path()), Err(InspectError::NoStore(_))));
}

#[test]
fn a_missing_record_is_named_and_the_rest_is_salvaged() {
    let store = Damaged::build(Panics::default());
    let directory = store.copy();
    let position = inspect(directory.path()).expect("a store").position.expect("a checkpoint");
    // The first record behind the checkpoint: messages for `orders` and `audit`.
    let disk = RealDisk::open(directory.path()).expect("a directory");
    let inspection = journal::inspect(&disk, None, None).expect("a journal");
    // Those that only tell how far it is synced are small.
    let with_messages = |record: &&journal::RecordInfo| record.sequence > position && record.bytes > 4 << 10;
    let record = inspection.records.iter().find(with_messages).expect("a record");
    let path = directory.path().join(&*record.path);
    let mut bytes = std::fs::read(&path).expect("read");
    bytes[usize::try_from(record.at).expect("small") + 100] ^= 1;
    std::fs::write(&path, bytes).expect("written");

    let refused = Store::open(&config(directory.path())).expect_err("damaged");
    assert!(matches!(refused, OpenError::Journal { .. }), "{refused}");
    let report = inspect(directory.path()).expect("a store");
    let named = |first, last| Some((Offset(first), Offset(last)));
    let of_orders = report.problems.iter().filter(|problem| problem.queue.as_deref() == Some("orders"));
    let offsets: Vec<_> = of_orders.map(|problem| problem.offsets).collect();
    // Lost; then the one that was driven back, and the last two, whose records are there.
    assert_eq!(offsets, [named(200, 214), named(215, 215), named(216, 217)], "{report}");
    let (saved, delivered) = salvaged(directory.path(), store.truth());
    let lost = saved.lost.iter().find(|problem| problem.queue.as_deref() == Some("orders"));
    assert_eq!(lost.map(|problem| problem.offsets), Some(named(200, 214)), "{saved}");
    for (reader, messages) in store.truth() {
        let gone =
            |offset: u64| reader.0 == "orders" && (200..=214).contains(&offset) || reader.0 == "audit" && offset >= 160;
        let expected: BTreeMap<_, _> = messages.iter().filter(|(offset, _)| !gone(**offset)).collect();
        let came: BTreeMap<_, _> =
            delivered[reader].iter().filter(|(offset, _)| expected.contains_key(offset)).collect();
        assert!(came == expected, "{reader:?}\n{saved}");
    }
}

#[test]
fn without_a_state_file_the_journal_is_salvaged() {
    let store = Damaged::build(Panics::default());
    let directory = store.copy();
    std::fs::remove_file(directory.path().join("state.redb")).expect("removed");
    let report = inspect(directory.path()).expect("a store");
    assert!(report.format.is_none() && report.records > 0 && report.problems.iter().all(|p| p.is_of_store), "{report}");
    let refused = Store::open(&config(directory.path())).expect_err("no state file");
    assert!(matches!(refused, OpenError::State { source: CheckpointError::Lost, .. }), "{refused}");
    assert!(!directory.path().join("state.redb").exists(), "a new one would hide that it is lost");
    let parent = temporary();
    let saved = salvage(directory.path(), &parent.path().join("new")).expect("salvaged");
    assert!(saved.lost.iter().any(|problem| problem.is_of_store), "{saved}");
    let count: u64 = saved.queues.iter().map(|queue| queue.messages).sum();
    assert!(count > 20 && saved.queues.iter().all(|queue| queue.readable == queue.messages), "{saved}");
    let readers = saved.queues.iter().map(|queue| ((queue.name.clone(), "new".to_owned()), BTreeMap::new())).collect();
    let delivered = runtime().block_on(async {
        let store = Store::open(&config(&parent.path().join("new"))).expect("the new store");
        let delivered = drain(&store, &readers).await;
        store.stop().await.expect("stopped");
        delivered
    });
    assert_eq!(delivered.values().map(|messages| messages.len() as u64).sum::<u64>(), count);
    assert!(delivered.values().flat_map(BTreeMap::values).all(|stored| is_published(stored)));
}

#[test]
fn a_missing_queue_is_named_and_its_messages_are_salvaged() {
    let store = Damaged::build(Panics::default());
    let directory = store.copy();
    let database = Database::open(directory.path().join("state.redb")).expect("a database");
    let transaction = database.begin_write().expect("a transaction");
    transaction.open_table(QUEUES).expect("a table").remove(0).expect("removed").expect("the row of `orders`");
    transaction.commit().expect("committed");
    drop(database);
    let report = inspect(directory.path()).expect("a store");
    let told = |problem: &&quipu_queue::Problem| problem.what.contains("there is no row of queue 0");
    assert!(report.problems.iter().any(|problem| told(&problem)), "{report}");
    assert!(report.queues.iter().all(|queue| queue.name != "orders"), "{report}");
    let refused = Store::open(&config(directory.path())).expect_err("a queue is missing");
    assert!(matches!(refused, OpenError::State { source: CheckpointError::Row { .. }, .. }), "{refused}");
    let mut readers = store.truth().clone();
    let orders = readers.remove(&("orders".into(), "shop".into())).expect("its messages");
    let (saved, delivered) = salvaged(directory.path(), &readers);
    assert!(readers.iter().all(|(reader, messages)| delivered[reader] == *messages), "{saved}");
    let queue = saved.queues.iter().find(|queue| queue.name == "orders");
    assert!(queue.expect("the queue").readable >= orders.len() as u64, "{saved}");
}

/// What is salvaged of a store, and what readers get of it.
fn salvaged(from: &Path, readers: &Delivered) -> (SalvageReport, Delivered) {
    let parent = temporary();
    let to = parent.path().join("new");
    let saved = salvage(from, &to).expect("salvaged");
    let found = inspect(&to).expect("a store");
    assert!(found.is_sound(), "{found}");
    let delivered = runtime().block_on(async {
        let store = Store::open(&config(&to)).expect("the new store");
        let delivered = drain(&store, readers).await;
        store.stop().await.expect("stopped");
        delivered
    });
    (saved, delivered)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}
