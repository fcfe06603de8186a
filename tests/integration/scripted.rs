//! Python, JavaScript, TypeScript and Go by their own tools: a new project passes its cases, the plugin `sizes` makes of the
//! shared messages what it makes of them in every language, and mistakes that show when a plugin is built are told with the
//! author's own file and line. Where a tool is missing the test says which, and passes.
//!
//! The tools are looked for as `quipu plugin` does, in `$QUIPU_TOOLS`; without it in `~/.cache/quipu-tools`, where
//! `plugin-sdk/toolchains.sh` puts them.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use quipu_tests::quipu;
use serde_json::Value;
use tempfile::TempDir;

use crate::QUIPU;

/// A Python interpreter is compiled for each build, and again to be run.
const PATIENCE: Duration = Duration::from_mins(15);

const EXPECTED: &str = include_str!("../../plugin-sdk/vectors/sizes.expected.ndjson");

#[tokio::test]
async fn python() {
    let Some(project) = Project::new("python").await else { return };
    project.passes_its_cases().await;
    project.sizes_comes_to_the_same("python").await;
    let mistakes = [
        (
            "import requests\n",
            &["File \"app.py\", line 1", "ModuleNotFoundError: No module named 'requests'", "the project's folder"][..],
        ),
        (
            "from quipu import log\n\nlog.info(\"x\")\n",
            &["File \"app.py\", line 3", "log.info was used while the module loads"],
        ),
        ("def process(message config):\n    pass\n", &["File \"app.py\", line 1", "SyntaxError"]),
        ("def process(message, config):\n    pass\n", &["no function has @plugin"]),
    ];
    for (text, expected) in mistakes {
        project.does_not_build("app.py", text, expected).await;
    }
}

#[tokio::test]
async fn javascript() {
    let Some(project) = Project::new("js").await else { return };
    project.passes_its_cases().await;
    project.sizes_comes_to_the_same("js").await;
    let mistakes = [
        ("import fs from \"node:fs\";\n", &["plugin.js:1:", "\"node:fs\" is not there for plugins"][..]),
        ("import tcp from \"wasi:sockets/tcp@0.2.0\";\n", &["plugin.js:1:", "no network"]),
        ("import axios from \"axios\";\n", &["plugin.js:1:", "Could not resolve \"axios\"", "npm install"]),
        (
            "import { log } from \"quipu\";\n\nlog.info(\"x\");\nexport function process() {}\n",
            &["plugin.js:3:", "log.info was used while the module loads"],
        ),
        ("export function process(message config) {}\n", &["plugin.js:1:32", "Expected"]),
        ("export function proces() {}\n", &["exports no function `process`"]),
    ];
    for (text, expected) in mistakes {
        project.does_not_build("plugin.js", text, expected).await;
    }
}

#[tokio::test]
async fn typescript() {
    let Some(project) = Project::new("ts").await else { return };
    project.passes_its_cases().await;
    project.sizes_comes_to_the_same("ts").await;
    let text = fs::read_to_string(project.path("tried/plugin.ts")).expect("a template");
    let expected = ["plugin.ts(7,", "error TS2551: Property 'at_leest' does not exist"];
    project.does_not_build("plugin.ts", &text.replace("config.at_least", "config.at_leest"), &expected).await;
}

#[tokio::test]
async fn go() {
    let Some(project) = Project::new("go").await else { return };
    project.passes_its_cases().await;
    project.sizes_comes_to_the_same("go").await;
    let text = fs::read_to_string(project.path("tried/main.go")).expect("a template");
    let expected = ["main.go:", "undefined: small"];
    project.does_not_build("main.go", &text.replace("\"small\"", "small"), &expected).await;
}

struct Project {
    directory: TempDir,
}

