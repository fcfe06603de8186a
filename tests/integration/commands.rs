//! The command line against a running router.

use std::process::Stdio;

use quipu_tests::{TestServer, quipu, soon};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use crate::QUIPU;

const CONFIG: &str = r#"
[queue.in]
subjects = ["orders.>"]
max_attempts = 2
[queue.big]
[[route]]
name = "big"
from = "in"
when = 'headers["kind"] == "order"'
plugins = [{ name = "filter-json", config = { field = "n", at_least = 5 } }]
to = ["nowhere.{subject.1}", "big"]
"#;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn pairs(headers: &Value) -> std::collections::HashMap<String, String> {
    let pairs: Vec<(String, String)> = serde_json::from_value(headers.clone()).expect("pairs");
    pairs.into_iter().collect()
}

#[tokio::test]
async fn publish_and_subscribe_by_hand() {
    let server = TestServer::start(QUIPU, "[queue.q]\nsubjects = [\"x.*\"]\n").await;
    let told = server.cli(&["pub", "x.y", "--message", "hello"]).await;
    assert!(told.starts_with("1 stored, 0 duplicate, 0 rejected in "), "{told}");
    let input = server.directory().join("input.ndjson");
    let lines =
        ["{\"id\":\"a\",\"t\":{\"k\":\"v\"}}", "", "{\"id\":\"a\",\"t\":{\"k\":\"v\"}}", "no json", "{\"id\":\"b\"}"];
    std::fs::write(&input, lines.join("\n")).expect("written");
    let arguments = ["pub", "x.y", "--file", "input.ndjson", "--id-field", "id", "--header-from", "kind=t.k"];
    let output = server.cli_output(&[&arguments[..], &["--header", "by=hand", "--json"]].concat()).await;
    assert_eq!(output.status.code(), Some(1), "two lines are refused");
    assert_eq!(
        json(&String::from_utf8_lossy(&output.stdout)),
        serde_json::json!({"stored": 1, "duplicate": 1, "rejected": 2})
    );
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("message 4: the payload is no JSON"), "{errors}");
    assert!(errors.contains("message 5: the payload has no field `t.k`"), "{errors}");
    assert_eq!(server.cli(&["sub", "q", "--subscription", "s", "--count", "1"]).await, "hello\n");
    let second = json(&server.cli(&["sub", "q", "--subscription", "s", "--count", "1", "--json"]).await);
    assert_eq!((second["id"].as_str(), second["subject"].as_str()), (Some("a"), Some("x.y")));
    assert_eq!(second["headers"], serde_json::json!([["kind", "v"], ["by", "hand"]]));
    let shown = json(&server.cli(&["queue", "show", "q", "--json"]).await);
    assert_eq!((&shown["queue"]["messages"], &shown["queue"]["subscriptions"][0]["acked"]), (&0.into(), &2.into()));
}

#[tokio::test]
async fn lines_are_published_from_standard_input() {
    let server = TestServer::start(QUIPU, "[queue.q]\n").await;
    let mut command = quipu(QUIPU, server.directory());
    command.env("QUIPU_SERVER", server.address()).args(["pub", "q"]);
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut input = process.stdin.take().expect("piped");
    input.write_all(b"one\ntwo\r\n\nthree").await.expect("written");
    drop(input);
    let output = soon("a command", process.wait_with_output()).await.expect("it ends");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("3 stored, 0 duplicate, 0 rejected"));
    assert_eq!(server.cli(&["sub", "q", "--subscription", "s", "-n", "3"]).await, "one\ntwo\nthree\n");
}

