//! Mistakes of plugins in Python and JavaScript in a router: one fingerprint for one mistake, taken from the language's own
//! traceback, whatever the message and whatever the version. Where a tool is missing the test says which, and passes.

use quipu_client::{OutgoingMessage, PublisherOptions, Subscribe};
use quipu_tests::{TestServer, soon};
use serde_json::json;

use crate::QUIPU;
use crate::languages::Language;
use crate::scripted::{JAVASCRIPT, PYTHON, a_project};

/// On a busy machine an interpreter's 50 ms may all be waiting.
const CONFIG: &str = r#"
[queue.in]
[queue.out]
[queue.dead]
[plugin.tried]
file = "tried.wasm"
deadline = "10s"
[[route]]
name = "r"
from = "in"
plugins = [{ name = "tried", config = { at_least = 1.0 } }]
to = ["out"]
on_error = { attempts = 1, then = "dead" }
"#;

#[tokio::test]
async fn python() {
    let Some(language) = a_project("python").await else { return };
    let what = ["KeyError: 'properties'", "app.py", "in process"];
    one_mistake_has_one_fingerprint(&language, "app.py", PYTHON, "# Another line.\n\n", what).await;
}

#[tokio::test]
async fn javascript() {
    let Some(language) = a_project("js").await else { return };
    let what = ["cannot read property 'mag' of undefined", "plugin.js", "process"];
    one_mistake_has_one_fingerprint(&language, "plugin.js", JAVASCRIPT, "// Another line.\n\n", what).await;
}

/// `above` goes in front of the source for a second version, so that its lines are others. `what` is the text, the file and
/// the function of the first mistake.
async fn one_mistake_has_one_fingerprint(language: &Language, file: &str, text: &str, above: &str, what: [&str; 3]) {
    let build = async |text: &str| {
        std::fs::write(language.path("tried").join(file), text).expect("written");
        language.good(&["plugin", "build", "tried"], "").await;
        std::fs::read(language.path("tried/.quipu/tried.wasm")).expect("built")
    };
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("tried.wasm"), build(text).await).expect("written");
    let server = TestServer::start_in(QUIPU, CONFIG, directory).await;
    let client = server.client().await;
    let publisher = client.publisher(PublisherOptions::default()).await.expect("a publisher");
    let publish = async |id: &str, todo: &str| {
        let payload = json!({ "id": id, "do": todo }).to_string();
        let message = OutgoingMessage::new("in", payload).id(id);
        publisher.publish(message).await.expect("sent").await.expect("stored");
    };
    let dead = async |count: u64| {
        let count = json!(count);
        let there = async || server.json(&["queue", "list"]).await["queues"][0]["messages"] == count;
        soon("dead letters", async { while !there().await {} }).await;
    };
    publish("a", "missing").await;
    publish("b", "missing").await;
    publish("c", "exception").await;
    dead(3).await;

    // The same mistakes some lines further down.
    let later = server.directory().join("later.wasm");
    std::fs::write(&later, build(&format!("{above}{text}")).await).expect("written");
    server.cli(&["plugin", "push", later.to_str().expect("text"), "--name", "tried", "--tag", "2"]).await;
    server.cli(&["plugin", "deploy", "tried@2", "--route", "r"]).await;
    publish("d", "missing").await;
    dead(4).await;

    let traps = server.json(&["plugin", "traps", "tried"]).await;
    let traps = traps["traps"].as_array().expect("a list");
    assert_eq!(traps.iter().map(|trap| &trap["count"]).collect::<Vec<_>>(), [&json!(3), &json!(1)], "{traps:?}");
    let [missing, exception] = [&traps[0], &traps[1]];
    assert_ne!(missing["first_digest"], missing["last_digest"], "{missing}");
    assert_eq!(exception["first_digest"], missing["first_digest"]);
    let said = format!("{}\n{}", missing["text"], missing["trace"]);
    for part in what {
        assert!(said.contains(part), "{part:?} is missing: {said}");
    }

    // All three letters of the first mistake go back, the fourth stays.
    let fingerprint = missing["fingerprint"].as_str().expect("text");
    let mut letters = client.subscribe(Subscribe::new("dead", "reader")).await.expect("a subscriber");
    let mut found = Vec::new();
    for _ in 0..4 {
        let letter = soon("a letter", letters.next()).await.expect("open").expect("delivered");
        let said = letter.message.headers.first("quipu-dead-fingerprint").map(str::to_owned);
        found.push((letter.message.id.to_string(), said.as_deref() == Some(fingerprint)));
    }
    letters.close().await.expect("closed");
    let same = |id: &str, same: bool| (id.to_owned(), same);
    assert_eq!(found, [same("a", true), same("b", true), same("c", false), same("d", true)]);
    let dry = server.json(&["queue", "redrive", "dead", "--fingerprint", fingerprint, "--dry-run"]).await;
    assert_eq!(dry["moved"], json!([{ "queue": "in", "subscription": "route:r", "count": 3 }]), "{dry}");
}
