//! What a change at run time must never do: stop what works, run a route without its plugins, let messages past it, or lose
//! what was acknowledged.

use std::time::Duration;

use quipu_client::{Client, OutgoingMessage, Publisher, PublisherOptions, Receipt, ReceiptError, Subscribe};
use quipu_protocol::code::Code;
use quipu_tests::{HOSTILE_WASM, TestServer, soon};
use serde_json::json;

use crate::QUIPU;
use crate::inline::{next_offset, route};
use crate::plugins::wasm;

const FORWARD: &str = "(i32.const 0)";

/// Changes the configuration file of a router.
fn edit(server: &TestServer, change: impl FnOnce(String) -> String) {
    let file = server.directory().join("quipu.toml");
    let text = std::fs::read_to_string(&file).expect("the configuration");
    std::fs::write(&file, change(text)).expect("written");
}

async fn fails(server: &TestServer, arguments: &[&str]) -> String {
    let output = server.cli_output(arguments).await;
    assert_eq!(output.status.code(), Some(1), "quipu {arguments:?}: {output:?}");
    String::from_utf8(output.stderr).expect("text")
}

async fn push(server: &TestServer, label: &str, tag: &str) {
    let file = server.directory().join("p.pushed.wasm");
    std::fs::write(&file, wasm(label, FORWARD)).expect("written");
    server.cli(&["plugin", "push", file.to_str().expect("text"), "--name", "p", "--tag", tag]).await;
}

async fn publisher(client: &Client) -> Publisher {
    client.publisher(PublisherOptions::default()).await.expect("a publisher")
}

async fn publish(publisher: &Publisher, subject: &str, payload: &str) -> Result<Receipt, ReceiptError> {
    let message = OutgoingMessage::new(subject, payload.to_owned());
    soon("a receipt", publisher.publish(message).await.expect("published")).await
}

fn refused(answer: Result<Receipt, ReceiptError>) -> (Code, Duration, String) {
    match answer {
        Err(ReceiptError::Refused(refusal)) => (refusal.code().expect("known"), refusal.after, refusal.text),
        other => panic!("{other:?}"),
    }
}

/// Publishes a message and says which version marked what came of it.
async fn serves(client: &Client) -> String {
    publish(&publisher(client).await, "q", "{}").await.expect("stored");
    let mut out = client.subscribe(Subscribe::new("out", "test")).await.expect("a subscriber");
    let delivery = soon("a delivery", out.next()).await.expect("open").expect("a delivery");
    let label = delivery.message.headers.first("by").unwrap_or_default().to_owned();
    delivery.ack().await.expect("settled");
    out.close().await.expect("closed");
    label
}

fn one_route(plugins: &str) -> String {
    // On a busy machine a plugin may wait for longer than it may run.
    let patience = "[plugin.p]\ndeadline = \"20s\"\n[plugin.h]\ndeadline = \"20s\"\n";
    format!(
        "{patience}[queue.q]\n[queue.out]\n[[route]]\nname = \"r\"\nfrom = \"q\"\nplugins = [{plugins}]\nto = [\"out\"]\n"
    )
}

#[tokio::test]
async fn a_route_that_lacks_its_plugin_is_not_resumed_without_it() {
    let server = TestServer::start(QUIPU, &one_route("{ name = \"p\" }")).await;
    let client = server.client().await;
    publish(&publisher(&client).await, "q", "{}").await.expect("stored");
    let said = fails(&server, &["route", "resume", "r"]).await;
    assert!(said.contains("route \"r\" lacks its plugins: plugin \"p\" is not in the store"), "{said}");
    assert!(said.contains("quipu plugin push"), "what to do: {said}");
    assert_eq!((&route(&client, "r").await["state"], next_offset(&client, "out").await), (&json!("held"), json!(0)));
    // Also one that is paused besides.
    server.cli(&["route", "pause", "r"]).await;
    fails(&server, &["route", "resume", "r"]).await;
    push(&server, "one", "1").await;
    assert_eq!(route(&client, "r").await["state"], "paused");
    server.cli(&["route", "resume", "r"]).await;
    assert_eq!(serves(&client).await, "one", "the first message went through it too");
    assert_eq!(next_offset(&client, "out").await, json!(2));
}

