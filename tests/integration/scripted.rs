//! Python, JavaScript, TypeScript and Go by their own tools: a new project passes its cases, and mistakes that show when a
//! plugin is built are told with the author's own file and line. Where a tool is missing the test says which, and passes.
//!
//! The tools are looked for as `quipu plugin` does, in `$QUIPU_TOOLS`; without it in `~/.cache/quipu-tools`, where
//! `plugin-sdk/toolchains.sh` puts them.

use std::fs;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use quipu_tests::quipu;
use serde_json::Value;
use tempfile::TempDir;

use crate::{QUIPU, languages};

/// A Python interpreter is compiled for each build, and again to be run.
const PATIENCE: Duration = Duration::from_mins(15);

#[tokio::test]
async fn python() {
    let Some(project) = Project::new("python").await else { return };
    project.passes_its_cases().await;
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
    let text = fs::read_to_string(project.path("tried/plugin.ts")).expect("a template");
    let expected = ["plugin.ts(7,", "error TS2551: Property 'at_leest' does not exist"];
    project.does_not_build("plugin.ts", &text.replace("config.at_least", "config.at_leest"), &expected).await;
}

#[tokio::test]
async fn go() {
    let Some(project) = Project::new("go").await else { return };
    project.passes_its_cases().await;
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
        // On a busy machine an interpreter's 50 ms may all be waiting.
        let manifest = project.path("tried/plugin.toml");
        let text = fs::read_to_string(&manifest).expect("a manifest") + "\n[limits]\ndeadline = \"10s\"\n";
        fs::write(manifest, text).expect("written");
        Some(project)
    }

    async fn passes_its_cases(&self) {
        let tested = self.run(&["plugin", "test", "tried"]).await;
        assert!(tested.status.success() && words(&tested).contains("3 passed, 0 failed"), "{}", words(&tested));
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
        command.env("QUIPU_TOOLS", languages::tools()).args(arguments).stdin(input);
        let output = tokio::time::timeout(PATIENCE, command.output()).await;
        output.unwrap_or_else(|_| panic!("{arguments:?} takes too long")).expect("it runs")
    }
}

fn words(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}
