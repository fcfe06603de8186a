//! What who runs a router does with it: redrive, account, look, copy.

use quipu_client::{Client, OutgoingMessage, PublisherOptions, Subscribe};
use quipu_tests::{TestServer, soon};
use serde_json::json;

use crate::QUIPU;

async fn publish(client: &Client, count: usize) {
    let publisher = client.publisher(PublisherOptions::default()).await.expect("a publisher");
    for n in 0..count {
        let message = OutgoingMessage::new("q", json!({ "n": n }).to_string()).id(&format!("m{n}"));
        drop(publisher.publish(message).await.expect("published"));
    }
    publisher.close().await.expect("stored");
}

/// Rejects every message of a queue for a subscription, and closes it.
async fn reject_all(client: &Client, subscription: &str, count: usize) {
    let mut subscriber = client.subscribe(Subscribe::new("q", subscription)).await.expect("a subscriber");
    for _ in 0..count {
        let delivery = soon("a delivery", subscriber.next()).await.expect("open").expect("a delivery");
        delivery.reject("not today").await.expect("settled");
    }
    subscriber.close().await.expect("closed");
}

async fn messages(server: &TestServer, queue: &str) -> u64 {
    server.json(&["queue", "show", queue]).await["queue"]["messages"].as_u64().expect("a count")
}

