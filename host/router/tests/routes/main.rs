//! Routes over a store on a real disk, with plugins that are closures: what goes out, what is settled, and what a fault,
//! a stop or a restart leaves behind.

mod broken;
mod control;
mod inline;
mod lanes;
mod trace;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use quipu_protocol::{Headers, Message, MessageId, Subject, SubjectPattern};
use quipu_queue::journal::JournalConfig;
use quipu_queue::{
    Consumer, Delivery, Outcome, Published, QueueInfo, QueueSettings, Settle, Settlement, Start, Store, StoreConfig,
};
use quipu_router::{Condition, OnError, Order, RouteError, RouteInfo, RouteSettings, Router, Template};
use quipu_runtime::{Digest, Emitted, Fault, FaultKind, Hand, Plugin, Usage, Verdict};
use tokio::sync::mpsc;

/// For an event that has to come; how long it takes is the machine's business.
const PATIENCE: Duration = Duration::from_secs(30);

struct Fake<F> {
    name: &'static str,
    digest: Digest,
    act: F,
}

impl<F: FnMut(&mut Hand) -> Result<Verdict, Fault> + Send> Plugin for Fake<F> {
    fn name(&self) -> &str {
        self.name
    }

    fn digest(&self) -> &Digest {
        &self.digest
    }

    fn usage(&self) -> Usage {
        Usage { memory_bytes: 100, memory_peak_bytes: 200, instances_started: 1, ..Usage::default() }
    }

    fn process(&mut self, hand: &mut Hand) -> Result<Verdict, Fault> {
        (self.act)(hand)
    }
}

fn plugin(
    name: &'static str,
    act: impl FnMut(&mut Hand) -> Result<Verdict, Fault> + Send + 'static,
) -> Box<dyn Plugin> {
    Box::new(Fake { name, digest: Digest::of(name.as_bytes()), act })
}

fn emit(hand: &mut Hand, to: &str, payload: Option<&'static str>) {
    hand.emitted.push(Emitted {
        subject: subject(to),
        key: None,
        headers: Headers::new(),
        payload: payload.map(Bytes::from),
        id: None,
        reply_to: None,
        expires_ms: None,
        deliver_at_ms: None,
        priority: 0,
    });
}

fn fault(text: &str) -> Fault {
    Fault { kind: FaultKind::Said, text: text.into(), trace: vec!["at a".into(), "at b".into()] }
}

fn subject(text: &str) -> Subject {
    Subject::new(text).expect("a subject")
}

fn templates(texts: &[&str]) -> Vec<Template> {
    texts.iter().map(|text| Template::new(text).expect("a template")).collect()
}

fn when(source: &str) -> Option<Condition> {
    Some(Condition::new(source).expect("a condition"))
}

fn attempts(attempts: u32, then: &str) -> OnError {
    OnError { attempts, backoff_ms: vec![0], then: Some(then.into()) }
}

/// A route without plugins that sends nothing anywhere.
fn route(name: &str, from: &str) -> RouteSettings {
    RouteSettings { on_error: attempts(1, "dead"), ..RouteSettings::new(name, from) }
}

