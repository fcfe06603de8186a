//! Each language's SDK by its own tools: a new project builds and does what its sample says, and a mistake is told as the
//! compiler says it. Where a tool is missing the test says which, and passes.
//!
//! The tools are looked for as `quipu plugin` does, in `$QUIPU_TOOLS`; without it in `~/.cache/quipu-tools`, where
//! `plugin-sdk/toolchains.sh` puts them.

mod vectors;

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use quipu_tests::quipu;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use crate::QUIPU;

/// A compiler's first run on a busy machine compiles its own libraries too.
const PATIENCE: Duration = Duration::from_mins(15);

#[tokio::test]
async fn a_new_project_in_c() {
    let Some(language) = Language::at_hand("c").await else { return };
    language.new_project_does_what_its_sample_says().await;
    language.mistake_is_told_by_the_compiler("quipu_drop(\"small\")", "quipu_drop(small)", "src/plugin.c:").await;
}

#[tokio::test]
async fn a_new_project_in_zig() {
    let Some(language) = Language::at_hand("zig").await else { return };
    language.new_project_does_what_its_sample_says().await;
    language.mistake_is_told_by_the_compiler("quipu.drop(\"small\")", "quipu.drop(small)", "src/plugin.zig:").await;
}

#[tokio::test]
async fn a_new_project_in_assemblyscript() {
    let Some(language) = Language::at_hand("assemblyscript").await else { return };
    language.new_project_does_what_its_sample_says().await;
    language.mistake_is_told_by_the_compiler("drop(\"small\")", "drop(small)", "src/plugin.ts(").await;
}

/// A language whose tools are there, and a folder to work in.
pub(crate) struct Language {
    name: &'static str,
    directory: tempfile::TempDir,
}

impl Language {
    /// None where a tool is missing.
    pub(crate) async fn at_hand(name: &'static str) -> Option<Self> {
        let language = Self { name, directory: tempfile::tempdir().expect("a directory") };
        let output = language.run(&["plugin", "doctor", "--lang", name, "--json"], "").await;
        let found: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        let tools = found["tools"].as_array().expect("a list of tools");
        let missing: Vec<&str> =
            tools.iter().filter(|tool| tool["missing"] == true).filter_map(|tool| tool["tool"].as_str()).collect();
        if missing.is_empty() {
            return Some(language);
        }
        println!("{name}: skipped: needs {}", missing.join(", "));
        None
    }

    async fn new_project_does_what_its_sample_says(&self) {
        self.good(&["plugin", "new", "big-quakes", "--lang", self.name], "").await;
        let built = lines(&self.good(&["plugin", "build", "big-quakes", "--json"], "").await);
        assert_eq!(built[0]["needs"], serde_json::json!([]), "the contract, and nothing else: {}", built[0]);
        let sample = fs::read_to_string(self.path("big-quakes/sample.ndjson")).expect("a sample");
        let file = "big-quakes/.quipu/big-quakes.wasm";
        let lines = lines(&self.good(&["plugin", "run", file, "-c", "at_least=4.5"], &sample).await);
        let verdicts: Vec<&str> = lines.iter().filter_map(|line| line["verdict"].as_str()).collect();
        assert_eq!(verdicts, ["forward", "drop", "forward", "reject"]);
        assert_eq!(lines[3]["reason"], "properties.mag: absent: \"properties\" has no \"mag\"");
        let refused = self.run(&["plugin", "run", file, "-c", "at_leest=4"], "").await;
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && said.contains("at_leest"), "{said}");
    }

    /// What the compiler says of a mistake in the template's source, with paths from the project on.
    async fn mistake_is_told_by_the_compiler(&self, right: &str, wrong: &str, place: &str) {
        let sources = fs::read_dir(self.path("big-quakes/src")).expect("sources");
        let source = sources.map(|entry| entry.expect("readable").path()).next().expect("one");
        let text = fs::read_to_string(&source).expect("text");
        assert!(text.contains(right), "{text}");
        fs::write(&source, text.replace(right, wrong)).expect("written");
        let output = self.run(&["plugin", "build", "big-quakes"], "").await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(place) && said.contains("small"), "{said}");
        let elsewhere = self.directory.path().display().to_string();
        assert!(!said.contains(&elsewhere), "paths are those of the project: {said}");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs a command that must succeed; gives its standard output.
    pub(crate) async fn good(&self, arguments: &[&str], input: &str) -> String {
        let output = self.run(arguments, input).await;
        let [said, errors] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        assert!(output.status.success(), "{arguments:?}: {said}{errors}");
        said
    }

    /// Runs a command: exit code, standard output and standard error.
    pub(crate) async fn said(&self, arguments: &[&str], input: &str) -> (Option<i32>, String, String) {
        let output = self.run(arguments, input).await;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    /// On a busy machine an interpreter's 50 ms may all be waiting.
    pub(crate) fn give_time(&self, project: &str, deadline: &str) {
        let manifest = self.path(project).join("plugin.toml");
        let text = fs::read_to_string(&manifest).expect("a manifest");
        fs::write(manifest, format!("{text}\n[limits]\ndeadline = \"{deadline}\"\n")).expect("written");
    }

    async fn run(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = quipu(QUIPU, self.directory.path());
        // What Rust compiles is shared with the other projects of these tests.
        let target = concat!(env!("CARGO_TARGET_TMPDIR"), "/author");
        command.env("QUIPU_TOOLS", tools()).env("CARGO_TARGET_DIR", target).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("it runs");
        let (mut stdin, input) = (process.stdin.take().expect("piped"), input.to_owned());
        // Who does not read it to the end has said why.
        let writer = tokio::spawn(async move { stdin.write_all(input.as_bytes()).await.ok() });
        let output = tokio::time::timeout(PATIENCE, process.wait_with_output()).await;
        writer.abort();
        output.unwrap_or_else(|_| panic!("{arguments:?} takes too long")).expect("it ends")
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// Where the tools are.
fn tools() -> OsString {
    let home = || std::env::home_dir().unwrap_or_default().join(".cache/quipu-tools").into_os_string();
    std::env::var_os("QUIPU_TOOLS").filter(|dir| !dir.is_empty()).unwrap_or_else(home)
}
