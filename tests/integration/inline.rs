//! Inline routes: what publishers are told, what is stored, and what is not.

use std::time::Duration;

use quipu_client::{Client, OutgoingMessage, Publisher, PublisherOptions, Receipt, ReceiptError, Subscribe};
use quipu_protocol::code::Code;
use quipu_tests::{HOSTILE_WASM, TestServer, soon};
use serde_json::{Value, json};

use crate::QUIPU;

fn config() -> String {
    format!(
        r#"
[plugin.hostile]
file = {HOSTILE_WASM:?}
[plugin.slow]
file = {HOSTILE_WASM:?}
deadline = "5s"
[queue.raw]
subjects = ["quakes.>", "plain"]
[queue.big]
[[route]]
name = "check"
on = "quakes.>"
plugins = [{{ name = "filter-json", config = {{ field = "mag", at_least = 4.5, missing = "reject" }} }}]
to = ["big"]
[[route]]
name = "kind"
on = ["only.*", "just.this"]
when = 'headers["kind"] == "yes"'
to = ["big"]
[[route]]
name = "faulty"
on = "faulty"
plugins = [{{ name = "hostile", config = {{ act = "panic" }} }}]
[[route]]
name = "slow"
on = "slow"
plugins = [{{ name = "slow", config = {{ act = "loop" }} }}]
"#
    )
}

async fn publish(publisher: &Publisher, message: OutgoingMessage) -> Result<Receipt, ReceiptError> {
    soon("a receipt", publisher.publish(message).await.expect("published")).await
}

fn queues(receipt: Receipt) -> Vec<String> {
    let Receipt::Stored(positions) = receipt else { panic!("{receipt:?}") };
    positions.into_iter().map(|position| position.queue).collect()
}

