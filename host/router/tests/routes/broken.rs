//! Plugins that fail on everything, and what is told of every failure.

use std::sync::atomic::AtomicBool;

use quipu_router::{ChainSettings, OnBroken};

use super::*;

/// A route with a plugin that faults until it is told otherwise.
fn faulty(on_broken: OnBroken, works: &Arc<AtomicBool>) -> RouteSettings {
    let works = works.clone();
    let act = plugin("faulty", move |hand| match works.load(Ordering::Acquire) {
        true => Ok(Verdict::Forward),
        false => Err(fault(&format!("boom {}", hand.message.id))),
    });
    let on_error = OnError { backoff_ms: vec![3_600_000], ..attempts(5, "dead") };
    RouteSettings { plugins: vec![vec![act]], to: templates(&["out"]), on_broken, on_error, ..route("r", "in") }
}

async fn publish(node: &Node, count: usize) {
    for n in 0..count {
        node.publish("in", &n.to_string(), &[]).await;
    }
}

async fn until(is_so: impl AsyncFn() -> bool) {
    let wait = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("in time");
}

#[tokio::test]
async fn a_route_whose_plugin_fails_on_everything_stands_still_and_parks_nothing_more() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open(directory.path());
    node.queues(&["in", "out"]).await;
    publish(&node, 30).await;
    let works = Arc::new(AtomicBool::new(false));
    node.add(faulty(OnBroken::Hold, &works)).await;
    let subscription = || async { node.info("in").await.subscriptions.remove(0) };
    until(async || subscription().await.consumers == 0).await;
    let info = node.route("r");
    let digest = Digest::of(b"faulty").short();
    let reason = format!(
        "plugin 1 (faulty@{digest}) failed on 10 different messages in a row; the route stands still until another is \
         deployed or it is resumed; last: boom 9"
    );
    assert_eq!((info.state, info.state_reason), ("broken", Some(reason)));
    let now = subscription().await;
    assert_eq!((now.parked, now.in_flight, now.waiting), (9, 0, 21));
    assert_eq!((now.counts.dead_lettered, info.attempts, info.retried), (0, 10, 9));
    // It is tried again, and is no better.
    node.router.release("r").await.expect("released");
    until(async || subscription().await.consumers == 0 && node.route("r").state == "broken").await;
    assert_eq!((subscription().await.parked, node.route("r").attempts), (18, 20));
    // Another one is deployed.
    let chain = ChainSettings { to: templates(&["out"]), ..ChainSettings::new(vec![vec![]]) };
    let swapped = node.router.replace_chain("r", chain).await.expect("a swap");
    assert_eq!((swapped.served[0].faults, swapped.served[0].calls), (20, 20));
    assert_eq!((node.route("r").state, node.route("r").state_reason), ("running", None));
    until(async || node.route("r").forwarded == 12).await;
    node.stop().await;
}

#[tokio::test]
async fn one_message_that_fails_for_ever_or_a_verdict_in_between_breaks_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open(directory.path());
    node.queues(&["in", "out"]).await;
    let act = plugin("act", |hand| match hand.message.payload.ends_with(b"9") {
        true => Ok(Verdict::Drop("nine".into())),
        false => Err(fault("boom")),
    });
    let (on_error, broken_after) = (attempts(40, "dead"), 3);
    node.add(RouteSettings { plugins: vec![vec![act]], on_error, broken_after, ..route("r", "in") }).await;
    for id in ["1", "2", "9", "3", "4", "19", "5"] {
        node.publish("in", id, &[]).await;
        until(async || node.info("in").await.messages == 0).await;
    }
    let info = node.route("r");
    assert_eq!((info.dropped, info.dead_lettered, info.attempts, info.state), (2, 5, 202, "running"));
    node.publish("in", "6", &[]).await;
    until(async || node.info("in").await.messages == 0).await;
    node.publish("in", "7", &[]).await;
    until(async || node.route("r").state == "broken").await;
    assert_eq!(node.info("in").await.messages, 1);
    node.stop().await;
}

