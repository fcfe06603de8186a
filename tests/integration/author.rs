//! The author's side of the command line, with no router: new projects, their tools, and what a build says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use quipu_tests::quipu;
use serde_json::Value;
use tempfile::TempDir;

use crate::QUIPU;

/// A compiler has its first build of all dependencies in it.
const PATIENCE: Duration = Duration::from_mins(10);

/// An empty folder, and commands in it.
pub(crate) struct Author {
    directory: TempDir,
}

/// What a command came to.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Author {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a temporary directory") }
    }

    /// One with a Rust project of this name. Those who build at the same time have different names, for they share what
    /// their dependencies compile to.
    pub(crate) async fn with(name: &str) -> Self {
        let author = Self::new();
        author.done(&["plugin", "new", name, "--lang", "rust"]).await;
        author
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    pub(crate) fn edit(&self, path: &str, from: &str, to: &str) {
        let path = self.path(path);
        let text = fs::read_to_string(&path).expect("it is there");
        assert!(text.contains(from), "{text}");
        fs::write(path, text.replace(from, to)).expect("written");
    }

    pub(crate) async fn run(&self, arguments: &[&str], variables: &[(&str, &Path)]) -> Said {
        let mut command = quipu(QUIPU, self.directory.path());
        command.env_remove("QUIPU_TOOLS").env("CARGO_TARGET_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/author"));
        command.args(arguments).envs(variables.iter().copied()).stdin(Stdio::null());
        let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("it ends").expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    pub(crate) async fn said(&self, arguments: &[&str]) -> Said {
        self.run(arguments, &[]).await
    }

    /// Standard output of a command that goes well.
    pub(crate) async fn done(&self, arguments: &[&str]) -> String {
        let Said { code, stdout, stderr } = self.said(arguments).await;
        assert_eq!(code, Some(0), "{arguments:?}: {stdout}{stderr}");
        stdout
    }

    /// Standard error of a command that fails with this exit code.
    pub(crate) async fn refused(&self, code: i32, arguments: &[&str]) -> String {
        let said = self.said(arguments).await;
        assert_eq!(said.code, Some(code), "{arguments:?}: {}{}", said.stdout, said.stderr);
        said.stderr
    }
}

#[tokio::test]
async fn a_new_project_becomes_a_file_that_runs() {
    let author = Author::new();
    let created = author.done(&["plugin", "new", "big-quakes", "--lang", "rust"]).await;
    let files = "src/lib.rs  plugin.toml  tests/first.toml  sample.ndjson";
    assert_eq!(created, format!("Created big-quakes: {files}      Next: quipu plugin test\n"));
    let built = author.done(&["plugin", "build", "big-quakes"]).await;
    assert!(built.starts_with("build   big-quakes 0.1.0  rust  ") && built.contains(" KiB  needs nothing "), "{built}");
    assert!(built.ends_with(" s\n"), "{built}");
    assert_eq!(built.trim_end().chars().count(), 111, "lines of builds and of cases have one right edge");
    let shown = author.done(&["plugin", "inspect", "big-quakes/.quipu/big-quakes.wasm", "--json"]).await;
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(shown["has_names"], true, "a fault's trace needs them");
    let digest = shown["digest"].as_str().expect("a digest");
    assert!(built.contains(&digest[..8]), "{built} {digest}");
}

#[tokio::test]
async fn what_cannot_be_a_project_is_refused_before_anything_is_written() {
    let author = Author::new();
    let error = author.refused(2, &["plugin", "new", "Big_Quakes", "--lang", "rust"]).await;
    assert!(error.contains("as in big-quakes, found \"Big_Quakes\""), "{error}");
    let error = author.refused(2, &["plugin", "new", "match", "--lang", "rust"]).await;
    assert!(error.contains("take a name of two words, as in match-messages"), "{error}");
    let error = author.refused(2, &["plugin", "new", "quakes", "--lang", "rusty"]).await;
    assert!(error.contains("no language \"rusty\"; there are rust"), "{error}");
    assert!(error.contains("did you mean rust?"), "{error}");
    assert_eq!(fs::read_dir(author.directory.path()).expect("a folder").count(), 0);
}

