//! Inline routes: what they make of messages before anything is stored, and what they tell publishers.

use quipu_queue::{Output, Target};
use quipu_router::{Admission, Admitted, ChainSettings, Inline, InlineSettings, OnBroken, Refusal};

use super::*;

fn inline(name: &str, on: &str, plugins: Vec<Vec<Box<dyn Plugin>>>) -> InlineSettings {
    let on = vec![SubjectPattern::new(on).expect("a pattern")];
    InlineSettings { plugins, to: templates(&["out.{subject.2}"]), ..InlineSettings::new(name, on) }
}

fn message(id: &str) -> Message {
    Message::new(MessageId::new(id).expect("an id"), subject("in.x"), id.to_owned())
}

/// What the payload asks for.
fn act() -> Box<dyn Plugin> {
    plugin("act", |hand| match &hand.message.payload[..] {
        b"drop" => {
            emit(hand, "side", Some("emitted"));
            Ok(Verdict::Drop("why not".into()))
        }
        b"reject" => Ok(Verdict::Reject("no good".into())),
        b"later" => Ok(Verdict::Retry { delay_ms: 250, reason: "not now".into() }),
        b"sometime" => Ok(Verdict::Retry { delay_ms: 0, reason: "not now".into() }),
        b"fault" => Err(fault("boom")),
        b"route" => Ok(Verdict::Route(vec![subject("elsewhere")])),
        _ => Ok(Verdict::Forward),
    })
}

fn subjects(outputs: &[Output]) -> Vec<&str> {
    outputs.iter().map(|Output { target: Target::Subject(subject), .. }| subject.as_str()).collect()
}

async fn admit(inline_routes: &Inline, messages: Vec<Message>) -> Vec<Admitted> {
    inline_routes.ask(messages).next(inline_routes).await
}

async fn admit_one(node: &Node, id: &str) -> Admitted {
    admit(&node.router.inline(), vec![message(id)]).await.remove(0)
}

#[tokio::test]
async fn each_verdict_has_its_outputs_or_its_answer() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open(directory.path());
    let inline_routes = node.router.inline();
    assert!(!inline_routes.is_any() && !inline_routes.is_for(&subject("in.x")));
    let settings = inline("check", "in.*", vec![vec![act()]]);
    let otherwise = templates(&["aside"]);
    node.router
        .add_inline(InlineSettings { when: when("id != 'not-for-it'"), otherwise, ..settings })
        .expect("a route");
    assert!(inline_routes.is_for(&subject("in.x")) && !inline_routes.is_for(&subject("in.x.y")));
    let ids = ["plain", "drop", "reject", "later", "sometime", "fault", "route", "not-for-it"];
    let mut admitted = admit(&inline_routes, ids.map(message).to_vec()).await.into_iter();
    let mut next = || admitted.next().expect("one for each");
    let Ok(Admission { outputs, taken: true, dropped: false }) = next() else { panic!("forward") };
    assert_eq!((subjects(&outputs), &outputs[0].payload), (vec!["out.x"], &None));
    let output = Message::decode(outputs[0].header.clone(), Bytes::new()).expect("a message");
    assert_eq!(
        (output.id.as_str(), said(&output, "quipu-parent")),
        (&*derived("plain", "check", 1, 0), "plain".into())
    );
    let Ok(Admission { outputs, taken: true, dropped: true }) = next() else { panic!("drop") };
    assert_eq!((subjects(&outputs), outputs[0].payload.as_deref()), (vec!["side"], Some(&b"emitted"[..])));
    let route = || "check".to_owned();
    assert_eq!(next().expect_err("reject"), Refusal::Reject { route: route(), reason: "no good".into() });
    for ms in [250, 1_000] {
        assert_eq!(next().expect_err("retry"), Refusal::RetryLater { route: route(), ms, reason: "not now".into() });
    }
    let plugin = format!("act@{}", Digest::of(b"act").short());
    assert_eq!(next().expect_err("fault"), Refusal::Failed { route: route(), plugin, fault: fault("boom") });
    assert_eq!(subjects(&next().expect("routed").outputs), ["elsewhere"]);
    assert_eq!(subjects(&next().expect("set aside").outputs), ["aside"]);
    let info = node.route("check");
    assert_eq!((info.attempts, info.forwarded, info.dropped, info.filtered, info.set_aside), (8, 2, 1, 1, 1));
    assert_eq!((info.rejected, info.retried, info.failed, info.outputs), (1, 2, 1, 4));
    assert_eq!((info.on, info.from.as_str(), info.state), (vec!["in.*".to_owned()], "", "running"));
    assert_eq!((info.plugins[0].calls, info.plugins[0].faults, node.router.traps().len()), (7, 1, 1));
    node.stop().await;
}