/// What the router derives: the same input gives the same ids.
fn derived(parent: &str, route: &str, position: usize, index: usize) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [parent, route, &position.to_string(), &index.to_string()] {
        hasher.update(part.as_bytes()).update(&[0]);
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

/// A store with a router.
struct Node {
    store: Store,
    router: Arc<Router>,
}

impl Node {
    fn open(path: &Path) -> Self {
        Self::open_with(path, 2)
    }

    fn open_with(path: &Path, workers: usize) -> Self {
        let journal = JournalConfig { segments: 4, segment_bytes: 1 << 20 };
        let config = StoreConfig { journal, memory_bytes: 1 << 20, ..StoreConfig::new(path) };
        let store = Store::open(&config).expect("a store");
        let router = Router::start(store.clone(), workers).expect("threads");
        Self { store, router: Arc::new(router) }
    }

    /// Queues, each with patterns behind its name: `out x.>`.
    async fn queues(&self, texts: &[&str]) {
        for text in texts {
            let mut words = text.split(' ');
            let name = subject(words.next().expect("a name"));
            let subjects = words.map(|word| SubjectPattern::new(word).expect("a pattern")).collect();
            let settings = QueueSettings { subjects, ..QueueSettings::new(name) };
            self.store.define_queue(settings).await.expect("a store").expect("a queue");
        }
    }

    async fn add(&self, settings: RouteSettings) {
        self.router.add(settings).await.expect("a route");
    }

    async fn publish(&self, to: &str, id: &str, headers: &[(&str, &str)]) {
        let mut message = Message::new(MessageId::new(id).expect("an id"), subject(to), id.to_owned());
        for (name, value) in headers {
            message.headers.add(name, value).expect("a header");
        }
        self.publish_message(&message).await;
    }

    async fn publish_message(&self, message: &Message) {
        let published = vec![Published::new(message, true)];
        self.store.publish(published).await.expect("a store").remove(0).expect("stored");
    }

    /// Creates the queue where only a dead letter would, and reads it.
    async fn read(&self, queue: &str) -> Reader {
        let names: Vec<_> = self.store.info().await.expect("a store").queues.into_iter().map(|q| q.name).collect();
        if !names.iter().any(|name| name == queue) {
            let settings = QueueSettings::for_dead_letters(subject(queue));
            self.store.define_queue(settings).await.expect("a store").expect("a queue");
        }
        Reader::start(&self.store, queue).await
    }

    async fn info(&self, name: &str) -> QueueInfo {
        self.store.info().await.expect("a store").queues.into_iter().find(|q| q.name == name).expect("the queue")
    }

    fn route(&self, name: &str) -> RouteInfo {
        self.router.routes().into_iter().find(|route| route.name == name).expect("the route")
    }

    async fn stop_router(&self) {
        let router = self.router.clone();
        tokio::task::spawn_blocking(move || router.stop()).await.expect("stopped");
    }

    async fn stop(self) {
        self.stop_router().await;
        self.store.stop().await.expect("a clean stop");
    }
}

/// A consumer with what it gets.
struct Reader {
    consumer: Consumer,
    deliveries: mpsc::Receiver<Vec<Delivery>>,
    pending: Vec<Delivery>,
}

impl Reader {
    async fn start(store: &Store, queue: &str) -> Self {
        let (sender, deliveries) = mpsc::channel(4_096);
        let sink = move |batch| drop(sender.try_send(batch));
        let consumer = store.subscribe(queue, "reader", None, Start::First, sink).await.expect("a consumer");
        consumer.credit(4_096).await.expect("a store");
        Self { consumer, deliveries, pending: Vec::new() }
    }

    async fn next(&mut self) -> Message {
        while self.pending.is_empty() {
            let batch = tokio::time::timeout(PATIENCE, self.deliveries.recv()).await;
            self.pending = batch.expect("a delivery in time").expect("an open store");
        }
        let delivery = self.pending.remove(0);
        let done = Settlement::Done(Outcome::Acked);
        let settle = Settle { token: delivery.token, settlement: done, outputs: Vec::new() };
        self.consumer.settle(vec![settle]).await.expect("a store").remove(0).expect("not stale");
        let stored = &delivery.stored;
        Message::decode(stored.header.clone(), stored.payload.clone()).expect("a message")
    }

    async fn subjects(&mut self, count: usize) -> Vec<String> {
        let mut subjects = Vec::new();
        for _ in 0..count {
            subjects.push(self.next().await.subject.to_string());
        }
        subjects
    }
}

fn said(message: &Message, header: &str) -> String {
    message.headers.first(header).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_chain_sends_what_was_emitted_and_then_the_message_in_hand() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open(directory.path());
    node.queues(&["in in.*", "mid mid.>", "out"]).await;
    let first = plugin("one", |hand| {
        emit(hand, "mid.emitted.one", Some("new"));
        hand.message.headers.set("seen", "one").expect("room");
        hand.header_changed = true;
        Ok(Verdict::Forward)
    });
    let second = plugin("two", |hand| {
        emit(hand, "mid.emitted.two", None);
        (hand.message.payload, hand.payload_changed) = (Bytes::from_static(b"changed"), true);
        Ok(Verdict::Forward)
    });
    let settings = route("first", "in");
    node.add(RouteSettings { plugins: vec![vec![first, second]], to: templates(&["mid.a", "mid.b"]), ..settings })
        .await;
    node.add(RouteSettings { to: templates(&["out"]), ..route("second", "mid") }).await;
    let (mut mid, mut out) = (node.read("mid").await, node.read("out").await);
    node.publish("in.x", "m", &[]).await;
    let expected =
        [("mid.emitted.one", "new", 0), ("mid.emitted.two", "m", 1), ("mid.a", "changed", 2), ("mid.b", "changed", 2)];
    for (index, (to, payload, position)) in expected.into_iter().enumerate() {
        let message = mid.next().await;
        assert_eq!((message.subject.as_str(), &message.payload[..]), (to, payload.as_bytes()));
        assert_eq!((message.origin_subject.as_str(), message.hops), ("in.x", 1), "{to}");
        assert_eq!(message.id.as_str(), derived("m", "first", position, index), "{to}");
        let lineage = ["quipu-parent", "quipu-root", "quipu-path"].map(|name| said(&message, name));
        assert_eq!(lineage, ["m", "m", "first"], "{to}");
        assert_eq!(said(&message, "seen"), if position == 2 { "one" } else { "" }, "{to}");
        let further = out.next().await;
        assert_eq!(further.id.as_str(), derived(message.id.as_str(), "second", 0, 0));
        assert_eq!((further.origin_subject.as_str(), further.hops), ("in.x", 2));
        let lineage = ["quipu-parent", "quipu-root", "quipu-path"].map(|name| said(&further, name));
        assert_eq!(lineage, [message.id.as_str(), "m", "first second"]);
        assert_eq!(further.payload, message.payload);
    }
    let info = node.route("first");
    assert_eq!((info.attempts, info.forwarded, info.outputs), (1, 1, 4));
    assert_eq!(info.plugins.iter().map(|p| (p.calls, p.faults)).collect::<Vec<_>>(), [(1, 0), (1, 0)]);
    assert!(matches!(node.router.add(route("first", "in")).await, Err(RouteError::Exists(_))));
    assert!(matches!(node.router.add(route("third", "none")).await, Err(RouteError::Subscribe { .. })));
    node.stop().await;
}

#[tokio::test]
async fn a_condition_filters_or_sets_aside_and_its_errors_are_counted_apart() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open(directory.path());
    node.queues(&["in", "strict out.strict", "lenient out.lenient", "aside"]).await;
    let kind = || when(r#"headers["kind"] == "wanted""#);
    let strict = RouteSettings { when: kind(), to: templates(&["out.strict"]), ..route("strict", "in") };
    node.add(strict).await;
    let otherwise = templates(&["aside"]);
    let to = templates(&["out.lenient"]);
    node.add(RouteSettings { when: kind(), otherwise, to, ..route("lenient", "in") }).await;
    let mut outs = [node.read("strict").await, node.read("lenient").await, node.read("aside").await];
    node.publish("in", "refused", &[("kind", "other")]).await;
    node.publish("in", "undecided", &[]).await;
    node.publish("in", "taken", &[("kind", "wanted")]).await;
    for out in &mut outs[..2] {
        let message = out.next().await;
        assert_eq!((&message.payload[..], said(&message, "quipu-parent").as_str()), (&b"taken"[..], "taken"));
    }
    assert_eq!([outs[2].next().await.payload, outs[2].next().await.payload], ["refused", "undecided"]);
    let (strict, lenient) = (node.route("strict"), node.route("lenient"));
    assert_eq!((strict.filtered, strict.set_aside, strict.when_errors, strict.forwarded), (2, 0, 1, 1));
    assert_eq!((lenient.filtered, lenient.set_aside, lenient.when_errors, lenient.forwarded), (2, 2, 1, 1));
    let info = node.info("in").await;
    for subscription in &info.subscriptions {
        assert_eq!((subscription.counts.filtered, subscription.counts.acked), (2, 1), "{}", subscription.name);
    }
    assert_eq!((info.messages, node.info("strict").await.next_offset), (0, 1));
    node.stop().await;
}

#[tokio::test]
async fn what_was_emitted_stays_on_a_drop_and_vanishes_on_everything_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open(directory.path());
    node.queues(&["in", "out out.*"]).await;
    let act = plugin("act", |hand| {
        let what = String::from_utf8_lossy(&hand.message.payload).into_owned();
        if hand.attempt == 1 {
            emit(hand, "out.emitted", Some("emitted"));
        }
        match (what.as_str(), hand.attempt) {
            ("drop", _) => Ok(Verdict::Drop("why not".into())),
            ("retry", 1) => Ok(Verdict::Retry { delay_ms: 1, reason: "later".into() }),
            ("reject", _) => Ok(Verdict::Reject("no good".into())),
            ("fault", _) => Err(fault("boom")),
            _ => {
                hand.emitted.clear();
                Ok(Verdict::Forward)
            }
        }
    });
    let on_error = attempts(2, "dead");
    node.add(RouteSettings { plugins: vec![vec![act]], to: templates(&["out.on"]), on_error, ..route("r", "in") })
        .await;
    let (mut out, mut dead) = (node.read("out").await, node.read("dead").await);
    for what in ["reject", "fault"] {
        node.publish("in", what, &[]).await;
        assert_eq!(dead.next().await.payload, what);
    }
    for (what, expected) in [("drop", "out.emitted"), ("retry", "out.on"), ("end", "out.on")] {
        node.publish("in", what, &[]).await;
        assert_eq!(out.next().await.subject.as_str(), expected, "{what}");
    }
    assert_eq!((node.info("out").await.next_offset, node.info("dead").await.next_offset), (3, 2));
    let info = node.route("r");
    assert_eq!((info.dropped, info.dead_lettered, info.retried, info.forwarded, info.outputs), (1, 2, 2, 2, 3));
    node.stop().await;
}

