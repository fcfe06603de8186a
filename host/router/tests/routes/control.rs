//! Routes that are changed while they run: another chain, standing still, going on, and their end.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use quipu_protocol::Key;
use quipu_router::{ChainSettings, Swapped};

use super::*;

/// A plugin that says which version it is.
fn version(n: usize) -> Box<dyn Plugin> {
    let digest = Digest::of(&n.to_le_bytes());
    let act = move |hand: &mut Hand| {
        hand.message.headers.set("by", &n.to_string()).expect("room");
        hand.header_changed = true;
        Ok(Verdict::Forward)
    };
    Box::new(Fake { name: "version", digest, act })
}

fn chain(n: usize, lanes: usize) -> ChainSettings {
    let plugins = (0..lanes).map(|_| vec![version(n)]).collect();
    ChainSettings { to: templates(&["out"]), ..ChainSettings::new(plugins) }
}

fn first(name: &str, lanes: usize) -> RouteSettings {
    let ChainSettings { plugins, to, .. } = chain(0, lanes);
    RouteSettings { plugins, to, ..route(name, "in") }
}

async fn publish(node: &Node, n: u64, key: &str) {
    let mut message = Message::new(MessageId::new(&n.to_string()).expect("an id"), subject("in"), n.to_string());
    message.key = Some(Key::new(key.to_owned()).expect("a key"));
    node.publish_message(&message).await;
}

fn number(message: &Message, header: &str) -> u64 {
    said(message, header).parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaps_under_load_lose_nothing_double_nothing_and_keep_the_order_of_keys() {
    const SWAPS: usize = 60;
    const LANES: usize = 3;
    let directory = tempfile::tempdir().expect("a directory");
    let node = Arc::new(Node::open_with(directory.path(), 2));
    node.queues(&["in", "out"]).await;
    node.add(first("r", LANES)).await;
    let done = Arc::new(AtomicBool::new(false));
    let (publisher, stop) = (node.clone(), done.clone());
    let load = tokio::spawn(async move {
        let mut n = 0;
        while !stop.load(Ordering::Acquire) {
            publish(&publisher, n, &format!("k{}", n % 7)).await;
            n += 1;
        }
        n
    });
    let mut swaps: Vec<Swapped> = Vec::new();
    for n in 1..=SWAPS {
        swaps.push(node.router.replace_chain("r", chain(n, LANES)).await.expect("a swap"));
    }
    done.store(true, Ordering::Release);
    let published = load.await.expect("a publisher");
    for (n, swap) in swaps.iter().enumerate() {
        let digest = |n: usize| vec![Digest::of(&n.to_le_bytes())];
        assert_eq!((&swap.before, &swap.serving), (&digest(n), &digest(n + 1)));
    }
    assert!(swaps.is_sorted_by_key(|swap| swap.offset));
    let mut out = node.read("out").await;
    let mut keys: BTreeMap<u64, Vec<(u64, u64)>> = BTreeMap::new();
    for _ in 0..published {
        let message = out.next().await;
        let parent = number(&message, "quipu-parent");
        keys.entry(parent % 7).or_default().push((parent, number(&message, "by")));
    }
    for (key, seen) in keys {
        assert!(seen.iter().map(|(parent, _)| *parent).eq((key..published).step_by(7)), "key {key}");
        // Nothing of an older version behind a newer one.
        assert!(seen.is_sorted_by_key(|(_, by)| *by), "key {key}");
        for (parent, by) in seen {
            let began = |n: u64| swaps[usize::try_from(n).expect("small")].offset.0;
            assert!(by == SWAPS as u64 || parent < began(by), "{parent} by {by} from {} on", began(by));
        }
    }
    let (from, to) = (node.info("in").await, node.info("out").await);
    assert_eq!((from.messages, to.next_offset), (0, published));
    let (info, served) = (node.route("r"), swaps.iter().map(|swap| swap.served[0].calls).sum::<u64>());
    assert_eq!((info.forwarded, info.attempts, served + info.plugins[0].calls), (published, published, published));
    assert_eq!(*info.plugins[0].digest, swaps[SWAPS - 1].serving[0].to_string());
    node.stop_router().await;
    node.store.stop().await.expect("a clean stop");
}

#[tokio::test]
async fn a_swap_goes_on_though_nobody_waits_for_it_and_takes_conditions_and_subjects_along() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open(directory.path());
    node.queues(&["in", "out", "other"]).await;
    node.add(first("r", 2)).await;
    let settings = ChainSettings { to: templates(&["other"]), when: when("id != 'm'"), ..chain(1, 2) };
    let mut swap = Box::pin(node.router.replace_chain("r", settings));
    tokio::select! {
        biased;
        _ = &mut swap => panic!("it takes a moment"),
        () = std::future::ready(()) => {}
    }
    drop(swap);
    // One after the other, so this comes after it.
    let swapped = node.router.replace_chain("r", chain(2, 2)).await.expect("a swap");
    assert_eq!(swapped.before, [Digest::of(&1_usize.to_le_bytes())]);
    let wrong = node.router.replace_chain("r", chain(3, 1)).await.expect_err("one lane");
    assert_eq!(wrong.to_string(), "route \"r\" has 2 lanes, not 1; remove it and add it to change that");
    let settings = ChainSettings { to: templates(&["other"]), when: when("id != 'm'"), ..chain(4, 2) };
    assert_eq!(node.router.replace_chain("r", settings).await.expect("a swap").drained, 0);
    node.publish("in", "m", &[]).await;
    node.publish("in", "n", &[]).await;
    let mut other = node.read("other").await;
    let message = other.next().await;
    assert_eq!((said(&message, "quipu-parent"), said(&message, "by")), ("n".into(), "4".into()));
    let info = node.route("r");
    assert_eq!((info.filtered, info.when.as_deref(), info.to), (1, Some("id != 'm'"), vec!["other".to_owned()]));
    node.stop().await;
}

