//! SIGKILL under load.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quipu_client::{Client, Mode, OutgoingMessage, PublisherOptions, Receipt, Subscribe, Why};
use quipu_tests::{PATIENCE, TestServer, soon};
use serde_json::json;
use tokio::sync::{mpsc, watch};

use crate::QUIPU;

/// Kills of the router; `QUIPU_KILLS` sets another number.
const KILLS: usize = 20;
/// Keys of the messages.
const KEYS: u64 = 16;
/// Messages acknowledged between two kills, at least.
const BETWEEN_KILLS: u64 = 400;

/// Every message goes to `even` or `odd` by a plugin, and to `copies` by a second route.
const CONFIG: &str = r#"
[queue.in]
[queue.even]
[queue.odd]
[queue.copies]
[[route]]
name = "sort"
from = "in"
plugins = [{ name = "route-by-field", config = { field = "half", table = { even = "even", odd = "odd" } } }]
to = ["odd"]
[[route]]
name = "copy"
from = "in"
to = ["copies"]
parallel = 2
[queue.direct]
subjects = ["in"]
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_acknowledged_message_is_at_each_destination_exactly_once_and_in_order_after_kills() {
    let kills = std::env::var("QUIPU_KILLS").map_or(KILLS, |text| text.parse().expect("a number"));
    let mut server = TestServer::start(QUIPU, CONFIG).await;
    let client = server.client().await;
    let stop = Arc::new(AtomicBool::new(false));
    let (count, mut acknowledged) = watch::channel(0);
    let load = tokio::spawn(publish(client.clone(), stop.clone(), count));
    let consumer = tokio::spawn(consume_all(client.clone(), stop.clone()));
    for kill in 0..kills {
        let wanted = (kill as u64 + 1) * BETWEEN_KILLS;
        soon("acknowledgements", acknowledged.wait_for(|count| *count >= wanted)).await.expect("the publisher");
        server.kill().await;
        server.restart().await;
    }
    stop.store(true, Ordering::Release);
    let stored = soon("the last receipts", load).await.expect("the publisher");
    assert!(stored.len() as u64 >= kills as u64 * BETWEEN_KILLS);
    let seen = soon("the consumer's end", consumer).await.expect("the consumer");
    consume_rest(&server, &client, seen, &stored).await;
    let redriven = work_off(&server, &client).await;
    for queue in ["copies", "even", "odd"] {
        let here = |id: &&String| queue == "copies" || half_of(number_of(id)) == queue;
        let expected: HashSet<String> = stored.iter().filter(here).cloned().collect();
        consume(&server, &client, queue, expected, &redriven).await;
    }
    // Nothing more is to come, so nothing came twice.
    let appended = [appended(&client, "in").await, appended(&client, "copies").await];
    assert_eq!(appended, [(stored.len() + redriven.len()) as u64, stored.len() as u64]);
    assert_eq!(appended_sum(&client).await, stored.len() as u64);
    assert_balanced(&client).await;
    client.close().await;
}

/// Lets the routes finish. A message that was in a route's hands at several kills, the last time alone, is given up when
/// its turn comes again, since the router may have died of it. It did not: it goes back. Which they were, each time.
async fn work_off(server: &TestServer, client: &Client) -> Vec<String> {
    let mut redriven = Vec::new();
    loop {
        let done = async { while waiting(client).await > 0 {} };
        if tokio::time::timeout(PATIENCE, done).await.is_err() {
            stalled(server, client, "in", &HashSet::new()).await;
        }
        match redrive_all(client, "in").await {
            moved if moved.is_empty() => return redriven,
            moved => redriven.extend(moved),
        }
    }
}

/// Puts back what is in the dead-letter queue of this one; their ids.
async fn redrive_all(client: &Client, queue: &str) -> Vec<String> {
    let queue = format!("{queue}-dead");
    let dead = dead_letters(client, &queue).await;
    let (mut moved, mut from) = (0, 0);
    while !dead.is_empty() {
        let answer = client.call("queue.redrive", json!({ "queue": queue, "from": from })).await.expect("moved");
        assert_eq!(answer["refused_count"], 0, "{answer}");
        moved += answer["moved_count"].as_u64().expect("a count");
        if answer["done"] == true {
            break;
        }
        from = answer["next"].as_u64().expect("an offset");
    }
    assert_eq!(moved, dead.len() as u64, "{dead:?}");
    dead
}

