//! The plugin `sizes` makes of the shared messages the same in every language: `plugin-sdk/vectors`.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{Language, lines};

const MESSAGES: &str = include_str!("../../../plugin-sdk/vectors/sizes.messages.ndjson");
const EXPECTED: &str = include_str!("../../../plugin-sdk/vectors/sizes.expected.ndjson");
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

/// `place` is how the place of the fault begins.
async fn check(name: &'static str, place: &str) {
    let Some(language) = Language::at_hand(name).await else { return };
    let sdks = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugin-sdk");
    copy(&sdks.join(name).join("plugins/sizes"), &language.path("sizes"));
    fs::write(language.path("config.json"), CONFIG).expect("written");
    // On a busy machine an interpreter's 50 ms may all be waiting.
    let manifest = language.path("sizes/plugin.toml");
    let text = fs::read_to_string(&manifest).expect("a manifest") + "\n[limits]\ndeadline = \"10s\"\n";
    fs::write(manifest, text).expect("written");
    language.good(&["plugin", "build", "sizes"], "").await;
    let tested = language.good(&["plugin", "test", "sizes"], "").await;
    assert!(tested.contains(", 0 failed"), "{tested}");

    let arguments = ["plugin", "run", "sizes", "--messages", "--no-times", "--config", "config.json"];
    let output = language.run(&arguments, MESSAGES).await;
    let said = String::from_utf8_lossy(&output.stderr);
    let (found, expected) = (lines(&String::from_utf8_lossy(&output.stdout)), lines(EXPECTED));
    assert_eq!(found.len(), expected.len(), "{said}");
    let same = |expected: &Value, found: &Value| match expected["verdict"] == "fault" {
        true => is_same_fault(expected, found),
        false => expected == found,
    };
    let differ = expected.iter().zip(&found).filter(|(expected, found)| !same(expected, found));
    let differences: Vec<_> =
        differ.map(|(expected, found)| format!("expected {expected}\nfound    {found}")).collect();
    assert!(differences.is_empty(), "{}\n{said}", differences.join("\n"));
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
