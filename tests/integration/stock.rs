//! The stock plugins on the engine of a router, with its limit of memory: what each README says is in `plugins/NAME/tests`.

use std::fs;
use std::path::Path;

use quipu_plugin_artifacts::{ALL, StockPlugin};
use quipu_tests::output_of;
use serde_json::Value;

use crate::QUIPU;

/// The limits that they are tried with: on a busy machine, 50 ms may all be waiting.
const LIMITS: &str =
    "[plugin]\nname = \"stock\"\nversion = \"0.1.0\"\nlanguage = \"rust\"\n[limits]\ndeadline = \"2s\"\n";
/// Cases of one plugin, at least.
const CASES_MIN: usize = 2;

#[tokio::test]
async fn every_stock_plugin_does_what_its_readme_says() {
    let mut wrong = Vec::new();
    for plugin in ALL {
        wrong.extend(failed_cases(plugin).await);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

async fn failed_cases(StockPlugin { name, path, .. }: &StockPlugin) -> Vec<String> {
    // A copy: of what fails, capsules are written beside it.
    let directory = tempfile::tempdir().expect("a directory");
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins").join(name).join("tests");
    fs::create_dir(directory.path().join("tests")).expect("made");
    fs::write(directory.path().join("plugin.toml"), LIMITS).expect("written");
    for entry in fs::read_dir(&cases).unwrap_or_else(|e| panic!("{name} has no cases: {e}")) {
        let entry = entry.expect("readable");
        fs::copy(entry.path(), directory.path().join("tests").join(entry.file_name())).expect("copied");
    }
    let arguments = ["plugin", "test", path, "--dir", ".", "--json"];
    let (code, said, error) = output_of(QUIPU, directory.path(), &arguments).await;
    let report: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{name}: {e}: {error}"));
    let failed = report["cases"].as_array().into_iter().flatten().filter(|case| case["passed"] == false);
    let failed: Vec<String> = failed.map(|case| format!("{name}: {case:#}")).collect();
    assert_eq!(code == Some(0), failed.is_empty(), "{name}: {error}");
    assert!(report["cases"].as_array().is_some_and(|cases| cases.len() >= CASES_MIN), "{name}: {CASES_MIN} at least");
    let limits = &report["limits"];
    assert_eq!((limits["deadline_ms"].as_f64(), limits["memory_bytes"].as_u64()), (Some(2_000.0), Some(64 << 20)));
    failed
}
