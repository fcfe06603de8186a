//! Plugins as operators meet them: pushed, deployed into running routes, rolled back, watched, looked at.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;

use quipu_client::{Client, OutgoingMessage, PublisherOptions, Subscribe, Subscriber};
use quipu_tests::{TestServer, output_of, quipu, soon};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::QUIPU;

/// A route through the plugin `p`, of which the configuration says nothing.
const CONFIG: &str = "[queue.q]\n[queue.out]\n[[route]]\nname = \"r\"\nfrom = \"q\"\n\
                      plugins = [{ name = \"p\" }]\nto = [\"out\"]\n\
                      on_error = { attempts = 1, then = \"dead\" }\n";

const FORWARD: &str = "(i32.const 0)";
const TRAP: &str = "(unreachable)";

/// A plugin that marks messages with its label, logs it, and decides as `process` says.
pub(crate) fn wasm(label: &str, process: &str) -> Vec<u8> {
    let text = GUEST.replace("{label}", label).replace("{length}", &label.len().to_string());
    wat::parse_str(text.replace("{process}", process)).expect("valid WAT")
}

const GUEST: &str = r#"(module
  (import "quipu:plugin/edit@0.1.0" "set-header" (func $set-header (param i32 i32 i32 i32)))
  (import "quipu:plugin/log@0.1.0" "log" (func $log (param i32 i32 i32)))
  (memory (export "memory") 2)
  (global $heap (mut i32) (i32.const 8192))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (global.set $heap (i32.add (global.get $heap) (i32.const 64)))
    (i32.sub (global.get $heap) (i32.const 64)))
  (func (export "quipu:plugin/handler@0.1.0#configure") (result i32) (i32.const 0))
  (func $decide (result i32) {process})
  (func (export "quipu:plugin/handler@0.1.0#process") (result i32)
    (call $set-header (i32.const 1024) (i32.const 2) (i32.const 1032) (i32.const {length}))
    (call $log (i32.const 2) (i32.const 1032) (i32.const {length}))
    (call $decide))
  (data (i32.const 1024) "by")
  (data (i32.const 1032) "{label}"))"#;

/// A self-test: the version marks messages with this label.
fn cases(label: &str) -> String {
    let expect = json!({ "verdict": "forward", "headers": { "by": label } });
    json!([{ "name": "marks", "message": { "payload": { "n": 1 } }, "expect": expect }]).to_string()
}

fn write(server: &TestServer, file: &str, bytes: impl AsRef<[u8]>) {
    std::fs::write(server.directory().join(file), bytes).expect("written");
}

/// Pushes a version from a file of the server's directory.
async fn push(server: &TestServer, label: &str, process: &str, arguments: &[&str]) -> String {
    let file = server.directory().join("p.wasm");
    std::fs::write(&file, wasm(label, process)).expect("written");
    let said = server.cli(&[&["plugin", "push", file.to_str().expect("text")], arguments].concat()).await;
    std::fs::remove_file(file).expect("removed");
    said
}

/// Exit code and standard error.
async fn failed(server: &TestServer, arguments: &[&str]) -> String {
    let output = server.cli_output(arguments).await;
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    String::from_utf8(output.stderr).expect("text")
}

async fn publish(client: &Client, ids: impl IntoIterator<Item = u32>) {
    let publisher = client.publisher(PublisherOptions::default()).await.expect("a publisher");
    for n in ids {
        let message = OutgoingMessage::new("q", json!({ "n": n }).to_string()).id(&format!("m{n}"));
        drop(publisher.publish(message).await.expect("published"));
    }
    publisher.close().await.expect("stored");
}

async fn out(client: &Client) -> Subscriber {
    client.subscribe(Subscribe::new("out", "test")).await.expect("a subscriber")
}

/// The label on the next message.
async fn marked(out: &mut Subscriber) -> String {
    let delivery = soon("a delivery", out.next()).await.expect("open").expect("a delivery");
    let label = delivery.message.headers.first("by").unwrap_or_default().to_owned();
    delivery.ack().await.expect("settled");
    label
}

/// Publishes a message and says which version had it.
async fn serves(client: &Client, n: u32) -> String {
    publish(client, [n]).await;
    let mut out = out(client).await;
    let label = marked(&mut out).await;
    out.close().await.expect("closed");
    label
}