/// The ids of what is in this dead-letter queue.
async fn dead_letters(client: &Client, queue: &str) -> Vec<String> {
    let (mut ids, mut before) = (Vec::new(), json!(null));
    loop {
        let arguments = json!({ "queue": queue, "last": 256, "before": before });
        let answer = match client.call("queue.peek", arguments).await {
            Ok(answer) => answer,
            // None was given up.
            Err(e) => {
                assert!(e.to_string().contains("no queue"), "{e}");
                return ids;
            }
        };
        let messages = answer["messages"].as_array().expect("a list");
        ids.extend(messages.iter().map(|one| one["message"]["id"].as_str().expect("an id").to_owned()));
        before = answer["before"].clone();
        if before.is_null() {
            return ids;
        }
    }
}

/// Reads and settles through all kills, as messages come: each key in order. What came.
async fn consume_all(client: Client, stop: Arc<AtomicBool>) -> HashSet<String> {
    let mut seen = HashSet::new();
    let subscribe = Subscribe { mode: Mode::KeyShared, ..Subscribe::new("direct", "through") };
    let mut subscriber = client.subscribe(subscribe).await.expect("a subscriber");
    let mut last: HashMap<u64, u64> = HashMap::new();
    while !stop.load(Ordering::Acquire) {
        let Ok(next) = tokio::time::timeout(Duration::from_millis(50), subscriber.next()).await else { continue };
        let delivery = next.expect("open").expect("a delivery");
        let n = number_of(delivery.message.id.as_str());
        let known = last.entry(n % KEYS).or_insert(n);
        // One that comes again was in hand when the router was killed.
        assert!(n >= *known || delivery.why != Why::First, "message {n} of its key after {known}");
        *known = (*known).max(n);
        seen.insert(delivery.message.id.to_string());
        // Stale where the router was killed in between.
        delivery.ack_later().await.ok();
    }
    subscriber.close().await.expect("closed");
    seen
}

/// Takes what the consumer of all kills had not come to: each acknowledged message was delivered to it, or given up because
/// it was in its hands at several kills, as in [`work_off`], and goes back.
async fn consume_rest(server: &TestServer, client: &Client, mut seen: HashSet<String>, stored: &HashSet<String>) {
    let subscribe = Subscribe { mode: Mode::KeyShared, ..Subscribe::new("direct", "through") };
    let mut subscriber = client.subscribe(subscribe).await.expect("a subscriber");
    let rest = async {
        while !stored.is_subset(&seen) {
            let Ok(next) = tokio::time::timeout(Duration::from_millis(500), subscriber.next()).await else {
                redrive_all(client, "direct").await;
                continue;
            };
            let delivery = next.expect("open").expect("a delivery");
            seen.insert(delivery.message.id.to_string());
            delivery.ack_later().await.expect("settled");
        }
    };
    if tokio::time::timeout(PATIENCE, rest).await.is_err() {
        let missing = stored.difference(&seen).cloned().collect();
        stalled(server, client, "direct", &missing).await;
    }
    subscriber.close().await.expect("closed");
}

/// Both sides of every subscription's ledger are the same.
async fn assert_balanced(client: &Client) {
    let answer = client.call("ledger", json!({})).await.expect("an answer");
    let rows = answer["subscriptions"].as_array().expect("rows").clone();
    assert!(rows.len() >= 6, "{answer}");
    for row in rows {
        assert_eq!(row["came"], row["accounted"], "{row}");
    }
}

fn number_of(id: &str) -> u64 {
    id.trim_start_matches("message-").parse().expect("a number")
}

fn half_of(n: u64) -> &'static str {
    if n.is_multiple_of(2) { "even" } else { "odd" }
}