#[tokio::test]
async fn a_swap_waits_for_the_message_in_hand_and_settles_what_was_finished() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open(directory.path());
    node.queues(&["in", "out"]).await;
    let (go, gate) = sync_channel::<()>(0);
    let (tell, mut begun) = mpsc::channel(1);
    let slow = plugin("slow", move |hand| {
        if &hand.message.payload[..] == b"2" {
            tell.try_send(()).expect("room");
            gate.recv_timeout(PATIENCE).expect("let go");
        }
        Ok(Verdict::Forward)
    });
    for n in 0..6 {
        node.publish("in", &n.to_string(), &[]).await;
    }
    node.add(RouteSettings { plugins: vec![vec![slow]], to: templates(&["out"]), ..route("r", "in") }).await;
    tokio::time::timeout(PATIENCE, begun.recv()).await.expect("in time").expect("a call");
    let swap = node.router.replace_chain("r", chain(7, 1));
    let let_go = async {
        // The swap is asked for first.
        tokio::task::yield_now().await;
        tokio::task::spawn_blocking(move || SyncSender::send(&go, ()).expect("the plugin waits")).await.expect("sent");
    };
    let (swapped, ()) = tokio::join!(swap, let_go);
    let swapped = swapped.expect("a swap");
    let mut out = node.read("out").await;
    for n in 0..6 {
        let message = out.next().await;
        assert_eq!(number(&message, "quipu-parent"), n);
        assert_eq!(said(&message, "by"), if n < swapped.offset.0 { "" } else { "7" }, "{n}");
    }
    assert!((3..=6).contains(&swapped.offset.0), "{swapped:?}");
    assert!(swapped.drained <= swapped.offset.0, "{swapped:?}");
    assert_eq!(swapped.served[0].calls, swapped.offset.0);
    node.stop().await;
}

