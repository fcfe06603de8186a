//! The owner with a journal that fails, fills up or waits when it is told to.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use quipu_protocol::{Message, MessageId, Subject};

use super::*;
use crate::commit::DedupKey;
use crate::dedup::{Dedup, WINDOW_MS};
use crate::disk::{Disk, RealDisk};
use crate::journal::JournalError;
use crate::plan::{Change, Published, QueueSettings, Receipt, Redrive, Settle, SettleError, Settlement};
use crate::request::{Reply, Sink, Subscribe};
use crate::state::State;
use crate::store::{self, Notice, NoticeKind, Start};
use crate::{Offset, Outcome, QueueInfo};

/// Asks `before` about each append, with the record's sequence and the last one released.
struct Scripted<F> {
    before: F,
    last: u64,
    released: Arc<AtomicU64>,
}

impl<F: FnMut(u64, u64) -> Result<(), JournalError> + Send> Journal for Scripted<F> {
    fn append(&mut self, sequence: u64, _: &[u8], _: bool) -> Result<(), JournalError> {
        assert_eq!(sequence, self.last + 1);
        (self.before)(sequence, self.released.load(Ordering::Acquire))?;
        self.last = sequence;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), JournalError> {
        Ok(())
    }

    fn release(&mut self, through: u64) {
        assert!(through <= self.last);
        self.released.store(through, Ordering::Release);
    }

    fn body_bytes_max(&self) -> usize {
        1 << 20
    }

    fn bytes(&self) -> u64 {
        8 << 20
    }
}

fn store(
    directory: &std::path::Path,
    before: impl FnMut(u64, u64) -> Result<(), JournalError> + Send + 'static,
) -> (store::Store, Arc<AtomicU64>) {
    store_of(directory, State::default(), before)
}

fn store_of(
    directory: &std::path::Path,
    state: State,
    before: impl FnMut(u64, u64) -> Result<(), JournalError> + Send + 'static,
) -> (store::Store, Arc<AtomicU64>) {
    let released = Arc::default();
    let journal = Box::new(Scripted { before, last: 0, released: Arc::clone(&released) });
    let engine = parts(directory, state);
    (store::Store::start(super::Store { engine, journal, lock: None }).expect("threads"), released)
}

fn parts(directory: &std::path::Path, state: State) -> Parts {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(directory).expect("a directory"));
    Parts {
        state,
        sequence: 0,
        store_id: [1; 16],
        checkpoints: Checkpoints::open(disk.clone()).expect("a state file"),
        disk,
        memory_bytes: 0,
        disk_reserve_bytes: 0,
        body_bytes_max: 1 << 20,
        journal_bytes: 8 << 20,
        token_first: 1,
    }
}

fn settings(name: &str) -> QueueSettings {
    QueueSettings::new(Subject::new(name).expect("a subject"))
}

fn published(to: &str, id: &str) -> Vec<Published> {
    let id = MessageId::new(id).expect("an id");
    vec![Published::new(&Message::new(id, Subject::new(to).expect("a subject"), "payload"), true)]
}

/// Longer than what the engine's thread writes itself: while the journal's thread does, the engine goes on.
fn long_published(to: &str, id: &str) -> Vec<Published> {
    let id = MessageId::new(id).expect("an id");
    let payload = vec![b'x'; OWN_BYTES_MAX + 1];
    vec![Published::new(&Message::new(id, Subject::new(to).expect("a subject"), payload), true)]
}

async fn info(store: &store::Store) -> Vec<QueueInfo> {
    store.info().await.expect("a store").queues
}

/// Whether a journal may write; it waits while not.
type Gate = Arc<(Mutex<bool>, Condvar)>;

fn gated() -> (Gate, impl FnMut(u64, u64) -> Result<(), JournalError> + Send) {
    let gate: Gate = Arc::new((Mutex::new(true), Condvar::new()));
    let held = gate.clone();
    let before = move |_, _| {
        let open = held.0.lock().expect("no panic");
        drop(held.1.wait_while(open, |open| !*open).expect("no panic"));
        Ok(())
    };
    (gate, before)
}

fn set(gate: &Gate, open: bool) {
    *gate.0.lock().expect("no panic") = open;
    gate.1.notify_all();
}