/// Publishes until told to stop, over every reconnection; the ids of what was acknowledged.
async fn publish(client: Client, stop: Arc<AtomicBool>, acknowledged: watch::Sender<u64>) -> HashSet<String> {
    let publisher = client.publisher(PublisherOptions::default()).await.expect("a publisher");
    let (sender, mut receipts) = mpsc::channel::<(String, quipu_client::PendingReceipt)>(256);
    let counting = tokio::spawn(async move {
        let mut ids = HashSet::new();
        while let Some((id, receipt)) = receipts.recv().await {
            match receipt.await.expect("a receipt, if late") {
                Receipt::Stored(_) | Receipt::Duplicate(_) => assert!(ids.insert(id)),
                Receipt::Routed => panic!("nothing is routed inline"),
            }
            acknowledged.send_modify(|count| *count += 1);
        }
        ids
    });
    let mut n = 0;
    while !stop.load(Ordering::Acquire) {
        let (id, half) = (format!("message-{n}"), half_of(n));
        let payload = json!({ "n": n, "half": half }).to_string();
        let receipt = publisher
            .publish(OutgoingMessage::new("in", payload).id(&id).key((n % KEYS).to_string()))
            .await
            .expect("published");
        sender.send((id, receipt)).await.expect("counted");
        n += 1;
    }
    drop(sender);
    counting.await.expect("counted")
}

/// Takes messages out of a queue until each of these arrived; fails where one comes twice, or another, or one that was not
/// put back comes behind a later one of its key.
async fn consume(
    server: &TestServer,
    client: &Client,
    queue: &str,
    mut expected: HashSet<String>,
    redriven: &[String],
) {
    let mut last: HashMap<u64, u64> = HashMap::new();
    let mut subscriber = client.subscribe(Subscribe::new(queue, "test")).await.expect("a subscriber");
    while !expected.is_empty() {
        let Ok(next) = tokio::time::timeout(PATIENCE, subscriber.next()).await else {
            stalled(server, client, queue, &expected).await
        };
        let delivery = next.expect("open").expect("a delivery");
        let root = delivery.message.headers.first("quipu-root").expect("an origin");
        assert!(expected.remove(root), "{queue}: {root} came twice, or should not be here");
        let n = number_of(root);
        let known = last.entry(n % KEYS).or_insert(n);
        assert!(n >= *known || redriven.iter().any(|id| id == root), "{queue}: message {n} of its key after {known}");
        *known = (*known).max(n);
        delivery.ack_later().await.expect("settled");
    }
    subscriber.close().await.expect("closed");
}

/// Messages that the routes have not settled.
async fn waiting(client: &Client) -> u64 {
    let answer = client.call("queue.show", json!({ "queue": "in" })).await.expect("an answer");
    answer["queue"]["messages"].as_u64().expect("a count")
}

/// Messages ever appended to a queue.
async fn appended(client: &Client, queue: &str) -> u64 {
    let answer = client.call("queue.show", json!({ "queue": queue })).await.expect("an answer");
    answer["queue"]["next_offset"].as_u64().expect("a count")
}

async fn appended_sum(client: &Client) -> u64 {
    appended(client, "even").await + appended(client, "odd").await
}

/// Fails with what is missing, and what the router says of itself.
async fn stalled(server: &TestServer, client: &Client, queue: &str, missing: &HashSet<String>) -> ! {
    let mut said = String::new();
    for (method, arguments) in [
        ("ledger", json!({})),
        ("route.list", json!({})),
        ("queue.list", json!({})),
        ("queue.show", json!({ "queue": "in" })),
        ("queue.show", json!({ "queue": queue })),
    ] {
        let answer = soon(method, client.call(method, arguments)).await;
        said.push_str(&format!("{method}: {answer:?}\n"));
    }
    let log = std::fs::read_to_string(server.directory().join("log")).expect("a log");
    let log: Vec<&str> = log.lines().rev().take(40).collect();
    let log: Vec<&str> = log.into_iter().rev().collect();
    let missing_some: Vec<_> = missing.iter().take(40).collect();
    panic!("{queue}: {} missing, as {missing_some:?}\n{said}the log's end:\n{}", missing.len(), log.join("\n"));
}