#[tokio::test]
async fn what_one_route_refuses_is_refused_and_what_none_wants_is_not_taken() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open(directory.path());
    node.router.add_inline(inline("a", "in.*", vec![vec![act()]])).expect("a route");
    let rejects = plugin("rejects", |hand| match &hand.message.payload[..] {
        b"two" => Ok(Verdict::Reject("not two".into())),
        _ => Ok(Verdict::Forward),
    });
    let second = InlineSettings { to: templates(&["second"]), ..inline("b", "in.>", vec![vec![rejects]]) };
    node.router.add_inline(second).expect("a route");
    let never = InlineSettings { when: when("false"), ..inline("c", "other", vec![Vec::new()]) };
    node.router.add_inline(never).expect("a route");
    assert_eq!(subjects(&admit_one(&node, "one").await.expect("admitted").outputs), ["out.x", "second"]);
    assert!(matches!(admit_one(&node, "two").await, Err(Refusal::Reject { route, .. }) if route == "b"));
    let mut other = message("m");
    other.subject = subject("other");
    let admitted = admit(&node.router.inline(), vec![other]).await.remove(0).expect("admitted");
    assert!(!admitted.taken && admitted.outputs.is_empty());
    let taken = node.router.add_inline(inline("a", "x", vec![Vec::new()]));
    assert!(matches!(taken, Err(RouteError::Exists(name)) if name == "a"));
    node.queues(&["in"]).await;
    assert!(matches!(node.router.add(route("b", "in")).await, Err(RouteError::Exists(_))));
    let without_lanes = node.router.add_inline(inline("d", "x", Vec::new()));
    assert!(matches!(without_lanes, Err(RouteError::Lanes { lanes: 0, .. })));
    node.stop().await;
}