#[tokio::test]
async fn the_last_route_verdict_takes_the_place_of_to() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open(directory.path());
    node.queues(&["in", "out out.*"]).await;
    let steer = |to: &'static [&'static str]| {
        move |hand: &mut Hand| match &hand.message.payload[..] {
            b"plain" => Ok(Verdict::Forward),
            _ => Ok(Verdict::Route(to.iter().map(|to| subject(to)).collect())),
        }
    };
    let plugins = vec![
        plugin("one", steer(&["out.one"])),
        plugin("two", steer(&["out.two", "out.three"])),
        plugin("three", |_| Ok(Verdict::Forward)),
    ];
    node.add(RouteSettings { plugins: vec![plugins], to: templates(&["out.to"]), ..route("r", "in") }).await;
    let mut out = node.read("out").await;
    node.publish("in", "steered", &[]).await;
    node.publish("in", "plain", &[]).await;
    assert_eq!(out.subjects(3).await, ["out.two", "out.three", "out.to"]);
    node.stop().await;
}

#[tokio::test]
async fn subjects_are_made_of_the_message_and_one_that_cannot_be_is_a_dead_letter() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open(directory.path());
    node.queues(&["in in.>", "out out.>"]).await;
    let to = templates(&["out.{subject.2}.{header.region}"]);
    node.add(RouteSettings { to, on_error: attempts(9, "dead"), ..route("r", "in") }).await;
    let (mut out, mut dead) = (node.read("out").await, node.read("dead").await);
    node.publish("in.eu.x", "m", &[("region", "north")]).await;
    assert_eq!(out.next().await.subject.as_str(), "out.eu.north");
    node.publish("in.eu.x", "n", &[]).await;
    let letter = dead.next().await;
    assert_eq!(said(&letter, "quipu-dead-attempts"), "1");
    let reason = "to: `out.{subject.2}.{header.region}`: the message has no header \"region\"";
    assert_eq!(said(&letter, "quipu-dead-reason"), reason);
    node.stop().await;
}