#[tokio::test]
async fn a_held_route_has_its_subscription_and_takes_nothing_until_it_is_released() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open(directory.path());
    node.queues(&["in", "out"]).await;
    let held = Some("plugin `version` is missing".to_owned());
    node.add(RouteSettings { held, plugins: vec![Vec::new()], ..first("r", 1) }).await;
    for n in 0..5 {
        publish(&node, n, "k").await;
    }
    let info = node.route("r");
    assert_eq!((info.state, info.state_reason.as_deref()), ("held", Some("plugin `version` is missing")));
    let subscription = node.info("in").await.subscriptions.remove(0);
    assert_eq!((subscription.name.as_str(), subscription.consumers, subscription.waiting), ("route:r", 0, 5));
    // It would run without it.
    let refused = node.router.release("r").await.expect_err("no chain");
    assert_eq!(refused.to_string(), "route \"r\" lacks its plugins: plugin `version` is missing");
    node.router.hold_without_chain("r", "it still is").await.expect("held");
    assert_eq!(node.router.lacks_chain("r").as_deref(), Some("it still is"));
    node.router.hold("r", "plugin `version` is missing").await.expect("held");
    assert!(matches!(node.router.release("r").await, Err(RouteError::LacksChain { .. })), "another reason, no chain");
    assert_eq!((node.route("r").state, node.info("in").await.messages), ("held", 5));
    // It stays held with a new chain.
    node.router.replace_chain("r", chain(1, 1)).await.expect("a swap");
    assert_eq!((node.route("r").state, node.info("in").await.messages), ("held", 5));
    node.router.release("r").await.expect("released");
    let mut out = node.read("out").await;
    for n in 0..5 {
        assert_eq!(number(&out.next().await, "quipu-parent"), n);
    }
    let info = node.route("r");
    assert_eq!((info.state, info.state_reason), ("running", None));
    node.router.set_paused("r", true).expect("a route");
    assert_eq!(node.route("r").state, "paused");
    node.stop().await;
}

#[tokio::test]
async fn holding_finishes_what_is_in_hand_and_gives_back_the_rest_without_an_attempt() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open(directory.path());
    node.queues(&["in", "out"]).await;
    let (go, gate) = sync_channel::<()>(0);
    let mut gate = Some(gate);
    let (tell, mut begun) = mpsc::channel(1);
    let slow = plugin("slow", move |_| {
        if let Some(gate) = gate.take() {
            tell.try_send(()).expect("room");
            gate.recv_timeout(PATIENCE).expect("let go");
        }
        Ok(Verdict::Forward)
    });
    for n in 0..200 {
        publish(&node, n, &format!("k{}", n % 3)).await;
    }
    node.add(RouteSettings { plugins: vec![vec![slow]], to: templates(&["out"]), ..route("r", "in") }).await;
    tokio::time::timeout(PATIENCE, begun.recv()).await.expect("in time").expect("a call");
    let hold = node.router.hold("r", "to look at it");
    let let_go = async {
        while node.route("r").state != "held" {
            tokio::task::yield_now().await;
        }
        tokio::task::spawn_blocking(move || SyncSender::send(&go, ()).expect("the plugin waits")).await.expect("sent");
    };
    let (held, ()) = tokio::join!(hold, let_go);
    held.expect("held");
    let subscription = node.info("in").await.subscriptions.remove(0);
    assert_eq!((subscription.consumers, subscription.in_flight, subscription.parked), (0, 0, 0));
    let done = subscription.counts.acked;
    assert_eq!((subscription.waiting, node.info("out").await.next_offset), (200 - done, done));
    assert!((1..200).contains(&done), "{done}");
    for _ in 0..2 {
        node.router.release("r").await.expect("released");
        node.router.hold("r", "again").await.expect("held");
    }
    node.router.release("r").await.expect("released");
    let mut out = node.read("out").await;
    let mut last = BTreeMap::new();
    for _ in 0..200 {
        let n = number(&out.next().await, "quipu-parent");
        let before = last.insert(n % 3, n);
        assert_eq!(before.map_or(n % 3, |before| before + 3), n, "in order, none lost and none twice");
    }
    assert_eq!(node.info("in").await.subscriptions[0].counts.failed_attempts, 0);
    node.stop().await;
}