#[tokio::test]
async fn a_change_that_cannot_be_made_leaves_the_route_as_it_runs() {
    let hostile = |act: &str| format!("{{ name = \"h\", config = {{ act = \"{act}\" }} }}");
    let config = format!("[plugins]\ninstances = 6\n{}", one_route(&hostile("forward")));
    let server = TestServer::start(QUIPU, &config).await;
    let client = server.client().await;
    // Of the store, and deployed.
    server.cli(&["plugin", "push", HOSTILE_WASM, "--name", "h", "--tag", "1"]).await;
    assert_eq!(serves(&client).await, "");
    let text = std::fs::read_to_string(server.directory().join("quipu.toml")).expect("the configuration");
    let cases = [
        (text.replace("\"forward\"", "\"configure-error\""), "refuses its configuration: act: refused, as asked"),
        (text.replace("\"forward\"", "\"backward\""), "unknown variant `backward`"),
        (text.replace("\"h\"", "\"hh\""), "plugin \"hh\" is not in the store; did you mean \"h\"?"),
        (text.replace("\"h\"", "\"h@2\""), "there is no h@2"),
        (text.replace("to = ", "parallel = 7\nto = "), "`plugins.instances`"),
    ];
    for (changed, expected) in cases {
        edit(&server, |_| changed);
        let said = fails(&server, &["reload"]).await;
        assert!(said.contains(expected), "{expected}: {said}");
        let runs = route(&client, "r").await;
        assert_eq!((&runs["state"], &runs["parallel"]), (&json!("running"), &json!(1)), "{expected}");
        assert_eq!(serves(&client).await, "", "{expected}");
    }
    edit(&server, |_| text.clone());
    assert_eq!(server.cli(&["reload"]).await, "nothing has changed\n");
    // As those that are made while it runs.
    let plugins = format!("plugins=[{}]", hostile("forward"));
    server.cli(&["route", "create", "made", "from=q", "to=[\"out\"]", &plugins]).await;
    for plugins in [hostile("configure-error"), "{ name = \"gone\" }".to_owned()] {
        fails(&server, &["route", "change", "made", &format!("plugins=[{plugins}]")]).await;
        assert_eq!(route(&client, "made").await["state"], "running");
    }
    // What does not run yet may wait.
    let said = server.cli(&["route", "create", "late", "from=q", "to=[\"out\"]", "plugins=[{ name = \"p\" }]"]).await;
    assert!(said.contains("note: route late is held: plugin \"p\" is not in the store"), "{said}");
    let said = server.cli(&["route", "change", "late", "plugins=[{ name = \"pp\" }]"]).await;
    assert!(said.contains("note: route late is held: plugin \"pp\" is not in the store"), "{said}");
}