#[tokio::test]
async fn a_fault_costs_an_attempt_and_the_last_is_a_dead_letter_while_the_neighbour_goes_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open(directory.path());
    node.queues(&["in", "out"]).await;
    let (go, gate) = sync_channel::<()>(1);
    let (tell, mut seen) = mpsc::channel(8);
    let broken = plugin("broken", move |hand| {
        tell.try_send(hand.attempt).expect("room");
        if hand.attempt == 2 {
            gate.recv_timeout(PATIENCE).expect("the neighbour has gone on");
        }
        Err(fault("boom\nin line 7"))
    });
    let on_error = attempts(3, "then");
    node.add(RouteSettings { plugins: vec![vec![broken]], on_error, ..route("broken", "in") }).await;
    node.add(RouteSettings { to: templates(&["out"]), ..route("whole", "in") }).await;
    let (mut out, mut then) = (node.read("out").await, node.read("then").await);
    node.publish("in", "m", &[]).await;
    assert_eq!(out.next().await.payload, "m");
    go.send(()).expect("the plugin waits for it, or will");
    let letter = then.next().await;
    assert_eq!([seen.recv().await, seen.recv().await, seen.recv().await], [Some(1), Some(2), Some(3)]);
    let digest = Digest::of(b"broken").short();
    for (name, value) in [
        ("quipu-dead-route", "broken"),
        ("quipu-dead-plugin", &format!("broken@{digest}")),
        ("quipu-dead-fault", "fault"),
        ("quipu-dead-reason", "boom in line 7"),
        ("quipu-dead-trace", "at a | at b"),
        ("quipu-dead-attempts", "3"),
        ("quipu-dead-queue", "in"),
        ("quipu-dead-subscription", "route:broken"),
    ] {
        assert_eq!(said(&letter, name), value, "{name}");
    }
    assert_eq!((letter.id.as_str(), letter.subject.as_str(), &letter.payload[..]), ("m", "in", &b"m"[..]));
    let info = node.route("broken");
    assert_eq!((info.attempts, info.retried, info.dead_lettered, info.plugins[0].faults), (3, 2, 1, 3));
    assert_eq!(node.info("in").await.messages, 0);
    node.stop().await;
}