#[tokio::test]
async fn a_broken_plugin_can_be_left_out_and_then_its_messages_say_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open(directory.path());
    node.queues(&["in", "out"]).await;
    publish(&node, 20).await;
    let works = Arc::new(AtomicBool::new(false));
    let mut settings = faulty(OnBroken::Bypass, &works);
    settings.plugins[0].push(plugin("next", |_| Ok(Verdict::Forward)));
    node.add(settings).await;
    let mut out = node.read("out").await;
    let digest = Digest::of(b"faulty").short();
    for n in 9..20 {
        let message = out.next().await;
        assert_eq!(
            (said(&message, "quipu-parent"), said(&message, "quipu-bypassed")),
            (n.to_string(), format!("faulty@{digest}"))
        );
    }
    let info = node.route("r");
    assert_eq!(
        (info.state, info.on_broken, info.plugins[0].bypassed, info.plugins[1].calls),
        ("broken", "bypass", 11, 11)
    );
    assert!(info.state_reason.expect("a reason").contains("; it is left out; last: boom 9"));
    // Mended, it is used again once it is said so.
    works.store(true, Ordering::Release);
    node.router.release("r").await.expect("released");
    node.publish("in", "last", &[]).await;
    let message = out.next().await;
    assert_eq!((said(&message, "quipu-parent"), said(&message, "quipu-bypassed")), ("last".into(), String::new()));
    assert_eq!((node.route("r").state, node.info("in").await.subscriptions[0].parked), ("running", 9));
    node.stop().await;
}

#[tokio::test]
async fn what_a_broken_plugin_gets_can_be_dead_lettered_without_an_attempt() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open(directory.path());
    node.queues(&["in", "out"]).await;
    publish(&node, 20).await;
    let works = Arc::new(AtomicBool::new(false));
    let settings = RouteSettings { broken_after: 3, ..faulty(OnBroken::DeadLetter, &works) };
    node.add(settings).await;
    let mut dead = node.read("dead").await;
    let digest = Digest::of(b"faulty").short();
    for n in 2..20 {
        let letter = dead.next().await;
        assert_eq!(
            (letter.id.as_str(), said(&letter, "quipu-dead-plugin")),
            (&*n.to_string(), format!("faulty@{digest}"))
        );
        let reason = format!("plugin faulty@{digest} is broken: it fails on everything");
        assert_eq!((said(&letter, "quipu-dead-reason"), said(&letter, "quipu-dead-attempts")), (reason, "1".into()));
    }
    let info = node.route("r");
    assert_eq!((info.state, info.plugins[0].calls, info.retried, info.dead_lettered), ("broken", 3, 2, 18));
    node.stop().await;
}

