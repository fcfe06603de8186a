//! Damages copies of a store at random, and checks that nothing wrong is ever delivered and nothing is lost in silence.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use quipu_protocol::{Message, MessageId, Subject, SubjectPattern};
use quipu_queue::disk::RealDisk;
use quipu_queue::journal::{self, JournalConfig};
use quipu_queue::{
    Consumer, Delivery, Durability, Mode, Offset, OpenError, Outcome, Output, Published, QueueSettings, Receipt,
    Redrive, Retention, Settle, Settlement, Start, Store, StoreConfig, Stored, Token, inspect, salvage,
};
use tempfile::TempDir;

/// Queue and subscription.
pub(crate) type Reader = (String, String);
pub(crate) type Delivered = BTreeMap<Reader, BTreeMap<u64, Arc<Stored>>>;

/// What became of so many cases.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) cases: usize,
    pub(crate) refused: usize,
    pub(crate) opened_whole: usize,
    pub(crate) opened_and_lost_named: usize,
    /// Of those, the ones where each message is named by its offset.
    pub(crate) named_by_offset: usize,
    pub(crate) cut_last: usize,
    /// Damaged in several places at once, and opened all the same.
    pub(crate) several_opened: usize,
    pub(crate) salvaged: usize,
    pub(crate) salvaged_whole: usize,
    /// Assertions of redb that were caught.
    pub(crate) redb_panics: usize,
}

/// A store as a kill left it, and what is in it.
pub(crate) struct Damaged {
    sealed: TempDir,
    /// The same without the record that tells that the last one was whole.
    unsealed: TempDir,
    /// What is to be delivered.
    truth: Delivered,
    /// Appended by the last record.
    last: BTreeSet<(String, u64)>,
    panics: Panics,
}

/// Where threads panicked. redb's own are caught where the store calls it; no other may be.
#[derive(Clone, Default)]
pub(crate) struct Panics(Arc<Mutex<Vec<String>>>);

impl Panics {
    /// Collects them from now on. redb's are not printed.
    pub(crate) fn collect() -> Self {
        let panics = Self::default();
        let list = panics.0.clone();
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            let text = info.payload_as_str().unwrap_or_default();
            list.lock().expect("no panic holds it").push(format!("{place}: {text}"));
            if !place.contains("/redb-") {
                print(info);
            }
        }));
        panics
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().expect("no panic holds it"))
    }
}

/// A small generator of numbers (SplitMix64), so that a case can be had again by its number.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64, case: u64) -> Self {
        Self(seed ^ case.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).expect("below a usize")
    }
}

impl Damaged {
    /// Makes the store. Panics are to be collected from before.
    pub(crate) fn build(panics: Panics) -> Self {
        runtime().block_on(build(panics))
    }

    /// A copy of the undamaged store.
    pub(crate) fn copy(&self) -> TempDir {
        let directory = temporary();
        copy(self.sealed.path(), directory.path());
        directory
    }

    /// What its readers get, by queue and subscription.
    pub(crate) fn truth(&self) -> &Delivered {
        &self.truth
    }

    /// Does one case; the text says what went wrong.
    pub(crate) fn case(&self, seed: u64, case: u64, counts: &mut Counts) -> Result<(), String> {
        let done = catch_unwind(AssertUnwindSafe(|| runtime().block_on(self.run(seed, case, counts))));
        let panics = self.panics.take();
        let told = match panics.iter().find(|place| !place.contains("/redb-")) {
            Some(ours) => Err(format!("a panic at {ours}")),
            None => done.unwrap_or_else(|_| Err(format!("a panic that nothing caught: {panics:?}"))),
        };
        counts.redb_panics += panics.len();
        told.map_err(|why| format!("seed {seed}, case {case}: {why}"))
    }