#[tokio::test]
async fn listings_say_what_there_is_and_what_it_did() {
    let server = TestServer::start(QUIPU, &CONFIG.replace("\"nowhere.{subject.1}\", ", "")).await;
    for (n, kind) in [(1, "order"), (7, "order"), (9, "other")] {
        let (message, header) = (format!("{{\"n\":{n}}}"), format!("kind={kind}"));
        server.cli(&["pub", "orders.eu", "--message", &message, "--header", &header]).await;
    }
    assert_eq!(server.cli(&["sub", "big", "--subscription", "s", "-n", "1"]).await, "{\"n\":7}\n");
    let queues = server.cli(&["queue", "list"]).await;
    assert!(queues.lines().next().expect("a heading").starts_with("QUEUE"), "{queues}");
    assert!(queues.contains("orders.>") && queues.contains("synced"), "{queues}");
    let routes = json(&server.cli(&["route", "list", "--json"]).await);
    let route = &routes["routes"][0];
    let counts = ["attempts", "forwarded", "filtered", "dropped"].map(|key| route[key].as_u64().expect("a count"));
    assert_eq!(counts, [3, 1, 1, 1]);
    let table = server.cli(&["route", "list"]).await;
    assert!(table.contains("filter-json@"), "{table}");
    let plugins = json(&server.cli(&["plugin", "list", "--json"]).await);
    assert_eq!(
        (&plugins["plugins"][0]["name"], &plugins["plugins"][0]["routes"][0]),
        (&"filter-json".into(), &"big".into())
    );
    assert!(server.cli(&["plugin", "list"]).await.contains("50 ms"));
}

#[tokio::test]
async fn an_output_that_nothing_takes_ends_as_a_dead_letter_that_says_so() {
    let config = CONFIG.to_owned()
        + "on_error = { attempts = 2, backoff = [\"1ms\"], then = \"lost-property\" }\n[queue.lost-property]\n";
    let server = TestServer::start(QUIPU, &config).await;
    server.cli(&["pub", "orders.eu", "--message", "{\"n\":8}", "--header", "kind=order"]).await;
    let letter = json(&server.cli(&["sub", "lost-property", "--subscription", "s", "-n", "1", "--json"]).await);
    let headers: std::collections::HashMap<String, String> = pairs(&letter["headers"]);
    assert_eq!(headers["quipu-dead-reason"], "no queue or route takes `nowhere.orders`");
    assert_eq!((headers["quipu-dead-route"].as_str(), headers["quipu-dead-attempts"].as_str()), ("big", "2"));
    // All of an attempt's outputs, or none.
    let big = json(&server.cli(&["queue", "show", "big", "--json"]).await);
    assert_eq!(big["queue"]["next_offset"], 0);
}

/// As `quipu sub … | head -0`.
#[tokio::test]
async fn a_reader_that_has_enough_is_no_error() {
    let server = TestServer::start(QUIPU, "[queue.q]\n").await;
    server.cli(&["pub", "q", "--message", "kept"]).await;
    for arguments in [&["sub", "q", "--subscription", "s"][..], &["queue", "list"], &["queue", "show", "q", "--json"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = quipu(QUIPU, server.directory());
        command.env("QUIPU_SERVER", server.address()).args(arguments).stdout(writer).stderr(Stdio::piped());
        let process = command.spawn().expect("it starts");
        let output = soon("a command", process.wait_with_output()).await.expect("it ends");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*error), (Some(0), ""), "{arguments:?}");
    }
    // What could not be printed is not settled, and is there for the next one before the lost connection is noticed.
    let again = server.cli(&["sub", "q", "--subscription", "s", "-n", "1"]);
    let again = tokio::time::timeout(std::time::Duration::from_secs(10), again).await.expect("given back");
    assert_eq!(again, "kept\n");
}

#[tokio::test]
async fn a_name_and_patience_can_be_given_to_pub() {
    let server = TestServer::start(QUIPU, "[queue.q]\nmax_messages = 2\n").await;
    let input = server.directory().join("input");
    std::fs::write(&input, "same\nsame\n").expect("written");
    let told = server.cli(&["pub", "q", "--file", "input", "--name", "till-7"]).await;
    assert!(told.starts_with("2 stored, 0 duplicate, 0 rejected"), "{told}");
    let refused = server.cli_output(&["pub", "q", "--message", "more"]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("queue \"q\" is full"));
    let arguments = ["pub", "q", "--message", "more", "--retry-refused"];
    let (told, taken) =
        tokio::join!(server.cli(&arguments), server.cli(&["sub", "q", "--subscription", "s", "-n", "3"]));
    assert!(told.starts_with("1 stored"), "{told}");
    assert_eq!(taken, "same\nsame\nmore\n");
}