#[tokio::test]
async fn another_pinned_version_and_another_file_serve_from_a_reload_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("p.file");
    std::fs::write(&file, wasm("filed", FORWARD)).expect("written");
    let config = format!("[plugin.f]\nfile = \"p.file\"\ndeadline = \"20s\"\n{}", one_route("{ name = \"p@1\" }"));
    let server = TestServer::start_in(QUIPU, &config, directory).await;
    push(&server, "one", "1").await;
    push(&server, "two", "2").await;
    let client = server.client().await;
    assert_eq!(serves(&client).await, "one");
    edit(&server, |text| text.replace("p@1", "p@2"));
    assert_eq!(server.cli(&["diff"]).await, "~ route r: plugins: [p@1] → [p@2]\n`quipu reload` makes it so\n");
    assert!(server.cli(&["reload"]).await.contains("route r swapped at q offset 1"));
    assert_eq!(serves(&client).await, "two");

    edit(&server, |text| text.replace("p@2", "f"));
    server.cli(&["reload"]).await;
    assert_eq!(serves(&client).await, "filed");
    assert_eq!(server.cli(&["reload"]).await, "nothing has changed\n");
    std::fs::write(&file, wasm("again", FORWARD)).expect("written");
    let said = server.cli(&["diff"]).await;
    assert!(said.contains("~ route r: plugins[0] (") && said.contains("p.file): "), "{said}");
    assert!(server.cli(&["reload"]).await.contains("route r swapped at q offset 3"));
    assert_eq!(serves(&client).await, "again");
    // One that is no good changes nothing, and one that is gone is not needed.
    std::fs::write(&file, b"\0asm\x0d\0\x01\0 and no more").expect("written");
    let said = fails(&server, &["reload"]).await;
    assert!(said.contains("p.file is damaged"), "{said}");
    assert_eq!(serves(&client).await, "again");
    std::fs::remove_file(&file).expect("removed");
    assert_eq!(server.cli(&["reload"]).await, "nothing has changed\n");
    edit(&server, |text| text.replace("to = [\"out\"]", "when = \"true\"\nto = [\"out\"]"));
    server.cli(&["reload"]).await;
    assert_eq!(serves(&client).await, "again");
}

/// Checks messages, and then is at those that are fine until it runs out of time.
const INLINE: &str = r#"
[plugin.filter-json]
deadline = "20s"
[plugin.slow]
file = {HOSTILE}
deadline = "3s"
[queue.raw]
subjects = ["in.>"]
[[route]]
name = "check"
on = "in.*"
plugins = [{ name = "filter-json", config = { field = "n", at_least = 1, missing = "reject" } },
           { name = "slow", config = { act = "loop" } }]
"#;

/// No message gets past an inline route while it becomes another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inline_route_is_never_gone_past_while_it_changes() {
    let server = TestServer::start(QUIPU, &INLINE.replace("{HOSTILE}", &format!("{HOSTILE_WASM:?}"))).await;
    let client = server.client().await;
    let (slow, other) = (publisher(&client).await, publisher(&client).await);
    for (before, after) in [("in.*\"", "in.*\"\nparallel = 2"), ("\"in.*\"", "[\"in.*\", \"more\"]")] {
        // It has this in hand while it changes.
        let first = slow.publish(OutgoingMessage::new("in.a", "{\"n\":1}")).await.expect("published");
        edit(&server, |text| text.replace(before, after));
        let reload = client.call("config.reload", json!({}));
        let publishing = async {
            let mut rejected = 0;
            loop {
                let (code, _, text) = refused(publish(&other, "in.a", "{}").await);
                assert_eq!(code, Code::Rejected, "{text}");
                rejected += 1;
                if rejected % 20 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        };
        tokio::select! {
            reloaded = reload => assert_eq!(reloaded.expect("reloaded")["did"], "reloaded"),
            () = publishing => {}
        }
        assert_eq!(refused(soon("a receipt", first).await).0, Code::PluginFailed, "it was finished");
        assert_eq!(refused(publish(&other, "in.a", "{}").await).0, Code::Rejected);
    }
    let now = route(&client, "check").await;
    assert_eq!((&now["parallel"], &now["on"]), (&json!(2), &json!(["in.*", "more"])));
    assert_eq!(next_offset(&client, "raw").await, json!(0), "nothing went past it");
}

