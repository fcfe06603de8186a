//! Routes with several lanes: order, and what happens where a destination is full or messages are large.

use std::collections::{BTreeMap, HashSet};
use std::sync::Condvar;

use quipu_protocol::Key;
use quipu_queue::{Mode, QueueLimits};

use super::*;

/// The nth message, with the key's name and `n` as its id.
fn keyed(key: &str, n: usize) -> Message {
    let id = MessageId::new(&format!("{key}-{n}")).expect("an id");
    let payload = format!("{key}-{n}");
    let mut message = Message::new(id, subject("in"), payload);
    message.key = Some(Key::new(key.to_owned()).expect("a key"));
    message
}

fn keyless(n: usize) -> Message {
    let mut message = keyed("none", n);
    message.key = None;
    message
}

async fn publish(node: &Node, messages: impl IntoIterator<Item = Message>) {
    let published = messages.into_iter().map(|message| Published::new(&message, true)).collect();
    assert!(node.store.publish(published).await.expect("a store").iter().all(Result::is_ok));
}

/// So many lanes with this plugin.
fn lanes<F>(count: usize, act: impl Fn() -> F) -> Vec<Vec<Box<dyn Plugin>>>
where
    F: FnMut(&mut Hand) -> Result<Verdict, Fault> + Send + 'static,
{
    (0..count).map(|_| vec![plugin("act", act())]).collect()
}

/// What came out, by the part before the dash.
async fn by_key(out: &mut Reader, count: usize) -> BTreeMap<String, Vec<usize>> {
    let mut seen: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for _ in 0..count {
        let text = String::from_utf8(out.next().await.payload.to_vec()).expect("text");
        let (key, n) = text.split_once('-').expect("a dash");
        seen.entry(key.into()).or_default().push(n.parse().expect("a number"));
    }
    seen
}

#[tokio::test]
async fn a_key_in_backoff_keeps_its_order_while_the_others_go_on() {
    const KEYS: usize = 8;
    const EACH: usize = 40;
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open_with(directory.path(), 4);
    node.queues(&["in", "out"]).await;
    let others = Arc::new(AtomicUsize::new(0));
    let plugins = lanes(4, || {
        let others = others.clone();
        move |hand: &mut Hand| match &hand.message.payload[..] {
            // Until all others are through.
            b"k3-5" if others.load(Ordering::Relaxed) < (KEYS - 1) * EACH => Err(fault("not yet")),
            payload => {
                others.fetch_add(usize::from(!payload.starts_with(b"k3")), Ordering::Relaxed);
                Ok(Verdict::Forward)
            }
        }
    });
    let on_error = OnError { backoff_ms: vec![1], ..attempts(u32::MAX, "dead") };
    node.add(RouteSettings { plugins, to: templates(&["out"]), on_error, ..route("r", "in") }).await;
    publish(&node, (0..EACH).flat_map(|n| (0..KEYS).map(move |k| keyed(&format!("k{k}"), n)))).await;
    let mut out = node.read("out").await;
    let seen = by_key(&mut out, KEYS * EACH).await;
    assert_eq!(seen.len(), KEYS);
    for (key, order) in seen {
        assert!(order.into_iter().eq(0..EACH), "{key}");
    }
    let (from, to) = (node.info("in").await, node.info("out").await);
    assert_eq!((from.messages, to.next_offset), (0, (KEYS * EACH) as u64));
    let counts = &from.subscriptions[0].counts;
    let info = node.route("r");
    assert_eq!((info.forwarded, info.dead_lettered, counts.acked), (to.next_offset, 0, to.next_offset));
    assert!(info.retried > 0);
    assert_eq!((info.parallel, info.order), (4, "key"));
    // Summed over the lanes; what came back unbegun was not called.
    assert_eq!((info.plugins.len(), info.plugins[0].calls), (1, info.attempts));
    assert_eq!(info.plugins[0].faults, info.retried);
    assert_eq!(info.attempts, info.forwarded + info.retried);
    node.stop().await;
}

#[tokio::test]
async fn messages_without_a_key_stay_in_order_in_one_lane() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open_with(directory.path(), 4);
    node.queues(&["in", "out"]).await;
    let plugins = lanes(4, || |_| Ok(Verdict::Forward));
    node.add(RouteSettings { plugins, to: templates(&["out"]), ..route("r", "in") }).await;
    publish(&node, (0..300).map(keyless)).await;
    let mut out = node.read("out").await;
    assert!(by_key(&mut out, 300).await["none"].iter().copied().eq(0..300));
    node.stop().await;
}

