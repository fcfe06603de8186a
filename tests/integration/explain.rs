//! What the router tells of messages: where one would go, what became of one, and what a plugin saw that failed on one.

use std::path::{Path, PathBuf};

use quipu_client::{Client, OutgoingMessage, PublisherOptions, Subscribe};
use quipu_tests::{TestServer, output_of, soon};
use serde_json::{Value, json};

use crate::QUIPU;

const CONFIG: &str = r#"
[trace]
mode = "all"
[queue.raw]
[queue.mid]
[queue.out]
[queue.dead]
[plugin.first]
file = "first.wasm"
[plugin.second]
file = "second.wasm"
[[route]]
name = "clean"
from = "raw"
when = 'subject != "never"'
plugins = [{ name = "first", config = { mark = "one" } }, { name = "second", config = { limit = 7 } }]
to = ["mid"]
on_error = { attempts = 1, then = "dead" }
[[route]]
name = "pass"
from = "mid"
to = ["out"]
"#;

/// A plugin that marks messages with its label, and then decides as `process` says.
fn wasm(label: &str, process: &str) -> Vec<u8> {
    let text = GUEST.replace("{label}", label).replace("{length}", &label.len().to_string());
    wat::parse_str(text.replace("{process}", process)).expect("valid WAT")
}

const GUEST: &str = r#"(module
  (import "quipu:plugin/edit@0.1.0" "set-header" (func $set-header (param i32 i32 i32 i32)))
  (import "quipu:plugin/message@0.1.0" "header" (func $header (param i32 i32 i32)))
  (memory (export "memory") 2)
  (global $heap (mut i32) (i32.const 8192))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (global.set $heap (i32.add (global.get $heap) (i32.const 64)))
    (i32.sub (global.get $heap) (i32.const 64)))
  (func (export "quipu:plugin/handler@0.1.0#configure") (result i32) (i32.const 0))
  (func $bad (result i32)
    (call $header (i32.const 1064) (i32.const 3) (i32.const 512))
    (i32.load8_u (i32.const 512)))
  (func $decide (result i32) {process})
  (func (export "quipu:plugin/handler@0.1.0#process") (result i32)
    (call $set-header (i32.const 1024) (i32.const {length}) (i32.const 1024) (i32.const {length}))
    (call $decide))
  (data (i32.const 1024) "{label}")
  (data (i32.const 1064) "bad"))"#;

const FORWARD: &str = "(i32.const 0)";
/// Traps where the message has a header `bad`.
const TRAP_ON_BAD: &str = "(if (call $bad) (then (unreachable))) (i32.const 0)";

async fn start() -> TestServer {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("first.wasm"), wasm("seen-by-first", FORWARD)).expect("written");
    std::fs::write(directory.path().join("second.wasm"), wasm("seen-by-second", TRAP_ON_BAD)).expect("written");
    TestServer::start_in(QUIPU, CONFIG, directory).await
}

async fn publish(client: &Client, id: &str, headers: &[(&str, &str)]) {
    let publisher = client.publisher(PublisherOptions::default()).await.expect("a publisher");
    let mut message = OutgoingMessage::new("raw", json!({ "id": id }).to_string()).id(id);
    for (name, value) in headers {
        message = message.header(name, value);
    }
    publisher.publish(message).await.expect("sent").await.expect("stored");
    publisher.close().await.expect("closed");
}