fn refused(answer: Result<Receipt, ReceiptError>) -> (Code, Duration, String) {
    match answer {
        Err(ReceiptError::Refused(refusal)) => (refusal.code().expect("known"), refusal.after, refusal.text),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn next_offset(client: &Client, queue: &str) -> Value {
    let shown = client.call("queue.show", json!({ "queue": queue })).await.expect("an answer");
    shown["queue"]["next_offset"].clone()
}

pub(crate) async fn route(client: &Client, name: &str) -> Value {
    let listed = client.call("route.list", json!({})).await.expect("an answer");
    let found = listed["routes"].as_array().expect("a list").iter().find(|route| route["name"] == name);
    found.expect("the route").clone()
}

#[tokio::test]
async fn a_publisher_is_told_what_the_plugins_say_before_anything_is_stored() {
    let server = TestServer::start(QUIPU, &config()).await;
    let client = server.client().await;
    let publisher = client.publisher(PublisherOptions::default()).await.expect("a publisher");
    let quake = |payload: &str| OutgoingMessage::new("quakes.ak", payload.to_owned());
    let large = publish(&publisher, quake(r#"{"mag":5.1}"#).id("large")).await.expect("stored");
    assert_eq!(queues(large), ["raw"]);
    assert_eq!(queues(publish(&publisher, quake(r#"{"mag":2.0}"#)).await.expect("stored")), ["raw"], "dropped");
    let (code, _, text) = refused(publish(&publisher, quake("{}")).await);
    assert_eq!((code, text.as_str()), (Code::Rejected, "route \"check\" rejects it: mag absent"));
    assert_eq!((next_offset(&client, "raw").await, next_offset(&client, "big").await), (json!(2), json!(1)));
    let mut big = client.subscribe(Subscribe::new("big", "s")).await.expect("a subscriber");
    let delivery = soon("an output", big.next()).await.expect("open").expect("a delivery");
    let message = delivery.message.clone();
    assert_eq!((&message.payload[..], message.headers.first("quipu-parent")), (&br#"{"mag":5.1}"#[..], Some("large")));
    assert_eq!((message.subject.as_str(), message.origin_subject.as_str()), ("big", "quakes.ak"));
    delivery.ack().await.expect("settled");
    // What no queue takes but a route.
    let only = |kind: &str| OutgoingMessage::new("only.this", "x").header("kind", kind);
    assert_eq!(publish(&publisher, only("yes")).await.expect("taken"), Receipt::Routed);
    assert_eq!(refused(publish(&publisher, only("no")).await).0, Code::NoQueue);
    assert_eq!(next_offset(&client, "big").await, json!(2));
    let info = route(&client, "check").await;
    assert_eq!((&info["forwarded"], &info["dropped"], &info["rejected"]), (&json!(1), &json!(1), &json!(1)));
    assert_eq!((&info["on"], &info["state"]), (&json!(["quakes.>"]), &json!("running")));
}

#[tokio::test]
async fn a_fault_is_told_and_a_route_that_fails_on_everything_asks_for_patience() {
    let server = TestServer::start(QUIPU, &config()).await;
    let client = server.client().await;
    let publisher = client.publisher(PublisherOptions::default()).await.expect("a publisher");
    for _ in 0..10 {
        let (code, _, text) = refused(publish(&publisher, OutgoingMessage::new("faulty", "x")).await);
        assert_eq!(code, Code::PluginFailed);
        assert!(text.starts_with("route \"faulty\", plugin hostile@"), "{text}");
        assert!(text.ends_with(" failed: fault: said by the guest"), "{text}");
    }
    let (code, after, text) = refused(publish(&publisher, OutgoingMessage::new("faulty", "x")).await);
    assert_eq!((code, after), (Code::RetryLater, Duration::from_secs(1)));
    assert!(text.starts_with("route \"faulty\" asks for it in 1000 ms: broken: plugin 1 (hostile@"), "{text}");
    assert_eq!(route(&client, "faulty").await["state"], "broken");
    // Its neighbours go on.
    let quake = OutgoingMessage::new("quakes.ak", r#"{"mag":5.1}"#);
    assert_eq!(queues(publish(&publisher, quake).await.expect("stored")), ["raw"]);
}

#[tokio::test]
async fn a_message_that_is_known_is_answered_as_then_and_no_plugin_sees_it_again() {
    let mut server = TestServer::start(QUIPU, &config()).await;
    let client = server.client().await;
    let publisher = client.publisher(PublisherOptions::default()).await.expect("a publisher");
    let quake = |payload: &str| OutgoingMessage::new("quakes.ak", payload.to_owned()).id("m");
    // What was rejected is not known.
    assert_eq!(refused(publish(&publisher, quake("{}")).await).0, Code::Rejected);
    assert_eq!(queues(publish(&publisher, quake(r#"{"mag":5.1}"#)).await.expect("stored")), ["raw"]);
    let again = publish(&publisher, quake("{}")).await.expect("known");
    assert!(matches!(&again, Receipt::Duplicate(positions) if positions.len() == 1), "{again:?}");
    assert_eq!(route(&client, "check").await["attempts"], 2);
    let routed = || OutgoingMessage::new("just.this", "x").header("kind", "yes").id("r");
    assert_eq!(publish(&publisher, routed()).await.expect("taken"), Receipt::Routed);
    server.kill().await;
    server.restart().await;
    let client = server.client().await;
    let publisher = client.publisher(PublisherOptions::default()).await.expect("a publisher");
    let again = publish(&publisher, quake("{}")).await.expect("known");
    assert!(matches!(&again, Receipt::Duplicate(positions) if positions.len() == 1), "{again:?}");
    assert!(matches!(publish(&publisher, routed()).await, Ok(Receipt::Duplicate(_))));
    assert_eq!(route(&client, "check").await["attempts"], 0);
    assert_eq!((next_offset(&client, "raw").await, next_offset(&client, "big").await), (json!(1), json!(2)));
}

#[tokio::test]
async fn messages_of_one_publisher_stay_in_order_with_and_without_a_route() {
    const COUNT: usize = 600;
    let server = TestServer::start(QUIPU, &config()).await;
    let client = server.client().await;
    let publisher = client.publisher(PublisherOptions::default()).await.expect("a publisher");
    let mut receipts = Vec::new();
    for n in 0..COUNT {
        let (subject, payload) = match n % 3 {
            0 => ("plain", format!("{{\"n\":{n}}}")),
            1 => ("quakes.ak", format!("{{\"n\":{n},\"mag\":{}}}", n % 10)),
            _ => ("quakes.ak", format!("{{\"n\":{n}}}")),
        };
        receipts.push(publisher.publish(OutgoingMessage::new(subject, payload)).await.expect("published"));
    }
    for (n, receipt) in receipts.into_iter().enumerate() {
        let answer = soon("a receipt", receipt).await;
        assert_eq!(answer.is_ok(), n % 3 != 2, "{n}: {answer:?}");
    }
    let read = async |queue: &str, expected: Vec<usize>| {
        let mut subscriber = client.subscribe(Subscribe::new(queue, "s")).await.expect("a subscriber");
        for n in expected {
            let delivery = soon("a delivery", subscriber.next()).await.expect("open").expect("a delivery");
            let payload: Value = serde_json::from_slice(&delivery.message.payload).expect("JSON");
            assert_eq!(payload["n"], n, "{queue}");
            delivery.ack_later().await.expect("settled");
        }
    };
    read("raw", (0..COUNT).filter(|n| n % 3 != 2).collect()).await;
    read("big", (0..COUNT).filter(|n| n % 3 == 1 && n % 10 >= 5).collect()).await;
}

#[tokio::test]
async fn a_plugin_that_takes_its_time_holds_up_its_publisher_alone() {
    let server = TestServer::start(QUIPU, &config()).await;
    let client = server.client().await;
    let (slow, other) = (
        client.publisher(PublisherOptions::default()).await.expect("a publisher"),
        client.publisher(PublisherOptions::default()).await.expect("a publisher"),
    );
    let mut subscriber = client.subscribe(Subscribe::new("raw", "s")).await.expect("a subscriber");
    let mut first = Box::pin(slow.publish(OutgoingMessage::new("slow", "x")).await.expect("published"));
    // More than the stream holds, so that a reader who waited would stop it.
    let mut behind = Vec::new();
    for _ in 0..3 {
        let message = OutgoingMessage::new("plain", vec![7; 900_000]);
        behind.push(slow.publish(message).await.expect("published"));
    }
    for n in 0..10 {
        publish(&other, OutgoingMessage::new("plain", n.to_string())).await.expect("stored");
        let delivery = soon("a delivery", subscriber.next()).await.expect("open").expect("a delivery");
        assert_eq!(delivery.message.payload, n.to_string());
        delivery.ack().await.expect("settled");
    }
    tokio::select! {
        biased;
        answer = &mut first => panic!("the plugin is at it still: {answer:?}"),
        () = std::future::ready(()) => {}
    }
    let (code, _, text) = refused(soon("a receipt", first).await);
    assert_eq!(code, Code::PluginFailed);
    assert!(text.ends_with("failed: deadline: plugin ran over 5000 ms"), "{text}");
    for receipt in behind {
        assert_eq!(queues(soon("a receipt", receipt).await.expect("stored")), ["raw"]);
    }
}

#[tokio::test]
async fn a_plugin_that_makes_much_of_little_is_taken_in_parts() {
    let config = format!(
        r#"
[plugin.hostile]
file = {HOSTILE_WASM:?}
deadline = "20s"
[queue.all]
[queue.flood]
[queue.fat]
[[route]]
name = "emit"
on = "fat"
plugins = [{{ name = "hostile", config = {{ act = "emit" }} }}]
to = ["all"]
"#
    );
    let server = TestServer::start(QUIPU, &config).await;
    let client = server.client().await;
    let publisher = client.publisher(PublisherOptions::default()).await.expect("a publisher");
    let mut receipts = Vec::new();
    for n in 0..6 {
        receipts.push(publisher.publish(OutgoingMessage::new("fat", n.to_string())).await.expect("published"));
    }
    for receipt in receipts {
        assert_eq!(queues(soon("a receipt", receipt).await.expect("stored")), ["fat"]);
    }
    let counts = [next_offset(&client, "all").await, next_offset(&client, "flood").await];
    assert_eq!(counts, [json!(6), json!(6 * 1_024)]);
}

#[tokio::test]
async fn nothing_behind_a_rejected_message_is_stored_where_its_publisher_stops() {
    let server = TestServer::start(QUIPU, &config()).await;
    let client = server.client().await;
    let quake = |payload: &str| OutgoingMessage::new("quakes.ak", payload.to_owned());
    let good = r#"{"mag":5.1}"#;
    for (name, stored) in [(None, 0), (Some("till"), 4)] {
        let name = name.map(str::to_owned);
        let options = PublisherOptions { name, stop_on_error: true, ..PublisherOptions::default() };
        let publisher = client.publisher(options).await.expect("a publisher");
        let mut receipts = Vec::new();
        for payload in [good, good, good, "{}", good, good, good] {
            receipts.push(publisher.publish(quake(payload)).await.expect("published"));
        }
        for (n, receipt) in receipts.into_iter().enumerate() {
            let answer = soon("a receipt", receipt).await;
            match n {
                0..3 => assert_eq!(queues(answer.expect("stored")), ["raw"]),
                3 => assert_eq!(refused(answer).0, Code::Rejected),
                _ => {
                    let (code, _, text) = refused(answer);
                    let expected = "sequence 4 was refused, and this publisher stops at that until it resumes";
                    assert_eq!((code, text.as_str()), (Code::Stopped, expected));
                }
            }
        }
        assert_eq!(next_offset(&client, "raw").await, json!(stored + 3));
        assert_eq!(refused(publish(&publisher, quake(good)).await).0, Code::Stopped);
        publisher.resume().await.expect("open");
        assert_eq!(queues(publish(&publisher, quake(good)).await.expect("stored")), ["raw"]);
        assert_eq!(next_offset(&client, "raw").await, json!(stored + 4));
        publisher.close().await.expect("closed");
    }
    // No plugin saw what was behind.
    assert_eq!(route(&client, "check").await["attempts"], 2 * 5);
    std::fs::write(server.directory().join("input"), format!("{good}\n{{}}\n{good}\n")).expect("written");
    let told = server.cli_output(&["pub", "quakes.ak", "--file", "input", "--stop-on-error"]).await;
    assert_eq!(told.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&told.stdout).starts_with("1 stored, 0 duplicate, "), "{told:?}");
    assert!(String::from_utf8_lossy(&told.stderr).contains("message 2: "), "{told:?}");
    assert_eq!(next_offset(&client, "raw").await, json!(9));
}