#[tokio::test]
async fn one_that_may_not_run_has_publishers_try_again_later() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open(directory.path());
    let held = Some("plugin `act` is missing".to_owned());
    node.router.add_inline(InlineSettings { held, ..inline("r", "in.*", vec![Vec::new()]) }).expect("a route");
    let later = |admitted: Admitted| match admitted {
        Err(Refusal::RetryLater { ms: 1_000, reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(later(admit_one(&node, "m").await), "held: plugin `act` is missing");
    assert!(matches!(node.router.release("r").await, Err(RouteError::LacksChain { .. })), "it would run without it");
    assert_eq!(later(admit_one(&node, "m").await), "held: plugin `act` is missing");
    let broken = ChainSettings { broken_after: 2, ..ChainSettings::new(vec![vec![act()]]) };
    node.router.replace_chain("r", broken).await.expect("a swap");
    assert_eq!(later(admit_one(&node, "m").await), "held: plugin `act` is missing");
    node.router.release("r").await.expect("released");
    assert!(admit_one(&node, "m").await.is_ok());
    let inline_routes = node.router.inline();
    let fault = |id: &str| {
        let mut message = message(id);
        message.payload = "fault".into();
        message
    };
    let mut admitted = admit(&inline_routes, vec![fault("1"), fault("1"), fault("2"), message("m")]).await;
    assert!(admitted[..3].iter().all(|one| matches!(one, Err(Refusal::Failed { .. }))));
    assert!(later(admitted.remove(3)).starts_with("broken: plugin 1 (act@"), "the same batch");
    assert!(later(admit_one(&node, "m").await).starts_with("broken: plugin 1 (act@"));
    assert_eq!(node.route("r").state, "broken");
    node.router.release("r").await.expect("released");
    assert!(admit_one(&node, "m").await.is_ok(), "it is tried again");
    node.router.set_paused("r", true).expect("a route");
    assert_eq!((later(admit_one(&node, "m").await).as_str(), node.route("r").state), ("paused", "paused"));
    node.router.release("r").await.expect("released");
    assert_eq!(later(admit_one(&node, "m").await), "paused", "that is another matter");
    node.router.replace_inline(inline("r", "in.*", vec![vec![act()], vec![act()]])).await.expect("replaced");
    assert_eq!((later(admit_one(&node, "m").await).as_str(), node.route("r").parallel), ("paused", 2));
    node.router.set_paused("r", false).expect("a route");
    assert!(admit_one(&node, "m").await.is_ok());
    node.router.replace_inline(inline("r", "in.*", vec![vec![act()]])).await.expect("replaced");
    let bypass =
        ChainSettings { broken_after: 1, on_broken: OnBroken::Bypass, ..ChainSettings::new(vec![vec![act()]]) };
    let swapped = node.router.replace_chain("r", bypass).await.expect("a swap");
    assert_eq!((swapped.served[0].faults, swapped.serving), (0, vec![Digest::of(b"act")]));
    assert!(admit(&inline_routes, vec![fault("1")]).await[0].is_ok(), "left out");
    node.router.hold("r", "to look at it").await.expect("held");
    assert_eq!(later(admit_one(&node, "m").await), "held: to look at it");
    assert_eq!(node.router.remove("r").await.expect("removed").name, "r");
    assert!(!inline_routes.is_any());
    node.router.add_inline(inline("r", "in.*", vec![vec![act()]])).expect("a route");
    node.stop_router().await;
    assert_eq!(later(admit_one(&node, "m").await), "stopping");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaps_under_load_leave_every_message_with_one_attempt_and_its_own_answer() {
    const PUBLISHERS: usize = 4;
    const SWAPS: usize = 40;
    let directory = tempfile::tempdir().expect("a directory");
    let node = Arc::new(Node::open_with(directory.path(), 3));
    let calls = Arc::new(AtomicUsize::new(0));
    let chain = |calls: &Arc<AtomicUsize>| {
        let lane = || {
            let calls = calls.clone();
            vec![plugin("count", move |hand| {
                calls.fetch_add(1, Ordering::Relaxed);
                hand.message.headers.set("n", hand.message.id.as_str()).expect("room");
                Ok(Verdict::Forward)
            })]
        };
        vec![lane(), lane()]
    };
    node.router.add_inline(inline("r", "in.*", chain(&calls))).expect("a route");
    let stop = Arc::new(AtomicUsize::new(0));
    let publish = |publisher: usize| {
        let (inline_routes, stop) = (node.router.inline(), stop.clone());
        async move {
            let mut published = 0;
            while stop.load(Ordering::Acquire) == 0 {
                let ids: Vec<String> = (0..50).map(|n| format!("{publisher}-{}", published + n)).collect();
                let admitted = admit(&inline_routes, ids.iter().map(|id| message(id)).collect()).await;
                for (id, admitted) in ids.iter().zip(admitted) {
                    let outputs = admitted.expect("admitted").outputs;
                    let output = Message::decode(outputs[0].header.clone(), Bytes::new()).expect("a message");
                    assert_eq!(&said(&output, "n"), id);
                }
                published += 50;
            }
            published
        }
    };
    let publishers: Vec<_> = (0..PUBLISHERS).map(|n| tokio::spawn(publish(n))).collect();
    for _ in 0..SWAPS {
        let settings = ChainSettings { to: templates(&["out.{subject.2}"]), ..ChainSettings::new(chain(&calls)) };
        node.router.replace_chain("r", settings).await.expect("a swap");
    }
    stop.store(1, Ordering::Release);
    let mut published = 0;
    for publisher in publishers {
        published += publisher.await.expect("a publisher");
    }
    assert_eq!((calls.load(Ordering::Relaxed), node.route("r").forwarded), (published, published as u64));
    node.stop_router().await;
    node.store.stop().await.expect("a clean stop");
}

/// Every message has gone through the one or the other, in whichever lanes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_takes_the_place_of_another_and_no_message_passes_between_them() {
    const REPLACED: usize = 60;
    let directory = tempfile::tempdir().expect("a directory");
    let node = Arc::new(Node::open_with(directory.path(), 3));
    let marks = || {
        plugin("marks", move |hand| {
            hand.message.headers.set("n", hand.message.id.as_str()).expect("room");
            Ok(Verdict::Forward)
        })
    };
    let lanes = |count: usize| (0..count).map(|_| vec![marks()]).collect();
    node.router.add_inline(inline("r", "in.*", lanes(1))).expect("a route");
    let stop = Arc::new(AtomicUsize::new(0));
    let publish = {
        let (inline_routes, stop) = (node.router.inline(), stop.clone());
        async move {
            let mut published = 0;
            while stop.load(Ordering::Acquire) == 0 {
                assert!(inline_routes.is_for(&subject("in.x")), "it is always there");
                let ids: Vec<String> = (0..50).map(|n| (published + n).to_string()).collect();
                for admitted in admit(&inline_routes, ids.iter().map(|id| message(id)).collect()).await {
                    assert_eq!(admitted.expect("admitted").outputs.len(), 1, "through one of them");
                }
                published += 50;
            }
            published
        }
    };
    let publisher = tokio::spawn(publish);
    let mut forwarded = 0;
    for n in 0..REPLACED {
        let on = if n % 2 == 0 { "in.>" } else { "in.*" };
        let before = node.router.replace_inline(inline("r", on, lanes(1 + n % 3))).await.expect("replaced");
        forwarded += before.forwarded;
    }
    stop.store(1, Ordering::Release);
    let published: u64 = publisher.await.expect("a publisher");
    assert!(forwarded + node.route("r").forwarded >= published);
    let unknown = node.router.replace_inline(inline("x", "in.*", lanes(1))).await;
    assert!(matches!(unknown, Err(RouteError::NotInline(name)) if name == "x"));
    node.stop_router().await;
    node.store.stop().await.expect("a clean stop");
}

#[tokio::test]
async fn outputs_without_measure_come_in_parts_and_each_message_is_tried_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open(directory.path());
    let calls = Arc::new(Mutex::new(Vec::new()));
    let grow = |name: &'static str, bytes: usize| {
        let calls = calls.clone();
        plugin(name, move |hand| {
            calls.lock().expect("the calls").push(format!("{name}{}", hand.message.id));
            (hand.message.payload, hand.payload_changed) = (Bytes::from(vec![7; bytes]), true);
            Ok(Verdict::Forward)
        })
    };
    let parts = async || {
        let mut asking = node.router.inline().ask((0..10).map(|n| message(&n.to_string())).collect());
        let mut parts = Vec::new();
        while !asking.is_over() {
            parts.push(asking.next(&node.router.inline()).await);
        }
        parts
    };
    let sizes = |parts: &[Vec<Admitted>]| parts.iter().map(Vec::len).collect::<Vec<_>>();
    node.router.add_inline(inline("a", "in.*", vec![vec![grow("a", 300_000)]])).expect("a route");
    assert_eq!(sizes(&parts().await), [4, 4, 2]);
    // The larger one says how many come.
    node.router.add_inline(inline("b", "in.*", vec![vec![grow("b", 600_000)]])).expect("a route");
    calls.lock().expect("the calls").clear();
    let parts = parts().await;
    assert!(sizes(&parts).into_iter().all(|size| (1..=2).contains(&size)), "{:?}", sizes(&parts));
    let admitted: Vec<Admission> = parts.into_iter().flatten().map(|one| one.expect("admitted")).collect();
    assert!(admitted.len() == 10 && admitted.iter().all(|one| one.outputs.len() == 2));
    let all = |name: &str| (0..10).map(|n| format!("{name}{n}")).collect::<Vec<_>>();
    let of = |name: &str| {
        calls.lock().expect("the calls").iter().filter(|c| c.starts_with(name)).cloned().collect::<Vec<_>>()
    };
    assert_eq!((of("a"), of("b")), (all("a"), all("b")), "once on each, in order");
    node.stop().await;
}
