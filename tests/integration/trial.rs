//! The trying side of the author's loop, by the real binary: cases, lines of input, messages of a queue, measuring.
//!
//! The plugins here are WebAssembly text, so that nothing is built; projects in languages are in `author.rs` and
//! `languages.rs`.

mod sessions;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use expect_test::{Expect, expect};
use quipu_client::{OutgoingMessage, PublisherOptions};
use quipu_tests::{TestServer, output_of, quipu, soon};
use regex::Regex;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::QUIPU;
use crate::plugins::wasm;

const FORWARD: &str = "(i32.const 0)";
const TRAP: &str = "(unreachable)";

const CASES: &str = r#"# What the plugin is for.
[[case]]
name = "marks"   # with its label
message = { id = "a", payload = { n = 1 } }
expect = { verdict = "forward", headers = { by = "one" }, logs = ["one"] }

[[case]]
name = "keeps the place"
message.headers = { by = "me" }
message.payload = { properties = { mag = 4.6, place = "12 km SE of Nanwalek, Alaska" } }
expect.verdict = "drop"
expect.headers = { by = "me", region = "alaska" }
expect.payload = { properties = { place = "elsewhere", net = "ak" } }
expect.outputs = [{ subject = "audit" }]
"#;

/// A project of the plugin that marks with `one`, and the file `p.wasm` in it.
fn project(process: &str) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, bytes: &[u8]| std::fs::write(directory.path().join(name), bytes).expect("written");
    std::fs::create_dir(directory.path().join("tests")).expect("made");
    write("p.wasm", &wasm("one", process));
    write("tests/first.toml", CASES.as_bytes());
    directory
}

async fn run(directory: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    output_of(QUIPU, directory, arguments).await
}