#[tokio::test]
async fn without_order_messages_run_side_by_side() {
    let directory = tempfile::tempdir().expect("a directory");
    // No route holds all of them.
    let node = Node::open_with(directory.path(), 4);
    node.queues(&["in", "out"]).await;
    let inside = Arc::new((Mutex::new(0), Condvar::new()));
    let plugins = lanes(3, || {
        let inside = inside.clone();
        move |_| {
            let (count, changed) = &*inside;
            let mut count = count.lock().expect("no panic");
            *count += 1;
            changed.notify_all();
            let waited = changed.wait_timeout_while(count, PATIENCE, |count| *count < 3).expect("no panic");
            if waited.1.timed_out() { Err(fault("alone")) } else { Ok(Verdict::Forward) }
        }
    });
    let settings = RouteSettings { plugins, order: Order::None, to: templates(&["out"]), ..route("r", "in") };
    node.add(settings).await;
    publish(&node, (0..3).map(|n| keyed("same", n))).await;
    let mut out = node.read("out").await;
    let mut seen = by_key(&mut out, 3).await.remove("same").expect("they came");
    seen.sort_unstable();
    assert_eq!((seen, node.route("r").order), (vec![0, 1, 2], "none"));
    assert_eq!(node.info("in").await.subscriptions[0].mode, "shared");
    node.stop().await;
}

#[tokio::test]
async fn a_full_destination_is_waited_for_and_costs_neither_attempts_nor_order() {
    const KEYS: usize = 4;
    const EACH: usize = 10;
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open_with(directory.path(), 2);
    node.queues(&["in"]).await;
    let limits = QueueLimits { messages: Some(3), ..QueueLimits::default() };
    let narrow = QueueSettings { limits, ..QueueSettings::new(subject("out")) };
    node.store.define_queue(narrow).await.expect("a store").expect("a queue");
    let (tell, mut again) = mpsc::channel(1);
    let begun = Arc::new(Mutex::new(HashSet::new()));
    let plugins = lanes(2, || {
        let (tell, begun) = (tell.clone(), begun.clone());
        move |hand: &mut Hand| {
            if !begun.lock().expect("no panic").insert(hand.message.id.clone()) {
                // Once is enough.
                tell.try_send(()).ok();
            }
            assert_eq!(hand.attempt, 1);
            Ok(Verdict::Forward)
        }
    });
    node.add(RouteSettings { plugins, to: templates(&["out"]), ..route("r", "in") }).await;
    publish(&node, (0..EACH).flat_map(|n| (0..KEYS).map(move |k| keyed(&format!("k{k}"), n)))).await;
    tokio::time::timeout(PATIENCE, again.recv()).await.expect("in time").expect("tried again");
    let info = node.route("r");
    assert_eq!((info.waiting_for.as_deref(), info.forwarded), (Some("out"), 3));
    assert!(info.held > 0);
    let mut out = node.read("out").await;
    for (key, order) in by_key(&mut out, KEYS * EACH).await {
        assert!(order.into_iter().eq(0..EACH), "{key}");
    }
    let info = node.route("r");
    assert_eq!((info.forwarded, info.retried, info.dead_lettered), ((KEYS * EACH) as u64, 0, 0));
    assert_eq!(node.info("in").await.subscriptions[0].counts.failed_attempts, 0);
    node.stop().await;
}

#[tokio::test]
async fn a_lone_message_is_tried_until_there_is_room() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open(directory.path());
    node.queues(&["in"]).await;
    let limits = QueueLimits { messages: Some(1), ..QueueLimits::default() };
    let narrow = QueueSettings { limits, ..QueueSettings::new(subject("out")) };
    node.store.define_queue(narrow).await.expect("a store").expect("a queue");
    node.publish("out", "before", &[]).await;
    let (tell, mut tried) = mpsc::channel(64);
    let plugins = lanes(1, || {
        let tell = tell.clone();
        move |_: &mut Hand| {
            tell.try_send(()).expect("room");
            Ok(Verdict::Forward)
        }
    });
    node.add(RouteSettings { plugins, to: templates(&["out"]), ..route("r", "in") }).await;
    node.publish("in", "m", &[]).await;
    for _ in 0..4 {
        tokio::time::timeout(PATIENCE, tried.recv()).await.expect("in time").expect("tried again");
    }
    let mut out = node.read("out").await;
    assert_eq!([out.next().await.payload, out.next().await.payload], ["before", "m"]);
    node.stop().await;
}