#[tokio::test]
async fn a_folder_with_something_in_it_is_left_alone() {
    let author = Author::new();
    fs::create_dir(author.path("quakes")).expect("made");
    author.done(&["plugin", "new", "quakes", "--lang", "rust"]).await;
    fs::write(author.path("quakes/src/lib.rs"), "mine").expect("written");
    let error = author.refused(1, &["plugin", "new", "quakes", "--lang", "rust"]).await;
    assert_eq!(
        error,
        "quipu: quakes is there and not empty; a project gets a folder of its own: say another name, or --dir\n"
    );
    assert_eq!(fs::read_to_string(author.path("quakes/src/lib.rs")).expect("there"), "mine");
    let elsewhere = author.done(&["plugin", "new", "quakes", "--lang", "rust", "--dir", "plugins/quakes"]).await;
    assert!(elsewhere.starts_with("Created plugins/quakes: src/lib.rs"), "{elsewhere}");
    assert!(author.path("plugins/quakes/.quipu/sdk/rust/src/lib.rs").exists());
}

#[tokio::test]
async fn what_is_wrong_in_a_project_has_file_line_and_key() {
    let author = Author::with("quakes").await;
    author.edit("quakes/plugin.toml", "[config]", "[confi]");
    let error = author.refused(78, &["plugin", "build", "quakes"]).await;
    assert_eq!(error, "quakes/plugin.toml:7:2: confi: unknown key; did you mean `config`?\n");
    author.edit("quakes/plugin.toml", "[confi]", "[limits]\ndeadline = \"2h\"\n[config]");
    author.edit("quakes/plugin.toml", "\"0.1.0\"", "\"0 1\"");
    let error = author.refused(78, &["plugin", "build", "quakes"]).await;
    let lines: Vec<&str> = error.lines().collect();
    assert!(lines[0].starts_with("quakes/plugin.toml:3:11: plugin.version: expected a version of 1 to 64"), "{error}");
    assert_eq!(lines[1], "quakes/plugin.toml:8:12: limits.deadline: expected 1ms to 1m, found 2h");
    let error = author.refused(1, &["plugin", "build"]).await;
    assert!(
        error.starts_with("quipu: plugin.toml is not there: a plugin's project has one; `quipu plugin new"),
        "{error}"
    );
}

#[tokio::test]
async fn a_variable_that_is_not_set_keeps_nobody_from_building() {
    let author = Author::with("secret-quakes").await;
    author.edit(
        "secret-quakes/plugin.toml",
        "at_least = 4.5",
        "at_least = 4.5\nkey = { env = \"QUIPU_TEST_NOT_SET\" }",
    );
    author.done(&["plugin", "build", "secret-quakes"]).await;
    author.done(&["plugin", "doctor", "--dir", "secret-quakes"]).await;
    let error = author.refused(78, &["plugin", "test", "secret-quakes"]).await;
    assert!(error.contains("config.key: the environment variable QUIPU_TEST_NOT_SET is not set"), "{error}");
    assert!(error.starts_with("secret-quakes/plugin.toml:"), "{error}");
}

#[tokio::test]
async fn the_compiler_is_quoted_and_the_file_of_before_stays() {
    let author = Author::with("typo-quakes").await;
    let built = author.path("typo-quakes/.quipu/typo-quakes.wasm");
    author.done(&["plugin", "build", "typo-quakes"]).await;
    let before = fs::read(&built).expect("built");
    author.edit("typo-quakes/src/lib.rs", "drop(\"small\")", "drop(5)");
    let error = author.refused(1, &["plugin", "build", "typo-quakes"]).await;
    assert!(error.contains("error[E0277]") && error.contains("--> src/lib.rs:11:"), "{error}");
    assert!(error.ends_with("quipu: typo-quakes: cargo build failed\n"), "{error}");
    assert_eq!(fs::read(&built).expect("still there"), before);
    author.edit("typo-quakes/src/lib.rs", "drop(5)", "{ let unused = 1; drop(\"small\") }");
    let warned = author.said(&["plugin", "build", "typo-quakes", "--debug"]).await;
    assert_eq!(warned.code, Some(0));
    assert!(warned.stderr.contains("warning: unused variable: `unused`"), "{}", warned.stderr);
    assert!(fs::read(&built).expect("built").len() > before.len() * 2, "debug information stays");
    let error = author.refused(1, &["plugin", "build", "typo-quakes", "--", "--features", "nope"]).await;
    assert!(error.contains("nope"), "{error}");
}