/// The next message of a queue, taken and acked; its id.
async fn take(client: &Client, queue: &str) -> String {
    let mut subscriber = client.subscribe(Subscribe::new(queue, "reader")).await.expect("a subscriber");
    let delivery = soon("a delivery", subscriber.next()).await.expect("open").expect("a delivery");
    let id = delivery.message.id.as_str().to_owned();
    delivery.ack().await.expect("settled");
    subscriber.close().await.expect("closed");
    id
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

fn write(server: &TestServer, file: &str, bytes: &[u8]) -> PathBuf {
    let path = server.directory().join(file);
    std::fs::write(&path, bytes).expect("written");
    path
}

#[tokio::test]
async fn a_message_is_walked_through_and_nothing_happens() {
    let server = start().await;
    let client = server.client().await;
    client.subscribe(Subscribe::new("out", "reader")).await.expect("a subscriber").close().await.expect("closed");
    let before = (server.json(&["ledger"]).await, server.json(&["queue", "list"]).await);

    let said = server.json(&["explain", "raw", "--message", "{\"n\":1}", "--message-key", "k"]).await;
    let steps = said["steps"].as_array().expect("steps");
    assert_eq!(steps.len(), 3, "{said}");
    assert_eq!((&steps[0]["at"], &steps[0]["queues"]), (&json!("publish"), &json!(["raw"])));
    assert_eq!((&steps[1]["route"], &steps[1]["when"]["matches"]), (&json!("clean"), &json!(true)));
    let hops = steps[1]["hops"].as_array().expect("hops");
    assert_eq!(hops.iter().map(|hop| &hop["verdict"]).collect::<Vec<_>>(), ["forward", "forward"]);
    assert_eq!(hops[1]["changes"][0]["what"], "header seen-by-second", "{said}");
    assert!(hops.iter().all(|hop| hop["ns"].as_u64() > Some(0) && hop["memory_bytes"].as_u64() >= Some(131_072)));
    assert_eq!((&steps[1]["outputs"][0]["queues"], &steps[2]["route"]), (&json!(["mid"]), &json!("pass")));
    assert_eq!(
        (&said["ends"][0]["how"], &said["ends"][0]["text"]),
        (&json!("queue"), &json!("out, for reader")),
        "{said}"
    );

    let table = server.cli(&["explain", "raw", "--header", "bad=yes"]).await;
    assert!(
        table.contains("fault unreachable") && table.contains("end       dead-letter dead, after 1 attempts"),
        "{table}"
    );
    assert!(table.contains("nothing was stored and nothing was sent"), "{table}");

    let other = write(&server, "other.wasm", &wasm("seen-by-other", FORWARD));
    let with = ["explain", "raw", "--header", "bad=yes", "--with", text(&other), "--plugin", "second"];
    let said = server.json(&with).await;
    assert_eq!(said["steps"][1]["end"], "forward", "{said}");
    assert_eq!(said["steps"][1]["hops"][1]["changes"][0]["what"], "header seen-by-other", "{said}");
    let refused = server.cli_output(&["explain", "raw", "--with", text(&other)]).await;
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("no route uses plugin \"other\": say --plugin"),
        "{refused:?}"
    );
    let nowhere = server.cli(&["explain", "nowhere"]).await;
    assert!(nowhere.contains("no queue takes nowhere: the publisher is told so"), "{nowhere}");

    let after = (server.json(&["ledger"]).await, server.json(&["queue", "list"]).await);
    assert_eq!(before, after, "no queue and no ledger knows of it");
    assert_eq!(server.json(&["plugin", "traps"]).await["traps"], json!([]));
}

