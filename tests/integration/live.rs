//! Queues, subscriptions and routes that come, change and go while the router runs.

use quipu_client::{Client, Mode, OutgoingMessage, PublisherOptions, Subscribe, Subscriber};
use quipu_tests::{TestServer, soon};
use serde_json::{Value, json};

use crate::QUIPU;

/// Big ones go on.
const FILE: &str = r#"
[queue.in]
[queue.out]
[[route]]
name = "big"
from = "in"
plugins = [{ name = "filter-json", config = { field = "n", at_least = 10 } }]
to = ["out"]
"#;

/// Changes the configuration file of a router.
fn edit(server: &TestServer, change: impl FnOnce(String) -> String) {
    let file = server.directory().join("quipu.toml");
    let text = std::fs::read_to_string(&file).expect("the configuration");
    std::fs::write(&file, change(text)).expect("written");
}

async fn publish(client: &Client, subject: &str, n: u64) {
    let publisher = client.publisher(PublisherOptions::default()).await.expect("a publisher");
    let message = OutgoingMessage::new(subject, json!({ "n": n }).to_string());
    publisher.publish(message).await.expect("published").await.expect("stored");
    publisher.close().await.expect("closed");
}

/// The number of the next message, which is settled.
async fn next(subscriber: &mut Subscriber) -> u64 {
    let delivery = soon("a delivery", subscriber.next()).await.expect("open").expect("a delivery");
    let body: Value = serde_json::from_slice(&delivery.message.payload).expect("JSON");
    delivery.ack().await.expect("settled");
    body["n"].as_u64().expect("a number")
}

async fn fails(server: &TestServer, arguments: &[&str]) -> String {
    let output = server.cli_output(arguments).await;
    assert_eq!(output.status.code(), Some(1), "quipu {arguments:?}");
    String::from_utf8(output.stderr).expect("text")
}

async fn route(server: &TestServer, name: &str) -> Value {
    let routes: Value = server.json(&["route", "list"]).await;
    let all = routes["routes"].as_array().expect("routes").clone();
    all.into_iter().find(|route| route["name"] == name).unwrap_or_default()
}

#[tokio::test]
async fn a_reload_takes_all_of_a_file_or_nothing() {
    let server = TestServer::start(QUIPU, FILE).await;
    let client = server.client().await;
    assert_eq!(server.cli(&["diff"]).await, "nothing would change\n");
    // One thing is fine and another is not: neither is taken.
    edit(&server, |text| text.replace("at_least = 10", "at_least = 5") + "[queue.more]\nmax_attempt = 1\n");
    let said = fails(&server, &["reload"]).await;
    assert!(said.contains("queue.more.max_attempt: unknown key; did you mean `max_attempts`?"), "{said}");
    edit(&server, |text| text.replace("max_attempt = 1", "max_attempts = 1").replace("at_least = 5", "at_lest = 5"));
    let said = fails(&server, &["reload"]).await;
    assert!(said.contains("route \"big\", plugin 1 of 1") && said.contains("at_lest"), "{said}");
    let mut out = client.subscribe(Subscribe::new("out", "test")).await.expect("a subscriber");
    publish(&client, "in", 7).await;
    publish(&client, "in", 10).await;
    assert_eq!(next(&mut out).await, 10, "the filter is as it was");
    edit(&server, |text| text.replace("at_lest = 5", "at_least = 5"));
    let expected = "+ queue more\n~ route big: plugins[0].config.at_least changes\n";
    assert_eq!(server.cli(&["diff"]).await, format!("{expected}`quipu reload` makes it so\n"));
    let said = server.cli(&["reload"]).await;
    assert!(said.starts_with(&format!("{expected}route big swapped at in offset 2; ")), "{said}");
    assert!(said.ends_with("\nreloaded\n"), "{said}");
    publish(&client, "in", 4).await;
    publish(&client, "in", 7).await;
    assert_eq!(next(&mut out).await, 7);
    publish(&client, "more", 1).await;
    assert_eq!(server.cli(&["reload"]).await, "nothing has changed\n");
}

#[tokio::test]
async fn what_was_defined_while_it_ran_is_there_after_a_restart() {
    let mut server = TestServer::start(QUIPU, FILE).await;
    server.cli(&["queue", "create", "copies", "subjects=[\"copy.>\"]", "max_attempts=3"]).await;
    server.cli(&["route", "create", "copy", "from=in", "to=[\"copy.{subject.1}\"]"]).await;
    let said = fails(&server, &["queue", "create", "copies"]).await;
    assert!(said.contains("there is a queue \"copies\" already; `quipu queue change copies` changes it"), "{said}");
    let said = fails(&server, &["queue", "change", "out", "max_attempts=1"]).await;
    assert!(said.contains("queue \"out\" is the configuration file's"), "{said}");
    let said = fails(&server, &["route", "create", "loop", "from=copies", "to=[\"in\"]", "parallel=0"]).await;
    assert!(said.contains("route \"loop\", defined at run time"), "{said}");
    server.kill().await;
    server.restart().await;
    let client = server.client().await;
    let mut copies = client.subscribe(Subscribe::new("copies", "test")).await.expect("a subscriber");
    publish(&client, "in", 3).await;
    assert_eq!(next(&mut copies).await, 3);
    server.cli(&["queue", "change", "copies", "max_attempts=9"]).await;
    let shown: Value = server.json(&["queue", "show", "copies"]).await;
    assert_eq!((&shown["queue"]["attempts_max"], &shown["queue"]["subjects"]), (&9.into(), &json!(["copy.>"])));
    // A queue that a route reads cannot go.
    let said = fails(&server, &["queue", "delete", "in", "--with-messages"]).await;
    assert!(said.contains("queue \"in\" is the configuration file's"), "{said}");
    server.cli(&["route", "delete", "copy", "--drop-subscription"]).await;
    server.cli(&["queue", "delete", "copies", "--with-messages"]).await;
    let said = fails(&server, &["queue", "show", "copies"]).await;
    assert!(said.contains("there is no queue \"copies\""), "{said}");
    // The file may take a name over, and then it is the file's.
    server.cli(&["queue", "create", "late"]).await;
    edit(&server, |text| text + "[queue.late]\nmax_attempts = 2\n");
    let said = server.cli(&["reload"]).await;
    assert!(said.contains("note: queue late is the file's now"), "{said}");
}

