//! The plugin `sizes`, and that of a new project, make of the shared messages the same in every language:
//! `plugin-sdk/vectors`.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{Language, lines};

const MESSAGES: &str = include_str!("../../../plugin-sdk/vectors/sizes.messages.ndjson");
const EXPECTED: &str = include_str!("../../../plugin-sdk/vectors/sizes.expected.ndjson");
const NEW_EXPECTED: &str = include_str!("../../../plugin-sdk/vectors/new.expected.ndjson");
const CONFIG: &str = include_str!("../../../plugin-sdk/vectors/sizes.config.json");

#[tokio::test]
async fn sizes_in_c() {
    check("c", "src/plugin.c:").await;
}

#[tokio::test]
async fn sizes_in_zig() {
    check("zig", "plugin.zig:").await;
}

#[tokio::test]
async fn sizes_in_assemblyscript() {
    check("assemblyscript", "src/plugin.ts:").await;
}

#[tokio::test]
async fn sizes_in_rust() {
    check("rust", "src/lib.rs:").await;
}

#[tokio::test]
async fn sizes_in_js() {
    check("js", "plugin.js:").await;
}

#[tokio::test]
async fn sizes_in_ts() {
    check("ts", "plugin.ts:").await;
}

#[tokio::test]
async fn sizes_in_python() {
    check("python", "app.py:").await;
}

#[tokio::test]
async fn sizes_in_go() {
    check("go", "main.go:").await;
}

#[tokio::test]
async fn new_in_c() {
    check_new("c").await;
}

#[tokio::test]
async fn new_in_zig() {
    check_new("zig").await;
}

#[tokio::test]
async fn new_in_assemblyscript() {
    check_new("assemblyscript").await;
}

#[tokio::test]
async fn new_in_rust() {
    check_new("rust").await;
}

#[tokio::test]
async fn new_in_js() {
    check_new("js").await;
}

#[tokio::test]
async fn new_in_ts() {
    check_new("ts").await;
}

#[tokio::test]
async fn new_in_python() {
    check_new("python").await;
}

#[tokio::test]
async fn new_in_go() {
    check_new("go").await;
}

/// `quipu plugin new && quipu plugin test && quipu plugin run < messages`, with the project's own configuration.
async fn check_new(name: &'static str) {
    let Some(language) = Language::at_hand(name).await else { return };
    language.good(&["plugin", "new", "new-quakes", "--lang", name], "").await;
    language.give_time("new-quakes", "10s");
    let tested = language.good(&["plugin", "test", "new-quakes"], "").await;
    assert!(tested.contains("3 passed, 0 failed"), "{tested}");
    let file = "new-quakes/.quipu/new-quakes.wasm";
    let found = language.good(&["plugin", "run", file, "--messages", "--no-times"], MESSAGES).await;
    same_lines(&lines(NEW_EXPECTED), &lines(&found), is_same_but_for_parsers, "");
}

/// The same, and of what a language's own parser has found wrong, the part that is the SDK's.
fn is_same_but_for_parsers(expected: &Value, found: &Value) -> bool {
    let reason = expected["reason"].as_str().unwrap_or_default();
    let is_parsers = reason == "the payload is no JSON" || reason == "properties.mag: ";
    if !is_parsers {
        return expected == found;
    }
    let begins = found["reason"].as_str().is_some_and(|found| found.starts_with(reason));
    begins && ["id", "verdict"].into_iter().all(|name| expected[name] == found[name])
}

#[track_caller]
fn same_lines(expected: &[Value], found: &[Value], is_same: fn(&Value, &Value) -> bool, said: &str) {
    assert_eq!(found.len(), expected.len(), "{said}");
    let differ = expected.iter().zip(found).filter(|(expected, found)| !is_same(expected, found));
    let differences: Vec<_> =
        differ.map(|(expected, found)| format!("expected {expected}\nfound    {found}")).collect();
    assert!(differences.is_empty(), "{}\n{said}", differences.join("\n"));
}

/// `place` is how the place of the fault begins.
async fn check(name: &'static str, place: &str) {
    let Some(language) = Language::at_hand(name).await else { return };
    let sdks = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugin-sdk");
    copy(&sdks.join(name).join("plugins/sizes"), &language.path("sizes"));
    fs::write(language.path("config.json"), CONFIG).expect("written");
    language.give_time("sizes", "10s");
    language.good(&["plugin", "build", "sizes"], "").await;
    let tested = language.good(&["plugin", "test", "sizes"], "").await;
    assert!(tested.contains(", 0 failed"), "{tested}");

    let arguments = ["plugin", "run", "sizes", "--messages", "--no-times", "--config", "config.json"];
    let output = language.run(&arguments, MESSAGES).await;
    let said = String::from_utf8_lossy(&output.stderr);
    let (found, expected) = (lines(&String::from_utf8_lossy(&output.stdout)), lines(EXPECTED));
    let same = |expected: &Value, found: &Value| match expected["verdict"] == "fault" {
        true => is_same_fault(expected, found),
        false => expected == found,
    };
    same_lines(&expected, &found, same, &said);
    assert_eq!(output.status.code(), Some(1), "one of the messages is a fault");
    assert!(said.contains(place), "the place of the fault: {said}");
}

/// The same kind, and the text in it: some languages put the name of the exception before it.
fn is_same_fault(expected: &Value, found: &Value) -> bool {
    let text = |value: &Value| value["reason"].as_str().unwrap_or_default().to_owned();
    ["id", "verdict", "kind"].into_iter().all(|name| expected[name] == found[name])
        && text(found).contains(&text(expected))
        && found["outputs"].is_null()
}

/// A folder of sources, without what builds leave in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("readable");
        let (path, name) = (entry.path(), entry.file_name());
        if [".quipu", "target", "node_modules"].iter().any(|made| name == *made) {
            continue;
        }
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else {
            fs::copy(&path, to.join(name)).expect("copied");
        }
    }
}