#[tokio::test]
async fn a_route_holds_no_more_than_eight_mebibytes() {
    const COUNT: usize = 40;
    const BYTES: usize = 400_000;
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open(directory.path());
    node.queues(&["in", "out"]).await;
    let (go, gate) = sync_channel::<()>(1);
    let mut gate = Some(gate);
    let (tell, mut begun) = mpsc::channel(1);
    let slow = plugin("slow", move |_| {
        if let Some(gate) = gate.take() {
            tell.try_send(()).expect("room");
            gate.recv_timeout(PATIENCE).expect("let go");
        }
        Ok(Verdict::Forward)
    });
    node.add(RouteSettings { plugins: vec![vec![slow]], to: templates(&["out"]), ..route("slow", "in") }).await;
    for n in 0..COUNT {
        let mut message = keyed(&format!("k{n}"), n);
        message.payload = vec![7; BYTES].into();
        node.publish_message(&message).await;
    }
    tokio::time::timeout(PATIENCE, begun.recv()).await.expect("in time").expect("a call");
    let most = (8_usize << 20).div_ceil(BYTES) as u64;
    let subscription = node.info("in").await.subscriptions.remove(0);
    assert!((1..=most).contains(&subscription.in_flight), "{} of {most}", subscription.in_flight);
    go.send(()).expect("the plugin waits");
    let mut out = node.read("out").await;
    for _ in 0..COUNT {
        assert_eq!(out.next().await.payload.len(), BYTES);
    }
    node.stop().await;
}

#[tokio::test]
async fn a_subscription_made_as_shared_stays_so_and_the_route_runs_all_the_same() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open(directory.path());
    node.queues(&["in", "out"]).await;
    let before = node.store.subscribe("in", "route:r", Some(Mode::Shared), Start::First, drop).await;
    drop(before.expect("a consumer"));
    let plugins = lanes(2, || {
        |hand: &mut Hand| match hand.attempt {
            1 => Err(fault("once")),
            _ => Ok(Verdict::Forward),
        }
    });
    // All of them fault at first.
    let (on_error, broken_after) = (attempts(2, "dead"), 1_000);
    node.add(RouteSettings { plugins, to: templates(&["out"]), on_error, broken_after, ..route("r", "in") }).await;
    publish(&node, (0..20).map(|n| keyed("k", n))).await;
    let mut out = node.read("out").await;
    let seen: HashSet<usize> = by_key(&mut out, 20).await.remove("k").expect("they came").into_iter().collect();
    assert_eq!((seen.len(), node.route("r").retried), (20, 20));
    assert_eq!(node.info("in").await.subscriptions[0].mode, "shared");
    let without_lanes = RouteSettings { plugins: Vec::new(), ..route("none", "in") };
    assert!(matches!(node.router.add(without_lanes).await, Err(RouteError::Lanes { lanes: 0, .. })));
    node.stop().await;
}

#[tokio::test]
async fn a_route_whose_every_lane_is_stuck_leaves_a_worker_for_its_neighbour() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open_with(directory.path(), 3);
    node.queues(&["in", "out"]).await;
    let stuck = Arc::new((Mutex::new((0, false)), Condvar::new()));
    let plugins = lanes(8, || {
        let stuck = stuck.clone();
        move |_| {
            let (state, changed) = &*stuck;
            let mut state = state.lock().expect("no panic");
            state.0 += 1;
            let waited = changed.wait_timeout_while(state, PATIENCE, |state| !state.1).expect("no panic");
            if waited.1.timed_out() { Err(fault("the neighbour never came")) } else { Ok(Verdict::Forward) }
        }
    });
    node.add(RouteSettings { plugins, order: Order::None, ..route("stuck", "in") }).await;
    publish(&node, (0..100).map(keyless)).await;
    let is_stuck = async {
        while stuck.0.lock().expect("no panic").0 < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, is_stuck).await.expect("in time");
    node.add(RouteSettings { to: templates(&["out"]), ..route("neighbour", "in") }).await;
    let mut out = node.read("out").await;
    assert!(by_key(&mut out, 100).await["none"].iter().copied().eq(0..100));
    let in_hand = {
        let mut state = stuck.0.lock().expect("no panic");
        state.1 = true;
        stuck.1.notify_all();
        state.0
    };
    assert_eq!(in_hand, 2, "of three workers");
    let done = async {
        while node.route("stuck").forwarded < 100 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, done).await.expect("in time");
    assert!(node.route("stuck").busy_ns > 0);
    node.stop().await;
}
