//! Mistakes that authors make, in Rust: what each is answered with names the plugin, the place where it has one, and what
//! to do.

use quipu_tests::quipu;

use crate::QUIPU;
use crate::author::Author;

/// The plugin's source with this as the body of `process`.
fn source(process: &str) -> String {
    format!(
        "use quipu_plugin::prelude::*;\n\n#[derive(Deserialize)]\nstruct BigQuakes {{\n    #[allow(dead_code)]\n    at_least: f64,\n}}\n\n\
         impl Plugin for BigQuakes {{\n    fn process(&mut self, message: &mut Message) -> Result<Verdict> {{\n        {process}\n    }}\n}}\n\
         plugin!(BigQuakes);\n"
    )
}

/// The line of `process` in that source.
const LINE: u32 = 11;

impl Author {
    /// Runs the project's plugin on one message: exit code, standard output and standard error.
    async fn one(&self, name: &str, process: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
        std::fs::write(self.path(&format!("{name}/src/lib.rs")), source(process)).expect("written");
        std::fs::write(self.path("input"), "{\"id\":\"ak0247\",\"properties\":{}}\n").expect("written");
        self.on_input(&[&["plugin", "run", name], arguments].concat()).await
    }

    async fn on_input(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = quipu(QUIPU, &self.path(""));
        command.env_remove("QUIPU_TOOLS").env("CARGO_TARGET_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/author"));
        command.args(arguments).stdin(std::fs::File::open(self.path("input")).expect("input"));
        let output = command.output().await.expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }
}

#[track_caller]
pub(crate) fn says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "{part:?} is missing:\n{said}");
    }
}

/// A file that names this version of the contract in the place of the one it is made for.
pub(crate) fn for_contract(file: &[u8], version: &str) -> Vec<u8> {
    let (from, to) = (&b"quipu:plugin/handler@0.1.0"[..], format!("quipu:plugin/handler@{version}"));
    let mut bytes = file.to_vec();
    let at: Vec<usize> = (0..file.len() - from.len()).filter(|&at| file[at..].starts_with(from)).collect();
    assert!(!at.is_empty(), "the file names its contract");
    for at in at {
        bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
    }
    bytes
}

/// What a file for version 0.2.0 of the contract is answered with.
pub(crate) const LATER: [&str; 3] =
    ["later.wasm is made for version 0.2.0 of the plugin contract", "this router has 0.1", "build it against"];

/// One project for all, since each build of another one compiles the SDK anew.
#[tokio::test]
async fn each_mistake_in_rust_is_answered_with_what_to_do() {
    let author = Author::with("mistaken").await;
    let forward = "let _ = message; Ok(forward())";

    // A wrong type in the configuration.
    let (code, _, said) = author.one("mistaken", forward, &["-c", "at_least=big"]).await;
    assert_eq!(code, Some(1));
    says(&said, &["plugin `mistaken` refuses its configuration: at_least: invalid type: string \"big\", expected f64"]);
    says(&said, &["-c KEY=VALUE, --config FILE, [config] of plugin.toml"]);

    // A field that is not there: the message is rejected, and the path is said.
    let missing =
        "let mag: f64 = message.json_at(\"properties.mag\")?; Ok(if mag > 0.0 { forward() } else { drop(\"small\") })";
    let (code, line, said) = author.one("mistaken", missing, &[]).await;
    assert_eq!(code, Some(0), "{said}");
    says(&line, &["\"verdict\":\"reject\"", "properties.mag"]);

    // A panic.
    let (code, line, said) = author.one("mistaken", "let _ = message; panic!(\"no place\")", &[]).await;
    assert_eq!(code, Some(1));
    says(&line, &["\"verdict\":\"fault\"", "\"reason\":\"no place\""]);
    says(
        &said,
        &[&format!("panic at src/lib.rs:{LINE}:"), "no place", "message   ak0247", "again     quipu plugin run"],
    );
    says(&said, &["plugin mistaken@", "a route tries it again", "json_at"]);

    // An endless loop.
    let (code, line, said) = author.one("mistaken", "let _ = message; loop {}", &[]).await;
    assert_eq!(code, Some(1));
    says(&line, &["\"kind\":\"deadline\""]);
    says(
        &said,
        &[
            "plugin mistaken@",
            "plugin ran over 50 ms",
            "an endless loop, or more work than `deadline` allows: [limits] in plugin.toml",
        ],
    );

    // Too much output.
    let flood = "message.set_payload(vec![0; 5 << 20]); Ok(forward())";
    let (code, line, said) = author.one("mistaken", flood, &[]).await;
    assert_eq!(code, Some(1));
    says(&line, &["\"kind\":\"output\""]);
    says(
        &said,
        &["plugin mistaken@", "output limit of 4 MiB reached", "more than `output` allows: [limits] in plugin.toml"],
    );

    // An import that nobody declared.
    let import =
        "unsafe extern \"C\" { fn system(x: u32) -> u32; } let _ = message; unsafe { system(1) }; Ok(forward())";
    let (code, _, said) = author.one("mistaken", import, &[]).await;
    assert_eq!(code, Some(1));
    says(&said, &["mistaken", "imports `env::system`"]);

    // The file of before, made for a contract of later.
    let built = std::fs::read(author.path("mistaken/.quipu/mistaken.wasm")).expect("built");
    std::fs::write(author.path("later.wasm"), for_contract(&built, "0.2.0")).expect("written");
    let (code, _, said) = author.on_input(&["plugin", "run", "later.wasm"]).await;
    assert_eq!(code, Some(1));
    says(&said, &LATER);
}

#[tokio::test]
async fn a_file_for_another_contract_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let module = "(module (memory (export \"memory\") 1)
        (func (export \"quipu:plugin/handler@0.2.0#configure\") (result i32) (i32.const 0)))";
    std::fs::write(directory.path().join("new.wasm"), wat::parse_str(module).expect("WAT")).expect("written");
    let (code, _, said) = quipu_tests::output_of(QUIPU, directory.path(), &["plugin", "run", "new.wasm"]).await;
    assert_eq!(code, Some(1));
    says(
        &said,
        &["new.wasm is made for version 0.2.0 of the plugin contract", "this router has 0.1", "build it against"],
    );
}
