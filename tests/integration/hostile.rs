//! Guests that loop, hoard and trap: the router stays, the neighbour goes on, the message is kept with the cause.

use quipu_client::{Client, Message, OutgoingMessage, PublisherOptions, Subscribe};
use quipu_tests::{HOSTILE_WASM, TestServer, soon};

use crate::QUIPU;

/// A route through a hostile guest, and a neighbour on the same workers.
fn config(act: &str) -> String {
    // Whoever is to run into another limit has the time for it, on a slow machine too.
    let deadline = if act == "loop" { "" } else { "deadline = \"20s\"" };
    format!(
        r#"
[plugin.hostile]
file = {HOSTILE_WASM:?}
{deadline}
[queue.bad]
[queue.good]
[queue.out]
[[route]]
name = "hostile"
from = "bad"
plugins = [{{ name = "hostile", config = {{ act = {act:?} }} }}]
to = ["out"]
on_error = {{ attempts = 3, backoff = ["1ms"], then = "graveyard" }}
[[route]]
name = "neighbour"
from = "good"
plugins = [{{ name = "filter-json", config = {{ field = "n", at_least = 0 }} }}]
to = ["out"]
"#
    )
}

/// Sends a message to the hostile route, then others to its neighbour; what the graveyard then says.
async fn survive(act: &str) -> Message {
    let server = TestServer::start(QUIPU, &config(act)).await;
    let client = server.client().await;
    let publisher = client.publisher(PublisherOptions::default()).await.expect("a publisher");
    let poison = OutgoingMessage::new("bad", "{}").id("poison").header("kind", "test");
    publisher.publish(poison).await.expect("published").await.expect("stored");
    for n in 0..20 {
        let message = OutgoingMessage::new("good", format!("{{\"n\":{n}}}"));
        publisher.publish(message).await.expect("published").await.expect("stored");
    }
    let mut out = client.subscribe(Subscribe::new("out", "test")).await.expect("a subscriber");
    for n in 0..20 {
        let delivery = soon("the neighbour's output", out.next()).await.expect("open").expect("a delivery");
        assert_eq!(delivery.message.payload, format!("{{\"n\":{n}}}"), "{act}");
        delivery.ack().await.expect("settled");
    }
    let dead = dead_letter(&server, &client).await;
    assert_eq!((dead.id.as_str(), dead.subject.as_str()), ("poison", "bad"), "{act}");
    assert_eq!(dead.headers.first("kind"), Some("test"), "{act}: the message is as it was");
    assert_eq!(dead.headers.first("quipu-dead-route"), Some("hostile"), "{act}");
    assert_eq!(dead.headers.first("quipu-dead-attempts"), Some("3"), "{act}");
    let plugin = dead.headers.first("quipu-dead-plugin").expect("the plugin");
    assert!(plugin.starts_with("hostile@") && plugin.len() == "hostile@".len() + 8, "{plugin}");
    client.close().await;
    dead
}

/// The graveyard is made with its first letter, so it is asked for until it is there.
async fn dead_letter(server: &TestServer, client: &Client) -> Message {
    let mut graveyard = soon("the graveyard", async {
        loop {
            if let Ok(subscriber) = client.subscribe(Subscribe::new("graveyard", "test")).await {
                return subscriber;
            }
        }
    })
    .await;
    let delivery = soon("the dead letter", graveyard.next()).await;
    let log = || std::fs::read_to_string(server.directory().join("log")).unwrap_or_default();
    let delivery = delivery.unwrap_or_else(|| panic!("closed: {}", log())).expect("a delivery");
    let message = delivery.message.clone();
    delivery.ack().await.expect("settled");
    message
}

fn said<'a>(dead: &'a Message, name: &str) -> &'a str {
    dead.headers.first(name).unwrap_or_default()
}

#[tokio::test]
async fn a_guest_that_loops_is_stopped_at_its_deadline() {
    let dead = survive("loop").await;
    assert_eq!(said(&dead, "quipu-dead-fault"), "deadline");
    assert!(said(&dead, "quipu-dead-reason").contains("ran over 50 ms"), "{dead:?}");
}

#[tokio::test]
async fn a_guest_that_hoards_memory_is_stopped_at_its_limit() {
    let dead = survive("allocate").await;
    assert_eq!(said(&dead, "quipu-dead-fault"), "memory");
    assert!(said(&dead, "quipu-dead-reason").contains("64 MiB"), "{dead:?}");
}

#[tokio::test]
async fn a_guest_that_traps_leaves_its_backtrace() {
    let dead = survive("trap").await;
    assert_eq!(said(&dead, "quipu-dead-fault"), "unreachable", "{dead:?}");
    assert!(said(&dead, "quipu-dead-trace").contains("process"), "{dead:?}");
}

#[tokio::test]
async fn a_panic_arrives_with_text_and_line() {
    let dead = survive("panic").await;
    assert_eq!(said(&dead, "quipu-dead-reason"), "said by the guest");
    assert!(said(&dead, "quipu-dead-trace").contains("src/lib.rs:"), "{dead:?}");
}

#[tokio::test]
async fn a_guest_that_makes_too_much_is_stopped() {
    let dead = survive("output").await;
    assert_eq!(said(&dead, "quipu-dead-fault"), "output", "{dead:?}");
}