#[tokio::test]
async fn a_route_waits_for_its_plugin_and_serves_what_is_deployed() {
    let mut server = TestServer::start(QUIPU, CONFIG).await;
    let status = server.cli_output(&["status"]).await;
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    assert_eq!(status.status.code(), Some(1), "not ready");
    assert!(
        said.contains("route \"r\"") && said.contains("plugin \"p\" is not in the store: quipu plugin push"),
        "{said}"
    );
    let client = server.client().await;
    publish(&client, [0]).await;

    let said = push(&server, "one", FORWARD, &["--tag", "1.0.0"]).await;
    assert!(said.contains("pushed p@1.0.0") && said.contains("started, they waited for it: r"), "{said}");
    let mut first = out(&client).await;
    assert_eq!(marked(&mut first).await, "one", "what was published meanwhile is there");
    first.close().await.expect("closed");
    assert!(server.cli(&["status"]).await.starts_with("ready"));

    write(&server, "cases.json", cases("two"));
    let file = server.directory().join("cases.json");
    let said = push(&server, "two", FORWARD, &["--tag", "1.1.0", "--cases", file.to_str().expect("text")]).await;
    assert!(said.contains("next: quipu plugin deploy p@1.1.0 --route"), "{said}");
    assert_eq!(serves(&client, 1).await, "one", "a push changes nothing");

    let said = server.cli(&["plugin", "deploy", "p@1.1.0", "--route", "r"]).await;
    assert!(said.contains("configure ok    self-test 1 of 1"), "{said}");
    assert!(said.contains("swap      1.0.0 → 1.1.0 at q offset 2        drained "), "{said}");
    assert!(
        said.contains("check     in 2 = delivered 2 + dropped 0 + dead 0 + pending 0           lost 0, twice 0"),
        "{said}"
    );
    assert!(said.contains("(probed)            undo: quipu plugin rollback p --route r"), "{said}");
    assert_eq!(serves(&client, 2).await, "two");

    let back = server.json(&["plugin", "rollback", "p", "--route", "r"]).await;
    assert_eq!((&back["version"]["label"], &back["previous"]["label"]), (&json!("1.0.0"), &json!("1.1.0")), "{back}");
    assert_eq!(serves(&client, 3).await, "one");
    server.cli(&["plugin", "rollback", "p", "--route", "r", "--to", "1.1.0"]).await;
    assert_eq!(serves(&client, 4).await, "two");

    client.close().await;
    server.kill().await;
    server.restart().await;
    let client = server.client().await;
    assert_eq!(serves(&client, 5).await, "two", "what was deployed serves after a restart");
    let list = server.json(&["plugin", "list"]).await;
    let of =
        |tag: &str| list["plugins"].as_array().expect("a list").iter().find(|v| v["tag"] == tag).expect("it is there");
    assert_eq!((&of("1.1.0")["routes"], &of("1.0.0")["routes"]), (&json!(["r"]), &json!([])));
    let table = server.cli(&["plugin", "show", "p"]).await;
    assert!(table.contains("forward 1") && table.contains("DEPLOYED TO"), "{table}");
}

#[tokio::test]
async fn a_failed_step_leaves_what_serves_and_is_named() {
    let server = TestServer::start(QUIPU, CONFIG).await;
    let client = server.client().await;
    push(&server, "one", FORWARD, &["--tag", "1"]).await;
    write(&server, "cases.json", cases("two"));
    let file = server.directory().join("cases.json");
    push(&server, "three", FORWARD, &["--tag", "2", "--cases", file.to_str().expect("text")]).await;
    let error = failed(&server, &["plugin", "deploy", "p@2", "--route", "r"]).await;
    assert!(
        error.contains("self-test: 0 of 1 passed; case \"marks\": header by: expected \"two\", found \"three\""),
        "{error}"
    );
    assert!(error.contains("goes on; nothing changed"), "{error}");
    assert_eq!(serves(&client, 0).await, "one");

    write(&server, "p.wasm", refusing("not today"));
    let file = server.directory().join("p.wasm");
    server.cli(&["plugin", "push", file.to_str().expect("text"), "--tag", "3"]).await;
    let error = failed(&server, &["plugin", "deploy", "p@3", "--route", "r"]).await;
    assert!(error.starts_with("configure: ") && error.contains("refuses its configuration: not today"), "{error}");
    let error = failed(&server, &["plugin", "deploy", "p@4", "--route", "r"]).await;
    assert!(error.contains("find: there is no p@4; there are 3"), "{error}");
    let error = failed(&server, &["plugin", "deploy", "p@1", "--route", "x"]).await;
    assert!(error.contains("there is no route \"x\""), "{error}");
    let error = failed(&server, &["plugin", "rollback", "p", "--route", "r"]).await;
    assert!(error.contains("nothing was deployed before"), "{error}");
    assert_eq!(serves(&client, 1).await, "one");
    write(&server, "no.wasm", b"\0asm\x0d\0\x01\0 and no more");
    let file = server.directory().join("no.wasm");
    let error = failed(&server, &["plugin", "push", file.to_str().expect("text"), "--name", "p"]).await;
    assert!(error.contains("no.wasm is damaged"), "{error}");
}

