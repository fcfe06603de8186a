//! What became of a message, and what would become of one.

use quipu_router::{Event, Explain, InlineSettings, TraceMode, What};

use super::*;

fn chain() -> Vec<Box<dyn Plugin>> {
    vec![
        plugin("mark", |hand| {
            hand.message.headers.set("seen", "yes").expect("room");
            hand.header_changed = true;
            Ok(Verdict::Forward)
        }),
        plugin("act", |hand| match (&hand.message.payload[..], hand.attempt) {
            (b"fault", _) => Err(fault("boom")),
            (b"again", 1) => Ok(Verdict::Retry { delay_ms: 1, reason: "not yet".into() }),
            (b"drop", _) => {
                emit(hand, "out", Some("emitted"));
                Ok(Verdict::Drop("why not".into()))
            }
            _ => Ok(Verdict::Forward),
        }),
    ]
}

/// In short, without times and digests.
fn short(events: &[Event]) -> Vec<String> {
    let name = |plugin: &str| plugin.split('@').next().unwrap_or_default().to_owned();
    let said = |event: &Event| match &event.what {
        What::Attempt { route, attempt, hops, end, .. } => {
            let hops: Vec<String> = hops.iter().map(|hop| format!("{}={}", name(&hop.plugin), hop.verdict)).collect();
            format!("{route} {attempt} [{}] {end}", hops.join(" "))
        }
        What::Outputs { made, .. } => format!("made {}", made.len()),
        What::Settled { subscription, outcome } => format!("{subscription} {outcome}"),
        What::DeadLettered { reason, .. } => format!("dead {reason}"),
        other => format!("{other:?}"),
    };
    events.iter().map(said).collect()
}

#[tokio::test]
async fn what_became_of_a_message_is_shown_over_routes_attempts_and_outputs() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open(directory.path());
    node.queues(&["in", "mid", "out"]).await;
    let on_error = attempts(2, "dead");
    let first = RouteSettings { plugins: vec![chain()], to: templates(&["mid"]), on_error, ..route("one", "in") };
    node.add(first).await;
    node.add(RouteSettings { to: templates(&["out"]), ..route("two", "mid") }).await;
    let (mut out, mut dead) = (node.read("out").await, node.read("dead").await);
    node.publish("in", "before", &[]).await;
    out.next().await;
    let trace = node.router.trace();
    assert!(!trace.is_on() && trace.show("before").is_empty());
    trace.configure(TraceMode::All, 1 << 20);
    for id in ["again", "drop"] {
        node.publish("in", id, &[]).await;
        out.next().await;
    }
    node.publish("in", "fault", &[]).await;
    dead.next().await;
    let settled = async {
        while node.info("in").await.messages + node.info("mid").await.messages > 0 || node.route("two").forwarded < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, settled).await.expect("in time");
    let again = trace.show("again");
    let all = [
        "one 1 [mark=forward act=retry] retry",
        "route:one parked",
        "one 2 [mark=forward act=forward] forward",
        "made 1",
        "route:one forwarded",
        "two 1 [] forward",
        "made 1",
        "route:two forwarded",
    ];
    let mut sorted = short(&again);
    // What is durable is told by another thread than what comes of it.
    sorted.sort_unstable();
    let mut expected = all.map(str::to_owned);
    expected.sort_unstable();
    assert_eq!(sorted, expected);
    assert_eq!(&short(&again)[..4], &all.map(str::to_owned)[..4]);
    let last = again.last().expect("an event").id.clone();
    assert_eq!(trace.show(&last).len(), 8, "from the other end");
    assert_eq!(short(&trace.show("drop")), ["one 1 [mark=forward act=drop] drop", "made 1", "route:one dropped"]);
    let fault = short(&trace.show("fault"));
    assert_eq!(&fault[..2], ["one 1 [mark=forward act=fault fault] fault", "route:one parked"]);
    assert_eq!(&fault[2..4], ["one 2 [mark=forward act=fault fault] fault", "dead boom"]);
    assert!(trace.show("before").is_empty());
    node.stop().await;
}

#[tokio::test]
async fn inline_routes_are_followed_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open(directory.path());
    let on = vec![SubjectPattern::new("in").expect("a pattern")];
    let settings = InlineSettings { plugins: vec![chain()], to: templates(&["out"]), ..InlineSettings::new("i", on) };
    node.router.add_inline(settings).expect("a route");
    node.router.trace().configure(TraceMode::Sampled(1), 1 << 20);
    let message = |id: &str| Message::new(MessageId::new(id).expect("an id"), subject("in"), id.to_owned());
    let inline_routes = node.router.inline();
    inline_routes.ask(vec![message("m"), message("fault")]).next(&inline_routes).await;
    let shown = |id: &str| short(&node.router.trace().show(id));
    assert_eq!(shown("m"), ["i 1 [mark=forward act=forward] forward", "made 1"]);
    assert_eq!(shown("fault"), ["i 1 [mark=forward act=fault fault] fault"]);
    node.stop().await;
}

#[test]
fn a_message_is_walked_through_a_chain_without_effect() {
    let message =
        |payload: &str| Message::new(MessageId::new("m").expect("an id"), subject("in.x"), payload.to_owned());
    let explain = |payload: &str| {
        let explain = Explain {
            route: "r".into(),
            when: when("payload_size < 10"),
            otherwise: templates(&["aside"]),
            plugins: chain(),
            to: templates(&["out.{subject.2}"]),
            ..Explain::default()
        };
        explain.run(&message(payload), 1, 1_000)
    };
    let explained = explain("plain");
    assert_eq!((explained.end, &explained.reason, explained.hops.len()), ("forward", &None, 2));
    assert_eq!(explained.when, Some(("payload_size < 10".into(), Ok(true))));
    let (to, output) = &explained.outputs[0];
    assert_eq!(
        (to.as_str(), output.id.as_str(), &output.payload[..]),
        ("out.x", &*derived("m", "r", 2, 0), &b"plain"[..])
    );
    let (name, first) = &explained.hops[0];
    assert_eq!(*name, format!("mark@{}", Digest::of(b"mark").short()));
    let changes: Vec<_> =
        first.changes().into_iter().map(|change| (change.what, change.before, change.after)).collect();
    assert_eq!(changes, [("header seen".to_owned(), None, Some("yes".to_owned()))]);
    assert!(explained.hops[1].1.changes().is_empty());
    let json = explained.to_json();
    assert_eq!((&json["when"]["matches"], &json["end"]), (&true.into(), &"forward".into()));
    assert_eq!((&json["hops"][1]["verdict"], &json["outputs"][0]["subject"]), (&"forward".into(), &"out.x".into()));
    assert_eq!(json["hops"][1]["plugin"].as_str().map(|plugin| &plugin[..4]), Some("act@"));
    let dropped = explain("drop");
    assert_eq!((dropped.end, dropped.reason.as_deref()), ("drop", Some("why not")));
    assert_eq!((dropped.outputs.len(), &dropped.outputs[0].1.payload[..]), (1, &b"emitted"[..]));
    let failed = explain("fault");
    assert_eq!((failed.end, failed.reason.as_deref(), failed.outputs.len()), ("fault", Some("boom"), 0));
    assert_eq!(failed.to_json()["hops"][1]["fingerprint"].as_str().map(str::len), Some(12));
    let aside = explain("longer than ten");
    assert_eq!((aside.end, aside.hops.len(), aside.outputs[0].0.as_str()), ("filtered", 0, "aside"));
    assert_eq!(aside.to_json()["when"]["matches"], false);
}