#[tokio::test]
async fn what_a_plugin_failed_on_is_replayed_after_a_restart_and_redriven() {
    let mut server = start().await;
    let client = server.client().await;
    publish(&client, "m1", &[("bad", "yes")]).await;
    assert_eq!(take(&client, "dead").await, "m1");
    // Another one, which stays.
    publish(&client, "m2", &[("bad", "yes")]).await;
    let shown = loop {
        let shown = server.json(&["message", "show", "m2"]).await;
        if shown["places"].as_array().is_some_and(|places| places.iter().any(|place| place["queue"] == "dead")) {
            break shown;
        }
    };
    assert_eq!(shown["places"][0]["dead"]["fault"], "unreachable", "{shown}");
    let table = server.cli(&["message", "show", "m2"]).await;
    assert!(table.contains("published to raw: stored") && table.contains("dead-lettered by route:clean"), "{table}");
    assert!(table.contains("is in dead offset 1") && table.contains("dead: fingerprint"), "{table}");

    let fingerprint = shown["places"][0]["dead"]["fingerprint"].as_str().expect("a fingerprint").to_owned();
    let traps = server.json(&["plugin", "traps"]).await;
    assert_eq!((&traps["traps"][0]["fingerprint"], &traps["traps"][0]["count"]), (&json!(fingerprint), &json!(2)));
    assert_eq!(traps["traps"][0]["first_digest"], traps["traps"][0]["last_digest"]);

    client.close().await;
    assert_eq!(server.terminate().await, Some(0));
    // The route is configured otherwise by now, and serves another version.
    let config = std::fs::read_to_string(server.directory().join("quipu.toml")).expect("read");
    let failed = write(&server, "failed.wasm", &wasm("seen-by-second", TRAP_ON_BAD));
    std::fs::write(server.directory().join("quipu.toml"), config.replace("limit = 7", "limit = 8")).expect("written");
    server.restart().await;
    let file = server.directory().join("m2.json");
    let said = server.cli(&["message", "capsule", "dead", "1", "-o", text(&file)]).await;
    assert!(said.contains("dead offset 1: fault unreachable in second"), "{said}");
    let capsule: Value = serde_json::from_str(&std::fs::read_to_string(&file).expect("read")).expect("JSON");
    let by_id: Value = serde_json::from_str(&server.cli(&["message", "capsule", "--id", "m2"]).await).expect("JSON");
    assert_eq!(capsule, by_id);
    assert_eq!(capsule["config"], "{\"limit\":7}");
    let headers = capsule["message"]["headers"].as_array().expect("headers");
    assert!(headers.contains(&json!(["seen-by-first", "seen-by-first"])), "as the first plugin left it: {capsule}");
    assert!(headers.iter().all(|header| !header[0].as_str().expect("text").starts_with("quipu-dead-")), "{capsule}");

    let run = |wasm: PathBuf| {
        let (file, directory) = (file.clone(), server.directory().to_owned());
        async move { output_of(QUIPU, &directory, &["plugin", "run", text(&wasm), "--capsule", text(&file)]).await }
    };
    let (code, out, error) = run(failed).await;
    assert_eq!((code, error.contains("same as recorded: fault unreachable")), (Some(0), true), "{out} {error}");
    let (code, out, error) = run(write(&server, "fixed.wasm", &wasm("seen-by-second", FORWARD))).await;
    assert_eq!(code, Some(1), "{out} {error}");
    assert!(error.contains("differs from what was recorded: fault unreachable then, forward now"), "{error}");
    assert!(error.contains("another file than the one that failed"), "{error}");

    let none = server.json(&["queue", "redrive", "dead", "--fingerprint", "000000000000"]).await;
    assert_eq!(none["moved"], json!([]), "{none}");
    let dry = server.json(&["queue", "redrive", "dead", "--fingerprint", &fingerprint, "--dry-run"]).await;
    assert_eq!(dry["moved"], json!([{ "queue": "raw", "subscription": "route:clean", "count": 1 }]), "{dry}");
    let no_letter = server.cli_output(&["message", "capsule", "--id", "nobody"]).await;
    assert_eq!(no_letter.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&no_letter.stderr).contains("no dead letter of a plugin has the id"),
        "{no_letter:?}"
    );
}

/// Where compiled code is, how many files of it there are.
fn codes(server: &TestServer) -> usize {
    std::fs::read_dir(server.directory().join("data/plugins/compiled")).expect("a directory").count()
}

#[tokio::test]
async fn what_is_only_tried_or_refused_leaves_nothing_on_disk() {
    let server = start().await;
    let before = codes(&server);
    for n in 0..3 {
        let other = write(&server, "second.other.wasm", &wasm(&format!("seen-by-{n}"), FORWARD));
        let with = ["explain", "raw", "--with", text(&other), "--plugin", "second"];
        assert_eq!(server.json(&with).await["steps"][1]["end"], "forward");
        let refused = server.cli_output(&["plugin", "push", text(&other), "--name", "p", "--tag", "1"]).await;
        // The tag is the first one's.
        assert_eq!(refused.status.success(), n == 0, "{refused:?}");
        assert_eq!(codes(&server), before + 1, "that of the version that is kept");
    }
    let no_plugin = write(&server, "no.wasm", &wat::parse_str("(component)").expect("valid WAT"));
    assert!(!server.cli_output(&["plugin", "push", text(&no_plugin)]).await.status.success());
    assert_eq!(codes(&server), before + 1);
}