/// Exit code, standard output and standard error, with lines on standard input.
async fn with_input(directory: &Path, arguments: &[&str], input: &str) -> (Option<i32>, String, String) {
    let file = directory.join("input");
    std::fs::write(&file, input).expect("written");
    let mut command = quipu(QUIPU, directory);
    command.args(arguments).stdin(Stdio::from(std::fs::File::open(file).expect("a file")));
    let output = soon("a command", command.output()).await.expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Times and digests are never the same.
pub(crate) fn masked(text: &str) -> String {
    let mask =
        |text: &str, what: &str, with: &str| Regex::new(what).expect("a pattern").replace_all(text, with).into_owned();
    let text = mask(text, r#""ns":\d+"#, r#""ns":N"#);
    let text = mask(&text, r"\d+(\.\d+)? (ns|µs|ms|s)\b", "N µs");
    // How long a time is decides how many spaces are before it.
    let text = mask(&text, r" {2,}N µs", "  N µs");
    let text = mask(&text, r"\b[0-9a-f]{8,64}\b", "DIGEST");
    mask(&text, r"\d+", "N")
}

#[track_caller]
fn check(output: &str, expected: &Expect) {
    expected.assert_eq(&masked(output));
}

#[tokio::test]
async fn a_case_that_fails_shows_each_difference_and_how_to_see_it_again() {
    let project = project(FORWARD);
    let (code, said, error) = run(project.path(), &["plugin", "test", "p.wasm"]).await;
    assert_eq!(code, Some(1), "{said}{error}");
    check(
        &said,
        &expect![[r#"
          ok    marks                                                            forward  N µs
          FAIL  keeps the place                                                  tests/first.toml:N
                verdict   - drop                                                 + forward
                header    by             - "me"                                  + "one"
                header    region         - "alaska"                              + (absent)
                payload   $.properties.net
                          - "ak"
                          + (absent)
                payload   $.properties.place
                          - "elsewhere"
                          + "N km SE of Nanwalek, Alaska"
                output N message  - audit                                        + (absent)
                input     {"properties":{"mag":N.N,"place":"N km SE of Nanwalek, Alaska"}}
                log       INFO one
                again     quipu plugin run p.wasm --capsule .quipu/failed/keeps-the-place --trace
        N passed, N failed           limits as in production: N µs, N MiB
    "#]],
    );
    let (code, said, error) =
        run(project.path(), &["plugin", "run", "p.wasm", "--capsule", ".quipu/failed/keeps-the-place", "--trace"])
            .await;
    assert_eq!(code, Some(0), "{said}{error}");
    assert!(error.contains("same as recorded: forward"), "{error}");
    let capsule = ".quipu/failed/keeps-the-place";
    let mode = std::fs::metadata(project.path().join(capsule)).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "the configuration is in it");
    let (code, _, error) =
        run(project.path(), &["plugin", "run", "p.wasm", "--capsule", capsule, "--subject", "other"]).await;
    assert_eq!((code, error.contains("--subject")), (Some(2), true), "a capsule has a subject of its own: {error}");
    let again: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((&again["verdict"], &again["headers"]), (&json!("forward"), &json!({ "by": "one" })));

    let (code, said, _) = run(project.path(), &["plugin", "test", "p.wasm", "--filter", "^mar"]).await;
    assert_eq!(code, Some(0), "{said}");
    check(
        &said,
        &expect![[r#"
          ok    marks                                                            forward  N µs
        N passed, N failed           limits as in production: N µs, N MiB
    "#]],
    );
    let (code, _, error) = run(project.path(), &["plugin", "test", "p.wasm", "--filter", "nothing"]).await;
    assert_eq!((code, error.as_str()), (Some(1), "quipu: no case has a name in which \"nothing\" is found\n"));
}

#[tokio::test]
async fn blessing_writes_what_was_found_and_leaves_the_rest() {
    let project = project(FORWARD);
    let (code, _, error) = run(project.path(), &["plugin", "test", "p.wasm", "--bless"]).await;
    assert_eq!((code, error.contains("blessed 1 in tests/first.toml")), (Some(0), true), "{error}");
    let blessed = std::fs::read_to_string(project.path().join("tests/first.toml")).expect("read");
    expect![[r##"
        # What the plugin is for.
        [[case]]
        name = "marks"   # with its label
        message = { id = "a", payload = { n = 1 } }
        expect = { verdict = "forward", headers = { by = "one" }, logs = ["one"] }

        [[case]]
        name = "keeps the place"
        message.headers = { by = "me" }
        message.payload = { properties = { mag = 4.6, place = "12 km SE of Nanwalek, Alaska" } }
        expect.verdict = "forward"
        expect.headers = { by = "one" }
        expect.payload = { properties = { place = "12 km SE of Nanwalek, Alaska" } }
        expect.outputs = []
        expect.no_headers = ["region"]
    "##]]
    .assert_eq(&blessed);
    let (code, said, _) = run(project.path(), &["plugin", "test", "p.wasm"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(!project.path().join(".quipu/failed/keeps-the-place").exists(), "its capsule is of the past");
}

#[tokio::test]
async fn reports_say_what_the_terminal_says() {
    let project = project(TRAP);
    let reports = ["--report", "junit=report.xml", "--report", "json=report.json"];
    let (code, said, error) = run(project.path(), &[&["plugin", "test", "p.wasm"][..], &reports].concat()).await;
    assert_eq!(code, Some(1), "{error}");
    assert!(said.contains("0 passed, 2 failed") && said.contains("fault     plugin trapped"), "{said}");
    let xml = std::fs::read_to_string(project.path().join("report.xml")).expect("read");
    check(
        &xml,
        &expect![[r#"
            <?xml version="N.N" encoding="UTF-N"?>
            <testsuites name="p" tests="N" failures="N" time="N.N">
              <testsuite name="./tests/first.toml" tests="N" failures="N" time="N.N">
                <testcase name="marks" classname="p" file="./tests/first.toml" line="N" time="N.N">
                  <failure message="verdict: expected forward, found fault &quot;plugin trapped: wasm `unreachable` instruction executed&quot;">verdict: expected forward, found fault &quot;plugin trapped: wasm `unreachable` instruction executed&quot;
            header by: expected &quot;one&quot;, found (absent)</failure>
                </testcase>
                <testcase name="keeps the place" classname="p" file="./tests/first.toml" line="N" time="N.N">
                  <failure message="verdict: expected drop, found fault &quot;plugin trapped: wasm `unreachable` instruction executed&quot;">verdict: expected drop, found fault &quot;plugin trapped: wasm `unreachable` instruction executed&quot;
            header by: expected &quot;me&quot;, found (absent)
            header region: expected &quot;alaska&quot;, found (absent)
            payload: expected {&quot;properties&quot;:{&quot;net&quot;:&quot;ak&quot;,&quot;place&quot;:&quot;elsewhere&quot;}}, found (absent)
            output N message: expected audit, found (absent)</failure>
                </testcase>
              </testsuite>
            </testsuites>
        "#]],
    );
    let report = std::fs::read_to_string(project.path().join("report.json")).expect("read");
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!((&report["passed"], &report["failed"]), (&json!(0), &json!(2)));
    let case = &report["cases"][1];
    assert_eq!((&case["name"], &case["line"]), (&json!("keeps the place"), &json!(7)));
    assert_eq!(case["found"]["kind"], "unreachable");
    assert_eq!(
        case["differences"][0],
        json!({ "what": "verdict", "expected": "drop", "found": "fault \"plugin trapped: wasm `unreachable` instruction executed\"" })
    );
}

#[tokio::test]
async fn what_is_wrong_with_cases_has_its_line() {
    let project = project(FORWARD);
    let write = |text: &str| std::fs::write(project.path().join("tests/first.toml"), text).expect("written");
    let test = async || run(project.path(), &["plugin", "test", "p.wasm"]).await;
    write(&CASES.replace("verdict = \"forward\"", "verdikt = \"forward\""));
    let (code, _, error) = test().await;
    let expected = "quipu: ./tests/first.toml:5:12: case[0].expect.verdikt: unknown key; did you mean `verdict`?\n";
    assert_eq!((code, error.as_str()), (Some(1), expected));
    write("[[case]]\nname = \"empty\"\n");
    let (code, said, _) = test().await;
    assert_eq!(code, Some(1));
    check(
        &said,
        &expect![[r#"
          FAIL  empty                                                            tests/first.toml:N
                expect
                          - something
                          + nothing; --bless writes down what the plugin does now
                input     (empty)
                log       INFO one
                again     quipu plugin run p.wasm --capsule .quipu/failed/empty --trace
        N passed, N failed           limits as in production: N µs, N MiB
    "#]],
    );
    write("[[case]]\nname = \"starts\"\nexpect.error = \"no configuration\"\n");
    let (code, said, _) = test().await;
    assert_eq!(code, Some(1));
    check(
        &said,
        &expect![[r#"
          FAIL  starts                                                           tests/first.toml:N
                error     - "no configuration" in it                             + a plugin that starts
                input     (empty)
                log       INFO one
                again     quipu plugin run p.wasm --capsule .quipu/failed/starts --trace
        N passed, N failed           limits as in production: N µs, N MiB
    "#]],
    );
    std::fs::remove_dir_all(project.path().join("tests")).expect("removed");
    let (code, _, error) = test().await;
    assert_eq!((code, error.contains("no cases: cannot read ./tests")), (Some(1), true), "{error}");
}

#[tokio::test]
async fn whole_messages_give_the_same_lines_each_time() {
    let project = project(FORWARD);
    let lines =
        "{\"id\":\"a\",\"subject\":\"q.a\",\"key\":\"k\",\"headers\":{\"by\":\"me\"},\"payload\":{\"n\":1}}\n{}\n";
    let arguments = ["plugin", "run", "p.wasm", "--messages", "--no-times"];
    let (code, said, error) = with_input(project.path(), &arguments, lines).await;
    assert_eq!(code, Some(0), "{error}");
    expect![[r#"
        {"id":"a","verdict":"forward","headers":{"by":"one"},"logs":[{"level":"info","text":"one"}]}
        {"id":"line-2","verdict":"forward","headers":{"by":"one"},"logs":[{"level":"info","text":"one"}]}
    "#]]
    .assert_eq(&said);
    assert_eq!(with_input(project.path(), &arguments, lines).await, (code, said, error));
    let (code, _, error) = with_input(project.path(), &arguments, "{\"subjekt\":1}\n").await;
    assert_eq!(code, Some(1));
    assert!(error.contains("line 1: a message as JSON is expected: unknown field `subjekt`"), "{error}");
}

#[tokio::test]
async fn a_fault_is_shown_with_a_capsule_that_makes_it_again() {
    let project = project(TRAP);
    let (code, said, error) = with_input(project.path(), &["plugin", "run", "p.wasm"], "{\"id\":\"ak0247\"}\n").await;
    assert_eq!(code, Some(1));
    check(
        &said,
        &expect![[r#"
        {"id":"akN","verdict":"fault","fingerprint":"DIGEST","kind":"unreachable","logs":[{"level":"info","text":"one"}],"reason":"plugin trapped: wasm `unreachable` instruction executed","ns":N}
    "#]],
    );
    check(
        &error,
        &expect![[r#"
            fault     plugin trapped: wasm `unreachable` instruction executed
                      N  decide                                               N runtime frames: --trace  (lines need build --debug)
                      the plugin ended itself, or ran into a bug: `build --debug` gives the trace its lines
            message   akN  test  N bytes      plugin p@DIGEST   config NeNdd   used N.N of N µs, N.N of N MiB
            again     quipu plugin run p.wasm --capsule .quipu/failed/akN
        "#]],
    );
    let (code, _, error) = run(project.path(), &["plugin", "run", "p.wasm", "--capsule", ".quipu/failed/ak0247"]).await;
    assert_eq!((code, error.contains("same as recorded: fault unreachable")), (Some(0), true), "{error}");
}

#[tokio::test]
async fn messages_of_a_queue_are_tried_and_stay_there() {
    let server = TestServer::start(QUIPU, "[queue.q]\n").await;
    let file = server.directory().join("p.wasm");
    std::fs::write(&file, wasm("one", FORWARD)).expect("written");
    let client = server.client().await;
    let publisher = client.publisher(PublisherOptions::default()).await.expect("a publisher");
    for n in 0..5 {
        let message = OutgoingMessage::new("q", json!({ "n": n }).to_string()).id(&format!("m{n}")).header("h", "v");
        drop(publisher.publish(message).await.expect("published"));
    }
    // With it an answer is full, and the rest comes with another.
    let large = OutgoingMessage::new("q", vec![b'x'; 900 << 10]).id("large");
    drop(publisher.publish(large).await.expect("published"));
    publisher.close().await.expect("stored");
    let file = file.to_str().expect("text");
    let said = server.cli(&["plugin", "test", file, "--from-queue", "q", "--last", "3"]).await;
    check(
        &said,
        &expect![[r#"
                     N  mN                                   forward  N µs
                        header by: (absent) → one
                        log INFO one
                     N  mN                                   forward  N µs
                        header by: (absent) → one
                        log INFO one
                     N  large                                forward  N µs
                        header by: (absent) → one
                        log INFO one
            N forward           limits as in production: N µs, N MiB
        "#]],
    );
    let said = server.cli(&["plugin", "test", file, "--from-queue", "q", "--json"]).await;
    let found: Value = serde_json::from_str(&said).expect("one object");
    let messages = found["messages"].as_array().expect("a list");
    let offsets: Vec<u64> = messages.iter().filter_map(|message| message["offset"].as_u64()).collect();
    assert_eq!(offsets, [0, 1, 2, 3, 4, 5], "all of them, in order");
    let report = server.directory().join("report.xml");
    let arguments = ["plugin", "test", file, "--from-queue", "q", "--filter", "^m[12]$", "--report"];
    server.cli(&[&arguments[..], &[&format!("junit={}", report.display())]].concat()).await;
    check(
        &std::fs::read_to_string(report).expect("written"),
        &expect![[r#"
        <?xml version="N.N" encoding="UTF-N"?>
        <testsuites name="p" tests="N" failures="N" time="N.N">
          <testsuite name="q" tests="N" failures="N" time="N.N">
            <testcase name="mN" classname="p" file="q" line="N" time="N.N"/>
            <testcase name="mN" classname="p" file="q" line="N" time="N.N"/>
          </testsuite>
        </testsuites>
    "#]],
    );
    let failed = server.cli_output(&["plugin", "test", file, "--from-queue", "r"]).await;
    let error = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(error.contains("there is no queue \"r\""), "{error}");
    let left: Value = server.json(&["queue", "list"]).await;
    assert_eq!(left["queues"][0]["messages"], 6, "{left}");
}

/// The directory of a project `marker`, as after a build.
fn marker() -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, bytes).expect("written");
    };
    let manifest = "[plugin]\nname = \"marker\"\nversion = \"1.4.0\"\nlanguage = \"c\"\n[config]\nn = 1\n";
    write("plugin.toml", manifest.as_bytes());
    write(".quipu/marker.wasm", &wasm("one", FORWARD));
    let first = CASES.split("\n\n").next().expect("a case");
    write(
        "tests/first.toml",
        format!("{first}\n[[case]]\nname = \"own\"\nconfig = {{}}\nexpect.emitted = 0\n").as_bytes(),
    );
    directory
}

#[tokio::test]
async fn a_project_is_pushed_with_its_name_its_version_and_its_cases() {
    let server = TestServer::start(QUIPU, "[queue.q]\n").await;
    let project = marker();
    let file = project.path().join(".quipu/marker.wasm").display().to_string();
    let push = async |more: &[&str]| server.cli(&[&["plugin", "push", &file], more].concat()).await;
    let shown = async |name: &str| -> Value { server.json(&["plugin", "show", name]).await };
    let cases = |shown: &Value| shown["versions"][0]["cases"].as_array().cloned().expect("a list");
    assert!(push(&[]).await.starts_with("pushed marker@1.4.0 ("));
    let found = cases(&shown("marker").await);
    let configs: Vec<&Value> = found.iter().map(|case| &case["config"]).collect();
    assert_eq!(configs, [&json!({ "n": 1 }), &json!({})], "that with which it has passed");

    let none = project.path().join("none.json").display().to_string();
    std::fs::write(&none, "[]").expect("written");
    let said = push(&["--name", "other", "--tag", "2.0.0", "--cases", &none]).await;
    assert!(said.starts_with("pushed other@2.0.0 (") && said.contains("), 0 cases\n"), "{said}");

    // Secrets of this machine stay here.
    let manifest = project.path().join("plugin.toml");
    let text = std::fs::read_to_string(&manifest).expect("read");
    std::fs::write(&manifest, text.replace("n = 1", "n = { env = \"PATH\" }").replace("1.4.0", "1.4.1"))
        .expect("written");
    push(&["--name", "secret"]).await;
    let found = cases(&shown("secret").await);
    assert_eq!((found.len(), found[0].get("config")), (2, None));

    // Another file is nobody's.
    let copy = project.path().join("copy.wasm").display().to_string();
    std::fs::copy(&file, &copy).expect("copied");
    let said = server.cli(&["plugin", "push", &copy]).await;
    assert!(said.starts_with("pushed copy@") && said.contains("), 0 cases\n"), "{said}");
}

#[tokio::test]
async fn plugins_are_measured_side_by_side() {
    let project = project(FORWARD);
    std::fs::write(project.path().join("sample.ndjson"), "{\"n\":1}\n{\"n\":2}\n").expect("written");
    std::fs::write(project.path().join("other.wasm"), wasm("two", "(i32.const 0)")).expect("written");
    let arguments = ["plugin", "bench", "p.wasm", "--against", "other.wasm", "--rounds", "2"];
    let (code, said, error) = run(project.path(), &arguments).await;
    assert_eq!(code, Some(0), "{error}");
    for row in ["compile ", "start ", "time ", "fuel ", "memory ", "verdicts    2 forward", "one worker "] {
        assert!(said.lines().any(|line| line.starts_with(row)), "{row}: {said}");
    }
    let (code, said, error) = run(project.path(), &[&arguments[..], &["--json"]].concat()).await;
    assert_eq!(code, Some(0), "{error}");
    let figures: Value = serde_json::from_str(&said).expect("JSON");
    let [first, other] = [&figures["plugins"][0], &figures["plugins"][1]];
    // The same code but for its text.
    assert_eq!((first["fuel"].as_u64() > Some(0), &first["fuel"]), (true, &other["fuel"]), "{figures}");
    assert!(figures["ratio"].as_f64().is_some_and(|ratio| ratio > 0.0), "{figures}");
    let (code, _, error) = run(project.path(), &["plugin", "bench", "p.wasm", "--against", "nothing.wasm"]).await;
    assert_eq!((code, error.contains("there is no file nothing.wasm")), (Some(1), true), "{error}");
}

#[tokio::test]
async fn a_version_of_the_store_is_measured_as_well() {
    let server = TestServer::start(QUIPU, "[queue.q]\n").await;
    let directory = server.directory();
    std::fs::write(directory.join("p.wasm"), wasm("one", FORWARD)).expect("written");
    std::fs::write(directory.join("in"), "{}\n").expect("written");
    let file = directory.join("p.wasm");
    server.cli(&["plugin", "push", file.to_str().expect("text"), "--tag", "1.0.0"]).await;
    let input = directory.join("in");
    let (file, input) = (file.to_str().expect("text"), input.to_str().expect("text"));
    let said = server
        .cli(&["plugin", "bench", file, "--input", input, "--against", "p@1.0.0", "--rounds", "1", "--json"])
        .await;
    let figures: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(figures["plugins"][0]["digest"], figures["plugins"][1]["digest"], "{figures}");
}