    async fn run(&self, seed: u64, case: u64, counts: &mut Counts) -> Result<(), String> {
        let mut random = Random::new(seed, case);
        let sealed = random.below(8) != 0;
        let from = if sealed { &self.sealed } else { &self.unsealed };
        let directory = temporary();
        copy(from.path(), directory.path());
        // Several at once may hit a record and the one that tells of it: then only what is delivered is looked at.
        let several = random.below(10) == 0;
        let hits = if several { 2 + random.below(30) } else { 1 };
        let what = (0..hits).map(|_| damage(directory.path(), &mut random)).collect::<Vec<_>>().join(", ");
        counts.cases += 1;
        let before = contents(directory.path());
        let report = inspect(directory.path()).map_err(|e| format!("{what}: cannot be looked at: {e}"))?;
        if contents(directory.path()) != before {
            return Err(format!("{what}: looking changed it"));
        }
        if random.below(3) == 0 {
            self.check_salvage(directory.path(), (sealed, several), counts)
                .await
                .map_err(|why| format!("{what}: {why}\n{report}"))?;
        }
        let store = match Store::open(&config(directory.path())) {
            Ok(store) => store,
            Err(OpenError::Locked(_)) => return Err(format!("{what}: it is locked")),
            Err(e) if report.is_sound() => return Err(format!("{what}: refused ({e}), and looking finds nothing")),
            Err(_) => {
                counts.refused += 1;
                return Ok(());
            }
        };
        let delivered = drain(&store, &self.truth).await;
        store.stop().await.ok();
        let missing = self.compare(&delivered).map_err(|why| format!("{what}: {why}\n{report}"))?;
        if several {
            counts.several_opened += 1;
            return Ok(());
        }
        if delivered.values().all(BTreeMap::is_empty) {
            return Err(format!("{what}: opened as an empty store\n{report}"));
        }
        let by_offset = |(queue, offset): &(String, u64)| {
            let mut own = report.problems.iter().filter(|problem| !problem.is_of_store);
            own.any(|problem| problem.concerns(queue, Offset(*offset)))
        };
        counts.named_by_offset += usize::from(!missing.is_empty() && missing.iter().all(by_offset));
        let unnamed = |(queue, offset): &&(String, u64)| !report.concerns(queue, Offset(*offset));
        // Without a record behind it, it cannot be told from one that was never wholly written.
        let (of_last, unnamed): (Vec<_>, Vec<_>) =
            missing.iter().filter(unnamed).partition(|place| !sealed && self.last.contains(place));
        if !unnamed.is_empty() {
            return Err(format!("{what}: lost in silence: {unnamed:?}\n{report}"));
        }
        match (of_last.is_empty(), missing.is_empty()) {
            (false, _) => counts.cut_last += 1,
            (true, true) => counts.opened_whole += 1,
            (true, false) => counts.opened_and_lost_named += 1,
        }
        Ok(())
    }

    async fn check_salvage(
        &self,
        from: &Path,
        (sealed, several): (bool, bool),
        counts: &mut Counts,
    ) -> Result<(), String> {
        let parent = temporary();
        let to = parent.path().join("new");
        let before = contents(from);
        let saved = salvage(from, &to).map_err(|e| format!("cannot be salvaged: {e}"))?;
        if contents(from) != before {
            return Err("salvaging changed it".into());
        }
        let found = inspect(&to).map_err(|e| format!("what was salvaged cannot be looked at: {e}"))?;
        if !found.is_sound() {
            return Err(format!("what was salvaged is not sound: {found}"));
        }
        let store = Store::open(&config(&to)).map_err(|e| format!("what was salvaged does not open: {e}"))?;
        let delivered = drain(&store, &self.truth).await;
        store.stop().await.ok();
        let missing = self.compare(&delivered).map_err(|why| format!("salvaged: {why}"))?;
        let named = |queue: &str, offset| saved.lost.iter().any(|problem| problem.concerns(queue, Offset(offset)));
        counts.salvaged += 1;
        counts.salvaged_whole += usize::from(missing.is_empty());
        if several {
            return Ok(());
        }
        if let Some((queue, offset)) =
            missing.iter().find(|place| !named(&place.0, place.1) && (sealed || !self.last.contains(place)))
        {
            return Err(format!("salvaging lost {queue} {offset} in silence\n{saved}"));
        }
        Ok(())
    }