#[tokio::test]
async fn an_import_that_no_router_has_is_named() {
    let author = Author::with("calling-quakes").await;
    let import = "unsafe extern \"C\" {\n    safe fn system(command: u32) -> u32;\n}\n\nimpl Plugin";
    author.edit("calling-quakes/src/lib.rs", "impl Plugin", import);
    author.edit("calling-quakes/src/lib.rs", "drop(\"small\")", "drop(system(1).to_string())");
    let error = author.refused(1, &["plugin", "build", "calling-quakes"]).await;
    let expected = "quipu: plugin \"calling-quakes\": the plugin imports `env::system`, which no router gives it: ";
    assert!(error.starts_with(expected), "{error}");
    assert!(!author.path("calling-quakes/.quipu/calling-quakes.wasm").exists());
}

#[tokio::test]
async fn dependencies_have_the_routers_randomness() {
    let author = Author::with("random-quakes").await;
    let sdk = "quipu-plugin = { path = \".quipu/sdk/rust\" }";
    let random = "quipu-plugin = { path = \".quipu/sdk/rust\", features = [\"getrandom\"] }\ngetrandom = \"0.4\"";
    author.edit("random-quakes/Cargo.toml", sdk, random);
    let draw = "{ let mut n = [0]; getrandom::fill(&mut n)?; drop(n[0].to_string()) }";
    author.edit("random-quakes/src/lib.rs", "drop(\"small\")", draw);
    let built = author.done(&["plugin", "build", "random-quakes"]).await;
    assert!(built.contains("needs nothing"), "{built}");
}

#[tokio::test]
async fn the_doctor_names_what_is_missing_and_how_to_get_it() {
    let author = Author::with("quakes").await;
    let table = author.done(&["plugin", "doctor", "--dir", "quakes"]).await;
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["TOOL", "WANTED", "FOUND", "WHERE"]);
    assert_eq!((rows[1][0], rows[1].last()), ("cargo", Some(&"PATH")));
    let help = author.done(&["plugin", "doctor", "--help"]).await;
    assert!(help.contains("rust, c, zig, assemblyscript, js, ts, python, go"), "{help}");
    assert_eq!(rows[2][..2], ["wasm32-unknown-unknown", "there"]);
    assert_eq!(table.lines().last(), Some("all there for rust"));
    let nothing = author.path("nothing");
    fs::create_dir(&nothing).expect("made");
    let said = author.run(&["plugin", "doctor", "--lang", "rust"], &[("PATH", &nothing)]).await;
    assert_eq!(said.code, Some(1));
    assert!(said.stdout.contains("get it: https://rustup.rs"), "{}", said.stdout);
    assert!(said.stdout.contains("get it: rustup target add wasm32-unknown-unknown"), "{}", said.stdout);
    assert!(said.stdout.ends_with("2 missing for rust\n"), "{}", said.stdout);
    let said = author.run(&["plugin", "build", "quakes"], &[("PATH", &nothing)]).await;
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("needs wasm32-unknown-unknown; get it: rustup target add"), "{}", said.stderr);
    let said = author.run(&["plugin", "new", "other-quakes", "--lang", "rust"], &[("PATH", &nothing)]).await;
    assert!(said.stdout.contains("Missing cargo (system), wasm32-unknown-unknown (rustup). Next: "), "{}", said.stdout);
}