#[tokio::test]
async fn an_inline_route_waits_and_is_swapped_too() {
    let config = "[plugin.p]\ndeadline = \"20s\"\n[queue.q]\n[[route]]\nname = \"r\"\non = \"in.*\"\n\
                  plugins = [{ name = \"p\" }]\nto = [\"q\"]\n";
    let server = TestServer::start(QUIPU, config).await;
    let client = server.client().await;
    let publisher = client.publisher(PublisherOptions::default()).await.expect("a publisher");
    let early = publisher.publish(OutgoingMessage::new("in.a", "{}")).await.expect("sent").await;
    assert!(early.expect_err("not yet").to_string().contains("not in the store"), "its publishers wait");
    push(&server, "one", FORWARD, &["--tag", "1"]).await;
    push(&server, "two", FORWARD, &["--tag", "2"]).await;
    let mut queue = client.subscribe(Subscribe::new("q", "test")).await.expect("a subscriber");
    publisher.publish(OutgoingMessage::new("in.a", "{}")).await.expect("sent").await.expect("stored");
    assert_eq!(marked(&mut queue).await, "one");
    let said = server.cli(&["plugin", "deploy", "p@2", "--route", "r"]).await;
    assert!(said.contains("swap      1 → 2, as messages are published") && said.contains("(probed)"), "{said}");
    publisher.publish(OutgoingMessage::new("in.a", "{}")).await.expect("sent").await.expect("stored");
    assert_eq!(marked(&mut queue).await, "two");
}

/// One that asks again, because no answer came, is told what was done.
#[tokio::test]
async fn a_rollback_that_is_asked_for_twice_is_made_once() {
    let server = TestServer::start(QUIPU, CONFIG).await;
    for label in ["one", "two"] {
        push(&server, label, FORWARD, &["--tag", label]).await;
    }
    server.cli(&["plugin", "deploy", "p@two", "--route", "r"]).await;
    let client = server.client().await;
    let rollback = async |id: &str| {
        let call = json!({ "name": "p", "route": "r", "call": id });
        let answer = client.call("plugin.rollback", call).await.expect("an answer");
        answer["result"]["version"]["label"].clone()
    };
    assert_eq!(rollback("a").await, "one");
    // Others' calls that take their time, meanwhile.
    client.call("store.compact", json!({})).await.expect("an answer");
    assert_eq!(rollback("a").await, "one");
    assert_eq!(serves(&client, 0).await, "one", "not back again");
    assert_eq!(rollback("b").await, "two");
    assert_eq!(serves(&client, 1).await, "two");
}

/// What a deployment takes its time for holds up no change of the configuration.
#[tokio::test]
async fn the_configuration_changes_while_a_version_is_tested() {
    let config = format!("[plugin.p]\ndeadline = \"10s\"\n{CONFIG}");
    let server = TestServer::start(QUIPU, &config).await;
    push(&server, "one", FORWARD, &["--tag", "1"]).await;
    write(&server, "cases.json", cases("two"));
    let file = server.directory().join("cases.json");
    let cases = ["--tag", "2", "--cases", file.to_str().expect("text")];
    push(&server, "two", "(loop (br 0)) (i32.const 0)", &cases).await;
    let client = server.client().await;
    let deploy = server.cli_output(&["plugin", "deploy", "p@2", "--route", "r"]);
    let change = async {
        until(&server, "a deployment is tested", 1).await;
        client.call("queue.create", json!({ "name": "new" })).await.expect("created");
    };
    tokio::select! {
        biased;
        _ = deploy => panic!("the queue waited for the deployment"),
        () = change => {}
    }
    assert_eq!(serves(&client, 0).await, "one");
}