#[tokio::test]
async fn an_output_that_nothing_takes_costs_attempts_and_is_named_in_the_dead_letter() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open(directory.path());
    node.queues(&["in", "out"]).await;
    let on_error = attempts(2, "dead");
    node.add(RouteSettings { to: templates(&["out", "nowhere.x"]), on_error, ..route("r", "in") }).await;
    let mut dead = node.read("dead").await;
    node.publish("in", "m", &[]).await;
    let letter = dead.next().await;
    assert_eq!(said(&letter, "quipu-dead-reason"), "no queue or route takes `nowhere.x`");
    assert_eq!(said(&letter, "quipu-dead-attempts"), "2");
    assert_eq!(node.info("out").await.next_offset, 0);
    // What was refused is not counted as sent.
    let info = node.route("r");
    assert_eq!((info.attempts, info.forwarded, info.outputs, info.retried, info.dead_lettered), (2, 0, 0, 1, 1));
    node.stop().await;
}

#[tokio::test]
async fn a_message_ends_after_sixteen_hops() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open(directory.path());
    node.queues(&["loop"]).await;
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let count = plugin("count", move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Ok(Verdict::Forward)
    });
    let mut dead = node.read("dead").await;
    node.add(RouteSettings { plugins: vec![vec![count]], to: templates(&["loop"]), ..route("spin", "loop") }).await;
    node.publish("loop", "m", &[]).await;
    let letter = dead.next().await;
    assert_eq!((letter.hops, calls.load(Ordering::Relaxed)), (16, 16));
    let path = vec!["spin"; 16].join(" ");
    assert_eq!(said(&letter, "quipu-path"), path);
    assert_eq!(said(&letter, "quipu-dead-reason"), format!("more than 16 hops: {path} spin"));
    assert_eq!(said(&letter, "quipu-root"), "m");
    let info = node.info("loop").await;
    assert_eq!((info.messages, info.next_offset), (0, 17));
    node.stop().await;
}

#[tokio::test]
async fn an_unchanged_payload_is_not_copied_and_is_there_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open(directory.path());
    node.queues(&["in", "out out.*"]).await;
    let (tell, mut seen) = mpsc::channel(1);
    let look = plugin("look", move |hand| {
        tell.try_send(hand.message.payload.as_ptr() as usize).expect("room");
        emit(hand, "out.emitted", None);
        Ok(Verdict::Forward)
    });
    node.add(RouteSettings { plugins: vec![vec![look]], to: templates(&["out.a", "out.b"]), ..route("r", "in") }).await;
    let payload = Bytes::from(vec![7; 300_000]);
    let message = Message::new(MessageId::new("m").expect("an id"), subject("in"), payload.clone());
    node.publish_message(&message).await;
    let (sender, mut deliveries) = mpsc::channel(8);
    let sink = move |batch: Vec<Delivery>| batch.into_iter().for_each(|one| drop(sender.try_send(one)));
    let consumer = node.store.subscribe("out", "reader", None, Start::First, sink).await.expect("a consumer");
    consumer.credit(8).await.expect("a store");
    let place = seen.recv().await.expect("a call");
    for _ in 0..3 {
        let delivery = tokio::time::timeout(PATIENCE, deliveries.recv()).await.expect("in time").expect("a store");
        assert_eq!((delivery.stored.payload.as_ptr() as usize, delivery.stored.payload.len()), (place, 300_000));
    }
    drop(consumer);
    node.stop().await;
    let node = Node::open(directory.path());
    let mut out = node.read("out").await;
    for to in ["out.emitted", "out.a", "out.b"] {
        let message = out.next().await;
        assert_eq!(message.subject.as_str(), to);
        assert!(message.payload == payload, "{to}");
    }
    node.stop().await;
}