#[tokio::test]
async fn the_largest_messages_are_explained_and_replayed_too() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("first.wasm"), wasm("seen-by-first", FORWARD)).expect("written");
    std::fs::write(directory.path().join("second.wasm"), wasm("seen-by-second", TRAP_ON_BAD)).expect("written");
    let server = TestServer::start_in(QUIPU, &format!("journal_segment = \"64MiB\"\n{CONFIG}"), directory).await;
    let client = server.client().await;
    let payload = vec![b'x'; (8 << 20) - 1_000];
    let file = write(&server, "large", &payload);
    let said = server.json(&["explain", "raw", "--file", text(&file), "--header", "bad=yes"]).await;
    assert_eq!(said["ends"][0]["how"], "dead-letter", "{said}");
    let over = write(&server, "over", &vec![b'x'; (8 << 20) + 1]);
    let refused = server.cli_output(&["explain", "raw", "--file", text(&over)]).await;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("over has more than 8388608 bytes"), "{refused:?}");

    let publisher = client.publisher(PublisherOptions::default()).await.expect("a publisher");
    let message = OutgoingMessage::new("raw", payload).id("large").header("bad", "yes");
    publisher.publish(message).await.expect("sent").await.expect("stored");
    publisher.close().await.expect("closed");
    assert_eq!(take(&client, "dead").await, "large");
    // Another, which stays.
    let publisher = client.publisher(PublisherOptions::default()).await.expect("a publisher");
    let message = OutgoingMessage::new("raw", vec![b'y'; (8 << 20) - 1_000]).id("larger").header("bad", "yes");
    publisher.publish(message).await.expect("sent").await.expect("stored");
    soon("a letter", async { while server.json(&["queue", "show", "dead"]).await["queue"]["messages"] != 1 {} }).await;
    let capsule = server.directory().join("capsule");
    let said = server.cli(&["message", "capsule", "dead", "1", "-o", text(&capsule)]).await;
    assert!(said.contains("dead offset 1: fault unreachable in second"), "{said}");
    let run = ["plugin", "run", "second.wasm", "--capsule", "capsule"];
    let (code, _, error) = output_of(QUIPU, server.directory(), &run).await;
    assert_eq!((code, error.contains("same as recorded: fault unreachable")), (Some(0), true), "{error}");
}

#[tokio::test]
async fn what_became_of_a_message_is_told_from_its_publish_to_its_settlement() {
    let server = start().await;
    let client = server.client().await;
    publish(&client, "good", &[]).await;
    let made = take(&client, "out").await;
    assert_ne!(made, "good", "what a route makes has an id of its own");
    let shown = server.json(&["message", "show", "good"]).await;
    let events: Vec<(&str, &str)> = shown["events"]
        .as_array()
        .expect("events")
        .iter()
        .map(|event| (event["event"].as_str().expect("text"), event["route"].as_str().unwrap_or_default()))
        .collect();
    let place = |event: (&str, &str)| events.iter().position(|known| *known == event).expect("it is told");
    let order = [("published", ""), ("attempt", "clean"), ("outputs", "clean"), ("attempt", "pass"), ("delivered", "")];
    assert!(order.map(place).is_sorted(), "{events:?}");
    let of =
        |name: &str| shown["events"].as_array().expect("events").iter().rfind(|e| e["event"] == name).expect("told");
    assert!(of("delivered")["consumer"].as_str().is_some_and(|name| !name.is_empty()), "{shown}");
    assert_eq!(
        (&of("settled")["subscription"], &of("settled")["outcome"]),
        (&json!("reader"), &json!("acked")),
        "{shown}"
    );
    assert_eq!(shown["events"], server.json(&["message", "show", &made]).await["events"], "the same from its end");
    let table = server.cli(&["message", "show", "good"]).await;
    assert!(table.contains("route clean, attempt 1: forward") && table.contains("settled by reader: acked"), "{table}");
    assert!(table.contains("trace: all"), "{table}");

    let unknown = server.cli_output(&["message", "show", "nobody"]).await;
    let said = String::from_utf8_lossy(&unknown.stdout).into_owned();
    assert_eq!((unknown.status.code(), said.contains("nothing is known of nobody")), (Some(1), true), "{said}");

    let path = server.directory().join("quipu.toml");
    let config = std::fs::read_to_string(&path).expect("read");
    std::fs::write(&path, config.replace("mode = \"all\"", "mode = \"off\"")).expect("written");
    assert!(server.cli(&["diff"]).await.contains("~ trace: mode: all → off"));
    server.cli(&["reload"]).await;
    let gone = server.cli_output(&["message", "show", "good"]).await;
    let said = String::from_utf8_lossy(&gone.stdout).into_owned();
    assert!(said.contains("trace: off"), "{said}");
    assert_eq!((gone.status.code(), said.contains("route clean")), (Some(1), false), "off, all of it goes: {said}");
}

