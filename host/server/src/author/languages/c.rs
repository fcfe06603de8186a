//! C: `zig cc`, for WebAssembly without an operating system and without a C library. The SDK's sources are compiled along
//! with the plugin's.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::Language;
use super::zig::{self, COMPILER};
use crate::author::embedded::{C_SDK, C_TEMPLATE};
use crate::author::job::{BuildError, Job};

pub(crate) static C: Language =
    Language { name: "c", source: "src/plugin.c", sdk: C_SDK, template: C_TEMPLATE, tools: &[COMPILER], build };

/// How every file is compiled. The memory instructions are what `memcpy` and its kin of the SDK become.
const FLAGS: [&str; 9] = [
    "cc",
    "-target",
    zig::TARGET,
    "-mcpu=generic+bulk_memory",
    "-std=c23",
    "-O2",
    "-Wall",
    "-Wextra",
    "-Wformat-security",
];

fn build(job: &Job<'_>) -> Result<PathBuf, BuildError> {
    let output = job.scratch()?.join("plugin.wasm");
    let mut compiler = zig::command(job)?;
    compiler.args(FLAGS);
    // Paths of debug information are those of the project.
    compiler.args([if job.debug { "-g" } else { "-g0" }, "-fdebug-compilation-dir=."]);
    compiler.arg(if job.colours { "-fdiagnostics-color=always" } else { "-fdiagnostics-color=never" });
    compiler.args(["-Wl,--no-entry".to_owned(), format!("-Wl,-z,stack-size={}", zig::STACK_BYTES)]);
    let sdk = zig::shown(job, &job.sdk());
    compiler.arg("-I").arg(&sdk).args(sources(job)?);
    job.run(compiler.args(job.args).arg("-o").arg(zig::shown(job, &output)))?;
    Ok(output)
}

/// All C files in the folder of the plugin's source, and those of the SDK; by paths as an author reads them.
fn sources(job: &Job<'_>) -> Result<Vec<OsString>, BuildError> {
    let source = job.source()?;
    let own = source.parent().unwrap_or(&job.project.dir);
    let mut files = c_files(own)?;
    if !files.contains(&source) {
        files.push(source);
    }
    files.extend(c_files(&job.sdk())?);
    Ok(files.iter().map(|file| zig::shown(job, file).into_os_string()).collect())
}

fn c_files(dir: &Path) -> Result<Vec<PathBuf>, BuildError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(BuildError::io(dir))? {
        let path = entry.map_err(BuildError::io(dir))?.path();
        if path.extension().is_some_and(|extension| extension == "c") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