#[tokio::test]
async fn a_route_can_be_paused_sought_and_resumed() {
    let mut server = TestServer::start(QUIPU, &FILE.replace("[queue.in]", "[queue.in]\nretention = \"log\"")).await;
    let client = server.client().await;
    let mut out = client.subscribe(Subscribe::new("out", "test")).await.expect("a subscriber");
    for n in [11, 12] {
        publish(&client, "in", n).await;
        assert_eq!(next(&mut out).await, n);
    }
    server.cli(&["route", "pause", "big"]).await;
    publish(&client, "in", 13).await;
    // Also after a restart. The consumer would come back too, and take its share.
    out.close().await.expect("closed");
    assert_eq!(server.terminate().await, Some(0));
    server.restart().await;
    let client = server.client().await;
    assert_eq!(route(&server, "big").await["state"], "paused");
    let mut out = client.subscribe(Subscribe::new("out", "test")).await.expect("a subscriber");
    let said = server.cli(&["route", "seek", "big", "--to", "1"]).await;
    assert!(said.contains("goes on at offset 1 of in"), "{said}");
    server.cli(&["route", "resume", "big"]).await;
    for n in [12, 13] {
        assert_eq!(next(&mut out).await, n);
    }
    let balanced = server.cli(&["ledger"]).await;
    assert!(balanced.contains("route:big"), "{balanced}");
}

#[tokio::test]
async fn sighup_reloads() {
    let server = TestServer::start(QUIPU, FILE).await;
    let client = server.client().await;
    edit(&server, |text| text + "[queue.new]\n");
    server.signal_reload();
    // A publish is answered with "no queue" until it is there.
    let publisher = client.publisher(PublisherOptions::default()).await.expect("a publisher");
    let taken = async {
        while publisher.publish(OutgoingMessage::new("new", "{}")).await.expect("published").await.is_err() {}
    };
    soon("the new queue", taken).await;
    // What is wrong is in the log, as the documentation has it.
    const SAYS: &str = "SIGHUP: the configuration is not taken, and the one before stays: ";
    assert!(include_str!("../../docs/access.md").contains(&format!("ERROR quipu::commands::serve: {SAYS}")));
    edit(&server, |text| text + "wrong = 1\n");
    server.signal_reload();
    let said = soon("the log", async {
        loop {
            let log = std::fs::read_to_string(server.directory().join("log")).expect("a log");
            if let Some((_, said)) = log.split_once(SAYS) {
                return said.to_owned();
            }
            tokio::task::yield_now().await;
        }
    });
    assert!(said.await.contains("queue.new.wrong: unknown key"));
}

#[tokio::test]
async fn a_subscription_is_made_paused_and_deleted() {
    let server = TestServer::start(QUIPU, "[queue.q]\n").await;
    let client = server.client().await;
    server.cli(&["subscription", "create", "q", "s", "--mode", "key-shared"]).await;
    server.cli(&["subscription", "pause", "q", "s"]).await;
    publish(&client, "q", 1).await;
    server.cli(&["subscription", "seek", "q", "s", "--to", "new"]).await;
    publish(&client, "q", 2).await;
    let subscribe = Subscribe { mode: Mode::KeyShared, ..Subscribe::new("q", "s") };
    let mut subscriber = client.subscribe(subscribe).await.expect("a subscriber");
    server.cli(&["subscription", "resume", "q", "s"]).await;
    assert_eq!(next(&mut subscriber).await, 2);
    let said = server.cli(&["subscription", "change", "q", "s", "--mode", "exclusive"]).await;
    assert_eq!(said, "subscription s of q is exclusive\n");
    publish(&client, "q", 3).await;
    assert_eq!(next(&mut subscriber).await, 3, "who reads it goes on");
    let said = server.cli(&["queue", "show", "q"]).await;
    assert!(said.lines().any(|line| line.starts_with("s ") && line.contains("exclusive")), "{said}");
    let said = fails(&server, &["subscription", "change", "q", "s", "--mode", "other"]).await;
    assert!(said.contains("unknown variant `other`"), "{said}");
    server.cli(&["subscription", "delete", "q", "s"]).await;
    let ended = soon("the end of a deleted subscription", subscriber.next()).await;
    assert!(ended.is_none_or(|ended| ended.is_err()));
    let said = fails(&server, &["subscription", "pause", "q", "s"]).await;
    assert!(said.contains("no subscription"), "{said}");
}