const STANDING: &str = r#"
[queue.raw]
subjects = ["door.>"]
[queue.out]
[plugin.trap]
file = "trap.wasm"
[[route]]
name = "door"
on = "door.>"
plugins = [{ name = "filter-json", config = { field = "n", at_least = 2, missing = "reject" } }]
to = ["out"]
[[route]]
name = "guard"
on = "guard"
broken_after = 1
plugins = [{ name = "trap" }]
to = ["out"]
[[route]]
name = "waits"
from = "raw"
plugins = [{ name = "later" }]
to = ["out"]
[[route]]
name = "breaks"
from = "raw"
broken_after = 1
plugins = [{ name = "trap" }]
to = ["out"]
"#;

#[tokio::test]
async fn inline_held_and_broken_routes_are_explained_as_they_are() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("trap.wasm"), wasm("trap", "(unreachable)")).expect("written");
    let server = TestServer::start_in(QUIPU, STANDING, directory).await;
    let client = server.client().await;
    let ends = async |arguments: &[&str]| -> Vec<String> {
        let said = server.json(&[&["explain"], arguments].concat()).await;
        let ends = said["ends"].as_array().expect("ends").clone();
        ends.iter().map(|end| format!("{}: {}", end["how"], end["text"]).replace('"', "")).collect()
    };
    assert_eq!(
        ends(&["door.a", "--message", "{}"]).await,
        ["refused: the publisher gets reject: n absent; nothing is stored"]
    );
    // What the inline route makes of it, and the queue's routes: one has no plugin yet, the other fails.
    let passed = ends(&["door.a", "--message", "{\"n\":3}"]).await;
    let has = |part: &str| passed.iter().any(|end| end.contains(part));
    assert!(has("queue: out, which nobody reads yet"), "{passed:?}");
    assert!(
        has("waits: in raw: route waits is held: ") && has("dead-letter: raw-dead, after 5 attempts"),
        "{passed:?}"
    );

    // Each breaks with its first message.
    let publisher = client.publisher(PublisherOptions::default()).await.expect("a publisher");
    publisher.publish(OutgoingMessage::new("raw", "{}")).await.expect("sent").await.expect("stored");
    publisher.publish(OutgoingMessage::new("guard", "{}")).await.expect("sent").await.expect_err("it traps");
    soon("a broken route", async {
        while !server
            .cli(&["route", "list"])
            .await
            .lines()
            .any(|line| line.starts_with("breaks") && line.contains("broken"))
        {}
    })
    .await;
    let broken = ends(&["door.a", "--message", "{\"n\":3}"]).await;
    assert!(broken.iter().any(|end| end.starts_with("waits: route breaks is broken now: ")), "{broken:?}");
    let guard = ends(&["guard"]).await;
    assert_eq!(guard.len(), 1, "{guard:?}");
    assert!(guard[0].starts_with("refused: route guard is broken: "), "{guard:?}");
    assert!(guard[0].ends_with("the publisher is told to try again later"), "{guard:?}");
}