#[tokio::test]
async fn dead_letters_go_back_to_the_subscriptions_that_gave_them_up() {
    let server = TestServer::start(QUIPU, "[queue.q]\n").await;
    let client = server.client().await;
    // Both are there before the messages, so that each gets all of them.
    for name in ["billing", "shipping"] {
        client.subscribe(Subscribe::new("q", name)).await.expect("a subscriber").close().await.expect("closed");
    }
    publish(&client, 6).await;
    reject_all(&client, "billing", 6).await;
    reject_all(&client, "shipping", 6).await;
    assert_eq!((messages(&server, "q").await, messages(&server, "q-dead").await), (0, 12));

    let filter = "headers[\"quipu-dead-subscription\"] == \"billing\" && json.n >= 2";
    let dry = server.json(&["queue", "redrive", "q-dead", "--filter", filter, "--dry-run"]).await;
    assert_eq!(dry["moved"], json!([{ "queue": "q", "subscription": "billing", "count": 4 }]));
    assert_eq!((messages(&server, "q").await, messages(&server, "q-dead").await), (0, 12));

    let moved = server.json(&["queue", "redrive", "q-dead", "--filter", filter, "--rate", "1000"]).await;
    assert_eq!((&moved["moved"], &moved["refused_count"]), (&dry["moved"], &0.into()));
    assert_eq!((messages(&server, "q").await, messages(&server, "q-dead").await), (4, 8));
    let table = server.cli(&["queue", "redrive", "q-dead", "--id", "m0", "--limit", "1"]).await;
    assert!(table.contains("billing"), "{table}");

    let mut billing = client.subscribe(Subscribe::new("q", "billing")).await.expect("a subscriber");
    for expected in [2, 3, 4, 5, 0] {
        let delivery = soon("a delivery", billing.next()).await.expect("open").expect("a delivery");
        assert_eq!(delivery.message.payload, json!({ "n": expected }).to_string());
        assert_eq!(delivery.message.headers.first("quipu-dead-reason"), None, "it is as it was");
        delivery.ack().await.expect("settled");
    }
    // Nothing of it is for the other.
    let ledger = server.json(&["ledger", "q"]).await;
    for (subscription, redriven) in [("billing", 5), ("shipping", 0)] {
        let all = ledger["subscriptions"].as_array().expect("a list");
        let found = all.iter().find(|s| s["subscription"] == subscription).expect("it is there");
        assert_eq!((&found["counts"]["redriven"], &found["balanced"]), (&redriven.into(), &true.into()), "{found}");
        assert_eq!(found["waiting"], 0);
    }
    // What has no way back is told, and stays.
    client.subscribe(Subscribe::new("q-dead", "x")).await.expect("a subscriber").close().await.expect("closed");
    let publisher = client.publisher(PublisherOptions::default()).await.expect("a publisher");
    publisher.publish(OutgoingMessage::new("q-dead", "stray").id("stray")).await.expect("sent").await.expect("stored");
    let stray = server.json(&["queue", "redrive", "q-dead", "--id", "stray"]).await;
    assert_eq!((&stray["moved"], &stray["refused_count"]), (&json!([]), &1.into()), "{stray}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ledger_balances_while_messages_come_and_go() {
    let config = "[queue.q]\n[queue.out]\n[[route]]\nname = \"r\"\nfrom = \"q\"\nto = [\"out\"]\n";
    let server = TestServer::start(QUIPU, config).await;
    let client = server.client().await;
    let publishing = tokio::spawn({
        let client = client.clone();
        async move { publish(&client, 3_000).await }
    });
    let consuming = tokio::spawn({
        let client = client.clone();
        async move {
            let mut subscriber = client.subscribe(Subscribe::new("out", "s")).await.expect("a subscriber");
            for n in 0..3_000 {
                let delivery = soon("a delivery", subscriber.next()).await.expect("open").expect("a delivery");
                match n % 3 {
                    0 => delivery.nack_later(std::time::Duration::from_millis(1)).await.expect("settled"),
                    1 => drop(delivery.reject("no").await.expect("settled")),
                    _ => delivery.ack_later().await.expect("settled"),
                }
            }
            subscriber.close().await.expect("closed");
        }
    });
    let mut looks = 0;
    while !(publishing.is_finished() && consuming.is_finished()) {
        let ledger = server.json(&["ledger"]).await;
        for subscription in ledger["subscriptions"].as_array().expect("a list") {
            assert_eq!(subscription["came"], subscription["accounted"], "{subscription}");
        }
        looks += 1;
    }
    publishing.await.expect("published");
    consuming.await.expect("consumed");
    assert!(looks > 0);
    let table = server.cli(&["ledger", "out"]).await;
    assert!(table.starts_with("QUEUE") && table.contains("balanced"), "{table}");
    assert_eq!(server.cli_output(&["ledger", "nowhere"]).await.status.code(), Some(1));
}

#[tokio::test]
async fn a_copy_made_while_running_opens_as_a_store() {
    let server = TestServer::start(QUIPU, "[queue.q]\n").await;
    let client = server.client().await;
    publish(&client, 50).await;
    let second = tempfile::tempdir().expect("a temporary directory");
    let path = second.path().join("data");
    server.cli(&["store", "backup", path.to_str().expect("text")]).await;
    publish(&client, 1).await;
    let again = server.cli_output(&["store", "backup", path.to_str().expect("text")]).await;
    assert_eq!(again.status.code(), Some(1), "it is there already");
    let relative = client.call("store.backup", json!({ "path": "relative" })).await;
    assert!(relative.expect_err("refused").to_string().contains("no absolute path"));

    let copy = TestServer::start_in(QUIPU, "[queue.q]\n", second).await;
    let copied = copy.client().await;
    let mut subscriber = copied.subscribe(Subscribe::new("q", "s")).await.expect("a subscriber");
    for n in 0..50 {
        let delivery = soon("a delivery", subscriber.next()).await.expect("open").expect("a delivery");
        assert_eq!(delivery.message.payload, json!({ "n": n }).to_string());
        delivery.ack_later().await.expect("settled");
    }
    subscriber.close().await.expect("closed");
    assert_eq!(copy.json(&["queue", "show", "q"]).await["queue"]["messages"], 0);
    assert!(server.cli(&["store", "compact"]).await.starts_with("state file: "));
}

#[tokio::test]
async fn a_damaged_store_is_named_and_what_is_left_of_it_is_saved() {
    let mut server = TestServer::start(QUIPU, "[queue.q]\n").await;
    let client = server.client().await;
    publish(&client, 200).await;
    server.cli(&["store", "compact"]).await;
    let data = server.directory().join("data");
    let running = server.cli_output(&["store", "verify", data.to_str().expect("text")]).await;
    assert_eq!(running.status.code(), Some(1), "it is in use");
    assert_eq!(server.terminate().await, Some(0));
    let run = async |arguments: &[&str]| quipu_tests::output_of(QUIPU, server.directory(), arguments).await;
    let (code, said, _) = run(&["store", "verify", "data"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("queue q: 200 messages") && said.ends_with("no damage\n"), "{said}");
    // One byte of one message.
    let mut state = std::fs::read(data.join("state.redb")).expect("a state file");
    let at = state.windows(9).position(|bytes| bytes == b"{\"n\":150}").expect("a message");
    state[at + 6] ^= 1;
    std::fs::write(data.join("state.redb"), state).expect("written");
    let (code, said, _) = run(&["store", "verify", "data"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("queue q") && said.contains("store salvage"), "{said}");
    let (code, said, _) = run(&["store", "salvage", "data", "saved"]).await;
    assert_eq!(code, Some(0), "{said}");
    let (code, said, _) = run(&["store", "verify", "saved"]).await;
    assert_eq!(code, Some(0), "{said}");
}

#[tokio::test]
async fn a_router_that_works_is_ready() {
    let server = TestServer::start(QUIPU, "[queue.q]\n").await;
    assert!(server.cli(&["status"]).await.starts_with("ready\n"));
    let status = server.json(&["status"]).await;
    assert_eq!((&status["ready"], &status["reasons"]), (&true.into(), &json!([])));
}

#[tokio::test]
async fn check_says_which_routes_promise_less_than_it_seems() {
    let config = "[queue.q]\n[queue.fast]\ndurability = \"buffered\"\n[queue.all]\nretention = \"log\"\n\
                  [[route]]\nname = \"r\"\nfrom = \"q\"\nto = [\"fast\"]\n\
                  [[route]]\nname = \"s\"\nfrom = \"q\"\nto = [\"all\"]\n";
    let directory = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(directory.path().join("quipu.toml"), config).expect("written");
    let (code, said, _) = quipu_tests::output_of(QUIPU, directory.path(), &["check", "--memory"]).await;
    assert_eq!(code, Some(0));
    assert!(said.contains("note: route \"r\": buffered, because queue \"fast\" is"), "{said}");
    assert!(said.contains("note: queue \"all\": a log without end"), "{said}");
    assert!(!said.contains("route \"s\""), "{said}");
    assert!(said.contains("redb's cache") && said.lines().last().expect("a line").starts_with("together"), "{said}");
}