    /// What was not delivered; an error where something else was.
    fn compare(&self, delivered: &Delivered) -> Result<BTreeSet<(String, u64)>, String> {
        let mut published: BTreeMap<(&str, u64), &Arc<Stored>> = BTreeMap::new();
        for ((queue, _), messages) in &self.truth {
            published.extend(messages.iter().map(|(offset, stored)| ((queue.as_str(), *offset), stored)));
        }
        for ((queue, _), messages) in delivered {
            for (offset, stored) in messages {
                // A settled message may come again; then it is not in the list.
                let other = published.get(&(queue.as_str(), *offset)).filter(|truth| **truth != stored);
                if other.is_some() || !is_published(stored) {
                    return Err(format!("queue {queue}, offset {offset}: delivered what was never published"));
                }
            }
        }
        let mut missing = BTreeSet::new();
        for (reader, messages) in &self.truth {
            let came = delivered.get(reader);
            let absent = messages.keys().filter(|offset| came.is_none_or(|came| !came.contains_key(*offset)));
            missing.extend(absent.map(|offset| (reader.0.clone(), *offset)));
        }
        Ok(missing)
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// In memory where there is such a place: the cases sync a lot, and nothing here is about power.
pub(crate) fn temporary() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a directory")
}

pub(crate) fn config(path: &Path) -> StoreConfig {
    let journal = JournalConfig { segments: 2, segment_bytes: 256 << 10 };
    StoreConfig { journal, memory_bytes: 4 << 10, disk_reserve_bytes: 0, ..StoreConfig::new(path) }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.join("journal")).expect("a directory");
    for name in files(from) {
        std::fs::copy(from.join(&name), to.join(&name)).expect("copied");
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let journal = std::fs::read_dir(directory.join("journal")).expect("a journal");
    let mut files: Vec<PathBuf> =
        journal.map(|entry| Path::new("journal").join(entry.expect("a file").file_name())).collect();
    files.push("state.redb".into());
    files.sort();
    files
}

fn contents(directory: &Path) -> Vec<Vec<u8>> {
    files(directory).iter().map(|name| std::fs::read(directory.join(name)).expect("read")).collect()
}

/// Damages one file and says how.
fn damage(directory: &Path, random: &mut Random) -> String {
    let files = files(directory);
    // The state file as often as the journal.
    let name = if random.below(2) == 0 { &files[files.len() - 1] } else { &files[random.below(files.len() - 1)] };
    let path = directory.join(name);
    let mut bytes = std::fs::read(&path).expect("read");
    if bytes.len() < 4096 {
        return format!("{}: hardly anything left", name.display());
    }
    let used: Vec<usize> =
        (0..bytes.len() / 512).filter(|n| bytes[n * 512..][..512].iter().any(|byte| *byte != 0)).collect();
    let at = match random.below(4) {
        0 => random.below(bytes.len()),
        _ => used.get(random.below(used.len())).copied().unwrap_or(0) * 512 + random.below(512),
    };
    let what = match random.below(8) {
        0..=2 => {
            bytes[at] ^= 1 << random.below(8);
            format!("bit flipped in byte {at}")
        }
        3 | 4 => {
            let end = (at + 1 + random.below(64)).min(bytes.len());
            bytes[at..end].iter_mut().for_each(|byte| *byte = random.next().to_le_bytes()[0]);
            format!("bytes {at} to {end} overwritten")
        }
        5 | 6 => {
            let page = at / 4096 * 4096;
            let end = (page + 4096).min(bytes.len());
            bytes[page..end].fill(0);
            format!("page at byte {page} zeroed")
        }
        _ => {
            let end = if random.below(8) == 0 { 0 } else { at };
            bytes.truncate(end);
            format!("cut to {end} bytes")
        }
    };
    std::fs::write(&path, &bytes).expect("written");
    format!("{}: {what}", name.display())
}

/// Everything that each reader gets, settling nothing.
pub(crate) async fn drain(store: &Store, readers: &Delivered) -> Delivered {
    let mut delivered = Delivered::new();
    for (queue, subscription) in readers.keys() {
        let got: Arc<Mutex<Vec<Delivery>>> = Arc::default();
        let sink = got.clone();
        let sink = move |batch| sink.lock().expect("no panic holds it").extend(batch);
        let Ok(consumer) = store.subscribe(queue, subscription, None, Start::First, sink).await else { continue };
        consumer.credit(10_000).await.ok();
        wait_for_deliveries(store, queue, subscription).await;
        let got = std::mem::take(&mut *got.lock().expect("no panic holds it"));
        let messages = got.into_iter().map(|delivery| (delivery.offset.0, delivery.stored)).collect();
        delivered.insert((queue.clone(), subscription.clone()), messages);
    }
    delivered
}

async fn wait_for_deliveries(store: &Store, queue: &str, subscription: &str) {
    loop {
        let Ok(info) = store.info().await else { return };
        let known = info.queues.iter().find(|known| known.name == queue);
        let known = known.and_then(|queue| queue.subscriptions.iter().find(|s| s.name == subscription));
        if info.failed.is_some() || known.is_none_or(|s| s.waiting == 0) {
            return;
        }
        tokio::task::yield_now().await;
    }
}

fn subject(text: &str) -> Subject {
    Subject::new(text).expect("a subject")
}

/// Payloads follow from ids, so that each message can be checked by itself.
fn payload(id: &str) -> Bytes {
    let length = 200 + id.bytes().map(usize::from).sum::<usize>() * 13 % 3_000;
    id.bytes().cycle().take(length).collect::<Vec<u8>>().into()
}

pub(crate) fn is_published(stored: &Stored) -> bool {
    Message::decode(stored.header.clone(), stored.payload.clone())
        .is_ok_and(|message| message.payload == payload(message.id.as_str()))
}

fn message(to: &str, id: &str) -> Message {
    let key = quipu_protocol::Key::new(id.as_bytes()[..id.len().min(2)].to_vec()).expect("a key");
    let mut message = Message::new(MessageId::new(id).expect("an id"), subject(to), payload(id));
    message.key = Some(key);
    message
}

async fn queue(store: &Store, name: &str, pattern: &str, change: impl FnOnce(&mut QueueSettings)) {
    let subjects = vec![SubjectPattern::new(pattern).expect("a pattern")];
    let mut settings = QueueSettings { subjects, backoff_ms: vec![3_600_000], ..QueueSettings::new(subject(name)) };
    change(&mut settings);
    store.define_queue(settings).await.expect("a store").expect("a queue");
}

async fn publish(store: &Store, to: &str, ids: std::ops::Range<u32>) -> Vec<(String, u64)> {
    let batch = ids.map(|n| Published::new(&message(to, &format!("m{n}")), true)).collect();
    let mut places = Vec::new();
    for receipt in store.publish(batch).await.expect("a store") {
        let Ok(Receipt::Stored(stored)) = receipt else { panic!("not stored") };
        places.extend(stored.into_iter().map(|(queue, offset)| (queue.to_string(), offset.0)));
    }
    places
}

/// A consumer with the tokens of what it has.
struct Hands {
    consumer: Consumer,
    tokens: Arc<Mutex<BTreeMap<u64, Token>>>,
}

impl Hands {
    async fn take(store: &Store, queue: &str, subscription: &str, mode: Mode) -> Self {
        let tokens: Arc<Mutex<BTreeMap<u64, Token>>> = Arc::default();
        let sink = tokens.clone();
        let sink = move |batch: Vec<Delivery>| {
            let mut tokens = sink.lock().expect("no panic holds it");
            tokens.extend(batch.into_iter().map(|delivery| (delivery.offset.0, delivery.token)));
        };
        let joined = store.subscribe(queue, subscription, Some(mode), Start::First, sink).await;
        let consumer = joined.expect("a consumer");
        consumer.credit(10_000).await.expect("a store");
        wait_for_deliveries(store, queue, subscription).await;
        Self { consumer, tokens }
    }