impl Project {
    /// A new project `tried`; None where a tool of its language is missing.
    async fn new(language: &str) -> Option<Self> {
        let project = Self { directory: tempfile::tempdir().expect("a directory") };
        let output = project.run(&["plugin", "doctor", "--lang", language, "--json"]).await;
        let found: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        let tools = found["tools"].as_array().expect("a list of tools");
        let missing: Vec<&str> =
            tools.iter().filter(|tool| tool["missing"] == true).filter_map(|tool| tool["tool"].as_str()).collect();
        if !missing.is_empty() {
            println!("{language}: skipped: needs {}", missing.join(", "));
            return None;
        }
        let made = project.run(&["plugin", "new", "tried", "--lang", language]).await;
        assert!(made.status.success(), "{}", words(&made));
        Some(project)
    }

    async fn passes_its_cases(&self) {
        let tested = self.run(&["plugin", "test", "tried"]).await;
        assert!(tested.status.success() && words(&tested).contains("3 passed, 0 failed"), "{}", words(&tested));
    }

    /// The plugin `sizes` passes its cases, and makes of the shared messages what it makes of them in every language.
    async fn sizes_comes_to_the_same(&self, language: &str) {
        let sdks = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugin-sdk");
        copy(&sdks.join(language).join("plugins/sizes"), &self.path("sizes"));
        let config = sdks.join("vectors/sizes.config.json").display().to_string();
        let tested = self.run(&["plugin", "test", "sizes"]).await;
        assert!(tested.status.success() && words(&tested).contains(", 0 failed"), "{}", words(&tested));

        let arguments = ["plugin", "run", "sizes", "--messages", "--no-times", "--config", &config];
        let messages = fs::File::open(sdks.join("vectors/sizes.messages.ndjson")).expect("messages");
        let output = self.run_on(&arguments, messages.into()).await;
        let (found, expected) = (lines(&String::from_utf8_lossy(&output.stdout)), lines(EXPECTED));
        assert_eq!(found.len(), expected.len(), "{}", words(&output));
        for (found, expected) in found.iter().zip(&expected) {
            if expected["verdict"] == "fault" {
                let text = |value: &Value| value["reason"].as_str().unwrap_or_default().to_owned();
                assert_eq!((&found["id"], &found["verdict"]), (&expected["id"], &expected["verdict"]));
                assert!(text(found).contains(&text(expected)), "{found}");
                assert!(found["outputs"].is_null() && found["logs"].is_null(), "nothing but the fault: {found}");
            } else {
                assert_eq!(found, expected);
            }
        }
        assert_eq!(output.status.code(), Some(1), "one of the messages is a fault");
    }

    async fn does_not_build(&self, file: &str, text: &str, expected: &[&str]) {
        fs::write(self.path("tried").join(file), text).expect("written");
        let output = self.run(&["plugin", "build", "tried"]).await;
        let said = words(&output);
        assert!(!output.status.success(), "{text}: {said}");
        for part in expected {
            assert!(said.contains(part), "{part:?} is not in\n{said}");
        }
        let elsewhere = self.directory.path().display().to_string();
        assert!(!said.contains(&elsewhere), "paths are those of the project: {said}");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        self.run_on(arguments, Stdio::null()).await
    }

    async fn run_on(&self, arguments: &[&str], input: Stdio) -> Output {
        let mut command = quipu(QUIPU, self.directory.path());
        command.env("QUIPU_TOOLS", tools()).args(arguments).stdin(input);
        let output = tokio::time::timeout(PATIENCE, command.output()).await;
        output.unwrap_or_else(|_| panic!("{arguments:?} takes too long")).expect("it runs")
    }
}

fn words(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

fn tools() -> OsString {
    let home = || std::env::home_dir().unwrap_or_default().join(".cache/quipu-tools").into_os_string();
    std::env::var_os("QUIPU_TOOLS").filter(|dir| !dir.is_empty()).unwrap_or_else(home)
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// A folder of sources, without what builds leave in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("a folder").map(|entry| entry.expect("readable")) {
        let (path, name) = (entry.path(), entry.file_name());
        match path.is_dir() {
            true if name == ".quipu" || name == "node_modules" => {}
            true => copy(&path, &to.join(name)),
            false => drop(fs::copy(&path, to.join(name)).expect("copied")),
        }
    }
}