#[tokio::test]
async fn a_removed_route_leaves_its_subscription_and_can_be_added_with_other_lanes() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open(directory.path());
    node.queues(&["in", "out"]).await;
    node.add(first("r", 1)).await;
    let mut out = node.read("out").await;
    publish(&node, 0, "k").await;
    assert_eq!(number(&out.next().await, "quipu-parent"), 0);
    assert_eq!(node.router.remove("r").await.expect("removed").forwarded, 1);
    assert!(node.router.routes().is_empty());
    publish(&node, 1, "k").await;
    let subscription = node.info("in").await.subscriptions.remove(0);
    assert_eq!((subscription.consumers, subscription.waiting), (0, 1));
    for result in [node.router.hold("r", "").await, node.router.release("r").await, node.router.set_paused("r", true)] {
        assert!(matches!(result, Err(RouteError::Unknown(name)) if name == "r"));
    }
    assert!(matches!(node.router.remove("r").await, Err(RouteError::Unknown(_))));
    node.add(first("r", 4)).await;
    assert_eq!(number(&out.next().await, "quipu-parent"), 1);
    assert_eq!((node.route("r").parallel, node.route("r").state), (4, "running"));
    node.stop().await;
}

#[tokio::test]
async fn a_route_that_a_bug_has_stopped_is_named_and_can_be_removed_and_added_anew() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open(directory.path());
    node.queues(&["in", "out"]).await;
    let bug = plugin("bug", |_| panic!("a bug in the host"));
    node.add(RouteSettings { plugins: vec![vec![bug]], ..first("r", 1) }).await;
    publish(&node, 0, "k").await;
    let failed = async {
        while node.route("r").state != "failed" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, failed).await.expect("in time");
    let refused = node.router.replace_chain("r", chain(1, 1)).await.expect_err("it runs no more");
    assert_eq!(refused.to_string(), "route \"r\" has stopped; remove it and add it again");
    node.router.remove("r").await.expect("removed");
    node.add(first("r", 1)).await;
    assert_eq!(number(&node.read("out").await.next().await, "quipu-parent"), 0);
    node.stop().await;
}

#[tokio::test]
async fn a_route_hears_of_what_is_done_to_its_subscription() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open(directory.path());
    node.queues(&["in", "out"]).await;
    node.add(first("r", 2)).await;
    let mut out = node.read("out").await;
    let paused = |paused| node.store.set_paused("in", "route:r", paused);
    paused(true).await.expect("a store").expect("paused");
    let is = |state: &'static str| {
        let node = &node;
        async move {
            let wait = async {
                while node.route("r").state != state {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(PATIENCE, wait).await.expect("in time");
        }
    };
    is("paused").await;
    publish(&node, 0, "k").await;
    // It hears of it also when it comes later.
    node.router.remove("r").await.expect("removed");
    node.add(first("r", 2)).await;
    assert_eq!((node.route("r").state, node.info("in").await.messages), ("paused", 1));
    paused(false).await.expect("a store").expect("resumed");
    is("running").await;
    assert_eq!(number(&out.next().await, "quipu-parent"), 0);
    let removed = node.store.remove_subscription("in", "route:r").await;
    removed.expect("a store").expect("removed");
    is("held").await;
    publish(&node, 1, "k").await;
    assert!(node.route("r").state_reason.is_some_and(|reason| !reason.is_empty()));
    node.router.release("r").await.expect("released");
    assert_eq!((number(&out.next().await, "quipu-parent"), node.route("r").state), (1, "running"));
    node.stop().await;
}