    async fn settle(&self, settlement: &Settlement, wanted: impl Fn(u64) -> bool) {
        let wanted: Vec<(u64, Token)> =
            self.tokens.lock().expect("no panic holds it").extract_if(.., |offset, _| wanted(*offset)).collect();
        let settle = |(_, token)| Settle { token, settlement: settlement.clone(), outputs: Vec::<Output>::new() };
        let results = self.consumer.settle(wanted.into_iter().map(settle).collect()).await.expect("a store");
        assert!(results.iter().all(Result::is_ok));
    }
}

async fn build(panics: Panics) -> Damaged {
    let live = temporary();
    let store = Store::open(&config(live.path())).expect("a store");
    queue(&store, "orders", "orders.>", |_| {}).await;
    queue(&store, "audit", "orders.eu.*", |settings| {
        settings.retention = Retention::Log { age_ms: None, bytes: None, messages: Some(150) };
    })
    .await;
    queue(&store, "jobs", "jobs.>", |settings| settings.durability = Durability::Buffered).await;
    queue(&store, "kept", "kept.>", |_| {}).await;
    let done = Settlement::Done(Outcome::Acked);
    let reject = Settlement::DeadLetter { queue: None, reason: "bad".into(), headers: Vec::new() };
    for n in 0..8 {
        publish(&store, "orders.eu.new", n * 100..n * 100 + 20).await;
        publish(&store, "orders.us.new", n * 100 + 20..n * 100 + 25).await;
        publish(&store, "jobs.a", n * 100 + 25..n * 100 + 35).await;
        publish(&store, "kept.a", n * 100 + 35..n * 100 + 38).await;
        store.compact().await.expect("a checkpoint");
    }
    let shop = Hands::take(&store, "orders", "shop", Mode::Shared).await;
    shop.settle(&done, |n| n < 70 || n % 3 == 0).await;
    shop.settle(&reject, |n| n == 100 || n == 110).await;
    let log = Hands::take(&store, "audit", "log", Mode::Exclusive).await;
    log.settle(&done, |n| n < 50).await;
    let jobs = Hands::take(&store, "jobs", "jobs", Mode::KeyShared).await;
    jobs.settle(&done, |n| n % 2 == 0).await;
    Hands::take(&store, "kept", "kept", Mode::Shared).await;
    let named = store.named_publisher("cash desk", 0).await.expect("a publisher");
    let sequenced = (1..=5).map(|n| Published::new(&message("kept.a", &format!("n{n}")), false).with_sequence(n));
    named.submit(sequenced.collect()).await.expect("a store").await.expect("a store").expect("stored");
    Hands::take(&store, "orders-dead", "shop", Mode::Shared).await;
    store.compact().await.expect("a checkpoint");
    // Nothing has changed since, so that no checkpoint is due; what follows is in the journal alone.
    let sealed = temporary();
    std::fs::copy(live.path().join("state.redb"), sealed.path().join("state.redb")).expect("copied");
    publish(&store, "orders.eu.new", 2_000..2_015).await;
    publish(&store, "jobs.a", 2_015..2_020).await;
    shop.settle(&done, |n| n % 7 == 1 && n > 70).await;
    let only = Box::new(|_: Offset, _: &Message| true);
    let redrive = Redrive { queue: "orders-dead".into(), from: Offset(0), look: 1, take: 1, only, dry_run: false };
    assert_eq!(store.redrive(redrive).await.expect("a store").expect("a queue").moved.len(), 1);
    let last = publish(&store, "orders.us.new", 2_020..2_022).await.into_iter().collect();
    wait_for_seal(&store).await;
    std::fs::create_dir(sealed.path().join("journal")).expect("a directory");
    for name in files(live.path()).iter().filter(|name| name.starts_with("journal")) {
        std::fs::copy(live.path().join(name), sealed.path().join(name)).expect("copied");
    }
    drop((shop, log, jobs));
    store.stop().await.expect("stopped");
    let unsealed = temporary();
    copy(sealed.path(), unsealed.path());
    unseal(unsealed.path());
    let truth = truth(sealed.path()).await;
    Damaged { sealed, unsealed, truth, last, panics }
}

/// Until the burst's last record is followed by one that says so.
async fn wait_for_seal(store: &Store) {
    let before = store.info().await.expect("a store").journal_used_bytes;
    while store.info().await.expect("a store").journal_used_bytes <= before {
        tokio::task::yield_now().await;
    }
}

/// Takes the last record away.
fn unseal(directory: &Path) {
    let disk = RealDisk::open(directory).expect("a directory");
    let inspection = journal::inspect(&disk, None, None).expect("a journal");
    let last = inspection.records.last().expect("a record");
    let path = directory.join(&*last.path);
    let mut bytes = std::fs::read(&path).expect("read");
    let at = usize::try_from(last.at).expect("small");
    bytes[at..at + 4096].fill(0);
    std::fs::write(&path, &bytes).expect("written");
}

/// What the undamaged store delivers, after it has been checked that it is sound and of the size that is meant.
async fn truth(from: &Path) -> Delivered {
    let report = inspect(from).expect("a store");
    assert!(report.is_sound() && report.notes.is_empty() && report.records > 4, "{report}");
    let directory = temporary();
    copy(from, directory.path());
    let store = Store::open(&config(directory.path())).expect("the store");
    let readers = [("orders", "shop"), ("audit", "log"), ("jobs", "jobs"), ("kept", "kept"), ("orders-dead", "shop")];
    let readers = readers.into_iter().map(|(q, s)| ((q.to_owned(), s.to_owned()), BTreeMap::new())).collect();
    let truth = drain(&store, &readers).await;
    let count: usize = truth.values().map(BTreeMap::len).sum();
    assert!(count > 200 && truth.len() == 5 && truth.values().all(|messages| !messages.is_empty()), "{count}");
    assert!(truth.values().flat_map(BTreeMap::values).all(|stored| is_published(stored)));
    for queue in &report.queues {
        let read = truth.iter().filter(|((name, _), _)| *name == queue.name).map(|(_, messages)| messages.len() as u64);
        assert!(read.sum::<u64>() <= queue.messages, "{}", queue.name);
    }
    store.stop().await.expect("stopped");
    truth
}