#[tokio::test]
async fn a_failed_journal_ends_acknowledgements_for_good() {
    let directory = tempfile::tempdir().expect("a directory");
    // Not by number: a store that is left alone for a moment seals its last record with one more.
    let fails = Arc::new(AtomicBool::new(false));
    let told = fails.clone();
    let (store, _) = store(directory.path(), move |_, _| match told.load(Ordering::Acquire) {
        true => Err(JournalError::Io { path: "000.journal".into(), source: io::Error::other("gone") }),
        false => Ok(()),
    });
    store.define_queue(settings("q")).await.expect("a store").expect("a queue");
    assert!(store.publish(published("q", "a")).await.expect("a store")[0].is_ok());
    fails.store(true, Ordering::Release);
    let failed = store.publish(published("q", "b")).await.expect_err("the journal failed");
    assert_eq!(failed.to_string(), "the store takes nothing more: journal 000.journal: gone");
    assert_eq!(store.publish(published("q", "c")).await, Err(failed.clone()));
    assert_eq!(store.define_queue(settings("r")).await, Err(failed.clone()));
    assert!(store.subscribe("q", "s", None, Start::First, |_| {}).await.is_err());
    let info = store.info().await.expect("an answer");
    assert!(!info.is_ready() && info.failed.is_some_and(|why| why.ends_with("000.journal: gone")));
    assert_eq!(store.stop().await, Err(failed));
}

#[tokio::test]
async fn a_full_journal_waits_for_a_checkpoint_and_goes_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let full = |sequence, released| if sequence > released + 3 { Err(JournalError::Full) } else { Ok(()) };
    let (store, released) = store(directory.path(), full);
    store.define_queue(settings("q")).await.expect("a store").expect("a queue");
    for n in 0..20 {
        let receipt = store.publish(published("q", &n.to_string())).await.expect("a store").remove(0);
        assert_eq!(receipt, Ok(Receipt::Stored(vec![("q".into(), Offset(n))])));
    }
    assert!(released.load(Ordering::Acquire) >= 18);
    assert_eq!(info(&store).await[0].next_offset, 20);
    store.stop().await.expect("a clean stop");
}

/// The settlement is gathered while the journal has another commit; the consumer goes before it is planned.
#[tokio::test]
async fn a_settlement_that_was_sent_holds_though_its_consumer_goes() {
    let directory = tempfile::tempdir().expect("a directory");
    let (gate, before) = gated();
    let (store, _) = store(directory.path(), before);
    store.define_queue(settings("q")).await.expect("a store").expect("a queue");
    store.publish(published("q", "a")).await.expect("a store");
    let (sender, mut deliveries) = mpsc::channel(8);
    let sink = move |batch| drop(sender.try_send(batch));
    let consumer = store.subscribe("q", "s", None, Start::First, sink).await.expect("a consumer");
    consumer.credit(8).await.expect("a store");
    let token = deliveries.recv().await.expect("a delivery")[0].token;
    set(&gate, false);
    let busy = store.publisher().submit(long_published("q", "b")).await.expect("a store");
    let settle = |token| vec![Settle { token, settlement: Settlement::Done(Outcome::Acked), outputs: Vec::new() }];
    let settled = consumer.submit_settle(settle(token)).await.expect("a store");
    let again = consumer.submit_settle(settle(token)).await.expect("a store");
    drop(consumer);
    assert_eq!(info(&store).await[0].subscriptions[0].in_flight, 1);
    set(&gate, true);
    busy.await.expect("an answer").expect("a store");
    assert_eq!(settled.await.expect("an answer"), Ok(vec![Ok(())]));
    assert_eq!(again.await.expect("an answer"), Ok(vec![Err(SettleError::Stale)]));
    let subscription = &info(&store).await[0].subscriptions[0];
    assert_eq!((subscription.counts.acked, subscription.in_flight, subscription.waiting), (1, 0, 1));
    store.stop().await.expect("a clean stop");
}