/// Emits one message, sends another, and says when it has been called so often.
fn copier(notify_at: usize, notify: mpsc::Sender<()>) -> RouteSettings {
    let mut calls = 0;
    let copy = plugin("copy", move |hand| {
        calls += 1;
        if calls == notify_at {
            notify.try_send(()).expect("room");
        }
        emit(hand, "side", None);
        Ok(Verdict::Forward)
    });
    RouteSettings { plugins: vec![vec![copy]], to: templates(&["out"]), ..route("copy", "in") }
}

#[tokio::test]
async fn each_message_takes_effect_once_however_often_the_router_stops() {
    const ROUNDS: [usize; 5] = [1, 2, 40, 119, 120];
    const MESSAGES: usize = 120 * ROUNDS.len();
    let directory = tempfile::tempdir().expect("a directory");
    for (round, notify_at) in ROUNDS.into_iter().enumerate() {
        let node = Node::open(directory.path());
        node.queues(&["in", "out", "side"]).await;
        let message = |n: usize| Message::new(MessageId::new(&n.to_string()).expect("an id"), subject("in"), vec![0]);
        let batch = (round * 120..(round + 1) * 120).map(|n| Published::new(&message(n), true)).collect();
        assert!(node.store.publish(batch).await.expect("a store").iter().all(Result::is_ok));
        let (notify, mut reached) = mpsc::channel(1);
        node.add(copier(notify_at, notify)).await;
        tokio::time::timeout(PATIENCE, reached.recv()).await.expect("in time").expect("called so often");
        node.stop().await;
    }
    let node = Node::open(directory.path());
    let (notify, _reached) = mpsc::channel(1);
    node.add(copier(0, notify)).await;
    for queue in ["out", "side"] {
        let mut reader = node.read(queue).await;
        let mut parents = Vec::new();
        for _ in 0..MESSAGES {
            parents.push(said(&reader.next().await, "quipu-parent").parse::<usize>().expect("a number"));
        }
        parents.sort_unstable();
        assert!(parents.into_iter().eq(0..MESSAGES), "{queue}");
        assert_eq!(node.info(queue).await.next_offset, MESSAGES as u64, "{queue}");
    }
    let info = node.info("in").await;
    assert_eq!((info.messages, info.subscriptions[0].counts.acked), (0, MESSAGES as u64));
    assert_eq!(info.subscriptions[0].counts.failed_attempts, 0);
    node.stop().await;
}

#[tokio::test]
async fn a_stopped_router_settles_what_it_finished_and_gives_the_rest_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open(directory.path());
    node.queues(&["in", "out"]).await;
    for n in 0..40 {
        node.publish("in", &n.to_string(), &[]).await;
    }
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let (go, gate) = sync_channel::<()>(0);
    let gate = Mutex::new(gate);
    let (tell, mut begun) = mpsc::channel(1);
    let slow = plugin("slow", move |_| {
        if counted.fetch_add(1, Ordering::Relaxed) == 0 {
            tell.try_send(()).expect("room");
            gate.lock().expect("no panic").recv_timeout(PATIENCE).expect("let go");
        }
        Ok(Verdict::Forward)
    });
    node.add(RouteSettings { plugins: vec![vec![slow]], to: templates(&["out"]), ..route("slow", "in") }).await;
    tokio::time::timeout(PATIENCE, begun.recv()).await.expect("in time").expect("a call");
    let stop = node.stop_router();
    let let_go = tokio::task::spawn_blocking(move || SyncSender::send(&go, ()).expect("the plugin waits"));
    tokio::join!(stop, async { let_go.await.expect("let go") });
    // Once this is durable, what the route sent before is too.
    node.publish("out", "last", &[]).await;
    let done = calls.load(Ordering::Relaxed) as u64;
    let info = node.info("in").await;
    let subscription = &info.subscriptions[0];
    assert_eq!((subscription.consumers, subscription.in_flight, subscription.parked), (0, 0, 0));
    assert_eq!((subscription.counts.acked, subscription.waiting), (done, 40 - done));
    assert_eq!(node.info("out").await.next_offset, done + 1);
    node.store.stop().await.expect("a clean stop");
}