#[tokio::test]
async fn a_failure_is_told_in_the_dead_letter_in_the_table_of_traps_and_in_the_counts() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open(directory.path());
    node.queues(&["in", "out"]).await;
    let first = plugin("first", |_| Ok(Verdict::Forward));
    let second = plugin("second", |hand| match &hand.message.payload[..] {
        b"reject" => Ok(Verdict::Reject("no good".into())),
        b"drop" => Ok(Verdict::Drop("why not".into())),
        b"route" => Ok(Verdict::Route(vec![subject("out")])),
        b"deadline" => Err(Fault { kind: FaultKind::Deadline, ..fault("too slow") }),
        _ => Err(fault("boom")),
    });
    node.add(RouteSettings { plugins: vec![vec![first, second]], on_error: attempts(2, "dead"), ..route("r", "in") })
        .await;
    let mut dead = node.read("dead").await;
    for what in ["drop", "route", "boom"] {
        node.publish("in", what, &[]).await;
    }
    let letter = dead.next().await;
    let [one, two] = [b"first" as &[u8], b"second"].map(|name| Digest::of(name).to_string());
    let traps = node.router.traps();
    let [trap] = &traps[..] else { panic!("{traps:?}") };
    let fingerprint = said(&letter, "quipu-dead-fingerprint");
    assert_eq!((&trap.fingerprint, fingerprint.len()), (&fingerprint, 12));
    assert_eq!((trap.plugin.as_str(), trap.kind, trap.text.as_str(), trap.count), ("second", "fault", "boom", 2));
    assert_eq!((&trap.first_digest, &trap.last_digest, trap.trace.len()), (&two, &two, 2));
    assert!(trap.first_ms <= trap.last_ms && trap.route == "r");
    let capsule: serde_json::Value = serde_json::from_str(&said(&letter, "quipu-dead-capsule")).expect("JSON");
    assert_eq!(
        (&capsule["at"], &capsule["of"], &capsule["attempt"], &capsule["route"]),
        (&2.into(), &2.into(), &2.into(), &"r".into())
    );
    assert!(
        capsule["clock"].as_u64() == Some(trap.last_ms) && capsule["seed"].as_u64().is_some_and(|seed| seed < 1 << 53)
    );
    let chain: Vec<&str> = capsule["chain"].as_array().expect("a list").iter().filter_map(|one| one.as_str()).collect();
    assert!(chain[0].starts_with(&format!("first@{}/", &one[..16])), "{chain:?}");
    assert!(chain[1].starts_with(&format!("second@{}/", &two[..16])), "{chain:?}");
    node.publish("in", "reject", &[]).await;
    let letter = dead.next().await;
    let plugin = format!("second@{}", &two[..8]);
    assert_eq!((said(&letter, "quipu-dead-plugin"), said(&letter, "quipu-dead-fingerprint")), (plugin, String::new()));
    assert!(said(&letter, "quipu-dead-capsule").contains("\"at\":2"));
    node.publish("in", "deadline", &[]).await;
    assert_ne!(said(&dead.next().await, "quipu-dead-fingerprint"), fingerprint);
    let info = node.route("r");
    let (first, second) = (&info.plugins[0], &info.plugins[1]);
    assert_eq!((first.calls, first.verdicts.forward, first.faults, first.instances), (7, 7, 0, 1));
    assert_eq!((first.memory_bytes, first.memory_peak_bytes, first.instances_started), (100, 200, 1));
    let said = second.verdicts;
    assert_eq!((said.forward, said.route, said.drop, said.retry, said.reject, second.faults), (0, 1, 1, 0, 1, 4));
    let by: Vec<_> = second.faults_by.iter().map(|(code, count)| (*code, *count)).collect();
    assert_eq!(by, [("deadline", 2), ("fault", 2)]);
    assert_eq!((second.time.buckets.iter().sum::<u64>(), node.router.traps().len()), (7, 2));
    assert!(second.time.max > 0 && second.time.quantile(0.5) <= second.time.max);
    node.stop().await;
}

#[tokio::test]
async fn a_message_for_which_there_is_no_instance_waits_and_is_no_failure() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open(directory.path());
    node.queues(&["in", "out"]).await;
    let mut calls = 0;
    let full = plugin("full", move |hand| {
        calls += 1;
        assert_eq!(hand.attempt, 1);
        match calls {
            1 => Err(Fault { kind: FaultKind::Exhausted, ..fault("no room") }),
            _ => Ok(Verdict::Forward),
        }
    });
    let settings = RouteSettings { plugins: vec![vec![full]], to: templates(&["out"]), ..route("r", "in") };
    node.add(RouteSettings { broken_after: 1, ..settings }).await;
    node.publish("in", "m", &[]).await;
    assert_eq!(said(&node.read("out").await.next().await, "quipu-parent"), "m");
    until(async || node.route("r").forwarded == 1).await;
    let info = node.route("r");
    assert_eq!((info.held, info.retried, info.dead_lettered, info.state), (1, 0, 0, "running"));
    assert_eq!(info.plugins[0].faults_by.get("exhausted"), Some(&1));
    node.stop().await;
}
