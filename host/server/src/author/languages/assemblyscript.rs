//! AssemblyScript: `asc`. It cannot spell the names of the contract's exports, so they get them here.

use std::fs;
use std::path::{Path, PathBuf};

use super::Language;
use crate::author::embedded::{ASSEMBLYSCRIPT_SDK, ASSEMBLYSCRIPT_TEMPLATE};
use crate::author::job::{BuildError, Job};
use crate::author::wasm::rename_exports;

const COMPILER: &str = "assemblyscript";

pub(crate) static ASSEMBLYSCRIPT: Language = Language {
    name: "assemblyscript",
    source: "src/plugin.ts",
    sdk: ASSEMBLYSCRIPT_SDK,
    template: ASSEMBLYSCRIPT_TEMPLATE,
    tools: &["node", COMPILER],
    build,
};

/// What the SDK exports, and what the contract calls it. `fault` is for the compiler alone.
const EXPORTS: [(&str, Option<&str>); 4] = [
    ("configure", Some("quipu:plugin/handler@0.1.0#configure")),
    ("process", Some("quipu:plugin/handler@0.1.0#process")),
    ("post_process", Some("cabi_post_quipu:plugin/handler@0.1.0#process")),
    ("fault", None),
];
/// How the SDK's `entry.ts` names the plugin's source.
const SOURCE: &str = "\"../../src/plugin\"";

fn build(job: &Job<'_>) -> Result<PathBuf, BuildError> {
    let scratch = job.scratch()?;
    entry(job, &scratch.join("entry.ts"))?;
    let mut compiler = job.command(COMPILER)?;
    compiler.args([".quipu/build/entry.ts", "--path", ".quipu/sdk", "-O3", "--runtime", "minimal"]);
    // Names of functions come with it, and nothing that costs time.
    compiler.args(["--debug", "--use", "abort=.quipu/build/entry/fault", "-o", ".quipu/build/plugin.wasm"]);
    if !job.colours {
        compiler.arg("--noColors");
    }
    job.run(compiler.args(job.args))?;
    let (made, named) = (scratch.join("plugin.wasm"), scratch.join("named.wasm"));
    let bytes = fs::read(&made).map_err(BuildError::io(&made))?;
    let bytes = rename_exports(&bytes, &EXPORTS).map_err(|e| BuildError::Wrong(e.to_string()))?;
    fs::write(&named, bytes).map_err(BuildError::io(&named))?;
    Ok(named)
}

/// Writes the program's beginning: the SDK's, with the plugin's source as it is named in `plugin.toml`.
fn entry(job: &Job<'_>, file: &Path) -> Result<(), BuildError> {
    let (sdk, source) = (job.sdk().join("entry.ts"), job.source()?);
    let text = fs::read_to_string(&sdk).map_err(BuildError::io(&sdk))?;
    let module = source.with_extension("");
    let from_here =
        module.strip_prefix(&job.project.dir).map_or(module.clone(), |module| Path::new("../..").join(module));
    let text = text.replace(SOURCE, &format!("{:?}", from_here.display().to_string()));
    fs::write(file, text).map_err(BuildError::io(file))
}