#[tokio::test]
async fn a_deployment_without_room_says_what_to_raise() {
    let config = format!("[plugins]\ninstances = 3\n{}", CONFIG.replace("to = ", "parallel = 2\nto = "));
    let server = TestServer::start(QUIPU, &config).await;
    push(&server, "one", FORWARD, &["--tag", "1"]).await;
    push(&server, "two", FORWARD, &["--tag", "2"]).await;
    let error = failed(&server, &["plugin", "deploy", "p@2", "--route", "r"]).await;
    assert!(error.starts_with("room: ") && error.contains("set `plugins.instances` to at least 4"), "{error}");
    assert_eq!(serves(&server.client().await, 0).await, "one");
}

/// A plugin that refuses any configuration.
fn refusing(reason: &str) -> Vec<u8> {
    let configure = format!(
        "(i32.store8 (i32.const 64) (i32.const 1)) (i32.store (i32.const 68) (i32.const 1032))
         (i32.store (i32.const 72) (i32.const {})) (i32.const 64)",
        reason.len()
    );
    let text =
        GUEST.replace("configure\") (result i32) (i32.const 0)", &format!("configure\") (result i32) {configure}"));
    let text = text.replace("{label}", reason).replace("{length}", &reason.len().to_string());
    wat::parse_str(text.replace("{process}", FORWARD)).expect("valid WAT")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_nothing_is_lost_and_nothing_comes_twice() {
    const COUNT: u32 = 4_000;
    // On a busy machine a plugin may wait for longer than it may run.
    let config = format!("[plugin.p]\ndeadline = \"20s\"\n{}", CONFIG.replace("to = ", "parallel = 2\nto = "));
    let server = TestServer::start(QUIPU, &config).await;
    for label in ["one", "two"] {
        push(&server, label, FORWARD, &["--tag", label]).await;
    }
    let client = server.client().await;
    let publishing = tokio::spawn({
        let client = client.clone();
        async move { publish(&client, 0..COUNT).await }
    });
    let consuming = tokio::spawn({
        let client = client.clone();
        async move {
            let (mut out, mut seen) = (out(&client).await, vec![0_u32; COUNT as usize]);
            let mut by = std::collections::BTreeMap::new();
            for _ in 0..COUNT {
                let delivery = soon("a delivery", out.next()).await.expect("open").expect("a delivery");
                let payload: Value = serde_json::from_slice(&delivery.message.payload).expect("JSON");
                seen[usize::try_from(payload["n"].as_u64().expect("a number")).expect("small")] += 1;
                let label = delivery.message.headers.first("by").unwrap_or_default();
                *by.entry(label.to_owned()).or_insert(0) += 1;
                delivery.ack_later().await.expect("settled");
            }
            out.close().await.expect("closed");
            (seen, by)
        }
    });
    let mut swaps = 0;
    while !publishing.is_finished() || swaps < 4 {
        let version = ["p@two", "p@one"][swaps % 2];
        let report = server.json(&["plugin", "deploy", version, "--route", "r"]).await;
        assert_eq!((&report["ledger"]["lost"], &report["ledger"]["twice"]), (&json!(0), &json!(0)), "{report}");
        assert_eq!(report["probed"], true, "{report}");
        swaps += 1;
    }
    publishing.await.expect("published");
    let (seen, by) = consuming.await.expect("consumed");
    assert!(seen.iter().all(|count| *count == 1), "each exactly once");
    assert_eq!(by.keys().collect::<Vec<_>>(), ["one", "two"], "both had some: {by:?}");
    let ledger = server.json(&["ledger", "q"]).await;
    assert_eq!(
        (&ledger["subscriptions"][0]["balanced"], &ledger["subscriptions"][0]["counts"]["acked"]),
        (&json!(true), &json!(COUNT))
    );
}

#[tokio::test]
async fn a_file_is_kept_in_the_store_and_not_needed_again() {
    let config = format!("[plugin.p]\nfile = \"p.file\"\n{CONFIG}");
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("p.file");
    std::fs::write(&file, wasm("one", FORWARD)).expect("written");
    let mut server = TestServer::start_in(QUIPU, &config, directory).await;
    let client = server.client().await;
    assert_eq!(serves(&client, 0).await, "one");
    client.close().await;

    std::fs::write(&file, b"no plugin").expect("written");
    assert_eq!(server.terminate().await, Some(0));
    server.restart().await;
    let client = server.client().await;
    assert_eq!(serves(&client, 1).await, "one", "the last good one");
    client.close().await;
    let log = std::fs::read_to_string(server.directory().join("log")).expect("a log");
    assert!(log.contains("its file is broken, the last good one serves") && log.contains("p.file"), "{log}");
    let (code, _, error) = output_of(QUIPU, server.directory(), &["check"]).await;
    assert_eq!(code, Some(1));
    assert!(error.contains("p.file"), "{error}");

    std::fs::remove_file(&file).expect("removed");
    assert_eq!(server.terminate().await, Some(0));
    server.restart().await;
    assert_eq!(serves(&server.client().await, 2).await, "one", "without a file");

    std::fs::write(&file, wasm("two", FORWARD)).expect("written");
    assert_eq!(server.terminate().await, Some(0));
    server.restart().await;
    assert_eq!(serves(&server.client().await, 3).await, "two", "a new file, as nobody deployed anything");
}

#[tokio::test]
async fn what_is_in_use_stays_in_the_store() {
    let pinned =
        "[[route]]\nname = \"pinned\"\nfrom = \"q\"\nplugins = [{ name = \"p\", config = {} }]\nto = [\"out\"]\n"
            .replace("\"p\"", "\"p@2\"");
    let server = TestServer::start(QUIPU, &format!("{CONFIG}{pinned}")).await;
    let said = push(&server, "one", FORWARD, &["--tag", "1"]).await;
    assert!(said.contains("waited for it: r"), "the other one waits for its own version: {said}");
    let said = push(&server, "two", FORWARD, &["--tag", "2"]).await;
    assert!(said.contains("waited for it: pinned"), "{said}");
    push(&server, "three", FORWARD, &["--tag", "3"]).await;
    assert!(failed(&server, &["plugin", "rm", "p@1"]).await.contains("in use by route r"));
    assert!(failed(&server, &["plugin", "rm", "p@2"]).await.contains("in use by route pinned"));
    let error = failed(&server, &["plugin", "deploy", "p@3", "--route", "pinned"]).await;
    assert!(error.contains("route \"pinned\" pins p@2 in the configuration"), "{error}");
    assert!(server.cli(&["plugin", "rm", "p@3"]).await.starts_with("removed p@3"));
    assert!(failed(&server, &["plugin", "rm", "p@3"]).await.contains("there is no p@3"));
    let wasm_files = std::fs::read_dir(server.directory().join("data/plugins")).expect("a directory");
    let ends = |entry: &std::fs::DirEntry| entry.path().extension().is_some_and(|ending| ending == "wasm");
    assert_eq!(wasm_files.map(|entry| entry.expect("an entry")).filter(ends).count(), 2);
    let taken = failed(&server, &["plugin", "push", "x", "--tag", "1"]).await;
    assert!(taken.contains("cannot read x"), "{taken}");
    let other = server.directory().join("p.wasm");
    std::fs::write(&other, wasm("four", FORWARD)).expect("written");
    let taken = failed(&server, &["plugin", "push", other.to_str().expect("text"), "--tag", "1"]).await;
    assert!(taken.contains("p@1 is") && taken.contains("already"), "{taken}");
    // A copy of the store has the plugins too.
    let copy = tempfile::tempdir().expect("a directory");
    let to = copy.path().join("data");
    server.cli(&["store", "backup", to.to_str().expect("text")]).await;
    let copy = TestServer::start_in(QUIPU, CONFIG, copy).await;
    assert_eq!(serves(&copy.client().await, 0).await, "one");
}

#[tokio::test]
async fn compiling_has_limits_and_harms_nobody() {
    let config = format!("[plugins]\ncompile_time = \"1s\"\n{CONFIG}");
    let server = TestServer::start(QUIPU, &config).await;
    let client = server.client().await;
    push(&server, "one", FORWARD, &["--tag", "1"]).await;
    // Functions as large as they may be, of branches alone.
    let branches = "(if (i32.eqz (local.get 0)) (then (local.set 0 (i32.const 1))))".repeat(90_000);
    let functions = format!("(func (param i32) {branches})").repeat(4);
    let bomb = GUEST.replace("(data (i32.const 1024)", &format!("{functions}(data (i32.const 1024)"));
    let bomb = bomb.replace("{label}", "x").replace("{length}", "1").replace("{process}", FORWARD);
    write(&server, "bomb.wasm", wat::parse_str(bomb).expect("valid WAT"));
    let file = server.directory().join("bomb.wasm");
    let error = failed(&server, &["plugin", "push", file.to_str().expect("text"), "--name", "p"]).await;
    // Of processor time; where others take most of that, of time on the clock.
    assert!(error.contains("compiling takes more than ") && error.contains("`plugins.compile_time`"), "{error}");
    assert_eq!(serves(&client, 0).await, "one");
    assert_eq!(server.json(&["plugin", "list"]).await["plugins"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn compiling_takes_no_more_memory_than_it_may() {
    let config = format!("[plugins]\ncompile_memory = \"384MiB\"\n{CONFIG}");
    let server = TestServer::start(QUIPU, &config).await;
    push(&server, "one", FORWARD, &["--tag", "1"]).await;
    let additions = "(local.set 0 (i32.add (local.get 0) (i32.mul (local.get 0) (local.get 0))))".repeat(90_000);
    let functions = format!("(func (param i32) {additions})").repeat(24);
    let large = GUEST.replace("(data (i32.const 1024)", &format!("{functions}(data (i32.const 1024)"));
    let large = large.replace("{label}", "x").replace("{length}", "1").replace("{process}", FORWARD);
    write(&server, "large.wasm", wat::parse_str(large).expect("valid WAT"));
    let file = server.directory().join("large.wasm");
    let error = failed(&server, &["plugin", "push", file.to_str().expect("text"), "--name", "p"]).await;
    assert!(error.contains("384MiB") && error.contains("`plugins.compile_memory`"), "{error}");
    assert_eq!(serves(&server.client().await, 0).await, "one");
}

#[tokio::test]
async fn a_watched_directory_serves_what_changes() {
    let config = format!("[plugins]\nwatch = \"dev\"\n{CONFIG}");
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(directory.path().join("dev")).expect("made");
    std::fs::write(directory.path().join("dev/p.wasm"), wasm("one", FORWARD)).expect("written");
    let server = TestServer::start_in(QUIPU, &config, directory).await;
    let client = server.client().await;
    until(&server, "serves, probed", 1).await;
    assert_eq!(serves(&client, 0).await, "one", "the route waited for it");
    write(&server, "dev/p.wasm", wasm("two", FORWARD));
    until(&server, "serves, probed", 2).await;
    assert_eq!(serves(&client, 1).await, "two");
    write(&server, "dev/p.wasm", b"half a file");
    until(&server, "the changed file is not taken, what served before goes on", 1).await;
    assert_eq!(serves(&client, 2).await, "two");
}

/// Until the log has said so this often.
async fn until(server: &TestServer, text: &str, times: usize) {
    soon(text, async {
        loop {
            let log = std::fs::read_to_string(server.directory().join("log")).expect("a log");
            if log.matches(text).count() >= times {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_plugins_say_and_fail_on_is_told() {
    let server = TestServer::start(QUIPU, CONFIG).await;
    let client = server.client().await;
    push(&server, "one", FORWARD, &["--tag", "1"]).await;
    assert_eq!(serves(&client, 0).await, "one");
    let logs = server.cli(&["plugin", "logs", "p", "--route", "r", "--since", "5m", "--level", "info"]).await;
    assert!(logs.contains("INFO   r  one"), "{logs}");
    assert_eq!(server.cli(&["plugin", "logs", "p", "--level", "error"]).await, "");
    assert_eq!(server.cli(&["plugin", "traps", "p", "--json"]).await.trim(), r#"{"traps":[]}"#);

    push(&server, "two", TRAP, &["--tag", "2"]).await;
    server.cli(&["plugin", "deploy", "p@2", "--route", "r"]).await;
    publish(&client, [1, 2]).await;
    let traps = soon("two traps", async {
        loop {
            let traps = server.json(&["plugin", "traps", "p"]).await;
            if traps["traps"][0]["count"] == 2 {
                return traps;
            }
        }
    })
    .await;
    let trap = &traps["traps"][0];
    assert_eq!(
        (&trap["plugin"], &trap["kind"], traps["traps"].as_array().map(Vec::len)),
        (&json!("p"), &json!("unreachable"), Some(1))
    );
    assert_eq!(trap["first_digest"], trap["last_digest"], "{trap}");
    assert!(server.cli(&["plugin", "traps"]).await.contains(trap["fingerprint"].as_str().expect("text")));
    let metrics = client.call("metrics", json!({})).await.expect("an answer");
    let metrics = metrics["text"].as_str().expect("text");
    assert!(metrics.contains("code=\"unreachable\"} 2\n") && metrics.ends_with("# EOF\n"), "{metrics}");
    let shown = server.cli(&["route", "show", "r"]).await;
    assert!(shown.contains("state         running") && shown.contains("unreachable 2"), "{shown}");
    let show = server.json(&["plugin", "show", "p"]).await;
    assert_eq!(
        (&show["uses"][0]["calls"], &show["uses"][0]["faults_by"]["unreachable"]),
        (&json!(2), &json!(2)),
        "{show}"
    );
}

/// Who follows a log does so over restarts, and misses nothing of the next life.
#[tokio::test]
async fn a_log_is_followed_over_a_restart() {
    let mut server = TestServer::start(QUIPU, CONFIG).await;
    push(&server, "one", FORWARD, &["--tag", "1"]).await;
    let client = server.client().await;
    // More lines than come after the restart.
    publish(&client, 0..3).await;
    let mut command = quipu(QUIPU, server.directory());
    command.env("QUIPU_SERVER", server.address()).args(["plugin", "logs", "p", "--follow"]);
    let mut following = command.stdout(Stdio::piped()).spawn().expect("it runs");
    let mut lines = BufReader::new(following.stdout.take().expect("piped")).lines();
    let mut next = async || soon("a line", lines.next_line()).await.expect("text").expect("a line");
    for _ in 0..3 {
        assert!(next().await.ends_with("INFO   r  one"));
    }
    client.close().await;
    server.kill().await;
    server.restart().await;
    let client = server.client().await;
    publish(&client, 3..5).await;
    for _ in 0..2 {
        assert!(next().await.ends_with("INFO   r  one"));
    }
    following.kill().await.expect("it runs still");
}

#[tokio::test]
async fn a_file_is_looked_at_and_tried_without_a_router() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("p.wasm"), wasm("one", FORWARD)).expect("written");
    std::fs::write(directory.path().join("in"), "{\"id\":\"a\"}\n{\"n\":2}\n").expect("written");
    let run = async |arguments: &[&str]| output_of(QUIPU, directory.path(), arguments).await;
    let (code, said, _) = run(&["plugin", "inspect", "p.wasm", "--json"]).await;
    let inspected: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((code, &inspected["contract"]), (Some(0), &json!("0.1.0")));
    let said = with_input(directory.path(), &["plugin", "run", "p.wasm", "-c", "a=1"], "in").await;
    let attempts: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((&attempts[0]["id"], &attempts[1]["id"]), (&json!("a"), &json!("line-2")), "{said}");
    assert_eq!((&attempts[0]["verdict"], &attempts[0]["logs"][0]["text"]), (&json!("forward"), &json!("one")));
    assert_eq!(attempts[0]["headers"], json!({ "by": "one" }));

    let mut capsule = json!({
        "version": 1, "plugin": "p", "digest": inspected["digest"], "config": "{}", "route": "r", "attempt": 2,
        "now_ms": 1_700_000_000_000_u64, "seed": 7,
        "limits": { "deadline_us": 5_000_000, "memory_bytes": 64 << 20, "output_bytes": 4 << 20, "emits": 1_024,
                    "host_calls": 100_000, "log_lines": 64, "log_bytes": 16 << 10 },
        "message": { "id": "a", "subject": "q", "origin_subject": "q", "headers": [["h", "v"]], "published_ms": 1,
                     "payload": "e30=" },
    });
    let replay = async |capsule: &Value| {
        std::fs::write(directory.path().join("capsule"), capsule.to_string()).expect("written");
        run(&["plugin", "run", "p.wasm", "--capsule", "capsule"]).await
    };
    let (code, said, error) = replay(&capsule).await;
    assert_eq!(code, Some(0), "{error}");
    let first: Value = serde_json::from_str(&said).expect("JSON");
    capsule["outcome"] = first["outcome"].clone();
    let (code, said, _) = replay(&capsule).await;
    let again: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((code, &again["same"]), (Some(0), &json!(true)));
    std::fs::write(directory.path().join("p.wasm"), wasm("two", FORWARD)).expect("written");
    let (code, said, _) = replay(&capsule).await;
    assert_eq!(code, Some(1), "another plugin comes to something else: {said}");
}

async fn with_input(directory: &Path, arguments: &[&str], input: &str) -> String {
    let input = File::open(directory.join(input)).expect("a file");
    let output =
        soon("a command", quipu(QUIPU, directory).args(arguments).stdin(input).output()).await.expect("it runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}