#[tokio::test]
async fn an_inline_route_is_paused_and_resumed() {
    let config = format!(
        "[plugin.h]\nfile = {HOSTILE_WASM:?}\ndeadline = \"20s\"\n[queue.raw]\nsubjects = [\"in.>\"]\n[[route]]\nname = \"check\"\n\
         on = \"in.*\"\nplugins = [{{ name = \"h\", config = {{ act = \"panic\" }} }}]\n"
    );
    let mut server = TestServer::start(QUIPU, &config).await;
    let client = server.client().await;
    let out = publisher(&client).await;
    for _ in 0..10 {
        assert_eq!(refused(publish(&out, "in.a", "x").await).0, Code::PluginFailed);
    }
    assert_eq!(refused(publish(&out, "in.a", "x").await).0, Code::RetryLater);
    // Every listing says so.
    for listing in [&["route", "list"][..], &["route", "show", "check"], &["plugin", "list"], &["plugin", "show", "h"]]
    {
        let said = server.cli(listing).await;
        assert!(said.contains("broken: plugin 1 (h@") && said.contains("said by the guest"), "{listing:?}: {said}");
    }
    assert_eq!(server.cli(&["route", "resume", "check"]).await, "route check goes on\n");
    assert_eq!(route(&client, "check").await["state"], "running");
    assert_eq!(refused(publish(&out, "in.a", "x").await).0, Code::PluginFailed, "it is tried again");

    edit(&server, |text| text.replace("panic", "forward"));
    server.cli(&["reload"]).await;
    publish(&out, "in.a", "x").await.expect("stored");
    assert_eq!(server.cli(&["route", "pause", "check"]).await, "route check is paused\n");
    let is_paused = |answer| {
        let (code, after, text) = refused(answer);
        assert_eq!((code, after), (Code::RetryLater, Duration::from_secs(1)));
        assert_eq!(text, "route \"check\" asks for it in 1000 ms: paused");
    };
    is_paused(publish(&out, "in.a", "x").await);
    // Also with other lanes, and after a restart.
    edit(&server, |text| text + "parallel = 2\n");
    server.cli(&["reload"]).await;
    is_paused(publish(&out, "in.a", "x").await);
    client.close().await;
    server.kill().await;
    server.restart().await;
    let client = server.client().await;
    let out = publisher(&client).await;
    is_paused(publish(&out, "in.a", "x").await);
    assert_eq!(route(&client, "check").await["state"], "paused");
    server.cli(&["route", "resume", "check"]).await;
    publish(&out, "in.a", "x").await.expect("stored");
    let said = fails(&server, &["route", "seek", "check", "--to", "first"]).await;
    assert!(said.contains("route \"check\" runs as messages are published: it has no place in a queue"), "{said}");
    // One of the same name begins anew.
    server.cli(&["route", "create", "door", "on=\"other\"", "to=[\"raw\"]"]).await;
    server.cli(&["route", "pause", "door"]).await;
    assert_eq!(refused(publish(&out, "other", "x").await).0, Code::RetryLater);
    server.cli(&["route", "delete", "door", "--drop-subscription"]).await;
    server.cli(&["route", "create", "door", "on=\"other\"", "to=[\"raw\"]"]).await;
    publish(&out, "other", "x").await.expect("taken");
}

/// What is acknowledged is kept, though somebody deletes its queue while it is empty.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_is_deleted_only_while_it_is_empty() {
    const ROUNDS: usize = 60;
    let server = TestServer::start(QUIPU, "[queue.other]\n").await;
    let client = server.client().await;
    let out = publisher(&client).await;
    let create = async || client.call("queue.create", json!({ "name": "q" })).await.expect("created");
    create().await;
    let (mut deleted, mut kept) = (0, 0);
    for round in 0..ROUNDS {
        let deleting = client.call("queue.delete", json!({ "name": "q" }));
        let publishing = async {
            let mut stored = 0;
            // One after the other, for as long as the queue is there.
            for n in 0..20 {
                match publish(&out, "q", &format!("{round}-{n}")).await {
                    Ok(_) => stored += 1,
                    Err(_) => break,
                }
            }
            stored
        };
        let (answer, stored) = tokio::join!(deleting, publishing);
        match answer {
            Ok(_) => {
                assert_eq!(stored, 0, "acknowledged, and gone in round {round}");
                deleted += 1;
                create().await;
            }
            Err(e) => {
                assert!(e.to_string().contains("--with-messages deletes them too"), "{e}");
                kept += 1;
                client.call("queue.purge", json!({ "name": "q" })).await.expect("purged");
            }
        }
    }
    assert_eq!(deleted + kept, ROUNDS);
    let said = fails(&server, &["queue", "delete", "gone"]).await;
    assert!(said.contains("there is no queue \"gone\""), "{said}");
}
