//! Zig, for WebAssembly without an operating system. The SDK's `root.zig` is the program; the plugin is a module of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::Language;
use crate::author::embedded::{ZIG_SDK, ZIG_TEMPLATE};
use crate::author::job::{BuildError, Job};

/// The compiler's name in `toolchains.toml`; it is the one of C as well.
pub(super) const COMPILER: &str = "ziglang";
pub(super) const TARGET: &str = "wasm32-freestanding";
/// Stack of a plugin: its own default would be 16 MiB of memory for every instance.
pub(super) const STACK_BYTES: u32 = 256 << 10;

pub(crate) static ZIG: Language =
    Language { name: "zig", source: "src/plugin.zig", sdk: ZIG_SDK, template: ZIG_TEMPLATE, tools: &[COMPILER], build };

fn build(job: &Job<'_>) -> Result<PathBuf, BuildError> {
    let output = job.scratch()?.join("plugin.wasm");
    let (sdk, source) = (job.sdk(), job.source()?);
    let module = |name: &str, file: &Path| format!("-M{name}={}", shown(job, file).display());
    let mut compiler = command(job)?;
    compiler.args([
        "build-exe",
        "-target",
        TARGET,
        "-O",
        "ReleaseSafe",
        "-fsingle-threaded",
        "-fno-entry",
        "-rdynamic",
    ]);
    compiler.args(["--name", "plugin", "--stack", &STACK_BYTES.to_string()]);
    compiler.args(["--color", if job.colours { "on" } else { "off" }]);
    compiler.args(["--dep", "plugin", "--dep", "quipu", &module("root", &sdk.join("root.zig"))]);
    compiler.args(["--dep", "quipu", &module("plugin", &source), &module("quipu", &sdk.join("quipu.zig"))]);
    compiler.arg(format!("-femit-bin={}", shown(job, &output).display()));
    job.run(compiler.args(job.args))?;
    Ok(output)
}

/// The compiler, with what it keeps: of its own parts beside the tools, of the project in `.quipu`.
pub(super) fn command(job: &Job<'_>) -> Result<Command, BuildError> {
    let mut command = job.command(COMPILER)?;
    command.env("ZIG_GLOBAL_CACHE_DIR", job.toolbox.dir().join("zig-cache"));
    command.env("ZIG_LOCAL_CACHE_DIR", job.scratch()?.join("zig-cache"));
    Ok(command)
}

/// A path as an author reads it in what the compiler says: from the project on.
pub(super) fn shown(job: &Job<'_>, path: &Path) -> PathBuf {
    path.strip_prefix(&job.project.dir).unwrap_or(path).to_path_buf()
}