#[tokio::test]
async fn publishers_wait_for_room_in_the_dedup_window() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut state = State::default();
    state.dedup = Dedup::with_room_for(2);
    // One id leaves the window in half a second, the other not while this test runs.
    let now_ms = now_ms();
    for (id, age_ms) in [("old", WINDOW_MS - 500), ("young", 0)] {
        state.dedup.insert(DedupKey::new("q", id), now_ms - age_ms, &[]);
    }
    let (store, _) = store_of(directory.path(), state, |_, _| Ok(()));
    store.define_queue(settings("q")).await.expect("a store").expect("a queue");
    let first = store.publisher().submit(published("q", "a")).await;
    // Others are served meanwhile.
    store.subscribe("q", "s", None, Start::First, |_| {}).await.expect("a consumer");
    assert_eq!(info(&store).await[0].next_offset, 0);
    let receipt = first.expect("a store").await.expect("an answer").expect("a store").remove(0);
    assert_eq!(receipt, Ok(Receipt::Stored(vec![("q".into(), Offset(0))])));
    // There was room for one; the end of the store does not wait for more.
    let second = store.publisher().submit(published("q", "b")).await;
    assert_eq!(info(&store).await[0].next_offset, 1);
    store.stop().await.expect("a clean stop");
    assert!(second.expect("a store").await.expect("an answer").is_err());
}

/// A redrive is alone in its commit; one that finds nothing makes none, and so no job whose end would go on.
#[tokio::test]
async fn what_is_gathered_behind_a_commit_of_nothing_does_not_wait_for_something_to_happen() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut engine = Engine::new(parts(directory.path(), State::default()));
    let redrive = Redrive {
        queue: "none".into(),
        from: Offset(0),
        look: 1,
        take: 1,
        only: Box::new(|_, _| true),
        dry_run: false,
    };
    let (reply, redriven) = tokio::sync::oneshot::channel();
    let now = Now::default();
    engine.take(now, Request::Redrive { redrive, reply: Reply::Once(reply) });
    let (reply, _defined) = tokio::sync::oneshot::channel();
    engine.take(now, Request::DefineQueue { settings: settings("q"), reply: Reply::Once(reply) });
    engine.advance(now);
    assert_eq!(redriven.await.expect("an answer").expect("a store"), None);
    assert!(engine.next_job().is_none());
    assert_eq!(engine.timeout_us(now), Some(now.us));
    engine.advance(now);
    assert!(matches!(engine.next_job(), Some(Job::Append { .. })));
}

/// Both are asked while another commit makes the subscription. What comes first is done first: it is joined, and removed.
#[tokio::test]
async fn whoever_joins_before_a_subscription_is_removed_has_joined_and_hears_of_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut engine = Engine::new(parts(directory.path(), State::default()));
    let now = Now::default();
    let write = |engine: &mut Engine| {
        engine.advance(now);
        let Some(Job::Append { body, .. }) = engine.next_job() else { panic!("a commit") };
        engine.done(now, Done::Written(Ok(()), body));
    };
    let (reply, _defined) = tokio::sync::oneshot::channel();
    engine.take(now, Request::DefineQueue { settings: settings("q"), reply: Reply::Once(reply) });
    write(&mut engine);
    let (told, notices) = std::sync::mpsc::sync_channel(8);
    let join = |engine: &mut Engine| {
        let told = told.clone();
        let tell = Box::new(move |notice: Notice| told.send(notice.kind).expect("a listener"));
        let sink = Sink { deliver: Box::new(|_| {}), notice: tell };
        let (reply, joined) = tokio::sync::oneshot::channel();
        let subscribe = Subscribe::new("q", "s", None, Start::First);
        engine.take(now, Request::Subscribe { subscribe, sink, reply: Reply::Once(reply) });
        joined
    };
    let first = join(&mut engine);
    engine.advance(now);
    let mut second = join(&mut engine);
    let (reply, removed) = tokio::sync::oneshot::channel();
    let change = Change::RemoveSubscription { queue: "q".into(), name: "s".into() };
    engine.take(now, Request::Change { change, reply: Reply::Once(reply) });
    let Some(Job::Append { body, .. }) = engine.next_job() else { panic!("a commit") };
    engine.done(now, Done::Written(Ok(()), body));
    assert!(first.await.expect("an answer").expect("a subscription").created);
    // Nothing is to be written for the second.
    engine.advance(now);
    assert!(second.try_recv().expect("an answer").is_ok());
    write(&mut engine);
    assert!(removed.await.expect("an answer").expect("a store").is_ok());
    assert_eq!(notices.try_iter().collect::<Vec<_>>(), [NoticeKind::Deleted; 2]);
}
